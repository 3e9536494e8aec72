/* Recovery of the write-ahead log: reads every segment in the order of writing and refuses whatever
 * a crash cannot explain.
 *
 * What a crash can leave: the last write incomplete, with any subset of its sectors on disk. So the
 * first invalid write ends the log, if nothing newer exists:
 *
 *     in the same segment   no header with our salt and a larger sequence number at any later block
 *     in a later segment    its header says with which sequence it begins; the one before must end
 *                           exactly there. What lies behind that end in the older segment is of
 *                           no interest: it may be an incomplete write that an earlier restart
 *                           left behind
 *
 * And a mark behind the last write of a segment says that there is a later one: without that file the
 * newest part of the log is lost. Sectors are written whole, so an incomplete write whose whole sectors
 * contradict each other was damaged instead (wal_write_may_be_torn).
 *
 * Anything else is damage: a bit that flipped, a lost or misdirected write, a missing file. The log
 * is never shortened to make it fit. One kind cannot be told from a crash: damage of whole sectors of
 * the very last write before one (docs/adr/0004, 0014).
 *
 * Two passes per segment: judge it (segment_scan), then, with only its used part kept in memory,
 * apply it to what came before (segment_replay). */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/advice.h"
#include "base/check.h"
#include "raft/wal_format.h"

#define ADVICE ADVICE_REBUILD

/* Progress through the segments. */
struct replay {
    struct wal_core *core;
    struct wal_recovered *out;
    size_t entries_capacity;
    uint64_t sequence_next;
    char name_before[WAL_IO_NAME_SIZE]; /* the segment before and where its valid part ended */
    uint64_t end_before;
};

static uint64_t replay_last_index(const struct replay *r)
{
    return r->out->base_index + r->out->count;
}

static uint64_t replay_last_term(const struct replay *r)
{
    return r->out->count > 0 ? r->out->entries[r->out->count - 1]->term : r->out->base_term;
}

/* Reads the whole segment. The caller frees. NULL after core->error is set. */
static uint8_t *segment_read(struct replay *r, const char *name, uint64_t size)
{
    struct wal_io *io = r->core->io;
    int file = io->open(io, name);
    if (file < 0) {
        wal_core_error(r->core, "%s: open: %s", name, strerror(-file));
        return NULL;
    }
    uint8_t *data = aligned_alloc(WAL_BLOCK_SIZE, size);
    CHECK(data != NULL);
    int rv = io->sync(io, file);
    if (rv == 0) {
        rv = io->read(io, file, 0, data, size);
    }
    io->close(io, file);
    if (rv < 0) {
        wal_core_error(r->core, "%s: read: %s", name, strerror(-rv));
        free(data);
        return NULL;
    }
    return data;
}

/* Is this header one of ours, of the right place, joining what came before? */
static int segment_check_header(struct replay *r, const char *name, uint64_t number, uint64_t size,
                                const uint8_t *data, bool first)
{
    struct wal_core *core = r->core;
    const struct wal_segment_header *h = (const struct wal_segment_header *)(const void *)data;
    if (!wal_segment_header_ok(data)) {
        return wal_core_error(core, "%s offset 0: the segment's header is damaged. " ADVICE, name);
    }
    if (h->version > WAL_VERSION || h->version == 0) {
        return wal_core_error(core,
                              "%s: log format %u is newer than this program's %u. Nothing was "
                              "changed. Run the version of holdfast that wrote it, or a later one",
                              name, h->version, WAL_VERSION);
    }
    if (memcmp(h->cluster_id, core->config.cluster_id, WAL_CLUSTER_ID_SIZE) != 0) {
        return wal_core_error(core,
                              "%s: this log belongs to another cluster. Nothing was changed. Check "
                              "the data directory and the cluster id",
                              name);
    }
    if (h->node_id != core->config.node_id) {
        return wal_core_error(core,
                              "%s: this log belongs to node %llu, we are node %llu. Nothing was "
                              "changed. Check the data directory and the node id",
                              name, (unsigned long long)h->node_id,
                              (unsigned long long)core->config.node_id);
    }
    if (h->number != number) {
        return wal_core_error(core, "%s offset 0: the file holds segment %016llx: it was renamed. " ADVICE,
                              name, (unsigned long long)h->number);
    }
    if (h->segment_size != size) {
        return wal_core_error(core, "%s offset %llu: the file ends here and should have %llu bytes. " ADVICE,
                              name, (unsigned long long)size, (unsigned long long)h->segment_size);
    }
    if (first) {
        return 0;
    }
    if (h->sequence_first != r->sequence_next) {
        return wal_core_error(
            core,
            "%s offset %llu: the write with sequence %llu is damaged, but %s goes "
            "on with %llu: data in the middle of the log is lost. " ADVICE,
            r->name_before, (unsigned long long)r->end_before, (unsigned long long)r->sequence_next,
            name, (unsigned long long)h->sequence_first);
    }
    if (h->base_index != replay_last_index(r) || h->term != r->out->term ||
        h->vote != r->out->vote) {
        return wal_core_error(core,
                              "%s offset 0: the segment continues index %llu in term %llu, but the "
                              "log before it ends with %llu in term %llu. " ADVICE,
                              name, (unsigned long long)h->base_index, (unsigned long long)h->term,
                              (unsigned long long)replay_last_index(r),
                              (unsigned long long)r->out->term);
    }
    return 0;
}

