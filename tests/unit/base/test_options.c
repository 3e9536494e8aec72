/* Unit tests of base/options: precedence of flag, environment, file and default, and bad values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/options.h"

static const char *listen_value;
static bool verbose;
static uint64_t count, timeout_ms, size_bytes;
static struct option_list peers;

static const struct option table[] = {
    {"listen", 'l', OPTION_TEXT, &listen_value, "127.0.0.1:0", "ADDR", "where to listen", 0, 0},
    {"verbose", 'v', OPTION_FLAG, &verbose, NULL, NULL, "say more", 0, 0},
    {"count", 'n', OPTION_U64, &count, "3", "N", "how many", 1, 10},
    {"timeout", 0, OPTION_DURATION, &timeout_ms, "5s", "TIME", "patience", 0, 0},
    {"size", 0, OPTION_SIZE, &size_bytes, "64KiB", "SIZE", "bytes", 0, 0},
    {"peer", 'p', OPTION_LIST, &peers, "a,b", "NAME", "peers", 0, 0},
};
static const struct options options = {"holdfast-test", "a test", NULL, table, ARRAY_COUNT(table)};

/* options_parse takes main's argv: words that may be written to. These are overwritten by the next
 * call. */
static enum options_result parse(int *operands, const char *const words[])
{
    static char copies[16][128];
    char *argv[16] = {NULL};
    int argc = 0;
    argv[argc++] = strcpy(copies[0], "holdfast-test");
    for (; words[argc - 1] != NULL; argc++) {
        assert_true(strlen(words[argc - 1]) < sizeof copies[0]);
        argv[argc] = strcpy(copies[argc], words[argc - 1]);
    }
    return options_parse(&options, argc, argv, operands);
}

/* The NULL at the end is part of the call, so that the macro always has an argument. */
#define PARSE(operands, ...) parse(operands, (const char *const[]){__VA_ARGS__})

static void test_defaults(void **state)
{
    (void)state;
    int operands;
    assert_int_equal(PARSE(&operands, NULL), OPTIONS_OK);
    assert_string_equal(listen_value, "127.0.0.1:0");
    assert_int_equal(count, 3);
    assert_int_equal(timeout_ms, 5000);
    assert_int_equal(size_bytes, 65536);
    assert_int_equal(peers.count, 2);
    assert_false(verbose);
    assert_int_equal(operands, 1);
}

static void test_flags(void **state)
{
    (void)state;
    int operands;
    assert_int_equal(PARSE(&operands, "--listen=x", "-v", "-n", "7", "--timeout", "250ms", "--size",
                           "1GiB", "-p", "c", "--peer=d", "rest", "--count", NULL),
                     OPTIONS_OK);
    assert_string_equal(listen_value, "x");
    assert_true(verbose);
    assert_int_equal(count, 7);
    assert_int_equal(timeout_ms, 250);
    assert_int_equal(size_bytes, 1ull << 30);
    assert_int_equal(peers.count, 2);
    assert_string_equal(peers.items[0], "c");
    assert_int_equal(operands, 12);
    assert_int_equal(PARSE(&operands, "-v", "--", "-n", NULL), OPTIONS_OK);
    assert_int_equal(operands, 3);
}

static void test_bad(void **state)
{
    (void)state;
    int operands;
    assert_int_equal(PARSE(&operands, "--nope", NULL), OPTIONS_INVALID);
    assert_int_equal(PARSE(&operands, "-x", NULL), OPTIONS_INVALID);
    assert_int_equal(PARSE(&operands, "--count", NULL), OPTIONS_INVALID);
    assert_int_equal(PARSE(&operands, "--count=0", NULL), OPTIONS_INVALID);
    assert_int_equal(PARSE(&operands, "--count=11", NULL), OPTIONS_INVALID);
    assert_int_equal(PARSE(&operands, "--count=-1", NULL), OPTIONS_INVALID);
    assert_int_equal(PARSE(&operands, "--count=3x", NULL), OPTIONS_INVALID);
    assert_int_equal(PARSE(&operands, "--timeout=5", NULL), OPTIONS_INVALID);
    assert_int_equal(PARSE(&operands, "--timeout=99999999999999999999s", NULL), OPTIONS_INVALID);
    assert_int_equal(PARSE(&operands, "--size=20000000000GiB", NULL), OPTIONS_INVALID);
    assert_int_equal(PARSE(&operands, "--verbose=maybe", NULL), OPTIONS_INVALID);
    assert_int_equal(PARSE(&operands, "--config", "/nonexistent/file", NULL), OPTIONS_INVALID);
}

static enum options_result parse_file(const char *text)
{
    char path[] = "/tmp/holdfast-options-XXXXXX";
    int operands, fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    enum options_result result = PARSE(&operands, "--config", path, NULL);
    unlink(path);
    return result;
}

static void test_lines_of_a_file(void **state)
{
    (void)state;
    assert_int_equal(parse_file("[holdfast-test]\npeer = x, y\npeer = z\n"), OPTIONS_OK);
    assert_int_equal(peers.count, 3); /* not the last line alone */
    assert_string_equal(peers.items[2], "z");
    assert_int_equal(parse_file("[holdfast-test]\ncount = 4\n"), OPTIONS_OK);
    assert_int_equal(parse_file("[holdfast-test]\ncount = 4\ncount = 5\n"), OPTIONS_INVALID);
}

static void test_precedence(void **state)
{
    (void)state;
    char path[] = "/tmp/holdfast-options-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    dprintf(fd,
            "[other]\nlisten = other\n[holdfast-test]\nlisten = file\ncount = 4\npeer = x,y,z\n");
    int operands;
    assert_int_equal(PARSE(&operands, "--config", path, NULL), OPTIONS_OK);
    assert_string_equal(listen_value, "file");
    assert_int_equal(count, 4);
    assert_int_equal(peers.count, 3);
    setenv("HOLDFAST_LISTEN", "environment", 1);
    setenv("HOLDFAST_CONFIG", path, 1);
    assert_int_equal(PARSE(&operands, NULL), OPTIONS_OK);
    assert_string_equal(listen_value, "environment");
    assert_int_equal(count, 4);
    assert_int_equal(PARSE(&operands, "--listen", "flag", NULL), OPTIONS_OK);
    assert_string_equal(listen_value, "flag");
    setenv("HOLDFAST_COUNT", "many", 1);
    assert_int_equal(PARSE(&operands, NULL), OPTIONS_INVALID);
    unsetenv("HOLDFAST_COUNT");
    unsetenv("HOLDFAST_LISTEN");
    unsetenv("HOLDFAST_CONFIG");
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    dprintf(fd, "[holdfast-test]\nunheard-of = 1\n");
    assert_int_equal(PARSE(&operands, "--config", path, NULL), OPTIONS_INVALID);
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),   cmocka_unit_test(test_flags),
        cmocka_unit_test(test_bad),        cmocka_unit_test(test_lines_of_a_file),
        cmocka_unit_test(test_precedence),
    };
    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
