/* The structures below the business rules, each against the plainest thing that does the same: maps
 * against a list, deadline heaps against a sorted search, tables against a copy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/prng.h"
#include "engine/due_heap.h"
#include "engine/hash.h"
#include "engine/map.h"
#include "engine/state.h"
#include "tests/unit/engine/block_store.h"

#define SLOTS 300

/* ---- maps ---- */

static uint64_t hashes[SLOTS + 1];

static uint64_t hash_of(const void *ctx, uint32_t slot)
{
    (void)ctx;
    return hashes[slot];
}

static bool contains(const struct map *m, uint32_t slot)
{
    uint32_t found;
    for (struct map_walk w = map_find(m, hashes[slot]); (found = map_next(&w)) != 0;) {
        if (found == slot) {
            return true;
        }
    }
    return false;
}

static void map_place_alone(struct map *m, struct memory *memory, uint32_t slots)
{
    map_place(m, memory, slots);
    memory_reserve(memory);
    map_place(m, memory, slots);
}

/* spread: how many different hashes there are; few make long runs that cross each other and the end. */
static void map_against_list(uint64_t seed, uint64_t spread)
{
    struct prng p = prng_init(seed);
    struct memory memory = {NULL, 0};
    struct map m;
    bool in[SLOTS + 1] = {false};
    map_place_alone(&m, &memory, SLOTS);
    for (uint32_t i = 1; i <= SLOTS; i++) {
        hashes[i] = prng_below(&p, spread) * 0x9E3779B97F4A7C15u;
    }
    for (int step = 0; step < 20000; step++) {
        uint32_t slot = 1 + (uint32_t)prng_below(&p, SLOTS);
        if (in[slot]) {
            map_remove(&m, hashes[slot], slot, hash_of, NULL);
        } else {
            map_insert(&m, hashes[slot], slot);
        }
        in[slot] = !in[slot];
        if (step % 50 == 0) {
            for (uint32_t i = 1; i <= SLOTS; i++) {
                assert_int_equal(contains(&m, i), in[i]);
            }
        }
    }
    memory_release(&memory);
}

static void test_map(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        map_against_list(seed, 3);
        map_against_list(seed, 40);
        map_against_list(seed, UINT64_MAX);
    }
}

static void test_map_of_one(void **state)
{
    (void)state;
    struct memory memory = {NULL, 0};
    struct map m;
    map_place_alone(&m, &memory, 1);
    hashes[1] = UINT64_MAX;
    map_insert(&m, hashes[1], 1);
    assert_true(contains(&m, 1));
    map_remove(&m, hashes[1], 1, hash_of, NULL);
    assert_false(contains(&m, 1));
    assert_int_equal(m.count, 0);
    memory_release(&memory);
}

/* ---- deadline heaps ---- */

static int64_t dues[SLOTS + 1]; /* -1: not in */

static uint32_t first_by_search(int which, const int *in)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i <= SLOTS; i++) {
        if (in[i] == which && (best == 0 || dues[i] < dues[best])) {
            best = i;
        }
    }
    return best;
}

/* Two heaps over shared memory; slots move in, out, and from one to the other. */
static void test_due_heaps(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct prng p = prng_init(seed);
        struct memory memory = {NULL, 0};
        struct due_heap heap[2];
        due_heap_place_pair(&heap[0], &heap[1], &memory, SLOTS);
        memory_reserve(&memory);
        due_heap_place_pair(&heap[0], &heap[1], &memory, SLOTS);
        int in[SLOTS + 1];
        memset(in, -1, sizeof in);
        for (int step = 0; step < 30000; step++) {
            uint32_t slot = 1 + (uint32_t)prng_below(&p, SLOTS);
            int to = (int)prng_below(&p, 2);
            if (in[slot] >= 0 && (in[slot] != to || prng_one_in(&p, 2))) {
                due_heap_remove(&heap[in[slot]], slot);
                in[slot] = -1;
            }
            if (!prng_one_in(&p, 3) && (in[slot] < 0 || in[slot] == to)) {
                dues[slot] = (int64_t)prng_below(&p, 20);
                due_heap_put(&heap[to], slot, dues[slot]);
                in[slot] = to;
            }
            for (int h = 0; h < 2; h++) {
                uint32_t first = first_by_search(h, in);
                assert_int_equal(due_heap_first(&heap[h]), first);
                assert_int_equal(due_heap_first_due(&heap[h]), first != 0 ? dues[first] : INT64_MAX);
            }
        }
        memory_release(&memory);
    }
}

