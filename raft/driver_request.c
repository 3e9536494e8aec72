/* driver_request: what is asked of a leader. Submits, linearizable reads, transfer.
 *
 * A submit that was accepted waits in a queue in log order until its entry is applied here while
 * this node still leads the same term. When leadership goes, every waiting submit is told
 * REPLICA_OUTCOME_UNKNOWN: its entry may be on a majority already, and then a later leader commits
 * it. See driver.h, replica.h. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/failpoint.h"
#include "raft/driver_internal.h"

/* Proposes one entry. On success returns 0 and *index; otherwise the core's error, nothing
 * happened. */
static int propose(struct driver *d, enum record_type type, enum raft_entry_type core_type,
                   const void *data, uint32_t size, uint64_t *index)
{
    uint64_t next = raft_last_index(&d->core) + 1;
    CHECK(next == d->cache.last + 1);
    struct batch *b = batch_create(record_span(size));
    struct record_header *record = batch_first(b);
    record_encode(record, type, next, d->core.current_term, size > 0 ? data : NULL, size);
    struct raft_entry entry = {
        .term = d->core.current_term,
        .type = core_type,
        .buf = {.base = record + 1, .len = record_padded(size)},
        .batch = b,
    };
    struct raft_event event = {.type = RAFT_SUBMIT};
    event.submit.entries = &entry;
    event.submit.n = 1;
    int rv = driver_step(d, &event);
    if (rv != 0) {
        batch_destroy(b); /* on error the data is ours again */
        return rv;
    }
    *index = next;
    return 0;
}

int driver_submit_noop(struct driver *d)
{
    return propose(d, RECORD_NOOP, RAFT_BARRIER, NULL, 0, &d->noop_index);
}

int driver_submit_change(struct driver *d, const void *bytes, uint32_t size)
{
    uint64_t index;
    return propose(d, RECORD_CHANGE, RAFT_CHANGE, bytes, size, &index);
}

static bool can_propose(const struct driver *d)
{
    return d->leading && d->ready && raft_transferee(&d->core) == 0;
}

enum replica_status driver_submit(struct driver *d, uint64_t now_ms, struct replica_submit *req,
                                  const void *data, size_t size, replica_submit_cb cb)
{
    if (size > REPLICA_ENTRY_SIZE_MAX) {
        return REPLICA_TOO_LARGE;
    }
    if (d->paused || !d->leading) {
        return REPLICA_NOT_LEADER;
    }
    /* A leader that is not ready, or is handing over, is as busy as one whose queue is full: the
     * caller tries again and by then somebody leads. */
    if (!can_propose(d) || d->submits_count == REPLICA_IN_FLIGHT_MAX) {
        return REPLICA_BUSY;
    }
    driver_begin_event(d, now_ms);
    req->cb = cb;
    req->next = NULL;
    req->term = d->leading_term;
    req->index = d->cache.last + 1;
    *d->submits_last = req;
    struct replica_submit **last = d->submits_last;
    d->submits_last = &req->next;
    d->submits_count++;
    uint64_t index;
    if (propose(d, RECORD_COMMAND, RAFT_COMMAND, data, (uint32_t)size, &index) != 0) {
        *last = NULL; /* the step did nothing, so it is still the last one */
        d->submits_last = last;
        d->submits_count--;
        driver_end_event(d);
        return REPLICA_BUSY;
    }
    CHECK(index == req->index);
    driver_end_event(d);
    return REPLICA_OK;
}

void driver_requests_applied(struct driver *d, const struct record_header *record)
{
    struct replica_submit *req = d->submits_first;
    if (req != NULL && req->index <= record->index) {
        /* The entries of one leadership are committed in the order submitted, none is left out. */
        CHECK(req->index == record->index);
        CHECK(req->term == record->term);
        d->submits_first = req->next;
        if (d->submits_first == NULL) {
            d->submits_last = &d->submits_first;
        }
        d->submits_count--;
        req->cb(req, REPLICA_OK, record->index);
    }
    read_index_applied(&d->reads, d->applied_index);
}

