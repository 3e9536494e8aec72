/* Links between correct peers, with peers that break off or send what they must not once the link
 * is open, and their end. */
#include <string.h>

#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "tests/unit/proto/link_fixture.h"

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

/* A peer that says nothing because it is busy taking what we send is alive; one that stops is not.
 */
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

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_open_and_echo),
        TEST(test_reserve_and_commit),
        TEST(test_many_frames_in_order),
        TEST(test_client_learns_the_cluster),
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
