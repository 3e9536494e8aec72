/* sim_machine: what the replicated log drives in the simulator. Two machines: a hash chain that
 * depends on every byte and on nothing else, and the real engine. */
#ifndef TESTS_SIM_SIM_MACHINE_H
#define TESTS_SIM_SIM_MACHINE_H

#include <stddef.h>
#include <stdint.h>

#include "base/prng.h"

struct sim_machine {
    const char *name;
    void *(*create)(void);
    void (*destroy)(void *machine);
    void (*apply)(void *machine, uint64_t index, const void *data, size_t size);
    uint64_t (*digest)(void *machine);
    /* Number of broken invariants; describes the first in text. Called every now and then. */
    uint64_t (*check)(void *machine, char *text, size_t size);
    /* The state as bytes, malloc'ed, and back. load returns NULL when the bytes are not a state. */
    uint8_t *(*save)(void *machine, size_t *size);
    void *(*load)(const uint8_t *data, size_t size);
    /* Writes one random batch of at most `capacity` bytes (at least 64) and returns its size. id is
     * different each time. now_ms: what the leader's clock says. */
    size_t (*command)(struct prng *prng, uint64_t id, int64_t now_ms, void *to, size_t capacity);
};

extern const struct sim_machine sim_machine_chain;

#endif
