/* driver_checkpoint: checkpoints of this node, and installs of a peer's. See driver.h, install.h.
 *
 *     driver_checkpoint_begin → (server writes it) → driver_checkpoint_published → core: SNAPSHOT,
 * trim InstallSnapshot → effects.install → (server pulls) → driver_install_done → core:
 * PERSISTED_SNAPSHOT
 *
 * Failure modes: a checkpoint that is published early waits; a failed pull restarts the core. */
#include <string.h>

#include "base/check.h"
#include "base/failpoint.h"
#include "raft/driver_internal.h"

void driver_checkpoint_begin(struct driver *d, struct replica_position *position)
{
    memset(position, 0, sizeof *position);
    position->index = d->applied_index;
    position->term = d->applied_term;
    position->configuration_index = d->configuration_index;
    position->configuration_size = d->configuration_size;
    memcpy(position->configuration, d->configuration, d->configuration_size);
    d->checkpoint_running = true;
}

void driver_checkpoint_published(struct driver *d, uint64_t now_ms,
                                 const struct replica_position *position)
{
    driver_begin_event(d, now_ms);
    CHECK(driver_position_is_valid(position));
    CHECK(position->index <= d->applied_index);
    d->checkpoint_running = false;
    if (position->index > d->snapshot.index) { /* the core must not be told of one index twice */
        d->published = *position;
        d->published_waits = true;
        driver_snapshot_if_stored(d);
    }
    driver_end_event(d);
}

void driver_checkpoint_abandoned(struct driver *d)
{
    d->checkpoint_running = false;
}

static uint64_t match_of(const void *ctx, uint64_t peer_id)
{
    return driver_match_index(ctx, peer_id);
}

/* The oldest index behind which a connected peer needs entries, UINT64_MAX when nobody does. */
static uint64_t oldest_laggard(const struct driver *d)
{
    uint64_t oldest = UINT64_MAX;
    struct membership m;
    driver_get_membership(d, &m);
    for (size_t i = 0; i < m.count; i++) {
        uint64_t match = driver_match_index(d, m.members[i].id);
        if (m.members[i].id != d->config.id && driver_peer_is_connected(d, m.members[i].id) &&
            match > 0 && match < oldest) {
            oldest = match;
        }
    }
    return oldest;
}