/* Walks the valid writes from *offset on; stops at the first that is not. Advances sequence_next.
 */
static void segment_scan(struct replay *r, const uint8_t *data, uint64_t size, uint64_t salt,
                         uint64_t *offset)
{
    while (*offset < size && wal_write_ok(data + *offset, size - *offset, salt, r->sequence_next)) {
        const struct wal_write_header *h = (const void *)(data + *offset);
        *offset += wal_round_up(h->size);
        r->sequence_next++;
    }
}

/* Behind the first invalid write of a segment: is there anything that proves it was complete once?
 */
static int segment_check_tail(struct replay *r, const char *name, uint64_t number,
                              const uint8_t *data, uint64_t size, uint64_t salt, uint64_t end)
{
    for (uint64_t offset = end; offset < size; offset += WAL_SECTOR_SIZE) {
        const struct wal_write_header *h = (const void *)(data + offset);
        if (!wal_write_header_ok(h, salt)) {
            continue;
        }
        /* A later write, or this one elsewhere: a write goes to the end and nowhere else. */
        if (h->sequence > r->sequence_next || (h->sequence == r->sequence_next && offset != end)) {
            return wal_core_error(
                r->core,
                "%s offset %llu: the write with sequence %llu is damaged, but %llu follows it at "
                "offset %llu: this is not what a crash leaves. " ADVICE,
                name, (unsigned long long)end, (unsigned long long)r->sequence_next,
                (unsigned long long)h->sequence, (unsigned long long)offset);
        }
        if (offset == end && h->sequence == r->sequence_next) {
            r->out->torn_bytes = wal_round_up(h->size);
        }
    }
    if (end < size && wal_write_continues(data + end, size - end, salt, r->sequence_next)) {
        char missing[WAL_IO_NAME_SIZE];
        wal_name(missing, WAL_NAME_SEGMENT, number + 1);
        return wal_core_error(r->core,
                              "%s is missing: %s offset %llu says that the log goes on there. " ADVICE,
                              missing, name, (unsigned long long)end);
    }
    if (end < size && !wal_write_may_be_torn(data + end, size - end, salt, r->sequence_next)) {
        return wal_core_error(
            r->core,
            "%s offset %llu: the last write, with sequence %llu, is damaged: sectors of it are whole and "
            "what is in them is not, which no crash leaves. " ADVICE,
            name, (unsigned long long)end, (unsigned long long)r->sequence_next);
    }
    return 0;
}

static int replay_entry(struct replay *r, const char *name, uint64_t offset,
                        const struct record_header *record)
{
    struct wal_recovered *out = r->out;
    if (record->term > out->term) {
        return wal_core_error(
            r->core,
            "%s offset %llu: entry %llu has term %llu, but the log says that this "
            "node was in term %llu. " ADVICE,
            name, (unsigned long long)offset, (unsigned long long)record->index,
            (unsigned long long)record->term, (unsigned long long)out->term);
    }
    if (record->index == 0 || record->index > replay_last_index(r) + 1) {
        return wal_core_error(
            r->core, "%s offset %llu: entry %llu follows entry %llu: there is a gap. " ADVICE, name,
            (unsigned long long)offset, (unsigned long long)record->index,
            (unsigned long long)replay_last_index(r));
    }
    if (record->index <= out->base_index) {
        /* It replaces entries of segments that are recycled already. */
        out->base_index = record->index - 1;
        out->base_term = 0;
        out->count = 0;
    } else {
        out->count = (size_t)(record->index - out->base_index - 1);
    }
    if (out->count == r->entries_capacity) {
        r->entries_capacity = r->entries_capacity > 0 ? 2 * r->entries_capacity : 1024;
        out->entries = reallocarray(out->entries, r->entries_capacity, sizeof(void *));
        CHECK(out->entries != NULL);
    }
    out->entries[out->count++] = record;
    return 0;
}

