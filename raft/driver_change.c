/* driver_change: the configuration is changed, one member at a time. See docs/adr/0012, driver.h.
 *
 * What it owns: the conditions under which a change is proposed. What it refuses: to wait for them (the
 * caller asks again), to bring a member in as a voter, to change the leader's own place.
 *
 *     change_from (leading? ready? nothing pending?) → membership_* (does it make sense?) →
 *     change_keeps_quorum → propose
 *
 * Failure modes: each condition has its own refusal (raft/replica.h). A change that was proposed and
 * whose leader is lost may or may not be committed, like every entry. */
#include "base/check.h"
#include "raft/driver_internal.h"

static enum replica_status refuse(enum replica_refusal *why, enum replica_refusal refusal)
{
    *why = refusal;
    return REPLICA_REFUSED;
}

/* A connected voter that has not stored the newest configuration: it does not know who the voters
 * are. Whom nobody can reach is not waited for, or a dead node could never be removed; nor is the one
 * whom the change takes away. */
static bool voter_lacks_configuration(const struct driver *d, uint64_t except_id)
{
    struct membership m;
    driver_get_membership(d, &m);
    for (size_t i = 0; i < m.count; i++) {
        uint64_t id = m.members[i].id;
        if (m.members[i].role == REPLICA_VOTER && id != d->config.id && id != except_id &&
            driver_peer_is_connected(d, id) &&
            driver_match_index(d, id) < d->core.configuration_committed_index) {
            return true;
        }
    }
    return false;
}

/* Looks at nothing but the log and the peers, so that a new leader finds what its predecessor left. */
bool driver_change_pending(const struct driver *d)
{
    return driver_change_uncommitted(d) || (d->leading && voter_lacks_configuration(d, 0));
}

static void ask_for_life(struct driver *d, uint64_t id)
{
    driver_send_read(d, id, MESSAGE_READ, d->leading_term, 0); /* 0: of no round of reads */
}

static bool voter_counts(struct driver *d, uint64_t id)
{
    const struct driver_peer *p = driver_peer(d, id);
    if (p != NULL && p->refilling) {
        ask_for_life(d, id); /* it may be whole by now */
    }
    return p != NULL && !p->refilling &&
           driver_match_index(d, id) + DRIVER_VOTER_LAG_MAX >= d->cache.last;
}

/* A change that leaves fewer voters than a majority to work with would be the last one. */
static bool change_keeps_quorum(struct driver *d, const struct membership *to)
{
    size_t counted = 0;
    for (size_t i = 0; i < to->count; i++) {
        uint64_t id = to->members[i].id;
        counted += to->members[i].role == REPLICA_VOTER &&
                   (id == d->config.id || voter_counts(d, id));
    }
    return counted > membership_count_voters(to) / 2;
}

static enum replica_status propose(struct driver *d, uint64_t now_ms, const struct membership *to,
                                   enum replica_refusal *why)
{
    uint8_t bytes[REPLICA_CONFIGURATION_SIZE_MAX];
    if (driver_guarded(d, DRIVER_GUARD_CHANGE_TERM) && !change_keeps_quorum(d, to)) {
        return refuse(why, REPLICA_REFUSAL_QUORUM);
    }
    int size = membership_encode(to, bytes);
    CHECK(size > 0);
    driver_begin_event(d, now_ms);
    int rv = driver_submit_change(d, bytes, (uint32_t)size);
    driver_end_event(d);
    return rv == 0 ? REPLICA_OK : refuse(why, REPLICA_REFUSAL_PENDING);
}

/* N7: the core accepts a change before an entry of its own term is committed. Then two leaders can
 * each commit a configuration of their own, with majorities that do not meet (Ongaro's note of 2015
 * on single-server changes). `ready` means that the no-op of this term is committed and applied.
 *
 * And not before all voters know the last one. Two promotions and a demotion, 4 and 5 too slow to
 * notice: the last configuration {1, 2, 4, 5} is on 1 and 2 alone and needs three. */
static enum replica_status change_from(struct driver *d, uint64_t except_id,
                                       struct membership *from, enum replica_refusal *why)
{
    *why = REPLICA_REFUSAL_NONE;
    if (d->paused || !d->leading) {
        return REPLICA_NOT_LEADER;
    }
    driver_get_membership(d, from);
    if (!driver_guarded(d, DRIVER_GUARD_CHANGE_TERM)) {
        return REPLICA_OK;
    }
    if (!d->ready || raft_transferee(&d->core) != 0) {
        return refuse(why, REPLICA_REFUSAL_NOT_READY);
    }
    if (driver_change_uncommitted(d) || voter_lacks_configuration(d, except_id)) {
        return refuse(why, REPLICA_REFUSAL_PENDING);
    }
    return REPLICA_OK;
}

enum replica_status driver_add(struct driver *d, uint64_t now_ms,
                               const struct replica_member *member, enum replica_refusal *why)
{
    struct membership from, to;
    enum replica_status status = change_from(d, 0, &from, why);
    if (status == REPLICA_OK && (*why = membership_add(&from, member, &to)) != 0) {
        status = REPLICA_REFUSED;
    }
    return status == REPLICA_OK ? propose(d, now_ms, &to, why) : status;
}

/* It has the configuration that names it and nearly all behind it, and it answers: a member that
 * refills stores entries, but is silent otherwise, and gives no vote. */
static bool has_caught_up(struct driver *d, uint64_t id)
{
    const struct driver_peer *p = driver_peer(d, id);
    uint64_t match = driver_match_index(d, id);
    if (p == NULL || p->confirmed_term != d->leading_term) {
        if (p != NULL) {
            ask_for_life(d, id);
        }
        return false;
    }
    return match >= d->core.configuration_committed_index &&
           match + DRIVER_CATCH_UP_ENTRIES_MAX >= d->cache.last;
}

enum replica_status driver_assign(struct driver *d, uint64_t now_ms, uint64_t id,
                                  enum replica_member_role role, enum replica_refusal *why)
{
    struct membership from, to;
    enum replica_status status = change_from(d, role == REPLICA_VOTER ? 0 : id, &from, why);
    if (status == REPLICA_OK && (*why = membership_assign(&from, id, role, &to)) != 0) {
        status = REPLICA_REFUSED;
    }
    if (status != REPLICA_OK) {
        return status;
    }
    if (id == d->config.id) {
        return refuse(why, REPLICA_REFUSAL_SELF);
    }
    if (role == REPLICA_VOTER && driver_guarded(d, DRIVER_GUARD_CHANGE_TERM) &&
        !has_caught_up(d, id)) {
        return refuse(why, REPLICA_REFUSAL_LAGGARD);
    }
    return propose(d, now_ms, &to, why);
}

enum replica_status driver_remove(struct driver *d, uint64_t now_ms, uint64_t id,
                                  enum replica_refusal *why)
{
    struct membership from, to;
    enum replica_status status = change_from(d, id, &from, why);
    if (status == REPLICA_OK && (*why = membership_remove(&from, id, &to)) != 0) {
        status = REPLICA_REFUSED;
    }
    if (status == REPLICA_OK && id == d->config.id) {
        status = refuse(why, REPLICA_REFUSAL_SELF);
    }
    return status == REPLICA_OK ? propose(d, now_ms, &to, why) : status;
}
