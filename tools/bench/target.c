#include "tools/bench/target.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"

#define CALL_PATIENCE_MS 20000

int64_t json_member_int(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

const char *json_member_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL ? text : "";
}

#define SUBCOMMAND_OPTIONS_MAX 24

int target_options_read(struct target *t, const struct options *own, int argc, char **argv)
{
    const struct option common[] = {
        {"state", 0, OPTION_TEXT, &t->state_path, NULL, "FILE",
         "DIR/demo.json of `holdfastctl demo up`: fills in all that follows"},
        {"url", 'u', OPTION_TEXT, &t->url, NULL, "URL", "gateway (http://127.0.0.1:8080)"},
        {"admin-url", 0, OPTION_TEXT, &t->admin_url, NULL, "URL",
         "its admin listener (http://127.0.0.1:8081)"},
        {"api-key-file", 0, OPTION_TEXT, &t->api_key_path, NULL, "FILE",
         "API key of a back end: may order for any user"},
        {"admin-key-file", 0, OPTION_TEXT, &t->admin_key_path, NULL, "FILE",
         "API key of an admin: may stock and open sales"},
        {"payment-secret-file", 0, OPTION_TEXT, &t->payment_secret_path, NULL, "FILE",
         "secret of the payment platform (whsec_...)"},
        {"timeout", 0, OPTION_DURATION, &t->timeout_ms, "5s", "TIME",
         "after which a request counts as unanswered", 10, 600000},
        {"json", 0, OPTION_FLAG, &t->json, "false", NULL, "print the result as JSON"},
    };
    struct option table[ARRAY_COUNT(common) + SUBCOMMAND_OPTIONS_MAX];
    struct options all = *own;
    CHECK(own->count <= SUBCOMMAND_OPTIONS_MAX);
    memcpy(table, common, sizeof common);
    memcpy(table + ARRAY_COUNT(common), own->table, own->count * sizeof table[0]);
    all.table = table;
    all.count = ARRAY_COUNT(common) + own->count;
    int operands;
    switch (options_parse(&all, argc, argv, &operands)) {
    case OPTIONS_HELP:
        return 0;
    case OPTIONS_INVALID:
        return 2;
    case OPTIONS_OK:
        break;
    }
    if (operands != argc) {
        fprintf(stderr, "%s: unexpected '%s'\n", own->program, argv[operands]);
        return 2;
    }
    return -1;
}

/* The first line of a file, without what ends it. */
static int secret_read(const char *path, char *to, size_t size)
{
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    char *line = fgets(to, (int)size, f);
    fclose(f);
    if (line == NULL) {
        fprintf(stderr, "%s: empty\n", path);
        return -1;
    }
    to[strcspn(to, "\r\n")] = '\0';
    return 0;
}

static int payment_secret_read(struct target *t)
{
    char text[TARGET_KEY_SIZE_MAX];
    if (secret_read(t->payment_secret_path, text, sizeof text) != 0) {
        return -1;
    }
    static const char prefix[] = "whsec_";
    const char *from =
        strncmp(text, prefix, sizeof prefix - 1) == 0 ? text + sizeof prefix - 1 : text;
    if (sodium_base642bin(t->payment_secret, sizeof t->payment_secret, from, strlen(from), NULL,
                          &t->payment_secret_size, NULL, sodium_base64_VARIANT_ORIGINAL) != 0) {
        fprintf(stderr, "%s: not a secret of the form whsec_BASE64\n", t->payment_secret_path);
        return -1;
    }
    return 0;
}

