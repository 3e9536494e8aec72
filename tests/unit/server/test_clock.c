/* Unit tests of server/clock: what a wrong wall clock may and may not do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/clock.h"

#define MS   1000000ull
#define WALL 1795359845000 /* a true wall clock at monotonic 0 */
#define HOUR 3600000

static uint64_t at(uint64_t ms)
{
    return ms * MS;
}

static void test_new_cluster_takes_the_wall_clock(void **state)
{
    (void)state;
    struct cluster_clock c;
    cluster_clock_init(&c);
    cluster_clock_lead(&c, 0, at(5), WALL);
    assert_int_equal(cluster_clock_now_ms(&c, at(5), WALL), WALL);
    assert_int_equal(cluster_clock_now_ms(&c, at(1005), WALL + 1000), WALL + 1000);
}

static void test_restarted_cluster_never_goes_back(void **state)
{
    (void)state;
    struct cluster_clock c;
    cluster_clock_init(&c);
    cluster_clock_heard(&c, WALL + HOUR, false, at(1)); /* replayed from the log */
    cluster_clock_lead(&c, WALL + HOUR, at(10), WALL);  /* the wall clock is an hour behind */
    assert_int_equal(cluster_clock_now_ms(&c, at(10), WALL), WALL + HOUR);
    assert_int_equal(cluster_clock_now_ms(&c, at(2010), WALL + 2000), WALL + HOUR + 2000);
    assert_true(c.suspicious);
}

static void new_leader_with_wall_clock_off_by(int64_t off)
{
    struct cluster_clock c;
    cluster_clock_init(&c);
    for (uint64_t ms = 0; ms < 30000; ms += 100) {
        cluster_clock_heard(&c, WALL + (int64_t)ms, true, at(ms + 1)); /* 1 ms on the way */
    }
    cluster_clock_lead(&c, WALL + 29900, at(31000), WALL + 31000 + off);
    int64_t now = cluster_clock_now_ms(&c, at(31000), WALL + 31000 + off);
    assert_in_range(now, WALL + 31000 - 2, WALL + 31000);
    /* 15 minutes later: off by less than 100 ms, whatever its wall clock says. */
    for (uint64_t ms = 31000; ms <= 31000 + 900000; ms += 50) {
        now = cluster_clock_now_ms(&c, at(ms), WALL + (int64_t)ms + off);
    }
    assert_in_range(now, WALL + 931000 - 100, WALL + 931000 + 100);
}

static void test_new_leader_with_wrong_wall_clock(void **state)
{
    (void)state;
    new_leader_with_wall_clock_off_by(0);
    new_leader_with_wall_clock_off_by(HOUR);
    new_leader_with_wall_clock_off_by(-HOUR);
    new_leader_with_wall_clock_off_by(5000);
    new_leader_with_wall_clock_off_by(-5000);
}

static void test_wall_clock_jumps_under_a_leader(void **state)
{
    (void)state;
    struct cluster_clock c;
    cluster_clock_init(&c);
    cluster_clock_lead(&c, 0, at(0), WALL);
    int64_t before = 0;
    for (uint64_t ms = 0; ms < 60000; ms += 10) {
        int64_t jump = ms < 20000 ? 0 : ms < 40000 ? HOUR : -HOUR;
        int64_t now = cluster_clock_now_ms(&c, at(ms), WALL + (int64_t)ms + jump);
        assert_true(now >= before);
        assert_in_range(now, WALL + (int64_t)ms - 5, WALL + (int64_t)ms + 5);
        before = now;
    }
}

static void test_small_difference_is_slewed_away(void **state)
{
    (void)state;
    struct cluster_clock c;
    cluster_clock_init(&c);
    cluster_clock_heard(&c, WALL - 20, true, at(0)); /* the old leader was 20 ms behind */
    cluster_clock_lead(&c, WALL - 20, at(0), WALL);
    int64_t now = 0;
    for (uint64_t ms = 0; ms <= 600000; ms += 100) {
        now = cluster_clock_now_ms(&c, at(ms), WALL + (int64_t)ms);
    }
    assert_in_range(now, WALL + 600000 - 1, WALL + 600000);
}

static void test_late_batches_do_not_pull_back(void **state)
{
    (void)state;
    struct cluster_clock c;
    cluster_clock_init(&c);
    cluster_clock_heard(&c, WALL, true, at(0));
    cluster_clock_heard(&c, WALL + 10, true, at(20000)); /* stuck for 20 s */
    assert_in_range(cluster_clock_estimate_ms(&c, at(20000)), WALL + 19999, WALL + 20000);
    /* But a leader that runs slow is followed once the windows have passed. */
    for (uint64_t ms = 21000; ms < 200000; ms += 1000) {
        cluster_clock_heard(&c, WALL + (int64_t)ms - 500, true, at(ms));
    }
    assert_in_range(cluster_clock_estimate_ms(&c, at(200000)), WALL + 199498, WALL + 199502);
}

static void test_leader_again_after_following(void **state)
{
    (void)state;
    struct cluster_clock c;
    cluster_clock_init(&c);
    cluster_clock_lead(&c, 0, at(0), WALL);
    assert_int_equal(cluster_clock_now_ms(&c, at(1000), WALL + 1000), WALL + 1000);
    cluster_clock_follow(&c);
    cluster_clock_lead(&c, WALL + 1000, at(1500), WALL + HOUR); /* jumped meanwhile */
    assert_int_equal(cluster_clock_now_ms(&c, at(1500), WALL + HOUR), WALL + 1500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_cluster_takes_the_wall_clock),
        cmocka_unit_test(test_restarted_cluster_never_goes_back),
        cmocka_unit_test(test_new_leader_with_wrong_wall_clock),
        cmocka_unit_test(test_wall_clock_jumps_under_a_leader),
        cmocka_unit_test(test_small_difference_is_slewed_away),
        cmocka_unit_test(test_late_batches_do_not_pull_back),
        cmocka_unit_test(test_leader_again_after_following),
    };
    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
