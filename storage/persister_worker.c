/* See persister_worker.h: the thread's work, what it shares with the loop, and the figures. Everything
 * shared is under one mutex that is only ever held for copying. */
#include "storage/persister_worker.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/metrics.h"
#include "storage/migrate.h"
#include "storage/persister_queue.h"
#include "storage/persister_stream.h"
#include "storage/persister_thread.h"

#define WINDOW_EVENTS_MIN 64    /* to which windows shrink when transactions fail */
#define LOG_AGAIN_MS      30000 /* the same error is logged again after this time */

struct worker {
    /* for good */
    struct persister_config config;
    char *url;
    char described[256]; /* the URL without secrets */
    struct persister_thread *thread;

    pthread_mutex_t mutex;
    struct { /* under it */
        /* the loop's orders */
        uint64_t generation; /* grows with each order */
        bool leading, stopping;
        uint64_t term, first_sequence;
        /* events */
        struct persister_queue queue;
        size_t wake_at;       /* the thread wants to be woken at so many */
        uint64_t uncommitted; /* offered to this stream and not persisted */
        bool starved;         /* an offer found no room */
        /* news */
        struct worker_news news;
        /* figures */
        uint64_t persisted, events, transactions, errors, streams;
        uint64_t rows[COPY_COUNT];
        int64_t oldest_ms; /* about when the oldest uncommitted event happened */
        bool connected, fenced;
        char error[256];
        struct histogram duration;
    } shared;

    /* the thread's own */
    struct stream stream;
    uint64_t generation;
    uint64_t floor; /* all before it is acknowledged */
    uint64_t term;
    bool leading;
    size_t
        window_max; /* events; shrinks when transactions fail, so that a slow server gets through */
    uint64_t window_at_ms; /* when the last was built */
    uint64_t retry_at_ms, backoff_ms;
    uint64_t logged_at_ms;
    char logged[256];
    const struct persister_event *peeked[PERSISTER_BATCH_EVENTS_MAX];
};

/* ---- for the loop's thread ---- */

static void give_order(struct worker *w, bool leading, uint64_t term, uint64_t first_sequence)
{
    pthread_mutex_lock(&w->mutex);
    w->shared.generation++;
    w->shared.leading = leading;
    w->shared.term = term;
    w->shared.first_sequence = first_sequence;
    w->shared.news =
        (struct worker_news){.ended = w->shared.news.ended}; /* they were of the old order */
    w->shared.fenced = w->shared.connected = false;
    pthread_mutex_unlock(&w->mutex);
    persister_thread_wake(w->thread);
}

void worker_lead(struct worker *w, uint64_t term, uint64_t first_sequence)
{
    give_order(w, true, term, first_sequence);
}

void worker_follow(struct worker *w)
{
    give_order(w, false, 0, 0);
}

size_t worker_offer(struct worker *w, uint64_t stream, const struct event_view *events,
                    size_t count)
{
    size_t taken = 0;
    bool wake = false;
    pthread_mutex_lock(&w->mutex);
    if (w->shared.news.stream == stream) {
        while (taken < count && w->shared.uncommitted < PERSISTER_QUEUE_EVENTS_MAX &&
               persister_queue_push(&w->shared.queue, &events[taken])) {
            CHECK(events[taken].sequence == events[0].sequence + taken);
            w->shared.oldest_ms =
                w->shared.uncommitted == 0 ? events[taken].time_ms : w->shared.oldest_ms;
            w->shared.uncommitted++;
            taken++;
        }
        w->shared.starved = w->shared.starved || taken < count;
        wake = w->shared.queue.events >= w->shared.wake_at;
        w->shared.wake_at = wake ? SIZE_MAX : w->shared.wake_at; /* once */
    }
    pthread_mutex_unlock(&w->mutex);
    if (wake) {
        persister_thread_wake(w->thread);
    }
    return taken;
}

void worker_take_news(struct worker *w, struct worker_news *news)
{
    pthread_mutex_lock(&w->mutex);
    *news = w->shared.news;
    w->shared.news.opened = w->shared.news.room = false;
    w->shared.news.acked = 0;
    pthread_mutex_unlock(&w->mutex);
}

