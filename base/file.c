#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int file_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    int rv = fsync(fd), error = errno;
    close(fd);
    errno = error;
    return rv;
}
