/* sim_database: the server: sessions, time, faults, and what must hold. See sim_database.h.
 *
 * What must hold, at every commit of rows:
 *   1. No rows of a fenced leader: whoever wrote them leads in the latest term that took the fence here.
 *   2. Rows and watermark together: every row belongs to an event that this very transaction moved its shard's
 *      watermark over, and every such event has its outbox row, its payment, and its order or eligibility as it
 *      was after it: so each event is there once, in the order of each shard, and no watermark is ahead of
 *      rows.
 *   3. Nothing leaves an engine before it was committed here.
 * And when everything has healed and is drained: all rows equal the ledger's and the engine's. */
#include "tests/sim/sim_database.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/sim/sim_shrink.h"

enum { DB_ACCEPT, DB_ARRIVE, DB_STEP, DB_TIMEOUT, DB_GOODBYE, DB_OPERATOR };

#define OPERATOR_US     500000
#define WAIT_FOREVER_MS 3600000

uint64_t sim_database_below(struct sim_database *db, uint64_t bound)
{
    return prng_below(&db->prng, bound);
}

bool sim_database_one_in(struct sim_database *db, uint64_t n)
{
    return prng_one_in(&db->prng, n);
}

static void push(struct sim_session *x, uint64_t delay_us, uint64_t what)
{
    sim_push(x->db->sim, delay_us, SIM_DATABASE, NULL, x->id, what | x->waits << 8, NULL, 0);
}

static struct sim_session *find(struct sim_database *db, uint64_t id)
{
    for (struct sim_session *x = db->sessions; x != NULL; x = x->next) {
        if (x->id == id) {
            return x;
        }
    }
    return NULL;
}

/* ---- messages ---- */

static uint64_t latency_us(struct sim_database *db, unsigned node)
{
    struct sim *s = db->sim;
    uint64_t delay = 30 + sim_database_below(db, 300);
    if (sim_database_one_in(db, db->late_one_in)) {
        delay += sim_database_below(db, sim_database_one_in(db, 4) ? 1500000 : 100000);
    }
    if (db->unreachable_until_us[node] > s->now_us) { /* sent again and again, until it gets through */
        delay += db->unreachable_until_us[node] - s->now_us;
    }
    return delay;
}

/* In order, in each direction. */
static uint64_t next_us(struct sim_session *x, uint64_t *last_us)
{
    uint64_t at = x->db->sim->now_us + latency_us(x->db, x->node);
    *last_us = at > *last_us ? at : *last_us + 1;
    return *last_us - x->db->sim->now_us;
}

static void tell(struct sim_session *x, enum sim_delivery what, uint64_t delay_us)
{
    struct sim *s = x->db->sim;
    if (x->client_gone || x->mute) {
        return;
    }
    x->outgoing = what;
    struct sim_node *n = &s->nodes[x->node];
    if (n->up && n->life == x->life) {
        sim_push(s, delay_us, SIM_PERSISTER, n, PERSISTER_DELIVERY, x->id, NULL, 0);
    }
}

static void answer_close(struct sim_answer *a)
{
    text_close(&a->cells);
}

void sim_request_close(struct sim_request *r)
{
    free(r->sql);
    for (int i = 0; i < COPY_COUNT; i++) {
        text_close(&r->copies[i]);
    }
    for (int i = 0; i < PERSISTER_PARAMETERS_MAX; i++) {
        text_close(&r->parameters[i]);
    }
    *r = (struct sim_request){.sql = NULL};
}

static void sweep(struct sim_database *db)
{
    struct sim_session **at = &db->sessions;
    while (*at != NULL) {
        struct sim_session *x = *at;
        if (x->client_gone && x->server_gone) {
            *at = x->next;
            sim_request_close(&x->request);
            answer_close(&x->building);
            answer_close(&x->sent);
            answer_close(&x->answer);
            sim_ops_close(&x->ops);
            free(x);
        } else {
            at = &x->next;
        }
    }
}

