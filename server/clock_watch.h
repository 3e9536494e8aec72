/* clock_watch: the cluster's clock in a node: who tells it what, and what follows from its
 * verdicts.
 *
 * What it owns: the hooks that exchange clocks with peers, warnings, and that a leader whose clocks
 * disagree with the majority hands over. What it refuses: any judgement of its own (clock_peers.h)
 * and to keep a node from leading when no other voter with better clocks can. */
#ifndef SERVER_CLOCK_WATCH_H
#define SERVER_CLOCK_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"
#include "raft/replica.h"

#define CLOCK_WATCH_MEMBERS_MS   500   /* how often voters are looked up */
#define CLOCK_WATCH_HAND_OVER_MS 5000  /* between two attempts to hand over */
#define CLOCK_WATCH_WARN_MS      60000 /* between two warnings of the same thing */
#define CLOCK_WATCH_APART_MS     1000 /* cluster's time from the agreed wall clock: worth a warning */

struct node;

/* What the watch remembers. Loop time. */
struct clock_watch {
    uint64_t members_ms, hand_over_ms;
    uint64_t warned_suspect_ms, warned_split_ms, warned_apart_ms; /* 0: not yet */
    uint64_t split_since_ms; /* no majority agrees since; 0: one does */
    bool suspect;            /* as told to the replica: then this node is not willing to lead */
    uint64_t hand_overs_total;
};

/* Hooks of the replica: ctx is the node. */
void clock_watch_read(void *node, struct replica_clock *clock);
void clock_watch_sample(void *node, uint64_t from_id, const struct replica_clock *clock,
                        uint64_t sent_ns, uint64_t received_ns);

/* Each tick of the node. */
void clock_watch_tick(struct node *n, uint64_t now_ms);
/* Says in the log where this leadership's time begins. */
void clock_watch_anchored(const struct node *n);

void clock_watch_write_metrics(const struct node *n, struct text *t);

#endif
