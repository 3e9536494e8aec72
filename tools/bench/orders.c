/* orders: how many single orders a second the cluster takes over HTTP, how long each one waits, and
 * whether the outcome is right. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "tools/bench/bench.h"
#include "tools/bench/load.h"

#define HOUR_MS 3600000

struct orders {
    struct target target;
    struct load load;
    struct catalog catalog;
    uint64_t connections, rate, duration_ms, warmup_ms, users, skus, stock, quantity, seed;
    bool no_setup, no_check;
};

static int orders_options(struct orders *o, int argc, char **argv)
{
    const struct option own[] = {
        {"connections", 'c', OPTION_U64, &o->connections, "64", "N", "connections to the gateway",
         1, HTTP_CONNECTIONS_MAX},
        {"rate", 'r', OPTION_U64, &o->rate, "0", "N",
         "orders a second, whatever the answers (open loop); 0: as fast as answers come", 0,
         10000000},
        {"duration", 'd', OPTION_DURATION, &o->duration_ms, "10s", "TIME", "measured time", 100,
         24ULL * HOUR_MS},
        {"warmup", 'w', OPTION_DURATION, &o->warmup_ms, "1s", "TIME", "load before that", 0,
         HOUR_MS},
        {"users", 0, OPTION_U64, &o->users, "1000000", "N", "different buyers", 1, 10000000000},
        {"skus", 0, OPTION_U64, &o->skus, "1", "N", "different SKUs; 1: all want the same", 1,
         CATALOG_SKUS_MAX},
        {"stock", 0, OPTION_U64, &o->stock, "1000000000", "N", "units of each SKU", 1, STOCK_MAX},
        {"quantity", 'q', OPTION_U64, &o->quantity, "1", "N", "units in each order", 1,
         QUANTITY_MAX},
        {"seed", 0, OPTION_U64, &o->seed, "1", "N", "of users and SKUs", 0, 0},
        {"no-setup", 0, OPTION_FLAG, &o->no_setup, "false", NULL,
         "create no SKU and no sale: for another server behind the URL"},
        {"no-check", 0, OPTION_FLAG, &o->no_check, "false", NULL, "do not check the outcome"},
    };
    const struct options options = {
        .program = "holdfast-bench orders",
        .summary = "single orders over HTTP: rate, latency, outcome",
        .examples = "  holdfast-bench orders --state .demo/demo.json --connections 128\n"
                    "  holdfast-bench orders --state .demo/demo.json --rate 10000 --duration 30s\n",
        .table = own,
        .count = ARRAY_COUNT(own),
    };
    return target_options_read(&o->target, &options, argc, argv);
}

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

static void orders_print(const struct orders *o)
{
    const struct load *l = &o->load;
    double seconds = (double)(l->stop_ns - l->measure_ns) / 1e9;
    if (l->options.rate == 0) {
        printf("orders: closed loop, %u connections, %.1f s\n", l->options.connections, seconds);
    } else {
        printf("orders: open loop, %" PRIu64 "/s offered, %u connections, %.1f s\n",
               l->options.rate, l->options.connections, seconds);
    }
    printf("  %-10s %.0f/s\n", "answered", (double)l->answered_measured / seconds);
    printf("  %-10s p50 %.3f  p90 %.3f  p99 %.3f  p99.9 %.3f  max %.3f ms, from %s\n", "latency",
           ms(histogram_quantile(&l->latency, 0.5)), ms(histogram_quantile(&l->latency, 0.9)),
           ms(histogram_quantile(&l->latency, 0.99)), ms(histogram_quantile(&l->latency, 0.999)),
           ms(l->latency.max), l->options.rate == 0 ? "sending" : "the intended send time");
    printf("  %-10s %.2f us of processor time a request, sent at most %.1f ms late\n", "generator",
           l->answered_measured > 0 ? (double)l->cpu_ns / 1e3 / (double)l->answered_measured : 0.0,
           ms(l->late_max_ns));
    printf("  %-10s", "answers");
    for (size_t i = 0; i < l->tally.count; i++) {
        printf("%s %s %" PRIu64, i > 0 ? "," : "", l->tally.rows[i].name, l->tally.rows[i].count);
    }
    printf("\n");
}

static void orders_print_json(const struct orders *o, int wrong)
{
    const struct load *l = &o->load;
    double seconds = (double)(l->stop_ns - l->measure_ns) / 1e9;
    json_t *answers = json_object();
    for (size_t i = 0; i < l->tally.count; i++) {
        json_object_set_new(answers, l->tally.rows[i].name,
                            json_integer((json_int_t)l->tally.rows[i].count));
    }
    json_t *result = json_pack(
        "{s:s,s:I,s:i,s:f,s:f,s:{s:f,s:f,s:f,s:f,s:f},s:o,s:I,s:f,s:s}", "benchmark", "orders",
        "offered_per_second", (json_int_t)l->options.rate, "connections",
        (int)l->options.connections, "seconds", seconds, "answered_per_second",
        (double)l->answered_measured / seconds, "latency_ms", "p50",
        ms(histogram_quantile(&l->latency, 0.5)), "p90", ms(histogram_quantile(&l->latency, 0.9)),
        "p99", ms(histogram_quantile(&l->latency, 0.99)), "p999",
        ms(histogram_quantile(&l->latency, 0.999)), "max", ms(l->latency.max), "answers", answers,
        "granted", (json_int_t)l->granted, "generator_us_per_request",
        l->answered_measured > 0 ? (double)l->cpu_ns / 1e3 / (double)l->answered_measured : 0.0,
        "outcome",
        o->no_check  ? "not checked"
        : wrong == 0 ? "right"
                     : "wrong");
    CHECK(result != NULL);
    json_dumpf(result, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(result);
}

/* Names, and unless told otherwise the sale itself, open from now on. */
static int orders_prepare(struct orders *o, char run[static RUN_NAME_SIZE])
{
    catalog_run_name("bench", run);
    int64_t now = clock_wall_ms();
    o->catalog = (struct catalog){
        .skus_count = (unsigned)o->skus,
        .stock = o->stock,
        .unit_price = 1999,
        .opens_ms = now - 1000,
        .closes_ms = now + 24LL * HOUR_MS,
        .payment_timeout_ms = 24ULL * HOUR_MS,
        .orders_per_user = UINT32_MAX / 2,
        .units_per_order = (uint32_t)o->quantity,
    };
    snprintf(o->catalog.sale, sizeof o->catalog.sale, "%s", run);
    snprintf(o->catalog.sku, sizeof o->catalog.sku, "%s-sku", run);
    return o->no_setup ? 0 : catalog_create(&o->target, &o->catalog);
}

