/* sim_machine: what the replicated log drives in the simulator. Two machines: a hash chain that
 * depends on every byte and on nothing else, and the real engine. */
#ifndef TESTS_SIM_SIM_MACHINE_H
#define TESTS_SIM_SIM_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/prng.h"

struct engine;

struct sim_machine {
    const char *name;
    void *(*create)(void);
    void (*destroy)(void *machine);
    void (*apply)(void *machine, uint64_t index, const void *data, size_t size);
    uint64_t (*digest)(void *machine);
    /* Hash of what the last applied batch was answered with. */
    uint64_t (*answers)(void *machine);
    /* Number of broken invariants; describes the first in text. Called every now and then. */
    uint64_t (*check)(void *machine, char *text, size_t size);
    /* A checkpoint: freeze the state as it is now; hand over a slice of it (between later applies);
     * save hands over the rest and returns the frozen state as bytes, malloc'ed. load returns NULL when
     * the bytes are not a state. */
    void (*freeze)(void *machine);
    void (*slice)(void *machine);
    uint8_t *(*save)(void *machine, size_t *size);
    void (*abandon)(void *machine); /* instead of save: it could not be written */
    void *(*load)(const uint8_t *data, size_t size);
    /* Replicated time, and the time that a batch carries. NULL: a machine without time. */
    int64_t (*time_ms)(void *machine);
    int64_t (*batch_time_ms)(const void *data, size_t size);
    /* The engine inside; NULL: a machine that is none. */
    struct engine *(*engine)(void *machine);
    /* Writes one random batch of at most `capacity` bytes (at least 64) and returns its size. machine:
     * the leader's, to refer to what is there. id is different each time. now_ms: the leader's clock. */
    size_t (*command)(struct prng *prng, void *machine, uint64_t id, int64_t now_ms, void *to,
                      size_t capacity);
};

extern const struct sim_machine sim_machine_chain;
extern const struct sim_machine sim_machine_engine;

/* Of the engine: its shards, each byte of its cluster id. */
#define SIM_ENGINE_SHARDS  4
#define SIM_ENGINE_CLUSTER 1
/* How struct sim_machine's answers are made of replies. */
struct reply;
uint64_t sim_machine_mix_reply(uint64_t hash, uint32_t position, const struct reply *reply);
/* There is a database: events are acknowledged by the persister, not by chance. */
extern bool sim_machine_engine_persisted;

#endif
