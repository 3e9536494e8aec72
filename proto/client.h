/* client: the node protocol's side of those who ask: gateway, CLI, load generator, a node that
 * installs.
 *
 * What it owns: one link to every node it knows (given endpoints, and members it learns of), who
 * leads, the bounded queue of commands, every retry. What it refuses: to invent an idempotency key,
 * to say "failed" of what may have happened, to wait past the caller's deadline.
 *
 * Happy path: client_submit → queue → at the end of the loop's iteration all queued commands leave
 * in one Submit frame to the leader (at most `window_frames` unanswered; while the window is full
 * commands gather) → one Response → one callback a command. client_call → its own frame to the node
 * asked for.
 *
 * Following the leader: NOT_LEADER answers carry a hint; NodeStatus is asked of every node every
 * CLIENT_POLL_MS, and every CLIENT_POLL_FAST_MS (with reconnects at that pace too) while no leader
 * is known or the leader owes an answer for longer than CLIENT_SUSPECT_MS. A broken link to the
 * leader means that none is known, at once.
 *
 * Retries, only inside the deadline:
 *     NOT_LEADER, BUSY            nothing happened: sent again
 *     LOW_SPACE                   nothing happened: told at once (CLIENT_UNKNOWN after an attempt
 * that may have happened) OUTCOME_UNKNOWN, link lost  may have happened: sent again if the command
 * has an idempotency key (the key makes it safe), else the outcome is CLIENT_UNKNOWN at once
 * deadline CLIENT_UNKNOWN if any attempt may have happened, else CLIENT_QUEUE_FULL or
 * CLIENT_NO_LEADER A command that went out again after a lost answer may come back with
 * REPLY_REPLAYED: its own echo.
 *
 * Everything runs on the loop's thread. No callback is made from within a call into the client. */
#ifndef PROTO_CLIENT_H
#define PROTO_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/text.h"
#include "proto/command.h"
#include "proto/link.h"
#include "proto/node.pb-c.h"

#define CLIENT_NODES_MAX          16
#define CLIENT_ADDRESS_SIZE       64 /* of "host:port" with its NUL */
#define CLIENT_POLL_MS            250
#define CLIENT_POLL_FAST_MS       15
#define CLIENT_SUSPECT_MS         150
#define CLIENT_FRAME_COMMANDS_MAX 1024       /* joined into one Submit */
#define CLIENT_FRAME_SIZE_MAX     (8u << 20) /* of one answer */

struct client;
struct client_node;

struct client_config {
    uv_loop_t *loop;
    /* "host:port", numeric or "localhost", [v6]:port; 1..CLIENT_NODES_MAX. Copied. Any one that
     * answers is enough: the others are learned. */
    const char *const *endpoints;
    size_t endpoints_count;
    uint8_t key[LINK_KEY_SIZE];               /* the cluster's key: link_read_key */
    uint8_t cluster_id[LINK_CLUSTER_ID_SIZE]; /* all zero: accepts any */
    uint64_t node_id;                         /* 0: not a node */
    uint32_t queue_commands_max; /* submits not yet answered, in flight included; 0: 65536 */
    uint32_t window_frames;      /* Submit frames in flight to the leader; 0: 16 */
    bool fixed_endpoints;        /* true: do not learn further members */
};

enum client_outcome {
    CLIENT_OK = 0,
    CLIENT_QUEUE_FULL, /* nothing happened: the queue here, or the leader's until the deadline, is
                          full */
    CLIENT_NO_LEADER,  /* nothing happened: no leader (or the node asked for) could be reached in
                          time */
    CLIENT_UNKNOWN,    /* may or may not have happened: ask again with the same key */
    CLIENT_MALFORMED,  /* nothing happened: the node does not take these bytes */
    CLIENT_LOW_SPACE,  /* nothing happened: the leader's disk is short of space */
    CLIENT_CLOSED,     /* nothing happened: the client was destroyed */
};
const char *client_outcome_name(enum client_outcome o); /* "no_leader" */

/* Starts connecting. Returns 0, or -1 after logging which endpoint is not an address. */
int client_create(const struct client_config *config, struct client **c);

/* Ends every pending request (CLIENT_UNKNOWN where it may have happened, else CLIENT_CLOSED; from
 * within this call), closes all links; done is called on the loop when nothing is left. */
void client_destroy(struct client *c, void (*done)(void *ctx), void *ctx);

/* ---- commands ---- */

struct client_submit;
/* reply: only with CLIENT_OK; lent until return. The request may be reused or freed in the
 * callback. With CLIENT_QUEUE_FULL req->retry_after_ms is an estimate of when there is room, with
 * CLIENT_LOW_SPACE of when to look again. */
typedef void (*client_submit_cb)(struct client_submit *req, enum client_outcome outcome,
                                 const struct reply *reply);
