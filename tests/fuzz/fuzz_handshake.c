/* The three messages that open a link, both sides (proto/link_handshake.h).
 *
 * Input: a script. First byte: services, ids, and what is wrong with the client's key or cluster; then
 * changes (message, offset, byte) made to the messages on their way; or, mode 1 and 2, a whole hello or
 * reply of somebody who does not hold the key.
 * Asserted: both sides open only when they hold the same key, agree on service and cluster and nothing
 * was changed on the way; and then always; both see the other's id. */
#include <stdio.h>

#include "proto/link_handshake.h"
#include "tests/fuzz/fuzz.h"

enum { AS_CHANGED, AS_HELLO, AS_REPLY, AS_COUNT };

static struct link_identity server_own, client_own;
static uint8_t nonce_server[LINK_NONCE_SIZE], nonce_client[LINK_NONCE_SIZE];

void fuzz_begin(void)
{
    memset(nonce_server, 0x51, sizeof nonce_server);
    memset(nonce_client, 0xC1, sizeof nonce_client);
}

/* What the two are: returns whether they fit. */
static bool choose_identities(struct reader *r)
{
    uint8_t flags = reader_u8(r);
    server_own = (struct link_identity){.service = (flags & 1) != 0 ? LINK_SERVICE_RAFT : LINK_SERVICE_NODE,
                                        .id = 1};
    memset(server_own.key, 'k', sizeof server_own.key);
    memset(server_own.cluster_id, 'c', sizeof server_own.cluster_id);
    client_own = server_own;
    client_own.id = (flags >> 1) & 3; /* 0: none, 1: the server's own */
    bool fits = server_own.service == LINK_SERVICE_NODE || client_own.id > 1;
    if ((flags & 8) != 0) {
        client_own.service = (flags & 1) != 0 ? LINK_SERVICE_NODE : LINK_SERVICE_RAFT;
        fits = false;
    }
    if ((flags & 16) != 0) {
        client_own.key[reader_u8(r) % LINK_KEY_SIZE] ^= 1;
        fits = false;
    }
    if ((flags & 32) != 0) {
        memset(client_own.cluster_id, 0, sizeof client_own.cluster_id);
        fits = fits && server_own.service == LINK_SERVICE_NODE;
    } else if ((flags & 64) != 0) {
        client_own.cluster_id[0] ^= 1;
        fits = false;
    }
    return fits;
}

/* Changes one of the messages; returns whether it is another one now. */
static bool change(struct reader *r, uint8_t *message, size_t size, unsigned which)
{
    bool changed = false;
    struct reader at = *r;
    while (reader_left(&at) >= 3) {
        unsigned wanted = reader_u8(&at) % 3;
        size_t offset = reader_u8(&at) % size;
        uint8_t value = reader_u8(&at);
        if (wanted == which) {
            changed = changed || message[offset] != value;
            message[offset] = value;
        }
    }
    return changed;
}

static void run_changed(struct reader *r)
{
    struct link_handshake client, server;
    uint8_t reply[LINK_SERVER_REPLY_SIZE], proof[LINK_MAC_SIZE], hello[LINK_HELLO_SIZE];
    bool fits = choose_identities(r);
    link_handshake_begin(&client, &client_own, nonce_client);
    memcpy(hello, client.client_hello, sizeof hello);
    bool hello_changed = change(r, hello, sizeof hello, 0);
    hello_changed = hello_changed && memcmp(hello, client.client_hello, sizeof hello) != 0;
    enum link_handshake_result result =
        link_handshake_answer(&server, &server_own, nonce_server, hello, reply);
    char text[160];
    link_handshake_describe(&server, result, text, sizeof text);
    if (result != LINK_HANDSHAKE_OK) {
        CHECK(hello_changed || !fits);
        if (result == LINK_HANDSHAKE_VERSION) {
            CHECK(server.version == 0);
            CHECK(link_handshake_prove(&client, &client_own, reply, proof) != LINK_HANDSHAKE_OK);
        }
        return;
    }
    uint8_t given[LINK_SERVER_REPLY_SIZE];
    memcpy(given, reply, sizeof given);
    (void)change(r, given, sizeof given, 1);
    bool reply_changed = memcmp(given, reply, sizeof given) != 0;
    result = link_handshake_prove(&client, &client_own, given, proof);
    if (result != LINK_HANDSHAKE_OK) {
        CHECK(hello_changed || reply_changed || !fits);
        return;
    }
    CHECK(fits && !hello_changed && !reply_changed);
    CHECK(client.peer_id == server_own.id);
    CHECK(memcmp(client.cluster_id, server_own.cluster_id, LINK_CLUSTER_ID_SIZE) == 0);
    uint8_t shown[LINK_MAC_SIZE];
    memcpy(shown, proof, sizeof shown);
    (void)change(r, shown, sizeof shown, 2);
    bool proof_changed = memcmp(shown, proof, sizeof shown) != 0;
    result = link_handshake_verify(&server, &server_own, shown);
    CHECK((result == LINK_HANDSHAKE_OK) == !proof_changed);
    CHECK(server.peer_id == client_own.id);
    CHECK(server.version == client.version);
    /* What the server sent is no proof: nobody gets in by sending it back. */
    CHECK(link_handshake_verify(&server, &server_own, reply + LINK_HELLO_SIZE) != LINK_HANDSHAKE_OK);
}

