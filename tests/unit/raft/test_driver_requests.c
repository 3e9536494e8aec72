/* Submits, reads and what is sent for them. */
#include <stdlib.h>

#include "base/check.h"
#include "base/log.h"
#include "tests/unit/raft/driver_world.h"

/* ---- requests ---- */

static void test_submit_commits_or_is_unknown(void **state)
{
    (void)state;
    struct world *w = ready_leader(0);
    struct request a = {.status = 1}, b = {.status = 1};
    assert_int_equal(driver_submit(w->driver, w->now_ms, &a.submit, "abc", 3, submit_cb), 0);
    assert_int_equal(driver_submit(w->driver, w->now_ms, &b.submit, "defg", 4, submit_cb), 0);
    assert_int_equal(a.submit.index, 3);
    assert_int_equal(b.submit.index, 4);
    receive_result(w, 2, 2, 0, 3);
    assert_int_equal(a.status, 1); /* our own disk has not got it */
    make_durable(w);
    assert_int_equal(a.status, REPLICA_OK);
    assert_int_equal(b.status, 1);
    receive_append(w, 3, 3, 4, 2, 3, NULL); /* another leader */
    assert_int_equal(b.status, REPLICA_OUTCOME_UNKNOWN);
    assert_int_equal(driver_submit(w->driver, w->now_ms, &b.submit, "x", 1, submit_cb),
                     REPLICA_NOT_LEADER);
    static char large[REPLICA_ENTRY_SIZE_MAX + 1];
    assert_int_equal(driver_submit(w->driver, w->now_ms, &b.submit, large, sizeof large, submit_cb),
                     REPLICA_TOO_LARGE);
    world_destroy(w);
}

static size_t count_appends(const struct world *w, uint64_t to, bool with_entries)
{
    size_t count = 0;
    for (size_t i = 0; i < w->sent_count; i++) {
        const struct sent *sent = &w->sent[i];
        bool append = sent->core && sent->raft.type == RAFT_APPEND_ENTRIES;
        count += append && sent->to == to && (sent->records > 0) == with_entries ? 1 : 0;
    }
    return count;
}

static const struct sent *last_core_to(const struct world *w, uint64_t to)
{
    for (size_t i = w->sent_count; i-- > 0;) {
        if (w->sent[i].to == to && w->sent[i].core) {
            return &w->sent[i];
        }
    }
    return NULL;
}

/* A message that only tells of a commit waits for entries that tell it too, but not for long, and
 * no other kind of message overtakes it. */
static void test_commit_rides_on_entries(void **state)
{
    (void)state;
    struct world *w = ready_leader(0);
    struct request a = {.status = 1}, b = {.status = 1};
    w->now_ms = driver_deadline_ms(w->driver);
    driver_tick(w->driver, w->now_ms);
    w->sent_count = 0;
    assert_int_equal(driver_submit(w->driver, w->now_ms, &a.submit, "abc", 3, submit_cb), 0);
    w->now_ms += 2; /* a heartbeat is due */
    receive_result(w, 2, 2, 0, 3);
    make_durable(w);
    assert_int_equal(a.status, REPLICA_OK);
    assert_int_equal(count_appends(w, 2, true), 1);
    assert_int_equal(count_appends(w, 2, false), 0);
    assert_int_equal(driver_deadline_ms(w->driver), w->now_ms + DRIVER_IDLE_APPEND_MS);

    /* Overtaken. */
    assert_int_equal(driver_submit(w->driver, w->now_ms, &b.submit, "def", 3, submit_cb), 0);
    assert_int_equal(last_core_to(w, 2)->records, 1);
    assert_int_equal(last_core_to(w, 2)->raft.append_entries.leader_commit, 3);
    w->now_ms += DRIVER_IDLE_APPEND_MS;
    driver_tick(w->driver, w->now_ms);
    assert_int_equal(count_appends(w, 2, false), 0);

    /* Not overtaken: after its time, and only once. */
    w->now_ms += 2;
    receive_result(w, 2, 2, 0, 4);
    make_durable(w);
    assert_int_equal(b.status, REPLICA_OK);
    assert_int_equal(count_appends(w, 2, false), 0);
    w->now_ms = driver_deadline_ms(w->driver);
    driver_tick(w->driver, w->now_ms);
    assert_int_equal(count_appends(w, 2, false), 1);
    assert_int_equal(last_core_to(w, 2)->raft.append_entries.leader_commit, 4);
    driver_tick(w->driver, w->now_ms);
    assert_int_equal(count_appends(w, 2, false), 1);

    /* Another kind of message to the same peer lets it go first. */
    a.status = 1;
    assert_int_equal(driver_submit(w->driver, w->now_ms, &a.submit, "abc", 3, submit_cb), 0);
    w->now_ms += 2;
    receive_result(w, 2, 2, 0, 5);
    make_durable(w);
    assert_int_equal(count_appends(w, 2, false), 1);
    assert_int_equal(driver_transfer(w->driver, w->now_ms, 2), REPLICA_OK);
    assert_int_equal(count_appends(w, 2, false), 2);
    assert_int_equal(last_core_to(w, 2)->raft.type, RAFT_TIMEOUT_NOW);
    world_destroy(w);
}

