/* sim_statements: what the persister says to PostgreSQL, statement by statement, and what PostgreSQL does
 * then. Everything else is a violation: a new statement has to be taught here. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "storage/migrate.h"
#include "tests/sim/sim_database.h"

/* ---- reading: SQL, COPY BINARY, arrays ---- */

struct cursor {
    const uint8_t *at, *end;
    bool failed;
};

static uint64_t take(struct cursor *c, size_t size)
{
    uint64_t value = 0;
    if (c->failed || (size_t)(c->end - c->at) < size) {
        c->failed = true;
        return 0;
    }
    for (size_t i = 0; i < size; i++) {
        value = value << 8 | *c->at++;
    }
    return value;
}

/* A field: its size, then a big-endian number. null: may be NULL. */
static uint64_t field_number(struct cursor *c, bool *null)
{
    uint64_t size = take(c, 4);
    if (null != NULL) {
        *null = size == UINT32_MAX;
    }
    if (size == UINT32_MAX && null != NULL) {
        return 0;
    }
    c->failed = c->failed || size > 8;
    return c->failed ? 0 : take(c, (size_t)size);
}

static void field_text(struct cursor *c, char *out, size_t out_size)
{
    uint64_t size = take(c, 4);
    memset(out, 0, out_size);
    if (size == UINT32_MAX) {
        return;
    }
    if (c->failed || size >= out_size || size > (uint64_t)(c->end - c->at)) {
        c->failed = true;
        return;
    }
    memcpy(out, c->at, (size_t)size);
    c->at += size;
}

#define TEXT(c, field) field_text(c, field, sizeof(field))

/* The elements of a binary array. */
static struct cursor array_of(const struct text *t, uint64_t *count)
{
    struct cursor c = {(const uint8_t *)t->data, (const uint8_t *)t->data + t->len, false};
    c.failed = take(&c, 4) != 1;
    (void)take(&c, 4);
    (void)take(&c, 4);
    *count = take(&c, 4);
    (void)take(&c, 4);
    return c;
}

static bool starts(const char *sql, const char *with)
{
    return strncmp(sql, with, strlen(with)) == 0;
}

static uint64_t argument(const char **at)
{
    while (**at != '\0' && (**at < '0' || **at > '9')) {
        (*at)++;
    }
    char *end;
    uint64_t value = strtoull(*at, &end, 10);
    *at = end;
    return value;
}

/* ---- answering ---- */

static void answer_begin(struct sim_session *x, int columns)
{
    text_clear(&x->building.cells);
    x->building.rows = 0;
    x->building.columns = columns;
}

static void answer_number(struct sim_session *x, uint64_t value)
{
    text_appendf(&x->building.cells, "%" PRIu64, value);
    text_append(&x->building.cells, "", 1);
}

enum sim_outcome sim_statement_refuse(struct sim_session *x, const char *sqlstate, const char *error)
{
    if (x->building.sqlstate[0] == '\0') {
        snprintf(x->building.sqlstate, sizeof x->building.sqlstate, "%s", sqlstate);
        snprintf(x->building.error, sizeof x->building.error, "%s", error);
    }
    return STATEMENT_REFUSED;
}

static _Noreturn void unknown(struct sim_session *x, const char *sql)
{
    sim_violation(x->db->sim, "the database does not understand: %.200s", sql);
}

/* ---- COPY ---- */

static void read_order(struct cursor *c, struct sim_row *row)
{
    struct sim_row_order *o = &row->order;
    bool null;
    o->id = field_number(c, NULL);
    o->shard = field_number(c, NULL);
    TEXT(c, o->status);
    o->version = field_number(c, NULL);
    o->amount = (int64_t)field_number(c, NULL);
    o->created = (int64_t)field_number(c, NULL);
    o->pay_by = (int64_t)field_number(c, NULL);
    o->changed = (int64_t)field_number(c, NULL);
    o->created_index = field_number(c, NULL);
    o->changed_index = field_number(c, NULL);
    TEXT(c, o->currency);
    TEXT(c, o->sale);
    TEXT(c, o->user);
    o->restocked = (int64_t)field_number(c, &null);
    o->restocked = null ? -1 : o->restocked;
    TEXT(c, o->reason);
    row->key = o->id;
}

