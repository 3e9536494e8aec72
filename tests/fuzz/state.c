/* Owns: applying the examples, gathering and sorting the blocks. */
#include "tests/fuzz/state.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/fuzz/commands.h"

static void gather(void *ctx, const struct engine_block *block)
{
    struct state *s = ctx;
    if (block->size == 0) {
        return; /* what was there and is no more is not in a file */
    }
    CHECK(s->count < STATE_BLOCKS_MAX);
    struct state_block *b = &s->blocks[s->count++];
    b->table = block->table;
    b->number = block->number;
    b->size = block->size;
    memcpy(b->data, block->data, block->size);
}

static int by_key(const void *a, const void *b)
{
    const struct state_block *x = a, *y = b;
    uint64_t left = (uint64_t)x->table << 32 | x->number, right = (uint64_t)y->table << 32 | y->number;
    return (left > right) - (left < right);
}

struct state *state_make(void)
{
    static uint8_t batch[BATCH_SIZE_MAX], bytes[COMMAND_SIZE_MAX];
    struct state *s = calloc(1, sizeof *s);
    struct command c;
    CHECK(s != NULL);
    s->engine = engine_create();
    for (unsigned i = 0; commands_example(i, &c); i++) {
        struct batch_builder b;
        batch_begin(&b, batch, sizeof batch);
        size_t size = command_encode(&c, bytes, sizeof bytes);
        CHECK(size > 0 && batch_add(&b, bytes, size));
        size = batch_end(&b, 2000 + i);
        engine_apply(s->engine, ++s->index, batch, size, NULL, NULL);
    }
    engine_checkpoint_begin(s->engine, gather, s);
    while (engine_checkpoint_step(s->engine, 100) > 0) {
    }
    engine_checkpoint_end(s->engine, false);
    qsort(s->blocks, s->count, sizeof s->blocks[0], by_key);
    s->digest = engine_digest(s->engine);
    return s;
}
