/* What happens to an order after it was placed: paid, cancelled, expired, refunded.
 *
 *     pending_payment ──pay──> paid ──refund──> refunded
 *        │  │                   ^                  ^
 *        │  └─cancel─> cancelled│ (units free)     │
 *        └─deadline─> expired ──┴─late payment─> refund_due
 *
 * A reservation ends exactly once: order_end is the only way out of pending_payment. Its event has had
 * room in the ring kept for it since the order was placed.
 *
 * A payment or a cancellation may reach an order whose deadline is over but which the bounded work of
 * this batch has not come to yet: it is expired first, so that expiry is exact in replicated time. */
#include "engine/parts.h"

/* Sets the new status and when the order may leave memory. */
static void set_status(struct engine *e, uint32_t slot, enum order_status status)
{
    struct order *o = order_edit(e, slot);
    o->status = (uint8_t)status;
    o->version++;
    o->changed_ms = e->root->time_ms;
    o->changed_index = e->root->index;
    o->due_ms = sale_retention_end(e, member_at(e, o->member)->sale, o->changed_ms);
    due_heap_put(&e->retiring, slot, o->due_ms);
}

static void move_stock(struct engine *e, const struct order *o,
                       void (*move)(struct engine *, uint32_t, int64_t))
{
    struct order_line lines[ORDER_LINES_MAX];
    for (uint32_t i = 0, count = order_lines(e, o, lines); i < count; i++) {
        move(e, lines[i].sku, lines[i].quantity);
    }
}

/* Ends a reservation: out of pending_payment, into status. */
static void order_end(struct engine *e, uint32_t slot, enum order_status status)
{
    const struct order *o = order_at(e, slot);
    CHECK(o->status == ORDER_PENDING_PAYMENT);
    due_heap_remove(&e->pending, slot);
    e->root->orders_pending--;
    if (status == ORDER_PAID) {
        move_stock(e, o, stock_commit);
    } else {
        move_stock(e, o, stock_release);
        order_uncount(e, o);
    }
    set_status(e, slot, status);
}

void order_expire(struct engine *e, uint32_t slot)
{
    const struct order *o = order_at(e, slot);
    const struct member *m = member_at(e, o->member);
    e->stats.expired_reservations++;
    e->stats.expiry_lag_ms = e->root->time_ms - o->pay_by_ms;
    order_end(e, slot, ORDER_EXPIRED);
    struct sale *s = sale_edit(e, m->sale);
    s->orders_expired++;
    event_add_order(e, EVENT_ORDER_EXPIRED, slot);
    denial_strike(e, m->user, s);
}

/* Finds the order of a command, expired if it is overdue; 0: none. */
static uint32_t settle_find(struct engine *e, uint64_t id)
{
    uint32_t slot = order_find(e, id);
    if (slot == 0) {
        return 0;
    }
    const struct order *o = order_at(e, slot);
    e->about.sale = member_at(e, o->member)->sale;
    e->about.sku = order_first_sku(e, o);
    if (o->status == ORDER_PENDING_PAYMENT && o->pay_by_ms <= e->root->time_ms) {
        order_expire(e, slot);
    }
    return slot;
}

static void order_reply(const struct order *o, struct reply *r)
{
    r->order = o->id;
    r->order_status = o->status;
    r->amount = o->amount;
    memcpy(r->currency, o->currency, sizeof r->currency);
}

enum result order_cancel(struct engine *e, const struct command *c, struct reply *r)
{
    uint32_t slot = settle_find(e, c->order_cancel.order);
    if (slot == 0) {
        return refuse_not_found(r, SUBJECT_ORDER);
    }
    const struct order *o = order_at(e, slot);
    const struct member *m = member_at(e, o->member);
    struct str owner = user_id(e, user_at(e, m->user));
    if (c->order_cancel.user.len > 0 && !str_equal(c->order_cancel.user, owner)) {
        return RESULT_FORBIDDEN;
    }
    if (o->status != ORDER_PENDING_PAYMENT) {
        order_reply(o, r);
        return RESULT_ORDER_NOT_CANCELLABLE;
    }

    /* Must succeed from here. */
    order_end(e, slot, ORDER_CANCELLED);
    sale_edit(e, m->sale)->orders_cancelled++;
    event_add_order(e, EVENT_ORDER_CANCELLED, slot);
    order_reply(o, r);
    return RESULT_OK;
}

/* Queues what became of a payment. */
static void payment_event(struct engine *e, enum event_kind kind, uint32_t slot,
                          const struct command *c, enum result refusal)
{
    struct event *v = event_add_order(e, kind, slot);
    v->amount = c->payment.amount;
    memset(v->currency, 0, sizeof v->currency);
    memcpy(v->currency, c->payment.currency, CURRENCY_SIZE);
    v->text = text_put(e, c->key);
    v->result = (uint8_t)refusal;
}

