/* Commands, replies, batches, order ids, shards: what goes in comes out, and nothing else gets in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/prng.h"
#include "proto/command.h"
#include "proto/format.h"
#include "proto/order_id.h"
#include "proto/shard.h"

static struct str long_id(char c, uint32_t len)
{
    static char text[8][256];
    static unsigned next;
    char *at = text[next++ % 8];
    memset(at, c, len);
    return (struct str){at, len};
}

/* A full command of each kind. */
static struct command sample(enum command_kind kind)
{
    struct command c;
    memset(&c, 0, sizeof c);
    c.kind = kind;
    c.scope = STR_LITERAL("u:alice");
    c.key = STR_LITERAL("key-1");
    switch (kind) {
    case COMMAND_INIT:
        memset(c.init.cluster_id, 1, 16);
        memset(c.init.hash_seed, 2, 16);
        c.init.shards = SHARDS_MAX;
        c.init.limits = (struct command_limits){1, 2, 3, 4, 5, 6, 7, 1u << 28, 9, DURATION_MS_MAX};
        break;
    case COMMAND_SKU_PUT:
        c.sku_put.sku = long_id('s', ID_SIZE_MAX);
        c.sku_put.title = long_id('t', TITLE_SIZE_MAX);
        c.sku_put.expected_version = COMMAND_VERSION_ANY;
        break;
    case COMMAND_STOCK_ADJUST:
        c.stock_adjust.sku = STR_LITERAL("A");
        c.stock_adjust.reason = STR_LITERAL("gez\xC3\xA4hlt");
        c.stock_adjust.delta = -STOCK_MAX;
        break;
    case COMMAND_SALE_PUT:
        c.sale_put = (struct command_sale){
            .id = STR_LITERAL("sale"), .title = STR_LITERAL("T"), .expected_version = 3,
            .currency = "EUR", .eligibility_opens_ms = 1, .eligibility_closes_ms = 2, .opens_ms = 3,
            .closes_ms = TIME_MS_MAX, .payment_timeout_ms = DURATION_MS_MAX,
            .late_payment = LATE_PAYMENT_ACCEPT_IF_AVAILABLE, .eligibility_required = true,
            .orders_per_user_max = 1, .units_per_user_max = 2, .eligibility_limit = 3,
            .eligibility_ratio_permille = 4, .strikes_max = 5, .denial_ms = 6, .offers_count = 2};
        c.sale_put.offers[0] = (struct command_offer){STR_LITERAL("A"), UNIT_PRICE_MAX, QUANTITY_MAX, 7};
        c.sale_put.offers[1] = (struct command_offer){STR_LITERAL("B"), 0, 1, 0};
        break;
    case COMMAND_SALE_PAUSE:
    case COMMAND_SALE_RESUME:
    case COMMAND_SALE_CLOSE:
        c.sale_control.sale = STR_LITERAL("sale");
        c.sale_control.expected_version = 9;
        break;
    case COMMAND_ELIGIBILITY_GRANT:
    case COMMAND_ELIGIBILITY_REVOKE:
        c.eligibility.sale = STR_LITERAL("sale");
        c.eligibility.user = STR_LITERAL("alice");
        break;
    case COMMAND_ORDER_PLACE:
        c.order_place.sale = STR_LITERAL("sale");
        c.order_place.user = STR_LITERAL("alice");
        c.order_place.lines_count = 3;
        c.order_place.lines[0] = (struct command_line){STR_LITERAL("A"), 1};
        c.order_place.lines[1] = (struct command_line){STR_LITERAL("B"), QUANTITY_MAX};
        c.order_place.lines[2] = (struct command_line){STR_LITERAL("A"), 2};
        break;
    case COMMAND_ORDER_CANCEL:
        c.order_cancel.order = 77;
        c.order_cancel.user = STR_LITERAL("alice");
        break;
    case COMMAND_PAYMENT_APPLY:
        c.payment.order = 77;
        c.payment.amount = INT64_MAX;
        memcpy(c.payment.currency, "JPY", 4);
        break;
    case COMMAND_ORDER_REFUND:
        c.order_refund.order = 77;
        c.order_refund.restock = true;
        c.order_refund.reason = STR_LITERAL("broken");
        break;
    case COMMAND_LEASE_ACQUIRE:
    case COMMAND_LEASE_RENEW:
    case COMMAND_LEASE_RELEASE:
        c.lease.name = STR_LITERAL("job");
        c.lease.owner = STR_LITERAL("host:1");
        c.lease.token = kind == COMMAND_LEASE_ACQUIRE ? 0 : 5;
        c.lease.ttl_ms = kind == COMMAND_LEASE_RELEASE ? 0 : 1000;
        break;
    case COMMAND_DENY_PUT:
        c.deny.user = STR_LITERAL("mallory");
        c.deny.reason = STR_LITERAL("bot");
        c.deny.until_ms = TIME_MS_MAX;
        break;
    case COMMAND_DENY_REMOVE:
        c.deny.user = STR_LITERAL("mallory");
        break;
    case COMMAND_PERSIST_ACK:
        c.persist_ack.count = PERSIST_ACKS_MAX;
        for (uint32_t i = 0; i < PERSIST_ACKS_MAX; i++) {
            c.persist_ack.acks[i] = (struct command_ack){i, 1000 + i};
        }
        break;
    case COMMAND_DIGEST_MARK:
        break;
    }
    return c;
}

