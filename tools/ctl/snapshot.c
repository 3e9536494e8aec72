/* snapshot save|inspect|verify|restore.
 *
 * save pulls the chunks of one checkpoint from one node, as a peer does that catches up; a node
 * that goes away in the middle takes its ticket with it, so save starts over elsewhere only when it
 * is run again. The others need no node. The file is storage/snapshot's, the data directory
 * server/restore's. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "server/restore.h"
#include "storage/snapshot.h"
#include "tools/ctl/ctl.h"
#include "tools/ctl/process.h"

#define CHUNK_SIZE       (1u << 20)
#define OPEN_PATIENCE_MS 60000 /* a checkpoint of much that changed takes its time */
#define PROGRESS_MS      200

/* ---- records ---- */

static json_t *uuid(const uint8_t id[16])
{
    char text[37];
    size_t at = 0;
    for (size_t i = 0; i < 16; i++) {
        bool dash = i == 4 || i == 6 || i == 8 || i == 10;
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%02x", dash ? "-" : "", id[i]);
    }
    return json_string(text);
}

static json_t *digest_text(uint64_t digest)
{
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, digest);
    return json_string(text);
}

static json_t *describe(const char *path, const struct snapshot_header *h, uint64_t bytes)
{
    return json_pack("{s:o, s:o, s:I, s:I, s:o, s:o, s:o, s:I, s:I, s:I, s:o, s:I}", "file",
                     ctl_json_text(path), "cluster_id", uuid(h->cluster_id), "index",
                     (json_int_t)h->index, "term", (json_int_t)h->term, "time",
                     ctl_json_time(h->time_ms), "saved_at", ctl_json_time(h->wall_ms), "digest",
                     digest_text(h->digest), "blocks", (json_int_t)h->blocks_count, "bytes",
                     (json_int_t)bytes, "node", (json_int_t)h->node_id, "version",
                     ctl_json_text(h->version), "format", (json_int_t)SNAPSHOT_FORMAT_VERSION);
}

#define HEADER_COLUMNS                                                                             \
    {"file", "FILE", CELL_TEXT}, {"cluster_id", "CLUSTER", CELL_TEXT},                             \
        {"index", "INDEX", CELL_NUMBER}, {"term", "TERM", CELL_NUMBER},                            \
        {"time", "CLUSTER TIME", CELL_TEXT}, {"saved_at", "SAVED AT", CELL_TEXT},                  \
        {"node", "FROM NODE", CELL_NUMBER}, {"digest", "DIGEST", CELL_TEXT},                       \
        {"blocks", "BLOCKS", CELL_NUMBER}, {"bytes", "BYTES", CELL_NUMBER},                        \
    {                                                                                              \
        "version", "WRITTEN BY", CELL_TEXT                                                         \
    }

static void print(struct ctl *ctl, json_t *record)
{
    static const struct output_column columns[] = {HEADER_COLUMNS};
    output_record(&ctl->output, columns, ARRAY_COUNT(columns), record);
}

/* ---- save ---- */

struct save {
    struct ctl *ctl;
    const char *path;
    uint64_t node;
    struct snapshot_header header;
    Holdfast__Response *opened;
    struct snapshot_writer *writer;
    uint64_t shown_ms;
    char error[SNAPSHOT_ERROR_SIZE];
};

/* A node that answers and knows a leader; followers first. */
static enum ctl_exit choose_node(struct save *s)
{
    const struct ctl_value *given = ctl_value(&s->ctl->arguments, "node");
    struct ctl_member members[CTL_NODES_MAX];
    size_t count;
    if (given->given) {
        s->node = given->u64;
        return ctl_open(s->ctl);
    }
    enum ctl_exit rv = ctl_members(s->ctl, members, &count);
    uint64_t leader = 0;
    for (size_t i = 0; rv == CTL_OK && i < count; i++) {
        Holdfast__Response *response;
        const char *wrong;
        uint64_t patience_ms = s->ctl->timeout_ms < 2000 ? s->ctl->timeout_ms : 2000;
        if (ctl_read_status_quietly(s->ctl, members[i].id, patience_ms, &response, &wrong) !=
            CTL_OK) {
            continue;
        }
        const Holdfast__NodeStatusResult *status = response->node_status;
        bool leads = status->role == 2;
        bool well = status->ready && !status->installing && !status->refilling;
        holdfast__response__free_unpacked(response, NULL);
        if (well && !leads) {
            s->node = members[i].id;
            return CTL_OK;
        }
        leader = leads ? members[i].id : leader;
    }
    if (rv == CTL_OK && leader == 0) {
        ctl_say("no node is ready to give a snapshot");
        ctl_hint("holdfastctl endpoint health, or --node ID");
        rv = CTL_UNREACHABLE;
    }
    s->node = leader;
    return rv;
}

