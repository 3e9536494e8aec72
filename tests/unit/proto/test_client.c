/* The client against scripted nodes on the same loop: following the leader, joining, every retry.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "proto/address.h"
#include "proto/client.h"
#include "proto/submit_frame.h"

#define NODES    3
#define LINKS    8
#define APPLIED  4096
#define PATIENCE 20000 /* ms: longer than any machine needs, shorter than the test's time limit */

enum mode { MODE_FOLLOWER, MODE_LEADER, MODE_SILENT, MODE_BUSY, MODE_UNKNOWN, MODE_MALFORMED };

struct node {
    struct link_server *server;
    uint64_t id;
    uint16_t port;
    enum mode mode;
    uint64_t term, leader_id;
    bool dies_after_apply; /* applies, then closes the link instead of answering */
    uint32_t frames, commands;
    struct link *links[LINKS];
};

static uv_loop_t loop;
static struct node nodes[NODES];
static uint32_t
    applied_keys[APPLIED]; /* how often each command took effect: first byte pair is its number */
static uint8_t key[LINK_KEY_SIZE] = {1, 2, 3};

static void node_answer_status(struct node *n, struct link *l, uint64_t id)
{
    Holdfast__NodeStatusResult body = HOLDFAST__NODE_STATUS_RESULT__INIT;
    Holdfast__Response r = HOLDFAST__RESPONSE__INIT;
    uint8_t packed[256];
    body.id = n->id;
    body.role = n->mode == MODE_FOLLOWER ? 0 : 2;
    body.term = n->term;
    body.leader_id = n->leader_id;
    r.id = id;
    r.body_case = HOLDFAST__RESPONSE__BODY_NODE_STATUS;
    r.node_status = &body;
    link_send(l, packed, holdfast__response__pack(&r, packed), NULL, 0);
}

static void node_answer_error(struct link *l, uint64_t id, Holdfast__Status status, uint64_t leader)
{
    Holdfast__Response r = HOLDFAST__RESPONSE__INIT;
    uint8_t packed[256];
    r.id = id;
    r.status = status;
    r.leader_id = leader;
    r.retry_after_ms = 7;
    link_send(l, packed, holdfast__response__pack(&r, packed), NULL, 0);
}

static void node_submit(struct node *n, struct link *l, struct submit_request *r)
{
    static struct submit_outcome outcomes[CLIENT_FRAME_COMMANDS_MAX];
    static uint8_t
        out[SUBMIT_RESPONSE_HEAD_MAX + CLIENT_FRAME_COMMANDS_MAX * SUBMIT_RESPONSE_OUTCOME_MAX];
    const void *command;
    size_t size;
    uint32_t i = 0;
    n->frames++;
    n->commands += r->count;
    switch (n->mode) {
    case MODE_FOLLOWER:
        node_answer_error(l, r->id, HOLDFAST__STATUS__STATUS_NOT_LEADER, n->leader_id);
        return;
    case MODE_BUSY:
        node_answer_error(l, r->id, HOLDFAST__STATUS__STATUS_BUSY, 0);
        return;
    case MODE_MALFORMED:
        node_answer_error(l, r->id, HOLDFAST__STATUS__STATUS_MALFORMED, 0);
        return;
    case MODE_SILENT:
        return;
    case MODE_UNKNOWN:
    case MODE_LEADER:
        break;
    }
    while (submit_request_next(r, &command, &size)) {
        struct command c;
        CHECK(command_decode(&c, command, size) == 0);
        uint32_t number = (uint32_t)c.stock_adjust.delta;
        CHECK(number < APPLIED);
        applied_keys[number]++;
        struct reply reply = {.index = number};
        outcomes[i].status = n->mode == MODE_UNKNOWN ? HOLDFAST__STATUS__STATUS_OUTCOME_UNKNOWN : 0;
        reply_encode(&reply, outcomes[i].reply);
        i++;
    }
    if (n->mode == MODE_UNKNOWN) {
        n->mode = MODE_LEADER; /* once */
    }
    if (n->dies_after_apply) {
        n->dies_after_apply = false;
        link_close(l);
        return;
    }
    link_send(l, out, submit_response_write(out, r->id, 1, 2, 0, outcomes, i), NULL, 0);
}

