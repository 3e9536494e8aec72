/* See persister.h: the face of the persister on the loop's thread. What happens in between is
 * persister_worker.c's. */
#include "storage/persister.h"

#include <stdlib.h>

#include "base/check.h"
#include "storage/persister_thread.h"

struct persister {
    struct persister_callbacks callbacks;
    void *ctx;
    uint32_t shards;
    struct worker *worker;
    struct persister_thread *thread;
    uint64_t stream;        /* as last heard of; 0: not ready for offers */
    uint64_t next_sequence; /* of the next offer */
    struct command_ack *acks;
    bool destroying;
    void (*done)(void *ctx);
    void *done_ctx;
};

static void closed(void *ctx)
{
    struct persister *p = ctx;
    void (*done)(void *ctx) = p->done;
    void *done_ctx = p->done_ctx;
    if (p->worker != NULL) {
        worker_destroy(p->worker);
    }
    free(p->acks);
    free(p);
    if (done != NULL) {
        done(done_ctx);
    }
}

static void report_acks(struct persister *p, uint64_t sequence)
{
    uint32_t shard = 0;
    while (shard < p->shards && !p->destroying) {
        size_t count = 0;
        for (; count < PERSIST_ACKS_MAX && shard < p->shards; shard++) {
            p->acks[count++] = (struct command_ack){.shard = shard, .sequence = sequence};
        }
        p->callbacks.acked(p->ctx, p->acks, count);
    }
}

static void take_news(void *ctx)
{
    struct persister *p = ctx;
    struct worker_news news;
    worker_take_news(p->worker, &news);
    if (news.ended) {
        CHECK(p->destroying);
        persister_thread_close(p->thread, closed);
        return;
    }
    if (p->destroying) {
        return;
    }
    p->stream = news.stream;
    if (news.opened) {
        p->next_sequence = news.wanted;
    }
    /* The callbacks may call anything here, persister_follow and persister_destroy too. */
    if (news.acked != 0) {
        report_acks(p, news.acked);
    }
    if ((news.opened || news.room) && p->stream == news.stream && p->stream != 0 &&
        !p->destroying) {
        p->callbacks.want(p->ctx, p->next_sequence);
    }
}

int persister_create(const struct persister_config *config,
                     const struct persister_callbacks *callbacks, void *ctx, struct persister **out)
{
    CHECK(config->shards >= 1 && config->shards <= SHARDS_MAX);
    struct persister *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return -1;
    }
    p->callbacks = *callbacks;
    p->ctx = ctx;
    p->shards = config->shards;
    p->acks = calloc(PERSIST_ACKS_MAX, sizeof *p->acks);
    if (p->acks == NULL) {
        goto err_after_alloc;
    }
    p->thread = persister_thread_create(config->loop, take_news, p);
    if (p->thread == NULL) {
        goto err_after_acks;
    }
    p->worker = worker_create(config, p->thread);
    if (p->worker == NULL || persister_thread_start(p->thread, p->worker) < 0) {
        persister_thread_close(p->thread, closed); /* frees */
        return -1;
    }
    *out = p;
    return 0;

err_after_acks:
    free(p->acks);
err_after_alloc:
    free(p);
    return -1;
}

void persister_lead(struct persister *p, uint64_t term, uint64_t first_sequence)
{
    CHECK(!p->destroying);
    CHECK(term > 0 && first_sequence > 0);
    p->stream = 0;
    worker_lead(p->worker, term, first_sequence);
}

void persister_follow(struct persister *p)
{
    CHECK(!p->destroying);
    p->stream = 0;
    worker_follow(p->worker);
}

size_t persister_offer(struct persister *p, const struct event_view *events, size_t count)
{
    if (p->stream == 0 || p->destroying || count == 0) {
        return 0;
    }
    CHECK(events[0].sequence == p->next_sequence);
    size_t taken = worker_offer(p->worker, p->stream, events, count);
    p->next_sequence += taken;
    return taken;
}

void persister_get_status(const struct persister *p, struct persister_status *out)
{
    worker_get_status(p->worker, out);
    out->next_sequence = p->next_sequence;
}

void persister_write_metrics(const struct persister *p, struct text *t)
{
    worker_write_metrics(p->worker, t);
}

void persister_destroy(struct persister *p, void (*done)(void *ctx), void *ctx)
{
    CHECK(!p->destroying);
    p->destroying = true;
    p->done = done;
    p->done_ctx = ctx;
    worker_stop(p->worker);
}
