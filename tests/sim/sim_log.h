/* sim_log: the write-ahead log of a simulated node: wal.h's promises in virtual time, on the real
 * segments, blocks and recovery of wal_core.
 *
 * What it owns: the queue of blocks (group commit), tickets, and a model of what must be durable, by
 * which every recovery is judged: it must find exactly what completed writes say, or that and the one
 * write that was under way at the crash, whole. On a disk with damage it may refuse; and where the
 * damage is in the very last write before a crash it may leave that one out (docs/adr/0014). */
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
    struct sim_log_write *pending; /* the write that was under way at the last crash */
    struct sim_log_write *last;    /* the last complete one; what it did is in here already */
    struct sim_log_model *before;  /* without it */
};

enum sim_log_outcome {
    SIM_LOG_OPENED,
    SIM_LOG_DIED,    /* the disk died or an operation failed: a restart may succeed */
    SIM_LOG_REFUSED, /* on a disk that works: right only if something on it is damaged */
    SIM_LOG_CUT,     /* without its last write, and that one is damaged: cannot be told from a crash */
    SIM_LOG_WRONG,   /* not what was durable */
};

struct sim_log;

/* Opens the log on the disk and checks what it recovered against the model. NULL, with a reason in
 * error, unless SIM_LOG_OPENED. shorten: damage that is refused is cut off instead, in silence. */
struct sim_log *sim_log_open(struct sim_disk *disk, uint64_t node_id, uint64_t segment_size,
                             bool shorten, struct sim_log_model *model,
                             struct wal_recovered *recovered, enum sim_log_outcome *outcome,
                             char *error, size_t error_size);
/* A clean stop: writes all there is, and the mark. false: the disk failed meanwhile. Then, and
 * otherwise, sim_log_crash or sim_log_close follows. */
bool sim_log_stop(struct sim_log *l);
/* The process is gone: a write under way reaches the disk in part. */
void sim_log_crash(struct sim_log *l);
void sim_log_close(struct sim_log *l);

uint64_t sim_log_append(struct sim_log *l, const struct record_header *const *records, size_t count);
uint64_t sim_log_set_vote(struct sim_log *l, uint64_t term, uint64_t vote);
uint64_t sim_log_reset(struct sim_log *l, uint64_t index, uint64_t term);
void sim_log_trim(struct sim_log *l, uint64_t index);

/* Begins the next write. 1: under way; 0: nothing to do; -1: the disk failed. */
int sim_log_begin(struct sim_log *l);
/* The write under way is on disk. Returns its ticket, or 0: the disk failed. */
uint64_t sim_log_finish(struct sim_log *l);

/* The model's term of the entry at index, 0: not durable. */
uint64_t sim_log_model_term(const struct sim_log_model *m, uint64_t index);
/* And its checksum. */
uint32_t sim_log_model_crc32c(const struct sim_log_model *m, uint64_t index);
void sim_log_model_close(struct sim_log_model *m);

#endif
