/* Life of the store: which generation counts, and cleaning up after a crash.
 *
 * Switch of generations (install): gen-N.tmp filled and synced → renamed to gen-N, directory synced
 * → CURRENT.tmp written and synced → renamed to CURRENT, directory synced (the commit point) → old
 * removed. A crash before the commit point leaves CURRENT naming the old one, which is whole; what
 * else lies there is removed at the next open. */
#include "storage/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/advice.h"
#include "base/check.h"
#include "base/failpoint.h"
#include "base/file.h"
#include "base/log.h"
#include "storage/checkpoint_internal.h"

#define CURRENT_NAME "CURRENT"

void checkpoint_generation_name(uint64_t generation, bool temporary,
                                char out[static CHECKPOINT_NAME_SIZE])
{
    snprintf(out, CHECKPOINT_NAME_SIZE, "gen-%08llu%s", (unsigned long long)generation,
             temporary ? ".tmp" : "");
}

void checkpoint_generation_path(const struct checkpoint *c, const char *name, char *out)
{
    int n = snprintf(out, CHECKPOINT_PATH_SIZE, "%s/%s", c->path, name);
    CHECK(n > 0);
    CHECK(n < (int)CHECKPOINT_PATH_SIZE);
}

int checkpoint_sync_path(const char *path)
{
    if (file_sync(path) < 0) {
        log_error("%s: %s", path, strerror(errno));
        return -1;
    }
    return 0;
}

/* gen-00000001 → 1; 0 when it is no such name. */
static uint64_t parse_name(const char *name)
{
    char canonical[CHECKPOINT_NAME_SIZE];
    uint64_t generation = strncmp(name, "gen-", 4) == 0 ? strtoull(name + 4, NULL, 10) : 0;
    checkpoint_generation_name(generation, false, canonical);
    return strcmp(name, canonical) == 0 ? generation : 0;
}

static int make_directory(const char *path)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        log_error("%s: %s", path, strerror(errno));
        return -1;
    }
    return 0;
}

/* ---- CURRENT ---- */

int checkpoint_write_current(struct checkpoint *c, const char *name)
{
    char path[CHECKPOINT_PATH_SIZE], temporary[CHECKPOINT_PATH_SIZE],
        line[CHECKPOINT_NAME_SIZE + 1];
    checkpoint_generation_path(c, CURRENT_NAME, path);
    checkpoint_generation_path(c, CURRENT_NAME ".tmp", temporary);
    int size = snprintf(line, sizeof line, "%s\n", name);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        log_error("%s: %s", temporary, strerror(errno));
        return -1;
    }
    bool ok = FAILPOINT_WRITE("current/before-write", "CURRENT.tmp is empty", fd, line, (size_t)size,
                              -1) == 0 &&
              write(fd, line, (size_t)size) == size &&
              FAILPOINT_ERROR("current/before-sync", "CURRENT.tmp is written, not synced") == 0 &&
              fsync(fd) == 0;
    int error = errno;
    if (close(fd) < 0 || !ok ||
        FAILPOINT_ERROR("current/before-rename", "CURRENT.tmp is durable, CURRENT is the old one") < 0 ||
        rename(temporary, path) < 0) {
        log_error("%s: %s", path, strerror(ok ? errno : error));
        return -1;
    }
    if (FAILPOINT_ERROR("current/after-rename", "CURRENT is the new one, not durable") < 0 ||
        checkpoint_sync_path(c->path) < 0) {
        /* Which one counts after a crash is not known, so this process must not say either. The
         * next start reads CURRENT and goes on with what it finds: both are whole. */
        log_error("%s: the switch to %s cannot be made durable: stopping", c->path, name);
        abort();
    }
    return 0;
}

int64_t checkpoint_read_current(const char *directory)
{
    char path[CHECKPOINT_PATH_SIZE + 16], line[CHECKPOINT_NAME_SIZE + 2];
    snprintf(path, sizeof path, "%s/" CURRENT_NAME, directory);
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        if (errno == ENOENT) {
            return 0;
        }
        log_error("%s: %s", path, strerror(errno));
        return -1;
    }
    size_t size = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[size] = '\0';
    uint64_t generation = 0;
    if (size > 0 && line[size - 1] == '\n') {
        line[size - 1] = '\0';
        generation = parse_name(line);
    }
    if (generation == 0 || generation > INT64_MAX) {
        log_error("%s offset 0: does not name a generation: it is damaged. If there is exactly one "
                  "gen-… directory beside it, its name and a newline belong here; else: " ADVICE_REBUILD,
                  path);
        return -1;
    }
    char named[CHECKPOINT_PATH_SIZE + 32];
    struct stat st;
    snprintf(named, sizeof named, "%s/%s", directory, line);
    if (stat(named, &st) < 0 && errno == ENOENT) {
        log_error("%s offset 0: names %s, which is not there: one of the two was lost or damaged. If there "
                  "is exactly one gen-… directory, its name and a newline belong here; else: " ADVICE_REBUILD,
                  path, line);
        return -1;
    }
    return (int64_t)generation;
}

