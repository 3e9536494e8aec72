/* Chunks of checkpoints, given to peers that catch up and to tools that save one.
 *
 * They must not be felt by orders: a chunk is read on a thread of the pool, one at a time; it is given
 * at the end of a turn of the loop, when the commands of that turn are on their way, at most one a turn
 * and at most NODE_CHUNK_SIZE_MAX bytes; and the next is not read before
 *     - its size has been paid for at --catch-up-rate bytes a second, all askers together (0: no such
 *       bound),
 *     - the thread has rested SOURCE_REST_FACTOR times as long as the read took.
 *
 *     queue ─▶ reading (pool) ─▶ ready ─▶ given         (one chunk in reading or ready)
 *
 * Happy path: chunk_request → step → work → done → step gives it. Failure modes: more than
 * NODE_CHUNKS_MAX wait: BUSY, the client asks again; a ticket that is not good any more, or damage:
 * REFUSED. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/metrics.h"
#include "server/node_internal.h"

#define SOURCE_REST_FACTOR 2
#define SOURCE_REST_MAX_NS 50000000ull /* after a read that took long: the disk is busy enough */
#define SOURCE_CHUNKS_PER_S   8
#define SOURCE_CHUNK_SIZE_MIN (16u << 10)
#define NS_PER_MS          1000000ull
#define NS_PER_S           1000000000ull

struct chunk_wait {
    struct chunk_wait *next;
    struct session *session;
    uint64_t id;
    uint8_t ticket[CHECKPOINT_TICKET_SIZE], from[8];
    size_t ticket_size, from_size;
    uint32_t size_max;
    enum checkpoint_chunk_result result;
    struct checkpoint_chunk chunk;
};

struct chunk_source {
    struct node *node;
    struct chunk_wait *first, **last; /* waiting */
    struct chunk_wait *current;       /* being read, or ready */
    bool reading, ended;
    unsigned count; /* waiting and current */
    uint64_t read_ns; /* what the current one took */
    uint64_t next_ns; /* not before this time */
    uint64_t chunks_total, bytes_total;
    uv_work_t work;
    uv_timer_t timer;
};

static void wait_free(struct chunk_source *c, struct chunk_wait *w)
{
    c->count--;
    text_close(&w->chunk.records);
    session_release(w->session);
    free(w);
}

static void work_cb(uv_work_t *work)
{
    struct chunk_source *c = container_of(work, struct chunk_source, work);
    struct chunk_wait *w = c->current;
    uint64_t begun_ns = clock_monotonic_ns();
    FAILPOINT("stream/before-read", "a chunk of a checkpoint is to be read for a peer or a tool");
    w->result = checkpoint_read_chunk(c->node->store, w->ticket, w->ticket_size, w->from,
                                      w->from_size, w->size_max, &w->chunk);
    c->read_ns = clock_monotonic_ns() - begun_ns;
}

static void done_cb(uv_work_t *work, int status)
{
    struct chunk_source *c = container_of(work, struct chunk_source, work);
    CHECK(status == 0);
    c->reading = false; /* given by the step at the end of this turn */
}

static void give(struct chunk_source *c, struct chunk_wait *w)
{
    struct session *s = w->session;
    uint64_t rate = c->node->options->catch_up_rate;
    uint64_t rest_ns = c->read_ns * SOURCE_REST_FACTOR;
    rest_ns = rest_ns < SOURCE_REST_MAX_NS ? rest_ns : SOURCE_REST_MAX_NS;
    if (w->result == CHECKPOINT_CHUNK_OK) {
        Holdfast__SnapshotChunkResult body = HOLDFAST__SNAPSHOT_CHUNK_RESULT__INIT;
        Holdfast__Response r = HOLDFAST__RESPONSE__INIT;
        body.records.data = (uint8_t *)w->chunk.records.data;
        body.records.len = w->chunk.records.len;
        body.crc32c = w->chunk.crc32c;
        body.next.data = w->chunk.next;
        body.next.len = w->chunk.next_size;
        r.id = w->id;
        r.body_case = HOLDFAST__RESPONSE__BODY_SNAPSHOT_CHUNK;
        r.snapshot_chunk = &body;
        if (!FAILPOINT_DROP("stream/before-give", "a chunk is read, not sent")) {
            session_respond(s, &r);
        }
        c->chunks_total++;
        c->bytes_total += w->chunk.records.len;
        uint64_t paid_ns = rate > 0 ? w->chunk.records.len * NS_PER_S / rate : 0;
        rest_ns = rest_ns > paid_ns ? rest_ns : paid_ns;
    } else {
        session_respond_status(s, w->id, HOLDFAST__STATUS__STATUS_REFUSED,
                               w->result == CHECKPOINT_CHUNK_GONE
                                   ? "this ticket is not good any more"
                                   : "the checkpoint here is damaged");
    }
    /* From when it could have begun, so that the timer's milliseconds do not add up; but nothing is
     * saved up while nobody asks. */
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t from_ns = now_ns - c->next_ns < 10 * NS_PER_MS ? c->next_ns : now_ns;
    c->next_ns = from_ns + rest_ns;
}

