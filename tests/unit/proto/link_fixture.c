#include "tests/unit/proto/link_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/check.h"

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

const struct link_callbacks callbacks = {end_open, end_frame, end_closed};

void *on_accept(void *ctx, struct link *l)
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

void server_done_cb(void *ctx)
{
    ((struct fixture *)ctx)->server_done = true;
}

void fixture_listen(struct fixture *f, unsigned connections_max)
{
    assert_int_equal(link_listen(&f->loop, "127.0.0.1", 0, connections_max, &f->server_identity,
                                 &f->options, &callbacks, on_accept, f, &f->server),
                     0);
    f->port = link_server_port(f->server);
    assert_int_not_equal(f->port, 0);
}

void fixture_connect(struct fixture *f)
{
    f->client.link = link_connect(&f->loop, "127.0.0.1", f->port, &f->client_identity, &f->options,
                                  &callbacks, &f->client);
    assert_non_null(f->client.link);
    assert_int_equal(f->client.closed, 0);
}

int setup(void **state)
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

int teardown(void **state)
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

void fixture_open_pair(struct fixture *f)
{
    fixture_listen(f, 8);
    fixture_connect(f);
    RUN_UNTIL(f, f->client.opened == 1 && f->accepted_count == 1 && f->accepted[0].opened == 1);
}

/* ---- a peer by hand ---- */

int raw_connect(const struct fixture *f)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(f->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

void raw_write(int fd, const void *data, size_t size)
{
    assert_int_equal(send(fd, data, size, MSG_NOSIGNAL), size);
}

bool raw_read(struct fixture *f, int fd, void *data, size_t size)
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

int raw_handshake(struct fixture *f)
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

size_t raw_frame(uint8_t *out, const void *data, uint32_t size, uint32_t crc)
{
    size_t padded = (size + 7u) & ~7u;
    memset(out, 0, 8 + padded);
    store_u32(out, size);
    store_u32(out + 4, crc);
    memcpy(out + 8, data, size);
    return 8 + padded;
}
