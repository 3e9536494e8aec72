#include "tests/unit/raft/driver_world.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/log.h"

static uint64_t write_vote(void *ctx, uint64_t term, uint64_t vote)
{
    struct world *w = ctx;
    w->vote_term = term;
    w->vote = vote;
    return w->vote_ticket = ++w->ticket;
}

static uint64_t write_entries(void *ctx, const struct record_header *const *records, size_t count)
{
    struct world *w = ctx;
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(record_check(records[i], record_size(records[i])), RECORD_VALID);
    }
    return ++w->ticket;
}

static uint64_t write_reset(void *ctx, uint64_t index, uint64_t term)
{
    struct world *w = ctx;
    w->reset_index = index;
    w->reset_term = term;
    return ++w->ticket;
}

static void trim(void *ctx, uint64_t index)
{
    ((struct world *)ctx)->trimmed = index;
}

static void send_message(void *ctx, uint64_t to_id, const struct message_out *m)
{
    struct world *w = ctx;
    assert_true(w->sent_count < SENT_MAX);
    struct sent *sent = &w->sent[w->sent_count++];
    *sent = (struct sent){.to = to_id,
                          .core = m->raft != NULL,
                          .kind = m->kind,
                          .term = m->term,
                          .seq = m->seq,
                          .index = m->index};
    if (m->raft != NULL) {
        sent->raft = *m->raft;
        if (m->raft->type == RAFT_APPEND_ENTRIES) {
            sent->records = m->raft->append_entries.n_entries;
            for (size_t i = 0; i < sent->records; i++) {
                assert_int_equal(m->records[i]->index,
                                 m->raft->append_entries.prev_log_index + 1 + i);
                sent->bytes += record_size(m->records[i]);
            }
        }
    }
}

static void apply(void *ctx, const struct record_header *record)
{
    struct world *w = ctx;
    assert_int_equal(record->index, w->applied + 1);
    w->applied = record->index;
}

static void state_changed(void *ctx)
{
    ((struct world *)ctx)->state_changes++;
}

static void membership_changed(void *ctx)
{
    (void)ctx;
}

static void settled(void *ctx)
{
    ((struct world *)ctx)->settled++;
}

static void removed(void *ctx)
{
    ((struct world *)ctx)->removed++;
}

static int make_ticket(void *ctx, struct replica_ticket *ticket)
{
    const struct world *w = ctx;
    *ticket = w->offered;
    return w->offered.position.index > 0 ? 0 : -1;
}

static void install(void *ctx, const struct replica_ticket *ticket, uint64_t from_id)
{
    (void)ticket;
    (void)from_id;
    ((struct world *)ctx)->installs++;
}

const struct driver_effects world_effects = {
    .write_vote = write_vote,
    .write_entries = write_entries,
    .write_reset = write_reset,
    .trim = trim,
    .send = send_message,
    .apply = apply,
    .state_changed = state_changed,
    .membership_changed = membership_changed,
    .settled = settled,
    .removed = removed,
    .make_ticket = make_ticket,
    .install = install,
};

/* ---- setting a scene ---- */

void members(struct membership *m, size_t count, size_t voters)
{
    memset(m, 0, sizeof *m);
    m->count = count;
    for (size_t i = 0; i < count; i++) {
        m->members[i].id = i + 1;
        m->members[i].role = i < voters ? REPLICA_VOTER : REPLICA_STANDBY;
        snprintf(m->members[i].address, sizeof m->members[i].address, "node%zu", i + 1);
    }
}

struct world *world_create(uint64_t id, unsigned guards_off)
{
    struct world *w = calloc(1, sizeof *w);
    w->now_ms = 1000;
    struct driver_config config = {
        .id = id,
        .address = "self",
        .seed = 1,
        .election_timeout_ms = 500,
        .entries_in_flight_max = 512,
        .trailing_entries = 4,
        .quick_failover = true,
    };
    w->driver = driver_create(&config, &world_effects, w);
    driver_test_disable_guard(w->driver, guards_off);
    return w;
}

void world_destroy(struct world *w)
{
    driver_destroy(w->driver);
    free(w);
}

void make_durable(struct world *w)
{
    driver_durable(w->driver, w->now_ms, w->ticket);
}

struct world *follower(uint64_t id, unsigned guards_off)
{
    struct world *w = world_create(id, guards_off);
    struct membership m;
    members(&m, 3, 3);
    assert_int_equal(driver_start(w->driver, w->now_ms, 0, 0, NULL, &m), 0);
    make_durable(w);
    return w;
}

void position_at(struct replica_position *p, uint64_t index, uint64_t term)
{
    struct membership m;
    members(&m, 3, 3);
    memset(p, 0, sizeof *p);
    p->index = index;
    p->term = term;
    p->configuration_index = 1;
    p->configuration_size = (uint32_t)membership_encode(&m, p->configuration);
}

struct world *at_checkpoint(uint64_t index, uint64_t term, unsigned guards_off)
{
    struct world *w = world_create(2, guards_off);
    struct replica_position p;
    position_at(&p, index, term);
    w->applied = index;
    assert_int_equal(driver_start(w->driver, w->now_ms, term, 0, &p, NULL), 0);
    assert_int_equal(w->reset_index, index);
    make_durable(w);
    return w;
}

void frame_add(struct frame *f, enum record_type type, uint64_t index, uint64_t term,
               const void *data, uint32_t size)
{
    f->size += record_encode((uint8_t *)f->bytes + f->size, type, index, term, data, size);
    f->count++;
}

void frame_add_command(struct frame *f, uint64_t index, uint64_t term)
{
    frame_add(f, RECORD_COMMAND, index, term, "command", 8);
}

