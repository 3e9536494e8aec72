/* See persister_stream.h: windows, and the transactions that the lanes make of them.
 *
 * A transaction, in its order:
 *     BEGIN; holdfast.advance(term, shards, where they are, last sequence)   refused: roll back
 * everything holdfast.change_orders, holdfast.put_eligibilities                     if there is
 * something to COPY orders, order_lines, payments, outbox; COMMIT advance comes first: it locks the
 * watermarks, so that the fence of a later leader waits for this transaction, and no row is written
 * by one that is too late. The watermarks must be exactly where this stream left them: a
 * transaction of an earlier connection, still under way in the server when its answer was given up,
 * either commits before and makes this one fail, or fails itself. */
#include "storage/persister_stream.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/histogram.h"

void stream_init(struct stream *s, const struct persister_config *config)
{
    *s = (struct stream){
        .url = config->url,
        .shards = config->shards,
        .lanes = config->shards < PERSISTER_LANES ? config->shards : PERSISTER_LANES,
        .watermarks = calloc(config->shards, sizeof *s->watermarks),
        .offsets = calloc(config->shards + 1, sizeof *s->offsets),
        .sorted = calloc(PERSISTER_BATCH_EVENTS_MAX, sizeof(struct persister_event *)),
        .duration = malloc(sizeof *s->duration),
    };
    CHECK(s->watermarks != NULL && s->offsets != NULL && s->sorted != NULL && s->duration != NULL);
    histogram_init(s->duration);
    memcpy(s->cluster_id, config->cluster_id, sizeof s->cluster_id);
    for (uint32_t i = 0; i < s->lanes; i++) {
        s->runs[i].first_shard = s->shards * i / s->lanes;
        s->runs[i].end_shard = s->shards * (i + 1) / s->lanes;
        for (int k = 0; k < PERSISTER_WINDOWS; k++) {
            persister_rows_init(&s->runs[i].rows[k]);
        }
    }
}

void stream_close(struct stream *s)
{
    stream_reset(s);
    for (uint32_t i = 0; i < s->lanes; i++) {
        for (int k = 0; k < PERSISTER_WINDOWS; k++) {
            persister_rows_close(&s->runs[i].rows[k]);
        }
    }
    text_close(&s->sql);
    free(s->duration);
    free(s->sorted);
    free(s->offsets);
    free(s->watermarks);
}

void stream_begin(struct stream *s, uint64_t term, uint64_t floor, uint64_t now_ms)
{
    CHECK(s->state == STREAM_IDLE);
    s->state = STREAM_STARTING;
    s->step = START_CONNECT;
    s->term = term;
    s->floor = floor;
    lane_open(&s->runs[0].lane, s->url, now_ms);
}

void stream_reset(struct stream *s)
{
    for (uint32_t i = 0; i < s->lanes; i++) {
        struct lane_run *run = &s->runs[i];
        lane_close(&run->lane);
        run->session = false;
        run->step = RUN_NONE;
        run->window = 0;
    }
    s->state = STREAM_IDLE;
    s->built = s->persisted = 0;
    s->created = s->evictions = 0;
    s->fenced = false;
    s->error[0] = '\0';
}

void stream_fail(struct stream *s, const char *error)
{
    str_copy(s->error, sizeof s->error, str_from(error));
    s->state = STREAM_FAILED;
}

void stream_fail_lane(struct stream *s, const struct lane *lane)
{
    char error[sizeof lane->error + 32];
    int n = snprintf(error, sizeof error, "%s", lane->error);
    if (lane->sqlstate[0] != '\0') {
        snprintf(error + n, sizeof error - (size_t)n, " (SQLSTATE %s)", lane->sqlstate);
    }
    stream_fail(s, error);
}

uint64_t stream_first_wanted(const struct stream *s)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < s->shards; i++) {
        least = s->watermarks[i] < least ? s->watermarks[i] : least;
    }
    return least + 1;
}

bool stream_has_room(const struct stream *s)
{
    return s->state == STREAM_OPEN && s->built - s->persisted < PERSISTER_WINDOWS;
}

bool stream_is_idle(const struct stream *s)
{
    return s->built == s->persisted;
}

uint64_t stream_deadline_ms(const struct stream *s)
{
    uint64_t deadline = UINT64_MAX;
    for (uint32_t i = 0; i < s->lanes; i++) {
        const struct lane *lane = &s->runs[i].lane;
        if ((lane->state == LANE_CONNECTING || lane->state == LANE_BUSY) &&
            lane->deadline_ms < deadline) {
            deadline = lane->deadline_ms;
        }
    }
    return deadline;
}

