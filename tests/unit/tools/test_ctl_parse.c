/* The parser of holdfastctl: every way a command line can be wrong is refused with a message that
 * names the next command to try, and nothing is guessed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "base/check.h"
#include "tools/ctl/parse.h"

#define WORDS_MAX 16

static const char *const no_environment[] = {NULL};
static const char *const *environment_now = no_environment;

static const char *environment(const char *name)
{
    for (size_t i = 0; environment_now[i] != NULL; i += 2) {
        if (strcmp(environment_now[i], name) == 0) {
            return environment_now[i + 1];
        }
    }
    return NULL;
}

/* Splits at spaces ("_" stands for a space within a word) and parses. */
static enum parse_result parse(const char *line, struct ctl_arguments *a, struct parse_outcome *o)
{
    static char buffer[1024];
    char *argv[WORDS_MAX + 1] = {"holdfastctl"};
    int argc = 1;
    CHECK(str_copy(buffer, sizeof buffer, str_from(line)));
    char *rest = buffer;
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        if (word[0] != '\0') {
            CHECK(argc < WORDS_MAX);
            argv[argc++] = word;
        }
    }
    return parse_command_line(argc, argv, environment, a, o);
}

static void close_outcome(struct parse_outcome *o)
{
    text_close(&o->topic);
    text_close(&o->message);
}

static void refused(const char *line, const char *part)
{
    struct ctl_arguments a;
    struct parse_outcome o;
    enum parse_result rv = parse(line, &a, &o);
    const char *message = text_cstring(&o.message);
    if (rv != PARSE_INVALID || strstr(message, part) == NULL ||
        strstr(message, "try: holdfastctl") == NULL) {
        fail_msg("'%s' gave %d and: %s(wanted: %s)", line, (int)rv, message, part);
    }
    close_outcome(&o);
}

static void accepted(const char *line, struct ctl_arguments *a)
{
    struct parse_outcome o;
    enum parse_result rv = parse(line, a, &o);
    if (rv != PARSE_OK) {
        fail_msg("'%s' gave %d and: %s", line, (int)rv, text_cstring(&o.message));
    }
    close_outcome(&o);
}

static void help(const char *line, const char *topic)
{
    struct ctl_arguments a;
    struct parse_outcome o;
    assert_int_equal(parse(line, &a, &o), PARSE_HELP);
    assert_string_equal(text_cstring(&o.topic), topic);
    close_outcome(&o);
}

static void wrong_command_lines(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "which command?"},
        {"sael list", "did you mean 'sale'?"},
        {"sale", "which command of 'sale'?"},
        {"sale ptu x", "did you mean 'sale put'?"},
        {"sale nothing-like-it", "unknown command 'sale nothing-like-it'"},
        {"--endpoints x status", "options come after the command"},
        {"help nonsense", "no help on 'nonsense'"},
        {"sku get", "needs SKU"},
        {"sku get a b", "one word too many"},
        {"sku get a/b", "must be 1 to 64"},
        {"sku get --", "needs SKU"},
        {"sku list --limit", "needs its N"},
        {"sku list --limit 0", "out of range"},
        {"sku list --limit=x", "whole number"},
        {"sku list --limit 99999999999999999999", "whole number"},
        {"sku list --limit 1 --limit 2", "given twice"},
        {"sku list --limti 1", "did you mean --limit?"},
        {"sku list -x", "unknown option '-x'"},
        {"sku list -o yaml", "must be one of table|json|plain"},
        {"sku list -o tab", "must be one of"},
        {"sku list --all=maybe", "must be true or false"},
        {"sku list --consistency weak", "strong|local"},
        {"sku adjust a five", "must be a whole number"},
        {"sku adjust a 9999999999999999999", "must be a whole number"},
        {"order get 123", "must be an order id"},
        {"order get 00000G0008U41", "must be an order id"},
        {"order place s --line a", "needs --user"},
        {"order place s --user u", "needs --line"},
        {"order list --status done", "pending_payment|paid"},
        {"sale put s --opens tomorrow", "must be a time"},
        {"sale put s --opens +10", "must be a time"},
        {"sale put s --payment-timeout 0s", "out of range"},
        {"sale put s --payment-timeout 10", "must be a duration"},
        {"sale put s --orders-per-user 0", "out of range"},
        {"lease acquire l --owner o --ttl 9000d", "out of range"},
        {"lease renew l --owner o", "needs --token"},
        {"status --timeout 0ms", "out of range"},
        {"node drain 0", "out of range"},
        {"node drain x", "whole number"},
        {"completion tcsh", "bash|zsh|fish"},
        {"demo up --nodes 10", "out of range"},
        {"version --idempotency-key k", "unknown option"},
        {"sku list --idempotency-key k", "unknown option"},
        {"sku put a --idempotency-key a/b", "must be 1 to 128"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        refused(cases[i][0], cases[i][1]);
    }
}

static void what_is_not_utf8_is_refused(void **state)
{
    (void)state;
    refused("sku put a --title \xff\xfe", "must be UTF-8");
}

