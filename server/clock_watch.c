/* clock_watch: see clock_watch.h. */
#include "server/clock_watch.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "server/node_internal.h"

_Static_assert(CLOCK_SOURCES_MAX == REPLICA_MEMBERS_MAX, "every voter is a source");

void clock_watch_read(void *ctx, struct replica_clock *clock)
{
    struct node *n = ctx;
    uint64_t now_ns = clock_monotonic_ns();
    int64_t wall_ms = clock_wall_ms();
    *clock = (struct replica_clock){
        .monotonic_ns = now_ns,
        .wall_ms = wall_ms > 0 ? (uint64_t)wall_ms : 0,
        .cluster_ns = (uint64_t)cluster_clock_known_ns(&n->clock, now_ns),
        .term = n->term,
        .leads = cluster_clock_ready(&n->clock),
        .suspect = clock_peers_suspect(&n->clock.peers),
    };
}

void clock_watch_sample(void *ctx, uint64_t from_id, const struct replica_clock *clock,
                        uint64_t sent_ns, uint64_t received_ns)
{
    struct node *n = ctx;
    bool from_leader = clock->leads && from_id == n->leader_id && clock->term == n->term;
    const struct clock_sample sample = {
        .sent_ns = sent_ns,
        .received_ns = received_ns,
        .peer_ns = clock->monotonic_ns,
        .peer_wall_ms = (int64_t)clock->wall_ms,
        .peer_cluster_ns = (int64_t)clock->cluster_ns,
        .peer_suspect = clock->suspect,
    };
    cluster_clock_sample(&n->clock, from_id, from_leader, &sample);
}

static void look_up_members(struct node *n)
{
    struct replica_info info;
    uint64_t ids[CLOCK_PEERS_MAX];
    size_t count = 0;
    bool votes = false;
    replica_get_info(n->replica, &info);
    for (size_t i = 0; i < info.peers_count; i++) {
        const struct replica_member *m = &info.peers[i].member;
        if (m->role == REPLICA_VOTER && m->id == info.id) {
            votes = true;
        } else if (m->role == REPLICA_VOTER && count < CLOCK_PEERS_MAX) {
            ids[count++] = m->id;
        }
    }
    clock_peers_set(&n->clock.peers, ids, count, votes);
}

/* ---- warnings ---- */

/* True when it is time to say it, for the first time or again. */
static bool say_now(uint64_t *said_ms, uint64_t now_ms)
{
    if (*said_ms != 0 && now_ms - *said_ms < CLOCK_WATCH_WARN_MS) {
        return false;
    }
    *said_ms = now_ms;
    return true;
}

static void warn_suspect(struct node *n, uint64_t now_ms)
{
    const struct clock_peers *p = &n->clock.peers;
    struct clock_watch *w = &n->clock_watch;
    if (!clock_peers_suspect(p)) {
        if (w->warned_suspect_ms != 0) {
            log_info("clock: this node's clocks agree with the majority again");
            w->warned_suspect_ms = 0;
        }
        return;
    }
    int64_t offset_ms;
    if (!say_now(&w->warned_suspect_ms, now_ms)) {
        return;
    }
    if (p->wall_doubt.suspect && clock_peers_offset_ms(p, &offset_ms)) {
        log_warn("clock: this node's wall clock is off by %+lld ms from where %zu of %zu voters "
                 "agree: it does not lead while another voter can; check the time service of this "
                 "host",
                 (long long)offset_ms, p->wall.count, p->count + p->votes);
    }
    if (p->pace_doubt.suspect) {
        log_warn(
            "clock: this node's monotonic clock runs %+lld ppm against the majority's: it does "
            "not lead while another voter can; check the time service and the clock source of "
            "this host",
            (long long)(-p->pace_ppb / 1000));
    }
}

static void warn_split(struct node *n, uint64_t now_ms)
{
    const struct clock_peers *p = &n->clock.peers;
    struct clock_watch *w = &n->clock_watch;
    size_t needed = clock_peers_needed(p);
    if (p->wall.found || needed == 0 || p->sources < needed) {
        w->split_since_ms = 0;
        return;
    }
    if (w->split_since_ms == 0) {
        w->split_since_ms = now_ms;
    }
    if (now_ms - w->split_since_ms >= CLOCK_SUSPECT_AFTER_MS &&
        say_now(&w->warned_split_ms, now_ms)) {
        log_warn("clock: %zu voters tell their wall clocks and no majority of %zu is within %d ms: "
                 "the cluster's time goes on by monotonic clocks alone; check the time services",
                 p->sources, p->count + p->votes, 2 * CLOCK_TOLERANCE_MS);
    }
}

static void warn_apart(struct node *n, uint64_t now_ms)
{
    int64_t ms = n->clock.wall_difference_ms;
    if (n->clock.leading && (ms > CLOCK_WATCH_APART_MS || ms < -CLOCK_WATCH_APART_MS) &&
        say_now(&n->clock_watch.warned_apart_ms, now_ms)) {
        log_warn("clock: the cluster's time is %lld ms %s the wall clocks of the majority and is "
                 "moved towards them by %d ppm: sales open and close by the cluster's time",
                 (long long)(ms > 0 ? ms : -ms), ms > 0 ? "behind" : "ahead of", CLOCK_SLEW_PPM);
    }
}

