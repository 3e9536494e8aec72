#include "tools/bench/cluster.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

#define COMMAND_SIZE_MAX 4096
#define POLL_INTERVAL_NS 50000000L

/* Beside this program, or one folder over, as in a build directory. */
static char *ctl_find(void)
{
    static char found[PATH_MAX + 32];
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        self[n] = '\0';
        const char *folder = dirname(self);
        static const char *const places[] = {"holdfastctl", "../holdfastctl", "../ctl/holdfastctl"};
        for (size_t i = 0; i < ARRAY_COUNT(places); i++) {
            snprintf(found, sizeof found, "%s/%s", folder, places[i]);
            if (access(found, X_OK) == 0) {
                return found;
            }
        }
    }
    snprintf(found, sizeof found, "holdfastctl");
    return found;
}

int cluster_init(struct cluster *c, const struct target *t, const char *ctl,
                 const char *restart_command)
{
    memset(c, 0, sizeof *c);
    if (t->state_path == NULL) {
        fprintf(stderr, "killing nodes needs --state: what `holdfastctl demo up` wrote\n");
        return -1;
    }
    c->loop = t->loop;
    c->state_path = t->state_path;
    c->restart_command = restart_command;
    c->ctl = ctl == NULL ? ctl_find() : realpath(ctl, c->ctl_path);
    if (c->ctl == NULL) {
        fprintf(stderr, "%s: %s\n", ctl, strerror(errno));
        return -1;
    }
    return 0;
}

static json_t *state_load(struct cluster *c)
{
    json_error_t error;
    json_t *state = json_load_file(c->state_path, 0, &error);
    if (state == NULL) {
        fprintf(stderr, "%s: %s\n", c->state_path, error.text);
    }
    return state;
}

unsigned cluster_nodes(struct cluster *c)
{
    json_t *state = state_load(c);
    size_t n = json_array_size(json_object_get(state, "nodes"));
    json_decref(state);
    return (unsigned)n;
}

/* A shell's line that runs holdfastctl for this cluster. */
static int ctl_line(struct cluster *c, const char *arguments, char *to, size_t size)
{
    char path[PATH_MAX];
    str_copy(path, sizeof path, str_from(c->state_path));
    int n = snprintf(to, size, "cd '%s' && . ./env && '%s' %s", dirname(path), c->ctl, arguments);
    return n > 0 && (size_t)n < size ? 0 : -1;
}

int cluster_leader(struct cluster *c, uint64_t *id, unsigned *ready, bool loud)
{
    char command[COMMAND_SIZE_MAX];
    *id = 0;
    *ready = 0;
    const char *arguments =
        loud ? "endpoint status -o json" : "endpoint status -o json 2>/dev/null";
    if (ctl_line(c, arguments, command, sizeof command) != 0) {
        return -1;
    }
    FILE *out = popen(command, "re"); /* NOLINT(cert-env33-c): the paths are the user's own */
    CHECK(out != NULL);
    json_t *nodes = json_loadf(out, 0, NULL);
    pclose(out);
    uint64_t term = 0;
    size_t i;
    json_t *node;
    json_array_foreach(nodes, i, node)
    {
        *ready += json_is_true(json_object_get(node, "ready")) ? 1 : 0;
        /* A leader that was just deposed may not know it yet: the higher term is right. */
        if (strcmp(json_member_text(node, "role"), "leader") == 0 &&
            (uint64_t)json_member_int(node, "term") >= term) {
            term = (uint64_t)json_member_int(node, "term");
            *id = (uint64_t)json_member_int(node, "id");
        }
    }
    json_decref(nodes);
    if (*id == 0 && loud) {
        fprintf(stderr, "no node leads: holdfastctl endpoint status\n");
    }
    return *id != 0 ? 0 : -1;
}

/* True iff the process runs and began at that moment (clock ticks after boot): an id may be used
 * again by somebody else. */
static bool process_is(pid_t pid, uint64_t start)
{
    char path[64];
    char line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return false;
    }
    bool read = fgets(line, sizeof line, f) != NULL;
    fclose(f);
    /* Field 22, counted from behind the name, which may hold anything but ends with the last ')'.
     */
    const char *at = read ? strrchr(line, ')') : NULL;
    for (int field = 2; at != NULL && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    return at != NULL && strtoull(at, NULL, 10) == start;
}

int cluster_kill(struct cluster *c, uint64_t id)
{
    char name[32];
    snprintf(name, sizeof name, "node-%llu", (unsigned long long)id);
    json_t *state = state_load(c);
    const json_t *process = json_object_get(json_object_get(state, "processes"), name);
    pid_t pid = (pid_t)json_member_int(process, "pid");
    uint64_t start = (uint64_t)json_member_int(process, "start");
    json_decref(state);
    if (pid <= 1 || !process_is(pid, start)) {
        fprintf(stderr, "%s: %s does not run\n", c->state_path, name);
        return -1;
    }
    if (kill(pid, SIGKILL) != 0) {
        fprintf(stderr, "kill -9 %d (%s): %s\n", (int)pid, name, strerror(errno));
        return -1;
    }
    return 0;
}

static void restart_close_cb(uv_handle_t *handle)
{
    struct cluster *c = handle->data;
    c->restarting = false;
}

static void restart_exit_cb(uv_process_t *process, int64_t status, int signal_number)
{
    struct cluster *c = process->data;
    c->restart_failed = status != 0 || signal_number != 0;
    if (c->restart_failed) {
        fprintf(stderr, "bringing the node back failed: %s\n",
                c->restart_command != NULL ? c->restart_command : "holdfastctl demo up");
    }
    uv_close((uv_handle_t *)process, restart_close_cb);
}

int cluster_restart(struct cluster *c)
{
    CHECK(!c->restarting);
    char command[COMMAND_SIZE_MAX];
    if (c->restart_command != NULL) {
        snprintf(command, sizeof command, "%s", c->restart_command);
    } else if (ctl_line(c, "demo up --dir .", command, sizeof command) != 0) {
        return -1;
    }
    char shell[] = "/bin/sh";
    char flag[] = "-c";
    char *arguments[] = {shell, flag, command, NULL};
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE}, {.flags = UV_IGNORE}, {.flags = UV_IGNORE}};
    uv_process_options_t options = {.file = shell,
                                    .args = arguments,
                                    .stdio = stdio,
                                    .stdio_count = 3,
                                    .exit_cb = restart_exit_cb};
    c->process.data = c;
    c->restart_failed = false;
    int rc = uv_spawn(c->loop, &c->process, &options);
    if (rc != 0) {
        fprintf(stderr, "%s: %s\n", command, uv_strerror(rc));
        return -1;
    }
    c->restarting = true;
    return 0;
}

int cluster_wait_ready(struct cluster *c, unsigned nodes, uint64_t timeout_ms, uint64_t *leader)
{
    uint64_t give_up = clock_monotonic_ms() + timeout_ms;
    unsigned ready = 0;
    while (clock_monotonic_ms() < give_up) {
        while (c->restarting) {
            uv_run(c->loop, UV_RUN_ONCE);
        }
        if (cluster_leader(c, leader, &ready, false) == 0 && ready >= nodes) {
            return 0;
        }
        nanosleep(&(struct timespec){.tv_nsec = POLL_INTERVAL_NS}, NULL);
    }
    fprintf(stderr, "%u of %u nodes ready after %llu s%s\n", ready, nodes,
            (unsigned long long)(timeout_ms / 1000), *leader == 0 ? ", nobody leads" : "");
    return -1;
}
