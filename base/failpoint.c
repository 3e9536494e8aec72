/* The points of a program, their rules, and what happens when one fires. See failpoint.h.
 *
 * Every rule is under one lock; a point that is off does not take it. What a rule does, it does after
 * the lock is given back: others may sleep, be set and be listed meanwhile. */
#include "base/failpoint.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/prng.h"

#define POINTS_MAX 512
#define ERRNO_MAX  133 /* the largest that Linux has */

/* By the linker, of the section; weak: a program may have none. */
extern struct failpoint *__start_failpoints[] __attribute__((weak));
extern struct failpoint *__stop_failpoints[] __attribute__((weak));

struct failpoint_options failpoint_options;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct failpoint *points[POINTS_MAX]; /* sorted by name */
static size_t points_count;

/* ---- the points ---- */

static int by_name(const void *a, const void *b)
{
    const struct failpoint *const *left = a, *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

static void gather(void)
{
    pthread_condattr_t monotonic;
    CHECK(pthread_condattr_init(&monotonic) == 0);
    CHECK(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&changed, &monotonic) == 0);
    for (struct failpoint **p = __start_failpoints; p != __stop_failpoints; p++) {
        CHECK(points_count < POINTS_MAX);
        points[points_count++] = *p;
    }
    qsort(points, points_count, sizeof points[0], by_name);
    for (size_t i = 1; i < points_count; i++) {
        CHECK(strcmp(points[i - 1]->name, points[i]->name) != 0); /* a name stands for one moment */
    }
}

static struct failpoint *find(const char *name)
{
    CHECK(pthread_once(&once, gather) == 0);
    for (size_t i = 0; i < points_count; i++) {
        if (strcmp(points[i]->name, name) == 0) {
            return points[i];
        }
    }
    return NULL;
}

static const char *const kind_actions[] = {
    [FAILPOINT_MOMENT] = "sleep abort",
    [FAILPOINT_FAILS] = "return sleep abort",
    [FAILPOINT_WRITES] = "return torn sleep abort",
    [FAILPOINT_DROPS] = "drop sleep abort",
};

static bool accepts(enum failpoint_kind kind, enum failpoint_action action)
{
    switch (action) {
    case FAILPOINT_OFF:
    case FAILPOINT_SLEEP:
    case FAILPOINT_ABORT:
        return true;
    case FAILPOINT_RETURN:
        return kind == FAILPOINT_FAILS || kind == FAILPOINT_WRITES;
    case FAILPOINT_TORN:
        return kind == FAILPOINT_WRITES;
    case FAILPOINT_DROP_IT:
        return kind == FAILPOINT_DROPS;
    }
    CHECK_UNREACHABLE();
}

/* ---- rules ---- */

static int fail(char *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int fail(char *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, FAILPOINT_ERROR_SIZE, format, arguments);
    va_end(arguments);
    return -1;
}

static bool parse_u64(const char *text, uint64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return isdigit((unsigned char)text[0]) && errno == 0 && *end == '\0';
}

static bool parse_errno(const char *text, uint64_t *value)
{
    for (int e = 1; e <= ERRNO_MAX; e++) {
        const char *name = strerrorname_np(e);
        if (name != NULL && strcmp(name, text) == 0) {
            *value = (uint64_t)e;
            return true;
        }
    }
    return parse_u64(text, value) && *value >= 1 && *value <= ERRNO_MAX;
}

/* "word" or "word(argument)"; cuts the text in two. */
static bool split_argument(char *text, char **argument)
{
    size_t size = strlen(text);
    char *open = strchr(text, '(');
    *argument = NULL;
    if (open == NULL) {
        return strchr(text, ')') == NULL;
    }
    if (text[size - 1] != ')') {
        return false;
    }
    text[size - 1] = '\0';
    *open = '\0';
    *argument = open + 1;
    return true;
}

