/* The thread and the queue in front of wal_core.
 *
 *     loop:   wal_append → copy into the block being gathered → signal
 *     thread: take the oldest block → seal, write (durable) → publish ticket → uv_async_send
 *     loop:   wal_durable_async_cb → durable(ticket, index, term)
 *
 * While a write is under way everything that arrives gathers in one block: group commit without a
 * timer. Records are copied once, from the log cache into the block that goes to the device, so the
 * caller may free or truncate its cache at any moment.
 *
 * A second thread makes spares: a segment of zeros takes as long as a hundred group commits. It
 * writes them in pieces and rests after each, so that the log's own writes, and those of whoever
 * else lives on this disk, pass in between; it does not rest while the writer waits for the spare.
 *
 * A third one watches how long the disk has been silent (wal_watch.h): the loop may be blocked, by a
 * full queue or in wal_close, when the deadline comes.
 *
 * One mutex guards what both sides touch (struct shared part below). The core belongs to the
 * writing thread alone, from open to join. Failure modes: see wal.h; every error of the disk ends
 * in wal_die. */
#include "raft/wal.h"

#include <errno.h>
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "raft/wal_format.h"
#include "raft/wal_watch.h"

#define SEGMENT_SIZE_DEFAULT (64u << 20)
#define SPARES_MIN           2u
#define SPARES_MAX           4u
#define FREE_BATCHES_MAX     4u /* blocks kept for reuse */
/* Rest of the preparer after each piece, as a multiple of what the piece took: the more spares there
 * are, the less it matters when the next is ready. At most PREPARE_REST_MAX_NS. */
#define PREPARE_REST_FACTOR     1u
#define PREPARE_REST_PER_SPARE  2u
#define PREPARE_REST_MAX_NS     200000000u

/* One group commit under construction or under way. */
struct batch {
    struct wal_block block;
    void *memory;
    uint64_t ticket; /* newest call that ends in or before this batch */
    struct batch *next;
};

struct wal {
    uv_async_t async;
    wal_durable_cb durable;
    void *ctx;
    struct wal_io *io;            /* the directory */
    struct wal_watch_io watch_io; /* the same, for the writing thread: watched */
    struct wal_watch watch;
    uint64_t deadline_ns; /* 0: none */
    char *directory;
    size_t batch_capacity;

    /* loop's thread only */
    uint64_t term, last_index; /* as asked for so far: what the next call must agree with */
    uint64_t ticket_last, ticket_reported;
    struct histogram write_ns_copy;
    void (*done)(void *ctx);
    void *done_ctx;

    /* writing thread only, after open */
    struct wal_core core;
    pthread_t writer;

    pthread_mutex_t mutex;
    pthread_cond_t work;    /* for the writer: a batch, a trim, a spare, the end */
    pthread_cond_t written; /* for wal_wait and a full queue */
    pthread_cond_t prepare; /* for the preparer */
    /* shared, under the mutex */
    struct batch *head, *tail; /* oldest first; the tail is being gathered */
    struct batch *free;
    unsigned free_count;
    size_t queued_bytes;
    uint64_t ticket_durable, index_durable, term_durable;
    uint64_t trim_wanted, trim_done;
    bool trim_forced; /* a reset was written: older segments are void */
    bool stopping;
    bool writer_waits; /* for work, with nothing to do: a signal is due */
    struct wal_stats stats;
    struct histogram write_ns;
    bool spare_urgent; /* the writer waits for it */
    bool watching;     /* until the writer is gone */
    pthread_t watchdog;
    pthread_cond_t watch_end;
    /* the preparer: it creates `spare_number` while spare_busy, then reports it */
    pthread_t preparer;
    bool spare_busy, spare_ready, spare_failed;
    uint64_t spare_number;
};

/* The end of this process, at once: no destructor may run and no other thread may answer a client.
 * A thread that hangs in the disk outlives even _exit, and with it every open file, until the disk
 * answers. The lock on the directory may well stay that long: what hangs could still be written, and
 * nobody else must write there meanwhile. But the peers and gateways shall see now that nobody is
 * here, so the links are shut. */
