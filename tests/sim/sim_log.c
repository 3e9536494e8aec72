/* sim_log: wal_core in virtual time, and the model that judges it. See sim_log.h. */
#include "tests/sim/sim_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#define BLOCK_CAPACITY (64u << 10)

enum op_kind { OP_ENTRY, OP_VOTE, OP_RESET };

/* What a block does, for the model. */
struct sim_log_op {
    enum op_kind kind;
    uint64_t index, term; /* OP_VOTE: index is the vote */
    uint32_t crc32c;
};

/* One write, for the model. */
struct sim_log_write {
    struct sim_log_op *ops;
    size_t count;
    int file;
    uint64_t offset;
    size_t size; /* 0: nobody knows where, and nothing in it matters */
};

struct block {
    struct block *next;
    struct wal_block wal;
    uint64_t ticket; /* of the last thing in it */
    struct sim_log_op *ops;
    size_t ops_count, ops_capacity;
};

struct sim_log {
    struct wal_core core;
    struct sim_disk *disk;
    struct sim_log_model *model;
    struct block *first, **last;
    struct block *writing; /* detached from the queue */
    struct wal_write write;
    uint64_t ticket;
    uint64_t trim_index; /* wanted; carried out between writes */
    uint64_t trimmed_index;
    size_t capacity;
};

/* ---- model ---- */

uint64_t sim_log_model_term(const struct sim_log_model *m, uint64_t index)
{
    return index > m->base && index <= m->base + m->count ? m->entries[index - m->base - 1].term : 0;
}

uint32_t sim_log_model_crc32c(const struct sim_log_model *m, uint64_t index)
{
    return sim_log_model_term(m, index) != 0 ? m->entries[index - m->base - 1].crc32c : 0;
}

static void write_free(struct sim_log_write *w)
{
    if (w != NULL) {
        free(w->ops);
        free(w);
    }
}

/* Takes the ops. */
static struct sim_log_write *write_create(struct sim_log_op *ops, size_t count,
                                          const struct wal_write *place)
{
    struct sim_log_write *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    *w = (struct sim_log_write){ops, count, place->file, place->offset, place->size};
    return w;
}

void sim_log_model_close(struct sim_log_model *m)
{
    free(m->entries);
    write_free(m->pending);
    write_free(m->last);
    if (m->before != NULL) {
        free(m->before->entries);
        free(m->before);
    }
    *m = (struct sim_log_model){0};
}

static void model_apply(struct sim_log_model *m, const struct sim_log_op *op)
{
    switch (op->kind) {
    case OP_VOTE:
        m->term = op->term;
        m->vote = op->index;
        return;
    case OP_RESET:
        m->base = op->index;
        m->count = 0;
        return;
    case OP_ENTRY:
        CHECK(op->index > m->base);
        CHECK(op->index <= m->base + m->count + 1);
        m->count = (size_t)(op->index - m->base - 1);
        if (m->count == m->capacity) {
            m->capacity = m->capacity == 0 ? 256 : m->capacity * 2;
            m->entries = realloc(m->entries, m->capacity * sizeof *m->entries);
            CHECK(m->entries != NULL);
        }
        m->entries[m->count].term = op->term;
        m->entries[m->count].crc32c = op->crc32c;
        m->count++;
        return;
    }
}

static void model_apply_all(struct sim_log_model *m, const struct sim_log_write *w)
{
    for (size_t i = 0; i < w->count; i++) {
        model_apply(m, &w->ops[i]);
    }
}

/* The write is complete. Takes it. */
static void model_write(struct sim_log_model *m, struct sim_log_write *w)
{
    if (m->before == NULL) {
        m->before = calloc(1, sizeof *m->before);
        CHECK(m->before != NULL);
    }
    if (m->last != NULL) {
        model_apply_all(m->before, m->last);
        write_free(m->last);
    }
    m->last = w;
    model_apply_all(m, w);
}

static void model_copy(struct sim_log_model *to, const struct sim_log_model *from)
{
    *to = *from;
    to->capacity = from->count + 1;
    to->entries = malloc(to->capacity * sizeof *to->entries);
    CHECK(to->entries != NULL);
    if (from->count > 0) {
        memcpy(to->entries, from->entries, from->count * sizeof *to->entries);
    }
}

