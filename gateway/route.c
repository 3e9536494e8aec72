/* Owns: the table of routes, and everything about a request that its head decides.
 *
 * Happy path: path → route → caller → role → media types → parameters → query → preconditions → key;
 * each step may refuse, and the first that does is what the caller hears: this order is documented in
 * docs/http-api.md.
 *
 * Refuses: to look at bodies. */
#include "gateway/route.h"

#include <stdio.h>
#include <strings.h>

#include "base/clock.h"
#include "gateway/handlers.h"
#include "gateway/response.h"
#include "proto/order_id.h"

#define BOTH     (ON_PUBLIC | ON_ADMIN)
#define ANYONE   (ROLE_ANYONE | ROLE_USER | ROLE_VIEWER | ROLE_PAYMENTS | ROLE_BACKEND | ROLE_ADMIN)
#define ACTORS   (ROLE_BACKEND | ROLE_ADMIN)
#define READERS  (ACTORS | ROLE_VIEWER)
#define OWNERS   (ROLE_USER | ACTORS)
#define READ     "consistency min_index "
#define LIST     READ "limit cursor "

/* The hottest first: the search is from the top. */
const struct route routes[] = {
    {HTTP_POST, "/v1/orders", BOTH, OWNERS, ROUTE_BODY | ROUTE_KEY, "", orders_place},
    {HTTP_GET, "/v1/sales/{sale}", BOTH, ANYONE, 0, READ, sales_get},
    {HTTP_GET, "/v1/order-requests/{key}", BOTH, OWNERS, 0, READ "wait ", order_requests_get},
    {HTTP_GET, "/v1/orders/{order}", BOTH, ROLE_USER | ROLE_PAYMENTS | READERS, 0, READ, orders_get},
    {HTTP_POST, "/v1/sales/{sale}/eligibilities", BOTH, OWNERS, ROUTE_BODY_OPTIONAL | ROUTE_KEY_OPTIONAL,
     "", eligibilities_grant},
    {HTTP_POST, "/v1/payments/events", BOTH, ANYONE, ROUTE_BODY | ROUTE_BODY_RAW, "", payments_event},
    {HTTP_POST, "/v1/orders/{order}/cancel", BOTH, OWNERS, ROUTE_BODY_OPTIONAL | ROUTE_KEY_OPTIONAL, "",
     orders_cancel},
    {HTTP_GET, "/v1/orders", BOTH, ROLE_USER | ROLE_PAYMENTS | READERS, 0, LIST "sale_id user_id ",
     orders_list},
    {HTTP_GET, "/v1/sales", BOTH, ANYONE, 0, LIST, sales_list},
    {HTTP_GET, "/v1/sales/{sale}/eligibilities/{user}", BOTH, ROLE_USER | READERS, 0, READ,
     eligibilities_get},
    {HTTP_DELETE, "/v1/sales/{sale}/eligibilities/{user}", BOTH, ACTORS, ROUTE_KEY_OPTIONAL, "",
     eligibilities_revoke},
    {HTTP_GET, "/v1/skus", BOTH, READERS, 0, LIST, skus_list},
    {HTTP_GET, "/v1/skus/{sku}", BOTH, READERS, 0, READ, skus_get},
    {HTTP_POST, "/v1/leases", BOTH, ACTORS, ROUTE_BODY | ROUTE_KEY, "", leases_acquire},
    {HTTP_GET, "/v1/leases", BOTH, READERS, 0, LIST, leases_list},
    {HTTP_GET, "/v1/leases/{name}", BOTH, READERS, 0, READ, leases_get},
    {HTTP_POST, "/v1/leases/{name}/renew", BOTH, ACTORS, ROUTE_BODY | ROUTE_KEY_OPTIONAL, "",
     leases_renew},
    {HTTP_DELETE, "/v1/leases/{name}", BOTH, ACTORS, ROUTE_KEY_OPTIONAL, "owner fencing_token ",
     leases_release},
    /* administration */
    {HTTP_GET, "/v1/sales/{sale}/eligibilities", ON_ADMIN, READERS, 0, LIST, eligibilities_list},
    {HTTP_PUT, "/v1/skus/{sku}", ON_ADMIN, ROLE_ADMIN, ROUTE_BODY | ROUTE_IF_MATCH | ROUTE_KEY_OPTIONAL,
     "", skus_put},
    {HTTP_POST, "/v1/skus/{sku}/adjustments", ON_ADMIN, ROLE_ADMIN, ROUTE_BODY | ROUTE_KEY, "",
     skus_adjust},
    {HTTP_PUT, "/v1/sales/{sale}", ON_ADMIN, ROLE_ADMIN, ROUTE_BODY | ROUTE_IF_MATCH | ROUTE_KEY_OPTIONAL,
     "", sales_put},
    {HTTP_POST, "/v1/sales/{sale}/pause", ON_ADMIN, ROLE_ADMIN,
     ROUTE_BODY_OPTIONAL | ROUTE_KEY_OPTIONAL | ROUTE_IF_MATCH_OPTIONAL, "", sales_pause},
    {HTTP_POST, "/v1/sales/{sale}/resume", ON_ADMIN, ROLE_ADMIN,
     ROUTE_BODY_OPTIONAL | ROUTE_KEY_OPTIONAL | ROUTE_IF_MATCH_OPTIONAL, "", sales_resume},
    {HTTP_POST, "/v1/sales/{sale}/close", ON_ADMIN, ROLE_ADMIN,
     ROUTE_BODY_OPTIONAL | ROUTE_KEY_OPTIONAL | ROUTE_IF_MATCH_OPTIONAL, "", sales_close},
    {HTTP_POST, "/v1/orders/{order}/refund", ON_ADMIN, ROLE_ADMIN, ROUTE_BODY | ROUTE_KEY_OPTIONAL, "",
     orders_refund},
    {HTTP_GET, "/v1/denylist", ON_ADMIN, READERS, 0, LIST, denylist_list},
    {HTTP_GET, "/v1/denylist/{user}", ON_ADMIN, READERS, 0, READ, denylist_get},
    {HTTP_PUT, "/v1/denylist/{user}", ON_ADMIN, ROLE_ADMIN, ROUTE_BODY | ROUTE_KEY_OPTIONAL, "",
     denylist_put},
    {HTTP_DELETE, "/v1/denylist/{user}", ON_ADMIN, ROLE_ADMIN, ROUTE_KEY_OPTIONAL, "", denylist_remove},
    /* the process itself */
    {HTTP_GET, "/livez", BOTH, ANYONE, 0, "verbose ", health_live},
    {HTTP_GET, "/readyz", BOTH, ANYONE, 0, "verbose ", health_ready},
    {HTTP_GET, "/version", BOTH, ANYONE, 0, "", health_version},
    {HTTP_GET, "/openapi.json", BOTH, ANYONE, 0, "", health_openapi},
    {HTTP_GET, "/metrics", ON_ADMIN, ANYONE, 0, "", metrics_get},
};
const size_t routes_count = ARRAY_COUNT(routes);

