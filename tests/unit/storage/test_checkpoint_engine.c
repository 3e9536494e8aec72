/* The checkpoint store with the real engine: checkpoints are taken in slices while batches go on
 * being applied, some fail or are given up; what is loaded afterwards is exactly the state at the
 * checkpoint's index, and goes on from there like the original.
 *
 * HOLDFAST_SEED=n runs one seed. */
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
#include "base/prng.h"
#include "engine/engine.h"
#include "storage/checkpoint.h"

#define SEEDS      12
#define ROUNDS     60
#define USERS      300
#define ORDERS_MAX 4096

struct world {
    struct prng prng;
    struct engine *engine;
    struct checkpoint *store;
    uint64_t index, keys;
    int64_t time_ms;
    uint64_t orders[ORDERS_MAX];
    uint32_t orders_count;
    /* the checkpoint under way */
    bool done, ok, again;
    uint64_t at_index, at_digest;
};

static uv_loop_t loop;
static char dir[64];
static struct world w;

static void note_order(void *ctx, uint32_t position, const struct reply *reply)
{
    (void)ctx;
    (void)position;
    if (reply->result == RESULT_OK && reply->order != 0 && w.orders_count < ORDERS_MAX &&
        reply->order_status == ORDER_PENDING_PAYMENT) {
        w.orders[w.orders_count++] = reply->order;
    }
}

static void add(struct batch_builder *b, struct command *c, char key[32], bool keyed)
{
    uint8_t encoded[COMMAND_SIZE_MAX];
    snprintf(key, 32, "k%llu", (unsigned long long)w.keys++);
    c->scope = STR_LITERAL("k:test");
    c->key = keyed ? str_from(key) : STR_LITERAL("");
    size_t size = command_encode(c, encoded, sizeof encoded);
    CHECK(size > 0);
    CHECK(batch_add(b, encoded, size));
}

static void apply(struct batch_builder *b)
{
    w.time_ms += (int64_t)prng_below(&w.prng, 400);
    size_t size = batch_end(b, w.time_ms);
    w.index += 1 + prng_below(&w.prng, 3); /* no-ops of the log have indexes too */
    engine_apply(w.engine, w.index, b->data, size, note_order, NULL);
}

static void start_sale(void)
{
    static uint8_t buffer[BATCH_SIZE_MAX];
    struct batch_builder b;
    char key[32];
    batch_begin(&b, buffer, sizeof buffer);
    struct command c = {.kind = COMMAND_INIT};
    c.init.cluster_id[0] = 1;
    c.init.hash_seed[0] = 2;
    c.init.shards = 8;
    c.init.limits = (struct command_limits){10, 10, 1000, 1000, 2000, 3000, 50, 5000, 20, 3000};
    add(&b, &c, key, false);
    c = (struct command){.kind = COMMAND_SKU_PUT};
    c.sku_put.sku = c.sku_put.title = STR_LITERAL("A");
    add(&b, &c, key, true);
    c = (struct command){.kind = COMMAND_STOCK_ADJUST};
    c.stock_adjust.sku = STR_LITERAL("A");
    c.stock_adjust.reason = STR_LITERAL("x");
    c.stock_adjust.delta = 500;
    add(&b, &c, key, true);
    c = (struct command){.kind = COMMAND_SALE_PUT};
    c.sale_put.id = c.sale_put.title = STR_LITERAL("S");
    memcpy(c.sale_put.currency, "EUR", 3);
    c.sale_put.opens_ms = 1;
    c.sale_put.closes_ms = 1000000000;
    c.sale_put.payment_timeout_ms = 2000;
    c.sale_put.orders_per_user_max = 3;
    c.sale_put.strikes_max = 3;
    c.sale_put.denial_ms = 5000;
    c.sale_put.offers_count = 1;
    c.sale_put.offers[0] = (struct command_offer){STR_LITERAL("A"), 100, 5, 0};
    add(&b, &c, key, true);
    apply(&b);
    assert_true(engine_initialized(w.engine));
}

