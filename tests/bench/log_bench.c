/* The log path of a whole cluster: batches in on the leader, committed and applied on three nodes, each with
 * its own log on disk, its own driver, its own loop and thread, and authenticated links between them. What
 * is missing of a node: sessions, the state machine, checkpoints.
 *
 *     log_bench -d EMPTY_DIRECTORY [-s BYTES] [-r BATCHES_PER_SECOND] [-w IN_FLIGHT] [-t SECONDS] [-n]
 *     log_bench -d /var/tmp/bench -s 16384 -r 10000 -t 10       the figure to reach: p99 of 2 ms
 *     log_bench -d /var/tmp/bench -s 16384 -w 64 -t 10          as many as go
 *
 * With -r the load is an open loop: latency counts from when a batch was due, so a log that stalls is not
 * forgiven. Without, there are always so many in flight. All three logs lie on one disk, which so writes
 * three times what each would: name the disk with the result. -n: writes are not synced.
 *
 * Also: how long the leader's loop was held by trimming behind a checkpoint (every 8192 entries here,
 * nothing is written for it), and the space that the logs take in the end. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>

#include <sodium.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/histogram.h"
#include "base/log.h"
#include "raft/replica.h"

#define NODES              3
#define WARM_UP_NS         1000000000u
#define CHECKPOINT_ENTRIES 8192u
#define TRAILING_ENTRIES   1024u

struct request {
    struct replica_submit submit;
    struct node *node;
    uint64_t due_ns;
    struct request *next;
};

struct node {
    uint64_t id;
    uint16_t port;
    char directory[4096];
    pthread_t thread;
    uv_loop_t loop;
    uv_timer_t timer, close_timer;
    uv_check_t check;
    struct replica *replica;
    bool ready;
    uint64_t checkpoint_index;
    /* of the leader */
    uint64_t begun_ns, measured_ns, submitted, committed, in_flight, busy;
    struct histogram commit_ns, trim_ns;
    struct request *free;
    uint64_t segments;
};

static struct node nodes[NODES];
static struct link_identity identity;
static uint32_t size = 16384;
static uint64_t rate, in_flight_max = 64, seconds = 5;
static bool sync_writes = true;
static uint8_t *data;
static atomic_bool stopping;

/* ---- hooks ---- */

static void apply_hook(void *ctx, uint64_t index, uint64_t term, const void *bytes, size_t length)
{
    (void)ctx;
    (void)index;
    (void)term;
    (void)bytes;
    CHECK(length == size);
}

static void role_changed_hook(void *ctx, enum replica_role role, bool ready, uint64_t term,
                              uint64_t leader_id)
{
    struct node *n = ctx;
    (void)role;
    (void)term;
    (void)leader_id;
    n->ready = ready;
}

static int make_ticket_hook(void *ctx, struct replica_ticket *ticket)
{
    (void)ctx;
    (void)ticket;
    return -1;
}

static void install_hook(void *ctx, const struct replica_ticket *ticket, uint64_t from_id)
{
    (void)ctx;
    (void)ticket;
    (void)from_id;
    CHECK_UNREACHABLE(); /* nobody falls so far behind */
}

/* ---- load ---- */

static void submit_some(struct node *n);

static void submit_cb(struct replica_submit *req, enum replica_status status, uint64_t index)
{
    struct request *r = container_of(req, struct request, submit);
    struct node *n = r->node;
    (void)index;
    uint64_t now = clock_monotonic_ns();
    if (status == REPLICA_OK && now > n->measured_ns) {
        n->committed++;
        if (r->due_ns > n->measured_ns) {
            histogram_add(&n->commit_ns, now - r->due_ns);
        }
    }
    r->next = n->free;
    n->free = r;
    n->in_flight--;
}

