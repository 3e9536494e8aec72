/* The model's commands, one function each. */
#include "tests/unit/engine/model.h"

#include "base/check.h"
#include "proto/order_id.h"
#include "proto/shard.h"
#include "tests/unit/engine/model_parts.h"

static enum result not_found(struct reply *r, enum reply_subject subject)
{
    r->detail = subject;
    return RESULT_NOT_FOUND;
}

static enum result full(struct reply *r, enum engine_limit limit)
{
    r->detail = limit;
    return RESULT_CAPACITY;
}

static bool version_differs(uint64_t expected, uint64_t is)
{
    return expected != COMMAND_VERSION_ANY && expected != is;
}

static enum result do_sku_put(struct model *m, const struct command *c, struct reply *r)
{
    int sku = model_find_sku(m, c->sku_put.sku);
    m->about_sku = sku;
    uint64_t expected = c->sku_put.expected_version;
    if (sku < 0 && version_differs(expected, 0)) {
        return not_found(r, SUBJECT_SKU);
    }
    if (sku >= 0 && version_differs(expected, m->skus[sku].version)) {
        r->version = m->skus[sku].version;
        return RESULT_STALE_VERSION;
    }
    if (sku < 0 && (uint32_t)m->skus_count == m->limits.skus_max) {
        return full(r, LIMIT_SKUS);
    }
    char title[TITLE_SIZE_MAX + 1];
    str_copy(title, sizeof title, c->sku_put.title);
    if (sku < 0) {
        sku = m->skus_count++;
        m->skus[sku] = (struct model_sku){.id = c->sku_put.sku, .version = 1};
        strcpy(m->skus[sku].title, title);
    } else if (strcmp(m->skus[sku].title, title) != 0) {
        strcpy(m->skus[sku].title, title);
        m->skus[sku].version++;
    }
    m->about_sku = sku;
    r->version = m->skus[sku].version;
    return RESULT_OK;
}

static enum result do_stock_adjust(struct model *m, const struct command *c, struct reply *r)
{
    if (c->key.len == 0) {
        return RESULT_INVALID;
    }
    int sku = model_find_sku(m, c->stock_adjust.sku);
    if (sku < 0) {
        return not_found(r, SUBJECT_SKU);
    }
    m->about_sku = sku;
    r->version = m->skus[sku].version;
    int64_t delta = c->stock_adjust.delta;
    if ((delta < 0 && model_available(m, sku) + delta < 0) ||
        m->skus[sku].received + delta > STOCK_MAX) {
        return RESULT_INSUFFICIENT_STOCK;
    }
    m->skus[sku].received += delta;
    return RESULT_OK;
}

static bool same_sale(const struct command_sale *a, const struct command_sale *b)
{
    bool same = str_equal(a->title, b->title) && strcmp(a->currency, b->currency) == 0 &&
                a->eligibility_opens_ms == b->eligibility_opens_ms &&
                a->eligibility_closes_ms == b->eligibility_closes_ms &&
                a->opens_ms == b->opens_ms && a->closes_ms == b->closes_ms &&
                a->payment_timeout_ms == b->payment_timeout_ms &&
                a->late_payment == b->late_payment &&
                a->eligibility_required == b->eligibility_required &&
                a->orders_per_user_max == b->orders_per_user_max &&
                a->units_per_user_max == b->units_per_user_max &&
                a->eligibility_limit == b->eligibility_limit &&
                a->eligibility_ratio_permille == b->eligibility_ratio_permille &&
                a->strikes_max == b->strikes_max && a->denial_ms == b->denial_ms &&
                a->offers_count == b->offers_count;
    for (int i = 0; same && i < a->offers_count; i++) {
        same = str_equal(a->offers[i].sku, b->offers[i].sku) &&
               a->offers[i].unit_price == b->offers[i].unit_price &&
               a->offers[i].units_per_order_max == b->offers[i].units_per_order_max &&
               a->offers[i].oversell_allowance == b->offers[i].oversell_allowance;
    }
    return same;
}

