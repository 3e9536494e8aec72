/* sim_disk: files in memory with the durability of wal_io.h. See sim_disk.h. */
#include "tests/sim/sim_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/str.h"

#define SECTOR_SIZE 512u
#define FILES_MAX   6144u /* more than a log may have segments */
#define BLOCK_SIZE  4096u
#define DAMAGES_MAX 32u

struct inode {
    uint8_t *data;
    uint64_t size;
    uint64_t used; /* the end of what was written so far */
    unsigned opened;
};

struct damage {
    int inode;
    uint64_t offset, size;
    bool unreadable;
};

struct dirent {
    char name[WAL_IO_NAME_SIZE];
    int inode;
};

struct directory {
    struct dirent *entries;
    size_t count, capacity;
};

enum change_kind { CHANGE_LINK, CHANGE_UNLINK, CHANGE_RENAME };

struct change { /* of the directory, not yet durable */
    enum change_kind kind;
    char name[WAL_IO_NAME_SIZE], to[WAL_IO_NAME_SIZE];
    int inode;
};

struct sim_disk {
    struct wal_io io; /* first: recovered by a cast through container_of */
    struct prng *prng;
    struct inode inodes[FILES_MAX];
    int inodes_used; /* the first so many have been used at some time */
    struct directory seen, durable;
    struct change *changes;
    size_t changes_count, changes_capacity;
    unsigned armed; /* operations left; 0: not armed */
    bool dead, failed, torn, full;
    enum sim_fault trap;
    unsigned trap_left; /* operations until it springs; 0: not set */
    struct damage damages[DAMAGES_MAX];
    size_t damages_count;
    uint64_t *fired;
};

static struct sim_disk *disk_of(struct wal_io *io)
{
    return container_of(io, struct sim_disk, io);
}

/* ---- directories ---- */

static struct dirent *dir_find(const struct directory *dir, const char *name)
{
    for (size_t i = 0; i < dir->count; i++) {
        if (strcmp(dir->entries[i].name, name) == 0) {
            return &dir->entries[i];
        }
    }
    return NULL;
}

static void dir_unlink(struct directory *dir, const char *name)
{
    struct dirent *entry = dir_find(dir, name);
    if (entry != NULL) {
        *entry = dir->entries[--dir->count];
    }
}

static void dir_link(struct directory *dir, const char *name, int inode)
{
    struct dirent *entry = dir_find(dir, name);
    if (entry == NULL) {
        if (dir->count == dir->capacity) {
            dir->capacity = dir->capacity == 0 ? 16 : dir->capacity * 2;
            dir->entries = realloc(dir->entries, dir->capacity * sizeof *dir->entries);
            CHECK(dir->entries != NULL);
        }
        entry = &dir->entries[dir->count++];
        str_copy(entry->name, sizeof entry->name, str_from(name));
    }
    entry->inode = inode;
}

static void dir_apply(struct directory *dir, const struct change *c)
{
    switch (c->kind) {
    case CHANGE_LINK:
        dir_link(dir, c->name, c->inode);
        break;
    case CHANGE_UNLINK:
        dir_unlink(dir, c->name);
        break;
    case CHANGE_RENAME:
        dir_unlink(dir, c->name);
        dir_link(dir, c->to, c->inode);
        break;
    }
}

static void change_add(struct sim_disk *d, enum change_kind kind, const char *name, const char *to,
                       int inode)
{
    if (d->changes_count == d->changes_capacity) {
        d->changes_capacity = d->changes_capacity == 0 ? 16 : d->changes_capacity * 2;
        d->changes = realloc(d->changes, d->changes_capacity * sizeof *d->changes);
        CHECK(d->changes != NULL);
    }
    struct change *c = &d->changes[d->changes_count++];
    *c = (struct change){.kind = kind, .inode = inode};
    str_copy(c->name, sizeof c->name, str_from(name));
    str_copy(c->to, sizeof c->to, str_from(to));
    dir_apply(&d->seen, c);
}

/* ---- damage ---- */

static void damage_remove(struct sim_disk *d, size_t i)
{
    d->damages[i] = d->damages[--d->damages_count];
}

static void damage_forget_inode(struct sim_disk *d, int inode)
{
    for (size_t i = d->damages_count; i-- > 0;) {
        if (d->damages[i].inode == inode) {
            damage_remove(d, i);
        }
    }
}

