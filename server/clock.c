/* clock: see clock.h. All arithmetic in nanoseconds on signed 64 bits: good until the year 2262.
 *
 *     monotonic ──correction (clock_peers)──> steady ──offset (here)──> the cluster's time
 */
#include "server/clock.h"

#include <string.h>

#include "base/check.h"

#define NS_PER_MS 1000000
/* An older answer of the leader is taken for a wider one, by a hundredth of its age: as if the
 * clock here ran 1 % wrong and that were not noticed yet. */
#define TOLD_AGE_COST 100

void cluster_clock_init(struct cluster_clock *c)
{
    memset(c, 0, sizeof *c);
    clock_peers_init(&c->peers);
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static bool within(uint64_t now_ns, uint64_t then_ns, uint64_t ms)
{
    return now_ns - then_ns < ms * NS_PER_MS;
}

/* The steady clock now, without moving it. */
static int64_t steady_at(const struct cluster_clock *c, uint64_t monotonic_ns)
{
    return (int64_t)monotonic_ns + c->peers.correction_ns;
}

static int64_t time_at(const struct cluster_clock *c, int64_t offset_ns, uint64_t monotonic_ns)
{
    return (offset_ns + steady_at(c, monotonic_ns)) / NS_PER_MS;
}

/* ---- follower ---- */

void cluster_clock_heard(struct cluster_clock *c, int64_t batch_ms, bool fresh,
                         uint64_t monotonic_ns)
{
    c->last_ms = later(c->last_ms, batch_ms);
    if (!fresh || c->leading) {
        return;
    }
    if (!within(monotonic_ns, c->window_start_ns, CLOCK_HEARD_WINDOW_MS)) {
        /* A gap of more than one window leaves nothing of before: both samples would be old. */
        bool gap = !within(monotonic_ns, c->window_start_ns, CLOCK_HEARD_WINDOW_MS * 2);
        c->heard[1] = c->heard[0] && !gap;
        c->heard_offset_ns[1] = c->heard_offset_ns[0];
        c->heard[0] = false;
        c->window_start_ns = monotonic_ns;
    }
    int64_t steady_ns = (int64_t)clock_peers_steady_ns(&c->peers, monotonic_ns);
    int64_t offset = batch_ms * NS_PER_MS - steady_ns;
    c->heard_offset_ns[0] = c->heard[0] ? later(c->heard_offset_ns[0], offset) : offset;
    c->heard[0] = true;
    c->heard_last_ns = monotonic_ns;
}

static int64_t told_cost(const struct clock_lead *told, uint64_t now_ns)
{
    return told->error_ns + (int64_t)(now_ns - told->at_ns) / TOLD_AGE_COST;
}

void cluster_clock_sample(struct cluster_clock *c, uint64_t peer_id, bool from_leader,
                          const struct clock_sample *sample)
{
    uint64_t now_ns = sample->received_ns;
    const struct clock_lead *lead = clock_peers_sample(&c->peers, peer_id, sample);
    if (lead == NULL || !from_leader || sample->peer_cluster_ns == 0 || c->leading) {
        return;
    }
    (void)clock_peers_steady_ns(&c->peers, now_ns);
    struct clock_lead told = {
        .at_ns = now_ns,
        .lead_ns = sample->peer_cluster_ns - (int64_t)sample->peer_ns + lead->lead_ns -
                   c->peers.correction_ns,
        .error_ns = lead->error_ns,
    };
    if (c->told.at_ns == 0 || c->told_by != peer_id ||
        told_cost(&told, now_ns) <= told_cost(&c->told, now_ns)) {
        c->told = told;
        c->told_by = peer_id;
    }
}

static bool is_told(const struct cluster_clock *c, uint64_t now_ns)
{
    return c->told.at_ns != 0 && within(now_ns, c->told.at_ns, CLOCK_KNOWN_MAX_MS);
}

/* Cluster time minus steady time, as heard from a leader: what it told, and the floor. Returns
 * false when there is neither. */
static bool heard_offset(const struct cluster_clock *c, uint64_t now_ns, int64_t *offset_ns)
{
    bool told = is_told(c, now_ns);
    bool heard = c->heard[0] && within(now_ns, c->heard_last_ns, CLOCK_KNOWN_MAX_MS);
    *offset_ns = told ? c->told.lead_ns : INT64_MIN;
    if (heard) {
        *offset_ns = later(*offset_ns, c->heard_offset_ns[0]);
        *offset_ns = c->heard[1] ? later(*offset_ns, c->heard_offset_ns[1]) : *offset_ns;
    }
    return told || heard;
}

/* ---- the anchor of a leadership ---- */

static enum clock_anchor find_anchor(const struct cluster_clock *c, uint64_t now_ns,
                                     int64_t *offset_ns)
{
    const struct clock_peers *p = &c->peers;
    size_t needed = clock_peers_needed(p);
    bool patient = within(now_ns, c->lead_ns, CLOCK_ANCHOR_WAIT_MS);
    bool asked = !patient || (needed > 0 && p->sources >= needed);
    int64_t others_ns;
    bool heard = heard_offset(c, now_ns, offset_ns);
    if (is_told(c, now_ns)) {
        return CLOCK_ANCHOR_TOLD;
    }
    if (asked && clock_peers_cluster(p, &others_ns)) {
        others_ns -= p->correction_ns;
        *offset_ns = heard ? later(*offset_ns, others_ns) : others_ns;
        return CLOCK_ANCHOR_OTHERS;
    }
    if (heard) {
        return asked ? CLOCK_ANCHOR_FLOOR : CLOCK_ANCHOR_NONE;
    }
    if (p->wall.found) {
        *offset_ns = p->wall.value - p->correction_ns;
        return CLOCK_ANCHOR_AGREED;
    }
    *offset_ns = clock_peers_earliest_wall(p) - p->correction_ns;
    return patient ? CLOCK_ANCHOR_NONE : CLOCK_ANCHOR_ALONE;
}

static void try_anchor(struct cluster_clock *c, uint64_t now_ns)
{
    int64_t offset;
    c->anchor = find_anchor(c, now_ns, &offset);
    if (c->anchor != CLOCK_ANCHOR_NONE) {
        c->offset_ns = later(offset, c->last_ms * NS_PER_MS - steady_at(c, now_ns));
        c->slewed_ns = now_ns;
    }
}

void cluster_clock_lead(struct cluster_clock *c, int64_t last_ms, uint64_t monotonic_ns,
                        int64_t wall_ms)
{
    c->last_ms = later(c->last_ms, last_ms);
    c->leading = true;
    c->lead_ns = monotonic_ns;
    c->anchor = CLOCK_ANCHOR_NONE;
    clock_peers_evaluate(&c->peers, monotonic_ns, wall_ms);
    try_anchor(c, monotonic_ns);
}

void cluster_clock_follow(struct cluster_clock *c)
{
    if (!c->leading) {
        return;
    }
    c->leading = false;
    if (c->anchor == CLOCK_ANCHOR_NONE) {
        return;
    }
    /* What this node stamped itself is the best that anybody could tell. */
    c->anchor = CLOCK_ANCHOR_NONE;
    c->heard[0] = c->heard[1] = false;
    c->told = (struct clock_lead){.at_ns = c->slewed_ns, .lead_ns = c->offset_ns};
    c->told_by = 0;
}

/* ---- leader ---- */

static void look_at_wall(struct cluster_clock *c, uint64_t now_ns)
{
    int64_t offset;
    c->wall_difference_ms = 0;
    if (!c->peers.wall.found ||
        !(c->leading ? c->anchor != CLOCK_ANCHOR_NONE : heard_offset(c, now_ns, &offset))) {
        return;
    }
    offset = c->leading ? c->offset_ns : offset;
    int64_t difference = c->peers.wall.value - c->peers.correction_ns - offset;
    c->wall_difference_ms = difference / NS_PER_MS;
    if (c->leading) {
        int64_t room = (int64_t)(now_ns - c->slewed_ns) / (1000000 / CLOCK_SLEW_PPM);
        c->offset_ns += difference > room ? room : difference < -room ? -room : difference;
    }
}

void cluster_clock_tick(struct cluster_clock *c, uint64_t monotonic_ns, int64_t wall_ms)
{
    if (c->peers.evaluated_ns != 0 &&
        within(monotonic_ns, c->peers.evaluated_ns, CLOCK_EVALUATE_MS)) {
        return;
    }
    clock_peers_evaluate(&c->peers, monotonic_ns, wall_ms);
    if (c->leading && c->anchor == CLOCK_ANCHOR_NONE) {
        try_anchor(c, monotonic_ns);
    }
    look_at_wall(c, monotonic_ns);
    if (c->leading) {
        c->slewed_ns = monotonic_ns; /* without an agreed wall clock nothing is saved up */
    }
}

bool cluster_clock_ready(const struct cluster_clock *c)
{
    return c->leading && c->anchor != CLOCK_ANCHOR_NONE;
}

int64_t cluster_clock_now_ms(struct cluster_clock *c, uint64_t monotonic_ns)
{
    CHECK(cluster_clock_ready(c));
    (void)clock_peers_steady_ns(&c->peers, monotonic_ns);
    c->last_ms = later(c->last_ms, time_at(c, c->offset_ns, monotonic_ns));
    return c->last_ms;
}

/* ---- anybody ---- */

static bool best_offset(const struct cluster_clock *c, uint64_t now_ns, int64_t *offset_ns)
{
    if (cluster_clock_ready(c)) {
        *offset_ns = c->offset_ns;
        return true;
    }
    return !c->leading && heard_offset(c, now_ns, offset_ns);
}

int64_t cluster_clock_estimate_ms(const struct cluster_clock *c, uint64_t monotonic_ns)
{
    int64_t offset;
    return best_offset(c, monotonic_ns, &offset)
               ? later(c->last_ms, time_at(c, offset, monotonic_ns))
               : c->last_ms;
}

int64_t cluster_clock_known_ns(const struct cluster_clock *c, uint64_t monotonic_ns)
{
    int64_t offset;
    bool known = cluster_clock_ready(c) || (!c->leading && is_told(c, monotonic_ns));
    if (!known || !best_offset(c, monotonic_ns, &offset)) {
        return 0;
    }
    return later(c->last_ms * NS_PER_MS, offset + steady_at(c, monotonic_ns));
}
