/* Owns: verification of Standard Webhooks signatures.
 *
 * Happy path: the signature is checked before the timestamp, so that nobody learns anything about our
 * clock without a good signature.
 *
 * Failure modes: see enum webhook_result. Signatures of other schemes (v1a, …) in the list are passed
 * over: a sender may send several. */
#include "gateway/webhook_verify.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>

#include "base/check.h"
#include "base/log.h"
#include "proto/limits.h"

int webhook_secrets_parse(struct webhook_secrets *s, struct str text)
{
    s->count = 0;
    while (text.len > 0) {
        const char *lf = memchr(text.ptr, '\n', text.len);
        uint32_t len = lf != NULL ? (uint32_t)(lf - text.ptr) : text.len;
        uint32_t step = lf != NULL ? len + 1 : len;
        struct str line = {text.ptr, len};
        text = (struct str){text.ptr + step, text.len - step};
        if (line.len > 0 && line.ptr[line.len - 1] == '\r') {
            line.len--;
        }
        if (line.len == 0 || line.ptr[0] == '#') {
            continue;
        }
        const char *end;
        if (s->count == WEBHOOK_SECRETS_MAX || line.len < 6 || memcmp(line.ptr, "whsec_", 6) != 0 ||
            sodium_base642bin(s->secrets[s->count].bytes, WEBHOOK_SECRET_SIZE_MAX, line.ptr + 6,
                              line.len - 6, NULL, &s->secrets[s->count].size, &end,
                              sodium_base64_VARIANT_ORIGINAL) != 0 ||
            end != line.ptr + line.len || s->secrets[s->count].size < WEBHOOK_SECRET_SIZE_MIN) {
            return -1;
        }
        s->count++;
    }
    return s->count > 0 ? 0 : -1;
}

int webhook_secrets_read(struct webhook_secrets *s, const char *path)
{
    char buffer[1024];
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        log_error("cannot open %s: %s", path, strerror(errno));
        return -1;
    }
    size_t n = fread(buffer, 1, sizeof buffer, f);
    fclose(f);
    int result =
        n < sizeof buffer ? webhook_secrets_parse(s, (struct str){buffer, (uint32_t)n}) : -1;
    sodium_memzero(buffer, sizeof buffer);
    if (result != 0) {
        log_error(
            "%s: webhook secrets are one to four lines of whsec_ and the base64 of 24 to 64 bytes",
            path);
    }
    return result;
}

static bool parse_timestamp(struct str s, int64_t *out)
{
    int64_t value = 0;
    if (s.len == 0 || s.len > 12) {
        return false;
    }
    for (uint32_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9') {
            return false;
        }
        value = value * 10 + (s.ptr[i] - '0');
    }
    *out = value;
    return true;
}

static void sign(const struct webhook_secrets *s, size_t i, struct str id, struct str timestamp,
                 struct str body, uint8_t out[static crypto_auth_hmacsha256_BYTES])
{
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, s->secrets[i].bytes, s->secrets[i].size);
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)id.ptr, id.len);
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)".", 1);
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)timestamp.ptr, timestamp.len);
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)".", 1);
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)body.ptr, body.len);
    crypto_auth_hmacsha256_final(&state, out);
}

enum webhook_result webhook_verify(const struct webhook_secrets *s, struct str id,
                                   struct str timestamp, struct str signature, struct str body,
                                   int64_t now_s)
{
    int64_t at;
    bool good = false;
    if (id.ptr == NULL || timestamp.ptr == NULL || signature.ptr == NULL ||
        !str_is_identifier(id, KEY_SIZE_MAX) || !parse_timestamp(timestamp, &at)) {
        return WEBHOOK_MALFORMED;
    }
    const char *p = signature.ptr, *end = p + signature.len;
    while (p < end && !good) {
        const char *space = memchr(p, ' ', (size_t)(end - p));
        const char *stop = space != NULL ? space : end;
        uint8_t given[crypto_auth_hmacsha256_BYTES], computed[crypto_auth_hmacsha256_BYTES];
        size_t size;
        const char *decoded;
        if (stop - p > 3 && memcmp(p, "v1,", 3) == 0 &&
            sodium_base642bin(given, sizeof given, p + 3, (size_t)(stop - p - 3), NULL, &size,
                              &decoded, sodium_base64_VARIANT_ORIGINAL) == 0 &&
            decoded == stop && size == sizeof given) {
            for (size_t i = 0; i < s->count && !good; i++) {
                sign(s, i, id, timestamp, body, computed);
                good = sodium_memcmp(given, computed, sizeof given) == 0;
            }
        }
        p = stop + (space != NULL ? 1 : 0);
    }
    if (!good) {
        return WEBHOOK_BAD_SIGNATURE;
    }
    return at >= now_s - WEBHOOK_TOLERANCE_S && at <= now_s + WEBHOOK_TOLERANCE_S
               ? WEBHOOK_OK
               : WEBHOOK_STALE_TIMESTAMP;
}
