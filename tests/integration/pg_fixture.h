/* A private PostgreSQL for a test program, by private_pg.sh. It goes away with the program, however
 * that ends: a guardian process waits for our end of a pipe to close. */
#ifndef TESTS_INTEGRATION_PG_FIXTURE_H
#define TESTS_INTEGRATION_PG_FIXTURE_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <sys/types.h>

struct pg_fixture {
    char dir[64];
    char url[160]; /* of database postgres, as superuser */
    char settings[256];
    int guard;
    pid_t guardian;
};

/* settings: "fsync=on work_mem=1MB" or "". Exits with 77 (skipped) when PostgreSQL is not
 * installed. */
void pg_fixture_start(struct pg_fixture *f, const char *settings);
/* As if killed, then (or after pg_fixture_crash) up again with recovery. */
void pg_fixture_crash(struct pg_fixture *f);
void pg_fixture_restart(struct pg_fixture *f);
/* Stops the server and removes its files. */
void pg_fixture_stop(struct pg_fixture *f);

/* A new database of the server; url gets its connection string. */
void pg_fixture_create_database(struct pg_fixture *f, const char *name, char *url, size_t size);

/* A connection, or the test fails. */
PGconn *pg_fixture_connect(const char *url);
/* Runs sql, or the test fails with what PostgreSQL said. The result is the caller's. */
PGresult *pg_fixture_query(PGconn *conn, const char *sql);
/* The one value of a query as a number. */
long long pg_fixture_number(PGconn *conn, const char *sql);

#endif