/* Patterns cut into segments once. */
static struct {
    struct str segments[ROUTE_SEGMENTS_MAX];
    unsigned count;
} cut[ARRAY_COUNT(routes)];

static unsigned split(struct str path, struct str segments[ROUTE_SEGMENTS_MAX])
{
    unsigned count = 0;
    const char *p = path.ptr, *end = path.ptr + path.len;
    while (p < end && *p == '/') {
        const char *slash = memchr(p + 1, '/', (size_t)(end - p - 1));
        const char *stop = slash != NULL ? slash : end;
        if (count == ROUTE_SEGMENTS_MAX) {
            return ROUTE_SEGMENTS_MAX + 1;
        }
        segments[count++] = (struct str){p + 1, (uint32_t)(stop - p - 1)};
        p = stop;
    }
    return p == end ? count : ROUTE_SEGMENTS_MAX + 1;
}

void routes_init(void)
{
    for (size_t i = 0; i < routes_count; i++) {
        cut[i].count = split(str_from(routes[i].pattern), cut[i].segments);
        CHECK(cut[i].count >= 1 && cut[i].count <= ROUTE_SEGMENTS_MAX);
    }
}

size_t route_number(const struct route *r)
{
    return r != NULL ? (size_t)(r - routes) : routes_count;
}

