/* The listener of links: accepts, counts, and closes what it accepted.
 *
 * Failure modes: beyond connections_max a connection is accepted and closed at once (left in the
 * backlog it would keep its peer waiting); done is called only when every handle is gone. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "proto/link_internal.h"

#define LISTEN_BACKLOG 512

static void server_finish(struct link_server *s)
{
    if (!s->closing || s->handles_open > 0 || s->connections_count > 0) {
        return;
    }
    if (s->done != NULL) {
        s->done(s->done_ctx);
    }
    free(s);
}

static void server_handle_closed_cb(uv_handle_t *handle)
{
    struct link_server *s = handle->data;
    s->handles_open--;
    if (handle != (uv_handle_t *)&s->tcp) {
        free(handle);
    }
    server_finish(s);
}

void link_server_forget(struct link *l)
{
    struct link_server *s = l->server;
    if (l->prev != NULL) {
        l->prev->next = l->next;
    } else {
        s->links = l->next;
    }
    if (l->next != NULL) {
        l->next->prev = l->prev;
    }
    s->connections_count--;
    server_finish(s);
}

static void server_turn_away(struct link_server *s)
{
    uv_tcp_t *tcp = malloc(sizeof *tcp);
    CHECK(tcp != NULL);
    CHECK(uv_tcp_init(s->tcp.loop, tcp) == 0);
    tcp->data = s;
    s->handles_open++;
    (void)uv_accept((uv_stream_t *)&s->tcp, (uv_stream_t *)tcp);
    uv_close((uv_handle_t *)tcp, server_handle_closed_cb);
}

static void link_listen_cb(uv_stream_t *stream, int status)
{
    struct link_server *s = stream->data;
    if (s->closing) {
        return;
    }
    if (status < 0) {
        log_warn("accept: %s", uv_strerror(status));
        return;
    }
    if (s->connections_count >= s->connections_max) {
        server_turn_away(s);
        return;
    }
    struct link *l = link_create(stream->loop, &s->identity, &s->options, &s->callbacks);
    l->server = s;
    l->next = s->links;
    if (s->links != NULL) {
        s->links->prev = l;
    }
    s->links = l;
    s->connections_count++;
    l->state = LINK_AWAIT_HELLO;
    l->ctx = s->accept(s->ctx, l);
    if (l->state == LINK_CLOSING) {
        return;
    }
    int rv = uv_accept(stream, (uv_stream_t *)&l->tcp);
    if (rv < 0) {
        link_fail(l, "accept: %s", uv_strerror(rv));
        return;
    }
    link_accepted(l);
}

int link_listen(uv_loop_t *loop, const char *host, uint16_t port, unsigned connections_max,
                const struct link_identity *identity, const struct link_options *options,
                const struct link_callbacks *callbacks, link_accept_cb accept, void *server_ctx,
                struct link_server **server)
{
    struct sockaddr_storage address;
    if (uv_ip4_addr(host, port, (struct sockaddr_in *)(void *)&address) != 0 &&
        uv_ip6_addr(host, port, (struct sockaddr_in6 *)(void *)&address) != 0) {
        return UV_EINVAL;
    }
    link_init_once();
    struct link_server *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    s->identity = *identity;
    s->options = *options;
    s->callbacks = *callbacks;
    s->accept = accept;
    s->ctx = server_ctx;
    s->connections_max = connections_max;
    int rv = uv_tcp_init(loop, &s->tcp);
    if (rv < 0) {
        free(s);
        return rv;
    }
    s->tcp.data = s;
    s->handles_open = 1;
    rv = uv_tcp_bind(&s->tcp, (const struct sockaddr *)(const void *)&address, 0);
    if (rv == 0) {
        rv = uv_listen((uv_stream_t *)&s->tcp, LISTEN_BACKLOG, link_listen_cb);
    }
    if (rv < 0) {
        s->closing = true;
        uv_close((uv_handle_t *)&s->tcp, server_handle_closed_cb);
        return rv;
    }
    *server = s;
    return 0;
}

uint16_t link_server_port(const struct link_server *s)
{
    struct sockaddr_storage address;
    int size = sizeof address;
    CHECK(uv_tcp_getsockname(&s->tcp, (struct sockaddr *)(void *)&address, &size) == 0);
    return ntohs(address.ss_family == AF_INET6
                     ? ((struct sockaddr_in6 *)(void *)&address)->sin6_port
                     : ((struct sockaddr_in *)(void *)&address)->sin_port);
}

void link_server_close(struct link_server *s, void (*done)(void *ctx), void *ctx)
{
    CHECK(!s->closing);
    s->closing = true;
    s->done = done;
    s->done_ctx = ctx;
    /* link_close never calls back from within, so the list stands while we walk. */
    for (struct link *l = s->links; l != NULL; l = l->next) {
        link_close(l);
    }
    uv_close((uv_handle_t *)&s->tcp, server_handle_closed_cb);
}
