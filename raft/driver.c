/* driver: start, the step and the order of its effects, durability, ticks. See driver.h.
 *
 * One step: raft_step(event) fills an update, which is carried out in this order:
 *
 *     1. term and vote      write_vote; messages are held from here on until it is durable
 *     2. entries            into the cache, write_entries (index ≤ last truncates)
 *     3. snapshot           the core wants a checkpoint installed: effects.install
 *     4. messages           AppendEntries are filled from the cache
 *     5. leadership         gained: own no-op. Lost: requests are told
 *     6. commit             apply, and report committed configurations back to the core
 *
 * 2 before 4 because the cache feeds the messages; 4 before 6 because stepping a committed
 * configuration reuses the core's array of messages. */
#include "raft/driver.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/str.h"
#include "raft/driver_internal.h"

_Static_assert(RAFT_VERSION_NUMBER == 2201,
               "memory ownership and the guards are those of libraft 0.22.1: another version is a "
               "deliberate act with the simulator as judge");
_Static_assert(sizeof(struct raft) == 992, "built as Debian ships it: never with RAFT__LEGACY_no");
_Static_assert(RECORD_DATA_SIZE_MAX == REPLICA_ENTRY_SIZE_MAX, "one limit, two headers");
_Static_assert(MESSAGE_CONFIGURATION_MAX >= REPLICA_CONFIGURATION_SIZE_MAX, "fits a message");
_Static_assert(MESSAGE_DATA_MAX >= REPLICA_TICKET_SIZE_MAX, "fits a message");
_Static_assert(DRIVER_APPEND_SIZE_MAX + RECORD_SPAN_MAX + MESSAGE_HEADER_SIZE <= MESSAGE_SIZE_MAX,
               "a message of entries fits a frame");

_Noreturn void driver_die(const char *what, int rv)
{
    log_error("raft: %s failed: %s; this node ends, its peers go on", what, raft_strerror(rv));
    abort();
}
/* ---- create and destroy ---- */

struct driver *driver_create(const struct driver_config *config,
                             const struct driver_effects *effects, void *ctx)
{
    CHECK(config->id > 0);
    CHECK(config->election_timeout_ms > 0);
    CHECK(config->entries_in_flight_max > 0);
    struct driver *d = calloc(1, sizeof *d);
    CHECK(d != NULL);
    d->config = *config;
    d->effects = effects;
    d->ctx = ctx;
    d->held_last = &d->held_first;
    d->submits_last = &d->submits_first;
    log_cache_init(&d->cache, 0);
    read_index_init(&d->reads);
    driver_core_init(d);
    return d;
}

void driver_destroy(struct driver *d)
{
    d->leading = false;
    d->ready = false;
    d->paused = true; /* callbacks of requests that submit again are told NOT_LEADER */
    driver_requests_lost(d);
    driver_drop_held(d);
    driver_core_close(d);
    log_cache_close(&d->cache);
    free(d);
}

void driver_test_disable_guard(struct driver *d, unsigned mask)
{
    d->guards_off |= mask;
}
/* ---- the step ---- */

/* The core's own no-op at election: a static entry that is encoded anew. */
static struct batch *adopt_barrier(struct driver *d, uint64_t index)
{
    struct batch *b = batch_create(record_span(0));
    record_encode(batch_first(b), RECORD_NOOP, index, d->core.barrier.term, NULL, 0);
    raft_free(d->core.barrier.buf.base);
    d->noop_index = index;
    return b;
}