static bool is_param(struct str segment)
{
    return segment.ptr[0] == '{';
}

static bool matches(size_t i, const struct str *segments, unsigned count)
{
    if (cut[i].count != count) {
        return false;
    }
    for (unsigned s = count; s-- > 0;) { /* from the end: the beginnings are all alike */
        if (!is_param(cut[i].segments[s]) && !str_equal(cut[i].segments[s], segments[s])) {
            return false;
        }
    }
    return true;
}

/* ---- refusing ---- */

static bool refuse(struct exchange *x, enum problem p, const char *field, const char *detail)
{
    if (x->refusal == PROBLEM_NONE) {
        x->refusal = p;
        x->refusal_field = field;
        x->refusal_detail = detail;
    }
    return false;
}

/* ---- path and query ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Decodes %XX into x->text, NUL-terminated. "+" stays a plus: RFC 3986, not form encoding. */
static bool decode(struct exchange *x, size_t *used, struct str raw, struct str *out)
{
    char *to = x->text + *used, *start = to;
    CHECK(*used + raw.len + 1 <= sizeof x->text);
    for (uint32_t i = 0; i < raw.len; i++) {
        char c = raw.ptr[i];
        if (c == '%') {
            int high = raw.len - i > 2 ? hex_digit(raw.ptr[i + 1]) : -1;
            int low = raw.len - i > 2 ? hex_digit(raw.ptr[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return false;
            }
            c = (char)(high << 4 | low);
            i += 2;
        }
        *to++ = c;
    }
    *to++ = '\0';
    *used += (size_t)(to - start);
    *out = (struct str){start, (uint32_t)(to - start - 1)};
    return strlen(start) == out->len; /* a %00 is in no name or value */
}

static const char *path_field(struct str name)
{
    static const struct {
        const char *name, *field;
    } fields[] = {{"{sku}", "path:sku"},   {"{sale}", "path:sale"}, {"{user}", "path:user"},
                  {"{order}", "path:order"}, {"{key}", "path:key"},   {"{name}", "path:name"}};
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
        if (str_equal(name, str_from(fields[i].name))) {
            return fields[i].field;
        }
    }
    CHECK_UNREACHABLE();
}

static bool read_params(struct exchange *x, size_t number, const struct str *segments, size_t *used)
{
    unsigned count = 0;
    for (unsigned s = 0; s < cut[number].count; s++) {
        struct str name = cut[number].segments[s], value;
        if (!is_param(name)) {
            continue;
        }
        const char *field = path_field(name);
        if (!decode(x, used, segments[s], &value)) {
            return refuse(x, PROBLEM_INVALID_REQUEST, field, "This is not well-formed percent-encoding.");
        }
        if (str_equal(name, STR_LITERAL("{order}"))) {
            if (order_id_parse(value, &x->order_id) != 0) {
                return refuse(x, PROBLEM_INVALID_REQUEST, field,
                              "This is not an order id (13 digits of Crockford's base 32).");
            }
        } else if (!str_is_identifier(value, str_equal(name, STR_LITERAL("{key}")) ? KEY_SIZE_MAX
                                                                                   : ID_SIZE_MAX)) {
            return refuse(x, PROBLEM_INVALID_REQUEST, field,
                          "An id has 1 to 64 (a key 1 to 128) characters of A-Z a-z 0-9 . _ : @ | + ~ -.");
        }
        x->params[count++] = value;
    }
    return true;
}

