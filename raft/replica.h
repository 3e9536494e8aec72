/* replica: one node's membership in a Raft group. Submit a batch, get told when it is committed.
 *
 * What it owns: the consensus core, the write-ahead log, the transport to its peers, leadership.
 * What it refuses: to look inside a batch, to store application state, to know LMDB, HTTP or SQL.
 *
 * Happy path: replica_submit → log of a majority, synced → hooks.apply on every node in log order →
 * the submit callback on the node that submitted.
 *
 * Failure modes: loss of leadership turns every submitted batch that is not yet applied into
 * REPLICA_OUTCOME_UNKNOWN (it may still commit: never say that it failed); an error of the log is
 * fail-stop (the process ends with a message); a lost peer is retried for ever.
 *
 * Everything runs on the thread of the loop; the log has a thread of its own inside. */
#ifndef RAFT_REPLICA_H
#define RAFT_REPLICA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "proto/format.h"
#include "proto/link.h"

#define REPLICA_MEMBERS_MAX            9
#define REPLICA_ADDRESS_SIZE           100 /* of "RAFT/NODE" with its NUL */
#define REPLICA_ENDPOINT_SIZE          64  /* of one half, "host:port", with its NUL */
#define REPLICA_ENTRY_SIZE_MAX         (256u << 10) /* one batch, in bytes; ≤ 64 KiB is the sweet spot */
#define REPLICA_CONFIGURATION_SIZE_MAX 1024

enum replica_role { REPLICA_FOLLOWER, REPLICA_CANDIDATE, REPLICA_LEADER };
enum replica_member_role { REPLICA_SPARE, REPLICA_STANDBY, REPLICA_VOTER };

struct replica_member {
    uint64_t id;
    /* "RAFT/NODE": host:port of its raft listener and of its node listener. Configurations of older
     * versions have the first alone. */
    char address[REPLICA_ADDRESS_SIZE];
    enum replica_member_role role;
};

/* The halves of a member's address. node is "" when the configuration does not know it. */
void replica_address_raft(const char *address, char raft[static REPLICA_ENDPOINT_SIZE]);
void replica_address_node(const char *address, char node[static REPLICA_ENDPOINT_SIZE]);
/* Joins them; false when one is no numeric host:port with a port, or too long. */
bool replica_address_join(const char *raft, const char *node,
                          char address[static REPLICA_ADDRESS_SIZE]);

/* Where a checkpoint stands in the log. The server stores it inside the checkpoint, in the same
 * transaction, and hands it back at restart. */
struct replica_position {
    uint64_t index, term;
    uint64_t configuration_index; /* of the last committed configuration at index */
    uint32_t configuration_size;
    uint8_t configuration[REPLICA_CONFIGURATION_SIZE_MAX]; /* opaque outside raft/ */
};

/* The member as the configuration at a position has it; false: there is none. */
bool replica_position_member(const struct replica_position *position, uint64_t id,
                             struct replica_member *member);

/* A promise of the leader to serve its checkpoint over the node protocol. Opaque data of the server. */
#define REPLICA_TICKET_SIZE_MAX 256
struct replica_ticket {
    struct replica_position position;
    uint32_t size;
    uint8_t data[REPLICA_TICKET_SIZE_MAX];
};

/* A node's clocks, read together. */
struct replica_clock {
    uint64_t monotonic_ns; /* > 0 */
    uint64_t wall_ms;
    uint64_t cluster_ns; /* the cluster's time, as it knows it; 0: it does not */
    uint64_t term;       /* its own */
    bool leads;          /* in that term, and the cluster's time is its own */
    bool suspect;        /* it finds that its clocks disagree with the majority's */
};

/* What the server gives. Every hook runs on the loop's thread and must not block; none may call back
 * into the replica except replica_submit, replica_read and replica_checkpoint_published from apply or
 * role_changed. */
struct replica_hooks {
    /* A committed batch, in log order, each index once per life of the process. data is lent until
     * return, 8-byte aligned. Indexes have gaps: no-ops and configurations are the replica's own, so a
     * position may lie behind the last batch that was applied. */
    void (*apply)(void *ctx, uint64_t index, uint64_t term, const void *data, size_t size);
    /* After every change. leader_id 0: nobody known. ready: leader, and everything committed in
     * earlier terms is applied here, so submits and reads are served. */
    void (*role_changed)(void *ctx, enum replica_role role, bool ready, uint64_t term,
                         uint64_t leader_id);
    /* Leader: fill a ticket for the newest published checkpoint and keep what it names readable for at
     * least the install timeout. With ticket->size > 0 it is one from before: keep that as it is, if what
     * it names is still readable. Return 0, or -1 when there is none yet (tried again later). */
    int (*make_ticket)(void *ctx, struct replica_ticket *ticket);
    /* Follower: replace all application state by what the ticket of node from_id promises. Pull,
     * verify, switch durably, load; then call replica_install_done. Meanwhile apply is not called. */
    void (*install)(void *ctx, const struct replica_ticket *ticket, uint64_t from_id);
    /* The log is whole and durable: from the next start on this node is a REPLICA_MEMBER. Called once
     * a life after REPLICA_NEW or REPLICA_REFILL. NULL: nobody wants to know. */
    void (*settled)(void *ctx);
    /* This node was a member and is none any more: it should end. Once a life. NULL: nobody wants to
     * know. */
    void (*removed)(void *ctx);
    /* Twice a second each peer is asked for its clocks, over the link that entries take: clock_read
     * fills what this node answers, clock_sample gets what a peer did. The replica reads nothing out of
     * them. NULL: no clocks are told, or none are wanted. docs/adr/0016 */
    void (*clock_read)(void *ctx, struct replica_clock *clock);
    void (*clock_sample)(void *ctx, uint64_t from_id, const struct replica_clock *clock,
                         uint64_t sent_ns, uint64_t received_ns);
};

