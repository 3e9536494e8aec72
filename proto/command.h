/* Commands: what goes through the log, and the replies to them.
 *
 * One encoding from the gateway to the log and into the state machine: the gateway (or CLI) encodes a
 * command once, the leader copies its bytes into a batch, every replica decodes them in place. All
 * integers little-endian; texts carry a one-byte length. The decoder checks every bound and every
 * limit of limits.h, so that a command which decodes is well-formed by itself; whether it may happen
 * is the engine's to say.
 *
 *     command = u8 kind, str8 scope, str8 key, body(kind)
 *     batch   = u8 version, 3 zero bytes, u32 count, i64 leader time (ms), count × (u32 size, command)
 *
 * Identity of a request: (scope, key). Scope is whose key it is: "u:" user id, "k:" API key name,
 * "pay" for payment events, "sys" for the cluster itself. A command without key (empty) is idempotent
 * by nature: putting the same thing, acknowledging, marking. */
#ifndef PROTO_COMMAND_H
#define PROTO_COMMAND_H

#include "base/str.h"
#include "proto/limits.h"

#define SCOPE_SIZE_MAX (ID_SIZE_MAX + 2)
#define BATCH_VERSION  1

/* Wire values: only ever add. */
enum command_kind {
    COMMAND_INIT = 1,          /* once, by the first leader: seed, limits */
    COMMAND_SKU_PUT = 2,       /* create a SKU, or change its title */
    COMMAND_STOCK_ADJUST = 3,  /* add or take units */
    COMMAND_SALE_PUT = 4,      /* create or replace a sale's definition */
    COMMAND_SALE_PAUSE = 5,
    COMMAND_SALE_RESUME = 6,
    COMMAND_SALE_CLOSE = 7,    /* for good */
    COMMAND_ELIGIBILITY_GRANT = 8,
    COMMAND_ELIGIBILITY_REVOKE = 9,
    COMMAND_ORDER_PLACE = 10,
    COMMAND_ORDER_CANCEL = 11,
    COMMAND_PAYMENT_APPLY = 12,
    COMMAND_ORDER_REFUND = 13,
    COMMAND_LEASE_ACQUIRE = 14,
    COMMAND_LEASE_RENEW = 15,
    COMMAND_LEASE_RELEASE = 16,
    COMMAND_DENY_PUT = 17,
    COMMAND_DENY_REMOVE = 18,
    COMMAND_PERSIST_ACK = 19,  /* per shard: persisted up to this event sequence */
    COMMAND_DIGEST_MARK = 20,  /* every replica remembers its digest at this index */
};
#define COMMAND_KIND_MAX 20

/* The format (proto/format.h) from which on commands of this kind may be proposed; 0: this program
 * does not know the kind. */
uint32_t command_kind_format(uint8_t kind);

/* Capacities of the state machine, agreed by all replicas: part of the replicated state. Names are
 * what a refusal with RESULT_CAPACITY reports in `detail` (enum engine_limit, same order). */
struct command_limits {
    uint32_t skus_max;
    uint32_t sales_max;
    uint32_t users_max;         /* users with an eligibility, order, strike or denial */
    uint32_t eligibilities_max;
    uint32_t orders_max;        /* orders in memory: live, or finished and still retained */
    uint32_t idempotency_max;   /* remembered keys of commands that are not orders, and refusals */
    uint32_t leases_max;
    uint32_t events_max;        /* events not yet persisted: the backlog before BACKLOG_FULL */
    uint32_t expiries_per_batch_max;
    uint64_t idempotency_retention_ms; /* after its command, or after the end of the sale it names */
};

/* Which of them a RESULT_CAPACITY is about. Wire values. LIMIT_NONE: COMMAND_INIT was not applied yet. */
enum engine_limit {
    LIMIT_NONE = 0,
    LIMIT_SKUS = 1,
    LIMIT_SALES = 2,
    LIMIT_USERS = 3,
    LIMIT_ELIGIBILITIES = 4,
    LIMIT_ORDERS = 5,
    LIMIT_IDEMPOTENCY = 6,
    LIMIT_LEASES = 7,
    LIMIT_EVENTS = 8,
};
const char *engine_limit_name(enum engine_limit l); /* "orders_max" */

enum late_payment_policy {
    LATE_PAYMENT_REFUND = 0,            /* a payment after expiry is to be refunded */
    LATE_PAYMENT_ACCEPT_IF_AVAILABLE = 1, /* takes the units again if they are still free */
};

struct command_offer {
    struct str sku;
    int64_t unit_price;              /* minor units, 0..UNIT_PRICE_MAX */
    uint32_t units_per_order_max;    /* 1..QUANTITY_MAX */
    uint32_t oversell_allowance;     /* units below zero that this offer may sell */
};

