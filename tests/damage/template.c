/* A node's life in short, through the modules that a node is made of: a log of several segments with votes,
 * truncations and group commits; a state machine that applied it; checkpoints in two generations, the second
 * one installed from the first as from a peer; trims. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/prng.h"
#include "engine/engine.h"
#include "raft/membership.h"
#include "raft/wal.h"
#include "raft/wal_inspect.h"
#include "server/checkpoint_driver.h"
#include "server/identity.h"
#include "server/options.h"
#include "storage/checkpoint.h"
#include "tests/damage/damage.h"

#define SEGMENT_SIZE (288u << 10)
#define TRAILING     60u
#define ENTRIES      420u

struct maker {
    struct prng prng;
    uv_loop_t loop;
    struct wal *wal;
    struct checkpoint *store;
    struct engine *engine;
    struct template *t;
    char directory[DAMAGE_PATH_SIZE];
    uint8_t cluster_id[16];
    uint64_t node_id, index, term, keys;
    int64_t time_ms;
    uint8_t configuration[REPLICA_CONFIGURATION_SIZE_MAX];
    uint32_t configuration_size;
    bool done, ok, closed;
};

static _Alignas(8) uint8_t record_memory[4][RECORD_SPAN_MAX];

static void on_durable(void *ctx, uint64_t ticket, uint64_t index, uint64_t term)
{
    (void)ctx;
    (void)ticket;
    (void)index;
    (void)term;
}

static void on_closed(void *ctx)
{
    struct maker *m = ctx;
    m->closed = true;
}

/* ---- log ---- */

static void append(struct maker *m, const struct record_header *const *records, size_t count)
{
    wal_wait(m->wal, wal_append(m->wal, records, count));
    for (size_t i = 0; i < count; i++) {
        CHECK(records[i]->index < DAMAGE_ENTRIES_MAX);
        m->t->terms[records[i]->index] = records[i]->term;
        m->t->crcs[records[i]->index] = records[i]->crc32c;
        m->t->end.last_index = records[i]->index;
    }
}

static void vote(struct maker *m, uint64_t term, uint64_t id)
{
    wal_wait(m->wal, wal_set_vote(m->wal, term, id));
    m->term = m->t->end.term = term;
    m->t->end.vote = id;
}

static const struct record_header *encode(int slot, enum record_type type, uint64_t index,
                                          uint64_t term, const void *data, size_t size)
{
    record_encode(record_memory[slot], type, index, term, data, (uint32_t)size);
    return (const struct record_header *)(const void *)record_memory[slot];
}

/* Entries of a leader that nobody followed: in the log, never applied, soon replaced. */
static void append_lost(struct maker *m, uint64_t count)
{
    uint8_t junk[3000];
    const struct record_header *records[4] = {NULL};
    for (size_t i = 0; i < sizeof junk; i++) {
        junk[i] = (uint8_t)prng_next(&m->prng);
    }
    for (uint64_t i = 0; i < count; i++) {
        records[i] = encode((int)i, RECORD_COMMAND, m->index + 1 + i, m->term, junk,
                            100 + prng_below(&m->prng, sizeof junk - 100));
    }
    append(m, records, count);
}

/* ---- state ---- */

static void add(struct maker *m, struct batch_builder *b, struct command *c)
{
    uint8_t encoded[COMMAND_SIZE_MAX];
    char key[32];
    snprintf(key, sizeof key, "k%llu", (unsigned long long)m->keys++);
    c->scope = STR_LITERAL("k:test");
    c->key = c->kind == COMMAND_INIT ? STR_LITERAL("") : str_from(key);
    size_t size = command_encode(c, encoded, sizeof encoded);
    CHECK(size > 0);
    CHECK(batch_add(b, encoded, size));
}

