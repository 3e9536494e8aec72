/* replica: the driver on a real loop, log and transport. See replica.h.
 *
 * What it owns: one timer, the log, the transport, and the translation between them and the driver.
 * What it refuses: to decide anything about consensus; that is the driver's, and simulated there.
 *
 *     wal durable ─▶ driver_durable ─┐                       ┌─▶ wal_append, wal_set_vote
 *     transport message ─▶ driver_receive ─▶ effects ────────┼─▶ transport_send
 *     timer ─▶ driver_tick ──────────┘                       └─▶ hooks.apply, role_changed, install
 *
 * Life: create (blocks while the log is recovered) → the first timer makes the first callbacks →
 * destroy: requests are told, then transport, log and timer close one after the other.
 *
 * Failure modes: an error of the log ends the process inside wal.c; an impossible state of the core
 * inside the driver. */
#include "raft/replica.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/str.h"
#include "raft/driver.h"
#include "raft/replica_verify.h"
#include "raft/transport.h"
#include "raft/wal.h"
#include "raft/wal_inspect.h"

/* A disk that lags so far behind gets no new work: what is queued must stay a fraction of the log's own
 * bound, where it would block the loop. */
#define REPLICA_LOG_QUEUE_MAX (64u << 20)
#define CATCH_UP_LOG_SIZE     (512ull << 20)

_Static_assert(REPLICA_LOG_QUEUE_MAX < WAL_QUEUE_SIZE_MAX / 2, "refuse before the log blocks");
_Static_assert(TRANSPORT_PEERS_MAX >= REPLICA_MEMBERS_MAX, "every member is a peer");
_Static_assert(TRANSPORT_ADDRESS_SIZE >= REPLICA_ENDPOINT_SIZE, "addresses fit");

struct replica {
    uint64_t id;
    struct replica_hooks hooks;
    void *ctx;
    struct driver *driver; /* NULL once closing */
    struct wal *wal;
    struct wal_recovered recovered; /* between open and start */
    struct transport *transport;
    uv_timer_t timer;
    uint64_t armed_ms; /* when the timer fires; 0: not armed */
    bool closing;
    bool in_install; /* hooks.install is on the stack */
    bool stranger_left; /* perhaps: a connection ended */
    uint64_t peers[TRANSPORT_PEERS_MAX]; /* ids given to the transport; 0: free */
    void (*done)(void *ctx);
    void *done_ctx;
};

/* ---- time ---- */

static void timer_cb(uv_timer_t *timer);
static void forget_strangers(struct replica *r);

/* A deadline that moved away is noticed when the timer fires; only an earlier one needs a new start. */
static void replica_arm(struct replica *r)
{
    if (r->closing) {
        return;
    }
    uint64_t deadline_ms = driver_deadline_ms(r->driver);
    if (r->armed_ms != 0 && r->armed_ms <= deadline_ms) {
        return;
    }
    uint64_t now_ms = clock_monotonic_ms();
    r->armed_ms = deadline_ms;
    uv_update_time(r->timer.loop);
    int rv = uv_timer_start(&r->timer, timer_cb, deadline_ms > now_ms ? deadline_ms - now_ms : 0, 0);
    CHECK(rv == 0);
}

static void timer_cb(uv_timer_t *timer)
{
    struct replica *r = timer->data;
    r->armed_ms = 0;
    uint64_t now_ms = clock_monotonic_ms();
    if (now_ms >= driver_deadline_ms(r->driver)) {
        driver_tick(r->driver, now_ms);
        if (r->stranger_left) {
            forget_strangers(r);
        }
    }
    replica_arm(r);
}

/* ---- what the driver does to the world ---- */

static uint64_t effect_write_vote(void *ctx, uint64_t term, uint64_t vote)
{
    struct replica *r = ctx;
    return wal_set_vote(r->wal, term, vote);
}

static uint64_t effect_write_entries(void *ctx, const struct record_header *const *records,
                                     size_t count)
{
    struct replica *r = ctx;
    return wal_append(r->wal, records, count);
}

