/* Everything that is asked besides Submit and reads: status, administration, chunks of a
 * checkpoint. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "server/node_internal.h"

static void answer_status(struct session *s, const Holdfast__Request *request)
{
    struct node *n = s->node;
    Holdfast__NodeStatusResult body = HOLDFAST__NODE_STATUS_RESULT__INIT;
    Holdfast__Response r = HOLDFAST__RESPONSE__INIT;
    status_fill(n, &body, &n->arena);
    r.id = request->id;
    r.index = engine_index(n->engine);
    r.time_ms = engine_time_ms(n->engine);
    r.body_case = HOLDFAST__RESPONSE__BODY_NODE_STATUS;
    r.node_status = &body;
    session_respond(s, &r);
}

static void answer_persist_status(struct session *s, const Holdfast__Request *request)
{
    struct node *n = s->node;
    Holdfast__PersistStatusResult body = HOLDFAST__PERSIST_STATUS_RESULT__INIT;
    Holdfast__Response r = HOLDFAST__RESPONSE__INIT;
    persist_status_fill(n, &body, &n->arena);
    r.id = request->id;
    r.index = engine_index(n->engine);
    r.time_ms = engine_time_ms(n->engine);
    r.body_case = HOLDFAST__RESPONSE__BODY_PERSIST_STATUS;
    r.persist_status = &body;
    session_respond(s, &r);
}

static void answer_metrics(struct session *s, const Holdfast__Request *request)
{
    struct text text = TEXT_INIT;
    Holdfast__Response r = HOLDFAST__RESPONSE__INIT;
    metrics_write(s->node, &text);
    text_append(&text, "", 0);
    r.id = request->id;
    r.body_case = HOLDFAST__RESPONSE__BODY_METRICS;
    r.metrics = text.data;
    session_respond(s, &r);
    text_close(&text);
}

static void move_leader(struct session *s, const Holdfast__Request *request)
{
    struct node *n = s->node;
    if (n->role != REPLICA_LEADER) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_NOT_LEADER, "");
        return;
    }
    uint64_t to_id = request->move_leader->to_id;
    if (to_id == n->options->id) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_OK, "");
        return;
    }
    enum replica_status status = node_hand_over(n, to_id);
    session_respond_status(s, request->id,
                           status == REPLICA_OK ? HOLDFAST__STATUS__STATUS_OK
                                                : HOLDFAST__STATUS__STATUS_REFUSED,
                           status == REPLICA_OK ? "under way"
                           : to_id == 0 ? "no other voter is connected and not drained"
                                        : "no such voter, or it is drained, not connected, or this "
                                          "node is handing over already");
}

static void drain(struct session *s, const Holdfast__Request *request)
{
    struct node *n = s->node;
    n->drained = request->drain->on;
    replica_set_willing(n->replica, !n->drained);
    if (n->drained && n->role == REPLICA_LEADER) {
        (void)node_hand_over(n, 0); /* tried again by the tick */
    }
    session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_OK, "");
}

/* ---- chunks of a checkpoint: read on a thread of the pool ---- */

struct chunk_request {
    uv_work_t work;
    struct session *session;
    uint64_t id;
    uint8_t ticket[CHECKPOINT_TICKET_SIZE], from[8];
    size_t ticket_size, from_size;
    uint32_t size_max;
    enum checkpoint_chunk_result result;
    struct checkpoint_chunk chunk;
};

static void chunk_work(uv_work_t *work)
{
    struct chunk_request *c = container_of(work, struct chunk_request, work);
    c->result = checkpoint_read_chunk(c->session->node->store, c->ticket, c->ticket_size, c->from,
                                      c->from_size, c->size_max, &c->chunk);
}

static void chunk_done(uv_work_t *work, int status)
{
    struct chunk_request *c = container_of(work, struct chunk_request, work);
    struct session *s = c->session;
    CHECK(status == 0);
    s->node->chunks_count--;
    if (c->result == CHECKPOINT_CHUNK_OK) {
        Holdfast__SnapshotChunkResult body = HOLDFAST__SNAPSHOT_CHUNK_RESULT__INIT;
        Holdfast__Response r = HOLDFAST__RESPONSE__INIT;
        body.records.data = (uint8_t *)c->chunk.records.data;
        body.records.len = c->chunk.records.len;
        body.crc32c = c->chunk.crc32c;
        body.next.data = c->chunk.next;
        body.next.len = c->chunk.next_size;
        r.id = c->id;
        r.body_case = HOLDFAST__RESPONSE__BODY_SNAPSHOT_CHUNK;
        r.snapshot_chunk = &body;
        session_respond(s, &r);
        text_close(&c->chunk.records);
    } else {
        session_respond_status(s, c->id, HOLDFAST__STATUS__STATUS_REFUSED,
                               c->result == CHECKPOINT_CHUNK_GONE
                                   ? "this ticket is not good any more"
                                   : "the checkpoint here is damaged");
    }
    session_release(s);
    free(c);
}

