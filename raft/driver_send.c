/* driver_send: what goes out. Messages are held until term and vote are durable, AppendEntries are
 * filled from the cache and split, InstallSnapshot becomes a ticket. See driver.h.
 *
 * Why hold: a candidate that asks for votes, or a voter that grants one, and forgets it in a crash
 * can take part twice in one term: votes for A in t7, answer leaves, crash, restart with t6, votes
 * for B in t7: two leaders. Everything behind the held message is held too, because the peers rely
 * on the order. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "raft/driver_internal.h"

static bool driver_must_hold(const struct driver *d)
{
    return driver_guarded(d, DRIVER_GUARD_HOLD) &&
           (d->durable_ticket < d->hold_ticket || d->held_first != NULL);
}

/* Copies a message and what it points to; entries are shared by reference. */
static void hold_message(struct driver *d, uint64_t to_id, const struct message_out *m)
{
    if (d->held_count == DRIVER_HELD_MESSAGES_MAX) {
        d->held_dropped++; /* a lost message: the core sends again */
        return;
    }
    struct held_message *held = calloc(1, sizeof *held);
    CHECK(held != NULL);
    held->to_id = to_id;
    held->out = *m;
    if (m->raft != NULL) {
        held->raft = *m->raft;
        held->out.raft = &held->raft;
    }
    if (m->raft != NULL && m->raft->type == RAFT_APPEND_ENTRIES) {
        size_t count = m->raft->append_entries.n_entries;
        held->records_count = count;
        held->records = calloc(count + 1, sizeof *held->records);
        held->batches = calloc(count + 1, sizeof(struct batch *));
        CHECK(held->records != NULL);
        CHECK(held->batches != NULL);
        for (size_t i = 0; i < count; i++) {
            held->records[i] = m->records[i];
            held->batches[i] = log_cache_get(&d->cache, m->records[i]->index)->batch;
            batch_retain(held->batches[i]);
        }
        held->out.records = held->records;
    }
    if (m->configuration != NULL) {
        CHECK(m->configuration_size <= sizeof held->configuration);
        memcpy(held->configuration, m->configuration, m->configuration_size);
        held->out.configuration = held->configuration;
    }
    if (m->data != NULL) {
        CHECK(m->data_size <= sizeof held->data);
        memcpy(held->data, m->data, m->data_size);
        held->out.data = held->data;
    }
    *d->held_last = held;
    d->held_last = &held->next;
    d->held_count++;
}

/* A request for votes that was overtaken: a leader of its term appeared while it was held, and what
 * it says of the end of our log may have been replaced since. Nobody waits for the answer. */
static bool is_overtaken(const struct driver *d, const struct held_message *held)
{
    return held->out.raft != NULL && held->raft.type == RAFT_REQUEST_VOTE &&
           (d->core.state != RAFT_CANDIDATE || held->raft.request_vote.term < d->core.current_term);
}

static void release_held(struct driver *d, bool send)
{
    while (d->held_first != NULL) {
        struct held_message *held = d->held_first;
        d->held_first = held->next;
        d->held_count--;
        if (send && !is_overtaken(d, held)) {
            d->effects->send(d->ctx, held->to_id, &held->out);
        }
        for (size_t i = 0; i < held->records_count; i++) {
            batch_release(held->batches[i]);
        }
        free(held->records);
        free(held->batches);
        free(held);
    }
    d->held_last = &d->held_first;
}

void driver_send_held(struct driver *d)
{
    release_held(d, true);
}

void driver_drop_held(struct driver *d)
{
    release_held(d, false);
}

static void emit_now(struct driver *d, uint64_t to_id, const struct message_out *m)
{
    if (driver_must_hold(d)) {
        hold_message(d, to_id, m);
    } else {
        d->effects->send(d->ctx, to_id, m);
    }
}

/* ---- AppendEntries without entries ---- */

/* Each commit makes the core tell every follower the new commit index, in a message of its own,
 * which the follower answers. Under load the next entries are a fraction of a millisecond behind
 * and tell the same, so such a message waits a moment, and leaves only if nothing overtakes it:
 * half the messages of a busy group, and a wake-up of every process for each. Safe because Raft may
 * lose any message; nothing that is sent to the same peer later is let past it, because the core
 * relies on the order. */

static bool idle_append_is_current(const struct driver *d, const struct idle_append *idle)
{
    return driver_is_leader(d) && idle->message.append_entries.term == d->core.current_term;
}

