/* failover: how long nobody is served after the leader was killed with -9.
 *
 * A steady open load with retries under the same keys; every now and then the leader is killed; the
 * time from the kill to the first acknowledgement of an order that was first sent after it, over
 * HTTP, is one measurement. Then the node is brought back, all are ready again, and the next
 * leader's turn comes. At the end every acknowledged order of the whole run must be there, once. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/prng.h"
#include "tools/bench/bench.h"
#include "tools/bench/cluster.h"
#include "tools/bench/load.h"

#define HOUR_MS          3600000
#define READY_TIMEOUT_MS 60000
#define SERVED_WITHIN_MS 30000 /* no acknowledgement for so long: the run has failed */
#define CYCLES_MAX       100000

struct failover {
    struct target target;
    struct cluster cluster;
    struct catalog catalog;
    struct load load;
    uint64_t cycles, rate, connections, pause_ms, seed;
    const char *ctl, *restart_command;
    uint64_t kill_ns, served_ns; /* of the current cycle; served 0: not yet */
    struct histogram times;      /* ns */
    double sum_ms;
};

static int failover_options(struct failover *f, int argc, char **argv)
{
    const struct option own[] = {
        {"cycles", 'n', OPTION_U64, &f->cycles, "20", "N", "how often the leader is killed", 1,
         CYCLES_MAX},
        {"rate", 'r', OPTION_U64, &f->rate, "500", "N", "orders a second all the while", 1,
         1000000},
        {"connections", 'c', OPTION_U64, &f->connections, "512", "N", "connections to the gateway",
         1, HTTP_CONNECTIONS_MAX},
        {"pause", 0, OPTION_DURATION, &f->pause_ms, "2s", "TIME",
         "between all nodes ready and the next kill (up to half of it more)", 1, HOUR_MS},
        {"seed", 0, OPTION_U64, &f->seed, "1", "N", "of the moments of killing", 0, 0},
        {"ctl", 0, OPTION_TEXT, &f->ctl, NULL, "PATH", "holdfastctl, if not beside this program"},
        {"restart-command", 0, OPTION_TEXT, &f->restart_command, NULL, "COMMAND",
         "brings the killed node back (holdfastctl demo up)"},
    };
    const struct options options = {
        .program = "holdfast-bench failover",
        .summary = "kills the leader again and again: time to the first new acknowledgement",
        .examples = "  holdfast-bench failover --state .demo/demo.json --cycles 50\n",
        .table = own,
        .count = ARRAY_COUNT(own),
    };
    return target_options_read(&f->target, &options, argc, argv);
}

static void failover_granted(struct load *l, uint64_t sent_ns, uint64_t now_ns)
{
    struct failover *f = l->options.ctx;
    if (f->kill_ns != 0 && f->served_ns == 0 && sent_ns > f->kill_ns) {
        f->served_ns = now_ns;
    }
}

static int failover_prepare(struct failover *f, struct load_options *options)
{
    char run[RUN_NAME_SIZE];
    catalog_run_name("failover", run);
    int64_t now = clock_wall_ms();
    f->catalog = (struct catalog){
        .skus_count = 1,
        .stock = 1000000000,
        .unit_price = 1999,
        .opens_ms = now - 1000,
        .closes_ms = now + 24LL * HOUR_MS,
        .payment_timeout_ms = 24ULL * HOUR_MS,
        .orders_per_user = UINT32_MAX / 2,
        .units_per_order = 1,
    };
    snprintf(f->catalog.sale, sizeof f->catalog.sale, "%s", run);
    snprintf(f->catalog.sku, sizeof f->catalog.sku, "%s-sku", run);
    *options = (struct load_options){
        .url = f->target.url,
        .bearer = f->target.api_key[0] != '\0' ? f->target.api_key : NULL,
        .catalog = &f->catalog,
        .connections = (unsigned)f->connections,
        .rate = f->rate,
        .users = 1000000,
        .seed = f->seed,
        .timeout_ms = f->target.timeout_ms,
        .quantity = 1,
        .retry = true,
        .granted = failover_granted,
        .ctx = f,
    };
    memcpy(options->run, run, sizeof options->run);
    return catalog_create(&f->target, &f->catalog);
}

