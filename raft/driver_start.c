/* driver_start: joining log and checkpoint, and bringing the core up. See driver.h.
 *
 * Happy path: driver_restore (recovered entries) → driver_start: the restart rule of
 * join_checkpoint, bootstrap of a new log, then the core is given term, vote, snapshot and entries
 * in one event.
 *
 * Failure modes: log and checkpoint that cannot belong together are refused with what to do about
 * it; nothing is guessed. */
#include <stdlib.h>
#include <string.h>

#include "base/advice.h"
#include "base/check.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "raft/driver_internal.h"

#define RESTORE_BATCH_SIZE (1u << 20) /* recovered entries share memory in pieces of this size */

void driver_core_init(struct driver *d)
{
    memset(&d->core, 0, sizeof d->core);
    int rv = raft_init(&d->core, NULL, NULL, d->config.id, d->config.address);
    if (rv != 0) {
        driver_die("initialization", rv);
    }
    d->core.tracer = NULL; /* it would write to stderr when LIBRAFT_TRACE is set */
    raft_seed(&d->core, d->config.seed);
    raft_set_election_timeout(&d->core, (unsigned)d->config.election_timeout_ms);
    /* N4: the core calls a healthy but idle peer unreachable when its heartbeats are further apart
     * than its checks. So heartbeats are due at every tick, and the tick is ours. */
    raft_set_heartbeat_timeout(&d->core, 1);
    raft_set_pre_vote(&d->core, true);
    raft_set_max_inflight_entries(&d->core, d->config.entries_in_flight_max);
    raft_set_install_snapshot_timeout(&d->core, DRIVER_INSTALL_TIMEOUT_MS);
    /* N8: with a threshold a new leader may be refused its no-op. */
    raft_set_capacity_threshold(&d->core, 0);
    d->core_open = true;
}

void driver_core_close(struct driver *d)
{
    if (d->core_open) {
        raft_close(&d->core, NULL);
        d->core_open = false;
    }
}

void driver_restore(struct driver *d, uint64_t base_index,
                    const struct record_header *const *records, size_t count)
{
    CHECK(!d->started);
    if (d->cache.last == 0 && d->cache.base == 0) {
        log_cache_reset(&d->cache, base_index);
    }
    size_t at = 0;
    while (at < count) {
        size_t size = 0;
        size_t end = at;
        while (end < count && (end == at || size < RESTORE_BATCH_SIZE)) {
            size += record_size(records[end]);
            end++;
        }
        struct batch *b = batch_create(size);
        uint8_t *to = (uint8_t *)batch_first(b);
        for (; at < end; at++) {
            memcpy(to, records[at], record_size(records[at]));
            log_cache_append(&d->cache, (const struct record_header *)(void *)to, b, 0);
            to += record_size(records[at]);
        }
    }
}

/* Moves into the core: it closes the configuration. */
void driver_metadata_from_position(const struct replica_position *position,
                                   struct raft_snapshot_metadata *metadata)
{
    struct raft_buffer buffer = {.base = (void *)(uintptr_t)position->configuration,
                                 .len = position->configuration_size};
    metadata->index = position->index;
    metadata->term = position->term;
    metadata->configuration_index = position->configuration_index;
    int rv = raft_configuration_decode(&buffer, &metadata->configuration);
    if (rv != 0) {
        driver_die("decoding a configuration", rv);
    }
}

bool driver_position_is_valid(const struct replica_position *p)
{
    struct membership m;
    return p->index > 0 && p->term > 0 && p->configuration_index > 0 &&
           p->configuration_index <= p->index &&
           p->configuration_size <= REPLICA_CONFIGURATION_SIZE_MAX &&
           membership_decode(p->configuration, p->configuration_size, &m) == 0;
}

/* What the core would trip over, since its asserts are compiled out. */
static bool log_is_sane(const struct driver *d, uint64_t term)
{
    uint64_t last_term = 0;
    for (uint64_t i = d->cache.base + 1; i <= d->cache.last; i++) {
        const struct record_header *record = log_cache_get(&d->cache, i)->record;
        struct membership m;
        if (record->term < last_term || record->term > term) {
            log_error("raft: the log's entry %llu has term %llu, which cannot follow term %llu. " ADVICE_REBUILD,
                      (unsigned long long)i, (unsigned long long)record->term,
                      (unsigned long long)(record->term > term ? term : last_term));
            return false;
        }
        last_term = record->term;
        if (record->type == RECORD_CHANGE &&
            membership_decode(record_data(record), record->size, &m) != 0) {
            log_error("raft: the log's entry %llu is no valid configuration. " ADVICE_REBUILD,
                      (unsigned long long)i);
            return false;
        }
    }
    return true;
}

