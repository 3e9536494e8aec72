/* Checkpoints beside a loop that goes on applying, and the restart from one: how long a turn of the loop
 * is held, what it does to applies, and how long loading takes.
 *
 *     checkpoint_bench --directory EMPTY [--records N] [--dirty N] [--rate N] [--seconds N] [--cold 0|1]
 *     checkpoint_bench --directory EMPTY --records 10000000 --dirty 1000000
 *
 * A record: two fifths are orders, two fifths eligibilities (each user in two sales), one fifth users.
 * dirty: so many orders, chosen at random, are paid between the first checkpoint and the second. The
 * store, its thread and the pacing are those of a node (server/checkpoint_driver); what a node does
 * besides (the log, links) is not there. While a checkpoint is taken, `rate` batches a second of 64
 * commands are applied, half of them new orders, half payments of old ones.
 *
 * `held` is the time from waking to waiting again in one turn of the loop, in time of day and in this
 * thread's processor time: on a machine that others use only the second one is ours.
 *
 * Restart: everything is closed and the engine loaded again from the files. --cold 1: the kernel is asked
 * to drop the file from its cache before. --restart 1: only this, from what an earlier run left. Build with --buildtype=release. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <uv.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/histogram.h"
#include "base/log.h"
#include "base/prng.h"
#include "engine/engine.h"
#include "server/checkpoint_driver.h"
#include "storage/checkpoint.h"

#define BATCH_COMMANDS 64u
#define TICK_MS        10u
#define SALES          2u

static uint64_t records = 1000000, dirty, rate = 500, seconds = 5, cold, restart_only;
static const char *directory;

static struct prng prng;
static uv_loop_t loop;
static struct engine *engine;
static struct checkpoint *store;
static uint64_t users, orders, orders_room;
static uint64_t *order_ids, orders_count, paid, payments, next_index, refused;
static int64_t now_ms = 1000;

/* ---- commands ---- */

static uint8_t batch_memory[BATCH_SIZE_MAX];
static struct batch_builder batch;

static void take_reply(void *ctx, uint32_t position, const struct reply *reply)
{
    (void)ctx;
    (void)position;
    if (reply->result != RESULT_OK) {
        refused++;
    } else if (reply->order != 0 && reply->order_status == ORDER_PENDING_PAYMENT &&
               orders_count < orders_room) {
        order_ids[orders_count++] = reply->order;
    }
}

static void apply_batch(void)
{
    size_t size = batch_end(&batch, now_ms);
    engine_apply(engine, ++next_index, batch_memory, size, take_reply, NULL);
    batch_begin(&batch, batch_memory, sizeof batch_memory);
}

static void add(const struct command *c)
{
    static uint8_t encoded[COMMAND_SIZE_MAX];
    size_t size = command_encode(c, encoded, sizeof encoded);
    CHECK(size > 0);
    if (batch.count == 512 || !batch_add(&batch, encoded, size)) {
        apply_batch();
        CHECK(batch_add(&batch, encoded, size));
    }
}

static struct str format(char *out, size_t size, const char *prefix, uint64_t n)
{
    return (struct str){out, (uint32_t)snprintf(out, size, "%s%" PRIu64, prefix, n)};
}

static void add_order(uint64_t number, uint64_t user)
{
    static struct command c;
    char name[32], scope[40], key[32], sale[16];
    c.kind = COMMAND_ORDER_PLACE;
    c.order_place.user = format(name, sizeof name, "user-", user);
    c.scope = format(scope, sizeof scope, "u:user-", user);
    c.key = format(key, sizeof key, "request-", number);
    c.order_place.sale = format(sale, sizeof sale, "sale-", number % SALES);
    c.order_place.lines_count = 1;
    c.order_place.lines[0] = (struct command_line){STR_LITERAL("sku"), 1};
    add(&c);
}

