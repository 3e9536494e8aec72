/* P3: the engine alone, in memory. Batches of encoded orders are made ahead; only engine_apply (which
 * decodes them) is timed.
 *
 *     engine_bench [--orders N] [--users N] [--skus N] [--batch N] [--eligible 0|1] [--settle 0|1]
 *                  [--rounds N] [--memory populated|touched|cold]
 *
 * Every round does the same with a new engine. Memory populated: engine_populate was called first, so
 * all of it stands in huge pages. touched: what orders will need was touched before, in small pages, as
 * in a node that has run for a while. cold: the kernel clears each page when it is first needed, within
 * the time that is measured. Random users, unique keys. skus 1: everybody wants the same one; more: sales of up to 64 SKUs each.
 * Prints orders per second, and bytes per eligibility and per live order: by the sizes of records, map
 * entries, queue entries and block bookkeeping, and as the resident set grew (which also holds the event
 * ring, users' records and partly used pages). Build with --buildtype=release. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/prng.h"
#include "engine/engine.h"
#include "engine/state.h"

#define CHUNK_BATCHES 64
#define CHUNK_SIZE    (CHUNK_BATCHES * (size_t)BATCH_SIZE_MAX)

static uint64_t orders = 2000000, users = 1000000, skus = 1, batch_orders = 256, eligible, settle, rounds = 2;
static const char *memory = "populated";

static struct engine *engine;
static uint64_t next_index, refused;
static uint64_t applied_ns; /* of this thread's processor time: others' load does not count */
static uint64_t *order_ids;
static uint64_t orders_placed;

static struct {
    uint8_t *data;
    size_t offsets[CHUNK_BATCHES + 1];
    uint32_t batches;
    struct batch_builder building;
} chunk;

static uint64_t processor_ns(void)
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void take_reply(void *ctx, uint32_t position, const struct reply *reply)
{
    (void)ctx;
    (void)position;
    if (reply->result != RESULT_OK) {
        refused++;
    } else if (reply->order != 0 && reply->order_status == ORDER_PENDING_PAYMENT) {
        order_ids[orders_placed++] = reply->order;
    }
}

static void chunk_apply(void)
{
    for (uint32_t i = 0; i < chunk.batches; i++) {
        uint64_t start = processor_ns();
        engine_apply(engine, ++next_index, chunk.data + chunk.offsets[i],
                     chunk.offsets[i + 1] - chunk.offsets[i], take_reply, NULL);
        applied_ns += processor_ns() - start;
    }
    chunk.batches = 0;
}

static void chunk_open(void)
{
    batch_begin(&chunk.building, chunk.data + chunk.offsets[chunk.batches], BATCH_SIZE_MAX);
}

static void chunk_seal(void)
{
    size_t size = batch_end(&chunk.building, 1000);
    chunk.offsets[chunk.batches + 1] = chunk.offsets[chunk.batches] + (size + 7) / 8 * 8;
    memset(chunk.building.data + size, 0, chunk.offsets[chunk.batches + 1] -
                                              chunk.offsets[chunk.batches] - size);
    chunk.batches++;
    if (chunk.batches == CHUNK_BATCHES) {
        chunk_apply();
    }
    chunk_open();
}

static void add(const struct command *c)
{
    static uint8_t encoded[COMMAND_SIZE_MAX];
    size_t size = command_encode(c, encoded, sizeof encoded);
    CHECK(size > 0);
    if (chunk.building.count == batch_orders || !batch_add(&chunk.building, encoded, size)) {
        chunk_seal();
        CHECK(batch_add(&chunk.building, encoded, size));
    }
}

static void flush(void)
{
    chunk_seal();
    chunk_apply();
    chunk_open();
}

static struct str format(char *out, size_t size, const char *prefix, uint64_t n)
{
    return (struct str){out, (uint32_t)snprintf(out, size, "%s%" PRIu64, prefix, n)};
}

