#include "tools/bench/http_client.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"

#define READ_SIZE_MIN     4096U /* room offered to each read: an order's answer fits many times */
#define SWEEP_INTERVAL_MS 20    /* how late a timeout may be noticed */
#define HOST_SIZE_MAX     256

enum connection_state {
    CONNECTION_CLOSED,     /* no handle */
    CONNECTION_CONNECTING, /* an exchange waits for it, or http_client_warm does */
    CONNECTION_IDLE,
    CONNECTION_BUSY,
    CONNECTION_ANSWERED, /* within done: on no list, takes no new work yet */
    CONNECTION_CLOSING,  /* uv_close under way */
};

struct http_connection {
    struct http_client *client;
    enum connection_state state;
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    bool writing;                   /* the kernel did not take the whole request at once */
    struct http_exchange *exchange; /* CONNECTING (may be NULL) and BUSY */
    struct http_reply reply;
    char *in;
    size_t in_size, in_capacity;
    struct http_connection *next_idle;
};

struct http_client {
    uv_loop_t *loop;
    struct sockaddr_storage address;
    char host[HOST_SIZE_MAX];
    uint64_t timeout_ns;
    uv_timer_t sweep;
    bool sweeping, sweep_closed, destroying;
    struct http_connection *connections;
    unsigned count, open, in_flight;
    /* Idle or closed connections, oldest first, so that load spreads over all of them. */
    struct http_connection *idle_first, *idle_last;
    struct http_exchange *waiting_first, *waiting_last;
};

const char *http_failure_name(enum http_failure f)
{
    static const char *const names[] = {"ANSWERED", "UNREACHABLE", "BROKEN", "TIMEOUT",
                                        "MALFORMED"};
    return (size_t)f < ARRAY_COUNT(names) ? names[f] : "UNKNOWN";
}

const char *http_client_host(const struct http_client *c)
{
    return c->host;
}

unsigned http_client_in_flight(const struct http_client *c)
{
    return c->in_flight;
}

static void idle_push(struct http_connection *k)
{
    struct http_client *c = k->client;
    k->next_idle = NULL;
    if (c->idle_last != NULL) {
        c->idle_last->next_idle = k;
    } else {
        c->idle_first = k;
    }
    c->idle_last = k;
}

static struct http_connection *idle_pop(struct http_client *c)
{
    struct http_connection *k = c->idle_first;
    if (k != NULL) {
        c->idle_first = k->next_idle;
        if (c->idle_first == NULL) {
            c->idle_last = NULL;
        }
    }
    return k;
}

static struct http_exchange *waiting_pop(struct http_client *c)
{
    struct http_exchange *x = c->waiting_first;
    if (x != NULL) {
        c->waiting_first = x->next;
        if (c->waiting_first == NULL) {
            c->waiting_last = NULL;
        }
    }
    return x;
}

static void exchange_finish(struct http_client *c, struct http_exchange *x,
                            enum http_failure failure, const struct http_reply *reply)
{
    static const struct http_reply none = {.body = {"", 0}};
    c->in_flight--;
    x->done(x, failure, reply != NULL ? reply : &none);
}

static void connection_start(struct http_connection *k, struct http_exchange *x);

/* A connection without work: the next exchange that waits, or the idle list. */
static void connection_release(struct http_connection *k)
{
    struct http_exchange *x = k->client->destroying ? NULL : waiting_pop(k->client);
    if (x != NULL) {
        connection_start(k, x);
    } else {
        idle_push(k);
    }
}

static void connection_close_cb(uv_handle_t *handle)
{
    struct http_connection *k = handle->data;
    k->state = CONNECTION_CLOSED;
    k->client->open--;
    connection_release(k);
}

/* Takes the connection down. What it carried ends with `failure`, after the state is settled,
 * because done may submit again. An idle connection is on the idle list and must not enter it
 * twice. */
static void connection_fail(struct http_connection *k, enum http_failure failure)
{
    struct http_client *c = k->client;
    struct http_exchange *x = k->exchange;
    if (k->state == CONNECTION_IDLE) {
        struct http_connection **at = &c->idle_first;
        struct http_connection *before = NULL;
        while (*at != k) {
            before = *at;
            at = &before->next_idle;
        }
        *at = k->next_idle;
        if (c->idle_last == k) {
            c->idle_last = before;
        }
    }
    k->state = CONNECTION_CLOSING;
    k->exchange = NULL;
    uv_close((uv_handle_t *)&k->tcp, connection_close_cb);
    if (x != NULL) {
        exchange_finish(c, x, failure, NULL);
    }
}

static void connection_alloc_cb(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct http_connection *k = handle->data;
    if (k->in_capacity - k->in_size < READ_SIZE_MIN) {
        k->in_capacity = k->in_capacity == 0 ? (size_t)READ_SIZE_MIN * 2 : k->in_capacity * 2;
        k->in = realloc(k->in, k->in_capacity);
        CHECK(k->in != NULL);
    }
    buf->base = k->in + k->in_size;
    buf->len = k->in_capacity - k->in_size;
}

