/* cluster: the processes of a local cluster, for commands that kill some: who leads, kill -9, bring
 * back. Knows them from the state file of `holdfastctl demo up` and asks holdfastctl for the rest.
 *
 * Killing is immediate; everything else runs a program and waits for it, or lets it run on the
 * loop. */
#ifndef TOOLS_BENCH_CLUSTER_H
#define TOOLS_BENCH_CLUSTER_H

#include <limits.h>

#include "tools/bench/target.h"

struct cluster {
    uv_loop_t *loop;
    const char *state_path;
    const char *ctl;             /* path of holdfastctl */
    char ctl_path[PATH_MAX];     /* where that was given as another path */
    const char *restart_command; /* NULL: holdfastctl demo up */
    /* restart under way */
    uv_process_t process;
    bool restarting, restart_failed;
};

/* ctl: NULL finds holdfastctl in HOLDFASTCTL, beside this program, or in PATH. Returns 0, or -1
 * after saying why. */
int cluster_init(struct cluster *c, const struct target *t, const char *ctl,
                 const char *restart_command);

/* The node that leads, and how many nodes are up and ready. Blocks for as long as holdfastctl
 * takes. Returns 0, or -1: nobody leads (said on stderr when `loud`). */
int cluster_leader(struct cluster *c, uint64_t *id, unsigned *ready, bool loud);

/* Sends SIGKILL to the process of a node, by the pid in the state file as it is now. Returns 0, or
 * -1 after saying why. */
int cluster_kill(struct cluster *c, uint64_t id);

/* Begins to bring dead nodes back, on the loop; c->restarting turns false when the command ended.
 */
int cluster_restart(struct cluster *c);

/* Runs the loop until no restart is under way, `nodes` nodes are ready and one leads, or timeout_ms
 * passed: then returns -1 after saying so. */
int cluster_wait_ready(struct cluster *c, unsigned nodes, uint64_t timeout_ms, uint64_t *leader);

unsigned cluster_nodes(struct cluster *c); /* in the state file */

#endif
