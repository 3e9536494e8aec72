#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "proto/order_id.h"
#include "tools/bench/sale.h"

#define TICK_MS          1 /* how late a buyer may act: it counts into the latency */
#define PAGE_INTERVAL_NS 250000000ULL
#define CALL_BACK_NS     400000000ULL
#define REACTION_MS      50 /* between the opening and the quickest click */
#define READY_TIMEOUT_MS 60000

void sale_tell(struct sale *s, const char *format, ...)
{
    if (s->options.quiet) {
        return;
    }
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%6.2f s  ", (double)(clock_monotonic_ns() - s->began_ns) / 1e9);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

/* When the sale opens by our monotonic clock, from the server's own time: our wall clock is no
 * authority. */
static int opening_read(struct sale *s)
{
    char path[128];
    struct answer a;
    snprintf(path, sizeof path, "/v1/sales/%s?consistency=strong", s->catalog.sale);
    uint64_t now = clock_monotonic_ns();
    if (target_expect(&s->target, TARGET_PUBLIC, "GET", path, NULL, NULL, &a) != 0) {
        return -1;
    }
    int64_t opens_ms;
    int rc = clock_parse_rfc3339(str_from(json_member_text(a.json, "opens_at")), &opens_ms);
    int64_t left_ms = opens_ms - a.time_ms;
    answer_close(&a);
    if (rc != 0 || a.time_ms == 0 || left_ms <= 0) {
        fprintf(stderr, "GET %s: no Holdfast-Time before opens_at\n", path);
        return -1;
    }
    s->open_ns = now + ((uint64_t)left_ms + REACTION_MS) * 1000000;
    return 0;
}

int sale_prepare(struct sale *s)
{
    const struct sale_options *o = &s->options;
    s->began_ns = clock_monotonic_ns();
    if (o->kill_leader) {
        unsigned ready;
        if (cluster_init(&s->cluster, &s->target, o->ctl, o->restart_command) != 0 ||
            cluster_leader(&s->cluster, &s->leader, &ready, true) != 0) {
            return -1;
        }
    }
    if (o->name != NULL) {
        str_copy(s->run, sizeof s->run, str_from(o->name));
    } else {
        catalog_run_name("sale", s->run);
    }
    int64_t now = clock_wall_ms();
    s->catalog = (struct catalog){
        .skus_count = 1,
        .stock = o->units,
        .unit_price = 19900,
        .eligibility_opens_ms = now - 1000,
        .opens_ms = now + (int64_t)o->lead_ms,
        .closes_ms = now + 24LL * 3600000,
        .payment_timeout_ms = o->payment_timeout_ms,
        .eligibility_limit = o->eligibilities,
        .orders_per_user = 1,
        .units_per_order = 1,
    };
    s->catalog.eligibility_closes_ms = s->catalog.opens_ms - 1000;
    snprintf(s->catalog.sale, sizeof s->catalog.sale, "%s", s->run);
    snprintf(s->catalog.sku, sizeof s->catalog.sku, "%s-sku", s->run);
    if (catalog_create(&s->target, &s->catalog) != 0 || opening_read(s) != 0) {
        return -1;
    }
    s->client = http_client_create(s->target.loop, s->target.url, (unsigned)o->connections,
                                   s->target.timeout_ms);
    if (s->client == NULL) {
        return -1;
    }
    if (http_client_warm(s->client) != 0) {
        fprintf(stderr, "cannot open %u connections to %s\n", (unsigned)o->connections,
                s->target.url);
        return -1;
    }
    s->prng = prng_init(o->seed);
    s->buyers = calloc(o->buyers, sizeof *s->buyers);
    CHECK(s->buyers != NULL);
    for (uint64_t i = 0; i < o->buyers; i++) {
        buyer_init(&s->buyers[i], s, (unsigned)i);
    }
    sale_tell(s, "%s: %d units, opens in %.1f s; %d buyers ask for %d rights to buy", s->run,
              (int)o->units, (double)(s->open_ns - s->began_ns) / 1e9, (int)o->buyers,
              (int)o->eligibilities);
    return 0;
}

/* ---- the rush ---- */

void sale_granted(struct sale *s)
{
    s->granted++;
    if (s->options.kill_leader && !s->killed && s->granted >= (s->options.units + 1) / 2) {
        s->killed = true;
        if (cluster_kill(&s->cluster, s->leader) == 0) {
            s->kill_ns = clock_monotonic_ns();
            sale_tell(s, "kill -9 of the leader, node %d, after %d orders", (int)s->leader,
                      (int)s->granted);
        }
    }
}

static void watchers_call(struct sale *s, uint64_t now)
{
    unsigned called = 0;
    for (uint64_t i = 0; i < s->options.buyers; i++) {
        if (s->buyers[i].state == BUYER_WATCHING) {
            buyer_call_back(&s->buyers[i], now, CALL_BACK_NS);
            called++;
        }
    }
    if (called > 0) {
        s->rounds++;
        s->page_next_ns = now + CALL_BACK_NS;
        if (!s->told_expired) {
            s->told_expired = true;
            sale_tell(s, "unpaid orders expire, their units are back: %u buyers come again",
                      called);
        }
    }
}

static void watchers_leave(struct sale *s)
{
    for (uint64_t i = 0; i < s->options.buyers; i++) {
        if (s->buyers[i].state == BUYER_WATCHING) {
            s->buyers[i].state = BUYER_GONE;
        }
    }
}

/* The page was refreshed: are there units, or is all sold for good? */
static void page_done(struct http_exchange *x, enum http_failure failure,
                      const struct http_reply *reply)
{
    struct sale *s = container_of(x, struct sale, page);
    uint64_t now = clock_monotonic_ns();
    s->page_in_flight = false;
    s->page_next_ns = now + PAGE_INTERVAL_NS;
    if (failure != HTTP_ANSWERED || reply->status != 200) {
        return; /* the next refresh will do */
    }
    json_t *page = json_loadb(reply->body.ptr, reply->body.len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *offer = json_array_get(json_object_get(page, "offers"), 0);
    int64_t available = json_member_int(offer, "available");
    int64_t sold = json_member_int(offer, "sold");
    json_decref(page);
    if (available == 0 && !s->told_sold_out) {
        s->told_sold_out = true;
        sale_tell(s, "sold out: %d orders granted, %d retries under the same keys", (int)s->granted,
                  (int)s->retries);
    }
    if (available > 0) {
        watchers_call(s, now);
    } else if (sold >= (int64_t)s->options.units) {
        watchers_leave(s);
    }
}

static void page_refresh(struct sale *s, uint64_t now)
{
    if (s->page_in_flight || now < s->page_next_ns) {
        return;
    }
    s->page_in_flight = true;
    http_client_submit(s->client, &s->page);
}

static void tick_cb(uv_timer_t *timer)
{
    struct sale *s = timer->data;
    uint64_t now = clock_monotonic_ns();
    for (uint64_t i = 0; i < s->options.buyers; i++) {
        buyer_wake(&s->buyers[i], now);
    }
    if (now < s->open_ns) {
        return;
    }
    if (!s->told_open) {
        s->told_open = true;
        sale_tell(s, "the sale is open: %d buyers within %.1f s", (int)s->options.buyers,
                  (double)s->options.rush_ms / 1e3);
        s->page_next_ns = now + s->options.rush_ms * 1000000 / 2;
    }
    page_refresh(s, now);
}

/* The killed node comes back once the cluster has shown that it does without. */
static void node_restart(struct sale *s, uint64_t now)
{
    bool rush_over = now > s->open_ns + s->options.rush_ms * 1000000;
    if (s->failover_ns != 0 && !s->restarted && rush_over) {
        s->restarted = true;
        sale_tell(s, "first answer %.0f ms after the kill; node %d is started again",
                  (double)s->failover_ns / 1e6, (int)s->leader);
        if (cluster_restart(&s->cluster) != 0) {
            s->cluster.restart_failed = true;
        }
    }
}

static bool play_over(const struct sale *s)
{
    for (uint64_t i = 0; i < s->options.buyers; i++) {
        switch (s->buyers[i].state) {
        case BUYER_PAID:
        case BUYER_LAPSED:
        case BUYER_GONE:
        case BUYER_LOST:
            break;
        case BUYER_BEGIN:
        case BUYER_REGISTERING:
        case BUYER_WAITING:
        case BUYER_ORDERING:
        case BUYER_RESERVED:
        case BUYER_PAYING:
        case BUYER_WATCHING:
            return false;
        }
    }
    return !s->page_in_flight;
}

static void tick_close_cb(uv_handle_t *handle)
{
    struct sale *s = handle->data;
    s->tick_closed = true;
}

int sale_play(struct sale *s)
{
    char path[128];
    snprintf(path, sizeof path, "/v1/sales/%s", s->catalog.sale);
    request_write(&s->page_request, &(struct request){.method = "GET",
                                                      .path = path,
                                                      .host = http_client_host(s->client),
                                                      .bearer = s->target.api_key});
    s->page = (struct http_exchange){
        .request = s->page_request.data, .request_size = s->page_request.len, .done = page_done};
    CHECK(uv_timer_init(s->target.loop, &s->tick) == 0);
    s->tick.data = s;
    uv_update_time(s->target.loop);
    uv_timer_start(&s->tick, tick_cb, TICK_MS, TICK_MS);
    uint64_t give_up = clock_monotonic_ns() + s->options.limit_ms * 1000000;
    bool over = false;
    while (!over && clock_monotonic_ns() < give_up) {
        uv_run(s->target.loop, UV_RUN_ONCE);
        node_restart(s, clock_monotonic_ns());
        over = play_over(s);
    }
    uv_close((uv_handle_t *)&s->tick, tick_close_cb);
    while (!s->tick_closed || http_client_in_flight(s->client) > 0) {
        uv_run(s->target.loop, UV_RUN_ONCE);
    }
    if (!over) {
        fprintf(stderr, "not over after %d s: %d of %d units paid, %d buyers without an answer\n",
                (int)(s->options.limit_ms / 1000), (int)s->paid, (int)s->options.units,
                (int)s->lost);
        return -1;
    }
    sale_tell(s, "all %d units are paid", (int)s->paid);
    return 0;
}

/* ---- afterwards ---- */

struct single {
    struct http_exchange x;
    bool done;
    enum verdict verdict;
    uint64_t backoff_ms;
    char outcome[TALLY_NAME_SIZE_MAX];
};

static void single_done(struct http_exchange *x, enum http_failure failure,
                        const struct http_reply *reply)
{
    struct single *one = container_of(x, struct single, x);
    one->done = true;
    one->verdict = request_judge(failure, reply);
    str_copy(one->outcome, sizeof one->outcome, request_outcome(failure, reply));
}

static int status_read(struct sale *s, uint64_t order, char *status, size_t size)
{
    char id[ORDER_ID_TEXT_SIZE];
    char path[128];
    struct answer a;
    order_id_format(order, id);
    snprintf(path, sizeof path, "/v1/orders/%s?consistency=strong", id);
    if (target_expect(&s->target, TARGET_PUBLIC, "GET", path, NULL, NULL, &a) != 0) {
        return -1;
    }
    str_copy(status, size, str_from(json_member_text(a.json, "status")));
    answer_close(&a);
    return 0;
}

int sale_pay_late(struct sale *s)
{
    struct buyer *b = s->late;
    if (b == NULL) {
        return 0;
    }
    char event[KEY_SIZE_MAX + 1];
    struct text request = TEXT_INIT;
    snprintf(event, sizeof event, "%s-late-payment", b->user);
    payment_request(s, event, b->order, b->amount, &request, http_client_host(s->client));
    struct single one = {
        .x = {.request = request.data, .request_size = request.len, .done = single_done}};
    for (int tries = 0; tries < 20 && one.verdict != VERDICT_REFUSED; tries++) {
        one.done = false;
        http_client_submit(s->client, &one.x);
        while (!one.done) {
            uv_run(s->target.loop, UV_RUN_ONCE);
        }
        if (one.verdict == VERDICT_DONE) {
            break;
        }
    }
    text_close(&request);
    if (one.verdict != VERDICT_DONE) {
        fprintf(stderr, "late payment of %s: %s\n", b->user, one.outcome);
        return -1;
    }
    s->money_taken += b->amount;
    if (status_read(s, b->order, s->late_status, sizeof s->late_status) != 0) {
        return -1;
    }
    sale_tell(s, "a payment comes for an order that has expired and whose unit is sold: %s",
              s->late_status);
    char id[ORDER_ID_TEXT_SIZE];
    char path[128];
    char key[KEY_SIZE_MAX + 1];
    order_id_format(b->order, id);
    snprintf(path, sizeof path, "/v1/orders/%s/refund", id);
    snprintf(key, sizeof key, "%s-refund", b->user);
    json_t *body = json_pack("{s:s}", "reason", "paid after the deadline");
    int rc = target_expect(&s->target, TARGET_ADMIN, "POST", path, key, body, NULL);
    json_decref(body);
    if (rc != 0 || status_read(s, b->order, s->refund_status, sizeof s->refund_status) != 0) {
        return -1;
    }
    s->money_returned += strcmp(s->refund_status, "refunded") == 0 ? b->amount : 0;
    sale_tell(s, "its money is paid back: %s", s->refund_status);
    return 0;
}

int sale_recover(struct sale *s)
{
    if (!s->killed) {
        return 0;
    }
    if (cluster_wait_ready(&s->cluster, cluster_nodes(&s->cluster), READY_TIMEOUT_MS,
                           &s->new_leader) != 0) {
        return -1;
    }
    sale_tell(s, "all nodes are ready, node %d leads", (int)s->new_leader);
    return s->cluster.restart_failed ? -1 : 0;
}
