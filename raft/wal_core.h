/* wal_core: segments, write-blocks and recovery of the write-ahead log, without a thread.
 *
 * What it owns: which segments exist, where the next write goes, what a restart finds. What it refuses:
 * to wait, to retry, to shorten the log silently. The threaded log (wal.h) and the simulator sit on it.
 *
 * Happy path:
 *     wal_core_open                      recover; what was found is in struct wal_recovered
 *     wal_block_init, wal_block_add...   gather records (the next group commit)
 *     wal_core_seal                      number it, give it a place: one aligned write
 *     wal_core_write                     carry it out; durable on return
 *     wal_core_trim                      recycle segments that are no longer needed
 *
 * On disk (wal_format.h, docs/adr/0004): segments "<number>.wal" of equal size, pre-zeroed and
 * recycled; in them a header, then writes, each of which carries its place in the order of all writes.
 *
 * Invariants:
 *   1. One write at a time, in order of sequence: when n+1 was issued, n was durable.
 *   2. So only the last write may be incomplete. Anything invalid that is followed by something newer
 *      is damage, and recovery refuses with file and offset.
 *   3. A segment has its name only after its header is durable; a name is durable before the first
 *      block. A spare or temporary file holds nothing that matters.
 *   4. A block of an earlier life of a recycled segment is never taken for current: salts differ.
 *   5. Term and vote are known at every point: the segment's header, then RECORD_VOTE in the stream.
 *   6. A record at index i overrides i and everything behind it.
 *
 * Failure modes: functions that touch the disk return 0 or -1 with core->error set to a line that
 * names file, offset, cause and what to do. After -1 the core must not be used except to be closed.
 *
 * Not detectable (as in any log): the very last write before a crash, when what damaged it left whole
 * sectors (or a disk lied and lost it): it looks like a crash in the middle of it. After a clean stop the
 * last write is a mark that nobody needs (wal_core_mark), so nothing is out of sight (docs/adr/0014). */
#ifndef RAFT_WAL_CORE_H
#define RAFT_WAL_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raft/record.h"
#include "raft/wal_io.h"

#define WAL_VERSION          1
#define WAL_BLOCK_SIZE       4096u
#define WAL_CLUSTER_ID_SIZE  16
#define WAL_ERROR_SIZE       512
#define WAL_SEGMENTS_MAX     4096u /* live at once; the log is full beyond it: an error */
#define WAL_SEGMENT_SIZE_MAX (1u << 30)
/* The smallest segment: header and one write-block of one vote. Records must fit: see
 * wal_record_size_max. */
#define WAL_SEGMENT_SIZE_MIN (2ull * WAL_BLOCK_SIZE)
#define WAL_WRITE_SIZE_MAX   (4u << 20) /* one group commit */
#define WAL_SPARES_MAX       16u

struct wal_core_config {
    uint8_t cluster_id[WAL_CLUSTER_ID_SIZE];
    uint64_t node_id;
    uint64_t segment_size; /* bytes, a multiple of WAL_BLOCK_SIZE; may change between restarts */
    unsigned spares_min;   /* made ready at open; 0: made when needed, which delays one write */
    unsigned spares_max;   /* ≤ WAL_SPARES_MAX; further recycled segments are deleted */
};

/* What a restart found. Everything lies in memory owned by this struct. */
struct wal_recovered {
    bool fresh;            /* no segment was there: a new log was begun. With a checkpoint present this
                              means that the log was lost, and with it term and vote */
    uint64_t term, vote;   /* the newest durable ones; 0, 0 when none. Entries may have a higher term
                              only if the caller appended them before its vote record: it must not */
    uint64_t base_index;   /* index right before the first entry */
    uint64_t base_term;    /* its term, 0 when no longer known (or base_index is 0) */
    const struct record_header **entries; /* base_index+1 ... base_index+count, checked, in order */
    size_t count;
    /* Bytes of an incomplete last write that were left out, for a log line; 0 after a clean stop. */
    uint64_t torn_bytes;
    void **memory; /* private */
    size_t memory_count;
};
void wal_recovered_close(struct wal_recovered *recovered);

