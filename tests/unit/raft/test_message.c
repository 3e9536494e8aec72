/* Raft messages as bytes: what is encoded comes back, and what no correct peer sends is refused
 * without reading beyond the frame (run it under ASan: every frame lies in memory of exactly its
 * size). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/prng.h"
#include "raft/membership.h"
#include "raft/message.h"

#define RECORDS 5

/* A frame in memory of exactly its size. */
struct frame {
    uint8_t *data;
    size_t size;
};

static struct frame encode(const struct message_out *m)
{
    struct frame f = {.size = message_size(m)};
    assert_int_not_equal(f.size, 0);
    assert_int_equal(f.size % 8, 0);
    f.data = malloc(f.size);
    memset(f.data, 0xEE, f.size);
    message_encode(m, f.data);
    return f;
}

static int decode_copy(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size > 0 ? size : 1);
    memcpy(exact, data, size);
    struct message m;
    int rv = message_decode(exact, size, &m);
    free(exact);
    return rv;
}

static const struct record_header *records[RECORDS];
static uint8_t record_memory[RECORDS][512];

/* prev = (9, 2), entries 10..14 of terms 2, 2, 3, 3, 4 */
static struct frame append_entries(struct raft_message *raft)
{
    static const uint64_t terms[RECORDS] = {2, 2, 3, 3, 4};
    for (uint32_t i = 0; i < RECORDS; i++) {
        uint8_t data[400];
        memset(data, (int)('a' + i), sizeof data);
        record_encode(record_memory[i], i == 2 ? RECORD_NOOP : RECORD_COMMAND, 10 + i, terms[i],
                      data, i * 73);
        records[i] = (const struct record_header *)(const void *)record_memory[i];
    }
    *raft = (struct raft_message){.type = RAFT_APPEND_ENTRIES, .server_id = 3};
    raft->append_entries = (struct raft_append_entries){.term = 5,
                                                        .prev_log_index = 9,
                                                        .prev_log_term = 2,
                                                        .leader_commit = 8,
                                                        .n_entries = RECORDS};
    return encode(&(struct message_out){.raft = raft, .records = records});
}

static void test_append_entries(void **state)
{
    (void)state;
    struct raft_message raft;
    struct frame f = append_entries(&raft);
    struct message m;
    assert_int_equal(message_decode(f.data, f.size, &m), 0);
    assert_int_equal(m.kind, MESSAGE_APPEND_ENTRIES);
    assert_int_equal(m.raft.type, RAFT_APPEND_ENTRIES);
    assert_int_equal(m.raft.server_id, 0); /* never from the message */
    assert_int_equal(m.raft.append_entries.term, 5);
    assert_int_equal(m.raft.append_entries.prev_log_index, 9);
    assert_int_equal(m.raft.append_entries.prev_log_term, 2);
    assert_int_equal(m.raft.append_entries.leader_commit, 8);
    assert_int_equal(m.raft.append_entries.n_entries, RECORDS);
    assert_null(m.raft.append_entries.entries);
    const struct record_header *r = m.records;
    for (int i = 0; i < RECORDS; i++, r = record_next(r)) {
        assert_memory_equal(r, records[i], record_size(records[i]));
    }
    assert_int_equal((const uint8_t *)r - (const uint8_t *)m.records, m.records_size);
    free(f.data);
    /* A heartbeat. */
    raft.append_entries.n_entries = 0;
    f = encode(&(struct message_out){.raft = &raft});
    assert_int_equal(f.size, MESSAGE_HEADER_SIZE);
    assert_int_equal(message_decode(f.data, f.size, &m), 0);
    assert_int_equal(m.records_size, 0);
    free(f.data);
}

