/* A link alone: frames of S bytes over loopback, both ends on one loop and so on one core. One line
 * of result. The sender fills its queue in each iteration, so frames are joined as they would be
 * under load.
 *
 *     link_bench -s 64 -t 3
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "proto/link.h"

#define QUEUE_BYTES (512u << 10)

struct bench {
    uv_loop_t loop;
    struct link_server *server;
    struct link *client;
    uv_check_t check;
    uint64_t received, size;
    uint64_t began_ns, ends_ns;
    uint8_t data[1u << 20];
};

static void bench_open(struct link *l, void *ctx)
{
    (void)l;
    (void)ctx;
}

static void bench_closed(struct link *l, void *ctx, const char *reason)
{
    (void)l;
    (void)ctx;
    (void)reason;
}

static void bench_frame(struct link *l, void *ctx, const void *data, size_t size)
{
    (void)l;
    (void)data;
    (void)size;
    ((struct bench *)ctx)->received++;
}

static void *bench_accept(void *ctx, struct link *l)
{
    (void)l;
    return ctx;
}

static void bench_check_cb(uv_check_t *check)
{
    struct bench *b = check->data;
    if (!link_is_open(b->client)) {
        return;
    }
    uint64_t now = clock_monotonic_ns();
    if (b->began_ns == 0) {
        b->began_ns = now;
        b->ends_ns += now;
    }
    if (now >= b->ends_ns) {
        double seconds = (double)(now - b->began_ns) / 1e9;
        printf("size=%llu | %.0f frames/s %.1f MB/s, sender and receiver on one core\n",
               (unsigned long long)b->size, (double)b->received / seconds,
               (double)(b->received * b->size) / seconds / 1e6);
        link_close(b->client);
        link_server_close(b->server, NULL, NULL);
        uv_close((uv_handle_t *)check, NULL);
        return;
    }
    while (link_output_queued(b->client) < QUEUE_BYTES &&
           link_send(b->client, b->data, b->size, NULL, 0) == 0) {
    }
}

int main(int argc, char **argv)
{
    static struct bench b;
    uint64_t seconds = 3;
    b.size = 64;
    for (int option; (option = getopt(argc, argv, "s:t:")) != -1;) {
        uint64_t value = option != '?' ? strtoull(optarg, NULL, 10) : 0;
        if (option == 's') {
            b.size = value;
        } else if (option == 't') {
            seconds = value;
        } else {
            fprintf(stderr, "usage: link_bench [-s BYTES] [-t SECONDS]\n");
            return 2;
        }
    }
    CHECK(b.size <= sizeof b.data);
    b.ends_ns = seconds * 1000000000u;
    CHECK(uv_loop_init(&b.loop) == 0);
    struct link_identity identity = {.service = LINK_SERVICE_NODE, .id = 1};
    const struct link_options options = {.frame_size_max = sizeof b.data,
                                         .output_size_max = 4 * sizeof b.data};
    const struct link_callbacks callbacks = {bench_open, bench_frame, bench_closed};
    CHECK(link_listen(&b.loop, "127.0.0.1", 0, 4, &identity, &options, &callbacks, bench_accept, &b,
                      &b.server) == 0);
    b.client = link_connect(&b.loop, "127.0.0.1", link_server_port(b.server), &identity, &options,
                            &callbacks, &b);
    CHECK(b.client != NULL);
    uv_check_init(&b.loop, &b.check);
    b.check.data = &b;
    uv_check_start(&b.check, bench_check_cb);
    uv_run(&b.loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&b.loop) == 0);
    return 0;
}