/* Decodes and encodes again: the same bytes, or it was refused. Returns whether it was a command. */
static bool decodes_to_itself(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size > 0 ? size : 1); /* so that reading past the end is seen */
    memcpy(exact, data, size);
    static struct command c;
    bool ok = command_decode(&c, exact, size) == 0;
    if (ok) {
        static uint8_t again[COMMAND_SIZE_MAX];
        assert_int_equal(command_encode(&c, again, sizeof again), size);
        assert_memory_equal(again, data, size);
    }
    free(exact);
    return ok;
}

static void test_round_trip_of_every_kind(void **state)
{
    (void)state;
    for (int kind = 1; kind <= COMMAND_KIND_MAX; kind++) {
        struct command c = sample((enum command_kind)kind), d;
        uint8_t data[COMMAND_SIZE_MAX];
        size_t size = command_encode(&c, data, sizeof data);
        assert_true(size > 0);
        assert_int_equal(command_decode(&d, data, size), 0);
        assert_int_equal(d.kind, kind);
        assert_true(str_equal(c.scope, d.scope) && str_equal(c.key, d.key));
        assert_int_equal(d.body_size, size - 3 - d.scope.len - d.key.len);
        assert_ptr_equal(d.body + d.body_size, data + size);
        assert_true(decodes_to_itself(data, size));
        assert_int_equal(command_encode(&c, data, size - 1), 0); /* no room */
        assert_int_equal(command_encode(&c, data, size), size);
    }
}

static void test_fields_survive(void **state)
{
    (void)state;
    uint8_t data[COMMAND_SIZE_MAX];
    static struct command c, d;
    c = sample(COMMAND_SALE_PUT);
    assert_int_equal(command_decode(&d, data, command_encode(&c, data, sizeof data)), 0);
    assert_true(d.sale_put.closes_ms == TIME_MS_MAX && d.sale_put.opens_ms == 3);
    assert_true(d.sale_put.eligibility_opens_ms == 1 && d.sale_put.eligibility_closes_ms == 2);
    assert_true(d.sale_put.payment_timeout_ms == DURATION_MS_MAX && d.sale_put.denial_ms == 6);
    assert_int_equal(d.sale_put.late_payment, LATE_PAYMENT_ACCEPT_IF_AVAILABLE);
    assert_true(d.sale_put.eligibility_required && d.sale_put.expected_version == 3);
    assert_int_equal(d.sale_put.orders_per_user_max, 1);
    assert_int_equal(d.sale_put.units_per_user_max, 2);
    assert_int_equal(d.sale_put.eligibility_limit, 3);
    assert_int_equal(d.sale_put.eligibility_ratio_permille, 4);
    assert_int_equal(d.sale_put.strikes_max, 5);
    assert_string_equal(d.sale_put.currency, "EUR");
    assert_int_equal(d.sale_put.offers_count, 2);
    assert_true(d.sale_put.offers[0].unit_price == UNIT_PRICE_MAX);
    assert_int_equal(d.sale_put.offers[0].units_per_order_max, QUANTITY_MAX);
    assert_int_equal(d.sale_put.offers[0].oversell_allowance, 7);
    c = sample(COMMAND_ORDER_PLACE);
    assert_int_equal(command_decode(&d, data, command_encode(&c, data, sizeof data)), 0);
    assert_int_equal(d.order_place.lines_count, 3);
    assert_true(str_equal(d.order_place.lines[1].sku, STR_LITERAL("B")));
    assert_int_equal(d.order_place.lines[1].quantity, QUANTITY_MAX);
    c = sample(COMMAND_PAYMENT_APPLY);
    assert_int_equal(command_decode(&d, data, command_encode(&c, data, sizeof data)), 0);
    assert_true(d.payment.order == 77 && d.payment.amount == INT64_MAX);
    assert_string_equal(d.payment.currency, "JPY");
    c = sample(COMMAND_STOCK_ADJUST);
    assert_int_equal(command_decode(&d, data, command_encode(&c, data, sizeof data)), 0);
    assert_true(d.stock_adjust.delta == -STOCK_MAX);
}

