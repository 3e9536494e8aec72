/* Eligibilities: a user's right to order in a sale, at most one each. Granting is idempotent by nature:
 * the second time the right is there already. */
#include "gateway/handlers.h"

#include "gateway/reads.h"
#include "gateway/response.h"
#include "gateway/upstream.h"

static void granted(struct exchange *x, const struct command *c, const struct reply *r)
{
    struct json_writer w = json_writer_init(&x->body);
    json_object_begin(&w);
    json_put(&w, "sale_id", text, c->eligibility.sale);
    json_put(&w, "user_id", text, c->eligibility.user);
    json_put(&w, "granted", bool, true);
    json_object_end(&w);
    response_send(x, r->flags & REPLY_EXISTED ? 200 : 201);
}

void eligibilities_grant(struct exchange *x)
{
    json_t *root = NULL;
    struct json_fields f;
    struct json_fault fault = {.set = false};
    struct str user = {NULL, 0};
    bool own = x->caller.role == ROLE_USER;
    struct command c = {.kind = COMMAND_ELIGIBILITY_GRANT};
    if (x->request.body.len > 0) {
        json_read_body(x->request.body, &root, &f, &fault);
        json_read_id(&f, "user_id", !own, &user);
        json_read_end(&f);
    } else if (!own) {
        json_fault_set(&fault, "", "user_id", "This field is missing.");
    }
    c.eligibility.sale = x->params[0];
    c.eligibility.user = own ? str_from(x->caller.name) : user;
    if (fault.set) {
        problem_send_fault(x, &fault);
    } else if (own && user.len > 0 && !str_equal(user, c.eligibility.user)) {
        problem_send(x, PROBLEM_FORBIDDEN, "/user_id", "A user asks for their own right only.");
    } else {
        upstream_submit(x, &c, granted);
    }
    json_decref(root);
}

static void write_eligibility(struct json_writer *w, const Holdfast__Eligibility *e)
{
    json_object_begin(w);
    json_put(w, "sale_id", text, str_from(e->sale));
    json_put(w, "user_id", text, str_from(e->user));
    json_put(w, "granted", bool, e->granted);
    if (e->granted_ms != 0) {
        json_put(w, "granted_at", time, e->granted_ms);
    }
    json_put(w, "orders", uint, e->orders);
    json_put(w, "units", uint, e->units);
    json_object_end(w);
}

static void listed(struct exchange *x, const Holdfast__Response *r)
{
    struct json_writer w = reads_page_begin(x);
    bool there = r->body_case == HOLDFAST__RESPONSE__BODY_ELIGIBILITIES;
    for (size_t i = 0; there && i < r->eligibilities->n_items; i++) {
        write_eligibility(&w, r->eligibilities->items[i]);
    }
    reads_page_end(x, &w, r);
}

void eligibilities_list(struct exchange *x)
{
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__List list = HOLDFAST__LIST__INIT;
    request.body_case = HOLDFAST__REQUEST__BODY_LIST_ELIGIBILITIES;
    request.list_eligibilities = &list;
    list.sale = (char *)(uintptr_t)x->params[0].ptr;
    if (reads_page(x, &list)) {
        upstream_read(x, &request, "sale", listed);
    }
}

static void got(struct exchange *x, const Holdfast__Response *r)
{
    if (r->body_case != HOLDFAST__RESPONSE__BODY_ELIGIBILITIES || r->eligibilities->n_items != 1) {
        problem_send(x, PROBLEM_INTERNAL, NULL, "A node's answer is not what was asked for.");
        return;
    }
    struct json_writer w = json_writer_init(&x->body);
    write_eligibility(&w, r->eligibilities->items[0]);
    response_field(x, "Cache-Control", STR_LITERAL("no-store"));
    response_send(x, 200);
}

void eligibilities_get(struct exchange *x)
{
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__GetEligibility get = HOLDFAST__GET_ELIGIBILITY__INIT;
    if (x->caller.role == ROLE_USER && !str_equal(x->params[1], str_from(x->caller.name))) {
        problem_send(x, PROBLEM_FORBIDDEN, "path:user", "A user sees their own right only.");
        return;
    }
    request.body_case = HOLDFAST__REQUEST__BODY_GET_ELIGIBILITY;
    request.get_eligibility = &get;
    get.sale = (char *)(uintptr_t)x->params[0].ptr;
    get.user = (char *)(uintptr_t)x->params[1].ptr;
    upstream_read(x, &request, "eligibility", got);
}

static void revoked(struct exchange *x, const struct command *c, const struct reply *r)
{
    (void)c;
    (void)r;
    response_send(x, 204);
}

void eligibilities_revoke(struct exchange *x)
{
    struct command c = {.kind = COMMAND_ELIGIBILITY_REVOKE};
    c.eligibility.sale = x->params[0];
    c.eligibility.user = x->params[1];
    upstream_submit(x, &c, revoked);
}
