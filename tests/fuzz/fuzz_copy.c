/* Events as rows for PostgreSQL: COPY BINARY streams, array parameters, the outbox's JSON
 * (storage/persister_event.h, persister_rows.h, persister_json.h).
 *
 * Input: a script that makes a window of events: kinds, users, orders, amounts, texts with any bytes that
 * UTF-8 allows. Events of one order follow each other as the engine makes them: placed first.
 * Asserted: each stream is whole by the format's own rules, read here by a second reader: header, the
 * number of fields that its statement names, lengths, trailer, as many rows as counted, UTF-8 without
 * NUL; each payload parses (by jansson) and says what the event says; ids of events are never equal. */
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "proto/order_id.h"
#include "storage/persister_json.h"
#include "storage/persister_rows.h"
#include "tests/fuzz/fuzz.h"

#define EVENTS_MAX 24
#define ORDERS_MAX 6

static struct persister_rows rows;
static const uint8_t cluster_id[16] = {1, 2, 3};

void fuzz_begin(void)
{
    persister_rows_init(&rows);
}

struct made {
    _Alignas(8) uint8_t memory[EVENTS_MAX][PERSISTER_EVENT_SIZE_MAX];
    const struct persister_event *events[EVENTS_MAX];
    size_t count;
    uint64_t versions[ORDERS_MAX]; /* 0: not placed in this window */
    bool done[ORDERS_MAX];
};

static const char *const names[] = {"a", "sku-2", "user:3@x", "Z", "s|t", "u~5"};

static struct str name(struct reader *r)
{
    return str_from(names[reader_u8(r) % ARRAY_COUNT(names)]);
}

static struct str prose(struct reader *r)
{
    struct str s = fuzz_str(r, reader_u8(r) % (REASON_SIZE_MAX + 1u));
    return str_is_utf8(s) ? s : STR_LITERAL("\xC3\xBC \"\\\n\x01");
}

static void make_order(struct reader *r, struct event_view *e, unsigned which)
{
    struct order_view *o = &e->order;
    *o = (struct order_view){.id = order_id_make(100 + which, which, which % 4),
                             .amount = (int64_t)(reader_u32(r)),
                             .created_ms = (int64_t)(reader_u64(r) % TIME_MS_MAX),
                             .pay_by_ms = (int64_t)(reader_u64(r) % TIME_MS_MAX),
                             .created_index = 100 + which,
                             .lines_count = 1 + reader_u8(r) % ORDER_LINES_MAX};
    memcpy(o->currency, "EUR", 4);
    for (uint32_t i = 0; i < o->lines_count; i++) {
        o->lines[i] = (struct line_view){name(r), 1 + reader_u16(r), (int64_t)reader_u32(r)};
    }
}

/* Adds an event; false: that one cannot be. */
static bool make_event(struct reader *r, struct made *m)
{
    static const enum order_status statuses[] = {
        [EVENT_ORDER_PLACED] = ORDER_PENDING_PAYMENT, [EVENT_ORDER_PAID] = ORDER_PAID,
        [EVENT_ORDER_CANCELLED] = ORDER_CANCELLED,    [EVENT_ORDER_EXPIRED] = ORDER_EXPIRED,
        [EVENT_ORDER_REFUND_DUE] = ORDER_REFUND_DUE,  [EVENT_ORDER_REFUNDED] = ORDER_REFUNDED,
        [EVENT_PAYMENT_REJECTED] = ORDER_CANCELLED};
    enum event_kind kind = (enum event_kind)(1 + reader_u8(r) % 9);
    unsigned which = reader_u8(r) % ORDERS_MAX;
    struct event_view e = {.sequence = m->count + 1,
                           .index = 1 + reader_u32(r),
                           .time_ms = (int64_t)(reader_u64(r) % TIME_MS_MAX),
                           .kind = kind,
                           .shard = which % 4};
    e.sale = name(r);
    e.user = name(r);
    bool order = kind != EVENT_ELIGIBILITY_GRANTED && kind != EVENT_ELIGIBILITY_REVOKED;
    if (order) {
        if (kind == EVENT_ORDER_PLACED ? m->versions[which] != 0 || m->done[which] : m->done[which]) {
            return false;
        }
        make_order(r, &e, which);
        e.version = kind == EVENT_ORDER_PLACED ? 1 : (m->versions[which] != 0 ? m->versions[which] : 1) + 1;
        m->versions[which] = e.version;
        m->done[which] = kind == EVENT_ORDER_REFUNDED;
        e.status = statuses[kind];
        e.order.status = e.status;
        e.order.version = e.version;
        e.order.sale = e.sale;
        e.order.user = e.user;
    }
    if (kind == EVENT_ORDER_PAID || kind == EVENT_ORDER_REFUND_DUE || kind == EVENT_PAYMENT_REJECTED) {
        e.payment = name(r);
        e.amount = (int64_t)reader_u32(r);
        memcpy(e.currency, "USD", 4);
    }
    if (kind == EVENT_ORDER_REFUNDED || kind == EVENT_PAYMENT_REJECTED) {
        e.reason = prose(r);
        e.restocked = kind == EVENT_ORDER_REFUNDED && reader_u8(r) % 2 == 0;
    }
    size_t size = persister_event_size(&e);
    CHECK(size <= PERSISTER_EVENT_SIZE_MAX);
    persister_event_write(&e, m->memory[m->count]);
    m->events[m->count] = (const struct persister_event *)(const void *)m->memory[m->count];
    CHECK(m->events[m->count]->size == size);
    m->count++;
    return true;
}

