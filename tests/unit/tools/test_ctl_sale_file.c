/* A sale's definition in JSON is read strictly: what is wrong is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/check.h"
#include "tools/ctl/sale_file.h"

static void refused(const char *json, const char *part)
{
    struct text wrong = TEXT_INIT;
    struct command_sale sale = {.offers_count = 0};
    bool has_offers;
    json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    int rv = sale_file_read(root, &sale, &has_offers, &wrong);
    if (rv != -1 || strstr(text_cstring(&wrong), part) == NULL) {
        fail_msg("%s gave %d: %s (wanted: %s)", json, rv, text_cstring(&wrong), part);
    }
    text_close(&wrong);
    json_decref(root);
}

static void a_whole_definition(void **state)
{
    (void)state;
    struct text wrong = TEXT_INIT;
    struct command_sale sale = {.strikes_max = 7};
    bool has_offers;
    json_t *root = json_loads(
        "{\"title\": \"Launch\", \"currency\": \"EUR\", \"opens_at\": \"2026-11-11T20:00:00Z\","
        " \"closes_at\": \"2026-11-11T22:00:00.500+01:00\", \"payment_timeout_ms\": 60000,"
        " \"late_payment\": \"accept_if_available\", \"eligibility_required\": true,"
        " \"orders_per_user_max\": 2, \"eligibility_ratio_permille\": 1500,"
        " \"offers\": [{\"sku\": \"a\", \"unit_price\": 0}, {\"sku\": \"b\", \"unit_price\": 100,"
        " \"units_per_order_max\": 3, \"oversell_allowance\": 4}]}",
        JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    assert_int_equal(sale_file_read(root, &sale, &has_offers, &wrong), 0);
    assert_true(has_offers);
    assert_true(str_equal(sale.title, STR_LITERAL("Launch")));
    assert_string_equal(sale.currency, "EUR");
    assert_int_equal(sale.opens_ms, 1794427200000);
    assert_int_equal(sale.closes_ms, 1794430800500);
    assert_int_equal(sale.payment_timeout_ms, 60000);
    assert_int_equal(sale.late_payment, LATE_PAYMENT_ACCEPT_IF_AVAILABLE);
    assert_true(sale.eligibility_required);
    assert_int_equal(sale.orders_per_user_max, 2);
    assert_int_equal(sale.eligibility_ratio_permille, 1500);
    assert_int_equal(sale.strikes_max, 7); /* not given: left alone */
    assert_int_equal(sale.offers_count, 2);
    assert_int_equal(sale.offers[0].units_per_order_max, QUANTITY_MAX);
    assert_int_equal(sale.offers[1].units_per_order_max, 3);
    assert_int_equal(sale.offers[1].oversell_allowance, 4);
    text_close(&wrong);
    json_decref(root);
}

static void what_is_wrong_has_a_name(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"colour\": 1}", "unknown field colour"},
        {"{\"title\": 1}", "title must be"},
        {"{\"currency\": \"eur\"}", "currency must be"},
        {"{\"currency\": \"EURO\"}", "currency must be"},
        {"{\"opens_at\": \"+10s\"}", "opens_at must be an RFC 3339 time"},
        {"{\"opens_at\": 5}", "opens_at must be"},
        {"{\"payment_timeout_ms\": 0}", "payment_timeout_ms must be a whole number from 1"},
        {"{\"payment_timeout_ms\": 1.5}", "payment_timeout_ms must be"},
        {"{\"orders_per_user_max\": 4294967296}", "orders_per_user_max must be"},
        {"{\"orders_per_user_max\": -1}", "orders_per_user_max must be"},
        {"{\"eligibility_required\": 1}", "eligibility_required must be true or false"},
        {"{\"late_payment\": \"maybe\"}", "late_payment must be refund"},
        {"{\"offers\": {}}", "offers must be an array"},
        {"{\"offers\": []}", "offers must be an array"},
        {"{\"offers\": [1]}", "offers[0] must be an object"},
        {"{\"offers\": [{\"sku\": \"a\"}]}", "offers[0] needs sku and unit_price"},
        {"{\"offers\": [{\"sku\": \"a b\", \"unit_price\": 1}]}", "offers[0]: sku must be"},
        {"{\"offers\": [{\"sku\": \"a\", \"unit_price\": -1}]}", "offers[0]: unit_price must be"},
        {"{\"offers\": [{\"sku\": \"a\", \"unit_price\": 1, \"price\": 1}]}",
         "unknown field price"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        refused(cases[i][0], cases[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_definition),
        cmocka_unit_test(what_is_wrong_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
