/* persister_bench: how many orders a second the persister writes into PostgreSQL.
 *
 *     persister_bench [--orders N] [--shards N] [--mixed] [--url CONNECTION]
 *
 * Without --url it starts a private PostgreSQL with its defaults but for fsync=on, shared_buffers
 * and max_wal_size (printed), and removes it after. Each order is an order row, a line and an
 * outbox row; the events are offered as fast as the persister takes them. The outcome is checked:
 * rows and watermarks.
 * --mixed: a share of payments, refunds, eligibilities instead of orders only. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "event_source.h"
#include "pg_fixture.h"
#include "storage/migrate.h"
#include "storage/persister.h"

struct bench {
    struct event_source source;
    struct persister *persister;
    uint64_t next, done;
    uint64_t offer_ns;
    const char *url;
    double backends_cpu;
    uint64_t first_want_ns, end_ns;
};

static void want(void *ctx, uint64_t sequence)
{
    struct bench *b = ctx;
    if (b->first_want_ns == 0) {
        b->first_want_ns = clock_monotonic_ns();
    }
    b->next = sequence;
    uint64_t began = clock_monotonic_ns();
    static struct event_view views[32];
    while (b->next <= b->source.count) {
        size_t n = 0;
        for (; n < 32 && b->next + n <= b->source.count; n++) {
            event_source_read(&b->source, b->next + n, &views[n]);
        }
        size_t taken = persister_offer(b->persister, views, n);
        b->next += taken;
        if (taken < n) {
            break;
        }
    }
    b->offer_ns += clock_monotonic_ns() - began;
}

/* CPU seconds of the backends that write; 0 when they are not on this machine. A figure that other
 * load on the machine disturbs less than the time does. */
static double backends_cpu(const char *url)
{
    double sum = 0;
    PGconn *conn = pg_fixture_connect(url);
    PGresult *r =
        pg_fixture_query(conn, "SELECT pid FROM pg_stat_activity WHERE application_name = "
                               "'holdfast persister'");
    for (int i = 0; i < PQntuples(r); i++) {
        char path[64];
        unsigned long user = 0, system = 0;
        snprintf(path, sizeof path, "/proc/%s/stat", PQgetvalue(r, i, 0));
        FILE *f = fopen(path, "r");
        if (f != NULL &&
            fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
                   &system) == 2) {
            sum += (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
        }
        if (f != NULL) {
            fclose(f);
        }
    }
    PQclear(r);
    PQfinish(conn);
    return sum;
}

static void acked(void *ctx, const struct command_ack *acks, size_t count)
{
    struct bench *b = ctx;
    (void)count;
    b->done = acks[0].sequence;
    if (b->done == b->source.count && b->end_ns == 0) {
        b->end_ns = clock_monotonic_ns();
        b->backends_cpu = backends_cpu(b->url);
        persister_destroy(b->persister, NULL, NULL);
    }
}

int main(int argc, char **argv)
{
    size_t orders = 1000000;
    uint32_t shards = 64;
    bool mixed = false;
    const char *url = NULL;
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--orders") == 0 && more) {
            orders = strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--shards") == 0 && more) {
            shards = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--url") == 0 && more) {
            url = argv[++i];
        } else if (strcmp(argv[i], "--mixed") == 0) {
            mixed = true;
        } else {
            fprintf(stderr, "usage: %s [--orders N] [--shards N] [--mixed] [--url CONNECTION]\n",
                    argv[0]);
            return 2;
        }
    }
    log_init("persister_bench", LOG_LEVEL_INFO);
    struct pg_fixture server;
    static const char settings[] = "fsync=on shared_buffers=512MB max_wal_size=8GB";
    if (url == NULL) {
        pg_fixture_start(&server, settings);
        printf("private PostgreSQL: %s\n", settings);
    }
    const char *to = url != NULL ? url : server.url;
    char error[256];
    if (migrate_up(to, 10000, NULL, NULL, error, sizeof error) != MIGRATE_OK) {
        fprintf(stderr, "migrate: %s\n", error);
        return 1;
    }
    static struct bench b;
    b.url = to;
    event_source_init(&b.source, 1, shards, orders, !mixed);
    uv_loop_t loop;
    CHECK(uv_loop_init(&loop) == 0);
    struct persister_config config = {.loop = &loop,
                                      .url = to,
                                      .shards = shards,
                                      .cluster_id = "persister-bench",
                                      .connect_backoff_min_ms = 100,
                                      .connect_backoff_max_ms = 5000};
    struct persister_callbacks callbacks = {want, acked};
    CHECK(persister_create(&config, &callbacks, &b, &b.persister) == 0);
    persister_lead(b.persister, 1, 1);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&loop) == 0);

    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double seconds = (double)(b.end_ns - b.first_want_ns) / 1e9;
    double cpu = (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6 +
                 (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6;
    PGconn *conn = pg_fixture_connect(to);
    long long rows = pg_fixture_number(conn, "SELECT count(*) FROM holdfast.orders");
    long long outbox = pg_fixture_number(conn, "SELECT count(*) FROM holdfast.outbox");
    long long least = pg_fixture_number(conn, "SELECT min(sequence) FROM holdfast.watermark");
    PQfinish(conn);
    bool right = (size_t)rows == b.source.orders_count && (size_t)outbox == b.source.count &&
                 (size_t)least == b.source.count;
    printf("%zu events, %zu orders in %.2f s: %.0f events/s, %.0f orders/s; offering cost %.2f us "
           "an event, "
           "this process %.1f us and the two backends %.1f us of CPU an event; rows %s\n",
           b.source.count, b.source.orders_count, seconds, (double)b.source.count / seconds,
           (double)b.source.orders_count / seconds,
           (double)b.offer_ns / 1e3 / (double)b.source.count, cpu * 1e6 / (double)b.source.count,
           b.backends_cpu * 1e6 / (double)b.source.count, right ? "right" : "WRONG");
    event_source_close(&b.source);
    if (url == NULL) {
        pg_fixture_stop(&server);
    }
    return right ? 0 : 1;
}
