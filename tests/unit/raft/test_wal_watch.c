/* The age of an operation of the disk, on a clock of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "raft/wal_watch.h"

#define MS 1000000ull

struct clock_and_watch {
    struct wal_watch watch;
    uint64_t now_ns;
};

static int setup(void **state)
{
    static struct clock_and_watch c;
    wal_watch_init(&c.watch);
    c.now_ns = 123456789;
    *state = &c;
    return 0;
}

static int teardown(void **state)
{
    struct clock_and_watch *c = *state;
    wal_watch_close(&c->watch);
    return 0;
}

/* Looks `count` times, `step_ms` apart; the age in ms as last seen. */
static uint64_t look(struct clock_and_watch *c, unsigned count, uint64_t step_ms)
{
    uint64_t age_ns = 0;
    for (unsigned i = 0; i < count; i++) {
        c->now_ns += step_ms * MS;
        age_ns = wal_watch_observe(&c->watch, c->now_ns);
        assert_int_equal(age_ns, wal_watch_age_ns(&c->watch));
    }
    return age_ns / MS;
}

static void test_idle_disk_has_no_age(void **state)
{
    assert_int_equal(look(*state, 100, WAL_WATCH_INTERVAL_MS), 0);
}

static void test_age_of_one_operation_adds_up(void **state)
{
    struct clock_and_watch *c = *state;
    wal_watch_begin(&c->watch, "a");
    assert_int_equal(look(c, 1, 50), 0); /* seen for the first time */
    assert_int_equal(look(c, 1, 50), 50);
    assert_int_equal(look(c, 199, 50), 10000);
    wal_watch_end(&c->watch);
    assert_int_equal(wal_watch_age_ns(&c->watch), 0); /* at once, not at the next look */
    assert_int_equal(look(c, 1, 50), 0);
}

/* A disk that takes 200 ms for each write, one after the other without a pause. */
static void test_slow_operations_do_not_add_up(void **state)
{
    struct clock_and_watch *c = *state;
    for (unsigned i = 0; i < 100; i++) {
        wal_watch_begin(&c->watch, "slow");
        assert_in_range(look(c, 4, 50), 0, 150);
        wal_watch_end(&c->watch);
    }
}

static void test_progress_begins_anew(void **state)
{
    struct clock_and_watch *c = *state;
    wal_watch_begin(&c->watch, "a large one");
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(look(c, 10, 50), 450);
        wal_watch_progress(&c->watch);
        assert_int_equal(wal_watch_age_ns(&c->watch), 0);
    }
    wal_watch_end(&c->watch);
    wal_watch_progress(&c->watch); /* of nothing */
    assert_int_equal(look(c, 10, 50), 0);
}

/* SIGSTOP for an hour in the middle of a write: the disk was not slow, we were not there. */
static void test_pause_of_the_process_does_not_count(void **state)
{
    struct clock_and_watch *c = *state;
    wal_watch_begin(&c->watch, "a");
    assert_int_equal(look(c, 3, 50), 100);
    assert_int_equal(look(c, 1, 3600000), 100 + WAL_WATCH_STEP_MAX_MS);
    assert_int_equal(look(c, 1, 50), 150 + WAL_WATCH_STEP_MAX_MS);
}

/* ---- the wal_io that notes ---- */

struct probe {
    struct wal_io io;
    struct wal_watch *watch;
    char what[WAL_WATCH_WHAT_SIZE]; /* while inside */
    bool busy;
};

static int note(struct wal_io *io, int rv)
{
    struct probe *p = container_of(io, struct probe, io);
    wal_watch_what(p->watch, p->what);
    p->busy = p->watch->busy;
    return rv;
}

static int probe_open(struct wal_io *io, const char *name)
{
    (void)name;
    return note(io, 7);
}

static int probe_write(struct wal_io *io, int file, uint64_t offset, const void *data, size_t size)
{
    (void)data;
    assert_int_equal(file, 7);
    assert_int_equal(offset, 8192);
    assert_int_equal(size, 4096);
    return note(io, -5);
}

static int probe_rename(struct wal_io *io, const char *from, const char *to)
{
    (void)from;
    (void)to;
    return note(io, 0);
}

static void test_operations_are_named_and_passed_on(void **state)
{
    struct clock_and_watch *c = *state;
    struct wal_watch_io io;
    struct probe probe = {.io = {.open = probe_open, .write = probe_write, .rename = probe_rename},
                          .watch = &c->watch};
    wal_watch_io_init(&io, &probe.io, &c->watch);
    assert_int_equal(io.io.open(&io.io, "0000000000000003.spare"), 7);
    assert_string_equal(probe.what, "0000000000000003.spare: open");
    assert_int_equal(io.io.rename(&io.io, "0000000000000003.spare", "0000000000000002.wal"), 0);
    assert_int_equal(io.io.write(&io.io, 7, 8192, "", 4096), -5);
    assert_string_equal(probe.what, "0000000000000002.wal: write of 4096 bytes at offset 8192");
    assert_true(probe.busy);
    assert_false(c->watch.busy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_idle_disk_has_no_age, setup, teardown),
        cmocka_unit_test_setup_teardown(test_age_of_one_operation_adds_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_operations_do_not_add_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_progress_begins_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause_of_the_process_does_not_count, setup, teardown),
        cmocka_unit_test_setup_teardown(test_operations_are_named_and_passed_on, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
