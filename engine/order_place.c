/* Placing an order: all lines or nothing.
 *
 * Happy path: resolve the sale and the lines (the same SKU twice is summed) → the ladder of checks, in
 * the order of enum result → must succeed: units reserved, order written, event queued, deadline set.
 *
 * The key of a placed order is kept in the order itself; that of a refusal by idempotency.c. */
#include "engine/parts.h"

#include "proto/order_id.h"

/* What the command asks for, in slots. */
struct request {
    uint32_t sale, user, member; /* user, member: 0 when not known yet */
    uint32_t count;
    struct order_line line[ORDER_LINES_MAX];
    uint32_t units_max[ORDER_LINES_MAX];  /* of the line's offer */
    uint32_t allowance[ORDER_LINES_MAX];
    uint32_t mention[ORDER_LINES_MAX];    /* 1-based line of the command that named it first */
    uint32_t units;
    int64_t amount;
};

static enum result resolve_line(struct engine *e, const struct intent *in, uint32_t i,
                                struct request *q, struct reply *r)
{
    const struct command_line *l = &in->command.order_place.lines[i];
    uint32_t sku = i == 0 ? in->sku : 0;
    if (sku == 0) {
        sku = sku_find(e, l->sku, i == 0 ? in->sku_hash : hash_str(&e->secret, l->sku));
    }
    const struct offer *offer = sku != 0 ? sale_offer(e, q->sale, sku) : NULL;
    if (offer == NULL) {
        r->line = i + 1;
        return refuse_not_found(r, SUBJECT_SKU);
    }
    if (i == 0) {
        e->about.sku = sku;
    }
    uint32_t at = 0;
    while (at < q->count && q->line[at].sku != sku) {
        at++;
    }
    if (at == q->count) {
        q->count++;
        q->line[at] = (struct order_line){sku, 0, offer->unit_price};
        q->units_max[at] = offer->units_per_order_max;
        q->allowance[at] = offer->oversell_allowance;
        q->mention[at] = i + 1;
    }
    q->line[at].quantity += l->quantity; /* 16 × QUANTITY_MAX fits */
    q->units += l->quantity;
    q->amount += offer->unit_price * (int64_t)l->quantity;
    return RESULT_OK;
}

static enum result resolve(struct engine *e, const struct intent *in, struct request *q,
                           struct reply *r)
{
    const struct command *c = &in->command;
    q->sale = in->sale != 0 ? in->sale : sale_find(e, c->order_place.sale);
    if (q->sale == 0) {
        return refuse_not_found(r, SUBJECT_SALE);
    }
    e->about.sale = q->sale;
    for (uint32_t i = 0; i < c->order_place.lines_count; i++) {
        enum result found = resolve_line(e, in, i, q, r);
        if (found != RESULT_OK) {
            return found;
        }
    }
    q->user = user_find(e, c->order_place.user, in->user_hash);
    q->member = q->user != 0 ? member_find(e, q->sale, q->user) : 0;
    return RESULT_OK;
}

/* Whether this sale sells to this user now. */
static enum result check_sale(const struct engine *e, const struct request *q, struct reply *r)
{
    const struct sale *s = sale_at(e, q->sale);
    enum result running = sale_check_running(e, s, r);
    if (running != RESULT_OK) {
        return running;
    }
    if (e->root->time_ms < s->opens_ms) {
        r->sale_phase = (uint8_t)sale_phase_at(s, e->root->time_ms);
        r->opens_ms = s->opens_ms;
        return RESULT_SALE_NOT_OPEN;
    }
    if (q->user != 0 && user_denied(e, user_at(e, q->user))) {
        r->expires_ms = user_at(e, q->user)->denied_until_ms;
        return RESULT_DENYLISTED;
    }
    return RESULT_OK;
}

/* Whether this user may have these quantities. */
static enum result check_limits(const struct engine *e, const struct request *q, struct reply *r)
{
    const struct sale *s = sale_at(e, q->sale);
    for (uint32_t i = 0; i < q->count; i++) {
        if (q->line[i].quantity > q->units_max[i]) {
            r->detail = q->units_max[i];
            r->line = q->mention[i];
            return RESULT_QUANTITY_LIMIT;
        }
    }
    static const struct member nobody;
    const struct member *m = q->member != 0 ? member_at(e, q->member) : &nobody;
    if (s->eligibility_required != 0 && (m->flags & MEMBER_GRANTED) == 0) {
        return RESULT_NOT_ELIGIBLE;
    }
    if (m->orders >= s->orders_per_user_max) {
        r->detail = s->orders_per_user_max;
        return RESULT_ORDER_LIMIT_REACHED;
    }
    uint32_t units_max = s->units_per_user_max != 0 ? s->units_per_user_max : UINT32_MAX;
    if (q->units > units_max || m->units > units_max - q->units) {
        r->detail = units_max;
        return RESULT_ORDER_LIMIT_REACHED;
    }
    return RESULT_OK;
}

