/* replica_verify: would a start accept this log, and this checkpoint with it? The same functions as a
 * start's (recovery, what a lost log looks like, the driver's joining of log and checkpoint), over a log that
 * is only read and a driver whose effects go nowhere. */
#ifndef RAFT_REPLICA_VERIFY_H
#define RAFT_REPLICA_VERIFY_H

#include "raft/replica.h"
#include "raft/wal_core.h"

struct replica_verdict {
    uint64_t term, vote, base_index, last_index, last_term, torn_bytes;
};

/* config: id, directory, identity.cluster_id and start count. 0, or -1 after logging what a start would say.
 * Blocks; no node may use the directory. */
int replica_verify(const struct replica_config *config, const struct replica_position *position,
                   struct replica_verdict *verdict);

/* A log that is missing or empty has lost term and vote, and perhaps acknowledged entries: -1 after
 * logging. */
int replica_check_past(const struct replica_config *config, const struct replica_position *position,
                       const struct wal_recovered *recovered);

#endif