/* ---- windows ---- */

/* Sorts by shard, keeping the order within one: s->sorted, of shard i from offsets[i] to offsets[i
 * + 1]. Leaves out what a shard's watermark has already. */
static void sort_by_shard(struct stream *s, const struct persister_event *const *events,
                          size_t count)
{
    memset(s->offsets, 0, (s->shards + 1) * sizeof *s->offsets);
    for (size_t i = 0; i < count; i++) {
        CHECK(events[i]->shard < s->shards);
        s->offsets[events[i]->shard] += events[i]->sequence > s->watermarks[events[i]->shard];
    }
    uint32_t end = 0;
    for (uint32_t i = 0; i <= s->shards; i++) { /* counts become ends */
        end += i < s->shards ? s->offsets[i] : 0;
        s->offsets[i] = end;
    }
    for (size_t i = count; i-- > 0;) { /* ends become starts, from the back: stable */
        const struct persister_event *e = events[i];
        if (e->sequence > s->watermarks[e->shard]) {
            s->sorted[--s->offsets[e->shard]] = e;
        }
    }
}

void stream_build(struct stream *s, const struct persister_event *const *events, size_t count,
                  uint64_t now_ms)
{
    CHECK(stream_has_room(s));
    CHECK(count > 0 && count <= PERSISTER_BATCH_EVENTS_MAX);
    uint64_t slot = s->built % PERSISTER_WINDOWS;
    struct window *w = &s->windows[slot];
    *w = (struct window){
        .last_sequence = events[count - 1]->sequence,
        .last_index = events[count - 1]->index,
        .last_time_ms = events[count - 1]->time_ms,
        .events = count,
        .lanes_left = s->lanes,
    };
    CHECK(w->last_sequence - events[0]->sequence == count - 1);
    sort_by_shard(s, events, count);
    for (uint32_t i = 0; i < s->lanes; i++) {
        struct lane_run *run = &s->runs[i];
        struct persister_rows *rows = &run->rows[slot];
        uint32_t first = s->offsets[run->first_shard], end = s->offsets[run->end_shard];
        persister_rows_build(rows, s->cluster_id, s->sorted + first, end - first);
        for (int k = 0; k < COPY_COUNT; k++) {
            w->rows[k] += rows->copy_rows[k];
        }
    }
    s->built++;
    stream_tick(s, 0, now_ms);
}

bool stream_take_persisted(struct stream *s, struct window *out)
{
    struct window *w = &s->windows[s->persisted % PERSISTER_WINDOWS];
    if (s->state != STREAM_OPEN || s->persisted == s->built || w->lanes_left > 0) {
        return false;
    }
    *out = *w;
    s->persisted++;
    return true;
}

/* ---- the transaction of one lane ---- */

/* "BEGIN; SELECT holdfast.advance(…)" for the shards that are behind. Returns false when none is.
 */
static bool write_advance(struct stream *s, const struct lane_run *run, const struct window *w)
{
    struct text *sql = &s->sql;
    text_clear(sql);
    text_appendf(sql, "BEGIN; SELECT holdfast.advance(%" PRIu64 ", '{", s->term);
    bool any = false;
    for (uint32_t i = run->first_shard; i < run->end_shard; i++) {
        if (s->watermarks[i] < w->last_sequence) {
            text_appendf(sql, "%s%u", any ? "," : "", i);
            any = true;
        }
    }
    text_appendf(sql, "}', '{");
    any = false;
    for (uint32_t i = run->first_shard; i < run->end_shard; i++) {
        if (s->watermarks[i] < w->last_sequence) {
            text_appendf(sql, "%s%" PRIu64, any ? "," : "", s->watermarks[i]);
            any = true;
        }
    }
    text_appendf(sql, "}', %" PRIu64 ", %" PRIu64 ");", w->last_sequence, w->last_index);
    return any;
}

/* Appends the COPYs and COMMIT to s->sql and sends it. */
static void send_copies(struct stream *s, struct lane_run *run, const struct persister_rows *rows,
                        uint64_t now_ms)
{
    const struct text *copies[COPY_COUNT];
    size_t count = 0;
    FAILPOINT("persister/before-rows", "new rows and COMMIT are to be sent");
    for (int i = 0; i < COPY_COUNT; i++) {
        if (rows->copy_rows[i] > 0) {
            text_appendf(&s->sql, "%s;", persister_copy_sql[i]);
            copies[count++] = &rows->copies[i];
        }
    }
    text_appendf(&s->sql, "COMMIT");
    run->step = RUN_COPY;
    lane_query(&run->lane, text_cstring(&s->sql), copies, count, now_ms);
}