static uint64_t effect_write_reset(void *ctx, uint64_t index, uint64_t term)
{
    struct replica *r = ctx;
    return wal_reset(r->wal, index, term);
}

static void effect_trim(void *ctx, uint64_t index)
{
    struct replica *r = ctx;
    wal_trim(r->wal, index);
}

static void effect_send(void *ctx, uint64_t to_id, const struct message_out *m)
{
    struct replica *r = ctx;
    if (FAILPOINT_DROP("raft/before-send", "a message to a peer")) {
        return;
    }
    (void)transport_send(r->transport, to_id, m); /* a lost message is sent again by the core */
}

static void effect_apply(void *ctx, const struct record_header *record)
{
    struct replica *r = ctx;
    if (record->type == RECORD_COMMAND) {
        r->hooks.apply(r->ctx, record->index, record->term, record_data(record), record->size);
    }
}

static void effect_state_changed(void *ctx)
{
    struct replica *r = ctx;
    struct driver_state state = driver_get_state(r->driver);
    r->hooks.role_changed(r->ctx, state.role, state.ready, state.term, state.leader_id);
}

static bool peer_is_known(const struct replica *r, uint64_t id)
{
    for (size_t i = 0; i < ARRAY_COUNT(r->peers); i++) {
        if (r->peers[i] == id) {
            return true;
        }
    }
    return false;
}

static void peer_set(struct replica *r, uint64_t id, const char *address)
{
    size_t slot = 0;
    while (slot < ARRAY_COUNT(r->peers) && r->peers[slot] != id) {
        slot++;
    }
    for (size_t i = 0; slot == ARRAY_COUNT(r->peers) && i < ARRAY_COUNT(r->peers); i++) {
        if (r->peers[i] == 0) {
            slot = i;
        }
    }
    if (slot == ARRAY_COUNT(r->peers) || transport_set_peer(r->transport, id, address) != 0) {
        log_warn("raft: node %llu at %s cannot be a peer: not a numeric host:port, or too many",
                 (unsigned long long)id, address);
        return;
    }
    r->peers[slot] = id;
}

static void effect_membership_changed(void *ctx)
{
    struct replica *r = ctx;
    struct membership m;
    driver_get_membership(r->driver, &m);
    for (size_t i = 0; i < m.count; i++) {
        char raft[REPLICA_ENDPOINT_SIZE];
        replica_address_raft(m.members[i].address, raft);
        if (m.members[i].id != r->id) {
            peer_set(r, m.members[i].id, raft);
        }
    }
    /* A member that leaves is cut off only when that is committed. It calls again, and is told. */
    for (size_t i = 0;
         m.count > 0 && !driver_change_uncommitted(r->driver) && i < ARRAY_COUNT(r->peers);
         i++) {
        if (r->peers[i] != 0 && membership_find(&m, r->peers[i]) == NULL) {
            transport_remove_peer(r->transport, r->peers[i]);
            r->peers[i] = 0;
        }
    }
}

static void effect_settled(void *ctx)
{
    struct replica *r = ctx;
    if (r->hooks.settled != NULL) {
        r->hooks.settled(r->ctx);
    }
}

static void effect_removed(void *ctx)
{
    struct replica *r = ctx;
    if (r->hooks.removed != NULL) {
        r->hooks.removed(r->ctx);
    }
}

static int effect_make_ticket(void *ctx, struct replica_ticket *ticket)
{
    struct replica *r = ctx;
    return r->hooks.make_ticket(r->ctx, ticket);
}

static void effect_install(void *ctx, const struct replica_ticket *ticket, uint64_t from_id)
{
    struct replica *r = ctx;
    log_info("raft: installing the checkpoint at %llu from node %llu",
             (unsigned long long)ticket->position.index, (unsigned long long)from_id);
    r->in_install = true;
    r->hooks.install(r->ctx, ticket, from_id);
    r->in_install = false;
}

static const struct driver_effects replica_effects = {
    .write_vote = effect_write_vote,
    .write_entries = effect_write_entries,
    .write_reset = effect_write_reset,
    .trim = effect_trim,
    .send = effect_send,
    .apply = effect_apply,
    .state_changed = effect_state_changed,
    .membership_changed = effect_membership_changed,
    .settled = effect_settled,
    .removed = effect_removed,
    .make_ticket = effect_make_ticket,
    .install = effect_install,
};

