/* Reading: views of the state as it is between two applies. Nothing here changes anything. */
#include "engine/parts.h"
#include "proto/order_id.h"

static void view_sku(const struct engine *e, uint32_t slot, struct sku_view *out)
{
    const struct sku *s = sku_at(e, slot);
    *out = (struct sku_view){
        .id = sku_id(s),
        .title = {s->title, s->title_size},
        .version = s->version,
        .available = s->available,
        .reserved = s->reserved,
        .sold = s->sold,
        .received = s->received,
        .oversell_allowance = s->oversell_allowance,
    };
}

static void view_offers(const struct engine *e, uint32_t slot, struct sale_view *out)
{
    const struct sale *s = sale_at(e, slot);
    out->sold_out = true;
    out->offers_count = s->offers_count;
    for (uint32_t i = 0; i < s->offers_count; i++) {
        const struct offer *o = offer_at(e, slot * SALE_OFFERS_MAX + i);
        const struct sku *k = sku_at(e, s->offer_skus[i]);
        out->offers[i] = (struct offer_view){
            .sku = sku_id(k),
            .unit_price = o->unit_price,
            .units_per_order_max = o->units_per_order_max,
            .oversell_allowance = o->oversell_allowance,
            .available = k->available,
            .reserved = k->reserved,
            .sold = k->sold,
        };
        out->sold_out = out->sold_out && k->available <= -(int64_t)o->oversell_allowance;
    }
}

static void view_sale(const struct engine *e, uint32_t slot, struct sale_view *out)
{
    const struct sale *s = sale_at(e, slot);
    memset(out, 0, sizeof *out);
    out->id = sale_id(s);
    out->title = (struct str){s->title, s->title_size};
    out->version = s->version;
    out->phase = sale_phase_at(s, e->root->time_ms);
    memcpy(out->currency, s->currency, sizeof out->currency);
    out->eligibility_opens_ms = s->eligibility_opens_ms;
    out->eligibility_closes_ms = s->eligibility_closes_ms;
    out->opens_ms = s->opens_ms;
    out->closes_ms = s->closes_ms;
    out->payment_timeout_ms = s->payment_timeout_ms;
    out->eligibility_limit = s->eligibility_limit;
    out->denial_ms = s->denial_ms;
    out->late_payment = (enum late_payment_policy)s->late_payment;
    out->eligibility_required = s->eligibility_required != 0;
    out->orders_per_user_max = s->orders_per_user_max;
    out->units_per_user_max = s->units_per_user_max;
    out->eligibility_ratio_permille = s->eligibility_ratio_permille;
    out->strikes_max = s->strikes_max;
    out->eligibilities_granted = s->eligibilities_granted;
    out->orders_placed = s->orders_placed;
    out->orders_paid = s->orders_paid;
    out->orders_expired = s->orders_expired;
    out->orders_cancelled = s->orders_cancelled;
    view_offers(e, slot, out);
}

static void view_order(const struct engine *e, uint32_t slot, struct order_view *out)
{
    const struct order *o = order_at(e, slot);
    const struct member *m = member_at(e, o->member);
    memset(out, 0, sizeof *out);
    out->id = o->id;
    out->version = o->version;
    out->sale = sale_id(sale_at(e, m->sale));
    out->user = user_id(e, user_at(e, m->user));
    out->status = (enum order_status)o->status;
    memcpy(out->currency, o->currency, sizeof out->currency);
    out->amount = o->amount;
    out->created_ms = o->created_ms;
    out->pay_by_ms = o->pay_by_ms;
    out->changed_ms = o->changed_ms;
    out->created_index = order_id_index(o->id);
    out->changed_index = o->changed_index;
    struct order_line lines[ORDER_LINES_MAX];
    out->lines_count = order_lines(e, o, lines);
    for (uint32_t i = 0; i < out->lines_count; i++) {
        out->lines[i] = (struct line_view){sku_id(sku_at(e, lines[i].sku)), lines[i].quantity,
                                           lines[i].unit_price};
    }
}

static void view_member(const struct engine *e, uint32_t slot, struct eligibility_view *out)
{
    const struct member *m = member_at(e, slot);
    *out = (struct eligibility_view){
        .sale = sale_id(sale_at(e, m->sale)),
        .user = user_id(e, user_at(e, m->user)),
        .granted_ms = m->granted_ms,
        .granted = (m->flags & MEMBER_GRANTED) != 0,
        .orders = m->orders,
        .units = m->units,
    };
}

