/* holdfastd: a node of a holdfast cluster. Options, signals, the loop; the rest is node.c. */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <sodium.h>
#include <uv.h>

#include "base/check.h"
#include "base/log.h"
#include "engine/engine.h"
#include "server/node.h"
#include "server/options.h"

#define HEAP_KEPT_SIZE (256 << 20) /* bytes free at its end that are not given back to the system  \
                                    */
#define HEAP_PIECE_SIZE  (16 << 20)
#define HEAP_WARM_PIECES 4

struct process {
    uv_loop_t loop;
    uv_signal_t terminate, interrupt;
    struct node *node;
    bool stopping;
};

static void stopped_cb(void *ctx)
{
    struct process *p = ctx;
    uv_close((uv_handle_t *)&p->terminate, NULL);
    uv_close((uv_handle_t *)&p->interrupt, NULL);
}

static void signal_cb(uv_signal_t *handle, int number)
{
    struct process *p = handle->data;
    if (p->stopping) {
        log_warn("second signal: exiting at once");
        _exit(128 + number);
    }
    p->stopping = true;
    node_drain(p->node, stopped_cb, p);
}

static void ended_cb(void *ctx)
{
    struct process *p = ctx;
    if (!p->stopping) {
        p->stopping = true;
        node_drain(p->node, stopped_cb, p);
    }
}

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* The log's cache grows until a checkpoint lets it shrink, batch by batch, and begins again. What
 * it gives back stays in the heap, and what it takes first is backed with memory before anybody
 * waits for it: a rush would otherwise make the kernel find a page for every tenth order, on this
 * thread. */
static void keep_heap(void)
{
    (void)mallopt(M_TRIM_THRESHOLD, HEAP_KEPT_SIZE);
    (void)mallopt(M_MMAP_THRESHOLD, 2 * HEAP_PIECE_SIZE); /* those come from the heap, too */
    void *pieces[HEAP_WARM_PIECES];
    for (size_t i = 0; i < HEAP_WARM_PIECES; i++) {
        pieces[i] = malloc(HEAP_PIECE_SIZE);
        if (pieces[i] != NULL) {
            (void)engine_memory_warm((struct engine_memory){pieces[i], HEAP_PIECE_SIZE}, true);
        }
    }
    for (size_t i = HEAP_WARM_PIECES; i-- > 0;) {
        free(pieces[i]);
    }
}

int main(int argc, char **argv)
{
    static struct node_options options;
    static struct process p;
    switch (node_options_parse(&options, argc, argv)) {
    case OPTIONS_OK:
        break;
    case OPTIONS_HELP:
        return 0;
    case OPTIONS_INVALID:
        return 2;
    }
    log_init("holdfastd", options.log_level);
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    keep_heap();
    CHECK(sodium_init() >= 0);
    CHECK(uv_loop_init(&p.loop) == 0);
    log_info("holdfast " HOLDFAST_VERSION " starting id=%llu", (unsigned long long)options.id);
    if (!options.log_sync) {
        log_warn("the log is not synced: a crash of the machine loses acknowledged orders");
    }
    if (node_start(&p.loop, &options, &p.node) < 0) {
        _exit(1); /* what it holds, threads and all, ends with the process */
    }
    CHECK(uv_signal_init(&p.loop, &p.terminate) == 0);
    CHECK(uv_signal_init(&p.loop, &p.interrupt) == 0);
    p.terminate.data = p.interrupt.data = &p;
    node_watch_end(p.node, ended_cb, &p);
    CHECK(uv_signal_start(&p.terminate, signal_cb, SIGTERM) == 0);
    CHECK(uv_signal_start(&p.interrupt, signal_cb, SIGINT) == 0);
    uv_run(&p.loop, UV_RUN_DEFAULT);
    int rv = uv_loop_close(&p.loop);
    if (rv != 0) {
        log_warn("the loop still had something to do: %s", uv_strerror(rv));
    }
    log_info("stopped");
    return 0;
}
