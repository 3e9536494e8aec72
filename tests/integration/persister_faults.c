/* The persister against a real PostgreSQL and whatever goes wrong between them. Every test ends
 * with the oracle: every row exactly once, none that should not be there.
 *
 * PERSISTER_SEED=N persister_faults [TEST] */
#include "persister_node.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pg_proxy.h"

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
    struct persister_status s = node_status(&n);
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
    assert_non_null(strstr(text_cstring(&metrics),
                           "holdfast_persist_batch_rows_total{table=\"outbox\"} 30000"));
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
        node_offer(n);
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
    assert_true(node_status(&n).transactions_total >= 250);
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
    /* Nothing can be committed while this lock is held: for less than the persister's lock_timeout.
     */
    PQclear(pg_fixture_query(c, "BEGIN; LOCK TABLE holdfast.watermark IN ACCESS EXCLUSIVE MODE"));
    n.available = source.count;
    for (int i = 0; n.next == 0 && i < 1000; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        usleep(1000);
    }
    node_offer(&n);
    uint64_t at_first = n.offered;
    PQclear(pg_fixture_query(c, "COMMIT"));
    PQfinish(c);
    if (node_status(&n).errors_total ==
        0) { /* else the machine was too slow for the lock's timeout */
        assert_int_equal(at_first, PERSISTER_QUEUE_EVENTS_MAX);
    }
    run_until(all_acked, NULL, &n);
    assert_true(n.wants >= 2);
    node_destroy(&n);
    persister_oracle_check(url, &source, source.count, cluster, 1);
    event_source_close(&source);
}

/* With the rights of docs/sql-schema.md and no others. */
static void test_least_rights(void **unused)
{
    (void)unused;
    char url[160], least[160];
    int number = fresh_database(url, sizeof url);
    PGconn *c = pg_fixture_connect(url);
    PQclear(pg_fixture_query(
        c, "CREATE ROLE holdfastd LOGIN; GRANT USAGE ON SCHEMA holdfast TO holdfastd;"
           "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA holdfast TO holdfastd"));
    snprintf(least, sizeof least, "host=%s user=holdfastd dbname=db%d", server.dir, number);
    struct event_source source;
    event_source_init(&source, seed + 14, SHARDS, 5000, false);
    struct node n;
    node_create(&n, &source, least);
    node_lead(&n, 1);
    run_until(all_acked, NULL, &n);
    assert_int_equal(node_status(&n).errors_total, 0);
    node_destroy(&n);
    PQfinish(c);
    persister_oracle_check(url, &source, 5000, cluster, 1);
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
    PGresult *r = pg_fixture_query(
        m->admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                  "WHERE application_name = 'holdfast persister' ORDER BY random() LIMIT 1");
    m->count += (uint64_t)PQntuples(r);
    PQclear(r);
    if (m->count == m->count_max) {
        m->node.available = m->node.source->count;
        node_offer(&m->node);
    }
}

static void test_backends_terminated(void **unused)
{
    (void)unused;
    char url[160];
    fresh_database(url, sizeof url);
    struct event_source source;
    event_source_init(&source, seed + 3, SHARDS, 60000, false);
    struct mischief m = {
        .admin = pg_fixture_connect(server.url), .prng = prng_init(seed), .count_max = 25};
    node_create(&m.node, &source, url);
    m.node.available = 59000; /* the end comes after the last blow */
    node_lead(&m.node, 3);
    run_until(all_acked, terminate_backends, &m);
    assert_int_equal(m.count, 25);
    assert_true(node_status(&m.node).errors_total > 0);
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
        node_offer(&m->node);
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
    node_offer(&l->node);
}

static void test_commit_answers_lost(void **unused)
{
    (void)unused;
    char url[160], through[160];
    int number = fresh_database(url, sizeof url);
    struct event_source source;
    event_source_init(&source, seed + 5, SHARDS, 60000, false);
    struct lossy l = {.proxy = pg_proxy_start(server.dir, 3, 150)};
    snprintf(through, sizeof through, "host=%s user=postgres dbname=db%d", pg_proxy_dir(l.proxy),
             number);
    node_create(&l.node, &source, through);
    l.node.available = 150;
    node_lead(&l.node, 5);
    run_until(all_acked, until_cut_often, &l);
    uint64_t dropped, delayed;
    pg_proxy_counts(l.proxy, &dropped, &delayed);
    assert_true(dropped >= 6 && delayed >= 6);
    assert_true(node_status(&l.node).errors_total >= 6);
    node_destroy(&l.node);
    pg_proxy_stop(l.proxy);
    persister_oracle_check(url, &source, 60000, cluster, 5);
    event_source_close(&source);
}

/* ---- servers that hang ---- */

/* Somebody listens and never answers: the end still comes at once (the deadline of this test is far
 * below what any timeout of the persister, but for connecting, would take). */
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
    snprintf(url, sizeof url, "postgresql://ann:s3cret@127.0.0.1:%u/shop?sslmode=disable",
             ntohs(address.sin_port));
    struct event_source source;
    event_source_init(&source, seed, SHARDS, 10, false);
    struct node n;
    node_create(&n, &source, url);
    node_lead(&n, 1);
    for (int i = 0; i < 50; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        usleep(1000);
    }
    struct persister_status s = node_status(&n);
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
    run_until_acked(&n, 1);
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
    node_destroy(&n);
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

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_arrives),
        cmocka_unit_test(test_one_event_a_transaction),
        cmocka_unit_test(test_queue_full),
        cmocka_unit_test(test_least_rights),
        cmocka_unit_test(test_backends_terminated),
        cmocka_unit_test(test_server_crashes),
        cmocka_unit_test(test_commit_answers_lost),
        cmocka_unit_test(test_destroy_while_connecting_hangs),
        cmocka_unit_test(test_destroy_while_server_hangs),
        cmocka_unit_test(test_destroy_at_once),
    };
    return persister_run_tests(argc, argv, tests, ARRAY_COUNT(tests));
}
