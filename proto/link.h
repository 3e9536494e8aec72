/* link: an authenticated, framed, ordered connection over TCP, on libuv.
 *
 * Both ports of a node speak it: Raft messages between nodes, and the node protocol between gateway,
 * CLI and nodes. What it owns: the socket, the handshake, framing, the bounded output queue. What it
 * refuses: to interpret a frame, to reconnect by itself, to encrypt.
 *
 * Handshake (mutual challenge and response; both sides prove that they hold the cluster key before
 * either looks at a frame; see docs/adr/0005):
 *     client: magic "HFLK", version range, service, cluster id, own id, 32-byte nonce
 *     server: the same of its own, chosen version, MAC over both hellos
 *     client: MAC over both hellos with the other direction's label
 * MAC = keyed BLAKE2b-256 (libsodium crypto_generichash). A peer with another key, cluster id or
 * service is told nothing but a close, after a fixed deadline LINK_HANDSHAKE_TIMEOUT_MS. Without a common
 * version the server still sends its hello, so that the client can say which versions there are.
 *
 * Frame: u32 size of payload (at most the limit given at init), u32 crc32c of payload, payload, zeros
 * up to the next multiple of 8 (so that every payload lies aligned in the receive buffer).
 *
 * Failure modes: any framing, CRC or authentication error, a peer silent for longer than the idle
 * limit, or a full output queue that the caller asked to treat as fatal, closes the link once with a
 * reason; no frame is delivered after that. Everything runs on the loop's thread.
 *
 * Output is handed to the kernel right before the loop would wait for events, or at once when much has
 * gathered. SIGPIPE is set to be ignored by the first call, unless the program has a handler. */
#ifndef PROTO_LINK_H
#define PROTO_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define LINK_KEY_SIZE             32
#define LINK_CLUSTER_ID_SIZE      16
#define LINK_VERSION_MIN          1
#define LINK_VERSION_MAX          1
#define LINK_HANDSHAKE_TIMEOUT_MS 2000
#define LINK_FRAME_SIZE_MAX       (64u << 20) /* upper bound of any configured limit */

enum link_service {
    LINK_SERVICE_RAFT = 1, /* node to node: consensus messages */
    LINK_SERVICE_NODE = 2, /* gateway, CLI or node to node: requests */
};

/* What both ends must agree on, and who we say we are. Copied. */
struct link_identity {
    uint8_t key[LINK_KEY_SIZE];               /* the cluster's shared secret */
    uint8_t cluster_id[LINK_CLUSTER_ID_SIZE]; /* all zero from a client: accepts any, learns it */
    enum link_service service;
    uint64_t id; /* node id, 0 for a client that is no node */
};

/* Reads a cluster key file: 64 hex digits, optional newline, not readable by others (mode 0600 or
 * 0400). Returns 0, or -1 after logging what is wrong. */
int link_read_key(const char *path, uint8_t key[static LINK_KEY_SIZE]);

struct link;

struct link_callbacks {
    /* The handshake succeeded: peer_id and, for a client, the cluster's id are known. */
    void (*open)(struct link *l, void *ctx);
    /* One whole frame; data is lent until return and is 8-byte aligned. Never called after close. */
    void (*frame)(struct link *l, void *ctx, const void *data, size_t size);
    /* The link is gone, exactly once, for a reason fit for a log line; also when the connect or the
     * handshake failed and when link_close was called (reason "closed"). The memory is freed after
     * return. */
    void (*closed)(struct link *l, void *ctx, const char *reason);
};

struct link_options {
    size_t frame_size_max;  /* larger frames from the peer close the link */
    size_t output_size_max; /* queued output beyond which link_send refuses */
    uint64_t idle_timeout_ms; /* 0: none. Sets TCP_USER_TIMEOUT too */
};

/* Connects to a numeric address. Returns NULL if the address is not one; every other failure is
 * reported through closed, never from within this call. */
struct link *link_connect(uv_loop_t *loop, const char *host, uint16_t port,
                          const struct link_identity *identity, const struct link_options *options,
                          const struct link_callbacks *callbacks, void *ctx);

/* Queues one frame made of two parts (part b may be NULL, 0). Copies. Returns 0, or -1 when the link is
 * not open or the output queue is full: then nothing of the frame is sent and the caller decides what
 * a lost frame means. Output of one loop iteration is joined into few writes. */
int link_send(struct link *l, const void *a, size_t a_size, const void *b, size_t b_size);

/* The same without a copy: returns where the size bytes of a frame's payload (8-byte aligned) must be
 * written, or NULL as link_send returns -1. Valid until link_commit, which queues the frame; no other
 * call on this link may come between. A reservation that is never committed is forgotten by the next
 * one. */
void *link_reserve(struct link *l, size_t size);
void link_commit(struct link *l);

/* Begins to close, after one attempt to hand queued output to the kernel; closed is called later,
 * once. Idempotent. */
void link_close(struct link *l);

bool link_is_open(const struct link *l);
uint64_t link_peer_id(const struct link *l);                 /* as authenticated; 0 for a client */
const uint8_t *link_cluster_id(const struct link *l);        /* LINK_CLUSTER_ID_SIZE bytes */
size_t link_output_queued(const struct link *l);             /* bytes not yet handed to the kernel */
void *link_ctx(const struct link *l);
void link_set_ctx(struct link *l, void *ctx);

/* A listener that hands out links whose handshake is under way. */
struct link_server;

/* Called for each accepted connection before its handshake; sets the ctx that its callbacks get. */
typedef void *(*link_accept_cb)(void *server_ctx, struct link *l);

/* Binds and listens. At most connections_max links at once: further ones are closed at accept.
 * port 0 chooses one: see link_server_port. Returns 0 or a negative libuv error. */
int link_listen(uv_loop_t *loop, const char *host, uint16_t port, unsigned connections_max,
                const struct link_identity *identity, const struct link_options *options,
                const struct link_callbacks *callbacks, link_accept_cb accept, void *server_ctx,
                struct link_server **server);
uint16_t link_server_port(const struct link_server *s);
/* Stops listening and closes all its links; done is called when nothing of it is left. */
void link_server_close(struct link_server *s, void (*done)(void *ctx), void *ctx);

#endif
