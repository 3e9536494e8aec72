/* Owns: the table of routes, and the order in which a request's head is looked at. How its parts are
 * read: route_target.c (path, query), route_head.c (header fields).
 *
 * Happy path: path → route → caller → role → media types → parameters → query → preconditions → key;
 * each step may refuse, and the first that does is what the caller hears: this order is documented in
 * docs/http-api.md.
 *
 * Refuses: to look at bodies. */
#include "gateway/route.h"

#include <stdio.h>

#include "gateway/handlers.h"
#include "gateway/response.h"
#include "gateway/route_parts.h"

#define BOTH    (ON_PUBLIC | ON_ADMIN)
#define ANYONE  (ROLE_ANYONE | ROLE_USER | ROLE_VIEWER | ROLE_PAYMENTS | ROLE_BACKEND | ROLE_ADMIN)
#define ACTORS  (ROLE_BACKEND | ROLE_ADMIN)
#define READERS (ACTORS | ROLE_VIEWER)
#define OWNERS  (ROLE_USER | ACTORS)
#define READ    "consistency min_index "
#define LIST    READ "limit cursor "

/* The hottest first: the search is from the top. */
const struct route routes[] = {
    {HTTP_POST, "/v1/orders", BOTH, OWNERS, ROUTE_BODY | ROUTE_KEY, "", orders_place},
    {HTTP_GET, "/v1/sales/{sale}", BOTH, ANYONE, 0, READ, sales_get},
    {HTTP_GET, "/v1/order-requests/{key}", BOTH, OWNERS, 0, READ "wait ", order_requests_get},
    {HTTP_GET, "/v1/orders/{order}", BOTH, ROLE_USER | ROLE_PAYMENTS | READERS, 0, READ,
     orders_get},
    {HTTP_POST, "/v1/sales/{sale}/eligibilities", BOTH, OWNERS,
     ROUTE_BODY_OPTIONAL | ROUTE_KEY_OPTIONAL, "", eligibilities_grant},
    {HTTP_POST, "/v1/payments/events", BOTH, ANYONE, ROUTE_BODY | ROUTE_BODY_RAW, "",
     payments_event},
    {HTTP_POST, "/v1/orders/{order}/cancel", BOTH, OWNERS, ROUTE_BODY_OPTIONAL | ROUTE_KEY_OPTIONAL,
     "", orders_cancel},
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
    {HTTP_PUT, "/v1/skus/{sku}", ON_ADMIN, ROLE_ADMIN,
     ROUTE_BODY | ROUTE_IF_MATCH | ROUTE_KEY_OPTIONAL, "", skus_put},
    {HTTP_POST, "/v1/skus/{sku}/adjustments", ON_ADMIN, ROLE_ADMIN, ROUTE_BODY | ROUTE_KEY, "",
     skus_adjust},
    {HTTP_PUT, "/v1/sales/{sale}", ON_ADMIN, ROLE_ADMIN,
     ROUTE_BODY | ROUTE_IF_MATCH | ROUTE_KEY_OPTIONAL, "", sales_put},
    {HTTP_POST, "/v1/sales/{sale}/pause", ON_ADMIN, ROLE_ADMIN,
     ROUTE_BODY_OPTIONAL | ROUTE_KEY_OPTIONAL | ROUTE_IF_MATCH_OPTIONAL, "", sales_pause},
    {HTTP_POST, "/v1/sales/{sale}/resume", ON_ADMIN, ROLE_ADMIN,
     ROUTE_BODY_OPTIONAL | ROUTE_KEY_OPTIONAL | ROUTE_IF_MATCH_OPTIONAL, "", sales_resume},
    {HTTP_POST, "/v1/sales/{sale}/close", ON_ADMIN, ROLE_ADMIN,
     ROUTE_BODY_OPTIONAL | ROUTE_KEY_OPTIONAL | ROUTE_IF_MATCH_OPTIONAL, "", sales_close},
    {HTTP_POST, "/v1/orders/{order}/refund", ON_ADMIN, ROLE_ADMIN, ROUTE_BODY | ROUTE_KEY_OPTIONAL,
     "", orders_refund},
    {HTTP_GET, "/v1/denylist", ON_ADMIN, READERS, 0, LIST, denylist_list},
    {HTTP_GET, "/v1/denylist/{user}", ON_ADMIN, READERS, 0, READ, denylist_get},
    {HTTP_PUT, "/v1/denylist/{user}", ON_ADMIN, ROLE_ADMIN, ROUTE_BODY | ROUTE_KEY_OPTIONAL, "",
     denylist_put},
    {HTTP_DELETE, "/v1/denylist/{user}", ON_ADMIN, ROLE_ADMIN, ROUTE_KEY_OPTIONAL, "",
     denylist_remove},
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

bool route_refuse(struct exchange *x, enum problem p, const char *field, const char *detail)
{
    if (x->refusal == PROBLEM_NONE) {
        x->refusal = p;
        x->refusal_field = field;
        x->refusal_detail = detail;
    }
    return false;
}

/* ---- the whole ---- */

static unsigned method_bit(uint8_t method)
{
    return method < 32 ? 1u << method : 0;
}

static bool find(struct exchange *x, enum listener_kind listener, struct str path,
                 struct str *segments)
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
            return true;
        }
        x->allow |= method_bit(routes[i].method);
    }
    if (x->allow != 0) {
        return route_refuse(x, PROBLEM_METHOD_NOT_ALLOWED, NULL, "See the Allow header.");
    }
    return route_refuse(x, PROBLEM_NOT_FOUND, NULL,
                        "There is nothing at this path. Administration has a listener of its own.");
}

void route_check(struct exchange *x, enum listener_kind listener)
{
    struct str path, query, segments[ROUTE_SEGMENTS_MAX];
    size_t used = 0;
    if (!route_split_target(x, &path, &query)) {
        route_refuse(x, PROBLEM_INVALID_REQUEST, NULL, "A request target has no fragment.");
        return;
    }
    if (!find(x, listener, path, segments)) {
        return;
    }
    size_t number = route_number(x->route);
    if (!route_read_caller(x) || !route_read_accept(x) || !route_read_content_type(x) ||
        !route_read_params(x, cut[number].segments, segments, cut[number].count, &used) ||
        !route_read_query(x, query, &used) || !route_read_precondition(x) || !route_read_key(x) ||
        !route_read_wait(x)) {
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
