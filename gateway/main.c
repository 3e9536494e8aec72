/* holdfast-gateway: HTTP in front of the cluster.
 *
 * Owns: options, the loop, signals, start and end.
 *
 * Happy path: options → secrets → listeners → client → loop. SIGTERM or SIGINT: readiness fails, after
 * --drain-delay no connection is accepted and idle ones are closed, every request that was taken gets
 * its answer, exit 0. A second signal, or --drain-timeout, ends it at once. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/options.h"
#include "gateway/connection.h"
#include "gateway/listener.h"
#include "gateway/metrics.h"
#include "gateway/order_requests.h"
#include "gateway/route.h"
#include "proto/client.h"

static struct {
    const char *listen, *listen_admin, *cluster_key_file, *api_keys_file, *secret_file,
        *public_key_file, *issuer, *audience, *payment_secret_file, *log_level;
    struct option_list nodes;
    uint64_t drain_delay_ms, drain_timeout_ms, queue_max, window_frames;
} given;

static struct gateway gateway; /* one a process; everything else gets it passed */
static uv_signal_t signals[2];
static uv_timer_t drain_timer;
static uint64_t drain_until_ms;
static int exit_code;

static const struct option table[] = {
    {"listen", 'l', OPTION_TEXT, &given.listen, "127.0.0.1:8080", "ADDR",
     "where users and back ends are served", 0, 0},
    {"listen-admin", 0, OPTION_TEXT, &given.listen_admin, "127.0.0.1:8081", "ADDR",
     "where administration is served, with everything else too", 0, 0},
    {"nodes", 'n', OPTION_LIST, &given.nodes, "127.0.0.1:7101", "ADDR",
     "node address; may be repeated; one that answers is enough", 0, 0},
    {"cluster-key-file", 'k', OPTION_TEXT, &given.cluster_key_file, NULL, "FILE",
     "the cluster's key: 64 hex digits", 0, 0},
    {"api-keys-file", 0, OPTION_TEXT, &given.api_keys_file, NULL, "FILE",
     "API keys: name, role, SHA-256 of the key, one a line", 0, 0},
    {"user-token-secret-file", 0, OPTION_TEXT, &given.secret_file, NULL, "FILE",
     "secret of user tokens signed with HS256", 0, 0},
    {"user-token-public-key-file", 0, OPTION_TEXT, &given.public_key_file, NULL, "FILE",
     "Ed25519 key of user tokens signed with EdDSA, as 64 hex digits", 0, 0},
    {"user-token-issuer", 0, OPTION_TEXT, &given.issuer, NULL, "TEXT",
     "take only user tokens whose iss is this", 0, 0},
    {"user-token-audience", 0, OPTION_TEXT, &given.audience, NULL, "TEXT",
     "take only user tokens whose aud is or holds this", 0, 0},
    {"payment-secret-file", 0, OPTION_TEXT, &given.payment_secret_file, NULL, "FILE",
     "secrets of payment events: whsec_…, one a line", 0, 0},
    {"wait", 0, OPTION_DURATION, &gateway.limits.wait_ms, "5s", "TIME",
     "wait for an outcome unless the caller says otherwise", 1, 60000},
    {"wait-max", 0, OPTION_DURATION, &gateway.limits.wait_max_ms, "60s", "TIME",
     "the longest wait a caller may ask for", 1, 600000},
    {"connections-max", 0, OPTION_U64, &gateway.limits.connections_max, "10000", "N",
     "connections at once, both listeners together", 1, 1000000},
    {"requests-max", 0, OPTION_U64, &gateway.limits.requests_max, "16384", "N",
     "requests being read, run or answered at once", 1, 1000000},
    {"pipeline-max", 0, OPTION_U64, &gateway.limits.pipeline_max, "64", "N",
     "requests of one connection at once", 1, 4096},
    {"queue-max", 0, OPTION_U64, &given.queue_max, "65536", "N",
     "commands that wait for the leader's answer", 1, 1000000},
    {"window-frames", 0, OPTION_U64, &given.window_frames, "16", "N",
     "frames of commands in flight to the leader", 1, 1024},
    {"head-timeout", 0, OPTION_DURATION, &gateway.limits.head_timeout_ms, "10s", "TIME",
     "for the head of a request to arrive", 1, 600000},
    {"body-timeout", 0, OPTION_DURATION, &gateway.limits.body_timeout_ms, "10s", "TIME",
     "for the body of a request to arrive", 1, 600000},
    {"idle-timeout", 0, OPTION_DURATION, &gateway.limits.idle_timeout_ms, "75s", "TIME",
     "for the next request of a connection", 1, 86400000},
    {"write-timeout", 0, OPTION_DURATION, &gateway.limits.write_timeout_ms, "10s", "TIME",
     "for a caller to take an answer", 1, 600000},
    {"drain-delay", 0, OPTION_DURATION, &given.drain_delay_ms, "0s", "TIME",
     "after SIGTERM, go on accepting this long while not ready", 0, 600000},
    {"drain-timeout", 0, OPTION_DURATION, &given.drain_timeout_ms, "30s", "TIME",
     "after SIGTERM, end at the latest", 1, 3600000},
    {"log-level", 0, OPTION_TEXT, &given.log_level, "info", "LEVEL", "error, warn, info or debug",
     0, 0},
    FAILPOINT_OPTIONS
};

