/* JSON bodies of every resource (gateway/json_read.h, json_order.h, handlers), with a good head around
 * them, in front of the real state machine; and the two readers of an order's body against each other.
 *
 * Input: which resource, how the body is cut into chunks, then the body.
 * Asserted: one answer, the same whether the body comes with a length or in chunks; a body that is no
 * JSON object (jansson says) is 400 with a pointer; an order that the quick reader takes, the other one
 * takes with the same values; the state keeps its invariants (http_world.c). */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/json_order.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/http_world.h"

#define BODY_MAX 8192

static const struct {
    const char *line;
    bool admin;
} resources[] = {
    {"POST /v1/orders", false},
    {"POST /v1/sales/s/eligibilities", false},
    {"POST /v1/leases", false},
    {"POST /v1/leases/job/renew", false},
    {"PUT /v1/skus/A", true},
    {"POST /v1/skus/A/adjustments", true},
    {"PUT /v1/sales/s", true},
    {"PUT /v1/sales/new", true},
    {"PUT /v1/denylist/u1", true},
    {"POST /v1/orders/%s/cancel", false},
    {"POST /v1/orders/%s/refund", true},
    {"POST /v1/sales/s/pause", true},
    {"POST /v1/payments/events", false},
};

void fuzz_begin(void)
{
    http_world_begin();
}

/* ---- the two readers of an order ---- */

static void compare_readers(struct str body)
{
    struct order_body quick, slow;
    struct json_fault fault = {0};
    json_t *root = NULL;
    char *exact = malloc(body.len > 0 ? body.len : 1);
    CHECK(exact != NULL);
    memcpy(exact, body.ptr, body.len);
    body.ptr = exact;
    bool taken = json_order_read_plain(body, &quick);
    bool good = json_order_read(body, &root, &slow, &fault);
    CHECK(good != fault.set);
    CHECK(!taken || good);
    if (taken) {
        CHECK(str_equal(quick.sale, slow.sale) && str_equal(quick.user, slow.user));
        CHECK(quick.lines_count == slow.lines_count);
        for (uint32_t i = 0; i < quick.lines_count; i++) {
            CHECK(str_equal(quick.lines[i].sku, slow.lines[i].sku));
            CHECK(quick.lines[i].quantity == slow.lines[i].quantity);
        }
    }
    json_decref(root);
    free(exact);
}

/* ---- requests ---- */

static size_t put_head(char *out, size_t size, size_t resource, struct str body)
{
    char line[128], sign[64] = "", *zero_ended = malloc(body.len + 1u);
    CHECK(zero_ended != NULL);
    str_copy(zero_ended, body.len + 1u, body);
    if (strlen(zero_ended) == body.len) {
        http_world_sign("evt_7", "1700000000", zero_ended, sign);
    }
    free(zero_ended);
    const char *pattern = resources[resource].line, *hole = strstr(pattern, "%s");
    int n = hole == NULL ? snprintf(line, sizeof line, "%s", pattern)
                         : snprintf(line, sizeof line, "%.*s%s%s", (int)(hole - pattern), pattern,
                                    http_world_order(), hole + 2);
    CHECK(n > 0 && (size_t)n < sizeof line);
    n = snprintf(out, size,
                 "%s HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\nIdempotency-Key: j1\r\nIf-Match: *\r\n"
                 "webhook-id: evt_7\r\nwebhook-timestamp: 1700000000\r\nwebhook-signature: %s\r\n"
                 "Content-Type: application/json\r\nConnection: close\r\n",
                 line, HTTP_WORLD_KEY_ADMIN, sign[0] != '\0' ? sign : "v1,none");
    CHECK(n > 0 && (size_t)n < size);
    return (size_t)n;
}

static size_t put_whole(char *out, size_t size, size_t resource, struct str body)
{
    size_t n = put_head(out, size, resource, body);
    n += (size_t)snprintf(out + n, size - n, "Content-Length: %u\r\n\r\n", body.len);
    memcpy(out + n, body.ptr, body.len);
    return n + body.len;
}

static size_t put_chunked(char *out, size_t size, size_t resource, struct str body, uint32_t chunk)
{
    size_t n = put_head(out, size, resource, body);
    n += (size_t)snprintf(out + n, size - n, "Transfer-Encoding: chunked\r\n\r\n");
    for (uint32_t at = 0; at < body.len; at += chunk) {
        uint32_t part = body.len - at < chunk ? body.len - at : chunk;
        n += (size_t)snprintf(out + n, size - n, "%x\r\n", part);
        memcpy(out + n, body.ptr + at, part);
        n += part;
        n += (size_t)snprintf(out + n, size - n, "\r\n");
    }
    return n + (size_t)snprintf(out + n, size - n, "0\r\n\r\n");
}