/* Cut short, made longer, each bit flipped, random bytes: refused, or another well-formed command that
 * has exactly this encoding. */
static void test_mutations(void **state)
{
    (void)state;
    struct prng p = prng_init(1);
    for (int kind = 1; kind <= COMMAND_KIND_MAX; kind++) {
        struct command c = sample((enum command_kind)kind);
        uint8_t data[COMMAND_SIZE_MAX + 8], mutant[COMMAND_SIZE_MAX + 8];
        size_t size = command_encode(&c, data, COMMAND_SIZE_MAX);
        for (size_t cut = 0; cut < size; cut++) {
            assert_false(decodes_to_itself(data, cut));
        }
        data[size] = 0;
        assert_false(decodes_to_itself(data, size + 1));
        for (size_t bit = 0; bit < size * 8; bit++) {
            memcpy(mutant, data, size);
            mutant[bit / 8] ^= (uint8_t)(1u << bit % 8);
            decodes_to_itself(mutant, size);
        }
        for (int i = 0; i < 2000; i++) {
            memcpy(mutant, data, size);
            for (uint64_t n = 1 + prng_below(&p, 6); n > 0; n--) {
                mutant[prng_below(&p, size)] = (uint8_t)prng_next(&p);
            }
            decodes_to_itself(mutant, 1 + prng_below(&p, size));
        }
    }
    for (int i = 0; i < 20000; i++) {
        uint8_t noise[200];
        for (size_t j = 0; j < sizeof noise; j++) {
            noise[j] = (uint8_t)prng_below(&p, prng_one_in(&p, 3) ? 256 : 24);
        }
        decodes_to_itself(noise, prng_below(&p, sizeof noise));
    }
}

/* One field out of range: neither encodes, nor (where bytes can say it) decodes. */
#define REFUSED(kind_, statement)                                         \
    do {                                                                  \
        struct command c = sample(kind_);                                 \
        statement;                                                        \
        uint8_t data_[COMMAND_SIZE_MAX];                                  \
        assert_int_equal(command_encode(&c, data_, sizeof data_), 0);     \
    } while (0)

