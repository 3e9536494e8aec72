/* Order records: finding them, their lines, and their end in memory. What happens to an order is in
 * order_place.c and order_settle.c. */
#include "engine/parts.h"

uint64_t order_hash(const struct engine *e, uint64_t id)
{
    uint64_t position = id >> 10 & 7; /* the low bits of the position in its batch */
    uint64_t hash = hash_pair(&e->secret, id >> 13, 0);
    return ((hash >> 32) + position * e->orders.stride) << 32 | (uint32_t)(hash + position * 0x9E3779B9u);
}

uint32_t order_find(const struct engine *e, uint64_t id)
{
    uint32_t slot;
    for (struct map_walk w = map_find(&e->orders, order_hash(e, id));
         (slot = map_next(&w)) != 0;) {
        if (order_at(e, slot)->id == id) {
            return slot;
        }
    }
    return 0;
}

uint32_t order_lines(const struct engine *e, const struct order *o,
                     struct order_line lines[static ORDER_LINES_MAX])
{
    if (o->lines == 0) {
        lines[0] = (struct order_line){o->sku, o->quantity, o->amount / o->quantity};
        return 1;
    }
    uint32_t count = 0;
    for (uint32_t slot = o->lines; slot != 0; slot = lines_at(e, slot)->next) {
        const struct lines *l = lines_at(e, slot);
        for (int i = 0; i < LINES_PER_RECORD && l->line[i].sku != 0; i++) {
            CHECK(count < ORDER_LINES_MAX);
            lines[count++] = (struct order_line){l->line[i].sku, l->line[i].quantity,
                                                 l->line[i].unit_price};
        }
    }
    return count;
}

void order_store_lines(struct engine *e, struct order *o, const struct order_line *lines,
                       uint32_t count)
{
    o->lines_count = (uint8_t)count;
    if (count == 1) {
        o->sku = lines[0].sku;
        o->quantity = lines[0].quantity;
        return;
    }
    uint32_t records = (count + LINES_PER_RECORD - 1) / LINES_PER_RECORD;
    for (uint32_t n = records; n-- > 0;) { /* last first, so that each knows the next */
        uint32_t slot = slab_take(e, TABLE_LINES);
        struct lines *l = lines_edit(e, slot);
        for (uint32_t i = 0; i < LINES_PER_RECORD && n * LINES_PER_RECORD + i < count; i++) {
            const struct order_line *from = &lines[n * LINES_PER_RECORD + i];
            l->line[i].sku = from->sku;
            l->line[i].quantity = from->quantity;
            l->line[i].unit_price = from->unit_price;
        }
        l->next = o->lines;
        o->lines = slot;
    }
}

uint32_t order_units(const struct engine *e, const struct order *o)
{
    struct order_line lines[ORDER_LINES_MAX];
    uint32_t units = 0;
    for (uint32_t i = 0, count = order_lines(e, o, lines); i < count; i++) {
        units += lines[i].quantity;
    }
    return units;
}

uint32_t order_first_sku(const struct engine *e, const struct order *o)
{
    return o->lines == 0 ? o->sku : lines_at(e, o->lines)->line[0].sku;
}

void order_placed_reply(const struct order *o, struct reply *r)
{
    r->result = RESULT_OK;
    r->order = o->id;
    r->order_status = ORDER_PENDING_PAYMENT;
    r->amount = o->amount;
    memcpy(r->currency, o->currency, sizeof r->currency);
    r->created_ms = o->created_ms;
    r->pay_by_ms = o->pay_by_ms;
}

static uint64_t order_hash_of(const void *ctx, uint32_t slot)
{
    const struct engine *e = ctx;
    return order_hash(e, order_at(e, slot)->id);
}

void order_uncount(struct engine *e, const struct order *o)
{
    struct member *m = member_edit(e, o->member);
    m->orders--;
    m->units -= order_units(e, o);
}

/* A paid order leaves: its units stay sold. */
static void retire_paid(struct engine *e, const struct order *o)
{
    struct order_line lines[ORDER_LINES_MAX];
    for (uint32_t i = 0, count = order_lines(e, o, lines); i < count; i++) {
        sku_edit(e, lines[i].sku)->sold_retired += lines[i].quantity;
    }
    order_uncount(e, o);
}

static void unlink_from_member(struct engine *e, const struct order *o)
{
    if (o->newer != 0) {
        order_edit(e, o->newer)->older = o->older;
    } else {
        member_edit(e, o->member)->newest_order = o->older;
    }
    if (o->older != 0) {
        order_edit(e, o->older)->newer = o->newer;
    }
}

void order_retire(struct engine *e, uint32_t slot)
{
    const struct order *o = order_at(e, slot);
    uint32_t sale = member_at(e, o->member)->sale;
    int64_t due_ms = sale_retention_end(e, sale, o->changed_ms);
    if (due_ms > e->root->time_ms) { /* the sale goes on longer than it did when the order ended */
        order_edit(e, slot)->due_ms = due_ms;
        due_heap_put(&e->retiring, slot, due_ms);
        return;
    }
    due_heap_remove(&e->retiring, slot);
    if (o->status == ORDER_PAID) {
        retire_paid(e, o);
    }
    unlink_from_member(e, o);
    for (uint32_t l = o->lines; l != 0;) {
        uint32_t next = lines_at(e, l)->next;
        slab_give(e, TABLE_LINES, l);
        l = next;
    }
    map_remove(&e->orders, order_hash_of(e, slot), slot, order_hash_of, e);
    idempotency_key_remove(e, o->key_low, slot);
    slab_give(e, TABLE_ORDER, slot);
    sale_edit(e, sale)->orders_in_memory--;
    sale_unpark(e, sale);
}