/* What a node knows of its own past. The server remembers it durably (docs/adr/0010). */
enum replica_start {
    REPLICA_MEMBER, /* it has a log: one that is missing or empty was lost, and is refused */
    REPLICA_NEW,    /* of a new cluster: an empty log begins with the bootstrap list */
    REPLICA_REFILL, /* its disk was lost, or it never had one: no votes until a leader has filled it */
};

struct replica_config {
    uv_loop_t *loop;
    uint64_t id;              /* 1.. ; fixed for the life of the data directory */
    const char *directory;    /* of the log; created if missing. Borrowed during create */
    const char *listen_host;  /* numeric; borrowed during create */
    uint16_t listen_port;
    struct link_identity identity; /* key and cluster id; service and id are set by the replica */
    struct format_range formats;   /* needed by the state and readable; newest 0: what the program is */
    enum replica_start start;
    /* The members of a new cluster, the same list on every one of them; used when `start` is
     * REPLICA_NEW and the log is empty. Otherwise it only tells this node its own address. */
    struct replica_member bootstrap[REPLICA_MEMBERS_MAX];
    size_t bootstrap_count;
    uint64_t election_timeout_ms; /* 500 */
    uint64_t segment_size;        /* of the log, bytes, 64 MiB */
    uint64_t trailing_entries;    /* kept in the log behind a checkpoint */
    uint64_t catch_up_log_size;   /* kept for peers that install one, bytes at most; 512 MiB */
    bool log_sync;                /* false only in benchmarks that say so */
    uint64_t log_write_deadline_ms; /* a log's disk that is silent so long ends the process; 0: never */
};

struct replica;

/* Opens or creates the log, recovers it, and joins it with the checkpoint at `position` (NULL: none).
 * Application state must be exactly that of the checkpoint: apply goes on at position->index + 1. No
 * hook is called from within; the first ones when the loop runs.
 * Returns 0, or -1 after logging what is wrong and what to do (damage, wrong cluster, port taken). */
int replica_create(const struct replica_config *config, const struct replica_hooks *hooks, void *ctx,
                   const struct replica_position *position, struct replica **replica);

/* The same in two steps, for a caller whose loop goes on meanwhile: replica_open recovers the log, on any
 * thread (config->loop is not touched), replica_start does the rest on the loop's, with the same config but
 * for `formats`, which may be known later. replica_start ends the replica when it fails. */
int replica_open(const struct replica_config *config, struct replica **replica);
int replica_start(struct replica *r, const struct replica_config *config,
                  const struct replica_hooks *hooks, void *ctx,
                  const struct replica_position *position);

/* Stops everything, syncs, closes; done is called when nothing is left. Pending requests get
 * REPLICA_OUTCOME_UNKNOWN first. */
void replica_destroy(struct replica *r, void (*done)(void *ctx), void *ctx);

enum replica_status {
    REPLICA_OK = 0,
    REPLICA_NOT_LEADER = -1,      /* nothing happened: ask the leader */
    REPLICA_BUSY = -2,            /* nothing happened: too many batches in flight */
    REPLICA_TOO_LARGE = -3,       /* nothing happened */
    REPLICA_OUTCOME_UNKNOWN = -4, /* may or may not be committed: ask again by idempotency key */
    REPLICA_REFUSED = -5,         /* nothing happened: not allowed now (membership, transfer) */
};

struct replica_submit;
typedef void (*replica_submit_cb)(struct replica_submit *req, enum replica_status status,
                                  uint64_t index);
struct replica_submit { /* caller's memory, until the callback */
    replica_submit_cb cb;
    uint64_t index, term; /* set on acceptance */
    struct replica_submit *next;
};

#define REPLICA_IN_FLIGHT_MAX 512 /* batches submitted and not yet applied */

/* Proposes one batch (copied). On REPLICA_OK the callback follows, once: REPLICA_OK right after
 * hooks.apply of that index returned, or REPLICA_OUTCOME_UNKNOWN. Other results: no callback. */
enum replica_status replica_submit(struct replica *r, struct replica_submit *req, const void *data,
                                   size_t size, replica_submit_cb cb);

struct replica_read;
typedef void (*replica_read_cb)(struct replica_read *req, enum replica_status status);
struct replica_read { /* caller's memory, until the callback */
    replica_read_cb cb;
    uint64_t index; /* what must be applied: set by the replica */
    struct replica_read *next;
};