static void test_plain_messages(void **state)
{
    (void)state;
    struct raft_message raft = {.type = RAFT_APPEND_ENTRIES_RESULT};
    raft.append_entries_result = (struct raft_append_entries_result){
        .term = 7, .rejected = 5, .last_log_index = 4, .features = 3, .capacity = 65535};
    struct frame f = encode(&(struct message_out){.raft = &raft});
    struct message m;
    assert_int_equal(message_decode(f.data, f.size, &m), 0);
    assert_int_equal(m.raft.append_entries_result.term, 7);
    assert_int_equal(m.raft.append_entries_result.rejected, 5);
    assert_int_equal(m.raft.append_entries_result.last_log_index, 4);
    assert_int_equal(m.raft.append_entries_result.features, 3);
    assert_int_equal(m.raft.append_entries_result.capacity, 65535);
    free(f.data);

    for (int bits = 0; bits < 4; bits++) {
        raft = (struct raft_message){.type = RAFT_REQUEST_VOTE};
        raft.request_vote = (struct raft_request_vote){.term = 8,
                                                       .candidate_id = 99,
                                                       .last_log_index = 3,
                                                       .last_log_term = 2,
                                                       .disrupt_leader = (bits & 1) != 0,
                                                       .pre_vote = (bits & 2) != 0};
        f = encode(&(struct message_out){.raft = &raft});
        assert_int_equal(message_decode(f.data, f.size, &m), 0);
        assert_int_equal(m.raft.request_vote.term, 8);
        assert_int_equal(m.raft.request_vote.candidate_id, 0); /* from the session */
        assert_int_equal(m.raft.request_vote.last_log_index, 3);
        assert_int_equal(m.raft.request_vote.last_log_term, 2);
        assert_int_equal(m.raft.request_vote.disrupt_leader, bits & 1);
        assert_int_equal(m.raft.request_vote.pre_vote, bits >> 1);
        free(f.data);

        raft = (struct raft_message){.type = RAFT_REQUEST_VOTE_RESULT};
        raft.request_vote_result = (struct raft_request_vote_result){
            .term = 8, .vote_granted = (bits & 1) != 0, .pre_vote = (bits & 2) != 0, .features = 1};
        f = encode(&(struct message_out){.raft = &raft});
        assert_int_equal(message_decode(f.data, f.size, &m), 0);
        assert_int_equal(m.raft.request_vote_result.term, 8);
        assert_int_equal(m.raft.request_vote_result.vote_granted, bits & 1);
        assert_int_equal(m.raft.request_vote_result.pre_vote, bits >> 1);
        assert_int_equal(m.raft.request_vote_result.features, 1);
        free(f.data);
    }

    raft = (struct raft_message){.type = RAFT_TIMEOUT_NOW};
    raft.timeout_now =
        (struct raft_timeout_now){.term = 4, .last_log_index = 11, .last_log_term = 3};
    f = encode(&(struct message_out){.raft = &raft});
    assert_int_equal(message_decode(f.data, f.size, &m), 0);
    assert_int_equal(m.raft.timeout_now.term, 4);
    assert_int_equal(m.raft.timeout_now.last_log_index, 11);
    assert_int_equal(m.raft.timeout_now.last_log_term, 3);
    free(f.data);

    const enum message_kind kinds[] = {MESSAGE_READ,   MESSAGE_READ_ACK, MESSAGE_REFILL,
                                       MESSAGE_REFILL_ACK, MESSAGE_PING,     MESSAGE_PONG};
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        f = encode(&(struct message_out){.kind = kinds[i], .term = 6, .seq = 77});
        assert_int_equal(f.size, MESSAGE_HEADER_SIZE);
        assert_int_equal(message_decode(f.data, f.size, &m), 0);
        assert_int_equal(m.kind, kinds[i]);
        assert_int_equal(m.term, 6);
        assert_int_equal(m.seq, 77);
        assert_int_equal(m.clock.monotonic_ns, 0);
        free(f.data);
    }
    /* Clocks in an answer to a ping; and in none that has no room for them. */
    struct message_out pong = {.kind = MESSAGE_PONG, .seq = 3, .term = 9,
                               .clock = {123456789, 1795359845000, 1795359845000000001, true, true}};
    f = encode(&pong);
    assert_int_equal(message_decode(f.data, f.size, &m), 0);
    assert_int_equal(m.seq, 3);
    assert_int_equal(m.term, 9);
    assert_memory_equal(&m.clock.monotonic_ns, &pong.clock.monotonic_ns, 3 * sizeof(uint64_t));
    assert_true(m.clock.leads);
    assert_true(m.clock.suspect);
    free(f.data);
    pong.clock.cluster_ns = (uint64_t)1 << 62;
    f = encode(&pong);
    assert_int_equal(message_decode(f.data, f.size, &m), -1);
    free(f.data);
}

static size_t sample_configuration(uint8_t out[static REPLICA_CONFIGURATION_SIZE_MAX])
{
    struct membership members = {
        .count = 2,
        .members = {{.id = 1, .address = "127.0.0.1:7000", .role = REPLICA_VOTER},
                    {.id = 2, .address = "[::1]:7001", .role = REPLICA_SPARE}}};
    int size = membership_encode(&members, out);
    assert_true(size > 0);
    return (size_t)size;
}

