/* One effect per key. A command that carries a key is answered once; whoever asks again under the same
 * (scope, key) with the same body gets that answer, with another body a refusal.
 *
 * The key is kept as a 128-bit keyed hash, the body as a 64-bit keyed fingerprint. An order holds the
 * key it was placed under itself; every other answer, refusals included, is an `answer` record. Both
 * are found through one map: values up to orders_max are orders, those above are answers.
 *
 * BACKLOG_FULL and CAPACITY mean "try again": they are never kept. When there is no room to remember
 * an answer, none is given but CAPACITY, and nothing has happened. */
#include "engine/parts.h"

#include "proto/order_id.h"

struct hash128 idempotency_key_hash(const struct engine *e, struct str scope, struct str key)
{
    uint8_t buffer[2 + SCOPE_SIZE_MAX + KEY_SIZE_MAX]; /* as it stands in an encoded command */
    CHECK(scope.len <= SCOPE_SIZE_MAX && key.len <= KEY_SIZE_MAX);
    buffer[0] = (uint8_t)scope.len;
    memcpy(buffer + 1, scope.ptr, scope.len);
    buffer[1 + scope.len] = (uint8_t)key.len;
    memcpy(buffer + 2 + scope.len, key.ptr, key.len);
    return hash_bytes128(&e->secret, buffer, 2 + scope.len + key.len);
}

static uint64_t key_hash_of(const void *ctx, uint32_t value)
{
    const struct engine *e = ctx;
    uint32_t orders_max = e->root->orders_max;
    return value <= orders_max ? order_at(e, value)->key_low
                               : answer_at(e, value - orders_max)->key_low;
}

/* 0, or the map value of what is known under the key. */
static uint32_t key_find(const struct engine *e, struct hash128 key)
{
    uint32_t value, orders_max = e->root->orders_max;
    for (struct map_walk w = map_find(&e->keys, key.low); (value = map_next(&w)) != 0;) {
        uint64_t low = key_hash_of(e, value);
        uint64_t high = value <= orders_max ? order_at(e, value)->key_high
                                            : answer_at(e, value - orders_max)->key_high;
        if (low == key.low && high == key.high) {
            return value;
        }
    }
    return 0;
}

void idempotency_key_remove(struct engine *e, uint64_t key_low, uint32_t value)
{
    map_remove(&e->keys, key_low, value, key_hash_of, e);
}

/* The 64-bit fields of a reply that an answer may have to keep. */
#define FIELDS 9

static void reply_fields(struct reply *r, uint64_t *fields[static FIELDS])
{
    fields[0] = &r->order;
    fields[1] = (uint64_t *)&r->amount;
    fields[2] = (uint64_t *)&r->created_ms;
    fields[3] = (uint64_t *)&r->pay_by_ms;
    fields[4] = &r->version;
    fields[5] = &r->token;
    fields[6] = (uint64_t *)&r->expires_ms;
    fields[7] = (uint64_t *)&r->opens_ms;
    fields[8] = (uint64_t *)&r->available; /* of SOLD_OUT only: else it is the witness */
}

void idempotency_store(struct engine *e, const struct intent *in, const struct reply *reply)
{
    struct reply r = *reply;
    uint64_t *fields[FIELDS];
    reply_fields(&r, fields);
    uint32_t slot = slab_take(e, TABLE_ANSWER);
    struct answer *a = answer_edit(e, slot);
    a->live = 1;
    a->key_low = in->key.low;
    a->key_high = in->key.high;
    a->fingerprint = in->fingerprint;
    a->origin_index = e->root->index;
    a->result = r.result;
    a->flags = r.flags;
    a->order_status = r.order_status;
    a->sale_phase = r.sale_phase;
    a->detail = r.detail;
    a->line = (uint8_t)r.line;
    memcpy(a->currency, r.currency, sizeof a->currency);
    a->sale = e->about.sale;
    a->sku = e->about.sku;
    unsigned values = 0;
    for (unsigned i = 0; i < FIELDS; i++) {
        bool witness = i == FIELDS - 1 && r.result != RESULT_SOLD_OUT;
        if (*fields[i] != 0 && !witness) {
            CHECK(values < ANSWER_VALUES_MAX);
            a->fields |= (uint16_t)(1u << i);
            a->values[values++] = *fields[i];
        }
    }
    a->due_ms = sale_retention_end(e, a->sale, e->root->time_ms);
    map_insert(&e->keys, a->key_low, e->root->orders_max + slot);
    due_heap_put(&e->answer_ends, slot, a->due_ms);
}

