/* engine_check: every invariant that one state shows, by a full scan. For tests, the simulator and
 * `holdfastctl audit`; it allocates scratch memory for its sums and takes time in the size of the state.
 *
 * What it recomputes from the orders (and compares): reserved and sold of each SKU, orders and units of
 * each member, orders and rights of each sale, pending orders, records of lines and texts. Then that
 * maps, queues, chains and free lists hold exactly the records that are alive. */
#include <stdarg.h>
#include <stdio.h>

#include "engine/parts.h"
#include "proto/order_id.h"

struct audit {
    const struct engine *e;
    uint64_t violations;
    char *text;
    size_t size;
    struct memory scratch;
    int64_t *reserved, *sold;              /* by SKU */
    uint32_t *member_orders, *member_units; /* by member */
    uint32_t *sale_orders;                 /* by sale */
    uint64_t *sale_granted;
    uint32_t texts[TEXT_CLASSES];
    uint32_t lines;
    uint32_t pending;
};

static void __attribute__((format(printf, 3, 4)))
expect(struct audit *a, bool ok, const char *format, ...)
{
    if (ok) {
        return;
    }
    if (a->violations++ == 0 && a->size > 0) {
        va_list args;
        va_start(args, format);
        vsnprintf(a->text, a->size, format, args);
        va_end(args);
    }
}

static uint32_t used_max(const struct audit *a, enum table_id id)
{
    return a->e->root->slabs[id].used_max;
}

static void scratch_place(struct audit *a)
{
    size_t skus = used_max(a, TABLE_SKU) + 1, members = used_max(a, TABLE_MEMBER) + 1;
    size_t sales = used_max(a, TABLE_SALE) + 1;
    a->reserved = memory_take(&a->scratch, skus, sizeof *a->reserved);
    a->sold = memory_take(&a->scratch, skus, sizeof *a->sold);
    a->member_orders = memory_take(&a->scratch, members, sizeof *a->member_orders);
    a->member_units = memory_take(&a->scratch, members, sizeof *a->member_units);
    a->sale_orders = memory_take(&a->scratch, sales, sizeof *a->sale_orders);
    a->sale_granted = memory_take(&a->scratch, sales, sizeof *a->sale_granted);
}

static void count_text(struct audit *a, uint32_t reference)
{
    if (reference != 0) {
        a->texts[reference >> 30]++;
        expect(a, text_get(a->e, reference).len > 0, "text %#x is referred to but free", reference);
    }
}

static bool map_has(const struct map *m, uint64_t hash, uint32_t slot)
{
    uint32_t found;
    for (struct map_walk w = map_find(m, hash); (found = map_next(&w)) != 0;) {
        if (found == slot) {
            return true;
        }
    }
    return false;
}

static bool heap_has(const struct due_heap *h, uint32_t slot, int64_t due)
{
    uint32_t place = h->place[slot];
    if (place == 0 || place > h->count) {
        return false;
    }
    ptrdiff_t i = (ptrdiff_t)(place - 1) * h->step;
    return h->slot[i] == slot && h->due[i] == due;
}

static void check_heap(struct audit *a, const struct due_heap *h, const char *name)
{
    for (uint32_t i = 1; i < h->count; i++) {
        ptrdiff_t child = (ptrdiff_t)i * h->step, parent = (ptrdiff_t)((i - 1) / 4) * h->step;
        bool ordered = h->due[parent] < h->due[child] ||
                       (h->due[parent] == h->due[child] && h->slot[parent] < h->slot[child]);
        expect(a, ordered, "queue of %s is out of order at %u", name, i);
    }
}

