#include "server/data_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/advice.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "raft/replica_verify.h"
#include "server/checkpoint_driver.h"
#include "server/options.h"

#define PATH_SIZE 4096

const char *data_dir_part_name(enum data_dir_part part)
{
    static const char *const names[] = {"identity", "checkpoint", "log"};
    CHECK(part < DATA_DIR_PARTS);
    return names[part];
}

void data_dir_cluster_text(const uint8_t id[static LINK_CLUSTER_ID_SIZE],
                           char out[static DATA_DIR_CLUSTER_TEXT_SIZE])
{
    _Static_assert(DATA_DIR_CLUSTER_TEXT_SIZE == CLUSTER_ID_TEXT_SIZE, "the same text");
    cluster_id_format(id, out);
}

int data_dir_judge_state(const char *directory, struct engine *engine,
                         const struct checkpoint_meta *meta, struct replica_position *position)
{
    if (engine_load_finish(engine, meta->index, meta->digest) < 0) {
        log_error("%s/checkpoint/gen-…/data.mdb: the state does not match its digest: a page is of another "
                  "time, or damaged, or it was written by another version. " ADVICE_REBUILD,
                  directory);
        return -1;
    }
    if (position_decode(position, meta->position, meta->position_size) < 0) {
        log_error("%s/checkpoint/gen-…/data.mdb: its position in the log is damaged. " ADVICE_REBUILD,
                  directory);
        return -1;
    }
    return 0;
}

/* ---- verify ---- */

/* The first error that a part logs is what is wrong with it; what follows from it adds nothing. */
struct capture {
    char *text;
    size_t size;
};

static void sink_cb(void *ctx, enum log_level level, const char *message)
{
    struct capture *c = ctx;
    size_t used = strlen(c->text);
    if (level == LOG_LEVEL_ERROR && used + 2 < c->size) {
        snprintf(c->text + used, c->size - used, "%s%s", used > 0 ? "\n" : "", message);
    }
}

static void verify_identity(const char *directory, struct data_dir_report *r)
{
    char *detail = r->details[DATA_DIR_IDENTITY];
    size_t size = sizeof r->details[DATA_DIR_IDENTITY];
    static const char *const states[] = {[IDENTITY_MEMBER] = "member",
                                         [IDENTITY_NEW] = "of a new cluster, not yet begun",
                                         [IDENTITY_REFILLING] = "refilling"};
    int rv = identity_read(directory, &r->identity);
    if (rv == 1) {
        log_error("%s/identity: is missing. " ADVICE_REBUILD, directory);
    }
    r->states[DATA_DIR_IDENTITY] = rv == 0 ? DATA_DIR_WHOLE : DATA_DIR_DAMAGED;
    if (rv == 0) {
        snprintf(detail, size, "node %llu, %s", (unsigned long long)r->identity.node_id,
                 states[r->identity.state]);
    }
}

static int load_cb(void *ctx, const struct engine_block *block)
{
    return engine_load_block(ctx, block);
}

/* Returns whether there is a checkpoint. */
static bool verify_checkpoint(const char *directory, struct data_dir_report *r,
                              struct replica_position *position)
{
    char *detail = r->details[DATA_DIR_CHECKPOINT];
    size_t size = sizeof r->details[DATA_DIR_CHECKPOINT];
    struct checkpoint_meta meta;
    struct checkpoint_config config = {.directory = directory};
    if (r->states[DATA_DIR_IDENTITY] == DATA_DIR_WHOLE) {
        config.node_id = r->identity.node_id;
        memcpy(config.cluster_id, r->identity.cluster_id, sizeof config.cluster_id);
    }
    struct engine *engine = engine_create();
    int rv = checkpoint_inspect(&config, load_cb, engine, &meta);
    if (rv == 1 && data_dir_judge_state(directory, engine, &meta, position) < 0) {
        rv = -1;
    }
    engine_destroy(engine);
    r->states[DATA_DIR_CHECKPOINT] = rv >= 0 ? DATA_DIR_WHOLE : DATA_DIR_DAMAGED;
    if (rv == 1) {
        r->checkpoint_index = position->index;
        r->checkpoint_digest = meta.digest;
        snprintf(detail, size, "index %llu, %llu blocks, digest %016llx",
                 (unsigned long long)position->index, (unsigned long long)meta.blocks_count,
                 (unsigned long long)meta.digest);
    } else if (rv == 0) {
        snprintf(detail, size, "none yet");
    }
    return rv == 1;
}