/* One kill, from a quiet cluster to a quiet cluster. Returns 0, or -1 after saying why. */
static int failover_cycle(struct failover *f, uint64_t cycle, struct prng *prng)
{
    uint64_t leader;
    if (!load_run_for(&f->load, f->pause_ms + prng_below(prng, f->pause_ms / 2 + 1))) {
        return -1; /* told to stop: what was measured so far is shown */
    }
    unsigned ready;
    if (cluster_leader(&f->cluster, &leader, &ready, true) != 0) {
        return -1;
    }
    load_run_for(&f->load, 200); /* what piled up while holdfastctl was asked is gone by then */
    f->served_ns = 0;
    f->kill_ns = UINT64_MAX; /* nothing counts before the kill is done */
    if (cluster_kill(&f->cluster, leader) != 0) {
        return -1;
    }
    f->kill_ns = clock_monotonic_ns();
    uint64_t give_up = f->kill_ns + SERVED_WITHIN_MS * 1000000ULL;
    while (f->served_ns == 0 && clock_monotonic_ns() < give_up) {
        uv_run(f->target.loop, UV_RUN_ONCE);
    }
    if (f->served_ns == 0) {
        fprintf(stderr, "nobody was served for %d s after node %d was killed\n",
                SERVED_WITHIN_MS / 1000, (int)leader);
        return -1;
    }
    uint64_t took = f->served_ns - f->kill_ns;
    f->kill_ns = 0;
    histogram_add(&f->times, took);
    f->sum_ms += (double)took / 1e6;
    fprintf(stderr, "%3" PRIu64 "  node %d killed, first new acknowledgement after %.1f ms\n",
            cycle + 1, (int)leader, (double)took / 1e6);
    load_run_for(&f->load, 500);
    return cluster_restart(&f->cluster) != 0 ||
                   cluster_wait_ready(&f->cluster, cluster_nodes(&f->cluster), READY_TIMEOUT_MS,
                                      &leader) != 0
               ? -1
               : 0;
}

static void failover_print(const struct failover *f, int wrong)
{
    const struct histogram *h = &f->times;
    double mean = h->count > 0 ? f->sum_ms / (double)h->count : 0;
    double p50 = (double)histogram_quantile(h, 0.5) / 1e6;
    double p99 = (double)histogram_quantile(h, 0.99) / 1e6;
    double max = (double)h->max / 1e6;
    if (!f->target.json) {
        printf("failover: %" PRIu64 " kills of the leader under %" PRIu64 " orders/s\n", h->count,
               f->rate);
        printf(
            "  to the first new acknowledgement over HTTP: mean %.1f  p50 %.1f  p99 %.1f  max %.1f "
            "ms\n",
            mean, p50, p99, max);
        return;
    }
    json_t *result = json_pack(
        "{s:s,s:I,s:I,s:f,s:f,s:f,s:f,s:I,s:I,s:s}", "benchmark", "failover", "kills",
        (json_int_t)h->count, "orders_per_second", (json_int_t)f->rate, "mean_ms", mean, "p50_ms",
        p50, "p99_ms", p99, "max_ms", max, "granted", (json_int_t)f->load.granted, "retries",
        (json_int_t)f->load.retries, "outcome", wrong == 0 ? "right" : "wrong");
    CHECK(result != NULL);
    json_dumpf(result, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(result);
}

static int failover_run(struct failover *f)
{
    struct load_options options;
    uint64_t leader;
    if (cluster_init(&f->cluster, &f->target, f->ctl, f->restart_command) != 0 ||
        cluster_wait_ready(&f->cluster, cluster_nodes(&f->cluster), READY_TIMEOUT_MS, &leader) !=
            0 ||
        failover_prepare(f, &options) != 0 || load_init(&f->load, f->target.loop, &options) != 0) {
        return 1;
    }
    struct prng prng = prng_init(f->seed);
    load_start(&f->load);
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < f->cycles; i++) {
        rc = failover_cycle(f, i, &prng);
    }
    load_stop(&f->load);
    load_settle(&f->load);
    while (f->cluster.restarting) {
        uv_run(f->target.loop, UV_RUN_ONCE);
    }
    if (!f->target.json) {
        failover_print(f, 0);
        printf("outcome\n");
        fflush(stdout);
    }
    int wrong = load_check(&f->load, &f->target, f->target.json ? stderr : stdout);
    if (f->target.json) {
        failover_print(f, wrong);
    }
    load_close(&f->load);
    return rc == 0 && wrong == 0 ? 0 : 1;
}

int bench_failover(int argc, char **argv)
{
    struct failover *f = calloc(1, sizeof *f);
    CHECK(f != NULL);
    histogram_init(&f->times);
    int status = failover_options(f, argc, argv);
    if (status >= 0) {
        free(f);
        return status;
    }
    status = target_open(&f->target) == 0 ? failover_run(f) : 1;
    target_close(&f->target);
    free(f);
    return status;
}
