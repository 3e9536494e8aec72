/* Failpoints: what rules are good, what each action does, when a rule fires, the socket. The points here
 * are this program's own; it is compiled with HOLDFAST_FAILPOINTS whatever the build's option says. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/failpoint.h"

static int pass_moment(void)
{
    FAILPOINT("test/moment", "a moment");
    return 0;
}

static int pass_step(void)
{
    return FAILPOINT_ERROR("test/step", "a step that may fail");
}

static bool pass_message(void)
{
    return FAILPOINT_DROP("test/message", "a message");
}

static int pass_write(int file)
{
    static const char data[] = "0123456789";
    int rv = FAILPOINT_WRITE("test/write", "ten bytes", file, data, 10, 0);
    return rv == 0 && pwrite(file, data, 10, 0) != 10 ? -errno : rv;
}

static char error[FAILPOINT_ERROR_SIZE];

static int reset(void **state)
{
    (void)state;
    return failpoint_clear(NULL);
}

/* The list's line of a point, its fields cut apart. */
static void line_of(const char *name, char *fields[6], char *copy, size_t size)
{
    struct text t = TEXT_INIT;
    failpoint_list(&t);
    const char *at = strstr(text_cstring(&t), name);
    assert_non_null(at);
    assert_true(str_copy(copy, size, (struct str){at, (uint32_t)strcspn(at, "\n")}));
    text_close(&t);
    for (int i = 0; i < 6; i++) {
        fields[i] = strsep(&copy, "\t");
        assert_non_null(fields[i]);
    }
}

static unsigned long counted(const char *name, int field)
{
    char *fields[6], copy[512];
    line_of(name, fields, copy, sizeof copy);
    return strtoul(fields[field], NULL, 10);
}

#define EVALUATED 2
#define FIRED     3

static void test_off_does_nothing(void **state)
{
    (void)state;
    unsigned long evaluated = counted("test/step", EVALUATED), fired = counted("test/step", FIRED);
    assert_int_equal(pass_step(), 0);
    assert_false(pass_message());
    assert_int_equal(counted("test/step", EVALUATED), evaluated + 1);
    assert_int_equal(counted("test/step", FIRED), fired);
    assert_int_equal(failpoint_set("test/step", "off", error), 0);
    assert_int_equal(pass_step(), 0);
}

static void test_return(void **state)
{
    (void)state;
    assert_int_equal(failpoint_set("test/step", "return(ENOSPC)", error), 0);
    errno = 0;
    assert_int_equal(pass_step(), -ENOSPC);
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(failpoint_set("test/step", "return(5)", error), 0);
    assert_int_equal(pass_step(), -EIO);
    assert_int_equal(failpoint_clear("test/step"), 0);
    assert_int_equal(pass_step(), 0);
}

static void test_drop(void **state)
{
    (void)state;
    assert_int_equal(failpoint_set("test/message", "drop", error), 0);
    assert_true(pass_message());
    assert_true(pass_message());
}