static bool submit_one(struct node *n, uint64_t due_ns)
{
    struct request *r = n->free;
    if (r == NULL) {
        r = malloc(sizeof *r);
        CHECK(r != NULL);
    } else {
        n->free = r->next;
    }
    r->node = n;
    r->due_ns = due_ns;
    enum replica_status status = replica_submit(n->replica, &r->submit, data, size, submit_cb);
    if (status != REPLICA_OK) {
        r->next = n->free;
        n->free = r;
        n->busy += status == REPLICA_BUSY ? 1 : 0;
        return false;
    }
    n->in_flight++;
    n->submitted++;
    return true;
}

static void submit_some(struct node *n)
{
    if (!n->ready || atomic_load(&stopping)) {
        return;
    }
    uint64_t now = clock_monotonic_ns();
    if (n->begun_ns == 0) {
        n->begun_ns = now;
        n->measured_ns = now + WARM_UP_NS;
    }
    if (now > n->measured_ns + seconds * 1000000000u) {
        atomic_store(&stopping, true);
        return;
    }
    if (rate == 0) {
        while (n->in_flight < in_flight_max && submit_one(n, clock_monotonic_ns())) {
        }
        return;
    }
    /* What is late keeps the time at which it was due. */
    for (;;) {
        uint64_t due_ns = n->begun_ns + n->submitted * (1000000000u / rate);
        if (due_ns > now || !submit_one(n, due_ns)) {
            return;
        }
    }
}

static void check_cb(uv_check_t *check)
{
    struct node *n = container_of(check, struct node, check);
    struct replica_info info;
    submit_some(n);
    uint64_t applied = replica_applied_index(n->replica);
    if (applied >= n->checkpoint_index + CHECKPOINT_ENTRIES && !replica_installing(n->replica)) {
        struct replica_position position;
        replica_position(n->replica, &position);
        uint64_t begun = clock_monotonic_ns();
        replica_checkpoint_published(n->replica, &position);
        histogram_add(&n->trim_ns, clock_monotonic_ns() - begun);
        n->checkpoint_index = applied;
        replica_get_info(n->replica, &info);
        n->segments = info.log_segments > n->segments ? info.log_segments : n->segments;
    }
}

/* ---- nodes ---- */

static void closed_cb(void *ctx)
{
    (void)ctx;
}

static void tick_cb(uv_timer_t *timer)
{
    struct node *n = container_of(timer, struct node, timer);
    if (atomic_load(&stopping) && !uv_is_closing((uv_handle_t *)&n->check)) {
        uv_close((uv_handle_t *)&n->check, NULL);
        uv_close((uv_handle_t *)timer, NULL);
        replica_destroy(n->replica, closed_cb, n);
    }
}

static void *node_main(void *arg)
{
    static const struct replica_hooks hooks = {.apply = apply_hook,
                                               .role_changed = role_changed_hook,
                                               .make_ticket = make_ticket_hook,
                                               .install = install_hook};
    struct node *n = arg;
    struct replica_config config = {.loop = &n->loop,
                                    .id = n->id,
                                    .directory = n->directory,
                                    .listen_host = "127.0.0.1",
                                    .listen_port = n->port,
                                    .identity = identity,
                                    .election_timeout_ms = n->id == 1 ? 500 : 3000, /* 1 leads */
                                    .trailing_entries = TRAILING_ENTRIES,
                                    .log_sync = sync_writes,
                                    .start = REPLICA_NEW,
                                    .formats = {1, 1},
                                    .bootstrap_count = NODES};
    for (size_t i = 0; i < NODES; i++) {
        config.bootstrap[i].id = nodes[i].id;
        config.bootstrap[i].role = REPLICA_VOTER;
        snprintf(config.bootstrap[i].address, sizeof config.bootstrap[i].address, "127.0.0.1:%u",
                 nodes[i].port);
    }
    CHECK(uv_loop_init(&n->loop) == 0);
    CHECK(replica_create(&config, &hooks, n, NULL, &n->replica) == 0);
    CHECK(uv_timer_init(&n->loop, &n->timer) == 0);
    CHECK(uv_timer_start(&n->timer, tick_cb, 1, 1) == 0); /* also what makes an open loop go on */
    CHECK(uv_check_init(&n->loop, &n->check) == 0);
    CHECK(uv_check_start(&n->check, check_cb) == 0);
    uv_run(&n->loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&n->loop) == 0);
    return NULL;
}

