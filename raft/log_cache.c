/* log_cache: a ring of references to encoded records. See log_cache.h. */
#include "raft/log_cache.h"

#include <raft.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#define LOG_CACHE_CAPACITY_INITIAL 1024u

struct batch *batch_create(size_t size)
{
    struct batch *b = raft_malloc(sizeof *b + size);
    CHECK(b != NULL);
    *b = (struct batch){.references = 0, .size = size};
    return b;
}

void batch_destroy(struct batch *b)
{
    CHECK(b->references == 0);
    raft_free(b);
}

void batch_retain(struct batch *b)
{
    CHECK(b->references < UINT32_MAX);
    b->references++;
}

void batch_release(struct batch *b)
{
    CHECK(b->references > 0);
    if (--b->references == 0) {
        raft_free(b);
    }
}

static struct log_cache_entry *log_cache_slot(const struct log_cache *c, uint64_t index)
{
    return &c->ring[index & (c->capacity - 1)];
}

void log_cache_init(struct log_cache *c, uint64_t base)
{
    c->capacity = LOG_CACHE_CAPACITY_INITIAL;
    c->ring = calloc(c->capacity, sizeof *c->ring);
    CHECK(c->ring != NULL);
    c->base = base;
    c->last = base;
    c->released = base;
}

void log_cache_close(struct log_cache *c)
{
    log_cache_reset(c, c->last);
    free(c->ring);
    c->ring = NULL;
}

/* A slot depends on the capacity, so each entry moves to its place in the larger ring. */
static void log_cache_grow(struct log_cache *c)
{
    struct log_cache larger = *c;
    larger.capacity = c->capacity * 2;
    larger.ring = calloc(larger.capacity, sizeof *larger.ring);
    CHECK(larger.ring != NULL);
    for (uint64_t index = c->released + 1; index <= c->last; index++) {
        *log_cache_slot(&larger, index) = *log_cache_slot(c, index);
    }
    free(c->ring);
    *c = larger;
}

void log_cache_append(struct log_cache *c, const struct record_header *record, struct batch *b,
                      uint64_t ticket)
{
    CHECK(record->index == c->last + 1);
    log_cache_release(c, LOG_CACHE_RELEASE_APPEND);
    if (c->last - c->released == c->capacity) {
        log_cache_grow(c);
    }
    batch_retain(b);
    c->last++;
    c->bytes += record_size(record);
    *log_cache_slot(c, c->last) = (struct log_cache_entry){record, b, ticket, c->bytes};
}

void log_cache_truncate(struct log_cache *c, uint64_t index)
{
    CHECK(index > c->base);
    while (c->last >= index) {
        const struct log_cache_entry *entry = log_cache_slot(c, c->last);
        c->bytes = entry->end - record_size(entry->record);
        batch_release(entry->batch);
        c->last--;
    }
}

void log_cache_trim(struct log_cache *c, uint64_t index)
{
    if (index > c->last) {
        index = c->last;
    }
    if (index > c->base) {
        c->base = index;
    }
}

void log_cache_release(struct log_cache *c, size_t count)
{
    for (; count > 0 && c->released < c->base; count--) {
        c->released++;
        batch_release(log_cache_slot(c, c->released)->batch);
    }
}

void log_cache_reset(struct log_cache *c, uint64_t base)
{
    log_cache_trim(c, c->last);
    log_cache_release(c, SIZE_MAX);
    c->base = base;
    c->last = base;
    c->released = base;
}

const struct log_cache_entry *log_cache_get(const struct log_cache *c, uint64_t index)
{
    return index > c->base && index <= c->last ? log_cache_slot(c, index) : NULL;
}

uint64_t log_cache_index_within(const struct log_cache *c, uint64_t size)
{
    uint64_t low = c->base, high = c->last;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        const struct log_cache_entry *next = log_cache_slot(c, middle + 1);
        uint64_t behind = c->bytes - next->end + record_size(next->record);
        if (behind <= size) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

uint64_t log_cache_term(const struct log_cache *c, uint64_t index)
{
    const struct log_cache_entry *entry = log_cache_get(c, index);
    return entry != NULL ? entry->record->term : 0;
}
