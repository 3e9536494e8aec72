/* See event_source.h. */
#include "event_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/prng.h"
#include "proto/order_id.h"
#include "proto/shard.h"

#define START_MS 1795359600000ll /* 2026-11-22 */

/* What people write: other scripts, quotes, backslashes, control characters, what looks like SQL,
 * and a NUL, which PostgreSQL cannot store. */
static const struct str reasons[] = {
    {"", 0},
    {"damaged", 7},
    {"\xE5\x8F\x96\xE6\xB6\x88 \xF0\x9F\x98\x80 \xC3\xA9", 14},
    {"it's \"quoted\" \\ and {curly}, NULL", 33},
    {"line\nbreak\ttab\x01"
     "control\x7F",
     23},
    {"'); DROP TABLE holdfast.orders; --", 34},
    {"nul\0inside", 10},
};

static void user_name(uint32_t number, char out[static ID_SIZE_MAX + 1])
{
    /* Identifiers that would be special if anybody forgot to quote them. */
    static const char *const prefixes[] = {"user-", "NULL|", "a.b:c@d+e~f-", ""};
    snprintf(out, ID_SIZE_MAX + 1, "%s%u", prefixes[number % 4], number);
}

static void place(struct event_source *s, struct prng *p, struct source_event *e, uint32_t position,
                  bool only_orders)
{
    struct source_order *o = &s->orders[s->orders_count];
    *o = (struct source_order){
        .index = e->index,
        .version = 1,
        .created_ms = e->time_ms,
        .pay_by_ms = e->time_ms + (int64_t)prng_below(p, 900000),
        .lines_count =
            only_orders ? 1 : 1 + (uint32_t)prng_below(p, prng_one_in(p, 20) ? ORDER_LINES_MAX : 3),
        .seed = (uint32_t)prng_next(p),
        .status = ORDER_PENDING_PAYMENT,
        .amount = 1 + (int64_t)prng_below(p, 10000000),
    };
    if (only_orders) {
        snprintf(o->user, sizeof o->user, "user-%08u", (uint32_t)prng_below(p, 90000000));
    } else {
        user_name((uint32_t)prng_below(p, 5000), o->user);
    }
    o->shard = shard_of_user(str_from(o->user), s->shards);
    o->id = order_id_make(o->index, position, o->shard);
    e->kind = EVENT_ORDER_PLACED;
    e->order = (uint32_t)s->orders_count++;
}

/* The next thing that can happen to an order. Returns false when nothing can. */
static bool change(struct source_order *o, struct prng *p, struct source_event *e)
{
    bool one = prng_one_in(p, 2);
    switch (o->status) {
    case ORDER_PENDING_PAYMENT:
        e->kind = one                 ? EVENT_ORDER_PAID
                  : prng_one_in(p, 2) ? EVENT_ORDER_CANCELLED
                                      : EVENT_ORDER_EXPIRED;
        o->status = one                                ? ORDER_PAID
                    : e->kind == EVENT_ORDER_CANCELLED ? ORDER_CANCELLED
                                                       : ORDER_EXPIRED;
        break;
    case ORDER_EXPIRED:
        e->kind = one ? EVENT_ORDER_PAID : EVENT_ORDER_REFUND_DUE;
        o->status = one ? ORDER_PAID : ORDER_REFUND_DUE;
        break;
    case ORDER_PAID:
    case ORDER_REFUND_DUE:
        if (prng_one_in(p, 4)) {
            e->kind = EVENT_PAYMENT_REJECTED;
            e->reason = (uint8_t)(1 + prng_below(p, ARRAY_COUNT(reasons) - 1));
            return true; /* changes no order */
        }
        e->kind = EVENT_ORDER_REFUNDED;
        e->restocked = one;
        e->reason = (uint8_t)prng_below(p, ARRAY_COUNT(reasons));
        o->status = ORDER_REFUNDED;
        break;
    case ORDER_NONE:
    case ORDER_CANCELLED:
    case ORDER_REFUNDED:
        return false;
    }
    o->version++;
    return true;
}

