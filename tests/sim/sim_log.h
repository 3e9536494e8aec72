/* sim_log: the write-ahead log of a simulated node: wal.h's promises in virtual time, on the real
 * segments, blocks and recovery of wal_core.
 *
 * What it owns: the queue of blocks (group commit), tickets, and a model of what must be durable, by
 * which every recovery is judged: it must find exactly what completed writes say, or that and the one
 * write that was under way at the crash, whole. */
#ifndef TESTS_SIM_SIM_LOG_H
#define TESTS_SIM_SIM_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raft/record.h"
#include "raft/wal_core.h"
#include "tests/sim/sim_disk.h"

struct sim_log_op;

/* What a log holds, as plain data. Survives crashes; the simulator keeps one a node. */
struct sim_log_model {
    uint64_t term, vote;
    uint64_t base; /* entries base + 1 ... base + count; after a reset nothing before it exists */
    size_t count, capacity;
    struct {
        uint64_t term;
        uint32_t crc32c;
    } *entries;
    struct sim_log_op *pending; /* of the write that was under way at the last crash */
    size_t pending_count;
};

struct sim_log;

/* Opens the log on the disk and checks what it recovered against the model (and against the write that
 * was under way when it crashed). Returns NULL, with a reason in error, when the disk died or the log
 * refused to start; *broken is set when recovery was wrong or refused on a live disk: a bug. */
struct sim_log *sim_log_open(struct sim_disk *disk, uint64_t node_id, uint64_t segment_size,
                             struct sim_log_model *model, struct wal_recovered *recovered,
                             bool *broken, char *error, size_t error_size);
/* The process is gone: a write under way reaches the disk in part. */
void sim_log_crash(struct sim_log *l);
void sim_log_close(struct sim_log *l);

uint64_t sim_log_append(struct sim_log *l, const struct record_header *const *records, size_t count);
uint64_t sim_log_set_vote(struct sim_log *l, uint64_t term, uint64_t vote);
uint64_t sim_log_reset(struct sim_log *l, uint64_t index, uint64_t term);
void sim_log_trim(struct sim_log *l, uint64_t index);

/* Begins the next write. 1: under way; 0: nothing to do; -1: the disk died. */
int sim_log_begin(struct sim_log *l);
/* The write under way is on disk. Returns its ticket, or 0: the disk died. */
uint64_t sim_log_finish(struct sim_log *l);

/* The model's term of the entry at index, 0: not durable. */
uint64_t sim_log_model_term(const struct sim_log_model *m, uint64_t index);
/* And its checksum. */
uint32_t sim_log_model_crc32c(const struct sim_log_model *m, uint64_t index);
void sim_log_model_close(struct sim_log_model *m);

#endif
