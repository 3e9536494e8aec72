/* holdfast-bench's reader of responses, its verdicts, tallies and signatures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/check.h"
#include "tools/bench/target.h"

struct reply_case {
    const char *bytes;
    int result; /* 1: complete, 0: needs more, -1: malformed */
    unsigned status;
    const char *body;
};

static const struct reply_case reply_cases[] = {
    {"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}", 1, 201, "{}"},
    {"HTTP/1.1 200 \r\ncontent-length:0\r\nX: y\r\n\r\n", 1, 200, ""},
    {"HTTP/1.1 204 No Content\r\n\r\n", 1, 204, ""},
    {"HTTP/1.1 304\r\nContent-Length: 9\r\n\r\n", 1, 304, ""},
    {"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n{}", 0, 0, NULL},
    {"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n", 0, 0, NULL},
    {"", 0, 0, NULL},
    {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", -1, 0, NULL},
    {"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n", -1, 0, NULL},
    {"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n", -1, 0, NULL},
    {"HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n", -1, 0, NULL},
    {"HTTP/1.1 200 OK\r\n\r\n", -1, 0, NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", -1, 0, NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", -1, 0, NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", -1, 0, NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", -1, 0, NULL},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", -1, 0, NULL},
    {"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", -1, 0, NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n\r\n", -1, 0, NULL},
    {"HTTP/1.1 200 OK\r\n folded: 0\r\nContent-Length: 0\r\n\r\n", -1, 0, NULL},
    {"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n", -1, 0, NULL},
    {"garbage\r\n\r\n", -1, 0, NULL},
};

static int sign_of(long n)
{
    return n > 0 ? 1 : n < 0 ? -1 : 0;
}

static void test_reply_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(reply_cases); i++) {
        const struct reply_case *c = &reply_cases[i];
        struct http_reply r = {0};
        long size = http_reply_parse(&r, c->bytes, strlen(c->bytes));
        if (sign_of(size) != c->result) {
            fail_msg("case %zu: %ld, expected sign %d", i, size, c->result);
        }
        if (c->result == 1) {
            assert_int_equal(size, strlen(c->bytes));
            assert_int_equal(r.status, c->status);
            assert_true(str_equal(r.body, str_from(c->body)));
        }
    }
}

/* Byte by byte must come to the same end as all at once. */
static void test_reply_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(reply_cases); i++) {
        const struct reply_case *c = &reply_cases[i];
        struct http_reply r = {0};
        long size = 0;
        for (size_t n = 1; n <= strlen(c->bytes) && size == 0; n++) {
            size = http_reply_parse(&r, c->bytes, n);
        }
        assert_int_equal(sign_of(size), c->result);
    }
}

static void test_reply_headers(void **state)
{
    (void)state;
    const char *bytes =
        "HTTP/1.1 503 Service Unavailable\r\nRETRY-AFTER: 2\r\nConnection: close\r\n"
        "Holdfast-Log-Index: 9912\r\nIdempotency-Replayed: true\r\nContent-Length: 1\r\n"
        "\r\nxHTTP";
    struct http_reply r = {0};
    assert_int_equal(http_reply_parse(&r, bytes, strlen(bytes)), (long)strlen(bytes) - 4);
    assert_int_equal(r.retry_after_ms, 2000);
    assert_int_equal(r.log_index, 9912);
    assert_true(r.close);
    assert_true(r.replayed);
}

static void test_verdicts(void **state)
{
    (void)state;
    static const struct {
        enum http_failure failure;
        unsigned status;
        enum verdict verdict;
    } cases[] = {
        {HTTP_ANSWERED, 201, VERDICT_DONE},       {HTTP_ANSWERED, 200, VERDICT_DONE},
        {HTTP_ANSWERED, 409, VERDICT_REFUSED},    {HTTP_ANSWERED, 403, VERDICT_REFUSED},
        {HTTP_ANSWERED, 422, VERDICT_REFUSED},    {HTTP_ANSWERED, 429, VERDICT_TRY_AGAIN},
        {HTTP_ANSWERED, 503, VERDICT_TRY_AGAIN},  {HTTP_ANSWERED, 504, VERDICT_UNKNOWN},
        {HTTP_ANSWERED, 500, VERDICT_UNKNOWN},    {HTTP_ANSWERED, 408, VERDICT_UNKNOWN},
        {HTTP_UNREACHABLE, 0, VERDICT_TRY_AGAIN}, {HTTP_BROKEN, 0, VERDICT_UNKNOWN},
        {HTTP_TIMEOUT, 0, VERDICT_UNKNOWN},       {HTTP_MALFORMED, 0, VERDICT_UNKNOWN},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct http_reply r = {.status = cases[i].status, .body = {"", 0}};
        assert_int_equal(request_judge(cases[i].failure, &r), cases[i].verdict);
    }
}