void event_source_init(struct event_source *s, uint64_t seed, uint32_t shards, size_t count,
                       bool only_orders)
{
    struct prng p = prng_init(seed);
    *s = (struct event_source){
        .shards = shards,
        .count = count,
        .events = calloc(count, sizeof *s->events),
        .orders = calloc(count, sizeof *s->orders),
    };
    CHECK(s->events != NULL && s->orders != NULL);
    uint64_t index = 10;
    uint32_t position = 0;
    int64_t time_ms = START_MS;
    for (size_t i = 0; i < count; i++) {
        if (position + 1 == BATCH_COMMANDS_MAX || prng_one_in(&p, 40)) {
            index += 1 + prng_below(&p, 3);
            position = 0;
            time_ms += (int64_t)prng_below(&p, 50);
        }
        struct source_event *e = &s->events[i];
        *e = (struct source_event){
            .index = index, .time_ms = time_ms, .amount = 1 + (int64_t)prng_below(&p, 100000)};
        uint64_t dice = only_orders ? 0 : prng_below(&p, 10);
        bool changed = false;
        if (dice >= 4 && dice < 8 && s->orders_count > 0) { /* recent orders mostly: same batch */
            uint64_t back = prng_below(&p, prng_one_in(&p, 3) ? s->orders_count : 50);
            back = back < s->orders_count ? back : 0;
            e->order = (uint32_t)(s->orders_count - 1 - back);
            changed = change(&s->orders[e->order], &p, e);
        } else if (dice >= 8) {
            char user[ID_SIZE_MAX + 1];
            e->kind = prng_one_in(&p, 3) ? EVENT_ELIGIBILITY_REVOKED : EVENT_ELIGIBILITY_GRANTED;
            e->user = (uint32_t)prng_below(&p, 300);
            user_name(e->user, user);
            e->shard = shard_of_user(str_from(user), shards);
            continue;
        }
        if (!changed) {
            place(s, &p, e, position++, only_orders);
        }
        const struct source_order *o = &s->orders[e->order];
        e->shard = o->shard;
        e->status = o->status;
        e->version = o->version;
    }
}

void event_source_close(struct event_source *s)
{
    free(s->events);
    free(s->orders);
}

void event_source_read(const struct event_source *s, uint64_t sequence, struct event_view *out)
{
    static char users[64][ID_SIZE_MAX + 1], payments[64][32];
    static const struct str skus[] = {{"sku-red", 7}, {"sku-blue.XL", 11}, {"NULL", 4}, {"s", 1}};
    CHECK(sequence >= 1 && sequence <= s->count);
    const struct source_event *e = &s->events[sequence - 1];
    *out = (struct event_view){
        .sequence = sequence,
        .index = e->index,
        .time_ms = e->time_ms,
        .kind = e->kind,
        .shard = e->shard,
        .status = e->status,
        .version = e->version,
        .sale = STR_LITERAL("sale-2026"),
        .restocked = e->restocked,
        .reason = reasons[e->reason],
    };
    if (e->kind == EVENT_ELIGIBILITY_GRANTED || e->kind == EVENT_ELIGIBILITY_REVOKED) {
        user_name(e->user, users[sequence % 64]);
        out->user = str_from(users[sequence % 64]);
        return;
    }
    const struct source_order *o = &s->orders[e->order];
    out->user = str_from(o->user);
    out->order = (struct order_view){
        .id = o->id,
        .version = o->version, /* of now, as the engine's */
        .sale = out->sale,
        .user = out->user,
        .status = o->status,
        .currency = "EUR",
        .amount = o->amount,
        .created_ms = o->created_ms,
        .pay_by_ms = o->pay_by_ms,
        .created_index = o->index,
        .lines_count = o->lines_count,
    };
    for (uint32_t i = 0; i < o->lines_count; i++) {
        out->order.lines[i] = (struct line_view){
            .sku = skus[(o->seed + i) % ARRAY_COUNT(skus)],
            .quantity = 1 + (o->seed >> i) % 9,
            .unit_price = o->seed % 100000 + i,
        };
    }
    if (e->kind == EVENT_ORDER_PAID || e->kind == EVENT_ORDER_REFUND_DUE ||
        e->kind == EVENT_PAYMENT_REJECTED) {
        int n = snprintf(payments[sequence % 64], sizeof payments[0], "evt-%llu",
                         (unsigned long long)sequence);
        out->payment = (struct str){payments[sequence % 64], (uint32_t)n};
        out->amount = e->amount;
        memcpy(out->currency, "USD", 4);
    }
}
