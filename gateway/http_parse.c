/* Owns: the way from bytes to a struct http_request.
 *
 * Happy path: START (empty lines in front are skipped) → HEAD: bytes are gathered up to the empty line,
 * every line is checked, llhttp runs over the whole head → HTTP_HEAD_DONE → BODY: llhttp runs over what
 * comes, its bytes are gathered → HTTP_MESSAGE_DONE.
 *
 * Failure modes, all HTTP_REFUSED: a head or target too long; a line that ends in a bare LF or holds a
 * bare CR; a folded field (obs-fold) or one without a name; Transfer-Encoding beside Content-Length, on HTTP/1.0, or other
 * than exactly "chunked"; a second Content-Length, Host or other single field; no Host on HTTP/1.1;
 * whatever llhttp refuses; a body beyond body_limit. */
#include "gateway/http_parse.h"

#include <stdlib.h>
#include <strings.h>

#include "base/check.h"

static const char *const field_names[FIELD_COUNT] = {
    [FIELD_HOST] = "Host",
    [FIELD_CONTENT_LENGTH] = "Content-Length",
    [FIELD_TRANSFER_ENCODING] = "Transfer-Encoding",
    [FIELD_CONTENT_TYPE] = "Content-Type",
    [FIELD_CONTENT_ENCODING] = "Content-Encoding",
    [FIELD_AUTHORIZATION] = "Authorization",
    [FIELD_EXPECT] = "Expect",
    [FIELD_IDEMPOTENCY_KEY] = "Idempotency-Key",
    [FIELD_X_REQUEST_ID] = "X-Request-Id",
    [FIELD_TRACEPARENT] = "traceparent",
    [FIELD_WEBHOOK_ID] = "webhook-id",
    [FIELD_WEBHOOK_TIMESTAMP] = "webhook-timestamp",
    [FIELD_WEBHOOK_SIGNATURE] = "webhook-signature",
    [FIELD_ACCEPT] = "Accept",
    [FIELD_IF_MATCH] = "If-Match",
    [FIELD_IF_NONE_MATCH] = "If-None-Match",
    [FIELD_PREFER] = "Prefer",
};

const char *http_field_name(enum http_field f)
{
    CHECK(f < FIELD_COUNT);
    return field_names[f];
}

static enum http_field field_of(const char *name, size_t size)
{
    for (int i = 0; i < FIELD_COUNT; i++) {
        const char *known = field_names[i];
        if ((known[0] | 0x20) == (name[0] | 0x20) && strncasecmp(known, name, size) == 0 &&
            known[size] == '\0') {
            return (enum http_field)i;
        }
    }
    return FIELD_OTHER;
}

void http_request_init(struct http_request *r)
{
    /* Not the inline memory: it is large, and written before it is read. */
    memset(r, 0, offsetof(struct http_request, head_inline));
    r->head = r->head_inline;
    r->head_capacity = sizeof r->head_inline;
    r->body_data = r->body_inline;
    r->body_capacity = sizeof r->body_inline;
    r->body = (struct str){"", 0};
    r->body_limit = HTTP_BODY_SIZE_MAX;
}

void http_request_close(struct http_request *r)
{
    if (r->head != r->head_inline) {
        free(r->head);
    }
    if (r->body_data != r->body_inline) {
        free(r->body_data);
    }
    r->head = r->head_inline;
    r->body_data = r->body_inline;
}

static struct str trim(struct str s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t')) {
        s.len--;
    }
    return s;
}

static bool list_value(struct str value, bool (*each)(void *ctx, struct str element), void *ctx)
{
    uint32_t start = 0;
    bool quoted = false;
    for (uint32_t i = 0; i <= value.len; i++) {
        if (i < value.len && value.ptr[i] == '"') {
            quoted = !quoted;
        }
        if (i == value.len || (value.ptr[i] == ',' && !quoted)) {
            struct str element = trim((struct str){value.ptr + start, i - start});
            if (element.len > 0 && !each(ctx, element)) {
                return false;
            }
            start = i + 1;
        }
    }
    return true;
}

