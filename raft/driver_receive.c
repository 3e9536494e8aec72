/* driver_receive: what comes in, and the guards that stand before the core. See driver.h.
 *
 * The transport has authenticated the sender, kept the order, and checked the shape of the message
 * (guard 1). Here stands what concerns its meaning:
 *     receive_append     N1 changes first, N2 commit index, N5 re-anchoring
 *     receive_install    N9 one install at a time, none during a checkpoint
 *     receive_result     N12 an install that failed while the leader went on
 *     receive_vote       N6 who does not know yet that it is a voter
 *     driver_receive     N3 stale terms, N11 vote results out of place
 * A message that no correct peer sends is dropped and counted. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/str.h"
#include "raft/driver_internal.h"

static void refuse(struct driver *d, uint64_t from_id, const char *why)
{
    d->messages_refused++;
    log_warn("raft: dropped a message of node %llu: %s", (unsigned long long)from_id, why);
}

/* The core wants an address for each sender; only the id is ever used. */
static const char *address_of(const struct driver *d, uint64_t id)
{
    const struct raft_configuration *c = &d->core.configuration;
    for (unsigned i = 0; i < c->n; i++) {
        if (c->servers[i].id == id) {
            return c->servers[i].address;
        }
    }
    return "unknown";
}

static void step_message(struct driver *d, uint64_t from_id, struct raft_message *message)
{
    char address[REPLICA_ADDRESS_SIZE]; /* a step may replace the configuration it came from */
    str_copy(address, sizeof address, str_from(address_of(d, from_id)));
    message->server_id = from_id;
    message->server_address = address;
    struct raft_event event = {.type = RAFT_RECEIVE};
    event.receive.message = message;
    driver_step_or_die(d, &event, "a message");
}

/* ---- AppendEntries ---- */

/* A run of entries that still has to be given to the core. */
struct append_run {
    uint64_t term, leader_commit;
    uint64_t prev_index, prev_term;
    const struct record_header *at; /* the next record */
    unsigned left;
};

static void run_advance(struct append_run *run, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        run->prev_index = run->at->index;
        run->prev_term = run->at->term;
        run->at = record_next(run->at);
    }
    run->left -= count;
}

/* N5 (guard 5): what lies at or below our first entry, or our snapshot, is committed, so a leader
 * of this term or a later one has it (Leader Completeness, Raft §5.4.3): it matches without being
 * compared. The core rejects it instead, and the leader, who never got the acknowledgement of an
 * install, steps back one index a round trip. */
static void run_reanchor(const struct driver *d, struct append_run *run)
{
    uint64_t commit = raft_commit_index(&d->core);
    uint64_t index = d->snapshot.index;
    uint64_t term = d->snapshot.term;
    if (d->cache.last > d->cache.base && d->cache.base + 1 <= commit) {
        index = d->cache.base + 1;
        term = log_cache_term(&d->cache, index);
    }
    if (commit == 0 || index == 0 || run->prev_index >= index) {
        return;
    }
    uint64_t skip = index - run->prev_index;
    run_advance(run, skip < run->left ? (unsigned)skip : run->left);
    run->prev_index = index;
    run->prev_term = term;
}

/* Gives the core the next `count` entries of the run, as one message with a batch of its own: the
 * core frees the batch or hands it back with update.entries. */
static void step_append(struct driver *d, uint64_t from_id, const struct append_run *run,
                        unsigned count, uint64_t leader_commit)
{
    uint64_t commit = raft_commit_index(&d->core);
    if (driver_guarded(d, DRIVER_GUARD_COMMIT_MONOTONIC) && run->prev_index + count < commit &&
        leader_commit > commit) {
        /* N2 (guard 4): the core sets its commit index to the last entry of the message, even when
         * that is a retransmission from before its commit index. */
        leader_commit = commit;
    }
    struct raft_message message = {.type = RAFT_APPEND_ENTRIES};
    message.append_entries = (struct raft_append_entries){
        .term = run->term,
        .prev_log_index = run->prev_index,
        .prev_log_term = run->prev_term,
        .leader_commit = leader_commit,
        .n_entries = count,
    };
    struct raft_entry *entries = NULL;
    if (count > 0) {
        const struct record_header *end = run->at;
        for (unsigned i = 0; i < count; i++) {
            end = record_next(end);
        }
        size_t size = (size_t)((const uint8_t *)end - (const uint8_t *)run->at);
        struct batch *b = batch_create(size);
        memcpy(batch_first(b), run->at, size);
        entries = raft_calloc(count, sizeof *entries);
        CHECK(entries != NULL);
        const struct record_header *record = batch_first(b);
        for (unsigned i = 0; i < count; i++) {
            entries[i].term = record->term;
            entries[i].type = record->type == RECORD_COMMAND ? RAFT_COMMAND
                              : record->type == RECORD_NOOP  ? RAFT_BARRIER
                                                             : RAFT_CHANGE;
            entries[i].buf.base = (void *)(uintptr_t)record_data(record);
            entries[i].buf.len = record_padded(record->size);
            entries[i].batch = b;
            record = record_next(record);
        }
        message.append_entries.entries = entries;
    }
    step_message(d, from_id, &message);
    raft_free(entries);
}

