/* SKUs: what is counted, and how many of it there are. */
#include "gateway/handlers.h"

#include "gateway/reads.h"
#include "gateway/response.h"
#include "gateway/route.h"
#include "gateway/upstream.h"

static void write_sku(struct json_writer *w, const Holdfast__Sku *s)
{
    json_object_begin(w);
    json_put(w, "id", text, str_from(s->id));
    json_put(w, "title", text, str_from(s->title));
    json_put(w, "version", uint, s->version);
    json_put(w, "available", int, s->available);
    json_put(w, "reserved", int, s->reserved);
    json_put(w, "sold", int, s->sold);
    json_put(w, "received", int, s->received);
    json_put(w, "oversell_allowance", int, s->oversell_allowance);
    json_object_end(w);
}

static void listed(struct exchange *x, const Holdfast__Response *r)
{
    struct json_writer w = reads_page_begin(x);
    bool there = r->body_case == HOLDFAST__RESPONSE__BODY_SKUS;
    for (size_t i = 0; there && i < r->skus->n_items; i++) {
        write_sku(&w, r->skus->items[i]);
    }
    reads_page_end(x, &w, r);
}

void skus_list(struct exchange *x)
{
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__List list = HOLDFAST__LIST__INIT;
    request.body_case = HOLDFAST__REQUEST__BODY_LIST_SKUS;
    request.list_skus = &list;
    if (reads_page(x, &list)) {
        upstream_read(x, &request, NULL, listed);
    }
}

static void got(struct exchange *x, const Holdfast__Response *r)
{
    if (r->body_case != HOLDFAST__RESPONSE__BODY_SKUS || r->skus->n_items != 1) {
        problem_send(x, PROBLEM_INTERNAL, NULL, "A node's answer is not what was asked for.");
        return;
    }
    struct json_writer w = json_writer_init(&x->body);
    write_sku(&w, r->skus->items[0]);
    response_field(x, "Cache-Control", STR_LITERAL("no-cache"));
    response_send_versioned(x, r->skus->items[0]->version);
}

void skus_get(struct exchange *x)
{
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__GetSku get = HOLDFAST__GET_SKU__INIT;
    request.body_case = HOLDFAST__REQUEST__BODY_GET_SKU;
    request.get_sku = &get;
    get.id = (char *)(uintptr_t)x->params[0].ptr;
    upstream_read(x, &request, "sku", got);
}

static void was_put(struct exchange *x, const struct command *c, const struct reply *r)
{
    struct json_writer w = json_writer_init(&x->body);
    json_object_begin(&w);
    json_put(&w, "id", text, c->sku_put.sku);
    json_put(&w, "title", text, c->sku_put.title);
    json_put(&w, "version", uint, r->version);
    json_object_end(&w);
    response_fieldf(x, "ETag", "\"%llu\"", (unsigned long long)r->version);
    response_send(x, r->version == 1 ? 201 : 200);
}

void skus_put(struct exchange *x)
{
    json_t *root;
    struct json_fields f;
    struct json_fault fault;
    struct command c = {.kind = COMMAND_SKU_PUT};
    c.sku_put.sku = x->params[0];
    c.sku_put.title = STR_LITERAL("");
    c.sku_put.expected_version = route_expected_version(x);
    json_read_body(x->request.body, &root, &f, &fault);
    json_read_text(&f, "title", false, TITLE_SIZE_MAX, &c.sku_put.title);
    json_read_end(&f);
    if (fault.set) {
        problem_send_fault(x, &fault);
    } else {
        upstream_submit(x, &c, was_put);
    }
    json_decref(root);
}

static void adjusted(struct exchange *x, const struct command *c, const struct reply *r)
{
    (void)r;
    struct json_writer w = json_writer_init(&x->body);
    json_object_begin(&w);
    json_put(&w, "sku", text, c->stock_adjust.sku);
    json_put(&w, "delta", int, c->stock_adjust.delta);
    json_put(&w, "reason", text, c->stock_adjust.reason);
    json_object_end(&w);
    response_send(x, 201);
}

void skus_adjust(struct exchange *x)
{
    json_t *root;
    struct json_fields f;
    struct json_fault fault;
    struct command c = {.kind = COMMAND_STOCK_ADJUST};
    c.stock_adjust.sku = x->params[0];
    c.stock_adjust.reason = STR_LITERAL("");
    json_read_body(x->request.body, &root, &f, &fault);
    json_read_int(&f, "delta", true, -STOCK_MAX, STOCK_MAX, &c.stock_adjust.delta);
    json_read_text(&f, "reason", false, REASON_SIZE_MAX, &c.stock_adjust.reason);
    json_read_end(&f);
    if (!fault.set && c.stock_adjust.delta == 0) {
        json_fault_set(&fault, "", "delta", "An adjustment by zero changes nothing.");
    }
    if (fault.set) {
        problem_send_fault(x, &fault);
    } else {
        upstream_submit(x, &c, adjusted);
    }
    json_decref(root);
}
