/* Transports of several nodes on one loop, over real sockets; a raw socket plays the peer that is
 * late, broken or a stranger. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "proto/link_handshake.h"
#include "raft/transport.h"

#define DEADLINE_MS 60000u
#define NODES       4

struct node {
    struct fixture *fixture;
    struct transport *transport;
    uint64_t id;
    char address[64];
    uint64_t messages;
    uint64_t from_last, seq_last;
    bool out_of_order;
    unsigned connected, disconnected; /* calls */
    bool state[NODES + 1];            /* by peer id: as told */
    bool broken_alternation;
    unsigned strangers;
    char stranger_address[64];
    bool accept_strangers;
    struct format_range formats;
    size_t records_size;
    bool closed;
};

struct fixture {
    uv_loop_t loop;
    uv_timer_t tick;
    struct node nodes[NODES + 1]; /* by id */
    struct link_identity identity;
};

static void on_message(void *ctx, uint64_t from_id, const struct message *m)
{
    struct node *n = ctx;
    n->messages++;
    n->from_last = from_id;
    n->records_size = m->records_size;
    if (m->kind == MESSAGE_READ) {
        n->out_of_order |= m->seq <= n->seq_last;
        n->seq_last = m->seq;
    }
}

static void on_connected(void *ctx, uint64_t id)
{
    struct node *n = ctx;
    n->broken_alternation |= n->state[id];
    n->state[id] = true;
    n->connected++;
}

static void on_disconnected(void *ctx, uint64_t id)
{
    struct node *n = ctx;
    n->broken_alternation |= !n->state[id];
    n->state[id] = false;
    n->disconnected++;
}

static void on_stranger(void *ctx, uint64_t id, const char *address)
{
    struct node *n = ctx;
    n->strangers++;
    snprintf(n->stranger_address, sizeof n->stranger_address, "%s", address);
    if (n->accept_strangers) {
        assert_int_equal(transport_set_peer(n->transport, id, address), 0);
    }
}

static void on_closed(void *ctx)
{
    ((struct node *)ctx)->closed = true;
}

static void tick_cb(uv_timer_t *timer)
{
    (void)timer;
}