void http_field_list(const struct http_request *r, enum http_field field,
                     bool (*each)(void *ctx, struct str element), void *ctx)
{
    if (r->fields[field].ptr == NULL || !list_value(r->fields[field], each, ctx)) {
        return;
    }
    for (size_t i = 0; i < r->repeated_count; i++) {
        if (r->repeated[i].field == field && !list_value(r->repeated[i].value, each, ctx)) {
            return;
        }
    }
}

static int refuse(struct http_parser *p, enum problem problem, const char *why)
{
    p->problem = problem;
    p->why = why;
    return -1;
}

/* ---- llhttp's callbacks: the head is in one piece, so each comes once with the whole run ---- */

static struct http_parser *parser_of(llhttp_t *llhttp)
{
    return container_of(llhttp, struct http_parser, llhttp);
}

static int on_url(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http_parser *p = parser_of(llhttp);
    if (size > HTTP_TARGET_SIZE_MAX) {
        return refuse(p, PROBLEM_URI_TOO_LONG, "The request target may have at most 2048 bytes.");
    }
    p->request->target = (struct str){at, (uint32_t)size};
    return 0;
}

static int on_header_field(llhttp_t *llhttp, const char *at, size_t size)
{
    parser_of(llhttp)->field = field_of(at, size);
    return 0;
}

static int on_header_value(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http_parser *p = parser_of(llhttp);
    struct http_request *r = p->request;
    if (p->phase != HTTP_PHASE_HEAD || p->field == FIELD_OTHER) {
        return 0; /* trailer fields are read over: nothing here may come late */
    }
    struct str value = trim((struct str){at, (uint32_t)size});
    if (r->fields[p->field].ptr == NULL) {
        r->fields[p->field] = value;
        return 0;
    }
    if (p->field < FIELD_LIST_FIRST) {
        return refuse(p, PROBLEM_INVALID_REQUEST,
                      "A header field that may come once is there twice.");
    }
    if (r->repeated_count == HTTP_REPEATED_MAX) {
        return refuse(p, PROBLEM_HEADERS_TOO_LARGE, "A header field is repeated too often.");
    }
    r->repeated[r->repeated_count].field = p->field;
    r->repeated[r->repeated_count++].value = value;
    return 0;
}

static bool is_host(struct str s)
{
    for (uint32_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              (c != '\0' && strchr("-._~:[]%!$&'()*+,;=", c) != NULL))) {
            return false;
        }
    }
    return true;
}

static int on_headers_complete(llhttp_t *llhttp)
{
    struct http_parser *p = parser_of(llhttp);
    struct http_request *r = p->request;
    struct str encoding = r->fields[FIELD_TRANSFER_ENCODING];
    if (llhttp->http_major != 1 || llhttp->http_minor > 1) {
        return refuse(p, PROBLEM_VERSION_NOT_SUPPORTED, "HTTP/1.1 and HTTP/1.0 are spoken here.");
    }
    r->method = llhttp->method;
    r->minor = llhttp->http_minor;
    r->has_length = r->fields[FIELD_CONTENT_LENGTH].ptr != NULL;
    r->chunked = encoding.ptr != NULL;
    r->content_length = r->has_length ? llhttp->content_length : 0;
    if (r->chunked && (r->has_length || r->minor == 0)) {
        return refuse(p, PROBLEM_INVALID_REQUEST,
                      "Transfer-Encoding must not come with Content-Length or on HTTP/1.0.");
    }
    if (r->chunked && (encoding.len != 7 || strncasecmp(encoding.ptr, "chunked", 7) != 0)) {
        return refuse(p, PROBLEM_INVALID_REQUEST, "The only transfer coding taken is chunked.");
    }
    if (r->fields[FIELD_HOST].ptr == NULL ? r->minor == 1 : !is_host(r->fields[FIELD_HOST])) {
        return refuse(p, PROBLEM_INVALID_REQUEST, "The Host header is missing or is no host.");
    }
    struct str expect = r->fields[FIELD_EXPECT];
    if (expect.ptr != NULL) {
        if (expect.len != 12 || strncasecmp(expect.ptr, "100-continue", 12) != 0) {
            return refuse(p, PROBLEM_EXPECTATION_FAILED,
                          "The only expectation met is 100-continue.");
        }
        r->expect_continue = r->minor == 1;
    }
    r->keep_alive = r->minor == 1 && !(llhttp->flags & F_CONNECTION_CLOSE);
    llhttp->upgrade = 0; /* an offer to speak another protocol may be ignored: RFC 9110 §7.8 */
    return 0;
}

