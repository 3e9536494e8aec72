/* record: encoding and checking. See record.h. */
#include "raft/record.h"

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"

static uint32_t record_checksum(const struct record_header *h)
{
    return crc32c(0, &h->size, record_size(h) - sizeof h->crc32c);
}

size_t record_encode(void *at, enum record_type type, uint64_t index, uint64_t term,
                     const void *data, uint32_t size)
{
    CHECK(((uintptr_t)at & (RECORD_ALIGNMENT - 1)) == 0);
    CHECK(size <= RECORD_DATA_SIZE_MAX);
    struct record_header *h = at;
    *h = (struct record_header){.size = size, .index = index, .term = term, .type = (uint8_t)type};
    uint8_t *body = (uint8_t *)(h + 1);
    if (data != NULL && size > 0) {
        memcpy(body, data, size);
    }
    memset(body + size, 0, record_padded(size) - size);
    h->crc32c = record_checksum(h);
    return record_span(size);
}

size_t record_encode_vote(void *at, uint64_t term, uint64_t voted_for)
{
    return record_encode(at, RECORD_VOTE, 0, term, &voted_for, sizeof voted_for);
}

uint64_t record_voted_for(const struct record_header *h)
{
    CHECK(h->type == RECORD_VOTE);
    return load_u64(record_data(h));
}

/* What the checksum cannot tell: that the fields make sense together. */
static bool record_plausible(const struct record_header *h)
{
    static const uint8_t zeros[sizeof h->pad];
    if (h->size > RECORD_DATA_SIZE_MAX || memcmp(h->pad, zeros, sizeof zeros) != 0) {
        return false;
    }
    switch (h->type) {
    case RECORD_COMMAND:
    case RECORD_NOOP:
    case RECORD_CHANGE:
        return h->index > 0 && h->term > 0;
    case RECORD_VOTE:
        return h->index == 0 && h->size == sizeof(uint64_t);
    default:
        return false;
    }
}

enum record_verdict record_check(const void *at, size_t available)
{
    static const struct record_header zero;
    if (available < sizeof zero) {
        return RECORD_PARTIAL;
    }
    const struct record_header *h = at;
    if (memcmp(h, &zero, sizeof zero) == 0) {
        return RECORD_NONE;
    }
    if (!record_plausible(h)) {
        return RECORD_INVALID;
    }
    if (record_size(h) > available) {
        return RECORD_PARTIAL;
    }
    return record_checksum(h) == h->crc32c ? RECORD_VALID : RECORD_INVALID;
}