static void remove_directory(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *entry;
    char file[CHECKPOINT_PATH_SIZE + 300];
    while (d != NULL && (entry = readdir(d)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
            unlink(file);
        }
    }
    if (d != NULL) {
        closedir(d);
    }
    if (rmdir(path) < 0 && errno != ENOENT) {
        log_warn("%s: cannot be removed: %s", path, strerror(errno));
    }
}

void checkpoint_remove_others(struct checkpoint *c)
{
    char current[CHECKPOINT_NAME_SIZE], partial[CHECKPOINT_NAME_SIZE] = "",
        path[CHECKPOINT_PATH_SIZE];
    checkpoint_generation_name(c->env.generation, false, current);
    if (c->partial_generation != 0) {
        checkpoint_generation_name(c->partial_generation, true, partial);
    }
    DIR *d = opendir(c->path);
    struct dirent *entry;
    while (d != NULL && (entry = readdir(d)) != NULL) {
        if (strncmp(entry->d_name, "gen-", 4) == 0 && strcmp(entry->d_name, current) != 0 &&
            strcmp(entry->d_name, partial) != 0) {
            checkpoint_generation_path(c, entry->d_name, path);
            remove_directory(path);
        }
    }
    if (d != NULL) {
        closedir(d);
    }
    checkpoint_generation_path(c, CURRENT_NAME ".tmp", path);
    unlink(path);
}

/* ---- open ---- */

/* Without CURRENT only what the very first start may leave is acceptable: a first generation that
 * never held a checkpoint. Returns 0, or -1 after logging. */
int checkpoint_refuse_orphans(const char *directory)
{
    DIR *d = opendir(directory);
    struct dirent *entry;
    int result = 0;
    while (d != NULL && (entry = readdir(d)) != NULL) {
        uint64_t generation = parse_name(entry->d_name);
        struct checkpoint_env env;
        struct checkpoint_meta meta;
        MDB_txn *txn;
        char path[CHECKPOINT_PATH_SIZE + 64], data[CHECKPOINT_PATH_SIZE + 80];
        struct stat st;
        if (generation == 0) {
            continue;
        }
        snprintf(path, sizeof path, "%s/%.*s", directory, (int)CHECKPOINT_NAME_SIZE, entry->d_name);
        snprintf(data, sizeof data, "%s/data.mdb", path);
        bool empty = generation == 1 && (stat(data, &st) < 0 || st.st_size == 0);
        if (!empty && generation == 1) {
            if (checkpoint_verify_file(path, false) < 0 ||
                checkpoint_env_open(&env, path, generation, 0, false, MDB_RDONLY | MDB_NOLOCK) < 0) {
                result = -1;
                continue;
            }
            if (mdb_txn_begin(env.env, NULL, MDB_RDONLY, &txn) == 0) {
                empty = checkpoint_env_read_meta(&env, txn, &meta) == 1;
                mdb_txn_abort(txn);
            }
            checkpoint_env_close(&env);
        }
        if (!empty) {
            log_error("%s/CURRENT: is missing beside %s. If that is the only one, its name and a newline "
                      "belong there; else: " ADVICE_REBUILD,
                      directory, entry->d_name);
            result = -1;
        }
    }
    if (d != NULL) {
        closedir(d);
    }
    return result;
}

static int open_first(struct checkpoint *c)
{
    char name[CHECKPOINT_NAME_SIZE], path[CHECKPOINT_PATH_SIZE];
    if (checkpoint_refuse_orphans(c->path) < 0) {
        return -1;
    }
    checkpoint_remove_others(c); /* generation 0 is current: all go */
    checkpoint_generation_name(1, false, name);
    checkpoint_generation_path(c, name, path);
    if (make_directory(path) < 0 ||
        checkpoint_env_open(&c->env, path, 1, c->map_size, true, 0) < 0) {
        return -1;
    }
    if (checkpoint_sync_path(path) < 0 || checkpoint_sync_path(c->path) < 0 ||
        checkpoint_write_current(c, name) < 0) {
        checkpoint_env_close(&c->env);
        return -1;
    }
    return 0;
}

