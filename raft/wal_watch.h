/* wal_watch: how long the log's disk has been silent.
 *
 * What it owns: the operation that the log's writing thread is in, and since when, as seen by a
 * watchdog. What it refuses: to do anything about it.
 *
 * Happy path: the writing thread calls the disk through wal_watch_io, which notes the beginning and
 * end of each operation; a watchdog calls wal_watch_observe every WAL_WATCH_INTERVAL_MS, which adds
 * up how long it has seen one and the same operation under way.
 *
 * The age is that sum, not a difference of times: after SIGSTOP, a debugger or a paused virtual
 * machine the clock has moved on although the disk was never slow. One look counts for
 * WAL_WATCH_STEP_MAX_MS at most, so a pause of any length counts for no more than that.
 *
 * Failure modes: a watchdog that gets no CPU sees ages that are too small, never too large.
 * Thread-safe. Time arrives as an argument. */
#ifndef RAFT_WAL_WATCH_H
#define RAFT_WAL_WATCH_H

#include <pthread.h>

#include "raft/wal_io.h"

#define WAL_WATCH_INTERVAL_MS 50u
#define WAL_WATCH_STEP_MAX_MS 100u
#define WAL_WATCH_WHAT_SIZE   (2 * WAL_IO_NAME_SIZE + 64)

struct wal_watch {
    pthread_mutex_t mutex;
    bool busy;
    uint64_t operation; /* counts; tells one from the next */
    /* What it is: put into words only when somebody asks, for the log writes thousands of times a
     * second. Lent until it ends. */
    const char *name, *action; /* of a file; action NULL: name says it all */
    size_t size;               /* of a write; 0: none */
    uint64_t offset;
    /* the observer's */
    uint64_t seen_operation, seen_ns, age_ns;
};

void wal_watch_init(struct wal_watch *w);
void wal_watch_close(struct wal_watch *w);

/* An operation begins; ends; or shows a sign of life, which is as good as an end and a beginning.
 * what: lent until the end. */
void wal_watch_begin(struct wal_watch *w, const char *what);
void wal_watch_end(struct wal_watch *w);
void wal_watch_progress(struct wal_watch *w);

/* Looks, and returns the age in ns of the operation under way; 0: none, or a new one. now_ns:
 * monotonic. */
uint64_t wal_watch_observe(struct wal_watch *w, uint64_t now_ns);
/* As last observed. Any thread. */
uint64_t wal_watch_age_ns(struct wal_watch *w);
/* What is under way, "nothing" if nothing is: "0000000000000001.wal offset 4096: write of 8192 bytes". */
void wal_watch_what(struct wal_watch *w, char what[static WAL_WATCH_WHAT_SIZE]);

/* A wal_io that passes everything on to another and notes it, for the one thread that uses it. */
struct wal_watch_io {
    struct wal_io io;
    struct wal_io *inner; /* borrowed */
    struct wal_watch *watch;
    char name[WAL_IO_NAME_SIZE]; /* of the file opened last: the current segment */
};
void wal_watch_io_init(struct wal_watch_io *w, struct wal_io *inner, struct wal_watch *watch);

#endif
