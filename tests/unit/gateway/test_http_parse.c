/* Unit tests of http_parse: requests however they are cut, and everything that must not pass as one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "gateway/http_parse.h"

struct outcome {
    enum http_event event;
    size_t taken;
};

/* Feeds in pieces of `step` bytes, as a socket would. */
static struct outcome feed(struct http_parser *p, struct http_request *r, const char *data,
                           size_t size, size_t step)
{
    struct outcome o = {HTTP_MORE, 0};
    http_request_init(r);
    http_parser_begin(p, r);
    while (o.event == HTTP_MORE && o.taken < size) {
        size_t left = size - o.taken, n = left < step ? left : step, taken = 0;
        /* A copy of exactly this size, so that reading past it is seen by a sanitizer. */
        char *piece = malloc(n);
        CHECK(piece != NULL);
        memcpy(piece, data + o.taken, n);
        size_t at = 0;
        do {
            o.event = http_parser_feed(p, piece + at, n - at, &taken);
            at += taken;
        } while (o.event == HTTP_HEAD_DONE);
        free(piece);
        o.taken += at;
    }
    return o;
}

static const char order[] = "POST /v1/orders?x=1 HTTP/1.1\r\n"
                            "Host: shop.example:8080\r\n"
                            "content-type: application/json\r\n"
                            "IDEMPOTENCY-KEY:  \"k1\" \t\r\n"
                            "Prefer: wait=5\r\n"
                            "Prefer: respond-async, x=\"a,b\"\r\n"
                            "X-Other: something\r\n"
                            "Content-Length: 11\r\n"
                            "\r\n"
                            "hello world";

static void expect_order(const struct http_request *r)
{
    assert_int_equal(r->method, HTTP_POST);
    assert_int_equal(r->minor, 1);
    assert_true(r->keep_alive);
    assert_false(r->chunked);
    assert_int_equal(r->content_length, 11);
    assert_true(str_equal(r->target, STR_LITERAL("/v1/orders?x=1")));
    assert_true(str_equal(r->fields[FIELD_HOST], STR_LITERAL("shop.example:8080")));
    assert_true(str_equal(r->fields[FIELD_CONTENT_TYPE], STR_LITERAL("application/json")));
    assert_true(str_equal(r->fields[FIELD_IDEMPOTENCY_KEY], STR_LITERAL("\"k1\"")));
    assert_null(r->fields[FIELD_AUTHORIZATION].ptr);
    assert_true(str_equal(r->body, STR_LITERAL("hello world")));
}

static void test_pieces(void **state)
{
    struct http_parser p;
    struct http_request r;
    (void)state;
    for (size_t step = 1; step <= sizeof order; step++) {
        struct outcome o = feed(&p, &r, order, sizeof order - 1, step);
        assert_int_equal(o.event, HTTP_MESSAGE_DONE);
        assert_int_equal(o.taken, sizeof order - 1);
        expect_order(&r);
        http_request_close(&r);
    }
}

static bool collect(void *ctx, struct str element)
{
    char *to = ctx;
    strncat(to, element.ptr, element.len);
    strcat(to, ";");
    return true;
}

static void test_list_fields(void **state)
{
    struct http_parser p;
    struct http_request r;
    char seen[128] = "";
    (void)state;
    feed(&p, &r, order, sizeof order - 1, SIZE_MAX);
    http_field_list(&r, FIELD_PREFER, collect, seen);
    assert_string_equal(seen, "wait=5;respond-async;x=\"a,b\";");
    http_request_close(&r);
}

static void test_pipelined(void **state)
{
    static const char two[] = "GET /a HTTP/1.1\r\nHost: h\r\n\r\nPOST /b HTTP/1.1\r\nHost: h\r\n"
                              "Content-Length: 2\r\n\r\nxyGET";
    struct http_parser p;
    struct http_request r;
    (void)state;
    struct outcome o = feed(&p, &r, two, sizeof two - 1, SIZE_MAX);
    assert_int_equal(o.event, HTTP_MESSAGE_DONE);
    assert_true(str_equal(r.target, STR_LITERAL("/a")));
    http_request_close(&r);
    size_t first = o.taken;
    assert_int_equal(first, strlen("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"));
    o = feed(&p, &r, two + first, sizeof two - 1 - first, SIZE_MAX);
    assert_int_equal(o.event, HTTP_MESSAGE_DONE);
    assert_true(str_equal(r.target, STR_LITERAL("/b")));
    assert_true(str_equal(r.body, STR_LITERAL("xy")));
    assert_string_equal(two + first + o.taken, "GET"); /* belongs to the next */
    http_request_close(&r);
}