/* ---- what the world does to the driver ---- */

static void durable_cb(void *ctx, uint64_t ticket, uint64_t index, uint64_t term)
{
    struct replica *r = ctx;
    (void)index;
    (void)term;
    if (!r->closing) {
        driver_durable(r->driver, clock_monotonic_ms(), ticket);
        replica_arm(r);
    }
}

static void message_cb(void *ctx, uint64_t from_id, const struct message *m)
{
    struct replica *r = ctx;
    if (!r->closing && !FAILPOINT_DROP("raft/before-receive", "a message of a peer")) {
        driver_receive(r->driver, clock_monotonic_ms(), from_id, m);
        replica_arm(r);
    }
}

static void peer_connected_cb(void *ctx, uint64_t id)
{
    struct replica *r = ctx;
    if (!r->closing) {
        log_info("raft: node %llu is connected", (unsigned long long)id);
        driver_peer_connected(r->driver, clock_monotonic_ms(), id);
        replica_arm(r);
    }
}

static void peer_disconnected_cb(void *ctx, uint64_t id)
{
    struct replica *r = ctx;
    if (!r->closing) {
        log_info("raft: node %llu is disconnected", (unsigned long long)id);
        driver_peer_disconnected(r->driver, clock_monotonic_ms(), id);
        r->stranger_left = true;
        replica_arm(r);
    }
}

/* Who is no member and went away is not called any more; there may be room for few. From the timer,
 * because the transport is busy with it in its own callbacks. */
static void forget_strangers(struct replica *r)
{
    struct membership m;
    r->stranger_left = false;
    driver_get_membership(r->driver, &m);
    for (size_t i = 0; m.count > 0 && i < ARRAY_COUNT(r->peers); i++) {
        uint64_t id = r->peers[i];
        if (id != 0 && membership_find(&m, id) == NULL &&
            !transport_is_connected(r->transport, id)) {
            transport_remove_peer(r->transport, id);
            r->peers[i] = 0;
        }
    }
}

/* It holds the cluster's key. Either we know no configuration yet, or ours is older than its joining:
 * it may even lead, and then nobody else will tell us. */
static void stranger_cb(void *ctx, uint64_t id, const char *address)
{
    struct replica *r = ctx;
    if (!r->closing && !peer_is_known(r, id)) {
        peer_set(r, id, address);
    }
}

static void clock_read_cb(void *ctx, struct message_clock *clock, uint64_t *term)
{
    struct replica *r = ctx;
    if (r->hooks.clock_read != NULL) {
        struct replica_clock own = {0};
        r->hooks.clock_read(r->ctx, &own);
        *clock = (struct message_clock){own.monotonic_ns, own.wall_ms, own.cluster_ns, own.leads,
                                        own.suspect};
        *term = own.term;
    }
}

static void clock_sample_cb(void *ctx, uint64_t id, const struct message_clock *clock,
                            uint64_t term, uint64_t sent_ns, uint64_t received_ns)
{
    struct replica *r = ctx;
    if (!r->closing && r->hooks.clock_sample != NULL) {
        struct replica_clock sample = {clock->monotonic_ns, clock->wall_ms, clock->cluster_ns, term,
                                       clock->leads, clock->suspect};
        r->hooks.clock_sample(r->ctx, id, &sample, sent_ns, received_ns);
    }
}

static const struct transport_callbacks replica_transport_callbacks = {
    .message = message_cb,
    .peer_connected = peer_connected_cb,
    .peer_disconnected = peer_disconnected_cb,
    .stranger = stranger_cb,
    .clock_read = clock_read_cb,
    .clock_sample = clock_sample_cb,
};

/* ---- create and destroy ---- */

static void timer_closed_cb(uv_handle_t *handle)
{
    struct replica *r = handle->data;
    if (r->done != NULL) {
        r->done(r->done_ctx);
    }
    free(r);
}

