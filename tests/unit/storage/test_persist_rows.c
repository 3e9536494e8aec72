/* From events to rows: what is merged, what is not, and the outbox payload to the letter. Whether
 * PostgreSQL understands it is what the integration tests show. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "storage/persister.h"
#include "storage/persister_json.h"
#include "storage/persister_rows.h"

static const uint8_t cluster[16] = {0x9a, 1, 2,  3,  0xff, 5,  0x67, 0x89,
                                    8,    9, 10, 11, 12,   13, 14,   15};

static uint64_t memory[64][PERSISTER_EVENT_SIZE_MAX / 8];
static const struct persister_event *events[64];
static size_t count;

/* Adds an event of order (or eligibility of user) `id`. */
static struct event_view add(enum event_kind kind, uint64_t id, enum order_status status,
                             uint64_t version)
{
    static char users[64][8];
    struct event_view v = {
        .sequence = count + 1,
        .index = 100 + count,
        .time_ms = 1795359600123 + (int64_t)count,
        .kind = kind,
        .shard = (uint32_t)(id % 4),
        .status = status,
        .version = version,
        .sale = STR_LITERAL("spring"),
    };
    users[count][0] = 'u';
    users[count][1] = (char)('0' + id);
    v.user = str_from(users[count]);
    if (kind != EVENT_ELIGIBILITY_GRANTED && kind != EVENT_ELIGIBILITY_REVOKED) {
        v.order = (struct order_view){.id = id << 22,
                                      .amount = 1990,
                                      .currency = "EUR",
                                      .created_ms = 1000,
                                      .pay_by_ms = 901000,
                                      .created_index = 7,
                                      .lines_count = 2};
        v.order.lines[0] = (struct line_view){STR_LITERAL("red"), 1, 990};
        v.order.lines[1] = (struct line_view){STR_LITERAL("blue"), 2, 500};
    }
    if (kind == EVENT_ORDER_PAID || kind == EVENT_ORDER_REFUND_DUE ||
        kind == EVENT_PAYMENT_REJECTED) {
        v.payment = STR_LITERAL("evt.1");
        v.amount = 1991;
        memcpy(v.currency, "USD", 4);
    }
    return v;
}

static void keep(const struct event_view *v)
{
    CHECK(persister_event_size(v) <= sizeof memory[0]);
    persister_event_write(v, memory[count]);
    events[count] = (const struct persister_event *)memory[count];
    count++;
}

static void add_simple(enum event_kind kind, uint64_t id, enum order_status status,
                       uint64_t version)
{
    struct event_view v = add(kind, id, status, version);
    keep(&v);
}

/* A cursor over COPY BINARY data. */
struct copy {
    struct reader r;
};

static struct copy copy_open(const struct text *t)
{
    struct copy c = {reader_init(t->data, t->len)};
    const void *header = reader_bytes(&c.r, 19);
    assert_non_null(header);
    assert_memory_equal(header, "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0", 19);
    return c;
}

/* The next tuple's fields; returns their count, 0 at the end. */
static int copy_next(struct copy *c, struct str *fields)
{
    int n = (int16_t)__builtin_bswap16(reader_u16(&c->r));
    if (n == -1) {
        assert_int_equal(reader_left(&c->r), 0);
        return 0;
    }
    for (int i = 0; i < n; i++) {
        uint32_t len = __builtin_bswap32(reader_u32(&c->r));
        fields[i] =
            len == UINT32_MAX ? (struct str){NULL, 0} : (struct str){reader_bytes(&c->r, len), len};
    }
    assert_false(c->r.failed);
    return n;
}

static uint64_t number(struct str field)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < field.len; i++) {
        value = value << 8 | (uint8_t)field.ptr[i];
    }
    return value;
}