#define RUN_UNTIL(f, condition)                                                                    \
    do {                                                                                           \
        uint64_t began = clock_monotonic_ms();                                                     \
        while (!(condition)) {                                                                     \
            uv_run(&(f)->loop, UV_RUN_ONCE);                                                       \
            if (clock_monotonic_ms() - began > DEADLINE_MS) {                                      \
                fail_msg("never happened: %s", #condition);                                        \
            }                                                                                      \
        }                                                                                          \
    } while (0)

/* Lets the loop work for a while, to see that something does not happen. */
static void run_for(struct fixture *f, uint64_t ms)
{
    uint64_t began = clock_monotonic_ms();
    while (clock_monotonic_ms() - began < ms) {
        uv_run(&f->loop, UV_RUN_ONCE);
    }
}

static void node_start_on(struct fixture *f, uint64_t id, uint16_t port)
{
    struct node *n = &f->nodes[id];
    n->fixture = f;
    n->id = id;
    struct transport_config config = {
        .loop = &f->loop, .listen_host = "127.0.0.1", .listen_port = port, .identity = f->identity,
        .formats = n->formats};
    config.identity.id = id;
    const struct transport_callbacks callbacks = {on_message, on_connected, on_disconnected,
                                                  on_stranger};
    assert_int_equal(transport_create(&config, &callbacks, n, &n->transport), 0);
    snprintf(n->address, sizeof n->address, "127.0.0.1:%u", transport_port(n->transport));
}

static void node_start(struct fixture *f, uint64_t id)
{
    node_start_on(f, id, 0);
}

static void node_stop(struct fixture *f, uint64_t id)
{
    struct node *n = &f->nodes[id];
    n->closed = false;
    transport_destroy(n->transport, on_closed, n);
    RUN_UNTIL(f, n->closed);
    n->transport = NULL;
    memset(n->state, 0, sizeof n->state); /* no callbacks once it is being destroyed */
}

static uint16_t node_port(const struct node *n)
{
    return (uint16_t)atoi(strrchr(n->address, ':') + 1);
}

static void join(struct fixture *f, uint64_t a, uint64_t b)
{
    assert_int_equal(transport_set_peer(f->nodes[a].transport, b, f->nodes[b].address), 0);
    assert_int_equal(transport_set_peer(f->nodes[b].transport, a, f->nodes[a].address), 0);
    RUN_UNTIL(f, f->nodes[a].state[b] && f->nodes[b].state[a]);
}

static bool send_read(struct fixture *f, uint64_t from, uint64_t to, uint64_t seq)
{
    struct message_out m = {.kind = MESSAGE_READ, .term = 1, .seq = seq};
    return transport_send(f->nodes[from].transport, to, &m);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    uv_loop_init(&f->loop);
    uv_timer_init(&f->loop, &f->tick);
    uv_timer_start(&f->tick, tick_cb, 5, 5);
    memset(f->identity.key, 0x5A, sizeof f->identity.key);
    memset(f->identity.cluster_id, 0xC1, sizeof f->identity.cluster_id);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (uint64_t id = 1; id <= NODES; id++) {
        if (f->nodes[id].transport != NULL) {
            node_stop(f, id);
        }
        assert_false(f->nodes[id].out_of_order);
        assert_false(f->nodes[id].broken_alternation);
    }
    uv_close((uv_handle_t *)&f->tick, NULL);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    free(f);
    return 0;
}

/* ---- a raw peer: node 2 towards node 1 ---- */

struct raw {
    int fd;
    uint8_t proof[LINK_MAC_SIZE];
};

/* Bytes that are there now; SIZE_MAX when the other side has closed. */
static size_t receive_some(int fd, void *data, size_t size)
{
    ssize_t n = recv(fd, data, size, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        return SIZE_MAX;
    }
    return n > 0 ? (size_t)n : 0;
}

/* Goes as far as knowing the proof, but keeps it. */
static struct raw raw_begin(struct fixture *f, uint64_t as_id, const struct node *to)
{
    struct raw r = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(node_port(to)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(r.fd, (struct sockaddr *)&address, sizeof address), 0);
    struct link_identity identity = f->identity;
    identity.id = as_id;
    identity.service = LINK_SERVICE_RAFT;
    struct link_handshake h;
    uint8_t nonce[LINK_NONCE_SIZE] = {1}, reply[LINK_SERVER_REPLY_SIZE];
    link_handshake_begin(&h, &identity, nonce);
    assert_int_equal(send(r.fd, h.client_hello, LINK_HELLO_SIZE, MSG_NOSIGNAL), LINK_HELLO_SIZE);
    size_t got = 0;
    RUN_UNTIL(f, (got += receive_some(r.fd, reply + got, sizeof reply - got)) == sizeof reply);
    assert_int_equal(link_handshake_prove(&h, &identity, reply, r.proof), LINK_HANDSHAKE_OK);
    return r;
}

static void raw_prove(struct raw *r)
{
    assert_int_equal(send(r->fd, r->proof, LINK_MAC_SIZE, MSG_NOSIGNAL), LINK_MAC_SIZE);
}

static void raw_payload(struct raw *r, const void *data, uint32_t size)
{
    uint8_t frame[512] = {0};
    store_u32(frame, size);
    store_u32(frame + 4, crc32c(0, data, size));
    memcpy(frame + 8, data, size);
    size_t span = 8 + ((size + 7u) & ~7u);
    assert_int_equal(send(r->fd, frame, span, MSG_NOSIGNAL), span);
}

static void raw_message(struct raw *r, const struct message_out *m)
{
    _Alignas(8) uint8_t payload[400];
    CHECK(message_size(m) <= sizeof payload);
    message_encode(m, payload);
    raw_payload(r, payload, (uint32_t)message_size(m));
}

static void raw_expect_close(struct fixture *f, struct raw *r)
{
    uint8_t bytes[256];
    RUN_UNTIL(f, receive_some(r->fd, bytes, sizeof bytes) == SIZE_MAX);
    close(r->fd);
}

/* ---- tests ---- */

static void test_messages_both_ways(void **state)
{
    struct fixture *f = *state;
    node_start(f, 1);
    node_start(f, 2);
    node_start(f, 3);
    join(f, 1, 2);
    join(f, 1, 3);
    assert_true(transport_is_connected(f->nodes[1].transport, 2));
    assert_false(transport_is_connected(f->nodes[2].transport, 3));
    assert_false(send_read(f, 2, 3, 1)); /* no peer of its */
    for (uint64_t seq = 1; seq <= 5000; seq++) {
        assert_true(send_read(f, 1, 2, seq));
        assert_true(send_read(f, 2, 1, seq));
    }
    RUN_UNTIL(f, f->nodes[1].messages == 5000 && f->nodes[2].messages == 5000);
    assert_int_equal(f->nodes[1].from_last, 2);
    assert_int_equal(f->nodes[2].from_last, 1);
    assert_int_equal(f->nodes[3].messages, 0);
    struct transport_stats stats;
    transport_get_stats(f->nodes[1].transport, &stats);
    assert_int_equal(stats.messages_sent, 5000);
    assert_int_equal(stats.messages_received, 5000);
    assert_int_equal(stats.messages_dropped, 0);
}

static void test_entries_from_the_log(void **state)
{
    struct fixture *f = *state;
    node_start(f, 1);
    node_start(f, 2);
    join(f, 1, 2);
    enum { COUNT = 100, SIZE = 65536 };
    const struct record_header *records[COUNT];
    uint8_t *data = calloc(1, SIZE);
    size_t size = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        void *record = malloc(record_span(SIZE));
        size += record_encode(record, RECORD_COMMAND, i + 1, 1, data, SIZE - i);
        records[i] = record;
    }
    struct raft_message raft = {.type = RAFT_APPEND_ENTRIES};
    raft.append_entries = (struct raft_append_entries){.term = 1, .n_entries = COUNT};
    struct message_out m = {.raft = &raft, .records = records};
    assert_true(transport_send(f->nodes[1].transport, 2, &m));
    RUN_UNTIL(f, f->nodes[2].messages == 1);
    assert_int_equal(f->nodes[2].records_size, size);
    for (uint32_t i = 0; i < COUNT; i++) {
        free((void *)(uintptr_t)records[i]);
    }
    free(data);
}

