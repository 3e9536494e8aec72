/* The persister against a real PostgreSQL and whatever goes wrong between them. Every test ends with the
 * oracle: every row exactly once, none that should not be there.
 *
 * A test prints its seed; PERSISTER_SEED=N runs them all with another. */
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/prng.h"
#include "pg_fixture.h"
#include "pg_proxy.h"
#include "persister_oracle.h"
#include "storage/migrate.h"
#include "storage/persister.h"
#include "storage/persister_worker.h"

#define SHARDS      16
#define DEADLINE_MS 120000 /* a test that takes this long hangs */

static struct pg_fixture server;
static uint64_t seed = 20261122;
static int databases;

static const uint8_t cluster[16] = {0x9a, 1, 2, 3, 0xff, 5, 0x67, 0x89, 8, 9, 10, 11, 12, 13, 14, 15};

/* One persister as a node would have it: offers what the source has up to `available`. */
struct node {
    struct persister *persister;
    const struct event_source *source;
    uint64_t next, acked, available;
    uint64_t wants, offered;
    size_t chunk_max; /* events offered at once; 0: no limit */
    bool gone;
};

static void offer(struct node *n)
{
    static struct event_view views[32];
    while (n->next != 0 && n->next <= n->available) {
        size_t max = n->chunk_max != 0 && n->chunk_max < 32 ? n->chunk_max : 32;
        size_t count = 0;
        for (; count < max && n->next + count <= n->available; count++) {
            event_source_read(n->source, n->next + count, &views[count]);
        }
        size_t taken = persister_offer(n->persister, views, count);
        assert_true(taken <= count);
        n->next += taken;
        n->offered += taken;
        if (taken < count) {
            break;
        }
    }
}

static void want(void *ctx, uint64_t sequence)
{
    struct node *n = ctx;
    assert_true(sequence > n->acked); /* never again what was acknowledged: the engine has dropped it */
    assert_true(sequence <= n->source->count + 1);
    n->wants++;
    n->next = sequence;
    offer(n);
}

static void acked(void *ctx, const struct command_ack *acks, size_t count)
{
    struct node *n = ctx;
    assert_int_equal(count, SHARDS);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(acks[i].shard, i);
        assert_int_equal(acks[i].sequence, acks[0].sequence);
    }
    assert_true(acks[0].sequence <= n->available);
    assert_true(acks[0].sequence >= n->acked);
    n->acked = acks[0].sequence;
}

static void gone(void *ctx)
{
    ((struct node *)ctx)->gone = true;
}

static uv_loop_t loop;

static void heartbeat(uv_timer_t *timer)
{
    (void)timer; /* keeps uv_run coming back */
}

static void node_create(struct node *n, const struct event_source *source, const char *url)
{
    *n = (struct node){.source = source, .available = source->count};
    struct persister_config config = {.loop = &loop, .url = url, .shards = SHARDS,
                                      .connect_backoff_min_ms = 5, .connect_backoff_max_ms = 100};
    memcpy(config.cluster_id, cluster, sizeof cluster);
    struct persister_callbacks callbacks = {want, acked};
    assert_int_equal(persister_create(&config, &callbacks, n, &n->persister), 0);
}

static void node_lead(struct node *n, uint64_t term)
{
    n->next = 0;
    persister_lead(n->persister, term, n->acked + 1);
}

