/* Owns: API keys, and the way from an Authorization header to a caller. The JWT part is jwt.c.
 *
 * Happy path: "Bearer T" → cache hit, or: two dots → user_token_verify, else SHA-256 of T is looked up
 * among the keys → caller, remembered until it expires.
 *
 * Failure modes: no header is a caller of its own kind (the route decides); everything else that is not
 * a good token is 401 with one of few fixed sentences, the same for an unknown and a malformed key.
 * The look-up of a key compares digests of what was sent: its timing tells nothing about a secret. */
#include "gateway/auth.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

#include "base/check.h"
#include "base/log.h"

#define FILE_SIZE_MAX 65536

/* A whole small file. Returns its size, or -1 after logging. */
static long read_file(const char *path, char *buffer, size_t size)
{
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        log_error("cannot open %s: %s", path, strerror(errno));
        return -1;
    }
    size_t n = fread(buffer, 1, size, f);
    bool failed = ferror(f) != 0 || (n == size && fgetc(f) != EOF);
    fclose(f);
    if (failed) {
        log_error("cannot read %s, or it is larger than %zu bytes", path, size);
        return -1;
    }
    return (long)n;
}

static int by_digest(const void *a, const void *b)
{
    const struct api_key *x = a, *y = b;
    return memcmp(x->digest, y->digest, sizeof x->digest);
}

static bool parse_role(struct str word, enum role *role)
{
    static const struct {
        const char *name;
        enum role role;
    } roles[] = {{"admin", ROLE_ADMIN},
                 {"backend", ROLE_BACKEND},
                 {"payments", ROLE_PAYMENTS},
                 {"viewer", ROLE_VIEWER}};
    for (size_t i = 0; i < ARRAY_COUNT(roles); i++) {
        if (str_equal(word, str_from(roles[i].name))) {
            *role = roles[i].role;
            return true;
        }
    }
    return false;
}

static struct str next_word(struct str *line)
{
    const char *p = line->ptr, *end = p + line->len;
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r')) {
        p++;
    }
    const char *start = p;
    while (p < end && *p != ' ' && *p != '\t' && *p != '\r') {
        p++;
    }
    *line = (struct str){p, (uint32_t)(end - p)};
    return (struct str){start, (uint32_t)(p - start)};
}

static const char *parse_key_line(struct api_keys *k, struct str line)
{
    struct str name = next_word(&line), role = next_word(&line), hex = next_word(&line);
    struct api_key key;
    size_t size;
    if (name.len == 0) {
        return NULL;
    }
    if (k->count == API_KEYS_MAX) {
        return "there are more than 256 keys";
    }
    if (!str_is_identifier(name, ID_SIZE_MAX)) {
        return "the name is no identifier";
    }
    if (!parse_role(role, &key.role)) {
        return "the role is none of admin, backend, payments, viewer";
    }
    if (next_word(&line).len != 0 || hex.len != 64 ||
        sodium_hex2bin(key.digest, sizeof key.digest, hex.ptr, hex.len, NULL, &size, NULL) != 0 ||
        size != sizeof key.digest) {
        return "the line does not end in a SHA-256 as 64 hex digits";
    }
    str_copy(key.name, sizeof key.name, name);
    for (size_t i = 0; i < k->count; i++) {
        if (strcmp(k->keys[i].name, key.name) == 0 || by_digest(&k->keys[i], &key) == 0) {
            return "the name or key is there twice";
        }
    }
    k->keys[k->count++] = key;
    return NULL;
}

int api_keys_parse(struct api_keys *k, struct str text, char *why, size_t why_size)
{
    k->count = 0;
    unsigned number = 0;
    while (text.len > 0) {
        const char *lf = memchr(text.ptr, '\n', text.len);
        uint32_t len = lf != NULL ? (uint32_t)(lf - text.ptr) : text.len;
        const char *comment = memchr(text.ptr, '#', len);
        struct str line = {text.ptr, comment != NULL ? (uint32_t)(comment - text.ptr) : len};
        uint32_t step = lf != NULL ? len + 1 : len;
        number++;
        const char *wrong = parse_key_line(k, line);
        if (wrong != NULL) {
            snprintf(why, why_size, "line %u: %s", number, wrong);
            return -1;
        }
        text = (struct str){text.ptr + step, text.len - step};
    }
    qsort(k->keys, k->count, sizeof k->keys[0], by_digest);
    return 0;
}

int api_keys_read(struct api_keys *k, const char *path)
{
    static char buffer[FILE_SIZE_MAX];
    char why[128];
    long size = read_file(path, buffer, sizeof buffer);
    if (size < 0) {
        return -1;
    }
    if (api_keys_parse(k, (struct str){buffer, (uint32_t)size}, why, sizeof why) != 0) {
        log_error("%s: %s", path, why);
        return -1;
    }
    return 0;
}

