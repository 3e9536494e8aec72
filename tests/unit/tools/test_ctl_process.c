/* Daemons are found again by id and start time, and only exactly those are ended. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/ctl/process.h"

static const char *const sleeper[] = {"/bin/sleep", "600", NULL};
/* Ignores the polite signal: it has to be killed. */
static const char *const stubborn[] = {"/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done",
                                       NULL};

static bool keep(void *ctx, const struct process *p)
{
    *(struct process *)ctx = *p;
    return true;
}

static bool refuse(void *ctx, const struct process *p)
{
    *(struct process *)ctx = *p;
    return false;
}

static struct process start(const char *const *arguments)
{
    struct process p, recorded = {0};
    struct text wrong = TEXT_INIT;
    struct process_spawn spawn = {.arguments = arguments};
    assert_int_equal(process_start(&spawn, keep, &recorded, &p, &wrong), 0);
    assert_int_equal(recorded.pid, p.pid);
    assert_true(recorded.start == p.start && p.start != 0);
    text_close(&wrong);
    return p;
}

static void a_daemon_lives_and_ends(void **state)
{
    (void)state;
    struct process p = start(sleeper);
    assert_true(process_alive(&p));
    assert_int_equal(process_stop(&p, 1, SIGTERM, 10000), 0);
    assert_false(process_alive(&p));
    assert_int_equal(process_stop(&p, 1, SIGTERM, 10000), 0); /* again: nothing to do */
}

static void a_stubborn_one_is_killed(void **state)
{
    (void)state;
    struct process p = start(stubborn);
    usleep(300000); /* long enough that the trap is set, most likely; else it just ends */
    assert_true(process_stop(&p, 1, SIGTERM, 500) <= 1);
    assert_false(process_alive(&p));
}

static void another_process_with_the_same_id_is_left_alone(void **state)
{
    (void)state;
    struct process p = start(sleeper);
    struct process other = {p.pid, p.start + 1}; /* the id was used before, by somebody else */
    assert_false(process_alive(&other));
    assert_int_equal(process_stop(&other, 1, SIGKILL, 1000), 0);
    assert_true(process_alive(&p));
    process_stop(&p, 1, SIGKILL, 10000);
}

static void what_cannot_be_recorded_never_begins(void **state)
{
    (void)state;
    char path[] = "/tmp/holdfast-process-XXXXXX";
    assert_non_null(mkdtemp(path));
    char witness[64], script[128];
    snprintf(witness, sizeof witness, "%s/began", path);
    snprintf(script, sizeof script, "touch %s", witness);
    const char *const arguments[] = {"/bin/sh", "-c", script, NULL};
    struct process p, recorded = {0};
    struct text wrong = TEXT_INIT;
    struct process_spawn spawn = {.arguments = arguments};
    assert_int_equal(process_start(&spawn, refuse, &recorded, &p, &wrong), -1);
    assert_false(process_alive(&recorded));
    assert_int_not_equal(access(witness, F_OK), 0);
    text_close(&wrong);
    rmdir(path);
}

static void a_missing_program_is_said(void **state)
{
    (void)state;
    const char *const arguments[] = {"/nonexistent/program", NULL};
    struct process p;
    struct text wrong = TEXT_INIT;
    struct process_spawn spawn = {.arguments = arguments};
    assert_int_equal(process_start(&spawn, NULL, NULL, &p, &wrong), -1);
    assert_non_null(strstr(text_cstring(&wrong), "No such file"));
    text_close(&wrong);
}

static void a_run_tells_how_it_ended(void **state)
{
    (void)state;
    const char *const fails[] = {"/bin/sh", "-c", "exit 7", NULL};
    struct text wrong = TEXT_INIT;
    struct process_spawn spawn = {.arguments = fails};
    assert_int_equal(process_run(&spawn, 60000, &wrong), 7);
    spawn.arguments = sleeper;
    assert_int_equal(process_run(&spawn, 200, &wrong), -1);
    assert_non_null(strstr(text_cstring(&wrong), "did not end within"));
    text_close(&wrong);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_daemon_lives_and_ends),
        cmocka_unit_test(a_stubborn_one_is_killed),
        cmocka_unit_test(another_process_with_the_same_id_is_left_alone),
        cmocka_unit_test(what_cannot_be_recorded_never_begins),
        cmocka_unit_test(a_missing_program_is_said),
        cmocka_unit_test(a_run_tells_how_it_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