static void node_frame_cb(struct link *l, void *ctx, const void *data, size_t size)
{
    struct node *n = ctx;
    struct submit_request r;
    CHECK(submit_request_open(&r, data, size) == 0);
    if (r.is_submit) {
        node_submit(n, l, &r);
        return;
    }
    Holdfast__Request *m = holdfast__request__unpack(NULL, size, data);
    CHECK(m != NULL);
    if (n->mode == MODE_SILENT) {
        /* frozen */
    } else if (m->body_case == HOLDFAST__REQUEST__BODY_NODE_STATUS) {
        node_answer_status(n, l, m->id);
    } else if (m->consistency == HOLDFAST__CONSISTENCY__CONSISTENCY_STRONG &&
               n->mode == MODE_FOLLOWER) {
        node_answer_error(l, m->id, HOLDFAST__STATUS__STATUS_NOT_LEADER, n->leader_id);
    } else {
        Holdfast__Response answer = HOLDFAST__RESPONSE__INIT;
        uint8_t packed[64];
        answer.id = m->id;
        answer.index = n->id;
        answer.status = HOLDFAST__STATUS__STATUS_NOT_FOUND;
        link_send(l, packed, holdfast__response__pack(&answer, packed), NULL, 0);
    }
    holdfast__request__free_unpacked(m, NULL);
}

static void node_open_cb(struct link *l, void *ctx)
{
    struct node *n = ctx;
    for (size_t i = 0; i < LINKS; i++) {
        if (n->links[i] == NULL) {
            n->links[i] = l;
            return;
        }
    }
    CHECK_UNREACHABLE();
}

static void node_closed_cb(struct link *l, void *ctx, const char *reason)
{
    (void)reason;
    struct node *n = ctx;
    for (size_t i = 0; i < LINKS; i++) {
        if (n->links[i] == l) {
            n->links[i] = NULL;
        }
    }
}

static void *node_accept_cb(void *ctx, struct link *l)
{
    (void)l;
    return ctx;
}

static void node_start(struct node *n, uint16_t port)
{
    static const struct link_callbacks callbacks = {node_open_cb, node_frame_cb, node_closed_cb};
    struct link_identity identity = {.service = LINK_SERVICE_NODE, .id = n->id, .cluster_id = {9}};
    memcpy(identity.key, key, sizeof key);
    struct link_options options = {.frame_size_max = 8 << 20, .output_size_max = 8 << 20};
    CHECK(link_listen(&loop, "127.0.0.1", port, 16, &identity, &options, &callbacks, node_accept_cb,
                      n, &n->server) == 0);
    n->port = link_server_port(n->server);
}

static void set_done(void *ctx)
{
    *(bool *)ctx = true;
}

static void run_until(const bool *done)
{
    uint64_t end = uv_hrtime() / 1000000 + PATIENCE;
    while (!*done) {
        uv_run(&loop, UV_RUN_ONCE);
        CHECK(uv_hrtime() / 1000000 < end);
    }
}

static void node_stop(struct node *n)
{
    bool done = false;
    link_server_close(n->server, set_done, &done);
    n->server = NULL;
    run_until(&done);
}

/* Node 0 leads in term 1. */
static struct client *start(uint32_t queue_max, uint32_t window)
{
    char text[NODES][32];
    const char *endpoints[NODES];
    CHECK(uv_loop_init(&loop) == 0);
    memset(applied_keys, 0, sizeof applied_keys);
    for (uint64_t i = 0; i < NODES; i++) {
        nodes[i] = (struct node){
            .id = i + 1, .term = 1, .leader_id = 1, .mode = i == 0 ? MODE_LEADER : MODE_FOLLOWER};
        node_start(&nodes[i], 0);
        snprintf(text[i], sizeof text[i], "127.0.0.1:%u", nodes[i].port);
        endpoints[i] = text[i];
    }
    struct client_config config = {.loop = &loop,
                                   .endpoints = endpoints,
                                   .endpoints_count = NODES,
                                   .queue_commands_max = queue_max,
                                   .window_frames = window};
    memcpy(config.key, key, sizeof key);
    struct client *c;
    CHECK(client_create(&config, &c) == 0);
    return c;
}

