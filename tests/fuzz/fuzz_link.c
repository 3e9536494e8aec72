/* A link's life in memory: handshake and frames from bytes in pieces, either side (proto/link.h).
 *
 * Input: a script. First byte: which side is ours (the other one is played by hand and holds the key), in
 * what pieces the bytes come; then steps: a good frame, a frame that is damaged in one way or another, raw
 * bytes, frames that ours sends, time that passes, the end.
 * Asserted: exactly the good frames before the first bad byte arrive, in order, aligned, and none after
 * it; a bad one closes the link, once, with a reason; what ours sends is what the peer can read; queued
 * output keeps its limit; nothing is left over. */
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "proto/link_internal.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory_uv.h"

#define FRAME_MAX  2048u
#define OUTPUT_MAX 8192u
#define FRAMES_MAX 64

static uv_loop_t loop; /* a name only */

static struct {
    struct link *link;
    struct link_server *server;
    unsigned opened, closed, frames;
    bool server_gone;
    /* what the peer has sent that must arrive */
    uint32_t sums[FRAMES_MAX], sizes[FRAMES_MAX];
    unsigned sent;
    bool bad; /* something was sent that closes the link */
    struct text written; /* all that ours wrote */
    size_t written_frames; /* where its first frame begins */
    unsigned out_frames;
    uint32_t out_sum;
} now;

/* Nonces are no secret here, and a run must be a function of its input. */
void randombytes_buf(void *const buffer, const size_t size)
{
    memset(buffer, 0x5A, size);
}

void fuzz_begin(void)
{
    memory_uv_reset();
}

static void opened(struct link *l, void *ctx)
{
    (void)ctx;
    CHECK(l == now.link);
    CHECK(now.opened++ == 0 && now.closed == 0);
}

static void frame(struct link *l, void *ctx, const void *data, size_t size)
{
    (void)ctx;
    CHECK(l == now.link && now.opened == 1 && now.closed == 0);
    CHECK((uintptr_t)data % 8 == 0);
    CHECK(now.frames < now.sent);
    CHECK(size == now.sizes[now.frames] && crc32c(0, data, size) == now.sums[now.frames]);
    now.frames++;
}

static void closed(struct link *l, void *ctx, const char *reason)
{
    (void)ctx;
    CHECK(l == now.link);
    CHECK(now.closed++ == 0);
    CHECK(reason[0] != '\0');
    now.link = NULL;
}

static void *accepted(void *ctx, struct link *l)
{
    (void)ctx;
    now.link = l;
    return NULL;
}

static void server_done(void *ctx)
{
    (void)ctx;
    now.server_gone = true;
}

static void turns(void)
{
    for (unsigned i = 0; memory_uv_turn(); i++) {
        CHECK(i < 100000);
    }
}

/* ---- the peer ---- */

static uv_tcp_t *stream(void)
{
    return now.link != NULL && now.closed == 0 && now.link->state != LINK_CLOSING ? &now.link->tcp : NULL;
}

static void give(const void *data, size_t size, size_t piece)
{
    const uint8_t *at = data;
    while (size > 0 && stream() != NULL) {
        size_t n = piece < size ? piece : size;
        memory_uv_give(stream(), at, n);
        at += n;
        size -= n;
        turns();
    }
}

static const struct link_identity own = {.key = "the key of this cluster", .cluster_id = "cluster",
                                         .service = LINK_SERVICE_RAFT, .id = 1};
static struct link_identity peer;

static void open_as_server(size_t piece, const struct link_options *options,
                           const struct link_callbacks *callbacks)
{
    struct link_handshake h;
    uint8_t nonce[LINK_NONCE_SIZE] = {1}, proof[LINK_MAC_SIZE];
    CHECK(link_listen(&loop, "127.0.0.1", 1, 2, &own, options, callbacks, accepted, NULL, &now.server) == 0);
    memory_uv_connect(&now.server->tcp);
    turns();
    link_handshake_begin(&h, &peer, nonce);
    give(h.client_hello, LINK_HELLO_SIZE, piece);
    CHECK(now.written.len == LINK_SERVER_REPLY_SIZE);
    CHECK(link_handshake_prove(&h, &peer, (const uint8_t *)now.written.data, proof) == LINK_HANDSHAKE_OK);
    give(proof, sizeof proof, piece);
    now.written_frames = LINK_SERVER_REPLY_SIZE;
}