void worker_get_status(struct worker *w, struct persister_status *out)
{
    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&w->mutex);
    out->leading = w->shared.leading;
    out->connected = w->shared.connected;
    out->fenced = w->shared.fenced;
    memcpy(out->error, w->shared.error, sizeof out->error);
    out->persisted_sequence = w->shared.persisted;
    out->events_total = w->shared.events;
    out->transactions_total = w->shared.transactions;
    out->errors_total = w->shared.errors;
    out->queue_events = w->shared.uncommitted;
    pthread_mutex_unlock(&w->mutex);
    memcpy(out->url, w->described, sizeof out->url);
}

void worker_write_metrics(struct worker *w, struct text *t)
{
    static const char *const tables[COPY_COUNT] = {
        [COPY_ORDERS] = "table=\"orders\"",
        [COPY_ORDER_LINES] = "table=\"order_lines\"",
        [COPY_PAYMENTS] = "table=\"payments\"",
        [COPY_OUTBOX] = "table=\"outbox\"",
    };
    struct persister_status s;
    worker_get_status(w, &s);
    struct histogram *duration = malloc(sizeof *duration);
    CHECK(duration != NULL);
    uint64_t rows[COPY_COUNT], streams;
    pthread_mutex_lock(&w->mutex);
    memcpy(rows, w->shared.rows, sizeof rows);
    streams = w->shared.streams;
    int64_t lag_ms = w->shared.uncommitted > 0 ? clock_wall_ms() - w->shared.oldest_ms : 0;
    *duration = w->shared.duration;
    pthread_mutex_unlock(&w->mutex);

    metrics_single(t, "holdfast_persist_connected", "gauge", "1 while writing to PostgreSQL.",
                   s.connected);
    metrics_single(t, "holdfast_persist_fenced", "gauge",
                   "1 when a later leader writes to PostgreSQL.", s.fenced);
    metrics_single(t, "holdfast_persist_queue_events", "gauge",
                   "Events handed to the persister and not committed.", (double)s.queue_events);
    metrics_single(t, "holdfast_persist_lag_seconds", "gauge",
                   "Age of the oldest event handed to the persister and not committed.",
                   lag_ms > 0 ? (double)lag_ms / 1e3 : 0);
    metrics_single(t, "holdfast_persist_sequence", "gauge",
                   "All events up to this sequence are committed.", (double)s.persisted_sequence);
    metrics_single(t, "holdfast_persist_events_total", "counter", "Events committed.",
                   (double)s.events_total);
    metrics_single(t, "holdfast_persist_transactions_total", "counter", "Transactions committed.",
                   (double)s.transactions_total);
    metrics_single(t, "holdfast_persist_errors_total", "counter",
                   "Times that writing was given up and begun again.", (double)s.errors_total);
    metrics_single(t, "holdfast_persist_connects_total", "counter",
                   "Times that the fence was taken and writing began.", (double)streams);
    metrics_family(t, "holdfast_persist_batch_rows_total", "counter", "Rows inserted.");
    for (int i = 0; i < COPY_COUNT; i++) {
        metrics_sample_u64(t, "holdfast_persist_batch_rows_total", tables[i], rows[i]);
    }
    metrics_family(t, "holdfast_persist_transaction_duration_seconds", "histogram",
                   "From BEGIN to the answer to COMMIT.");
    metrics_histogram_seconds(t, "holdfast_persist_transaction_duration_seconds", NULL, duration);
    free(duration);
}

void worker_stop(struct worker *w)
{
    pthread_mutex_lock(&w->mutex);
    w->shared.stopping = true;
    w->shared.generation++;
    pthread_mutex_unlock(&w->mutex);
    persister_thread_wake(w->thread);
}

/* ---- the thread ---- */

/* Ends the stream and drops the queue: no offer gets in until the next stream is open. The loop is
 * told, so that it does not go on offering in vain. */
static void end_stream(struct worker *w)
{
    stream_reset(&w->stream);
    pthread_mutex_lock(&w->mutex);
    w->shared.news.stream = 0;
    w->shared.news.opened = w->shared.news.room = false;
    w->shared.starved = false;
    w->shared.uncommitted = 0;
    w->shared.connected = false;
    persister_queue_clear(&w->shared.queue);
    pthread_mutex_unlock(&w->mutex);
    persister_thread_wake_loop(w->thread);
}

/* The loop gave an order since the last look: what was under way is void. Returns false to stop. */
static bool take_order(struct worker *w, uint64_t now_ms)
{
    pthread_mutex_lock(&w->mutex);
    bool stopping = w->shared.stopping;
    bool changed = w->shared.generation != w->generation;
    w->generation = w->shared.generation;
    w->leading = w->shared.leading;
    if (changed) {
        w->term = w->shared.term;
        w->floor = w->shared.first_sequence;
        w->shared.error[0] = '\0';
    }
    pthread_mutex_unlock(&w->mutex);
    if (changed || stopping) {
        end_stream(w);
        w->backoff_ms = 0;
        w->retry_at_ms = now_ms;
        w->window_max = PERSISTER_BATCH_EVENTS_MAX;
    }
    return !stopping;
}

