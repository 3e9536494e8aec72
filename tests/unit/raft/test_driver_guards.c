/* The driver's guards: each is provoked by the messages that need it. Where the core's bug would
 * show, the same is done with the guard switched off and must fail: by another answer, or by the
 * abort of a check (in a child process). */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "tests/unit/raft/driver_world.h"

/* ---- N1: a change that is not first ---- */

static void scene_change_in_the_middle(unsigned guards_off)
{
    struct world *w = follower(2, guards_off);
    struct frame *f = calloc(1, sizeof *f);
    frame_add_command(f, 2, 1);
    frame_add_change(f, 3, 1, 2);
    frame_add_command(f, 4, 1);
    frame_add_change(f, 5, 1, 3);
    frame_add_command(f, 6, 1);
    receive_append(w, 1, 1, 1, 1, 6, f);
    assert_int_equal(w->applied, 6);
    assert_int_equal(w->driver->core.configuration_committed_index, 5);
    assert_int_equal(w->driver->core.configuration_uncommitted_index, 0);
    assert_int_equal(w->driver->configuration_index, 5);
    free(f);
    world_destroy(w);
}

static void test_change_comes_first(void **state)
{
    (void)state;
    scene_change_in_the_middle(0);
    assert_true(aborts(scene_change_in_the_middle, DRIVER_GUARD_CHANGE_FIRST));
}

/* ---- N2: the commit index ---- */

static void scene_retransmission(unsigned guards_off)
{
    struct world *w = follower(2, guards_off);
    struct frame *f = calloc(1, sizeof *f);
    for (uint64_t i = 2; i <= 10; i++) {
        frame_add_command(f, i, 1);
    }
    receive_append(w, 1, 1, 1, 1, 10, f);
    assert_int_equal(w->applied, 10);
    struct frame *again = calloc(1, sizeof *again);
    frame_add_command(again, 3, 1);
    frame_add_command(again, 4, 1);
    receive_append(w, 1, 1, 2, 1, 12, again);
    assert_int_equal(raft_commit_index(&w->driver->core), 10);
    free(f);
    free(again);
    world_destroy(w);
}

static void test_commit_is_monotonic(void **state)
{
    (void)state;
    scene_retransmission(0);
    assert_true(aborts(scene_retransmission, DRIVER_GUARD_COMMIT_MONOTONIC));
}

/* ---- N3: answers to stale messages ---- */

/* Fills the stack with a value that the core then finds in a field it does not set. */
static void poison(uint64_t value)
{
    volatile uint64_t stack[2048];
    for (size_t i = 0; i < ARRAY_COUNT(stack); i++) {
        stack[i] = value;
    }
}

static void receive_stale(struct world *w, bool snapshot)
{
    receive_vote_request(w, 3, 7, 100); /* we are in term 7 now */
    make_durable(w);
    w->sent_count = 0;
    poison(4242);
    if (snapshot) {
        receive_install(w, 1, 5, 50, 5);
    } else {
        receive_append(w, 1, 5, 0, 0, 0, NULL);
    }
}

static void test_stale_message_is_rejected(void **state)
{
    (void)state;
    for (int snapshot = 0; snapshot <= 1; snapshot++) {
        struct world *w = follower(2, 0);
        receive_stale(w, snapshot);
        const struct sent *answer = last_sent(w, RAFT_APPEND_ENTRIES_RESULT);
        assert_non_null(answer); /* it must learn of the term */
        assert_int_equal(answer->raft.append_entries_result.term, 7);
        assert_int_equal(answer->raft.append_entries_result.rejected, 1);
        assert_int_equal(answer->raft.append_entries_result.last_log_index, 0);
        world_destroy(w);

        w = follower(2, DRIVER_GUARD_STALE_RESULT);
        receive_stale(w, snapshot);
        answer = last_sent(w, RAFT_APPEND_ENTRIES_RESULT);
        assert_int_equal(answer->raft.append_entries_result.rejected, 0); /* a false match */
        world_destroy(w);
    }
}

/* ---- N5: below the log ---- */

