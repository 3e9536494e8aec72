/* What link.c, link_output.c and link_server.c share. Not for anybody else. */
#ifndef PROTO_LINK_INTERNAL_H
#define PROTO_LINK_INTERNAL_H

#include "proto/link.h"
#include "proto/link_handshake.h"

/* Life of a link. Every edge names the function that takes it.
 *
 *     CONNECTING --link_connect_cb--> AWAIT_REPLY --link_on_reply--> OPEN
 *     AWAIT_HELLO --link_on_hello--> AWAIT_PROOF --link_on_proof--> OPEN          (accepted)
 *     AWAIT_HELLO, AWAIT_PROOF --link_refuse--> REFUSED --deadline--> CLOSING     (accepted)
 *     any --link_fail--> CLOSING --all handles closed--> freed
 */
enum link_state {
    LINK_CONNECTING,
    LINK_AWAIT_REPLY,
    LINK_AWAIT_HELLO,
    LINK_AWAIT_PROOF,
    LINK_REFUSED, /* says nothing and reads nothing until the deadline: a stranger learns nothing */
    LINK_OPEN,
    LINK_CLOSING,
};

struct link_buffer {
    uint8_t *data;
    size_t capacity;
    size_t size;
};

struct link {
    uv_tcp_t tcp;
    uv_timer_t timer;   /* handshake deadline, then idle limit */
    uv_prepare_t flush; /* active while output waits: runs right before the loop waits */
    uv_connect_t connect;
    uv_write_t write;
    unsigned handles_open;
    enum link_state state;

    struct link_identity identity;
    struct link_options options;
    struct link_callbacks callbacks;
    void *ctx;
    struct link_handshake handshake;

    /* Input: bytes [in_start, in.size) are received and not yet consumed; in_start stays a multiple
     * of 8. */
    struct link_buffer in;
    size_t in_start;
    unsigned idle_checks;  /* in a row without input and without progress of the output */
    uint64_t idle_handed;  /* handed to the kernel as of the last check */

    /* Output: frames gather in `out`; while the kernel takes no more, `writing` belongs to libuv. */
    struct link_buffer out;
    struct link_buffer writing;
    bool write_busy;
    uint64_t out_total; /* bytes ever queued */
    size_t reserved; /* payload bytes of the frame under construction */
    bool has_reserved;

    struct link_server *server; /* of an accepted link, else NULL */
    struct link *prev, *next;   /* in the server's list */
    char refusal[128];
    char reason[128];
};

struct link_server {
    uv_tcp_t tcp;
    struct link_identity identity;
    struct link_options options;
    struct link_callbacks callbacks;
    link_accept_cb accept;
    void *ctx;
    struct link *links;
    unsigned connections_max, connections_count;
    unsigned handles_open; /* the listener and connections refused at accept */
    bool closing;
    void (*done)(void *ctx);
    void *done_ctx;
};

/* link.c */
struct link *link_create(uv_loop_t *loop, const struct link_identity *identity,
                         const struct link_options *options, const struct link_callbacks *callbacks);
void link_accepted(struct link *l); /* begins the server's side of the handshake */
void link_fail(struct link *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
void link_init_once(void);

/* link_output.c */
void link_output_raw(struct link *l, const void *data, size_t size); /* handshake bytes, at once */
void link_output_flush(struct link *l);
void link_flush_cb(uv_prepare_t *prepare);

/* link_server.c */
void link_server_forget(struct link *l); /* an accepted link is gone */

#endif