static void test_out_of_range(void **state)
{
    (void)state;
    REFUSED(COMMAND_SKU_PUT, c.sku_put.sku = long_id('s', ID_SIZE_MAX + 1));
    REFUSED(COMMAND_SKU_PUT, c.sku_put.sku = STR_LITERAL(""));
    REFUSED(COMMAND_SKU_PUT, c.sku_put.sku = STR_LITERAL("a b"));
    REFUSED(COMMAND_SKU_PUT, c.sku_put.sku = STR_LITERAL("a\0b"));
    REFUSED(COMMAND_SKU_PUT, c.sku_put.sku = STR_LITERAL("\xC3\xA4"));
    REFUSED(COMMAND_SKU_PUT, c.sku_put.title = long_id('t', TITLE_SIZE_MAX + 1));
    REFUSED(COMMAND_SKU_PUT, c.sku_put.title = STR_LITERAL("\xC3"));
    REFUSED(COMMAND_SKU_PUT, c.key = long_id('k', KEY_SIZE_MAX + 1));
    REFUSED(COMMAND_SKU_PUT, c.scope = long_id('k', SCOPE_SIZE_MAX + 1));
    REFUSED(COMMAND_SKU_PUT, c.key = STR_LITERAL("a/b"));
    REFUSED(COMMAND_STOCK_ADJUST, c.stock_adjust.delta = 0);
    REFUSED(COMMAND_STOCK_ADJUST, c.stock_adjust.delta = STOCK_MAX + 1);
    REFUSED(COMMAND_STOCK_ADJUST, c.stock_adjust.delta = INT64_MIN);
    REFUSED(COMMAND_SALE_PUT, c.sale_put.offers_count = 0);
    REFUSED(COMMAND_SALE_PUT, c.sale_put.offers_count = SALE_OFFERS_MAX + 1);
    REFUSED(COMMAND_SALE_PUT, c.sale_put.offers[1].sku = STR_LITERAL("A"));
    REFUSED(COMMAND_SALE_PUT, c.sale_put.offers[0].unit_price = -1);
    REFUSED(COMMAND_SALE_PUT, c.sale_put.offers[0].unit_price = UNIT_PRICE_MAX + 1);
    REFUSED(COMMAND_SALE_PUT, c.sale_put.offers[0].units_per_order_max = 0);
    REFUSED(COMMAND_SALE_PUT, c.sale_put.offers[0].units_per_order_max = QUANTITY_MAX + 1);
    REFUSED(COMMAND_SALE_PUT, c.sale_put.closes_ms = c.sale_put.opens_ms);
    REFUSED(COMMAND_SALE_PUT, c.sale_put.closes_ms = TIME_MS_MAX + 1);
    REFUSED(COMMAND_SALE_PUT, c.sale_put.opens_ms = -1);
    REFUSED(COMMAND_SALE_PUT, c.sale_put.eligibility_closes_ms = 0);
    REFUSED(COMMAND_SALE_PUT, c.sale_put.payment_timeout_ms = 0);
    REFUSED(COMMAND_SALE_PUT, c.sale_put.payment_timeout_ms = DURATION_MS_MAX + 1);
    REFUSED(COMMAND_SALE_PUT, c.sale_put.late_payment = 2);
    REFUSED(COMMAND_SALE_PUT, c.sale_put.orders_per_user_max = 0);
    REFUSED(COMMAND_SALE_PUT, memcpy(c.sale_put.currency, "eur", 4));
    REFUSED(COMMAND_ORDER_PLACE, c.order_place.lines_count = 0);
    REFUSED(COMMAND_ORDER_PLACE, c.order_place.lines_count = ORDER_LINES_MAX + 1);
    REFUSED(COMMAND_ORDER_PLACE, c.order_place.lines[2].quantity = 0);
    REFUSED(COMMAND_ORDER_PLACE, c.order_place.lines[2].quantity = QUANTITY_MAX + 1);
    REFUSED(COMMAND_ORDER_CANCEL, c.order_cancel.order = 0);
    REFUSED(COMMAND_PAYMENT_APPLY, c.payment.amount = -1);
    REFUSED(COMMAND_PAYMENT_APPLY, c.key = STR_LITERAL(""));
    REFUSED(COMMAND_PAYMENT_APPLY, memcpy(c.payment.currency, "EU\0", 4));
    REFUSED(COMMAND_ORDER_REFUND, c.order_refund.reason = long_id('r', REASON_SIZE_MAX + 1));
    REFUSED(COMMAND_LEASE_ACQUIRE, c.lease.token = 1);
    REFUSED(COMMAND_LEASE_ACQUIRE, c.lease.ttl_ms = 0);
    REFUSED(COMMAND_LEASE_RENEW, c.lease.token = 0);
    REFUSED(COMMAND_LEASE_RENEW, c.lease.ttl_ms = DURATION_MS_MAX + 1);
    REFUSED(COMMAND_LEASE_RELEASE, c.lease.ttl_ms = 1);
    REFUSED(COMMAND_DENY_PUT, c.deny.until_ms = -1);
    REFUSED(COMMAND_DENY_REMOVE, c.deny.until_ms = 1);
    REFUSED(COMMAND_PERSIST_ACK, c.persist_ack.count = 0);
    REFUSED(COMMAND_PERSIST_ACK, c.persist_ack.count = PERSIST_ACKS_MAX + 1);
    REFUSED(COMMAND_PERSIST_ACK, c.persist_ack.acks[0].shard = SHARDS_MAX);
    REFUSED(COMMAND_INIT, c.init.shards = 0);
    REFUSED(COMMAND_INIT, c.init.shards = SHARDS_MAX + 1);
    REFUSED(COMMAND_INIT, c.init.limits.orders_max = 0);
    REFUSED(COMMAND_INIT, c.init.limits.users_max = (1u << 28) + 1);
    REFUSED(COMMAND_INIT, c.init.limits.expiries_per_batch_max = 0);
}

