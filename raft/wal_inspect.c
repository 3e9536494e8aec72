#include "raft/wal_inspect.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "raft/wal_format.h"

/* ---- a directory that is only read ---- */

struct read_io {
    struct wal_io io; /* what changes something is NULL: recovery calls none of it */
    int directory;
};

static struct read_io *self(struct wal_io *io)
{
    return container_of(io, struct read_io, io);
}

static int read_open(struct wal_io *io, const char *name)
{
    int fd = openat(self(io)->directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return fd >= 0 ? fd : -errno;
}

static void read_close(struct wal_io *io, int file)
{
    (void)io;
    close(file);
}

static int read_read(struct wal_io *io, int file, uint64_t offset, void *data, size_t size)
{
    (void)io;
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(file, (uint8_t *)data + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        done += (size_t)n;
    }
    return 0;
}

static int read_sync(struct wal_io *io, int file)
{
    (void)io;
    (void)file;
    return 0;
}

struct names {
    uint64_t *numbers, *sizes;
    size_t count, spares;
};

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = ((const uint64_t *)a)[0], y = ((const uint64_t *)b)[0];
    return x < y ? -1 : x > y;
}

/* Segments in order; numbers and sizes are one allocation each. */
static int list_names(int directory, struct names *names)
{
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    uint64_t(*pairs)[2] = calloc(WAL_SEGMENTS_MAX, sizeof *pairs);
    struct dirent *entry;
    *names = (struct names){0};
    CHECK(pairs != NULL);
    if (dir == NULL) {
        int error = errno;
        free(pairs);
        return -error;
    }
    while ((entry = readdir(dir)) != NULL) {
        uint64_t number;
        struct stat st;
        if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode)) {
            continue;
        }
        if (wal_name_parse(entry->d_name, WAL_NAME_SEGMENT, &number) &&
            names->count < WAL_SEGMENTS_MAX) {
            pairs[names->count][0] = number;
            pairs[names->count++][1] = (uint64_t)st.st_size;
        }
        names->spares += wal_name_parse(entry->d_name, WAL_NAME_SPARE, &number) ? 1 : 0;
    }
    closedir(dir);
    qsort(pairs, names->count, sizeof *pairs, compare_numbers);
    names->numbers = calloc(names->count + 1, sizeof *names->numbers);
    names->sizes = calloc(names->count + 1, sizeof *names->sizes);
    CHECK(names->numbers != NULL && names->sizes != NULL);
    for (size_t i = 0; i < names->count; i++) {
        names->numbers[i] = pairs[i][0];
        names->sizes[i] = pairs[i][1];
    }
    free(pairs);
    return 0;
}

static int open_directory(const char *path, struct read_io *io, struct names *names)
{
    *io = (struct read_io){.io = {.open = read_open,
                                  .close = read_close,
                                  .read = read_read,
                                  .sync = read_sync}};
    io->directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (io->directory < 0) {
        return -errno;
    }
    int rv = list_names(io->directory, names);
    if (rv < 0) {
        close(io->directory);
    }
    return rv;
}

static void close_directory(struct read_io *io, struct names *names)
{
    close(io->directory);
    free(names->numbers);
    free(names->sizes);
}

/* ---- as at a start ---- */

static int recover(struct read_io *io, const struct names *names, const uint8_t *cluster_id,
                   uint64_t node_id, struct wal_recovered *out, char *error)
{
    struct wal_core core = {
        .config = {.node_id = node_id}, .io = &io->io, .file = -1, .sequence_next = 1};
    memcpy(core.config.cluster_id, cluster_id, WAL_CLUSTER_ID_SIZE);
    core.segments = calloc(WAL_SEGMENTS_MAX, sizeof *core.segments);
    CHECK(core.segments != NULL);
    *out = (struct wal_recovered){0};
    error[0] = '\0';
    int rv = 0;
    out->fresh = names->count == 0;
    if (names->count > 0) {
        rv = wal_recover(&core, names->numbers, names->sizes, names->count, out);
    }
    if (rv != 0) {
        memcpy(error, core.error, WAL_ERROR_SIZE);
        wal_recovered_close(out);
    }
    free(core.segments);
    return rv;
}

bool wal_inspect_is_missing(const char *directory)
{
    struct read_io io;
    struct names names;
    int rv = open_directory(directory, &io, &names);
    if (rv < 0) {
        return rv == -ENOENT;
    }
    bool missing = names.count == 0;
    close_directory(&io, &names);
    return missing;
}

int wal_inspect_recover(const char *directory, const uint8_t cluster_id[static WAL_CLUSTER_ID_SIZE],
                        uint64_t node_id, struct wal_recovered *out, char error[static WAL_ERROR_SIZE])
{
    struct read_io io;
    struct names names;
    int rv = open_directory(directory, &io, &names);
    if (rv == -ENOENT) {
        *out = (struct wal_recovered){.fresh = true};
        return 0;
    }
    if (rv < 0) {
        snprintf(error, WAL_ERROR_SIZE, "%s", strerror(-rv));
        return -1;
    }
    rv = recover(&io, &names, cluster_id, node_id, out, error);
    close_directory(&io, &names);
    return rv;
}

