#include "tests/unit/engine/model.h"

#include "base/check.h"
#include "proto/order_id.h"
#include "proto/shard.h"
#include "tests/unit/engine/model_parts.h"

/* ---- slots ---- */

uint32_t model_slot_take(struct model_slots *s)
{
    s->live++;
    return s->free_count > 0 ? s->free[--s->free_count] : ++s->used_max;
}

void model_slot_give(struct model_slots *s, uint32_t slot)
{
    s->live--;
    s->free[s->free_count++] = slot;
}

/* ---- sums ---- */

static int64_t units_with_status(const struct model *m, int sku, enum order_status status)
{
    int64_t units = 0;
    for (int i = 0; i < m->orders_count; i++) {
        const struct model_order *o = &m->orders[i];
        for (uint32_t l = 0; o->status == status && l < o->lines_count; l++) {
            units += o->lines[l].sku == sku ? o->lines[l].quantity : 0;
        }
    }
    return units;
}

int64_t model_reserved(const struct model *m, int sku)
{
    return units_with_status(m, sku, ORDER_PENDING_PAYMENT);
}

int64_t model_sold(const struct model *m, int sku)
{
    return units_with_status(m, sku, ORDER_PAID);
}

int64_t model_available(const struct model *m, int sku)
{
    return m->skus[sku].received - model_reserved(m, sku) - model_sold(m, sku);
}

static bool counts(const struct model_order *o)
{
    return !o->gone && (o->status == ORDER_PENDING_PAYMENT || o->status == ORDER_PAID);
}

uint32_t model_order_units(const struct model_order *o)
{
    uint32_t units = 0;
    for (uint32_t l = 0; l < o->lines_count; l++) {
        units += o->lines[l].quantity;
    }
    return units;
}

uint32_t model_member_orders(const struct model *m, int sale, int user)
{
    uint32_t count = 0;
    for (int i = 0; i < m->orders_count; i++) {
        const struct model_order *o = &m->orders[i];
        count += o->sale == sale && o->user == user && counts(o) ? 1 : 0;
    }
    return count;
}

uint32_t model_member_units(const struct model *m, int sale, int user)
{
    uint32_t units = 0;
    for (int i = 0; i < m->orders_count; i++) {
        const struct model_order *o = &m->orders[i];
        units += o->sale == sale && o->user == user && counts(o) ? model_order_units(o) : 0;
    }
    return units;
}

uint64_t model_granted(const struct model *m, int sale)
{
    uint64_t count = 0;
    for (int i = 0; i < m->members_count; i++) {
        count += m->members[i].sale == sale && m->members[i].granted ? 1 : 0;
    }
    return count;
}

uint64_t model_events_of(const struct model *m, int sale, enum event_kind kind)
{
    uint64_t count = 0;
    for (uint64_t i = 1; i < m->events_next; i++) {
        count += m->events[i - 1].sale == sale && m->events[i - 1].kind == kind ? 1 : 0;
    }
    return count;
}

uint32_t model_pending(const struct model *m)
{
    uint32_t count = 0;
    for (int i = 0; i < m->orders_count; i++) {
        count += m->orders[i].status == ORDER_PENDING_PAYMENT ? 1 : 0;
    }
    return count;
}

enum sale_phase model_phase(const struct model *m, int sale)
{
    const struct model_sale *s = &m->sales[sale];
    const struct command_sale *d = &s->now;
    if (s->closed || m->time >= d->closes_ms) {
        return SALE_CLOSED;
    }
    if (s->paused) {
        return SALE_PAUSED;
    }
    if (m->time >= d->opens_ms) {
        return SALE_OPEN;
    }
    if (d->eligibility_opens_ms == 0 && d->eligibility_closes_ms == 0) {
        return SALE_SCHEDULED;
    }
    return m->time < d->eligibility_opens_ms    ? SALE_SCHEDULED
           : m->time < d->eligibility_closes_ms ? SALE_ELIGIBILITY
                                                : SALE_WAITING;
}

bool model_user_denied(const struct model *m, int user)
{
    const struct model_user *u = &m->users[user];
    return u->denied && (u->until == 0 || u->until > m->time);
}

/* ---- finding ---- */

int model_find_sku(const struct model *m, struct str id)
{
    for (int i = 0; i < m->skus_count; i++) {
        if (str_equal(m->skus[i].id, id)) {
            return i;
        }
    }
    return -1;
}