/* Every byte at every place of identifiers of every length: they are checked many bytes at a time. */
static void test_identifier_bytes(void **state)
{
    (void)state;
    static const char good[] = "abzAZ09._:@|+~-";
    for (uint32_t len = 1; len <= 40; len++) {
        char *id = malloc(len); /* exact, so that reading past the end is seen */
        for (uint32_t at = 0; at < len; at++) {
            for (uint32_t i = 0; i < len; i++) {
                id[i] = good[(i * 7 + len) % (sizeof good - 1)];
            }
            for (int byte = 0; byte < 256; byte++) {
                id[at] = (char)byte;
                bool letter = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                              (byte >= '0' && byte <= '9');
                bool wanted = letter || (byte != 0 && strchr("._:@|+~-", byte) != NULL);
                assert_int_equal(str_is_identifier((struct str){id, len}, ID_SIZE_MAX), wanted);
            }
        }
        free(id);
    }
}

static void test_largest_commands_fit(void **state)
{
    (void)state;
    static struct command c;
    c = sample(COMMAND_SALE_PUT);
    c.scope = long_id('s', SCOPE_SIZE_MAX);
    c.key = long_id('k', KEY_SIZE_MAX);
    c.sale_put.offers_count = SALE_OFFERS_MAX;
    static char ids[SALE_OFFERS_MAX][ID_SIZE_MAX];
    for (int i = 0; i < SALE_OFFERS_MAX; i++) {
        memset(ids[i], 'a', ID_SIZE_MAX);
        ids[i][0] = (char)('0' + i / 10);
        ids[i][1] = (char)('0' + i % 10);
        c.sale_put.offers[i] = (struct command_offer){{ids[i], ID_SIZE_MAX}, 1, 1, 0};
    }
    static uint8_t data[COMMAND_SIZE_MAX];
    size_t size = command_encode(&c, data, sizeof data);
    assert_true(size > SALE_OFFERS_MAX * ID_SIZE_MAX);
    assert_true(decodes_to_itself(data, size));
}

static void test_reply(void **state)
{
    (void)state;
    struct reply r;
    memset(&r, 0, sizeof r);
    r = (struct reply){.result = RESULT_SOLD_OUT, .flags = REPLY_REPLAYED | REPLY_EXISTED,
                       .order_status = ORDER_REFUNDED, .sale_phase = SALE_CLOSED, .detail = 1,
                       .index = 2, .origin_index = 3, .time_ms = 4, .order = 5, .amount = -6,
                       .currency = "EUR", .line = 7, .created_ms = 8, .pay_by_ms = 9, .version = 10,
                       .token = 11, .expires_ms = 12, .opens_ms = 13, .available = -14,
                       .reserved = 15, .sold = 16};
    uint8_t data[REPLY_SIZE], again[REPLY_SIZE];
    reply_encode(&r, data);
    struct reply d;
    assert_int_equal(reply_decode(&d, data, sizeof data), 0);
    reply_encode(&d, again);
    assert_memory_equal(data, again, sizeof data);
    assert_true(d.result == RESULT_SOLD_OUT && d.index == 2 && d.origin_index == 3 && d.time_ms == 4);
    assert_true(d.order == 5 && d.amount == -6 && d.line == 7 && d.created_ms == 8);
    assert_true(d.pay_by_ms == 9 && d.version == 10 && d.token == 11 && d.expires_ms == 12);
    assert_true(d.opens_ms == 13 && d.available == -14 && d.reserved == 15 && d.sold == 16);
    assert_true(d.flags == (REPLY_REPLAYED | REPLY_EXISTED) && d.detail == 1);
    assert_string_equal(d.currency, "EUR");
    assert_int_equal(reply_decode(&d, data, sizeof data - 1), -1);
    data[0] = RESULT_MAX + 1;
    assert_int_equal(reply_decode(&d, data, sizeof data), -1);
    data[0] = 0;
    data[2] = ORDER_REFUNDED + 1;
    assert_int_equal(reply_decode(&d, data, sizeof data), -1);
    data[2] = 0;
    data[3] = SALE_CLOSED + 1;
    assert_int_equal(reply_decode(&d, data, sizeof data), -1);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(result_code(RESULT_OK), "OK");
    assert_string_equal(result_code(RESULT_CAPACITY), "CAPACITY");
    assert_string_equal(result_code((enum result)(RESULT_MAX + 1)), "UNKNOWN");
    assert_string_equal(order_status_name(ORDER_PENDING_PAYMENT), "pending_payment");
    assert_string_equal(order_status_name((enum order_status)99), "unknown");
    assert_string_equal(sale_phase_name(SALE_CLOSED), "closed");
    assert_string_equal(sale_phase_name((enum sale_phase)99), "unknown");
    assert_string_equal(engine_limit_name(LIMIT_NONE), "none");
    assert_string_equal(engine_limit_name(LIMIT_EVENTS), "events_max");
    assert_string_equal(engine_limit_name((enum engine_limit)99), "unknown");
}

