#include "raft/wal_core.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/failpoint.h"
#include "raft/wal_format.h"

/* ---- small things ---- */

int wal_core_error(struct wal_core *core, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(core->error, sizeof core->error, format, args);
    va_end(args);
    return -1;
}

void wal_core_push_segment(struct wal_core *core, struct wal_segment segment)
{
    CHECK(core->segments_count < WAL_SEGMENTS_MAX);
    core->segments[core->segments_count++] = segment;
}

static struct wal_segment *current_segment(struct wal_core *core)
{
    CHECK(core->segments_count > 0);
    return &core->segments[core->segments_count - 1];
}

void wal_recovered_close(struct wal_recovered *recovered)
{
    for (size_t i = 0; i < recovered->memory_count; i++) {
        free(recovered->memory[i]);
    }
    free(recovered->memory);
    free(recovered->entries);
    *recovered = (struct wal_recovered){0};
}

/* ---- spares ---- */

bool wal_core_wants_spare(const struct wal_core *core)
{
    return core->spares_count < core->config.spares_min;
}

uint64_t wal_core_reserve_spare(struct wal_core *core)
{
    return core->spare_number_next++;
}

void wal_core_add_spare(struct wal_core *core, uint64_t number)
{
    CHECK(core->spares_count < WAL_SPARES_MAX);
    core->spare_numbers[core->spares_count++] = number;
}

/* Under a temporary name first: whatever is called a spare is written in full. */
int wal_spare_create(struct wal_io *io, uint64_t number, uint64_t segment_size)
{
    char temp[WAL_IO_NAME_SIZE], name[WAL_IO_NAME_SIZE];
    wal_name(temp, WAL_NAME_TEMP, number);
    wal_name(name, WAL_NAME_SPARE, number);
    int rv = io->create(io, temp, segment_size);
    if (rv == 0) {
        rv = io->rename(io, temp, name);
    }
    return rv == 0 ? io->sync_dir(io) : rv;
}

static int core_make_spare(struct wal_core *core)
{
    uint64_t number = wal_core_reserve_spare(core);
    int rv = wal_spare_create(core->io, number, core->config.segment_size);
    if (rv < 0) {
        char name[WAL_IO_NAME_SIZE];
        wal_name(name, WAL_NAME_SPARE, number);
        return wal_core_error(core, "%s: creating a segment of %llu bytes: %s", name,
                              (unsigned long long)core->config.segment_size, strerror(-rv));
    }
    wal_core_add_spare(core, number);
    return 0;
}

/* ---- switching to the next segment ---- */

/* Behind the last write of the segment that is being left: "it goes on". Without it the loss of the newest
 * files would go unnoticed. Written when the next segment has its name, before anything is in it. */
static int core_mark_continued(struct wal_core *core)
{
    if (core->file < 0 || current_segment(core)->size - core->offset < WAL_BLOCK_SIZE) {
        return 0; /* the first segment, or one that a single write fills */
    }
    uint8_t *block = aligned_alloc(WAL_BLOCK_SIZE, WAL_BLOCK_SIZE);
    CHECK(block != NULL);
    memset(block, 0, WAL_BLOCK_SIZE);
    struct wal_write_header *h = (struct wal_write_header *)(void *)block;
    *h = (struct wal_write_header){.salt = core->salt,
                                   .sequence = core->sequence_next,
                                   .size = sizeof *h,
                                   .flags = WAL_WRITE_CONTINUES};
    wal_write_header_seal(h);
    int rv = core->io->write(core->io, core->file, core->offset, block, WAL_BLOCK_SIZE);
    free(block);
    if (rv < 0) {
        char name[WAL_IO_NAME_SIZE];
        wal_name(name, WAL_NAME_SEGMENT, current_segment(core)->number);
        return wal_core_error(core, "%s offset %llu: write: %s", name,
                              (unsigned long long)core->offset, strerror(-rv));
    }
    return 0;
}

/* Turns a spare into segment `number` and makes it current. The order is what keeps a crash
 * harmless: header durable, then the name, then the directory, and only then a first write in it.
 */
