/* persister_thread: where the worker runs, and how its thread and the loop wake each other. All that the
 * persister has of threads, poll(2) and libuv; the simulator (tests/sim) puts virtual time in its place.
 *
 * What it owns: the thread, an eventfd, an async handle. What it refuses: to know what either side is
 * woken for. */
#ifndef STORAGE_PERSISTER_THREAD_H
#define STORAGE_PERSISTER_THREAD_H

#include <uv.h>

#include "storage/persister_worker.h"

struct persister_thread;

/* news is called on the loop, some time after each wake_loop (several may be one). NULL on failure: no
 * handle is left in the loop then. */
struct persister_thread *persister_thread_create(uv_loop_t *loop, void (*news)(void *ctx), void *ctx);
/* Calls worker_step, at once and then when it is time, when a lane is ready, or when woken, until it says
 * that it is done. 0 or -1. */
int persister_thread_start(struct persister_thread *t, struct worker *w);
/* Any thread. */
void persister_thread_wake(struct persister_thread *t);
void persister_thread_wake_loop(struct persister_thread *t);
/* Loop. Waits for the thread, which is done or about to be, if it was started; then frees, and calls
 * closed on the loop. */
void persister_thread_close(struct persister_thread *t, void (*closed)(void *ctx));

#endif