static void view_lease(const struct engine *e, uint32_t slot, struct lease_view *out)
{
    const struct lease *l = lease_at(e, slot);
    *out = (struct lease_view){
        .name = {l->name, l->name_size},
        .owner = {l->owner, l->owner_size},
        .token = l->token,
        .expires_ms = l->expires_ms,
    };
}

static void view_denial(const struct engine *e, uint32_t slot, struct denial_view *out)
{
    const struct user *u = user_at(e, slot);
    *out = (struct denial_view){
        .user = user_id(e, u),
        .reason = text_get(e, u->reason),
        .strikes = u->strikes,
        .until_ms = u->denied_until_ms,
        .denied = user_denied(e, u),
    };
}

static bool has_denial(const struct user *u)
{
    return u->id_size > 0 && (u->denied != 0 || u->strikes > 0);
}

static bool lease_alive(const struct engine *e, uint32_t slot)
{
    const struct lease *l = lease_at(e, slot);
    return l->token != 0 && l->expires_ms > e->root->time_ms;
}

bool engine_get_sku(const struct engine *e, struct str id, struct sku_view *out)
{
    uint32_t slot = engine_initialized(e) ? sku_find(e, id, hash_str(&e->secret, id)) : 0;
    if (slot != 0) {
        view_sku(e, slot, out);
    }
    return slot != 0;
}

bool engine_get_sale(const struct engine *e, struct str id, struct sale_view *out)
{
    uint32_t slot = engine_initialized(e) ? sale_find(e, id) : 0;
    if (slot != 0) {
        view_sale(e, slot, out);
    }
    return slot != 0;
}

bool engine_get_order(const struct engine *e, uint64_t id, struct order_view *out)
{
    uint32_t slot = engine_initialized(e) ? order_find(e, id) : 0;
    if (slot != 0) {
        view_order(e, slot, out);
    }
    return slot != 0;
}

static uint32_t find_user(const struct engine *e, struct str id)
{
    return engine_initialized(e) ? user_find(e, id, hash_str(&e->secret, id)) : 0;
}

bool engine_get_eligibility(const struct engine *e, struct str sale, struct str user,
                            struct eligibility_view *out)
{
    uint32_t user_slot = find_user(e, user);
    uint32_t sale_slot = user_slot != 0 ? sale_find(e, sale) : 0;
    uint32_t slot = sale_slot != 0 ? member_find(e, sale_slot, user_slot) : 0;
    if (slot != 0) {
        view_member(e, slot, out);
    }
    return slot != 0;
}

bool engine_get_lease(const struct engine *e, struct str name, struct lease_view *out)
{
    uint32_t slot = engine_initialized(e) ? lease_find(e, name) : 0;
    if (slot == 0 || !lease_alive(e, slot)) {
        return false;
    }
    view_lease(e, slot, out);
    return true;
}

bool engine_get_denial(const struct engine *e, struct str user, struct denial_view *out)
{
    uint32_t slot = find_user(e, user);
    if (slot == 0 || !has_denial(user_at(e, slot))) {
        return false;
    }
    view_denial(e, slot, out);
    return true;
}

/* ---- lists: slot order, the cursor is the next slot to look at ---- */

#define LIST_SCAN_MAX 4096

struct scan {
    uint64_t *cursor;
    uint32_t slot, end, used_max;
};

static struct scan scan_begin(const struct engine *e, enum table_id id, uint64_t *cursor)
{
    uint32_t used_max = e->root->slabs[id].used_max;
    uint64_t slot = *cursor > 0 ? *cursor : 1;
    slot = slot <= used_max ? slot : (uint64_t)used_max + 1;
    uint64_t end = slot + LIST_SCAN_MAX <= used_max ? slot + LIST_SCAN_MAX : (uint64_t)used_max + 1;
    return (struct scan){cursor, (uint32_t)slot, (uint32_t)end, used_max};
}

static void scan_end(const struct scan *s)
{
    *s->cursor = s->slot <= s->used_max ? s->slot : 0;
}

size_t engine_list_skus(const struct engine *e, uint64_t *cursor, struct sku_view *out, size_t max)
{
    size_t count = 0;
    struct scan s = scan_begin(e, TABLE_SKU, cursor);
    for (; s.slot < s.end && count < max; s.slot++) {
        view_sku(e, s.slot, &out[count++]);
    }
    scan_end(&s);
    return count;
}

size_t engine_list_sales(const struct engine *e, uint64_t *cursor, struct sale_view *out, size_t max)
{
    size_t count = 0;
    struct scan s = scan_begin(e, TABLE_SALE, cursor);
    for (; s.slot < s.end && count < max; s.slot++) {
        view_sale(e, s.slot, &out[count++]);
    }
    scan_end(&s);
    return count;
}

