/* Owns: the examples. They tell one small sale, so that applied in order most of them succeed. */
#include "tests/fuzz/commands.h"

#include <string.h>

#include "base/check.h"
#include "proto/order_id.h"

#define T(literal) STR_LITERAL(literal)

static const struct command_limits small = {.skus_max = 8,
                                            .sales_max = 4,
                                            .users_max = 12,
                                            .eligibilities_max = 8,
                                            .orders_max = 16,
                                            .idempotency_max = 24,
                                            .leases_max = 3,
                                            .events_max = 48,
                                            .expiries_per_batch_max = 4,
                                            .idempotency_retention_ms = 60000};

static struct command init_command(void)
{
    struct command c = {.kind = COMMAND_INIT, .scope = T("sys"), .key = T("init")};
    memset(c.init.cluster_id, 7, sizeof c.init.cluster_id);
    memset(c.init.hash_seed, 9, sizeof c.init.hash_seed);
    c.init.shards = 4;
    c.init.limits = small;
    return c;
}

size_t commands_encode_init(uint8_t *out, size_t size)
{
    struct command c = init_command();
    size_t n = command_encode(&c, out, size);
    CHECK(n > 0);
    return n;
}

static struct command_sale sale(void)
{
    struct command_sale s = {.id = T("s"),
                             .title = T("Ein Verkauf \xE2\x82\xAC"),
                             .expected_version = COMMAND_VERSION_ANY,
                             .currency = "EUR",
                             .opens_ms = 1000,
                             .closes_ms = 900000,
                             .payment_timeout_ms = 5000,
                             .late_payment = LATE_PAYMENT_ACCEPT_IF_AVAILABLE,
                             .orders_per_user_max = 3,
                             .units_per_user_max = 9,
                             .eligibility_limit = 5,
                             .strikes_max = 2,
                             .denial_ms = 10000,
                             .offers_count = 2};
    s.offers[0] = (struct command_offer){T("A"), 1999, 4, 1};
    s.offers[1] = (struct command_offer){T("B"), 500, 2, 0};
    return s;
}

bool commands_example(unsigned i, struct command *c)
{
    /* The first order below is placed by the first command of batch 7 in the target that applies. */
    const uint64_t order = order_id_make(7, 0, 0);
    memset(c, 0, sizeof *c);
    c->scope = T("k:shop");
    switch (i) {
    case 0:
        *c = init_command();
        return true;
    case 1:
        c->kind = COMMAND_SKU_PUT;
        c->sku_put.sku = T("A");
        c->sku_put.title = T("A thing");
        c->sku_put.expected_version = COMMAND_VERSION_ANY;
        return true;
    case 2:
        c->kind = COMMAND_SKU_PUT;
        c->sku_put.sku = T("B");
        c->sku_put.expected_version = 0;
        return true;
    case 3:
        c->kind = COMMAND_STOCK_ADJUST;
        c->key = T("k1");
        c->stock_adjust.sku = T("A");
        c->stock_adjust.reason = T("delivery");
        c->stock_adjust.delta = 10;
        return true;
    case 4:
        c->kind = COMMAND_SALE_PUT;
        c->sale_put = sale();
        return true;
    case 5:
        c->kind = COMMAND_ELIGIBILITY_GRANT;
        c->eligibility.sale = T("s");
        c->eligibility.user = T("u1");
        return true;
    case 6:
        c->kind = COMMAND_ORDER_PLACE;
        c->scope = T("u:u1");
        c->key = T("o1");
        c->order_place.sale = T("s");
        c->order_place.user = T("u1");
        c->order_place.lines_count = 2;
        c->order_place.lines[0] = (struct command_line){T("A"), 2};
        c->order_place.lines[1] = (struct command_line){T("A"), 1};
        return true;
    case 7:
        c->kind = COMMAND_PAYMENT_APPLY;
        c->scope = T("pay");
        c->key = T("evt_1");
        c->payment.order = order;
        c->payment.amount = 5997;
        memcpy(c->payment.currency, "EUR", 4);
        return true;
    case 8:
        c->kind = COMMAND_ORDER_REFUND;
        c->key = T("r1");
        c->order_refund.order = order;
        c->order_refund.restock = true;
        c->order_refund.reason = T("broken");
        return true;
    case 9:
        c->kind = COMMAND_ORDER_CANCEL;
        c->key = T("c1");
        c->order_cancel.order = order;
        c->order_cancel.user = T("u1");
        return true;
    case 10:
        c->kind = COMMAND_SALE_PAUSE;
        c->sale_control.sale = T("s");
        c->sale_control.expected_version = COMMAND_VERSION_ANY;
        return true;
    case 11:
        c->kind = COMMAND_SALE_RESUME;
        c->sale_control.sale = T("s");
        c->sale_control.expected_version = COMMAND_VERSION_ANY;
        return true;
    case 12:
        c->kind = COMMAND_LEASE_ACQUIRE;
        c->key = T("l1");
        c->lease.name = T("job");
        c->lease.owner = T("w1");
        c->lease.ttl_ms = 1000;
        return true;
    case 13:
        c->kind = COMMAND_LEASE_RENEW;
        c->lease.name = T("job");
        c->lease.owner = T("w1");
        c->lease.token = 1;
        c->lease.ttl_ms = 2000;
        return true;
    case 14:
        c->kind = COMMAND_LEASE_RELEASE;
        c->lease.name = T("job");
        c->lease.owner = T("w1");
        c->lease.token = 1;
        return true;
    case 15:
        c->kind = COMMAND_DENY_PUT;
        c->deny.user = T("u2");
        c->deny.reason = T("bot");
        c->deny.until_ms = 60000;
        return true;
    case 16:
        c->kind = COMMAND_DENY_REMOVE;
        c->deny.user = T("u2");
        return true;
    case 17:
        c->kind = COMMAND_PERSIST_ACK;
        c->scope = T("sys");
        c->persist_ack.count = 2;
        c->persist_ack.acks[0] = (struct command_ack){0, 1};
        c->persist_ack.acks[1] = (struct command_ack){1, 2};
        return true;
    case 18:
        c->kind = COMMAND_DIGEST_MARK;
        c->scope = T("sys");
        return true;
    case 19:
        c->kind = COMMAND_ELIGIBILITY_REVOKE;
        c->eligibility.sale = T("s");
        c->eligibility.user = T("u1");
        return true;
    case 20:
        c->kind = COMMAND_SALE_CLOSE;
        c->sale_control.sale = T("s");
        c->sale_control.expected_version = COMMAND_VERSION_ANY;
        return true;
    default:
        return false;
    }
}
