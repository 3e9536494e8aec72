/* See persister_rows.h. Formats: PostgreSQL's COPY BINARY (documentation of COPY, "Binary Format")
 * and array_recv: all integers big-endian, times as microseconds since 2000-01-01. */
#include "storage/persister_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "proto/order_id.h"
#include "storage/persister.h"
#include "storage/persister_json.h"
#include "storage/persister_merge.h"

const char *const persister_copy_sql[COPY_COUNT] = {
    [COPY_ORDERS] =
        "COPY holdfast.orders (id, shard, status, version, amount, created_at, pay_by, "
        "changed_at, created_index, changed_index, currency, sale_id, user_id, restocked, reason) "
        "FROM STDIN (FORMAT binary)",
    [COPY_ORDER_LINES] =
        "COPY holdfast.order_lines (order_id, shard, line, quantity, unit_price, sku) "
        "FROM STDIN (FORMAT binary)",
    [COPY_PAYMENTS] =
        "COPY holdfast.payments (sequence, shard, order_id, amount, log_index, received_at, "
        "currency, outcome, payment_id, reason) FROM STDIN (FORMAT binary)",
    [COPY_OUTBOX] =
        "COPY holdfast.outbox (id, aggregatetype, aggregateid, type, payload, shard, log_index, "
        "sequence, created_at) FROM STDIN (FORMAT binary)",
};
const char *const persister_change_orders_sql =
    "SELECT holdfast.change_orders($1, $2, $3::holdfast.order_status[], $4, $5, $6, $7, $8)";
const char *const persister_put_eligibilities_sql =
    "SELECT holdfast.put_eligibilities($1, $2, $3, $4, $5, $6, $7)";

/* Types of pg_type.dat that cannot change. */
enum {
    OID_BOOL = 16,
    OID_INT8 = 20,
    OID_INT4 = 23,
    OID_TEXT = 25,
    OID_TIMESTAMPTZ = 1184,
    OID_BOOL_ARRAY = 1000,
    OID_INT4_ARRAY = 1007,
    OID_TEXT_ARRAY = 1009,
    OID_INT8_ARRAY = 1016,
    OID_TIMESTAMPTZ_ARRAY = 1185
};

#define EPOCH_2000_MS 946684800000ll

/* ---- binary writing: room is reserved by the row, then filled without further checks ---- */

static char *put_u16(char *at, uint16_t value)
{
    store_u16(at, __builtin_bswap16(value));
    return at + 2;
}

static char *put_u32(char *at, uint32_t value)
{
    store_u32(at, __builtin_bswap32(value));
    return at + 4;
}

static char *put_u64(char *at, uint64_t value)
{
    store_u64(at, __builtin_bswap64(value));
    return at + 8;
}

/* Fields: a length, then the value. */
static char *field_i16(char *at, uint16_t value)
{
    return put_u16(put_u32(at, 2), value);
}

static char *field_i32(char *at, uint32_t value)
{
    return put_u32(put_u32(at, 4), value);
}

static char *field_i64(char *at, uint64_t value)
{
    return put_u64(put_u32(at, 8), value);
}

static char *field_time(char *at, int64_t ms)
{
    return field_i64(at, (uint64_t)((ms - EPOCH_2000_MS) * 1000));
}

static char *field_null(char *at)
{
    return put_u32(at, UINT32_MAX);
}

static char *field_bool(char *at, bool value)
{
    at = put_u32(at, 1);
    *at = value ? 1 : 0;
    return at + 1;
}

/* Identifiers and literals: no byte in them needs care. */
static char *field_str(char *at, struct str s)
{
    at = put_u32(at, s.len);
    memcpy(at, s.ptr, s.len);
    return at + s.len;
}

/* People's text: PostgreSQL cannot store NUL, so U+FFFD stands for it. At most three times as long.
 */
static char *field_text(char *at, struct str s)
{
    char *start = at + 4;
    char *to = start;
    for (uint32_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '\0') {
            *to++ = (char)0xEF;
            *to++ = (char)0xBF;
            *to++ = (char)0xBD;
        } else {
            *to++ = s.ptr[i];
        }
    }
    put_u32(at, (uint32_t)(to - start));
    return to;
}

static char *field_text_or_null(char *at, struct str s)
{
    return s.len > 0 ? field_text(at, s) : field_null(at);
}