static void read_line(struct cursor *c, struct sim_row *row)
{
    struct sim_row_line *l = &row->line;
    l->order = field_number(c, NULL);
    l->shard = field_number(c, NULL);
    l->line = field_number(c, NULL);
    l->quantity = field_number(c, NULL);
    l->unit_price = (int64_t)field_number(c, NULL);
    TEXT(c, l->sku);
    row->key = sim_row_line_key(l->order, l->line);
}

static void read_payment(struct cursor *c, struct sim_row *row)
{
    struct sim_row_payment *p = &row->payment;
    p->sequence = field_number(c, NULL);
    p->shard = field_number(c, NULL);
    p->order = field_number(c, NULL);
    p->amount = (int64_t)field_number(c, NULL);
    p->index = field_number(c, NULL);
    p->received = (int64_t)field_number(c, NULL);
    TEXT(c, p->currency);
    TEXT(c, p->outcome);
    TEXT(c, p->payment);
    TEXT(c, p->reason);
    row->key = p->sequence;
}

/* The payload is looked at here and not kept: what must be in it is. */
static void judge_payload(struct sim_session *x, uint64_t sequence, const char *payload)
{
    const struct sim_ledger_event *e = sim_ledger_get(&x->db->ledger, sequence);
    char wanted[4][96] = {""};
    if (e == NULL) {
        sim_violation(x->db->sim, "the persister writes an event %" PRIu64 " that never was", sequence);
    }
    snprintf(wanted[0], sizeof wanted[0], "\"sequence\":%" PRIu64 "}", sequence);
    snprintf(wanted[1], sizeof wanted[1], "\"log_index\":%" PRIu64 ",", e->outbox.index);
    if (e->status[0] != '\0') {
        snprintf(wanted[2], sizeof wanted[2], "\"status\":\"%s\",\"version\":%" PRIu64 ",", e->status,
                 e->version);
        snprintf(wanted[3], sizeof wanted[3], "\"order\":\"%s\",", e->outbox.aggregateid);
    } else {
        snprintf(wanted[2], sizeof wanted[2], "\"granted\":%s,",
                 e->kind == EVENT_ELIGIBILITY_GRANTED ? "true" : "false");
    }
    for (int i = 0; i < 4; i++) {
        if (strstr(payload, wanted[i]) == NULL) {
            sim_violation(x->db->sim, "the payload of event %" PRIu64 " lacks %s: %.200s", sequence, wanted[i],
                          payload);
        }
    }
}

static void read_outbox(struct sim_session *x, struct cursor *c, struct sim_row *row)
{
    struct sim_row_outbox *o = &row->outbox;
    char payload[4096];
    c->failed = c->failed || take(c, 4) != sizeof o->id;
    for (size_t i = 0; i < sizeof o->id; i++) {
        o->id[i] = (uint8_t)take(c, 1);
    }
    TEXT(c, o->aggregatetype);
    TEXT(c, o->aggregateid);
    TEXT(c, o->type);
    TEXT(c, payload);
    o->shard = field_number(c, NULL);
    o->index = field_number(c, NULL);
    o->sequence = field_number(c, NULL);
    o->created = (int64_t)field_number(c, NULL);
    row->key = o->sequence;
    if (!c->failed && payload[0] == 1) {
        judge_payload(x, o->sequence, payload + 1);
    } else {
        c->failed = true; /* not of jsonb's version */
    }
}

static const struct {
    enum sim_table table;
    unsigned fields;
    const char *sql;
} copies[] = {
    {ROW_ORDER, 15,
     "COPY holdfast.orders (id, shard, status, version, amount, created_at, pay_by, changed_at, created_index, "
     "changed_index, currency, sale_id, user_id, restocked, reason) FROM STDIN (FORMAT binary)"},
    {ROW_LINE, 6,
     "COPY holdfast.order_lines (order_id, shard, line, quantity, unit_price, sku) FROM STDIN (FORMAT binary)"},
    {ROW_PAYMENT, 10,
     "COPY holdfast.payments (sequence, shard, order_id, amount, log_index, received_at, currency, outcome, "
     "payment_id, reason) FROM STDIN (FORMAT binary)"},
    {ROW_OUTBOX, 9,
     "COPY holdfast.outbox (id, aggregatetype, aggregateid, type, payload, shard, log_index, sequence, "
     "created_at) FROM STDIN (FORMAT binary)"},
};

