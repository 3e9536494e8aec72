/* record: the one encoding of a log entry, on disk and on the wire alike.
 *
 * What it owns: the 32-byte header, its checksum, the rule of padding. An entry is encoded once, by
 * the leader that creates it; from then on the same bytes are cached, sent, written and read back.
 * What it refuses: to know segments, frames or what is inside a command.
 *
 *     +--------+------+-------+------+------+-----+----------------------+---------+
 *     | crc32c | size | index | term | type | pad | data, size bytes ... | zero pad|
 *     +--------+------+-------+------+------+-----+----------------------+---------+
 *       4        4      8       8      1      7     a multiple of 8 together
 *
 * The checksum covers everything after itself up to the end of the padding. All integers are
 * little-endian (base/bytes.h asserts that of the machine), records begin 8-byte aligned.
 *
 * Failure modes: record_check tells damage from a record that does not fit into what is there; it
 * never reads beyond `available`. */
#ifndef RAFT_RECORD_H
#define RAFT_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One batch of commands, in bytes; equals REPLICA_ENTRY_SIZE_MAX. */
#define RECORD_DATA_SIZE_MAX (256u << 10)
#define RECORD_ALIGNMENT     8u

enum record_type {
    RECORD_COMMAND = 1, /* a batch of commands of the application */
    RECORD_NOOP = 2,    /* nothing: what a new leader commits first (Raft §5.4.2, §8) */
    RECORD_CHANGE = 3,  /* a configuration of the cluster */
    RECORD_VOTE = 4,    /* only in the log on disk, never an entry: term and vote. index is 0, data is
                           the u64 id of the node voted for in that term, 0 for none */
};

struct record_header {
    uint32_t crc32c;
    uint32_t size; /* of data, without padding */
    uint64_t index;
    uint64_t term;
    uint8_t type;   /* enum record_type */
    uint8_t pad[7]; /* zero */
};

_Static_assert(sizeof(struct record_header) == 32, "the header is written as it is in memory");

/* Bytes of data with its padding. */
static inline size_t record_padded(uint32_t size)
{
    return ((size_t)size + RECORD_ALIGNMENT - 1) & ~(size_t)(RECORD_ALIGNMENT - 1);
}

/* Bytes of a whole record whose data has size bytes. */
static inline size_t record_span(uint32_t size)
{
    return sizeof(struct record_header) + record_padded(size);
}

#define RECORD_SPAN_MAX  (sizeof(struct record_header) + RECORD_DATA_SIZE_MAX)
#define RECORD_VOTE_SPAN (sizeof(struct record_header) + sizeof(uint64_t))

/* The data of a record that was checked. */
static inline const void *record_data(const struct record_header *h)
{
    return h + 1;
}

static inline size_t record_size(const struct record_header *h)
{
    return record_span(h->size);
}

/* The record behind this one, when several lie one after the other. */
static inline const struct record_header *record_next(const struct record_header *h)
{
    return (const struct record_header *)(const void *)((const uint8_t *)h + record_size(h));
}

/* Writes a whole record, record_span(size) bytes, to `at` (8-byte aligned). Copies data, unless data is
 * NULL: then its bytes are in place already, behind the header. Returns the bytes written. */
size_t record_encode(void *at, enum record_type type, uint64_t index, uint64_t term,
                     const void *data, uint32_t size);

/* Writes a RECORD_VOTE, RECORD_VOTE_SPAN bytes. */
size_t record_encode_vote(void *at, uint64_t term, uint64_t voted_for);

/* voted_for of a checked RECORD_VOTE. */
uint64_t record_voted_for(const struct record_header *h);

enum record_verdict {
    RECORD_VALID = 0,
    RECORD_NONE,    /* a header that is all zero: nothing was ever written here */
    RECORD_PARTIAL, /* plausible, but ends beyond what is available */
    RECORD_INVALID, /* checksum, size, type, padding or index is impossible */
};

/* Judges what begins at `at` (8-byte aligned) and may use `available` bytes. */
enum record_verdict record_check(const void *at, size_t available);

#endif
