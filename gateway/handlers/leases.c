/* Leases: named locks with an owner, an expiry and a fencing token that grows with every acquisition. */
#include "gateway/handlers.h"

#include "gateway/reads.h"
#include "gateway/response.h"
#include "gateway/upstream.h"

static void write_held(struct exchange *x, const struct command *c, const struct reply *r)
{
    struct json_writer w = json_writer_init(&x->body);
    json_object_begin(&w);
    json_put(&w, "name", text, c->lease.name);
    json_put(&w, "owner", text, c->lease.owner);
    json_put(&w, "fencing_token", uint, r->token);
    json_put(&w, "expires_at", time, r->expires_ms);
    json_object_end(&w);
}

static void acquired(struct exchange *x, const struct command *c, const struct reply *r)
{
    write_held(x, c, r);
    response_fieldf(x, "Location", "/v1/leases/%.*s", (int)c->lease.name.len, c->lease.name.ptr);
    response_send(x, 201);
}

void leases_acquire(struct exchange *x)
{
    json_t *root;
    struct json_fields f;
    struct json_fault fault;
    int64_t ttl = 0;
    struct command c = {.kind = COMMAND_LEASE_ACQUIRE};
    json_read_body(x->request.body, &root, &f, &fault);
    json_read_id(&f, "name", true, &c.lease.name);
    json_read_id(&f, "owner", true, &c.lease.owner);
    json_read_int(&f, "ttl_ms", true, 1, DURATION_MS_MAX, &ttl);
    json_read_end(&f);
    c.lease.ttl_ms = (uint64_t)ttl;
    if (fault.set) {
        problem_send_fault(x, &fault);
    } else {
        upstream_submit(x, &c, acquired);
    }
    json_decref(root);
}

static void renewed(struct exchange *x, const struct command *c, const struct reply *r)
{
    write_held(x, c, r);
    response_send(x, 200);
}

void leases_renew(struct exchange *x)
{
    json_t *root;
    struct json_fields f;
    struct json_fault fault;
    int64_t ttl = 0, token = 0;
    struct command c = {.kind = COMMAND_LEASE_RENEW};
    c.lease.name = x->params[0];
    json_read_body(x->request.body, &root, &f, &fault);
    json_read_id(&f, "owner", true, &c.lease.owner);
    json_read_int(&f, "fencing_token", true, 1, INT64_MAX, &token);
    json_read_int(&f, "ttl_ms", true, 1, DURATION_MS_MAX, &ttl);
    json_read_end(&f);
    c.lease.token = (uint64_t)token;
    c.lease.ttl_ms = (uint64_t)ttl;
    if (fault.set) {
        problem_send_fault(x, &fault);
    } else {
        upstream_submit(x, &c, renewed);
    }
    json_decref(root);
}

static void released(struct exchange *x, const struct command *c, const struct reply *r)
{
    (void)c;
    (void)r;
    response_send(x, 204);
}

void leases_release(struct exchange *x)
{
    struct str owner = exchange_query(x, "owner"), token = exchange_query(x, "fencing_token");
    struct command c = {.kind = COMMAND_LEASE_RELEASE};
    if (owner.ptr == NULL || !str_is_identifier(owner, ID_SIZE_MAX)) {
        problem_send(x, PROBLEM_INVALID_REQUEST, "query:owner", "owner is missing or is no id.");
        return;
    }
    for (uint32_t i = 0; i < token.len; i++) {
        char d = token.ptr[i];
        if (d < '0' || d > '9' || token.len > 18) {
            c.lease.token = 0;
            break;
        }
        c.lease.token = c.lease.token * 10 + (uint64_t)(d - '0');
    }
    if (c.lease.token == 0) {
        problem_send(x, PROBLEM_INVALID_REQUEST, "query:fencing_token",
                     "fencing_token is missing or is no positive number.");
        return;
    }
    c.lease.name = x->params[0];
    c.lease.owner = owner;
    upstream_submit(x, &c, released);
}

static void write_lease(struct json_writer *w, const Holdfast__Lease *l)
{
    json_object_begin(w);
    json_put(w, "name", text, str_from(l->name));
    json_put(w, "owner", text, str_from(l->owner));
    json_put(w, "fencing_token", uint, l->token);
    json_put(w, "expires_at", time, l->expires_ms);
    json_object_end(w);
}

static void listed(struct exchange *x, const Holdfast__Response *r)
{
    struct json_writer w = reads_page_begin(x);
    bool there = r->body_case == HOLDFAST__RESPONSE__BODY_LEASES;
    for (size_t i = 0; there && i < r->leases->n_items; i++) {
        write_lease(&w, r->leases->items[i]);
    }
    reads_page_end(x, &w, r);
}

void leases_list(struct exchange *x)
{
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__List list = HOLDFAST__LIST__INIT;
    request.body_case = HOLDFAST__REQUEST__BODY_LIST_LEASES;
    request.list_leases = &list;
    if (reads_page(x, &list)) {
        upstream_read(x, &request, NULL, listed);
    }
}

static void got(struct exchange *x, const Holdfast__Response *r)
{
    if (r->body_case != HOLDFAST__RESPONSE__BODY_LEASES || r->leases->n_items != 1) {
        problem_send(x, PROBLEM_INTERNAL, NULL, "A node's answer is not what was asked for.");
        return;
    }
    struct json_writer w = json_writer_init(&x->body);
    write_lease(&w, r->leases->items[0]);
    response_field(x, "Cache-Control", STR_LITERAL("no-store"));
    response_send(x, 200);
}

void leases_get(struct exchange *x)
{
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__GetLease get = HOLDFAST__GET_LEASE__INIT;
    request.body_case = HOLDFAST__REQUEST__BODY_GET_LEASE;
    request.get_lease = &get;
    get.name = (char *)(uintptr_t)x->params[0].ptr;
    upstream_read(x, &request, "lease", got);
}