struct client_frame;
struct client_submit { /* caller's memory, until the callback */
    client_submit_cb cb;
    uint32_t retry_after_ms;
    /* private */
    const uint8_t *command;
    uint32_t size;
    bool keyed, maybe, busy;
    uint32_t slot;
    uint64_t deadline_ms, not_before_ms;
    struct client_frame *frame; /* NULL: queued */
    struct client_submit *prev, *next;
};

/* Queues one encoded command (command_encode). Its bytes are lent until the callback. deadline_ms:
 * in uv_now(loop) time. Returns CLIENT_OK, and the callback follows, once, at the deadline at the
 * latest; or CLIENT_QUEUE_FULL (req->retry_after_ms is set), CLIENT_MALFORMED (size) or
 * CLIENT_CLOSED: no callback. */
enum client_outcome client_submit(struct client *c, struct client_submit *req, const void *command,
                                  size_t size, uint64_t deadline_ms, client_submit_cb cb);

/* ---- everything else: reads, status, administration ---- */

#define CLIENT_TARGET_LEADER 0          /* whoever leads */
#define CLIENT_TARGET_ANY    UINT64_MAX /* any node whose link is open, in turn */
                                        /* else: the node with this id */
struct client_call;
/* response: only with CLIENT_OK; lent until return. Its status may be any but NOT_LEADER (when the
 * leader was asked for) and BUSY, which were retried. */
typedef void (*client_call_cb)(struct client_call *req, enum client_outcome outcome,
                               const Holdfast__Response *response);
struct client_call { /* caller's memory, until the callback */
    client_call_cb cb;
    /* private */
    uint64_t target, deadline_ms, not_before_ms, sent_ms;
    uint32_t slot, generation;
    struct client_node *node; /* NULL: not in flight */
    uint8_t *packed;
    size_t packed_size;
    bool maybe;
    struct client_call *prev, *next;
};

#define CLIENT_CALLS_MAX 16384 /* unanswered */

/* Packs the request now (lent until return; its id is chosen here, its timeout_ms set from the
 * deadline when it is 0) and sends it, again after a lost link or "not now", until the deadline. So
 * it must be a read or an action that may be repeated (move leader, drain): commands go through
 * client_submit. Returns as client_submit. A cancelled or timed-out read is CLIENT_NO_LEADER, or
 * CLIENT_UNKNOWN when it was sent. */
enum client_outcome client_call(struct client *c, struct client_call *req,
                                const Holdfast__Request *request, uint64_t target,
                                uint64_t deadline_ms, client_call_cb cb);

/* Gives up an unanswered call: no callback. */
void client_call_cancel(struct client *c, struct client_call *req);

/* ---- what is known ---- */

struct client_node_info {
    uint64_t id; /* 0: never connected */
    char address[CLIENT_ADDRESS_SIZE];
    bool connected;
    uint64_t term, applied_index; /* as it last said */
    int64_t time_ms;
    bool ready;
    uint32_t startup_phase; /* as in NodeStatusResult */
    uint64_t startup_done, startup_total;
};
struct client_info {
    uint64_t leader_id; /* 0: nobody known */
    uint64_t term;
    char leader_address[CLIENT_ADDRESS_SIZE];
    uint8_t cluster_id[LINK_CLUSTER_ID_SIZE]; /* of the first node that was reached; zero before */
    uint64_t queued, in_flight, calls;        /* now */
    uint64_t submits_total, frames_total, retries_total, unknown_total, refused_total,
        leader_changes_total;
    struct client_node_info nodes[CLIENT_NODES_MAX];
    size_t nodes_count;
};
void client_get_info(const struct client *c, struct client_info *info);

/* changed is called after the leader became known, another, or unknown. One listener. */
void client_watch_leader(struct client *c, void (*changed)(void *ctx, uint64_t leader_id),
                         void *ctx);

/* ---- the same, waiting: for command-line tools ---- */

/* A client with a loop of its own; each call runs it until the answer or the deadline is there. Not
 * for a program with a loop. */
struct client_sync;
int client_sync_open(const struct client_config *config,
                     struct client_sync **s); /* loop is ignored */
void client_sync_close(struct client_sync *s);
/* Encodes and submits. CLIENT_MALFORMED when the command does not encode. */
enum client_outcome client_sync_submit(struct client_sync *s, const struct command *command,
                                       uint64_t timeout_ms, struct reply *reply);
/* With CLIENT_OK *response is the caller's: holdfast__response__free_unpacked(response, NULL). */
enum client_outcome client_sync_call(struct client_sync *s, const Holdfast__Request *request,
                                     uint64_t target, uint64_t timeout_ms,
                                     Holdfast__Response **response);
/* For those who mix both: the client inside, and its loop, to be run by the caller. */
struct client *client_sync_client(struct client_sync *s);
uv_loop_t *client_sync_loop(struct client_sync *s);

#endif
