/* Unit tests of server/submit_queue: joining, order of replies, bounds, and what is said when
 * leadership is lost. The replica is a list that the test commits or drops from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "proto/node.pb-c.h"
#include "server/submit_queue.h"

#define PROPOSED_MAX 64

struct proposed {
    struct replica_submit *req;
    uint32_t count;
    int64_t time_ms;
    uint8_t data[BATCH_SIZE_MAX];
    size_t size;
};

static struct proposed log_[PROPOSED_MAX];
static size_t log_count;
static uint64_t next_index;
static enum replica_status refuse_with; /* 0: accept */
static int64_t now_ms;
static uint64_t monotonic_ns;
static size_t answered;

struct work {
    struct submit_work work;
    struct submit_outcome outcomes[8];
    bool answered;
};

static enum replica_status propose_cb(void *ctx, struct replica_submit *req, const void *data,
                                      size_t size, replica_submit_cb cb)
{
    (void)ctx;
    if (refuse_with != REPLICA_OK) {
        return refuse_with;
    }
    struct batch_reader reader;
    CHECK(log_count < PROPOSED_MAX);
    CHECK(batch_open(&reader, data, size) == 0);
    struct proposed *p = &log_[log_count++];
    p->req = req;
    p->count = reader.count;
    p->time_ms = reader.leader_time_ms;
    p->size = size;
    memcpy(p->data, data, size);
    req->cb = cb;
    req->index = next_index++;
    req->term = 5;
    return REPLICA_OK;
}

static int64_t now_cb(void *ctx)
{
    (void)ctx;
    return now_ms;
}

static uint64_t monotonic_cb(void *ctx)
{
    (void)ctx;
    return monotonic_ns;
}

static void answered_cb(void *ctx, struct submit_work *work)
{
    struct work *w = container_of(work, struct work, work);
    (void)ctx;
    CHECK(!w->answered);
    w->answered = true;
    answered++;
}

static struct submit_queue *create(void)
{
    static const struct submit_queue_callbacks callbacks = {propose_cb, now_cb, monotonic_cb,
                                                            answered_cb};
    log_count = 0;
    next_index = 100;
    refuse_with = REPLICA_OK;
    now_ms = 1000;
    monotonic_ns = 1000000000;
    answered = 0;
    return submit_queue_create(&callbacks, NULL);
}

static void add(struct submit_queue *q, struct work *w, const char *command)
{
    *w = (struct work){.work = {.count = 1, .remaining = 1, .outcomes = w->outcomes}};
    assert_true(submit_queue_add(q, &w->work, 0, command, strlen(command)));
}

/* Commits the oldest batch: replies whose `detail` is the length of the command's text. */
static void commit(struct submit_queue *q)
{
    struct proposed p = log_[0];
    struct batch_reader reader;
    const void *command;
    size_t size;
    log_count--;
    memmove(log_, log_ + 1, log_count * sizeof log_[0]);
    assert_true(submit_queue_expects(q, p.req->index, 5));
    assert_false(submit_queue_expects(q, p.req->index, 4));
    assert_false(submit_queue_expects(q, p.req->index + 1, 5));
    CHECK(batch_open(&reader, p.data, p.size) == 0);
    for (uint32_t i = 0; batch_next(&reader, &command, &size) > 0; i++) {
        struct reply reply = {.detail = (uint32_t)size, .index = p.req->index};
        submit_queue_reply_cb(q, i, &reply);
    }
    p.req->cb(p.req, REPLICA_OK, p.req->index);
}

static uint32_t detail_of(const struct work *w)
{
    struct reply reply;
    assert_int_equal(w->outcomes[0].status, HOLDFAST__STATUS__STATUS_OK);
    assert_int_equal(reply_decode(&reply, w->outcomes[0].reply, REPLY_SIZE), 0);
    return reply.detail;
}

