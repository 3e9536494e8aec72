/* engine: the replicated state machine. Stock, sales, eligibilities, orders, payments, leases,
 * denials.
 *
 * Pure: no I/O, no clock, no randomness, no floats, no threads, and after COMMAND_INIT no
 * allocation but from memory reserved there. Two engines that applied the same batches at the same
 * indexes are equal, byte for byte in what a checkpoint holds, and so are their digests.
 * docs/adr/0002 tells why.
 *
 * What it owns: every business decision. What it refuses: to know who asks (the gateway
 * authenticates), how a batch got here (raft/), where it is stored (storage/).
 *
 * Happy path: engine_apply(batch) → due reservations, leases and denials end, in deadline order →
 * each command: idempotency, checks in one precedence order, "must succeed from here", changes →
 * one reply each, events appended to the queue that PostgreSQL is fed from.
 *
 * Failure modes: a refusal is a reply; a batch that does not decode, or a broken invariant, is a
 * bug or damage: CHECK aborts, for a node that no longer understands its state must not go on. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "proto/command.h"

struct engine;

/* An empty engine: every command but COMMAND_INIT is refused with RESULT_CAPACITY until that is
 * applied. Aborts when memory cannot be had. */
struct engine *engine_create(void);
void engine_destroy(struct engine *e);

/* Backs all memory that the limits reserve, now, in huge pages where the system has them, so that
 * no apply waits for the kernel to clear a page, and address translation costs less. For
 * benchmarks, and for nodes with memory of their own: takes as much memory as the limits could ever
 * need (gigabytes for millions of orders), and the caller waits a second or two for each gigabyte:
 * between COMMAND_INIT and the first client, never while serving. Does nothing before COMMAND_INIT;
 * changes no state. Where the system refuses huge pages, small ones are touched. */
void engine_populate(struct engine *e);

/* The memory that commands touch at random, the hash indexes: a few bytes for each order, user and
 * key that the limits allow. Size 0 before COMMAND_INIT. The rest is filled from its beginning: see
 * engine_memory_ahead. */
struct engine_memory {
    void *at;
    size_t size;
};
struct engine_memory engine_index_memory(const struct engine *e);

/* Where the next records will be put: out[i] is the first `size` bytes of the i-th table or queue
 * behind what it has ever used, fewer at its end, none when it is full. All of size 0 before
 * COMMAND_INIT. */
#define ENGINE_AHEAD_COUNT 20
void engine_memory_ahead(const struct engine *e, size_t size,
                         struct engine_memory out[ENGINE_AHEAD_COUNT]);

/* Backs it with memory now, so that no apply waits for the kernel to find a page; in huge pages, if
 * wished and to be had. On any thread, while the engine works: contents stay. Even when the engine
 * is gone it does no harm, but a page or two more may be in use. 0, or -1 where the system cannot
 * do that (Linux before 5.14). */
int engine_memory_warm(struct engine_memory part, bool huge);

/* Gets the replies of one batch, in command order. position: of the command in its batch. The reply
 * is lent until return. */
typedef void (*engine_reply_cb)(void *ctx, uint32_t position, const struct reply *reply);

/* Applies one batch (proto/command.h) at a log index that is greater than the last one. reply may
 * be NULL. Replicated time becomes max(last, batch time). At most limits.expiries_per_batch_max due
 * things end in one batch: see engine_next_due_ms. */
void engine_apply(struct engine *e, uint64_t index, const void *batch, size_t size,
                  engine_reply_cb reply, void *ctx);

uint64_t engine_index(const struct engine *e);   /* last applied; 0: none */
int64_t engine_time_ms(const struct engine *e);  /* replicated time */
bool engine_initialized(const struct engine *e); /* COMMAND_INIT was applied */
/* The format in force (proto/format.h), part of the replicated state; 0 before COMMAND_INIT. */
uint64_t engine_format(const struct engine *e);
uint32_t engine_shards(const struct engine *e);
const struct command_limits *engine_limits(const struct engine *e);