static void begin_sale(struct maker *m, struct batch_builder *b)
{
    struct command c = {.kind = COMMAND_INIT};
    memcpy(c.init.cluster_id, m->cluster_id, sizeof c.init.cluster_id);
    c.init.hash_seed[0] = 2;
    c.init.shards = 8;
    c.init.limits = (struct command_limits){10, 10, 2000, 2000, 20000, 20000, 50, 50000, 20, 3000000};
    add(m, b, &c);
    c = (struct command){.kind = COMMAND_SKU_PUT};
    c.sku_put.sku = c.sku_put.title = STR_LITERAL("A");
    add(m, b, &c);
    c = (struct command){.kind = COMMAND_STOCK_ADJUST};
    c.stock_adjust.sku = STR_LITERAL("A");
    c.stock_adjust.reason = STR_LITERAL("x");
    c.stock_adjust.delta = 100000;
    add(m, b, &c);
    c = (struct command){.kind = COMMAND_SALE_PUT};
    c.sale_put.id = c.sale_put.title = STR_LITERAL("S");
    memcpy(c.sale_put.currency, "EUR", 3);
    c.sale_put.opens_ms = 1;
    c.sale_put.closes_ms = 1000000000;
    c.sale_put.payment_timeout_ms = 20000;
    c.sale_put.orders_per_user_max = 100;
    c.sale_put.offers_count = 1;
    c.sale_put.offers[0] = (struct command_offer){STR_LITERAL("A"), 100, 5, 0};
    add(m, b, &c);
}

static void random_order(struct maker *m, struct batch_builder *b)
{
    char user[16];
    snprintf(user, sizeof user, "u%u", (unsigned)prng_below(&m->prng, 900));
    struct command c = {.kind = COMMAND_ORDER_PLACE};
    c.order_place.sale = STR_LITERAL("S");
    c.order_place.user = str_from(user);
    c.order_place.lines_count = 1;
    c.order_place.lines[0] =
        (struct command_line){STR_LITERAL("A"), 1 + (uint32_t)prng_below(&m->prng, 3)};
    if (prng_one_in(&m->prng, 5)) {
        c = (struct command){.kind = COMMAND_LEASE_ACQUIRE};
        c.lease.name = c.lease.owner = str_from(user);
        c.lease.ttl_ms = 1500;
    }
    add(m, b, &c);
}

static void commit(struct maker *m, uint64_t orders)
{
    static _Alignas(8) uint8_t buffer[BATCH_SIZE_MAX];
    struct batch_builder b;
    batch_begin(&b, buffer, sizeof buffer);
    if (!engine_initialized(m->engine)) {
        begin_sale(m, &b);
    }
    for (uint64_t i = 0; i < orders; i++) {
        random_order(m, &b);
    }
    m->time_ms += 50;
    size_t size = batch_end(&b, m->time_ms);
    m->index++;
    const struct record_header *record = encode(0, RECORD_COMMAND, m->index, m->term, b.data, size);
    append(m, &record, 1);
    engine_apply(m->engine, m->index, b.data, size, NULL, NULL);
    m->t->digests[m->index] = engine_digest(m->engine);
}

/* ---- checkpoints ---- */

static void put_cb(void *ctx, const struct engine_block *block)
{
    struct maker *m = ctx;
    checkpoint_put(m->store, block);
}

static void done_cb(void *ctx, bool ok, bool again, const struct checkpoint_meta *meta)
{
    struct maker *m = ctx;
    (void)again;
    (void)meta;
    m->done = true;
    m->ok = ok;
    engine_checkpoint_end(m->engine, ok);
}

static void checkpoint(struct maker *m)
{
    struct replica_position position = {
        .index = m->index, .term = m->term, .configuration_index = 1};
    struct checkpoint_meta meta = {.index = engine_index(m->engine),
                                   .term = m->term,
                                   .digest = engine_digest(m->engine),
                                   .time_ms = engine_time_ms(m->engine)};
    position.configuration_size = m->configuration_size;
    memcpy(position.configuration, m->configuration, m->configuration_size);
    meta.position_size = (uint32_t)position_encode(&position, meta.position);
    do {
        m->done = false;
        checkpoint_begin(m->store, &meta, done_cb, m);
        engine_checkpoint_begin(m->engine, put_cb, m);
        while (engine_checkpoint_step(m->engine, 200) > 0) {
            checkpoint_flush(m->store);
        }
        checkpoint_end(m->store);
        while (!m->done) {
            uv_run(&m->loop, UV_RUN_ONCE);
        }
    } while (!m->ok);
    if (m->index > TRAILING) {
        wal_trim(m->wal, m->index - TRAILING);
    }
}

static int load_cb(void *ctx, const struct engine_block *block)
{
    return engine_load_block(ctx, block);
}

