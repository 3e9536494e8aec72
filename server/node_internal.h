/* Inside of the node: node.c (life, hooks of the replica, drain), session.c (links and Submit
 * frames), requests.c (everything else that is asked), read_requests.c (reads that must wait),
 * members.c (who the members are), status.c (status and metrics), install.c (a checkpoint from a
 * peer), snapshots.c (tickets for backups). Nobody else includes this.
 */
#ifndef SERVER_NODE_INTERNAL_H
#define SERVER_NODE_INTERNAL_H

#include <stdatomic.h>

#include "base/histogram.h"
#include "proto/arena.h"
#include "proto/client.h"
#include "proto/node.pb-c.h"
#include "server/checkpoint_driver.h"
#include "server/clock.h"
#include "server/identity.h"
#include "server/clock_watch.h"
#include "server/disk_guard.h"
#include "server/node.h"
#include "server/persist_driver.h"
#include "server/submit_queue.h"
#include "server/warm_up.h"

#define NODE_HAND_OVER_MS        2500 /* a drained leader tries this long to find a successor */
#define NODE_TICK_MS             10
#define NODE_TRANSFER_RETRY_MS   200
#define NODE_MEMBER_WAIT_MS      2000 /* for what a change of the membership lacks and may get soon */
#define NODE_IDLE_BATCH_MS       500 /* without commands the leader lets time pass this often */
#define NODE_SESSIONS_MAX        4096
#define NODE_FRAME_SIZE_MAX      (1u << 20) /* of a request */
#define NODE_OUTPUT_SIZE_MAX     (64u << 20)
#define NODE_SESSION_IDLE_MS     30000
#define NODE_READS_WAITING_MAX   8192 /* strong reads and reads for an index, unanswered */
#define NODE_READ_TIMEOUT_MS     5000 /* default */
#define NODE_READ_TIMEOUT_MAX_MS 60000
#define NODE_CHUNKS_MAX          8      /* chunks of checkpoints asked for and not yet given */
#define NODE_CHUNK_SIZE_MAX      (256u << 10) /* of one answer: some 200 us of the loop */
#define NODE_SNAPSHOTS_MAX       16     /* SnapshotOpen requests that wait for a checkpoint */
#define NODE_INSTALL_TIMEOUT_MS  600000 /* as the replica's: how long a ticket is good */
#define NODE_SUBMIT_COMMANDS_MAX 4096   /* in one frame */

struct session {
    struct node *node;
    struct link *link;   /* NULL: gone; the memory stays while something refers to it */
    uint32_t references; /* works and waits that will want to answer */
};

struct read_wait;
struct member_change;
struct installer;
struct chunk_source;

struct install_figures { /* since the node started */
    uint64_t done_total, resumed_total, failed_total, bytes_total;
};
struct snapshot_wait;

/* NodeStatusResult.startup_phase */
enum startup_phase {
    STARTUP_SERVING = 0,
    STARTUP_LOADING = 1,    /* the checkpoint, in blocks */
    STARTUP_REPLAYING = 2,  /* the log behind it: first it is read, then applied, in entries */
    STARTUP_INSTALLING = 3, /* a checkpoint from a peer, in blocks */
};

/* Between node_start and node_join: see start.c. */
struct start {
    uv_work_t work;
    struct node *node;
    uint64_t begun_ms;
    atomic_uint phase;
    atomic_uint_fast64_t done, total;
    char directory[4096];
    struct replica_config config;
    /* of the work */
    int result;
    struct checkpoint *store;
    struct engine *engine;
    struct replica *replica;
    bool has_position;
    struct replica_position position;
};

struct node {
    uv_loop_t *loop;
    const struct node_options *options;
    struct engine *engine;
    struct checkpoint *store;
    struct replica *replica;
    struct checkpoint_driver checkpoints;
    struct persist_driver *persist;
    struct submit_queue *queue;
    struct link_server *listener;
    struct cluster_clock clock;
    struct clock_watch clock_watch;
    struct installer *installer; /* NULL: none under way */
    bool engine_absent;          /* an install is being loaded: no reads */
    bool partial_removing;       /* what is left of an install, by partial_work */
    uint64_t partial_checked_ms;
    uv_work_t partial_work;
    struct chunk_source *chunks;
    struct warm_up warm_up;
    struct disk_guard *disk; /* NULL once closed */

    struct start *start; /* until then replica and store are NULL, and the engine is empty */
    unsigned startup_phase;
    uint64_t replay_from, replay_to; /* of the log, when it was recovered */
    uint64_t startup_ms;             /* of the last line of log about it */

    enum replica_role role;
    bool ready;
    uint64_t term, leader_id;
    uint64_t applied_index; /* log index */
    uint64_t applied_bytes; /* of batches, since the node started */
    bool init_proposed;     /* in this leadership */
    bool drained;           /* by request: takes no leadership */
    uint64_t transfer_ms;   /* when it was last tried to give leadership away */
    uint64_t idle_batch_ms; /* loop time of the last batch applied */

    uv_timer_t tick;
    uv_timer_t pace; /* a batch is due: submit_queue */
    uv_check_t check;

    uint32_t sessions_count;
    struct arena arena;      /* of the request being handled */
    struct arena read_arena; /* of a read that waited */
    uint8_t *out;            /* for responses: grows */
    size_t out_capacity;

    struct read_wait *reads;           /* waiting */
    uint32_t reads_count, index_waits; /* of those: for an index */
    struct snapshot_wait *snapshots; /* waiting for a checkpoint */
    uint32_t snapshots_count;
    struct member_change *change; /* of the membership, under way; NULL: none */
    char leader_address[REPLICA_ENDPOINT_SIZE]; /* node_leader_address */

