#include "proto/command.h"

#include <stdio.h>

#include "base/bytes.h"
#include "base/check.h"

/* The encoder and the decoder of each kind stand side by side; well_formed is run by both, so that
 * whatever encodes decodes again and nothing malformed enters the log. */

static bool is_id(struct str s)
{
    return str_is_identifier(s, ID_SIZE_MAX);
}

static bool is_prose(struct str s, uint32_t len_max)
{
    return s.len <= len_max && str_is_utf8(s);
}

static bool is_currency(const char c[static CURRENCY_SIZE + 1])
{
    for (int i = 0; i < CURRENCY_SIZE; i++) {
        if (c[i] < 'A' || c[i] > 'Z') {
            return false;
        }
    }
    return true;
}

static bool is_time(int64_t ms)
{
    return ms >= 0 && ms <= TIME_MS_MAX;
}

static bool sale_well_formed(const struct command_sale *s)
{
    if (!is_id(s->id) || !is_prose(s->title, TITLE_SIZE_MAX) || !is_currency(s->currency) ||
        !is_time(s->eligibility_opens_ms) || !is_time(s->eligibility_closes_ms) ||
        !is_time(s->opens_ms) || !is_time(s->closes_ms)) {
        return false;
    }
    if (s->closes_ms <= s->opens_ms || s->eligibility_closes_ms < s->eligibility_opens_ms ||
        s->eligibility_closes_ms > s->closes_ms) {
        return false;
    }
    if (s->payment_timeout_ms < 1 || s->payment_timeout_ms > DURATION_MS_MAX ||
        s->denial_ms > DURATION_MS_MAX || s->late_payment > LATE_PAYMENT_ACCEPT_IF_AVAILABLE ||
        s->orders_per_user_max < 1 || s->offers_count < 1 || s->offers_count > SALE_OFFERS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < s->offers_count; i++) {
        const struct command_offer *o = &s->offers[i];
        if (!is_id(o->sku) || o->unit_price < 0 || o->unit_price > UNIT_PRICE_MAX ||
            o->units_per_order_max < 1 || o->units_per_order_max > QUANTITY_MAX) {
            return false;
        }
        for (uint32_t j = 0; j < i; j++) {
            if (str_equal(s->offers[j].sku, o->sku)) {
                return false;
            }
        }
    }
    return true;
}

static bool limits_well_formed(const struct command_limits *l)
{
    const uint32_t all[] = {l->skus_max,   l->sales_max,       l->users_max,  l->eligibilities_max,
                            l->orders_max, l->idempotency_max, l->leases_max, l->events_max};
    for (size_t i = 0; i < ARRAY_COUNT(all); i++) {
        if (all[i] < 1 || all[i] > 1u << 28) {
            return false;
        }
    }
    return l->expiries_per_batch_max >= 1 && l->idempotency_retention_ms <= DURATION_MS_MAX;
}

