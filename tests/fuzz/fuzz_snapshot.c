/* Snapshot files: inspect, verify, load (storage/snapshot.h).
 *
 * Input: first byte 0: the rest is the file; else changes to a good file, (offset, byte) each, a cut
 * (offset 65535) or blocks of a chunk exchanged; 1: as they are; 2: with every checksum put right behind
 * them, so that what lies behind the checksums is reached.
 * Asserted: never a crash; a refusal has a sentence that names the file; a file that was changed and not
 * put right is refused; what is accepted holds as many blocks as it says, in order, and a state that
 * loads has no broken invariant. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/crc32c.h"
#include "storage/checkpoint_internal.h"
#include "storage/snapshot_internal.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/state.h"

enum { AS_FILE, AS_CHANGED, AS_RIGHT, AS_COUNT };

#define CHUNK_BLOCKS 6

static char path[128];
static struct text good;

static void append_record(struct text *t, uint32_t table, uint32_t number, const void *data, uint32_t size)
{
    const uint32_t head[3] = {table, number, size};
    text_append(t, head, sizeof head);
    text_append(t, data, size);
}

static void make_good(void)
{
    char error[SNAPSHOT_ERROR_SIZE];
    struct snapshot_writer *w;
    struct state *s = state_make();
    struct snapshot_header h = {.index = s->index, .term = 3, .digest = s->digest, .blocks_count = s->count,
                                .time_ms = engine_time_ms(s->engine), .wall_ms = 1234567, .node_id = 2,
                                .position_size = 5, .version = "0.1.0"};
    memset(h.cluster_id, 7, sizeof h.cluster_id);
    memcpy(h.position, "where", 5);
    struct checkpoint_meta meta = {.index = h.index, .term = h.term, .digest = h.digest,
                                   .time_ms = h.time_ms, .position_size = h.position_size,
                                   .blocks_count = h.blocks_count};
    memcpy(meta.position, h.position, h.position_size);
    uint8_t encoded[CHECKPOINT_META_SIZE_MAX];
    struct text chunk = TEXT_INIT;
    append_record(&chunk, CHECKPOINT_META_TABLE, 0, encoded, (uint32_t)checkpoint_meta_encode(&meta, encoded));
    CHECK(snapshot_writer_open(path, true, &h, &w, error) == 0);
    for (size_t i = 0; i < s->count; i++) {
        append_record(&chunk, s->blocks[i].table, s->blocks[i].number, s->blocks[i].data, s->blocks[i].size);
        if (i % CHUNK_BLOCKS == CHUNK_BLOCKS - 1 || i + 1 == s->count) {
            CHECK(snapshot_writer_put(w, chunk.data, chunk.len, crc32c(0, chunk.data, chunk.len), error) == 0);
            text_clear(&chunk);
        }
    }
    CHECK(snapshot_writer_commit(w, error) == 0);
    text_close(&chunk);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    for (ssize_t n; (n = read(fd, text_reserve(&good, 65536), 65536)) > 0;) {
        good.len += (size_t)n;
    }
    close(fd);
    engine_destroy(s->engine);
    free(s);
}

void fuzz_begin(void)
{
    snprintf(path, sizeof path, "%s/snapshot", fuzz_directory());
    make_good();
}

/* ---- the second way to the checksums (storage/README.md) ---- */

static void put_checksums_right(uint8_t *data, size_t size)
{
    if (size < SNAPSHOT_HEADER_SIZE) {
        return;
    }
    uint32_t header = load_u32(data + 12);
    if (header < SNAPSHOT_HEADER_SIZE || header > size) {
        return;
    }
    store_u32(data + header - 4, crc32c(0, data, header - 4));
    size_t at = header;
    while (size - at >= SNAPSHOT_CHUNK_HEAD && load_u32(data + at) == SNAPSHOT_CHUNK_MAGIC) {
        uint32_t length = load_u32(data + at + 12);
        if (length > size - at - SNAPSHOT_CHUNK_HEAD) {
            return;
        }
        uint32_t crc = crc32c(0, data + at, SNAPSHOT_CHUNK_HEAD - 4);
        store_u32(data + at + 16, crc32c(crc, data + at + SNAPSHOT_CHUNK_HEAD, length));
        at += SNAPSHOT_CHUNK_HEAD + length;
    }
    if (size - at < SNAPSHOT_TRAILER_SIZE || load_u32(data + at) != SNAPSHOT_TRAILER_MAGIC) {
        return;
    }
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(data, at + SNAPSHOT_TRAILER_HASH));
    memcpy(data + at + SNAPSHOT_TRAILER_HASH, &hash, sizeof hash);
    store_u32(data + at + SNAPSHOT_TRAILER_SIZE - 4, crc32c(0, data + at, SNAPSHOT_TRAILER_SIZE - 4));
}

