/* Migrations against a real PostgreSQL: from nothing, again, two at once, drift, newer, busy, no
 * server; and the SQL functions against the C that they must equal. */
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "base/text.h"
#include "pg_fixture.h"
#include "proto/limits.h"
#include "proto/order_id.h"
#include "proto/shard.h"
#include "storage/migrate.h"

static struct pg_fixture server;

struct tally {
    uint32_t known, applied, applied_now;
};

static void count(void *ctx, const struct migrate_state *state)
{
    struct tally *t = ctx;
    t->known++;
    t->applied += state->applied;
    t->applied_now += state->applied_now;
    assert_int_equal(state->migration->version, t->known);
    assert_int_equal(state->applied, state->applied_at[0] == '2');
}

static void test_up_and_again(void **unused)
{
    (void)unused;
    char url[160], error[256];
    pg_fixture_create_database(&server, "again", url, sizeof url);
    struct tally t = {0};
    assert_int_equal(migrate_status(url, 5000, count, &t, error, sizeof error), MIGRATE_OK);
    assert_int_equal(t.known, migrations_count);
    assert_int_equal(t.applied, 0);
    t = (struct tally){0};
    assert_int_equal(migrate_up(url, 5000, count, &t, error, sizeof error), MIGRATE_OK);
    assert_int_equal(t.applied, migrations_count);
    assert_int_equal(t.applied_now, migrations_count);
    t = (struct tally){0};
    assert_int_equal(migrate_up(url, 5000, count, &t, error, sizeof error), MIGRATE_OK);
    assert_int_equal(t.applied, migrations_count);
    assert_int_equal(t.applied_now, 0);
    assert_string_equal(error, "");
}

struct racer {
    const char *url;
    struct tally tally;
    enum migrate_result result;
    char error[256];
};

static void count_quietly(void *ctx, const struct migrate_state *state)
{
    struct tally *t = ctx;
    t->applied += state->applied;
    t->applied_now += state->applied_now;
}

static void *race(void *arg)
{
    struct racer *r = arg;
    r->result = migrate_up(r->url, 60000, count_quietly, &r->tally, r->error, sizeof r->error);
    return NULL;
}

static void test_two_at_once(void **unused)
{
    (void)unused;
    for (int round = 0; round < 5; round++) {
        char url[160], name[16];
        snprintf(name, sizeof name, "race%d", round);
        pg_fixture_create_database(&server, name, url, sizeof url);
        struct racer racers[4];
        pthread_t threads[4];
        for (int i = 0; i < 4; i++) {
            racers[i] = (struct racer){.url = url};
            assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
        }
        uint32_t now = 0;
        for (int i = 0; i < 4; i++) {
            pthread_join(threads[i], NULL);
            assert_string_equal(racers[i].error, "");
            assert_int_equal(racers[i].result, MIGRATE_OK);
            assert_int_equal(racers[i].tally.applied, migrations_count);
            now += racers[i].tally.applied_now;
        }
        assert_int_equal(now, migrations_count); /* each by exactly one of them */
    }
}

static void expect(const char *url, enum migrate_result result, const char *word)
{
    char error[256];
    struct tally t = {0};
    assert_int_equal(migrate_status(url, 5000, count, &t, error, sizeof error), result);
    assert_non_null(strstr(error, word));
    assert_int_equal(migrate_up(url, 5000, count, &t, error, sizeof error), result);
    assert_non_null(strstr(error, word));
    assert_int_equal(t.known, 0);
}