/* When the next reservation, lease or denial ends, or record retires, in replicated ms; INT64_MAX:
 * nothing waits. At or below engine_time_ms: more is due than one batch may end; submit another.
 * The leader submits an empty batch when this is reached and nothing else comes. */
int64_t engine_next_due_ms(const struct engine *e);

/* ---- digest ---- */

/* Digest of the whole state, a function of the state only. Costs what changed since the last call,
 * or since engine_settle had nothing left: 0.1 to 0.2 µs for each block. */
uint64_t engine_digest(struct engine *e);
/* The digest that COMMAND_DIGEST_MARK left at `index`; the last 16 marks are remembered (not part
 * of the state). Exact at that index, but worked out afterwards, by engine_settle. A mark that
 * follows before the last one is worked out waits for it, within its apply. */
enum engine_mark {
    ENGINE_MARK_UNKNOWN, /* not among those remembered */
    ENGINE_MARK_PENDING, /* ask again after engine_settle */
    ENGINE_MARK_KNOWN,
};
enum engine_mark engine_get_mark(const struct engine *e, uint64_t index, uint64_t *digest);
/* The same in one call: what is pending is worked out now, however long that takes. */
bool engine_marked_digest(struct engine *e, uint64_t index, uint64_t *digest);

/* What applies and checkpoints leave for later, so that they need not hold the caller up: hashes
 * for the digest, and blocks of a checkpoint that failed. Does up to blocks_max of it, 0.1 to
 * 0.2 µs each; to be called between applies, little and often. Returns how much is left. */
size_t engine_settle(struct engine *e, size_t blocks_max);

/* Verifies every invariant of docs/architecture.md by a full scan: for tests, the simulator and
 * audit. Returns the number of violations and describes the first in `text`. */
uint64_t engine_check(const struct engine *e, char *text, size_t size);

/* ---- reading (any time between two applies; texts borrow until the next apply) ---- */

struct sku_view {
    struct str id, title;
    uint64_t version;
    int64_t available, reserved, sold, received;
    int64_t oversell_allowance; /* the largest that any offer of it has had */
};

struct offer_view {
    struct str sku;
    int64_t unit_price;
    uint32_t units_per_order_max, oversell_allowance;
    int64_t available, reserved, sold; /* of the SKU */
};

struct sale_view {
    struct str id, title;
    uint64_t version;
    enum sale_phase phase; /* at engine_time_ms */
    bool sold_out;         /* no offer has a unit left */
    char currency[4];
    int64_t eligibility_opens_ms, eligibility_closes_ms, opens_ms, closes_ms;
    uint64_t payment_timeout_ms, eligibility_limit, denial_ms;
    enum late_payment_policy late_payment;
    bool eligibility_required;
    uint32_t orders_per_user_max, units_per_user_max, eligibility_ratio_permille, strikes_max;
    uint64_t eligibilities_granted, orders_placed, orders_paid, orders_expired, orders_cancelled;
    uint32_t offers_count;
    struct offer_view offers[SALE_OFFERS_MAX];
};

struct line_view {
    struct str sku;
    uint32_t quantity;
    int64_t unit_price;
};

struct order_view {
    uint64_t id, version; /* version: grows with each change of status */
    struct str sale, user;
    enum order_status status;
    char currency[4];
    int64_t amount, created_ms, pay_by_ms, changed_ms;
    uint64_t created_index, changed_index;
    uint32_t lines_count;
    struct line_view
        lines[ORDER_LINES_MAX]; /* one a SKU, repeats summed, in order of first mention */
};

struct eligibility_view {
    struct str sale, user;
    int64_t granted_ms;
    bool granted;           /* false: revoked, or the user only ordered */
    uint32_t orders, units; /* live or paid */
};

struct lease_view {
    struct str name, owner;
    uint64_t token;
    int64_t expires_ms;
};

