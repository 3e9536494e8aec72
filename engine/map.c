#include "engine/map.h"

#include "base/check.h"

void map_place(struct map *m, struct memory *memory, uint32_t slots_max)
{
    CHECK(slots_max < 1u << 30);
    uint32_t bits = 32 - (uint32_t)__builtin_clz(slots_max | 1);
    *m = (struct map){.capacity = 2 * slots_max + 2,
                      .count_max = slots_max,
                      .slot_mask = (1u << bits) - 1};
    m->stride = (1ull << 32) / m->capacity + 1;
    m->entries = memory_take(memory, m->capacity, sizeof *m->entries);
}

void map_insert(struct map *m, uint64_t hash, uint32_t slot)
{
    CHECK(slot != 0 && slot <= m->slot_mask);
    CHECK(m->count < m->count_max);
    uint32_t at = map_home(m, hash);
    while (m->entries[at] != 0) {
        at = at + 1 < m->capacity ? at + 1 : 0;
    }
    m->entries[at] = map_entry(m, hash, slot);
    m->count++;
}

/* How far `at` is behind `from`, around the end. */
static uint32_t distance(const struct map *m, uint32_t from, uint32_t at)
{
    return at >= from ? at - from : at + m->capacity - from;
}

void map_remove(struct map *m, uint64_t hash, uint32_t slot, map_hash_of hash_of, const void *ctx)
{
    uint32_t hole = map_home(m, hash);
    while ((m->entries[hole] & m->slot_mask) != slot) {
        CHECK(m->entries[hole] != 0);
        hole = hole + 1 < m->capacity ? hole + 1 : 0;
    }
    m->count--;
    /* An entry behind the hole may move into it when its home is not between the two. */
    for (uint32_t at = hole;;) {
        at = at + 1 < m->capacity ? at + 1 : 0;
        if (m->entries[at] == 0) {
            break;
        }
        uint32_t home = map_home(m, hash_of(ctx, m->entries[at] & m->slot_mask));
        if (distance(m, home, at) >= distance(m, hole, at)) {
            m->entries[hole] = m->entries[at];
            hole = at;
        }
    }
    m->entries[hole] = 0;
}
