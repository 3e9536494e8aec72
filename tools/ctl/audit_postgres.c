/* The engine against PostgreSQL: see audit.h. Rows are audit_rows.c's; here are the sums, the
 * eligibilities, the watermarks, the outbox and the payments. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "tools/ctl/audit.h"
#include "tools/ctl/postgres.h"
#include "tools/ctl/process.h"

#define POLL_MS 50

PGresult *audit_query(struct audit *a, PGconn *c, const char *check, const char *sql)
{
    PGresult *rows = PQexec(c, sql);
    if (PQresultStatus(rows) == PGRES_TUPLES_OK) {
        return rows;
    }
    char message[300];
    str_copy(message, sizeof message, str_from(PQerrorMessage(c)));
    audit_verdict(a, check, "PostgreSQL", AUDIT_WRONG, "%s", message);
    PQclear(rows);
    return NULL;
}

/* A difference between two readings is one only when both are of one moment. */
static enum audit_result judge(const struct audit_engine *e, bool same)
{
    return same ? AUDIT_GOOD : e->quiet ? AUDIT_WRONG : AUDIT_OPEN;
}

static int64_t number(const PGresult *rows, int row, int column)
{
    return strtoll(PQgetvalue(rows, row, column), NULL, 10);
}

/* Waits until the engine knows that every event below `next` is persisted. */
static enum ctl_exit wait_drained(struct audit *a, uint64_t next, struct audit_engine *e,
                                  bool *drained, struct audit_persist *p)
{
    uint64_t deadline_ms = clock_monotonic_ms() + ctl_value(&a->ctl->arguments, "wait")->u64;
    for (;;) {
        enum ctl_exit rv = audit_persist_read(a, p, e->acked, e->shards);
        if (rv != CTL_OK) {
            return rv;
        }
        *drained = p->configured && p->events_first >= next;
        if (*drained || !p->configured || clock_monotonic_ms() >= deadline_ms) {
            return CTL_OK;
        }
        process_sleep_ms(POLL_MS);
    }
}

/* ---- sums per SKU ---- */

static void check_stock_sums(struct audit *a, const struct audit_engine *e, PGconn *c)
{
    PGresult *rows =
        audit_query(a, c, "stock by SKU",
                    "SELECT l.sku, sum(l.quantity) FILTER (WHERE o.status = 'pending_payment'),"
                    " sum(l.quantity) FILTER (WHERE o.status = 'paid')"
                    " FROM holdfast.order_lines l JOIN holdfast.orders o ON o.id = l.order_id AND "
                    "o.shard = l.shard"
                    " GROUP BY l.sku ORDER BY l.sku COLLATE \"C\"");
    if (rows == NULL) {
        return;
    }
    int at = 0, count = PQntuples(rows);
    size_t wrong = 0;
    char example[200] = "";
    int64_t reserved_sum = 0, sold_sum = 0;
    for (size_t i = 0; i < e->skus_count; i++) {
        const struct audit_sku *s = &e->skus[i];
        int64_t reserved = 0, sold = 0;
        while (at < count && strcmp(PQgetvalue(rows, at, 0), s->id) < 0) {
            wrong++; /* a SKU that the engine does not know: SKUs are never removed */
            snprintf(example, sizeof example, "; unknown SKU %s", PQgetvalue(rows, at++, 0));
        }
        if (at < count && strcmp(PQgetvalue(rows, at, 0), s->id) == 0) {
            reserved = number(rows, at, 1);
            sold = number(rows, at++, 2);
        }
        reserved_sum += s->reserved;
        sold_sum += s->sold;
        if (reserved != s->reserved || sold != s->sold) {
            wrong++;
            snprintf(example, sizeof example,
                     "; %s: reserved %" PRId64 ", sold %" PRId64 " in the engine, %" PRId64
                     " and %" PRId64 " in PostgreSQL",
                     s->id, s->reserved, s->sold, reserved, sold);
        }
    }
    wrong += (size_t)(count - at);
    PQclear(rows);
    audit_verdict(a, "stock by SKU", "PostgreSQL", judge(e, wrong == 0),
                  "%zu SKUs, %" PRId64 " reserved, %" PRId64 " sold, %zu wrong%s", e->skus_count,
                  reserved_sum, sold_sum, wrong, example);
}