static void stop(struct client *c)
{
    bool done = false;
    if (c != NULL) {
        client_destroy(c, set_done, &done);
        run_until(&done);
    }
    for (size_t i = 0; i < NODES; i++) {
        if (nodes[i].server != NULL) {
            node_stop(&nodes[i]);
        }
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&loop) == 0);
}

struct request {
    struct client_submit submit;
    uint8_t bytes[256];
    size_t size;
    bool done;
    enum client_outcome outcome;
    uint64_t index;
};

static uint32_t answered;

static void submit_cb(struct client_submit *req, enum client_outcome outcome,
                      const struct reply *reply)
{
    struct request *r = container_of(req, struct request, submit);
    CHECK(!r->done);
    r->done = true;
    r->outcome = outcome;
    r->index = reply != NULL ? reply->index : 0;
    answered++;
}

static void encode(struct request *r, uint32_t number, bool keyed)
{
    char name[16];
    snprintf(name, sizeof name, "n%u", number);
    struct command c = {.kind = COMMAND_STOCK_ADJUST,
                        .scope = STR_LITERAL("k:test"),
                        .key = keyed ? str_from(name) : STR_LITERAL("")};
    c.stock_adjust.sku = STR_LITERAL("A");
    c.stock_adjust.delta = number;
    *r = (struct request){0};
    r->size = command_encode(&c, r->bytes, sizeof r->bytes);
    CHECK(r->size > 0);
}

static enum client_outcome submit(struct client *c, struct request *r, uint64_t timeout_ms)
{
    uv_update_time(&loop);
    return client_submit(c, &r->submit, r->bytes, r->size, uv_now(&loop) + timeout_ms, submit_cb);
}

static enum client_outcome submit_wait(struct client *c, struct request *r, uint32_t number,
                                       bool keyed, uint64_t timeout_ms)
{
    encode(r, number, keyed);
    assert_int_equal(submit(c, r, timeout_ms), CLIENT_OK);
    run_until(&r->done);
    return r->outcome;
}

static void test_joined(void **state)
{
    (void)state;
    struct client *c = start(0, 1);
    struct request one;
    assert_int_equal(submit_wait(c, &one, 1, true, PATIENCE), CLIENT_OK);
    uint32_t frames = nodes[0].frames;
    enum { COUNT = 500 };
    static struct request many[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        encode(&many[i], 10 + i, true);
        assert_int_equal(submit(c, &many[i], PATIENCE), CLIENT_OK);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        run_until(&many[i].done);
        assert_int_equal(many[i].outcome, CLIENT_OK);
        assert_int_equal(many[i].index, 10 + i); /* its own answer */
        assert_int_equal(applied_keys[10 + i], 1);
    }
    assert_int_equal(nodes[0].frames, frames + 1); /* all in one */
    stop(c);
}

static void test_follows_hint_and_poll(void **state)
{
    (void)state;
    struct client *c = start(0, 0);
    struct request r;
    assert_int_equal(submit_wait(c, &r, 1, true, PATIENCE), CLIENT_OK);
    nodes[0].mode = MODE_FOLLOWER; /* a transfer: everybody lives on */
    nodes[2].mode = MODE_LEADER;
    for (size_t i = 0; i < NODES; i++) {
        nodes[i].leader_id = 3;
        nodes[i].term = 2;
    }
    assert_int_equal(submit_wait(c, &r, 2, true, PATIENCE), CLIENT_OK);
    assert_int_equal(applied_keys[2], 1);
    struct client_info info;
    client_get_info(c, &info);
    assert_int_equal(info.leader_id, 3);
    stop(c);
}

