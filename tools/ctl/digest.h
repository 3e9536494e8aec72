/* digest: the digests of all nodes at one log index. */
#ifndef TOOLS_CTL_DIGEST_H
#define TOOLS_CTL_DIGEST_H

#include "tools/ctl/ctl.h"

struct digest_node {
    struct ctl_member member;
    bool known; /* digest is there */
    uint64_t digest;
    const char *wrong; /* why not, static text */
};

struct digest_report {
    uint64_t index; /* of the mark */
    size_t count;
    struct digest_node nodes[CTL_NODES_MAX];
    bool equal; /* every node answered, all the same */
};

/* Submits a mark and asks every member for the digest it left there, waiting within the timeout
 * until each has applied it. CTL_OK also when they differ: look at equal. */
enum ctl_exit digest_collect(struct ctl *ctl, struct digest_report *report);

#endif
