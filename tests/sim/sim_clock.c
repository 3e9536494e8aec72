/* sim_clock: each node's clocks, and the cluster's time that the real server/clock makes of them.
 * Only with a machine that has time.
 *
 * The truth is the simulator's time. Honest clocks differ from it a little; some node, never so
 * many that no majority of the voters is honest, has clocks that are not: the wall clock jumps by
 * up to an hour, the monotonic clock runs up to some percent wrong, or both. Now and then all wall
 * clocks step together, which must move nothing.
 *
 * What must hold (sim_clock_stamp): what leaders stamp keeps its distance from the truth within
 * SIM_CLOCK_BOUND_MS for as long as somebody remembers the cluster's time. To that comes what a
 * wrong monotonic clock gains while its node has no honest majority to ask: nobody could notice.
 * When nobody remembers, after a restart of all, the anchor must be where honest wall clocks are,
 * or the last replicated time.
 *
 * Chance comes from a generator of its own, so that clocks change nothing else in a seed. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "raft/driver_internal.h"
#include "tests/sim/sim.h"

#define EPOCH_MS       1700000000000 /* the true wall clock at the simulator's time 0 */
#define TICK_US        100000
#define PING_TICKS     5
#define HAND_OVER_US   5000000
#define MEASURE_US     4000000  /* how long a majority must be there to notice */
#define FORGET_US      15000000 /* how long liars that were a majority are remembered */
#define RATE_MAX_PPM   20000
#define HOUR_MS        3600000
#define HONEST_PPM     30
#define HONEST_WALL_MS 80

static uint64_t chance(struct sim *s, uint64_t bound)
{
    return prng_below(&s->clock_prng, bound);
}

static int64_t around_zero(struct sim *s, int64_t most)
{
    return (int64_t)chance(s, 2 * (uint64_t)most + 1) - most;
}

/* ---- a node's two clocks ---- */

static uint64_t mono_ns(const struct sim_node *n)
{
    int64_t elapsed_us = (int64_t)(n->sim->now_us - n->clocks.since_us);
    return n->clocks.mono_ns +
           (uint64_t)(elapsed_us * 1000 + elapsed_us * n->clocks.rate_ppm / 1000);
}

static int64_t wall_ms(const struct sim_node *n)
{
    return EPOCH_MS + (int64_t)(n->sim->now_us / 1000) + n->clocks.wall_off_ms;
}

static void set_rate(struct sim_node *n, int64_t ppm)
{
    n->clocks.mono_ns = mono_ns(n);
    n->clocks.since_us = n->sim->now_us;
    n->clocks.rate_ppm = ppm;
}

/* How many may be wrong: with changing membership any three may be the voters. */
static unsigned wrong_max(const struct sim *s)
{
    return s->swarm.membership || s->swarm.voters == 4 ? 1 : (s->swarm.voters - 1) / 2;
}

void sim_clock_init(struct sim *s)
{
    s->clock_prng = prng_init(s->options.seed ^ 0xC10C);
    s->clocks = s->options.machine->time_ms != NULL;
    s->clock_faults = chance(s, 4) != 0 && s->clocks && sim_fault_on(s, SIM_FAULT_CLOCK_JUMP);
    uint64_t first = chance(s, s->swarm.voters);
    for (unsigned i = 0; i < s->swarm.nodes; i++) {
        struct sim_node *n = &s->nodes[i];
        unsigned distance = (unsigned)((i + s->swarm.voters - first) % s->swarm.voters);
        n->clocks.wrong = s->clock_faults && i < s->swarm.voters && distance < wrong_max(s);
        n->clocks.mono_ns = (1 + chance(s, 1000000)) * 1000000000;
        n->clocks.since_us = s->now_us;
        n->clocks.rate_ppm = around_zero(s, HONEST_PPM);
        n->clocks.wall_off_ms = around_zero(s, HONEST_WALL_MS);
    }
    if (s->clock_faults) {
        sim_push(s, 100000, SIM_CLOCK_FAULT, NULL, 0, 0, NULL, 0);
    }
}

