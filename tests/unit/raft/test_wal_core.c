/* The log's segments and recovery over a disk in memory: what was written, and what a crash leaves,
 * is recovered exactly. */
#include <string.h>

#include "base/check.h"
#include "tests/unit/raft/wal_fixture.h"

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

/* The bound of docs/limits.md: what is kept is what was asked to be kept, plus the rest of the
 * segment that it begins in and of the one being written, plus spares; also when trimming lags and
 * comes in jumps. */
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
        /* The parts that are not needed of the oldest and the current one, and one that was the
         * current one, and full, when the log was trimmed last. */
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
        TEST(test_left_over_files_are_tidied),
        TEST(test_segment_size_may_change),
        TEST(test_disk_full),
        TEST(test_random_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
