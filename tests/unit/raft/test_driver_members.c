/* Changes of the membership (docs/adr/0012) and members that lost their disk (docs/adr/0010). */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "tests/unit/raft/driver_world.h"

/* ---- membership: docs/adr/0012 ---- */

/* Node 1 of three leads term 2; its no-op at 2 is committed. 2 and 3 are connected. */
static struct world *leader_of_three(unsigned guards_off)
{
    struct world *w = follower(1, guards_off);
    driver_peer_connected(w->driver, w->now_ms, 2);
    driver_peer_connected(w->driver, w->now_ms, 3);
    w->now_ms += 1100;
    driver_tick(w->driver, w->now_ms);
    receive_vote_result(w, 2, 2, true);
    make_durable(w);
    receive_vote_result(w, 2, 2, false);
    assert_int_equal(driver_get_state(w->driver).role, REPLICA_LEADER);
    make_durable(w);
    return w;
}

static enum replica_refusal why;

static enum replica_status assign(struct world *w, uint64_t id, enum replica_member_role role)
{
    return driver_assign(w->driver, w->now_ms, id, role, &why);
}

static void assert_refused(enum replica_status status, enum replica_refusal refusal)
{
    assert_int_equal(status, REPLICA_REFUSED);
    assert_int_equal(why, refusal);
}

static void commit(struct world *w, uint64_t by_id, uint64_t index)
{
    make_durable(w);
    receive_result(w, by_id, 2, 0, index);
}

/* N7, and each condition of a change. */
static void test_changes_wait_for_their_time(void **state)
{
    (void)state;
    struct world *w = leader_of_three(0);
    assert_false(driver_get_state(w->driver).ready);
    assert_refused(assign(w, 3, REPLICA_STANDBY), REPLICA_REFUSAL_NOT_READY);
    commit(w, 2, 2);
    assert_refused(assign(w, 2, REPLICA_STANDBY),
                   REPLICA_REFUSAL_PENDING); /* 3 has said nothing yet */
    receive_result(w, 3, 2, 0, 2);
    assert_refused(assign(w, 1, REPLICA_STANDBY), REPLICA_REFUSAL_SELF);
    assert_refused(driver_remove(w->driver, w->now_ms, 1, &why), REPLICA_REFUSAL_SELF);
    assert_refused(driver_remove(w->driver, w->now_ms, 9, &why), REPLICA_REFUSAL_UNKNOWN);
    assert_int_equal(assign(w, 3, REPLICA_STANDBY), REPLICA_OK);
    assert_refused(assign(w, 2, REPLICA_STANDBY), REPLICA_REFUSAL_PENDING);
    commit(w, 2, 3);
    assert_false(driver_change_pending(w->driver));
    struct request requests[DRIVER_CATCH_UP_ENTRIES_MAX + 8];
    for (size_t i = 0; i < ARRAY_COUNT(requests); i++) {
        requests[i].status = 1;
        assert_int_equal(
            driver_submit(w->driver, w->now_ms, &requests[i].submit, "x", 1, submit_cb), 0);
    }
    /* Behind, and nobody knows whether it is whole: it is asked, and answers. */
    w->sent_count = 0;
    assert_refused(assign(w, 3, REPLICA_VOTER), REPLICA_REFUSAL_LAGGARD);
    assert_int_equal(last_of_kind(w, MESSAGE_READ)->to, 3);
    receive_read(w, 3, MESSAGE_READ_ACK, 2, 0);
    assert_refused(assign(w, 3, REPLICA_VOTER), REPLICA_REFUSAL_LAGGARD);
    struct driver_stats stats;
    driver_get_stats(w->driver, &stats);
    receive_result(w, 3, 2, 0, stats.last_index);
    assert_int_equal(assign(w, 3, REPLICA_VOTER), REPLICA_OK);
    commit(w, 2, stats.last_index + 1);
    assert_true(driver_change_pending(w->driver)); /* committed, but node 3 does not know it yet */
    assert_refused(assign(w, 2, REPLICA_STANDBY), REPLICA_REFUSAL_PENDING);
    assert_refused(driver_remove(w->driver, w->now_ms, 9, &why), REPLICA_REFUSAL_PENDING);
    receive_result(w, 3, 2, 0, stats.last_index + 1);
    assert_false(driver_change_pending(w->driver));
    world_destroy(w);

    w = follower(1, DRIVER_GUARD_CHANGE_TERM);
    w->now_ms += 1100;
    driver_tick(w->driver, w->now_ms);
    receive_vote_result(w, 2, 2, true);
    make_durable(w);
    receive_vote_result(w, 2, 2, false);
    assert_int_equal(assign(w, 3, REPLICA_STANDBY), REPLICA_OK); /* N7 */
    world_destroy(w);
}

