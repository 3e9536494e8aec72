#include "proto/submit_frame.h"

#include <string.h>

#include "base/bytes.h"

/* Field numbers of node.proto. */
enum { REQUEST_ID = 1, REQUEST_GROUP = 2, REQUEST_TIMEOUT_MS = 3, REQUEST_SUBMIT = 10 };
enum { SUBMIT_COMMANDS = 1 };
enum {
    RESPONSE_ID = 1,
    RESPONSE_STATUS = 2,
    RESPONSE_MESSAGE = 3,
    RESPONSE_INDEX = 4,
    RESPONSE_TIME_MS = 5,
    RESPONSE_LEADER_ID = 6,
    RESPONSE_LEADER_ADDRESS = 7,
    RESPONSE_RETRY_AFTER_MS = 8,
    RESPONSE_SUBMIT = 10
};
enum { RESULT_OUTCOMES = 1 };
enum { OUTCOME_STATUS = 1, OUTCOME_REPLY = 2 };

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct field {
    uint32_t number;
    enum wire_type type;
    uint64_t value;       /* varint */
    const uint8_t *bytes; /* length-delimited: value bytes */
};

static bool read_varint(struct reader *r, uint64_t *value)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        uint8_t b = reader_u8(r);
        if (shift < 64) {
            v |= (uint64_t)(b & 0x7F) << shift;
        }
        if ((b & 0x80) == 0) {
            *value = v;
            return !r->failed;
        }
    }
    r->failed = true;
    return false;
}

/* Returns 1, 0 at the end, -1 malformed. */
static int read_field(struct reader *r, struct field *f)
{
    if (reader_left(r) == 0) {
        return 0;
    }
    uint64_t tag;
    if (!read_varint(r, &tag) || tag > UINT32_MAX || tag >> 3 == 0) {
        return -1;
    }
    f->number = (uint32_t)(tag >> 3);
    f->type = (enum wire_type)(tag & 7);
    f->bytes = NULL;
    switch (f->type) {
    case WIRE_VARINT:
        return read_varint(r, &f->value) ? 1 : -1;
    case WIRE_FIXED64:
        f->value = reader_u64(r);
        return r->failed ? -1 : 1;
    case WIRE_FIXED32:
        f->value = reader_u32(r);
        return r->failed ? -1 : 1;
    case WIRE_BYTES:
        if (!read_varint(r, &f->value) || f->value > reader_left(r)) {
            return -1;
        }
        f->bytes = reader_bytes(r, (size_t)f->value);
        return 1;
    default:
        return -1;
    }
}

static uint8_t *write_varint(uint8_t *at, uint64_t value)
{
    while (value >= 0x80) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *at++ = (uint8_t)value;
    return at;
}

static size_t varint_size(uint64_t value)
{
    size_t n = 1;
    for (; value >= 0x80; value >>= 7) {
        n++;
    }
    return n;
}

/* Fields below 16 have one-byte tags. proto3 leaves zeros out. */
static uint8_t *write_u64(uint8_t *at, uint32_t number, uint64_t value)
{
    if (value == 0) {
        return at;
    }
    *at++ = (uint8_t)(number << 3 | WIRE_VARINT);
    return write_varint(at, value);
}

static uint8_t *write_length(uint8_t *at, uint32_t number, size_t size)
{
    *at++ = (uint8_t)(number << 3 | WIRE_BYTES);
    return write_varint(at, size);
}

static int open_commands(struct submit_request *r, const uint8_t *data, size_t size)
{
    struct reader in = reader_init(data, size);
    struct field f;
    int more;
    r->count = 0;
    while ((more = read_field(&in, &f)) > 0) {
        if (f.number == SUBMIT_COMMANDS) {
            if (f.type != WIRE_BYTES) {
                return -1;
            }
            r->count++;
        }
    }
    r->at = data;
    r->end = data + size;
    return more;
}

int submit_request_open(struct submit_request *r, const void *data, size_t size)
{
    *r = (struct submit_request){0};
    struct reader in = reader_init(data, size);
    struct field f;
    int more;
    while ((more = read_field(&in, &f)) > 0) {
        if (f.number == REQUEST_SUBMIT) {
            if (f.type != WIRE_BYTES || r->is_submit) {
                return -1; /* a second body would have to be merged: nobody sends that */
            }
            r->is_submit = true;
            if (open_commands(r, f.bytes, (size_t)f.value) < 0) {
                return -1;
            }
        } else if (f.number <= REQUEST_TIMEOUT_MS) {
            if (f.type != WIRE_VARINT) {
                return -1;
            }
            if (f.number == REQUEST_ID) {
                r->id = f.value;
            } else if (f.number == REQUEST_GROUP) {
                r->group = (uint32_t)f.value;
            } else {
                r->timeout_ms = (uint32_t)f.value;
            }
        } else if (f.number > REQUEST_SUBMIT && r->is_submit) {
            return -1; /* two bodies */
        }
    }
    return more;
}

bool submit_request_next(struct submit_request *r, const void **command, size_t *size)
{
    struct reader in = reader_init(r->at, (size_t)(r->end - r->at));
    struct field f;
    while (read_field(&in, &f) > 0) {
        if (f.number == SUBMIT_COMMANDS) {
            r->at = in.at;
            *command = f.bytes;
            *size = (size_t)f.value;
            return true;
        }
    }
    r->at = r->end;
    return false;
}

