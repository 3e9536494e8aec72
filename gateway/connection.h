/* connection: one socket. Reads requests, has them run, writes the answers in the order of the
 * requests, whatever the order in which they become ready. */
#ifndef GATEWAY_CONNECTION_H
#define GATEWAY_CONNECTION_H

#include "gateway/exchange.h"

#define CONNECTION_LINGER_MS 2000 /* bytes read and thrown away after a last answer */

enum connection_state {
    CONNECTION_OPEN,
    CONNECTION_LINGERING, /* the last answer is written: only reading until the caller ends */
    CONNECTION_CLOSING,
};

struct connection {
    uv_tcp_t tcp;
    struct listener *listener;
    struct gateway *gateway;
    struct connection *prev, *next; /* all of them */
    enum connection_state state;
    bool dirty, writing, last, ended; /* last: no request after those queued; ended: EOF was read */
    struct connection *next_dirty;
    struct http_parser parser;
    struct exchange *reading;      /* the request that is being read; NULL between two */
    struct exchange *first, *tail; /* to be answered, in order; reading is not among them */
    unsigned queued;
    char *
        held; /* bytes not yet parsed, because the pipeline is full or an answer waits to be taken */
    size_t held_size;
    size_t writing_size; /* bytes of the write under way */
    bool paused;         /* not reading from the socket */
    enum wait_kind waiting;
    uint64_t waiting_since_ms;
    struct connection *wait_prev, *wait_next;
    uv_write_t write;
    uv_shutdown_t shutdown;
};

/* Takes over what the listener accepts. Returns 0 or a negative libuv error. */
int connection_accept(struct listener *l);

/* An exchange of this connection has got its answer. */
void connection_answered(struct connection *c);

/* Writes all that is ready. Once after I/O and once before the loop waits. */
void connections_flush(struct gateway *g);
/* Ends what took too long. Every GATEWAY_TICK_MS. */
void connections_tick(struct gateway *g);
/* Closes those on which nothing is going on; the others end with their last answer. */
void connections_drain(struct gateway *g);
/* Closes all, at once. */
void connections_close(struct gateway *g);

#endif
