/* Unit tests of webhook_verify, with the example of the Standard Webhooks specification. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sodium.h>
#include <stdio.h>

#include "base/check.h"
#include "gateway/webhook_verify.h"

#define SECRET "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define OTHER  "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define ID     "msg_p5jXN8AQM9LWM0D4loKWxJek"
#define TIME   "1614265330"
#define BODY   "{\"test\": 2432232314}"
#define GOOD   "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
#define NOW    1614265330

static void test_verify(void **state)
{
    static const struct {
        const char *secrets, *id, *timestamp, *signature, *body;
        int64_t now;
        enum webhook_result result;
    } cases[] = {
        {SECRET, ID, TIME, GOOD, BODY, NOW, WEBHOOK_OK},
        {OTHER "\n" SECRET "\n", ID, TIME, GOOD, BODY, NOW, WEBHOOK_OK}, /* rotation */
        {SECRET, ID, TIME, "v1a,xxxx " GOOD, BODY, NOW, WEBHOOK_OK},
        {SECRET, ID, TIME, "v1,AAAA " GOOD " v1,BBBB", BODY, NOW, WEBHOOK_OK},
        {SECRET, ID, TIME, GOOD, BODY, NOW + 300, WEBHOOK_OK},
        {SECRET, ID, TIME, GOOD, BODY, NOW - 300, WEBHOOK_OK},
        {SECRET, ID, TIME, GOOD, BODY, NOW + 301, WEBHOOK_STALE_TIMESTAMP},
        {SECRET, ID, TIME, GOOD, BODY, NOW - 301, WEBHOOK_STALE_TIMESTAMP},
        {OTHER, ID, TIME, GOOD, BODY, NOW, WEBHOOK_BAD_SIGNATURE},
        {SECRET, ID "x", TIME, GOOD, BODY, NOW, WEBHOOK_BAD_SIGNATURE},
        {SECRET, ID, "1614265331", GOOD, BODY, NOW, WEBHOOK_BAD_SIGNATURE},
        {SECRET, ID, TIME, GOOD, BODY " ", NOW, WEBHOOK_BAD_SIGNATURE},
        {SECRET, ID, TIME, "v1,h0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", BODY, NOW,
         WEBHOOK_BAD_SIGNATURE},
        {SECRET, ID, TIME, "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", BODY, NOW,
         WEBHOOK_BAD_SIGNATURE},
        {SECRET, ID, TIME, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", BODY, NOW,
         WEBHOOK_BAD_SIGNATURE},
        {SECRET, ID, TIME, "v1,", BODY, NOW, WEBHOOK_BAD_SIGNATURE},
        {SECRET, ID, TIME, "", BODY, NOW, WEBHOOK_BAD_SIGNATURE},
        {SECRET, NULL, TIME, GOOD, BODY, NOW, WEBHOOK_MALFORMED},
        {SECRET, ID, NULL, GOOD, BODY, NOW, WEBHOOK_MALFORMED},
        {SECRET, ID, TIME, NULL, BODY, NOW, WEBHOOK_MALFORMED},
        {SECRET, ID, "16142653300000", GOOD, BODY, NOW, WEBHOOK_MALFORMED},
        {SECRET, ID, "-1", GOOD, BODY, NOW, WEBHOOK_MALFORMED},
        {SECRET, "a b", TIME, GOOD, BODY, NOW, WEBHOOK_MALFORMED},
        {"", ID, TIME, GOOD, BODY, NOW, WEBHOOK_BAD_SIGNATURE}, /* no secret: nothing is good */
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct webhook_secrets s = {.count = 0};
        struct str fields[3] = {{cases[i].id, 0}, {cases[i].timestamp, 0}, {cases[i].signature, 0}};
        for (int f = 0; f < 3; f++) {
            fields[f].len = fields[f].ptr != NULL ? (uint32_t)strlen(fields[f].ptr) : 0;
        }
        if (cases[i].secrets[0] != '\0') {
            assert_int_equal(webhook_secrets_parse(&s, str_from(cases[i].secrets)), 0);
        }
        enum webhook_result r = webhook_verify(&s, fields[0], fields[1], fields[2],
                                               str_from(cases[i].body), cases[i].now);
        if (r != cases[i].result) {
            fail_msg("case %zu: %d", i, r);
        }
    }
}

static void test_secrets(void **state)
{
    static const struct {
        const char *text;
        int count; /* -1: refused */
    } cases[] = {
        {SECRET, 1},
        {"# old\n" SECRET "\r\n\n" OTHER "\n", 2},
        {"", -1},
        {"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", -1},
        {"whsec_", -1},
        {"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2Lasw==", -1}, /* 23 bytes and a cut */
        {"whsec_AAAA", -1},
        {"whsec_!!!!", -1},
        {SECRET "\n" SECRET "\n" SECRET "\n" SECRET "\n" SECRET, -1},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct webhook_secrets s;
        int result = webhook_secrets_parse(&s, str_from(cases[i].text));
        if ((result == 0 ? (int)s.count : -1) != cases[i].count) {
            fail_msg("case %zu: %d", i, result);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verify),
        cmocka_unit_test(test_secrets),
    };
    CHECK(sodium_init() >= 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
