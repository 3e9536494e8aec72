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
    t->touched = (uint8_t)(BLOCK_STALE | dirty_mark(ts->turn));
    t->data = memory_take(m, t->blocks_max, block_size(t));
    t->marks = memory_take(m, t->blocks_max, sizeof *t->marks);
    t->hashes = memory_take(m, t->blocks_max, sizeof *t->hashes);
    t->stale.numbers = memory_take(m, t->blocks_max, sizeof *t->stale.numbers);
    for (int i = 0; i < 2; i++) {
        t->dirty[i].numbers = memory_take(m, t->blocks_max, sizeof *t->dirty[i].numbers);
    }
}

static void hand_over(struct table *t, uint32_t block)
{
    struct tables *ts = t->owner;
    const uint8_t *data = block_data(t, block);
    uint32_t size = block_is_zero(data, block_size(t)) ? 0 : block_size(t);
    t->marks[block] &= (uint8_t)~dirty_mark(ts->turn ^ 1);
    CHECK(ts->frozen_left > 0);
    ts->frozen_left--;
    ts->put(ts->put_ctx, &(struct engine_block){t->number, block, size > 0 ? data : NULL, size});
}

void table_touch(struct table *t, uint32_t block)
{
    const struct tables *ts = t->owner;
    if ((t->marks[block] & dirty_mark(ts->turn ^ 1)) != 0) {
        hand_over(t, block);
    }
    if ((t->marks[block] & BLOCK_STALE) == 0) {
        list_add(&t->stale, block);
    }
    if ((t->marks[block] & dirty_mark(ts->turn)) == 0) {
        list_add(&t->dirty[ts->turn], block);
    }
    t->marks[block] = t->touched;
}

uint64_t tables_digest(struct tables *ts)
{
    for (int i = 0; i < TABLE_COUNT; i++) {
        struct table *t = &ts->table[i];
        for (uint32_t j = 0; j < t->stale.count; j++) {
            uint32_t block = t->stale.numbers[j];
            uint64_t hash = block_hash(t, block);
            ts->digest += hash - t->hashes[block];
            t->hashes[block] = hash;
            t->marks[block] &= (uint8_t)~BLOCK_STALE;
        }
        t->stale.count = 0;
    }
    return ts->digest;
}

uint32_t table_count_unmarked(const struct table *t, uint32_t blocks)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < blocks && i < t->blocks_max; i++) {
        bool stale = (t->marks[i] & BLOCK_STALE) != 0;
        count += !stale && block_hash(t, i) != t->hashes[i] ? 1 : 0;
    }
    return count;
}

void tables_checkpoint_begin(struct tables *ts, engine_block_cb put, void *ctx)
{
    CHECK(!ts->checkpointing);
    ts->checkpointing = true;
    ts->put = put;
    ts->put_ctx = ctx;
    ts->frozen_left = 0;
    ts->frozen_table = 0;
    ts->frozen_position = 0;
    for (int i = 0; i < TABLE_COUNT; i++) {
        ts->frozen_left += ts->table[i].dirty[ts->turn].count;
    }
    ts->turn ^= 1;
    for (int i = 0; i < TABLE_COUNT; i++) {
        CHECK(ts->table[i].dirty[ts->turn].count == 0);
        ts->table[i].touched = (uint8_t)(BLOCK_STALE | dirty_mark(ts->turn));
    }
}

size_t tables_checkpoint_step(struct tables *ts, size_t blocks_max)
{
    CHECK(ts->checkpointing);
    while (ts->frozen_table < TABLE_COUNT && blocks_max > 0) {
        struct table *t = &ts->table[ts->frozen_table];
        const struct block_list *frozen = &t->dirty[ts->turn ^ 1];
        if (ts->frozen_position == frozen->count) {
            ts->frozen_table++;
            ts->frozen_position = 0;
            continue;
        }
        uint32_t block = frozen->numbers[ts->frozen_position++];
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
    for (int i = 0; i < TABLE_COUNT; i++) {
        struct table *t = &ts->table[i];
        struct block_list *frozen = &t->dirty[ts->turn ^ 1];
        for (uint32_t j = 0; !durable && j < frozen->count; j++) {
            uint32_t block = frozen->numbers[j];
            t->marks[block] &= (uint8_t)~dirty_mark(ts->turn ^ 1);
            if ((t->marks[block] & dirty_mark(ts->turn)) == 0) {
                list_add(&t->dirty[ts->turn], block);
                t->marks[block] |= dirty_mark(ts->turn);
            }
        }
        frozen->count = 0;
    }
    ts->frozen_left = 0;
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
    if ((t->marks[block->number] & BLOCK_STALE) == 0) {
        list_add(&t->stale, block->number);
        t->marks[block->number] |= BLOCK_STALE;
    }
    return 0;
}
