/* See persister_merge.h: open addressing, tables twice as large as the largest batch. */
#include "storage/persister_merge.h"

#include <string.h>

#include "base/check.h"

static struct merged *merge_order(struct persister_merge *m, const struct persister_event *e)
{
    uint64_t hash = e->order * 0x9E3779B97F4A7C15u;
    for (uint64_t slot = hash >> 32;; slot++) {
        uint32_t *at = &m->order_slots[slot & (MERGE_SLOTS - 1)];
        if (*at == 0) {
            *at = (uint32_t)++m->orders_count;
            m->orders[*at - 1] = (struct merged){.last = e};
            return &m->orders[*at - 1];
        }
        if (m->orders[*at - 1].last->order == e->order) {
            return &m->orders[*at - 1];
        }
    }
}

static uint64_t hash_str(uint64_t hash, struct str s)
{
    for (uint32_t i = 0; i < s.len; i++) {
        hash = (hash ^ (uint8_t)s.ptr[i]) * 0x100000001B3u;
    }
    return (hash ^ 0xFF) * 0x100000001B3u;
}

static struct merged *merge_eligibility(struct persister_merge *m, const struct persister_event *e)
{
    struct str sale = persister_event_sale(e), user = persister_event_user(e);
    uint64_t hash = hash_str(hash_str(0xCBF29CE484222325u, user), sale);
    for (uint64_t slot = hash >> 20;; slot++) {
        uint32_t *at = &m->eligibility_slots[slot & (MERGE_SLOTS - 1)];
        if (*at == 0) {
            *at = (uint32_t)++m->eligibilities_count;
            m->eligibilities[*at - 1] = (struct merged){.last = e};
            return &m->eligibilities[*at - 1];
        }
        struct merged *x = &m->eligibilities[*at - 1];
        if (str_equal(persister_event_user(x->last), user) &&
            str_equal(persister_event_sale(x->last), sale)) {
            return x;
        }
    }
}

void persister_merge_events(struct persister_merge *m, const struct persister_event *const *events,
                            size_t count)
{
    m->orders_count = m->eligibilities_count = 0;
    memset(m->order_slots, 0, sizeof m->order_slots);
    memset(m->eligibility_slots, 0, sizeof m->eligibility_slots);
    for (size_t i = 0; i < count; i++) {
        const struct persister_event *e = events[i];
        if (!persister_event_has_order(e)) {
            merge_eligibility(m, e)->last = e;
        } else if (e->kind != EVENT_PAYMENT_REJECTED) { /* that one changes no order */
            struct merged *x = merge_order(m, e);
            CHECK(x->last == e || x->last->sequence < e->sequence);
            x->last = e;
            x->placed = e->kind == EVENT_ORDER_PLACED ? e : x->placed;
            x->refunded = e->kind == EVENT_ORDER_REFUNDED ? e : x->refunded;
        }
    }
}