static int on_body(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http_parser *p = parser_of(llhttp);
    struct http_request *r = p->request;
    size_t need = r->body.len + size;
    if (need > r->body_limit) {
        return refuse(p, PROBLEM_CONTENT_TOO_LARGE, "The body is larger than this route takes.");
    }
    if (need > r->body_capacity) {
        size_t capacity = r->body_capacity * 2;
        while (capacity < need) {
            capacity *= 2;
        }
        char *grown = malloc(capacity);
        CHECK(grown != NULL);
        memcpy(grown, r->body_data, r->body.len);
        if (r->body_data != r->body_inline) {
            free(r->body_data);
        }
        r->body_data = grown;
        r->body_capacity = capacity;
    }
    memcpy(r->body_data + r->body.len, at, size);
    r->body = (struct str){r->body_data, (uint32_t)need};
    return 0;
}

static int on_message_complete(llhttp_t *llhttp)
{
    parser_of(llhttp)->phase = HTTP_PHASE_COMPLETE;
    return HPE_PAUSED; /* what follows belongs to the next request */
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

void http_parser_begin(struct http_parser *p, struct http_request *r)
{
    llhttp_init(&p->llhttp, HTTP_REQUEST, &settings);
    p->request = r;
    p->phase = HTTP_PHASE_START;
    p->field = FIELD_OTHER;
    p->problem = PROBLEM_NONE;
    p->why = NULL;
}

static enum http_event parse_failed(struct http_parser *p, llhttp_errno_t error)
{
    if (p->problem == PROBLEM_NONE) {
        p->problem = PROBLEM_INVALID_REQUEST;
        p->why = error == HPE_INVALID_METHOD ? "This is no HTTP request method."
                                             : "This is not a well-formed HTTP/1.1 request.";
        if (error == HPE_INVALID_VERSION || error == HPE_PAUSED_H2_UPGRADE) {
            p->problem = PROBLEM_VERSION_NOT_SUPPORTED;
            p->why = "HTTP/1.1 and HTTP/1.0 are spoken here.";
        }
    }
    return HTTP_REFUSED;
}

/* Exactly two spaces part method, target and version (RFC 9112 §3); llhttp takes more. */
static bool request_line_is_good(struct http_parser *p)
{
    const char *at = p->request->head, *end = memchr(at, '\r', p->request->head_size);
    unsigned spaces = 0;
    while (end != NULL && at < end) {
        spaces += *at == ' ';
        if (*at == '\t' || (*at == ' ' && at[1] == ' ')) {
            spaces = 3;
        }
        at++;
    }
    if (spaces > 2) {
        refuse(p, PROBLEM_INVALID_REQUEST, "This is not a well-formed HTTP/1.1 request line.");
        return false;
    }
    return true;
}

/* Every line ends in CRLF, holds no other CR, and none but the first may begin with white space: that
 * would be a folded field, or a line hidden between the request line and the fields. */
static bool head_lines_are_good(struct http_parser *p)
{
    const char *line = p->request->head, *end = line + p->request->head_size;
    while (line < end) {
        const char *lf = memchr(line, '\n', (size_t)(end - line));
        if (lf == NULL || lf == line || lf[-1] != '\r' ||
            memchr(line, '\r', (size_t)(lf - line - 1)) != NULL) {
            refuse(p, PROBLEM_INVALID_REQUEST, "A line of the head does not end in CRLF.");
            return false;
        }
        if (line[0] == ':') { /* llhttp takes a field without a name */
            refuse(p, PROBLEM_INVALID_REQUEST, "A header field has no name.");
            return false;
        }
        if (line[0] == ' ' || line[0] == '\t') {
            refuse(p, PROBLEM_INVALID_REQUEST, "A header field is folded over two lines.");
            return false;
        }
        line = lf + 1;
    }
    return true;
}

/* Gathers the head; returns true when the empty line that ends it has come. */
static bool gather_head(struct http_parser *p, const char *data, size_t size, size_t *taken)
{
    struct http_request *r = p->request;
    size_t room = HTTP_HEAD_SIZE_MAX - r->head_size;
    size_t n = size < room ? size : room;
    if (r->head_size + n > r->head_capacity) {
        char *grown = malloc(HTTP_HEAD_SIZE_MAX);
        CHECK(grown != NULL);
        memcpy(grown, r->head, r->head_size);
        CHECK(r->head == r->head_inline);
        r->head = grown;
        r->head_capacity = HTTP_HEAD_SIZE_MAX;
    }
    memcpy(r->head + r->head_size, data, n);
    size_t total = r->head_size + n;
    size_t from = r->head_scanned;
    for (;;) {
        const char *lf = memchr(r->head + from, '\n', total - from);
        if (lf == NULL) {
            break;
        }
        size_t at = (size_t)(lf - r->head);
        /* A bare LF may end the head too; head_lines_are_good refuses it then. Waiting for a proper
         * end instead would let the rest of the connection pass as this head. */
        bool ends = (at >= 1 && r->head[at - 1] == '\n') ||
                    (at >= 2 && r->head[at - 1] == '\r' && r->head[at - 2] == '\n');
        if (ends) {
            *taken += at + 1 - r->head_size;
            r->head_size = at + 1;
            return true;
        }
        from = at + 1;
    }
    r->head_scanned = total;
    *taken += n;
    r->head_size = total;
    return false;
}

static enum http_event feed_head(struct http_parser *p, const char *data, size_t size,
                                 size_t *taken)
{
    struct http_request *r = p->request;
    if (!gather_head(p, data, size, taken)) {
        if (r->head_size < HTTP_HEAD_SIZE_MAX) {
            return HTTP_MORE;
        }
        bool in_line = memchr(r->head, '\n', r->head_size) == NULL;
        refuse(p, in_line ? PROBLEM_URI_TOO_LONG : PROBLEM_HEADERS_TOO_LARGE,
               in_line ? "The request target may have at most 2048 bytes."
                       : "The head of a request may have at most 8192 bytes.");
        return HTTP_REFUSED;
    }
    if (!head_lines_are_good(p) || !request_line_is_good(p)) {
        return HTTP_REFUSED;
    }
    llhttp_errno_t error = llhttp_execute(&p->llhttp, r->head, r->head_size);
    bool complete = p->phase == HTTP_PHASE_COMPLETE;
    if (error != HPE_OK && !(error == HPE_PAUSED && complete)) {
        return parse_failed(p, error);
    }
    if (!complete) {
        p->phase = HTTP_PHASE_BODY;
    }
    return HTTP_HEAD_DONE;
}

static enum http_event feed_body(struct http_parser *p, const char *data, size_t size,
                                 size_t *taken)
{
    struct http_request *r = p->request;
    if (r->has_length && r->content_length > r->body_limit) {
        refuse(p, PROBLEM_CONTENT_TOO_LARGE, "The body is larger than this route takes.");
        return HTTP_REFUSED;
    }
    if (size == 0) {
        return HTTP_MORE;
    }
    llhttp_errno_t error = llhttp_execute(&p->llhttp, data, size);
    if (error == HPE_OK) {
        *taken += size;
        return HTTP_MORE;
    }
    if (error != HPE_PAUSED || p->phase != HTTP_PHASE_COMPLETE) {
        return parse_failed(p, error);
    }
    const char *stopped = llhttp_get_error_pos(&p->llhttp);
    CHECK(stopped >= data && stopped <= data + size);
    *taken += (size_t)(stopped - data);
    return HTTP_MESSAGE_DONE;
}

enum http_event http_parser_feed(struct http_parser *p, const char *data, size_t size,
                                 size_t *taken)
{
    *taken = 0;
    switch (p->phase) {
    case HTTP_PHASE_START:
        /* RFC 9112 §2.2: empty lines in front of a request are read over. */
        while (*taken < size && (data[*taken] == '\r' || data[*taken] == '\n')) {
            ++*taken;
        }
        if (*taken == size) {
            return HTTP_MORE;
        }
        p->phase = HTTP_PHASE_HEAD;
        return feed_head(p, data + *taken, size - *taken, taken);
    case HTTP_PHASE_HEAD:
        return feed_head(p, data, size, taken);
    case HTTP_PHASE_BODY:
        return feed_body(p, data, size, taken);
    case HTTP_PHASE_COMPLETE:
        return HTTP_MESSAGE_DONE;
    }
    CHECK_UNREACHABLE();
}