/* ---- tables ---- */

#define RECORDS 100

struct tables_under_test {
    struct tables tables;
    struct memory memory;
};

static void tables_place_alone(struct tables_under_test *t)
{
    memset(t, 0, sizeof *t);
    for (int pass = 0; pass < 2; pass++) {
        table_place(&t->tables, &t->memory, TABLE_USER, 64, 16, RECORDS);
        table_place(&t->tables, &t->memory, TABLE_ORDER, 120, 8, RECORDS);
        if (pass == 0) {
            memory_reserve(&t->memory);
        }
    }
}

static uint64_t *word(struct tables_under_test *t, enum table_id id, uint32_t slot)
{
    return table_edit(&t->tables.table[id], slot);
}

static void test_digest_is_of_the_state_only(void **state)
{
    (void)state;
    struct tables_under_test a, b;
    tables_place_alone(&a);
    tables_place_alone(&b);
    assert_true(tables_digest(&a.tables) == 0);
    *word(&a, TABLE_USER, 3) = 7;
    *word(&a, TABLE_ORDER, 90) = 8;
    uint64_t digest = tables_digest(&a.tables);
    assert_true(digest != 0);
    *word(&b, TABLE_ORDER, 90) = 1; /* another way to the same state */
    tables_digest(&b.tables);
    *word(&b, TABLE_ORDER, 90) = 8;
    *word(&b, TABLE_USER, 50) = 9;
    *word(&b, TABLE_USER, 3) = 7;
    tables_digest(&b.tables);
    *word(&b, TABLE_USER, 50) = 0;
    assert_true(tables_digest(&b.tables) == digest);
    *word(&a, TABLE_USER, 3) = 0;
    *word(&a, TABLE_ORDER, 90) = 0;
    assert_true(tables_digest(&a.tables) == 0);
    /* The same bytes in another place, or two blocks that changed places, are another state. */
    *word(&a, TABLE_USER, 0) = 7;
    *word(&a, TABLE_USER, 16) = 8;
    digest = tables_digest(&a.tables);
    *word(&a, TABLE_USER, 0) = 8;
    *word(&a, TABLE_USER, 16) = 7;
    assert_true(tables_digest(&a.tables) != digest);
    memory_release(&a.memory);
    memory_release(&b.memory);
}

/* What was there when a checkpoint began is what it hands over, whatever is written meanwhile. */
static void test_checkpoint_is_of_its_beginning(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct prng p = prng_init(seed);
        struct tables_under_test t;
        struct block_store store = {0};
        tables_place_alone(&t);
        uint64_t expected[RECORDS] = {0};
        for (int round = 0; round < 12; round++) {
            for (int i = 0; i < 30; i++) {
                *word(&t, TABLE_ORDER, (uint32_t)prng_below(&p, RECORDS)) = prng_below(&p, 3);
            }
            for (uint32_t i = 0; i < RECORDS; i++) {
                expected[i] = *(const uint64_t *)table_at(&t.tables.table[TABLE_ORDER], i);
            }
            tables_checkpoint_begin(&t.tables, block_store_put, &store);
            while (tables_checkpoint_step(&t.tables, prng_below(&p, 3)) > 0) {
                *word(&t, TABLE_ORDER, (uint32_t)prng_below(&p, RECORDS)) = prng_below(&p, 3);
                tables_digest(&t.tables);
            }
            bool durable = prng_one_in(&p, 2);
            tables_checkpoint_end(&t.tables, durable);
            for (uint32_t i = 0; durable && i < RECORDS; i++) {
                uint64_t stored = 0;
                const struct stored_block *b = i / 8 < store.capacity[TABLE_ORDER]
                                                   ? &store.blocks[TABLE_ORDER][i / 8]
                                                   : NULL;
                if (b != NULL && b->size > 0) {
                    memcpy(&stored, b->data + i % 8 * 120, sizeof stored);
                }
                assert_true(stored == expected[i]);
            }
        }
        block_store_clear(&store);
        memory_release(&t.memory);
    }
}

