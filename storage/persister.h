/* persister: takes events of the engine into PostgreSQL, asynchronously, from the leader.
 *
 * What it owns: its thread, its database connections, the translation of events into rows. What it
 * refuses: to hold up the state machine; to decide what happened; to invent a row.
 *
 * Happy path: persister_lead(term) → the thread connects and takes the fence (sets the term in the
 * watermark rows, which refuses every older leader from then on) → callbacks.want(sequence) → the
 * loop hands events over with persister_offer, and each new one as it comes, while all were taken →
 * per transaction: rows, outbox and watermark together →
 * callbacks.acked → the loop proposes COMMAND_PERSIST_ACK, so that all replicas can trim.
 *
 * Failure modes: PostgreSQL away, restarted or read-only: the transaction is given up, reconnect
 * with backoff, read the watermark again (a commit whose answer was lost is found there), and want
 * again from there; nothing is lost or doubled. Another leader took the fence: fenced, idle until
 * the next persister_lead. A row that PostgreSQL refuses for good (schema drift): error, retried,
 * shown in status; never skipped. A database that lacks acknowledged events (restored, replaced):
 * error, retried, nothing is written.
 *
 * Threads: every function is for the loop's thread, every callback comes there. */
#ifndef STORAGE_PERSISTER_H
#define STORAGE_PERSISTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/text.h"
#include "engine/engine.h"

#define PERSISTER_QUEUE_EVENTS_MAX 65536 /* offered and not yet committed */
#define PERSISTER_BATCH_EVENTS_MAX 16384 /* transactions that are written side by side */

struct persister_config {
    uv_loop_t *loop;
    const char *url;        /* libpq connection string or URI; copied */
    uint32_t shards;        /* as engine_shards: checked against the database's own */
    uint8_t cluster_id[16]; /* recorded in the database at first use; another cluster is refused */
    uint64_t connect_backoff_min_ms, connect_backoff_max_ms; /* 100, 5000 */
};

struct persister_callbacks {
    /* The events from this sequence on are wanted (after lead, reconnect, or when room was made).
     * It may be above what the engine has applied so far: then they are offered when they are
     * there. */
    void (*want)(void *ctx, uint64_t sequence);
    /* Committed in PostgreSQL: shards and their new watermarks, at most PERSIST_ACKS_MAX a call.
     * Said once more before the first want of each connection, should an earlier one have been
     * lost. Lent until return. */
    void (*acked)(void *ctx, const struct command_ack *acks, size_t count);
};

struct persister;

/* Returns 0 or -1 (thread or memory). Does not connect yet. */
int persister_create(const struct persister_config *config,
                     const struct persister_callbacks *callbacks, void *ctx, struct persister **p);

/* This node leads from now on in this term. first_sequence: the oldest event the engine still has.
 */
void persister_lead(struct persister *p, uint64_t term, uint64_t first_sequence);
/* It does not any more: pending work is dropped (its transaction may still commit: harmless). */
void persister_follow(struct persister *p);

/* Hands over events in sequence order, the first exactly the wanted one, or the one after the last
 * that was taken (anything else is a bug, and aborts). Copies. Returns how many were taken: fewer
 * than count when the queue is full (want is called again when there is room), 0 when not leading
 * or not ready. */
size_t persister_offer(struct persister *p, const struct event_view *events, size_t count);

struct persister_status {
    bool leading, connected, fenced;
    char error[256];             /* the last one, "" after a success */
    uint64_t next_sequence;      /* wanted next */
    uint64_t persisted_sequence; /* all up to here are committed */
    uint64_t events_total, transactions_total, errors_total, queue_events;
    char url[256]; /* without password */
};
void persister_get_status(const struct persister *p, struct persister_status *out);
/* holdfast_persist_* families. */
void persister_write_metrics(const struct persister *p, struct text *t);

/* Stops the thread and frees; done is called on the loop when nothing is left. */
void persister_destroy(struct persister *p, void (*done)(void *ctx), void *ctx);

#endif
