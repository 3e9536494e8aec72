/* Unit tests of json_write and json_read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "base/check.h"
#include "gateway/json_read.h"
#include "gateway/json_write.h"
#include "proto/limits.h"

static void expect_text(struct out *o, const char *expected)
{
    assert_int_equal(o->size, strlen(expected));
    assert_memory_equal(o->data, expected, o->size);
}

static void test_write(void **state)
{
    char memory[4]; /* so small that everything has to grow */
    struct out o;
    (void)state;
    out_init(&o, memory, sizeof memory);
    struct json_writer w = json_writer_init(&o);
    json_object_begin(&w);
    json_put(&w, "a", int, INT64_MIN);
    json_put(&w, "b", uint, UINT64_MAX);
    json_put(&w, "c", bool, true);
    json_key(&w, STR_LITERAL("d"));
    json_array_begin(&w);
    json_object_begin(&w);
    json_object_end(&w);
    json_int(&w, 0);
    json_array_end(&w);
    json_put(&w, "e", time, 1795363200123);
    json_put(&w, "f", time, 1795363200000);
    json_put(&w, "g", order_id, 1);
    json_object_end(&w);
    expect_text(&o,
                "{\"a\":-9223372036854775808,\"b\":18446744073709551615,\"c\":true,\"d\":[{},0],"
                "\"e\":\"2026-11-22T16:00:00.123Z\",\"f\":\"2026-11-22T16:00:00.000Z\","
                "\"g\":\"0000000000001\"}");
    out_close(&o);
}

static void test_write_text(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain", "\"plain\""},
        {"quote \" back \\ line \n tab \t", "\"quote \\\" back \\\\ line \\n tab \\u0009\""},
        {"\x7F", "\"\\u007f\""},
        {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\""},
        {"bad \xFF\xC3", "\"bad \xEF\xBF\xBD\xEF\xBF\xBD\""},
        {"\xED\xA0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""}, /* a surrogate */
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char memory[256];
        struct out o;
        out_init(&o, memory, sizeof memory);
        struct json_writer w = json_writer_init(&o);
        json_text(&w, str_from(cases[i].in));
        expect_text(&o, cases[i].out);
        out_close(&o);
    }
}

/* Reads one of every kind. */
static void read_all(const char *body, struct json_fault *fault)
{
    static const char *const words[] = {"red", "blue"};
    json_t *root;
    struct json_fields f;
    struct str s;
    int64_t n;
    bool b;
    size_t word;
    char currency[4];
    uint64_t order;
    json_read_body(str_from(body), &root, &f, fault);
    json_read_id(&f, "id", true, &s);
    json_read_text(&f, "text", false, 5, &s);
    json_read_int(&f, "int", false, -3, 7, &n);
    json_read_bool(&f, "bool", false, &b);
    json_read_time(&f, "time", false, &n);
    json_read_word(&f, "word", false, words, ARRAY_COUNT(words), &word);
    if (json_object_get(f.object, "currency") != NULL) {
        json_read_currency(&f, "currency", currency);
    }
    if (json_object_get(f.object, "order") != NULL) {
        json_read_order_id(&f, "order", &order);
    }
    if (json_object_get(f.object, "list") != NULL) {
        json_t *list = json_read_objects(&f, "list", 1, 2);
        for (size_t i = 0; list != NULL && i < json_array_size(list); i++) {
            struct json_fields e = json_read_element(&f, "list", list, i);
            json_read_int(&e, "x", true, 0, 1, &n);
            json_read_end(&e);
        }
    }
    json_read_end(&f);
    json_decref(root);
}

