/* Orders: placing, reading, cancelling, refunding.
 *
 * Placing is the hot path: the body is read without a tree, the command is encoded once into the
 * exchange, and the answer is written from that command and the reply, so that a repetition of the key
 * gives the very same bytes. */
#include "gateway/handlers.h"

#include "gateway/json_order.h"
#include "gateway/order_requests.h"
#include "gateway/reads.h"
#include "gateway/response.h"
#include "gateway/upstream.h"

void orders_write_placed(struct json_writer *w, const struct command *c, const struct reply *r)
{
    json_object_begin(w);
    json_put(w, "order_id", order_id, r->order);
    json_put(w, "sale_id", text, c->order_place.sale);
    json_put(w, "user_id", text, c->order_place.user);
    json_put(w, "status", text, str_from(order_status_name((enum order_status)r->order_status)));
    json_key(w, STR_LITERAL("lines"));
    json_array_begin(w);
    for (uint32_t i = 0; i < c->order_place.lines_count; i++) {
        struct str sku = c->order_place.lines[i].sku;
        uint64_t quantity = 0;
        bool first =
            true; /* a SKU that comes twice is summed where it came first, as the engine does */
        for (uint32_t j = 0; j < c->order_place.lines_count; j++) {
            if (str_equal(c->order_place.lines[j].sku, sku)) {
                quantity += c->order_place.lines[j].quantity;
                first = first && j >= i;
            }
        }
        if (first) {
            json_object_begin(w);
            json_put(w, "sku", text, sku);
            json_put(w, "quantity", uint, quantity);
            json_object_end(w);
        }
    }
    json_array_end(w);
    json_put(w, "amount", int, r->amount);
    json_put(w, "currency", text, str_from(r->currency));
    json_put(w, "created_at", time, r->created_ms);
    json_put(w, "pay_by", time, r->pay_by_ms);
    json_object_end(w);
}

static void placed(struct exchange *x, const struct command *c, const struct reply *r)
{
    struct json_writer w = json_writer_init(&x->body);
    orders_write_placed(&w, c, r);
    response_location_order(x, r->order);
    response_send(x, 201);
}

static void answer_accepted(struct exchange *x)
{
    if (x->answered) {
        return; /* the outcome was faster */
    }
    struct json_writer w = json_writer_init(&x->body);
    json_object_begin(&w);
    json_put(&w, "key", text, x->key);
    json_put(&w, "state", text, STR_LITERAL("pending"));
    json_object_end(&w);
    response_fieldf(x, "Location", "/v1/order-requests/%.*s", (int)x->key.len, x->key.ptr);
    response_field(x, "Preference-Applied", STR_LITERAL("respond-async"));
    response_send(x, 202);
}

static void accepted_later(struct exchange *x)
{
    answer_accepted(x);
    exchange_settle(x);
}

static void submit_async(struct exchange *x, struct command *c)
{
    uint64_t wait_ms = x->wait_given ? x->wait_ms : 0;
    if (!order_requests_track(x)) {
        problem_send_retry(x, PROBLEM_QUEUE_FULL, "Nothing happened. Try again with the same key.",
                           1000);
        return;
    }
    x->deadline_ms = uv_now(x->gateway->loop) + x->gateway->limits.wait_max_ms;
    upstream_submit(x, c, placed);
    if (x->answered) {
        return; /* refused at once */
    }
    if (wait_ms == 0) {
        answer_accepted(x);
    } else {
        exchange_sleep(x, wait_ms, accepted_later);
    }
}

