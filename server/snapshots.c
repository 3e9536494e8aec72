/* Backups: a ticket for a checkpoint, for whoever pulls it chunk by chunk (requests.c serves those,
 * as it does for peers).
 *
 * Happy path: SnapshotOpen{fresh} → the checkpoint driver is asked for one of everything applied by
 * now → it is durable → pinned, the ticket is the answer. Without fresh, or when nothing happened
 * since the last one: at once. The loop waits for nothing; the tick looks whether it is there.
 *
 * Failure modes: no checkpoint within the caller's patience (an install is under way, the disk
 * fails): TIMEOUT. All pins in use: BUSY. Nothing was ever applied here: REFUSED. */
#include <stdlib.h>

#include "base/check.h"
#include "server/node_internal.h"

struct snapshot_wait {
    struct snapshot_wait *next;
    struct session *session;
    uint64_t id, index, deadline_ms; /* index: the checkpoint must reach it */
};

static void answer(struct session *s, uint64_t id)
{
    struct node *n = s->node;
    uint8_t ticket[CHECKPOINT_TICKET_SIZE];
    struct checkpoint_meta meta;
    struct checkpoint_stats stats;
    if (!checkpoint_get_meta(n->store, &meta)) {
        session_respond_status(s, id, HOLDFAST__STATUS__STATUS_REFUSED,
                               "this node has no checkpoint yet");
        return;
    }
    if (checkpoint_pin(n->store, uv_now(n->loop), NODE_INSTALL_TIMEOUT_MS, ticket, &meta) < 0) {
        session_respond_status(s, id, HOLDFAST__STATUS__STATUS_BUSY,
                               "as many checkpoints as can be are being read");
        return;
    }
    checkpoint_get_stats(n->store, &stats);
    Holdfast__SnapshotOpenResult body = HOLDFAST__SNAPSHOT_OPEN_RESULT__INIT;
    Holdfast__Response r = HOLDFAST__RESPONSE__INIT;
    body.ticket.data = ticket;
    body.ticket.len = sizeof ticket;
    body.index = meta.index;
    body.term = meta.term;
    body.time_ms = meta.time_ms;
    body.digest = meta.digest;
    body.blocks = meta.blocks_count;
    body.bytes = stats.used_size;
    body.cluster_id.data = (uint8_t *)(uintptr_t)n->options->cluster_id;
    body.cluster_id.len = sizeof n->options->cluster_id;
    body.position.data = meta.position;
    body.position.len = meta.position_size;
    r.id = id;
    r.index = engine_index(n->engine);
    r.time_ms = engine_time_ms(n->engine);
    r.body_case = HOLDFAST__RESPONSE__BODY_SNAPSHOT_OPEN;
    r.snapshot_open = &body;
    session_respond(s, &r);
}

void snapshot_open_request(struct session *s, const Holdfast__Request *request)
{
    struct node *n = s->node;
    if (n->applied_index == 0) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_REFUSED,
                               "this node holds nothing yet");
        return;
    }
    if (!request->snapshot_open->fresh ||
        checkpoint_driver_reached(&n->checkpoints) >= n->applied_index) {
        answer(s, request->id);
        return;
    }
    if (n->snapshots_count >= NODE_SNAPSHOTS_MAX) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_BUSY, "");
        return;
    }
    struct snapshot_wait *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    uint64_t patience_ms = request->timeout_ms != 0 ? request->timeout_ms : NODE_READ_TIMEOUT_MS;
    w->session = s;
    w->id = request->id;
    w->index = n->applied_index;
    w->deadline_ms =
        uv_now(n->loop) +
        (patience_ms < NODE_READ_TIMEOUT_MAX_MS ? patience_ms : NODE_READ_TIMEOUT_MAX_MS);
    w->next = n->snapshots;
    n->snapshots = w;
    n->snapshots_count++;
    session_retain(s);
    checkpoint_driver_ask(&n->checkpoints, w->index);
}

static void forget(struct node *n, struct snapshot_wait **at)
{
    struct snapshot_wait *w = *at;
    *at = w->next;
    n->snapshots_count--;
    session_release(w->session);
    free(w);
}

void snapshots_tick(struct node *n, uint64_t now_ms)
{
    uint64_t reached = n->snapshots != NULL ? checkpoint_driver_reached(&n->checkpoints) : 0;
    for (struct snapshot_wait **at = &n->snapshots; *at != NULL;) {
        struct snapshot_wait *w = *at;
        if (reached >= w->index) {
            answer(w->session, w->id);
        } else if (now_ms >= w->deadline_ms) {
            session_respond_status(w->session, w->id, HOLDFAST__STATUS__STATUS_TIMEOUT,
                                   "no checkpoint was written in time: its log says why");
        } else {
            at = &w->next;
            continue;
        }
        forget(n, at);
    }
}

void snapshots_end(struct node *n)
{
    while (n->snapshots != NULL) {
        session_respond_status(n->snapshots->session, n->snapshots->id,
                               HOLDFAST__STATUS__STATUS_REFUSED, "this node is stopping");
        forget(n, &n->snapshots);
    }
}
