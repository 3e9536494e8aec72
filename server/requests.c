/* Everything that is asked besides Submit and reads: status and administration. Chunks
 * of a checkpoint: chunk_source.c. */
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
    node_note_willing(n);
    if (n->drained && n->role == REPLICA_LEADER) {
        (void)node_hand_over(n, 0); /* tried again by the tick */
    }
    session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_OK, "");
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
        chunk_request(s, request);
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
