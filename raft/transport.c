/* One outgoing and one incoming link per peer; see transport.h for what is promised.
 *
 *     peer.out   NULL --peer_connect--> connecting --out_open--> open --out_closed--> NULL, retry
 * later peer.in    NULL --in_bind--> open --in_closed, or replaced by a newer one--> NULL connected
 * = out open and in open; peer_update tells the driver of each change, once
 *
 * A removed peer leaves the table at once and its memory later, when its links and timer are
 * closed; so no callback meets freed memory, and the same id may be added again meanwhile. */
#include "raft/transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "proto/address.h"

#define STABLE_MS 1000u /* a connection that stood so long resets the backoff */

struct transport;

struct incoming {
    struct transport *transport;
    struct link *link;
    struct peer *peer; /* NULL until bound, and after being replaced */
    uint64_t accepted; /* order of accept: the larger, the newer */
};

struct peer {
    struct transport *transport;
    uint64_t id;
    char address[TRANSPORT_ADDRESS_SIZE];
    char host[ADDRESS_HOST_SIZE];
    uint16_t port;
    struct link *out;
    bool out_open;
    uint64_t out_opened_ms;
    struct incoming *in;
    uv_timer_t retry;
    bool timer_closed;
    uint64_t backoff_ms;
    uint64_t ping_seq, ping_ns;    /* the last one sent, and when */
    struct format_range formats; /* as it said last; newest 0: not yet */
    bool refused;                /* they do not meet ours */
    bool connected;              /* as told to the driver */
    bool complained; /* of this outage, in the log */
    bool removed;
};

struct transport {
    uv_loop_t *loop;
    struct link_identity identity;
    struct transport_callbacks callbacks;
    void *ctx;
    struct link_server *server;
    uv_timer_t ping;
    uint64_t ping_seq;
    uint64_t accept_sequence;
    struct format_range formats;
    char advertise[TRANSPORT_ADDRESS_SIZE];
    struct peer *peers[TRANSPORT_PEERS_MAX]; /* [0, peers_count) in no order */
    unsigned peers_count;
    unsigned pending; /* peers, listener and timer that still have to close */
    struct transport_stats stats;
    bool closing;
    void (*done)(void *ctx);
    void *done_ctx;
};

static const struct link_options link_options = {
    .frame_size_max = MESSAGE_SIZE_MAX,
    .output_size_max = TRANSPORT_OUTPUT_SIZE_MAX,
    .idle_timeout_ms = TRANSPORT_IDLE_TIMEOUT_MS,
};
_Static_assert(MESSAGE_SIZE_MAX <= TRANSPORT_OUTPUT_SIZE_MAX, "the largest message can be queued");
_Static_assert(2 * TRANSPORT_PING_INTERVAL_MS < TRANSPORT_IDLE_TIMEOUT_MS,
               "one lost ping closes nothing");

static struct peer *find_peer(const struct transport *t, uint64_t id)
{
    for (unsigned i = 0; i < t->peers_count; i++) {
        if (t->peers[i]->id == id) {
            return t->peers[i];
        }
    }
    return NULL;
}

static void transport_release(struct transport *t)
{
    CHECK(t->pending > 0);
    if (--t->pending > 0 || !t->closing) {
        return;
    }
    void (*done)(void *) = t->done;
    void *done_ctx = t->done_ctx;
    free(t);
    if (done != NULL) {
        done(done_ctx);
    }
}

static bool send_on(struct transport *t, struct link *l, const struct message_out *m)
{
    size_t size = message_size(m);
    void *at = size > 0 ? link_reserve(l, size) : NULL;
    if (at == NULL) {
        return false;
    }
    message_encode(m, at);
    link_commit(l);
    t->stats.bytes_sent += size;
    return true;
}

/* ---- peers ---- */

static void peer_free_if_gone(struct peer *p)
{
    if (p->removed && p->timer_closed && p->out == NULL && p->in == NULL) {
        struct transport *t = p->transport;
        free(p);
        transport_release(t);
    }
}

