/* sim: a whole cluster in one thread and in virtual time. Real driver, real log format and recovery,
 * real message codec; simulated disks, network, clocks, checkpoints and clients.
 *
 * Everything random or timed comes from one seed: no threads, no wall clock, no pointer order. The same
 * seed and options give the same events, byte for byte (`--twice` compares their hash).
 *
 * Reading order: sim.h → sim_world.c (events) → sim_node.c, sim_install.c (a node on a driver) → sim_log.c and
 * sim_disk.c (durability) → sim_network.c → sim_clock.c → sim_clients.c → sim_faults.c → sim_check.c
 * (what must hold).
 *
 * A run has two phases: faults with clients and safety checks, then everything heals and all nodes
 * must converge within SIM_CONVERGENCE_US. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/prng.h"
#include "raft/driver.h"
#include "raft/wal_watch.h"
#include "server/clock.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_fault.h"
#include "tests/sim/sim_log.h"
#include "tests/sim/sim_machine.h"

#define SIM_NODES_MAX      7
#define SIM_CONVERGENCE_US 30000000ull
#define SIM_CLIENTS_STOP_US  3000000ull /* after healing: then everything must come to rest */
#define SIM_HAND_OVER_US 5000000ull
#define SIM_CLOCK_BASES    8
#define SIM_CLOCK_BOUND_MS 100 /* how far the cluster's time may move from the truth */
#define SIM_CHECKPOINTS_KEPT 6 /* a pinned reader for each ticket, in effect */

/* What a seed may do. Each seed switches a random subset off (swarm testing): faults that are always
 * on hide each other's bugs. */
struct sim_swarm {
    unsigned nodes, voters;
    uint64_t faults; /* bits of enum sim_fault */
    bool checkpoints, membership, reads, quick;
    uint64_t checkpoint_entries;  /* between two checkpoints */
    uint64_t trailing_entries;
    uint64_t catch_up_log_size;
    uint32_t in_flight_max;
    uint64_t segment_size;
    uint64_t client_interval_us;  /* mean */
    uint64_t fault_interval_us;   /* mean */
    uint64_t latency_us;          /* of the network, least */
    uint64_t jitter_us;
    size_t command_size_max;
    uint64_t log_deadline_ms; /* --log-write-deadline */
};

struct sim_only;
struct sim_progress;

struct sim_options {
    uint64_t seed;
    uint64_t duration_us; /* of the phase with faults */
    bool verbose;
    unsigned guards_off; /* enum driver_guard */
    unsigned database_guards_off; /* enum sim_database_guard */
    bool no_database;
    bool replies_altered; /* answers are compared with others than the model's */
    unsigned nodes_max;    /* at most so many; 0: as the seed chooses. sim_shrink.h has the rest */
    uint64_t commands_max; /* of clients, before everything heals; 0: no limit */
    const struct sim_only *only;
    struct sim_progress *progress;
    bool clocks_deaf;    /* nodes do not ask for each other's clocks */
    bool edge_open;      /* messages of older connections, and copies, are delivered */
    bool log_shortens;   /* what a log refuses it cuts off instead */
    bool disk_unwatched; /* nobody leaves a disk that is silent, nor ends */
    uint64_t faults;     /* of these a seed may choose */
    const struct sim_machine *machine;
};

enum sim_event_kind {
    SIM_MESSAGE,
    SIM_DISK,          /* the write under way is complete */
    SIM_TICK,
    SIM_CHECKPOINT,    /* the checkpoint under way is durable */
    SIM_INSTALL,       /* the pull is over */
    SIM_RESTART,
    SIM_LINK_UP,
    SIM_LINK_NOTICE,   /* a node sees that a link went up or down */
    SIM_CLIENT,
    SIM_FAULT,
    SIM_HEAL,
    SIM_CLOCK,         /* a node looks at its clocks, and asks for the others' */
    SIM_CLOCK_FAULT,
    SIM_DIE,           /* a node is killed */
    SIM_WATCH,         /* a node looks how long its log's disk is silent */
    SIM_DATABASE,       /* at the database, of no node */
    SIM_DATABASE_FAULT,
    SIM_PERSISTER,      /* at a node: see sim_database.h */
};

