#include "tests/unit/raft/wal_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

int setup(void **state)
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

int teardown(void **state)
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

int try_open(struct fixture *f)
{
    wal_core_close(&f->core);
    wal_recovered_close(&f->recovered);
    return wal_core_open(&f->core, &f->config, &f->disk.io, &f->recovered);
}

void must_open(struct fixture *f)
{
    if (try_open(f) != 0) {
        fail_msg("refused: %s", f->core.error);
    }
}

void must_refuse(struct fixture *f, const char *word)
{
    if (try_open(f) == 0) {
        fail_msg("accepted, although %s", word);
    }
}

void block_begin(struct fixture *f)
{
    wal_block_init(&f->block, f->memory, wal_block_capacity_max(f->config.segment_size));
}

bool block_entry(struct fixture *f, struct model *m, uint64_t index, uint64_t term, uint64_t seed,
                 uint32_t size)
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

bool block_vote(struct fixture *f, struct model *m, uint64_t term, uint64_t vote)
{
    record_encode_vote(f->record, term, vote);
    if (!wal_block_add(&f->block, (const struct record_header *)(const void *)f->record)) {
        return false;
    }
    m->term = term;
    m->vote = vote;
    return true;
}

int block_end(struct fixture *f)
{
    struct wal_write write;
    if (wal_core_seal(&f->core, &f->block, &write) != 0) {
        return -1;
    }
    return wal_core_write(&f->core, &write);
}

void put_vote(struct fixture *f, uint64_t term, uint64_t vote)
{
    block_begin(f);
    assert_true(block_vote(f, &f->model, term, vote));
    assert_int_equal(block_end(f), 0);
}

void put(struct fixture *f, uint64_t index, uint64_t term, uint32_t size)
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

const char *compare(const struct fixture *f, const struct model *m)
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

void must_equal_model(struct fixture *f)
{
    must_open(f);
    const char *wrong = compare(f, &f->model);
    if (wrong != NULL) {
        fail_msg("differs: %s", wrong);
    }
}

char *segment_name(char *name, uint64_t number)
{
    wal_name(name, WAL_NAME_SEGMENT, number);
    return name;
}

void fill_for_damage(struct fixture *f)
{
    must_open(f);
    put_vote(f, 1, 1);
    for (uint64_t i = 1; i <= 24; i++) {
        put(f, i, 1, (uint32_t)(i * 1237 % 9000)); /* writes of one to three blocks */
    }
    assert_true(f->core.segments_count >= 4);
}