static void test_merging(void **unused)
{
    (void)unused;
    count = 0;
    add_simple(EVENT_ORDER_PLACED, 1, ORDER_PENDING_PAYMENT,
               1); /* placed, paid, refunded: one row */
    add_simple(EVENT_ORDER_PLACED, 2, ORDER_PENDING_PAYMENT, 1); /* only placed */
    add_simple(EVENT_ORDER_PAID, 1, ORDER_PAID, 2);
    add_simple(EVENT_ORDER_EXPIRED, 3, ORDER_EXPIRED,
               2); /* of an earlier batch: two changes, one */
    struct event_view refund = add(EVENT_ORDER_REFUNDED, 1, ORDER_REFUNDED, 3);
    refund.restocked = true;
    refund.reason = STR_LITERAL("damaged");
    keep(&refund);
    add_simple(EVENT_ORDER_REFUND_DUE, 3, ORDER_REFUND_DUE, 3);
    add_simple(EVENT_PAYMENT_REJECTED, 4, ORDER_CANCELLED, 2); /* changes no order */
    add_simple(EVENT_ELIGIBILITY_GRANTED, 5, ORDER_NONE, 0);
    add_simple(EVENT_ELIGIBILITY_REVOKED, 5, ORDER_NONE, 0);
    add_simple(EVENT_ELIGIBILITY_GRANTED, 6, ORDER_NONE, 0);

    struct persister_rows rows;
    persister_rows_init(&rows);
    for (int round = 0; round < 2; round++) { /* the second builds into used memory */
        persister_rows_build(&rows, cluster, events, count);
        assert_int_equal(rows.copy_rows[COPY_ORDERS], 2);
        assert_int_equal(rows.copy_rows[COPY_ORDER_LINES], 4);
        assert_int_equal(rows.copy_rows[COPY_PAYMENTS], 3);
        assert_int_equal(rows.copy_rows[COPY_OUTBOX], count);
        assert_int_equal(rows.change_orders.count, 1);
        assert_int_equal(rows.put_eligibilities.count, 2);
        struct str f[16];
        struct copy c = copy_open(&rows.copies[COPY_ORDERS]);
        assert_int_equal(copy_next(&c, f), 15);
        assert_int_equal(number(f[0]), 1 << 22);
        assert_true(str_equal(f[2], STR_LITERAL("refunded")));
        assert_int_equal(number(f[3]), 3);
        assert_int_equal(number(f[9]), refund.index);
        assert_int_equal(number(f[13]), 1);
        assert_true(str_equal(f[14], STR_LITERAL("damaged")));
        assert_int_equal(copy_next(&c, f), 15);
        assert_true(str_equal(f[2], STR_LITERAL("pending_payment")));
        assert_null(f[13].ptr);
        assert_null(f[14].ptr);
        assert_int_equal(copy_next(&c, f), 0);
        assert_string_equal(text_cstring(&rows.change_orders.values[2]), "{refund_due}");
        c = copy_open(&rows.copies[COPY_PAYMENTS]);
        static const char *const outcomes[] = {"paid", "refund_due", "rejected"};
        for (int i = 0; i < 3; i++) {
            assert_int_equal(copy_next(&c, f), 10);
            assert_true(str_equal(f[7], str_from(outcomes[i])));
            assert_int_equal(number(f[3]), 1991);
        }
        assert_int_equal(copy_next(&c, f), 0);
        c = copy_open(&rows.copies[COPY_OUTBOX]);
        for (size_t i = 0; i < count; i++) {
            uint8_t id[16];
            assert_int_equal(copy_next(&c, f), 9);
            persister_event_id(cluster, i + 1, id);
            assert_memory_equal(f[0].ptr, id, 16);
            assert_int_equal(number(f[7]), i + 1);
        }
        assert_int_equal(copy_next(&c, f), 0);
    }

    persister_rows_build(&rows, cluster, events, 0);
    for (int i = 0; i < COPY_COUNT; i++) {
        assert_int_equal(rows.copy_rows[i], 0);
    }
    assert_int_equal(rows.change_orders.count + rows.put_eligibilities.count, 0);
    persister_rows_close(&rows);
}

/* As many different orders and eligibilities as a batch holds: the merge tables are at their
 * fullest. */
static void test_largest_batch(void **unused)
{
    (void)unused;
    size_t n = PERSISTER_BATCH_EVENTS_MAX;
    count = 0;
    struct event_view v = add(EVENT_ORDER_PAID, 1, ORDER_PAID, 2);
    size_t size = persister_event_size(&v);
    uint8_t *blocks = malloc(n * size);
    const struct persister_event **all = calloc(n, sizeof *all);
    assert_true(blocks != NULL && all != NULL);
    for (size_t i = 0; i < n; i++) {
        v.sequence = i + 1;
        v.order.id = (i + 1) << 10;
        persister_event_write(&v, blocks + i * size);
        all[i] = (const struct persister_event *)(void *)(blocks + i * size);
    }
    struct persister_rows rows;
    persister_rows_init(&rows);
    persister_rows_build(&rows, cluster, all, n);
    assert_int_equal(rows.change_orders.count, n);
    assert_int_equal(rows.copy_rows[COPY_OUTBOX], n);
    persister_rows_close(&rows);
    free(blocks);
    free(all);
}