static void update_entries(struct driver *d, struct raft_update *update)
{
    uint64_t index = update->entries.index;
    size_t count = update->entries.n;
    CHECK(count > 0);
    CHECK(index > d->cache.base);
    CHECK(index <= d->cache.last + 1);
    CHECK(index > d->applied_index); /* what is committed is never replaced */
    if (index <= d->cache.last) {
        log_cache_truncate(&d->cache, index);
    }
    const struct record_header **records = calloc(count, sizeof *records);
    CHECK(records != NULL);
    struct batch *b;
    if (update->entries.batch == &d->core.barrier) {
        CHECK(count == 1);
        b = adopt_barrier(d, index);
        records[0] = batch_first(b);
    } else {
        b = update->entries.batch[0].batch;
        for (size_t i = 0; i < count; i++) {
            CHECK(update->entries.batch[i].batch == b);
            records[i] = (const struct record_header *)update->entries.batch[i].buf.base - 1;
            CHECK(records[i]->index == index + i);
            CHECK(records[i]->term == update->entries.batch[i].term);
        }
    }
    uint64_t ticket = d->effects->write_entries(d->ctx, records, count);
    for (size_t i = 0; i < count; i++) {
        log_cache_append(&d->cache, records[i], b, ticket);
    }
    if (driver_is_leader(d) && records[0]->type == RECORD_CHANGE) {
        /* A change leaves when it is on the leader's own disk. Voters 1 and 2: 1 leads and demotes 2,
         * which stores that, while 1 loses it in a crash. Then 1 needs the vote of 2, whose log is the
         * longer one, and 2, no voter by its own log, never stands: nobody leads for ever. */
        d->hold_ticket = ticket;
    }
    free(records);
}

/* The core has dropped its log in favour of the checkpoint that was offered. Ours stays in the
 * cache until the install is done, so that a failed one can go back to it. */
static void update_snapshot(struct driver *d, struct raft_update *update)
{
    CHECK(d->install.phase == INSTALL_IDLE);
    CHECK(update->snapshot.metadata.index == d->install.ticket.position.index);
    CHECK(update->snapshot.metadata.index > d->applied_index);
    raft_configuration_close(&update->snapshot.metadata.configuration);
    raft_free(update->snapshot.chunk.base);
    d->install.phase = INSTALL_PULLING;
    d->installs++;
    d->install.waits = true;
    driver_install_if_remembered(d);
}

static void update_leadership(struct driver *d)
{
    bool leader = driver_is_leader(d);
    CHECK(!leader || !d->leading || d->leading_term == d->core.current_term);
    if (d->leading && !leader) {
        d->leading = false;
        d->ready = false;
        d->noop_index = 0;
        install_tickets_clear(&d->tickets);
        driver_requests_lost(d);
    }
    if (leader && !d->leading) {
        d->leading = true;
        d->leading_term = d->core.current_term;
        d->elections++;
        d->tick_ms = d->now_ms;
        FAILPOINT("raft/elected", "elected, its first entry is not in the log");
        driver_quick_end(d);
        /* Guard 8: always an entry of the own term, because only that commits what earlier leaders
         * left (Raft §5.4.2), and reads and changes must wait for it. The core adds one itself only
         * if its log is longer than what it knows to be committed. */
        if (d->noop_index == 0 && driver_guarded(d, DRIVER_GUARD_NOOP)) {
            int rv = driver_submit_noop(d);
            if (rv != 0) {
                driver_die("the no-op of a new leader", rv);
            }
        }
    }
}

/* A committed configuration goes back to the core, which moves it from pending to committed. */
static void apply_change(struct driver *d, const struct record_header *record)
{
    struct raft_buffer buffer = {.base = (void *)(uintptr_t)record_data(record),
                                 .len = record->size};
    struct raft_event event = {.type = RAFT_CONFIGURATION};
    event.configuration.index = record->index;
    int rv = raft_configuration_decode(&buffer, &event.configuration.conf);
    if (rv != 0) {
        driver_die("decoding a committed configuration", rv);
    }
    FAILPOINT("raft/before-change", "a configuration is committed, not in force as such");
    driver_step_or_die(d, &event, "applying a configuration");
    FAILPOINT("raft/change-applied", "a committed configuration is in force");
    /* N1 would leave the core with an older configuration than the log says. */
    CHECK(d->core.configuration_committed_index >= record->index);
}

static void apply_entry(struct driver *d, const struct record_header *record)
{
    CHECK(record->index == d->applied_index + 1);
    d->applied_index = record->index;
    d->applied_term = record->term;
    if (record->type == RECORD_CHANGE) {
        driver_configuration_set(d, record->index, record_data(record), record->size);
    }
    FAILPOINT("raft/before-apply", "an entry is committed, not applied");
    d->effects->apply(d->ctx, record);
    FAILPOINT("raft/after-apply", "an entry is applied, who waits for it has not heard");
    if (d->leading && record->index == d->noop_index) {
        CHECK(record->term == d->leading_term);
        d->ready = true;
    }
    driver_requests_applied(d, record);
}

