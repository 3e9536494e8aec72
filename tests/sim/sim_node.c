/* sim_node: one node on a real driver: the effects, the log's disk, life and death.
 * It does what raft/replica.c and the server do, in virtual time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "raft/driver_internal.h"
#include "server/disk_guard.h"
#include "tests/sim/sim_database.h"
#include "tests/sim/sim_replies.h"

/* ---- effects of the driver ---- */

static uint64_t effect_write_vote(void *ctx, uint64_t term, uint64_t vote)
{
    struct sim_node *n = ctx;
    return sim_log_set_vote(n->log, term, vote);
}

static uint64_t effect_write_entries(void *ctx, const struct record_header *const *records,
                                     size_t count)
{
    struct sim_node *n = ctx;
    return sim_log_append(n->log, records, count);
}

static uint64_t effect_write_reset(void *ctx, uint64_t index, uint64_t term)
{
    struct sim_node *n = ctx;
    return sim_log_reset(n->log, index, term);
}

static void effect_trim(void *ctx, uint64_t index)
{
    struct sim_node *n = ctx;
    sim_log_trim(n->log, index);
}

static void effect_send(void *ctx, uint64_t to_id, const struct message_out *m)
{
    struct sim_node *n = ctx;
    sim_check_send(n, to_id, m);
    sim_network_send(n, to_id, m);
}

static void effect_apply(void *ctx, const struct record_header *record)
{
    struct sim_node *n = ctx;
    struct sim *s = n->sim;
    const struct sim_machine *machine = s->options.machine;
    if (record->index != n->applied + 1) {
        sim_violation(s, "node %u applies %llu after %llu", n->index + 1,
                      (unsigned long long)record->index, (unsigned long long)n->applied);
    }
    n->applied = record->index;
    sim_check_applied(n, record);
    if (record->type == RECORD_COMMAND) {
        machine->apply(n->machine, record->index, record_data(record), record->size);
        sim_check_answers(n, record->index, machine->answers(n->machine));
        sim_clock_applied(n, record);
    } else if (record->type == RECORD_CHANGE) {
        s->stats.changes++;
    }
    sim_hash(s, record->crc32c);
    sim_check_digest(n, record->index, machine->digest(n->machine));
    sim_database_applied(n);
    sim_replies_applied(n, record, machine->answers(n->machine));
    if (n->checkpointing) {
        machine->slice(n->machine);
    }
    char text[256];
    if (record->index % 64 == 0 && machine->check(n->machine, text, sizeof text) != 0) {
        sim_violation(s, "node %u: invariant broken at %llu: %s", n->index + 1,
                      (unsigned long long)record->index, text);
    }
}

static void effect_state_changed(void *ctx)
{
    struct sim_node *n = ctx;
    struct driver_state state = driver_get_state(n->driver);
    sim_trace(n->sim, "node %u: role %d ready %d term %llu leader %llu", n->index + 1,
              (int)state.role, state.ready, (unsigned long long)state.term,
              (unsigned long long)state.leader_id);
    sim_check_state(n, &state);
    sim_clock_state(n, &state);
    sim_persister_state(n, &state);
}

static void effect_membership_changed(void *ctx)
{
    (void)ctx; /* every node can reach every other */
}

static void effect_settled(void *ctx)
{
    struct sim_node *n = ctx;
    if (n->refilling) {
        sim_trace(n->sim, "node %u: refilled up to %llu", n->index + 1,
                  (unsigned long long)n->applied);
        n->refilling = false;
        n->sim->stats.refilled++;
    }
}

static void effect_removed(void *ctx)
{
    struct sim_node *n = ctx;
    n->dismissed = true;
}

static int effect_make_ticket(void *ctx, struct replica_ticket *ticket)
{
    return sim_install_make_ticket(ctx, ticket);
}

static void effect_install(void *ctx, const struct replica_ticket *ticket, uint64_t from_id)
{
    sim_install_begin(ctx, ticket, from_id);
}