/* Linearizable read (ReadIndex, Raft dissertation §6.4; many reads share one round). The callback with
 * REPLICA_OK means: what is applied now reflects every write acknowledged before the call. Leader
 * only. Otherwise NOT_LEADER (no callback when returned; by callback when leadership is lost). */
enum replica_status replica_read(struct replica *r, struct replica_read *req, replica_read_cb cb);

/* The position that a checkpoint of the state as it is now must carry. The checkpoint counts as under
 * way, and installs are put off, until replica_checkpoint_published or replica_checkpoint_abandoned. */
void replica_position(struct replica *r, struct replica_position *position);

/* Whether the checkpoint at this position may become durable: the log is, up to there. Ask again soon. */
bool replica_checkpoint_may_end(const struct replica *r, const struct replica_position *position);

/* The checkpoint at this position is durable: the log may be trimmed behind it. Called later than
 * replica_position returned it, in order. */
void replica_checkpoint_published(struct replica *r, const struct replica_position *position);

/* The checkpoint that was under way will never be published (its write failed, and the node goes on). */
void replica_checkpoint_abandoned(struct replica *r);

/* True while a checkpoint must not begin (an install is under way). */
bool replica_installing(const struct replica *r);

/* Ends hooks.install; never called from within it. OK: the new checkpoint is the durable state of this node and the application is
 * loaded from it. Otherwise nothing of the old state was touched and the leader will offer again. */
void replica_install_done(struct replica *r, const struct replica_position *position, bool ok);

/* Why a change is not made. The first three pass by themselves: ask again. */
enum replica_refusal {
    REPLICA_REFUSAL_NONE = 0,
    REPLICA_REFUSAL_NOT_READY, /* nothing of this term is committed yet, or leadership moves */
    REPLICA_REFUSAL_PENDING,   /* the change before is not committed, or a connected voter lacks it */
    REPLICA_REFUSAL_LAGGARD,   /* to be promoted, but behind, or still refilling */
    REPLICA_REFUSAL_UNKNOWN,   /* no member has this id */
    REPLICA_REFUSAL_DUPLICATE, /* id or one of the addresses is taken */
    REPLICA_REFUSAL_FULL,      /* REPLICA_MEMBERS_MAX */
    REPLICA_REFUSAL_INVALID,   /* not an address; already so; a new member can be no voter */
    REPLICA_REFUSAL_LAST,      /* the only voter */
    REPLICA_REFUSAL_SELF,      /* the leader: hand over first */
    REPLICA_REFUSAL_QUORUM,    /* fewer than a majority of the voters would be connected and caught up */
};

/* How long the disk of the log has not answered the operation under way, 0: it owes nothing. */
uint64_t replica_log_age_ms(const struct replica *r);

/* One change of the configuration at a time, on a ready leader; REPLICA_REFUSED and *why otherwise.
 * REPLICA_OK: proposed; replica_get_info shows the newest configuration and whether it is committed. A
 * new member joins as a standby (or spare) and is made a voter once it has caught up; it must be
 * running, started as REPLICA_REFILL. docs/adr/0012 */
enum replica_status replica_member_add(struct replica *r, const struct replica_member *member,
                                       enum replica_refusal *why);
enum replica_status replica_member_assign(struct replica *r, uint64_t id,
                                          enum replica_member_role role, enum replica_refusal *why);
enum replica_status replica_member_remove(struct replica *r, uint64_t id, enum replica_refusal *why);
/* The member as the newest configuration has it; false: there is none. */
bool replica_get_member(const struct replica *r, uint64_t id, struct replica_member *member);

/* Hands leadership to a voter (0: the most up to date of the willing). REPLICA_OK: under way;
 * role_changed tells. */
enum replica_status replica_transfer(struct replica *r, uint64_t to_id);
/* Whom replica_transfer(r, 0) would choose now; 0: nobody. */
uint64_t replica_successor(const struct replica *r);
/* Whether this node wants to lead. An unwilling one is not chosen by a leader that hands over; it may
 * still be elected when others cannot. */
void replica_set_willing(struct replica *r, bool willing);

struct replica_peer_info {
    struct replica_member member;
    bool connected, unwilling;
    uint64_t match_index; /* leader only, else 0 */
    struct format_range formats; /* as it said when it connected; 0, 0: it never did */
};

struct replica_info {
    enum replica_role role;
    bool ready;
    bool refilling;
    uint64_t id, leader_id, term;
    uint64_t last_index, stored_index, commit_index, applied_index, first_index;
    bool change_uncommitted; /* of the newest configuration */
    uint64_t in_flight, elections, appends, append_bytes, log_segments;
    struct replica_peer_info peers[REPLICA_MEMBERS_MAX]; /* every member, itself included */
    size_t peers_count;
    const struct histogram *append_ns; /* duration of one synced write of the log */
};
void replica_get_info(const struct replica *r, struct replica_info *info);
/* Of that, what is asked often. */
uint64_t replica_applied_index(const struct replica *r);

#endif