static bool query_is_known(const struct route *r, struct str name)
{
    const char *p = r->query;
    while (*p != '\0') {
        const char *space = strchr(p, ' ');
        if (str_equal(name, (struct str){p, (uint32_t)(space - p)})) {
            return true;
        }
        p = space + 1;
    }
    return false;
}

static bool read_query(struct exchange *x, struct str query, size_t *used)
{
    const char *p = query.ptr, *end = p + query.len;
    while (p < end) {
        const char *and = memchr(p, '&', (size_t)(end - p));
        const char *stop = and != NULL ? and : end;
        const char *equals = memchr(p, '=', (size_t)(stop - p));
        struct str name = {p, (uint32_t)((equals != NULL ? equals : stop) - p)};
        struct str value = {equals != NULL ? equals + 1 : stop,
                            (uint32_t)(equals != NULL ? stop - equals - 1 : 0)};
        p = and != NULL ? and + 1 : end;
        if (name.len == 0 && value.len == 0) {
            continue;
        }
        if (x->query_count == EXCHANGE_QUERY_MAX) {
            return refuse(x, PROBLEM_INVALID_REQUEST, "query:", "There are too many query parameters.");
        }
        struct str *to_name = &x->query[x->query_count].name;
        struct str *to_value = &x->query[x->query_count].value;
        if (!decode(x, used, name, to_name) || !decode(x, used, value, to_value)) {
            return refuse(x, PROBLEM_INVALID_REQUEST, "query:",
                          "The query is not well-formed percent-encoding.");
        }
        if (!query_is_known(x->route, *to_name)) {
            return refuse(x, PROBLEM_INVALID_REQUEST, "query:",
                          "The query has a parameter that is not known here.");
        }
        for (size_t i = 0; i < x->query_count; i++) {
            if (str_equal(x->query[i].name, *to_name)) {
                return refuse(x, PROBLEM_INVALID_REQUEST, "query:", "A query parameter is there twice.");
            }
        }
        x->query_count++;
    }
    return true;
}

/* ---- header fields ---- */

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
                refused = refused && (rest.ptr[j] == '.' || rest.ptr[j] == '0' || rest.ptr[j] == ' ');
            }
        }
    }
    bool match = (type.len == 3 && memcmp(type.ptr, "*/*", 3) == 0);
    for (int i = 0; i < 2 && !match; i++) {
        match = type.len == s->wanted[i].len &&
                strncasecmp(type.ptr, s->wanted[i].ptr, type.len) == 0;
    }
    s->found = s->found || (match && !refused);
    return !s->found;
}

static bool read_accept(struct exchange *x)
{
    struct accept_search json = {{STR_LITERAL("application/json"), STR_LITERAL("application/*")}, false};
    struct accept_search text = {{STR_LITERAL("text/plain"), STR_LITERAL("text/*")}, false};
    bool is_text = x->route->handle == metrics_get || x->route->handle == health_live ||
                   x->route->handle == health_ready;
    struct accept_search *search = is_text ? &text : &json;
    if (x->request.fields[FIELD_ACCEPT].ptr == NULL) {
        return true;
    }
    http_field_list(&x->request, FIELD_ACCEPT, accept_matches, search);
    return search->found || refuse(x, PROBLEM_NOT_ACCEPTABLE, "header:Accept",
                                   is_text ? "Offered here: text/plain."
                                           : "Offered here: application/json.");
}

