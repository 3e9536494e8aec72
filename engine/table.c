#include "engine/table.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static uint32_t block_size(const struct table *t)
{
    return t->record_size << t->shift;
}

static const uint8_t *block_data(const struct table *t, uint32_t block)
{
    return t->data + (size_t)block * block_size(t);
}

/* Mostly decided by the first word: a block in use begins with a record in use. */
static bool block_is_zero(const uint8_t *data, uint32_t size)
{
    for (uint32_t i = 0; i < size; i += 8) {
        uint64_t word;
        memcpy(&word, data + i, sizeof word);
        if (word != 0) {
            return false;
        }
    }
    return true;
}

/* XXH3 of the bytes, then mixed with the place in a way that is not linear (the finalizer of
 * splitmix64), so that blocks that change places change the sum. */
uint64_t engine_block_digest(const struct engine_block *block)
{
    if (block->size == 0) {
        return 0;
    }
    uint64_t place = (uint64_t)block->table << 32 | block->number;
    uint64_t z = XXH3_64bits(block->data, block->size) ^ (place + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint64_t block_hash(const struct table *t, uint32_t block)
{
    const uint8_t *data = block_data(t, block);
    if (block_is_zero(data, block_size(t))) {
        return 0;
    }
    return engine_block_digest(&(struct engine_block){t->number, block, data, block_size(t)});
}

static void list_add(struct block_list *list, uint32_t block)
{
    list->numbers[list->count++] = block;
}

static uint8_t dirty_mark(unsigned turn)
{
    return turn == 0 ? BLOCK_DIRTY_EVEN : BLOCK_DIRTY_ODD;
}

static uint8_t stale_mark(unsigned turn)
{
    return turn == 0 ? BLOCK_STALE_EVEN : BLOCK_STALE_ODD;
}

#define STALE_MARKS (BLOCK_STALE_EVEN | BLOCK_STALE_ODD)

/* Lists are in the order of changing, which is random in memory. */
#define FETCH_AHEAD 8u

static void list_fetch(const struct table *t, const struct block_list *list, uint32_t position)
{
    if (position + FETCH_AHEAD < list->count) {
        uint32_t block = list->numbers[position + FETCH_AHEAD];
        __builtin_prefetch(block_data(t, block));
        __builtin_prefetch(&t->marks[block]);
        __builtin_prefetch(&t->hashes[block]);
    }
}

static uint8_t touched_mark(const struct tables *ts)
{
    return (uint8_t)(stale_mark(ts->stale_turn) | dirty_mark(ts->turn));
}

static void turn_over(struct tables *ts)
{
    for (int i = 0; i < TABLE_COUNT; i++) {
        ts->table[i].touched = touched_mark(ts);
    }
}

void table_place(struct tables *ts, struct memory *m, enum table_id id, uint32_t record_size,
                 uint32_t records_per_block, uint32_t records_max)
{
    struct table *t = &ts->table[id];
    CHECK(record_size % 8 == 0);
    CHECK(record_size * records_per_block <= ENGINE_BLOCK_SIZE_MAX);
    CHECK((records_per_block & (records_per_block - 1)) == 0);
    *t = (struct table){.record_size = record_size, .number = id, .owner = ts};
    t->shift = (uint8_t)__builtin_ctz(records_per_block);
    t->records_max = records_max;
    t->blocks_max = (uint32_t)(((uint64_t)records_max + records_per_block - 1) >> t->shift);
    t->touched = touched_mark(ts);
    t->data = memory_take(m, t->blocks_max, block_size(t));
    t->marks = memory_take(m, t->blocks_max, sizeof *t->marks);
    t->hashes = memory_take(m, t->blocks_max, sizeof *t->hashes);
    for (int i = 0; i < 2; i++) {
        t->stale[i].numbers = memory_take(m, t->blocks_max, sizeof *t->stale[i].numbers);
        t->dirty[i].numbers = memory_take(m, t->blocks_max, sizeof *t->dirty[i].numbers);
    }
}

/* Brings a block's hash up to date, and with it every digest of a moment at which the block was as it
 * is now. */
static void fold(struct table *t, uint32_t block)
{
    struct tables *ts = t->owner;
    uint64_t hash = block_hash(t, block), change = hash - t->hashes[block];
    t->hashes[block] = hash;
    ts->digest += change;
    if ((t->marks[block] & stale_mark(ts->stale_turn ^ 1)) != 0) {
        ts->mark_digest += change;
    }
    if ((t->marks[block] & dirty_mark(ts->turn ^ 1)) != 0) {
        ts->frozen_digest += change;
    }
}

/* It stays in the list of stale blocks that gathers, to be folded once more for nothing: taking it out
 * of there would cost more. */
static void hand_over(struct table *t, uint32_t block)
{
    struct tables *ts = t->owner;
    const uint8_t *data = block_data(t, block);
    uint32_t size = block_is_zero(data, block_size(t)) ? 0 : block_size(t);
    if ((t->marks[block] & STALE_MARKS) != 0) {
        fold(t, block);
        t->marks[block] &= (uint8_t)~stale_mark(ts->stale_turn ^ 1);
    }
    t->marks[block] &= (uint8_t)~dirty_mark(ts->turn ^ 1);
    CHECK(ts->frozen_left > 0);
    ts->frozen_left--;
    ts->put(ts->put_ctx, &(struct engine_block){t->number, block, size > 0 ? data : NULL, size});
}

void table_touch(struct table *t, uint32_t block)
{
    struct tables *ts = t->owner;
    if (ts->checkpointing && (t->marks[block] & dirty_mark(ts->turn ^ 1)) != 0) {
        hand_over(t, block);
    }
    if ((t->marks[block] & stale_mark(ts->stale_turn ^ 1)) != 0) {
        fold(t, block);
    }
    if ((t->marks[block] & stale_mark(ts->stale_turn)) == 0) {
        list_add(&t->stale[ts->stale_turn], block);
        ts->stale_count++;
    }
    if ((t->marks[block] & dirty_mark(ts->turn)) == 0) {
        list_add(&t->dirty[ts->turn], block);
    }
    t->marks[block] = t->touched;
}

/* The list of a mark, in order. Returns how much of blocks_max is left. */
static size_t fold_marked(struct tables *ts, size_t blocks_max)
{
    unsigned turn = ts->stale_turn ^ 1;
    while (ts->mark_table < TABLE_COUNT && blocks_max > 0) {
        struct table *t = &ts->table[ts->mark_table];
        struct block_list *list = &t->stale[turn];
        if (ts->mark_position == list->count) {
            list->count = 0;
            ts->mark_table++;
            ts->mark_position = 0;
            continue;
        }
        list_fetch(t, list, ts->mark_position);
        uint32_t block = list->numbers[ts->mark_position++];
        if ((t->marks[block] & stale_mark(turn)) != 0) { /* else it was folded before it changed */
            fold(t, block);
            t->marks[block] &= (uint8_t)~stale_mark(turn);
        }
        ts->stale_count--;
        blocks_max--;
    }
    ts->marking = ts->mark_table < TABLE_COUNT;
    return blocks_max;
}

size_t tables_fold(struct tables *ts, size_t blocks_max)
{
    if (ts->marking) {
        blocks_max = fold_marked(ts, blocks_max);
    }
    for (int i = 0; i < TABLE_COUNT; i++) {
        struct table *t = &ts->table[i];
        struct block_list *list = &t->stale[ts->stale_turn];
        for (; list->count > 0 && blocks_max > 0; blocks_max--) {
            if (list->count > FETCH_AHEAD) {
                __builtin_prefetch(block_data(t, list->numbers[list->count - 1 - FETCH_AHEAD]));
            }
            uint32_t block = list->numbers[--list->count];
            fold(t, block);
            t->marks[block] &= (uint8_t)~stale_mark(ts->stale_turn);
            ts->stale_count--;
        }
    }
    return ts->stale_count;
}

uint64_t tables_digest(struct tables *ts)
{
    size_t left = tables_fold(ts, SIZE_MAX);
    CHECK(left == 0);
    return ts->digest;
}

void tables_mark(struct tables *ts)
{
    if (ts->marking) {
        fold_marked(ts, SIZE_MAX);
    }
    ts->stale_turn ^= 1;
    ts->mark_digest = ts->digest;
    ts->marking = ts->stale_count > 0;
    ts->mark_table = 0;
    ts->mark_position = 0;
    turn_over(ts);
}

uint32_t table_count_unmarked(const struct table *t, uint32_t blocks)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < blocks && i < t->blocks_max; i++) {
        bool stale = (t->marks[i] & STALE_MARKS) != 0;
        count += !stale && block_hash(t, i) != t->hashes[i] ? 1 : 0;
    }
    return count;
}