void sim_clock_fault(struct sim *s)
{
    static const int64_t rates[] = {0, 1000, -1000, 10000, -10000, RATE_MAX_PPM, -RATE_MAX_PPM};
    if (s->healing) {
        return;
    }
    sim_push(s, 200000 + chance(s, 6000000), SIM_CLOCK_FAULT, NULL, 0, 0, NULL, 0);
    if (chance(s, 8) == 0) {
        int64_t step_ms = around_zero(s, HOUR_MS);
        sim_trace(s, "all wall clocks step by %lld ms", (long long)step_ms);
        s->clock_step_ms += step_ms;
        for (unsigned i = 0; i < s->swarm.nodes; i++) {
            s->nodes[i].clocks.wall_off_ms += step_ms;
        }
        s->stats.clock_steps++;
        s->stats.fired[SIM_FAULT_CLOCK_JUMP]++;
        return;
    }
    for (unsigned i = 0; i < s->swarm.nodes; i++) {
        struct sim_node *n = &s->nodes[i];
        if (!n->clocks.wrong || chance(s, 2) == 0) {
            continue;
        }
        if (chance(s, 2) == 0) {
            static const int64_t jumps[] = {0, HOUR_MS, -HOUR_MS, 700, -700, 10000};
            n->clocks.wall_off_ms =
                s->clock_step_ms + jumps[chance(s, sizeof jumps / sizeof jumps[0])];
        } else {
            set_rate(n, rates[chance(s, sizeof rates / sizeof rates[0])]);
        }
        sim_trace(s, "node %u: wall clock off by %lld ms, monotonic clock by %lld ppm", i + 1,
                  (long long)(n->clocks.wall_off_ms - s->clock_step_ms),
                  (long long)n->clocks.rate_ppm);
        s->stats.clock_faults++;
        s->stats.fired[SIM_FAULT_CLOCK_JUMP]++;
    }
}

/* ---- the cluster's clock in a node: what server/node.c and clock_watch.c do ---- */

static void set_voters(struct sim_node *n)
{
    struct membership m;
    uint64_t ids[CLOCK_PEERS_MAX];
    size_t count = 0;
    bool votes = false;
    driver_get_membership(n->driver, &m);
    for (size_t i = 0; i < m.count; i++) {
        if (m.members[i].role == REPLICA_VOTER && m.members[i].id == n->id) {
            votes = true;
        } else if (m.members[i].role == REPLICA_VOTER) {
            ids[count++] = m.members[i].id;
        }
    }
    clock_peers_set(&n->clock.peers, ids, count, votes);
}

void sim_clock_start(struct sim_node *n)
{
    if (!n->sim->clocks) {
        return;
    }
    n->clocks.ticks = 0;
    n->clocks.heard_us = 0;
    n->clocks.honest_us = FORGET_US; /* it remembers nothing */
    n->clocks.looked_us = n->sim->now_us;
    n->clocks.handed_over_us = 0;
    sim_push(n->sim, 1, SIM_CLOCK, n, 0, 0, NULL, 0);
}

/* Before the log is replayed. */
void sim_clock_loaded(struct sim_node *n, bool restarted)
{
    if (!n->sim->clocks) {
        return;
    }
    if (restarted) {
        cluster_clock_init(&n->clock);
        n->role_seen = (struct driver_state){.role = REPLICA_FOLLOWER};
    }
    cluster_clock_heard(&n->clock, n->sim->options.machine->time_ms(n->machine), false, mono_ns(n));
}