static void test_reanchors_below_the_log(void **state)
{
    (void)state;
    struct world *w = at_checkpoint(100, 3, 0);
    receive_append(w, 1, 3, 50, 2, 90, NULL);
    const struct sent *answer = last_sent(w, RAFT_APPEND_ENTRIES_RESULT);
    assert_int_equal(answer->raft.append_entries_result.rejected, 0);
    assert_int_equal(answer->raft.append_entries_result.last_log_index, 100);

    /* Entries that straddle the checkpoint: those behind it are taken. */
    struct frame *f = calloc(1, sizeof *f);
    for (uint64_t i = 98; i <= 102; i++) {
        frame_add_command(f, i, 3);
    }
    receive_append(w, 1, 3, 97, 3, 102, f);
    assert_int_equal(w->applied, 102);
    free(f);
    world_destroy(w);

    w = at_checkpoint(100, 3, DRIVER_GUARD_REANCHOR);
    receive_append(w, 1, 3, 50, 2, 90, NULL);
    answer = last_sent(w, RAFT_APPEND_ENTRIES_RESULT);
    assert_int_equal(answer->raft.append_entries_result.rejected, 50);
    assert_int_equal(answer->raft.append_entries_result.last_log_index,
                     49); /* one step a round trip */
    world_destroy(w);
}

/* ---- votes are durable before they leave ---- */

static void test_vote_waits_for_the_disk(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    receive_vote_request(w, 3, 2, 10);
    assert_int_equal(w->vote_term, 2);
    assert_int_equal(w->vote, 3);
    assert_int_equal(count_sent(w, RAFT_REQUEST_VOTE_RESULT), 0);
    receive_append(w, 3, 2, 1, 1, 0, NULL); /* and what comes after it waits behind it */
    assert_int_equal(w->sent_count, 0);
    make_durable(w);
    assert_int_equal(w->sent_count, 2);
    assert_int_equal(w->sent[0].raft.type, RAFT_REQUEST_VOTE_RESULT);
    assert_true(w->sent[0].raft.request_vote_result.vote_granted);
    assert_int_equal(w->sent[1].raft.type, RAFT_APPEND_ENTRIES_RESULT);
    world_destroy(w);

    w = follower(2, DRIVER_GUARD_HOLD);
    receive_vote_request(w, 3, 2, 10);
    assert_int_equal(count_sent(w, RAFT_REQUEST_VOTE_RESULT), 1); /* before it is durable */
    world_destroy(w);
}

static void test_restarted_node_votes_once_a_term(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    receive_vote_request(w, 3, 2, 10);
    make_durable(w);
    struct world *again = world_create(2, 0);
    const struct record_header *entry = log_cache_get(&w->driver->cache, 1)->record;
    driver_restore(again->driver, 0, &entry, 1);
    assert_int_equal(driver_start(again->driver, 1, w->vote_term, w->vote, NULL, NULL), 0);
    receive_vote_request(again, 1, 2, 10);
    make_durable(again);
    const struct sent *answer = last_sent(again, RAFT_REQUEST_VOTE_RESULT);
    assert_non_null(answer);
    assert_false(answer->raft.request_vote_result.vote_granted);
    receive_vote_request(again, 3, 2, 10); /* the same candidate may hear it again */
    make_durable(again);
    assert_true(last_sent(again, RAFT_REQUEST_VOTE_RESULT)->raft.request_vote_result.vote_granted);
    world_destroy(again);
    world_destroy(w);
}

/* A candidate asks for votes only after its own is durable. */
static void test_candidate_waits_for_the_disk(void **state)
{
    (void)state;
    struct world *w = follower(1, 0);
    w->now_ms += 1100;
    driver_tick(w->driver, w->now_ms);
    assert_int_equal(count_sent(w, RAFT_REQUEST_VOTE), 2); /* pre-votes promise nothing */
    receive_vote_result(w, 2, 2, true);
    assert_int_equal(w->vote_term, 2);
    assert_int_equal(w->vote, 1);
    assert_int_equal(count_sent(w, RAFT_REQUEST_VOTE), 2);
    make_durable(w);
    assert_int_equal(count_sent(w, RAFT_REQUEST_VOTE), 4);
    world_destroy(w);
}

/* ---- stored means: this very write ---- */