/* The restart rule: the log is kept iff it holds the checkpoint's last entry. After an install
 * whose reset of the log was lost in a crash it does not; then everything in it is older than the
 * checkpoint or was never promised to anybody (while installing no entry is acknowledged). */
static int join_checkpoint(struct driver *d, const struct replica_position *p)
{
    uint64_t base = d->cache.base;
    bool held = log_cache_term(&d->cache, p->index) == p->term;
    bool follows =
        base == p->index; /* trimmed right behind the checkpoint, or reset by an install */
    if (held || follows) {
        return 0;
    }
    if (base > p->index) {
        log_error("raft: the log begins at %llu, but the checkpoint ends at %llu: entries between "
                  "them are missing. " ADVICE_REBUILD,
                  (unsigned long long)(base + 1), (unsigned long long)p->index);
        return -1;
    }
    log_info("raft: the log does not hold the checkpoint's last entry %llu (term %llu); it is "
             "dropped and goes on behind the checkpoint",
             (unsigned long long)p->index, (unsigned long long)p->term);
    log_cache_reset(&d->cache, p->index);
    (void)d->effects->write_reset(d->ctx, p->index, p->term);
    return 0;
}

void driver_write_vote(struct driver *d, uint64_t term, uint64_t vote)
{
    d->term = term;
    d->vote = vote;
    FAILPOINT("raft/before-vote", "a term or vote is decided, not yet with the log's thread");
    d->hold_ticket = d->effects->write_vote(d->ctx, term, vote);
}

/* The first entry of a new cluster: the same on every member of the list. */
static void bootstrap_log(struct driver *d, const struct membership *m)
{
    uint8_t bytes[REPLICA_CONFIGURATION_SIZE_MAX];
    int size = membership_encode(m, bytes);
    CHECK(size > 0);
    struct batch *b = batch_create(record_span((uint32_t)size));
    struct record_header *record = batch_first(b);
    record_encode(record, RECORD_CHANGE, 1, 1, bytes, (uint32_t)size);
    driver_write_vote(d, 1, 0);
    const struct record_header *records[] = {record};
    uint64_t ticket = d->effects->write_entries(d->ctx, records, 1);
    log_cache_append(&d->cache, record, b, ticket);
    /* The core counts the entry as stored from the start, so nothing may leave before it is. */
    d->hold_ticket = ticket;
    d->settle_ticket = ticket;
}

/* The newest configuration of log and checkpoint. */
static bool newest_membership(const struct driver *d, struct membership *m)
{
    for (uint64_t i = d->cache.last; i > d->cache.base && i > d->snapshot.configuration_index;
         i--) {
        const struct record_header *record = log_cache_get(&d->cache, i)->record;
        if (record->type == RECORD_CHANGE) {
            return membership_decode(record_data(record), record->size, m) == 0;
        }
    }
    return d->snapshot.index > 0 &&
           membership_decode(d->snapshot.configuration, d->snapshot.configuration_size, m) == 0;
}

static enum raft_entry_type entry_type(const struct record_header *record)
{
    switch (record->type) {
    case RECORD_COMMAND:
        return RAFT_COMMAND;
    case RECORD_NOOP:
        return RAFT_BARRIER;
    case RECORD_CHANGE:
        return RAFT_CHANGE;
    default:
        CHECK_UNREACHABLE();
    }
}

