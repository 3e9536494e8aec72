/* Payment events: what the payment platform reports, signed per Standard Webhooks. The event id is the
 * idempotency key, so an event that is delivered twice is settled once. */
#include "gateway/handlers.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "gateway/response.h"
#include "gateway/upstream.h"

static void applied(struct exchange *x, const struct command *c, const struct reply *r)
{
    FAILPOINT("gateway/payment-applied", "the order is paid, the payment platform has no answer");
    struct json_writer w = json_writer_init(&x->body);
    json_object_begin(&w);
    json_put(&w, "order_id", order_id, c->payment.order);
    json_put(&w, "status", text, str_from(order_status_name((enum order_status)r->order_status)));
    json_object_end(&w);
    response_send(x, 200);
}

static bool signature_is_good(struct exchange *x)
{
    const struct str *fields = x->request.fields;
    switch (webhook_verify(&x->gateway->payment_secrets, fields[FIELD_WEBHOOK_ID],
                           fields[FIELD_WEBHOOK_TIMESTAMP], fields[FIELD_WEBHOOK_SIGNATURE],
                           x->request.body, clock_wall_ms() / 1000)) {
    case WEBHOOK_OK:
        return true;
    case WEBHOOK_MALFORMED:
        problem_send(
            x, PROBLEM_INVALID_SIGNATURE, "header:webhook-id",
            "Send webhook-id, webhook-timestamp and webhook-signature as Standard Webhooks says.");
        return false;
    case WEBHOOK_STALE_TIMESTAMP:
        problem_send(x, PROBLEM_STALE_TIMESTAMP, "header:webhook-timestamp",
                     "The timestamp is more than five minutes away from now.");
        return false;
    case WEBHOOK_BAD_SIGNATURE:
        problem_send(x, PROBLEM_INVALID_SIGNATURE, "header:webhook-signature",
                     "No signature in the list matches the raw body.");
        return false;
    }
    CHECK_UNREACHABLE();
}

void payments_event(struct exchange *x)
{
    static const char *const types[] = {"payment.succeeded"};
    json_t *root;
    struct json_fields f;
    struct json_fault fault;
    size_t type;
    struct command c = {.kind = COMMAND_PAYMENT_APPLY};
    if (!signature_is_good(x)) {
        return;
    }
    FAILPOINT("gateway/payment", "a payment event came, signed well; nothing is done about it");
    c.scope = STR_LITERAL("pay");
    c.key = x->request.fields[FIELD_WEBHOOK_ID];
    json_read_body(x->request.body, &root, &f, &fault);
    json_read_word(&f, "type", true, types, ARRAY_COUNT(types), &type);
    json_read_order_id(&f, "order_id", &c.payment.order);
    json_read_int(&f, "amount", true, 0, INT64_MAX, &c.payment.amount);
    json_read_currency(&f, "currency", c.payment.currency);
    json_read_end(&f);
    if (fault.set) {
        problem_send_fault(x, &fault);
    } else {
        upstream_submit(x, &c, applied);
    }
    json_decref(root);
}
