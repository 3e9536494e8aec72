/* Unit tests of server/clock and server/clock_peers: a small world of voters with clocks of their
 * own, in which one leads. What wrong clocks may and may not do. The time of the world is the
 * truth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/clock.h"

#define MS    1000000
#define WALL  1795359845000 /* a true wall clock at time 0 */
#define HOUR  3600000
#define NODES 5

struct node {
    bool up;
    int64_t boot_ms;  /* its monotonic clock at time 0 */
    int64_t ppm;      /* how much faster it runs */
    int64_t wall_off; /* of its wall clock, ms */
    struct cluster_clock clock;
};

struct world {
    int64_t now_ms;
    size_t count, leader; /* index; count: nobody leads */
    int64_t way_there_us, way_back_us;
    int64_t stamped_ms; /* replicated time */
    struct node nodes[NODES];
};

/* Its clocks at `us` after now. */
static uint64_t mono_at(const struct world *w, const struct node *n, int64_t us)
{
    int64_t ns = w->now_ms * MS + us * 1000;
    return (uint64_t)(n->boot_ms * MS + ns + ns / 1000000 * n->ppm);
}

static uint64_t mono(const struct world *w, const struct node *n)
{
    return mono_at(w, n, 0);
}

static int64_t wall(const struct world *w, const struct node *n)
{
    return WALL + w->now_ms + n->wall_off;
}

static void members(struct world *w, struct node *n)
{
    uint64_t ids[NODES];
    size_t count = 0;
    for (size_t i = 0; i < w->count; i++) {
        if (&w->nodes[i] != n) {
            ids[count++] = i + 1;
        }
    }
    clock_peers_set(&n->clock.peers, ids, count, true);
}

static void start(struct world *w, size_t i)
{
    struct node *n = &w->nodes[i];
    n->up = true;
    cluster_clock_init(&n->clock);
    cluster_clock_heard(&n->clock, w->stamped_ms, false, mono(w, n)); /* from its log */
    members(w, n);
}

static void world_init(struct world *w, size_t count)
{
    memset(w, 0, sizeof *w);
    w->count = w->leader = count;
    w->way_there_us = 200;
    w->way_back_us = 300;
    for (size_t i = 0; i < count; i++) {
        w->nodes[i].boot_ms = 1000 + (int64_t)i * 500000;
        start(w, i);
    }
}

static void sample(struct world *w, size_t i, size_t k)
{
    struct node *n = &w->nodes[i];
    const struct node *peer = &w->nodes[k];
    uint64_t at = mono_at(w, peer, w->way_there_us);
    const struct clock_sample s = {
        .sent_ns = mono(w, n),
        .received_ns = mono_at(w, n, w->way_there_us + w->way_back_us),
        .peer_ns = at,
        .peer_wall_ms = wall(w, peer),
        .peer_cluster_ns = cluster_clock_known_ns(&peer->clock, at),
    };
    cluster_clock_sample(&n->clock, k + 1, k == w->leader && cluster_clock_ready(&peer->clock), &s);
}

static void lead(struct world *w, size_t i)
{
    if (w->leader < w->count) {
        cluster_clock_follow(&w->nodes[w->leader].clock);
    }
    w->leader = i;
    struct node *n = &w->nodes[i];
    cluster_clock_lead(&n->clock, w->stamped_ms, mono(w, n), wall(w, n));
}

static int64_t replicated_error(const struct world *w)
{
    return w->stamped_ms - WALL - w->now_ms;
}

