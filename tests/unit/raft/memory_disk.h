/* A directory in memory that crashes on demand, as struct wal_io.
 *
 * Contents are durable when write returns, as O_DSYNC promises. At the chosen operation the disk dies:
 * a write leaves a chosen or random subset of its 512-byte sectors, names fall back to a random prefix
 * of the changes since the last sync_dir, and everything fails with -EIO until memory_disk_revive. */
#ifndef TESTS_MEMORY_DISK_H
#define TESTS_MEMORY_DISK_H

#include "base/prng.h"
#include "raft/wal_io.h"

#define MEMORY_DISK_FILES 96
#define MEMORY_DISK_OPS   16
#define SECTOR            512u

struct memory_file {
    uint8_t *data;
    uint64_t size;
    unsigned links; /* names that point here, durable and current */
};

struct memory_name {
    char name[WAL_IO_NAME_SIZE]; /* "" : free */
    int file;
};

struct memory_disk {
    struct wal_io io;
    struct prng prng;
    struct memory_file files[MEMORY_DISK_FILES];
    /* names[0] is durable; names[i] after the i-th change since; the last is what is seen */
    struct memory_name names[MEMORY_DISK_OPS + 1][MEMORY_DISK_FILES];
    unsigned changes;
    uint64_t operations;    /* that change something, so far */
    uint64_t crash_at;      /* the number of the operation that dies; 0: none */
    bool dead;
    bool tear_prefix;       /* a torn write leaves its first tear_sectors, else a random subset */
    uint64_t tear_sectors;
    unsigned writes_outside; /* broken rules of wal_io.h */
    uint64_t last_write_size;
};

void memory_disk_init(struct memory_disk *d, uint64_t seed);
void memory_disk_close(struct memory_disk *d);
void memory_disk_revive(struct memory_disk *d);
/* The contents of a file by its current name; NULL if there is none. */
struct memory_file *memory_disk_find(struct memory_disk *d, const char *name);
/* A copy with the same current contents, all of it durable. */
void memory_disk_copy(struct memory_disk *to, struct memory_disk *from);

#endif
