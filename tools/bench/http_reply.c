#include "tools/bench/http_reply.h"

#include <strings.h>

#include "base/clock.h"

static bool name_is(struct str name, const char *expected, size_t len)
{
    return name.len == len && strncasecmp(name.ptr, expected, len) == 0;
}
#define NAME_IS(name, literal) name_is(name, literal, sizeof(literal) - 1)

/* Digits only, at most 18 of them. Returns -1 when it is no such number. */
static int number_parse(struct str text, uint64_t *value)
{
    if (text.len == 0 || text.len > 18) {
        return -1;
    }
    uint64_t v = 0;
    for (uint32_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') {
            return -1;
        }
        v = v * 10 + (uint64_t)(text.ptr[i] - '0');
    }
    *value = v;
    return 0;
}

/* One header line. *length_seen: whether a Content-Length was among the ones before. */
static int header_parse(struct http_reply *r, struct str name, struct str value, bool *length_seen)
{
    uint64_t n;
    switch (name.ptr[0] | 0x20) {
    case 'c':
        if (NAME_IS(name, "content-length")) {
            if (*length_seen || number_parse(value, &n) != 0 || n > HTTP_REPLY_BODY_SIZE_MAX) {
                return -1;
            }
            *length_seen = true;
            r->body_size = (size_t)n;
        } else if (NAME_IS(name, "connection")) {
            r->close = NAME_IS(value, "close");
        }
        return 0;
    case 't':
        return NAME_IS(name, "transfer-encoding") ? -1 : 0;
    case 'r':
        /* A date is allowed there too; we only ever send, and only ever understand, seconds. */
        if (NAME_IS(name, "retry-after") && number_parse(value, &n) == 0) {
            r->retry_after_ms = n < 86400 ? n * 1000 : 86400000;
        }
        return 0;
    case 'i':
        if (NAME_IS(name, "idempotency-replayed")) {
            r->replayed = NAME_IS(value, "true");
        }
        return 0;
    case 'h':
        if (NAME_IS(name, "holdfast-log-index")) {
            return number_parse(value, &r->log_index);
        } else if (NAME_IS(name, "holdfast-time")) {
            return clock_parse_rfc3339(value, &r->time_ms);
        }
        return 0;
    default:
        return 0;
    }
}

static struct str trim(const char *from, const char *end)
{
    while (from < end && (*from == ' ' || *from == '\t')) {
        from++;
    }
    while (end > from && (end[-1] == ' ' || end[-1] == '\t')) {
        end--;
    }
    return (struct str){from, (uint32_t)(end - from)};
}

/* "HTTP/1.1 201 Created". */
static int status_parse(struct http_reply *r, const char *line, size_t size)
{
    if (size < 12 || memcmp(line, "HTTP/1.1 ", 9) != 0 || (size > 12 && line[12] != ' ')) {
        return -1;
    }
    uint64_t status;
    if (number_parse((struct str){line + 9, 3}, &status) != 0 || status < 200 || status > 599) {
        return -1;
    }
    r->status = (unsigned)status;
    return 0;
}

/* The head without its empty last line: every line in it ends with CR LF. */
static int head_parse(struct http_reply *r, const char *data, size_t size)
{
    const char *end = data + size;
    const char *line = data;
    bool first = true;
    bool length_seen = false;
    while (line < end) {
        const char *feed = memchr(line, '\n', (size_t)(end - line));
        if (feed == NULL || feed == line || feed[-1] != '\r') {
            return -1;
        }
        size_t len = (size_t)(feed - 1 - line);
        if (first) {
            if (status_parse(r, line, len) != 0) {
                return -1;
            }
            first = false;
        } else {
            const char *colon = memchr(line, ':', len);
            if (colon == NULL || colon == line || line[0] == ' ' || line[0] == '\t') {
                return -1;
            }
            struct str name = {line, (uint32_t)(colon - line)};
            if (header_parse(r, name, trim(colon + 1, feed - 1), &length_seen) != 0) {
                return -1;
            }
        }
        line = feed + 1;
    }
    bool bodyless = r->status == 204 || r->status == 304;
    if (bodyless) {
        r->body_size = 0;
    }
    return length_seen || bodyless ? 0 : -1;
}

long http_reply_parse(struct http_reply *r, const char *data, size_t size)
{
    if (r->head_size == 0) {
        const char *end = memmem(data, size, "\r\n\r\n", 4);
        if (end == NULL) {
            return size > HTTP_REPLY_HEAD_SIZE_MAX ? -1 : 0;
        }
        size_t head_size = (size_t)(end - data) + 4;
        if (head_size > HTTP_REPLY_HEAD_SIZE_MAX || head_parse(r, data, head_size - 2) != 0) {
            return -1;
        }
        r->head_size = head_size;
    }
    if (size < r->head_size + r->body_size) {
        return 0;
    }
    r->body = (struct str){data + r->head_size, (uint32_t)r->body_size};
    return (long)(r->head_size + r->body_size);
}