static void verify_log(const char *directory, struct data_dir_report *r,
                       const struct replica_position *position)
{
    static const enum replica_start starts[] = {[IDENTITY_MEMBER] = REPLICA_MEMBER,
                                                [IDENTITY_NEW] = REPLICA_NEW,
                                                [IDENTITY_REFILLING] = REPLICA_REFILL};
    char path[PATH_SIZE + 8];
    struct replica_verdict v;
    snprintf(path, sizeof path, "%s/log", directory);
    struct replica_config config = {
        .id = r->identity.node_id, .directory = path, .start = starts[r->identity.state]};
    memcpy(config.identity.cluster_id, r->identity.cluster_id, sizeof config.identity.cluster_id);
    if (replica_verify(&config, position, &v) < 0) {
        r->states[DATA_DIR_LOG] = DATA_DIR_DAMAGED;
        return;
    }
    r->states[DATA_DIR_LOG] = DATA_DIR_WHOLE;
    r->term = v.term;
    r->vote = v.vote;
    r->base_index = v.base_index;
    r->last_index = v.last_index;
    r->last_term = v.last_term;
    r->torn_bytes = v.torn_bytes;
    snprintf(r->details[DATA_DIR_LOG], sizeof r->details[DATA_DIR_LOG],
             "entries %llu to %llu, term %llu, vote %llu%s", (unsigned long long)v.base_index + 1,
             (unsigned long long)v.last_index, (unsigned long long)v.term,
             (unsigned long long)v.vote,
             v.torn_bytes > 0 ? "; an incomplete last write is left out" : "");
}

/* What a part logs belongs into its detail. */
static void capture(struct data_dir_report *r, enum data_dir_part part, struct capture *c)
{
    *c = (struct capture){r->details[part], sizeof r->details[part]};
    log_set_sink(sink_cb, c);
}

static enum data_dir_result lock(const char *directory, bool create, int *fd)
{
    struct stat st;
    char ignored[PATH_SIZE];
    ignored[0] = '\0';
    struct capture c = {ignored, sizeof ignored};
    *fd = -1;
    if (strlen(directory) >= PATH_SIZE - 64 || stat(directory, &st) < 0 || !S_ISDIR(st.st_mode)) {
        return DATA_DIR_NONE;
    }
    log_set_sink(sink_cb, &c);
    *fd = identity_lock(directory, create);
    log_set_sink(NULL, NULL);
    return *fd == -1 ? DATA_DIR_IN_USE : DATA_DIR_OK;
}

bool data_dir_in_use(const char *directory)
{
    int fd;
    if (lock(directory, false, &fd) == DATA_DIR_IN_USE) {
        return true;
    }
    if (fd >= 0) {
        close(fd);
    }
    return false;
}

static bool is_empty(const char *directory)
{
    static const char *const parts[] = {"identity", "log", "checkpoint"};
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        char path[PATH_SIZE];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", directory, parts[i]);
        if (lstat(path, &st) == 0) {
            return false;
        }
    }
    return true;
}

enum data_dir_result data_dir_verify(const char *directory, struct data_dir_report *r)
{
    int fd;
    struct capture c;
    struct replica_position position;
    memset(r, 0, sizeof *r);
    enum data_dir_result result = lock(directory, false, &fd);
    if (result != DATA_DIR_OK) {
        return result;
    }
    if (is_empty(directory)) {
        result = DATA_DIR_NONE;
        goto out;
    }
    capture(r, DATA_DIR_IDENTITY, &c);
    verify_identity(directory, r);
    capture(r, DATA_DIR_CHECKPOINT, &c);
    bool has_checkpoint = verify_checkpoint(directory, r, &position);
    if (r->states[DATA_DIR_IDENTITY] == DATA_DIR_WHOLE &&
        r->states[DATA_DIR_CHECKPOINT] == DATA_DIR_WHOLE) {
        capture(r, DATA_DIR_LOG, &c);
        verify_log(directory, r, has_checkpoint ? &position : NULL);
    } else {
        r->states[DATA_DIR_LOG] = DATA_DIR_UNKNOWN;
        snprintf(r->details[DATA_DIR_LOG], sizeof r->details[DATA_DIR_LOG],
                 "not judged: it is joined with what is damaged. 'holdfastctl log inspect %s' looks at it "
                 "alone",
                 directory);
    }
    log_set_sink(NULL, NULL);
    for (int i = 0; i < DATA_DIR_PARTS; i++) {
        result = r->states[i] == DATA_DIR_WHOLE ? result : DATA_DIR_BAD;
    }
out:
    if (fd >= 0) {
        close(fd);
    }
    return result;
}