/* ---- handing over ---- */

/* The voter with good clocks that has the most of the log; 0: none is there. */
static uint64_t find_successor(const struct node *n)
{
    struct replica_info info;
    uint64_t best = 0, best_match = 0;
    replica_get_info(n->replica, &info);
    for (size_t i = 0; i < info.peers_count; i++) {
        const struct replica_peer_info *p = &info.peers[i];
        bool can = p->member.id != info.id && p->member.role == REPLICA_VOTER && p->connected &&
                   !p->unwilling && clock_peers_good(&n->clock.peers, p->member.id);
        if (can && p->match_index > best_match) {
            best = p->member.id;
            best_match = p->match_index;
        }
    }
    return best;
}

static void hand_over(struct node *n, uint64_t now_ms)
{
    struct clock_watch *w = &n->clock_watch;
    bool leads = n->role == REPLICA_LEADER && n->ready && !n->draining && !n->drained;
    if (!leads || !clock_peers_disagrees(&n->clock.peers) ||
        (w->hand_over_ms != 0 && now_ms - w->hand_over_ms < CLOCK_WATCH_HAND_OVER_MS)) {
        return;
    }
    uint64_t to_id = find_successor(n);
    if (to_id != 0 && node_hand_over(n, to_id) == REPLICA_OK) {
        w->hand_over_ms = now_ms;
        w->hand_overs_total++;
        log_warn("clock: this node disagrees with the majority's clocks: leadership goes to node "
                 "%llu",
                 (unsigned long long)to_id);
    }
}

void clock_watch_tick(struct node *n, uint64_t now_ms)
{
    struct clock_watch *w = &n->clock_watch;
    if (w->members_ms == 0 || now_ms - w->members_ms >= CLOCK_WATCH_MEMBERS_MS) {
        w->members_ms = now_ms;
        look_up_members(n);
    }
    enum clock_anchor before = n->clock.anchor;
    cluster_clock_tick(&n->clock, clock_monotonic_ns(), clock_wall_ms());
    if (n->clock.anchor != before) {
        clock_watch_anchored(n);
    }
    bool suspect = clock_peers_suspect(&n->clock.peers);
    if (suspect != w->suspect) {
        w->suspect = suspect;
        node_note_willing(n);
    }
    warn_suspect(n, now_ms);
    warn_split(n, now_ms);
    warn_apart(n, now_ms);
    hand_over(n, now_ms);
}

void clock_watch_anchored(const struct node *n)
{
    switch (n->clock.anchor) {
    case CLOCK_ANCHOR_NONE:
        log_info("clock: waiting for the clocks of a majority");
        return;
    case CLOCK_ANCHOR_TOLD:
        return; /* as it should be */
    case CLOCK_ANCHOR_OTHERS:
        log_info("clock: the cluster's time goes on as the other voters know it");
        return;
    case CLOCK_ANCHOR_FLOOR:
        log_info("clock: the cluster's time goes on from the last batches heard, perhaps a little "
                 "late");
        return;
    case CLOCK_ANCHOR_AGREED:
        log_info("clock: the cluster's time begins at the wall clock on which %zu of %zu voters "
                 "agree, never before the last replicated time",
                 n->clock.peers.wall.count, n->clock.peers.count + n->clock.peers.votes);
        return;
    case CLOCK_ANCHOR_ALONE:
        log_warn("clock: no majority of wall clocks agreed within %d ms: the cluster's time begins "
                 "at the earliest one known, never before the last replicated time",
                 CLOCK_ANCHOR_WAIT_MS);
        return;
    }
}

/* ---- metrics ---- */

void clock_watch_write_metrics(const struct node *n, struct text *t)
{
    const struct clock_peers *p = &n->clock.peers;
    int64_t offset_ms;
    (void)clock_peers_offset_ms(p, &offset_ms);
    metrics_single(t, "holdfast_clock_offset_seconds", "gauge",
                   "Own wall clock minus the one a majority agrees on; 0 when none does.",
                   (double)offset_ms / 1e3);
    metrics_single(
        t, "holdfast_clock_suspect", "gauge",
        "1 while this node's clocks disagree with the majority's: it does not lead while "
        "others can.",
        clock_peers_suspect(p));
    metrics_single(t, "holdfast_clock_agreed", "gauge",
                   "1 while a majority of wall clocks agrees, as this node sees it.",
                   p->wall.found);
    metrics_single(t, "holdfast_clock_pace_ppm", "gauge",
                   "The majority's monotonic clocks against this node's.",
                   (double)p->pace_ppb / 1e3);
    metrics_single(t, "holdfast_clock_difference_seconds", "gauge",
                   "The agreed wall clock minus the cluster's time.",
                   (double)n->clock.wall_difference_ms / 1e3);
    metrics_single(t, "holdfast_clock_hand_overs_total", "counter",
                   "Leaderships given away because of this node's clocks.",
                   (double)n->clock_watch.hand_overs_total);
}
