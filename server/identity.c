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
#define FORMAT_LINE "holdfast-node 1"

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

int identity_claim(const char *directory, uint64_t node_id,
                   const uint8_t cluster_id[static LINK_CLUSTER_ID_SIZE])
{
    char path[PATH_SIZE], cluster[CLUSTER_ID_TEXT_SIZE], want[TEXT_SIZE], found[TEXT_SIZE];
    if (strlen(directory) >= PATH_SIZE - 32) {
        return fail(directory, "the path is too long");
    }
    if (make_directory(directory) < 0 || lock_directory(directory) < 0) {
        return -1;
    }
    cluster_id_format(cluster_id, cluster);
    snprintf(path, sizeof path, "%s/identity", directory);
    snprintf(want, sizeof want, FORMAT_LINE "\nid %llu\ncluster %s\n", (unsigned long long)node_id,
             cluster);
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return errno == ENOENT ? write_identity(directory, path, want)
                               : fail(path, strerror(errno));
    }
    size_t size = fread(found, 1, sizeof found - 1, f);
    fclose(f);
    found[size] = '\0';
    if (strcmp(found, want) == 0) {
        return 0;
    }
    found[strcspn(found, "\n")] = '\0';
    if (strcmp(found, FORMAT_LINE) != 0) {
        log_error("%s: is not of format '%s'; use the version that wrote it, or another --data-dir",
                  path, FORMAT_LINE);
    } else {
        log_error(
            "%s: this data directory is of another node or cluster than --id %llu --cluster-id %s; "
            "use the right --data-dir",
            path, (unsigned long long)node_id, cluster);
    }
    return -1;
}