_Noreturn static void end_process(void)
{
    DIR *files = opendir("/proc/self/fd");
    for (struct dirent *e; files != NULL && (e = readdir(files)) != NULL;) {
        (void)shutdown(atoi(e->d_name), SHUT_RDWR); /* what is no socket refuses */
    }
    _exit(WAL_EXIT_CODE);
}

/* A failed write is the end of this process: what is on disk is unknown, and to acknowledge
 * anything further would be a guess. */
_Noreturn static void wal_die(const struct wal *w, const char *what)
{
    log_error("log: %s/%s", w->directory, what);
    log_error("log: giving up: after a failed write nobody knows what is on the disk. The other "
              "nodes go on. Check the disk (space, errors), then start this node again");
    end_process();
}

_Noreturn static void wal_die_stuck(struct wal *w, uint64_t age_ns)
{
    char what[WAL_WATCH_WHAT_SIZE];
    wal_watch_what(&w->watch, what);
    log_error("log: %s/%s: no answer from the disk for %llu ms", w->directory, what,
              (unsigned long long)(age_ns / 1000000));
    log_error("log: giving up: the disk is stuck (--log-write-deadline). The other nodes go on. Check "
              "the disk, then start this node again; while the disk hangs the old process keeps the "
              "directory locked");
    end_process();
}

/* ---- batches (mutex held) ---- */

static struct batch *batch_get(struct wal *w)
{
    struct batch *b = w->free;
    if (b != NULL) {
        w->free = b->next;
        w->free_count--;
    } else {
        b = malloc(sizeof *b);
        CHECK(b != NULL);
        b->memory = aligned_alloc(WAL_BLOCK_SIZE, w->batch_capacity);
        CHECK(b->memory != NULL);
    }
    b->next = NULL;
    b->ticket = w->ticket_last;
    wal_block_init(&b->block, b->memory, w->batch_capacity);
    return b;
}

static void batch_destroy(struct batch *b)
{
    free(b->memory);
    free(b);
}

static void batch_put(struct wal *w, struct batch *b)
{
    if (w->free_count >= FREE_BATCHES_MAX) {
        batch_destroy(b);
        return;
    }
    b->next = w->free;
    w->free = b;
    w->free_count++;
}

static struct batch *batch_append(struct wal *w)
{
    struct batch *b = batch_get(w);
    if (w->tail != NULL) {
        w->tail->next = b;
    } else {
        w->head = b;
    }
    w->tail = b;
    return b;
}

/* A disk that stands still must not eat all memory: wait for it. */
static void queue_wait_for_room(struct wal *w)
{
    if (w->queued_bytes <= WAL_QUEUE_SIZE_MAX) {
        return;
    }
    log_warn("log: %zu bytes wait for the disk: waiting too", w->queued_bytes);
    while (w->queued_bytes > WAL_QUEUE_SIZE_MAX) {
        pthread_cond_wait(&w->written, &w->mutex);
    }
}

static void queue_record(struct wal *w, const struct record_header *record)
{
    if (w->tail == NULL || !wal_block_add(&w->tail->block, record)) {
        batch_append(w);
        CHECK(wal_block_add(&w->tail->block, record));
    }
    w->queued_bytes += record_size(record);
}

/* Ends a request. Unlocks first: the writer, woken with the mutex held, would only go to sleep
 * again. */
static uint64_t queue_finish_unlock(struct wal *w)
{
    uint64_t ticket = w->tail->ticket = ++w->ticket_last;
    bool wake = w->writer_waits;
    pthread_mutex_unlock(&w->mutex);
    if (wake) {
        pthread_cond_signal(&w->work);
    }
    return ticket;
}

/* ---- the writing thread ---- */

static void writer_collect_spare(struct wal *w)
{
    if (w->spare_ready) {
        w->spare_ready = false;
        wal_core_add_spare(&w->core, w->spare_number);
    }
    /* Not when stopping: the preparer may be gone, and nobody would ever answer. */
    if (!w->stopping && !w->spare_busy && !w->spare_failed && wal_core_wants_spare(&w->core)) {
        w->spare_number = wal_core_reserve_spare(&w->core);
        w->spare_busy = true;
        pthread_cond_signal(&w->prepare);
    }
    w->stats.segments = w->core.segments_count;
    w->stats.spares = w->core.spares_count;
}