static void damage_add(struct sim_disk *d, struct damage damage)
{
    CHECK(d->damages_count < DAMAGES_MAX);
    d->damages[d->damages_count++] = damage;
}

static bool damage_overlaps(const struct damage *damage, int inode, uint64_t offset, size_t size)
{
    return damage->inode == inode && damage->offset < offset + size &&
           offset < damage->offset + damage->size;
}

/* Written over: what lay there is of no interest any more. A part of a damage stays. */
static void damage_written(struct sim_disk *d, int inode, uint64_t offset, size_t size)
{
    for (size_t i = d->damages_count; i-- > 0;) {
        const struct damage *damage = &d->damages[i];
        if (damage->inode == inode && damage->offset >= offset &&
            damage->offset + damage->size <= offset + size) {
            damage_remove(d, i);
        }
    }
}

static bool inode_is_named(const struct sim_disk *d, int inode)
{
    for (size_t i = 0; i < d->seen.count; i++) {
        if (d->seen.entries[i].inode == inode) {
            return true;
        }
    }
    for (size_t i = 0; i < d->durable.count; i++) {
        if (d->durable.entries[i].inode == inode) {
            return true;
        }
    }
    return false;
}

static void collect(struct sim_disk *d)
{
    for (int i = 0; i < d->inodes_used; i++) {
        if (d->inodes[i].data != NULL && d->inodes[i].opened == 0 && !inode_is_named(d, i)) {
            free(d->inodes[i].data);
            d->inodes[i] = (struct inode){0};
            damage_forget_inode(d, i);
        }
    }
}

/* ---- dying ---- */

/* Counts one operation. Returns 0: do it; 1: die while doing it; -EIO: dead already. */
static int disk_operation(struct sim_disk *d)
{
    if (d->dead) {
        return -EIO;
    }
    if (d->armed > 0 && --d->armed == 0) {
        d->dead = d->failed = true;
        d->fired[SIM_FAULT_DISK_DEATH]++;
        return 1;
    }
    return 0;
}

/* The operation that the fault can befall; true: it does. */
static bool disk_trapped(struct sim_disk *d, enum sim_fault fault)
{
    if (d->trap_left == 0 || d->trap != fault || --d->trap_left > 0) {
        return false;
    }
    d->fired[fault]++;
    return true;
}

static int disk_fail(struct sim_disk *d, int error)
{
    d->failed = true;
    return error;
}

static void write_sectors(struct sim_disk *d, struct inode *inode, uint64_t offset,
                          const uint8_t *data, size_t size, bool torn)
{
    CHECK(offset + size <= inode->size);
    /* Out of order and with gaps; now and then all or nothing. */
    uint64_t keep_of_8 = torn ? prng_below(d->prng, 9) : 8;
    if (torn && !d->torn) {
        keep_of_8 = keep_of_8 < 4 ? 0 : 8;
    }
    d->fired[SIM_FAULT_TORN] += keep_of_8 > 0 && keep_of_8 < 8 && size > SECTOR_SIZE;
    inode->used = offset + size > inode->used ? offset + size : inode->used;
    if (keep_of_8 == 8) {
        damage_written(d, (int)(inode - d->inodes), offset, size);
    }
    for (size_t at = 0; at < size; at += SECTOR_SIZE) {
        if (prng_below(d->prng, 8) < keep_of_8) {
            memcpy(inode->data + offset + at, data + at, SECTOR_SIZE);
        }
    }
}

/* ---- struct wal_io ---- */

static int io_list(struct wal_io *io, wal_io_list_cb cb, void *arg)
{
    struct sim_disk *d = disk_of(io);
    if (d->dead) {
        return -EIO;
    }
    for (size_t i = 0; i < d->seen.count; i++) {
        const struct dirent *entry = &d->seen.entries[i];
        cb(arg, entry->name, d->inodes[entry->inode].size);
    }
    return 0;
}

