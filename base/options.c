#include "base/options.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#define ENVIRONMENT_NAME_SIZE 96

static const struct option *find(const struct options *o, const char *name, size_t len)
{
    for (size_t i = 0; i < o->count; i++) {
        if (strlen(o->table[i].name) == len && memcmp(o->table[i].name, name, len) == 0) {
            return &o->table[i];
        }
    }
    return NULL;
}

static bool parse_unit(const char *text, const char *const units[], const uint64_t factors[],
                       size_t count, uint64_t *value)
{
    char *end;
    if (!isdigit((unsigned char)text[0])) {
        return false;
    }
    errno = 0;
    uint64_t n = strtoull(text, &end, 10);
    if (errno != 0) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(end, units[i]) == 0) {
            return !__builtin_mul_overflow(n, factors[i], value);
        }
    }
    return false;
}

static bool parse_number(enum option_type type, const char *text, uint64_t *value)
{
    static const char *const none[] = {""};
    static const uint64_t one[] = {1};
    static const char *const times[] = {"ms", "s", "m", "h", "d"};
    static const uint64_t time_ms[] = {1, 1000, 60000, 3600000, 86400000};
    static const char *const sizes[] = {"", "B", "KiB", "MiB", "GiB", "TiB"};
    static const uint64_t bytes[] = {1, 1, 1ull << 10, 1ull << 20, 1ull << 30, 1ull << 40};
    if (type == OPTION_DURATION) {
        return parse_unit(text, times, time_ms, ARRAY_COUNT(times), value);
    }
    if (type == OPTION_SIZE) {
        return parse_unit(text, sizes, bytes, ARRAY_COUNT(sizes), value);
    }
    return parse_unit(text, none, one, 1, value);
}

static bool append_item(struct option_list *list, const char *item)
{
    if (list->count == OPTION_LIST_MAX) {
        return false;
    }
    list->items[list->count++] = item;
    return true;
}

/* Texts that values point into: for the life of the process, also when a value of higher rank has
 * replaced them, and never out of a leak checker's sight. */
static struct kept_text {
    struct kept_text *next;
    char text[];
} * kept;

static char *keep_text(const char *text)
{
    size_t size = strlen(text) + 1;
    struct kept_text *copy = malloc(sizeof *copy + size);
    CHECK(copy != NULL);
    memcpy(copy->text, text, size);
    copy->next = kept;
    kept = copy;
    return copy->text;
}

/* Sets one value from its text. Returns NULL, or what is wrong with it. */
static const char *set(const struct option *option, const char *text, bool split)
{
    switch (option->type) {
    case OPTION_TEXT:
        *(const char **)option->value = text;
        return NULL;
    case OPTION_FLAG:
        if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0) {
            *(bool *)option->value = text[0] == 't';
            return NULL;
        }
        return "must be true or false";
    case OPTION_LIST: {
        struct option_list *list = option->value;
        if (!split) {
            return append_item(list, text) ? NULL : "too many items";
        }
        char *rest = keep_text(text);
        for (char *item; (item = strsep(&rest, ",")) != NULL;) {
            if (item[0] != '\0' && !append_item(list, item)) {
                return "too many items";
            }
        }
        return NULL;
    }
    case OPTION_U64:
    case OPTION_DURATION:
    case OPTION_SIZE: {
        uint64_t value;
        if (!parse_number(option->type, text, &value)) {
            return option->type == OPTION_DURATION ? "must be a duration such as 250ms, 10s or 5m"
                   : option->type == OPTION_SIZE   ? "must be a size such as 64KiB or 8MiB"
                                                   : "must be a whole number";
        }
        if ((option->min != 0 || option->max != 0) &&
            (value < option->min || value > option->max)) {
            return "is out of range";
        }
        *(uint64_t *)option->value = value;
        return NULL;
    }
    }
    CHECK_UNREACHABLE();
}