struct sim_event {
    uint64_t time_us, sequence;
    enum sim_event_kind kind;
    unsigned node;    /* index, SIM_NODES_MAX: none */
    unsigned life;    /* of the node: an event for an earlier life is dropped */
    uint64_t a, b;
    void *data;       /* malloc'ed, freed with the event */
    size_t size;
};

/* Bytes of a machine's state, shared by count between nodes. */
struct sim_image {
    unsigned references;
    uint64_t digest;
    size_t size;
    uint8_t *data;
};

struct sim_checkpoint {
    struct replica_position position; /* index 0: none */
    struct sim_image *image;
};

/* What has come of a checkpoint that is being installed. */
struct sim_part {
    uint64_t index, term, digest;
    uint8_t *data; /* NULL: there is none */
    size_t size, durable, total;
};

/* The clocks of a node's host, which survive its process; not those of its driver. */
struct sim_clocks {
    bool wrong; /* they may lie */
    uint64_t mono_ns, since_us; /* the monotonic clock showed mono_ns at since_us */
    int64_t rate_ppm;           /* and runs so much faster than the world */
    int64_t wall_off_ms;
    uint64_t ticks, ping_seq, handed_over_us;
    /* For how long a majority of the voters is honest; and answers; when it was looked at. */
    uint64_t honest_us, heard_us, looked_us;
    uint64_t asked_seq[SIM_NODES_MAX], asked_ns[SIM_NODES_MAX];
};

struct sim;
struct sim_request;
struct sim_database;
struct sim_replies;
struct sim_persister;

struct sim_node {
    struct sim *sim;
    unsigned index;
    uint64_t id;
    bool up;
    unsigned life;
    uint64_t paused_until_us, slow_until_us, stuck_since_us, stuck_until_us;
    uint64_t clock_base_ms;
    uint64_t clock_rate_ppm; /* 1000000: as the world's */

    /* Survives a crash. */
    struct sim_disk *disk;
    struct sim_log_model durable; /* what its log must hold */
    bool refilling; /* its disk was lost, and it is not whole again */
    bool refused;   /* its log refused to start: the operator rebuilds it */
    bool gone;      /* removed, or lost for good: not started again until it is added, or all heals */
    struct sim_checkpoint kept[SIM_CHECKPOINTS_KEPT]; /* newest first; [0] is CURRENT */
    struct sim_part part;
    uint64_t voted_term, voted_for; /* by messages that left: what the world relies on */

    /* Lost in a crash. */
    struct sim_log *log;
    struct driver *driver;
    void *machine;
    uint64_t applied;
    uint64_t tick_at_us;
    bool disk_busy;
    uint64_t write; /* counts; the one under way while disk_busy */
    bool checkpointing;
    struct replica_position running; /* of the checkpoint that is being written */
    uint64_t running_digest;
    uint64_t checkpoint_last, checkpoint_not_before_us;
    struct replica_ticket ticket;  /* being pulled */
    uint64_t ticket_from;
    bool installing;
    bool was_leader;
    struct wal_watch watch; /* of its log's disk, while up */
    bool silent;            /* that disk: this node must not lead */
    uint64_t handed_over_ms;
    bool dismissed; /* it was told that it is no member */
    struct cluster_clock clock;
    struct driver_state role_seen; /* by what tells the clock */
    struct sim_clocks clocks;      /* this survives */
    struct sim_persister *persister;
};

struct sim_link { /* from one node to another: on it the first sends */
    bool up;
    unsigned epoch;         /* of the newest connection */
    uint64_t arrival_us;    /* FIFO: of the last message */
    uint64_t late_until_us; /* what a broken one held is still delivered */
    uint64_t hold_us;       /* but not before */
};

/* The one log that all nodes must agree on. */
struct sim_history_entry {
    uint64_t term;
    uint32_t crc32c;
    uint8_t type;
    bool known, has_digest, has_answers;
    uint64_t digest, answers;
};

struct sim_history {
    struct sim_history_entry *entries; /* by index - 1 */
    size_t capacity;
    uint64_t last;
    uint64_t *leaders; /* by term: node id, 0 unknown */
    size_t leaders_capacity;
    uint64_t acknowledged_max; /* largest index acknowledged to a client */
};

