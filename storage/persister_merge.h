/* persister_merge: what becomes of each order and eligibility over the events of one transaction,
 * so that each is written once, as it is at the end. */
#ifndef STORAGE_PERSISTER_MERGE_H
#define STORAGE_PERSISTER_MERGE_H

#include "storage/persister.h"
#include "storage/persister_event.h"

#define MERGE_SLOTS (2 * PERSISTER_BATCH_EVENTS_MAX)
_Static_assert((MERGE_SLOTS & (MERGE_SLOTS - 1)) == 0, "slots are masked");

/* What becomes of one order: the event that placed it (if in this batch), the last that changed it,
 * and the one that refunded it. Of one eligibility: the last event only. */
struct merged {
    const struct persister_event *placed, *last, *refunded;
};

struct persister_merge {
    struct merged orders[PERSISTER_BATCH_EVENTS_MAX]; /* in order of first mention */
    struct merged eligibilities[PERSISTER_BATCH_EVENTS_MAX];
    size_t orders_count, eligibilities_count;
    uint32_t order_slots[MERGE_SLOTS], eligibility_slots[MERGE_SLOTS]; /* 1 + position; 0: free */
};

/* Merges anew. events: at most PERSISTER_BATCH_EVENTS_MAX, those of one order or eligibility in
 * order of their sequence; borrowed as long as the result is used. */
void persister_merge_events(struct persister_merge *m, const struct persister_event *const *events,
                            size_t count);

#endif