static void test_leader_dies(void **state)
{
    (void)state;
    struct client *c = start(0, 0);
    struct request keyed, bare;
    assert_int_equal(submit_wait(c, &keyed, 1, true, PATIENCE), CLIENT_OK);
    encode(&keyed, 2, true);
    encode(&bare, 3, false);
    nodes[0].dies_after_apply = true;
    assert_int_equal(submit(c, &keyed, PATIENCE), CLIENT_OK);
    assert_int_equal(submit(c, &bare, PATIENCE), CLIENT_OK);
    run_until(&bare.done);
    assert_int_equal(bare.outcome, CLIENT_UNKNOWN); /* applied, and never sent again */
    run_until(&keyed.done);
    assert_int_equal(keyed.outcome, CLIENT_OK);
    assert_int_equal(applied_keys[2], 2); /* sent again: its key makes that safe */
    assert_int_equal(applied_keys[3], 1);
    node_stop(&nodes[0]);
    nodes[1].mode = MODE_LEADER;
    nodes[1].term = nodes[2].term = 2;
    nodes[1].leader_id = nodes[2].leader_id = 2;
    assert_int_equal(submit_wait(c, &keyed, 4, true, PATIENCE), CLIENT_OK);
    assert_int_equal(submit_wait(c, &bare, 5, false, PATIENCE), CLIENT_OK);
    stop(c);
}

static void test_frozen_leader(void **state)
{
    (void)state;
    struct client *c = start(0, 0);
    struct request r;
    assert_int_equal(submit_wait(c, &r, 1, true, PATIENCE), CLIENT_OK);
    nodes[0].mode = MODE_SILENT;
    encode(&r, 2, true);
    assert_int_equal(submit(c, &r, PATIENCE), CLIENT_OK);
    uv_run(&loop, UV_RUN_ONCE);
    nodes[1].mode = MODE_LEADER;
    nodes[1].term = nodes[2].term = 2;
    nodes[1].leader_id = nodes[2].leader_id = 2;
    run_until(&r.done);
    assert_int_equal(r.outcome, CLIENT_OK);
    assert_int_equal(applied_keys[2], 1);
    /* The old one wakes up and still believes: the higher term counts. */
    nodes[0].mode = MODE_LEADER;
    assert_int_equal(submit_wait(c, &r, 3, true, PATIENCE), CLIENT_OK);
    struct client_info info;
    client_get_info(c, &info);
    assert_int_equal(info.leader_id, 2);
    stop(c);
}

static void test_outcomes_at_deadline(void **state)
{
    (void)state;
    struct client *c = start(0, 0);
    struct request r;
    assert_int_equal(submit_wait(c, &r, 1, true, PATIENCE), CLIENT_OK);
    nodes[0].mode = MODE_BUSY;
    assert_int_equal(submit_wait(c, &r, 2, true, 100), CLIENT_QUEUE_FULL);
    assert_true(r.submit.retry_after_ms > 0);
    assert_int_equal(applied_keys[2], 0);
    nodes[0].mode = MODE_SILENT;
    assert_int_equal(submit_wait(c, &r, 3, true, 100), CLIENT_UNKNOWN);
    nodes[0].mode = MODE_MALFORMED;
    assert_int_equal(submit_wait(c, &r, 4, true, PATIENCE), CLIENT_MALFORMED);
    nodes[0].mode = MODE_FOLLOWER; /* nobody leads */
    for (size_t i = 0; i < NODES; i++) {
        nodes[i].leader_id = 0;
    }
    assert_int_equal(submit_wait(c, &r, 5, true, 200), CLIENT_NO_LEADER);
    assert_int_equal(applied_keys[5], 0);
    nodes[0].mode = MODE_UNKNOWN;
    nodes[0].term = 2;
    assert_int_equal(submit_wait(c, &r, 6, false, PATIENCE), CLIENT_UNKNOWN);
    assert_int_equal(applied_keys[6], 1);
    nodes[0].mode = MODE_UNKNOWN;
    assert_int_equal(submit_wait(c, &r, 7, true, PATIENCE), CLIENT_OK);
    assert_int_equal(applied_keys[7], 2);
    stop(c);
}