static const struct driver_effects effects = {
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

/* ---- life ---- */

uint64_t sim_node_now_ms(const struct sim_node *n)
{
    return n->clock_base_ms + n->sim->now_us * n->clock_rate_ppm / 1000000 / 1000;
}

static struct sim_disk *disk_create(struct sim *s)
{
    struct sim_disk *disk = sim_disk_create(&s->prng, s->stats.fired);
    sim_disk_set_torn(disk, sim_fault_on(s, SIM_FAULT_TORN));
    return disk;
}

bool sim_node_is_hurt(const struct sim_node *n)
{
    return n->refilling || n->refused || sim_disk_is_hurt(n->disk);
}

void sim_node_init(struct sim *s, unsigned index)
{
    struct sim_node *n = &s->nodes[index];
    n->sim = s;
    n->index = index;
    n->id = index + 1;
    n->disk = disk_create(s);
    n->clock_base_ms = sim_below(s, 1000000);
    bool skew = sim_fault_on(s, SIM_FAULT_CLOCK_RATE);
    n->clock_rate_ppm = skew ? 900000 + sim_below(s, 200001) : 1000000;
    s->stats.fired[SIM_FAULT_CLOCK_RATE] += skew;
}

/* What a process holds in memory is gone. */
static void forget(struct sim_node *n)
{
    if (n->up) {
        wal_watch_close(&n->watch);
    }
    sim_persister_close(n);
    n->up = false;
    n->life++;
    n->silent = false;
    n->checkpoint_not_before_us = 0;
    if (n->driver != NULL) {
        driver_destroy(n->driver);
        n->driver = NULL;
    }
    if (n->machine != NULL) {
        n->sim->options.machine->destroy(n->machine);
        n->machine = NULL;
    }
    n->checkpointing = false;
    n->installing = false;
    n->part.size = n->part.durable; /* the rest was not synced */
    n->disk_busy = false;
    n->was_leader = false;
    n->dismissed = false;
    n->tick_at_us = 0;
    n->paused_until_us = 0;
}

void sim_node_close(struct sim_node *n)
{
    forget(n);
    if (n->log != NULL) {
        sim_log_close(n->log);
        n->log = NULL;
    }
    sim_install_drop(n);
    for (size_t i = 0; i < SIM_CHECKPOINTS_KEPT; i++) {
        sim_image_release(n->kept[i].image);
    }
    sim_log_model_close(&n->durable);
    sim_disk_destroy(n->disk);
}

void sim_node_crash(struct sim_node *n)
{
    struct sim *s = n->sim;
    if (!n->up) {
        return;
    }
    sim_trace(s, "node %u: crash", n->index + 1);
    s->stats.crashes++;
    s->stats.disk_crashes += sim_disk_is_dead(n->disk);
    sim_checkpoint_crash(n);
    if (n->log != NULL) {
        sim_log_crash(n->log);
        n->log = NULL;
    }
    forget(n);
    sim_network_node_down(n, sim_one_in(s, 3));
    uint64_t down_us = s->healing ? 100000 : 5000 + sim_below(s, 3000000);
    sim_push(s, down_us, SIM_RESTART, n, 0, 0, NULL, 0);
}

void sim_node_stop(struct sim_node *n)
{
    struct sim *s = n->sim;
    if (!n->up || !sim_log_stop(n->log)) {
        sim_node_crash(n);
        return;
    }
    sim_trace(s, "node %u: stops", n->index + 1);
    s->stats.fired[SIM_FAULT_STOP]++;
    sim_log_close(n->log);
    n->log = NULL;
    forget(n);
    sim_network_node_down(n, false);
    sim_push(s, 5000 + sim_below(s, 3000000), SIM_RESTART, n, 0, 0, NULL, 0);
}

void sim_node_lose_disk(struct sim_node *n)
{
    struct sim *s = n->sim;
    if (n->up) {
        sim_node_crash(n);
    }
    sim_trace(s, "node %u: its disk is lost", n->index + 1);
    s->stats.disks_lost++;
    sim_disk_destroy(n->disk);
    n->disk = disk_create(s);
    sim_log_model_close(&n->durable);
    sim_install_drop(n);
    for (size_t i = 0; i < SIM_CHECKPOINTS_KEPT; i++) {
        sim_image_release(n->kept[i].image);
        n->kept[i] = (struct sim_checkpoint){.image = NULL};
    }
    /* Nobody has to keep a promise that nobody can remember: that it does no harm is what the history
     * and the leaders of each term must show. */
    n->voted_term = n->voted_for = 0;
    n->refilling = true;
    n->refused = false;
}

void sim_node_address(unsigned index, char out[static REPLICA_ADDRESS_SIZE])
{
    snprintf(out, REPLICA_ADDRESS_SIZE, "10.0.0.%u:7001/10.0.0.%u:7101", index + 1, index + 1);
}

static void bootstrap_list(struct sim *s, struct membership *m)
{
    m->count = s->swarm.nodes;
    for (unsigned i = 0; i < s->swarm.nodes; i++) {
        m->members[i].id = i + 1;
        m->members[i].role = i < s->swarm.voters ? REPLICA_VOTER : REPLICA_STANDBY;
        sim_node_address(i, m->members[i].address);
    }
}

/* It does not start: what an operator does about it. Later. */
static void log_refuses(struct sim_node *n, enum sim_log_outcome outcome, const char *error)
{
    struct sim *s = n->sim;
    switch (outcome) {
    case SIM_LOG_OPENED:
        CHECK_UNREACHABLE();
    case SIM_LOG_DIED:
        break; /* it is started again */
    case SIM_LOG_REFUSED:
        if (!sim_disk_is_hurt(n->disk)) {
            sim_violation(s, "node %u: the log does not recover: %s", n->index + 1, error);
        }
        if (strstr(error, ".wal") == NULL) {
            sim_violation(s, "node %u: a refusal that names no file: %s", n->index + 1, error);
        }
        sim_trace(s, "node %u: refused: %s", n->index + 1, error);
        s->stats.refused++;
        n->refused = true;
        break;
    case SIM_LOG_CUT:
        sim_trace(s, "node %u: its last write is damaged and cut", n->index + 1);
        s->stats.cut++;
        n->refused = true;
        break;
    case SIM_LOG_WRONG:
        sim_violation(s, "node %u: the log does not recover: %s", n->index + 1, error);
    }
    sim_push(s, 1000 + sim_below(s, 500000), SIM_RESTART, n, 0, 0, NULL, 0);
}

/* Refilling with the oldest part of the log of a cluster that began with this voter alone (ADR 0010). */
static bool knows_no_other_voter(const struct sim_node *n, const struct wal_recovered *recovered)
{
    const struct replica_position *p = &n->kept[0].position;
    struct membership m;
    bool alone = p->index > 0 && membership_decode(p->configuration, p->configuration_size, &m) == 0 &&
                 membership_is_only_voter(&m, n->id);
    for (size_t i = 0; i < recovered->count; i++) {
        const struct record_header *record = recovered->entries[i];
        if (record->type == RECORD_CHANGE) {
            alone = membership_decode(record_data(record), record->size, &m) == 0 &&
                    membership_is_only_voter(&m, n->id);
        }
    }
    return n->refilling && alone;
}

void sim_node_start(struct sim_node *n)
{
    struct sim *s = n->sim;
    struct wal_recovered recovered;
    char error[512] = "";
    enum sim_log_outcome outcome;
    if (n->gone) {
        return;
    }
    if (n->stuck_until_us > s->now_us) { /* what hangs may still be written: the directory is locked */
        sim_push(s, n->stuck_until_us - s->now_us + 1, SIM_RESTART, n, 0, 0, NULL, 0);
        return;
    }
    if (n->refused) {
        sim_trace(s, "node %u: is rebuilt", n->index + 1);
        sim_node_lose_disk(n);
    }
    sim_disk_restart(n->disk);
    if (sim_fault_on(s, SIM_FAULT_DISK_DEATH) && !s->healing && sim_one_in(s, 10)) {
        sim_disk_arm(n->disk, 1 + (unsigned)sim_below(s, 12)); /* dies again, perhaps in recovery */
    }
    n->log = sim_log_open(n->disk, n->id, s->swarm.segment_size, s->options.log_shortens, &n->durable,
                          &recovered, &outcome, error, sizeof error);
    if (n->log == NULL) {
        log_refuses(n, outcome, error);
        return;
    }
    if (sim_disk_is_hurt(n->disk)) {
        sim_disk_forget_damage(n->disk); /* all that was durable was found */
        s->stats.harmless++;
    }
    s->stats.restarts++;
    s->stats.torn += recovered.torn_bytes > 0;
    n->up = true;
    n->life++;
    sim_install_load(n);
    sim_clock_loaded(n, true);
    n->checkpoint_last = n->kept[0].position.index;
    wal_watch_init(&n->watch);

    struct driver_config config = {
        .id = n->id,
        .seed = (uint32_t)prng_next(&s->prng),
        .election_timeout_ms = 500,
        .entries_in_flight_max = s->swarm.in_flight_max,
        .trailing_entries = s->swarm.trailing_entries,
        .catch_up_log_size = s->swarm.catch_up_log_size,
        .apply_size_max = s->swarm.in_flight_max <= 16 ? 1 : 0, /* one entry a tick */
        .quick_failover = s->swarm.quick,
        .refilling = n->refilling,
    };
    sim_node_address(n->index, config.address);
    n->driver = driver_create(&config, &effects, n);
    driver_test_disable_guard(n->driver, s->options.guards_off);
    driver_restore(n->driver, recovered.base_index, recovered.entries, recovered.count);
    struct membership bootstrap;
    bootstrap_list(s, &bootstrap);
    sim_trace(s, "node %u: start: term %llu vote %llu entries %llu+%zu checkpoint %llu", n->index + 1,
              (unsigned long long)recovered.term, (unsigned long long)recovered.vote,
              (unsigned long long)recovered.base_index, recovered.count,
              (unsigned long long)n->kept[0].position.index);
    const struct replica_position *position =
        n->kept[0].position.index > 0 ? &n->kept[0].position : NULL;
    if (driver_start(n->driver, sim_node_now_ms(n), recovered.term, recovered.vote, position,
                     &bootstrap) != 0) {
        if (!knows_no_other_voter(n, &recovered)) {
            sim_violation(s, "node %u: log and checkpoint do not fit together", n->index + 1);
        }
        sim_trace(s, "node %u: refused: knows no other voter to be refilled from", n->index + 1);
        s->stats.refused++;
        wal_recovered_close(&recovered);
        sim_log_close(n->log);
        n->log = NULL;
        forget(n);
        n->refused = true; /* as it says: once more */
        sim_push(s, 1000 + sim_below(s, 500000), SIM_RESTART, n, 0, 0, NULL, 0);
        return;
    }
    wal_recovered_close(&recovered);
    if (n->refilling && !driver_refilling(n->driver)) {
        n->refilling = false; /* the guard is off: it believes itself whole */
    }
    sim_clock_start(n);
    if (sim_fault_on(s, SIM_FAULT_STUCK_DISK)) {
        sim_push(s, WAL_WATCH_INTERVAL_MS * 1000, SIM_WATCH, n, 0, 0, NULL, 0);
    }
    sim_persister_start(n);
    sim_node_after(n);
}

/* ---- after each event ---- */

static void begin_write(struct sim_node *n)
{
    struct sim *s = n->sim;
    int begun = sim_log_begin(n->log);
    if (begun <= 0) {
        return; /* -1 is seen by the caller: the disk failed */
    }
    n->disk_busy = true;
    wal_watch_begin(&n->watch, "write");
    uint64_t latency = 50 + sim_below(s, 1500);
    if (n->stuck_until_us > s->now_us) {
        latency = n->stuck_until_us - s->now_us;
    } else if (n->slow_until_us > s->now_us) {
        latency = 20000 + sim_below(s, 100000);
    } else if (sim_one_in(s, 300)) {
        latency += sim_below(s, 200000);
    }
    sim_push(s, latency, SIM_DISK, n, ++n->write, 0, NULL, 0);
}

void sim_node_after(struct sim_node *n)
{
    struct sim *s = n->sim;
    if (!n->up) {
        return;
    }
    if (n->dismissed) {
        sim_trace(s, "node %u: knows that it was removed", n->index + 1);
        s->stats.dismissed++;
        n->gone = true;
        sim_node_crash(n);
        return;
    }
    sim_persister_after(n);
    if (!n->disk_busy && !sim_disk_has_failed(n->disk)) {
        begin_write(n);
    }
    if (sim_disk_has_failed(n->disk)) {
        sim_node_crash(n); /* fail-stop */
        return;
    }
    sim_checkpoint_begin(n);
    uint64_t now_ms = sim_node_now_ms(n);
    uint64_t deadline_ms = driver_deadline_ms(n->driver);
    uint64_t wait_ms = deadline_ms > now_ms ? deadline_ms - now_ms : 0;
    uint64_t at_us = s->now_us + wait_ms * 1000 * 1000000 / n->clock_rate_ppm + 1;
    if (n->tick_at_us == 0 || at_us < n->tick_at_us || n->tick_at_us <= s->now_us) {
        n->tick_at_us = at_us;
        sim_push(s, at_us - s->now_us, SIM_TICK, n, 0, 0, NULL, 0);
    }
}

void sim_node_unstick(struct sim_node *n)
{
    n->stuck_until_us = 0;
    if (n->up && n->disk_busy) {
        sim_push(n->sim, 1, SIM_DISK, n, n->write, 0, NULL, 0);
    }
}

/* ---- events ---- */

static void event_message(struct sim_node *n, struct sim_event *e)
{
    struct sim *s = n->sim;
    unsigned from = (unsigned)e->a - 1;
    if (!sim_network_admits(n, e)) {
        return;
    }
    struct message m;
    if (message_decode(e->data, e->size, &m) != 0) {
        sim_violation(s, "node %u cannot decode a message of node %u", n->index + 1, from + 1);
    }
    if (!sim_clock_message(n, e->a, &m)) {
        driver_receive(n->driver, sim_node_now_ms(n), e->a, &m);
    }
}

static void event_disk(struct sim_node *n, const struct sim_event *e)
{
    struct sim *s = n->sim;
    if (!n->disk_busy || e->a != n->write) {
        return; /* it was over before, when the disk came back */
    }
    if (n->stuck_until_us > s->now_us) { /* it got stuck meanwhile */
        sim_push(s, n->stuck_until_us - s->now_us, SIM_DISK, n, n->write, 0, NULL, 0);
        return;
    }
    n->disk_busy = false;
    wal_watch_end(&n->watch);
    uint64_t ticket = sim_log_finish(n->log);
    if (ticket != 0) {
        driver_durable(n->driver, sim_node_now_ms(n), ticket);
    }
}

/* What raft/wal.c and server/disk_guard.c do about a log's disk that is silent. */
static void event_watch(struct sim_node *n)
{
    struct sim *s = n->sim;
    sim_push(s, WAL_WATCH_INTERVAL_MS * 1000, SIM_WATCH, n, 0, 0, NULL, 0);
    uint64_t now_ms = sim_node_now_ms(n);
    uint64_t age_ms = wal_watch_observe(&n->watch, now_ms * 1000000) / 1000000;
    uint64_t slow_ms = s->swarm.log_deadline_ms / DISK_GUARD_SLOW_DIVISOR;
    slow_ms = slow_ms < DISK_GUARD_SLOW_MAX_MS ? slow_ms : DISK_GUARD_SLOW_MAX_MS;
    bool leads = driver_get_state(n->driver).role == REPLICA_LEADER;
    sim_check_silent(n, leads);
    if (s->options.disk_unwatched) {
        return;
    }
    if (age_ms >= s->swarm.log_deadline_ms) {
        sim_trace(s, "node %u: gives its disk up", n->index + 1);
        s->stats.stuck_ended++;
        sim_node_crash(n);
        return;
    }
    if ((age_ms >= slow_ms) != n->silent) {
        n->silent = age_ms >= slow_ms;
        sim_trace(s, "node %u: its disk is %s", n->index + 1, n->silent ? "silent" : "back");
        driver_set_willing(n->driver, now_ms, !n->silent);
    }
    if (n->silent && leads && now_ms - n->handed_over_ms >= DISK_GUARD_SLOW_RETRY_MS) {
        n->handed_over_ms = now_ms;
        bool asked = driver_transfer(n->driver, now_ms, 0) == REPLICA_OK;
        s->stats.stuck_hand_overs += asked;
    }
}

static void event_tick(struct sim_node *n, const struct sim_event *e)
{
    if (e->time_us < n->tick_at_us) {
        return; /* set anew meanwhile */
    }
    n->tick_at_us = 0;
    if (sim_node_now_ms(n) >= driver_deadline_ms(n->driver)) {
        driver_tick(n->driver, sim_node_now_ms(n));
    }
}

static void event_notice(struct sim_node *n, const struct sim_event *e)
{
    int connected = sim_network_notice(n, e);
    if (connected == 1) {
        sim_clock_ask(n, e->a);
        driver_peer_connected(n->driver, sim_node_now_ms(n), e->a);
    } else if (connected == 0) {
        driver_peer_disconnected(n->driver, sim_node_now_ms(n), e->a);
    }
}

void sim_node_event(struct sim_node *n, struct sim_event *e)
{
    switch (e->kind) {
    case SIM_MESSAGE:
        event_message(n, e);
        break;
    case SIM_DISK:
        event_disk(n, e);
        break;
    case SIM_TICK:
        event_tick(n, e);
        break;
    case SIM_CHECKPOINT:
        sim_checkpoint_event(n);
        break;
    case SIM_INSTALL:
        sim_install_event(n);
        break;
    case SIM_LINK_NOTICE:
        event_notice(n, e);
        break;
    case SIM_DIE:
        if (!n->sim->healing) {
            sim_node_crash(n);
        }
        break;
    case SIM_WATCH:
        event_watch(n);
        break;
    case SIM_CLOCK:
        sim_clock_tick(n);
        break;
    case SIM_PERSISTER:
        sim_persister_event(n, e);
        break;
    case SIM_DATABASE:
    case SIM_DATABASE_FAULT:
    case SIM_CLOCK_FAULT:
    case SIM_RESTART:
    case SIM_LINK_UP:
    case SIM_CLIENT:
    case SIM_FAULT:
    case SIM_HEAL:
        CHECK_UNREACHABLE();
    }
    sim_node_after(n);
}

struct sim_node *sim_leader(struct sim *s)
{
    struct sim_node *leader = NULL;
    for (unsigned i = 0; i < s->swarm.nodes; i++) {
        struct sim_node *n = &s->nodes[i];
        if (!n->up || n->paused_until_us > s->now_us) {
            continue;
        }
        struct driver_state state = driver_get_state(n->driver);
        if (state.role == REPLICA_LEADER && state.ready &&
            (leader == NULL || driver_get_state(leader->driver).term < state.term)) {
            leader = n;
        }
    }
    return leader;
}
