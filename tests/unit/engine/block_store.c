#include "tests/unit/engine/block_store.h"

#include <stdlib.h>

#include "base/check.h"

void block_store_clear(struct block_store *s)
{
    for (int i = 0; i < BLOCK_STORE_TABLES; i++) {
        free(s->blocks[i]);
    }
    *s = (struct block_store){0};
}

void block_store_put(void *ctx, const struct engine_block *block)
{
    struct block_store *s = ctx;
    CHECK(block->table < BLOCK_STORE_TABLES);
    CHECK(block->size <= ENGINE_BLOCK_SIZE_MAX);
    uint32_t *capacity = &s->capacity[block->table];
    if (block->number >= *capacity) {
        uint32_t wanted = block->number * 2 + 8;
        struct stored_block *grown =
            realloc(s->blocks[block->table], wanted * sizeof(struct stored_block));
        CHECK(grown != NULL);
        memset(grown + *capacity, 0, (wanted - *capacity) * sizeof(struct stored_block));
        s->blocks[block->table] = grown;
        *capacity = wanted;
    }
    struct stored_block *at = &s->blocks[block->table][block->number];
    at->size = block->size;
    if (block->size > 0) {
        memcpy(at->data, block->data, block->size);
    }
    s->puts++;
}

void block_store_checkpoint(struct block_store *s, struct engine *e)
{
    engine_checkpoint_begin(e, block_store_put, s);
    while (engine_checkpoint_step(e, 7) > 0) {
    }
    engine_checkpoint_end(e, true);
}

static void load_one(struct engine *e, const struct block_store *s, uint32_t table, uint32_t number)
{
    const struct stored_block *at = &s->blocks[table][number];
    if (at->size > 0) {
        struct engine_block block = {table, number, at->data, at->size};
        CHECK(engine_load_block(e, &block) == 0);
    }
}

struct engine *block_store_load(const struct block_store *s, uint64_t index, uint64_t digest,
                                bool reverse)
{
    struct engine *e = engine_create();
    for (uint32_t t = 0; t < BLOCK_STORE_TABLES; t++) {
        uint32_t table = reverse ? BLOCK_STORE_TABLES - 1 - t : t;
        for (uint32_t i = 0; i < s->capacity[table]; i++) {
            load_one(e, s, table, reverse ? s->capacity[table] - 1 - i : i);
        }
    }
    CHECK(engine_load_finish(e, index, digest) == 0);
    return e;
}
