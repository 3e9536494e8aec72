/* Links over real loopback sockets: both ends on one loop, or one end played by hand on a plain
 * socket to send what a correct peer never would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "proto/link.h"
#include "proto/link_handshake.h"

#define DEADLINE_MS 60000u /* of a whole test: a guard against hanging, not a measurement */

/* One end of a link, with everything it was told. */
struct end {
    struct link *link; /* NULL once closed */
    unsigned opened, closed;
    char reason[160];
    uint64_t frames;
    uint64_t bytes;
    uint64_t sequence_next; /* frames of the ordering tests begin with their number */
    bool close_on_open, close_on_frame, echo, check_sequence;
    size_t last_size;
    uint8_t last[256];
    bool misaligned, out_of_order, frame_after_close;
};

struct fixture {
    uv_loop_t loop;
    uv_timer_t tick; /* keeps the loop from waiting for ever */
    struct link_server *server;
    uint16_t port;
    bool server_done;
    struct end accepted[16];
    unsigned accepted_count;
    struct link_identity server_identity, client_identity;
    struct link_options options;
    struct end client;
};

static void end_open(struct link *l, void *ctx)
{
    struct end *e = ctx;
    e->opened++;
    if (e->close_on_open) {
        link_close(l);
    }
}

static void end_frame(struct link *l, void *ctx, const void *data, size_t size)
{
    struct end *e = ctx;
    e->frame_after_close |= e->closed > 0 || !link_is_open(l);
    e->misaligned |= (uintptr_t)data % 8 != 0;
    e->frames++;
    e->bytes += size;
    e->last_size = size;
    memcpy(e->last, data, size < sizeof e->last ? size : sizeof e->last);
    if (e->check_sequence) {
        e->out_of_order |= size < 8 || load_u64(data) != e->sequence_next;
        e->sequence_next++;
    }
    if (e->echo) {
        assert_int_equal(link_send(l, data, size, NULL, 0), 0);
    }
    if (e->close_on_frame) {
        link_close(l);
        link_close(l);
    }
}

static void end_closed(struct link *l, void *ctx, const char *reason)
{
    struct end *e = ctx;
    assert_ptr_equal(link_ctx(l), e);
    e->closed++;
    e->link = NULL;
    snprintf(e->reason, sizeof e->reason, "%s", reason);
}

static const struct link_callbacks callbacks = {end_open, end_frame, end_closed};

static void *on_accept(void *ctx, struct link *l)
{
    struct fixture *f = ctx;
    CHECK(f->accepted_count < ARRAY_COUNT(f->accepted));
    struct end *e = &f->accepted[f->accepted_count++];
    e->link = l;
    return e;
}

static void tick_cb(uv_timer_t *timer)
{
    (void)timer;
}

static void server_done_cb(void *ctx)
{
    ((struct fixture *)ctx)->server_done = true;
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

static void fixture_listen(struct fixture *f, unsigned connections_max)
{
    assert_int_equal(link_listen(&f->loop, "127.0.0.1", 0, connections_max, &f->server_identity,
                                 &f->options, &callbacks, on_accept, f, &f->server),
                     0);
    f->port = link_server_port(f->server);
    assert_int_not_equal(f->port, 0);
}

static void fixture_connect(struct fixture *f)
{
    f->client.link = link_connect(&f->loop, "127.0.0.1", f->port, &f->client_identity, &f->options,
                                  &callbacks, &f->client);
    assert_non_null(f->client.link);
    assert_int_equal(f->client.closed, 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    uv_loop_init(&f->loop);
    uv_timer_init(&f->loop, &f->tick);
    uv_timer_start(&f->tick, tick_cb, 5, 5);
    for (int i = 0; i < LINK_KEY_SIZE; i++) {
        f->server_identity.key[i] = (uint8_t)(i * 7 + 1);
    }
    memset(f->server_identity.cluster_id, 0xC1, LINK_CLUSTER_ID_SIZE);
    f->server_identity.service = LINK_SERVICE_RAFT;
    f->server_identity.id = 1;
    f->client_identity = f->server_identity;
    f->client_identity.id = 2;
    f->options = (struct link_options){
        .frame_size_max = 1u << 20, .output_size_max = 8u << 20, .idle_timeout_ms = 0};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->server != NULL) {
        link_server_close(f->server, server_done_cb, f);
        RUN_UNTIL(f, f->server_done);
    }
    if (f->client.link != NULL) {
        link_close(f->client.link);
        RUN_UNTIL(f, f->client.link == NULL);
    }
    for (unsigned i = 0; i < f->accepted_count; i++) {
        assert_int_equal(f->accepted[i].closed, 1);
        assert_false(f->accepted[i].frame_after_close);
        assert_false(f->accepted[i].misaligned);
    }
    assert_true(f->client.closed <= 1);
    assert_false(f->client.frame_after_close);
    uv_close((uv_handle_t *)&f->tick, NULL);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0); /* no handle left behind */
    free(f);
    return 0;
}

