/* Reading a snapshot from its beginning to its end, once, believing nothing.
 *
 * A header is judged by its own CRC before its fields are used; a chunk by its CRC before a block of
 * it is given to anybody; the order of chunks by their numbers and by the keys of their blocks; the
 * end by the trailer, whose hash covers every byte before it, and by the size that it names. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "storage/checkpoint_internal.h"
#include "storage/snapshot_internal.h"

#define ADVICE "use another copy of it, or another snapshot"

struct snapshot_reader {
    char path[CHECKPOINT_PATH_SIZE];
    int fd;
    uint64_t offset; /* of what is read next */
    uint64_t chunks, blocks, blocks_count, last_key;
    bool any;
    uint8_t *records;
    size_t capacity;
    XXH3_state_t *hash;
};

/* Returns how many bytes there were (fewer only at the end of the file), or -1. */
static ssize_t take(struct snapshot_reader *r, void *data, size_t size, char *error)
{
    size_t got = 0;
    while (got < size) {
        ssize_t n = read(r->fd, (uint8_t *)data + got, size - got);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return snapshot_fail(error, "%s: offset %llu: %s; " ADVICE, r->path,
                                 (unsigned long long)(r->offset + got), strerror(errno));
        }
        if (n == 0) {
            break;
        }
        got += (size_t)n;
    }
    r->offset += got;
    return (ssize_t)got;
}

/* Exactly size bytes, which are hashed. */
static int need(struct snapshot_reader *r, void *data, size_t size, const char *what, char *error)
{
    ssize_t got = take(r, data, size, error);
    if (got >= 0 && (size_t)got < size) {
        return snapshot_fail(error, "%s: ends at offset %llu within %s: it was cut; " ADVICE,
                             r->path, (unsigned long long)r->offset, what);
    }
    if (got >= 0) {
        CHECK(XXH3_128bits_update(r->hash, data, size) == XXH_OK);
    }
    return got < 0 ? -1 : 0;
}

static int read_header(struct snapshot_reader *r, struct snapshot_header *h, char *error)
{
    uint8_t data[SNAPSHOT_HEADER_MAX];
    if (need(r, data, SNAPSHOT_PREFIX_SIZE, "the header", error) < 0) {
        return -1;
    }
    if (memcmp(data, SNAPSHOT_MAGIC, SNAPSHOT_MAGIC_SIZE) != 0) {
        return snapshot_fail(error, "%s: offset 0: does not begin as a snapshot does: it is another "
                                    "kind of file, or damaged; " ADVICE,
                             r->path);
    }
    uint32_t version = load_u32(data + 8), size = load_u32(data + 12);
    if (version != SNAPSHOT_FORMAT_VERSION) {
        return snapshot_fail(error, "%s: offset 8: is of format version %u, this program reads %u: "
                                    "use the holdfastctl that wrote it, unless it is damaged",
                             r->path, version, SNAPSHOT_FORMAT_VERSION);
    }
    if (size < SNAPSHOT_HEADER_SIZE || size > SNAPSHOT_HEADER_MAX) {
        return snapshot_fail(error, "%s: offset 12: a header of %u bytes cannot be: it is damaged; "
                             ADVICE, r->path, size);
    }
    if (need(r, data + SNAPSHOT_PREFIX_SIZE, size - SNAPSHOT_PREFIX_SIZE, "the header", error) < 0) {
        return -1;
    }
    if (snapshot_header_decode(h, data, size) < 0) {
        return snapshot_fail(error, "%s: offset 0: the header does not match its checksum: it is "
                                    "damaged; " ADVICE,
                             r->path);
    }
    r->blocks_count = h->blocks_count;
    return 0;
}

