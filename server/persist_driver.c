#include "server/persist_driver.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/failpoint.h"
#include "base/log.h"

#define CONNECT_BACKOFF_MIN_MS 100
#define CONNECT_BACKOFF_MAX_MS 5000

struct persist_driver {
    uv_loop_t *loop;
    char *url;
    uint8_t cluster_id[16];
    persist_propose_cb propose;
    void *propose_ctx;
    struct persister *persister; /* NULL until started */
    bool leading, told;          /* told: the persister knows that we lead */
    uint64_t term;
    uint64_t want; /* next to offer; 0: nothing is wanted */
    uint32_t shards;
    /* Highest watermark in PostgreSQL of each shard, and when it was last proposed. */
    uint64_t acked[SHARDS_MAX];
    uint64_t proposed[SHARDS_MAX];
    uint64_t proposed_ms;
    bool dirty; /* some acked is above its proposed */
    struct event_view *views;
    void (*done)(void *ctx);
    void *done_ctx;
};

int persist_driver_create(uv_loop_t *loop, const char *url, const uint8_t cluster_id[16],
                          persist_propose_cb propose, void *ctx, struct persist_driver **out)
{
    struct persist_driver *d = calloc(1, sizeof *d);
    CHECK(d != NULL);
    d->loop = loop;
    d->propose = propose;
    d->propose_ctx = ctx;
    memcpy(d->cluster_id, cluster_id, sizeof d->cluster_id);
    if (url != NULL) {
        d->url = strdup(url);
        CHECK(d->url != NULL);
    }
    *out = d;
    return 0;
}

bool persist_driver_configured(const struct persist_driver *d)
{
    return d->url != NULL;
}

static void want_cb(void *ctx, uint64_t sequence)
{
    struct persist_driver *d = ctx;
    d->want = sequence;
}

static void acked_cb(void *ctx, const struct command_ack *acks, size_t count)
{
    struct persist_driver *d = ctx;
    for (size_t i = 0; i < count; i++) {
        CHECK(acks[i].shard < d->shards);
        if (acks[i].sequence > d->acked[acks[i].shard]) {
            d->acked[acks[i].shard] = acks[i].sequence;
            d->dirty = true;
        }
    }
}

int persist_driver_start(struct persist_driver *d, uint32_t shards)
{
    static const struct persister_callbacks callbacks = {want_cb, acked_cb};
    if (d->url == NULL || d->persister != NULL) {
        return 0;
    }
    struct persister_config config = {.loop = d->loop,
                                      .url = d->url,
                                      .shards = shards,
                                      .connect_backoff_min_ms = CONNECT_BACKOFF_MIN_MS,
                                      .connect_backoff_max_ms = CONNECT_BACKOFF_MAX_MS};
    memcpy(config.cluster_id, d->cluster_id, sizeof config.cluster_id);
    d->shards = shards;
    d->views = calloc(PERSIST_OFFER_MAX, sizeof d->views[0]);
    CHECK(d->views != NULL);
    return persister_create(&config, &callbacks, d, &d->persister);
}

void persist_driver_lead(struct persist_driver *d, uint64_t term)
{
    d->leading = true;
    d->told = false;
    d->term = term;
    d->want = 0;
    memset(d->proposed, 0, sizeof d->proposed); /* what was on its way may be lost */
    /* What an earlier lead heard may be of a database that was failed over since, to a state before it. What
     * is there now the persister says before it wants anything. */
    memset(d->acked, 0, sizeof d->acked);
    d->dirty = false;
}

void persist_driver_follow(struct persist_driver *d)
{
    if (d->leading && d->told) {
        persister_follow(d->persister);
    }
    d->leading = false;
    d->want = 0;
}

static void offer(struct persist_driver *d, struct engine *e)
{
    if (d->want == 0 || d->want >= engine_events_next(e)) {
        return;
    }
    size_t count = engine_read_events(e, d->want, d->views, PERSIST_OFFER_MAX);
    size_t taken = count > 0 ? persister_offer(d->persister, d->views, count) : 0;
    d->want = taken < count ? 0 : d->want + taken; /* not all: want is called again */
}

/* Watermarks that the engine does not show yet. */
static void acknowledge(struct persist_driver *d, struct engine *e, uint64_t now_ms)
{
    bool again = now_ms - d->proposed_ms >= PERSIST_ACK_RETRY_MS;
    if (!d->dirty && !again) {
        return;
    }
    struct command c = {.kind = COMMAND_PERSIST_ACK, .scope = STR_LITERAL("sys")};
    d->dirty = false;
    for (uint32_t shard = 0; shard < d->shards; shard++) {
        bool known = d->acked[shard] <= engine_events_acked(e, shard);
        if (known || (d->acked[shard] <= d->proposed[shard] && !again)) {
            continue;
        }
        if (c.persist_ack.count == PERSIST_ACKS_MAX) {
            d->dirty = true; /* the others next time */
            break;
        }
        c.persist_ack.acks[c.persist_ack.count++] = (struct command_ack){shard, d->acked[shard]};
    }
    if (c.persist_ack.count == 0) {
        d->proposed_ms = again ? now_ms : d->proposed_ms;
        return;
    }
    if (FAILPOINT_DROP("persister/before-ack", "PostgreSQL has events, the engine is to be told") ||
        !d->propose(d->propose_ctx, &c)) {
        d->dirty = true;
        return;
    }
    d->proposed_ms = now_ms;
    for (uint32_t i = 0; i < c.persist_ack.count; i++) {
        d->proposed[c.persist_ack.acks[i].shard] = c.persist_ack.acks[i].sequence;
    }
}

void persist_driver_step(struct persist_driver *d, struct engine *e, uint64_t now_ms)
{
    if (d->persister == NULL || !d->leading) {
        return;
    }
    if (!d->told) {
        d->told = true;
        persister_lead(d->persister, d->term, engine_events_first(e));
    }
    offer(d, e);
    acknowledge(d, e, now_ms);
}

bool persist_driver_get_status(const struct persist_driver *d, struct persister_status *status)
{
    if (d->persister == NULL) {
        return false;
    }
    persister_get_status(d->persister, status);
    return true;
}

void persist_driver_write_metrics(const struct persist_driver *d, struct text *t)
{
    if (d->persister != NULL) {
        persister_write_metrics(d->persister, t);
    }
}

static void finish(void *ctx)
{
    struct persist_driver *d = ctx;
    void (*done)(void *) = d->done;
    void *done_ctx = d->done_ctx;
    free(d->views);
    free(d->url);
    free(d);
    done(done_ctx);
}

void persist_driver_destroy(struct persist_driver *d, void (*done)(void *ctx), void *ctx)
{
    d->done = done;
    d->done_ctx = ctx;
    if (d->persister != NULL) {
        persister_destroy(d->persister, finish, d);
    } else {
        finish(d);
    }
}
