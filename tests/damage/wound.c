/* One wound: kind, file and place from a seed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/prng.h"
#include "tests/damage/damage.h"

#define FILES_MAX 64
#define BLOCK     4096u
#define SECTOR    512u

const char *wound_kind_name(enum wound_kind kind)
{
    static const char *const names[] = {"bit flip",      "byte set",        "cut",
                                        "extended",      "zeroed block",    "garbage block",
                                        "swapped blocks", "block of before", "missing file",
                                        "empty file",    "swapped files",   "another node's file"};
    return names[kind];
}

const char *wound_file_name(enum wound_file file)
{
    static const char *const names[] = {"identity", "older segment", "newest segment", "spare",
                                        "data.mdb", "CURRENT",       "lock files"};
    return names[file];
}

/* ---- files ---- */

static uint8_t *read_file(const char *path, size_t *size)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        *size = 0;
        return NULL;
    }
    CHECK(fstat(fd, &st) == 0);
    uint8_t *data = malloc((size_t)st.st_size + 1);
    CHECK(data != NULL);
    *size = (size_t)st.st_size;
    for (size_t done = 0; done < *size;) {
        ssize_t n = read(fd, data + done, *size - done);
        CHECK(n > 0);
        done += (size_t)n;
    }
    close(fd);
    return data;
}

static void write_file(const char *path, const uint8_t *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, data + done, size - done);
        CHECK(n > 0);
        done += (size_t)n;
    }
    close(fd);
}

void copy_directory(const char *from, const char *to)
{
    struct dirent *entry;
    CHECK(mkdir(to, 0700) == 0);
    DIR *d = opendir(from);
    CHECK(d != NULL);
    while ((entry = readdir(d)) != NULL) {
        char a[DAMAGE_PATH_SIZE + 300], b[DAMAGE_PATH_SIZE + 300];
        struct stat st;
        if (entry->d_name[0] == '.') {
            continue;
        }
        snprintf(a, sizeof a, "%s/%s", from, entry->d_name);
        snprintf(b, sizeof b, "%s/%s", to, entry->d_name);
        if (lstat(a, &st) < 0) {
            continue; /* a spare that was renamed meanwhile */
        }
        if (S_ISDIR(st.st_mode)) {
            copy_directory(a, b);
        } else {
            size_t size;
            uint8_t *data = read_file(a, &size);
            if (data != NULL) {
                write_file(b, data, size);
            }
            free(data);
        }
    }
    closedir(d);
}

void remove_directory(const char *path)
{
    struct dirent *entry;
    DIR *d = opendir(path);
    while (d != NULL && (entry = readdir(d)) != NULL) {
        char child[DAMAGE_PATH_SIZE + 300];
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        if (lstat(child, &st) == 0 && S_ISDIR(st.st_mode)) {
            remove_directory(child);
        } else {
            unlink(child);
        }
    }
    if (d != NULL) {
        closedir(d);
    }
    rmdir(path);
}

struct listed {
    char name[128];
    enum wound_file file;
};

struct listing {
    struct listed files[FILES_MAX];
    size_t count;
};

static void add(struct listing *l, const char *name, enum wound_file file)
{
    CHECK(l->count < FILES_MAX);
    snprintf(l->files[l->count].name, sizeof l->files[0].name, "%.127s", name);
    l->files[l->count++].file = file;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct listed *)a)->name, ((const struct listed *)b)->name);
}

/* The files of a data directory, in an order that does not depend on the file system. */
static void list_files(const char *directory, struct listing *l)
{
    static const char *const folders[] = {"", "log/", "checkpoint/", "checkpoint/gen-00000002/"};
    l->count = 0;
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        char path[DAMAGE_PATH_SIZE + 64], name[400];
        snprintf(path, sizeof path, "%s/%s", directory, folders[i]);
        DIR *d = opendir(path);
        CHECK(d != NULL);
        for (struct dirent *e; (e = readdir(d)) != NULL;) {
            snprintf(name, sizeof name, "%s%.100s", folders[i], e->d_name);
            if (strncmp(e->d_name, "lock", 4) == 0) {
                add(l, name, FILE_LOCK);
            } else if (strncmp(e->d_name, "spare-", 6) == 0) {
                add(l, name, FILE_SPARE);
            } else if (strstr(e->d_name, ".wal") != NULL) {
                add(l, name, FILE_SEGMENT);
            } else if (strcmp(e->d_name, "data.mdb") == 0) {
                add(l, name, FILE_DATA);
            } else if (strcmp(e->d_name, "CURRENT") == 0) {
                add(l, name, FILE_CURRENT);
            } else if (strcmp(e->d_name, "identity") == 0) {
                add(l, name, FILE_IDENTITY);
            }
        }
        closedir(d);
    }
    qsort(l->files, l->count, sizeof l->files[0], compare_names);
    struct listed *newest = NULL;
    for (size_t i = 0; i < l->count; i++) {
        newest = l->files[i].file == FILE_SEGMENT ? &l->files[i] : newest;
    }
    CHECK(newest != NULL);
    newest->file = FILE_LAST_SEGMENT;
}