/* Tells the driver when the state has changed. May free p. Only called from callbacks of the loop.
 */
static void peer_update(struct peer *p)
{
    struct transport *t = p->transport;
    bool connected = p->out_open && p->in != NULL && !p->removed && !p->refused;
    if (connected != p->connected) {
        p->connected = connected;
        if (!t->closing) {
            (connected ? t->callbacks.peer_connected : t->callbacks.peer_disconnected)(t->ctx,
                                                                                       p->id);
        }
    }
    peer_free_if_gone(p);
}

static void peer_connect(struct peer *p);

static void peer_retry_cb(uv_timer_t *timer)
{
    peer_connect(timer->data);
}

static void peer_timer_closed_cb(uv_handle_t *handle)
{
    struct peer *p = handle->data;
    p->timer_closed = true;
    peer_update(p);
}

/* ---- outgoing links: we send, the peer answers pings ---- */

static void peer_ping(struct peer *p)
{
    struct transport *t = p->transport;
    struct message_out ping = {.kind = MESSAGE_PING, .seq = ++t->ping_seq};
    p->ping_seq = ping.seq;
    p->ping_ns = clock_monotonic_ns();
    (void)send_on(t, p->out, &ping);
}

/* Only the answer to the last ping: of an older one it is not known any more when it was sent. */
static void peer_pong(struct peer *p, const struct message *m)
{
    struct transport *t = p->transport;
    if (m->clock.monotonic_ns != 0 && m->seq == p->ping_seq && t->callbacks.clock_sample != NULL &&
        !t->closing) {
        t->callbacks.clock_sample(t->ctx, p->id, &m->clock, m->term, p->ping_ns,
                                  clock_monotonic_ns());
    }
}

static void out_open(struct link *l, void *ctx)
{
    struct peer *p = ctx;
    struct transport *t = p->transport;
    if (link_peer_id(l) != p->id) {
        log_warn("raft: %s is node %llu, not node %llu: check the addresses of the members",
                 p->address, (unsigned long long)link_peer_id(l), (unsigned long long)p->id);
        link_close(l);
        return;
    }
    p->out_open = true;
    p->out_opened_ms = uv_now(t->loop);
    p->complained = false;
    t->stats.connects++;
    struct message_out hello = {.kind = MESSAGE_HELLO,
                                .data = t->advertise,
                                .data_size = strlen(t->advertise),
                                .seq = t->formats.oldest,
                                .index = t->formats.newest};
    (void)send_on(t, l, &hello);
    peer_ping(p);
    peer_update(p);
}

static void out_frame(struct link *l, void *ctx, const void *data, size_t size)
{
    struct peer *p = ctx;
    struct message m;
    if (message_decode(data, size, &m) != 0 || m.kind != MESSAGE_PONG) {
        log_warn("raft: node %llu sent what does not belong on this connection",
                 (unsigned long long)p->id);
        link_close(l);
        return;
    }
    peer_pong(p, &m);
}

static void out_closed(struct link *l, void *ctx, const char *reason)
{
    (void)l;
    struct peer *p = ctx;
    if (!p->complained && !p->removed && !p->refused) {
        p->complained = true;
        log_info("raft: connection to node %llu at %s: %s", (unsigned long long)p->id, p->address,
                 reason);
    }
    bool stable = p->out_open && uv_now(p->transport->loop) - p->out_opened_ms >= STABLE_MS;
    p->out = NULL;
    p->out_open = false;
    if (!p->removed) {
        if (stable) {
            p->backoff_ms = TRANSPORT_BACKOFF_MIN_MS;
        }
        uv_timer_start(&p->retry, peer_retry_cb, p->backoff_ms, 0);
        p->backoff_ms *= 2;
        if (p->backoff_ms > TRANSPORT_BACKOFF_MAX_MS) {
            p->backoff_ms = TRANSPORT_BACKOFF_MAX_MS;
        }
    }
    peer_update(p);
}

