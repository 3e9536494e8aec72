/* The log's core over a disk in memory, with a naive model of what it must contain: for the tests
 * of its segments and recovery. */
#ifndef TESTS_UNIT_RAFT_WAL_FIXTURE_H
#define TESTS_UNIT_RAFT_WAL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raft/wal_format.h"
#include "tests/unit/raft/memory_disk.h"

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

/* An empty disk and a configuration; nothing is open yet. Fails when a write left its file. */
int setup(void **state);
int teardown(void **state);
/* Closes what is open and opens it again: what a restart does. */
int try_open(struct fixture *f);
void must_open(struct fixture *f);
/* The word says why it must be refused. */
void must_refuse(struct fixture *f, const char *word);
/* One write, record by record: an entry or vote that does not fit is not added, and false. What is
 * added is written into the model at once. */
void block_begin(struct fixture *f);
bool block_entry(struct fixture *f, struct model *m, uint64_t index, uint64_t term, uint64_t seed,
                 uint32_t size);
bool block_vote(struct fixture *f, struct model *m, uint64_t term, uint64_t vote);
/* Writes it: 0, or -1 when the disk failed. */
int block_end(struct fixture *f);
/* One write with one vote; one write with one entry. */
void put_vote(struct fixture *f, uint64_t term, uint64_t vote);
void put(struct fixture *f, uint64_t index, uint64_t term, uint32_t size);
/* NULL if what was recovered is what the model says, else what is wrong. */
const char *compare(const struct fixture *f, const struct model *m);
/* Opens again, and compares. */
void must_equal_model(struct fixture *f);
/* Into name, of WAL_IO_NAME_SIZE bytes, which it returns. */
char *segment_name(char *name, uint64_t number);
/* A log of at least four segments, to be damaged. */
void fill_for_damage(struct fixture *f);

#endif
