/* Who asks: the Authorization header, API keys and their file, user tokens (gateway/auth.h).
 *
 * Input: first byte 0: a whole Authorization value; 1: a file of API keys; 2: payload of a user token,
 * which is signed here, so that what lies behind the signature is reached; 3: header of one, signed, too;
 * 4: a signed token of ours and where to turn a bit of it.
 * Asserted: roles come from a good key or signature only; a name is an identifier; the answer is the same
 * from the cache; an expired or damaged token is nobody. */
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/auth.h"
#include "tests/fuzz/fuzz.h"

#define NOW_S 1700000000

enum { AS_HEADER, AS_KEYS, AS_PAYLOAD, AS_JOSE, AS_TURNED, AS_COUNT };

static const char api_key[] = "key-of-the-shop-0123456789";
static struct api_keys keys;
static struct user_tokens tokens;
static struct auth_cache *cache;
static uint8_t secret_key[crypto_sign_SECRETKEYBYTES];
static char hs256_token[1024], eddsa_token[1024];

static size_t base64(char *out, size_t size, const void *data, size_t data_size)
{
    size_t needed = sodium_base64_encoded_len(data_size, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    if (needed > size) {
        return 0;
    }
    sodium_bin2base64(out, size, data, data_size, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    return needed - 1;
}

/* Returns the token's size, 0: it does not fit. */
static size_t make_token(char *out, size_t size, bool eddsa, struct str jose, struct str payload)
{
    uint8_t signature[crypto_sign_BYTES];
    size_t n = base64(out, size, jose.ptr, jose.len);
    if (n == 0 && jose.len > 0) {
        return 0;
    }
    out[n++] = '.';
    size_t more = base64(out + n, size - n, payload.ptr, payload.len);
    if (more == 0 && payload.len > 0) {
        return 0;
    }
    n += more;
    if (eddsa) {
        crypto_sign_detached(signature, NULL, (const uint8_t *)out, n, secret_key);
    } else {
        crypto_auth_hmacsha256_state state;
        crypto_auth_hmacsha256_init(&state, tokens.secret, tokens.secret_size);
        crypto_auth_hmacsha256_update(&state, (const uint8_t *)out, n);
        crypto_auth_hmacsha256_final(&state, signature);
    }
    if (size - n < 2) {
        return 0;
    }
    out[n++] = '.';
    more = base64(out + n, size - n, signature, eddsa ? 64 : 32);
    return more > 0 ? n + more : 0;
}

static const char jose_hs256[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
static const char jose_eddsa[] = "{\"alg\":\"EdDSA\",\"kid\":\"1\"}";
static const char claims[] = "{\"sub\":\"u1\",\"exp\":1700000600,\"nbf\":1699999990,\"iss\":\"shop\","
                             "\"aud\":[\"sale\",\"other\"]}";

void fuzz_begin(void)
{
    char line[256], hex[65], why[128];
    uint8_t digest[32], seed[crypto_sign_SEEDBYTES] = {1, 2, 3};
    crypto_hash_sha256(digest, (const uint8_t *)api_key, sizeof api_key - 1);
    sodium_bin2hex(hex, sizeof hex, digest, sizeof digest);
    snprintf(line, sizeof line, "shop backend %s\n", hex);
    CHECK(api_keys_parse(&keys, str_from(line), why, sizeof why) == 0);
    memset(tokens.secret, 's', USER_SECRET_SIZE_MIN);
    tokens.secret_size = USER_SECRET_SIZE_MIN;
    crypto_sign_seed_keypair(tokens.public_key, secret_key, seed);
    tokens.has_public_key = true;
    tokens.issuer = "shop";
    tokens.audience = "sale";
    cache = auth_cache_create();
    size_t n = make_token(hs256_token, sizeof hs256_token - 1, false, str_from(jose_hs256), str_from(claims));
    CHECK(n > 0);
    hs256_token[n] = '\0';
    n = make_token(eddsa_token, sizeof eddsa_token - 1, true, str_from(jose_eddsa), str_from(claims));
    CHECK(n > 0);
    eddsa_token[n] = '\0';
}

static void check_caller(const struct caller *c, const char *wrong)
{
    if (wrong != NULL) {
        CHECK(c->role == ROLE_ANYONE);
        return;
    }
    CHECK(c->role == ROLE_ANYONE || c->role == ROLE_USER || c->role == ROLE_BACKEND);
    CHECK(c->role == ROLE_ANYONE || str_is_identifier(str_from(c->name), ID_SIZE_MAX));
}

static void run_header(struct str value)
{
    struct caller a, b;
    const char *first = auth_identify(&keys, &tokens, cache, value, NOW_S, &a);
    check_caller(&a, first);
    const char *second = auth_identify(&keys, &tokens, cache, value, NOW_S, &b);
    CHECK((first == NULL) == (second == NULL));
    CHECK(a.role == b.role && strcmp(a.name, b.name) == 0);
    if (first == NULL) {
        /* Only who holds a secret gets here: the key, or a token that a secret of ours has signed. */
        struct str given = {value.ptr + 7, value.len - 7};
        CHECK(a.role == ROLE_USER || str_equal(given, str_from(api_key)));
        (void)auth_identify(&keys, &tokens, cache, value, NOW_S + 100000000, &b);
        CHECK(a.role == ROLE_BACKEND || b.role == ROLE_ANYONE);
    }
}

static void run_keys(struct str text)
{
    static struct api_keys parsed;
    char why[128] = "";
    if (api_keys_parse(&parsed, text, why, sizeof why) != 0) {
        CHECK(strncmp(why, "line ", 5) == 0);
        return;
    }
    CHECK(parsed.count <= API_KEYS_MAX);
    for (size_t i = 0; i < parsed.count; i++) {
        CHECK(str_is_identifier(str_from(parsed.keys[i].name), ID_SIZE_MAX));
        CHECK(i == 0 || memcmp(parsed.keys[i - 1].digest, parsed.keys[i].digest, 32) < 0);
    }
}

/* What a token must say, looked at without the code under test. */
static void check_claims(struct str payload, const struct caller *c, int64_t expires_s)
{
    json_t *root = json_loadb(payload.ptr, payload.len, JSON_REJECT_DUPLICATES, NULL);
    CHECK(root != NULL);
    CHECK(strcmp(json_string_value(json_object_get(root, "sub")), c->name) == 0);
    CHECK(json_integer_value(json_object_get(root, "exp")) > NOW_S - 10);
    CHECK(expires_s > NOW_S);
    CHECK(strcmp(json_string_value(json_object_get(root, "iss")), "shop") == 0);
    CHECK(json_integer_value(json_object_get(root, "nbf")) <= NOW_S + 10);
    json_decref(root);
}

static void run_token(struct str jose, struct str payload, bool eddsa)
{
    char token[2 * USER_TOKEN_SIZE_MAX];
    struct caller c = {.role = ROLE_ANYONE};
    int64_t expires_s;
    size_t n = make_token(token, sizeof token, eddsa, jose, payload);
    if (n == 0) {
        return;
    }
    char *exact = malloc(n);
    CHECK(exact != NULL);
    memcpy(exact, token, n);
    if (user_token_verify(&tokens, (struct str){exact, (uint32_t)n}, NOW_S, &c, &expires_s) == NULL) {
        CHECK(n <= USER_TOKEN_SIZE_MAX);
        CHECK(c.role == ROLE_USER);
        CHECK(str_is_identifier(str_from(c.name), ID_SIZE_MAX));
        check_claims(payload, &c, expires_s);
        /* And nobody else's key will do. */
        struct user_tokens others = tokens;
        others.secret[0] ^= 1;
        others.public_key[0] ^= 1;
        CHECK(user_token_verify(&others, (struct str){exact, (uint32_t)n}, NOW_S, &c, &expires_s) !=
              NULL);
    }
    free(exact);
}

static void run_turned(struct reader *r)
{
    const char *good = reader_u8(r) % 2 == 0 ? hs256_token : eddsa_token;
    char token[1024];
    struct caller c;
    int64_t expires_s;
    size_t n = strlen(good);
    memcpy(token, good, n);
    CHECK(user_token_verify(&tokens, (struct str){token, (uint32_t)n}, NOW_S, &c, &expires_s) == NULL);
    uint32_t at = fuzz_below(r, (uint32_t)n);
    char put = (char)reader_u8(r);
    if (token[at] == put) {
        return;
    }
    token[at] = put;
    CHECK(user_token_verify(&tokens, (struct str){token, (uint32_t)n}, NOW_S, &c, &expires_s) != NULL);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct reader r = reader_init(data, size);
    switch (reader_u8(&r) % AS_COUNT) {
    case AS_HEADER:
        run_header(fuzz_rest(&r));
        return;
    case AS_KEYS:
        run_keys(fuzz_rest(&r));
        return;
    case AS_PAYLOAD:
        run_token(str_from(jose_hs256), fuzz_rest(&r), false);
        return;
    case AS_JOSE: {
        bool eddsa = reader_u8(&r) % 2 == 1;
        run_token(fuzz_rest(&r), str_from(claims), eddsa);
        return;
    }
    default:
        run_turned(&r);
    }
}

static void seed(const char *name, char mode, const char *before, const char *text)
{
    char out[2048];
    int n = snprintf(out, sizeof out, "%c%s%s", mode, before, text);
    CHECK(n > 0 && (size_t)n < sizeof out);
    fuzz_seed(name, out, (size_t)n);
}

void fuzz_seeds(void)
{
    fuzz_seed("header-none", "\0", 1);
    char out[2048];
    out[0] = AS_HEADER;
    int n = snprintf(out + 1, sizeof out - 1, "Bearer %s", api_key);
    fuzz_seed("header-key", out, 1 + (size_t)n);
    n = snprintf(out + 1, sizeof out - 1, "Bearer %s", hs256_token);
    fuzz_seed("header-hs256", out, 1 + (size_t)n);
    n = snprintf(out + 1, sizeof out - 1, "Bearer %s", eddsa_token);
    fuzz_seed("header-eddsa", out, 1 + (size_t)n);
    seed("keys", AS_KEYS, "",
         "# keys\nshop backend 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n"
         "ops admin 0a86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 # me\r\n");
    seed("payload", AS_PAYLOAD, "", claims);
    seed("payload-expired", AS_PAYLOAD, "", "{\"sub\":\"u1\",\"exp\":1600000600,\"iss\":\"shop\"}");
    seed("payload-text-aud", AS_PAYLOAD, "",
         "{\"sub\":\"u1\",\"exp\":1700000600,\"iss\":\"shop\",\"aud\":\"sale\"}");
    seed("jose", AS_JOSE, "0", jose_hs256);
    seed("jose-eddsa", AS_JOSE, "1", jose_eddsa);
    seed("jose-none", AS_JOSE, "0", "{\"alg\":\"none\"}");
    fuzz_seed("turned", "\x04\x00\x10z", 4);
    fuzz_seed("turned-eddsa", "\x04\x01\x80.", 4);
}
