/* The records of the state, and the engine around them.
 *
 * Records refer to each other by slot (u32, 0: none). SKUs and sales stay for the life of the
 * group; everything else is taken from and given back to free lists that are part of the state, so
 * that all replicas give the same record the same slot.
 *
 *   sale ──< member >── user        one member per (sale, user): eligibility, live orders, units
 *            member ──< order ──< lines        event ──> order, or member
 *
 * No record has padding (see the asserts): equal states are equal bytes. */
#ifndef ENGINE_STATE_H
#define ENGINE_STATE_H

#include "engine/due_heap.h"
#include "engine/engine.h"
#include "engine/hash.h"
#include "engine/map.h"
#include "engine/table.h"
#include "proto/limits.h"

/* Free list and counts of a table whose records come and go. */
struct slab {
    uint32_t used_max; /* slots 1..used_max were in use at some time */
    uint32_t free;     /* head of the free list: last given back, first taken */
    uint32_t live;
    uint32_t reserved;
};

#define SALES_MAX    (1u << 25) /* so that their offers have 32-bit slots */

/* Table 0, one record: the scalars. */
struct root {
    uint64_t format;
    uint64_t index;
    int64_t time_ms;
    uint8_t cluster_id[16];
    uint8_t hash_seed[16];
    uint32_t initialized;
    uint32_t shards;
    uint32_t skus_max, sales_max, users_max, eligibilities_max;
    uint32_t orders_max, idempotency_max, leases_max, events_max;
    uint32_t expiries_per_batch_max;
    uint32_t orders_pending;
    uint64_t idempotency_retention_ms;
    uint64_t lease_token; /* the last one given */
    uint64_t event_first; /* ring: [first, next) */
    uint64_t event_next;
    struct slab slabs[TABLE_COUNT];
};
_Static_assert(sizeof(struct root) == 136 + 16 * TABLE_COUNT, "no padding");
_Static_assert(sizeof(struct root) <= ENGINE_BLOCK_SIZE_MAX, "one block, and so the first to load");

struct watermark {
    uint64_t acked; /* all events of the shard up to this one are in PostgreSQL */
};

struct sku {
    int64_t available, reserved, sold;
    int64_t received;     /* kept apart, so that their sum can be checked */
    int64_t sold_retired; /* of sold: units of orders that have left memory */
    uint64_t version;
    uint32_t oversell_allowance; /* the largest that any offer of it has had */
    uint8_t id_size;
    uint8_t title_size;
    uint8_t unused[2];
    char id[ID_SIZE_MAX];
    char title[TITLE_SIZE_MAX];
};
_Static_assert(sizeof(struct sku) == 240, "no padding");

/* The sale's offers are TABLE_OFFER records slot × SALE_OFFERS_MAX + position. */
struct sale {
    int64_t opens_ms, closes_ms;
    int64_t eligibility_opens_ms, eligibility_closes_ms;
    uint64_t payment_timeout_ms;
    uint64_t denial_ms;
    uint64_t version;
    uint64_t eligibility_limit;
    uint32_t orders_per_user_max, units_per_user_max;
    uint32_t eligibility_ratio_permille, strikes_max;
    uint8_t late_payment, eligibility_required, paused, closed;
    uint8_t offers_count, id_size, title_size, unused;
    char currency[4];
    uint32_t members; /* newest; chained by member.sale_next */
    uint32_t orders_in_memory;
    uint32_t unused_too;
    uint64_t eligibilities_granted, orders_placed, orders_paid, orders_expired, orders_cancelled;
    uint64_t last_event; /* of its eligibility events */
    int64_t due_ms;      /* when to retire its members; SALE_PARKED, SALE_RETIRED */
    uint32_t offer_skus[SALE_OFFERS_MAX];
    char id[ID_SIZE_MAX];
    char title[TITLE_SIZE_MAX];
};
_Static_assert(sizeof(struct sale) == 600, "no padding");
#define SALE_PARKED  (INT64_MAX - 1) /* due, but orders or events still need its members */
#define SALE_RETIRED INT64_MAX