/* ---- eligibilities ---- */

static bool is_over(const struct audit_engine *e, const char *name)
{
    size_t len = strcspn(name, " ");
    for (size_t i = 0; i < e->sales_count; i++) {
        if (strlen(e->sales[i].id) == len && memcmp(e->sales[i].id, name, len) == 0) {
            return e->sales[i].over;
        }
    }
    return false;
}

static void check_eligibilities(struct audit *a, const struct audit_engine *e, PGconn *c)
{
    PGresult *rows =
        audit_query(a, c, "eligibilities",
                    "SELECT sale_id || ' ' || user_id FROM holdfast.eligibilities"
                    " WHERE granted ORDER BY (sale_id || ' ' || user_id) COLLATE \"C\"");
    if (rows == NULL) {
        return;
    }
    size_t at = 0, wrong = 0, retired = 0;
    char example[200] = "";
    for (int i = 0; i < PQntuples(rows); i++) {
        const char *name = PQgetvalue(rows, i, 0);
        while (at < e->rights_count && strcmp(e->rights[at].name, name) < 0) {
            wrong++;
            snprintf(example, sizeof example, "; %s has no row", e->rights[at++].name);
        }
        if (at < e->rights_count && strcmp(e->rights[at].name, name) == 0) {
            at++;
        } else if (is_over(e, name)) {
            retired++;
        } else {
            wrong++;
            snprintf(example, sizeof example, "; %s is not known to the engine", name);
        }
    }
    for (; at < e->rights_count; at++) {
        wrong++;
        snprintf(example, sizeof example, "; %s has no row", e->rights[at].name);
    }
    PQclear(rows);
    audit_verdict(a, "eligibilities", "PostgreSQL", judge(e, wrong == 0),
                  "%zu granted, %zu of sales that are over, %zu wrong%s", e->rights_count, retired,
                  wrong, example);
}

/* ---- watermarks ---- */

static void check_watermarks(struct audit *a, const struct audit_engine *e, PGconn *c)
{
    PGresult *rows =
        audit_query(a, c, "watermarks",
                    "SELECT w.shard, w.sequence, coalesce(max(o.sequence), 0)"
                    " FROM holdfast.watermark w LEFT JOIN holdfast.outbox o USING (shard)"
                    " GROUP BY w.shard, w.sequence ORDER BY w.shard");
    if (rows == NULL) {
        return;
    }
    size_t wrong = 0, needed = 0;
    char example[160] = "";
    for (uint32_t i = 0; i < e->shards; i++) {
        needed += e->acked[i] != 0; /* a shard without events has its row when the persister comes by */
    }
    for (int i = 0; i < PQntuples(rows); i++) {
        int64_t shard = number(rows, i, 0);
        uint64_t watermark = (uint64_t)number(rows, i, 1), newest = (uint64_t)number(rows, i, 2);
        bool known = shard >= 0 && shard < e->shards;
        needed -= known && e->acked[shard] != 0;
        /* What the engine has let go of must be there; a row above its watermark was not written by
         * a persister. */
        if (!known || watermark < e->acked[shard] || newest > watermark) {
            wrong++;
            snprintf(example, sizeof example,
                     "; shard %" PRId64 ": %" PRIu64 " in the engine, %" PRIu64
                     " in PostgreSQL, newest event %" PRIu64,
                     shard, known ? e->acked[shard] : 0, watermark, newest);
        } else if (e->quiet && watermark != e->acked[shard]) {
            wrong++;
            snprintf(example, sizeof example,
                     "; shard %" PRId64 ": %" PRIu64 " in the engine, %" PRIu64 " in PostgreSQL",
                     shard, e->acked[shard], watermark);
        }
    }
    int count = PQntuples(rows);
    PQclear(rows);
    audit_verdict(a, "watermarks", "PostgreSQL", wrong == 0 && needed == 0 ? AUDIT_GOOD : AUDIT_WRONG,
                  "%d of %u shards, %zu wrong%s", count, e->shards, wrong, example);
}