/* What the state file says, unless an option said otherwise. */
static int state_read(struct target *t)
{
    json_error_t error;
    t->state = json_load_file(t->state_path, JSON_REJECT_DUPLICATES, &error);
    if (t->state == NULL) {
        fprintf(stderr, "%s: %s\n", t->state_path, error.text);
        return -1;
    }
    const struct {
        const char **value;
        const char *object, *name;
    } members[] = {
        {&t->url, "addresses", "url"},
        {&t->admin_url, "addresses", "admin_url"},
        {&t->api_key_path, "secrets", "backend_key_file"},
        {&t->admin_key_path, "secrets", "admin_key_file"},
        {&t->payment_secret_path, "secrets", "payment_secret_file"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(members); i++) {
        const char *found = json_string_value(
            json_object_get(json_object_get(t->state, members[i].object), members[i].name));
        if (*members[i].value == NULL) {
            *members[i].value = found; /* lent by t->state */
        }
    }
    return 0;
}

int target_open(struct target *t)
{
    CHECK(sodium_init() >= 0);
    t->loop = uv_default_loop();
    if (t->state_path != NULL && state_read(t) != 0) {
        return -1;
    }
    if (t->url == NULL) {
        t->url = "http://127.0.0.1:8080";
    }
    if (t->admin_url == NULL) {
        t->admin_url = "http://127.0.0.1:8081";
    }
    if ((t->api_key_path != NULL &&
         secret_read(t->api_key_path, t->api_key, sizeof t->api_key) != 0) ||
        (t->admin_key_path != NULL &&
         secret_read(t->admin_key_path, t->admin_key, sizeof t->admin_key) != 0) ||
        (t->payment_secret_path != NULL && payment_secret_read(t) != 0)) {
        return -1;
    }
    t->calls = http_client_create(t->loop, t->url, 1, t->timeout_ms);
    if (t->calls == NULL) {
        return -1;
    }
    t->admin = http_client_create(t->loop, t->admin_url, 1, t->timeout_ms);
    return t->admin != NULL ? 0 : -1;
}

void target_close(struct target *t)
{
    if (t->calls != NULL) {
        http_client_destroy(t->calls);
    }
    if (t->admin != NULL) {
        http_client_destroy(t->admin);
    }
    json_decref(t->state);
    sodium_memzero(t->payment_secret, sizeof t->payment_secret);
}

void answer_close(struct answer *a)
{
    json_decref(a->json);
    a->json = NULL;
}

/* One try of a call. */
struct call {
    struct http_exchange x;
    struct answer *answer;
    enum verdict verdict;
    enum http_failure failure;
    uint64_t backoff_ms;
    unsigned attempts;
    bool done;
};

static void call_done(struct http_exchange *x, enum http_failure failure,
                      const struct http_reply *reply)
{
    struct call *c = container_of(x, struct call, x);
    c->done = true;
    c->failure = failure;
    c->verdict = request_judge(failure, reply);
    c->backoff_ms = request_backoff_ms(reply, c->attempts);
    c->answer->status = reply->status;
    c->answer->replayed = reply->replayed;
    c->answer->time_ms = reply->time_ms;
    c->answer->code[0] = '\0';
    if (failure == HTTP_ANSWERED && reply->status >= 400) {
        str_copy(c->answer->code, sizeof c->answer->code, request_outcome(failure, reply));
    }
    answer_close(c->answer);
    c->answer->json = json_loadb(reply->body.ptr, reply->body.len, JSON_REJECT_DUPLICATES, NULL);
}

int target_call(struct target *t, enum target_side side, const char *method, const char *path,
                const char *key, json_t *body, struct answer *a)
{
    struct http_client *client = side == TARGET_ADMIN ? t->admin : t->calls;
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    const char *bearer = side == TARGET_ADMIN ? t->admin_key : t->api_key;
    struct text request = TEXT_INIT;
    request_write(
        &request,
        &(struct request){.method = method,
                          .path = path,
                          .host = http_client_host(client),
                          .bearer = bearer[0] != '\0' ? bearer : NULL,
                          .key = key,
                          .body = text,
                          /* what we put, we create */
                          .headers = strcmp(method, "PUT") == 0 ? "If-None-Match: *\r\n" : NULL});
    free(text);
    memset(a, 0, sizeof *a);
    struct call c = {.x = {.request = request.data, .request_size = request.len, .done = call_done},
                     .answer = a};
    uint64_t give_up_ms = clock_monotonic_ms() + CALL_PATIENCE_MS;
    for (;;) {
        c.done = false;
        http_client_submit(client, &c.x);
        while (!c.done) {
            uv_run(t->loop, UV_RUN_ONCE);
        }
        bool settled = c.verdict == VERDICT_DONE || c.verdict == VERDICT_REFUSED;
        if (settled || clock_monotonic_ms() + c.backoff_ms >= give_up_ms) {
            break;
        }
        c.attempts++;
        nanosleep(&(struct timespec){.tv_sec = (time_t)(c.backoff_ms / 1000),
                                     .tv_nsec = (long)(c.backoff_ms % 1000) * 1000000},
                  NULL);
    }
    text_close(&request);
    if (c.failure != HTTP_ANSWERED) {
        fprintf(stderr, "%s %s on %s: %s\n", method, path, http_client_host(client),
                http_failure_name(c.failure));
        answer_close(a);
        return -1;
    }
    return 0;
}

int target_expect(struct target *t, enum target_side side, const char *method, const char *path,
                  const char *key, json_t *body, struct answer *a)
{
    struct answer own;
    struct answer *answer = a != NULL ? a : &own;
    if (target_call(t, side, method, path, key, body, answer) != 0) {
        return -1;
    }
    if (answer->status >= 300) {
        char *text = answer->json != NULL ? json_dumps(answer->json, JSON_COMPACT) : NULL;
        fprintf(stderr, "%s %s: status %u %s\n", method, path, answer->status,
                text != NULL ? text : "");
        free(text);
        answer_close(answer);
        return -1;
    }
    if (a == NULL) {
        answer_close(answer);
    }
    return 0;
}

void target_sign(const struct target *t, const char *id, int64_t wall_ms, const char *body,
                 struct text *headers)
{
    long long seconds = (long long)(wall_ms / 1000);
    struct text signed_text = TEXT_INIT;
    text_appendf(&signed_text, "%s.%lld.%s", id, seconds, body);
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, t->payment_secret, t->payment_secret_size);
    crypto_auth_hmacsha256_update(&state, (const unsigned char *)signed_text.data, signed_text.len);
    unsigned char mac[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_final(&state, mac);
    char encoded[sodium_base64_ENCODED_LEN(sizeof mac, sodium_base64_VARIANT_ORIGINAL)];
    sodium_bin2base64(encoded, sizeof encoded, mac, sizeof mac, sodium_base64_VARIANT_ORIGINAL);
    text_appendf(headers,
                 "webhook-id: %s\r\nwebhook-timestamp: %lld\r\nwebhook-signature: v1,%s\r\n", id,
                 seconds, encoded);
    text_close(&signed_text);
}