/* N1 (guard 3): the core records a configuration that is not the first *new* entry of a message at
 * the index of that first entry, and one that comes before the last is applied makes it forget that
 * one. So a change always begins a message of its own; and before it an empty message at the same
 * place commits the change before it: a leader proposes a second one only after the first is
 * committed, so its presence is the proof. */
static void step_changes_first(struct driver *d, uint64_t from_id, struct append_run *run)
{
    do {
        unsigned count = run->left;
        uint64_t pending = d->core.configuration_uncommitted_index;
        if (driver_guarded(d, DRIVER_GUARD_CHANGE_FIRST) && run->left > 0) {
            if (run->at->type == RECORD_CHANGE && pending != 0 && pending <= run->prev_index) {
                uint64_t commit = run->leader_commit > pending ? run->leader_commit : pending;
                step_append(d, from_id, run, 0, commit);
            }
            const struct record_header *record = record_next(run->at);
            for (unsigned i = 1; i < run->left; i++) {
                if (record->type == RECORD_CHANGE) {
                    count = i;
                    break;
                }
                record = record_next(record);
            }
        }
        step_append(d, from_id, run, count, run->leader_commit);
        run_advance(run, count);
    } while (run->left > 0);
}

static bool changes_are_valid(const struct append_run *run)
{
    const struct record_header *record = run->at;
    for (unsigned i = 0; i < run->left; i++) {
        struct membership m;
        if (record->type == RECORD_CHANGE &&
            membership_decode(record_data(record), record->size, &m) != 0) {
            return false;
        }
        record = record_next(record);
    }
    return true;
}

static void receive_append(struct driver *d, uint64_t from_id, const struct message *m)
{
    const struct raft_append_entries *args = &m->raft.append_entries;
    struct append_run run = {
        .term = args->term,
        .leader_commit = args->leader_commit,
        .prev_index = args->prev_log_index,
        .prev_term = args->prev_log_term,
        .at = m->records,
        .left = args->n_entries,
    };
    if ((run.prev_index == 0) != (run.prev_term == 0) || run.prev_term > run.term) {
        refuse(d, from_id, "AppendEntries with an impossible previous entry");
        return;
    }
    if (!changes_are_valid(&run)) {
        refuse(d, from_id, "AppendEntries with an invalid configuration");
        return;
    }
    if (run.term < d->core.current_term) {
        run.left = 0; /* rejected anyway; spares the copy */
        step_append(d, from_id, &run, 0, run.leader_commit);
        return;
    }
    if (d->install.phase != INSTALL_IDLE) {
        /* The core ignores entries now. An empty message anchored where the install will end keeps
         * the leader informed that we live; a rejection would make it offer again and again (N12).
         */
        run.left = 0;
        run.prev_index = d->install.ticket.position.index;
        run.prev_term = d->install.ticket.position.term;
    } else if (driver_guarded(d, DRIVER_GUARD_REANCHOR)) {
        run_reanchor(d, &run);
    }
    step_changes_first(d, from_id, &run);
}

/* ---- InstallSnapshot ---- */