static void wal_closed_cb(void *ctx)
{
    struct replica *r = ctx;
    uv_close((uv_handle_t *)&r->timer, timer_closed_cb);
}

static void transport_closed_cb(void *ctx)
{
    struct replica *r = ctx;
    wal_close(r->wal, wal_closed_cb, r);
}

void replica_destroy(struct replica *r, void (*done)(void *ctx), void *ctx)
{
    CHECK(!r->closing);
    r->closing = true;
    r->done = done;
    r->done_ctx = ctx;
    uv_timer_stop(&r->timer);
    if (r->driver != NULL) {
        driver_destroy(r->driver);
        r->driver = NULL;
    }
    if (r->transport != NULL) {
        transport_destroy(r->transport, transport_closed_cb, r);
    } else {
        transport_closed_cb(r);
    }
}

static void bootstrap_members(const struct replica_config *config, struct membership *m)
{
    CHECK(config->bootstrap_count <= REPLICA_MEMBERS_MAX);
    m->count = config->bootstrap_count;
    for (size_t i = 0; i < m->count; i++) {
        m->members[i] = config->bootstrap[i];
    }
}

static int start_driver(struct replica *r, const struct replica_config *config,
                        const struct replica_position *position,
                        const struct membership *bootstrap, const struct wal_recovered *recovered)
{
    struct driver_config driver_config = {
        .id = config->id,
        .election_timeout_ms = config->election_timeout_ms != 0 ? config->election_timeout_ms : 500,
        .entries_in_flight_max = REPLICA_IN_FLIGHT_MAX,
        /* Less would trim what is still in flight to a peer. */
        .trailing_entries = config->trailing_entries > REPLICA_IN_FLIGHT_MAX
                                ? config->trailing_entries
                                : REPLICA_IN_FLIGHT_MAX,
        .catch_up_log_size =
            config->catch_up_log_size != 0 ? config->catch_up_log_size : CATCH_UP_LOG_SIZE,
        .quick_failover = true,
        .refilling = config->start == REPLICA_REFILL,
    };
    const struct replica_member *self = membership_find(bootstrap, config->id);
    if (self != NULL) {
        str_copy(driver_config.address, sizeof driver_config.address, str_from(self->address));
    } else {
        snprintf(driver_config.address, sizeof driver_config.address, "%.40s:%u",
                 config->listen_host, config->listen_port);
    }
    int rv = uv_random(NULL, NULL, &driver_config.seed, sizeof driver_config.seed, 0, NULL);
    CHECK(rv == 0);
    r->driver = driver_create(&driver_config, &replica_effects, r);
    driver_restore(r->driver, recovered->base_index, recovered->entries, recovered->count);
    if (recovered->torn_bytes > 0) {
        log_info("raft: the last write of the log was incomplete (%llu bytes) and is left out: it was "
                 "never acknowledged",
                 (unsigned long long)recovered->torn_bytes);
    }
    return driver_start(r->driver, clock_monotonic_ms(), recovered->term, recovered->vote, position,
                        config->start == REPLICA_NEW ? bootstrap : NULL);
}

int replica_open(const struct replica_config *config, struct replica **replica)
{
    CHECK(config->id > 0);
    struct membership bootstrap;
    bootstrap_members(config, &bootstrap);
    uint8_t encoded[REPLICA_CONFIGURATION_SIZE_MAX];
    if (bootstrap.count > 0 && membership_encode(&bootstrap, encoded) < 0) {
        log_error("raft: the list of members is not valid: ids and addresses must be unique, not "
                  "empty, at most %d",
                  REPLICA_MEMBERS_MAX);
        return -1;
    }
    struct replica *r = calloc(1, sizeof *r);
    CHECK(r != NULL);
    r->id = config->id;

    struct wal_config wal_config = {
        .directory = config->directory,
        .node_id = config->id,
        .segment_size = config->segment_size,
        .sync = config->log_sync,
        .write_deadline_ms = config->log_write_deadline_ms,
    };
    memcpy(wal_config.cluster_id, config->identity.cluster_id, sizeof wal_config.cluster_id);
    struct wal_recovered nothing = {.fresh = true};
    if (wal_inspect_is_missing(config->directory) && replica_check_past(config, NULL, &nothing) < 0) {
        free(r); /* before a new log is made in the place of the lost one */
        return -1;
    }
    if (wal_open(NULL, &wal_config, durable_cb, r, &r->wal, &r->recovered) != 0) {
        free(r);
        return -1;
    }
    *replica = r;
    return 0;
}

