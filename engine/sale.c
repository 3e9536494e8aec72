/* Sales: their definition, their phase, and the retirement of their members once all is over.
 *
 * A sale is named by admins and stays; a closed one stays closed, so that what was forgotten after its
 * end is never asked for again. Replacing the definition concerns what comes after it: placed orders
 * keep their units, prices and deadlines, even of a SKU that is no longer on offer. */
#include "engine/parts.h"

struct str sale_id(const struct sale *s)
{
    return (struct str){s->id, s->id_size};
}

uint32_t sale_find(const struct engine *e, struct str id)
{
    uint32_t slot;
    uint64_t hash = hash_str(&e->secret, id);
    for (struct map_walk w = map_find(&e->sales, hash); (slot = map_next(&w)) != 0;) {
        if (str_equal(sale_id(sale_at(e, slot)), id)) {
            return slot;
        }
    }
    return 0;
}

enum sale_phase sale_phase_at(const struct sale *s, int64_t time_ms)
{
    if (s->closed != 0 || time_ms >= s->closes_ms) {
        return SALE_CLOSED;
    }
    if (s->paused != 0) {
        return SALE_PAUSED;
    }
    if (time_ms >= s->opens_ms) {
        return SALE_OPEN;
    }
    bool window = s->eligibility_opens_ms != 0 || s->eligibility_closes_ms != 0;
    if (!window || time_ms < s->eligibility_opens_ms) {
        return SALE_SCHEDULED;
    }
    return time_ms < s->eligibility_closes_ms ? SALE_ELIGIBILITY : SALE_WAITING;
}

enum result sale_check_running(const struct engine *e, const struct sale *s, struct reply *r)
{
    enum sale_phase phase = sale_phase_at(s, e->root->time_ms);
    if (phase != SALE_CLOSED && phase != SALE_PAUSED) {
        return RESULT_OK;
    }
    r->sale_phase = (uint8_t)phase;
    return phase == SALE_CLOSED ? RESULT_SALE_CLOSED : RESULT_SALE_PAUSED;
}

const struct offer *sale_offer(const struct engine *e, uint32_t sale, uint32_t sku)
{
    const struct sale *s = sale_at(e, sale);
    for (uint32_t i = 0; i < s->offers_count; i++) {
        if (s->offer_skus[i] == sku) {
            return offer_at(e, sale * SALE_OFFERS_MAX + i);
        }
    }
    return NULL;
}

int64_t sale_retention_end(const struct engine *e, uint32_t sale, int64_t end_ms)
{
    int64_t closes_ms = sale != 0 ? sale_at(e, sale)->closes_ms : 0;
    return (closes_ms > end_ms ? closes_ms : end_ms) + (int64_t)e->root->idempotency_retention_ms;
}

/* The definition of the command over what `s` is now. */
static void define(struct sale *s, const struct command_sale *d)
{
    s->opens_ms = d->opens_ms;
    s->closes_ms = d->closes_ms;
    s->eligibility_opens_ms = d->eligibility_opens_ms;
    s->eligibility_closes_ms = d->eligibility_closes_ms;
    s->payment_timeout_ms = d->payment_timeout_ms;
    s->denial_ms = d->denial_ms;
    s->eligibility_limit = d->eligibility_limit;
    s->orders_per_user_max = d->orders_per_user_max;
    s->units_per_user_max = d->units_per_user_max;
    s->eligibility_ratio_permille = d->eligibility_ratio_permille;
    s->strikes_max = d->strikes_max;
    s->late_payment = d->late_payment;
    s->eligibility_required = d->eligibility_required ? 1 : 0;
    s->offers_count = d->offers_count;
    memset(s->currency, 0, sizeof s->currency);
    memcpy(s->currency, d->currency, CURRENCY_SIZE);
    s->id_size = (uint8_t)d->id.len;
    memcpy(s->id, d->id.ptr, d->id.len);
    s->title_size = (uint8_t)d->title.len;
    memset(s->title, 0, sizeof s->title);
    memcpy(s->title, d->title.ptr, d->title.len);
}

/* Writes the offers; returns whether one of them changed. */
static bool define_offers(struct engine *e, uint32_t sale, const struct command_sale *d,
                          uint32_t offers_before)
{
    bool changed = false;
    uint32_t end = offers_before > d->offers_count ? offers_before : d->offers_count;
    for (uint32_t i = 0; i < end; i++) {
        struct offer offer = {0};
        if (i < d->offers_count) {
            offer.unit_price = d->offers[i].unit_price;
            offer.units_per_order_max = d->offers[i].units_per_order_max;
            offer.oversell_allowance = d->offers[i].oversell_allowance;
        }
        uint32_t slot = sale * SALE_OFFERS_MAX + i;
        if (memcmp(offer_at(e, slot), &offer, sizeof offer) != 0) {
            *offer_edit(e, slot) = offer;
            changed = true;
        }
        uint32_t sku = i < d->offers_count ? sale_at(e, sale)->offer_skus[i] : 0;
        if (sku != 0 && offer.oversell_allowance > sku_at(e, sku)->oversell_allowance) {
            sku_edit(e, sku)->oversell_allowance = offer.oversell_allowance;
        }
    }
    return changed;
}

/* Finds the SKUs of all offers; returns the position of the first that is unknown, or the count. */
static uint32_t resolve_offers(const struct engine *e, const struct command_sale *d,
                               uint32_t skus[static SALE_OFFERS_MAX])
{
    memset(skus, 0, SALE_OFFERS_MAX * sizeof *skus);
    for (uint32_t i = 0; i < d->offers_count; i++) {
        skus[i] = sku_find(e, d->offers[i].sku, hash_str(&e->secret, d->offers[i].sku));
        if (skus[i] == 0) {
            return i;
        }
    }
    return d->offers_count;
}

