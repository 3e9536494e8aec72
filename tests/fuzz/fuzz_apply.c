/* The state machine under any sequence of well-formed commands (engine/engine.h).
 *
 * Input: a script. Each step is one byte and what it needs: a command made of small numbers (so that
 * users, keys and orders meet), a whole encoded command as it stands, the end of the batch, time that
 * passes, a checkpoint with a restart. Limits are so small that each is reached.
 * Asserted after every batch: no invariant is broken; every reply is one that the wire can carry; a twin
 * that applied the same has the same digest; what a checkpoint gave loads to the same digest. */
#include <stdio.h>
#include <stdlib.h>

#include "engine/engine.h"
#include "tests/fuzz/commands.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/engine/block_store.h"

#define BATCHES_MAX 64

static struct block_store store;
static uint8_t batch_memory[BATCH_SIZE_MAX], encoded[COMMAND_SIZE_MAX];

struct run {
    struct engine *engine, *twin;
    struct batch_builder batch;
    uint64_t index;
    int64_t time_ms;
    uint32_t batches, replies;
};

void fuzz_begin(void)
{
}

static void check_reply(void *ctx, uint32_t position, const struct reply *reply)
{
    struct run *r = ctx;
    struct reply again;
    uint8_t out[REPLY_SIZE], out_again[REPLY_SIZE];
    CHECK(position == r->replies++);
    CHECK(reply->index == r->index);
    CHECK(reply->origin_index <= reply->index);
    reply_encode(reply, out);
    CHECK(reply_decode(&again, out, sizeof out) == 0);
    reply_encode(&again, out_again);
    CHECK(memcmp(out, out_again, sizeof out) == 0);
}

static void end_batch(struct run *r)
{
    char text[256];
    uint32_t count = r->batch.count;
    size_t size = batch_end(&r->batch, r->time_ms);
    r->index++;
    r->batches++;
    r->replies = 0;
    engine_apply(r->engine, r->index, batch_memory, size, check_reply, r);
    CHECK(r->replies == count);
    engine_apply(r->twin, r->index, batch_memory, size, NULL, NULL);
    if (engine_check(r->engine, text, sizeof text) != 0) {
        fprintf(stderr, "after batch %u: %s\n", r->batches, text);
        CHECK_UNREACHABLE();
    }
    batch_begin(&r->batch, batch_memory, sizeof batch_memory);
}

/* The twin goes on from a checkpoint of the engine. */
static void restart(struct run *r)
{
    end_batch(r);
    block_store_checkpoint(&store, r->engine);
    uint64_t digest = engine_digest(r->engine);
    CHECK(engine_digest(r->twin) == digest);
    engine_destroy(r->twin);
    r->twin = block_store_load(&store, r->index, digest, r->batches % 2 == 1);
    CHECK(engine_digest(r->twin) == digest);
}

static const char *const words[] = {"A", "B", "C", "u1", "u2", "u3", "s", "t"};

static struct str word(uint8_t at)
{
    return str_from(words[at % ARRAY_COUNT(words)]);
}

/* Of an order that one of the last batches may have placed. */
static uint64_t some_order(const struct run *r, uint8_t at)
{
    uint64_t back = at & 15, position = (uint64_t)(at >> 4);
    uint64_t index = r->index > back ? r->index - back : 1;
    return index << 22 | position << 10 | (at % 4u);
}

