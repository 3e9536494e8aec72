/* What every fuzz target is made of: three functions of its own, and a reader for those that take their
 * input as a script rather than as bytes.
 *
 * A target is one file, fuzz_NAME.c. It asserts with CHECK: an abort is a finding, as is anything that
 * ASan and UBSan say. It must be a function of its input: no clock, no randomness, nothing kept from one
 * run to the next but what fuzz_begin made.
 *
 * Two programs come of each: with libFuzzer (meson setup build-fuzz -Dfuzz=true, CC=clang) one that
 * searches, in every other build one that runs what it is given (replay.c): files, directories. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/check.h"

/* ---- what a target defines ---- */

/* Once, before the first input. */
void fuzz_begin(void);
/* One input. Lent until return; data is aligned as malloc aligns. */
void fuzz_one(const uint8_t *data, size_t size);
/* Calls fuzz_seed for each input to begin with: real ones, made by the code that makes them. */
void fuzz_seeds(void);

/* ---- what it may use ---- */

/* Writes one file of the seed corpus. */
void fuzz_seed(const char *name, const void *data, size_t size);
void fuzz_seed_text(const char *name, const char *text);

/* Reading a script: past the end everything is zero, so that every input is a whole script. */
static inline bool fuzz_done(const struct reader *r)
{
    return r->failed || reader_left(r) == 0;
}

/* 0..count-1; count at least 1. */
static inline uint32_t fuzz_below(struct reader *r, uint32_t count)
{
    return (count <= 256 ? reader_u8(r) : reader_u32(r)) % count;
}

/* Borrows up to `most` bytes. */
static inline struct str fuzz_str(struct reader *r, size_t most)
{
    size_t left = r->failed ? 0 : reader_left(r), size = most < left ? most : left;
    const char *p = size > 0 ? reader_bytes(r, size) : NULL;
    return p != NULL ? (struct str){p, (uint32_t)size} : (struct str){"", 0};
}

/* Everything that is left. */
static inline struct str fuzz_rest(struct reader *r)
{
    return fuzz_str(r, UINT32_MAX);
}

/* A directory in memory (/dev/shm) where there is one, else under TMPDIR; removed at exit. */
const char *fuzz_directory(void);
/* Makes, or replaces, a file. */
void fuzz_write_file(const char *path, const void *data, size_t size);

#endif
