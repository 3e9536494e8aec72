/* Tables: where the whole state lives, and the only way to change it.
 *
 * A table is an array of records of one size, cut into blocks of a power of two of records. Everything
 * that a replica must keep (and nothing else) is in tables, so that three things work on blocks without
 * knowing what a record means:
 *
 *   digest      the sum over all blocks of a hash of (table, number, bytes). Changed blocks are marked
 *               and hashed again later, in slices. The digest of one instant can be had although the
 *               state goes on changing: a block that was stale at that instant is hashed just before it
 *               changes. A block of zeros counts nothing: absent and empty are the same.
 *   checkpoint  the set of blocks that changed since the last one, handed over in slices while the
 *               state goes on changing: a frozen block is handed over just before it changes.
 *   loading     blocks are copied in; maps and queues are derived from the records afterwards.
 *
 * Invariants:
 *   1. Every write to a record is preceded, in the same apply, by table_edit of its slot.
 *   2. A block's cached hash is that of its bytes unless the block is marked stale.
 *   3. While a checkpoint is under way, each block of its set is handed over exactly once, with the
 *      bytes it had when the checkpoint began. A block whose hash was not up to date at that moment is
 *      in the set, and is hashed at the latest when it is handed over: so the digest of that moment is
 *      known when the last one was.
 *   4. Each list holds a block at most once, so none needs more room than there are blocks.
 *   5. Records have no padding, and a free record is zero but for its link: equal states are equal
 *      bytes. */
#ifndef ENGINE_TABLE_H
#define ENGINE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "engine/engine.h"
#include "engine/memory.h"

/* Storage values: only ever add. */
enum table_id {
    TABLE_ROOT = 0,
    TABLE_WATERMARK = 1,
    TABLE_SKU = 2,
    TABLE_SALE = 3,
    TABLE_OFFER = 4,
    TABLE_USER = 5,
    TABLE_MEMBER = 6,
    TABLE_ORDER = 7,
    TABLE_LINES = 8,
    TABLE_ANSWER = 9,
    TABLE_LEASE = 10,
    TABLE_EVENT = 11,
    TABLE_TEXT = 12, /* and the next TEXT_CLASSES - 1 */
};
#define TEXT_CLASSES 4
#define TABLE_COUNT  16

/* What a block is marked with. Both have two bits that take turns. DIRTY: one gathers the blocks of the
 * next checkpoint while the other holds what is left to hand over of the one under way. STALE: one gathers
 * the blocks to hash while the other holds what is left to hash for the digest of one instant. */
enum { BLOCK_STALE_EVEN = 1, BLOCK_DIRTY_EVEN = 2, BLOCK_DIRTY_ODD = 4, BLOCK_STALE_ODD = 8 };

struct block_list {
    uint32_t *numbers;
    uint32_t count;
};

struct table {
    uint8_t *data;
    uint8_t *marks;   /* of each block */
    uint8_t touched;  /* the marks of a block that may be written without ado */
    uint8_t shift;    /* log2 of records per block */
    uint32_t record_size;
    uint32_t records_max; /* record 0 included */
    uint32_t blocks_max;
    uint32_t number;
    uint64_t *hashes; /* of each block, as it was last folded into the digest */
    struct block_list stale[2];
    struct block_list dirty[2];
    struct tables *owner;
};

struct tables {
    struct table table[TABLE_COUNT];
    uint64_t digest;     /* over the cached hashes */
    unsigned stale_turn; /* which stale list gathers */
    size_t stale_count;  /* entries of both */
    bool marking;        /* the other one is being hashed for mark_digest */
    uint64_t mark_digest;
    unsigned mark_table; /* where that goes on */
    uint32_t mark_position;
    unsigned turn; /* which dirty list gathers */
    bool checkpointing;
    bool returning;         /* the last one failed: what it froze goes back, in slices */
    uint64_t frozen_digest; /* of the moment it began, when all is handed over */
    size_t frozen_left;
    unsigned frozen_table; /* where the next slice goes on */
    uint32_t frozen_position;
    engine_block_cb put;
    void *put_ctx;
};

/* Lays one table out in m (see memory.h: called in both passes). */
void table_place(struct tables *ts, struct memory *m, enum table_id id, uint32_t record_size,
                 uint32_t records_per_block, uint32_t records_max);

/* Marks a block that is about to change, and hands it over if it is frozen. */
void table_touch(struct table *t, uint32_t block);

static inline const void *table_at(const struct table *t, uint32_t slot)
{
    return t->data + (size_t)slot * t->record_size;
}

/* The record, writable until the end of this apply. */
static inline void *table_edit(struct table *t, uint32_t slot)
{
    CHECK(slot < t->records_max);
    uint32_t block = slot >> t->shift;
    if (t->marks[block] != t->touched) {
        table_touch(t, block);
    }
    return t->data + (size_t)slot * t->record_size;
}

/* Hint: the record will be edited soon. */
static inline void table_prefetch(const struct table *t, uint32_t slot)
{
    const uint8_t *record = t->data + (size_t)slot * t->record_size;
    __builtin_prefetch(record, 1);
    __builtin_prefetch(record + t->record_size - 1, 1);
    __builtin_prefetch(&t->marks[slot >> t->shift], 1);
}

/* Folds what changed and returns the digest. Takes as long as much has changed. */
uint64_t tables_digest(struct tables *ts);
/* Folds up to blocks_max changed blocks, those of a mark first. Returns how many are left. */
size_t tables_fold(struct tables *ts, size_t blocks_max);
/* Begins the digest of this instant: known (mark_digest) once marking is false again, after some
 * tables_fold. One that is under way is finished first. */
void tables_mark(struct tables *ts);

void tables_checkpoint_begin(struct tables *ts, engine_block_cb put, void *ctx);
size_t tables_checkpoint_step(struct tables *ts, size_t blocks_max);
void tables_checkpoint_end(struct tables *ts, bool durable);
/* After a failed one: marks up to blocks_max of its blocks for the next. Returns how many are left. */
size_t tables_return(struct tables *ts, size_t blocks_max);

/* For engine_check: how many of the first blocks of a table are not what their cached hash says,
 * though nothing marked them. */
uint32_t table_count_unmarked(const struct table *t, uint32_t blocks);

/* Copies a block in while loading. Returns 0, or -1 when it does not fit its table. */
int tables_load(struct tables *ts, const struct engine_block *block);

#endif
