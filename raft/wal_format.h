/* wal_format: the bytes of the write-ahead log on disk. Little-endian, no padding; docs/adr/0004.
 *
 * A segment: one WAL_BLOCK_SIZE with its header, then writes back to back, each beginning at a multiple
 * of WAL_BLOCK_SIZE. A write: one header of 64 bytes, `count` records (record.h), zeros up to the next
 * multiple of WAL_BLOCK_SIZE. A write is valid only if every byte of it is as it was written. */
#ifndef RAFT_WAL_FORMAT_H
#define RAFT_WAL_FORMAT_H

#include "raft/wal_core.h"

#define WAL_SEGMENT_MAGIC "HFWALSEG"
#define WAL_WRITE_MAGIC   0x57464857u /* "WHFW" */

struct wal_segment_header {
    uint8_t magic[8];
    uint32_t version;
    uint32_t crc; /* of the whole WAL_BLOCK_SIZE, with this field zero; so in every version */
    uint8_t cluster_id[WAL_CLUSTER_ID_SIZE];
    uint64_t node_id;
    uint64_t number;         /* equals the name */
    uint64_t segment_size;   /* equals the size of the file */
    uint64_t salt;           /* random for each life of a recycled segment */
    uint64_t sequence_first; /* of the first write in it, so the one before ends right there */
    uint64_t base_index, base_term; /* the log's last entry (or its base) before this segment */
    uint64_t term, vote;            /* the newest before this segment */
};
_Static_assert(sizeof(struct wal_segment_header) == 104, "written as it is in memory");

#define WAL_WRITE_RESETS    1u
#define WAL_WRITE_CONTINUES 2u /* no records: the log goes on in the next segment, with this sequence */

struct wal_write_header {
    uint32_t magic;
    uint32_t crc; /* of this header, with this field zero */
    uint64_t salt;
    uint64_t sequence;
    uint32_t size; /* header and records, without the zeros behind */
    uint32_t count;
    uint32_t digest; /* crc32c over the checksums of the records: binds them to this write */
    uint32_t flags;
    uint64_t reset_index, reset_term; /* with WAL_WRITE_RESETS: the log before is void */
    uint8_t reserved[8];              /* zero */
};
_Static_assert(sizeof(struct wal_write_header) == 64, "written as it is in memory");

#define WAL_SECTOR_SIZE 512u /* the least that a disk writes as one */

static inline uint64_t wal_round_up(uint64_t size)
{
    return (size + WAL_BLOCK_SIZE - 1) & ~(uint64_t)(WAL_BLOCK_SIZE - 1);
}

/* Fills the rest of a block of WAL_BLOCK_SIZE with zeros and the header's crc. */
void wal_segment_header_seal(void *block);
bool wal_segment_header_ok(const void *block); /* magic and crc; not what it says */

void wal_write_header_seal(struct wal_write_header *h);
/* Magic, crc and salt: something that was once issued in this life of the segment. */
bool wal_write_header_ok(const struct wal_write_header *h, uint64_t salt);
/* A whole write, `available` bytes from its header on, with this sequence number. */
bool wal_write_ok(const void *at, size_t available, uint64_t salt, uint64_t sequence);
/* The mark behind the last write of a segment that has a successor. */
bool wal_write_continues(const void *at, size_t available, uint64_t salt, uint64_t sequence);
/* What stands here is no whole write with this sequence number: can a crash have left it? A crash
 * leaves each sector of WAL_SECTOR_SIZE either as it was before or as it was to be. false: it cannot, this
 * is damage. */
bool wal_write_may_be_torn(const void *at, size_t available, uint64_t salt, uint64_t sequence);

#define WAL_NAME_SEGMENT "%016llx.wal"
#define WAL_NAME_SPARE   "spare-%016llx.wal"
#define WAL_NAME_TEMP    "spare-%016llx.tmp"
void wal_name(char name[static WAL_IO_NAME_SIZE], const char *pattern, uint64_t number);
/* Matches a whole name of one of the three patterns. */
bool wal_name_parse(const char *name, const char *pattern, uint64_t *number);

/* Recovery (wal_recover.c): reads all segments in order and fills core's segments, place of the next
 * write, and recovered. Changes nothing on disk. `numbers` ascending, not empty. */
int wal_recover(struct wal_core *core, const uint64_t *numbers, const uint64_t *sizes, size_t count,
                struct wal_recovered *recovered);

/* Sets core->error and returns -1. */
int wal_core_error(struct wal_core *core, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void wal_core_push_segment(struct wal_core *core, struct wal_segment segment);

#endif
