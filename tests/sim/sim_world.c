/* sim_world: virtual time, the queue of events, the two phases of a run. See sim.h. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/sim/sim_database.h"
#include "tests/sim/sim_replies.h"
#include "tests/sim/sim_shrink.h"
#include "tests/sim/sim_trace.h"

#define START_US 1000000

/* ---- chance ---- */

bool sim_one_in(struct sim *s, uint64_t n)
{
    return prng_one_in(&s->prng, n);
}

uint64_t sim_below(struct sim *s, uint64_t bound)
{
    return prng_below(&s->prng, bound);
}

uint64_t sim_around(struct sim *s, uint64_t mean)
{
    return 1 + prng_below(&s->prng, 2 * mean);
}

void sim_hash(struct sim *s, uint64_t value)
{
    s->hash ^= value + 0x9E3779B97F4A7C15u + (s->hash << 6) + (s->hash >> 2);
    s->hash *= 0xFF51AFD7ED558CCDu;
}

/* ---- events: a binary heap by time, then by order of creation ---- */

static bool event_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->time_us < b->time_us || (a->time_us == b->time_us && a->sequence < b->sequence);
}

static void heap_push(struct sim *s, struct sim_event event)
{
    if (s->heap_count == s->heap_capacity) {
        s->heap_capacity = s->heap_capacity == 0 ? 1024 : s->heap_capacity * 2;
        s->heap = realloc(s->heap, s->heap_capacity * sizeof *s->heap);
        CHECK(s->heap != NULL);
    }
    size_t i = s->heap_count++;
    while (i > 0 && event_before(&event, &s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = event;
}

static struct sim_event heap_pop(struct sim *s)
{
    struct sim_event first = s->heap[0];
    struct sim_event moved = s->heap[--s->heap_count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->heap_count) {
            break;
        }
        if (child + 1 < s->heap_count && event_before(&s->heap[child + 1], &s->heap[child])) {
            child++;
        }
        if (!event_before(&s->heap[child], &moved)) {
            break;
        }
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = moved;
    return first;
}

void sim_push(struct sim *s, uint64_t delay_us, enum sim_event_kind kind, struct sim_node *node,
              uint64_t a, uint64_t b, void *data, size_t size)
{
    heap_push(s, (struct sim_event){
                     .time_us = s->now_us + delay_us,
                     .sequence = s->sequence++,
                     .kind = kind,
                     .node = node != NULL ? node->index : SIM_NODES_MAX,
                     .life = node != NULL ? node->life : 0,
                     .a = a,
                     .b = b,
                     .data = data,
                     .size = size,
                 });
}

/* A frozen process: what happens to it happens when it thaws, in the same order. */
static bool put_off(struct sim *s, struct sim_event *e)
{
    if (e->node == SIM_NODES_MAX || e->kind == SIM_RESTART) {
        return false;
    }
    struct sim_node *n = &s->nodes[e->node];
    if (!n->up || n->paused_until_us <= s->now_us) {
        return false;
    }
    e->time_us = n->paused_until_us;
    e->sequence = s->sequence++;
    heap_push(s, *e);
    return true;
}

static void dispatch(struct sim *s, struct sim_event *e)
{
    if (put_off(s, e)) {
        return;
    }
    s->stats.events++;
    sim_trace_event(s, e);
    sim_hash(s, e->time_us);
    sim_hash(s, (uint64_t)e->kind << 32 | e->node << 16 | (e->life & 0xFFFF));
    switch (e->kind) {
    case SIM_CLIENT:
        sim_clients_event(s);
        break;
    case SIM_FAULT:
        sim_shrink_fault(s);
        break;
    case SIM_HEAL:
        sim_faults_heal(s);
        sim_database_heal(s);
        break;
    case SIM_DATABASE:
    case SIM_DATABASE_FAULT:
        sim_database_event(s, e);
        break;
    case SIM_CLOCK_FAULT:
        sim_clock_fault(s);
        break;
    case SIM_LINK_UP:
        sim_network_event(s, e);
        break;
    case SIM_RESTART:
        if (!s->nodes[e->node].up) {
            sim_node_start(&s->nodes[e->node]);
        }
        break;
    case SIM_MESSAGE:
    case SIM_DISK:
    case SIM_TICK:
    case SIM_CHECKPOINT:
    case SIM_INSTALL:
    case SIM_LINK_NOTICE:
    case SIM_CLOCK:
    case SIM_DIE:
    case SIM_WATCH:
    case SIM_PERSISTER:
        if (s->nodes[e->node].up && e->life == s->nodes[e->node].life) {
            sim_node_event(&s->nodes[e->node], e);
        }
        break;
    }
    free(e->data);
}

static void run_until(struct sim *s, uint64_t end_us, bool (*done)(struct sim *))
{
    while (s->heap_count > 0 && s->heap[0].time_us <= end_us) {
        struct sim_event e = heap_pop(s);
        s->now_us = e.time_us;
        dispatch(s, &e);
        if (done != NULL && s->stats.events % 256 == 0 && done(s)) {
            return;
        }
    }
    s->now_us = end_us;
}

static void drop_events(struct sim *s)
{
    for (size_t i = 0; i < s->heap_count; i++) {
        free(s->heap[i].data);
    }
    free(s->heap);
}

void sim_run(const struct sim_options *options, struct sim_stats *stats, uint64_t *hash)
{
    struct sim *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    s->options = *options;
    s->prng = prng_init(options->seed);
    s->now_us = START_US;
    sim_swarm_choose(s);
    sim_shrink_swarm(s);
    for (unsigned i = 0; i < s->swarm.nodes; i++) {
        sim_node_init(s, i);
    }
    sim_clock_init(s);
    sim_database_create(s);
    sim_replies_create(s);
    sim_network_start(s);
    for (unsigned i = 0; i < s->swarm.nodes; i++) {
        sim_node_start(&s->nodes[i]);
    }
    sim_push(s, 500000, SIM_CLIENT, NULL, 0, 0, NULL, 0);
    sim_push(s, 1500000, SIM_FAULT, NULL, 0, 0, NULL, 0);
    run_until(s, s->now_us + options->duration_us, NULL);

    s->healing = true;
    s->healed_at_us = s->now_us;
    s->healed_at_index = s->history.last;
    sim_faults_heal(s);
    sim_database_heal(s);
    sim_trace(s, "everything heals");
    run_until(s, s->now_us + SIM_CONVERGENCE_US, sim_is_converged);
    sim_check_converged(s);

    s->stats.seeds = 1;
    s->stats.simulated_us = s->now_us - START_US;
    *stats = s->stats;
    *hash = s->hash;
    for (unsigned i = 0; i < s->swarm.nodes; i++) {
        sim_node_close(&s->nodes[i]);
    }
    sim_clients_close(s);
    sim_database_close(s);
    sim_replies_close(s);
    drop_events(s);
    free(s->history.entries);
    free(s->history.leaders);
    free(s);
}
