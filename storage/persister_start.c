/* The start of a stream: see persister_stream.h. Each step sends one request on the first lane and
 * looks at the answer when it is there. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/failpoint.h"
#include "storage/migrate.h"
#include "storage/persister_stream.h"

/* Shards created by one request: keeps transactions, and the locks they take, small. */
#define CREATE_SHARDS_MAX 8

/* synchronous_commit: an acknowledged event leaves the engine for good, so a database that is set
 * to forget committed transactions at a crash is not taken at its word. lock_timeout: what holds us
 * up for longer is given up and tried again, or evicted. idle_in_transaction_session_timeout: a
 * leader that was paused in a transaction does not hold up its successor for ever. */
static const char session_sql[] =
    "SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' "
    "THEN 'on' ELSE current_setting('synchronous_commit') END, false);"
    "SET statement_timeout = 30000; SET lock_timeout = 2000;"
    "SET idle_in_transaction_session_timeout = 30000; SET client_min_messages = warning;"
    "SET default_transaction_isolation = 'read committed'; SET search_path = pg_catalog;"
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 3; SET tcp_keepalives_count = 3;"
    "SET tcp_user_timeout = 15000";

static struct lane *first_lane(struct stream *s)
{
    return &s->runs[0].lane;
}

static void query(struct stream *s, enum start_step step, uint64_t now_ms)
{
    s->step = step;
    lane_query(first_lane(s), text_cstring(&s->sql), NULL, 0, now_ms);
}

static void send_step(struct stream *s, enum start_step step, uint64_t now_ms)
{
    struct text *sql = &s->sql;
    text_clear(sql);
    switch (step) {
    case START_SESSION:
        text_appendf(sql, "%s", session_sql);
        break;
    case START_SCHEMA:
        text_appendf(sql, "SELECT coalesce(max(version), 0) FROM holdfast.schema_migrations");
        break;
    case START_CLUSTER:
        text_appendf(sql, "INSERT INTO holdfast.cluster (cluster_id, shards) VALUES ('");
        for (int i = 0; i < 16; i++) {
            text_appendf(sql, "%02x", s->cluster_id[i]);
        }
        text_appendf(sql,
                     "', %u) ON CONFLICT DO NOTHING;"
                     "SELECT replace(cluster_id::text, '-', ''), shards FROM holdfast.cluster",
                     s->shards);
        break;
    case START_COUNT:
        text_appendf(sql, "SELECT count(*) FROM holdfast.watermark WHERE shard < %u", s->shards);
        break;
    case START_CREATE: {
        uint32_t end = s->created + CREATE_SHARDS_MAX;
        end = end < s->shards ? end : s->shards;
        text_appendf(sql, "SELECT holdfast.create_shards(%u, %u)", s->created, end - 1);
        s->created = end;
        break;
    }
    case START_FENCE:
        FAILPOINT("persister/before-fence", "a new leader has not yet shut out the old one");
        text_appendf(sql, "SELECT holdfast.take_fence(%" PRIu64 ", %u)", s->term, s->shards);
        break;
    case START_EVICT:
        /* Of ours only, and never if a later leader is there: then we are the stale one. */
        text_appendf(sql,
                     "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                     "WHERE application_name = '" LANE_APPLICATION_NAME
                     "' AND datname = current_database() "
                     "AND usename = current_user AND pid <> pg_backend_pid() "
                     "AND NOT EXISTS (SELECT FROM holdfast.watermark WHERE term > %" PRIu64 ")",
                     s->term);
        s->evictions++;
        break;
    case START_WATERMARKS:
        text_appendf(
            sql, "SELECT shard, sequence FROM holdfast.watermark WHERE shard < %u ORDER BY shard",
            s->shards);
        break;
    case START_CONNECT:
    case START_OTHERS:
        CHECK_UNREACHABLE();
    }
    query(s, step, now_ms);
}

static uint64_t number(const struct lane *lane, int row, int column)
{
    return strtoull(lane_value(lane, row, column), NULL, 10);
}

static bool check_schema(struct stream *s)
{
    const struct lane *lane = first_lane(s);
    bool missing =
        strcmp(lane->sqlstate, "42P01") == 0; /* undefined_table, and undefined schema too */
    if (lane->sqlstate[0] != '\0' && !missing) {
        stream_fail_lane(s, lane);
        return false;
    }
    uint64_t version = missing ? 0 : number(lane, 0, 0);
    if (version < migrations_count) { /* a newer one is fine: migrations only ever add */
        char error[160];
        snprintf(error, sizeof error,
                 "the database is at migration %" PRIu64 ", %zu is needed: run "
                 "holdfastctl migrate up",
                 version, migrations_count);
        stream_fail(s, error);
        return false;
    }
    return true;
}

