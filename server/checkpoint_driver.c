#include "server/checkpoint_driver.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"

size_t position_encode(const struct replica_position *p,
                       uint8_t out[static CHECKPOINT_POSITION_SIZE_MAX])
{
    struct writer w = writer_init(out, CHECKPOINT_POSITION_SIZE_MAX);
    writer_u64(&w, p->index);
    writer_u64(&w, p->term);
    writer_u64(&w, p->configuration_index);
    writer_u32(&w, p->configuration_size);
    writer_bytes(&w, p->configuration, p->configuration_size);
    CHECK(!w.failed);
    return writer_size(&w);
}

int position_decode(struct replica_position *p, const void *data, size_t size)
{
    struct reader r = reader_init(data, size);
    memset(p, 0, sizeof *p);
    p->index = reader_u64(&r);
    p->term = reader_u64(&r);
    p->configuration_index = reader_u64(&r);
    p->configuration_size = reader_u32(&r);
    const void *bytes = p->configuration_size <= REPLICA_CONFIGURATION_SIZE_MAX
                            ? reader_bytes(&r, p->configuration_size)
                            : NULL;
    if (bytes == NULL || reader_left(&r) != 0) {
        return -1;
    }
    memcpy(p->configuration, bytes, p->configuration_size);
    return 0;
}

void checkpoint_driver_init(struct checkpoint_driver *d, uv_loop_t *loop, struct engine *engine,
                            struct replica *replica, struct checkpoint *store, uint64_t entries_max,
                            uint64_t size_max, uint64_t interval_ms)
{
    struct checkpoint_meta meta;
    struct replica_position position;
    memset(d, 0, sizeof *d);
    d->loop = loop;
    d->engine = engine;
    d->replica = replica;
    d->store = store;
    d->entries_max = entries_max;
    d->size_max = size_max;
    d->interval_ms = interval_ms;
    d->last_ms = uv_now(loop);
    if (checkpoint_get_meta(store, &meta)) {
        CHECK(position_decode(&position, meta.position, meta.position_size) == 0);
        d->last_index = position.index;
    }
    CHECK(uv_timer_init(loop, &d->timer) == 0);
}

static void put_cb(void *ctx, const struct engine_block *block)
{
    struct checkpoint_driver *d = ctx;
    checkpoint_put(d->store, block);
}

static void stop(struct checkpoint_driver *d)
{
    d->taking = false;
    uv_timer_stop(&d->timer);
    if (d->idle != NULL) {
        void (*idle)(void *) = d->idle;
        d->idle = NULL;
        idle(d->idle_ctx);
    }
}

/* The node goes on without: only the log grows, and a restart replays more. Rarer and rarer,
 * because each attempt costs the disk what it may be short of. */
static void note_failure(struct checkpoint_driver *d, uint64_t now_ms)
{
    uint64_t wait_ms = CHECKPOINT_RETRY_MS;
    for (uint32_t i = 0; i < d->failures && wait_ms < CHECKPOINT_RETRY_MAX_MS; i++) {
        wait_ms *= 2;
    }
    wait_ms = wait_ms < CHECKPOINT_RETRY_MAX_MS ? wait_ms : CHECKPOINT_RETRY_MAX_MS;
    d->failures++;
    d->retry_ms = now_ms + wait_ms;
    log_warn("no checkpoint could be written, %" PRIu32 " in a row: tried again in %" PRIu64
             " s; the log is kept from index %" PRIu64 " on and grows until one succeeds",
             d->failures, wait_ms / 1000, d->last_index);
}

static void done_cb(void *ctx, bool ok, bool again, const struct checkpoint_meta *meta)
{
    struct checkpoint_driver *d = ctx;
    uint64_t now_ms = uv_now(d->loop);
    engine_checkpoint_end(d->engine, ok);
    if (ok) {
        if (d->failures > 0) {
            log_info("checkpoint written after %" PRIu32 " failures", d->failures);
        }
        d->failures = 0;
        d->last_index = d->position.index;
        d->last_ms = now_ms;
        d->last_bytes = d->begun_bytes;
        FAILPOINT("checkpoint/before-published", "the checkpoint is durable, the log does not know");
        log_debug("checkpoint index=%" PRIu64 " blocks=%" PRIu64, d->position.index,
                  meta->blocks_count);
        replica_checkpoint_published(d->replica, &d->position);
    } else {
        replica_checkpoint_abandoned(d->replica);
        if (again) {
            d->retry_ms = now_ms;
        } else if (d->idle == NULL) { /* else it was given up, and nothing failed */
            note_failure(d, now_ms);
        }
    }
    stop(d);
}

