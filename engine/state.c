/* Lays the state out and takes and gives records. */
#include "engine/state.h"

#include "engine/parts.h"

/* Size classes of texts, one length byte included. The last holds the longest key. */
static const uint32_t text_sizes[TEXT_CLASSES] = {16, 32, 64, 136};
_Static_assert(KEY_SIZE_MAX + 1 <= 136 && REASON_SIZE_MAX + 1 <= 136,
               "the largest class holds all");

#define TEXT_SLOT_BITS 30
#define TEXT_LINK      4 /* offset of the link in a free text */

static void tables_place(struct engine *e, struct memory *m)
{
    const struct root *r = e->root;
    struct tables *ts = &e->tables;
    table_place(ts, m, TABLE_WATERMARK, sizeof(struct watermark), 128, r->shards);
    table_place(ts, m, TABLE_SKU, sizeof(struct sku), 4, r->skus_max + 1);
    table_place(ts, m, TABLE_SALE, sizeof(struct sale), 1, r->sales_max + 1);
    table_place(ts, m, TABLE_OFFER, sizeof(struct offer), SALE_OFFERS_MAX,
                (r->sales_max + 1) * SALE_OFFERS_MAX);
    table_place(ts, m, TABLE_USER, sizeof(struct user), 16, r->users_max + 1);
    table_place(ts, m, TABLE_MEMBER, sizeof(struct member), 16, r->eligibilities_max + 1);
    table_place(ts, m, TABLE_ORDER, sizeof(struct order), 8, r->orders_max + 1);
    table_place(ts, m, TABLE_LINES, sizeof(struct lines), 8,
                r->orders_max * (ORDER_LINES_MAX / LINES_PER_RECORD) + 1);
    table_place(ts, m, TABLE_ANSWER, sizeof(struct answer), 8, r->idempotency_max + 1);
    table_place(ts, m, TABLE_LEASE, sizeof(struct lease), 4, r->leases_max + 1);
    table_place(ts, m, TABLE_EVENT, sizeof(struct event), 16, r->events_max);
    uint32_t texts_max = 2 * r->users_max + r->events_max + 1; /* id and reason; event text */
    for (unsigned i = 0; i < TEXT_CLASSES; i++) {
        unsigned per_block = ENGINE_BLOCK_SIZE_MAX / text_sizes[i];
        unsigned power = 1u << (31 - __builtin_clz(per_block));
        table_place(ts, m, (enum table_id)(TABLE_TEXT + i), text_sizes[i], power, texts_max);
    }
}

static void indexes_place(struct engine *e, struct memory *m)
{
    const struct root *r = e->root;
    size_t begin = m->size;
    map_place(&e->skus, m, r->skus_max);
    map_place(&e->sales, m, r->sales_max);
    map_place(&e->users, m, r->users_max);
    map_place(&e->members, m, r->eligibilities_max);
    map_place(&e->orders, m, r->orders_max);
    map_place(&e->keys, m, r->orders_max + r->idempotency_max);
    map_place(&e->leases, m, r->leases_max);
    e->index_memory = (struct engine_memory){e->skus.entries, m->size - begin};
    due_heap_place_pair(&e->pending, &e->retiring, m, r->orders_max);
    due_heap_place(&e->lease_ends, m, r->leases_max);
    due_heap_place(&e->denial_ends, m, r->users_max);
    due_heap_place(&e->answer_ends, m, r->idempotency_max);
    due_heap_place(&e->sale_ends, m, r->sales_max);
}

void state_place(struct engine *e)
{
    const struct root *r = e->root;
    CHECK(e->memory.base == NULL);
    tables_place(e, &e->memory);
    indexes_place(e, &e->memory);
    memory_reserve(&e->memory);
    tables_place(e, &e->memory);
    indexes_place(e, &e->memory);
    hash_secret_init(&e->secret, r->hash_seed);
    e->limits = (struct command_limits){
        .skus_max = r->skus_max,
        .sales_max = r->sales_max,
        .users_max = r->users_max,
        .eligibilities_max = r->eligibilities_max,
        .orders_max = r->orders_max,
        .idempotency_max = r->idempotency_max,
        .leases_max = r->leases_max,
        .events_max = r->events_max,
        .expiries_per_batch_max = r->expiries_per_batch_max,
        .idempotency_retention_ms = r->idempotency_retention_ms,
    };
}

