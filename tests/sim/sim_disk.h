/* sim_disk: a simulated disk below the real log (struct wal_io).
 *
 * What it owns: files and a directory, each directory change twice: as the running node sees it and as
 * a crash would leave it. What it promises is what wal_io.h promises and no more:
 *   - a write that returned is durable; one that was under way at a crash leaves any subset of its
 *     512-byte sectors;
 *   - creations, renames and unlinks are durable after sync_dir; before it a crash keeps a prefix.
 *
 * `sim_disk_arm` makes the disk die in the middle of the nth operation from now: that operation takes
 * effect in part, it and all later ones return -EIO. The node must stop; a restart revives the disk.
 *
 * A trap makes one later operation go wrong: it returns an error (the disk lives on, the node must stop
 * all the same), or it returns 0 and has not done what it says. What is on the disk and should not be, or
 * is not and should, is remembered as damage until it is written over: that is how a recovery is judged
 * that refuses. */
#ifndef TESTS_SIM_SIM_DISK_H
#define TESTS_SIM_SIM_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/prng.h"
#include "raft/wal_io.h"
#include "tests/sim/sim_fault.h"

struct sim_disk;

/* Draws from prng and counts in fired (by enum sim_fault) as long as it lives. */
struct sim_disk *sim_disk_create(struct prng *prng, uint64_t *fired);
void sim_disk_destroy(struct sim_disk *d);
struct wal_io *sim_disk_io(struct sim_disk *d);

/* Die in the middle of the nth operation that changes something, counted from now (1: the next). */
void sim_disk_arm(struct sim_disk *d, unsigned nth);
bool sim_disk_is_dead(const struct sim_disk *d);
/* An operation has failed since the last restart. */
bool sim_disk_has_failed(const struct sim_disk *d);
/* A crash tears writes, or leaves them out or in as a whole. */
void sim_disk_set_torn(struct sim_disk *d, bool torn);
/* This write was under way: some of its sectors reach the disk. */
void sim_disk_tear(struct sim_disk *d, int file, uint64_t offset, const void *data, size_t size);
/* Power is back: what was not durable is gone, open files are closed. */
void sim_disk_restart(struct sim_disk *d);

/* The nth operation from now that the fault can befall goes wrong: SIM_FAULT_WRITE_ERROR, SYNC_ERROR,
 * READ_ERROR, MISDIRECT, LOST_WRITE. One trap at a time: the newest. */
void sim_disk_trap(struct sim_disk *d, enum sim_fault fault, unsigned nth);
void sim_disk_disarm(struct sim_disk *d);
/* While it is full nothing can be created. */
void sim_disk_set_full(struct sim_disk *d, bool full);
bool sim_disk_is_full(const struct sim_disk *d);
/* SIM_FAULT_ROT or SIM_FAULT_BAD_SECTOR somewhere in the segments, now. false: there are none. */
bool sim_disk_damage(struct sim_disk *d, enum sim_fault fault);

/* Something on it is damaged, or a trap is set that will damage something. */
bool sim_disk_is_hurt(const struct sim_disk *d);
bool sim_disk_is_damaged_at(const struct sim_disk *d, int file, uint64_t offset, size_t size);
/* The damage turned out to be where nothing is. */
void sim_disk_forget_damage(struct sim_disk *d);
/* What a log does that "repairs": everything from offset on becomes zeros, and later segments go. For
 * the proof that this is noticed. */
void sim_disk_cut(struct sim_disk *d, const char *name, uint64_t offset);

#endif
