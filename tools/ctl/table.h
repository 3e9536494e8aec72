/* table: the one description of every command of holdfastctl.
 *
 * Parsing, --help, docs/cli.md, the man pages and shell completion all come from these rows, so
 * that none of them can say something else than what the program does. commands.c holds the rows; a
 * test (tests/unit/tools/ctl_test_table.c) walks them: each has a summary, help, an example that
 * parses, and a handler. */
#ifndef TOOLS_CTL_TABLE_H
#define TOOLS_CTL_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a program that called holdfastctl needs to know; documented in docs/cli.md. */
enum ctl_exit {
    CTL_OK = 0,
    CTL_FAILURE = 1,     /* it was done and is not well (audit red), or something local failed */
    CTL_USAGE = 2,       /* nothing was done: the command line is wrong */
    CTL_UNREACHABLE = 3, /* nothing was done: no node, or no leader, in time */
    CTL_REFUSED = 4,     /* nothing was changed: the cluster said no */
    CTL_UNKNOWN = 5,     /* it may have been done: ask again with the same idempotency key */
};

enum ctl_type {
    CTL_FLAG,      /* given or not */
    CTL_TEXT,      /* anything that is UTF-8 */
    CTL_ID,        /* identifier of a SKU, sale, user, lease: str_is_identifier */
    CTL_KEY,       /* idempotency key or payment event id */
    CTL_ORDER,     /* an order id in its text form; value.u64 */
    CTL_U64,       /* within [min, max]; value.u64 */
    CTL_I64,       /* signed; value.i64 */
    CTL_DURATION,  /* 250ms, 10s, 15m, 2h, 30d; value.u64 in ms, within [min, max] */
    CTL_TIME,      /* RFC 3339, or now, +10s, -5m counted from the cluster's time: value.relative */
    CTL_CHOICE,    /* one of choices */
    CTL_FILE,      /* a path; - is standard input where the help says so */
    CTL_DIRECTORY, /* a path */
};

enum {
    CTL_REQUIRED = 1u << 0,
    CTL_REPEATED = 1u << 1, /* an option that may be given again; the last operand only */
};

/* An operand or an option. Options have lower-case names ("payment-timeout"), operands upper-case.
 */
struct ctl_parameter {
    const char *name;
    enum ctl_type type;
    const char *argument;    /* name of an option's argument in help; NULL for flags and operands */
    const char *help;        /* one line */
    const char *initial;     /* default as text, NULL for none */
    const char *choices;     /* CTL_CHOICE: "table|json|plain" */
    const char *environment; /* variable that gives it, NULL for none */
    uint64_t min, max;       /* CTL_U64, CTL_DURATION (ms); both 0: no bounds */
    unsigned flags;
    char letter; /* 0 for none */
};

/* Who may do it, and which options come with it. */
enum ctl_role {
    CTL_LOCAL,    /* needs no cluster */
    CTL_READER,   /* reads; has --consistency */
    CTL_WRITER,   /* changes business data; has --idempotency-key */
    CTL_OPERATOR, /* looks at or changes the cluster itself */
};

struct ctl;

struct ctl_command {
    const char *path;     /* "sale put" */
    const char *summary;  /* one line, no full stop */
    const char *help;     /* a paragraph or more: what it does, what it refuses */
    const char *examples; /* lines that can be typed, each starting with "holdfastctl" */
    const struct ctl_parameter *operands;
    size_t operands_count;
    const struct ctl_parameter *options;
    size_t options_count;
    enum ctl_role role;
    bool severe; /* asks at a terminal; has --yes and --confirm */
    enum ctl_exit (*run)(struct ctl *ctl);
};

struct ctl_group {
    const char *name;    /* first word of its commands' paths */
    const char *summary; /* one line */
};

extern const struct ctl_command ctl_commands[];
extern const size_t ctl_commands_count;
extern const struct ctl_group ctl_groups[];
extern const size_t ctl_groups_count;

/* Options that every command has, and those that come with a role or with being severe. */
extern const struct ctl_parameter ctl_global_options[];
extern const size_t ctl_global_options_count;
extern const struct ctl_parameter ctl_reader_options[];
extern const size_t ctl_reader_options_count;
extern const struct ctl_parameter ctl_writer_options[];
extern const size_t ctl_writer_options_count;
extern const struct ctl_parameter ctl_severe_options[];
extern const size_t ctl_severe_options_count;

/* All options of a command, its own first, in the order in which help lists them: calls each(ctx,
 * p). */
void ctl_each_option(const struct ctl_command *command,
                     void (*each)(void *ctx, const struct ctl_parameter *p), void *ctx);

const char *ctl_role_name(enum ctl_role role); /* "reader" */

/* Finds a command by its path, or NULL. */
const struct ctl_command *ctl_find_command(const char *path);

#endif