static void test_chunked(void **state)
{
    static const char text[] = "POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                               "5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\nNEXT";
    struct http_parser p;
    struct http_request r;
    (void)state;
    for (size_t step = 1; step <= sizeof text; step++) {
        struct outcome o = feed(&p, &r, text, sizeof text - 1, step);
        assert_int_equal(o.event, HTTP_MESSAGE_DONE);
        assert_true(str_equal(r.body, STR_LITERAL("hello world")));
        assert_int_equal(o.taken, sizeof text - 1 - 4);
        http_request_close(&r);
    }
}

static void test_connection_header(void **state)
{
    static const struct {
        const char *text;
        bool keep_alive;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", true},
    };
    struct http_parser p;
    struct http_request r;
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct outcome o = feed(&p, &r, cases[i].text, strlen(cases[i].text), SIZE_MAX);
        assert_int_equal(o.event, HTTP_MESSAGE_DONE);
        assert_int_equal(r.keep_alive, cases[i].keep_alive);
        http_request_close(&r);
    }
}

static void test_refused(void **state)
{
#define HOST "Host: h\r\n"
    static const struct {
        const char *text;
        enum problem problem;
    } cases[] = {
        {"GET / HTTP/1.1\nHost: h\n\n", PROBLEM_INVALID_REQUEST},                  /* bare LF */
        {"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", PROBLEM_INVALID_REQUEST},      /* one bare LF */
        {"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", PROBLEM_INVALID_REQUEST}, /* bare CR */
        {"GET / HTTP/1.1\r\n" HOST "X: a\r\n b\r\n\r\n", PROBLEM_INVALID_REQUEST}, /* obs-fold */
        {"GET / HTTP/1.1\r\n X: a\r\n" HOST "\r\n", PROBLEM_INVALID_REQUEST},
        {"GET / HTTP/1.1\r\n" HOST "X : a\r\n\r\n",
         PROBLEM_INVALID_REQUEST},                                          /* space before colon */
        {"GET / HTTP/1.1\r\n" HOST ": a\r\n\r\n", PROBLEM_INVALID_REQUEST}, /* no name */
        {"GET / HTTP/1.1\r\n" HOST "X: a\x01\r\n\r\n", PROBLEM_INVALID_REQUEST},
        {"GET / HTTP/1.1\r\n" HOST HOST "\r\n", PROBLEM_INVALID_REQUEST}, /* two hosts */
        {"GET / HTTP/1.1\r\n\r\n", PROBLEM_INVALID_REQUEST},              /* none */
        {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", PROBLEM_INVALID_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", PROBLEM_INVALID_REQUEST},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
         PROBLEM_INVALID_REQUEST},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1, 1\r\n\r\nx", PROBLEM_INVALID_REQUEST},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n", PROBLEM_INVALID_REQUEST},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: +1\r\n\r\nx", PROBLEM_INVALID_REQUEST},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: 0x1\r\n\r\nx", PROBLEM_INVALID_REQUEST},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999\r\n\r\n",
         PROBLEM_INVALID_REQUEST},
        {"POST / HTTP/1.1\r\n" HOST
         "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         PROBLEM_INVALID_REQUEST},
        {"POST / HTTP/1.1\r\n" HOST
         "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
         PROBLEM_INVALID_REQUEST},
        {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
         PROBLEM_INVALID_REQUEST},
        {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: identity\r\n\r\n", PROBLEM_INVALID_REQUEST},
        {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
         PROBLEM_INVALID_REQUEST},
        {"POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         PROBLEM_INVALID_REQUEST},
        {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
         PROBLEM_INVALID_REQUEST},
        {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
         PROBLEM_INVALID_REQUEST}, /* a chunk longer than it says */
        {"GET / HTTP/1.1\r\n" HOST "Authorization: a\r\nAuthorization: b\r\n\r\n",
         PROBLEM_INVALID_REQUEST},
        {"GET / HTTP/1.1\r\n" HOST "Expect: a-miracle\r\n\r\n", PROBLEM_EXPECTATION_FAILED},
        {"GET / HTTP/2.0\r\n" HOST "\r\n", PROBLEM_VERSION_NOT_SUPPORTED},
        {"GET / HTTP/1.2\r\n" HOST "\r\n", PROBLEM_VERSION_NOT_SUPPORTED},
        {"GET / HTTP/0.9\r\n" HOST "\r\n", PROBLEM_VERSION_NOT_SUPPORTED},
        {"GET /\r\n\r\n", PROBLEM_VERSION_NOT_SUPPORTED}, /* HTTP/0.9 */
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", PROBLEM_VERSION_NOT_SUPPORTED},
        {"FROB / HTTP/1.1\r\n" HOST "\r\n", PROBLEM_INVALID_REQUEST},
        {"get / HTTP/1.1\r\n" HOST "\r\n", PROBLEM_INVALID_REQUEST},
        {"GET  / HTTP/1.1\r\n" HOST "\r\n", PROBLEM_INVALID_REQUEST},
        {"GET /a b HTTP/1.1\r\n" HOST "\r\n", PROBLEM_INVALID_REQUEST},
        {"\x16\x03\x01\x02\r\n\r\n", PROBLEM_INVALID_REQUEST}, /* TLS */
        {"HTTP/1.1 200 OK\r\n\r\n", PROBLEM_INVALID_REQUEST},
    };
    struct http_parser p;
    struct http_request r;
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        size_t size = strlen(cases[i].text);
        for (size_t step = 1; step <= size; step += step < 4 ? 1 : size) {
            struct outcome o = feed(&p, &r, cases[i].text, size, step);
            if (o.event != HTTP_REFUSED || p.problem != cases[i].problem) {
                fail_msg("case %zu in pieces of %zu: event %d problem %d: %s", i, step, o.event,
                         p.problem, cases[i].text);
            }
            assert_non_null(p.why);
            http_request_close(&r);
        }
    }
}