/* A change that others have and its leader has lost can be the end: see update_entries. */
static void test_change_leaves_when_the_leader_has_it(void **state)
{
    (void)state;
    struct world *w = leader_of_three(0);
    commit(w, 2, 2);
    receive_result(w, 3, 2, 0, 2);
    make_durable(w);
    w->sent_count = 0;
    assert_int_equal(assign(w, 3, REPLICA_STANDBY), REPLICA_OK);
    assert_int_equal(count_sent(w, RAFT_APPEND_ENTRIES), 0);
    make_durable(w);
    assert_int_equal(last_sent(w, RAFT_APPEND_ENTRIES)->records, 1);
    world_destroy(w);
}

static void test_changes_keep_a_quorum(void **state)
{
    (void)state;
    struct world *w = leader_of_three(0);
    commit(w, 2, 2);
    driver_peer_disconnected(w->driver, w->now_ms, 3);
    assert_refused(assign(w, 2, REPLICA_STANDBY), REPLICA_REFUSAL_QUORUM);
    assert_refused(driver_remove(w->driver, w->now_ms, 2, &why), REPLICA_REFUSAL_QUORUM);
    /* A member that refills has forgotten what it stored: it does not count either. */
    driver_peer_connected(w->driver, w->now_ms, 3);
    receive_result(w, 3, 2, 0, 2);
    receive_read(w, 3, MESSAGE_REFILL, 2, 77);
    assert_refused(assign(w, 2, REPLICA_STANDBY), REPLICA_REFUSAL_QUORUM);
    receive_read(w, 3, MESSAGE_READ_ACK, 2, 0);
    driver_peer_disconnected(w->driver, w->now_ms, 3);
    /* The dead one can go: then two of two are there. */
    assert_int_equal(driver_remove(w->driver, w->now_ms, 3, &why), REPLICA_OK);
    commit(w, 2, 3);
    assert_int_equal(driver_remove(w->driver, w->now_ms, 2, &why), REPLICA_OK);
    make_durable(w);
    assert_refused(assign(w, 1, REPLICA_STANDBY), REPLICA_REFUSAL_LAST);
    world_destroy(w);
}

/* A change of the configuration as node 2 gets it from the leader 1, to make node 2 a standby. */
static struct world *demoted(unsigned guards_off)
{
    struct world *w = follower(2, guards_off);
    struct frame *f = calloc(1, sizeof *f);
    struct membership m;
    uint8_t bytes[REPLICA_CONFIGURATION_SIZE_MAX];
    members(&m, 3, 3);
    m.members[1].role = REPLICA_STANDBY;
    frame_add(f, RECORD_CHANGE, 2, 1, bytes, (uint32_t)membership_encode(&m, bytes));
    receive_append(w, 1, 1, 1, 1, 2, f);
    make_durable(w);
    free(f);
    return w;
}

static bool grants(struct world *w, uint64_t term, uint64_t last)
{
    w->sent_count = 0;
    receive_vote_request(w, 3, term, last);
    make_durable(w);
    const struct sent *answer = last_sent(w, RAFT_REQUEST_VOTE_RESULT);
    return answer != NULL && answer->raft.request_vote_result.vote_granted;
}