static void expect_payload(const struct event_view *v, const char *type, const char *payload)
{
    count = 0;
    keep(v);
    struct text t = TEXT_INIT;
    persister_write_payload(&t, events[0]);
    assert_string_equal(text_cstring(&t), payload);
    struct str got = persister_event_type(events[0]);
    assert_true(str_equal(got, str_from(type)));
    text_close(&t);
}

static void test_payload(void **unused)
{
    (void)unused;
    count = 0;
    struct event_view v = add(EVENT_ORDER_PLACED, 1, ORDER_PENDING_PAYMENT, 1);
    expect_payload(
        &v, "order.placed",
        "{\"order\":\"0000000040000\",\"status\":\"pending_payment\",\"version\":1,\"lines\":["
        "{\"sku\":\"red\",\"quantity\":1,\"unit_price\":990},"
        "{\"sku\":\"blue\",\"quantity\":2,\"unit_price\":500}],\"amount\":1990,\"currency\":"
        "\"EUR\","
        "\"pay_by\":\"1970-01-01T00:15:01.000Z\",\"sale\":\"spring\",\"user\":\"u1\","
        "\"occurred_at\":\"2026-11-22T15:00:00.123Z\",\"log_index\":100,\"sequence\":1}");
    count = 0;
    v = add(EVENT_PAYMENT_REJECTED, 1, ORDER_CANCELLED, 2);
    v.order.lines_count = 1;
    v.reason = STR_LITERAL("ORDER_NOT_PAYABLE");
    v.amount = -5;
    expect_payload(
        &v, "payment.rejected",
        "{\"order\":\"0000000040000\",\"status\":\"cancelled\",\"version\":2,\"lines\":["
        "{\"sku\":\"red\",\"quantity\":1,\"unit_price\":990}],\"amount\":1990,\"currency\":\"EUR\","
        "\"pay_by\":\"1970-01-01T00:15:01.000Z\",\"payment\":\"evt.1\",\"paid_amount\":-5,"
        "\"paid_currency\":\"USD\",\"reason\":\"ORDER_NOT_PAYABLE\",\"sale\":\"spring\","
        "\"user\":\"u1\",\"occurred_at\":\"2026-11-22T15:00:00.123Z\",\"log_index\":100,"
        "\"sequence\":1}");
    count = 0;
    v = add(EVENT_ELIGIBILITY_REVOKED, 2, ORDER_NONE, 0);
    expect_payload(
        &v, "eligibility.revoked",
        "{\"sale\":\"spring\",\"user\":\"u2\",\"granted\":false,"
        "\"occurred_at\":\"2026-11-22T15:00:00.123Z\",\"log_index\":100,\"sequence\":1}");
    /* Escapes: quote, backslash, control characters; NUL, which jsonb cannot hold; UTF-8 as it is.
     */
    count = 0;
    v = add(EVENT_ORDER_REFUNDED, 1, ORDER_REFUNDED, 3);
    v.order.lines_count = 0;
    v.reason = (struct str){"a\"b\\c\nd\x1f\0\xC3\xA9", 11};
    expect_payload(
        &v, "order.refunded",
        "{\"order\":\"0000000040000\",\"status\":\"refunded\",\"version\":3,\"lines\":[],"
        "\"amount\":1990,\"currency\":\"EUR\",\"pay_by\":\"1970-01-01T00:15:01.000Z\","
        "\"restocked\":false,\"reason\":\"a\\\"b\\\\c\\u000ad\\u001f\\ufffd\xC3\xA9\","
        "\"sale\":\"spring\",\"user\":\"u1\",\"occurred_at\":\"2026-11-22T15:00:00.123Z\","
        "\"log_index\":100,\"sequence\":1}");
}

static void test_event_id(void **unused)
{
    (void)unused;
    static const uint8_t expected[16] = {0x9a, 1, 2, 3, 0xff, 5, 0x86, 0x78,
                                         0x80, 0, 0, 0, 0,    0, 0x01, 0x02};
    uint8_t id[16];
    persister_event_id(cluster, 0x102, id);
    assert_memory_equal(id, expected, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merging),
        cmocka_unit_test(test_largest_batch),
        cmocka_unit_test(test_payload),
        cmocka_unit_test(test_event_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
