/* Raft messages as frames between nodes (raft/message.h), configurations (raft/membership.h) and
 * records (raft/record.h).
 *
 * Input: first byte: bit 0 set: checksums of the records in it are put right before it is looked at, so
 * that what lies behind them is reached; the rest: a frame's payload.
 * Asserted: whatever decodes keeps the promises of struct message, encodes again, and decodes to the
 * same; a configuration that decodes encodes to one that says the same. */
#include <stdio.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "raft/membership.h"
#include "raft/message.h"
#include "tests/fuzz/fuzz.h"

#define SIZE_LIMIT (1u << 20)

void fuzz_begin(void)
{
}

/* Walks records as their sizes say and makes each checksum the right one. */
static void put_checksums_right(uint8_t *data, size_t size)
{
    size_t at = MESSAGE_HEADER_SIZE;
    while (at < size && size - at >= sizeof(struct record_header)) {
        size_t span = record_span(load_u32(data + at + 4) % RECORD_DATA_SIZE_MAX);
        if (span > size - at) {
            return;
        }
        store_u32(data + at, crc32c(0, data + at + 4, span - 4));
        at += span;
    }
}

static void check_membership(const void *data, size_t size)
{
    struct membership m, again;
    uint8_t out[REPLICA_CONFIGURATION_SIZE_MAX];
    if (membership_decode(data, size, &m) != 0) {
        return;
    }
    CHECK(m.count >= 1 && m.count <= REPLICA_MEMBERS_MAX);
    CHECK(membership_count_voters(&m) <= m.count);
    int n = membership_encode(&m, out);
    CHECK(n > 0 && n % 8 == 0);
    CHECK(membership_decode(out, (size_t)n, &again) == 0);
    CHECK(again.count == m.count);
    for (size_t i = 0; i < m.count; i++) {
        CHECK(again.members[i].id == m.members[i].id && again.members[i].role == m.members[i].role);
        CHECK(membership_find(&m, m.members[i].id) == &m.members[i]);
    }
}

static void check_append(const struct message *m, const struct record_header **records)
{
    const struct raft_append_entries *a = &m->raft.append_entries;
    const struct record_header *record = m->records;
    size_t left = m->records_size;
    uint64_t term = a->prev_log_term;
    CHECK(a->n_entries <= MESSAGE_ENTRIES_MAX);
    for (unsigned i = 0; i < a->n_entries; i++) {
        CHECK(record_check(record, left) == RECORD_VALID);
        CHECK(record->index == a->prev_log_index + 1 + i);
        CHECK(record->term >= term && record->term <= a->term);
        CHECK(record->type != RECORD_VOTE);
        CHECK(record->size <= RECORD_DATA_SIZE_MAX);
        if (record->type == RECORD_CHANGE) {
            check_membership(record_data(record), record->size);
        }
        records[i] = record;
        term = record->term;
        left -= record_size(record);
        record = record_next(record);
    }
    CHECK(left == 0);
}

static void check_again(const struct message *m, const struct message *n)
{
    CHECK(n->kind == m->kind);
    CHECK(n->term == m->term && n->seq == m->seq && n->index == m->index);
    CHECK(n->records_size == m->records_size);
    CHECK(n->configuration_size == m->configuration_size && n->data_size == m->data_size);
    CHECK(m->configuration_size == 0 ||
          memcmp(n->configuration, m->configuration, m->configuration_size) == 0);
    CHECK(m->data_size == 0 || memcmp(n->data, m->data, m->data_size) == 0);
    CHECK(m->records_size == 0 || memcmp(n->records, m->records, m->records_size) == 0);
    CHECK(n->clock.monotonic_ns == m->clock.monotonic_ns && n->clock.wall_ms == m->clock.wall_ms &&
          n->clock.leads == m->clock.leads && n->clock.suspect == m->clock.suspect);
}