/* What is kept reaches down to the entry at `oldest` itself: to send the next one its term is needed. */
static uint64_t entries_down_to(uint64_t index, uint64_t oldest)
{
    return oldest < index ? index - oldest + 1 : 0;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* How many entries behind a checkpoint at `index` stay: what may be in flight, what connected laggards
 * miss, what was promised with tickets. Each is bounded, because a peer that is slow for ever must not
 * keep the whole log in memory: laggards by a multiple of what stays anyway, tickets by bytes. */
static uint64_t trailing_entries(const struct driver *d, uint64_t index)
{
    uint64_t trailing = d->config.trailing_entries;
    if (!d->leading) {
        return trailing;
    }
    uint64_t laggard = smaller(entries_down_to(index, oldest_laggard(d)),
                               trailing * DRIVER_TRAILING_FACTOR_MAX);
    uint64_t promised = install_tickets_oldest(&d->tickets, match_of, d);
    uint64_t affordable = log_cache_index_within(&d->cache, d->config.catch_up_log_size);
    promised = larger(promised, affordable);
    return larger(trailing, larger(laggard, entries_down_to(index, promised)));
}

/* Guard 7: the core hears of a checkpoint at A only when its own log is durable up to A and nothing
 * is being installed. Otherwise the core's last_stored would lie below its snapshot: it would count
 * a write that completes later as new, and trim what is not yet on disk. */
void driver_snapshot_if_stored(struct driver *d)
{
    if (!d->published_waits || d->install.phase != INSTALL_IDLE) {
        return;
    }
    const struct replica_position *p = &d->published;
    if (d->core.last_stored < p->index && driver_guarded(d, DRIVER_GUARD_SNAPSHOT_STORED)) {
        return;
    }
    if (d->core_applied < p->index) {
        return; /* the core was restarted after a failed install and has to catch up first */
    }
    d->published_waits = false;
    if (p->index <= d->snapshot.index) {
        return;
    }
    uint64_t trailing = trailing_entries(d, p->index);
    struct raft_event event = {.type = RAFT_SNAPSHOT};
    driver_metadata_from_position(p, &event.snapshot.metadata);
    event.snapshot.trailing = (unsigned)trailing;
    driver_step_or_die(d, &event, "recording a checkpoint");
    d->snapshot = *p;
    if (p->index > trailing && p->index - trailing > d->cache.base) {
        FAILPOINT("raft/before-trim", "a checkpoint counts, the log behind it is whole");
        log_cache_trim(&d->cache, p->index - trailing);
        d->effects->trim(d->ctx, p->index - trailing);
    }
}

/* ---- installs, the leader's side ---- */

/* A peer that asks again is offered again what it has begun, while it could go on behind it: that entry
 * and all that follow are in the log. */
const struct replica_ticket *driver_ticket_begun(const struct driver *d, uint64_t peer_id)
{
    const struct replica_ticket *ticket = install_tickets_find(&d->tickets, peer_id);
    return ticket != NULL &&
                   log_cache_term(&d->cache, ticket->position.index) == ticket->position.term
               ? ticket
               : NULL;
}

/* ---- installs, the follower's side ---- */

/* A checkpoint may be of a term that this node heard of just now. If it became CURRENT before that term is
 * durable, a crash would leave a checkpoint that the log knows nothing of: it looks like a lost log, and
 * the node would refuse to start. */
void driver_install_if_remembered(struct driver *d)
{
    if (d->install.waits && d->durable_ticket >= d->hold_ticket) {
        d->install.waits = false;
        d->effects->install(d->ctx, &d->install.ticket, d->install.from_id);
    }
}

bool driver_checkpoint_may_end(const struct driver *d, const struct replica_position *position)
{
    return d->core.last_stored >= position->index ||
           !driver_guarded(d, DRIVER_GUARD_CHECKPOINT_STORED);
}

bool driver_installing(const struct driver *d)
{
    return d->install.phase != INSTALL_IDLE;
}

static void install_succeeded(struct driver *d, const struct replica_position *p)
{
    FAILPOINT("raft/before-reset", "a checkpoint is installed, the log is of before it");
    (void)d->effects->write_reset(d->ctx, p->index, p->term);
    FAILPOINT("raft/after-reset", "the log's thread is told to begin anew behind an installed checkpoint");
    log_cache_reset(&d->cache, p->index);
    d->snapshot = *p;
    d->applied_index = p->index;
    d->applied_term = p->term;
    driver_configuration_set(d, p->configuration_index, p->configuration, p->configuration_size);
    d->core_applied = p->index;
    d->core_commit = p->index;
    d->published_waits = false;
    d->checkpoint_running = false;
    d->install.phase = INSTALL_IDLE;
    struct raft_event event = {.type = RAFT_PERSISTED_SNAPSHOT};
    driver_metadata_from_position(p, &event.persisted_snapshot.metadata);
    event.persisted_snapshot.last = true;
    driver_step_or_die(d, &event, "recording an installed checkpoint");
}

/* See install.h: the core has no cancel. */
void driver_restart_if_drained(struct driver *d)
{
    if (d->install.phase != INSTALL_DRAINING) {
        return;
    }
    const struct log_cache_entry *last = log_cache_get(&d->cache, d->cache.last);
    if (d->hold_ticket > d->durable_ticket || (last != NULL && last->ticket > d->durable_ticket)) {
        return;
    }
    d->install.phase = INSTALL_IDLE;
    driver_quick_end(d);
    driver_core_close(d);
    d->config.seed = d->config.seed * 1664525u + 1013904223u;
    driver_core_init(d);
    driver_core_start(d);
}

void driver_install_done(struct driver *d, uint64_t now_ms, const struct replica_position *position,
                         bool ok)
{
    driver_begin_event(d, now_ms);
    CHECK(d->install.phase == INSTALL_PULLING);
    if (ok) {
        CHECK(driver_position_is_valid(position));
        CHECK(position->index == d->install.ticket.position.index);
        CHECK(position->term == d->install.ticket.position.term);
        install_succeeded(d, position);
    } else {
        d->install.phase = INSTALL_DRAINING;
        driver_restart_if_drained(d);
    }
    driver_end_event(d);
}