static int parse_action(char *text, struct failpoint_rule *rule, char *error)
{
    static const struct {
        const char *word;
        enum failpoint_action action;
        bool (*parse)(const char *text, uint64_t *value);
        const char *form;
    } actions[] = {
        {"off", FAILPOINT_OFF, NULL, "off"},
        {"return", FAILPOINT_RETURN, parse_errno, "return(EIO)"},
        {"sleep", FAILPOINT_SLEEP, parse_u64, "sleep(milliseconds)"},
        {"abort", FAILPOINT_ABORT, NULL, "abort"},
        {"torn", FAILPOINT_TORN, parse_u64, "torn(bytes)"},
        {"drop", FAILPOINT_DROP_IT, NULL, "drop"},
    };
    char *argument;
    bool whole = split_argument(text, &argument);
    for (size_t i = 0; i < ARRAY_COUNT(actions); i++) {
        if (strcmp(text, actions[i].word) != 0) {
            continue;
        }
        bool good = actions[i].parse == NULL
                        ? argument == NULL
                        : argument != NULL && actions[i].parse(argument, &rule->argument);
        rule->action = actions[i].action;
        return whole && good ? 0 : fail(error, "write %s", actions[i].form);
    }
    return fail(error, "'%s' is no action: off, return(ERRNO), sleep(MS), abort, torn(BYTES), drop",
                text);
}

static int parse_modifier(char *text, struct failpoint_rule *rule, char *error)
{
    char *end;
    if (strncmp(text, "p=", 2) == 0) {
        rule->p = strtod(text + 2, &end);
        bool good = isdigit((unsigned char)text[2]) && *end == '\0' && rule->p > 0 && rule->p <= 1;
        return good ? 0 : fail(error, "'%s': p is above 0 and at most 1", text);
    }
    if (strncmp(text, "nth=", 4) == 0) {
        bool good = parse_u64(text + 4, &rule->nth) && rule->nth > 0;
        return good ? 0 : fail(error, "'%s': nth is a whole number from 1", text);
    }
    if (strncmp(text, "count=", 6) == 0) {
        bool good = parse_u64(text + 6, &rule->count) && rule->count > 0;
        return good ? 0 : fail(error, "'%s': count is a whole number from 1", text);
    }
    return fail(error, "'%s' is no modifier: p=, nth=, count=", text);
}

static int parse_rule(const struct failpoint *p, const char *text, struct failpoint_rule *rule,
                      char *error)
{
    char copy[FAILPOINT_RULE_SIZE], why[FAILPOINT_ERROR_SIZE], *rest = copy;
    *rule = (struct failpoint_rule){.p = 1};
    if (!str_copy(copy, sizeof copy, str_from(text))) {
        return fail(error, "failpoint %s: a rule of more than %zu bytes", p->name, sizeof copy - 1);
    }
    str_copy(rule->text, sizeof rule->text, str_from(text));
    int rv = parse_action(strsep(&rest, ","), rule, why);
    while (rv == 0 && rest != NULL) {
        rv = parse_modifier(strsep(&rest, ","), rule, why);
    }
    if (rv < 0) {
        return fail(error, "failpoint %s: %.400s", p->name, why);
    }
    if (!accepts(p->kind, rule->action)) {
        return fail(error, "failpoint %s does not take '%.80s', only: off %s", p->name, text,
                    kind_actions[p->kind]);
    }
    return 0;
}