/* Older entries than the recovered base may be gone: trimmed. Everything else must agree. */
static bool model_agrees(const struct sim_log_model *m, const struct wal_recovered *r, char *why,
                         size_t size)
{
    uint64_t last = m->base + m->count;
    if (r->term != m->term || r->vote != m->vote) {
        snprintf(why, size, "term %llu vote %llu, must be %llu and %llu",
                 (unsigned long long)r->term, (unsigned long long)r->vote,
                 (unsigned long long)m->term, (unsigned long long)m->vote);
        return false;
    }
    if (r->base_index < m->base || r->base_index > last || r->base_index + r->count != last) {
        snprintf(why, size, "entries %llu+1..%llu, must be %llu+1..%llu",
                 (unsigned long long)r->base_index, (unsigned long long)(r->base_index + r->count),
                 (unsigned long long)m->base, (unsigned long long)last);
        return false;
    }
    for (size_t i = 0; i < r->count; i++) {
        uint64_t index = r->base_index + 1 + i;
        const struct record_header *record = r->entries[i];
        if (record->index != index || record->term != m->entries[index - m->base - 1].term ||
            record->crc32c != m->entries[index - m->base - 1].crc32c) {
            snprintf(why, size, "another entry at %llu", (unsigned long long)index);
            return false;
        }
        if (record_check(record, record_size(record)) != RECORD_VALID) {
            snprintf(why, size, "what is not the entry at %llu behind its header", (unsigned long long)index);
            return false;
        }
    }
    return true;
}

/* ---- blocks ---- */

static void block_destroy(struct block *b)
{
    free(b->wal.data);
    free(b->ops);
    free(b);
}

static struct block *block_add(struct sim_log *l)
{
    struct block *b = calloc(1, sizeof *b);
    CHECK(b != NULL);
    uint8_t *data = aligned_alloc(WAL_BLOCK_SIZE, l->capacity);
    CHECK(data != NULL);
    wal_block_init(&b->wal, data, l->capacity);
    *l->last = b;
    l->last = &b->next;
    return b;
}

static struct block *block_last(struct sim_log *l)
{
    struct block *b = l->first;
    while (b != NULL && b->next != NULL) {
        b = b->next;
    }
    return b;
}

static void block_note(struct block *b, struct sim_log_op op)
{
    if (b->ops_count == b->ops_capacity) {
        b->ops_capacity = b->ops_capacity == 0 ? 16 : b->ops_capacity * 2;
        b->ops = realloc(b->ops, b->ops_capacity * sizeof *b->ops);
        CHECK(b->ops != NULL);
    }
    b->ops[b->ops_count++] = op;
}

static struct block *add_record(struct sim_log *l, const struct record_header *record)
{
    struct block *b = block_last(l);
    if (b == NULL || !wal_block_add(&b->wal, record)) {
        b = block_add(l);
        bool fits = wal_block_add(&b->wal, record);
        CHECK(fits);
    }
    return b;
}

uint64_t sim_log_append(struct sim_log *l, const struct record_header *const *records, size_t count)
{
    uint64_t ticket = ++l->ticket;
    for (size_t i = 0; i < count; i++) {
        struct block *b = add_record(l, records[i]);
        block_note(b, (struct sim_log_op){OP_ENTRY, records[i]->index, records[i]->term,
                                  records[i]->crc32c});
        /* The ticket is durable with its last record: an earlier block keeps the one before. */
        b->ticket = i + 1 == count ? ticket : ticket - 1;
    }
    return ticket;
}

uint64_t sim_log_set_vote(struct sim_log *l, uint64_t term, uint64_t vote)
{
    union {
        struct record_header header;
        uint8_t bytes[RECORD_VOTE_SPAN];
    } record;
    record_encode_vote(&record, term, vote);
    struct block *b = add_record(l, &record.header);
    block_note(b, (struct sim_log_op){OP_VOTE, vote, term, 0});
    return b->ticket = ++l->ticket;
}

uint64_t sim_log_reset(struct sim_log *l, uint64_t index, uint64_t term)
{
    struct block *b = block_add(l);
    wal_block_add_reset(&b->wal, index, term);
    block_note(b, (struct sim_log_op){OP_RESET, index, term, 0});
    return b->ticket = ++l->ticket;
}

void sim_log_trim(struct sim_log *l, uint64_t index)
{
    l->trim_index = index;
}

/* ---- writing ---- */

int sim_log_begin(struct sim_log *l)
{
    CHECK(l->writing == NULL);
    if (l->trim_index > l->trimmed_index) {
        l->trimmed_index = l->trim_index;
        if (wal_core_trim(&l->core, l->trim_index) != 0) {
            return -1;
        }
    }
    struct block *b = l->first;
    if (b == NULL) {
        return 0;
    }
    if (wal_core_seal(&l->core, &b->wal, &l->write) != 0) {
        return -1;
    }
    l->first = b->next;
    if (l->first == NULL) {
        l->last = &l->first;
    }
    b->next = NULL;
    l->writing = b;
    return 1;
}

uint64_t sim_log_finish(struct sim_log *l)
{
    struct block *b = l->writing;
    CHECK(b != NULL);
    if (wal_core_write(&l->core, &l->write) != 0) {
        return 0;
    }
    model_write(l->model, write_create(b->ops, b->ops_count, &l->write));
    b->ops = NULL;
    uint64_t ticket = b->ticket;
    bool reset = b->wal.has_reset;
    l->writing = NULL;
    block_destroy(b);
    if (reset && wal_core_trim(&l->core, l->trimmed_index) != 0) {
        return 0;
    }
    return ticket;
}