static void test_joined_and_matched(void **state)
{
    (void)state;
    struct submit_queue *q = create();
    struct work w[4];
    add(q, &w[0], "a");
    add(q, &w[1], "bb");
    submit_queue_dispatch(q, false); /* leads, but is not ready */
    assert_int_equal(log_count, 0);
    submit_queue_dispatch(q, true);
    assert_int_equal(log_count, 1);
    assert_int_equal(log_[0].count, 2);
    assert_int_equal(log_[0].time_ms, 1000);
    now_ms = 1007;
    add(q, &w[2], "ccc");
    submit_queue_dispatch(q, true);
    assert_int_equal(log_count, 2);
    assert_int_equal(log_[1].time_ms, 1007);
    assert_false(submit_queue_is_idle(q));
    commit(q);
    assert_true(w[0].answered && w[1].answered && !w[2].answered);
    assert_int_equal(detail_of(&w[0]), 1);
    assert_int_equal(detail_of(&w[1]), 2);
    commit(q);
    assert_int_equal(detail_of(&w[2]), 3);
    assert_true(submit_queue_is_idle(q));
    submit_queue_destroy(q);
}

static void test_window_closes_batches(void **state)
{
    (void)state;
    struct submit_queue *q = create();
    enum { COUNT = SUBMIT_IN_FLIGHT_MAX + 5 };
    static struct work w[COUNT];
    for (int i = 0; i < COUNT; i++) {
        add(q, &w[i], "x");
        submit_queue_dispatch(q, true);
    }
    /* The first ones went alone; what came while the window was full waits together. */
    assert_int_equal(log_count, SUBMIT_IN_FLIGHT_MAX);
    commit(q);
    submit_queue_dispatch(q, true);
    assert_int_equal(log_count, SUBMIT_IN_FLIGHT_MAX);
    assert_int_equal(log_[SUBMIT_IN_FLIGHT_MAX - 1].count, 5);
    while (log_count > 0) {
        commit(q);
    }
    assert_int_equal(answered, COUNT);
    submit_queue_destroy(q);
}

static void test_full_is_busy(void **state)
{
    (void)state;
    struct submit_queue *q = create();
    static uint8_t command[COMMAND_SIZE_MAX];
    static struct work w[SUBMIT_BATCHES_MAX * (BATCH_SIZE_MAX / COMMAND_SIZE_MAX)];
    size_t taken = 0;
    for (; taken < ARRAY_COUNT(w); taken++) {
        w[taken] =
            (struct work){.work = {.count = 1, .remaining = 1, .outcomes = w[taken].outcomes}};
        if (!submit_queue_add(q, &w[taken].work, 0, command, sizeof command)) {
            break;
        }
    }
    assert_true(taken > 0 && taken < ARRAY_COUNT(w));
    assert_false(w[taken].answered);
    assert_true(submit_queue_retry_after_ms(q) > 0);
    /* There is still room for the node's own commands: time and acknowledgements must go on. */
    assert_true(submit_queue_add_own(q, "own", 3, true));
    assert_int_equal(submit_queue_stats(q)->busy_total, 1);
    while (!submit_queue_is_idle(q)) {
        submit_queue_dispatch(q, true);
        if (log_count > 0) {
            commit(q);
        }
    }
    assert_int_equal(answered, taken);
    submit_queue_destroy(q);
}

