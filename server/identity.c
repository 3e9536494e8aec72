#include "server/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/advice.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "base/failpoint.h"
#include "base/file.h"
#include "base/log.h"
#include "server/options.h"

#define PATH_SIZE   4096
#define TEXT_SIZE   256
#define FORMAT_LINE     "holdfast-node 2"
#define FORMAT_LINE_1   "holdfast-node 1" /* without a checksum: read, and written anew */
#define STATE_NEW       "state new\n"
#define STATE_REFILLING "state refilling\n"
#define STATE_REMOVED   "state removed\n"

static int fail(const char *path, const char *what)
{
    log_error("%s: %s", path, what);
    return -1;
}

static int make_directory(const char *directory)
{
    char parent[PATH_SIZE];
    if (mkdir(directory, 0700) < 0) {
        return errno == EEXIST ? 0 : fail(directory, strerror(errno));
    }
    snprintf(parent, sizeof parent, "%s/..", directory);
    return file_sync(parent) < 0 ? fail(directory, strerror(errno)) : 0;
}

int identity_lock(const char *directory, bool create)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/lock", directory);
    int fd = open(path, (create ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC, 0600);
    if (fd < 0) {
        return !create && errno == ENOENT ? IDENTITY_LOCK_NONE : fail(path, strerror(errno));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return fail(path, "another process uses this data directory; stop it first");
    }
    return fd;
}

static int write_identity(const char *directory, const char *path, const char *text)
{
    char temporary[PATH_SIZE + 8];
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return fail(temporary, strerror(errno));
    }
    size_t size = strlen(text);
    bool ok = FAILPOINT_WRITE("identity/before-write", "identity.tmp is empty", fd, text, size, -1) == 0 &&
              write(fd, text, size) == (ssize_t)size &&
              FAILPOINT_ERROR("identity/before-sync", "identity.tmp is written, not synced") == 0 &&
              fsync(fd) == 0;
    int error = errno;
    if (close(fd) < 0 || !ok ||
        FAILPOINT_ERROR("identity/before-rename", "identity.tmp is durable, the old one counts") < 0 ||
        rename(temporary, path) < 0 ||
        FAILPOINT_ERROR("identity/after-rename", "the new identity counts, not durable") < 0 ||
        file_sync(directory) < 0) {
        return fail(path, strerror(ok ? errno : error));
    }
    return 0;
}

static const char *state_line(enum identity_state state)
{
    return state == IDENTITY_NEW         ? STATE_NEW
           : state == IDENTITY_REFILLING ? STATE_REFILLING
           : state == IDENTITY_REMOVED   ? STATE_REMOVED
                                         : "";
}

static int identity_path(const char *directory, char path[static PATH_SIZE])
{
    if (strlen(directory) >= PATH_SIZE - 32) {
        return fail(directory, "the path is too long");
    }
    snprintf(path, PATH_SIZE, "%s/identity", directory);
    return 0;
}

int identity_write(const char *directory, const struct identity *i)
{
    char path[PATH_SIZE], cluster[CLUSTER_ID_TEXT_SIZE], text[TEXT_SIZE];
    if (identity_path(directory, path) < 0) {
        return -1;
    }
    cluster_id_format(i->cluster_id, cluster);
    int n = snprintf(text, sizeof text, FORMAT_LINE "\nid %llu\ncluster %s\n%s",
                     (unsigned long long)i->node_id, cluster, state_line(i->state));
    CHECK(n > 0);
    CHECK((size_t)n < sizeof text - 16);
    snprintf(text + n, sizeof text - (size_t)n, "crc32c %08x\n", crc32c(0, text, (size_t)n));
    return write_identity(directory, path, text);
}

/* ---- reading ---- */

/* Takes the text up to the end of a line off *at; false: there is no whole line. */
static bool take_line(const char **at, char *line, size_t size)
{
    const char *end = strchr(*at, '\n');
    if (end == NULL || (size_t)(end - *at) >= size) {
        return false;
    }
    memcpy(line, *at, (size_t)(end - *at));
    line[end - *at] = '\0';
    *at = end + 1;
    return true;
}

static int damaged(const char *path, const char *text, const char *at, const char *what)
{
    log_error("%s offset %zu: %s: it is damaged. " ADVICE_REBUILD, path, (size_t)(at - text), what);
    return -1;
}

