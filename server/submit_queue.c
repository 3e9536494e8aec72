/* See submit_queue.h. A batch is in one of three lists:
 *
 *     free ──► queued (the last one is being filled) ──► in flight (in log order) ──► free */
#include "server/submit_queue.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/failpoint.h"
#include "proto/node.pb-c.h"

#define RETRY_AFTER_MIN_MS 5
#define RETRY_AFTER_MAX_MS 2000

_Static_assert(SUBMIT_IN_FLIGHT_MAX + SUBMIT_RESERVED < SUBMIT_BATCHES_MAX,
               "there is room to queue");

struct slot {
    struct submit_work *work; /* NULL: the node's own command */
    uint32_t position;
};

struct batch {
    struct submit_queue *queue;
    struct batch *next;
    struct replica_submit submit;
    struct batch_builder builder;
    uint32_t replied;
    uint64_t proposed_ns;
    struct slot slots[BATCH_COMMANDS_MAX];
    uint8_t data[BATCH_SIZE_MAX];
};

struct list {
    struct batch *head, *tail;
    uint32_t count;
};

struct submit_queue {
    struct submit_queue_callbacks callbacks;
    void *ctx;
    struct list unused, queued, in_flight;
    struct batch *batches;
    struct submit_queue_stats stats;
    double drain_per_ms; /* commands answered, averaged over batches */
    uint64_t drained_ns;
    uint64_t paced_ns; /* no batch before, unless it is full; 0: at once */
};

static void list_append(struct list *l, struct batch *b)
{
    b->next = NULL;
    if (l->tail != NULL) {
        l->tail->next = b;
    } else {
        l->head = b;
    }
    l->tail = b;
    l->count++;
}

static void list_prepend(struct list *l, struct batch *b)
{
    b->next = l->head;
    l->head = b;
    l->tail = l->tail != NULL ? l->tail : b;
    l->count++;
}

static void list_remove(struct list *l, struct batch *b)
{
    struct batch *before = NULL;
    for (struct batch *at = l->head; at != b; at = at->next) {
        CHECK(at != NULL);
        before = at;
    }
    if (before != NULL) {
        before->next = b->next;
    } else {
        l->head = b->next;
    }
    l->tail = l->tail == b ? before : l->tail;
    l->count--;
}

struct submit_queue *submit_queue_create(const struct submit_queue_callbacks *callbacks, void *ctx)
{
    struct submit_queue *q = calloc(1, sizeof *q);
    CHECK(q != NULL);
    q->callbacks = *callbacks;
    q->ctx = ctx;
    q->batches = calloc(SUBMIT_BATCHES_MAX, sizeof q->batches[0]); /* pages come as they are used */
    CHECK(q->batches != NULL);
    for (size_t i = SUBMIT_BATCHES_MAX; i-- > 0;) {
        q->batches[i].queue = q;
        list_prepend(&q->unused, &q->batches[i]);
    }
    histogram_init(&q->stats.batch_commands);
    histogram_init(&q->stats.wait_ns);
    return q;
}

void submit_queue_destroy(struct submit_queue *q)
{
    submit_queue_fail(q);
    CHECK(q->in_flight.count == 0);
    free(q->batches);
    free(q);
}

static struct batch *take_unused(struct submit_queue *q, uint32_t leave)
{
    if (q->unused.count <= leave) {
        return NULL;
    }
    struct batch *b = q->unused.head;
    list_remove(&q->unused, b);
    b->replied = 0;
    batch_begin(&b->builder, b->data, sizeof b->data);
    return b;
}

static bool add(struct submit_queue *q, struct submit_work *work, uint32_t position,
                const void *command, size_t size, uint32_t leave)
{
    struct batch *b = q->queued.tail;
    if (b == NULL || !batch_add(&b->builder, command, size)) {
        b = take_unused(q, leave);
        if (b == NULL) {
            return false;
        }
        CHECK(batch_add(&b->builder, command, size)); /* COMMAND_SIZE_MAX fits an empty batch */
        list_append(&q->queued, b);
    }
    b->slots[b->builder.count - 1] = (struct slot){work, position};
    q->stats.queued++;
    return true;
}