static void test_leadership_lost(void **state)
{
    (void)state;
    struct submit_queue *q = create();
    struct work w[3];
    add(q, &w[0], "a");
    submit_queue_dispatch(q, true);
    add(q, &w[1], "b");
    submit_queue_fail(q);
    assert_false(w[0].answered); /* proposed: the replica will say */
    assert_true(w[1].answered);
    assert_int_equal(w[1].outcomes[0].status, HOLDFAST__STATUS__STATUS_NOT_LEADER);
    log_[0].req->cb(log_[0].req, REPLICA_OUTCOME_UNKNOWN, 0);
    log_count = 0;
    assert_true(w[0].answered);
    assert_int_equal(w[0].outcomes[0].status, HOLDFAST__STATUS__STATUS_OUTCOME_UNKNOWN);
    /* And when the replica itself refuses: nothing happened. */
    add(q, &w[2], "c");
    refuse_with = REPLICA_BUSY;
    submit_queue_dispatch(q, true);
    assert_false(w[2].answered);
    refuse_with = REPLICA_NOT_LEADER;
    submit_queue_dispatch(q, true);
    assert_int_equal(w[2].outcomes[0].status, HOLDFAST__STATUS__STATUS_NOT_LEADER);
    assert_true(submit_queue_is_idle(q));
    submit_queue_destroy(q);
}

static void test_own_first_and_ticks(void **state)
{
    (void)state;
    struct submit_queue *q = create();
    struct work w;
    add(q, &w, "later");
    assert_true(submit_queue_add_own(q, "init", 4, true));
    submit_queue_tick(q); /* something is queued: no empty batch */
    submit_queue_dispatch(q, true);
    assert_int_equal(log_count, 2);
    assert_int_equal(log_[0].size + 1, log_[1].size); /* "init" before "later" */
    commit(q);
    commit(q);
    assert_true(w.answered);
    submit_queue_tick(q);
    assert_int_equal(log_count, 1);
    assert_int_equal(log_[0].count, 0);
    submit_queue_tick(q); /* one at a time */
    assert_int_equal(log_count, 1);
    commit(q);
    refuse_with = REPLICA_BUSY;
    submit_queue_tick(q);
    assert_true(submit_queue_is_idle(q));
    submit_queue_destroy(q);
}

/* After a batch of many the next one waits, but not for ever, and not when it is full. */
static void test_paced_in_a_rush(void **state)
{
    (void)state;
    struct submit_queue *q = create();
    static struct work w[3 * SUBMIT_PACE_COMMANDS + 1 + BATCH_COMMANDS_MAX];
    size_t n = 0;
    for (int i = 0; i < SUBMIT_PACE_COMMANDS; i++) {
        add(q, &w[n++], "x");
    }
    assert_int_equal(submit_queue_dispatch(q, true), 0);
    assert_int_equal(log_count, 1);
    add(q, &w[n++], "x");
    assert_int_equal(submit_queue_dispatch(q, true), 1);
    commit(q); /* nothing is in flight any more: still */
    monotonic_ns += SUBMIT_PACE_NS - 1;
    assert_int_equal(submit_queue_dispatch(q, true), 1);
    assert_int_equal(log_count, 0);
    monotonic_ns += 1;
    assert_int_equal(submit_queue_dispatch(q, true), 0);
    assert_int_equal(log_count, 1);
    /* That one was alone: the rush is over. */
    add(q, &w[n++], "x");
    assert_int_equal(submit_queue_dispatch(q, true), 0);
    assert_int_equal(log_count, 2);
    for (int i = 0; i < SUBMIT_PACE_COMMANDS; i++) {
        add(q, &w[n++], "x");
    }
    assert_int_equal(submit_queue_dispatch(q, true), 0);
    for (int i = 0; i < BATCH_COMMANDS_MAX + 1; i++) {
        add(q, &w[n++], "x");
    }
    assert_int_equal(submit_queue_dispatch(q, true), 1);
    assert_int_equal(log_count, 4); /* the full one went, the one with the last command waits */
    submit_queue_fail(q);
    while (log_count > 0) {
        commit(q);
    }
    assert_int_equal(answered, n);
    submit_queue_destroy(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_joined_and_matched),  cmocka_unit_test(test_window_closes_batches),
        cmocka_unit_test(test_full_is_busy),        cmocka_unit_test(test_leadership_lost),
        cmocka_unit_test(test_own_first_and_ticks), cmocka_unit_test(test_paced_in_a_rush),
    };
    return cmocka_run_group_tests_name("submit_queue", tests, NULL, NULL);
}