static void random_command(struct batch_builder *b)
{
    char user[16], key[32];
    struct command c = {.kind = COMMAND_ORDER_PLACE};
    snprintf(user, sizeof user, "u%u", (unsigned)prng_below(&w.prng, USERS));
    uint64_t order = w.orders_count > 0 ? w.orders[prng_below(&w.prng, w.orders_count)] : 0;
    switch (order == 0 ? 0 : prng_below(&w.prng, 10)) {
    case 0:
    case 1:
    case 2:
    case 3:
        c.order_place.sale = STR_LITERAL("S");
        c.order_place.user = str_from(user);
        c.order_place.lines_count = 1;
        c.order_place.lines[0] =
            (struct command_line){STR_LITERAL("A"), 1 + (uint32_t)prng_below(&w.prng, 3)};
        break;
    case 4:
        c.kind = COMMAND_ORDER_CANCEL;
        c.order_cancel.order = order;
        c.order_cancel.user = STR_LITERAL("");
        break;
    case 5:
    case 6:
        c.kind = COMMAND_PAYMENT_APPLY;
        c.payment.order = order;
        c.payment.amount = 100;
        memcpy(c.payment.currency, "EUR", 3);
        break;
    case 7:
        c.kind = COMMAND_LEASE_ACQUIRE;
        c.lease.name = c.lease.owner = str_from(user);
        c.lease.ttl_ms = 1500;
        break;
    case 8:
        c.kind = COMMAND_ELIGIBILITY_GRANT;
        c.eligibility.sale = STR_LITERAL("S");
        c.eligibility.user = str_from(user);
        break;
    default:
        c.kind = COMMAND_PERSIST_ACK;
        c.persist_ack.count = 1;
        c.persist_ack.acks[0].shard = (uint32_t)prng_below(&w.prng, 8);
        c.persist_ack.acks[0].sequence = engine_events_next(w.engine) - 1;
        add(b, &c, key, false);
        return;
    }
    add(b, &c, key, true);
}

static void apply_some(uint64_t batches)
{
    static uint8_t buffer[BATCH_SIZE_MAX];
    for (uint64_t i = 0; i < batches; i++) {
        struct batch_builder b;
        batch_begin(&b, buffer, sizeof buffer);
        for (uint64_t n = prng_below(&w.prng, 20); n > 0; n--) {
            random_command(&b);
        }
        apply(&b);
    }
}

static void put_cb(void *ctx, const struct engine_block *block)
{
    (void)ctx;
    checkpoint_put(w.store, block);
}

static void done_cb(void *ctx, bool ok, bool again, const struct checkpoint_meta *meta)
{
    (void)ctx;
    (void)meta;
    w.done = true;
    w.ok = ok;
    w.again = again;
    engine_checkpoint_end(w.engine, ok);
}

/* Returns true iff it is durable. quiet: nothing is applied meanwhile. */
static bool take(bool quiet)
{
    struct checkpoint_meta meta = {.index = engine_index(w.engine)};
    bool late = prng_one_in(&w.prng, 2); /* the digest is worked out while the checkpoint is taken */
    if (!late) {
        meta.digest = engine_digest(w.engine);
    }
    bool give_up = prng_one_in(&w.prng, 5);
    w.done = false;
    checkpoint_begin(w.store, &meta, done_cb, NULL);
    engine_checkpoint_begin(w.engine, put_cb, NULL);
    size_t left;
    do {
        left = engine_checkpoint_step(w.engine, 1 + (size_t)prng_below(&w.prng, 40));
        checkpoint_flush(w.store);
        apply_some(quiet ? 0 : prng_below(&w.prng, 3));
    } while (left > 0 && !(give_up && prng_one_in(&w.prng, 3)));
    if (left > 0) {
        checkpoint_cancel(w.store);
    } else {
        assert_true(late || engine_checkpoint_digest(w.engine) == meta.digest);
        meta.digest = engine_checkpoint_digest(w.engine);
        checkpoint_set_digest(w.store, meta.digest);
        checkpoint_end(w.store);
    }
    apply_some(quiet ? 0 : prng_below(&w.prng, 3)); /* while the thread writes */
    while (!w.done) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    if (w.ok) {
        w.at_index = meta.index;
        w.at_digest = meta.digest;
    }
    return w.ok;
}

