/* Between fuzz.c and whoever drives a target: libFuzzer or replay.c. */
#ifndef TESTS_FUZZ_REPLAY_H
#define TESTS_FUZZ_REPLAY_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

extern const char *fuzz_seed_directory; /* where fuzz_seed writes; NULL: it must not be called */

#endif