static void test_limits(void **state)
{
    struct http_parser p;
    struct http_request r;
    size_t size = 0;
    char *text = malloc(100000);
    (void)state;
    assert_non_null(text);
    /* A head of exactly the limit, and one byte more. */
    for (int over = 0; over < 2; over++) {
        size = (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: h\r\nX: ");
        size_t want = HTTP_HEAD_SIZE_MAX - 4 + (size_t)over;
        memset(text + size, 'a', want - size);
        memcpy(text + want, "\r\n\r\n", 4);
        struct outcome o = feed(&p, &r, text, want + 4, 1000);
        assert_int_equal(o.event, over ? HTTP_REFUSED : HTTP_MESSAGE_DONE);
        assert_int_equal(p.problem, over ? PROBLEM_HEADERS_TOO_LARGE : PROBLEM_NONE);
        http_request_close(&r);
    }
    /* A target too long, in a head that would fit, and one that fills all. */
    for (size_t target = 2048; target <= 9000; target += target == 2048 ? 1 : 6951) {
        size = (size_t)sprintf(text, "GET /");
        memset(text + size, 'a', target - 1);
        size += target - 1;
        size += (size_t)sprintf(text + size, " HTTP/1.1\r\nHost: h\r\n\r\n");
        struct outcome o = feed(&p, &r, text, size, 1000);
        assert_int_equal(o.event, target > 2048 ? HTTP_REFUSED : HTTP_MESSAGE_DONE);
        assert_int_equal(p.problem, target > 2048 ? PROBLEM_URI_TOO_LONG : PROBLEM_NONE);
        http_request_close(&r);
    }
    /* A body of exactly the limit and one byte more, announced or in chunks. */
    for (int over = 0; over < 2; over++) {
        for (int chunked = 0; chunked < 2; chunked++) {
            size_t body = HTTP_BODY_SIZE_MAX + (size_t)over;
            size = chunked ? (size_t)sprintf(text,
                                             "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                                             "chunked\r\n\r\n%zx\r\n",
                                             body)
                           : (size_t)sprintf(text,
                                             "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: "
                                             "%zu\r\n\r\n",
                                             body);
            memset(text + size, 'b', body);
            size += body;
            size += chunked ? (size_t)sprintf(text + size, "\r\n0\r\n\r\n") : 0;
            struct outcome o = feed(&p, &r, text, size, 4000);
            assert_int_equal(o.event, over ? HTTP_REFUSED : HTTP_MESSAGE_DONE);
            assert_int_equal(p.problem, over ? PROBLEM_CONTENT_TOO_LARGE : PROBLEM_NONE);
            if (!over) {
                assert_int_equal(r.body.len, body);
            }
            http_request_close(&r);
        }
    }
    free(text);
}

/* Whatever comes, the parser ends in a defined way and stays within its bounds. */
static void test_noise(void **state)
{
    struct http_parser p;
    struct http_request r;
    char text[sizeof order];
    unsigned seed = 1;
    (void)state;
    for (int round = 0; round < 20000; round++) {
        memcpy(text, order, sizeof order);
        for (int i = 0; i < 3; i++) {
            seed = seed * 1103515245u + 12345u;
            text[(seed >> 8) % (sizeof order - 1)] = (char)(seed >> 16);
        }
        struct outcome o = feed(&p, &r, text, sizeof order - 1, 1 + (seed >> 4) % 90);
        assert_true(o.taken <= sizeof order - 1);
        http_request_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_list_fields),
        cmocka_unit_test(test_pipelined),
        cmocka_unit_test(test_chunked),
        cmocka_unit_test(test_connection_header),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