static uint64_t resident_bytes(void)
{
    unsigned long total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f != NULL && fscanf(f, "%lu %lu", &total, &resident) == 2);
    fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void set_up(void)
{
    struct command c = {.kind = COMMAND_INIT};
    uint32_t max = (uint32_t)orders;
    c.init.shards = 64;
    c.init.limits = (struct command_limits){
        .skus_max = (uint32_t)skus, .sales_max = (uint32_t)(skus / SALE_OFFERS_MAX + 1),
        .users_max = (uint32_t)users, .eligibilities_max = (uint32_t)users + 1,
        .orders_max = max, .idempotency_max = max + (uint32_t)skus, .leases_max = 1,
        .events_max = (uint32_t)(2 * orders + users + (2 * orders + users) / 8 + 64),
        .expiries_per_batch_max = 1000, .idempotency_retention_ms = 86400000};
    add(&c);
    char id[32], key[32], sale[32];
    for (uint64_t i = 0; i < skus; i++) {
        memset(&c, 0, sizeof c);
        c.kind = COMMAND_SKU_PUT;
        c.sku_put.sku = format(id, sizeof id, "sku-", i);
        c.sku_put.title = str_from("");
        c.sku_put.expected_version = COMMAND_VERSION_ANY;
        add(&c);
        c = (struct command){.kind = COMMAND_STOCK_ADJUST, .scope = STR_LITERAL("k:bench")};
        c.key = format(key, sizeof key, "stock-", i);
        c.stock_adjust.sku = c.sku_put.sku = format(id, sizeof id, "sku-", i);
        c.stock_adjust.reason = str_from("");
        c.stock_adjust.delta = (int64_t)orders * 2;
        add(&c);
    }
    for (uint64_t first = 0; first < skus; first += SALE_OFFERS_MAX) {
        static char ids[SALE_OFFERS_MAX][32];
        memset(&c, 0, sizeof c);
        c.kind = COMMAND_SALE_PUT;
        struct command_sale *d = &c.sale_put;
        d->id = format(sale, sizeof sale, "sale-", first / SALE_OFFERS_MAX);
        d->title = str_from("");
        memcpy(d->currency, "EUR", 4);
        d->closes_ms = TIME_MS_MAX;
        d->payment_timeout_ms = 900000;
        d->eligibility_required = eligible != 0;
        d->orders_per_user_max = 1u << 30;
        for (uint64_t i = first; i < skus && i < first + SALE_OFFERS_MAX; i++) {
            d->offers[d->offers_count].sku = format(ids[d->offers_count], 32, "sku-", i);
            d->offers[d->offers_count].unit_price = 100;
            d->offers[d->offers_count++].units_per_order_max = 10;
        }
        add(&c);
    }
    flush();
    CHECK(refused == 0);
}

static void report(const char *what, uint64_t count, uint64_t bytes)
{
    printf("%-14s %10" PRIu64 "  %6.2f M/s  %5.0f ns each", what, count,
           (double)count * 1e3 / (double)applied_ns, (double)applied_ns / (double)count);
    if (strcmp(memory, "cold") == 0) {
        printf("  resident +%.1f B each", (double)bytes / (double)count);
    }
    printf("\n");
}

static void touch(void *data, size_t size)
{
    volatile uint8_t *at = data;
    for (size_t i = 0; i < size; i += 4096) {
        at[i] = at[i];
    }
}

static void touch_table(enum table_id id, uint64_t records)
{
    const struct table *t = &engine->tables.table[id];
    uint64_t blocks = records >> t->shift;
    touch(t->data, records * t->record_size);
    touch(t->marks, blocks);
    touch(t->stale[0].numbers, blocks * 4);
    touch(t->dirty[0].numbers, blocks * 4);
}

static void touch_memory(void)
{
    touch_table(TABLE_USER, users);
    touch_table(TABLE_MEMBER, users);
    touch_table(TABLE_ORDER, orders);
    touch_table(TABLE_EVENT, orders + (eligible ? users : 0));
    struct map *maps[] = {&engine->users, &engine->members, &engine->orders, &engine->keys};
    for (size_t i = 0; i < ARRAY_COUNT(maps); i++) {
        touch(maps[i]->entries, (size_t)maps[i]->capacity * 4);
    }
    touch(engine->pending.due, orders * 8);
    touch(engine->pending.slot, orders * 4);
    touch(engine->pending.place, orders * 4);
}

static void grant_all(void)
{
    uint64_t before = resident_bytes();
    char user[32];
    applied_ns = 0;
    for (uint64_t i = 0; i < users; i++) {
        struct command c;
        c.kind = COMMAND_ELIGIBILITY_GRANT;
        c.scope = c.key = str_from("");
        c.eligibility.sale = STR_LITERAL("sale-0");
        c.eligibility.user = format(user, sizeof user, "user-", i);
        add(&c);
    }
    flush();
    report("eligibilities", users, resident_bytes() - before);
}

