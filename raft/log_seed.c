/* See log_seed.h. One segment, one write: reset, then term and vote. */
#include "raft/log_seed.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "raft/membership.h"
#include "raft/wal_core.h"

int log_seed_position(const struct replica_member *members, size_t count, uint64_t index,
                      uint64_t term, struct replica_position *position)
{
    struct membership m = {.count = count};
    if (count == 0 || count > REPLICA_MEMBERS_MAX) {
        return -1;
    }
    memcpy(m.members, members, count * sizeof m.members[0]);
    memset(position, 0, sizeof *position);
    int size = membership_encode(&m, position->configuration);
    if (size < 0) {
        return -1;
    }
    position->index = index;
    position->term = term;
    position->configuration_index = index;
    position->configuration_size = (uint32_t)size;
    return 0;
}

static int write_first(struct wal_core *core, uint64_t index, uint64_t term)
{
    struct wal_block block;
    struct wal_write write;
    struct {
        struct record_header header;
        uint64_t data;
    } record;
    _Static_assert(sizeof record == RECORD_VOTE_SPAN, "a vote's record");
    void *memory = aligned_alloc(WAL_BLOCK_SIZE, WAL_BLOCK_SIZE);
    CHECK(memory != NULL);
    memset(memory, 0, WAL_BLOCK_SIZE);
    CHECK(record_encode_vote(&record, term, 0) == sizeof record);
    wal_block_init(&block, memory, WAL_BLOCK_SIZE);
    wal_block_add_reset(&block, index, term);
    CHECK(wal_block_add(&block, &record.header));
    int result = wal_core_seal(core, &block, &write);
    if (result == 0) {
        result = wal_core_write(core, &write);
    }
    free(memory);
    return result;
}

int log_seed(const char *directory, uint64_t node_id,
             const uint8_t cluster_id[static LINK_CLUSTER_ID_SIZE], uint64_t index, uint64_t term)
{
    struct wal_io *io = wal_io_posix_create(directory, true);
    if (io == NULL) {
        return -1;
    }
    struct wal_core_config config = {.node_id = node_id, .segment_size = LOG_SEED_SEGMENT_SIZE};
    struct wal_core core;
    struct wal_recovered recovered;
    memset(&core, 0, sizeof core);
    memcpy(config.cluster_id, cluster_id, sizeof config.cluster_id);
    int result = wal_core_open(&core, &config, io, &recovered);
    if (result == 0) {
        if (!recovered.fresh) {
            log_error("%s: there is a log already", directory);
            result = -1;
        } else {
            result = write_first(&core, index, term);
            if (result < 0) {
                log_error("%s", core.error);
            }
        }
        wal_recovered_close(&recovered);
        wal_core_close(&core);
    } else {
        log_error("%s", core.error);
    }
    wal_io_posix_destroy(io);
    return result;
}
