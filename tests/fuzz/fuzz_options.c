/* Options of a program from file, environment and flags (base/options.h).
 *
 * Input: parts that are separated by a zero byte: the file, then flags; a part that begins with '=' is
 * the value of HOLDFAST_SIZE in the environment. A first part that begins with "L:" is one value instead,
 * which is written into a file.
 * Asserted: what is taken is within its bounds and the same when given again; a flag beats environment
 * and file; a value from a file is the whole value, or refused, however long it is; nothing but the three
 * results. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/options.h"
#include "tests/fuzz/fuzz.h"

#define FLAGS_MAX 12

struct values {
    const char *text;
    bool flag;
    uint64_t number, duration_ms, size;
    struct option_list list;
};
static struct values given;
static char path[128];
static FILE *nowhere;

static const struct option table[] = {
    {"text", 't', OPTION_TEXT, &given.text, "initial", "TEXT", "a text", 0, 0},
    {"flag", 'f', OPTION_FLAG, &given.flag, NULL, NULL, "a flag", 0, 0},
    {"number", 'n', OPTION_U64, &given.number, "7", "N", "a number", 1, 1000},
    {"duration", 'd', OPTION_DURATION, &given.duration_ms, "5s", "TIME", "a time", 1, 3600000},
    {"size", 0, OPTION_SIZE, &given.size, "64KiB", "SIZE", "a size", 512, 1ull << 40},
    {"list", 'l', OPTION_LIST, &given.list, "a", "ITEM", "a list", 0, 0},
};
static const struct options options = {.program = "fuzz", .summary = "nothing", .table = table,
                                       .count = ARRAY_COUNT(table)};

void fuzz_begin(void)
{
    snprintf(path, sizeof path, "%s/options.ini", fuzz_directory());
    nowhere = fopen("/dev/null", "we");
    CHECK(nowhere != NULL);
}

static void check_bounds(void)
{
    CHECK(given.number >= 1 && given.number <= 1000);
    CHECK(given.duration_ms >= 1 && given.duration_ms <= 3600000);
    CHECK(given.size >= 512 && given.size <= 1ull << 40);
    CHECK(given.list.count <= OPTION_LIST_MAX);
    CHECK(given.text != NULL);
    for (size_t i = 0; i < given.list.count; i++) {
        CHECK(given.list.items[i] != NULL);
    }
}

static enum options_result parse(int argc, char **argv)
{
    int operands = 0;
    given = (struct values){0};
    /* What is wrong is said there, by design; a million times of it is not wanted. */
    FILE *out = stdout, *err = stderr;
    stdout = stderr = nowhere;
    enum options_result result = options_parse(&options, argc, argv, &operands);
    stdout = out;
    stderr = err;
    CHECK(result == OPTIONS_OK || result == OPTIONS_INVALID || result == OPTIONS_HELP);
    if (result == OPTIONS_OK) {
        CHECK(operands >= 1 && operands <= argc);
        check_bounds();
    }
    return result;
}

/* One value in a file: all of it is taken, or nothing. */
static void run_value(struct str value)
{
    static char program[] = "fuzz", config[] = "--config", file[4096 + 64];
    char *argv[] = {program, config, path};
    if (value.len == 0 || value.len > 4096) {
        return;
    }
    for (uint32_t i = 0; i < value.len; i++) {
        /* Letters and digits only: what else means in such a file is the file's business. */
        if ((value.ptr[i] < 'a' || value.ptr[i] > 'z') && (value.ptr[i] < '0' || value.ptr[i] > '9')) {
            return;
        }
    }
    int n = snprintf(file, sizeof file, "[fuzz]\ntext = %.*s\nnumber = 77\n", (int)value.len, value.ptr);
    fuzz_write_file(path, file, (size_t)n);
    unsetenv("HOLDFAST_SIZE");
    if (parse(3, argv) == OPTIONS_OK) {
        CHECK(str_equal(str_from(given.text), value));
        CHECK(given.number == 77);
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    if (size > 2 && data[0] == 'L' && data[1] == ':') {
        run_value((struct str){(const char *)data + 2, (uint32_t)size - 2});
        return;
    }
    static char program[] = "fuzz", config[] = "--config", beats[] = "--number=999";
    char *copy = malloc(size + 1), *argv[FLAGS_MAX + 6] = {program, config, path};
    CHECK(copy != NULL);
    memcpy(copy, data, size);
    copy[size] = '\0';
    size_t file_size = strlen(copy);
    fuzz_write_file(path, copy, file_size);
    unsetenv("HOLDFAST_SIZE");
    int argc = 3;
    for (char *at = copy + file_size + 1; at < copy + size && argc < FLAGS_MAX; at += strlen(at) + 1) {
        if (*at == '=') {
            setenv("HOLDFAST_SIZE", at + 1, 1);
        } else if (strncmp(at, "--config", 8) != 0) { /* of other files nothing is known */
            argv[argc++] = at;
        }
    }
    enum options_result result = parse(argc, argv);
    struct values first = given;
    CHECK(parse(argc, argv) == result);
    if (result == OPTIONS_OK) {
        CHECK(first.number == given.number && first.duration_ms == given.duration_ms &&
              first.size == given.size && first.flag == given.flag &&
              first.list.count == given.list.count && strcmp(first.text, given.text) == 0);
        char *only[] = {program, config, path, beats};
        if (parse(4, only) == OPTIONS_OK) {
            CHECK(given.number == 999);
        }
    }
    free(copy);
}

static void seed(const char *name, const char *text, size_t size)
{
    fuzz_seed(name, text, size);
}
#define SEED(name, text) seed(name, text, sizeof(text) - 1)

void fuzz_seeds(void)
{
    SEED("file", "; a comment\n[fuzz]\ntext = some text\nflag = true\nnumber = 12\nduration = 250ms\n"
                 "size = 8MiB\nlist = a,b , c\n");
    SEED("other-section", "[other]\nnumber = 100000\n[fuzz]\nnumber = 3\n");
    SEED("flags", "\0--text=x\0-f\0-n\0" "5\0--duration\0" "2m\0--list=a\0--list=b,c\0--\0operand");
    SEED("environment", "[fuzz]\nsize=1GiB\n\0=512\0--size=1KiB");
    SEED("unknown", "[fuzz]\nnothing = 1\n");
    SEED("value", "L:short");
    SEED("value-long", "L:0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567"
                       "8901234567890123456789012345678901234567890123456789012345678901234567890123456789012345"
                       "678901234567890123456789012345678901234567890123456789");
    SEED("long-lines", "[fuzz]\ntext = aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n");
    SEED("help", "\0--help");
}
