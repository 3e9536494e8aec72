/* A link's life: connect or accept, handshake, input, close. Output is link_output.c, the listener
 * link_server.c, the bytes of the handshake link_handshake.c.
 *
 * Happy path (client): link_connect → link_connect_cb sends the hello → link_on_reply proves the
 * key, `open` → link_on_frames for whatever arrives. Server: link_accepted → link_on_hello →
 * link_on_proof, `open` → the same.
 *
 * Failure modes: every one ends in link_fail, which remembers the reason, closes all handles and
 * lets `closed` follow when libuv is done with them. Callbacks may call anything, link_close
 * included: memory lives until the last handle's close callback, and each loop over input looks at
 * the state again after each callback. */
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "proto/link_internal.h"

#define FRAME_HEADER_SIZE  8u
#define INPUT_INITIAL_SIZE (128u << 10)
#define INPUT_READ_MIN     (32u << 10) /* room to offer to one read, at least */
#define LINK_IDLE_CHECKS   4u          /* within the idle limit */

static void link_init(void)
{
    CHECK(sodium_init() >= 0);
    struct sigaction action;
    if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL) {
        signal(SIGPIPE, SIG_IGN);
    }
}

void link_init_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, link_init);
}

/* ---- closing ---- */

static void link_handle_closed_cb(uv_handle_t *handle)
{
    struct link *l = handle->data;
    CHECK(l->handles_open > 0);
    if (--l->handles_open > 0) {
        return;
    }
    l->callbacks.closed(l, l->ctx, l->reason);
    if (l->server != NULL) {
        link_server_forget(l);
    }
    free(l->in.data);
    free(l->out.data);
    free(l->writing.data);
    sodium_memzero(&l->identity, sizeof l->identity);
    free(l);
}

