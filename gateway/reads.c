/* Owns: pages. A cursor is the node's own, opaque; a page may be short or empty before the end, so
 * the end is where no next_cursor is given. */
#include "gateway/reads.h"

#include "base/clock.h"
#include "gateway/response.h"
#include "gateway/route.h"

bool reads_page(struct exchange *x, Holdfast__List *list)
{
    struct str limit = exchange_query(x, "limit"), cursor = exchange_query(x, "cursor");
    uint64_t n = PAGE_LIMIT_DEFAULT;
    if (limit.ptr != NULL && (!str_to_u64(limit, &n) || n < 1 || n > PAGE_LIMIT_MAX)) {
        problem_send(x, PROBLEM_INVALID_REQUEST, "query:limit", "limit is a number from 1 to 500.");
        return false;
    }
    if (cursor.len > 256) {
        problem_send(x, PROBLEM_INVALID_REQUEST, "query:cursor",
                     "Send a cursor as the last page gave it, with the same filters.");
        return false;
    }
    list->limit = (uint32_t)n;
    list->cursor = (char *)(uintptr_t)(cursor.ptr != NULL ? cursor.ptr : "");
    return true;
}

struct json_writer reads_page_begin(struct exchange *x)
{
    struct json_writer w = json_writer_init(&x->body);
    json_object_begin(&w);
    json_key(&w, STR_LITERAL("items"));
    json_array_begin(&w);
    return w;
}

static void put_encoded(struct out *o, struct str s)
{
    static const char hex[] = "0123456789ABCDEF";
    for (uint32_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
            (c != '\0' && strchr("-._~", c) != NULL)) {
            out_char(o, (char)c);
        } else {
            out_char(o, '%');
            out_char(o, hex[c >> 4]);
            out_char(o, hex[c & 15]);
        }
    }
}

void reads_page_end(struct exchange *x, struct json_writer *w, const Holdfast__Response *response)
{
    struct str next = str_from(response->next_cursor);
    json_array_end(w);
    if (next.len > 0) {
        struct str target = x->request.target;
        const char *mark = memchr(target.ptr, '?', target.len);
        struct out *f = &x->fields;
        json_put(w, "next_cursor", text, next);
        out_literal(f, "Link: <");
        out_bytes(f, target.ptr, mark != NULL ? (size_t)(mark - target.ptr) : target.len);
        out_literal(f, "?cursor=");
        put_encoded(f, next);
        for (size_t i = 0; i < x->query_count; i++) {
            if (!str_equal(x->query[i].name, STR_LITERAL("cursor"))) {
                out_char(f, '&');
                put_encoded(f, x->query[i].name);
                out_char(f, '=');
                put_encoded(f, x->query[i].value);
            }
        }
        out_literal(f, ">; rel=\"next\"\r\n");
    }
    json_object_end(w);
    response_field(x, "Cache-Control", STR_LITERAL("no-store"));
    response_send(x, 200);
}

void reads_put_time(struct exchange *x, const Holdfast__Response *response)
{
    char text[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(response->time_ms, text);
    response_field(x, "Holdfast-Time", str_from(text));
}