int replica_start(struct replica *r, const struct replica_config *config,
                  const struct replica_hooks *hooks, void *ctx,
                  const struct replica_position *position)
{
    struct membership bootstrap;
    bootstrap_members(config, &bootstrap);
    r->hooks = *hooks;
    r->ctx = ctx;
    wal_start(r->wal, config->loop);
    uv_timer_init(config->loop, &r->timer);
    r->timer.data = r;

    int rv = replica_check_past(config, position, &r->recovered);
    rv = rv == 0 ? start_driver(r, config, position, &bootstrap, &r->recovered) : rv;
    wal_recovered_close(&r->recovered);
    if (rv != 0) {
        goto err_after_wal_start;
    }
    const struct replica_member *self = membership_find(&bootstrap, config->id);
    char advertise[REPLICA_ENDPOINT_SIZE] = "";
    if (self != NULL) {
        replica_address_raft(self->address, advertise);
    }
    struct transport_config transport_config = {
        .loop = config->loop,
        .listen_host = config->listen_host,
        .listen_port = config->listen_port,
        .identity = config->identity,
        .formats = config->formats,
        .advertise = self != NULL ? advertise : NULL,
    };
    transport_config.identity.id = config->id;
    if (transport_create(&transport_config, &replica_transport_callbacks, r, &r->transport) != 0) {
        r->transport = NULL;
        goto err_after_wal_start;
    }
    replica_arm(r);
    return 0;

err_after_wal_start:
    /* The log's thread is joined when the loop runs on; nobody waits for it. */
    replica_destroy(r, NULL, NULL);
    return -1;
}

int replica_create(const struct replica_config *config, const struct replica_hooks *hooks, void *ctx,
                   const struct replica_position *position, struct replica **replica)
{
    return replica_open(config, replica) == 0
               ? replica_start(*replica, config, hooks, ctx, position)
               : -1;
}

/* ---- requests ---- */

enum replica_status replica_submit(struct replica *r, struct replica_submit *req, const void *data,
                                   size_t size, replica_submit_cb cb)
{
    if (r->closing) {
        return REPLICA_NOT_LEADER;
    }
    if (wal_queued_bytes(r->wal) > REPLICA_LOG_QUEUE_MAX) {
        return REPLICA_BUSY;
    }
    return driver_submit(r->driver, clock_monotonic_ms(), req, data, size, cb);
}

enum replica_status replica_read(struct replica *r, struct replica_read *req, replica_read_cb cb)
{
    return r->closing ? REPLICA_NOT_LEADER
                      : driver_read(r->driver, clock_monotonic_ms(), req, cb);
}

enum replica_status replica_transfer(struct replica *r, uint64_t to_id)
{
    return r->closing ? REPLICA_NOT_LEADER
                      : driver_transfer(r->driver, clock_monotonic_ms(), to_id);
}

uint64_t replica_log_age_ms(const struct replica *r)
{
    return r->closing ? 0 : wal_write_age_ms(r->wal);
}

uint64_t replica_successor(const struct replica *r)
{
    return r->closing ? 0 : driver_successor(r->driver);
}

void replica_set_willing(struct replica *r, bool willing)
{
    if (!r->closing) {
        driver_set_willing(r->driver, clock_monotonic_ms(), willing);
    }
}

enum replica_status replica_member_add(struct replica *r, const struct replica_member *member,
                                       enum replica_refusal *why)
{
    *why = REPLICA_REFUSAL_NONE;
    return r->closing ? REPLICA_NOT_LEADER
                      : driver_add(r->driver, clock_monotonic_ms(), member, why);
}