static const struct link_callbacks out_callbacks = {out_open, out_frame, out_closed};

static void peer_connect(struct peer *p)
{
    CHECK(p->out == NULL);
    p->out = link_connect(p->transport->loop, p->host, p->port, &p->transport->identity,
                          &link_options, &out_callbacks, p);
    CHECK(p->out != NULL); /* the address was checked when it was set */
}

/* ---- incoming links: the peer sends, we answer pings ---- */

static void *in_accept(void *ctx, struct link *l)
{
    struct transport *t = ctx;
    struct incoming *in = calloc(1, sizeof *in);
    CHECK(in != NULL);
    in->transport = t;
    in->link = l;
    in->accepted = ++t->accept_sequence;
    return in;
}

/* Makes this link the one we listen to, unless a newer one is there already. The order of accept is
 * the order in which the peer made them, for every link that can get here: peer: connect 1 ... our
 * nonce received, proof sent, frames sent ... closed; connect 2 we accepted 1 before we sent the
 * nonce, so before connect 2 began The order in which handshakes *end* here may differ, and an
 * older link that opens later would replay what it still has in its buffers. */
static void in_bind(struct incoming *in, struct peer *p)
{
    if (p->in != NULL && p->in->accepted > in->accepted) {
        link_close(in->link);
        return;
    }
    struct incoming *older = p->in;
    in->peer = p;
    p->in = in;
    if (older != NULL) {
        older->peer = NULL;
        link_close(older->link); /* delivers nothing any more */
    }
    peer_update(p);
}

static void in_open(struct link *l, void *ctx)
{
    struct incoming *in = ctx;
    struct peer *p = find_peer(in->transport, link_peer_id(l));
    if (p != NULL) {
        in_bind(in, p);
    }
    /* Otherwise its hello decides. */
}

static struct format_range hello_formats(const struct message *m)
{
    if (m->index == 0 || m->index > UINT32_MAX || m->seq > m->index) {
        return (struct format_range){FORMAT_INITIAL, FORMAT_INITIAL}; /* from before they were said */
    }
    return (struct format_range){(uint32_t)m->seq, (uint32_t)m->index};
}

static void log_refused(const struct transport *t, uint64_t id, struct format_range theirs)
{
    bool they_are_older = theirs.newest < t->formats.oldest;
    log_error("raft: node %llu reads formats up to %u and needs %u, this node reads up to %u and needs "
              "%u: refused. Upgrade the program of %s (docs/operations/upgrade.md)",
              (unsigned long long)id, theirs.newest, theirs.oldest, t->formats.newest,
              t->formats.oldest, they_are_older ? "that node" : "this node");
}

/* false: it is refused and its connection closes. p: NULL for a stranger. */
static bool in_hello(struct incoming *in, struct peer *p, const struct message *m)
{
    struct transport *t = in->transport;
    struct format_range theirs = hello_formats(m);
    bool refused = !format_ranges_meet(theirs, t->formats);
    if (refused && (p == NULL || !p->refused)) {
        log_refused(t, link_peer_id(in->link), theirs);
    }
    if (p != NULL) {
        p->formats = theirs;
        p->refused = refused;
    }
    if (refused) {
        link_close(in->link);
    }
    if (p != NULL) {
        peer_update(p);
    }
    return !refused;
}

/* The first frame of a node that is no peer of ours. */
static void in_stranger(struct incoming *in, const struct message *m)
{
    struct transport *t = in->transport;
    uint64_t id = link_peer_id(in->link);
    char address[TRANSPORT_ADDRESS_SIZE];
    struct str given = {m->data, (uint32_t)m->data_size};
    if (m->kind != MESSAGE_HELLO || given.len == 0 || memchr(given.ptr, '\0', given.len) != NULL ||
        !str_copy(address, sizeof address, given)) {
        link_close(in->link);
        return;
    }
    if (!in_hello(in, NULL, m)) {
        return;
    }
    if (t->callbacks.stranger != NULL && !t->closing) {
        t->callbacks.stranger(t->ctx, id, address);
    }
    struct peer *p = find_peer(t, id);
    if (p != NULL) {
        p->formats = hello_formats(m);
        in_bind(in, p);
        return;
    }
    log_debug("raft: node %llu at %s is no member: refused", (unsigned long long)id, address);
    link_close(in->link);
}

