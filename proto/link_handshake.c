#include "proto/link_handshake.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"

#define LINK_MAGIC 0x4B4C4648u /* "HFLK" */

_Static_assert(LINK_MAC_SIZE == crypto_generichash_BYTES, "BLAKE2b-256");
_Static_assert(LINK_KEY_SIZE == crypto_generichash_KEYBYTES, "keyed BLAKE2b");

/* The label differs by direction, so that neither side's MAC can be reflected to it. */
static const char label_server[24] = "holdfast link 1 server";
static const char label_client[24] = "holdfast link 1 client";

struct hello {
    uint32_t magic;
    uint16_t version_min, version_max;
    uint32_t service, version;
    uint64_t id;
    const uint8_t *cluster_id;
};

static void hello_encode(uint8_t out[static LINK_HELLO_SIZE], const struct link_identity *own,
                         uint32_t version, const uint8_t nonce[static LINK_NONCE_SIZE])
{
    struct writer w = writer_init(out, LINK_HELLO_SIZE);
    writer_u32(&w, LINK_MAGIC);
    writer_u16(&w, LINK_VERSION_MIN);
    writer_u16(&w, LINK_VERSION_MAX);
    writer_u32(&w, (uint32_t)own->service);
    writer_u32(&w, version);
    writer_u64(&w, own->id);
    writer_bytes(&w, own->cluster_id, LINK_CLUSTER_ID_SIZE);
    writer_bytes(&w, nonce, LINK_NONCE_SIZE);
    CHECK(!w.failed);
    CHECK(writer_size(&w) == LINK_HELLO_SIZE);
}

static struct hello hello_decode(const uint8_t in[static LINK_HELLO_SIZE])
{
    struct reader r = reader_init(in, LINK_HELLO_SIZE);
    struct hello h;
    h.magic = reader_u32(&r);
    h.version_min = reader_u16(&r);
    h.version_max = reader_u16(&r);
    h.service = reader_u32(&r);
    h.version = reader_u32(&r);
    h.id = reader_u64(&r);
    h.cluster_id = reader_bytes(&r, LINK_CLUSTER_ID_SIZE);
    return h;
}

static void handshake_mac(const struct link_handshake *h, const struct link_identity *own,
                          const char label[static 24], uint8_t mac[static LINK_MAC_SIZE])
{
    crypto_generichash_state state;
    crypto_generichash_init(&state, own->key, LINK_KEY_SIZE, LINK_MAC_SIZE);
    crypto_generichash_update(&state, (const uint8_t *)label, 24);
    crypto_generichash_update(&state, h->client_hello, LINK_HELLO_SIZE);
    crypto_generichash_update(&state, h->server_hello, LINK_HELLO_SIZE);
    crypto_generichash_final(&state, mac, LINK_MAC_SIZE);
    sodium_memzero(&state, sizeof state);
}

/* What both sides ask of the other's hello, in order of precedence. Cluster ids are compared by the
 * caller, since each side has its own rule for an unknown one. */
static enum link_handshake_result hello_judge(const struct hello *peer,
                                              const struct link_identity *own)
{
    if (peer->magic != LINK_MAGIC || peer->version_min > peer->version_max) {
        return LINK_HANDSHAKE_NOT_LINK;
    }
    if (peer->version_max < LINK_VERSION_MIN || peer->version_min > LINK_VERSION_MAX) {
        return LINK_HANDSHAKE_VERSION;
    }
    if (peer->service != (uint32_t)own->service) {
        return LINK_HANDSHAKE_SERVICE;
    }
    /* Consensus is spoken between different nodes only. */
    if (own->service == LINK_SERVICE_RAFT && (peer->id == 0 || peer->id == own->id)) {
        return LINK_HANDSHAKE_IDENTITY;
    }
    return LINK_HANDSHAKE_OK;
}

static bool cluster_equal(const uint8_t *a, const uint8_t *b)
{
    return memcmp(a, b, LINK_CLUSTER_ID_SIZE) == 0; /* not secret */
}

static bool cluster_unknown(const uint8_t *id)
{
    return sodium_is_zero(id, LINK_CLUSTER_ID_SIZE) == 1;
}

void link_handshake_begin(struct link_handshake *h, const struct link_identity *own,
                          const uint8_t nonce[static LINK_NONCE_SIZE])
{
    memset(h, 0, sizeof *h);
    memcpy(h->cluster_id, own->cluster_id, LINK_CLUSTER_ID_SIZE);
    hello_encode(h->client_hello, own, 0, nonce);
}