static void test_drift_newer_hole(void **unused)
{
    (void)unused;
    char url[160], error[256];
    pg_fixture_create_database(&server, "drift", url, sizeof url);
    assert_int_equal(migrate_up(url, 5000, NULL, NULL, error, sizeof error), MIGRATE_OK);
    PGconn *c = pg_fixture_connect(url);
    PQclear(pg_fixture_query(c, "CREATE TABLE saved AS SELECT * FROM holdfast.schema_migrations"));
    const char *restore = "TRUNCATE holdfast.schema_migrations;"
                          "INSERT INTO holdfast.schema_migrations SELECT * FROM saved";
    PQclear(pg_fixture_query(c, "UPDATE holdfast.schema_migrations SET sha256 = repeat('0', 64) "
                                "WHERE version = 2"));
    expect(url, MIGRATE_DRIFT, "migration 2");
    PQclear(pg_fixture_query(c, restore));
    PQclear(
        pg_fixture_query(c, "UPDATE holdfast.schema_migrations SET name = 'x' WHERE version = 1"));
    expect(url, MIGRATE_DRIFT, "migration 1");
    PQclear(pg_fixture_query(c, restore));
    PQclear(pg_fixture_query(c, "DELETE FROM holdfast.schema_migrations WHERE version = 1"));
    expect(url, MIGRATE_DRIFT, "migration 1 is not recorded");
    PQclear(pg_fixture_query(c, restore));
    PQclear(pg_fixture_query(
        c, "INSERT INTO holdfast.schema_migrations SELECT max(version) + 1, 'z', 'z' "
           "FROM holdfast.schema_migrations"));
    expect(url, MIGRATE_NEWER, "newer");
    PQclear(pg_fixture_query(c, restore));
    assert_int_equal(migrate_status(url, 5000, NULL, NULL, error, sizeof error), MIGRATE_OK);
    PQfinish(c);
}

/* A migration that PostgreSQL refuses leaves nothing of itself behind, and the next run goes on. */
static void test_refused(void **unused)
{
    (void)unused;
    char url[160], error[256];
    pg_fixture_create_database(&server, "refused", url, sizeof url);
    PGconn *c = pg_fixture_connect(url);
    PQclear(pg_fixture_query(c, "CREATE SCHEMA holdfast; CREATE TABLE holdfast.payments ()"));
    assert_int_equal(migrate_up(url, 5000, NULL, NULL, error, sizeof error), MIGRATE_FAILED);
    assert_non_null(strstr(error, "migration 0001_schema"));
    assert_int_equal(pg_fixture_number(c, "SELECT count(*) FROM holdfast.schema_migrations"), 0);
    assert_int_equal(pg_fixture_number(c, "SELECT count(*) FROM pg_class WHERE relname = 'orders'"),
                     0);
    PQclear(pg_fixture_query(c, "DROP TABLE holdfast.payments"));
    assert_int_equal(migrate_up(url, 5000, NULL, NULL, error, sizeof error), MIGRATE_OK);
    PQfinish(c);
}

static void test_busy(void **unused)
{
    (void)unused;
    char error[256];
    PGconn *c = pg_fixture_connect(server.url);
    PQclear(pg_fixture_query(c, "SELECT pg_advisory_lock(7525352680829580148)"));
    assert_int_equal(migrate_up(server.url, 200, NULL, NULL, error, sizeof error), MIGRATE_BUSY);
    PQfinish(c);
}

static void test_unreachable(void **unused)
{
    (void)unused;
    char error[256];
    assert_int_equal(migrate_up("host=/nonexistent user=a password=s3cret", 1000, NULL, NULL, error,
                                sizeof error),
                     MIGRATE_UNREACHABLE);
    assert_true(error[0] != '\0');
    assert_null(strstr(error, "s3cret"));
    assert_int_equal(
        migrate_up("postgresql://a:s3cret@h:port:port/", 1000, NULL, NULL, error, sizeof error),
        MIGRATE_UNREACHABLE);
    assert_null(strstr(error, "s3cret"));
}

static void test_describe_url(void **unused)
{
    (void)unused;
    char out[256];
    assert_int_equal(migrate_describe_url("postgresql://ann:s3cret@db:5433/shop", out, sizeof out),
                     0);
    assert_non_null(strstr(out, "user=ann"));
    assert_non_null(strstr(out, "host=db"));
    assert_non_null(strstr(out, "port=5433"));
    assert_non_null(strstr(out, "dbname=shop"));
    assert_null(strstr(out, "s3cret"));
    assert_int_equal(migrate_describe_url("password = s3cret host", out, sizeof out), -1);
    assert_null(strstr(out, "s3cret"));
    assert_int_equal(migrate_describe_url("host=h sslpassword=s3cret", out, sizeof out), 0);
    assert_null(strstr(out, "s3cret"));
}

static uint64_t random_order_id(struct prng *p)
{
    uint64_t index = prng_next(p) >> (23 + prng_below(p, 40));
    return order_id_make(index, (uint32_t)prng_below(p, BATCH_COMMANDS_MAX),
                         (uint32_t)prng_below(p, SHARDS_MAX));
}