size_t engine_list_leases(const struct engine *e, uint64_t *cursor, struct lease_view *out,
                          size_t max)
{
    size_t count = 0;
    struct scan s = scan_begin(e, TABLE_LEASE, cursor);
    for (; s.slot < s.end && count < max; s.slot++) {
        if (lease_alive(e, s.slot)) {
            view_lease(e, s.slot, &out[count++]);
        }
    }
    scan_end(&s);
    return count;
}

size_t engine_list_denials(const struct engine *e, uint64_t *cursor, struct denial_view *out,
                           size_t max)
{
    size_t count = 0;
    struct scan s = scan_begin(e, TABLE_USER, cursor);
    for (; s.slot < s.end && count < max; s.slot++) {
        if (has_denial(user_at(e, s.slot))) {
            view_denial(e, s.slot, &out[count++]);
        }
    }
    scan_end(&s);
    return count;
}

size_t engine_list_eligibilities(const struct engine *e, struct str sale, uint64_t *cursor,
                                 struct eligibility_view *out, size_t max)
{
    uint32_t only = sale.len > 0 && engine_initialized(e) ? sale_find(e, sale) : 0;
    if (sale.len > 0 && only == 0) {
        *cursor = 0;
        return 0;
    }
    size_t count = 0;
    struct scan s = scan_begin(e, TABLE_MEMBER, cursor);
    for (; s.slot < s.end && count < max; s.slot++) {
        const struct member *m = member_at(e, s.slot);
        if (m->sale != 0 && (m->flags & MEMBER_EVER_GRANTED) != 0 &&
            (only == 0 || m->sale == only)) {
            view_member(e, s.slot, &out[count++]);
        }
    }
    scan_end(&s);
    return count;
}

/* The order after `slot` of one user: down the chain of its member, then the user's next member. */
static uint32_t next_of_user(const struct engine *e, uint32_t slot, uint32_t only_sale,
                             uint32_t member)
{
    if (slot != 0) {
        member = order_at(e, slot)->member;
        if (order_at(e, slot)->older != 0) {
            return order_at(e, slot)->older;
        }
        member = member_at(e, member)->user_next;
    }
    for (; member != 0; member = member_at(e, member)->user_next) {
        const struct member *m = member_at(e, member);
        if (m->newest_order != 0 && (only_sale == 0 || m->sale == only_sale)) {
            return m->newest_order;
        }
    }
    return 0;
}

/* A user's own orders, newest first within a sale. The cursor is the id of the last one given: if that
 * has left memory in between, the list ends. */
static size_t list_user_orders(const struct engine *e, uint32_t sale, uint32_t user,
                               uint64_t *cursor, struct order_view *out, size_t max)
{
    uint32_t slot = *cursor != 0 ? order_find(e, *cursor) : 0;
    bool lost = *cursor != 0 && (slot == 0 || member_at(e, order_at(e, slot)->member)->user != user);
    size_t count = 0;
    if (!lost) {
        slot = next_of_user(e, slot, sale, user_at(e, user)->members);
        while (slot != 0 && count < max && count < LIST_SCAN_MAX) {
            view_order(e, slot, &out[count++]);
            slot = next_of_user(e, slot, sale, 0);
        }
    }
    *cursor = !lost && slot != 0 && count > 0 ? out[count - 1].id : 0;
    return count;
}

size_t engine_list_orders(const struct engine *e, struct str sale, struct str user,
                          uint64_t *cursor, struct order_view *out, size_t max)
{
    uint32_t sale_slot = sale.len > 0 && engine_initialized(e) ? sale_find(e, sale) : 0;
    uint32_t user_slot = user.len > 0 ? find_user(e, user) : 0;
    if ((sale.len > 0 && sale_slot == 0) || (user.len > 0 && user_slot == 0) || max == 0) {
        *cursor = 0;
        return 0;
    }
    if (user_slot != 0) {
        return list_user_orders(e, sale_slot, user_slot, cursor, out, max);
    }
    size_t count = 0;
    struct scan s = scan_begin(e, TABLE_ORDER, cursor);
    for (; s.slot < s.end && count < max; s.slot++) {
        const struct order *o = order_at(e, s.slot);
        if (o->id != 0 && (sale_slot == 0 || member_at(e, o->member)->sale == sale_slot)) {
            view_order(e, s.slot, &out[count++]);
        }
    }
    scan_end(&s);
    return count;
}
