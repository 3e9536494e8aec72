/* node verify|rebuild, log inspect: a data directory without its node. Offline: no cluster is asked. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/clock.h"
#include "raft/wal_inspect.h"
#include "server/data_dir.h"
#include "tools/ctl/ctl.h"

static enum ctl_exit in_use(const char *directory)
{
    ctl_say("%s: a node, or another tool, uses this directory", directory);
    ctl_hint("stop the node first (systemctl stop holdfastd), then the same command again");
    return CTL_REFUSED;
}

static enum ctl_exit no_directory(const char *directory)
{
    ctl_say("%s: no data directory of a node", directory);
    ctl_hint("the path that the node is given as --data-dir");
    return CTL_FAILURE;
}

/* ---- node verify ---- */

enum ctl_exit node_verify(struct ctl *ctl)
{
    static const struct output_column columns[] = {
        {"part", "PART", CELL_TEXT}, {"ok", "STATE", CELL_VERDICT}, {"detail", "DETAIL", CELL_TEXT}};
    static struct data_dir_report report;
    const char *directory = ctl_text(&ctl->arguments, "DIR");
    enum data_dir_result result = data_dir_verify(directory, &report);
    if (result == DATA_DIR_IN_USE) {
        return in_use(directory);
    }
    if (result == DATA_DIR_NONE) {
        return no_directory(directory);
    }
    json_t *records = json_array();
    for (int i = 0; i < DATA_DIR_PARTS; i++) {
        json_t *ok = report.states[i] == DATA_DIR_UNKNOWN ? json_null()
                                                          : json_boolean(report.states[i] == DATA_DIR_WHOLE);
        json_array_append_new(records, json_pack("{s:s, s:o, s:o}", "part",
                                                 data_dir_part_name((enum data_dir_part)i), "ok", ok,
                                                 "detail", ctl_json_text(report.details[i])));
    }
    output_list(&ctl->output, columns, ARRAY_COUNT(columns), records);
    if (result == DATA_DIR_OK) {
        return CTL_OK;
    }
    ctl_say("%s: a start would refuse this directory", directory);
    ctl_hint("holdfastctl node rebuild %s, when a majority of the other voters is well", directory);
    return CTL_FAILURE;
}

/* ---- node rebuild ---- */

enum ctl_exit node_rebuild(struct ctl *ctl)
{
    static const struct output_column columns[] = {{"directory", "DIRECTORY", CELL_TEXT},
                                                   {"moved_to", "MOVED TO", CELL_TEXT},
                                                   {"identity_kept", "IDENTITY KEPT", CELL_YES}};
    const char *directory = ctl_text(&ctl->arguments, "DIR");
    char moved_to[4096];
    bool has_identity = false;
    if (data_dir_in_use(directory)) {
        return in_use(directory);
    }
    enum ctl_exit rv =
        ctl_confirm(ctl, directory,
                    "Puts this data directory aside; the node refills from its peers when it starts. Right "
                    "only while a majority of the other voters is well.");
    if (rv != CTL_OK) {
        return rv;
    }
    switch (data_dir_rebuild(directory, clock_wall_ms(), moved_to, sizeof moved_to, &has_identity)) {
    case DATA_DIR_IN_USE:
        return in_use(directory);
    case DATA_DIR_NONE:
        return no_directory(directory);
    case DATA_DIR_BAD:
        ctl_say("%s: not finished; what was moved is in %s", directory, moved_to);
        return CTL_FAILURE;
    case DATA_DIR_OK:
        break;
    }
    output_record(&ctl->output, columns, ARRAY_COUNT(columns),
                  json_pack("{s:o, s:o, s:b}", "directory", ctl_json_text(directory), "moved_to",
                            ctl_json_text(moved_to), "identity_kept", (int)has_identity));
    ctl_hint(has_identity ? "start the node; holdfast_refilling is 1 until it counts again"
                          : "start the node with its own --id and --cluster-id, without --new-cluster");
    return CTL_OK;
}

