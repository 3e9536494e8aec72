/* The cluster key's file. Errors name the file and the cure, never a byte of the key. */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "proto/link.h"

#define KEY_TEXT_SIZE ((size_t)2 * LINK_KEY_SIZE)

static int key_read_open(const char *path, int fd, uint8_t key[static LINK_KEY_SIZE])
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        log_error("cluster key %s: %s", path, strerror(errno));
        return -1;
    }
    if ((st.st_mode & 077) != 0) {
        log_error("cluster key %s: others may read it (mode %03o): chmod 600 it", path,
                  (unsigned)(st.st_mode & 0777));
        return -1;
    }
    char text[KEY_TEXT_SIZE + 2];
    ssize_t n = read(fd, text, sizeof text);
    size_t decoded = 0;
    if (n == (ssize_t)KEY_TEXT_SIZE + 1 && text[KEY_TEXT_SIZE] == '\n') {
        n--;
    }
    int rv = -1;
    if (n == (ssize_t)KEY_TEXT_SIZE &&
        sodium_hex2bin(key, LINK_KEY_SIZE, text, KEY_TEXT_SIZE, NULL, &decoded, NULL) == 0 &&
        decoded == LINK_KEY_SIZE) {
        rv = 0;
    } else {
        log_error("cluster key %s: must be %zu hexadecimal digits and nothing else", path,
                  KEY_TEXT_SIZE);
    }
    sodium_memzero(text, sizeof text);
    return rv;
}

int link_read_key(const char *path, uint8_t key[static LINK_KEY_SIZE])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        log_error("cluster key %s: %s", path, strerror(errno));
        return -1;
    }
    int rv = key_read_open(path, fd, key);
    close(fd);
    return rv;
}