static void note_anchor(struct sim_node *n)
{
    struct sim *s = n->sim;
    int64_t error_ms =
        cluster_clock_now_ms(&n->clock, mono_ns(n)) - EPOCH_MS - (int64_t)(s->now_us / 1000);
    sim_trace(s, "node %u: time from anchor %d, %lld ms off", n->index + 1, (int)n->clock.anchor,
              (long long)error_ms);
    if (n->clock.anchor == CLOCK_ANCHOR_TOLD || n->clock.anchor == CLOCK_ANCHOR_OTHERS) {
        s->stats.clock_goes_on++;
        return;
    }
    if (n->clock.anchor == CLOCK_ANCHOR_FLOOR) {
        s->stats.clock_floors++;
        if (error_ms >
            s->clock_floor_ms + SIM_CLOCK_BOUND_MS + (int64_t)(s->clock_exposed_ns / 1000000)) {
            sim_violation(s, "node %u goes on %lld ms too early from what it heard", n->index + 1,
                          (long long)(error_ms - s->clock_floor_ms));
        }
        s->clock_base_known = false;
        return;
    }
    s->stats.clock_anchors++;
    s->stats.clock_alone += n->clock.anchor == CLOCK_ANCHOR_ALONE;
    int64_t off_ms = error_ms - s->clock_step_ms;
    bool floor = error_ms <= s->clock_floor_ms + SIM_CLOCK_BOUND_MS;
    if (n->clock.anchor == CLOCK_ANCHOR_AGREED && n->clocks.honest_us > 0 && s->clock_stamped &&
        !floor &&
        (off_ms > HONEST_WALL_MS + CLOCK_TOLERANCE_MS ||
         off_ms < -HONEST_WALL_MS - CLOCK_TOLERANCE_MS)) {
        sim_violation(s, "node %u begins the cluster's time %lld ms from where honest clocks are",
                      n->index + 1, (long long)off_ms);
    }
    s->clock_base_known = false; /* the next stamp says where time is now */
}

static void became_leader(struct sim_node *n)
{
    enum clock_anchor before = n->clock.anchor;
    set_voters(n);
    cluster_clock_lead(&n->clock, n->sim->options.machine->time_ms(n->machine), mono_ns(n),
                       wall_ms(n));
    CHECK(before == CLOCK_ANCHOR_NONE);
    if (n->clock.anchor != before) {
        note_anchor(n);
    }
}

void sim_clock_state(struct sim_node *n, const struct driver_state *state)
{
    if (!n->sim->clocks) {
        return;
    }
    bool led = n->role_seen.role == REPLICA_LEADER && n->role_seen.ready;
    bool leads = state->role == REPLICA_LEADER && state->ready;
    bool same = led && leads && state->term == n->role_seen.term;
    n->role_seen = *state;
    if (led && !same) {
        cluster_clock_follow(&n->clock);
    }
    if (leads && !same) {
        became_leader(n);
    }
}

void sim_clock_applied(struct sim_node *n, const struct record_header *record)
{
    if (n->sim->clocks) {
        bool fresh = record->term == n->role_seen.term && n->role_seen.role != REPLICA_LEADER &&
                     n->role_seen.leader_id != 0;
        int64_t time_ms = n->sim->options.machine->batch_time_ms(record_data(record), record->size);
        cluster_clock_heard(&n->clock, time_ms, fresh, mono_ns(n));
    }
}

static uint64_t find_successor(const struct sim_node *n)
{
    uint64_t best = 0, best_match = 0;
    for (unsigned i = 0; i < n->sim->swarm.nodes; i++) {
        const struct sim_node *other = &n->sim->nodes[i];
        uint64_t match = other == n ? 0 : driver_match_index(n->driver, other->id);
        if (match > best_match && clock_peers_good(&n->clock.peers, other->id)) {
            best = other->id;
            best_match = match;
        }
    }
    return best;
}

static bool leads(const struct sim_node *n)
{
    return n->role_seen.role == REPLICA_LEADER && n->role_seen.ready;
}