static void check_order(struct audit *a, uint32_t slot, const struct order *o)
{
    const struct engine *e = a->e;
    const struct member *m = member_at(e, o->member);
    bool pending = o->status == ORDER_PENDING_PAYMENT;
    bool counted = pending || o->status == ORDER_PAID;
    expect(a, m->sale != 0, "order %#lx has no member", (unsigned long)o->id);
    expect(a, o->status >= ORDER_PENDING_PAYMENT && o->status <= ORDER_REFUNDED,
           "order %#lx has status %u", (unsigned long)o->id, o->status);
    struct order_line lines[ORDER_LINES_MAX];
    uint32_t count = order_lines(e, o, lines);
    int64_t amount = 0;
    uint32_t units = 0;
    for (uint32_t i = 0; i < count; i++) {
        amount += lines[i].unit_price * (int64_t)lines[i].quantity;
        units += lines[i].quantity;
        a->reserved[lines[i].sku] += pending ? lines[i].quantity : 0;
        a->sold[lines[i].sku] += o->status == ORDER_PAID ? lines[i].quantity : 0;
    }
    a->lines += count > 1 ? (count + LINES_PER_RECORD - 1) / LINES_PER_RECORD : 0;
    expect(a, amount == o->amount && count == o->lines_count, "order %#lx does not add up",
           (unsigned long)o->id);
    a->member_orders[o->member] += counted ? 1 : 0;
    a->member_units[o->member] += counted ? units : 0;
    a->sale_orders[m->sale]++;
    a->pending += pending ? 1 : 0;
    expect(a, map_has(&e->orders, order_hash(e, o->id), slot), "order %#lx is unmapped",
           (unsigned long)o->id);
    expect(a, map_has(&e->keys, o->key_low, slot), "key of order %#lx is unmapped",
           (unsigned long)o->id);
    expect(a, heap_has(pending ? &e->pending : &e->retiring, slot, o->due_ms),
           "order %#lx is in no queue", (unsigned long)o->id);
    expect(a, !pending || o->due_ms == o->pay_by_ms, "deadline of order %#lx",
           (unsigned long)o->id);
    expect(a, o->last_event != 0 && o->last_event < e->root->event_next, "events of order %#lx",
           (unsigned long)o->id);
}

static void check_orders(struct audit *a)
{
    const struct engine *e = a->e;
    uint32_t live = 0;
    for (uint32_t i = 1; i <= used_max(a, TABLE_ORDER); i++) {
        if (order_at(e, i)->id != 0) {
            live++;
            check_order(a, i, order_at(e, i));
        }
    }
    expect(a, live == slab_live(e, TABLE_ORDER) && live == e->orders.count, "%u orders", live);
    expect(a, e->pending.count == a->pending && e->pending.count + e->retiring.count == live,
           "%u orders are due", e->pending.count);
    expect(a, a->pending == e->root->orders_pending, "%u orders are pending", a->pending);
    expect(a, a->lines == slab_live(e, TABLE_LINES), "%u records of lines", a->lines);
}

static void check_skus(struct audit *a)
{
    const struct engine *e = a->e;
    for (uint32_t i = 1; i <= used_max(a, TABLE_SKU); i++) {
        const struct sku *s = sku_at(e, i);
        expect(a, s->available + s->reserved + s->sold == s->received, "SKU %.*s does not add up",
               s->id_size, s->id);
        expect(a, s->reserved == a->reserved[i], "SKU %.*s: reserved is not what orders hold",
               s->id_size, s->id);
        expect(a, s->sold == a->sold[i] + s->sold_retired, "SKU %.*s: sold is not what was paid",
               s->id_size, s->id);
        expect(a, s->available >= -(int64_t)s->oversell_allowance, "SKU %.*s is oversold",
               s->id_size, s->id);
        expect(a, map_has(&e->skus, hash_str(&e->secret, sku_id(s)), i), "SKU %.*s is unmapped",
               s->id_size, s->id);
    }
    expect(a, used_max(a, TABLE_SKU) == e->skus.count, "%u SKUs are mapped", e->skus.count);
}

static void check_member(struct audit *a, uint32_t slot, const struct member *m)
{
    const struct engine *e = a->e;
    expect(a, user_at(e, m->user)->id_size > 0, "member %u has no user", slot);
    expect(a, m->orders == a->member_orders[slot], "member %u: orders", slot);
    expect(a, m->units == a->member_units[slot], "member %u: units", slot);
    expect(a, map_has(&e->members, hash_pair(&e->secret, m->sale, m->user), slot),
           "member %u is unmapped", slot);
    a->sale_granted[m->sale] += (m->flags & MEMBER_GRANTED) != 0 ? 1 : 0;
    for (uint32_t o = m->newest_order, newer = 0; o != 0; newer = o, o = order_at(e, o)->older) {
        expect(a, order_at(e, o)->member == slot && order_at(e, o)->newer == newer,
               "member %u: chain of orders", slot);
    }
}