static void sale_reply(const struct model *m, int sale, struct reply *r)
{
    r->version = m->sales[sale].version;
    r->opens_ms = m->sales[sale].now.opens_ms;
    r->sale_phase = (uint8_t)model_phase(m, sale);
}

static enum result do_sale_put(struct model *m, const struct command *c, struct reply *r)
{
    const struct command_sale *d = &c->sale_put;
    int sale = model_find_sale(m, d->id);
    m->about_sale = sale;
    if (sale < 0 && version_differs(d->expected_version, 0)) {
        return not_found(r, SUBJECT_SALE);
    }
    for (int i = 0; i < d->offers_count; i++) {
        if (model_find_sku(m, d->offers[i].sku) < 0) {
            r->line = (uint32_t)i + 1;
            return not_found(r, SUBJECT_SKU);
        }
    }
    if (sale >= 0 && version_differs(d->expected_version, m->sales[sale].version)) {
        r->version = m->sales[sale].version;
        return RESULT_STALE_VERSION;
    }
    if ((sale >= 0 && model_phase(m, sale) == SALE_CLOSED) || d->closes_ms <= m->time) {
        r->sale_phase = SALE_CLOSED;
        return RESULT_SALE_CLOSED;
    }
    if (sale < 0 && (uint32_t)m->sales_count == m->limits.sales_max) {
        return full(r, LIMIT_SALES);
    }
    if (sale < 0) {
        sale = m->sales_count++;
        m->sales[sale] = (struct model_sale){.version = 0};
    }
    struct model_sale *s = &m->sales[sale];
    if (s->version == 0 || !same_sale(&s->now, d)) {
        s->version++;
    }
    s->now = *d;
    s->due = model_retention_end(m, sale, 0);
    for (int i = 0; i < d->offers_count; i++) {
        struct model_sku *k = &m->skus[model_find_sku(m, d->offers[i].sku)];
        k->allowance = d->offers[i].oversell_allowance > k->allowance
                           ? d->offers[i].oversell_allowance
                           : k->allowance;
    }
    m->about_sale = sale;
    sale_reply(m, sale, r);
    return RESULT_OK;
}

static enum result do_sale_control(struct model *m, const struct command *c, struct reply *r)
{
    int sale = model_find_sale(m, c->sale_control.sale);
    if (sale < 0) {
        return not_found(r, SUBJECT_SALE);
    }
    m->about_sale = sale;
    struct model_sale *s = &m->sales[sale];
    if (version_differs(c->sale_control.expected_version, s->version)) {
        r->version = s->version;
        return RESULT_STALE_VERSION;
    }
    bool closed = model_phase(m, sale) == SALE_CLOSED;
    if (c->kind == COMMAND_SALE_CLOSE) {
        s->version += closed ? 0 : 1;
        s->closed = s->closed || !closed;
    } else {
        if (closed) {
            r->sale_phase = SALE_CLOSED;
            return RESULT_SALE_CLOSED;
        }
        bool pause = c->kind == COMMAND_SALE_PAUSE;
        s->version += s->paused != pause ? 1 : 0;
        s->paused = pause;
    }
    sale_reply(m, sale, r);
    return RESULT_OK;
}

static enum result check_grant_window(struct model *m, int sale, struct reply *r)
{
    const struct command_sale *d = &m->sales[sale].now;
    enum sale_phase phase = model_phase(m, sale);
    bool window = d->eligibility_opens_ms != 0 || d->eligibility_closes_ms != 0;
    if (phase == SALE_CLOSED || (window && m->time >= d->eligibility_closes_ms)) {
        r->sale_phase = (uint8_t)phase;
        return RESULT_SALE_CLOSED;
    }
    if (phase == SALE_PAUSED) {
        r->sale_phase = SALE_PAUSED;
        return RESULT_SALE_PAUSED;
    }
    if (window && m->time < d->eligibility_opens_ms) {
        r->sale_phase = SALE_SCHEDULED;
        r->opens_ms = d->eligibility_opens_ms;
        return RESULT_SALE_NOT_OPEN;
    }
    return RESULT_OK;
}

