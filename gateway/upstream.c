/* Owns: what the client's outcomes and the nodes' statuses mean over HTTP.
 *
 * Happy path: upstream_submit → command_encode into the exchange → client_submit (which joins it
 * with others into one frame) → submit_cb → RESULT_OK → the handler's callback.
 *
 * Failure modes: the engine's refusal → its problem. Queue full, short of space, no leader → 503,
 * nothing happened. Not known → 504 OUTCOME_UNKNOWN; but a command without a key that is idempotent
 * by nature (granting, pausing, putting on the denylist: done twice is done once) is simply
 * submitted again until the deadline, as the client itself does for those with a key. */
#include "gateway/upstream.h"

#include <stdlib.h>

#include "base/failpoint.h"
#include "gateway/order_requests.h"
#include "gateway/response.h"

#define AGAIN_MS    20  /* between two attempts of a command idempotent by nature */
#define ELECTION_MS 250 /* a new leader is usually there by then */

static bool is_idempotent_by_nature(enum command_kind kind)
{
    return kind == COMMAND_ELIGIBILITY_GRANT || kind == COMMAND_ELIGIBILITY_REVOKE ||
           kind == COMMAND_SALE_PAUSE || kind == COMMAND_SALE_RESUME ||
           kind == COMMAND_SALE_CLOSE || kind == COMMAND_DENY_PUT || kind == COMMAND_DENY_REMOVE;
}

static void answer_outcome(struct exchange *x, enum client_outcome outcome, uint64_t retry_after_ms)
{
    switch (outcome) {
    case CLIENT_QUEUE_FULL:
        x->gateway->shed[SHED_QUEUE]++;
        problem_send_retry(x, PROBLEM_QUEUE_FULL, "Nothing happened. Try again with the same key.",
                           retry_after_ms);
        return;
    case CLIENT_LOW_SPACE:
        problem_send_retry(x, PROBLEM_LOW_SPACE,
                           "Nothing happened. Payments and cancellations are taken; this is not. "
                           "Try again with the same key.",
                           retry_after_ms);
        return;
    case CLIENT_NO_LEADER:
        problem_send_retry(x, PROBLEM_NO_LEADER, "Nothing happened. Try again with the same key.",
                           ELECTION_MS);
        return;
    case CLIENT_CLOSED:
        problem_send_retry(x, PROBLEM_SHUTTING_DOWN, "Nothing happened. Try again elsewhere.",
                           1000);
        return;
    case CLIENT_UNKNOWN:
        response_field(x, "Retry-After", STR_LITERAL("1"));
        problem_send(
            x, PROBLEM_OUTCOME_UNKNOWN, NULL,
            "It may or may not have happened. Send it again with the same key: it will happen "
            "at most once, and the answer tells.");
        return;
    case CLIENT_MALFORMED:
        problem_send(x, PROBLEM_INTERNAL, NULL, "The nodes do not take what this gateway sent.");
        return;
    case CLIENT_OK:
        break;
    }
    CHECK_UNREACHABLE();
}

/* ---- commands ---- */

/* The stock right after the command, for whoever checks that all answers fit together. */
static void add_witness(struct exchange *x, const struct command *c, const struct reply *r)
{
    bool moves_stock = c->kind == COMMAND_ORDER_PLACE || c->kind == COMMAND_ORDER_CANCEL ||
                       c->kind == COMMAND_PAYMENT_APPLY || c->kind == COMMAND_ORDER_REFUND ||
                       c->kind == COMMAND_STOCK_ADJUST;
    if (!moves_stock || r->result == RESULT_NOT_FOUND || r->result == RESULT_INVALID ||
        r->result == RESULT_IDEMPOTENCY_KEY_REUSED) {
        return;
    }
    struct out *f = &x->fields;
    out_literal(f, "Holdfast-Stock: ");
    out_i64(f, r->available);
    out_char(f, '/');
    out_i64(f, r->reserved);
    out_char(f, '/');
    out_i64(f, r->sold);
    out_literal(f, "\r\n");
}