static void open_as_client(size_t piece, const struct link_options *options,
                           const struct link_callbacks *callbacks)
{
    struct link_handshake h;
    uint8_t nonce[LINK_NONCE_SIZE] = {2}, reply[LINK_SERVER_REPLY_SIZE];
    now.link = link_connect(&loop, "127.0.0.1", 1, &own, options, callbacks, NULL);
    CHECK(now.link != NULL);
    turns();
    CHECK(now.written.len == LINK_HELLO_SIZE);
    CHECK(link_handshake_answer(&h, &peer, nonce, (const uint8_t *)now.written.data, reply) ==
          LINK_HANDSHAKE_OK);
    give(reply, sizeof reply, piece);
    CHECK(now.written.len == LINK_HELLO_SIZE + LINK_MAC_SIZE);
    CHECK(link_handshake_verify(&h, &peer, (const uint8_t *)now.written.data + LINK_HELLO_SIZE) ==
          LINK_HANDSHAKE_OK);
    now.written_frames = LINK_HELLO_SIZE + LINK_MAC_SIZE;
}

static size_t encode(uint8_t *out, const void *data, uint32_t size)
{
    size_t span = 8 + ((size + 7u) & ~7u);
    memset(out, 0, span);
    store_u32(out, size);
    store_u32(out + 4, crc32c(0, data, size));
    if (size > 0) {
        memcpy(out + 8, data, size);
    }
    return span;
}

enum damage { DAMAGE_NONE, DAMAGE_CRC, DAMAGE_BYTE, DAMAGE_SIZE, DAMAGE_PADDING, DAMAGE_COUNT };

static void step_frame(struct reader *r, size_t piece, enum damage damage)
{
    static uint8_t out[8 + FRAME_MAX + 8];
    struct str payload = fuzz_str(r, fuzz_below(r, FRAME_MAX + 1));
    size_t size = encode(out, payload.ptr, payload.len);
    if (now.sent == FRAMES_MAX || stream() == NULL) {
        return;
    }
    if (damage == DAMAGE_CRC) {
        out[4 + reader_u8(r) % 4] ^= (uint8_t)(1u << reader_u8(r) % 8);
    } else if (damage == DAMAGE_BYTE && payload.len > 0) {
        out[8 + fuzz_below(r, payload.len)] ^= (uint8_t)(1u << reader_u8(r) % 8);
    } else if (damage == DAMAGE_SIZE) {
        store_u32(out, FRAME_MAX + 1 + reader_u32(r) % 1000);
    } else {
        /* Padding is nobody's: whatever stands there. */
        for (size_t i = 8 + payload.len; i < size && damage == DAMAGE_PADDING; i++) {
            out[i] = 0xEE;
        }
        now.sums[now.sent] = crc32c(0, payload.ptr, payload.len);
        now.sizes[now.sent++] = payload.len;
        damage = DAMAGE_NONE;
    }
    now.bad = now.bad || damage != DAMAGE_NONE;
    unsigned before = now.frames;
    give(out, size, piece);
    if (damage != DAMAGE_NONE) {
        CHECK(now.frames == before && stream() == NULL);
    } else {
        CHECK(now.frames == now.sent);
    }
}

/* ---- ours ---- */

static void step_send(struct reader *r)
{
    struct str a = fuzz_str(r, fuzz_below(r, 600)), b = fuzz_str(r, reader_u8(r) % 32u);
    uint8_t both[640];
    if (stream() == NULL) {
        return;
    }
    memcpy(both, a.ptr, a.len);
    memcpy(both + a.len, b.ptr, b.len);
    if (link_send(now.link, a.ptr, a.len, b.ptr, b.len) == 0) {
        CHECK(link_is_open(now.link));
        uint32_t sum = crc32c(0, both, a.len + b.len);
        now.out_sum = crc32c(now.out_sum, &sum, sizeof sum);
        now.out_frames++;
    }
    CHECK(link_output_queued(now.link) <= OUTPUT_MAX);
}

/* Reads what ours wrote, as a peer would. */
static void check_written(bool whole)
{
    struct reader r = reader_init(now.written.data, now.written.len);
    (void)reader_bytes(&r, now.written_frames);
    uint32_t sum_of_all = 0;
    unsigned count = 0;
    while (reader_left(&r) >= 8) {
        uint32_t size = reader_u32(&r), sum = reader_u32(&r);
        const void *data = reader_bytes(&r, (size + 7u) & ~7u);
        if (data == NULL) {
            break;
        }
        CHECK(crc32c(0, data, size) == sum);
        sum_of_all = crc32c(sum_of_all, &sum, sizeof sum);
        count++;
    }
    CHECK(count <= now.out_frames);
    if (whole) {
        CHECK(!r.failed && reader_left(&r) == 0);
        CHECK(count == now.out_frames && sum_of_all == now.out_sum);
    }
}