static void in_frame(struct link *l, void *ctx, const void *data, size_t size)
{
    struct incoming *in = ctx;
    struct transport *t = in->transport;
    struct message m;
    if (message_decode(data, size, &m) != 0) {
        log_warn("raft: malformed message of %zu bytes from node %llu: closing its connection",
                 size, (unsigned long long)link_peer_id(l));
        link_close(l);
        return;
    }
    if (in->peer == NULL) {
        in_stranger(in, &m);
        return;
    }
    if (m.kind == MESSAGE_PING) {
        struct message_out pong = {.kind = MESSAGE_PONG, .seq = m.seq};
        if (t->callbacks.clock_read != NULL && !t->closing) {
            t->callbacks.clock_read(t->ctx, &pong.clock, &pong.term);
        }
        (void)send_on(t, l, &pong);
        return;
    }
    if (m.kind == MESSAGE_HELLO) {
        (void)in_hello(in, in->peer, &m);
        return;
    }
    if (m.kind == MESSAGE_PONG) {
        return;
    }
    t->stats.messages_received++;
    if (!t->closing && !in->peer->refused) {
        t->callbacks.message(t->ctx, in->peer->id, &m);
    }
}

static void in_closed(struct link *l, void *ctx, const char *reason)
{
    struct incoming *in = ctx;
    struct peer *p = in->peer;
    log_debug("raft: connection from node %llu: %s", (unsigned long long)link_peer_id(l), reason);
    free(in);
    if (p != NULL) {
        p->in = NULL;
        peer_update(p);
    }
}

static const struct link_callbacks in_callbacks = {in_open, in_frame, in_closed};

/* ---- public ---- */

static void transport_ping_cb(uv_timer_t *timer)
{
    struct transport *t = timer->data;
    for (unsigned i = 0; i < t->peers_count; i++) {
        if (t->peers[i]->out_open) {
            peer_ping(t->peers[i]);
        }
    }
}

int transport_create(const struct transport_config *config,
                     const struct transport_callbacks *callbacks, void *ctx,
                     struct transport **transport)
{
    struct transport *t = calloc(1, sizeof *t);
    CHECK(t != NULL);
    t->loop = config->loop;
    t->identity = config->identity;
    t->identity.service = LINK_SERVICE_RAFT;
    t->callbacks = *callbacks;
    t->ctx = ctx;
    t->formats = config->formats.newest != 0 ? config->formats
                                             : (struct format_range){FORMAT_OLDEST, FORMAT_NEWEST};
    CHECK(t->identity.id != 0);
    int rv =
        link_listen(t->loop, config->listen_host, config->listen_port, TRANSPORT_CONNECTIONS_MAX,
                    &t->identity, &link_options, &in_callbacks, in_accept, t, &t->server);
    if (rv < 0) {
        log_error("raft: cannot listen on %s:%u: %s", config->listen_host, config->listen_port,
                  uv_strerror(rv));
        free(t);
        return rv;
    }
    bool v6 = strchr(config->listen_host, ':') != NULL;
    const char *advertise = config->advertise != NULL ? config->advertise : "";
    int n = advertise[0] != '\0'
                ? snprintf(t->advertise, sizeof t->advertise, "%s", advertise)
                : snprintf(t->advertise, sizeof t->advertise, v6 ? "[%s]:%u" : "%s:%u",
                           config->listen_host, link_server_port(t->server));
    CHECK(n > 0 && (size_t)n < sizeof t->advertise);
    CHECK(uv_timer_init(t->loop, &t->ping) == 0);
    t->ping.data = t;
    uv_timer_start(&t->ping, transport_ping_cb, TRANSPORT_PING_INTERVAL_MS,
                   TRANSPORT_PING_INTERVAL_MS);
    t->pending = 2; /* the listener and the timer */
    *transport = t;
    return 0;
}