/* ---- locks and transactions ---- */

bool sim_session_lock(struct sim_session *x, uint32_t shard)
{
    struct sim_database *db = x->db;
    if (db->locked_until_us > db->sim->now_us) {
        return false;
    }
    for (const struct sim_session *other = db->sessions; other != NULL; other = other->next) {
        if (other != x && (other->locks >> shard & 1) != 0) {
            return false;
        }
    }
    x->locks |= 1u << shard;
    return true;
}

bool sim_database_any_lock(const struct sim_database *db, const struct sim_session *but)
{
    bool any = db->locked_until_us > db->sim->now_us;
    for (const struct sim_session *other = db->sessions; other != NULL; other = other->next) {
        any = any || (other != but && other->locks != 0);
    }
    return any;
}

static void wake_waiters(struct sim_database *db)
{
    for (struct sim_session *x = db->sessions; x != NULL; x = x->next) {
        if (x->waiting) {
            push(x, 10, DB_STEP);
        }
    }
}

static void end_transaction(struct sim_session *x)
{
    x->ops.count = 0;
    x->transaction = x->explicit_transaction = x->failed = false;
    if (x->locks != 0) {
        x->locks = 0;
        wake_waiters(x->db);
    }
}

void sim_session_rollback(struct sim_session *x)
{
    end_transaction(x);
}

/* The server's side ends; the client learns of it after a while. */
void sim_session_kill(struct sim_session *x, uint64_t notice_us)
{
    if (x->server_gone) {
        return;
    }
    x->server_gone = true;
    x->busy = x->waiting = false;
    end_transaction(x);
    tell(x, DELIVERED_LOSS, notice_us);
}

/* ---- what must hold at a commit ---- */

static const struct sim_op *moved(const struct sim_ops *ops, uint64_t shard)
{
    for (size_t i = 0; i < ops->count; i++) {
        if (ops->ops[i].kind == OP_WATERMARK && ops->ops[i].shard == shard) {
            return &ops->ops[i];
        }
    }
    return NULL;
}

/* Every event that the watermark moves over has what it must have. */
static void check_moved(struct sim_session *x, const struct sim_op *op, uint64_t before)
{
    struct sim_database *db = x->db;
    for (uint64_t at = before + 1; at <= op->watermark.sequence; at++) {
        struct sim_ledger_event *e =
            at <= db->ledger.count ? &db->ledger.events[at - 1] : NULL;
        if (e == NULL) {
            sim_violation(db->sim, "watermark of shard %u at %" PRIu64 ", but there are only %" PRIu64 " events",
                          op->shard, op->watermark.sequence, db->ledger.count);
        }
        if (e->shard != op->shard) {
            continue;
        }
        const struct sim_row *row = sim_rows_find(&db->rows, ROW_OUTBOX, at);
        if (row == NULL || memcmp(&row->outbox, &e->outbox, sizeof e->outbox) != 0) {
            sim_violation(db->sim, "watermark of shard %u at %" PRIu64 ", but event %" PRIu64 " %s the outbox",
                          op->shard, op->watermark.sequence, at, row == NULL ? "is not in" : "is another in");
        }
        row = sim_rows_find(&db->rows, ROW_PAYMENT, at);
        if (e->has_payment && (row == NULL || memcmp(&row->payment, &e->payment, sizeof e->payment) != 0)) {
            sim_violation(db->sim, "the payment of event %" PRIu64 " %s the database", at,
                          row == NULL ? "is not in" : "is another in");
        }
        const struct sim_row *wanted =
            sim_ledger_state(&db->ledger, e->state.table, e->state.key, op->watermark.sequence);
        row = sim_rows_find(&db->rows, e->state.table, e->state.key);
        bool same = row != NULL && (e->state.table == ROW_ORDER
                                        ? memcmp(&row->order, &wanted->order, sizeof row->order) == 0
                                        : memcmp(&row->eligibility, &wanted->eligibility,
                                                 sizeof row->eligibility) == 0);
        if (!same) {
            sim_violation(db->sim, "%s of event %" PRIu64 " %s the database", e->state.table == ROW_ORDER ? "the order" : "the eligibility",
                          at, row == NULL ? "is not in" : "is another in");
        }
        e->committed = true;
    }
}