static struct frame install_snapshot(void)
{
    uint8_t configuration[REPLICA_CONFIGURATION_SIZE_MAX];
    struct raft_message raft = {.type = RAFT_INSTALL_SNAPSHOT};
    raft.install_snapshot = (struct raft_install_snapshot){
        .term = 9, .last_index = 100, .last_term = 8, .conf_index = 50};
    return encode(&(struct message_out){.raft = &raft,
                                        .configuration = configuration,
                                        .configuration_size = sample_configuration(configuration),
                                        .data = "a ticket, 21 bytes...",
                                        .data_size = 21});
}

static void test_install_snapshot(void **state)
{
    (void)state;
    struct frame f = install_snapshot();
    struct message m;
    assert_int_equal(message_decode(f.data, f.size, &m), 0);
    assert_int_equal(m.raft.install_snapshot.term, 9);
    assert_int_equal(m.raft.install_snapshot.last_index, 100);
    assert_int_equal(m.raft.install_snapshot.last_term, 8);
    assert_int_equal(m.raft.install_snapshot.conf_index, 50);
    assert_int_equal(m.raft.install_snapshot.conf.n, 0);
    assert_null(m.raft.install_snapshot.data.base);
    uint8_t configuration[REPLICA_CONFIGURATION_SIZE_MAX];
    assert_int_equal(m.configuration_size, sample_configuration(configuration));
    assert_memory_equal(m.configuration, configuration, m.configuration_size);
    assert_int_equal(m.data_size, 21);
    assert_memory_equal(m.data, "a ticket, 21 bytes...", 21);
    free(f.data);
}

static void test_limits_of_encoding(void **state)
{
    (void)state;
    struct raft_message raft = {.type = RAFT_INSTALL_SNAPSHOT};
    struct message_out m = {.raft = &raft, .configuration_size = MESSAGE_CONFIGURATION_MAX + 1};
    assert_int_equal(message_size(&m), 0);
    m.configuration_size = 8;
    m.data_size = MESSAGE_DATA_MAX + 1;
    assert_int_equal(message_size(&m), 0);
    raft.type = RAFT_APPEND_ENTRIES;
    raft.append_entries.n_entries = MESSAGE_ENTRIES_MAX + 1;
    assert_int_equal(message_size(&m), 0);
    /* Too many bytes: the same large record again and again. */
    struct record_header *large = malloc(RECORD_SPAN_MAX);
    void *data = calloc(1, RECORD_DATA_SIZE_MAX);
    record_encode(large, RECORD_COMMAND, 1, 1, data, RECORD_DATA_SIZE_MAX);
    const struct record_header *many[200];
    for (size_t i = 0; i < ARRAY_COUNT(many); i++) {
        many[i] = large;
    }
    m.records = many;
    raft.append_entries.n_entries = 100;
    assert_int_equal(message_size(&m), MESSAGE_HEADER_SIZE + 100 * RECORD_SPAN_MAX);
    raft.append_entries.n_entries = 200;
    assert_int_equal(message_size(&m), 0);
    free(data);
    free(large);
}

static void test_truncated_or_longer(void **state)
{
    (void)state;
    struct raft_message raft;
    struct frame frames[] = {append_entries(&raft), install_snapshot(),
                             encode(&(struct message_out){.kind = MESSAGE_READ, .term = 1})};
    for (size_t k = 0; k < ARRAY_COUNT(frames); k++) {
        struct frame f = frames[k];
        for (size_t size = 0; size < f.size; size++) {
            assert_int_equal(decode_copy(f.data, size), -1);
        }
        assert_int_equal(decode_copy(f.data, f.size), 0);
        uint8_t *longer = calloc(1, f.size + 8);
        memcpy(longer, f.data, f.size);
        assert_int_equal(decode_copy(longer, f.size + 8), -1);
        free(longer);
        free(f.data);
    }
}

