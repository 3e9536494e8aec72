/* persister_worker: what the persister's thread does, step by step. Takes the fence, then turns the
 * queue into transactions.
 *
 * What it owns: the connections ("lanes", each for a range of shards, so that two of the server's
 * processes work at once), the windows, the watermarks as it knows them. What it refuses:
 * callbacks: it leaves news and wakes the loop (persister.c).
 *
 * A *stream* is one uninterrupted time of writing: from the fence to the first thing that goes
 * wrong. Whatever goes wrong ends it: all connections are closed, the queue is dropped, and after a
 * pause the next stream begins with what the watermarks say. There is no other way to recover, so
 * there is only one to test.
 *
 * A *window* is a run of consecutive events, split by shard over the lanes, one transaction each. A
 * lane may be one window ahead of another. A window counts as persisted (acknowledged) when all its
 * lanes have committed, so that every watermark in the database is at or after every acknowledged
 * event: a database whose watermarks are behind that has lost something, and is refused.
 *
 * Threads: worker_step and worker_poll are for the worker's thread (persister_thread.h), all others for
 * the loop's. Time comes in as an argument. */
#ifndef STORAGE_PERSISTER_WORKER_H
#define STORAGE_PERSISTER_WORKER_H

#include "storage/persister.h"

#define PERSISTER_LANES         2  /* connections */
#define PERSISTER_WINDOWS       2  /* built and not yet persisted */
#define PERSISTER_LINGER_MS     10 /* between small transactions; longer with many shards */
#define PERSISTER_EVICTIONS_MAX 3  /* attempts to end what holds up the fence, per stream */

struct worker;
struct persister_thread;

/* What the loop has to learn. */
struct worker_news {
    bool ended;      /* the thread is about to return: worker_join */
    uint64_t stream; /* the open stream, 0: none */
    bool opened;     /* it is new: wanted says where it begins */
    bool room;       /* an offer had found none, now there is */
    uint64_t wanted;
    uint64_t acked; /* all shards, up to this sequence; 0: nothing new */
};

/* config->loop is not used. thread is woken when there is work, and wakes the loop when there are news;
 * it is only borrowed. NULL on failure. */
struct worker *worker_create(const struct persister_config *config, struct persister_thread *thread);
/* When its thread, if it was started, is done. */
void worker_destroy(struct worker *w);
void worker_lead(struct worker *w, uint64_t term, uint64_t first_sequence);
void worker_follow(struct worker *w);
/* Copies events into the queue; returns how many. 0 when stream is not the open one. */
size_t worker_offer(struct worker *w, uint64_t stream, const struct event_view *events,
                    size_t count);
void worker_take_news(struct worker *w, struct worker_news *news);
void worker_get_status(struct worker *w, struct persister_status *out);
void worker_write_metrics(struct worker *w, struct text *t);

/* worker_step returns false soon; news.ended says when it did. */
void worker_stop(struct worker *w);

/* One step of everything. ready: bit i says that lane i's socket was reported by poll. *until_ms: when
 * to be called again, whatever happens. Returns false when it is to be called no more. */
bool worker_step(struct worker *w, uint32_t ready, uint64_t now_ms, uint64_t *until_ms);
/* What to poll for each lane; returns how many there are, at most PERSISTER_LANES. */
struct pollfd;
uint32_t worker_poll(const struct worker *w, struct pollfd *fds);

#endif