static uint64_t shard_of(const struct sim_row *row)
{
    switch (row->table) {
    case ROW_ORDER:
        return row->order.shard;
    case ROW_LINE:
        return row->line.shard;
    case ROW_PAYMENT:
        return row->payment.shard;
    case ROW_OUTBOX:
        return row->outbox.shard;
    case ROW_ELIGIBILITY:
        return row->eligibility.shard;
    }
    return 0;
}

static uint64_t sequence_of(const struct sim_row *row)
{
    return row->table == ROW_OUTBOX        ? row->outbox.sequence
           : row->table == ROW_PAYMENT     ? row->payment.sequence
           : row->table == ROW_ELIGIBILITY ? row->eligibility.sequence
                                           : 0;
}

/* Before the operations are applied: before holds the watermarks as they were. */
static void check_rows(struct sim_session *x, const struct sim_watermark *before)
{
    struct sim *s = x->db->sim;
    for (size_t i = 0; i < x->ops.count; i++) {
        const struct sim_op *op = &x->ops.ops[i];
        if (op->kind == OP_WATERMARK || op->kind == OP_CLUSTER) {
            continue;
        }
        uint64_t shard = shard_of(&op->row), sequence = sequence_of(&op->row);
        const struct sim_op *by = moved(&x->ops, shard);
        for (uint32_t k = 0; k < SIM_SHARDS_MAX; k++) {
            if (before[k].term > x->term) {
                sim_violation(s, "rows of node %u, leader of term %" PRIu64 ", after term %" PRIu64
                                 " took the fence",
                              x->node + 1, x->term, before[k].term);
            }
        }
        if (by == NULL || (sequence != 0 && (sequence <= before[shard].sequence ||
                                             sequence > by->watermark.sequence))) {
            sim_violation(s, "a row of shard %" PRIu64 " (event %" PRIu64
                             ") outside of what its transaction moved the watermark over",
                          shard, sequence);
        }
    }
}

const char *sim_session_commit(struct sim_session *x)
{
    struct sim_database *db = x->db;
    struct sim_watermark before[SIM_SHARDS_MAX];
    memcpy(before, db->rows.watermarks, sizeof before);
    for (size_t i = 0; i < x->ops.count; i++) {
        const char *sqlstate = sim_rows_judge(&db->rows, &x->ops.ops[i]);
        if (sqlstate != NULL) {
            end_transaction(x);
            return sqlstate;
        }
    }
    bool forgotten = (db->sim->options.database_guards_off & SIM_GUARD_COMMIT) != 0 && x->explicit_transaction &&
                     sim_database_one_in(db, 10);
    if (x->ops.count > 0 && !forgotten) {
        db->sim->stats.database_commits++;
        db->sim->stats.database_rows += x->ops.count;
        sim_hash(db->sim, x->ops.count << 32 | x->id);
        check_rows(x, before);
        sim_rows_commit(&db->rows, &x->ops);
        for (size_t i = 0; i < x->ops.count; i++) {
            const struct sim_op *op = &x->ops.ops[i];
            if (op->kind == OP_WATERMARK && op->watermark.sequence != before[op->shard].sequence) {
                check_moved(x, op, before[op->shard].sequence);
            }
        }
        sim_trace(db->sim, "database: commit of node %u, term %" PRIu64 ", %zu operations, least watermark %" PRIu64,
                  x->node + 1, x->term, x->ops.count, sim_rows_least(&db->rows, db->shards));
    }
    end_transaction(x);
    return NULL;
}