int snapshot_reader_open(const char *path, struct snapshot_reader **out,
                         struct snapshot_header *header, char error[static SNAPSHOT_ERROR_SIZE])
{
    struct stat st;
    if (strlen(path) >= CHECKPOINT_PATH_SIZE) {
        return snapshot_fail(error, "'%.200s…': the path is too long", path);
    }
    struct snapshot_reader *r = calloc(1, sizeof *r);
    CHECK(r != NULL);
    memcpy(r->path, path, strlen(path) + 1);
    r->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0 || fstat(r->fd, &st) < 0) {
        snapshot_fail(error, "%s: %s", path, strerror(errno));
        goto err_after_alloc;
    }
    if (!S_ISREG(st.st_mode)) {
        snapshot_fail(error, "%s: is not a file", path);
        goto err_after_alloc;
    }
    r->hash = XXH3_createState();
    CHECK(r->hash != NULL);
    CHECK(XXH3_128bits_reset(r->hash) == XXH_OK);
    if (read_header(r, header, error) < 0) {
        snapshot_reader_close(r);
        return -1;
    }
    *out = r;
    return 0;

err_after_alloc:
    if (r->fd >= 0) {
        close(r->fd);
    }
    free(r);
    return -1;
}

/* The blocks of a chunk whose checksum is right. */
static int give_blocks(struct snapshot_reader *r, size_t size, uint32_t count, uint64_t offset,
                       checkpoint_block_cb put, void *ctx, char *error)
{
    struct reader records = reader_init(r->records, size);
    uint32_t seen = 0;
    while (reader_left(&records) > 0) {
        struct engine_block block = {.table = reader_u32(&records), .number = reader_u32(&records)};
        block.size = reader_u32(&records);
        block.data = reader_bytes(&records, block.size);
        if (records.failed || !snapshot_block_follows(&block, r->any, r->last_key)) {
            return snapshot_fail(error, "%s: offset %llu: chunk %llu is malformed, or not in its "
                                        "place: it is damaged; " ADVICE,
                                 r->path, (unsigned long long)offset,
                                 (unsigned long long)r->chunks);
        }
        r->any = true;
        r->last_key = checkpoint_key(block.table, block.number);
        seen++;
        if (put != NULL && put(ctx, &block) < 0) {
            return snapshot_fail(error, "%s: offset %llu: a block of table %u is not understood: "
                                        "use the holdfastctl of the version that wrote it",
                                 r->path, (unsigned long long)offset, block.table);
        }
    }
    if (seen != count) {
        return snapshot_fail(error, "%s: offset %llu: chunk %llu has %u blocks, should have %u: it "
                                    "is damaged; " ADVICE,
                             r->path, (unsigned long long)offset, (unsigned long long)r->chunks,
                             seen, count);
    }
    r->blocks += seen;
    return 0;
}

/* head: the first 4 bytes are read. */
static int read_chunk(struct snapshot_reader *r, uint8_t *head, checkpoint_block_cb put, void *ctx,
                      char *error)
{
    uint64_t offset = r->offset - 4;
    if (need(r, head + 4, SNAPSHOT_CHUNK_HEAD - 4, "a chunk", error) < 0) {
        return -1;
    }
    uint32_t number = load_u32(head + 4), count = load_u32(head + 8), size = load_u32(head + 12);
    if (size == 0 || size > SNAPSHOT_CHUNK_SIZE_MAX) {
        return snapshot_fail(error, "%s: offset %llu: a chunk of %u bytes cannot be: it is damaged; "
                             ADVICE, r->path, (unsigned long long)offset, size);
    }
    if (size > r->capacity) {
        free(r->records);
        r->records = malloc(size);
        CHECK(r->records != NULL);
        r->capacity = size;
    }
    if (need(r, r->records, size, "a chunk", error) < 0) {
        return -1;
    }
    if (crc32c(crc32c(0, head, 16), r->records, size) != load_u32(head + 16)) {
        return snapshot_fail(error, "%s: offset %llu: chunk %llu does not match its checksum: it is "
                                    "damaged; " ADVICE,
                             r->path, (unsigned long long)offset, (unsigned long long)r->chunks);
    }
    if (number != r->chunks) {
        return snapshot_fail(error, "%s: offset %llu: chunk %u stands where chunk %llu belongs: it "
                                    "is damaged; " ADVICE,
                             r->path, (unsigned long long)offset, number,
                             (unsigned long long)r->chunks);
    }
    if (give_blocks(r, size, count, offset, put, ctx, error) < 0) {
        return -1;
    }
    r->chunks++;
    return 0;
}

