/* sim_database: a PostgreSQL for the simulated cluster: sessions, transactions, row locks, timeouts, and what
 * can become of them. It understands the statements that the persister sends, and no others (sim_statements.c);
 * what they do is written from storage/migrations/0002_functions.sql.
 *
 * What goes wrong (sim_database_fault): connections break before, during or after a commit, seen by both sides,
 * by one, or late; the server is slow, hangs, refuses, restarts; somebody else holds locks; a node cannot reach
 * it; fail-over to a standby that lacks the last commits, until an operator reads the persister's error and
 * brings the right server back.
 *
 * What must hold (sim_database.c, commit): see there.
 *
 * Without a machine that has an engine all of it does nothing. */
#ifndef TESTS_SIM_SIM_DATABASE_H
#define TESTS_SIM_SIM_DATABASE_H

#include "base/text.h"
#include "storage/persister_lane.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_rows.h"

/* What a test can leave out, to see that the checks notice. */
enum sim_database_guard {
    SIM_GUARD_FENCE = 1,     /* an older term may write */
    SIM_GUARD_WATERMARK = 2, /* moves on its own, before the rows */
    SIM_GUARD_COMMIT = 4,    /* now and then a commit is only said to be one */
    SIM_GUARD_ROW = 8,       /* now and then a row is stored with another value */
};

struct sim_answer {
    int rows, columns;
    struct text cells; /* each with a NUL behind it */
    char tag[24], sqlstate[6], error[160];
};

struct sim_request {
    char *sql;
    size_t at; /* statements before are done */
    struct text copies[COPY_COUNT];
    size_t copies_count, copy;
    struct text parameters[PERSISTER_PARAMETERS_MAX];
    bool single; /* one statement with parameters */
};

/* What SIM_PERSISTER is about (a); of a delivery, b is the session. */
enum sim_persister_event { PERSISTER_STEP, PERSISTER_DELIVERY, PERSISTER_NEWS, PERSISTER_TICK };

enum sim_delivery { DELIVERED_NOTHING, DELIVERED_CONNECTION, DELIVERED_ANSWER, DELIVERED_LOSS };

struct sim_session {
    struct sim_database *db;
    struct sim_session *next;
    uint64_t id;
    unsigned node, life;
    uint64_t term; /* in which the node led when it connected: not what it says in SQL */
    /* the server's side */
    bool connected, busy, waiting, server_gone;
    bool transaction, explicit_transaction, failed;
    uint32_t locks; /* bit i: the watermark row of shard i */
    struct sim_ops ops;
    struct sim_request request;
    struct sim_answer building;
    uint64_t waits; /* counts, so that a timeout knows its wait */
    uint64_t lock_timeout_ms, statement_timeout_ms, idle_timeout_ms;
    bool sync; /* it insists on commits that last */
    uint64_t arrival_us, departure_us; /* messages stay in order */
    enum sim_delivery outgoing;
    bool leaving; /* its client went, and it will once it has done what it was asked */
    bool mute; /* the connection is lost, but the server goes on with what it was asked */
    struct sim_answer sent;
    /* the client's side */
    bool client_gone;
    enum sim_delivery delivered;
    struct sim_answer answer;
};

struct sim_database {
    struct sim *sim;
    struct prng prng;
    uint32_t shards;
    struct sim_rows rows, saved; /* saved: the server that was failed over from */
    bool has_saved;
    struct sim_ledger ledger;
    struct sim_session *sessions;
    uint64_t next_id;
    uint64_t refuses_until_us, hangs_until_us, slow_until_us, locked_until_us;
    uint64_t unreachable_until_us[SIM_NODES_MAX];
    uint64_t late_one_in; /* messages */
    bool sluggish;        /* always slow */
    bool breaks, slow, hangs, restarts, locks, fail_overs, cuts;
    uint64_t fault_interval_us;
};

/* ---- for the simulator ---- */

void sim_database_create(struct sim *s);
void sim_database_close(struct sim *s);
void sim_database_event(struct sim *s, struct sim_event *e); /* SIM_DATABASE, SIM_DATABASE_FAULT */
void sim_database_heal(struct sim *s);
/* A node has applied an entry, or loaded a state. */
void sim_database_applied(struct sim_node *n);
bool sim_database_drained(struct sim *s);
/* A node leads from now on: a bad moment for a fail-over of the database. */
void sim_database_leads(struct sim *s);
/* At the end of a run: row for row. */
void sim_database_check(struct sim *s);
void sim_database_print(const struct sim_stats *t);

/* sim_persister.c: the real persister and its driver on a node */
void sim_persister_start(struct sim_node *n);
void sim_persister_close(struct sim_node *n); /* as a process ends; unsaid to the server, sometimes */
void sim_persister_state(struct sim_node *n, const struct driver_state *state);
void sim_persister_event(struct sim_node *n, const struct sim_event *e); /* SIM_PERSISTER */
/* After every event at a node. */
void sim_persister_after(struct sim_node *n);
/* "" when nothing is wrong. */
void sim_persister_error(const struct sim_node *n, char out[static 256]);

/* ---- between the files ---- */

uint64_t sim_database_below(struct sim_database *db, uint64_t bound);
bool sim_database_one_in(struct sim_database *db, uint64_t n);
/* The client's side of a session. */
struct sim_session *sim_session_open(struct sim_database *db, const struct sim_node *n, uint64_t term);
void sim_session_request(struct sim_session *x); /* x->request was filled */
void sim_request_close(struct sim_request *r);
void sim_session_leave(struct sim_session *x, bool silently);
/* The message for the client of session id has arrived. */
void sim_session_deliver(struct sim_database *db, uint64_t id);

enum sim_outcome { STATEMENT_DONE, STATEMENT_WAITS, STATEMENT_REFUSED };
/* sim_statements.c. REFUSED: building has the SQLSTATE. size: of the statement's text. */
enum sim_outcome sim_statement_run(struct sim_session *x, const char *sql, size_t size);
enum sim_outcome sim_statement_refuse(struct sim_session *x, const char *sqlstate, const char *error);
/* Takes the lock of a watermark row; false: another has it. */
bool sim_session_lock(struct sim_session *x, uint32_t shard);
bool sim_database_any_lock(const struct sim_database *db, const struct sim_session *but);
/* NULL, or the SQLSTATE. Ends the transaction in either case. */
const char *sim_session_commit(struct sim_session *x);
void sim_session_rollback(struct sim_session *x);
void sim_session_kill(struct sim_session *x, uint64_t notice_us);

#endif