static void test_read(void **state)
{
    static const struct {
        const char *body;
        const char *field; /* NULL: good */
    } cases[] = {
        {"{\"id\":\"a\"}", NULL},
        {"{\"id\":\"a\",\"text\":\"\\u00e9xyz\",\"int\":7,\"bool\":false,\"time\":\"2026-01-01T00:"
         "00:00Z\","
         "\"word\":\"blue\",\"currency\":\"EUR\",\"order\":\"0000000000001\",\"list\":[{\"x\":1}]}",
         NULL},
        {"", ""},
        {"{", ""},
        {"[]", ""},
        {"1", ""},
        {"null", ""},
        {"{\"id\":\"a\"} x", ""},
        {"{\"id\":\"a\",}", ""},
        {"{'id':'a'}", ""},
        {"{\"id\":\"a\",\"id\":\"a\"}", ""}, /* a duplicate */
        {"{\"id\":\"\xFF\"}", ""},           /* bad UTF-8 */
        {"{\"id\":\"\xED\xA0\x80\"}", ""},   /* a surrogate */
        {"{\"id\":\"a\\u0000b\"}", ""},      /* NUL */
        {"{\"id\":\"a\",\"int\":99999999999999999999}", ""},
        {"{\"id\":\"a\",\"int\":1e999}", ""},
        {"{}", "/id"},
        {"{\"id\":null}", "/id"},
        {"{\"id\":7}", "/id"},
        {"{\"id\":\"\"}", "/id"},
        {"{\"id\":\"a b\"}", "/id"},
        {"{\"id\":\"\\u00e9\"}", "/id"},
        {"{\"id\":\"a\",\"text\":\"123456\"}", "/text"},
        {"{\"id\":\"a\",\"text\":[]}", "/text"},
        {"{\"id\":\"a\",\"int\":8}", "/int"},
        {"{\"id\":\"a\",\"int\":-4}", "/int"},
        {"{\"id\":\"a\",\"int\":1.0}", "/int"},
        {"{\"id\":\"a\",\"int\":\"1\"}", "/int"},
        {"{\"id\":\"a\",\"int\":true}", "/int"},
        {"{\"id\":\"a\",\"bool\":0}", "/bool"},
        {"{\"id\":\"a\",\"time\":\"today\"}", "/time"},
        {"{\"id\":\"a\",\"time\":0}", "/time"},
        {"{\"id\":\"a\",\"word\":\"green\"}", "/word"},
        {"{\"id\":\"a\",\"currency\":\"eur\"}", "/currency"},
        {"{\"id\":\"a\",\"currency\":\"EURO\"}", "/currency"},
        {"{\"id\":\"a\",\"order\":\"1\"}", "/order"},
        {"{\"id\":\"a\",\"order\":\"000000000000U\"}", "/order"},
        {"{\"id\":\"a\",\"list\":{}}", "/list"},
        {"{\"id\":\"a\",\"list\":[]}", "/list"},
        {"{\"id\":\"a\",\"list\":[{\"x\":1},{\"x\":1},{\"x\":1}]}", "/list"},
        {"{\"id\":\"a\",\"list\":[{\"x\":1},7]}", "/list/1"},
        {"{\"id\":\"a\",\"list\":[{\"x\":1},{\"x\":2}]}", "/list/1/x"},
        {"{\"id\":\"a\",\"list\":[{\"x\":1,\"y\":1}]}", "/list/0/y"},
        {"{\"id\":\"a\",\"other\":1}", "/other"},
        {"{\"id\":\"a\",\"a/b~c\":1}", "/a~1b~0c"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct json_fault fault;
        read_all(cases[i].body, &fault);
        if (fault.set != (cases[i].field != NULL) ||
            (fault.set && strcmp(fault.field, cases[i].field) != 0)) {
            fail_msg("%s: %d %s %s", cases[i].body, fault.set, fault.field, fault.detail);
        }
    }
}

static void test_long_field_name(void **state)
{
    char body[400], name[300];
    struct json_fault fault;
    (void)state;
    memset(name, '/', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(body, sizeof body, "{\"id\":\"a\",\"%s\":1}", name);
    read_all(body, &fault);
    assert_true(fault.set);
    assert_true(strlen(fault.field) < sizeof fault.field);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_write_text),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_long_field_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