/* The core must hear of a committed configuration before it meets the next one, so this does not wait
 * for the entries before it to be applied here. */
static void report_changes(struct driver *d)
{
    while (d->core_applied < raft_commit_index(&d->core) && d->install.phase == INSTALL_IDLE) {
        const struct log_cache_entry *entry = log_cache_get(&d->cache, d->core_applied + 1);
        CHECK(entry != NULL);
        struct batch *b = entry->batch;
        const struct record_header *record = entry->record;
        batch_retain(b); /* a step may trim the cache */
        d->core_applied++;
        if (record->type == RECORD_CHANGE) {
            apply_change(d, record);
        }
        batch_release(b);
    }
}

/* Not reentrant: a step within (a configuration, or a submit from a callback) only moves the commit
 * index, and the loops see it. */
static void update_commit(struct driver *d)
{
    if (d->applying || d->paused || d->install.phase != INSTALL_IDLE) {
        return;
    }
    size_t size = 0, count = 0;
    size_t size_max =
        d->config.apply_size_max != 0 ? d->config.apply_size_max : DRIVER_APPLY_SIZE_MAX;
    d->applying = true;
    report_changes(d);
    while (!d->behind && d->applied_index < d->core_applied && d->install.phase == INSTALL_IDLE) {
        const struct log_cache_entry *entry = log_cache_get(&d->cache, d->applied_index + 1);
        CHECK(entry != NULL);
        struct batch *b = entry->batch;
        const struct record_header *record = entry->record;
        batch_retain(b); /* callbacks may trim the cache */
        apply_entry(d, record);
        size += record_size(record);
        count++;
        batch_release(b);
        report_changes(d);
        d->behind = (size >= size_max || count == DRIVER_APPLY_ENTRIES_MAX) &&
                    d->applied_index < d->core_applied;
    }
    d->applying = false;
}

static void check_commit(struct driver *d)
{
    if (d->install.phase != INSTALL_IDLE) {
        return; /* the core counts the offered checkpoint already; ours is unchanged */
    }
    uint64_t commit = raft_commit_index(&d->core);
    CHECK(commit >= d->core_commit); /* N2 */
    d->core_commit = commit;
}

int driver_step(struct driver *d, struct raft_event *event)
{
    struct raft_update update;
    event->time = d->now_ms;
    event->capacity = 0;
    int rv = raft_step(&d->core, event, &update);
    if (rv != 0) {
        return rv;
    }
    d->depth++;
    if ((update.flags & (RAFT_UPDATE_CURRENT_TERM | RAFT_UPDATE_VOTED_FOR)) != 0 &&
        (d->core.current_term != d->term || d->core.voted_for != d->vote)) {
        CHECK(d->core.current_term >= d->term);
        /* One vote a term: Raft §5.2. */
        CHECK(d->core.current_term > d->term || d->vote == 0);
        driver_write_vote(d, d->core.current_term, d->core.voted_for);
    }
    if ((update.flags & (RAFT_UPDATE_ENTRIES)) != 0) {
        update_entries(d, &update);
    }
    if ((update.flags & (RAFT_UPDATE_SNAPSHOT)) != 0) {
        update_snapshot(d, &update);
    }
    if ((update.flags & (RAFT_UPDATE_MESSAGES)) != 0) {
        for (unsigned i = 0; i < update.messages.n; i++) {
            driver_send_core(d, &update.messages.batch[i]);
        }
    }
    check_commit(d);
    update_leadership(d);
    update_commit(d);
    d->depth--;
    return 0;
}

void driver_step_or_die(struct driver *d, struct raft_event *event, const char *what)
{
    int rv = driver_step(d, event);
    if (rv != 0) {
        driver_die(what, rv);
    }
}

