/* The log's segments and recovery over a disk in memory: what a crash leaves is recovered exactly,
 * what a crash cannot explain is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "memory_disk.h"
#include "raft/wal_format.h"

#define ENTRIES_MAX 4096

/* What the log must contain, kept naively. */
struct model {
    uint64_t base_index; /* everything up to here may be gone */
    uint64_t last_index;
    uint64_t term, vote;
    uint64_t terms[ENTRIES_MAX]; /* by index */
    uint64_t seeds[ENTRIES_MAX]; /* from which the data was made */
    uint32_t sizes[ENTRIES_MAX];
};

struct fixture {
    struct memory_disk disk;
    struct wal_core_config config;
    struct wal_core core;
    struct wal_recovered recovered;
    struct model model;
    uint8_t *memory; /* of one block */
    struct wal_block block;
    uint8_t record[RECORD_SPAN_MAX];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    memory_disk_init(&f->disk, 1);
    f->config = (struct wal_core_config){
        .node_id = 7, .segment_size = 8 * WAL_BLOCK_SIZE, .spares_min = 1, .spares_max = 2};
    memset(f->config.cluster_id, 0xAB, sizeof f->config.cluster_id);
    f->memory = aligned_alloc(WAL_BLOCK_SIZE, WAL_WRITE_SIZE_MAX);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(f->disk.writes_outside, 0);
    wal_core_close(&f->core);
    wal_recovered_close(&f->recovered);
    memory_disk_close(&f->disk);
    free(f->memory);
    free(f);
    return 0;
}

/* ---- helpers ---- */

static int try_open(struct fixture *f)
{
    wal_core_close(&f->core);
    wal_recovered_close(&f->recovered);
    return wal_core_open(&f->core, &f->config, &f->disk.io, &f->recovered);
}

static void must_open(struct fixture *f)
{
    if (try_open(f) != 0) {
        fail_msg("refused: %s", f->core.error);
    }
}

static void must_refuse(struct fixture *f, const char *word)
{
    if (try_open(f) == 0) {
        fail_msg("accepted, although %s", word);
    }
}

static void block_begin(struct fixture *f)
{
    wal_block_init(&f->block, f->memory, wal_block_capacity_max(f->config.segment_size));
}

static bool block_entry(struct fixture *f, struct model *m, uint64_t index, uint64_t term,
                        uint64_t seed, uint32_t size)
{
    struct prng p = prng_init(seed);
    static uint8_t data[RECORD_DATA_SIZE_MAX];
    for (uint32_t i = 0; i < size; i++) {
        data[i] = (uint8_t)prng_next(&p);
    }
    record_encode(f->record, RECORD_COMMAND, index, term, data, size);
    if (!wal_block_add(&f->block, (const struct record_header *)(const void *)f->record)) {
        return false;
    }
    CHECK(index < ENTRIES_MAX);
    m->last_index = index;
    m->terms[index] = term;
    m->seeds[index] = seed;
    m->sizes[index] = size;
    return true;
}

static bool block_vote(struct fixture *f, struct model *m, uint64_t term, uint64_t vote)
{
    record_encode_vote(f->record, term, vote);
    if (!wal_block_add(&f->block, (const struct record_header *)(const void *)f->record)) {
        return false;
    }
    m->term = term;
    m->vote = vote;
    return true;
}

static int block_end(struct fixture *f)
{
    struct wal_write write;
    if (wal_core_seal(&f->core, &f->block, &write) != 0) {
        return -1;
    }
    return wal_core_write(&f->core, &write);
}

/* One write with one vote; one write with one entry. */
static void put_vote(struct fixture *f, uint64_t term, uint64_t vote)
{
    block_begin(f);
    assert_true(block_vote(f, &f->model, term, vote));
    assert_int_equal(block_end(f), 0);
}

static void put(struct fixture *f, uint64_t index, uint64_t term, uint32_t size)
{
    block_begin(f);
    assert_true(block_entry(f, &f->model, index, term, index * 1000 + term, size));
    assert_int_equal(block_end(f), 0);
}

static bool entry_equal(const struct model *m, const struct record_header *r, uint64_t index)
{
    if (r->index != index || r->term != m->terms[index] || r->size != m->sizes[index]) {
        return false;
    }
    struct prng p = prng_init(m->seeds[index]);
    const uint8_t *data = record_data(r);
    for (uint32_t i = 0; i < r->size; i++) {
        if (data[i] != (uint8_t)prng_next(&p)) {
            return false;
        }
    }
    return true;
}

