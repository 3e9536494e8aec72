/* driver: one Raft server as a function of (event, time) → effects. Pure: no I/O, no clock, no
 * loop.
 *
 * What it owns: the consensus core (raft_step of libraft), the order in which the core's updates
 * are carried out, the guards against the core's bugs (docs/adr/0003), the log cache, requests that
 * wait for commit, the rounds of linearizable reads, what is known of the committed configuration.
 * What it refuses: to know disks, sockets, threads and clocks. Those are behind struct
 * driver_effects, which replica.c fills with the real things and tests/sim with simulated ones.
 *
 * Happy path of one command on the leader:
 *     driver_submit → core: RAFT_SUBMIT → write_entries, send(AppendEntries)
 *     driver_durable(ticket) → core: PERSISTED_ENTRIES    driver_receive(result) → core: RECEIVE
 *     → the core moves the commit index → apply, then the request's callback
 *
 * Invariants, checked on every step:
 *   1. A message leaves only after the term and vote that it depends on are durable.
 *   2. The commit index and the applied index never move backwards.
 *   3. Every index is applied once, in order, from the cache.
 *   4. What is reported to the core as stored is the very write of the entry that the cache holds.
 *   5. A request gets exactly one callback; never one that says "failed".
 *
 * What is committed is applied at once, but for a long backlog (the log after a restart): that goes
 * in pieces, one a tick, and driver_deadline_ms is now until it is done.
 *
 * Failure modes: an error of the core on anything but a submit or transfer, or a broken invariant,
 * ends the process (its peers go on without it). Malformed or impossible messages are dropped and
 * counted. Everything here is called on one thread. */
#ifndef RAFT_DRIVER_H
#define RAFT_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raft/membership.h"
#include "raft/message.h"
#include "raft/record.h"
#include "raft/replica.h"

struct driver;

/* What the driver does to the world. None of them may call back into the driver, except: apply, the
 * callbacks of requests and state_changed may call driver_submit, driver_read and
 * driver_checkpoint_published. */
struct driver_effects {
    /* Each of these three begins a write and returns its ticket. Writes become durable in the order
     * given, tickets grow; driver_durable reports them. Records are borrowed until return. The
     * first may have an index that the log has already: it replaces that and what follows. */
    uint64_t (*write_vote)(void *ctx, uint64_t term, uint64_t vote);
    uint64_t (*write_entries)(void *ctx, const struct record_header *const *records, size_t count);
    /* Drops the whole log; it goes on at index + 1. */
    uint64_t (*write_reset)(void *ctx, uint64_t index, uint64_t term);
    /* The log may forget entries up to and including index. */
    void (*trim)(void *ctx, uint64_t index);
    /* m is borrowed until return. May drop it. */
    void (*send)(void *ctx, uint64_t to_id, const struct message_out *m);
    /* The entry is committed. Every type is reported. */
    void (*apply)(void *ctx, const struct record_header *record);
    /* driver_get_state has changed. */
    void (*state_changed)(void *ctx);
    /* The newest configuration of the log has changed, committed or not. */
    void (*membership_changed)(void *ctx);
    /* The memory of this node is whole and durable: the first entry of its new log, or all that it
     * lacked (driver_config.refilling). Once a life, if a bootstrap list was given or it refilled.
     */
    void (*settled)(void *ctx);
    /* This node was a member, and a committed configuration is without it. Once a life. */
    void (*removed)(void *ctx);
    int (*make_ticket)(void *ctx, struct replica_ticket *ticket); /* as in replica_hooks */
    void (*install)(void *ctx, const struct replica_ticket *ticket, uint64_t from_id);
};

