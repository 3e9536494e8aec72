/* http_parse: bytes to requests. llhttp does the grammar; this adds what it lets through and what it
 * does not know of: limits, and the refusals that keep a proxy in front and this server from reading
 * two different requests out of the same bytes (RFC 9112 §11.2).
 *
 * A request is fed into http_parser_feed as bytes come. Its head is gathered whole before anything
 * looks at it, so every field is one run of bytes that stays in place until the request is released. */
#ifndef GATEWAY_HTTP_PARSE_H
#define GATEWAY_HTTP_PARSE_H

#include <llhttp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "gateway/problem.h"

#define HTTP_HEAD_SIZE_MAX   8192  /* request line and fields: 431 */
#define HTTP_TARGET_SIZE_MAX 2048  /* 414 */
#define HTTP_BODY_SIZE_MAX   65536 /* of any route: 413 */
#define HTTP_HEAD_INLINE     1536
#define HTTP_BODY_INLINE     1024
#define HTTP_REPEATED_MAX    8 /* further values of list fields, kept */

enum http_field {
    FIELD_HOST,
    FIELD_CONTENT_LENGTH,
    FIELD_TRANSFER_ENCODING,
    FIELD_CONTENT_TYPE,
    FIELD_CONTENT_ENCODING,
    FIELD_AUTHORIZATION,
    FIELD_EXPECT,
    FIELD_IDEMPOTENCY_KEY,
    FIELD_X_REQUEST_ID,
    FIELD_TRACEPARENT,
    FIELD_WEBHOOK_ID,
    FIELD_WEBHOOK_TIMESTAMP,
    FIELD_WEBHOOK_SIGNATURE,
    FIELD_LIST_FIRST, /* from here on a field may come more than once: its values form one list */
    FIELD_ACCEPT = FIELD_LIST_FIRST,
    FIELD_IF_MATCH,
    FIELD_IF_NONE_MATCH,
    FIELD_PREFER,
    FIELD_COUNT,
    FIELD_OTHER = FIELD_COUNT,
};
const char *http_field_name(enum http_field f); /* "Idempotency-Key" */

struct http_request {
    uint8_t method;  /* llhttp_method_t */
    uint8_t minor;   /* HTTP/1.minor */
    bool keep_alive; /* the client allows another request */
    bool expect_continue;
    bool chunked, has_length;
    uint64_t content_length;
    struct str target;
    struct str fields[FIELD_COUNT]; /* ptr NULL: absent */
    struct {
        enum http_field field;
        struct str value;
    } repeated[HTTP_REPEATED_MAX];
    size_t repeated_count;
    struct str body; /* when the message is complete */

    size_t body_limit;
    char *head, *body_data;
    size_t head_size, head_capacity, head_scanned, body_capacity;
    char head_inline[HTTP_HEAD_INLINE];
    char body_inline[HTTP_BODY_INLINE];
};

void http_request_init(struct http_request *r);
void http_request_close(struct http_request *r); /* frees what outgrew the inline memory */

/* Calls each for every element, trimmed and not empty, of a list field's values. Stops when it returns
 * false. */
void http_field_list(const struct http_request *r, enum http_field field,
                     bool (*each)(void *ctx, struct str element), void *ctx);

enum http_event {
    HTTP_MORE,         /* all bytes taken; the request is not whole yet */
    HTTP_HEAD_DONE,    /* the head is there: set body_limit, then go on feeding */
    HTTP_MESSAGE_DONE, /* the request is whole; bytes left over belong to the next */
    HTTP_REFUSED,      /* problem and why are set; the connection cannot go on after the answer */
};

enum http_phase { HTTP_PHASE_START, HTTP_PHASE_HEAD, HTTP_PHASE_BODY, HTTP_PHASE_COMPLETE };

struct http_parser {
    llhttp_t llhttp;
    struct http_request *request;
    enum http_phase phase;
    enum http_field field; /* whose value comes next */
    enum problem problem;
    const char *why;
};

/* Begins to read one request into r. */
void http_parser_begin(struct http_parser *p, struct http_request *r);

/* Takes bytes; *taken says how many. Call again after HTTP_HEAD_DONE, also with no bytes left. */
enum http_event http_parser_feed(struct http_parser *p, const char *data, size_t size,
                                 size_t *taken);

#endif