static bool exhausted(const struct model *m, int sale)
{
    const struct command_sale *d = &m->sales[sale].now;
    uint64_t next = model_granted(m, sale) + 1;
    int64_t units = 0;
    for (int i = 0; i < d->offers_count; i++) {
        int64_t received = m->skus[model_find_sku(m, d->offers[i].sku)].received;
        units += received > 0 ? received : 0;
    }
    return (d->eligibility_limit != 0 && next > d->eligibility_limit) ||
           (d->eligibility_ratio_permille != 0 &&
            next * 1000 > (uint64_t)units * d->eligibility_ratio_permille);
}

static enum result do_grant(struct model *m, const struct command *c, struct reply *r)
{
    int sale = model_find_sale(m, c->eligibility.sale);
    if (sale < 0) {
        return not_found(r, SUBJECT_SALE);
    }
    m->about_sale = sale;
    int user = model_find_user(m, c->eligibility.user);
    int member = model_find_member(m, sale, user);
    if (member >= 0 && m->members[member].granted) {
        r->flags |= REPLY_EXISTED;
        r->created_ms = m->members[member].granted_ms;
        return RESULT_OK;
    }
    enum result window = check_grant_window(m, sale, r);
    if (window != RESULT_OK) {
        return window;
    }
    if (model_user_denied(m, user)) {
        r->expires_ms = m->users[user].until;
        return RESULT_DENYLISTED;
    }
    if (exhausted(m, sale)) {
        return RESULT_ELIGIBILITY_EXHAUSTED;
    }
    if (!model_room_beside_margin(m, 1)) {
        return RESULT_BACKLOG_FULL;
    }
    if (m->users[user].slot == 0 && m->user_slots.live == m->limits.users_max) {
        return full(r, LIMIT_USERS);
    }
    if (member < 0 && model_live_members(m) == m->limits.eligibilities_max) {
        return full(r, LIMIT_ELIGIBILITIES);
    }
    struct model_member *x = &m->members[model_member_of(m, sale, user)];
    x->granted = true;
    x->ever = true;
    x->granted_ms = m->time;
    model_add_event(m, EVENT_ELIGIBILITY_GRANTED, sale, user);
    x->last_event = m->events_next - 1;
    r->created_ms = m->time;
    return RESULT_OK;
}

static enum result do_revoke(struct model *m, const struct command *c, struct reply *r)
{
    int sale = model_find_sale(m, c->eligibility.sale);
    if (sale < 0) {
        return not_found(r, SUBJECT_SALE);
    }
    m->about_sale = sale;
    int user = model_find_user(m, c->eligibility.user);
    int member = model_find_member(m, sale, user);
    if (member < 0 || !m->members[member].granted) {
        return not_found(r, SUBJECT_ELIGIBILITY);
    }
    if (!model_room_beside_margin(m, 1)) {
        return RESULT_BACKLOG_FULL;
    }
    m->members[member].granted = false;
    model_add_event(m, EVENT_ELIGIBILITY_REVOKED, sale, user);
    m->members[member].last_event = m->events_next - 1;
    r->created_ms = m->members[member].granted_ms;
    return RESULT_OK;
}

/* The lines of an order, each SKU once. Returns the 1-based line that is not on offer, or 0. */
static uint32_t collect_lines(struct model *m, const struct command *c, int sale,
                              struct model_order *o, uint32_t mention[ORDER_LINES_MAX])
{
    for (uint32_t i = 0; i < c->order_place.lines_count; i++) {
        int sku = model_find_sku(m, c->order_place.lines[i].sku);
        int offer = sku >= 0 ? model_offer_of(m, sale, sku) : -1;
        if (offer < 0) {
            return i + 1;
        }
        if (i == 0) {
            m->about_sku = sku;
        }
        uint32_t at = 0;
        while (at < o->lines_count && o->lines[at].sku != sku) {
            at++;
        }
        if (at == o->lines_count) {
            o->lines_count++;
            o->lines[at].sku = sku;
            o->lines[at].quantity = 0;
            o->lines[at].price = m->sales[sale].now.offers[offer].unit_price;
            mention[at] = i + 1;
        }
        o->lines[at].quantity += c->order_place.lines[i].quantity;
    }
    return 0;
}

