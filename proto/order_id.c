#include "proto/order_id.h"

#include "base/check.h"
#include "proto/limits.h"

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

_Static_assert(BATCH_COMMANDS_MAX <= 1 << 12, "a position takes 12 bits of an order id");
_Static_assert(SHARDS_MAX <= 1 << 10, "a shard takes 10 bits of an order id");

uint64_t order_id_make(uint64_t index, uint32_t position, uint32_t shard)
{
    CHECK(index <= ORDER_ID_INDEX_MAX);
    CHECK(position < BATCH_COMMANDS_MAX);
    CHECK(shard < SHARDS_MAX);
    return index << 22 | (uint64_t)position << 10 | shard;
}

uint64_t order_id_index(uint64_t id)
{
    return id >> 22;
}

uint32_t order_id_shard(uint64_t id)
{
    return (uint32_t)(id & 0x3FF);
}

void order_id_format(uint64_t id, char out[static ORDER_ID_TEXT_SIZE])
{
    for (int i = 12; i >= 0; i--) {
        out[i] = alphabet[id & 31];
        id >>= 5;
    }
    out[13] = '\0';
}

int order_id_parse(struct str text, uint64_t *id)
{
    if (text.len != 13) {
        return -1;
    }
    uint64_t value = 0;
    for (uint32_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c >= 'a' && c <= 'z') {
            c = (char)(c - 'a' + 'A');
        }
        const char *at = c != '\0' ? strchr(alphabet, c) : NULL;
        if (at == NULL || (i == 0 && at - alphabet > 7)) { /* 13 digits hold 65 bits: keep 63 */
            return -1;
        }
        value = value << 5 | (uint64_t)(at - alphabet);
    }
    *id = value;
    return value == 0 ? -1 : 0;
}