static void test_batch(void **state)
{
    (void)state;
    uint8_t buffer[256], command[64];
    struct command c = sample(COMMAND_DIGEST_MARK);
    size_t size = command_encode(&c, command, sizeof command);
    struct batch_builder b;
    batch_begin(&b, buffer, sizeof buffer);
    int added = 0;
    while (batch_add(&b, command, size)) {
        added++;
    }
    assert_true(added > 3);
    size_t total = batch_end(&b, 123456);
    assert_true(total <= sizeof buffer);
    struct batch_reader r;
    const void *data;
    size_t got;
    for (size_t padding = 0; padding < 8; padding++) { /* as the log pads an entry */
        uint8_t padded[272] = {0};
        memcpy(padded, buffer, total);
        assert_int_equal(batch_open(&r, padded, total + padding), 0);
        assert_true(r.leader_time_ms == 123456);
        for (int i = 0; i < added; i++) {
            assert_int_equal(batch_next(&r, &data, &got), 1);
            assert_int_equal(got, size);
            assert_memory_equal(data, command, size);
        }
        assert_int_equal(batch_next(&r, &data, &got), 0);
    }
    for (size_t cut = 0; cut < total; cut++) { /* cut short: found, at the latest at the end */
        int step = batch_open(&r, buffer, cut) == 0 ? 1 : -1;
        while (step == 1) {
            step = batch_next(&r, &data, &got);
        }
        assert_int_equal(step, -1);
    }
    buffer[0] = BATCH_VERSION + 1;
    assert_int_equal(batch_open(&r, buffer, total), -1);
    buffer[0] = BATCH_VERSION;
    buffer[1] = 1;
    assert_int_equal(batch_open(&r, buffer, total), -1);
    batch_begin(&b, buffer, sizeof buffer);
    assert_int_equal(batch_open(&r, buffer, batch_end(&b, 1)), 0);
    assert_int_equal(batch_next(&r, &data, &got), 0);
}

static void test_batch_count_limit(void **state)
{
    (void)state;
    static uint8_t buffer[BATCH_COMMANDS_MAX * 8 + 64];
    struct batch_builder b;
    batch_begin(&b, buffer, sizeof buffer);
    for (int i = 0; i < BATCH_COMMANDS_MAX; i++) {
        assert_true(batch_add(&b, "abc", 3));
    }
    assert_false(batch_add(&b, "abc", 3));
}

/* What a newer program may have committed is named as such; what this one writes never is. */
static void test_batches_of_other_versions(void **state)
{
    (void)state;
    uint8_t buffer[4096], encoded[COMMAND_SIZE_MAX], newer[3] = {COMMAND_KIND_MAX + 1, 0, 0};
    char what[128] = "";
    struct batch_builder b;
    batch_begin(&b, buffer, sizeof buffer);
    struct command c = sample(COMMAND_ORDER_PLACE);
    assert_true(batch_add(&b, encoded, command_encode(&c, encoded, sizeof encoded)));
    size_t size = batch_end(&b, 5);
    assert_int_equal(batch_judge(buffer, size, what, sizeof what), 0);
    for (size_t cut = 0; cut <= size; cut++) { /* damage is not age */
        assert_int_equal(batch_judge(buffer, cut, what, sizeof what), 0);
    }
    assert_true(batch_add(&b, newer, sizeof newer));
    size = batch_end(&b, 5);
    assert_int_equal(batch_judge(buffer, size, what, sizeof what), -1);
    assert_string_equal(what, "a command of kind 21, where kinds up to 20 are known");
    buffer[0] = BATCH_VERSION + 1;
    assert_int_equal(batch_judge(buffer, size, what, sizeof what), -1);
    assert_string_equal(what, "a batch of version 2, where version 1 is known");
}

