/* A borrowed run of bytes: pointer and length, not NUL-terminated, never owned. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *ptr;
    uint32_t len;
};

#define STR_LITERAL(literal) ((struct str){"" literal, (uint32_t)(sizeof(literal) - 1)})

/* Borrows a NUL-terminated string; NULL becomes the empty str. */
static inline struct str str_from(const char *cstring)
{
    return (struct str){cstring != NULL ? cstring : "",
                        cstring != NULL ? (uint32_t)strlen(cstring) : 0};
}

static inline bool str_equal(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Copies at most size - 1 bytes and terminates. Returns true iff all of it fitted. */
static inline bool str_copy(char *to, size_t size, struct str from)
{
    size_t n = from.len < size ? from.len : size - 1;
    if (n > 0) {
        memcpy(to, from.ptr, n);
    }
    to[n] = '\0';
    return n == from.len;
}

/* Decimal digits and nothing else, 1 to 19 of them: true, and *value. */
bool str_to_u64(struct str s, uint64_t *value);

/* True iff the bytes are well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms). */
bool str_is_utf8(struct str s);

/* True iff s has 1..len_max bytes, all from [A-Za-z0-9._:@|+~-]: what SKU, sale, user, lease and
 * idempotency identifiers may consist of. */
bool str_is_identifier(struct str s, uint32_t len_max);

#endif
