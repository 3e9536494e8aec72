/* See sim_rows.h. */
#include "tests/sim/sim_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "proto/order_id.h"

#define EPOCH_2000_MS 946684800000ll

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

uint64_t sim_row_line_key(uint64_t order, uint64_t line)
{
    return mix(order) + line;
}

uint64_t sim_row_eligibility_key(const char *sale, const char *user)
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (const char *at = sale; *at != '\0'; at++) {
        hash = (hash ^ (uint8_t)*at) * 0x100000001B3u;
    }
    hash = (hash ^ '/') * 0x100000001B3u;
    for (const char *at = user; *at != '\0'; at++) {
        hash = (hash ^ (uint8_t)*at) * 0x100000001B3u;
    }
    return hash;
}

/* ---- operations ---- */

struct sim_op *sim_ops_add(struct sim_ops *o)
{
    if (o->count == o->capacity) {
        o->capacity = o->capacity == 0 ? 64 : 2 * o->capacity;
        o->ops = realloc(o->ops, o->capacity * sizeof *o->ops);
        CHECK(o->ops != NULL);
    }
    memset(&o->ops[o->count], 0, sizeof *o->ops);
    return &o->ops[o->count++];
}

void sim_ops_close(struct sim_ops *o)
{
    free(o->ops);
    *o = (struct sim_ops){.ops = NULL};
}

/* ---- tables: one array, found by hashing ---- */

static size_t slot_of(const struct sim_rows *r, enum sim_table table, uint64_t key)
{
    size_t slot = (size_t)mix(key * SIM_TABLES + table) & (r->slots_count - 1);
    while (r->slots[slot] != 0) {
        const struct sim_row *row = &r->rows[r->slots[slot] - 1];
        if (row->table == table && row->key == key) {
            break;
        }
        slot = (slot + 1) & (r->slots_count - 1);
    }
    return slot;
}

const struct sim_row *sim_rows_find(const struct sim_rows *r, enum sim_table table, uint64_t key)
{
    if (r->slots_count == 0) {
        return NULL;
    }
    uint32_t at = r->slots[slot_of(r, table, key)];
    return at == 0 ? NULL : &r->rows[at - 1];
}

static void grow(struct sim_rows *r)
{
    if (r->count < r->capacity) {
        return;
    }
    r->capacity = r->capacity == 0 ? 256 : 2 * r->capacity;
    r->rows = realloc(r->rows, r->capacity * sizeof *r->rows);
    free(r->slots);
    r->slots_count = 2 * r->capacity;
    r->slots = calloc(r->slots_count, sizeof *r->slots);
    CHECK(r->rows != NULL && r->slots != NULL);
    for (size_t i = 0; i < r->count; i++) {
        r->slots[slot_of(r, r->rows[i].table, r->rows[i].key)] = (uint32_t)i + 1;
    }
}

static void put(struct sim_rows *r, const struct sim_row *row)
{
    grow(r);
    size_t slot = slot_of(r, row->table, row->key);
    if (r->slots[slot] == 0) {
        r->rows[r->count++] = *row;
        r->slots[slot] = (uint32_t)r->count;
        r->counts[row->table]++;
    } else {
        r->rows[r->slots[slot] - 1] = *row;
    }
}

void sim_rows_close(struct sim_rows *r)
{
    free(r->rows);
    free(r->slots);
    free(r->commits);
    sim_ops_close(&r->log);
    *r = (struct sim_rows){.rows = NULL};
}

const char *sim_rows_judge(const struct sim_rows *r, const struct sim_op *op)
{
    const struct sim_row *there = sim_rows_find(r, op->row.table, op->row.key);
    switch (op->kind) {
    case OP_INSERT:
        return there != NULL ? "23505" : NULL;
    case OP_CHANGE_ORDER:
        return there == NULL || there->order.version >= op->row.order.version ? "HF003" : NULL;
    case OP_PUT:
        return there != NULL && there->eligibility.sequence >= op->row.eligibility.sequence ? "HF003"
                                                                                           : NULL;
    case OP_WATERMARK:
    case OP_CLUSTER:
        return NULL;
    }
    return NULL;
}

static void apply(struct sim_rows *r, const struct sim_op *op)
{
    switch (op->kind) {
    case OP_INSERT:
    case OP_PUT:
        put(r, &op->row);
        break;
    case OP_CHANGE_ORDER: {
        struct sim_row row = *sim_rows_find(r, ROW_ORDER, op->row.key);
        const struct sim_row_order *c = &op->row.order;
        memcpy(row.order.status, c->status, sizeof c->status);
        row.order.version = c->version;
        row.order.changed = c->changed;
        row.order.changed_index = c->changed_index;
        row.order.restocked = c->restocked >= 0 ? c->restocked : row.order.restocked;
        if (c->reason[0] != '\0') {
            memcpy(row.order.reason, c->reason, sizeof c->reason);
        }
        put(r, &row);
        break;
    }
    case OP_WATERMARK:
        r->watermarks[op->shard] = op->watermark;
        break;
    case OP_CLUSTER:
        if (r->shards == 0) {
            memcpy(r->cluster, op->cluster, sizeof r->cluster);
            r->shards = op->shards;
        }
        break;
    }
}