static void step(struct reader *r, size_t piece)
{
    switch (reader_u8(r) % 12) {
    case 0:
    case 1:
    case 2:
    case 3:
        step_frame(r, piece, DAMAGE_NONE);
        return;
    case 4:
        step_frame(r, piece, DAMAGE_PADDING);
        return;
    case 5:
        step_frame(r, piece, (enum damage)(DAMAGE_CRC + reader_u8(r) % 3));
        return;
    case 6: { /* raw bytes: nothing of what comes after counts any more */
        struct str raw = fuzz_str(r, 1 + reader_u8(r));
        static uint8_t out[256 + 8];
        if (stream() == NULL || raw.len < 8 || now.sent == FRAMES_MAX) {
            return;
        }
        memcpy(out, raw.ptr, raw.len);
        uint32_t size = load_u32(out);
        if (size <= FRAME_MAX && 8 + ((size + 7u) & ~7u) <= raw.len &&
            crc32c(0, out + 8, size) == load_u32(out + 4)) {
            return; /* a good frame by chance */
        }
        give(out, raw.len, piece);
        if (stream() != NULL) {
            memory_uv_give(stream(), NULL, 0);
            turns();
        }
        now.bad = true;
        return;
    }
    case 7:
    case 8:
        step_send(r);
        return;
    case 9:
        turns();
        return;
    case 10:
        memory_uv_limit_writes(reader_u8(r) < 128 ? (size_t)1 + reader_u8(r) : SIZE_MAX);
        return;
    default:
        memory_uv_now_ms += 100;
        turns();
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct reader r = reader_init(data, size);
    const struct link_options options = {FRAME_MAX, OUTPUT_MAX, 1000};
    const struct link_callbacks callbacks = {opened, frame, closed};
    uint8_t flags = reader_u8(&r);
    size_t piece = (flags & 2) != 0 ? (size_t)1 + reader_u8(&r) : SIZE_MAX;
    memset(&now, 0, sizeof now);
    peer = own;
    peer.id = 2;
    memory_uv_tap(&now.written);
    if ((flags & 1) != 0) {
        open_as_server(piece, &options, &callbacks);
    } else {
        open_as_client(piece, &options, &callbacks);
    }
    CHECK(now.opened == 1 && now.link != NULL && link_is_open(now.link));
    CHECK(link_peer_id(now.link) == 2);
    while (!fuzz_done(&r)) {
        step(&r, piece);
    }
    memory_uv_limit_writes(SIZE_MAX);
    turns();
    check_written(stream() != NULL);
    if (stream() != NULL) {
        CHECK(!now.bad && now.frames == now.sent);
        link_close(now.link);
    }
    if (now.server != NULL) {
        link_server_close(now.server, server_done, NULL);
    }
    turns();
    CHECK(now.closed == 1 && (now.server == NULL || now.server_gone));
    text_close(&now.written);
    memory_uv_reset();
}

void fuzz_seeds(void)
{
    static const uint8_t both[] = {2, 7, 0, 20, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l',
                                   'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 7, 5, 0, 0, 0, '1', '2', '3', '4',
                                   '5', 0, 9, 4, 3, 'x', 'y', 'z', 9};
    uint8_t out[sizeof both + 8];
    memcpy(out, both, sizeof both);
    fuzz_seed("client", out, sizeof both);
    out[0] = 3;
    fuzz_seed("server", out, sizeof both);
    for (uint8_t i = 0; i < 3; i++) {
        static const uint8_t head[] = {1, 0, 4, 0, 0, 0, 'a', 'b', 'c', 'd', 5};
        char name[32];
        memcpy(out, head, sizeof head);
        memcpy(out + sizeof head, "\x08\0\0\0eightby", 11);
        out[sizeof head + 12] = i;
        snprintf(name, sizeof name, "damaged-%u", i);
        fuzz_seed(name, out, sizeof head + 14);
    }
    static const uint8_t raw[] = {1, 6, 16, 4, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    fuzz_seed("raw", raw, sizeof raw);
    static const uint8_t slow[] = {0, 10, 5, 3, 7, 255, 1, 0, 0, 'a', 'b', 11, 7, 99, 0, 0, 0, 'c', 9, 11, 11};
    fuzz_seed("slow-writes", slow, sizeof slow);
}
