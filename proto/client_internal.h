/* Inside of the client: client.c (nodes, links, who leads), client_submit.c (commands),
 * client_call.c (everything else). Nobody else includes this. */
#ifndef PROTO_CLIENT_INTERNAL_H
#define PROTO_CLIENT_INTERNAL_H

#include "proto/address.h"
#include "proto/arena.h"
#include "proto/client.h"

#define CLIENT_TICK_MS           CLIENT_POLL_FAST_MS
#define CLIENT_QUEUE_COMMANDS    65536 /* default of queue_commands_max */
#define CLIENT_WINDOW_FRAMES     16    /* default of window_frames */
#define CLIENT_WINDOW_FRAMES_MAX 256
#define CLIENT_FRAME_BYTES_MAX   (256u << 10) /* of one request that is sent */
#define CLIENT_OUTPUT_SIZE_MAX   (32u << 20)  /* queued on one link */
#define CLIENT_IDLE_TIMEOUT_MS   10000
#define CLIENT_FORGET_MS         10000 /* a member that nobody names may be forgotten */
#define CLIENT_RECONNECT_MS      250 /* between attempts while a leader is known */
#define CLIENT_BUSY_RETRY_MIN_MS 5
#define CLIENT_BUSY_RETRY_MAX_MS 1000

/* The lowest two bits of a request's id say who waits for its response. */
enum { ID_FRAME = 0, ID_CALL = 1, ID_POLL = 2, ID_KIND_MASK = 3 };

struct client_node {
    struct client *client;
    char address[CLIENT_ADDRESS_SIZE];
    char host[ADDRESS_HOST_SIZE];
    uint16_t port;
    uint64_t id; /* 0: never connected */
    bool given;        /* an endpoint of the configuration: never forgotten */
    uint64_t named_ms; /* when a status last named it as a member */
    struct link *link;
    bool open;
    uint64_t next_connect_ms;
    uint64_t poll_id, poll_sent_ms; /* id 0: none outstanding */
    uint64_t term, applied_index;
    int64_t time_ms;
    bool ready;
    uint32_t startup_phase;
    uint64_t startup_done, startup_total;
};

/* One Submit frame on its way. Stays until it is answered, its link is gone, or it is given up
 * because another node leads. A request that met its deadline leaves its place empty. */
struct client_frame {
    uint64_t id;
    struct client_node *node;
    uint64_t sent_ms;
    uint32_t count;
    struct client_frame *next;
    struct client_submit *requests[CLIENT_FRAME_COMMANDS_MAX];
};

struct client {
    uv_loop_t *loop;
    struct link_identity identity;
    bool fixed_endpoints, closing;
    struct client_node nodes[CLIENT_NODES_MAX];
    size_t nodes_count;
    size_t turn; /* of CLIENT_TARGET_ANY */

    struct client_node *leader; /* NULL: unknown. Its link is open. */
    uint64_t term;              /* the highest heard of */
    uint64_t hint_ms;           /* when a hint was last followed */
    uint64_t announced_leader;

    uv_timer_t timer;
    uv_idle_t idle; /* active while something was queued in this iteration */
    uv_check_t check;
    unsigned handles, links; /* still to close */
    void (*done)(void *ctx);
    void *done_ctx;
    void (*changed)(void *ctx, uint64_t leader_id);
    void *changed_ctx;

    uint64_t sequence; /* of ids */
    struct arena arena;

    /* commands */
    uint32_t queue_commands_max, window_frames;
    struct client_submit *queue_head, *queue_tail; /* waiting for a frame, in order */
    struct client_submit *later;                   /* waiting for not_before_ms */
    struct client_frame *frames;                   /* in flight, newest first */
    struct client_frame *spare;                    /* for reuse */
    uint64_t submits;                              /* unanswered */
    uint64_t submit_deadline_ms;                   /* no deadline is before this */
    double drain_per_ms;                           /* answers, averaged */
    uint64_t drained;                              /* since the last tick */
    uint8_t *out;                                  /* CLIENT_FRAME_BYTES_MAX */

    /* calls */
    struct client_call *slots[CLIENT_CALLS_MAX];
    uint32_t generations[CLIENT_CALLS_MAX];
    uint32_t free_slots[CLIENT_CALLS_MAX];
    uint32_t free_count;
    struct client_call *calls; /* all unanswered */
    uint64_t calls_count;
    bool calls_wait; /* some are not in flight */

    uint64_t submits_total, frames_total, retries_total, unknown_total, refused_total,
        leader_changes_total;
};

/* client.c */
void client_wake(struct client *c); /* something was queued: flush in this iteration */
uint64_t client_next_id(struct client *c, unsigned kind);
void client_set_leader(struct client *c, struct client_node *node);
/* NOT_LEADER from this node; hint_id 0: it knows of none. */
void client_not_leader(struct client *c, struct client_node *from, uint64_t hint_id);
struct client_node *client_find_node(struct client *c, uint64_t id);

/* client_submit.c */
void client_submit_flush(struct client *c);
void client_submit_tick(struct client *c, uint64_t now_ms);
void client_submit_response(struct client *c, struct client_node *node, uint64_t id,
                            const void *data, size_t size);
void client_submit_link_lost(struct client *c, struct client_node *node);
void client_submit_end(struct client *c); /* the client closes */
/* The leader has owed an answer for longer than CLIENT_SUSPECT_MS. */
bool client_submit_suspects(const struct client *c, uint64_t now_ms);

/* client_call.c */
void client_call_flush(struct client *c);
void client_call_tick(struct client *c, uint64_t now_ms);
void client_call_response(struct client *c, struct client_node *node, uint64_t id, const void *data,
                          size_t size);
void client_call_link_lost(struct client *c, struct client_node *node);
void client_call_end(struct client *c);

#endif
