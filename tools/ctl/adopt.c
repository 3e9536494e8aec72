/* persist adopt: a restored cluster takes over the old one's database (docs/adr/0013-backups.md).
 *
 * The work is holdfast.adopt's (storage/migrations/0003_adopt.sql), in one transaction: either the
 * database is the restored cluster's and exactly at the snapshot, or nothing happened. Here the
 * snapshot is proved and asked where that is. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "storage/snapshot.h"
#include "tools/ctl/ctl.h"
#include "tools/ctl/postgres.h"

static const struct output_column columns[] = {
    {"cluster_id", "CLUSTER", CELL_TEXT},        {"from_cluster_id", "FROM CLUSTER", CELL_TEXT},
    {"index", "INDEX", CELL_NUMBER},             {"last_event", "LAST EVENT", CELL_NUMBER},
    {"orders", "ORDERS SET ASIDE", CELL_NUMBER}, {"changed_orders", "ORDERS PUT BACK", CELL_NUMBER},
    {"payments", "PAYMENTS", CELL_NUMBER},       {"eligibilities", "ELIGIBILITIES", CELL_NUMBER},
    {"events", "EVENTS", CELL_NUMBER},           {"adopted", "ADOPTED", CELL_YES},
};

static void format_uuid(const uint8_t id[16], char text[static 33])
{
    for (size_t i = 0; i < 16; i++) {
        snprintf(text + 2 * i, 3, "%02x", id[i]);
    }
}

static enum ctl_exit say_refused(const PGresult *result)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    state = state != NULL ? state : "";
    ctl_say("PostgreSQL: %s; nothing was changed", message != NULL ? message : "no answer");
    if (strcmp(state, "42883") == 0 || strcmp(state, "3F000") == 0) { /* no such function, schema */
        ctl_hint("holdfastctl migrate up");
        return CTL_REFUSED;
    }
    if (strcmp(state, "22P02") == 0) {
        ctl_hint("--cluster-id with a UUID");
        return CTL_USAGE;
    }
    if (strncmp(state, "HF", 2) == 0) {
        ctl_hint("holdfastctl snapshot inspect, and another --postgres-url: docs/operations/"
                 "backup-and-restore.md");
        return CTL_REFUSED;
    }
    return CTL_FAILURE;
}

static json_int_t number(const PGresult *rows, const char *column)
{
    uint64_t value = 0;
    (void)parse_u64(PQgetvalue(rows, 0, PQfnumber(rows, column)), &value);
    return (json_int_t)value;
}

static enum ctl_exit adopt(struct ctl *ctl, PGconn *c, const struct snapshot_header *h,
                           const struct snapshot_contents *contents, bool dry)
{
    char from[33], sequence[24], index[24];
    struct text acked = TEXT_INIT;
    const char *to = ctl_text(&ctl->arguments, "cluster-id");
    format_uuid(h->cluster_id, from);
    snprintf(sequence, sizeof sequence, "%" PRIu64, contents->last_event);
    snprintf(index, sizeof index, "%" PRIu64, h->index);
    for (uint32_t i = 0; i < contents->shards; i++) {
        text_appendf(&acked, "%s%" PRIu64, i == 0 ? "{" : ",", contents->acked[i]);
    }
    text_append(&acked, "}", 1);
    const char *const values[] = {from, to, sequence, index, text_cstring(&acked)};
    enum ctl_exit rv = CTL_OK;
    PQclear(PQexec(c, "BEGIN; SET LOCAL synchronous_commit = on; SET LOCAL client_min_messages = "
                      "warning"));
    PGresult *rows =
        PQexecParams(c, "SELECT * FROM holdfast.adopt($1::uuid, $2::uuid, $3, $4, $5::bigint[])",
                     ARRAY_COUNT(values), NULL, values, NULL, NULL, 0);
    text_close(&acked);
    if (PQresultStatus(rows) != PGRES_TUPLES_OK) {
        rv = say_refused(rows);
        PQclear(rows);
        return rv;
    }
    PGresult *end = PQexec(c, dry ? "ROLLBACK" : "COMMIT");
    if (PQresultStatus(end) != PGRES_COMMAND_OK || (!dry && strcmp(PQcmdStatus(end), "COMMIT") != 0)) {
        ctl_say("PostgreSQL: %s: whether it was done is not known", PQerrorMessage(c));
        ctl_hint("the same command again: it says so when it was done");
        rv = CTL_UNKNOWN;
    } else {
        output_record(&ctl->output, columns, ARRAY_COUNT(columns),
                      json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "cluster_id", to,
                                "from_cluster_id", from, "index", (json_int_t)h->index, "last_event",
                                (json_int_t)contents->last_event, "orders", number(rows, "orders"),
                                "changed_orders", number(rows, "changed_orders"), "payments",
                                number(rows, "payments"), "eligibilities",
                                number(rows, "eligibilities"), "events", number(rows, "events"),
                                "adopted", (int)!dry));
    }
    PQclear(end);
    PQclear(rows);
    return rv;
}

enum ctl_exit persist_adopt(struct ctl *ctl)
{
    static struct snapshot_contents contents;
    const char *path = ctl_text(&ctl->arguments, "FILE"), *url;
    bool dry = ctl_given(&ctl->arguments, "dry-run");
    struct snapshot_header header;
    char error[SNAPSHOT_ERROR_SIZE];
    enum ctl_exit rv = postgres_url(ctl, true, &url);
    if (rv != CTL_OK) {
        return rv;
    }
    if (!dry) {
        rv = ctl_confirm(ctl, ctl_text(&ctl->arguments, "cluster-id"),
                         "the database goes back to the snapshot, and its old cluster can write "
                         "there no more");
        if (rv != CTL_OK) {
            return rv;
        }
    }
    if (snapshot_load(path, &header, &contents, NULL, error) < 0) {
        ctl_say("%s", error);
        return CTL_FAILURE;
    }
    PGconn *c = postgres_connect(ctl, url);
    if (c == NULL) {
        return CTL_UNREACHABLE;
    }
    rv = adopt(ctl, c, &header, &contents, dry);
    PQfinish(c);
    return rv;
}