uint16_t transport_port(const struct transport *t)
{
    return link_server_port(t->server);
}

int transport_set_peer(struct transport *t, uint64_t id, const char *address)
{
    char host[ADDRESS_HOST_SIZE];
    uint16_t port;
    if (id == 0 || id == t->identity.id || strlen(address) >= TRANSPORT_ADDRESS_SIZE ||
        address_parse(address, host, &port) != 0 || port == 0) {
        return -1;
    }
    struct peer *p = find_peer(t, id);
    if (p != NULL && strcmp(p->address, address) == 0) {
        return 0;
    }
    if (p == NULL) {
        if (t->peers_count == TRANSPORT_PEERS_MAX) {
            return -1;
        }
        p = calloc(1, sizeof *p);
        CHECK(p != NULL);
        p->transport = t;
        p->id = id;
        CHECK(uv_timer_init(t->loop, &p->retry) == 0);
        p->retry.data = p;
        t->peers[t->peers_count++] = p;
        t->pending++;
    }
    p->port = port;
    memcpy(p->host, host, sizeof host);
    memcpy(p->address, address, strlen(address) + 1);
    p->backoff_ms = TRANSPORT_BACKOFF_MIN_MS;
    if (p->out != NULL) {
        link_close(p->out); /* out_closed connects anew */
    } else {
        uv_timer_start(&p->retry, peer_retry_cb, 0, 0);
    }
    return 0;
}

static void peer_remove(struct peer *p)
{
    p->removed = true;
    if (p->out != NULL) {
        link_close(p->out);
    }
    p->out_open = false;
    if (p->in != NULL) {
        link_close(p->in->link);
    }
    uv_close((uv_handle_t *)&p->retry, peer_timer_closed_cb);
}

void transport_remove_peer(struct transport *t, uint64_t id)
{
    for (unsigned i = 0; i < t->peers_count; i++) {
        struct peer *p = t->peers[i];
        if (p->id == id) {
            t->peers[i] = t->peers[--t->peers_count];
            peer_remove(p);
            return;
        }
    }
}

bool transport_send(struct transport *t, uint64_t to_id, const struct message_out *m)
{
    struct peer *p = find_peer(t, to_id);
    if (p == NULL || !p->out_open || p->refused || !send_on(t, p->out, m)) {
        t->stats.messages_dropped++;
        return false;
    }
    t->stats.messages_sent++;
    return true;
}

bool transport_is_connected(const struct transport *t, uint64_t id)
{
    const struct peer *p = find_peer(t, id);
    return p != NULL && p->connected;
}

bool transport_peer_formats(const struct transport *t, uint64_t id, struct format_range *formats)
{
    const struct peer *p = find_peer(t, id);
    if (p == NULL || p->formats.newest == 0) {
        return false;
    }
    *formats = p->formats;
    return true;
}

void transport_get_stats(const struct transport *t, struct transport_stats *stats)
{
    *stats = t->stats;
}

static void transport_server_closed_cb(void *ctx)
{
    transport_release(ctx);
}

static void transport_ping_closed_cb(uv_handle_t *handle)
{
    transport_release(handle->data);
}

void transport_destroy(struct transport *t, void (*done)(void *ctx), void *ctx)
{
    CHECK(!t->closing);
    t->closing = true;
    t->done = done;
    t->done_ctx = ctx;
    while (t->peers_count > 0) {
        peer_remove(t->peers[--t->peers_count]);
    }
    uv_close((uv_handle_t *)&t->ping, transport_ping_closed_cb);
    link_server_close(t->server, transport_server_closed_cb, t);
}
