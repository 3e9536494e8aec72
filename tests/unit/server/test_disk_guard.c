/* Decisions about a disk that is short of space or silent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/disk_guard.h"

#define MIB (1ull << 20)

static void test_low_begins_below_the_limit_and_ends_above_it(void **state)
{
    (void)state;
    assert_false(disk_guard_judge(false, 1024 * MIB, 1024 * MIB));
    assert_true(disk_guard_judge(false, 1024 * MIB - 1, 1024 * MIB));
    /* What moves around the limit does not switch at each step. */
    assert_true(disk_guard_judge(true, 1024 * MIB, 1024 * MIB));
    assert_true(disk_guard_judge(true, 1280 * MIB - 1, 1024 * MIB));
    assert_false(disk_guard_judge(true, 1280 * MIB, 1024 * MIB));
}

static void test_no_limit_is_no_guard(void **state)
{
    (void)state;
    assert_false(disk_guard_judge(false, 0, 0));
    assert_false(disk_guard_judge(true, 0, 0));
}

/* Every kind of command is one or the other; new ones must be thought about here. */
static void test_what_grows_the_state_is_refused(void **state)
{
    (void)state;
    static const enum command_kind refused[] = {COMMAND_SKU_PUT,           COMMAND_STOCK_ADJUST,
                                                COMMAND_SALE_PUT,          COMMAND_ELIGIBILITY_GRANT,
                                                COMMAND_ORDER_PLACE,       COMMAND_LEASE_ACQUIRE,
                                                COMMAND_DENY_PUT};
    size_t count = 0;
    for (int kind = 1; kind <= COMMAND_KIND_MAX; kind++) {
        count += disk_guard_takes((enum command_kind)kind) ? 0 : 1;
    }
    assert_int_equal(count, sizeof refused / sizeof refused[0]);
    for (size_t i = 0; i < count; i++) {
        assert_false(disk_guard_takes(refused[i]));
    }
    assert_true(disk_guard_takes(COMMAND_ORDER_CANCEL));
    assert_true(disk_guard_takes(COMMAND_PAYMENT_APPLY));
    assert_true(disk_guard_takes(COMMAND_PERSIST_ACK));
}

static void test_leader_leaves_well_before_the_deadline(void **state)
{
    (void)state;
    assert_int_equal(disk_guard_slow_ms(10000), 2000);
    assert_int_equal(disk_guard_slow_ms(3600000), 2000);
    assert_int_equal(disk_guard_slow_ms(2500), 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_low_begins_below_the_limit_and_ends_above_it),
        cmocka_unit_test(test_no_limit_is_no_guard),
        cmocka_unit_test(test_what_grows_the_state_is_refused),
        cmocka_unit_test(test_leader_leaves_well_before_the_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