void frame_add_change(struct frame *f, uint64_t index, uint64_t term, size_t voters)
{
    struct membership m;
    uint8_t bytes[REPLICA_CONFIGURATION_SIZE_MAX];
    members(&m, 3, voters);
    frame_add(f, RECORD_CHANGE, index, term, bytes, (uint32_t)membership_encode(&m, bytes));
}

void receive_append(struct world *w, uint64_t from, uint64_t term, uint64_t prev,
                    uint64_t prev_term, uint64_t commit, const struct frame *f)
{
    struct message m = {.kind = MESSAGE_APPEND_ENTRIES};
    m.raft.type = RAFT_APPEND_ENTRIES;
    m.raft.append_entries = (struct raft_append_entries){
        .term = term,
        .prev_log_index = prev,
        .prev_log_term = prev_term,
        .leader_commit = commit,
        .n_entries = f != NULL ? f->count : 0,
    };
    if (f != NULL) {
        m.records = (const struct record_header *)(const void *)f->bytes;
        m.records_size = f->size;
    }
    driver_receive(w->driver, w->now_ms, from, &m);
}

void receive_install(struct world *w, uint64_t from, uint64_t term, uint64_t index,
                     uint64_t index_term)
{
    struct replica_position p;
    position_at(&p, index, index_term);
    struct message m = {
        .kind = MESSAGE_INSTALL_SNAPSHOT,
        .configuration = p.configuration,
        .configuration_size = p.configuration_size,
        .data = "ticket",
        .data_size = 6,
    };
    m.raft.type = RAFT_INSTALL_SNAPSHOT;
    m.raft.install_snapshot.term = term;
    m.raft.install_snapshot.last_index = index;
    m.raft.install_snapshot.last_term = index_term;
    m.raft.install_snapshot.conf_index = 1;
    driver_receive(w->driver, w->now_ms, from, &m);
}

void receive_vote_request(struct world *w, uint64_t from, uint64_t term, uint64_t last)
{
    struct message m = {.kind = MESSAGE_REQUEST_VOTE};
    m.raft.type = RAFT_REQUEST_VOTE;
    m.raft.request_vote = (struct raft_request_vote){
        .version = 2, .term = term, .last_log_index = last, .last_log_term = term};
    driver_receive(w->driver, w->now_ms, from, &m);
}

void receive_vote_result(struct world *w, uint64_t from, uint64_t term, bool pre_vote)
{
    struct message m = {.kind = MESSAGE_REQUEST_VOTE_RESULT};
    m.raft.type = RAFT_REQUEST_VOTE_RESULT;
    m.raft.request_vote_result = (struct raft_request_vote_result){
        .version = 2, .term = term, .vote_granted = true, .pre_vote = pre_vote};
    driver_receive(w->driver, w->now_ms, from, &m);
}

void receive_result(struct world *w, uint64_t from, uint64_t term, uint64_t rejected, uint64_t last)
{
    struct message m = {.kind = MESSAGE_APPEND_ENTRIES_RESULT};
    m.raft.type = RAFT_APPEND_ENTRIES_RESULT;
    m.raft.append_entries_result = (struct raft_append_entries_result){
        .version = 1, .term = term, .rejected = rejected, .last_log_index = last};
    driver_receive(w->driver, w->now_ms, from, &m);
}

void receive_read(struct world *w, uint64_t from, enum message_kind kind, uint64_t term,
                  uint64_t seq)
{
    struct message m = {.kind = kind, .term = term, .seq = seq};
    driver_receive(w->driver, w->now_ms, from, &m);
}

const struct sent *last_sent(const struct world *w, enum raft_message_type type)
{
    for (size_t i = w->sent_count; i > 0; i--) {
        if (w->sent[i - 1].core && w->sent[i - 1].raft.type == type) {
            return &w->sent[i - 1];
        }
    }
    return NULL;
}

struct world *ready_leader(unsigned guards_off)
{
    struct world *w = follower(1, guards_off);
    w->now_ms += 1100;
    driver_tick(w->driver, w->now_ms);
    receive_vote_result(w, 2, 2, true);
    make_durable(w);
    receive_vote_result(w, 2, 2, false);
    assert_int_equal(driver_get_state(w->driver).role, REPLICA_LEADER);
    make_durable(w);
    receive_result(w, 2, 2, 0, 2);
    assert_true(driver_get_state(w->driver).ready);
    assert_int_equal(w->applied, 2);
    return w;
}

bool aborts(void (*scene)(unsigned guards_off), unsigned guards_off)
{
    pid_t child = fork();
    if (child == 0) {
        FILE *null = freopen("/dev/null", "w", stderr);
        (void)null;
        signal(SIGABRT, SIG_DFL);
        scene(guards_off);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

size_t count_sent(const struct world *w, enum raft_message_type type)
{
    size_t count = 0;
    for (size_t i = 0; i < w->sent_count; i++) {
        count += w->sent[i].core && w->sent[i].raft.type == type;
    }
    return count;
}

const struct sent *last_of_kind(const struct world *w, enum message_kind kind)
{
    for (size_t i = w->sent_count; i > 0; i--) {
        if (!w->sent[i - 1].core && w->sent[i - 1].kind == kind) {
            return &w->sent[i - 1];
        }
    }
    return NULL;
}

size_t count_of_kind(const struct world *w, enum message_kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < w->sent_count; i++) {
        count += !w->sent[i].core && w->sent[i].kind == kind;
    }
    return count;
}

void submit_cb(struct replica_submit *req, enum replica_status status, uint64_t index)
{
    struct request *r = container_of(req, struct request, submit);
    assert_int_equal(r->status, 1);
    assert_int_equal(index, req->index);
    r->status = status;
}

void read_cb(struct replica_read *req, enum replica_status status)
{
    struct request *r = container_of(req, struct request, read);
    assert_int_equal(r->status, 1);
    r->status = status;
}