static void place_all(struct prng *p)
{
    uint64_t before = resident_bytes();
    char user[32], scope[40], key[32], sku[32], sale[32];
    applied_ns = 0;
    static struct command c;
    for (uint64_t i = 0; i < orders; i++) {
        uint64_t buyer = prng_below(p, users), wanted = prng_below(p, skus);
        c.kind = COMMAND_ORDER_PLACE;
        c.scope = format(scope, sizeof scope, "u:user-", buyer);
        c.key = format(key, sizeof key, "order-request-", i);
        c.order_place.sale = format(sale, sizeof sale, "sale-", eligible ? 0 : wanted / SALE_OFFERS_MAX);
        c.order_place.user = format(user, sizeof user, "user-", buyer);
        c.order_place.lines_count = 1;
        c.order_place.lines[0].sku = format(sku, sizeof sku, "sku-", wanted);
        c.order_place.lines[0].quantity = 1;
        add(&c);
    }
    flush();
    CHECK(orders_placed + refused == orders);
    CHECK(skus > 1 || refused == 0);
    report("orders", orders, resident_bytes() - before);
}

static void settle_all(struct prng *p)
{
    char key[32];
    applied_ns = 0;
    uint64_t before = resident_bytes();
    for (uint64_t i = 0; i < orders_placed; i++) {
        uint64_t other = i + prng_below(p, orders_placed - i), id = order_ids[other];
        order_ids[other] = order_ids[i];
        struct command c = {.kind = COMMAND_PAYMENT_APPLY, .scope = STR_LITERAL("pay")};
        c.key = format(key, sizeof key, "pay-", i);
        c.payment.order = id;
        c.payment.amount = 100;
        memcpy(c.payment.currency, "EUR", 4);
        add(&c);
    }
    uint64_t count = orders_placed;
    flush();
    CHECK(refused == 0);
    report("payments", count, resident_bytes() - before);
}

static void one_round(void)
{
    engine = engine_create();
    next_index = refused = orders_placed = 0;
    chunk_open();
    struct prng p = prng_init(1);
    set_up();
    if (strcmp(memory, "populated") == 0) {
        engine_populate(engine);
    } else if (strcmp(memory, "touched") == 0) {
        touch_memory();
    }
    if (eligible) {
        grant_all();
    }
    place_all(&p);
    if (settle) {
        settle_all(&p);
    }
    uint64_t start = clock_monotonic_ns();
    uint64_t digest = engine_digest(engine);
    printf("digest %016" PRIx64 " in %.1f ms\n", digest,
           (double)(clock_monotonic_ns() - start) / 1e6);
    engine_destroy(engine);
}

int main(int argc, char **argv)
{
    const struct {
        const char *name;
        uint64_t *value;
    } options[] = {{"--orders", &orders}, {"--users", &users},       {"--skus", &skus},
                   {"--batch", &batch_orders}, {"--eligible", &eligible}, {"--settle", &settle}, {"--rounds", &rounds}};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--memory") == 0) {
            memory = argv[i + 1];
        }
        for (size_t j = 0; j < ARRAY_COUNT(options); j++) {
            if (strcmp(argv[i], options[j].name) == 0) {
                *options[j].value = strtoull(argv[i + 1], NULL, 10);
            }
        }
    }
    CHECK(orders > 0 && users > 0 && skus > 0 && batch_orders > 0);
    CHECK(strcmp(memory, "populated") == 0 || strcmp(memory, "touched") == 0 ||
          strcmp(memory, "cold") == 0);
    printf("memory: %s\n", memory);
    CHECK(!eligible || skus <= SALE_OFFERS_MAX);
    order_ids = calloc(orders, sizeof *order_ids);
    chunk.data = calloc(1, CHUNK_SIZE + BATCH_SIZE_MAX);
    CHECK(order_ids != NULL && chunk.data != NULL);
    memset(order_ids, 1, orders * sizeof *order_ids); /* resident before it is measured */
    memset(chunk.data, 1, CHUNK_SIZE);
    for (uint64_t i = 0; i < rounds; i++) {
        one_round();
    }
    double per_block = 8 + 1 + 4 + 2 * 4; /* hash, marks, a stale list, two dirty lists */
    printf("live order: record %zu + maps 16 + queue 16 + blocks %.1f B; "
           "eligibility: record %zu + map 8 + blocks %.1f B; user: record %zu + map 8 + queue 16 B\n",
           sizeof(struct order), per_block / 8, sizeof(struct member), per_block / 16,
           sizeof(struct user));
    free(order_ids);
    free(chunk.data);
    return 0;
}