int model_find_sale(const struct model *m, struct str id)
{
    for (int i = 0; i < m->sales_count; i++) {
        if (str_equal(m->sales[i].now.id, id)) {
            return i;
        }
    }
    return -1;
}

/* Users are never deleted here; one without slot is not known to the engine. */
int model_find_user(struct model *m, struct str id)
{
    for (int i = 0; i < m->users_count; i++) {
        if (str_equal(m->users[i].id, id)) {
            return i;
        }
    }
    CHECK(m->users_count < MODEL_USERS_MAX);
    m->users[m->users_count].id = id;
    return m->users_count++;
}

int model_find_member(const struct model *m, int sale, int user)
{
    for (int i = 0; i < m->members_count; i++) {
        const struct model_member *x = &m->members[i];
        if (!x->gone && x->sale == sale && x->user == user) {
            return i;
        }
    }
    return -1;
}

int model_find_order(const struct model *m, uint64_t id)
{
    for (int i = 0; i < m->orders_count; i++) {
        if (!m->orders[i].gone && m->orders[i].id == id) {
            return i;
        }
    }
    return -1;
}

int model_offer_of(const struct model *m, int sale, int sku)
{
    const struct command_sale *d = &m->sales[sale].now;
    for (int i = 0; i < d->offers_count; i++) {
        if (model_find_sku(m, d->offers[i].sku) == sku) {
            return i;
        }
    }
    return -1;
}

uint32_t model_live_members(const struct model *m)
{
    uint32_t count = 0;
    for (int i = 0; i < m->members_count; i++) {
        count += m->members[i].gone ? 0 : 1;
    }
    return count;
}

/* A user is known as long as there is something to know. */
void model_user_sync(struct model *m, int user)
{
    struct model_user *u = &m->users[user];
    bool known = u->denied || u->strikes > 0;
    for (int i = 0; i < m->members_count && !known; i++) {
        known = !m->members[i].gone && m->members[i].user == user;
    }
    if (known && u->slot == 0) {
        u->slot = model_slot_take(&m->user_slots);
    } else if (!known && u->slot != 0) {
        model_slot_give(&m->user_slots, u->slot);
        u->slot = 0;
    }
}

int model_member_of(struct model *m, int sale, int user)
{
    int member = model_find_member(m, sale, user);
    if (member < 0) {
        CHECK(m->members_count < MODEL_MEMBERS_MAX);
        member = m->members_count++;
        m->members[member] = (struct model_member){.sale = sale, .user = user};
        model_user_sync(m, user);
    }
    return member;
}

/* ---- events ---- */

int64_t model_room(const struct model *m)
{
    return (int64_t)m->limits.events_max - (int64_t)(m->events_next - m->events_first) -
           model_pending(m);
}

bool model_room_beside_margin(const struct model *m, int64_t events)
{
    return model_room(m) - m->limits.events_max / 16 >= events;
}

struct model_event *model_add_event(struct model *m, enum event_kind kind, int sale, int user)
{
    CHECK(m->events_next <= MODEL_EVENTS_MAX);
    struct model_event *v = &m->events[m->events_next++ - 1];
    *v = (struct model_event){.kind = kind, .sale = sale, .user = user, .order = -1};
    v->time = m->time;
    v->index = m->index;
    v->shard = shard_of_user(m->users[user].id, m->shards);
    return v;
}

struct model_event *model_add_order_event(struct model *m, enum event_kind kind, int order)
{
    struct model_order *o = &m->orders[order];
    struct model_event *v = model_add_event(m, kind, o->sale, o->user);
    v->order = order;
    v->status = o->status;
    v->version = o->version;
    memcpy(v->currency, o->currency, 4);
    o->last_event = m->events_next - 1;
    return v;
}

void model_trim(struct model *m)
{
    while (m->events_first < m->events_next &&
           m->acked[m->events[m->events_first - 1].shard] >= m->events_first) {
        m->events_first++;
        for (int i = 0; i < m->sales_count; i++) { /* what a sale was parked for may be gone */
            struct model_sale *s = &m->sales[i];
            bool needed = false;
            for (int j = 0; j < m->orders_count; j++) {
                needed = needed || (!m->orders[j].gone && m->orders[j].sale == i);
            }
            for (int j = 0; j < m->members_count; j++) {
                needed = needed || (m->members[j].sale == i &&
                                    m->members[j].last_event >= m->events_first);
            }
            if (s->parked && !needed) {
                s->parked = false;
                s->due = m->time;
            }
        }
    }
}

/* ---- ends ---- */

