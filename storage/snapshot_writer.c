/* Writing a snapshot: FILE.part grows chunk by chunk, and becomes FILE when it is whole and synced.
 * A crash at any point leaves FILE as it was, and perhaps a FILE.part, which the next one to write
 * takes over. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "base/failpoint.h"
#include "base/file.h"
#include "storage/checkpoint_internal.h"
#include "storage/snapshot_internal.h"

struct snapshot_writer {
    char path[CHECKPOINT_PATH_SIZE], part[CHECKPOINT_PATH_SIZE + 8];
    bool replace, any;
    int fd;
    struct snapshot_header header;
    uint64_t last_key, blocks, bytes;
    uint32_t chunks;
    XXH3_state_t *hash;
};

static int sync_directory_of(const char *path, char *error)
{
    char directory[CHECKPOINT_PATH_SIZE];
    const char *slash = strrchr(path, '/');
    size_t size = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    memcpy(directory, path, size);
    directory[size] = '\0';
    return file_sync(size == 0 ? "." : directory) == 0
               ? 0
               : snapshot_fail(error, "%s: its directory cannot be synced: %s", path,
                               strerror(errno));
}

/* Writes and hashes. */
static int append(struct snapshot_writer *w, const void *data, size_t size, char *error)
{
    const uint8_t *at = data;
    CHECK(XXH3_128bits_update(w->hash, data, size) == XXH_OK);
    if (FAILPOINT_WRITE("snapshot/before-write", "a part of the file is to be written", w->fd, data, size,
                        -1) < 0) {
        return snapshot_fail(error, "%s: offset %llu: %s", w->part, (unsigned long long)w->bytes,
                             strerror(errno));
    }
    for (size_t left = size; left > 0;) {
        ssize_t n = write(w->fd, at, left);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return snapshot_fail(error, "%s: offset %llu: %s", w->part,
                                 (unsigned long long)(w->bytes + size - left),
                                 n < 0 ? strerror(errno) : "nothing could be written");
        }
        at += n;
        left -= (size_t)n;
    }
    w->bytes += size;
    return 0;
}

static int refuse_existing(const struct snapshot_writer *w, char *error)
{
    struct stat st;
    if (!w->replace && lstat(w->path, &st) == 0) {
        return snapshot_fail(error, "%s: is there already; give another name, or --force", w->path);
    }
    return 0;
}

