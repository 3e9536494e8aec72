#include "proto/shard.h"

#include "base/check.h"
#include "proto/limits.h"

uint32_t shard_of_user(struct str user_id, uint32_t shards)
{
    CHECK(shards >= 1 && shards <= SHARDS_MAX);
    uint32_t hash = 2166136261u;
    for (uint32_t i = 0; i < user_id.len; i++) {
        hash = (hash ^ (uint8_t)user_id.ptr[i]) * 16777619u;
    }
    return hash % shards;
}