/* N6: a promotion that the promoted has not heard of. It votes once its leader is silent. */
static void test_nonvoter_votes_when_its_leader_is_silent(void **state)
{
    (void)state;
    struct world *w = demoted(0);
    assert_false(grants(w, 2, 5)); /* there is a leader */
    w->now_ms += 1500;
    driver_tick(w->driver, w->now_ms);
    assert_int_equal(driver_get_state(w->driver).leader_id, 0);
    assert_int_equal(driver_get_state(w->driver).role, REPLICA_FOLLOWER); /* it does not stand */
    assert_true(grants(w, 2, 5));
    assert_int_equal(w->driver->vote, 3);
    struct membership m;
    driver_get_membership(w->driver, &m);
    assert_int_equal(m.members[1].role, REPLICA_STANDBY); /* lent only */
    world_destroy(w);

    w = demoted(DRIVER_GUARD_NONVOTER);
    w->now_ms += 1500;
    driver_tick(w->driver, w->now_ms);
    assert_false(grants(w, 2, 5));
    world_destroy(w);
}

static void receive_note(struct world *w, uint64_t from, enum message_kind kind, uint64_t seq,
                         uint64_t index)
{
    struct message m = {.kind = kind, .term = 1, .seq = seq, .index = index};
    driver_receive(w->driver, w->now_ms, from, &m);
}

static void test_removed_node_is_told(void **state)
{
    (void)state;
    struct world *w = follower(2, 0);
    receive_note(w, 1, MESSAGE_REMOVED, 0, 1); /* not newer than what we know: an old one */
    assert_int_equal(w->removed, 0);
    receive_note(w, 1, MESSAGE_REMOVED, 0, 9);
    receive_note(w, 1, MESSAGE_REMOVED, 0, 10);
    assert_int_equal(w->removed, 1);
    world_destroy(w);

    /* Who calls and is no member is told by whom has committed it. */
    w = leader_of_three(0);
    commit(w, 2, 2);
    receive_result(w, 3, 2, 0, 2);
    assert_int_equal(driver_remove(w->driver, w->now_ms, 3, &why), REPLICA_OK);
    driver_peer_disconnected(w->driver, w->now_ms, 3);
    w->sent_count = 0;
    driver_peer_connected(w->driver, w->now_ms, 3);
    assert_int_equal(count_of_kind(w, MESSAGE_REMOVED), 0); /* not committed yet */
    commit(w, 2, 3);
    w->sent_count = 0;
    driver_peer_connected(w->driver, w->now_ms, 3);
    assert_int_equal(count_of_kind(w, MESSAGE_REMOVED), 1);
    assert_int_equal(last_of_kind(w, MESSAGE_REMOVED)->index, 3);
    world_destroy(w);
}

static void test_unwilling_node_is_not_chosen(void **state)
{
    (void)state;
    struct world *w = leader_of_three(0);
    commit(w, 2, 2);
    receive_result(w, 3, 2, 0, 2);
    receive_note(w, 2, MESSAGE_WILLING, 0, 0);
    assert_true(driver_peer_is_unwilling(w->driver, 2));
    assert_int_equal(driver_successor(w->driver), 3);
    assert_int_equal(driver_transfer(w->driver, w->now_ms, 2), REPLICA_REFUSED);
    receive_note(w, 3, MESSAGE_WILLING, 0, 0);
    assert_int_equal(driver_successor(w->driver), 0);
    assert_int_equal(driver_transfer(w->driver, w->now_ms, 0), REPLICA_REFUSED);
    receive_note(w, 2, MESSAGE_WILLING, 1, 0);
    assert_int_equal(driver_successor(w->driver), 2);
    w->sent_count = 0;
    driver_set_willing(w->driver, w->now_ms, false);
    assert_int_equal(count_of_kind(w, MESSAGE_WILLING), 2);
    driver_set_willing(w->driver, w->now_ms, false); /* no news */
    assert_int_equal(count_of_kind(w, MESSAGE_WILLING), 2);
    driver_peer_connected(w->driver, w->now_ms, 2);
    assert_int_equal(count_of_kind(w, MESSAGE_WILLING), 3);
    assert_int_equal(last_of_kind(w, MESSAGE_WILLING)->seq, 0);
    world_destroy(w);
}

