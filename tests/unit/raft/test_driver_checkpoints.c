/* Checkpoints of this node, and installs of a peer's. */
#include <stdlib.h>

#include "base/check.h"
#include "base/log.h"
#include "tests/unit/raft/driver_world.h"

/* ---- checkpoints and installs ---- */

static void test_checkpoint_waits_for_the_log(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    struct frame *f = calloc(1, sizeof *f);
    for (uint64_t i = 2; i <= 20; i++) {
        frame_add_command(f, i, 1);
    }
    receive_append(w, 1, 1, 1, 1, 20, f);
    assert_int_equal(w->applied, 20); /* committed elsewhere, not on our disk */
    struct replica_position p;
    driver_checkpoint_begin(w->driver, &p);
    assert_int_equal(p.index, 20);
    assert_int_equal(p.configuration_index, 1);
    receive_install(w, 1, 1, 50, 1);
    assert_int_equal(w->installs, 0); /* guard 6 */
    assert_false(driver_checkpoint_may_end(w->driver, &p)); /* it would be ahead of our log */
    driver_checkpoint_published(w->driver, w->now_ms, &p);
    assert_int_equal(w->trimmed, 0); /* guard 7 */
    make_durable(w);
    assert_true(driver_checkpoint_may_end(w->driver, &p));
    assert_int_equal(w->trimmed, 16);
    struct driver_stats stats;
    driver_get_stats(w->driver, &stats);
    assert_int_equal(stats.first_index, 17);
    free(f);
    world_destroy(w);
}

/* A crash after CURRENT was switched, and before the term is durable, would look like a lost log. */
static void test_install_waits_for_the_term(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    receive_install(w, 1, 2, 50, 2);
    assert_true(driver_installing(w->driver));
    assert_int_equal(w->installs, 0);
    make_durable(w);
    assert_int_equal(w->installs, 1);
    driver_install_done(w->driver, w->now_ms, &w->driver->install.ticket.position, false);
    receive_install(w, 1, 2, 60, 2); /* of the same term */
    assert_int_equal(w->installs, 2);
    world_destroy(w);
}

static void test_install_succeeds_and_fails(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    struct frame f = {.size = 0};
    frame_add_command(&f, 2, 1);
    receive_append(w, 1, 1, 1, 1, 1, &f); /* not committed, not durable */
    receive_install(w, 1, 2, 50, 2);
    make_durable(w);
    assert_int_equal(w->installs, 1);
    assert_true(driver_installing(w->driver));
    receive_install(w, 1, 2, 60, 2); /* N9 */
    assert_int_equal(w->installs, 1);
    w->sent_count = 0;
    receive_append(w, 1, 2, 60, 2, 60, NULL); /* a heartbeat of a leader that has gone on: N12 */
    assert_int_equal(last_sent(w, RAFT_APPEND_ENTRIES_RESULT)->raft.append_entries_result.rejected,
                     0);

    driver_install_done(w->driver, w->now_ms, &w->driver->install.ticket.position, false);
    assert_false(driver_installing(w->driver));
    struct driver_stats stats;
    driver_get_stats(w->driver, &stats);
    assert_int_equal(stats.last_index, 2); /* the old log */
    assert_int_equal(stats.stored_index, 2);
    assert_int_equal(w->applied, 1);

    receive_install(w, 1, 2, 60, 2);
    assert_int_equal(w->installs, 2);
    struct replica_position p;
    position_at(&p, 60, 2);
    w->applied = 60;
    w->sent_count = 0;
    driver_install_done(w->driver, w->now_ms, &p, true);
    assert_int_equal(w->reset_index, 60);
    assert_int_equal(w->reset_term, 2);
    const struct sent *answer = last_sent(w, RAFT_APPEND_ENTRIES_RESULT);
    assert_int_equal(answer->raft.append_entries_result.rejected, 0);
    assert_int_equal(answer->raft.append_entries_result.last_log_index, 60);
    struct frame g = {.size = 0};
    frame_add_command(&g, 61, 2);
    receive_append(w, 1, 2, 60, 2, 61, &g);
    assert_int_equal(w->applied, 61);
    world_destroy(w);
}

/* N12: the leader's snapshot moved on while the peer's install failed. */
static size_t offers_after_failure(unsigned guards_off)
{
    struct world *w = ready_leader(guards_off);
    struct request requests[40];
    for (size_t i = 0; i < ARRAY_COUNT(requests); i++) {
        requests[i].status = 1;
        assert_int_equal(
            driver_submit(w->driver, w->now_ms, &requests[i].submit, "x", 1, submit_cb), 0);
        make_durable(w);
        receive_result(w, 2, 2, 0, requests[i].submit.index);
        assert_int_equal(requests[i].status, REPLICA_OK);
        if (i == 19) {
            struct replica_position p;
            driver_checkpoint_begin(w->driver, &p);
            driver_checkpoint_published(w->driver, w->now_ms, &p);
            w->offered.position = p;
            receive_result(w, 3, 2, 1, 0); /* node 3 has nothing, and what it needs is trimmed */
        }
    }
    assert_int_equal(count_sent(w, RAFT_INSTALL_SNAPSHOT), 1);
    struct replica_position p;
    driver_checkpoint_begin(w->driver, &p);
    driver_checkpoint_published(w->driver, w->now_ms, &p);
    w->offered.position = p;
    /* Node 3 failed to install, and rejects a heartbeat that is anchored at the new snapshot. */
    receive_result(w, 3, 2, p.index, 1);
    for (int i = 0; i < 3; i++) {
        w->now_ms += DRIVER_TICK_MS;
        driver_tick(w->driver, w->now_ms);
        receive_result(w, 2, 2, 0, p.index);
        receive_result(w, 3, 2, p.index, 1);
    }
    size_t offers = count_sent(w, RAFT_INSTALL_SNAPSHOT);
    world_destroy(w);
    return offers;
}

static void test_failed_install_is_offered_again(void **state)
{
    (void)state;
    assert_true(offers_after_failure(0) > 1);
    assert_int_equal(offers_after_failure(DRIVER_GUARD_INSTALL_RETRY), 1);
}

int main(void)
{
    log_init("test_driver_checkpoints", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint_waits_for_the_log),
        cmocka_unit_test(test_install_waits_for_the_term),
        cmocka_unit_test(test_install_succeeds_and_fails),
        cmocka_unit_test(test_failed_install_is_offered_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