/* NULL if what was recovered is what the model says, else what is wrong. */
static const char *compare(const struct fixture *f, const struct model *m)
{
    const struct wal_recovered *r = &f->recovered;
    if (r->term != m->term || r->vote != m->vote) {
        return "term or vote";
    }
    if (r->base_index + r->count != m->last_index) {
        return "last index";
    }
    if (r->base_index > m->base_index) {
        return "entries are missing at the front";
    }
    for (size_t i = 0; i < r->count; i++) {
        uint64_t index = r->base_index + 1 + i;
        if (index > m->base_index && !entry_equal(m, r->entries[i], index)) {
            return "an entry";
        }
    }
    return NULL;
}

static void must_equal_model(struct fixture *f)
{
    must_open(f);
    const char *wrong = compare(f, &f->model);
    if (wrong != NULL) {
        fail_msg("differs: %s", wrong);
    }
}

static char *segment_name(char *name, uint64_t number)
{
    wal_name(name, WAL_NAME_SEGMENT, number);
    return name;
}

/* ---- the good path ---- */

static void test_round_trip(void **state)
{
    struct fixture *f = *state;
    must_open(f);
    assert_true(f->recovered.fresh);
    assert_int_equal(f->recovered.count, 0);
    put_vote(f, 3, 2);
    for (uint64_t i = 1; i <= 20; i++) {
        put(f, i, 1 + i / 10, (uint32_t)(i * 97 % 3000));
    }
    must_equal_model(f);
    assert_false(f->recovered.fresh);
    assert_int_equal(f->recovered.torn_bytes, 0);
    /* Opening twice changes nothing; going on works. */
    must_equal_model(f);
    put(f, 21, 3, 0);
    put(f, 22, 3, 1);
    must_equal_model(f);
}

static void test_group_of_records_in_one_write(void **state)
{
    struct fixture *f = *state;
    must_open(f);
    put_vote(f, 1, 1);
    block_begin(f);
    for (uint64_t i = 1; i <= 100; i++) {
        assert_true(block_entry(f, &f->model, i, 1, i, (uint32_t)i));
    }
    assert_true(block_vote(f, &f->model, 2, 5));
    assert_int_equal(block_end(f), 0);
    must_equal_model(f);
    assert_int_equal(f->recovered.count, 100);
}

static void test_block_refuses_what_does_not_fit(void **state)
{
    struct fixture *f = *state;
    must_open(f);
    put_vote(f, 1, 0);
    uint32_t largest =
        (uint32_t)(wal_record_size_max(f->config.segment_size) - sizeof(struct record_header));
    block_begin(f);
    assert_false(block_entry(f, &f->model, 1, 1, 1, largest + 1));
    assert_true(block_entry(f, &f->model, 1, 1, 1, largest));
    assert_false(block_entry(f, &f->model, 2, 1, 1, 0));
    assert_int_equal(block_end(f), 0);
    must_equal_model(f);
}

static void test_override_truncates(void **state)
{
    struct fixture *f = *state;
    must_open(f);
    put_vote(f, 1, 0);
    for (uint64_t i = 1; i <= 30; i++) {
        put(f, i, 1, 500);
    }
    put_vote(f, 2, 0);
    put(f, 12, 2, 100); /* everything from 12 on is replaced, across segments */
    put(f, 13, 2, 100);
    must_equal_model(f);
    assert_int_equal(f->recovered.count, 13);
    put_vote(f, 3, 0);
    put(f, 1, 3, 10);
    must_equal_model(f);
    assert_int_equal(f->recovered.count, 1);
    assert_int_equal(f->recovered.base_index, 0);
}

static void test_trim_recycles(void **state)
{
    struct fixture *f = *state;
    must_open(f);
    put_vote(f, 1, 4);
    for (uint64_t i = 1; i <= 2000; i++) {
        put(f, i, 1, (uint32_t)(i * 131 % 9000));
        if (i % 10 == 0) {
            f->model.base_index = i - 5;
            assert_int_equal(wal_core_trim(&f->core, i - 5), 0);
            assert_true(f->core.segments_count <= 8);
            assert_true(f->core.spares_count <= f->config.spares_max);
        }
        if (i % 97 == 0) {
            must_equal_model(f);
            assert_true(f->recovered.base_index > 0 || i < 100);
        }
    }
    assert_true(f->core.segments[0].number > 300);
    must_equal_model(f);
    assert_int_equal(f->recovered.term, 1); /* although that record is long gone */
    assert_int_equal(f->recovered.vote, 4);
    assert_int_equal(f->recovered.base_term, 1);
    /* Never the current segment, whatever is asked. */
    f->model.base_index = 2000;
    assert_int_equal(wal_core_trim(&f->core, UINT64_MAX), 0);
    assert_int_equal(f->core.segments_count, 1);
    must_equal_model(f);
}

/* The bound of docs/limits.md: what is kept is what was asked to be kept, plus the rest of the segment that
 * it begins in and of the one being written, plus spares; also when trimming lags and comes in jumps. */