static void sale_reply(const struct engine *e, const struct sale *s, struct reply *r)
{
    r->version = s->version;
    r->sale_phase = (uint8_t)sale_phase_at(s, e->root->time_ms);
    r->opens_ms = s->opens_ms;
}

enum result sale_put(struct engine *e, const struct command *c, struct reply *r)
{
    const struct command_sale *d = &c->sale_put;
    uint32_t slot = sale_find(e, d->id);
    e->about.sale = slot;
    uint64_t expected = d->expected_version;
    if (slot == 0 && expected != 0 && expected != COMMAND_VERSION_ANY) {
        return refuse_not_found(r, SUBJECT_SALE);
    }
    uint32_t skus[SALE_OFFERS_MAX];
    uint32_t unknown = resolve_offers(e, d, skus);
    if (unknown < d->offers_count) {
        r->line = unknown + 1;
        return refuse_not_found(r, SUBJECT_SKU);
    }
    if (slot != 0 && expected != COMMAND_VERSION_ANY && expected != sale_at(e, slot)->version) {
        r->version = sale_at(e, slot)->version;
        return RESULT_STALE_VERSION;
    }
    bool closed = slot != 0 && sale_phase_at(sale_at(e, slot), e->root->time_ms) == SALE_CLOSED;
    if (closed || d->closes_ms <= e->root->time_ms) {
        r->sale_phase = SALE_CLOSED;
        return RESULT_SALE_CLOSED;
    }
    if (slot == 0 && slab_full(e, TABLE_SALE)) {
        return refuse_capacity(r, LIMIT_SALES);
    }

    /* Must succeed from here. */
    if (slot == 0) {
        slot = slab_take(e, TABLE_SALE);
        map_insert(&e->sales, hash_str(&e->secret, d->id), slot);
        e->about.sale = slot;
    }
    struct sale next = *sale_at(e, slot);
    uint32_t offers_before = next.offers_count;
    define(&next, d);
    memcpy(next.offer_skus, skus, sizeof skus);
    bool changed = memcmp(&next, sale_at(e, slot), sizeof next) != 0;
    *sale_edit(e, slot) = next;
    changed = define_offers(e, slot, d, offers_before) || changed;
    struct sale *s = sale_edit(e, slot);
    if (changed) {
        s->version++;
        s->due_ms = sale_retention_end(e, slot, 0);
        due_heap_put(&e->sale_ends, slot, s->due_ms);
    }
    sale_reply(e, s, r);
    return RESULT_OK;
}

enum result sale_control(struct engine *e, const struct command *c, struct reply *r)
{
    uint32_t slot = sale_find(e, c->sale_control.sale);
    if (slot == 0) {
        return refuse_not_found(r, SUBJECT_SALE);
    }
    e->about.sale = slot;
    const struct sale *old = sale_at(e, slot);
    uint64_t expected = c->sale_control.expected_version;
    if (expected != COMMAND_VERSION_ANY && expected != old->version) {
        r->version = old->version;
        return RESULT_STALE_VERSION;
    }
    bool closed = sale_phase_at(old, e->root->time_ms) == SALE_CLOSED;
    if (closed && c->kind != COMMAND_SALE_CLOSE) {
        r->sale_phase = SALE_CLOSED;
        return RESULT_SALE_CLOSED;
    }

    /* Must succeed from here. */
    uint8_t paused = c->kind == COMMAND_SALE_PAUSE ? 1 : 0;
    if (c->kind == COMMAND_SALE_CLOSE && !closed) {
        struct sale *s = sale_edit(e, slot);
        s->closed = 1;
        s->version++;
    } else if (c->kind != COMMAND_SALE_CLOSE && old->paused != paused) {
        struct sale *s = sale_edit(e, slot);
        s->paused = paused;
        s->version++;
    }
    sale_reply(e, sale_at(e, slot), r);
    return RESULT_OK;
}

/* ---- retirement: closes_ms + retention have passed ---- */

static bool members_needed(const struct engine *e, const struct sale *s)
{
    return s->orders_in_memory > 0 || s->last_event >= e->root->event_first;
}

static void set_due(struct engine *e, uint32_t slot, int64_t due_ms)
{
    sale_edit(e, slot)->due_ms = due_ms;
    if (due_ms < SALE_PARKED) {
        due_heap_put(&e->sale_ends, slot, due_ms);
    } else {
        due_heap_remove(&e->sale_ends, slot);
    }
}

void sale_retire_step(struct engine *e, uint32_t slot)
{
    const struct sale *s = sale_at(e, slot);
    if (members_needed(e, s)) {
        set_due(e, slot, SALE_PARKED);
        return;
    }
    uint32_t member = s->members;
    if (member == 0) {
        set_due(e, slot, SALE_RETIRED);
        return;
    }
    sale_edit(e, slot)->members = member_at(e, member)->sale_next;
    member_remove(e, member);
}

void sale_unpark(struct engine *e, uint32_t slot)
{
    const struct sale *s = sale_at(e, slot);
    if (s->due_ms == SALE_PARKED && !members_needed(e, s)) {
        sale_edit(e, slot)->due_ms = e->root->time_ms;
        due_heap_put(&e->sale_ends, slot, e->root->time_ms);
    }
}