static bool check_cluster(struct stream *s)
{
    const struct lane *lane = first_lane(s);
    char mine[33];
    for (size_t i = 0; i < 16; i++) {
        snprintf(mine + 2 * i, sizeof mine - 2 * i, "%02x", s->cluster_id[i]);
    }
    if (strcmp(lane_value(lane, 0, 0), mine) != 0) {
        stream_fail(s, "the database belongs to another cluster: nothing is written");
        return false;
    }
    if (number(lane, 0, 1) != s->shards) {
        char error[128];
        snprintf(error, sizeof error, "the database has %" PRIu64 " shards, this cluster %u",
                 number(lane, 0, 1), s->shards);
        stream_fail(s, error);
        return false;
    }
    return true;
}

static bool check_watermarks(struct stream *s)
{
    const struct lane *lane = first_lane(s);
    if (lane_rows(lane) != (int)s->shards) {
        stream_fail(s, "rows of holdfast.watermark are missing");
        return false;
    }
    for (uint32_t i = 0; i < s->shards; i++) {
        CHECK(number(lane, (int)i, 0) == i);
        s->watermarks[i] = number(lane, (int)i, 1);
    }
    uint64_t wanted = stream_first_wanted(s);
    if (wanted < s->floor) {
        char error[256];
        snprintf(error, sizeof error,
                 "the database lacks events that were acknowledged: a shard ends at %" PRIu64
                 ", but all before %" PRIu64 " were there: it was restored or replaced",
                 wanted - 1, s->floor);
        stream_fail(s, error);
        return false;
    }
    return true;
}

/* The other lanes: connect, then make their sessions. Returns true when all are ready. */
static bool connect_others(struct stream *s, uint64_t now_ms)
{
    bool ready = true;
    for (uint32_t i = 1; i < s->lanes; i++) {
        struct lane_run *run = &s->runs[i];
        if (run->lane.state == LANE_CLOSED) {
            lane_open(&run->lane, s->url, now_ms);
        } else if (run->lane.state == LANE_IDLE && run->lane.sqlstate[0] != '\0') {
            stream_fail_lane(s, &run->lane);
        } else if (run->lane.state == LANE_IDLE && !run->session) {
            run->session = true;
            lane_query(&run->lane, session_sql, NULL, 0, now_ms);
        }
        ready = ready && run->session && run->lane.state == LANE_IDLE;
    }
    return ready;
}

/* The lane is idle: the answer to a step is there. */
static void answered(struct stream *s, uint64_t now_ms)
{
    struct lane *lane = first_lane(s);
    const char *refused = lane->sqlstate;
    if (s->step == START_FENCE && strcmp(refused, "HF001") == 0) {
        s->fenced = true;
        stream_fail_lane(s, lane);
    } else if (s->step == START_FENCE && strcmp(refused, "55P03") == 0 && /* lock_not_available */
               s->evictions < PERSISTER_EVICTIONS_MAX) {
        send_step(s, START_EVICT, now_ms);
    } else if (s->step ==
               START_EVICT) { /* it may lack the right to: then the fence waits its turn */
        send_step(s, START_FENCE, now_ms);
    } else if (s->step == START_SCHEMA) {
        if (check_schema(s)) {
            send_step(s, START_CLUSTER, now_ms);
        }
    } else if (refused[0] != '\0') {
        stream_fail_lane(s, lane);
    } else if (s->step == START_CONNECT) {
        send_step(s, START_SESSION, now_ms);
    } else if (s->step == START_SESSION) {
        s->runs[0].session = true;
        send_step(s, START_SCHEMA, now_ms);
    } else if (s->step == START_CLUSTER) {
        if (check_cluster(s)) {
            send_step(s, START_COUNT, now_ms);
        }
    } else if (s->step == START_COUNT || s->step == START_CREATE) {
        bool complete =
            s->step == START_COUNT ? number(lane, 0, 0) == s->shards : s->created == s->shards;
        send_step(s, complete ? START_FENCE : START_CREATE, now_ms);
    } else if (s->step == START_FENCE) {
        FAILPOINT("persister/fenced", "older leaders are shut out, the watermarks are not read");
        send_step(s, START_WATERMARKS, now_ms);
    } else {
        CHECK(s->step == START_WATERMARKS);
        if (check_watermarks(s)) {
            s->step = START_OTHERS;
        }
    }
}

void stream_start_tick(struct stream *s, uint64_t now_ms)
{
    if (s->step != START_OTHERS && first_lane(s)->state == LANE_IDLE) {
        answered(s, now_ms);
    }
    if (s->state == STREAM_STARTING && s->step == START_OTHERS && connect_others(s, now_ms) &&
        s->state == STREAM_STARTING) {
        s->state = STREAM_OPEN;
    }
}