/* Any flipped bit inside the records is found, even if the link's checksum were wrong too. */
static void test_flipped_bits_in_records(void **state)
{
    (void)state;
    struct raft_message raft;
    struct frame f = append_entries(&raft);
    for (size_t bit = MESSAGE_HEADER_SIZE * 8; bit < f.size * 8; bit++) {
        f.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_int_equal(decode_copy(f.data, f.size), -1);
        f.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    assert_int_equal(decode_copy(f.data, f.size), 0);
    free(f.data);
}

/* Offsets in the header, as documented in message.c. */
enum { AT_COUNT = 4, AT_TERM = 8, AT_A = 16, AT_B = 24, AT_C = 32, AT_CONF = 44, AT_DATA = 48 };

static void expect_refused_u64(struct frame f, size_t at, uint64_t value)
{
    uint64_t old = load_u64(f.data + at);
    store_u64(f.data + at, value);
    assert_int_equal(decode_copy(f.data, f.size), -1);
    store_u64(f.data + at, old);
}

static void expect_refused_u32(struct frame f, size_t at, uint32_t value)
{
    uint32_t old = load_u32(f.data + at);
    store_u32(f.data + at, value);
    assert_int_equal(decode_copy(f.data, f.size), -1);
    store_u32(f.data + at, old);
}

static void test_impossible_fields(void **state)
{
    (void)state;
    struct raft_message raft;
    struct frame f = append_entries(&raft);
    expect_refused_u64(f, AT_TERM, 0);
    expect_refused_u64(f, AT_TERM, 3); /* older than its entries */
    expect_refused_u64(f, AT_TERM, UINT64_MAX);
    expect_refused_u64(f, AT_A, 8); /* the entries do not continue prev */
    expect_refused_u64(f, AT_A, 10);
    expect_refused_u64(f, AT_A, UINT64_MAX - 2);
    expect_refused_u64(f, AT_B, 3); /* prev is newer than what follows it */
    expect_refused_u64(f, AT_B, 6);
    expect_refused_u64(f, AT_C, UINT64_MAX);
    expect_refused_u32(f, AT_COUNT, RECORDS - 1);
    expect_refused_u32(f, AT_COUNT, RECORDS + 1);
    expect_refused_u32(f, AT_COUNT, UINT32_MAX);
    const uint8_t kinds[] = {0, 7, 8, 15, 18, 31, 35, 255};
    for (size_t i = 0; i < sizeof kinds; i++) {
        f.data[0] = kinds[i];
        assert_int_equal(decode_copy(f.data, f.size), -1);
    }
    free(f.data);

    f = install_snapshot();
    expect_refused_u64(f, AT_A, 0);
    expect_refused_u64(f, AT_B, 10);  /* last term beyond the leader's */
    expect_refused_u64(f, AT_C, 101); /* configuration behind the position */
    expect_refused_u32(f, AT_CONF, 0);
    expect_refused_u32(f, AT_CONF, MESSAGE_CONFIGURATION_MAX + 8);
    expect_refused_u32(f, AT_CONF, UINT32_MAX);
    expect_refused_u32(f, AT_DATA, 25);
    expect_refused_u32(f, AT_DATA, UINT32_MAX - 3);
    f.data[MESSAGE_HEADER_SIZE + 1] = 200; /* members */
    assert_int_equal(decode_copy(f.data, f.size), -1);
    free(f.data);
}

static void test_vote_records_are_no_entries(void **state)
{
    (void)state;
    _Alignas(8) uint8_t vote[RECORD_VOTE_SPAN];
    record_encode_vote(vote, 1, 1);
    const struct record_header *record = (const struct record_header *)(const void *)vote;
    struct raft_message raft = {.type = RAFT_APPEND_ENTRIES};
    raft.append_entries = (struct raft_append_entries){.term = 1, .n_entries = 1};
    struct frame f = encode(&(struct message_out){.raft = &raft, .records = &record});
    assert_int_equal(decode_copy(f.data, f.size), -1);
    free(f.data);
}

static void test_random_bytes(void **state)
{
    (void)state;
    struct prng p = prng_init(5);
    struct raft_message raft;
    struct frame seeds[] = {append_entries(&raft), install_snapshot()};
    unsigned accepted = 0;
    for (int i = 0; i < 100000; i++) {
        struct frame f = seeds[prng_below(&p, 2)];
        uint8_t *copy = malloc(f.size);
        memcpy(copy, f.data, f.size);
        for (uint64_t k = prng_below(&p, 4); k > 0; k--) {
            copy[prng_below(&p, prng_one_in(&p, 3) ? f.size : 64)] = (uint8_t)prng_next(&p);
        }
        size_t size = prng_one_in(&p, 4) ? prng_below(&p, f.size + 1) : f.size;
        accepted += decode_copy(copy, size) == 0;
        free(copy);
    }
    assert_true(accepted > 0); /* the unchanged ones */
    free(seeds[0].data);
    free(seeds[1].data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append_entries),
        cmocka_unit_test(test_plain_messages),
        cmocka_unit_test(test_install_snapshot),
        cmocka_unit_test(test_limits_of_encoding),
        cmocka_unit_test(test_truncated_or_longer),
        cmocka_unit_test(test_flipped_bits_in_records),
        cmocka_unit_test(test_impossible_fields),
        cmocka_unit_test(test_vote_records_are_no_entries),
        cmocka_unit_test(test_random_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