static void test_submit_is_bounded(void **state)
{
    (void)state;
    struct world *w = ready_leader(0);
    struct request *requests = calloc(REPLICA_IN_FLIGHT_MAX + 1, sizeof *requests);
    for (size_t i = 0; i < REPLICA_IN_FLIGHT_MAX; i++) {
        requests[i].status = 1;
        assert_int_equal(
            driver_submit(w->driver, w->now_ms, &requests[i].submit, "x", 1, submit_cb), 0);
    }
    assert_int_equal(driver_submit(w->driver, w->now_ms, &requests[REPLICA_IN_FLIGHT_MAX].submit,
                                   "x", 1, submit_cb),
                     REPLICA_BUSY);
    world_destroy(w); /* and the rest is told */
    for (size_t i = 0; i < REPLICA_IN_FLIGHT_MAX; i++) {
        assert_int_equal(requests[i].status, REPLICA_OUTCOME_UNKNOWN);
    }
    free(requests);
}

static void test_large_appends_are_split(void **state)
{
    (void)state;
    struct world *w = ready_leader(0);
    static char data[200 << 10];
    struct request requests[12];
    w->sent_count = 0;
    for (size_t i = 0; i < ARRAY_COUNT(requests); i++) {
        requests[i].status = 1;
        assert_int_equal(
            driver_submit(w->driver, w->now_ms, &requests[i].submit, data, sizeof data, submit_cb),
            0);
    }
    /* Node 3 was never heard of: it is sent everything at once when it answers. */
    w->sent_count = 0;
    receive_result(w, 3, 2, 0, 2);
    size_t records = 0;
    uint64_t next = 3;
    for (size_t i = 0; i < w->sent_count; i++) {
        if (w->sent[i].to == 3 && w->sent[i].core && w->sent[i].records > 0) {
            assert_int_equal(w->sent[i].raft.append_entries.prev_log_index + 1, next);
            assert_true(w->sent[i].bytes <= DRIVER_APPEND_SIZE_MAX + RECORD_SPAN_MAX);
            next += w->sent[i].records;
            records += w->sent[i].records;
        }
    }
    assert_int_equal(records, ARRAY_COUNT(requests));
    world_destroy(w);
}

static void test_read_needs_a_majority_after_it_was_asked(void **state)
{
    (void)state;
    struct world *w = ready_leader(0);
    struct request a = {.status = 1}, b = {.status = 1};
    assert_int_equal(driver_read(w->driver, w->now_ms, &a.read, read_cb), REPLICA_OK);
    uint64_t round = w->sent[w->sent_count - 1].seq;
    assert_int_equal(w->sent[w->sent_count - 1].kind, MESSAGE_READ);
    assert_int_equal(driver_read(w->driver, w->now_ms, &b.read, read_cb), REPLICA_OK);
    receive_read(w, 2, MESSAGE_READ_ACK, 1, round); /* of another term */
    assert_int_equal(a.status, 1);
    receive_read(w, 2, MESSAGE_READ_ACK, 2, round);
    assert_int_equal(a.status, REPLICA_OK);
    assert_int_equal(b.status, 1); /* asked after that round began */
    receive_read(w, 3, MESSAGE_READ_ACK, 2, round);
    assert_int_equal(b.status, 1);
    receive_read(w, 3, MESSAGE_READ_ACK, 2, round + 1);
    assert_int_equal(b.status, REPLICA_OK);

    b.status = 1;
    assert_int_equal(driver_read(w->driver, w->now_ms, &b.read, read_cb), REPLICA_OK);
    receive_append(w, 3, 3, 2, 2, 2, NULL);
    assert_int_equal(b.status, REPLICA_NOT_LEADER);
    /* A voter says yes only in the asker's term. */
    make_durable(w);
    w->sent_count = 0;
    receive_read(w, 3, MESSAGE_READ, 2, 9);
    assert_int_equal(w->sent_count, 0);
    receive_read(w, 3, MESSAGE_READ, 3, 9);
    assert_int_equal(w->sent_count, 1);
    assert_int_equal(w->sent[0].kind, MESSAGE_READ_ACK);
    world_destroy(w);
}

int main(void)
{
    log_init("test_driver_requests", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_submit_commits_or_is_unknown),
        cmocka_unit_test(test_commit_rides_on_entries),
        cmocka_unit_test(test_submit_is_bounded),
        cmocka_unit_test(test_large_appends_are_split),
        cmocka_unit_test(test_read_needs_a_majority_after_it_was_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
