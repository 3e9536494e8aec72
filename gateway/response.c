/* Owns: the bytes of an answer's head, and the bodies of problems.
 *
 * Happy path: a handler writes x->body → response_send composes the head → the connection writes both
 * with everything else that is ready, in order.
 *
 * Refuses: to put anything into a body that a replay of the same key could not give again: log index,
 * request id and stock witness are header fields. */
#include "gateway/response.h"

#include <stdarg.h>
#include <stdio.h>
#include <xxhash.h>

#include "gateway/connection.h"
#include "gateway/metrics.h"
#include "proto/order_id.h"

#define AGAIN_AFTER_MS 1000 /* for refusals that an operator or the database must end */

const char *response_reason(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 201:
        return "Created";
    case 202:
        return "Accepted";
    case 204:
        return "No Content";
    case 304:
        return "Not Modified";
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 406:
        return "Not Acceptable";
    case 408:
        return "Request Timeout";
    case 409:
        return "Conflict";
    case 412:
        return "Precondition Failed";
    case 413:
        return "Content Too Large";
    case 414:
        return "URI Too Long";
    case 415:
        return "Unsupported Media Type";
    case 417:
        return "Expectation Failed";
    case 422:
        return "Unprocessable Content";
    case 428:
        return "Precondition Required";
    case 431:
        return "Request Header Fields Too Large";
    case 500:
        return "Internal Server Error";
    case 503:
        return "Service Unavailable";
    case 504:
        return "Gateway Timeout";
    case 505:
        return "HTTP Version Not Supported";
    default:
        return "Status";
    }
}

void response_field(struct exchange *x, const char *name, struct str value)
{
    out_str(&x->fields, str_from(name));
    out_literal(&x->fields, ": ");
    out_str(&x->fields, value);
    out_literal(&x->fields, "\r\n");
}

