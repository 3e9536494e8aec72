/* The client for programs without a loop: each call runs a loop of its own until its answer is
 * there. */
#include <stdlib.h>

#include "base/check.h"
#include "proto/client.h"

struct client_sync {
    uv_loop_t loop;
    struct client *client;
    bool closed;
};

struct sync_submit {
    struct client_submit req;
    bool done;
    enum client_outcome outcome;
    struct reply *reply;
};

struct sync_call {
    struct client_call req;
    bool done;
    enum client_outcome outcome;
    Holdfast__Response **response;
};

int client_sync_open(const struct client_config *config, struct client_sync **out)
{
    struct client_sync *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    CHECK(uv_loop_init(&s->loop) == 0);
    struct client_config own = *config;
    own.loop = &s->loop;
    if (client_create(&own, &s->client) < 0) {
        CHECK(uv_loop_close(&s->loop) == 0);
        free(s);
        return -1;
    }
    *out = s;
    return 0;
}

static void closed_cb(void *ctx)
{
    ((struct client_sync *)ctx)->closed = true;
}

void client_sync_close(struct client_sync *s)
{
    client_destroy(s->client, closed_cb, s);
    while (!s->closed) {
        uv_run(&s->loop, UV_RUN_ONCE);
    }
    uv_run(&s->loop, UV_RUN_DEFAULT); /* what a link still has to close */
    CHECK(uv_loop_close(&s->loop) == 0);
    free(s);
}

struct client *client_sync_client(struct client_sync *s)
{
    return s->client;
}

uv_loop_t *client_sync_loop(struct client_sync *s)
{
    return &s->loop;
}

static void submit_cb(struct client_submit *req, enum client_outcome outcome,
                      const struct reply *reply)
{
    struct sync_submit *s = container_of(req, struct sync_submit, req);
    s->done = true;
    s->outcome = outcome;
    if (reply != NULL) {
        *s->reply = *reply;
    }
}

enum client_outcome client_sync_submit(struct client_sync *s, const struct command *command,
                                       uint64_t timeout_ms, struct reply *reply)
{
    uint8_t encoded[COMMAND_SIZE_MAX];
    struct sync_submit submit = {.reply = reply};
    size_t size = command_encode(command, encoded, sizeof encoded);
    uv_update_time(&s->loop);
    enum client_outcome outcome = client_submit(s->client, &submit.req, encoded, size,
                                                uv_now(&s->loop) + timeout_ms, submit_cb);
    if (outcome != CLIENT_OK) {
        return outcome;
    }
    while (!submit.done) {
        uv_run(&s->loop, UV_RUN_ONCE);
    }
    return submit.outcome;
}

static void call_cb(struct client_call *req, enum client_outcome outcome,
                    const Holdfast__Response *response)
{
    struct sync_call *s = container_of(req, struct sync_call, req);
    s->done = true;
    s->outcome = outcome;
    if (response != NULL) { /* lives in the client's arena: a copy of our own */
        size_t size = holdfast__response__get_packed_size(response);
        uint8_t *packed = malloc(size + 1);
        CHECK(packed != NULL);
        holdfast__response__pack(response, packed);
        *s->response = holdfast__response__unpack(NULL, size, packed);
        CHECK(*s->response != NULL);
        free(packed);
    }
}

enum client_outcome client_sync_call(struct client_sync *s, const Holdfast__Request *request,
                                     uint64_t target, uint64_t timeout_ms,
                                     Holdfast__Response **response)
{
    struct sync_call call = {.response = response};
    *response = NULL;
    uv_update_time(&s->loop);
    enum client_outcome outcome =
        client_call(s->client, &call.req, request, target, uv_now(&s->loop) + timeout_ms, call_cb);
    if (outcome != CLIENT_OK) {
        return outcome;
    }
    while (!call.done) {
        uv_run(&s->loop, UV_RUN_ONCE);
    }
    return call.outcome;
}