static void test_scan(void **state)
{
    (void)state;
    struct str body =
        STR_LITERAL("{\"code\": \"SOLD_OUT\",\"order_id\":\"01\",\"n\":5,\"open\":\"");
    assert_true(
        str_equal(request_scan_text(body, STR_LITERAL("\"code\":")), STR_LITERAL("SOLD_OUT")));
    assert_true(
        str_equal(request_scan_text(body, STR_LITERAL("\"order_id\":")), STR_LITERAL("01")));
    assert_int_equal(request_scan_text(body, STR_LITERAL("\"n\":")).len, 0);
    assert_int_equal(request_scan_text(body, STR_LITERAL("\"open\":")).len, 0);
    assert_int_equal(request_scan_text(body, STR_LITERAL("\"absent\":")).len, 0);
    struct http_reply r = {.status = 409, .body = body};
    assert_true(str_equal(request_outcome(HTTP_ANSWERED, &r), STR_LITERAL("SOLD_OUT")));
    assert_true(str_equal(request_outcome(HTTP_TIMEOUT, &r), STR_LITERAL("TIMEOUT")));
}

static void test_backoff(void **state)
{
    (void)state;
    struct http_reply r = {.body = {"", 0}};
    assert_int_equal(request_backoff_ms(&r, 0), 10);
    assert_int_equal(request_backoff_ms(&r, 3), 80);
    assert_int_equal(request_backoff_ms(&r, 1000), 500);
    r.retry_after_ms = 1000;
    assert_int_equal(request_backoff_ms(&r, 0), 1000);
    r.body = STR_LITERAL("{\"retry_after_ms\": 35}");
    assert_int_equal(request_backoff_ms(&r, 0), 35);
    r.body = STR_LITERAL("{\"retry_after_ms\":");
    assert_int_equal(request_backoff_ms(&r, 0), 1000);
}

static void test_tally(void **state)
{
    (void)state;
    struct tally t = {0};
    for (int i = 0; i < TALLY_NAMES_MAX * 2; i++) {
        char name[16];
        snprintf(name, sizeof name, "CODE_%d", i);
        tally_add(&t, str_from(name), 1);
        tally_add(&t, STR_LITERAL("OK"), 2);
    }
    assert_int_equal(t.count, TALLY_NAMES_MAX);
    assert_int_equal(tally_get(&t, "OK"), TALLY_NAMES_MAX * 4);
    assert_int_equal(tally_get(&t, "CODE_0"), 1);
    assert_int_equal(tally_get(&t, "OTHER"), TALLY_NAMES_MAX * 2 - (TALLY_NAMES_MAX - 2));
    assert_int_equal(tally_get(&t, "absent"), 0);
}

/* The expected value comes from another implementation. */
static void test_sign(void **state)
{
    (void)state;
    static const uint8_t secret[] = {0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37,
                                     0x38, 0x39, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66,
                                     0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37};
    struct target t = {.payment_secret_size = sizeof secret};
    memcpy(t.payment_secret, secret, sizeof secret);
    struct text headers = TEXT_INIT;
    target_sign(&t, "evt-1", 1700000000123, "{\"a\":1}", &headers);
    /* printf 'evt-1.1700000000.{"a":1}' | openssl dgst -sha256 -mac hmac \
     *     -macopt key:0123456789abcdef01234567 -binary | base64 */
    assert_string_equal(text_cstring(&headers),
                        "webhook-id: evt-1\r\n"
                        "webhook-timestamp: 1700000000\r\n"
                        "webhook-signature: v1,z2MCQQoewpWrAgX/JO0b5iMxs6KIC07kzlpQXp6I6ZY=\r\n");
    text_close(&headers);
}

static void test_request_write(void **state)
{
    (void)state;
    struct text t = TEXT_INIT;
    request_write(&t, &(struct request){.method = "POST",
                                        .path = "/v1/orders",
                                        .host = "h:1",
                                        .bearer = "k",
                                        .key = "a-1",
                                        .body = "{}"});
    assert_string_equal(text_cstring(&t),
                        "POST /v1/orders HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer k\r\n"
                        "Idempotency-Key: \"a-1\"\r\nContent-Type: application/json\r\n"
                        "Content-Length: 2\r\n\r\n{}");
    text_clear(&t);
    request_write(&t, &(struct request){.method = "GET", .path = "/livez", .host = "h:1"});
    assert_string_equal(text_cstring(&t), "GET /livez HTTP/1.1\r\nHost: h:1\r\n\r\n");
    text_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reply_whole),   cmocka_unit_test(test_reply_split),
        cmocka_unit_test(test_reply_headers), cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_scan),          cmocka_unit_test(test_backoff),
        cmocka_unit_test(test_tally),         cmocka_unit_test(test_sign),
        cmocka_unit_test(test_request_write),
    };
    return cmocka_run_group_tests_name("bench request", tests, NULL, NULL);
}
