/* wal_inspect: a look at a write-ahead log that nobody uses, whole or damaged, without changing it.
 *
 * For people in trouble (holdfastctl log inspect, node verify) and for tests. It judges with the functions
 * that a start uses (wal_recover), and beside that walks every segment for itself and goes on behind damage,
 * so that it can say what is still there. What it refuses: to repair. */
#ifndef RAFT_WAL_INSPECT_H
#define RAFT_WAL_INSPECT_H

#include "raft/wal_core.h"

#define WAL_FINDINGS_MAX 256u /* further ones are only counted */

struct wal_inspect_segment {
    char name[WAL_IO_NAME_SIZE];
    uint64_t number, size;
    bool header_ok; /* else nothing below is known */
    uint32_t version;
    uint8_t cluster_id[WAL_CLUSTER_ID_SIZE];
    uint64_t node_id;
    uint64_t term, vote, base_index;       /* before it */
    uint64_t sequence_first, sequence_end; /* of its writes: [first, end) */
    uint64_t first_index, last_index;      /* smallest and largest of its entries; 0: none */
    uint64_t writes, used_size;            /* whole writes; bytes up to their end */
    bool continues;                        /* says that there is a next one */
};

enum wal_finding_kind {
    WAL_FINDING_DAMAGE, /* a start is refused */
    WAL_FINDING_TORN,   /* an incomplete last write: a start leaves it out */
};

struct wal_finding {
    enum wal_finding_kind kind;
    char name[WAL_IO_NAME_SIZE];
    uint64_t offset; /* in that file */
    char text[160];
};

struct wal_inspection {
    struct wal_inspect_segment *segments;
    size_t segments_count, spares_count;
    struct wal_finding *findings;
    size_t findings_count, findings_left_out;
    /* What a start would say. */
    bool ok;
    char error[WAL_ERROR_SIZE]; /* without ok */
    uint64_t term, vote, base_index, last_index, last_term, torn_bytes;
};

/* Each whole record in the order of writing, overridden ones and votes too; segment is where it is. */
typedef void (*wal_inspect_cb)(void *ctx, const struct wal_inspect_segment *segment, uint64_t offset,
                               const struct record_header *record);

/* Reads the log in `directory`. record may be NULL. 0, also when the log is damaged: out says so, and is
 * to be closed; -1 after logging when there is no log to look at or it cannot be read at all. */
int wal_inspect(const char *directory, wal_inspect_cb record, void *ctx, struct wal_inspection *out);
void wal_inspection_close(struct wal_inspection *i);

/* No segment is there, or no directory. */
bool wal_inspect_is_missing(const char *directory);

/* Recovery as at a start, with the ids that the log must have, changing nothing. 0 with *out to be closed
 * (fresh: there is no segment), or -1 with error set. */
int wal_inspect_recover(const char *directory, const uint8_t cluster_id[static WAL_CLUSTER_ID_SIZE],
                        uint64_t node_id, struct wal_recovered *out, char error[static WAL_ERROR_SIZE]);

#endif
