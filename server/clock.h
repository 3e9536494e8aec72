/* clock: the cluster's time, as the leader stamps it on batches. docs/adr/0008-cluster-clock.md.
 *
 * What it owns: how far the cluster's time is ahead of this node's monotonic clock. What it
 * refuses: to read clocks (they are arguments), to let a wrong wall clock of one node move
 * everybody's deadlines.
 *
 * Follower: each batch of the present leader is a sample, (its time, when it was applied here). The
 * largest difference of the last one to two windows is kept: a batch that came late only makes a
 * smaller one.
 *
 * New leader: goes on from there on its own monotonic clock, however wrong its wall clock is. Only
 * a node that heard no leader since it started (a new cluster, or all of them restarted) starts
 * from the wall clock, never before the last replicated time.
 *
 * Leader: moves at the pace of its monotonic clock, and towards its wall clock by at most
 * CLOCK_SLEW_PPM while the two are within CLOCK_SLEW_RANGE_MS; beyond that the wall clock is not
 * believed and `suspicious` is set. */
#ifndef SERVER_CLOCK_H
#define SERVER_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_WINDOW_MS     60000
#define CLOCK_SLEW_PPM      50 /* 45 ms over a payment timeout of 15 minutes */
#define CLOCK_SLEW_RANGE_MS 10000
#define CLOCK_HEARD_MAX_MS  86400000 /* an older sample is not believed more than the wall clock */

struct cluster_clock {
    bool leading;
    int64_t last_ms; /* replicated time: the floor */
    /* Follower: cluster time minus monotonic time, ns; the present and the previous window's
     * largest. */
    bool heard[2];
    int64_t heard_offset_ns[2];
    uint64_t window_start_ns;
    uint64_t heard_last_ns;
    /* Leader: */
    int64_t offset_ns;  /* cluster time minus monotonic time */
    uint64_t slewed_ns; /* monotonic time of the last slew */
    bool suspicious;
    int64_t wall_difference_ms; /* wall clock minus cluster time, as last looked at */
};

void cluster_clock_init(struct cluster_clock *c);

/* A batch with this leader time was applied. fresh: it is of the present term and its leader is
 * another node that leads now; false for what is replayed from the log or was proposed here. */
void cluster_clock_heard(struct cluster_clock *c, int64_t batch_ms, bool fresh,
                         uint64_t monotonic_ns);

/* This node leads from now on. last_ms: engine_time_ms. */
void cluster_clock_lead(struct cluster_clock *c, int64_t last_ms, uint64_t monotonic_ns,
                        int64_t wall_ms);
void cluster_clock_follow(struct cluster_clock *c);

/* Leader: the time to stamp now. Never falls. */
int64_t cluster_clock_now_ms(struct cluster_clock *c, uint64_t monotonic_ns, int64_t wall_ms);

/* Anybody: the best guess of the cluster's time now, for metrics and waiting; the last replicated
 * time when nothing better is known. */
int64_t cluster_clock_estimate_ms(const struct cluster_clock *c, uint64_t monotonic_ns);

#endif