static void check_users(struct audit *a)
{
    const struct engine *e = a->e;
    uint32_t users = 0, members = 0, ends = 0, in_chains = 0, denied = 0;
    for (uint32_t i = 1; i <= used_max(a, TABLE_MEMBER); i++) {
        if (member_at(e, i)->sale != 0) {
            members++;
            check_member(a, i, member_at(e, i));
        }
    }
    for (uint32_t i = 1; i <= used_max(a, TABLE_USER); i++) {
        const struct user *u = user_at(e, i);
        if (u->id_size == 0) {
            continue;
        }
        users++;
        expect(a, map_has(&e->users, hash_str(&e->secret, user_id(e, u)), i), "user %u unmapped", i);
        expect(a, u->members != 0 || u->strikes != 0 || u->denied != 0, "user %u is idle", i);
        for (uint32_t m = u->members; m != 0; m = member_at(e, m)->user_next) {
            in_chains++;
            expect(a, member_at(e, m)->user == i, "user %u: chain of members", i);
        }
        count_text(a, u->id_size > USER_ID_INLINE ? u->id_text : 0);
        count_text(a, u->reason);
        denied += u->denied;
        if (u->denied != 0 && u->denied_until_ms != 0) {
            ends++;
            expect(a, heap_has(&e->denial_ends, i, u->denied_until_ms), "denial of user %u", i);
        }
    }
    expect(a, members == slab_live(e, TABLE_MEMBER) && members == e->members.count &&
                  members == in_chains, "%u members", members);
    expect(a, users == slab_live(e, TABLE_USER) && users == e->users.count, "%u users", users);
    expect(a, ends == e->denial_ends.count && denied == e->denied_users, "%u denials end", ends);
}

static void check_sales(struct audit *a)
{
    const struct engine *e = a->e;
    uint32_t ends = 0, in_chains = 0;
    for (uint32_t i = 1; i <= used_max(a, TABLE_SALE); i++) {
        const struct sale *s = sale_at(e, i);
        expect(a, s->orders_in_memory == a->sale_orders[i], "sale %.*s: orders", s->id_size, s->id);
        bool swept = sale_retention_end(e, i, 0) <= e->root->time_ms;
        expect(a, swept || s->eligibilities_granted == a->sale_granted[i], "sale %.*s: rights",
               s->id_size, s->id);
        expect(a, s->eligibility_limit == 0 || s->version > 1 ||
                      s->eligibilities_granted <= s->eligibility_limit,
               "sale %.*s: too many rights", s->id_size, s->id);
        for (uint32_t m = s->members; m != 0; m = member_at(e, m)->sale_next) {
            in_chains++;
            expect(a, member_at(e, m)->sale == i, "sale %.*s: chain", s->id_size, s->id);
        }
        if (s->due_ms < SALE_PARKED) {
            ends++;
            expect(a, heap_has(&e->sale_ends, i, s->due_ms), "sale %.*s: end", s->id_size, s->id);
        }
        expect(a, map_has(&e->sales, hash_str(&e->secret, sale_id(s)), i), "sale %.*s is unmapped",
               s->id_size, s->id);
    }
    expect(a, in_chains == slab_live(e, TABLE_MEMBER), "%u members in sales", in_chains);
    expect(a, ends == e->sale_ends.count && used_max(a, TABLE_SALE) == e->sales.count,
           "%u sales end", ends);
}

static void check_events(struct audit *a)
{
    const struct engine *e = a->e;
    const struct root *r = e->root;
    uint64_t used = r->event_next - r->event_first;
    expect(a, used + r->orders_pending <= r->events_max, "no room for the ends of %u orders",
           r->orders_pending);
    for (uint64_t i = r->event_first; i < r->event_next; i++) {
        const struct event *v = event_at(e, (uint32_t)(i % r->events_max));
        expect(a, v->kind >= EVENT_ORDER_PLACED && v->kind <= EVENT_PAYMENT_REJECTED,
               "event %lu has kind %u", (unsigned long)i, v->kind);
        expect(a, v->member != 0 ? member_at(e, v->member)->sale != 0
                                 : order_at(e, v->order)->id != 0 &&
                                       order_at(e, v->order)->last_event >= i,
               "event %lu is about nothing", (unsigned long)i);
        count_text(a, v->text);
    }
    for (uint32_t i = 0; i < r->shards; i++) {
        expect(a, watermark_at(e, i)->acked < r->event_next, "watermark of shard %u", i);
    }
}