static void test_space_is_bounded(void **state)
{
    struct fixture *f = *state;
    struct prng p = prng_init(11);
    uint64_t trimmed = 0;
    /* One block each; the first is the header, the last is for the mark that the log goes on. */
    const uint64_t writes_per_segment = f->config.segment_size / WAL_BLOCK_SIZE - 2;
    must_open(f);
    put_vote(f, 1, 0);
    for (uint64_t i = 1; i < ENTRIES_MAX; i++) {
        put(f, i, 1, 100);
        if (prng_one_in(&p, 40)) { /* now and then, and behind by up to 200 entries */
            uint64_t lag = prng_below(&p, 200);
            trimmed = i > lag && i - lag > trimmed ? i - lag : trimmed;
            assert_int_equal(wal_core_trim(&f->core, trimmed), 0);
        }
        uint64_t kept = i - trimmed;
        /* The parts that are not needed of the oldest and the current one, and one that was the current
         * one, and full, when the log was trimmed last. */
        assert_true(f->core.segments_count <= kept / writes_per_segment + 3);
        assert_true(f->core.spares_count <= f->config.spares_max);
    }
    assert_int_equal(wal_core_trim(&f->core, ENTRIES_MAX), 0);
    assert_int_equal(f->core.segments_count, 1);
}

static void test_reset(void **state)
{
    struct fixture *f = *state;
    must_open(f);
    put_vote(f, 5, 2);
    for (uint64_t i = 1; i <= 40; i++) {
        put(f, i, 4, 2000);
    }
    block_begin(f);
    wal_block_add_reset(&f->block, 1000, 5);
    assert_int_equal(block_end(f), 0);
    f->model.base_index = f->model.last_index = 1000;
    must_equal_model(f);
    assert_int_equal(f->recovered.base_index, 1000);
    assert_int_equal(f->recovered.base_term, 5);
    assert_int_equal(f->recovered.count, 0);
    assert_true(f->core.segments_count > 1);
    assert_int_equal(wal_core_trim(&f->core, 0), 0);
    assert_int_equal(f->core.segments_count, 1); /* everything before is void */
    put(f, 1001, 5, 300);
    put(f, 1002, 5, 300);
    must_equal_model(f);
    assert_int_equal(f->recovered.count, 2);
    assert_int_equal(f->recovered.vote, 2);
    for (uint64_t i = 1003; i <= 1030; i++) {
        put(f, i, 5, 2000);
    }
    assert_true(f->core.segments_count > 1);
    /* Backwards too: a log that is ahead of its checkpoint is dropped to it. */
    block_begin(f);
    wal_block_add_reset(&f->block, 50, 5);
    assert_true(block_entry(f, &f->model, 51, 5, 1, 20));
    assert_int_equal(block_end(f), 0);
    f->model.base_index = 50;
    assert_int_equal(wal_core_trim(&f->core, 0), 0);
    assert_int_equal(f->core.segments_count, 1); /* without a restart in between as well */
    must_equal_model(f);
}

/* ---- torn writes ---- */

/* Every cut of a last write of three blocks, and random subsets of its sectors. Then the log goes
 * on, once in place and once with a write so large that it needs the next segment. */
static void test_torn_last_write(void **state)
{
    struct fixture *f = *state;
    for (int round = 0; round < 24 * 2 + 60; round++) {
        teardown(state);
        setup(state);
        f = *state;
        memory_disk_init(&f->disk, (uint64_t)round + 1);
        must_open(f);
        put_vote(f, 1, 1);
        put(f, 1, 1, 100);
        put(f, 2, 1, 3000);
        struct model before = f->model;
        f->disk.crash_at = f->disk.operations + 1;
        f->disk.tear_prefix = round < 48;
        f->disk.tear_sectors = (uint64_t)round / 2; /* 0..23 of 24 */
        block_begin(f);
        assert_true(block_entry(f, &f->model, 3, 1, 3, 7000));
        assert_true(block_entry(f, &f->model, 4, 1, 4, 5000));
        assert_int_equal(block_end(f), -1);
        assert_non_null(strstr(f->core.error, ".wal offset "));
        assert_int_equal(f->disk.last_write_size, 24 * SECTOR);
        memory_disk_revive(&f->disk);
        must_open(f);
        /* All of it (if by chance every sector made it) or nothing of it. */
        if (compare(f, &f->model) != NULL) {
            assert_null(compare(f, &before));
            f->model = before;
        } else {
            assert_false(f->disk.tear_prefix);
        }
        uint64_t next = f->model.last_index + 1;
        put(f, next, 1, round % 2 == 0 ? 10 : 20000);
        must_equal_model(f);
        put(f, next + 1, 1, 10);
        must_equal_model(f);
    }
}

/* ---- damage ---- */

