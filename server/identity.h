/* identity: whose data directory this is.
 *
 * DIR/identity names the node id, the cluster and the format version; it is written once, before
 * anything else. A directory of another node, cluster or version is refused: two nodes that answer
 * with one identity, or votes of one node believed to be another's, break consensus. DIR/lock is
 * held for the life of the process, so that two processes never share a directory. */
#ifndef SERVER_IDENTITY_H
#define SERVER_IDENTITY_H

#include <stdint.h>

#include "proto/link.h"

/* Makes the directory if it is missing, locks it, and writes or checks its identity. Returns 0, or
 * -1 after logging what is wrong and what to do. The lock ends with the process. */
int identity_claim(const char *directory, uint64_t node_id,
                   const uint8_t cluster_id[static LINK_CLUSTER_ID_SIZE]);

#endif
