/* Hashing keyed with the cluster's secret seed, which is part of the replicated state: nobody outside
 * can choose ids that collide, and all replicas agree. XXH3 with a secret for bytes, a multiply-fold
 * for pairs of numbers that the engine itself made. */
#ifndef ENGINE_HASH_H
#define ENGINE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define HASH_SECRET_SIZE 192

struct hash_secret {
    uint8_t bytes[HASH_SECRET_SIZE];
    uint64_t fold[2];
};

struct hash128 {
    uint64_t low, high;
};

void hash_secret_init(struct hash_secret *s, const uint8_t seed[static 16]);
uint64_t hash_bytes(const struct hash_secret *s, const void *data, size_t size);
struct hash128 hash_bytes128(const struct hash_secret *s, const void *data, size_t size);

static inline uint64_t hash_str(const struct hash_secret *s, struct str text)
{
    return hash_bytes(s, text.ptr, text.len);
}

static inline uint64_t hash_pair(const struct hash_secret *s, uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)(a ^ s->fold[0]) * (b ^ s->fold[1]);
    uint64_t z = (uint64_t)product ^ (uint64_t)(product >> 64);
    z = (z ^ (z >> 32)) * 0x9E3779B97F4A7C15u;
    return z ^ (z >> 29);
}

#endif