static bool apply(const struct options *o, const struct option *option, const char *text,
                  bool split, const char *origin)
{
    const char *wrong = set(option, text, split);
    if (wrong == NULL) {
        return true;
    }
    fprintf(stderr, "%s: %s '%s' for %s %s", o->program, origin, text, option->name, wrong);
    if (option->min != 0 || option->max != 0) {
        fprintf(stderr, " (%llu to %llu)", (unsigned long long)option->min,
                (unsigned long long)option->max);
    }
    fprintf(stderr, "\ntry: %s --help\n", o->program);
    return false;
}

struct file_pass {
    const struct options *o;
    const char *path;
    bool seen[OPTIONS_MAX]; /* by place in the table */
    bool failed;
};

static int file_value(void *ctx, const char *section, const char *name, const char *value)
{
    struct file_pass *pass = ctx;
    if (section[0] != '\0' && strcmp(section, pass->o->program) != 0) {
        return 1; /* another program's section */
    }
    const struct option *option = find(pass->o, name, strlen(name));
    if (option == NULL) {
        fprintf(stderr, "%s: %s: unknown option '%s'\n", pass->o->program, pass->path, name);
        pass->failed = true;
        return 0;
    }
    bool *seen = &pass->seen[option - pass->o->table];
    if (*seen && option->type != OPTION_LIST) {
        fprintf(stderr, "%s: %s: '%s' is given twice\n", pass->o->program, pass->path, name);
        pass->failed = true;
        return 0;
    }
    if (!*seen && option->type == OPTION_LIST) {
        ((struct option_list *)option->value)->count = 0; /* the default */
    }
    *seen = true;
    pass->failed = !apply(pass->o, option, keep_text(value), true, pass->path);
    return pass->failed ? 0 : 1;
}

static bool read_file(const struct options *o, const char *path)
{
    struct file_pass pass = {.o = o, .path = path};
    CHECK(o->count <= OPTIONS_MAX);
    int rv = ini_parse(path, file_value, &pass);
    if (rv == -1) {
        fprintf(stderr, "%s: cannot read %s: %s\n", o->program, path, strerror(errno));
    } else if (rv != 0 && !pass.failed) {
        fprintf(stderr, "%s: %s:%d: not a line of the form name = value\n", o->program, path, rv);
    }
    return rv == 0;
}

static bool read_environment(const struct options *o)
{
    for (size_t i = 0; i < o->count; i++) {
        char name[ENVIRONMENT_NAME_SIZE];
        int n = snprintf(name, sizeof name, "HOLDFAST_%s", o->table[i].name);
        CHECK(n > 0 && (size_t)n < sizeof name);
        for (char *c = name; *c != '\0'; c++) {
            *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
        }
        const char *value = getenv(name);
        if (value == NULL) {
            continue;
        }
        if (o->table[i].type == OPTION_LIST) {
            ((struct option_list *)o->table[i].value)->count = 0;
        }
        if (!apply(o, &o->table[i], value, true, "environment value")) {
            return false;
        }
    }
    return true;
}

static const char *file_given(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strncmp(argv[i], "--config=", 9) == 0) {
            return argv[i] + 9;
        }
        if (strcmp(argv[i], "--config") == 0 && i + 1 < argc) {
            return argv[i + 1];
        }
    }
    return getenv("HOLDFAST_CONFIG");
}

static enum options_result usage_error(const struct options *o, const char *what,
                                       const char *argument)
{
    fprintf(stderr, "%s: %s '%s'\ntry: %s --help\n", o->program, what, argument, o->program);
    return OPTIONS_INVALID;
}

static const struct option *find_letter(const struct options *o, char letter)
{
    for (size_t i = 0; i < o->count; i++) {
        if (letter != 0 && o->table[i].letter == letter) {
            return &o->table[i];
        }
    }
    return NULL;
}

