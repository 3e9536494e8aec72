/* A seeded source of events such as the engine's, for tests and benchmarks of the persister: orders
 * that are placed, paid, cancelled, expire, are paid late, are refunded; eligibilities granted and
 * revoked. Any event can be made again at any time, as the engine can until it is acknowledged. */
#ifndef TESTS_INTEGRATION_EVENT_SOURCE_H
#define TESTS_INTEGRATION_EVENT_SOURCE_H

#include "engine/engine.h"

struct event_source {
    uint32_t shards;
    size_t count;
    struct source_event *events;
    struct source_order *orders;
    size_t orders_count;
};

struct source_order {
    uint64_t id, index, version;
    int64_t created_ms, pay_by_ms, amount;
    char user[ID_SIZE_MAX + 1];
    uint32_t shard, lines_count, seed;
    enum order_status status;
};

struct source_event {
    enum event_kind kind;
    enum order_status status;
    bool restocked;
    uint8_t reason; /* which of the reasons, 0: none */
    uint32_t order; /* position, kinds with an order */
    uint32_t user;  /* of eligibilities */
    uint32_t shard;
    uint64_t version, index;
    int64_t time_ms, amount;
};

/* only_orders: every event places an order of one line, for benchmarks. */
void event_source_init(struct event_source *s, uint64_t seed, uint32_t shards, size_t count,
                       bool only_orders);
void event_source_close(struct event_source *s);

/* Fills *out with event `sequence` (1..count). Its texts stay valid until 64 more were made. */
void event_source_read(const struct event_source *s, uint64_t sequence, struct event_view *out);

#endif
