/* The socket over which failpoints are listed and set while a program runs. See failpoint.h.
 *
 * A thread of its own that waits for nobody else: it answers also while the loop sleeps in a point. One
 * connection at a time, one line each; who says nothing for SOCKET_PATIENCE_S is hung up on. Whoever may
 * open the socket (mode 0600) may end the program: that is what it is for. */
#include "base/failpoint.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/check.h"

#define LINE_SIZE         512
#define SOCKET_PATIENCE_S 5

/* One line without its end; false: none came. */
static bool read_line(int connection, char line[static LINE_SIZE])
{
    size_t size = 0;
    while (size < LINE_SIZE - 1) {
        ssize_t n = read(connection, line + size, LINE_SIZE - 1 - size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        size += (size_t)n;
        char *end = memchr(line, '\n', size);
        if (end != NULL) {
            *end = '\0';
            return true;
        }
    }
    return false;
}

static void serve(int connection)
{
    char line[LINE_SIZE];
    struct text answer = TEXT_INIT;
    struct timeval patience = {.tv_sec = SOCKET_PATIENCE_S};
    (void)setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    (void)setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (!read_line(connection, line)) {
        return;
    }
    failpoint_command(line, &answer);
    for (size_t at = 0; at < answer.len;) {
        ssize_t n = send(connection, answer.data + at, answer.len - at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break;
        }
        at += (size_t)n;
    }
    text_close(&answer);
}

static void *listen_main(void *arg)
{
    int listener = (int)(intptr_t)arg;
    for (;;) {
        int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection >= 0) {
            serve(connection);
            close(connection);
        } else if (errno != EINTR && errno != ECONNABORTED) {
            usleep(100000); /* no files left, say: it may pass */
        }
    }
    return NULL;
}

/* Signals are for the loop's thread. */
static int start_thread(int listener)
{
    sigset_t all, before;
    pthread_t thread;
    sigfillset(&all);
    CHECK(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    int rv = pthread_create(&thread, NULL, listen_main, (void *)(intptr_t)listener);
    CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    if (rv == 0) {
        pthread_detach(thread);
    }
    return -rv;
}

int failpoint_listen(const char *path, char error[static FAILPOINT_ERROR_SIZE])
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat st;
    if (!str_copy(address.sun_path, sizeof address.sun_path, str_from(path))) {
        snprintf(error, FAILPOINT_ERROR_SIZE, "--failpoint-socket %.200s: longer than %zu bytes", path,
                 sizeof address.sun_path - 1);
        return -1;
    }
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
        (void)unlink(path); /* of a process that is gone */
    }
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rv = listener < 0 ? -errno : 0;
    mode_t mask = umask(0177);
    if (rv == 0 && bind(listener, (const struct sockaddr *)&address, sizeof address) < 0) {
        rv = -errno;
    }
    (void)umask(mask);
    if (rv == 0 && listen(listener, 8) < 0) {
        rv = -errno;
    }
    rv = rv == 0 ? start_thread(listener) : rv;
    if (rv < 0) {
        snprintf(error, FAILPOINT_ERROR_SIZE, "--failpoint-socket %.200s: %s", path, strerror(-rv));
        if (listener >= 0) {
            close(listener);
        }
        return -1;
    }
    return 0;
}
