/* A long life: generations of orders that expire, leave memory and take their users with them, with a
 * checkpoint in each, the real store and the real engine. Neither the file nor the state may grow: blocks
 * that became empty are deleted, and LMDB uses their pages again. Then: with a checkpoint pinned for a
 * peer the pages that it needs stay, and are used again when it is let go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "engine/engine.h"
#include "storage/checkpoint.h"

#define GENERATIONS  48
#define SETTLED      12 /* generations after which nothing may grow any more */
#define ORDERS       1500
#define SHARDS       4
#define CHECKPOINTS  4   /* in each generation */
#define SALE_MS      1000
#define RETENTION_MS 100

static uv_loop_t loop;
static char dir[64];
static struct engine *engine;
static struct checkpoint *store;
static uint64_t next_index, keys, refused;
static int64_t now_ms;
static uint8_t memory[BATCH_SIZE_MAX];
static struct batch_builder batch;

static void note(void *ctx, uint32_t position, const struct reply *reply)
{
    (void)ctx;
    (void)position;
    refused += reply->result != RESULT_OK ? 1 : 0;
}

static void apply(void)
{
    size_t size = batch_end(&batch, now_ms);
    engine_apply(engine, ++next_index, memory, size, note, NULL);
    batch_begin(&batch, memory, sizeof memory);
}

static void add(struct command *c, bool keyed)
{
    uint8_t encoded[COMMAND_SIZE_MAX];
    char key[32];
    snprintf(key, sizeof key, "k%llu", (unsigned long long)keys++);
    c->scope = STR_LITERAL("k:test");
    c->key = keyed ? str_from(key) : STR_LITERAL("");
    size_t size = command_encode(c, encoded, sizeof encoded);
    CHECK(size > 0);
    if (!batch_add(&batch, encoded, size)) {
        apply();
        CHECK(batch_add(&batch, encoded, size));
    }
}

static void acknowledge(void)
{
    struct command c = {.kind = COMMAND_PERSIST_ACK};
    apply();
    c.persist_ack.count = SHARDS;
    for (uint32_t i = 0; i < SHARDS; i++) {
        c.persist_ack.acks[i].shard = i;
        c.persist_ack.acks[i].sequence = engine_events_next(engine) - 1;
    }
    add(&c, false);
    apply();
}

static void found(void)
{
    struct command c = {.kind = COMMAND_INIT};
    c.init.shards = SHARDS;
    c.init.limits = (struct command_limits){4,         GENERATIONS + 8, 4 * ORDERS, 4 * ORDERS, 4 * ORDERS,
                                            4 * ORDERS, 4,               8 * ORDERS, 200,        RETENTION_MS};
    add(&c, false);
    c = (struct command){.kind = COMMAND_SKU_PUT};
    c.sku_put.sku = c.sku_put.title = STR_LITERAL("A");
    c.sku_put.expected_version = COMMAND_VERSION_ANY;
    add(&c, true);
    c = (struct command){.kind = COMMAND_STOCK_ADJUST};
    c.stock_adjust.sku = STR_LITERAL("A");
    c.stock_adjust.reason = STR_LITERAL("x");
    c.stock_adjust.delta = ORDERS;
    add(&c, true);
    apply();
}

static void open_sale(const char *id)
{
    static struct command c;
    c = (struct command){.kind = COMMAND_SALE_PUT};
    c.sale_put.id = c.sale_put.title = str_from(id);
    memcpy(c.sale_put.currency, "EUR", 3);
    c.sale_put.opens_ms = now_ms;
    c.sale_put.closes_ms = now_ms + SALE_MS;
    c.sale_put.payment_timeout_ms = 300;
    c.sale_put.orders_per_user_max = 3;
    c.sale_put.offers_count = 1;
    c.sale_put.offers[0] = (struct command_offer){STR_LITERAL("A"), 100, 5, 0};
    add(&c, true);
    apply();
}

/* ---- checkpoints ---- */

static bool done, durable;

static void put_cb(void *ctx, const struct engine_block *block)
{
    (void)ctx;
    checkpoint_put(store, block);
}

static void done_cb(void *ctx, bool ok, bool again, const struct checkpoint_meta *meta)
{
    (void)ctx;
    (void)again;
    (void)meta;
    done = true;
    durable = ok;
    engine_checkpoint_end(engine, ok);
}

static void take(void)
{
    do { /* again while the map grows */
        struct checkpoint_meta meta = {.index = engine_index(engine)};
        done = false;
        checkpoint_begin(store, &meta, done_cb, NULL);
        engine_checkpoint_begin(engine, put_cb, NULL);
        while (engine_checkpoint_step(engine, 64) > 0) {
        }
        checkpoint_set_digest(store, engine_checkpoint_digest(engine));
        checkpoint_end(store);
        while (!done) {
            uv_run(&loop, UV_RUN_ONCE);
        }
    } while (!durable);
}