static bool well_formed(const struct command *c)
{
    if (c->scope.len > SCOPE_SIZE_MAX || c->key.len > KEY_SIZE_MAX ||
        (c->scope.len > 0 && !str_is_identifier(c->scope, SCOPE_SIZE_MAX)) ||
        (c->key.len > 0 && !str_is_identifier(c->key, KEY_SIZE_MAX))) {
        return false;
    }
    switch (c->kind) {
    case COMMAND_INIT:
        return c->init.shards >= 1 && c->init.shards <= SHARDS_MAX &&
               limits_well_formed(&c->init.limits);
    case COMMAND_SKU_PUT:
        return is_id(c->sku_put.sku) && is_prose(c->sku_put.title, TITLE_SIZE_MAX);
    case COMMAND_STOCK_ADJUST:
        return is_id(c->stock_adjust.sku) && is_prose(c->stock_adjust.reason, REASON_SIZE_MAX) &&
               c->stock_adjust.delta != 0 && c->stock_adjust.delta <= STOCK_MAX &&
               c->stock_adjust.delta >= -STOCK_MAX;
    case COMMAND_SALE_PUT:
        return sale_well_formed(&c->sale_put);
    case COMMAND_SALE_PAUSE:
    case COMMAND_SALE_RESUME:
    case COMMAND_SALE_CLOSE:
        return is_id(c->sale_control.sale);
    case COMMAND_ELIGIBILITY_GRANT:
    case COMMAND_ELIGIBILITY_REVOKE:
        return is_id(c->eligibility.sale) && is_id(c->eligibility.user);
    case COMMAND_ORDER_PLACE:
        if (!is_id(c->order_place.sale) || !is_id(c->order_place.user) ||
            c->order_place.lines_count < 1 || c->order_place.lines_count > ORDER_LINES_MAX) {
            return false;
        }
        for (uint32_t i = 0; i < c->order_place.lines_count; i++) {
            const struct command_line *l = &c->order_place.lines[i];
            if (!is_id(l->sku) || l->quantity < 1 || l->quantity > QUANTITY_MAX) {
                return false;
            }
        }
        return true;
    case COMMAND_ORDER_CANCEL:
        return c->order_cancel.order != 0 &&
               (c->order_cancel.user.len == 0 || is_id(c->order_cancel.user));
    case COMMAND_PAYMENT_APPLY:
        return c->payment.order != 0 && c->payment.amount >= 0 && is_currency(c->payment.currency) &&
               c->key.len > 0;
    case COMMAND_ORDER_REFUND:
        return c->order_refund.order != 0 && is_prose(c->order_refund.reason, REASON_SIZE_MAX);
    case COMMAND_LEASE_ACQUIRE:
    case COMMAND_LEASE_RENEW:
    case COMMAND_LEASE_RELEASE: {
        bool ttl_used = c->kind != COMMAND_LEASE_RELEASE;
        bool token_used = c->kind != COMMAND_LEASE_ACQUIRE;
        return is_id(c->lease.name) && is_id(c->lease.owner) &&
               (ttl_used ? c->lease.ttl_ms >= 1 && c->lease.ttl_ms <= DURATION_MS_MAX
                         : c->lease.ttl_ms == 0) &&
               (token_used ? c->lease.token != 0 : c->lease.token == 0);
    }
    case COMMAND_DENY_PUT:
        return is_id(c->deny.user) && is_prose(c->deny.reason, REASON_SIZE_MAX) &&
               is_time(c->deny.until_ms);
    case COMMAND_DENY_REMOVE:
        return is_id(c->deny.user) && c->deny.reason.len == 0 && c->deny.until_ms == 0;
    case COMMAND_PERSIST_ACK:
        if (c->persist_ack.count < 1 || c->persist_ack.count > PERSIST_ACKS_MAX) {
            return false;
        }
        for (uint32_t i = 0; i < c->persist_ack.count; i++) {
            if (c->persist_ack.acks[i].shard >= SHARDS_MAX) {
                return false;
            }
        }
        return true;
    case COMMAND_DIGEST_MARK:
        return true;
    }
    return false;
}

static void put_limits(struct writer *w, const struct command_limits *l)
{
    writer_u32(w, l->skus_max);
    writer_u32(w, l->sales_max);
    writer_u32(w, l->users_max);
    writer_u32(w, l->eligibilities_max);
    writer_u32(w, l->orders_max);
    writer_u32(w, l->idempotency_max);
    writer_u32(w, l->leases_max);
    writer_u32(w, l->events_max);
    writer_u32(w, l->expiries_per_batch_max);
    writer_u64(w, l->idempotency_retention_ms);
}

static void get_limits(struct reader *r, struct command_limits *l)
{
    l->skus_max = reader_u32(r);
    l->sales_max = reader_u32(r);
    l->users_max = reader_u32(r);
    l->eligibilities_max = reader_u32(r);
    l->orders_max = reader_u32(r);
    l->idempotency_max = reader_u32(r);
    l->leases_max = reader_u32(r);
    l->events_max = reader_u32(r);
    l->expiries_per_batch_max = reader_u32(r);
    l->idempotency_retention_ms = reader_u64(r);
}