static void read_row(struct sim_session *x, struct cursor *c, struct sim_row *row)
{
    switch (row->table) {
    case ROW_ORDER:
        read_order(c, row);
        break;
    case ROW_LINE:
        read_line(c, row);
        break;
    case ROW_PAYMENT:
        read_payment(c, row);
        break;
    case ROW_OUTBOX:
        read_outbox(x, c, row);
        break;
    case ROW_ELIGIBILITY:
        CHECK_UNREACHABLE();
    }
}

static enum sim_outcome run_copy(struct sim_session *x, const char *sql, size_t size)
{
    size_t i = 0;
    while (i < sizeof copies / sizeof copies[0] &&
           (strlen(copies[i].sql) != size || strncmp(copies[i].sql, sql, size) != 0)) {
        i++;
    }
    if (i == sizeof copies / sizeof copies[0]) {
        unknown(x, sql);
    }
    if (x->request.copy == x->request.copies_count) {
        sim_violation(x->db->sim, "a COPY without data");
    }
    const struct text *data = &x->request.copies[x->request.copy++];
    static const char signature[19] = "PGCOPY\n\377\r\n";
    struct cursor c = {(const uint8_t *)data->data, (const uint8_t *)data->data + data->len, false};
    if (data->len < sizeof signature || memcmp(data->data, signature, sizeof signature) != 0) {
        sim_violation(x->db->sim, "COPY data without its signature");
    }
    c.at += sizeof signature;
    for (;;) {
        uint64_t fields = take(&c, 2);
        if (fields == UINT16_MAX) {
            break;
        }
        struct sim_op *op = sim_ops_add(&x->ops);
        op->kind = OP_INSERT;
        op->row.table = copies[i].table;
        c.failed = c.failed || fields != copies[i].fields;
        read_row(x, &c, &op->row);
        if (c.failed) {
            sim_violation(x->db->sim, "COPY data that cannot be read: %.60s", sql);
        }
        if ((x->db->sim->options.database_guards_off & SIM_GUARD_ROW) != 0 &&
            op->row.table == ROW_ORDER && sim_database_one_in(x->db, 20)) {
            op->row.order.amount++;
        }
        const char *sqlstate = sim_rows_judge(&x->db->rows, op);
        if (sqlstate != NULL) {
            return sim_statement_refuse(x, sqlstate, "duplicate key value violates unique constraint");
        }
    }
    return STATEMENT_DONE;
}

/* ---- functions ---- */

/* {1,2,3} */
static size_t read_list(const char **at, uint64_t *out, size_t max)
{
    size_t count = 0;
    while (**at != '{') {
        (*at)++;
    }
    while (**at != '}' && count < max) {
        out[count++] = argument(at);
    }
    return count;
}

static struct sim_op *set_watermark(struct sim_session *x, uint32_t shard)
{
    struct sim_op *op = sim_ops_add(&x->ops);
    op->kind = OP_WATERMARK;
    op->shard = shard;
    op->watermark = x->db->rows.watermarks[shard];
    return op;
}

static bool later_term(const struct sim_database *db, uint64_t term)
{
    for (uint32_t i = 0; i < SIM_SHARDS_MAX; i++) {
        if (db->rows.watermarks[i].exists && db->rows.watermarks[i].term > term) {
            return true;
        }
    }
    return false;
}

