/* log_cache: the entries of the log that are in memory, as encoded records, shared by count.
 *
 * What it owns: the entries first..last (consecutive), and the batches of memory that they lie in. One
 * batch is what came in one piece: one submit, one AppendEntries, one recovery; it is freed when no
 * entry of the cache, no write of the log and no held message refers to it any more.
 * What it refuses: to know the core, the disk or the network. Single-threaded.
 *
 *     released        base   first                 last
 *      |  trimmed, not yet freed  |    e    e    e    e
 *
 * `base` is the index before the first entry. An empty cache has last == base.
 *
 * Failure modes: none but out of memory, which aborts. */
#ifndef RAFT_LOG_CACHE_H
#define RAFT_LOG_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "raft/record.h"

/* A piece of memory with records one after the other. Allocated by the core's allocator, because the
 * core frees a batch that it rejects: until the first reference is taken it has no other owner. */
struct batch {
    uint32_t references;
    uint32_t pad;
    uint64_t size; /* of the records, in bytes */
    /* followed by the records */
};

_Static_assert(sizeof(struct batch) % RECORD_ALIGNMENT == 0, "records behind it are aligned");

/* A batch with room for size bytes of records and no references. */
struct batch *batch_create(size_t size);
/* Frees a batch to which nothing refers. */
void batch_destroy(struct batch *b);
void batch_retain(struct batch *b);
/* Gives one reference back; frees the batch with the last. */
void batch_release(struct batch *b);

static inline struct record_header *batch_first(struct batch *b)
{
    return (struct record_header *)(void *)(b + 1);
}

struct log_cache_entry {
    const struct record_header *record;
    struct batch *batch;
    uint64_t ticket; /* of the write that makes this entry durable; 0: read from disk */
    uint64_t end;    /* bytes of all entries that were ever added, up to and including this one */
};

struct log_cache {
    struct log_cache_entry *ring;
    size_t capacity; /* a power of two */
    uint64_t base, last;
    uint64_t released; /* trimmed entries up to here have given their memory back; ≤ base */
    uint64_t bytes; /* end of the last entry */
};

#define LOG_CACHE_RELEASE_APPEND 8u /* trimmed entries given back with each one that is added */

void log_cache_init(struct log_cache *c, uint64_t base);
void log_cache_close(struct log_cache *c);

/* Adds the entry last + 1, whose record lies in b. Takes a reference of b. */
void log_cache_append(struct log_cache *c, const struct record_header *record, struct batch *b,
                      uint64_t ticket);
/* Drops the entries from index on. */
void log_cache_truncate(struct log_cache *c, uint64_t index);
/* Drops the entries up to and including index; what is beyond last is not an error. Their memory is
 * given back later, little by little, with entries that are added and by log_cache_release: freeing
 * fifty thousand in one go would hold the loop for milliseconds. */
void log_cache_trim(struct log_cache *c, uint64_t index);
/* Gives back the memory of up to count trimmed entries. */
void log_cache_release(struct log_cache *c, size_t count);
/* Drops everything and starts again behind base. */
void log_cache_reset(struct log_cache *c, uint64_t base);

/* The entry at index, or NULL when it is not in the cache. Valid until the next change. */
const struct log_cache_entry *log_cache_get(const struct log_cache *c, uint64_t index);
/* The smallest index that has no more than size bytes of entries behind it; at least base. */
uint64_t log_cache_index_within(const struct log_cache *c, uint64_t size);
/* The term of the entry at index, 0 when it is not in the cache. */
uint64_t log_cache_term(const struct log_cache *c, uint64_t index);

#endif