struct sim_stats {
    uint64_t events, commits, elections, crashes, disk_crashes, installs, installs_failed,
        checkpoints, changes, transfers, reads, submits, acknowledged, unknown, messages, restarts,
        torn, disks_lost, refilled, tickets_again, resumed, dismissed;
    uint64_t clock_faults, clock_steps, clock_anchors, clock_alone, clock_floors, clock_goes_on, clock_hand_overs;
    uint64_t fired[SIM_FAULTS];
    uint64_t refused, cut, harmless; /* what became of damage at a restart */
    uint64_t stuck_hand_overs, stuck_ended, checkpoints_failed;
    uint64_t simulated_us, processor_us, seeds;
    uint64_t database_connects, database_commits, database_rows, database_refusals, database_fenced,
        database_waits, database_faults, database_restarts, database_fail_overs, database_brought_back,
        database_acks, database_checked, replies_compared;
    uint64_t clock_worst_ms; /* of all seeds, the largest */
};

struct sim {
    struct sim_options options;
    struct sim_swarm swarm;
    struct prng prng;
    uint64_t now_us, sequence;
    uint64_t hash; /* of all events */
    bool healing;  /* the second phase */
    uint64_t healed_at_us, healed_at_index;
    struct sim_event *heap;
    size_t heap_count, heap_capacity;
    struct sim_node nodes[SIM_NODES_MAX];
    struct sim_link links[SIM_NODES_MAX][SIM_NODES_MAX]; /* [from][to] */
    bool told[SIM_NODES_MAX][SIM_NODES_MAX];             /* [at][peer]: its driver: connected */
    bool cut[SIM_NODES_MAX][SIM_NODES_MAX];              /* [from][to] */
    struct sim_history history;
    struct sim_stats stats;
    uint64_t client_sequence;
    struct sim_database *database; /* NULL: none */
    struct sim_replies *replies;   /* NULL: not compared in this run */
    uint32_t fault_number, database_fault_number;
    struct sim_request *pending; /* of clients, without an answer */
    struct prng clock_prng;
    bool clocks, clock_faults; /* the machine has time; some clocks lie */
    int64_t clock_step_ms;     /* all wall clocks together */
    bool clock_base_known, clock_stamped;
    uint64_t clock_exposed_ns; /* what wrong clocks gained where nobody could notice */
    /* Stamped time less the truth: at the last anchors, a ring; and the most. */
    int64_t clock_bases_ms[SIM_CLOCK_BASES], clock_floor_ms;
    unsigned clock_bases;
};

/* sim_world.c */
void sim_run(const struct sim_options *options, struct sim_stats *stats, uint64_t *hash);
void sim_push(struct sim *s, uint64_t delay_us, enum sim_event_kind kind, struct sim_node *node,
              uint64_t a, uint64_t b, void *data, size_t size);