int bench_orders(int argc, char **argv)
{
    struct orders *o = calloc(1, sizeof *o);
    CHECK(o != NULL);
    int status = orders_options(o, argc, argv);
    if (status >= 0) {
        free(o);
        return status;
    }
    status = 1;
    char run[RUN_NAME_SIZE];
    if (target_open(&o->target) != 0 || orders_prepare(o, run) != 0) {
        goto done;
    }
    struct load_options options = {
        .url = o->target.url,
        .bearer = o->target.api_key[0] != '\0' ? o->target.api_key : NULL,
        .catalog = &o->catalog,
        .connections = (unsigned)o->connections,
        .rate = o->rate,
        .users = o->users,
        .seed = o->seed,
        .warmup_ms = o->warmup_ms,
        .timeout_ms = o->target.timeout_ms,
        .quantity = (uint32_t)o->quantity,
    };
    memcpy(options.run, run, sizeof options.run);
    if (load_init(&o->load, o->target.loop, &options) != 0) {
        goto done;
    }
    load_start(&o->load);
    load_run_for(&o->load, o->warmup_ms + o->duration_ms);
    load_stop(&o->load);
    if (o->no_check) {
        while (load_is_busy(&o->load)) {
            uv_run(o->target.loop, UV_RUN_ONCE);
        }
    } else {
        load_settle(&o->load);
    }
    if (!o->target.json) {
        orders_print(o);
        printf("%s", o->no_check ? "" : "outcome\n");
        fflush(stdout);
    }
    int wrong =
        o->no_check ? 0 : load_check(&o->load, &o->target, o->target.json ? stderr : stdout);
    if (o->target.json) {
        orders_print_json(o, wrong);
    }
    status = wrong == 0 ? 0 : 1;
    load_close(&o->load);
done:
    target_close(&o->target);
    free(o);
    return status;
}
