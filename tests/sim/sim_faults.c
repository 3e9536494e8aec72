/* sim_faults: what goes wrong, and when. Each seed chooses its kinds of faults and its limits. */
#include <string.h>

#include "tests/sim/sim.h"

static bool coin(struct sim *s)
{
    return sim_one_in(s, 2);
}

static uint64_t one_of(struct sim *s, const uint64_t *values, size_t count)
{
    return values[sim_below(s, count)];
}

#define ONE_OF(s, ...) \
    one_of(s, (const uint64_t[]){__VA_ARGS__}, \
           sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

void sim_swarm_choose(struct sim *s)
{
    struct sim_swarm *w = &s->swarm;
    w->nodes = (unsigned)ONE_OF(s, 3, 3, 3, 4, 5, 5);
    w->membership = w->nodes > 3 && coin(s);
    w->voters = w->nodes == 4 || (w->nodes == 5 && w->membership) ? 3 : w->nodes;
    if (w->membership && coin(s)) { /* from any size, through all of them */
        w->nodes = 4 + (unsigned)sim_below(s, 3);
        w->voters = 1 + (unsigned)sim_below(s, 5);
        w->voters = w->voters < w->nodes ? w->voters : w->nodes;
    }
    if (sim_one_in(s, 25)) { /* an only voter with a standby or two */
        w->nodes = 2 + (unsigned)sim_below(s, 2);
        w->voters = 1;
        w->membership = false;
    }
    w->crashes = !sim_one_in(s, 4);
    w->disk_crashes = coin(s);
    w->cuts = coin(s);
    w->one_way_cuts = coin(s);
    w->losses = coin(s);
    w->breaks = coin(s);
    w->pauses = coin(s);
    w->slow_disks = coin(s);
    w->disk_losses = w->voters > 2 && sim_one_in(s, 3);
    w->checkpoints = !sim_one_in(s, 4);
    w->install_failures = coin(s);
    w->transfers = coin(s);
    w->reads = !sim_one_in(s, 4);
    w->skew = coin(s);
    w->quick = coin(s);
    w->checkpoint_entries = ONE_OF(s, 4, 16, 64, 64, 256);
    w->trailing_entries = ONE_OF(s, 0, 2, 8, 32, 128);
    w->catch_up_log_size = ONE_OF(s, 1000, 20000, 500000);
    w->in_flight_max = (uint32_t)ONE_OF(s, 8, 16, 64, 512);
    w->segment_size = ONE_OF(s, 32, 64, 256) << 10;
    w->client_interval_us = ONE_OF(s, 3000, 8000, 20000);
    w->fault_interval_us = ONE_OF(s, 150000, 400000, 1200000);
    w->latency_us = ONE_OF(s, 20, 150, 1000);
    w->jitter_us = ONE_OF(s, 10, 500, 3000);
    w->command_size_max = (size_t)ONE_OF(s, 400, 1000, 4000);
}

static void heal_later(struct sim *s)
{
    sim_push(s, 1000 + sim_below(s, 3000000), SIM_HEAL, NULL, 0, 0, NULL, 0);
}

static void cut_both(struct sim *s, unsigned a, unsigned b)
{
    s->cut[a][b] = s->cut[b][a] = true;
    if (coin(s)) {
        sim_network_break(s, a, b);
    }
}

static void fault_isolate(struct sim *s, unsigned node)
{
    sim_trace(s, "node %u: isolated", node + 1);
    for (unsigned peer = 0; peer < s->swarm.nodes; peer++) {
        if (peer != node) {
            cut_both(s, node, peer);
        }
    }
    heal_later(s);
}

static void fault_halves(struct sim *s)
{
    sim_trace(s, "partition");
    uint64_t side = prng_next(&s->prng);
    for (unsigned a = 0; a < s->swarm.nodes; a++) {
        for (unsigned b = a + 1; b < s->swarm.nodes; b++) {
            if (((side >> a) & 1) != ((side >> b) & 1)) {
                cut_both(s, a, b);
            }
        }
    }
    heal_later(s);
}

/* A member that has lost its disk and is not whole again; a spare is filled with nothing, and who is no
 * member is nobody's loss. m NULL: nobody knows who the members are. */
static bool anybody_refills(const struct sim *s, const struct membership *m)
{
    for (unsigned i = 0; i < s->swarm.nodes; i++) {
        const struct replica_member *member = m != NULL ? membership_find(m, i + 1) : NULL;
        if (s->nodes[i].refilling && (m == NULL || (member != NULL && member->role != REPLICA_SPARE))) {
            return true;
        }
    }
    return false;
}

/* A member comes as the documentation wants it: with an empty directory, whatever it was before. */
static enum replica_status add_member(struct sim *s, struct sim_node *leader, struct sim_node *n)
{
    enum replica_refusal why;
    struct replica_member added = {.id = n->id,
                                   .role = sim_one_in(s, 4) ? REPLICA_SPARE : REPLICA_STANDBY};
    sim_node_address(n->index, added.address);
    enum replica_status status = driver_add(leader->driver, sim_node_now_ms(leader), &added, &why);
    if (status == REPLICA_OK) {
        sim_node_lose_disk(n);
    }
    if (status == REPLICA_OK && n->gone) {
        n->gone = false;
        sim_push(s, 1000 + sim_below(s, 500000), SIM_RESTART, n, 0, 0, NULL, 0);
    }
    return status;
}

/* Nobody takes a healthy voter away while another one has lost its disk. What the leader cannot know
 * yet an operator may not know either: that is a double fault. */
static enum replica_status change_member(struct sim *s, struct sim_node *leader,
                                         const struct sim_node *n, enum replica_member_role role,
                                         bool someone_refills)
{
    enum replica_refusal why;
    struct driver *d = leader->driver;
    uint64_t now_ms = sim_node_now_ms(leader);
    switch (role) {
    case REPLICA_SPARE:
        return sim_one_in(s, 3) ? driver_remove(d, now_ms, n->id, &why)
                                : driver_assign(d, now_ms, n->id, REPLICA_STANDBY, &why);
    case REPLICA_STANDBY:
        return sim_one_in(s, 6)   ? driver_remove(d, now_ms, n->id, &why)
               : sim_one_in(s, 6) ? driver_assign(d, now_ms, n->id, REPLICA_SPARE, &why)
                                  : driver_assign(d, now_ms, n->id, REPLICA_VOTER, &why);
    case REPLICA_VOTER:
        if (someone_refills && !n->refilling) {
            return REPLICA_REFUSED;
        }
        return coin(s) ? driver_remove(d, now_ms, n->id, &why)
                       : driver_assign(d, now_ms, n->id, REPLICA_STANDBY, &why);
    }
    return REPLICA_REFUSED;
}

/* Anybody who believes that he leads, ready or not: he must know when to refuse. */
static struct sim_node *some_leader(struct sim *s)
{
    struct sim_node *n = &s->nodes[sim_below(s, s->swarm.nodes)];
    bool leads = n->up && n->paused_until_us <= s->now_us &&
                 driver_get_state(n->driver).role == REPLICA_LEADER;
    return leads ? n : sim_leader(s);
}

void sim_faults_membership(struct sim *s, unsigned target)
{
    struct sim_node *leader = some_leader(s);
    if (leader == NULL) {
        return;
    }
    struct membership m;
    driver_get_membership(leader->driver, &m);
    struct sim_node *n = &s->nodes[target];
    const struct replica_member *member = membership_find(&m, n->id);
    bool someone_refills = anybody_refills(s, &m);
    enum replica_status status = REPLICA_REFUSED;
    if (member != NULL) {
        status = change_member(s, leader, n, member->role, someone_refills);
    } else {
        status = add_member(s, leader, n);
    }
    sim_trace(s, "node %u: changes the role of %llu: %d", leader->index + 1,
              (unsigned long long)n->id, (int)status);
    if (status == REPLICA_OK && s->swarm.cuts && sim_one_in(s, 6)) {
        fault_isolate(s, leader->index); /* only it has the change */
    }
    sim_node_after(leader);
}

static void fault_transfer(struct sim *s)
{
    struct sim_node *leader = sim_leader(s);
    if (leader == NULL) {
        return;
    }
    uint64_t to = sim_below(s, s->swarm.nodes + 1);
    if (driver_transfer(leader->driver, sim_node_now_ms(leader), to) == REPLICA_OK) {
        s->stats.transfers++;
    }
    sim_node_after(leader);
}

/* One at a time, of three voters or more: what a majority has lost nobody can bring back. Nor in the
 * middle of a change of who the majority is. Sometimes for good: the node is not started again. */
static void fault_lose_disk(struct sim *s, struct sim_node *n)
{
    const struct sim_node *leader = sim_leader(s);
    struct membership m;
    if (!s->swarm.membership) {
        if (!anybody_refills(s, NULL)) {
            sim_node_lose_disk(n);
        }
        return;
    }
    if (leader == NULL || driver_change_pending(leader->driver)) {
        return;
    }
    driver_get_membership(leader->driver, &m);
    if (membership_find(&m, n->id) == NULL || anybody_refills(s, &m) ||
        membership_count_voters(&m) < 3) {
        return;
    }
    for (unsigned i = 0; i < s->swarm.nodes; i++) {
        const struct sim_node *other = &s->nodes[i];
        if (!other->gone && (!other->up || driver_change_pending(other->driver))) {
            return;
        }
    }
    sim_node_lose_disk(n);
    n->gone = sim_one_in(s, 3);
}

static void fault_pause(struct sim *s, struct sim_node *n)
{
    uint64_t pause_us = sim_one_in(s, 3) ? sim_below(s, 3000000) : sim_below(s, 300000);
    n->paused_until_us = s->now_us + pause_us;
    n->only_loop_paused = coin(s);
    sim_trace(s, "node %u: %s frozen for %llu us", n->index + 1, n->only_loop_paused ? "its loop is" : "is",
              (unsigned long long)pause_us);
}

void sim_faults_event(struct sim *s)
{
    if (s->healing) {
        return;
    }
    const struct sim_swarm *w = &s->swarm;
    sim_push(s, sim_around(s, w->fault_interval_us), SIM_FAULT, NULL, 0, 0, NULL, 0);
    s->stats.faults++;
    unsigned target = (unsigned)sim_below(s, w->nodes);
    struct sim_node *leader = sim_leader(s);
    if (leader != NULL && sim_one_in(s, 3)) {
        target = leader->index; /* it hurts most there */
    }
    struct sim_node *n = &s->nodes[target];
    switch (sim_below(s, 12)) {
    case 0:
        if (w->crashes) {
            sim_node_crash(n);
        }
        break;
    case 1: /* power cut: everybody */
        for (unsigned i = 0; w->crashes && sim_one_in(s, 3) && i < w->nodes; i++) {
            sim_node_crash(&s->nodes[i]);
        }
        break;
    case 2:
        if (w->disk_crashes && n->up) {
            sim_disk_arm(n->disk, 1 + (unsigned)sim_below(s, 30));
        }
        break;
    case 3:
        if (w->cuts) {
            fault_isolate(s, target);
        }
        break;
    case 4:
        if (w->cuts) {
            fault_halves(s);
        }
        break;
    case 5:
        if (w->one_way_cuts) {
            s->cut[target][sim_below(s, w->nodes)] = true;
            heal_later(s);
        }
        break;
    case 6:
        if (w->breaks) {
            unsigned other = (unsigned)sim_below(s, w->nodes);
            if (other != target) {
                sim_network_break(s, target, other);
            }
        }
        break;
    case 7:
        if (w->pauses && n->up) {
            fault_pause(s, n);
        }
        break;
    case 8:
        if (w->slow_disks) {
            n->slow_until_us = s->now_us + sim_below(s, 2000000);
        }
        break;
    case 9:
        if (w->transfers) {
            fault_transfer(s);
        }
        break;
    case 10:
        if (w->disk_losses) {
            fault_lose_disk(s, n);
        }
        break;
    default:
        if (w->membership) {
            sim_faults_membership(s, (unsigned)sim_below(s, w->nodes));
        }
        break;
    }
}

void sim_faults_heal(struct sim *s)
{
    memset(s->cut, 0, sizeof s->cut);
    for (unsigned i = 0; i < s->swarm.nodes; i++) {
        struct sim_node *n = &s->nodes[i];
        n->slow_until_us = 0;
        if (s->healing) {
            sim_disk_arm(n->disk, 0);
            n->gone = n->gone && !n->refilling; /* lost for good, but not replaced */
            if (!n->up) {
                sim_push(s, 1000, SIM_RESTART, n, 0, 0, NULL, 0);
            }
        }
    }
}
