#include "engine/due_heap.h"

#include <stdbool.h>

#include "base/check.h"

#define ARITY 4

void due_heap_place(struct due_heap *h, struct memory *m, uint32_t slots_max)
{
    *h = (struct due_heap){.count_max = slots_max, .step = 1};
    h->due = memory_take(m, slots_max, sizeof *h->due);
    h->slot = memory_take(m, slots_max, sizeof *h->slot);
    h->place = memory_take(m, (size_t)slots_max + 1, sizeof *h->place);
}

void due_heap_place_pair(struct due_heap *up, struct due_heap *down, struct memory *m,
                         uint32_t slots_max)
{
    due_heap_place(up, m, slots_max);
    *down = *up;
    down->step = -1;
    if (up->due != NULL) {
        down->due = up->due + slots_max - 1;
        down->slot = up->slot + slots_max - 1;
    }
}

static int64_t due_at(const struct due_heap *h, uint32_t i)
{
    return h->due[(ptrdiff_t)i * h->step];
}

static uint32_t slot_at(const struct due_heap *h, uint32_t i)
{
    return h->slot[(ptrdiff_t)i * h->step];
}

static void set(struct due_heap *h, uint32_t i, int64_t due, uint32_t slot)
{
    h->due[(ptrdiff_t)i * h->step] = due;
    h->slot[(ptrdiff_t)i * h->step] = slot;
    h->place[slot] = i + 1;
}

static bool before(int64_t due, uint32_t slot, const struct due_heap *h, uint32_t i)
{
    return due < due_at(h, i) || (due == due_at(h, i) && slot < slot_at(h, i));
}

/* Moves the empty place i towards the root until (due, slot) fits there. */
static uint32_t sift_up(struct due_heap *h, uint32_t i, int64_t due, uint32_t slot)
{
    while (i > 0) {
        uint32_t parent = (i - 1) / ARITY;
        if (!before(due, slot, h, parent)) {
            break;
        }
        set(h, i, due_at(h, parent), slot_at(h, parent));
        i = parent;
    }
    return i;
}

static uint32_t sift_down(struct due_heap *h, uint32_t i, int64_t due, uint32_t slot)
{
    for (;;) {
        uint64_t child = (uint64_t)i * ARITY + 1;
        if (child >= h->count) {
            return i;
        }
        uint64_t end = child + ARITY < h->count ? child + ARITY : h->count;
        uint32_t best = (uint32_t)child;
        for (uint32_t c = best + 1; c < end; c++) {
            if (before(due_at(h, c), slot_at(h, c), h, best)) {
                best = c;
            }
        }
        if (before(due, slot, h, best)) {
            return i;
        }
        set(h, i, due_at(h, best), slot_at(h, best));
        i = best;
    }
}

void due_heap_put(struct due_heap *h, uint32_t slot, int64_t due)
{
    if (h->place[slot] != 0) {
        due_heap_remove(h, slot);
    }
    CHECK(h->count < h->count_max);
    uint32_t i = sift_up(h, h->count++, due, slot);
    set(h, i, due, slot);
}

void due_heap_remove(struct due_heap *h, uint32_t slot)
{
    CHECK(h->place[slot] != 0 && h->place[slot] <= h->count);
    uint32_t i = h->place[slot] - 1;
    CHECK(slot_at(h, i) == slot);
    h->place[slot] = 0;
    h->count--;
    if (i == h->count) {
        return;
    }
    int64_t due = due_at(h, h->count);
    uint32_t moved = slot_at(h, h->count);
    i = sift_up(h, i, due, moved);
    i = sift_down(h, i, due, moved);
    set(h, i, due, moved);
}
