/* Small texts: order ids, identifiers, UTF-8, times, addresses (proto/order_id.h, base/str.h,
 * base/clock.h, proto/address.h).
 *
 * Input: the text. Asserted: each parser agrees with its formatter and with a naive second one. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "proto/address.h"
#include "proto/limits.h"
#include "proto/order_id.h"
#include "tests/fuzz/fuzz.h"

void fuzz_begin(void)
{
}

static void run_order_id(struct str text)
{
    uint64_t id, again;
    char out[ORDER_ID_TEXT_SIZE];
    if (order_id_parse(text, &id) != 0) {
        return;
    }
    CHECK(text.len == ORDER_ID_TEXT_SIZE - 1);
    CHECK(id != 0 && id <= INT64_MAX);
    order_id_format(id, out);
    for (uint32_t i = 0; i < text.len; i++) {
        CHECK(out[i] == toupper((unsigned char)text.ptr[i]));
    }
    CHECK(order_id_parse(str_from(out), &again) == 0 && again == id);
    CHECK(order_id_index(id) <= ORDER_ID_INDEX_MAX);
    CHECK(order_id_shard(id) < SHARDS_MAX);
}

/* Whatever number it is, its text leads back. */
static void run_order_number(struct str text)
{
    uint64_t id = 0, again;
    char out[ORDER_ID_TEXT_SIZE];
    memcpy(&id, text.ptr, text.len < 8 ? text.len : 8);
    id &= INT64_MAX;
    order_id_format(id, out);
    CHECK((order_id_parse(str_from(out), &again) == 0) == (id != 0));
    CHECK(id == 0 || again == id);
}

static void run_identifier(struct str text)
{
    bool good = text.len > 0 && text.len <= KEY_SIZE_MAX;
    for (uint32_t i = 0; i < text.len && good; i++) {
        char c = text.ptr[i];
        good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               (c != '\0' && strchr("._:@|+~-", c) != NULL);
    }
    CHECK(str_is_identifier(text, KEY_SIZE_MAX) == good);
    CHECK(!good || str_is_utf8(text));
}

/* Decodes one character the long way. Returns its bytes, 0: it is none. */
static uint32_t utf8_one(const unsigned char *p, uint32_t left)
{
    uint32_t count = p[0] < 0x80           ? 1
                     : (p[0] & 0xE0) == 0xC0 ? 2
                     : (p[0] & 0xF0) == 0xE0 ? 3
                     : (p[0] & 0xF8) == 0xF0 ? 4
                                           : 0;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (count == 0 || count > left) {
        return 0;
    }
    uint32_t value = count == 1 ? p[0] : p[0] & (0x7Fu >> count);
    for (uint32_t i = 1; i < count; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            return 0;
        }
        value = value << 6 | (p[i] & 0x3Fu);
    }
    return value < least[count] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF) ? 0
                                                                                            : count;
}

static void run_utf8(struct str text)
{
    bool good = true;
    for (uint32_t i = 0; i < text.len && good;) {
        uint32_t n = utf8_one((const unsigned char *)text.ptr + i, text.len - i);
        good = n > 0;
        i += n;
    }
    CHECK(str_is_utf8(text) == good);
}

static void run_time(struct str text)
{
    int64_t ms, again;
    char out[CLOCK_RFC3339_SIZE];
    if (clock_parse_rfc3339(text, &ms) != 0) {
        return;
    }
    CHECK(ms >= 0);
    clock_format_rfc3339(ms, out);
    CHECK(clock_parse_rfc3339(str_from(out), &again) == 0);
    CHECK(again == ms || ms > TIME_MS_MAX); /* an offset may lead into the year 10000 */
}

static void run_address(struct str text)
{
    char host[ADDRESS_HOST_SIZE], again_host[ADDRESS_HOST_SIZE], out[ADDRESS_HOST_SIZE + 16];
    uint16_t port, again;
    char *copy = malloc(text.len + 1u);
    CHECK(copy != NULL);
    str_copy(copy, text.len + 1u, text);
    if (address_parse(copy, host, &port) == 0) {
        bool six = strchr(host, ':') != NULL;
        snprintf(out, sizeof out, six ? "[%s]:%u" : "%s:%u", host, port);
        CHECK(address_parse(out, again_host, &again) == 0);
        CHECK(again == port && strcmp(host, again_host) == 0);
    }
    free(copy);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, (uint32_t)size};
    run_order_id(text);
    run_order_number(text);
    run_identifier(text);
    run_utf8(text);
    run_time(text);
    run_address(text);
}

void fuzz_seeds(void)
{
    char out[ORDER_ID_TEXT_SIZE];
    order_id_format(order_id_make(123456, 7, 3), out);
    fuzz_seed_text("order-id", out);
    fuzz_seed_text("order-id-lower", "000000gk00a1r");
    fuzz_seed_text("order-id-largest", "7ZZZZZZZZZZZZ");
    fuzz_seed_text("order-id-above", "8000000000000");
    fuzz_seed_text("identifier", "u:user-1.2_3@example|+~");
    fuzz_seed_text("utf8", "Gr\xC3\xBC\xC3\x9F" "e \xE2\x82\xAC \xF0\x9F\x8E\x89");
    fuzz_seed_text("time", "2026-11-22T15:04:05.678Z");
    fuzz_seed_text("time-offset", "2024-02-29t23:59:59.123456789+05:30");
    fuzz_seed_text("address", "127.0.0.1:7001");
    fuzz_seed_text("address-six", "[::1]:7001");
    fuzz_seed_text("address-name", "localhost:7001");
}