static void receive_install(struct driver *d, uint64_t from_id, const struct message *m)
{
    const struct raft_install_snapshot *args = &m->raft.install_snapshot;
    struct membership members;
    if (args->last_index == 0 || args->last_term == 0 || args->last_term > args->term ||
        args->conf_index == 0 || args->conf_index > args->last_index ||
        m->configuration_size > REPLICA_CONFIGURATION_SIZE_MAX ||
        membership_decode(m->configuration, m->configuration_size, &members) != 0 ||
        m->data_size > REPLICA_TICKET_SIZE_MAX) {
        refuse(d, from_id, "InstallSnapshot with an impossible position");
        return;
    }
    if (d->install.phase != INSTALL_IDLE ||
        (d->checkpoint_running && driver_guarded(d, DRIVER_GUARD_INSTALL_BUSY))) {
        /* N9 (guard 6): a second one while installing leaks inside the core; and an install must
         * not change the state under a checkpoint that is being written. The leader offers again.
         */
        return;
    }
    struct replica_ticket *ticket = &d->install.ticket;
    memset(ticket, 0, sizeof *ticket);
    ticket->position.index = args->last_index;
    ticket->position.term = args->last_term;
    ticket->position.configuration_index = args->conf_index;
    ticket->position.configuration_size = (uint32_t)m->configuration_size;
    memcpy(ticket->position.configuration, m->configuration, m->configuration_size);
    ticket->size = (uint32_t)m->data_size;
    if (m->data_size > 0) {
        memcpy(ticket->data, m->data, m->data_size);
    }
    d->install.from_id = from_id;

    struct raft_message message = m->raft;
    struct raft_install_snapshot *copy = &message.install_snapshot;
    if (args->last_index <= d->applied_index) {
        /* Nothing new, say after a crash between the commit point and the acknowledgement. It is all
         * committed, so any leader of this term or a later one has it too: the core answers with how far
         * this node is. By itself it would take what lies below its log for a new checkpoint. */
        copy->last_index = d->applied_index;
        copy->last_term = d->applied_term;
    }
    struct raft_buffer encoded = {.base = (void *)(uintptr_t)ticket->position.configuration,
                                  .len = ticket->position.configuration_size};
    int rv = raft_configuration_decode(&encoded, &copy->conf);
    CHECK(rv == 0);
    copy->data.len = sizeof(uint64_t); /* opaque to the core; the ticket is ours */
    copy->data.base = raft_malloc(copy->data.len);
    CHECK(copy->data.base != NULL);
    memcpy(copy->data.base, &args->last_index, sizeof(uint64_t));
    step_message(d, from_id, &message); /* conf and data are the core's now */
}

/* ---- AppendEntriesResult ---- */

/* N12: a leader that sent a snapshot at S takes a rejection for stale unless it is of S. But its
 * heartbeats are anchored at its newest snapshot: when that moves on, the rejection by which a peer
 * shows that its install failed never fits, and the peer waits for the install timeout. So such a
 * rejection is given twice, first in the name of S. A rejection too many is harmless: the leader
 * begins earlier in its log, nothing more. */
static void receive_result(struct driver *d, uint64_t from_id, struct raft_message *message)
{
    struct raft_append_entries_result *result = &message->append_entries_result;
    uint64_t asked = install_tickets_core_index(&d->tickets, from_id);
    if (d->leading && result->rejected > 0 && asked > 0 && result->rejected != asked &&
        result->term == d->leading_term && driver_guarded(d, DRIVER_GUARD_INSTALL_RETRY)) {
        struct raft_message renamed = *message;
        renamed.append_entries_result.rejected = asked;
        if (renamed.append_entries_result.last_log_index >= asked) {
            renamed.append_entries_result.last_log_index = asked - 1;
        }
        step_message(d, from_id, &renamed);
    }
    step_message(d, from_id, message);
    if (d->leading) {
        install_tickets_matched(&d->tickets, from_id, driver_match_index(d, from_id),
                                d->cache.last, d->config.trailing_entries);
    }
}

/* ---- RequestVote ---- */

static struct raft_server *own_server(struct driver *d)
{
    struct raft_configuration *c = &d->core.configuration;
    for (unsigned i = 0; i < c->n; i++) {
        if (c->servers[i].id == d->config.id) {
            return &c->servers[i];
        }
    }
    return NULL;
}

/* N6: the core gives no vote while its own configuration calls it a non-voter. But it is the candidate
 * who counts, by his configuration (dissertation §4.1: requests are processed without consulting the
 * own one), and it may be newer: a leader writes "2 is a voter" to its own log and dies; afterwards 1
 * cannot be elected without the vote of 2, who does not know that it has one. So the role is lent for
 * this step. A vote of who is no voter to the candidate is not counted. */
static void receive_vote(struct driver *d, uint64_t from_id, struct raft_message *message)
{
    struct raft_server *self = own_server(d);
    bool lend = self != NULL && self->role != RAFT_VOTER && driver_guarded(d, DRIVER_GUARD_NONVOTER);
    int role = lend ? self->role : 0;
    if (lend) {
        self->role = RAFT_VOTER;
    }
    step_message(d, from_id, message);
    self = own_server(d);
    if (lend && self != NULL) {
        self->role = role; /* the step of a vote changes no configuration */
    }
}

/* ---- membership ---- */