static const struct options options = {
    .program = "holdfast-gateway",
    .summary = "HTTP gateway of a holdfast cluster",
    .examples = "  holdfast-gateway --nodes 10.0.0.1:7101 --nodes 10.0.0.2:7101 \\\n"
                "      --cluster-key-file cluster.key --api-keys-file api-keys \\\n"
                "      --user-token-secret-file user.secret --payment-secret-file payment.secret\n",
    .table = table,
    .count = ARRAY_COUNT(table),
};

static int read_secrets(struct gateway *g, uint8_t cluster_key[static LINK_KEY_SIZE])
{
    if (given.cluster_key_file == NULL) {
        log_error("--cluster-key-file is needed");
        return -1;
    }
    if (link_read_key(given.cluster_key_file, cluster_key) != 0 ||
        (given.api_keys_file != NULL && api_keys_read(&g->keys, given.api_keys_file) != 0) ||
        (given.secret_file != NULL &&
         user_tokens_read_secret(&g->tokens, given.secret_file) != 0) ||
        (given.public_key_file != NULL &&
         user_tokens_read_public_key(&g->tokens, given.public_key_file) != 0) ||
        (given.payment_secret_file != NULL &&
         webhook_secrets_read(&g->payment_secrets, given.payment_secret_file) != 0)) {
        return -1;
    }
    g->tokens.issuer = given.issuer;
    g->tokens.audience = given.audience;
    if (given.api_keys_file == NULL) {
        log_warn("no --api-keys-file: no back end and no operator can call");
    }
    return 0;
}

static void renew_date(struct gateway *g)
{
    time_t now = (time_t)(clock_wall_ms() / 1000);
    struct tm tm;
    gmtime_r(&now, &tm);
    g->date_size = strftime(g->date, sizeof g->date, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);
}

static void client_closed(void *ctx)
{
    struct gateway *g = ctx;
    g->client = NULL;
    uv_stop(g->loop);
}

/* The end, in order: nothing is being answered any more, or it must not be waited for. */
static void finish(struct gateway *g)
{
    uv_timer_stop(&g->tick);
    uv_timer_stop(&drain_timer);
    listener_close(&g->listeners[LISTENER_PUBLIC]);
    listener_close(&g->listeners[LISTENER_ADMIN]);
    client_destroy(g->client, client_closed, g);
    connections_flush(g);
    exchange_sleepers_close(g);
    connections_close(g);
}

static void drain_timer_cb(uv_timer_t *timer)
{
    struct gateway *g = timer->data;
    uint64_t now = uv_now(g->loop);
    if (now >= drain_until_ms) {
        log_warn("--drain-timeout is over requests=%llu", (unsigned long long)g->requests_count);
        exit_code = 1;
    } else if (g->connections_count > 0 || g->requests_count > 0) {
        connections_drain(g);
        return;
    }
    finish(g);
}

static void stop_accepting_cb(uv_timer_t *timer)
{
    struct gateway *g = timer->data;
    listener_close(&g->listeners[LISTENER_PUBLIC]);
    listener_close(&g->listeners[LISTENER_ADMIN]);
    connections_drain(g);
    uv_timer_start(timer, drain_timer_cb, 0, 20);
}

static void signal_cb(uv_signal_t *handle, int number)
{
    struct gateway *g = handle->data;
    if (g->draining) {
        log_warn("second signal: ending at once");
        _exit(128 + number);
    }
    log_info("draining signal=%d requests=%llu", number, (unsigned long long)g->requests_count);
    g->draining = true;
    drain_until_ms = uv_now(g->loop) + given.drain_delay_ms + given.drain_timeout_ms;
    uv_timer_start(&drain_timer, stop_accepting_cb, given.drain_delay_ms, 0);
}

static void tick_cb(uv_timer_t *timer)
{
    struct gateway *g = timer->data;
    uint64_t now = uv_hrtime();
    g->loop_lag_ns = now > g->tick_due_ns ? now - g->tick_due_ns : 0;
    g->tick_due_ns = now + GATEWAY_TICK_MS * 1000000ull;
    renew_date(g);
    connections_tick(g);
}