    /* stopping */
    bool draining, closing;
    bool removed;                 /* from the cluster */
    void (*ended)(void *ctx); /* node_watch_end */
    void *ended_ctx;
    uint64_t drain_begun_ms;
    unsigned parts_open;
    void (*stopped)(void *ctx);
    void *stopped_ctx;

    /* figures */
    uint64_t started_ms, leader_changes, tick_expected_ns, loop_lag_max_ns, invariant_violations;
    uint64_t reads_total;
    struct install_figures installs;
    struct histogram apply_ns, loop_lag_ns;
};

/* ---- node.c ---- */
/* engine_load_block, and says so when the state is of a format that this program cannot read. */
int node_load_block(void *engine, const struct engine_block *block);
void node_pump(struct node *n); /* what each loop iteration does after its callbacks */
/* The engine and the position behind it were replaced by an install. */
void node_engine_replaced(struct node *n, struct engine *engine);
bool node_takes_submits(const struct node *n);
/* The format in force: what may be proposed (proto/format.h). */
uint32_t node_format(const struct node *n);
/* Lent until the next call. "" when nobody knows. */
const char *node_leader_address(struct node *n);
/* Tells the leader whether this node may be made one: not while drained or on a silent disk. */
void node_note_willing(struct node *n);
enum replica_status node_hand_over(struct node *n, uint64_t to_id);

/* Takes over what the start has loaded, and joins the peers. Returns 0, or -1 after logging. */
int node_join(struct node *n, struct start *s);

/* ---- start.c ---- */
struct startup_progress {
    unsigned phase;
    uint64_t done, total;
};
void start_begin(struct node *n, enum identity_state state);
struct startup_progress start_progress(const struct node *n);
void start_tick(struct node *n, uint64_t now_ms);

/* ---- session.c ---- */
int sessions_listen(struct node *n);
void sessions_close(struct node *n, void (*done)(void *ctx), void *ctx);
void session_retain(struct session *s);
void session_release(struct session *s);
/* Packs and sends; a session that is gone, or reads too slowly, is none of the caller's business.
 */
void session_respond(struct session *s, const Holdfast__Response *response);
void session_respond_status(struct session *s, uint64_t id, Holdfast__Status status,
                            const char *message);
void session_answered(void *node, struct submit_work *work); /* of the submit_queue */

/* ---- requests.c ---- */
/* frame: the packed request, lent. */
void request_dispatch(struct session *s, const Holdfast__Request *request, const void *frame,
                      size_t size);

/* ---- read_requests.c ---- */
void read_request(struct session *s, const Holdfast__Request *request, const void *frame,
                  size_t size);
void read_requests_applied(struct node *n); /* more is applied: answer whom it serves */
void read_requests_tick(struct node *n, uint64_t now_ms);
void read_requests_end(struct node *n); /* answers all that wait with a refusal */

/* ---- members.c ---- */
/* Where a member listens for us, by the newest configuration, else by --member. False: nobody knows. */
bool node_member_address(const struct node *n, uint64_t id,
                         char address[static REPLICA_ENDPOINT_SIZE]);
/* The same for who offers a checkpoint: its own configuration comes first. */
bool node_ticket_address(const struct node *n, const struct replica_ticket *ticket, uint64_t id,
                         char address[static REPLICA_ENDPOINT_SIZE]);
void members_request(struct session *s, const Holdfast__Request *request);
void members_tick(struct node *n, uint64_t now_ms);
void members_end(struct node *n); /* answers the change under way */

/* ---- status.c ---- */
void status_fill(struct node *n, Holdfast__NodeStatusResult *m, struct arena *arena);
void persist_status_fill(struct node *n, Holdfast__PersistStatusResult *m, struct arena *arena);
void metrics_write(struct node *n, struct text *t);

/* ---- snapshots.c ---- */
void snapshot_open_request(struct session *s, const Holdfast__Request *request);
void snapshots_tick(struct node *n, uint64_t now_ms); /* answers those whose checkpoint is there */
void snapshots_end(struct node *n);                   /* answers all that wait with a refusal */

/* ---- install.c ---- */
int node_make_ticket(void *ctx, struct replica_ticket *ticket);
void node_install(void *ctx, const struct replica_ticket *ticket, uint64_t from_id);
/* Ends the one under way, if any; installer becomes NULL some iterations later. */
void install_cancel(struct node *n);
void install_tick(struct node *n, uint64_t now_ms);

struct install_progress {
    bool active;
    uint64_t blocks, blocks_total; /* of the state; total 0: not yet known */
    double bytes_per_second;       /* since it began or went on */
};
void install_get_progress(const struct node *n, struct install_progress *p);

/* ---- chunk_source.c ---- */
void chunk_source_create(struct node *n);
void chunk_request(struct session *s, const Holdfast__Request *request);
/* After the loop's turn has done what orders need: gives what is ready, begins the next. */
void chunk_source_step(struct node *n);
/* Nothing more is given; what waits is refused. */
void chunk_source_end(struct node *n);
bool chunk_source_is_busy(const struct node *n);
/* Once it is not busy; closed is called for its timer, whose data is n. Then chunk_source_destroy. */
void chunk_source_close(struct node *n, uv_close_cb closed);
void chunk_source_destroy(struct node *n);
void chunk_source_write_metrics(const struct node *n, struct text *t);

#endif
