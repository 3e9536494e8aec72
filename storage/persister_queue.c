/* See persister_queue.h. A block that would not fit before the end of the ring starts at its
 * beginning; a size of 0 (or less than a size's room) says that the rest of the ring is skipped. */
#include "storage/persister_queue.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "base/check.h"

_Static_assert(PERSISTER_QUEUE_SIZE % 8 == 0, "blocks stay aligned over the wrap");

void persister_queue_init(struct persister_queue *q)
{
    *q = (struct persister_queue){.ring = malloc(PERSISTER_QUEUE_SIZE)};
    CHECK(q->ring != NULL);
}

void persister_queue_close(struct persister_queue *q)
{
    free(q->ring);
    q->ring = NULL;
}

void persister_queue_clear(struct persister_queue *q)
{
    q->head = q->tail = 0;
    q->events = 0;
}

bool persister_queue_push(struct persister_queue *q, const struct event_view *e)
{
    size_t size = persister_event_size(e);
    CHECK(size % 8 == 0 && size <= PERSISTER_EVENT_SIZE_MAX);
    size_t at = q->head % PERSISTER_QUEUE_SIZE;
    size_t skip = at + size > PERSISTER_QUEUE_SIZE ? PERSISTER_QUEUE_SIZE - at : 0;
    if (q->head + skip + size - q->tail > PERSISTER_QUEUE_SIZE) {
        return false;
    }
    if (skip > 0) {
        store_u32(q->ring + at, 0);
        at = 0;
    }
    persister_event_write(e, q->ring + at);
    q->head += skip + size;
    q->events++;
    return true;
}

/* The block at a position, which is moved past it. */
static const struct persister_event *step(const struct persister_queue *q, uint64_t *position)
{
    size_t at = *position % PERSISTER_QUEUE_SIZE;
    if (load_u32(q->ring + at) == 0) {
        *position += PERSISTER_QUEUE_SIZE - at;
        at = 0;
    }
    const struct persister_event *e = (const struct persister_event *)(const void *)(q->ring + at);
    *position += e->size;
    return e;
}

size_t persister_queue_peek(const struct persister_queue *q, const struct persister_event **out,
                            size_t max)
{
    size_t count = q->events < max ? q->events : max;
    uint64_t position = q->tail;
    for (size_t i = 0; i < count; i++) {
        out[i] = step(q, &position);
    }
    return count;
}

void persister_queue_release(struct persister_queue *q, size_t count)
{
    CHECK(count <= q->events);
    for (size_t i = 0; i < count; i++) {
        step(q, &q->tail);
    }
    q->events -= count;
}
