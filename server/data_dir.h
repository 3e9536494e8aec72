/* data_dir: a node's data directory as a whole, while no node uses it.
 *
 * What it owns: verify, which asks each part what a start would ask it (identity, checkpoint, log, and
 * whether they belong together), and rebuild, which puts a directory aside so that the node refills. What it
 * refuses: to repair, to delete, to touch a directory that is in use. */
#ifndef SERVER_DATA_DIR_H
#define SERVER_DATA_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"
#include "raft/replica.h"
#include "server/identity.h"
#include "storage/checkpoint.h"

enum data_dir_part { DATA_DIR_IDENTITY, DATA_DIR_CHECKPOINT, DATA_DIR_LOG, DATA_DIR_PARTS };

enum data_dir_state {
    DATA_DIR_WHOLE,   /* a start would accept it */
    DATA_DIR_DAMAGED, /* a start would refuse it, or go on with something else than was there */
    DATA_DIR_UNKNOWN, /* not looked at, because what it depends on is damaged */
};

struct data_dir_report {
    struct identity identity;
    enum data_dir_state states[DATA_DIR_PARTS];
    char details[DATA_DIR_PARTS][2048]; /* what was found; of damage file, offset and what to do */
    /* Of what is whole: */
    uint64_t checkpoint_index, checkpoint_digest; /* 0: there is no checkpoint */
    uint64_t term, vote, base_index, last_index, last_term, torn_bytes;
};

const char *data_dir_part_name(enum data_dir_part part);

enum data_dir_result {
    DATA_DIR_OK,
    DATA_DIR_BAD,    /* verify: a part is damaged; rebuild: it failed, after logging */
    DATA_DIR_IN_USE, /* a node runs there: nothing was looked at */
    DATA_DIR_NONE,   /* no such directory, or nothing of a node in it */
};

/* Everything that a start would check, without starting, and nothing is changed. Holds the directory's lock
 * meanwhile, so no node can start in it. Reads all of log and checkpoint: blocks. */
enum data_dir_result data_dir_verify(const char *directory, struct data_dir_report *report);

/* Moves what is there to "<directory>.damaged-<time>" (or, where the directory itself cannot be renamed, into
 * "<directory>/damaged-<time>") and leaves a directory that refills: with its identity when that is readable,
 * else empty, to be given its ids at the next start. Deletes nothing. moved_to gets where the old one is;
 * *has_identity whether the new one knows its ids. */
enum data_dir_result data_dir_rebuild(const char *directory, int64_t wall_ms, char *moved_to,
                                      size_t moved_to_size, bool *has_identity);

/* A cluster's id as 8-4-4-4-12 hex digits. */
#define DATA_DIR_CLUSTER_TEXT_SIZE 37
void data_dir_cluster_text(const uint8_t id[static LINK_CLUSTER_ID_SIZE],
                           char out[static DATA_DIR_CLUSTER_TEXT_SIZE]);

/* Does a node (or another tool) hold the directory's lock? */
bool data_dir_in_use(const char *directory);

/* The last step of loading a checkpoint, at a start and here: is this the state that the meta tells, and does
 * it say where in the log it stands? 0, or -1 after logging. */
int data_dir_judge_state(const char *directory, struct engine *engine,
                         const struct checkpoint_meta *meta, struct replica_position *position);

#endif