static void put_sale(struct writer *w, const struct command_sale *s)
{
    writer_str8(w, s->id);
    writer_str8(w, s->title);
    writer_u64(w, s->expected_version);
    writer_bytes(w, s->currency, CURRENCY_SIZE);
    writer_u64(w, (uint64_t)s->eligibility_opens_ms);
    writer_u64(w, (uint64_t)s->eligibility_closes_ms);
    writer_u64(w, (uint64_t)s->opens_ms);
    writer_u64(w, (uint64_t)s->closes_ms);
    writer_u64(w, s->payment_timeout_ms);
    writer_u8(w, s->late_payment);
    writer_u8(w, s->eligibility_required ? 1 : 0);
    writer_u32(w, s->orders_per_user_max);
    writer_u32(w, s->units_per_user_max);
    writer_u64(w, s->eligibility_limit);
    writer_u32(w, s->eligibility_ratio_permille);
    writer_u32(w, s->strikes_max);
    writer_u64(w, s->denial_ms);
    writer_u8(w, s->offers_count);
    for (uint32_t i = 0; i < s->offers_count; i++) {
        writer_str8(w, s->offers[i].sku);
        writer_u64(w, (uint64_t)s->offers[i].unit_price);
        writer_u32(w, s->offers[i].units_per_order_max);
        writer_u32(w, s->offers[i].oversell_allowance);
    }
}

static bool get_flag(struct reader *r)
{
    uint8_t v = reader_u8(r);
    r->failed = r->failed || v > 1; /* one encoding for each command: fingerprints compare bytes */
    return v == 1;
}

static void get_currency(struct reader *r, char out[static CURRENCY_SIZE + 1])
{
    const void *p = reader_bytes(r, CURRENCY_SIZE);
    memset(out, 0, CURRENCY_SIZE + 1);
    if (p != NULL) {
        memcpy(out, p, CURRENCY_SIZE);
    }
}

static void get_sale(struct reader *r, struct command_sale *s)
{
    s->id = reader_str8(r);
    s->title = reader_str8(r);
    s->expected_version = reader_u64(r);
    get_currency(r, s->currency);
    s->eligibility_opens_ms = (int64_t)reader_u64(r);
    s->eligibility_closes_ms = (int64_t)reader_u64(r);
    s->opens_ms = (int64_t)reader_u64(r);
    s->closes_ms = (int64_t)reader_u64(r);
    s->payment_timeout_ms = reader_u64(r);
    s->late_payment = reader_u8(r);
    s->eligibility_required = get_flag(r);
    s->orders_per_user_max = reader_u32(r);
    s->units_per_user_max = reader_u32(r);
    s->eligibility_limit = reader_u64(r);
    s->eligibility_ratio_permille = reader_u32(r);
    s->strikes_max = reader_u32(r);
    s->denial_ms = reader_u64(r);
    s->offers_count = reader_u8(r);
    if (s->offers_count > SALE_OFFERS_MAX) {
        r->failed = true;
        return;
    }
    for (uint32_t i = 0; i < s->offers_count; i++) {
        s->offers[i].sku = reader_str8(r);
        s->offers[i].unit_price = (int64_t)reader_u64(r);
        s->offers[i].units_per_order_max = reader_u32(r);
        s->offers[i].oversell_allowance = reader_u32(r);
    }
}