/* One write under construction, in caller's memory. */
struct wal_block {
    uint8_t *data; /* aligned to WAL_BLOCK_SIZE, capacity a multiple of it */
    size_t capacity;
    size_t size; /* used so far, block header included */
    uint32_t count;
    uint32_t digest;
    bool has_reset;
    uint64_t reset_index, reset_term;
    uint64_t index_max;              /* largest index in it, 0 for none */
    uint64_t last_index, last_term;  /* of the last entry or reset in it; 0, 0 for none */
    bool has_vote;
    uint64_t vote_term, vote;
};

/* Borrows data for the life of the block. */
void wal_block_init(struct wal_block *b, void *data, size_t capacity);
/* Copies one record (entry or RECORD_VOTE). false: no room, nothing changed. */
bool wal_block_add(struct wal_block *b, const struct record_header *record);
/* Makes this block one that drops the whole log before it and lets it go on at index + 1. Must be the
 * first thing in an empty block. */
void wal_block_add_reset(struct wal_block *b, uint64_t index, uint64_t term);
/* Capacity that a block of this log may have at most. */
size_t wal_block_capacity_max(uint64_t segment_size);
/* The largest record, header included, that fits into a log with such segments. */
size_t wal_record_size_max(uint64_t segment_size);

/* One write to the disk. */
struct wal_write {
    int file;
    uint64_t offset; /* multiples of WAL_BLOCK_SIZE, as is size */
    const uint8_t *data;
    size_t size;
    uint64_t sequence;
    bool resets;
};

struct wal_segment {
    uint64_t number;    /* its name, growing by one */
    uint64_t index_max; /* largest index of a record in it, overridden ones included */
    uint64_t size;
};

struct wal_core {
    struct wal_core_config config;
    struct wal_io *io;
    struct wal_segment *segments; /* oldest first; the last one is current */
    size_t segments_count;
    int file;               /* of the current segment */
    uint64_t salt;          /* of the current segment */
    uint64_t offset;        /* in the current segment: of the next write */
    uint64_t sequence_next; /* of the next write */
    uint64_t spare_numbers[WAL_SPARES_MAX];
    unsigned spares_count;
    uint64_t spare_number_next;
    uint64_t last_index, last_term; /* of the last entry written; the base when there is none */
    uint64_t term, vote;
    char error[WAL_ERROR_SIZE];
};

/* Recovers, or begins a new log in an empty directory. Borrows io until close. On -1 (damage, another
 * cluster's or node's log, a newer format, an I/O error) nothing was changed on disk and neither core
 * nor recovered needs closing; core->error says why. */
int wal_core_open(struct wal_core *core, const struct wal_core_config *config, struct wal_io *io,
                  struct wal_recovered *recovered);
/* Also of a core that is all zero, or closed already. */
void wal_core_close(struct wal_core *core);

/* True when the block does not fit into the current segment: sealing it takes a spare. */
bool wal_core_needs_segment(const struct wal_core *core, const struct wal_block *b);

/* Gives the block its sequence number, header and place; makes the next segment current when it does
 * not fit into this one (that does I/O: two small synced writes and a rename). The block must not be
 * empty and must stay in place until written. */
int wal_core_seal(struct wal_core *core, struct wal_block *b, struct wal_write *write);
/* Carries the write out; durable on return. */
int wal_core_write(struct wal_core *core, const struct wal_write *write);
/* For a caller that carries the write out itself (the simulator): it is durable now. After a write
 * with `resets`, the next wal_core_trim (with any index) frees all older segments. */
void wal_core_written(struct wal_core *core, const struct wal_write *write);

/* One more write that says nothing new (term and vote again), so that whatever was written before it is
 * no longer the last write, and damage in it can be told from a crash. For a clean stop. Nothing when the
 * log holds nothing. */
int wal_core_mark(struct wal_core *core);

/* Recycles every leading segment whose records all have indexes ≤ upto_index. Never the current one. */
int wal_core_trim(struct wal_core *core, uint64_t upto_index);

/* Spares: creating one (writing a whole segment of zeros) is slow and may run on another thread:
 * reserve a number, create, add. */
bool wal_core_wants_spare(const struct wal_core *core);
uint64_t wal_core_reserve_spare(struct wal_core *core);
int wal_spare_create(struct wal_io *io, uint64_t number, uint64_t segment_size); /* negative errno */
void wal_core_add_spare(struct wal_core *core, uint64_t number);

#endif
