/* See migrate.h. */
#include "storage/migrate.h"

#include <libpq-fe.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/str.h"
#include "base/text.h"

/* Ours among all users of advisory locks in the database: "holdfast" in ASCII. */
#define MIGRATE_LOCK "7525352680829580148"

struct migrate_run {
    PGconn *conn;
    enum migrate_result result;
    char *error;
    size_t error_size;
};

const char *migrate_result_name(enum migrate_result r)
{
    static const char *const names[] = {"ok", "unreachable", "busy", "drift", "newer", "failed"};
    return (unsigned)r < ARRAY_COUNT(names) ? names[r] : "unknown";
}

int migrate_describe_url(const char *url, char *out, size_t size)
{
    char *ignored = NULL; /* may quote what it did not understand, a password too: never shown */
    PQconninfoOption *options = PQconninfoParse(url, &ignored);
    PQfreemem(ignored);
    if (options == NULL) {
        str_copy(out, size, STR_LITERAL("malformed connection string"));
        return -1;
    }
    struct text t = TEXT_INIT;
    for (const PQconninfoOption *o = options; o->keyword != NULL; o++) {
        bool secret = strchr(o->dispchar, '*') != NULL;
        if (o->val != NULL && o->val[0] != '\0' && !secret) {
            text_appendf(&t, "%s%s=%s", t.len > 0 ? " " : "", o->keyword, o->val);
        }
    }
    PQconninfoFree(options);
    str_copy(out, size, (struct str){text_cstring(&t), (uint32_t)t.len});
    text_close(&t);
    return 0;
}

/* The first line of a message, without the newline. */
static void fail(struct migrate_run *run, enum migrate_result result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void fail(struct migrate_run *run, enum migrate_result result, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(run->error, run->error_size, format, args);
    va_end(args);
    run->error[strcspn(run->error, "\n")] = '\0';
    run->result = result;
}

/* Runs one or more statements. Returns the last result (PQclear is the caller's), or NULL after
 * fail. */
static PGresult *query(struct migrate_run *run, const char *sql, const char *what)
{
    PGresult *r = PQexec(run->conn, sql);
    ExecStatusType status = PQresultStatus(r);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) {
        return r;
    }
    const char *sqlstate = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
    if (PQstatus(run->conn) != CONNECTION_OK || sqlstate == NULL) {
        fail(run, MIGRATE_UNREACHABLE, "%s: %s", what, PQerrorMessage(run->conn));
    } else if (strcmp(sqlstate, "55P03") == 0) { /* lock_not_available */
        fail(run, MIGRATE_BUSY, "%s: another migration is running", what);
    } else {
        fail(run, MIGRATE_FAILED, "%s: %s (SQLSTATE %s)", what,
             message != NULL ? message : "refused", sqlstate);
    }
    PQclear(r);
    return NULL;
}

static bool execute(struct migrate_run *run, const char *sql, const char *what)
{
    PGresult *r = query(run, sql, what);
    PQclear(r);
    return r != NULL;
}

static bool connect_database(struct migrate_run *run, const char *url, uint64_t timeout_ms)
{
    char described[256];
    if (migrate_describe_url(url, described, sizeof described) != 0) {
        fail(run, MIGRATE_UNREACHABLE, "%s", described);
        return false;
    }
    char seconds[24];
    snprintf(seconds, sizeof seconds, "%llu", (unsigned long long)(timeout_ms + 999) / 1000);
    /* Later keywords win, and dbname is expanded where it stands: the URL overrides the first two.
     */
    const char *const keys[] = {"connect_timeout", "application_name", "dbname", "client_encoding",
                                NULL};
    const char *const values[] = {seconds, "holdfast migrate", url, "UTF8", NULL};
    run->conn = PQconnectdbParams(keys, values, 1);
    if (PQstatus(run->conn) != CONNECTION_OK) {
        fail(run, MIGRATE_UNREACHABLE, "%s", PQerrorMessage(run->conn));
        return false;
    }
    char sql[160];
    snprintf(sql, sizeof sql,
             "SET lock_timeout = %llu; SET client_min_messages = warning;"
             "SET timezone = 'UTC'",
             (unsigned long long)timeout_ms);
    return execute(run, sql, "session");
}

/* Compares what the database recorded with what the binary has. On success *states is filled for
 * every known migration. */