struct denial_view {
    struct str user, reason;
    uint32_t strikes;
    int64_t until_ms; /* 0: for good */
    bool denied;      /* now */
};

/* Each returns false when there is no such thing. */
bool engine_get_sku(const struct engine *e, struct str id, struct sku_view *out);
bool engine_get_sale(const struct engine *e, struct str id, struct sale_view *out);
bool engine_get_order(const struct engine *e, uint64_t id, struct order_view *out);
bool engine_get_eligibility(const struct engine *e, struct str sale, struct str user,
                            struct eligibility_view *out);
bool engine_get_lease(const struct engine *e, struct str name, struct lease_view *out);
bool engine_get_denial(const struct engine *e, struct str user, struct denial_view *out);
/* The stored answer of an order placed under this key, as a replay would give it; false: none. */
bool engine_get_placed(const struct engine *e, struct str scope, struct str key, struct reply *out);

/* Lists, in a stable order. *cursor: 0 to begin, then what the last call left; 0 again at the end.
 * Each call looks at no more than a bounded number of records, so it may find fewer than max, even
 * none, before the end. Returns how many were written. Empty filters match all. */
size_t engine_list_skus(const struct engine *e, uint64_t *cursor, struct sku_view *out, size_t max);
size_t engine_list_sales(const struct engine *e, uint64_t *cursor, struct sale_view *out,
                         size_t max);
size_t engine_list_orders(const struct engine *e, struct str sale, struct str user,
                          uint64_t *cursor, struct order_view *out, size_t max);
size_t engine_list_eligibilities(const struct engine *e, struct str sale, uint64_t *cursor,
                                 struct eligibility_view *out, size_t max);
size_t engine_list_leases(const struct engine *e, uint64_t *cursor, struct lease_view *out,
                          size_t max);
size_t engine_list_denials(const struct engine *e, uint64_t *cursor, struct denial_view *out,
                           size_t max);

/* ---- events: what PostgreSQL and the outbox must learn ---- */

/* Storage values: only ever add. */
enum event_kind {
    EVENT_ORDER_PLACED = 1,
    EVENT_ORDER_PAID = 2, /* also a late payment that found its units still free */
    EVENT_ORDER_CANCELLED = 3,
    EVENT_ORDER_EXPIRED = 4,
    EVENT_ORDER_REFUND_DUE = 5, /* a late payment that cannot be honoured */
    EVENT_ORDER_REFUNDED = 6,
    EVENT_ELIGIBILITY_GRANTED = 7,
    EVENT_ELIGIBILITY_REVOKED = 8,
    EVENT_PAYMENT_REJECTED = 9, /* money came for an order that cannot take it: to be paid back */
};
const char *event_kind_name(enum event_kind k); /* "order.placed": the CloudEvents type's tail */

struct event_view {
    uint64_t sequence; /* 1, 2, … without holes over the whole group */
    uint64_t index;    /* log index of the batch that caused it */
    int64_t time_ms;
    enum event_kind kind;
    uint32_t shard;           /* of the user */
    enum order_status status; /* of the order right after this event (the view below is of now) */
    uint64_t version;         /* of the order right after this event */
    struct order_view order;  /* kinds 1-6 and 9 */
    struct str sale, user;    /* all kinds */
    struct str payment;       /* payment event id: kinds 2, 5, 9 */
    int64_t amount;           /* paid: kinds 2, 5, 9 */
    char currency[4];
    bool restocked;    /* kind 6 */
    struct str reason; /* kinds 6, 9: refusal code or the caller's reason */
};

/* Not yet acknowledged by every shard they concern: [first, next). */
uint64_t engine_events_first(const struct engine *e);
uint64_t engine_events_next(const struct engine *e);
uint64_t engine_events_acked(const struct engine *e, uint32_t shard); /* watermark of a shard */
/* Copies views of events from `sequence` on; returns how many (0: none that new). */
size_t engine_read_events(const struct engine *e, uint64_t sequence, struct event_view *out,
                          size_t max);

