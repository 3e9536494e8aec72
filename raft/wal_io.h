/* wal_io: what the write-ahead log asks of a file system, as a table of functions.
 *
 * The log's recovery, segments and recycling run over this table only. Two implementations: the real
 * one (wal_io_posix.c: O_DIRECT, O_DSYNC) and the simulator's (a disk that loses and tears what was
 * not synced). Names are plain file names inside one directory; files are small integers.
 *
 * Every function returns 0 (or what it says) or a negative errno. An error of any of them is fatal to
 * the log: it never tries again, because after a failed sync nobody knows what is on the disk. */
#ifndef RAFT_WAL_IO_H
#define RAFT_WAL_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WAL_IO_NAME_SIZE 64

/* Called for each file of the directory, in any order. */
typedef void (*wal_io_list_cb)(void *arg, const char *name, uint64_t size);

struct wal_io {
    int (*list)(struct wal_io *io, wal_io_list_cb cb, void *arg);
    /* Creates (or empties) a file of `size` zero bytes that are written, not merely allocated, and
     * durable on return. The name itself need not be durable before sync_dir. */
    int (*create)(struct wal_io *io, const char *name, uint64_t size);
    /* Opens for reading and writing. Returns a file ≥ 0. */
    int (*open)(struct wal_io *io, const char *name);
    void (*close)(struct wal_io *io, int file);
    /* Reads exactly size bytes; a file that is shorter is -EIO. */
    int (*read)(struct wal_io *io, int file, uint64_t offset, void *data, size_t size);
    /* Writes exactly size bytes; durable on return. offset, size and the address of data are multiples
     * of WAL_BLOCK_SIZE; never beyond the size given at create. A crash may leave any subset of the
     * 512-byte sectors of a write that has not returned. */
    int (*write)(struct wal_io *io, int file, uint64_t offset, const void *data, size_t size);
    /* Makes what was read from this file so far durable: a restarted process may find in the page
     * cache what no disk holds. */
    int (*sync)(struct wal_io *io, int file);
    int (*rename)(struct wal_io *io, const char *from, const char *to); /* atomic, replaces `to` */
    int (*unlink)(struct wal_io *io, const char *name);
    int (*sync_dir)(struct wal_io *io); /* makes creations, renames and unlinks durable */
    uint64_t (*random)(struct wal_io *io);
};

/* The real thing. sync=false leaves out O_DIRECT and O_DSYNC (benchmarks only). Locks the directory
 * against a second process. Creates the directory. NULL after logging the reason. Thread-safe as far
 * as the log needs it: calls on different files may run at the same time. */
struct wal_io *wal_io_posix_create(const char *directory, bool sync);
/* Called after each piece (1 MiB) of a file being created, with the time that it took; may wait.
 * false: the create ends with -ECANCELED and leaves nothing. To be set while no create is under way.
 */
typedef bool (*wal_io_piece_cb)(void *ctx, uint64_t took_ns);
void wal_io_posix_set_piece_cb(struct wal_io *io, wal_io_piece_cb piece, void *ctx);
void wal_io_posix_destroy(struct wal_io *io);

#endif