static void hand_over(struct sim_node *n)
{
    struct sim *s = n->sim;
    if (!leads(n) || !clock_peers_disagrees(&n->clock.peers) ||
        (n->clocks.handed_over_us != 0 && s->now_us - n->clocks.handed_over_us < HAND_OVER_US)) {
        return;
    }
    uint64_t to = find_successor(n);
    if (to != 0 && driver_transfer(n->driver, sim_node_now_ms(n), to) == REPLICA_OK) {
        sim_trace(s, "node %u: hands over to %llu: its clocks are wrong", n->index + 1,
                  (unsigned long long)to);
        n->clocks.handed_over_us = s->now_us;
        s->stats.clock_hand_overs++;
    }
}

void sim_clock_ask(struct sim_node *n, uint64_t id)
{
    if (!n->sim->clocks || n->sim->options.clocks_deaf) {
        return;
    }
    struct message_out ping = {.kind = MESSAGE_PING, .seq = ++n->clocks.ping_seq};
    n->clocks.asked_seq[id - 1] = ping.seq;
    n->clocks.asked_ns[id - 1] = mono_ns(n);
    sim_network_send_from(n, id, &ping, &n->sim->clock_prng);
}

static bool hears(const struct sim_node *n, const struct sim_node *other)
{
    const struct sim *s = n->sim;
    unsigned k = other->index;
    return other->up && sim_network_connected(s, k, n->index) && !s->cut[k][n->index] && !s->cut[n->index][k] &&
           other->paused_until_us <= s->now_us;
}

/* For how long a majority of the voters it knows of is honest, and answers it. */
static void look_for_honest_majority(struct sim_node *n, uint64_t since_us)
{
    const struct clock_peers *p = &n->clock.peers;
    size_t honest = p->votes && !n->clocks.wrong;
    size_t heard = honest;
    for (size_t i = 0; i < p->count; i++) {
        const struct sim_node *other = &n->sim->nodes[p->peers[i].id - 1];
        honest += !other->clocks.wrong;
        heard += !other->clocks.wrong && hears(n, other);
    }
    size_t needed = clock_peers_needed(p);
    n->clocks.honest_us = needed > 0 && honest >= needed ? n->clocks.honest_us + since_us : 0;
    n->clocks.heard_us = needed > 0 && heard >= needed ? n->clocks.heard_us + since_us : 0;
}

static void count_exposure(struct sim_node *n)
{
    struct sim *s = n->sim;
    uint64_t since_us = s->now_us - n->clocks.looked_us;
    n->clocks.looked_us = s->now_us;
    look_for_honest_majority(n, since_us);
    int64_t rate = n->clocks.wrong ? n->clocks.rate_ppm : 0;
    if (n->clocks.honest_us < FORGET_US) {
        rate = RATE_MAX_PPM; /* it may believe any of the liars */
    }
    if (n->clocks.heard_us < MEASURE_US) {
        s->clock_exposed_ns += since_us * (uint64_t)(rate < 0 ? -rate : rate) / 1000;
    }
}

void sim_clock_tick(struct sim_node *n)
{
    struct sim *s = n->sim;
    count_exposure(n);
    sim_push(s, TICK_US, SIM_CLOCK, n, 0, 0, NULL, 0);
    set_voters(n);
    look_for_honest_majority(n, 0); /* the voters may be others now: perhaps this node alone */
    enum clock_anchor before = n->clock.anchor;
    cluster_clock_tick(&n->clock, mono_ns(n), wall_ms(n));
    if (n->clock.anchor != before) {
        note_anchor(n);
    }
    if (!n->clocks.wrong && n->clocks.honest_us >= FORGET_US &&
        clock_peers_suspect(&n->clock.peers)) {
        sim_violation(s, "node %u doubts its clocks, and they are honest", n->index + 1);
    }
    for (unsigned i = 0; n->clocks.ticks % PING_TICKS == 0 && i < s->swarm.nodes; i++) {
        sim_clock_ask(n, s->nodes[i].id);
    }
    n->clocks.ticks++;
    hand_over(n);
}

