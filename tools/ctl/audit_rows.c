/* Orders, row by row: a merge of two sequences in order of id.
 *
 *     only in the engine    red: the persister has caught up with everything that was read
 *     only in PostgreSQL    fine when the order is finished (it left memory) or younger than the
 * reading in both               version, status, amount, content must be equal; a row with a higher
 * version changed after the reading "After the reading" is taken for an explanation only when
 * events did come in between. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "proto/order_id.h"
#include "proto/shard.h"
#include "tools/ctl/audit.h"

#define FETCH_ROWS   "5000"
#define EXAMPLES_MAX 3
#define STATUSES     (ORDER_REFUNDED + 1)

struct row {
    uint64_t id, version, created_index;
    int64_t amount;
    uint32_t status, shard;
    bool right_shard;
    const char *content;
};

struct comparison {
    const struct audit_engine *e;
    size_t at; /* next order of the engine */
    uint64_t compared, retired, younger, wrong;
    struct text examples;
    uint64_t last_id;
    struct {
        uint64_t engine_count, rows_count;
        int64_t engine_amount, rows_amount;
    } totals[STATUSES];
    uint64_t wrong_shards;
};

static void add_wrong(struct comparison *c, uint64_t id, const char *what)
{
    if (c->wrong < EXAMPLES_MAX) {
        char text[ORDER_ID_TEXT_SIZE];
        order_id_format(id, text);
        text_appendf(&c->examples, "; %s %s", text, what);
    }
    c->wrong++;
}

static void count_engine(struct comparison *c, const struct audit_order *o)
{
    if (o->status < STATUSES) {
        c->totals[o->status].engine_count++;
        c->totals[o->status].engine_amount += o->amount;
    }
}

static void count_row(struct comparison *c, const struct row *r)
{
    if (r->status < STATUSES) {
        c->totals[r->status].rows_count++;
        c->totals[r->status].rows_amount += r->amount;
    }
}

static void compare_both(struct comparison *c, const struct audit_order *o, const struct row *r)
{
    c->compared++;
    if (r->version > o->version && !c->e->quiet) {
        c->younger++; /* changed after it was read */
        return;
    }
    count_engine(c, o);
    count_row(c, r);
    char what[160];
    if (r->version != o->version) {
        snprintf(what, sizeof what, "is at version %" PRIu64 " instead of %" PRIu64, r->version,
                 o->version);
        add_wrong(c, o->id, what);
    } else if (r->status != o->status) {
        snprintf(what, sizeof what, "is %s instead of %s",
                 order_status_name((enum order_status)r->status),
                 order_status_name((enum order_status)o->status));
        add_wrong(c, o->id, what);
    } else if (r->amount != o->amount) {
        snprintf(what, sizeof what, "costs %" PRId64 " instead of %" PRId64, r->amount, o->amount);
        add_wrong(c, o->id, what);
    } else if (strcmp(r->content, o->content) != 0) {
        add_wrong(c, o->id, "has another user, sale, currency or lines");
    } else if (r->created_index != o->created_index) {
        add_wrong(c, o->id, "was placed at another index");
    }
}

static bool is_finished(uint32_t status)
{
    return status != ORDER_PENDING_PAYMENT && status != ORDER_REFUND_DUE;
}

static void compare_row(struct comparison *c, const struct row *r)
{
    const struct audit_engine *e = c->e;
    if (c->last_id == r->id) {
        add_wrong(c, r->id, "has two rows");
        return;
    }
    c->last_id = r->id;
    c->wrong_shards += r->right_shard ? 0 : 1;
    while (c->at < e->orders_count && e->orders[c->at].id < r->id) {
        count_engine(c, &e->orders[c->at]);
        add_wrong(c, e->orders[c->at++].id, "has no row");
    }
    if (c->at < e->orders_count && e->orders[c->at].id == r->id) {
        compare_both(c, &e->orders[c->at++], r);
    } else if (r->created_index > e->index && !e->quiet) {
        c->younger++;
    } else if (is_finished(r->status) && r->created_index <= e->index) {
        c->retired++;
    } else {
        add_wrong(c, r->id, "is not known to the engine");
    }
}

static uint32_t status_of(const char *name)
{
    for (uint32_t s = ORDER_PENDING_PAYMENT; s < STATUSES; s++) {
        if (strcmp(order_status_name((enum order_status)s), name) == 0) {
            return s;
        }
    }
    return ORDER_NONE;
}