bool submit_queue_add(struct submit_queue *q, struct submit_work *work, uint32_t position,
                      const void *command, size_t size)
{
    CHECK(position < work->count);
    if (!add(q, work, position, command, size, SUBMIT_RESERVED)) {
        q->stats.busy_total++;
        return false;
    }
    return true;
}

bool submit_queue_add_own(struct submit_queue *q, const void *command, size_t size, bool first)
{
    if (!first) {
        return add(q, NULL, 0, command, size, 0);
    }
    struct batch *b = take_unused(q, 0);
    if (b == NULL) {
        return false;
    }
    CHECK(batch_add(&b->builder, command, size));
    b->slots[0] = (struct slot){NULL, 0};
    list_prepend(&q->queued, b);
    q->stats.queued++;
    return true;
}

/* ---- outcomes ---- */

static void settle(struct submit_queue *q, struct submit_work *work)
{
    CHECK(work->remaining > 0);
    if (--work->remaining == 0) {
        q->callbacks.answered(q->ctx, work);
    }
}

static void settle_all(struct submit_queue *q, struct batch *b, Holdfast__Status status)
{
    for (uint32_t i = 0; i < b->builder.count; i++) {
        struct slot *s = &b->slots[i];
        if (s->work != NULL) {
            if (status != HOLDFAST__STATUS__STATUS_OK) {
                s->work->outcomes[s->position].status = (uint8_t)status;
            }
            settle(q, s->work);
        }
    }
}

bool submit_queue_expects(const struct submit_queue *q, uint64_t index, uint64_t term)
{
    const struct batch *b = q->in_flight.head;
    return b != NULL && b->submit.index == index && b->submit.term == term;
}

void submit_queue_reply_cb(void *ctx, uint32_t position, const struct reply *reply)
{
    struct submit_queue *q = ctx;
    struct batch *b = q->in_flight.head;
    CHECK(position == b->replied);
    CHECK(position < b->builder.count);
    struct slot *s = &b->slots[position];
    b->replied++;
    if (s->work != NULL) {
        struct submit_outcome *o = &s->work->outcomes[s->position];
        o->status = HOLDFAST__STATUS__STATUS_OK;
        reply_encode(reply, o->reply);
    }
}

static void note_drained(struct submit_queue *q, uint32_t commands, uint64_t now_ns)
{
    double ms = (double)(now_ns - q->drained_ns) / 1e6;
    q->drained_ns = now_ns;
    if (commands > 0) {
        double rate = (double)commands / (ms > 0.01 ? ms : 0.01);
        q->drain_per_ms += (rate - q->drain_per_ms) / 8;
    }
}

static void submit_cb(struct replica_submit *req, enum replica_status status, uint64_t index)
{
    struct batch *b = container_of(req, struct batch, submit);
    struct submit_queue *q = b->queue;
    uint32_t count = b->builder.count;
    (void)index;
    list_remove(&q->in_flight, b);
    q->stats.in_flight -= count;
    if (status == REPLICA_OK) {
        uint64_t now_ns = q->callbacks.monotonic_ns(q->ctx);
        CHECK(b->replied == count);
        histogram_add(&q->stats.wait_ns, now_ns - b->proposed_ns);
        note_drained(q, count, now_ns);
        q->stats.ok_total += count;
        settle_all(q, b, HOLDFAST__STATUS__STATUS_OK);
    } else {
        q->stats.unknown_total += count;
        settle_all(q, b, HOLDFAST__STATUS__STATUS_OUTCOME_UNKNOWN);
    }
    list_append(&q->unused, b);
}