static enum result check_order(struct model *m, const struct model_order *o,
                               const uint32_t mention[ORDER_LINES_MAX], struct reply *r)
{
    const struct command_sale *d = &m->sales[o->sale].now;
    enum sale_phase phase = model_phase(m, o->sale);
    if (phase != SALE_OPEN) {
        r->sale_phase = (uint8_t)phase;
        r->opens_ms = phase == SALE_CLOSED || phase == SALE_PAUSED ? 0 : d->opens_ms;
        return phase == SALE_CLOSED   ? RESULT_SALE_CLOSED
               : phase == SALE_PAUSED ? RESULT_SALE_PAUSED
                                      : RESULT_SALE_NOT_OPEN;
    }
    if (model_user_denied(m, o->user)) {
        r->expires_ms = m->users[o->user].until;
        return RESULT_DENYLISTED;
    }
    for (uint32_t i = 0; i < o->lines_count; i++) {
        uint32_t max = d->offers[model_offer_of(m, o->sale, o->lines[i].sku)].units_per_order_max;
        if (o->lines[i].quantity > max) {
            r->detail = max;
            r->line = mention[i];
            return RESULT_QUANTITY_LIMIT;
        }
    }
    int member = model_find_member(m, o->sale, o->user);
    if (d->eligibility_required && (member < 0 || !m->members[member].granted)) {
        return RESULT_NOT_ELIGIBLE;
    }
    if (model_member_orders(m, o->sale, o->user) + 1 > d->orders_per_user_max) {
        r->detail = d->orders_per_user_max;
        return RESULT_ORDER_LIMIT_REACHED;
    }
    if (d->units_per_user_max != 0 &&
        model_member_units(m, o->sale, o->user) + model_order_units(o) > d->units_per_user_max) {
        r->detail = d->units_per_user_max;
        return RESULT_ORDER_LIMIT_REACHED;
    }
    for (uint32_t i = 0; i < o->lines_count; i++) {
        int sku = o->lines[i].sku;
        int64_t allowance = d->offers[model_offer_of(m, o->sale, sku)].oversell_allowance;
        if (model_available(m, sku) - (int64_t)o->lines[i].quantity < -allowance) {
            m->about_sku = sku;
            r->line = mention[i];
            return RESULT_SOLD_OUT;
        }
    }
    if (!model_room_beside_margin(m, 2)) {
        return RESULT_BACKLOG_FULL;
    }
    if (m->users[o->user].slot == 0 && m->user_slots.live == m->limits.users_max) {
        return full(r, LIMIT_USERS);
    }
    if (member < 0 && model_live_members(m) == m->limits.eligibilities_max) {
        return full(r, LIMIT_ELIGIBILITIES);
    }
    if (m->order_slots.live == m->limits.orders_max) {
        return full(r, LIMIT_ORDERS);
    }
    return RESULT_OK;
}

static void placed_reply(const struct model_order *o, struct reply *r)
{
    r->order = o->id;
    r->order_status = ORDER_PENDING_PAYMENT;
    r->amount = o->amount;
    memcpy(r->currency, o->currency, 4);
    r->created_ms = o->created;
    r->pay_by_ms = o->pay_by;
}