static void connection_read_cb(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
    (void)buf;
    struct http_connection *k = stream->data;
    if (nread == 0) {
        return;
    }
    if (nread < 0) {
        connection_fail(k, HTTP_BROKEN);
        return;
    }
    k->in_size += (size_t)nread;
    if (k->state != CONNECTION_BUSY) {
        connection_fail(k, HTTP_BROKEN); /* an answer to nothing */
        return;
    }
    long size = http_reply_parse(&k->reply, k->in, k->in_size);
    if (size == 0) {
        return;
    }
    if (size < 0 || (size_t)size != k->in_size) {
        connection_fail(k, HTTP_MALFORMED);
        return;
    }
    struct http_exchange *x = k->exchange;
    k->exchange = NULL;
    k->state = CONNECTION_ANSWERED;
    exchange_finish(k->client, x, HTTP_ANSWERED, &k->reply);
    k->in_size = 0;
    if (k->reply.close || k->writing) { /* answered before the request was sent: it was refused */
        k->state = CONNECTION_CLOSING;
        uv_close((uv_handle_t *)&k->tcp, connection_close_cb);
    } else {
        k->state = CONNECTION_IDLE;
        connection_release(k);
    }
}

static void connection_write_cb(uv_write_t *request, int status)
{
    struct http_connection *k = request->data;
    k->writing = false;
    if (status < 0 && k->state == CONNECTION_BUSY) {
        connection_fail(k, HTTP_BROKEN);
    }
}

static void connection_send(struct http_connection *k)
{
    struct http_exchange *x = k->exchange;
    k->state = CONNECTION_BUSY;
    k->in_size = 0;
    uv_buf_t buf = {.base = (char *)(uintptr_t)x->request, .len = x->request_size};
    int sent = uv_try_write((uv_stream_t *)&k->tcp, &buf, 1);
    if (sent == (int)x->request_size) {
        return;
    }
    /* All of it, the rest of it, or an error that the callback will tell: never from within submit.
     */
    size_t done = sent > 0 ? (size_t)sent : 0;
    buf.base += done;
    buf.len -= done;
    k->write.data = k;
    k->writing = true;
    int rc = uv_write(&k->write, (uv_stream_t *)&k->tcp, &buf, 1, connection_write_cb);
    CHECK(rc == 0);
}

static void connection_connect_cb(uv_connect_t *request, int status)
{
    struct http_connection *k = request->data;
    if (k->state != CONNECTION_CONNECTING) {
        return; /* timed out and closing */
    }
    if (status < 0) {
        connection_fail(k, HTTP_UNREACHABLE);
        return;
    }
    uv_tcp_nodelay(&k->tcp, 1);
    uv_read_start((uv_stream_t *)&k->tcp, connection_alloc_cb, connection_read_cb);
    if (k->exchange != NULL) {
        connection_send(k);
    } else {
        k->state = CONNECTION_IDLE;
        connection_release(k);
    }
}

static void connection_open(struct http_connection *k)
{
    struct http_client *c = k->client;
    CHECK(k->state == CONNECTION_CLOSED);
    CHECK(uv_tcp_init(c->loop, &k->tcp) == 0);
    k->tcp.data = k;
    k->connect.data = k;
    k->state = CONNECTION_CONNECTING;
    c->open++;
    /* libuv reports a refused connection through the callback; what fails here is ours (no ports).
     */
    int rc = uv_tcp_connect(&k->connect, &k->tcp, (const struct sockaddr *)&c->address,
                            connection_connect_cb);
    if (rc != 0) {
        fprintf(stderr, "connect %s: %s\n", c->host, uv_strerror(rc));
        exit(1);
    }
}

static void sweep_cb(uv_timer_t *timer)
{
    struct http_client *c = timer->data;
    if (c->in_flight == 0) {
        uv_timer_stop(timer);
        c->sweeping = false;
        return;
    }
    uint64_t now = clock_monotonic_ns();
    for (unsigned i = 0; i < c->count; i++) {
        struct http_connection *k = &c->connections[i];
        if (k->exchange != NULL && now >= k->exchange->deadline_ns) {
            connection_fail(k, k->state == CONNECTION_CONNECTING ? HTTP_UNREACHABLE : HTTP_TIMEOUT);
        }
    }
    while (c->waiting_first != NULL && now >= c->waiting_first->deadline_ns) {
        exchange_finish(c, waiting_pop(c), HTTP_UNREACHABLE, NULL);
    }
}

static void connection_start(struct http_connection *k, struct http_exchange *x)
{
    k->exchange = x;
    memset(&k->reply, 0, sizeof k->reply);
    if (k->state == CONNECTION_CLOSED) {
        connection_open(k);
    } else {
        connection_send(k);
    }
}

