/* sim_check: what must hold at every moment of every run.
 *
 *   1. One history: every node, in every life, applies the same entry at the same index, and the
 *      machine's digest after it is the same.
 *   2. An acknowledged entry is in the history, and durable on a majority when it is acknowledged.
 *   3. One leader a term, and he has every committed entry.
 *   4. A vote leaves only when it is durable; nobody votes twice in one term, over restarts too.
 *   5. "I have stored up to k" leaves only when k, that very entry, is durable.
 *   6. A read reflects every write acknowledged before it was asked (sim_clients.c).
 *   7. A restart recovers exactly what was durable (sim_log.c); the commit index never goes back
 *      (driver.c aborts); an accepted request gets one answer, never "failed" (sim_clients.c).
 *   8. The cluster's time moves with the truth (sim_clock.c).
 *   9. A leader whose log's disk is stuck leads no longer than SIM_HAND_OVER_US, if nothing else is wrong.
 *  10. What the database holds (sim_database.c).
 *  11. After healing, everybody converges and new commands are committed. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "raft/driver_internal.h"
#include "tests/sim/sim_database.h"
#include "tests/sim/sim_trace.h"

const char *sim_violated_check = "";

_Noreturn void sim_violation_of(const struct sim *s, const char *check, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    sim_trace_violation(s, text);
    printf("VIOLATION at %.6f s: %s: %s\n", (double)s->now_us / 1e6, check, text);
    fflush(stdout);
    sim_violated_check = check;
    abort(); /* the handler in sim_main.c prints how to replay it */
}

/* ---- 1: one history ---- */

static struct sim_history_entry *history_entry(struct sim *s, uint64_t index)
{
    struct sim_history *h = &s->history;
    if (index > h->capacity) {
        size_t capacity = h->capacity == 0 ? 4096 : h->capacity;
        while (capacity < index) {
            capacity *= 2;
        }
        h->entries = realloc(h->entries, capacity * sizeof *h->entries);
        CHECK(h->entries != NULL);
        memset(h->entries + h->capacity, 0, (capacity - h->capacity) * sizeof *h->entries);
        h->capacity = capacity;
    }
    return &h->entries[index - 1];
}

void sim_check_applied(struct sim_node *n, const struct record_header *record)
{
    struct sim *s = n->sim;
    struct sim_history_entry *e = history_entry(s, record->index);
    if (!e->known) {
        e->known = true;
        e->term = record->term;
        e->crc32c = record->crc32c;
        e->type = record->type;
        s->stats.commits++;
        if (record->index > s->history.last) {
            s->history.last = record->index;
        }
        return;
    }
    if (e->term != record->term || e->crc32c != record->crc32c || e->type != record->type) {
        sim_violation(s, "node %u applies another entry at %llu: term %llu type %u, was term %llu "
                         "type %u",
                      n->index + 1, (unsigned long long)record->index,
                      (unsigned long long)record->term, record->type,
                      (unsigned long long)e->term, e->type);
    }
}

void sim_check_digest(struct sim_node *n, uint64_t index, uint64_t digest)
{
    struct sim *s = n->sim;
    struct sim_history_entry *e = history_entry(s, index);
    if (!e->has_digest) {
        e->has_digest = true;
        e->digest = digest;
    } else if (e->digest != digest) {
        sim_violation(s, "node %u has another digest at %llu", n->index + 1,
                      (unsigned long long)index);
    }
}

void sim_check_answers(struct sim_node *n, uint64_t index, uint64_t answers)
{
    struct sim_history_entry *e = history_entry(n->sim, index);
    if (!e->has_answers) {
        e->has_answers = true;
        e->answers = answers;
    } else if (e->answers != answers) {
        sim_violation(n->sim, "node %u answers %llu differently", n->index + 1,
                      (unsigned long long)index);
    }
}

/* ---- 2: acknowledged ⊆ committed, and durable ---- */

static bool is_durable_at(const struct sim_node *n, uint64_t index, uint64_t term)
{
    return n->kept[0].position.index >= index ||
           sim_log_model_term(&n->durable, index) == term;
}

