/* demo: a whole cluster on one machine, under one directory.
 *
 *     DIR/demo.json    the state: ports, paths, and every process by id and start time
 *     DIR/env          the same for a shell: . DIR/env
 *     DIR/secrets/     cluster key, API keys, token and webhook secrets; mode 0700
 *     DIR/log/         one log a process
 *     DIR/node-N/      data of a node
 *     DIR/postgres/    the private PostgreSQL (elsewhere when its user cannot reach DIR: see
 * demo.json) DIR/lock         held while something is started or stopped here
 *
 * What it owns: exactly these, and the processes in demo.json. What it refuses: to touch a service
 * or a process it did not start, a fixed port, a directory that has something else in it.
 *
 * Happy path of up: lock → state and secrets, made once → PostgreSQL, its database and schema →
 * nodes → gateway → wait until a leader takes commands and the gateway says it is ready. Every step
 * looks first whether it is done, so that up may be run again after anything.
 *
 * Failure modes: a process that ends, or a cluster that is not ready in time: the tail of the log
 * that matters is shown, what this run started is stopped, data stay. */
#ifndef TOOLS_CTL_DEMO_H
#define TOOLS_CTL_DEMO_H

#include <limits.h>

#include "tools/ctl/ctl.h"
#include "tools/ctl/process.h"

#define DEMO_NODES_MAX     9
#define DEMO_PROCESSES_MAX (DEMO_NODES_MAX + 2)
#define DEMO_PATH_SIZE     4096

struct demo {
    struct ctl *ctl;
    char dir[DEMO_PATH_SIZE];                /* absolute */
    json_t *state;                           /* demo.json */
    int lock;                                /* descriptor, -1: not held */
    uint64_t deadline_ms;                    /* of up: monotonic */
    const char *started[DEMO_PROCESSES_MAX]; /* by this run, names of processes */
    size_t started_count;
};

/* ---- demo_files.c: directory, state, secrets ---- */

/* Finds the directory. create: makes it, with a new state when it has none. Takes the lock.
 * CTL_REFUSED (silently) when there is no demo and create is false. */
enum ctl_exit demo_open(struct demo *d, struct ctl *ctl, bool create);
void demo_close(struct demo *d);
/* Writes demo.json, atomically. Returns 0 or -1 after saying why. */
int demo_save(struct demo *d);
/* DIR/name into path. */
void demo_path(const struct demo *d, const char *name, char path[static DEMO_PATH_SIZE]);
/* A text of the state by a path of keys: demo_text(d, "secrets", "cluster_key_file"); "" when
 * absent. */
const char *demo_text(const struct demo *d, const char *object, const char *key);
/* Makes what does not exist yet: secrets, API keys, DIR/env. */
enum ctl_exit demo_write_secrets(struct demo *d);
int demo_write_env(struct demo *d);
/* The database's URL as a file, for the nodes: a password in their arguments could be read by
 * everybody. */
int demo_write_postgres_url(struct demo *d);
/* Removes everything the demo made, and the directory if nothing else is in it. */
enum ctl_exit demo_wipe(struct demo *d);
/* The last lines of a log to standard error. */
void demo_show_log(const char *path);

/* ---- demo_ports.c ---- */

/* Chooses count free loopback ports, outside of the range that outgoing connections use. */
enum ctl_exit demo_choose_ports(uint16_t *ports, size_t count);

/* ---- demo.c: processes by name ---- */

/* The recorded process, {0} when there is none (or the machine was started anew since). */
struct process demo_process(const struct demo *d, const char *name);
bool demo_is_up(const struct demo *d, const char *name);
/* Starts and records one, unless it is alive. */
enum ctl_exit demo_start(struct demo *d, const char *name, const struct process_spawn *spawn);

/* ---- demo_postgres.c ---- */

/* Starts the private PostgreSQL if the state wants one, and applies migrations in either case. */
enum ctl_exit demo_postgres_up(struct demo *d);

/* ---- demo_nodes.c ---- */

enum ctl_exit demo_nodes_up(struct demo *d);
enum ctl_exit demo_gateway_up(struct demo *d);
/* Waits until the cluster takes commands and the gateway is ready. */
enum ctl_exit demo_wait_ready(struct demo *d);

#endif
