/* xoshiro256** seeded by splitmix64 (Blackman and Vigna): for the simulator, property tests and load
 * generators. Not for secrets: those come from libsodium. */
#ifndef BASE_PRNG_H
#define BASE_PRNG_H

#include <stdbool.h>
#include <stdint.h>

struct prng {
    uint64_t s[4];
};

static inline struct prng prng_init(uint64_t seed)
{
    struct prng p;
    for (int i = 0; i < 4; i++) {
        seed += 0x9E3779B97F4A7C15u;
        uint64_t z = seed;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        p.s[i] = z ^ (z >> 31);
    }
    return p;
}

static inline uint64_t prng_next(struct prng *p)
{
    uint64_t *s = p->s;
    uint64_t x = s[1] * 5;
    uint64_t result = ((x << 7) | (x >> 57)) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 45) | (s[3] >> 19);
    return result;
}

/* Uniform in [0, bound); 0 when bound is 0. Multiply-shift (Lemire), its bias is below 2^-32 for
 * bounds below 2^32. */
static inline uint64_t prng_below(struct prng *p, uint64_t bound)
{
    return bound < (1ull << 32) ? ((prng_next(p) >> 32) * bound) >> 32 : prng_next(p) % bound;
}

/* True once in `one_in` times on average; never when one_in is 0. */
static inline bool prng_one_in(struct prng *p, uint64_t one_in)
{
    return one_in != 0 && prng_below(p, one_in) == 0;
}

#endif