static void test_queue_full_drops_whole_messages(void **state)
{
    struct fixture *f = *state;
    node_start(f, 1);
    node_start(f, 2);
    join(f, 1, 2);
    uint64_t seq = 0, dropped = 0;
    while (dropped < 10) { /* without running the loop nothing is read */
        if (send_read(f, 1, 2, seq + 1)) {
            seq++;
        } else {
            dropped++;
        }
    }
    RUN_UNTIL(f, f->nodes[2].messages == seq);
    assert_int_equal(f->nodes[2].seq_last, seq);
    struct transport_stats stats;
    transport_get_stats(f->nodes[1].transport, &stats);
    assert_int_equal(stats.messages_dropped, 10);
    assert_true(send_read(f, 1, 2, seq + 1));
    RUN_UNTIL(f, f->nodes[2].seq_last == seq + 1);
    assert_int_equal(f->nodes[1].disconnected, 0);
}

static void test_peer_dies_and_returns(void **state)
{
    struct fixture *f = *state;
    node_start(f, 1);
    node_start(f, 2);
    join(f, 1, 2);
    uint64_t seq = 0;
    for (unsigned round = 1; round <= 5; round++) {
        uint16_t port = node_port(&f->nodes[2]);
        node_stop(f, 2);
        RUN_UNTIL(f, f->nodes[1].disconnected == round);
        assert_false(transport_is_connected(f->nodes[1].transport, 2));
        send_read(f, 1, 2, ++seq); /* lost, not kept for later */
        node_start_on(f, 2, port);
        assert_int_equal(transport_set_peer(f->nodes[2].transport, 1, f->nodes[1].address), 0);
        RUN_UNTIL(f, f->nodes[1].connected == round + 1 && f->nodes[2].state[1]);
        assert_true(send_read(f, 1, 2, ++seq));
        RUN_UNTIL(f, f->nodes[2].seq_last == seq);
        assert_int_equal(f->nodes[2].messages, round);
    }
}

/* Node 2's first connection is late with its proof; meanwhile its second one is up and used. What
 * the first still brings must not be delivered: its place in the order is long past. */