/* The digest of an instant is that of the instant, although hashing comes later and in pieces, between
 * changes, and beside checkpoints that have a digest of an instant of their own. */
static void test_digest_of_an_instant(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct prng p = prng_init(seed);
        struct tables_under_test t, twin; /* the twin is hashed at once */
        struct block_store store = {0};
        tables_place_alone(&t);
        tables_place_alone(&twin);
        uint64_t marked = 0, frozen = 0;
        bool marking = false;
        for (int step = 0; step < 400; step++) {
            for (uint64_t n = prng_below(&p, 4); n > 0; n--) {
                uint32_t record = (uint32_t)prng_below(&p, RECORDS);
                *word(&t, TABLE_ORDER, record) = *word(&twin, TABLE_ORDER, record) = prng_below(&p, 3);
            }
            switch (prng_below(&p, 8)) {
            case 0:
                marked = tables_digest(&twin.tables);
                tables_mark(&t.tables);
                marking = true;
                break;
            case 1:
                if (!t.tables.checkpointing) {
                    frozen = tables_digest(&twin.tables);
                    tables_checkpoint_begin(&t.tables, block_store_put, &store);
                }
                break;
            case 2:
                if (t.tables.checkpointing) {
                    bool whole = prng_one_in(&p, 2);
                    while (whole && tables_checkpoint_step(&t.tables, 2) > 0) {
                    }
                    assert_true(!whole || t.tables.frozen_digest == frozen);
                    tables_checkpoint_end(&t.tables, whole && prng_one_in(&p, 2));
                }
                break;
            case 3:
                if (t.tables.checkpointing) {
                    tables_checkpoint_step(&t.tables, prng_below(&p, 4));
                }
                break;
            case 4:
                tables_return(&t.tables, prng_below(&p, 4));
                break;
            case 5:
                assert_true(!prng_one_in(&p, 8) ||
                            tables_digest(&t.tables) == tables_digest(&twin.tables));
                break;
            default:
                tables_fold(&t.tables, prng_below(&p, 5));
                break;
            }
            if (marking && !t.tables.marking) {
                assert_true(t.tables.mark_digest == marked);
                marking = false;
            }
        }
        assert_true(tables_digest(&t.tables) == tables_digest(&twin.tables));
        block_store_clear(&store);
        memory_release(&t.memory);
        memory_release(&twin.memory);
    }
}

static void test_unmarked_changes_are_found(void **state)
{
    (void)state;
    struct tables_under_test t;
    tables_place_alone(&t);
    uint64_t *w = word(&t, TABLE_USER, 20);
    *w = 5;
    tables_digest(&t.tables);
    assert_int_equal(table_count_unmarked(&t.tables.table[TABLE_USER], 7), 0);
    *w = 6; /* without table_edit */
    assert_int_equal(table_count_unmarked(&t.tables.table[TABLE_USER], 7), 1);
    memory_release(&t.memory);
}

/* ---- loading what is no state ---- */