static int core_begin_segment(struct wal_core *core, uint64_t number)
{
    struct wal_io *io = core->io;
    if (core->segments_count == WAL_SEGMENTS_MAX) {
        return wal_core_error(core, "the log has %u segments: no checkpoint has trimmed it",
                              WAL_SEGMENTS_MAX);
    }
    if (core->spares_count == 0 && core_make_spare(core) != 0) {
        return -1;
    }
    char spare[WAL_IO_NAME_SIZE], name[WAL_IO_NAME_SIZE];
    wal_name(spare, WAL_NAME_SPARE, core->spare_numbers[core->spares_count - 1]);
    wal_name(name, WAL_NAME_SEGMENT, number);

    uint8_t *block = aligned_alloc(WAL_BLOCK_SIZE, WAL_BLOCK_SIZE);
    CHECK(block != NULL);
    struct wal_segment_header *h = (struct wal_segment_header *)(void *)block;
    *h = (struct wal_segment_header){
        .version = WAL_VERSION,
        .node_id = core->config.node_id,
        .number = number,
        .segment_size = core->config.segment_size,
        .salt = io->random(io),
        .sequence_first = core->sequence_next,
        .base_index = core->last_index,
        .base_term = core->last_term,
        .term = core->term,
        .vote = core->vote,
    };
    memcpy(h->cluster_id, core->config.cluster_id, WAL_CLUSTER_ID_SIZE);
    wal_segment_header_seal(block);
    uint64_t salt = h->salt;

    const char *action = "open";
    int rv = io->open(io, spare);
    int file = rv;
    if (rv >= 0) {
        action = "write of the header";
        rv = io->write(io, file, 0, block, WAL_BLOCK_SIZE);
    }
    if (rv >= 0) {
        action = "rename";
        rv = io->rename(io, spare, name);
    }
    if (rv >= 0) {
        action = "sync of the directory";
        rv = io->sync_dir(io);
    }
    free(block);
    FAILPOINT("wal/segment-named", "the next segment is there, the last does not say that it goes on");
    if (rv >= 0 && core_mark_continued(core) != 0) {
        io->close(io, file);
        return -1;
    }
    FAILPOINT("wal/segment-switched", "the last segment says that it goes on, the next is empty");
    if (rv < 0) {
        if (file >= 0) {
            io->close(io, file);
        }
        return wal_core_error(core, "%s offset 0: %s: %s", name, action, strerror(-rv));
    }
    if (core->file >= 0) {
        io->close(io, core->file);
    }
    core->spares_count--;
    core->file = file;
    core->salt = salt;
    core->offset = WAL_BLOCK_SIZE;
    wal_core_push_segment(
        core, (struct wal_segment){.number = number, .size = core->config.segment_size});
    return 0;
}

/* ---- open and close ---- */

struct listing {
    uint64_t *numbers, *sizes;
    size_t count;
    uint64_t *spares;
    uint64_t *spare_sizes;
    size_t spares_count;
    char (*temps)[WAL_IO_NAME_SIZE];
    size_t temps_count;
};

static void *grow(void *array, size_t count, size_t item_size)
{
    /* Powers of two: every call that finds the array full doubles it. */
    if ((count & (count - 1)) == 0) {
        array = realloc(array, (count > 0 ? 2 * count : 1) * item_size);
        CHECK(array != NULL);
    }
    return array;
}

static void list_cb(void *arg, const char *name, uint64_t size)
{
    struct listing *l = arg;
    uint64_t number;
    if (wal_name_parse(name, WAL_NAME_SEGMENT, &number)) {
        l->numbers = grow(l->numbers, l->count, sizeof *l->numbers);
        l->sizes = grow(l->sizes, l->count, sizeof *l->sizes);
        size_t i = l->count++;
        for (; i > 0 && l->numbers[i - 1] > number; i--) {
            l->numbers[i] = l->numbers[i - 1];
            l->sizes[i] = l->sizes[i - 1];
        }
        l->numbers[i] = number;
        l->sizes[i] = size;
    } else if (wal_name_parse(name, WAL_NAME_SPARE, &number)) {
        l->spares = grow(l->spares, l->spares_count, sizeof *l->spares);
        l->spare_sizes = grow(l->spare_sizes, l->spares_count, sizeof *l->spare_sizes);
        l->spares[l->spares_count] = number;
        l->spare_sizes[l->spares_count++] = size;
    } else if (wal_name_parse(name, WAL_NAME_TEMP, &number)) {
        l->temps = grow(l->temps, l->temps_count, sizeof *l->temps);
        snprintf(l->temps[l->temps_count++], WAL_IO_NAME_SIZE, "%s", name);
    }
}