struct offer {
    int64_t unit_price;
    uint32_t units_per_order_max;
    uint32_t oversell_allowance;
};
_Static_assert(sizeof(struct offer) == 16, "no padding");

#define USER_ID_INLINE 40

/* One cache line: most ids are inline, longer ones in the text pool. */
struct user {
    uint32_t members; /* newest; chained by member.user_next */
    uint32_t strikes;
    int64_t denied_until_ms; /* 0: for good */
    uint32_t reason;         /* text */
    uint16_t shard;
    uint8_t denied;
    uint8_t id_size; /* 0: free */
    union {
        char id[USER_ID_INLINE];
        uint32_t id_text; /* when id_size > USER_ID_INLINE */
    };
};
_Static_assert(sizeof(struct user) == 64, "one cache line, no padding");

enum { MEMBER_GRANTED = 1, MEMBER_EVER_GRANTED = 2 };

struct member {
    uint32_t sale; /* 0: free */
    uint32_t user;
    int64_t granted_ms;
    uint32_t orders, units; /* live or paid */
    uint32_t newest_order;  /* of those in memory */
    uint32_t user_next, sale_next;
    uint32_t flags;
};
_Static_assert(sizeof(struct member) == 40, "no padding");

struct order {
    uint64_t id;                /* 0: free */
    uint64_t key_low, key_high; /* hash of (scope, key) */
    uint64_t fingerprint;       /* of the command that placed it */
    int64_t created_ms, pay_by_ms, changed_ms;
    uint64_t changed_index;
    int64_t due_ms; /* pending: pay_by_ms; finished: when to leave memory */
    uint64_t last_event;
    int64_t amount;
    uint32_t member;
    uint32_t sku, quantity; /* of the only line */
    uint32_t lines;         /* 0, or the first TABLE_LINES record of several lines */
    uint32_t newer, older;  /* orders of the same member */
    uint8_t status, version, lines_count, unused;
    char currency[4];
};
_Static_assert(sizeof(struct order) == 120, "no padding");

#define LINES_PER_RECORD 4

struct lines {
    struct {
        int64_t unit_price;
        uint32_t sku; /* 0: none from here on */
        uint32_t quantity;
    } line[LINES_PER_RECORD];
    uint32_t next;
    uint32_t unused;
};
_Static_assert(sizeof(struct lines) == 72, "no padding");

/* What a command under a key was answered: see idempotency.c. */
#define ANSWER_VALUES_MAX 3

struct answer {
    uint64_t key_low, key_high;
    uint64_t fingerprint;
    int64_t due_ms;
    uint64_t origin_index;
    uint64_t values[ANSWER_VALUES_MAX];
    uint32_t detail;
    uint32_t sale; /* that the command names: remembered until it is over */
    uint32_t sku;  /* whose stock is the witness */
    char currency[4];
    uint16_t fields; /* which 64-bit fields of the reply the values are */
    uint8_t live;    /* 0: free */
    uint8_t result, flags, order_status, sale_phase, line;
};
_Static_assert(sizeof(struct answer) == 88, "no padding");

struct lease {
    uint64_t token; /* 0: free */
    int64_t expires_ms;
    uint8_t name_size, owner_size;
    uint8_t unused[6];
    char name[ID_SIZE_MAX];
    char owner[ID_SIZE_MAX];
};
_Static_assert(sizeof(struct lease) == 152, "no padding");

/* In the ring at sequence modulo events_max. */
struct event {
    uint64_t index;
    int64_t time_ms;
    int64_t amount;
    uint32_t order;
    uint32_t member; /* of eligibility events */
    uint32_t text;   /* payment event id, or the reason of a refund */
    char currency[4];
    uint16_t shard;
    uint8_t kind, status, version, restocked, result, unused;
};
_Static_assert(sizeof(struct event) == 48, "no padding");

#define DIGEST_MARKS 16
#define WINDOW       32 /* commands decoded ahead, so that memory is fetched before it is needed */