static void apply_init(struct engine *e)
{
    struct command c = {.kind = COMMAND_INIT};
    c.init.shards = 2;
    c.init.limits = (struct command_limits){4, 4, 4, 4, 4, 4, 4, 4, 4, 100};
    uint8_t encoded[256], batch[512];
    struct batch_builder b;
    batch_begin(&b, batch, sizeof batch);
    size_t size = command_encode(&c, encoded, sizeof encoded);
    assert_true(size > 0 && batch_add(&b, encoded, size));
    engine_apply(e, 1, batch, batch_end(&b, 5), NULL, NULL);
}

static void test_load_refuses(void **state)
{
    (void)state;
    struct engine *e = engine_create();
    struct block_store store = {0};
    apply_init(e);
    block_store_checkpoint(&store, e);
    uint64_t digest = engine_digest(e);
    struct stored_block root = store.blocks[0][0];
    struct engine_block block = {TABLE_ROOT, 0, root.data, root.size};

    struct engine *other = engine_create(); /* all is well */
    assert_int_equal(engine_load_block(other, &block), 0);
    assert_int_equal(engine_load_finish(other, 1, digest), 0);
    assert_true(engine_initialized(other));
    engine_destroy(other);

    other = engine_create(); /* another digest, another index */
    assert_int_equal(engine_load_block(other, &block), 0);
    assert_int_equal(engine_load_finish(other, 1, digest + 1), -1);
    assert_int_equal(engine_load_finish(other, 2, digest), -1);
    engine_destroy(other);

    for (uint32_t bit = 0; bit < root.size * 8; bit += 13) { /* a flipped bit */
        struct stored_block bad = root;
        bad.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        other = engine_create();
        int failed = engine_load_block(
            other, &(struct engine_block){TABLE_ROOT, 0, bad.data, bad.size});
        if (failed == 0) {
            failed = engine_load_finish(other, 1, digest);
        }
        assert_int_equal(failed, -1);
        engine_destroy(other);
    }

    other = engine_create(); /* no root block */
    uint8_t user[1024] = {1};
    block = (struct engine_block){TABLE_USER, 0, user, sizeof user};
    assert_int_equal(engine_load_block(other, &block), 0);
    assert_int_equal(engine_load_finish(other, 1, digest), -1);
    engine_destroy(other);

    other = engine_create(); /* blocks of no table, of the wrong size, out of range */
    block = (struct engine_block){TABLE_ROOT, 0, root.data, root.size};
    assert_int_equal(engine_load_block(other, &block), 0);
    block = (struct engine_block){99, 0, user, sizeof user};
    assert_int_equal(engine_load_block(other, &block), -1);
    block = (struct engine_block){TABLE_USER, 0, user, 1000};
    assert_int_equal(engine_load_block(other, &block), -1);
    block = (struct engine_block){TABLE_USER, 1000, user, sizeof user};
    assert_int_equal(engine_load_block(other, &block), -1);
    engine_destroy(other);
    block_store_clear(&store);
    engine_destroy(e);
}

static void test_marked_digests(void **state)
{
    (void)state;
    struct engine *e = engine_create();
    apply_init(e);
    uint64_t digest, wanted[40];
    for (uint64_t index = 2; index < 40; index++) {
        struct command c = {.kind = COMMAND_DIGEST_MARK};
        uint8_t encoded[16], batch[64];
        struct batch_builder b;
        batch_begin(&b, batch, sizeof batch);
        size_t size = command_encode(&c, encoded, sizeof encoded);
        assert_true(batch_add(&b, encoded, size));
        engine_apply(e, index, batch, batch_end(&b, 5), NULL, NULL);
        wanted[index] = engine_digest(e);
    }
    for (uint64_t index = 2; index < 40; index++) {
        bool kept = index >= 24; /* the last 16 */
        assert_int_equal(engine_marked_digest(e, index, &digest), kept);
        assert_true(!kept || digest == wanted[index]);
    }
    assert_false(engine_marked_digest(e, 0, &digest));
    engine_destroy(e);
}