static void test_functions_equal_c(void **unused)
{
    (void)unused;
    char url[160], error[256];
    pg_fixture_create_database(&server, "functions", url, sizeof url);
    assert_int_equal(migrate_up(url, 5000, NULL, NULL, error, sizeof error), MIGRATE_OK);
    PGconn *c = pg_fixture_connect(url);
    struct prng p = prng_init(20261122);
    static const char id_letters[] = "ABCXYZabcxyz0189._:@|+~-";
    struct text sql = TEXT_INIT;
    text_appendf(&sql, "SELECT count(*) FROM (VALUES ");
    for (int i = 0; i < 2000; i++) {
        uint64_t id = random_order_id(&p);
        char text[ORDER_ID_TEXT_SIZE], user[ID_SIZE_MAX + 1];
        order_id_format(id, text);
        uint32_t len = 1 + (uint32_t)prng_below(&p, ID_SIZE_MAX);
        for (uint32_t k = 0; k < len; k++) {
            user[k] = id_letters[prng_below(&p, sizeof id_letters - 1)];
        }
        user[len] = '\0';
        uint32_t shards = 1 + (uint32_t)prng_below(&p, SHARDS_MAX);
        text_appendf(&sql, "%s(%" PRIu64 "::bigint, '%s', '%s', %u, %u)", i > 0 ? "," : "", id,
                     text, user, shards, shard_of_user((struct str){user, len}, shards));
    }
    text_appendf(&sql, ") v(id, text, usr, shards, shard) WHERE holdfast.order_id_text(id) = text "
                       "AND coalesce(holdfast.order_id(text), 0) = id "
                       "AND holdfast.order_id(lower(text)) IS NOT DISTINCT FROM "
                       "holdfast.order_id(text) AND holdfast.shard(usr, shards) = shard");
    assert_int_equal(pg_fixture_number(c, text_cstring(&sql)), 2000);
    text_close(&sql);

    /* What C refuses, SQL refuses: mutations of well-formed texts. */
    int refused = 0;
    for (int i = 0; i < 600; i++) {
        char text[32];
        order_id_format(random_order_id(&p), text);
        static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZilou -_8";
        text[prng_below(&p, 13)] = letters[prng_below(&p, sizeof letters - 1)];
        if (prng_one_in(&p, 10)) {
            text[12] = '\0';
        } else if (prng_one_in(&p, 10)) {
            strcat(text, "0");
        }
        uint64_t id = 0;
        bool parsed = order_id_parse(str_from(text), &id) == 0;
        refused += !parsed;
        char query[128];
        snprintf(query, sizeof query, "SELECT coalesce(holdfast.order_id('%s'), 0)", text);
        assert_int_equal(pg_fixture_number(c, query), parsed ? (long long)id : 0);
    }
    assert_true(refused > 50);
    assert_int_equal(pg_fixture_number(c, "SELECT coalesce(holdfast.order_id('0000000000000'), 0)"),
                     0);
    PQfinish(c);
}

static void test_create_shards(void **unused)
{
    (void)unused;
    char url[160], error[256];
    pg_fixture_create_database(&server, "shards", url, sizeof url);
    assert_int_equal(migrate_up(url, 5000, NULL, NULL, error, sizeof error), MIGRATE_OK);
    PGconn *c = pg_fixture_connect(url);
    PQclear(pg_fixture_query(c, "SELECT holdfast.create_shards(0, 3)"));
    PQclear(pg_fixture_query(c, "SELECT holdfast.create_shards(2, 7)"));
    assert_int_equal(pg_fixture_number(c, "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON "
                                          "c.oid = i.inhparent WHERE c.relkind = 'p'"),
                     8 * 5);
    assert_int_equal(pg_fixture_number(c, "SELECT count(*) FROM holdfast.watermark"), 8);
    PQfinish(c);
}

static int start(void **unused)
{
    (void)unused;
    pg_fixture_start(&server, "");
    return 0;
}

static int stop(void **unused)
{
    (void)unused;
    pg_fixture_stop(&server);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_up_and_again),
        cmocka_unit_test(test_two_at_once),
        cmocka_unit_test(test_drift_newer_hole),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_busy),
        cmocka_unit_test(test_unreachable),
        cmocka_unit_test(test_describe_url),
        cmocka_unit_test(test_functions_equal_c),
        cmocka_unit_test(test_create_shards),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