/* ---- segment by segment, on behind damage ---- */

struct look {
    struct wal_inspection *out;
    wal_inspect_cb record;
    void *ctx;
};

static void find(struct look *l, enum wal_finding_kind kind, const char *name, uint64_t offset,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));

static void find(struct look *l, enum wal_finding_kind kind, const char *name, uint64_t offset,
                 const char *format, ...)
{
    struct wal_inspection *i = l->out;
    if (i->findings_count == WAL_FINDINGS_MAX) {
        i->findings_left_out++;
        return;
    }
    struct wal_finding *f = &i->findings[i->findings_count++];
    va_list args;
    f->kind = kind;
    f->offset = offset;
    snprintf(f->name, sizeof f->name, "%s", name);
    va_start(args, format);
    vsnprintf(f->text, sizeof f->text, format, args);
    va_end(args);
}

static void look_write(struct look *l, struct wal_inspect_segment *s, const uint8_t *at,
                       uint64_t offset)
{
    const struct wal_write_header *h = (const void *)at;
    const struct record_header *record = (const void *)(at + sizeof *h);
    for (uint32_t i = 0; i < h->count; i++, record = record_next(record)) {
        if (record->type != RECORD_VOTE) {
            s->first_index =
                s->first_index == 0 || record->index < s->first_index ? record->index : s->first_index;
            s->last_index = record->index > s->last_index ? record->index : s->last_index;
        }
        if (l->record != NULL) {
            l->record(l->ctx, s, offset + (uint64_t)((const uint8_t *)record - at), record);
        }
    }
    s->writes++;
    s->used_size = offset + wal_round_up(h->size);
}

/* The first block behind `from` that holds a header of this life with a number ≥ sequence; size: none. */
static uint64_t next_write(const uint8_t *data, uint64_t size, uint64_t from, uint64_t salt,
                           uint64_t sequence)
{
    for (uint64_t offset = from; offset < size; offset += WAL_BLOCK_SIZE) {
        const struct wal_write_header *h = (const void *)(data + offset);
        if (wal_write_header_ok(h, salt) && h->sequence >= sequence) {
            return offset;
        }
    }
    return size;
}

static void look_writes(struct look *l, struct wal_inspect_segment *s, const uint8_t *data,
                        uint64_t size, uint64_t salt, bool last)
{
    uint64_t offset = WAL_BLOCK_SIZE;
    s->used_size = offset;
    while (offset < size) {
        const struct wal_write_header *h = (const void *)(data + offset);
        if (wal_write_ok(data + offset, size - offset, salt, s->sequence_end)) {
            look_write(l, s, data + offset, offset);
            s->sequence_end++;
            offset = s->used_size;
            continue;
        }
        if (wal_write_continues(data + offset, size - offset, salt, s->sequence_end)) {
            s->continues = true;
            return;
        }
        uint64_t next = next_write(data, size, offset + WAL_BLOCK_SIZE, salt, s->sequence_end + 1);
        if (next == size) {
            bool ours = wal_write_header_ok(h, salt) && h->sequence == s->sequence_end;
            if (last && !wal_write_may_be_torn(data + offset, size - offset, salt, s->sequence_end)) {
                find(l, WAL_FINDING_DAMAGE, s->name, offset,
                     "the last write, with sequence %llu, is damaged",
                     (unsigned long long)s->sequence_end);
            } else if (last && ours) {
                find(l, WAL_FINDING_TORN, s->name, offset,
                     "the last write, with sequence %llu and %u bytes, is incomplete",
                     (unsigned long long)s->sequence_end, h->size);
            }
            return;
        }
        uint64_t sequence = ((const struct wal_write_header *)(const void *)(data + next))->sequence;
        find(l, WAL_FINDING_DAMAGE, s->name, offset,
             "damaged up to offset %llu: the writes with sequence %llu to %llu",
             (unsigned long long)next, (unsigned long long)s->sequence_end,
             (unsigned long long)sequence - 1);
        s->sequence_end = sequence;
        offset = next;
    }
}

