/* wal_io over a directory of a real file system.
 *
 * Happy path: files are opened O_DIRECT|O_DSYNC, so that each write is one request to the device
 * and durable when it returns, without the page cache and without a separate fsync.
 *
 * Failure modes: a file system that refuses O_DIRECT (tmpfs, some overlays) gets O_DSYNC alone,
 * with one warning: as safe, slower. A directory that another process has locked is refused. Short
 * writes are continued; every other error is returned as it is. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/file.h"
#include "base/log.h"
#include "raft/wal_core.h"
#include "raft/wal_io.h"

#define ZERO_CHUNK_SIZE (1u << 20)

struct wal_io_posix {
    struct wal_io io;
    int directory;
    int lock;
    bool sync;
    atomic_bool no_direct; /* the file system refuses O_DIRECT */
    wal_io_piece_cb piece; /* NULL: nobody wants to know */
    void *piece_ctx;
};

static struct wal_io_posix *self(struct wal_io *io)
{
    return container_of(io, struct wal_io_posix, io);
}

static int posix_list(struct wal_io *io, wal_io_list_cb cb, void *arg)
{
    int fd = openat(self(io)->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        int error = errno;
        if (fd >= 0) {
            close(fd);
        }
        return -error;
    }
    int rv = 0;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            rv = -errno;
            break;
        }
        struct stat st;
        if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            rv = -errno;
            break;
        }
        if (S_ISREG(st.st_mode)) {
            cb(arg, entry->d_name, (uint64_t)st.st_size);
        }
    }
    closedir(dir);
    return rv;
}

/* Opens with O_DIRECT as long as the file system agrees. */
static int open_flags(struct wal_io_posix *p, const char *name, int flags)
{
    flags |= O_CLOEXEC | O_NOFOLLOW;
    if (p->sync && !atomic_load(&p->no_direct)) {
        int fd = openat(p->directory, name, flags | O_DIRECT, 0600);
        if (fd >= 0 || errno != EINVAL) {
            return fd >= 0 ? fd : -errno;
        }
        if (!atomic_exchange(&p->no_direct, true)) {
            log_warn("this file system refuses O_DIRECT: log writes go through the page cache, "
                     "as safe, but slower");
        }
    }
    int fd = openat(p->directory, name, flags, 0600);
    return fd >= 0 ? fd : -errno;
}