/* A round of reads that waits for voters who are none any more. */
/* The disk of node 2 hangs: it was asked and says nothing. The next one to be asked is node 3. */
static void test_who_did_not_take_over_comes_last(void **state)
{
    (void)state;
    struct world *w = leader_of_three(0);
    commit(w, 2, 2);
    receive_result(w, 3, 2, 0, 2);
    w->now_ms += 60000;
    driver_tick(w->driver, w->now_ms);
    uint64_t first = driver_successor(w->driver);
    assert_int_equal(driver_transfer(w->driver, w->now_ms, 0), REPLICA_OK);
    assert_int_equal(driver_successor(w->driver), 5 - first);
    receive_note(w, 5 - first, MESSAGE_WILLING, 0, 0);
    assert_int_equal(driver_successor(w->driver), first); /* rather than nobody */
    receive_note(w, 5 - first, MESSAGE_WILLING, 1, 0);
    driver_peer_disconnected(w->driver, w->now_ms + DRIVER_TRANSFER_MEMORY_MS, 5 - first);
    assert_int_equal(driver_successor(w->driver), first);
    driver_peer_connected(w->driver, w->now_ms + DRIVER_TRANSFER_MEMORY_MS, 5 - first);
    assert_int_equal(driver_successor(w->driver), first); /* forgotten: both are as good */
    world_destroy(w);
}

static void test_reads_go_on_when_voters_leave(void **state)
{
    (void)state;
    struct world *w = leader_of_three(0);
    commit(w, 2, 2);
    receive_result(w, 3, 2, 0, 2);
    assert_int_equal(driver_remove(w->driver, w->now_ms, 3, &why), REPLICA_OK);
    commit(w, 2, 3);
    struct request r = {.status = 1};
    assert_int_equal(driver_read(w->driver, w->now_ms, &r.read, read_cb), REPLICA_OK);
    assert_int_equal(driver_remove(w->driver, w->now_ms, 2, &why), REPLICA_OK);
    make_durable(w);
    w->now_ms += DRIVER_TICK_MS;
    driver_tick(w->driver, w->now_ms);
    assert_int_equal(r.status, REPLICA_OK);
    world_destroy(w);
}

/* ---- a member that lost its disk: docs/adr/0010 ---- */

static struct world *lost_disk(uint64_t id, unsigned guards_off)
{
    struct world *w = calloc(1, sizeof *w);
    struct membership m;
    w->now_ms = 1000;
    struct driver_config config = {
        .id = id,
        .address = "self",
        .seed = 77,
        .election_timeout_ms = 500,
        .entries_in_flight_max = 512,
        .trailing_entries = 4,
        .refilling = true,
    };
    members(&m, 3, 3);
    w->driver = driver_create(&config, &world_effects, w);
    driver_test_disable_guard(w->driver, guards_off);
    assert_int_equal(driver_start(w->driver, w->now_ms, 0, 0, NULL, &m), 0);
    make_durable(w);
    return w;
}

static void receive_refill(struct world *w, uint64_t from, enum message_kind kind, uint64_t term,
                           uint64_t nonce, uint64_t index)
{
    struct message m = {.kind = kind, .term = term, .seq = nonce, .index = index};
    driver_receive(w->driver, w->now_ms, from, &m);
}

/* A leads, A and B hold X = (3, t2), which is acknowledged; C has the bootstrap entry only. B loses
 * its disk, A dies, C asks B. Returns whether B's vote makes C a leader without X. */
static bool x_is_lost(unsigned guards_off)
{
    struct world *b = lost_disk(2, guards_off);
    struct world *c = follower(3, 0);
    c->now_ms += 1100;
    driver_tick(c->driver, c->now_ms);
    receive_vote_result(c, 1, 2, true); /* whoever it was: pre-votes promise nothing */
    make_durable(c);
    const struct sent *asks = last_sent(c, RAFT_REQUEST_VOTE);
    assert_non_null(asks);
    assert_false(asks->raft.request_vote.pre_vote);
    struct message request = {.kind = MESSAGE_REQUEST_VOTE, .raft = asks->raft};
    for (int i = 0; i < 3; i++) {
        driver_receive(b->driver, b->now_ms, 3, &request);
        b->now_ms += 5000; /* no time is long enough */
        make_durable(b);
    }
    const struct sent *answer = last_sent(b, RAFT_REQUEST_VOTE_RESULT);
    if (answer != NULL) {
        struct message result = {.kind = MESSAGE_REQUEST_VOTE_RESULT, .raft = answer->raft};
        driver_receive(c->driver, c->now_ms, 2, &result);
    }
    bool lost = driver_get_state(c->driver).role == REPLICA_LEADER;
    world_destroy(b);
    world_destroy(c);
    return lost;
}