void driver_requests_lost(struct driver *d)
{
    /* Detach first: a callback may ask again (and is told NOT_LEADER, or BUSY by a later term). */
    struct replica_submit *req = d->submits_first;
    d->submits_first = NULL;
    d->submits_last = &d->submits_first;
    d->submits_count = 0;
    while (req != NULL) {
        struct replica_submit *next = req->next;
        req->cb(req, REPLICA_OUTCOME_UNKNOWN, req->index);
        req = next;
    }
    read_index_fail(&d->reads, REPLICA_NOT_LEADER);
}

/* ---- reads ---- */

enum replica_status driver_read(struct driver *d, uint64_t now_ms, struct replica_read *req,
                                replica_read_cb cb)
{
    if (d->paused || !d->leading) {
        return REPLICA_NOT_LEADER;
    }
    /* Before an entry of its own term is committed a leader does not know the commit index. */
    if (!d->ready || !read_index_add(&d->reads, req, cb)) {
        return REPLICA_BUSY;
    }
    driver_begin_event(d, now_ms);
    driver_end_event(d);
    return REPLICA_OK;
}

static void ask_voters(struct driver *d, const struct membership *m)
{
    for (size_t i = 0; i < m->count; i++) {
        if (m->members[i].role == REPLICA_VOTER && m->members[i].id != d->config.id) {
            driver_send_read(d, m->members[i].id, MESSAGE_READ, d->leading_term, d->reads.sequence);
        }
    }
}

void driver_read_round(struct driver *d)
{
    struct membership m;
    while (d->leading && d->ready && read_index_begin(&d->reads, raft_commit_index(&d->core))) {
        driver_get_membership(d, &m);
        ask_voters(d, &m);
        /* Our own voice; enough when this is the only voter. Then callbacks may have added reads.
         */
        if (!read_index_answer(&d->reads, d->config.id, d->reads.sequence, d->config.id, &m)) {
            return;
        }
        read_index_applied(&d->reads, d->applied_index);
    }
}

void driver_read_repeat(struct driver *d)
{
    if (d->reads.active) {
        struct membership m;
        driver_get_membership(d, &m);
        ask_voters(d, &m);
        /* Our own voice again: voters may have left since, and whoever is a majority now will not
         * answer a second time, or is this node alone. */
        if (read_index_answer(&d->reads, d->config.id, d->reads.sequence, d->config.id, &m)) {
            read_index_applied(&d->reads, d->applied_index);
        }
    }
}

/* ---- transfer ---- */

/* The core would pick any voter, a dead one too. One that was asked a moment ago and did not take over
 * comes last: perhaps its disk is stuck, and without a load that does not show in its log. */
uint64_t driver_successor(const struct driver *d)
{
    bool tried = d->now_ms - d->transfer_ms < DRIVER_TRANSFER_MEMORY_MS;
    bool tried_is_voter = false;
    struct membership m;
    driver_get_membership(d, &m);
    uint64_t best = 0;
    uint64_t best_match = 0;
    for (size_t i = 0; i < m.count; i++) {
        uint64_t id = m.members[i].id;
        if (m.members[i].role != REPLICA_VOTER || id == d->config.id ||
            !driver_peer_is_connected(d, id) || driver_peer_is_unwilling(d, id)) {
            continue;
        }
        if (tried && id == d->transfer_id) {
            tried_is_voter = true;
            continue;
        }
        uint64_t match = driver_match_index(d, id);
        if (best == 0 || match > best_match) {
            best = id;
            best_match = match;
        }
    }
    return best == 0 && tried_is_voter ? d->transfer_id : best;
}

enum replica_status driver_transfer(struct driver *d, uint64_t now_ms, uint64_t to_id)
{
    if (d->paused || !d->leading) {
        return REPLICA_NOT_LEADER;
    }
    to_id = to_id != 0 ? to_id : driver_successor(d);
    if (!can_propose(d) || to_id == 0 || driver_peer_is_unwilling(d, to_id)) {
        return REPLICA_REFUSED;
    }
    FAILPOINT("raft/before-transfer", "leadership is to be handed over");
    driver_begin_event(d, now_ms);
    struct raft_event event = {.type = RAFT_TRANSFER};
    event.transfer.server_id = to_id;
    d->transfer_id = to_id;
    d->transfer_ms = d->now_ms;
    int rv = driver_step(d, &event); /* RAFT_BADID, RAFT_NOTFOUND: no such voter */
    driver_end_event(d);
    return rv == 0 ? REPLICA_OK : REPLICA_REFUSED;
}

