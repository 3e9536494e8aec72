/* One reservation of address space for all of an engine's memory. Untouched pages cost nothing, so
 * every table and index can have its full capacity from the start and never moves. */
#ifndef ENGINE_MEMORY_H
#define ENGINE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Laid out in two passes over the same calls: the first, with base NULL, only adds up the size. */
struct memory {
    uint8_t *base;
    size_t size;
};

/* Reserves m->size zero bytes and begins the second pass. Aborts when the system refuses. */
void memory_reserve(struct memory *m);
void memory_release(struct memory *m);

/* Backs size bytes from `at` with memory now, in huge pages where the system has them; reading and
 * writing there never waits for the kernel again. Contents stay. Takes a second or two a GiB. */
void memory_populate(void *at, size_t size);

/* The same from any thread: contents stay whatever others write meanwhile. huge: in huge pages
 * where the system has them and none was touched yet. 0, or -1 where the system cannot, or nothing
 * is there any more. */
int memory_warm(void *at, size_t size, bool huge);

/* count × size zero bytes, aligned to a cache line; NULL in the first pass. */
void *memory_take(struct memory *m, size_t count, size_t size);

#endif