static void test_lost_disk_does_not_elect(void **state)
{
    (void)state;
    assert_false(x_is_lost(0));
    assert_true(x_is_lost(DRIVER_GUARD_REFILL));
}

static void test_refilling_node_is_silent(void **state)
{
    (void)state;
    struct world *w = lost_disk(2, 0);
    struct message now = {.kind = MESSAGE_TIMEOUT_NOW, .raft.type = RAFT_TIMEOUT_NOW};
    now.raft.timeout_now.version = 1;
    now.raft.timeout_now.term = 1;
    for (int i = 0; i < 100; i++) { /* no candidate, however long it lasts */
        w->now_ms = driver_deadline_ms(w->driver) + 100;
        driver_tick(w->driver, w->now_ms);
        receive_vote_request(w, 3, 2, 10);
        receive_read(w, 1, MESSAGE_READ, 0, 5);
        driver_receive(w->driver, w->now_ms, 1, &now);
    }
    assert_int_equal(w->sent_count, 0);
    assert_int_equal(driver_get_state(w->driver).role, REPLICA_FOLLOWER);
    assert_int_equal(w->settled, 0);
    struct driver_stats stats;
    driver_get_stats(w->driver, &stats);
    assert_int_equal(stats.refill_dropped, 300);
    world_destroy(w);
}

static void test_refill_needs_a_proved_leader(void **state)
{
    (void)state;
    struct world *w = lost_disk(2, 0);
    struct frame *f = calloc(1, sizeof *f);
    frame_add_change(f, 1, 1, 3);
    frame_add_command(f, 2, 2);
    frame_add_command(f, 3, 2);
    receive_append(w, 1, 2, 0, 0, 2, f);
    assert_int_equal(w->sent_count, 0); /* elections of before the loss may still run */
    w->now_ms += DRIVER_REFILL_QUIET_FACTOR * 500;
    receive_append(w, 1, 2, 0, 0, 2, f);
    const struct sent *asked = last_of_kind(w, MESSAGE_REFILL);
    assert_int_equal(w->sent_count, 1);
    assert_non_null(asked);
    assert_int_equal(asked->to, 1);
    assert_int_equal(asked->term, 2);
    uint64_t nonce = asked->seq;
    assert_int_equal(w->ticket, 0); /* nothing was taken */

    receive_refill(w, 1, MESSAGE_REFILL_ACK, 2, nonce + 1, 2); /* asked for by an earlier life */
    receive_append(w, 1, 2, 0, 0, 2, f);
    assert_int_equal(w->ticket, 0);
    receive_refill(w, 1, MESSAGE_REFILL_ACK, 2, nonce, 3);
    receive_append(w, 1, 2, 0, 0, 2, f);
    make_durable(w);
    assert_int_equal(last_sent(w, RAFT_APPEND_ENTRIES_RESULT)->raft.append_entries_result.rejected,
                     0);
    assert_int_equal(w->applied, 2);
    assert_int_equal(w->settled, 0); /* the target is 3: stored, but is it committed? */
    receive_vote_request(w, 3, 3, 10);
    assert_null(last_sent(w, RAFT_REQUEST_VOTE_RESULT));

    /* A leader of a later term needs a proof of his own. */
    size_t sent = w->sent_count;
    receive_append(w, 3, 3, 3, 2, 3, NULL);
    assert_int_equal(w->sent_count, sent + 1);
    assert_int_equal(w->sent[sent].kind, MESSAGE_REFILL);
    assert_int_equal(w->sent[sent].to, 3);
    assert_int_equal(w->applied, 2);
    receive_refill(w, 3, MESSAGE_REFILL_ACK, 3, nonce, 3);
    receive_append(w, 3, 3, 3, 2, 3, NULL);
    assert_int_equal(w->applied, 3);
    assert_int_equal(w->settled, 0); /* its term is not durable yet */
    make_durable(w);
    assert_int_equal(w->settled, 1);
    assert_false(driver_refilling(w->driver));
    w->now_ms += 2000;
    driver_tick(w->driver, w->now_ms); /* its leader is silent: it may even ask itself now */
    assert_int_equal(count_sent(w, RAFT_REQUEST_VOTE), 2);
    receive_vote_request(w, 1, 4, 10);
    make_durable(w);
    assert_true(last_sent(w, RAFT_REQUEST_VOTE_RESULT)->raft.request_vote_result.vote_granted);
    assert_int_equal(w->settled, 1);
    free(f);
    world_destroy(w);
}