static void answer(struct sim_node *n, uint64_t to_id, const struct message *m)
{
    struct message_out pong = {.kind = MESSAGE_PONG, .seq = m->seq, .term = n->role_seen.term};
    pong.clock.monotonic_ns = mono_ns(n);
    pong.clock.wall_ms = (uint64_t)wall_ms(n);
    pong.clock.cluster_ns = (uint64_t)cluster_clock_known_ns(&n->clock, mono_ns(n));
    pong.clock.leads = cluster_clock_ready(&n->clock);
    pong.clock.suspect = clock_peers_suspect(&n->clock.peers);
    sim_network_send_from(n, to_id, &pong, &n->sim->clock_prng);
}

bool sim_clock_message(struct sim_node *n, uint64_t from_id, const struct message *m)
{
    if (m->kind == MESSAGE_PING) {
        answer(n, from_id, m);
        return true;
    }
    if (m->kind != MESSAGE_PONG) {
        return false;
    }
    if (m->seq == n->clocks.asked_seq[from_id - 1] && m->clock.monotonic_ns != 0) {
        const struct clock_sample sample = {
            .sent_ns = n->clocks.asked_ns[from_id - 1],
            .received_ns = mono_ns(n),
            .peer_ns = m->clock.monotonic_ns,
            .peer_wall_ms = (int64_t)m->clock.wall_ms,
            .peer_cluster_ns = (int64_t)m->clock.cluster_ns,
            .peer_suspect = m->clock.suspect,
        };
        bool from_leader =
            m->clock.leads && from_id == n->role_seen.leader_id && m->term == n->role_seen.term;
        cluster_clock_sample(&n->clock, from_id, from_leader, &sample);
    }
    return true;
}

/* ---- what must hold ---- */

bool sim_clock_can_stamp(const struct sim_node *n)
{
    return !n->sim->clocks || !leads(n) || cluster_clock_ready(&n->clock);
}

/* How far time has moved from where it was at an anchor: at any of the last, because a node that
 * was away while the others began anew may remember what was before, and lead next. */
static uint64_t moved_ms(const struct sim *s, int64_t error_ms)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < s->clock_bases && i < SIM_CLOCK_BASES; i++) {
        int64_t moved = error_ms - s->clock_bases_ms[i];
        uint64_t absolute = (uint64_t)(moved < 0 ? -moved : moved);
        least = absolute < least ? absolute : least;
    }
    return least;
}

int64_t sim_clock_stamp(struct sim_node *n)
{
    struct sim *s = n->sim;
    if (!s->clocks || !cluster_clock_ready(&n->clock)) {
        return wall_ms(n); /* nobody will take it */
    }
    int64_t time_ms = cluster_clock_now_ms(&n->clock, mono_ns(n));
    int64_t error_ms = time_ms - EPOCH_MS - (int64_t)(s->now_us / 1000);
    if (!s->clock_base_known) {
        s->clock_base_known = s->clock_stamped = true;
        s->clock_bases_ms[s->clock_bases++ % SIM_CLOCK_BASES] = error_ms;
    }
    if (error_ms > s->clock_floor_ms || s->clock_floor_ms == 0) {
        s->clock_floor_ms = error_ms;
    }
    uint64_t absolute = moved_ms(s, error_ms);
    if (s->clock_exposed_ns == 0 && absolute > s->stats.clock_worst_ms) {
        s->stats.clock_worst_ms = absolute;
    }
    if (absolute > SIM_CLOCK_BOUND_MS + s->clock_exposed_ns / 1000000) {
        sim_violation(s, "node %u stamps a time that is %lld ms off, %llu ms from where it began",
                      n->index + 1, (long long)error_ms, (unsigned long long)absolute);
    }
    return time_ms;
}

/* A node that knows its clocks to be wrong leads only while nobody else can. */
bool sim_clock_at_rest(const struct sim_node *leader)
{
    return !leader->sim->clocks || !clock_peers_disagrees(&leader->clock.peers) ||
           find_successor(leader) == 0;
}