/* A late payment takes its units again when all of them are still free. */
static bool units_still_free(const struct engine *e, const struct order *o, uint32_t sale)
{
    if (order_units(e, o) > UINT32_MAX - member_at(e, o->member)->units) {
        return false; /* beyond what can be counted */
    }
    struct order_line lines[ORDER_LINES_MAX];
    for (uint32_t i = 0, count = order_lines(e, o, lines); i < count; i++) {
        const struct offer *offer = sale_offer(e, sale, lines[i].sku);
        int64_t allowance = offer != NULL ? offer->oversell_allowance : 0;
        if (sku_at(e, lines[i].sku)->available - (int64_t)lines[i].quantity < -allowance) {
            return false;
        }
    }
    return true;
}

static void pay_late(struct engine *e, uint32_t slot, const struct command *c)
{
    const struct order *o = order_at(e, slot);
    const struct sale *s = sale_at(e, e->about.sale);
    if (s->late_payment != LATE_PAYMENT_ACCEPT_IF_AVAILABLE ||
        !units_still_free(e, o, e->about.sale)) {
        set_status(e, slot, ORDER_REFUND_DUE);
        payment_event(e, EVENT_ORDER_REFUND_DUE, slot, c, RESULT_OK);
        return;
    }
    move_stock(e, o, stock_sell);
    struct member *m = member_edit(e, o->member); /* its limits are not asked: the money is here */
    m->orders++;
    m->units += order_units(e, o);
    sale_edit(e, e->about.sale)->orders_paid++;
    set_status(e, slot, ORDER_PAID);
    payment_event(e, EVENT_ORDER_PAID, slot, c, RESULT_OK);
}

static bool amount_matches(const struct order *o, const struct command *c)
{
    return c->payment.amount == o->amount &&
           memcmp(c->payment.currency, o->currency, CURRENCY_SIZE) == 0;
}

enum result order_pay(struct engine *e, const struct command *c, struct reply *r)
{
    uint32_t slot = settle_find(e, c->payment.order);
    if (slot == 0) {
        return refuse_not_found(r, SUBJECT_ORDER);
    }
    const struct order *o = order_at(e, slot);
    bool payable = o->status == ORDER_PENDING_PAYMENT || o->status == ORDER_EXPIRED;
    bool matches = amount_matches(o, c);
    bool in_time = o->status == ORDER_PENDING_PAYMENT && matches;
    if (!in_time && event_room(e) < 1) {
        return RESULT_BACKLOG_FULL; /* the money came and must be told of: the caller tries again */
    }
    if (!payable || !matches) {
        enum result refusal = payable ? RESULT_AMOUNT_MISMATCH : RESULT_ORDER_NOT_PAYABLE;
        payment_event(e, EVENT_PAYMENT_REJECTED, slot, c, refusal);
        order_reply(o, r);
        return refusal;
    }

    /* Must succeed from here. */
    if (in_time) {
        order_end(e, slot, ORDER_PAID);
        sale_edit(e, e->about.sale)->orders_paid++;
        payment_event(e, EVENT_ORDER_PAID, slot, c, RESULT_OK);
    } else {
        pay_late(e, slot, c);
    }
    order_reply(o, r);
    return RESULT_OK;
}

enum result order_refund(struct engine *e, const struct command *c, struct reply *r)
{
    uint32_t slot = settle_find(e, c->order_refund.order);
    if (slot == 0) {
        return refuse_not_found(r, SUBJECT_ORDER);
    }
    const struct order *o = order_at(e, slot);
    if (o->status != ORDER_PAID && o->status != ORDER_REFUND_DUE) {
        order_reply(o, r);
        return RESULT_ORDER_NOT_REFUNDABLE;
    }
    if (!event_room_for(e, 1)) {
        return RESULT_BACKLOG_FULL;
    }

    /* Must succeed from here. */
    bool restocked = o->status == ORDER_PAID && c->order_refund.restock;
    if (o->status == ORDER_PAID) {
        move_stock(e, o, restocked ? stock_restock : stock_write_off);
        order_uncount(e, o);
    }
    set_status(e, slot, ORDER_REFUNDED);
    struct event *v = event_add_order(e, EVENT_ORDER_REFUNDED, slot);
    v->restocked = restocked ? 1 : 0;
    v->text = text_put(e, c->order_refund.reason);
    order_reply(o, r);
    return RESULT_OK;
}