void response_fieldf(struct exchange *x, const char *name, const char *format, ...)
{
    char value[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(value, sizeof value, format, args);
    va_end(args);
    CHECK(n >= 0 && (size_t)n < sizeof value);
    response_field(x, name, (struct str){value, (uint32_t)n});
}

void response_location_order(struct exchange *x, uint64_t order)
{
    char id[ORDER_ID_TEXT_SIZE];
    order_id_format(order, id);
    out_literal(&x->fields, "Location: /v1/orders/");
    out_bytes(&x->fields, id, ORDER_ID_TEXT_SIZE - 1);
    out_literal(&x->fields, "\r\n");
}

/* version-traceid-parentid-flags, of W3C Trace Context level 1. */
static bool is_traceparent(struct str s)
{
    bool good = s.len == 55;
    for (uint32_t i = 0; good && i < s.len; i++) {
        bool dash = i == 2 || i == 35 || i == 52;
        char c = s.ptr[i];
        good = dash ? c == '-' : (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    }
    return good;
}

static void compose_head(struct exchange *x, bool has_body)
{
    struct out *h = &x->head;
    out_literal(h, "HTTP/1.1 ");
    out_u64(h, (uint64_t)x->status);
    out_char(h, ' ');
    out_str(h, str_from(response_reason(x->status)));
    out_literal(h, "\r\n");
    out_bytes(h, x->gateway->date, x->gateway->date_size);
    if (has_body) {
        out_literal(h, "Content-Type: ");
        out_str(h, str_from(x->content_type != NULL ? x->content_type : "application/json"));
        out_literal(h, "\r\n");
    }
    if (x->status != 204 && x->status != 304) {
        out_literal(h, "Content-Length: ");
        out_u64(h, x->body.size);
        out_literal(h, "\r\n");
    }
    out_literal(h, "X-Request-Id: ");
    out_bytes(h, x->request_id, x->request_id_size);
    out_literal(h, "\r\nHoldfast-Log-Index: ");
    out_u64(h, x->log_index != 0 ? x->log_index : x->gateway->index_seen);
    out_literal(h, "\r\nX-Content-Type-Options: nosniff\r\n");
    struct str trace = x->request.fields[FIELD_TRACEPARENT];
    if (trace.ptr != NULL && is_traceparent(trace)) {
        out_literal(h, "traceparent: ");
        out_str(h, trace);
        out_literal(h, "\r\n");
    }
    if (x->replayed) {
        out_literal(h, "Idempotency-Replayed: true\r\n");
    }
    out_bytes(h, x->fields.data, x->fields.size);
    if (x->close) {
        out_literal(h, "Connection: close\r\n");
    }
    out_literal(h, "\r\n");
}

/* Echoes the caller's X-Request-Id when it is one that may stand in a head and a log, else makes one. */
static void settle_request_id(struct exchange *x)
{
    struct str given = x->request.fields[FIELD_X_REQUEST_ID];
    if (given.ptr != NULL && str_is_identifier(given, REQUEST_ID_SIZE_MAX)) {
        memcpy(x->request_id, given.ptr, given.len);
        x->request_id_size = given.len;
        return;
    }
    static const char hex[] = "0123456789abcdef";
    uint64_t number = x->gateway->request_id_next++;
    memcpy(x->request_id, x->gateway->request_id_prefix, 16);
    for (int i = 31; i >= 16; i--) {
        x->request_id[i] = hex[number & 15];
        number >>= 4;
    }
    x->request_id_size = 32;
}

void response_send(struct exchange *x, int status)
{
    CHECK(!x->answered);
    struct gateway *g = x->gateway;
    x->status = status;
    x->answered = true;
    g->index_seen = x->log_index > g->index_seen ? x->log_index : g->index_seen;
    settle_request_id(x);
    x->close = x->close || !x->request.keep_alive || g->draining;
    bool has_body = x->body.size > 0 && status != 204 && status != 304;
    compose_head(x, has_body);
    if (x->head_only || !has_body) {
        x->body.size = 0;
    }
    metrics_count_answer(x);
    if (x->body.size <= x->head.capacity - x->head.size) {
        /* One piece is cheaper to write than two. */
        out_bytes(&x->head, x->body.data, x->body.size);
        x->body.size = 0;
    }
    if (x->connection != NULL) {
        connection_answered(x->connection);
    } else {
        exchange_settle(x);
    }
}

struct etag_search {
    struct str tag;
    bool found;
};

static bool etag_matches(void *ctx, struct str element)
{
    struct etag_search *s = ctx;
    if (element.len > 2 && element.ptr[0] == 'W' && element.ptr[1] == '/') {
        element = (struct str){element.ptr + 2, element.len - 2}; /* weak comparison: RFC 9110 */
    }
    s->found = s->found || str_equal(element, s->tag) || str_equal(element, STR_LITERAL("*"));
    return !s->found;
}

void response_send_versioned(struct exchange *x, uint64_t version)
{
    char tag[64];
    int n = snprintf(tag, sizeof tag, "\"%llu.%016llx\"", (unsigned long long)version,
                     (unsigned long long)XXH3_64bits(x->body.data, x->body.size));
    struct etag_search search = {{tag, (uint32_t)n}, false};
    response_field(x, "ETag", search.tag);
    http_field_list(&x->request, FIELD_IF_NONE_MATCH, etag_matches, &search);
    response_send(x, search.found ? 304 : 200);
}

/* ---- problems ---- */

struct json_writer problem_begin(struct exchange *x, enum problem p, const char *detail)
{
    const struct problem_info *info = problem_info(p);
    x->body.size = 0;
    x->content_type = "application/problem+json";
    struct json_writer w = json_writer_init(&x->body);
    char type[64];
    snprintf(type, sizeof type, "/problems/%s", info->slug);
    json_object_begin(&w);
    json_put(&w, "type", text, str_from(type));
    json_put(&w, "title", text, str_from(info->title));
    json_put(&w, "status", uint, info->status);
    json_put(&w, "code", text, str_from(info->code));
    if (detail != NULL) {
        json_put(&w, "detail", text, str_from(detail));
    }
    return w;
}

void problem_end(struct exchange *x, struct json_writer *w, enum problem p)
{
    json_object_end(w);
    if (p == PROBLEM_UNAUTHENTICATED) {
        response_field(x, "WWW-Authenticate", STR_LITERAL("Bearer realm=\"holdfast\""));
    }
    response_field(x, "Cache-Control", STR_LITERAL("no-store"));
    response_send(x, problem_info(p)->status);
}

void problem_send(struct exchange *x, enum problem p, const char *field, const char *detail)
{
    struct json_writer w = problem_begin(x, p, detail);
    if (field != NULL) {
        json_put(&w, "field", text, str_from(field));
    }
    problem_end(x, &w, p);
}

void problem_send_fault(struct exchange *x, const struct json_fault *fault)
{
    CHECK(fault->set);
    problem_send(x, PROBLEM_INVALID_REQUEST, fault->field, fault->detail);
}

void problem_send_retry(struct exchange *x, enum problem p, const char *detail,
                        uint64_t retry_after_ms)
{
    retry_after_ms = retry_after_ms > 0 ? retry_after_ms : 1000;
    response_fieldf(x, "Retry-After", "%llu", (unsigned long long)((retry_after_ms + 999) / 1000));
    struct json_writer w = problem_begin(x, p, detail);
    json_put(&w, "retry_after_ms", uint, retry_after_ms);
    problem_end(x, &w, p);
}

/* What the engine says no to: the problem and its sentence. Fixed texts, for a replay must give the
 * same bytes. */
static const struct {
    enum problem problem;
    const char *detail;
} refusals[RESULT_MAX + 1] = {
    [RESULT_INVALID] = {PROBLEM_INVALID_REQUEST, "The request contradicts itself or the resource."},
    [RESULT_IDEMPOTENCY_KEY_REUSED] = {PROBLEM_IDEMPOTENCY_KEY_REUSED,
                                       "This Idempotency-Key came with another request before."},
    [RESULT_NOT_FOUND] = {PROBLEM_NOT_FOUND, "What the request names does not exist."},
    [RESULT_FORBIDDEN] = {PROBLEM_FORBIDDEN, "The order belongs to another user."},
    [RESULT_STALE_VERSION] = {PROBLEM_STALE_VERSION,
                              "Get the resource again and repeat the change on what it is now."},
    [RESULT_SALE_CLOSED] = {PROBLEM_SALE_CLOSED, NULL},
    [RESULT_SALE_PAUSED] = {PROBLEM_SALE_PAUSED, NULL},
    [RESULT_SALE_NOT_OPEN] = {PROBLEM_SALE_NOT_OPEN, NULL},
    [RESULT_DENYLISTED] = {PROBLEM_DENYLISTED, NULL},
    [RESULT_QUANTITY_LIMIT] = {PROBLEM_QUANTITY_LIMIT, NULL},
    [RESULT_NOT_ELIGIBLE] = {PROBLEM_NOT_ELIGIBLE, NULL},
    [RESULT_ELIGIBILITY_EXHAUSTED] = {PROBLEM_ELIGIBILITY_EXHAUSTED, NULL},
    [RESULT_ORDER_LIMIT_REACHED] = {PROBLEM_ORDER_LIMIT_REACHED, NULL},
    [RESULT_SOLD_OUT] = {PROBLEM_SOLD_OUT,
                         "Units may come back when orders are cancelled or not paid in time."},
    [RESULT_INSUFFICIENT_STOCK] = {PROBLEM_INSUFFICIENT_STOCK, NULL},
    [RESULT_ORDER_NOT_PAYABLE] = {PROBLEM_ORDER_NOT_PAYABLE, NULL},
    [RESULT_AMOUNT_MISMATCH] = {PROBLEM_AMOUNT_MISMATCH, NULL},
    [RESULT_ORDER_NOT_CANCELLABLE] = {PROBLEM_ORDER_NOT_CANCELLABLE, NULL},
    [RESULT_ORDER_NOT_REFUNDABLE] = {PROBLEM_ORDER_NOT_REFUNDABLE, NULL},
    [RESULT_LEASE_HELD] = {PROBLEM_LEASE_HELD, NULL},
    [RESULT_STALE_FENCING_TOKEN] = {PROBLEM_STALE_FENCING_TOKEN, NULL},
    [RESULT_BACKLOG_FULL] = {PROBLEM_BACKLOG_FULL, "Nothing happened. Try again later."},
    [RESULT_CAPACITY] = {PROBLEM_CAPACITY, "Nothing happened. An operator must raise the limit."},
};

enum problem problem_of_result(enum result r)
{
    CHECK(r > RESULT_OK && r <= RESULT_MAX);
    return refusals[r].problem;
}

static const char *subject_name(uint32_t subject)
{
    static const char *const names[] = {NULL,    "sku",  "sale",       "order",
                                        "lease", "user", "eligibility"};
    return subject < ARRAY_COUNT(names) ? names[subject] : NULL;
}

static void put_word(struct json_writer *w, struct str key, const char *word)
{
    if (word != NULL) {
        json_key(w, key);
        json_text(w, str_from(word));
    }
}

static void put_line(struct json_writer *w, const struct reply *r)
{
    if (r->line != 0) {
        json_put(w, "line", uint, r->line);
    }
}

static void put_time(struct json_writer *w, struct str key, int64_t ms)
{
    if (ms != 0) {
        json_key(w, key);
        json_time(w, ms);
    }
}

void problem_write_reply(struct json_writer *w, const struct reply *r)
{
    switch ((enum result)r->result) {
    case RESULT_NOT_FOUND:
        put_word(w, STR_LITERAL("subject"), subject_name(r->detail));
        put_line(w, r);
        return;
    case RESULT_STALE_VERSION:
        json_put(w, "version", uint, r->version);
        return;
    case RESULT_SALE_NOT_OPEN:
        put_time(w, STR_LITERAL("opens_at"), r->opens_ms);
        return;
    case RESULT_DENYLISTED:
        put_time(w, STR_LITERAL("until"), r->expires_ms);
        return;
    case RESULT_QUANTITY_LIMIT:
        json_put(w, "limit", uint, r->detail);
        put_line(w, r);
        return;
    case RESULT_SOLD_OUT:
        json_put(w, "available", int, r->available);
        put_line(w, r);
        return;
    case RESULT_ORDER_NOT_PAYABLE:
    case RESULT_ORDER_NOT_CANCELLABLE:
    case RESULT_ORDER_NOT_REFUNDABLE:
        put_word(w, STR_LITERAL("order_status"),
                 order_status_name((enum order_status)r->order_status));
        return;
    case RESULT_AMOUNT_MISMATCH:
        json_put(w, "amount", int, r->amount);
        put_word(w, STR_LITERAL("currency"), r->currency);
        return;
    case RESULT_LEASE_HELD:
        put_time(w, STR_LITERAL("expires_at"), r->expires_ms);
        return;
    case RESULT_CAPACITY:
        put_word(w, STR_LITERAL("limit"), engine_limit_name((enum engine_limit)r->detail));
        json_put(w, "retry_after_ms", uint, AGAIN_AFTER_MS);
        return;
    case RESULT_BACKLOG_FULL:
        json_put(w, "retry_after_ms", uint, AGAIN_AFTER_MS);
        return;
    case RESULT_OK:
    case RESULT_INVALID:
    case RESULT_IDEMPOTENCY_KEY_REUSED:
    case RESULT_FORBIDDEN:
    case RESULT_SALE_CLOSED:
    case RESULT_SALE_PAUSED:
    case RESULT_NOT_ELIGIBLE:
    case RESULT_ELIGIBILITY_EXHAUSTED:
    case RESULT_ORDER_LIMIT_REACHED:
    case RESULT_INSUFFICIENT_STOCK:
    case RESULT_STALE_FENCING_TOKEN:
        return;
    }
    CHECK_UNREACHABLE();
}

void problem_send_reply(struct exchange *x, const struct reply *r)
{
    enum problem p = problem_of_result((enum result)r->result);
    if (r->result == RESULT_BACKLOG_FULL || r->result == RESULT_CAPACITY) {
        response_fieldf(x, "Retry-After", "%d", AGAIN_AFTER_MS / 1000);
    }
    struct json_writer w = problem_begin(x, p, refusals[r->result].detail);
    problem_write_reply(&w, r);
    problem_end(x, &w, p);
}