/* Ends the row that was written into reserved room. */
static void grow_to(struct text *t, const char *at)
{
    t->len = (size_t)(at - t->data);
    CHECK(t->len < t->capacity);
    t->data[t->len] = '\0';
}

static void copy_begin(struct text *t)
{
    static const char header[19] = "PGCOPY\n\377\r\n"; /* then flags and extension length, both 0 */
    text_clear(t);
    text_append(t, header, sizeof header);
}

static void copy_end(struct text *t)
{
    text_append(t, "\xFF\xFF", 2);
}

/* ---- arrays ---- */

static void array_begin(struct persister_parameters *p, int i, uint32_t array_type)
{
    p->types[i] = array_type;
    p->formats[i] = array_type != 0;
    text_clear(&p->values[i]);
    if (array_type != 0) {
        text_append(&p->values[i], (char[20]){0}, 20); /* the header, filled by array_end */
    } else {
        text_append(&p->values[i], "{", 1);
    }
}

static void array_end(struct persister_parameters *p, int i, uint32_t element_type)
{
    if (p->types[i] == 0) {
        p->values[i].data[p->values[i].len - 1] = '}'; /* in place of the last comma */
        return;
    }
    char *at = put_u32(p->values[i].data, 1); /* dimensions */
    at = put_u32(at, 1);                      /* there may be NULLs */
    at = put_u32(at, element_type);
    at = put_u32(at, (uint32_t)p->count);
    put_u32(at, 1); /* lower bound */
}

static void array_i32(struct text *t, uint32_t value)
{
    grow_to(t, field_i32(text_reserve(t, 8), value));
}

static void array_i64(struct text *t, uint64_t value)
{
    grow_to(t, field_i64(text_reserve(t, 12), value));
}

static void array_time(struct text *t, int64_t ms)
{
    grow_to(t, field_time(text_reserve(t, 12), ms));
}

static void array_str(struct text *t, struct str s)
{
    grow_to(t, field_text(text_reserve(t, 4 + 3 * (size_t)s.len), s));
}

static void array_null(struct text *t)
{
    grow_to(t, field_null(text_reserve(t, 4)));
}

static void array_bool(struct text *t, bool value)
{
    grow_to(t, field_bool(text_reserve(t, 5), value));
}

/* ---- rows ---- */

/* Names of the type holdfast.order_status. */
static struct str status_name(const struct persister_event *e)
{
    return str_from(order_status_name((enum order_status)e->status));
}

static struct str outcome_name(const struct persister_event *e)
{
    return e->kind == EVENT_ORDER_PAID         ? STR_LITERAL("paid")
           : e->kind == EVENT_ORDER_REFUND_DUE ? STR_LITERAL("refund_due")
                                               : STR_LITERAL("rejected");
}

/* Bytes that the texts of one event take at most in a row, NULs replaced. */
static size_t texts_size(const struct persister_event *e)
{
    return (size_t)e->sale_len + e->user_len + e->payment_len + 3 * (size_t)e->reason_len;
}

static void put_order(struct text *t, const struct merged *m)
{
    const struct persister_event *p = m->placed, *l = m->last;
    char *at =
        text_reserve(t, 256 + texts_size(p) + (m->refunded != NULL ? texts_size(m->refunded) : 0));
    at = put_u16(at, 15);
    at = field_i64(at, p->order);
    at = field_i32(at, p->shard);
    at = field_str(at, status_name(l));
    at = field_i64(at, l->version);
    at = field_i64(at, (uint64_t)p->order_amount);
    at = field_time(at, p->created_ms);
    at = field_time(at, p->pay_by_ms);
    at = field_time(at, l->time_ms);
    at = field_i64(at, p->created_index);
    at = field_i64(at, l->index);
    at = field_str(at, str_from(p->order_currency));
    at = field_str(at, persister_event_sale(p));
    at = field_str(at, persister_event_user(p));
    if (m->refunded != NULL) {
        at = field_bool(at, m->refunded->restocked);
        at = field_text_or_null(at, persister_event_reason(m->refunded));
    } else {
        at = field_null(field_null(at));
    }
    grow_to(t, at);
}