size_t submit_request_command_size(size_t command_size)
{
    return 1 + varint_size(command_size) + command_size;
}

size_t submit_request_write_head(uint8_t *start, uint64_t id, uint32_t timeout_ms,
                                 size_t commands_size)
{
    uint8_t *at = write_u64(start, REQUEST_ID, id);
    at = write_u64(at, REQUEST_TIMEOUT_MS, timeout_ms);
    at = write_length(at, REQUEST_SUBMIT, commands_size);
    return (size_t)(at - start);
}

size_t submit_request_write_command(uint8_t *start, const void *command, size_t size)
{
    uint8_t *at = write_length(start, SUBMIT_COMMANDS, size);
    memcpy(at, command, size);
    return (size_t)(at - start) + size;
}

static size_t outcome_size(const struct submit_outcome *o)
{
    return o->status == 0 ? 1 + varint_size(REPLY_SIZE) + REPLY_SIZE : 2;
}

size_t submit_response_write(uint8_t *out, uint64_t id, uint64_t index, int64_t time_ms,
                             uint32_t retry_after_ms, const struct submit_outcome *outcomes,
                             uint32_t count)
{
    _Static_assert(REPLY_SIZE + 3 + 3 <= SUBMIT_RESPONSE_OUTCOME_MAX, "an outcome fits its room");
    uint8_t *at = write_u64(out, RESPONSE_ID, id);
    at = write_u64(at, RESPONSE_INDEX, index);
    at = write_u64(at, RESPONSE_TIME_MS, (uint64_t)time_ms);
    at = write_u64(at, RESPONSE_RETRY_AFTER_MS, retry_after_ms);
    size_t body = 0;
    for (uint32_t i = 0; i < count; i++) {
        size_t n = outcome_size(&outcomes[i]);
        body += 1 + varint_size(n) + n;
    }
    at = write_length(at, RESPONSE_SUBMIT, body);
    for (uint32_t i = 0; i < count; i++) {
        const struct submit_outcome *o = &outcomes[i];
        at = write_length(at, RESULT_OUTCOMES, outcome_size(o));
        if (o->status == 0) {
            at = write_length(at, OUTCOME_REPLY, REPLY_SIZE);
            memcpy(at, o->reply, REPLY_SIZE);
            at += REPLY_SIZE;
        } else {
            *at++ = OUTCOME_STATUS << 3 | WIRE_VARINT;
            *at++ = o->status; /* below 128 */
        }
    }
    return (size_t)(at - out);
}

int submit_response_open(struct submit_response *r, const void *data, size_t size)
{
    *r = (struct submit_response){0};
    struct reader in = reader_init(data, size);
    struct field f;
    int more;
    while ((more = read_field(&in, &f)) > 0) {
        bool bytes = f.number == RESPONSE_MESSAGE || f.number == RESPONSE_LEADER_ADDRESS ||
                     f.number == RESPONSE_SUBMIT;
        if (f.number <= RESPONSE_SUBMIT && f.number != RESPONSE_SUBMIT - 1 &&
            f.type != (bytes ? WIRE_BYTES : WIRE_VARINT)) {
            return -1;
        }
        switch (f.number) {
        case RESPONSE_ID:
            r->id = f.value;
            break;
        case RESPONSE_STATUS:
            r->status = (uint32_t)f.value;
            break;
        case RESPONSE_MESSAGE:
            r->message = (struct str){(const char *)f.bytes, (uint32_t)f.value};
            break;
        case RESPONSE_LEADER_ID:
            r->leader_id = f.value;
            break;
        case RESPONSE_LEADER_ADDRESS:
            r->leader_address = (struct str){(const char *)f.bytes, (uint32_t)f.value};
            break;
        case RESPONSE_RETRY_AFTER_MS:
            r->retry_after_ms = (uint32_t)f.value;
            break;
        case RESPONSE_SUBMIT:
            r->has_outcomes = true;
            r->at = f.bytes;
            r->end = f.bytes + f.value;
            break;
        default:
            break;
        }
    }
    return more;
}

int submit_response_next(struct submit_response *r, uint32_t *status, const void **reply,
                         size_t *reply_size)
{
    struct reader in = reader_init(r->at, (size_t)(r->end - r->at));
    struct field f;
    int more;
    do {
        more = read_field(&in, &f);
        if (more <= 0) {
            return more;
        }
    } while (f.number != RESULT_OUTCOMES);
    if (f.type != WIRE_BYTES) {
        return -1;
    }
    r->at = in.at;
    *status = 0;
    *reply = NULL;
    *reply_size = 0;
    struct reader outcome = reader_init(f.bytes, (size_t)f.value);
    while ((more = read_field(&outcome, &f)) > 0) {
        if (f.number == OUTCOME_STATUS && f.type == WIRE_VARINT) {
            *status = (uint32_t)f.value;
        } else if (f.number == OUTCOME_REPLY && f.type == WIRE_BYTES) {
            *reply = f.bytes;
            *reply_size = (size_t)f.value;
        } else if (f.number <= OUTCOME_REPLY) {
            return -1;
        }
    }
    return more < 0 ? -1 : 1;
}
