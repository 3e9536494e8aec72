#include "base/crc32c.h"

#include <pthread.h>
#include <stdbool.h>

#include "base/bytes.h"

#define POLYNOMIAL_REVERSED 0x82F63B78u

static uint32_t table[256];
static bool hardware;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void crc32c_init(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) {
            c = (c & 1) != 0 ? (c >> 1) ^ POLYNOMIAL_REVERSED : c >> 1;
        }
        table[i] = c;
    }
#if defined(__x86_64__)
    hardware = __builtin_cpu_supports("sse4.2");
#endif
}

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size)
{
    pthread_once(&once, crc32c_init);
    const uint8_t *p = data;
    crc = ~crc;
    for (; size > 0; size--) {
        crc = (crc >> 8) ^ table[(crc ^ *p++) & 0xFF];
    }
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *data,
                                                               size_t size)
{
    const uint8_t *p = data;
    uint64_t c = (uint32_t)~crc;
    for (; size >= 8; size -= 8, p += 8) {
        c = __builtin_ia32_crc32di(c, load_u64(p));
    }
    uint32_t c32 = (uint32_t)c;
    for (; size > 0; size--) {
        c32 = __builtin_ia32_crc32qi(c32, *p++);
    }
    return ~c32;
}
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
    pthread_once(&once, crc32c_init);
#if defined(__x86_64__)
    if (hardware) {
        return crc32c_sse42(crc, data, size);
    }
#endif
    return crc32c_portable(crc, data, size);
}