static void put_lines(struct text *t, const struct persister_event *p)
{
    const struct persister_line *l = persister_event_lines(p);
    for (uint16_t i = 1; i <= p->lines_count; i++, l = persister_line_next(l)) {
        char *at = text_reserve(t, 64 + (size_t)l->sku_len);
        at = put_u16(at, 6);
        at = field_i64(at, p->order);
        at = field_i32(at, p->shard);
        at = field_i16(at, i);
        at = field_i32(at, l->quantity);
        at = field_i64(at, (uint64_t)l->unit_price);
        grow_to(t, field_str(at, persister_line_sku(l)));
    }
}

static void put_payment(struct text *t, const struct persister_event *e)
{
    char *at = text_reserve(t, 160 + texts_size(e));
    at = put_u16(at, 10);
    at = field_i64(at, e->sequence);
    at = field_i32(at, e->shard);
    at = field_i64(at, e->order);
    at = field_i64(at, (uint64_t)e->paid_amount);
    at = field_i64(at, e->index);
    at = field_time(at, e->time_ms);
    at = field_str(at, str_from(e->paid_currency));
    at = field_str(at, outcome_name(e));
    at = field_str(at, persister_event_payment(e));
    grow_to(t, field_text_or_null(at, persister_event_reason(e)));
}

void persister_event_id(const uint8_t cluster_id[16], uint64_t sequence, uint8_t id[16])
{
    memcpy(id, cluster_id, 6);
    id[6] = (uint8_t)(0x80 | cluster_id[6] >> 4); /* version 8 */
    id[7] = (uint8_t)(cluster_id[6] << 4 | cluster_id[7] >> 4);
    store_u64(id + 8,
              __builtin_bswap64(1ull << 63 | (sequence & ((1ull << 62) - 1)))); /* variant 10 */
}

static void put_outbox(struct text *t, const uint8_t cluster_id[16],
                       const struct persister_event *e)
{
    char *at = text_reserve(t, 256 + 2 * ID_SIZE_MAX);
    at = put_u16(at, 9);
    at = put_u32(at, 16);
    persister_event_id(cluster_id, e->sequence, (uint8_t *)at);
    at += 16;
    if (persister_event_has_order(e)) {
        char id[ORDER_ID_TEXT_SIZE];
        order_id_format(e->order, id);
        at = field_str(at, STR_LITERAL("order"));
        at = field_str(at, (struct str){id, ORDER_ID_TEXT_SIZE - 1});
    } else {
        struct str sale = persister_event_sale(e), user = persister_event_user(e);
        at = field_str(at, STR_LITERAL("eligibility"));
        at = put_u32(at, sale.len + 1 + user.len);
        memcpy(at, sale.ptr, sale.len);
        at[sale.len] = '/';
        memcpy(at + sale.len + 1, user.ptr, user.len);
        at += sale.len + 1 + user.len;
    }
    at = field_str(at, persister_event_type(e));
    grow_to(t, at);
    size_t start = t->len;
    at = put_u32(text_reserve(t, 5), 0); /* the size, known at the end */
    *at = 1;                             /* version of jsonb_recv's format: then the text */
    grow_to(t, at + 1);
    persister_write_payload(t, e);
    put_u32(t->data + start, (uint32_t)(t->len - start - 4));
    at = text_reserve(t, 64);
    at = field_i32(at, e->shard);
    at = field_i64(at, e->index);
    at = field_i64(at, e->sequence);
    grow_to(t, field_time(at, e->time_ms));
}

/* Parameters of persister_change_orders_sql. The third has no binary form: an enum's type is only
 * known to the database. */
static void put_changes(struct persister_parameters *p, const struct persister_merge *m)
{
    static const uint32_t types[] = {OID_INT8_ARRAY, OID_INT4_ARRAY,        0,
                                     OID_INT8_ARRAY, OID_TIMESTAMPTZ_ARRAY, OID_INT8_ARRAY,
                                     OID_BOOL_ARRAY, OID_TEXT_ARRAY};
    static const uint32_t elements[] = {OID_INT8,        OID_INT4, 0,        OID_INT8,
                                        OID_TIMESTAMPTZ, OID_INT8, OID_BOOL, OID_TEXT};
    struct text *v = p->values;
    p->count = 0;
    p->parameters = ARRAY_COUNT(types);
    for (int i = 0; i < p->parameters; i++) {
        array_begin(p, i, types[i]);
    }
    for (size_t i = 0; i < m->orders_count; i++) {
        const struct merged *x = &m->orders[i];
        if (x->placed != NULL) {
            continue;
        }
        p->count++;
        array_i64(&v[0], x->last->order);
        array_i32(&v[1], x->last->shard);
        text_append_str(&v[2], status_name(x->last));
        text_append(&v[2], ",", 1);
        array_i64(&v[3], x->last->version);
        array_time(&v[4], x->last->time_ms);
        array_i64(&v[5], x->last->index);
        if (x->refunded != NULL) {
            array_bool(&v[6], x->refunded->restocked);
        } else {
            array_null(&v[6]);
        }
        struct str reason =
            x->refunded != NULL ? persister_event_reason(x->refunded) : (struct str){"", 0};
        if (reason.len > 0) {
            array_str(&v[7], reason);
        } else {
            array_null(&v[7]);
        }
    }
    for (int i = 0; i < p->parameters && p->count > 0; i++) {
        array_end(p, i, elements[i]);
    }
}

