#include "proto/arena.h"

#include <stdlib.h>

#include "base/check.h"

#define ALIGNMENT 16u

struct arena_overflow {
    struct arena_overflow *next;
    uint64_t padding; /* keeps what follows 16-byte aligned */
};
_Static_assert(sizeof(struct arena_overflow) % ALIGNMENT == 0, "memory behind it stays aligned");

static void *alloc_cb(void *data, size_t size)
{
    return arena_alloc(data, size);
}

static void free_cb(void *data, void *pointer)
{
    (void)data;
    (void)pointer;
}

void arena_init(struct arena *a)
{
    *a = (struct arena){.allocator = {alloc_cb, free_cb, a}, .memory = malloc(ARENA_SIZE)};
    CHECK(a->memory != NULL);
}

void *arena_alloc(struct arena *a, size_t size)
{
    CHECK(size <= SIZE_MAX / 2);
    size = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (size <= ARENA_SIZE - a->used) {
        void *p = a->memory + a->used;
        a->used += size;
        return p;
    }
    struct arena_overflow *o = malloc(sizeof *o + size);
    CHECK(o != NULL);
    o->next = a->overflows;
    a->overflows = o;
    return o + 1;
}

void arena_reset(struct arena *a)
{
    while (a->overflows != NULL) {
        struct arena_overflow *o = a->overflows;
        a->overflows = o->next;
        free(o);
    }
    a->used = 0;
}

void arena_close(struct arena *a)
{
    arena_reset(a);
    free(a->memory);
    a->memory = NULL;
}
