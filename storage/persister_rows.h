/* persister_rows: from the events of one transaction to what PostgreSQL is sent for them: COPY
 * BINARY data of new rows, and binary arrays for the changes of old ones.
 *
 * What it owns: the mapping of events to rows (docs/sql-schema.md) and the merging: an order that
 * is placed and paid within the transaction becomes one row with its last status; of several
 * changes of one order or eligibility the last is written. Every event becomes its own outbox row.
 * What it refuses: to look at anything but the events given.
 *
 * Pure but for memory, which grows to what the largest batch needed and is kept. */
#ifndef STORAGE_PERSISTER_ROWS_H
#define STORAGE_PERSISTER_ROWS_H

#include <stdint.h>

#include "base/text.h"
#include "storage/persister_event.h"

enum persister_copy { COPY_ORDERS, COPY_ORDER_LINES, COPY_PAYMENTS, COPY_OUTBOX, COPY_COUNT };

/* The COPY statement of each, in the column order of its data. */
extern const char *const persister_copy_sql[COPY_COUNT];

#define PERSISTER_PARAMETERS_MAX 8

/* Parameters of one statement for PQsendQueryParams. */
struct persister_parameters {
    size_t count; /* rows; 0: the statement is not needed */
    int parameters;
    uint32_t types[PERSISTER_PARAMETERS_MAX];
    int formats[PERSISTER_PARAMETERS_MAX];
    struct text values[PERSISTER_PARAMETERS_MAX];
};
extern const char *const persister_change_orders_sql;
extern const char *const persister_put_eligibilities_sql;

struct persister_merge; /* scratch: what becomes of each order and eligibility */

struct persister_rows {
    struct text copies[COPY_COUNT]; /* whole COPY streams; to be sent only if copy_rows is not 0 */
    size_t copy_rows[COPY_COUNT];
    struct persister_parameters change_orders, put_eligibilities;
    struct persister_merge *merge;
};

void persister_rows_init(struct persister_rows *r);
void persister_rows_close(struct persister_rows *r);

/* Builds everything anew. events: at most PERSISTER_BATCH_EVENTS_MAX, of any shards, those of one
 * shard in order of their sequence; best grouped by shard, for PostgreSQL then inserts several rows
 * of a partition at once. Borrows them until return. */
void persister_rows_build(struct persister_rows *r, const uint8_t cluster_id[16],
                          const struct persister_event *const *events, size_t count);

/* The outbox id of an event: SQL function holdfast.event_id. */
void persister_event_id(const uint8_t cluster_id[16], uint64_t sequence, uint8_t id[16]);

#endif
