/* Order ids: unique and growing without coordination, and a reader can tell the shard from the id.
 *
 *     bit 63      62..22        21..10            9..0
 *         0   log index (41)  position (12)     shard (10)
 *
 * Text form: 13 digits of Crockford's base 32 (no I, L, O, U), upper case, fixed width, so that text
 * order is number order. Read back in either case. */
#ifndef PROTO_ORDER_ID_H
#define PROTO_ORDER_ID_H

#include "base/str.h"

#define ORDER_ID_TEXT_SIZE 14 /* with the terminating NUL */
#define ORDER_ID_INDEX_MAX ((1ull << 41) - 1)

/* position: of the command within its batch, below BATCH_COMMANDS_MAX. shard: below SHARDS_MAX. */
uint64_t order_id_make(uint64_t index, uint32_t position, uint32_t shard);
uint64_t order_id_index(uint64_t id);
uint32_t order_id_shard(uint64_t id);
void order_id_format(uint64_t id, char out[static ORDER_ID_TEXT_SIZE]);
/* Returns 0, or -1 when the text is not an order id. */
int order_id_parse(struct str text, uint64_t *id);

#endif