static void put_body(struct writer *w, const struct command *c)
{
    switch (c->kind) {
    case COMMAND_INIT:
        writer_bytes(w, c->init.cluster_id, sizeof c->init.cluster_id);
        writer_bytes(w, c->init.hash_seed, sizeof c->init.hash_seed);
        writer_u32(w, c->init.shards);
        put_limits(w, &c->init.limits);
        return;
    case COMMAND_SKU_PUT:
        writer_str8(w, c->sku_put.sku);
        writer_str8(w, c->sku_put.title);
        writer_u64(w, c->sku_put.expected_version);
        return;
    case COMMAND_STOCK_ADJUST:
        writer_str8(w, c->stock_adjust.sku);
        writer_str8(w, c->stock_adjust.reason);
        writer_u64(w, (uint64_t)c->stock_adjust.delta);
        return;
    case COMMAND_SALE_PUT:
        put_sale(w, &c->sale_put);
        return;
    case COMMAND_SALE_PAUSE:
    case COMMAND_SALE_RESUME:
    case COMMAND_SALE_CLOSE:
        writer_str8(w, c->sale_control.sale);
        writer_u64(w, c->sale_control.expected_version);
        return;
    case COMMAND_ELIGIBILITY_GRANT:
    case COMMAND_ELIGIBILITY_REVOKE:
        writer_str8(w, c->eligibility.sale);
        writer_str8(w, c->eligibility.user);
        return;
    case COMMAND_ORDER_PLACE:
        writer_str8(w, c->order_place.sale);
        writer_str8(w, c->order_place.user);
        writer_u8(w, c->order_place.lines_count);
        for (uint32_t i = 0; i < c->order_place.lines_count; i++) {
            writer_str8(w, c->order_place.lines[i].sku);
            writer_u32(w, c->order_place.lines[i].quantity);
        }
        return;
    case COMMAND_ORDER_CANCEL:
        writer_u64(w, c->order_cancel.order);
        writer_str8(w, c->order_cancel.user);
        return;
    case COMMAND_PAYMENT_APPLY:
        writer_u64(w, c->payment.order);
        writer_u64(w, (uint64_t)c->payment.amount);
        writer_bytes(w, c->payment.currency, CURRENCY_SIZE);
        return;
    case COMMAND_ORDER_REFUND:
        writer_u64(w, c->order_refund.order);
        writer_u8(w, c->order_refund.restock ? 1 : 0);
        writer_str8(w, c->order_refund.reason);
        return;
    case COMMAND_LEASE_ACQUIRE:
    case COMMAND_LEASE_RENEW:
    case COMMAND_LEASE_RELEASE:
        writer_str8(w, c->lease.name);
        writer_str8(w, c->lease.owner);
        writer_u64(w, c->lease.token);
        writer_u64(w, c->lease.ttl_ms);
        return;
    case COMMAND_DENY_PUT:
    case COMMAND_DENY_REMOVE:
        writer_str8(w, c->deny.user);
        writer_str8(w, c->deny.reason);
        writer_u64(w, (uint64_t)c->deny.until_ms);
        return;
    case COMMAND_PERSIST_ACK:
        writer_u32(w, c->persist_ack.count);
        for (uint32_t i = 0; i < c->persist_ack.count; i++) {
            writer_u32(w, c->persist_ack.acks[i].shard);
            writer_u64(w, c->persist_ack.acks[i].sequence);
        }
        return;
    case COMMAND_DIGEST_MARK:
        return;
    }
    CHECK_UNREACHABLE();
}

static void get_body(struct reader *r, struct command *c)
{
    const void *p;
    switch (c->kind) {
    case COMMAND_INIT:
        p = reader_bytes(r, sizeof c->init.cluster_id + sizeof c->init.hash_seed);
        if (p != NULL) {
            memcpy(c->init.cluster_id, p, sizeof c->init.cluster_id);
            memcpy(c->init.hash_seed, (const uint8_t *)p + sizeof c->init.cluster_id,
                   sizeof c->init.hash_seed);
        }
        c->init.shards = reader_u32(r);
        get_limits(r, &c->init.limits);
        return;
    case COMMAND_SKU_PUT:
        c->sku_put.sku = reader_str8(r);
        c->sku_put.title = reader_str8(r);
        c->sku_put.expected_version = reader_u64(r);
        return;
    case COMMAND_STOCK_ADJUST:
        c->stock_adjust.sku = reader_str8(r);
        c->stock_adjust.reason = reader_str8(r);
        c->stock_adjust.delta = (int64_t)reader_u64(r);
        return;
    case COMMAND_SALE_PUT:
        get_sale(r, &c->sale_put);
        return;
    case COMMAND_SALE_PAUSE:
    case COMMAND_SALE_RESUME:
    case COMMAND_SALE_CLOSE:
        c->sale_control.sale = reader_str8(r);
        c->sale_control.expected_version = reader_u64(r);
        return;
    case COMMAND_ELIGIBILITY_GRANT:
    case COMMAND_ELIGIBILITY_REVOKE:
        c->eligibility.sale = reader_str8(r);
        c->eligibility.user = reader_str8(r);
        return;
    case COMMAND_ORDER_PLACE:
        c->order_place.sale = reader_str8(r);
        c->order_place.user = reader_str8(r);
        c->order_place.lines_count = reader_u8(r);
        if (c->order_place.lines_count > ORDER_LINES_MAX) {
            r->failed = true;
            return;
        }
        for (uint32_t i = 0; i < c->order_place.lines_count; i++) {
            c->order_place.lines[i].sku = reader_str8(r);
            c->order_place.lines[i].quantity = reader_u32(r);
        }
        return;
    case COMMAND_ORDER_CANCEL:
        c->order_cancel.order = reader_u64(r);
        c->order_cancel.user = reader_str8(r);
        return;
    case COMMAND_PAYMENT_APPLY:
        c->payment.order = reader_u64(r);
        c->payment.amount = (int64_t)reader_u64(r);
        get_currency(r, c->payment.currency);
        return;
    case COMMAND_ORDER_REFUND:
        c->order_refund.order = reader_u64(r);
        c->order_refund.restock = get_flag(r);
        c->order_refund.reason = reader_str8(r);
        return;
    case COMMAND_LEASE_ACQUIRE:
    case COMMAND_LEASE_RENEW:
    case COMMAND_LEASE_RELEASE:
        c->lease.name = reader_str8(r);
        c->lease.owner = reader_str8(r);
        c->lease.token = reader_u64(r);
        c->lease.ttl_ms = reader_u64(r);
        return;
    case COMMAND_DENY_PUT:
    case COMMAND_DENY_REMOVE:
        c->deny.user = reader_str8(r);
        c->deny.reason = reader_str8(r);
        c->deny.until_ms = (int64_t)reader_u64(r);
        return;
    case COMMAND_PERSIST_ACK:
        c->persist_ack.count = reader_u32(r);
        if (c->persist_ack.count > PERSIST_ACKS_MAX) {
            r->failed = true;
            return;
        }
        for (uint32_t i = 0; i < c->persist_ack.count; i++) {
            c->persist_ack.acks[i].shard = reader_u32(r);
            c->persist_ack.acks[i].sequence = reader_u64(r);
        }
        return;
    case COMMAND_DIGEST_MARK:
        return;
    }
    r->failed = true;
}