struct command_sale {
    struct str id, title;
    uint64_t expected_version; /* COMMAND_VERSION_ANY, 0: must not exist, else must match */
    char currency[CURRENCY_SIZE + 1];
    int64_t eligibility_opens_ms, eligibility_closes_ms; /* both 0: no window of its own */
    int64_t opens_ms, closes_ms;
    uint64_t payment_timeout_ms;     /* 1..DURATION_MS_MAX */
    uint8_t late_payment;            /* enum late_payment_policy */
    bool eligibility_required;
    uint32_t orders_per_user_max;    /* live or paid; ≥ 1 */
    uint32_t units_per_user_max;     /* over all live or paid orders; 0: no limit */
    uint64_t eligibility_limit;      /* rights given out at most; 0: no absolute limit */
    uint32_t eligibility_ratio_permille; /* of the units on offer; 0: no ratio limit */
    uint32_t strikes_max;            /* unpaid expiries before a denial; 0: never */
    uint64_t denial_ms;              /* how long such a denial lasts; 0: for good */
    uint8_t offers_count;            /* 1..SALE_OFFERS_MAX */
    struct command_offer offers[SALE_OFFERS_MAX];
};
#define COMMAND_VERSION_ANY UINT64_MAX

struct command_line {
    struct str sku;
    uint32_t quantity; /* 1..QUANTITY_MAX */
};

struct command_ack {
    uint32_t shard;
    uint64_t sequence; /* all events of the shard up to this one are in PostgreSQL */
};

struct command {
    enum command_kind kind;
    struct str scope, key;  /* key empty: idempotent by nature */
    const uint8_t *body;    /* set by decode: the encoded body, for the fingerprint */
    uint32_t body_size;
    union {
        struct {
            uint8_t cluster_id[16];
            uint8_t hash_seed[16];
            uint32_t shards; /* 1..SHARDS_MAX */
            struct command_limits limits;
        } init;
        struct {
            struct str sku, title;
            uint64_t expected_version;
        } sku_put;
        struct {
            struct str sku, reason;
            int64_t delta; /* not 0 */
        } stock_adjust;
        struct command_sale sale_put;
        struct {
            struct str sale;
            uint64_t expected_version;
        } sale_control; /* pause, resume, close */
        struct {
            struct str sale, user;
        } eligibility; /* grant, revoke */
        struct {
            struct str sale, user;
            uint8_t lines_count; /* 1..ORDER_LINES_MAX; a SKU may repeat: it is summed */
            struct command_line lines[ORDER_LINES_MAX];
        } order_place;
        struct {
            uint64_t order;
            struct str user; /* must own the order; empty: not checked (an admin) */
        } order_cancel;
        struct {
            uint64_t order;
            int64_t amount;
            char currency[CURRENCY_SIZE + 1];
        } payment; /* key: the payment event's id, scope "pay" */
        struct {
            uint64_t order;
            bool restock;
            struct str reason;
        } order_refund;
        struct {
            struct str name, owner;
            uint64_t token;  /* renew, release: the fencing token that was granted */
            uint64_t ttl_ms; /* acquire, renew: 1..DURATION_MS_MAX */
        } lease;
        struct {
            struct str user, reason;
            int64_t until_ms; /* 0: for good */
        } deny; /* put; remove uses user only */
        struct {
            uint32_t count; /* 1..PERSIST_ACKS_MAX */
            struct command_ack acks[PERSIST_ACKS_MAX];
        } persist_ack;
    };
};

/* Encodes into out. Returns the size, or 0 when it does not fit or is not well-formed (the same checks
 * as decode, so that whatever encodes decodes again). */
size_t command_encode(const struct command *c, void *out, size_t size);

/* Decodes; texts and body borrow from data. Returns 0, or -1 when it is not a well-formed command:
 * unknown kind, bad text, value out of range, bytes missing or left over. Pure. */
int command_decode(struct command *c, const void *data, size_t size);

/* Wire values: only ever add. The order is the precedence of refusals: docs/refusals.md. */
enum result {
    RESULT_OK = 0,
    RESULT_INVALID = 1,                /* not well-formed, or not allowed by nature */
    RESULT_IDEMPOTENCY_KEY_REUSED = 2, /* same key, another command */
    RESULT_NOT_FOUND = 3,              /* detail: enum reply_subject */
    RESULT_FORBIDDEN = 4,              /* another user's order */
    RESULT_STALE_VERSION = 5,          /* version: the current one */
    RESULT_SALE_CLOSED = 6,
    RESULT_SALE_PAUSED = 7,
    RESULT_SALE_NOT_OPEN = 8,          /* opens_ms: when */
    RESULT_DENYLISTED = 9,             /* expires_ms: until when, 0 for good */
    RESULT_QUANTITY_LIMIT = 10,        /* detail: the limit; units of a line above the offer's */
    RESULT_NOT_ELIGIBLE = 11,
    RESULT_ELIGIBILITY_EXHAUSTED = 12, /* all rights are given out */
    RESULT_ORDER_LIMIT_REACHED = 13,   /* orders or units of this user in this sale */
    RESULT_SOLD_OUT = 14,              /* available: units left of the SKU that fell short */
    RESULT_INSUFFICIENT_STOCK = 15,    /* an adjustment would take reserved or sold units */
    RESULT_ORDER_NOT_PAYABLE = 16,     /* order_status: why */
    RESULT_AMOUNT_MISMATCH = 17,       /* amount, currency: what was expected */
    RESULT_ORDER_NOT_CANCELLABLE = 18,
    RESULT_ORDER_NOT_REFUNDABLE = 19,
    RESULT_LEASE_HELD = 20,            /* expires_ms: until when */
    RESULT_STALE_FENCING_TOKEN = 21,
    RESULT_BACKLOG_FULL = 22,          /* try again: never stored */
    RESULT_CAPACITY = 23,              /* try again: never stored. detail: enum engine_limit */
};
#define RESULT_MAX 23

