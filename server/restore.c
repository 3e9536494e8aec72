#include "server/restore.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/failpoint.h"
#include "base/file.h"
#include "proto/order_id.h"
#include "raft/log_seed.h"
#include "server/checkpoint_driver.h"
#include "server/identity.h"
#include "server/options.h"

#define PATH_SIZE 4096

struct restore {
    const struct restore_config *config;
    struct restore_report *report;
    char *error;
    uint8_t cluster_id[LINK_CLUSTER_ID_SIZE];
    struct replica_member members[REPLICA_MEMBERS_MAX];
    uint8_t root[ENGINE_BLOCK_SIZE_MAX]; /* the one block that changes */
    struct engine_block changed;
    struct checkpoint_meta meta;
    struct replica_position position;
    bool made_directory, disk_failed;
    int lock;
    /* while the checkpoint is written */
    uv_loop_t loop;
    struct checkpoint *store;
    struct checkpoint_install *install;
    struct text records;
};

static enum restore_result fail(struct restore *r, enum restore_result result, const char *format,
                                ...) __attribute__((format(printf, 3, 4)));
static enum restore_result fail(struct restore *r, enum restore_result result, const char *format,
                                ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(r->error, SNAPSHOT_ERROR_SIZE, format, arguments);
    va_end(arguments);
    return result;
}

/* ---- arguments ---- */

static enum restore_result check_arguments(struct restore *r)
{
    static const uint8_t zero[LINK_CLUSTER_ID_SIZE];
    const struct restore_config *c = r->config;
    bool self = false;
    if (cluster_id_parse(c->cluster_id, r->cluster_id) < 0 ||
        memcmp(r->cluster_id, zero, sizeof zero) == 0) {
        return fail(r, RESTORE_INVALID, "'%.80s' is not a cluster id: a new UUID, such as uuidgen "
                                        "prints", c->cluster_id);
    }
    if (c->members_count == 0 || c->members_count > REPLICA_MEMBERS_MAX) {
        return fail(r, RESTORE_INVALID, "%zu members: 1 to %d are possible", c->members_count,
                    REPLICA_MEMBERS_MAX);
    }
    for (size_t i = 0; i < c->members_count; i++) {
        struct node_member m;
        if (!node_member_parse(c->members[i], &m)) {
            return fail(r, RESTORE_INVALID, "'%.120s' is not a member: write "
                                            "ID=RAFT_HOST:PORT/NODE_HOST:PORT", c->members[i]);
        }
        r->members[i].id = m.id;
        r->members[i].role = REPLICA_VOTER;
        CHECK(replica_address_join(m.raft_address, m.node_address, r->members[i].address));
        self = self || m.id == c->id;
    }
    if (!self) {
        return fail(r, RESTORE_INVALID, "no member has the id %llu of this node",
                    (unsigned long long)c->id);
    }
    if (log_seed_position(r->members, c->members_count, 1, 1, &r->position) < 0) {
        return fail(r, RESTORE_INVALID, "two members have the same id or the same address");
    }
    if (strlen(c->data_dir) == 0 || strlen(c->data_dir) > PATH_SIZE - 64) {
        return fail(r, RESTORE_INVALID, "'%.80s' is no path of a data directory", c->data_dir);
    }
    return RESTORE_OK;
}

/* ---- the state ---- */

static void keep_root(void *ctx, const struct engine_block *block)
{
    struct restore *r = ctx;
    CHECK(block->size <= sizeof r->root);
    memcpy(r->root, block->data, block->size);
    r->changed = *block;
    r->changed.data = r->root;
}

