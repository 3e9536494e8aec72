/* arena: memory for unpacking protobuf messages that live as long as one callback.
 *
 * A bump allocator behind protobuf-c's allocator interface: the first ARENA_SIZE bytes come from
 * one buffer that is reused, what does not fit comes from malloc and goes at reset. Freeing single
 * pieces does nothing. One thread. */
#ifndef PROTO_ARENA_H
#define PROTO_ARENA_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#define ARENA_SIZE (64u << 10)

struct arena_overflow;
struct arena {
    ProtobufCAllocator allocator; /* give this to ..._unpack; never call ..._free_unpacked */
    uint8_t *memory;
    size_t used;
    struct arena_overflow *overflows;
};

void arena_init(struct arena *a);
/* Never NULL: out of memory aborts. 16-byte aligned. */
void *arena_alloc(struct arena *a, size_t size);
void arena_reset(struct arena *a); /* everything allocated from it is gone */
void arena_close(struct arena *a);

#endif
