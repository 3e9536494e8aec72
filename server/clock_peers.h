/* clock_peers: how this node's clocks stand to those of the other voters. docs/adr/0016.
 *
 * What it owns: the samples of each voter's clocks, and what follows from them:
 *   - the steady clock: this node's monotonic clock, corrected to the pace of a majority's;
 *   - the agreed wall clock: where a majority of the wall clocks is;
 *   - whether this node's clocks, or a peer's, disagree with that majority.
 * What it refuses: to read clocks, to know the cluster's time (clock.h), leaders or terms.
 *
 * A sample: we asked at `sent` and had the answer at `received`, on our monotonic clock; the peer's
 * monotonic clock showed p in between. So its lead over ours is within [p - received, p - sent],
 * however asymmetric the way was. Of the last 16 samples the best counts: the narrowest, where age
 * makes wider.
 *
 * Pace: at the begin of a window of 8 s each voter's lead is kept as a base. Base and present lead
 * give an interval for how much faster its clock runs than ours; our own says 0; each is widened by
 * CLOCK_DRIFT_PPM, what honest clocks may differ by. What a majority agrees on is the pace of the
 * steady clock. Wall clocks do not enter here: all of them may step and no time has passed.
 *
 * Failure modes: no majority of samples, or none that agrees: the steady clock keeps its last pace,
 * nobody is suspect, there is no agreed wall clock. A host that was rebooted or suspended: its lead
 * jumps, it begins anew as a source. A liar among an honest majority: falls out of the
 * intersection. */
#ifndef SERVER_CLOCK_PEERS_H
#define SERVER_CLOCK_PEERS_H

#include "server/clock_agreement.h"

#define CLOCK_PEERS_MAX       (CLOCK_SOURCES_MAX - 1)
#define CLOCK_SAMPLES_MAX     16    /* of each peer: 8 s of them */
#define CLOCK_STALE_MS        10000 /* a peer that was silent so long is no source */
#define CLOCK_WINDOW_MS       8000  /* over which pace is measured */
#define CLOCK_WINDOW_YOUNG_MS 1000  /* before that a window says nothing */
#define CLOCK_WINDOW_SPLIT_MS 2000  /* after that a window in which nobody agrees is given up */
#define CLOCK_DRIFT_PPM       200   /* an honest monotonic clock, at most, either way */
#define CLOCK_TOLERANCE_MS    250   /* an honest wall clock, at most, either way */
#define CLOCK_CORRECT_PPM     100000 /* the steady clock is moved by at most a tenth of what passes */
/* Older news of a wall clock is not held against another: all may have stepped since. */
#define CLOCK_WALL_STALE_MS    1500
#define CLOCK_SUSPECT_AFTER_MS 2000 /* of disagreement without a break: more than that */
#define CLOCK_TRUST_AFTER_MS   5000 /* of agreement without a break */

/* A peer's monotonic clock less ours. */
struct clock_lead {
    uint64_t at_ns; /* our monotonic clock */
    int64_t lead_ns, error_ns;
};

/* What a peer told, and when. */
struct clock_sample {
    uint64_t sent_ns, received_ns; /* our monotonic clock */
    uint64_t peer_ns;              /* its monotonic clock */
    int64_t peer_wall_ms;
    int64_t peer_cluster_ns; /* what it knows of the cluster's time; 0: none */
    bool peer_suspect;       /* it finds itself suspect */
};

struct clock_peer {
    uint64_t id;
    struct clock_lead leads[CLOCK_SAMPLES_MAX]; /* a ring */
    unsigned leads_count, leads_next;
    int64_t wall_ns;    /* its wall clock less its monotonic one */
    int64_t cluster_ns; /* what it knows of the cluster's time less its monotonic clock */
    bool knows_cluster;
    bool suspect; /* it finds itself so */
    bool based;
    struct clock_lead base; /* at the begin of the window, or when it came back */
    /* As last evaluated: */
    bool fresh, wall_fresh, wall_good, pace_good;
    struct clock_lead best;
};

/* A judgement that is made and taken back only after it has stood for a while. */
struct clock_doubt {
    bool suspect;
    bool opposite;     /* the last look said the opposite of `suspect` */
    uint64_t since_ns; /* for how long */
};

struct clock_peers {
    struct clock_peer peers[CLOCK_PEERS_MAX]; /* the other voters */
    size_t count;
    bool votes; /* this node is a voter */
    /* The steady clock: ours, plus correction_ns, which moves towards settled + pace · elapsed. */
    uint64_t window_ns; /* begin; 0: none yet */
    int64_t settled_ns; /* of the windows before */
    int64_t pace_ppb;   /* the majority's less ours */
    int64_t correction_ns;
    uint64_t corrected_ns; /* when it was last moved */
    /* As last evaluated: */
    uint64_t evaluated_ns;
    struct clock_agreed pace; /* ppb */
    size_t pace_sources;      /* that said something of it */
    struct clock_agreed wall; /* ns: the agreed wall clock less our monotonic clock */
    int64_t own_wall_ns;      /* ours less our monotonic clock */
    struct clock_doubt wall_doubt, pace_doubt;
    size_t sources; /* voters heard of lately, this one included */
};

void clock_peers_init(struct clock_peers *p);

/* The other voters, and whether this node is one. Samples of those that stay are kept. */
void clock_peers_set(struct clock_peers *p, const uint64_t *ids, size_t count, bool votes);

/* A sample of a peer that is no voter is dropped. Returns the peer's lead, NULL if dropped; lent
 * until the next call. */
const struct clock_lead *clock_peers_sample(struct clock_peers *p, uint64_t id,
                                            const struct clock_sample *sample);

/* Makes all judgements anew. To be called some times a second. */
void clock_peers_evaluate(struct clock_peers *p, uint64_t monotonic_ns, int64_t wall_ms);

/* The steady clock at this moment; never falls as long as monotonic_ns does not. */
uint64_t clock_peers_steady_ns(struct clock_peers *p, uint64_t monotonic_ns);

/* How many voters make a majority; 0: the voters are not known. */
size_t clock_peers_needed(const struct clock_peers *p);

/* This node disagrees with a majority, by wall clock or pace. */
bool clock_peers_suspect(const struct clock_peers *p);
/* And the last look said so again: it is not only waiting to be trusted. */
bool clock_peers_disagrees(const struct clock_peers *p);
/* The peer is a voter whose clocks are with the majority, as last heard. */
bool clock_peers_good(const struct clock_peers *p, uint64_t id);
/* Own wall clock less the agreed one. false: there is none. */
bool clock_peers_offset_ms(const struct clock_peers *p, int64_t *offset_ms);

/* The cluster's time as the others know it: the median, the lower of two, less our monotonic clock.
 * false: nobody knows it. */
bool clock_peers_cluster(const struct clock_peers *p, int64_t *cluster_ns);
/* The earliest wall clock of all that were heard of lately, own included, less our monotonic one.
 */
int64_t clock_peers_earliest_wall(const struct clock_peers *p);

#endif
