/* out: bytes of an answer under construction. Starts in memory that its owner embeds and moves to the
 * heap only when an answer outgrows it, so that the small answers of the hot path cost no allocation.
 * Not NUL-terminated. */
#ifndef GATEWAY_OUT_H
#define GATEWAY_OUT_H

#include <stdlib.h>

#include "base/check.h"
#include "base/str.h"

struct out {
    char *data;
    size_t size, capacity;
    char *initial; /* the embedded memory; data differs from it once grown */
};

static inline void out_init(struct out *o, char *memory, size_t capacity)
{
    *o = (struct out){memory, 0, capacity, memory};
}

static inline void out_close(struct out *o)
{
    if (o->data != o->initial) {
        free(o->data);
    }
    o->data = o->initial;
    o->size = 0;
}

/* Room for size more bytes; add them with out_grow. Out of memory aborts. */
static inline char *out_reserve(struct out *o, size_t size)
{
    if (o->capacity - o->size < size) {
        size_t capacity = o->capacity * 2;
        while (capacity - o->size < size) {
            capacity *= 2;
        }
        char *grown = malloc(capacity);
        CHECK(grown != NULL);
        memcpy(grown, o->data, o->size);
        if (o->data != o->initial) {
            free(o->data);
        }
        o->data = grown;
        o->capacity = capacity;
    }
    return o->data + o->size;
}

static inline void out_grow(struct out *o, size_t size)
{
    o->size += size;
}

static inline void out_bytes(struct out *o, const void *data, size_t size)
{
    char *to = out_reserve(o, size);
    if (size > 0) {
        memcpy(to, data, size);
    }
    o->size += size;
}

static inline void out_str(struct out *o, struct str s)
{
    out_bytes(o, s.ptr, s.len);
}

#define out_literal(o, literal) out_bytes(o, "" literal, sizeof(literal) - 1)

static inline void out_char(struct out *o, char c)
{
    *out_reserve(o, 1) = c;
    o->size++;
}

/* Decimal. */
void out_u64(struct out *o, uint64_t value);
void out_i64(struct out *o, int64_t value);

#endif