void orders_place(struct exchange *x)
{
    struct order_body body;
    struct json_fault fault = {.set = false};
    json_t *root = NULL;
    struct str own = x->caller.role == ROLE_USER ? str_from(x->caller.name) : (struct str){NULL, 0};
    if (!json_order_read_plain(x->request.body, &body) &&
        !json_order_read(x->request.body, &root, &body, &fault)) {
        problem_send_fault(x, &fault);
        json_decref(root);
        return;
    }
    if (own.len > 0 && body.user.len > 0 && !str_equal(body.user, own)) {
        problem_send(x, PROBLEM_FORBIDDEN, "/user_id", "A user orders for themselves only.");
    } else if (own.len == 0 && body.user.len == 0) {
        problem_send(x, PROBLEM_INVALID_REQUEST, "/user_id", "This field is missing.");
    } else {
        struct command c;
        c.kind = COMMAND_ORDER_PLACE;
        c.scope = c.key = (struct str){NULL, 0};
        c.order_place.sale = body.sale;
        c.order_place.user = own.len > 0 ? own : body.user;
        c.order_place.lines_count = body.lines_count;
        memcpy(c.order_place.lines, body.lines, body.lines_count * sizeof body.lines[0]);
        if (x->respond_async) {
            submit_async(x, &c);
        } else {
            upstream_submit(x, &c, placed);
        }
    }
    json_decref(root);
}

/* ---- order requests: the asynchronous face ---- */

static void order_request_wait(struct exchange *x);

static void write_order_request(struct exchange *x, const struct reply *r)
{
    struct json_writer w = json_writer_init(&x->body);
    json_object_begin(&w);
    json_put(&w, "key", text, x->params[0]);
    if (r->result == RESULT_OK) {
        json_put(&w, "state", text, STR_LITERAL("placed"));
        json_put(&w, "order_id", order_id, r->order);
        json_put(&w, "amount", int, r->amount);
        json_put(&w, "currency", text, str_from(r->currency));
        json_put(&w, "created_at", time, r->created_ms);
        json_put(&w, "pay_by", time, r->pay_by_ms);
        response_location_order(x, r->order);
    } else {
        const struct problem_info *info = problem_info(problem_of_result((enum result)r->result));
        json_put(&w, "state", text, STR_LITERAL("refused"));
        json_key(&w, STR_LITERAL("problem"));
        json_object_begin(&w);
        json_put(&w, "title", text, str_from(info->title));
        json_put(&w, "status", uint, info->status);
        json_put(&w, "code", text, str_from(info->code));
        problem_write_reply(&w, r);
        json_object_end(&w);
    }
    json_object_end(&w);
    response_field(x, "Cache-Control", STR_LITERAL("no-store"));
    response_send(x, 200);
}

static void write_order_request_state(struct exchange *x, struct str state)
{
    struct json_writer w = json_writer_init(&x->body);
    json_object_begin(&w);
    json_put(&w, "key", text, x->params[0]);
    json_put(&w, "state", text, state);
    json_object_end(&w);
    response_field(x, "Cache-Control", STR_LITERAL("no-store"));
    response_send(x, 200);
}

static void order_request_got(struct exchange *x, const Holdfast__Response *r)
{
    struct reply reply;
    if (r->body_case != HOLDFAST__RESPONSE__BODY_PLACED ||
        reply_decode(&reply, r->placed.data, r->placed.len) != 0) {
        problem_send(x, PROBLEM_INTERNAL, NULL, "A node's answer is not what was asked for.");
        return;
    }
    write_order_request(x, &reply);
}

static void order_request_absent(struct exchange *x)
{
    if (uv_now(x->gateway->loop) < x->deadline_poll_ms) {
        order_request_wait(x);
        return;
    }
    struct json_writer w =
        problem_begin(x, PROBLEM_NOT_FOUND, "No order was placed with this key so far.");
    json_put(&w, "subject", text, STR_LITERAL("order_request"));
    problem_end(x, &w, PROBLEM_NOT_FOUND);
}