int user_tokens_read_secret(struct user_tokens *t, const char *path)
{
    char buffer[USER_SECRET_SIZE_MAX + 2];
    long size = read_file(path, buffer, sizeof buffer);
    if (size < 0) {
        return -1;
    }
    size_t n = (size_t)size;
    while (n > 0 && (buffer[n - 1] == '\n' || buffer[n - 1] == '\r')) {
        n--;
    }
    if (n < USER_SECRET_SIZE_MIN || n > USER_SECRET_SIZE_MAX) {
        log_error("%s: a secret of user tokens has 32 to 128 bytes, this one has %zu", path, n);
        return -1;
    }
    memcpy(t->secret, buffer, n);
    t->secret_size = n;
    sodium_memzero(buffer, sizeof buffer);
    return 0;
}

int user_tokens_read_public_key(struct user_tokens *t, const char *path)
{
    char buffer[80];
    size_t bin_size;
    long size = read_file(path, buffer, sizeof buffer);
    if (size < 0) {
        return -1;
    }
    const char *end;
    if (sodium_hex2bin(t->public_key, sizeof t->public_key, buffer, (size_t)size, NULL, &bin_size,
                       &end) != 0 ||
        bin_size != sizeof t->public_key ||
        (end != buffer + size && strspn(end, "\r\n") < (size_t)(buffer + size - end))) {
        log_error("%s: this is no Ed25519 public key as 64 hex digits", path);
        return -1;
    }
    t->has_public_key = true;
    return 0;
}

/* ---- cache ---- */

#define CACHE_SLOTS 8192

struct cache_slot {
    uint64_t hash;
    uint32_t size; /* 0: empty */
    int64_t expires_s;
    struct caller caller;
    char token[384]; /* longer tokens are not cached */
};
struct auth_cache {
    uint64_t seed; /* so that nobody can choose tokens that push each other out */
    struct cache_slot slots[CACHE_SLOTS];
};

struct auth_cache *auth_cache_create(void)
{
    struct auth_cache *c = calloc(1, sizeof *c); /* untouched pages cost nothing */
    CHECK(c != NULL);
    randombytes_buf(&c->seed, sizeof c->seed);
    return c;
}

void auth_cache_destroy(struct auth_cache *c)
{
    if (c != NULL) {
        sodium_memzero(c, sizeof *c);
        free(c);
    }
}

static const char *verify(const struct api_keys *keys, const struct user_tokens *tokens,
                          struct str token, int64_t now_s, struct caller *caller,
                          int64_t *expires_s)
{
    if (memchr(token.ptr, '.', token.len) != NULL) {
        return user_token_verify(tokens, token, now_s, caller, expires_s);
    }
    struct api_key wanted;
    if (token.len < API_KEY_SIZE_MIN || token.len > API_KEY_SIZE_MAX) {
        return "This API key is not known.";
    }
    crypto_hash_sha256(wanted.digest, (const unsigned char *)token.ptr, token.len);
    const struct api_key *key =
        bsearch(&wanted, keys->keys, keys->count, sizeof keys->keys[0], by_digest);
    if (key == NULL) {
        return "This API key is not known.";
    }
    caller->role = key->role;
    memcpy(caller->name, key->name, sizeof caller->name);
    *expires_s = INT64_MAX;
    return NULL;
}

const char *auth_identify(const struct api_keys *keys, const struct user_tokens *tokens,
                          struct auth_cache *cache, struct str authorization, int64_t now_s,
                          struct caller *caller)
{
    *caller = (struct caller){.role = ROLE_ANYONE};
    if (authorization.ptr == NULL) {
        return NULL;
    }
    if (authorization.len < 8 || strncasecmp(authorization.ptr, "Bearer ", 7) != 0) {
        return "The Authorization header must be: Bearer, one space, an API key or a user token.";
    }
    struct str token = {authorization.ptr + 7, authorization.len - 7};
    uint64_t hash = XXH3_64bits_withSeed(token.ptr, token.len, cache->seed);
    struct cache_slot *slot = &cache->slots[hash % CACHE_SLOTS];
    if (slot->size == token.len && slot->hash == hash && slot->expires_s > now_s &&
        memcmp(slot->token, token.ptr, token.len) == 0) {
        *caller = slot->caller;
        return NULL;
    }
    int64_t expires_s;
    const char *wrong = verify(keys, tokens, token, now_s, caller, &expires_s);
    if (wrong != NULL) {
        *caller = (struct caller){.role = ROLE_ANYONE};
        return wrong;
    }
    if (token.len <= sizeof slot->token) {
        slot->hash = hash;
        slot->size = token.len;
        slot->expires_s = expires_s;
        slot->caller = *caller;
        memcpy(slot->token, token.ptr, token.len);
    }
    return NULL;
}
