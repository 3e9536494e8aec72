/* Walks argv once: words that name the command come first, then operands and options in any order,
 * "--" ends the options. Failure modes: all of them are PARSE_INVALID with a message that names the
 * wrong word and the command to try next. Nothing is guessed: an unknown word is refused with the
 * nearest known one as a suggestion. */
#include "tools/ctl/parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "proto/limits.h"
#include "proto/order_id.h"

int parse_u64(const char *text, uint64_t *value)
{
    if (!isdigit((unsigned char)text[0])) {
        return -1;
    }
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0') {
        return -1;
    }
    *value = n;
    return 0;
}

int parse_i64(const char *text, int64_t *value)
{
    bool negative = text[0] == '-';
    uint64_t magnitude;
    if (parse_u64(text + (negative || text[0] == '+' ? 1 : 0), &magnitude) != 0 ||
        magnitude > INT64_MAX) {
        return -1;
    }
    *value = negative ? -(int64_t)magnitude : (int64_t)magnitude;
    return 0;
}

int parse_duration(const char *text, uint64_t *ms)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    if (!isdigit((unsigned char)text[0])) {
        return -1;
    }
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno != 0) {
        return -1;
    }
    for (size_t i = 0; i < ARRAY_COUNT(units); i++) {
        if (strcmp(end, units[i].unit) == 0) {
            return __builtin_mul_overflow((uint64_t)n, units[i].ms, ms) ? -1 : 0;
        }
    }
    return -1;
}

int parse_time(const char *text, int64_t *ms, bool *relative)
{
    *relative = text[0] == '+' || text[0] == '-' || strcmp(text, "now") == 0;
    if (!*relative) {
        return clock_parse_rfc3339(str_from(text), ms);
    }
    uint64_t offset = 0;
    if (text[0] != 'n' && (parse_duration(text + 1, &offset) != 0 || offset > TIME_MS_MAX)) {
        return -1;
    }
    *ms = text[0] == '-' ? -(int64_t)offset : (int64_t)offset;
    return 0;
}

static bool is_choice(const char *choices, const char *text)
{
    size_t len = strlen(text);
    for (const char *c = choices; c != NULL; c = strchr(c, '|')) {
        c += *c == '|' ? 1 : 0;
        if (strncmp(c, text, len) == 0 && (c[len] == '|' || c[len] == '\0') && len > 0) {
            return true;
        }
    }
    return false;
}

/* Checks one text against its parameter and keeps it. Returns NULL, or what it must be. */
static const char *set_value(struct ctl_value *v, const char *text)
{
    const struct ctl_parameter *p = v->parameter;
    bool bounded = p->min != 0 || p->max != 0;
    switch (p->type) {
    case CTL_FLAG:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
            return "must be true or false";
        }
        break;
    case CTL_TEXT:
        if (!str_is_utf8(str_from(text))) {
            return "must be UTF-8";
        }
        break;
    case CTL_ID:
        if (!str_is_identifier(str_from(text), ID_SIZE_MAX)) {
            return "must be 1 to 64 of the characters A-Z a-z 0-9 . _ : @ | + ~ -";
        }
        break;
    case CTL_KEY:
        if (!str_is_identifier(str_from(text), KEY_SIZE_MAX)) {
            return "must be 1 to 128 of the characters A-Z a-z 0-9 . _ : @ | + ~ -";
        }
        break;
    case CTL_ORDER:
        if (order_id_parse(str_from(text), &v->u64) != 0) {
            return "must be an order id, 13 characters such as 00000G0008041";
        }
        break;
    case CTL_U64:
        if (parse_u64(text, &v->u64) != 0) {
            return "must be a whole number";
        }
        break;
    case CTL_I64:
        if (parse_i64(text, &v->i64) != 0) {
            return "must be a whole number such as 5 or -5";
        }
        break;
    case CTL_DURATION:
        if (parse_duration(text, &v->u64) != 0) {
            return "must be a duration such as 250ms, 10s, 15m, 2h or 30d";
        }
        break;
    case CTL_TIME:
        if (parse_time(text, &v->i64, &v->relative) != 0) {
            return "must be a time such as 2026-11-11T20:00:00Z, now or +10s";
        }
        break;
    case CTL_CHOICE:
        if (!is_choice(p->choices, text)) {
            return "must be one of";
        }
        break;
    case CTL_FILE:
    case CTL_DIRECTORY:
        if (text[0] == '\0') {
            return "must be a path";
        }
        break;
    }
    if (bounded && (p->type == CTL_U64 || p->type == CTL_DURATION) &&
        (v->u64 < p->min || v->u64 > p->max)) {
        return "is out of range";
    }
    if ((p->flags & CTL_REPEATED) != 0) {
        if (v->items_count == CTL_ITEMS_MAX) {
            return "is given too often";
        }
        v->items[v->items_count++] = text;
    }
    v->text = text;
    v->given = p->type != CTL_FLAG || text[0] == 't';
    return NULL;
}