static void test_older_connection_that_opens_later(void **state)
{
    struct fixture *f = *state;
    node_start(f, 1);
    node_start(f, 2);
    struct raw late = raw_begin(f, 2, &f->nodes[1]);
    join(f, 1, 2);
    assert_true(send_read(f, 2, 1, 10));
    RUN_UNTIL(f, f->nodes[1].seq_last == 10);
    raw_prove(&late);
    raw_message(&late, &(struct message_out){.kind = MESSAGE_READ, .term = 1, .seq = 5});
    raw_expect_close(f, &late);
    assert_int_equal(f->nodes[1].messages, 1);
    assert_true(send_read(f, 2, 1, 11)); /* and the newer one goes on */
    RUN_UNTIL(f, f->nodes[1].seq_last == 11);
    assert_int_equal(f->nodes[1].disconnected, 0);
}

/* A newer connection replaces an older one that is still open, with frames of both under way. */
static void test_newer_connection_replaces(void **state)
{
    struct fixture *f = *state;
    node_start(f, 1);
    node_start(f, 2);
    /* Node 2 does not connect by itself: 1 is no peer of it. Raw sockets speak for it. */
    assert_int_equal(transport_set_peer(f->nodes[1].transport, 2, f->nodes[2].address), 0);
    struct raw first = raw_begin(f, 2, &f->nodes[1]);
    struct raw second = raw_begin(f, 2, &f->nodes[1]);
    raw_prove(&first);
    raw_message(&first, &(struct message_out){.kind = MESSAGE_READ, .term = 1, .seq = 1});
    RUN_UNTIL(f, f->nodes[1].messages == 1);
    raw_prove(&second);
    raw_message(&second, &(struct message_out){.kind = MESSAGE_READ, .term = 1, .seq = 100});
    RUN_UNTIL(f, f->nodes[1].messages == 2);
    /* Before the loop runs again, the first one speaks: too late. */
    uint8_t byte;
    ssize_t n = recv(first.fd, &byte, 1, MSG_DONTWAIT);
    if (n < 0) {
        struct message_out m = {.kind = MESSAGE_READ, .term = 1, .seq = 2};
        raw_message(&first, &m);
    }
    raw_expect_close(f, &first);
    assert_int_equal(f->nodes[1].messages, 2);
    assert_int_equal(f->nodes[1].seq_last, 100);
    raw_message(&second, &(struct message_out){.kind = MESSAGE_READ, .term = 1, .seq = 101});
    RUN_UNTIL(f, f->nodes[1].seq_last == 101);
    close(second.fd);
}

static void test_malformed_messages(void **state)
{
    struct fixture *f = *state;
    node_start(f, 1);
    node_start(f, 2);
    assert_int_equal(transport_set_peer(f->nodes[1].transport, 2, f->nodes[2].address), 0);
    const uint8_t bad[][80] = {{0}, {99}, {1, 0, 0, 0, 255, 255, 255, 255, 1}, {16, 1}};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct raw r = raw_begin(f, 2, &f->nodes[1]);
        raw_prove(&r);
        raw_payload(&r, bad[i], 80);
        raw_expect_close(f, &r);
    }
    struct raw r = raw_begin(f, 2, &f->nodes[1]);
    raw_prove(&r);
    raw_payload(&r, bad[0], 0);
    raw_expect_close(f, &r);
    assert_int_equal(f->nodes[1].messages, 0);
}

static void test_strangers(void **state)
{
    struct fixture *f = *state;
    node_start(f, 1);
    node_start(f, 2);
    /* 2 wants to talk to 1, which does not know it: refused, with its address told. */
    assert_int_equal(transport_set_peer(f->nodes[2].transport, 1, f->nodes[1].address), 0);
    RUN_UNTIL(f, f->nodes[1].strangers >= 2);
    assert_string_equal(f->nodes[1].stranger_address, f->nodes[2].address);
    assert_int_equal(f->nodes[1].messages, 0);
    assert_int_equal(f->nodes[1].connected + f->nodes[2].connected, 0);
    /* Accepted: both directions come up, and messages flow. */
    f->nodes[1].accept_strangers = true;
    RUN_UNTIL(f, f->nodes[1].state[2] && f->nodes[2].state[1]);
    assert_true(send_read(f, 1, 2, 1));
    assert_true(send_read(f, 2, 1, 1));
    RUN_UNTIL(f, f->nodes[1].messages == 1 && f->nodes[2].messages == 1);
    /* One that does not begin with its hello. */
    struct raw r = raw_begin(f, 3, &f->nodes[1]);
    raw_prove(&r);
    raw_message(&r, &(struct message_out){.kind = MESSAGE_READ, .term = 1, .seq = 50});
    raw_expect_close(f, &r);
    assert_int_equal(f->nodes[1].messages, 1);
}

