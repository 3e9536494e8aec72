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

struct chain_machine {
    struct chain now, frozen;
};

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash ^= value + 0x9E3779B97F4A7C15u + (hash << 6) + (hash >> 2);
    return hash * 0xFF51AFD7ED558CCDu;
}

static void *chain_create(void)
{
    struct chain_machine *m = calloc(1, sizeof *m);
    CHECK(m != NULL);
    return m;
}

static void chain_destroy(void *machine)
{
    free(machine);
}

static void chain_apply(void *machine, uint64_t index, const void *data, size_t size)
{
    struct chain *c = &((struct chain_machine *)machine)->now;
    CHECK(index > c->index);
    c->index = index;
    c->count++;
    c->hash = mix(mix(mix(c->hash, index), size), crc32c(0, data, size));
}

static uint64_t chain_digest(void *machine)
{
    return ((struct chain_machine *)machine)->now.hash;
}

static uint64_t chain_answers(void *machine)
{
    return ((struct chain_machine *)machine)->now.count;
}

static uint64_t chain_check(void *machine, char *text, size_t size)
{
    (void)machine;
    (void)text;
    (void)size;
    return 0;
}

static void chain_freeze(void *machine)
{
    struct chain_machine *m = machine;
    m->frozen = m->now;
}

static void chain_slice(void *machine)
{
    (void)machine;
}

static uint8_t *chain_save(void *machine, size_t *size)
{
    struct chain_machine *m = machine;
    uint8_t *data = malloc(sizeof m->frozen);
    CHECK(data != NULL);
    memcpy(data, &m->frozen, sizeof m->frozen);
    *size = sizeof(struct chain);
    return data;
}

static void *chain_load(const uint8_t *data, size_t size)
{
    if (size != sizeof(struct chain)) {
        return NULL;
    }
    struct chain_machine *m = chain_create();
    memcpy(&m->now, data, sizeof m->now);
    return m;
}

static size_t chain_command(struct prng *prng, void *machine, uint64_t id, int64_t now_ms, void *to,
                            size_t capacity)
{
    (void)machine;
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
    .answers = chain_answers,
    .check = chain_check,
    .freeze = chain_freeze,
    .slice = chain_slice,
    .save = chain_save,
    .abandon = chain_slice, /* nothing is kept between checkpoints */
    .load = chain_load,
    .command = chain_command,
};
