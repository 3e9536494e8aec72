/* Owns: the gateway's start and end, the state machine behind it, reading of answers. */
#include "tests/fuzz/http_world.h"

#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "engine/engine.h"
#include "gateway/connection.h"
#include "gateway/metrics.h"
#include "gateway/order_requests.h"
#include "gateway/route.h"
#include "proto/arena.h"
#include "proto/order_id.h"
#include "server/views.h"
#include "tests/fuzz/commands.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory_uv.h"

#define TURNS_MAX 100000 /* of one connection: beyond it nothing ends */

uint32_t http_world_commands, http_world_reads;

static struct gateway gateway;
static uv_loop_t loop; /* a name only: memory_uv.c has none */
static struct engine *engine;
static uint64_t engine_at;
static struct arena arena;
static char order_text[ORDER_ID_TEXT_SIZE], user_token[512];
static uint8_t batch_memory[BATCH_SIZE_MAX];

/* Wall time stands still: ld's --wrap gives the gateway this one. */
int64_t __wrap_clock_wall_ms(void);
int64_t __wrap_clock_wall_ms(void)
{
    return HTTP_WORLD_TIME_MS;
}

/* ---- the state machine ---- */

static void keep_reply(void *ctx, uint32_t position, const struct reply *reply)
{
    CHECK(position == 0);
    memcpy(ctx, reply, sizeof *reply);
}

static struct reply apply(const void *command, size_t size)
{
    struct batch_builder b;
    struct reply reply;
    batch_begin(&b, batch_memory, sizeof batch_memory);
    CHECK(batch_add(&b, command, size));
    size_t n = batch_end(&b, HTTP_WORLD_TIME_MS);
    engine_apply(engine, ++engine_at, batch_memory, n, keep_reply, &reply);
    return reply;
}

static struct reply apply_command(const struct command *c)
{
    uint8_t bytes[COMMAND_SIZE_MAX];
    size_t size = command_encode(c, bytes, sizeof bytes);
    CHECK(size > 0);
    return apply(bytes, size);
}

/* Only when somebody asks: most inputs never get so far. */
static void need_engine(void)
{
    struct command c;
    uint8_t bytes[512];
    if (engine != NULL) {
        return;
    }
    engine = engine_create();
    engine_at = 0;
    size_t size = commands_encode_init(bytes, sizeof bytes);
    CHECK(apply(bytes, size).result == RESULT_OK);
    for (unsigned i = 1; i < 7; i++) { /* SKUs, stock, sale, right, order */
        CHECK(commands_example(i, &c));
        if (c.kind == COMMAND_SALE_PUT) {
            c.sale_put.opens_ms = HTTP_WORLD_TIME_MS - 1000;
            c.sale_put.closes_ms = HTTP_WORLD_TIME_MS + 1000000;
        }
        struct reply r = apply_command(&c);
        CHECK(r.result == RESULT_OK);
        if (r.order != 0) {
            order_id_format(r.order, order_text);
        }
    }
    CHECK(commands_example(12, &c)); /* lease */
    c.lease.ttl_ms = 100000;
    CHECK(apply_command(&c).result == RESULT_OK);
    CHECK(commands_example(15, &c)); /* denial */
    c.deny.user = STR_LITERAL("u9");
    c.deny.until_ms = 0;
    CHECK(apply_command(&c).result == RESULT_OK);
}

/* ---- in place of proto/client.c ---- */

#define PENDING_MAX 256

static struct pending {
    struct client_submit *submit;
    struct client_call *call;
    struct reply reply;
    Holdfast__Response *response;
} pending[PENDING_MAX];
static size_t pending_count;

enum client_outcome client_submit(struct client *c, struct client_submit *req, const void *command,
                                  size_t size, uint64_t deadline_ms, client_submit_cb cb)
{
    struct command decoded;
    (void)c;
    CHECK(size <= COMMAND_SIZE_MAX && command_decode(&decoded, command, size) == 0);
    CHECK(decoded.scope.len > 0);
    CHECK(deadline_ms >= memory_uv_now_ms);
    http_world_commands++;
    if (pending_count == PENDING_MAX) {
        req->retry_after_ms = 10;
        return CLIENT_QUEUE_FULL;
    }
    need_engine();
    req->cb = cb;
    pending[pending_count++] = (struct pending){.submit = req, .reply = apply(command, size)};
    return CLIENT_OK;
}

