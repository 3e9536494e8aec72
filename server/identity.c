#include "server/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "server/options.h"

#define PATH_SIZE   4096
#define TEXT_SIZE   256
#define FORMAT_LINE     "holdfast-node 1"
#define STATE_NEW       "state new\n"
#define STATE_REFILLING "state refilling\n"
#define STATE_REMOVED   "state removed\n"

static int fail(const char *path, const char *what)
{
    log_error("%s: %s", path, what);
    return -1;
}

static int sync_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rv = fd < 0 ? -1 : fsync(fd);
    if (fd >= 0) {
        close(fd);
    }
    return rv;
}

static int make_directory(const char *directory)
{
    char parent[PATH_SIZE];
    if (mkdir(directory, 0700) < 0) {
        return errno == EEXIST ? 0 : fail(directory, strerror(errno));
    }
    snprintf(parent, sizeof parent, "%s/..", directory);
    return sync_directory(parent) < 0 ? fail(directory, strerror(errno)) : 0;
}

static int lock_directory(const char *directory)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/lock", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600); /* open until the process ends */
    if (fd < 0) {
        return fail(path, strerror(errno));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return fail(path, "another process uses this data directory; stop it first");
    }
    return 0;
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
    bool ok = write(fd, text, size) == (ssize_t)size && fsync(fd) == 0;
    int error = errno;
    if (close(fd) < 0 || !ok || rename(temporary, path) < 0 || sync_directory(directory) < 0) {
        return fail(path, strerror(ok ? errno : error));
    }
    return 0;
}

/* Paths of a data directory and the text of its identity, without a state. */
struct identity {
    char path[PATH_SIZE], text[TEXT_SIZE], cluster[CLUSTER_ID_TEXT_SIZE];
};

static int describe(struct identity *i, const char *directory, uint64_t node_id,
                    const uint8_t cluster_id[static LINK_CLUSTER_ID_SIZE])
{
    if (strlen(directory) >= PATH_SIZE - 32) {
        return fail(directory, "the path is too long");
    }
    cluster_id_format(cluster_id, i->cluster);
    snprintf(i->path, sizeof i->path, "%s/identity", directory);
    snprintf(i->text, sizeof i->text, FORMAT_LINE "\nid %llu\ncluster %s\n",
             (unsigned long long)node_id, i->cluster);
    return 0;
}

static int write_state(const struct identity *i, const char *directory, enum identity_state state)
{
    char text[TEXT_SIZE + sizeof STATE_REFILLING];
    snprintf(text, sizeof text, "%s%s", i->text,
             state == IDENTITY_NEW         ? STATE_NEW
             : state == IDENTITY_REFILLING ? STATE_REFILLING
                                           : "");
    return write_identity(directory, i->path, text);
}

/* Without an identity there must be nothing else: what is there belonged to a node that has lost it. */
static int create(const struct identity *i, const char *directory, bool new_cluster,
                  enum identity_state *state)
{
    static const char *const parts[] = {"log", "checkpoint"};
    for (size_t k = 0; k < ARRAY_COUNT(parts); k++) {
        char part[PATH_SIZE];
        struct stat unused;
        snprintf(part, sizeof part, "%s/%s", directory, parts[k]);
        if (stat(part, &unused) == 0) {
            log_error("%s: is there, but %s is missing: part of the data directory was lost. Move the "
                      "whole directory away and start without --new-cluster: the node refills from "
                      "its peers",
                      part, i->path);
            return -1;
        }
    }
    *state = new_cluster ? IDENTITY_NEW : IDENTITY_REFILLING;
    return write_state(i, directory, *state);
}

int identity_claim(const char *directory, uint64_t node_id,
                   const uint8_t cluster_id[static LINK_CLUSTER_ID_SIZE], bool new_cluster,
                   enum identity_state *state)
{
    struct identity i;
    char found[TEXT_SIZE];
    if (describe(&i, directory, node_id, cluster_id) < 0 || make_directory(directory) < 0 ||
        lock_directory(directory) < 0) {
        return -1;
    }
    FILE *f = fopen(i.path, "re");
    if (f == NULL) {
        return errno == ENOENT ? create(&i, directory, new_cluster, state)
                               : fail(i.path, strerror(errno));
    }
    size_t size = fread(found, 1, sizeof found - 1, f);
    fclose(f);
    found[size] = '\0';
    if (strncmp(found, i.text, strlen(i.text)) == 0) {
        const char *rest = found + strlen(i.text);
        if (*rest == '\0' || strcmp(rest, STATE_NEW) == 0 || strcmp(rest, STATE_REFILLING) == 0) {
            *state = *rest == '\0'                  ? IDENTITY_MEMBER
                     : strcmp(rest, STATE_NEW) == 0 ? IDENTITY_NEW
                                                    : IDENTITY_REFILLING;
            return 0;
        }
        if (strcmp(rest, STATE_REMOVED) == 0) {
            log_error("%s: node %llu was removed from its cluster. Move the whole data directory away "
                      "and add the node anew (holdfastctl member add)",
                      directory, (unsigned long long)node_id);
            return -1;
        }
        log_error("%s: has a line that this version does not know: '%.*s'; use the version that wrote "
                  "it",
                  i.path, (int)strcspn(rest, "\n"), rest);
        return -1;
    }
    found[strcspn(found, "\n")] = '\0';
    if (strcmp(found, FORMAT_LINE) != 0) {
        log_error("%s: is not of format '%s'; use the version that wrote it, or another --data-dir",
                  i.path, FORMAT_LINE);
    } else {
        log_error(
            "%s: this data directory is of another node or cluster than --id %llu --cluster-id %s; "
            "use the right --data-dir",
            i.path, (unsigned long long)node_id, i.cluster);
    }
    return -1;
}

int identity_settle(const char *directory, uint64_t node_id,
                    const uint8_t cluster_id[static LINK_CLUSTER_ID_SIZE])
{
    struct identity i;
    return describe(&i, directory, node_id, cluster_id) < 0
               ? -1
               : write_state(&i, directory, IDENTITY_MEMBER);
}

int identity_remove(const char *directory, uint64_t node_id,
                    const uint8_t cluster_id[static LINK_CLUSTER_ID_SIZE])
{
    struct identity i;
    char text[TEXT_SIZE + sizeof STATE_REMOVED];
    if (describe(&i, directory, node_id, cluster_id) < 0) {
        return -1;
    }
    snprintf(text, sizeof text, "%s%s", i.text, STATE_REMOVED);
    return write_identity(directory, i.path, text);
}