/* ---- a second reader of what PostgreSQL gets ---- */

static uint32_t big32(struct reader *r)
{
    return __builtin_bswap32(reader_u32(r));
}

static uint16_t big16(struct reader *r)
{
    return __builtin_bswap16(reader_u16(r));
}

/* Columns that a COPY statement names. */
static unsigned columns_of(const char *sql)
{
    unsigned count = 1;
    for (const char *p = strchr(sql, '('); *p != ')'; p++) {
        count += *p == ',';
    }
    return count;
}

static bool is_text_column(enum persister_copy table, unsigned column)
{
    switch (table) {
    case COPY_ORDERS:
        return column == 2 || (column >= 10 && column <= 12) || column == 14;
    case COPY_ORDER_LINES:
        return column == 5;
    case COPY_PAYMENTS:
        return column >= 6;
    case COPY_OUTBOX:
        return column >= 1 && column <= 3;
    case COPY_COUNT:
        break;
    }
    return false;
}

static void check_field(enum persister_copy table, unsigned column, const void *data, uint32_t size)
{
    if (is_text_column(table, column)) {
        struct str text = {data, size};
        CHECK(str_is_utf8(text));
        CHECK(size == 0 || memchr(data, '\0', size) == NULL);
    } else if (table == COPY_OUTBOX && column == 4) {
        const char *p = data;
        CHECK(size > 0 && p[0] == 1); /* jsonb's version on the wire */
        json_t *root = json_loadb(p + 1, size - 1, JSON_REJECT_DUPLICATES, NULL);
        CHECK(root != NULL && json_is_object(root));
        json_decref(root);
    } else {
        CHECK(size == 1 || size == 2 || size == 4 || size == 8 || (table == COPY_OUTBOX && size == 16));
    }
}

static void check_stream(enum persister_copy table)
{
    struct reader r = reader_init(rows.copies[table].data, rows.copies[table].len);
    const void *signature = reader_bytes(&r, 11);
    CHECK(signature != NULL && memcmp(signature, "PGCOPY\n\377\r\n\0", 11) == 0);
    CHECK(big32(&r) == 0 && big32(&r) == 0);
    size_t count = 0;
    unsigned columns = columns_of(persister_copy_sql[table]);
    for (;;) {
        uint16_t fields = big16(&r);
        CHECK(!r.failed);
        if (fields == UINT16_MAX) {
            break;
        }
        CHECK(fields == columns);
        for (unsigned i = 0; i < columns; i++) {
            uint32_t size = big32(&r);
            if (size != UINT32_MAX) {
                const void *data = reader_bytes(&r, size);
                CHECK(data != NULL);
                check_field(table, i, data, size);
            }
        }
        count++;
    }
    CHECK(reader_left(&r) == 0);
    CHECK(count == rows.copy_rows[table]);
}