static enum ctl_exit ask_ticket(struct save *s, bool fresh, const char **wrong)
{
    Holdfast__SnapshotOpen body = HOLDFAST__SNAPSHOT_OPEN__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    if (s->opened != NULL) {
        holdfast__response__free_unpacked(s->opened, NULL);
    }
    body.fresh = fresh;
    request.body_case = HOLDFAST__REQUEST__BODY_SNAPSHOT_OPEN;
    request.snapshot_open = &body;
    request.timeout_ms = (uint32_t)(s->ctl->timeout_ms - s->ctl->timeout_ms / 4);
    enum ctl_exit rv =
        ctl_call_quietly(s->ctl, &request, s->node, s->ctl->timeout_ms, &s->opened, wrong);
    if (rv == CTL_OK && s->opened->body_case != HOLDFAST__RESPONSE__BODY_SNAPSHOT_OPEN) {
        *wrong = "answered something else";
        rv = CTL_FAILURE;
    }
    return rv;
}

static enum ctl_exit read_applied(struct save *s, uint64_t *index, const char **wrong)
{
    Holdfast__Response *response;
    enum ctl_exit rv =
        ctl_read_status_quietly(s->ctl, s->node, s->ctl->timeout_ms, &response, wrong);
    if (rv == CTL_OK) {
        *index = response->node_status->applied_index;
        holdfast__response__free_unpacked(response, NULL);
    }
    return rv;
}

/* A checkpoint of much that changed takes longer than one answer should: while the node is alive it
 * is asked again, for the first one that holds what was applied when we came. */
static enum ctl_exit wait_ticket(struct save *s, const char **wrong)
{
    uint64_t index = 0, deadline_ms = clock_monotonic_ms() + OPEN_PATIENCE_MS;
    bool fresh = !ctl_given(&s->ctl->arguments, "newest");
    enum ctl_exit rv = read_applied(s, &index, wrong);
    if (rv != CTL_OK) {
        return rv;
    }
    rv = ask_ticket(s, fresh, wrong);
    while (fresh && clock_monotonic_ms() < deadline_ms && s->opened != NULL &&
           (s->opened->status == HOLDFAST__STATUS__STATUS_TIMEOUT ||
            (rv == CTL_OK && s->opened->snapshot_open->index < index))) {
        process_sleep_ms(PROGRESS_MS);
        rv = ask_ticket(s, false, wrong);
    }
    if (rv == CTL_OK && fresh && s->opened->snapshot_open->index < index) {
        *wrong =
            "no checkpoint was written in time: its log says why; --newest takes what there is";
        rv = CTL_UNREACHABLE;
    }
    return rv;
}

static enum ctl_exit open_ticket(struct save *s)
{
    const char *wrong;
    enum ctl_exit rv = wait_ticket(s, &wrong);
    if (rv != CTL_OK) {
        bool message = s->opened != NULL && s->opened->message[0] != '\0';
        ctl_say("node %" PRIu64 " gives no snapshot: %s", s->node,
                message ? s->opened->message : wrong);
        ctl_hint("holdfastctl endpoint health, then --node with one that is healthy");
        return rv;
    }
    const Holdfast__SnapshotOpenResult *r = s->opened->snapshot_open;
    struct snapshot_header *h = &s->header;
    if (r->cluster_id.len != sizeof h->cluster_id || r->position.len > sizeof h->position) {
        ctl_say("node %" PRIu64 " gives a snapshot that this version does not understand", s->node);
        return CTL_FAILURE;
    }
    *h = (struct snapshot_header){.index = r->index,
                                  .term = r->term,
                                  .digest = r->digest,
                                  .blocks_count = r->blocks,
                                  .time_ms = r->time_ms,
                                  .wall_ms = clock_wall_ms(),
                                  .node_id = s->node,
                                  .position_size = (uint32_t)r->position.len};
    memcpy(h->cluster_id, r->cluster_id.data, sizeof h->cluster_id);
    if (r->position.len > 0) {
        memcpy(h->position, r->position.data, r->position.len);
    }
    str_copy(h->version, sizeof h->version, str_from(HOLDFAST_VERSION));
    return CTL_OK;
}