struct driver_config {
    uint64_t id;
    char address[REPLICA_ADDRESS_SIZE]; /* our own, as the others know it */
    uint32_t seed;                      /* of the election timeouts; differs per process */
    uint64_t election_timeout_ms;       /* > 0; an election begins after 1 to 2 times this */
    uint32_t entries_in_flight_max;     /* to one peer and to the disk, > 0 */
    uint64_t trailing_entries;          /* kept behind a checkpoint at least */
    uint64_t catch_up_log_size;         /* bytes of entries kept for installs at most; see install.h */
    uint32_t apply_size_max;            /* 0: DRIVER_APPLY_SIZE_MAX */
    bool quick_failover;                /* see driver_peer_disconnected */
    bool refilling; /* its disk was lost: no votes until it has caught up (docs/adr/0010) */
};

#define DRIVER_TICK_MS 50u /* of a leader: heartbeats */
#define DRIVER_IDLE_APPEND_MS                                                                      \
    2u /* an AppendEntries without entries waits so long to be overtaken */
#define DRIVER_QUICK_TIMEOUT_MS   40u /* election timeout when the leader's connection closed */
#define DRIVER_QUICK_DURATION_MS  600u
#define DRIVER_INSTALL_TIMEOUT_MS 600000u
#define DRIVER_APPLY_SIZE_MAX                                                                      \
    (1u << 20) /* bytes of entries applied in one go, then the caller gets his turn */
#define DRIVER_APPLY_ENTRIES_MAX 1024u
#define DRIVER_RELEASE_ENTRIES   1024u /* of trimmed entries freed in one tick */
#define DRIVER_APPEND_SIZE_MAX    (1u << 20) /* bytes of entries in one message */
#define DRIVER_TRANSFER_MEMORY_MS 5000u      /* who did not take over comes last for so long */
#define DRIVER_HELD_MESSAGES_MAX  8192u /* waiting for a vote to be durable; more are dropped */
#define DRIVER_TRAILING_FACTOR_MAX                                                                 \
    8u /* a laggard may hold back at most so many times trailing_entries */
/* A refilling node is silent for so many election timeouts: elections that count on a vote from
 * before the loss are over by then. */
#define DRIVER_REFILL_QUIET_FACTOR  4u
#define DRIVER_CATCH_UP_ENTRIES_MAX 64u /* how far behind a member may be when it is promoted */
#define DRIVER_VOTER_LAG_MAX        4096u /* how far behind a voter may be to be counted on */

struct driver *driver_create(const struct driver_config *config,
                             const struct driver_effects *effects, void *ctx);
/* Requests that still wait get REPLICA_OUTCOME_UNKNOWN or (reads) REPLICA_NOT_LEADER. */
void driver_destroy(struct driver *d);

/* ---- start: restore what the log holds, then start ---- */

/* Adds recovered entries, consecutive from base_index + 1 in the first call. Copies. */
void driver_restore(struct driver *d, uint64_t base_index,
                    const struct record_header *const *records, size_t count);

/* Joins the restored log with the checkpoint at `position` (NULL: none) and begins. term, vote: the
 * newest durable ones, 0 and 0 when there are none. With nothing restored, no position and a
 * bootstrap list, the log begins with that configuration; not when refilling. Returns 0, or -1
 * after logging why log and checkpoint do not fit together. */
int driver_start(struct driver *d, uint64_t now_ms, uint64_t term, uint64_t vote,
                 const struct replica_position *position, const struct membership *bootstrap);

/* ---- events. now_ms: monotonic milliseconds, never falling ---- */

void driver_receive(struct driver *d, uint64_t now_ms, uint64_t from_id, const struct message *m);
/* Every write up to and including ticket is durable. */
void driver_durable(struct driver *d, uint64_t now_ms, uint64_t ticket);
/* To be called at driver_deadline_ms or later. */
void driver_tick(struct driver *d, uint64_t now_ms);
uint64_t driver_deadline_ms(const struct driver *d);

/* Both directions to the peer stand, or no longer do. When it was the leader that was lost and
 * quick_failover is set, the election timeout shrinks for a moment: a closed connection means a
 * dead process most of the time. Only timing changes, so safety does not depend on the guess. */
