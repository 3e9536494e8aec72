/* sim_rows: what a database of the simulator holds, how it came to be, and what it ought to hold.
 *
 * What it owns: the rows of holdfast.* as structs, a log of all commits (so that a standby is a prefix of
 * it), and the *ledger*: every event that the cluster ever had, with the row that its order or
 * eligibility must be after it. The ledger is made from what the first engine to apply an entry says of its
 * events; it shares no code with the persister, which makes rows of the same events. */
#ifndef TESTS_SIM_SIM_ROWS_H
#define TESTS_SIM_SIM_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"

#define SIM_SHARDS_MAX 32
#define SIM_NAME_SIZE  48
#define SIM_TEXT_SIZE  64

enum sim_table { ROW_ORDER, ROW_LINE, ROW_PAYMENT, ROW_OUTBOX, ROW_ELIGIBILITY };
#define SIM_TABLES 5

/* Unused bytes are zero: rows are compared as bytes. Times are microseconds since 2000-01-01. */
struct sim_row_order {
    uint64_t id, version, created_index, changed_index;
    int64_t amount, created, pay_by, changed;
    char status[SIM_NAME_SIZE], currency[8], sale[SIM_NAME_SIZE], user[SIM_NAME_SIZE];
    char reason[SIM_TEXT_SIZE];
    int64_t restocked; /* -1: NULL */
    uint64_t shard;
};

struct sim_row_line {
    uint64_t order, line, quantity, shard;
    int64_t unit_price;
    char sku[SIM_NAME_SIZE];
};

struct sim_row_payment {
    uint64_t sequence, order, index, shard;
    int64_t amount, received;
    char currency[8], outcome[SIM_NAME_SIZE], payment[SIM_NAME_SIZE], reason[SIM_TEXT_SIZE];
};

struct sim_row_outbox {
    uint64_t sequence, index, shard;
    int64_t created;
    uint8_t id[16];
    char aggregatetype[SIM_NAME_SIZE], aggregateid[SIM_TEXT_SIZE], type[SIM_NAME_SIZE];
};

struct sim_row_eligibility {
    uint64_t sequence, index, granted, shard;
    int64_t changed;
    char sale[SIM_NAME_SIZE], user[SIM_NAME_SIZE];
};

struct sim_row {
    enum sim_table table;
    uint64_t key; /* stands for the primary key */
    union {
        struct sim_row_order order;
        struct sim_row_line line;
        struct sim_row_payment payment;
        struct sim_row_outbox outbox;
        struct sim_row_eligibility eligibility;
    };
};

uint64_t sim_row_line_key(uint64_t order, uint64_t line);
uint64_t sim_row_eligibility_key(const char *sale, const char *user);

struct sim_watermark {
    bool exists;
    uint64_t term, sequence, index;
};

enum sim_op_kind {
    OP_INSERT,       /* the row; it must not be there */
    OP_CHANGE_ORDER, /* what holdfast.change_orders sets; it must be there, and older */
    OP_PUT,          /* an eligibility; what is there must be older */
    OP_WATERMARK,
    OP_CLUSTER,
};

struct sim_op {
    enum sim_op_kind kind;
    struct sim_row row;
    uint32_t shard; /* OP_WATERMARK */
    struct sim_watermark watermark;
    char cluster[33]; /* OP_CLUSTER */
    uint64_t shards;
};

struct sim_ops {
    struct sim_op *ops;
    size_t count, capacity;
};
struct sim_op *sim_ops_add(struct sim_ops *o);
void sim_ops_close(struct sim_ops *o);

struct sim_rows {
    struct sim_row *rows;
    size_t count, capacity;
    uint32_t *slots; /* 1 + position */
    size_t slots_count;
    size_t counts[SIM_TABLES];
    struct sim_watermark watermarks[SIM_SHARDS_MAX];
    char cluster[33];
    uint64_t shards;
    /* All commits: how many operations there were after each. */
    struct sim_ops log;
    size_t *commits;
    size_t commits_count, commits_capacity;
};

void sim_rows_close(struct sim_rows *r);
const struct sim_row *sim_rows_find(const struct sim_rows *r, enum sim_table table, uint64_t key);
/* NULL, or the SQLSTATE with which the operation is refused. */
const char *sim_rows_judge(const struct sim_rows *r, const struct sim_op *op);
/* Applies what was judged and writes it down, as one commit. */
void sim_rows_commit(struct sim_rows *r, const struct sim_ops *ops);
/* A copy as of the first commits. */
void sim_rows_prefix(const struct sim_rows *from, size_t commits, struct sim_rows *to);
/* The least watermark of its shards; 0 when one is missing. */
uint64_t sim_rows_least(const struct sim_rows *r, uint32_t shards);

/* ---- the ledger ---- */

struct sim_ledger_event {
    enum event_kind kind;
    uint32_t shard;
    bool committed;    /* its outbox row was committed, ever, on whatever became of that database */
    uint64_t previous; /* event of the same order or eligibility, 0: none */
    struct sim_row_outbox outbox;
    char status[SIM_NAME_SIZE]; /* in the payload; "" without an order */
    uint64_t version;
    bool has_payment;
    struct sim_row_payment payment;
    struct sim_row state; /* ROW_ORDER or ROW_ELIGIBILITY, right after this event */
};

struct sim_ledger {
    struct sim_ledger_event *events; /* by sequence - 1 */
    uint64_t count;
    size_t capacity;
    struct sim_rows lines;  /* ROW_LINE of every order */
    struct sim_rows latest; /* of each order and eligibility: its outbox row under its key */
    uint64_t first;         /* of the engine that trimmed most */
};

/* After an apply: takes down what is new. Returns 0; or a sequence that left the engine (trimmed) though
 * its row was never committed. */
uint64_t sim_ledger_take(struct sim_ledger *l, const struct engine *e);
void sim_ledger_close(struct sim_ledger *l);
const struct sim_ledger_event *sim_ledger_get(const struct sim_ledger *l, uint64_t sequence);
/* The row as of the last event up to `sequence`; NULL: there must be none. */
const struct sim_row *sim_ledger_state(const struct sim_ledger *l, enum sim_table table, uint64_t key,
                                       uint64_t sequence);
/* Everything, when all is drained: what differs first, in words; true: nothing. */
bool sim_ledger_equals(const struct sim_ledger *l, const struct sim_rows *r, char *text, size_t size);
/* The same from the other side: orders as the engine shows them now. */
bool sim_ledger_engine_equals(const struct engine *e, const struct sim_rows *r, char *text, size_t size);

#endif