static void order_request_look(struct exchange *x)
{
    const struct order_request *known =
        order_requests_find(x->gateway->order_requests, x->scope, x->params[0]);
    if (known != NULL && known->state == ORDER_REQUEST_PENDING) {
        if (uv_now(x->gateway->loop) < x->deadline_poll_ms) {
            order_request_wait(x);
        } else {
            write_order_request_state(x, STR_LITERAL("pending"));
        }
        return;
    }
    if (known != NULL && known->state == ORDER_REQUEST_ANSWERED) {
        x->log_index = known->reply.index;
        write_order_request(x, &known->reply);
        return;
    }
    if (known != NULL && known->state == ORDER_REQUEST_FAILED) {
        write_order_request_state(x, STR_LITERAL("not_placed"));
        return;
    }
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__GetPlaced get = HOLDFAST__GET_PLACED__INIT;
    request.body_case = HOLDFAST__REQUEST__BODY_GET_PLACED;
    request.get_placed = &get;
    get.scope = x->scope_text;
    x->scope_text[x->scope.len] = '\0';
    get.key = (char *)(uintptr_t)x->params[0].ptr;
    x->deadline_ms = uv_now(x->gateway->loop) + x->gateway->limits.wait_ms;
    upstream_read_or(x, &request, order_request_got, order_request_absent);
}

static void order_request_again(struct exchange *x)
{
    order_request_look(x);
    exchange_settle(x);
}

static void order_request_wait(struct exchange *x)
{
    enum { LOOK_EVERY_MS = 25 };
    if (x->connection == NULL || x->gateway->draining) {
        write_order_request_state(x, STR_LITERAL("pending"));
        return;
    }
    exchange_sleep(x, LOOK_EVERY_MS, order_request_again);
}

void order_requests_get(struct exchange *x)
{
    bool long_poll = exchange_query(x, "wait").ptr != NULL;
    x->deadline_poll_ms = long_poll ? uv_now(x->gateway->loop) + x->wait_ms : 0;
    order_request_look(x);
}

/* ---- reading ---- */

static void write_order(struct json_writer *w, const Holdfast__Order *o)
{
    json_object_begin(w);
    json_put(w, "order_id", order_id, o->id);
    json_put(w, "version", uint, o->version);
    json_put(w, "sale_id", text, str_from(o->sale));
    json_put(w, "user_id", text, str_from(o->user));
    json_put(w, "status", text, str_from(order_status_name((enum order_status)o->status)));
    json_key(w, STR_LITERAL("lines"));
    json_array_begin(w);
    for (size_t i = 0; i < o->n_lines; i++) {
        json_object_begin(w);
        json_put(w, "sku", text, str_from(o->lines[i]->sku));
        json_put(w, "quantity", uint, o->lines[i]->quantity);
        json_put(w, "unit_price", int, o->lines[i]->unit_price);
        json_object_end(w);
    }
    json_array_end(w);
    json_put(w, "amount", int, o->amount);
    json_put(w, "currency", text, str_from(o->currency));
    json_put(w, "created_at", time, o->created_ms);
    json_put(w, "pay_by", time, o->pay_by_ms);
    json_put(w, "changed_at", time, o->changed_ms);
    json_put(w, "created_index", uint, o->created_index);
    json_put(w, "changed_index", uint, o->changed_index);
    json_object_end(w);
}

static void listed(struct exchange *x, const Holdfast__Response *r)
{
    struct json_writer w = reads_page_begin(x);
    bool there = r->body_case == HOLDFAST__RESPONSE__BODY_ORDERS;
    for (size_t i = 0; there && i < r->orders->n_items; i++) {
        write_order(&w, r->orders->items[i]);
    }
    reads_page_end(x, &w, r);
}