static void timer_cb(uv_timer_t *timer)
{
    (void)timer; /* ends the loop's wait; the step at the end of this turn does the work */
}

void chunk_source_step(struct node *n)
{
    struct chunk_source *c = n->chunks;
    if (c->current != NULL && !c->reading) {
        struct chunk_wait *w = c->current;
        c->current = NULL;
        give(c, w);
        wait_free(c, w);
    }
    if (c->current != NULL || c->first == NULL) {
        return;
    }
    uint64_t now_ns = clock_monotonic_ns();
    if (now_ns < c->next_ns && !c->ended) {
        if (!uv_is_active((uv_handle_t *)&c->timer)) {
            uint64_t wait_ms = (c->next_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS;
            CHECK(uv_timer_start(&c->timer, timer_cb, wait_ms, 0) == 0);
        }
        return;
    }
    c->current = c->first;
    c->first = c->current->next;
    c->last = c->first != NULL ? c->last : &c->first;
    c->reading = true;
    CHECK(uv_queue_work(n->loop, &c->work, work_cb, done_cb) == 0);
}

/* At a low rate smaller ones, so that nobody waits long for the next. */
static uint32_t chunk_size_max(uint64_t rate)
{
    uint64_t size = rate > 0 ? rate / SOURCE_CHUNKS_PER_S : NODE_CHUNK_SIZE_MAX;
    size = size > SOURCE_CHUNK_SIZE_MIN ? size : SOURCE_CHUNK_SIZE_MIN;
    return (uint32_t)(size < NODE_CHUNK_SIZE_MAX ? size : NODE_CHUNK_SIZE_MAX);
}

void chunk_request(struct session *s, const Holdfast__Request *request)
{
    struct node *n = s->node;
    struct chunk_source *c = n->chunks;
    const Holdfast__SnapshotChunk *m = request->snapshot_chunk;
    if (m->ticket.len > CHECKPOINT_TICKET_SIZE || m->from.len > sizeof(uint64_t)) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_MALFORMED, "ticket or key");
        return;
    }
    if (c->count >= NODE_CHUNKS_MAX) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_BUSY, "");
        return;
    }
    struct chunk_wait *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    w->session = s;
    w->id = request->id;
    w->ticket_size = m->ticket.len;
    w->from_size = m->from.len;
    uint32_t size_max = chunk_size_max(n->options->catch_up_rate);
    w->size_max = m->size_max == 0 || m->size_max > size_max ? size_max : m->size_max;
    if (w->ticket_size > 0) {
        memcpy(w->ticket, m->ticket.data, w->ticket_size);
    }
    if (w->from_size > 0) {
        memcpy(w->from, m->from.data, w->from_size);
    }
    /* Whoever reads on keeps what it reads; one that is gone already is told so by the read. */
    (void)checkpoint_renew(n->store, w->ticket, w->ticket_size, uv_now(n->loop),
                           NODE_INSTALL_TIMEOUT_MS);
    session_retain(s);
    c->count++;
    *c->last = w;
    c->last = &w->next;
}

/* ---- life ---- */

void chunk_source_create(struct node *n)
{
    struct chunk_source *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    c->node = n;
    c->last = &c->first;
    CHECK(uv_timer_init(n->loop, &c->timer) == 0);
    n->chunks = c;
}

void chunk_source_end(struct node *n)
{
    struct chunk_source *c = n->chunks;
    c->ended = true;
    while (c->first != NULL) {
        struct chunk_wait *w = c->first;
        c->first = w->next;
        session_respond_status(w->session, w->id, HOLDFAST__STATUS__STATUS_REFUSED,
                               "this node is stopping");
        wait_free(c, w);
    }
    c->last = &c->first;
    if (c->current != NULL && !c->reading) {
        struct chunk_wait *w = c->current;
        c->current = NULL;
        wait_free(c, w);
    }
}

bool chunk_source_is_busy(const struct node *n)
{
    return n->chunks->count > 0;
}

void chunk_source_close(struct node *n, uv_close_cb closed)
{
    n->chunks->timer.data = n;
    uv_close((uv_handle_t *)&n->chunks->timer, closed);
}

void chunk_source_destroy(struct node *n)
{
    free(n->chunks);
}

void chunk_source_write_metrics(const struct node *n, struct text *t)
{
    metrics_single(t, "holdfast_catch_up_sent_bytes_total", "counter",
                   "Bytes of checkpoints given to peers and tools.", (double)n->chunks->bytes_total);
    metrics_single(t, "holdfast_catch_up_waiting", "gauge", "Chunks asked for and not yet given.",
                   (double)n->chunks->count);
}