/* ---- deriving maps and queues, when all records are loaded ----
 *
 * Each insertion goes to a place of its own in memory, so the places are fetched a window ahead: a few
 * million insertions cost a third of what they would cost one after the other. */

/* Where a record goes. */
struct insertion {
    uint64_t hash;
    uint32_t slot;
};

#define REBUILD_WINDOW 32u

/* Returns false when the record at this slot is free. */
typedef bool (*insertion_of)(const struct engine *e, uint32_t slot, struct insertion *out);

static void rebuild_map(struct engine *e, struct map *m, enum table_id id, insertion_of of)
{
    struct insertion window[REBUILD_WINDOW];
    uint32_t count = 0, last = e->root->slabs[id].used_max;
    for (uint32_t i = 1; i <= last; i++) {
        if (of(e, i, &window[count])) {
            map_prefetch(m, window[count++].hash);
        }
        if (count == REBUILD_WINDOW || i == last) {
            for (uint32_t k = 0; k < count; k++) {
                map_insert(m, window[k].hash, window[k].slot);
            }
            count = 0;
        }
    }
}

static bool user_insertion(const struct engine *e, uint32_t slot, struct insertion *out)
{
    const struct user *u = user_at(e, slot);
    if (u->id_size > 0) {
        *out = (struct insertion){hash_str(&e->secret, user_id(e, u)), slot};
    }
    return u->id_size > 0;
}

static bool member_insertion(const struct engine *e, uint32_t slot, struct insertion *out)
{
    const struct member *m = member_at(e, slot);
    *out = (struct insertion){hash_pair(&e->secret, m->sale, m->user), slot};
    return m->sale != 0;
}

static bool order_insertion(const struct engine *e, uint32_t slot, struct insertion *out)
{
    const struct order *o = order_at(e, slot);
    *out = (struct insertion){order_hash(e, o->id), slot};
    return o->id != 0;
}

static bool order_key_insertion(const struct engine *e, uint32_t slot, struct insertion *out)
{
    const struct order *o = order_at(e, slot);
    *out = (struct insertion){o->key_low, slot};
    return o->id != 0;
}

static bool answer_key_insertion(const struct engine *e, uint32_t slot, struct insertion *out)
{
    const struct answer *a = answer_at(e, slot);
    *out = (struct insertion){a->key_low, e->root->orders_max + slot};
    return a->live != 0;
}

static void rebuild_sales(struct engine *e)
{
    const struct slab *slabs = e->root->slabs;
    for (uint32_t i = 1; i <= slabs[TABLE_SKU].used_max; i++) {
        map_insert(&e->skus, hash_str(&e->secret, sku_id(sku_at(e, i))), i);
    }
    for (uint32_t i = 1; i <= slabs[TABLE_SALE].used_max; i++) {
        map_insert(&e->sales, hash_str(&e->secret, sale_id(sale_at(e, i))), i);
        if (sale_at(e, i)->due_ms < SALE_PARKED) {
            due_heap_put(&e->sale_ends, i, sale_at(e, i)->due_ms);
        }
    }
    for (uint32_t i = 1; i <= slabs[TABLE_LEASE].used_max; i++) {
        const struct lease *l = lease_at(e, i);
        if (l->token != 0) {
            map_insert(&e->leases, hash_str(&e->secret, (struct str){l->name, l->name_size}), i);
            due_heap_put(&e->lease_ends, i, l->expires_ms);
        }
    }
}

static void rebuild_users(struct engine *e)
{
    rebuild_map(e, &e->users, TABLE_USER, user_insertion);
    for (uint32_t i = 1; i <= e->root->slabs[TABLE_USER].used_max; i++) {
        const struct user *u = user_at(e, i);
        e->denied_users += u->denied;
        if (u->denied != 0 && u->denied_until_ms != 0) {
            due_heap_put(&e->denial_ends, i, u->denied_until_ms);
        }
    }
}

static void rebuild_orders(struct engine *e)
{
    rebuild_map(e, &e->orders, TABLE_ORDER, order_insertion);
    for (uint32_t i = 1; i <= e->root->slabs[TABLE_ORDER].used_max; i++) {
        const struct order *o = order_at(e, i);
        if (o->id != 0) {
            due_heap_put(o->status == ORDER_PENDING_PAYMENT ? &e->pending : &e->retiring, i,
                         o->due_ms);
        }
    }
}

