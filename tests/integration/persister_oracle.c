/* See persister_oracle.h. */
#include "persister_oracle.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/clock.h"
#include "base/text.h"
#include "pg_fixture.h"
#include "proto/order_id.h"

/* Rows of a query as lines of fields, compared with expected lines: a diff is readable. */
struct table {
    const char *name;
    PGresult *rows;
    int next;
    struct text expected;
};

static void table_begin(struct table *t, PGconn *c, const char *name, const char *sql)
{
    *t = (struct table){.name = name, .rows = pg_fixture_query(c, sql)};
}

/* Compares t->expected with the next row, fields joined by '|'. */
static void table_row(struct table *t)
{
    struct text got = TEXT_INIT;
    if (t->next >= PQntuples(t->rows)) {
        fail_msg("%s: row missing: %s", t->name, text_cstring(&t->expected));
    }
    for (int i = 0; i < PQnfields(t->rows); i++) {
        text_appendf(&got, "%s%s", i > 0 ? "|" : "",
                     PQgetisnull(t->rows, t->next, i) ? "null" : PQgetvalue(t->rows, t->next, i));
    }
    if (strcmp(text_cstring(&got), text_cstring(&t->expected)) != 0) {
        fail_msg("%s row %d:\n  there    %s\n  expected %s", t->name, t->next, text_cstring(&got),
                 text_cstring(&t->expected));
    }
    t->next++;
    text_close(&got);
    text_clear(&t->expected);
}

static void table_end(struct table *t)
{
    if (t->next != PQntuples(t->rows)) {
        fail_msg("%s: %d rows, expected %d", t->name, PQntuples(t->rows), t->next);
    }
    PQclear(t->rows);
    text_close(&t->expected);
}

#define MS(column) "(extract(epoch FROM " column ") * 1000)::bigint"

/* A reason as PostgreSQL can store it. */
static const char *stored(struct str reason, char out[static 512])
{
    char *at = out;
    for (uint32_t i = 0; i < reason.len; i++) {
        if (reason.ptr[i] == '\0') {
            memcpy(at, "\xEF\xBF\xBD", 3);
            at += 3;
        } else {
            *at++ = reason.ptr[i];
        }
    }
    *at = '\0';
    return reason.len > 0 ? out : "null";
}

struct final {
    enum order_status status;
    uint64_t version, index;
    int64_t time_ms;
    bool placed, refunded, restocked;
    struct str reason;
};

static struct final *final_states(const struct event_source *s, uint64_t count)
{
    struct final *f = calloc(s->orders_count + 1, sizeof *f);
    for (uint64_t i = 1; i <= count; i++) {
        const struct source_event *e = &s->events[i - 1];
        if (e->kind == EVENT_ELIGIBILITY_GRANTED || e->kind == EVENT_ELIGIBILITY_REVOKED ||
            e->kind == EVENT_PAYMENT_REJECTED) {
            continue;
        }
        struct final *x = &f[e->order];
        x->status = e->status;
        x->version = e->version;
        x->index = e->index;
        x->time_ms = e->time_ms;
        x->placed = true;
        if (e->kind == EVENT_ORDER_REFUNDED) {
            struct event_view v;
            event_source_read(s, i, &v);
            x->refunded = true;
            x->restocked = v.restocked;
            x->reason = v.reason;
        }
    }
    return f;
}

static void check_orders(PGconn *c, const struct event_source *s, uint64_t count)
{
    struct final *f = final_states(s, count);
    struct table t, l;
    table_begin(&t, c, "orders",
                "SELECT id, shard, status, version, amount, " MS("created_at") ", " MS(
                    "pay_by") ", " MS("changed_at") ", created_index, changed_index, currency, "
                                                    "sale_id, user_id, restocked, reason "
                                                    "FROM holdfast.orders ORDER BY id");
    table_begin(&l, c, "order_lines",
                "SELECT order_id, shard, line, quantity, unit_price, sku "
                "FROM holdfast.order_lines ORDER BY order_id, line");
    static const char *const skus[] = {"sku-red", "sku-blue.XL", "NULL", "s"};
    /* Ids of one log index grow with the position: the source's order is the order of ids. */
    for (size_t i = 0; i < s->orders_count && f[i].placed; i++) {
        const struct source_order *o = &s->orders[i];
        char reason[512];
        text_appendf(&t.expected,
                     "%" PRIu64 "|%u|%s|%" PRIu64 "|%" PRId64 "|%" PRId64 "|%" PRId64 "|%" PRId64
                     "|%" PRIu64 "|%" PRIu64 "|EUR|sale-2026|%s|%s|%s",
                     o->id, o->shard, order_status_name(f[i].status), f[i].version, o->amount,
                     o->created_ms, o->pay_by_ms, f[i].time_ms, o->index, f[i].index, o->user,
                     !f[i].refunded   ? "null"
                     : f[i].restocked ? "t"
                                      : "f",
                     stored(f[i].reason, reason));
        table_row(&t);
        for (uint32_t k = 0; k < o->lines_count; k++) {
            text_appendf(&l.expected, "%" PRIu64 "|%u|%u|%u|%u|%s", o->id, o->shard, k + 1,
                         1 + (o->seed >> k) % 9, o->seed % 100000 + k, skus[(o->seed + k) % 4]);
            table_row(&l);
        }
    }
    table_end(&t);
    table_end(&l);
    free(f);
}

