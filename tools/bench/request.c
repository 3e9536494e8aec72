#include "tools/bench/request.h"

#include <string.h>

#include "base/check.h"
#include "proto/order_id.h"

void request_write(struct text *to, const struct request *r)
{
    text_appendf(to, "%s %s HTTP/1.1\r\nHost: %s\r\n", r->method, r->path, r->host);
    if (r->bearer != NULL) {
        text_appendf(to, "Authorization: Bearer %s\r\n", r->bearer);
    }
    if (r->key != NULL) {
        text_appendf(to, "Idempotency-Key: \"%s\"\r\n", r->key);
    }
    if (r->headers != NULL) {
        text_append_str(to, str_from(r->headers));
    }
    if (r->body != NULL) {
        text_appendf(to, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                     strlen(r->body));
        text_append_str(to, str_from(r->body));
    } else if (strcmp(r->method, "GET") != 0) {
        text_appendf(to, "Content-Length: 0\r\n\r\n");
    } else {
        text_appendf(to, "\r\n");
    }
}

enum verdict request_judge(enum http_failure failure, const struct http_reply *reply)
{
    if (failure == HTTP_UNREACHABLE) {
        return VERDICT_TRY_AGAIN;
    }
    if (failure != HTTP_ANSWERED) {
        return VERDICT_UNKNOWN;
    }
    if (reply->status < 300) {
        return VERDICT_DONE;
    }
    if (reply->status == 429 || reply->status == 503) {
        return VERDICT_TRY_AGAIN;
    }
    return reply->status < 500 && reply->status != 408 ? VERDICT_REFUSED : VERDICT_UNKNOWN;
}

uint64_t request_backoff_ms(const struct http_reply *reply, unsigned attempts)
{
    struct str precise = {"", 0};
    const char *at = memmem(reply->body.ptr, reply->body.len, "\"retry_after_ms\":", 17);
    if (at != NULL) {
        precise = (struct str){at + 17, (uint32_t)(reply->body.ptr + reply->body.len - at - 17)};
    }
    uint64_t ms = 0;
    for (uint32_t i = 0; i < precise.len && i < 7; i++) {
        if (precise.ptr[i] >= '0' && precise.ptr[i] <= '9') {
            ms = ms * 10 + (uint64_t)(precise.ptr[i] - '0');
        } else if (precise.ptr[i] != ' ' || ms != 0) {
            break;
        }
    }
    if (ms != 0) {
        return ms;
    }
    if (reply->retry_after_ms != 0) {
        return reply->retry_after_ms;
    }
    ms = 10ULL << (attempts < 6 ? attempts : 6);
    return ms < 500 ? ms : 500;
}

struct str request_scan_text(struct str body, struct str name)
{
    const char *end = body.ptr + body.len;
    const char *at = memmem(body.ptr, body.len, name.ptr, name.len);
    if (at == NULL) {
        return (struct str){"", 0};
    }
    at += name.len;
    while (at < end && *at == ' ') {
        at++;
    }
    if (at == end || *at != '"') {
        return (struct str){"", 0};
    }
    at++;
    const char *quote = memchr(at, '"', (size_t)(end - at));
    return quote != NULL ? (struct str){at, (uint32_t)(quote - at)} : (struct str){"", 0};
}

uint64_t request_order_id(const struct http_reply *reply)
{
    uint64_t id;
    struct str text = request_scan_text(reply->body, STR_LITERAL("\"order_id\":"));
    return order_id_parse(text, &id) == 0 ? id : 0;
}

struct str request_outcome(enum http_failure failure, const struct http_reply *reply)
{
    if (failure != HTTP_ANSWERED) {
        return str_from(http_failure_name(failure));
    }
    if (reply->status < 300) {
        return STR_LITERAL("OK");
    }
    struct str code = request_scan_text(reply->body, STR_LITERAL("\"code\":"));
    return code.len > 0 ? code : STR_LITERAL("NO_CODE");
}

void tally_add(struct tally *t, struct str name, uint64_t n)
{
    for (size_t i = 0; i < t->count; i++) {
        if (str_equal(str_from(t->rows[i].name), name)) {
            t->rows[i].count += n;
            return;
        }
    }
    /* The last row is kept for OTHER. */
    bool fits = name.len < TALLY_NAME_SIZE_MAX && t->count < TALLY_NAMES_MAX - 1;
    if (!fits && !str_equal(name, STR_LITERAL("OTHER"))) {
        tally_add(t, STR_LITERAL("OTHER"), n);
        return;
    }
    CHECK(t->count < TALLY_NAMES_MAX);
    str_copy(t->rows[t->count].name, sizeof t->rows[t->count].name, name);
    t->rows[t->count].count = n;
    t->count++;
}

uint64_t tally_get(const struct tally *t, const char *name)
{
    for (size_t i = 0; i < t->count; i++) {
        if (strcmp(t->rows[i].name, name) == 0) {
            return t->rows[i].count;
        }
    }
    return 0;
}
