/* SKUs and their stock: available + reserved + sold = received, always.
 *
 * Owns the three quantities: every change of them is one of the moves below, and only stock_adjust and
 * stock_write_off change the sum. */
#include "engine/parts.h"

struct str sku_id(const struct sku *s)
{
    return (struct str){s->id, s->id_size};
}

uint32_t sku_find(const struct engine *e, struct str id, uint64_t hash)
{
    uint32_t slot;
    for (struct map_walk w = map_find(&e->skus, hash); (slot = map_next(&w)) != 0;) {
        if (str_equal(sku_id(sku_at(e, slot)), id)) {
            return slot;
        }
    }
    return 0;
}

static void move(struct engine *e, uint32_t slot, int64_t available, int64_t reserved, int64_t sold)
{
    struct sku *s = sku_edit(e, slot);
    s->available += available;
    s->reserved += reserved;
    s->sold += sold;
    CHECK(s->reserved >= 0);
    CHECK(s->sold >= 0);
    CHECK(s->available >= -(int64_t)s->oversell_allowance);
}

void stock_reserve(struct engine *e, uint32_t sku, int64_t units)
{
    move(e, sku, -units, units, 0);
}

void stock_release(struct engine *e, uint32_t sku, int64_t units)
{
    move(e, sku, units, -units, 0);
}

void stock_commit(struct engine *e, uint32_t sku, int64_t units)
{
    move(e, sku, 0, -units, units);
}

void stock_sell(struct engine *e, uint32_t sku, int64_t units)
{
    move(e, sku, -units, 0, units);
}

void stock_restock(struct engine *e, uint32_t sku, int64_t units)
{
    move(e, sku, units, 0, -units);
}

void stock_write_off(struct engine *e, uint32_t sku, int64_t units)
{
    move(e, sku, 0, 0, -units);
    sku_edit(e, sku)->received -= units;
}

enum result sku_put(struct engine *e, const struct command *c, struct reply *r)
{
    struct str id = c->sku_put.sku, title = c->sku_put.title;
    uint64_t expected = c->sku_put.expected_version;
    uint64_t hash = hash_str(&e->secret, id);
    uint32_t slot = sku_find(e, id, hash);
    e->about.sku = slot;
    if (slot == 0 && expected != 0 && expected != COMMAND_VERSION_ANY) {
        return refuse_not_found(r, SUBJECT_SKU);
    }
    if (slot != 0 && expected != COMMAND_VERSION_ANY && expected != sku_at(e, slot)->version) {
        r->version = sku_at(e, slot)->version;
        return RESULT_STALE_VERSION;
    }
    if (slot == 0 && slab_full(e, TABLE_SKU)) {
        return refuse_capacity(r, LIMIT_SKUS);
    }

    /* Must succeed from here. */
    if (slot == 0) {
        slot = slab_take(e, TABLE_SKU);
        struct sku *s = sku_edit(e, slot);
        s->id_size = (uint8_t)id.len;
        memcpy(s->id, id.ptr, id.len);
        map_insert(&e->skus, hash, slot);
        e->about.sku = slot;
    }
    const struct sku *old = sku_at(e, slot);
    if (old->version == 0 || !str_equal((struct str){old->title, old->title_size}, title)) {
        struct sku *s = sku_edit(e, slot);
        memset(s->title, 0, sizeof s->title);
        memcpy(s->title, title.ptr, title.len);
        s->title_size = (uint8_t)title.len;
        s->version++;
    }
    r->version = sku_at(e, slot)->version;
    return RESULT_OK;
}

enum result stock_adjust(struct engine *e, const struct command *c, struct reply *r)
{
    int64_t delta = c->stock_adjust.delta;
    if (c->key.len == 0) {
        return RESULT_INVALID; /* adding twice is not adding once */
    }
    uint32_t slot = sku_find(e, c->stock_adjust.sku, hash_str(&e->secret, c->stock_adjust.sku));
    if (slot == 0) {
        return refuse_not_found(r, SUBJECT_SKU);
    }
    e->about.sku = slot;
    const struct sku *s = sku_at(e, slot);
    r->version = s->version;
    if ((delta < 0 && s->available + delta < 0) || s->received + delta > STOCK_MAX) {
        return RESULT_INSUFFICIENT_STOCK;
    }

    /* Must succeed from here. */
    struct sku *k = sku_edit(e, slot);
    k->available += delta;
    k->received += delta;
    return RESULT_OK;
}