static bool compare(struct migrate_run *run, struct migrate_state *states)
{
    PGresult *there =
        query(run, "SELECT to_regclass('holdfast.schema_migrations') IS NOT NULL", "status");
    if (there == NULL) {
        return false;
    }
    bool recorded = PQgetvalue(there, 0, 0)[0] == 't';
    PQclear(there);
    for (size_t i = 0; i < migrations_count; i++) {
        states[i] = (struct migrate_state){.migration = &migrations[i]};
    }
    if (!recorded) {
        return true;
    }
    PGresult *rows = query(run,
                           "SELECT version, name, sha256, "
                           "to_char(applied_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') "
                           "FROM holdfast.schema_migrations ORDER BY version",
                           "status");
    if (rows == NULL) {
        return false;
    }
    bool ok = true;
    for (int i = 0; i < PQntuples(rows) && ok; i++) {
        const char *version = PQgetvalue(rows, i, 0);
        const char *name = PQgetvalue(rows, i, 1);
        ok = false;
        if ((size_t)i >= migrations_count) {
            fail(run, MIGRATE_NEWER,
                 "the database has migration %s (%s), this binary knows %zu: "
                 "use the newer binary",
                 version, name, migrations_count);
        } else if (strtoul(version, NULL, 10) != migrations[i].version) {
            fail(run, MIGRATE_DRIFT, "migration %u is not recorded, but %s (%s) is",
                 migrations[i].version, version, name);
        } else if (strcmp(name, migrations[i].name) != 0 ||
                   strcmp(PQgetvalue(rows, i, 2), migrations[i].sha256) != 0) {
            fail(run, MIGRATE_DRIFT,
                 "migration %s (%s) was applied with another content than this "
                 "binary's",
                 version, name);
        } else {
            states[i].applied = true;
            str_copy(states[i].applied_at, sizeof states[i].applied_at,
                     str_from(PQgetvalue(rows, i, 3)));
            ok = true;
        }
    }
    PQclear(rows);
    return ok;
}

static bool apply(struct migrate_run *run, struct migrate_state *state)
{
    const struct migration *m = state->migration;
    char what[96];
    snprintf(what, sizeof what, "migration %04u_%s", m->version, m->name);
    struct text sql = TEXT_INIT;
    text_appendf(&sql,
                 "BEGIN;\n%s;\nINSERT INTO holdfast.schema_migrations (version, name, sha256) "
                 "VALUES (%u, '%s', '%s');\nCOMMIT;\n"
                 "SELECT to_char(applied_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') "
                 "FROM holdfast.schema_migrations WHERE version = %u",
                 m->sql, m->version, m->name, m->sha256, m->version);
    PGresult *r = query(run, text_cstring(&sql), what);
    text_close(&sql);
    if (r == NULL) {
        return false; /* the connection is closed next, and the transaction with it */
    }
    CHECK(PQntuples(r) == 1);
    state->applied = state->applied_now = true;
    str_copy(state->applied_at, sizeof state->applied_at, str_from(PQgetvalue(r, 0, 0)));
    PQclear(r);
    return true;
}

static bool apply_missing(struct migrate_run *run, struct migrate_state *states)
{
    if (!execute(run, "SELECT pg_advisory_lock(" MIGRATE_LOCK ")", "lock") ||
        !execute(run, "SET lock_timeout = 0", "session") ||
        !execute(run,
                 "BEGIN; CREATE SCHEMA IF NOT EXISTS holdfast;"
                 "CREATE TABLE IF NOT EXISTS holdfast.schema_migrations ("
                 "version integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL,"
                 "applied_at timestamptz NOT NULL DEFAULT now()); COMMIT",
                 "schema") ||
        !compare(run, states)) {
        return false;
    }
    for (size_t i = 0; i < migrations_count; i++) {
        if (!states[i].applied && !apply(run, &states[i])) {
            return false;
        }
    }
    return true;
}

static enum migrate_result run_migrate(const char *url, uint64_t timeout_ms, bool up,
                                       migrate_cb report, void *ctx, char *error, size_t error_size)
{
    struct migrate_run run = {.error = error, .error_size = error_size};
    CHECK(error_size > 0);
    error[0] = '\0';
    struct migrate_state *states = calloc(migrations_count, sizeof *states);
    CHECK(states != NULL);
    if (connect_database(&run, url, timeout_ms) &&
        (up ? apply_missing(&run, states) : compare(&run, states)) && report != NULL) {
        for (size_t i = 0; i < migrations_count; i++) {
            report(ctx, &states[i]);
        }
    }
    PQfinish(run.conn); /* and with the session, the lock */
    free(states);
    return run.result;
}

enum migrate_result migrate_up(const char *url, uint64_t timeout_ms, migrate_cb report, void *ctx,
                               char *error, size_t error_size)
{
    return run_migrate(url, timeout_ms, true, report, ctx, error, error_size);
}

enum migrate_result migrate_status(const char *url, uint64_t timeout_ms, migrate_cb report,
                                   void *ctx, char *error, size_t error_size)
{
    return run_migrate(url, timeout_ms, false, report, ctx, error, error_size);
}