void http_client_submit(struct http_client *c, struct http_exchange *x)
{
    CHECK(x->done != NULL && x->request_size > 0);
    c->in_flight++;
    x->next = NULL;
    x->deadline_ns = clock_monotonic_ns() + (x->timeout_ns != 0 ? x->timeout_ns : c->timeout_ns);
    if (!c->sweeping) {
        c->sweeping = true;
        uv_timer_start(&c->sweep, sweep_cb, SWEEP_INTERVAL_MS, SWEEP_INTERVAL_MS);
    }
    struct http_connection *k = idle_pop(c);
    if (k != NULL) {
        connection_start(k, x);
        return;
    }
    if (c->waiting_last != NULL) {
        c->waiting_last->next = x;
    } else {
        c->waiting_first = x;
    }
    c->waiting_last = x;
}

/* "http://host:port" or "http://host" into c->host and c->address. */
static int url_resolve(struct http_client *c, const char *url)
{
    static const char scheme[] = "http://";
    const char *from = url;
    if (strncmp(from, scheme, sizeof scheme - 1) != 0) {
        fprintf(stderr, "%s: only http:// URLs are understood\n", url);
        return -1;
    }
    from += sizeof scheme - 1;
    size_t size = strlen(from);
    if (size > 0 && from[size - 1] == '/') {
        size--;
    }
    if (size == 0 || size >= sizeof c->host || memchr(from, '/', size) != NULL) {
        fprintf(stderr, "%s: expected http://host:port and no path\n", url);
        return -1;
    }
    memcpy(c->host, from, size);
    char name[HOST_SIZE_MAX];
    memcpy(name, c->host, sizeof name);
    char *colon = strrchr(name, ':');
    const char *port = "80";
    if (colon != NULL && strchr(colon, ']') == NULL) {
        *colon = '\0';
        port = colon + 1;
    }
    char *node = name;
    size_t node_size = strlen(name);
    if (name[0] == '[' && name[node_size - 1] == ']') {
        name[node_size - 1] = '\0';
        node = name + 1;
    }
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(node, port, &hints, &found);
    if (rc != 0) {
        fprintf(stderr, "%s: %s\n", url, gai_strerror(rc));
        return -1;
    }
    memcpy(&c->address, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

struct http_client *http_client_create(uv_loop_t *loop, const char *url, unsigned connections,
                                       uint64_t timeout_ms)
{
    CHECK(connections >= 1 && connections <= HTTP_CONNECTIONS_MAX);
    struct http_client *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    c->loop = loop;
    c->timeout_ns = timeout_ms * 1000000;
    if (url_resolve(c, url) != 0) {
        free(c);
        return NULL;
    }
    c->connections = calloc(connections, sizeof *c->connections);
    CHECK(c->connections != NULL);
    c->count = connections;
    for (unsigned i = 0; i < connections; i++) {
        c->connections[i].client = c;
        idle_push(&c->connections[i]);
    }
    CHECK(uv_timer_init(loop, &c->sweep) == 0);
    c->sweep.data = c;
    return c;
}

int http_client_warm(struct http_client *c)
{
    CHECK(c->in_flight == 0);
    for (;;) {
        unsigned closed = 0;
        unsigned ready = 0;
        for (unsigned i = 0; i < c->count; i++) {
            closed += c->connections[i].state == CONNECTION_CLOSED;
            ready += c->connections[i].state == CONNECTION_IDLE;
        }
        if (ready == c->count) {
            return 0;
        }
        if (closed + ready == c->count) {
            /* Open one at a time: a burst could overrun the server's listen queue. */
            struct http_connection *k = idle_pop(c);
            while (k->state == CONNECTION_IDLE) {
                idle_push(k);
                k = idle_pop(c);
            }
            connection_open(k);
            while (k->state == CONNECTION_CONNECTING || k->state == CONNECTION_CLOSING) {
                uv_run(c->loop, UV_RUN_ONCE);
            }
            if (k->state == CONNECTION_CLOSED) {
                return -1;
            }
        } else {
            uv_run(c->loop, UV_RUN_ONCE);
        }
    }
}

static void sweep_close_cb(uv_handle_t *handle)
{
    struct http_client *c = handle->data;
    c->sweep_closed = true;
}

void http_client_destroy(struct http_client *c)
{
    CHECK(c->in_flight == 0);
    c->destroying = true;
    for (unsigned i = 0; i < c->count; i++) {
        if (c->connections[i].state == CONNECTION_IDLE) {
            connection_fail(&c->connections[i], HTTP_BROKEN);
        }
    }
    uv_close((uv_handle_t *)&c->sweep, sweep_close_cb);
    while (c->open > 0 || !c->sweep_closed) {
        uv_run(c->loop, UV_RUN_ONCE);
    }
    for (unsigned i = 0; i < c->count; i++) {
        free(c->connections[i].in);
    }
    free(c->connections);
    free(c);
}