/* ---- reading ---- */

struct seen {
    uint64_t count, last;
};

static int see(void *ctx, const struct engine_block *block)
{
    struct seen *s = ctx;
    uint64_t key = (uint64_t)block->table << 32 | block->number;
    CHECK(s->count == 0 || key > s->last);
    CHECK(block->size <= ENGINE_BLOCK_SIZE_MAX);
    s->last = key;
    s->count++;
    return 0;
}

/* Returns whether it is whole. */
static bool read_all(void)
{
    char error[SNAPSHOT_ERROR_SIZE] = "";
    struct snapshot_header h;
    struct snapshot_reader *r;
    struct seen seen = {0};
    if (snapshot_reader_open(path, &r, &h, error) != 0) {
        CHECK(strstr(error, "snapshot") != NULL);
        return false;
    }
    CHECK(h.position_size <= CHECKPOINT_POSITION_SIZE_MAX);
    CHECK(memchr(h.version, '\0', sizeof h.version) != NULL);
    int rv = snapshot_reader_blocks(r, see, &seen, error);
    CHECK(rv == 0 ? seen.count == h.blocks_count : strstr(error, "snapshot") != NULL);
    snapshot_reader_close(r);
    return rv == 0;
}

static bool load_all(void)
{
    static struct snapshot_contents contents;
    char error[SNAPSHOT_ERROR_SIZE] = "", text[256];
    struct snapshot_header h;
    struct engine *engine = NULL;
    if (snapshot_load(path, &h, &contents, &engine, error) != 0) {
        CHECK(error[0] != '\0');
        return false;
    }
    CHECK(engine_index(engine) == h.index && engine_digest(engine) == h.digest);
    CHECK(engine_check(engine, text, sizeof text) == 0);
    engine_destroy(engine);
    return true;
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct reader r = reader_init(data, size);
    uint8_t mode = reader_u8(&r) % AS_COUNT;
    if (mode == AS_FILE) {
        struct str file = fuzz_rest(&r);
        fuzz_write_file(path, file.ptr, file.len);
        bool whole = read_all();
        CHECK(load_all() == false || whole);
        return;
    }
    uint8_t *copy = malloc(good.len);
    size_t length = good.len;
    CHECK(copy != NULL);
    memcpy(copy, good.data, length);
    while (reader_left(&r) >= 3) {
        uint16_t at = reader_u16(&r);
        uint8_t value = reader_u8(&r);
        if (at == UINT16_MAX) {
            length = length * value / 256;
        } else {
            copy[at % good.len] = value;
        }
    }
    bool changed = length != good.len || memcmp(copy, good.data, length) != 0;
    if (mode == AS_RIGHT) {
        put_checksums_right(copy, length);
    }
    fuzz_write_file(path, copy, length);
    free(copy);
    bool whole = read_all(), loaded = load_all();
    CHECK(whole || !loaded);
    CHECK(changed || (whole && loaded));
    CHECK(!changed || mode == AS_RIGHT || !whole);
}

void fuzz_seeds(void)
{
    uint8_t *out = malloc(1 + good.len);
    CHECK(out != NULL);
    out[0] = AS_FILE;
    memcpy(out + 1, good.data, good.len);
    fuzz_seed("file", out, 1 + (good.len < 3000 ? good.len : 3000));
    free(out);
    fuzz_seed("whole", "\1", 1);
    fuzz_seed("right", "\2", 1);
    fuzz_seed("changed", "\1\x40\0\7", 4);
    fuzz_seed("right-head", "\2\x20\0\7\x30\0\1", 7);
    fuzz_seed("right-count", "\2\x38\0\7", 4);
    fuzz_seed("right-block", "\2\0\2\7\x10\3\1\xff\4\2", 10);
    fuzz_seed("cut", "\1\xff\xff\x80", 4);
}