static void writer_trim(struct wal *w)
{
    uint64_t upto = w->trim_wanted;
    bool forced = w->trim_forced;
    if (upto <= w->trim_done && !forced) {
        return;
    }
    w->trim_done = upto;
    w->trim_forced = false;
    pthread_mutex_unlock(&w->mutex);
    if (wal_core_trim(&w->core, upto) != 0) {
        wal_die(w, w->core.error);
    }
    pthread_mutex_lock(&w->mutex);
}

static void writer_write(struct wal *w, struct batch *b)
{
    /* Rather wait for a spare that is nearly made than make another beside it. */
    bool waits = w->core.spares_count == 0 && w->spare_busy &&
                 wal_core_needs_segment(&w->core, &b->block);
    if (waits) {
        w->spare_urgent = true;
        wal_watch_begin(&w->watch, "spare segment: waiting for it to be written");
        pthread_cond_signal(&w->prepare);
    }
    while (waits && w->core.spares_count == 0 && w->spare_busy) {
        pthread_cond_wait(&w->work, &w->mutex);
        writer_collect_spare(w);
    }
    if (waits) {
        w->spare_urgent = false;
        wal_watch_end(&w->watch);
    }
    pthread_mutex_unlock(&w->mutex);
    struct wal_write write;
    if (wal_core_seal(&w->core, &b->block, &write) != 0) {
        wal_die(w, w->core.error);
    }
    uint64_t began = clock_monotonic_ns();
    if (wal_core_write(&w->core, &write) != 0) {
        wal_die(w, w->core.error);
    }
    uint64_t duration = clock_monotonic_ns() - began;

    pthread_mutex_lock(&w->mutex);
    w->spare_failed = false; /* try again: there may be space now */
    w->stats.writes++;
    w->stats.bytes += write.size;
    w->stats.records += b->block.count;
    histogram_add(&w->write_ns, duration);
    w->queued_bytes -= b->block.size - sizeof(struct wal_write_header);
    w->ticket_durable = b->ticket;
    w->index_durable = w->core.last_index;
    w->term_durable = w->core.last_term;
    w->trim_forced |= write.resets;
    batch_put(w, b);
    pthread_cond_broadcast(&w->written);
    pthread_mutex_unlock(&w->mutex); /* the loop takes it as soon as it wakes */
    uv_async_send(&w->async);
    pthread_mutex_lock(&w->mutex);
}

static void *writer_main(void *arg)
{
    struct wal *w = arg;
    pthread_mutex_lock(&w->mutex);
    for (;;) {
        writer_collect_spare(w);
        if (w->head != NULL) {
            struct batch *b = w->head;
            w->head = b->next;
            if (w->head == NULL) {
                w->tail = NULL;
            }
            writer_write(w, b);
        } else if (w->trim_wanted > w->trim_done || w->trim_forced) {
            writer_trim(w);
        } else if (w->stopping) {
            break;
        } else {
            w->writer_waits = true;
            pthread_cond_wait(&w->work, &w->mutex);
            w->writer_waits = false;
            continue;
        }
        /* Under constant load the queue is never empty: trimming must not starve. */
        writer_trim(w);
    }
    pthread_mutex_unlock(&w->mutex);
    if (wal_core_mark(&w->core) != 0) {
        log_warn("log: %s/%s: the mark of a clean stop is not written: the log itself is whole",
                 w->directory, w->core.error);
    }
    return NULL;
}

/* ---- the watching thread ---- */