static void witness_of_now(const struct engine *e, uint32_t sku, struct reply *r)
{
    if (sku != 0) {
        const struct sku *k = sku_at(e, sku);
        r->available = k->available;
        r->reserved = k->reserved;
        r->sold = k->sold;
    }
}

static void answer_reply(const struct engine *e, const struct answer *a, struct reply *r)
{
    r->result = a->result;
    r->flags = a->flags;
    r->order_status = a->order_status;
    r->sale_phase = a->sale_phase;
    r->detail = a->detail;
    r->line = a->line;
    memcpy(r->currency, a->currency, sizeof r->currency);
    r->origin_index = a->origin_index;
    witness_of_now(e, a->sku, r);
    if (a->result == RESULT_SOLD_OUT) {
        r->available = 0;
    }
    uint64_t *fields[FIELDS];
    reply_fields(r, fields);
    unsigned values = 0;
    for (unsigned i = 0; i < FIELDS; i++) {
        if ((a->fields & 1u << i) != 0) {
            *fields[i] = a->values[values++];
        }
    }
}

static void placed_reply(const struct engine *e, const struct order *o, struct reply *r)
{
    order_placed_reply(o, r);
    r->origin_index = order_id_index(o->id);
    witness_of_now(e, order_first_sku(e, o), r);
}

bool idempotency_answer(struct engine *e, const struct intent *in, struct reply *r)
{
    uint32_t value = key_find(e, in->key);
    if (value == 0) {
        return false;
    }
    bool is_order = value <= e->root->orders_max;
    const struct order *o = is_order ? order_at(e, value) : NULL;
    const struct answer *a = is_order ? NULL : answer_at(e, value - e->root->orders_max);
    if ((is_order ? o->fingerprint : a->fingerprint) != in->fingerprint) {
        r->result = RESULT_IDEMPOTENCY_KEY_REUSED;
        return true;
    }
    if (is_order) {
        placed_reply(e, o, r);
    } else {
        answer_reply(e, a, r);
    }
    r->flags |= REPLY_REPLAYED;
    e->stats.replays++;
    return true;
}

void idempotency_retire(struct engine *e, uint32_t slot)
{
    const struct answer *a = answer_at(e, slot);
    int64_t due_ms = a->sale != 0 ? sale_retention_end(e, a->sale, 0) : 0;
    if (due_ms > e->root->time_ms) { /* the sale goes on longer than it did then */
        answer_edit(e, slot)->due_ms = due_ms;
        due_heap_put(&e->answer_ends, slot, due_ms);
        return;
    }
    due_heap_remove(&e->answer_ends, slot);
    idempotency_key_remove(e, a->key_low, e->root->orders_max + slot);
    slab_give(e, TABLE_ANSWER, slot);
}

bool engine_get_placed(const struct engine *e, struct str scope, struct str key, struct reply *out)
{
    if (e->root->initialized == 0 || key.len == 0 || scope.len > SCOPE_SIZE_MAX ||
        key.len > KEY_SIZE_MAX) {
        return false;
    }
    uint32_t value = key_find(e, idempotency_key_hash(e, scope, key));
    if (value == 0 || value > e->root->orders_max) {
        return false;
    }
    *out = (struct reply){.index = e->root->index, .time_ms = e->root->time_ms};
    placed_reply(e, order_at(e, value), out);
    out->flags |= REPLY_REPLAYED;
    return true;
}
