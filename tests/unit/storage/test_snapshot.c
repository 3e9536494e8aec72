/* The snapshot file: what is written is read back and loads; every flipped byte, every length that
 * it was cut to, swapped, doubled and missing chunks are refused; a writer that fails leaves no file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "base/text.h"
#include "storage/checkpoint_internal.h"
#include "storage/snapshot_internal.h"

#define CHUNK_BLOCKS 2 /* in one chunk here: the file gets several */

static char dir[64], path[96], bad[96], error[SNAPSHOT_ERROR_SIZE];
static struct engine *engine;
static struct text good; /* the bytes of a snapshot of it */

/* ---- a state and its file ---- */

static void add(struct batch_builder *b, struct command *c, const char *key)
{
    uint8_t encoded[COMMAND_SIZE_MAX];
    c->scope = STR_LITERAL("k:test");
    c->key = str_from(key);
    size_t size = command_encode(c, encoded, sizeof encoded);
    CHECK(size > 0);
    CHECK(batch_add(b, encoded, size));
}

static void ordered(void *ctx, uint32_t position, const struct reply *reply)
{
    (void)ctx;
    (void)position;
    assert_int_equal(reply->result, RESULT_OK);
}

static void make_state(void)
{
    static uint8_t buffer[BATCH_SIZE_MAX];
    struct batch_builder b;
    batch_begin(&b, buffer, sizeof buffer);
    struct command c = {.kind = COMMAND_INIT};
    memset(c.init.cluster_id, 7, sizeof c.init.cluster_id);
    c.init.hash_seed[0] = 2;
    c.init.shards = 4;
    c.init.limits = (struct command_limits){10, 10, 100, 100, 200, 300, 50, 500, 20, 3000};
    add(&b, &c, "");
    c = (struct command){.kind = COMMAND_SKU_PUT};
    c.sku_put.sku = c.sku_put.title = STR_LITERAL("A");
    add(&b, &c, "k1");
    c = (struct command){.kind = COMMAND_STOCK_ADJUST};
    c.stock_adjust.sku = STR_LITERAL("A");
    c.stock_adjust.reason = STR_LITERAL("x");
    c.stock_adjust.delta = 500;
    add(&b, &c, "k2");
    c = (struct command){.kind = COMMAND_SALE_PUT};
    c.sale_put.id = c.sale_put.title = STR_LITERAL("S");
    memcpy(c.sale_put.currency, "EUR", 3);
    c.sale_put.opens_ms = 1;
    c.sale_put.closes_ms = 1000000000;
    c.sale_put.payment_timeout_ms = 100000;
    c.sale_put.orders_per_user_max = 30;
    c.sale_put.offers_count = 1;
    c.sale_put.offers[0] = (struct command_offer){STR_LITERAL("A"), 100, 5, 0};
    add(&b, &c, "k3");
    for (int i = 0; i < 20; i++) {
        char key[16], user[16];
        snprintf(key, sizeof key, "o%d", i);
        snprintf(user, sizeof user, "u%d", i % 5);
        c = (struct command){.kind = COMMAND_ORDER_PLACE};
        c.order_place.sale = STR_LITERAL("S");
        c.order_place.user = str_from(user);
        c.order_place.lines_count = 1;
        c.order_place.lines[0] = (struct command_line){STR_LITERAL("A"), 1};
        add(&b, &c, key);
    }
    c = (struct command){.kind = COMMAND_LEASE_ACQUIRE};
    c.lease.name = STR_LITERAL("nightly");
    c.lease.owner = STR_LITERAL("worker");
    c.lease.ttl_ms = 60000;
    add(&b, &c, "l1");
    size_t size = batch_end(&b, 1000);
    engine = engine_create();
    engine_apply(engine, 41, buffer, size, ordered, NULL);
}

/* The blocks of the state, as a node's chunks hold them, in key order. */
struct gathered {
    struct text records;
    size_t starts[4096];
    size_t count;
};

