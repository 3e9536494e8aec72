/* submit_queue: commands become batches. Group commit.
 *
 * What it owns: commands between a session and the log, and the matching of replies. What it
 * refuses: to know sessions, to look inside a command (the session has decoded it), to say "failed"
 * of a batch whose outcome it does not know.
 *
 * Happy path: submit_queue_add copies a command straight into the batch that is being filled →
 * submit_queue_dispatch, once a loop iteration, proposes batches while fewer than
 * SUBMIT_IN_FLIGHT_MAX are on their way; commands that come meanwhile fill the next one → apply
 * asks submit_queue_expects and gives each reply to submit_queue_reply_cb → when the last command
 * of a work has its outcome, `answered`.
 *
 * When a batch goes: at once, as long as commands come one by one. In a rush, that is when the
 * batch before carried SUBMIT_PACE_COMMANDS or more, SUBMIT_PACE_NS after that one or when it is
 * full, whichever is first: each batch costs a synced write and some messages on every node however
 * small it is, and fewer of them answer a crowd sooner (docs/adr/0011).
 *
 * Failure modes: all batches are full: submit_queue_add returns false (busy). Leadership lost:
 * what was not proposed is NOT_LEADER, what was is OUTCOME_UNKNOWN. */
#ifndef SERVER_SUBMIT_QUEUE_H
#define SERVER_SUBMIT_QUEUE_H

#include "base/histogram.h"
#include "engine/engine.h"
#include "proto/submit_frame.h"
#include "raft/replica.h"

#define SUBMIT_IN_FLIGHT_MAX 8 /* batches proposed and not yet applied */
#define SUBMIT_BATCHES_MAX                                                                         \
    64 /* in memory: filling, waiting and in flight; 64 KiB of commands each */
#define SUBMIT_RESERVED      4 /* of those for the node's own commands */
#define SUBMIT_PACE_COMMANDS 8
#define SUBMIT_PACE_NS       1000000u

/* Commands that are answered together: one Submit frame. The caller's memory until answered. */
struct submit_work {
    uint32_t count, remaining; /* remaining: without an outcome yet; set both to count */
    struct submit_outcome *outcomes;
};

struct submit_queue_callbacks {
    /* As replica_submit. */
    enum replica_status (*propose)(void *ctx, struct replica_submit *req, const void *data,
                                   size_t size, replica_submit_cb cb);
    int64_t (*now_ms)(void *ctx); /* replicated time, to stamp on a batch */
    uint64_t (*monotonic_ns)(void *ctx);
    /* Every outcome of the work is there; the work is the callee's. Not from within
     * submit_queue_add. */
    void (*answered)(void *ctx, struct submit_work *work);
};

struct submit_queue_stats {
    uint64_t queued, in_flight; /* commands, now */
    uint64_t batches_total, commands_total;
    uint64_t ok_total, unknown_total, not_leader_total, busy_total; /* commands */
    struct histogram batch_commands;
    struct histogram wait_ns; /* of a batch: from proposal to reply */
};

struct submit_queue;
struct submit_queue *submit_queue_create(const struct submit_queue_callbacks *callbacks, void *ctx);
/* Nothing may be in flight. What is queued is answered NOT_LEADER. */
void submit_queue_destroy(struct submit_queue *q);

/* Queues command number `position` of the work. Returns false, nothing taken, when there is no
 * room. */
bool submit_queue_add(struct submit_queue *q, struct submit_work *work, uint32_t position,
                      const void *command, size_t size);
/* A command of the node itself: no reply is kept. first: before everything queued. */
bool submit_queue_add_own(struct submit_queue *q, const void *command, size_t size, bool first);

/* Proposes what can be. ready false: this node leads but is not ready; everything waits. Returns in
 * how many ms a batch is due that waits for time; 0: none does. */
uint32_t submit_queue_dispatch(struct submit_queue *q, bool ready);
/* Proposes a batch without commands, to let time pass, unless something is queued or in flight. */
void submit_queue_tick(struct submit_queue *q);
/* This node does not lead: everything not proposed is NOT_LEADER. */
void submit_queue_fail(struct submit_queue *q);

/* True iff the batch at (index, term) is the next one proposed here; then give
 * submit_queue_reply_cb with the queue as ctx to engine_apply. */
bool submit_queue_expects(const struct submit_queue *q, uint64_t index, uint64_t term);
void submit_queue_reply_cb(void *q, uint32_t position, const struct reply *reply);

/* When a command that is refused now should come again. */
uint32_t submit_queue_retry_after_ms(const struct submit_queue *q);
bool submit_queue_is_idle(const struct submit_queue *q);
const struct submit_queue_stats *submit_queue_stats(const struct submit_queue *q);

#endif
