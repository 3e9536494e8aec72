/* Owns: what the header fields of a request say: who asks, which media types, which version is meant,
 * under which key, how long to wait.
 *
 * Failure modes: each becomes the refusal that docs/problems.md names. Preferences (RFC 7240) alone are
 * never refused: what is not understood is passed over. */
#include "gateway/route_parts.h"

#include <strings.h>

#include "base/clock.h"
#include "gateway/handlers.h"

struct accept_search {
    struct str wanted[2]; /* "application/json", and the type with a * */
    bool found;
};

static bool accept_matches(void *ctx, struct str element)
{
    struct accept_search *s = ctx;
    const char *semicolon = memchr(element.ptr, ';', element.len);
    uint32_t len = semicolon != NULL ? (uint32_t)(semicolon - element.ptr) : element.len;
    while (len > 0 && element.ptr[len - 1] == ' ') {
        len--;
    }
    struct str type = {element.ptr, len};
    bool refused = false; /* q=0 */
    for (uint32_t i = len; i + 3 < element.len + 1; i++) {
        struct str rest = {element.ptr + i, element.len - i};
        if (rest.len >= 3 && (rest.ptr[0] == 'q' || rest.ptr[0] == 'Q') && rest.ptr[1] == '=' &&
            rest.ptr[2] == '0') {
            refused = true;
            for (uint32_t j = 3; j < rest.len && rest.ptr[j] != ';'; j++) {
                refused =
                    refused && (rest.ptr[j] == '.' || rest.ptr[j] == '0' || rest.ptr[j] == ' ');
            }
        }
    }
    bool match = (type.len == 3 && memcmp(type.ptr, "*/*", 3) == 0);
    for (int i = 0; i < 2 && !match; i++) {
        match =
            type.len == s->wanted[i].len && strncasecmp(type.ptr, s->wanted[i].ptr, type.len) == 0;
    }
    s->found = s->found || (match && !refused);
    return !s->found;
}

bool route_read_accept(struct exchange *x)
{
    struct accept_search json = {{STR_LITERAL("application/json"), STR_LITERAL("application/*")},
                                 false};
    struct accept_search text = {{STR_LITERAL("text/plain"), STR_LITERAL("text/*")}, false};
    bool is_text = x->route->handle == metrics_get || x->route->handle == health_live ||
                   x->route->handle == health_ready;
    struct accept_search *search = is_text ? &text : &json;
    if (x->request.fields[FIELD_ACCEPT].ptr == NULL) {
        return true;
    }
    http_field_list(&x->request, FIELD_ACCEPT, accept_matches, search);
    return search->found ||
           route_refuse(x, PROBLEM_NOT_ACCEPTABLE, "header:Accept",
                        is_text ? "Offered here: text/plain." : "Offered here: application/json.");
}

bool route_read_content_type(struct exchange *x)
{
    bool has_body = x->request.chunked || x->request.content_length > 0;
    unsigned flags = x->route->flags;
    if (!(flags & (ROUTE_BODY | ROUTE_BODY_OPTIONAL))) {
        return !has_body ||
               route_refuse(x, PROBLEM_INVALID_REQUEST, "", "This request takes no body.");
    }
    if (!has_body) {
        return (flags & ROUTE_BODY_OPTIONAL) ||
               route_refuse(x, PROBLEM_INVALID_REQUEST, "", "This request needs a body.");
    }
    struct str type = x->request.fields[FIELD_CONTENT_TYPE];
    const char *semicolon = type.ptr != NULL ? memchr(type.ptr, ';', type.len) : NULL;
    uint32_t len = semicolon != NULL ? (uint32_t)(semicolon - type.ptr) : type.len;
    while (len > 0 && type.ptr[len - 1] == ' ') {
        len--;
    }
    bool good = type.ptr != NULL && len == 16 && strncasecmp(type.ptr, "application/json", 16) == 0;
    if (good && semicolon != NULL) {
        struct str rest = {semicolon + 1, type.len - (uint32_t)(semicolon + 1 - type.ptr)};
        while (rest.len > 0 && rest.ptr[0] == ' ') {
            rest = (struct str){rest.ptr + 1, rest.len - 1};
        }
        good = (rest.len == 13 && strncasecmp(rest.ptr, "charset=utf-8", 13) == 0) ||
               (rest.len == 15 && strncasecmp(rest.ptr, "charset=\"utf-8\"", 15) == 0);
    }
    if (!good || x->request.fields[FIELD_CONTENT_ENCODING].ptr != NULL) {
        return route_refuse(x, PROBLEM_UNSUPPORTED_MEDIA_TYPE, "header:Content-Type",
                            "Bodies are application/json in UTF-8, without a content coding.");
    }
    return true;
}

/* "7" or "7.hash" (as GET gives it) → 7. */
static bool parse_etag(struct str s, uint64_t *version)
{
    uint64_t value = 0;
    uint32_t i = 1;
    if (s.len < 3 || s.ptr[0] != '"' || s.ptr[s.len - 1] != '"') {
        return false;
    }
    for (; i < s.len - 1 && s.ptr[i] >= '0' && s.ptr[i] <= '9' && i < 19; i++) {
        value = value * 10 + (uint64_t)(s.ptr[i] - '0');
    }
    *version = value;
    return i > 1 && (i == s.len - 1 || s.ptr[i] == '.');
}