static void flush_check_cb(uv_check_t *handle)
{
    connections_flush(handle->data);
}

static void flush_prepare_cb(uv_prepare_t *handle)
{
    connections_flush(handle->data);
}

static void start_handles(struct gateway *g)
{
    uv_check_init(g->loop, &g->flush_check);
    g->flush_check.data = g;
    uv_check_start(&g->flush_check, flush_check_cb);
    uv_prepare_init(g->loop, &g->flush_prepare);
    g->flush_prepare.data = g;
    uv_prepare_start(&g->flush_prepare, flush_prepare_cb);
    uv_timer_init(g->loop, &g->tick);
    g->tick.data = g;
    uv_timer_start(&g->tick, tick_cb, GATEWAY_TICK_MS, GATEWAY_TICK_MS);
    uv_timer_init(g->loop, &g->sleep_timer);
    g->sleep_timer.data = g;
    uv_timer_init(g->loop, &drain_timer);
    drain_timer.data = g;
    const int numbers[] = {SIGTERM, SIGINT};
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++) {
        uv_signal_init(g->loop, &signals[i]);
        signals[i].data = g;
        uv_signal_start(&signals[i], signal_cb, numbers[i]);
    }
}

static void close_handle_cb(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

/* Gives everything back, so that a leak checker has nothing to say. */
static void close_gateway(struct gateway *g)
{
    uv_walk(g->loop, close_handle_cb, NULL);
    uv_run(g->loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(g->loop) == 0);
    CHECK(g->requests_count == 0);
    exchange_pool_close(g);
    order_requests_destroy(g->order_requests);
    auth_cache_destroy(g->auth_cache);
    metrics_close(g);
    sodium_memzero(&g->tokens, sizeof g->tokens);
    sodium_memzero(&g->payment_secrets, sizeof g->payment_secrets);
}

/* Each connection is a file: takes as many as this process may have. */
static void raise_files_limit(const struct gateway *g)
{
    struct rlimit limit;
    uint64_t needed = g->limits.connections_max + 64; /* nodes, listeners, the loop's own */
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed) {
        return;
    }
    limit.rlim_cur = needed < limit.rlim_max ? needed : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < needed) {
        log_warn("fewer files than --connections-max may be open files=%llu",
                 (unsigned long long)limit.rlim_cur);
    }
}

static int start(struct gateway *g)
{
    struct client_config config = {
        .loop = g->loop,
        .endpoints = given.nodes.items,
        .endpoints_count = given.nodes.count,
        .queue_commands_max = (uint32_t)given.queue_max,
        .window_frames = (uint32_t)given.window_frames,
    };
    if (read_secrets(g, config.key) != 0) {
        return -1;
    }
    raise_files_limit(g);
    uint64_t random;
    randombytes_buf(&random, sizeof random);
    snprintf(g->request_id_prefix, sizeof g->request_id_prefix, "%016llx",
             (unsigned long long)random);
    g->tick_due_ns = uv_hrtime() + GATEWAY_TICK_MS * 1000000ull;
    g->auth_cache = auth_cache_create();
    g->order_requests = order_requests_create();
    routes_init();
    metrics_init(g);
    renew_date(g);
    if (listener_open(g, LISTENER_PUBLIC, given.listen) != 0 ||
        listener_open(g, LISTENER_ADMIN, given.listen_admin) != 0 ||
        client_create(&config, &g->client) != 0) {
        return -1;
    }
    sodium_memzero(config.key, sizeof config.key);
    start_handles(g);
    return 0;
}

int main(int argc, char **argv)
{
    int operands;
    enum log_level level;
    switch (options_parse(&options, argc, argv, &operands)) {
    case OPTIONS_HELP:
        return 0;
    case OPTIONS_INVALID:
        return 2;
    case OPTIONS_OK:
        break;
    }
    int ended = FAILPOINT_START();
    if (ended >= 0) {
        return ended;
    }
    if (operands != argc || log_parse_level(given.log_level, &level) != 0) {
        fprintf(stderr, "holdfast-gateway: %s; see holdfast-gateway --help\n",
                operands != argc ? "takes no operands"
                                 : "--log-level is error, warn, info or debug");
        return 2;
    }
    log_init("holdfast-gateway", level);
    CHECK(sodium_init() >= 0);
    signal(SIGPIPE, SIG_IGN);
    gateway.loop = uv_default_loop();
    if (start(&gateway) != 0) {
        return 1;
    }
    uv_run(gateway.loop, UV_RUN_DEFAULT);
    close_gateway(&gateway);
    log_info("ended exit=%d", exit_code);
    return exit_code;
}