/* Gives the core the snapshot and the entries of the cache. */
void driver_core_start(struct driver *d)
{
    size_t count = (size_t)(d->cache.last - d->cache.base);
    struct raft_entry *entries = NULL;
    if (count > 0) {
        entries = raft_calloc(count, sizeof *entries);
        CHECK(entries != NULL);
        for (size_t i = 0; i < count; i++) {
            const struct log_cache_entry *from = log_cache_get(&d->cache, d->cache.base + 1 + i);
            entries[i] = (struct raft_entry){
                .term = from->record->term,
                .type = entry_type(from->record),
                .buf = {.base = (void *)(uintptr_t)record_data(from->record),
                        .len = record_padded(from->record->size)},
                .batch = from->batch,
            };
        }
    }
    struct raft_snapshot_metadata metadata;
    struct raft_event event = {.type = RAFT_START};
    event.start.term = d->term;
    event.start.voted_for = d->vote;
    event.start.start_index = d->cache.base + 1;
    event.start.entries = entries;
    event.start.n_entries = (unsigned)count;
    if (d->snapshot.index > 0) {
        driver_metadata_from_position(&d->snapshot, &metadata);
        event.start.metadata = &metadata;
    }
    d->core_commit = d->snapshot.index;
    d->core_applied = d->snapshot.index;
    driver_step_or_die(d, &event, "start");
    raft_free(entries); /* on success the entries stay ours; the core kept terms only */
}

void driver_configuration_set(struct driver *d, uint64_t index, const void *bytes, uint32_t size)
{
    CHECK(size <= sizeof d->configuration);
    d->configuration_index = index;
    d->configuration_size = size;
    memcpy(d->configuration, bytes, size);
}

int driver_start(struct driver *d, uint64_t now_ms, uint64_t term, uint64_t vote,
                 const struct replica_position *position, const struct membership *bootstrap)
{
    CHECK(!d->started);
    d->now_ms = now_ms;
    d->tick_ms = now_ms;
    d->term = term;
    d->vote = vote;
    bool fresh = term == 0 && d->cache.last == 0;
    driver_refill_start(d);
    d->unsettled = d->refill.on || (bootstrap != NULL && bootstrap->count > 0);
    if (!log_is_sane(d, term)) {
        return -1;
    }
    if (position != NULL) {
        if (!driver_position_is_valid(position)) {
            log_error("raft: the checkpoint's position is not valid. " ADVICE_REBUILD);
            return -1;
        }
        if (position->term > term) {
            /* Without its term and vote this node could vote twice in one term. */
            log_error("raft: the checkpoint is of term %llu, but the log knows term %llu only: the "
                      "log was lost. " ADVICE_REBUILD,
                      (unsigned long long)position->term, (unsigned long long)term);
            return -1;
        }
        if (join_checkpoint(d, position) != 0) {
            return -1;
        }
        d->snapshot = *position;
        d->applied_index = position->index;
        d->applied_term = position->term;
        driver_configuration_set(d, position->configuration_index, position->configuration,
                                 position->configuration_size);
    } else if (d->cache.base > 0) {
        log_error(
            "raft: the log begins at %llu, but there is no checkpoint: it is missing. " ADVICE_REBUILD,
            (unsigned long long)(d->cache.base + 1));
        return -1;
    } else if (fresh && bootstrap != NULL && bootstrap->count > 0 && !d->refill.on) {
        bootstrap_log(d, bootstrap);
    }
    if (position == NULL && d->cache.last > 0 &&
        log_cache_get(&d->cache, 1)->record->type != RECORD_CHANGE) {
        log_error("raft: the log's first entry is no configuration. " ADVICE_REBUILD);
        return -1;
    }
    struct membership m;
    if (d->refill.on && newest_membership(d, &m) && membership_is_only_voter(&m, d->config.id)) {
        /* The beginning of a log may say so long after others have joined: it was sent to this node by
         * one of them. But the core would elect itself at once, whatever is true. */
        log_error("raft: this node lost its disk, and by what it has of the log it is the only voter: there "
                  "is nobody to refill it from. If others vote by now, 'holdfastctl node rebuild DIR' once "
                  "more lets it begin anew; if not, restore its data directory from a backup");
        return -1;
    }
    if (driver_guarded(d, DRIVER_GUARD_SELF_ELECT) && !fresh && newest_membership(d, &m) &&
        membership_is_only_voter(&m, d->config.id)) {
        /* N10: an only voter makes itself leader of the term that it was started with. It may have
         * led that term before and sent entries to a standby that its own disk then lost:
         *     sends (5, t1) = x to the standby, crashes before x is durable, restarts as leader of
         * t1, writes (5, t1) = y: the standby keeps x, because index and term agree. So it begins a
         * new term at each start. */
        driver_write_vote(d, term + 1, d->config.id);
    }
    d->started = true;
    d->paused = true;
    driver_core_start(d);
    return 0;
}
