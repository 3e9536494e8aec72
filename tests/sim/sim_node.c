/* sim_node: one node on a real driver: the effects, the checkpoints, the installs, life and death.
 * It does what raft/replica.c and the server do, in virtual time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "raft/driver_internal.h"
#include "server/disk_guard.h"
#include "tests/sim/sim_database.h"

#define CHECKPOINT_RETRY_US 1000000 /* after one that failed */

/* ---- images and checkpoints ---- */

struct sim_image *sim_image_retain(struct sim_image *image)
{
    image->references++;
    return image;
}

void sim_image_release(struct sim_image *image)
{
    if (image != NULL && --image->references == 0) {
        free(image->data);
        free(image);
    }
}

/* The frozen state of the checkpoint under way, whole. */
static struct sim_image *finish_image(struct sim_node *n)
{
    struct sim_image *image = calloc(1, sizeof *image);
    CHECK(image != NULL);
    image->references = 1;
    image->digest = n->running_digest;
    image->data = n->sim->options.machine->save(n->machine, &image->size);
    return image;
}

/* The checkpoint becomes CURRENT: the commit point. Older ones stay for those who hold a ticket. */
static void make_current(struct sim_node *n, const struct replica_position *position,
                         struct sim_image *image)
{
    CHECK(position->index > n->kept[0].position.index);
    sim_image_release(n->kept[SIM_CHECKPOINTS_KEPT - 1].image);
    memmove(&n->kept[1], &n->kept[0], (SIM_CHECKPOINTS_KEPT - 1) * sizeof n->kept[0]);
    n->kept[0] = (struct sim_checkpoint){*position, sim_image_retain(image)};
}

static void machine_load(struct sim_node *n)
{
    const struct sim_machine *machine = n->sim->options.machine;
    if (n->machine != NULL) {
        machine->destroy(n->machine);
    }
    const struct sim_checkpoint *current = &n->kept[0];
    n->applied = current->position.index;
    if (current->position.index == 0) {
        n->machine = machine->create();
        return;
    }
    n->machine = machine->load(current->image->data, current->image->size);
    if (n->machine == NULL) {
        sim_violation(n->sim, "node %u: a checkpoint does not load", n->index + 1);
    }
    uint64_t digest = machine->digest(n->machine);
    if (digest != current->image->digest) {
        sim_violation(n->sim, "node %u: checkpoint, restored, has another digest at %llu",
                      n->index + 1, (unsigned long long)n->applied);
    }
    sim_check_digest(n, n->applied, digest);
}

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
    struct sim_node *n = ctx;
    if (n->kept[0].position.index == 0) {
        return -1;
    }
    for (size_t i = 0; ticket->size > 0 && i < SIM_CHECKPOINTS_KEPT; i++) {
        const struct sim_checkpoint *kept = &n->kept[i];
        if (kept->position.index == ticket->position.index && kept->image != NULL &&
            kept->image->digest == load_u64(ticket->data)) {
            CHECK(load_u64(ticket->data + 8) == n->life);
            n->sim->stats.tickets_again++;
            return 0; /* it is still pinned */
        }
    }
    ticket->position = n->kept[0].position;
    ticket->size = 2 * sizeof(uint64_t);
    store_u64(ticket->data, n->kept[0].image->digest);
    store_u64(ticket->data + 8, n->life); /* what is pinned dies with the process */
    return 0;
}

static void part_drop(struct sim_node *n)
{
    free(n->part.data);
    n->part = (struct sim_part){.data = NULL};
}

static void next_step(struct sim_node *n)
{
    struct sim *s = n->sim;
    sim_push(s, 1000 + sim_below(s, s->healing ? 10000 : 80000), SIM_INSTALL, n, 0, 0, NULL, 0);
}

