/* Unit tests of auth and jwt: keys, tokens, and tokens that only look like some. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sodium.h>
#include <stdio.h>

#include "base/check.h"
#include "gateway/auth.h"

#define NOW 1800000000

static const char secret[] = "0123456789abcdef0123456789abcdef";
static uint8_t public_key[32], private_key[64];

static struct user_tokens tokens_with_both(void)
{
    struct user_tokens t = {.secret_size = sizeof secret - 1, .has_public_key = true};
    memcpy(t.secret, secret, sizeof secret - 1);
    memcpy(t.public_key, public_key, sizeof public_key);
    return t;
}

static void encode(char *out, size_t size, const void *data, size_t n)
{
    CHECK(sodium_bin2base64(out, size, data, n, sodium_base64_VARIANT_URLSAFE_NO_PADDING) != NULL);
}

/* header.payload.signature; alg: 'h' HS256 with `key`, 'e' EdDSA, 'n' none */
static void make_token(char out[2048], const char *header, const char *payload, char alg,
                       const char *key)
{
    char h[256], p[1024], s[128] = "";
    uint8_t mac[64];
    encode(h, sizeof h, header, strlen(header));
    encode(p, sizeof p, payload, strlen(payload));
    size_t n = strlen(h) + 1 + strlen(p);
    snprintf(out, 2048, "%s.%s", h, p);
    if (alg == 'h') {
        crypto_auth_hmacsha256_state state;
        crypto_auth_hmacsha256_init(&state, (const uint8_t *)key, strlen(key));
        crypto_auth_hmacsha256_update(&state, (const uint8_t *)out, n);
        crypto_auth_hmacsha256_final(&state, mac);
        encode(s, sizeof s, mac, 32);
    } else if (alg == 'e') {
        crypto_sign_detached(mac, NULL, (const uint8_t *)out, n, private_key);
        encode(s, sizeof s, mac, 64);
    }
    snprintf(out + n, 2048 - n, ".%s", s);
}

static bool good(const char *header, const char *payload, char alg, const char *key, char user[65])
{
    char token[2048];
    struct caller caller = {.role = ROLE_ANYONE};
    int64_t expires;
    struct user_tokens t = tokens_with_both();
    make_token(token, header, payload, alg, key);
    const char *wrong = user_token_verify(&t, str_from(token), NOW, &caller, &expires);
    if (wrong == NULL) {
        assert_int_equal(caller.role, ROLE_USER);
        memcpy(user, caller.name, sizeof caller.name);
    } else {
        assert_int_equal(caller.role, ROLE_ANYONE);
    }
    return wrong == NULL;
}

