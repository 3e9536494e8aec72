/* A driver whose world only takes notes, scenes to start from, and messages to feed it with: for
 * the tests of raft/driver*.c. Each helper aborts the running test when the driver does what it
 * must not. */
#ifndef TESTS_UNIT_RAFT_DRIVER_WORLD_H
#define TESTS_UNIT_RAFT_DRIVER_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raft/driver_internal.h"

#define SENT_MAX 4096

struct sent {
    uint64_t to;
    bool core;
    struct raft_message raft;
    enum message_kind kind;
    uint64_t term, seq, index;
    size_t records, bytes;
};

/* A driver whose world only takes notes. */
struct world {
    int removed;
    struct driver *driver;
    uint64_t now_ms;
    uint64_t ticket, vote_ticket, vote_term, vote;
    uint64_t reset_index, reset_term, trimmed;
    struct sent sent[SENT_MAX];
    size_t sent_count;
    uint64_t applied;
    unsigned installs;
    struct replica_ticket offered; /* what make_ticket answers; index 0: none */
    unsigned state_changes;
    unsigned settled;
};

/* What the driver does is written into its struct world, which is the ctx. */
extern const struct driver_effects world_effects;

/* Records one after the other, as a frame carries them. */
struct frame {
    uint64_t bytes[8192];
    size_t size;
    unsigned count;
};

struct request {
    struct replica_submit submit;
    struct replica_read read;
    int status; /* 1: not answered */
};

void members(struct membership *m, size_t count, size_t voters);
struct world *world_create(uint64_t id, unsigned guards_off);
void world_destroy(struct world *w);
void make_durable(struct world *w);
/* A member of three that has the bootstrap entry and term 1. */
struct world *follower(uint64_t id, unsigned guards_off);
void position_at(struct replica_position *p, uint64_t index, uint64_t term);
/* A member of three that begins at a checkpoint, its log empty behind it. */
struct world *at_checkpoint(uint64_t index, uint64_t term, unsigned guards_off);
void frame_add(struct frame *f, enum record_type type, uint64_t index, uint64_t term,
               const void *data, uint32_t size);
void frame_add_command(struct frame *f, uint64_t index, uint64_t term);
void frame_add_change(struct frame *f, uint64_t index, uint64_t term, size_t voters);
void receive_append(struct world *w, uint64_t from, uint64_t term, uint64_t prev,
                    uint64_t prev_term, uint64_t commit, const struct frame *f);
void receive_install(struct world *w, uint64_t from, uint64_t term, uint64_t index,
                     uint64_t index_term);
void receive_vote_request(struct world *w, uint64_t from, uint64_t term, uint64_t last);
void receive_vote_result(struct world *w, uint64_t from, uint64_t term, bool pre_vote);
void receive_result(struct world *w, uint64_t from, uint64_t term, uint64_t rejected,
                    uint64_t last);
void receive_read(struct world *w, uint64_t from, enum message_kind kind, uint64_t term,
                  uint64_t seq);
const struct sent *last_sent(const struct world *w, enum raft_message_type type);
/* Node 1 of three, leader of term 2, ready. */
struct world *ready_leader(unsigned guards_off);
/* Runs in a child: true iff it died by abort. */
bool aborts(void (*scene)(unsigned guards_off), unsigned guards_off);
size_t count_sent(const struct world *w, enum raft_message_type type);
const struct sent *last_of_kind(const struct world *w, enum message_kind kind);
size_t count_of_kind(const struct world *w, enum message_kind kind);
void submit_cb(struct replica_submit *req, enum replica_status status, uint64_t index);
void read_cb(struct replica_read *req, enum replica_status status);

#endif