void driver_peer_connected(struct driver *d, uint64_t now_ms, uint64_t id);
void driver_peer_disconnected(struct driver *d, uint64_t now_ms, uint64_t id);

/* ---- requests: see replica.h ---- */

enum replica_status driver_submit(struct driver *d, uint64_t now_ms, struct replica_submit *req,
                                  const void *data, size_t size, replica_submit_cb cb);
enum replica_status driver_read(struct driver *d, uint64_t now_ms, struct replica_read *req,
                                replica_read_cb cb);
enum replica_status driver_transfer(struct driver *d, uint64_t now_ms, uint64_t to_id);

/* The best voter to lead next, 0 if there is none: connected, willing, with the longest log. */
uint64_t driver_successor(const struct driver *d);
/* Whether this node wants to lead; its peers are told. */
void driver_set_willing(struct driver *d, uint64_t now_ms, bool willing);
bool driver_peer_is_unwilling(const struct driver *d, uint64_t id);

/* Proposes a configuration: see raft/replica.h, docs/adr/0012. The change is done when the committed
 * configuration says so. A promotion that is refused as REPLICA_REFUSAL_LAGGARD has asked the member
 * for a sign of life, so that asking again soon helps. */
enum replica_status driver_add(struct driver *d, uint64_t now_ms,
                               const struct replica_member *member, enum replica_refusal *why);
enum replica_status driver_assign(struct driver *d, uint64_t now_ms, uint64_t id,
                                  enum replica_member_role role, enum replica_refusal *why);
enum replica_status driver_remove(struct driver *d, uint64_t now_ms, uint64_t id,
                                  enum replica_refusal *why);

/* ---- checkpoints and installs ---- */

/* The position of the state as applied now. Until it is published or abandoned, a checkpoint counts
 * as under way and installs are put off. */
void driver_checkpoint_begin(struct driver *d, struct replica_position *position);
/* Whether the checkpoint at this position may become durable: the log must be, up to there. What others
 * have stored is committed and applied here while our own disk is behind; a checkpoint ahead of the log,
 * of a term perhaps that the log does not know, would look like a lost log after a crash. */
bool driver_checkpoint_may_end(const struct driver *d, const struct replica_position *position);
void driver_checkpoint_published(struct driver *d, uint64_t now_ms,
                                 const struct replica_position *position);
void driver_checkpoint_abandoned(struct driver *d);
bool driver_installing(const struct driver *d);
bool driver_refilling(const struct driver *d);
/* Ends effects.install. ok: position is the durable state of this node. */
void driver_install_done(struct driver *d, uint64_t now_ms, const struct replica_position *position,
                         bool ok);

/* ---- what is known ---- */

struct driver_state {
    enum replica_role role;
    bool ready;
    uint64_t term, leader_id;
};
struct driver_state driver_get_state(const struct driver *d);

/* The newest configuration of the log, committed or not. Empty before there is one. */
void driver_get_membership(const struct driver *d, struct membership *m);

struct driver_stats {
    uint64_t first_index, last_index, stored_index, commit_index, applied_index;
    uint64_t in_flight; /* submitted here, not yet applied */
    uint64_t reads_waiting;
    uint64_t elections; /* won by this node */
    uint64_t installs;  /* begun on this node */
    uint64_t messages_refused;
    uint64_t messages_held_dropped;
    uint64_t refill_dropped; /* messages that a refilling node left unanswered */
};
void driver_get_stats(const struct driver *d, struct driver_stats *stats);
/* Of a peer, as the leader knows it; 0 when this node is no leader. */
uint64_t driver_match_index(const struct driver *d, uint64_t id);
/* True while the newest configuration waits for commit. */
bool driver_change_uncommitted(const struct driver *d);
/* The same, or (leader) a connected voter has not stored it yet: no change is made (guard 8). */
bool driver_change_pending(const struct driver *d);

#endif
