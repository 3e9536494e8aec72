/* Encoding and judging segments and writes: pure functions over memory. */
#include "raft/wal_format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"

static bool all_zero(const uint8_t *p, size_t size)
{
    return size == 0 || (p[0] == 0 && memcmp(p, p + 1, size - 1) == 0);
}

/* crc32c of size bytes at data as if the four at crc_offset were zero. */
static uint32_t crc_without_itself(const void *data, size_t size, size_t crc_offset)
{
    const uint8_t *p = data;
    static const uint8_t zero[4];
    uint32_t crc = crc32c(0, p, crc_offset);
    crc = crc32c(crc, zero, sizeof zero);
    return crc32c(crc, p + crc_offset + 4, size - crc_offset - 4);
}

void wal_segment_header_seal(void *block)
{
    struct wal_segment_header *h = block;
    memset((uint8_t *)block + sizeof *h, 0, WAL_BLOCK_SIZE - sizeof *h);
    memcpy(h->magic, WAL_SEGMENT_MAGIC, sizeof h->magic);
    h->crc = crc_without_itself(block, WAL_BLOCK_SIZE, offsetof(struct wal_segment_header, crc));
}

bool wal_segment_header_ok(const void *block)
{
    const struct wal_segment_header *h = block;
    return memcmp(h->magic, WAL_SEGMENT_MAGIC, sizeof h->magic) == 0 &&
           h->crc ==
               crc_without_itself(block, WAL_BLOCK_SIZE, offsetof(struct wal_segment_header, crc));
}

void wal_write_header_seal(struct wal_write_header *h)
{
    h->magic = WAL_WRITE_MAGIC;
    h->crc = crc_without_itself(h, sizeof *h, offsetof(struct wal_write_header, crc));
}

bool wal_write_header_ok(const struct wal_write_header *h, uint64_t salt)
{
    return h->magic == WAL_WRITE_MAGIC && h->salt == salt &&
           h->crc == crc_without_itself(h, sizeof *h, offsetof(struct wal_write_header, crc));
}

bool wal_write_ok(const void *at, size_t available, uint64_t salt, uint64_t sequence)
{
    const struct wal_write_header *h = at;
    if (available < WAL_BLOCK_SIZE || !wal_write_header_ok(h, salt) || h->sequence != sequence) {
        return false;
    }
    if (h->size < sizeof *h || h->size > available || (h->flags & ~WAL_WRITE_RESETS) != 0) {
        return false;
    }
    size_t span = wal_round_up(h->size);
    if (span > available) {
        return false;
    }
    const uint8_t *p = (const uint8_t *)at + sizeof *h;
    const uint8_t *end = (const uint8_t *)at + h->size;
    uint32_t digest = 0;
    for (uint32_t i = 0; i < h->count; i++) {
        if (p == end || record_check(p, (size_t)(end - p)) != RECORD_VALID) {
            return false;
        }
        const struct record_header *record = (const struct record_header *)(const void *)p;
        digest = crc32c(digest, &record->crc32c, sizeof record->crc32c);
        p += record_size(record);
    }
    return p == end && digest == h->digest && all_zero(end, span - h->size);
}

bool wal_write_continues(const void *at, size_t available, uint64_t salt, uint64_t sequence)
{
    const struct wal_write_header *h = at;
    return available >= WAL_BLOCK_SIZE && wal_write_header_ok(h, salt) && h->sequence == sequence &&
           h->flags == WAL_WRITE_CONTINUES;
}