static enum result do_place(struct model *m, const struct command *c, struct reply *r)
{
    if (c->key.len == 0) {
        return RESULT_INVALID;
    }
    struct model_order o = {.sale = model_find_sale(m, c->order_place.sale)};
    uint32_t mention[ORDER_LINES_MAX];
    if (o.sale < 0) {
        return not_found(r, SUBJECT_SALE);
    }
    m->about_sale = o.sale;
    r->line = collect_lines(m, c, o.sale, &o, mention);
    if (r->line != 0) {
        return not_found(r, SUBJECT_SKU);
    }
    o.user = model_find_user(m, c->order_place.user);
    enum result check = check_order(m, &o, mention, r);
    if (check != RESULT_OK) {
        return check;
    }
    model_member_of(m, o.sale, o.user);
    o.id = order_id_make(m->index, m->position, shard_of_user(m->users[o.user].id, m->shards));
    o.slot = model_slot_take(&m->order_slots);
    o.status = ORDER_PENDING_PAYMENT;
    o.version = 1;
    o.created = o.changed = m->time;
    o.pay_by = m->time + (int64_t)m->sales[o.sale].now.payment_timeout_ms;
    memcpy(o.currency, m->sales[o.sale].now.currency, 4);
    for (uint32_t i = 0; i < o.lines_count; i++) {
        o.amount += o.lines[i].price * (int64_t)o.lines[i].quantity;
    }
    CHECK(m->orders_count < MODEL_ORDERS_MAX);
    m->orders[m->orders_count++] = o;
    model_add_order_event(m, EVENT_ORDER_PLACED, m->orders_count - 1);
    placed_reply(&o, r);
    return RESULT_OK;
}

/* The order a command is about; -1 when there is none. */
static int settle(struct model *m, uint64_t id)
{
    int order = model_find_order(m, id);
    if (order >= 0) {
        m->about_sale = m->orders[order].sale;
        m->about_sku = m->orders[order].lines[0].sku;
        if (m->orders[order].status == ORDER_PENDING_PAYMENT &&
            m->orders[order].pay_by <= m->time) {
            model_expire(m, order);
        }
    }
    return order;
}

static void order_reply(const struct model_order *o, struct reply *r)
{
    r->order = o->id;
    r->order_status = (uint8_t)o->status;
    r->amount = o->amount;
    memcpy(r->currency, o->currency, 4);
}

static enum result do_cancel(struct model *m, const struct command *c, struct reply *r)
{
    int order = settle(m, c->order_cancel.order);
    if (order < 0) {
        return not_found(r, SUBJECT_ORDER);
    }
    struct model_order *o = &m->orders[order];
    if (c->order_cancel.user.len > 0 && !str_equal(m->users[o->user].id, c->order_cancel.user)) {
        return RESULT_FORBIDDEN;
    }
    if (o->status != ORDER_PENDING_PAYMENT) {
        order_reply(o, r);
        return RESULT_ORDER_NOT_CANCELLABLE;
    }
    model_set_status(m, order, ORDER_CANCELLED);
    model_add_order_event(m, EVENT_ORDER_CANCELLED, order);
    order_reply(o, r);
    return RESULT_OK;
}

static void pay_event(struct model *m, enum event_kind kind, int order, const struct command *c,
                      const char *reason)
{
    struct model_event *v = model_add_order_event(m, kind, order);
    v->amount = c->payment.amount;
    memcpy(v->currency, c->payment.currency, 4);
    str_copy(v->payment, sizeof v->payment, c->key);
    strcpy(v->reason, reason);
}

static bool still_free(const struct model *m, const struct model_order *o)
{
    for (uint32_t i = 0; i < o->lines_count; i++) {
        int offer = model_offer_of(m, o->sale, o->lines[i].sku);
        int64_t allowance = offer >= 0 ? m->sales[o->sale].now.offers[offer].oversell_allowance : 0;
        if (model_available(m, o->lines[i].sku) - (int64_t)o->lines[i].quantity < -allowance) {
            return false;
        }
    }
    return true;
}