/* ---- log inspect ---- */

struct entries {
    json_t *records;
};

static void add_entry(void *ctx, const struct wal_inspect_segment *segment, uint64_t offset,
                      const struct record_header *record)
{
    static const char *const types[] = {[RECORD_COMMAND] = "commands",
                                        [RECORD_NOOP] = "no-op",
                                        [RECORD_CHANGE] = "configuration",
                                        [RECORD_VOTE] = "vote"};
    struct entries *e = ctx;
    json_t *r = json_pack("{s:s, s:o, s:s, s:o, s:o, s:I}", "segment", segment->name, "offset",
                          ctl_json_u64(offset), "type", types[record->type], "index",
                          ctl_json_u64(record->index), "term", ctl_json_u64(record->term), "size",
                          (json_int_t)record->size);
    if (record->type == RECORD_VOTE) {
        json_object_set_new(r, "vote", ctl_json_u64(record_voted_for(record)));
    }
    json_array_append_new(e->records, r);
}

static json_t *segment_record(const struct wal_inspect_segment *s)
{
    char cluster[DATA_DIR_CLUSTER_TEXT_SIZE];
    json_t *r = json_pack("{s:s, s:o, s:b}", "segment", s->name, "size", ctl_json_u64(s->size),
                          "header", (int)s->header_ok);
    if (s->header_ok) {
        data_dir_cluster_text(s->cluster_id, cluster);
        json_object_update(
            r, json_pack("{s:I, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b}", "version",
                         (json_int_t)s->version, "cluster", cluster, "node", ctl_json_u64(s->node_id),
                         "base_index", ctl_json_u64(s->base_index), "term", ctl_json_u64(s->term),
                         "vote", ctl_json_u64(s->vote), "first_index", ctl_json_u64(s->first_index),
                         "last_index", ctl_json_u64(s->last_index), "writes", ctl_json_u64(s->writes),
                         "first_sequence", ctl_json_u64(s->sequence_first), "used",
                         ctl_json_u64(s->used_size), "continues", (int)s->continues));
    }
    return r;
}

static const struct output_column segment_columns[] = {
    {"segment", "SEGMENT", CELL_TEXT},      {"size", "BYTES", CELL_NUMBER},
    {"header", "HEADER", CELL_VERDICT},     {"term", "TERM", CELL_NUMBER},
    {"vote", "VOTE", CELL_NUMBER},          {"first_index", "FIRST", CELL_NUMBER},
    {"last_index", "LAST", CELL_NUMBER},    {"writes", "WRITES", CELL_NUMBER},
    {"used", "USED", CELL_NUMBER},          {"continues", "CONTINUES", CELL_YES}};
static const struct output_column finding_columns[] = {{"kind", "FOUND", CELL_TEXT},
                                                       {"file", "FILE", CELL_TEXT},
                                                       {"offset", "OFFSET", CELL_NUMBER},
                                                       {"text", "WHAT", CELL_TEXT}};
static const struct output_column entry_columns[] = {
    {"segment", "SEGMENT", CELL_TEXT}, {"offset", "OFFSET", CELL_NUMBER},
    {"type", "TYPE", CELL_TEXT},       {"index", "INDEX", CELL_NUMBER},
    {"term", "TERM", CELL_NUMBER},     {"size", "BYTES", CELL_NUMBER}};
static const struct output_column log_columns[] = {
    {"ok", "LOG", CELL_VERDICT},          {"first_index", "FIRST ENTRY", CELL_NUMBER},
    {"last_index", "LAST ENTRY", CELL_NUMBER}, {"last_term", "ITS TERM", CELL_NUMBER},
    {"term", "TERM", CELL_NUMBER},        {"vote", "VOTE", CELL_NUMBER},
    {"torn_bytes", "LEFT OUT AT THE END", CELL_NUMBER}, {"spares", "SPARES", CELL_NUMBER}};