static void gather(void *ctx, const struct engine_block *block)
{
    struct gathered *g = ctx;
    uint32_t head[3] = {block->table, block->number, block->size};
    CHECK(g->count < ARRAY_COUNT(g->starts));
    g->starts[g->count++] = g->records.len;
    text_append(&g->records, head, sizeof head);
    text_append(&g->records, block->data, block->size);
}

static const char *sorting; /* the records that starts point into */

static int by_key(const void *a, const void *b)
{
    const char *left = sorting + *(const size_t *)a, *right = sorting + *(const size_t *)b;
    uint64_t x = checkpoint_key(load_u32(left), load_u32(left + 4));
    uint64_t y = checkpoint_key(load_u32(right), load_u32(right + 4));
    return (x > y) - (x < y);
}

static struct gathered *gather_state(struct snapshot_header *h)
{
    struct gathered *g = calloc(1, sizeof *g);
    CHECK(g != NULL);
    engine_checkpoint_begin(engine, gather, g);
    while (engine_checkpoint_step(engine, 100) > 0) {
    }
    engine_checkpoint_end(engine, false);
    sorting = text_cstring(&g->records);
    qsort(g->starts, g->count, sizeof g->starts[0], by_key);
    *h = (struct snapshot_header){.index = engine_index(engine),
                                  .term = 3,
                                  .digest = engine_digest(engine),
                                  .blocks_count = g->count,
                                  .time_ms = engine_time_ms(engine),
                                  .wall_ms = 1234567,
                                  .node_id = 2,
                                  .position_size = 5,
                                  .version = "0.1.0"};
    memset(h->cluster_id, 7, sizeof h->cluster_id);
    memcpy(h->position, "where", 5);
    return g;
}

static void gathered_free(struct gathered *g)
{
    text_close(&g->records);
    free(g);
}

static void append_block(struct text *t, const struct gathered *g, size_t i)
{
    const char *at = text_cstring(&g->records) + g->starts[i];
    text_append(t, at, SNAPSHOT_RECORD_HEAD + load_u32(at + 8));
}

static void append_meta(struct text *t, const struct snapshot_header *h)
{
    uint8_t encoded[CHECKPOINT_META_SIZE_MAX];
    struct checkpoint_meta meta = {.index = h->index,
                                   .term = h->term,
                                   .digest = h->digest,
                                   .time_ms = h->time_ms,
                                   .position_size = h->position_size,
                                   .blocks_count = h->blocks_count};
    memcpy(meta.position, h->position, h->position_size);
    uint32_t head[3] = {CHECKPOINT_META_TABLE, 0, (uint32_t)checkpoint_meta_encode(&meta, encoded)};
    text_append(t, head, sizeof head);
    text_append(t, encoded, head[2]);
}

static int put(struct snapshot_writer *w, const struct text *t)
{
    return snapshot_writer_put(w, t->data, t->len, crc32c(0, t->data, t->len), error);
}

static void write_good(const char *to)
{
    struct snapshot_header h;
    struct snapshot_writer *w;
    struct gathered *g = gather_state(&h);
    assert_int_equal(snapshot_writer_open(to, true, &h, &w, error), 0);
    struct text chunk = TEXT_INIT;
    append_meta(&chunk, &h);
    for (size_t i = 0; i < g->count; i++) {
        append_block(&chunk, g, i);
        if (i % CHUNK_BLOCKS == CHUNK_BLOCKS - 1 || i + 1 == g->count) {
            assert_int_equal(put(w, &chunk), 0);
            text_clear(&chunk);
        }
    }
    assert_int_equal(snapshot_writer_blocks(w), g->count);
    assert_int_equal(snapshot_writer_commit(w, error), 0);
    text_close(&chunk);
    gathered_free(g);
}

