/* Every limit that crosses a process boundary, by name. What is longer or larger is refused with a
 * documented answer (docs/limits.md), never cut. Sizes in bytes. */
#ifndef PROTO_LIMITS_H
#define PROTO_LIMITS_H

#include <stdint.h>

#define ID_SIZE_MAX          64  /* SKU, sale, user, lease name and owner: see str_is_identifier */
#define KEY_SIZE_MAX         128 /* idempotency key and payment event id: see str_is_identifier */
#define TITLE_SIZE_MAX       120 /* UTF-8 */
#define REASON_SIZE_MAX      120 /* UTF-8 */
#define CURRENCY_SIZE        3   /* ISO 4217, upper case */
#define ORDER_LINES_MAX      16
#define SALE_OFFERS_MAX      64
#define QUANTITY_MAX         1000000          /* units in one line */
#define STOCK_MAX            1000000000000    /* units of one SKU ever received */
#define UNIT_PRICE_MAX       100000000000     /* minor units */
#define DURATION_MS_MAX      31536000000      /* one year: payment timeout, lease, denial */
#define TIME_MS_MAX          253402300799999  /* 9999-12-31T23:59:59.999Z */
#define BATCH_COMMANDS_MAX   4096             /* one log entry; 12 bits of an order id */
#define BATCH_SIZE_MAX       65536            /* one log entry; the sweet spot of the log */
#define COMMAND_SIZE_MAX     16384            /* one encoded command: a sale with 64 offers fits */
#define SHARDS_MAX           1024             /* 10 bits of an order id */
#define PERSIST_ACKS_MAX     256              /* shards acknowledged by one command */

_Static_assert(QUANTITY_MAX * (1ll * UNIT_PRICE_MAX) * ORDER_LINES_MAX < INT64_MAX,
               "the amount of the largest order fits, so that it needs no overflow check");

#endif
