/* Checkpoints on disk: the judge of an LMDB file's structure, LMDB behind it, loading
 * (storage/checkpoint.h, checkpoint_verify.c).
 *
 * Input: first byte even: changes to the data file of a good checkpoint, (three bytes of offset, byte)
 * each; odd: the rest is written over its beginning. Second byte: what happens to CURRENT and the file's
 * length.
 * Asserted: never a crash, also not inside LMDB, whatever the file is: what would lead it astray is
 * refused before. What is accepted is exactly the good state: every block, unchanged. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "storage/checkpoint_internal.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/state.h"

static char directory[96], data_path[224], current_path[224], generation[CHECKPOINT_NAME_SIZE];
static struct state *state;
static uint8_t *good, *copy;
static size_t good_size;

static struct checkpoint_config config(void)
{
    struct checkpoint_config c = {.directory = directory, .map_size = 1 << 20, .node_id = 1};
    memset(c.cluster_id, 7, sizeof c.cluster_id);
    return c;
}

static int ignore_block(void *ctx, const struct engine_block *block)
{
    (void)ctx;
    (void)block;
    return 0;
}

static void make_checkpoint(void)
{
    struct checkpoint *c;
    struct checkpoint_install *install;
    struct checkpoint_config own = config();
    uv_loop_t loop;
    struct checkpoint_meta meta = {.index = state->index, .term = 3, .digest = state->digest,
                                   .time_ms = 2000, .position_size = 5, .blocks_count = state->count};
    struct text records = TEXT_INIT;
    memcpy(meta.position, "where", 5);
    CHECK(uv_loop_init(&loop) == 0);
    own.loop = &loop;
    CHECK(checkpoint_open(&own, &c) == 0);
    CHECK(checkpoint_install_begin(c, NULL, &install) == 0);
    CHECK(checkpoint_install_put_meta(install, &meta) == 0);
    for (size_t i = 0; i < state->count; i++) {
        const struct state_block *b = &state->blocks[i];
        const uint32_t head[3] = {b->table, b->number, b->size};
        text_append(&records, head, sizeof head);
        text_append(&records, b->data, b->size);
    }
    CHECK(checkpoint_install_put(install, records.data, records.len,
                                 crc32c(0, records.data, records.len)) == 0);
    CHECK(checkpoint_install_verify(install, ignore_block, NULL, &meta) == 0);
    CHECK(checkpoint_install_commit(install) == 0);
    text_close(&records);
    checkpoint_close(c, NULL, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&loop) == 0);
}

void fuzz_begin(void)
{
    char path[128];
    snprintf(directory, sizeof directory, "%s/node", fuzz_directory());
    CHECK(mkdir(directory, 0700) == 0);
    state = state_make();
    make_checkpoint();
    snprintf(path, sizeof path, "%s/checkpoint", directory);
    int64_t number = checkpoint_read_current(path);
    CHECK(number > 0);
    checkpoint_generation_name((uint64_t)number, false, generation);
    snprintf(data_path, sizeof data_path, "%s/%s/data.mdb", path, generation);
    snprintf(current_path, sizeof current_path, "%s/CURRENT", path);
    struct stat status;
    CHECK(stat(data_path, &status) == 0);
    good_size = (size_t)status.st_size;
    good = malloc(good_size);
    copy = malloc(good_size);
    CHECK(good != NULL && copy != NULL);
    int fd = open(data_path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && read(fd, good, good_size) == (ssize_t)good_size);
    close(fd);
}

static int compare_block(void *ctx, const struct engine_block *block)
{
    size_t *count = ctx;
    CHECK(*count < state->count);
    const struct state_block *b = &state->blocks[(*count)++];
    CHECK(block->table == b->table && block->number == b->number && block->size == b->size);
    CHECK(memcmp(block->data, b->data, b->size) == 0);
    return 0;
}

static void write_current(uint8_t what)
{
    char text[64];
    int n = snprintf(text, sizeof text, "%s\n", generation);
    if (what % 16 == 15) {
        text[what / 16 % n] ^= 1;
    } else if (what % 16 == 14) {
        n = what / 16 % n;
    }
    fuzz_write_file(current_path, text, (size_t)n);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct reader r = reader_init(data, size);
    struct checkpoint_config own = config();
    struct checkpoint_meta meta;
    uint8_t mode = reader_u8(&r), what = reader_u8(&r);
    size_t length = good_size;
    memcpy(copy, good, good_size);
    if (what >= 224) {
        length = good_size * (what - 224u) / 32;
    }
    if (mode % 2 == 1) {
        struct str raw = fuzz_rest(&r);
        memcpy(copy, raw.ptr, raw.len < good_size ? raw.len : good_size);
    } else {
        while (reader_left(&r) >= 4) {
            size_t at = reader_u16(&r);
            at |= (size_t)reader_u8(&r) << 16;
            copy[at % good_size] = reader_u8(&r);
        }
    }
    write_current(what < 224 ? what : 0);
    fuzz_write_file(data_path, copy, length);
    size_t count = 0;
    int rv = checkpoint_inspect(&own, compare_block, &count, &meta);
    CHECK(rv >= -1 && rv <= 1);
    if (rv == 1) {
        CHECK(count == state->count);
        CHECK(meta.index == state->index && meta.digest == state->digest);
    }
    if (length == good_size && memcmp(copy, good, good_size) == 0 && what < 14) {
        CHECK(rv == 1);
    }
}

void fuzz_seeds(void)
{
    uint8_t out[4098];
    fuzz_seed("good", "\0\0", 2);
    for (uint32_t page = 0; page < good_size / 4096 && page < 16; page++) {
        char name[32];
        uint8_t change[6] = {0, 0, 10, (uint8_t)(page << 4), (uint8_t)(page >> 4), 1};
        snprintf(name, sizeof name, "page-%02u-flags", page);
        fuzz_seed(name, change, sizeof change);
    }
    fuzz_seed("cut", "\0\xF0", 2);
    fuzz_seed("current", "\0\x1F", 2);
    out[0] = 1;
    out[1] = 0;
    memcpy(out + 2, good, 200);
    fuzz_seed("first-meta", out, 202);
}