static void read_file(const char *from, struct text *t)
{
    char buffer[4096];
    FILE *f = fopen(from, "rb");
    assert_non_null(f);
    text_clear(t);
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, f)) > 0;) {
        text_append(t, buffer, n);
    }
    fclose(f);
}

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/holdfast-snapshot-XXXXXX");
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/good", dir);
    snprintf(bad, sizeof bad, "%s/bad", dir);
    make_state();
    write_good(path);
    read_file(path, &good);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    engine_destroy(engine);
    text_close(&good);
    unlink(path);
    unlink(bad);
    assert_int_equal(rmdir(dir), 0); /* and nothing else was left in it */
    return 0;
}

/* ---- judging ---- */

static int load(const void *data, size_t size)
{
    struct snapshot_header h;
    FILE *f = fopen(bad, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    fclose(f);
    error[0] = '\0';
    int rv = snapshot_load(bad, &h, NULL, NULL, error);
    assert_true(rv == 0 || strstr(error, bad) != NULL); /* who is meant */
    return rv;
}

static void test_round_trip(void **state)
{
    (void)state;
    struct snapshot_header h;
    struct snapshot_contents c;
    struct engine *e;
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(snapshot_load(path, &h, &c, &e, error), 0);
    assert_int_equal(h.index, 41);
    assert_int_equal(h.term, 3);
    assert_int_equal(h.node_id, 2);
    assert_int_equal(h.wall_ms, 1234567);
    assert_int_equal(h.time_ms, engine_time_ms(engine));
    assert_int_equal(h.cluster_id[15], 7);
    assert_int_equal(h.position_size, 5);
    assert_memory_equal(h.position, "where", 5);
    assert_string_equal(h.version, "0.1.0");
    assert_int_equal(c.bytes, good.len);
    assert_int_equal(c.orders, 20);
    assert_int_equal(c.orders_pending, 20);
    assert_int_equal(c.events_pending, 20);
    assert_int_equal(engine_digest(e), engine_digest(engine));
    engine_destroy(e);
    struct snapshot_reader *r;
    assert_int_equal(snapshot_reader_open(path, &r, &h, error), 0);
    assert_int_equal(snapshot_reader_blocks(r, NULL, NULL, error), 0);
    assert_int_equal(snapshot_reader_chunks(r), (h.blocks_count + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS);
    assert_true(snapshot_reader_chunks(r) > 3);
    snapshot_reader_close(r);
    assert_int_equal(load(good.data, good.len), 0); /* the tests below can fail */
}

/* A restored state is another cluster's and nothing else: equal states stay equal. */
static void keep(void *ctx, const struct engine_block *block)
{
    struct engine_block *kept = ctx;
    static uint8_t bytes[ENGINE_BLOCK_SIZE_MAX];
    *kept = *block;
    kept->data = memcpy(bytes, block->data, block->size);
}

struct replaced {
    struct engine *engine;
    const struct engine_block *with;
};

static int replace(void *ctx, const struct engine_block *block)
{
    struct replaced *r = ctx;
    bool same = block->table == r->with->table && block->number == r->with->number;
    return engine_load_block(r->engine, same ? r->with : block);
}

static void test_rebase(void **state)
{
    (void)state;
    static const uint8_t other[16] = {9, 9};
    struct snapshot_header h;
    struct engine *a, *b;
    struct engine_block root;
    struct lease_view lease;
    char text[256];
    assert_int_equal(snapshot_load(path, &h, NULL, &a, error), 0);
    engine_rebase(a, other, 1000, keep, &root);
    assert_memory_equal(engine_cluster_id(a), other, 16);
    assert_true(engine_digest(a) != h.digest);
    assert_int_equal(engine_check(a, text, sizeof text), 0);
    struct snapshot_reader *r;
    struct replaced to = {engine_create(), &root};
    assert_int_equal(snapshot_reader_open(path, &r, &h, error), 0);
    assert_int_equal(snapshot_reader_blocks(r, replace, &to, error), 0);
    snapshot_reader_close(r);
    b = to.engine;
    assert_int_equal(engine_load_finish(b, h.index, engine_digest(a)), 0);
    assert_memory_equal(engine_cluster_id(b), other, 16);
    /* The next token is one that the old cluster did not give. */
    static uint8_t buffer[BATCH_SIZE_MAX];
    struct batch_builder batch;
    batch_begin(&batch, buffer, sizeof buffer);
    struct command c = {.kind = COMMAND_LEASE_ACQUIRE};
    c.lease.name = STR_LITERAL("another");
    c.lease.owner = STR_LITERAL("worker");
    c.lease.ttl_ms = 60000;
    add(&batch, &c, "l2");
    size_t size = batch_end(&batch, 2000);
    engine_apply(a, 1ull << 33, buffer, size, ordered, NULL);
    engine_apply(b, 1ull << 33, buffer, size, ordered, NULL);
    assert_int_equal(engine_digest(a), engine_digest(b));
    assert_true(engine_get_lease(b, STR_LITERAL("another"), &lease));
    assert_int_equal(lease.token, 1 + 1000 + 1);
    engine_destroy(a);
    engine_destroy(b);
}

static void test_every_flipped_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < good.len; i++) {
        char *at = good.data + i;
        char before = *at;
        *at = (char)(before ^ (1 << (i % 8)));
        if (load(good.data, good.len) == 0) {
            fail_msg("a flipped bit in byte %zu of %zu was not noticed", i, good.len);
        }
        *at = before;
    }
}