/* ---- requests ---- */

struct sim_session *sim_session_open(struct sim_database *db, const struct sim_node *n, uint64_t term)
{
    struct sim_session *x = calloc(1, sizeof *x);
    CHECK(x != NULL);
    x->db = db;
    x->id = ++db->next_id;
    x->node = n->index;
    x->life = n->life;
    x->term = term;
    x->lock_timeout_ms = x->statement_timeout_ms = x->idle_timeout_ms = WAIT_FOREVER_MS;
    x->next = db->sessions;
    db->sessions = x;
    db->sim->stats.database_connects++;
    push(x, next_us(x, &x->arrival_us), DB_ACCEPT);
    return x;
}

void sim_session_request(struct sim_session *x)
{
    push(x, next_us(x, &x->arrival_us), DB_ARRIVE);
}

void sim_session_leave(struct sim_session *x, bool silently)
{
    x->client_gone = true;
    if (!silently) {
        push(x, next_us(x, &x->arrival_us), DB_GOODBYE);
    }
}

void sim_session_deliver(struct sim_database *db, uint64_t id)
{
    struct sim_session *x = find(db, id);
    if (x == NULL || x->outgoing == DELIVERED_NOTHING) {
        return;
    }
    x->delivered = x->outgoing;
    x->outgoing = DELIVERED_NOTHING;
    if (x->delivered == DELIVERED_ANSWER) {
        answer_close(&x->answer);
        x->answer = x->sent;
        x->sent = (struct sim_answer){.rows = 0};
    }
}

static void finish_request(struct sim_session *x)
{
    if (x->transaction && !x->explicit_transaction) { /* all statements of a request are one transaction */
        const char *sqlstate = x->building.sqlstate[0] == '\0' ? sim_session_commit(x) : NULL;
        if (sqlstate != NULL) {
            (void)sim_statement_refuse(x, sqlstate, "could not commit");
        }
        end_transaction(x);
    }
    x->busy = false;
    x->waits++;
    if (x->leaving) {
        sim_session_kill(x, 0);
        return;
    }
    sim_request_close(&x->request);
    answer_close(&x->sent);
    x->sent = x->building;
    x->building = (struct sim_answer){.rows = 0};
    if (x->explicit_transaction) {
        push(x, x->idle_timeout_ms * 1000, DB_TIMEOUT);
    }
    tell(x, DELIVERED_ANSWER, next_us(x, &x->departure_us));
}

static void refused(struct sim_session *x)
{
    bool explicit_transaction = x->explicit_transaction;
    end_transaction(x);
    x->transaction = x->explicit_transaction = x->failed = explicit_transaction;
    x->waiting = false;
    finish_request(x);
}

static uint64_t work_us(struct sim_database *db)
{
    bool slow = db->slow_until_us > db->sim->now_us;
    if (db->sluggish && !slow && !db->sim->healing) {
        return 1000 + sim_database_below(db, 60000);
    }
    return slow ? 1000 + sim_database_below(db, 400000) : 10 + sim_database_below(db, 600);
}

