/* wal: the write-ahead log of one node: durable entries, term and vote.
 *
 * What it owns: the log's directory, one thread that writes, the queue in front of it. What it refuses:
 * to read entries back while running (the log cache has them), to judge terms, to go on after an error.
 *
 * Happy path: wal_append copies records into the block that is being gathered and returns a ticket;
 * the thread takes the whole block (everything queued while the last write was under way: group
 * commit), writes it O_DIRECT|O_DSYNC, and `durable` is called on the loop's thread with the newest
 * ticket that is on disk. Tickets grow by one per call and become durable in order.
 *
 * Failure modes: any I/O error ends the process with a message that names file and offset, exit
 * code 74: after a failed write nobody knows what is on disk, and the peers can go on without us. A
 * disk that stands still does not block the loop: wal_write_age_ms tells how long it has been
 * silent, so that a leader can hand over in time, and after write_deadline_ms the process ends, exit
 * code 74 too (docs/adr/0015). Meanwhile the queue grows up to WAL_QUEUE_SIZE_MAX; then wal_append
 * blocks the loop. Callers refuse new work long before, by wal_queued_bytes.
 *
 * All functions are called on the loop's thread. Format and recovery: wal_core.h. */
#ifndef RAFT_WAL_H
#define RAFT_WAL_H

#include <uv.h>

#include "base/histogram.h"
#include "raft/wal_core.h"

#define WAL_QUEUE_SIZE_MAX  (256u << 20)
#define WAL_EXIT_CODE       74 /* EX_IOERR */

struct wal_config {
    const char *directory; /* created if missing; borrowed during open */
    uint8_t cluster_id[WAL_CLUSTER_ID_SIZE];
    uint64_t node_id;
    uint64_t segment_size; /* bytes, rounded up to WAL_BLOCK_SIZE; 0: 64 MiB */
    bool sync;             /* false only in benchmarks: nothing is durable then */
    uint64_t write_deadline_ms; /* the disk silent for so long ends the process; 0: never */
};

struct wal;

/* ticket: everything asked for up to and including it is on disk. index, term: the last entry of the
 * log as of that ticket (after a reset: its index and term; right after open what was recovered).
 * Called on the loop's thread, newest state only: several writes may be reported by one call. */
typedef void (*wal_durable_cb)(void *ctx, uint64_t ticket, uint64_t index, uint64_t term);

/* Opens and recovers. Blocks (reads the whole log; on first use writes a segment of zeros). 0 with
 * *recovered to be closed by the caller once it has copied what it needs, or -1 after logging what is
 * wrong and what to do. */
int wal_open(uv_loop_t *loop, const struct wal_config *config, wal_durable_cb durable, void *ctx,
             struct wal **wal, struct wal_recovered *recovered);
/* The same in two steps: with loop NULL wal_open recovers, on any thread, and nothing else may be asked
 * of the log until wal_start, on the loop's. */
void wal_start(struct wal *w, uv_loop_t *loop);

/* Appends records, each an entry of record.h that lies anywhere. Copies. The first may have an index
 * that the log has already: it and what follows is replaced (Raft §5.3). A gap is a bug. The terms of
 * entries must be ≤ the term last set by wal_set_vote or recovered. Returns the ticket. */
uint64_t wal_append(struct wal *w, const struct record_header *const *records, size_t count);

/* The node's current term and whom it voted for in it (0: nobody). Returns the ticket. */
uint64_t wal_set_vote(struct wal *w, uint64_t term, uint64_t vote);

/* Drops the whole log; it goes on at index + 1, whose predecessor had `term`. Returns the ticket. */
uint64_t wal_reset(struct wal *w, uint64_t index, uint64_t term);

/* Entries up to and including this index are no longer needed. Whole segments are recycled, later. */
void wal_trim(struct wal *w, uint64_t upto_index);

/* Blocks until the ticket is durable (a fraction of a millisecond on an idle disk): for term and vote,
 * which must be on disk before the message that depends on them leaves. `durable` still follows. */
void wal_wait(struct wal *w, uint64_t ticket);

uint64_t wal_durable_ticket(struct wal *w);
size_t wal_queued_bytes(struct wal *w); /* not yet on disk */

/* How long the disk has not answered the operation under way; 0: nothing is under way. Exact to
 * WAL_WATCH_INTERVAL_MS; time in which the whole process stood still does not count. */
uint64_t wal_write_age_ms(struct wal *w);

struct wal_stats {
    uint64_t writes, bytes, records, segments, spares;
    const struct histogram *write_ns; /* duration of each write; valid until the next call */
};
void wal_get_stats(struct wal *w, struct wal_stats *stats);

/* Writes what is queued, stops the thread, closes. `durable` is called for the rest before done. */
void wal_close(struct wal *w, void (*done)(void *ctx), void *ctx);

#endif