void sim_check_acknowledged(struct sim *s, uint64_t index, uint64_t term, uint32_t crc)
{
    const struct sim_history_entry *e = history_entry(s, index);
    if (!e->known || e->term != term || e->crc32c != crc) {
        sim_violation(s, "acknowledged %llu, but another entry is committed there",
                      (unsigned long long)index);
    }
    unsigned stored = 0;
    for (unsigned i = 0; i < s->swarm.voters; i++) {
        /* A lost disk may have held it: the leader's count is from before. Such a node gives no vote
         * until it holds it again. */
        stored += s->nodes[i].refilling || is_durable_at(&s->nodes[i], index, term);
    }
    /* With changing membership the majority is another set; the history still judges. */
    if (!s->swarm.membership && stored <= s->swarm.voters / 2) {
        sim_violation(s, "acknowledged %llu, but it is durable on %u of %u voters only",
                      (unsigned long long)index, stored, s->swarm.voters);
    }
    if (index > s->history.acknowledged_max) {
        s->history.acknowledged_max = index;
    }
}

/* ---- 3: leaders ---- */

void sim_check_state(struct sim_node *n, const struct driver_state *state)
{
    struct sim *s = n->sim;
    struct sim_history *h = &s->history;
    bool leader = state->role == REPLICA_LEADER;
    if (!leader || n->was_leader) {
        n->was_leader = leader;
        return;
    }
    n->was_leader = true;
    s->stats.elections++;
    if (state->term >= h->leaders_capacity) {
        size_t capacity = h->leaders_capacity == 0 ? 1024 : h->leaders_capacity;
        while (capacity <= state->term) {
            capacity *= 2;
        }
        h->leaders = realloc(h->leaders, capacity * sizeof *h->leaders);
        CHECK(h->leaders != NULL);
        memset(h->leaders + h->leaders_capacity, 0,
               (capacity - h->leaders_capacity) * sizeof *h->leaders);
        h->leaders_capacity = capacity;
    }
    if (h->leaders[state->term] != 0 && h->leaders[state->term] != n->id) {
        sim_violation(s, "nodes %llu and %u both lead term %llu",
                      (unsigned long long)h->leaders[state->term], n->index + 1,
                      (unsigned long long)state->term);
    }
    h->leaders[state->term] = n->id;
    for (uint64_t i = n->driver->cache.base + 1; i <= h->last; i++) {
        const struct log_cache_entry *entry = log_cache_get(&n->driver->cache, i);
        const struct sim_history_entry *e = history_entry(s, i);
        if (e->known && (entry == NULL || entry->record->crc32c != e->crc32c)) {
            sim_violation(s, "node %u leads term %llu without the committed entry %llu",
                          n->index + 1, (unsigned long long)state->term, (unsigned long long)i);
        }
    }
}

/* ---- 4, 5: what may leave ---- */

static void check_vote(struct sim_node *n, uint64_t term, uint64_t vote)
{
    struct sim *s = n->sim;
    /* A higher durable term is as good: a restarted node will not vote in this one again. */
    if (n->durable.term < term || (n->durable.term == term && n->durable.vote != vote)) {
        sim_violation(s, "node %u sends a vote for %llu in term %llu, but %llu in %llu is durable",
                      n->index + 1, (unsigned long long)vote, (unsigned long long)term,
                      (unsigned long long)n->durable.vote, (unsigned long long)n->durable.term);
    }
    if (term < n->voted_term || (term == n->voted_term && vote != n->voted_for)) {
        sim_violation(s, "node %u votes for %llu in term %llu after voting for %llu in term %llu",
                      n->index + 1, (unsigned long long)vote, (unsigned long long)term,
                      (unsigned long long)n->voted_for, (unsigned long long)n->voted_term);
    }
    n->voted_term = term;
    n->voted_for = vote;
}

static void check_stored(struct sim_node *n, uint64_t index)
{
    struct sim *s = n->sim;
    const struct log_cache_entry *entry = log_cache_get(&n->driver->cache, index);
    if (index == 0 || n->kept[0].position.index >= index) {
        return;
    }
    if (entry == NULL || sim_log_model_crc32c(&n->durable, index) != entry->record->crc32c) {
        sim_violation(s, "node %u says that %llu is stored, but that entry is not durable",
                      n->index + 1, (unsigned long long)index);
    }
}