static void listing_close(struct listing *l)
{
    free(l->numbers);
    free(l->sizes);
    free(l->spares);
    free(l->spare_sizes);
    free(l->temps);
}

static int core_unlink(struct wal_core *core, const char *name)
{
    int rv = core->io->unlink(core->io, name);
    return rv < 0 ? wal_core_error(core, "%s: unlink: %s", name, strerror(-rv)) : 0;
}

/* After a good recovery only: throws away what is half made, takes over the spares that fit. */
static int core_tidy(struct wal_core *core, const struct listing *l)
{
    for (size_t i = 0; i < l->temps_count; i++) {
        if (core_unlink(core, l->temps[i]) != 0) {
            return -1;
        }
    }
    for (size_t i = 0; i < l->spares_count; i++) {
        if (l->spares[i] >= core->spare_number_next) {
            core->spare_number_next = l->spares[i] + 1;
        }
        if (l->spare_sizes[i] == core->config.segment_size &&
            core->spares_count < core->config.spares_max) {
            wal_core_add_spare(core, l->spares[i]);
            continue;
        }
        char name[WAL_IO_NAME_SIZE];
        wal_name(name, WAL_NAME_SPARE, l->spares[i]);
        if (core_unlink(core, name) != 0) {
            return -1;
        }
    }
    while (wal_core_wants_spare(core)) {
        if (core_make_spare(core) != 0) {
            return -1;
        }
    }
    return 0;
}

static int core_open_current(struct wal_core *core)
{
    char name[WAL_IO_NAME_SIZE];
    wal_name(name, WAL_NAME_SEGMENT, current_segment(core)->number);
    core->file = core->io->open(core->io, name);
    return core->file < 0 ? wal_core_error(core, "%s: open: %s", name, strerror(-core->file)) : 0;
}

int wal_core_open(struct wal_core *core, const struct wal_core_config *config, struct wal_io *io,
                  struct wal_recovered *recovered)
{
    CHECK(config->segment_size >= WAL_SEGMENT_SIZE_MIN);
    CHECK(config->segment_size <= WAL_SEGMENT_SIZE_MAX);
    CHECK(config->segment_size % WAL_BLOCK_SIZE == 0);
    CHECK(config->spares_min <= config->spares_max);
    CHECK(config->spares_max <= WAL_SPARES_MAX);
    *core = (struct wal_core){.config = *config, .io = io, .file = -1, .sequence_next = 1};
    *recovered = (struct wal_recovered){0};
    core->segments = calloc(WAL_SEGMENTS_MAX, sizeof *core->segments);
    CHECK(core->segments != NULL);

    struct listing listing = {0};
    int rv = io->list(io, list_cb, &listing);
    if (rv < 0) {
        rv = wal_core_error(core, "listing the directory: %s", strerror(-rv));
    } else if (listing.count > WAL_SEGMENTS_MAX) {
        rv = wal_core_error(core, "%zu segments, at most %u are possible", listing.count,
                            WAL_SEGMENTS_MAX);
    } else if (listing.count > 0) {
        rv = wal_recover(core, listing.numbers, listing.sizes, listing.count, recovered);
    }
    if (rv == 0) {
        rv = core_tidy(core, &listing);
    }
    if (rv == 0) {
        recovered->fresh = listing.count == 0;
        rv = recovered->fresh ? core_begin_segment(core, 1) : core_open_current(core);
    }
    listing_close(&listing);
    if (rv != 0) {
        wal_core_close(core);
        wal_recovered_close(recovered);
    }
    return rv;
}

void wal_core_close(struct wal_core *core)
{
    if (core->segments == NULL) {
        return; /* closed, or never opened */
    }
    if (core->file >= 0) {
        core->io->close(core->io, core->file);
    }
    core->file = -1;
    free(core->segments);
    core->segments = NULL;
    core->segments_count = 0;
}

/* ---- writing ---- */

bool wal_core_needs_segment(const struct wal_core *core, const struct wal_block *b)
{
    CHECK(core->segments_count > 0);
    /* One block is kept for the mark that the log goes on, but for a write that needs all there is. */
    uint64_t reserved = core->offset == WAL_BLOCK_SIZE ? 0 : WAL_BLOCK_SIZE;
    return core->segments[core->segments_count - 1].size - core->offset <
           wal_round_up(b->size) + reserved;
}