void sim_hash(struct sim *s, uint64_t value);
void sim_trace(struct sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool sim_one_in(struct sim *s, uint64_t n);
uint64_t sim_below(struct sim *s, uint64_t bound);
/* Around `mean`, at least 1. */
uint64_t sim_around(struct sim *s, uint64_t mean);

/* sim_node.c */
void sim_node_init(struct sim *s, unsigned index);
void sim_node_close(struct sim_node *n);
void sim_node_start(struct sim_node *n);
void sim_node_crash(struct sim_node *n);
/* Its disk answers again. */
void sim_node_unstick(struct sim_node *n);
/* A clean stop. */
void sim_node_stop(struct sim_node *n);
/* Its disk may lose or change something, or be about to; or it is not whole again after that. */
bool sim_node_is_hurt(const struct sim_node *n);
/* The same, and all that was on its disk is gone. */
void sim_node_lose_disk(struct sim_node *n);
void sim_node_address(unsigned index, char out[static REPLICA_ADDRESS_SIZE]);
void sim_node_event(struct sim_node *n, struct sim_event *e);
/* After every event at a node: its disk is kept busy, its timer set, its death noticed. */
void sim_node_after(struct sim_node *n);
uint64_t sim_node_now_ms(const struct sim_node *n);
struct sim_node *sim_leader(struct sim *s); /* a ready one, or NULL */

/* sim_install.c */
struct sim_image *sim_image_retain(struct sim_image *image);
void sim_image_release(struct sim_image *image);
/* The machine is what CURRENT says, or new. */
void sim_install_load(struct sim_node *n);
/* What has come of an install is thrown away. */
void sim_install_drop(struct sim_node *n);
int sim_install_make_ticket(struct sim_node *n, struct replica_ticket *ticket);
void sim_install_begin(struct sim_node *n, const struct replica_ticket *ticket, uint64_t from_id);
void sim_install_event(struct sim_node *n);
void sim_checkpoint_begin(struct sim_node *n); /* if it is time */
void sim_checkpoint_event(struct sim_node *n);
void sim_checkpoint_crash(struct sim_node *n);

/* sim_network.c */
void sim_network_start(struct sim *s);
void sim_network_send(struct sim_node *from, uint64_t to_id, const struct message_out *m);
void sim_network_event(struct sim *s, struct sim_event *e);
/* The node died. silent: its host too, nobody is told before a timeout. */
void sim_network_node_down(struct sim_node *n, bool silent);
void sim_network_break(struct sim *s, unsigned a, unsigned b);
bool sim_network_connected(const struct sim *s, unsigned a, unsigned b);
/* What a node sees: 1: connected, 0: no longer, -1: nothing new. */
int sim_network_notice(struct sim_node *n, const struct sim_event *e);
/* The message is delivered now. May take its data and bring it later. */
bool sim_network_admits(struct sim_node *n, struct sim_event *e);

/* The same with a generator of the caller's. */
void sim_network_send_from(struct sim_node *from, uint64_t to_id, const struct message_out *m,
                           struct prng *prng);

/* sim_clock.c: see there; without a machine that has time all of them do nothing */
void sim_clock_init(struct sim *s);
void sim_clock_fault(struct sim *s);
void sim_clock_tick(struct sim_node *n);
void sim_clock_start(struct sim_node *n);
/* The machine was loaded: from disk, or by an install while the process goes on. */
void sim_clock_loaded(struct sim_node *n, bool restarted);
void sim_clock_state(struct sim_node *n, const struct driver_state *state);
void sim_clock_applied(struct sim_node *n, const struct record_header *record);
/* As the transport does when a connection opens. */
void sim_clock_ask(struct sim_node *n, uint64_t id);
bool sim_clock_message(struct sim_node *n, uint64_t from_id, const struct message *m);
bool sim_clock_can_stamp(const struct sim_node *n);
int64_t sim_clock_stamp(struct sim_node *n);
bool sim_clock_at_rest(const struct sim_node *leader);

/* sim_clients.c */
void sim_clients_event(struct sim *s);
/* A batch of the node's own. false: refused, nothing happened. */
bool sim_clients_submit(struct sim_node *n, const void *data, size_t size);
void sim_clients_close(struct sim *s);

/* sim_faults.c */
static inline bool sim_fault_on(const struct sim *s, enum sim_fault fault)
{
    return (s->swarm.faults >> fault & 1) != 0;
}
void sim_swarm_choose(struct sim *s);
void sim_faults_event(struct sim *s);
void sim_faults_heal(struct sim *s);
/* The leader is asked to give the node another role: voter, standby, spare, no member. */
void sim_faults_membership(struct sim *s, unsigned target);

/* sim_check.c: each ends the run with the seed and the command that replays it. The name of a check, by
 * which it can be asked for (tests/planted), is that of the function it stands in. */
#define sim_violation(s, ...) sim_violation_of((s), __func__, __VA_ARGS__)
extern const char *sim_violated_check; /* "": none; for who handles SIGABRT */
_Noreturn void sim_violation_of(const struct sim *s, const char *check, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void sim_check_applied(struct sim_node *n, const struct record_header *record);
void sim_check_digest(struct sim_node *n, uint64_t index, uint64_t digest);
void sim_check_answers(struct sim_node *n, uint64_t index, uint64_t answers);
void sim_check_state(struct sim_node *n, const struct driver_state *state);
void sim_check_send(struct sim_node *n, uint64_t to_id, const struct message_out *m);
/* Now and then, with a disk that may be stuck. */
void sim_check_silent(const struct sim_node *n, bool leads);
void sim_check_acknowledged(struct sim *s, uint64_t index, uint64_t term, uint32_t crc);
void sim_check_converged(struct sim *s);
bool sim_is_converged(struct sim *s);

#endif