/* ---- outbox ---- */

static void check_outbox(struct audit *a, const struct audit_engine *e, PGconn *c)
{
    PGresult *rows = audit_query(
        a, c, "outbox",
        "SELECT count(*), count(DISTINCT sequence), count(DISTINCT id), coalesce(min(sequence), 1),"
        " coalesce(max(sequence), 0) FROM holdfast.outbox");
    if (rows == NULL) {
        return;
    }
    int64_t count = number(rows, 0, 0), distinct = number(rows, 0, 1), ids = number(rows, 0, 2);
    int64_t first = number(rows, 0, 3), last = number(rows, 0, 4);
    int64_t expected = (int64_t)e->events_next - 1;
    PQclear(rows);
    bool single = count == distinct && count == ids;
    /* Shards are written side by side: what is not yet acknowledged may have holes for a moment. */
    bool whole = first == 1 && last == count && (e->quiet ? last == expected : last >= expected);
    audit_verdict(
        a, "outbox", "PostgreSQL", single ? judge(e, whole) : AUDIT_WRONG,
        "%" PRId64 " events of 1 to %" PRId64 " expected: %" PRId64 " missing, %" PRId64 " double",
        count, expected, (last > expected ? last : expected) - distinct, count - distinct);
}

/* The last event of each order tells its status; every order has a first one. */
static void check_outbox_orders(struct audit *a, PGconn *c)
{
    PGresult *rows = audit_query(
        a, c, "outbox = orders",
        "WITH events AS ("
        "  SELECT aggregateid, (array_agg(type ORDER BY sequence DESC))[1] AS last,"
        "  bool_or(type = 'order.placed') AS placed"
        "  FROM holdfast.outbox WHERE aggregatetype = 'order' AND type LIKE 'order.%'"
        "  GROUP BY aggregateid)"
        " SELECT count(*), min(coalesce(holdfast.order_id_text(o.id), e.aggregateid))"
        " FROM holdfast.orders o FULL JOIN events e ON holdfast.order_id(e.aggregateid) = o.id"
        " WHERE o.id IS NULL OR e.aggregateid IS NULL OR NOT e.placed OR e.last <> 'order.' ||"
        " CASE o.status WHEN 'pending_payment' THEN 'placed' ELSE o.status::text END");
    if (rows == NULL) {
        return;
    }
    int64_t wrong = number(rows, 0, 0);
    const char *example = PQgetvalue(rows, 0, 1);
    audit_verdict(a, "outbox = orders", "PostgreSQL", wrong == 0 ? AUDIT_GOOD : AUDIT_WRONG,
                  "%" PRId64 " orders whose events tell something else%s%s", wrong,
                  wrong > 0 ? ", such as " : "", example);
    PQclear(rows);
}

static void check_payments(struct audit *a, PGconn *c)
{
    PGresult *rows = audit_query(
        a, c, "payments",
        "WITH taken AS ("
        "  SELECT order_id, count(*) AS times, max(amount) AS amount, max(currency) AS currency,"
        "  max(outcome) AS outcome FROM holdfast.payments WHERE outcome <> 'rejected' GROUP BY "
        "order_id)"
        " SELECT count(*), min(holdfast.order_id_text(coalesce(o.id, t.order_id))),"
        " (SELECT count(*) FROM holdfast.payments)"
        " FROM holdfast.orders o FULL JOIN taken t ON t.order_id = o.id"
        " WHERE CASE WHEN o.id IS NULL THEN true"
        "  WHEN o.status IN ('paid', 'refund_due', 'refunded') THEN t.times IS DISTINCT FROM 1"
        "   OR t.amount <> o.amount OR t.currency <> o.currency"
        "   OR (o.status <> 'refunded' AND t.outcome <> o.status::text)"
        "  ELSE t.times IS NOT NULL END");
    if (rows == NULL) {
        return;
    }
    int64_t wrong = number(rows, 0, 0);
    audit_verdict(a, "payments", "PostgreSQL", wrong == 0 ? AUDIT_GOOD : AUDIT_WRONG,
                  "%s payment events, %" PRId64 " orders that do not fit theirs%s%s",
                  PQgetvalue(rows, 0, 2), wrong, wrong > 0 ? ", such as " : "",
                  PQgetvalue(rows, 0, 1));
    PQclear(rows);
}

