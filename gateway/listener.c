/* Owns: listening. What is accepted belongs to connection.c from the first moment.
 *
 * Failure modes: the address is taken → the process does not start. Too many connections → accepted and
 * closed at once, so that the caller hears it now rather than when its patience ends. Out of file
 * descriptors → libuv keeps one in reserve for exactly this and drops the connection. */
#include "gateway/listener.h"

#include "base/log.h"
#include "gateway/connection.h"
#include "proto/address.h"

#define LISTEN_BACKLOG 1024

static void accept_cb(uv_stream_t *server, int status)
{
    struct listener *l = server->data;
    if (status == 0) {
        status = connection_accept(l);
    }
    if (status != 0) {
        log_warn("cannot accept a connection: %s", uv_strerror(status));
    }
}

int listener_open(struct gateway *g, enum listener_kind kind, const char *address)
{
    struct listener *l = &g->listeners[kind];
    char host[ADDRESS_HOST_SIZE];
    uint16_t port;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } at;
    l->gateway = g;
    l->kind = kind;
    if (address_parse(address, host, &port) != 0 ||
        (uv_ip4_addr(host, port, &at.v4) != 0 && uv_ip6_addr(host, port, &at.v6) != 0)) {
        log_error("%s is no address to listen at, such as 127.0.0.1:8080", address);
        return -1;
    }
    int result = uv_tcp_init(g->loop, &l->tcp);
    CHECK(result == 0);
    l->tcp.data = l;
    l->open = true;
    result = uv_tcp_bind(&l->tcp, &at.any, 0);
    if (result == 0) {
        result = uv_listen((uv_stream_t *)&l->tcp, LISTEN_BACKLOG, accept_cb);
    }
    if (result != 0) {
        log_error("cannot listen at %s: %s", address, uv_strerror(result));
        listener_close(l);
        return -1;
    }
    log_info("listening kind=%s address=%s port=%u", kind == LISTENER_PUBLIC ? "public" : "admin",
             host, listener_port(l));
    return 0;
}

unsigned listener_port(const struct listener *l)
{
    struct sockaddr_storage name;
    int size = sizeof name;
    if (uv_tcp_getsockname(&l->tcp, (struct sockaddr *)&name, &size) != 0) {
        return 0;
    }
    /* The port stands at the same place in both families. */
    const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&name;
    return (unsigned)((in->sin_port & 0xFF) << 8 | in->sin_port >> 8);
}

void listener_close(struct listener *l)
{
    if (l->open) {
        l->open = false;
        uv_close((uv_handle_t *)&l->tcp, NULL);
    }
}