/* One sale from its opening until nothing of it is left in memory. */
static void generation(int number)
{
    char sale[32], user[48];
    snprintf(sale, sizeof sale, "sale-%d", number);
    open_sale(sale);
    int64_t begun_ms = now_ms;
    for (int i = 0; i < ORDERS; i++) {
        static struct command c;
        c = (struct command){.kind = COMMAND_ORDER_PLACE};
        snprintf(user, sizeof user, "user-%d-of-generation-%d", i, number);
        c.order_place.sale = str_from(sale);
        c.order_place.user = str_from(user);
        c.order_place.lines_count = 1;
        c.order_place.lines[0] = (struct command_line){STR_LITERAL("A"), 1};
        add(&c, true);
        if (i % (ORDERS / CHECKPOINTS) == 0) {
            acknowledge();
            take();
        }
    }
    acknowledge();
    while (now_ms < begun_ms + SALE_MS + 2 * RETENTION_MS || engine_next_due_ms(engine) <= now_ms) {
        now_ms += 50;
        apply();
        acknowledge();
    }
    take();
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/holdfast-growth-XXXXXX");
    CHECK(mkdtemp(dir) != NULL);
    CHECK(uv_loop_init(&loop) == 0);
    struct checkpoint_config config = {.loop = &loop, .directory = dir, .map_size = 256 << 10};
    CHECK(checkpoint_open(&config, &store) == 0);
    engine = engine_create();
    batch_begin(&batch, memory, sizeof memory);
    now_ms = 1000;
    next_index = keys = refused = 0;
    found();
    return 0;
}

static void closed_cb(void *ctx)
{
    *(bool *)ctx = true;
}

static int teardown(void **state)
{
    (void)state;
    bool closed = false;
    char command[96];
    checkpoint_close(store, closed_cb, &closed);
    while (!closed) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    CHECK(uv_loop_close(&loop) == 0);
    engine_destroy(engine);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    CHECK(system(command) == 0);
    return 0;
}

static uint64_t used_size(void)
{
    struct checkpoint_stats stats;
    checkpoint_get_stats(store, &stats);
    return stats.used_size;
}

static void test_generations_leave_nothing(void **state)
{
    (void)state;
    uint64_t settled_size = 0, settled_blocks = 0;
    for (int number = 0; number < GENERATIONS; number++) {
        struct checkpoint_meta meta;
        struct engine_stats stats;
        generation(number);
        engine_get_stats(engine, &stats);
        assert_int_equal(refused, 0);
        assert_int_equal(stats.orders, 0);
        assert_int_equal(stats.users, 0);
        assert_int_equal(stats.eligibilities, 0);
        assert_true(checkpoint_get_meta(store, &meta));
        if (number < SETTLED) {
            settled_size = used_size() > settled_size ? used_size() : settled_size;
            settled_blocks = meta.blocks_count > settled_blocks ? meta.blocks_count : settled_blocks;
            continue;
        }
        /* Sales are never forgotten: two blocks each, and a page or two. */
        uint64_t more = (uint64_t)(number + 1 - SETTLED);
        assert_true(meta.blocks_count <= settled_blocks + 2 * more + 8);
        assert_true(used_size() <= settled_size + settled_size / 4 + more * 8192);
    }
    char why[256] = "";
    assert_int_equal(engine_check(engine, why, sizeof why), 0);
}

static void test_a_pin_holds_pages_for_its_time(void **state)
{
    (void)state;
    uint8_t ticket[CHECKPOINT_TICKET_SIZE];
    struct checkpoint_meta meta;
    int number = 0;
    while (number < SETTLED) {
        generation(number++);
    }
    uint64_t settled = used_size();
    assert_int_equal(checkpoint_pin(store, 0, 1000, ticket, &meta), 0);
    for (int i = 0; i < 8; i++) {
        generation(number++);
    }
    uint64_t pinned = used_size();
    assert_true(pinned > settled); /* what it may still read was not written over */
    assert_int_equal(checkpoint_expire_pins(store, 1000), 0);
    for (int i = 0; i < 8; i++) {
        generation(number++);
    }
    assert_true(used_size() <= pinned + pinned / 8 + 8 * 8192); /* and now it is */
}

int main(void)
{
    log_init("test", LOG_LEVEL_WARN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_generations_leave_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_pin_holds_pages_for_its_time, setup, teardown),
    };
    return cmocka_run_group_tests_name("checkpoint_growth", tests, NULL, NULL);
}