static enum sim_outcome run_advance(struct sim_session *x, const char *sql)
{
    struct sim_database *db = x->db;
    bool fenced = (db->sim->options.database_guards_off & SIM_GUARD_FENCE) == 0;
    uint64_t shards[SIM_SHARDS_MAX], expected[SIM_SHARDS_MAX];
    uint64_t term = argument(&sql);
    size_t count = read_list(&sql, shards, SIM_SHARDS_MAX);
    size_t also = read_list(&sql, expected, SIM_SHARDS_MAX);
    uint64_t sequence = argument(&sql), index = argument(&sql);
    CHECK(count == also && count > 0);
    size_t touched = 0;
    for (size_t i = 0; i < count; i++) {
        const struct sim_watermark *w = &db->rows.watermarks[shards[i]];
        bool fits = w->exists && (w->term == term || !fenced) && w->sequence == expected[i] &&
                    w->sequence < sequence;
        if (!fits) {
            continue;
        }
        if (!sim_session_lock(x, (uint32_t)shards[i])) {
            return STATEMENT_WAITS; /* looked at again when it has it: what changed meanwhile counts */
        }
        touched++;
    }
    if (touched < count) {
        return later_term(db, term) && fenced
                   ? sim_statement_refuse(x, "HF001", "fenced: does not write here any more")
                   : sim_statement_refuse(x, "HF002", "watermarks are not where they were left");
    }
    for (size_t i = 0; i < count; i++) {
        struct sim_op *op = set_watermark(x, (uint32_t)shards[i]);
        op->watermark.sequence = sequence;
        op->watermark.index = index;
    }
    if ((db->sim->options.database_guards_off & SIM_GUARD_WATERMARK) != 0) {
        bool explicit_transaction = x->explicit_transaction;
        (void)sim_session_commit(x);
        x->transaction = x->explicit_transaction = explicit_transaction;
    }
    return STATEMENT_DONE;
}

static enum sim_outcome run_take_fence(struct sim_session *x, const char *sql)
{
    struct sim_database *db = x->db;
    uint64_t term = argument(&sql), shards = argument(&sql);
    for (uint32_t i = 0; i < SIM_SHARDS_MAX; i++) {
        if (db->rows.watermarks[i].exists && !sim_session_lock(x, i)) {
            return STATEMENT_WAITS;
        }
    }
    uint64_t touched = 0;
    bool fenced = (db->sim->options.database_guards_off & SIM_GUARD_FENCE) == 0;
    for (uint32_t i = 0; i < shards; i++) {
        const struct sim_watermark *w = &db->rows.watermarks[i];
        if (w->exists && (w->term <= term || !fenced)) {
            touched++;
            struct sim_op *op = set_watermark(x, i);
            op->watermark.term = w->term > term ? w->term : term;
        }
    }
    return touched == shards ? STATEMENT_DONE
                             : sim_statement_refuse(x, "HF001", "fenced: a leader of a later term writes here");
}

static enum sim_outcome run_create_shards(struct sim_session *x, const char *sql)
{
    uint64_t first = argument(&sql), last = argument(&sql);
    CHECK(last < SIM_SHARDS_MAX);
    if (sim_database_any_lock(x->db, x)) {
        return STATEMENT_WAITS; /* LOCK TABLE ... IN SHARE ROW EXCLUSIVE MODE */
    }
    for (uint64_t i = first; i <= last; i++) {
        if (!x->db->rows.watermarks[i].exists) {
            struct sim_op *op = set_watermark(x, (uint32_t)i);
            op->watermark = (struct sim_watermark){.exists = true};
        }
    }
    return STATEMENT_DONE;
}

/* The next of {a,b,c}. */
static void list_text(const char **at, char out[static SIM_NAME_SIZE])
{
    size_t size = strcspn(*at + 1, ",}");
    memset(out, 0, SIM_NAME_SIZE);
    CHECK(size < SIM_NAME_SIZE);
    memcpy(out, *at + 1, size);
    *at += 1 + size;
}

static enum sim_outcome run_change_orders(struct sim_session *x)
{
    const struct text *p = x->request.parameters;
    uint64_t count;
    struct cursor ids = array_of(&p[0], &count), shards = array_of(&p[1], &count),
                  versions = array_of(&p[3], &count), times = array_of(&p[4], &count),
                  indexes = array_of(&p[5], &count), restocks = array_of(&p[6], &count),
                  reasons = array_of(&p[7], &count);
    const char *statuses = p[2].data;
    for (uint64_t i = 0; i < count; i++) {
        struct sim_op *op = sim_ops_add(&x->ops);
        struct sim_row_order *o = &op->row.order;
        bool null;
        op->kind = OP_CHANGE_ORDER;
        op->row.table = ROW_ORDER;
        op->row.key = o->id = field_number(&ids, NULL);
        o->shard = field_number(&shards, NULL);
        list_text(&statuses, o->status);
        o->version = field_number(&versions, NULL);
        o->changed = (int64_t)field_number(&times, NULL);
        o->changed_index = field_number(&indexes, NULL);
        o->restocked = (int64_t)field_number(&restocks, &null);
        o->restocked = null ? -1 : o->restocked;
        TEXT(&reasons, o->reason);
        if (sim_rows_judge(&x->db->rows, op) != NULL) {
            return sim_statement_refuse(x, "HF003", "orders to change are missing or already newer");
        }
    }
    if (ids.failed || shards.failed || versions.failed || times.failed || indexes.failed || restocks.failed ||
        reasons.failed) {
        sim_violation(x->db->sim, "change_orders: parameters that cannot be read");
    }
    return STATEMENT_DONE;
}