static void show_progress(struct save *s, bool last)
{
    uint64_t now_ms = clock_monotonic_ms();
    if (!isatty(STDERR_FILENO) || (!last && now_ms - s->shown_ms < PROGRESS_MS)) {
        return;
    }
    s->shown_ms = now_ms;
    fprintf(stderr, "\rsnapshot of node %" PRIu64 ": %" PRIu64 " of %" PRIu64 " blocks, %.1f MiB%s",
            s->node, snapshot_writer_blocks(s->writer), s->header.blocks_count,
            (double)snapshot_writer_bytes(s->writer) / (1 << 20), last ? "\n" : "");
}

/* One chunk; *more: it was not the last. */
static enum ctl_exit pull(struct save *s, uint8_t next[8], size_t *next_size)
{
    Holdfast__SnapshotChunk body = HOLDFAST__SNAPSHOT_CHUNK__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__Response *response;
    const char *wrong;
    body.ticket = s->opened->snapshot_open->ticket;
    body.from.data = next;
    body.from.len = *next_size;
    body.size_max = CHUNK_SIZE;
    request.body_case = HOLDFAST__REQUEST__BODY_SNAPSHOT_CHUNK;
    request.snapshot_chunk = &body;
    enum ctl_exit rv =
        ctl_call_quietly(s->ctl, &request, s->node, s->ctl->timeout_ms, &response, &wrong);
    if (rv == CTL_OK && (response->body_case != HOLDFAST__RESPONSE__BODY_SNAPSHOT_CHUNK ||
                         response->snapshot_chunk->next.len > 8)) {
        wrong = "answered something else";
        rv = CTL_FAILURE;
    }
    if (rv != CTL_OK) {
        bool message = response != NULL && response->message[0] != '\0';
        ctl_say("node %" PRIu64 " stopped giving its snapshot after %" PRIu64 " of %" PRIu64
                " blocks: %s; %s was not written",
                s->node, snapshot_writer_blocks(s->writer), s->header.blocks_count,
                message ? response->message : wrong, s->path);
        ctl_hint("the same command again, or --node with another node");
    } else {
        const Holdfast__SnapshotChunkResult *chunk = response->snapshot_chunk;
        if (snapshot_writer_put(s->writer, chunk->records.data, chunk->records.len, chunk->crc32c,
                                s->error) < 0) {
            ctl_say("%s", s->error);
            rv = CTL_FAILURE;
        }
        *next_size = chunk->next.len;
        if (*next_size > 0) {
            memcpy(next, chunk->next.data, *next_size);
        }
    }
    if (response != NULL) {
        holdfast__response__free_unpacked(response, NULL);
    }
    return rv;
}

static enum ctl_exit write_file(struct save *s, bool force)
{
    uint8_t next[8];
    size_t next_size = 0;
    if (snapshot_writer_open(s->path, force, &s->header, &s->writer, s->error) < 0) {
        ctl_say("%s", s->error);
        return CTL_FAILURE;
    }
    do {
        enum ctl_exit rv = pull(s, next, &next_size);
        if (rv != CTL_OK) {
            snapshot_writer_abort(s->writer);
            return rv;
        }
        show_progress(s, next_size == 0);
    } while (next_size > 0);
    struct stat st;
    if (snapshot_writer_commit(s->writer, s->error) < 0 || stat(s->path, &st) < 0) {
        ctl_say("%s", s->error);
        return CTL_FAILURE;
    }
    print(s->ctl, describe(s->path, &s->header, (uint64_t)st.st_size));
    return CTL_OK;
}

enum ctl_exit snapshot_save(struct ctl *ctl)
{
    struct save s = {.ctl = ctl, .path = ctl_text(&ctl->arguments, "FILE")};
    bool force = ctl_given(&ctl->arguments, "force");
    struct stat st;
    if (!force && lstat(s.path, &st) == 0) {
        ctl_say("%s: is there already", s.path);
        ctl_hint("another name, or --force to replace it");
        return CTL_REFUSED;
    }
    enum ctl_exit rv = choose_node(&s);
    if (rv == CTL_OK) {
        rv = open_ticket(&s);
    }
    if (rv == CTL_OK) {
        rv = write_file(&s, force);
    }
    if (s.opened != NULL) {
        holdfast__response__free_unpacked(s.opened, NULL);
    }
    return rv;
}

/* ---- inspect, verify ---- */