void driver_begin_event(struct driver *d, uint64_t now_ms)
{
    CHECK(d->started);
    /* The core's arithmetic underflows when time goes back. */
    if (now_ms > d->now_ms) {
        d->now_ms = now_ms;
    }
    if (d->paused) {
        d->paused = false;
        update_commit(d);
    }
}

/* A committed configuration without us, and none behind it. While refilling this is the past: the
 * node is filled with the history of its cluster, in which it, or another one of its id, came and
 * went. */
static void note_removal(struct driver *d)
{
    const struct raft_configuration *c = &d->core.configuration;
    if (d->refill.on || c->n == 0 || driver_change_uncommitted(d) ||
        d->configuration_index < d->core.configuration_committed_index) {
        return;
    }
    for (unsigned i = 0; i < c->n; i++) {
        if (c->servers[i].id == d->config.id) {
            return;
        }
    }
    d->removal_told = true;
}

void driver_end_event(struct driver *d)
{
    if (d->depth > 0 || d->applying || d->paused) {
        return; /* an outer event ends later */
    }
    if (d->core.configuration_committed_index != d->seen_committed ||
        d->core.configuration_uncommitted_index != d->seen_uncommitted) {
        d->seen_committed = d->core.configuration_committed_index;
        d->seen_uncommitted = d->core.configuration_uncommitted_index;
        d->effects->membership_changed(d->ctx);
        note_removal(d);
    }
    if (d->removal_told && !d->removed) {
        d->removed = true;
        d->effects->removed(d->ctx);
    }
    if (d->unsettled &&
        (d->refill.on ? driver_refill_is_over(d) : d->durable_ticket >= d->settle_ticket)) {
        d->unsettled = false;
        d->refill.on = false;
        d->effects->settled(d->ctx);
    }
    driver_read_round(d);
    struct driver_state state = driver_get_state(d);
    if (state.role != d->reported.role || state.ready != d->reported.ready ||
        state.term != d->reported.term || state.leader_id != d->reported.leader_id) {
        d->reported = state;
        d->effects->state_changed(d->ctx);
    }
}

/* ---- durability ---- */

/* What of the cache is on disk, for the core. An entry counts only if its very own write is
 * durable. Index and term are not enough: (5, t3) is written; a leader of t4 replaces it by (5,
 * t4); one of t5, who has it, by (5, t3) again. The first write completes and says "(5, t3) is
 * durable", but a crash now leaves (5, t4). */
static void persisted(struct driver *d)
{
    if (d->install.phase != INSTALL_IDLE) {
        return;
    }
    uint64_t stored = d->core.last_stored;
    uint64_t index = stored;
    for (;;) {
        const struct log_cache_entry *entry = log_cache_get(&d->cache, index + 1);
        if (entry == NULL ||
            (entry->ticket > d->durable_ticket && driver_guarded(d, DRIVER_GUARD_SAME_WRITE))) {
            break;
        }
        index++;
    }
    if (index > stored) {
        struct raft_event event = {.type = RAFT_PERSISTED_ENTRIES};
        event.persisted_entries.index = index;
        driver_step_or_die(d, &event, "recording stored entries");
    }
}

void driver_durable(struct driver *d, uint64_t now_ms, uint64_t ticket)
{
    driver_begin_event(d, now_ms);
    CHECK(ticket >= d->durable_ticket);
    d->durable_ticket = ticket;
    if (d->durable_ticket >= d->hold_ticket) {
        if (d->held_first != NULL) {
            FAILPOINT("raft/vote-persisted", "term and vote are durable, what hangs on them is not sent");
        }
        driver_send_held(d);
    }
    persisted(d);
    driver_install_if_remembered(d);
    driver_snapshot_if_stored(d);
    driver_restart_if_drained(d);
    driver_end_event(d);
}

/* ---- time ---- */

void driver_quick_end(struct driver *d)
{
    if (d->quick_until_ms != 0) {
        d->quick_until_ms = 0;
        raft_set_election_timeout(&d->core, (unsigned)d->config.election_timeout_ms);
    }
}