void tables_checkpoint_begin(struct tables *ts, engine_block_cb put, void *ctx)
{
    CHECK(!ts->checkpointing);
    (void)tables_return(ts, SIZE_MAX);
    ts->checkpointing = true;
    ts->put = put;
    ts->put_ctx = ctx;
    ts->frozen_digest = ts->digest;
    ts->frozen_left = 0;
    ts->frozen_table = 0;
    ts->frozen_position = 0;
    for (int i = 0; i < TABLE_COUNT; i++) {
        ts->frozen_left += ts->table[i].dirty[ts->turn].count;
    }
    ts->turn ^= 1;
    for (int i = 0; i < TABLE_COUNT; i++) {
        CHECK(ts->table[i].dirty[ts->turn].count == 0);
    }
    turn_over(ts);
}

/* Entries that a step looks at for each block that it hands over, at most: others may have been handed
 * over by applies. */
#define STEP_LOOKS 16u

size_t tables_checkpoint_step(struct tables *ts, size_t blocks_max)
{
    CHECK(ts->checkpointing);
    size_t looks = blocks_max > SIZE_MAX / STEP_LOOKS ? SIZE_MAX : blocks_max * STEP_LOOKS;
    while (ts->frozen_left > 0 && blocks_max > 0 && looks > 0) {
        struct table *t = &ts->table[ts->frozen_table];
        const struct block_list *frozen = &t->dirty[ts->turn ^ 1];
        if (ts->frozen_position == frozen->count) {
            ts->frozen_table++;
            ts->frozen_position = 0;
            CHECK(ts->frozen_table < TABLE_COUNT);
            continue;
        }
        list_fetch(t, frozen, ts->frozen_position);
        uint32_t block = frozen->numbers[ts->frozen_position++];
        looks--;
        if ((t->marks[block] & dirty_mark(ts->turn ^ 1)) != 0) {
            hand_over(t, block);
            blocks_max--;
        }
    }
    return ts->frozen_left;
}

