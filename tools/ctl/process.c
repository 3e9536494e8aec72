/* Happy path: fork → the child waits at a gate (a pipe) → the parent reads its start time and has
 * it recorded → opens the gate → the child becomes the program. A second pipe, closed by exec,
 * carries back why it could not. Signals go through a pidfd that is opened before the start time is
 * looked at, so that the process they reach is the one that was checked. */
#include "tools/ctl/process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

#define STOP_POLL_MS 20

void process_sleep_ms(uint64_t ms)
{
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) {
    }
}

/* Reads state and start time. Returns false when there is no such process. */
static bool read_stat(pid_t pid, char *state, uint64_t *start)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t n = read(fd, line, sizeof line - 1);
    close(fd);
    if (n <= 0) {
        return false;
    }
    line[n] = '\0';
    /* The name, in parentheses, may hold anything: fields count from the last one. */
    const char *at = strrchr(line, ')');
    unsigned long long ticks;
    if (at == NULL ||
        sscanf(at + 1,
               " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               state, &ticks) != 2) {
        return false;
    }
    *start = ticks;
    return true;
}

bool process_alive(const struct process *p)
{
    char state;
    uint64_t start;
    return p->pid > 0 && read_stat(p->pid, &state, &start) && start == p->start && state != 'Z' &&
           state != 'X';
}

/* ---- starting ---- */

/* In the child, between fork and exec: only what is safe there. Does not return. */
static _Noreturn void become(const struct process_spawn *s, int gate, int report,
                             char **environment)
{
    char go = 0;
    ssize_t n;
    while ((n = read(gate, &go, 1)) < 0 && errno == EINTR) {
    }
    if (n != 1) {
        _exit(127); /* nobody knows of us: we must not begin */
    }
    int failed = 0;
    int null = open("/dev/null", O_RDONLY);
    int log = s->log_path != NULL ? open(s->log_path, O_WRONLY | O_CREAT | O_APPEND, 0640)
                                  : open("/dev/null", O_WRONLY);
    if (setsid() < 0 || null < 0 || log < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 ||
        dup2(log, 2) < 0) {
        failed = errno;
    }
    if (failed == 0 && s->uid != 0 &&
        (setgroups(0, NULL) != 0 || setgid(s->gid) != 0 || setuid(s->uid) != 0)) {
        failed = errno;
    }
    if (failed == 0) {
        if (chdir("/") != 0) {
            failed = errno;
        }
        close_range(3, (unsigned)report - 1, 0);
        close_range((unsigned)report + 1, ~0u, 0);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        signal(SIGPIPE, SIG_DFL);
        execve(s->arguments[0], (char *const *)(uintptr_t)s->arguments, environment);
        failed = errno;
    }
    ssize_t written = write(report, &failed, sizeof failed);
    _exit(written == sizeof failed ? 127 : 126);
}

/* Ours, then what is added. The caller frees the array, not the strings. */
static char **merge_environment(const char *const *added)
{
    size_t count = 0, more = 0;
    for (char **e = environ; *e != NULL; e++) {
        count++;
    }
    for (; added != NULL && added[more] != NULL; more++) {
    }
    char **all = calloc(count + more + 1, sizeof *all);
    CHECK(all != NULL);
    size_t n = 0;
    for (char **e = environ; *e != NULL; e++) {
        bool ours =
            strncmp(*e, "HOLDFAST_", 9) == 0; /* options of the caller's shell are not theirs */
        if (!ours) {
            all[n++] = *e;
        }
    }
    for (size_t i = 0; i < more; i++) {
        all[n++] = (char *)(uintptr_t)added[i];
    }
    return all;
}

