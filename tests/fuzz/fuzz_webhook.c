/* Payment events from outside: the three signature headers, and the file of secrets
 * (gateway/webhook_verify.h).
 *
 * Input: first byte 0: id, timestamp, signature, body, each with a two-byte length, as they come; 1: id,
 * timestamp and body, and signatures into which a good one is put; 2: a file of secrets.
 * Asserted: good is only what one of the secrets has signed over exactly these bytes; with it the
 * timestamp alone decides; more, other and strange signatures beside a good one change nothing. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/webhook_verify.h"
#include "proto/limits.h"
#include "tests/fuzz/fuzz.h"

#define NOW_S 1700000000

enum { AS_GIVEN, AS_SIGNED, AS_SECRETS, AS_COUNT };

static struct webhook_secrets secrets;

void fuzz_begin(void)
{
    CHECK(webhook_secrets_parse(&secrets, STR_LITERAL("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz\n"
                                                      "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4\n")) == 0);
    CHECK(secrets.count == 2);
}

static size_t put_signature(char *out, size_t size, unsigned which, struct str id, struct str at,
                            struct str body)
{
    uint8_t mac[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_state s;
    crypto_auth_hmacsha256_init(&s, secrets.secrets[which].bytes, secrets.secrets[which].size);
    crypto_auth_hmacsha256_update(&s, (const uint8_t *)id.ptr, id.len);
    crypto_auth_hmacsha256_update(&s, (const uint8_t *)".", 1);
    crypto_auth_hmacsha256_update(&s, (const uint8_t *)at.ptr, at.len);
    crypto_auth_hmacsha256_update(&s, (const uint8_t *)".", 1);
    crypto_auth_hmacsha256_update(&s, (const uint8_t *)body.ptr, body.len);
    crypto_auth_hmacsha256_final(&s, mac);
    memcpy(out, "v1,", 3);
    sodium_bin2base64(out + 3, size - 3, mac, sizeof mac, sodium_base64_VARIANT_ORIGINAL);
    return strlen(out);
}

static struct str part(struct reader *r)
{
    uint16_t size = reader_u16(r);
    return fuzz_str(r, size);
}

static bool holds(struct str text, const char *wanted)
{
    return text.len >= strlen(wanted) && memmem(text.ptr, text.len, wanted, strlen(wanted)) != NULL;
}

static void run_given(struct reader *r)
{
    char good[2][64];
    struct str id = part(r), at = part(r), signature = part(r), body = part(r);
    enum webhook_result result = webhook_verify(&secrets, id, at, signature, body, NOW_S);
    if (result == WEBHOOK_OK || result == WEBHOOK_STALE_TIMESTAMP) {
        put_signature(good[0], sizeof good[0], 0, id, at, body);
        put_signature(good[1], sizeof good[1], 1, id, at, body);
        CHECK(holds(signature, good[0]) || holds(signature, good[1]));
    }
    struct str absent = {NULL, 0};
    CHECK(webhook_verify(&secrets, absent, at, signature, body, NOW_S) == WEBHOOK_MALFORMED);
    CHECK(webhook_verify(&secrets, id, absent, signature, body, NOW_S) == WEBHOOK_MALFORMED);
    CHECK(webhook_verify(&secrets, id, at, absent, body, NOW_S) == WEBHOOK_MALFORMED);
}

static void run_signed(struct reader *r)
{
    char list[1024];
    unsigned which = reader_u8(r) % 2;
    struct str id = part(r), at = part(r), before = part(r), after = part(r), body = part(r);
    size_t n = 0;
    if (before.len > 256 || after.len > 256) {
        return;
    }
    memcpy(list, before.ptr, before.len);
    n += before.len;
    if (n > 0) {
        list[n++] = ' ';
    }
    size_t own = n;
    n += put_signature(list + n, sizeof list - n, which, id, at, body);
    list[n] = ' ';
    memcpy(list + n + 1, after.ptr, after.len);
    struct str all = {list, (uint32_t)(n + 1 + after.len)};
    enum webhook_result result = webhook_verify(&secrets, id, at, all, body, NOW_S);
    bool named = str_is_identifier(id, KEY_SIZE_MAX);
    if (!named) {
        CHECK(result == WEBHOOK_MALFORMED);
        return;
    }
    int64_t seconds = 0;
    bool digits = at.len > 0 && at.len <= 12;
    for (uint32_t i = 0; i < at.len && digits; i++) {
        digits = at.ptr[i] >= '0' && at.ptr[i] <= '9';
        seconds = seconds * 10 + (at.ptr[i] - '0');
    }
    if (!digits) {
        CHECK(result == WEBHOOK_MALFORMED);
        return;
    }
    bool fresh = seconds >= NOW_S - WEBHOOK_TOLERANCE_S && seconds <= NOW_S + WEBHOOK_TOLERANCE_S;
    CHECK(result == (fresh ? WEBHOOK_OK : WEBHOOK_STALE_TIMESTAMP));
    /* One bit of it, and it is nobody's; unless a good one stands beside it. */
    char damaged[64];
    memcpy(damaged, list + own, n - own);
    damaged[3 + which * 7] ^= 1;
    CHECK(webhook_verify(&secrets, id, at, (struct str){damaged, (uint32_t)(n - own)}, body, NOW_S) ==
          WEBHOOK_BAD_SIGNATURE);
}

static void run_secrets(struct str text)
{
    struct webhook_secrets parsed;
    if (webhook_secrets_parse(&parsed, text) == 0) {
        CHECK(parsed.count >= 1 && parsed.count <= WEBHOOK_SECRETS_MAX);
        for (size_t i = 0; i < parsed.count; i++) {
            CHECK(parsed.secrets[i].size >= WEBHOOK_SECRET_SIZE_MIN);
            CHECK(parsed.secrets[i].size <= WEBHOOK_SECRET_SIZE_MAX);
        }
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct reader r = reader_init(data, size);
    switch (reader_u8(&r) % AS_COUNT) {
    case AS_GIVEN:
        run_given(&r);
        return;
    case AS_SIGNED:
        run_signed(&r);
        return;
    default:
        run_secrets(fuzz_rest(&r));
    }
}

static void put_part(struct writer *w, const char *text)
{
    writer_u16(w, (uint16_t)strlen(text));
    writer_bytes(w, text, strlen(text));
}

void fuzz_seeds(void)
{
    static const char body[] = "{\"type\":\"payment.succeeded\"}";
    uint8_t out[1024];
    char signature[64];
    put_signature(signature, sizeof signature, 0, STR_LITERAL("evt_1"), STR_LITERAL("1700000000"),
                  str_from(body));
    struct writer w = writer_init(out, sizeof out);
    writer_u8(&w, AS_GIVEN);
    put_part(&w, "evt_1");
    put_part(&w, "1700000000");
    put_part(&w, signature);
    put_part(&w, body);
    fuzz_seed("given", out, writer_size(&w));
    w = writer_init(out, sizeof out);
    writer_u8(&w, AS_SIGNED);
    writer_u8(&w, 1);
    put_part(&w, "evt_1");
    put_part(&w, "1700000290");
    put_part(&w, "v1a,AAAA v1,QUJD");
    put_part(&w, "v2,xyz");
    put_part(&w, body);
    fuzz_seed("signed", out, writer_size(&w));
    fuzz_seed_text("secrets", "\x02# two\nwhsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz\r\n"
                              "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4\n");
}