/* Loads and proves the snapshot, and computes what the new cluster's checkpoint is called. */
static enum restore_result prepare(struct restore *r)
{
    struct snapshot_header *h = &r->report->header;
    struct replica_position old;
    struct engine *e;
    if (snapshot_load(r->config->snapshot, h, NULL, &e, r->error) < 0) {
        return RESTORE_DAMAGED;
    }
    bool known = position_decode(&old, h->position, h->position_size) == 0 && old.term > 0 &&
                 old.index >= h->index && engine_initialized(e);
    if (!known || old.index > ORDER_ID_INDEX_MAX - RESTORE_INDEX_GAP) {
        engine_destroy(e);
        return known ? fail(r, RESTORE_REFUSED,
                            "%s: log index %llu: no indexes are left for another cluster",
                            r->config->snapshot, (unsigned long long)old.index)
                     : fail(r, RESTORE_DAMAGED,
                            "%s: its position in the log is not understood: use the holdfastctl "
                            "of version %s",
                            r->config->snapshot, h->version);
    }
    /* The state's own id is asked, too: both must be another. */
    if (memcmp(h->cluster_id, r->cluster_id, sizeof r->cluster_id) == 0 ||
        memcmp(engine_cluster_id(e), r->cluster_id, sizeof r->cluster_id) == 0) {
        engine_destroy(e);
        return fail(r, RESTORE_REFUSED,
                    "%s is the snapshot's own cluster: a restored cluster needs a new id, or its "
                    "nodes and the old ones would take each other for their own; make one with "
                    "uuidgen",
                    r->config->cluster_id);
    }
    uint64_t index = old.index + RESTORE_INDEX_GAP;
    CHECK(log_seed_position(r->members, r->config->members_count, index, old.term, &r->position) ==
          0);
    engine_rebase(e, r->cluster_id, RESTORE_INDEX_GAP, keep_root, r);
    r->meta = (struct checkpoint_meta){.index = h->index,
                                       .term = old.term,
                                       .digest = engine_digest(e),
                                       .time_ms = h->time_ms,
                                       .blocks_count = h->blocks_count};
    r->meta.position_size = (uint32_t)position_encode(&r->position, r->meta.position);
    r->report->first_index = index + 1;
    r->report->digest = r->meta.digest;
    engine_destroy(e);
    return RESTORE_OK;
}

/* ---- the directory ---- */

static bool is_empty(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *entry;
    bool empty = d != NULL;
    while (d != NULL && (entry = readdir(d)) != NULL) {
        empty = empty && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
    }
    if (d != NULL) {
        closedir(d);
    }
    return empty;
}

static enum restore_result refuse_directory(struct restore *r)
{
    return fail(r, RESTORE_REFUSED, "%s: is not an empty directory: nothing is restored over what "
                                    "is there; give another --data-dir, or move it away",
                r->config->data_dir);
}

/* The lock that holdfastd takes, too: neither it nor a second restore gets in between. */
static enum restore_result claim(struct restore *r)
{
    const char *dir = r->config->data_dir;
    char path[PATH_SIZE];
    r->made_directory = mkdir(dir, 0700) == 0;
    if (!r->made_directory && errno != EEXIST) {
        return fail(r, RESTORE_FAILED, "%s: %s", dir, strerror(errno));
    }
    if (!r->made_directory && !is_empty(dir)) {
        return refuse_directory(r);
    }
    snprintf(path, sizeof path, "%s/..", dir);
    if (r->made_directory && file_sync(path) < 0) {
        return fail(r, RESTORE_FAILED, "%s: %s", path, strerror(errno));
    }
    r->lock = identity_lock(dir, true);
    return r->lock >= 0 ? RESTORE_OK
                        : fail(r, RESTORE_REFUSED, "%s: cannot be locked: see above", dir);
}

static int remove_cb(const char *path, const struct stat *st, int type, struct FTW *walk)
{
    (void)st;
    (void)type;
    (void)walk;
    return remove(path);
}

/* Of a restore that failed: only what it made. */
static void clean_up(struct restore *r)
{
    static const char *const parts[] = {"identity", "identity.tmp", "log", "checkpoint", "lock"};
    char path[PATH_SIZE];
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        snprintf(path, sizeof path, "%s/%s", r->config->data_dir, parts[i]);
        (void)nftw(path, remove_cb, 8, FTW_DEPTH | FTW_PHYS);
    }
    if (r->made_directory) {
        (void)rmdir(r->config->data_dir);
    }
}

/* ---- the checkpoint ---- */

static int put_records(struct restore *r)
{
    int rv = checkpoint_install_put(r->install, r->records.data, r->records.len,
                                    crc32c(0, r->records.data, r->records.len));
    text_clear(&r->records);
    r->disk_failed = r->disk_failed || rv < 0;
    return rv;
}

static enum restore_result disk_failed(struct restore *r)
{
    return fail(r, RESTORE_FAILED, "%s: the checkpoint cannot be written: see above",
                r->config->data_dir);
}

static int copy_cb(void *ctx, const struct engine_block *block)
{
    struct restore *r = ctx;
    bool root = block->table == r->changed.table && block->number == r->changed.number;
    const struct engine_block *b = root ? &r->changed : block;
    uint32_t head[3] = {b->table, b->number, b->size};
    text_append(&r->records, head, sizeof head);
    text_append(&r->records, b->data, b->size);
    return r->records.len >= (1u << 20) ? put_records(r) : 0;
}