/* One page of the cursor. Returns how many rows, -1 after a red verdict. */
static int compare_page(struct audit *a, struct comparison *c, PGconn *connection)
{
    PGresult *rows = audit_query(a, connection, "orders", "FETCH " FETCH_ROWS " FROM audit_orders");
    if (rows == NULL) {
        return -1;
    }
    int count = PQntuples(rows);
    for (int i = 0; i < count; i++) {
        struct text content = TEXT_INIT;
        const char *user = PQgetvalue(rows, i, 8), *lines = PQgetvalue(rows, i, 9);
        text_appendf(&content, "%s %s %s%s%s", user, PQgetvalue(rows, i, 7), PQgetvalue(rows, i, 6),
                     lines[0] != '\0' ? " " : "", lines);
        struct row r = {.id = strtoull(PQgetvalue(rows, i, 0), NULL, 10),
                        .shard = (uint32_t)strtoul(PQgetvalue(rows, i, 1), NULL, 10),
                        .status = status_of(PQgetvalue(rows, i, 2)),
                        .version = strtoull(PQgetvalue(rows, i, 3), NULL, 10),
                        .amount = strtoll(PQgetvalue(rows, i, 4), NULL, 10),
                        .created_index = strtoull(PQgetvalue(rows, i, 5), NULL, 10),
                        .content = text_cstring(&content)};
        r.right_shard = r.shard == order_id_shard(r.id) &&
                        r.shard == shard_of_user(str_from(user), c->e->shards);
        compare_row(c, &r);
        text_close(&content);
    }
    PQclear(rows);
    return count;
}

static void judge_totals(struct audit *a, const struct comparison *c)
{
    for (uint32_t s = ORDER_PENDING_PAYMENT; s < STATUSES; s++) {
        bool same = c->totals[s].engine_count == c->totals[s].rows_count &&
                    c->totals[s].engine_amount == c->totals[s].rows_amount;
        audit_verdict(a, "orders by status", order_status_name((enum order_status)s),
                      same ? AUDIT_GOOD : AUDIT_WRONG,
                      "engine: %" PRIu64 " of %" PRId64 " in sum; PostgreSQL: %" PRIu64
                      " of %" PRId64,
                      c->totals[s].engine_count, c->totals[s].engine_amount,
                      c->totals[s].rows_count, c->totals[s].rows_amount);
    }
}

void audit_rows_compare(struct audit *a, const struct audit_engine *e, PGconn *connection)
{
    struct comparison c = {.e = e};
    PGresult *declared = PQexec(
        connection,
        "DECLARE audit_orders NO SCROLL CURSOR FOR"
        " SELECT o.id, o.shard, o.status::text, o.version, o.amount, o.created_index,"
        " o.currency, o.sale_id, o.user_id, coalesce(l.lines, '')"
        " FROM holdfast.orders o LEFT JOIN ("
        "   SELECT order_id, shard,"
        "   string_agg(sku || '=' || quantity || '@' || unit_price, ' ' ORDER BY line) AS lines"
        "   FROM holdfast.order_lines GROUP BY order_id, shard"
        " ) l ON l.order_id = o.id AND l.shard = o.shard"
        " ORDER BY o.id, o.shard");
    bool good = PQresultStatus(declared) == PGRES_COMMAND_OK;
    PQclear(declared);
    if (!good) {
        audit_verdict(a, "orders", "PostgreSQL", AUDIT_WRONG, "%s", PQerrorMessage(connection));
        return;
    }
    int count;
    while ((count = compare_page(a, &c, connection)) > 0) {
    }
    for (; count == 0 && c.at < e->orders_count; c.at++) {
        count_engine(&c, &e->orders[c.at]);
        add_wrong(&c, e->orders[c.at].id, "has no row");
    }
    if (count == 0) {
        audit_verdict(a, "orders row by row", "PostgreSQL", c.wrong == 0 ? AUDIT_GOOD : AUDIT_WRONG,
                      "%" PRIu64 " compared, %" PRIu64 " wrong, %" PRIu64 " only in PostgreSQL "
                      "(finished), %" PRIu64 " changed meanwhile%s",
                      c.compared, c.wrong, c.retired, c.younger, text_cstring(&c.examples));
        audit_verdict(a, "orders by shard", "PostgreSQL",
                      c.wrong_shards == 0 ? AUDIT_GOOD : AUDIT_WRONG,
                      "%" PRIu64 " rows in a wrong shard", c.wrong_shards);
        judge_totals(a, &c);
    }
    text_close(&c.examples);
}