void submit_queue_fail(struct submit_queue *q)
{
    while (q->queued.head != NULL) {
        struct batch *b = q->queued.head;
        list_remove(&q->queued, b);
        q->stats.queued -= b->builder.count;
        q->stats.not_leader_total += b->builder.count;
        settle_all(q, b, HOLDFAST__STATUS__STATUS_NOT_LEADER);
        list_append(&q->unused, b);
    }
}

/* ---- proposing ---- */

/* Moves the batch to `in flight` if it was accepted. */
static enum replica_status propose(struct submit_queue *q, struct batch *b)
{
    size_t size = batch_end(&b->builder, q->callbacks.now_ms(q->ctx));
    b->proposed_ns = q->callbacks.monotonic_ns(q->ctx);
    uint32_t count = b->builder.count;
    /* Counted before: whoever is alone in its cluster might be told within the call. */
    list_append(&q->in_flight, b);
    q->stats.in_flight += count;
    FAILPOINT("submit/before-propose", "a batch is stamped, not proposed");
    enum replica_status status = q->callbacks.propose(q->ctx, &b->submit, b->data, size, submit_cb);
    if (status != REPLICA_OK) {
        list_remove(&q->in_flight, b);
        q->stats.in_flight -= count;
        return status;
    }
    q->paced_ns = count >= SUBMIT_PACE_COMMANDS ? b->proposed_ns + SUBMIT_PACE_NS : 0;
    q->stats.batches_total++;
    q->stats.commands_total += count;
    histogram_add(&q->stats.batch_commands, count);
    return REPLICA_OK;
}

/* The only batch that waits is the one being filled, and more is likely to come. */
static uint64_t pace_left_ns(const struct submit_queue *q)
{
    uint64_t now_ns = q->paced_ns != 0 ? q->callbacks.monotonic_ns(q->ctx) : 0;
    return q->queued.count == 1 && now_ns < q->paced_ns ? q->paced_ns - now_ns : 0;
}

uint32_t submit_queue_dispatch(struct submit_queue *q, bool ready)
{
    while (ready && q->queued.head != NULL && q->in_flight.count < SUBMIT_IN_FLIGHT_MAX) {
        uint64_t wait_ns = pace_left_ns(q);
        if (wait_ns > 0) {
            return (uint32_t)((wait_ns + 999999) / 1000000);
        }
        struct batch *b = q->queued.head;
        list_remove(&q->queued, b);
        q->stats.queued -= b->builder.count;
        enum replica_status status = propose(q, b);
        if (status == REPLICA_OK) {
            continue;
        }
        CHECK(status != REPLICA_TOO_LARGE);
        list_prepend(&q->queued, b);
        q->stats.queued += b->builder.count;
        if (status == REPLICA_NOT_LEADER) {
            submit_queue_fail(q);
        }
        return 0; /* busy: the next iteration */
    }
    return 0;
}

void submit_queue_tick(struct submit_queue *q)
{
    if (!submit_queue_is_idle(q)) {
        return;
    }
    struct batch *b = take_unused(q, 0);
    CHECK(b != NULL);
    if (propose(q, b) != REPLICA_OK) {
        list_append(&q->unused, b);
    }
}

uint32_t submit_queue_retry_after_ms(const struct submit_queue *q)
{
    double depth = (double)(q->stats.queued + q->stats.in_flight);
    double ms = q->drain_per_ms > 0.001 ? depth / q->drain_per_ms : 100;
    return ms < RETRY_AFTER_MIN_MS   ? RETRY_AFTER_MIN_MS
           : ms > RETRY_AFTER_MAX_MS ? RETRY_AFTER_MAX_MS
                                     : (uint32_t)ms;
}

bool submit_queue_is_idle(const struct submit_queue *q)
{
    return q->queued.count == 0 && q->in_flight.count == 0;
}

const struct submit_queue_stats *submit_queue_stats(const struct submit_queue *q)
{
    return &q->stats;
}