/* The next statement of the request. */
static void step(struct sim_session *x)
{
    struct sim_database *db = x->db;
    if (x->server_gone || !x->busy) {
        return;
    }
    const char *sql = x->request.sql + x->request.at;
    sql += strspn(sql, " ;");
    size_t size = x->request.single ? strlen(sql) : strcspn(sql, ";");
    if (size == 0) {
        finish_request(x);
        return;
    }
    if (db->breaks && !db->sim->healing && sim_database_one_in(db, 3000)) {
        static const char *const states[] = {"53100", "40P01", "57014", "XX000"};
        (void)sim_statement_refuse(x, states[sim_database_below(db, 4)], "some trouble or other");
        refused(x);
        return;
    }
    switch (sim_statement_run(x, sql, size)) {
    case STATEMENT_DONE:
        x->waiting = false;
        x->waits++;
        x->request.at = (size_t)(sql - x->request.sql) + size;
        push(x, work_us(db), DB_STEP);
        break;
    case STATEMENT_WAITS:
        if (!x->waiting) {
            uint64_t ms = x->lock_timeout_ms < x->statement_timeout_ms ? x->lock_timeout_ms
                                                                       : x->statement_timeout_ms;
            x->waiting = true;
            db->sim->stats.database_waits++;
            push(x, ms * 1000, DB_TIMEOUT);
        }
        break;
    case STATEMENT_REFUSED:
        sim_trace(db->sim, "database: refuses node %u, term %" PRIu64 ": %s %s: %.60s", x->node + 1, x->term,
                  x->building.sqlstate, x->building.error, sql);
        db->sim->stats.database_refusals++;
        db->sim->stats.database_fenced += strcmp(x->building.sqlstate, "HF001") == 0;
        refused(x);
        break;
    }
}

static void accept_connection(struct sim_session *x)
{
    struct sim_database *db = x->db;
    if (db->refuses_until_us > db->sim->now_us) {
        sim_session_kill(x, next_us(x, &x->departure_us));
        return;
    }
    x->connected = true;
    tell(x, DELIVERED_CONNECTION, 200 + next_us(x, &x->departure_us));
}

/* ---- the operator ---- */

static void operator_looks(struct sim_database *db)
{
    struct sim *s = db->sim;
    sim_push(s, OPERATOR_US, SIM_DATABASE, NULL, 0, DB_OPERATOR, NULL, 0);
    const struct sim_node *leader = sim_leader(s);
    char error[256] = "";
    if (leader == NULL || !db->has_saved || (!s->healing && !sim_database_one_in(db, 8))) {
        return;
    }
    sim_persister_error(leader, error);
    if (strstr(error, "lacks events that were acknowledged") == NULL) {
        return;
    }
    for (struct sim_session *x = db->sessions; x != NULL; x = x->next) {
        sim_session_kill(x, 100);
    }
    sim_rows_close(&db->rows);
    db->rows = db->saved;
    db->saved = (struct sim_rows){.rows = NULL};
    db->has_saved = false;
    s->stats.database_brought_back++;
    sim_trace(s, "database: the operator reads \"%s\" and brings the right server back", error);
}

static void session_event(struct sim_database *db, const struct sim_event *e)
{
    struct sim_session *x = find(db, e->a);
    if (x == NULL || x->server_gone) {
        return;
    }
    switch (e->b & 0xFF) {
    case DB_ACCEPT:
        accept_connection(x);
        break;
    case DB_ARRIVE:
        x->busy = true;
        step(x);
        break;
    case DB_STEP:
        if (e->b >> 8 == x->waits) { /* not woken twice */
            step(x);
        }
        break;
    case DB_TIMEOUT:
        if (e->b >> 8 != x->waits) {
            break; /* it waits no more */
        }
        if (x->waiting) {
            (void)sim_statement_refuse(x, "55P03", "canceling statement due to lock timeout");
            refused(x);
        } else if (x->explicit_transaction && !x->busy) {
            sim_session_kill(x, next_us(x, &x->departure_us));
        }
        break;
    case DB_GOODBYE:
        /* A server notices when it next reads: what is under way may still commit. */
        x->leaving = x->busy && sim_database_one_in(db, 2);
        if (!x->leaving) {
            sim_session_kill(x, 0);
        }
        break;
    }
}

/* ---- what goes wrong ---- */

static struct sim_session *some_session(struct sim_database *db)
{
    size_t count = 0;
    for (struct sim_session *x = db->sessions; x != NULL; x = x->next) {
        count += !x->server_gone;
    }
    uint64_t wanted = sim_database_below(db, count);
    for (struct sim_session *x = db->sessions; x != NULL; x = x->next) {
        if (!x->server_gone && wanted-- == 0) {
            return x;
        }
    }
    return NULL;
}