/* ---- rebuild ---- */

static int sync_path(const char *path)
{
    if (file_sync(path) < 0) {
        log_error("%s: %s", path, strerror(errno));
        return -1;
    }
    return 0;
}

/* A mount point, or a directory whose parent is not ours: what is in it goes one deeper. */
static int move_contents(const char *directory, const char *to)
{
    struct dirent *entry;
    if (mkdir(to, 0700) < 0) {
        log_error("%s: %s", to, strerror(errno));
        return -1;
    }
    DIR *d = opendir(directory);
    if (d == NULL) {
        log_error("%s: %s", directory, strerror(errno));
        return -1;
    }
    int rv = 0;
    /* The identity first: with what is left the node cannot start, whenever this ends. */
    char from[PATH_SIZE + 300], target[PATH_SIZE + 300];
    snprintf(from, sizeof from, "%s/identity", directory);
    snprintf(target, sizeof target, "%s/identity", to);
    if (rename(from, target) < 0 && errno != ENOENT) {
        log_error("%s: %s", from, strerror(errno));
        rv = -1;
    }
    while (rv == 0 && (entry = readdir(d)) != NULL) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "lock") == 0 ||
            strncmp(name, "damaged-", 8) == 0) {
            continue;
        }
        snprintf(from, sizeof from, "%s/%s", directory, name);
        snprintf(target, sizeof target, "%s/%s", to, name);
        if (rename(from, target) < 0) {
            log_error("%s: %s", from, strerror(errno));
            rv = -1;
        }
    }
    closedir(d);
    return rv == 0 ? sync_path(to) : rv;
}

enum data_dir_result data_dir_rebuild(const char *given, int64_t wall_ms, char *moved_to,
                                      size_t moved_to_size, bool *has_identity)
{
    char directory[PATH_SIZE], when[CLOCK_RFC3339_SIZE], parent[PATH_SIZE + 4];
    struct identity identity;
    struct stat st;
    char ignored[256] = "";
    struct capture c = {ignored, sizeof ignored};
    int fd;
    str_copy(directory, sizeof directory, str_from(given));
    for (size_t n = strlen(directory); n > 1 && directory[n - 1] == '/'; n--) {
        directory[n - 1] = '\0';
    }
    enum data_dir_result result = lock(directory, true, &fd);
    if (result != DATA_DIR_OK) {
        return result;
    }
    if (is_empty(directory)) {
        close(fd);
        return DATA_DIR_NONE;
    }
    log_set_sink(sink_cb, &c);
    *has_identity = identity_read(directory, &identity) == 0;
    log_set_sink(NULL, NULL);

    clock_format_rfc3339(wall_ms, when);
    snprintf(parent, sizeof parent, "%s/..", directory);
    CHECK(stat(directory, &st) == 0);
    int n = snprintf(moved_to, moved_to_size, "%s.damaged-%s", directory, when);
    CHECK(n > 0);
    CHECK((size_t)n < moved_to_size);
    int rv = 0;
    if (rename(directory, moved_to) == 0) {
        rv = mkdir(directory, st.st_mode & 0777);
        if (rv == 0 && geteuid() == 0) {
            rv = chown(directory, st.st_uid, st.st_gid);
        }
        if (rv < 0) {
            log_error("%s: %s", directory, strerror(errno));
        }
    } else if (errno == EBUSY || errno == EACCES || errno == EPERM || errno == EXDEV ||
               errno == EINVAL || errno == EROFS) {
        snprintf(moved_to, moved_to_size, "%s/damaged-%s", directory, when);
        rv = move_contents(directory, moved_to);
    } else {
        log_error("%s: %s", moved_to, strerror(errno));
        rv = -1;
    }
    if (rv == 0 && *has_identity) {
        identity.state = IDENTITY_REFILLING;
        rv = identity_write(directory, &identity);
    }
    if (rv == 0 && geteuid() == 0) { /* the node may run as another user */
        char path[PATH_SIZE + 16];
        snprintf(path, sizeof path, "%s/identity", directory);
        if (*has_identity && chown(path, st.st_uid, st.st_gid) < 0) {
            log_error("%s: %s", path, strerror(errno));
            rv = -1;
        }
    }
    if (rv == 0) {
        rv = sync_path(directory) < 0 || sync_path(parent) < 0 ? -1 : 0;
    }
    close(fd);
    return rv == 0 ? DATA_DIR_OK : DATA_DIR_BAD;
}
