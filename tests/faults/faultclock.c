/* faultclock: clocks that are wrong on demand, for any program started with
 * LD_PRELOAD=libfaultclock.so.
 *
 * What it owns: clock_gettime, gettimeofday and time, as seen by the program and its libraries.
 * What it refuses: to change how long anything sleeps (timeouts of poll and of condition variables
 * run by the true clocks, as on a host whose clock was set).
 *
 * Happy path: a clock is asked for → the control file named by FAULTCLOCK_CONTROL is read again, at
 * most once in RELOAD_NS → the true clock is changed by what it says:
 *
 *     wall=3600000        the wall clock is ahead by so many ms; at once
 *     wall_ppm=-500       and runs faster by so much from now on
 *     monotonic_ppm=10000 so does the monotonic clock
 *
 * A rate changes from the moment it is read: no clock jumps by it. Failure modes: no control file:
 * nothing is changed. A word that is none of these ends the process with status 99: a test must not
 * pass because of a typing error. Threads: any. */
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define EXPORT    __attribute__((visibility("default")))
#define NS        1000000000ll
#define RELOAD_NS 5000000ll

/* A clock's error grows from `gained_ns` at `since_ns` on the true monotonic clock. */
struct error {
    int64_t ppm, gained_ns, since_ns;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int64_t looked_ns;
static int64_t wall_ms;
static struct error wall_rate, monotonic_rate;

static int64_t true_ns(clockid_t id)
{
    struct timespec t;
    syscall(SYS_clock_gettime, id, &t);
    return t.tv_sec * NS + t.tv_nsec;
}

static int64_t error_at(const struct error *e, int64_t now_ns)
{
    return e->gained_ns + (now_ns - e->since_ns) / 1000000 * e->ppm;
}

static void set_rate(struct error *e, int64_t ppm, int64_t now_ns)
{
    if (ppm != e->ppm) {
        e->gained_ns = error_at(e, now_ns);
        e->since_ns = now_ns;
        e->ppm = ppm;
    }
}

static void obey(const char *word, int64_t now_ns)
{
    long long value;
    char end;
    if (sscanf(word, "wall=%lld%c", &value, &end) == 1) {
        wall_ms = value;
    } else if (sscanf(word, "wall_ppm=%lld%c", &value, &end) == 1) {
        set_rate(&wall_rate, value, now_ns);
    } else if (sscanf(word, "monotonic_ppm=%lld%c", &value, &end) == 1) {
        set_rate(&monotonic_rate, value, now_ns);
    } else {
        static const char text[] = "faultclock: a word of the control file is not understood\n";
        (void)!write(2, text, sizeof text - 1);
        _exit(99);
    }
}

static void reload(int64_t now_ns)
{
    char text[512];
    const char *path = getenv("FAULTCLOCK_CONTROL");
    looked_ns = now_ns;
    int fd = path == NULL ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) {
        return;
    }
    long size = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    if (size < 0) {
        return;
    }
    text[size] = '\0';
    char *rest = text;
    for (char *word; (word = strtok_r(rest, " \n", &rest)) != NULL;) {
        obey(word, now_ns);
    }
}

static bool is_wall(clockid_t id)
{
    return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE;
}

static bool is_monotonic(clockid_t id)
{
    return id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_COARSE || id == CLOCK_MONOTONIC_RAW ||
           id == CLOCK_BOOTTIME;
}

static int64_t told_ns(clockid_t id)
{
    pthread_mutex_lock(&mutex);
    int64_t now_ns = true_ns(CLOCK_MONOTONIC);
    if (looked_ns == 0 || now_ns - looked_ns >= RELOAD_NS) {
        reload(now_ns);
    }
    int64_t told = true_ns(id);
    if (is_wall(id)) {
        told += wall_ms * 1000000 + error_at(&wall_rate, now_ns);
    } else {
        told += error_at(&monotonic_rate, now_ns);
    }
    pthread_mutex_unlock(&mutex);
    return told;
}

EXPORT int clock_gettime(clockid_t id, struct timespec *to)
{
    if (!is_wall(id) && !is_monotonic(id)) {
        return (int)syscall(SYS_clock_gettime, id, to);
    }
    int64_t told = told_ns(id);
    to->tv_sec = told / NS;
    to->tv_nsec = told % NS;
    return 0;
}

EXPORT int gettimeofday(struct timeval *to, void *zone)
{
    (void)zone;
    int64_t told = told_ns(CLOCK_REALTIME);
    to->tv_sec = told / NS;
    to->tv_usec = told % NS / 1000;
    return 0;
}

EXPORT time_t time(time_t *to)
{
    time_t told = told_ns(CLOCK_REALTIME) / NS;
    if (to != NULL) {
        *to = told;
    }
    return told;
}