static void test_queue_bounded(void **state)
{
    (void)state;
    struct client *c = start(10, 1);
    static struct request r[11];
    for (uint32_t i = 0; i < 10; i++) {
        encode(&r[i], i + 1, true);
        assert_int_equal(submit(c, &r[i], PATIENCE), CLIENT_OK);
    }
    encode(&r[10], 11, true);
    assert_int_equal(submit(c, &r[10], PATIENCE), CLIENT_QUEUE_FULL);
    assert_true(r[10].submit.retry_after_ms > 0);
    for (uint32_t i = 0; i < 10; i++) {
        run_until(&r[i].done);
    }
    assert_false(r[10].done);
    assert_int_equal(submit_wait(c, &r[10], 11, true, PATIENCE), CLIENT_OK);
    stop(c);
}

static void test_destroy_answers_everything(void **state)
{
    (void)state;
    struct client *c = start(0, 1);
    static struct request r[3];
    assert_int_equal(submit_wait(c, &r[0], 1, true, PATIENCE), CLIENT_OK);
    nodes[0].mode = MODE_SILENT;
    encode(&r[0], 2, true);
    submit(c, &r[0], PATIENCE);
    uint32_t frames = nodes[0].frames;
    while (nodes[0].frames == frames) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    encode(&r[1], 3, true); /* the window is full: never sent */
    submit(c, &r[1], PATIENCE);
    bool done = false;
    client_destroy(c, set_done, &done);
    assert_int_equal(r[0].outcome, CLIENT_UNKNOWN);
    assert_true(r[1].done);
    assert_int_equal(r[1].outcome, CLIENT_CLOSED);
    run_until(&done);
    stop(NULL);
}

struct call {
    struct client_call call;
    bool done;
    enum client_outcome outcome;
    Holdfast__Status status;
    uint64_t node;
};

static void call_cb(struct client_call *req, enum client_outcome outcome,
                    const Holdfast__Response *response)
{
    struct call *k = container_of(req, struct call, call);
    CHECK(!k->done);
    k->done = true;
    k->outcome = outcome;
    k->status = response != NULL ? response->status : 0;
    k->node = response != NULL ? response->index : 0;
}

static void call(struct client *c, struct call *k, uint64_t target, bool strong,
                 uint64_t timeout_ms)
{
    char id[] = "A";
    Holdfast__GetSku body = HOLDFAST__GET_SKU__INIT;
    Holdfast__Request m = HOLDFAST__REQUEST__INIT;
    body.id = id;
    m.body_case = HOLDFAST__REQUEST__BODY_GET_SKU;
    m.get_sku = &body;
    m.consistency = strong ? HOLDFAST__CONSISTENCY__CONSISTENCY_STRONG
                           : HOLDFAST__CONSISTENCY__CONSISTENCY_LOCAL;
    *k = (struct call){0};
    uv_update_time(&loop);
    assert_int_equal(client_call(c, &k->call, &m, target, uv_now(&loop) + timeout_ms, call_cb),
                     CLIENT_OK);
}

