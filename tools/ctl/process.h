/* process: daemons that outlive this program, and how to find exactly them again.
 *
 * A process is its id and its start time: a process id that was used again is somebody else, and is
 * never signalled. What it refuses: to look for processes by name. */
#ifndef TOOLS_CTL_PROCESS_H
#define TOOLS_CTL_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/text.h"

struct process {
    pid_t pid;      /* 0: none */
    uint64_t start; /* clock ticks after boot: /proc/PID/stat, field 22 */
};

struct process_spawn {
    const char *const *arguments;   /* NULL-terminated; the first is the path of the binary */
    const char *const *environment; /* NULL-terminated "NAME=value" added to ours; NULL for none */
    const char *log_path;           /* standard output and error are appended to it */
    uid_t uid;                      /* with gid, when run as root: become this user; 0: stay */
    gid_t gid;
};

/* Starts a daemon: own session, standard input empty, files of ours closed. recorded is called in
 * between, when the process exists and has not begun: what it writes down cannot be late. When it
 * returns false, or this program dies before, the process ends without having begun. Returns 0, or
 * -1 with a sentence in *wrong. */
int process_start(const struct process_spawn *spawn,
                  bool (*recorded)(void *ctx, const struct process *p), void *ctx,
                  struct process *process, struct text *wrong);

/* Runs a program to its end, at most timeout_ms, then it is killed. Returns its exit status, or -1
 * with a sentence in *wrong. */
int process_run(const struct process_spawn *spawn, uint64_t timeout_ms, struct text *wrong);

/* True iff exactly this process runs (a zombie does not). */
bool process_alive(const struct process *p);

/* Sends the signal (SIGTERM, say) to all that are alive, waits up to grace_ms, then SIGKILL.
 * Returns how many had to be killed. At most PROCESS_STOP_MAX at once. */
#define PROCESS_STOP_MAX 32
size_t process_stop(const struct process *processes, size_t count, int signal_number,
                    uint64_t grace_ms);

void process_sleep_ms(uint64_t ms);

#endif
