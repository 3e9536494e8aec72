#include "engine/memory.h"

#include <sys/mman.h>

#include "base/check.h"

#define CACHE_LINE 64
#define PAGE_SIZE  4096 /* at most: touching some twice does no harm */

/* Small pages, on purpose, unless memory_populate or memory_warm pay for huge ones at a time, or on
 * a thread, that is nobody's. Huge ones make the state machine alone a little faster, but the first
 * touch of each costs a millisecond of zeroing on the thread that serves everybody, and the first
 * orders of a sale touch a new one nearly every time: enough to lose an election over. */
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

void memory_populate(void *at, size_t size)
{
    uintptr_t begin = (uintptr_t)at / PAGE_SIZE * PAGE_SIZE;
    size_t length = ((uintptr_t)at + size - begin + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE;
    void *pages = (uint8_t *)at - ((uintptr_t)at - begin);
    (void)madvise(pages, length, MADV_HUGEPAGE); /* a wish: small pages will do */
#ifdef MADV_POPULATE_WRITE
    if (madvise(pages, length, MADV_POPULATE_WRITE) == 0) {
        return;
    }
#endif
    for (size_t i = 0; i < size; i += PAGE_SIZE) { /* Linux before 5.14 */
        volatile uint8_t *byte = (uint8_t *)at + i;
        *byte = *byte;
    }
}

int memory_warm(void *at, size_t size, bool huge)
{
#ifdef MADV_POPULATE_WRITE
    uintptr_t begin = (uintptr_t)at / PAGE_SIZE * PAGE_SIZE;
    uintptr_t end = ((uintptr_t)at + size) / PAGE_SIZE * PAGE_SIZE;
    void *pages = (uint8_t *)at - ((uintptr_t)at - begin);
    if (end <= begin) {
        return 0;
    }
    if (huge) {
        (void)madvise(pages, end - begin, MADV_HUGEPAGE); /* a wish: small pages will do */
    }
    return madvise(pages, end - begin, MADV_POPULATE_WRITE) == 0 ? 0 : -1;
#else
    (void)at;
    (void)size;
    (void)huge;
    return -1;
#endif
}

void *memory_take(struct memory *m, size_t count, size_t size)
{
    size_t bytes = (count * size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    uint8_t *at = m->base != NULL ? m->base + m->size : NULL;
    m->size += bytes;
    return at;
}