static uint64_t sum; /* of what the blocks add to the digest */

static int load_cb(void *ctx, const struct engine_block *block)
{
    sum += engine_block_digest(block);
    return engine_load_block(ctx, block);
}

static struct engine *load(struct checkpoint *store)
{
    struct checkpoint_meta meta;
    struct engine *e = engine_create();
    char why[256] = "";
    assert_true(checkpoint_get_meta(store, &meta));
    assert_int_equal(meta.index, w.at_index);
    sum = 0;
    assert_int_equal(checkpoint_load(store, load_cb, e), 0);
    assert_true(sum == meta.digest);
    assert_int_equal(engine_load_finish(e, meta.index, meta.digest), 0);
    assert_true(engine_digest(e) == w.at_digest);
    assert_int_equal(engine_check(e, why, sizeof why), 0);
    return e;
}

static void closed_cb(void *ctx)
{
    *(bool *)ctx = true;
}

static void close_store(void)
{
    bool closed = false;
    checkpoint_close(w.store, closed_cb, &closed);
    while (!closed) {
        uv_run(&loop, UV_RUN_ONCE);
    }
}

static void open_store(void)
{
    struct checkpoint_config config = {.loop = &loop, .directory = dir, .map_size = 256 << 10};
    assert_int_equal(checkpoint_open(&config, &w.store), 0);
}

/* The loaded engine and the original, given the same batches, stay equal. */
static void go_on_together(struct engine *loaded)
{
    struct world before = w;
    struct engine *original = w.engine;
    apply_some(30);
    uint64_t digest = engine_digest(w.engine);
    w = before;
    w.engine = loaded;
    apply_some(30);
    assert_true(engine_digest(loaded) == digest);
    w.engine = original;
}

static void run_seed(uint64_t seed)
{
    printf("seed %llu\n", (unsigned long long)seed);
    memset(&w, 0, sizeof w);
    w.prng = prng_init(seed);
    snprintf(dir, sizeof dir, "/tmp/holdfast-checkpoint-XXXXXX");
    CHECK(mkdtemp(dir) != NULL);
    w.time_ms = 1000;
    w.engine = engine_create();
    open_store();
    start_sale();
    int durable = 0;
    for (int round = 0; round < ROUNDS; round++) {
        apply_some(prng_below(&w.prng, 10));
        durable += take(false) ? 1 : 0;
        if (durable > 0 && prng_one_in(&w.prng, 8)) {
            close_store();
            open_store();
            engine_destroy(load(w.store));
        }
        if (durable > 0 && prng_one_in(&w.prng, 8)) { /* a restart: from the disk alone */
            struct engine *e = load(w.store);
            engine_destroy(w.engine);
            w.engine = e;
            w.index = w.at_index;
        }
    }
    while (!take(true)) {
    }
    struct engine *loaded = load(w.store);
    go_on_together(loaded);
    engine_destroy(loaded);
    assert_true(durable > ROUNDS / 2);
    close_store();
    engine_destroy(w.engine);
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    CHECK(system(command) == 0);
}

static void test_random_states(void **state)
{
    (void)state;
    const char *one = getenv("HOLDFAST_SEED");
    CHECK(uv_loop_init(&loop) == 0);
    for (uint64_t seed = 1; one == NULL && seed <= SEEDS; seed++) {
        run_seed(seed);
    }
    if (one != NULL) {
        run_seed(strtoull(one, NULL, 10));
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&loop) == 0);
}

int main(void)
{
    log_init("test", LOG_LEVEL_WARN);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_states)};
    return cmocka_run_group_tests_name("checkpoint_engine", tests, NULL, NULL);
}
