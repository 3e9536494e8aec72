/* Loading a checkpoint: blocks in any order, then one verification of all of it.
 *
 * Where a block goes depends on the limits, which stand in the root block; blocks that come before it
 * are kept aside. Failure modes: a block of no table or of the wrong size, no root block, a digest or
 * index that differs. All mean the same to the caller: these blocks are no state, destroy the engine. */
#include <stdlib.h>

#include "base/bytes.h"
#include "engine/parts.h"
#include "proto/format.h"

struct early_block {
    struct early_block *next;
    struct engine_block block;
    uint8_t data[];
};

void load_forget_early(struct engine *e)
{
    while (e->early != NULL) {
        struct early_block *next = e->early->next;
        free(e->early);
        e->early = next;
    }
}

static int keep_early(struct engine *e, const struct engine_block *block)
{
    if (block->size > ENGINE_BLOCK_SIZE_MAX) {
        return -1;
    }
    struct early_block *early = malloc(sizeof *early + block->size);
    CHECK(early != NULL);
    *early = (struct early_block){e->early, *block};
    memcpy(early->data, block->data, block->size);
    early->block.data = early->data;
    e->early = early;
    return 0;
}

static bool limits_plausible(const struct root *r)
{
    const uint32_t all[] = {r->skus_max,   r->users_max,       r->eligibilities_max,
                            r->orders_max, r->idempotency_max, r->leases_max,
                            r->events_max};
    for (size_t i = 0; i < ARRAY_COUNT(all); i++) {
        if (all[i] < 1 || all[i] > 1u << 28) {
            return false;
        }
    }
    return r->sales_max >= 1 && r->sales_max <= SALES_MAX && r->shards >= 1 &&
           r->shards <= SHARDS_MAX;
}

static bool format_foreign(uint64_t format)
{
    return format < FORMAT_OLDEST || format > FORMAT_NEWEST;
}

uint64_t engine_block_format(const struct engine_block *block)
{
    _Static_assert(offsetof(struct root, format) == 0, "first in every format");
    return block->table == TABLE_ROOT && block->size >= sizeof(uint64_t) ? load_u64(block->data) : 0;
}

static int load_root(struct engine *e, const struct engine_block *block)
{
    if (e->memory.base != NULL || tables_load(&e->tables, block) != 0) {
        return -1;
    }
    const struct root *r = e->root;
    if (r->initialized == 0) {
        return 0;
    }
    if (r->initialized != 1 || format_foreign(r->format) || !limits_plausible(r)) {
        return -1;
    }
    state_place(e);
    int failed = 0;
    for (const struct early_block *b = e->early; b != NULL; b = b->next) {
        failed |= tables_load(&e->tables, &b->block);
    }
    load_forget_early(e);
    return failed;
}

int engine_load_block(struct engine *e, const struct engine_block *block)
{
    if (block->size == 0) {
        return block->table < TABLE_COUNT ? 0 : -1; /* absent and empty are the same */
    }
    if (block->table == TABLE_ROOT) {
        return load_root(e, block);
    }
    return e->memory.base != NULL ? tables_load(&e->tables, block) : keep_early(e, block);
}

/* The digest vouches for the content; this keeps the rebuild within its tables all the same. */
static bool slabs_plausible(const struct engine *e)
{
    for (int i = 0; i < TABLE_COUNT; i++) {
        const struct slab *s = &e->root->slabs[i];
        uint32_t slots = e->tables.table[i].records_max;
        if (s->live > s->used_max || s->free > s->used_max ||
            (s->used_max != 0 && s->used_max >= slots)) {
            return false;
        }
    }
    return true;
}

int engine_load_check(struct engine *e, uint64_t index, uint64_t digest)
{
    return e->early == NULL && engine_digest(e) == digest && e->root->index == index &&
                   slabs_plausible(e)
               ? 0
               : -1;
}

void engine_load_index(struct engine *e, unsigned part)
{
    CHECK(part < ENGINE_LOAD_PARTS);
    if (e->root->initialized != 0) {
        state_rebuild(e, part);
    }
}

int engine_load_finish(struct engine *e, uint64_t index, uint64_t digest)
{
    if (engine_load_check(e, index, digest) < 0) {
        return -1;
    }
    for (unsigned part = 0; part < ENGINE_LOAD_PARTS; part++) {
        engine_load_index(e, part);
    }
    return 0;
}

void engine_rebase(struct engine *e, const uint8_t cluster_id[16], uint64_t tokens,
                   engine_block_cb put, void *ctx)
{
    CHECK(!e->tables.checkpointing);
    struct root *root = table_edit(&e->tables.table[TABLE_ROOT], 0);
    CHECK(root == e->root);
    memcpy(root->cluster_id, cluster_id, sizeof root->cluster_id);
    root->lease_token += tokens;
    const struct engine_block block = {
        .table = TABLE_ROOT, .number = 0, .data = root, .size = sizeof *root};
    put(ctx, &block);
}

const uint8_t *engine_cluster_id(const struct engine *e)
{
    return e->root->cluster_id;
}