/* A small command; false: nothing. The example of its kind with other numbers. */
static bool make_command(struct run *r, struct reader *in, struct command *c)
{
    uint8_t kind = reader_u8(in), a = reader_u8(in), b = reader_u8(in), d = reader_u8(in);
    static char keys[16][4];
    static const char *const scopes[] = {"k:shop", "u:u1", "u:u2", "pay"};
    if (!commands_example(1 + kind % 20u, c)) {
        return false;
    }
    if (c->key.len > 0 && d % 16 != 0) {
        snprintf(keys[d % 16], sizeof keys[0], "k%u", d % 16u);
        c->key = str_from(keys[d % 16]);
        c->scope = str_from(scopes[d / 16 % 4]);
    }
    switch (c->kind) {
    case COMMAND_STOCK_ADJUST:
        c->stock_adjust.sku = word(a % 3);
        c->stock_adjust.delta = (int8_t)b != 0 ? (int8_t)b : 1;
        break;
    case COMMAND_SALE_PUT: {
        struct command_sale *s = &c->sale_put;
        s->id = word(6 + a % 2u);
        s->opens_ms = b * 100;
        s->closes_ms = s->opens_ms + 1 + d * 200;
        s->payment_timeout_ms = 1 + a * 20u;
        s->eligibility_required = (a & 2) != 0;
        s->late_payment = (uint8_t)((a >> 2) & 1);
        s->orders_per_user_max = 1 + ((a >> 3) & 3);
        s->units_per_user_max = (uint32_t)(a >> 5);
        s->eligibility_limit = d % 4u;
        s->eligibility_ratio_permille = (d & 4) != 0 ? 1500 : 0;
        s->strikes_max = (d >> 3) & 3;
        s->denial_ms = (d & 32) != 0 ? 0 : 300;
        s->offers[0].oversell_allowance = (uint32_t)(d >> 6);
        break;
    }
    case COMMAND_ELIGIBILITY_GRANT:
    case COMMAND_ELIGIBILITY_REVOKE:
        c->eligibility.user = word(3 + a % 3u);
        c->eligibility.sale = word(6 + b % 2u);
        break;
    case COMMAND_ORDER_PLACE:
        c->order_place.user = word(3 + a % 3u);
        c->order_place.sale = word(6 + a / 4 % 2u);
        c->order_place.lines_count = (uint8_t)(1 + (b & 1));
        c->order_place.lines[0] = (struct command_line){word((b >> 1) % 3), 1 + (b >> 3 & 3)};
        c->order_place.lines[1] = (struct command_line){word((b >> 5) % 3), 1 + (b >> 7)};
        break;
    case COMMAND_ORDER_CANCEL:
        c->order_cancel.order = some_order(r, a);
        c->order_cancel.user = b % 4 == 0 ? str_from("") : word(3 + b % 3u);
        break;
    case COMMAND_PAYMENT_APPLY:
        c->payment.order = some_order(r, a);
        c->payment.amount = b % 4 == 0 ? 1 : (b & 15) * 1999 + (b >> 4) * 500;
        break;
    case COMMAND_ORDER_REFUND:
        c->order_refund.order = some_order(r, a);
        c->order_refund.restock = b % 2 == 0;
        break;
    case COMMAND_LEASE_ACQUIRE:
    case COMMAND_LEASE_RENEW:
    case COMMAND_LEASE_RELEASE:
        c->lease.name = word(a % 3);
        c->lease.owner = word(3 + b % 3u);
        c->lease.token = c->kind == COMMAND_LEASE_ACQUIRE ? 0 : 1 + d % 8u;
        break;
    case COMMAND_DENY_PUT:
        c->deny.until_ms = b % 4 == 0 ? 0 : r->time_ms + b * 10;
        c->deny.user = word(3 + a % 3u);
        break;
    case COMMAND_DENY_REMOVE:
        c->deny.user = word(3 + a % 3u);
        break;
    case COMMAND_PERSIST_ACK:
        c->persist_ack.acks[0] = (struct command_ack){a % 4u, b};
        c->persist_ack.acks[1] = (struct command_ack){(a + 1) % 4u, d};
        break;
    case COMMAND_SKU_PUT:
        c->sku_put.sku = word(a % 3);
        c->sku_put.expected_version = b % 4 == 0 ? COMMAND_VERSION_ANY : b % 4u;
        break;
    case COMMAND_SALE_PAUSE:
    case COMMAND_SALE_RESUME:
    case COMMAND_SALE_CLOSE:
        c->sale_control.sale = word(6 + a % 2u);
        break;
    case COMMAND_INIT:
    case COMMAND_DIGEST_MARK:
        break;
    }
    return true;
}

static void add(struct run *r, const void *data, size_t size)
{
    if (!batch_add(&r->batch, data, size)) {
        end_batch(r);
        CHECK(batch_add(&r->batch, data, size));
    }
}

static void step(struct run *r, struct reader *in)
{
    struct command c;
    uint8_t what = reader_u8(in);
    if (what < 160) {
        if (make_command(r, in, &c)) {
            size_t n = command_encode(&c, encoded, sizeof encoded);
            if (n > 0) {
                add(r, encoded, n);
            }
        }
    } else if (what < 176) {
        uint16_t size = reader_u16(in);
        struct str given = fuzz_str(in, size);
        if (command_decode(&c, given.ptr, given.len) == 0) {
            add(r, given.ptr, given.len);
        }
    } else if (what < 216) {
        end_batch(r);
    } else if (what < 248) {
        end_batch(r);
        r->time_ms += 1 << reader_u8(in) % 18;
    } else if (what < 252) {
        restart(r);
    } else {
        (void)engine_settle(r->engine, what % 4u);
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct reader in = reader_init(data, size);
    struct run r = {.engine = engine_create(), .twin = engine_create(), .time_ms = 1000};
    batch_begin(&r.batch, batch_memory, sizeof batch_memory);
    CHECK(batch_add(&r.batch, encoded, commands_encode_init(encoded, sizeof encoded)));
    end_batch(&r);
    while (!fuzz_done(&in) && r.batches < BATCHES_MAX) {
        step(&r, &in);
    }
    end_batch(&r);
    CHECK(engine_digest(r.engine) == engine_digest(r.twin));
    if (r.batches > 8) {
        restart(&r);
    }
    block_store_clear(&store);
    engine_destroy(r.engine);
    engine_destroy(r.twin);
}

void fuzz_seeds(void)
{
    /* A sale from its beginning: stock, sale, right, orders, payment, time, late payment, refund. */
    static const uint8_t story[] = {
        1, 0, 0, 0, 0,    1, 1, 1, 0, 0,    200, 1, 2, 0, 20, 1,  1, 2, 1, 9, 2,  200, 1, 3, 8, 0, 200,
        200, 220, 10,     1, 4, 0, 0, 0,    200, 1, 5, 0, 10, 0x13, 200, 1, 5, 1, 8, 0x24,  1, 6, 1, 3, 5,
        200, 1, 7, 2, 0, 6, 200, 240, 16,   1, 6, 3, 1, 7,   200, 249, 1, 8, 4, 1, 8, 1, 16, 0, 9, 0, 200};
    fuzz_seed("story", story, sizeof story);
    uint8_t out[512];
    struct command c;
    for (unsigned i = 1; commands_example(i, &c); i++) {
        char name[32];
        uint8_t *at = out;
        *at++ = 0;
        *at++ = (uint8_t)(i - 1);
        *at++ = 1;
        *at++ = 2;
        *at++ = 3;
        *at++ = 200;
        size_t n = command_encode(&c, at + 3, sizeof out - 16);
        *at++ = 170;
        store_u16(at, (uint16_t)n);
        at += 2 + n;
        *at++ = 200;
        snprintf(name, sizeof name, "kind-%02d-%u", (int)c.kind, i);
        fuzz_seed(name, out, (size_t)(at - out));
    }
}