/* All of it will be read, in the order of its trees, which is a random one on the disk: a disk gives
 * it many times faster from beginning to end. Only a wish. */
static void read_ahead(const char *path)
{
    char file[CHECKPOINT_PATH_SIZE + 16];
    snprintf(file, sizeof file, "%s/data.mdb", path);
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
        close(fd);
    }
}

static int open_generation(struct checkpoint *c, uint64_t generation)
{
    char name[CHECKPOINT_NAME_SIZE], path[CHECKPOINT_PATH_SIZE];
    checkpoint_generation_name(generation, false, name);
    checkpoint_generation_path(c, name, path);
    read_ahead(path);
    if (checkpoint_verify_file(path, false) < 0 ||
        checkpoint_env_open(&c->env, path, generation, c->map_size, false, 0) < 0) {
        return -1;
    }
    const char *outer = checkpoint_guard_begin(c->env.path);
    MDB_txn *txn;
    CHECK(mdb_txn_begin(c->env.env, NULL, MDB_RDONLY, &txn) == 0);
    int rv = checkpoint_env_read_meta(&c->env, txn, &c->meta);
    c->has_meta = rv == 0;
    if (rv == -1) {
        log_error("%s/data.mdb: its meta record is damaged. " ADVICE_REBUILD, path);
    } else if (rv >= 0) {
        rv = checkpoint_env_check_owner(&c->env, txn, &c->owner);
    }
    mdb_txn_abort(txn);
    checkpoint_guard_end(outer);
    if (rv < 0) {
        checkpoint_env_close(&c->env);
        return -1;
    }
    return 0;
}

int checkpoint_inspect(const struct checkpoint_config *config, checkpoint_block_cb put, void *ctx,
                       struct checkpoint_meta *meta)
{
    char directory[CHECKPOINT_PATH_SIZE], name[CHECKPOINT_NAME_SIZE],
        path[CHECKPOINT_PATH_SIZE + CHECKPOINT_NAME_SIZE + 1];
    struct checkpoint_env env;
    struct checkpoint_owner owner = {.node_id = config->node_id};
    struct stat st;
    MDB_txn *txn;
    memcpy(owner.cluster_id, config->cluster_id, sizeof owner.cluster_id);
    int n = snprintf(directory, sizeof directory, "%s/checkpoint", config->directory);
    CHECK(n > 0);
    CHECK((size_t)n < sizeof directory);
    if (stat(directory, &st) < 0 && errno == ENOENT) {
        return 0;
    }
    int64_t generation = checkpoint_read_current(directory);
    if (generation <= 0) {
        return generation < 0 ? -1 : checkpoint_refuse_orphans(directory);
    }
    checkpoint_generation_name((uint64_t)generation, false, name);
    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (checkpoint_verify_file(path, true) < 0 ||
        checkpoint_env_open(&env, path, (uint64_t)generation, config->map_size, false,
                            MDB_RDONLY | MDB_NOLOCK) < 0) {
        return -1;
    }
    const char *outer = checkpoint_guard_begin(env.path);
    CHECK(mdb_txn_begin(env.env, NULL, MDB_RDONLY, &txn) == 0);
    int rv = checkpoint_env_read_meta(&env, txn, meta);
    if (rv >= 0 && checkpoint_env_check_owner(&env, txn, &owner) < 0) {
        rv = -2; /* logged */
    }
    mdb_txn_abort(txn);
    int result = rv == 1 ? 0 : -1;
    if (rv == 0 || rv == -1) { /* the walk says what is wrong with the meta */
        result = checkpoint_env_walk(&env, path, put, ctx, meta) == 0 ? 1 : -1;
    }
    checkpoint_guard_end(outer);
    checkpoint_env_close(&env);
    return result;
}

