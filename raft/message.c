#include "raft/message.h"

#include <string.h>

#include "base/check.h"
#include "raft/membership.h"
#include "raft/replica.h"

_Static_assert(MESSAGE_CONFIGURATION_MAX == REPLICA_CONFIGURATION_SIZE_MAX, "one limit, two names");
_Static_assert(MESSAGE_DATA_MAX == REPLICA_TICKET_SIZE_MAX, "one limit, two names");
_Static_assert(MESSAGE_MEMBERS_MAX == REPLICA_MEMBERS_MAX, "one limit, two names");
_Static_assert(RECORD_DATA_SIZE_MAX == REPLICA_ENTRY_SIZE_MAX, "one limit, two names");

/* Indexes and terms beyond this are nonsense; below it sums cannot overflow. */
#define NUMBER_MAX ((uint64_t)1 << 62)

#define FLAG_VOTE_DISRUPT 1u
#define FLAG_VOTE_PRE     2u
#define FLAG_VOTE_GRANTED 1u
#define FLAG_CLOCK        1u
#define FLAG_CLOCK_LEADS  2u
#define FLAG_CLOCK_SUSPECT 4u

/* As on the wire. What a, b, c and d mean depends on the kind. */
struct header {
    uint8_t kind;
    uint8_t reserved;
    uint16_t flags;
    uint32_t count;
    uint64_t term;
    uint64_t a, b, c;
    uint16_t features, capacity;
    uint32_t configuration_size;
    uint32_t data_size;
    uint32_t reserved2;
    uint64_t d;
};
_Static_assert(sizeof(struct header) == MESSAGE_HEADER_SIZE, "written as it is in memory");

/* What the core expects in `version` of a message that has all fields of 0.22.1. */
enum {
    VERSION_APPEND_ENTRIES = 0,
    VERSION_APPEND_ENTRIES_RESULT = 1,
    VERSION_REQUEST_VOTE = 2,
    VERSION_REQUEST_VOTE_RESULT = 2,
    VERSION_INSTALL_SNAPSHOT = 0,
    VERSION_TIMEOUT_NOW = 1,
};