static void rebuild_keys(struct engine *e)
{
    rebuild_map(e, &e->keys, TABLE_ORDER, order_key_insertion);
    rebuild_map(e, &e->keys, TABLE_ANSWER, answer_key_insertion);
    for (uint32_t i = 1; i <= e->root->slabs[TABLE_ANSWER].used_max; i++) {
        if (answer_at(e, i)->live != 0) {
            due_heap_put(&e->answer_ends, i, answer_at(e, i)->due_ms);
        }
    }
}

void state_rebuild(struct engine *e, unsigned part)
{
    switch (part) {
    case 0:
        rebuild_keys(e);
        return;
    case 1:
        rebuild_orders(e);
        return;
    case 2:
        rebuild_map(e, &e->members, TABLE_MEMBER, member_insertion);
        return;
    default:
        rebuild_sales(e);
        rebuild_users(e);
        return;
    }
}

uint32_t slab_link_offset(enum table_id id)
{
    switch ((int)id) {
    case TABLE_USER:
        return offsetof(struct user, members);
    case TABLE_MEMBER:
        return offsetof(struct member, user);
    case TABLE_ORDER:
        return offsetof(struct order, member);
    case TABLE_LINES:
        return offsetof(struct lines, next);
    case TABLE_ANSWER:
        return offsetof(struct answer, detail);
    case TABLE_LEASE:
        return offsetof(struct lease, unused);
    default:
        CHECK(id >= TABLE_TEXT && id < TABLE_TEXT + TEXT_CLASSES);
        return TEXT_LINK;
    }
}

bool slab_full(const struct engine *e, enum table_id id)
{
    return e->root->slabs[id].live == e->tables.table[id].records_max - 1;
}

uint32_t slab_take(struct engine *e, enum table_id id)
{
    struct slab *s = &e->root->slabs[id];
    CHECK(!slab_full(e, id));
    s->live++;
    if (s->free == 0) {
        table_edit(&e->tables.table[id], s->used_max + 1);
        return ++s->used_max;
    }
    uint32_t slot = s->free;
    uint8_t *record = table_edit(&e->tables.table[id], slot);
    uint8_t *link = record + slab_link_offset(id);
    memcpy(&s->free, link, sizeof s->free);
    memset(link, 0, sizeof s->free);
    return slot;
}

void slab_give(struct engine *e, enum table_id id, uint32_t slot)
{
    struct slab *s = &e->root->slabs[id];
    CHECK(s->live > 0 && slot != 0 && slot <= s->used_max);
    uint8_t *record = table_edit(&e->tables.table[id], slot);
    memset(record, 0, e->tables.table[id].record_size);
    memcpy(record + slab_link_offset(id), &s->free, sizeof s->free);
    s->free = slot;
    s->live--;
}

uint32_t text_put(struct engine *e, struct str text)
{
    if (text.len == 0) {
        return 0;
    }
    unsigned class = 0;
    while (text.len + 1 > text_sizes[class]) {
        class ++;
        CHECK(class < TEXT_CLASSES);
    }
    enum table_id id = (enum table_id)(TABLE_TEXT + class);
    uint32_t slot = slab_take(e, id);
    uint8_t *record = table_edit(&e->tables.table[id], slot);
    record[0] = (uint8_t)text.len;
    memcpy(record + 1, text.ptr, text.len);
    return class << TEXT_SLOT_BITS | slot;
}

struct str text_get(const struct engine *e, uint32_t reference)
{
    if (reference == 0) {
        return (struct str){"", 0};
    }
    const struct table *t = &e->tables.table[TABLE_TEXT + (reference >> TEXT_SLOT_BITS)];
    const char *record = table_at(t, reference & ((1u << TEXT_SLOT_BITS) - 1));
    return (struct str){record + 1, (uint8_t)record[0]};
}

void text_drop(struct engine *e, uint32_t reference)
{
    if (reference != 0) {
        slab_give(e, (enum table_id)(TABLE_TEXT + (reference >> TEXT_SLOT_BITS)),
                  reference & ((1u << TEXT_SLOT_BITS) - 1));
    }
}