static void fixture_open_pair(struct fixture *f)
{
    fixture_listen(f, 8);
    fixture_connect(f);
    RUN_UNTIL(f, f->client.opened == 1 && f->accepted_count == 1 && f->accepted[0].opened == 1);
}

/* ---- a peer by hand ---- */

static int raw_connect(const struct fixture *f)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(f->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void raw_write(int fd, const void *data, size_t size)
{
    assert_int_equal(send(fd, data, size, MSG_NOSIGNAL), size);
}

/* Runs the loop until size bytes arrived on fd, or the peer closed: then false. */
static bool raw_read(struct fixture *f, int fd, void *data, size_t size)
{
    size_t got = 0;
    uint64_t began = clock_monotonic_ms();
    while (got < size) {
        ssize_t n = recv(fd, (uint8_t *)data + got, size - got, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            return false;
        }
        if (n > 0) {
            got += (size_t)n;
            continue;
        }
        uv_run(&f->loop, UV_RUN_ONCE);
        if (clock_monotonic_ms() - began > DEADLINE_MS) {
            fail_msg("nothing arrived");
        }
    }
    return true;
}

/* A correct client up to the open link. */
static int raw_handshake(struct fixture *f)
{
    int fd = raw_connect(f);
    struct link_handshake h;
    uint8_t nonce[LINK_NONCE_SIZE] = {9};
    uint8_t reply[LINK_SERVER_REPLY_SIZE], proof[LINK_MAC_SIZE];
    unsigned before = f->accepted_count;
    link_handshake_begin(&h, &f->client_identity, nonce);
    raw_write(fd, h.client_hello, LINK_HELLO_SIZE);
    assert_true(raw_read(f, fd, reply, sizeof reply));
    assert_int_equal(link_handshake_prove(&h, &f->client_identity, reply, proof),
                     LINK_HANDSHAKE_OK);
    raw_write(fd, proof, sizeof proof);
    RUN_UNTIL(f, f->accepted[before].opened == 1);
    return fd;
}

static size_t raw_frame(uint8_t *out, const void *data, uint32_t size, uint32_t crc)
{
    size_t padded = (size + 7u) & ~7u;
    memset(out, 0, 8 + padded);
    store_u32(out, size);
    store_u32(out + 4, crc);
    memcpy(out + 8, data, size);
    return 8 + padded;
}

/* ---- the good path ---- */

static void test_open_and_echo(void **state)
{
    struct fixture *f = *state;
    fixture_open_pair(f);
    assert_int_equal(link_peer_id(f->client.link), 1);
    assert_int_equal(link_peer_id(f->accepted[0].link), 2);
    assert_memory_equal(link_cluster_id(f->client.link), f->server_identity.cluster_id,
                        LINK_CLUSTER_ID_SIZE);
    f->accepted[0].echo = true;
    assert_int_equal(link_send(f->client.link, "hello ", 6, "world", 5), 0);
    RUN_UNTIL(f, f->client.frames == 1);
    assert_int_equal(f->client.last_size, 11);
    assert_memory_equal(f->client.last, "hello world", 11);
    assert_int_equal(link_send(f->client.link, NULL, 0, NULL, 0),
                     0); /* an empty frame is one too */
    RUN_UNTIL(f, f->client.frames == 2);
    assert_int_equal(f->client.last_size, 0);
    assert_int_equal(link_output_queued(f->client.link), 0);
}

static void test_reserve_and_commit(void **state)
{
    struct fixture *f = *state;
    fixture_open_pair(f);
    assert_non_null(link_reserve(f->client.link, 400)); /* never committed: forgotten */
    uint8_t *at = link_reserve(f->client.link, 5);
    assert_non_null(at);
    assert_int_equal((uintptr_t)at % 8, 0);
    memcpy(at, "12345", 5);
    link_commit(f->client.link);
    RUN_UNTIL(f, f->accepted[0].frames == 1);
    assert_int_equal(f->accepted[0].last_size, 5);
    assert_memory_equal(f->accepted[0].last, "12345", 5);
}

static void test_many_frames_in_order(void **state)
{
    struct fixture *f = *state;
    fixture_open_pair(f);
    struct end *to = &f->accepted[0];
    to->check_sequence = true;
    static uint8_t body[700000];
    uint64_t bytes = 0;
    const uint64_t count = 60000;
    for (uint64_t i = 0; i < count;) {
        size_t size = i % 9973 == 0 ? sizeof body : (i * 37) % 300;
        if (link_send(f->client.link, &i, 8, body, size) == 0) {
            bytes += 8 + size;
            i++;
        } else {
            uv_run(&f->loop, UV_RUN_ONCE); /* full: let it drain */
        }
    }
    RUN_UNTIL(f, to->frames == count);
    assert_int_equal(to->bytes, bytes);
    assert_false(to->out_of_order);
    assert_false(to->misaligned);
}

static void test_client_learns_the_cluster(void **state)
{
    struct fixture *f = *state;
    f->server_identity.service = f->client_identity.service = LINK_SERVICE_NODE;
    f->client_identity.id = 0;
    memset(f->client_identity.cluster_id, 0, LINK_CLUSTER_ID_SIZE);
    fixture_open_pair(f);
    assert_memory_equal(link_cluster_id(f->client.link), f->server_identity.cluster_id,
                        LINK_CLUSTER_ID_SIZE);
    assert_int_equal(link_peer_id(f->accepted[0].link), 0);
}

/* ---- strangers ---- */

/* The client is to fail, the server never to open. */
static void expect_refused(struct fixture *f)
{
    fixture_listen(f, 8);
    fixture_connect(f);
    RUN_UNTIL(f, f->client.closed == 1 && f->accepted_count == 1 && f->accepted[0].closed == 1);
    assert_int_equal(f->client.opened, 0);
    assert_int_equal(f->accepted[0].opened, 0);
}

static void test_wrong_key(void **state)
{
    struct fixture *f = *state;
    f->client_identity.key[31] ^= 1;
    expect_refused(f);
    assert_string_equal(f->client.reason, link_handshake_text(LINK_HANDSHAKE_KEY));
}

static void test_wrong_cluster(void **state)
{
    struct fixture *f = *state;
    f->client_identity.cluster_id[0] ^= 1;
    expect_refused(f);
}

static void test_wrong_service(void **state)
{
    struct fixture *f = *state;
    f->client_identity.service = LINK_SERVICE_NODE;
    expect_refused(f);
}

static void test_raft_peer_with_our_id(void **state)
{
    struct fixture *f = *state;
    f->client_identity.id = f->server_identity.id;
    expect_refused(f);
}

static void test_raft_needs_a_cluster(void **state)
{
    struct fixture *f = *state;
    memset(f->client_identity.cluster_id, 0, LINK_CLUSTER_ID_SIZE);
    expect_refused(f);
}

/* Several strangers at once, since each must be kept waiting for the whole deadline. */
static void test_strangers_get_silence_until_the_deadline(void **state)
{
    struct fixture *f = *state;
    fixture_listen(f, 8);
    struct link_handshake h;
    uint8_t nonce[LINK_NONCE_SIZE] = {1};

    int silent = raw_connect(f);
    int garbage = raw_connect(f);
    const char *request = "GET /v1/sales HTTP/1.1\r\nHost: example.org\r\n"
                          "User-Agent: a curious stranger\r\n\r\n";
    assert_true(strlen(request) >= LINK_HELLO_SIZE);
    raw_write(garbage, request, strlen(request));
    int version = raw_connect(f);
    link_handshake_begin(&h, &f->client_identity, nonce);
    store_u16(h.client_hello + 4, LINK_VERSION_MAX + 1);
    store_u16(h.client_hello + 6, LINK_VERSION_MAX + 3);
    raw_write(version, h.client_hello, LINK_HELLO_SIZE);
    int proof = raw_connect(f);
    link_handshake_begin(&h, &f->client_identity, nonce);
    raw_write(proof, h.client_hello, LINK_HELLO_SIZE);
    uint8_t reply[LINK_SERVER_REPLY_SIZE];
    assert_true(raw_read(f, proof, reply, sizeof reply));
    raw_write(proof, reply + LINK_HELLO_SIZE, LINK_MAC_SIZE); /* the server's own MAC, reflected */
    int loris = raw_connect(f);

    uint64_t began = clock_monotonic_ms(), last = began;
    size_t dripped = 0;
    while (f->accepted_count < 5 || f->accepted[0].closed + f->accepted[1].closed +
                                            f->accepted[2].closed + f->accepted[3].closed +
                                            f->accepted[4].closed <
                                        5) {
        uv_run(&f->loop, UV_RUN_ONCE);
        uint64_t now = clock_monotonic_ms();
        assert_true(now - began < DEADLINE_MS);
        if (now - last >= 100 && dripped < LINK_HELLO_SIZE) { /* far too slow, but never idle */
            (void)send(loris, h.client_hello + dripped++, 1, MSG_NOSIGNAL);
            last = now;
        }
    }
    assert_true(clock_monotonic_ms() - began >= LINK_HANDSHAKE_TIMEOUT_MS - 100);
    const int fds[] = {silent, garbage, version, proof, loris};
    char versions[128];
    snprintf(versions, sizeof versions,
             "peer speaks link versions %d to %d, this program %d to %d: upgrade the older one",
             LINK_VERSION_MAX + 1, LINK_VERSION_MAX + 3, LINK_VERSION_MIN, LINK_VERSION_MAX);
    /* A client of another version is told which there are here, and no more. */
    assert_true(raw_read(f, version, reply, sizeof reply));
    assert_int_equal(load_u16(reply + 4), LINK_VERSION_MIN);
    assert_int_equal(load_u16(reply + 6), LINK_VERSION_MAX);
    assert_int_equal(load_u32(reply + 12), 0); /* none chosen */
    const char *reasons[] = {"handshake timed out", link_handshake_text(LINK_HANDSHAKE_NOT_LINK),
                             versions,
                             link_handshake_text(LINK_HANDSHAKE_KEY), "handshake timed out"};
    for (unsigned i = 0; i < 5; i++) {
        uint8_t byte;
        assert_false(raw_read(f, fds[i], &byte, 1)); /* never a byte of an answer */
        assert_string_equal(f->accepted[i].reason, reasons[i]);
        assert_int_equal(f->accepted[i].opened, 0);
        close(fds[i]);
    }
}

static void test_client_names_the_versions_of_a_newer_server(void **state)
{
    struct fixture *f = *state;
    struct link_handshake client, server;
    char text[128];
    uint8_t nonce[LINK_NONCE_SIZE] = {3}, reply[LINK_SERVER_REPLY_SIZE], proof[LINK_MAC_SIZE];
    link_handshake_begin(&client, &f->client_identity, nonce);
    assert_int_equal(
        link_handshake_answer(&server, &f->server_identity, nonce, client.client_hello, reply),
        LINK_HANDSHAKE_OK);
    store_u16(reply + 4, LINK_VERSION_MAX + 1);
    store_u16(reply + 6, LINK_VERSION_MAX + 2);
    assert_int_equal(link_handshake_prove(&client, &f->client_identity, reply, proof),
                     LINK_HANDSHAKE_VERSION);
    link_handshake_describe(&client, LINK_HANDSHAKE_VERSION, text, sizeof text);
    assert_string_equal(text, "peer speaks link versions 2 to 3, this program 1 to 1: upgrade the older "
                              "one");
}

static void test_client_distrusts_a_server_without_the_key(void **state)
{
    struct fixture *f = *state;
    struct link_handshake client, server;
    uint8_t nonce[LINK_NONCE_SIZE] = {3}, reply[LINK_SERVER_REPLY_SIZE], proof[LINK_MAC_SIZE];
    link_handshake_begin(&client, &f->client_identity, nonce);
    assert_int_equal(
        link_handshake_answer(&server, &f->server_identity, nonce, client.client_hello, reply),
        LINK_HANDSHAKE_OK);
    /* Every single bit of the reply matters. */
    for (size_t bit = 0; bit < sizeof reply * 8; bit++) {
        reply[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_int_not_equal(link_handshake_prove(&client, &f->client_identity, reply, proof),
                             LINK_HANDSHAKE_OK);
        reply[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    assert_int_equal(link_handshake_prove(&client, &f->client_identity, reply, proof),
                     LINK_HANDSHAKE_OK);
    for (size_t bit = 0; bit < sizeof proof * 8; bit++) {
        proof[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_int_equal(link_handshake_verify(&server, &f->server_identity, proof),
                         LINK_HANDSHAKE_KEY);
        proof[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    assert_int_equal(link_handshake_verify(&server, &f->server_identity, proof), LINK_HANDSHAKE_OK);
    /* A proof recorded earlier is worth nothing against another nonce. */
    nonce[0]++;
    assert_int_equal(
        link_handshake_answer(&server, &f->server_identity, nonce, client.client_hello, reply),
        LINK_HANDSHAKE_OK);
    assert_int_equal(link_handshake_verify(&server, &f->server_identity, proof),
                     LINK_HANDSHAKE_KEY);
}

/* The network may cut the bytes anywhere, and join the proof with the first frames. */
static void test_handshake_in_pieces(void **state)
{
    struct fixture *f = *state;
    fixture_listen(f, 8);
    int fd = raw_connect(f);
    struct link_handshake h;
    uint8_t nonce[LINK_NONCE_SIZE] = {9};
    uint8_t reply[LINK_SERVER_REPLY_SIZE], bytes[LINK_MAC_SIZE + 64];
    link_handshake_begin(&h, &f->client_identity, nonce);
    for (size_t i = 0; i < LINK_HELLO_SIZE; i++) {
        raw_write(fd, h.client_hello + i, 1);
        uv_run(&f->loop, UV_RUN_NOWAIT);
    }
    assert_true(raw_read(f, fd, reply, sizeof reply));
    assert_int_equal(link_handshake_prove(&h, &f->client_identity, reply, bytes),
                     LINK_HANDSHAKE_OK);
    size_t n = LINK_MAC_SIZE;
    n += raw_frame(bytes + n, "first", 5, crc32c(0, "first", 5));
    n += raw_frame(bytes + n, "second", 6, crc32c(0, "second", 6));
    raw_write(fd, bytes, n - 9); /* the second one is not whole yet */
    RUN_UNTIL(f, f->accepted_count == 1 && f->accepted[0].frames == 1);
    for (size_t i = n - 9; i < n; i++) {
        assert_int_equal(f->accepted[0].frames, 1);
        raw_write(fd, bytes + i, 1);
        uv_run(&f->loop, UV_RUN_NOWAIT);
    }
    RUN_UNTIL(f, f->accepted[0].frames == 2);
    assert_memory_equal(f->accepted[0].last, "second", 6);
    close(fd);
}

/* ---- broken peers behind a good handshake ---- */

static void test_oversized_frame(void **state)
{
    struct fixture *f = *state;
    f->options.frame_size_max = 1000;
    fixture_listen(f, 8);
    int fd = raw_handshake(f);
    uint8_t body[1008] = {0}, frame[1100];
    raw_write(fd, frame, raw_frame(frame, body, 1000, crc32c(0, body, 1000)));
    RUN_UNTIL(f, f->accepted[0].frames == 1);
    raw_write(fd, frame, raw_frame(frame, body, 1001, crc32c(0, body, 1001)));
    RUN_UNTIL(f, f->accepted[0].closed == 1);
    assert_int_equal(f->accepted[0].frames, 1);
    assert_non_null(strstr(f->accepted[0].reason, "at most 1000"));
    close(fd);
}

static void test_corrupt_frame(void **state)
{
    struct fixture *f = *state;
    fixture_listen(f, 8);
    int fd = raw_handshake(f);
    uint8_t frames[64];
    size_t n = raw_frame(frames, "one", 3, crc32c(0, "one", 3));
    n += raw_frame(frames + n, "two", 3, crc32c(0, "two", 3) ^ 0x10);
    n += raw_frame(frames + n, "six", 3, crc32c(0, "six", 3));
    raw_write(fd, frames, n);
    RUN_UNTIL(f, f->accepted[0].closed == 1);
    assert_int_equal(f->accepted[0].frames, 1);
    assert_string_equal(f->accepted[0].reason, "frame with a wrong checksum");
    close(fd);
}

static void test_half_a_frame_then_end(void **state)
{
    struct fixture *f = *state;
    fixture_listen(f, 8);
    int fd = raw_handshake(f);
    uint8_t frame[64];
    size_t n = raw_frame(frame, "0123456789", 10, crc32c(0, "0123456789", 10));
    raw_write(fd, frame, n - 3);
    close(fd);
    RUN_UNTIL(f, f->accepted[0].closed == 1);
    assert_int_equal(f->accepted[0].frames, 0);
    assert_string_equal(f->accepted[0].reason, "peer closed the connection");
}

static void test_reset_is_noticed(void **state)
{
    struct fixture *f = *state;
    fixture_listen(f, 8);
    int fd = raw_handshake(f);
    struct linger linger = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(fd);
    RUN_UNTIL(f, f->accepted[0].closed == 1);
    assert_non_null(strstr(f->accepted[0].reason, "reset"));
}

static void test_half_open_peer(void **state)
{
    struct fixture *f = *state;
    f->options.idle_timeout_ms = 150;
    fixture_listen(f, 8);
    int fd = raw_handshake(f); /* and then silence, with the socket open */
    RUN_UNTIL(f, f->accepted[0].closed == 1);
    assert_string_equal(f->accepted[0].reason, "nothing received for 150 ms");
    close(fd);
}

/* A peer that says nothing because it is busy taking what we send is alive; one that stops is not. */
static void test_slow_reader_is_alive(void **state)
{
    struct fixture *f = *state;
    f->options.idle_timeout_ms = 200;
    f->options.output_size_max = 64u << 20;
    fixture_listen(f, 8);
    int fd = raw_handshake(f);
    static uint8_t body[1u << 20];
    while (link_send(f->accepted[0].link, body, sizeof body - 8, NULL, 0) == 0) {
    }
    uint64_t start = clock_monotonic_ms(), last = start;
    while (last - start < 1500) {
        if (clock_monotonic_ms() - last >= 20) {
            last = clock_monotonic_ms();
            (void)recv(fd, body, 500000, MSG_DONTWAIT);
        }
        uv_run(&f->loop, UV_RUN_ONCE); /* at most one check of the idle limit */
    }
    assert_int_equal(f->accepted[0].closed, 0);
    assert_true(link_output_queued(f->accepted[0].link) > 0);
    RUN_UNTIL(f, f->accepted[0].closed == 1);
    assert_string_equal(f->accepted[0].reason, "nothing received for 200 ms");
    close(fd);
}

static void test_output_queue_full(void **state)
{
    struct fixture *f = *state;
    fixture_listen(f, 8);
    int fd = raw_handshake(f);
    struct link *l = f->accepted[0].link;
    static uint8_t body[8000], got[8016];
    uint64_t sent = 0, full = 0;
    while (full < 100) { /* the peer does not read */
        if (link_send(l, &sent, 8, body, sizeof body) == 0) {
            sent++;
        } else {
            full++;
            uv_run(&f->loop, UV_RUN_NOWAIT);
        }
        assert_true(link_output_queued(l) <= f->options.output_size_max);
    }
    assert_true(sent * sizeof body >= f->options.output_size_max);
    assert_true(link_is_open(l)); /* to lose a frame is the caller's decision */
    /* What was accepted arrives whole and in order, nothing of what was refused. */
    for (uint64_t i = 0; i < sent; i++) {
        assert_true(raw_read(f, fd, got, sizeof got));
        assert_int_equal(load_u32(got), 8008);
        assert_int_equal(load_u64(got + 8), i);
        assert_int_equal(load_u32(got + 4), crc32c(0, got + 8, 8008));
    }
    assert_int_equal(link_output_queued(l), 0);
    assert_int_equal(link_send(l, "x", 1, NULL, 0), 0);
    assert_true(raw_read(f, fd, got, 16));
    assert_int_equal(link_send(l, body, LINK_FRAME_SIZE_MAX, body, 1), -1);
    close(fd);
}

/* ---- closing ---- */

static void test_close_in_frame_callback(void **state)
{
    struct fixture *f = *state;
    fixture_open_pair(f);
    f->accepted[0].close_on_frame = true;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(link_send(f->client.link, "frame", 5, NULL, 0), 0);
    }
    RUN_UNTIL(f, f->accepted[0].closed == 1 && f->client.closed == 1);
    assert_int_equal(f->accepted[0].frames, 1);
    assert_string_equal(f->accepted[0].reason, "closed");
}

static void test_close_in_open_callback(void **state)
{
    struct fixture *f = *state;
    f->client.close_on_open = true;
    fixture_listen(f, 8);
    fixture_connect(f);
    RUN_UNTIL(f, f->client.closed == 1 && f->accepted_count == 1 && f->accepted[0].closed == 1);
    assert_int_equal(f->client.opened, 1);
}

static void test_close_flushes_what_is_queued(void **state)
{
    struct fixture *f = *state;
    fixture_open_pair(f);
    assert_int_equal(link_send(f->client.link, "goodbye", 7, NULL, 0), 0);
    link_close(f->client.link);
    assert_int_equal(link_send(f->client.link, "late", 4, NULL, 0), -1);
    assert_int_equal(f->client.closed, 0); /* never from within */
    RUN_UNTIL(f, f->client.closed == 1 && f->accepted[0].closed == 1);
    assert_int_equal(f->accepted[0].frames, 1);
    assert_memory_equal(f->accepted[0].last, "goodbye", 7);
}

static void test_close_while_connecting(void **state)
{
    struct fixture *f = *state;
    fixture_listen(f, 8);
    fixture_connect(f);
    link_close(f->client.link);
    RUN_UNTIL(f, f->client.closed == 1);
    assert_int_equal(f->client.opened, 0);
    assert_string_equal(f->client.reason, "closed");
}

static void test_close_with_a_write_under_way(void **state)
{
    struct fixture *f = *state;
    fixture_listen(f, 8);
    int fd = raw_handshake(f);
    static uint8_t body[500000];
    while (link_send(f->accepted[0].link, body, sizeof body, NULL, 0) == 0) {
    }
    uv_run(&f->loop, UV_RUN_NOWAIT);
    link_close(f->accepted[0].link);
    RUN_UNTIL(f, f->accepted[0].closed == 1);
    close(fd);
}

static void test_connect_refused(void **state)
{
    struct fixture *f = *state;
    fixture_listen(f, 8);
    link_server_close(f->server, server_done_cb, f);
    RUN_UNTIL(f, f->server_done);
    f->server = NULL;
    fixture_connect(f); /* nobody listens there any more */
    RUN_UNTIL(f, f->client.closed == 1);
    assert_non_null(strstr(f->client.reason, "connect"));
    assert_null(link_connect(&f->loop, "localhost", 1, &f->client_identity, &f->options, &callbacks,
                             &f->client));
    assert_null(link_connect(&f->loop, "127.0.0.256", 1, &f->client_identity, &f->options,
                             &callbacks, &f->client));
}

static void test_connections_max(void **state)
{
    struct fixture *f = *state;
    fixture_listen(f, 2);
    int a = raw_connect(f), b = raw_connect(f);
    RUN_UNTIL(f, f->accepted_count == 2);
    int c = raw_connect(f);
    uint8_t byte;
    assert_false(raw_read(f, c, &byte, 1)); /* turned away */
    assert_int_equal(f->accepted_count, 2);
    close(a);
    RUN_UNTIL(f, f->accepted[0].closed == 1); /* which makes room */
    int d = raw_connect(f);
    RUN_UNTIL(f, f->accepted_count == 3);
    close(b);
    close(c);
    close(d);
}

static void test_port_taken(void **state)
{
    struct fixture *f = *state;
    fixture_listen(f, 8);
    struct link_server *other = NULL;
    assert_int_equal(link_listen(&f->loop, "127.0.0.1", f->port, 8, &f->server_identity,
                                 &f->options, &callbacks, on_accept, f, &other),
                     UV_EADDRINUSE);
    assert_null(other);
    assert_int_equal(link_listen(&f->loop, "no address", 0, 8, &f->server_identity, &f->options,
                                 &callbacks, on_accept, f, &other),
                     UV_EINVAL);
}

/* ---- key file ---- */

static void write_key(const char *path, const char *text, mode_t mode)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void test_read_key(void **state)
{
    (void)state;
    char path[] = "/tmp/holdfast-key-XXXXXX";
    close(mkstemp(path));
    uint8_t key[LINK_KEY_SIZE];
    const char *hex = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";
    char text[200];
    write_key(path, hex, 0600);
    assert_int_equal(link_read_key(path, key), 0);
    for (uint8_t i = 0; i < LINK_KEY_SIZE; i++) {
        assert_int_equal(key[i], i);
    }
    snprintf(text, sizeof text, "%s\n", hex);
    write_key(path, text, 0400);
    assert_int_equal(link_read_key(path, key), 0);
    write_key(path, text, 0640);
    assert_int_equal(link_read_key(path, key), -1);
    write_key(path, text, 0604);
    assert_int_equal(link_read_key(path, key), -1);
    const char *bad[] = {"", "\n", "00", "zz", "%s%s", "%s ", "%s\n\n", "%s0"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        const char *at = strstr(bad[i], "%s");
        if (at == NULL) {
            snprintf(text, sizeof text, "%s", bad[i]);
        } else {
            snprintf(text, sizeof text, "%s%s", hex, strcmp(at, "%s%s") == 0 ? hex : at + 2);
        }
        write_key(path, text, 0600);
        assert_int_equal(link_read_key(path, key), -1);
    }
    unlink(path);
    assert_int_equal(link_read_key(path, key), -1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_open_and_echo),
        TEST(test_reserve_and_commit),
        TEST(test_many_frames_in_order),
        TEST(test_client_learns_the_cluster),
        TEST(test_wrong_key),
        TEST(test_wrong_cluster),
        TEST(test_wrong_service),
        TEST(test_raft_peer_with_our_id),
        TEST(test_raft_needs_a_cluster),
        TEST(test_strangers_get_silence_until_the_deadline),
        TEST(test_client_names_the_versions_of_a_newer_server),
        TEST(test_client_distrusts_a_server_without_the_key),
        TEST(test_handshake_in_pieces),
        TEST(test_oversized_frame),
        TEST(test_corrupt_frame),
        TEST(test_half_a_frame_then_end),
        TEST(test_reset_is_noticed),
        TEST(test_half_open_peer),
        TEST(test_slow_reader_is_alive),
        TEST(test_output_queue_full),
        TEST(test_close_in_frame_callback),
        TEST(test_close_in_open_callback),
        TEST(test_close_flushes_what_is_queued),
        TEST(test_close_while_connecting),
        TEST(test_close_with_a_write_under_way),
        TEST(test_connect_refused),
        TEST(test_connections_max),
        TEST(test_port_taken),
        cmocka_unit_test(test_read_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
