/* A connection's whole life, from bytes in pieces to answers (gateway/connection.h and everything
 * behind it), in front of the real state machine: http_world.h.
 *
 * Input: four bytes (listener, end or time-out, size of pieces, size of writes), then what the caller
 * sends. Asserted: answers are well-formed HTTP with well-formed JSON, in the same number and with the
 * same bytes whether the input comes whole or in pieces and however little a write takes; no answer says
 * that the gateway has a bug; every request is answered or its connection ended; nothing is left over. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/http_world.h"

#define HEAD 4

void fuzz_begin(void)
{
    http_world_begin();
}

struct cutter {
    uint32_t state;
    uint8_t most;
};

/* Pieces of 1 to `most` bytes, then larger ones: an input is as often cut where it matters. */
static size_t cut(void *ctx, size_t left)
{
    struct cutter *c = ctx;
    c->state = c->state * 1664525 + 1013904223;
    size_t size = 1 + (c->state >> 16) % (c->most + 1u);
    return size < left ? size : left;
}

static bool holds(const uint8_t *data, size_t size, const char *word)
{
    return data != NULL && memmem(data, size, word, strlen(word)) != NULL;
}

/* What answers may differ in: numbers that count answers of the process, and the index that answers
 * which are not of the state carry, the newest one seen. */
static void mask(struct text *t, const char *field)
{
    size_t size = strlen(field);
    for (size_t i = 0; i + size < t->len; i++) {
        if (memcmp(t->data + i, field, size) == 0) {
            for (i += size; i < t->len && t->data[i] != '\r'; i++) {
                t->data[i] = '#';
            }
        }
    }
}

static void mask_all(struct text *t)
{
    mask(t, "\nX-Request-Id: 0123456789abcdef");
    size_t len = 0;
    for (size_t i = 0; i < t->len; i++) { /* of any number of digits */
        static const char field[] = "\nHoldfast-Log-Index: ";
        if (t->len - i > sizeof field && memcmp(t->data + i, field, sizeof field - 1) == 0) {
            while (i < t->len && t->data[i] != '\r') {
                i++;
            }
        }
        t->data[len++] = t->data[i];
    }
    t->len = len;
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct text whole = TEXT_INIT, pieces = TEXT_INIT;
    if (size < HEAD) {
        return;
    }
    struct cutter cutter = {data[2], data[2]};
    struct http_world_input in = {.admin = (data[0] & 1) != 0, .end = (data[1] & 1) != 0,
                                  .write_size = SIZE_MAX};
    data += HEAD;
    size -= HEAD;
    http_world_run(&in, data, size, &whole);
    uint32_t commands = http_world_commands;
    in.piece = cut;
    in.ctx = &cutter;
    if (data[-1] < 128) {
        in.write_size = 1 + data[-1] * 7u;
    }
    http_world_run(&in, data, size, &pieces);
    CHECK(commands == http_world_commands);
    struct str left = {text_cstring(&pieces), (uint32_t)pieces.len};
    struct http_answer answer;
    size_t answers = 0;
    while (http_answer_next(&left, &answer)) {
        CHECK(answer.status != 500);
        answers++;
    }
    CHECK(answers <= size / 4 + 1); /* "GET" and something */
    /* Figures of the process are of its moment; 100 Continue depends on what was there already, and what
     * becomes of an order that was answered with 202 on who asks sooner. */
    if (!holds(data, size, "metrics") && !holds(data, size, "xpect") && !holds(data, size, "order-req")) {
        mask_all(&whole);
        mask_all(&pieces);
        if (!str_equal((struct str){text_cstring(&whole), (uint32_t)whole.len},
                       (struct str){text_cstring(&pieces), (uint32_t)pieces.len})) {
            fprintf(stderr, "whole:\n%s\nin pieces:\n%s\n", text_cstring(&whole), text_cstring(&pieces));
            CHECK_UNREACHABLE();
        }
    }
    text_close(&whole);
    text_close(&pieces);
}

static void seed(const char *name, bool admin, const char *text)
{
    char out[8192];
    int n = snprintf(out, sizeof out, "%c%c%c%c%s", admin ? 1 : '0', '1', 5, 40, text);
    CHECK(n > 0 && (size_t)n < sizeof out);
    out[0] = (char)admin;
    fuzz_seed(name, out, (size_t)n);
}

