/* The handshake of a link: who lacks the key, or is of another cluster, service or version, stays
 * outside. */
#include <stdio.h>
#include <string.h>

#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "tests/unit/proto/link_fixture.h"

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
                             versions, link_handshake_text(LINK_HANDSHAKE_KEY),
                             "handshake timed out"};
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
    assert_string_equal(text,
                        "peer speaks link versions 2 to 3, this program 1 to 1: upgrade the older "
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

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_wrong_key),
        TEST(test_wrong_cluster),
        TEST(test_wrong_service),
        TEST(test_raft_peer_with_our_id),
        TEST(test_raft_needs_a_cluster),
        TEST(test_strangers_get_silence_until_the_deadline),
        TEST(test_client_names_the_versions_of_a_newer_server),
        TEST(test_client_distrusts_a_server_without_the_key),
        TEST(test_handshake_in_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
