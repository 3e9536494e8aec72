/* warm_up: backs an engine's hash indexes with memory before the crowd touches them.
 *
 * Why: an order touches several places of the indexes at random, so in a young cluster nearly every
 * order makes the kernel find new pages, on each node, on the thread that serves everybody: a third
 * of the work of an order. A worker thread does it ahead instead, in small pieces, a second or so
 * after the limits are known.
 *
 * Failure modes: memory is short (less than WARM_UP_RESERVE times what is wanted is free), or the
 * system cannot: nothing is done, pages come as they are touched. All calls on the loop's thread.
 */
#ifndef SERVER_WARM_UP_H
#define SERVER_WARM_UP_H

#include <stdatomic.h>
#include <stdbool.h>

#include <uv.h>

#include "engine/engine.h"

#define WARM_UP_RESERVE    4u         /* free memory, in multiples of what is wanted */
#define WARM_UP_PIECE_SIZE (1u << 20) /* bytes at once: an engine that goes away waits for one */

struct warm_up {
    uv_work_t work;
    struct engine_memory memory;
    atomic_bool stop;
    bool running;
    const void *warmed; /* the indexes that need nothing any more */
};

/* Begins, unless this engine is warm, is being warmed, or has no limits yet. Cheap: for each tick.
 */
void warm_up_tick(struct warm_up *w, uv_loop_t *loop, const struct engine *engine);
/* The engine goes away, or the node: stops soon. The loop runs on until it has. */
void warm_up_stop(struct warm_up *w);

#endif