static void test_stored_is_the_very_write(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    struct frame f3 = {.size = 0}, f4 = {.size = 0};
    frame_add_command(&f3, 2, 3);
    frame_add_command(&f4, 2, 4);
    receive_append(w, 1, 3, 1, 1, 0, &f3);
    uint64_t first = w->ticket;
    receive_append(w, 3, 4, 1, 1, 0, &f4); /* replaces it */
    receive_append(w, 1, 5, 1, 1, 0, &f3); /* and is replaced by the first again */
    driver_durable(w->driver, w->now_ms, first);
    struct driver_stats stats;
    driver_get_stats(w->driver, &stats);
    assert_int_equal(stats.last_index, 2);
    assert_int_equal(stats.stored_index, 1); /* a crash now would leave (2, t4), or nothing */
    make_durable(w);
    driver_get_stats(w->driver, &stats);
    assert_int_equal(stats.stored_index, 2);
    const struct sent *answer = last_sent(w, RAFT_APPEND_ENTRIES_RESULT);
    assert_int_equal(answer->to, 1);
    assert_int_equal(answer->raft.append_entries_result.last_log_index, 2);
    world_destroy(w);
}

/* ---- start ---- */

static void test_joins_log_and_checkpoint(void **state)
{
    (void)state;
    struct frame *f = calloc(1, sizeof *f);
    const struct record_header *records[10];
    for (uint64_t i = 0; i < 10; i++) {
        records[i] = (const struct record_header *)(const void *)((uint8_t *)f->bytes + f->size);
        frame_add_command(f, 11 + i, 2);
    }
    static const struct {
        uint64_t index, term;
        int result;
        uint64_t last, reset;
    } cases[] = {
        {15, 2, 0, 20, 0}, /* the log holds it */
        {20, 2, 0, 20, 0}, /* as its last entry */
        {10, 2, 0, 20, 0}, /* the log follows it */
        {15, 1, 0, 15,
         15}, /* another term: everything is older than the checkpoint, or unpromised */
        {25, 2, 0, 25, 25}, /* an install whose reset was lost */
        {9, 2, -1, 0, 0},   /* a hole */
        {15, 9, -1, 0, 0},  /* a checkpoint of a later term than the log has seen */
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct world *w = world_create(2, 0);
        struct replica_position p;
        position_at(&p, cases[i].index, cases[i].term);
        driver_restore(w->driver, 10, records, 4);
        driver_restore(w->driver, 10, records + 4, 6);
        assert_int_equal(driver_start(w->driver, 1, 2, 0, &p, NULL), cases[i].result);
        if (cases[i].result == 0) {
            struct driver_stats stats;
            driver_get_stats(w->driver, &stats);
            assert_int_equal(stats.last_index, cases[i].last);
            assert_int_equal(stats.applied_index, cases[i].index);
            assert_int_equal(w->reset_index, cases[i].reset);
        }
        world_destroy(w);
    }
    struct world *w = world_create(2, 0);
    driver_restore(w->driver, 10, records, 10);
    assert_int_equal(driver_start(w->driver, 1, 2, 0, NULL, NULL),
                     -1); /* a log without its beginning */
    world_destroy(w);
    free(f);
}

/* N10. */
static uint64_t term_after_restart(unsigned guards_off)
{
    struct world *w = world_create(1, guards_off);
    struct membership m;
    uint8_t bytes[REPLICA_CONFIGURATION_SIZE_MAX];
    members(&m, 2, 1);
    struct frame *f = calloc(1, sizeof *f);
    frame_add(f, RECORD_CHANGE, 1, 1, bytes, (uint32_t)membership_encode(&m, bytes));
    const struct record_header *record = (const struct record_header *)(const void *)f->bytes;
    driver_restore(w->driver, 0, &record, 1);
    assert_int_equal(driver_start(w->driver, 1, 1, 0, NULL, NULL), 0);
    if (guards_off == 0) {
        assert_int_equal(w->sent_count, 0); /* the new term is not durable yet */
    }
    driver_tick(w->driver, 2);
    uint64_t term = driver_get_state(w->driver).term;
    assert_int_equal(driver_get_state(w->driver).role, REPLICA_LEADER);
    world_destroy(w);
    free(f);
    return term;
}

static void test_only_voter_begins_a_new_term(void **state)
{
    (void)state;
    assert_int_equal(term_after_restart(0), 2);
    assert_int_equal(term_after_restart(DRIVER_GUARD_SELF_ELECT), 1);
}

/* ---- quick fail-over, and messages that make no sense ---- */