static void test_every_kind_has_its_format(void **state)
{
    (void)state;
    assert_int_equal(command_kind_format(0), 0);
    for (unsigned kind = 1; kind <= COMMAND_KIND_MAX; kind++) {
        assert_in_range(command_kind_format((uint8_t)kind), FORMAT_INITIAL, FORMAT_NEWEST);
    }
    for (unsigned kind = COMMAND_KIND_MAX + 1; kind <= 255; kind++) {
        assert_int_equal(command_kind_format((uint8_t)kind), 0);
    }
    assert_int_equal(command_kind_format(COMMAND_INIT), FORMAT_INITIAL);
}

static void test_order_id(void **state)
{
    (void)state;
    struct prng p = prng_init(7);
    char text[ORDER_ID_TEXT_SIZE], before_text[ORDER_ID_TEXT_SIZE] = "";
    uint64_t before = 0;
    for (int i = 0; i < 10000; i++) {
        uint64_t index = 1 + prng_below(&p, ORDER_ID_INDEX_MAX);
        uint32_t position = (uint32_t)prng_below(&p, BATCH_COMMANDS_MAX);
        uint32_t shard = (uint32_t)prng_below(&p, SHARDS_MAX);
        uint64_t id = order_id_make(index, position, shard), back;
        assert_true(order_id_index(id) == index && order_id_shard(id) == shard);
        order_id_format(id, text);
        assert_int_equal(strlen(text), ORDER_ID_TEXT_SIZE - 1);
        assert_int_equal(order_id_parse(str_from(text), &back), 0);
        assert_true(back == id);
        assert_int_equal((strcmp(text, before_text) > 0), (id > before)); /* text order is number order */
        before = id;
        memcpy(before_text, text, sizeof text);
        for (char *c = text; *c != '\0'; c++) {
            *c = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
        }
        assert_int_equal(order_id_parse(str_from(text), &back), 0);
        assert_true(back == id);
    }
    static const char *const bad[] = {"", "0", "0000000000000", "00000000000011", "000000000000U",
                                      "000000000000I", "000000000000-", "8000000000000",
                                      "ZZZZZZZZZZZZZ", "000000 000001", "\303\24400000000001"};
    uint64_t id;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_int_equal(order_id_parse(str_from(bad[i]), &id), -1);
    }
    assert_int_equal(order_id_parse((struct str){"000000\0" "000001", 13}, &id), -1);
    assert_int_equal(order_id_parse(str_from("7ZZZZZZZZZZZZ"), &id), 0);
    assert_true(id == INT64_MAX);
}

/* FNV-1a's published values, so that the SQL function can be checked against the same. */
static void test_shard(void **state)
{
    (void)state;
    assert_int_equal(shard_of_user(STR_LITERAL(""), 1024), 2166136261u % 1024);
    assert_int_equal(shard_of_user(STR_LITERAL("a"), 1024), 0xE40C292Cu % 1024);
    assert_int_equal(shard_of_user(STR_LITERAL("foobar"), 64), 0xBF9CF968u % 64);
    uint32_t counts[64] = {0};
    for (int i = 0; i < 64000; i++) {
        char id[32];
        struct str user = {id, (uint32_t)snprintf(id, sizeof id, "user-%d", i)};
        assert_int_equal(shard_of_user(user, 1), 0);
        counts[shard_of_user(user, 64)]++;
    }
    for (int i = 0; i < 64; i++) {
        assert_in_range(counts[i], 800, 1200);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_of_every_kind),
        cmocka_unit_test(test_fields_survive),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_out_of_range),
        cmocka_unit_test(test_identifier_bytes),
        cmocka_unit_test(test_largest_commands_fit),
        cmocka_unit_test(test_reply),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_batch_count_limit),
        cmocka_unit_test(test_batches_of_other_versions),
        cmocka_unit_test(test_every_kind_has_its_format),
        cmocka_unit_test(test_order_id),
        cmocka_unit_test(test_shard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