int64_t model_retention_end(const struct model *m, int sale, int64_t end)
{
    int64_t closes = sale >= 0 ? m->sales[sale].now.closes_ms : 0;
    return (closes > end ? closes : end) + (int64_t)m->limits.idempotency_retention_ms;
}

void model_set_status(struct model *m, int order, enum order_status status)
{
    struct model_order *o = &m->orders[order];
    o->status = status;
    o->version++;
    o->changed = m->time;
    o->due = model_retention_end(m, o->sale, m->time);
}

void model_expire(struct model *m, int order)
{
    struct model_order *o = &m->orders[order];
    const struct command_sale *d = &m->sales[o->sale].now;
    model_set_status(m, order, ORDER_EXPIRED);
    model_add_order_event(m, EVENT_ORDER_EXPIRED, order);
    struct model_user *u = &m->users[o->user];
    if (d->strikes_max == 0 || ++u->strikes < d->strikes_max) {
        return;
    }
    u->strikes = 0;
    int64_t until = d->denial_ms == 0 ? 0 : m->time + (int64_t)d->denial_ms;
    bool lasts_longer = u->denied && (u->until == 0 || (until != 0 && until <= u->until));
    if (!lasts_longer) {
        u->denied = true;
        u->until = until;
        strcpy(u->reason, "unpaid");
    }
}

static bool end_one(struct model *m)
{
    int best = -1, kind = -1;
    int64_t due = INT64_MAX;
    uint32_t slot = 0;
    for (int i = 0; i < m->orders_count; i++) {
        const struct model_order *o = &m->orders[i];
        if (o->status == ORDER_PENDING_PAYMENT &&
            (o->pay_by < due || (o->pay_by == due && kind == 0 && o->slot < slot))) {
            best = i, kind = 0, due = o->pay_by, slot = o->slot;
        }
    }
    for (int i = 0; i < m->leases_count; i++) {
        const struct model_lease *l = &m->leases[i];
        if (!l->gone && (l->expires < due || (l->expires == due && kind == 1 && l->slot < slot))) {
            best = i, kind = 1, due = l->expires, slot = l->slot;
        }
    }
    for (int i = 0; i < m->users_count; i++) {
        const struct model_user *u = &m->users[i];
        if (u->denied && u->until != 0 &&
            (u->until < due || (u->until == due && kind == 2 && u->slot < slot))) {
            best = i, kind = 2, due = u->until, slot = u->slot;
        }
    }
    if (best < 0 || due > m->time) {
        return false;
    }
    if (kind == 0) {
        model_expire(m, best);
    } else if (kind == 1) {
        m->leases[best].gone = true;
        model_slot_give(&m->lease_slots, m->leases[best].slot);
    } else {
        m->users[best].denied = false;
        m->users[best].until = 0;
        model_user_sync(m, best);
    }
    return true;
}

/* ---- leaving memory ---- */

static int first_order_to_retire(const struct model *m)
{
    int best = -1;
    for (int i = 0; i < m->orders_count; i++) {
        const struct model_order *o = &m->orders[i];
        if (o->gone || o->status == ORDER_PENDING_PAYMENT) {
            continue;
        }
        if (best < 0 || o->due < m->orders[best].due ||
            (o->due == m->orders[best].due && o->slot < m->orders[best].slot)) {
            best = i;
        }
    }
    return best >= 0 && m->orders[best].last_event < m->events_first ? best : -1;
}

static int first_answer_to_retire(const struct model *m)
{
    int best = -1;
    for (int i = 0; i < m->answers_count; i++) {
        const struct model_answer *a = &m->answers[i];
        if (!a->gone && a->order < 0 &&
            (best < 0 || a->due < m->answers[best].due ||
             (a->due == m->answers[best].due && a->slot < m->answers[best].slot))) {
            best = i;
        }
    }
    return best;
}

static int first_sale_to_retire(const struct model *m)
{
    int best = -1;
    for (int i = 0; i < m->sales_count; i++) {
        const struct model_sale *s = &m->sales[i];
        if (!s->parked && !s->retired && (best < 0 || s->due < m->sales[best].due)) {
            best = i;
        }
    }
    return best;
}

static bool members_needed(const struct model *m, int sale)
{
    for (int i = 0; i < m->orders_count; i++) {
        if (!m->orders[i].gone && m->orders[i].sale == sale) {
            return true;
        }
    }
    for (int i = 0; i < m->members_count; i++) {
        if (m->members[i].sale == sale && m->members[i].last_event >= m->events_first) {
            return true;
        }
    }
    return false;
}

