/* persist status; migrate up|status. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "storage/migrate.h"
#include "tools/ctl/ctl.h"
#include "tools/ctl/postgres.h"

enum ctl_exit persist_status(struct ctl *ctl)
{
    static const struct output_column columns[] = {
        {"configured", "CONFIGURED", CELL_YES},        {"connected", "CONNECTED", CELL_YES},
        {"postgres_url", "POSTGRESQL", CELL_TEXT},     {"events_total", "EVENTS", CELL_NUMBER},
        {"events_pending", "TO PERSIST", CELL_NUMBER}, {"error", "LAST ERROR", CELL_TEXT},
    };
    Holdfast__PersistStatus body = HOLDFAST__PERSIST_STATUS__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__Response *response;
    request.body_case = HOLDFAST__REQUEST__BODY_PERSIST_STATUS;
    request.persist_status = &body;
    enum ctl_exit rv = ctl_call(ctl, &request, CLIENT_TARGET_LEADER, &response);
    if (rv != CTL_OK) {
        return rv;
    }
    if (response->body_case != HOLDFAST__RESPONSE__BODY_PERSIST_STATUS) {
        ctl_say("the node's answer is not a persister's status");
        holdfast__response__free_unpacked(response, NULL);
        return CTL_FAILURE;
    }
    const Holdfast__PersistStatusResult *s = response->persist_status;
    json_t *shards = json_array();
    for (size_t i = 0; i < s->n_shards; i++) {
        json_array_append_new(shards,
                              json_pack("{s:I, s:I}", "shard", (json_int_t)s->shards[i]->shard,
                                        "sequence", (json_int_t)s->shards[i]->sequence));
    }
    uint64_t total = s->events_next > 0 ? s->events_next - 1 : 0;
    bool well = !s->configured || s->connected;
    output_record(&ctl->output, columns, ARRAY_COUNT(columns),
                  json_pack("{s:b, s:b, s:o, s:I, s:I, s:o, s:I, s:I, s:o}", "configured",
                            (int)s->configured, "connected", (int)s->connected, "postgres_url",
                            ctl_json_text(s->postgres_url), "events_total", (json_int_t)total,
                            "events_pending", (json_int_t)(s->events_next - s->events_first),
                            "error", ctl_json_text(s->error), "events_first",
                            (json_int_t)s->events_first, "events_next", (json_int_t)s->events_next,
                            "shards", shards));
    holdfast__response__free_unpacked(response, NULL);
    if (!well) {
        ctl_say(
            "the leader has no connection to PostgreSQL; events wait in memory until it is back");
        ctl_hint("holdfastctl migrate status");
    }
    return well ? CTL_OK : CTL_FAILURE;
}

/* ---- migrations ---- */

struct migration_rows {
    json_t *records;
    size_t missing;
};

static void add_migration(void *ctx, const struct migrate_state *state)
{
    struct migration_rows *rows = ctx;
    rows->missing += state->applied ? 0 : 1;
    json_array_append_new(rows->records,
                          json_pack("{s:i, s:s, s:s, s:b, s:b, s:s}", "version",
                                    (int)state->migration->version, "name", state->migration->name,
                                    "sha256", state->migration->sha256, "applied",
                                    (int)state->applied, "applied_now", (int)state->applied_now,
                                    "applied_at", state->applied_at));
}

static enum ctl_exit migrate(struct ctl *ctl, bool up)
{
    static const struct output_column columns[] = {
        {"version", "VERSION", CELL_NUMBER}, {"name", "NAME", CELL_TEXT},
        {"applied", "APPLIED", CELL_YES},    {"applied_now", "JUST NOW", CELL_YES},
        {"applied_at", "AT", CELL_TEXT},
    };
    const char *url;
    enum ctl_exit rv = postgres_url(ctl, true, &url);
    if (rv != CTL_OK) {
        return rv;
    }
    char error[512] = "";
    struct migration_rows rows = {json_array(), 0};
    enum migrate_result result =
        up ? migrate_up(url, ctl->timeout_ms, add_migration, &rows, error, sizeof error)
           : migrate_status(url, ctl->timeout_ms, add_migration, &rows, error, sizeof error);
    if (result == MIGRATE_OK) {
        output_list(&ctl->output, columns, ARRAY_COUNT(columns), rows.records);
        if (!up && rows.missing > 0) {
            ctl_say("%zu migrations are missing", rows.missing);
            ctl_hint("holdfastctl migrate up");
        }
        return up || rows.missing == 0 ? CTL_OK : CTL_FAILURE;
    }
    json_decref(rows.records);
    ctl_say("migrate: %s: %s", migrate_result_name(result), error);
    switch (result) {
    case MIGRATE_OK:
    case MIGRATE_UNREACHABLE:
        ctl_hint("holdfastctl persist status, or another --postgres-url");
        return CTL_UNREACHABLE;
    case MIGRATE_BUSY:
        ctl_hint("the same command again: another run holds the lock");
        return CTL_UNREACHABLE;
    case MIGRATE_DRIFT:
    case MIGRATE_NEWER:
        ctl_hint("the holdfastctl of the version that made this database");
        return CTL_REFUSED;
    case MIGRATE_FAILED:
        ctl_hint("holdfastctl migrate status");
        return CTL_FAILURE;
    }
    return CTL_FAILURE;
}

enum ctl_exit migrations_up(struct ctl *ctl)
{
    return migrate(ctl, true);
}

enum ctl_exit migrations_status(struct ctl *ctl)
{
    return migrate(ctl, false);
}