static enum result do_pay(struct model *m, const struct command *c, struct reply *r)
{
    int order = settle(m, c->payment.order);
    if (order < 0) {
        return not_found(r, SUBJECT_ORDER);
    }
    struct model_order *o = &m->orders[order];
    bool pending = o->status == ORDER_PENDING_PAYMENT, expired = o->status == ORDER_EXPIRED;
    bool matches = c->payment.amount == o->amount && strcmp(c->payment.currency, o->currency) == 0;
    if (pending && matches) {
        model_set_status(m, order, ORDER_PAID);
        pay_event(m, EVENT_ORDER_PAID, order, c, "");
        order_reply(o, r);
        return RESULT_OK;
    }
    if (model_room(m) < 1) {
        return RESULT_BACKLOG_FULL;
    }
    if (!pending && !expired) {
        pay_event(m, EVENT_PAYMENT_REJECTED, order, c, "ORDER_NOT_PAYABLE");
        order_reply(o, r);
        return RESULT_ORDER_NOT_PAYABLE;
    }
    if (!matches) {
        pay_event(m, EVENT_PAYMENT_REJECTED, order, c, "AMOUNT_MISMATCH");
        order_reply(o, r);
        return RESULT_AMOUNT_MISMATCH;
    }
    bool accept = m->sales[o->sale].now.late_payment == LATE_PAYMENT_ACCEPT_IF_AVAILABLE &&
                  still_free(m, o);
    model_set_status(m, order, accept ? ORDER_PAID : ORDER_REFUND_DUE);
    pay_event(m, accept ? EVENT_ORDER_PAID : EVENT_ORDER_REFUND_DUE, order, c, "");
    order_reply(o, r);
    return RESULT_OK;
}

static enum result do_refund(struct model *m, const struct command *c, struct reply *r)
{
    int order = settle(m, c->order_refund.order);
    if (order < 0) {
        return not_found(r, SUBJECT_ORDER);
    }
    struct model_order *o = &m->orders[order];
    bool paid = o->status == ORDER_PAID;
    if (!paid && o->status != ORDER_REFUND_DUE) {
        order_reply(o, r);
        return RESULT_ORDER_NOT_REFUNDABLE;
    }
    if (!model_room_beside_margin(m, 1)) {
        return RESULT_BACKLOG_FULL;
    }
    for (uint32_t i = 0; paid && !c->order_refund.restock && i < o->lines_count; i++) {
        m->skus[o->lines[i].sku].received -= o->lines[i].quantity;
    }
    model_set_status(m, order, ORDER_REFUNDED);
    struct model_event *v = model_add_order_event(m, EVENT_ORDER_REFUNDED, order);
    v->restocked = paid && c->order_refund.restock;
    str_copy(v->reason, sizeof v->reason, c->order_refund.reason);
    order_reply(o, r);
    return RESULT_OK;
}

static int find_lease(struct model *m, struct str name)
{
    for (int i = 0; i < m->leases_count; i++) {
        struct model_lease *l = &m->leases[i];
        if (l->gone || !str_equal(l->name, name)) {
            continue;
        }
        if (l->expires > m->time) {
            return i;
        }
        l->gone = true;
        model_slot_give(&m->lease_slots, l->slot);
    }
    return -1;
}

static enum result do_lease(struct model *m, const struct command *c, struct reply *r)
{
    int lease = find_lease(m, c->lease.name);
    bool mine = lease >= 0 && str_equal(m->leases[lease].owner, c->lease.owner);
    if (c->kind == COMMAND_LEASE_ACQUIRE) {
        if (lease >= 0 && !mine) {
            r->expires_ms = m->leases[lease].expires;
            return RESULT_LEASE_HELD;
        }
        if (lease < 0 && m->lease_slots.live == m->limits.leases_max) {
            return full(r, LIMIT_LEASES);
        }
        if (lease < 0) {
            CHECK(m->leases_count < MODEL_LEASES_MAX);
            lease = m->leases_count++;
            m->leases[lease] = (struct model_lease){c->lease.name, c->lease.owner, ++m->token, 0,
                                                    model_slot_take(&m->lease_slots), false};
        }
    } else if (lease < 0) {
        return not_found(r, SUBJECT_LEASE);
    } else if (!mine || m->leases[lease].token != c->lease.token) {
        return RESULT_STALE_FENCING_TOKEN;
    }
    struct model_lease *l = &m->leases[lease];
    r->token = l->token;
    if (c->kind == COMMAND_LEASE_RELEASE) {
        l->gone = true;
        model_slot_give(&m->lease_slots, l->slot);
        return RESULT_OK;
    }
    l->expires = m->time + (int64_t)c->lease.ttl_ms;
    r->expires_ms = l->expires;
    return RESULT_OK;
}