static void look_segment(struct look *l, struct read_io *io, struct wal_inspect_segment *s,
                         const struct wal_inspect_segment *before, bool last)
{
    if (before != NULL && s->number != before->number + 1) {
        char missing[WAL_IO_NAME_SIZE];
        wal_name(missing, WAL_NAME_SEGMENT, before->number + 1);
        find(l, WAL_FINDING_DAMAGE, missing, 0, "is missing, and %llu more up to %s",
             (unsigned long long)(s->number - before->number - 2), s->name);
    }
    uint64_t size = s->size / WAL_BLOCK_SIZE * WAL_BLOCK_SIZE;
    if (size < WAL_SEGMENT_SIZE_MIN || size > WAL_SEGMENT_SIZE_MAX) {
        find(l, WAL_FINDING_DAMAGE, s->name, s->size, "no segment has this size");
        return;
    }
    int file = io->io.open(&io->io, s->name);
    uint8_t *data = aligned_alloc(WAL_BLOCK_SIZE, size);
    CHECK(data != NULL);
    int rv = file < 0 ? file : io->io.read(&io->io, file, 0, data, size);
    if (file >= 0) {
        io->io.close(&io->io, file);
    }
    const struct wal_segment_header *h = (const void *)data;
    if (rv < 0) {
        find(l, WAL_FINDING_DAMAGE, s->name, 0, "cannot be read: %s", strerror(-rv));
    } else if (!wal_segment_header_ok(data)) {
        find(l, WAL_FINDING_DAMAGE, s->name, 0,
             "the segment's header is damaged: what follows cannot be judged");
    } else {
        s->header_ok = true;
        s->version = h->version;
        memcpy(s->cluster_id, h->cluster_id, sizeof s->cluster_id);
        s->node_id = h->node_id;
        s->term = h->term;
        s->vote = h->vote;
        s->base_index = h->base_index;
        s->sequence_first = s->sequence_end = h->sequence_first;
        if (h->segment_size != s->size) {
            find(l, WAL_FINDING_DAMAGE, s->name, s->size, "the file ends here and should have %llu bytes",
                 (unsigned long long)h->segment_size);
        }
        if (h->number != s->number) {
            find(l, WAL_FINDING_DAMAGE, s->name, 0, "holds segment %016llx",
                 (unsigned long long)h->number);
        }
        if (before != NULL && before->header_ok && before->sequence_end != h->sequence_first) {
            find(l, WAL_FINDING_DAMAGE, before->name, before->used_size,
                 "ends with sequence %llu, but %s begins with %llu",
                 (unsigned long long)before->sequence_end - 1, s->name,
                 (unsigned long long)h->sequence_first);
        }
        look_writes(l, s, data, size, h->salt, last);
        if (last && s->continues) {
            char missing[WAL_IO_NAME_SIZE];
            wal_name(missing, WAL_NAME_SEGMENT, s->number + 1);
            find(l, WAL_FINDING_DAMAGE, missing, 0, "is missing: %s says that the log goes on", s->name);
        }
    }
    free(data);
}

static void judge(struct wal_inspection *out, struct read_io *io, const struct names *names)
{
    struct wal_recovered recovered;
    static const uint8_t none[WAL_CLUSTER_ID_SIZE];
    const uint8_t *cluster_id = none;
    uint64_t node_id = 0;
    for (size_t i = 0; i < out->segments_count && node_id == 0; i++) {
        if (out->segments[i].header_ok) {
            cluster_id = out->segments[i].cluster_id;
            node_id = out->segments[i].node_id;
        }
    }
    out->ok = recover(io, names, cluster_id, node_id, &recovered, out->error) == 0;
    if (!out->ok) {
        return;
    }
    out->term = recovered.term;
    out->vote = recovered.vote;
    out->base_index = recovered.base_index;
    out->last_index = recovered.base_index + recovered.count;
    out->last_term =
        recovered.count > 0 ? recovered.entries[recovered.count - 1]->term : recovered.base_term;
    out->torn_bytes = recovered.torn_bytes;
    wal_recovered_close(&recovered);
}

int wal_inspect(const char *directory, wal_inspect_cb record, void *ctx, struct wal_inspection *out)
{
    struct read_io io;
    struct names names;
    *out = (struct wal_inspection){0};
    int rv = open_directory(directory, &io, &names);
    if (rv < 0) {
        log_error("%s: %s", directory, strerror(-rv));
        return -1;
    }
    struct look l = {.out = out, .record = record, .ctx = ctx};
    out->segments_count = names.count;
    out->spares_count = names.spares;
    out->segments = calloc(names.count + 1, sizeof *out->segments);
    out->findings = calloc(WAL_FINDINGS_MAX, sizeof *out->findings);
    CHECK(out->segments != NULL && out->findings != NULL);
    for (size_t i = 0; i < names.count; i++) {
        struct wal_inspect_segment *s = &out->segments[i];
        s->number = names.numbers[i];
        s->size = names.sizes[i];
        wal_name(s->name, WAL_NAME_SEGMENT, s->number);
        look_segment(&l, &io, s, i > 0 ? s - 1 : NULL, i + 1 == names.count);
    }
    judge(out, &io, &names);
    close_directory(&io, &names);
    return 0;
}

void wal_inspection_close(struct wal_inspection *i)
{
    free(i->segments);
    free(i->findings);
    *i = (struct wal_inspection){0};
}