static void apply(struct failpoint *p, const struct failpoint_rule *rule)
{
    pthread_mutex_lock(&lock);
    p->rule = *rule;
    p->seen = p->done = 0;
    p->random = crc32c(0, p->name, strlen(p->name));
    p->version++;
    atomic_store(&p->armed, rule->action != FAILPOINT_OFF);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static int unknown(const char *name, char *error)
{
    return fail(error, "no failpoint '%.80s' in this program (HOLDFAST_FAILPOINTS=list prints them)",
                name);
}

int failpoint_set(const char *name, const char *action, char error[static FAILPOINT_ERROR_SIZE])
{
    struct failpoint_rule rule;
    struct failpoint *p = find(name);
    if (p == NULL) {
        return unknown(name, error);
    }
    if (parse_rule(p, action, &rule, error) < 0) {
        return -1;
    }
    apply(p, &rule);
    return 0;
}

/* All rules, first to see whether each is good. */
static int configure(const char *rules, bool only_check, char *error)
{
    char *copy = strdup(rules), *rest = copy;
    CHECK(copy != NULL);
    int rv = 0;
    for (char *item; rv == 0 && (item = strsep(&rest, ";")) != NULL;) {
        struct failpoint_rule rule;
        char *action = strchr(item, '=');
        if (item[0] == '\0') {
            continue;
        }
        if (action == NULL) {
            rv = fail(error, "'%.80s': write NAME=ACTION", item);
            break;
        }
        *action++ = '\0';
        struct failpoint *p = find(item);
        rv = p == NULL ? unknown(item, error) : parse_rule(p, action, &rule, error);
        if (rv == 0 && !only_check) {
            apply(p, &rule);
        }
    }
    free(copy);
    return rv;
}

int failpoint_configure(const char *rules, char error[static FAILPOINT_ERROR_SIZE])
{
    return configure(rules, true, error) < 0 ? -1 : configure(rules, false, error);
}

int failpoint_clear(const char *name)
{
    static const struct failpoint_rule off = {.action = FAILPOINT_OFF, .p = 1};
    struct failpoint *one = name != NULL ? find(name) : NULL;
    if (name != NULL && one == NULL) {
        return -1;
    }
    CHECK(pthread_once(&once, gather) == 0);
    for (size_t i = 0; i < points_count; i++) {
        if (one == NULL || points[i] == one) {
            apply(points[i], &off);
        }
    }
    return 0;
}

/* ---- listing ---- */

void failpoint_list(struct text *t)
{
    CHECK(pthread_once(&once, gather) == 0);
    for (size_t i = 0; i < points_count; i++) {
        struct failpoint *p = points[i];
        char rule[FAILPOINT_RULE_SIZE];
        pthread_mutex_lock(&lock);
        str_copy(rule, sizeof rule, str_from(atomic_load(&p->armed) ? p->rule.text : "off"));
        pthread_mutex_unlock(&lock);
        text_appendf(t, "%s\t%s\t%llu\t%llu\t%s\t%s\n", p->name, rule,
                     (unsigned long long)atomic_load(&p->evaluated),
                     (unsigned long long)atomic_load(&p->fired), kind_actions[p->kind], p->what);
    }
}

void failpoint_command(const char *line, struct text *answer)
{
    char error[FAILPOINT_ERROR_SIZE], copy[256], *rest = copy;
    if (!str_copy(copy, sizeof copy, str_from(line))) {
        text_appendf(answer, "error: a line of more than %zu bytes\n", sizeof copy - 1);
        return;
    }
    const char *verb = strsep(&rest, " "), *name = strsep(&rest, " "), *action = strsep(&rest, " ");
    int rv = -1;
    if (strcmp(verb, "list") == 0 && name == NULL) {
        failpoint_list(answer);
        rv = 0;
    } else if (strcmp(verb, "set") == 0 && action != NULL && rest == NULL) {
        rv = failpoint_set(name, action, error);
    } else if (strcmp(verb, "clear") == 0 && action == NULL) {
        rv = failpoint_clear(name);
        rv = rv < 0 ? unknown(name, error) : 0;
    } else {
        fail(error, "write: list, set NAME ACTION, or clear [NAME]");
    }
    if (rv < 0) {
        text_appendf(answer, "error: %s\n", error);
    } else {
        text_appendf(answer, "ok\n");
    }
}

/* ---- firing ---- */

/* Whether it fires now, and by what rule. */
static bool decide(struct failpoint *p, struct failpoint_rule *rule, uint64_t *version)
{
    bool fires = false;
    pthread_mutex_lock(&lock);
    *rule = p->rule;
    *version = p->version;
    if (atomic_load(&p->armed)) {
        uint64_t count = rule->count != 0 ? rule->count : rule->nth != 0 ? 1 : UINT64_MAX;
        p->seen++;
        fires = p->seen >= rule->nth;
        if (fires && rule->p < 1) {
            struct prng random = prng_init(p->random++);
            fires = (double)(prng_next(&random) >> 11) * 0x1p-53 < rule->p;
        }
        if (fires) {
            p->done++;
            atomic_fetch_add(&p->fired, 1);
            atomic_store(&p->armed, p->done < count);
        }
        if (fires && p->done == 1) {
            log_warn("failpoint %s fires: %s", p->name, rule->text);
        }
    }
    pthread_mutex_unlock(&lock);
    return fires;
}

/* Until the time is over or the point gets another rule. */
static void sleep_on(struct failpoint *p, uint64_t ms, uint64_t version)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(ms / 1000);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&lock);
    int rv = 0;
    while (p->version == version && rv == 0) {
        rv = pthread_cond_timedwait(&changed, &lock, &until);
    }
    pthread_mutex_unlock(&lock);
}