enum client_outcome client_call(struct client *c, struct client_call *req,
                                const Holdfast__Request *request, uint64_t target, uint64_t deadline_ms,
                                client_call_cb cb)
{
    (void)c;
    CHECK(target == CLIENT_TARGET_LEADER || target == CLIENT_TARGET_ANY);
    CHECK(deadline_ms >= memory_uv_now_ms);
    CHECK(holdfast__request__get_packed_size(request) < COMMAND_SIZE_MAX);
    http_world_reads++;
    if (pending_count == PENDING_MAX) {
        return CLIENT_QUEUE_FULL;
    }
    need_engine();
    Holdfast__Response *response = arena_alloc(&arena, sizeof *response);
    holdfast__response__init(response);
    if (request->min_index > engine_index(engine)) {
        response->status = HOLDFAST__STATUS__STATUS_TIMEOUT;
    } else {
        CHECK(views_answer(engine, request, response, &arena));
    }
    /* What a real one has passed through. */
    size_t size = holdfast__response__get_packed_size(response);
    uint8_t *packed = arena_alloc(&arena, size + 1);
    CHECK(holdfast__response__pack(response, packed) == size);
    response = holdfast__response__unpack(&arena.allocator, size, packed);
    CHECK(response != NULL);
    req->cb = cb;
    pending[pending_count++] = (struct pending){.call = req, .response = response};
    return CLIENT_OK;
}

void client_get_info(const struct client *c, struct client_info *info)
{
    (void)c;
    *info = (struct client_info){.leader_id = 1, .term = 1, .nodes_count = 1};
    info->nodes[0] = (struct client_node_info){.id = 1, .connected = true, .ready = true};
}

/* Answers everything that was asked before now. */
static bool answer_pending(void)
{
    size_t count = pending_count;
    struct pending now[PENDING_MAX];
    memcpy(now, pending, count * sizeof now[0]);
    pending_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (now[i].submit != NULL) {
            now[i].submit->cb(now[i].submit, CLIENT_OK, &now[i].reply);
        } else {
            now[i].call->cb(now[i].call, CLIENT_OK, now[i].response);
        }
    }
    return count > 0;
}

/* ---- start ---- */

static void add_key(const char *name, enum role role, const char *key)
{
    struct api_key *k = &gateway.keys.keys[gateway.keys.count++];
    str_copy(k->name, sizeof k->name, str_from(name));
    k->role = role;
    crypto_hash_sha256(k->digest, (const uint8_t *)key, strlen(key));
}

static int by_digest(const void *a, const void *b)
{
    return memcmp(((const struct api_key *)a)->digest, ((const struct api_key *)b)->digest, 32);
}