static struct http_answer only_answer(const struct text *t)
{
    struct str left = {text_cstring(t), (uint32_t)t->len};
    struct http_answer a, more;
    CHECK(http_answer_next(&left, &a));
    CHECK(!http_answer_next(&left, &more));
    CHECK(a.status != 500);
    return a;
}

void fuzz_one(const uint8_t *data, size_t size)
{
    static char request[4 * BODY_MAX + 2048];
    struct reader r = reader_init(data, size);
    size_t resource = reader_u8(&r) % ARRAY_COUNT(resources);
    uint32_t chunk = 8u + reader_u8(&r);
    struct str body = fuzz_str(&r, BODY_MAX);
    struct text whole = TEXT_INIT, chunked = TEXT_INIT;
    struct http_world_input in = {.admin = resources[resource].admin, .write_size = SIZE_MAX};
    compare_readers(body);
    if (body.len == 0) {
        return;
    }
    http_world_run(&in, request, put_whole(request, sizeof request, resource, body), &whole);
    uint32_t commands = http_world_commands;
    struct http_answer a = only_answer(&whole);
    http_world_run(&in, request, put_chunked(request, sizeof request, resource, body, chunk), &chunked);
    struct http_answer b = only_answer(&chunked);
    CHECK(a.status == b.status && str_equal(a.body, b.body) && commands == http_world_commands);
    json_t *root = json_loadb(body.ptr, body.len, JSON_REJECT_DUPLICATES, NULL);
    bool signed_raw = strstr(resources[resource].line, "payments") != NULL;
    if (!json_is_object(root)) {
        CHECK(a.status == 400 || (signed_raw && a.status == 401));
        CHECK(commands == 0);
    }
    CHECK(a.status < 500 || a.status == 503);
    json_decref(root);
    text_close(&whole);
    text_close(&chunked);
}

static void seed(const char *name, unsigned resource, const char *body)
{
    char out[2048];
    int n = snprintf(out + 2, sizeof out - 2, "%s", body);
    out[0] = (char)resource;
    out[1] = 5;
    fuzz_seed(name, out, 2 + (size_t)n);
}

void fuzz_seeds(void)
{
    char refund[256];
    seed("order", 0, "{\"sale_id\":\"s\",\"user_id\":\"u2\",\"lines\":[{\"sku\":\"A\",\"quantity\":2},"
                     "{\"sku\":\"B\",\"quantity\":1}]}");
    seed("order-escape", 0, "{\"lines\":[{\"quantity\":1,\"sku\":\"\\u0041\"}],\"sale_id\":\"s\"}");
    seed("eligibility", 1, "{\"user_id\":\"u3\"}");
    seed("lease", 2, "{\"name\":\"n\",\"owner\":\"o\",\"ttl_ms\":5000}");
    seed("lease-renew", 3, "{\"owner\":\"w1\",\"fencing_token\":1,\"ttl_ms\":5000}");
    seed("sku", 4, "{\"title\":\"Ein Ding \xE2\x82\xAC\"}");
    seed("adjustment", 5, "{\"delta\":-3,\"reason\":\"lost\"}");
    const char *sale =
        "{\"title\":\"t\",\"currency\":\"EUR\",\"opens_at\":\"2023-11-14T22:00:00Z\","
        "\"closes_at\":\"2023-11-15T22:00:00.5+01:00\",\"payment_timeout_ms\":60000,"
        "\"late_payment\":\"refund\",\"eligibility_required\":false,\"orders_per_user_max\":2,"
        "\"units_per_user_max\":4,\"offers\":[{\"sku\":\"A\",\"unit_price\":100,"
        "\"units_per_order_max\":2,\"oversell_allowance\":0}]}";
    seed("sale", 6, sale);
    seed("sale-new", 7, sale);
    seed("denial", 8, "{\"reason\":\"bot\",\"until\":\"2033-11-14T22:00:00Z\"}");
    seed("cancel", 9, "{\"user_id\":\"u1\"}");
    snprintf(refund, sizeof refund, "{\"restock\":true,\"reason\":\"broken\"}");
    seed("refund", 10, refund);
    seed("pause", 11, "{}");
    char event[512];
    snprintf(event, sizeof event,
             "{\"type\":\"payment.succeeded\",\"data\":{\"order_id\":\"%s\",\"amount\":5997,\"currency\":\"EUR\"}}",
             http_world_order());
    seed("payment", 12, event);
    seed("duplicate", 0, "{\"sale_id\":\"s\",\"sale_id\":\"s\"}");
    seed("deep", 0, "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[");
    seed("number", 2, "{\"name\":\"n\",\"owner\":\"o\",\"ttl_ms\":5e3}");
}
