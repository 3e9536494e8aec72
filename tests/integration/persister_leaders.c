/* The persister among others of its kind, and with databases that are not what it expects. Every
 * test ends with the oracle: every row exactly once, none that should not be there.
 *
 * PERSISTER_SEED=N persister_leaders [TEST] */
#include "persister_node.h"

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
    run_until_acked(&old, 1);
    /* It writes on while the new one takes the fence, and goes on being offered events after. */
    old.available = 40000;
    node_offer(&old);
    node_lead(&new, 12);
    run_until(all_acked, NULL, &new);
    run_until(is_fenced, NULL, &old);
    uint64_t acked_before = old.acked;
    struct persister_status s = node_status(&old);
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
    assert_false(node_status(&old).fenced);
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
    n->acked =
        prng_one_in(&c->prng, 3) ? n->acked : known; /* acknowledgements are replicated, at last */
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

/* A leader that was paused within a transaction holds the watermarks: its successor ends its
 * connection. */
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
    run_until_acked(&n, 1000);
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
    PQclear(
        pg_fixture_query(c, "SELECT holdfast.create_shards(0, 3); SELECT holdfast.take_fence(5, 4);"
                            "SELECT holdfast.advance(5, '{0,1,2,3}', '{0,0,0,0}', 10, 1)"));
    static const struct {
        const char *sql, *sqlstate;
    } refused[] = {
        {"SELECT holdfast.take_fence(4, 4)", "HF001"},
        {"SELECT holdfast.advance(4, '{0}', '{10}', 11, 1)", "HF001"},
        {"SELECT holdfast.advance(5, '{0,1}', '{10,9}', 11, 1)", "HF002"},
        {"SELECT holdfast.advance(5, '{0}', '{10}', 10, 1)", "HF002"},
        {"SELECT holdfast.advance(5, '{7}', '{0}', 10, 1)", "HF002"},
        {"SELECT holdfast.change_orders('{1}', '{1}', '{paid}', '{2}', '{2026-01-01}', '{1}', "
         "'{null}', "
         "'{null}')",
         "HF003"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(refused); i++) {
        PGresult *r = PQexec(c, refused[i].sql);
        const char *sqlstate = PQresultErrorField(r, PG_DIAG_SQLSTATE);
        assert_non_null(sqlstate);
        assert_string_equal(sqlstate, refused[i].sqlstate);
        PQclear(r);
    }
    assert_int_equal(
        pg_fixture_number(c, "SELECT count(*) FROM holdfast.watermark WHERE sequence = 10 "
                             "AND term = 5"),
        4);
    PQfinish(c);
}

/* ---- databases that are not right ---- */

static void test_wrong_database(void **unused)
{
    (void)unused;
    char url[160], error[256];
    pg_fixture_create_database(&server, "empty", url, sizeof url);
    PGconn *c = pg_fixture_connect(url);
    struct event_source source;
    event_source_init(&source, seed + 10, SHARDS, 2000, false);
    struct node n;
    node_create(&n, &source, url);
    node_lead(&n, 1);
    run_until(has_error, NULL, &n);
    assert_non_null(strstr(node_status(&n).error, "holdfastctl migrate up"));
    persister_follow(n.persister);

    assert_int_equal(migrate_up(url, 10000, NULL, NULL, error, sizeof error), MIGRATE_OK);
    PQclear(pg_fixture_query(c, "INSERT INTO holdfast.cluster (cluster_id, shards) "
                                "VALUES ('00000000-0000-0000-0000-000000000001', 16)"));
    node_lead(&n, 1);
    run_until(has_error, NULL, &n);
    assert_non_null(strstr(node_status(&n).error, "another cluster"));
    persister_follow(n.persister);

    PQclear(pg_fixture_query(c, "UPDATE holdfast.cluster SET shards = 8, "
                                "cluster_id = '9a010203-ff05-6789-0809-0a0b0c0d0e0f'"));
    node_lead(&n, 1);
    run_until(has_error, NULL, &n);
    assert_non_null(strstr(node_status(&n).error, "has 8 shards"));
    assert_int_equal(pg_fixture_number(c, "SELECT count(*) FROM holdfast.watermark"), 0);

    /* Put right, it goes on by itself. */
    PQclear(pg_fixture_query(c, "UPDATE holdfast.cluster SET shards = 16"));
    run_until(all_acked, NULL, &n);
    assert_string_equal(node_status(&n).error, "");
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
    PQclear(pg_fixture_query(
        c, "ALTER TABLE holdfast.outbox ADD CONSTRAINT drift CHECK (sequence <> 1500)"));
    struct event_source source;
    event_source_init(&source, seed + 11, SHARDS, 3000, false);
    struct node n;
    node_create(&n, &source, url);
    n.available = 1000;
    node_lead(&n, 1);
    run_until_acked(&n, 1000);
    n.available = 3000;
    node_offer(&n);
    run_until(has_error, NULL, &n);
    assert_non_null(strstr(node_status(&n).error, "23514"));
    /* Its shard stops there. Others may go on: each connection writes shards of its own. */
    struct event_view refused;
    event_source_read(&source, 1500, &refused);
    char query[128];
    snprintf(query, sizeof query,
             "SELECT count(*) FROM holdfast.outbox WHERE sequence >= 1500 AND shard = %u",
             refused.shard);
    assert_int_equal(pg_fixture_number(c, query), 0);
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
    run_until_acked(&n, 2000);
    persister_follow(n.persister);
    PGconn *c = pg_fixture_connect(url);
    PQclear(pg_fixture_query(c, "UPDATE holdfast.watermark SET sequence = 1900 WHERE shard = 5"));
    n.available = 3000;
    node_lead(&n, 2);
    run_until(has_error, NULL, &n);
    assert_non_null(strstr(node_status(&n).error, "lacks events"));
    assert_int_equal(pg_fixture_number(c, "SELECT count(*) FROM holdfast.outbox"), 2000);
    PQclear(pg_fixture_query(c, "UPDATE holdfast.watermark SET sequence = 2000 WHERE shard = 5"));
    run_until(all_acked, NULL, &n);
    node_destroy(&n);
    PQfinish(c);
    persister_oracle_check(url, &source, 3000, cluster, 2);
    event_source_close(&source);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_leaders),        cmocka_unit_test(test_leaders_come_and_go),
        cmocka_unit_test(test_stuck_predecessor),  cmocka_unit_test(test_guards),
        cmocka_unit_test(test_wrong_database),     cmocka_unit_test(test_row_refused),
        cmocka_unit_test(test_database_went_back),
    };
    return persister_run_tests(argc, argv, tests, ARRAY_COUNT(tests));
}