uint32_t command_kind_format(uint8_t kind)
{
    switch ((enum command_kind)kind) {
    case COMMAND_INIT:
    case COMMAND_SKU_PUT:
    case COMMAND_STOCK_ADJUST:
    case COMMAND_SALE_PUT:
    case COMMAND_SALE_PAUSE:
    case COMMAND_SALE_RESUME:
    case COMMAND_SALE_CLOSE:
    case COMMAND_ELIGIBILITY_GRANT:
    case COMMAND_ELIGIBILITY_REVOKE:
    case COMMAND_ORDER_PLACE:
    case COMMAND_ORDER_CANCEL:
    case COMMAND_PAYMENT_APPLY:
    case COMMAND_ORDER_REFUND:
    case COMMAND_LEASE_ACQUIRE:
    case COMMAND_LEASE_RENEW:
    case COMMAND_LEASE_RELEASE:
    case COMMAND_DENY_PUT:
    case COMMAND_DENY_REMOVE:
    case COMMAND_PERSIST_ACK:
    case COMMAND_DIGEST_MARK:
        return 1;
    }
    return 0;
}

size_t command_encode(const struct command *c, void *out, size_t size)
{
    if (!well_formed(c)) {
        return 0;
    }
    struct writer w = writer_init(out, size < COMMAND_SIZE_MAX ? size : COMMAND_SIZE_MAX);
    writer_u8(&w, (uint8_t)c->kind);
    writer_str8(&w, c->scope);
    writer_str8(&w, c->key);
    put_body(&w, c);
    return w.failed ? 0 : writer_size(&w);
}

int command_decode(struct command *c, const void *data, size_t size)
{
    struct reader r = reader_init(data, size);
    uint8_t kind = reader_u8(&r);
    if (size > COMMAND_SIZE_MAX || kind < 1 || kind > COMMAND_KIND_MAX) {
        return -1;
    }
    c->kind = (enum command_kind)kind;
    c->scope = reader_str8(&r);
    c->key = reader_str8(&r);
    c->body = r.at;
    c->body_size = (uint32_t)reader_left(&r);
    get_body(&r, c);
    return r.failed || reader_left(&r) != 0 || !well_formed(c) ? -1 : 0;
}

