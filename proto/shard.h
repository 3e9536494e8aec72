/* The logical shard of a user: FNV-1a (32 bit) of the id's bytes, modulo the shard count. The SQL
 * function holdfast_shard(user_id, shards) of the migrations computes the same. */
#ifndef PROTO_SHARD_H
#define PROTO_SHARD_H

#include "base/str.h"

/* shards: 1..SHARDS_MAX. */
uint32_t shard_of_user(struct str user_id, uint32_t shards);

#endif
