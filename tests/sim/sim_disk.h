/* sim_disk: a simulated disk below the real log (struct wal_io).
 *
 * What it owns: files and a directory, each directory change twice: as the running node sees it and as
 * a crash would leave it. What it promises is what wal_io.h promises and no more:
 *   - a write that returned is durable; one that was under way at a crash leaves any subset of its
 *     512-byte sectors;
 *   - creations, renames and unlinks are durable after sync_dir; before it a crash keeps a prefix.
 *
 * `sim_disk_arm` makes the disk die in the middle of the nth operation from now: that operation takes
 * effect in part, it and all later ones return -EIO. The node must stop; a restart revives the disk. */
#ifndef TESTS_SIM_SIM_DISK_H
#define TESTS_SIM_SIM_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/prng.h"
#include "raft/wal_io.h"

struct sim_disk;

/* Draws from prng as long as it lives. */
struct sim_disk *sim_disk_create(struct prng *prng);
void sim_disk_destroy(struct sim_disk *d);
struct wal_io *sim_disk_io(struct sim_disk *d);

/* Die in the middle of the nth operation that changes something, counted from now (1: the next). */
void sim_disk_arm(struct sim_disk *d, unsigned nth);
bool sim_disk_is_dead(const struct sim_disk *d);
/* This write was under way: some of its sectors reach the disk. */
void sim_disk_tear(struct sim_disk *d, int file, uint64_t offset, const void *data, size_t size);
/* Power is back: what was not durable is gone, open files are closed. */
void sim_disk_restart(struct sim_disk *d);

#endif
