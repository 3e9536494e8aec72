/* Unit tests of base/: text, UTF-8, identifiers, time, checksums, histogram, bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/histogram.h"
#include "base/metrics.h"
#include "base/prng.h"
#include "base/str.h"
#include "base/text.h"

static void test_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        uint32_t len;
        bool good;
    } cases[] = {
        {"", 0, true},
        {"plain", 5, true},
        {"\0", 1, true},
        {"\xC3\xA9", 2, true},
        {"\xE2\x82\xAC", 3, true},
        {"\xF0\x9F\x98\x80", 4, true},
        {"\xF4\x8F\xBF\xBF", 4, true},
        {"\x80", 1, false},             /* a tail without a head */
        {"\xC3", 1, false},             /* cut */
        {"\xC0\xAF", 2, false},         /* overlong */
        {"\xE0\x80\x80", 3, false},     /* overlong */
        {"\xED\xA0\x80", 3, false},     /* surrogate */
        {"\xF0\x80\x80\x80", 4, false}, /* overlong */
        {"\xF4\x90\x80\x80", 4, false}, /* above U+10FFFF */
        {"\xF5\x80\x80\x80", 4, false},
        {"\xFF", 1, false},
        {"a\xE2\x82", 3, false},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        assert_int_equal(str_is_utf8((struct str){cases[i].bytes, cases[i].len}), cases[i].good);
    }
}

static void test_identifier(void **state)
{
    (void)state;
    uint64_t n = 7;
    assert_true(str_to_u64(STR_LITERAL("9999999999999999999"), &n) && n == 9999999999999999999u);
    assert_true(str_to_u64(STR_LITERAL("007"), &n) && n == 7);
    assert_false(str_to_u64(STR_LITERAL(""), &n) || str_to_u64(STR_LITERAL("-1"), &n) ||
                 str_to_u64(STR_LITERAL("1 "), &n) ||
                 str_to_u64(STR_LITERAL("10000000000000000000"), &n));
    assert_int_equal(n, 7); /* left alone */
    assert_true(str_is_identifier(STR_LITERAL("a"), 4));
    assert_true(str_is_identifier(STR_LITERAL("auth0|5f7c8ec7c33c6c004bbafe82"), 64));
    assert_true(str_is_identifier(STR_LITERAL("A-z_0.9:@+~"), 64));
    assert_false(str_is_identifier(STR_LITERAL(""), 4));
    assert_false(str_is_identifier(STR_LITERAL("abcde"), 4));
    assert_false(str_is_identifier(STR_LITERAL("a b"), 64));
    assert_false(str_is_identifier(STR_LITERAL("a/b"), 64));
    assert_false(str_is_identifier(STR_LITERAL("a\0b"), 64));
    assert_false(str_is_identifier(STR_LITERAL("\xC3\xA9"), 64));
}

static void test_rfc3339(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms; /* -1: refused */
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"2026-11-22T15:04:05.678Z", 1795359845678},
        {"2026-11-22t15:04:05.678z", 1795359845678},
        {"2026-11-22T16:04:05.678901+01:00", 1795359845678},
        {"2024-02-29T00:00:00Z", 1709164800000},
        {"2023-02-29T00:00:00Z", -1},
        {"2026-13-01T00:00:00Z", -1},
        {"2026-11-22T24:00:00Z", -1},
        {"2026-11-22T15:04:60Z", -1},
        {"2026-11-22T15:04:05.Z", -1},
        {"2026-11-22T15:04:05", -1},
        {"2026-11-22 15:04:05Z", -1},
        {"2026-11-22T15:04:05Zx", -1},
        {"1969-12-31T23:59:59Z", -1},
        {"", -1},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        int64_t ms = -2;
        int rv = clock_parse_rfc3339(str_from(cases[i].text), &ms);
        if (cases[i].ms < 0) {
            assert_int_equal(rv, -1);
        } else {
            assert_int_equal(rv, 0);
            assert_int_equal(ms, cases[i].ms);
        }
    }
    char out[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(1795359845678, out);
    assert_string_equal(out, "2026-11-22T15:04:05.678Z");
    clock_format_rfc3339(INT64_MAX, out);
    assert_string_equal(out, "9999-12-31T23:59:59.999Z");
}