/* A decoded command and what is known of it before it is its turn: nothing that a command before it
 * could make untrue, but for the hints. */
struct intent {
    struct command command;
    bool hashed;        /* false: the hash seed was not known yet */
    struct hash128 key; /* of (scope, key), when there is a key */
    uint64_t fingerprint;
    uint64_t user_hash; /* of order_place and eligibility commands */
    uint64_t sku_hash;  /* of the first line */
    uint32_t
        sale; /* that it names; 0: not known when it was decoded. Sales and SKUs never go away */
    uint32_t sku; /* of the first line, likewise */
    /* May be the user and the member: only to fetch memory ahead, others may change before. */
    uint32_t user_hint, member_hint;
    uint64_t member_hash;
};

struct engine {
    struct root *root; /* read freely; written through the edit at the start of each apply */
    struct tables tables;
    struct memory root_memory, memory;
    struct engine_memory index_memory; /* of memory: the maps */
    struct hash_secret secret;
    struct command_limits limits;

    struct map skus, sales, users, members, orders, keys, leases;
    struct due_heap pending, retiring; /* orders: reservations; finished ones */
    struct due_heap lease_ends, denial_ends, answer_ends, sale_ends;

    struct reply
        blank; /* what replies of this batch begin as: copied, which is faster than zeroing */
    uint32_t position; /* of the command being applied */
    struct {
        uint32_t sale, sku;
    } about; /* what it turned out to be about: see idempotency.c */
    bool digest_wanted;
    struct digest_mark {
        uint64_t index, digest;
    } marks[DIGEST_MARKS];
    unsigned marks_next;
    struct digest_mark *mark_pending; /* being worked out; NULL: none */

    uint32_t denied_users; /* derived */
    struct engine_stats stats;
    struct early_block *early; /* loaded before the root block was */
    struct intent window[WINDOW];
};

#define STATE_TABLE(name, id)                                                                      \
    static inline const struct name *name##_at(const struct engine *e, uint32_t slot)              \
    {                                                                                              \
        return table_at(&e->tables.table[id], slot);                                               \
    }                                                                                              \
    static inline struct name *name##_edit(struct engine *e, uint32_t slot)                        \
    {                                                                                              \
        return table_edit(&e->tables.table[id], slot);                                             \
    }
STATE_TABLE(watermark, TABLE_WATERMARK)
STATE_TABLE(sku, TABLE_SKU)
STATE_TABLE(sale, TABLE_SALE)
STATE_TABLE(offer, TABLE_OFFER)
STATE_TABLE(user, TABLE_USER)
STATE_TABLE(member, TABLE_MEMBER)
STATE_TABLE(order, TABLE_ORDER)
STATE_TABLE(lines, TABLE_LINES)
STATE_TABLE(answer, TABLE_ANSWER)
STATE_TABLE(lease, TABLE_LEASE)
STATE_TABLE(event, TABLE_EVENT)
#undef STATE_TABLE

/* Lays out all tables, maps and queues for the limits in the root record. */
void state_place(struct engine *e);
/* Derives maps and queues from the records, a part of ENGINE_LOAD_PARTS: see engine_load_index. */
void state_rebuild(struct engine *e, unsigned part);

/* A zeroed record, in use from now on; the table must not be full. */
uint32_t slab_take(struct engine *e, enum table_id id);
void slab_give(struct engine *e, enum table_id id, uint32_t slot);
bool slab_full(const struct engine *e, enum table_id id);
static inline uint32_t slab_live(const struct engine *e, enum table_id id)
{
    return e->root->slabs[id].live;
}
/* Where a free record of the table holds the slot of the next free one. */
uint32_t slab_link_offset(enum table_id id);

/* Texts of 1..128 bytes, in slabs by size class. The reference is stored in records; 0 is "". */
uint32_t text_put(struct engine *e, struct str text);
struct str text_get(const struct engine *e, uint32_t reference);
void text_drop(struct engine *e, uint32_t reference);

#endif