static void put_eligibilities(struct persister_parameters *p, const struct persister_merge *m)
{
    static const uint32_t types[] = {OID_TEXT_ARRAY, OID_TEXT_ARRAY,        OID_INT4_ARRAY,
                                     OID_BOOL_ARRAY, OID_TIMESTAMPTZ_ARRAY, OID_INT8_ARRAY,
                                     OID_INT8_ARRAY};
    static const uint32_t elements[] = {OID_TEXT,        OID_TEXT, OID_INT4, OID_BOOL,
                                        OID_TIMESTAMPTZ, OID_INT8, OID_INT8};
    struct text *v = p->values;
    p->count = m->eligibilities_count;
    p->parameters = ARRAY_COUNT(types);
    for (int i = 0; i < p->parameters; i++) {
        array_begin(p, i, types[i]);
    }
    for (size_t i = 0; i < m->eligibilities_count; i++) {
        const struct persister_event *e = m->eligibilities[i].last;
        array_str(&v[0], persister_event_sale(e));
        array_str(&v[1], persister_event_user(e));
        array_i32(&v[2], e->shard);
        array_bool(&v[3], e->kind == EVENT_ELIGIBILITY_GRANTED);
        array_time(&v[4], e->time_ms);
        array_i64(&v[5], e->index);
        array_i64(&v[6], e->sequence);
    }
    for (int i = 0; i < p->parameters && p->count > 0; i++) {
        array_end(p, i, elements[i]);
    }
}

void persister_rows_build(struct persister_rows *r, const uint8_t cluster_id[16],
                          const struct persister_event *const *events, size_t count)
{
    CHECK(count <= PERSISTER_BATCH_EVENTS_MAX);
    struct persister_merge *m = r->merge;
    persister_merge_events(m, events, count);
    for (int i = 0; i < COPY_COUNT; i++) {
        copy_begin(&r->copies[i]);
        r->copy_rows[i] = 0;
    }
    for (size_t i = 0; i < m->orders_count; i++) {
        if (m->orders[i].placed != NULL) {
            put_order(&r->copies[COPY_ORDERS], &m->orders[i]);
            put_lines(&r->copies[COPY_ORDER_LINES], m->orders[i].placed);
            r->copy_rows[COPY_ORDERS]++;
            r->copy_rows[COPY_ORDER_LINES] += m->orders[i].placed->lines_count;
        }
    }
    for (size_t i = 0; i < count; i++) {
        put_outbox(&r->copies[COPY_OUTBOX], cluster_id, events[i]);
        r->copy_rows[COPY_OUTBOX]++;
        if (persister_event_has_payment(events[i])) {
            put_payment(&r->copies[COPY_PAYMENTS], events[i]);
            r->copy_rows[COPY_PAYMENTS]++;
        }
    }
    for (int i = 0; i < COPY_COUNT; i++) {
        copy_end(&r->copies[i]);
    }
    put_changes(&r->change_orders, m);
    put_eligibilities(&r->put_eligibilities, m);
}

void persister_rows_init(struct persister_rows *r)
{
    *r = (struct persister_rows){.merge = malloc(sizeof(struct persister_merge))};
    CHECK(r->merge != NULL);
}

void persister_rows_close(struct persister_rows *r)
{
    for (int i = 0; i < COPY_COUNT; i++) {
        text_close(&r->copies[i]);
    }
    for (int i = 0; i < PERSISTER_PARAMETERS_MAX; i++) {
        text_close(&r->change_orders.values[i]);
        text_close(&r->put_eligibilities.values[i]);
    }
    free(r->merge);
    r->merge = NULL;
}