static void run_committed(struct stream *s, struct lane_run *run, struct window *w)
{
    for (uint32_t i = run->first_shard; i < run->end_shard; i++) {
        s->watermarks[i] =
            s->watermarks[i] > w->last_sequence ? s->watermarks[i] : w->last_sequence;
    }
    w->lanes_left--;
    run->window++;
    run->step = RUN_NONE;
}

/* Sends the request that comes after the present step. */
static void run_advance(struct stream *s, struct lane_run *run, uint64_t now_ms)
{
    struct window *w = &s->windows[run->window % PERSISTER_WINDOWS];
    const struct persister_rows *rows = &run->rows[run->window % PERSISTER_WINDOWS];
    bool changes = rows->change_orders.count > 0, eligibilities = rows->put_eligibilities.count > 0;
    if (run->step == RUN_NONE && FAILPOINT_ERROR("persister/before-begin", "a window is built") < 0) {
        stream_fail(s, "a failpoint before BEGIN");
    } else if (run->step == RUN_BEGIN &&
               FAILPOINT_ERROR("persister/after-watermark",
                               "in a transaction the watermark has moved, rows have not") < 0) {
        stream_fail(s, "a failpoint after the watermark");
    } else if (run->step == RUN_NONE) {
        run->started_ns = clock_monotonic_ns();
        if (!write_advance(s, run, w)) { /* written before, by another stream */
            run_committed(s, run, w);
        } else if (changes || eligibilities) {
            run->step = RUN_BEGIN;
            lane_query(&run->lane, text_cstring(&s->sql), NULL, 0, now_ms);
        } else {
            send_copies(s, run, rows, now_ms);
        }
    } else if (run->step == RUN_BEGIN && changes) {
        run->step = RUN_CHANGES;
        lane_query_parameters(&run->lane, persister_change_orders_sql, &rows->change_orders,
                              now_ms);
    } else if (run->step <= RUN_CHANGES && eligibilities) {
        run->step = RUN_ELIGIBILITIES;
        lane_query_parameters(&run->lane, persister_put_eligibilities_sql, &rows->put_eligibilities,
                              now_ms);
    } else if (run->step <= RUN_ELIGIBILITIES) {
        text_clear(&s->sql);
        send_copies(s, run, rows, now_ms);
    } else if (strcmp(run->lane.tag, "COMMIT") == 0) { /* and not ROLLBACK, which is no error */
        if (FAILPOINT_ERROR("persister/after-commit", "PostgreSQL has said COMMIT, nobody else knows") < 0) {
            stream_fail(s, "a failpoint after COMMIT");
            return;
        }
        histogram_add(s->duration, clock_monotonic_ns() - run->started_ns);
        s->transactions++;
        run_committed(s, run, w);
    } else {
        stream_fail(s, "PostgreSQL did not commit");
    }
}

static void run_tick(struct stream *s, struct lane_run *run, uint64_t now_ms)
{
    while (s->state == STREAM_OPEN && run->lane.state == LANE_IDLE) {
        if (run->lane.sqlstate[0] != '\0') {
            s->fenced = strcmp(run->lane.sqlstate, "HF001") == 0;
            stream_fail_lane(s, &run->lane);
        } else if (run->step != RUN_NONE || run->window < s->built) {
            run_advance(s, run, now_ms);
        } else {
            break;
        }
    }
}

enum stream_state stream_tick(struct stream *s, uint32_t ready, uint64_t now_ms)
{
    for (uint32_t i = 0; i < s->lanes && (s->state == STREAM_STARTING || s->state == STREAM_OPEN);
         i++) {
        if (lane_tick(&s->runs[i].lane, ready >> i & 1, now_ms) == LANE_FAILED) {
            stream_fail_lane(s, &s->runs[i].lane);
        }
    }
    if (s->state == STREAM_STARTING) {
        stream_start_tick(s, now_ms);
    }
    for (uint32_t i = 0; i < s->lanes && s->state == STREAM_OPEN; i++) {
        run_tick(s, &s->runs[i], now_ms);
    }
    return s->state;
}