static void check_payments(PGconn *c, const struct event_source *s, uint64_t count)
{
    struct table t;
    table_begin(&t, c, "payments",
                "SELECT sequence, shard, order_id, amount, log_index, " MS(
                    "received_at") ", currency, outcome, payment_id, reason FROM holdfast.payments "
                                   "ORDER BY sequence");
    for (uint64_t i = 1; i <= count; i++) {
        struct event_view v;
        event_source_read(s, i, &v);
        const char *outcome = v.kind == EVENT_ORDER_PAID         ? "paid"
                              : v.kind == EVENT_ORDER_REFUND_DUE ? "refund_due"
                              : v.kind == EVENT_PAYMENT_REJECTED ? "rejected"
                                                                 : NULL;
        if (outcome != NULL) {
            char reason[512];
            text_appendf(&t.expected,
                         "%" PRIu64 "|%u|%" PRIu64 "|%" PRId64 "|%" PRIu64 "|%" PRId64
                         "|USD|%s|evt-%" PRIu64 "|%s",
                         i, v.shard, v.order.id, v.amount, v.index, v.time_ms, outcome, i,
                         stored(v.reason, reason));
            table_row(&t);
        }
    }
    table_end(&t);
}

static void check_eligibilities(PGconn *c, const struct event_source *s, uint64_t count)
{
    /* Users of the source are few: the last event of each is found by looking at all. */
    uint64_t last[1024] = {0};
    for (uint64_t i = 1; i <= count; i++) {
        const struct source_event *e = &s->events[i - 1];
        if (e->kind == EVENT_ELIGIBILITY_GRANTED || e->kind == EVENT_ELIGIBILITY_REVOKED) {
            assert_true(e->user < 1024);
            last[e->user] = i;
        }
    }
    long long rows = 0;
    PGresult *r = pg_fixture_query(
        c, "SELECT sequence, user_id, shard, granted, log_index, " MS(
               "changed_at") ", sale_id FROM holdfast.eligibilities ORDER BY sequence");
    for (uint32_t u = 0; u < 1024; u++) {
        rows += last[u] != 0;
    }
    assert_int_equal(PQntuples(r), rows);
    for (int i = 0; i < PQntuples(r); i++) {
        uint64_t sequence = strtoull(PQgetvalue(r, i, 0), NULL, 10);
        assert_in_range(sequence, 1, count);
        const struct source_event *e = &s->events[sequence - 1];
        assert_int_equal(last[e->user], sequence);
        struct event_view v;
        event_source_read(s, sequence, &v);
        assert_string_equal(PQgetvalue(r, i, 1), v.user.ptr);
        assert_int_equal(atoll(PQgetvalue(r, i, 2)), v.shard);
        assert_string_equal(PQgetvalue(r, i, 3), v.kind == EVENT_ELIGIBILITY_GRANTED ? "t" : "f");
        assert_int_equal(atoll(PQgetvalue(r, i, 4)), v.index);
        assert_int_equal(atoll(PQgetvalue(r, i, 5)), v.time_ms);
        assert_string_equal(PQgetvalue(r, i, 6), "sale-2026");
    }
    PQclear(r);
}

static json_t *json_str(struct str s)
{
    return json_stringn(s.ptr, s.len);
}