void sim_rows_commit(struct sim_rows *r, const struct sim_ops *ops)
{
    for (size_t i = 0; i < ops->count; i++) {
        apply(r, &ops->ops[i]);
        *sim_ops_add(&r->log) = ops->ops[i];
    }
    if (r->commits_count == r->commits_capacity) {
        r->commits_capacity = r->commits_capacity == 0 ? 256 : 2 * r->commits_capacity;
        r->commits = realloc(r->commits, r->commits_capacity * sizeof *r->commits);
        CHECK(r->commits != NULL);
    }
    r->commits[r->commits_count++] = r->log.count;
}

void sim_rows_prefix(const struct sim_rows *from, size_t commits, struct sim_rows *to)
{
    CHECK(commits <= from->commits_count);
    *to = (struct sim_rows){.rows = NULL};
    size_t start = 0;
    for (size_t i = 0; i < commits; i++) {
        sim_rows_commit(to, &(struct sim_ops){.ops = from->log.ops + start,
                                              .count = from->commits[i] - start});
        start = from->commits[i];
    }
}

uint64_t sim_rows_least(const struct sim_rows *r, uint32_t shards)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < shards; i++) {
        uint64_t sequence = r->watermarks[i].exists ? r->watermarks[i].sequence : 0;
        least = sequence < least ? sequence : least;
    }
    return least;
}

/* ---- the ledger ---- */

static int64_t micros(int64_t ms)
{
    return (ms - EPOCH_2000_MS) * 1000;
}

static void set(char *to, size_t size, struct str s)
{
    CHECK(s.len < size); /* the machine's names are short */
    if (s.len > 0) { /* of none, ptr may be NULL */
        memcpy(to, s.ptr, s.len);
    }
}

#define SET(to, s) set(to, sizeof(to), s)

static bool has_order(enum event_kind kind)
{
    return kind != EVENT_ELIGIBILITY_GRANTED && kind != EVENT_ELIGIBILITY_REVOKED;
}

static void write_outbox(struct sim_ledger_event *x, const struct event_view *v, const uint8_t *cluster)
{
    struct sim_row_outbox *o = &x->outbox;
    o->sequence = v->sequence;
    o->index = v->index;
    o->shard = v->shard;
    o->created = micros(v->time_ms);
    /* A UUID of version 8: 48 bits of the cluster, 12 more, then the sequence. */
    memcpy(o->id, cluster, 6);
    unsigned twelve = (unsigned)cluster[6] << 4 | cluster[7] >> 4;
    o->id[6] = (uint8_t)(0x80 | twelve >> 8);
    o->id[7] = (uint8_t)twelve;
    for (int i = 0; i < 8; i++) {
        o->id[8 + i] = (uint8_t)(v->sequence >> (56 - 8 * i));
    }
    o->id[8] = (uint8_t)((o->id[8] & 0x3F) | 0x80);
    SET(o->type, str_from(event_kind_name(v->kind)));
    if (has_order(v->kind)) {
        char id[ORDER_ID_TEXT_SIZE];
        order_id_format(v->order.id, id);
        SET(o->aggregatetype, STR_LITERAL("order"));
        SET(o->aggregateid, str_from(id));
        SET(x->status, str_from(order_status_name(v->status)));
        x->version = v->version;
    } else {
        SET(o->aggregatetype, STR_LITERAL("eligibility"));
        snprintf(o->aggregateid, sizeof o->aggregateid, "%.*s/%.*s", (int)v->sale.len, v->sale.ptr,
                 (int)v->user.len, v->user.ptr);
    }
}

static void write_payment(struct sim_ledger_event *x, const struct event_view *v)
{
    struct sim_row_payment *p = &x->payment;
    x->has_payment = true;
    p->sequence = v->sequence;
    p->order = v->order.id;
    p->index = v->index;
    p->shard = v->shard;
    p->amount = v->amount;
    p->received = micros(v->time_ms);
    SET(p->currency, str_from(v->currency));
    SET(p->outcome, str_from(v->kind == EVENT_ORDER_PAID         ? "paid"
                             : v->kind == EVENT_ORDER_REFUND_DUE ? "refund_due"
                                                                 : "rejected"));
    SET(p->payment, v->payment);
    SET(p->reason, v->reason);
}

