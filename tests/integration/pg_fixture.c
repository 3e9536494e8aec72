/* See pg_fixture.h. */
#include "pg_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PG_FIXTURE_SCRIPT
#error "PG_FIXTURE_SCRIPT must name private_pg.sh"
#endif

static void give_up(const char *what)
{
    fprintf(stderr, "pg_fixture: %s\n", what);
    exit(1);
}

/* Runs the script; exits when it fails. */
static void script(const struct pg_fixture *f, const char *action, const char *settings)
{
    char command[768];
    snprintf(command, sizeof command, "'%s' %s '%s' %s >/dev/null", PG_FIXTURE_SCRIPT, action,
             f->dir, settings);
    int status = system(command);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        exit(77);
    }
    if (status != 0) {
        give_up(command);
    }
}

static void guard(const struct pg_fixture *f, int fd)
{
    char byte;
    signal(SIGINT, SIG_IGN); /* ^C goes to the whole group: still clean up */
    signal(SIGTERM, SIG_IGN);
    while (read(fd, &byte, 1) > 0) {
    }
    char command[512];
    snprintf(command, sizeof command, "'%s' crash '%s' >/dev/null 2>&1; rm -rf '%s'",
             PG_FIXTURE_SCRIPT, f->dir, f->dir);
    _exit(system(command) == 0 ? 0 : 1);
}

void pg_fixture_start(struct pg_fixture *f, const char *settings)
{
    memset(f, 0, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/hfpg.XXXXXX");
    if (mkdtemp(f->dir) == NULL) {
        give_up("no temporary directory");
    }
    snprintf(f->url, sizeof f->url, "host=%s user=postgres dbname=postgres", f->dir);
    snprintf(f->settings, sizeof f->settings, "%s", settings);
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0 || (f->guardian = fork()) < 0) {
        give_up("no guardian");
    }
    if (f->guardian == 0) {
        close(fds[1]);
        guard(f, fds[0]);
    }
    close(fds[0]);
    f->guard = fds[1];
    script(f, "start", f->settings);
}

void pg_fixture_crash(struct pg_fixture *f)
{
    script(f, "crash", "");
}

void pg_fixture_restart(struct pg_fixture *f)
{
    script(f, "start", f->settings);
}

void pg_fixture_stop(struct pg_fixture *f)
{
    close(f->guard);
    waitpid(f->guardian, NULL, 0);
}

PGconn *pg_fixture_connect(const char *url)
{
    PGconn *conn = PQconnectdb(url);
    if (PQstatus(conn) != CONNECTION_OK) {
        give_up(PQerrorMessage(conn));
    }
    PQclear(PQexec(conn, "SET client_min_messages = warning; SET timezone = 'UTC'"));
    return conn;
}

PGresult *pg_fixture_query(PGconn *conn, const char *sql)
{
    PGresult *r = PQexec(conn, sql);
    if (PQresultStatus(r) != PGRES_COMMAND_OK && PQresultStatus(r) != PGRES_TUPLES_OK) {
        fprintf(stderr, "%s\n", sql);
        give_up(PQerrorMessage(conn));
    }
    return r;
}

long long pg_fixture_number(PGconn *conn, const char *sql)
{
    PGresult *r = pg_fixture_query(conn, sql);
    long long value = atoll(PQgetvalue(r, 0, 0));
    PQclear(r);
    return value;
}

void pg_fixture_create_database(struct pg_fixture *f, const char *name, char *url, size_t size)
{
    char sql[128];
    PGconn *conn = pg_fixture_connect(f->url);
    snprintf(sql, sizeof sql, "CREATE DATABASE \"%s\"", name);
    PQclear(pg_fixture_query(conn, sql));
    PQfinish(conn);
    snprintf(url, size, "host=%s user=postgres dbname=%s", f->dir, name);
}