static bool check_identity(struct audit *a, const struct audit_engine *e, PGconn *c)
{
    PGresult *rows =
        audit_query(a, c, "cluster", "SELECT cluster_id::text, shards FROM holdfast.cluster");
    if (rows == NULL) {
        return false;
    }
    bool there = PQntuples(rows) == 1;
    bool good = there && strcmp(PQgetvalue(rows, 0, 0), e->cluster_id) == 0 &&
                number(rows, 0, 1) == (int64_t)e->shards;
    audit_verdict(a, "cluster", "PostgreSQL", good ? AUDIT_GOOD : AUDIT_WRONG,
                  there ? "id %s, %s shards" : "%sno persister has written here%s",
                  there ? PQgetvalue(rows, 0, 0) : "", there ? PQgetvalue(rows, 0, 1) : "");
    PQclear(rows);
    return good;
}

/* ---- a round ---- */

/* Everything once. *stable: what was read on both sides is of one moment. */
static enum ctl_exit run_round(struct audit *a, PGconn *c, bool *stable)
{
    struct audit_engine e;
    struct audit_persist p;
    bool drained = false;
    enum ctl_exit rv = audit_engine_read(a, &e);
    rv = rv == CTL_OK ? wait_drained(a, e.events_next, &e, &drained, &p) : rv;
    *stable = true;
    if (rv == CTL_OK && !drained) {
        audit_verdict(a, "persister caught up", "leader", AUDIT_WRONG, "%s%s%s",
                      !p.configured ? "the nodes have no PostgreSQL"
                      : p.connected ? "it is connected but behind"
                                    : "no connection",
                      p.error[0] != '\0' ? ": " : "", p.error);
    } else if (rv == CTL_OK) {
        audit_verdict(a, "persister caught up", "leader", AUDIT_GOOD, "%" PRIu64 " events",
                      e.events_next - 1);
        *stable = e.quiet && p.events_next == e.events_next;
        e.quiet = *stable;
        PQclear(PQexec(c, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"));
        if (check_identity(a, &e, c)) {
            audit_rows_compare(a, &e, c);
            check_stock_sums(a, &e, c);
            check_eligibilities(a, &e, c);
            check_watermarks(a, &e, c);
            check_outbox(a, &e, c);
            check_outbox_orders(a, c);
            check_payments(a, c);
        }
        PQclear(PQexec(c, "ROLLBACK"));
    }
    audit_engine_close(&e);
    return rv;
}

enum ctl_exit audit_postgres(struct audit *a, const char *url)
{
    PGconn *c = postgres_connect(a->ctl, url);
    if (c == NULL) {
        return CTL_UNREACHABLE;
    }
    enum ctl_exit rv = CTL_OK;
    bool green = a->green, stable = false;
    json_t *before = json_copy(a->verdicts);
    for (int round = 0; round < AUDIT_ROUNDS; round++) {
        json_decref(a->verdicts);
        a->verdicts = json_copy(before);
        a->green = green;
        rv = run_round(a, c, &stable);
        if (rv != CTL_OK || stable || !a->green) {
            break; /* what is red while events come is red: such checks allow for what is younger */
        }
    }
    if (rv == CTL_OK && !stable && a->green) {
        audit_verdict(a, "one moment", "PostgreSQL", AUDIT_WRONG,
                      "events kept coming in each of %d rounds: audit when the sale rests",
                      AUDIT_ROUNDS);
    }
    json_decref(before);
    PQfinish(c);
    return rv;
}