static void test_populating_changes_no_state(void **state)
{
    (void)state;
    struct engine *e = engine_create();
    engine_populate(e); /* before COMMAND_INIT there is nothing to back */
    apply_init(e);
    uint64_t digest = engine_digest(e);
    uint8_t *last = e->memory.base + e->memory.size - 1;
    *last = 42; /* what stands there stays */
    engine_populate(e);
    assert_int_equal(*last, 42);
    assert_true(digest != 0 && engine_digest(e) == digest);
    *last = 0;
    char text[200];
    assert_int_equal(engine_check(e, text, sizeof text), 0);
    engine_destroy(e);
}

/* What is told to be next is where the next records are put. */
static void test_memory_ahead(void **state)
{
    (void)state;
    struct engine_memory before[ENGINE_AHEAD_COUNT], after[ENGINE_AHEAD_COUNT];
    struct engine *e = engine_create();
    engine_memory_ahead(e, 4096, before);
    for (unsigned i = 0; i < ENGINE_AHEAD_COUNT; i++) {
        assert_int_equal(before[i].size, 0);
    }
    apply_init(e);
    engine_memory_ahead(e, 4096, before);
    uint64_t digest = engine_digest(e);
    for (unsigned i = 0; i < ENGINE_AHEAD_COUNT; i++) {
        const uint8_t *at = before[i].at, *end = e->memory.base + e->memory.size;
        assert_true(before[i].size <= 4096);
        assert_true(before[i].size == 0 || (at >= e->memory.base && at + before[i].size <= end));
        for (size_t k = 0; k < before[i].size; k++) {
            assert_int_equal(at[k], 0); /* nobody's yet */
        }
        if (before[i].size > 0) {
            (void)engine_memory_warm(before[i], false);
        }
    }
    assert_true(engine_digest(e) == digest);
    assert_int_equal(before[TABLE_SKU - 1].at, table_at(&e->tables.table[TABLE_SKU], 1));
    struct command c = {.kind = COMMAND_SKU_PUT};
    c.sku_put.sku = str_from("A");
    uint8_t encoded[64], batch[128];
    struct batch_builder b;
    batch_begin(&b, batch, sizeof batch);
    size_t size = command_encode(&c, encoded, sizeof encoded);
    assert_true(size > 0 && batch_add(&b, encoded, size));
    engine_apply(e, 2, batch, batch_end(&b, 6), NULL, NULL);
    engine_memory_ahead(e, 4096, after);
    assert_int_equal(after[TABLE_SKU - 1].at, table_at(&e->tables.table[TABLE_SKU], 2));
    assert_int_equal(after[TABLE_ORDER - 1].at, before[TABLE_ORDER - 1].at);
    engine_destroy(e);
}

static void test_hash_is_keyed(void **state)
{
    (void)state;
    struct hash_secret a, b;
    uint8_t seed[16] = {1};
    hash_secret_init(&a, seed);
    seed[15] = 1;
    hash_secret_init(&b, seed);
    struct str user = STR_LITERAL("alice");
    assert_true(hash_str(&a, user) == hash_str(&a, user));
    assert_true(hash_str(&a, user) != hash_str(&b, user));
    assert_true(hash_pair(&a, 1, 2) != hash_pair(&a, 2, 1));
    assert_true(hash_pair(&a, 1, 2) != hash_pair(&b, 1, 2));
    assert_true(hash_bytes128(&a, "x", 1).high != hash_bytes128(&b, "x", 1).high);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_map_of_one),
        cmocka_unit_test(test_due_heaps),
        cmocka_unit_test(test_digest_is_of_the_state_only),
        cmocka_unit_test(test_checkpoint_is_of_its_beginning),
        cmocka_unit_test(test_digest_of_an_instant),
        cmocka_unit_test(test_unmarked_changes_are_found),
        cmocka_unit_test(test_load_refuses),
        cmocka_unit_test(test_marked_digests),
        cmocka_unit_test(test_populating_changes_no_state),
        cmocka_unit_test(test_memory_ahead),
        cmocka_unit_test(test_hash_is_keyed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