static const struct listed *choose_of(const struct listing *l, struct prng *p, enum wound_file file)
{
    const struct listed *found[FILES_MAX];
    size_t count = 0;
    for (size_t i = 0; i < l->count; i++) {
        if (l->files[i].file == file) {
            found[count++] = &l->files[i];
        }
    }
    return count > 0 ? found[prng_below(p, count)] : NULL;
}

static const struct listed *choose(const struct listing *l, struct prng *p)
{
    static const unsigned weights[FILE_KINDS] = {[FILE_IDENTITY] = 8, [FILE_SEGMENT] = 24,
                                                 [FILE_LAST_SEGMENT] = 24, [FILE_SPARE] = 3,
                                                 [FILE_DATA] = 32, [FILE_CURRENT] = 6,
                                                 [FILE_LOCK] = 3};
    for (;;) {
        uint64_t draw = prng_below(p, 100);
        enum wound_file file = FILE_IDENTITY;
        while (draw >= weights[file]) {
            draw -= weights[file];
            file++;
        }
        const struct listed *chosen = choose_of(l, p, file);
        if (chosen != NULL) {
            return chosen;
        }
    }
}

/* ---- places ---- */

/* Half of them in the first bytes of a block, where headers are; and half of the file's second half, which may
 * be unused, is spared when another draw says so. */
static uint64_t place(struct prng *p, const uint8_t *data, size_t size)
{
    uint64_t at = 0;
    for (int attempt = 0; attempt < 4; attempt++) {
        at = prng_below(p, size);
        if (size > BLOCK && prng_one_in(p, 2)) {
            uint64_t in_block = at / BLOCK * BLOCK + prng_below(p, 160);
            at = in_block < size ? in_block : at;
        }
        if (data[at / SECTOR * SECTOR] != 0) {
            break; /* a sector in use, probably */
        }
    }
    return at;
}

static uint64_t block_at(uint64_t at, size_t span, size_t size)
{
    uint64_t begin = at / span * span;
    return begin + span <= size ? begin : size > span ? size - span : 0;
}

/* ---- the wound ---- */

static void path_of(char *path, const char *directory, const char *name)
{
    CHECK(snprintf(path, DAMAGE_PATH_SIZE + 200, "%s/%s", directory, name) > 0);
}

static void hurt_bytes(const struct template *t, struct prng *p, struct wound *w, uint8_t *data,
                       size_t *size)
{
    size_t span = prng_one_in(p, 2) ? SECTOR : BLOCK;
    uint64_t at = place(p, data, *size);
    uint64_t block = block_at(at, span, *size), second;
    size_t length = *size < span ? *size : span;
    uint8_t kept[BLOCK];
    char path[DAMAGE_PATH_SIZE + 200];
    w->offset = at;
    w->size = 1;
    switch (w->kind) {
    case WOUND_BIT:
        data[at] ^= (uint8_t)(1u << prng_below(p, 8));
        return;
    case WOUND_BYTE:
        data[at] = (uint8_t)prng_next(p);
        return;
    case WOUND_CUT:
        w->size = *size - at;
        *size = at;
        return;
    case WOUND_EXTEND:
        w->offset = *size;
        w->size = 1 + prng_below(p, 2 * BLOCK);
        for (uint64_t i = 0; i < w->size; i++) {
            data[*size + i] = (uint8_t)prng_next(p);
        }
        *size += w->size;
        return;
    case WOUND_ZERO:
        memset(data + block, 0, length);
        break;
    case WOUND_GARBAGE:
        for (size_t i = 0; i < length; i++) {
            data[block + i] = (uint8_t)prng_next(p);
        }
        break;
    case WOUND_SWAP_BLOCKS:
        second = block_at(place(p, data, *size), span, *size);
        if (second + length > block && second < block + length) {
            second = block; /* the same, or over each other in a small file */
        }
        memcpy(kept, data + block, length);
        memmove(data + block, data + second, length);
        memcpy(data + second, kept, length);
        w->offset = block < second ? block : second;
        w->size = (block < second ? second : block) + length - w->offset;
        return;
    case WOUND_OLD_BLOCK: {
        size_t old_size;
        path_of(path, t->older, w->name);
        uint8_t *old = read_file(path, &old_size);
        if (old != NULL && block + length <= old_size) {
            memcpy(data + block, old + block, length);
        } else {
            memset(data + block, 0, length); /* it did not exist: a file is born of zeros */
        }
        free(old);
        break;
    }
    case WOUND_MISSING:
    case WOUND_EMPTY:
    case WOUND_SWAP_FILES:
    case WOUND_OTHERS_FILE:
    case WOUND_KINDS:
        CHECK_UNREACHABLE();
    }
    w->offset = block;
    w->size = length;
}