static void check_answers_and_leases(struct audit *a)
{
    const struct engine *e = a->e;
    uint32_t answers = 0, leases = 0;
    for (uint32_t i = 1; i <= used_max(a, TABLE_ANSWER); i++) {
        const struct answer *x = answer_at(e, i);
        if (x->live != 0) {
            answers++;
            expect(a, map_has(&e->keys, x->key_low, e->root->orders_max + i) &&
                          heap_has(&e->answer_ends, i, x->due_ms), "answer %u", i);
        }
    }
    for (uint32_t i = 1; i <= used_max(a, TABLE_LEASE); i++) {
        const struct lease *l = lease_at(e, i);
        if (l->token != 0) {
            leases++;
            struct str name = {l->name, l->name_size};
            expect(a, map_has(&e->leases, hash_str(&e->secret, name), i) &&
                          heap_has(&e->lease_ends, i, l->expires_ms) &&
                          l->token <= e->root->lease_token, "lease %u", i);
        }
    }
    expect(a, answers == slab_live(e, TABLE_ANSWER) && answers == e->answer_ends.count &&
                  e->keys.count == answers + slab_live(e, TABLE_ORDER), "%u answers", answers);
    expect(a, leases == slab_live(e, TABLE_LEASE) && leases == e->lease_ends.count &&
                  leases == e->leases.count, "%u leases", leases);
}

/* A free record is zero but for its link, and the free list has all that are not alive. */
static void check_slab(struct audit *a, enum table_id id)
{
    const struct engine *e = a->e;
    const struct slab *s = &e->root->slabs[id];
    const struct table *t = &e->tables.table[id];
    uint32_t count = 0;
    for (uint32_t slot = s->free; slot != 0 && count <= s->used_max; count++) {
        const uint8_t *record = table_at(t, slot);
        uint32_t offset = slab_link_offset(id), zero = 0;
        for (uint32_t i = 0; i < t->record_size; i++) {
            zero += (i >= offset && i < offset + 4) || record[i] == 0 ? 1 : 0;
        }
        expect(a, zero == t->record_size, "table %u: free record %u is not empty", id, slot);
        memcpy(&slot, record + offset, sizeof slot);
    }
    expect(a, count == s->used_max - s->live, "table %u: %u records in the free list", id, count);
}

static void check_tables(struct audit *a)
{
    const struct engine *e = a->e;
    static const enum table_id slabs[] = {TABLE_USER,   TABLE_MEMBER, TABLE_ORDER,
                                          TABLE_LINES,  TABLE_ANSWER, TABLE_LEASE,
                                          TABLE_TEXT,   TABLE_TEXT + 1, TABLE_TEXT + 2,
                                          TABLE_TEXT + 3};
    for (size_t i = 0; i < ARRAY_COUNT(slabs); i++) {
        check_slab(a, slabs[i]);
    }
    for (unsigned i = 0; i < TEXT_CLASSES; i++) {
        expect(a, a->texts[i] == slab_live(e, (enum table_id)(TABLE_TEXT + i)),
               "%u texts of class %u are referred to", a->texts[i], i);
    }
    for (int i = 0; i < TABLE_COUNT; i++) {
        const struct table *t = &e->tables.table[i];
        uint64_t records = i == TABLE_ROOT    ? 1
                           : i == TABLE_OFFER ? (used_max(a, TABLE_SALE) + 1ull) * SALE_OFFERS_MAX
                           : i == TABLE_EVENT ? e->root->event_next
                           : i == TABLE_WATERMARK ? e->root->shards
                                                  : e->root->slabs[i].used_max + 1ull;
        uint64_t blocks = (records >> t->shift) + 1;
        uint32_t changed = table_count_unmarked(
            t, blocks < t->blocks_max ? (uint32_t)blocks : t->blocks_max);
        expect(a, changed == 0, "table %d: %u blocks changed behind table_edit", i, changed);
    }
}

uint64_t engine_check(const struct engine *e, char *text, size_t size)
{
    struct audit a = {.e = e, .text = text, .size = size};
    if (size > 0) {
        text[0] = '\0';
    }
    if (e->root->initialized == 0) {
        return 0;
    }
    scratch_place(&a);
    memory_reserve(&a.scratch);
    scratch_place(&a);
    check_orders(&a);
    check_skus(&a);
    check_users(&a);
    check_sales(&a);
    check_events(&a);
    check_answers_and_leases(&a);
    check_heap(&a, &e->pending, "reservations");
    check_heap(&a, &e->retiring, "finished orders");
    check_heap(&a, &e->lease_ends, "leases");
    check_heap(&a, &e->denial_ends, "denials");
    check_heap(&a, &e->answer_ends, "answers");
    check_heap(&a, &e->sale_ends, "sales");
    check_tables(&a);
    memory_release(&a.scratch);
    return a.violations;
}
