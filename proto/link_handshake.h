/* link_handshake: the three messages that open a link, as bytes. Pure: no socket, no clock; nonces are
 * an argument. docs/adr/0005 gives the reasons.
 *
 *     client → server: hello(client)
 *     server → client: hello(server), MAC(key, "server", hello(client), hello(server))
 *     client → server: MAC(key, "client", hello(client), hello(server))
 *
 * Hello, 72 bytes, little-endian: u32 magic, u16 version_min, u16 version_max, u32 service, u32 version
 * (chosen, by the server only), u64 id, 16 bytes cluster id, 32 bytes nonce. */
#ifndef PROTO_LINK_HANDSHAKE_H
#define PROTO_LINK_HANDSHAKE_H

#include "proto/link.h"

#define LINK_NONCE_SIZE        32
#define LINK_HELLO_SIZE        72
#define LINK_MAC_SIZE          32
#define LINK_SERVER_REPLY_SIZE (LINK_HELLO_SIZE + LINK_MAC_SIZE)
_Static_assert(LINK_SERVER_REPLY_SIZE % 8 == 0 && LINK_MAC_SIZE % 8 == 0 && LINK_HELLO_SIZE % 8 == 0,
               "frames behind the handshake must stay 8-byte aligned");

enum link_handshake_result {
    LINK_HANDSHAKE_OK = 0,
    LINK_HANDSHAKE_NOT_LINK, /* another protocol */
    LINK_HANDSHAKE_VERSION,  /* no common version */
    LINK_HANDSHAKE_SERVICE,
    LINK_HANDSHAKE_CLUSTER,
    LINK_HANDSHAKE_IDENTITY, /* a peer without an id where one is needed, or with our own */
    LINK_HANDSHAKE_KEY,      /* does not hold the cluster key */
};

/* One side's view of a handshake under way. */
struct link_handshake {
    uint8_t client_hello[LINK_HELLO_SIZE];
    uint8_t server_hello[LINK_HELLO_SIZE];
    uint64_t peer_id;
    uint8_t cluster_id[LINK_CLUSTER_ID_SIZE]; /* agreed on; zero while a client does not know it */
    uint32_t version;
    uint16_t peer_version_min, peer_version_max; /* as its hello says */
};

/* Client, first: fills client_hello, which is to be sent. */
void link_handshake_begin(struct link_handshake *h, const struct link_identity *own,
                          const uint8_t nonce[static LINK_NONCE_SIZE]);
/* Server: judges the client's hello and, if it is acceptable, makes the reply. One is made with
 * LINK_HANDSHAKE_VERSION, too (its chosen version is 0), so that the client learns which versions there
 * are; a hello looks the same in all of them. */
enum link_handshake_result link_handshake_answer(struct link_handshake *h,
                                                 const struct link_identity *own,
                                                 const uint8_t nonce[static LINK_NONCE_SIZE],
                                                 const uint8_t hello[static LINK_HELLO_SIZE],
                                                 uint8_t reply[static LINK_SERVER_REPLY_SIZE]);
/* Client: judges the reply and, if the server holds the key, makes the proof. The link is then open. */
enum link_handshake_result link_handshake_prove(struct link_handshake *h,
                                                const struct link_identity *own,
                                                const uint8_t reply[static LINK_SERVER_REPLY_SIZE],
                                                uint8_t proof[static LINK_MAC_SIZE]);
/* Server, last: judges the proof. The link is then open. */
enum link_handshake_result link_handshake_verify(struct link_handshake *h,
                                                 const struct link_identity *own,
                                                 const uint8_t proof[static LINK_MAC_SIZE]);

const char *link_handshake_text(enum link_handshake_result result);
/* The same with what is known of this handshake: for LINK_HANDSHAKE_VERSION, both sides' versions. */
void link_handshake_describe(const struct link_handshake *h, enum link_handshake_result result,
                             char *out, size_t size);

#endif