static void add_value(void *ctx, const struct ctl_parameter *p)
{
    struct ctl_arguments *a = ctx;
    CHECK(a->count < CTL_VALUES_MAX);
    a->values[a->count++] = (struct ctl_value){.parameter = p};
}

struct parse {
    int argc;
    char **argv;
    struct ctl_arguments *arguments;
    struct parse_outcome *outcome;
    size_t operands_given;
};

static enum parse_result say_wrong_value(struct parse *p, const struct ctl_value *v,
                                         const char *text, const char *wrong, const char *origin)
{
    const struct ctl_parameter *parameter = v->parameter;
    struct text *m = &p->outcome->message;
    bool operand = parameter->argument == NULL && parameter->type != CTL_FLAG;
    text_appendf(m, "'%s' %s %s%s %s", text, origin, operand ? "" : "--", parameter->name, wrong);
    if (parameter->type == CTL_CHOICE) {
        text_appendf(m, " %s", parameter->choices);
    }
    if (parameter->max != 0 && parameter->type == CTL_DURATION) {
        text_appendf(m, " (%llums to %llums)", (unsigned long long)parameter->min,
                     (unsigned long long)parameter->max);
    } else if (parameter->max != 0) {
        text_appendf(m, " (%llu to %llu)", (unsigned long long)parameter->min,
                     (unsigned long long)parameter->max);
    }
    text_appendf(m, "\ntry: holdfastctl %s --help\n", p->arguments->command->path);
    return PARSE_INVALID;
}

/* ---- suggestions ---- */

static size_t edit_distance(const char *a, size_t a_len, const char *b)
{
    size_t row[48];
    size_t b_len = strlen(b);
    if (a_len > 40 || b_len > 40) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= b_len; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t above = row[j];
            size_t best = diagonal + (a[i - 1] != b[j - 1] ? 1 : 0);
            best = above + 1 < best ? above + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            row[j] = best;
            diagonal = above;
        }
    }
    return row[b_len];
}

struct nearest {
    const char *word;
    size_t len;
    const char *best;
    size_t distance;
};

static void consider(struct nearest *n, const char *candidate)
{
    size_t d = edit_distance(n->word, n->len, candidate);
    if (d < n->distance) {
        n->distance = d;
        n->best = candidate;
    }
}

static void consider_option(void *ctx, const struct ctl_parameter *p)
{
    consider(ctx, p->name);
}

static enum parse_result unknown_option(struct parse *p, const char *word, size_t len)
{
    struct text *m = &p->outcome->message;
    struct nearest n = {word + 2, len >= 2 ? len - 2 : 0, NULL, 3};
    text_appendf(m, "unknown option '%.*s' of '%s'", (int)len, word, p->arguments->command->path);
    if (len > 3) {
        ctl_each_option(p->arguments->command, consider_option, &n);
    }
    if (n.best != NULL) {
        text_appendf(m, ", did you mean --%s?", n.best);
    }
    text_appendf(m, "\ntry: holdfastctl %s --help\n", p->arguments->command->path);
    return PARSE_INVALID;
}

static bool is_group(const char *word)
{
    for (size_t i = 0; i < ctl_commands_count; i++) {
        size_t len = strlen(word);
        if (strncmp(ctl_commands[i].path, word, len) == 0 && ctl_commands[i].path[len] == ' ') {
            return true;
        }
    }
    return false;
}

static enum parse_result unknown_command(struct parse *p, const char *group, const char *word)
{
    struct text *m = &p->outcome->message;
    struct nearest n = {word, strlen(word), NULL, 3};
    for (size_t i = 0; i < ctl_commands_count; i++) {
        const char *path = ctl_commands[i].path;
        const char *space = strchr(path, ' ');
        if (group != NULL && space != NULL && strlen(group) == (size_t)(space - path) &&
            strncmp(path, group, (size_t)(space - path)) == 0) {
            consider(&n, space + 1);
        } else if (group == NULL && space == NULL) {
            consider(&n, path);
        }
    }
    for (size_t i = 0; group == NULL && i < ctl_groups_count; i++) {
        consider(&n, ctl_groups[i].name);
    }
    const char *space = group != NULL ? " " : "";
    group = group != NULL ? group : "";
    text_appendf(m, "unknown command '%s%s%s'", group, space, word);
    if (n.best != NULL) {
        text_appendf(m, ", did you mean '%s%s%s'?", group, space, n.best);
    }
    text_appendf(m, "\ntry: holdfastctl %s%s--help\n", group, space);
    return PARSE_INVALID;
}

