/* Owns: what this process counts, and its Prometheus page. No user id or order id is ever in a label:
 * routes appear as their patterns. */
#include "gateway/metrics.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/metrics.h"
#include "gateway/handlers.h"
#include "gateway/response.h"
#include "gateway/route.h"

static const uint16_t statuses[] = {200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 406, 408, 409,
                                    412, 413, 414, 415, 417, 422, 428, 431, 500, 503, 504, 505};
_Static_assert(ARRAY_COUNT(statuses) <= GATEWAY_STATUSES_MAX, "each status has a counter");

void metrics_init(struct gateway *g)
{
    g->stats = calloc(routes_count + 1, sizeof *g->stats);
    CHECK(g->stats != NULL);
    for (size_t i = 0; i <= routes_count; i++) {
        histogram_init(&g->stats[i].duration_ns);
    }
}

void metrics_close(struct gateway *g)
{
    free(g->stats);
    g->stats = NULL;
}

void metrics_count_answer(const struct exchange *x)
{
    struct route_stats *s = &x->gateway->stats[route_number(x->route)];
    histogram_add(&s->duration_ns, uv_hrtime() - x->started_ns);
    for (size_t i = 0; i < ARRAY_COUNT(statuses); i++) {
        if (statuses[i] == x->status) {
            s->codes[i]++;
            return;
        }
    }
    CHECK_UNREACHABLE();
}

static void route_label(size_t i, char *out, size_t size)
{
    if (i == routes_count) {
        snprintf(out, size, "route=\"none\"");
    } else {
        snprintf(out, size, "route=\"%s %s\"",
                 llhttp_method_name((llhttp_method_t)routes[i].method), routes[i].pattern);
    }
}

static void write_routes(const struct gateway *g, struct text *t)
{
    char route[96], labels[128];
    metrics_family(t, "holdfast_http_requests_total", "counter", "Answers by route and status.");
    for (size_t i = 0; i <= routes_count; i++) {
        route_label(i, route, sizeof route);
        for (size_t c = 0; c < ARRAY_COUNT(statuses); c++) {
            if (g->stats[i].codes[c] != 0) {
                snprintf(labels, sizeof labels, "%s,code=\"%u\"", route, statuses[c]);
                metrics_sample_u64(t, "holdfast_http_requests_total", labels, g->stats[i].codes[c]);
            }
        }
    }
    metrics_family(t, "holdfast_http_request_duration_seconds", "histogram",
                   "From the first byte of a request to its answer being ready.");
    for (size_t i = 0; i <= routes_count; i++) {
        if (g->stats[i].duration_ns.count != 0) {
            route_label(i, route, sizeof route);
            metrics_histogram_seconds(t, "holdfast_http_request_duration_seconds", route,
                                      &g->stats[i].duration_ns);
        }
    }
}

static void write_connections(const struct gateway *g, struct text *t)
{
    static const char *const reasons[] = {"connections", "requests", "queue"};
    char labels[64];
    metrics_single(t, "holdfast_http_connections", "gauge", "Open connections.",
                   (double)g->connections_count);
    metrics_single(t, "holdfast_http_requests_in_flight", "gauge",
                   "Requests being read, run or answered.", (double)g->requests_count);
    metrics_single(t, "holdfast_http_received_bytes_total", "counter", "Bytes read from callers.",
                   (double)g->bytes_in);
    metrics_single(t, "holdfast_http_sent_bytes_total", "counter", "Bytes written to callers.",
                   (double)g->bytes_out);
    metrics_single(t, "holdfast_http_malformed_total", "counter",
                   "Requests that could not be parsed or did not arrive whole.",
                   (double)g->parse_refusals);
    metrics_family(t, "holdfast_shed_total", "counter",
                   "Work refused because a limit was reached.");
    for (size_t i = 0; i < ARRAY_COUNT(reasons); i++) {
        snprintf(labels, sizeof labels, "reason=\"%s\"", reasons[i]);
        metrics_sample_u64(t, "holdfast_shed_total", labels, g->shed[i]);
    }
}

static void write_loop(const struct gateway *g, struct text *t)
{
    metrics_single(t, "holdfast_loop_lag_seconds", "gauge",
                   "How late the last tick of the loop was.", (double)g->loop_lag_ns / 1e9);
}

static void write_orders(const struct gateway *g, struct text *t)
{
    char labels[64];
    metrics_family(t, "holdfast_orders_total", "counter",
                   "Answers to placed orders by result, replays included.");
    for (int r = 0; r <= RESULT_MAX; r++) {
        if (g->orders[r] != 0) {
            snprintf(labels, sizeof labels, "result=\"%s\"", result_code((enum result)r));
            metrics_sample_u64(t, "holdfast_orders_total", labels, g->orders[r]);
        }
    }
    metrics_single(t, "holdfast_idempotency_replays_total", "counter",
                   "Answers that a key had got before.", (double)g->idempotency_replays);
}

static void write_client(const struct gateway *g, struct text *t)
{
    struct client_info info;
    client_get_info(g->client, &info);
    metrics_single(t, "holdfast_has_leader", "gauge", "1 when this gateway knows who leads.",
                   info.leader_id != 0 ? 1 : 0);
    metrics_single(t, "holdfast_leader_changes_total", "counter",
                   "Leaders this gateway has followed.", (double)info.leader_changes_total);
    metrics_single(t, "holdfast_proposals_pending", "gauge", "Commands that are not answered yet.",
                   (double)(info.queued + info.in_flight));
    metrics_single(t, "holdfast_client_submits_total", "counter", "Commands given to the cluster.",
                   (double)info.submits_total);
    metrics_single(t, "holdfast_client_frames_total", "counter", "Frames they left in.",
                   (double)info.frames_total);
    metrics_single(t, "holdfast_client_retries_total", "counter", "Commands sent again.",
                   (double)info.retries_total);
    metrics_single(t, "holdfast_client_unknown_total", "counter",
                   "Commands whose outcome stayed unknown.", (double)info.unknown_total);
}

void metrics_get(struct exchange *x)
{
    struct text t = TEXT_INIT;
    metrics_family(&t, "holdfast_build_info", "gauge", "What is running.");
    metrics_sample_u64(&t, "holdfast_build_info",
                       "version=\"" HOLDFAST_VERSION "\",program=\"holdfast-gateway\"", 1);
    write_routes(x->gateway, &t);
    write_connections(x->gateway, &t);
    write_loop(x->gateway, &t);
    write_orders(x->gateway, &t);
    write_client(x->gateway, &t);
    metrics_process(&t);
    out_bytes(&x->body, text_cstring(&t), t.len);
    text_close(&t);
    x->content_type = "text/plain; version=0.0.4; charset=utf-8";
    response_field(x, "Cache-Control", STR_LITERAL("no-store"));
    response_send(x, 200);
}