/* The next generation, filled with our own chunks as with a peer's. */
static void install(struct maker *m)
{
    struct checkpoint_install *i;
    struct checkpoint_chunk chunk = {.next_size = 0};
    struct checkpoint_meta meta;
    uint8_t ticket[CHECKPOINT_TICKET_SIZE], from[8];
    size_t from_size = 0;
    CHECK(checkpoint_pin(m->store, 0, 60000, ticket, &meta) == 0);
    CHECK(checkpoint_install_begin(m->store, NULL, &i) == 0);
    do {
        CHECK(checkpoint_read_chunk(m->store, ticket, sizeof ticket, from, from_size, 32 << 10, &chunk) ==
              CHECKPOINT_CHUNK_OK);
        CHECK(checkpoint_install_put(i, chunk.records.data, chunk.records.len, chunk.crc32c) == 0);
        memcpy(from, chunk.next, sizeof from);
        from_size = chunk.next_size;
        text_close(&chunk.records);
    } while (from_size > 0);
    struct engine *engine = engine_create();
    CHECK(checkpoint_install_verify(i, load_cb, engine, &meta) == 0);
    CHECK(engine_load_finish(engine, meta.index, meta.digest) == 0);
    engine_destroy(engine);
    CHECK(checkpoint_install_commit(i) == 0);
}

/* ---- a life ---- */

static void open_all(struct maker *m)
{
    char path[DAMAGE_PATH_SIZE + 8];
    struct wal_recovered recovered;
    struct identity identity = {.node_id = m->node_id, .state = IDENTITY_MEMBER};
    struct checkpoint_config store = {
        .loop = &m->loop, .directory = m->directory, .map_size = 1 << 20, .node_id = m->node_id};
    CHECK(mkdir(m->directory, 0700) == 0);
    memcpy(identity.cluster_id, m->cluster_id, sizeof identity.cluster_id);
    memcpy(store.cluster_id, m->cluster_id, sizeof store.cluster_id);
    CHECK(identity_write(m->directory, &identity) == 0);
    snprintf(path, sizeof path, "%s/lock", m->directory);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    close(fd);
    snprintf(path, sizeof path, "%s/log", m->directory);
    struct wal_config wal = {
        .directory = path, .node_id = m->node_id, .segment_size = SEGMENT_SIZE, .sync = false};
    memcpy(wal.cluster_id, m->cluster_id, sizeof wal.cluster_id);
    CHECK(uv_loop_init(&m->loop) == 0);
    CHECK(wal_open(&m->loop, &wal, on_durable, m, &m->wal, &recovered) == 0);
    wal_recovered_close(&recovered);
    CHECK(checkpoint_open(&store, &m->store) == 0);
    m->engine = engine_create();
}

static void configure(struct maker *m)
{
    struct membership members = {.count = 3};
    for (size_t i = 0; i < 3; i++) {
        members.members[i].id = i + 1;
        members.members[i].role = REPLICA_VOTER;
        snprintf(members.members[i].address, sizeof members.members[i].address, "127.0.0.1:%zu", i + 1);
    }
    int size = membership_encode(&members, m->configuration);
    CHECK(size > 0);
    m->configuration_size = (uint32_t)size;
    m->index = 1;
    const struct record_header *record =
        encode(0, RECORD_CHANGE, 1, 1, m->configuration, m->configuration_size);
    append(m, &record, 1);
}

/* Commits until `index`; now and then a new term, with or without entries that are replaced. */
static void live_until(struct maker *m, uint64_t index)
{
    while (m->index < index) {
        commit(m, 1 + prng_below(&m->prng, 24));
        if (prng_one_in(&m->prng, 40)) {
            if (prng_one_in(&m->prng, 2)) {
                append_lost(m, 1 + prng_below(&m->prng, 3));
            }
            vote(m, m->term + 1, 1 + prng_below(&m->prng, 3));
            m->index++;
            const struct record_header *record = encode(0, RECORD_NOOP, m->index, m->term, NULL, 0);
            append(m, &record, 1);
        }
    }
}