static void *watchdog_main(void *arg)
{
    struct wal *w = arg;
    pthread_mutex_lock(&w->mutex);
    while (w->watching) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += WAL_WATCH_INTERVAL_MS * 1000000l;
        until.tv_sec += until.tv_nsec / 1000000000l;
        until.tv_nsec %= 1000000000l;
        (void)pthread_cond_timedwait(&w->watch_end, &w->mutex, &until);
        pthread_mutex_unlock(&w->mutex);
        uint64_t age_ns = wal_watch_observe(&w->watch, clock_monotonic_ns());
        if (w->deadline_ns > 0 && age_ns >= w->deadline_ns) {
            wal_die_stuck(w, age_ns);
        }
        pthread_mutex_lock(&w->mutex);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

/* ---- the preparing thread ---- */

/* After each piece of a segment of zeros, on whatever thread writes it. false: nobody needs it. */
static bool piece_written(void *ctx, uint64_t took_ns)
{
    struct wal *w = ctx;
    pthread_mutex_lock(&w->mutex);
    bool prepares = pthread_equal(pthread_self(), w->preparer) != 0;
    if (prepares) {
        uint64_t rest_ns =
            took_ns * (PREPARE_REST_FACTOR + PREPARE_REST_PER_SPARE * (uint64_t)w->stats.spares);
        rest_ns = rest_ns < PREPARE_REST_MAX_NS ? rest_ns : PREPARE_REST_MAX_NS;
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        rest_ns += (uint64_t)until.tv_nsec;
        until.tv_sec += (time_t)(rest_ns / 1000000000u);
        until.tv_nsec = (long)(rest_ns % 1000000000u);
        int rv = 0;
        while (!w->spare_urgent && !w->stopping && rv == 0) {
            rv = pthread_cond_timedwait(&w->prepare, &w->mutex, &until);
        }
        if (w->spare_urgent) {
            wal_watch_progress(&w->watch); /* the disk answers; it is only slow */
        }
    } else {
        wal_watch_progress(&w->watch);
    }
    bool go_on = !prepares || !w->stopping || w->spare_urgent;
    pthread_mutex_unlock(&w->mutex);
    return go_on;
}

static void *preparer_main(void *arg)
{
    struct wal *w = arg;
    pthread_mutex_lock(&w->mutex);
    for (;;) {
        while (!w->spare_busy && !w->stopping) {
            pthread_cond_wait(&w->prepare, &w->mutex);
        }
        if (w->stopping) {
            break;
        }
        uint64_t number = w->spare_number;
        uint64_t size = w->core.config.segment_size;
        pthread_mutex_unlock(&w->mutex);
        int rv = wal_spare_create(w->io, number, size);
        pthread_mutex_lock(&w->mutex);
        if (rv < 0 && !w->stopping) {
            /* Not yet fatal: trimming may give us a segment before one is needed. */
            log_warn("log: %s: making a spare segment of %llu bytes: %s", w->directory,
                     (unsigned long long)size, strerror(-rv));
        }
        w->spare_busy = false;
        w->spare_ready = rv == 0;
        w->spare_failed = rv < 0;
        pthread_cond_signal(&w->work);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

/* ---- open and close ---- */

static void wal_report(struct wal *w)
{
    pthread_mutex_lock(&w->mutex);
    uint64_t ticket = w->ticket_durable, index = w->index_durable, term = w->term_durable;
    pthread_mutex_unlock(&w->mutex);
    if (ticket > w->ticket_reported) {
        FAILPOINT("wal/before-report", "the loop has heard that entries are on the disk, the core has not");
        w->ticket_reported = ticket;
        w->durable(w->ctx, ticket, index, term);
    }
}

static void wal_durable_async_cb(uv_async_t *async)
{
    struct wal *w = async->data;
    wal_report(w);
}

static void log_recovered(const struct wal *w, const struct wal_recovered *r)
{
    if (r->fresh) {
        log_info("log: %s: new log", w->directory);
        return;
    }
    log_info("log: %s: recovered entries %llu to %llu, term %llu, vote %llu, segments %zu",
             w->directory, (unsigned long long)r->base_index + 1,
             (unsigned long long)r->base_index + r->count, (unsigned long long)r->term,
             (unsigned long long)r->vote, w->core.segments_count);
}

void wal_start(struct wal *w, uv_loop_t *loop)
{
    CHECK(uv_async_init(loop, &w->async, wal_durable_async_cb) == 0);
    w->async.data = w;
    CHECK(pthread_mutex_init(&w->mutex, NULL) == 0);
    CHECK(pthread_cond_init(&w->work, NULL) == 0);
    CHECK(pthread_cond_init(&w->written, NULL) == 0);
    pthread_condattr_t monotonic;
    CHECK(pthread_condattr_init(&monotonic) == 0);
    CHECK(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&w->prepare, &monotonic) == 0);
    CHECK(pthread_cond_init(&w->watch_end, &monotonic) == 0);
    pthread_condattr_destroy(&monotonic);
    w->watching = true;
    wal_io_posix_set_piece_cb(w->io, piece_written, w);
    pthread_mutex_lock(&w->mutex); /* threads know their ids only when all are stored */
    CHECK(pthread_create(&w->writer, NULL, writer_main, w) == 0);
    CHECK(pthread_create(&w->preparer, NULL, preparer_main, w) == 0);
    CHECK(pthread_create(&w->watchdog, NULL, watchdog_main, w) == 0);
    pthread_mutex_unlock(&w->mutex);
}

int wal_open(uv_loop_t *loop, const struct wal_config *config, wal_durable_cb durable, void *ctx,
             struct wal **wal, struct wal_recovered *recovered)
{
    uint64_t size = config->segment_size > 0 ? config->segment_size : SEGMENT_SIZE_DEFAULT;
    size = wal_round_up(size);
    if (size < WAL_BLOCK_SIZE + wal_round_up(RECORD_SPAN_MAX + sizeof(struct wal_write_header)) ||
        size > WAL_SEGMENT_SIZE_MAX) {
        log_error("log: segments of %llu bytes: at least %llu (one entry of the largest size) and "
                  "at most %u are possible",
                  (unsigned long long)size,
                  (unsigned long long)(WAL_BLOCK_SIZE + wal_round_up(RECORD_SPAN_MAX + 64)),
                  WAL_SEGMENT_SIZE_MAX);
        return -1;
    }
    struct wal *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    w->durable = durable;
    w->ctx = ctx;
    w->directory = strdup(config->directory);
    CHECK(w->directory != NULL);
    w->batch_capacity = wal_block_capacity_max(size);
    histogram_init(&w->write_ns);
    w->io = wal_io_posix_create(config->directory, config->sync);
    if (w->io == NULL) {
        goto err_after_alloc;
    }
    wal_watch_init(&w->watch);
    wal_watch_io_init(&w->watch_io, w->io, &w->watch);
    w->deadline_ns = config->write_deadline_ms * 1000000u;
    struct wal_core_config core_config = {.node_id = config->node_id,
                                          .segment_size = size,
                                          .spares_min = 0, /* see below */
                                          .spares_max = SPARES_MAX};
    memcpy(core_config.cluster_id, config->cluster_id, WAL_CLUSTER_ID_SIZE);
    if (wal_core_open(&w->core, &core_config, &w->watch_io.io, recovered) != 0) {
        log_error("log: %s/%s", w->directory, w->core.error);
        goto err_after_io;
    }
    if (!config->sync) {
        log_warn("log: %s: writes are not synced (log_sync=false): nothing is durable",
                 w->directory);
    }
    log_recovered(w, recovered);
    w->core.config.spares_min = SPARES_MIN; /* from now on, by the preparer: open waits for none */
    w->term = recovered->term;
    w->last_index = w->index_durable = w->core.last_index;
    w->term_durable = w->core.last_term;
    w->stats.segments = w->core.segments_count;
    w->stats.spares = w->core.spares_count;

    if (loop != NULL) {
        wal_start(w, loop);
    }
    *wal = w;
    return 0;

err_after_io:
    wal_watch_close(&w->watch);
    wal_io_posix_destroy(w->io);
err_after_alloc:
    free(w->directory);
    free(w);
    return -1;
}

static void wal_close_cb(uv_handle_t *handle)
{
    struct wal *w = handle->data;
    wal_report(w);
    for (struct batch *b = w->free; b != NULL;) {
        struct batch *next = b->next;
        batch_destroy(b);
        b = next;
    }
    pthread_mutex_destroy(&w->mutex);
    pthread_cond_destroy(&w->work);
    pthread_cond_destroy(&w->written);
    pthread_cond_destroy(&w->prepare);
    pthread_cond_destroy(&w->watch_end);
    wal_core_close(&w->core);
    wal_watch_close(&w->watch);
    wal_io_posix_destroy(w->io);
    void (*done)(void *) = w->done;
    void *done_ctx = w->done_ctx;
    free(w->directory);
    free(w);
    if (done != NULL) {
        done(done_ctx);
    }
}

void wal_close(struct wal *w, void (*done)(void *ctx), void *ctx)
{
    w->done = done;
    w->done_ctx = ctx;
    pthread_mutex_lock(&w->mutex);
    w->stopping = true;
    pthread_cond_broadcast(&w->work);
    pthread_cond_broadcast(&w->prepare);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->preparer, NULL);
    pthread_mutex_lock(&w->mutex);
    w->spare_busy = false; /* asked for too late */
    pthread_cond_broadcast(&w->work);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->writer, NULL);
    CHECK(w->head == NULL);
    pthread_mutex_lock(&w->mutex);
    w->watching = false;
    pthread_cond_signal(&w->watch_end);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->watchdog, NULL);
    uv_close((uv_handle_t *)&w->async, wal_close_cb);
}