static json_t *json_time(int64_t ms)
{
    char text[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(ms, text);
    return json_string(text);
}

static json_t *expected_payload(const struct event_view *v)
{
    json_t *o = json_object();
    json_object_set_new(o, "sale", json_str(v->sale));
    json_object_set_new(o, "user", json_str(v->user));
    json_object_set_new(o, "occurred_at", json_time(v->time_ms));
    json_object_set_new(o, "log_index", json_integer((json_int_t)v->index));
    json_object_set_new(o, "sequence", json_integer((json_int_t)v->sequence));
    if (v->kind == EVENT_ELIGIBILITY_GRANTED || v->kind == EVENT_ELIGIBILITY_REVOKED) {
        json_object_set_new(o, "granted", json_boolean(v->kind == EVENT_ELIGIBILITY_GRANTED));
        return o;
    }
    char id[ORDER_ID_TEXT_SIZE];
    order_id_format(v->order.id, id);
    json_object_set_new(o, "order", json_string(id));
    json_object_set_new(o, "status", json_string(order_status_name(v->status)));
    json_object_set_new(o, "version", json_integer((json_int_t)v->version));
    json_object_set_new(o, "amount", json_integer(v->order.amount));
    json_object_set_new(o, "currency", json_string("EUR"));
    json_object_set_new(o, "pay_by", json_time(v->order.pay_by_ms));
    json_t *lines = json_array();
    for (uint32_t i = 0; i < v->order.lines_count; i++) {
        const struct line_view *l = &v->order.lines[i];
        json_array_append_new(
            lines, json_pack("{s:s%, s:I, s:I}", "sku", l->sku.ptr, (size_t)l->sku.len, "quantity",
                             (json_int_t)l->quantity, "unit_price", (json_int_t)l->unit_price));
    }
    json_object_set_new(o, "lines", lines);
    if (v->payment.len > 0) {
        json_object_set_new(o, "payment", json_str(v->payment));
        json_object_set_new(o, "paid_amount", json_integer(v->amount));
        json_object_set_new(o, "paid_currency", json_string("USD"));
    }
    if (v->kind == EVENT_ORDER_REFUNDED) {
        json_object_set_new(o, "restocked", json_boolean(v->restocked));
    }
    if (v->reason.len > 0) {
        char reason[512];
        json_object_set_new(o, "reason", json_string(stored(v->reason, reason)));
    }
    return o;
}

static void check_outbox(PGconn *c, const struct event_source *s, uint64_t count,
                         const uint8_t cluster_id[16])
{
    static const char *const types[] = {"",
                                        "order.placed",
                                        "order.paid",
                                        "order.cancelled",
                                        "order.expired",
                                        "order.refund_due",
                                        "order.refunded",
                                        "eligibility.granted",
                                        "eligibility.revoked",
                                        "payment.rejected"};
    struct text sql = TEXT_INIT;
    text_appendf(&sql, "SELECT sequence, aggregatetype, aggregateid, type, shard, log_index, " MS(
                           "created_at") ", id = holdfast.event_id('");
    for (int i = 0; i < 16; i++) {
        text_appendf(&sql, "%02x", cluster_id[i]);
    }
    text_appendf(&sql, "', sequence), payload FROM holdfast.outbox ORDER BY sequence");
    PGresult *r = pg_fixture_query(c, text_cstring(&sql));
    text_close(&sql);
    assert_int_equal(PQntuples(r), count);
    for (int i = 0; i < PQntuples(r); i++) {
        struct event_view v;
        event_source_read(s, (uint64_t)i + 1, &v);
        bool eligibility =
            v.kind == EVENT_ELIGIBILITY_GRANTED || v.kind == EVENT_ELIGIBILITY_REVOKED;
        char aggregate[160], id[ORDER_ID_TEXT_SIZE];
        order_id_format(v.order.id, id);
        snprintf(aggregate, sizeof aggregate, "%s%s", eligibility ? "sale-2026/" : "",
                 eligibility ? v.user.ptr : id);
        assert_int_equal(atoll(PQgetvalue(r, i, 0)), i + 1);
        assert_string_equal(PQgetvalue(r, i, 1), eligibility ? "eligibility" : "order");
        assert_string_equal(PQgetvalue(r, i, 2), aggregate);
        assert_string_equal(PQgetvalue(r, i, 3), types[v.kind]);
        assert_int_equal(atoll(PQgetvalue(r, i, 4)), v.shard);
        assert_int_equal(atoll(PQgetvalue(r, i, 5)), v.index);
        assert_int_equal(atoll(PQgetvalue(r, i, 6)), v.time_ms);
        assert_string_equal(PQgetvalue(r, i, 7), "t");
        json_t *there = json_loads(PQgetvalue(r, i, 8), JSON_REJECT_DUPLICATES, NULL);
        json_t *expected = expected_payload(&v);
        assert_non_null(there);
        if (!json_equal(there, expected)) {
            char *text = json_dumps(expected, 0);
            fail_msg("outbox %d:\n  there    %s\n  expected %s", i + 1, PQgetvalue(r, i, 8), text);
        }
        json_decref(there);
        json_decref(expected);
    }
    PQclear(r);
}

void persister_oracle_check(const char *url, const struct event_source *source, uint64_t count,
                            const uint8_t cluster_id[16], uint64_t term)
{
    PGconn *c = pg_fixture_connect(url);
    check_outbox(c, source, count, cluster_id);
    check_orders(c, source, count);
    check_payments(c, source, count);
    check_eligibilities(c, source, count);
    char sql[256];
    snprintf(sql, sizeof sql,
             "SELECT count(*) FROM holdfast.watermark WHERE sequence = %" PRIu64
             " AND term = %" PRIu64 " AND log_index = %" PRIu64,
             count, term, count > 0 ? source->events[count - 1].index : 0);
    assert_int_equal(pg_fixture_number(c, sql), source->shards);
    PQfinish(c);
}
