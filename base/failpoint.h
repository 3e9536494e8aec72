/* failpoint: named moments of the program at which a test makes something go wrong.
 *
 * Only in builds with -Dfailpoints=true (HOLDFAST_FAILPOINTS is defined then). In every other build
 * the macros are constants, and neither symbol nor string of this is in the program: tests/tidy looks.
 *
 *     FAILPOINT("apply/after-apply", "the batch is applied, nobody is answered yet");
 *     int rv = FAILPOINT_ERROR("log/before-sync-dir", "renamed, the directory is not synced");
 *
 * A point is declared where it is used: its name (area/moment, once in a program), one line on the
 * moment, and by the macro what may be done to it:
 *
 *     every point       off, sleep(ms), abort
 *     FAILPOINT_ERROR   also return(ERRNO): the step fails as if the system had said so
 *     FAILPOINT_WRITE   also return(ERRNO), and torn(n): n bytes are written, then it aborts
 *     FAILPOINT_DROP    also drop: what was to be sent or told is not
 *
 * Rules: "NAME=ACTION[,p=P][,nth=N][,count=N][;NAME=…]". p: fires with this probability, drawn from a
 * seed that is the point's own. nth: not before the Nth evaluation since it was set, and then once.
 * count: so many times, then off. They come from HOLDFAST_FAILPOINTS or --failpoints ("list" prints the
 * points and ends the program), and while it runs over the socket --failpoint-socket PATH, one line a
 * connection:
 *     list | set NAME ACTION[,…] | clear [NAME]
 * list answers a line a point: name, rule, evaluated, fired, actions it takes, what it is, tabs between.
 * The last line is "ok" or "error: why".
 *
 * A point that is off costs one counter and one predictable branch. Points may be hit on any thread; an
 * abort is a crash: nothing is flushed or answered. Failure modes: a rule that names no point of this
 * program, or an action that the point does not take, is refused as a whole with a message; a program
 * that was started with one ends with status 2. */
#ifndef BASE_FAILPOINT_H
#define BASE_FAILPOINT_H

#ifndef HOLDFAST_FAILPOINTS

#define FAILPOINT(name, what)                                 ((void)0)
#define FAILPOINT_ERROR(name, what)                           (0)
#define FAILPOINT_DROP(name, what)                            (0)
#define FAILPOINT_WRITE(name, what, file, data, size, offset) (0)
#define FAILPOINT_OPTIONS
#define FAILPOINT_START() (-1)

#else

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/options.h"
#include "base/text.h"

/* The moment passes; all but sleep and abort have no effect here, and are refused. */
#define FAILPOINT(name, what) ((void)failpoint_hit(FAILPOINT_HERE_(FAILPOINT_MOMENT, name, what)))
/* 0, or a negative errno, errno being set, too: then the step that follows is left out. */
#define FAILPOINT_ERROR(name, what) failpoint_hit(FAILPOINT_HERE_(FAILPOINT_FAILS, name, what))
/* Nonzero: leave it out. */
#define FAILPOINT_DROP(name, what) (failpoint_hit(FAILPOINT_HERE_(FAILPOINT_DROPS, name, what)) > 0)
/* Before a write of size bytes to a file: as FAILPOINT_ERROR. offset -1: where the file stands. */
#define FAILPOINT_WRITE(name, what, file, data, size, offset)                                      \
    failpoint_hit_write(FAILPOINT_HERE_(FAILPOINT_WRITES, name, what), file, data, size, offset)

/* Rows for a program's table of options, and what its main does after it has read them: go on when it
 * is negative, else end with this status. Before other threads. */
#define FAILPOINT_OPTIONS                                                                          \
    {"failpoints", 0, OPTION_TEXT, &failpoint_options.rules, NULL, "RULES",                        \
     "what fails and when, e.g. wal/before-write=abort,nth=3; list: print the points", 0, 0},      \
        {"failpoint-socket", 0, OPTION_TEXT, &failpoint_options.socket, NULL, "PATH",              \
         "Unix socket where failpoints are listed and set while the program runs", 0, 0},
