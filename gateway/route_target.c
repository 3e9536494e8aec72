/* Owns: reading a request's target: path parameters and query, decoded into the exchange.
 *
 * Refuses: anything that is not the canonical way to say it: bad percent-encoding, NUL, a parameter that
 * the route does not know, one that comes twice. */
#include "gateway/route_parts.h"

#include <strings.h>

#include "proto/order_id.h"

/* Splits the target into path and query; takes the absolute form that proxies send (RFC 9112 §3.2.2). */
bool route_split_target(struct exchange *x, struct str *path, struct str *query)
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
    } fields[] = {{"{sku}", "path:sku"},     {"{sale}", "path:sale"}, {"{user}", "path:user"},
                  {"{order}", "path:order"}, {"{key}", "path:key"},   {"{name}", "path:name"}};
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
        if (str_equal(name, str_from(fields[i].name))) {
            return fields[i].field;
        }
    }
    CHECK_UNREACHABLE();
}

bool route_read_params(struct exchange *x, const struct str *pattern, const struct str *segments,
                       unsigned count, size_t *used)
{
    unsigned params = 0;
    for (unsigned s = 0; s < count; s++) {
        struct str name = pattern[s], value;
        if (name.ptr[0] != '{') {
            continue;
        }
        const char *field = path_field(name);
        if (!decode(x, used, segments[s], &value)) {
            return route_refuse(x, PROBLEM_INVALID_REQUEST, field,
                                "This is not well-formed percent-encoding.");
        }
        if (str_equal(name, STR_LITERAL("{order}"))) {
            if (order_id_parse(value, &x->order_id) != 0) {
                return route_refuse(x, PROBLEM_INVALID_REQUEST, field,
                                    "This is not an order id (13 digits of Crockford's base 32).");
            }
        } else if (!str_is_identifier(value, str_equal(name, STR_LITERAL("{key}")) ? KEY_SIZE_MAX
                                                                                   : ID_SIZE_MAX)) {
            return route_refuse(
                x, PROBLEM_INVALID_REQUEST, field,
                "An id has 1 to 64 (a key 1 to 128) characters of A-Z a-z 0-9 . _ : @ | + ~ -.");
        }
        x->params[params++] = value;
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

bool route_read_query(struct exchange *x, struct str query, size_t *used)
{
    const char *p = query.ptr, *end = p + query.len;
    while (p < end) {
        const char *and = memchr(p, '&', (size_t)(end - p));
        const char *stop = and != NULL ? and : end;
        const char *equals = memchr(p, '=', (size_t)(stop - p));
        struct str name = {p, (uint32_t)((equals != NULL ? equals : stop) - p)};
        struct str value = {equals != NULL ? equals + 1 : stop,
                            (uint32_t)(equals != NULL ? stop - equals - 1 : 0)};
        p = and != NULL ? and+1 : end;
        if (name.len == 0 && value.len == 0) {
            continue;
        }
        if (x->query_count == EXCHANGE_QUERY_MAX) {
            return route_refuse(x, PROBLEM_INVALID_REQUEST,
                                "query:", "There are too many query parameters.");
        }
        struct str *to_name = &x->query[x->query_count].name;
        struct str *to_value = &x->query[x->query_count].value;
        if (!decode(x, used, name, to_name) || !decode(x, used, value, to_value)) {
            return route_refuse(x, PROBLEM_INVALID_REQUEST,
                                "query:", "The query is not well-formed percent-encoding.");
        }
        if (!query_is_known(x->route, *to_name)) {
            return route_refuse(x, PROBLEM_INVALID_REQUEST,
                                "query:", "The query has a parameter that is not known here.");
        }
        for (size_t i = 0; i < x->query_count; i++) {
            if (str_equal(x->query[i].name, *to_name)) {
                return route_refuse(x, PROBLEM_INVALID_REQUEST,
                                    "query:", "A query parameter is there twice.");
            }
        }
        x->query_count++;
    }
    return true;
}