bool wal_write_may_be_torn(const void *at, size_t available, uint64_t salt, uint64_t sequence)
{
    const struct wal_write_header *h = at;
    if (available < WAL_BLOCK_SIZE) {
        return true;
    }
    if (!wal_write_header_ok(h, salt)) {
        /* A sector of an earlier life holds a header with a checksum that fits, or data. What has our
         * salt, or our sequence number, and a checksum that does not fit was ours and was hurt. */
        bool old = h->magic == WAL_WRITE_MAGIC && wal_write_header_ok(h, h->salt);
        return old || !(h->salt == salt || (h->magic == WAL_WRITE_MAGIC && h->sequence == sequence));
    }
    if (h->sequence != sequence || h->size < sizeof *h || h->size > available ||
        wal_round_up(h->size) > available) {
        return h->sequence < sequence; /* an earlier issue at this place; never one that makes no sense */
    }
    /* The header is whole, so the sector that it stands in is that of one write, and a record that lies in
     * it altogether must be whole. Of later sectors nothing can be concluded, not even from a record that
     * reaches into one and is whole: the bytes that it has there may be those that were there before, zeros
     * or the same record of an earlier issue that a crash had cut. */
    size_t offset = sizeof *h;
    for (uint32_t i = 0; i < h->count && offset + sizeof(struct record_header) <= WAL_SECTOR_SIZE; i++) {
        const struct record_header *record =
            (const struct record_header *)(const void *)((const uint8_t *)at + offset);
        if (offset + sizeof *record > h->size) {
            return false;
        }
        enum record_verdict verdict = record_check(record, h->size - offset);
        if (verdict == RECORD_INVALID) {
            return record->size <= RECORD_DATA_SIZE_MAX &&
                   offset + record_size(record) > WAL_SECTOR_SIZE;
        }
        if (verdict != RECORD_VALID) {
            return false;
        }
        offset += record_size(record);
    }
    return true;
}

void wal_name(char name[static WAL_IO_NAME_SIZE], const char *pattern, uint64_t number)
{
    int n;
    if (strcmp(pattern, WAL_NAME_SEGMENT) == 0) {
        n = snprintf(name, WAL_IO_NAME_SIZE, WAL_NAME_SEGMENT, (unsigned long long)number);
    } else if (strcmp(pattern, WAL_NAME_SPARE) == 0) {
        n = snprintf(name, WAL_IO_NAME_SIZE, WAL_NAME_SPARE, (unsigned long long)number);
    } else {
        n = snprintf(name, WAL_IO_NAME_SIZE, WAL_NAME_TEMP, (unsigned long long)number);
    }
    CHECK(n > 0 && n < WAL_IO_NAME_SIZE);
}

bool wal_name_parse(const char *name, const char *pattern, uint64_t *number)
{
    const char *digit = strncmp(name, "spare-", 6) == 0 ? name + 6 : name;
    *number = 0;
    for (int i = 0; i < 16; i++, digit++) {
        if (*digit >= '0' && *digit <= '9') {
            *number = *number << 4 | (uint64_t)(*digit - '0');
        } else if (*digit >= 'a' && *digit <= 'f') {
            *number = *number << 4 | (uint64_t)(*digit - 'a' + 10);
        } else {
            return false;
        }
    }
    char again[WAL_IO_NAME_SIZE];
    wal_name(again, pattern, *number);
    return strcmp(name, again) == 0;
}

/* ---- building one write ---- */

size_t wal_block_capacity_max(uint64_t segment_size)
{
    uint64_t room = segment_size - WAL_BLOCK_SIZE;
    return room < WAL_WRITE_SIZE_MAX ? (size_t)room : WAL_WRITE_SIZE_MAX;
}

size_t wal_record_size_max(uint64_t segment_size)
{
    return wal_block_capacity_max(segment_size) - sizeof(struct wal_write_header);
}

void wal_block_init(struct wal_block *b, void *data, size_t capacity)
{
    CHECK((uintptr_t)data % WAL_BLOCK_SIZE == 0);
    CHECK(capacity >= WAL_BLOCK_SIZE && capacity % WAL_BLOCK_SIZE == 0);
    *b = (struct wal_block){
        .data = data, .capacity = capacity, .size = sizeof(struct wal_write_header)};
}

bool wal_block_add(struct wal_block *b, const struct record_header *record)
{
    size_t size = record_size(record);
    if (b->capacity - b->size < size) {
        return false;
    }
    memcpy(b->data + b->size, record, size);
    b->size += size;
    b->count++;
    b->digest = crc32c(b->digest, &record->crc32c, sizeof record->crc32c);
    if (record->type == RECORD_VOTE) {
        b->has_vote = true;
        b->vote_term = record->term;
        b->vote = record_voted_for(record);
    } else {
        b->last_index = record->index;
        b->last_term = record->term;
        b->index_max = record->index > b->index_max ? record->index : b->index_max;
    }
    return true;
}

void wal_block_add_reset(struct wal_block *b, uint64_t index, uint64_t term)
{
    CHECK(b->count == 0);
    CHECK(!b->has_reset);
    b->has_reset = true;
    b->reset_index = b->last_index = index;
    b->reset_term = b->last_term = term;
}