/* Time passes; every 50 ms the leader stamps a batch, which comes to the others 5 ms late. */
static void pass(struct world *w, int64_t ms)
{
    for (int64_t end = w->now_ms + ms; w->now_ms < end; w->now_ms += 10) {
        for (size_t i = 0; i < w->count; i++) {
            struct node *n = &w->nodes[i];
            for (size_t k = 0; n->up && w->now_ms % 500 == 0 && k < w->count; k++) {
                if (k != i && w->nodes[k].up) {
                    sample(w, i, k);
                }
            }
            if (n->up) {
                cluster_clock_tick(&n->clock, mono(w, n), wall(w, n));
            }
        }
        if (w->leader == w->count || w->now_ms % 50 != 0) {
            continue;
        }
        struct node *l = &w->nodes[w->leader];
        if (!l->up || !cluster_clock_ready(&l->clock)) {
            continue;
        }
        int64_t stamp = cluster_clock_now_ms(&l->clock, mono(w, l));
        assert_true(stamp >= w->stamped_ms);
        w->stamped_ms = stamp;
        for (size_t i = 0; i < w->count; i++) {
            struct node *n = &w->nodes[i];
            if (n->up) {
                cluster_clock_heard(&n->clock, stamp, i != w->leader, mono_at(w, n, 5000));
            }
        }
    }
}

static void assert_error_within(const struct world *w, int64_t low, int64_t high)
{
    int64_t error = replicated_error(w);
    if (error < low || error > high) {
        fail_msg("replicated time is %lld ms off, allowed %lld to %lld", (long long)error,
                 (long long)low, (long long)high);
    }
}

static void test_new_cluster_takes_the_agreed_wall_clock(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    lead(&w, 0); /* alone: the majority */
    pass(&w, 1000);
    assert_error_within(&w, -60, 0);

    world_init(&w, 3);
    w.nodes[0].wall_off = HOUR;
    lead(&w, 0); /* nothing sampled yet: it waits */
    assert_false(cluster_clock_ready(&w.nodes[0].clock));
    pass(&w, 1000);
    assert_int_equal(w.nodes[0].clock.anchor, CLOCK_ANCHOR_AGREED);
    assert_error_within(&w, -60, 0);
}

/* The hole of ADR 0008: all restart, and the first leader's wall clock is wrong. */
static void restart_with_wall_clock_off_by(int64_t off)
{
    struct world w;
    world_init(&w, 3);
    lead(&w, 1);
    pass(&w, 20000);
    w.now_ms += 5000; /* down */
    w.leader = w.count;
    w.nodes[0].wall_off = off;
    for (size_t i = 0; i < w.count; i++) {
        start(&w, i);
    }
    pass(&w, 700);
    lead(&w, 0);
    pass(&w, 1000);
    assert_int_equal(w.nodes[0].clock.anchor, CLOCK_ANCHOR_AGREED);
    assert_error_within(&w, -60, 0);
    pass(&w, 5000);
    assert_true(clock_peers_suspect(&w.nodes[0].clock.peers) == (off != 0));
    assert_false(clock_peers_suspect(&w.nodes[1].clock.peers));
    assert_true(clock_peers_good(&w.nodes[0].clock.peers, 2));
    assert_int_equal(clock_peers_good(&w.nodes[1].clock.peers, 1), off == 0);
}

static void test_restart_with_one_wrong_wall_clock(void **state)
{
    (void)state;
    restart_with_wall_clock_off_by(0);
    restart_with_wall_clock_off_by(HOUR);
    restart_with_wall_clock_off_by(-HOUR);
}

static void test_restart_never_goes_back(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 3);
    w.stamped_ms = WALL + HOUR; /* the wall clocks were an hour ahead once */
    for (size_t i = 0; i < w.count; i++) {
        start(&w, i);
    }
    pass(&w, 700);
    lead(&w, 0);
    pass(&w, 5000);
    assert_error_within(&w, HOUR - 800, HOUR);
    assert_in_range(-w.nodes[0].clock.wall_difference_ms, HOUR - 800, HOUR);
}

