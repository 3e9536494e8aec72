/* The log path alone: W appends of S bytes in flight, group commit, synced writes. One line of
 * result.
 *
 *     wal_bench -d /var/tmp/bench -s 4096 -w 8 -t 5
 *
 * `write` is the duration of one synced write, `append` the time from wal_append to its durable
 * callback, waiting included. Measures the disk as much as the program: name both with the result.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/histogram.h"
#include "raft/wal.h"

#define IN_FLIGHT_MAX 65536u

struct bench {
    uv_loop_t loop;
    struct wal *wal;
    uint64_t index, ticket_done, ticket_last;
    uint64_t in_flight_max;
    uint64_t sent_ns[IN_FLIGHT_MAX]; /* by ticket */
    struct histogram append_ns;
    uint8_t *record;
    uint8_t *data;
    uint32_t size;
    uint64_t began_ns, ends_ns;
    bool closing;
};

static void bench_fill(struct bench *b)
{
    while (b->ticket_last - b->ticket_done < b->in_flight_max) {
        b->index++;
        record_encode(b->record, RECORD_COMMAND, b->index, 1, b->data, b->size);
        const struct record_header *record = (const struct record_header *)(const void *)b->record;
        uint64_t now = clock_monotonic_ns();
        b->ticket_last = wal_append(b->wal, &record, 1);
        b->sent_ns[b->ticket_last % IN_FLIGHT_MAX] = now;
        if (b->index % 1024 == 0) {
            wal_trim(b->wal, b->index > 4096 ? b->index - 4096 : 0);
        }
    }
}

static void bench_report(struct bench *b)
{
    struct wal_stats stats;
    wal_get_stats(b->wal, &stats);
    double seconds = (double)(clock_monotonic_ns() - b->began_ns) / 1e9;
    double appends = (double)b->append_ns.count;
    printf(
        "size=%u in_flight=%llu | %.0f appends/s %.1f MB/s | %.0f writes/s %.1f appends/write | "
        "write p50=%.0f us p99=%.0f us max=%.1f ms | append p50=%.0f us p99=%.0f us max=%.1f ms\n",
        b->size, (unsigned long long)b->in_flight_max, appends / seconds,
        appends * b->size / seconds / 1e6, (double)stats.writes / seconds,
        appends / (double)stats.writes, (double)histogram_quantile(stats.write_ns, 0.5) / 1e3,
        (double)histogram_quantile(stats.write_ns, 0.99) / 1e3, (double)stats.write_ns->max / 1e6,
        (double)histogram_quantile(&b->append_ns, 0.5) / 1e3,
        (double)histogram_quantile(&b->append_ns, 0.99) / 1e3, (double)b->append_ns.max / 1e6);
}

static void bench_durable(void *ctx, uint64_t ticket, uint64_t index, uint64_t term)
{
    (void)index;
    (void)term;
    struct bench *b = ctx;
    uint64_t now = clock_monotonic_ns();
    for (; b->ticket_done < ticket; b->ticket_done++) {
        uint64_t sent = b->sent_ns[(b->ticket_done + 1) % IN_FLIGHT_MAX];
        if (sent != 0 && !b->closing) {
            histogram_add(&b->append_ns, now - sent);
        }
    }
    if (b->closing) {
        return;
    }
    if (now >= b->ends_ns) {
        bench_report(b);
        b->closing = true;
        wal_close(b->wal, NULL, NULL);
        return;
    }
    bench_fill(b);
}

int main(int argc, char **argv)
{
    static struct bench b;
    struct wal_config config = {.directory = NULL, .node_id = 1, .sync = true};
    uint64_t seconds = 5;
    b.size = 4096;
    b.in_flight_max = 8;
    for (int option; (option = getopt(argc, argv, "d:s:w:t:g:n")) != -1;) {
        switch (option) {
        case 'd':
            config.directory = optarg;
            break;
        case 's':
            b.size = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'w':
            b.in_flight_max = strtoull(optarg, NULL, 10);
            break;
        case 't':
            seconds = strtoull(optarg, NULL, 10);
            break;
        case 'g':
            config.segment_size = strtoull(optarg, NULL, 10);
            break;
        case 'n':
            config.sync = false;
            break;
        default:
            config.directory = NULL;
            optind = argc;
        }
    }
    if (config.directory == NULL || b.size > RECORD_DATA_SIZE_MAX || b.in_flight_max == 0 ||
        b.in_flight_max >= IN_FLIGHT_MAX) {
        fprintf(stderr,
                "usage: wal_bench -d EMPTY_DIRECTORY [-s BYTES] [-w IN_FLIGHT] [-t SECONDS] "
                "[-g SEGMENT_BYTES] [-n (no sync)]\n");
        return 2;
    }
    b.record = aligned_alloc(8, record_span(b.size));
    b.data = calloc(1, b.size + 1u);
    CHECK(b.record != NULL && b.data != NULL);
    histogram_init(&b.append_ns);
    CHECK(uv_loop_init(&b.loop) == 0);
    struct wal_recovered recovered;
    if (wal_open(&b.loop, &config, bench_durable, &b, &b.wal, &recovered) != 0) {
        return 1;
    }
    if (!recovered.fresh) {
        fprintf(stderr, "wal_bench: %s holds a log already: give an empty directory\n",
                config.directory);
        return 2;
    }
    wal_recovered_close(&recovered);
    b.ticket_last = wal_set_vote(b.wal, 1, 0);
    b.began_ns = clock_monotonic_ns();
    b.ends_ns = b.began_ns + seconds * 1000000000u;
    bench_fill(&b);
    uv_run(&b.loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&b.loop) == 0);
    free(b.record);
    free(b.data);
    return 0;
}