/* Whether the units, and room for all that follows, are there. */
static enum result check_room(struct engine *e, const struct request *q, struct reply *r)
{
    for (uint32_t i = 0; i < q->count; i++) {
        const struct sku *k = sku_at(e, q->line[i].sku);
        if (k->available - (int64_t)q->line[i].quantity < -(int64_t)q->allowance[i]) {
            e->about.sku = q->line[i].sku;
            r->line = q->mention[i];
            r->available = k->available;
            return RESULT_SOLD_OUT;
        }
    }
    if (!event_room_for(e, 2)) { /* its placing now, its end later */
        return RESULT_BACKLOG_FULL;
    }
    if (q->user == 0 && slab_full(e, TABLE_USER)) {
        return refuse_capacity(r, LIMIT_USERS);
    }
    if (q->member == 0 && slab_full(e, TABLE_MEMBER)) {
        return refuse_capacity(r, LIMIT_ELIGIBILITIES);
    }
    if (slab_full(e, TABLE_ORDER)) {
        return refuse_capacity(r, LIMIT_ORDERS);
    }
    return RESULT_OK;
}

static void write_order(struct engine *e, const struct intent *in, const struct request *q,
                        uint32_t slot)
{
    const struct sale *s = sale_at(e, q->sale);
    struct root *root = e->root;
    struct order *o = order_edit(e, slot);
    o->id = order_id_make(root->index, e->position, user_at(e, q->user)->shard);
    o->key_low = in->key.low;
    o->key_high = in->key.high;
    o->fingerprint = in->fingerprint;
    o->created_ms = root->time_ms;
    o->changed_ms = root->time_ms;
    o->changed_index = root->index;
    o->pay_by_ms = root->time_ms + (int64_t)s->payment_timeout_ms;
    o->due_ms = o->pay_by_ms;
    o->amount = q->amount;
    o->status = ORDER_PENDING_PAYMENT;
    o->version = 1;
    memcpy(o->currency, s->currency, sizeof o->currency);
    order_store_lines(e, o, q->line, q->count);

    struct member *m = member_edit(e, q->member);
    o->member = q->member;
    o->older = m->newest_order;
    if (o->older != 0) {
        order_edit(e, o->older)->newer = slot;
    }
    m->newest_order = slot;
    m->orders++;
    m->units += q->units;
}

enum result order_place(struct engine *e, const struct intent *in, struct reply *r)
{
    if (in->command.key.len == 0) {
        return RESULT_INVALID; /* ordering twice is not ordering once */
    }
    struct request q;
    q.count = 0;
    q.units = 0;
    q.amount = 0;
    enum result refusal;
    if ((refusal = resolve(e, in, &q, r)) != RESULT_OK ||
        (refusal = check_sale(e, &q, r)) != RESULT_OK ||
        (refusal = check_limits(e, &q, r)) != RESULT_OK ||
        (refusal = check_room(e, &q, r)) != RESULT_OK) {
        return refusal;
    }

    /* Must succeed from here. */
    if (q.user == 0) {
        q.user = user_add(e, in->command.order_place.user, in->user_hash);
    }
    if (q.member == 0) {
        q.member = member_add(e, q.sale, q.user);
    }
    for (uint32_t i = 0; i < q.count; i++) {
        stock_reserve(e, q.line[i].sku, q.line[i].quantity);
    }
    uint32_t slot = slab_take(e, TABLE_ORDER);
    write_order(e, in, &q, slot);
    const struct order *o = order_at(e, slot);
    map_insert(&e->orders, order_hash(e, o->id), slot);
    map_insert(&e->keys, o->key_low, slot);
    due_heap_put(&e->pending, slot, o->due_ms);
    struct sale *s = sale_edit(e, q.sale);
    s->orders_in_memory++;
    s->orders_placed++;
    e->root->orders_pending++;
    event_add_order(e, EVENT_ORDER_PLACED, slot);
    order_placed_reply(o, r);
    return RESULT_OK;
}
