/* The persister's queue and its flat events: what goes in comes out, over the wrap and at the
 * limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/prng.h"
#include "storage/persister_queue.h"

static const char letters[] =
    "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789"
    "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789";

static struct str some(uint64_t len)
{
    return (struct str){letters + len % 7, (uint32_t)len};
}

static void make(struct event_view *e, uint64_t sequence, bool largest)
{
    struct prng p = prng_init(sequence);
    *e = (struct event_view){
        .sequence = sequence,
        .index = sequence * 3,
        .time_ms = (int64_t)sequence * 5,
        .kind = largest ? EVENT_PAYMENT_REJECTED : (enum event_kind)(1 + prng_below(&p, 9)),
        .shard = (uint32_t)prng_below(&p, SHARDS_MAX),
        .sale = some(largest ? ID_SIZE_MAX : 1 + prng_below(&p, ID_SIZE_MAX)),
        .user = some(largest ? ID_SIZE_MAX : 1 + prng_below(&p, ID_SIZE_MAX)),
        .payment = some(largest ? KEY_SIZE_MAX : prng_below(&p, KEY_SIZE_MAX + 1)),
        .reason = some(largest ? REASON_SIZE_MAX : prng_below(&p, REASON_SIZE_MAX + 1)),
        .amount = (int64_t)prng_next(&p) >> 2,
        .currency = "EUR",
        .restocked = sequence % 2 == 1,
        .status = ORDER_PAID,
        .version = sequence + 1,
    };
    e->order = (struct order_view){
        .id = prng_next(&p) >> 1,
        .amount = (int64_t)prng_next(&p) >> 2,
        .created_ms = 17,
        .pay_by_ms = 18,
        .created_index = 19,
        .currency = "USD",
        .lines_count = largest ? ORDER_LINES_MAX : 1 + (uint32_t)prng_below(&p, ORDER_LINES_MAX),
    };
    for (uint32_t i = 0; i < e->order.lines_count; i++) {
        e->order.lines[i] =
            (struct line_view){some(largest ? ID_SIZE_MAX : 1 + prng_below(&p, ID_SIZE_MAX)), 1 + i,
                               (int64_t)prng_next(&p) >> 2};
    }
}

static void expect(const struct persister_event *got, uint64_t sequence, bool largest)
{
    struct event_view e;
    make(&e, sequence, largest);
    assert_int_equal(got->sequence, sequence);
    assert_int_equal(got->index, e.index);
    assert_int_equal(got->time_ms, e.time_ms);
    assert_int_equal(got->kind, e.kind);
    assert_int_equal(got->shard, e.shard);
    assert_int_equal(got->status, e.status);
    assert_int_equal(got->restocked, e.restocked);
    assert_int_equal(got->paid_amount, e.amount);
    assert_true(str_equal(persister_event_sale(got), e.sale));
    assert_true(str_equal(persister_event_user(got), e.user));
    assert_true(str_equal(persister_event_payment(got), e.payment));
    assert_true(str_equal(persister_event_reason(got), e.reason));
    if (!persister_event_has_order(got)) {
        assert_int_equal(got->lines_count, 0);
        return;
    }
    assert_int_equal(got->order, e.order.id);
    assert_int_equal(got->version, e.version);
    assert_int_equal(got->order_amount, e.order.amount);
    assert_int_equal(got->created_ms, 17);
    assert_int_equal(got->pay_by_ms, 18);
    assert_int_equal(got->created_index, 19);
    assert_string_equal(got->order_currency, "USD");
    assert_string_equal(got->paid_currency, "EUR");
    assert_int_equal(got->lines_count, e.order.lines_count);
    const struct persister_line *l = persister_event_lines(got);
    for (uint32_t i = 0; i < got->lines_count; i++, l = persister_line_next(l)) {
        assert_true(str_equal(persister_line_sku(l), e.order.lines[i].sku));
        assert_int_equal(l->quantity, e.order.lines[i].quantity);
        assert_int_equal(l->unit_price, e.order.lines[i].unit_price);
    }
    assert_ptr_equal((const char *)l, (const char *)got + got->size);
}

static void test_in_and_out(void **unused)
{
    (void)unused;
    struct persister_queue q;
    persister_queue_init(&q);
    struct prng p = prng_init(5);
    uint64_t in = 0, out = 0;
    const struct persister_event *peeked[100];
    struct event_view e;
    bool draining = false; /* fills up until it is full, then drains, and again */
    int times_full = 0;
    while (out < 200000) {
        for (uint64_t n = prng_below(&p, 100); n > 0 && in < 200000; n--) {
            make(&e, in + 1, false);
            if (!persister_queue_push(&q, &e)) {
                times_full += !draining;
                draining = true;
                break;
            }
            in++;
        }
        draining = in == 200000 || (draining && in - out > 1000);
        size_t max = draining ? 100 : prng_below(&p, 60);
        size_t n = persister_queue_peek(&q, peeked, max);
        assert_int_equal(n, in - out < max ? in - out : max);
        for (size_t i = 0; i < n; i++) {
            expect(peeked[i], out + 1 + i, false);
        }
        size_t released = draining ? n : prng_below(&p, n + 1);
        persister_queue_release(&q, released);
        out += released;
        assert_int_equal(q.events, in - out);
    }
    assert_true(times_full >= 2);
    assert_true(q.head > 2 * PERSISTER_QUEUE_SIZE);
    assert_int_equal(q.events, 0);
    persister_queue_close(&q);
}

static void test_full_of_the_largest(void **unused)
{
    (void)unused;
    struct persister_queue q;
    persister_queue_init(&q);
    struct event_view e;
    make(&e, 1, true);
    assert_true(persister_event_size(&e) <= PERSISTER_EVENT_SIZE_MAX);
    uint64_t count = 0;
    for (make(&e, 1, true); persister_queue_push(&q, &e); make(&e, count + 1, true)) {
        count++;
    }
    assert_int_equal(count, PERSISTER_QUEUE_SIZE / persister_event_size(&e));
    assert_false(persister_queue_push(&q, &e));
    const struct persister_event *first;
    assert_int_equal(persister_queue_peek(&q, &first, 1), 1);
    expect(first, 1, true);
    persister_queue_release(&q, 2); /* the rest of the ring's end may be too short for one */
    assert_true(persister_queue_push(&q, &e));
    persister_queue_release(&q, q.events - 1);
    assert_int_equal(persister_queue_peek(&q, &first, 1), 1);
    expect(first, count + 1, true);
    persister_queue_clear(&q);
    assert_int_equal(persister_queue_peek(&q, &first, 1), 0);
    persister_queue_close(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_and_out),
        cmocka_unit_test(test_full_of_the_largest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