static void retire_order(struct model *m, int order)
{
    struct model_order *o = &m->orders[order];
    int64_t due = model_retention_end(m, o->sale, o->changed);
    if (due > m->time) {
        o->due = due;
        return;
    }
    o->gone = true;
    model_slot_give(&m->order_slots, o->slot);
    for (int i = 0; i < m->answers_count; i++) {
        if (m->answers[i].order == order) {
            m->answers[i].gone = true;
        }
    }
    struct model_sale *s = &m->sales[o->sale];
    if (s->parked && !members_needed(m, o->sale)) {
        s->parked = false;
        s->due = m->time;
    }
}

static void retire_answer(struct model *m, int answer)
{
    struct model_answer *a = &m->answers[answer];
    if (a->sale >= 0 && model_retention_end(m, a->sale, 0) > m->time) {
        a->due = model_retention_end(m, a->sale, 0);
        return;
    }
    a->gone = true;
    model_slot_give(&m->answer_slots, a->slot);
}

static void retire_sale(struct model *m, int sale)
{
    struct model_sale *s = &m->sales[sale];
    if (members_needed(m, sale)) {
        s->parked = true;
        return;
    }
    for (int i = m->members_count; i-- > 0;) { /* newest first */
        struct model_member *x = &m->members[i];
        if (x->sale == sale && !x->gone) {
            x->gone = true;
            model_user_sync(m, x->user);
            return;
        }
    }
    s->retired = true;
}

static bool retire_one(struct model *m)
{
    int order = first_order_to_retire(m), answer = first_answer_to_retire(m);
    int sale = first_sale_to_retire(m);
    int64_t order_due = order >= 0 ? m->orders[order].due : INT64_MAX;
    int64_t answer_due = answer >= 0 ? m->answers[answer].due : INT64_MAX;
    int64_t sale_due = sale >= 0 ? m->sales[sale].due : INT64_MAX;
    if (order_due <= m->time && order_due <= answer_due && order_due <= sale_due) {
        retire_order(m, order);
    } else if (answer_due <= m->time && answer_due <= sale_due) {
        retire_answer(m, answer);
    } else if (sale_due <= m->time) {
        retire_sale(m, sale);
    } else {
        return false;
    }
    return true;
}

bool model_has_room(const struct model *m)
{
    return m->users_count < MODEL_USERS_MAX - 16 && m->members_count < MODEL_MEMBERS_MAX - 64 &&
           m->orders_count < MODEL_ORDERS_MAX - 64 && m->answers_count < MODEL_ANSWERS_MAX - 64 &&
           m->leases_count < MODEL_LEASES_MAX - 64 && m->events_next < MODEL_EVENTS_MAX - 512;
}

int64_t model_next_due(const struct model *m)
{
    int64_t due = INT64_MAX;
    for (int i = 0; i < m->orders_count; i++) {
        const struct model_order *o = &m->orders[i];
        due = o->status == ORDER_PENDING_PAYMENT && o->pay_by < due ? o->pay_by : due;
    }
    for (int i = 0; i < m->leases_count; i++) {
        due = !m->leases[i].gone && m->leases[i].expires < due ? m->leases[i].expires : due;
    }
    for (int i = 0; i < m->users_count; i++) {
        const struct model_user *u = &m->users[i];
        due = u->denied && u->until != 0 && u->until < due ? u->until : due;
    }
    int order = first_order_to_retire(m), answer = first_answer_to_retire(m);
    int sale = first_sale_to_retire(m);
    due = order >= 0 && m->orders[order].due < due ? m->orders[order].due : due;
    due = answer >= 0 && m->answers[answer].due < due ? m->answers[answer].due : due;
    due = sale >= 0 && m->sales[sale].due < due ? m->sales[sale].due : due;
    return due;
}

void model_init(struct model *m, const struct command_limits *limits, uint32_t shards)
{
    m->limits = *limits;
    m->shards = shards;
    m->events_first = 1;
    m->events_next = 1;
}

void model_begin_batch(struct model *m, uint64_t index, int64_t time_ms)
{
    m->index = index;
    m->time = time_ms > m->time ? time_ms : m->time;
    model_trim(m);
    for (uint32_t i = 0; i < m->limits.expiries_per_batch_max && end_one(m); i++) {
    }
    for (uint32_t i = 0; i < m->limits.expiries_per_batch_max && retire_one(m); i++) {
    }
}