/* A stranger without the key, whatever it says. */
static void run_hello(struct reader *r)
{
    struct link_handshake server;
    uint8_t hello[LINK_HELLO_SIZE] = {0}, reply[LINK_SERVER_REPLY_SIZE], proof[LINK_MAC_SIZE] = {0};
    (void)choose_identities(r);
    struct str given = fuzz_str(r, sizeof hello), shown = fuzz_str(r, sizeof proof);
    memcpy(hello, given.ptr, given.len);
    memcpy(proof, shown.ptr, shown.len);
    enum link_handshake_result result =
        link_handshake_answer(&server, &server_own, nonce_server, hello, reply);
    if (result == LINK_HANDSHAKE_OK) {
        CHECK(server.version >= LINK_VERSION_MIN && server.version <= LINK_VERSION_MAX);
        CHECK(server_own.service != LINK_SERVICE_RAFT ||
              (server.peer_id != 0 && server.peer_id != server_own.id));
        CHECK(link_handshake_verify(&server, &server_own, proof) == LINK_HANDSHAKE_KEY);
    }
}

static void run_reply(struct reader *r)
{
    struct link_handshake client;
    uint8_t reply[LINK_SERVER_REPLY_SIZE] = {0}, proof[LINK_MAC_SIZE];
    (void)choose_identities(r);
    link_handshake_begin(&client, &client_own, nonce_client);
    struct str given = fuzz_str(r, sizeof reply);
    memcpy(reply, given.ptr, given.len);
    CHECK(link_handshake_prove(&client, &client_own, reply, proof) != LINK_HANDSHAKE_OK);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct reader r = reader_init(data, size);
    switch (reader_u8(&r) % AS_COUNT) {
    case AS_CHANGED:
        run_changed(&r);
        return;
    case AS_HELLO:
        run_hello(&r);
        return;
    default:
        run_reply(&r);
    }
}

void fuzz_seeds(void)
{
    uint8_t out[256];
    struct link_handshake client, server;
    static const uint8_t flags[] = {0, 5, 3, 8, 16, 32, 37, 64, 69};
    for (size_t i = 0; i < sizeof flags; i++) {
        char name[32];
        snprintf(name, sizeof name, "fits-%02u", flags[i]);
        out[0] = AS_CHANGED;
        out[1] = flags[i];
        fuzz_seed(name, out, 2);
    }
    for (uint8_t which = 0; which < 3; which++) {
        char name[32];
        snprintf(name, sizeof name, "changed-%u", which);
        const uint8_t script[] = {AS_CHANGED, 0, which, 10, 7};
        fuzz_seed(name, script, sizeof script);
    }
    struct reader r = reader_init("\0", 1);
    choose_identities(&r);
    link_handshake_begin(&client, &client_own, nonce_client);
    out[0] = AS_HELLO;
    out[1] = 0;
    memcpy(out + 2, client.client_hello, LINK_HELLO_SIZE);
    memset(out + 2 + LINK_HELLO_SIZE, 0xAA, LINK_MAC_SIZE);
    fuzz_seed("hello", out, 2 + LINK_HELLO_SIZE + LINK_MAC_SIZE);
    out[0] = AS_REPLY;
    CHECK(link_handshake_answer(&server, &server_own, nonce_server, client.client_hello, out + 2) ==
          LINK_HANDSHAKE_OK);
    memset(out + 2 + LINK_HELLO_SIZE, 0, LINK_MAC_SIZE); /* nobody shall find the good one near it */
    fuzz_seed("reply", out, 2 + LINK_SERVER_REPLY_SIZE);
}
