/* The small parts of raft/: records, configurations, the cache, rounds of reads, tickets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/prng.h"
#include "raft/install.h"
#include "raft/log_cache.h"
#include "raft/membership.h"
#include "raft/read_index.h"
#include "raft/record.h"

/* ---- records ---- */

static void test_record_round_trip_and_damage(void **state)
{
    (void)state;
    uint64_t memory[64];
    static const uint8_t data[] = "thirteen byte";
    size_t size = record_encode(memory, RECORD_COMMAND, 7, 3, data, 13);
    assert_int_equal(size, 32 + 16);
    const struct record_header *h = (const struct record_header *)memory;
    assert_int_equal(record_check(memory, size), RECORD_VALID);
    assert_int_equal(record_size(h), size);
    assert_int_equal(h->index, 7);
    assert_int_equal(h->term, 3);
    assert_memory_equal(record_data(h), data, 13);
    assert_int_equal(record_check(memory, size - 1), RECORD_PARTIAL);
    assert_int_equal(record_check(memory, 31), RECORD_PARTIAL);
    for (size_t bit = 0; bit < size * 8; bit++) {
        ((uint8_t *)memory)[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        enum record_verdict verdict = record_check(memory, sizeof memory);
        assert_true(verdict == RECORD_INVALID || verdict == RECORD_PARTIAL);
        ((uint8_t *)memory)[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    memset(memory, 0, sizeof memory);
    assert_int_equal(record_check(memory, sizeof memory), RECORD_NONE);
    assert_int_equal(record_encode_vote(memory, 9, 2), RECORD_VOTE_SPAN);
    assert_int_equal(record_check(memory, sizeof memory), RECORD_VALID);
    assert_int_equal(record_voted_for(h), 2);
    record_encode(memory, RECORD_NOOP, 1, 1, NULL, 0);
    assert_int_equal(record_check(memory, sizeof memory), RECORD_VALID);
    assert_ptr_equal(record_next(h), h + 1);
    record_encode(memory, RECORD_COMMAND, 0, 1, NULL, 0); /* an entry without an index */
    assert_int_equal(record_check(memory, sizeof memory), RECORD_INVALID);
}

/* ---- membership ---- */

static void three(struct membership *m)
{
    memset(m, 0, sizeof *m);
    m->count = 3;
    for (size_t i = 0; i < 3; i++) {
        m->members[i].id = 10 + i;
        m->members[i].role = i < 2 ? REPLICA_VOTER : REPLICA_STANDBY;
        snprintf(m->members[i].address, sizeof m->members[i].address, "10.0.0.%zu:7000", i);
    }
}

static void test_membership_round_trip_and_damage(void **state)
{
    (void)state;
    struct membership m, back;
    uint8_t bytes[REPLICA_CONFIGURATION_SIZE_MAX];
    three(&m);
    int size = membership_encode(&m, bytes);
    assert_true(size > 0 && size % 8 == 0);
    assert_int_equal(membership_decode(bytes, (size_t)size, &back), 0);
    assert_int_equal(back.count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(back.members[i].id, m.members[i].id);
        assert_int_equal(back.members[i].role, m.members[i].role);
        assert_string_equal(back.members[i].address, m.members[i].address);
    }
    for (size_t cut = 0; cut < (size_t)size - 7; cut++) {
        uint8_t *exact = malloc(cut + 1); /* so that a sanitizer sees a read beyond it */
        memcpy(exact, bytes, cut);
        assert_int_equal(membership_decode(exact, cut, &back), -1);
        free(exact);
    }
    struct prng prng = prng_init(1);
    for (int i = 0; i < 20000; i++) {
        uint8_t damaged[REPLICA_CONFIGURATION_SIZE_MAX];
        memcpy(damaged, bytes, sizeof damaged);
        for (uint64_t k = 1 + prng_below(&prng, 4); k > 0; k--) {
            damaged[prng_below(&prng, (uint64_t)size)] = (uint8_t)prng_next(&prng);
        }
        if (membership_decode(damaged, (size_t)size, &back) == 0) {
            assert_true(back.count >= 1 && back.count <= REPLICA_MEMBERS_MAX);
            assert_true(membership_encode(&back, damaged) > 0);
        }
    }
    m.members[2].id = 10;
    assert_int_equal(membership_encode(&m, bytes), -1);
    three(&m);
    strcpy(m.members[1].address, m.members[0].address);
    assert_int_equal(membership_encode(&m, bytes), -1);
    three(&m);
    memset(m.members[1].address, 'a', sizeof m.members[1].address);
    assert_int_equal(membership_encode(&m, bytes), -1);
    m.count = 0;
    assert_int_equal(membership_encode(&m, bytes), -1);
}

static void test_membership_changes_one_at_a_time(void **state)
{
    (void)state;
    struct membership m, next;
    three(&m);
    assert_int_equal(membership_count_voters(&m), 2);
    assert_false(membership_is_only_voter(&m, 10));
    struct replica_member added = {
        .id = 99, .address = "10.0.0.9:7000/10.0.0.9:7100", .role = REPLICA_VOTER};
    assert_int_equal(membership_add(&m, &added, &next),
                     REPLICA_REFUSAL_INVALID); /* a voter only by promotion */
    added.role = REPLICA_STANDBY;
    assert_int_equal(membership_add(&m, &added, &next), REPLICA_REFUSAL_NONE);
    assert_int_equal(next.count, 4);
    assert_int_equal(next.members[3].id, 99);
    m = next;
    assert_int_equal(membership_add(&m, &added, &next), REPLICA_REFUSAL_DUPLICATE);
    added.id = 98;
    strcpy(added.address, "10.0.0.9:7000/10.0.0.9:7101");
    assert_int_equal(membership_add(&m, &added, &next), REPLICA_REFUSAL_DUPLICATE);
    strcpy(added.address, "10.0.0.9:7001/10.0.0.9:7100");
    assert_int_equal(membership_add(&m, &added, &next), REPLICA_REFUSAL_DUPLICATE);
    strcpy(added.address, "10.0.0.9:7001/10.0.0.9:7101");
    assert_int_equal(membership_add(&m, &added, &next), REPLICA_REFUSAL_NONE);
    while (m.count < REPLICA_MEMBERS_MAX) {
        m.members[m.count] = (struct replica_member){.id = 200 + m.count, .role = REPLICA_SPARE};
        snprintf(m.members[m.count].address, REPLICA_ADDRESS_SIZE, "10.0.1.%zu:1/10.0.1.%zu:2",
                 m.count, m.count);
        m.count++;
    }
    assert_int_equal(membership_add(&m, &added, &next), REPLICA_REFUSAL_FULL);
    three(&m);
    assert_int_equal(membership_assign(&m, 12, REPLICA_VOTER, &next), REPLICA_REFUSAL_NONE);
    assert_int_equal(membership_count_voters(&next), 3);
    assert_int_equal(membership_assign(&m, 12, REPLICA_STANDBY, &next), REPLICA_REFUSAL_INVALID);
    assert_int_equal(membership_assign(&m, 77, REPLICA_VOTER, &next), REPLICA_REFUSAL_UNKNOWN);
    assert_int_equal(membership_remove(&m, 77, &next), REPLICA_REFUSAL_UNKNOWN);
    assert_int_equal(membership_remove(&m, 10, &next), REPLICA_REFUSAL_NONE);
    assert_int_equal(next.count, 2);
    assert_int_equal(next.members[0].id, 11);
    assert_true(membership_is_only_voter(&next, 11));
    m = next;
    assert_int_equal(membership_remove(&m, 11, &next), REPLICA_REFUSAL_LAST);
    assert_int_equal(membership_assign(&m, 11, REPLICA_STANDBY, &next), REPLICA_REFUSAL_LAST);
}

/* One address of a configuration: both halves, the raft half of older versions, or too much. */
static void test_addresses_have_two_halves(void **state)
{
    (void)state;
    char address[REPLICA_ADDRESS_SIZE], half[REPLICA_ENDPOINT_SIZE];
    replica_address_raft("10.0.0.1:7001/10.0.0.1:7101", half);
    assert_string_equal(half, "10.0.0.1:7001");
    replica_address_node("10.0.0.1:7001/10.0.0.1:7101", half);
    assert_string_equal(half, "10.0.0.1:7101");
    replica_address_raft("10.0.0.1:7001", half);
    assert_string_equal(half, "10.0.0.1:7001");
    replica_address_node("10.0.0.1:7001", half);
    assert_string_equal(half, "");
    const char *longest = "[0000:0000:0000:0000:0000:ffff:ffff:ffff]:65535";
    assert_true(replica_address_join(longest, longest, address));
    replica_address_node(address, half);
    assert_string_equal(half, longest);
    static const char *const wrong[] = {"", "10.0.0.1", "10.0.0.1:0", "host:7001", "1.2.3.4:7/1.2.3.4:8"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_false(replica_address_join(wrong[i], "10.0.0.1:7101", address));
        assert_false(replica_address_join("10.0.0.1:7001", wrong[i], address));
    }
}

/* ---- log cache ---- */

static void cache_append(struct log_cache *c, uint64_t index, uint64_t term)
{
    struct batch *b = batch_create(record_span(0));
    record_encode(batch_first(b), RECORD_COMMAND, index, term, NULL, 0);
    log_cache_append(c, batch_first(b), b, index);
}

static void test_log_cache(void **state)
{
    (void)state;
    struct log_cache c;
    log_cache_init(&c, 5);
    assert_null(log_cache_get(&c, 5));
    for (uint64_t i = 6; i <= 5000; i++) {
        cache_append(&c, i, i / 1000 + 1);
    }
    assert_int_equal(log_cache_term(&c, 6), 1);
    assert_int_equal(log_cache_term(&c, 4999), 5);
    assert_int_equal(log_cache_term(&c, 5001), 0);
    log_cache_truncate(&c, 4000);
    assert_int_equal(c.last, 3999);
    cache_append(&c, 4000, 9);
    assert_int_equal(log_cache_term(&c, 4000), 9);
    struct batch *kept = log_cache_get(&c, 100)->batch;
    batch_retain(kept); /* as a message that waits does */
    log_cache_trim(&c, 3000);
    assert_int_equal(c.released, 5); /* given back little by little */
    log_cache_release(&c, 1000);
    assert_int_equal(c.released, 1005);
    assert_null(log_cache_get(&c, 3000));
    assert_int_equal(log_cache_get(&c, 3001)->record->index, 3001);
    assert_int_equal(batch_first(kept)->index, 100);
    batch_release(kept);
    log_cache_trim(&c, 9000);
    assert_int_equal(c.base, 4000);
    assert_int_equal(c.last, 4000);
    log_cache_reset(&c, 20);
    cache_append(&c, 21, 1);
    assert_int_equal(c.last, 21);
    /* A ring that goes round while trimmed entries still take places in it. */
    for (uint64_t i = 22; i < 40000; i++) {
        cache_append(&c, i, i / 1000 + 1);
        if (i % 500 == 0) {
            log_cache_trim(&c, i - 300);
        }
        assert_int_equal(log_cache_term(&c, i - 1), i == 22 ? 1 : (i - 1) / 1000 + 1);
        assert_true(c.last - c.released <= 2000);
    }
    assert_int_equal(c.capacity, 8192);
    log_cache_close(&c);
}

/* ---- rounds of reads ---- */

struct waiting {
    struct replica_read read;
    int status;
    struct read_index *again; /* adds another read from the callback */
    struct waiting *next;
};

static void read_cb(struct replica_read *req, enum replica_status status)
{
    struct waiting *w = container_of(req, struct waiting, read);
    assert_int_equal(w->status, 1);
    w->status = status;
    if (w->again != NULL) {
        assert_true(read_index_add(w->again, &w->next->read, read_cb));
    }
}

static void test_read_index(void **state)
{
    (void)state;
    struct membership m;
    three(&m);
    m.members[2].role = REPLICA_VOTER;
    struct read_index r;
    read_index_init(&r);
    assert_false(read_index_begin(&r, 5)); /* nobody waits */
    struct waiting a = {.status = 1}, b = {.status = 1}, c = {.status = 1};
    a.again = &r;
    a.next = &c;
    read_index_add(&r, &a.read, read_cb);
    assert_true(read_index_begin(&r, 5));
    read_index_add(&r, &b.read, read_cb);
    assert_false(read_index_begin(&r, 6)); /* one round at a time */
    assert_false(read_index_answer(&r, 10, r.sequence, 10, &m)); /* only itself */
    assert_false(read_index_answer(&r, 99, r.sequence, 10, &m)); /* no voter */
    assert_false(read_index_answer(&r, 11, r.sequence - 1, 10, &m));
    assert_true(read_index_answer(&r, 11, r.sequence, 10, &m));
    assert_false(read_index_answer(&r, 12, r.sequence, 10, &m)); /* over */
    read_index_applied(&r, 4);
    assert_int_equal(a.status, 1);
    read_index_applied(&r, 5);
    assert_int_equal(a.status, REPLICA_OK);
    assert_int_equal(r.waiting, 2);
    assert_true(read_index_begin(&r, 8));
    read_index_fail(&r, REPLICA_NOT_LEADER);
    assert_int_equal(b.status, REPLICA_NOT_LEADER);
    assert_int_equal(c.status, REPLICA_NOT_LEADER);
    assert_int_equal(r.waiting, 0);

    struct waiting *many = calloc(READ_INDEX_WAITING_MAX + 1, sizeof *many);
    for (size_t i = 0; i <= READ_INDEX_WAITING_MAX; i++) {
        many[i].status = 1;
        assert_int_equal(read_index_add(&r, &many[i].read, read_cb), i < READ_INDEX_WAITING_MAX);
    }
    read_index_fail(&r, REPLICA_NOT_LEADER);
    free(many);
}

/* ---- tickets ---- */

static uint64_t matches[16]; /* by peer id */

static uint64_t match_cb(const void *ctx, uint64_t peer_id)
{
    (void)ctx;
    return matches[peer_id];
}

static bool is_there_cb(const void *ctx, uint64_t peer_id)
{
    return peer_id == *(const uint64_t *)ctx;
}

static void give(struct install_tickets *t, uint64_t peer_id, uint64_t index, uint64_t core_index,
                 uint64_t now_ms)
{
    static struct replica_ticket ticket;
    ticket.position.index = index;
    install_tickets_give(t, peer_id, &ticket, core_index, now_ms);
}

static uint64_t oldest(const struct install_tickets *t)
{
    return install_tickets_oldest(t, match_cb, NULL);
}

static void test_tickets_hold_the_log(void **state)
{
    (void)state;
    static struct install_tickets t;
    uint64_t there = 0;
    memset(matches, 0, sizeof matches);
    assert_int_equal(oldest(&t), UINT64_MAX);
    assert_null(install_tickets_find(&t, 2));
    give(&t, 2, 100, 90, 1000);
    give(&t, 3, 200, 200, 2000);
    give(&t, 2, 150, 160, 3000); /* a newer one replaces it */
    assert_int_equal(oldest(&t), 150);
    assert_int_equal(install_tickets_find(&t, 2)->position.index, 150);
    assert_int_equal(install_tickets_core_index(&t, 2), 160);
    assert_int_equal(install_tickets_core_index(&t, 9), 0);
    install_tickets_matched(&t, 2, 150, 1000, 50); /* installed, has not what the core asked for */
    assert_int_equal(oldest(&t), 150);
    matches[2] = 180; /* replays: what it has need not be kept */
    install_tickets_matched(&t, 2, 180, 1000, 50);
    assert_int_equal(oldest(&t), 180);
    install_tickets_matched(&t, 2, 950, 1000, 50); /* close behind */
    assert_int_equal(oldest(&t), 200);
    there = 3;
    install_tickets_expire(&t, 2000 + 600, 600, is_there_cb, &there);
    assert_int_equal(oldest(&t), 200); /* its peer is there: it counts from now */
    there = 0;
    install_tickets_expire(&t, 2600 + 599, 600, is_there_cb, &there);
    assert_int_equal(oldest(&t), 200);
    install_tickets_expire(&t, 2600 + 600, 600, is_there_cb, &there);
    assert_int_equal(oldest(&t), UINT64_MAX);
    for (uint64_t peer = 1; peer <= REPLICA_MEMBERS_MAX + 3; peer++) {
        give(&t, peer, peer * 10, peer * 10, peer);
    }
    assert_int_equal(install_tickets_core_index(&t, REPLICA_MEMBERS_MAX + 3),
                     (REPLICA_MEMBERS_MAX + 3) * 10);
    install_tickets_clear(&t);
    assert_int_equal(oldest(&t), UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record_round_trip_and_damage),
        cmocka_unit_test(test_membership_round_trip_and_damage),
        cmocka_unit_test(test_membership_changes_one_at_a_time),
        cmocka_unit_test(test_addresses_have_two_halves),
        cmocka_unit_test(test_log_cache),
        cmocka_unit_test(test_read_index),
        cmocka_unit_test(test_tickets_hold_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
