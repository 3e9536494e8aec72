/* persister_event: one event of the engine as the persister keeps it between the loop that offers
 * it and the thread that writes it: a flat copy, for the engine's texts are only lent.
 *
 * Memory: one 8-aligned block of persister_event_size bytes: this struct, the texts one after the
 * other, then the lines. Never leaves the process. */
#ifndef STORAGE_PERSISTER_EVENT_H
#define STORAGE_PERSISTER_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "engine/engine.h"

struct persister_event {
    uint32_t size; /* of the whole block; first, see persister_queue.c */
    uint8_t kind, status;
    bool restocked;
    uint8_t lines_count;
    uint64_t sequence, index;
    int64_t time_ms;
    uint64_t order, version; /* kinds with an order */
    int64_t order_amount, created_ms, pay_by_ms;
    uint64_t created_index;
    int64_t paid_amount; /* kinds 2, 5, 9 */
    uint32_t shard;
    char order_currency[4], paid_currency[4];
    uint8_t sale_len, user_len, payment_len, reason_len;
    uint16_t lines_offset; /* from the start of the block */
};

struct persister_line {
    int64_t unit_price;
    uint32_t quantity;
    uint32_t sku_len; /* the bytes follow, padded to 8 */
};

#define PERSISTER_EVENT_SIZE_MAX 4096

size_t persister_event_size(const struct event_view *e);
/* block: persister_event_size bytes, 8-aligned. */
void persister_event_write(const struct event_view *e, void *block);

static inline bool persister_event_has_order(const struct persister_event *e)
{
    return e->kind != EVENT_ELIGIBILITY_GRANTED && e->kind != EVENT_ELIGIBILITY_REVOKED;
}

static inline bool persister_event_has_payment(const struct persister_event *e)
{
    return e->kind == EVENT_ORDER_PAID || e->kind == EVENT_ORDER_REFUND_DUE ||
           e->kind == EVENT_PAYMENT_REJECTED;
}

/* Each borrows from the block. */
static inline struct str persister_event_sale(const struct persister_event *e)
{
    return (struct str){(const char *)(e + 1), e->sale_len};
}

static inline struct str persister_event_user(const struct persister_event *e)
{
    return (struct str){(const char *)(e + 1) + e->sale_len, e->user_len};
}

static inline struct str persister_event_payment(const struct persister_event *e)
{
    return (struct str){(const char *)(e + 1) + e->sale_len + e->user_len, e->payment_len};
}

static inline struct str persister_event_reason(const struct persister_event *e)
{
    return (struct str){(const char *)(e + 1) + e->sale_len + e->user_len + e->payment_len,
                        e->reason_len};
}

/* Walking the lines: begin, then next lines_count times. */
static inline const struct persister_line *persister_event_lines(const struct persister_event *e)
{
    return (const struct persister_line *)(const void *)((const char *)e + e->lines_offset);
}

static inline struct str persister_line_sku(const struct persister_line *l)
{
    return (struct str){(const char *)(l + 1), l->sku_len};
}

static inline const struct persister_line *persister_line_next(const struct persister_line *l)
{
    return (const struct persister_line *)(const void *)((const char *)(l + 1) +
                                                         ((l->sku_len + 7u) & ~7u));
}

#endif
