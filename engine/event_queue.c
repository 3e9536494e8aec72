/* The queue of events that PostgreSQL is fed from: a ring [first, next) of sequence numbers without
 * holes, and for each shard how far it is persisted. The front is dropped when its shard has it; one
 * slow shard holds back the ring, not the other shards' progress.
 *
 * Room. The end of a pending order (paid in time, cancelled, expired) cannot be refused, so its event
 * has a place kept from the moment the order is placed: used + pending orders ≤ events_max, always.
 * Of what is left, a sixteenth is kept for payments that are late or rejected (money came, it must be
 * told); new orders, eligibilities and refunds are refused with BACKLOG_FULL before they touch that
 * margin, payments when it is used up. So events_max bounds unpaid orders, too: choose it above their
 * largest number. */
#include "engine/parts.h"

#include "proto/order_id.h"

#define PAYMENT_MARGIN_SHARE 16

int64_t event_room(const struct engine *e)
{
    const struct root *r = e->root;
    return (int64_t)r->events_max - (int64_t)(r->event_next - r->event_first) -
           (int64_t)r->orders_pending;
}

bool event_room_for(const struct engine *e, int64_t events)
{
    return event_room(e) >= events + e->root->events_max / PAYMENT_MARGIN_SHARE;
}

static uint32_t ring_slot(const struct engine *e, uint64_t sequence)
{
    return (uint32_t)(sequence % e->root->events_max);
}

struct event *event_add(struct engine *e, enum event_kind kind, uint32_t shard)
{
    struct root *r = e->root;
    CHECK(r->event_next - r->event_first < r->events_max);
    struct event *v = event_edit(e, ring_slot(e, r->event_next));
    r->event_next++;
    v->index = r->index;
    v->time_ms = r->time_ms;
    v->kind = (uint8_t)kind;
    v->shard = (uint16_t)shard;
    return v;
}

struct event *event_add_order(struct engine *e, enum event_kind kind, uint32_t slot)
{
    struct order *o = order_edit(e, slot);
    struct event *v = event_add(e, kind, order_id_shard(o->id));
    o->last_event = e->root->event_next - 1;
    v->order = slot;
    v->status = o->status;
    v->version = o->version;
    memcpy(v->currency, o->currency, sizeof v->currency);
    return v;
}

bool event_trimmable(const struct engine *e)
{
    const struct root *r = e->root;
    if (r->event_first == r->event_next) {
        return false;
    }
    const struct event *v = event_at(e, ring_slot(e, r->event_first));
    return watermark_at(e, v->shard)->acked >= r->event_first;
}

void event_trim(struct engine *e, uint32_t events_max)
{
    for (uint32_t i = 0; i < events_max && event_trimmable(e); i++) {
        struct event *v = event_edit(e, ring_slot(e, e->root->event_first));
        uint32_t sale = v->member != 0 ? member_at(e, v->member)->sale : 0;
        text_drop(e, v->text);
        memset(v, 0, sizeof *v);
        e->root->event_first++;
        if (sale != 0) {
            sale_unpark(e, sale);
        }
    }
}

enum result persist_ack(struct engine *e, const struct command *c, struct reply *r)
{
    (void)r;
    for (uint32_t i = 0; i < c->persist_ack.count; i++) {
        const struct command_ack *a = &c->persist_ack.acks[i];
        if (a->shard >= e->root->shards || a->sequence >= e->root->event_next) {
            return RESULT_INVALID;
        }
    }

    /* Must succeed from here. */
    for (uint32_t i = 0; i < c->persist_ack.count; i++) {
        const struct command_ack *a = &c->persist_ack.acks[i];
        if (a->sequence > watermark_at(e, a->shard)->acked) {
            watermark_edit(e, a->shard)->acked = a->sequence;
        }
    }
    event_trim(e, EVENTS_TRIM_MAX);
    return RESULT_OK;
}

/* ---- reading ---- */

const char *event_kind_name(enum event_kind k)
{
    static const char *const names[] = {
        "unknown",           "order.placed",     "order.paid",
        "order.cancelled",   "order.expired",    "order.refund_due",
        "order.refunded",    "eligibility.granted", "eligibility.revoked",
        "payment.rejected",
    };
    return (unsigned)k < ARRAY_COUNT(names) ? names[k] : names[0];
}

uint64_t engine_events_first(const struct engine *e)
{
    return e->root->event_first;
}

uint64_t engine_events_next(const struct engine *e)
{
    return e->root->event_next;
}

uint64_t engine_events_acked(const struct engine *e, uint32_t shard)
{
    return shard < e->root->shards ? watermark_at(e, shard)->acked : 0;
}

static void view_event(const struct engine *e, uint64_t sequence, struct event_view *out)
{
    const struct event *v = event_at(e, ring_slot(e, sequence));
    memset(out, 0, sizeof *out);
    out->sequence = sequence;
    out->index = v->index;
    out->time_ms = v->time_ms;
    out->kind = (enum event_kind)v->kind;
    out->shard = v->shard;
    out->status = (enum order_status)v->status;
    out->version = v->version;
    out->amount = v->amount;
    memcpy(out->currency, v->currency, sizeof out->currency);
    out->restocked = v->restocked != 0;
    if (v->member != 0) {
        const struct member *m = member_at(e, v->member);
        out->sale = sale_id(sale_at(e, m->sale));
        out->user = user_id(e, user_at(e, m->user));
        return;
    }
    CHECK(engine_get_order(e, order_at(e, v->order)->id, &out->order));
    out->sale = out->order.sale;
    out->user = out->order.user;
    if (out->kind == EVENT_ORDER_REFUNDED) {
        out->reason = text_get(e, v->text);
    } else {
        out->payment = text_get(e, v->text);
    }
    if (out->kind == EVENT_PAYMENT_REJECTED) {
        out->reason = str_from(result_code((enum result)v->result));
    }
}

size_t engine_read_events(const struct engine *e, uint64_t sequence, struct event_view *out,
                          size_t max)
{
    if (sequence < e->root->event_first) {
        sequence = e->root->event_first;
    }
    size_t count = 0;
    for (; count < max && sequence < e->root->event_next; count++, sequence++) {
        view_event(e, sequence, &out[count]);
    }
    return count;
}