static void test_calls(void **state)
{
    (void)state;
    struct client *c = start(0, 0);
    struct call k;
    for (uint64_t target = 0; target <= NODES; target++) {
        call(c, &k, target, target == CLIENT_TARGET_LEADER, PATIENCE);
        run_until(&k.done);
        assert_int_equal(k.outcome, CLIENT_OK);
        assert_int_equal(k.status, HOLDFAST__STATUS__STATUS_NOT_FOUND);
        assert_int_equal(k.node, target == CLIENT_TARGET_LEADER ? 1 : target);
    }
    bool seen[NODES + 1] = {false};
    for (int i = 0; i < 2 * NODES; i++) { /* any: in turn */
        call(c, &k, CLIENT_TARGET_ANY, false, PATIENCE);
        run_until(&k.done);
        seen[k.node] = true;
    }
    assert_true(seen[1] && seen[2] && seen[3]);
    /* The leader moves while a strong read waits for it. */
    nodes[0].mode = MODE_FOLLOWER;
    nodes[0].leader_id = 2;
    nodes[1].mode = MODE_LEADER;
    nodes[1].term = 2;
    call(c, &k, CLIENT_TARGET_LEADER, true, PATIENCE);
    run_until(&k.done);
    assert_int_equal(k.node, 2);
    /* A link lost on the way: asked again. */
    nodes[2].mode = MODE_SILENT;
    call(c, &k, 3, false, PATIENCE);
    for (int i = 0; i < 5; i++) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    nodes[2].mode = MODE_FOLLOWER;
    for (size_t i = 0; i < LINKS; i++) {
        if (nodes[2].links[i] != NULL) {
            link_close(nodes[2].links[i]);
        }
    }
    run_until(&k.done);
    assert_int_equal(k.outcome, CLIENT_OK);
    assert_int_equal(k.node, 3);
    call(c, &k, 99, false, 50); /* no such node */
    run_until(&k.done);
    assert_int_equal(k.outcome, CLIENT_NO_LEADER);
    nodes[2].mode = MODE_SILENT;
    call(c, &k, 3, false, 100);
    run_until(&k.done);
    assert_int_equal(k.outcome, CLIENT_UNKNOWN);
    call(c, &k, 3, false, 100);
    client_call_cancel(c, &k.call);
    assert_false(k.done);
    stop(c);
}

static void test_bad_endpoint(void **state)
{
    (void)state;
    const char *bad[] = {"nowhere", "host:1", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "[::1:7"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct client_config config = {.endpoints = &bad[i], .endpoints_count = 1};
        struct client_sync *s;
        assert_int_equal(client_sync_open(&config, &s), -1);
    }
    char host[ADDRESS_HOST_SIZE];
    uint16_t port;
    assert_int_equal(address_parse("[::1]:70", host, &port), 0);
    assert_string_equal(host, "::1");
    assert_int_equal(port, 70);
    assert_int_equal(address_parse("localhost:0", host, &port), 0);
    assert_string_equal(host, "127.0.0.1");
}

static void test_sync_without_cluster(void **state)
{
    (void)state;
    const char *endpoint = "127.0.0.1:1";
    struct client_config config = {.endpoints = &endpoint, .endpoints_count = 1};
    struct client_sync *s;
    assert_int_equal(client_sync_open(&config, &s), 0);
    struct command c = {
        .kind = COMMAND_STOCK_ADJUST, .scope = STR_LITERAL("k:a"), .key = STR_LITERAL("1")};
    struct reply reply;
    assert_int_equal(client_sync_submit(s, &c, 100, &reply),
                     CLIENT_MALFORMED); /* no SKU, delta 0 */
    c.stock_adjust.sku = STR_LITERAL("A");
    c.stock_adjust.delta = 5;
    assert_int_equal(client_sync_submit(s, &c, 100, &reply), CLIENT_NO_LEADER);
    Holdfast__Request m = HOLDFAST__REQUEST__INIT;
    Holdfast__Response *response;
    assert_int_equal(client_sync_call(s, &m, CLIENT_TARGET_ANY, 50, &response), CLIENT_NO_LEADER);
    client_sync_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_joined),
        cmocka_unit_test(test_follows_hint_and_poll),
        cmocka_unit_test(test_leader_dies),
        cmocka_unit_test(test_frozen_leader),
        cmocka_unit_test(test_outcomes_at_deadline),
        cmocka_unit_test(test_queue_bounded),
        cmocka_unit_test(test_destroy_answers_everything),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_bad_endpoint),
        cmocka_unit_test(test_sync_without_cluster),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