static void run(const uint8_t *data, size_t size)
{
    static const struct record_header *records[MESSAGE_ENTRIES_MAX];
    struct message m, n;
    if (message_decode(data, size, &m) != 0) {
        return;
    }
    struct message_out out = {.raft = m.kind < MESSAGE_READ ? &m.raft : NULL,
                              .records = records,
                              .configuration = m.configuration,
                              .configuration_size = m.configuration_size,
                              .data = m.data,
                              .data_size = m.data_size,
                              .kind = m.kind,
                              .term = m.term,
                              .seq = m.seq,
                              .index = m.index,
                              .clock = m.clock};
    if (m.kind == MESSAGE_APPEND_ENTRIES) {
        check_append(&m, records);
    }
    if (m.kind == MESSAGE_INSTALL_SNAPSHOT) {
        struct membership membership;
        CHECK(membership_decode(m.configuration, m.configuration_size, &membership) == 0);
        check_membership(m.configuration, m.configuration_size);
    }
    size_t again_size = message_size(&out);
    CHECK(again_size == size);
    uint8_t *again = malloc(again_size);
    CHECK(again != NULL);
    message_encode(&out, again);
    CHECK(message_decode(again, again_size, &n) == 0);
    check_again(&m, &n);
    free(again);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    if (size < 1 || size > SIZE_LIMIT) {
        return;
    }
    uint8_t *copy = malloc(size); /* aligned, as a link gives it; and of exactly this size */
    CHECK(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    if ((data[0] & 1) != 0) {
        put_checksums_right(copy, size - 1);
    }
    check_membership(copy, size - 1);
    run(copy, size - 1);
    free(copy);
}

static void seed(const char *name, const struct message_out *m)
{
    size_t size = message_size(m);
    CHECK(size > 0);
    uint8_t *out = malloc(size + 8);
    CHECK(out != NULL);
    message_encode(m, out + 8);
    out[7] = 1;
    fuzz_seed(name, out + 7, size + 1);
    free(out);
}

void fuzz_seeds(void)
{
    struct membership three = {.count = 3};
    for (size_t i = 0; i < 3; i++) {
        three.members[i].id = i + 1;
        three.members[i].role = REPLICA_VOTER;
        snprintf(three.members[i].address, sizeof three.members[i].address,
                 "127.0.0.1:700%zu/127.0.0.1:710%zu", i, i);
    }
    uint8_t configuration[REPLICA_CONFIGURATION_SIZE_MAX];
    int configuration_size = membership_encode(&three, configuration);
    CHECK(configuration_size > 0);
    _Alignas(8) uint8_t memory[3][1024];
    const struct record_header *records[3];
    record_encode(memory[0], RECORD_NOOP, 5, 2, NULL, 0);
    record_encode(memory[1], RECORD_COMMAND, 6, 2, "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    record_encode(memory[2], RECORD_CHANGE, 7, 3, configuration, (uint32_t)configuration_size);
    for (int i = 0; i < 3; i++) {
        records[i] = (const struct record_header *)(const void *)memory[i];
    }
    struct raft_message append = {.type = RAFT_APPEND_ENTRIES,
                                  .append_entries = {.term = 3,
                                                     .prev_log_index = 4,
                                                     .prev_log_term = 1,
                                                     .leader_commit = 4,
                                                     .n_entries = 3}};
    seed("append", &(struct message_out){.raft = &append, .records = records});
    append.append_entries.n_entries = 0;
    seed("append-empty", &(struct message_out){.raft = &append});
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES_RESULT,
                             .append_entries_result = {.term = 3, .rejected = 2, .last_log_index = 7}};
    seed("append-result", &(struct message_out){.raft = &m});
    m = (struct raft_message){.type = RAFT_REQUEST_VOTE,
                              .request_vote = {.term = 4, .last_log_index = 7, .last_log_term = 3,
                                               .pre_vote = true}};
    seed("vote", &(struct message_out){.raft = &m});
    m = (struct raft_message){.type = RAFT_REQUEST_VOTE_RESULT,
                              .request_vote_result = {.term = 4, .vote_granted = true}};
    seed("vote-result", &(struct message_out){.raft = &m});
    m = (struct raft_message){.type = RAFT_TIMEOUT_NOW,
                              .timeout_now = {.term = 4, .last_log_index = 7, .last_log_term = 3}};
    seed("timeout-now", &(struct message_out){.raft = &m});
    m = (struct raft_message){.type = RAFT_INSTALL_SNAPSHOT,
                              .install_snapshot = {.term = 4, .last_index = 9, .last_term = 3, .conf_index = 7}};
    seed("install", &(struct message_out){.raft = &m, .configuration = configuration,
                                          .configuration_size = (size_t)configuration_size,
                                          .data = "ticket", .data_size = 6});
    static const enum message_kind kinds[] = {MESSAGE_READ, MESSAGE_READ_ACK, MESSAGE_REFILL,
                                              MESSAGE_REFILL_ACK, MESSAGE_REMOVED, MESSAGE_WILLING,
                                              MESSAGE_PING};
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        char name[32];
        snprintf(name, sizeof name, "kind-%d", (int)kinds[i]);
        seed(name, &(struct message_out){.kind = kinds[i], .term = 5, .seq = 6, .index = 7});
    }
    seed("pong", &(struct message_out){.kind = MESSAGE_PONG, .term = 5, .seq = 6,
                                       .clock = {1000, 2000, 3000, true, false}});
    seed("hello", &(struct message_out){.kind = MESSAGE_HELLO, .seq = 1, .index = 1,
                                        .data = "127.0.0.1:7001", .data_size = 14});
}