static int parse(const char *path, const char *text, struct identity *i)
{
    const char *at = text;
    char line[TEXT_SIZE];
    if (!take_line(&at, line, sizeof line)) {
        return damaged(path, text, text, "no format line");
    }
    i->format = strcmp(line, FORMAT_LINE) == 0 ? 2 : strcmp(line, FORMAT_LINE_1) == 0 ? 1 : 0;
    if (i->format == 0) {
        for (char *c = line; *c != '\0'; c++) {
            *c = *c >= ' ' && *c <= '~' ? *c : '?';
        }
        log_error("%s offset 0: '%.32s' is no format of this version (" FORMAT_LINE "): written by a "
                  "later version, or damaged. Use the version that wrote it. " ADVICE_REBUILD,
                  path, line);
        return -1;
    }
    const char *begin = at;
    char *end;
    if (!take_line(&at, line, sizeof line) || strncmp(line, "id ", 3) != 0 || line[3] < '0' ||
        line[3] > '9' || (i->node_id = strtoull(line + 3, &end, 10)) == 0 || *end != '\0') {
        return damaged(path, text, begin, "no line with the node's id");
    }
    begin = at;
    if (!take_line(&at, line, sizeof line) || strncmp(line, "cluster ", 8) != 0 ||
        cluster_id_parse(line + 8, i->cluster_id) < 0) {
        return damaged(path, text, begin, "no line with the cluster's id");
    }
    i->state = IDENTITY_MEMBER;
    if (strncmp(at, STATE_NEW, strlen(STATE_NEW)) == 0) {
        i->state = IDENTITY_NEW;
    } else if (strncmp(at, STATE_REFILLING, strlen(STATE_REFILLING)) == 0) {
        i->state = IDENTITY_REFILLING;
    } else if (strncmp(at, STATE_REMOVED, strlen(STATE_REMOVED)) == 0) {
        i->state = IDENTITY_REMOVED;
    }
    at += strlen(state_line(i->state));
    if (i->format == 2) {
        char expected[32];
        snprintf(expected, sizeof expected, "crc32c %08x\n",
                 crc32c(0, text, (size_t)(at - text)));
        if (strncmp(at, expected, strlen(expected)) != 0) {
            return damaged(path, text, at, "does not match its checksum");
        }
        at += strlen(expected);
    }
    return *at == '\0' ? 0 : damaged(path, text, at, "a line that this version does not know");
}

int identity_read(const char *directory, struct identity *i)
{
    char path[PATH_SIZE], text[TEXT_SIZE];
    *i = (struct identity){0};
    if (identity_path(directory, path) < 0) {
        return -1;
    }
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return errno == ENOENT ? 1 : fail(path, strerror(errno));
    }
    size_t size = fread(text, 1, sizeof text - 1, f);
    bool failed = ferror(f) != 0;
    fclose(f);
    if (failed) {
        return fail(path, strerror(EIO));
    }
    text[size] = '\0';
    if (strlen(text) != size) {
        return damaged(path, text, text + strlen(text), "a byte that is no text");
    }
    return parse(path, text, i);
}

/* Without an identity there must be nothing else: what is there belonged to a node that has lost it. */
static int refuse_leftovers(const char *directory)
{
    static const char *const parts[] = {"log", "checkpoint"};
    for (size_t k = 0; k < ARRAY_COUNT(parts); k++) {
        char part[PATH_SIZE];
        struct stat unused;
        snprintf(part, sizeof part, "%s/%s", directory, parts[k]);
        if (stat(part, &unused) == 0) {
            log_error("%s: is there, but %s/identity is missing: part of the data directory was lost. "
                      "Start without --new-cluster afterwards. " ADVICE_REBUILD,
                      part, directory);
            return -1;
        }
    }
    return 0;
}

int identity_claim(const char *directory, uint64_t node_id,
                   const uint8_t cluster_id[static LINK_CLUSTER_ID_SIZE], bool new_cluster,
                   enum identity_state *state)
{
    struct identity i;
    char path[PATH_SIZE], ours[CLUSTER_ID_TEXT_SIZE];
    if (identity_path(directory, path) < 0 || make_directory(directory) < 0 ||
        identity_lock(directory, true) < 0) {
        return -1;
    }
    int rv = identity_read(directory, &i);
    if (rv < 0) {
        return -1;
    }
    if (rv == 0 && (i.node_id != node_id ||
                    memcmp(i.cluster_id, cluster_id, sizeof i.cluster_id) != 0)) {
        cluster_id_format(cluster_id, ours);
        log_error("%s: this data directory is of another node or cluster than --id %llu --cluster-id "
                  "%s; use the right --data-dir",
                  path, (unsigned long long)node_id, ours);
        return -1;
    }
    if (rv == 0 && i.state == IDENTITY_REMOVED) {
        log_error("%s: node %llu was removed from its cluster. Move the whole data directory away and "
                  "add the node anew (holdfastctl member add)",
                  directory, (unsigned long long)node_id);
        return -1;
    }
    if (rv == 0 && i.format == 2) {
        *state = i.state;
        return 0;
    }
    if (rv == 1) {
        if (refuse_leftovers(directory) < 0) {
            return -1;
        }
        i.state = new_cluster ? IDENTITY_NEW : IDENTITY_REFILLING;
    }
    i.node_id = node_id;
    memcpy(i.cluster_id, cluster_id, sizeof i.cluster_id);
    *state = i.state;
    return identity_write(directory, &i);
}

int identity_settle(const char *directory, uint64_t node_id,
                    const uint8_t cluster_id[static LINK_CLUSTER_ID_SIZE])
{
    struct identity i = {.node_id = node_id, .state = IDENTITY_MEMBER};
    memcpy(i.cluster_id, cluster_id, sizeof i.cluster_id);
    return identity_write(directory, &i);
}

int identity_remove(const char *directory, uint64_t node_id,
                    const uint8_t cluster_id[static LINK_CLUSTER_ID_SIZE])
{
    struct identity i = {.node_id = node_id, .state = IDENTITY_REMOVED};
    memcpy(i.cluster_id, cluster_id, sizeof i.cluster_id);
    return identity_write(directory, &i);
}
