/* machine_engine: the real state machine of holdfast with random commands and tiny limits, so that
 * every limit is met. Its checkpoints are made as a node makes them: the changed blocks, frozen at one
 * index, handed over in slices while later batches are applied. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "engine/engine.h"
#include "tests/sim/sim_machine.h"

#define SHARDS       SIM_ENGINE_SHARDS
#define SKUS         6
#define SALES        3
#define USERS        40
#define LEASES       4
#define IMAGE_HEADER 24 /* index, digest, number of blocks */

struct stored_block {
    uint32_t table, number, size;
    uint8_t data[ENGINE_BLOCK_SIZE_MAX];
};

struct machine {
    struct engine *engine;
    uint64_t answers; /* hash of the replies to the last batch */
    /* The image as of the last checkpoint, sorted by table and number. */
    struct stored_block *blocks;
    size_t blocks_count, blocks_capacity;
    uint64_t frozen_index, frozen_digest;
};

/* ---- blocks ---- */

static uint64_t block_key(uint32_t table, uint32_t number)
{
    return (uint64_t)table << 32 | number;
}

/* Where the block is, or would have to be. */
static size_t block_find(const struct machine *m, uint64_t key)
{
    size_t low = 0;
    size_t high = m->blocks_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (block_key(m->blocks[middle].table, m->blocks[middle].number) < key) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void put_cb(void *ctx, const struct engine_block *block)
{
    struct machine *m = ctx;
    uint64_t key = block_key(block->table, block->number);
    size_t at = block_find(m, key);
    bool there =
        at < m->blocks_count && block_key(m->blocks[at].table, m->blocks[at].number) == key;
    if (block->size == 0) {
        if (there) {
            memmove(&m->blocks[at], &m->blocks[at + 1],
                    (m->blocks_count - at - 1) * sizeof *m->blocks);
            m->blocks_count--;
        }
        return;
    }
    if (!there) {
        if (m->blocks_count == m->blocks_capacity) {
            m->blocks_capacity = m->blocks_capacity == 0 ? 64 : m->blocks_capacity * 2;
            m->blocks = realloc(m->blocks, m->blocks_capacity * sizeof *m->blocks);
            CHECK(m->blocks != NULL);
        }
        memmove(&m->blocks[at + 1], &m->blocks[at], (m->blocks_count - at) * sizeof *m->blocks);
        m->blocks_count++;
    }
    CHECK(block->size <= ENGINE_BLOCK_SIZE_MAX);
    m->blocks[at].table = block->table;
    m->blocks[at].number = block->number;
    m->blocks[at].size = block->size;
    memcpy(m->blocks[at].data, block->data, block->size);
}

/* ---- struct sim_machine ---- */

static void *machine_create(void)
{
    struct machine *m = calloc(1, sizeof *m);
    CHECK(m != NULL);
    m->engine = engine_create();
    return m;
}

static void machine_destroy(void *machine)
{
    struct machine *m = machine;
    engine_destroy(m->engine);
    free(m->blocks);
    free(m);
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash ^= value + 0x9E3779B97F4A7C15u + (hash << 6) + (hash >> 2);
    return hash * 0xFF51AFD7ED558CCDu;
}

uint64_t sim_machine_mix_reply(uint64_t hash, uint32_t position, const struct reply *reply)
{
    uint8_t bytes[REPLY_SIZE];
    reply_encode(reply, bytes);
    hash = mix(hash, position);
    for (size_t i = 0; i < sizeof bytes; i += 8) {
        hash = mix(hash, load_u64(bytes + i));
    }
    return hash;
}

static void reply_cb(void *ctx, uint32_t position, const struct reply *reply)
{
    struct machine *m = ctx;
    m->answers = sim_machine_mix_reply(m->answers, position, reply);
}

static void machine_apply(void *machine, uint64_t index, const void *data, size_t size)
{
    struct machine *m = machine;
    m->answers = 0;
    engine_apply(m->engine, index, data, size, reply_cb, m);
}

static uint64_t machine_digest(void *machine)
{
    struct machine *m = machine;
    return engine_digest(m->engine);
}

static uint64_t machine_answers(void *machine)
{
    struct machine *m = machine;
    return m->answers;
}

static uint64_t machine_check(void *machine, char *text, size_t size)
{
    struct machine *m = machine;
    return engine_check(m->engine, text, size);
}

static void machine_freeze(void *machine)
{
    struct machine *m = machine;
    m->frozen_index = engine_index(m->engine);
    m->frozen_digest = engine_digest(m->engine);
    while (engine_settle(m->engine, 64) > 0) { /* what a failed one left */
    }
    engine_checkpoint_begin(m->engine, put_cb, m);
}

static void machine_slice(void *machine)
{
    struct machine *m = machine;
    engine_checkpoint_step(m->engine, 2);
}

/* What it has put already stays in the image and is put again by the next one, which takes all of it. */
static void machine_abandon(void *machine)
{
    engine_checkpoint_end(((struct machine *)machine)->engine, false);
}

static uint8_t *machine_save(void *machine, size_t *size)
{
    struct machine *m = machine;
    while (engine_checkpoint_step(m->engine, 64) > 0) {
    }
    engine_checkpoint_end(m->engine, true);
    *size = IMAGE_HEADER;
    for (size_t i = 0; i < m->blocks_count; i++) {
        *size += 12 + m->blocks[i].size;
    }
    uint8_t *data = malloc(*size);
    CHECK(data != NULL);
    struct writer w = writer_init(data, *size);
    writer_u64(&w, m->frozen_index);
    writer_u64(&w, m->frozen_digest);
    writer_u64(&w, m->blocks_count);
    for (size_t i = 0; i < m->blocks_count; i++) {
        writer_u32(&w, m->blocks[i].table);
        writer_u32(&w, m->blocks[i].number);
        writer_u32(&w, m->blocks[i].size);
        writer_bytes(&w, m->blocks[i].data, m->blocks[i].size);
    }
    CHECK(!w.failed);
    return data;
}

static void *machine_load(const uint8_t *data, size_t size)
{
    struct machine *m = machine_create();
    struct reader r = reader_init(data, size);
    uint64_t index = reader_u64(&r);
    uint64_t digest = reader_u64(&r);
    uint64_t count = reader_u64(&r);
    bool good = true;
    for (uint64_t i = 0; i < count && good; i++) {
        struct engine_block block = {.table = reader_u32(&r), .number = reader_u32(&r)};
        block.size = reader_u32(&r);
        block.data = reader_bytes(&r, block.size);
        good = !r.failed && engine_load_block(m->engine, &block) == 0;
        if (good) {
            put_cb(m, &block);
        }
    }
    /* Nothing was ever applied: an engine that was not initialized has no blocks to load. */
    if (!good || r.failed || (count > 0 && engine_load_finish(m->engine, index, digest) != 0)) {
        machine_destroy(m);
        return NULL;
    }
    return m;
}

static int64_t machine_time_ms(void *machine)
{
    const struct machine *m = machine;
    return engine_time_ms(m->engine);
}

static int64_t machine_batch_time_ms(const void *data, size_t size)
{
    struct batch_reader batch;
    CHECK(batch_open(&batch, data, size) == 0);
    return batch.leader_time_ms;
}

/* ---- random commands ---- */

struct names {
    char sku[16], sale[16], user[16], lease[16], key[24];
};

static struct str name_str(char *to, size_t size, const char *prefix, uint64_t number)
{
    snprintf(to, size, "%s%llu", prefix, (unsigned long long)number);
    return str_from(to);
}

/* A recent order, or none. */
static uint64_t random_order(struct prng *prng, const struct engine *e, struct event_view *view)
{
    uint64_t first = engine_events_first(e);
    uint64_t next = engine_events_next(e);
    if (next <= first ||
        engine_read_events(e, first + prng_below(prng, next - first), view, 1) != 1) {
        return 0;
    }
    return view->order.id;
}

static void random_sale(struct prng *prng, int64_t now_ms, struct names *n, struct command *c)
{
    static char skus[3][16];
    struct command_sale *sale = &c->sale_put;
    sale->id = name_str(n->sale, sizeof n->sale, "sale", prng_below(prng, SALES));
    sale->title = STR_LITERAL("a sale");
    sale->expected_version = COMMAND_VERSION_ANY;
    memcpy(sale->currency, "EUR", 4);
    sale->opens_ms = 1;
    sale->closes_ms = now_ms + 500 + (int64_t)prng_below(prng, 3000);
    sale->payment_timeout_ms = 50 + prng_below(prng, 1500);
    sale->late_payment = (uint8_t)prng_below(prng, 2);
    sale->eligibility_required = prng_one_in(prng, 3);
    sale->orders_per_user_max = 1 + (uint32_t)prng_below(prng, 4);
    sale->units_per_user_max = (uint32_t)prng_below(prng, 10);
    sale->eligibility_limit = prng_below(prng, 30);
    sale->strikes_max = (uint32_t)prng_below(prng, 4);
    sale->denial_ms = 1 + prng_below(prng, 5000);
    sale->offers_count = 1 + (uint8_t)prng_below(prng, 3);
    uint64_t first = prng_below(prng, SKUS);
    for (uint8_t i = 0; i < sale->offers_count; i++) {
        sale->offers[i] = (struct command_offer){
            .sku = name_str(skus[i], sizeof skus[i], "sku", (first + i) % SKUS),
            .unit_price = (int64_t)prng_below(prng, 500),
            .units_per_order_max = 1 + (uint32_t)prng_below(prng, 5),
            .oversell_allowance = (uint32_t)prng_below(prng, 3),
        };
    }
}

static void random_order_place(struct prng *prng, struct names *n, struct command *c)
{
    static char skus[3][16];
    c->order_place.sale = name_str(n->sale, sizeof n->sale, "sale", prng_below(prng, SALES));
    c->order_place.user = name_str(n->user, sizeof n->user, "user", prng_below(prng, USERS));
    c->order_place.lines_count = 1 + (uint8_t)prng_below(prng, 2);
    for (uint8_t i = 0; i < c->order_place.lines_count; i++) {
        c->order_place.lines[i] = (struct command_line){
            .sku = name_str(skus[i], sizeof skus[i], "sku", prng_below(prng, SKUS)),
            .quantity = 1 + (uint32_t)prng_below(prng, 4),
        };
    }
}

bool sim_machine_engine_persisted;

static struct engine *machine_engine(void *machine)
{
    struct machine *m = machine;
    return m->engine;
}

static void random_body(struct prng *prng, const struct engine *e, int64_t now_ms, struct names *n,
                        struct command *c)
{
    static struct event_view view;
    switch (prng_below(prng, 16)) {
    case 0:
        c->kind = COMMAND_SKU_PUT;
        c->sku_put.sku = name_str(n->sku, sizeof n->sku, "sku", prng_below(prng, SKUS));
        c->sku_put.title = STR_LITERAL("a thing");
        c->sku_put.expected_version = COMMAND_VERSION_ANY;
        return;
    case 1:
        c->kind = COMMAND_STOCK_ADJUST;
        c->stock_adjust.sku = name_str(n->sku, sizeof n->sku, "sku", prng_below(prng, SKUS));
        c->stock_adjust.reason = STR_LITERAL("delivery");
        c->stock_adjust.delta = 1 + (int64_t)prng_below(prng, 40);
        if (prng_one_in(prng, 4)) {
            c->stock_adjust.delta = -c->stock_adjust.delta;
        }
        return;
    case 2:
        c->kind = COMMAND_SALE_PUT;
        random_sale(prng, now_ms, n, c);
        return;
    case 3:
        c->kind = prng_one_in(prng, 300) ? COMMAND_SALE_CLOSE
                  : prng_one_in(prng, 4) ? COMMAND_SALE_PAUSE
                                         : COMMAND_SALE_RESUME;
        c->sale_control.sale = name_str(n->sale, sizeof n->sale, "sale", prng_below(prng, SALES));
        c->sale_control.expected_version = COMMAND_VERSION_ANY;
        return;
    case 4:
        c->kind = prng_one_in(prng, 4) ? COMMAND_ELIGIBILITY_REVOKE : COMMAND_ELIGIBILITY_GRANT;
        c->eligibility.sale = name_str(n->sale, sizeof n->sale, "sale", prng_below(prng, SALES));
        c->eligibility.user = name_str(n->user, sizeof n->user, "user", prng_below(prng, USERS));
        return;
    case 5:
        c->kind = COMMAND_ORDER_CANCEL;
        c->order_cancel.order = random_order(prng, e, &view);
        return;
    case 6:
    case 7:
        c->kind = COMMAND_PAYMENT_APPLY;
        c->payment.order = random_order(prng, e, &view);
        c->payment.amount = view.order.amount + (prng_one_in(prng, 10) ? 1 : 0);
        memcpy(c->payment.currency, "EUR", 4);
        return;
    case 8:
        c->kind = COMMAND_ORDER_REFUND;
        c->order_refund.order = random_order(prng, e, &view);
        c->order_refund.restock = prng_one_in(prng, 2);
        c->order_refund.reason = STR_LITERAL("changed mind");
        return;
    case 9:
        c->kind = COMMAND_LEASE_ACQUIRE + (enum command_kind)prng_below(prng, 3);
        c->lease.name = name_str(n->lease, sizeof n->lease, "lease", prng_below(prng, LEASES));
        c->lease.owner = name_str(n->user, sizeof n->user, "user", prng_below(prng, 3));
        c->lease.token = 1 + prng_below(prng, 20);
        c->lease.ttl_ms = 1 + prng_below(prng, 3000);
        return;
    case 10:
        c->kind = prng_one_in(prng, 3) ? COMMAND_DENY_REMOVE : COMMAND_DENY_PUT;
        c->deny.user = name_str(n->user, sizeof n->user, "user", prng_below(prng, USERS));
        c->deny.reason = STR_LITERAL("a robot");
        c->deny.until_ms = now_ms + (int64_t)prng_below(prng, 2000);
        return;
    case 11:
        if (sim_machine_engine_persisted) {
            c->kind = COMMAND_ORDER_PLACE;
            random_order_place(prng, n, c);
            return;
        }
        c->kind = COMMAND_PERSIST_ACK;
        c->key = c->scope = (struct str){NULL, 0};
        c->persist_ack.count = SHARDS;
        for (uint32_t i = 0; i < SHARDS; i++) {
            uint64_t first = engine_events_first(e);
            uint64_t next = engine_events_next(e);
            c->persist_ack.acks[i] = (struct command_ack){
                .shard = i,
                .sequence = first + (next > first ? prng_below(prng, next - first) : 0),
            };
        }
        return;
    default:
        c->kind = COMMAND_ORDER_PLACE;
        random_order_place(prng, n, c);
        return;
    }
}

static void random_init(struct command *c)
{
    c->kind = COMMAND_INIT;
    c->key = c->scope = (struct str){NULL, 0};
    memset(c->init.cluster_id, SIM_ENGINE_CLUSTER, sizeof c->init.cluster_id);
    memset(c->init.hash_seed, 2, sizeof c->init.hash_seed);
    c->init.shards = SHARDS;
    c->init.limits = (struct command_limits){
        .skus_max = SKUS - 1,
        .sales_max = SALES,
        .users_max = USERS - 4,
        .eligibilities_max = 48,
        .orders_max = 128,
        .idempotency_max = 1024,
        .leases_max = LEASES - 1,
        .events_max = 512,
        .expiries_per_batch_max = 6,
        .idempotency_retention_ms = 300,
    };
}

static size_t machine_command(struct prng *prng, void *machine, uint64_t id, int64_t now_ms, void *to,
                              size_t capacity)
{
    const struct machine *m = machine;
    struct batch_builder b;
    batch_begin(&b, to, capacity);
    uint64_t commands = prng_below(prng, 6);
    for (uint64_t i = 0; i < commands; i++) {
        uint8_t bytes[4096];
        struct names names;
        struct command c = {0};
        /* Now and then an old key: the same command, or another one under it. */
        uint64_t key = prng_one_in(prng, 12) ? prng_below(prng, id) : id * 8 + i;
        c.scope = STR_LITERAL("u:sim");
        c.key = name_str(names.key, sizeof names.key, "k", key);
        random_body(prng, m->engine, now_ms, &names, &c);
        bool natural = c.kind == COMMAND_SKU_PUT || c.kind == COMMAND_SALE_PUT ||
                       c.kind == COMMAND_SALE_PAUSE || c.kind == COMMAND_SALE_RESUME ||
                       c.kind == COMMAND_ELIGIBILITY_GRANT || c.kind == COMMAND_DENY_PUT;
        if (natural && !prng_one_in(prng, 4)) {
            c.key = c.scope = (struct str){NULL, 0};
        }
        if (c.kind == COMMAND_PAYMENT_APPLY) {
            c.scope = STR_LITERAL("pay");
        }
        if (!engine_initialized(m->engine) && i == 0) {
            random_init(&c);
        }
        size_t size = command_encode(&c, bytes, sizeof bytes);
        if (size > 0) { /* 0: an order that does not exist, say */
            (void)batch_add(&b, bytes, size);
        }
    }
    return batch_end(&b, now_ms);
}

const struct sim_machine sim_machine_engine = {
    .name = "engine",
    .create = machine_create,
    .destroy = machine_destroy,
    .apply = machine_apply,
    .digest = machine_digest,
    .answers = machine_answers,
    .check = machine_check,
    .freeze = machine_freeze,
    .slice = machine_slice,
    .save = machine_save,
    .abandon = machine_abandon,
    .load = machine_load,
    .time_ms = machine_time_ms,
    .batch_time_ms = machine_batch_time_ms,
    .engine = machine_engine,
    .command = machine_command,
};