static void test_leader_proves_itself_by_the_others(void **state)
{
    (void)state;
    struct world *w = ready_leader(0);
    w->sent_count = 0;
    receive_refill(w, 2, MESSAGE_REFILL, 1, 9, 0); /* another term */
    assert_int_equal(w->sent_count, 0);
    receive_refill(w, 2, MESSAGE_REFILL, 2, 9, 0);
    const struct sent *round = last_of_kind(w, MESSAGE_READ);
    assert_non_null(round);
    assert_null(last_of_kind(w, MESSAGE_REFILL_ACK));
    receive_refill(w, 2, MESSAGE_REFILL, 2, 10, 0); /* one at a time: the round began before this */
    receive_read(w, 3, MESSAGE_READ_ACK, 2, round->seq);
    const struct sent *proof = last_of_kind(w, MESSAGE_REFILL_ACK);
    assert_non_null(proof);
    assert_int_equal(proof->to, 2);
    assert_int_equal(proof->term, 2);
    assert_int_equal(proof->seq, 9);
    world_destroy(w);
}

/* N13: how many entries a heartbeat carries to a peer that had stored all and has lost it. */
static size_t records_for_a_lost_log(unsigned guards_off)
{
    struct world *w = ready_leader(guards_off);
    for (int i = 0; i < 40; i++) { /* only node 3 answers */
        w->now_ms += DRIVER_TICK_MS;
        driver_tick(w->driver, w->now_ms);
        receive_result(w, 3, 2, 0, 2);
    }
    assert_int_equal(driver_match_index(w->driver, 2), 2);
    receive_result(w, 2, 2, 2, 0); /* begins with nothing */
    w->sent_count = 0;
    w->now_ms += DRIVER_TICK_MS;
    driver_tick(w->driver, w->now_ms);
    size_t records = 0;
    for (size_t i = 0; i < w->sent_count; i++) {
        if (w->sent[i].to == 2 && w->sent[i].core && w->sent[i].raft.type == RAFT_APPEND_ENTRIES) {
            assert_int_equal(w->sent[i].raft.append_entries.prev_log_index, 0);
            records += w->sent[i].records;
        }
    }
    world_destroy(w);
    return records;
}

static void test_lost_log_is_sent_again(void **state)
{
    (void)state;
    assert_int_equal(records_for_a_lost_log(0), 2);
    assert_int_equal(records_for_a_lost_log(DRIVER_GUARD_REFILL), 0);
}

static void test_new_log_settles_when_durable(void **state)
{
    (void)state;
    struct world *w = world_create(2, 0);
    struct membership m;
    members(&m, 3, 3);
    assert_int_equal(driver_start(w->driver, w->now_ms, 0, 0, NULL, &m), 0);
    driver_tick(w->driver, driver_deadline_ms(w->driver));
    assert_int_equal(w->settled, 0);
    make_durable(w);
    assert_int_equal(w->settled, 1);
    world_destroy(w);
}

int main(void)
{
    log_init("test_driver_members", LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_changes_wait_for_their_time),
        cmocka_unit_test(test_change_leaves_when_the_leader_has_it),
        cmocka_unit_test(test_changes_keep_a_quorum),
        cmocka_unit_test(test_nonvoter_votes_when_its_leader_is_silent),
        cmocka_unit_test(test_removed_node_is_told),
        cmocka_unit_test(test_unwilling_node_is_not_chosen),
        cmocka_unit_test(test_who_did_not_take_over_comes_last),
        cmocka_unit_test(test_reads_go_on_when_voters_leave),
        cmocka_unit_test(test_lost_disk_does_not_elect),
        cmocka_unit_test(test_refilling_node_is_silent),
        cmocka_unit_test(test_refill_needs_a_proved_leader),
        cmocka_unit_test(test_leader_proves_itself_by_the_others),
        cmocka_unit_test(test_lost_log_is_sent_again),
        cmocka_unit_test(test_new_log_settles_when_durable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
