#include "base/str.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

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

/* Identifiers are checked sixteen bytes at a time where the processor can, for this runs over every
 * id of every order, three times on its way. */
#ifdef __SSE2__

static __m128i in_range(__m128i v, char first, char last)
{
    return _mm_and_si128(_mm_cmpgt_epi8(v, _mm_set1_epi8((char)(first - 1))),
                         _mm_cmplt_epi8(v, _mm_set1_epi8((char)(last + 1))));
}

/* Bytes above 127 are negative here, and in no range. */
static bool sixteen_ok(__m128i v)
{
    __m128i ok = _mm_or_si128(in_range(v, 'a', 'z'), in_range(v, '@', 'Z'));
    ok = _mm_or_si128(ok, _mm_or_si128(in_range(v, '0', ':'), in_range(v, '-', '.')));
    ok = _mm_or_si128(ok, _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('+')),
                                       _mm_cmpeq_epi8(v, _mm_set1_epi8('_'))));
    ok = _mm_or_si128(ok, _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('|')),
                                       _mm_cmpeq_epi8(v, _mm_set1_epi8('~'))));
    return _mm_movemask_epi8(ok) == 0xFFFF;
}

/* Covers the text with loads that overlap rather than reach past its end. */
static bool bytes_ok(const char *p, uint32_t len)
{
    if (len >= 16) {
        for (uint32_t i = 0; i + 16 <= len; i += 16) {
            if (!sixteen_ok(_mm_loadu_si128((const void *)(p + i)))) {
                return false;
            }
        }
        return sixteen_ok(_mm_loadu_si128((const void *)(p + len - 16)));
    }
    uint64_t low, high;
    if (len >= 8) {
        memcpy(&low, p, 8);
        memcpy(&high, p + len - 8, 8);
    } else if (len >= 4) {
        uint32_t first, last;
        memcpy(&first, p, 4);
        memcpy(&last, p + len - 4, 4);
        low = high = (uint64_t)first << 32 | last;
    } else {
        const unsigned char first = (unsigned char)p[0], middle = (unsigned char)p[len / 2],
                            last = (unsigned char)p[len - 1];
        low = high = 0x6161616161000000u | (uint32_t)(first << 16) | (uint32_t)(middle << 8) | last;
    }
    return sixteen_ok(_mm_set_epi64x((int64_t)high, (int64_t)low));
}

#else

/* 1 for the bytes of identifiers, sixteen values a row; the upper half is none. */
static const unsigned char identifier_bytes[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1,
    0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1, 0,
};

static bool bytes_ok(const char *p, uint32_t len)
{
    unsigned char ok = 1;
    for (uint32_t i = 0; i < len; i++) {
        ok &= identifier_bytes[(unsigned char)p[i]];
    }
    return ok != 0;
}

#endif

bool str_is_identifier(struct str s, uint32_t len_max)
{
    return s.len > 0 && s.len <= len_max && bytes_ok(s.ptr, s.len);
}

bool str_to_u64(struct str s, uint64_t *value)
{
    uint64_t n = 0;
    if (s.len == 0 || s.len > 19) {
        return false;
    }
    for (uint32_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9') {
            return false;
        }
        n = n * 10 + (uint64_t)(s.ptr[i] - '0');
    }
    *value = n;
    return true;
}