static void publish_open(struct worker *w)
{
    uint64_t wanted = stream_first_wanted(&w->stream);
    pthread_mutex_lock(&w->mutex);
    w->shared.streams++;
    w->shared.connected = true;
    w->shared.persisted = wanted - 1;
    if (w->shared.generation == w->generation) {
        w->shared.news.stream = w->shared.streams;
        w->shared.news.opened = true;
        w->shared.news.wanted = wanted;
        w->shared.news.acked = wanted - 1; /* perhaps the last stream's acknowledgement was lost */
    }
    pthread_mutex_unlock(&w->mutex);
    w->floor = wanted;
    log_info("persister: writing to PostgreSQL (%s) term=%" PRIu64 " sequence=%" PRIu64,
             w->described, w->term, wanted);
    w->logged[0] = '\0';
    persister_thread_wake_loop(w->thread);
}

static void publish_persisted(struct worker *w, const struct window *window)
{
    FAILPOINT("persister/before-told", "events are in PostgreSQL, the loop does not know");
    w->floor = window->last_sequence + 1;
    pthread_mutex_lock(&w->mutex);
    w->shared.persisted = window->last_sequence;
    w->shared.events += window->events;
    w->shared.transactions = w->stream.transactions;
    w->shared.duration = *w->stream.duration;
    for (int i = 0; i < COPY_COUNT; i++) {
        w->shared.rows[i] += window->rows[i];
    }
    w->shared.error[0] = '\0';
    CHECK(w->shared.uncommitted >= window->events);
    w->shared.uncommitted -= window->events;
    w->shared.oldest_ms = window->last_time_ms; /* what is left came after it */
    if (w->shared.generation == w->generation) {
        w->shared.news.acked = window->last_sequence;
        if (w->shared.starved && w->shared.uncommitted <= PERSISTER_QUEUE_EVENTS_MAX / 2) {
            w->shared.starved = false;
            w->shared.news.room = true;
        }
    }
    pthread_mutex_unlock(&w->mutex);
    persister_thread_wake_loop(w->thread);
}

/* The stream failed: say why, and when to begin again. */
static void give_up(struct worker *w, uint64_t now_ms)
{
    const struct persister_config *c = &w->config;
    bool fenced = w->stream.fenced;
    if (strcmp(w->logged, w->stream.error) != 0 || now_ms >= w->logged_at_ms + LOG_AGAIN_MS) {
        log_warn("persister: %s%s (%s)", w->stream.error, fenced ? "" : "; trying again",
                 w->described);
        memcpy(w->logged, w->stream.error, sizeof w->logged);
        w->logged_at_ms = now_ms;
    }
    char error[sizeof w->shared.error];
    memcpy(error, w->stream.error, sizeof error);
    end_stream(w);
    pthread_mutex_lock(&w->mutex);
    memcpy(w->shared.error, error, sizeof error);
    w->shared.errors++;
    w->shared.fenced = fenced && w->shared.generation == w->generation;
    pthread_mutex_unlock(&w->mutex);
    if (fenced) {
        w->retry_at_ms = UINT64_MAX; /* idle until the next order */
        return;
    }
    w->backoff_ms = w->backoff_ms == 0 ? c->connect_backoff_min_ms : 2 * w->backoff_ms;
    w->backoff_ms =
        w->backoff_ms < c->connect_backoff_max_ms ? w->backoff_ms : c->connect_backoff_max_ms;
    w->retry_at_ms = now_ms + w->backoff_ms;
    w->window_max = w->window_max / 2 > WINDOW_EVENTS_MIN ? w->window_max / 2 : WINDOW_EVENTS_MIN;
}

/* How long small windows are held back, so that a trickle of events does not become a stream of
 * transactions that rewrite all watermarks. */
static uint64_t linger_ms(const struct worker *w)
{
    uint64_t by_shards = w->config.shards / 8;
    return by_shards > PERSISTER_LINGER_MS ? by_shards : PERSISTER_LINGER_MS;
}

/* Builds windows while there are events to build them of: a full one if there is room, a small one
 * if nothing else is under way and it was held back long enough. Returns when to look again; sets
 * what number of events should wake the thread before. */
