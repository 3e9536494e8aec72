/* sim_faults: what goes wrong, and when. Each seed chooses its kinds of faults and its limits.
 *
 * Who may lose what is durable: so many nodes at a time that a majority of the voters stays whole, for
 * what a majority has lost nobody can bring back. A node counts from the moment that its disk may be
 * damaged until a restart has found everything, or it was rebuilt and is whole again. Nor in the middle
 * of a change of who the majority is. */
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

static void fire(struct sim *s, enum sim_fault fault)
{
    s->stats.fired[fault]++;
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

static void isolate(struct sim *s, unsigned node)
{
    sim_trace(s, "node %u: isolated", node + 1);
    for (unsigned peer = 0; peer < s->swarm.nodes; peer++) {
        if (peer != node) {
            cut_both(s, node, peer);
        }
    }
    heal_later(s);
}

/* A member whose disk lost something, or may have, and that is not whole again; a spare is filled with
 * nothing, and who is no member is nobody's loss. m NULL: nobody knows who the members are. */
static bool anybody_is_hurt(const struct sim *s, const struct membership *m)
{
    for (unsigned i = 0; i < s->swarm.nodes; i++) {
        const struct replica_member *member = m != NULL ? membership_find(m, i + 1) : NULL;
        if (sim_node_is_hurt(&s->nodes[i]) &&
            (m == NULL || (member != NULL && member->role != REPLICA_SPARE))) {
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
                                         bool someone_is_hurt, size_t voters)
{
    enum replica_refusal why;
    struct driver *d = leader->driver;
    uint64_t now_ms = sim_node_now_ms(leader);
    switch (role) {
    case REPLICA_SPARE:
        return sim_one_in(s, 3) ? driver_remove(d, now_ms, n->id, &why)
                                : driver_assign(d, now_ms, n->id, REPLICA_STANDBY, &why);
    case REPLICA_STANDBY:
        if (sim_node_is_hurt(n) && voters < 2) {
            return REPLICA_REFUSED; /* then it would have to be refilled by one other */
        }
        return sim_one_in(s, 6)   ? driver_remove(d, now_ms, n->id, &why)
               : sim_one_in(s, 6) ? driver_assign(d, now_ms, n->id, REPLICA_SPARE, &why)
                                  : driver_assign(d, now_ms, n->id, REPLICA_VOTER, &why);
    case REPLICA_VOTER:
        if (someone_is_hurt && !sim_node_is_hurt(n)) {
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
    bool someone_is_hurt = anybody_is_hurt(s, &m);
    enum replica_status status = REPLICA_REFUSED;
    if (member != NULL) {
        status = change_member(s, leader, n, member->role, someone_is_hurt,
                               membership_count_voters(&m));
    } else {
        status = add_member(s, leader, n);
    }
    sim_trace(s, "node %u: changes the role of %llu: %d", leader->index + 1,
              (unsigned long long)n->id, (int)status);
    if (status == REPLICA_OK) {
        fire(s, SIM_FAULT_MEMBERSHIP);
    }
    if (status == REPLICA_OK && sim_fault_on(s, SIM_FAULT_ISOLATE) && sim_one_in(s, 6)) {
        isolate(s, leader->index); /* only it has the change */
        fire(s, SIM_FAULT_ISOLATE);
    }
    sim_node_after(leader);
}

/* ---- who may lose something ---- */

static bool may_hurt_member(struct sim *s, const struct sim_node *n)
{
    const struct sim_node *leader = sim_leader(s);
    struct membership m;
    if (leader == NULL || driver_change_pending(leader->driver)) {
        return false;
    }
    driver_get_membership(leader->driver, &m);
    if (membership_find(&m, n->id) == NULL || anybody_is_hurt(s, &m) ||
        membership_count_voters(&m) < 3) {
        return false;
    }
    for (unsigned i = 0; i < s->swarm.nodes; i++) {
        const struct sim_node *other = &s->nodes[i];
        if (!other->gone && (!other->up || driver_change_pending(other->driver))) {
            return false;
        }
    }
    return true;
}

static bool may_hurt(struct sim *s, const struct sim_node *n)
{
    if (sim_node_is_hurt(n) || n->gone) {
        return false;
    }
    if (s->swarm.membership) {
        return may_hurt_member(s, n);
    }
    unsigned hurt = 1;
    for (unsigned i = 0; i < s->swarm.voters; i++) {
        hurt += &s->nodes[i] != n && sim_node_is_hurt(&s->nodes[i]);
    }
    return hurt <= (s->swarm.voters - 1) / 2;
}

static void die_within(struct sim_node *n, uint64_t most_us)
{
    sim_push(n->sim, sim_below(n->sim, most_us), SIM_DIE, n, 0, 0, NULL, 0);
}

/* ---- the kinds, each at a node that was drawn ---- */

static void fault_crash(struct sim *s, struct sim_node *n)
{
    s->stats.fired[SIM_FAULT_CRASH] += n->up;
    sim_node_crash(n);
}

static void fault_power(struct sim *s, struct sim_node *n)
{
    (void)n;
    for (unsigned i = 0; sim_one_in(s, 3) && i < s->swarm.nodes; i++) {
        s->stats.fired[SIM_FAULT_POWER] += s->nodes[i].up;
        sim_node_crash(&s->nodes[i]);
    }
}

static bool is_responsive(const struct sim_node *n)
{
    return n->up && n->paused_until_us <= n->sim->now_us && n->stuck_until_us <= n->sim->now_us;
}

static void fault_stop(struct sim *s, struct sim_node *n)
{
    (void)s;
    if (is_responsive(n)) {
        sim_node_stop(n);
    }
}

static void fault_pause(struct sim *s, struct sim_node *n)
{
    if (!n->up) {
        return;
    }
    uint64_t pause_us = sim_one_in(s, 3) ? sim_below(s, 3000000) : sim_below(s, 300000);
    n->paused_until_us = s->now_us + pause_us;
    fire(s, SIM_FAULT_PAUSE);
    sim_trace(s, "node %u: frozen for %llu us", n->index + 1, (unsigned long long)pause_us);
}

static void fault_disk_death(struct sim *s, struct sim_node *n)
{
    if (n->up) {
        sim_disk_arm(n->disk, 1 + (unsigned)sim_below(s, 30));
    }
}

static void fault_no_space(struct sim *s, struct sim_node *n)
{
    sim_trace(s, "node %u: its disk is full", n->index + 1);
    sim_disk_set_full(n->disk, true);
    heal_later(s);
}

static void fault_write_error(struct sim *s, struct sim_node *n)
{
    if (!sim_disk_is_hurt(n->disk)) {
        sim_disk_trap(n->disk, SIM_FAULT_WRITE_ERROR, 1 + (unsigned)sim_below(s, 10));
    }
}

static void fault_sync_error(struct sim *s, struct sim_node *n)
{
    if (!sim_disk_is_hurt(n->disk)) {
        sim_disk_trap(n->disk, SIM_FAULT_SYNC_ERROR, 1 + (unsigned)sim_below(s, 3));
        if (n->up && coin(s)) {
            die_within(n, 1000000); /* one of recovery, then */
        }
    }
}

/* A log reads when it is recovered, and then only. */
static void fault_read_error(struct sim *s, struct sim_node *n)
{
    if (!sim_disk_is_hurt(n->disk)) {
        sim_disk_trap(n->disk, SIM_FAULT_READ_ERROR, 1 + (unsigned)sim_below(s, 2));
        if (n->up) {
            die_within(n, 1000000);
        }
    }
}

static void fault_slow_disk(struct sim *s, struct sim_node *n)
{
    n->slow_until_us = s->now_us + sim_below(s, 2000000);
    fire(s, SIM_FAULT_SLOW_DISK);
}

static void fault_stuck_disk(struct sim *s, struct sim_node *n)
{
    if (n->stuck_until_us > s->now_us) {
        return;
    }
    uint64_t deadline_us = s->swarm.log_deadline_ms * 1000;
    uint64_t stuck_us = coin(s) ? sim_below(s, deadline_us / 2)
                                : deadline_us / 2 + sim_below(s, deadline_us);
    sim_trace(s, "node %u: its disk is stuck for %llu us", n->index + 1, (unsigned long long)stuck_us);
    n->stuck_since_us = s->now_us;
    n->stuck_until_us = s->now_us + stuck_us;
    fire(s, SIM_FAULT_STUCK_DISK);
}

/* At rest: of a process that was killed, or stopped, or that runs on and is killed later. */
static void damage(struct sim *s, struct sim_node *n, enum sim_fault fault)
{
    if (!may_hurt(s, n)) {
        return;
    }
    uint64_t how = sim_below(s, 3);
    if (how == 0) {
        sim_node_crash(n);
    } else if (how == 1 && is_responsive(n)) {
        sim_node_stop(n);
    }
    bool damaged = sim_disk_damage(n->disk, fault);
    sim_trace(s, "node %u: %s: %d", n->index + 1, sim_fault_name(fault), damaged);
    if (n->up) {
        die_within(n, 2000000);
    }
}

static void fault_rot(struct sim *s, struct sim_node *n)
{
    damage(s, n, SIM_FAULT_ROT);
}

static void fault_bad_sector(struct sim *s, struct sim_node *n)
{
    damage(s, n, SIM_FAULT_BAD_SECTOR);
}

/* The write that is hit is the last one before a crash, or a later restart finds it. */
static void spoil_write(struct sim *s, struct sim_node *n, enum sim_fault fault)
{
    if (!may_hurt(s, n) || !n->up) {
        return;
    }
    bool last = coin(s);
    sim_disk_trap(n->disk, fault, 1 + (last ? 0 : (unsigned)sim_below(s, 20)));
    sim_trace(s, "node %u: %s", n->index + 1, sim_fault_name(fault));
    die_within(n, last ? 20000 : 2000000);
}

static void fault_misdirect(struct sim *s, struct sim_node *n)
{
    spoil_write(s, n, SIM_FAULT_MISDIRECT);
}

static void fault_lost_write(struct sim *s, struct sim_node *n)
{
    spoil_write(s, n, SIM_FAULT_LOST_WRITE);
}

/* Sometimes for good: the node is not started again. */
static void fault_disk_loss(struct sim *s, struct sim_node *n)
{
    if (may_hurt(s, n)) {
        sim_node_lose_disk(n);
        n->gone = s->swarm.membership && sim_one_in(s, 3);
        fire(s, SIM_FAULT_DISK_LOSS);
    }
}

static void fault_isolate(struct sim *s, struct sim_node *n)
{
    isolate(s, n->index);
    fire(s, SIM_FAULT_ISOLATE);
}

static void fault_partition(struct sim *s, struct sim_node *n)
{
    (void)n;
    sim_trace(s, "partition");
    uint64_t side = prng_next(&s->prng);
    for (unsigned a = 0; a < s->swarm.nodes; a++) {
        for (unsigned b = a + 1; b < s->swarm.nodes; b++) {
            if (((side >> a) & 1) != ((side >> b) & 1)) {
                cut_both(s, a, b);
            }
        }
    }
    fire(s, SIM_FAULT_PARTITION);
    heal_later(s);
}

static void fault_one_way(struct sim *s, struct sim_node *n)
{
    s->cut[n->index][sim_below(s, s->swarm.nodes)] = true;
    fire(s, SIM_FAULT_ONE_WAY);
    heal_later(s);
}

static void fault_break(struct sim *s, struct sim_node *n)
{
    unsigned other = (unsigned)sim_below(s, s->swarm.nodes);
    if (other != n->index) {
        sim_network_break(s, n->index, other);
        fire(s, SIM_FAULT_BREAK);
    }
}

/* After a virtual machine was moved, or a debugger let go. */
static void fault_clock_leap(struct sim *s, struct sim_node *n)
{
    uint64_t leap_ms = sim_below(s, 3000);
    sim_trace(s, "node %u: its clock leaps by %llu ms", n->index + 1, (unsigned long long)leap_ms);
    n->clock_base_ms += leap_ms;
    fire(s, SIM_FAULT_CLOCK_LEAP);
}

static void fault_transfer(struct sim *s, struct sim_node *n)
{
    (void)n;
    struct sim_node *leader = sim_leader(s);
    if (leader == NULL) {
        return;
    }
    uint64_t to = sim_below(s, s->swarm.nodes + 1);
    if (driver_transfer(leader->driver, sim_node_now_ms(leader), to) == REPLICA_OK) {
        s->stats.transfers++;
        fire(s, SIM_FAULT_TRANSFER);
    }
    sim_node_after(leader);
}

static void fault_membership(struct sim *s, struct sim_node *n)
{
    (void)n;
    sim_faults_membership(s, (unsigned)sim_below(s, s->swarm.nodes));
}

/* ---- names, and choice ---- */

/* of_12: of so many seeds in twelve. inject NULL: it happens by itself wherever it is switched on. */
static const struct {
    const char *name;
    unsigned of_12;
    void (*inject)(struct sim *s, struct sim_node *n);
    bool damages;
} kinds[SIM_FAULTS] = {
    [SIM_FAULT_CRASH] = {"crash", 9, fault_crash},
    [SIM_FAULT_POWER] = {"power", 9, fault_power},
    [SIM_FAULT_STOP] = {"stop", 6, fault_stop},
    [SIM_FAULT_PAUSE] = {"pause", 6, fault_pause},
    [SIM_FAULT_DISK_DEATH] = {"disk-death", 6, fault_disk_death},
    [SIM_FAULT_TORN] = {"torn", 6, NULL},
    [SIM_FAULT_NO_SPACE] = {"no-space", 6, fault_no_space},
    [SIM_FAULT_WRITE_ERROR] = {"write-error", 6, fault_write_error},
    [SIM_FAULT_SYNC_ERROR] = {"sync-error", 6, fault_sync_error},
    [SIM_FAULT_READ_ERROR] = {"read-error", 6, fault_read_error},
    [SIM_FAULT_SLOW_DISK] = {"slow-disk", 6, fault_slow_disk},
    [SIM_FAULT_STUCK_DISK] = {"stuck-disk", 4, fault_stuck_disk},
    [SIM_FAULT_ROT] = {"rot", 4, fault_rot, .damages = true},
    [SIM_FAULT_MISDIRECT] = {"misdirect", 4, fault_misdirect, .damages = true},
    [SIM_FAULT_LOST_WRITE] = {"lost-write", 4, fault_lost_write, .damages = true},
    [SIM_FAULT_BAD_SECTOR] = {"bad-sector", 4, fault_bad_sector, .damages = true},
    [SIM_FAULT_DISK_LOSS] = {"disk-loss", 4, fault_disk_loss, .damages = true},
    [SIM_FAULT_ISOLATE] = {"isolate", 6, fault_isolate},
    [SIM_FAULT_PARTITION] = {"partition", 6, fault_partition},
    [SIM_FAULT_ONE_WAY] = {"one-way", 6, fault_one_way},
    [SIM_FAULT_LOSS] = {"loss", 6, NULL},
    [SIM_FAULT_BREAK] = {"break", 6, fault_break},
    [SIM_FAULT_LATE] = {"late", 6, NULL},
    [SIM_FAULT_CLOCK_RATE] = {"clock-rate", 6, NULL},
    [SIM_FAULT_CLOCK_LEAP] = {"clock-leap", 6, fault_clock_leap},
    [SIM_FAULT_CLOCK_JUMP] = {"clock-jump", 12, NULL},
    [SIM_FAULT_INSTALL] = {"install", 6, NULL},
    [SIM_FAULT_TRANSFER] = {"transfer", 6, fault_transfer},
    [SIM_FAULT_MEMBERSHIP] = {"membership", 12, fault_membership},
};

const char *sim_fault_name(enum sim_fault fault)
{
    return kinds[fault].name;
}

bool sim_fault_parse(const char *names, uint64_t *set)
{
    *set = 0;
    if (strcmp(names, "none") == 0) {
        return true;
    }
    for (const char *at = names; *at != '\0';) {
        size_t size = strcspn(at, ",");
        unsigned fault = 0;
        while (fault < SIM_FAULTS && (strlen(kinds[fault].name) != size ||
                                      memcmp(kinds[fault].name, at, size) != 0)) {
            fault++;
        }
        if (fault == SIM_FAULTS) {
            return false;
        }
        *set |= 1ull << fault;
        at += size + (at[size] == ',');
    }
    return true;
}

/* ---- what a seed does ---- */

static bool wanted(struct sim *s, unsigned fault)
{
    bool possible = (!kinds[fault].damages || s->swarm.voters > 2) &&
                    (fault != SIM_FAULT_MEMBERSHIP || s->swarm.membership);
    return sim_below(s, 12) < kinds[fault].of_12 && possible;
}

void sim_swarm_choose(struct sim *s)
{
    struct sim_swarm *w = &s->swarm;
    w->nodes = (unsigned)ONE_OF(s, 3, 3, 3, 4, 5, 5);
    bool changes = coin(s);
    w->membership = w->nodes > 3 && changes && (s->options.faults >> SIM_FAULT_MEMBERSHIP & 1) != 0;
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
    w->faults = 0;
    for (unsigned fault = 0; fault < SIM_FAULTS; fault++) {
        w->faults |= (uint64_t)wanted(s, fault) << fault;
    }
    w->faults &= s->options.faults;
    w->checkpoints = !sim_one_in(s, 4);
    w->reads = !sim_one_in(s, 4);
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
    w->log_deadline_ms = ONE_OF(s, 1000, 3000, 10000);
}

void sim_faults_event(struct sim *s)
{
    const struct sim_swarm *w = &s->swarm;
    if (s->healing) {
        return;
    }
    sim_push(s, sim_around(s, w->fault_interval_us), SIM_FAULT, NULL, 0, 0, NULL, 0);
    unsigned target = (unsigned)sim_below(s, w->nodes);
    struct sim_node *leader = sim_leader(s);
    if (leader != NULL && sim_one_in(s, 3)) {
        target = leader->index; /* it hurts most there */
    }
    unsigned chosen = SIM_FAULTS, count = 0;
    for (unsigned fault = 0; fault < SIM_FAULTS; fault++) {
        if (kinds[fault].inject != NULL && sim_fault_on(s, (enum sim_fault)fault) &&
            sim_one_in(s, ++count)) {
            chosen = fault;
        }
    }
    if (chosen < SIM_FAULTS) {
        kinds[chosen].inject(s, &s->nodes[target]);
    }
}

void sim_faults_heal(struct sim *s)
{
    memset(s->cut, 0, sizeof s->cut);
    for (unsigned i = 0; i < s->swarm.nodes; i++) {
        struct sim_node *n = &s->nodes[i];
        n->slow_until_us = 0;
        sim_disk_set_full(n->disk, false);
        if (s->healing) {
            sim_disk_arm(n->disk, 0);
            sim_disk_disarm(n->disk);
            sim_node_unstick(n);
            n->gone = n->gone && !n->refilling; /* lost for good, but not replaced */
            if (!n->up) {
                sim_push(s, 1000, SIM_RESTART, n, 0, 0, NULL, 0);
            }
        }
    }
}
