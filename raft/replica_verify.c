#include "raft/replica_verify.h"

#include <string.h>

#include "base/advice.h"
#include "base/log.h"
#include "raft/driver.h"
#include "raft/wal_inspect.h"

int replica_check_past(const struct replica_config *config, const struct replica_position *position,
                       const struct wal_recovered *recovered)
{
    bool empty = recovered->term == 0 && recovered->count == 0 && recovered->base_index == 0;
    if (!empty || (position == NULL && config->start != REPLICA_MEMBER)) {
        return 0;
    }
    log_error("raft: %s: the log is missing or empty, but %s: the log was lost, and with it this "
              "node's votes. Start without --new-cluster afterwards. " ADVICE_REBUILD,
              config->directory,
              position != NULL ? "there is a checkpoint" : "this node was a member before");
    return -1;
}

/* ---- effects that go nowhere ---- */

static uint64_t no_vote(void *ctx, uint64_t term, uint64_t vote)
{
    (void)term;
    (void)vote;
    return ++*(uint64_t *)ctx;
}

static uint64_t no_entries(void *ctx, const struct record_header *const *records, size_t count)
{
    (void)records;
    (void)count;
    return ++*(uint64_t *)ctx;
}

static uint64_t no_reset(void *ctx, uint64_t index, uint64_t term)
{
    (void)index;
    (void)term;
    return ++*(uint64_t *)ctx;
}

static void no_trim(void *ctx, uint64_t index)
{
    (void)ctx;
    (void)index;
}

static void no_send(void *ctx, uint64_t to_id, const struct message_out *m)
{
    (void)ctx;
    (void)to_id;
    (void)m;
}

static void no_apply(void *ctx, const struct record_header *record)
{
    (void)ctx;
    (void)record;
}

static void nothing(void *ctx)
{
    (void)ctx;
}

static int no_ticket(void *ctx, struct replica_ticket *ticket)
{
    (void)ctx;
    (void)ticket;
    return -1;
}

static void no_install(void *ctx, const struct replica_ticket *ticket, uint64_t from_id)
{
    (void)ctx;
    (void)ticket;
    (void)from_id;
}

static int verify_joined(const struct replica_config *config,
                         const struct replica_position *position,
                         const struct wal_recovered *recovered)
{
    static const struct driver_effects effects = {.write_vote = no_vote,
                                                  .write_entries = no_entries,
                                                  .write_reset = no_reset,
                                                  .trim = no_trim,
                                                  .send = no_send,
                                                  .apply = no_apply,
                                                  .state_changed = nothing,
                                                  .membership_changed = nothing,
                                                  .settled = nothing,
                                                  .make_ticket = no_ticket,
                                                  .install = no_install};
    uint64_t tickets = 0;
    struct membership none = {.count = 0};
    struct driver_config driver_config = {.id = config->id,
                                          .address = "127.0.0.1:1",
                                          .seed = 1,
                                          .election_timeout_ms = 500,
                                          .entries_in_flight_max = REPLICA_IN_FLIGHT_MAX,
                                          .trailing_entries = REPLICA_IN_FLIGHT_MAX,
                                          .refilling = config->start == REPLICA_REFILL};
    struct driver *d = driver_create(&driver_config, &effects, &tickets);
    driver_restore(d, recovered->base_index, recovered->entries, recovered->count);
    int rv = driver_start(d, 1, recovered->term, recovered->vote, position, &none);
    driver_destroy(d);
    return rv;
}

int replica_verify(const struct replica_config *config, const struct replica_position *position,
                   struct replica_verdict *verdict)
{
    char error[WAL_ERROR_SIZE];
    struct wal_recovered recovered;
    *verdict = (struct replica_verdict){0};
    if (wal_inspect_recover(config->directory, config->identity.cluster_id, config->id, &recovered,
                            error) != 0) {
        log_error("log: %s/%s", config->directory, error);
        return -1;
    }
    verdict->term = recovered.term;
    verdict->vote = recovered.vote;
    verdict->base_index = recovered.base_index;
    verdict->last_index = recovered.base_index + recovered.count;
    verdict->last_term =
        recovered.count > 0 ? recovered.entries[recovered.count - 1]->term : recovered.base_term;
    verdict->torn_bytes = recovered.torn_bytes;
    int rv = replica_check_past(config, position, &recovered);
    bool empty = recovered.fresh && position == NULL; /* of a node that is new or refills: nothing to join */
    if (rv == 0 && !empty) {
        rv = verify_joined(config, position, &recovered);
    }
    wal_recovered_close(&recovered);
    return rv;
}
