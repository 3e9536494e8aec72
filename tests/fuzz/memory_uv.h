/* The part of libuv that gateway/ and proto/link use, in memory and in virtual time: a program that
 * links memory_uv.c gets these functions instead of the library's. No socket, no thread, no clock, so
 * that a connection's whole life is a function of the bytes, and a hundred times faster.
 *
 * A stream's input is what memory_uv_give queued, piece by piece, one read each, only while the stream
 * reads. Its output is gathered. How much a write takes at once can be limited. Callbacks come from
 * memory_uv_turn only, in the order of a loop's iteration: timers, prepare, input, check, closing.
 *
 * What it refuses: whatever is not needed; a handle used before init or after close aborts. */
#ifndef TESTS_FUZZ_MEMORY_UV_H
#define TESTS_FUZZ_MEMORY_UV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/text.h"

/* The time that uv_now and uv_hrtime tell. */
extern uint64_t memory_uv_now_ms;

/* Begins anew: everything must have been closed. */
void memory_uv_reset(void);
/* One iteration. Returns false when there was nothing to do. */
bool memory_uv_turn(void);
/* When the next timer is due; UINT64_MAX: none. */
uint64_t memory_uv_next_timer_ms(void);
/* Handles that are open or closing. */
size_t memory_uv_handles(void);

/* A connection that uv_accept can take; its listener is not told. */
void memory_uv_offer(void);
/* The same, and this listener is told. */
void memory_uv_connect(uv_tcp_t *listener);
/* Queues one piece of input; size 0: the end of it. Copies. */
void memory_uv_give(uv_tcp_t *tcp, const void *data, size_t size);
/* Of each try: bytes that a write takes at once; SIZE_MAX: all. 0: nothing, until a turn is over. */
void memory_uv_limit_writes(size_t size);
/* What was written so far; valid until the next turn. Of a closed stream: empty. */
const struct text *memory_uv_written(const uv_tcp_t *tcp);
/* Where everything that all streams write goes, too, in order; NULL: nowhere. */
void memory_uv_tap(struct text *to);
/* The tcp handles in the order of their init: those that are open. NULL behind the last. */
uv_tcp_t *memory_uv_tcp(size_t i);
bool memory_uv_reading(const uv_tcp_t *tcp);

#endif