static void close_all(struct maker *m)
{
    m->closed = false;
    wal_close(m->wal, on_closed, m);
    while (!m->closed) {
        uv_run(&m->loop, UV_RUN_ONCE);
    }
    m->closed = false;
    checkpoint_close(m->store, on_closed, m);
    while (!m->closed) {
        uv_run(&m->loop, UV_RUN_ONCE);
    }
    uv_run(&m->loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&m->loop) == 0);
    engine_destroy(m->engine);
}

/* older, killed: where to copy the directory to on the way; NULL: nowhere. */
static void live(struct template *t, const char *directory, uint64_t node_id, uint64_t seed,
                 const char *older, const char *killed, struct template *killed_template)
{
    static struct maker maker;
    struct maker *m = &maker;
    *m = (struct maker){.prng = prng_init(seed), .t = t, .node_id = node_id, .time_ms = 1000};
    snprintf(m->directory, sizeof m->directory, "%s", directory);
    for (size_t i = 0; i < sizeof m->cluster_id; i++) {
        m->cluster_id[i] = (uint8_t)(seed + i);
    }
    memcpy(t->cluster_id, m->cluster_id, sizeof t->cluster_id);
    open_all(m);
    vote(m, 1, 1);
    configure(m);
    live_until(m, ENTRIES / 4);
    checkpoint(m);
    live_until(m, ENTRIES / 3);
    checkpoint(m);
    install(m);
    live_until(m, ENTRIES / 2);
    checkpoint(m);
    live_until(m, ENTRIES * 2 / 3);
    if (older != NULL) {
        copy_directory(directory, older);
    }
    checkpoint(m);
    live_until(m, ENTRIES * 3 / 4);
    checkpoint(m);
    live_until(m, ENTRIES);
    vote(m, m->term + 1, 2);
    t->before_last = t->end;
    commit(m, 40); /* several sectors, each of a few orders */
    if (killed != NULL) {
        *killed_template = *t;
        copy_directory(directory, killed);
    }
    close_all(m);
}

/* Where the last record is, there is the last write. */
static void last_cb(void *ctx, const struct wal_inspect_segment *segment, uint64_t offset,
                    const struct record_header *record)
{
    struct template *t = ctx;
    snprintf(t->last_name, sizeof t->last_name, "log/%.40s", segment->name);
    t->last_offset = offset / WAL_BLOCK_SIZE * WAL_BLOCK_SIZE;
    t->last_size = offset % WAL_BLOCK_SIZE + record_size(record);
    t->last_size = (t->last_size + WAL_BLOCK_SIZE - 1) / WAL_BLOCK_SIZE * WAL_BLOCK_SIZE;
}

static void look_at_last(struct template *t)
{
    char path[DAMAGE_PATH_SIZE + 8];
    struct wal_inspection i;
    snprintf(path, sizeof path, "%s/log", t->path);
    CHECK(wal_inspect(path, last_cb, t, &i) == 0);
    CHECK(i.ok);
    CHECK(i.findings_count == 0);
    CHECK(i.segments_count >= 3);
    CHECK(i.term == t->end.term);
    CHECK(i.vote == t->end.vote);
    CHECK(i.last_index == t->end.last_index);
    wal_inspection_close(&i);
}

void template_make(const char *root, struct template *stopped, struct template *killed)
{
    static struct template ignored;
    char killed_path[DAMAGE_PATH_SIZE];
    memset(stopped, 0, sizeof *stopped);
    stopped->stopped = true;
#define PLACE(field, name) CHECK(snprintf(field, sizeof field, "%s/" name, root) > 0)
    PLACE(stopped->path, "stopped");
    PLACE(stopped->older, "older");
    PLACE(stopped->other, "other");
    PLACE(stopped->stranger, "stranger");
    PLACE(stopped->key_file, "key");
    PLACE(killed_path, "killed");
#undef PLACE
    int fd = open(stopped->key_file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    for (int i = 0; i < 64; i++) {
        CHECK(write(fd, "7", 1) == 1);
    }
    close(fd);
    live(&ignored, stopped->other, 2, 7, NULL, NULL, NULL);
    live(&ignored, stopped->stranger, 1, 99, NULL, NULL, NULL);
    live(stopped, stopped->path, 1, 7, stopped->older, killed_path, killed);
    killed->stopped = false;
    memcpy(killed->path, killed_path, sizeof killed_path);
    look_at_last(killed);
    look_at_last(stopped);
}