/* Two of three, and they do not agree: the earlier one, after some waiting. */
static void test_restart_without_a_majority(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 3);
    w.nodes[2].up = false;
    w.nodes[0].wall_off = HOUR;
    pass(&w, 700);
    lead(&w, 0);
    pass(&w, CLOCK_ANCHOR_WAIT_MS - 100);
    assert_false(cluster_clock_ready(&w.nodes[0].clock));
    pass(&w, 1000);
    assert_int_equal(w.nodes[0].clock.anchor, CLOCK_ANCHOR_ALONE);
    assert_error_within(&w, -60, 0);
    assert_false(clock_peers_suspect(&w.nodes[0].clock.peers)); /* nobody can say who is wrong */
}

static void test_wall_clocks_jump_under_a_leader(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 3);
    lead(&w, 0);
    pass(&w, 20000);
    for (int64_t jump = -HOUR; jump <= HOUR; jump += HOUR / 4) {
        w.nodes[0].wall_off = jump;
        pass(&w, 15000);
        assert_error_within(&w, -55, 5);
        assert_int_equal(clock_peers_suspect(&w.nodes[0].clock.peers), jump != 0);
    }
    /* All of them step: no hour has passed. At 50 ppm the cluster follows. */
    for (size_t i = 0; i < w.count; i++) {
        w.nodes[i].wall_off = HOUR;
    }
    pass(&w, 100000);
    assert_error_within(&w, -50, 5 + 5);
    assert_in_range(w.nodes[0].clock.wall_difference_ms, HOUR - 100, HOUR);
    assert_false(clock_peers_suspect(&w.nodes[0].clock.peers));
    /* A leader elected then goes on, and a restarted one asks the others. */
    lead(&w, 1);
    pass(&w, 1000);
    assert_error_within(&w, -50, 10);
    start(&w, 2);
    pass(&w, 10);
    w.nodes[0].up = false;
    lead(&w, 2);
    pass(&w, 5000);
    assert_error_within(&w, -50, 10);
}

static void new_leader_with_wall_clock_off_by(int64_t off)
{
    struct world w;
    world_init(&w, 3);
    lead(&w, 0);
    pass(&w, 30000);
    w.nodes[0].up = false;
    w.nodes[1].wall_off = off;
    w.now_ms += 700;
    lead(&w, 1);
    pass(&w, 1000);
    assert_int_equal(w.nodes[1].clock.anchor, CLOCK_ANCHOR_TOLD);
    assert_error_within(&w, -52, 2);
    pass(&w, 900000); /* a payment timeout later, without a majority when off is large */
    assert_error_within(&w, -100, 50);
}

static void test_new_leader_with_wrong_wall_clock(void **state)
{
    (void)state;
    new_leader_with_wall_clock_off_by(0);
    new_leader_with_wall_clock_off_by(HOUR);
    new_leader_with_wall_clock_off_by(-HOUR);
    new_leader_with_wall_clock_off_by(450);
}

/* One monotonic clock is a percent fast or slow: leading, then following and elected. */
static void drift(int64_t ppm)
{
    struct world w;
    world_init(&w, 3);
    w.nodes[0].ppm = ppm;
    lead(&w, 0);
    for (int i = 0; i < 300; i++) {
        pass(&w, 1000);
        assert_error_within(&w, -75, 25);
    }
    assert_true(clock_peers_suspect(&w.nodes[0].clock.peers));
    assert_false(clock_peers_good(&w.nodes[1].clock.peers, 1));
    assert_false(clock_peers_suspect(&w.nodes[1].clock.peers));
    lead(&w, 1);
    for (int i = 0; i < 60; i++) {
        pass(&w, 1000);
        assert_error_within(&w, -80, 30);
    }
    lead(&w, 0);
    for (int i = 0; i < 300; i++) {
        pass(&w, 1000);
        assert_error_within(&w, -80, 30);
    }
    w.nodes[0].ppm = 0; /* repaired; its clock is where it is */
    w.nodes[0].boot_ms += w.now_ms * ppm / 1000000;
    pass(&w, 60000);
    assert_error_within(&w, -80, 30);
    assert_false(clock_peers_suspect(&w.nodes[0].clock.peers));
}

