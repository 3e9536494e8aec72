/* read_index: rounds of linearizable reads. See read_index.h. */
#include "raft/read_index.h"

#include <string.h>

#include "base/check.h"

static void queue_init(struct read_queue *q)
{
    q->first = NULL;
    q->last = &q->first;
}

static void queue_push(struct read_queue *q, struct replica_read *req)
{
    req->next = NULL;
    *q->last = req;
    q->last = &req->next;
}

static struct replica_read *queue_pop(struct read_queue *q)
{
    struct replica_read *req = q->first;
    if (req != NULL) {
        q->first = req->next;
        if (q->first == NULL) {
            q->last = &q->first;
        }
    }
    return req;
}

/* Appends all of `from` to `to`, in order. */
static void queue_move(struct read_queue *to, struct read_queue *from)
{
    if (from->first == NULL) {
        return;
    }
    *to->last = from->first;
    to->last = from->last;
    queue_init(from);
}

void read_index_init(struct read_index *r)
{
    memset(r, 0, sizeof *r);
    queue_init(&r->next);
    queue_init(&r->asked);
    queue_init(&r->confirmed);
}

bool read_index_add(struct read_index *r, struct replica_read *req, replica_read_cb cb)
{
    if (r->waiting == READ_INDEX_WAITING_MAX) {
        return false;
    }
    r->waiting++;
    req->cb = cb;
    req->index = 0;
    queue_push(&r->next, req);
    return true;
}

bool read_index_begin(struct read_index *r, uint64_t commit_index)
{
    if (r->active || r->next.first == NULL) {
        return false;
    }
    r->active = true;
    r->sequence++;
    r->answered_count = 0;
    for (struct replica_read *req = r->next.first; req != NULL; req = req->next) {
        req->index = commit_index;
    }
    queue_move(&r->asked, &r->next);
    return true;
}

static bool has_answered(const struct read_index *r, uint64_t id)
{
    for (size_t i = 0; i < r->answered_count; i++) {
        if (r->answered[i] == id) {
            return true;
        }
    }
    return false;
}

bool read_index_answer(struct read_index *r, uint64_t from_id, uint64_t sequence, uint64_t self_id,
                       const struct membership *m)
{
    if (!r->active || sequence != r->sequence) {
        return false;
    }
    if (!has_answered(r, from_id) && r->answered_count < REPLICA_MEMBERS_MAX) {
        r->answered[r->answered_count++] = from_id;
    }
    size_t agreed = 0;
    for (size_t i = 0; i < m->count; i++) {
        const struct replica_member *member = &m->members[i];
        if (member->role == REPLICA_VOTER &&
            (member->id == self_id || has_answered(r, member->id))) {
            agreed++;
        }
    }
    if (agreed <= membership_count_voters(m) / 2) {
        return false;
    }
    r->active = false;
    queue_move(&r->confirmed, &r->asked);
    return true;
}

static void read_index_finish(struct read_index *r, struct replica_read *req,
                              enum replica_status status)
{
    CHECK(r->waiting > 0);
    r->waiting--;
    req->cb(req, status);
}

void read_index_applied(struct read_index *r, uint64_t applied_index)
{
    /* Rounds begin one after the other at growing commit indexes, so the queue is sorted. */
    while (r->confirmed.first != NULL && r->confirmed.first->index <= applied_index) {
        read_index_finish(r, queue_pop(&r->confirmed), REPLICA_OK);
    }
}

void read_index_fail(struct read_index *r, enum replica_status status)
{
    /* Detach first: a callback may add a read, which must not be failed in the same breath. */
    struct read_queue failed;
    queue_init(&failed);
    queue_move(&failed, &r->confirmed);
    queue_move(&failed, &r->asked);
    queue_move(&failed, &r->next);
    r->active = false;
    for (struct replica_read *req; (req = queue_pop(&failed)) != NULL;) {
        read_index_finish(r, req, status);
    }
}
