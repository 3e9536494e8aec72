/* webhook_verify: incoming payment events, signed as Standard Webhooks 1.0.0 describes: an HMAC-SHA256
 * over "{webhook-id}.{webhook-timestamp}.{raw body}". That an event id comes twice is not seen here but
 * by the engine, whose idempotency key it becomes. */
#ifndef GATEWAY_WEBHOOK_VERIFY_H
#define GATEWAY_WEBHOOK_VERIFY_H

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define WEBHOOK_SECRETS_MAX     4
#define WEBHOOK_SECRET_SIZE_MIN 24
#define WEBHOOK_SECRET_SIZE_MAX 64
#define WEBHOOK_TOLERANCE_S     300

/* Several during rotation: any one that matches is good. */
struct webhook_secrets {
    struct {
        uint8_t bytes[WEBHOOK_SECRET_SIZE_MAX];
        size_t size;
    } secrets[WEBHOOK_SECRETS_MAX];
    size_t count;
};

/* "whsec_" + base64, one a line. Returns 0, or -1 (from a file: after logging). */
int webhook_secrets_read(struct webhook_secrets *s, const char *path);
int webhook_secrets_parse(struct webhook_secrets *s, struct str text);

enum webhook_result {
    WEBHOOK_OK,
    WEBHOOK_MALFORMED,       /* a header is missing or is not what it should be */
    WEBHOOK_STALE_TIMESTAMP, /* more than five minutes from now, either way */
    WEBHOOK_BAD_SIGNATURE,
};

/* id, timestamp, signature: the three headers, ptr NULL when absent. Compares in constant time. */
enum webhook_result webhook_verify(const struct webhook_secrets *s, struct str id,
                                   struct str timestamp, struct str signature, struct str body,
                                   int64_t now_s);

#endif