/* When the core wants to be ticked. */
static uint64_t core_deadline_ms(const struct driver *d)
{
    if (d->paused) {
        return d->now_ms;
    }
    if (driver_is_leader(d) || d->refill.on) {
        return d->tick_ms + DRIVER_TICK_MS;
    }
    uint64_t deadline = raft_timeout(&d->core);
    if (d->quick_until_ms != 0 && d->quick_until_ms < deadline) {
        deadline = d->quick_until_ms;
    }
    /* A timeout that did not move (a non-voter, say) must not become a busy loop. */
    return deadline > d->tick_ms ? deadline : d->tick_ms + 1;
}

static bool peer_is_there(const void *ctx, uint64_t id)
{
    return driver_peer_is_connected(ctx, id);
}

/* A voter that hears nothing forgets its leader when it stands for election. Others never stand, and
 * the core lets them believe in him for ever; then they would refuse their vote (N6) to everybody. */
static void forget_leader(struct driver *d)
{
    if (d->core.state == RAFT_FOLLOWER && d->core.follower_state.current_leader.id != 0 &&
        d->now_ms >= d->heard_ms + 2 * d->config.election_timeout_ms &&
        driver_guarded(d, DRIVER_GUARD_NONVOTER)) {
        d->core.follower_state.current_leader.id = 0;
    }
}

void driver_tick(struct driver *d, uint64_t now_ms)
{
    driver_begin_event(d, now_ms);
    driver_send_idle_appends(d);
    log_cache_release(&d->cache, DRIVER_RELEASE_ENTRIES);
    if (d->behind) {
        d->behind = false;
        update_commit(d);
        driver_snapshot_if_stored(d);
    }
    if (d->now_ms < core_deadline_ms(d)) {
        driver_end_event(d);
        return;
    }
    d->tick_ms = d->now_ms;
    if (!d->refill.on) { /* else it would ask for votes */
        struct raft_event event = {.type = RAFT_TIMEOUT};
        driver_step_or_die(d, &event, "a timeout");
    }
    forget_leader(d);
    if (d->now_ms >= d->quick_until_ms) {
        driver_quick_end(d);
    }
    if (d->leading) {
        install_tickets_expire(&d->tickets, d->now_ms, DRIVER_INSTALL_TIMEOUT_MS,
                               peer_is_there, d);
        driver_read_repeat(d);
    }
    driver_snapshot_if_stored(d);
    driver_restart_if_drained(d);
    driver_end_event(d);
}

uint64_t driver_deadline_ms(const struct driver *d)
{
    if (d->behind && d->install.phase == INSTALL_IDLE) {
        return d->now_ms;
    }
    uint64_t core_ms = core_deadline_ms(d), idle_ms = driver_idle_append_due_ms(d);
    return idle_ms < core_ms ? idle_ms : core_ms;
}

struct driver_peer *driver_peer(struct driver *d, uint64_t id)
{
    for (size_t i = 0; i < ARRAY_COUNT(d->peers); i++) {
        if (id != 0 && d->peers[i].id == id) {
            return &d->peers[i];
        }
    }
    return NULL;
}

static const struct driver_peer *peer_find(const struct driver *d, uint64_t id)
{
    for (size_t i = 0; i < ARRAY_COUNT(d->peers); i++) {
        if (id != 0 && d->peers[i].id == id) {
            return &d->peers[i];
        }
    }
    return NULL;
}

bool driver_peer_is_connected(const struct driver *d, uint64_t id)
{
    return peer_find(d, id) != NULL;
}

bool driver_peer_is_unwilling(const struct driver *d, uint64_t id)
{
    const struct driver_peer *p = peer_find(d, id);
    return p != NULL && p->unwilling;
}

/* Who is no member here may have been removed while it could not be told: the leader sends nothing to
 * whom its configuration does not name. Only what is committed counts; the receiver compares. */
static void tell_removal(struct driver *d, uint64_t id)
{
    struct membership committed, newest;
    if (d->refill.on || d->configuration_index == 0 ||
        membership_decode(d->configuration, d->configuration_size, &committed) != 0) {
        return;
    }
    driver_get_membership(d, &newest);
    if (membership_find(&committed, id) == NULL && membership_find(&newest, id) == NULL) {
        driver_send_note(d, id, MESSAGE_REMOVED, 0, d->configuration_index);
    }
}

