/* transport: messages between the nodes of one group, over authenticated links.
 *
 * What it owns: one outgoing link per peer (we send on it), the newest incoming link per peer (we
 * receive on it), reconnecting, liveness of idle connections. What it refuses: to queue for a peer that
 * is away, to retry, to believe an identity that a message claims.
 *
 * Guarantees to the driver (raft.md calls them guard 1): per peer, messages arrive in the order sent,
 * none twice, and after a newer connection of a peer counts nothing of an older one is delivered.
 * Messages may be lost, whole: Raft sends again.
 *
 * Why accept order decides which connection is newer: a connection can only deliver a frame after it
 * answered our nonce, so we had accepted it before its peer began the next one.
 *
 * A peer that cannot read the format in force here, or needs one that we cannot read, is refused: its
 * messages are not delivered, nothing is sent to it, and the log says which side to upgrade.
 *
 * Failure modes: a peer that cannot be reached is tried again for ever, 50 ms to 1 s apart; a full
 * output queue drops the message; a malformed message closes that connection with a log line. All on
 * the loop's thread. No callback is made from within a call into the transport. */
#ifndef RAFT_TRANSPORT_H
#define RAFT_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "proto/format.h"
#include "proto/link.h"
#include "raft/message.h"

#define TRANSPORT_PEERS_MAX          16u
#define TRANSPORT_CONNECTIONS_MAX    64u /* incoming, handshakes under way included */
#define TRANSPORT_OUTPUT_SIZE_MAX    (64u << 20)
#define TRANSPORT_BACKOFF_MIN_MS     50u
#define TRANSPORT_BACKOFF_MAX_MS     1000u
#define TRANSPORT_PING_INTERVAL_MS   500u
#define TRANSPORT_IDLE_TIMEOUT_MS    2000u
#define TRANSPORT_ADDRESS_SIZE       64u

struct transport_callbacks {
    /* m and what it points to are lent until return. Only from peers that were added. */
    void (*message)(void *ctx, uint64_t from_id, const struct message *m);
    /* Both directions stand. */
    void (*peer_connected)(void *ctx, uint64_t id);
    /* After peer_connected: either direction closed (promptly on FIN or RST), or the peer was removed.
     * The two alternate. A newer connection that replaces an older one is no disconnection. */
    void (*peer_disconnected)(void *ctx, uint64_t id);
    /* A node that holds the cluster key but was not added connects, and says that it listens on
     * `address`: a leader that wants to add us, before we know any configuration. May call
     * transport_set_peer; otherwise the connection is closed. NULL: always closed. */
    void (*stranger)(void *ctx, uint64_t id, const char *address);
    /* Each ping that is answered is a sample of the peer's clocks: asked at sent_ns, told at
     * received_ns, both on our monotonic clock. clock_read fills what our own answers carry (zeroed
     * before). Either may be NULL. docs/adr/0016 */
    void (*clock_read)(void *ctx, struct message_clock *clock, uint64_t *term);
    void (*clock_sample)(void *ctx, uint64_t id, const struct message_clock *clock, uint64_t term,
                         uint64_t sent_ns, uint64_t received_ns);
};

struct transport_config {
    uv_loop_t *loop;
    const char *listen_host; /* numeric; borrowed during create */
    uint16_t listen_port;    /* 0: choose one, see transport_port */
    struct link_identity identity; /* key, cluster id, id; the service is set here */
    struct format_range formats; /* needed and readable here; newest 0: all that this program knows */
    /* Under which the others reach us, for their `stranger`; NULL or "": listen_host and the port.
     * Borrowed during create. */
    const char *advertise;
};

struct transport;

/* Listens. 0, or a negative libuv error after logging it. */
int transport_create(const struct transport_config *config,
                     const struct transport_callbacks *callbacks, void *ctx,
                     struct transport **transport);
uint16_t transport_port(const struct transport *t);

/* Adds a peer or changes its address (proto/address.h), and begins to connect. 0, or -1 if the address
 * is not one, the id is 0 or our own, or there are too many peers. Same address again: nothing happens. */
int transport_set_peer(struct transport *t, uint64_t id, const char *address);
/* Closes its connections and forgets it; frames of it are refused from now on. Unknown id: nothing. */
void transport_remove_peer(struct transport *t, uint64_t id);

/* Encodes straight into the output queue. false: dropped (unknown peer, not connected, queue full, or
 * larger than MESSAGE_SIZE_MAX). */
bool transport_send(struct transport *t, uint64_t to_id, const struct message_out *m);

bool transport_is_connected(const struct transport *t, uint64_t id);

/* What the peer said when it connected last; false: it never did. */
bool transport_peer_formats(const struct transport *t, uint64_t id, struct format_range *formats);

struct transport_stats {
    uint64_t messages_sent, messages_received, messages_dropped, bytes_sent, connects;
};
void transport_get_stats(const struct transport *t, struct transport_stats *stats);

/* Closes everything; done is called when nothing is left. No callback after this but done. */
void transport_destroy(struct transport *t, void (*done)(void *ctx), void *ctx);

#endif