/* Whoever holds the lock owns the name: a part whose writer died is taken over. */
static int open_part(struct snapshot_writer *w, char *error)
{
    struct stat mine, named;
    w->fd = open(w->part, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (w->fd < 0) {
        return snapshot_fail(error, "%s: %s", w->part, strerror(errno));
    }
    if (flock(w->fd, LOCK_EX | LOCK_NB) < 0 || fstat(w->fd, &mine) < 0 ||
        lstat(w->part, &named) < 0 || mine.st_ino != named.st_ino || mine.st_dev != named.st_dev) {
        close(w->fd);
        return snapshot_fail(error, "%s: another process is writing it; wait for it", w->part);
    }
    if (!S_ISREG(mine.st_mode) || fchmod(w->fd, 0600) < 0 || ftruncate(w->fd, 0) < 0) {
        close(w->fd);
        return snapshot_fail(error, "%s: is no file that can be written", w->part);
    }
    return 0;
}

int snapshot_writer_open(const char *path, bool replace, const struct snapshot_header *header,
                         struct snapshot_writer **out, char error[static SNAPSHOT_ERROR_SIZE])
{
    uint8_t encoded[SNAPSHOT_HEADER_MAX];
    size_t length = strlen(path);
    if (length == 0 || length >= CHECKPOINT_PATH_SIZE || path[length - 1] == '/') {
        return snapshot_fail(error, "'%.200s': is no name for a file", path);
    }
    struct snapshot_writer *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    memcpy(w->path, path, length + 1);
    snprintf(w->part, sizeof w->part, "%s.part", path);
    w->replace = replace;
    w->header = *header;
    if (refuse_existing(w, error) < 0 || open_part(w, error) < 0) {
        free(w);
        return -1;
    }
    w->hash = XXH3_createState();
    CHECK(w->hash != NULL);
    CHECK(XXH3_128bits_reset(w->hash) == XXH_OK);
    if (append(w, encoded, snapshot_header_encode(header, encoded), error) < 0) {
        snapshot_writer_abort(w);
        return -1;
    }
    *out = w;
    return 0;
}

/* The checkpoint's own meta record, in front of the first block: the header must say the same. */
static bool meta_agrees(const struct snapshot_writer *w, const struct engine_block *record)
{
    struct checkpoint_meta meta;
    return checkpoint_meta_decode(&meta, record->data, record->size) == 0 &&
           meta.index == w->header.index && meta.term == w->header.term &&
           meta.digest == w->header.digest && meta.blocks_count == w->header.blocks_count &&
           meta.time_ms == w->header.time_ms && meta.position_size == w->header.position_size &&
           memcmp(meta.position, w->header.position, meta.position_size) == 0;
}

int snapshot_writer_put(struct snapshot_writer *w, const void *records, size_t size, uint32_t crc,
                        char error[static SNAPSHOT_ERROR_SIZE])
{
    if (crc32c(0, records, size) != crc) {
        return snapshot_fail(error, "what came after block %llu does not match its checksum; try "
                                    "again, or another node",
                             (unsigned long long)w->blocks);
    }
    const uint8_t *begin = records;
    struct reader r = reader_init(records, size);
    uint32_t count = 0;
    while (reader_left(&r) > 0) {
        struct engine_block block = {.table = reader_u32(&r), .number = reader_u32(&r)};
        block.size = reader_u32(&r);
        block.data = reader_bytes(&r, block.size);
        bool meta = block.table == CHECKPOINT_META_TABLE && !w->any;
        if (r.failed || (meta && !meta_agrees(w, &block)) ||
            (!meta && !snapshot_block_follows(&block, w->any, w->last_key))) {
            return snapshot_fail(error, "what came after block %llu is not the checkpoint that was "
                                        "promised; try again, or another node",
                                 (unsigned long long)(w->blocks + count));
        }
        if (meta) {
            begin = r.at;
            continue;
        }
        w->any = true;
        w->last_key = checkpoint_key(block.table, block.number);
        count++;
    }
    size_t length = (size_t)(r.at - begin);
    if (count == 0) {
        return 0;
    }
    if (length > SNAPSHOT_CHUNK_SIZE_MAX) {
        return snapshot_fail(error, "a chunk of %zu bytes is larger than any node gives", length);
    }
    uint8_t head[SNAPSHOT_CHUNK_HEAD];
    store_u32(head, SNAPSHOT_CHUNK_MAGIC);
    store_u32(head + 4, w->chunks);
    store_u32(head + 8, count);
    store_u32(head + 12, (uint32_t)length);
    store_u32(head + 16, crc32c(crc32c(0, head, 16), begin, length));
    if (append(w, head, sizeof head, error) < 0 || append(w, begin, length, error) < 0) {
        return -1;
    }
    w->chunks++;
    w->blocks += count;
    return 0;
}

uint64_t snapshot_writer_blocks(const struct snapshot_writer *w)
{
    return w->blocks;
}

uint64_t snapshot_writer_bytes(const struct snapshot_writer *w)
{
    return w->bytes;
}

static int finish(struct snapshot_writer *w, char *error)
{
    if (w->blocks != w->header.blocks_count) {
        return snapshot_fail(error, "%llu blocks came, %llu were promised; try again",
                             (unsigned long long)w->blocks,
                             (unsigned long long)w->header.blocks_count);
    }
    uint8_t trailer[SNAPSHOT_TRAILER_SIZE];
    store_u32(trailer, SNAPSHOT_TRAILER_MAGIC);
    store_u32(trailer + 4, w->chunks);
    store_u64(trailer + 8, w->blocks);
    store_u64(trailer + 16, w->bytes + SNAPSHOT_TRAILER_SIZE);
    CHECK(XXH3_128bits_update(w->hash, trailer, SNAPSHOT_TRAILER_HASH) == XXH_OK);
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits_digest(w->hash));
    memcpy(trailer + SNAPSHOT_TRAILER_HASH, hash.digest, SNAPSHOT_HASH_SIZE);
    store_u32(trailer + 40, crc32c(0, trailer, 40));
    if (append(w, trailer, sizeof trailer, error) < 0) {
        return -1;
    }
    if (FAILPOINT_ERROR("snapshot/before-sync", "FILE.part is whole, not synced") < 0 ||
        fsync(w->fd) < 0) {
        return snapshot_fail(error, "%s: cannot be synced: %s", w->part, strerror(errno));
    }
    if (refuse_existing(w, error) < 0) {
        return -1;
    }
    if (FAILPOINT_ERROR("snapshot/before-rename", "FILE.part is durable, FILE is the old one") < 0) {
        return snapshot_fail(error, "%s: %s", w->path, strerror(errno));
    }
    /* Without replace the name must still be free: nobody's file is lost to a race. */
    int rv = renameat2(AT_FDCWD, w->part, AT_FDCWD, w->path, w->replace ? 0 : RENAME_NOREPLACE);
    if (rv < 0 && (errno == EINVAL || errno == ENOSYS)) { /* a file system that cannot promise it */
        rv = rename(w->part, w->path);
    }
    if (rv < 0) {
        return snapshot_fail(error, "%s: %s", w->path, strerror(errno));
    }
    return 0;
}

static void writer_free(struct snapshot_writer *w)
{
    close(w->fd);
    XXH3_freeState(w->hash);
    free(w);
}

int snapshot_writer_commit(struct snapshot_writer *w, char error[static SNAPSHOT_ERROR_SIZE])
{
    if (finish(w, error) < 0) {
        snapshot_writer_abort(w);
        return -1;
    }
    FAILPOINT("snapshot/after-rename", "FILE is the new one, its name not durable");
    int result = sync_directory_of(w->path, error);
    writer_free(w);
    return result;
}

void snapshot_writer_abort(struct snapshot_writer *w)
{
    unlink(w->part);
    writer_free(w);
}