/* Of an order that is not paid, at random. */
static void add_payment(void)
{
    char key[32];
    CHECK(paid < orders_count);
    uint64_t other = paid + prng_below(&prng, orders_count - paid), id = order_ids[other];
    order_ids[other] = order_ids[paid];
    order_ids[paid++] = id;
    struct command c = {.kind = COMMAND_PAYMENT_APPLY, .scope = STR_LITERAL("pay")};
    c.key = format(key, sizeof key, "pay-", payments++);
    c.payment.order = id;
    c.payment.amount = 100;
    memcpy(c.payment.currency, "EUR", 4);
    add(&c);
}

/* PostgreSQL has everything, so that the ring of events stays short. */
static void acknowledge(void)
{
    for (uint32_t shard = 0; shard < 64; shard += 16) {
        struct command c = {.kind = COMMAND_PERSIST_ACK, .scope = STR_LITERAL("sys")};
        for (uint32_t i = 0; i < 16; i++) {
            c.persist_ack.acks[c.persist_ack.count].shard = shard + i;
            c.persist_ack.acks[c.persist_ack.count++].sequence = engine_events_next(engine) - 1;
        }
        add(&c);
    }
    apply_batch();
}

static void set_up(void)
{
    struct command c = {.kind = COMMAND_INIT, .scope = STR_LITERAL("sys")};
    c.init.shards = 64;
    c.init.limits = (struct command_limits){
        .skus_max = 8, .sales_max = 8, .users_max = (uint32_t)users,
        .eligibilities_max = (uint32_t)(users * SALES), .orders_max = (uint32_t)orders_room,
        .idempotency_max = (uint32_t)(dirty + orders_room + 16), .leases_max = 1,
        .events_max = (uint32_t)(3 * orders_room + 65536), .expiries_per_batch_max = 1000,
        .idempotency_retention_ms = 86400000};
    add(&c);
    c = (struct command){.kind = COMMAND_SKU_PUT, .scope = STR_LITERAL("k:bench")};
    c.sku_put.sku = STR_LITERAL("sku");
    c.sku_put.title = str_from("");
    c.sku_put.expected_version = COMMAND_VERSION_ANY;
    add(&c);
    c = (struct command){.kind = COMMAND_STOCK_ADJUST, .scope = STR_LITERAL("k:bench"),
                         .key = STR_LITERAL("stock")};
    c.stock_adjust.sku = STR_LITERAL("sku");
    c.stock_adjust.reason = str_from("");
    c.stock_adjust.delta = (int64_t)orders_room * 2;
    add(&c);
    for (uint64_t i = 0; i < SALES; i++) {
        char id[16];
        static struct command s;
        s = (struct command){.kind = COMMAND_SALE_PUT};
        s.scope = STR_LITERAL("k:bench");
        s.sale_put.id = format(id, sizeof id, "sale-", i);
        s.sale_put.title = str_from("");
        memcpy(s.sale_put.currency, "EUR", 4);
        s.sale_put.closes_ms = TIME_MS_MAX;
        s.sale_put.payment_timeout_ms = 86400000;
        s.sale_put.orders_per_user_max = 1u << 30;
        s.sale_put.offers[s.sale_put.offers_count].sku = STR_LITERAL("sku");
        s.sale_put.offers[s.sale_put.offers_count].unit_price = 100;
        s.sale_put.offers[s.sale_put.offers_count++].units_per_order_max = 10;
        add(&s);
    }
    apply_batch();
    CHECK(refused == 0);
}

static void fill(void)
{
    static struct command c;
    char name[32], sale[16];
    set_up();
    for (uint64_t i = 0; i < users * SALES; i++) {
        c.kind = COMMAND_ELIGIBILITY_GRANT;
        c.scope = c.key = str_from("");
        c.eligibility.sale = format(sale, sizeof sale, "sale-", i / users);
        c.eligibility.user = format(name, sizeof name, "user-", i % users);
        add(&c);
        if (i % 65536 == 65535) {
            acknowledge();
        }
    }
    for (uint64_t i = 0; i < orders; i++) {
        add_order(i, prng_below(&prng, users));
        if (i % 65536 == 65535) {
            acknowledge();
        }
    }
    acknowledge();
    CHECK(refused == 0);
    struct engine_stats stats;
    engine_get_stats(engine, &stats);
    printf("records: %" PRIu64 " orders, %" PRIu64 " eligibilities, %" PRIu64 " users\n", stats.orders,
           stats.eligibilities, stats.users);
}

