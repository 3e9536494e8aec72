/* read_index: linearizable reads without a write to the log (Raft dissertation §6.4), in rounds.
 *
 * What it owns: reads that wait, the round under way, who has answered. What it refuses: to send (the
 * driver does), to use leases: a restarted node votes at once, so no clock protects a leader.
 *
 * A read waits in one of three queues:
 *
 *     next ──round begins, index fixed──▶ asked ──majority answered──▶ confirmed ──applied ≥ index──▶ OK
 *
 * One round is under way at a time; reads that come meanwhile share the next one. A read may not join
 * a round that has begun: an answer that was already on its way says nothing about the time after the
 * read was asked for:
 *     voter answers round 7 → new leader elected, write acknowledged there → read comes to the old
 *     leader, joins round 7, gets the answer → stale.
 *
 * Failure modes: loss of leadership ends every read with REPLICA_NOT_LEADER. A lost message is cured
 * by repeating the round at each tick. */
#ifndef RAFT_READ_INDEX_H
#define RAFT_READ_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raft/membership.h"
#include "raft/replica.h"

#define READ_INDEX_WAITING_MAX 65536u /* further reads are refused with REPLICA_BUSY */

struct read_queue {
    struct replica_read *first, **last;
};

struct read_index {
    struct read_queue next, asked, confirmed;
    size_t waiting;
    uint64_t sequence; /* of the round under way or the last one; never used twice in a process */
    bool active;
    uint64_t answered[REPLICA_MEMBERS_MAX]; /* ids */
    size_t answered_count;
};

void read_index_init(struct read_index *r);
/* false: READ_INDEX_WAITING_MAX reads wait already. */
bool read_index_add(struct read_index *r, struct replica_read *req, replica_read_cb cb);
/* Begins a round at this commit index, if reads wait and none is under way. True: ask all voters. */
bool read_index_begin(struct read_index *r, uint64_t commit_index);
/* A voter agreed to round `sequence` (stale ones are ignored). True: the round is over, reads moved to
 * confirmed. self_id counts without an answer when it is a voter of m. */
bool read_index_answer(struct read_index *r, uint64_t from_id, uint64_t sequence, uint64_t self_id,
                       const struct membership *m);
/* Calls back what is confirmed and at or below the applied index. Callbacks may add reads. */
void read_index_applied(struct read_index *r, uint64_t applied_index);
/* Calls back everything with this status. */
void read_index_fail(struct read_index *r, enum replica_status status);

#endif
