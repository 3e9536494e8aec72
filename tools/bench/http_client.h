/* http_client: a small HTTP/1.1 client on libuv: N keep-alive connections to one server, one
 * request in flight on each (no pipelining: a browser does none), the rest waiting in order.
 *
 * What it owns: sockets, response buffers, deadlines. What it refuses: to build requests (the
 * caller hands whole requests over, so that the hot path changes a few digits and no more), to
 * retry (only the caller knows whether its request is idempotent), to guess (see http_reply.h).
 *
 * Happy path: http_client_submit → an idle connection → one write → one read → done(reply).
 *
 * Failure modes, all through done and never from within submit: the connection cannot be made
 * (nothing was sent), breaks, answers nonsense or answers too late: then what became of the request
 * is unknown, and the connection is closed. A server that closed an idle connection is connected to
 * again.
 *
 * Everything runs on the loop's thread. */
#ifndef TOOLS_BENCH_HTTP_CLIENT_H
#define TOOLS_BENCH_HTTP_CLIENT_H

#include <uv.h>

#include "tools/bench/http_reply.h"

#define HTTP_CONNECTIONS_MAX 16384

enum http_failure {
    HTTP_ANSWERED = 0,
    HTTP_UNREACHABLE, /* no connection: the request was not sent */
    HTTP_BROKEN,      /* closed or reset before the answer: outcome unknown */
    HTTP_TIMEOUT,     /* outcome unknown */
    HTTP_MALFORMED,   /* outcome unknown */
};
const char *http_failure_name(enum http_failure f); /* "TIMEOUT" */

struct http_exchange;
/* reply: zeroed but for `body` "" unless failure is HTTP_ANSWERED; lent until return. The exchange
 * is the caller's again: it may be submitted anew from here. */
typedef void (*http_done_cb)(struct http_exchange *x, enum http_failure failure,
                             const struct http_reply *reply);

/* One request and its answer: caller's memory, usually embedded. */
struct http_exchange {
    const char *request; /* a whole request; lent until done */
    size_t request_size;
    uint64_t timeout_ns; /* from submit, waiting included; 0: the client's */
    http_done_cb done;
    /* the rest is the client's */
    struct http_exchange *next;
    uint64_t deadline_ns;
};

struct http_client;

/* Prepares `connections` connections to url ("http://host:port", nothing after it); they are opened
 * when first needed. Returns NULL after saying on stderr what is wrong with the url. */
struct http_client *http_client_create(uv_loop_t *loop, const char *url, unsigned connections,
                                       uint64_t timeout_ms);
/* Closes everything and runs the loop until that is done; nothing may be in flight. Frees. */
void http_client_destroy(struct http_client *c);

/* Sends, now or when a connection is free. */
void http_client_submit(struct http_client *c, struct http_exchange *x);

/* Opens all connections ahead of need and runs the loop until they are there. Returns 0, or -1 when
 * one could not be made. */
int http_client_warm(struct http_client *c);

const char *
http_client_host(const struct http_client *c); /* "127.0.0.1:8080", for the Host header */
unsigned http_client_in_flight(const struct http_client *c); /* waiting ones included */

#endif