static void test_every_length(void **state)
{
    (void)state;
    for (size_t i = 0; i < good.len; i++) {
        if (load(good.data, i) == 0) {
            fail_msg("cut to %zu of %zu bytes: not noticed", i, good.len);
        }
        assert_non_null(strstr(error, "cut"));
    }
    struct text longer = TEXT_INIT;
    text_append(&longer, good.data, good.len);
    text_append(&longer, "", 1);
    assert_int_equal(load(longer.data, longer.len), -1);
    text_append(&longer, good.data, good.len);
    assert_int_equal(load(longer.data, longer.len), -1);
    text_close(&longer);
}

/* Where the chunks are. */
static size_t find_chunks(size_t starts[static 64])
{
    size_t count = 0, at = load_u32(good.data + 12);
    while (load_u32(good.data + at) == SNAPSHOT_CHUNK_MAGIC) {
        CHECK(count < 63);
        starts[count++] = at;
        at += SNAPSHOT_CHUNK_HEAD + load_u32(good.data + at + 12);
    }
    starts[count] = at;
    return count;
}

static void test_chunks_moved(void **state)
{
    (void)state;
    size_t starts[64], count = find_chunks(starts);
    assert_true(count > 3);
    for (size_t i = 0; i < count; i++) {
        for (int what = 0; what < 3; what++) { /* missing, doubled, swapped with the next */
            struct text t = TEXT_INIT;
            size_t end = starts[i + 1], next_end = i + 1 < count ? starts[i + 2] : end;
            text_append(&t, good.data, starts[i]);
            if (what == 1) {
                text_append(&t, good.data + starts[i], end - starts[i]);
                text_append(&t, good.data + starts[i], good.len - starts[i]);
            } else {
                text_append(&t, good.data + end, what == 2 ? next_end - end : good.len - end);
                if (what == 2) {
                    text_append(&t, good.data + starts[i], end - starts[i]);
                    text_append(&t, good.data + next_end, good.len - next_end);
                }
            }
            bool same = t.len == good.len && memcmp(t.data, good.data, t.len) == 0;
            assert_int_equal(load(t.data, t.len), same ? 0 : -1);
            text_close(&t);
        }
    }
}