static void seed_request(const char *name, bool admin, const char *key, const char *line,
                         const char *fields, const char *body)
{
    char out[4096];
    int n = snprintf(out, sizeof out, "%s HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\n%s", line, key,
                     fields);
    if (body != NULL) {
        n += snprintf(out + n, sizeof out - (size_t)n,
                      "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
    } else {
        n += snprintf(out + n, sizeof out - (size_t)n, "\r\n");
    }
    seed(name, admin, out);
}

void fuzz_seeds(void)
{
    const char *shop = HTTP_WORLD_KEY_BACKEND, *ops = HTTP_WORLD_KEY_ADMIN, *eye = HTTP_WORLD_KEY_VIEWER;
    char text[1024], sign[64];
    seed_request("order-place", false, shop, "POST /v1/orders", "Idempotency-Key: \"k7\"\r\n",
                 "{\"sale_id\":\"s\",\"user_id\":\"u2\",\"lines\":[{\"sku\":\"A\",\"quantity\":2}]}");
    seed_request("order-place-user", false, http_world_user_token(), "POST /v1/orders",
                 "Idempotency-Key: k8\r\nPrefer: respond-async, wait=0\r\n",
                 "{\"sale_id\":\"s\",\"lines\":[{\"sku\":\"A\",\"quantity\":1}]}");
    snprintf(text, sizeof text, "GET /v1/orders/%s", http_world_order());
    seed_request("order-get", false, eye, text, "If-None-Match: \"1.abc\"\r\n", NULL);
    snprintf(text, sizeof text, "POST /v1/orders/%s/cancel", http_world_order());
    seed_request("order-cancel", false, shop, text, "", NULL);
    snprintf(text, sizeof text, "POST /v1/orders/%s/refund", http_world_order());
    seed_request("order-refund", true, ops, text, "", "{\"restock\":true,\"reason\":\"x\"}");
    seed_request("orders-list", false, eye, "GET /v1/orders?limit=2&sale_id=s&user_id=u1", "", NULL);
    seed_request("order-request", false, http_world_user_token(), "GET /v1/order-requests/o1?wait=1", "", NULL);
    seed_request("sale-get", false, eye, "GET /v1/sales/s?consistency=strong", "Accept: application/json\r\n",
                 NULL);
    seed_request("sale-head", false, eye, "HEAD /v1/sales/s", "", NULL);
    seed_request("sales-list", false, eye, "GET /v1/sales?limit=1", "", NULL);
    seed_request("grant", false, shop, "POST /v1/sales/s/eligibilities", "", "{\"user_id\":\"u3\"}");
    seed_request("sku-put", true, ops, "PUT /v1/skus/C", "If-None-Match: *\r\n", "{\"title\":\"C\"}");
    seed_request("sku-adjust", true, ops, "POST /v1/skus/A/adjustments", "Idempotency-Key: a1\r\n",
                 "{\"delta\":5,\"reason\":\"found\"}");
    seed_request("lease", false, shop, "POST /v1/leases", "Idempotency-Key: l7\r\n",
                 "{\"name\":\"n\",\"owner\":\"o\",\"ttl_ms\":5000}");
    seed_request("lease-release", false, shop, "DELETE /v1/leases/job?owner=w1&fencing_token=1", "", NULL);
    seed_request("deny", true, ops, "PUT /v1/denylist/u5", "", "{\"reason\":\"bot\"}");
    seed_request("min-index", false, eye, "GET /v1/skus/A?min_index=99999", "traceparent: 00-1-2-01\r\n", NULL);
    seed_request("not-there", false, eye, "GET /v1/skus/%41%42", "X-Request-Id: r-1\r\n", NULL);
    seed_request("wrong-method", false, eye, "PATCH /v1/skus/A", "", NULL);
    const char *event = "{\"type\":\"payment.succeeded\"}";
    http_world_sign("evt_1", "1700000000", event, sign);
    snprintf(text, sizeof text,
             "webhook-id: evt_1\r\nwebhook-timestamp: 1700000000\r\nwebhook-signature: %s\r\n", sign);
    seed_request("payment", false, shop, "POST /v1/payments/events", text, event);
    seed("chunked", false,
         "POST /v1/leases HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer shop-key-0123456789\r\n"
         "Idempotency-Key: z\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
         "a\r\n{\"name\":\"n\r\n1e;x=y\r\n\",\"owner\":\"o\",\"ttl_ms\":5000}\r\n0\r\n\r\n");
    seed("pipeline", false,
         "GET /livez HTTP/1.1\r\nHost: h\r\n\r\nGET /v1/sales/s HTTP/1.1\r\nHost: h\r\n\r\n\r\n"
         "HEAD /readyz?verbose HTTP/1.1\r\nHost: h\r\n\r\nGET /version HTTP/1.0\r\n\r\n");
    seed("expect", false,
         "POST /v1/leases HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer shop-key-0123456789\r\n"
         "Expect: 100-continue\r\nIdempotency-Key: y\r\nContent-Type: application/json\r\n"
         "Content-Length: 40\r\n\r\n{\"name\":\"n\",\"owner\":\"o\",\"ttl_ms\":5000}  ");
    seed("smuggle", false,
         "POST /v1/orders HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
         "0\r\n\r\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n");
    seed("half", false, "GET /v1/sales/s HTTP/1.1\r\nHost: h\r\nAuthoriz");
    seed("not-http", false, "\x16\x03\x01\x02\x01");
}