static uint64_t build_windows(struct worker *w, uint64_t now_ms)
{
    uint64_t due_ms = w->window_at_ms + linger_ms(w);
    for (;;) {
        bool room = stream_has_room(&w->stream);
        bool hurry = room && stream_is_idle(&w->stream) && now_ms >= due_ms;
        size_t least = hurry ? 1 : w->window_max;
        pthread_mutex_lock(&w->mutex);
        size_t waiting = w->shared.queue.events;
        size_t count = !room || waiting < least
                           ? 0
                           : persister_queue_peek(&w->shared.queue, w->peeked, w->window_max);
        w->shared.wake_at = !room ? SIZE_MAX : waiting > 0 ? least : 1;
        pthread_mutex_unlock(&w->mutex);
        if (count == 0) {
            bool lingering = room && waiting > 0 && stream_is_idle(&w->stream);
            return lingering ? due_ms : UINT64_MAX;
        }
        stream_build(&w->stream, w->peeked, count,
                     now_ms); /* blocks stay until they are released */
        w->window_at_ms = now_ms;
        due_ms = now_ms + linger_ms(w);
        pthread_mutex_lock(&w->mutex);
        persister_queue_release(&w->shared.queue, count);
        pthread_mutex_unlock(&w->mutex);
    }
}

/* Returns when to be called again, whatever happens. */
static uint64_t advance(struct worker *w, uint32_t ready, uint64_t now_ms)
{
    struct stream *s = &w->stream;
    if (s->state == STREAM_IDLE) {
        if (!w->leading || now_ms < w->retry_at_ms) {
            return w->leading ? w->retry_at_ms : UINT64_MAX;
        }
        stream_begin(s, w->term, w->floor, now_ms);
        ready = 0;
    }
    bool opening = s->state == STREAM_STARTING;
    enum stream_state state = stream_tick(s, ready, now_ms);
    if (state == STREAM_OPEN && opening) {
        w->window_at_ms = 0;
        publish_open(w);
    }
    struct window window;
    while (stream_take_persisted(s, &window)) {
        publish_persisted(w, &window);
        w->backoff_ms = 0;
        w->window_max = 2 * w->window_max < PERSISTER_BATCH_EVENTS_MAX ? 2 * w->window_max
                                                                       : PERSISTER_BATCH_EVENTS_MAX;
    }
    uint64_t look_again_ms = UINT64_MAX;
    if (s->state == STREAM_OPEN) {
        look_again_ms = build_windows(w, now_ms);
    }
    if (s->state == STREAM_FAILED) {
        give_up(w, now_ms);
        return w->retry_at_ms;
    }
    uint64_t deadline_ms = stream_deadline_ms(s);
    return look_again_ms < deadline_ms ? look_again_ms : deadline_ms;
}

bool worker_step(struct worker *w, uint32_t ready, uint64_t now_ms, uint64_t *until_ms)
{
    if (take_order(w, now_ms)) {
        *until_ms = advance(w, ready, now_ms);
        return true;
    }
    pthread_mutex_lock(&w->mutex);
    w->shared.news.ended = true;
    pthread_mutex_unlock(&w->mutex);
    return false;
}

uint32_t worker_poll(const struct worker *w, struct pollfd *fds)
{
    for (uint32_t i = 0; i < w->stream.lanes; i++) {
        const struct lane *lane = &w->stream.runs[i].lane;
        fds[i] = (struct pollfd){.fd = lane_fd(lane), .events = lane->poll_events};
    }
    return w->stream.lanes;
}

struct worker *worker_create(const struct persister_config *config, struct persister_thread *thread)
{
    struct worker *w = calloc(1, sizeof *w);
    if (w == NULL) {
        return NULL;
    }
    w->config = *config;
    w->url = strdup(config->url);
    if (w->url == NULL) {
        free(w);
        return NULL;
    }
    w->config.url = w->url;
    w->thread = thread;
    migrate_describe_url(w->url, w->described, sizeof w->described);
    pthread_mutex_init(&w->mutex, NULL);
    histogram_init(&w->shared.duration);
    persister_queue_init(&w->shared.queue);
    stream_init(&w->stream, &w->config);
    return w;
}

void worker_destroy(struct worker *w)
{
    stream_close(&w->stream);
    persister_queue_close(&w->shared.queue);
    pthread_mutex_destroy(&w->mutex);
    free(w->url);
    free(w);
}
