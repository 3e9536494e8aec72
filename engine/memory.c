#include "engine/memory.h"

#include <sys/mman.h>

#include "base/check.h"

#define CACHE_LINE 64

/* Small pages, on purpose. Huge ones make the state machine alone a little faster, but the first touch
 * of each costs a millisecond of zeroing on the thread that serves everybody, and the first orders of a
 * sale touch a new one nearly every time: enough to lose an election over. */
void memory_reserve(struct memory *m)
{
    CHECK(m->base == NULL);
    void *base = mmap(NULL, m->size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(base != MAP_FAILED);
    m->base = base;
    m->size = 0;
}

void memory_release(struct memory *m)
{
    if (m->base != NULL) {
        CHECK(munmap(m->base, m->size) == 0);
    }
    *m = (struct memory){NULL, 0};
}

void *memory_take(struct memory *m, size_t count, size_t size)
{
    size_t bytes = (count * size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    uint8_t *at = m->base != NULL ? m->base + m->size : NULL;
    m->size += bytes;
    return at;
}
