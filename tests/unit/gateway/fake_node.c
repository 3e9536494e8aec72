/* fake_node: a cluster of one that keeps nothing: the real state machine behind the real node protocol,
 * without Raft, log or disk. For trying the gateway by hand and for tests that need no cluster:
 *
 *     fake_node KEY_FILE [PORT]      prints "port N" and serves until it is killed
 *
 * Every Submit frame becomes one batch at the next log index. */
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "proto/arena.h"
#include "proto/link.h"
#include "proto/submit_frame.h"
#include "server/views.h"

static struct {
    struct engine *engine;
    struct arena arena;
    uint64_t index;
    uint8_t batch[BATCH_SIZE_MAX];
    struct submit_outcome outcomes[BATCH_COMMANDS_MAX];
    uint8_t out[SUBMIT_RESPONSE_HEAD_MAX + BATCH_COMMANDS_MAX * SUBMIT_RESPONSE_OUTCOME_MAX];
    unsigned filled, base;
    uint16_t port;
    uv_timer_t timer;
} node;

static void keep_reply(void *ctx, uint32_t position, const struct reply *reply)
{
    (void)ctx;
    struct submit_outcome *o = &node.outcomes[node.base + position];
    o->status = HOLDFAST__STATUS__STATUS_OK;
    reply_encode(reply, o->reply);
}

static void apply(struct batch_builder *b)
{
    size_t size = batch_end(b, clock_wall_ms());
    engine_apply(node.engine, ++node.index, node.batch, size, keep_reply, NULL);
    node.base = node.filled;
}

static void submit(struct link *l, struct submit_request *r)
{
    const void *command;
    size_t size;
    struct batch_builder b;
    node.filled = node.base = 0;
    batch_begin(&b, node.batch, sizeof node.batch);
    while (node.filled < BATCH_COMMANDS_MAX && submit_request_next(r, &command, &size)) {
        if (!batch_add(&b, command, size)) {
            apply(&b);
            batch_begin(&b, node.batch, sizeof node.batch);
            CHECK(batch_add(&b, command, size));
        }
        node.filled++;
    }
    apply(&b);
    size_t n = submit_response_write(node.out, r->id, node.index, engine_time_ms(node.engine), 0,
                                     node.outcomes, node.filled);
    link_send(l, node.out, n, NULL, 0);
}

static void answer(struct link *l, const Holdfast__Request *request)
{
    Holdfast__Response response = HOLDFAST__RESPONSE__INIT;
    Holdfast__NodeStatusResult status = HOLDFAST__NODE_STATUS_RESULT__INIT;
    Holdfast__Member member = HOLDFAST__MEMBER__INIT, *members[1] = {&member};
    char address[32];
    response.id = request->id;
    response.leader_id = 1;
    if (request->body_case == HOLDFAST__REQUEST__BODY_NODE_STATUS) {
        snprintf(address, sizeof address, "127.0.0.1:%u", node.port);
        response.body_case = HOLDFAST__RESPONSE__BODY_NODE_STATUS;
        response.node_status = &status;
        response.index = node.index;
        member.id = 1;
        member.node_address = address;
        member.role = 2;
        status.id = status.leader_id = status.term = 1;
        status.role = 2;
        status.ready = true;
        status.n_members = 1;
        status.members = members;
    } else if (request->consistency != HOLDFAST__CONSISTENCY__CONSISTENCY_LOCAL &&
               request->min_index > node.index) {
        response.status = HOLDFAST__STATUS__STATUS_TIMEOUT;
    } else if (!views_answer(node.engine, request, &response, &node.arena)) {
        response.status = HOLDFAST__STATUS__STATUS_UNSUPPORTED;
    }
    size_t size = holdfast__response__get_packed_size(&response);
    uint8_t *packed = arena_alloc(&node.arena, size);
    holdfast__response__pack(&response, packed);
    link_send(l, packed, size, NULL, 0);
}

static void frame_cb(struct link *l, void *ctx, const void *data, size_t size)
{
    struct submit_request r;
    (void)ctx;
    CHECK(submit_request_open(&r, data, size) == 0);
    if (r.is_submit) {
        submit(l, &r);
        return;
    }
    Holdfast__Request *request = holdfast__request__unpack(&node.arena.allocator, size, data);
    CHECK(request != NULL);
    answer(l, request);
    arena_reset(&node.arena);
}

static void open_cb(struct link *l, void *ctx)
{
    (void)l;
    (void)ctx;
}

static void closed_cb(struct link *l, void *ctx, const char *reason)
{
    (void)l;
    (void)ctx;
    (void)reason;
}

static void *accept_cb(void *ctx, struct link *l)
{
    (void)l;
    return ctx;
}

/* What is due ends also when nobody asks for anything. */
static void timer_cb(uv_timer_t *timer)
{
    (void)timer;
    struct batch_builder b;
    if (engine_next_due_ms(node.engine) <= clock_wall_ms()) {
        node.filled = node.base = 0;
        batch_begin(&b, node.batch, sizeof node.batch);
        apply(&b);
    }
}

static void init_engine(void)
{
    uint8_t bytes[COMMAND_SIZE_MAX];
    struct batch_builder b;
    struct command c = {
        .kind = COMMAND_INIT, .scope = STR_LITERAL("sys"), .key = STR_LITERAL("init")};
    c.init.shards = 64;
    c.init.limits = (struct command_limits){.skus_max = 1000,
                                            .sales_max = 1000,
                                            .users_max = 1 << 20,
                                            .eligibilities_max = 1 << 20,
                                            .orders_max = 1 << 22,
                                            .idempotency_max = 1 << 20,
                                            .leases_max = 1000,
                                            .events_max = 1 << 24,
                                            .expiries_per_batch_max = 1000,
                                            .idempotency_retention_ms = 86400000};
    size_t size = command_encode(&c, bytes, sizeof bytes);
    CHECK(size > 0);
    node.engine = engine_create();
    batch_begin(&b, node.batch, sizeof node.batch);
    CHECK(batch_add(&b, bytes, size));
    apply(&b);
}

int main(int argc, char **argv)
{
    static const struct link_callbacks callbacks = {open_cb, frame_cb, closed_cb};
    struct link_identity identity = {.service = LINK_SERVICE_NODE, .id = 1, .cluster_id = {7}};
    struct link_options options = {.frame_size_max = 8 << 20, .output_size_max = 64 << 20};
    struct link_server *server;
    uv_loop_t *loop = uv_default_loop();
    if (argc < 2 || link_read_key(argv[1], identity.key) != 0 || sodium_init() < 0) {
        fprintf(stderr, "usage: fake_node KEY_FILE [PORT]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    arena_init(&node.arena);
    init_engine();
    if (link_listen(loop, "127.0.0.1", argc > 2 ? (uint16_t)atoi(argv[2]) : 0, 64, &identity,
                    &options, &callbacks, accept_cb, NULL, &server) != 0) {
        fprintf(stderr, "fake_node: cannot listen\n");
        return 1;
    }
    node.port = link_server_port(server);
    printf("port %u\n", node.port);
    fflush(stdout);
    uv_timer_init(loop, &node.timer);
    uv_timer_start(&node.timer, timer_cb, 10, 10);
    return uv_run(loop, UV_RUN_DEFAULT);
}