/* A whole file whose state is not the one that its header names. */
static void test_another_state(void **state)
{
    (void)state;
    struct snapshot_header h;
    struct snapshot_writer *w;
    struct gathered *g = gather_state(&h);
    for (int what = 0; what < 2; what++) {
        struct snapshot_header wrong = h;
        wrong.digest += what == 0;
        wrong.index += what == 1;
        assert_int_equal(snapshot_writer_open(bad, true, &wrong, &w, error), 0);
        struct text chunk = TEXT_INIT;
        for (size_t i = 0; i < g->count; i++) {
            append_block(&chunk, g, i);
        }
        assert_int_equal(put(w, &chunk), 0);
        text_close(&chunk);
        assert_int_equal(snapshot_writer_commit(w, error), 0);
        struct snapshot_header read;
        assert_int_equal(snapshot_load(bad, &read, NULL, NULL, error), -1);
        assert_non_null(strstr(error, "not the state"));
    }
    gathered_free(g);
}

static void test_a_later_format(void **state)
{
    (void)state;
    good.data[8]++;
    assert_int_equal(load(good.data, good.len), -1);
    assert_non_null(strstr(error, "format version"));
    good.data[8]--;
}

/* ---- writing ---- */

static void test_writer_refuses(void **state)
{
    (void)state;
    struct snapshot_header h;
    struct snapshot_writer *w, *second;
    struct gathered *g = gather_state(&h);
    struct text chunk = TEXT_INIT;
    unlink(bad);

    /* An existing file stays what it is. */
    assert_int_equal(snapshot_writer_open(path, false, &h, &w, error), -1);
    assert_non_null(strstr(error, "already"));

    /* One writer at a time. */
    assert_int_equal(snapshot_writer_open(bad, false, &h, &w, error), 0);
    assert_int_equal(snapshot_writer_open(bad, false, &h, &second, error), -1);
    assert_non_null(strstr(error, "another process"));

    /* A chunk that was damaged on its way, blocks out of order, another checkpoint's meta. */
    append_block(&chunk, g, 1);
    assert_int_equal(snapshot_writer_put(w, chunk.data, chunk.len, 12345, error), -1);
    assert_int_equal(put(w, &chunk), 0);
    text_clear(&chunk);
    append_block(&chunk, g, 0);
    assert_int_equal(put(w, &chunk), -1);
    /* Too few blocks: no file. */
    assert_int_equal(snapshot_writer_commit(w, error), -1);
    assert_non_null(strstr(error, "promised"));
    assert_int_equal(access(bad, F_OK), -1);

    assert_int_equal(snapshot_writer_open(bad, false, &h, &w, error), 0);
    struct snapshot_header other = h;
    other.index++;
    text_clear(&chunk);
    append_meta(&chunk, &other);
    assert_int_equal(put(w, &chunk), -1);
    snapshot_writer_abort(w);
    assert_int_equal(access(bad, F_OK), -1);

    /* A part that a crash left is taken over; a name taken meanwhile is not written over. */
    char part[128];
    snprintf(part, sizeof part, "%s.part", bad);
    FILE *f = fopen(part, "wb");
    assert_non_null(f);
    fputs("left behind by somebody who wrote much more than there is now", f);
    fclose(f);
    write_good(bad);
    assert_int_equal(access(part, F_OK), -1);
    struct text again = TEXT_INIT;
    read_file(bad, &again);
    assert_int_equal(again.len, good.len);
    assert_memory_equal(again.data, good.data, good.len);
    unlink(bad);
    assert_int_equal(snapshot_writer_open(bad, false, &h, &w, error), 0);
    text_clear(&chunk);
    for (size_t i = 0; i < g->count; i++) {
        append_block(&chunk, g, i);
    }
    assert_int_equal(put(w, &chunk), 0);
    f = fopen(bad, "wb");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(snapshot_writer_commit(w, error), -1);
    assert_int_equal(access(part, F_OK), -1);

    assert_int_equal(snapshot_writer_open("/nowhere/at/all", false, &h, &w, error), -1);
    text_close(&again);
    text_close(&chunk);
    gathered_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),         cmocka_unit_test(test_rebase),
        cmocka_unit_test(test_every_flipped_byte), cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_chunks_moved),       cmocka_unit_test(test_another_state),
        cmocka_unit_test(test_a_later_format),     cmocka_unit_test(test_writer_refuses),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