enum link_handshake_result link_handshake_answer(struct link_handshake *h,
                                                 const struct link_identity *own,
                                                 const uint8_t nonce[static LINK_NONCE_SIZE],
                                                 const uint8_t hello[static LINK_HELLO_SIZE],
                                                 uint8_t reply[static LINK_SERVER_REPLY_SIZE])
{
    memset(h, 0, sizeof *h);
    struct hello peer = hello_decode(hello);
    enum link_handshake_result result = hello_judge(&peer, own);
    if (result != LINK_HANDSHAKE_OK && result != LINK_HANDSHAKE_VERSION) {
        return result;
    }
    h->peer_version_min = peer.version_min;
    h->peer_version_max = peer.version_max;
    bool client_may_learn = own->service != LINK_SERVICE_RAFT && cluster_unknown(peer.cluster_id);
    if (!client_may_learn && !cluster_equal(peer.cluster_id, own->cluster_id)) {
        return LINK_HANDSHAKE_CLUSTER;
    }
    h->peer_id = peer.id;
    h->version = result == LINK_HANDSHAKE_VERSION        ? 0
                 : peer.version_max < LINK_VERSION_MAX ? peer.version_max
                                                       : LINK_VERSION_MAX;
    memcpy(h->cluster_id, own->cluster_id, LINK_CLUSTER_ID_SIZE);
    memcpy(h->client_hello, hello, LINK_HELLO_SIZE);
    hello_encode(h->server_hello, own, h->version, nonce);
    memcpy(reply, h->server_hello, LINK_HELLO_SIZE);
    handshake_mac(h, own, label_server, reply + LINK_HELLO_SIZE);
    return result;
}

enum link_handshake_result link_handshake_prove(struct link_handshake *h,
                                                const struct link_identity *own,
                                                const uint8_t reply[static LINK_SERVER_REPLY_SIZE],
                                                uint8_t proof[static LINK_MAC_SIZE])
{
    struct hello peer = hello_decode(reply);
    enum link_handshake_result result = hello_judge(&peer, own);
    h->peer_version_min = peer.version_min;
    h->peer_version_max = peer.version_max;
    if (result != LINK_HANDSHAKE_OK) {
        return result;
    }
    if (peer.version < LINK_VERSION_MIN || peer.version > LINK_VERSION_MAX) {
        return LINK_HANDSHAKE_VERSION;
    }
    if (!cluster_unknown(own->cluster_id) && !cluster_equal(peer.cluster_id, own->cluster_id)) {
        return LINK_HANDSHAKE_CLUSTER;
    }
    memcpy(h->server_hello, reply, LINK_HELLO_SIZE);
    uint8_t expected[LINK_MAC_SIZE];
    handshake_mac(h, own, label_server, expected);
    if (sodium_memcmp(expected, reply + LINK_HELLO_SIZE, LINK_MAC_SIZE) != 0) {
        return LINK_HANDSHAKE_KEY;
    }
    h->peer_id = peer.id;
    h->version = peer.version;
    memcpy(h->cluster_id, peer.cluster_id, LINK_CLUSTER_ID_SIZE);
    handshake_mac(h, own, label_client, proof);
    return LINK_HANDSHAKE_OK;
}

enum link_handshake_result link_handshake_verify(struct link_handshake *h,
                                                 const struct link_identity *own,
                                                 const uint8_t proof[static LINK_MAC_SIZE])
{
    uint8_t expected[LINK_MAC_SIZE];
    handshake_mac(h, own, label_client, expected);
    return sodium_memcmp(expected, proof, LINK_MAC_SIZE) == 0 ? LINK_HANDSHAKE_OK
                                                              : LINK_HANDSHAKE_KEY;
}

const char *link_handshake_text(enum link_handshake_result result)
{
    switch (result) {
    case LINK_HANDSHAKE_OK:
        return "ok";
    case LINK_HANDSHAKE_NOT_LINK:
        return "peer does not speak this protocol";
    case LINK_HANDSHAKE_VERSION:
        return "no common protocol version";
    case LINK_HANDSHAKE_SERVICE:
        return "peer wants another service (raft and node ports mixed up?)";
    case LINK_HANDSHAKE_CLUSTER:
        return "peer belongs to another cluster";
    case LINK_HANDSHAKE_IDENTITY:
        return "peer has no node id, or our own";
    case LINK_HANDSHAKE_KEY:
        return "peer does not hold the cluster key";
    }
    CHECK_UNREACHABLE();
}

void link_handshake_describe(const struct link_handshake *h, enum link_handshake_result result,
                             char *out, size_t size)
{
    if (result == LINK_HANDSHAKE_VERSION) {
        snprintf(out, size,
                 "peer speaks link versions %u to %u, this program %u to %u: upgrade the older one",
                 h->peer_version_min, h->peer_version_max, (unsigned)LINK_VERSION_MIN,
                 (unsigned)LINK_VERSION_MAX);
    } else {
        snprintf(out, size, "%s", link_handshake_text(result));
    }
}