/* ---- open and close ---- */

/* What is refused, with file and offset, is cut off there. */
static bool shorten_log(struct sim_disk *disk, const char *error)
{
    char name[WAL_IO_NAME_SIZE];
    unsigned long long offset;
    if (sscanf(error, "%63s offset %llu", name, &offset) != 2) {
        return false;
    }
    sim_disk_cut(disk, name, offset - offset % WAL_BLOCK_SIZE);
    return true;
}

/* Is it what completed writes say, or that and the one that was under way? */
static bool judge_whole(struct sim_log_model *m, const struct wal_recovered *r, char *why, size_t size)
{
    bool agrees = model_agrees(m, r, why, size);
    if (!agrees && m->pending != NULL) {
        struct sim_log_model with;
        model_copy(&with, m);
        model_apply_all(&with, m->pending);
        agrees = model_agrees(&with, r, why, size);
        free(with.entries);
        if (agrees) {
            model_write(m, m->pending);
            m->pending = NULL;
        }
    }
    return agrees;
}

/* Without the last write of a process that was killed, and something is wrong with just that one. */
static bool judge_cut(const struct sim_log_model *m, const struct wal_recovered *r,
                      const struct sim_disk *disk)
{
    char why[256];
    const struct sim_log_write *last = m->last;
    return last != NULL && last->size > 0 && m->before != NULL &&
           sim_disk_is_damaged_at(disk, last->file, last->offset, last->size) &&
           model_agrees(m->before, r, why, sizeof why);
}

struct sim_log *sim_log_open(struct sim_disk *disk, uint64_t node_id, uint64_t segment_size,
                             bool shorten, struct sim_log_model *model,
                             struct wal_recovered *recovered, enum sim_log_outcome *outcome,
                             char *error, size_t error_size)
{
    struct sim_log *l = calloc(1, sizeof *l);
    CHECK(l != NULL);
    l->disk = disk;
    l->model = model;
    l->last = &l->first;
    l->capacity = wal_block_capacity_max(segment_size);
    if (l->capacity > BLOCK_CAPACITY) {
        l->capacity = BLOCK_CAPACITY;
    }
    struct wal_core_config config = {
        .cluster_id = {1, 2, 3},
        .node_id = node_id,
        .segment_size = segment_size,
        .spares_max = 4,
    };
    int rv = wal_core_open(&l->core, &config, sim_disk_io(disk), recovered);
    if (rv != 0 && shorten && !sim_disk_has_failed(disk) && shorten_log(disk, l->core.error)) {
        rv = wal_core_open(&l->core, &config, sim_disk_io(disk), recovered);
    }
    if (rv != 0) {
        *outcome = sim_disk_has_failed(disk) ? SIM_LOG_DIED : SIM_LOG_REFUSED;
        snprintf(error, error_size, "%s", l->core.error);
        free(l);
        return NULL;
    }
    char why[256];
    *outcome = judge_whole(model, recovered, why, sizeof why)  ? SIM_LOG_OPENED
               : judge_cut(model, recovered, disk) && !shorten ? SIM_LOG_CUT
                                                               : SIM_LOG_WRONG;
    if (*outcome != SIM_LOG_OPENED) {
        snprintf(error, error_size, "recovered %s", why);
        wal_recovered_close(recovered);
        wal_core_close(&l->core);
        free(l);
        return NULL;
    }
    write_free(model->pending);
    model->pending = NULL;
    return l;
}

bool sim_log_stop(struct sim_log *l)
{
    if (l->writing != NULL) {
        (void)sim_log_finish(l);
    }
    while (!sim_disk_has_failed(l->disk) && sim_log_begin(l) == 1) {
        (void)sim_log_finish(l);
    }
    if (sim_disk_has_failed(l->disk) || wal_core_mark(&l->core) != 0) {
        return false;
    }
    /* The same term and vote again: whoever loses it has lost nothing. */
    model_write(l->model, write_create(NULL, 0, &(struct wal_write){.size = 0}));
    return true;
}

void sim_log_close(struct sim_log *l)
{
    while (l->first != NULL) {
        struct block *b = l->first;
        l->first = b->next;
        block_destroy(b);
    }
    if (l->writing != NULL) {
        block_destroy(l->writing);
    }
    wal_core_close(&l->core);
    free(l);
}

void sim_log_crash(struct sim_log *l)
{
    if (l->writing != NULL) {
        write_free(l->model->pending);
        l->model->pending = write_create(l->writing->ops, l->writing->ops_count, &l->write);
        l->writing->ops = NULL;
        /* When the disk failed in this very write it has torn it already. */
        if (!sim_disk_has_failed(l->disk)) {
            sim_disk_tear(l->disk, l->write.file, l->write.offset, l->write.data, l->write.size);
        }
    }
    sim_log_close(l);
}
