/* A state of a format that this program does not read: named as such, and refused, whatever its size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "engine/engine.h"
#include "proto/format.h"
#include "tests/unit/engine/block_store.h"

static const struct command_limits limits = {.skus_max = 4,
                                             .sales_max = 4,
                                             .users_max = 8,
                                             .eligibilities_max = 8,
                                             .orders_max = 8,
                                             .idempotency_max = 8,
                                             .leases_max = 4,
                                             .events_max = 64,
                                             .expiries_per_batch_max = 8,
                                             .idempotency_retention_ms = 1000};

static struct engine *new_state(void)
{
    struct command c = {.kind = COMMAND_INIT, .scope = STR_LITERAL("sys")};
    uint8_t encoded[COMMAND_SIZE_MAX], batch[COMMAND_SIZE_MAX + 64];
    struct batch_builder b;
    c.init.shards = 4;
    c.init.limits = limits;
    size_t size = command_encode(&c, encoded, sizeof encoded);
    assert_true(size > 0);
    batch_begin(&b, batch, sizeof batch);
    assert_true(batch_add(&b, encoded, size));
    struct engine *e = engine_create();
    assert_int_equal(engine_format(e), 0);
    engine_apply(e, 1, batch, batch_end(&b, 1000), NULL, NULL);
    assert_true(engine_initialized(e));
    return e;
}

static void test_formats(void **state)
{
    (void)state;
    struct block_store store = {0};
    struct engine *e = new_state();
    assert_int_equal(engine_format(e), FORMAT_INITIAL); /* on every program, whatever its newest is */
    block_store_checkpoint(&store, e);
    struct stored_block *root = &store.blocks[0][0];
    struct engine_block block = {0, 0, root->data, root->size};
    assert_int_equal(engine_block_format(&block), FORMAT_INITIAL);
    struct engine *same = block_store_load(&store, engine_index(e), engine_digest(e), false);
    assert_int_equal(engine_format(same), FORMAT_INITIAL);
    engine_destroy(same);
    const uint64_t foreign[] = {0, FORMAT_OLDEST - 1, FORMAT_NEWEST + 1, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_COUNT(foreign); i++) {
        struct engine *other = engine_create();
        store_u64(root->data, foreign[i]);
        assert_true(engine_block_format(&block) == foreign[i]);
        assert_int_equal(engine_load_block(other, &block), -1);
        engine_destroy(other);
    }
    /* The root of a newer format may be larger: it must still be told by its first bytes. */
    block.size += 16;
    assert_true(engine_block_format(&block) == UINT64_MAX);
    block.table = 1;
    assert_int_equal(engine_block_format(&block), 0);
    engine_destroy(e);
    block_store_clear(&store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_formats)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