/* ---- the loop ---- */

static struct {
    uv_timer_t load, tick, slice;
    uv_prepare_t prepare;
    uint64_t load_begun_ns, batches; /* applied since */
    uint64_t turn_ns, turn_idle_ns, turn_processor_ns;
    struct histogram apply_ns, held_ns, held_processor_ns;
    uint64_t ends_ns; /* of a run without a checkpoint */
    bool taking, stop;
    uint64_t slice_max_ns, settle_max_ns, load_max_ns; /* processor time of the three callbacks */
    uint64_t order_number;
} run;

static uint64_t processor_ns(void)
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Just before the loop waits: a turn is over. */
static void prepare_cb(uv_prepare_t *handle)
{
    (void)handle;
    uint64_t now = clock_monotonic_ns(), idle = uv_metrics_idle_time(&loop), cpu = processor_ns();
    if (run.turn_ns != 0) {
        uint64_t held = now - run.turn_ns, waited = idle - run.turn_idle_ns;
        histogram_add(&run.held_ns, held > waited ? held - waited : 0);
        histogram_add(&run.held_processor_ns, cpu - run.turn_processor_ns);
    }
    run.turn_ns = now;
    run.turn_idle_ns = idle;
    run.turn_processor_ns = cpu;
    if (run.stop || (!run.taking && now >= run.ends_ns)) {
        uv_stop(&loop);
    }
}

static void note_max(uint64_t *max, uint64_t begun)
{
    uint64_t took = processor_ns() - begun;
    *max = took > *max ? took : *max;
}

static void load_cb(uv_timer_t *timer)
{
    (void)timer;
    uint64_t load_begun = processor_ns();
    uint64_t due = (clock_monotonic_ns() - run.load_begun_ns) * rate / 1000000000u;
    for (int i = 0; i < 8 && run.batches < due; i++, run.batches++) { /* what is late is not made up */
        for (uint32_t k = 0; k < BATCH_COMMANDS; k++) {
            if (k % 2 == 0 && orders_count < orders_room) {
                add_order(1u << 30 | run.order_number++, prng_below(&prng, users));
            } else if (paid < orders_count) {
                add_payment();
            }
        }
        uint64_t begun = processor_ns();
        apply_batch();
        histogram_add(&run.apply_ns, processor_ns() - begun);
    }
    if (run.batches < due) {
        run.batches = due;
    }
    note_max(&run.load_max_ns, load_begun);
}

static void tick_cb(uv_timer_t *timer)
{
    (void)timer;
    uint64_t begun = processor_ns();
    checkpoint_driver_settle(engine);
    checkpoint_expire_pins(store, uv_now(&loop));
    note_max(&run.settle_max_ns, begun);
}

static void put_cb(void *ctx, const struct engine_block *block)
{
    (void)ctx;
    checkpoint_put(store, block);
}

static void done_cb(void *ctx, bool ok, bool again, const struct checkpoint_meta *meta)
{
    (void)meta;
    engine_checkpoint_end(engine, ok);
    *(int *)ctx = ok ? 1 : again ? 2 : 3;
    run.stop = true;
}

/* As the node's: server/checkpoint_driver.c. */
static void slice_cb(uv_timer_t *timer)
{
    uint64_t begun = clock_monotonic_ns(), slice_begun = processor_ns();
    size_t left = 1, room = checkpoint_room(store) / (ENGINE_BLOCK_SIZE_MAX + 16);
    for (size_t done = 0; left > 0 && done + CHECKPOINT_STEP_BLOCKS <= room &&
                          done < CHECKPOINT_SLICE_BLOCKS &&
                          clock_monotonic_ns() - begun < CHECKPOINT_SLICE_NS;
         done += CHECKPOINT_STEP_BLOCKS) {
        left = engine_checkpoint_step(engine, CHECKPOINT_STEP_BLOCKS);
    }
    checkpoint_flush(store);
    if (left == 0) {
        uv_timer_stop(timer);
        checkpoint_set_digest(store, engine_checkpoint_digest(engine));
        checkpoint_end(store);
    }
    note_max(&run.slice_max_ns, slice_begun);
}

