/* parse: the command line into checked values. Pure: reads argv, an environment that is handed in
 * and nothing else, so that every usage error is found before anything is done. */
#ifndef TOOLS_CTL_PARSE_H
#define TOOLS_CTL_PARSE_H

#include "base/str.h"
#include "base/text.h"
#include "tools/ctl/table.h"

#define CTL_VALUES_MAX 48 /* operands and options of one command */
#define CTL_ITEMS_MAX  64 /* repetitions of one of them: SALE_OFFERS_MAX */

struct ctl_value {
    const struct ctl_parameter *parameter;
    bool given;       /* by flag, environment or default */
    bool explicit;    /* by flag or operand */
    const char *text; /* the last one given; NULL when not given */
    uint64_t u64;
    int64_t i64;   /* CTL_TIME: ms since 1970, or relative to now */
    bool relative; /* CTL_TIME: i64 counts from now */
    const char *items[CTL_ITEMS_MAX];
    size_t items_count;
};

struct ctl_arguments {
    const struct ctl_command *command;
    struct ctl_value values[CTL_VALUES_MAX];
    size_t count;
};

enum parse_result {
    PARSE_OK,
    PARSE_HELP,    /* help was asked for: topic says of what */
    PARSE_INVALID, /* message says why, and what to try */
};

struct parse_outcome {
    struct text topic;   /* PARSE_HELP: "" for the overview, else a group or a command */
    struct text message; /* PARSE_INVALID: lines for stderr */
};

typedef const char *(*parse_environment)(const char *name);

/* argv[0] is skipped. Texts are borrowed from argv, the environment and the table. The outcome's
 * texts are the caller's to close. */
enum parse_result parse_command_line(int argc, char **argv, parse_environment environment,
                                     struct ctl_arguments *arguments,
                                     struct parse_outcome *outcome);

/* The value of an operand or option by its name, which must be one of the command's: given tells
 * whether it has one. */
const struct ctl_value *ctl_value(const struct ctl_arguments *a, const char *name);
/* Shorthands: the text (NULL when not given); whether it was given. */
const char *ctl_text(const struct ctl_arguments *a, const char *name);
bool ctl_given(const struct ctl_arguments *a, const char *name);

/* "250ms", "10s", "15m", "2h", "30d" into milliseconds. Returns 0 or -1. */
int parse_duration(const char *text, uint64_t *ms);
/* RFC 3339 into milliseconds since 1970, or "now", "+10s", "-5m" with *relative set. Returns 0 or
 * -1. */
int parse_time(const char *text, int64_t *ms, bool *relative);
/* Whole numbers, the whole text. Return 0 or -1. */
int parse_u64(const char *text, uint64_t *value);
int parse_i64(const char *text, int64_t *value);

#endif