/* ---- the command's words ---- */

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* Finds the command that the leading words name; *used is how many they are. */
static enum parse_result find_command(struct parse *p, int *used)
{
    const char *first = p->argc > 1 ? p->argv[1] : NULL;
    if (first == NULL) {
        text_appendf(&p->outcome->message, "which command?\ntry: holdfastctl --help\n");
        return PARSE_INVALID;
    }
    if (is_help(first)) {
        return PARSE_HELP;
    }
    if (strcmp(first, "help") == 0) {
        for (int i = 2; i < p->argc; i++) {
            text_appendf(&p->outcome->topic, "%s%s", i > 2 ? " " : "", p->argv[i]);
        }
        const char *topic = text_cstring(&p->outcome->topic);
        if (p->argc > 2 && ctl_find_command(topic) == NULL && !is_group(topic)) {
            text_appendf(&p->outcome->message, "no help on '%s'\ntry: holdfastctl --help\n", topic);
            return PARSE_INVALID;
        }
        return PARSE_HELP;
    }
    if (strcmp(first, "--version") == 0) {
        first = "version";
    }
    *used = 1;
    p->arguments->command = ctl_find_command(first);
    const char *second = p->argc > 2 ? p->argv[2] : NULL;
    if (is_group(first)) {
        /* A word may be a command and a group ("node" never is): the longer path wins. */
        if (second != NULL && second[0] != '-') {
            char path[96];
            int n = snprintf(path, sizeof path, "%s %s", first, second);
            const struct ctl_command *c =
                n > 0 && (size_t)n < sizeof path ? ctl_find_command(path) : NULL;
            if (c == NULL && p->arguments->command == NULL) {
                return unknown_command(p, first, second);
            }
            if (c != NULL) {
                p->arguments->command = c;
                *used = 2;
            }
        } else if (p->arguments->command == NULL) {
            if (second != NULL && is_help(second)) {
                text_appendf(&p->outcome->topic, "%s", first);
                return PARSE_HELP;
            }
            text_appendf(&p->outcome->message,
                         "which command of '%s'?\ntry: holdfastctl %s --help\n", first, first);
            return PARSE_INVALID;
        }
    }
    if (p->arguments->command == NULL) {
        if (first[0] == '-') {
            text_appendf(&p->outcome->message,
                         "options come after the command, '%s' came first\n"
                         "try: holdfastctl --help\n",
                         first);
            return PARSE_INVALID;
        }
        return unknown_command(p, NULL, first);
    }
    return PARSE_OK;
}

/* ---- operands and options ---- */

static struct ctl_value *find_value(struct ctl_arguments *a, const char *name, size_t len)
{
    for (size_t i = a->command->operands_count; i < a->count; i++) {
        const char *known = a->values[i].parameter->name;
        if (strlen(known) == len && memcmp(known, name, len) == 0) {
            return &a->values[i];
        }
    }
    return NULL;
}

static struct ctl_value *find_letter(struct ctl_arguments *a, char letter)
{
    for (size_t i = a->command->operands_count; i < a->count; i++) {
        if (letter != '\0' && a->values[i].parameter->letter == letter) {
            return &a->values[i];
        }
    }
    return NULL;
}

static enum parse_result parse_operand(struct parse *p, const char *word)
{
    struct ctl_arguments *a = p->arguments;
    size_t at = p->operands_given;
    if (at >= a->command->operands_count && at > 0 &&
        (a->values[a->command->operands_count - 1].parameter->flags & CTL_REPEATED) != 0) {
        at = a->command->operands_count - 1;
    }
    if (at >= a->command->operands_count) {
        text_appendf(&p->outcome->message,
                     "'%s' is one word too many for '%s'\n"
                     "try: holdfastctl %s --help\n",
                     word, a->command->path, a->command->path);
        return PARSE_INVALID;
    }
    p->operands_given++;
    struct ctl_value *v = &a->values[at];
    const char *wrong = set_value(v, word);
    v->explicit = true;
    return wrong == NULL ? PARSE_OK : say_wrong_value(p, v, word, wrong, "for");
}

