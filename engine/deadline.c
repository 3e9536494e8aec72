/* What ends by itself. Before the commands of a batch: reservations, leases and denials whose time has
 * come end, in deadline order over all three; then finished records whose retention is over leave
 * memory, in order, too. Each of the two does at most expiries_per_batch_max things, so that a batch
 * takes bounded time; engine_next_due_ms tells the leader when to submit another.
 *
 * A finished order stays while the ring still holds an event of it. The ring lets go from its front
 * only, so the retirement of orders waits at the first that is held: the others are no better off. */
#include "base/failpoint.h"
#include "engine/parts.h"

/* The sources, in the order in which they take turns when due at the same time. */
static bool end_one(struct engine *e)
{
    int64_t order = due_heap_first_due(&e->pending);
    int64_t lease = due_heap_first_due(&e->lease_ends);
    int64_t denial = due_heap_first_due(&e->denial_ends);
    int64_t now = e->root->time_ms;
    if (order <= now && order <= lease && order <= denial) {
        FAILPOINT("engine/before-expire", "a reservation's time has come, it still holds its units");
        order_expire(e, due_heap_first(&e->pending));
        FAILPOINT("engine/after-expire", "its units are returned, the batch goes on");
        return true;
    }
    if (lease <= now && lease <= denial) {
        lease_end(e, due_heap_first(&e->lease_ends));
        return true;
    }
    if (denial <= now) {
        denial_end(e, due_heap_first(&e->denial_ends));
        return true;
    }
    return false;
}

static int64_t retiring_due(const struct engine *e)
{
    uint32_t slot = due_heap_first(&e->retiring);
    bool held = slot != 0 && order_at(e, slot)->last_event >= e->root->event_first;
    return held ? INT64_MAX : due_heap_first_due(&e->retiring);
}

static bool retire_one(struct engine *e)
{
    int64_t order = retiring_due(e);
    int64_t answer = due_heap_first_due(&e->answer_ends);
    int64_t sale = due_heap_first_due(&e->sale_ends);
    int64_t now = e->root->time_ms;
    if (order <= now && order <= answer && order <= sale) {
        order_retire(e, due_heap_first(&e->retiring));
        return true;
    }
    if (answer <= now && answer <= sale) {
        idempotency_retire(e, due_heap_first(&e->answer_ends));
        return true;
    }
    if (sale <= now) {
        sale_retire_step(e, due_heap_first(&e->sale_ends));
        return true;
    }
    return false;
}

void deadlines_run(struct engine *e)
{
    uint32_t max = e->root->expiries_per_batch_max;
    event_trim(e, EVENTS_TRIM_MAX);
    for (uint32_t i = 0; i < max && end_one(e); i++) {
    }
    for (uint32_t i = 0; i < max && retire_one(e); i++) {
    }
}

int64_t engine_next_due_ms(const struct engine *e)
{
    if (e->root->initialized == 0) {
        return INT64_MAX;
    }
    const int64_t due[] = {
        due_heap_first_due(&e->pending),     due_heap_first_due(&e->lease_ends),
        due_heap_first_due(&e->denial_ends), retiring_due(e),
        due_heap_first_due(&e->answer_ends), due_heap_first_due(&e->sale_ends),
        event_trimmable(e) ? e->root->time_ms : INT64_MAX,
    };
    int64_t next = INT64_MAX;
    for (size_t i = 0; i < ARRAY_COUNT(due); i++) {
        next = due[i] < next ? due[i] : next;
    }
    return next;
}
