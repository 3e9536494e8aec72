/* load: a steady stream of orders, and an exact account of what became of each.
 *
 * Open loop (a rate is given): request i is due at start + i/rate, whether or not earlier ones were
 * answered; its latency counts from then, so that a stalled server cannot hide behind requests that
 * were never sent (no coordinated omission). Closed loop (no rate): each connection sends when its
 * last answer came, as wrk does; latency counts from sending.
 *
 * Every request is a function of (run, seed, i): key, user, SKU. So one whose outcome is unknown
 * can be asked again later, under its own key, by load_settle.
 *
 * The hot path allocates nothing: each connection has a slot with a whole request in it, of which a
 * few digits change. */
#ifndef TOOLS_BENCH_LOAD_H
#define TOOLS_BENCH_LOAD_H

#include <stdio.h>

#include "base/histogram.h"
#include "tools/bench/catalog.h"

#define LOAD_REQUEST_SIZE_MAX 1024
#define LOAD_PATIENCE_MS      30000 /* how long load_settle and retries go on for one request */

struct load;
/* An order was acknowledged: its request was first sent at sent_ns (monotonic). */
typedef void (*load_granted_cb)(struct load *l, uint64_t sent_ns, uint64_t now_ns);

struct load_options {
    const char *url, *bearer;
    const struct catalog *catalog;
    char run[RUN_NAME_SIZE]; /* unique: prefix of all keys */
    unsigned connections;
    uint64_t rate;  /* a second; 0: closed loop */
    uint64_t users; /* different buyers */
    uint64_t seed, warmup_ms, timeout_ms;
    uint32_t quantity;
    bool retry;              /* ask again under the same key, at once, whatever did not settle */
    load_granted_cb granted; /* may be NULL */
    void *ctx;
};

struct load_slot;

struct load {
    struct load_options options;
    uv_loop_t *loop;
    struct http_client *client;
    struct load_slot *slots, *free;
    uv_poll_t tick;
    int tick_fd;
    uv_timer_t retry;
    unsigned busy, retrying, closing;
    bool running, settling;
    uint64_t next; /* number of requests begun */
    uint64_t start_ns, measure_ns, stop_ns;
    /* results */
    struct histogram latency; /* ns, of settled requests that were due after the warm-up */
    struct tally tally;
    uint64_t granted, refused, shed;
    uint64_t answered_measured;    /* answers between warm-up and stop */
    uint64_t retries, late_max_ns; /* late: how long after its time the worst request left us */
    uint64_t cpu_start_ns, cpu_ns; /* of this process, from warm-up to stop */
    uint64_t *orders;              /* ids acknowledged */
    size_t orders_count, orders_capacity;
    uint64_t *unknown; /* requests whose outcome is open */
    size_t unknown_count, unknown_capacity;
    size_t unknown_at, unknown_end; /* load_settle: the next to ask for, and where they end */
};

/* Opens all connections. Returns 0, or -1 after saying why. */
int load_init(struct load *l, uv_loop_t *loop, const struct load_options *options);
void load_start(struct load *l);
/* Sends nothing new any more; what is in flight goes on. */
void load_stop(struct load *l);
bool load_is_busy(const struct load *l);
/* After load_stop: runs the loop until all is answered, then asks again for what is unknown. What
 * stays unknown is in l->unknown. */
void load_settle(struct load *l);
void load_close(struct load *l);

/* Runs the loop for duration_ms with a started load; SIGINT or SIGTERM ends that early, and false
 * is returned: then stop, settle and check as usual. */
bool load_run_for(struct load *l, uint64_t duration_ms);

/* Compares what was acknowledged with what the cluster lists and counts, and prints one line for
 * each check to `out`. Returns the number of checks that failed, or -1 when the cluster could not
 * be asked. */
int load_check(struct load *l, struct target *t, FILE *out);

#endif