static void base64(char *out, size_t size, const void *data, size_t data_size)
{
    sodium_bin2base64(out, size, data, data_size, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

static void make_user_token(void)
{
    static const char head[] = "{\"alg\":\"HS256\"}", claims[] = "{\"sub\":\"u1\",\"exp\":253402300799}";
    char a[64], b[128], c[64], part[256];
    uint8_t mac[32];
    crypto_auth_hmacsha256_state s;
    base64(a, sizeof a, head, sizeof head - 1);
    base64(b, sizeof b, claims, sizeof claims - 1);
    int n = snprintf(part, sizeof part, "%s.%s", a, b);
    CHECK(n > 0 && (size_t)n < sizeof part);
    crypto_auth_hmacsha256_init(&s, gateway.tokens.secret, gateway.tokens.secret_size);
    crypto_auth_hmacsha256_update(&s, (const uint8_t *)part, (unsigned long long)n);
    crypto_auth_hmacsha256_final(&s, mac);
    base64(c, sizeof c, mac, sizeof mac);
    snprintf(user_token, sizeof user_token, "%s.%s", part, c);
}

void http_world_begin(void)
{
    struct gateway *g = &gateway;
    g->loop = &loop;
    g->limits = (struct gateway_limits){.connections_max = 4,
                                        .requests_max = 32,
                                        .pipeline_max = 8,
                                        .head_timeout_ms = 10000,
                                        .body_timeout_ms = 10000,
                                        .idle_timeout_ms = 75000,
                                        .write_timeout_ms = 10000,
                                        .wait_ms = 5000,
                                        .wait_max_ms = 60000};
    add_key("ops", ROLE_ADMIN, HTTP_WORLD_KEY_ADMIN);
    add_key("shop", ROLE_BACKEND, HTTP_WORLD_KEY_BACKEND);
    add_key("eye", ROLE_VIEWER, HTTP_WORLD_KEY_VIEWER);
    qsort(g->keys.keys, g->keys.count, sizeof g->keys.keys[0], by_digest);
    memset(g->tokens.secret, 's', USER_SECRET_SIZE_MIN);
    g->tokens.secret_size = USER_SECRET_SIZE_MIN;
    g->payment_secrets.count = 1;
    g->payment_secrets.secrets[0].size = 32;
    memset(g->payment_secrets.secrets[0].bytes, 'p', 32);
    make_user_token();
    g->date_size = (size_t)snprintf(g->date, sizeof g->date, "Date: Tue, 14 Nov 2023 22:13:20 GMT\r\n");
    snprintf(g->request_id_prefix, sizeof g->request_id_prefix, "0123456789abcdef");
    g->auth_cache = auth_cache_create();
    g->order_requests = order_requests_create();
    routes_init();
    metrics_init(g);
    arena_init(&arena);
    for (int i = 0; i < 2; i++) {
        g->listeners[i].gateway = g;
        g->listeners[i].kind = (enum listener_kind)i;
    }
    memory_uv_reset();
    need_engine();
    engine_destroy(engine);
    engine = NULL;
}

void http_world_sign(const char *id, const char *timestamp, const char *body, char out[64])
{
    uint8_t mac[32];
    crypto_auth_hmacsha256_state s;
    crypto_auth_hmacsha256_init(&s, gateway.payment_secrets.secrets[0].bytes, 32);
    const char *const parts[] = {id, ".", timestamp, ".", body};
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        crypto_auth_hmacsha256_update(&s, (const uint8_t *)parts[i], strlen(parts[i]));
    }
    crypto_auth_hmacsha256_final(&s, mac);
    memcpy(out, "v1,", 3);
    sodium_bin2base64(out + 3, 61, mac, sizeof mac, sodium_base64_VARIANT_ORIGINAL);
}

const char *http_world_order(void)
{
    return order_text;
}

const char *http_world_user_token(void)
{
    return user_token;
}

/* ---- one connection ---- */

/* Whatever can be done now. */
static void settle(struct gateway *g)
{
    unsigned turns = 0;
    for (bool any = true; any;) {
        any = answer_pending();
        connections_flush(g);
        any = memory_uv_turn() || any;
        connections_flush(g);
        any = pending_count > 0 || any;
        CHECK(++turns < TURNS_MAX);
    }
}

void http_world_run(const struct http_world_input *in, const void *data, size_t size, struct text *answer)
{
    struct gateway *g = &gateway;
    struct listener *l = &g->listeners[in->admin ? LISTENER_ADMIN : LISTENER_PUBLIC];
    g->request_id_next = 0;
    g->index_seen = 0;
    http_world_commands = http_world_reads = 0;
    uv_timer_init(g->loop, &g->sleep_timer);
    g->sleep_timer.data = g;
    memory_uv_tap(answer);
    memory_uv_limit_writes(in->write_size);
    memory_uv_offer();
    CHECK(connection_accept(l) == 0);
    uv_tcp_t *tcp = memory_uv_tcp(0);
    CHECK(tcp != NULL);
    for (size_t at = 0; at < size && memory_uv_tcp(0) == tcp;) {
        size_t piece = in->piece != NULL ? in->piece(in->ctx, size - at) : size;
        piece = piece < size - at ? piece : size - at;
        memory_uv_give(tcp, (const char *)data + at, piece);
        at += piece;
        settle(g);
    }
    if (in->end && memory_uv_tcp(0) == tcp) {
        memory_uv_give(tcp, NULL, 0);
    }
    settle(g);
    /* Time goes on until everything has its answer or its limit. */
    for (unsigned i = 0; g->connections_count > 0 || g->requests_count > 0; i++) {
        CHECK(i < 4000);
        memory_uv_now_ms += GATEWAY_TICK_MS;
        connections_tick(g);
        settle(g);
    }
    CHECK(pending_count == 0);
    CHECK(g->sleepers == NULL && g->dirty == NULL && g->connections == NULL);
    uv_close((uv_handle_t *)&g->sleep_timer, NULL);
    settle(g);
    memory_uv_reset();
    arena_reset(&arena);
    if (engine != NULL) {
        char text[256];
        CHECK(engine_check(engine, text, sizeof text) == 0);
        engine_destroy(engine);
        engine = NULL;
        order_requests_destroy(g->order_requests);
        g->order_requests = order_requests_create();
    }
}

/* ---- answers ---- */

static struct str field_of(struct str head, const char *name)
{
    size_t size = strlen(name);
    for (uint32_t i = 0; i + size + 2 < head.len; i++) {
        if (head.ptr[i] == '\n' && memcmp(head.ptr + i + 1, name, size) == 0) {
            const char *start = head.ptr + i + 1 + size, *cr = memchr(start, '\r', head.len - i - 1 - size);
            CHECK(cr != NULL);
            return (struct str){start, (uint32_t)(cr - start)};
        }
    }
    return (struct str){NULL, 0};
}

static void check_head(struct str head)
{
    CHECK(head.len > 15 && memcmp(head.ptr, "HTTP/1.1 ", 9) == 0 && head.ptr[12] == ' ');
    for (uint32_t i = 0; i < head.len; i++) {
        unsigned char c = (unsigned char)head.ptr[i];
        if (c == '\r') {
            CHECK(i + 1 < head.len && head.ptr[i + 1] == '\n');
        } else if (c == '\n') {
            CHECK(i > 0 && head.ptr[i - 1] == '\r');
        } else {
            CHECK((c >= 0x20 && c != 0x7F) || c == '\t');
        }
    }
}

static void check_body(const struct http_answer *a)
{
    if (!a->json) {
        return;
    }
    json_t *root = json_loadb(a->body.ptr, a->body.len, JSON_REJECT_DUPLICATES, NULL);
    CHECK(root != NULL && json_is_object(root));
    if (a->problem) {
        CHECK((unsigned)json_integer_value(json_object_get(root, "status")) == a->status);
        CHECK(json_is_string(json_object_get(root, "code")));
        CHECK(json_is_string(json_object_get(root, "type")));
        CHECK(json_is_string(json_object_get(root, "title")));
    }
    json_decref(root);
}

bool http_answer_next(struct str *text, struct http_answer *out)
{
    if (text->len == 0) {
        return false;
    }
    const char *end = memmem(text->ptr, text->len, "\r\n\r\n", 4);
    CHECK(end != NULL);
    *out = (struct http_answer){.head = {text->ptr, (uint32_t)(end + 4 - text->ptr)}};
    check_head(out->head);
    out->status = (unsigned)strtoul(out->head.ptr + 9, NULL, 10);
    struct str rest = {end + 4, text->len - out->head.len};
    struct str length = field_of(out->head, "Content-Length: "), type = field_of(out->head, "Content-Type: ");
    unsigned long size = length.ptr != NULL ? strtoul(length.ptr, NULL, 10) : 0;
    CHECK(length.ptr != NULL || out->status == 100 || out->status == 204 || out->status == 304);
    /* No body of ours begins so: what does is the answer behind one to HEAD. */
    bool absent = rest.len == 0 || (rest.len >= 9 && memcmp(rest.ptr, "HTTP/1.1 ", 9) == 0);
    if (!absent) {
        CHECK(size <= rest.len);
        out->body = (struct str){rest.ptr, (uint32_t)size};
        out->problem = type.len == 24 && memcmp(type.ptr, "application/problem+json", 24) == 0;
        out->json = out->problem || (type.len >= 16 && memcmp(type.ptr, "application/json", 16) == 0);
        out->json = out->json && size > 0;
        check_body(out);
    }
    CHECK(out->status < 400 || absent || out->problem || type.ptr == NULL || out->status == 503);
    uint32_t used = out->head.len + out->body.len;
    *text = (struct str){text->ptr + used, text->len - used};
    return true;
}
