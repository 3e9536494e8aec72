/* identity: whose data directory this is.
 *
 * DIR/identity names the node id, the cluster and the format version; it is written once, before
 * anything else. A directory of another node, cluster or version is refused: two nodes that answer
 * with one identity, or votes of one node believed to be another's, break consensus. Its last line is a
 * checksum of all before: without it a file that was cut could lose the line that says "refilling", and
 * the node would vote. (Format 1 had none; it is read and written anew.) DIR/lock is
 * held for the life of the process, so that two processes never share a directory.
 *
 * A further line says what the node still lacks (docs/adr/0010): `state new`, it was made for a new
 * cluster and its first log is not durable yet; `state refilling`, it may have been a member once and
 * must catch up before it votes. The line goes when the log is whole. It is written before the log is
 * created, so that a crash in between does not forget it. `state removed`: it is no member any more, and
 * its data must not come back (docs/adr/0012). */
#ifndef SERVER_IDENTITY_H
#define SERVER_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/link.h"

enum identity_state { IDENTITY_MEMBER, IDENTITY_NEW, IDENTITY_REFILLING, IDENTITY_REMOVED };

struct identity {
    uint64_t node_id;
    uint8_t cluster_id[LINK_CLUSTER_ID_SIZE];
    enum identity_state state;
    int format; /* as read */
};

/* 0; 1: there is none; -1 after logging what is damaged and where. Changes nothing. */
int identity_read(const char *directory, struct identity *i);
/* Durable on return. -1 after logging. */
int identity_write(const char *directory, const struct identity *i);
/* Locks the directory for as long as the file that is returned stays open: nobody else may use it. With
 * create it makes the lock's file if it is missing, else IDENTITY_LOCK_NONE is returned then. -1 after
 * logging: in use, or not readable. */
#define IDENTITY_LOCK_NONE (-2)
int identity_lock(const char *directory, bool create);

/* Makes the directory if it is missing, locks it, and writes or checks its identity. An empty
 * directory becomes one of IDENTITY_NEW with new_cluster, else of IDENTITY_REFILLING; otherwise
 * new_cluster is ignored. Returns 0, or -1 after logging what is wrong and what to do. The lock ends
 * with the process. */
int identity_claim(const char *directory, uint64_t node_id,
                   const uint8_t cluster_id[static LINK_CLUSTER_ID_SIZE], bool new_cluster,
                   enum identity_state *state);

/* This node was removed from its cluster: identity_claim refuses the directory from now on. Returns 0,
 * or -1 after logging. */
int identity_remove(const char *directory, uint64_t node_id,
                    const uint8_t cluster_id[static LINK_CLUSTER_ID_SIZE]);

/* The log is whole: from now on this is a directory of IDENTITY_MEMBER, durably. Returns 0, or -1
 * after logging. Blocks for one small synced write. */
int identity_settle(const char *directory, uint64_t node_id,
                    const uint8_t cluster_id[static LINK_CLUSTER_ID_SIZE]);

#endif