static void test_drift(void **state)
{
    (void)state;
    drift(10000);
    drift(-10000);
    drift(50000);
    drift(1000);
}

/* Within what is allowed nobody is suspect, and time moves with the middle one. */
static void test_honest_drift(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 5);
    for (size_t i = 0; i < w.count; i++) {
        w.nodes[i].ppm = ((int64_t)i - 2) * 60;
        w.nodes[i].wall_off = ((int64_t)i - 2) * 50;
    }
    lead(&w, 4); /* the fastest: 120 ppm */
    for (int64_t t = 0; t < 900000; t += 10000) {
        pass(&w, 10000);
        for (size_t i = 0; i < w.count; i++) {
            assert_false(clock_peers_suspect(&w.nodes[i].clock.peers));
        }
    }
    assert_error_within(&w, -80, 80);
}

/* The way there takes long, the way back nothing: half of it is the most that can be lost. */
static void test_asymmetric_way(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 3);
    w.way_there_us = 20000;
    w.way_back_us = 0;
    lead(&w, 0);
    pass(&w, 30000);
    int64_t before = replicated_error(&w);
    for (size_t i = 1; i <= 4; i++) {
        lead(&w, i % 3);
        pass(&w, 10000);
    }
    assert_in_range(replicated_error(&w) - before + 1000, 1000 - 45, 1000 + 45);
    for (size_t i = 0; i < 3; i++) {
        assert_false(clock_peers_suspect(&w.nodes[i].clock.peers));
    }
}

/* A follower that was suspended: its monotonic clock stood still for a minute. */
static void test_suspended_node(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 3);
    lead(&w, 0);
    pass(&w, 30000);
    w.nodes[1].up = false;
    pass(&w, 60000);
    w.nodes[1].up = true;
    w.nodes[1].boot_ms -= 60000;
    pass(&w, 3000);
    lead(&w, 1);
    pass(&w, 20000);
    assert_error_within(&w, -60, 20);
    /* A reboot: its monotonic clock begins at 0. */
    w.nodes[2].boot_ms = -w.now_ms;
    start(&w, 2);
    pass(&w, 40000);
    assert_false(clock_peers_suspect(&w.nodes[2].clock.peers));
    assert_true(clock_peers_good(&w.nodes[1].clock.peers, 3));
    assert_error_within(&w, -60, 20);
}

static void test_members_change(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 3);
    lead(&w, 0);
    pass(&w, 20000);
    const uint64_t ids[] = {2};
    struct cluster_clock *c = &w.nodes[0].clock;
    clock_peers_set(&c->peers, ids, 1, true);
    assert_int_equal(clock_peers_needed(&c->peers), 2);
    cluster_clock_tick(c, mono(&w, &w.nodes[0]) + 200 * MS, wall(&w, &w.nodes[0]) + 200);
    assert_true(c->peers.wall.found);
    assert_true(clock_peers_good(&c->peers, 2));
    assert_false(clock_peers_good(&c->peers, 3));
    clock_peers_set(&c->peers, NULL, 0, false); /* of no configuration */
    cluster_clock_tick(c, mono(&w, &w.nodes[0]) + 400 * MS, wall(&w, &w.nodes[0]) + 400);
    assert_false(c->peers.wall.found);
    assert_int_equal(clock_peers_needed(&c->peers), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_cluster_takes_the_agreed_wall_clock),
        cmocka_unit_test(test_restart_with_one_wrong_wall_clock),
        cmocka_unit_test(test_restart_never_goes_back),
        cmocka_unit_test(test_restart_without_a_majority),
        cmocka_unit_test(test_wall_clocks_jump_under_a_leader),
        cmocka_unit_test(test_new_leader_with_wrong_wall_clock),
        cmocka_unit_test(test_drift),
        cmocka_unit_test(test_honest_drift),
        cmocka_unit_test(test_asymmetric_way),
        cmocka_unit_test(test_suspended_node),
        cmocka_unit_test(test_members_change),
    };
    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