static bool read_content_type(struct exchange *x)
{
    bool has_body = x->request.chunked || x->request.content_length > 0;
    unsigned flags = x->route->flags;
    if (!(flags & (ROUTE_BODY | ROUTE_BODY_OPTIONAL))) {
        return !has_body || refuse(x, PROBLEM_INVALID_REQUEST, "", "This request takes no body.");
    }
    if (!has_body) {
        return (flags & ROUTE_BODY_OPTIONAL) ||
               refuse(x, PROBLEM_INVALID_REQUEST, "", "This request needs a body.");
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
        return refuse(x, PROBLEM_UNSUPPORTED_MEDIA_TYPE, "header:Content-Type",
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

static bool read_precondition(struct exchange *x)
{
    bool given = x->request.fields[FIELD_IF_MATCH].ptr != NULL ||
                 x->request.fields[FIELD_IF_NONE_MATCH].ptr != NULL;
    uint64_t version;
    if (!(x->route->flags & (ROUTE_IF_MATCH | ROUTE_IF_MATCH_OPTIONAL))) {
        return true;
    }
    if (!given) {
        return !(x->route->flags & ROUTE_IF_MATCH) ||
               refuse(x, PROBLEM_VERSION_REQUIRED, "header:If-Match",
                      "Send If-Match with the ETag of what is to be replaced, or If-None-Match: * to "
                      "create.");
    }
    return precondition(x, &version) ||
           refuse(x, PROBLEM_INVALID_REQUEST, "header:If-Match",
                  "Send one ETag as GET gave it, or If-None-Match: *.");
}

/* The draft says a quoted string (an sf-string); a bare one is taken too. */
static bool read_key(struct exchange *x)
{
    struct str key = x->request.fields[FIELD_IDEMPOTENCY_KEY];
    if (!(x->route->flags & (ROUTE_KEY | ROUTE_KEY_OPTIONAL))) {
        return true;
    }
    if (key.ptr == NULL) {
        return !(x->route->flags & ROUTE_KEY) ||
               refuse(x, PROBLEM_IDEMPOTENCY_KEY_MISSING, "header:Idempotency-Key",
                      "Send a key of your own making that names this request, and send it again with "
                      "every repetition.");
    }
    if (key.len >= 2 && key.ptr[0] == '"' && key.ptr[key.len - 1] == '"') {
        key = (struct str){key.ptr + 1, key.len - 2};
    }
    if (!str_is_identifier(key, KEY_SIZE_MAX)) {
        return refuse(x, PROBLEM_INVALID_REQUEST, "header:Idempotency-Key",
                      "A key has 1 to 128 characters of A-Z a-z 0-9 . _ : @ | + ~ -.");
    }
    x->key = key;
    return true;
}

static bool parse_seconds(struct str s, uint64_t max_ms, uint64_t *out_ms)
{
    uint64_t value = 0;
    if (s.len == 0 || s.len > 6) {
        return false;
    }
    for (uint32_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9') {
            return false;
        }
        value = value * 10 + (uint64_t)(s.ptr[i] - '0');
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

static bool read_wait(struct exchange *x)
{
    x->wait_ms = x->gateway->limits.wait_ms;
    http_field_list(&x->request, FIELD_PREFER, prefer_element, x);
    struct str wait = exchange_query(x, "wait");
    if (wait.ptr != NULL && !parse_seconds(wait, x->gateway->limits.wait_max_ms, &x->wait_ms)) {
        return refuse(x, PROBLEM_INVALID_REQUEST, "query:wait", "wait is a whole number of seconds.");
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

static bool read_caller(struct exchange *x)
{
    struct gateway *g = x->gateway;
    if (x->route->flags & ROUTE_BODY_RAW) {
        return true; /* the signature says who */
    }
    const char *wrong =
        auth_identify(&g->keys, &g->tokens, g->auth_cache, x->request.fields[FIELD_AUTHORIZATION],
                      clock_wall_ms() / 1000, &x->caller);
    if (wrong != NULL) {
        return refuse(x, PROBLEM_UNAUTHENTICATED, "header:Authorization", wrong);
    }
    set_scope(x);
    if (x->route->roles & (unsigned)x->caller.role) {
        return true;
    }
    return x->caller.role == ROLE_ANYONE
               ? refuse(x, PROBLEM_UNAUTHENTICATED, "header:Authorization",
                        "Send an API key or a user token: Authorization: Bearer …")
               : refuse(x, PROBLEM_FORBIDDEN, NULL, "This caller's role does not include this request.");
}

/* ---- the whole ---- */

/* Splits the target into path and query; takes the absolute form that proxies send (RFC 9112 §3.2.2). */
static bool split_target(struct exchange *x, struct str *path, struct str *query)
{
    struct str t = x->request.target;
    for (int i = 0; i < 2; i++) {
        struct str scheme = i == 0 ? STR_LITERAL("http://") : STR_LITERAL("https://");
        if (t.len > scheme.len && strncasecmp(t.ptr, scheme.ptr, scheme.len) == 0) {
            const char *end = t.ptr + t.len, *p = t.ptr + scheme.len;
            while (p < end && *p != '/' && *p != '?') {
                p++;
            }
            t = (struct str){p, (uint32_t)(end - p)};
            break;
        }
    }
    if (memchr(t.ptr, '#', t.len) != NULL) {
        return false;
    }
    const char *mark = memchr(t.ptr, '?', t.len);
    *path = (struct str){t.ptr, mark != NULL ? (uint32_t)(mark - t.ptr) : t.len};
    *query = mark != NULL ? (struct str){mark + 1, t.len - path->len - 1} : (struct str){"", 0};
    return true;
}

static unsigned method_bit(uint8_t method)
{
    return method < 32 ? 1u << method : 0;
}

static bool find(struct exchange *x, enum listener_kind listener, struct str path,
                 struct str *segments, size_t *number)
{
    unsigned count = split(path, segments);
    uint8_t method = x->request.method;
    if (method == HTTP_HEAD) {
        x->head_only = true;
        method = HTTP_GET;
    }
    for (size_t i = 0; i < routes_count; i++) {
        if (!(routes[i].listeners & 1u << listener) || !matches(i, segments, count)) {
            continue;
        }
        if (routes[i].method == method) {
            x->route = &routes[i];
            *number = i;
            return true;
        }
        x->allow |= method_bit(routes[i].method);
    }
    if (x->allow != 0) {
        return refuse(x, PROBLEM_METHOD_NOT_ALLOWED, NULL, "See the Allow header.");
    }
    return refuse(x, PROBLEM_NOT_FOUND, NULL,
                  "There is nothing at this path. Administration has a listener of its own.");
}

void route_check(struct exchange *x, enum listener_kind listener)
{
    struct str path, query, segments[ROUTE_SEGMENTS_MAX];
    size_t number, used = 0;
    if (!split_target(x, &path, &query)) {
        refuse(x, PROBLEM_INVALID_REQUEST, NULL, "A request target has no fragment.");
        return;
    }
    if (!find(x, listener, path, segments, &number) || !read_caller(x) || !read_accept(x) ||
        !read_content_type(x) || !read_params(x, number, segments, &used) ||
        !read_query(x, query, &used) || !read_precondition(x) || !read_key(x) || !read_wait(x)) {
        return;
    }
    if (x->wait_ms == 0 && !x->respond_async) {
        x->wait_ms = x->gateway->limits.wait_ms; /* not waiting at all is only possible with 202 */
    }
    x->deadline_ms = uv_now(x->gateway->loop) + x->wait_ms;
}

static void send_allow(struct exchange *x)
{
    char value[64];
    size_t at = 0;
    for (uint8_t m = 0; m < 32; m++) {
        if (x->allow & 1u << m) {
            at += (size_t)snprintf(value + at, sizeof value - at, "%s%s%s", at > 0 ? ", " : "",
                                   llhttp_method_name((llhttp_method_t)m),
                                   m == HTTP_GET ? ", HEAD" : "");
        }
    }
    response_field(x, "Allow", (struct str){value, (uint32_t)at});
}

void route_run(struct exchange *x)
{
    if (x->refusal != PROBLEM_NONE) {
        if (x->refusal == PROBLEM_METHOD_NOT_ALLOWED) {
            send_allow(x);
        }
        problem_send(x, x->refusal, x->refusal_field, x->refusal_detail);
        return;
    }
    x->route->handle(x);
}