static void answer_reply(struct exchange *x, const struct reply *r)
{
    struct command c;
    struct gateway *g = x->gateway;
    CHECK(command_decode(&c, x->command, x->command_size) == 0);
    if (c.kind == COMMAND_ORDER_PLACE && r->result < ARRAY_COUNT(g->orders)) {
        g->orders[r->result]++;
    }
    if (x->answered) {
        return; /* with 202: the outcome is kept by order_requests */
    }
    x->log_index = r->index;
    if (r->flags & REPLY_REPLAYED) {
        x->replayed = true;
        g->idempotency_replays++;
        out_literal(&x->fields, "Holdfast-Origin-Index: ");
        out_u64(&x->fields, r->origin_index);
        out_literal(&x->fields, "\r\n");
    }
    add_witness(x, &c, r);
    if (r->result != RESULT_OK) {
        problem_send_reply(x, r);
        return;
    }
    x->on_reply(x, &c, r);
}

static void submit(struct exchange *x);

static void submit_cb(struct client_submit *req, enum client_outcome outcome,
                      const struct reply *reply)
{
    struct exchange *x = container_of(req, struct exchange, submit);
    x->submit_busy = false;
    if (outcome == CLIENT_UNKNOWN && x->attempts > 0 && !x->gateway->draining &&
        uv_now(x->gateway->loop) + AGAIN_MS < x->deadline_ms) {
        exchange_sleep(x, AGAIN_MS, submit);
        return;
    }
    if (x->tracked != NULL) {
        order_requests_finish(x, outcome, reply);
    }
    if (x->sleeping) {
        exchange_sleep_cancel(x); /* of a 202 that need not be given any more */
    }
    if (outcome == CLIENT_OK) {
        FAILPOINT("gateway/after-commit", "a command is committed, its caller has no answer");
        answer_reply(x, reply);
    } else if (!x->answered) {
        answer_outcome(x, outcome, req->retry_after_ms);
    }
    exchange_settle(x);
}

static void submit(struct exchange *x)
{
    FAILPOINT("gateway/before-submit", "a request is read, its command is not on its way");
    enum client_outcome outcome = client_submit(x->gateway->client, &x->submit, x->command,
                                                x->command_size, x->deadline_ms, submit_cb);
    if (outcome == CLIENT_OK) {
        x->submit_busy = true;
        return;
    }
    if (x->tracked != NULL) {
        order_requests_finish(x, outcome, NULL);
    }
    answer_outcome(x, outcome, x->submit.retry_after_ms);
}

void upstream_submit(struct exchange *x, struct command *c, exchange_reply_cb done)
{
    if (c->key.len == 0) {
        c->key = x->key;
    }
    if (c->scope.len == 0) {
        c->scope = x->scope;
    }
    /* Small commands go where they cost no allocation; a sale with many offers does not fit there. */
    x->command_size = command_encode(c, x->command, EXCHANGE_COMMAND_INLINE);
    if (x->command_size == 0) {
        uint8_t *larger = malloc(COMMAND_SIZE_MAX);
        CHECK(larger != NULL);
        x->command = larger;
        x->command_size = command_encode(c, x->command, COMMAND_SIZE_MAX);
    }
    if (x->command_size == 0) {
        if (x->tracked != NULL) {
            order_requests_finish(x, CLIENT_MALFORMED, NULL);
        }
        problem_send(x, PROBLEM_INVALID_REQUEST, "", "The values contradict each other.");
        return;
    }
    x->on_reply = done;
    x->attempts = c->key.len == 0 && is_idempotent_by_nature(c->kind) ? 1 : 0;
    submit(x);
}

/* ---- reads ---- */

static void answer_index_not_reached(struct exchange *x)
{
    problem_send_retry(x, PROBLEM_INDEX_NOT_REACHED,
                       "No node could show the state asked for in time. Try again.", 1000);
}

