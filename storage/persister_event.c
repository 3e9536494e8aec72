/* See persister_event.h. */
#include "storage/persister_event.h"

#include <string.h>

#include "base/check.h"

_Static_assert(sizeof(struct persister_event) + (size_t)2 * ID_SIZE_MAX + KEY_SIZE_MAX +
                       REASON_SIZE_MAX + 8 +
                       ORDER_LINES_MAX * (sizeof(struct persister_line) + ID_SIZE_MAX) <=
                   PERSISTER_EVENT_SIZE_MAX,
               "the largest event fits");
_Static_assert(KEY_SIZE_MAX <= UINT8_MAX && REASON_SIZE_MAX <= UINT8_MAX &&
                   ID_SIZE_MAX <= UINT8_MAX,
               "lengths of texts take a byte");

static size_t align8(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

static bool has_order(const struct event_view *e)
{
    return e->kind != EVENT_ELIGIBILITY_GRANTED && e->kind != EVENT_ELIGIBILITY_REVOKED;
}

static size_t lines_offset(const struct event_view *e)
{
    return align8(sizeof(struct persister_event) + e->sale.len + e->user.len + e->payment.len +
                  e->reason.len);
}

size_t persister_event_size(const struct event_view *e)
{
    size_t size = lines_offset(e);
    if (has_order(e)) {
        for (uint32_t i = 0; i < e->order.lines_count; i++) {
            size += sizeof(struct persister_line) + align8(e->order.lines[i].sku.len);
        }
    }
    return size;
}

static char *put(char *at, struct str s)
{
    if (s.len > 0) {
        memcpy(at, s.ptr, s.len);
    }
    return at + s.len;
}

void persister_event_write(const struct event_view *e, void *block)
{
    CHECK(e->sale.len <= ID_SIZE_MAX && e->user.len <= ID_SIZE_MAX);
    CHECK(e->payment.len <= KEY_SIZE_MAX && e->reason.len <= REASON_SIZE_MAX);
    struct persister_event *to = block;
    *to = (struct persister_event){
        .size = (uint32_t)persister_event_size(e),
        .kind = (uint8_t)e->kind,
        .status = (uint8_t)e->status,
        .restocked = e->restocked,
        .sequence = e->sequence,
        .index = e->index,
        .time_ms = e->time_ms,
        .paid_amount = e->amount,
        .shard = e->shard,
        .sale_len = (uint8_t)e->sale.len,
        .user_len = (uint8_t)e->user.len,
        .payment_len = (uint8_t)e->payment.len,
        .reason_len = (uint8_t)e->reason.len,
        .lines_offset = (uint16_t)lines_offset(e),
    };
    memcpy(to->paid_currency, e->currency, sizeof to->paid_currency);
    put(put(put(put((char *)(to + 1), e->sale), e->user), e->payment), e->reason);
    if (!has_order(e)) {
        return;
    }
    CHECK(e->order.lines_count <= ORDER_LINES_MAX);
    to->order = e->order.id;
    to->version = e->version;
    to->order_amount = e->order.amount;
    to->created_ms = e->order.created_ms;
    to->pay_by_ms = e->order.pay_by_ms;
    to->created_index = e->order.created_index;
    memcpy(to->order_currency, e->order.currency, sizeof to->order_currency);
    to->lines_count = (uint8_t)e->order.lines_count;
    char *at = (char *)block + to->lines_offset;
    for (uint32_t i = 0; i < e->order.lines_count; i++) {
        const struct line_view *l = &e->order.lines[i];
        CHECK(l->sku.len <= ID_SIZE_MAX);
        struct persister_line line = {l->unit_price, l->quantity, l->sku.len};
        memcpy(at, &line, sizeof line);
        put(at + sizeof line, l->sku);
        at += sizeof line + align8(l->sku.len);
    }
}
