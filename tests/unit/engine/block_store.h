/* A checkpoint in memory: what a checkpoint thread would keep on disk. For tests. */
#ifndef TESTS_UNIT_ENGINE_BLOCK_STORE_H
#define TESTS_UNIT_ENGINE_BLOCK_STORE_H

#include "engine/engine.h"

#define BLOCK_STORE_TABLES 16

struct stored_block {
    uint32_t size; /* 0: absent */
    uint8_t data[ENGINE_BLOCK_SIZE_MAX];
};

struct block_store {
    struct stored_block *blocks[BLOCK_STORE_TABLES];
    uint32_t capacity[BLOCK_STORE_TABLES];
    uint64_t puts;
};

void block_store_clear(struct block_store *s);
/* An engine_block_cb; ctx is the store. */
void block_store_put(void *ctx, const struct engine_block *block);
/* Takes a whole checkpoint at once. */
void block_store_checkpoint(struct block_store *s, struct engine *e);
/* A new engine of what is stored; aborts the test when it does not load. reverse: last block first. */
struct engine *block_store_load(const struct block_store *s, uint64_t index, uint64_t digest,
                                bool reverse);

#endif
