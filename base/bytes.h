/* Little-endian loads and stores at any alignment, and a bounds-checked reader and writer. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/str.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "on-disk and wire formats are little-endian and written by memcpy");

#define BYTES_DEFINE(bits)                                                      \
    static inline uint##bits##_t load_u##bits(const void *from)                 \
    {                                                                           \
        uint##bits##_t value;                                                   \
        memcpy(&value, from, sizeof value);                                     \
        return value;                                                           \
    }                                                                           \
    static inline void store_u##bits(void *to, uint##bits##_t value)            \
    {                                                                           \
        memcpy(to, &value, sizeof value);                                       \
    }
BYTES_DEFINE(16)
BYTES_DEFINE(32)
BYTES_DEFINE(64)
#undef BYTES_DEFINE

/* Reads forward and remembers the first overrun: check `failed` once at the end. After a failure
 * every get returns zero (or the empty str), so that decoders need no branch per field. */
struct reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
};

static inline struct reader reader_init(const void *data, size_t size)
{
    return (struct reader){data, (const uint8_t *)data + size, false};
}

static inline size_t reader_left(const struct reader *r)
{
    return (size_t)(r->end - r->at);
}

/* Borrows the next size bytes; NULL on overrun. */
static inline const void *reader_bytes(struct reader *r, size_t size)
{
    if (r->failed || reader_left(r) < size) {
        r->failed = true;
        return NULL;
    }
    const void *p = r->at;
    r->at += size;
    return p;
}

static inline uint8_t reader_u8(struct reader *r)
{
    const uint8_t *p = reader_bytes(r, 1);
    return p != NULL ? *p : 0;
}

static inline uint16_t reader_u16(struct reader *r)
{
    const void *p = reader_bytes(r, 2);
    return p != NULL ? load_u16(p) : 0;
}

static inline uint32_t reader_u32(struct reader *r)
{
    const void *p = reader_bytes(r, 4);
    return p != NULL ? load_u32(p) : 0;
}

static inline uint64_t reader_u64(struct reader *r)
{
    const void *p = reader_bytes(r, 8);
    return p != NULL ? load_u64(p) : 0;
}

/* A str with a one-byte length in front. */
static inline struct str reader_str8(struct reader *r)
{
    uint8_t len = reader_u8(r);
    const char *p = reader_bytes(r, len);
    return p != NULL ? (struct str){p, len} : (struct str){"", 0};
}

/* Writes forward into a fixed buffer and remembers the first overrun. */
struct writer {
    uint8_t *start;
    uint8_t *at;
    uint8_t *end;
    bool failed;
};

static inline struct writer writer_init(void *data, size_t size)
{
    return (struct writer){data, data, (uint8_t *)data + size, false};
}

static inline size_t writer_size(const struct writer *w)
{
    return (size_t)(w->at - w->start);
}

static inline void writer_bytes(struct writer *w, const void *data, size_t size)
{
    if (w->failed || (size_t)(w->end - w->at) < size) {
        w->failed = true;
        return;
    }
    if (size > 0) {
        memcpy(w->at, data, size);
    }
    w->at += size;
}

static inline void writer_u8(struct writer *w, uint8_t value)
{
    writer_bytes(w, &value, 1);
}

static inline void writer_u16(struct writer *w, uint16_t value)
{
    writer_bytes(w, &value, 2);
}

static inline void writer_u32(struct writer *w, uint32_t value)
{
    writer_bytes(w, &value, 4);
}

static inline void writer_u64(struct writer *w, uint64_t value)
{
    writer_bytes(w, &value, 8);
}

/* A str of more than 255 bytes fails the writer. */
static inline void writer_str8(struct writer *w, struct str s)
{
    if (s.len > UINT8_MAX) {
        w->failed = true;
        return;
    }
    writer_u8(w, (uint8_t)s.len);
    writer_bytes(w, s.ptr, s.len);
}

#endif
