/* disk_guard: a disk that is short of space or does not answer, and what a leader does then.
 *
 * What it owns: the measurement of free space, the decision with its hysteresis, the search for a
 * member with more room; leaving a disk that is silent. What it refuses: to free anything, to stop a
 * node (raft/wal.h does, at --log-write-deadline).
 *
 * Happy path: every DISK_GUARD_INTERVAL_MS a thread of the pool asks the file system (statvfs may
 * hang; the loop must not) → disk_guard_judge → below the limit a leader answers commands that grow
 * the state with STATUS_LOW_SPACE, and asks the other voters for theirs: one with room is given
 * leadership. What ends or frees something is always taken (disk_guard_takes), so that payments
 * come in and checkpoints trim the log. Space comes back: DISK_GUARD_HEADROOM more than the limit
 * ends it. When an operation of the log has been under way for disk_guard_slow_ms, a leader hands over
 * to the voter that is most up to date, and tries again until it is none.
 *
 * Failure modes: the file system does not answer, or not in time: the last figure stays and a line
 * says so once; the guard never trips on what it does not know. No member has room: this one goes on
 * leading and refusing. It fills up all the same: the log's next write or segment fails, the process
 * ends (raft/wal.h).
 *
 * Everything on the loop's thread. docs/operations/disk-full.md, docs/adr/0015-disk-trouble.md. */
#ifndef SERVER_DISK_GUARD_H
#define SERVER_DISK_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/command.h"

#define DISK_GUARD_INTERVAL_MS  2000
#define DISK_GUARD_LATE_MS      10000 /* no answer of the file system for so long is told */
#define DISK_GUARD_HEADROOM     4     /* a quarter of the limit more ends the state */
#define DISK_GUARD_RETRY_MS     5000  /* what a refused client is told to wait */
#define DISK_GUARD_ASK_MS       2000  /* between two rounds of asking the others */
#define DISK_GUARD_PATIENCE_MS  1500  /* for their answers */

/* A leader leaves a log's disk that is silent for this part of --log-write-deadline, and for
 * DISK_GUARD_SLOW_MAX_MS at most, so that its clients are served elsewhere long before the process
 * ends. Well above what a busy disk needs for one write: slow is no reason to move. */
#define DISK_GUARD_SLOW_DIVISOR  5
#define DISK_GUARD_SLOW_MAX_MS   2000
#define DISK_GUARD_SLOW_RETRY_MS 250

/* ---- decisions, pure ---- */

/* Whether space is low now: was_low, free and limit in bytes (0: no guard). */
bool disk_guard_judge(bool was_low, uint64_t free_bytes, uint64_t limit);

/* How long the log's disk may be silent before a leader leaves it; deadline_ms: of log writes. */
uint64_t disk_guard_slow_ms(uint64_t deadline_ms);

/* What is taken although space is low: what ends, frees or stops something. */
bool disk_guard_takes(enum command_kind kind);

/* ---- the guard of a node ---- */

struct node;
struct disk_guard;

/* Measures once, blocking. Never fails. limit: bytes, 0: none; deadline_ms: --log-write-deadline. */
struct disk_guard *disk_guard_create(struct node *n, const char *directory, uint64_t limit,
                                     uint64_t deadline_ms);
void disk_guard_tick(struct disk_guard *g, uint64_t now_ms);
/* The log's disk does not answer: this node must not be made leader. */
bool disk_guard_silent(const struct disk_guard *g);
/* A command may be proposed. Counts refusals. */
bool disk_guard_admits(struct disk_guard *g, const struct command *c);
/* Stops; true when nothing is in the hands of other threads and links any more, and the guard is
 * freed. Called until then; g is gone after true. */
bool disk_guard_close(struct disk_guard *g);

struct disk_guard_info {
    bool known, low;
    uint64_t free_bytes, size_bytes, limit; /* of the file system */
    uint64_t refused_total, hand_overs_total;   /* for want of space */
    uint64_t slow_total, slow_hand_overs_total; /* times that the log's disk was silent */
};
void disk_guard_get_info(const struct disk_guard *g, struct disk_guard_info *info);

#endif