void tables_checkpoint_end(struct tables *ts, bool durable)
{
    CHECK(ts->checkpointing);
    CHECK(!durable || ts->frozen_left == 0);
    ts->checkpointing = false;
    ts->returning = !durable;
    ts->frozen_left = 0;
    ts->frozen_table = 0;
    ts->frozen_position = 0;
    for (int i = 0; durable && i < TABLE_COUNT; i++) {
        ts->table[i].dirty[ts->turn ^ 1].count = 0;
    }
}

size_t tables_return(struct tables *ts, size_t blocks_max)
{
    size_t left = 0;
    for (int i = 0; ts->returning && i < TABLE_COUNT; i++) {
        struct table *t = &ts->table[i];
        struct block_list *frozen = &t->dirty[ts->turn ^ 1];
        for (; frozen->count > 0 && blocks_max > 0; blocks_max--) {
            uint32_t block = frozen->numbers[--frozen->count];
            t->marks[block] &= (uint8_t)~dirty_mark(ts->turn ^ 1);
            if ((t->marks[block] & dirty_mark(ts->turn)) == 0) {
                list_add(&t->dirty[ts->turn], block);
                t->marks[block] |= dirty_mark(ts->turn);
            }
        }
        left += frozen->count;
    }
    ts->returning = left > 0;
    return left;
}

int tables_load(struct tables *ts, const struct engine_block *block)
{
    if (block->table >= TABLE_COUNT) {
        return -1;
    }
    struct table *t = &ts->table[block->table];
    if (block->number >= t->blocks_max || block->size != block_size(t)) {
        return -1;
    }
    memcpy(t->data + (size_t)block->number * block_size(t), block->data, block->size);
    fold(t, block->number); /* now, while the block is near */
    return 0;
}
