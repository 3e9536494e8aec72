/* machine_chain: the toy. Its state is a hash over all entries in order, so that a lost, doubled,
 * swapped or altered entry changes every digest after it. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "tests/sim/sim_machine.h"

struct chain {
    uint64_t hash, count, index;
};

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash ^= value + 0x9E3779B97F4A7C15u + (hash << 6) + (hash >> 2);
    return hash * 0xFF51AFD7ED558CCDu;
}

static void *chain_create(void)
{
    struct chain *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    return c;
}

static void chain_destroy(void *machine)
{
    free(machine);
}

static void chain_apply(void *machine, uint64_t index, const void *data, size_t size)
{
    struct chain *c = machine;
    CHECK(index > c->index);
    c->index = index;
    c->count++;
    c->hash = mix(mix(mix(c->hash, index), size), crc32c(0, data, size));
}

static uint64_t chain_digest(void *machine)
{
    const struct chain *c = machine;
    return c->hash;
}

static uint64_t chain_check(void *machine, char *text, size_t size)
{
    (void)machine;
    (void)text;
    (void)size;
    return 0;
}

static uint8_t *chain_save(void *machine, size_t *size)
{
    uint8_t *data = malloc(sizeof(struct chain));
    CHECK(data != NULL);
    memcpy(data, machine, sizeof(struct chain));
    *size = sizeof(struct chain);
    return data;
}

static void *chain_load(const uint8_t *data, size_t size)
{
    if (size != sizeof(struct chain)) {
        return NULL;
    }
    struct chain *c = chain_create();
    memcpy(c, data, sizeof *c);
    return c;
}

static size_t chain_command(struct prng *prng, uint64_t id, int64_t now_ms, void *to,
                            size_t capacity)
{
    (void)now_ms;
    size_t size = 8 + (size_t)prng_below(prng, capacity - 8 + 1);
    uint8_t *bytes = to;
    memcpy(bytes, &id, 8);
    for (size_t i = 8; i < size; i++) {
        bytes[i] = (uint8_t)(id * 31 + i);
    }
    return size;
}

const struct sim_machine sim_machine_chain = {
    .name = "chain",
    .create = chain_create,
    .destroy = chain_destroy,
    .apply = chain_apply,
    .digest = chain_digest,
    .check = chain_check,
    .save = chain_save,
    .load = chain_load,
    .command = chain_command,
};
