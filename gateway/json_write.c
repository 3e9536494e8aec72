/* Owns: the text form of JSON values. Refuses: to check that an object is closed or that a key comes
 * once; the callers are few and each answer is pinned by a test. */
#include "gateway/json_write.h"

#include "base/clock.h"
#include "proto/order_id.h"

void out_u64(struct out *o, uint64_t value)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    out_bytes(o, digits + at, sizeof digits - at);
}

void out_i64(struct out *o, int64_t value)
{
    if (value < 0) {
        out_char(o, '-');
        out_u64(o, 0 - (uint64_t)value);
    } else {
        out_u64(o, (uint64_t)value);
    }
}

static void element(struct json_writer *w)
{
    if (w->comma) {
        out_char(w->out, ',');
    }
}

void json_object_begin(struct json_writer *w)
{
    element(w);
    out_char(w->out, '{');
    w->comma = false;
}

void json_object_end(struct json_writer *w)
{
    out_char(w->out, '}');
    w->comma = true;
}

void json_array_begin(struct json_writer *w)
{
    element(w);
    out_char(w->out, '[');
    w->comma = false;
}

void json_array_end(struct json_writer *w)
{
    out_char(w->out, ']');
    w->comma = true;
}

void json_key(struct json_writer *w, struct str key)
{
    char *to = out_reserve(w->out, key.len + 4u);
    size_t n = 0;
    if (w->comma) {
        to[n++] = ',';
    }
    to[n++] = '"';
    memcpy(to + n, key.ptr, key.len);
    n += key.len;
    to[n++] = '"';
    to[n++] = ':';
    out_grow(w->out, n);
    w->comma = false;
}

/* Length of the well-formed UTF-8 sequence at p, 0 when there is none. */
static size_t sequence(const char *p, size_t left)
{
    unsigned char c = (unsigned char)p[0];
    uint32_t n = c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    return n != 0 && n <= left && str_is_utf8((struct str){p, n}) ? n : 0;
}

void json_text(struct json_writer *w, struct str value)
{
    static const char hex[] = "0123456789abcdef";
    element(w);
    /* The worst case is \u00XX for each byte. */
    char *start = out_reserve(w->out, value.len * 6u + 2u), *to = start;
    *to++ = '"';
    for (uint32_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        if (c == '"' || c == '\\') {
            *to++ = '\\';
            *to++ = (char)c;
        } else if (c == '\n') {
            *to++ = '\\';
            *to++ = 'n';
        } else if (c < 0x20 || c == 0x7F) {
            memcpy(to, "\\u00", 4);
            to[4] = hex[c >> 4];
            to[5] = hex[c & 15];
            to += 6;
        } else if (c < 0x80) {
            *to++ = (char)c;
        } else {
            size_t n = sequence(value.ptr + i, value.len - i);
            if (n == 0) {
                memcpy(to, "\xEF\xBF\xBD", 3);
                to += 3;
            } else {
                memcpy(to, value.ptr + i, n);
                to += n;
                i += (uint32_t)n - 1;
            }
        }
    }
    *to++ = '"';
    out_grow(w->out, (size_t)(to - start));
    w->comma = true;
}

void json_int(struct json_writer *w, int64_t value)
{
    element(w);
    out_i64(w->out, value);
    w->comma = true;
}

void json_uint(struct json_writer *w, uint64_t value)
{
    element(w);
    out_u64(w->out, value);
    w->comma = true;
}

void json_bool(struct json_writer *w, bool value)
{
    element(w);
    out_str(w->out, value ? STR_LITERAL("true") : STR_LITERAL("false"));
    w->comma = true;
}

/* Orders of one sale are created within few distinct seconds, so the calendar part of the last ones is
 * kept: one division instead of a calendar computation and a printf. */
void json_time(struct json_writer *w, int64_t wall_ms)
{
    static struct {
        int64_t second;
        char text[CLOCK_RFC3339_SIZE];
    } recent[16];
    int64_t second = wall_ms / 1000;
    struct str text = {NULL, CLOCK_RFC3339_SIZE - 1};
    char buffer[CLOCK_RFC3339_SIZE];
    if (wall_ms > 0) {
        /* Spread, for the time to pay is often a multiple of every power of two. */
        size_t slot = (size_t)((uint64_t)second * 0x9E3779B97F4A7C15u >> 60);
        if (recent[slot].second != second) {
            clock_format_rfc3339(second * 1000, recent[slot].text);
            recent[slot].second = second;
        }
        memcpy(buffer, recent[slot].text, sizeof buffer);
        int ms = (int)(wall_ms % 1000);
        buffer[20] = (char)('0' + ms / 100);
        buffer[21] = (char)('0' + ms / 10 % 10);
        buffer[22] = (char)('0' + ms % 10);
    } else {
        clock_format_rfc3339(wall_ms, buffer);
    }
    text.ptr = buffer;
    json_text(w, text);
}

void json_order_id(struct json_writer *w, uint64_t id)
{
    char text[ORDER_ID_TEXT_SIZE];
    order_id_format(id, text);
    json_text(w, (struct str){text, ORDER_ID_TEXT_SIZE - 1});
}
