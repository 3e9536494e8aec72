#include <inttypes.h>
#include <stdio.h>

#include "base/check.h"
#include "base/clock.h"
#include "proto/order_id.h"
#include "tools/bench/sale.h"

#define PATIENCE_NS   60000000000ULL /* how long one request is asked again and again */
#define PAY_AFTER_MS  200            /* the quickest pays this long after the order, */
#define PAY_WITHIN_MS 1000           /* the slowest this much later */

static void buyer_done(struct http_exchange *x, enum http_failure failure,
                       const struct http_reply *reply);

void buyer_init(struct buyer *b, struct sale *s, unsigned number)
{
    b->sale = s;
    b->x.done = buyer_done;
    b->early = number < s->options.early;
    b->request = TEXT_INIT;
    snprintf(b->user, sizeof b->user, "%s-u%04u", s->run, number);
    b->state = BUYER_BEGIN;
    b->wake_ns = s->began_ns + prng_below(&s->prng, s->options.register_ms * 1000000);
}

void buyer_key(const struct buyer *b, unsigned click, char key[static KEY_SIZE_MAX + 1])
{
    int n = snprintf(key, KEY_SIZE_MAX + 1, "%s-order-%u", b->user, click);
    CHECK(n > 0 && n <= KEY_SIZE_MAX);
}

/* ---- requests ---- */

static void buyer_submit(struct buyer *b)
{
    b->x.request = b->request.data;
    b->x.request_size = b->request.len;
    b->in_flight = true;
    b->wake_ns = 0;
    http_client_submit(b->sale->client, &b->x);
}

/* A new request, meant to be sent at due_ns. */
static void buyer_ask(struct buyer *b, uint64_t now, uint64_t due_ns)
{
    b->attempts = 0;
    b->unknown = false;
    b->due_ns = due_ns;
    b->sent_ns = now;
    buyer_submit(b);
}

static void buyer_write(struct buyer *b, const char *path, const char *key, json_t *body)
{
    struct sale *s = b->sale;
    char *text = json_dumps(body, JSON_COMPACT);
    CHECK(text != NULL);
    text_clear(&b->request);
    request_write(&b->request, &(struct request){.method = "POST",
                                                 .path = path,
                                                 .host = http_client_host(s->client),
                                                 .bearer = s->target.api_key,
                                                 .key = key,
                                                 .body = text});
    free(text);
    json_decref(body);
}

static void buyer_register(struct buyer *b, uint64_t now)
{
    char path[128];
    char key[KEY_SIZE_MAX + 1];
    snprintf(path, sizeof path, "/v1/sales/%s/eligibilities", b->sale->catalog.sale);
    snprintf(key, sizeof key, "%s-right", b->user);
    buyer_write(b, path, key, json_pack("{s:s}", "user_id", b->user));
    b->state = BUYER_REGISTERING;
    buyer_ask(b, now, b->wake_ns);
}

static void buyer_order(struct buyer *b, uint64_t now)
{
    char key[KEY_SIZE_MAX + 1];
    b->clicks++;
    buyer_key(b, b->clicks, key);
    buyer_write(b, "/v1/orders", key,
                json_pack("{s:s,s:s,s:[{s:s,s:i}]}", "sale_id", b->sale->catalog.sale, "user_id",
                          b->user, "lines", "sku", b->sale->catalog.sku, "quantity", 1));
    b->state = BUYER_ORDERING;
    buyer_ask(b, now, b->wake_ns);
}

void payment_request(struct sale *s, const char *event, uint64_t order, int64_t amount,
                     struct text *request, const char *host)
{
    char id[ORDER_ID_TEXT_SIZE];
    order_id_format(order, id);
    json_t *body = json_pack("{s:s,s:s,s:I,s:s}", "type", "payment.succeeded", "order_id", id,
                             "amount", (json_int_t)amount, "currency", CATALOG_CURRENCY);
    char *text = json_dumps(body, JSON_COMPACT);
    CHECK(text != NULL);
    struct text headers = TEXT_INIT;
    target_sign(&s->target, event, clock_wall_ms(), text, &headers);
    text_clear(request);
    request_write(request, &(struct request){.method = "POST",
                                             .path = "/v1/payments/events",
                                             .host = host,
                                             .headers = headers.data,
                                             .body = text});
    text_close(&headers);
    free(text);
    json_decref(body);
}

/* The payment platform tells of a payment: signed, under the event's own id. */
static void buyer_pay(struct buyer *b, uint64_t now)
{
    char event[KEY_SIZE_MAX + 1];
    snprintf(event, sizeof event, "%s-payment", b->user);
    payment_request(b->sale, event, b->order, b->amount, &b->request,
                    http_client_host(b->sale->client));
    b->state = BUYER_PAYING;
    buyer_ask(b, now, b->wake_ns);
}

/* ---- answers ---- */

static uint64_t rush_moment(struct sale *s)
{
    return s->open_ns + prng_below(&s->prng, s->options.rush_ms * 1000000);
}

static void buyer_registered(struct buyer *b, enum verdict verdict)
{
    struct sale *s = b->sale;
    b->eligible = verdict == VERDICT_DONE;
    b->state = BUYER_WAITING;
    /* Those without a right come too: they are part of the crowd. */
    b->wake_ns = b->early ? s->open_ns - 500000000 : rush_moment(s);
}