static void fault_break(struct sim_database *db)
{
    struct sim_session *x = some_session(db);
    if (x == NULL) {
        return;
    }
    switch (sim_database_below(db, 3)) {
    case 0: /* both know at once */
        sim_session_kill(x, 100);
        break;
    case 1: /* the client learns of it late */
        sim_session_kill(x, sim_database_below(db, 3000000));
        break;
    default: /* the server goes on with what it was asked: the commit is there, its answer is not */
        tell(x, DELIVERED_LOSS, 100);
        x->mute = true;
        break;
    }
    sim_trace(db->sim, "database: a connection of node %u breaks", x->node + 1);
}

static void restart(struct sim_database *db, uint64_t down_us)
{
    for (struct sim_session *x = db->sessions; x != NULL; x = x->next) {
        sim_session_kill(x, sim_database_one_in(db, 3) ? sim_database_below(db, 1000000) : 200);
    }
    db->refuses_until_us = db->sim->now_us + down_us;
}

static void fault_fail_over(struct sim_database *db)
{
    /* One at a time: what was lost must have been written again before something is lost anew. */
    if (db->rows.commits_count == 0 ||
        (db->has_saved &&
         sim_rows_least(&db->rows, db->shards) < sim_rows_least(&db->saved, db->shards))) {
        return;
    }
    size_t most = db->rows.commits_count < 200 ? db->rows.commits_count : 200;
    size_t lost = 1 + (size_t)sim_database_below(db, sim_database_one_in(db, 2) ? most : most / 20 + 1);
    struct sim_rows standby;
    sim_rows_prefix(&db->rows, db->rows.commits_count - lost, &standby);
    restart(db, 1000 + sim_database_below(db, 1500000));
    if (db->has_saved) {
        sim_rows_close(&db->saved);
    }
    db->saved = db->rows;
    db->rows = standby;
    db->has_saved = true;
    db->sim->stats.database_fail_overs++;
    sim_trace(db->sim, "database: fail-over to a standby that lacks %zu commits, least watermark %" PRIu64
                       " of %" PRIu64,
              lost, sim_rows_least(&db->rows, db->shards), sim_rows_least(&db->saved, db->shards));
}

/* Two who lead, in turn: what the first has sent arrives when the second has begun, or is about to. */
static void fault_rivals(struct sim_database *db)
{
    struct sim *s = db->sim;
    struct sim_node *leader = sim_leader(s);
    if (leader == NULL) {
        return;
    }
    db->unreachable_until_us[leader->index] = s->now_us + 20000 + sim_database_below(db, 600000);
    bool asked = driver_transfer(leader->driver, sim_node_now_ms(leader), 0) == REPLICA_OK;
    sim_trace(s, "database: node %u leads, cannot reach it for %" PRIu64 " us%s", leader->index + 1,
              db->unreachable_until_us[leader->index] - s->now_us, asked ? ", and is to hand over" : "");
    sim_node_after(leader);
}

