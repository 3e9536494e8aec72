/* driver_refill: a member whose disk was lost, on its way back. See docs/adr/0010, driver.h.
 *
 * It has forgotten what it stored, in which term it was and for whom it voted, and the others still
 * count on all three. So until it has caught up with everything it can have promised it gives no
 * vote, asks for none, and confirms no leader's reads; and it takes entries only from a leader of
 * whom it knows that a majority of the *others* followed him after the loss.
 *
 *     quiet ──election timeouts──▶ asking ──proof of this term──▶ following ──applied ≥ target──▶
 * settled ▲───────── a leader of another term ────┘
 *
 *     AppendEntries → (dropped) REFILL{term, nonce} → the leader: a ReadIndex round, in which we
 * are silent → REFILL_ACK{term, nonce, target: the leader's last entry} → AppendEntries are taken
 *
 * Refuses: to persist anything; the server remembers that this node refills, over restarts too. A
 * restart in the middle asks again.
 *
 * Failure modes: no majority of others: it waits, and so does the cluster, which has lost more than
 * it can lose. A proof that is lost is asked for again with the next heartbeat. */
#include "base/check.h"
#include "base/log.h"
#include "raft/driver_internal.h"

void driver_refill_start(struct driver *d)
{
    struct refill *r = &d->refill;
    r->on = d->config.refilling && driver_guarded(d, DRIVER_GUARD_REFILL);
    /* Differs per process: a proof that an earlier life asked for may be older than a second loss.
     */
    r->nonce = d->config.seed;
    r->quiet_until_ms = d->now_ms + DRIVER_REFILL_QUIET_FACTOR * d->config.election_timeout_ms;
}

bool driver_refilling(const struct driver *d)
{
    return d->refill.on;
}

/* Applied is committed, and the target was the last entry of a leader whom a majority of the others
 * followed: nothing that we acknowledged before the loss lies behind it. */
bool driver_refill_is_over(const struct driver *d)
{
    const struct refill *r = &d->refill;
    return r->term != 0 && r->term == d->core.current_term && d->install.phase == INSTALL_IDLE &&
           d->applied_index >= r->target && d->core.last_stored >= r->target &&
           d->durable_ticket >= d->hold_ticket;
}

static void proved(struct driver *d, const struct message *m)
{
    struct refill *r = &d->refill;
    if (m->seq != r->nonce || m->term <= r->term || m->term < d->core.current_term) {
        return;
    }
    r->term = m->term;
    r->target = m->index;
    log_info("raft: refilling in term %llu up to entry %llu", (unsigned long long)r->term,
             (unsigned long long)r->target);
}

bool driver_refill_takes(struct driver *d, uint64_t from_id, const struct message *m)
{
    struct refill *r = &d->refill;
    uint64_t term = 0;
    if (m->kind == MESSAGE_APPEND_ENTRIES) {
        term = m->raft.append_entries.term;
    } else if (m->kind == MESSAGE_INSTALL_SNAPSHOT) {
        term = m->raft.install_snapshot.term;
    } else {
        if (m->kind == MESSAGE_REFILL_ACK) {
            proved(d, m);
        } else if (m->kind == MESSAGE_WILLING) {
            return true;
        } else {
            d->refill_dropped++; /* votes, transfers, reads: silence */
        }
        return false;
    }
    if (term == r->term || term < d->core.current_term) {
        return true; /* an old one is rejected, so that its sender learns the term */
    }
    d->refill_dropped++;
    if (term > r->term && d->now_ms >= r->quiet_until_ms) {
        driver_send_refill(d, from_id, MESSAGE_REFILL, term, r->nonce, 0);
    }
    return false;
}

/* ---- the leader's side ---- */

static void refill_read_cb(struct replica_read *read, enum replica_status status)
{
    struct refill_answer *a = container_of(read, struct refill_answer, read);
    struct driver *d = a->driver;
    uint64_t to_id = a->id;
    a->id = 0;
    if (status == REPLICA_OK && d->leading && d->leading_term == a->term) {
        driver_send_refill(d, to_id, MESSAGE_REFILL_ACK, a->term, a->nonce, d->cache.last);
    }
}

/* One answer a peer is under way at a time: it asks again. */
void driver_refill_asked(struct driver *d, uint64_t from_id, const struct message *m)
{
    struct refill_answer *slot = NULL;
    struct driver_peer *peer = driver_peer(d, from_id);
    if (peer != NULL) {
        peer->refilling = true; /* what it stored it does not know any more: no change counts on it */
        peer->confirmed_term = 0;
    }
    if (!d->leading || !d->ready || m->term != d->leading_term) {
        return;
    }
    for (size_t i = 0; i < REPLICA_MEMBERS_MAX; i++) {
        if (d->refill_answers[i].id == from_id) {
            return;
        }
        if (d->refill_answers[i].id == 0) {
            slot = &d->refill_answers[i];
        }
    }
    if (slot == NULL) {
        return;
    }
    slot->driver = d;
    slot->id = from_id;
    slot->nonce = m->seq;
    slot->term = m->term;
    if (!read_index_add(&d->reads, &slot->read, refill_read_cb)) {
        slot->id = 0; /* too many reads wait: it asks again */
    }
}