static void test_tokens(void **state)
{
#define EXP "\"exp\":1800000060"
    static const char hs[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
    static const char ed[] = "{\"alg\":\"EdDSA\",\"kid\":\"k1\"}";
    static const char ok[] = "{\"sub\":\"u1\"," EXP "}";
    static const struct {
        const char *header, *payload, *key;
        char alg;
        bool good;
    } cases[] = {
        {hs, ok, secret, 'h', true},
        {ed, ok, NULL, 'e', true},
        {hs, "{\"sub\":\"u1\"," EXP ",\"nbf\":1800000000,\"iat\":1,\"name\":\"x\"}", secret, 'h',
         true},
        {hs, "{\"sub\":\"u1\"," EXP ",\"nbf\":1800000005}", secret, 'h', true}, /* the leeway */
        {hs, "{\"sub\":\"u1\",\"exp\":1799999996}", secret, 'h', true},
        {hs, "{\"sub\":\"u1\",\"exp\":1799999995}", secret, 'h', false}, /* expired */
        {hs, "{\"sub\":\"u1\"," EXP ",\"nbf\":1800000006}", secret, 'h', false},
        {hs, "{\"sub\":\"u1\"}", secret, 'h', false}, /* for ever */
        {hs, "{\"sub\":\"u1\",\"exp\":\"1800000060\"}", secret, 'h', false},
        {hs, "{\"sub\":\"u1\",\"exp\":1.8e9}", secret, 'h', false},
        {hs, "{\"sub\":\"u1\",\"exp\":-1}", secret, 'h', false},
        {hs, "{\"sub\":\"u1\",\"exp\":1800000060,\"exp\":1900000060}", secret, 'h', false},
        {hs, "{" EXP "}", secret, 'h', false}, /* nobody */
        {hs, "{\"sub\":7," EXP "}", secret, 'h', false},
        {hs, "{\"sub\":\"\"," EXP "}", secret, 'h', false},
        {hs, "{\"sub\":\"a b\"," EXP "}", secret, 'h', false},
        {hs, "[]", secret, 'h', false},
        {hs, "", secret, 'h', false},
        {hs, ok, "another secret of the same size!", 'h', false},
        {hs, ok, NULL, 'e', false}, /* the algorithm is the header's, not the signature's */
        {ed, ok, secret, 'h', false},
        {"{\"alg\":\"none\"}", ok, NULL, 'n', false},
        {"{\"alg\":\"None\"}", ok, secret, 'h', false},
        {"{\"alg\":\"HS512\"}", ok, secret, 'h', false},
        {"{\"alg\":\"RS256\"}", ok, secret, 'h', false},
        {"{}", ok, secret, 'h', false},
        {"{\"alg\":\"HS256\",\"crit\":[\"b64\"],\"b64\":false}", ok, secret, 'h', false},
        {"{\"alg\":\"HS256\",\"jwk\":{}}", ok, secret, 'h', false},
        {"{\"alg\":\"HS256\",\"typ\":\"JWE\"}", ok, secret, 'h', false},
        {"{\"alg\":\"none\",\"alg\":\"HS256\"}", ok, secret, 'h', false},
        {hs, ok, NULL, 'n', false}, /* no signature */
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char user[65] = "";
        if (good(cases[i].header, cases[i].payload, cases[i].alg, cases[i].key, user) !=
            cases[i].good) {
            fail_msg("case %zu: %s %s", i, cases[i].header, cases[i].payload);
        }
        assert_string_equal(user, cases[i].good ? "u1" : "");
    }
}

/* Changing any one character of a good token makes it a bad one. */
static void test_tampered(void **state)
{
    (void)state;
    for (int alg = 0; alg < 2; alg++) {
        char token[2048];
        struct caller caller;
        int64_t expires;
        struct user_tokens t = tokens_with_both();
        make_token(token, alg ? "{\"alg\":\"EdDSA\"}" : "{\"alg\":\"HS256\"}",
                   "{\"sub\":\"u1\",\"exp\":1800000060}", alg ? 'e' : 'h', secret);
        assert_null(user_token_verify(&t, str_from(token), NOW, &caller, &expires));
        for (size_t i = 0; token[i] != '\0'; i++) {
            char kept = token[i];
            for (const char *c = "Aw.=+ \x01"; *c != '\0'; c++) {
                token[i] = *c;
                if (*c != kept) {
                    assert_non_null(user_token_verify(&t, str_from(token), NOW, &caller, &expires));
                }
            }
            token[i] = kept;
        }
        size_t size = strlen(token);
        for (uint32_t n = 0; n < size; n++) {
            assert_non_null(user_token_verify(&t, (struct str){token, n}, NOW, &caller, &expires));
        }
    }
}

static void test_issuer_and_audience(void **state)
{
    static const struct {
        const char *payload;
        bool good;
    } cases[] = {
        {"{\"sub\":\"u1\",\"exp\":1800000060,\"iss\":\"shop\",\"aud\":\"api\"}", true},
        {"{\"sub\":\"u1\",\"exp\":1800000060,\"iss\":\"shop\",\"aud\":[\"x\",\"api\"]}", true},
        {"{\"sub\":\"u1\",\"exp\":1800000060,\"iss\":\"shop\",\"aud\":[\"x\",7]}", false},
        {"{\"sub\":\"u1\",\"exp\":1800000060,\"iss\":\"shop\"}", false},
        {"{\"sub\":\"u1\",\"exp\":1800000060,\"iss\":\"shop2\",\"aud\":\"api\"}", false},
        {"{\"sub\":\"u1\",\"exp\":1800000060,\"aud\":\"api\"}", false},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char token[2048];
        struct caller caller;
        int64_t expires;
        struct user_tokens t = tokens_with_both();
        t.issuer = "shop";
        t.audience = "api";
        make_token(token, "{\"alg\":\"HS256\"}", cases[i].payload, 'h', secret);
        assert_int_equal(user_token_verify(&t, str_from(token), NOW, &caller, &expires) == NULL,
                         cases[i].good);
    }
}

static void test_algorithms_need_a_key(void **state)
{
    struct user_tokens none = {.secret_size = 0};
    char token[2048];
    struct caller caller;
    int64_t expires;
    (void)state;
    make_token(token, "{\"alg\":\"HS256\"}", "{\"sub\":\"u1\",\"exp\":1800000060}", 'h', "");
    assert_non_null(user_token_verify(&none, str_from(token), NOW, &caller, &expires));
}

#define DIGEST_OF_ABC                                                                              \
    "6ca13d52ca70c883e0f0bb101e425a89e8624de51db2d2392593af6a84118090" /* abc123 */

static void test_key_files(void **state)
{
    static const struct {
        const char *text;
        int keys; /* -1: refused */
    } cases[] = {
        {"", 0},
        {"# nothing\n\n   \n", 0},
        {"a admin " DIGEST_OF_ABC, 1},
        {"  a\tadmin  " DIGEST_OF_ABC " # mine\r\n", 1},
        {"a admin " DIGEST_OF_ABC
         "\nb viewer 0000000000000000000000000000000000000000000000000000000000000000",
         2},
        {"a admin " DIGEST_OF_ABC "\nb viewer " DIGEST_OF_ABC, -1}, /* one key, two names */
        {"a admin " DIGEST_OF_ABC
         "\na viewer 0000000000000000000000000000000000000000000000000000000000000000",
         -1},
        {"a root " DIGEST_OF_ABC, -1},
        {"a user " DIGEST_OF_ABC, -1}, /* users come with tokens */
        {"a admin 00", -1},
        {"a admin", -1},
        {"a", -1},
        {"a/b admin " DIGEST_OF_ABC, -1},
        {"a admin " DIGEST_OF_ABC " more", -1},
        {"a admin zzzz3d52ca70c883e0f0bb101e425a89e8624de51db2d2392593af6a84118090", -1},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        static struct api_keys k;
        char why[128] = "";
        int result = api_keys_parse(&k, str_from(cases[i].text), why, sizeof why);
        if ((result == 0 ? (int)k.count : -1) != cases[i].keys) {
            fail_msg("%s: %d keys, %s", cases[i].text, result == 0 ? (int)k.count : -1, why);
        }
    }
}

static void test_identify(void **state)
{
    static struct api_keys keys;
    struct auth_cache *cache = auth_cache_create();
    struct user_tokens t = tokens_with_both();
    struct caller c;
    char file[256], hex[65], token[2048], header[2100], why[128];
    uint8_t digest[32];
    (void)state;
    crypto_hash_sha256(digest, (const uint8_t *)"a-key-of-the-shop", 17);
    sodium_bin2hex(hex, sizeof hex, digest, sizeof digest);
    snprintf(file, sizeof file, "shop backend %s\n", hex);
    assert_int_equal(api_keys_parse(&keys, str_from(file), why, sizeof why), 0);
    for (int i = 0; i < 2; i++) { /* verified, then remembered */
        assert_null(auth_identify(&keys, &t, cache, (struct str){NULL, 0}, NOW, &c));
        assert_int_equal(c.role, ROLE_ANYONE);
        assert_null(
            auth_identify(&keys, &t, cache, STR_LITERAL("Bearer a-key-of-the-shop"), NOW, &c));
        assert_int_equal(c.role, ROLE_BACKEND);
        assert_string_equal(c.name, "shop");
        assert_non_null(
            auth_identify(&keys, &t, cache, STR_LITERAL("Bearer a-key-of-the-shoq"), NOW, &c));
        assert_int_equal(c.role, ROLE_ANYONE);
        assert_non_null(
            auth_identify(&keys, &t, cache, STR_LITERAL("Bearer a-key-of-the-sho"), NOW, &c));
        assert_non_null(auth_identify(&keys, &t, cache, STR_LITERAL("Basic YTpi"), NOW, &c));
        assert_non_null(auth_identify(&keys, &t, cache, STR_LITERAL("Bearer "), NOW, &c));
        assert_non_null(
            auth_identify(&keys, &t, cache, STR_LITERAL("Bearer  a-key-of-the-shop"), NOW, &c));
        assert_non_null(auth_identify(&keys, &t, cache, STR_LITERAL(""), NOW, &c));
    }
    /* A remembered user token ends when it expires. */
    make_token(token, "{\"alg\":\"HS256\"}", "{\"sub\":\"u1\",\"exp\":1800000060}", 'h', secret);
    snprintf(header, sizeof header, "bearer %s", token);
    assert_null(auth_identify(&keys, &t, cache, str_from(header), NOW, &c));
    assert_int_equal(c.role, ROLE_USER);
    assert_null(auth_identify(&keys, &t, cache, str_from(header), NOW + 64, &c));
    assert_non_null(auth_identify(&keys, &t, cache, str_from(header), NOW + 65, &c));
    auth_cache_destroy(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_tampered),
        cmocka_unit_test(test_issuer_and_audience),
        cmocka_unit_test(test_algorithms_need_a_key),
        cmocka_unit_test(test_key_files),
        cmocka_unit_test(test_identify),
    };
    CHECK(sodium_init() >= 0);
    crypto_sign_keypair(public_key, private_key);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