static const char *const result_codes[] = {
    [RESULT_OK] = "OK",
    [RESULT_INVALID] = "INVALID_REQUEST",
    [RESULT_IDEMPOTENCY_KEY_REUSED] = "IDEMPOTENCY_KEY_REUSED",
    [RESULT_NOT_FOUND] = "NOT_FOUND",
    [RESULT_FORBIDDEN] = "FORBIDDEN",
    [RESULT_STALE_VERSION] = "STALE_VERSION",
    [RESULT_SALE_CLOSED] = "SALE_CLOSED",
    [RESULT_SALE_PAUSED] = "SALE_PAUSED",
    [RESULT_SALE_NOT_OPEN] = "SALE_NOT_OPEN",
    [RESULT_DENYLISTED] = "DENYLISTED",
    [RESULT_QUANTITY_LIMIT] = "QUANTITY_LIMIT",
    [RESULT_NOT_ELIGIBLE] = "NOT_ELIGIBLE",
    [RESULT_ELIGIBILITY_EXHAUSTED] = "ELIGIBILITY_EXHAUSTED",
    [RESULT_ORDER_LIMIT_REACHED] = "ORDER_LIMIT_REACHED",
    [RESULT_SOLD_OUT] = "SOLD_OUT",
    [RESULT_INSUFFICIENT_STOCK] = "INSUFFICIENT_STOCK",
    [RESULT_ORDER_NOT_PAYABLE] = "ORDER_NOT_PAYABLE",
    [RESULT_AMOUNT_MISMATCH] = "AMOUNT_MISMATCH",
    [RESULT_ORDER_NOT_CANCELLABLE] = "ORDER_NOT_CANCELLABLE",
    [RESULT_ORDER_NOT_REFUNDABLE] = "ORDER_NOT_REFUNDABLE",
    [RESULT_LEASE_HELD] = "LEASE_HELD",
    [RESULT_STALE_FENCING_TOKEN] = "STALE_FENCING_TOKEN",
    [RESULT_BACKLOG_FULL] = "BACKLOG_FULL",
    [RESULT_CAPACITY] = "CAPACITY",
};
_Static_assert(ARRAY_COUNT(result_codes) == RESULT_MAX + 1, "a code for every result");

const char *result_code(enum result r)
{
    return (unsigned)r <= RESULT_MAX ? result_codes[r] : "UNKNOWN";
}

const char *engine_limit_name(enum engine_limit l)
{
    static const char *const names[] = {
        "none",       "skus_max",        "sales_max",  "users_max", "eligibilities_max",
        "orders_max", "idempotency_max", "leases_max", "events_max"};
    return (unsigned)l < ARRAY_COUNT(names) ? names[l] : "unknown";
}

const char *order_status_name(enum order_status s)
{
    static const char *const names[] = {"none",    "pending_payment", "paid",    "cancelled",
                                        "expired", "refund_due",      "refunded"};
    return (unsigned)s < ARRAY_COUNT(names) ? names[s] : "unknown";
}

const char *sale_phase_name(enum sale_phase p)
{
    static const char *const names[] = {"scheduled", "eligibility", "waiting",
                                        "open",      "paused",      "closed"};
    return (unsigned)p < ARRAY_COUNT(names) ? names[p] : "unknown";
}

void reply_encode(const struct reply *r, uint8_t out[static REPLY_SIZE])
{
    struct writer w = writer_init(out, REPLY_SIZE);
    writer_u8(&w, r->result);
    writer_u8(&w, r->flags);
    writer_u8(&w, r->order_status);
    writer_u8(&w, r->sale_phase);
    writer_u32(&w, r->detail);
    writer_u64(&w, r->index);
    writer_u64(&w, r->origin_index);
    writer_u64(&w, (uint64_t)r->time_ms);
    writer_u64(&w, r->order);
    writer_u64(&w, (uint64_t)r->amount);
    writer_bytes(&w, r->currency, sizeof r->currency);
    writer_u32(&w, r->line);
    writer_u64(&w, (uint64_t)r->created_ms);
    writer_u64(&w, (uint64_t)r->pay_by_ms);
    writer_u64(&w, r->version);
    writer_u64(&w, r->token);
    writer_u64(&w, (uint64_t)r->expires_ms);
    writer_u64(&w, (uint64_t)r->opens_ms);
    writer_u64(&w, (uint64_t)r->available);
    writer_u64(&w, (uint64_t)r->reserved);
    writer_u64(&w, (uint64_t)r->sold);
    memset(w.at, 0, (size_t)(w.end - w.at));
    CHECK(!w.failed);
}