static void fill_for_damage(struct fixture *f)
{
    must_open(f);
    put_vote(f, 1, 1);
    for (uint64_t i = 1; i <= 24; i++) {
        put(f, i, 1, (uint32_t)(i * 1237 % 9000)); /* writes of one to three blocks */
    }
    assert_true(f->core.segments_count >= 4);
}

static void test_every_flipped_bit_is_refused(void **state)
{
    struct fixture *f = *state;
    fill_for_damage(f);
    must_open(f);
    uint64_t first = f->core.segments[0].number, last = first + f->core.segments_count - 1;
    uint64_t end = f->core.offset;
    /* Where does the last write begin? Damage in it looks like a crash: see below. */
    char name[WAL_IO_NAME_SIZE];
    struct memory_file *file = memory_disk_find(&f->disk, segment_name(name, last));
    uint64_t last_begin = WAL_BLOCK_SIZE;
    for (uint64_t at = WAL_BLOCK_SIZE; at < end;) {
        const struct wal_write_header *h = (const void *)(file->data + at);
        last_begin = at;
        at += wal_round_up(h->size);
    }
    struct prng p = prng_init(99);
    unsigned refused = 0;
    for (uint64_t number = first; number <= last; number++) {
        file = memory_disk_find(&f->disk, segment_name(name, number));
        uint64_t used = number == last ? last_begin : file->size;
        if (number != last) { /* up to the last write of that segment */
            const struct wal_segment_header *h = (const void *)file->data;
            uint64_t at = WAL_BLOCK_SIZE;
            const struct wal_write_header *write = (const void *)(file->data + at);
            while (at < file->size && wal_write_header_ok(write, h->salt) && write->flags == 0) {
                at += wal_round_up(write->size);
                write = (const void *)(file->data + at);
            }
            assert_true(write->flags == WAL_WRITE_CONTINUES); /* nobody needs this one now */
            used = at;
        }
        for (uint64_t block = 0; block < used; block += WAL_BLOCK_SIZE) {
            for (int k = 0; k < 24; k++) {
                /* The first bytes hold the headers: favour them. */
                uint64_t byte = block + prng_below(&p, k < 12 ? 128 : WAL_BLOCK_SIZE);
                uint8_t bit = (uint8_t)(1u << prng_below(&p, 8));
                file->data[byte] ^= bit;
                must_refuse(f, "a bit was flipped");
                assert_non_null(strstr(f->core.error, name));
                assert_non_null(strstr(f->core.error, "Nothing was changed"));
                file->data[byte] ^= bit;
                refused++;
            }
        }
    }
    assert_true(refused > 500);
    must_equal_model(f);
    /* In the very last write: no crash leaves a sector that is whole and wrong. */
    file = memory_disk_find(&f->disk, segment_name(name, last));
    for (uint64_t byte = last_begin; byte < last_begin + SECTOR - 8; byte++) {
        file->data[byte] ^= 1;
        if (byte < last_begin + 64) { /* the write's own header */
            must_refuse(f, "the last write's header is damaged");
            assert_non_null(strstr(f->core.error, "the last write"));
        } else if (try_open(f) == 0) { /* its record reaches into sectors that may be of before */
            struct model lost = f->model;
            lost.last_index--;
            assert_null(compare(f, &lost));
        }
        file->data[byte] ^= 1;
    }
    /* A sector that is as before cannot be told from a crash: that write is left out, no more. */
    memset(file->data + last_begin + 2 * SECTOR, 0, SECTOR);
    f->model.last_index--;
    must_equal_model(f);
    assert_true(f->recovered.torn_bytes > 0);
}

/* What was written before a clean stop is out of doubt: behind it is a mark that nobody needs. */
static void test_after_a_clean_stop_all_damage_is_found(void **state)
{
    struct fixture *f = *state;
    must_open(f);
    put_vote(f, 1, 1);
    put(f, 1, 1, 700);
    uint64_t begin = f->core.offset;
    put(f, 2, 1, 2000);
    assert_int_equal(wal_core_mark(&f->core), 0);
    uint64_t mark = f->core.offset - WAL_BLOCK_SIZE;
    must_equal_model(f);
    char name[WAL_IO_NAME_SIZE];
    struct memory_file *file = memory_disk_find(&f->disk, segment_name(name, 1));
    for (uint64_t sector = begin; sector < begin + 2112; sector += SECTOR) {
        uint8_t kept[SECTOR];
        memcpy(kept, file->data + sector, SECTOR);
        memset(file->data + sector, 0, SECTOR);
        must_refuse(f, "a sector of the last entry was lost");
        memcpy(file->data + sector, kept, SECTOR);
    }
    memset(file->data + mark, 0, WAL_BLOCK_SIZE);
    must_equal_model(f);
}

