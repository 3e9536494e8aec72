/* The log's recovery over a damaged disk in memory: what a crash cannot explain is refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/raft/wal_fixture.h"

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

/* Any damage at all: the log is refused, or whole, or lacks its last write; or its last n when n
 * places are damaged at once and happen to be just these. Never anything else. */
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

/* A record that reaches into a sector with zeros is whole although that sector was never written:
 * what comes behind it there is no damage. */
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
        assert_true(
            wal_block_add(&f->block, (const struct record_header *)(const void *)f->record));
    }
    assert_int_equal(block_end(f), 0);
    uint64_t salt = f->core.salt, sequence = f->core.sequence_next - 1;
    size_t span = (size_t)wal_round_up(f->block.size);
    memset(f->memory + SECTOR, 0, span - SECTOR);
    assert_false(wal_write_ok(f->memory, span, salt, sequence));
    assert_true(wal_write_may_be_torn(f->memory, span, salt, sequence));
    f->memory[sizeof(struct wal_write_header) + 8] ^= 1; /* in the sector that is whole: damage */
    wal_write_header_seal((struct wal_write_header *)(void *)f->memory);
    assert_true(
        wal_write_may_be_torn(f->memory, span, salt, sequence)); /* the record goes on outside */
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

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
