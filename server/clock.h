/* clock: the cluster's time, as the leader stamps it on batches. docs/adr/0016-clock-agreement.md
 * (what of ADR 0008 it keeps is said there).
 *
 * What it owns: how far the cluster's time is ahead of this node's steady clock (clock_peers.h).
 * What it refuses: to read clocks (they are arguments), to let a wrong clock of one node move
 * everybody's deadlines.
 *
 * Follower: what the leader tells when it is asked for its clocks is right to half a round trip;
 * the node knows the cluster's time, and tells others. Each batch of the leader, (its time, when it
 * was applied here), gives a floor: the largest difference of the last one to two windows, because
 * a batch that came late only makes a smaller one.
 *
 * New leader: goes on from what it knows, however wrong its clocks are. If no leader has told it
 * anything since it started it asks what the other voters know, then takes the floor. In a new
 * cluster, and when all nodes were restarted, there is none of these, and the agreed wall clock of
 * a majority is the anchor. Never before the last replicated time. Until it has an anchor it stamps
 * nothing, but waits CLOCK_ANCHOR_WAIT_MS at most: then the earliest wall clock it knows must do
 * (too late is better than too early).
 *
 * Leader: moves at the pace of its steady clock, and towards the agreed wall clock by at most
 * CLOCK_SLEW_PPM, however far that is: when all wall clocks step by an hour, no hour has passed. */
#ifndef SERVER_CLOCK_H
#define SERVER_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "server/clock_peers.h"

#define CLOCK_HEARD_WINDOW_MS 15000
#define CLOCK_SLEW_PPM        50       /* 45 ms over a payment timeout of 15 minutes */
#define CLOCK_KNOWN_MAX_MS    86400000 /* older news of a leader is none */
#define CLOCK_ANCHOR_WAIT_MS  3000
#define CLOCK_EVALUATE_MS     100

/* Where a leadership began. */
enum clock_anchor {
    CLOCK_ANCHOR_NONE,   /* not yet: nothing is stamped */
    CLOCK_ANCHOR_TOLD,   /* from the former leader, or this node led before */
    CLOCK_ANCHOR_OTHERS, /* from what other voters know */
    CLOCK_ANCHOR_FLOOR,  /* from batches of the former leader: perhaps a little late */
    CLOCK_ANCHOR_AGREED, /* from the wall clocks of a majority */
    CLOCK_ANCHOR_ALONE,  /* from the earliest wall clock known: no majority agreed in time */
};

struct cluster_clock {
    struct clock_peers peers;
    bool leading;
    enum clock_anchor anchor; /* of the present leadership */
    uint64_t lead_ns;         /* monotonic time of its begin */
    int64_t last_ms;          /* replicated time: the floor */
    /* Follower: cluster time minus steady time, ns; the present and the previous window's largest.
     */
    bool heard[2];
    int64_t heard_offset_ns[2];
    uint64_t window_start_ns;
    uint64_t heard_last_ns;
    /* What a leader told, the best of late: cluster time minus steady time. at_ns 0: nothing yet.
     */
    struct clock_lead told;
    uint64_t told_by; /* the leader's id; 0: this node, when it led */
    /* Leader: */
    int64_t offset_ns;  /* cluster time minus steady time */
    uint64_t slewed_ns; /* monotonic time of the last slew */
    /* Agreed wall clock minus cluster time, as last evaluated; 0 when there is none. */
    int64_t wall_difference_ms;
};

void cluster_clock_init(struct cluster_clock *c);

/* A batch with this leader time was applied. fresh: it is of the present term and its leader is
 * another node that leads now; false for what is replayed from the log or was proposed here. */
void cluster_clock_heard(struct cluster_clock *c, int64_t batch_ms, bool fresh,
                         uint64_t monotonic_ns);

/* A peer has told its clocks. from_leader: it leads the present term, and the belief is its own
 * time. */
void cluster_clock_sample(struct cluster_clock *c, uint64_t peer_id, bool from_leader,
                          const struct clock_sample *sample);

/* Some times a second, in every role: judges the clocks; a leader without an anchor tries again,
 * one with it slews. */
void cluster_clock_tick(struct cluster_clock *c, uint64_t monotonic_ns, int64_t wall_ms);

/* This node leads from now on. last_ms: engine_time_ms. */
void cluster_clock_lead(struct cluster_clock *c, int64_t last_ms, uint64_t monotonic_ns,
                        int64_t wall_ms);
void cluster_clock_follow(struct cluster_clock *c);

/* Leader with an anchor: only then cluster_clock_now_ms may be called. */
bool cluster_clock_ready(const struct cluster_clock *c);
/* The time to stamp now. Never falls. */
int64_t cluster_clock_now_ms(struct cluster_clock *c, uint64_t monotonic_ns);

/* Anybody: the best guess of the cluster's time now, for metrics and waiting; the last replicated
 * time when nothing better is known. */
int64_t cluster_clock_estimate_ms(const struct cluster_clock *c, uint64_t monotonic_ns);
/* The same for other nodes: 0 unless this node leads or was told. */
int64_t cluster_clock_known_ns(const struct cluster_clock *c, uint64_t monotonic_ns);

#endif