static enum parse_result parse_option(struct parse *p, int *i)
{
    const char *word = p->argv[*i];
    const char *equals = word[1] == '-' ? strchr(word, '=') : NULL;
    size_t len = equals != NULL ? (size_t)(equals - word) : strlen(word);
    struct ctl_value *v = NULL;
    if (word[1] == '-') {
        v = find_value(p->arguments, word + 2, len - 2);
    } else if (len == 2) {
        v = find_letter(p->arguments, word[1]);
    }
    if (v == NULL) {
        return unknown_option(p, word, len);
    }
    const char *text = equals != NULL ? equals + 1 : NULL;
    if (text == NULL && v->parameter->type == CTL_FLAG) {
        text = "true";
    } else if (text == NULL) {
        if (*i + 1 >= p->argc) {
            text_appendf(&p->outcome->message, "--%s needs its %s\ntry: holdfastctl %s --help\n",
                         v->parameter->name, v->parameter->argument, p->arguments->command->path);
            return PARSE_INVALID;
        }
        text = p->argv[++*i];
    }
    bool repeated = (v->parameter->flags & CTL_REPEATED) != 0;
    if (v->explicit && !repeated) {
        text_appendf(&p->outcome->message, "--%s is given twice\ntry: holdfastctl %s --help\n",
                     v->parameter->name, p->arguments->command->path);
        return PARSE_INVALID;
    }
    v->explicit = true;
    const char *wrong = set_value(v, text);
    return wrong == NULL ? PARSE_OK : say_wrong_value(p, v, text, wrong, "for");
}

static enum parse_result parse_words(struct parse *p, int from)
{
    /* Who asks for help gets it, whatever else is wrong with the line. */
    for (int i = from; i < p->argc && strcmp(p->argv[i], "--") != 0; i++) {
        if (is_help(p->argv[i])) {
            text_appendf(&p->outcome->topic, "%s", p->arguments->command->path);
            return PARSE_HELP;
        }
    }
    bool options = true;
    for (int i = from; i < p->argc; i++) {
        const char *word = p->argv[i];
        bool number = word[0] == '-' && isdigit((unsigned char)word[1]);
        if (options && strcmp(word, "--") == 0) {
            options = false;
            continue;
        }
        enum parse_result rv;
        if (options && word[0] == '-' && word[1] != '\0' && !number) {
            rv = parse_option(p, &i);
        } else {
            rv = parse_operand(p, word);
        }
        if (rv != PARSE_OK) {
            return rv;
        }
    }
    return PARSE_OK;
}

/* What no flag gave comes from the environment, else from the table. */
static enum parse_result fill_in(struct parse *p, parse_environment environment)
{
    struct ctl_arguments *a = p->arguments;
    for (size_t i = 0; i < a->count; i++) {
        struct ctl_value *v = &a->values[i];
        const struct ctl_parameter *parameter = v->parameter;
        const char *text = NULL;
        const char *origin = "for";
        if (v->explicit) {
            continue;
        }
        if (parameter->environment != NULL) {
            text = environment(parameter->environment);
            origin = "in the environment for";
        }
        if (text == NULL || text[0] == '\0') {
            text = parameter->initial;
        }
        if (text != NULL) {
            const char *wrong = set_value(v, text);
            if (wrong != NULL) {
                return say_wrong_value(p, v, text, wrong, origin);
            }
        }
        if (!v->given && (parameter->flags & CTL_REQUIRED) != 0) {
            bool operand = i < a->command->operands_count;
            text_appendf(&p->outcome->message, "'%s' needs %s%s\ntry: holdfastctl %s --help\n",
                         a->command->path, operand ? "" : "--", parameter->name, a->command->path);
            return PARSE_INVALID;
        }
    }
    return PARSE_OK;
}

enum parse_result parse_command_line(int argc, char **argv, parse_environment environment,
                                     struct ctl_arguments *arguments, struct parse_outcome *outcome)
{
    *arguments = (struct ctl_arguments){0};
    *outcome = (struct parse_outcome){TEXT_INIT, TEXT_INIT};
    struct parse p = {argc, argv, arguments, outcome, 0};
    int used = 0;
    enum parse_result rv = find_command(&p, &used);
    if (rv != PARSE_OK) {
        return rv;
    }
    for (size_t i = 0; i < arguments->command->operands_count; i++) {
        add_value(arguments, &arguments->command->operands[i]);
    }
    ctl_each_option(arguments->command, add_value, arguments);
    rv = parse_words(&p, 1 + used);
    return rv != PARSE_OK ? rv : fill_in(&p, environment);
}

const struct ctl_value *ctl_value(const struct ctl_arguments *a, const char *name)
{
    for (size_t i = 0; i < a->count; i++) {
        if (strcmp(a->values[i].parameter->name, name) == 0) {
            return &a->values[i];
        }
    }
    CHECK_UNREACHABLE();
}

const char *ctl_text(const struct ctl_arguments *a, const char *name)
{
    return ctl_value(a, name)->text;
}

bool ctl_given(const struct ctl_arguments *a, const char *name)
{
    return ctl_value(a, name)->given;
}