enum ctl_exit snapshot_inspect(struct ctl *ctl)
{
    const char *path = ctl_text(&ctl->arguments, "FILE");
    struct snapshot_reader *reader;
    struct snapshot_header header;
    struct stat st;
    char error[SNAPSHOT_ERROR_SIZE];
    if (snapshot_reader_open(path, &reader, &header, error) < 0) {
        ctl_say("%s", error);
        return CTL_FAILURE;
    }
    snapshot_reader_close(reader);
    if (stat(path, &st) < 0) {
        ctl_say("%s: cannot be looked at", path);
        return CTL_FAILURE;
    }
    print(ctl, describe(path, &header, (uint64_t)st.st_size));
    return CTL_OK;
}

enum ctl_exit snapshot_verify(struct ctl *ctl)
{
    static const struct output_column columns[] = {
        HEADER_COLUMNS,
        {"skus", "SKUS", CELL_NUMBER},
        {"sales", "SALES", CELL_NUMBER},
        {"users", "USERS", CELL_NUMBER},
        {"orders", "ORDERS", CELL_NUMBER},
        {"orders_pending", "UNPAID", CELL_NUMBER},
        {"events_pending", "EVENTS TO PERSIST", CELL_NUMBER},
        {"whole", "WHOLE", CELL_VERDICT},
    };
    const char *path = ctl_text(&ctl->arguments, "FILE");
    struct snapshot_header header;
    struct snapshot_contents c;
    char error[SNAPSHOT_ERROR_SIZE];
    if (snapshot_load(path, &header, &c, NULL, error) < 0) {
        ctl_say("%s", error);
        return CTL_FAILURE;
    }
    json_t *record = describe(path, &header, c.bytes);
    json_t *more =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "skus", (json_int_t)c.skus,
                  "sales", (json_int_t)c.sales, "users", (json_int_t)c.users, "orders",
                  (json_int_t)c.orders, "orders_pending", (json_int_t)c.orders_pending, "leases",
                  (json_int_t)c.leases, "denials", (json_int_t)c.denials, "events_pending",
                  (json_int_t)c.events_pending, "last_event", (json_int_t)c.last_event, "whole", 1);
    json_object_update(record, more);
    json_decref(more);
    output_record(&ctl->output, columns, ARRAY_COUNT(columns), record);
    return CTL_OK;
}

/* ---- restore ---- */

enum ctl_exit snapshot_restore(struct ctl *ctl)
{
    static const struct output_column columns[] = {
        {"data_dir", "DATA DIRECTORY", CELL_TEXT},
        {"id", "NODE", CELL_NUMBER},
        {"cluster_id", "CLUSTER", CELL_TEXT},
        {"from_cluster_id", "FROM CLUSTER", CELL_TEXT},
        {"index", "FROM INDEX", CELL_NUMBER},
        {"from_digest", "FROM DIGEST", CELL_TEXT},
        {"first_index", "FIRST NEW INDEX", CELL_NUMBER},
        {"digest", "DIGEST", CELL_TEXT},
    };
    const struct ctl_arguments *a = &ctl->arguments;
    const struct ctl_value *members = ctl_value(a, "member");
    struct restore_config config = {.snapshot = ctl_text(a, "FILE"),
                                    .data_dir = ctl_text(a, "data-dir"),
                                    .cluster_id = ctl_text(a, "cluster-id"),
                                    .id = ctl_value(a, "id")->u64,
                                    .members = members->items,
                                    .members_count = members->items_count};
    struct restore_report report;
    char error[SNAPSHOT_ERROR_SIZE];
    enum restore_result result = restore_run(&config, &report, error);
    if (result != RESTORE_OK) {
        ctl_say("%s", error);
    }
    switch (result) {
    case RESTORE_OK:
        break;
    case RESTORE_INVALID:
        ctl_hint("holdfastctl snapshot restore --help");
        return CTL_USAGE;
    case RESTORE_REFUSED:
        return CTL_REFUSED;
    case RESTORE_DAMAGED:
        ctl_hint("holdfastctl snapshot verify with another snapshot");
        return CTL_FAILURE;
    case RESTORE_FAILED:
        return CTL_FAILURE;
    }
    output_record(&ctl->output, columns, ARRAY_COUNT(columns),
                  json_pack("{s:o, s:I, s:s, s:o, s:I, s:o, s:I, s:o}", "data_dir",
                            ctl_json_text(config.data_dir), "id", (json_int_t)config.id,
                            "cluster_id", config.cluster_id, "from_cluster_id",
                            uuid(report.header.cluster_id), "index",
                            (json_int_t)report.header.index, "from_digest",
                            digest_text(report.header.digest), "first_index",
                            (json_int_t)report.first_index, "digest", digest_text(report.digest)));
    return CTL_OK;
}
