/* migrate: brings the schema of a PostgreSQL database to what this binary expects.
 *
 * What it owns: the numbered, forward-only SQL files of storage/migrations/, embedded with their
 * SHA-256, and the table holdfast.schema_migrations that records what was applied. What it refuses:
 * to go back, to apply a migration twice, to touch a database whose history is not the binary's
 * own.
 *
 * Happy path: connect → one advisory lock, so that concurrent runs queue up → compare what is
 * recorded → apply what is missing, each migration and its record in one transaction.
 *
 * Failure modes: enum migrate_result. Whatever happens, each migration is either in and recorded,
 * or not there at all; running again goes on from there.
 *
 * Blocking, for tools and tests. Any thread. */
#ifndef STORAGE_MIGRATE_H
#define STORAGE_MIGRATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct migration {
    uint32_t version; /* 1, 2, … without holes */
    const char *name;
    const char *sha256; /* of the file, 64 hexadecimal digits */
    const char *sql;
};
/* In order of version. */
extern const struct migration migrations[];
extern const size_t migrations_count;

enum migrate_result {
    MIGRATE_OK = 0,
    MIGRATE_UNREACHABLE, /* no connection, or it was lost */
    MIGRATE_BUSY,        /* another run held the lock until the timeout */
    MIGRATE_DRIFT,  /* an applied migration is not the binary's: another checksum or name, or a hole
                     */
    MIGRATE_NEWER,  /* the database has migrations that this binary does not know */
    MIGRATE_FAILED, /* PostgreSQL refused a statement: see the error text */
};
/* "ok", "unreachable", … */
const char *migrate_result_name(enum migrate_result r);

struct migrate_state {
    const struct migration *migration; /* lent for good */
    bool applied;
    bool applied_now;    /* by this call of migrate_up */
    char applied_at[32]; /* RFC 3339, UTC; "" when not applied */
};
/* Called once for each known migration, in order, before the call returns MIGRATE_OK. Lent until
 * return. */
typedef void (*migrate_cb)(void *ctx, const struct migrate_state *state);

/* Applies what is missing. url: libpq connection string or URI. timeout_ms bounds connecting and
 * waiting for the lock, not the migrations themselves. report may be NULL. On anything but
 * MIGRATE_OK, error holds a line for people, never with a password. */
enum migrate_result migrate_up(const char *url, uint64_t timeout_ms, migrate_cb report, void *ctx,
                               char *error, size_t error_size);

/* The same comparison, changing nothing. A database without the schema has nothing applied. */
enum migrate_result migrate_status(const char *url, uint64_t timeout_ms, migrate_cb report,
                                   void *ctx, char *error, size_t error_size);

/* Writes the connection string without its secrets, for status and logs: "host=… user=… dbname=…".
 * Returns 0; or -1 when url is malformed, with a word about it in out that repeats nothing of it.
 */
int migrate_describe_url(const char *url, char *out, size_t size);

#endif