static enum sim_outcome run_put_eligibilities(struct sim_session *x)
{
    const struct text *p = x->request.parameters;
    uint64_t count;
    struct cursor sales = array_of(&p[0], &count), users = array_of(&p[1], &count),
                  shards = array_of(&p[2], &count), grants = array_of(&p[3], &count),
                  times = array_of(&p[4], &count), indexes = array_of(&p[5], &count),
                  sequences = array_of(&p[6], &count);
    for (uint64_t i = 0; i < count; i++) {
        struct sim_op *op = sim_ops_add(&x->ops);
        struct sim_row_eligibility *g = &op->row.eligibility;
        op->kind = OP_PUT;
        op->row.table = ROW_ELIGIBILITY;
        TEXT(&sales, g->sale);
        TEXT(&users, g->user);
        g->shard = field_number(&shards, NULL);
        g->granted = field_number(&grants, NULL);
        g->changed = (int64_t)field_number(&times, NULL);
        g->index = field_number(&indexes, NULL);
        g->sequence = field_number(&sequences, NULL);
        op->row.key = sim_row_eligibility_key(g->sale, g->user);
        if (sim_rows_judge(&x->db->rows, op) != NULL) {
            return sim_statement_refuse(x, "HF003", "eligibilities are already newer");
        }
    }
    if (sales.failed || users.failed || shards.failed || grants.failed || times.failed || indexes.failed ||
        sequences.failed) {
        sim_violation(x->db->sim, "put_eligibilities: parameters that cannot be read");
    }
    return STATEMENT_DONE;
}

/* ---- the others ---- */

static enum sim_outcome run_set(struct sim_session *x, const char *sql)
{
    static const char *const others[] = {"client_min_messages = warning",
                                         "default_transaction_isolation = 'read committed'",
                                         "search_path = pg_catalog", "tcp_keepalives_idle",
                                         "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout"};
    sql += strlen("SET ");
    const char *at = sql;
    if (starts(sql, "lock_timeout")) {
        x->lock_timeout_ms = argument(&at);
    } else if (starts(sql, "statement_timeout")) {
        x->statement_timeout_ms = argument(&at);
    } else if (starts(sql, "idle_in_transaction_session_timeout")) {
        x->idle_timeout_ms = argument(&at);
    } else {
        bool known = false;
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
            known = known || starts(sql, others[i]);
        }
        if (!known) {
            unknown(x, sql);
        }
    }
    return STATEMENT_DONE;
}

static enum sim_outcome run_insert_cluster(struct sim_session *x, const char *sql)
{
    struct sim_op *op = sim_ops_add(&x->ops);
    op->kind = OP_CLUSTER;
    const char *id = strchr(sql, '\'');
    CHECK(id != NULL && strlen(id) > 34);
    memcpy(op->cluster, id + 1, 32);
    const char *at = id + 34;
    op->shards = argument(&at);
    return STATEMENT_DONE;
}

static enum sim_outcome select_cluster(struct sim_session *x)
{
    const struct sim_database *db = x->db;
    const char *cluster = db->rows.cluster;
    uint64_t shards = db->rows.shards;
    for (size_t i = 0; shards == 0 && i < x->ops.count; i++) { /* what this transaction inserted */
        if (x->ops.ops[i].kind == OP_CLUSTER) {
            cluster = x->ops.ops[i].cluster;
            shards = x->ops.ops[i].shards;
        }
    }
    answer_begin(x, 2);
    text_append(&x->building.cells, cluster, strlen(cluster) + 1);
    answer_number(x, shards);
    x->building.rows = 1;
    return STATEMENT_DONE;
}

