/* The plain reader of order bodies against jansson: what it accepts, jansson accepts as the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/prng.h"
#include "gateway/json_order.h"

static const char *const seeds[] = {
    "{\"sale_id\":\"s1\",\"lines\":[{\"sku\":\"A\",\"quantity\":1}]}",
    ("{\"user_id\":\"u-7@x\",\"sale_id\":\"s1\","
     "\"lines\":[{\"quantity\":3,\"sku\":\"B\"},{\"sku\":\"A\",\"quantity\":2}]}"),
    " { \"lines\" : [ { \"quantity\" : 1000000 , \"sku\" : \"A\" } ] , \"sale_id\" : \"s\" } \r\n",
    "{\"sale_id\":\"s1\",\"lines\":[{\"sku\":\"A\",\"quantity\":1.0}]}",
    "{\"sale_id\":\"s1\",\"lines\":[{\"sku\":\"A\",\"quantity\":1e1}]}",
    "{\"sale_id\":\"s1\",\"lines\":[{\"sku\":\"A\",\"quantity\":-1}]}",
    "{\"sale_id\":\"s1\",\"lines\":[{\"sku\":\"A\",\"quantity\":01}]}",
    "{\"sale_id\":\"s1\",\"sale_id\":\"s1\",\"lines\":[{\"sku\":\"A\",\"quantity\":1}]}",
    "{\"sale_id\":\"s1\",\"lines\":[{\"sku\":\"A\",\"quantity\":1,\"sku\":\"A\"}]}",
    "{\"sale_id\":\"s\\u0031\",\"lines\":[{\"sku\":\"A\",\"quantity\":1}]}",
    "{\"sale_id\":\"s1\",\"lines\":[]}",
    "{\"sale_id\":\"s1\",\"lines\":[{\"sku\":\"A\",\"quantity\":1}],\"user_id\":null}",
    "{\"sale_id\":\"s1\",\"lines\":[{\"sku\":\"A\",\"quantity\":1},]}",
};

/* Compares the two on one body; returns whether the plain reader took it. */
static bool compare(const char *body, size_t size)
{
    struct order_body plain, full;
    struct json_fault fault;
    json_t *root;
    struct str s = {body, (uint32_t)size};
    if (!json_order_read_plain(s, &plain)) {
        return false;
    }
    if (!json_order_read(s, &root, &full, &fault)) {
        fail_msg("taken by the plain reader only (%s): %.*s", fault.detail, (int)size, body);
    }
    assert_true(str_equal(plain.sale, full.sale));
    assert_true(str_equal(plain.user, full.user));
    assert_int_equal(plain.lines_count, full.lines_count);
    for (uint32_t i = 0; i < plain.lines_count; i++) {
        assert_true(str_equal(plain.lines[i].sku, full.lines[i].sku));
        assert_int_equal(plain.lines[i].quantity, full.lines[i].quantity);
    }
    json_decref(root);
    return true;
}

static void test_usual_bodies_are_plain(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        assert_true(compare(seeds[i], strlen(seeds[i])));
    }
    for (size_t i = 3; i < ARRAY_COUNT(seeds); i++) {
        assert_false(compare(seeds[i], strlen(seeds[i])));
    }
}

static void test_lines_limit(void **state)
{
    char body[2048] = "{\"sale_id\":\"s\",\"lines\":[";
    struct order_body order;
    struct json_fault fault;
    json_t *root;
    (void)state;
    for (int i = 0; i < ORDER_LINES_MAX; i++) {
        strcat(body, i > 0 ? ",{\"sku\":\"A\",\"quantity\":1}" : "{\"sku\":\"A\",\"quantity\":1}");
    }
    size_t end = strlen(body);
    strcat(body, "]}");
    assert_true(compare(body, strlen(body)));
    strcpy(body + end, ",{\"sku\":\"A\",\"quantity\":1}]}");
    assert_false(compare(body, strlen(body)));
    assert_false(json_order_read(str_from(body), &root, &order, &fault));
    assert_string_equal(fault.field, "/lines");
    json_decref(root);
}

/* Mutations that keep bodies nearly well-formed: those are where two readers differ. */
static size_t mutate(struct prng *p, char *body, size_t size, size_t capacity)
{
    static const char *const pieces[] = {"\"",
                                         ",",
                                         ":",
                                         "{",
                                         "}",
                                         "[",
                                         "]",
                                         " ",
                                         "\\",
                                         "\\u0041",
                                         "0",
                                         "1",
                                         "9",
                                         "-",
                                         ".",
                                         "e",
                                         "\xC3\xA9",
                                         "\x7F",
                                         "\x01",
                                         "null",
                                         "true",
                                         "\"sku\"",
                                         "\"quantity\"",
                                         "\"lines\"",
                                         "\"user_id\":\"u\",",
                                         "\"sale_id\":\"t\",",
                                         "/**/",
                                         "\n",
                                         "\t",
                                         "~",
                                         "|"};
    for (uint64_t n = prng_one_in(p, 4) ? 3 : 1; n > 0; n--) {
        size_t at = (size_t)prng_below(p, size + 1);
        const char *piece = pieces[prng_below(p, ARRAY_COUNT(pieces))];
        size_t len = strlen(piece);
        switch (prng_below(p, 3)) {
        case 0: /* insert */
            if (size + len < capacity) {
                memmove(body + at + len, body + at, size - at);
                memcpy(body + at, piece, len);
                size += len;
            }
            break;
        case 1: /* cut some out */
            if (at < size) {
                size_t cut = 1 + (size_t)prng_below(p, size - at < 6 ? size - at : 6);
                memmove(body + at, body + at + cut, size - at - cut);
                size -= cut;
            }
            break;
        default: /* overwrite */
            if (at + len <= size) {
                memcpy(body + at, piece, len);
            }
            break;
        }
    }
    return size;
}

static void test_mutations(void **state)
{
    struct prng p = prng_init(7);
    unsigned taken = 0;
    (void)state;
    for (int i = 0; i < 300000; i++) {
        const char *seed = seeds[prng_below(&p, prng_one_in(&p, 4) ? ARRAY_COUNT(seeds) : 3)];
        char buffer[512];
        size_t size = strlen(seed);
        memcpy(buffer, seed, size);
        size = mutate(&p, buffer, size, sizeof buffer);
        /* Exactly as large as it is, so that reading past it is seen by a sanitizer. */
        char *body = malloc(size > 0 ? size : 1);
        CHECK(body != NULL);
        memcpy(body, buffer, size);
        taken += compare(body, size);
        free(body);
    }
    print_message("%u of 300000 taken by the plain reader\n", taken);
    assert_true(taken > 5000); /* the comparison did happen */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usual_bodies_are_plain),
        cmocka_unit_test(test_lines_limit),
        cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