static void test_crc32c(void **state)
{
    (void)state;
    uint8_t data[64] = {0};
    assert_int_equal(crc32c(0, data, 32), 0x8A9136AA); /* RFC 3720 B.4 */
    memset(data, 0xFF, 32);
    assert_int_equal(crc32c(0, data, 32), 0x62A8AB43);
    assert_int_equal(crc32c(0, "123456789", 9), 0xE3069283);
    struct prng p = prng_init(1);
    uint8_t big[1000];
    for (size_t i = 0; i < sizeof big; i++) {
        big[i] = (uint8_t)prng_next(&p);
    }
    for (int i = 0; i < 200; i++) {
        size_t from = prng_below(&p, 500), size = prng_below(&p, 500),
               cut = prng_below(&p, size + 1);
        uint32_t whole = crc32c(0, big + from, size);
        assert_int_equal(whole, crc32c_portable(0, big + from, size));
        assert_int_equal(whole, crc32c(crc32c(0, big + from, cut), big + from + cut, size - cut));
    }
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = load_u64(a), y = load_u64(b);
    return x < y ? -1 : x > y;
}

static void test_histogram(void **state)
{
    (void)state;
    static uint64_t values[10000];
    struct histogram *h = malloc(sizeof *h), *half = malloc(sizeof *half);
    histogram_init(h);
    histogram_init(half);
    assert_int_equal(histogram_quantile(h, 0.5), 0);
    struct prng p = prng_init(7);
    for (size_t i = 0; i < ARRAY_COUNT(values); i++) {
        values[i] = prng_next(&p) >> prng_below(&p, 63);
        histogram_add(i % 2 == 0 ? h : half, values[i]);
    }
    histogram_merge(h, half);
    qsort(values, ARRAY_COUNT(values), sizeof values[0], compare_u64);
    assert_int_equal(h->count, ARRAY_COUNT(values));
    for (unsigned q = 0; q <= 100; q++) {
        size_t rank = q * ARRAY_COUNT(values) / 100;
        rank = rank == ARRAY_COUNT(values) ? rank - 1 : rank;
        uint64_t got = histogram_quantile(h, (double)q / 100), exact = values[rank];
        assert_true(got >= exact);
        assert_true(got - exact <= exact / 32);
    }
    assert_int_equal(histogram_count_below(h, UINT64_MAX), h->count);
    free(h);
    free(half);
}

static void test_bytes(void **state)
{
    (void)state;
    uint8_t buffer[32];
    struct writer w = writer_init(buffer, sizeof buffer);
    writer_u8(&w, 1);
    writer_u16(&w, 0x0203);
    writer_u32(&w, 0x04050607);
    writer_u64(&w, 0x08090A0B0C0D0E0F);
    writer_str8(&w, STR_LITERAL("abc"));
    assert_false(w.failed);
    assert_int_equal(writer_size(&w), 19);
    for (size_t cut = 0; cut <= 19; cut++) {
        struct reader r = reader_init(buffer, cut);
        uint64_t a = reader_u8(&r), b = reader_u16(&r), c = reader_u32(&r), d = reader_u64(&r);
        struct str s = reader_str8(&r);
        assert_int_equal(r.failed, cut < 19);
        if (cut == 19) {
            assert_int_equal(a + b + c, 1 + 0x0203 + 0x04050607);
            assert_int_equal(d, 0x08090A0B0C0D0E0F);
            assert_true(str_equal(s, STR_LITERAL("abc")));
        }
    }
    struct writer full = writer_init(buffer, 3);
    writer_u32(&full, 1);
    assert_true(full.failed);
}

static void test_text_and_metrics(void **state)
{
    (void)state;
    struct text t = TEXT_INIT;
    assert_string_equal(text_cstring(&t), "");
    metrics_family(&t, "holdfast_x_total", "counter", "Help.");
    metrics_sample_u64(&t, "holdfast_x_total", "result=\"ok\"", UINT64_MAX);
    assert_string_equal(text_cstring(&t),
                        "# HELP holdfast_x_total Help.\n# TYPE holdfast_x_total counter\n"
                        "holdfast_x_total{result=\"ok\"} 18446744073709551615\n");
    char label[8];
    metrics_escape_label(STR_LITERAL("a\"b\\c\nd"), label, sizeof label);
    assert_string_equal(label, "a\\\"b\\\\"); /* cut at a whole escape */
    text_clear(&t);
    for (int i = 0; i < 1000; i++) {
        text_appendf(&t, "%d,", i);
    }
    assert_int_equal(t.len, 3890);
    text_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_identifier),
        cmocka_unit_test(test_rfc3339),
        cmocka_unit_test(test_crc32c),
        cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_text_and_metrics),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