/* Exactly `payers` of the first `units` orders are paid, spread evenly; all later ones are. */
static bool will_pay(const struct sale *s, uint64_t nth)
{
    uint64_t units = s->options.units;
    uint64_t payers = s->options.payers;
    return nth >= units || (nth + 1) * payers / units > nth * payers / units;
}

static void buyer_granted(struct buyer *b, const struct http_reply *reply, uint64_t now)
{
    struct sale *s = b->sale;
    json_t *order = json_loadb(reply->body.ptr, reply->body.len, JSON_REJECT_DUPLICATES, NULL);
    b->order = request_order_id(reply); /* 0: the account will not add up, and say so */
    b->amount = json_member_int(order, "amount");
    json_decref(order);
    b->order_click = b->clicks;
    b->granted_nth = s->granted;
    if (will_pay(s, s->granted)) {
        b->state = BUYER_RESERVED;
        b->wake_ns = now + (PAY_AFTER_MS + prng_below(&s->prng, PAY_WITHIN_MS)) * 1000000;
    } else {
        b->state = BUYER_LAPSED;
        if (s->late == NULL) {
            s->late = b;
        }
    }
    sale_granted(s);
}

static void buyer_ordered(struct buyer *b, enum verdict verdict, struct str outcome,
                          const struct http_reply *reply, uint64_t now)
{
    struct sale *s = b->sale;
    if (s->kill_ns != 0 && s->failover_ns == 0 && b->sent_ns > s->kill_ns) {
        s->failover_ns = now - s->kill_ns; /* orders are answered from the log, refusals too */
    }
    if (verdict == VERDICT_DONE) {
        buyer_granted(b, reply, now);
    } else if (str_equal(outcome, STR_LITERAL("SALE_NOT_OPEN"))) {
        /* A stored refusal stays: this key is spent. Back at the opening with a new one. */
        b->state = BUYER_WAITING;
        b->wake_ns = rush_moment(s);
        b->wake_ns = b->wake_ns > now ? b->wake_ns : now + 1;
    } else if (str_equal(outcome, STR_LITERAL("SOLD_OUT")) && b->eligible) {
        b->state = BUYER_WATCHING;
    } else {
        b->state = BUYER_GONE;
    }
}

static void buyer_paid(struct buyer *b, enum verdict verdict)
{
    struct sale *s = b->sale;
    if (verdict != VERDICT_DONE) {
        b->state = BUYER_LOST;
        s->lost++;
        return;
    }
    b->state = BUYER_PAID;
    s->paid++;
    s->money_taken += b->amount;
    if (b->granted_nth < s->options.units) {
        s->paid_first++;
    } else {
        s->resold++;
    }
}

static void buyer_done(struct http_exchange *x, enum http_failure failure,
                       const struct http_reply *reply)
{
    struct buyer *b = container_of(x, struct buyer, x);
    struct sale *s = b->sale;
    uint64_t now = clock_monotonic_ns();
    enum verdict verdict = request_judge(failure, reply);
    struct str outcome = request_outcome(failure, reply);
    b->in_flight = false;
    b->unknown |= verdict == VERDICT_UNKNOWN;
    if (verdict == VERDICT_TRY_AGAIN || verdict == VERDICT_UNKNOWN) {
        if (now - b->sent_ns > PATIENCE_NS) {
            b->state = BUYER_LOST;
            s->lost++;
            return;
        }
        b->wake_ns = now + request_backoff_ms(reply, b->attempts) * 1000000;
        b->attempts++;
        s->retries++;
        return;
    }
    switch (b->state) {
    case BUYER_REGISTERING:
        tally_add(&s->registered, outcome, 1);
        histogram_add(&s->latency_register, now - b->due_ns);
        buyer_registered(b, verdict);
        break;
    case BUYER_ORDERING:
        tally_add(&s->ordered, outcome, 1);
        histogram_add(&s->latency_order, now - b->due_ns);
        buyer_ordered(b, verdict, outcome, reply, now);
        break;
    case BUYER_PAYING:
        buyer_paid(b, verdict);
        break;
    case BUYER_BEGIN:
    case BUYER_WAITING:
    case BUYER_RESERVED:
    case BUYER_PAID:
    case BUYER_LAPSED:
    case BUYER_WATCHING:
    case BUYER_GONE:
    case BUYER_LOST:
        CHECK_UNREACHABLE(); /* nothing is in flight in these */
    }
}

void buyer_wake(struct buyer *b, uint64_t now)
{
    if (b->in_flight || b->wake_ns == 0 || now < b->wake_ns) {
        return;
    }
    switch (b->state) {
    case BUYER_BEGIN:
        buyer_register(b, now);
        break;
    case BUYER_WAITING:
        buyer_order(b, now);
        break;
    case BUYER_RESERVED:
        buyer_pay(b, now);
        break;
    case BUYER_REGISTERING:
    case BUYER_ORDERING:
    case BUYER_PAYING:
        buyer_submit(b); /* again, under the same key */
        break;
    case BUYER_PAID:
    case BUYER_LAPSED:
    case BUYER_WATCHING:
    case BUYER_GONE:
    case BUYER_LOST:
        CHECK_UNREACHABLE(); /* they wait for nothing */
    }
}

void buyer_call_back(struct buyer *b, uint64_t now, uint64_t spread_ns)
{
    CHECK(b->state == BUYER_WATCHING);
    b->state = BUYER_WAITING;
    b->wake_ns = now + 1 + prng_below(&b->sale->prng, spread_ns);
}