static enum options_result read_flags(const struct options *o, int argc, char **argv, int *operands)
{
    bool listed[64] = {false};
    CHECK(o->count <= ARRAY_COUNT(listed));
    int i = 1;
    for (; i < argc; i++) {
        const char *a = argv[i];
        if (strcmp(a, "--") == 0) {
            i++;
            break;
        }
        if (a[0] != '-' || a[1] == '\0') {
            break;
        }
        if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0) {
            options_print_help(o);
            return OPTIONS_HELP;
        }
        if (strcmp(a, "--version") == 0) {
            printf("%s %s\n", o->program, HOLDFAST_VERSION);
            return OPTIONS_HELP;
        }
        const char *equals = strchr(a, '=');
        const struct option *option = NULL;
        if (a[1] == '-') {
            size_t len = equals != NULL ? (size_t)(equals - a) - 2 : strlen(a) - 2;
            if (len == 6 && strncmp(a + 2, "config", 6) == 0) {
                i += equals == NULL ? 1 : 0;
                continue;
            }
            option = find(o, a + 2, len);
        } else if (a[2] == '\0') {
            option = find_letter(o, a[1]);
            equals = NULL;
        }
        if (option == NULL) {
            return usage_error(o, "unknown option", a);
        }
        const char *value = equals != NULL ? equals + 1 : NULL;
        if (value == NULL && option->type == OPTION_FLAG) {
            value = "true";
        } else if (value == NULL) {
            if (i + 1 >= argc) {
                return usage_error(o, "missing argument of", a);
            }
            value = argv[++i];
        }
        size_t at = (size_t)(option - o->table);
        if (option->type == OPTION_LIST && !listed[at]) {
            listed[at] = true; /* the first flag replaces what environment and file gave */
            ((struct option_list *)option->value)->count = 0;
        }
        if (!apply(o, option, value, false, "value")) {
            return OPTIONS_INVALID;
        }
    }
    *operands = i;
    return OPTIONS_OK;
}

enum options_result options_parse(const struct options *o, int argc, char **argv, int *operands)
{
    for (size_t i = 0; i < o->count; i++) {
        const struct option *option = &o->table[i];
        if (option->type == OPTION_LIST) {
            ((struct option_list *)option->value)->count = 0;
        } else if (option->type == OPTION_TEXT) {
            *(const char **)option->value = NULL;
        } else if (option->type == OPTION_FLAG) {
            *(bool *)option->value = false;
        } else {
            *(uint64_t *)option->value = 0;
        }
        if (option->initial != NULL) {
            const char *wrong = set(option, option->initial, true);
            CHECK(wrong == NULL);
        }
    }
    const char *path = file_given(argc, argv);
    if (path != NULL && !read_file(o, path)) {
        return OPTIONS_INVALID;
    }
    if (!read_environment(o)) {
        return OPTIONS_INVALID;
    }
    return read_flags(o, argc, argv, operands);
}

void options_print_help(const struct options *o)
{
    printf("%s: %s\n", o->program, o->summary);
    if (o->examples != NULL) {
        printf("\nExamples:\n%s", o->examples);
    }
    printf("\nOptions (flags over environment over file over default; HOLDFAST_NAME in the "
           "environment):\n");
    for (size_t i = 0; i < o->count; i++) {
        const struct option *option = &o->table[i];
        char left[80];
        char letter[8] = "";
        if (option->letter != 0) {
            snprintf(letter, sizeof letter, "-%c, ", option->letter);
        }
        snprintf(left, sizeof left, "%s--%s%s%s", letter, option->name,
                 option->argument != NULL ? " " : "",
                 option->argument != NULL ? option->argument : "");
        printf("  %-34s %s", left, option->help);
        if (option->initial != NULL && option->initial[0] != '\0') {
            printf(" (default %s)", option->initial);
        }
        printf("\n");
    }
    printf("  %-34s %s\n", "--config FILE", "read options from an INI file");
    printf("  %-34s %s\n", "--help, --version", "print and exit");
}
