/* install: bringing a node up to date by a checkpoint instead of by entries.
 *
 * Leader's side, `struct install_tickets`: which checkpoints were promised to whom. The log behind them
 * is kept until the peer has caught up, as far as driver_config.catch_up_log_size allows. Too little gives
 * an endless chase: the peer installs A, asks for A + 1, which is trimmed, and is sent the next
 * checkpoint. And as long as the log behind A is there a peer that asks again is offered A again, though
 * there are newer ones: what it has of A already is then not in vain.
 *
 * When the bound is reached the ticket is worth nothing any more: the next offer is the newest
 * checkpoint. This converges when the state is pulled, verified and loaded before the cluster has
 * written catch_up_log_size of log, and the peer replays faster than the leader writes.
 *
 * Follower's side, `struct install`: one install at a time.
 *
 *     idle ──InstallSnapshot──▶ pulling ──done, ok──▶ idle, at the ticket's position
 *                                  │
 *                                  └──done, failed──▶ draining ──own writes durable──▶ idle, restarted
 *
 * While pulling the core ignores entries and takes no part in elections. It has no way to cancel, so
 * after a failure the core is closed and started again from the log (which the cache still holds):
 * that equals a crash. It waits until every entry of the cache is durable, because what the core is
 * started with counts as stored.
 *
 * The commit point of an install is the server's (CURRENT switched and synced). A crash before it: the
 * old checkpoint and log are intact and nothing was promised. After it: driver_start drops the log
 * that does not hold the checkpoint's last entry. */
#ifndef RAFT_INSTALL_H
#define RAFT_INSTALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raft/replica.h"

struct install_tickets {
    struct {
        uint64_t peer_id; /* 0: free */
        uint64_t core_index; /* what the core asked to be sent; may be above the ticket's */
        uint64_t given_ms;
        struct replica_ticket ticket;
    } tickets[REPLICA_MEMBERS_MAX];
};

/* Remembers the newest ticket of a peer. Copies. */
void install_tickets_give(struct install_tickets *t, uint64_t peer_id,
                          const struct replica_ticket *ticket, uint64_t core_index,
                          uint64_t now_ms);
/* What the peer was given last, NULL when it has none. Valid until the next change. */
const struct replica_ticket *install_tickets_find(const struct install_tickets *t,
                                                  uint64_t peer_id);
/* core_index of the peer's ticket, 0 when it has none. */
uint64_t install_tickets_core_index(const struct install_tickets *t, uint64_t peer_id);
/* The peer has stored entries up to match_index: forgets its ticket when it has what the core asked for,
 * and no more than `close` of last_index is missing. Until then what it replays is kept for it. */
void install_tickets_matched(struct install_tickets *t, uint64_t peer_id, uint64_t match_index,
                             uint64_t last_index, uint64_t close);
/* Forgets tickets older than timeout_ms; one whose peer is there is kept for it. */
void install_tickets_expire(struct install_tickets *t, uint64_t now_ms, uint64_t timeout_ms,
                            bool (*is_there)(const void *ctx, uint64_t peer_id), const void *ctx);
void install_tickets_clear(struct install_tickets *t);
/* The smallest index behind which entries are kept for a ticket: its own, or what its peer has if that
 * is more (match: by peer id). UINT64_MAX when there is none. */
uint64_t install_tickets_oldest(const struct install_tickets *t,
                                uint64_t (*match)(const void *ctx, uint64_t peer_id),
                                const void *ctx);

enum install_phase { INSTALL_IDLE, INSTALL_PULLING, INSTALL_DRAINING };

struct install {
    enum install_phase phase;
    bool waits; /* pulling, but effects.install was not called yet: driver_install_if_remembered */
    uint64_t from_id;
    struct replica_ticket ticket;
};

#endif