/* ---- figures for metrics and audit ---- */

struct engine_stats {
    uint64_t skus, sales, users, eligibilities, orders, orders_pending, idempotency_keys, leases,
        denials, events;
    uint64_t commands[COMMAND_KIND_MAX + 1]; /* since the process started: not part of the state */
    uint64_t results[RESULT_MAX + 1];
    uint64_t replays, expired_reservations;
    int64_t expiry_lag_ms; /* how late the last reservation ended: 0 unless more was due at once */
};
void engine_get_stats(const struct engine *e, struct engine_stats *out);

/* ---- checkpoint: the state as blocks ---- */

/* The whole state is a set of blocks (table, number) of at most ENGINE_BLOCK_SIZE_MAX bytes. A
 * block that is absent is empty. Indexes and maps are rebuilt when loading. */
#define ENGINE_BLOCK_SIZE_MAX 1024

struct engine_block {
    uint32_t table;
    uint32_t number;
    const void *data; /* lent until return */
    uint32_t size;    /* 0: the block has become empty: delete it */
};
typedef void (*engine_block_cb)(void *ctx, const struct engine_block *block);

/* What a block adds to the digest of the state: engine_digest is the sum over all blocks, so a
 * stream of them can be judged without an engine. Of blocks as they are handed over: never all
 * zeros. */
uint64_t engine_block_digest(const struct engine_block *block);

/* Freezes the set of blocks changed since the last successful checkpoint, as they are now, and
 * hands each to put, once, with its content of this moment: some by engine_checkpoint_step, and a
 * block that a later apply is about to change just before it does. One checkpoint at a time.
 * Constant time, once engine_checkpoint_ready. */
void engine_checkpoint_begin(struct engine *e, engine_block_cb put, void *ctx);
/* Hands over up to blocks_max more. Returns how many are left. */
size_t engine_checkpoint_step(struct engine *e, size_t blocks_max);
/* The digest of the state when it began. Known when the step has returned 0, until the end. */
uint64_t engine_checkpoint_digest(const struct engine *e);
/* Ends it. durable false: the next checkpoint takes these blocks again, and engine_settle puts them
 * back. Constant time. */
void engine_checkpoint_end(struct engine *e, bool durable);
/* False: blocks of a failed one are still to be put back, which the next begin would do at once. */
bool engine_checkpoint_ready(const struct engine *e);

/* Loading: an engine fresh from engine_create. blocks in any order; finish rebuilds and verifies.
 * Returns 0, or -1 when the blocks are no state of index and digest (then only destroy it). */
int engine_load_block(struct engine *e, const struct engine_block *block);
/* The format that a block says the state has, 0 for a block that does not tell (all but the root).
 * So that a newer state can be named as such before engine_load_block refuses it. */
uint64_t engine_block_format(const struct engine_block *block);
int engine_load_finish(struct engine *e, uint64_t index, uint64_t digest);
/* The same in pieces, for a caller with threads: engine_load_check, and when that returned 0 each
 * part of engine_load_index once. Parts touch nothing that is another's: they may run at the same
 * time, on as many threads; nothing else may be asked of the engine meanwhile. */
#define ENGINE_LOAD_PARTS 4u
int engine_load_check(struct engine *e, uint64_t index, uint64_t digest);
void engine_load_index(struct engine *e, unsigned part);

/* Makes a loaded state that of another cluster (a restored backup, docs/adr/0013): its cluster id
 * is this one from now on, and the next lease tokens are larger by tokens than they would be, so
 * that none is given twice. Of the state only one block changes: put gets it. Deterministic: equal
 * states stay equal. Before the first apply and outside of a checkpoint. */
void engine_rebase(struct engine *e, const uint8_t cluster_id[16], uint64_t tokens,
                   engine_block_cb put, void *ctx);
/* The cluster whose state it is: 16 bytes, all zero before COMMAND_INIT. */
const uint8_t *engine_cluster_id(const struct engine *e);

#endif