/* The newest files are gone, and it is noticed. */
static void test_missing_newest_segment_is_refused(void **state)
{
    struct fixture *f = *state;
    fill_for_damage(f);
    uint64_t first = f->core.segments[0].number, last = first + f->core.segments_count - 1;
    for (uint64_t number = last; number > first; number--) {
        char name[WAL_IO_NAME_SIZE];
        segment_name(name, number);
        assert_int_equal(f->disk.io.unlink(&f->disk.io, name), 0);
        must_refuse(f, "the newest segment is gone");
        assert_non_null(strstr(f->core.error, name));
    }
}

/* Wounds a random place of a random file in a random way. */
static void wound(struct memory_disk *d, struct prng *p)
{
    struct memory_file *files[2];
    uint64_t at[2];
    size_t span = prng_one_in(p, 2) ? SECTOR : WAL_BLOCK_SIZE;
    for (int k = 0; k < 2; k++) {
        do {
            files[k] = &d->files[prng_below(p, MEMORY_DISK_FILES)];
        } while (files[k]->data == NULL);
        at[k] = prng_below(p, files[k]->size / span) * span;
    }
    uint8_t *a = files[0]->data + at[0], *b = files[1]->data + at[1];
    uint8_t kept[WAL_BLOCK_SIZE];
    memcpy(kept, a, span);
    switch (prng_below(p, 5)) {
    case 0:
        a[prng_below(p, span)] ^= (uint8_t)(1u << prng_below(p, 8));
        break;
    case 1: /* lost */
        memset(a, 0, span);
        break;
    case 2: /* misdirected */
        memcpy(b, kept, span);
        break;
    case 3: /* swapped */
        memmove(a, b, span);
        memcpy(b, kept, span);
        break;
    default:
        for (size_t i = 0; i < span; i++) {
            a[i] = (uint8_t)prng_next(p);
        }
        break;
    }
}

/* Any damage at all: the log is refused, or whole, or lacks its last write; or its last n when n places
 * are damaged at once and happen to be just these. Never anything else. */
static void test_random_damage(void **state)
{
    struct fixture *f = *state;
    fill_for_damage(f);
    struct model whole = f->model;
    struct memory_disk pristine;
    memory_disk_copy(&pristine, &f->disk);
    struct prng p = prng_init(7);
    unsigned refused = 0, unharmed = 0, shorter = 0;
    for (int round = 0; round < 4000; round++) {
        memory_disk_close(&f->disk);
        memory_disk_copy(&f->disk, &pristine);
        uint64_t wounds = 1 + prng_below(&p, 3);
        for (uint64_t i = 0; i < wounds; i++) {
            wound(&f->disk, &p);
        }
        if (try_open(f) != 0) {
            refused++;
            continue;
        }
        struct model lost = whole;
        while (compare(f, &lost) != NULL && whole.last_index - lost.last_index < wounds) {
            lost.last_index--;
        }
        const char *wrong = compare(f, &lost);
        if (wrong != NULL) {
            fail_msg("round %d: recovered something else: %s", round, wrong);
        }
        unharmed += lost.last_index == whole.last_index; /* a spare was hit, or behind the end */
        shorter += lost.last_index != whole.last_index;
    }
    assert_true(refused > 1000);
    assert_true(unharmed > 100);
    assert_true(shorter < refused / 10);
    memory_disk_close(&pristine);
}

/* A write that never reached the disk, though a later one did. */
static void test_lost_write_is_refused(void **state)
{
    struct fixture *f = *state;
    must_open(f);
    put_vote(f, 1, 1);
    put(f, 1, 1, 10);
    uint64_t offset = f->core.offset;
    put(f, 2, 1, 10);
    put(f, 3, 1, 10);
    char name[WAL_IO_NAME_SIZE];
    struct memory_file *file = memory_disk_find(&f->disk, segment_name(name, 1));
    memset(file->data + offset, 0, WAL_BLOCK_SIZE);
    must_refuse(f, "a write is missing");
    char place[64];
    snprintf(place, sizeof place, "offset %llu", (unsigned long long)offset);
    assert_non_null(strstr(f->core.error, place));
    /* And one that went to the wrong place. */
    memcpy(file->data + offset, file->data + offset + WAL_BLOCK_SIZE, WAL_BLOCK_SIZE);
    must_refuse(f, "a write is in the wrong place");
}

static void test_missing_segment_is_refused(void **state)
{
    struct fixture *f = *state;
    fill_for_damage(f);
    size_t count = f->core.segments_count;
    for (uint64_t number = 2; number < count; number++) {
        struct fixture *g = calloc(1, sizeof *g);
        g->config = f->config;
        memory_disk_copy(&g->disk, &f->disk);
        g->disk.io = f->disk.io;
        char name[WAL_IO_NAME_SIZE];
        g->disk.io.unlink(&g->disk.io, segment_name(name, number));
        must_refuse(g, "a segment is missing");
        assert_non_null(strstr(g->core.error, name));
        assert_non_null(strstr(g->core.error, "missing"));
        memory_disk_close(&g->disk);
        free(g);
    }
}