static void idle_append_send(struct driver *d, struct idle_append *idle)
{
    struct raft_append_entries *args = &idle->message.append_entries;
    idle->due_ms = 0;
    if (idle_append_is_current(d, idle)) {
        /* What was committed meanwhile, as far as this message vouches for the peer's log. */
        uint64_t commit = raft_commit_index(&d->core);
        commit = commit < args->prev_log_index ? commit : args->prev_log_index;
        args->leader_commit = commit > args->leader_commit ? commit : args->leader_commit;
        emit_now(d, idle->message.server_id, &(struct message_out){.raft = &idle->message});
    }
}

void driver_send_idle_appends(struct driver *d)
{
    for (size_t i = 0; i < ARRAY_COUNT(d->idle_appends); i++) {
        struct idle_append *idle = &d->idle_appends[i];
        if (idle->due_ms != 0 && d->now_ms >= idle->due_ms) {
            idle_append_send(d, idle);
        }
    }
}

uint64_t driver_idle_append_due_ms(const struct driver *d)
{
    uint64_t due_ms = UINT64_MAX;
    for (size_t i = 0; i < ARRAY_COUNT(d->idle_appends); i++) {
        uint64_t at = d->idle_appends[i].due_ms;
        due_ms = at != 0 && at < due_ms ? at : due_ms;
    }
    return due_ms;
}

static struct idle_append *idle_append_find(struct driver *d, uint64_t to_id)
{
    for (size_t i = 0; i < ARRAY_COUNT(d->idle_appends); i++) {
        struct idle_append *idle = &d->idle_appends[i];
        if (idle->due_ms != 0 && idle->message.server_id == to_id) {
            return idle;
        }
    }
    return NULL;
}

static void idle_append_wait(struct driver *d, const struct raft_message *message)
{
    struct idle_append *idle = idle_append_find(d, message->server_id);
    uint64_t due_ms = idle != NULL ? idle->due_ms : d->now_ms + DRIVER_IDLE_APPEND_MS;
    for (size_t i = 0; idle == NULL && i < ARRAY_COUNT(d->idle_appends); i++) {
        idle = d->idle_appends[i].due_ms == 0 ? &d->idle_appends[i] : NULL;
    }
    if (idle == NULL) {
        emit_now(d, message->server_id, &(struct message_out){.raft = message});
        return;
    }
    idle->due_ms = due_ms;
    idle->message = *message;
}

/* Everything leaves through here. */
static void emit(struct driver *d, uint64_t to_id, const struct message_out *m)
{
    struct idle_append *idle = idle_append_find(d, to_id);
    if (idle != NULL) {
        if (m->raft != NULL && m->raft->type == RAFT_APPEND_ENTRIES) {
            idle->due_ms = 0; /* overtaken: m knows a commit index at least as new */
        } else {
            idle_append_send(d, idle);
        }
    }
    emit_now(d, to_id, m);
}

/* N13: what may still go to a peer the core counts as next − match. A peer that lost its disk makes
 * next fall below match, which never falls; the difference wraps, and the core sends that peer
 * heartbeats without entries for as long as it leads. So these carry what the peer lacks, one
 * message at a time; once next is above match again the core goes on by itself. */
static unsigned entries_below_match(const struct driver *d, const struct raft_message *message)
{
    const struct raft_append_entries *args = &message->append_entries;
    uint64_t prev = args->prev_log_index;
    if (args->n_entries > 0 || prev >= driver_match_index(d, message->server_id) ||
        log_cache_get(&d->cache, prev + 1) == NULL || !driver_guarded(d, DRIVER_GUARD_REFILL)) {
        return args->n_entries;
    }
    unsigned count = 0;
    size_t size = 0;
    while (prev + count < d->cache.last && count < MESSAGE_ENTRIES_MAX) {
        size += record_size(log_cache_get(&d->cache, prev + count + 1)->record);
        if (size > DRIVER_APPEND_SIZE_MAX && count > 0) {
            break;
        }
        count++;
    }
    return count;
}

/* The core asks for a run of entries of any size: it goes out in messages of bounded size, which
 * the receiver takes for several AppendEntries in order. */
static void send_append(struct driver *d, const struct raft_message *message)
{
    struct raft_message piece = *message;
    struct raft_append_entries *args = &piece.append_entries;
    size_t left = entries_below_match(d, message);
    if (left == 0) {
        args->entries = NULL;
        idle_append_wait(d, &piece);
        return;
    }
    const struct record_header *records[MESSAGE_ENTRIES_MAX];
    do {
        size_t size = 0;
        unsigned count = 0;
        while (count < left && count < MESSAGE_ENTRIES_MAX && size < DRIVER_APPEND_SIZE_MAX) {
            const struct log_cache_entry *entry =
                log_cache_get(&d->cache, args->prev_log_index + 1 + count);
            CHECK(entry != NULL);
            records[count++] = entry->record;
            size += record_size(entry->record);
        }
        args->n_entries = count;
        args->entries = NULL;
        emit(d, message->server_id, &(struct message_out){.raft = &piece, .records = records});
        left -= count;
        if (count > 0) {
            args->prev_log_index += count;
            args->prev_log_term = records[count - 1]->term;
        }
    } while (left > 0);
}

