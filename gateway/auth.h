/* auth: who asks. Two kinds of bearer token (RFC 6750):
 *
 *     API key     an opaque secret of a back end or an operator; the file holds name, role and the
 *                 SHA-256 of each, never the secret:   shop-backend backend 9f86d081…
 *     user token  a JWT (RFC 7519), HS256 or EdDSA, whose `sub` is the user id
 *
 * What it refuses: to issue tokens, to keep sessions, any other algorithm. */
#ifndef GATEWAY_AUTH_H
#define GATEWAY_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "proto/limits.h"

#define API_KEYS_MAX         256
#define API_KEY_SIZE_MIN     16
#define API_KEY_SIZE_MAX     128
#define USER_TOKEN_SIZE_MAX  1024
#define USER_TOKEN_LEEWAY_S  5 /* between the issuer's clock and ours */
#define USER_SECRET_SIZE_MIN 32
#define USER_SECRET_SIZE_MAX 128

/* Bits, so that a route can name all it admits. */
enum role {
    ROLE_ANYONE = 1,   /* no token at all */
    ROLE_USER = 2,     /* a user token: only what is the user's own */
    ROLE_VIEWER = 4,   /* reads everything */
    ROLE_PAYMENTS = 8, /* reads orders */
    ROLE_BACKEND = 16, /* acts for users */
    ROLE_ADMIN = 32,   /* everything */
};

struct caller {
    enum role role;
    char name[ID_SIZE_MAX + 1]; /* user id or name of the API key; "" for anyone */
};

struct api_key {
    char name[ID_SIZE_MAX + 1];
    enum role role;
    uint8_t digest[32];
};
struct api_keys {
    struct api_key keys[API_KEYS_MAX]; /* by digest */
    size_t count;
};

struct user_tokens {
    uint8_t secret[USER_SECRET_SIZE_MAX]; /* HS256 */
    size_t secret_size;                   /* 0: HS256 is not taken */
    bool has_public_key;                  /* false: EdDSA is not taken */
    uint8_t public_key[32];
    const char *issuer, *audience; /* NULL: not looked at */
};

/* Reads a file of API keys: "name role sha256" a line, # begins a comment. Returns 0, or -1 after
 * logging what is wrong and where. */
int api_keys_read(struct api_keys *k, const char *path);
/* The same from text; why gets a sentence on failure. */
int api_keys_parse(struct api_keys *k, struct str text, char *why, size_t why_size);

/* Reads a secret of 32 to 128 bytes (the file's content without a final newline), or an Ed25519 public
 * key as 64 hex digits. Return 0, or -1 after logging. */
int user_tokens_read_secret(struct user_tokens *t, const char *path);
int user_tokens_read_public_key(struct user_tokens *t, const char *path);

/* Verifies a user token at wall time now_s. On success caller is filled and *expires_s is set. NULL, or
 * what is wrong, fit for the caller to see. */
const char *user_token_verify(const struct user_tokens *t, struct str token, int64_t now_s,
                              struct caller *caller, int64_t *expires_s);

/* Recently verified tokens, so that a token is not verified again with each request. */
struct auth_cache;
struct auth_cache *auth_cache_create(void);
void auth_cache_destroy(struct auth_cache *c);

/* Reads an Authorization value (ptr NULL: absent, which is ROLE_ANYONE). NULL, or what is wrong. */
const char *auth_identify(const struct api_keys *keys, const struct user_tokens *tokens,
                          struct auth_cache *cache, struct str authorization, int64_t now_s,
                          struct caller *caller);

#endif
