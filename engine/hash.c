#include "engine/hash.h"

#include "base/bytes.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

_Static_assert(HASH_SECRET_SIZE >= XXH3_SECRET_SIZE_MIN, "XXH3 asks for so much");

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

void hash_secret_init(struct hash_secret *s, const uint8_t seed[static 16])
{
    uint64_t a = load_u64(seed), b = load_u64(seed + 8);
    for (unsigned i = 0; i < HASH_SECRET_SIZE / 8 + 2; i++) {
        a += 0x9E3779B97F4A7C15u;
        uint64_t word = mix(mix(a) ^ b);
        b = b << 13 | b >> 51;
        if (i < HASH_SECRET_SIZE / 8) {
            store_u64(s->bytes + 8 * i, word);
        } else {
            s->fold[i - HASH_SECRET_SIZE / 8] = word;
        }
    }
}

uint64_t hash_bytes(const struct hash_secret *s, const void *data, size_t size)
{
    return XXH3_64bits_withSecret(data, size, s->bytes, sizeof s->bytes);
}

struct hash128 hash_bytes128(const struct hash_secret *s, const void *data, size_t size)
{
    XXH128_hash_t h = XXH3_128bits_withSecret(data, size, s->bytes, sizeof s->bytes);
    return (struct hash128){h.low64, h.high64};
}
