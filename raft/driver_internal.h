/* driver_internal: what the files of the driver share. Nobody else includes it, except tests that
 * switch a guard off to prove that it is needed.
 *
 *     driver.c             create, the step (order of effects), durability, time
 *     driver_start.c       restart rule, bootstrap, bringing the core up
 *     driver_checkpoint.c  checkpoints of this node, installs of a peer's
 *     driver_receive.c     guards on what comes in
 *     driver_refill.c      a member whose disk was lost
 *     driver_send.c        what goes out: held until the vote is durable, split, tickets
 *     driver_request.c     submits, reads, transfer
 *     driver_change.c      changes of the configuration */
#ifndef RAFT_DRIVER_INTERNAL_H
#define RAFT_DRIVER_INTERNAL_H

#include <raft.h>

#include "raft/driver.h"
#include "raft/install.h"
#include "raft/log_cache.h"
#include "raft/read_index.h"

/* The guards that a test may switch off. N1..N9 are the core's bugs as numbered in docs/adr/0003.
 */
enum driver_guard {
    DRIVER_GUARD_CHANGE_FIRST = 1u << 0,     /* N1 */
    DRIVER_GUARD_COMMIT_MONOTONIC = 1u << 1, /* N2 */
    DRIVER_GUARD_STALE_RESULT = 1u << 2,     /* N3 */
    DRIVER_GUARD_REANCHOR = 1u << 3,         /* N5 */
    DRIVER_GUARD_CHANGE_TERM = 1u << 4,      /* N7, and the rules of docs/adr/0012 */
    DRIVER_GUARD_INSTALL_BUSY = 1u << 5,     /* N9 and guard 6 */
    DRIVER_GUARD_SNAPSHOT_STORED = 1u << 6,  /* guard 7 */
    DRIVER_GUARD_NOOP = 1u << 7,             /* guard 8 */
    DRIVER_GUARD_HOLD = 1u << 8,             /* messages wait for term and vote */
    DRIVER_GUARD_SAME_WRITE = 1u << 9,       /* stored means: this very write */
    DRIVER_GUARD_INSTALL_RETRY = 1u << 11,   /* N12: a failed install is offered again */
    DRIVER_GUARD_REFILL = 1u << 12,          /* a node that lost its disk neither votes nor leads */
    DRIVER_GUARD_NONVOTER = 1u << 13,        /* N6: who does not know of its promotion votes, too */
    DRIVER_GUARD_CHECKPOINT_STORED = 1u << 15, /* no checkpoint ahead of the log */
    DRIVER_GUARD_PRE_VOTE_TERM = 1u << 14,   /* N14: who is refused a pre-vote learns the term */
    DRIVER_GUARD_SELF_ELECT = 1u << 10, /* N10: an only voter begins a new term at each start */
};

/* A message that waits until the newest term and vote are durable. */
struct held_message {
    struct held_message *next;
    uint64_t to_id;
    struct message_out out;
    struct raft_message raft;
    const struct record_header **records;
    struct batch **batches; /* one reference for each record */
    size_t records_count;
    uint8_t configuration[REPLICA_CONFIGURATION_SIZE_MAX];
    uint8_t data[REPLICA_TICKET_SIZE_MAX];
};

/* An AppendEntries without entries that waits for one with entries to overtake it: driver_send.c.
 */
struct idle_append {
    uint64_t due_ms; /* 0: free */
    struct raft_message message;
};

/* See driver_refill.c. */
struct refill {
    bool on;
    uint64_t nonce;          /* of this life */
    uint64_t quiet_until_ms; /* asks nobody before */
    uint64_t term;           /* in which a leader is proved; 0: none yet */
    uint64_t target;         /* his last entry at that time */
};

/* A leader's answer to a refilling member, while the round of reads runs. */
struct refill_answer {
    struct replica_read read;
    struct driver *driver;
    uint64_t id; /* of the member; 0: free */
    uint64_t nonce, term;
};

/* A connected peer. What is known of it ends with the connection. */
struct driver_peer {
    uint64_t id; /* 0: free */
    bool unwilling;
    bool refilling;          /* it asked for a proof and has not answered a read since */
    uint64_t confirmed_term; /* in which it answered a read of ours: it is whole */
};

struct driver {
    struct raft core;
    struct driver_config config;
    const struct driver_effects *effects;
    void *ctx;
    unsigned guards_off;
    bool core_open, started;
    bool paused;    /* between driver_start and the first event: no callback is made */
    unsigned depth; /* of nested steps */
    uint64_t now_ms;

    struct log_cache cache;

    /* Durability. */
    uint64_t durable_ticket;
    uint64_t hold_ticket; /* of the newest write of term and vote */
    uint64_t term, vote;  /* as last given to write_vote or recovered */
    struct held_message *held_first, **held_last;
    size_t held_count;
    struct idle_append idle_appends[REPLICA_MEMBERS_MAX];

    /* Commit and apply. The core's view restarts after a failed install; ours never goes back. */
    bool applying;
    bool behind;           /* more is committed than one go may apply: the tick goes on */
    uint64_t core_commit;  /* checked to be monotonic */
    uint64_t core_applied; /* configurations are reported to the core up to here */
    uint64_t applied_index, applied_term;
    uint64_t configuration_index; /* the last committed one, at applied_index */
    uint32_t configuration_size;
    uint8_t configuration[REPLICA_CONFIGURATION_SIZE_MAX];
    uint64_t seen_committed, seen_uncommitted; /* to notice a change of the core's configuration */