/* The order as it is after the event; before: as it was. */
static void write_order(struct sim_row *row, const struct event_view *v, const struct sim_row *before)
{
    row->table = ROW_ORDER;
    row->key = v->order.id;
    struct sim_row_order *o = &row->order;
    if (before != NULL) {
        *o = before->order;
    } else {
        o->id = v->order.id;
        o->shard = v->shard;
        o->amount = v->order.amount;
        o->created = micros(v->order.created_ms);
        o->pay_by = micros(v->order.pay_by_ms);
        o->created_index = v->order.created_index;
        o->restocked = -1;
        SET(o->currency, str_from(v->order.currency));
        SET(o->sale, v->sale);
        SET(o->user, v->user);
    }
    if (v->kind == EVENT_PAYMENT_REJECTED) {
        return; /* that one changes no order */
    }
    memset(o->status, 0, sizeof o->status);
    SET(o->status, str_from(order_status_name(v->status)));
    o->version = v->version;
    o->changed = micros(v->time_ms);
    o->changed_index = v->index;
    if (v->kind == EVENT_ORDER_REFUNDED) {
        o->restocked = v->restocked;
        SET(o->reason, v->reason);
    }
}

static void write_eligibility(struct sim_row *row, const struct event_view *v)
{
    struct sim_row_eligibility *g = &row->eligibility;
    row->table = ROW_ELIGIBILITY;
    SET(g->sale, v->sale);
    SET(g->user, v->user);
    row->key = sim_row_eligibility_key(g->sale, g->user);
    g->sequence = v->sequence;
    g->index = v->index;
    g->granted = v->kind == EVENT_ELIGIBILITY_GRANTED;
    g->shard = v->shard;
    g->changed = micros(v->time_ms);
}

static void write_lines(struct sim_ledger *l, const struct event_view *v)
{
    for (uint32_t i = 0; i < v->order.lines_count; i++) {
        struct sim_row row = {.table = ROW_LINE, .key = sim_row_line_key(v->order.id, i + 1)};
        row.line.order = v->order.id;
        row.line.line = i + 1;
        row.line.quantity = v->order.lines[i].quantity;
        row.line.unit_price = v->order.lines[i].unit_price;
        row.line.shard = v->shard;
        SET(row.line.sku, v->order.lines[i].sku);
        put(&l->lines, &row);
    }
}

static void take_event(struct sim_ledger *l, const struct event_view *v, const uint8_t *cluster)
{
    if (l->count == l->capacity) {
        l->capacity = l->capacity == 0 ? 1024 : 2 * l->capacity;
        l->events = realloc(l->events, l->capacity * sizeof *l->events);
        CHECK(l->events != NULL);
    }
    CHECK(v->sequence == l->count + 1);
    struct sim_ledger_event *x = &l->events[l->count++];
    memset(x, 0, sizeof *x);
    x->kind = v->kind;
    x->shard = v->shard;
    write_outbox(x, v, cluster);
    if (v->kind == EVENT_ORDER_PAID || v->kind == EVENT_ORDER_REFUND_DUE ||
        v->kind == EVENT_PAYMENT_REJECTED) {
        write_payment(x, v);
    }
    struct sim_row latest = {.table = ROW_ORDER};
    if (has_order(v->kind)) {
        latest.key = v->order.id;
    } else {
        write_eligibility(&x->state, v);
        latest.table = ROW_ELIGIBILITY;
        latest.key = x->state.key;
    }
    const struct sim_row *before = sim_rows_find(&l->latest, latest.table, latest.key);
    x->previous = before != NULL ? before->outbox.sequence : 0;
    if (has_order(v->kind)) {
        CHECK((v->kind == EVENT_ORDER_PLACED) == (before == NULL));
        write_order(&x->state, v, before != NULL ? &l->events[x->previous - 1].state : NULL);
    }
    if (v->kind == EVENT_ORDER_PLACED) {
        write_lines(l, v);
    }
    latest.outbox.sequence = v->sequence;
    put(&l->latest, &latest);
}

uint64_t sim_ledger_take(struct sim_ledger *l, const struct engine *e)
{
    static struct event_view views[32];
    for (size_t count; (count = engine_read_events(e, l->count + 1, views, 32)) > 0;) {
        for (size_t i = 0; i < count; i++) {
            take_event(l, &views[i], engine_cluster_id(e));
        }
    }
    uint64_t first = engine_initialized(e) ? engine_events_first(e) : 0;
    for (; l->first < first; l->first++) {
        if (l->first > 0 && !l->events[l->first - 1].committed) {
            return l->first;
        }
    }
    return 0;
}

void sim_ledger_close(struct sim_ledger *l)
{
    free(l->events);
    sim_rows_close(&l->lines);
    sim_rows_close(&l->latest);
}

