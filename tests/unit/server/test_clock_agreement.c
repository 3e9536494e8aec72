/* Unit tests of server/clock_agreement: tables of intervals, and what a majority of them says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/prng.h"
#include "server/clock_agreement.h"

struct row {
    const char *what;
    size_t count, needed;
    struct clock_interval sources[CLOCK_SOURCES_MAX];
    bool found;
    size_t agreeing;
    int64_t low, high, value;
};

static const struct row rows[] = {
    {"alone, and that is enough", 1, 1, {{-5, 5}}, true, 1, -5, 5, 0},
    {"nobody", 0, 1, {{0, 0}}, false, 0, 0, 0, 0},
    {"alone, and that is not enough", 1, 2, {{-5, 5}}, false, 0, 0, 0, 0},
    {"two that meet", 2, 2, {{-5, 5}, {0, 20}}, true, 2, 0, 5, 5},
    {"two that touch", 2, 2, {{-5, 5}, {5, 20}}, true, 2, 5, 5, 5},
    {"two that do not meet", 2, 2, {{-5, 5}, {6, 20}}, false, 0, 0, 0, 0},
    {"three of one mind", 3, 2, {{-5, 5}, {-4, 6}, {-7, 3}}, true, 3, -4, 3, 0},
    {"a falseticker ahead", 3, 2, {{-5, 5}, {-4, 6}, {3595, 3605}}, true, 2, -4, 5, 0},
    {"a falseticker behind", 3, 2, {{-3605, -3595}, {-4, 6}, {-5, 5}}, true, 2, -4, 5, 0},
    {"we are the falseticker",
     3,
     2,
     {{-5, 5}, {3595, 3605}, {3596, 3606}},
     true,
     2,
     3596,
     3605,
     3600},
    {"three of three minds", 3, 2, {{-5, 5}, {100, 110}, {-110, -100}}, false, 0, 0, 0, 0},
    {"a chain: nobody is to blame", 3, 2, {{0, 10}, {8, 18}, {16, 26}}, true, 3, 8, 18, 13},
    {"a chain in another order", 3, 2, {{16, 26}, {0, 10}, {8, 18}}, true, 3, 8, 18, 13},
    {"two of four are no majority",
     4,
     3,
     {{0, 10}, {1, 11}, {50, 60}, {51, 61}},
     false,
     0,
     0,
     0,
     0},
    {"three of five against two of one mind",
     5,
     3,
     {{0, 10}, {1, 11}, {2, 12}, {50, 60}, {50, 60}},
     true,
     3,
     2,
     10,
     6},
    {"two of five answer", 2, 3, {{0, 10}, {1, 11}}, false, 0, 0, 0, 0},
    {"the wide one says little", 3, 2, {{-1000, 1000}, {3, 5}, {4, 6}}, true, 3, 4, 5, 4},
    {"an asymmetric way: the truth is at an edge",
     3,
     2,
     {{0, 0}, {-1, 99}, {0, 80}},
     true,
     3,
     0,
     0,
     0},
    {"the liar meets two of three honest ones, the narrow one does not meet it",
     4,
     3,
     {{-2, 2}, {-60, 40}, {-70, 30}, {-130, -30}},
     true,
     4,
     -60,
     2,
     -15},
    {"and where it meets more than the narrow one does, that one is still not wrong",
     5,
     3,
     {{-2, 2}, {-60, 40}, {-70, 30}, {-130, -30}, {-120, -20}},
     true,
     5,
     -60,
     -30,
     -30},
    {"the median, not the mean",
     3,
     2,
     {{-300, 300}, {-300, 300}, {-100, 500}},
     true,
     3,
     -100,
     300,
     0},
};

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        struct clock_agreed a;
        clock_agree(r->sources, r->count, r->needed, &a);
        if (a.found != r->found ||
            (r->found && (a.count != r->agreeing || a.interval.low != r->low ||
                          a.interval.high != r->high || a.value != r->value))) {
            fail_msg("%s: found %d count %zu [%lld, %lld] value %lld", r->what, a.found, a.count,
                     (long long)a.interval.low, (long long)a.interval.high, (long long)a.value);
        }
        /* Who agrees is who was counted. */
        size_t meeting = 0;
        for (size_t k = 0; k < r->count; k++) {
            meeting += clock_agrees(&a, &r->sources[k]);
        }
        assert_int_equal(meeting, r->agreeing);
    }
}

/* Honest sources hold the truth, liars say anything: while liars are a minority, what is agreed
 * holds the truth or is held by an honest source, and no order of the sources matters. */
static void test_random(void **state)
{
    (void)state;
    struct prng prng = prng_init(16);
    for (int round = 0; round < 20000; round++) {
        struct clock_interval sources[CLOCK_SOURCES_MAX], turned[CLOCK_SOURCES_MAX];
        size_t count = 1 + (size_t)prng_below(&prng, CLOCK_SOURCES_MAX);
        size_t liars = (size_t)prng_below(&prng, (count + 1) / 2);
        int64_t truth = (int64_t)prng_below(&prng, 2000) - 1000, widest = 0;
        for (size_t i = 0; i < count; i++) {
            int64_t low = (int64_t)prng_below(&prng, 50), high = (int64_t)prng_below(&prng, 50);
            int64_t at = i < liars ? (int64_t)prng_below(&prng, 3000) - 1500 : truth;
            sources[i] = (struct clock_interval){at - low, at + high};
            widest = low + high > widest ? low + high : widest;
        }
        for (size_t i = 0; i < count; i++) {
            turned[i] = sources[(i + (size_t)round) % count];
        }
        struct clock_agreed a, b;
        clock_agree(sources, count, count / 2 + 1, &a);
        clock_agree(turned, count, count / 2 + 1, &b);
        assert_true(a.found); /* the honest ones alone are a majority */
        assert_int_equal(a.interval.low, b.interval.low);
        assert_int_equal(a.interval.high, b.interval.high);
        assert_int_equal(a.value, b.value);
        assert_in_range(a.value + 5000, a.interval.low + 5000, a.interval.high + 5000);
        for (size_t i = liars; i < count; i++) {
            assert_true(clock_agrees(&a, &sources[i])); /* never blamed */
        }
        /* A majority agrees on each end of it, so an honest source does: at most its width off. */
        assert_true(a.value >= truth - widest && a.value <= truth + widest);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests_name("clock-agreement", tests, NULL, NULL);
}
