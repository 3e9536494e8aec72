/* node: holdfastd without its command line: everything of one node, wired together.
 *
 * What it owns: the engine, and all parts below it; who is told what when. What it refuses: to
 * decide business (engine/), replication (raft/) or formats (storage/).
 *
 * A submit, once down and once up: session (frame) → submit_queue (batch) → replica_submit → log of
 * a majority → node_apply → engine_apply → submit_queue_reply_cb → session (one response a frame).
 *
 * Failure modes: damage found at start: the process ends with a message. A fault of the log
 * while running ends the process (raft/), and so does an entry that only a newer version understands. */
#ifndef SERVER_NODE_H
#define SERVER_NODE_H

#include <uv.h>

#include "server/options.h"

struct node;

/* Claims the data directory, listens, and begins to load checkpoint and log on a thread; when that is
 * done it joins the cluster, all by the loop. Borrows options for its life. Returns 0, or -1 after
 * logging what is wrong and what to do; what is found wrong later ends the process with status 1. */
int node_start(uv_loop_t *loop, const struct node_options *options, struct node **node);

/* Hands leadership over, stops taking commands, answers what was taken, then closes everything;
 * stopped is called when nothing is left and the node is freed. Bounded by NODE_DRAIN_MS. */
void node_drain(struct node *n, void (*stopped)(void *ctx), void *ctx);

#define NODE_DRAIN_MS 8000

/* ended is called once, from the loop, when this node is no member of its cluster any more: it should
 * be drained then. */
void node_watch_end(struct node *n, void (*ended)(void *ctx), void *ctx);

/* Exit status when the log holds what only a newer version knows: to start again does not help. */
#define NODE_EXIT_OUTDATED 76 /* EX_PROTOCOL */

#endif