static void answer_chunk(struct session *s, const Holdfast__Request *request)
{
    struct node *n = s->node;
    const Holdfast__SnapshotChunk *m = request->snapshot_chunk;
    if (m->ticket.len > CHECKPOINT_TICKET_SIZE || m->from.len > sizeof(uint64_t)) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_MALFORMED, "ticket or key");
        return;
    }
    if (n->chunks_count >= NODE_CHUNKS_MAX) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_BUSY, "");
        return;
    }
    struct chunk_request *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    c->session = s;
    c->id = request->id;
    c->ticket_size = m->ticket.len;
    c->from_size = m->from.len;
    c->size_max = m->size_max;
    if (c->ticket_size > 0) {
        memcpy(c->ticket, m->ticket.data, c->ticket_size);
    }
    if (c->from_size > 0) {
        memcpy(c->from, m->from.data, c->from_size);
    }
    checkpoint_renew_pin(n->store, c->ticket, c->ticket_size,
                         uv_now(n->loop) + NODE_INSTALL_TIMEOUT_MS);
    n->chunks_count++;
    session_retain(s);
    CHECK(uv_queue_work(n->loop, &c->work, chunk_work, chunk_done) == 0);
}

void request_dispatch(struct session *s, const Holdfast__Request *request, const void *frame,
                      size_t size)
{
    if (s->node->closing) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_REFUSED,
                               "this node is stopping");
        return;
    }
    if (request->group != 0) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_UNSUPPORTED,
                               "no such group");
        return;
    }
    bool about_itself = request->body_case == HOLDFAST__REQUEST__BODY_NODE_STATUS ||
                        request->body_case == HOLDFAST__REQUEST__BODY_METRICS;
    if (s->node->start != NULL && !about_itself) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_BUSY,
                               "this node is starting");
        return;
    }
    switch ((int)request->body_case) {
    case HOLDFAST__REQUEST__BODY_GET_SKU:
    case HOLDFAST__REQUEST__BODY_LIST_SKUS:
    case HOLDFAST__REQUEST__BODY_GET_SALE:
    case HOLDFAST__REQUEST__BODY_LIST_SALES:
    case HOLDFAST__REQUEST__BODY_GET_ORDER:
    case HOLDFAST__REQUEST__BODY_LIST_ORDERS:
    case HOLDFAST__REQUEST__BODY_GET_ELIGIBILITY:
    case HOLDFAST__REQUEST__BODY_LIST_ELIGIBILITIES:
    case HOLDFAST__REQUEST__BODY_GET_LEASE:
    case HOLDFAST__REQUEST__BODY_LIST_LEASES:
    case HOLDFAST__REQUEST__BODY_GET_DENIAL:
    case HOLDFAST__REQUEST__BODY_LIST_DENIALS:
    case HOLDFAST__REQUEST__BODY_GET_PLACED:
    case HOLDFAST__REQUEST__BODY_MARKED_DIGEST:
    case HOLDFAST__REQUEST__BODY_CHECK_INVARIANTS:
        read_request(s, request, frame, size);
        return;
    case HOLDFAST__REQUEST__BODY_NODE_STATUS:
        answer_status(s, request);
        return;
    case HOLDFAST__REQUEST__BODY_PERSIST_STATUS:
        answer_persist_status(s, request);
        return;
    case HOLDFAST__REQUEST__BODY_METRICS:
        answer_metrics(s, request);
        return;
    case HOLDFAST__REQUEST__BODY_MOVE_LEADER:
        move_leader(s, request);
        return;
    case HOLDFAST__REQUEST__BODY_DRAIN:
        drain(s, request);
        return;
    case HOLDFAST__REQUEST__BODY_MEMBER_ADD:
    case HOLDFAST__REQUEST__BODY_MEMBER_ASSIGN:
    case HOLDFAST__REQUEST__BODY_MEMBER_REMOVE:
        members_request(s, request);
        return;
    case HOLDFAST__REQUEST__BODY_SNAPSHOT_CHUNK:
        answer_chunk(s, request);
        return;
    case HOLDFAST__REQUEST__BODY_SNAPSHOT_OPEN:
        snapshot_open_request(s, request);
        return;
    default:
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_UNSUPPORTED,
                               "this version does not know the request");
        return;
    }
}
