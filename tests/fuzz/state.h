/* A small state machine with one of everything in it, and its blocks: what files are made of. */
#ifndef TESTS_FUZZ_STATE_H
#define TESTS_FUZZ_STATE_H

#include "engine/engine.h"

#define STATE_BLOCKS_MAX 256

struct state_block {
    uint32_t table, number, size;
    uint8_t data[ENGINE_BLOCK_SIZE_MAX];
};

struct state {
    struct engine *engine;
    uint64_t index, digest;
    size_t count;
    struct state_block blocks[STATE_BLOCKS_MAX]; /* in key order */
};

/* The caller's to keep for ever. */
struct state *state_make(void);

#endif