void sim_check_send(struct sim_node *n, uint64_t to_id, const struct message_out *m)
{
    if (m->raft == NULL) {
        return;
    }
    switch (m->raft->type) {
    case RAFT_REQUEST_VOTE:
        if (!m->raft->request_vote.pre_vote) {
            check_vote(n, m->raft->request_vote.term, n->id);
            check_stored(n, m->raft->request_vote.last_log_index);
        }
        break;
    case RAFT_REQUEST_VOTE_RESULT:
        if (m->raft->request_vote_result.vote_granted && !m->raft->request_vote_result.pre_vote) {
            check_vote(n, m->raft->request_vote_result.term, to_id);
        }
        break;
    case RAFT_APPEND_ENTRIES_RESULT:
        if (m->raft->append_entries_result.rejected == 0) {
            check_stored(n, m->raft->append_entries_result.last_log_index);
        }
        if (m->raft->append_entries_result.term > n->durable.term) {
            sim_violation(n->sim, "node %u answers in term %llu, but %llu is durable", n->index + 1,
                          (unsigned long long)m->raft->append_entries_result.term,
                          (unsigned long long)n->durable.term);
        }
        break;
    case RAFT_APPEND_ENTRIES:
    case RAFT_INSTALL_SNAPSHOT:
    case RAFT_TIMEOUT_NOW:
        break;
    }
}

/* ---- 9: a stuck disk ---- */

/* With other faults there may be nobody to hand over to. */
void sim_check_silent(const struct sim_node *n, bool leads)
{
    const struct sim *s = n->sim;
    bool alone = s->swarm.faults == 1ull << SIM_FAULT_STUCK_DISK && s->swarm.voters > 2;
    if (alone && leads && n->stuck_until_us > s->now_us &&
        s->now_us - n->stuck_since_us > SIM_HAND_OVER_US) {
        sim_violation(s, "node %u leads for %llu ms on a disk that does not answer", n->index + 1,
                      (unsigned long long)((s->now_us - n->stuck_since_us) / 1000));
    }
}

/* ---- 11: convergence ---- */

bool sim_is_converged(struct sim *s)
{
    struct sim_node *leader = sim_leader(s);
    if (leader == NULL || s->now_us < s->healed_at_us + SIM_CLIENTS_STOP_US + 200000 ||
        s->history.last <= s->healed_at_index) {
        return false;
    }
    struct driver_stats stats;
    driver_get_stats(leader->driver, &stats);
    struct membership m;
    driver_get_membership(leader->driver, &m);
    for (size_t i = 0; i < m.count; i++) {
        const struct sim_node *n = &s->nodes[m.members[i].id - 1];
        if (m.members[i].role == REPLICA_SPARE) {
            continue; /* nothing is sent to it */
        }
        if (!n->up || n->applied != stats.last_index || driver_installing(n->driver) ||
            driver_refilling(n->driver)) {
            return false;
        }
    }
    return s->pending == NULL && sim_clock_at_rest(leader) && sim_database_drained(s);
}

void sim_check_converged(struct sim *s)
{
    if (sim_is_converged(s)) {
        sim_database_check(s);
        return;
    }
    for (unsigned i = 0; i < s->swarm.nodes; i++) {
        const struct sim_node *n = &s->nodes[i];
        if (!n->up) {
            printf("node %u: down\n", i + 1);
            continue;
        }
        struct driver_state state = driver_get_state(n->driver);
        struct driver_stats stats;
        struct membership m;
        driver_get_stats(n->driver, &stats);
        driver_get_membership(n->driver, &m);
        printf("node %u: role %d ready %d term %llu leader %llu entries %llu..%llu stored %llu "
               "commit %llu applied %llu installing %d refilling %d in flight %llu reads %llu; members",
               i + 1, (int)state.role, state.ready, (unsigned long long)state.term,
               (unsigned long long)state.leader_id, (unsigned long long)stats.first_index,
               (unsigned long long)stats.last_index, (unsigned long long)stats.stored_index,
               (unsigned long long)stats.commit_index, (unsigned long long)stats.applied_index,
               driver_installing(n->driver), driver_refilling(n->driver), (unsigned long long)stats.in_flight,
               (unsigned long long)stats.reads_waiting);
        for (size_t k = 0; k < m.count; k++) {
            printf(" %llu:%d", (unsigned long long)m.members[k].id, (int)m.members[k].role);
        }
        printf("; connected");
        for (unsigned k = 0; k < s->swarm.nodes; k++) {
            if (sim_network_connected(s, i, k)) {
                printf(" %u%s", k + 1, s->told[i][k] ? "" : " (untold)");
            }
        }
        printf("\n");
    }
    sim_violation(s, "no convergence within %llu s after everything healed (%llu entries, %llu at "
                     "healing)",
                  SIM_CONVERGENCE_US / 1000000, (unsigned long long)s->history.last,
                  (unsigned long long)s->healed_at_index);
}
