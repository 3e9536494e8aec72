/* Owns: verification of user tokens (JWT: RFC 7519, 7515, 8725), on libsodium.
 *
 * Happy path: three base64url parts → header names an algorithm for which a key is configured → the
 * signature over the first two parts is good → payload: exp is ahead, nbf is not, sub is a user id.
 *
 * Failure modes: anything else is refused. The header may hold alg, typ and kid only: everything that
 * could change what is verified (crit, b64, jwk, x5u, …) is refused by being unknown, and "none" is
 * not an algorithm. The signature is verified before the payload is parsed. */
#include <jansson.h>
#include <sodium.h>
#include <string.h>
#include <strings.h>

#include "base/check.h"
#include "gateway/auth.h"

static bool decode(struct str part, uint8_t *out, size_t capacity, size_t *size)
{
    const char *end;
    return part.len > 0 &&
           sodium_base642bin(out, capacity, part.ptr, part.len, NULL, size, &end,
                             sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0 &&
           end == part.ptr + part.len;
}

static json_t *load_object(const uint8_t *data, size_t size)
{
    json_t *root = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (root != NULL && !json_is_object(root)) {
        json_decref(root);
        return NULL;
    }
    return root;
}

enum algorithm { ALGORITHM_NONE, ALGORITHM_HS256, ALGORITHM_EDDSA };

static enum algorithm read_header(const struct user_tokens *t, struct str part)
{
    uint8_t bytes[256];
    size_t size;
    if (!decode(part, bytes, sizeof bytes, &size)) {
        return ALGORITHM_NONE;
    }
    json_t *header = load_object(bytes, size);
    if (header == NULL) {
        return ALGORITHM_NONE;
    }
    enum algorithm algorithm = ALGORITHM_NONE;
    const char *alg = json_string_value(json_object_get(header, "alg"));
    if (alg != NULL && strcmp(alg, "HS256") == 0 && t->secret_size > 0) {
        algorithm = ALGORITHM_HS256;
    } else if (alg != NULL && strcmp(alg, "EdDSA") == 0 && t->has_public_key) {
        algorithm = ALGORITHM_EDDSA;
    }
    const char *key;
    json_t *value;
    json_object_foreach(header, key, value)
    {
        bool typ = strcmp(key, "typ") == 0 && json_is_string(value) &&
                   strcasecmp(json_string_value(value), "JWT") == 0;
        if (!typ && strcmp(key, "alg") != 0 &&
            !(strcmp(key, "kid") == 0 && json_is_string(value))) {
            algorithm = ALGORITHM_NONE;
        }
    }
    json_decref(header);
    return algorithm;
}

static bool signature_is_good(const struct user_tokens *t, enum algorithm algorithm,
                              struct str signed_part, struct str signature)
{
    uint8_t given[64], computed[32];
    size_t size;
    if (!decode(signature, given, sizeof given, &size)) {
        return false;
    }
    if (algorithm == ALGORITHM_EDDSA) {
        return size == 64 && crypto_sign_verify_detached(given, (const uint8_t *)signed_part.ptr,
                                                         signed_part.len, t->public_key) == 0;
    }
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, t->secret, t->secret_size);
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)signed_part.ptr, signed_part.len);
    crypto_auth_hmacsha256_final(&state, computed);
    return size == 32 && sodium_memcmp(given, computed, 32) == 0;
}

static bool audience_is_good(const struct user_tokens *t, const json_t *aud)
{
    if (t->audience == NULL) {
        return true;
    }
    if (json_is_string(aud)) {
        return strcmp(json_string_value(aud), t->audience) == 0;
    }
    for (size_t i = 0; i < json_array_size(aud); i++) {
        const char *one = json_string_value(json_array_get(aud, i));
        if (one != NULL && strcmp(one, t->audience) == 0) {
            return true;
        }
    }
    return false;
}

/* A NumericDate: an integer here, also where a fraction would be allowed. */
static bool read_date(const json_t *payload, const char *name, int64_t *out)
{
    const json_t *value = json_object_get(payload, name);
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > 253402300799) {
        return false;
    }
    *out = json_integer_value(value);
    return true;
}

static const char *read_payload(const struct user_tokens *t, const json_t *payload, int64_t now_s,
                                struct caller *caller, int64_t *expires_s)
{
    int64_t not_before = 0;
    if (!read_date(payload, "exp", expires_s)) {
        return "The user token has no good exp.";
    }
    *expires_s += USER_TOKEN_LEEWAY_S;
    if (*expires_s <= now_s) {
        return "The user token has expired.";
    }
    if (json_object_get(payload, "nbf") != NULL &&
        (!read_date(payload, "nbf", &not_before) || not_before - USER_TOKEN_LEEWAY_S > now_s)) {
        return "The user token is not valid yet.";
    }
    const char *issuer = json_string_value(json_object_get(payload, "iss"));
    if (t->issuer != NULL && (issuer == NULL || strcmp(issuer, t->issuer) != 0)) {
        return "The user token is from another issuer.";
    }
    if (!audience_is_good(t, json_object_get(payload, "aud"))) {
        return "The user token is for another audience.";
    }
    const json_t *subject = json_object_get(payload, "sub");
    struct str user = {json_string_value(subject), (uint32_t)json_string_length(subject)};
    if (user.ptr == NULL || !str_is_identifier(user, ID_SIZE_MAX)) {
        return "The user token's sub is no user id.";
    }
    caller->role = ROLE_USER;
    str_copy(caller->name, sizeof caller->name, user);
    return NULL;
}

const char *user_token_verify(const struct user_tokens *t, struct str token, int64_t now_s,
                              struct caller *caller, int64_t *expires_s)
{
    static const char malformed[] = "The user token is not a JWT that is taken here.";
    const char *end = token.ptr + token.len;
    if (token.len > USER_TOKEN_SIZE_MAX) {
        return malformed;
    }
    const char *dot1 = memchr(token.ptr, '.', token.len);
    const char *dot2 = dot1 != NULL ? memchr(dot1 + 1, '.', (size_t)(end - dot1 - 1)) : NULL;
    if (dot2 == NULL) {
        return malformed;
    }
    struct str header = {token.ptr, (uint32_t)(dot1 - token.ptr)};
    struct str payload = {dot1 + 1, (uint32_t)(dot2 - dot1 - 1)};
    struct str signature = {dot2 + 1, (uint32_t)(end - dot2 - 1)};
    struct str signed_part = {token.ptr, (uint32_t)(dot2 - token.ptr)};
    enum algorithm algorithm = read_header(t, header);
    if (algorithm == ALGORITHM_NONE) {
        return malformed;
    }
    if (!signature_is_good(t, algorithm, signed_part, signature)) {
        return "The user token's signature does not match.";
    }
    uint8_t bytes[USER_TOKEN_SIZE_MAX];
    size_t size;
    json_t *claims = decode(payload, bytes, sizeof bytes, &size) ? load_object(bytes, size) : NULL;
    if (claims == NULL) {
        return malformed;
    }
    const char *wrong = read_payload(t, claims, now_s, caller, expires_s);
    json_decref(claims);
    return wrong;
}