static void answer_status(struct exchange *x, const Holdfast__Response *r)
{
    switch (r->status) {
    case HOLDFAST__STATUS__STATUS_NOT_FOUND: {
        struct json_writer w =
            problem_begin(x, PROBLEM_NOT_FOUND, "What the request names does not exist.");
        if (x->missing != NULL) {
            json_put(&w, "subject", text, str_from(x->missing));
        }
        problem_end(x, &w, PROBLEM_NOT_FOUND);
        return;
    }
    case HOLDFAST__STATUS__STATUS_TIMEOUT:
        answer_index_not_reached(x);
        return;
    case HOLDFAST__STATUS__STATUS_MALFORMED:
        problem_send(x, PROBLEM_INVALID_REQUEST, "query:cursor",
                     "Send a cursor as the last page gave it, with the same filters.");
        return;
    case HOLDFAST__STATUS__STATUS_NOT_LEADER:
    case HOLDFAST__STATUS__STATUS_BUSY:
    case HOLDFAST__STATUS__STATUS_OUTCOME_UNKNOWN:
    case HOLDFAST__STATUS__STATUS_REFUSED:
    case HOLDFAST__STATUS__STATUS_LOW_SPACE:
        problem_send_retry(x, PROBLEM_NO_LEADER, "No node could answer now. Try again.",
                           ELECTION_MS);
        return;
    case HOLDFAST__STATUS__STATUS_UNSUPPORTED:
    case HOLDFAST__STATUS__STATUS_OK:
    case _HOLDFAST__STATUS_IS_INT_SIZE:
        break;
    }
    problem_send(x, PROBLEM_INTERNAL, NULL, "The nodes do not take what this gateway sent.");
}

static void call_cb(struct client_call *call, enum client_outcome outcome,
                    const Holdfast__Response *response)
{
    struct exchange *x = container_of(call, struct exchange, call);
    x->call_busy = false;
    if (outcome == CLIENT_UNKNOWN && x->wants_index) {
        answer_index_not_reached(x); /* our patience ended together with the node's */
    } else if (outcome != CLIENT_OK) {
        /* A read that was sent has no outcome that could be in doubt. */
        answer_outcome(x, outcome == CLIENT_UNKNOWN ? CLIENT_NO_LEADER : outcome, 0);
    } else {
        x->log_index = response->index;
        if (response->status == HOLDFAST__STATUS__STATUS_OK) {
            x->on_response(x, response);
        } else if (response->status == HOLDFAST__STATUS__STATUS_NOT_FOUND && x->on_absent != NULL) {
            x->on_absent(x);
        } else {
            answer_status(x, response);
        }
    }
    exchange_settle(x);
}

/* ?consistency=local|strong and ?min_index=N. Local unless asked otherwise. */
static bool read_consistency(struct exchange *x, Holdfast__Request *request, uint64_t *target)
{
    struct str consistency = exchange_query(x, "consistency");
    struct str min_index = exchange_query(x, "min_index");
    *target = CLIENT_TARGET_ANY;
    request->consistency = HOLDFAST__CONSISTENCY__CONSISTENCY_LOCAL;
    if (consistency.ptr != NULL && str_equal(consistency, STR_LITERAL("strong"))) {
        request->consistency = HOLDFAST__CONSISTENCY__CONSISTENCY_STRONG;
        *target = CLIENT_TARGET_LEADER;
    } else if (consistency.ptr != NULL && !str_equal(consistency, STR_LITERAL("local"))) {
        problem_send(x, PROBLEM_INVALID_REQUEST, "query:consistency",
                     "consistency is local or strong.");
        return false;
    }
    if (min_index.ptr != NULL) {
        if (!str_to_u64(min_index, &request->min_index)) {
            problem_send(
                x, PROBLEM_INVALID_REQUEST, "query:min_index",
                "min_index is a whole number: the Holdfast-Log-Index of an earlier answer.");
            return false;
        }
        x->wants_index = true;
        if (request->consistency == HOLDFAST__CONSISTENCY__CONSISTENCY_LOCAL) {
            request->consistency = HOLDFAST__CONSISTENCY__CONSISTENCY_INDEX;
        }
    }
    return true;
}

static void call(struct exchange *x, Holdfast__Request *request, exchange_response_cb done,
                 void (*absent)(struct exchange *x))
{
    uint64_t target;
    if (!read_consistency(x, request, &target)) {
        return;
    }
    x->on_response = done;
    x->on_absent = absent;
    enum client_outcome outcome =
        client_call(x->gateway->client, &x->call, request, target, x->deadline_ms, call_cb);
    if (outcome != CLIENT_OK) {
        answer_outcome(x, outcome, 0);
        return;
    }
    x->call_busy = true;
}

void upstream_read(struct exchange *x, Holdfast__Request *request, const char *missing,
                   exchange_response_cb done)
{
    x->missing = missing;
    call(x, request, done, NULL);
}

void upstream_read_or(struct exchange *x, Holdfast__Request *request, exchange_response_cb done,
                      void (*absent)(struct exchange *x))
{
    call(x, request, done, absent);
}