void link_fail(struct link *l, const char *format, ...)
{
    if (l->state == LINK_CLOSING) {
        return;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(l->reason, sizeof l->reason, format, args);
    va_end(args);
    l->state = LINK_CLOSING;
    uv_close((uv_handle_t *)&l->tcp, link_handle_closed_cb);
    uv_close((uv_handle_t *)&l->timer, link_handle_closed_cb);
    uv_close((uv_handle_t *)&l->flush, link_handle_closed_cb);
}

void link_close(struct link *l)
{
    if (l->state == LINK_OPEN) {
        link_output_flush(l);
    }
    link_fail(l, "closed");
}

/* ---- timers ---- */

/* Counts checks rather than comparing times: after a loop that stood still for seconds the timer
 * comes before the input that waits in the socket, and the peer must not be blamed for that. */
static void link_idle_cb(uv_timer_t *timer)
{
    struct link *l = container_of(timer, struct link, timer);
    /* A peer that takes what we send is alive, even if its answer is queued behind much of that. Only
     * while output waits: an empty socket buffer takes bytes for a dead peer too. */
    size_t queued = link_output_queued(l);
    uint64_t handed = l->out_total - queued;
    if (queued > 0 && handed != l->idle_handed) {
        l->idle_checks = 0;
    }
    l->idle_handed = handed;
    if (++l->idle_checks > LINK_IDLE_CHECKS) {
        link_fail(l, "nothing received for %llu ms",
                  (unsigned long long)l->options.idle_timeout_ms);
    }
}

static void link_deadline_cb(uv_timer_t *timer)
{
    struct link *l = container_of(timer, struct link, timer);
    switch (l->state) {
    case LINK_CONNECTING:
        link_fail(l, "connect timed out");
        return;
    case LINK_REFUSED:
        link_fail(l, "%s", l->refusal);
        return;
    case LINK_AWAIT_REPLY:
        link_fail(l, "handshake timed out (other key, cluster, service or version there?)");
        return;
    case LINK_AWAIT_HELLO:
    case LINK_AWAIT_PROOF:
        link_fail(l, "handshake timed out");
        return;
    case LINK_OPEN:
    case LINK_CLOSING:
        CHECK_UNREACHABLE();
    }
}

/* ---- handshake ---- */

static void link_opened(struct link *l)
{
    uv_timer_stop(&l->timer);
    l->state = LINK_OPEN;
    l->idle_checks = 0;
    if (l->options.idle_timeout_ms > 0) {
        uint64_t period = l->options.idle_timeout_ms / LINK_IDLE_CHECKS + 1;
        uv_timer_start(&l->timer, link_idle_cb, period, period);
    }
    l->callbacks.open(l, l->ctx);
}

/* A stranger. It gets no answer, not even a prompt close, and nothing more of it is read. */
static void link_refuse(struct link *l, enum link_handshake_result result)
{
    uv_read_stop((uv_stream_t *)&l->tcp);
    link_handshake_describe(&l->handshake, result, l->refusal, sizeof l->refusal);
    l->state = LINK_REFUSED;
}

static void link_on_hello(struct link *l, const uint8_t *hello)
{
    uint8_t nonce[LINK_NONCE_SIZE];
    uint8_t reply[LINK_SERVER_REPLY_SIZE];
    randombytes_buf(nonce, sizeof nonce);
    enum link_handshake_result result =
        link_handshake_answer(&l->handshake, &l->identity, nonce, hello, reply);
    if (result == LINK_HANDSHAKE_VERSION) {
        link_output_raw(l, reply, sizeof reply); /* or it would never know why */
    }
    if (result != LINK_HANDSHAKE_OK) {
        if (l->state != LINK_CLOSING) {
            link_refuse(l, result);
        }
        return;
    }
    l->state = LINK_AWAIT_PROOF;
    link_output_raw(l, reply, sizeof reply);
}

static void link_on_proof(struct link *l, const uint8_t *proof)
{
    enum link_handshake_result result = link_handshake_verify(&l->handshake, &l->identity, proof);
    if (result != LINK_HANDSHAKE_OK) {
        link_refuse(l, result);
        return;
    }
    link_opened(l);
}

static void link_on_reply(struct link *l, const uint8_t *reply)
{
    uint8_t proof[LINK_MAC_SIZE];
    enum link_handshake_result result =
        link_handshake_prove(&l->handshake, &l->identity, reply, proof);
    if (result != LINK_HANDSHAKE_OK) {
        char text[sizeof l->reason];
        link_handshake_describe(&l->handshake, result, text, sizeof text);
        link_fail(l, "%s", text);
        return;
    }
    link_output_raw(l, proof, sizeof proof);
    if (l->state != LINK_CLOSING) {
        link_opened(l);
    }
}

/* ---- input ---- */

static size_t link_in_left(const struct link *l)
{
    return l->in.size - l->in_start;
}

/* Delivers every whole frame that is there. */
static void link_on_frames(struct link *l)
{
    while (l->state == LINK_OPEN && link_in_left(l) >= FRAME_HEADER_SIZE) {
        const uint8_t *header = l->in.data + l->in_start;
        size_t size = load_u32(header);
        if (size > l->options.frame_size_max) {
            link_fail(l, "frame of %zu bytes, at most %zu are allowed", size,
                      l->options.frame_size_max);
            return;
        }
        size_t span = FRAME_HEADER_SIZE + ((size + 7) & ~(size_t)7);
        if (link_in_left(l) < span) {
            return;
        }
        const uint8_t *payload = header + FRAME_HEADER_SIZE;
        if (crc32c(0, payload, size) != load_u32(header + 4)) {
            link_fail(l, "frame with a wrong checksum");
            return;
        }
        l->in_start += span;
        l->callbacks.frame(l, l->ctx, payload, size);
    }
}

/* Consumes what is there as far as it is whole. */
static void link_on_input(struct link *l)
{
    for (;;) {
        const uint8_t *at = l->in.data + l->in_start;
        size_t wanted = 0;
        void (*take)(struct link *, const uint8_t *) = NULL;
        switch (l->state) {
        case LINK_AWAIT_HELLO:
            wanted = LINK_HELLO_SIZE;
            take = link_on_hello;
            break;
        case LINK_AWAIT_PROOF:
            wanted = LINK_MAC_SIZE;
            take = link_on_proof;
            break;
        case LINK_AWAIT_REPLY:
            wanted = LINK_SERVER_REPLY_SIZE;
            take = link_on_reply;
            break;
        case LINK_OPEN:
            link_on_frames(l);
            return;
        case LINK_CONNECTING:
        case LINK_REFUSED:
        case LINK_CLOSING:
            return;
        }
        if (link_in_left(l) < wanted) {
            return;
        }
        l->in_start += wanted;
        take(l, at);
    }
}

/* The bytes that the frame at the front needs in all, as far as that is known and allowed. */
static size_t link_in_wanted(const struct link *l)
{
    if (l->state != LINK_OPEN || link_in_left(l) < FRAME_HEADER_SIZE) {
        return INPUT_READ_MIN;
    }
    size_t size = load_u32(l->in.data + l->in_start);
    CHECK(size <= l->options.frame_size_max); /* link_on_frames refused larger ones */
    size_t span = FRAME_HEADER_SIZE + ((size + 7) & ~(size_t)7);
    return span > INPUT_READ_MIN ? span : INPUT_READ_MIN;
}

static void link_alloc_cb(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct link *l = handle->data;
    if (l->in_start == l->in.size) {
        l->in_start = l->in.size = 0;
    }
    size_t wanted = link_in_wanted(l);
    if (l->in.capacity - l->in.size < INPUT_READ_MIN || l->in.capacity - l->in_start < wanted) {
        if (l->in_start > 0) {
            memmove(l->in.data, l->in.data + l->in_start, link_in_left(l));
            l->in.size -= l->in_start;
            l->in_start = 0;
        }
        size_t capacity = l->in.capacity > 0 ? l->in.capacity : INPUT_INITIAL_SIZE;
        while (capacity < wanted || capacity - l->in.size < INPUT_READ_MIN) {
            capacity *= 2;
        }
        if (capacity != l->in.capacity) {
            l->in.data = realloc(l->in.data, capacity);
            CHECK(l->in.data != NULL);
            l->in.capacity = capacity;
        }
    }
    *buf = uv_buf_init((char *)l->in.data + l->in.size, (unsigned)(l->in.capacity - l->in.size));
}

static void link_read_cb(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    (void)buf;
    struct link *l = stream->data;
    if (l->state == LINK_CLOSING || n == 0) {
        return;
    }
    if (n < 0) {
        const char *phase = l->state == LINK_OPEN ? "" : " during the handshake";
        if (n == UV_EOF) {
            link_fail(l, "peer closed the connection%s", phase);
        } else {
            link_fail(l, "read%s: %s", phase, uv_strerror((int)n));
        }
        return;
    }
    l->in.size += (size_t)n;
    l->idle_checks = 0;
    link_on_input(l);
}

/* ---- opening ---- */

struct link *link_create(uv_loop_t *loop, const struct link_identity *identity,
                         const struct link_options *options, const struct link_callbacks *callbacks)
{
    CHECK(options->frame_size_max <= LINK_FRAME_SIZE_MAX);
    link_init_once();
    struct link *l = calloc(1, sizeof *l);
    CHECK(l != NULL);
    l->identity = *identity;
    l->options = *options;
    l->callbacks = *callbacks;
    CHECK(uv_tcp_init(loop, &l->tcp) == 0);
    CHECK(uv_timer_init(loop, &l->timer) == 0);
    CHECK(uv_prepare_init(loop, &l->flush) == 0);
    l->tcp.data = l->timer.data = l->flush.data = l;
    l->handles_open = 3;
    uv_timer_start(&l->timer, link_deadline_cb, LINK_HANDSHAKE_TIMEOUT_MS, 0);
    return l;
}

/* Low latency, and prompt notice of a peer that is gone. */
static void link_tune_socket(struct link *l)
{
    uv_tcp_nodelay(&l->tcp, 1);
    uv_os_fd_t fd;
    if (l->options.idle_timeout_ms > 0 && uv_fileno((uv_handle_t *)&l->tcp, &fd) == 0) {
        unsigned timeout_ms = (unsigned)l->options.idle_timeout_ms;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
    }
}

static void link_connect_cb(uv_connect_t *req, int status)
{
    struct link *l = container_of(req, struct link, connect);
    if (l->state == LINK_CLOSING) {
        return;
    }
    if (status < 0) {
        link_fail(l, "connect: %s", uv_strerror(status));
        return;
    }
    link_tune_socket(l);
    uint8_t nonce[LINK_NONCE_SIZE];
    randombytes_buf(nonce, sizeof nonce);
    link_handshake_begin(&l->handshake, &l->identity, nonce);
    l->state = LINK_AWAIT_REPLY;
    link_output_raw(l, l->handshake.client_hello, LINK_HELLO_SIZE);
    if (l->state != LINK_CLOSING) {
        uv_read_start((uv_stream_t *)&l->tcp, link_alloc_cb, link_read_cb);
    }
}

void link_accepted(struct link *l)
{
    link_tune_socket(l);
    l->state = LINK_AWAIT_HELLO;
    uv_read_start((uv_stream_t *)&l->tcp, link_alloc_cb, link_read_cb);
}

/* uv_connect reports some errors at once; `closed` must not run inside the caller's call. link_fail
 * closes handles, and libuv calls back from the loop: that is late enough. */
struct link *link_connect(uv_loop_t *loop, const char *host, uint16_t port,
                          const struct link_identity *identity, const struct link_options *options,
                          const struct link_callbacks *callbacks, void *ctx)
{
    struct sockaddr_storage address;
    if (uv_ip4_addr(host, port, (struct sockaddr_in *)(void *)&address) != 0 &&
        uv_ip6_addr(host, port, (struct sockaddr_in6 *)(void *)&address) != 0) {
        return NULL;
    }
    struct link *l = link_create(loop, identity, options, callbacks);
    l->ctx = ctx;
    l->state = LINK_CONNECTING;
    int rv = uv_tcp_connect(&l->connect, &l->tcp, (const struct sockaddr *)(const void *)&address,
                            link_connect_cb);
    if (rv < 0) {
        link_fail(l, "connect: %s", uv_strerror(rv));
    }
    return l;
}

bool link_is_open(const struct link *l)
{
    return l->state == LINK_OPEN;
}

uint64_t link_peer_id(const struct link *l)
{
    return l->handshake.peer_id;
}

const uint8_t *link_cluster_id(const struct link *l)
{
    return l->handshake.cluster_id;
}

void *link_ctx(const struct link *l)
{
    return l->ctx;
}

void link_set_ctx(struct link *l, void *ctx)
{
    l->ctx = ctx;
}