static void test_wrong_key_and_wrong_id(void **state)
{
    struct fixture *f = *state;
    node_start(f, 1);
    f->identity.key[0] ^= 1;
    node_start(f, 2);
    f->identity.key[0] ^= 1;
    node_start(f, 3);
    assert_int_equal(transport_set_peer(f->nodes[1].transport, 2, f->nodes[2].address), 0);
    assert_int_equal(transport_set_peer(f->nodes[2].transport, 1, f->nodes[1].address), 0);
    /* 4 is said to be where 3 is. */
    assert_int_equal(transport_set_peer(f->nodes[1].transport, 4, f->nodes[3].address), 0);
    assert_int_equal(transport_set_peer(f->nodes[3].transport, 1, f->nodes[1].address), 0);
    run_for(f, 400);
    assert_int_equal(f->nodes[1].connected + f->nodes[2].connected, 0);
    assert_false(send_read(f, 1, 2, 1));
    assert_false(send_read(f, 1, 4, 1));
    assert_int_equal(f->nodes[2].messages + f->nodes[3].messages, 0);
}

static void test_remove_and_change_address(void **state)
{
    struct fixture *f = *state;
    node_start(f, 1);
    node_start(f, 2);
    join(f, 1, 2);
    transport_remove_peer(f->nodes[1].transport, 2);
    transport_remove_peer(f->nodes[1].transport, 2);
    assert_int_equal(f->nodes[1].disconnected, 0); /* never from within */
    assert_false(send_read(f, 1, 2, 1));
    assert_int_equal(transport_set_peer(f->nodes[1].transport, 2, f->nodes[2].address), 0);
    RUN_UNTIL(f, f->nodes[1].disconnected == 1 && f->nodes[1].connected == 2);
    RUN_UNTIL(f, f->nodes[2].state[1]);
    /* 2 moves to another port. */
    assert_int_equal(transport_set_peer(f->nodes[1].transport, 2, f->nodes[2].address), 0);
    node_stop(f, 2);
    node_start(f, 2);
    assert_int_equal(transport_set_peer(f->nodes[2].transport, 1, f->nodes[1].address), 0);
    assert_int_equal(transport_set_peer(f->nodes[1].transport, 2, f->nodes[2].address), 0);
    RUN_UNTIL(f,
              f->nodes[1].disconnected == 2 && f->nodes[1].connected == 3 && f->nodes[2].state[1]);
    assert_true(send_read(f, 1, 2, 1));
    RUN_UNTIL(f, f->nodes[2].messages == 1);
}

static void test_addresses(void **state)
{
    struct fixture *f = *state;
    node_start(f, 1);
    const char *bad[] = {"",
                         "127.0.0.1",
                         "127.0.0.1:",
                         "127.0.0.1:0",
                         ":7000",
                         "127.0.0.1:65536",
                         "127.0.0.1:70x",
                         "example.org:7000",
                         "127.0.0.1:-1",
                         "[::1:7000",
                         "127.0.0.1: 7000",
                         "127.0.0.1:+700",
                         "1111111111111111111111111111111111111111111111111111111111111111:1"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_int_equal(transport_set_peer(f->nodes[1].transport, 2, bad[i]), -1);
    }
    assert_int_equal(transport_set_peer(f->nodes[1].transport, 0, "127.0.0.1:1"), -1);
    assert_int_equal(transport_set_peer(f->nodes[1].transport, 1, "127.0.0.1:1"), -1);
    assert_int_equal(transport_set_peer(f->nodes[1].transport, 2, "[::1]:1"), 0);
    for (uint64_t id = 3; id < 2 + TRANSPORT_PEERS_MAX; id++) {
        assert_int_equal(transport_set_peer(f->nodes[1].transport, id, "127.0.0.1:1"), 0);
    }
    assert_int_equal(transport_set_peer(f->nodes[1].transport, 100, "127.0.0.1:1"), -1);
}

/* Pings keep an idle connection alive well beyond the idle limit. */
static void test_idle_connections_live(void **state)
{
    struct fixture *f = *state;
    node_start(f, 1);
    node_start(f, 2);
    join(f, 1, 2);
    run_for(f, TRANSPORT_IDLE_TIMEOUT_MS + 1500);
    assert_int_equal(f->nodes[1].disconnected + f->nodes[2].disconnected, 0);
    assert_int_equal(f->nodes[1].messages + f->nodes[2].messages, 0);
}