static void hurt_content(const struct template *t, const char *path, struct prng *p, struct wound *w)
{
    size_t size;
    uint8_t *before = read_file(path, &size);
    CHECK(before != NULL);
    if (size == 0 && w->kind != WOUND_EXTEND) {
        w->kind = WOUND_EXTEND; /* a lock's file has nothing to hurt */
    }
    uint8_t *data = malloc(size + 3 * BLOCK);
    CHECK(data != NULL);
    memcpy(data, before, size);
    size_t now = size;
    if (size == 0) {
        data[now++] = 'x';
        w->size = 1;
    } else {
        hurt_bytes(t, p, w, data, &now);
    }
    w->changed = now != size || memcmp(data, before, size) != 0;
    write_file(path, data, now);
    free(before);
    free(data);
}

static void hurt_others(const struct template *t, const char *path, struct prng *p, struct wound *w)
{
    struct listing l;
    size_t size, before_size;
    char from[DAMAGE_PATH_SIZE + 200];
    const char *directory = prng_one_in(p, 2) ? t->other : t->stranger;
    list_files(directory, &l);
    const struct listed *theirs = choose_of(&l, p, w->file);
    CHECK(theirs != NULL);
    path_of(from, directory, theirs->name);
    uint8_t *data = read_file(from, &size), *before = read_file(path, &before_size);
    write_file(path, data, size);
    w->changed = size != before_size || memcmp(data, before, size) != 0;
    w->size = size > before_size ? size : before_size;
    free(data);
    free(before);
}

void wound_inflict(const struct template *t, const char *directory, uint64_t seed, struct wound *w)
{
    struct prng p = prng_init(seed * 2654435761u + 17);
    struct listing l;
    char path[DAMAGE_PATH_SIZE + 200], second[DAMAGE_PATH_SIZE + 200], third[DAMAGE_PATH_SIZE + 200];
    *w = (struct wound){.changed = true};
    list_files(directory, &l);
    const struct listed *chosen = choose(&l, &p);
    w->file = chosen->file;
    snprintf(w->name, sizeof w->name, "%s", chosen->name);
    path_of(path, directory, w->name);
    /* Whole files are fewer than places in them: one in ten. */
    w->kind = prng_one_in(&p, 10) ? WOUND_MISSING + (enum wound_kind)prng_below(&p, 4)
                                  : (enum wound_kind)prng_below(&p, WOUND_MISSING);
    switch (w->kind) {
    case WOUND_MISSING:
        CHECK(unlink(path) == 0);
        return;
    case WOUND_EMPTY:
        w->changed = chosen->file != FILE_LOCK;
        write_file(path, NULL, 0);
        return;
    case WOUND_SWAP_FILES: {
        const struct listed *other = &l.files[prng_below(&p, l.count)];
        snprintf(w->second, sizeof w->second, "%s", other->name);
        w->changed = strcmp(w->name, w->second) != 0;
        path_of(second, directory, w->second);
        path_of(third, directory, "swap.tmp");
        CHECK(rename(path, third) == 0);
        if (w->changed) {
            CHECK(rename(second, path) == 0);
        }
        CHECK(rename(third, second) == 0);
        return;
    }
    case WOUND_OTHERS_FILE:
        hurt_others(t, path, &p, w);
        return;
    case WOUND_BIT:
    case WOUND_BYTE:
    case WOUND_CUT:
    case WOUND_EXTEND:
    case WOUND_ZERO:
    case WOUND_GARBAGE:
    case WOUND_SWAP_BLOCKS:
    case WOUND_OLD_BLOCK:
        hurt_content(t, path, &p, w);
        return;
    case WOUND_KINDS:
        break;
    }
    CHECK_UNREACHABLE();
}