/* ---- requests ---- */

uint64_t wal_append(struct wal *w, const struct record_header *const *records, size_t count)
{
    CHECK(count > 0);
    FAILPOINT("wal/before-append", "entries are in memory, not yet with the log's thread");
    pthread_mutex_lock(&w->mutex);
    queue_wait_for_room(w);
    for (size_t i = 0; i < count; i++) {
        const struct record_header *record = records[i];
        CHECK(record->type != RECORD_VOTE);
        CHECK(record->term <= w->term);
        CHECK(record->index > 0);
        CHECK(record->index <= w->last_index + 1);
        CHECK(record_size(record) <= RECORD_SPAN_MAX);
        queue_record(w, record);
        w->last_index = record->index;
    }
    uint64_t ticket = queue_finish_unlock(w);
    FAILPOINT("wal/after-append", "entries are with the log's thread, being written or not");
    return ticket;
}

uint64_t wal_set_vote(struct wal *w, uint64_t term, uint64_t vote)
{
    CHECK(term >= w->term);
    _Alignas(8) uint8_t record[RECORD_VOTE_SPAN];
    record_encode_vote(record, term, vote);
    pthread_mutex_lock(&w->mutex);
    w->term = term;
    queue_record(w, (const struct record_header *)(const void *)record);
    return queue_finish_unlock(w);
}

