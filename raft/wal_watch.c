#include "raft/wal_watch.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"

_Static_assert(WAL_WATCH_STEP_MAX_MS >= WAL_WATCH_INTERVAL_MS, "a look on time counts in full");

void wal_watch_init(struct wal_watch *w)
{
    memset(w, 0, sizeof *w);
    CHECK(pthread_mutex_init(&w->mutex, NULL) == 0);
}

void wal_watch_close(struct wal_watch *w)
{
    pthread_mutex_destroy(&w->mutex);
}

static void note(struct wal_watch *w, const char *name, const char *action, size_t size,
                 uint64_t offset)
{
    pthread_mutex_lock(&w->mutex);
    w->busy = true;
    w->operation++;
    w->name = name;
    w->action = action;
    w->size = size;
    w->offset = offset;
    pthread_mutex_unlock(&w->mutex);
}

void wal_watch_begin(struct wal_watch *w, const char *what)
{
    note(w, what, NULL, 0, 0);
}

void wal_watch_end(struct wal_watch *w)
{
    pthread_mutex_lock(&w->mutex);
    w->busy = false;
    pthread_mutex_unlock(&w->mutex);
}

void wal_watch_progress(struct wal_watch *w)
{
    pthread_mutex_lock(&w->mutex);
    w->operation++;
    pthread_mutex_unlock(&w->mutex);
}

uint64_t wal_watch_observe(struct wal_watch *w, uint64_t now_ns)
{
    const uint64_t step_max_ns = WAL_WATCH_STEP_MAX_MS * 1000000ull;
    pthread_mutex_lock(&w->mutex);
    uint64_t step_ns = now_ns - w->seen_ns;
    if (!w->busy || w->operation != w->seen_operation) {
        w->age_ns = 0;
    } else {
        w->age_ns += step_ns < step_max_ns ? step_ns : step_max_ns;
    }
    w->seen_operation = w->operation;
    w->seen_ns = now_ns;
    uint64_t age_ns = w->age_ns;
    pthread_mutex_unlock(&w->mutex);
    return age_ns;
}

uint64_t wal_watch_age_ns(struct wal_watch *w)
{
    pthread_mutex_lock(&w->mutex);
    /* What has ended since is not slow any more. */
    bool same = w->busy && w->operation == w->seen_operation;
    uint64_t age_ns = same ? w->age_ns : 0;
    pthread_mutex_unlock(&w->mutex);
    return age_ns;
}

void wal_watch_what(struct wal_watch *w, char what[static WAL_WATCH_WHAT_SIZE])
{
    pthread_mutex_lock(&w->mutex);
    if (!w->busy) {
        snprintf(what, WAL_WATCH_WHAT_SIZE, "nothing");
    } else if (w->action == NULL) {
        snprintf(what, WAL_WATCH_WHAT_SIZE, "%s", w->name);
    } else if (w->size == 0) {
        snprintf(what, WAL_WATCH_WHAT_SIZE, "%s: %s", w->name, w->action);
    } else {
        snprintf(what, WAL_WATCH_WHAT_SIZE, "%s: %s of %zu bytes at offset %llu", w->name, w->action,
                 w->size, (unsigned long long)w->offset);
    }
    pthread_mutex_unlock(&w->mutex);
}

/* ---- the wal_io ---- */

static struct wal_watch_io *self(struct wal_io *io)
{
    return container_of(io, struct wal_watch_io, io);
}

static struct wal_io *begin(struct wal_io *io, const char *name, const char *action)
{
    note(self(io)->watch, name, action, 0, 0);
    return self(io)->inner;
}

static int end(struct wal_io *io, int rv)
{
    wal_watch_end(self(io)->watch);
    return rv;
}

static int watch_list(struct wal_io *io, wal_io_list_cb cb, void *arg)
{
    struct wal_io *inner = begin(io, ".", "listing");
    return end(io, inner->list(inner, cb, arg));
}

static int watch_create(struct wal_io *io, const char *name, uint64_t size)
{
    struct wal_io *inner = begin(io, name, "creating a segment");
    return end(io, inner->create(inner, name, size));
}

static int watch_open(struct wal_io *io, const char *name)
{
    struct wal_io *inner = begin(io, name, "open");
    snprintf(self(io)->name, WAL_IO_NAME_SIZE, "%s", name);
    return end(io, inner->open(inner, name));
}

static void watch_close(struct wal_io *io, int file)
{
    struct wal_io *inner = begin(io, "a segment", "close");
    inner->close(inner, file);
    (void)end(io, 0);
}

static int watch_read(struct wal_io *io, int file, uint64_t offset, void *data, size_t size)
{
    struct wal_io *inner = begin(io, self(io)->name, "read");
    return end(io, inner->read(inner, file, offset, data, size));
}

static int watch_write(struct wal_io *io, int file, uint64_t offset, const void *data, size_t size)
{
    struct wal_io *inner = self(io)->inner;
    note(self(io)->watch, self(io)->name, "write", size, offset);
    return end(io, inner->write(inner, file, offset, data, size));
}

static int watch_sync(struct wal_io *io, int file)
{
    struct wal_io *inner = begin(io, self(io)->name, "sync");
    return end(io, inner->sync(inner, file));
}

static int watch_rename(struct wal_io *io, const char *from, const char *to)
{
    struct wal_io *inner = begin(io, to, "rename");
    if (strcmp(self(io)->name, from) == 0) {
        snprintf(self(io)->name, WAL_IO_NAME_SIZE, "%s", to);
    }
    return end(io, inner->rename(inner, from, to));
}

static int watch_unlink(struct wal_io *io, const char *name)
{
    struct wal_io *inner = begin(io, name, "unlink");
    return end(io, inner->unlink(inner, name));
}

static int watch_sync_dir(struct wal_io *io)
{
    struct wal_io *inner = begin(io, ".", "sync of the directory");
    return end(io, inner->sync_dir(inner));
}

static uint64_t watch_random(struct wal_io *io)
{
    struct wal_io *inner = self(io)->inner;
    return inner->random(inner);
}

void wal_watch_io_init(struct wal_watch_io *w, struct wal_io *inner, struct wal_watch *watch)
{
    *w = (struct wal_watch_io){.inner = inner, .watch = watch};
    w->io = (struct wal_io){watch_list,   watch_create,   watch_open,  watch_close,
                            watch_read,   watch_write,    watch_sync,  watch_rename,
                            watch_unlink, watch_sync_dir, watch_random};
}
