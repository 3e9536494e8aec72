/* checkpoint_driver: when a checkpoint is taken, and what follows.
 *
 * Happy path: enough entries or time since the last one → the engine freezes what changed, the
 * position in the log is noted with it → slices each millisecond, as the store's queue has room,
 * none longer than CHECKPOINT_SLICE_NS → the digest of that instant is known → durable →
 * replica_checkpoint_published, so that the log is trimmed.
 *
 * Failure modes: the store fails: the engine keeps its blocks marked, tried again after
 * CHECKPOINT_RETRY_MS, doubled with each failure in a row (at once when only the map was too
 * small); the log grows meanwhile. An install begins: given up. */
#ifndef SERVER_CHECKPOINT_DRIVER_H
#define SERVER_CHECKPOINT_DRIVER_H

#include "engine/engine.h"
#include "raft/replica.h"
#include "storage/checkpoint.h"

#define CHECKPOINT_RETRY_MS     1000
#define CHECKPOINT_RETRY_MAX_MS 64000
/* A slice: SLICE_MS after the one before, until SLICE_NS are over or SLICE_BLOCKS are handed over; the
 * clock is looked at every STEP_BLOCKS. Settling on each tick: SETTLE_NS, every SETTLE_BLOCKS. */
#define CHECKPOINT_SLICE_MS      1
#define CHECKPOINT_SLICE_BLOCKS  2048
#define CHECKPOINT_SLICE_NS      500000u
#define CHECKPOINT_STEP_BLOCKS   64u
#define CHECKPOINT_SETTLE_NS     1000000u
#define CHECKPOINT_SETTLE_BLOCKS 256u

/* A position in the log as the opaque bytes of a checkpoint, and back. */
size_t position_encode(const struct replica_position *p,
                       uint8_t out[static CHECKPOINT_POSITION_SIZE_MAX]);
int position_decode(struct replica_position *p, const void *data, size_t size);

struct checkpoint_driver {
    uv_loop_t *loop;
    struct engine *engine;
    struct replica *replica;
    struct checkpoint *store;
    uint64_t entries_max, size_max, interval_ms;
    /* state */
    bool taking, ended;   /* ended: all blocks are handed over */
    uint32_t failures;    /* in a row */
    uint64_t asked_index; /* until this is reached the next one begins at once */
    struct replica_position position;
    uint64_t last_index, last_ms, retry_ms; /* log index and loop time of the last one */
    uint64_t last_bytes, begun_bytes; /* applied_bytes at the last one, and at this one's begin */
    void (*idle)(void *ctx);          /* waits for `taking` to end */
    void *idle_ctx;
    uv_timer_t timer;
};

void checkpoint_driver_init(struct checkpoint_driver *d, uv_loop_t *loop, struct engine *engine,
                            struct replica *replica, struct checkpoint *store, uint64_t entries_max,
                            uint64_t size_max, uint64_t interval_ms);
/* Now and then: begins one when it is time. applied: the log index that is applied; applied_bytes:
 * of batches, since the node started. */
/* Lets the engine work off what applies and checkpoints put off (engine_settle), for
 * CHECKPOINT_SETTLE_NS at most: on each tick of the loop. */
void checkpoint_driver_settle(struct engine *engine);
void checkpoint_driver_tick(struct checkpoint_driver *d, uint64_t applied, uint64_t applied_bytes);
/* Somebody waits for one that holds this index (applied already): it begins at the next tick,
 * however little happened since the last. */
void checkpoint_driver_ask(struct checkpoint_driver *d, uint64_t index);
/* The log index up to which the newest durable one holds everything; 0: there is none. */
uint64_t checkpoint_driver_reached(const struct checkpoint_driver *d);
/* Gives up the one under way and calls idle when nothing is (perhaps at once). Until
 * checkpoint_driver_resume none begins. */
void checkpoint_driver_pause(struct checkpoint_driver *d, void (*idle)(void *ctx), void *ctx);
/* After an install or a failed one: goes on with this engine and position (NULL: unchanged). */
void checkpoint_driver_resume(struct checkpoint_driver *d, struct engine *engine,
                              const struct replica_position *position);
/* The timer is closed; the caller has paused. */
void checkpoint_driver_close(struct checkpoint_driver *d);

#endif
