/* What ends when: slots ordered by (due, slot), a 4-ary heap with the place of each slot, so that a
 * reservation that is paid leaves in O(log n). Chosen over one FIFO per sale because a sale's timeout
 * may change while reservations run, and over a timing wheel because expiry is exact to the
 * millisecond and next_due must be known exactly.
 *
 * Derived: what is due when stands in the records; the order (due, slot) is total, so what comes out
 * never depends on how the heap happens to be laid out. Rebuilt when loading. */
#ifndef ENGINE_DUE_HEAP_H
#define ENGINE_DUE_HEAP_H

#include <stdint.h>

#include "engine/memory.h"

struct due_heap {
    int64_t *due;
    uint32_t *slot;
    uint32_t *place; /* by slot: 1 + place in the heap, 0: not in it */
    uint32_t count;
    uint32_t count_max;
    ptrdiff_t step; /* 1, or -1 for a heap that grows downwards from the end of the arrays */
};

void due_heap_place(struct due_heap *h, struct memory *m, uint32_t slots_max);
/* Two heaps that share the memory of one, for records that are in at most one of them at a time. */
void due_heap_place_pair(struct due_heap *up, struct due_heap *down, struct memory *m,
                         uint32_t slots_max);

/* Puts a slot in, or moves it when it is in. */
void due_heap_put(struct due_heap *h, uint32_t slot, int64_t due);
/* Takes a slot out; it must be in. */
void due_heap_remove(struct due_heap *h, uint32_t slot);

/* INT64_MAX when empty. */
static inline int64_t due_heap_first_due(const struct due_heap *h)
{
    return h->count > 0 ? h->due[0] : INT64_MAX;
}

/* 0 when empty. */
static inline uint32_t due_heap_first(const struct due_heap *h)
{
    return h->count > 0 ? h->slot[0] : 0;
}

#endif