static int write_all(int fd, const uint8_t *data, size_t size, uint64_t offset)
{
    while (size > 0) {
        ssize_t n = pwrite(fd, data, size, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        if (n == 0 || n % WAL_BLOCK_SIZE != 0) {
            return -EIO; /* O_DIRECT could not continue from here */
        }
        data += n;
        size -= (size_t)n;
        offset += (size_t)n;
    }
    return 0;
}

/* In pieces, each on the device before the next: what the page cache gathered would come down on the
 * log's writes in one avalanche. */
static int write_zeros(struct wal_io_posix *p, int fd, uint64_t size)
{
    uint8_t *zeros = aligned_alloc(WAL_BLOCK_SIZE, ZERO_CHUNK_SIZE);
    CHECK(zeros != NULL);
    memset(zeros, 0, ZERO_CHUNK_SIZE);
    int rv = 0;
    for (uint64_t at = 0; rv == 0 && at < size; at += ZERO_CHUNK_SIZE) {
        uint64_t left = size - at, begun_ns = clock_monotonic_ns();
        rv = write_all(fd, zeros, left < ZERO_CHUNK_SIZE ? (size_t)left : ZERO_CHUNK_SIZE, at);
        if (rv == 0 && p->sync && atomic_load(&p->no_direct) && fdatasync(fd) != 0) {
            rv = -errno;
        }
        if (rv == 0 && p->piece != NULL &&
            !p->piece(p->piece_ctx, clock_monotonic_ns() - begun_ns)) {
            rv = -ECANCELED;
        }
    }
    free(zeros);
    return rv;
}

static int posix_create(struct wal_io *io, const char *name, uint64_t size)
{
    int fd = open_flags(self(io), name, O_RDWR | O_CREAT | O_TRUNC);
    if (fd < 0) {
        return fd;
    }
    /* In one piece where the file system can, and no space lost half way. Not all can: that is
     * fine. */
    int rv = -posix_fallocate(fd, 0, (off_t)size);
    if (rv == -EOPNOTSUPP || rv == -EINVAL) {
        rv = 0;
    }
    if (rv == 0) {
        rv = FAILPOINT_ERROR("wal/before-create", "a spare has its space, its zeros are not written");
    }
    if (rv == 0) {
        rv = write_zeros(self(io), fd, size);
    }
    if (rv == 0) {
        rv = FAILPOINT_ERROR("wal/before-sync", "a spare is full of zeros, not synced");
    }
    if (rv == 0 && self(io)->sync && fsync(fd) != 0) {
        rv = -errno;
    }
    close(fd);
    if (rv < 0) {
        (void)unlinkat(self(io)->directory, name, 0);
    }
    return rv;
}

static int posix_open(struct wal_io *io, const char *name)
{
    return open_flags(self(io), name, O_RDWR | (self(io)->sync ? O_DSYNC : 0));
}

static void posix_close(struct wal_io *io, int file)
{
    (void)io;
    close(file);
}

static int posix_read(struct wal_io *io, int file, uint64_t offset, void *data, size_t size)
{
    (void)io;
    uint8_t *at = data;
    while (size > 0) {
        ssize_t n = pread(file, at, size, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        at += n;
        size -= (size_t)n;
        offset += (size_t)n;
    }
    return 0;
}

static int posix_write(struct wal_io *io, int file, uint64_t offset, const void *data, size_t size)
{
    (void)io;
    int rv = FAILPOINT_WRITE("wal/before-write", "a group of records, or a header, is to be written", file,
                             data, size, (int64_t)offset);
    rv = rv == 0 ? write_all(file, data, size, offset) : rv;
    return rv == 0 ? FAILPOINT_ERROR("wal/after-write", "it is on the disk, nobody knows") : rv;
}

static int posix_sync(struct wal_io *io, int file)
{
    return self(io)->sync && fdatasync(file) != 0 ? -errno : 0;
}

static int posix_rename(struct wal_io *io, const char *from, const char *to)
{
    int directory = self(io)->directory;
    int rv = FAILPOINT_ERROR("wal/before-rename", "a spare or a segment is to get its name");
    if (rv == 0 && renameat(directory, from, directory, to) != 0) {
        rv = -errno;
    }
    return rv == 0 ? FAILPOINT_ERROR("wal/after-rename", "it has its name, not durable") : rv;
}

static int posix_unlink(struct wal_io *io, const char *name)
{
    return unlinkat(self(io)->directory, name, 0) != 0 ? -errno : 0;
}

static int posix_sync_dir(struct wal_io *io)
{
    int rv = FAILPOINT_ERROR("wal/before-sync-directory", "names of the log have changed, not synced");
    return rv == 0 && self(io)->sync && fsync(self(io)->directory) != 0 ? -errno : rv;
}

static uint64_t posix_random(struct wal_io *io)
{
    (void)io;
    uint64_t value;
    CHECK(getrandom(&value, sizeof value, 0) == (ssize_t)sizeof value);
    return value;
}

/* Creates the directory and makes its name durable in its parent. */
static int make_directory(const char *path)
{
    if (mkdir(path, 0700) != 0) {
        return errno == EEXIST ? 0 : -1;
    }
    char parent[4096];
    int n = snprintf(parent, sizeof parent, "%s/..", path);
    if (n < 0 || (size_t)n >= sizeof parent) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return file_sync(parent);
}

struct wal_io *wal_io_posix_create(const char *directory, bool sync)
{
    if (make_directory(directory) != 0) {
        log_error("log directory %s: %s", directory, strerror(errno));
        return NULL;
    }
    struct wal_io_posix *p = calloc(1, sizeof *p);
    CHECK(p != NULL);
    p->sync = sync;
    p->io = (struct wal_io){posix_list,   posix_create,   posix_open,  posix_close,
                            posix_read,   posix_write,    posix_sync,  posix_rename,
                            posix_unlink, posix_sync_dir, posix_random};
    p->directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p->directory < 0) {
        log_error("log directory %s: %s", directory, strerror(errno));
        goto err_after_alloc;
    }
    p->lock = openat(p->directory, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (p->lock < 0) {
        log_error("log directory %s: lock: %s", directory, strerror(errno));
        goto err_after_directory;
    }
    if (flock(p->lock, LOCK_EX | LOCK_NB) != 0) {
        log_error("log directory %s is in use by another process", directory);
        goto err_after_lock;
    }
    return &p->io;

err_after_lock:
    close(p->lock);
err_after_directory:
    close(p->directory);
err_after_alloc:
    free(p);
    return NULL;
}

void wal_io_posix_set_piece_cb(struct wal_io *io, wal_io_piece_cb piece, void *ctx)
{
    self(io)->piece = piece;
    self(io)->piece_ctx = ctx;
}

void wal_io_posix_destroy(struct wal_io *io)
{
    struct wal_io_posix *p = self(io);
    close(p->lock);
    close(p->directory);
    free(p);
}