void orders_list(struct exchange *x)
{
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__List list = HOLDFAST__LIST__INIT;
    struct str sale = exchange_query(x, "sale_id"), user = exchange_query(x, "user_id");
    if (x->caller.role == ROLE_USER) {
        if (user.ptr != NULL && !str_equal(user, str_from(x->caller.name))) {
            problem_send(x, PROBLEM_FORBIDDEN, "query:user_id",
                         "A user sees their own orders only.");
            return;
        }
        user = str_from(x->caller.name);
    }
    if ((sale.ptr != NULL && !str_is_identifier(sale, ID_SIZE_MAX)) ||
        (user.ptr != NULL && !str_is_identifier(user, ID_SIZE_MAX))) {
        problem_send(x, PROBLEM_INVALID_REQUEST, "query:", "A filter is no id.");
        return;
    }
    request.body_case = HOLDFAST__REQUEST__BODY_LIST_ORDERS;
    request.list_orders = &list;
    list.sale = (char *)(uintptr_t)(sale.ptr != NULL ? sale.ptr : "");
    list.user = (char *)(uintptr_t)(user.ptr != NULL ? user.ptr : "");
    if (reads_page(x, &list)) {
        upstream_read(x, &request, NULL, listed);
    }
}

static void got(struct exchange *x, const Holdfast__Response *r)
{
    if (r->body_case != HOLDFAST__RESPONSE__BODY_ORDERS || r->orders->n_items != 1) {
        problem_send(x, PROBLEM_INTERNAL, NULL, "A node's answer is not what was asked for.");
        return;
    }
    const Holdfast__Order *o = r->orders->items[0];
    if (x->caller.role == ROLE_USER && strcmp(o->user, x->caller.name) != 0) {
        problem_send(x, PROBLEM_FORBIDDEN, NULL, "The order belongs to another user.");
        return;
    }
    struct json_writer w = json_writer_init(&x->body);
    write_order(&w, o);
    response_field(x, "Cache-Control", STR_LITERAL("private, no-cache"));
    response_send_versioned(x, o->version);
}

void orders_get(struct exchange *x)
{
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__GetOrder get = HOLDFAST__GET_ORDER__INIT;
    request.body_case = HOLDFAST__REQUEST__BODY_GET_ORDER;
    request.get_order = &get;
    get.id = x->order_id;
    upstream_read(x, &request, "order", got);
}

/* ---- changing ---- */

static void changed(struct exchange *x, const struct command *c, const struct reply *r)
{
    uint64_t order =
        c->kind == COMMAND_ORDER_CANCEL ? c->order_cancel.order : c->order_refund.order;
    struct json_writer w = json_writer_init(&x->body);
    json_object_begin(&w);
    json_put(&w, "order_id", order_id, order);
    json_put(&w, "status", text, str_from(order_status_name((enum order_status)r->order_status)));
    json_object_end(&w);
    response_send(x, 200);
}

void orders_cancel(struct exchange *x)
{
    json_t *root = NULL;
    struct json_fields f;
    struct json_fault fault = {.set = false};
    struct command c = {.kind = COMMAND_ORDER_CANCEL};
    if (x->request.body.len > 0) {
        json_read_body(x->request.body, &root, &f, &fault);
        json_read_end(&f);
        json_decref(root);
    }
    if (fault.set) {
        problem_send_fault(x, &fault);
        return;
    }
    c.order_cancel.order = x->order_id;
    c.order_cancel.user =
        x->caller.role == ROLE_USER ? str_from(x->caller.name) : (struct str){NULL, 0};
    upstream_submit(x, &c, changed);
}

void orders_refund(struct exchange *x)
{
    json_t *root;
    struct json_fields f;
    struct json_fault fault;
    struct command c = {.kind = COMMAND_ORDER_REFUND};
    c.order_refund.order = x->order_id;
    c.order_refund.reason = STR_LITERAL("");
    json_read_body(x->request.body, &root, &f, &fault);
    json_read_bool(&f, "restock", false, &c.order_refund.restock);
    json_read_text(&f, "reason", false, REASON_SIZE_MAX, &c.order_refund.reason);
    json_read_end(&f);
    if (fault.set) {
        problem_send_fault(x, &fault);
    } else {
        upstream_submit(x, &c, changed);
    }
    json_decref(root);
}