static void effect_install(void *ctx, const struct replica_ticket *ticket, uint64_t from_id)
{
    struct sim_node *n = ctx;
    n->sim->stats.installs++;
    n->ticket = *ticket;
    n->ticket_from = from_id;
    n->installing = true;
    sim_trace(n->sim, "node %u: install of %llu from node %llu begins", n->index + 1,
              (unsigned long long)ticket->position.index, (unsigned long long)from_id);
    const struct sim_part *part = &n->part;
    if (part->data != NULL && part->index == ticket->position.index &&
        part->term == ticket->position.term && part->digest == load_u64(ticket->data)) {
        n->sim->stats.resumed++;
        sim_trace(n->sim, "node %u: goes on at %zu of %zu", n->index + 1, part->size, part->total);
    } else {
        part_drop(n);
    }
    next_step(n);
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
    part_drop(n);
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
    /* A checkpoint that was being written is there, whole, or it is not. */
    if (n->checkpointing && n->running.index > n->kept[0].position.index &&
        !sim_disk_is_full(n->disk) && driver_checkpoint_may_end(n->driver, &n->running) &&
        sim_one_in(s, 3)) {
        struct sim_image *image = finish_image(n);
        make_current(n, &n->running, image);
        sim_image_release(image);
    }
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
    part_drop(n);
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
    machine_load(n);
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
        sim_violation(s, "node %u: log and checkpoint do not fit together", n->index + 1);
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

static void begin_checkpoint(struct sim_node *n)
{
    struct sim *s = n->sim;
    if (!s->swarm.checkpoints || n->checkpointing || driver_installing(n->driver) ||
        n->applied < n->checkpoint_last + s->swarm.checkpoint_entries || n->applied == 0 ||
        n->checkpoint_not_before_us > s->now_us) {
        return;
    }
    driver_checkpoint_begin(n->driver, &n->running);
    if (n->running.index != n->applied) {
        sim_violation(s, "node %u: position at %llu while %llu is applied", n->index + 1,
                      (unsigned long long)n->running.index,
                      (unsigned long long)n->applied);
    }
    n->checkpointing = true;
    n->running_digest = s->options.machine->digest(n->machine);
    s->options.machine->freeze(n->machine);
    n->checkpoint_last = n->applied;
    sim_push(s, 500 + sim_below(s, 60000), SIM_CHECKPOINT, n, 0, 0, NULL, 0);
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
    begin_checkpoint(n);
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

static void event_checkpoint(struct sim_node *n)
{
    if (!n->checkpointing) {
        return; /* an install has replaced the state meanwhile */
    }
    if (!driver_checkpoint_may_end(n->driver, &n->running)) {
        sim_push(n->sim, 1000, SIM_CHECKPOINT, n, 0, 0, NULL, 0);
        return;
    }
    n->checkpointing = false;
    if (sim_disk_is_full(n->disk)) {
        sim_trace(n->sim, "node %u: no space for a checkpoint", n->index + 1);
        n->sim->stats.checkpoints_failed++;
        n->sim->stats.fired[SIM_FAULT_NO_SPACE]++;
        n->sim->options.machine->abandon(n->machine);
        n->checkpoint_last = n->kept[0].position.index;
        n->checkpoint_not_before_us = n->sim->now_us + CHECKPOINT_RETRY_US;
        driver_checkpoint_abandoned(n->driver);
        return;
    }
    n->sim->stats.checkpoints++;
    struct sim_image *image = finish_image(n);
    if (n->running.index > n->kept[0].position.index) {
        make_current(n, &n->running, image);
    }
    sim_image_release(image);
    driver_checkpoint_published(n->driver, sim_node_now_ms(n), &n->running);
}

static const struct sim_checkpoint *offered(struct sim_node *n)
{
    struct sim *s = n->sim;
    unsigned from = (unsigned)n->ticket_from - 1;
    struct sim_node *source = &s->nodes[from];
    if (!source->up || s->cut[from][n->index] || s->cut[n->index][from] ||
        source->life != load_u64(n->ticket.data + 8)) {
        return NULL;
    }
    if (sim_disk_is_full(n->disk)) {
        s->stats.fired[SIM_FAULT_NO_SPACE]++;
        return NULL;
    }
    if (sim_fault_on(s, SIM_FAULT_INSTALL) && !s->healing && sim_one_in(s, 12)) {
        s->stats.fired[SIM_FAULT_INSTALL]++;
        return NULL;
    }
    for (size_t i = 0; i < SIM_CHECKPOINTS_KEPT; i++) {
        if (source->kept[i].position.index == n->ticket.position.index) {
            return &source->kept[i];
        }
    }
    return NULL;
}

/* Takes some more of it; false: more is to come. */
static bool take_piece(struct sim_node *n, const struct sim_image *image)
{
    struct sim *s = n->sim;
    struct sim_part *part = &n->part;
    if (part->data == NULL) {
        *part = (struct sim_part){.index = n->ticket.position.index,
                                  .term = n->ticket.position.term,
                                  .digest = load_u64(n->ticket.data),
                                  .data = malloc(image->size + 1),
                                  .total = image->size};
        CHECK(part->data != NULL);
    }
    if (part->total != image->size) {
        sim_violation(s, "node %u: the same checkpoint has %zu bytes and %zu", n->index + 1,
                      part->total, image->size);
    }
    size_t left = part->total - part->size;
    size_t piece = 1 + (size_t)sim_below(s, part->total / 3 + 1);
    piece = piece < left ? piece : left;
    memcpy(part->data + part->size, image->data + part->size, piece);
    part->size += piece;
    part->durable = sim_one_in(s, 2) ? part->size : part->durable;
    return part->size == part->total;
}

/* What came, in however many pieces and from however many lives of either side, is what was offered. */
static struct sim_image *part_image(struct sim_node *n, const struct sim_image *from)
{
    struct sim_image *image = calloc(1, sizeof *image);
    CHECK(image != NULL);
    if (memcmp(n->part.data, from->data, from->size) != 0) {
        sim_violation(n->sim, "node %u: what was installed is not what was offered", n->index + 1);
    }
    *image = (struct sim_image){
        .references = 1, .digest = n->part.digest, .size = n->part.total, .data = n->part.data};
    n->part = (struct sim_part){.data = NULL};
    return image;
}

/* One step of the pull. Either side may die at each. */
static void event_install(struct sim_node *n)
{
    struct sim *s = n->sim;
    bool deadly = sim_fault_on(s, SIM_FAULT_CRASH) && !s->healing;
    if (deadly && sim_one_in(s, 40)) {
        sim_trace(s, "node %u: dies while it installs", n->index + 1);
        sim_node_crash(n);
        return;
    }
    if (deadly && sim_one_in(s, 40)) {
        sim_node_crash(&s->nodes[n->ticket_from - 1]);
    }
    const struct sim_checkpoint *from = offered(n);
    if (n->checkpointing) {
        sim_violation(s, "node %u: an install while a checkpoint is being written", n->index + 1);
    }
    if (from == NULL) {
        s->stats.installs_failed++;
        n->installing = false;
        sim_trace(s, "node %u: install failed", n->index + 1);
        driver_install_done(n->driver, sim_node_now_ms(n), &n->ticket.position, false);
        return;
    }
    if (from->image->digest != load_u64(n->ticket.data)) {
        sim_violation(s, "node %u: the ticket's checkpoint has changed", n->index + 1);
    }
    if (!take_piece(n, from->image)) {
        next_step(n);
        return;
    }
    n->installing = false;
    struct replica_position position = n->ticket.position;
    struct sim_image *image = part_image(n, from->image);
    make_current(n, &position, image);
    sim_image_release(image);
    if (deadly && sim_one_in(s, 6)) {
        sim_trace(s, "node %u: dies right after CURRENT was switched", n->index + 1);
        sim_node_crash(n);
        return;
    }
    machine_load(n);
    sim_clock_loaded(n, false);
    n->checkpoint_last = n->applied;
    driver_install_done(n->driver, sim_node_now_ms(n), &position, true);
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
        event_checkpoint(n);
        break;
    case SIM_INSTALL:
        event_install(n);
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