/* Applies the writes in data[from, end) to what came before. */
static int segment_replay(struct replay *r, const char *name, const uint8_t *data, uint64_t from,
                          uint64_t end, struct wal_segment *segment)
{
    struct wal_recovered *out = r->out;
    for (uint64_t offset = from; offset < end;) {
        const struct wal_write_header *h = (const void *)(data + offset);
        if ((h->flags & WAL_WRITE_RESETS) != 0) {
            out->base_index = h->reset_index;
            out->base_term = h->reset_term;
            out->count = 0;
            for (size_t i = 0; i < r->core->segments_count; i++) {
                r->core->segments[i].index_max = 0;
            }
            segment->index_max = 0;
        }
        const struct record_header *record = (const void *)(data + offset + sizeof *h);
        for (uint32_t i = 0; i < h->count; i++, record = record_next(record)) {
            if (record->type == RECORD_VOTE) {
                out->term = record->term;
                out->vote = record_voted_for(record);
                continue;
            }
            if (replay_entry(r, name, offset, record) != 0) {
                return -1;
            }
            if (record->index > segment->index_max) {
                segment->index_max = record->index;
            }
        }
        offset += wal_round_up(h->size);
    }
    return 0;
}

/* Keeps the used part of a segment for as long as entries point into it. */
static uint8_t *replay_keep(struct replay *r, const uint8_t *data, uint64_t size)
{
    struct wal_recovered *out = r->out;
    uint8_t *copy = malloc(size);
    out->memory = realloc(out->memory, (out->memory_count + 1) * sizeof *out->memory);
    CHECK(copy != NULL && out->memory != NULL);
    memcpy(copy, data, size);
    out->memory[out->memory_count++] = copy;
    return copy;
}

static int replay_segment(struct replay *r, uint64_t number, uint64_t size, bool first, bool last)
{
    struct wal_core *core = r->core;
    char name[WAL_IO_NAME_SIZE];
    wal_name(name, WAL_NAME_SEGMENT, number);
    if (size < WAL_SEGMENT_SIZE_MIN || size > WAL_SEGMENT_SIZE_MAX || size % WAL_BLOCK_SIZE != 0) {
        return wal_core_error(core, "%s offset %llu: the file ends here, no segment can: it was cut. " ADVICE,
                              name, (unsigned long long)size);
    }
    uint8_t *data = segment_read(r, name, size);
    if (data == NULL) {
        return -1;
    }
    int rv = segment_check_header(r, name, number, size, data, first);
    if (rv != 0) {
        free(data);
        return -1;
    }
    struct wal_segment_header header;
    memcpy(&header, data, sizeof header);
    if (first) {
        r->sequence_next = header.sequence_first;
        r->out->base_index = header.base_index;
        r->out->base_term = header.base_term;
        r->out->term = header.term;
        r->out->vote = header.vote;
    }
    uint64_t end = WAL_BLOCK_SIZE;
    segment_scan(r, data, size, header.salt, &end);
    if (last) {
        rv = segment_check_tail(r, name, number, data, size, header.salt, end);
    }
    uint8_t *kept = rv == 0 && end > WAL_BLOCK_SIZE ? replay_keep(r, data, end) : NULL;
    free(data);
    struct wal_segment segment = {.number = number, .size = size};
    if (kept != NULL) {
        rv = segment_replay(r, name, kept, WAL_BLOCK_SIZE, end, &segment);
    }
    if (rv != 0) {
        return -1;
    }
    memcpy(r->name_before, name, sizeof name);
    r->end_before = end;
    core->salt = header.salt;
    core->offset = end;
    wal_core_push_segment(core, segment);
    return 0;
}

int wal_recover(struct wal_core *core, const uint64_t *numbers, const uint64_t *sizes, size_t count,
                struct wal_recovered *recovered)
{
    struct replay r = {.core = core, .out = recovered};
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && numbers[i] != numbers[i - 1] + 1) {
            char missing[WAL_IO_NAME_SIZE];
            wal_name(missing, WAL_NAME_SEGMENT, numbers[i - 1] + 1);
            return wal_core_error(core, "%s is missing, but later segments are there. " ADVICE,
                                  missing);
        }
        if (replay_segment(&r, numbers[i], sizes[i], i == 0, i + 1 == count) != 0) {
            return -1;
        }
    }
    core->sequence_next = r.sequence_next;
    core->last_index = replay_last_index(&r);
    core->last_term = replay_last_term(&r);
    core->term = recovered->term;
    core->vote = recovered->vote;
    return 0;
}
