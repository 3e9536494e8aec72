/* The driver with nothing behind it: each guard is provoked by the messages that need it. Where the
 * core's bug would show, the same is done with the guard switched off and must fail: by another
 * answer, or by the abort of a check (in a child process). */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/log.h"
#include "raft/driver_internal.h"

#define SENT_MAX 4096

struct sent {
    uint64_t to;
    bool core;
    struct raft_message raft;
    enum message_kind kind;
    uint64_t term, seq, index;
    size_t records, bytes;
};

/* A driver whose world only takes notes. */
struct world {
    int removed;
    struct driver *driver;
    uint64_t now_ms;
    uint64_t ticket, vote_ticket, vote_term, vote;
    uint64_t reset_index, reset_term, trimmed;
    struct sent sent[SENT_MAX];
    size_t sent_count;
    uint64_t applied;
    unsigned installs;
    struct replica_ticket offered; /* what make_ticket answers; index 0: none */
    unsigned state_changes;
    unsigned settled;
};

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
    *sent = (struct sent){.to = to_id, .core = m->raft != NULL, .kind = m->kind, .term = m->term,
                          .seq = m->seq, .index = m->index};
    if (m->raft != NULL) {
        sent->raft = *m->raft;
        if (m->raft->type == RAFT_APPEND_ENTRIES) {
            sent->records = m->raft->append_entries.n_entries;
            for (size_t i = 0; i < sent->records; i++) {
                assert_int_equal(m->records[i]->index, m->raft->append_entries.prev_log_index + 1 + i);
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

static const struct driver_effects effects = {
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

static void members(struct membership *m, size_t count, size_t voters)
{
    memset(m, 0, sizeof *m);
    m->count = count;
    for (size_t i = 0; i < count; i++) {
        m->members[i].id = i + 1;
        m->members[i].role = i < voters ? REPLICA_VOTER : REPLICA_STANDBY;
        snprintf(m->members[i].address, sizeof m->members[i].address, "node%zu", i + 1);
    }
}

static struct world *world_create(uint64_t id, unsigned guards_off)
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
    w->driver = driver_create(&config, &effects, w);
    driver_test_disable_guard(w->driver, guards_off);
    return w;
}

static void world_destroy(struct world *w)
{
    driver_destroy(w->driver);
    free(w);
}

static void make_durable(struct world *w)
{
    driver_durable(w->driver, w->now_ms, w->ticket);
}

/* A member of three that has the bootstrap entry and term 1. */
static struct world *follower(uint64_t id, unsigned guards_off)
{
    struct world *w = world_create(id, guards_off);
    struct membership m;
    members(&m, 3, 3);
    assert_int_equal(driver_start(w->driver, w->now_ms, 0, 0, NULL, &m), 0);
    make_durable(w);
    return w;
}

static void position_at(struct replica_position *p, uint64_t index, uint64_t term)
{
    struct membership m;
    members(&m, 3, 3);
    memset(p, 0, sizeof *p);
    p->index = index;
    p->term = term;
    p->configuration_index = 1;
    p->configuration_size = (uint32_t)membership_encode(&m, p->configuration);
}

/* A member of three that begins at a checkpoint, its log empty behind it. */
static struct world *at_checkpoint(uint64_t index, uint64_t term, unsigned guards_off)
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

/* Records one after the other, as a frame carries them. */
struct frame {
    uint64_t bytes[8192];
    size_t size;
    unsigned count;
};

static void frame_add(struct frame *f, enum record_type type, uint64_t index, uint64_t term,
                      const void *data, uint32_t size)
{
    f->size += record_encode((uint8_t *)f->bytes + f->size, type, index, term, data, size);
    f->count++;
}

static void frame_add_command(struct frame *f, uint64_t index, uint64_t term)
{
    frame_add(f, RECORD_COMMAND, index, term, "command", 8);
}

static void frame_add_change(struct frame *f, uint64_t index, uint64_t term, size_t voters)
{
    struct membership m;
    uint8_t bytes[REPLICA_CONFIGURATION_SIZE_MAX];
    members(&m, 3, voters);
    frame_add(f, RECORD_CHANGE, index, term, bytes, (uint32_t)membership_encode(&m, bytes));
}

static void receive_append(struct world *w, uint64_t from, uint64_t term, uint64_t prev,
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

static void receive_install(struct world *w, uint64_t from, uint64_t term, uint64_t index,
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

static void receive_vote_request(struct world *w, uint64_t from, uint64_t term, uint64_t last)
{
    struct message m = {.kind = MESSAGE_REQUEST_VOTE};
    m.raft.type = RAFT_REQUEST_VOTE;
    m.raft.request_vote = (struct raft_request_vote){
        .version = 2, .term = term, .last_log_index = last, .last_log_term = term};
    driver_receive(w->driver, w->now_ms, from, &m);
}

static void receive_vote_result(struct world *w, uint64_t from, uint64_t term, bool pre_vote)
{
    struct message m = {.kind = MESSAGE_REQUEST_VOTE_RESULT};
    m.raft.type = RAFT_REQUEST_VOTE_RESULT;
    m.raft.request_vote_result = (struct raft_request_vote_result){
        .version = 2, .term = term, .vote_granted = true, .pre_vote = pre_vote};
    driver_receive(w->driver, w->now_ms, from, &m);
}

static void receive_result(struct world *w, uint64_t from, uint64_t term, uint64_t rejected,
                           uint64_t last)
{
    struct message m = {.kind = MESSAGE_APPEND_ENTRIES_RESULT};
    m.raft.type = RAFT_APPEND_ENTRIES_RESULT;
    m.raft.append_entries_result = (struct raft_append_entries_result){
        .version = 1, .term = term, .rejected = rejected, .last_log_index = last};
    driver_receive(w->driver, w->now_ms, from, &m);
}

static void receive_read(struct world *w, uint64_t from, enum message_kind kind, uint64_t term,
                         uint64_t seq)
{
    struct message m = {.kind = kind, .term = term, .seq = seq};
    driver_receive(w->driver, w->now_ms, from, &m);
}

static const struct sent *last_sent(const struct world *w, enum raft_message_type type)
{
    for (size_t i = w->sent_count; i > 0; i--) {
        if (w->sent[i - 1].core && w->sent[i - 1].raft.type == type) {
            return &w->sent[i - 1];
        }
    }
    return NULL;
}

/* Node 1 of three, leader of term 2, ready. */
static struct world *ready_leader(unsigned guards_off)
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

/* Runs in a child: true iff it died by abort. */
static bool aborts(void (*scene)(unsigned guards_off), unsigned guards_off)
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

/* ---- N1: a change that is not first ---- */

static void scene_change_in_the_middle(unsigned guards_off)
{
    struct world *w = follower(2, guards_off);
    struct frame *f = calloc(1, sizeof *f);
    frame_add_command(f, 2, 1);
    frame_add_change(f, 3, 1, 2);
    frame_add_command(f, 4, 1);
    frame_add_change(f, 5, 1, 3);
    frame_add_command(f, 6, 1);
    receive_append(w, 1, 1, 1, 1, 6, f);
    assert_int_equal(w->applied, 6);
    assert_int_equal(w->driver->core.configuration_committed_index, 5);
    assert_int_equal(w->driver->core.configuration_uncommitted_index, 0);
    assert_int_equal(w->driver->configuration_index, 5);
    free(f);
    world_destroy(w);
}

static void test_change_comes_first(void **state)
{
    (void)state;
    scene_change_in_the_middle(0);
    assert_true(aborts(scene_change_in_the_middle, DRIVER_GUARD_CHANGE_FIRST));
}

/* ---- N2: the commit index ---- */

static void scene_retransmission(unsigned guards_off)
{
    struct world *w = follower(2, guards_off);
    struct frame *f = calloc(1, sizeof *f);
    for (uint64_t i = 2; i <= 10; i++) {
        frame_add_command(f, i, 1);
    }
    receive_append(w, 1, 1, 1, 1, 10, f);
    assert_int_equal(w->applied, 10);
    struct frame *again = calloc(1, sizeof *again);
    frame_add_command(again, 3, 1);
    frame_add_command(again, 4, 1);
    receive_append(w, 1, 1, 2, 1, 12, again);
    assert_int_equal(raft_commit_index(&w->driver->core), 10);
    free(f);
    free(again);
    world_destroy(w);
}

static void test_commit_is_monotonic(void **state)
{
    (void)state;
    scene_retransmission(0);
    assert_true(aborts(scene_retransmission, DRIVER_GUARD_COMMIT_MONOTONIC));
}

/* ---- N3: answers to stale messages ---- */

/* Fills the stack with a value that the core then finds in a field it does not set. */
static void poison(uint64_t value)
{
    volatile uint64_t stack[2048];
    for (size_t i = 0; i < ARRAY_COUNT(stack); i++) {
        stack[i] = value;
    }
}

static void receive_stale(struct world *w, bool snapshot)
{
    receive_vote_request(w, 3, 7, 100); /* we are in term 7 now */
    make_durable(w);
    w->sent_count = 0;
    poison(4242);
    if (snapshot) {
        receive_install(w, 1, 5, 50, 5);
    } else {
        receive_append(w, 1, 5, 0, 0, 0, NULL);
    }
}

static void test_stale_message_is_rejected(void **state)
{
    (void)state;
    for (int snapshot = 0; snapshot <= 1; snapshot++) {
        struct world *w = follower(2, 0);
        receive_stale(w, snapshot);
        const struct sent *answer = last_sent(w, RAFT_APPEND_ENTRIES_RESULT);
        assert_non_null(answer); /* it must learn of the term */
        assert_int_equal(answer->raft.append_entries_result.term, 7);
        assert_int_equal(answer->raft.append_entries_result.rejected, 1);
        assert_int_equal(answer->raft.append_entries_result.last_log_index, 0);
        world_destroy(w);

        w = follower(2, DRIVER_GUARD_STALE_RESULT);
        receive_stale(w, snapshot);
        answer = last_sent(w, RAFT_APPEND_ENTRIES_RESULT);
        assert_int_equal(answer->raft.append_entries_result.rejected, 0); /* a false match */
        world_destroy(w);
    }
}

/* ---- N5: below the log ---- */

static void test_reanchors_below_the_log(void **state)
{
    (void)state;
    struct world *w = at_checkpoint(100, 3, 0);
    receive_append(w, 1, 3, 50, 2, 90, NULL);
    const struct sent *answer = last_sent(w, RAFT_APPEND_ENTRIES_RESULT);
    assert_int_equal(answer->raft.append_entries_result.rejected, 0);
    assert_int_equal(answer->raft.append_entries_result.last_log_index, 100);

    /* Entries that straddle the checkpoint: those behind it are taken. */
    struct frame *f = calloc(1, sizeof *f);
    for (uint64_t i = 98; i <= 102; i++) {
        frame_add_command(f, i, 3);
    }
    receive_append(w, 1, 3, 97, 3, 102, f);
    assert_int_equal(w->applied, 102);
    free(f);
    world_destroy(w);

    w = at_checkpoint(100, 3, DRIVER_GUARD_REANCHOR);
    receive_append(w, 1, 3, 50, 2, 90, NULL);
    answer = last_sent(w, RAFT_APPEND_ENTRIES_RESULT);
    assert_int_equal(answer->raft.append_entries_result.rejected, 50);
    assert_int_equal(answer->raft.append_entries_result.last_log_index, 49); /* one step a round trip */
    world_destroy(w);
}

/* ---- votes are durable before they leave ---- */

static size_t count_sent(const struct world *w, enum raft_message_type type)
{
    size_t count = 0;
    for (size_t i = 0; i < w->sent_count; i++) {
        count += w->sent[i].core && w->sent[i].raft.type == type;
    }
    return count;
}

static void test_vote_waits_for_the_disk(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    receive_vote_request(w, 3, 2, 10);
    assert_int_equal(w->vote_term, 2);
    assert_int_equal(w->vote, 3);
    assert_int_equal(count_sent(w, RAFT_REQUEST_VOTE_RESULT), 0);
    receive_append(w, 3, 2, 1, 1, 0, NULL); /* and what comes after it waits behind it */
    assert_int_equal(w->sent_count, 0);
    make_durable(w);
    assert_int_equal(w->sent_count, 2);
    assert_int_equal(w->sent[0].raft.type, RAFT_REQUEST_VOTE_RESULT);
    assert_true(w->sent[0].raft.request_vote_result.vote_granted);
    assert_int_equal(w->sent[1].raft.type, RAFT_APPEND_ENTRIES_RESULT);
    world_destroy(w);

    w = follower(2, DRIVER_GUARD_HOLD);
    receive_vote_request(w, 3, 2, 10);
    assert_int_equal(count_sent(w, RAFT_REQUEST_VOTE_RESULT), 1); /* before it is durable */
    world_destroy(w);
}

static void test_restarted_node_votes_once_a_term(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    receive_vote_request(w, 3, 2, 10);
    make_durable(w);
    struct world *again = world_create(2, 0);
    const struct record_header *entry = log_cache_get(&w->driver->cache, 1)->record;
    driver_restore(again->driver, 0, &entry, 1);
    assert_int_equal(driver_start(again->driver, 1, w->vote_term, w->vote, NULL, NULL), 0);
    receive_vote_request(again, 1, 2, 10);
    make_durable(again);
    const struct sent *answer = last_sent(again, RAFT_REQUEST_VOTE_RESULT);
    assert_non_null(answer);
    assert_false(answer->raft.request_vote_result.vote_granted);
    receive_vote_request(again, 3, 2, 10); /* the same candidate may hear it again */
    make_durable(again);
    assert_true(last_sent(again, RAFT_REQUEST_VOTE_RESULT)->raft.request_vote_result.vote_granted);
    world_destroy(again);
    world_destroy(w);
}

/* A candidate asks for votes only after its own is durable. */
static void test_candidate_waits_for_the_disk(void **state)
{
    (void)state;
    struct world *w = follower(1, 0);
    w->now_ms += 1100;
    driver_tick(w->driver, w->now_ms);
    assert_int_equal(count_sent(w, RAFT_REQUEST_VOTE), 2); /* pre-votes promise nothing */
    receive_vote_result(w, 2, 2, true);
    assert_int_equal(w->vote_term, 2);
    assert_int_equal(w->vote, 1);
    assert_int_equal(count_sent(w, RAFT_REQUEST_VOTE), 2);
    make_durable(w);
    assert_int_equal(count_sent(w, RAFT_REQUEST_VOTE), 4);
    world_destroy(w);
}

/* ---- stored means: this very write ---- */

static void test_stored_is_the_very_write(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    struct frame f3 = {.size = 0}, f4 = {.size = 0};
    frame_add_command(&f3, 2, 3);
    frame_add_command(&f4, 2, 4);
    receive_append(w, 1, 3, 1, 1, 0, &f3);
    uint64_t first = w->ticket;
    receive_append(w, 3, 4, 1, 1, 0, &f4); /* replaces it */
    receive_append(w, 1, 5, 1, 1, 0, &f3); /* and is replaced by the first again */
    driver_durable(w->driver, w->now_ms, first);
    struct driver_stats stats;
    driver_get_stats(w->driver, &stats);
    assert_int_equal(stats.last_index, 2);
    assert_int_equal(stats.stored_index, 1); /* a crash now would leave (2, t4), or nothing */
    make_durable(w);
    driver_get_stats(w->driver, &stats);
    assert_int_equal(stats.stored_index, 2);
    const struct sent *answer = last_sent(w, RAFT_APPEND_ENTRIES_RESULT);
    assert_int_equal(answer->to, 1);
    assert_int_equal(answer->raft.append_entries_result.last_log_index, 2);
    world_destroy(w);
}

/* ---- requests ---- */

struct request {
    struct replica_submit submit;
    struct replica_read read;
    int status; /* 1: not answered */
};

static void submit_cb(struct replica_submit *req, enum replica_status status, uint64_t index)
{
    struct request *r = container_of(req, struct request, submit);
    assert_int_equal(r->status, 1);
    assert_int_equal(index, req->index);
    r->status = status;
}

static void read_cb(struct replica_read *req, enum replica_status status)
{
    struct request *r = container_of(req, struct request, read);
    assert_int_equal(r->status, 1);
    r->status = status;
}

static void test_submit_commits_or_is_unknown(void **state)
{
    (void)state;
    struct world *w = ready_leader(0);
    struct request a = {.status = 1}, b = {.status = 1};
    assert_int_equal(driver_submit(w->driver, w->now_ms, &a.submit, "abc", 3, submit_cb), 0);
    assert_int_equal(driver_submit(w->driver, w->now_ms, &b.submit, "defg", 4, submit_cb), 0);
    assert_int_equal(a.submit.index, 3);
    assert_int_equal(b.submit.index, 4);
    receive_result(w, 2, 2, 0, 3);
    assert_int_equal(a.status, 1); /* our own disk has not got it */
    make_durable(w);
    assert_int_equal(a.status, REPLICA_OK);
    assert_int_equal(b.status, 1);
    receive_append(w, 3, 3, 4, 2, 3, NULL); /* another leader */
    assert_int_equal(b.status, REPLICA_OUTCOME_UNKNOWN);
    assert_int_equal(driver_submit(w->driver, w->now_ms, &b.submit, "x", 1, submit_cb),
                     REPLICA_NOT_LEADER);
    static char large[REPLICA_ENTRY_SIZE_MAX + 1];
    assert_int_equal(driver_submit(w->driver, w->now_ms, &b.submit, large, sizeof large, submit_cb),
                     REPLICA_TOO_LARGE);
    world_destroy(w);
}

static size_t count_appends(const struct world *w, uint64_t to, bool with_entries)
{
    size_t count = 0;
    for (size_t i = 0; i < w->sent_count; i++) {
        const struct sent *sent = &w->sent[i];
        bool append = sent->core && sent->raft.type == RAFT_APPEND_ENTRIES;
        count += append && sent->to == to && (sent->records > 0) == with_entries ? 1 : 0;
    }
    return count;
}

static const struct sent *last_core_to(const struct world *w, uint64_t to)
{
    for (size_t i = w->sent_count; i-- > 0;) {
        if (w->sent[i].to == to && w->sent[i].core) {
            return &w->sent[i];
        }
    }
    return NULL;
}

/* A message that only tells of a commit waits for entries that tell it too, but not for long, and no
 * other kind of message overtakes it. */
static void test_commit_rides_on_entries(void **state)
{
    (void)state;
    struct world *w = ready_leader(0);
    struct request a = {.status = 1}, b = {.status = 1};
    w->now_ms = driver_deadline_ms(w->driver);
    driver_tick(w->driver, w->now_ms);
    w->sent_count = 0;
    assert_int_equal(driver_submit(w->driver, w->now_ms, &a.submit, "abc", 3, submit_cb), 0);
    w->now_ms += 2; /* a heartbeat is due */
    receive_result(w, 2, 2, 0, 3);
    make_durable(w);
    assert_int_equal(a.status, REPLICA_OK);
    assert_int_equal(count_appends(w, 2, true), 1);
    assert_int_equal(count_appends(w, 2, false), 0);
    assert_int_equal(driver_deadline_ms(w->driver), w->now_ms + DRIVER_IDLE_APPEND_MS);

    /* Overtaken. */
    assert_int_equal(driver_submit(w->driver, w->now_ms, &b.submit, "def", 3, submit_cb), 0);
    assert_int_equal(last_core_to(w, 2)->records, 1);
    assert_int_equal(last_core_to(w, 2)->raft.append_entries.leader_commit, 3);
    w->now_ms += DRIVER_IDLE_APPEND_MS;
    driver_tick(w->driver, w->now_ms);
    assert_int_equal(count_appends(w, 2, false), 0);

    /* Not overtaken: after its time, and only once. */
    w->now_ms += 2;
    receive_result(w, 2, 2, 0, 4);
    make_durable(w);
    assert_int_equal(b.status, REPLICA_OK);
    assert_int_equal(count_appends(w, 2, false), 0);
    w->now_ms = driver_deadline_ms(w->driver);
    driver_tick(w->driver, w->now_ms);
    assert_int_equal(count_appends(w, 2, false), 1);
    assert_int_equal(last_core_to(w, 2)->raft.append_entries.leader_commit, 4);
    driver_tick(w->driver, w->now_ms);
    assert_int_equal(count_appends(w, 2, false), 1);

    /* Another kind of message to the same peer lets it go first. */
    a.status = 1;
    assert_int_equal(driver_submit(w->driver, w->now_ms, &a.submit, "abc", 3, submit_cb), 0);
    w->now_ms += 2;
    receive_result(w, 2, 2, 0, 5);
    make_durable(w);
    assert_int_equal(count_appends(w, 2, false), 1);
    assert_int_equal(driver_transfer(w->driver, w->now_ms, 2), REPLICA_OK);
    assert_int_equal(count_appends(w, 2, false), 2);
    assert_int_equal(last_core_to(w, 2)->raft.type, RAFT_TIMEOUT_NOW);
    world_destroy(w);
}

static void test_submit_is_bounded(void **state)
{
    (void)state;
    struct world *w = ready_leader(0);
    struct request *requests = calloc(REPLICA_IN_FLIGHT_MAX + 1, sizeof *requests);
    for (size_t i = 0; i < REPLICA_IN_FLIGHT_MAX; i++) {
        requests[i].status = 1;
        assert_int_equal(
            driver_submit(w->driver, w->now_ms, &requests[i].submit, "x", 1, submit_cb), 0);
    }
    assert_int_equal(driver_submit(w->driver, w->now_ms, &requests[REPLICA_IN_FLIGHT_MAX].submit,
                                   "x", 1, submit_cb),
                     REPLICA_BUSY);
    world_destroy(w); /* and the rest is told */
    for (size_t i = 0; i < REPLICA_IN_FLIGHT_MAX; i++) {
        assert_int_equal(requests[i].status, REPLICA_OUTCOME_UNKNOWN);
    }
    free(requests);
}

static void test_large_appends_are_split(void **state)
{
    (void)state;
    struct world *w = ready_leader(0);
    static char data[200 << 10];
    struct request requests[12];
    w->sent_count = 0;
    for (size_t i = 0; i < ARRAY_COUNT(requests); i++) {
        requests[i].status = 1;
        assert_int_equal(driver_submit(w->driver, w->now_ms, &requests[i].submit, data, sizeof data,
                                       submit_cb),
                         0);
    }
    /* Node 3 was never heard of: it is sent everything at once when it answers. */
    w->sent_count = 0;
    receive_result(w, 3, 2, 0, 2);
    size_t records = 0;
    uint64_t next = 3;
    for (size_t i = 0; i < w->sent_count; i++) {
        if (w->sent[i].to == 3 && w->sent[i].core && w->sent[i].records > 0) {
            assert_int_equal(w->sent[i].raft.append_entries.prev_log_index + 1, next);
            assert_true(w->sent[i].bytes <= DRIVER_APPEND_SIZE_MAX + RECORD_SPAN_MAX);
            next += w->sent[i].records;
            records += w->sent[i].records;
        }
    }
    assert_int_equal(records, ARRAY_COUNT(requests));
    world_destroy(w);
}

static void test_read_needs_a_majority_after_it_was_asked(void **state)
{
    (void)state;
    struct world *w = ready_leader(0);
    struct request a = {.status = 1}, b = {.status = 1};
    assert_int_equal(driver_read(w->driver, w->now_ms, &a.read, read_cb), REPLICA_OK);
    uint64_t round = w->sent[w->sent_count - 1].seq;
    assert_int_equal(w->sent[w->sent_count - 1].kind, MESSAGE_READ);
    assert_int_equal(driver_read(w->driver, w->now_ms, &b.read, read_cb), REPLICA_OK);
    receive_read(w, 2, MESSAGE_READ_ACK, 1, round); /* of another term */
    assert_int_equal(a.status, 1);
    receive_read(w, 2, MESSAGE_READ_ACK, 2, round);
    assert_int_equal(a.status, REPLICA_OK);
    assert_int_equal(b.status, 1); /* asked after that round began */
    receive_read(w, 3, MESSAGE_READ_ACK, 2, round);
    assert_int_equal(b.status, 1);
    receive_read(w, 3, MESSAGE_READ_ACK, 2, round + 1);
    assert_int_equal(b.status, REPLICA_OK);

    b.status = 1;
    assert_int_equal(driver_read(w->driver, w->now_ms, &b.read, read_cb), REPLICA_OK);
    receive_append(w, 3, 3, 2, 2, 2, NULL);
    assert_int_equal(b.status, REPLICA_NOT_LEADER);
    /* A voter says yes only in the asker's term. */
    make_durable(w);
    w->sent_count = 0;
    receive_read(w, 3, MESSAGE_READ, 2, 9);
    assert_int_equal(w->sent_count, 0);
    receive_read(w, 3, MESSAGE_READ, 3, 9);
    assert_int_equal(w->sent_count, 1);
    assert_int_equal(w->sent[0].kind, MESSAGE_READ_ACK);
    world_destroy(w);
}

/* ---- membership: docs/adr/0012 ---- */

/* Node 1 of three leads term 2; its no-op at 2 is committed. 2 and 3 are connected. */
static struct world *leader_of_three(unsigned guards_off)
{
    struct world *w = follower(1, guards_off);
    driver_peer_connected(w->driver, w->now_ms, 2);
    driver_peer_connected(w->driver, w->now_ms, 3);
    w->now_ms += 1100;
    driver_tick(w->driver, w->now_ms);
    receive_vote_result(w, 2, 2, true);
    make_durable(w);
    receive_vote_result(w, 2, 2, false);
    assert_int_equal(driver_get_state(w->driver).role, REPLICA_LEADER);
    make_durable(w);
    return w;
}

static const struct sent *last_of_kind(const struct world *w, enum message_kind kind)
{
    for (size_t i = w->sent_count; i > 0; i--) {
        if (!w->sent[i - 1].core && w->sent[i - 1].kind == kind) {
            return &w->sent[i - 1];
        }
    }
    return NULL;
}

static size_t count_of_kind(const struct world *w, enum message_kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < w->sent_count; i++) {
        count += !w->sent[i].core && w->sent[i].kind == kind;
    }
    return count;
}

static enum replica_refusal why;

static enum replica_status assign(struct world *w, uint64_t id, enum replica_member_role role)
{
    return driver_assign(w->driver, w->now_ms, id, role, &why);
}

static void assert_refused(enum replica_status status, enum replica_refusal refusal)
{
    assert_int_equal(status, REPLICA_REFUSED);
    assert_int_equal(why, refusal);
}

static void commit(struct world *w, uint64_t by_id, uint64_t index)
{
    make_durable(w);
    receive_result(w, by_id, 2, 0, index);
}

/* N7, and each condition of a change. */
static void test_changes_wait_for_their_time(void **state)
{
    (void)state;
    struct world *w = leader_of_three(0);
    assert_false(driver_get_state(w->driver).ready);
    assert_refused(assign(w, 3, REPLICA_STANDBY), REPLICA_REFUSAL_NOT_READY);
    commit(w, 2, 2);
    assert_refused(assign(w, 2, REPLICA_STANDBY), REPLICA_REFUSAL_PENDING); /* 3 has said nothing yet */
    receive_result(w, 3, 2, 0, 2);
    assert_refused(assign(w, 1, REPLICA_STANDBY), REPLICA_REFUSAL_SELF);
    assert_refused(driver_remove(w->driver, w->now_ms, 1, &why), REPLICA_REFUSAL_SELF);
    assert_refused(driver_remove(w->driver, w->now_ms, 9, &why), REPLICA_REFUSAL_UNKNOWN);
    assert_int_equal(assign(w, 3, REPLICA_STANDBY), REPLICA_OK);
    assert_refused(assign(w, 2, REPLICA_STANDBY), REPLICA_REFUSAL_PENDING);
    commit(w, 2, 3);
    assert_false(driver_change_pending(w->driver));
    struct request requests[DRIVER_CATCH_UP_ENTRIES_MAX + 8];
    for (size_t i = 0; i < ARRAY_COUNT(requests); i++) {
        requests[i].status = 1;
        assert_int_equal(
            driver_submit(w->driver, w->now_ms, &requests[i].submit, "x", 1, submit_cb), 0);
    }
    /* Behind, and nobody knows whether it is whole: it is asked, and answers. */
    w->sent_count = 0;
    assert_refused(assign(w, 3, REPLICA_VOTER), REPLICA_REFUSAL_LAGGARD);
    assert_int_equal(last_of_kind(w, MESSAGE_READ)->to, 3);
    receive_read(w, 3, MESSAGE_READ_ACK, 2, 0);
    assert_refused(assign(w, 3, REPLICA_VOTER), REPLICA_REFUSAL_LAGGARD);
    struct driver_stats stats;
    driver_get_stats(w->driver, &stats);
    receive_result(w, 3, 2, 0, stats.last_index);
    assert_int_equal(assign(w, 3, REPLICA_VOTER), REPLICA_OK);
    commit(w, 2, stats.last_index + 1);
    assert_true(driver_change_pending(w->driver)); /* committed, but node 3 does not know it yet */
    assert_refused(assign(w, 2, REPLICA_STANDBY), REPLICA_REFUSAL_PENDING);
    assert_refused(driver_remove(w->driver, w->now_ms, 9, &why), REPLICA_REFUSAL_PENDING);
    receive_result(w, 3, 2, 0, stats.last_index + 1);
    assert_false(driver_change_pending(w->driver));
    world_destroy(w);

    w = follower(1, DRIVER_GUARD_CHANGE_TERM);
    w->now_ms += 1100;
    driver_tick(w->driver, w->now_ms);
    receive_vote_result(w, 2, 2, true);
    make_durable(w);
    receive_vote_result(w, 2, 2, false);
    assert_int_equal(assign(w, 3, REPLICA_STANDBY), REPLICA_OK); /* N7 */
    world_destroy(w);
}

static void test_changes_keep_a_quorum(void **state)
{
    (void)state;
    struct world *w = leader_of_three(0);
    commit(w, 2, 2);
    driver_peer_disconnected(w->driver, w->now_ms, 3);
    assert_refused(assign(w, 2, REPLICA_STANDBY), REPLICA_REFUSAL_QUORUM);
    assert_refused(driver_remove(w->driver, w->now_ms, 2, &why), REPLICA_REFUSAL_QUORUM);
    /* A member that refills has forgotten what it stored: it does not count either. */
    driver_peer_connected(w->driver, w->now_ms, 3);
    receive_result(w, 3, 2, 0, 2);
    receive_read(w, 3, MESSAGE_REFILL, 2, 77);
    assert_refused(assign(w, 2, REPLICA_STANDBY), REPLICA_REFUSAL_QUORUM);
    receive_read(w, 3, MESSAGE_READ_ACK, 2, 0);
    driver_peer_disconnected(w->driver, w->now_ms, 3);
    /* The dead one can go: then two of two are there. */
    assert_int_equal(driver_remove(w->driver, w->now_ms, 3, &why), REPLICA_OK);
    commit(w, 2, 3);
    assert_int_equal(driver_remove(w->driver, w->now_ms, 2, &why), REPLICA_OK);
    make_durable(w);
    assert_refused(assign(w, 1, REPLICA_STANDBY), REPLICA_REFUSAL_LAST);
    world_destroy(w);
}

/* A change of the configuration as node 2 gets it from the leader 1, to make node 2 a standby. */
static struct world *demoted(unsigned guards_off)
{
    struct world *w = follower(2, guards_off);
    struct frame *f = calloc(1, sizeof *f);
    struct membership m;
    uint8_t bytes[REPLICA_CONFIGURATION_SIZE_MAX];
    members(&m, 3, 3);
    m.members[1].role = REPLICA_STANDBY;
    frame_add(f, RECORD_CHANGE, 2, 1, bytes, (uint32_t)membership_encode(&m, bytes));
    receive_append(w, 1, 1, 1, 1, 2, f);
    make_durable(w);
    free(f);
    return w;
}

static bool grants(struct world *w, uint64_t term, uint64_t last)
{
    w->sent_count = 0;
    receive_vote_request(w, 3, term, last);
    make_durable(w);
    const struct sent *answer = last_sent(w, RAFT_REQUEST_VOTE_RESULT);
    return answer != NULL && answer->raft.request_vote_result.vote_granted;
}

/* N6: a promotion that the promoted has not heard of. It votes once its leader is silent. */
static void test_nonvoter_votes_when_its_leader_is_silent(void **state)
{
    (void)state;
    struct world *w = demoted(0);
    assert_false(grants(w, 2, 5)); /* there is a leader */
    w->now_ms += 1500;
    driver_tick(w->driver, w->now_ms);
    assert_int_equal(driver_get_state(w->driver).leader_id, 0);
    assert_int_equal(driver_get_state(w->driver).role, REPLICA_FOLLOWER); /* it does not stand */
    assert_true(grants(w, 2, 5));
    assert_int_equal(w->driver->vote, 3);
    struct membership m;
    driver_get_membership(w->driver, &m);
    assert_int_equal(m.members[1].role, REPLICA_STANDBY); /* lent only */
    world_destroy(w);

    w = demoted(DRIVER_GUARD_NONVOTER);
    w->now_ms += 1500;
    driver_tick(w->driver, w->now_ms);
    assert_false(grants(w, 2, 5));
    world_destroy(w);
}

static void receive_note(struct world *w, uint64_t from, enum message_kind kind, uint64_t seq,
                         uint64_t index)
{
    struct message m = {.kind = kind, .term = 1, .seq = seq, .index = index};
    driver_receive(w->driver, w->now_ms, from, &m);
}

static void test_removed_node_is_told(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    receive_note(w, 1, MESSAGE_REMOVED, 0, 1); /* not newer than what we know: an old one */
    assert_int_equal(w->removed, 0);
    receive_note(w, 1, MESSAGE_REMOVED, 0, 9);
    receive_note(w, 1, MESSAGE_REMOVED, 0, 10);
    assert_int_equal(w->removed, 1);
    world_destroy(w);

    /* Who calls and is no member is told by whom has committed it. */
    w = leader_of_three(0);
    commit(w, 2, 2);
    receive_result(w, 3, 2, 0, 2);
    assert_int_equal(driver_remove(w->driver, w->now_ms, 3, &why), REPLICA_OK);
    driver_peer_disconnected(w->driver, w->now_ms, 3);
    w->sent_count = 0;
    driver_peer_connected(w->driver, w->now_ms, 3);
    assert_int_equal(count_of_kind(w, MESSAGE_REMOVED), 0); /* not committed yet */
    commit(w, 2, 3);
    w->sent_count = 0;
    driver_peer_connected(w->driver, w->now_ms, 3);
    assert_int_equal(count_of_kind(w, MESSAGE_REMOVED), 1);
    assert_int_equal(last_of_kind(w, MESSAGE_REMOVED)->index, 3);
    world_destroy(w);
}

static void test_unwilling_node_is_not_chosen(void **state)
{
    (void)state;
    struct world *w = leader_of_three(0);
    commit(w, 2, 2);
    receive_result(w, 3, 2, 0, 2);
    receive_note(w, 2, MESSAGE_WILLING, 0, 0);
    assert_true(driver_peer_is_unwilling(w->driver, 2));
    assert_int_equal(driver_successor(w->driver), 3);
    assert_int_equal(driver_transfer(w->driver, w->now_ms, 2), REPLICA_REFUSED);
    receive_note(w, 3, MESSAGE_WILLING, 0, 0);
    assert_int_equal(driver_successor(w->driver), 0);
    assert_int_equal(driver_transfer(w->driver, w->now_ms, 0), REPLICA_REFUSED);
    receive_note(w, 2, MESSAGE_WILLING, 1, 0);
    assert_int_equal(driver_successor(w->driver), 2);
    w->sent_count = 0;
    driver_set_willing(w->driver, w->now_ms, false);
    assert_int_equal(count_of_kind(w, MESSAGE_WILLING), 2);
    driver_set_willing(w->driver, w->now_ms, false); /* no news */
    assert_int_equal(count_of_kind(w, MESSAGE_WILLING), 2);
    driver_peer_connected(w->driver, w->now_ms, 2);
    assert_int_equal(count_of_kind(w, MESSAGE_WILLING), 3);
    assert_int_equal(last_of_kind(w, MESSAGE_WILLING)->seq, 0);
    world_destroy(w);
}

/* A round of reads that waits for voters who are none any more. */
/* The disk of node 2 hangs: it was asked and says nothing. The next one to be asked is node 3. */
static void test_who_did_not_take_over_comes_last(void **state)
{
    (void)state;
    struct world *w = leader_of_three(0);
    commit(w, 2, 2);
    receive_result(w, 3, 2, 0, 2);
    w->now_ms += 60000;
    driver_tick(w->driver, w->now_ms);
    uint64_t first = driver_successor(w->driver);
    assert_int_equal(driver_transfer(w->driver, w->now_ms, 0), REPLICA_OK);
    assert_int_equal(driver_successor(w->driver), 5 - first);
    receive_note(w, 5 - first, MESSAGE_WILLING, 0, 0);
    assert_int_equal(driver_successor(w->driver), first); /* rather than nobody */
    receive_note(w, 5 - first, MESSAGE_WILLING, 1, 0);
    driver_peer_disconnected(w->driver, w->now_ms + DRIVER_TRANSFER_MEMORY_MS, 5 - first);
    assert_int_equal(driver_successor(w->driver), first);
    driver_peer_connected(w->driver, w->now_ms + DRIVER_TRANSFER_MEMORY_MS, 5 - first);
    assert_int_equal(driver_successor(w->driver), first); /* forgotten: both are as good */
    world_destroy(w);
}

static void test_reads_go_on_when_voters_leave(void **state)
{
    (void)state;
    struct world *w = leader_of_three(0);
    commit(w, 2, 2);
    receive_result(w, 3, 2, 0, 2);
    assert_int_equal(driver_remove(w->driver, w->now_ms, 3, &why), REPLICA_OK);
    commit(w, 2, 3);
    struct request r = {.status = 1};
    assert_int_equal(driver_read(w->driver, w->now_ms, &r.read, read_cb), REPLICA_OK);
    assert_int_equal(driver_remove(w->driver, w->now_ms, 2, &why), REPLICA_OK);
    make_durable(w);
    w->now_ms += DRIVER_TICK_MS;
    driver_tick(w->driver, w->now_ms);
    assert_int_equal(r.status, REPLICA_OK);
    world_destroy(w);
}

/* ---- checkpoints and installs ---- */

static void test_checkpoint_waits_for_the_log(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    struct frame *f = calloc(1, sizeof *f);
    for (uint64_t i = 2; i <= 20; i++) {
        frame_add_command(f, i, 1);
    }
    receive_append(w, 1, 1, 1, 1, 20, f);
    assert_int_equal(w->applied, 20); /* committed elsewhere, not on our disk */
    struct replica_position p;
    driver_checkpoint_begin(w->driver, &p);
    assert_int_equal(p.index, 20);
    assert_int_equal(p.configuration_index, 1);
    receive_install(w, 1, 1, 50, 1);
    assert_int_equal(w->installs, 0); /* guard 6 */
    driver_checkpoint_published(w->driver, w->now_ms, &p);
    assert_int_equal(w->trimmed, 0); /* guard 7 */
    make_durable(w);
    assert_int_equal(w->trimmed, 16);
    struct driver_stats stats;
    driver_get_stats(w->driver, &stats);
    assert_int_equal(stats.first_index, 17);
    free(f);
    world_destroy(w);
}

static void test_install_succeeds_and_fails(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    struct frame f = {.size = 0};
    frame_add_command(&f, 2, 1);
    receive_append(w, 1, 1, 1, 1, 1, &f); /* not committed, not durable */
    receive_install(w, 1, 2, 50, 2);
    make_durable(w);
    assert_int_equal(w->installs, 1);
    assert_true(driver_installing(w->driver));
    receive_install(w, 1, 2, 60, 2); /* N9 */
    assert_int_equal(w->installs, 1);
    w->sent_count = 0;
    receive_append(w, 1, 2, 60, 2, 60, NULL); /* a heartbeat of a leader that has gone on: N12 */
    assert_int_equal(last_sent(w, RAFT_APPEND_ENTRIES_RESULT)->raft.append_entries_result.rejected, 0);

    driver_install_done(w->driver, w->now_ms, &w->driver->install.ticket.position, false);
    assert_false(driver_installing(w->driver));
    struct driver_stats stats;
    driver_get_stats(w->driver, &stats);
    assert_int_equal(stats.last_index, 2); /* the old log */
    assert_int_equal(stats.stored_index, 2);
    assert_int_equal(w->applied, 1);

    receive_install(w, 1, 2, 60, 2);
    assert_int_equal(w->installs, 2);
    struct replica_position p;
    position_at(&p, 60, 2);
    w->applied = 60;
    w->sent_count = 0;
    driver_install_done(w->driver, w->now_ms, &p, true);
    assert_int_equal(w->reset_index, 60);
    assert_int_equal(w->reset_term, 2);
    const struct sent *answer = last_sent(w, RAFT_APPEND_ENTRIES_RESULT);
    assert_int_equal(answer->raft.append_entries_result.rejected, 0);
    assert_int_equal(answer->raft.append_entries_result.last_log_index, 60);
    struct frame g = {.size = 0};
    frame_add_command(&g, 61, 2);
    receive_append(w, 1, 2, 60, 2, 61, &g);
    assert_int_equal(w->applied, 61);
    world_destroy(w);
}

/* N12: the leader's snapshot moved on while the peer's install failed. */
static size_t offers_after_failure(unsigned guards_off)
{
    struct world *w = ready_leader(guards_off);
    struct request requests[40];
    for (size_t i = 0; i < ARRAY_COUNT(requests); i++) {
        requests[i].status = 1;
        assert_int_equal(
            driver_submit(w->driver, w->now_ms, &requests[i].submit, "x", 1, submit_cb), 0);
        make_durable(w);
        receive_result(w, 2, 2, 0, requests[i].submit.index);
        assert_int_equal(requests[i].status, REPLICA_OK);
        if (i == 19) {
            struct replica_position p;
            driver_checkpoint_begin(w->driver, &p);
            driver_checkpoint_published(w->driver, w->now_ms, &p);
            w->offered.position = p;
            receive_result(w, 3, 2, 1, 0); /* node 3 has nothing, and what it needs is trimmed */
        }
    }
    assert_int_equal(count_sent(w, RAFT_INSTALL_SNAPSHOT), 1);
    struct replica_position p;
    driver_checkpoint_begin(w->driver, &p);
    driver_checkpoint_published(w->driver, w->now_ms, &p);
    w->offered.position = p;
    /* Node 3 failed to install, and rejects a heartbeat that is anchored at the new snapshot. */
    receive_result(w, 3, 2, p.index, 1);
    for (int i = 0; i < 3; i++) {
        w->now_ms += DRIVER_TICK_MS;
        driver_tick(w->driver, w->now_ms);
        receive_result(w, 2, 2, 0, p.index);
        receive_result(w, 3, 2, p.index, 1);
    }
    size_t offers = count_sent(w, RAFT_INSTALL_SNAPSHOT);
    world_destroy(w);
    return offers;
}

static void test_failed_install_is_offered_again(void **state)
{
    (void)state;
    assert_true(offers_after_failure(0) > 1);
    assert_int_equal(offers_after_failure(DRIVER_GUARD_INSTALL_RETRY), 1);
}

/* ---- start ---- */

static void test_joins_log_and_checkpoint(void **state)
{
    (void)state;
    struct frame *f = calloc(1, sizeof *f);
    const struct record_header *records[10];
    for (uint64_t i = 0; i < 10; i++) {
        records[i] = (const struct record_header *)(const void *)((uint8_t *)f->bytes + f->size);
        frame_add_command(f, 11 + i, 2);
    }
    static const struct {
        uint64_t index, term;
        int result;
        uint64_t last, reset;
    } cases[] = {
        {15, 2, 0, 20, 0},   /* the log holds it */
        {20, 2, 0, 20, 0},   /* as its last entry */
        {10, 2, 0, 20, 0},   /* the log follows it */
        {15, 1, 0, 15, 15},  /* another term: everything is older than the checkpoint, or unpromised */
        {25, 2, 0, 25, 25},  /* an install whose reset was lost */
        {9, 2, -1, 0, 0},    /* a hole */
        {15, 9, -1, 0, 0},   /* a checkpoint of a later term than the log has seen */
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct world *w = world_create(2, 0);
        struct replica_position p;
        position_at(&p, cases[i].index, cases[i].term);
        driver_restore(w->driver, 10, records, 4);
        driver_restore(w->driver, 10, records + 4, 6);
        assert_int_equal(driver_start(w->driver, 1, 2, 0, &p, NULL), cases[i].result);
        if (cases[i].result == 0) {
            struct driver_stats stats;
            driver_get_stats(w->driver, &stats);
            assert_int_equal(stats.last_index, cases[i].last);
            assert_int_equal(stats.applied_index, cases[i].index);
            assert_int_equal(w->reset_index, cases[i].reset);
        }
        world_destroy(w);
    }
    struct world *w = world_create(2, 0);
    driver_restore(w->driver, 10, records, 10);
    assert_int_equal(driver_start(w->driver, 1, 2, 0, NULL, NULL), -1); /* a log without its beginning */
    world_destroy(w);
    free(f);
}

/* N10. */
static uint64_t term_after_restart(unsigned guards_off)
{
    struct world *w = world_create(1, guards_off);
    struct membership m;
    uint8_t bytes[REPLICA_CONFIGURATION_SIZE_MAX];
    members(&m, 2, 1);
    struct frame *f = calloc(1, sizeof *f);
    frame_add(f, RECORD_CHANGE, 1, 1, bytes, (uint32_t)membership_encode(&m, bytes));
    const struct record_header *record = (const struct record_header *)(const void *)f->bytes;
    driver_restore(w->driver, 0, &record, 1);
    assert_int_equal(driver_start(w->driver, 1, 1, 0, NULL, NULL), 0);
    if (guards_off == 0) {
        assert_int_equal(w->sent_count, 0); /* the new term is not durable yet */
    }
    driver_tick(w->driver, 2);
    uint64_t term = driver_get_state(w->driver).term;
    assert_int_equal(driver_get_state(w->driver).role, REPLICA_LEADER);
    world_destroy(w);
    free(f);
    return term;
}

static void test_only_voter_begins_a_new_term(void **state)
{
    (void)state;
    assert_int_equal(term_after_restart(0), 2);
    assert_int_equal(term_after_restart(DRIVER_GUARD_SELF_ELECT), 1);
}

/* ---- quick fail-over, and messages that make no sense ---- */

static void test_quick_failover(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    driver_peer_connected(w->driver, w->now_ms, 1);
    receive_append(w, 1, 1, 1, 1, 1, NULL);
    make_durable(w);
    assert_true(driver_deadline_ms(w->driver) >= w->now_ms + 500);
    driver_peer_disconnected(w->driver, w->now_ms, 3);
    assert_true(driver_deadline_ms(w->driver) >= w->now_ms + 500);
    driver_peer_disconnected(w->driver, w->now_ms, 1);
    assert_true(driver_deadline_ms(w->driver) <= w->now_ms + 2 * DRIVER_QUICK_TIMEOUT_MS);
    receive_append(w, 1, 1, 1, 1, 1, NULL); /* it lives after all */
    assert_true(driver_deadline_ms(w->driver) >= w->now_ms + 500);
    driver_peer_disconnected(w->driver, w->now_ms, 1);
    for (uint64_t end = w->now_ms + DRIVER_QUICK_DURATION_MS + 100; w->now_ms < end; w->now_ms += 20) {
        driver_tick(w->driver, w->now_ms);
    }
    assert_true(w->driver->core.election_timeout == 500);
    world_destroy(w);
}

static void test_refuses_impossible_messages(void **state)
{
    (void)state;
    struct world *w = ready_leader(0);
    struct driver_stats stats;
    receive_append(w, 3, 2, 2, 2, 2, NULL); /* two leaders in one term */
    receive_append(w, 1, 9, 2, 2, 2, NULL); /* from ourselves */
    receive_append(w, 3, 9, 0, 4, 2, NULL);
    receive_append(w, 3, 9, 5, 10, 2, NULL);
    receive_install(w, 3, 9, 0, 0);
    receive_install(w, 3, 9, 5, 10);
    struct frame f = {.size = 0};
    frame_add(&f, RECORD_CHANGE, 3, 9, "nonsense", 8);
    receive_append(w, 3, 9, 2, 2, 2, &f);
    driver_get_stats(w->driver, &stats);
    assert_int_equal(stats.messages_refused, 7);
    assert_int_equal(driver_get_state(w->driver).term, 2);
    assert_int_equal(driver_get_state(w->driver).role, REPLICA_LEADER);
    world_destroy(w);
}

/* ---- a member that lost its disk: docs/adr/0010 ---- */

static struct world *lost_disk(uint64_t id, unsigned guards_off)
{
    struct world *w = calloc(1, sizeof *w);
    struct membership m;
    w->now_ms = 1000;
    struct driver_config config = {
        .id = id,
        .address = "self",
        .seed = 77,
        .election_timeout_ms = 500,
        .entries_in_flight_max = 512,
        .trailing_entries = 4,
        .refilling = true,
    };
    members(&m, 3, 3);
    w->driver = driver_create(&config, &effects, w);
    driver_test_disable_guard(w->driver, guards_off);
    assert_int_equal(driver_start(w->driver, w->now_ms, 0, 0, NULL, &m), 0);
    make_durable(w);
    return w;
}

static void receive_refill(struct world *w, uint64_t from, enum message_kind kind, uint64_t term,
                           uint64_t nonce, uint64_t index)
{
    struct message m = {.kind = kind, .term = term, .seq = nonce, .index = index};
    driver_receive(w->driver, w->now_ms, from, &m);
}

/* A leads, A and B hold X = (3, t2), which is acknowledged; C has the bootstrap entry only. B loses its
 * disk, A dies, C asks B. Returns whether B's vote makes C a leader without X. */
static bool x_is_lost(unsigned guards_off)
{
    struct world *b = lost_disk(2, guards_off);
    struct world *c = follower(3, 0);
    c->now_ms += 1100;
    driver_tick(c->driver, c->now_ms);
    receive_vote_result(c, 1, 2, true); /* whoever it was: pre-votes promise nothing */
    make_durable(c);
    const struct sent *asks = last_sent(c, RAFT_REQUEST_VOTE);
    assert_non_null(asks);
    assert_false(asks->raft.request_vote.pre_vote);
    struct message request = {.kind = MESSAGE_REQUEST_VOTE, .raft = asks->raft};
    for (int i = 0; i < 3; i++) {
        driver_receive(b->driver, b->now_ms, 3, &request);
        b->now_ms += 5000; /* no time is long enough */
        make_durable(b);
    }
    const struct sent *answer = last_sent(b, RAFT_REQUEST_VOTE_RESULT);
    if (answer != NULL) {
        struct message result = {.kind = MESSAGE_REQUEST_VOTE_RESULT, .raft = answer->raft};
        driver_receive(c->driver, c->now_ms, 2, &result);
    }
    bool lost = driver_get_state(c->driver).role == REPLICA_LEADER;
    world_destroy(b);
    world_destroy(c);
    return lost;
}

static void test_lost_disk_does_not_elect(void **state)
{
    (void)state;
    assert_false(x_is_lost(0));
    assert_true(x_is_lost(DRIVER_GUARD_REFILL));
}

static void test_refilling_node_is_silent(void **state)
{
    (void)state;
    struct world *w = lost_disk(2, 0);
    struct message now = {.kind = MESSAGE_TIMEOUT_NOW, .raft.type = RAFT_TIMEOUT_NOW};
    now.raft.timeout_now.version = 1;
    now.raft.timeout_now.term = 1;
    for (int i = 0; i < 100; i++) { /* no candidate, however long it lasts */
        w->now_ms = driver_deadline_ms(w->driver) + 100;
        driver_tick(w->driver, w->now_ms);
        receive_vote_request(w, 3, 2, 10);
        receive_read(w, 1, MESSAGE_READ, 0, 5);
        driver_receive(w->driver, w->now_ms, 1, &now);
    }
    assert_int_equal(w->sent_count, 0);
    assert_int_equal(driver_get_state(w->driver).role, REPLICA_FOLLOWER);
    assert_int_equal(w->settled, 0);
    struct driver_stats stats;
    driver_get_stats(w->driver, &stats);
    assert_int_equal(stats.refill_dropped, 300);
    world_destroy(w);
}

static void test_refill_needs_a_proved_leader(void **state)
{
    (void)state;
    struct world *w = lost_disk(2, 0);
    struct frame *f = calloc(1, sizeof *f);
    frame_add_change(f, 1, 1, 3);
    frame_add_command(f, 2, 2);
    frame_add_command(f, 3, 2);
    receive_append(w, 1, 2, 0, 0, 2, f);
    assert_int_equal(w->sent_count, 0); /* elections of before the loss may still run */
    w->now_ms += DRIVER_REFILL_QUIET_FACTOR * 500;
    receive_append(w, 1, 2, 0, 0, 2, f);
    const struct sent *asked = last_of_kind(w, MESSAGE_REFILL);
    assert_int_equal(w->sent_count, 1);
    assert_non_null(asked);
    assert_int_equal(asked->to, 1);
    assert_int_equal(asked->term, 2);
    uint64_t nonce = asked->seq;
    assert_int_equal(w->ticket, 0); /* nothing was taken */

    receive_refill(w, 1, MESSAGE_REFILL_ACK, 2, nonce + 1, 2); /* asked for by an earlier life */
    receive_append(w, 1, 2, 0, 0, 2, f);
    assert_int_equal(w->ticket, 0);
    receive_refill(w, 1, MESSAGE_REFILL_ACK, 2, nonce, 3);
    receive_append(w, 1, 2, 0, 0, 2, f);
    make_durable(w);
    assert_int_equal(last_sent(w, RAFT_APPEND_ENTRIES_RESULT)->raft.append_entries_result.rejected, 0);
    assert_int_equal(w->applied, 2);
    assert_int_equal(w->settled, 0); /* the target is 3: stored, but is it committed? */
    receive_vote_request(w, 3, 3, 10);
    assert_null(last_sent(w, RAFT_REQUEST_VOTE_RESULT));

    /* A leader of a later term needs a proof of his own. */
    size_t sent = w->sent_count;
    receive_append(w, 3, 3, 3, 2, 3, NULL);
    assert_int_equal(w->sent_count, sent + 1);
    assert_int_equal(w->sent[sent].kind, MESSAGE_REFILL);
    assert_int_equal(w->sent[sent].to, 3);
    assert_int_equal(w->applied, 2);
    receive_refill(w, 3, MESSAGE_REFILL_ACK, 3, nonce, 3);
    receive_append(w, 3, 3, 3, 2, 3, NULL);
    assert_int_equal(w->applied, 3);
    assert_int_equal(w->settled, 0); /* its term is not durable yet */
    make_durable(w);
    assert_int_equal(w->settled, 1);
    assert_false(driver_refilling(w->driver));
    w->now_ms += 2000;
    driver_tick(w->driver, w->now_ms); /* its leader is silent: it may even ask itself now */
    assert_int_equal(count_sent(w, RAFT_REQUEST_VOTE), 2);
    receive_vote_request(w, 1, 4, 10);
    make_durable(w);
    assert_true(last_sent(w, RAFT_REQUEST_VOTE_RESULT)->raft.request_vote_result.vote_granted);
    assert_int_equal(w->settled, 1);
    free(f);
    world_destroy(w);
}

static void test_leader_proves_itself_by_the_others(void **state)
{
    (void)state;
    struct world *w = ready_leader(0);
    w->sent_count = 0;
    receive_refill(w, 2, MESSAGE_REFILL, 1, 9, 0); /* another term */
    assert_int_equal(w->sent_count, 0);
    receive_refill(w, 2, MESSAGE_REFILL, 2, 9, 0);
    const struct sent *round = last_of_kind(w, MESSAGE_READ);
    assert_non_null(round);
    assert_null(last_of_kind(w, MESSAGE_REFILL_ACK));
    receive_refill(w, 2, MESSAGE_REFILL, 2, 10, 0); /* one at a time: the round began before this */
    receive_read(w, 3, MESSAGE_READ_ACK, 2, round->seq);
    const struct sent *proof = last_of_kind(w, MESSAGE_REFILL_ACK);
    assert_non_null(proof);
    assert_int_equal(proof->to, 2);
    assert_int_equal(proof->term, 2);
    assert_int_equal(proof->seq, 9);
    world_destroy(w);
}

/* N13: how many entries a heartbeat carries to a peer that had stored all and has lost it. */
static size_t records_for_a_lost_log(unsigned guards_off)
{
    struct world *w = ready_leader(guards_off);
    for (int i = 0; i < 40; i++) { /* only node 3 answers */
        w->now_ms += DRIVER_TICK_MS;
        driver_tick(w->driver, w->now_ms);
        receive_result(w, 3, 2, 0, 2);
    }
    assert_int_equal(driver_match_index(w->driver, 2), 2);
    receive_result(w, 2, 2, 2, 0); /* begins with nothing */
    w->sent_count = 0;
    w->now_ms += DRIVER_TICK_MS;
    driver_tick(w->driver, w->now_ms);
    size_t records = 0;
    for (size_t i = 0; i < w->sent_count; i++) {
        if (w->sent[i].to == 2 && w->sent[i].core && w->sent[i].raft.type == RAFT_APPEND_ENTRIES) {
            assert_int_equal(w->sent[i].raft.append_entries.prev_log_index, 0);
            records += w->sent[i].records;
        }
    }
    world_destroy(w);
    return records;
}

static void test_lost_log_is_sent_again(void **state)
{
    (void)state;
    assert_int_equal(records_for_a_lost_log(0), 2);
    assert_int_equal(records_for_a_lost_log(DRIVER_GUARD_REFILL), 0);
}

static void test_new_log_settles_when_durable(void **state)
{
    (void)state;
    struct world *w = world_create(2, 0);
    struct membership m;
    members(&m, 3, 3);
    assert_int_equal(driver_start(w->driver, w->now_ms, 0, 0, NULL, &m), 0);
    driver_tick(w->driver, driver_deadline_ms(w->driver));
    assert_int_equal(w->settled, 0);
    make_durable(w);
    assert_int_equal(w->settled, 1);
    world_destroy(w);
}

int main(void)
{
    log_init("test_driver", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_change_comes_first),
        cmocka_unit_test(test_commit_is_monotonic),
        cmocka_unit_test(test_stale_message_is_rejected),
        cmocka_unit_test(test_reanchors_below_the_log),
        cmocka_unit_test(test_vote_waits_for_the_disk),
        cmocka_unit_test(test_restarted_node_votes_once_a_term),
        cmocka_unit_test(test_candidate_waits_for_the_disk),
        cmocka_unit_test(test_stored_is_the_very_write),
        cmocka_unit_test(test_submit_commits_or_is_unknown),
        cmocka_unit_test(test_commit_rides_on_entries),
        cmocka_unit_test(test_submit_is_bounded),
        cmocka_unit_test(test_large_appends_are_split),
        cmocka_unit_test(test_read_needs_a_majority_after_it_was_asked),
        cmocka_unit_test(test_changes_wait_for_their_time),
        cmocka_unit_test(test_changes_keep_a_quorum),
        cmocka_unit_test(test_nonvoter_votes_when_its_leader_is_silent),
        cmocka_unit_test(test_removed_node_is_told),
        cmocka_unit_test(test_unwilling_node_is_not_chosen),
        cmocka_unit_test(test_who_did_not_take_over_comes_last),
        cmocka_unit_test(test_reads_go_on_when_voters_leave),
        cmocka_unit_test(test_checkpoint_waits_for_the_log),
        cmocka_unit_test(test_install_succeeds_and_fails),
        cmocka_unit_test(test_failed_install_is_offered_again),
        cmocka_unit_test(test_joins_log_and_checkpoint),
        cmocka_unit_test(test_only_voter_begins_a_new_term),
        cmocka_unit_test(test_quick_failover),
        cmocka_unit_test(test_refuses_impossible_messages),
        cmocka_unit_test(test_lost_disk_does_not_elect),
        cmocka_unit_test(test_refilling_node_is_silent),
        cmocka_unit_test(test_refill_needs_a_proved_leader),
        cmocka_unit_test(test_leader_proves_itself_by_the_others),
        cmocka_unit_test(test_lost_log_is_sent_again),
        cmocka_unit_test(test_new_log_settles_when_durable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