static enum sim_outcome select_watermarks(struct sim_session *x, const char *sql, bool count_only)
{
    const char *at = sql;
    uint64_t below = argument(&at), count = 0;
    answer_begin(x, count_only ? 1 : 2);
    for (uint32_t i = 0; i < below; i++) {
        const struct sim_watermark *w = &x->db->rows.watermarks[i];
        if (w->exists && !count_only) {
            answer_number(x, i);
            answer_number(x, w->sequence);
        }
        count += w->exists;
    }
    x->building.rows = count_only ? 1 : (int)count;
    if (count_only) {
        answer_number(x, count);
    }
    return STATEMENT_DONE;
}

static enum sim_outcome run_evict(struct sim_session *x, const char *sql)
{
    const char *at = strstr(sql, "term > ");
    CHECK(at != NULL);
    bool later = later_term(x->db, argument(&at));
    uint64_t count = 0;
    for (struct sim_session *other = x->db->sessions; other != NULL; other = other->next) {
        if (other != x && !other->server_gone && !later) {
            sim_session_kill(other, 100);
            count++;
        }
    }
    answer_begin(x, 1);
    answer_number(x, count);
    x->building.rows = 1;
    return STATEMENT_DONE;
}

static enum sim_outcome run_end(struct sim_session *x)
{
    if (x->failed) {
        sim_session_rollback(x);
        snprintf(x->building.tag, sizeof x->building.tag, "ROLLBACK");
        return STATEMENT_DONE;
    }
    const char *sqlstate = sim_session_commit(x);
    if (sqlstate != NULL) {
        return sim_statement_refuse(x, sqlstate, "could not commit");
    }
    snprintf(x->building.tag, sizeof x->building.tag, "COMMIT");
    return STATEMENT_DONE;
}

enum sim_outcome sim_statement_run(struct sim_session *x, const char *sql, size_t size)
{
    if (x->failed && !starts(sql, "COMMIT")) {
        return sim_statement_refuse(x, "25P02", "current transaction is aborted");
    }
    if (starts(sql, "COMMIT")) {
        return run_end(x);
    } else if (starts(sql, "BEGIN")) {
        x->transaction = x->explicit_transaction = true;
        return STATEMENT_DONE;
    }
    x->transaction = true;
    if (starts(sql, "COPY ")) {
        return run_copy(x, sql, size);
    } else if (starts(sql, "SELECT holdfast.advance(")) {
        return run_advance(x, sql);
    } else if (starts(sql, "SELECT holdfast.change_orders($1, $2, $3::holdfast.order_status[], $4, $5, $6, $7, $8)")) {
        return run_change_orders(x);
    } else if (starts(sql, "SELECT holdfast.put_eligibilities($1, $2, $3, $4, $5, $6, $7)")) {
        return run_put_eligibilities(x);
    } else if (starts(sql, "SELECT holdfast.take_fence(")) {
        return run_take_fence(x, sql);
    } else if (starts(sql, "SELECT holdfast.create_shards(")) {
        return run_create_shards(x, sql);
    } else if (starts(sql, "SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN "
                           "'off' THEN 'on' ")) {
        x->sync = true;
        return STATEMENT_DONE;
    } else if (starts(sql, "SET ")) {
        return run_set(x, sql);
    } else if (starts(sql, "SELECT coalesce(max(version), 0) FROM holdfast.schema_migrations")) {
        answer_begin(x, 1);
        answer_number(x, migrations_count);
        x->building.rows = 1;
        return STATEMENT_DONE;
    } else if (starts(sql, "INSERT INTO holdfast.cluster (cluster_id, shards) VALUES (")) {
        return run_insert_cluster(x, sql);
    } else if (starts(sql, "SELECT replace(cluster_id::text, '-', ''), shards FROM holdfast.cluster")) {
        return select_cluster(x);
    } else if (starts(sql, "SELECT count(*) FROM holdfast.watermark WHERE shard < ")) {
        return select_watermarks(x, sql, true);
    } else if (starts(sql, "SELECT shard, sequence FROM holdfast.watermark WHERE shard < ")) {
        return select_watermarks(x, sql, false);
    } else if (starts(sql, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity ")) {
        return run_evict(x, sql);
    }
    unknown(x, sql);
}