static void test_cut_or_swapped_files_are_refused(void **state)
{
    struct fixture *f = *state;
    fill_for_damage(f);
    char a[WAL_IO_NAME_SIZE], b[WAL_IO_NAME_SIZE];
    struct memory_file *two = memory_disk_find(&f->disk, segment_name(a, 2));
    uint64_t size = two->size;
    for (uint64_t cut = 0; cut < size; cut += 1000) {
        two->size = cut;
        must_refuse(f, "a segment was cut");
        assert_non_null(strstr(f->core.error, a));
    }
    two->size = size;
    struct memory_file *three = memory_disk_find(&f->disk, segment_name(b, 3));
    struct memory_file swap = *two;
    *two = *three;
    *three = swap;
    must_refuse(f, "two segments were swapped");
    swap = *two;
    *two = *three;
    *three = swap;
    must_equal_model(f);
}

static void test_foreign_logs_are_refused(void **state)
{
    struct fixture *f = *state;
    fill_for_damage(f);
    f->config.node_id = 8;
    must_refuse(f, "it is another node's");
    assert_non_null(strstr(f->core.error, "node 7"));
    f->config.node_id = 7;
    f->config.cluster_id[3] ^= 1;
    must_refuse(f, "it is another cluster's");
    assert_non_null(strstr(f->core.error, "another cluster"));
    f->config.cluster_id[3] ^= 1;
    char name[WAL_IO_NAME_SIZE];
    struct memory_file *file = memory_disk_find(&f->disk, segment_name(name, 1));
    struct wal_segment_header *h = (struct wal_segment_header *)(void *)file->data;
    h->version = WAL_VERSION + 1;
    wal_segment_header_seal(file->data);
    must_refuse(f, "its format is newer");
    assert_non_null(strstr(f->core.error, "newer"));
    h->version = WAL_VERSION;
    wal_segment_header_seal(file->data);
    must_equal_model(f);
}

/* A recycled segment is full of writes that were valid in its earlier life, at the same offsets and
 * of the same shape. */
static void test_stale_writes_of_a_recycled_segment(void **state)
{
    struct fixture *f = *state;
    f->config.spares_min = 0;
    must_open(f);
    put_vote(f, 1, 1);
    for (uint64_t i = 1; i <= 600; i++) {
        put(f, i, 1, 64);
        f->model.base_index = i - 1;
        assert_int_equal(wal_core_trim(&f->core, i - 1), 0);
        if (i > 100) { /* every position in a recycled segment, with the old data behind it */
            must_equal_model(f);
            assert_true(f->recovered.count < 20);
        }
    }
    assert_true(f->core.segments_count <= 2);
}

/* What binds a write together, one thing at a time. */
static void test_what_makes_a_write_valid(void **state)
{
    struct fixture *f = *state;
    must_open(f);
    block_begin(f);
    assert_true(block_vote(f, &f->model, 1, 0));
    assert_true(block_entry(f, &f->model, 1, 1, 1, 40));
    assert_true(block_entry(f, &f->model, 2, 1, 2, 40));
    assert_int_equal(block_end(f), 0);
    uint64_t salt = f->core.salt, sequence = f->core.sequence_next - 1;
    size_t span = (size_t)wal_round_up(f->block.size);
    assert_true(wal_write_ok(f->memory, span, salt, sequence));
    assert_false(wal_write_ok(f->memory, span, salt + 1, sequence)); /* an earlier life */
    assert_false(wal_write_ok(f->memory, span, salt, sequence + 1));
    assert_false(wal_write_ok(f->memory, span - 1, salt, sequence));
    /* A record that is valid in itself, but was left there by an earlier write. */
    size_t at = f->block.size - record_span(40);
    uint8_t data[40] = {0};
    record_encode(f->memory + at, RECORD_COMMAND, 2, 1, data, sizeof data);
    assert_false(wal_write_ok(f->memory, span, salt, sequence));
}

/* A record that reaches into a sector with zeros is whole although that sector was never written: what
 * comes behind it there is no damage. */