int wal_core_seal(struct wal_core *core, struct wal_block *b, struct wal_write *write)
{
    CHECK(b->count > 0 || b->has_reset);
    size_t span = (size_t)wal_round_up(b->size);
    CHECK(span <= core->config.segment_size - WAL_BLOCK_SIZE);
    if (wal_core_needs_segment(core, b) &&
        core_begin_segment(core, current_segment(core)->number + 1) != 0) {
        return -1;
    }
    struct wal_write_header *h = (struct wal_write_header *)(void *)b->data;
    *h = (struct wal_write_header){
        .salt = core->salt,
        .sequence = core->sequence_next++,
        .size = (uint32_t)b->size,
        .count = b->count,
        .digest = b->digest,
        .flags = b->has_reset ? WAL_WRITE_RESETS : 0,
        .reset_index = b->reset_index,
        .reset_term = b->reset_term,
    };
    wal_write_header_seal(h);
    memset(b->data + b->size, 0, span - b->size);
    *write = (struct wal_write){
        .file = core->file,
        .offset = core->offset,
        .data = b->data,
        .size = span,
        .sequence = h->sequence,
        .resets = b->has_reset,
    };
    core->offset += span;
    if (b->index_max > current_segment(core)->index_max) {
        current_segment(core)->index_max = b->index_max;
    }
    if (b->last_index > 0 || b->has_reset) {
        core->last_index = b->last_index;
        core->last_term = b->last_term;
    }
    if (b->has_vote) {
        core->term = b->vote_term;
        core->vote = b->vote;
    }
    return 0;
}

void wal_core_written(struct wal_core *core, const struct wal_write *write)
{
    if (write->resets) {
        for (size_t i = 0; i + 1 < core->segments_count; i++) {
            core->segments[i].index_max = 0;
        }
    }
}

int wal_core_write(struct wal_core *core, const struct wal_write *write)
{
    int rv = core->io->write(core->io, write->file, write->offset, write->data, write->size);
    if (rv < 0) {
        char name[WAL_IO_NAME_SIZE];
        wal_name(name, WAL_NAME_SEGMENT, current_segment(core)->number);
        return wal_core_error(core, "%s offset %llu: write of %zu bytes: %s", name,
                              (unsigned long long)write->offset, write->size, strerror(-rv));
    }
    wal_core_written(core, write);
    return 0;
}

int wal_core_mark(struct wal_core *core)
{
    struct wal_block b;
    struct wal_write write;
    _Alignas(8) uint8_t vote[RECORD_VOTE_SPAN];
    if (core->sequence_next == 1) {
        return 0;
    }
    uint8_t *memory = aligned_alloc(WAL_BLOCK_SIZE, WAL_BLOCK_SIZE);
    CHECK(memory != NULL);
    wal_block_init(&b, memory, WAL_BLOCK_SIZE);
    record_encode_vote(vote, core->term, core->vote);
    CHECK(wal_block_add(&b, (const struct record_header *)(const void *)vote));
    int rv = wal_core_seal(core, &b, &write);
    if (rv == 0) {
        rv = wal_core_write(core, &write);
    }
    free(memory);
    return rv;
}

/* One segment at a time, the oldest first, each durable before the next: a crash never leaves a
 * hole. */
int wal_core_trim(struct wal_core *core, uint64_t upto_index)
{
    struct wal_io *io = core->io;
    while (core->segments_count > 1 && core->segments[0].index_max <= upto_index) {
        const struct wal_segment *oldest = &core->segments[0];
        char name[WAL_IO_NAME_SIZE], spare[WAL_IO_NAME_SIZE];
        wal_name(name, WAL_NAME_SEGMENT, oldest->number);
        int rv;
        FAILPOINT("wal/before-trim", "the oldest segment is no longer needed, and still there");
        if (oldest->size == core->config.segment_size &&
            core->spares_count < core->config.spares_max) {
            uint64_t number = wal_core_reserve_spare(core);
            wal_name(spare, WAL_NAME_SPARE, number);
            rv = io->rename(io, name, spare);
            wal_core_add_spare(core, number);
        } else {
            rv = io->unlink(io, name);
        }
        if (rv == 0) {
            FAILPOINT("wal/recycled", "the oldest segment has become a spare, not durable");
            rv = io->sync_dir(io);
        }
        if (rv < 0) {
            return wal_core_error(core, "%s: recycling: %s", name, strerror(-rv));
        }
        core->segments_count--;
        memmove(core->segments, core->segments + 1, core->segments_count * sizeof *core->segments);
    }
    return 0;
}
