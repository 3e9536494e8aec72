/* Denylist: users refused, by an operator or because of too many strikes. */
#include "gateway/handlers.h"

#include "gateway/reads.h"
#include "gateway/response.h"
#include "gateway/upstream.h"

static void write_denial(struct json_writer *w, const Holdfast__Denial *d)
{
    json_object_begin(w);
    json_put(w, "user_id", text, str_from(d->user));
    json_put(w, "denied", bool, d->denied);
    json_put(w, "reason", text, str_from(d->reason));
    json_put(w, "strikes", uint, d->strikes);
    if (d->until_ms != 0) {
        json_put(w, "until", time, d->until_ms);
    }
    json_object_end(w);
}

static void listed(struct exchange *x, const Holdfast__Response *r)
{
    struct json_writer w = reads_page_begin(x);
    bool there = r->body_case == HOLDFAST__RESPONSE__BODY_DENIALS;
    for (size_t i = 0; there && i < r->denials->n_items; i++) {
        write_denial(&w, r->denials->items[i]);
    }
    reads_page_end(x, &w, r);
}

void denylist_list(struct exchange *x)
{
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__List list = HOLDFAST__LIST__INIT;
    request.body_case = HOLDFAST__REQUEST__BODY_LIST_DENIALS;
    request.list_denials = &list;
    if (reads_page(x, &list)) {
        upstream_read(x, &request, NULL, listed);
    }
}

static void got(struct exchange *x, const Holdfast__Response *r)
{
    if (r->body_case != HOLDFAST__RESPONSE__BODY_DENIALS || r->denials->n_items != 1) {
        problem_send(x, PROBLEM_INTERNAL, NULL, "A node's answer is not what was asked for.");
        return;
    }
    struct json_writer w = json_writer_init(&x->body);
    write_denial(&w, r->denials->items[0]);
    response_field(x, "Cache-Control", STR_LITERAL("no-store"));
    response_send(x, 200);
}

void denylist_get(struct exchange *x)
{
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__GetDenial get = HOLDFAST__GET_DENIAL__INIT;
    request.body_case = HOLDFAST__REQUEST__BODY_GET_DENIAL;
    request.get_denial = &get;
    get.user = (char *)(uintptr_t)x->params[0].ptr;
    upstream_read(x, &request, "user", got);
}

static void was_put(struct exchange *x, const struct command *c, const struct reply *r)
{
    struct json_writer w = json_writer_init(&x->body);
    json_object_begin(&w);
    json_put(&w, "user_id", text, c->deny.user);
    json_put(&w, "denied", bool, true);
    json_put(&w, "reason", text, c->deny.reason);
    if (c->deny.until_ms != 0) {
        json_put(&w, "until", time, c->deny.until_ms);
    }
    json_object_end(&w);
    response_send(x, r->flags & REPLY_EXISTED ? 200 : 201);
}

void denylist_put(struct exchange *x)
{
    json_t *root;
    struct json_fields f;
    struct json_fault fault;
    struct command c = {.kind = COMMAND_DENY_PUT};
    c.deny.user = x->params[0];
    c.deny.reason = STR_LITERAL("");
    json_read_body(x->request.body, &root, &f, &fault);
    json_read_text(&f, "reason", false, REASON_SIZE_MAX, &c.deny.reason);
    json_read_time(&f, "until", false, &c.deny.until_ms);
    json_read_end(&f);
    if (fault.set) {
        problem_send_fault(x, &fault);
    } else {
        upstream_submit(x, &c, was_put);
    }
    json_decref(root);
}

static void removed(struct exchange *x, const struct command *c, const struct reply *r)
{
    (void)c;
    (void)r;
    response_send(x, 204);
}

void denylist_remove(struct exchange *x)
{
    struct command c = {.kind = COMMAND_DENY_REMOVE};
    c.deny.user = x->params[0];
    c.deny.reason = STR_LITERAL("");
    upstream_submit(x, &c, removed);
}
