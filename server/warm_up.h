/* warm_up: backs an engine's memory before the crowd touches it.
 *
 * Why: an order touches several places of the hash indexes at random and adds records at the end of
 * several tables, so in a young cluster nearly every order makes the kernel find new pages, on each
 * node, on the thread that serves everybody: a third of the work of an order. A worker thread does
 * it ahead instead: the indexes whole, in small pieces, a second or so after the limits are known;
 * of each table what comes next, WARM_UP_AHEAD_SIZE of it, again whenever half of that is used. The
 * latter in huge pages, for nobody waits for them.
 *
 * Failure modes: memory is short (less than WARM_UP_RESERVE times what is wanted is free), or the
 * system cannot: nothing is done, pages come as they are touched. The worker is behind: likewise.
 * All calls on the loop's thread.
 */
#ifndef SERVER_WARM_UP_H
#define SERVER_WARM_UP_H

#include <stdatomic.h>
#include <stdbool.h>

#include <uv.h>

#include "engine/engine.h"

#define WARM_UP_RESERVE    4u         /* free memory, in multiples of what is wanted */
#define WARM_UP_PIECE_SIZE (1u << 20) /* bytes at once: an engine that goes away waits for one */
#define WARM_UP_AHEAD_SIZE (4u << 20) /* bytes behind what a table uses */

struct warm_up {
    uv_work_t work;
    struct engine_memory parts[ENGINE_AHEAD_COUNT]; /* under way: the indexes, or what comes next */
    bool huge;
    atomic_bool stop;
    bool running;
    const void *indexes;                          /* those that need nothing any more */
    const uint8_t *ahead_end[ENGINE_AHEAD_COUNT]; /* of each table, what is backed ends here */
};

/* Begins what is to be done, unless something is under way or this engine has no limits yet. Cheap:
 * for each tick. */
void warm_up_tick(struct warm_up *w, uv_loop_t *loop, const struct engine *engine);
/* The engine goes away, or the node: stops soon. The loop runs on until it has. */
void warm_up_stop(struct warm_up *w);

#endif