static int load_cb(void *ctx, const struct engine_block *block)
{
    return engine_load_block(ctx, block);
}

/* The blocks go from the file into a generation of the store, then into an engine again. */
static enum restore_result copy(struct restore *r)
{
    struct snapshot_reader *reader;
    struct snapshot_header again;
    if (checkpoint_install_begin(r->store, NULL, &r->install) < 0) {
        r->install = NULL;
        return disk_failed(r);
    }
    if (snapshot_reader_open(r->config->snapshot, &reader, &again, r->error) < 0) {
        return RESTORE_DAMAGED;
    }
    int rv = checkpoint_install_put_meta(r->install, &r->meta);
    if (rv == 0) {
        rv = snapshot_reader_blocks(reader, copy_cb, r, r->error);
    }
    snapshot_reader_close(reader);
    if (rv == 0 && r->records.len > 0) {
        rv = put_records(r);
    }
    if (rv < 0) {
        return r->disk_failed ? disk_failed(r) : RESTORE_DAMAGED;
    }
    struct engine *e = engine_create();
    struct checkpoint_meta meta;
    rv = checkpoint_install_verify(r->install, load_cb, e, &meta);
    rv = rv == 0 ? engine_load_finish(e, r->meta.index, r->meta.digest) : rv;
    engine_destroy(e);
    if (rv == 0) {
        rv = checkpoint_install_commit(r->install);
        r->install = rv == 0 ? NULL : r->install;
    }
    return rv == 0 ? RESTORE_OK
                   : fail(r, RESTORE_FAILED, "%s: what was written is not what was read: is the "
                                             "disk well, and the snapshot not being changed?",
                          r->config->data_dir);
}

static enum restore_result write_checkpoint(struct restore *r)
{
    struct checkpoint_config config = {.loop = &r->loop, .directory = r->config->data_dir};
    CHECK(uv_loop_init(&r->loop) == 0);
    enum restore_result result;
    if (checkpoint_open(&config, &r->store) < 0) {
        result = fail(r, RESTORE_FAILED, "%s: the checkpoint cannot be made: see above",
                      r->config->data_dir);
    } else {
        result = copy(r);
        if (r->install != NULL) {
            checkpoint_install_abort(r->install);
        }
        checkpoint_close(r->store, NULL, NULL);
    }
    uv_run(&r->loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&r->loop) == 0);
    text_close(&r->records);
    return result;
}

/* ---- all of it ---- */

static enum restore_result make(struct restore *r)
{
    char path[PATH_SIZE];
    const struct restore_config *c = r->config;
    enum restore_result result = write_checkpoint(r);
    if (result != RESTORE_OK) {
        return result;
    }
    snprintf(path, sizeof path, "%s/log", c->data_dir);
    FAILPOINT("restore/before-log", "the checkpoint is restored, there is no log");
    if (log_seed(path, c->id, r->cluster_id, r->position.index, r->position.term) < 0) {
        return fail(r, RESTORE_FAILED, "%s: the log cannot be made: see above", path);
    }
    struct identity identity = {.node_id = c->id, .state = IDENTITY_MEMBER};
    memcpy(identity.cluster_id, r->cluster_id, sizeof identity.cluster_id);
    FAILPOINT("restore/before-identity", "checkpoint and log are restored, there is no identity");
    if (file_sync(c->data_dir) < 0 || identity_write(c->data_dir, &identity) < 0) {
        return fail(r, RESTORE_FAILED, "%s: its identity cannot be written: see above",
                    c->data_dir);
    }
    return RESTORE_OK;
}

enum restore_result restore_run(const struct restore_config *config, struct restore_report *report,
                                char error[static SNAPSHOT_ERROR_SIZE])
{
    struct restore r = {.config = config, .report = report, .error = error, .lock = -1};
    enum restore_result result = check_arguments(&r);
    if (result != RESTORE_OK) {
        return result;
    }
    struct stat st;
    if (lstat(config->data_dir, &st) == 0 && !is_empty(config->data_dir)) {
        return refuse_directory(&r); /* cheaper before gigabytes are read */
    }
    result = prepare(&r);
    if (result != RESTORE_OK) {
        return result;
    }
    result = claim(&r);
    if (result == RESTORE_OK) {
        result = make(&r);
        if (result != RESTORE_OK) {
            clean_up(&r);
        }
        close(r.lock);
    }
    return result;
}