static void run_loop(const char *what)
{
    histogram_init(&run.apply_ns);
    histogram_init(&run.held_ns);
    histogram_init(&run.held_processor_ns);
    run.turn_ns = run.batches = run.slice_max_ns = run.settle_max_ns = run.load_max_ns = 0;
    run.stop = false;
    run.load_begun_ns = clock_monotonic_ns();
    run.ends_ns = run.load_begun_ns + seconds * 1000000000u;
    CHECK(uv_prepare_start(&run.prepare, prepare_cb) == 0);
    CHECK(uv_timer_start(&run.load, load_cb, 1, 1) == 0);
    CHECK(uv_timer_start(&run.tick, tick_cb, TICK_MS, TICK_MS) == 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_prepare_stop(&run.prepare);
    uv_timer_stop(&run.load);
    uv_timer_stop(&run.tick);
    printf("%-22s turns %7" PRIu64 "  held: max %.2f ms, p99.9 %.2f ms; processor max %.2f ms "
           "(slice %.2f, settle %.2f, load %.2f) | apply of %u: p50 %.0f us, p99 %.0f us, max %.0f us\n",
           what, run.held_ns.count, (double)run.held_ns.max / 1e6,
           (double)histogram_quantile(&run.held_ns, 0.999) / 1e6,
           (double)run.held_processor_ns.max / 1e6, (double)run.slice_max_ns / 1e6,
           (double)run.settle_max_ns / 1e6, (double)run.load_max_ns / 1e6, BATCH_COMMANDS,
           (double)histogram_quantile(&run.apply_ns, 0.5) / 1e3,
           (double)histogram_quantile(&run.apply_ns, 0.99) / 1e3, (double)run.apply_ns.max / 1e3);
}

static void take(const char *what)
{
    int result = 0;
    for (int tries = 0; result != 1; tries++) {
        struct checkpoint_meta meta = {.index = engine_index(engine), .term = 1};
        struct checkpoint_stats stats;
        CHECK(result != 3 && tries < 16);
        while (!engine_checkpoint_ready(engine)) {
            engine_settle(engine, 1024);
        }
        run.taking = true;
        checkpoint_begin(store, &meta, done_cb, &result);
        engine_checkpoint_begin(engine, put_cb, NULL);
        CHECK(uv_timer_start(&run.slice, slice_cb, 0, CHECKPOINT_SLICE_MS) == 0);
        run_loop(result == 2 ? "again (map grew)" : what);
        run.taking = false;
        checkpoint_get_stats(store, &stats);
        printf("%-22s %.2f s, %" PRIu64 " blocks, %.1f MB; file %.1f MB, map %.0f MB\n", "",
               (double)stats.last_duration_ns / 1e9, stats.last_records, (double)stats.last_bytes / 1e6,
               (double)stats.used_size / 1e6, (double)stats.map_size / 1e6);
    }
}

/* ---- restart ---- */

static void closed_cb(void *ctx)
{
    *(bool *)ctx = true;
}

static void open_store(void)
{
    struct checkpoint_config config = {.loop = &loop, .directory = directory};
    CHECK(checkpoint_open(&config, &store) == 0);
}

static void close_store(void)
{
    bool closed = false;
    checkpoint_close(store, closed_cb, &closed);
    while (!closed) {
        uv_run(&loop, UV_RUN_ONCE);
    }
}

static void drop_cache(void)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/checkpoint/gen-00000001/data.mdb", directory);
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    CHECK(fdatasync(fd) == 0);
    CHECK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
    close(fd);
}

static void note_progress(void *ctx, uint64_t done, uint64_t total)
{
    if (done == total) {
        *(uint64_t *)ctx = clock_monotonic_ns();
    }
}