static enum result do_deny(struct model *m, const struct command *c, struct reply *r)
{
    int64_t until = c->deny.until_ms;
    int user = model_find_user(m, c->deny.user);
    struct model_user *u = &m->users[user];
    if (c->kind == COMMAND_DENY_REMOVE) {
        if (!model_user_denied(m, user) && u->strikes == 0) {
            return not_found(r, SUBJECT_USER);
        }
        u->denied = false;
        u->until = 0;
        u->strikes = 0;
        model_user_sync(m, user);
        return RESULT_OK;
    }
    if (until != 0 && until <= m->time) {
        return RESULT_INVALID;
    }
    if (u->slot == 0 && m->user_slots.live == m->limits.users_max) {
        return full(r, LIMIT_USERS);
    }
    r->flags |= model_user_denied(m, user) ? REPLY_EXISTED : 0;
    u->denied = true;
    u->until = until;
    str_copy(u->reason, sizeof u->reason, c->deny.reason);
    model_user_sync(m, user);
    r->expires_ms = until;
    return RESULT_OK;
}

static enum result do_ack(struct model *m, const struct command *c)
{
    for (uint32_t i = 0; i < c->persist_ack.count; i++) {
        const struct command_ack *a = &c->persist_ack.acks[i];
        if (a->shard >= m->shards || a->sequence >= m->events_next) {
            return RESULT_INVALID;
        }
    }
    for (uint32_t i = 0; i < c->persist_ack.count; i++) {
        const struct command_ack *a = &c->persist_ack.acks[i];
        m->acked[a->shard] = a->sequence > m->acked[a->shard] ? a->sequence : m->acked[a->shard];
    }
    model_trim(m);
    return RESULT_OK;
}

static enum result run(struct model *m, const struct command *c, struct reply *r)
{
    switch (c->kind) {
    case COMMAND_INIT:
        return RESULT_INVALID;
    case COMMAND_SKU_PUT:
        return do_sku_put(m, c, r);
    case COMMAND_STOCK_ADJUST:
        return do_stock_adjust(m, c, r);
    case COMMAND_SALE_PUT:
        return do_sale_put(m, c, r);
    case COMMAND_SALE_PAUSE:
    case COMMAND_SALE_RESUME:
    case COMMAND_SALE_CLOSE:
        return do_sale_control(m, c, r);
    case COMMAND_ELIGIBILITY_GRANT:
        return do_grant(m, c, r);
    case COMMAND_ELIGIBILITY_REVOKE:
        return do_revoke(m, c, r);
    case COMMAND_ORDER_PLACE:
        return do_place(m, c, r);
    case COMMAND_ORDER_CANCEL:
        return do_cancel(m, c, r);
    case COMMAND_PAYMENT_APPLY:
        return do_pay(m, c, r);
    case COMMAND_ORDER_REFUND:
        return do_refund(m, c, r);
    case COMMAND_LEASE_ACQUIRE:
    case COMMAND_LEASE_RENEW:
    case COMMAND_LEASE_RELEASE:
        return do_lease(m, c, r);
    case COMMAND_DENY_PUT:
    case COMMAND_DENY_REMOVE:
        return do_deny(m, c, r);
    case COMMAND_PERSIST_ACK:
        return do_ack(m, c);
    case COMMAND_DIGEST_MARK:
        return RESULT_OK;
    }
    CHECK_UNREACHABLE();
}

