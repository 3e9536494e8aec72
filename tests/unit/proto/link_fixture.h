/* Links over real loopback sockets: both ends on one loop, or one end played by hand on a plain
 * socket to send what a correct peer never would. */
#ifndef TESTS_UNIT_PROTO_LINK_FIXTURE_H
#define TESTS_UNIT_PROTO_LINK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "proto/link.h"
#include "proto/link_handshake.h"

#define DEADLINE_MS 60000u /* of a whole test: a guard against hanging, not a measurement */

/* One end of a link, with everything it was told. */
struct end {
    struct link *link; /* NULL once closed */
    unsigned opened, closed;
    char reason[160];
    uint64_t frames;
    uint64_t bytes;
    uint64_t sequence_next; /* frames of the ordering tests begin with their number */
    bool close_on_open, close_on_frame, echo, check_sequence;
    size_t last_size;
    uint8_t last[256];
    bool misaligned, out_of_order, frame_after_close;
};

struct fixture {
    uv_loop_t loop;
    uv_timer_t tick; /* keeps the loop from waiting for ever */
    struct link_server *server;
    uint16_t port;
    bool server_done;
    struct end accepted[16];
    unsigned accepted_count;
    struct link_identity server_identity, client_identity;
    struct link_options options;
    struct end client;
};

/* What a link is told is written into its struct end, which is the ctx. */
extern const struct link_callbacks callbacks;

/* Runs the loop until the condition holds; fails the test when it never does. */
#define RUN_UNTIL(f, condition)                                                                    \
    do {                                                                                           \
        uint64_t began = clock_monotonic_ms();                                                     \
        while (!(condition)) {                                                                     \
            uv_run(&(f)->loop, UV_RUN_ONCE);                                                       \
            if (clock_monotonic_ms() - began > DEADLINE_MS) {                                      \
                fail_msg("never happened: %s", #condition);                                        \
            }                                                                                      \
        }                                                                                          \
    } while (0)

/* The server's: the next of f->accepted. ctx is the fixture. */
void *on_accept(void *ctx, struct link *l);
void server_done_cb(void *ctx);
void fixture_listen(struct fixture *f, unsigned connections_max);
void fixture_connect(struct fixture *f);
/* A loop, and identities that fit each other; nobody listens yet. Fails when an end was told
 * anything after its close, or a handle is left behind. */
int setup(void **state);
int teardown(void **state);
/* A server, and a client whose link to it is open on both ends. */
void fixture_open_pair(struct fixture *f);

/* ---- a peer by hand ---- */

int raw_connect(const struct fixture *f);
void raw_write(int fd, const void *data, size_t size);
/* Runs the loop until size bytes arrived on fd, or the peer closed: then false. */
bool raw_read(struct fixture *f, int fd, void *data, size_t size);
/* A correct client up to the open link. */
int raw_handshake(struct fixture *f);
/* Encodes a frame into out, with whatever checksum; its size there. */
size_t raw_frame(uint8_t *out, const void *data, uint32_t size, uint32_t crc);

#endif