static json_t *finding_record(const struct wal_finding *f)
{
    return json_pack("{s:s, s:s, s:o, s:o}", "kind",
                     f->kind == WAL_FINDING_TORN ? "incomplete" : "damage", "file", f->name, "offset",
                     ctl_json_u64(f->offset), "text", ctl_json_text(f->text));
}

static void print(struct ctl *ctl, json_t *log, json_t *segments, json_t *findings, json_t *entries)
{
    if (ctl->output.format == OUTPUT_JSON) {
        json_object_set_new(log, "segments", segments);
        json_object_set_new(log, "findings", findings);
        if (entries != NULL) {
            json_object_set_new(log, "entries", entries);
        }
        output_record(&ctl->output, log_columns, ARRAY_COUNT(log_columns), log);
        return;
    }
    output_record(&ctl->output, log_columns, ARRAY_COUNT(log_columns), log);
    fputc('\n', ctl->output.file);
    output_list(&ctl->output, segment_columns, ARRAY_COUNT(segment_columns), segments);
    if (json_array_size(findings) > 0) {
        fputc('\n', ctl->output.file);
        output_list(&ctl->output, finding_columns, ARRAY_COUNT(finding_columns), findings);
    } else {
        json_decref(findings);
    }
    if (entries != NULL) {
        fputc('\n', ctl->output.file);
        output_list(&ctl->output, entry_columns, ARRAY_COUNT(entry_columns), entries);
    }
}

enum ctl_exit log_inspect(struct ctl *ctl)
{
    const char *directory = ctl_text(&ctl->arguments, "DIR");
    char path[4096];
    struct stat st;
    struct wal_inspection i;
    struct entries entries = {ctl_given(&ctl->arguments, "entries") ? json_array() : NULL};
    int n = snprintf(path, sizeof path, "%s/log", directory);
    if (n < 0 || (size_t)n >= sizeof path || stat(path, &st) < 0) {
        snprintf(path, sizeof path, "%s", directory);
    }
    if (data_dir_in_use(directory) || data_dir_in_use(path)) { /* both have a file named lock */
        json_decref(entries.records);
        return in_use(directory);
    }
    if (wal_inspect(path, entries.records != NULL ? add_entry : NULL, &entries, &i) < 0) {
        json_decref(entries.records);
        return no_directory(directory);
    }
    json_t *segments = json_array(), *findings = json_array();
    for (size_t k = 0; k < i.segments_count; k++) {
        json_array_append_new(segments, segment_record(&i.segments[k]));
    }
    for (size_t k = 0; k < i.findings_count; k++) {
        json_array_append_new(findings, finding_record(&i.findings[k]));
    }
    json_t *log = json_pack("{s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "ok", (int)i.ok,
                            "first_index", i.ok ? ctl_json_u64(i.base_index + 1) : json_null(),
                            "last_index", i.ok ? ctl_json_u64(i.last_index) : json_null(), "last_term",
                            i.ok ? ctl_json_u64(i.last_term) : json_null(), "term",
                            i.ok ? ctl_json_u64(i.term) : json_null(), "vote",
                            i.ok ? ctl_json_u64(i.vote) : json_null(), "torn_bytes",
                            ctl_json_u64(i.torn_bytes), "spares", ctl_json_u64(i.spares_count),
                            "error", i.ok ? json_null() : ctl_json_text(i.error));
    print(ctl, log, segments, findings, entries.records);
    enum ctl_exit rv = i.ok ? CTL_OK : CTL_FAILURE;
    if (i.findings_left_out > 0) {
        ctl_say("%zu further findings are not listed", i.findings_left_out);
    }
    if (!i.ok) {
        ctl_say("%s/%s", path, i.error);
        ctl_hint("holdfastctl node verify %s", directory);
    }
    wal_inspection_close(&i);
    return rv;
}
