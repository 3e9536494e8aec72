/* audit: proof that every unit is accounted for, in memory on every node and in PostgreSQL.
 *
 * What it owns: the list of verdicts. What it refuses: to repair anything; to call green what it
 * could not look at.
 *
 * Happy path: digests at one mark → invariants and conservation on every node → what the engine
 * holds, read from the leader → wait until the persister has taken everything up to there →
 * PostgreSQL, in one read-only snapshot → compare. When events came in between, what was read is of
 * two moments: the round is repeated, at most AUDIT_ROUNDS times. */
#ifndef TOOLS_CTL_AUDIT_H
#define TOOLS_CTL_AUDIT_H

#include <libpq-fe.h>

#include "tools/ctl/ctl.h"

#define AUDIT_ROUNDS 5

struct audit {
    struct ctl *ctl;
    json_t *verdicts;
    bool green;
    struct ctl_member members[CTL_NODES_MAX];
    size_t members_count;
    uint64_t mark; /* index of the digests */
};

enum audit_result { AUDIT_GOOD, AUDIT_WRONG, AUDIT_OPEN /* could not be told; does not count */ };

/* Adds a line. subject: "node 2", "PostgreSQL", … */
void audit_verdict(struct audit *a, const char *check, const char *subject,
                   enum audit_result result, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* ---- what the engine holds (audit_engine.c) ---- */

struct audit_order {
    uint64_t id, version, created_index;
    int64_t amount;
    uint32_t status, shard;
    char *content; /* "user sale currency SKU=units@price …" */
};
struct audit_sku {
    char id[72];
    int64_t available, reserved, sold, received;
};
struct audit_right { /* a granted eligibility */
    char *name;      /* "sale user" */
};
struct audit_sale {
    char id[72];
    bool over; /* its members may have left memory */
};

/* All of it is read from the leader; each array is in order of id (text order for texts). */
struct audit_engine {
    struct audit_order *orders;
    struct audit_sku *skus;
    struct audit_right *rights;
    struct audit_sale *sales;
    size_t orders_count, skus_count, rights_count, sales_count;
    uint64_t index;       /* orders created at a higher one may be missing here */
    uint64_t events_next; /* after reading: all events below may be expected in PostgreSQL */
    bool quiet;           /* no event came while reading */
    uint32_t shards;
    uint64_t *acked;     /* by shard: what the engine knows to be persisted */
    char cluster_id[37]; /* as a uuid */
};

/* Reads everything. The arrays are released by audit_engine_close, also after a failure. */
enum ctl_exit audit_engine_read(struct audit *a, struct audit_engine *e);
void audit_engine_close(struct audit_engine *e);

struct audit_persist { /* of PersistStatus, the leader's */
    bool configured, connected;
    uint64_t events_first, events_next;
    char error[200];
};
/* Reads it; acked, when given, gets the watermarks of `shards` shards. */
enum ctl_exit audit_persist_read(struct audit *a, struct audit_persist *p, uint64_t *acked,
                                 uint32_t shards);

/* SKUs of one node (or CLIENT_TARGET_LEADER), at least at min_index, in order. The array is the
 * caller's to free. *index: what the last page reflects. */
enum ctl_exit audit_skus_read(struct audit *a, uint64_t target, uint64_t min_index,
                              struct audit_sku **skus, size_t *count, uint64_t *index);

/* ---- PostgreSQL (audit_postgres.c, audit_rows.c) ---- */

/* All checks against the database. CTL_OK also when they are red. */
enum ctl_exit audit_postgres(struct audit *a, const char *url);

/* The comparison row by row: orders, lines, status, sums. Within the caller's transaction. */
void audit_rows_compare(struct audit *a, const struct audit_engine *e, PGconn *c);

/* Runs a query that must give rows; NULL after a verdict that is red. PQclear is the caller's. */
PGresult *audit_query(struct audit *a, PGconn *c, const char *check, const char *sql);

#endif