    /* Leadership. */
    bool leading;
    uint64_t leading_term;
    uint64_t noop_index; /* 0: not yet appended */
    bool ready;
    struct driver_state reported;
    struct replica_submit *submits_first, **submits_last;
    size_t submits_count;
    uint64_t transfer_id, transfer_ms; /* to whom leadership was last offered, and when */
    struct read_index reads;
    uint64_t tick_ms; /* of the last tick */
    uint64_t heard_ms; /* when the leader was last heard */
    bool unwilling;    /* to lead */
    bool removed;      /* effects.removed was called */
    bool removal_told; /* ... is due: a member said so */

    /* Quick fail-over: the short election timeout ends at this time; 0: not in force. */
    uint64_t quick_until_ms;
    struct driver_peer peers[REPLICA_MEMBERS_MAX * 2];

    /* Checkpoints and installs. */
    struct replica_position snapshot; /* what the core knows as its last snapshot; index 0: none */
    bool checkpoint_running;
    bool published_waits; /* `published` is durable but not yet stepped */
    struct replica_position published;
    struct install install;
    struct install_tickets tickets;

    struct refill refill;
    struct refill_answer refill_answers[REPLICA_MEMBERS_MAX];
    bool unsettled; /* effects.settled is due: when settle_ticket is durable, or the refill is over
                     */
    uint64_t settle_ticket;

    bool receiving_stale; /* the message being stepped has an old term (N3) */

    uint64_t elections, installs, messages_refused, held_dropped, refill_dropped;
};

/* For tests only: a mask of enum driver_guard to switch off. */
void driver_test_disable_guard(struct driver *d, unsigned mask);

static inline bool driver_guarded(const struct driver *d, enum driver_guard guard)
{
    return (d->guards_off & guard) == 0;
}

/* Steps the core and carries the update out. Returns what raft_step returned. */
int driver_step(struct driver *d, struct raft_event *event);
/* Steps an event that cannot fail while the core and the disk are sane; ends the process otherwise.
 */
void driver_step_or_die(struct driver *d, struct raft_event *event, const char *what);
/* Takes the time of an event and makes the callbacks that driver_start put off. */
void driver_begin_event(struct driver *d, uint64_t now_ms);
/* After an event: new state is reported. */
void driver_end_event(struct driver *d);
bool driver_peer_is_connected(const struct driver *d, uint64_t id);
struct driver_peer *driver_peer(struct driver *d, uint64_t id); /* NULL: not connected */

_Noreturn void driver_die(const char *what, int rv);
/* The short election timeout of a quick fail-over ends. */
void driver_quick_end(struct driver *d);

/* driver_start.c */
void driver_core_init(struct driver *d);
void driver_core_close(struct driver *d);
/* Gives the core term, vote, snapshot and the entries of the cache. */
void driver_core_start(struct driver *d);
void driver_write_vote(struct driver *d, uint64_t term, uint64_t vote);
void driver_configuration_set(struct driver *d, uint64_t index, const void *bytes, uint32_t size);
bool driver_position_is_valid(const struct replica_position *p);
/* metadata moves into the core, which closes its configuration. */
void driver_metadata_from_position(const struct replica_position *position,
                                   struct raft_snapshot_metadata *metadata);

/* driver_checkpoint.c: both do nothing until their time has come */
void driver_snapshot_if_stored(struct driver *d);
void driver_install_if_remembered(struct driver *d);
void driver_restart_if_drained(struct driver *d);
/* The ticket that the peer should get again; NULL: a new one. */
const struct replica_ticket *driver_ticket_begun(const struct driver *d, uint64_t peer_id);

/* driver_send.c */
void driver_send_core(struct driver *d, const struct raft_message *message);
void driver_send_read(struct driver *d, uint64_t to_id, enum message_kind kind, uint64_t term,
                      uint64_t seq);
void driver_send_refill(struct driver *d, uint64_t to_id, enum message_kind kind, uint64_t term,
                        uint64_t nonce, uint64_t index);
/* MESSAGE_REMOVED, MESSAGE_WILLING */
void driver_send_note(struct driver *d, uint64_t to_id, enum message_kind kind, uint64_t seq,
                      uint64_t index);
void driver_send_held(struct driver *d); /* once the vote is durable */
void driver_drop_held(struct driver *d);
void driver_send_idle_appends(struct driver *d);            /* those whose time has come */
uint64_t driver_idle_append_due_ms(const struct driver *d); /* UINT64_MAX: none waits */

/* driver_refill.c */
void driver_refill_start(struct driver *d);
bool driver_refill_is_over(const struct driver *d);
/* While refilling: whether a message may reach the core. */
bool driver_refill_takes(struct driver *d, uint64_t from_id, const struct message *m);
/* Leader: a member that refills wants to know that it is one still. */
void driver_refill_asked(struct driver *d, uint64_t from_id, const struct message *m);

/* driver_request.c */
int driver_submit_noop(struct driver *d);
int driver_submit_change(struct driver *d, const void *bytes, uint32_t size);
void driver_requests_applied(struct driver *d, const struct record_header *record);
void driver_requests_lost(struct driver *d);
void driver_read_round(struct driver *d);  /* begins one if reads wait */
void driver_read_repeat(struct driver *d); /* asks again those that have not answered */

static inline bool driver_is_leader(const struct driver *d)
{
    return d->core.state == RAFT_LEADER;
}

#endif