static size_t padded(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

/* ---- encode ---- */

static enum message_kind kind_of(const struct message_out *m)
{
    return m->raft != NULL ? (enum message_kind)m->raft->type : m->kind;
}

size_t message_size(const struct message_out *m)
{
    size_t size = MESSAGE_HEADER_SIZE;
    if (kind_of(m) == MESSAGE_APPEND_ENTRIES) {
        unsigned count = m->raft->append_entries.n_entries;
        if (count > MESSAGE_ENTRIES_MAX) {
            return 0;
        }
        for (unsigned i = 0; i < count; i++) {
            size += record_size(m->records[i]);
        }
    } else if (kind_of(m) == MESSAGE_INSTALL_SNAPSHOT || kind_of(m) == MESSAGE_HELLO) {
        if (m->configuration_size > MESSAGE_CONFIGURATION_MAX || m->data_size > MESSAGE_DATA_MAX) {
            return 0;
        }
        size += padded(m->configuration_size) + padded(m->data_size);
    }
    return size <= MESSAGE_SIZE_MAX ? size : 0;
}

static uint8_t *put_padded(uint8_t *at, const void *data, size_t size)
{
    if (size > 0) {
        memcpy(at, data, size);
        memset(at + size, 0, padded(size) - size);
    }
    return at + padded(size);
}

/* The fields of a message of the core; returns what must stand behind the header, as size. */
static void header_from_raft(struct header *h, const struct raft_message *m)
{
    switch (m->type) {
    case RAFT_APPEND_ENTRIES:
        h->term = m->append_entries.term;
        h->a = m->append_entries.prev_log_index;
        h->b = m->append_entries.prev_log_term;
        h->c = m->append_entries.leader_commit;
        h->count = m->append_entries.n_entries;
        return;
    case RAFT_APPEND_ENTRIES_RESULT:
        h->term = m->append_entries_result.term;
        h->a = m->append_entries_result.rejected;
        h->b = m->append_entries_result.last_log_index;
        h->features = m->append_entries_result.features;
        h->capacity = m->append_entries_result.capacity;
        return;
    case RAFT_REQUEST_VOTE:
        h->term = m->request_vote.term;
        h->a = m->request_vote.last_log_index;
        h->b = m->request_vote.last_log_term;
        h->flags = (uint16_t)((m->request_vote.disrupt_leader ? FLAG_VOTE_DISRUPT : 0) |
                              (m->request_vote.pre_vote ? FLAG_VOTE_PRE : 0));
        return;
    case RAFT_REQUEST_VOTE_RESULT:
        h->term = m->request_vote_result.term;
        h->flags = (uint16_t)((m->request_vote_result.vote_granted ? FLAG_VOTE_GRANTED : 0) |
                              (m->request_vote_result.pre_vote ? FLAG_VOTE_PRE : 0));
        h->features = m->request_vote_result.features;
        h->capacity = m->request_vote_result.capacity;
        return;
    case RAFT_INSTALL_SNAPSHOT:
        h->term = m->install_snapshot.term;
        h->a = m->install_snapshot.last_index;
        h->b = m->install_snapshot.last_term;
        h->c = m->install_snapshot.conf_index;
        return;
    case RAFT_TIMEOUT_NOW:
        h->term = m->timeout_now.term;
        h->a = m->timeout_now.last_log_index;
        h->b = m->timeout_now.last_log_term;
        return;
    }
    CHECK_UNREACHABLE();
}

void message_encode(const struct message_out *m, void *at)
{
    struct header h = {.kind = (uint8_t)kind_of(m)};
    if (m->raft != NULL) {
        header_from_raft(&h, m->raft);
    } else {
        h.term = m->term;
        h.a = m->seq;
        h.b = m->index;
    }
    if (h.kind == MESSAGE_PONG && m->clock.monotonic_ns != 0) {
        h.flags = (uint16_t)(FLAG_CLOCK | (m->clock.leads ? FLAG_CLOCK_LEADS : 0) |
                             (m->clock.suspect ? FLAG_CLOCK_SUSPECT : 0));
        h.b = m->clock.monotonic_ns;
        h.c = m->clock.wall_ms;
        h.d = m->clock.cluster_ns;
    }
    uint8_t *body = (uint8_t *)at + MESSAGE_HEADER_SIZE;
    if (h.kind == MESSAGE_APPEND_ENTRIES) {
        for (uint32_t i = 0; i < h.count; i++) {
            size_t size = record_size(m->records[i]);
            memcpy(body, m->records[i], size);
            body += size;
        }
    } else if (h.kind == MESSAGE_INSTALL_SNAPSHOT || h.kind == MESSAGE_HELLO) {
        h.configuration_size = (uint32_t)m->configuration_size;
        h.data_size = (uint32_t)m->data_size;
        body = put_padded(body, m->configuration, m->configuration_size);
        put_padded(body, m->data, m->data_size);
    }
    memcpy(at, &h, sizeof h);
}

/* ---- decode ---- */

/* Records that continue prev, in order, and fill the space exactly. */
static int decode_records(const struct header *h, const uint8_t *body, size_t size,
                          struct message *m)
{
    if (h->count > MESSAGE_ENTRIES_MAX || h->b > h->term || (h->a == 0 && h->b != 0)) {
        return -1;
    }
    m->records = (const struct record_header *)(const void *)body;
    m->records_size = size;
    uint64_t term = h->b;
    for (uint32_t i = 0; i < h->count; i++) {
        if (record_check(body, size) != RECORD_VALID) {
            return -1;
        }
        const struct record_header *record = (const struct record_header *)(const void *)body;
        if (record->type == RECORD_VOTE || record->index != h->a + 1 + i || record->term < term ||
            record->term > h->term) {
            return -1;
        }
        term = record->term;
        body += record_size(record);
        size -= record_size(record);
    }
    return size == 0 ? 0 : -1;
}

static int decode_parts(const struct header *h, const uint8_t *body, size_t size, struct message *m)
{
    if (h->configuration_size > MESSAGE_CONFIGURATION_MAX || h->data_size > MESSAGE_DATA_MAX ||
        size != padded(h->configuration_size) + padded(h->data_size)) {
        return -1;
    }
    m->configuration = body;
    m->configuration_size = h->configuration_size;
    m->data = body + padded(h->configuration_size);
    m->data_size = h->data_size;
    return 0;
}

static int decode_install(const struct header *h, const uint8_t *body, size_t size,
                          struct message *m)
{
    struct membership membership;
    if (decode_parts(h, body, size, m) != 0 || h->a == 0 || h->b > h->term || h->c > h->a ||
        membership_decode(m->configuration, m->configuration_size, &membership) != 0) {
        return -1;
    }
    m->raft.install_snapshot = (struct raft_install_snapshot){.version = VERSION_INSTALL_SNAPSHOT,
                                                              .term = h->term,
                                                              .last_index = h->a,
                                                              .last_term = h->b,
                                                              .conf_index = h->c};
    return 0;
}

int message_decode(const void *data, size_t size, struct message *m)
{
    struct header h;
    if (size < sizeof h || size > MESSAGE_SIZE_MAX) {
        return -1;
    }
    memcpy(&h, data, sizeof h);
    const uint8_t *body = (const uint8_t *)data + sizeof h;
    size -= sizeof h;
    if (h.term >= NUMBER_MAX || h.a >= NUMBER_MAX || h.b >= NUMBER_MAX || h.c >= NUMBER_MAX) {
        return -1;
    }
    *m = (struct message){.kind = (enum message_kind)h.kind};
    m->raft.type = (enum raft_message_type)h.kind;
    switch ((enum message_kind)h.kind) {
    case MESSAGE_APPEND_ENTRIES:
        m->raft.append_entries = (struct raft_append_entries){.version = VERSION_APPEND_ENTRIES,
                                                              .term = h.term,
                                                              .prev_log_index = h.a,
                                                              .prev_log_term = h.b,
                                                              .leader_commit = h.c,
                                                              .n_entries = h.count};
        return h.term > 0 ? decode_records(&h, body, size, m) : -1;
    case MESSAGE_INSTALL_SNAPSHOT:
        return decode_install(&h, body, size, m);
    case MESSAGE_HELLO:
        m->seq = h.a;
        m->index = h.b;
        return decode_parts(&h, body, size, m);
    case MESSAGE_APPEND_ENTRIES_RESULT:
        m->raft.append_entries_result =
            (struct raft_append_entries_result){.version = VERSION_APPEND_ENTRIES_RESULT,
                                                .term = h.term,
                                                .rejected = h.a,
                                                .last_log_index = h.b,
                                                .features = h.features,
                                                .capacity = h.capacity};
        break;
    case MESSAGE_REQUEST_VOTE:
        m->raft.request_vote =
            (struct raft_request_vote){.version = VERSION_REQUEST_VOTE,
                                       .term = h.term,
                                       .last_log_index = h.a,
                                       .last_log_term = h.b,
                                       .disrupt_leader = (h.flags & FLAG_VOTE_DISRUPT) != 0,
                                       .pre_vote = (h.flags & FLAG_VOTE_PRE) != 0};
        break;
    case MESSAGE_REQUEST_VOTE_RESULT:
        m->raft.request_vote_result =
            (struct raft_request_vote_result){.version = VERSION_REQUEST_VOTE_RESULT,
                                              .term = h.term,
                                              .vote_granted = (h.flags & FLAG_VOTE_GRANTED) != 0,
                                              .pre_vote = (h.flags & FLAG_VOTE_PRE) != 0,
                                              .features = h.features,
                                              .capacity = h.capacity};
        break;
    case MESSAGE_TIMEOUT_NOW:
        m->raft.timeout_now = (struct raft_timeout_now){.version = VERSION_TIMEOUT_NOW,
                                                        .term = h.term,
                                                        .last_log_index = h.a,
                                                        .last_log_term = h.b};
        break;
    case MESSAGE_READ:
    case MESSAGE_READ_ACK:
    case MESSAGE_REFILL:
    case MESSAGE_REFILL_ACK:
    case MESSAGE_REMOVED:
    case MESSAGE_WILLING:
    case MESSAGE_PING:
        m->term = h.term;
        m->seq = h.a;
        m->index = h.b;
        break;
    case MESSAGE_PONG:
        m->term = h.term;
        m->seq = h.a;
        if ((h.flags & FLAG_CLOCK) != 0) {
            if (h.b == 0) {
                return -1; /* clocks are there, but none runs: see struct message_clock */
            }
            m->clock = (struct message_clock){h.b, h.c, h.d, (h.flags & FLAG_CLOCK_LEADS) != 0,
                                              (h.flags & FLAG_CLOCK_SUSPECT) != 0};
        }
        return size == 0 && h.d < NUMBER_MAX ? 0 : -1;
    default:
        return -1;
    }
    return size == 0 ? 0 : -1;
}