const struct sim_ledger_event *sim_ledger_get(const struct sim_ledger *l, uint64_t sequence)
{
    return sequence == 0 || sequence > l->count ? NULL : &l->events[sequence - 1];
}

const struct sim_row *sim_ledger_state(const struct sim_ledger *l, enum sim_table table, uint64_t key,
                                       uint64_t sequence)
{
    const struct sim_row *latest = sim_rows_find(&l->latest, table, key);
    uint64_t at = latest != NULL ? latest->outbox.sequence : 0;
    while (at > sequence) {
        at = l->events[at - 1].previous;
    }
    return at == 0 ? NULL : &l->events[at - 1].state;
}

static bool same_row(const struct sim_row *a, const struct sim_row *b)
{
    if (a == NULL || b == NULL) {
        return a == b;
    }
    switch (a->table) {
    case ROW_ORDER:
        return memcmp(&a->order, &b->order, sizeof a->order) == 0;
    case ROW_LINE:
        return memcmp(&a->line, &b->line, sizeof a->line) == 0;
    case ROW_PAYMENT:
        return memcmp(&a->payment, &b->payment, sizeof a->payment) == 0;
    case ROW_OUTBOX:
        return memcmp(&a->outbox, &b->outbox, sizeof a->outbox) == 0;
    case ROW_ELIGIBILITY:
        return memcmp(&a->eligibility, &b->eligibility, sizeof a->eligibility) == 0;
    }
    return false;
}

bool sim_ledger_equals(const struct sim_ledger *l, const struct sim_rows *r, char *text, size_t size)
{
    size_t payments = 0;
    for (uint64_t sequence = 1; sequence <= l->count; sequence++) {
        const struct sim_ledger_event *x = &l->events[sequence - 1];
        const struct sim_row *row = sim_rows_find(r, ROW_OUTBOX, sequence);
        if (row == NULL || memcmp(&row->outbox, &x->outbox, sizeof x->outbox) != 0) {
            snprintf(text, size, "event %llu (%s) %s the outbox", (unsigned long long)sequence,
                     x->outbox.type, row == NULL ? "is not in" : "is another in");
            return false;
        }
        payments += x->has_payment;
        row = sim_rows_find(r, ROW_PAYMENT, sequence);
        if (x->has_payment &&
            (row == NULL || memcmp(&row->payment, &x->payment, sizeof x->payment) != 0)) {
            snprintf(text, size, "the payment of event %llu differs", (unsigned long long)sequence);
            return false;
        }
    }
    for (size_t i = 0; i < l->latest.count; i++) {
        const struct sim_row *latest = &l->latest.rows[i];
        const struct sim_row *wanted = &l->events[latest->outbox.sequence - 1].state;
        if (!same_row(wanted, sim_rows_find(r, latest->table, latest->key))) {
            snprintf(text, size, "%s %016llx is not as event %llu left it",
                     latest->table == ROW_ORDER ? "order" : "eligibility",
                     (unsigned long long)latest->key, (unsigned long long)latest->outbox.sequence);
            return false;
        }
    }
    for (size_t i = 0; i < l->lines.count; i++) {
        const struct sim_row *line = &l->lines.rows[i];
        if (!same_row(line, sim_rows_find(r, ROW_LINE, line->key))) {
            snprintf(text, size, "line %llu of order %016llx differs", (unsigned long long)line->line.line,
                     (unsigned long long)line->line.order);
            return false;
        }
    }
    size_t wanted = (size_t)l->count + payments + l->latest.count + l->lines.count;
    if (r->count != wanted) {
        snprintf(text, size, "%zu rows, of which %zu should be there", r->count, wanted);
        return false;
    }
    return true;
}

bool sim_ledger_engine_equals(const struct engine *e, const struct sim_rows *r, char *text, size_t size)
{
    static struct order_view page[16];
    uint64_t cursor = 0;
    do {
        size_t count = engine_list_orders(e, str_from(""), str_from(""), &cursor, page, 16);
        for (size_t i = 0; i < count; i++) {
            const struct order_view *v = &page[i];
            const struct sim_row *row = sim_rows_find(r, ROW_ORDER, v->id);
            if (row == NULL || row->order.version != v->version || row->order.amount != v->amount ||
                strcmp(row->order.status, order_status_name(v->status)) != 0 ||
                row->order.pay_by != micros(v->pay_by_ms) ||
                row->order.changed != micros(v->changed_ms) ||
                row->order.changed_index != v->changed_index ||
                !str_equal(str_from(row->order.user), v->user)) {
                snprintf(text, size, "order %016llx of the engine %s the database",
                         (unsigned long long)v->id, row == NULL ? "is not in" : "is another in");
                return false;
            }
        }
    } while (cursor != 0);
    return true;
}