static void test_zeros_of_a_torn_write(void **state)
{
    struct fixture *f = *state;
    must_open(f);
    put_vote(f, 1, 1);
    static const uint8_t zeros[SECTOR];
    uint32_t size =
        (uint32_t)(SECTOR + 8 - sizeof(struct wal_write_header) - sizeof(struct record_header));
    block_begin(f);
    for (uint64_t index = 1; index <= 2; index++) {
        record_encode(f->record, RECORD_COMMAND, index, 1, zeros, size);
        assert_true(wal_block_add(&f->block, (const struct record_header *)(const void *)f->record));
    }
    assert_int_equal(block_end(f), 0);
    uint64_t salt = f->core.salt, sequence = f->core.sequence_next - 1;
    size_t span = (size_t)wal_round_up(f->block.size);
    memset(f->memory + SECTOR, 0, span - SECTOR);
    assert_false(wal_write_ok(f->memory, span, salt, sequence));
    assert_true(wal_write_may_be_torn(f->memory, span, salt, sequence));
    f->memory[sizeof(struct wal_write_header) + 8] ^= 1; /* in the sector that is whole: damage */
    wal_write_header_seal((struct wal_write_header *)(void *)f->memory);
    assert_true(wal_write_may_be_torn(f->memory, span, salt, sequence)); /* the record goes on outside */
    record_encode(f->memory + sizeof(struct wal_write_header), RECORD_COMMAND, 1, 1, zeros, 8);
    f->memory[sizeof(struct wal_write_header) + 8] ^= 1;
    assert_false(wal_write_may_be_torn(f->memory, span, salt, sequence));
}

/* A client may choose the bytes of its commands. In a write that a crash left incomplete they must
 * not pass for a newer write: the node would refuse to start. */
static void test_forged_header_in_a_torn_write(void **state)
{
    struct fixture *f = *state;
    must_open(f);
    put_vote(f, 1, 1);
    static uint8_t data[3 * WAL_BLOCK_SIZE];
    /* In the second block of the write: behind the headers of the write and of the record. */
    size_t at = WAL_BLOCK_SIZE - sizeof(struct wal_write_header) - sizeof(struct record_header);
    struct wal_write_header forged = {.salt = 0x1234, .sequence = 1000, .size = 64};
    wal_write_header_seal(&forged);
    memcpy(data + at, &forged, sizeof forged);
    record_encode(f->record, RECORD_COMMAND, 1, 1, data, sizeof data);
    block_begin(f);
    assert_true(wal_block_add(&f->block, (const struct record_header *)(const void *)f->record));
    char name[WAL_IO_NAME_SIZE];
    uint64_t offset = f->core.offset;
    assert_int_equal(block_end(f), 0);
    struct memory_file *file = memory_disk_find(&f->disk, segment_name(name, 1));
    assert_memory_equal(file->data + offset + WAL_BLOCK_SIZE, &forged, sizeof forged);
    memset(file->data + offset, 0, SECTOR); /* the one sector that did not make it */
    must_equal_model(f);
    assert_int_equal(f->recovered.count, 0);
}

/* ---- spares and sizes ---- */

static void test_left_over_files_are_tidied(void **state)
{
    struct fixture *f = *state;
    must_open(f);
    put_vote(f, 1, 1);
    struct wal_io *io = &f->disk.io;
    io->create(io, "spare-00000000000000aa.tmp", 4096);
    io->create(io, "spare-00000000000000ab.wal", 12288); /* another segment size */
    io->create(io, "notes.txt", 10);
    io->create(io, "lock", 10);
    io->sync_dir(io);
    must_equal_model(f);
    assert_null(memory_disk_find(&f->disk, "spare-00000000000000aa.tmp"));
    assert_null(memory_disk_find(&f->disk, "spare-00000000000000ab.wal"));
    assert_non_null(memory_disk_find(&f->disk, "notes.txt"));
    assert_true(f->core.spare_number_next > 0xab);
}

static void test_segment_size_may_change(void **state)
{
    struct fixture *f = *state;
    must_open(f);
    put_vote(f, 1, 1);
    uint64_t index = 0;
    const uint64_t blocks[] = {8, 3, 20, 5};
    for (size_t k = 0; k < ARRAY_COUNT(blocks); k++) {
        f->config.segment_size = blocks[k] * WAL_BLOCK_SIZE;
        must_equal_model(f);
        for (int i = 0; i < 30; i++) {
            put(f, ++index, 1, 3000);
        }
        f->model.base_index = index - 10;
        assert_int_equal(wal_core_trim(&f->core, index - 10), 0);
    }
    must_equal_model(f);
}

static void test_disk_full(void **state)
{
    struct fixture *f = *state;
    f->config.spares_min = 0;
    must_open(f);
    put_vote(f, 1, 1);
    f->disk.crash_at =
        f->disk.operations + 3; /* some write, then the next segment cannot be made */
    int rv = 0;
    for (uint64_t i = 1; rv == 0 && i < 100; i++) {
        block_begin(f);
        assert_true(block_entry(f, &f->model, i, 1, i, 12000));
        rv = block_end(f);
    }
    assert_int_equal(rv, -1);
    assert_non_null(strstr(f->core.error, ".wal"));
    f->model.last_index--;
    memory_disk_revive(&f->disk);
    must_equal_model(f);
}

/* ---- everything at once ---- */