static int io_create(struct wal_io *io, const char *name, uint64_t size)
{
    struct sim_disk *d = disk_of(io);
    int operation = disk_operation(d);
    if (operation < 0) {
        return operation;
    }
    if (d->full && operation == 0) {
        d->fired[SIM_FAULT_NO_SPACE]++;
        return disk_fail(d, -ENOSPC);
    }
    int inode = 0;
    while (inode < (int)FILES_MAX && d->inodes[inode].data != NULL) {
        inode++;
    }
    CHECK(inode < (int)FILES_MAX);
    if (inode >= d->inodes_used) {
        d->inodes_used = inode + 1;
    }
    /* Dying while writing zeros leaves a shorter file. */
    uint64_t written = operation == 1 ? prng_below(d->prng, size) & ~(uint64_t)4095 : size;
    d->inodes[inode].data = calloc(1, (size_t)written + 1);
    CHECK(d->inodes[inode].data != NULL);
    d->inodes[inode].size = written;
    change_add(d, CHANGE_LINK, name, "", inode);
    return operation == 1 ? -EIO : 0;
}

static int io_open(struct wal_io *io, const char *name)
{
    struct sim_disk *d = disk_of(io);
    if (d->dead) {
        return -EIO;
    }
    const struct dirent *entry = dir_find(&d->seen, name);
    if (entry == NULL) {
        return -ENOENT;
    }
    d->inodes[entry->inode].opened++;
    return entry->inode;
}

static void io_close(struct wal_io *io, int file)
{
    struct sim_disk *d = disk_of(io);
    CHECK(d->inodes[file].opened > 0);
    d->inodes[file].opened--;
}

static int io_read(struct wal_io *io, int file, uint64_t offset, void *data, size_t size)
{
    struct sim_disk *d = disk_of(io);
    struct inode *inode = &d->inodes[file];
    CHECK(inode->opened > 0);
    if (d->dead || offset + size > inode->size) {
        return -EIO;
    }
    if (disk_trapped(d, SIM_FAULT_READ_ERROR)) {
        return disk_fail(d, -EIO);
    }
    for (size_t i = 0; i < d->damages_count; i++) {
        if (d->damages[i].unreadable && damage_overlaps(&d->damages[i], file, offset, size)) {
            return -EIO; /* and it will be so the next time */
        }
    }
    memcpy(data, inode->data + offset, size);
    return 0;
}

/* A write that says it is done, and is not there: partly, or not at all. */
static void write_lost(struct sim_disk *d, int file, uint64_t offset, const uint8_t *data, size_t size)
{
    uint64_t keep_of_8 = prng_one_in(d->prng, 2) ? 0 : prng_below(d->prng, 8);
    for (size_t at = 0; at < size; at += SECTOR_SIZE) {
        if (prng_below(d->prng, 8) < keep_of_8) {
            memcpy(d->inodes[file].data + offset + at, data + at, SECTOR_SIZE);
        }
    }
    damage_add(d, (struct damage){.inode = file, .offset = offset, .size = size});
}

/* A file that has a name and room for it, taken at random. */
static int pick_file(struct sim_disk *d, size_t size)
{
    int found = -1;
    uint64_t seen = 0;
    for (int i = 0; i < d->inodes_used; i++) {
        if (d->inodes[i].data != NULL && d->inodes[i].size >= size && inode_is_named(d, i) &&
            prng_one_in(d->prng, ++seen)) {
            found = i;
        }
    }
    return found;
}

/* The same, and it lies somewhere else instead. */
static void write_misdirected(struct sim_disk *d, int file, uint64_t offset, const uint8_t *data,
                              size_t size)
{
    int other = pick_file(d, size);
    if (other >= 0) {
        struct inode *to = &d->inodes[other];
        /* Near what is there, more often than not. */
        uint64_t room = to->size - size;
        if (prng_one_in(d->prng, 2) && to->used < room) {
            room = to->used;
        }
        uint64_t at = prng_below(d->prng, room / BLOCK_SIZE + 1) * BLOCK_SIZE;
        if (other != file || at != offset) {
            memcpy(to->data + at, data, size);
            damage_add(d, (struct damage){.inode = other, .offset = at, .size = size});
        }
    }
    damage_add(d, (struct damage){.inode = file, .offset = offset, .size = size});
}