/* Conclusive iff the sender's committed configuration is newer than ours: then ours is its past. Who
 * was added again since must have come back empty, as a refilling node, which does not listen. */
static void receive_removed(struct driver *d, uint64_t from_id, const struct message *m)
{
    uint64_t own = d->core.configuration_uncommitted_index > 0
                       ? d->core.configuration_uncommitted_index
                       : d->core.configuration_committed_index;
    if (own > 0 && m->index > own && own_server(d) != NULL && !d->removal_told) {
        log_info("raft: node %llu says that this node was removed by the configuration at %llu",
                 (unsigned long long)from_id, (unsigned long long)m->index);
        d->removal_told = true;
    }
}

/* ---- all ---- */

static void receive_read(struct driver *d, uint64_t from_id, const struct message *m)
{
    if (m->kind == MESSAGE_READ) {
        /* Yes iff our term is the asker's: then no later leader can have had our vote before now.
         */
        if (m->term == d->core.current_term) {
            driver_send_read(d, from_id, MESSAGE_READ_ACK, m->term, m->seq);
        }
        return;
    }
    struct driver_peer *peer = driver_peer(d, from_id);
    if (peer != NULL && d->leading && m->term == d->leading_term) {
        peer->confirmed_term = m->term;
        peer->refilling = false;
    }
    struct membership members;
    driver_get_membership(d, &members);
    if (d->leading && m->term == d->leading_term &&
        read_index_answer(&d->reads, from_id, m->seq, d->config.id, &members)) {
        read_index_applied(&d->reads, d->applied_index);
    }
}

static void receive_core(struct driver *d, uint64_t from_id, const struct message *m)
{
    struct raft_message message = m->raft;
    uint64_t term = d->core.current_term;
    switch (m->kind) {
    case MESSAGE_APPEND_ENTRIES:
    case MESSAGE_INSTALL_SNAPSHOT: {
        uint64_t sent = m->kind == MESSAGE_APPEND_ENTRIES ? message.append_entries.term
                                                          : message.install_snapshot.term;
        if (driver_is_leader(d) && sent == term) {
            refuse(d, from_id, "it claims to lead the term that this node leads");
            return;
        }
        d->receiving_stale = sent < term;
        if (m->kind == MESSAGE_APPEND_ENTRIES) {
            receive_append(d, from_id, m);
        } else {
            receive_install(d, from_id, m);
        }
        d->receiving_stale = false;
        if (driver_get_state(d).leader_id == from_id) {
            d->heard_ms = d->now_ms;
            driver_quick_end(d); /* there is a leader again */
        }
        break;
    }
    case MESSAGE_REQUEST_VOTE:
        message.request_vote.candidate_id = from_id;
        receive_vote(d, from_id, &message);
        break;
    case MESSAGE_REQUEST_VOTE_RESULT:
        /* N11: for a follower or leader the core looks at a field of the candidate's state, which
         * shares memory with theirs. There is nothing in it for them. */
        if (d->core.state == RAFT_CANDIDATE) {
            step_message(d, from_id, &message);
        }
        break;
    case MESSAGE_APPEND_ENTRIES_RESULT:
        receive_result(d, from_id, &message);
        break;
    case MESSAGE_TIMEOUT_NOW:
        if (FAILPOINT_DROP("raft/transfer-received", "the leader tells this node to take over")) {
            break;
        }
        step_message(d, from_id, &message);
        break;
    case MESSAGE_READ:
    case MESSAGE_READ_ACK:
        receive_read(d, from_id, m);
        break;
    case MESSAGE_REFILL:
        driver_refill_asked(d, from_id, m);
        break;
    case MESSAGE_REMOVED:
        receive_removed(d, from_id, m);
        break;
    case MESSAGE_WILLING: {
        struct driver_peer *peer = driver_peer(d, from_id);
        if (peer != NULL) {
            peer->unwilling = m->seq == 0;
        }
        break;
    }
    case MESSAGE_REFILL_ACK:
        break; /* asked for before this node was whole again */
    case MESSAGE_PING:
    case MESSAGE_PONG:
    case MESSAGE_HELLO:
        refuse(d, from_id, "it is the transport's");
        break;
    }
}

void driver_receive(struct driver *d, uint64_t now_ms, uint64_t from_id, const struct message *m)
{
    driver_begin_event(d, now_ms);
    if (from_id == 0 || from_id == d->config.id) {
        refuse(d, from_id, "it bears our own id or none");
    } else if (!d->refill.on || driver_refill_takes(d, from_id, m)) {
        receive_core(d, from_id, m);
    }
    driver_end_event(d);
}