static void test_nth_and_count(void **state)
{
    (void)state;
    static const struct {
        const char *rule, *fires; /* at each evaluation */
    } cases[] = {
        {"return(EIO)", "11111111"},       {"return(EIO),nth=3", "00100000"},
        {"return(EIO),count=2", "11000000"}, {"return(EIO),nth=3,count=2", "00110000"},
        {"return(EIO),count=2,nth=1", "11000000"}, {"return(EIO),p=1,nth=8", "00000001"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char seen[9] = "";
        assert_int_equal(failpoint_set("test/step", cases[i].rule, error), 0);
        for (int k = 0; k < 8; k++) {
            seen[k] = pass_step() < 0 ? '1' : '0';
        }
        assert_string_equal(seen, cases[i].fires);
    }
}

/* Spent rules are off, and say so. */
static void test_spent(void **state)
{
    (void)state;
    char *fields[6], copy[512];
    assert_int_equal(failpoint_set("test/step", "return(EIO),count=1", error), 0);
    line_of("test/step", fields, copy, sizeof copy);
    assert_string_equal(fields[1], "return(EIO),count=1");
    assert_int_equal(pass_step(), -EIO);
    line_of("test/step", fields, copy, sizeof copy);
    assert_string_equal(fields[1], "off");
    assert_string_equal(fields[4], "return sleep abort");
    assert_string_equal(fields[5], "a step that may fail");
}

static void test_probability(void **state)
{
    (void)state;
    unsigned fired[2] = {0, 0};
    for (int round = 0; round < 2; round++) {
        assert_int_equal(failpoint_set("test/step", "return(EIO),p=0.25", error), 0);
        for (int i = 0; i < 4000; i++) {
            fired[round] += pass_step() < 0;
        }
    }
    assert_in_range(fired[0], 800, 1200);
    assert_int_equal(fired[0], fired[1]); /* the seed is the point's own */
}

/* How a child that does this ends. */
static int status_of(int (*what)(int), const char *rules, int file)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        if (failpoint_configure(rules, error) < 0) {
            _exit(3);
        }
        _exit(what(file) == 0 ? 0 : 4);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static int moments(int file)
{
    (void)file;
    for (int i = 0; i < 3; i++) {
        pass_moment();
    }
    return 0;
}

static void test_abort(void **state)
{
    (void)state;
    int status = status_of(moments, "test/moment=abort,nth=3", -1);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    status = status_of(moments, "test/moment=abort,nth=4", -1);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_torn(void **state)
{
    (void)state;
    char path[] = "/tmp/test-failpoint-XXXXXX", data[16];
    int file = mkstemp(path);
    assert_true(file >= 0);
    int status = status_of(pass_write, "test/write=torn(4)", file);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(pread(file, data, sizeof data, 0), 4);
    assert_memory_equal(data, "0123", 4);
    status = status_of(pass_write, "test/write=torn(400)", file);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(pread(file, data, sizeof data, 0), 10);
    assert_int_equal(ftruncate(file, 0), 0);
    status = status_of(pass_write, "test/write=return(EIO)", file);
    assert_int_equal(WEXITSTATUS(status), 4);
    assert_int_equal(pread(file, data, sizeof data, 0), 0);
    close(file);
    unlink(path);
}

static void *sleeper(void *arg)
{
    (void)arg;
    pass_moment();
    return NULL;
}

/* A sleep of ten minutes ends when its rule does; meanwhile everything else goes on. */
static void test_sleep_is_ended_by_clear(void **state)
{
    (void)state;
    pthread_t thread;
    unsigned long fired = counted("test/moment", FIRED);
    assert_int_equal(failpoint_set("test/moment", "sleep(600000)", error), 0);
    assert_int_equal(pthread_create(&thread, NULL, sleeper, NULL), 0);
    while (counted("test/moment", FIRED) == fired) {
        usleep(1000);
    }
    assert_int_equal(pass_step(), 0);
    assert_int_equal(failpoint_clear("test/moment"), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(failpoint_set("test/moment", "sleep(1)", error), 0);
    pass_moment();
}

static void test_bad_rules(void **state)
{
    (void)state;
    static const struct {
        const char *rules, *says;
    } cases[] = {
        {"nowhere/at-all=abort", "no failpoint 'nowhere/at-all'"},
        {"test/step", "write NAME=ACTION"},
        {"test/step=", "'' is no action"},
        {"test/step=explode", "'explode' is no action"},
        {"test/step=return", "write return(EIO)"},
        {"test/step=return()", "write return(EIO)"},
        {"test/step=return(EWHAT)", "write return(EIO)"},
        {"test/step=return(0)", "write return(EIO)"},
        {"test/step=return(EIO", "is no action"},
        {"test/step=return)", "is no action"},
        {"test/step=abort(1)", "write abort"},
        {"test/step=sleep(-1)", "write sleep(milliseconds)"},
        {"test/step=sleep(1s)", "write sleep(milliseconds)"},
        {"test/step=abort,often", "'often' is no modifier"},
        {"test/step=abort,p=0", "p is above 0"},
        {"test/step=abort,p=1.5", "p is above 0"},
        {"test/step=abort,p=nan", "p is above 0"},
        {"test/step=abort,nth=0", "nth is a whole number"},
        {"test/step=abort,nth=two", "nth is a whole number"},
        {"test/step=abort,count=", "count is a whole number"},
        {"test/moment=return(EIO)", "does not take 'return(EIO)', only: off sleep abort"},
        {"test/moment=drop", "does not take 'drop'"},
        {"test/step=torn(1)", "does not take 'torn(1)'"},
        {"test/write=drop", "only: off return torn sleep abort"},
        {"test/message=return(EIO)", "only: off drop sleep abort"},
        {"test/step=return(EIO);test/moment=drop", "test/moment"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(failpoint_configure(cases[i].rules, error), -1);
        if (strstr(error, cases[i].says) == NULL) {
            fail_msg("%s: said \"%s\", not \"%s\"", cases[i].rules, error, cases[i].says);
        }
        assert_int_equal(pass_step(), 0); /* nothing of it is in force */
    }
    assert_int_equal(failpoint_configure("", error), 0);
    assert_int_equal(failpoint_configure(";test/step=return(EIO);", error), 0);
    assert_int_equal(pass_step(), -EIO);
}

static void test_commands(void **state)
{
    (void)state;
    static const struct {
        const char *line, *ends;
    } cases[] = {
        {"set test/step return(EIO)", "ok\n"},
        {"clear test/step", "ok\n"},
        {"clear", "ok\n"},
        {"list", "ok\n"},
        {"set test/step", "error: write: list, set NAME ACTION, or clear [NAME]\n"},
        {"set test/step abort now", "error: write: list, set NAME ACTION, or clear [NAME]\n"},
        {"list all", "error: write: list, set NAME ACTION, or clear [NAME]\n"},
        {"", "error: write: list, set NAME ACTION, or clear [NAME]\n"},
        {"clear test/nothing",
         "error: no failpoint 'test/nothing' in this program (HOLDFAST_FAILPOINTS=list prints them)\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct text t = TEXT_INIT;
        failpoint_command(cases[i].line, &t);
        size_t size = strlen(cases[i].ends);
        assert_true(t.len >= size);
        assert_string_equal(text_cstring(&t) + t.len - size, cases[i].ends);
        text_close(&t);
    }
}

static void ask(const char *path, const char *line, char answer[static 4096])
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = 0;
    str_copy(address.sun_path, sizeof address.sun_path, str_from(path));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(write(fd, line, strlen(line)), strlen(line));
    for (ssize_t n; (n = read(fd, answer + size, 4095 - size)) > 0;) {
        size += (size_t)n;
    }
    answer[size] = '\0';
    close(fd);
}

static void test_socket(void **state)
{
    (void)state;
    char directory[] = "/tmp/test-failpoint-XXXXXX", path[64], answer[4096];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/socket", directory);
    assert_int_equal(failpoint_listen(path, error), 0);
    assert_int_equal(failpoint_listen(path, error), 0); /* of a process that was killed */
    ask(path, "set test/step return(EROFS)\n", answer);
    assert_string_equal(answer, "ok\n");
    assert_int_equal(pass_step(), -EROFS);
    ask(path, "list\n", answer);
    assert_non_null(strstr(answer, "test/step\treturn(EROFS)\t"));
    assert_non_null(strstr(answer, "\nok\n"));
    ask(path, "set test/step drop\n", answer);
    assert_non_null(strstr(answer, "error: failpoint test/step does not take 'drop'"));
    assert_int_equal(failpoint_listen("/nowhere/at/all", error), -1);
    assert_non_null(strstr(error, "--failpoint-socket /nowhere/at/all: "));
    unlink(path);
    rmdir(directory);
}

static int started(int file)
{
    (void)file;
    int ended = failpoint_start();
    return ended < 0 ? 0 : ended + 10;
}

static void test_start(void **state)
{
    (void)state;
    setenv("HOLDFAST_FAILPOINTS", "test/step=explode", 1);
    assert_int_equal(started(-1), 12);
    setenv("HOLDFAST_FAILPOINTS", "test/step=return(EIO)", 1);
    assert_int_equal(started(-1), 0);
    assert_int_equal(pass_step(), -EIO);
    failpoint_options.rules = "test/step=off"; /* a flag wins */
    assert_int_equal(started(-1), 0);
    assert_int_equal(pass_step(), 0);
    failpoint_options.rules = "list";
    assert_int_equal(started(-1), 10);
    failpoint_options.rules = NULL;
    unsetenv("HOLDFAST_FAILPOINTS");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_off_does_nothing, reset),
        cmocka_unit_test_setup(test_return, reset),
        cmocka_unit_test_setup(test_drop, reset),
        cmocka_unit_test_setup(test_nth_and_count, reset),
        cmocka_unit_test_setup(test_spent, reset),
        cmocka_unit_test_setup(test_probability, reset),
        cmocka_unit_test_setup(test_abort, reset),
        cmocka_unit_test_setup(test_torn, reset),
        cmocka_unit_test_setup(test_sleep_is_ended_by_clear, reset),
        cmocka_unit_test_setup(test_bad_rules, reset),
        cmocka_unit_test_setup(test_commands, reset),
        cmocka_unit_test_setup(test_socket, reset),
        cmocka_unit_test_setup(test_start, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