/* "SOLD_OUT" and so on: the upper-case code of conventions.md. "UNKNOWN" for what is no result. */
const char *result_code(enum result r);

enum reply_subject { SUBJECT_NONE, SUBJECT_SKU, SUBJECT_SALE, SUBJECT_ORDER, SUBJECT_LEASE, SUBJECT_USER,
                     SUBJECT_ELIGIBILITY };

/* Wire and storage values. */
enum order_status {
    ORDER_NONE = 0,
    ORDER_PENDING_PAYMENT = 1,
    ORDER_PAID = 2,
    ORDER_CANCELLED = 3,
    ORDER_EXPIRED = 4,
    ORDER_REFUND_DUE = 5,
    ORDER_REFUNDED = 6,
};
const char *order_status_name(enum order_status s); /* "pending_payment" */

enum sale_phase {
    SALE_SCHEDULED = 0,
    SALE_ELIGIBILITY = 1,
    SALE_WAITING = 2,
    SALE_OPEN = 3,
    SALE_PAUSED = 4,
    SALE_CLOSED = 5,
};
const char *sale_phase_name(enum sale_phase p);

#define REPLY_REPLAYED 1u /* the key was known: this is the stored answer */
#define REPLY_EXISTED  2u /* an eligibility or denial was there already */

/* The answer to one command. Fields that do not apply are zero. What an HTTP body is made of
 * (everything but index, time and the stock witness) is the same at every replay. */
struct reply {
    uint8_t result;       /* enum result */
    uint8_t flags;        /* REPLY_* */
    uint8_t order_status; /* after the command */
    uint8_t sale_phase;   /* refusals by phase, sale commands */
    uint32_t detail;
    uint64_t index;        /* log index of this batch */
    uint64_t origin_index; /* where the effect happened: differs from index at a replay */
    int64_t time_ms;       /* replicated time of this batch */
    uint64_t order;
    int64_t amount;
    char currency[4];
    uint32_t line;         /* 1-based line of the order that a refusal is about, 0: none */
    int64_t created_ms;
    int64_t pay_by_ms;
    uint64_t version;      /* of the SKU or sale */
    uint64_t token;        /* fencing token of a lease */
    int64_t expires_ms;    /* of a lease or denial */
    int64_t opens_ms;      /* of a sale */
    /* Stock of the first line's SKU (or the SKU of the command) right after it: the witness that
     * checkers replay. At a replay: as of now. For SOLD_OUT `available` is stored. */
    int64_t available, reserved, sold;
};

#define REPLY_SIZE 144
void reply_encode(const struct reply *r, uint8_t out[static REPLY_SIZE]);
/* Returns 0, or -1 when it is no reply (size or an enum out of range). */
int reply_decode(struct reply *r, const void *data, size_t size);

/* Building a batch in a caller's buffer. */
struct batch_builder {
    uint8_t *data;
    size_t size, capacity;
    uint32_t count;
};
void batch_begin(struct batch_builder *b, void *buffer, size_t capacity);
/* Returns false when it does not fit any more (size or BATCH_COMMANDS_MAX): nothing is added. */
bool batch_add(struct batch_builder *b, const void *command, size_t size);
/* Seals with the leader's time and returns the size. */
size_t batch_end(struct batch_builder *b, int64_t leader_time_ms);

/* Reading one. */
struct batch_reader {
    int64_t leader_time_ms;
    uint32_t count;
    const uint8_t *at, *end;
};
/* Returns 0, or -1 when it is no batch of a known version. */
int batch_open(struct batch_reader *b, const void *data, size_t size);
/* Is there something in a committed batch that only another version of this program knows? Writes what,
 * in words, and returns -1; else 0. Looks at versions and kinds, not into commands. */
int batch_judge(const void *data, size_t size, char *what, size_t what_size);
/* Borrows the next command's bytes. Returns 1, 0 at the end, -1 when the batch is malformed. */
int batch_next(struct batch_reader *b, const void **command, size_t *size);

#endif
