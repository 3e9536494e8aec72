/* persister_queue: events on their way from the loop to the persister's thread, in one ring of
 * bytes that is reserved once (untouched pages cost nothing). Not synchronized: the worker's mutex
 * guards every call; blocks between peek and release stay where they are and may be read without
 * it. */
#ifndef STORAGE_PERSISTER_QUEUE_H
#define STORAGE_PERSISTER_QUEUE_H

#include "storage/persister_event.h"

#define PERSISTER_QUEUE_SIZE ((size_t)32 << 20) /* bytes; events of the largest size: 8192 */

struct persister_queue {
    uint8_t *ring;
    uint64_t head, tail; /* running byte positions: written up to, released up to */
    size_t events;       /* between them */
};

void persister_queue_init(struct persister_queue *q);
void persister_queue_close(struct persister_queue *q);
void persister_queue_clear(struct persister_queue *q);

/* Copies one event. Returns false when there is no room. */
bool persister_queue_push(struct persister_queue *q, const struct event_view *e);

/* The oldest events, at most max, without releasing them. Returns how many. */
size_t persister_queue_peek(const struct persister_queue *q, const struct persister_event **out,
                            size_t max);
/* Releases the oldest count events. */
void persister_queue_release(struct persister_queue *q, size_t count);

#endif
