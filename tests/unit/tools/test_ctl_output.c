/* The three ways to print, and that nothing from outside reaches a terminal as a control character.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tools/ctl/output.h"

static const struct output_column columns[] = {
    {"id", "SKU", CELL_TEXT},           {"units", "UNITS", CELL_NUMBER},
    {"timeout", "WAIT", CELL_DURATION}, {"ok", "VERDICT", CELL_VERDICT},
    {"lines", "LINES", CELL_LINES},
};

static json_t *records(void)
{
    return json_pack(
        "[{s:s, s:i, s:i, s:b, s:[{s:s, s:i}, {s:s, s:i}]}, {s:s, s:i, s:i, s:b, s:n}]", "id",
        "phöne", "units", 5, "timeout", 900000, "ok", 1, "lines", "sku", "a", "quantity", 2, "sku",
        "b", "quantity", 1, "id", "x\033[31m\t\xc2\x9b", "units", 12345, "timeout", 1500, "ok", 0,
        "lines");
}

static char *print(enum output_format format, bool color, bool single, json_t *value)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    struct output o = {format, color, f};
    if (single) {
        output_record(&o, columns, ARRAY_COUNT(columns), value);
    } else {
        output_list(&o, columns, ARRAY_COUNT(columns), value);
    }
    fclose(f);
    return text;
}

static void a_table_is_aligned(void **state)
{
    (void)state;
    char *text = print(OUTPUT_TABLE, false, false, records());
    assert_string_equal(text, "SKU              UNITS    WAIT  VERDICT  LINES\n"
                              "phöne                5     15m  ok       a=2 b=1\n"
                              "x\\x1b[31m\\t\\x9b  12345  1500ms  WRONG    -\n");
    free(text);
}

static void plain_is_one_line_a_record(void **state)
{
    (void)state;
    char *text = print(OUTPUT_PLAIN, true, false, records());
    assert_string_equal(
        text, "phöne\t5\t15m\tok\ta=2 b=1\nx\\x1b[31m\\t\\x9b\t12345\t1500ms\tWRONG\t-\n");
    free(text);
}

static void json_comes_back(void **state)
{
    (void)state;
    json_t *value = records();
    char *text = print(OUTPUT_JSON, true, false, json_incref(value));
    json_t *again = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_true(json_equal(value, again));
    assert_null(strchr(text, '\033'));
    json_decref(value);
    json_decref(again);
    free(text);
}

static void color_is_for_tables_only(void **state)
{
    (void)state;
    char *text = print(OUTPUT_TABLE, true, false, records());
    assert_non_null(strstr(text, "\033[32mok\033[0m"));
    assert_non_null(strstr(text, "\033[31mWRONG\033[0m"));
    assert_null(strstr(text, "x\033[31m")); /* not the one that came from outside */
    free(text);
}

static void one_record_is_a_list_of_titles(void **state)
{
    (void)state;
    char *text = print(OUTPUT_TABLE, false, true,
                       json_pack("{s:s, s:i, s:i, s:n, s:[]}", "id", "a", "units", 1, "timeout", 0,
                                 "ok", "lines"));
    assert_string_equal(text, "SKU      a\nUNITS    1\nWAIT     0ms\nVERDICT  -\nLINES    \n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_is_aligned),
        cmocka_unit_test(plain_is_one_line_a_record),
        cmocka_unit_test(json_comes_back),
        cmocka_unit_test(color_is_for_tables_only),
        cmocka_unit_test(one_record_is_a_list_of_titles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
