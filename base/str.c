#include "base/str.h"

bool str_is_utf8(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.ptr;
    const unsigned char *end = p + s.len;
    while (p < end) {
        unsigned char c = *p;
        size_t tail;
        unsigned char low = 0x80, high = 0xBF; /* bounds of the second byte: RFC 3629 §4 */
        if (c < 0x80) {
            p++;
            continue;
        }
        if (c >= 0xC2 && c <= 0xDF) {
            tail = 1;
        } else if (c >= 0xE0 && c <= 0xEF) {
            tail = 2;
            low = c == 0xE0 ? 0xA0 : low;
            high = c == 0xED ? 0x9F : high;
        } else if (c >= 0xF0 && c <= 0xF4) {
            tail = 3;
            low = c == 0xF0 ? 0x90 : low;
            high = c == 0xF4 ? 0x8F : high;
        } else {
            return false;
        }
        if ((size_t)(end - p) <= tail || p[1] < low || p[1] > high) {
            return false;
        }
        for (size_t i = 2; i <= tail; i++) {
            if (p[i] < 0x80 || p[i] > 0xBF) {
                return false;
            }
        }
        p += tail + 1;
    }
    return true;
}

/* 1 for the bytes of identifiers, sixteen values a row; the upper half is none. By table and without
 * branches, for this runs over every id of every order, three times on its way. */
static const unsigned char identifier_bytes[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 0,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1,
    0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1, 0,
};

bool str_is_identifier(struct str s, uint32_t len_max)
{
    if (s.len == 0 || s.len > len_max) {
        return false;
    }
    unsigned char ok = 1;
    for (uint32_t i = 0; i < s.len; i++) {
        ok &= identifier_bytes[(unsigned char)s.ptr[i]];
    }
    return ok != 0;
}