/* Runs the loop until condition; calls disturb at every turn. */
static void run_until(bool (*condition)(void *), void (*disturb)(void *), void *ctx)
{
    uint64_t deadline = clock_monotonic_ms() + DEADLINE_MS;
    uv_timer_t timer;
    uv_timer_init(&loop, &timer);
    uv_timer_start(&timer, heartbeat, 1, 1);
    while (!condition(ctx)) {
        uv_run(&loop, UV_RUN_ONCE);
        if (disturb != NULL) {
            disturb(ctx);
        }
        if (clock_monotonic_ms() > deadline) {
            fail_msg("hangs; PERSISTER_SEED=%" PRIu64, seed);
        }
    }
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static bool is_gone(void *ctx)
{
    return ((struct node *)ctx)->gone;
}

static void node_destroy(struct node *n)
{
    persister_destroy(n->persister, gone, n);
    run_until(is_gone, NULL, n);
}

static bool all_acked(void *ctx)
{
    const struct node *n = ctx;
    return n->acked == n->source->count;
}

static struct persister_status status(const struct node *n)
{
    struct persister_status s;
    persister_get_status(n->persister, &s);
    return s;
}

static bool has_error(void *ctx)
{
    return status(ctx).error[0] != '\0';
}

static bool is_connected(void *ctx)
{
    return status(ctx).connected;
}

static bool is_fenced(void *ctx)
{
    return status(ctx).fenced;
}

static void fresh_database(char *url, size_t size)
{
    char name[32], error[256];
    snprintf(name, sizeof name, "db%d", ++databases);
    pg_fixture_create_database(&server, name, url, size);
    assert_int_equal(migrate_up(url, 10000, NULL, NULL, error, sizeof error), MIGRATE_OK);
}

/* ---- without faults ---- */

static void test_everything_arrives(void **unused)
{
    (void)unused;
    char url[160];
    fresh_database(url, sizeof url);
    struct event_source source;
    event_source_init(&source, seed, SHARDS, 30000, false);
    struct node n;
    node_create(&n, &source, url);
    assert_int_equal(persister_offer(n.persister, &(struct event_view){.sequence = 1}, 1), 0);
    node_lead(&n, 7);
    run_until(all_acked, NULL, &n);
    struct persister_status s = status(&n);
    assert_true(s.leading && s.connected && !s.fenced);
    assert_string_equal(s.error, "");
    assert_int_equal(s.persisted_sequence, 30000);
    assert_int_equal(s.next_sequence, 30001);
    assert_int_equal(s.events_total, 30000);
    assert_int_equal(s.queue_events, 0);
    assert_int_equal(s.errors_total, 0);
    assert_true(s.transactions_total > 0);
    struct text metrics = TEXT_INIT;
    persister_write_metrics(n.persister, &metrics);
    assert_non_null(strstr(text_cstring(&metrics), "holdfast_persist_events_total 30000"));
    assert_non_null(strstr(text_cstring(&metrics), "holdfast_persist_batch_rows_total{table=\"outbox\"} 30000"));
    text_close(&metrics);
    node_destroy(&n);
    persister_oracle_check(url, &source, 30000, cluster, 7);
    event_source_close(&source);
}

static void one_by_one(void *ctx)
{
    struct node *n = ctx;
    if (n->acked == n->available && n->available < n->source->count) {
        n->available++;
        offer(n);
    }
}

/* Each event in a transaction of its own: nothing is merged, every change meets its row. */
static void test_one_event_a_transaction(void **unused)
{
    (void)unused;
    char url[160];
    fresh_database(url, sizeof url);
    struct event_source source;
    event_source_init(&source, seed + 1, SHARDS, 250, false);
    struct node n;
    node_create(&n, &source, url);
    n.available = 0;
    node_lead(&n, 1);
    run_until(all_acked, one_by_one, &n);
    assert_true(status(&n).transactions_total >= 250);
    node_destroy(&n);
    persister_oracle_check(url, &source, 250, cluster, 1);
    event_source_close(&source);
}

/* More events than the queue takes: fewer are taken, and the rest is wanted when there is room. */
static void test_queue_full(void **unused)
{
    (void)unused;
    char url[160];
    fresh_database(url, sizeof url);
    struct event_source source;
    event_source_init(&source, seed + 2, SHARDS, PERSISTER_QUEUE_EVENTS_MAX + 20000, true);
    PGconn *c = pg_fixture_connect(url);
    struct node n;
    node_create(&n, &source, url);
    n.available = 0;
    node_lead(&n, 1);
    run_until(is_connected, NULL, &n);
    /* Nothing can be committed while this lock is held: for less than the persister's lock_timeout. */
    PQclear(pg_fixture_query(c, "BEGIN; LOCK TABLE holdfast.watermark IN ACCESS EXCLUSIVE MODE"));
    n.available = source.count;
    for (int i = 0; n.next == 0 && i < 1000; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        usleep(1000);
    }
    offer(&n);
    uint64_t at_first = n.offered;
    PQclear(pg_fixture_query(c, "COMMIT"));
    PQfinish(c);
    if (status(&n).errors_total == 0) { /* else the machine was too slow for the lock's timeout */
        assert_int_equal(at_first, PERSISTER_QUEUE_EVENTS_MAX);
    }
    run_until(all_acked, NULL, &n);
    assert_true(n.wants >= 2);
    node_destroy(&n);
    persister_oracle_check(url, &source, source.count, cluster, 1);
    event_source_close(&source);
}

/* ---- connections and servers that go away ---- */

struct mischief {
    struct node node; /* first: conditions take a node */
    PGconn *admin;
    struct prng prng;
    uint64_t next_ms, count, count_max;
};

static void terminate_backends(void *ctx)
{
    struct mischief *m = ctx;
    uint64_t now_ms = clock_monotonic_ms();
    if (now_ms < m->next_ms || m->count >= m->count_max) {
        return;
    }
    m->next_ms = now_ms + 3 + prng_below(&m->prng, 60);
    PGresult *r = pg_fixture_query(m->admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                                   "WHERE application_name = 'holdfast persister' ORDER BY random() LIMIT 1");
    m->count += (uint64_t)PQntuples(r);
    PQclear(r);
    if (m->count == m->count_max) {
        m->node.available = m->node.source->count;
        offer(&m->node);
    }
}

static void test_backends_terminated(void **unused)
{
    (void)unused;
    char url[160];
    fresh_database(url, sizeof url);
    struct event_source source;
    event_source_init(&source, seed + 3, SHARDS, 60000, false);
    struct mischief m = {.admin = pg_fixture_connect(server.url), .prng = prng_init(seed), .count_max = 25};
    node_create(&m.node, &source, url);
    m.node.available = 59000; /* the end comes after the last blow */
    node_lead(&m.node, 3);
    run_until(all_acked, terminate_backends, &m);
    assert_int_equal(m.count, 25);
    assert_true(status(&m.node).errors_total > 0);
    node_destroy(&m.node);
    PQfinish(m.admin);
    persister_oracle_check(url, &source, 60000, cluster, 3);
    event_source_close(&source);
}

static void crash_server(void *ctx)
{
    struct mischief *m = ctx;
    uint64_t step = m->node.source->count / (m->count_max + 1);
    if (m->count < m->count_max && m->node.acked > (m->count + 1) * step / 2) {
        m->count++;
        pg_fixture_crash(&server);
        for (int i = 0; i < 20; i++) { /* while it is away */
            uv_run(&loop, UV_RUN_NOWAIT);
            usleep(5000);
        }
        pg_fixture_restart(&server);
        if (m->count == m->count_max) {
            m->node.available = m->node.source->count;
        }
        offer(&m->node);
    }
}

static void test_server_crashes(void **unused)
{
    (void)unused;
    char url[160];
    fresh_database(url, sizeof url);
    struct event_source source;
    event_source_init(&source, seed + 4, SHARDS, 60000, false);
    struct mischief m = {.count_max = 4};
    node_create(&m.node, &source, url);
    m.node.available = 50000;
    node_lead(&m.node, 4);
    run_until(all_acked, crash_server, &m);
    assert_int_equal(m.count, 4);
    node_destroy(&m.node);
    persister_oracle_check(url, &source, 60000, cluster, 4);
    event_source_close(&source);
}

struct lossy {
    struct node node;
    struct pg_proxy *proxy;
};

static void until_cut_often(void *ctx)
{
    struct lossy *l = ctx;
    uint64_t dropped, delayed;
    pg_proxy_counts(l->proxy, &dropped, &delayed);
    if (dropped >= 6 && delayed >= 6) {
        pg_proxy_calm(l->proxy);
        l->node.available = l->node.source->count;
    } else if (l->node.acked == l->node.available && l->node.available < 50000) {
        l->node.available += 150; /* many transactions */
    }
    offer(&l->node);
}

static void test_commit_answers_lost(void **unused)
{
    (void)unused;
    char url[160], through[160];
    fresh_database(url, sizeof url);
    struct event_source source;
    event_source_init(&source, seed + 5, SHARDS, 60000, false);
    struct lossy l = {.proxy = pg_proxy_start(server.dir, 3, 150)};
    snprintf(through, sizeof through, "host=%s user=postgres dbname=db%d", pg_proxy_dir(l.proxy), databases);
    node_create(&l.node, &source, through);
    l.node.available = 150;
    node_lead(&l.node, 5);
    run_until(all_acked, until_cut_often, &l);
    uint64_t dropped, delayed;
    pg_proxy_counts(l.proxy, &dropped, &delayed);
    assert_true(dropped >= 6 && delayed >= 6);
    assert_true(status(&l.node).errors_total >= 6);
    node_destroy(&l.node);
    pg_proxy_stop(l.proxy);
    persister_oracle_check(url, &source, 60000, cluster, 5);
    event_source_close(&source);
}

/* ---- leaders ---- */

static void test_two_leaders(void **unused)
{
    (void)unused;
    char url[160];
    fresh_database(url, sizeof url);
    struct event_source source;
    event_source_init(&source, seed + 6, SHARDS, 40000, false);
    struct node old, new;
    node_create(&old, &source, url);
    node_create(&new, &source, url);
    old.available = 20000;
    node_lead(&old, 10);
    while (old.acked == 0) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    /* It writes on while the new one takes the fence, and goes on being offered events after. */
    old.available = 40000;
    offer(&old);
    node_lead(&new, 12);
    run_until(all_acked, NULL, &new);
    run_until(is_fenced, NULL, &old);
    uint64_t acked_before = old.acked;
    struct persister_status s = status(&old);
    assert_true(s.fenced && !s.connected);
    assert_non_null(strstr(s.error, "fenced"));
    uv_run(&loop, UV_RUN_NOWAIT); /* it learns that nothing is wanted any more */
    struct event_view v;
    event_source_read(&source, 40000, &v);
    assert_int_equal(persister_offer(old.persister, &v, 1), 0);
    persister_oracle_check(url, &source, 40000, cluster, 12);

    /* Leading again in its old term, or in one between, does not help it. */
    node_lead(&old, 10);
    run_until(is_fenced, NULL, &old);
    node_lead(&old, 11);
    run_until(is_fenced, NULL, &old);
    assert_int_equal(old.acked, acked_before);
    persister_oracle_check(url, &source, 40000, cluster, 12);

    /* In a later one it does, and learns what is there already. */
    node_lead(&old, 13);
    run_until(all_acked, NULL, &old);
    assert_false(status(&old).fenced);
    node_destroy(&old);
    node_destroy(&new);
    persister_oracle_check(url, &source, 40000, cluster, 13);
    event_source_close(&source);
}

struct carousel {
    struct node nodes[3];
    struct prng prng;
    uint64_t term, next_ms, changes;
    size_t leader;
};

static void change_leader(void *ctx)
{
    struct carousel *c = ctx;
    uint64_t now_ms = clock_monotonic_ms();
    uint64_t known = 0;
    for (size_t i = 0; i < 3; i++) {
        known = c->nodes[i].acked > known ? c->nodes[i].acked : known;
    }
    if (now_ms < c->next_ms || c->changes == 60) {
        return;
    }
    c->next_ms = now_ms + prng_below(&c->prng, 80);
    c->changes++;
    if (prng_one_in(&c->prng, 2)) { /* else the old leader does not notice */
        persister_follow(c->nodes[c->leader].persister);
    }
    c->leader = (size_t)prng_below(&c->prng, 3);
    struct node *n = &c->nodes[c->leader];
    n->acked = prng_one_in(&c->prng, 3) ? n->acked : known; /* acknowledgements are replicated, at last */
    n->available = c->changes == 60 ? n->source->count : n->source->count * c->changes / 80;
    n->available = n->available > known ? n->available : known;
    node_lead(n, ++c->term);
    if (prng_one_in(&c->prng, 4)) { /* and at once again */
        persister_follow(n->persister);
        node_lead(n, ++c->term);
    }
}

static bool carousel_done(void *ctx)
{
    struct carousel *c = ctx;
    return c->changes == 60 && all_acked(&c->nodes[c->leader]);
}

static void test_leaders_come_and_go(void **unused)
{
    (void)unused;
    char url[160];
    fresh_database(url, sizeof url);
    struct event_source source;
    event_source_init(&source, seed + 7, SHARDS, 40000, false);
    struct carousel c = {.prng = prng_init(seed + 8)};
    for (size_t i = 0; i < 3; i++) {
        node_create(&c.nodes[i], &source, url);
        c.nodes[i].available = 0;
    }
    run_until(carousel_done, change_leader, &c);
    for (size_t i = 0; i < 3; i++) {
        node_destroy(&c.nodes[i]);
    }
    persister_oracle_check(url, &source, 40000, cluster, c.term);
    event_source_close(&source);
}

/* A leader that was paused within a transaction holds the watermarks: its successor ends its connection. */
static void test_stuck_predecessor(void **unused)
{
    (void)unused;
    char url[160], stuck_url[200];
    fresh_database(url, sizeof url);
    struct event_source source;
    event_source_init(&source, seed + 9, SHARDS, 3000, false);
    struct node n;
    node_create(&n, &source, url);
    n.available = 1000;
    node_lead(&n, 1);
    while (n.acked < 1000) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    persister_follow(n.persister);
    snprintf(stuck_url, sizeof stuck_url, "%s application_name='holdfast persister'", url);
    PGconn *stuck = pg_fixture_connect(stuck_url);
    PQclear(pg_fixture_query(stuck, "BEGIN; SELECT holdfast.advance(1, '{3}', '{1000}', 1001, 1)"));
    n.available = 3000;
    node_lead(&n, 2);
    run_until(all_acked, NULL, &n);
    PGresult *r = PQexec(stuck, "COMMIT");
    assert_int_equal(PQresultStatus(r), PGRES_FATAL_ERROR);
    PQclear(r);
    PQfinish(stuck);
    node_destroy(&n);
    persister_oracle_check(url, &source, 3000, cluster, 2);
    event_source_close(&source);
}

/* The functions that refuse what is too late. */
static void test_guards(void **unused)
{
    (void)unused;
    char url[160];
    fresh_database(url, sizeof url);
    PGconn *c = pg_fixture_connect(url);
    PQclear(pg_fixture_query(c, "SELECT holdfast.create_shards(0, 3); SELECT holdfast.take_fence(5, 4);"
                                "SELECT holdfast.advance(5, '{0,1,2,3}', '{0,0,0,0}', 10, 1)"));
    static const struct {
        const char *sql, *sqlstate;
    } refused[] = {
        {"SELECT holdfast.take_fence(4, 4)", "HF001"},
        {"SELECT holdfast.advance(4, '{0}', '{10}', 11, 1)", "HF001"},
        {"SELECT holdfast.advance(5, '{0,1}', '{10,9}', 11, 1)", "HF002"},
        {"SELECT holdfast.advance(5, '{0}', '{10}', 10, 1)", "HF002"},
        {"SELECT holdfast.advance(5, '{7}', '{0}', 10, 1)", "HF002"},
        {"SELECT holdfast.change_orders('{1}', '{1}', '{paid}', '{2}', '{2026-01-01}', '{1}', '{null}', "
         "'{null}')", "HF003"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(refused); i++) {
        PGresult *r = PQexec(c, refused[i].sql);
        const char *sqlstate = PQresultErrorField(r, PG_DIAG_SQLSTATE);
        assert_non_null(sqlstate);
        assert_string_equal(sqlstate, refused[i].sqlstate);
        PQclear(r);
    }
    assert_int_equal(pg_fixture_number(c, "SELECT count(*) FROM holdfast.watermark WHERE sequence = 10 "
                                          "AND term = 5"), 4);
    PQfinish(c);
}

/* ---- databases that are not right ---- */

static void test_wrong_database(void **unused)
{
    (void)unused;
    char url[160], error[256];
    snprintf(error, sizeof error, "db%d", ++databases);
    pg_fixture_create_database(&server, error, url, sizeof url);
    PGconn *c = pg_fixture_connect(url);
    struct event_source source;
    event_source_init(&source, seed + 10, SHARDS, 2000, false);
    struct node n;
    node_create(&n, &source, url);
    node_lead(&n, 1);
    run_until(has_error, NULL, &n);
    assert_non_null(strstr(status(&n).error, "holdfastctl migrate up"));
    persister_follow(n.persister);

    assert_int_equal(migrate_up(url, 10000, NULL, NULL, error, sizeof error), MIGRATE_OK);
    PQclear(pg_fixture_query(c, "INSERT INTO holdfast.cluster (cluster_id, shards) "
                                "VALUES ('00000000-0000-0000-0000-000000000001', 16)"));
    node_lead(&n, 1);
    run_until(has_error, NULL, &n);
    assert_non_null(strstr(status(&n).error, "another cluster"));
    persister_follow(n.persister);

    PQclear(pg_fixture_query(c, "UPDATE holdfast.cluster SET shards = 8, "
                                "cluster_id = '9a010203-ff05-6789-0809-0a0b0c0d0e0f'"));
    node_lead(&n, 1);
    run_until(has_error, NULL, &n);
    assert_non_null(strstr(status(&n).error, "has 8 shards"));
    assert_int_equal(pg_fixture_number(c, "SELECT count(*) FROM holdfast.watermark"), 0);

    /* Put right, it goes on by itself. */
    PQclear(pg_fixture_query(c, "UPDATE holdfast.cluster SET shards = 16"));
    run_until(all_acked, NULL, &n);
    assert_string_equal(status(&n).error, "");
    node_destroy(&n);
    PQfinish(c);
    persister_oracle_check(url, &source, 2000, cluster, 1);
    event_source_close(&source);
}

/* A row that PostgreSQL refuses is an error until somebody mends it; it is never left out. */
static void test_row_refused(void **unused)
{
    (void)unused;
    char url[160];
    fresh_database(url, sizeof url);
    PGconn *c = pg_fixture_connect(url);
    PQclear(pg_fixture_query(c, "ALTER TABLE holdfast.outbox ADD CONSTRAINT drift CHECK (sequence <> 1500)"));
    struct event_source source;
    event_source_init(&source, seed + 11, SHARDS, 3000, false);
    struct node n;
    node_create(&n, &source, url);
    n.available = 1000;
    node_lead(&n, 1);
    while (n.acked < 1000) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    n.available = 3000;
    offer(&n);
    run_until(has_error, NULL, &n);
    assert_non_null(strstr(status(&n).error, "23514"));
    assert_int_equal(pg_fixture_number(c, "SELECT count(*) FROM holdfast.outbox WHERE sequence >= 1500"), 0);
    PQclear(pg_fixture_query(c, "ALTER TABLE holdfast.outbox DROP CONSTRAINT drift"));
    run_until(all_acked, NULL, &n);
    node_destroy(&n);
    PQfinish(c);
    persister_oracle_check(url, &source, 3000, cluster, 1);
    event_source_close(&source);
}

/* A database that lost what was acknowledged (restored, replaced) is not written to. */
static void test_database_went_back(void **unused)
{
    (void)unused;
    char url[160];
    fresh_database(url, sizeof url);
    struct event_source source;
    event_source_init(&source, seed + 12, SHARDS, 3000, false);
    struct node n;
    node_create(&n, &source, url);
    n.available = 2000;
    node_lead(&n, 1);
    while (n.acked < 2000) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    persister_follow(n.persister);
    PGconn *c = pg_fixture_connect(url);
    PQclear(pg_fixture_query(c, "UPDATE holdfast.watermark SET sequence = 1900 WHERE shard = 5"));
    n.available = 3000;
    node_lead(&n, 2);
    run_until(has_error, NULL, &n);
    assert_non_null(strstr(status(&n).error, "lacks events"));
    assert_int_equal(pg_fixture_number(c, "SELECT count(*) FROM holdfast.outbox"), 2000);
    PQclear(pg_fixture_query(c, "UPDATE holdfast.watermark SET sequence = 2000 WHERE shard = 5"));
    run_until(all_acked, NULL, &n);
    node_destroy(&n);
    PQfinish(c);
    persister_oracle_check(url, &source, 3000, cluster, 2);
    event_source_close(&source);
}

/* ---- servers that hang ---- */

/* Somebody listens and never answers: the end still comes at once (the deadline of this test is far below
 * what any timeout of the persister, but for connecting, would take). */
static void test_destroy_while_connecting_hangs(void **unused)
{
    (void)unused;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    char url[160];
    snprintf(url, sizeof url, "postgresql://ann:s3cret@127.0.0.1:%u/shop?sslmode=disable", ntohs(address.sin_port));
    struct event_source source;
    event_source_init(&source, seed, SHARDS, 10, false);
    struct node n;
    node_create(&n, &source, url);
    node_lead(&n, 1);
    for (int i = 0; i < 50; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        usleep(1000);
    }
    struct persister_status s = status(&n);
    assert_false(s.connected);
    assert_null(strstr(s.url, "s3cret"));
    assert_non_null(strstr(s.url, "user=ann"));
    node_destroy(&n);
    close(fd);
    event_source_close(&source);
}

/* Backends that are stopped in the middle of writing. */
static void test_destroy_while_server_hangs(void **unused)
{
    (void)unused;
    char url[160];
    fresh_database(url, sizeof url);
    struct event_source source;
    event_source_init(&source, seed + 13, SHARDS, 60000, true);
    struct node n;
    node_create(&n, &source, url);
    node_lead(&n, 1);
    while (n.acked == 0) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    PGconn *c = pg_fixture_connect(server.url);
    PGresult *r = pg_fixture_query(c, "SELECT pid FROM pg_stat_activity WHERE application_name = "
                                      "'holdfast persister'");
    assert_true(PQntuples(r) > 0);
    for (int i = 0; i < PQntuples(r); i++) {
        kill((pid_t)atoi(PQgetvalue(r, i, 0)), SIGSTOP);
    }
    for (int i = 0; i < 30; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        usleep(1000);
    }
    persister_follow(n.persister);
    node_lead(&n, 2);
    persister_destroy(n.persister, gone, &n);
    run_until(is_gone, NULL, &n);
    for (int i = 0; i < PQntuples(r); i++) {
        kill((pid_t)atoi(PQgetvalue(r, i, 0)), SIGCONT);
    }
    PQclear(r);
    PQfinish(c);

    /* Whatever of it arrived, the next leader makes it whole. */
    struct node next;
    node_create(&next, &source, url);
    next.acked = n.acked;
    node_lead(&next, 3);
    run_until(all_acked, NULL, &next);
    node_destroy(&next);
    persister_oracle_check(url, &source, 60000, cluster, 3);
    event_source_close(&source);
}

static void test_destroy_at_once(void **unused)
{
    (void)unused;
    struct event_source source;
    event_source_init(&source, seed, SHARDS, 10, false);
    for (int i = 0; i < 20; i++) {
        struct node n;
        node_create(&n, &source, "host=/nonexistent");
        if (i % 2 == 1) {
            node_lead(&n, 1);
        }
        node_destroy(&n);
    }
    event_source_close(&source);
}

static int start(void **unused)
{
    (void)unused;
    const char *given = getenv("PERSISTER_SEED");
    seed = given != NULL ? strtoull(given, NULL, 10) : seed;
    printf("PERSISTER_SEED=%" PRIu64 "\n", seed);
    pg_fixture_start(&server, "");
    return uv_loop_init(&loop);
}

static int stop(void **unused)
{
    (void)unused;
    pg_fixture_stop(&server);
    return uv_loop_close(&loop);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_arrives),
        cmocka_unit_test(test_one_event_a_transaction),
        cmocka_unit_test(test_queue_full),
        cmocka_unit_test(test_backends_terminated),
        cmocka_unit_test(test_server_crashes),
        cmocka_unit_test(test_commit_answers_lost),
        cmocka_unit_test(test_two_leaders),
        cmocka_unit_test(test_leaders_come_and_go),
        cmocka_unit_test(test_stuck_predecessor),
        cmocka_unit_test(test_guards),
        cmocka_unit_test(test_wrong_database),
        cmocka_unit_test(test_row_refused),
        cmocka_unit_test(test_database_went_back),
        cmocka_unit_test(test_destroy_while_connecting_hangs),
        cmocka_unit_test(test_destroy_while_server_hangs),
        cmocka_unit_test(test_destroy_at_once),
    };
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]); /* one test: persister_faults test_two_leaders */
    }
    return cmocka_run_group_tests(tests, start, stop);
}