static bool precondition(const struct exchange *x, uint64_t *version)
{
    struct str match = x->request.fields[FIELD_IF_MATCH];
    struct str none = x->request.fields[FIELD_IF_NONE_MATCH];
    if (x->request.repeated_count > 0 && match.ptr != NULL) {
        return false;
    }
    if (match.ptr != NULL && none.ptr == NULL) {
        if (match.len == 1 && match.ptr[0] == '*') {
            *version = COMMAND_VERSION_ANY;
            return true;
        }
        return parse_etag(match, version) && *version != 0;
    }
    *version = 0;
    return match.ptr == NULL && none.ptr != NULL && none.len == 1 && none.ptr[0] == '*';
}

uint64_t route_expected_version(const struct exchange *x)
{
    uint64_t version = COMMAND_VERSION_ANY;
    if (x->request.fields[FIELD_IF_MATCH].ptr != NULL ||
        x->request.fields[FIELD_IF_NONE_MATCH].ptr != NULL) {
        CHECK(precondition(x, &version));
    }
    return version;
}

bool route_read_precondition(struct exchange *x)
{
    bool given = x->request.fields[FIELD_IF_MATCH].ptr != NULL ||
                 x->request.fields[FIELD_IF_NONE_MATCH].ptr != NULL;
    uint64_t version;
    if (!(x->route->flags & (ROUTE_IF_MATCH | ROUTE_IF_MATCH_OPTIONAL))) {
        return true;
    }
    if (!given) {
        return !(x->route->flags & ROUTE_IF_MATCH) ||
               route_refuse(
                   x, PROBLEM_VERSION_REQUIRED, "header:If-Match",
                   "Send If-Match with the ETag of what is to be replaced, or If-None-Match: * to "
                   "create.");
    }
    return precondition(x, &version) ||
           route_refuse(x, PROBLEM_INVALID_REQUEST, "header:If-Match",
                        "Send one ETag as GET gave it, or If-None-Match: *.");
}

/* The draft says a quoted string (an sf-string); a bare one is taken too. */
bool route_read_key(struct exchange *x)
{
    struct str key = x->request.fields[FIELD_IDEMPOTENCY_KEY];
    if (!(x->route->flags & (ROUTE_KEY | ROUTE_KEY_OPTIONAL))) {
        return true;
    }
    if (key.ptr == NULL) {
        return !(x->route->flags & ROUTE_KEY) ||
               route_refuse(
                   x, PROBLEM_IDEMPOTENCY_KEY_MISSING, "header:Idempotency-Key",
                   "Send a key of your own making that names this request, and send it again with "
                   "every repetition.");
    }
    if (key.len >= 2 && key.ptr[0] == '"' && key.ptr[key.len - 1] == '"') {
        key = (struct str){key.ptr + 1, key.len - 2};
    }
    if (!str_is_identifier(key, KEY_SIZE_MAX)) {
        return route_refuse(x, PROBLEM_INVALID_REQUEST, "header:Idempotency-Key",
                            "A key has 1 to 128 characters of A-Z a-z 0-9 . _ : @ | + ~ -.");
    }
    x->key = key;
    return true;
}

static bool parse_seconds(struct str s, uint64_t max_ms, uint64_t *out_ms)
{
    uint64_t value;
    if (s.len > 6 || !str_to_u64(s, &value)) {
        return false;
    }
    *out_ms = value * 1000 < max_ms ? value * 1000 : max_ms;
    return true;
}

/* RFC 7240: what is not known or malformed is passed over. */
static bool prefer_element(void *ctx, struct str element)
{
    struct exchange *x = ctx;
    if (element.len == 13 && strncasecmp(element.ptr, "respond-async", 13) == 0) {
        x->respond_async = true;
    } else if (element.len > 5 && strncasecmp(element.ptr, "wait=", 5) == 0 && !x->wait_given) {
        x->wait_given = parse_seconds((struct str){element.ptr + 5, element.len - 5},
                                      x->gateway->limits.wait_max_ms, &x->wait_ms);
    }
    return true;
}

bool route_read_wait(struct exchange *x)
{
    x->wait_ms = x->gateway->limits.wait_ms;
    http_field_list(&x->request, FIELD_PREFER, prefer_element, x);
    struct str wait = exchange_query(x, "wait");
    if (wait.ptr != NULL && !parse_seconds(wait, x->gateway->limits.wait_max_ms, &x->wait_ms)) {
        return route_refuse(x, PROBLEM_INVALID_REQUEST, "query:wait",
                            "wait is a whole number of seconds.");
    }
    return true;
}

static void set_scope(struct exchange *x)
{
    bool user = x->caller.role == ROLE_USER;
    struct str name = str_from(x->caller.name);
    memcpy(x->scope_text, user ? "u:" : "k:", 2);
    memcpy(x->scope_text + 2, name.ptr, name.len);
    x->scope = (struct str){x->scope_text, name.len + 2};
}

bool route_read_caller(struct exchange *x)
{
    struct gateway *g = x->gateway;
    if (x->route->flags & ROUTE_BODY_RAW) {
        return true; /* the signature says who */
    }
    const char *wrong =
        auth_identify(&g->keys, &g->tokens, g->auth_cache, x->request.fields[FIELD_AUTHORIZATION],
                      clock_wall_ms() / 1000, &x->caller);
    if (wrong != NULL) {
        return route_refuse(x, PROBLEM_UNAUTHENTICATED, "header:Authorization", wrong);
    }
    set_scope(x);
    if (x->route->roles & (unsigned)x->caller.role) {
        return true;
    }
    return x->caller.role == ROLE_ANYONE
               ? route_refuse(x, PROBLEM_UNAUTHENTICATED, "header:Authorization",
                              "Send an API key or a user token: Authorization: Bearer …")
               : route_refuse(x, PROBLEM_FORBIDDEN, NULL,
                              "This caller's role does not include this request.");
}