/* The core names its last snapshot; the ticket is for the newest published checkpoint, whose index
 * may be higher, or for the one that the peer has begun, whose index may be lower: the core learns by the
 * rejection that follows (N12) where the peer goes on. The core leaves conf and data of this message uninitialized. */
static void send_install(struct driver *d, const struct raft_message *message)
{
    static struct replica_ticket ticket; /* large; one thread, filled and used within this call */
    const struct replica_ticket *begun = driver_ticket_begun(d, message->server_id);
    memset(&ticket, 0, sizeof ticket);
    if (begun != NULL) {
        ticket = *begun;
    }
    if (d->effects->make_ticket(d->ctx, &ticket) != 0 ||
        (ticket.position.index < message->install_snapshot.last_index &&
         driver_ticket_begun(d, message->server_id) == NULL)) {
        return; /* no published checkpoint yet: the core asks again after the next heartbeat */
    }
    CHECK(ticket.size <= sizeof ticket.data);
    struct raft_message install = *message;
    install.install_snapshot.last_index = ticket.position.index;
    install.install_snapshot.last_term = ticket.position.term;
    install.install_snapshot.conf_index = ticket.position.configuration_index;
    memset(&install.install_snapshot.conf, 0, sizeof install.install_snapshot.conf);
    memset(&install.install_snapshot.data, 0, sizeof install.install_snapshot.data);
    install_tickets_give(&d->tickets, message->server_id, &ticket,
                         message->install_snapshot.last_index, d->now_ms);
    emit(d, message->server_id,
         &(struct message_out){.raft = &install,
                               .configuration = ticket.position.configuration,
                               .configuration_size = ticket.position.configuration_size,
                               .data = ticket.data,
                               .data_size = ticket.size});
}

void driver_send_core(struct driver *d, const struct raft_message *message)
{
    struct raft_message copy;
    switch (message->type) {
    case RAFT_APPEND_ENTRIES:
        send_append(d, message);
        return;
    case RAFT_INSTALL_SNAPSHOT:
        send_install(d, message);
        return;
    case RAFT_APPEND_ENTRIES_RESULT:
        copy = *message;
        if (d->receiving_stale && driver_guarded(d, DRIVER_GUARD_STALE_RESULT)) {
            /* N3 (guard 2): the core answers a message of an old term without setting rejected (for
             * InstallSnapshot and prev = 0) and with a last_log_index that is left-over stack: a
             * false match that can lose an acknowledged write. The answer must still go, so that
             * the old leader learns of the term. */
            copy.append_entries_result.rejected = 1;
            copy.append_entries_result.last_log_index = 0;
        }
        emit(d, message->server_id, &(struct message_out){.raft = &copy});
        return;
    case RAFT_REQUEST_VOTE_RESULT:
        copy = *message;
        if (copy.request_vote_result.pre_vote && !copy.request_vote_result.vote_granted &&
            copy.request_vote_result.term < d->core.current_term &&
            driver_guarded(d, DRIVER_GUARD_PRE_VOTE_TERM)) {
            /* N14: the core refuses a pre-vote of an older term in that very term. Then a candidate of
             * t2 with all that is committed never learns of t4, and the only other voter, who is in t4
             * and lacks some of it, never gets his vote either: nobody leads for ever. */
            copy.request_vote_result.term = d->core.current_term;
        }
        emit(d, message->server_id, &(struct message_out){.raft = &copy});
        return;
    case RAFT_REQUEST_VOTE:
    case RAFT_TIMEOUT_NOW:
        emit(d, message->server_id, &(struct message_out){.raft = message});
        return;
    default:
        CHECK_UNREACHABLE();
    }
}

void driver_send_refill(struct driver *d, uint64_t to_id, enum message_kind kind, uint64_t term,
                        uint64_t nonce, uint64_t index)
{
    emit(d, to_id, &(struct message_out){.kind = kind, .term = term, .seq = nonce, .index = index});
}

void driver_send_read(struct driver *d, uint64_t to_id, enum message_kind kind, uint64_t term,
                      uint64_t seq)
{
    emit(d, to_id, &(struct message_out){.kind = kind, .term = term, .seq = seq});
}

void driver_send_note(struct driver *d, uint64_t to_id, enum message_kind kind, uint64_t seq,
                      uint64_t index)
{
    emit(d, to_id,
         &(struct message_out){
             .kind = kind, .term = d->core.current_term, .seq = seq, .index = index});
}