static int io_write(struct wal_io *io, int file, uint64_t offset, const void *data, size_t size)
{
    struct sim_disk *d = disk_of(io);
    struct inode *inode = &d->inodes[file];
    CHECK(inode->opened > 0);
    CHECK(offset % 4096 == 0);
    CHECK(size % 4096 == 0);
    CHECK((uintptr_t)data % 4096 == 0);
    int operation = disk_operation(d);
    if (operation < 0) {
        return operation;
    }
    if (operation == 0 && disk_trapped(d, SIM_FAULT_WRITE_ERROR)) {
        write_sectors(d, inode, offset, data, size, true);
        return disk_fail(d, -EIO);
    }
    if (operation == 0 && disk_trapped(d, SIM_FAULT_LOST_WRITE)) {
        write_lost(d, file, offset, data, size);
        return 0;
    }
    if (operation == 0 && disk_trapped(d, SIM_FAULT_MISDIRECT)) {
        write_misdirected(d, file, offset, data, size);
        return 0;
    }
    write_sectors(d, inode, offset, data, size, operation == 1);
    return operation == 1 ? -EIO : 0;
}

static int io_sync(struct wal_io *io, int file)
{
    struct sim_disk *d = disk_of(io);
    (void)file; /* what can be read is durable here: there is no page cache */
    if (disk_trapped(d, SIM_FAULT_SYNC_ERROR)) {
        return disk_fail(d, -EIO);
    }
    return d->dead ? -EIO : 0;
}

static int io_rename(struct wal_io *io, const char *from, const char *to)
{
    struct sim_disk *d = disk_of(io);
    int operation = disk_operation(d);
    if (operation < 0) {
        return operation;
    }
    const struct dirent *entry = dir_find(&d->seen, from);
    if (entry == NULL) {
        return -ENOENT;
    }
    change_add(d, CHANGE_RENAME, from, to, entry->inode);
    return operation == 1 ? -EIO : 0;
}

static int io_unlink(struct wal_io *io, const char *name)
{
    struct sim_disk *d = disk_of(io);
    int operation = disk_operation(d);
    if (operation < 0) {
        return operation;
    }
    if (dir_find(&d->seen, name) == NULL) {
        return -ENOENT;
    }
    change_add(d, CHANGE_UNLINK, name, "", -1);
    return operation == 1 ? -EIO : 0;
}

static int io_sync_dir(struct wal_io *io)
{
    struct sim_disk *d = disk_of(io);
    int operation = disk_operation(d);
    if (operation != 0) {
        return -EIO;
    }
    if (disk_trapped(d, SIM_FAULT_SYNC_ERROR)) {
        return disk_fail(d, -EIO); /* nobody knows what of it is durable */
    }
    for (size_t i = 0; i < d->changes_count; i++) {
        dir_apply(&d->durable, &d->changes[i]);
    }
    d->changes_count = 0;
    collect(d);
    return 0;
}

static uint64_t io_random(struct wal_io *io)
{
    return prng_next(disk_of(io)->prng);
}

/* ---- the simulator's side ---- */

struct sim_disk *sim_disk_create(struct prng *prng, uint64_t *fired)
{
    struct sim_disk *d = calloc(1, sizeof *d);
    CHECK(d != NULL);
    d->prng = prng;
    d->fired = fired;
    d->torn = true;
    d->io = (struct wal_io){
        .list = io_list,
        .create = io_create,
        .open = io_open,
        .close = io_close,
        .read = io_read,
        .write = io_write,
        .sync = io_sync,
        .rename = io_rename,
        .unlink = io_unlink,
        .sync_dir = io_sync_dir,
        .random = io_random,
    };
    return d;
}

void sim_disk_destroy(struct sim_disk *d)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        free(d->inodes[i].data);
    }
    free(d->seen.entries);
    free(d->durable.entries);
    free(d->changes);
    free(d);
}

struct wal_io *sim_disk_io(struct sim_disk *d)
{
    return &d->io;
}

void sim_disk_arm(struct sim_disk *d, unsigned nth)
{
    d->armed = nth;
}

bool sim_disk_is_dead(const struct sim_disk *d)
{
    return d->dead;
}

void sim_disk_tear(struct sim_disk *d, int file, uint64_t offset, const void *data, size_t size)
{
    write_sectors(d, &d->inodes[file], offset, data, size, true);
}

void sim_disk_restart(struct sim_disk *d)
{
    /* A prefix of the directory's changes made it: file systems journal them in order. */
    size_t kept = (size_t)prng_below(d->prng, d->changes_count + 1);
    for (size_t i = 0; i < kept; i++) {
        dir_apply(&d->durable, &d->changes[i]);
    }
    d->changes_count = 0;
    d->seen.count = 0;
    for (size_t i = 0; i < d->durable.count; i++) {
        dir_link(&d->seen, d->durable.entries[i].name, d->durable.entries[i].inode);
    }
    for (int i = 0; i < d->inodes_used; i++) {
        d->inodes[i].opened = 0;
    }
    collect(d);
    d->armed = 0;
    d->dead = d->failed = false;
}