/* One random request. Updates the model; -1 when the disk died under it. */
static int random_request(struct fixture *f, struct prng *p)
{
    struct model *m = &f->model;
    uint64_t dice = prng_below(p, 100);
    if (dice < 12) {
        uint64_t upto = m->base_index;
        if (m->last_index > m->base_index) {
            upto += prng_below(p, m->last_index - m->base_index + 1);
        }
        m->base_index = upto;
        return wal_core_trim(&f->core, upto);
    }
    block_begin(f);
    if (dice < 14) {
        uint64_t index = m->base_index + prng_below(p, 30);
        wal_block_add_reset(&f->block, index, m->term);
        m->base_index = m->last_index = index;
    }
    uint64_t records = prng_below(p, 6) + (dice < 14 ? 0 : 1);
    for (uint64_t i = 0; i < records; i++) {
        if (prng_one_in(p, 5)) {
            if (!block_vote(f, m, m->term + 1, prng_below(p, 4))) {
                break;
            }
            continue;
        }
        uint64_t index = m->last_index + 1;
        if (prng_one_in(p, 12) && m->last_index > m->base_index) {
            index = m->base_index + 1 + prng_below(p, m->last_index - m->base_index);
        }
        if (!block_entry(f, m, index, m->term, prng_next(p), (uint32_t)prng_below(p, 4000))) {
            break;
        }
    }
    if (f->block.count == 0 && !f->block.has_reset) {
        return 0;
    }
    bool resets = f->block.has_reset;
    int rv = block_end(f);
    return rv == 0 && resets ? wal_core_trim(&f->core, 0) : rv;
}

/* Random requests, a crash at a random operation (of the request, of a switch of segments, of
 * recycling or of the next open), recovery: exactly the state before or after the request that was
 * under way. */
static void test_random_crashes(void **state)
{
    uint64_t crashes = 0, after = 0, runs = 150;
    for (uint64_t seed = 1; seed <= runs; seed++) {
        teardown(state);
        setup(state);
        struct fixture *f = *state;
        struct prng p = prng_init(seed);
        memory_disk_init(&f->disk, seed);
        f->config.segment_size = (3 + prng_below(&p, 8)) * WAL_BLOCK_SIZE;
        f->config.spares_max = (unsigned)prng_below(&p, 4);
        f->config.spares_min = (unsigned)prng_below(&p, f->config.spares_max + 1);
        must_open(f);
        block_begin(f);
        assert_true(block_vote(f, &f->model, 1, 1));
        assert_int_equal(block_end(f), 0);
        for (int round = 0; round < 12; round++) {
            f->disk.crash_at = f->disk.operations + 1 + prng_below(&p, 40);
            struct model before = f->model;
            int rv = 0;
            for (int i = 0; rv == 0 && f->model.last_index < ENTRIES_MAX - 100; i++) {
                before = f->model;
                rv = random_request(f, &p);
            }
            assert_int_equal(rv, -1);
            crashes++;
            memory_disk_revive(&f->disk);
            /* Sometimes recovery itself dies, several times. */
            while (prng_one_in(&p, 3)) {
                f->disk.crash_at = f->disk.operations + 1 + prng_below(&p, 3);
                (void)try_open(f);
                f->disk.dead = true;
                memory_disk_revive(&f->disk);
            }
            if (try_open(f) != 0) {
                fail_msg("seed %llu round %d: refused: %s", (unsigned long long)seed, round,
                         f->core.error);
            }
            const char *wrong = compare(f, &f->model);
            after += wrong == NULL;
            if (wrong != NULL) {
                wrong = compare(f, &before);
                f->model = before;
            }
            if (wrong != NULL) {
                fail_msg("seed %llu round %d: differs: %s", (unsigned long long)seed, round, wrong);
            }
        }
    }
    assert_int_equal(crashes, runs * 12);
    assert_true(after > 10); /* both outcomes do occur */
    assert_true(after < crashes - 10);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip),
        TEST(test_group_of_records_in_one_write),
        TEST(test_block_refuses_what_does_not_fit),
        TEST(test_override_truncates),
        TEST(test_trim_recycles),
        TEST(test_space_is_bounded),
        TEST(test_reset),
        TEST(test_torn_last_write),
        TEST(test_every_flipped_bit_is_refused),
        TEST(test_after_a_clean_stop_all_damage_is_found),
        TEST(test_missing_newest_segment_is_refused),
        TEST(test_random_damage),
        TEST(test_lost_write_is_refused),
        TEST(test_missing_segment_is_refused),
        TEST(test_cut_or_swapped_files_are_refused),
        TEST(test_foreign_logs_are_refused),
        TEST(test_stale_writes_of_a_recycled_segment),
        TEST(test_what_makes_a_write_valid),
        TEST(test_forged_header_in_a_torn_write),
        TEST(test_zeros_of_a_torn_write),
        TEST(test_left_over_files_are_tidied),
        TEST(test_segment_size_may_change),
        TEST(test_disk_full),
        TEST(test_random_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