static int act(struct failpoint *p, const struct failpoint_rule *rule, uint64_t version)
{
    switch (rule->action) {
    case FAILPOINT_OFF:
        return 0;
    case FAILPOINT_RETURN:
        errno = (int)rule->argument;
        return -(int)rule->argument;
    case FAILPOINT_SLEEP:
        sleep_on(p, rule->argument, version);
        return 0;
    case FAILPOINT_DROP_IT:
        return 1;
    case FAILPOINT_ABORT:
    case FAILPOINT_TORN:
        abort();
    }
    CHECK_UNREACHABLE();
}

int failpoint_fire(struct failpoint *p)
{
    struct failpoint_rule rule;
    uint64_t version;
    return decide(p, &rule, &version) ? act(p, &rule, version) : 0;
}

/* What the write would have put on the disk, but only the first bytes of it. A direct one would refuse
 * part of a sector. */
static void write_part(int file, const void *data, size_t size, int64_t offset)
{
    int flags = fcntl(file, F_GETFL);
    if (flags >= 0 && (flags & O_DIRECT) != 0) {
        (void)fcntl(file, F_SETFL, flags & ~O_DIRECT);
    }
    ssize_t n = offset >= 0 ? pwrite(file, data, size, (off_t)offset) : write(file, data, size);
    (void)n; /* a crash may leave even less */
    (void)fsync(file);
}

int failpoint_fire_write(struct failpoint *p, int file, const void *data, size_t size,
                         int64_t offset)
{
    struct failpoint_rule rule;
    uint64_t version;
    if (!decide(p, &rule, &version)) {
        return 0;
    }
    if (rule.action == FAILPOINT_TORN) {
        write_part(file, data, rule.argument < size ? (size_t)rule.argument : size, offset);
    }
    return act(p, &rule, version);
}

/* ---- start ---- */

static const char *given(const char *option, const char *variable)
{
    const char *value = option != NULL ? option : getenv(variable);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

int failpoint_start(void)
{
    char error[FAILPOINT_ERROR_SIZE];
    const char *rules = given(failpoint_options.rules, "HOLDFAST_FAILPOINTS");
    const char *path = given(failpoint_options.socket, "HOLDFAST_FAILPOINT_SOCKET");
    if (rules != NULL && strcmp(rules, "list") == 0) {
        struct text t = TEXT_INIT;
        failpoint_list(&t);
        fputs(text_cstring(&t), stdout);
        text_close(&t);
        return 0;
    }
    if ((rules != NULL && failpoint_configure(rules, error) < 0) ||
        (path != NULL && failpoint_listen(path, error) < 0)) {
        fprintf(stderr, "%s\n", error);
        return 2;
    }
    return -1;
}