static void fault(struct sim_database *db)
{
    struct sim *s = db->sim;
    uint64_t now = s->now_us;
    s->stats.database_faults++;
    switch (sim_database_below(db, 13)) {
    case 0:
    case 1:
    case 2:
        if (db->breaks) {
            fault_break(db);
        }
        break;
    case 3:
        if (db->slow) {
            db->slow_until_us = now + sim_database_below(db, 3000000);
            sim_trace(s, "database: slow for %" PRIu64 " us", db->slow_until_us - now);
        }
        break;
    case 4:
        if (db->hangs) {
            db->hangs_until_us = now + sim_database_below(db, sim_database_one_in(db, 5) ? 8000000 : 800000);
            sim_trace(s, "database: hangs for %" PRIu64 " us", db->hangs_until_us - now);
        }
        break;
    case 5:
    case 6:
        if (db->restarts) {
            restart(db, sim_database_below(db, sim_database_one_in(db, 4) ? 4000000 : 300000));
            s->stats.database_restarts++;
            sim_trace(s, "database: restarts, refuses for %" PRIu64 " us", db->refuses_until_us - now);
        }
        break;
    case 7:
        if (db->locks) {
            db->locked_until_us = now + sim_database_below(db, 5000000);
            sim_push(s, db->locked_until_us - now, SIM_DATABASE, NULL, 0, DB_STEP, NULL, 0);
            sim_trace(s, "database: somebody locks the watermarks for %" PRIu64 " us", db->locked_until_us - now);
        }
        break;
    case 8:
        if (db->fail_overs) {
            fault_fail_over(db);
        }
        break;
    case 9:
    case 10:
    case 11:
        if (db->cuts) {
            fault_rivals(db);
        }
        break;
    default:
        if (db->cuts) {
            unsigned node = (unsigned)sim_database_below(db, s->swarm.nodes);
            db->unreachable_until_us[node] = now + sim_database_below(db, 6000000);
            sim_trace(s, "database: node %u cannot reach it for %" PRIu64 " us", node + 1,
                      db->unreachable_until_us[node] - now);
        }
        break;
    }
}

void sim_database_event(struct sim *s, struct sim_event *e)
{
    struct sim_database *db = s->database;
    if (e->kind == SIM_DATABASE_FAULT) {
        if (!s->healing) {
            struct prng saved = db->prng;
            bool strikes = sim_shrink_database_fault(s, &db->prng);
            sim_push(s, 1 + sim_database_below(db, 2 * db->fault_interval_us), SIM_DATABASE_FAULT, NULL, 0, 0,
                     NULL, 0);
            if (strikes) {
                fault(db);
            }
            db->prng = saved;
        }
    } else if (e->b == DB_OPERATOR) {
        operator_looks(db);
    } else if (db->hangs_until_us > s->now_us) {
        sim_push(s, db->hangs_until_us - s->now_us, SIM_DATABASE, NULL, e->a, e->b, NULL, 0);
    } else if (e->a == 0) {
        wake_waiters(db); /* the locks of others are gone */
    } else {
        session_event(db, e);
    }
    sweep(db);
}

void sim_database_leads(struct sim *s)
{
    struct sim_database *db = s->database;
    if (db != NULL && !s->healing && db->fail_overs && sim_database_one_in(db, 3)) {
        fault_fail_over(db);
    }
}

void sim_database_heal(struct sim *s)
{
    struct sim_database *db = s->database;
    if (db == NULL || !s->healing) {
        return;
    }
    db->refuses_until_us = db->hangs_until_us = db->slow_until_us = db->locked_until_us = 0;
    memset(db->unreachable_until_us, 0, sizeof db->unreachable_until_us);
    /* Who could not get through learns at last what became of its connection. */
    for (struct sim_session *x = db->sessions; x != NULL; x = x->next) {
        sim_session_kill(x, 1000);
    }
    db->late_one_in = 0;
}

/* ---- life ---- */

void sim_database_create(struct sim *s)
{
    if (s->options.machine->engine == NULL || s->options.no_database) {
        return;
    }
    struct sim_database *db = calloc(1, sizeof *db);
    CHECK(db != NULL);
    db->sim = s;
    db->prng = prng_init(s->options.seed ^ 0xDA7ABA5E);
    if (sim_database_one_in(db, 4)) { /* the engine is its own database: random acknowledgements */
        free(db);
        return;
    }
    s->database = db;
    sim_machine_engine_persisted = true;
    db->shards = SIM_ENGINE_SHARDS;
    db->breaks = sim_database_one_in(db, 2);
    db->slow = sim_database_one_in(db, 2);
    db->hangs = sim_database_one_in(db, 2);
    db->restarts = sim_database_one_in(db, 2);
    db->locks = sim_database_one_in(db, 2);
    db->fail_overs = sim_database_one_in(db, 2);
    db->cuts = sim_database_one_in(db, 2);
    db->sluggish = sim_database_one_in(db, 3);
    static const uint64_t late[] = {200, 50, 6};
    db->late_one_in = late[sim_database_below(db, 3)];
    static const uint64_t intervals[] = {100000, 400000, 1500000};
    db->fault_interval_us = intervals[sim_database_below(db, 3)];
    sim_push(s, 1500000, SIM_DATABASE_FAULT, NULL, 0, 0, NULL, 0);
    sim_push(s, OPERATOR_US, SIM_DATABASE, NULL, 0, DB_OPERATOR, NULL, 0);
}