void driver_peer_connected(struct driver *d, uint64_t now_ms, uint64_t id)
{
    driver_begin_event(d, now_ms);
    struct driver_peer *p = driver_peer(d, id);
    for (size_t i = 0; p == NULL && i < ARRAY_COUNT(d->peers); i++) {
        p = d->peers[i].id == 0 ? &d->peers[i] : NULL;
    }
    if (p != NULL) {
        *p = (struct driver_peer){.id = id};
    }
    if (d->unwilling) {
        driver_send_note(d, id, MESSAGE_WILLING, 0, 0);
    }
    tell_removal(d, id);
    driver_end_event(d);
}

void driver_peer_disconnected(struct driver *d, uint64_t now_ms, uint64_t id)
{
    driver_begin_event(d, now_ms);
    struct driver_peer *p = driver_peer(d, id);
    if (p != NULL) {
        p->id = 0;
    }
    if (d->config.quick_failover && d->core.state == RAFT_FOLLOWER &&
        driver_get_state(d).leader_id == id && d->install.phase == INSTALL_IDLE) {
        raft_set_election_timeout(&d->core, DRIVER_QUICK_TIMEOUT_MS);
        d->quick_until_ms = d->now_ms + DRIVER_QUICK_DURATION_MS;
    }
    driver_end_event(d);
}

void driver_set_willing(struct driver *d, uint64_t now_ms, bool willing)
{
    if (d->unwilling == !willing) {
        return;
    }
    driver_begin_event(d, now_ms);
    d->unwilling = !willing;
    for (size_t i = 0; i < ARRAY_COUNT(d->peers); i++) {
        if (d->peers[i].id != 0) {
            driver_send_note(d, d->peers[i].id, MESSAGE_WILLING, willing ? 1 : 0, 0);
        }
    }
    driver_end_event(d);
}

/* ---- what is known ---- */

struct driver_state driver_get_state(const struct driver *d)
{
    struct driver_state state = {.term = d->core.current_term, .ready = d->ready};
    switch (d->core.state) {
    case RAFT_LEADER:
        state.role = REPLICA_LEADER;
        state.leader_id = d->config.id;
        break;
    case RAFT_CANDIDATE:
        state.role = REPLICA_CANDIDATE;
        break;
    default:
        state.role = REPLICA_FOLLOWER;
        state.leader_id = d->core.follower_state.current_leader.id;
        break;
    }
    return state;
}

void driver_get_membership(const struct driver *d, struct membership *m)
{
    const struct raft_configuration *c = &d->core.configuration;
    m->count = c->n < REPLICA_MEMBERS_MAX ? c->n : REPLICA_MEMBERS_MAX;
    for (size_t i = 0; i < m->count; i++) {
        m->members[i].id = c->servers[i].id;
        m->members[i].role = c->servers[i].role == RAFT_VOTER     ? REPLICA_VOTER
                             : c->servers[i].role == RAFT_STANDBY ? REPLICA_STANDBY
                                                                  : REPLICA_SPARE;
        str_copy(m->members[i].address, sizeof m->members[i].address,
                 str_from(c->servers[i].address));
    }
}

uint64_t driver_match_index(const struct driver *d, uint64_t id)
{
    raft_index match = 0;
    return raft_match_index(&d->core, id, &match) == 0 ? match : 0;
}

bool driver_change_uncommitted(const struct driver *d)
{
    return d->core.configuration_uncommitted_index != 0;
}

void driver_get_stats(const struct driver *d, struct driver_stats *stats)
{
    *stats = (struct driver_stats){
        .first_index = d->cache.base + 1,
        .last_index = d->cache.last,
        .stored_index = d->core.last_stored,
        .commit_index = d->core_commit > d->applied_index ? d->core_commit : d->applied_index,
        .applied_index = d->applied_index,
        .in_flight = d->submits_count,
        .reads_waiting = d->reads.waiting,
        .elections = d->elections,
        .installs = d->installs,
        .messages_refused = d->messages_refused,
        .messages_held_dropped = d->held_dropped,
        .refill_dropped = d->refill_dropped,
    };
}