static uint16_t free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    close(fd);
    return ntohs(address.sin_port);
}

static double ms(const struct histogram *h, double q)
{
    return (double)histogram_quantile(h, q) / 1e6;
}

static void report(void)
{
    const struct node *n = NULL;
    for (size_t i = 0; i < NODES; i++) {
        n = nodes[i].begun_ns != 0 ? &nodes[i] : n;
    }
    CHECK(n != NULL);
    double commits = (double)n->committed / (double)seconds;
    printf("size=%u %s=%llu | %.0f batches/s %.1f MB/s | commit p50 %.2f ms, p99 %.2f ms, max %.1f ms | "
           "busy %llu | trimming held the loop %.2f ms at most, of %u entries | %llu segments at most\n",
           size, rate > 0 ? "rate" : "in_flight", (unsigned long long)(rate > 0 ? rate : in_flight_max),
           commits, commits * size / 1e6, ms(&n->commit_ns, 0.5), ms(&n->commit_ns, 0.99),
           (double)n->commit_ns.max / 1e6, (unsigned long long)n->busy, (double)n->trim_ns.max / 1e6,
           CHECKPOINT_ENTRIES, (unsigned long long)n->segments);
}

static int usage(void)
{
    fprintf(stderr, "usage: log_bench -d EMPTY_DIRECTORY [-s BYTES] [-r BATCHES_PER_SECOND] [-w IN_FLIGHT] "
                    "[-t SECONDS] [-n (no sync)]\n");
    return 2;
}

int main(int argc, char **argv)
{
    const char *directory = NULL;
    for (int option; (option = getopt(argc, argv, "d:s:r:w:t:n")) != -1;) {
        switch (option) {
        case 'd':
            directory = optarg;
            break;
        case 's':
            size = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'r':
            rate = strtoull(optarg, NULL, 10);
            break;
        case 'w':
            in_flight_max = strtoull(optarg, NULL, 10);
            break;
        case 't':
            seconds = strtoull(optarg, NULL, 10);
            break;
        case 'n':
            sync_writes = false;
            break;
        default:
            return usage();
        }
    }
    if (directory == NULL || size < 1 || size > REPLICA_ENTRY_SIZE_MAX || in_flight_max < 1 ||
        in_flight_max > REPLICA_IN_FLIGHT_MAX || rate > 1000000 || seconds < 1) {
        return usage();
    }
    log_init("log_bench", LOG_LEVEL_WARN);
    CHECK(sodium_init() >= 0);
    randombytes_buf(identity.key, sizeof identity.key);
    randombytes_buf(identity.cluster_id, sizeof identity.cluster_id);
    data = malloc(size);
    CHECK(data != NULL);
    randombytes_buf(data, size);
    for (size_t i = 0; i < NODES; i++) {
        struct node *n = &nodes[i];
        n->id = i + 1;
        n->port = free_port();
        histogram_init(&n->commit_ns);
        histogram_init(&n->trim_ns);
        snprintf(n->directory, sizeof n->directory, "%s/%zu", directory, i + 1);
        if (mkdir(n->directory, 0700) < 0) {
            perror(n->directory);
            return 2;
        }
    }
    for (size_t i = 0; i < NODES; i++) {
        CHECK(pthread_create(&nodes[i].thread, NULL, node_main, &nodes[i]) == 0);
    }
    for (size_t i = 0; i < NODES; i++) {
        CHECK(pthread_join(nodes[i].thread, NULL) == 0);
    }
    report();
    for (size_t i = 0; i < NODES; i++) {
        for (struct request *r = nodes[i].free, *next; r != NULL; r = next) {
            next = r->next;
            free(r);
        }
    }
    free(data);
    return 0;
}
