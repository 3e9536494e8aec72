/* log_seed: the first write of a log that does not begin at its beginning.
 *
 * A restored node starts from a checkpoint whose position no log on this machine holds. Its log
 * must say where it goes on, and which term the node is in: without that it would be taken for one
 * that was lost (and it would be right: docs/adr/0010). Offline: no node runs on the directory. */
#ifndef RAFT_LOG_SEED_H
#define RAFT_LOG_SEED_H

#include <stdint.h>

#include "raft/replica.h"

/* The size of its only segment; what comes later is of the node's own --segment-size. */
#define LOG_SEED_SEGMENT_SIZE (4ull << 20)

/* Makes the directory with a log that is empty, goes on at index + 1 behind an entry of `term`, and
 * is in that term without a vote. Durable on return. Returns 0, or -1 after logging: then the
 * directory is to be removed. */
int log_seed(const char *directory, uint64_t node_id,
             const uint8_t cluster_id[static LINK_CLUSTER_ID_SIZE], uint64_t index, uint64_t term);

/* Fills position (its configuration, too) for a new cluster of these voters at index and term.
 * Returns 0, or -1: ids and addresses must be unique and not empty, 1 to REPLICA_MEMBERS_MAX. */
int log_seed_position(const struct replica_member *members, size_t count, uint64_t index,
                      uint64_t term, struct replica_position *position);

#endif