uint64_t wal_reset(struct wal *w, uint64_t index, uint64_t term)
{
    CHECK(term <= w->term);
    pthread_mutex_lock(&w->mutex);
    wal_block_add_reset(&batch_append(w)->block, index, term);
    w->last_index = index;
    return queue_finish_unlock(w);
}

void wal_trim(struct wal *w, uint64_t upto_index)
{
    pthread_mutex_lock(&w->mutex);
    if (upto_index > w->trim_wanted) {
        w->trim_wanted = upto_index;
        pthread_cond_signal(&w->work);
    }
    pthread_mutex_unlock(&w->mutex);
}

void wal_wait(struct wal *w, uint64_t ticket)
{
    CHECK(ticket <= w->ticket_last);
    pthread_mutex_lock(&w->mutex);
    while (w->ticket_durable < ticket) {
        pthread_cond_wait(&w->written, &w->mutex);
    }
    pthread_mutex_unlock(&w->mutex);
}

uint64_t wal_durable_ticket(struct wal *w)
{
    pthread_mutex_lock(&w->mutex);
    uint64_t ticket = w->ticket_durable;
    pthread_mutex_unlock(&w->mutex);
    return ticket;
}

size_t wal_queued_bytes(struct wal *w)
{
    pthread_mutex_lock(&w->mutex);
    size_t bytes = w->queued_bytes;
    pthread_mutex_unlock(&w->mutex);
    return bytes;
}

uint64_t wal_write_age_ms(struct wal *w)
{
    return wal_watch_age_ns(&w->watch) / 1000000;
}

void wal_get_stats(struct wal *w, struct wal_stats *stats)
{
    pthread_mutex_lock(&w->mutex);
    *stats = w->stats;
    w->write_ns_copy = w->write_ns;
    pthread_mutex_unlock(&w->mutex);
    stats->write_ns = &w->write_ns_copy;
}