static void witness(const struct model *m, int sku, struct reply *r)
{
    if (sku >= 0) {
        r->available = model_available(m, sku);
        r->reserved = model_reserved(m, sku);
        r->sold = model_sold(m, sku);
    }
}

static int find_answer(const struct model *m, const struct command *c)
{
    for (int i = 0; i < m->answers_count; i++) {
        const struct model_answer *a = &m->answers[i];
        if (!a->gone && str_equal(a->scope, c->scope) && str_equal(a->key, c->key)) {
            return i;
        }
    }
    return -1;
}

/* What makes two commands the same: kind and body, without scope and key. */
static uint32_t body_of(const struct command *c, const uint8_t *encoded, size_t size,
                        uint8_t out[MODEL_BODY_MAX])
{
    size_t head = 3 + (size_t)c->scope.len + c->key.len;
    CHECK(size - head + 1 <= MODEL_BODY_MAX);
    out[0] = encoded[0];
    memcpy(out + 1, encoded + head, size - head);
    return (uint32_t)(size - head + 1);
}

static void replay(const struct model *m, const struct model_answer *a, struct reply *r)
{
    uint64_t index = r->index;
    int64_t time = r->time_ms, available = a->reply.available;
    *r = a->reply;
    r->index = index;
    r->time_ms = time;
    r->flags |= REPLY_REPLAYED;
    r->available = r->reserved = r->sold = 0;
    witness(m, a->sku, r);
    if (r->result == RESULT_SOLD_OUT) {
        r->available = available;
    }
}

static void remember(struct model *m, const struct command *c, const uint8_t *body, uint32_t size,
                     const struct reply *r)
{
    CHECK(m->answers_count < MODEL_ANSWERS_MAX);
    struct model_answer *a = &m->answers[m->answers_count++];
    bool order = c->kind == COMMAND_ORDER_PLACE && r->result == RESULT_OK;
    *a = (struct model_answer){.scope = c->scope, .key = c->key, .body_size = size, .reply = *r};
    memcpy(a->body, body, size);
    a->order = order ? m->orders_count - 1 : -1;
    a->slot = order ? 0 : model_slot_take(&m->answer_slots);
    a->sale = m->about_sale;
    a->sku = order ? m->orders[m->orders_count - 1].lines[0].sku : m->about_sku;
    a->due = model_retention_end(m, a->sale, m->time);
}

void model_apply(struct model *m, uint32_t position, const struct command *c, const void *encoded,
                 size_t size, struct reply *r)
{
    const struct reply blank = {.index = m->index, .origin_index = m->index, .time_ms = m->time};
    uint8_t body[MODEL_BODY_MAX];
    uint32_t body_size = body_of(c, encoded, size, body);
    bool keyed = c->key.len > 0;
    *r = blank;
    m->position = position;
    m->about_sale = m->about_sku = -1;
    int known = keyed ? find_answer(m, c) : -1;
    if (known >= 0) {
        const struct model_answer *a = &m->answers[known];
        if (a->body_size != body_size || memcmp(a->body, body, body_size) != 0) {
            r->result = RESULT_IDEMPOTENCY_KEY_REUSED;
        } else {
            replay(m, a, r);
        }
        return;
    }
    bool no_room = keyed && m->answer_slots.live == m->limits.idempotency_max;
    if (no_room && c->kind != COMMAND_ORDER_PLACE) {
        r->result = (uint8_t)full(r, LIMIT_IDEMPOTENCY);
        return;
    }
    r->result = (uint8_t)run(m, c, r);
    witness(m, m->about_sku, r);
    if (!keyed || r->result == RESULT_BACKLOG_FULL || r->result == RESULT_CAPACITY) {
        return;
    }
    if (no_room && r->result != RESULT_OK) {
        *r = blank;
        r->result = (uint8_t)full(r, LIMIT_IDEMPOTENCY);
        return;
    }
    remember(m, c, body, body_size, r);
}
