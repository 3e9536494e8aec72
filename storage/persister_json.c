/* See persister_json.h. Written straight into reserved room: this is most of the persister's own
 * work. */
#include "storage/persister_json.h"

#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "proto/order_id.h"

/* Names and punctuation, five times and numbers, and an escape of six bytes for each byte of text.
 */
#define PAYLOAD_FIXED_SIZE 768
#define LINE_SIZE          (96 + ID_SIZE_MAX)

struct str persister_event_type(const struct persister_event *e)
{
    return str_from(event_kind_name((enum event_kind)e->kind));
}

static char *put(char *at, const char *literal, size_t len)
{
    memcpy(at, literal, len);
    return at + len;
}
#define PUT(at, literal) put(at, "" literal, sizeof(literal) - 1)

static char *put_number(char *at, int64_t value)
{
    char digits[20];
    size_t n = 0;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        digits[n++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (value < 0) {
        *at++ = '-';
    }
    while (n > 0) {
        *at++ = digits[--n];
    }
    return at;
}

/* Most times of a batch fall into few seconds, and calendars are slow: the last texts are kept, by
 * second. Only a memory of a pure function. */
static char *put_time(char *at, int64_t ms)
{
    static _Thread_local struct {
        int64_t second; /* + 1: 0 is free */
        char text[CLOCK_RFC3339_SIZE];
    } memory[64];
    int64_t second = ms < 0 ? 0 : ms / 1000;
    int64_t rest = ms < 0 ? 0 : ms % 1000;
    size_t slot = (size_t)second % ARRAY_COUNT(memory);
    if (memory[slot].second != second + 1) {
        clock_format_rfc3339(second * 1000, memory[slot].text);
        memory[slot].second = second + 1;
    }
    *at++ = '"';
    at = put(at, memory[slot].text, CLOCK_RFC3339_SIZE - 5); /* up to the point */
    *at++ = (char)('0' + rest / 100);
    *at++ = (char)('0' + rest / 10 % 10);
    *at++ = (char)('0' + rest % 10);
    return PUT(at, "Z\"");
}

/* Identifiers and names: nothing in them needs an escape. */
static char *put_plain(char *at, struct str s)
{
    *at++ = '"';
    at = put(at, s.ptr, s.len);
    *at++ = '"';
    return at;
}

/* People's text. PostgreSQL's jsonb cannot hold NUL: U+FFFD stands for it, as in the columns. */
static char *put_text(char *at, struct str s)
{
    static const char hex[] = "0123456789abcdef";
    *at++ = '"';
    for (uint32_t i = 0; i < s.len; i++) {
        uint8_t c = (uint8_t)s.ptr[i];
        if (c == 0) {
            at = PUT(at, "\\ufffd");
        } else if (c == '"' || c == '\\') {
            *at++ = '\\';
            *at++ = (char)c;
        } else if (c < 0x20) {
            at = PUT(at, "\\u00");
            *at++ = hex[c >> 4];
            *at++ = hex[c & 15];
        } else {
            *at++ = (char)c;
        }
    }
    *at++ = '"';
    return at;
}

static char *put_lines(char *at, const struct persister_event *e)
{
    const struct persister_line *l = persister_event_lines(e);
    *at++ = '[';
    for (uint32_t i = 0; i < e->lines_count; i++, l = persister_line_next(l)) {
        if (i > 0) {
            *at++ = ',';
        }
        at = put_plain(PUT(at, "{\"sku\":"), persister_line_sku(l));
        at = put_number(PUT(at, ",\"quantity\":"), l->quantity);
        at = put_number(PUT(at, ",\"unit_price\":"), l->unit_price);
        *at++ = '}';
    }
    *at++ = ']';
    return at;
}

static char *put_order(char *at, const struct persister_event *e)
{
    char id[ORDER_ID_TEXT_SIZE];
    order_id_format(e->order, id);
    at = put_plain(PUT(at, "\"order\":"), (struct str){id, ORDER_ID_TEXT_SIZE - 1});
    at = put_plain(PUT(at, ",\"status\":"),
                   str_from(order_status_name((enum order_status)e->status)));
    at = put_number(PUT(at, ",\"version\":"), (int64_t)e->version);
    at = put_lines(PUT(at, ",\"lines\":"), e);
    at = put_number(PUT(at, ",\"amount\":"), e->order_amount);
    at = put_plain(PUT(at, ",\"currency\":"), str_from(e->order_currency));
    at = put_time(PUT(at, ",\"pay_by\":"), e->pay_by_ms);
    if (persister_event_has_payment(e)) {
        at = put_plain(PUT(at, ",\"payment\":"), persister_event_payment(e));
        at = put_number(PUT(at, ",\"paid_amount\":"), e->paid_amount);
        at = put_plain(PUT(at, ",\"paid_currency\":"), str_from(e->paid_currency));
    }
    if (e->kind == EVENT_ORDER_REFUNDED) {
        at = e->restocked ? PUT(at, ",\"restocked\":true") : PUT(at, ",\"restocked\":false");
    }
    if (e->reason_len > 0) {
        at = put_text(PUT(at, ",\"reason\":"), persister_event_reason(e));
    }
    *at++ = ',';
    return at;
}

void persister_write_payload(struct text *t, const struct persister_event *e)
{
    size_t bound = PAYLOAD_FIXED_SIZE + (size_t)e->sale_len + e->user_len + e->payment_len +
                   6 * (size_t)e->reason_len + e->lines_count * (size_t)LINE_SIZE;
    char *start = text_reserve(t, bound);
    CHECK(start != NULL);
    char *at = PUT(start, "{");
    if (persister_event_has_order(e)) {
        at = put_order(at, e);
    }
    at = put_plain(PUT(at, "\"sale\":"), persister_event_sale(e));
    at = put_plain(PUT(at, ",\"user\":"), persister_event_user(e));
    if (!persister_event_has_order(e)) {
        at = e->kind == EVENT_ELIGIBILITY_GRANTED ? PUT(at, ",\"granted\":true")
                                                  : PUT(at, ",\"granted\":false");
    }
    at = put_time(PUT(at, ",\"occurred_at\":"), e->time_ms);
    at = put_number(PUT(at, ",\"log_index\":"), (int64_t)e->index);
    at = put_number(PUT(at, ",\"sequence\":"), (int64_t)e->sequence);
    *at++ = '}';
    CHECK((size_t)(at - start) <= bound);
    t->len += (size_t)(at - start);
    t->data[t->len] = '\0';
}