static void test_quick_failover(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    driver_peer_connected(w->driver, w->now_ms, 1);
    receive_append(w, 1, 1, 1, 1, 1, NULL);
    make_durable(w);
    assert_true(driver_deadline_ms(w->driver) >= w->now_ms + 500);
    driver_peer_disconnected(w->driver, w->now_ms, 3);
    assert_true(driver_deadline_ms(w->driver) >= w->now_ms + 500);
    driver_peer_disconnected(w->driver, w->now_ms, 1);
    assert_true(driver_deadline_ms(w->driver) <= w->now_ms + 2 * DRIVER_QUICK_TIMEOUT_MS);
    receive_append(w, 1, 1, 1, 1, 1, NULL); /* it lives after all */
    assert_true(driver_deadline_ms(w->driver) >= w->now_ms + 500);
    driver_peer_disconnected(w->driver, w->now_ms, 1);
    for (uint64_t end = w->now_ms + DRIVER_QUICK_DURATION_MS + 100; w->now_ms < end;
         w->now_ms += 20) {
        driver_tick(w->driver, w->now_ms);
    }
    assert_true(w->driver->core.election_timeout == 500);
    world_destroy(w);
}

static const struct sent *refused_pre_vote(struct world *w)
{
    receive_vote_request(w, 3, 5, 1);
    make_durable(w);
    struct message m = {.kind = MESSAGE_REQUEST_VOTE};
    m.raft.type = RAFT_REQUEST_VOTE;
    m.raft.request_vote = (struct raft_request_vote){
        .version = 2, .term = 3, .last_log_index = 9, .last_log_term = 2, .pre_vote = true};
    driver_receive(w->driver, w->now_ms, 1, &m);
    const struct sent *s = last_sent(w, RAFT_REQUEST_VOTE_RESULT);
    assert_true(s->raft.request_vote_result.pre_vote);
    assert_false(s->raft.request_vote_result.vote_granted);
    return s;
}

/* N14: node 1 has the longer log, and must learn that it is in an old term. */
static void test_refused_pre_vote_tells_the_term(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    assert_int_equal(refused_pre_vote(w)->raft.request_vote_result.term, 5);
    world_destroy(w);
    w = follower(2, DRIVER_GUARD_PRE_VOTE_TERM);
    assert_int_equal(refused_pre_vote(w)->raft.request_vote_result.term, 3);
    world_destroy(w);
}

static void test_refuses_impossible_messages(void **state)
{
    (void)state;
    struct world *w = ready_leader(0);
    struct driver_stats stats;
    receive_append(w, 3, 2, 2, 2, 2, NULL); /* two leaders in one term */
    receive_append(w, 1, 9, 2, 2, 2, NULL); /* from ourselves */
    receive_append(w, 3, 9, 0, 4, 2, NULL);
    receive_append(w, 3, 9, 5, 10, 2, NULL);
    receive_install(w, 3, 9, 0, 0);
    receive_install(w, 3, 9, 5, 10);
    struct frame f = {.size = 0};
    frame_add(&f, RECORD_CHANGE, 3, 9, "nonsense", 8);
    receive_append(w, 3, 9, 2, 2, 2, &f);
    driver_get_stats(w->driver, &stats);
    assert_int_equal(stats.messages_refused, 7);
    assert_int_equal(driver_get_state(w->driver).term, 2);
    assert_int_equal(driver_get_state(w->driver).role, REPLICA_LEADER);
    world_destroy(w);
}

int main(void)
{
    log_init("test_driver_guards", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_change_comes_first),
        cmocka_unit_test(test_commit_is_monotonic),
        cmocka_unit_test(test_stale_message_is_rejected),
        cmocka_unit_test(test_reanchors_below_the_log),
        cmocka_unit_test(test_vote_waits_for_the_disk),
        cmocka_unit_test(test_restarted_node_votes_once_a_term),
        cmocka_unit_test(test_candidate_waits_for_the_disk),
        cmocka_unit_test(test_stored_is_the_very_write),
        cmocka_unit_test(test_joins_log_and_checkpoint),
        cmocka_unit_test(test_only_voter_begins_a_new_term),
        cmocka_unit_test(test_quick_failover),
        cmocka_unit_test(test_refused_pre_vote_tells_the_term),
        cmocka_unit_test(test_refuses_impossible_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