static int read_trailer(struct snapshot_reader *r, uint8_t *trailer, char *error)
{
    uint64_t offset = r->offset - 4;
    uint8_t more;
    XXH128_canonical_t hash;
    if (need(r, trailer + 4, SNAPSHOT_TRAILER_HASH - 4, "the trailer", error) < 0) {
        return -1;
    }
    XXH128_canonicalFromHash(&hash, XXH3_128bits_digest(r->hash));
    if (need(r, trailer + SNAPSHOT_TRAILER_HASH, SNAPSHOT_TRAILER_SIZE - SNAPSHOT_TRAILER_HASH,
             "the trailer", error) < 0) {
        return -1;
    }
    if (crc32c(0, trailer, 40) != load_u32(trailer + 40)) {
        return snapshot_fail(error, "%s: offset %llu: the trailer does not match its checksum: it "
                                    "is damaged; " ADVICE,
                             r->path, (unsigned long long)offset);
    }
    if (memcmp(hash.digest, trailer + SNAPSHOT_TRAILER_HASH, SNAPSHOT_HASH_SIZE) != 0) {
        return snapshot_fail(error, "%s: offset %llu: the file does not match the checksum over all "
                                    "of it: it is damaged; " ADVICE,
                             r->path, (unsigned long long)(offset + SNAPSHOT_TRAILER_HASH));
    }
    uint64_t blocks = load_u64(trailer + 8), size = load_u64(trailer + 16);
    if (load_u32(trailer + 4) != r->chunks || blocks != r->blocks || blocks != r->blocks_count ||
        size != r->offset) {
        return snapshot_fail(error, "%s: offset %llu: the trailer counts %llu blocks in %llu bytes, "
                                    "the file has %llu in %llu, the header promised %llu: it is "
                                    "damaged; " ADVICE,
                             r->path, (unsigned long long)offset, (unsigned long long)blocks,
                             (unsigned long long)size, (unsigned long long)r->blocks,
                             (unsigned long long)r->offset, (unsigned long long)r->blocks_count);
    }
    ssize_t behind = take(r, &more, 1, error);
    if (behind > 0) {
        return snapshot_fail(error, "%s: offset %llu: there is something behind the end: it is "
                                    "damaged; " ADVICE,
                             r->path, (unsigned long long)size);
    }
    return behind < 0 ? -1 : 0;
}

int snapshot_reader_blocks(struct snapshot_reader *r, checkpoint_block_cb put, void *ctx,
                           char error[static SNAPSHOT_ERROR_SIZE])
{
    uint8_t head[SNAPSHOT_TRAILER_SIZE];
    for (;;) {
        uint64_t offset = r->offset;
        if (need(r, head, 4, "what should be a chunk or the trailer", error) < 0) {
            return -1;
        }
        uint32_t magic = load_u32(head);
        if (magic == SNAPSHOT_TRAILER_MAGIC) {
            return read_trailer(r, head, error);
        }
        if (magic != SNAPSHOT_CHUNK_MAGIC) {
            return snapshot_fail(error, "%s: offset %llu: there is neither a chunk nor the trailer: "
                                        "it is damaged; " ADVICE,
                                 r->path, (unsigned long long)offset);
        }
        if (read_chunk(r, head, put, ctx, error) < 0) {
            return -1;
        }
    }
}

uint64_t snapshot_reader_chunks(const struct snapshot_reader *r)
{
    return r->chunks;
}

uint64_t snapshot_reader_bytes(const struct snapshot_reader *r)
{
    return r->offset;
}

void snapshot_reader_close(struct snapshot_reader *r)
{
    close(r->fd);
    free(r->records);
    if (r->hash != NULL) {
        XXH3_freeState(r->hash);
    }
    free(r);
}
