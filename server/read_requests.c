/* Reads: answered now, when an index is applied, or when leadership is confirmed.
 *
 *     LOCAL   at once; BUSY while nothing at all is applied
 *     INDEX   when engine_index ≥ min_index; TIMEOUT when that takes too long
 *     STRONG  replica_read: when what is applied reflects every write acknowledged before the call
 *
 * A waiting read keeps its packed request and is unpacked again when its time has come: it needs no
 * lifetime for an unpacked one. At most NODE_READS_WAITING_MAX wait; more are BUSY. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "server/node_internal.h"
#include "server/views.h"

struct read_wait {
    struct replica_read read;
    struct node *node;
    struct session *session;
    bool strong;   /* in the replica's hands: its callback comes */
    bool answered; /* timed out, but the replica still has it */
    uint64_t id, min_index, deadline_ms;
    struct read_wait *prev, *next;
    size_t size;
    uint8_t frame[];
};

static void respond(struct session *s, const Holdfast__Request *request, struct arena *arena)
{
    struct node *n = s->node;
    Holdfast__Response r = HOLDFAST__RESPONSE__INIT;
    CHECK(views_answer(n->engine, request, &r, arena));
    r.id = request->id;
    if (request->body_case == HOLDFAST__REQUEST__BODY_CHECK_INVARIANTS &&
        r.status == HOLDFAST__STATUS__STATUS_OK) {
        n->invariant_violations += r.check_invariants->violations;
    }
    n->reads_total++;
    session_respond(s, &r);
}

static void wait_free(struct read_wait *w)
{
    struct node *n = w->node;
    if (w->prev != NULL) {
        w->prev->next = w->next;
    } else {
        n->reads = w->next;
    }
    if (w->next != NULL) {
        w->next->prev = w->prev;
    }
    n->reads_count--;
    n->index_waits -= w->strong ? 0 : 1;
    session_release(w->session);
    free(w);
}

static struct read_wait *wait_create(struct session *s, const Holdfast__Request *request,
                                     const void *frame, size_t size, bool strong)
{
    struct node *n = s->node;
    struct read_wait *w = malloc(sizeof *w + size);
    CHECK(w != NULL);
    uint64_t timeout_ms = request->timeout_ms != 0 ? request->timeout_ms : NODE_READ_TIMEOUT_MS;
    timeout_ms = timeout_ms < NODE_READ_TIMEOUT_MAX_MS ? timeout_ms : NODE_READ_TIMEOUT_MAX_MS;
    *w = (struct read_wait){.node = n,
                            .session = s,
                            .strong = strong,
                            .id = request->id,
                            .min_index = request->min_index,
                            .deadline_ms = uv_now(n->loop) + timeout_ms,
                            .next = n->reads,
                            .size = size};
    memcpy(w->frame, frame, size);
    if (n->reads != NULL) {
        n->reads->prev = w;
    }
    n->reads = w;
    n->reads_count++;
    n->index_waits += strong ? 0 : 1;
    session_retain(s);
    return w;
}

/* Answers from what is applied now, and frees. An arena of its own: it may be called while a
 * request is being handled. */
static void wait_answer(struct read_wait *w)
{
    struct arena *arena = &w->node->read_arena;
    if (w->session->link != NULL && !w->answered) {
        Holdfast__Request *request =
            holdfast__request__unpack(&arena->allocator, w->size, w->frame);
        CHECK(request != NULL); /* it was, once */
        respond(w->session, request, arena);
        arena_reset(arena);
    }
    wait_free(w);
}

static void wait_refuse(struct read_wait *w, Holdfast__Status status, const char *why)
{
    if (!w->answered) {
        session_respond_status(w->session, w->id, status, why);
    }
    w->answered = true;
}

static void read_cb(struct replica_read *req, enum replica_status status)
{
    struct read_wait *w = container_of(req, struct read_wait, read);
    if (status == REPLICA_OK) {
        wait_answer(w);
    } else {
        wait_refuse(w, HOLDFAST__STATUS__STATUS_NOT_LEADER, "");
        wait_free(w);
    }
}

void read_request(struct session *s, const Holdfast__Request *request, const void *frame,
                  size_t size)
{
    struct node *n = s->node;
    bool strong = request->consistency == HOLDFAST__CONSISTENCY__CONSISTENCY_STRONG;
    bool index = request->consistency == HOLDFAST__CONSISTENCY__CONSISTENCY_INDEX;
    if (n->engine_absent) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_BUSY,
                               "this node is loading a checkpoint from its peers");
        return;
    }
    if (!strong && engine_index(n->engine) == 0) {
        /* A new or emptied member before its first entry: "there is no such order" would be a lie. */
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_BUSY,
                               "this node has no state yet");
        return;
    }
    if (!strong && !(index && engine_index(n->engine) < request->min_index)) {
        respond(s, request, &n->arena);
        return;
    }
    if (n->reads_count >= NODE_READS_WAITING_MAX) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_BUSY,
                               "too many reads wait");
        return;
    }
    struct read_wait *w = wait_create(s, request, frame, size, strong);
    if (!strong) {
        return;
    }
    enum replica_status status = replica_read(n->replica, &w->read, read_cb);
    if (status != REPLICA_OK) {
        wait_refuse(w,
                    status == REPLICA_BUSY ? HOLDFAST__STATUS__STATUS_BUSY
                                           : HOLDFAST__STATUS__STATUS_NOT_LEADER,
                    "");
        wait_free(w);
    }
}

void read_requests_applied(struct node *n)
{
    uint64_t index = engine_index(n->engine);
    for (struct read_wait *w = n->index_waits > 0 ? n->reads : NULL, *next; w != NULL; w = next) {
        next = w->next;
        if (!w->strong && w->min_index <= index) {
            wait_answer(w);
        }
    }
}

void read_requests_tick(struct node *n, uint64_t now_ms)
{
    for (struct read_wait *w = n->reads, *next; w != NULL; w = next) {
        next = w->next;
        if (now_ms >= w->deadline_ms) {
            wait_refuse(w, HOLDFAST__STATUS__STATUS_TIMEOUT,
                        w->strong ? "leadership was not confirmed in time"
                                  : "min_index not reached");
            if (!w->strong) {
                wait_free(w);
            }
        }
    }
}

void read_requests_end(struct node *n)
{
    for (struct read_wait *w = n->reads, *next; w != NULL; w = next) {
        next = w->next;
        wait_refuse(w, HOLDFAST__STATUS__STATUS_REFUSED, "this node is stopping");
        if (!w->strong) {
            wait_free(w); /* a strong one ends with the replica */
        }
    }
}