static void check_parameters(const struct persister_parameters *p)
{
    if (p->count == 0) {
        return;
    }
    for (int i = 0; i < p->parameters; i++) {
        const struct text *t = &p->values[i];
        if (p->formats[i] == 0) {
            CHECK(t->len >= 2 && t->data[0] == '{' && t->data[t->len - 1] == '}');
            continue;
        }
        struct reader r = reader_init(t->data, t->len);
        CHECK(big32(&r) == 1);
        (void)big32(&r);
        (void)big32(&r);
        CHECK(big32(&r) == p->count);
        CHECK(big32(&r) == 1);
        for (size_t k = 0; k < p->count; k++) {
            uint32_t size = big32(&r);
            CHECK(size == UINT32_MAX || reader_bytes(&r, size) != NULL || size == 0);
        }
        CHECK(!r.failed && reader_left(&r) == 0);
    }
}

static void check_payload(const struct persister_event *e)
{
    struct text t = TEXT_INIT;
    persister_write_payload(&t, e);
    json_t *root = json_loadb(t.data, t.len, JSON_REJECT_DUPLICATES, NULL);
    CHECK(root != NULL);
    struct str user = persister_event_user(e), reason = persister_event_reason(e);
    json_t *value = json_object_get(root, "user");
    CHECK(json_string_length(value) == user.len &&
          memcmp(json_string_value(value), user.ptr, user.len) == 0);
    CHECK((uint64_t)json_integer_value(json_object_get(root, "sequence")) == e->sequence);
    CHECK((uint64_t)json_integer_value(json_object_get(root, "log_index")) == e->index);
    char time[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(e->time_ms, time);
    CHECK(strcmp(json_string_value(json_object_get(root, "occurred_at")), time) == 0);
    if (persister_event_has_order(e)) {
        uint64_t id;
        CHECK(order_id_parse(str_from(json_string_value(json_object_get(root, "order"))), &id) == 0);
        CHECK(id == e->order);
        CHECK(json_array_size(json_object_get(root, "lines")) == e->lines_count);
        CHECK(json_integer_value(json_object_get(root, "amount")) == e->order_amount);
        if (e->reason_len > 0 && memchr(reason.ptr, '\0', reason.len) == NULL) {
            value = json_object_get(root, "reason");
            CHECK(json_string_length(value) == reason.len &&
                  memcmp(json_string_value(value), reason.ptr, reason.len) == 0);
        }
    }
    json_decref(root);
    text_close(&t);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    static struct made made;
    struct reader r = reader_init(data, size);
    made.count = 0;
    memset(made.versions, 0, sizeof made.versions);
    memset(made.done, 0, sizeof made.done);
    for (int i = 0; i < EVENTS_MAX && !fuzz_done(&r); i++) {
        (void)make_event(&r, &made);
    }
    if (made.count == 0) {
        return;
    }
    persister_rows_build(&rows, cluster_id, made.events, made.count);
    for (int table = 0; table < COPY_COUNT; table++) {
        if (rows.copy_rows[table] > 0) {
            check_stream((enum persister_copy)table);
        }
    }
    CHECK(rows.copy_rows[COPY_OUTBOX] == made.count);
    check_parameters(&rows.change_orders);
    check_parameters(&rows.put_eligibilities);
    uint8_t before[16] = {0}, id[16];
    for (size_t i = 0; i < made.count; i++) {
        check_payload(made.events[i]);
        persister_event_id(cluster_id, made.events[i]->sequence, id);
        CHECK(memcmp(id, before, sizeof id) != 0);
        memcpy(before, id, sizeof id);
    }
}

void fuzz_seeds(void)
{
    uint8_t out[640];
    for (unsigned k = 0; k < 9; k++) {
        char file[32];
        for (size_t i = 0; i < 160; i++) {
            out[i] = (uint8_t)(i * 37 + k);
        }
        out[0] = (uint8_t)k;
        snprintf(file, sizeof file, "kind-%u", k + 1);
        fuzz_seed(file, out, 160);
    }
    for (size_t i = 0; i < sizeof out; i++) {
        out[i] = (uint8_t)(i * 73 + i / 7);
    }
    fuzz_seed("many", out, sizeof out);
}
