/* The engine's behaviour again, written down as plainly as possible: lists, linear searches, sums
 * computed when they are asked for, nothing ever deleted. Written from the specification (design,
 * docs/refusals.md), not from the engine; the property test compares the two after every batch.
 *
 * The one thing it takes over is which slot a record gets (lowest first, last given back first taken),
 * because slots decide ties between things due in the same millisecond. */
#ifndef TESTS_UNIT_ENGINE_MODEL_H
#define TESTS_UNIT_ENGINE_MODEL_H

#include "engine/engine.h"

#define MODEL_SKUS_MAX    8
#define MODEL_SALES_MAX   8
#define MODEL_USERS_MAX   64
#define MODEL_MEMBERS_MAX 1024
#define MODEL_ORDERS_MAX  2048
#define MODEL_ANSWERS_MAX 4096
#define MODEL_LEASES_MAX  1024
#define MODEL_EVENTS_MAX  8192
#define MODEL_SHARDS_MAX  8
#define MODEL_BODY_MAX    2048

struct model_slots {
    uint32_t free[MODEL_ANSWERS_MAX];
    uint32_t free_count, used_max, live;
};

struct model_sku {
    struct str id;
    char title[TITLE_SIZE_MAX + 1];
    uint64_t version;
    int64_t received;
    uint32_t allowance;
};

struct model_sale {
    struct command_sale now; /* ids point to the generator's constants */
    uint64_t version;
    bool paused, closed;
    int64_t due;
    bool parked, retired;
};

struct model_user {
    struct str id;
    uint32_t slot; /* 0: forgotten */
    uint32_t strikes;
    bool denied;
    int64_t until;
    char reason[REASON_SIZE_MAX + 1];
};

struct model_member {
    int sale, user;
    bool gone, granted, ever;
    int64_t granted_ms;
    uint64_t last_event;
};

struct model_order {
    uint64_t id;
    int sale, user;
    bool gone;
    enum order_status status;
    uint32_t slot, version;
    uint32_t lines_count;
    struct {
        int sku;
        uint32_t quantity;
        int64_t price;
    } lines[ORDER_LINES_MAX];
    int64_t amount, created, pay_by, changed, due;
    char currency[4];
    uint64_t last_event;
};

struct model_answer {
    struct str scope, key;
    uint8_t body[MODEL_BODY_MAX];
    uint32_t body_size;
    bool gone;
    int order; /* an accepted order keeps its key itself; -1: not one */
    uint32_t slot;
    struct reply reply;
    int sale, sku;
    int64_t due;
};

struct model_lease {
    struct str name, owner;
    uint64_t token;
    int64_t expires;
    uint32_t slot;
    bool gone;
};

struct model_event {
    enum event_kind kind;
    int order, sale, user;
    uint32_t shard, version;
    enum order_status status;
    int64_t amount, time;
    uint64_t index;
    char currency[4];
    char payment[KEY_SIZE_MAX + 1];
    char reason[REASON_SIZE_MAX + 1];
    bool restocked;
};

struct model {
    struct command_limits limits;
    uint32_t shards;
    int64_t time;
    uint64_t index;
    struct model_sku skus[MODEL_SKUS_MAX];
    int skus_count;
    struct model_sale sales[MODEL_SALES_MAX];
    int sales_count;
    struct model_user users[MODEL_USERS_MAX];
    int users_count;
    struct model_member members[MODEL_MEMBERS_MAX];
    int members_count;
    struct model_order orders[MODEL_ORDERS_MAX];
    int orders_count;
    struct model_answer answers[MODEL_ANSWERS_MAX];
    int answers_count;
    struct model_lease leases[MODEL_LEASES_MAX];
    int leases_count;
    struct model_event events[MODEL_EVENTS_MAX]; /* sequence 1 is events[0] */
    uint64_t events_next, events_first;
    uint64_t acked[MODEL_SHARDS_MAX];
    uint64_t token;
    struct model_slots order_slots, user_slots, answer_slots, lease_slots;
    int about_sale, about_sku; /* of the command being applied */
    uint32_t position;
};

/* An initialized state machine; lend it zeroed memory. */
void model_init(struct model *m, const struct command_limits *limits, uint32_t shards);
/* Before the commands of a batch. */
void model_begin_batch(struct model *m, uint64_t index, int64_t time_ms);
/* One command of the batch. encoded: its bytes, for what counts as the same body. */
void model_apply(struct model *m, uint32_t position, const struct command *c, const void *encoded,
                 size_t size, struct reply *reply);
/* What is never deleted fills the lists: false when a few more batches may not fit. */
bool model_has_room(const struct model *m);
int64_t model_next_due(const struct model *m);

/* Sums over everything there is. */
int64_t model_reserved(const struct model *m, int sku);
int64_t model_sold(const struct model *m, int sku);
int64_t model_available(const struct model *m, int sku);
uint32_t model_member_orders(const struct model *m, int sale, int user);
uint32_t model_member_units(const struct model *m, int sale, int user);
uint64_t model_granted(const struct model *m, int sale);
uint64_t model_events_of(const struct model *m, int sale, enum event_kind kind);
enum sale_phase model_phase(const struct model *m, int sale);
uint32_t model_pending(const struct model *m);
bool model_user_denied(const struct model *m, int user);

#endif