bool sim_disk_has_failed(const struct sim_disk *d)
{
    return d->failed;
}

void sim_disk_set_torn(struct sim_disk *d, bool torn)
{
    d->torn = torn;
}

void sim_disk_trap(struct sim_disk *d, enum sim_fault fault, unsigned nth)
{
    d->trap = fault;
    d->trap_left = nth;
}

void sim_disk_disarm(struct sim_disk *d)
{
    d->trap_left = 0;
}

void sim_disk_set_full(struct sim_disk *d, bool full)
{
    d->full = full;
}

bool sim_disk_is_full(const struct sim_disk *d)
{
    return d->full;
}

/* ---- damage, the simulator's side ---- */

static bool is_segment(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL && strcmp(dot, ".wal") == 0;
}

/* A segment at random; the newest, where the end of the log is, as often as all the others. */
static const struct dirent *pick_segment(struct sim_disk *d)
{
    const struct dirent *found = NULL, *newest = NULL;
    uint64_t seen = 0;
    for (size_t i = 0; i < d->durable.count; i++) {
        const struct dirent *entry = &d->durable.entries[i];
        if (!is_segment(entry->name)) {
            continue;
        }
        if (newest == NULL || strcmp(entry->name, newest->name) > 0) {
            newest = entry;
        }
        if (prng_one_in(d->prng, ++seen)) {
            found = entry;
        }
    }
    return prng_one_in(d->prng, 2) ? newest : found;
}

bool sim_disk_damage(struct sim_disk *d, enum sim_fault fault)
{
    const struct dirent *entry = pick_segment(d);
    if (entry == NULL || d->inodes[entry->inode].size == 0) {
        return false;
    }
    struct inode *inode = &d->inodes[entry->inode];
    uint64_t reach = inode->used > 0 && !prng_one_in(d->prng, 4) ? inode->used : inode->size;
    uint64_t at = prng_below(d->prng, reach);
    uint64_t sector = at - at % SECTOR_SIZE;
    struct damage damage = {.inode = entry->inode, .offset = sector, .size = SECTOR_SIZE};
    if (fault == SIM_FAULT_BAD_SECTOR) {
        damage.unreadable = true;
    } else if (prng_one_in(d->prng, 3)) { /* a whole sector, as devices lose them */
        for (size_t i = 0; i < SECTOR_SIZE; i++) {
            inode->data[sector + i] = (uint8_t)prng_next(d->prng);
        }
    } else {
        inode->data[at] ^= (uint8_t)(1u << prng_below(d->prng, 8));
    }
    damage_add(d, damage);
    d->fired[fault]++;
    return true;
}

bool sim_disk_is_hurt(const struct sim_disk *d)
{
    bool will_be = d->trap_left > 0 &&
                   (d->trap == SIM_FAULT_MISDIRECT || d->trap == SIM_FAULT_LOST_WRITE);
    return will_be || d->damages_count > 0;
}

bool sim_disk_is_damaged_at(const struct sim_disk *d, int file, uint64_t offset, size_t size)
{
    for (size_t i = 0; i < d->damages_count; i++) {
        if (damage_overlaps(&d->damages[i], file, offset, size)) {
            return true;
        }
    }
    return false;
}

void sim_disk_forget_damage(struct sim_disk *d)
{
    d->damages_count = 0;
}

void sim_disk_cut(struct sim_disk *d, const char *name, uint64_t offset)
{
    for (size_t i = d->durable.count; i-- > 0;) {
        const struct dirent *entry = &d->durable.entries[i];
        struct inode *inode = &d->inodes[entry->inode];
        if (strcmp(entry->name, name) == 0 && offset < inode->size) {
            memset(inode->data + offset, 0, (size_t)(inode->size - offset));
        } else if (is_segment(entry->name) && strcmp(entry->name, name) > 0) {
            char gone[WAL_IO_NAME_SIZE];
            memcpy(gone, entry->name, sizeof gone);
            dir_unlink(&d->seen, gone);
            dir_unlink(&d->durable, gone);
        }
    }
    collect(d);
}
