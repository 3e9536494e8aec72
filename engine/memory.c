#include "engine/memory.h"

#include <sys/mman.h>

#include "base/check.h"

#define CACHE_LINE 64

/* A large state is read at random: with 4 KiB pages most of that would be page walks. Small engines
 * (tests, the simulator) stay with small pages and pay only for what they touch. */
#define HUGE_PAGES_FROM (16u << 20)

void memory_reserve(struct memory *m)
{
    CHECK(m->base == NULL);
    void *base = mmap(NULL, m->size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(base != MAP_FAILED);
    if (m->size >= HUGE_PAGES_FROM) {
        (void)madvise(base, m->size, MADV_HUGEPAGE); /* a hint: without it only slower */
    }
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