static void values_arrive(void **state)
{
    (void)state;
    struct ctl_arguments a;
    accepted("sku adjust phone-x -5 --reason=damaged -o json", &a);
    assert_string_equal(a.command->path, "sku adjust");
    assert_string_equal(ctl_text(&a, "SKU"), "phone-x");
    assert_int_equal(ctl_value(&a, "DELTA")->i64, -5);
    assert_string_equal(ctl_text(&a, "reason"), "damaged");
    assert_string_equal(ctl_text(&a, "output"), "json");
    assert_false(ctl_given(&a, "idempotency-key"));

    accepted("order place s --line a=2 --user u --line b", &a);
    assert_int_equal(ctl_value(&a, "line")->items_count, 2);
    assert_string_equal(ctl_value(&a, "line")->items[0], "a=2");
    assert_string_equal(ctl_value(&a, "line")->items[1], "b");

    accepted("sku list --all", &a);
    assert_true(ctl_given(&a, "all"));
    assert_int_equal(ctl_value(&a, "limit")->u64, 100);

    accepted("denylist add u --until +30d", &a);
    assert_true(ctl_value(&a, "until")->relative);
    assert_int_equal(ctl_value(&a, "until")->i64, 30ll * 86400000);

    accepted("sku get -- -dash", &a);
    assert_string_equal(ctl_text(&a, "SKU"), "-dash");
}

static void repeated_options_have_a_limit(void **state)
{
    (void)state;
    char *argv[3 + 2 * (CTL_ITEMS_MAX + 1)] = {"holdfastctl", "sale", "put"};
    int argc = 3;
    argv[argc++] = "s";
    for (int i = 0; i < CTL_ITEMS_MAX; i++) {
        argv[argc++] = "--offer=a=1";
    }
    struct ctl_arguments a;
    struct parse_outcome o;
    assert_int_equal(parse_command_line(argc, argv, environment, &a, &o), PARSE_OK);
    close_outcome(&o);
    argv[argc++] = "--offer=a=1";
    assert_int_equal(parse_command_line(argc, argv, environment, &a, &o), PARSE_INVALID);
    assert_non_null(strstr(text_cstring(&o.message), "too often"));
    close_outcome(&o);
}

static void flags_win_over_the_environment(void **state)
{
    (void)state;
    static const char *const given[] = {
        "HOLDFAST_ENDPOINTS", "10.0.0.1:1", "HOLDFAST_TIMEOUT", "3s", "HOLDFAST_OUTPUT", "", NULL};
    struct ctl_arguments a;
    environment_now = given;
    accepted("status --endpoints 10.0.0.2:2", &a);
    assert_string_equal(ctl_text(&a, "endpoints"), "10.0.0.2:2");
    assert_int_equal(ctl_value(&a, "timeout")->u64, 3000);
    assert_string_equal(ctl_text(&a, "output"), "table"); /* an empty variable is not given */
    assert_false(ctl_value(&a, "timeout")->explicit);

    static const char *const bad[] = {"HOLDFAST_TIMEOUT", "soon", NULL};
    environment_now = bad;
    refused("status", "in the environment for");
    environment_now = no_environment;
}

static void help_has_a_topic(void **state)
{
    (void)state;
    help("--help", "");
    help("-h", "");
    help("help", "");
    help("help sale", "sale");
    help("help sale put", "sale put");
    help("sale --help", "sale");
    help("sale put --help", "sale put");
    help("sale put x --opens nonsense-comes-later --help", "sale put");
}

static void times_and_durations(void **state)
{
    (void)state;
    uint64_t ms;
    int64_t at;
    bool relative;
    assert_int_equal(parse_duration("250ms", &ms), 0);
    assert_int_equal(ms, 250);
    assert_int_equal(parse_duration("2h", &ms), 0);
    assert_int_equal(ms, 7200000);
    static const char *const bad[] = {"",    "ms", "5",     "-5s",
                                      "5 s", "5w", "1h30m", "99999999999999999d"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_int_equal(parse_duration(bad[i], &ms), -1);
    }
    assert_int_equal(parse_time("2026-11-11T20:00:00Z", &at, &relative), 0);
    assert_false(relative);
    assert_int_equal(at, 1794427200000);
    assert_int_equal(parse_time("now", &at, &relative), 0);
    assert_true(relative);
    assert_int_equal(at, 0);
    assert_int_equal(parse_time("-5m", &at, &relative), 0);
    assert_int_equal(at, -300000);
    static const char *const wrong[] = {"", "+", "+5", "nowish", "2026-11-11", "+99999999999d"};
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        assert_int_equal(parse_time(wrong[i], &at, &relative), -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_command_lines),
        cmocka_unit_test(what_is_not_utf8_is_refused),
        cmocka_unit_test(values_arrive),
        cmocka_unit_test(repeated_options_have_a_limit),
        cmocka_unit_test(flags_win_over_the_environment),
        cmocka_unit_test(help_has_a_topic),
        cmocka_unit_test(times_and_durations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