enum replica_status replica_member_assign(struct replica *r, uint64_t id,
                                          enum replica_member_role role, enum replica_refusal *why)
{
    *why = REPLICA_REFUSAL_NONE;
    return r->closing ? REPLICA_NOT_LEADER
                      : driver_assign(r->driver, clock_monotonic_ms(), id, role, why);
}

enum replica_status replica_member_remove(struct replica *r, uint64_t id, enum replica_refusal *why)
{
    *why = REPLICA_REFUSAL_NONE;
    return r->closing ? REPLICA_NOT_LEADER
                      : driver_remove(r->driver, clock_monotonic_ms(), id, why);
}

bool replica_get_member(const struct replica *r, uint64_t id, struct replica_member *member)
{
    struct membership m = {.count = 0};
    if (!r->closing) {
        driver_get_membership(r->driver, &m);
    }
    const struct replica_member *found = membership_find(&m, id);
    if (found != NULL) {
        *member = *found;
    }
    return found != NULL;
}

/* ---- checkpoints and installs ---- */

void replica_position(struct replica *r, struct replica_position *position)
{
    CHECK(!r->closing);
    driver_checkpoint_begin(r->driver, position);
}

bool replica_checkpoint_may_end(const struct replica *r, const struct replica_position *position)
{
    return r->closing || driver_checkpoint_may_end(r->driver, position);
}

void replica_checkpoint_published(struct replica *r, const struct replica_position *position)
{
    if (!r->closing) {
        driver_checkpoint_published(r->driver, clock_monotonic_ms(), position);
    }
}

void replica_checkpoint_abandoned(struct replica *r)
{
    if (!r->closing) {
        driver_checkpoint_abandoned(r->driver);
    }
}

bool replica_installing(const struct replica *r)
{
    return !r->closing && driver_installing(r->driver);
}

void replica_install_done(struct replica *r, const struct replica_position *position, bool ok)
{
    CHECK(!r->in_install); /* later, never from within hooks.install */
    if (r->closing) {
        return;
    }
    log_info("raft: install %s", ok ? "done" : "failed: the leader will offer again");
    driver_install_done(r->driver, clock_monotonic_ms(), position, ok);
    replica_arm(r);
}

/* ---- what is known ---- */

void replica_get_info(const struct replica *r, struct replica_info *info)
{
    memset(info, 0, sizeof *info);
    info->id = r->id;
    if (r->closing) {
        return;
    }
    struct driver_state state = driver_get_state(r->driver);
    struct driver_stats stats;
    struct wal_stats wal_stats;
    struct membership m;
    driver_get_stats(r->driver, &stats);
    driver_get_membership(r->driver, &m);
    wal_get_stats(r->wal, &wal_stats);
    info->role = state.role;
    info->ready = state.ready;
    info->refilling = driver_refilling(r->driver);
    info->leader_id = state.leader_id;
    info->term = state.term;
    info->last_index = stats.last_index;
    info->stored_index = stats.stored_index;
    info->commit_index = stats.commit_index;
    info->applied_index = stats.applied_index;
    info->first_index = stats.first_index;
    info->change_uncommitted = driver_change_uncommitted(r->driver);
    info->in_flight = stats.in_flight;
    info->elections = stats.elections;
    info->appends = wal_stats.writes;
    info->append_bytes = wal_stats.bytes;
    info->log_segments = wal_stats.segments;
    info->append_ns = wal_stats.write_ns;
    info->peers_count = m.count;
    for (size_t i = 0; i < m.count; i++) {
        uint64_t id = m.members[i].id;
        info->peers[i].member = m.members[i];
        info->peers[i].connected = id == r->id || transport_is_connected(r->transport, id);
        info->peers[i].unwilling = driver_peer_is_unwilling(r->driver, id);
        info->peers[i].match_index = driver_match_index(r->driver, id);
        info->peers[i].formats = (struct format_range){0, 0};
        (void)transport_peer_formats(r->transport, id, &info->peers[i].formats);
    }
}

uint64_t replica_applied_index(const struct replica *r)
{
    struct driver_stats stats;
    if (r->closing) {
        return 0;
    }
    driver_get_stats(r->driver, &stats);
    return stats.applied_index;
}