int reply_decode(struct reply *r, const void *data, size_t size)
{
    if (size != REPLY_SIZE) {
        return -1;
    }
    struct reader in = reader_init(data, size);
    r->result = reader_u8(&in);
    r->flags = reader_u8(&in);
    r->order_status = reader_u8(&in);
    r->sale_phase = reader_u8(&in);
    r->detail = reader_u32(&in);
    r->index = reader_u64(&in);
    r->origin_index = reader_u64(&in);
    r->time_ms = (int64_t)reader_u64(&in);
    r->order = reader_u64(&in);
    r->amount = (int64_t)reader_u64(&in);
    memcpy(r->currency, reader_bytes(&in, sizeof r->currency), sizeof r->currency);
    r->currency[3] = '\0';
    r->line = reader_u32(&in);
    r->created_ms = (int64_t)reader_u64(&in);
    r->pay_by_ms = (int64_t)reader_u64(&in);
    r->version = reader_u64(&in);
    r->token = reader_u64(&in);
    r->expires_ms = (int64_t)reader_u64(&in);
    r->opens_ms = (int64_t)reader_u64(&in);
    r->available = (int64_t)reader_u64(&in);
    r->reserved = (int64_t)reader_u64(&in);
    r->sold = (int64_t)reader_u64(&in);
    return r->result <= RESULT_MAX && r->order_status <= ORDER_REFUNDED &&
                   r->sale_phase <= SALE_CLOSED
               ? 0
               : -1;
}

#define BATCH_HEADER_SIZE 16

void batch_begin(struct batch_builder *b, void *buffer, size_t capacity)
{
    CHECK(capacity >= BATCH_HEADER_SIZE);
    *b = (struct batch_builder){buffer, BATCH_HEADER_SIZE, capacity, 0};
}

bool batch_add(struct batch_builder *b, const void *command, size_t size)
{
    if (b->count == BATCH_COMMANDS_MAX || b->capacity - b->size < size + sizeof(uint32_t)) {
        return false;
    }
    store_u32(b->data + b->size, (uint32_t)size);
    memcpy(b->data + b->size + sizeof(uint32_t), command, size);
    b->size += sizeof(uint32_t) + size;
    b->count++;
    return true;
}

size_t batch_end(struct batch_builder *b, int64_t leader_time_ms)
{
    store_u32(b->data, BATCH_VERSION); /* one byte, and three that are zero */
    store_u32(b->data + 4, b->count);
    store_u64(b->data + 8, (uint64_t)leader_time_ms);
    return b->size;
}

int batch_open(struct batch_reader *b, const void *data, size_t size)
{
    const uint8_t *p = data;
    if (size < BATCH_HEADER_SIZE || load_u32(p) != BATCH_VERSION ||
        load_u32(p + 4) > BATCH_COMMANDS_MAX) {
        return -1;
    }
    b->count = load_u32(p + 4);
    b->leader_time_ms = (int64_t)load_u64(p + 8);
    b->at = p + BATCH_HEADER_SIZE;
    b->end = p + size;
    return 0;
}

int batch_judge(const void *data, size_t size, char *what, size_t what_size)
{
    struct batch_reader b;
    const void *command;
    size_t command_size;
    if (size >= BATCH_HEADER_SIZE && load_u32(data) != BATCH_VERSION) {
        snprintf(what, what_size, "a batch of version %u, where version %u is known",
                 load_u32(data), (unsigned)BATCH_VERSION);
        return -1;
    }
    if (batch_open(&b, data, size) < 0) {
        return 0; /* damage, not age: not ours to name */
    }
    while (batch_next(&b, &command, &command_size) > 0) {
        uint8_t kind = command_size > 0 ? *(const uint8_t *)command : 0;
        if (kind > COMMAND_KIND_MAX) {
            snprintf(what, what_size, "a command of kind %u, where kinds up to %d are known", kind,
                     COMMAND_KIND_MAX);
            return -1;
        }
    }
    return 0;
}

int batch_next(struct batch_reader *b, const void **command, size_t *size)
{
    size_t left = (size_t)(b->end - b->at);
    if (b->count == 0) {
        return left < 8 ? 0 : -1; /* the log pads entries to a multiple of 8 */
    }
    if (left < sizeof(uint32_t) || left - sizeof(uint32_t) < load_u32(b->at)) {
        return -1;
    }
    *size = load_u32(b->at);
    *command = b->at + sizeof(uint32_t);
    b->at += sizeof(uint32_t) + *size;
    b->count--;
    return 1;
}