int checkpoint_open(const struct checkpoint_config *config, struct checkpoint **out)
{
    struct checkpoint *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    c->loop = config->loop;
    c->map_size = config->map_size != 0 ? config->map_size : CHECKPOINT_MAP_SIZE_DEFAULT;
    c->owner.node_id = config->node_id;
    memcpy(c->owner.cluster_id, config->cluster_id, sizeof c->owner.cluster_id);
    int n = snprintf(c->path, sizeof c->path - CHECKPOINT_NAME_SIZE - 1, "%s/checkpoint",
                     config->directory);
    CHECK(n > 0);
    CHECK((size_t)n < sizeof c->path - CHECKPOINT_NAME_SIZE - 1);
    randombytes_buf(c->secret, sizeof c->secret);
    CHECK(pthread_mutex_init(&c->lock, NULL) == 0);
    CHECK(pthread_mutex_init(&c->figures_lock, NULL) == 0);
    for (size_t i = 0; i < CHECKPOINT_READERS_MAX; i++) {
        CHECK(pthread_mutex_init(&c->pins[i].lock, NULL) == 0);
    }
    if (make_directory(c->path) < 0 || checkpoint_sync_path(config->directory) < 0) {
        goto err;
    }
    int64_t generation = checkpoint_read_current(c->path);
    if (generation < 0 ||
        (generation == 0 ? open_first(c) : open_generation(c, (uint64_t)generation)) < 0) {
        goto err;
    }
    checkpoint_find_partial(c);
    checkpoint_remove_others(c);
    checkpoint_note(c);
    if (c->loop != NULL && checkpoint_writer_start(c) < 0) {
        checkpoint_env_close(&c->env);
        goto err;
    }
    *out = c;
    return 0;
err:
    free(c);
    return -1;
}

int checkpoint_attach(struct checkpoint *c, uv_loop_t *loop)
{
    CHECK(c->loop == NULL);
    c->loop = loop;
    return checkpoint_writer_start(c);
}

static void async_closed_cb(uv_handle_t *handle)
{
    struct checkpoint *c = handle->data;
    void (*closed)(void *) = c->closed;
    void *ctx = c->closed_ctx;
    for (size_t i = 0; i < CHECKPOINT_READERS_MAX; i++) {
        pthread_mutex_destroy(&c->pins[i].lock);
    }
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->figures_lock);
    free(c);
    if (closed != NULL) {
        closed(ctx);
    }
}

void checkpoint_close(struct checkpoint *c, void (*done)(void *ctx), void *ctx)
{
    c->closed = done;
    c->closed_ctx = ctx;
    checkpoint_writer_stop(c);
    pthread_mutex_lock(&c->lock);
    checkpoint_drop_pins(c);
    checkpoint_env_close(&c->env);
    pthread_mutex_unlock(&c->lock);
    uv_close((uv_handle_t *)&c->async, async_closed_cb);
}

void checkpoint_note(struct checkpoint *c)
{
    pthread_mutex_lock(&c->figures_lock);
    c->figures.meta = c->meta;
    c->figures.has_meta = c->has_meta;
    c->figures.generation = c->env.generation;
    c->figures.map_size = checkpoint_env_map_size(&c->env);
    c->figures.used_size = checkpoint_env_used(&c->env);
    pthread_mutex_unlock(&c->figures_lock);
}

bool checkpoint_get_meta(struct checkpoint *c, struct checkpoint_meta *meta)
{
    pthread_mutex_lock(&c->figures_lock);
    bool has = c->figures.has_meta;
    if (has) {
        *meta = c->figures.meta;
    }
    pthread_mutex_unlock(&c->figures_lock);
    return has;
}

int checkpoint_load(struct checkpoint *c, checkpoint_block_cb put, void *ctx)
{
    char name[CHECKPOINT_NAME_SIZE], path[CHECKPOINT_PATH_SIZE];
    struct checkpoint_meta meta;
    checkpoint_generation_name(c->env.generation, false, name);
    checkpoint_generation_path(c, name, path);
    return checkpoint_env_walk(&c->env, path, put, ctx, &meta);
}

void checkpoint_get_stats(struct checkpoint *c, struct checkpoint_stats *s)
{
    *s = (struct checkpoint_stats){.taken_total = c->taken_total,
                                   .failed_total = c->failed_total,
                                   .last_records = c->last_records,
                                   .last_bytes = c->last_bytes,
                                   .last_duration_ns = c->last_duration_ns,
                                   .last_success_wall_ms = c->last_success_wall_ms};
    pthread_mutex_lock(&c->queue_lock);
    s->queued = c->queued;
    pthread_mutex_unlock(&c->queue_lock);
    pthread_mutex_lock(&c->figures_lock);
    if (pthread_mutex_trylock(&c->lock) == 0) {
        c->figures.pins = 0;
        for (size_t i = 0; i < CHECKPOINT_READERS_MAX; i++) {
            c->figures.pins += c->pins[i].txn != NULL ? 1 : 0;
        }
        pthread_mutex_unlock(&c->lock);
    }
    s->generation = c->figures.generation;
    s->map_size = c->figures.map_size;
    s->used_size = c->figures.used_size;
    s->pins = c->figures.pins;
    if (s->last_success_wall_ms == 0 && c->figures.has_meta) {
        s->last_success_wall_ms = c->figures.meta.written_wall_ms;
    }
    pthread_mutex_unlock(&c->figures_lock);
}
