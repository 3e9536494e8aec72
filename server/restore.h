/* restore: a data directory from a snapshot, as a member of a new cluster. Offline: holdfastd is
 * started on it afterwards. docs/adr/0013-backups.md tells why each thing is as it is.
 *
 * Happy path: the snapshot is loaded and proved → its state becomes that of the new cluster
 * (engine_rebase) → a checkpoint of it, whose position lies RESTORE_INDEX_GAP behind the snapshot's
 * with the new members as configuration → a log that goes on there → the identity, last: without
 * it no node starts from the directory.
 *
 * The same file with the same members and cluster id gives equal states on every member, whatever
 * its id.
 *
 * Failure modes: a result that says whose fault it is, and one line in `error`. What was made is
 * removed again; after a crash in the middle the directory is refused by restore (not empty) and by
 * holdfastd (parts without an identity): remove it and restore again. */
#ifndef SERVER_RESTORE_H
#define SERVER_RESTORE_H

#include <stddef.h>
#include <stdint.h>

#include "storage/snapshot.h"

/* How far behind the snapshot's last log index the new cluster begins. Order ids are made of log
 * indexes: the old cluster's orders after the snapshot must never share an id with the new one's.
 * 2^32 entries are five days at 10,000 batches a second. Lease tokens skip as many. */
#define RESTORE_INDEX_GAP (1ull << 32)

struct restore_config {
    const char *snapshot, *data_dir;
    const char *cluster_id;      /* as text: the new one */
    uint64_t id;                 /* of this node */
    const char *const *members;  /* "ID=RAFT/NODE", all voters; one of them has id */
    size_t members_count;
};

struct restore_report {
    struct snapshot_header header;
    uint64_t first_index; /* the new cluster's first entry */
    uint64_t digest;      /* of the restored state: equal on every member */
};

enum restore_result {
    RESTORE_OK,
    RESTORE_INVALID, /* the arguments: nothing was looked at */
    RESTORE_REFUSED, /* the directory is not empty, or the cluster id is the snapshot's */
    RESTORE_DAMAGED, /* the snapshot cannot be read or is not whole */
    RESTORE_FAILED,  /* the disk */
};

/* Blocks. All strings are borrowed. */
enum restore_result restore_run(const struct restore_config *config, struct restore_report *report,
                                char error[static SNAPSHOT_ERROR_SIZE]);

#endif