#define FAILPOINT_START() failpoint_start()

enum failpoint_kind { FAILPOINT_MOMENT, FAILPOINT_FAILS, FAILPOINT_WRITES, FAILPOINT_DROPS };

enum failpoint_action {
    FAILPOINT_OFF,
    FAILPOINT_RETURN,
    FAILPOINT_SLEEP,
    FAILPOINT_ABORT,
    FAILPOINT_TORN,
    FAILPOINT_DROP_IT
};

#define FAILPOINT_RULE_SIZE  96 /* of one rule's text, with its NUL */
#define FAILPOINT_ERROR_SIZE 512

struct failpoint_rule {
    enum failpoint_action action;
    uint64_t argument; /* errno, milliseconds or bytes */
    double p;          /* 1: always */
    uint64_t nth, count; /* 0: not given */
    char text[FAILPOINT_RULE_SIZE];
};

struct failpoint {
    const char *name, *what;
    enum failpoint_kind kind;
    atomic_bool armed;
    atomic_uint_fast64_t evaluated, fired; /* since the program started */
    /* under the lock of failpoint.c */
    struct failpoint_rule rule;
    uint64_t seen, done; /* evaluations and firings since the rule was set */
    uint64_t random;
    uint64_t version; /* grows with each rule: ends a sleep */
};

/* As given by options; NULL: the environment is asked. */
extern struct failpoint_options {
    const char *rules, *socket;
} failpoint_options;

/* Addresses of all points of the program, gathered by the linker. Pointers, because the linker may
 * leave gaps between larger things. */
#define FAILPOINT_HERE_(kind_, name_, what_)                                                       \
    __extension__({                                                                                \
        static struct failpoint failpoint_ = {.name = (name_), .what = (what_), .kind = (kind_)};  \
        static struct failpoint *failpoint_listed_                                                 \
            __attribute__((section("failpoints"), used)) = &failpoint_;                            \
        &failpoint_;                                                                               \
    })

int failpoint_fire(struct failpoint *p);
int failpoint_fire_write(struct failpoint *p, int file, const void *data, size_t size,
                         int64_t offset);

static inline bool failpoint_is_armed(struct failpoint *p)
{
    atomic_fetch_add_explicit(&p->evaluated, 1, memory_order_relaxed);
    return __builtin_expect(atomic_load_explicit(&p->armed, memory_order_relaxed), 0);
}

/* 0: go on. Negative: an errno. 1: drop. */
static inline int failpoint_hit(struct failpoint *p)
{
    return failpoint_is_armed(p) ? failpoint_fire(p) : 0;
}

static inline int failpoint_hit_write(struct failpoint *p, int file, const void *data, size_t size,
                                      int64_t offset)
{
    return failpoint_is_armed(p) ? failpoint_fire_write(p, file, data, size, offset) : 0;
}

/* ---- rules; on any thread ---- */

/* Several rules as in the environment: all are taken, or none. 0, or -1 with what is wrong. */
int failpoint_configure(const char *rules, char error[static FAILPOINT_ERROR_SIZE]);
/* One rule: action is "abort,nth=3" and the like. 0, or -1 with what is wrong. */
int failpoint_set(const char *name, const char *action, char error[static FAILPOINT_ERROR_SIZE]);
/* NULL: all of them. -1 when there is no such point. Ends sleeps, too. */
int failpoint_clear(const char *name);
/* Appends the lines of `list`, sorted by name. */
void failpoint_list(struct text *t);
/* Carries out one line of the socket's protocol and appends the answer. */
void failpoint_command(const char *line, struct text *answer);

/* ---- start ---- */

/* -1: the program goes on. 0: the points were printed. 2: it said on stderr what is wrong. */
int failpoint_start(void);
/* Listens and answers on a thread of its own, for the life of the process. A socket that is there
 * already is replaced. 0, or -1 with what is wrong. */
int failpoint_listen(const char *path, char error[static FAILPOINT_ERROR_SIZE]);

#endif
#endif