void sim_database_close(struct sim *s)
{
    struct sim_database *db = s->database;
    sim_machine_engine_persisted = false;
    if (db == NULL) {
        return;
    }
    for (struct sim_session *x = db->sessions; x != NULL; x = x->next) {
        x->client_gone = x->server_gone = true;
    }
    sweep(db);
    sim_rows_close(&db->rows);
    sim_rows_close(&db->saved);
    sim_ledger_close(&db->ledger);
    free(db);
    s->database = NULL;
}

void sim_database_applied(struct sim_node *n)
{
    struct sim_database *db = n->sim->database;
    if (db == NULL) {
        return;
    }
    uint64_t lost = sim_ledger_take(&db->ledger, n->sim->options.machine->engine(n->machine));
    if (lost != 0) {
        sim_violation(n->sim, "node %u: event %" PRIu64 " left the engine, but no database ever had it",
                      n->index + 1, lost);
    }
}

bool sim_database_drained(struct sim *s)
{
    struct sim_database *db = s->database;
    struct sim_node *leader = sim_leader(s);
    if (db == NULL) {
        return true;
    }
    const struct engine *e = leader != NULL ? s->options.machine->engine(leader->machine) : NULL;
    return e != NULL &&
           (!engine_initialized(e) || (engine_events_first(e) == engine_events_next(e) &&
                                       sim_rows_least(&db->rows, db->shards) + 1 == engine_events_next(e)));
}

void sim_database_check(struct sim *s)
{
    struct sim_database *db = s->database;
    char text[256];
    if (db == NULL) {
        return;
    }
    if (!sim_database_drained(s)) {
        char error[256] = "";
        if (sim_leader(s) != NULL) {
            sim_persister_error(sim_leader(s), error);
        }
        sim_violation(s, "the database is not drained after everything healed: %" PRIu64 " of %" PRIu64
                         " events; the persister says \"%s\"",
                      sim_rows_least(&db->rows, db->shards), db->ledger.count, error);
    }
    if (!sim_ledger_equals(&db->ledger, &db->rows, text, sizeof text)) {
        sim_violation(s, "drained, but the database differs: %s", text);
    }
    if (!sim_ledger_engine_equals(s->options.machine->engine(sim_leader(s)->machine), &db->rows, text,
                                  sizeof text)) {
        sim_violation(s, "drained, but engine and database differ: %s", text);
    }
    s->stats.database_checked += db->ledger.count;
}

void sim_database_print(const struct sim_stats *t)
{
    printf("database: connections %" PRIu64 ", commits %" PRIu64 " of %" PRIu64 " rows, refusals %" PRIu64
           " (fenced %" PRIu64 "), waits for locks %" PRIu64 "\n"
           "database faults %" PRIu64 ": restarts %" PRIu64 ", fail-overs to an earlier state %" PRIu64
           ", brought back %" PRIu64 "; events compared at the end %" PRIu64 "\nreplies compared with the model's %" PRIu64 "\n",
           t->database_connects, t->database_commits, t->database_rows, t->database_refusals,
           t->database_fenced, t->database_waits, t->database_faults, t->database_restarts,
           t->database_fail_overs, t->database_brought_back, t->database_checked, t->replies_compared);
}