int process_start(const struct process_spawn *spawn,
                  bool (*recorded)(void *ctx, const struct process *p), void *ctx,
                  struct process *process, struct text *wrong)
{
    int gate[2], report[2];
    if (pipe2(gate, O_CLOEXEC) != 0) {
        text_appendf(wrong, "pipe: %s", strerror(errno));
        return -1;
    }
    if (pipe2(report, O_CLOEXEC) != 0) {
        text_appendf(wrong, "pipe: %s", strerror(errno));
        close(gate[0]);
        close(gate[1]);
        return -1;
    }
    char **environment = merge_environment(spawn->environment);
    pid_t pid = fork();
    if (pid == 0) {
        close(gate[1]);
        become(spawn, gate[0], report[1], environment);
    }
    int error = errno;
    free(environment);
    close(gate[0]);
    close(report[1]);
    int failed = 0;
    char state;
    *process = (struct process){.pid = pid};
    if (pid < 0) {
        text_appendf(wrong, "fork: %s", strerror(error));
        failed = 1;
    } else if (!read_stat(pid, &state, &process->start) ||
               (recorded != NULL && !recorded(ctx, process))) {
        text_appendf(wrong, "%s: cannot be recorded", spawn->arguments[0]);
        failed = 1;
    } else if (write(gate[1], "g", 1) != 1 ||
               read(report[0], &error, sizeof error) == (ssize_t)sizeof error) {
        text_appendf(wrong, "%s: %s", spawn->arguments[0], strerror(error));
        failed = 1;
    }
    close(gate[1]); /* without a word through it the child ends */
    close(report[0]);
    if (failed != 0 && pid > 0) {
        waitpid(pid, NULL, 0);
        *process = (struct process){0};
    }
    return failed != 0 ? -1 : 0;
}

/* ---- ending ---- */

/* A pidfd of exactly this process, or -1. */
static int open_pidfd(const struct process *p)
{
    if (p->pid <= 0) {
        return -1;
    }
    int fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    if (fd >= 0 && !process_alive(p)) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool wait_pidfd(int fd, uint64_t deadline_ms)
{
    for (;;) {
        uint64_t now = clock_monotonic_ms();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int rv = poll(&p, 1, now < deadline_ms ? (int)(deadline_ms - now) : 0);
        if (rv > 0) {
            return true;
        }
        if (rv == 0 || errno != EINTR) {
            return false;
        }
    }
}

static void reap(pid_t pid)
{
    waitpid(pid, NULL, WNOHANG); /* when it is a child of ours */
}

size_t process_stop(const struct process *processes, size_t count, int signal_number,
                    uint64_t grace_ms)
{
    int fds[PROCESS_STOP_MAX];
    size_t killed = 0;
    CHECK(count <= PROCESS_STOP_MAX);
    for (size_t i = 0; i < count; i++) {
        fds[i] = open_pidfd(&processes[i]);
        if (fds[i] >= 0) {
            syscall(SYS_pidfd_send_signal, fds[i], signal_number, NULL, 0);
        }
    }
    uint64_t deadline_ms = clock_monotonic_ms() + grace_ms;
    for (size_t i = 0; i < count; i++) {
        if (fds[i] < 0) {
            continue;
        }
        if (!wait_pidfd(fds[i], deadline_ms)) {
            syscall(SYS_pidfd_send_signal, fds[i], SIGKILL, NULL, 0);
            wait_pidfd(fds[i], clock_monotonic_ms() + 5000);
            killed++;
        }
        close(fds[i]);
        reap(processes[i].pid);
    }
    return killed;
}

int process_run(const struct process_spawn *spawn, uint64_t timeout_ms, struct text *wrong)
{
    struct process p;
    if (process_start(spawn, NULL, NULL, &p, wrong) != 0) {
        return -1;
    }
    uint64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
    int status;
    for (;;) {
        pid_t rv = waitpid(p.pid, &status, WNOHANG);
        if (rv == p.pid) {
            break;
        }
        if (rv < 0 && errno != EINTR) {
            text_appendf(wrong, "%s: %s", spawn->arguments[0], strerror(errno));
            return -1;
        }
        if (clock_monotonic_ms() >= deadline_ms) {
            kill(p.pid, SIGKILL); /* our own child, not yet waited for: the id is still its */
            waitpid(p.pid, &status, 0);
            text_appendf(wrong, "%s: did not end within %llu ms", spawn->arguments[0],
                         (unsigned long long)timeout_ms);
            return -1;
        }
        process_sleep_ms(STOP_POLL_MS);
    }
    if (!WIFEXITED(status)) {
        text_appendf(wrong, "%s: ended by signal %d", spawn->arguments[0], WTERMSIG(status));
        return -1;
    }
    return WEXITSTATUS(status);
}
