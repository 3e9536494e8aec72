/* Maps from a hash to the slot of a record: open addressing with linear probing, at most half full at
 * the limit, deletion by shifting back (no tombstones, so a map never gets slower with age). An entry
 * is 4 bytes: the slot, and in the bits that slots do not need a tag of the hash. The key itself is in
 * the record: who looks up compares it.
 *
 * Derived: rebuilt when loading, and no outcome ever depends on the order of its entries. */
#ifndef ENGINE_MAP_H
#define ENGINE_MAP_H

#include <stdint.h>

#include "engine/memory.h"

struct map {
    uint32_t *entries;
    uint32_t capacity;
    uint32_t count;
    uint32_t count_max;
    uint32_t slot_mask; /* the low bits of an entry */
    uint64_t stride;    /* adding so much to the high half of a hash moves its home on by one */
};

/* The hash of the key of the record at a slot: asked for when an entry is removed. */
typedef uint64_t (*map_hash_of)(const void *ctx, uint32_t slot);

/* slots_max: the largest slot that will be put in, and how many. Below 2^30. */
void map_place(struct map *m, struct memory *memory, uint32_t slots_max);
void map_insert(struct map *m, uint64_t hash, uint32_t slot);
/* The slot must be in the map under this hash. */
void map_remove(struct map *m, uint64_t hash, uint32_t slot, map_hash_of hash_of, const void *ctx);

static inline uint32_t map_home(const struct map *m, uint64_t hash)
{
    return (uint32_t)((hash >> 32) * m->capacity >> 32);
}

static inline uint32_t map_entry(const struct map *m, uint64_t hash, uint32_t slot)
{
    return ((uint32_t)hash & ~m->slot_mask) | slot;
}

static inline void map_prefetch(const struct map *m, uint64_t hash)
{
    __builtin_prefetch(&m->entries[map_home(m, hash)], 1);
}

/* Walks the slots that may hold a key:
 *     for (struct map_walk w = map_find(m, hash); (slot = map_next(&w)) != 0;) if it is: found */
struct map_walk {
    const struct map *map;
    uint32_t at;
    uint32_t tag;
};

static inline struct map_walk map_find(const struct map *m, uint64_t hash)
{
    return (struct map_walk){m, map_home(m, hash), map_entry(m, hash, 0)};
}

static inline uint32_t map_next(struct map_walk *w)
{
    for (;;) {
        uint32_t entry = w->map->entries[w->at];
        if (entry == 0) {
            return 0;
        }
        w->at = w->at + 1 < w->map->capacity ? w->at + 1 : 0;
        if ((entry & ~w->map->slot_mask) == w->tag) {
            return entry & w->map->slot_mask;
        }
    }
}

#endif