/* Hands over until time, room or blocks are at an end. Returns how many are left. */
static size_t hand_over_slice(struct checkpoint_driver *d, size_t room)
{
    uint64_t begun_ns = clock_monotonic_ns();
    size_t left = 1;
    for (size_t done = 0;
         left > 0 && done + CHECKPOINT_STEP_BLOCKS <= room && done < CHECKPOINT_SLICE_BLOCKS &&
         clock_monotonic_ns() - begun_ns < CHECKPOINT_SLICE_NS;
         done += CHECKPOINT_STEP_BLOCKS) {
        left = engine_checkpoint_step(d->engine, CHECKPOINT_STEP_BLOCKS);
    }
    return left;
}

static void timer_cb(uv_timer_t *timer)
{
    struct checkpoint_driver *d = container_of(timer, struct checkpoint_driver, timer);
    size_t left = hand_over_slice(d, checkpoint_room(d->store) / (ENGINE_BLOCK_SIZE_MAX + 16));
    FAILPOINT("checkpoint/collect", "blocks were collected; applies go on beside");
    checkpoint_flush(d->store); /* also what applies pushed while there was no room */
    /* Not ahead of the log, which may be on another disk, a slower one. */
    if (left == 0 && replica_checkpoint_may_end(d->replica, &d->position)) {
        d->ended = true;
        uv_timer_stop(timer);
        checkpoint_set_digest(d->store, engine_checkpoint_digest(d->engine));
        checkpoint_end(d->store);
    }
}

void checkpoint_driver_settle(struct engine *engine)
{
    uint64_t begun_ns = clock_monotonic_ns();
    while (engine_settle(engine, CHECKPOINT_SETTLE_BLOCKS) > 0 &&
           clock_monotonic_ns() - begun_ns < CHECKPOINT_SETTLE_NS) {
    }
}

static void begin(struct checkpoint_driver *d)
{
    struct checkpoint_meta meta = {.index = engine_index(d->engine),
                                   .time_ms = engine_time_ms(d->engine)};
    FAILPOINT("checkpoint/before-begin", "a checkpoint is due");
    replica_position(d->replica, &d->position);
    CHECK(d->position.index >= meta.index);
    meta.term = d->position.term;
    meta.position_size = (uint32_t)position_encode(&d->position, meta.position);
    d->taking = true;
    d->ended = false;
    checkpoint_begin(d->store, &meta, done_cb, d);
    engine_checkpoint_begin(d->engine, put_cb, d);
    CHECK(uv_timer_start(&d->timer, timer_cb, 0, CHECKPOINT_SLICE_MS) == 0);
}

void checkpoint_driver_tick(struct checkpoint_driver *d, uint64_t applied, uint64_t applied_bytes)
{
    uint64_t now_ms = uv_now(d->loop);
    if (d->taking || d->idle != NULL || applied <= d->last_index || engine_index(d->engine) == 0 ||
        now_ms < d->retry_ms || replica_installing(d->replica) ||
        !engine_checkpoint_ready(d->engine)) {
        return;
    }
    if (d->asked_index > d->last_index || applied - d->last_index >= d->entries_max ||
        applied_bytes - d->last_bytes >= d->size_max || now_ms - d->last_ms >= d->interval_ms) {
        d->begun_bytes = applied_bytes;
        begin(d);
    }
}

void checkpoint_driver_ask(struct checkpoint_driver *d, uint64_t index)
{
    d->asked_index = index > d->asked_index ? index : d->asked_index;
}

uint64_t checkpoint_driver_reached(const struct checkpoint_driver *d)
{
    return d->last_index;
}

void checkpoint_driver_pause(struct checkpoint_driver *d, void (*idle)(void *ctx), void *ctx)
{
    CHECK(d->idle == NULL);
    if (!d->taking) {
        idle(ctx);
        return;
    }
    d->idle = idle;
    d->idle_ctx = ctx;
    uv_timer_stop(&d->timer);
    if (!d->ended) {
        checkpoint_cancel(d->store);
        d->ended = true;
    }
}

void checkpoint_driver_resume(struct checkpoint_driver *d, struct engine *engine,
                              const struct replica_position *position)
{
    CHECK(!d->taking);
    d->engine = engine;
    if (position != NULL) {
        d->last_index = position->index;
        d->last_ms = uv_now(d->loop);
    }
}

void checkpoint_driver_close(struct checkpoint_driver *d)
{
    CHECK(!d->taking);
    uv_close((uv_handle_t *)&d->timer, NULL);
}
