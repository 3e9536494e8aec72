#include "memory_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "raft/wal_core.h"

static struct memory_disk *self(struct wal_io *io)
{
    return container_of(io, struct memory_disk, io);
}

static struct memory_name *names(struct memory_disk *d)
{
    return d->names[d->changes];
}

static struct memory_name *find(struct memory_disk *d, const char *name)
{
    for (int i = 0; i < MEMORY_DISK_FILES; i++) {
        if (strcmp(names(d)[i].name, name) == 0) {
            return &names(d)[i];
        }
    }
    return NULL;
}

static bool referenced(struct memory_disk *d, int file)
{
    for (unsigned c = 0; c <= d->changes; c++) {
        for (int i = 0; i < MEMORY_DISK_FILES; i++) {
            if (d->names[c][i].name[0] != '\0' && d->names[c][i].file == file) {
                return true;
            }
        }
    }
    return false;
}

static void collect(struct memory_disk *d)
{
    for (int i = 0; i < MEMORY_DISK_FILES; i++) {
        if (d->files[i].data != NULL && !referenced(d, i)) {
            free(d->files[i].data);
            d->files[i] = (struct memory_file){0};
        }
    }
}

/* Counts an operation; true: it is the one that dies. */
static bool dies(struct memory_disk *d)
{
    d->operations++;
    if (d->operations != d->crash_at) {
        return false;
    }
    d->dead = true;
    return true;
}

/* Begins a change of names. */
static void change(struct memory_disk *d)
{
    CHECK(d->changes < MEMORY_DISK_OPS);
    memcpy(d->names[d->changes + 1], d->names[d->changes], sizeof d->names[0]);
    d->changes++;
}

static int disk_list(struct wal_io *io, wal_io_list_cb cb, void *arg)
{
    struct memory_disk *d = self(io);
    if (d->dead) {
        return -EIO;
    }
    for (int i = 0; i < MEMORY_DISK_FILES; i++) {
        if (names(d)[i].name[0] != '\0') {
            cb(arg, names(d)[i].name, d->files[names(d)[i].file].size);
        }
    }
    return 0;
}

static int disk_create(struct wal_io *io, const char *name, uint64_t size)
{
    struct memory_disk *d = self(io);
    if (d->dead) {
        return -EIO;
    }
    bool dying = dies(d);
    int file = 0;
    while (d->files[file].data != NULL) {
        CHECK(++file < MEMORY_DISK_FILES);
    }
    /* A crash in the middle may leave a shorter file. */
    uint64_t got = dying ? prng_below(&d->prng, size / SECTOR) * SECTOR : size;
    d->files[file] = (struct memory_file){.data = calloc(1, size), .size = got};
    change(d);
    struct memory_name *n = find(d, name);
    if (n == NULL) {
        n = find(d, "");
        CHECK(n != NULL);
        memcpy(n->name, name, strlen(name) + 1);
    }
    n->file = file;
    return dying ? -EIO : 0;
}

static int disk_open(struct wal_io *io, const char *name)
{
    struct memory_disk *d = self(io);
    const struct memory_name *n = d->dead ? NULL : find(d, name);
    return n != NULL ? n->file : d->dead ? -EIO : -ENOENT;
}

static void disk_close(struct wal_io *io, int file)
{
    (void)io;
    (void)file;
}

static int disk_read(struct wal_io *io, int file, uint64_t offset, void *data, size_t size)
{
    struct memory_disk *d = self(io);
    const struct memory_file *f = &d->files[file];
    if (d->dead || offset + size > f->size) {
        return -EIO;
    }
    memcpy(data, f->data + offset, size);
    return 0;
}

static int disk_write(struct wal_io *io, int file, uint64_t offset, const void *data, size_t size)
{
    struct memory_disk *d = self(io);
    struct memory_file *f = &d->files[file];
    if (d->dead) {
        return -EIO;
    }
    if (offset % WAL_BLOCK_SIZE != 0 || size % WAL_BLOCK_SIZE != 0 || size == 0 ||
        (uintptr_t)data % WAL_BLOCK_SIZE != 0 || offset + size > f->size) {
        d->writes_outside++;
        return -EINVAL;
    }
    d->last_write_size = size;
    if (!dies(d)) {
        memcpy(f->data + offset, data, size);
        return 0;
    }
    uint64_t odds = 1 + prng_below(&d->prng, 4);
    for (uint64_t sector = 0; sector < size / SECTOR; sector++) {
        bool kept = d->tear_prefix ? sector < d->tear_sectors : !prng_one_in(&d->prng, odds);
        if (kept) {
            memcpy(f->data + offset + sector * SECTOR, (const uint8_t *)data + sector * SECTOR,
                   SECTOR);
        }
    }
    return -EIO;
}

static int disk_sync(struct wal_io *io, int file)
{
    (void)file;
    return self(io)->dead ? -EIO : 0;
}

static int disk_rename(struct wal_io *io, const char *from, const char *to)
{
    struct memory_disk *d = self(io);
    if (d->dead || find(d, from) == NULL) {
        return d->dead ? -EIO : -ENOENT;
    }
    bool dying = dies(d);
    change(d);
    struct memory_name *target = find(d, to);
    if (target != NULL) {
        target->name[0] = '\0';
    }
    memcpy(find(d, from)->name, to, strlen(to) + 1);
    return dying ? -EIO : 0;
}

static int disk_unlink(struct wal_io *io, const char *name)
{
    struct memory_disk *d = self(io);
    if (d->dead || find(d, name) == NULL) {
        return d->dead ? -EIO : -ENOENT;
    }
    bool dying = dies(d);
    change(d);
    find(d, name)->name[0] = '\0';
    return dying ? -EIO : 0;
}

static void settle(struct memory_disk *d, unsigned at)
{
    memmove(d->names[0], d->names[at], sizeof d->names[0]);
    d->changes = 0;
    collect(d);
}

static int disk_sync_dir(struct wal_io *io)
{
    struct memory_disk *d = self(io);
    if (d->dead || dies(d)) {
        return -EIO;
    }
    settle(d, d->changes);
    return 0;
}

static uint64_t disk_random(struct wal_io *io)
{
    return prng_next(&self(io)->prng);
}

void memory_disk_init(struct memory_disk *d, uint64_t seed)
{
    memset(d, 0, sizeof *d);
    d->prng = prng_init(seed);
    d->io =
        (struct wal_io){disk_list, disk_create, disk_open,   disk_close,    disk_read,  disk_write,
                        disk_sync, disk_rename, disk_unlink, disk_sync_dir, disk_random};
}

void memory_disk_close(struct memory_disk *d)
{
    for (int i = 0; i < MEMORY_DISK_FILES; i++) {
        free(d->files[i].data);
        d->files[i] = (struct memory_file){0};
    }
}

void memory_disk_revive(struct memory_disk *d)
{
    settle(d, (unsigned)prng_below(&d->prng, d->changes + 1));
    d->dead = false;
    d->crash_at = 0;
}

struct memory_file *memory_disk_find(struct memory_disk *d, const char *name)
{
    const struct memory_name *n = find(d, name);
    return n != NULL ? &d->files[n->file] : NULL;
}

void memory_disk_copy(struct memory_disk *to, struct memory_disk *from)
{
    settle(from, from->changes);
    *to = *from;
    for (int i = 0; i < MEMORY_DISK_FILES; i++) {
        if (from->files[i].data != NULL) {
            to->files[i].data = malloc(from->files[i].size);
            memcpy(to->files[i].data, from->files[i].data, from->files[i].size);
        }
    }
}