/* Of all threads, and of the child that verifies. */
static double used_s(void)
{
    struct rusage self, children;
    CHECK(getrusage(RUSAGE_SELF, &self) == 0 && getrusage(RUSAGE_CHILDREN, &children) == 0);
    const struct timeval t[] = {self.ru_utime, self.ru_stime, children.ru_utime, children.ru_stime};
    double sum = 0;
    for (size_t i = 0; i < ARRAY_COUNT(t); i++) {
        sum += (double)t[i].tv_sec + (double)t[i].tv_usec / 1e6;
    }
    return sum;
}

static void restart(void)
{
    if (cold) {
        drop_cache();
    }
    double used = used_s();
    uint64_t begun = clock_monotonic_ns();
    open_store();
    uint64_t opened = clock_monotonic_ns(), loaded = opened;
    struct checkpoint_meta meta;
    CHECK(checkpoint_get_meta(store, &meta));
    engine = engine_create();
    CHECK(checkpoint_load_engine(store, engine, NULL, note_progress, &loaded) == 0);
    uint64_t finished = clock_monotonic_ns();
    printf("restart %s           %.2f s (processors %.2f s): verified and opened %.2f s, loaded %.2f s (%" PRIu64
           " blocks), indexes %.2f s\n",
           cold ? "cold" : "warm", (double)(finished - begun) / 1e9, used_s() - used,
           (double)(opened - begun) / 1e9,
           (double)(loaded - opened) / 1e9, meta.blocks_count, (double)(finished - loaded) / 1e9);
    close_store();
    engine_destroy(engine);
}

static bool parse(int argc, char **argv)
{
    const struct {
        const char *name;
        uint64_t *value;
    } options[] = {{"--records", &records}, {"--dirty", &dirty}, {"--rate", &rate},
                   {"--seconds", &seconds}, {"--cold", &cold}, {"--restart", &restart_only}};
    for (int i = 1; i + 1 < argc; i += 2) {
        bool known = strcmp(argv[i], "--directory") == 0;
        if (known) {
            directory = argv[i + 1];
        }
        for (size_t j = 0; j < ARRAY_COUNT(options); j++) {
            if (strcmp(argv[i], options[j].name) == 0) {
                *options[j].value = strtoull(argv[i + 1], NULL, 10);
                known = true;
            }
        }
        if (!known) {
            return false;
        }
    }
    return argc % 2 == 1 && directory != NULL && records >= 1000 && records <= 50000000;
}

static void checkpoints(void)
{
    engine = engine_create();
    batch_begin(&batch, batch_memory, sizeof batch_memory);
    fill();
    open_store();
    while (engine_settle(engine, 65536) > 0) {
    }
    run_loop("no checkpoint");
    take("first checkpoint");
    for (uint64_t i = 0; i < dirty; i++) {
        add_payment();
    }
    acknowledge();
    take("checkpoint, dirty");
    run_loop("no checkpoint");
    printf("refused %" PRIu64 "\n", refused);
    close_store();
    engine_destroy(engine);
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: checkpoint_bench --directory EMPTY [--records N] [--dirty N] "
                        "[--rate BATCHES_PER_SECOND] [--seconds N] [--cold 0|1] [--restart 0|1]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    log_init("bench", LOG_LEVEL_WARN);
    prng = prng_init(1);
    users = records / 5;
    orders = records - users * (1 + SALES);
    dirty = dirty != 0 ? dirty : records / 10;
    CHECK(dirty <= orders);
    orders_room = orders + orders / 4 + 200000;
    order_ids = malloc(orders_room * sizeof *order_ids);
    CHECK(order_ids != NULL);
    CHECK(uv_loop_init(&loop) == 0);
    CHECK(uv_loop_configure(&loop, UV_METRICS_IDLE_TIME) == 0);
    CHECK(uv_timer_init(&loop, &run.load) == 0);
    CHECK(uv_timer_init(&loop, &run.tick) == 0);
    CHECK(uv_timer_init(&loop, &run.slice) == 0);
    CHECK(uv_prepare_init(&loop, &run.prepare) == 0);
    if (!restart_only) {
        checkpoints();
    }
    restart();
    return 0;
}