/* A peer that holds its sockets open and says nothing any more: cut off network, stopped process.
 */
static void test_silent_peer_is_noticed(void **state)
{
    struct fixture *f = *state;
    node_start(f, 1);
    node_start(f, 2);
    assert_int_equal(transport_set_peer(f->nodes[1].transport, 2, f->nodes[2].address), 0);
    struct raw r = raw_begin(f, 2, &f->nodes[1]);
    raw_prove(&r);
    RUN_UNTIL(f, f->nodes[1].connected == 1);
    RUN_UNTIL(f, f->nodes[1].disconnected == 1);
    raw_expect_close(f, &r);
}

/* Wants to be connected, is not, and nothing gets through; until the older one is upgraded. */
static void test_formats_that_do_not_meet(void **state)
{
    struct fixture *f = *state;
    struct format_range seen;
    f->nodes[1].formats = (struct format_range){3, 4}; /* its state is of format 3 */
    f->nodes[2].formats = (struct format_range){1, 2};
    node_start(f, 1);
    node_start(f, 2);
    assert_int_equal(transport_set_peer(f->nodes[1].transport, 2, f->nodes[2].address), 0);
    assert_int_equal(transport_set_peer(f->nodes[2].transport, 1, f->nodes[1].address), 0);
    RUN_UNTIL(f, transport_peer_formats(f->nodes[1].transport, 2, &seen) && seen.newest == 2 &&
                     transport_peer_formats(f->nodes[2].transport, 1, &seen) && seen.oldest == 3);
    run_for(f, 300); /* they go on trying */
    assert_false(transport_is_connected(f->nodes[1].transport, 2));
    assert_false(transport_is_connected(f->nodes[2].transport, 1));
    assert_false(send_read(f, 1, 2, 1));
    assert_false(send_read(f, 2, 1, 1));
    assert_int_equal(f->nodes[1].messages + f->nodes[2].messages, 0);

    uint16_t port = node_port(&f->nodes[2]);
    node_stop(f, 2);
    f->nodes[2].formats = (struct format_range){1, 3};
    node_start_on(f, 2, port);
    assert_int_equal(transport_set_peer(f->nodes[2].transport, 1, f->nodes[1].address), 0);
    RUN_UNTIL(f, transport_is_connected(f->nodes[1].transport, 2) &&
                     transport_is_connected(f->nodes[2].transport, 1));
    RUN_UNTIL(f, send_read(f, 1, 2, 1));
    RUN_UNTIL(f, f->nodes[2].messages > 0);
}

/* Whoever does not say is from before it was said, and knows the first format only. */
static void test_a_stranger_of_another_format(void **state)
{
    struct fixture *f = *state;
    f->nodes[1].formats = (struct format_range){2, 2};
    f->nodes[1].accept_strangers = true;
    node_start(f, 1);
    struct raw r = raw_begin(f, 2, &f->nodes[1]);
    raw_prove(&r);
    struct message_out hello = {.kind = MESSAGE_HELLO, .data = "127.0.0.1:9", .data_size = 11};
    raw_message(&r, &hello);
    raw_expect_close(f, &r);
    assert_int_equal(f->nodes[1].strangers, 0);
    r = raw_begin(f, 2, &f->nodes[1]);
    raw_prove(&r);
    hello.seq = 1;
    hello.index = 2;
    raw_message(&r, &hello);
    RUN_UNTIL(f, f->nodes[1].strangers == 1);
    close(r.fd);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_messages_both_ways),
        TEST(test_entries_from_the_log),
        TEST(test_queue_full_drops_whole_messages),
        TEST(test_peer_dies_and_returns),
        TEST(test_older_connection_that_opens_later),
        TEST(test_newer_connection_replaces),
        TEST(test_malformed_messages),
        TEST(test_strangers),
        TEST(test_wrong_key_and_wrong_id),
        TEST(test_remove_and_change_address),
        TEST(test_addresses),
        TEST(test_idle_connections_live),
        TEST(test_silent_peer_is_noticed),
        TEST(test_formats_that_do_not_meet),
        TEST(test_a_stranger_of_another_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
