/* What looks at nodes: member list, member move-leader, endpoint status|health|hash, node
 * drain|undrain, status. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "tools/ctl/ctl.h"
#include "tools/ctl/digest.h"
#include "tools/ctl/process.h"

#define LEADER_POLL_MS 20
#define NODE_PATIENCE_MS                                                                           \
    2000 /* for one node of several: the others should not wait for a dead one */

static const char *member_role_name(uint32_t role)
{
    return role == 2 ? "voter" : role == 1 ? "standby" : role == 0 ? "spare" : "?";
}

static const char *node_role_name(uint32_t role)
{
    return role == 2 ? "leader" : role == 1 ? "candidate" : role == 0 ? "follower" : "?";
}

static uint64_t patience_ms(const struct ctl *ctl)
{
    return ctl->timeout_ms < NODE_PATIENCE_MS ? ctl->timeout_ms : NODE_PATIENCE_MS;
}

/* "79 GiB", "512 MiB, low": for people; the figures are there too. */
static void put_disk(json_t *record, const Holdfast__NodeStatusResult *s)
{
    char text[64] = "not known";
    if (s->disk_free_bytes > 0) {
        bool large = s->disk_free_bytes >= 10ull << 30;
        snprintf(text, sizeof text, "%" PRIu64 " %s%s", s->disk_free_bytes >> (large ? 30 : 20),
                 large ? "GiB" : "MiB", s->disk_low ? ", low" : "");
    }
    json_object_set_new(record, "disk", json_string(text));
    json_object_set_new(record, "disk_free_bytes", json_integer((json_int_t)s->disk_free_bytes));
    json_object_set_new(record, "disk_low_bytes", json_integer((json_int_t)s->disk_low_bytes));
    json_object_set_new(record, "disk_low", json_boolean(s->disk_low));
    json_object_set_new(record, "log_write_age_ms", json_integer((json_int_t)s->log_write_age_ms));
    json_object_set_new(record, "checkpoint_failures", json_integer(s->checkpoint_failures));
}

/* "installing 45 %"; empty: the node serves. */
static json_t *progress_text(const Holdfast__NodeStatusResult *s)
{
    static const char *const phases[] = {"", "loading", "replaying", "installing"};
    char text[64] = "";
    if (s->startup_phase > 0 && s->startup_phase < ARRAY_COUNT(phases)) {
        unsigned percent =
            s->startup_total > 0 ? (unsigned)(s->startup_done * 100 / s->startup_total) : 0;
        snprintf(text, sizeof text, "%s %u %%", phases[s->startup_phase], percent);
    }
    return json_string(text);
}

static json_t *status_record(const struct ctl_member *m, const Holdfast__NodeStatusResult *s)
{
    char cluster[2 * LINK_CLUSTER_ID_SIZE + 1] = "";
    for (size_t i = 0; i < s->cluster_id.len && i < LINK_CLUSTER_ID_SIZE; i++) {
        snprintf(cluster + 2 * i, 3, "%02x", s->cluster_id.data[i]);
    }
    json_t *record = json_pack(
        "{s:I, s:s, s:b, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "id", (json_int_t)m->id,
        "address", m->node_address, "reachable", 1, "role", node_role_name(s->role), "ready",
        (int)s->ready, "term", (json_int_t)s->term, "leader_id", (json_int_t)s->leader_id,
        "last_index", (json_int_t)s->last_index, "commit_index", (json_int_t)s->commit_index,
        "applied_index", (json_int_t)s->applied_index, "first_index", (json_int_t)s->first_index,
        "checkpoint_index", (json_int_t)s->checkpoint_index);
    json_t *more =
        json_pack("{s:o, s:o, s:o, s:I, s:I, s:I, s:b, s:b, s:I, s:I, s:s, s:s}", "checkpoint_at",
                  ctl_json_time(s->checkpoint_wall_ms), "time", ctl_json_time(s->time_ms), "wall",
                  ctl_json_time(s->wall_ms), "uptime_ms", (json_int_t)s->uptime_ms, "orders",
                  (json_int_t)s->orders, "events_pending", (json_int_t)s->events_pending,
                  "persister_configured", (int)s->persister_configured, "installing",
                  (int)s->installing, "elections", (json_int_t)s->elections, "shards",
                  (json_int_t)s->shards, "version", s->version, "cluster_id", cluster);
    json_object_update(record, more);
    json_decref(more);
    put_disk(record, s);
    json_object_set_new(record, "clock_offset_ms", json_integer(s->clock_offset_ms));
    json_object_set_new(record, "clock_suspect", json_boolean(s->clock_suspect));
    json_object_set_new(record, "format", json_integer(s->format));
    json_object_set_new(record, "format_newest", json_integer(s->format_newest));
    json_object_set_new(record, "startup_phase", json_integer(s->startup_phase));
    json_object_set_new(record, "startup_done", json_integer((json_int_t)s->startup_done));
    json_object_set_new(record, "startup_total", json_integer((json_int_t)s->startup_total));
    json_object_set_new(record, "progress", progress_text(s));
    return record;
}

/* The statuses of all members: an array of records; counts those that are up and ready, and finds
 * the leader that most recently led. */
struct survey {
    json_t *nodes;
    size_t members, reachable, voters, ready, ready_voters, clocks_suspect;
    uint64_t leader_id, leader_term;
    Holdfast__Response *leader; /* its status, NULL when there is none */
};

static enum ctl_exit survey_take(struct ctl *ctl, struct survey *s)
{
    *s = (struct survey){.nodes = json_array()};
    struct ctl_member members[CTL_NODES_MAX];
    enum ctl_exit rv = ctl_members(ctl, members, &s->members);
    for (size_t i = 0; rv == CTL_OK && i < s->members; i++) {
        const struct ctl_member *m = &members[i];
        Holdfast__Response *response;
        const char *wrong;
        s->voters += m->role == 2 ? 1 : 0;
        if (ctl_read_status_quietly(ctl, m->id, patience_ms(ctl), &response, &wrong) != CTL_OK) {
            json_array_append_new(s->nodes, json_pack("{s:I, s:s, s:b, s:s}", "id",
                                                      (json_int_t)m->id, "address", m->node_address,
                                                      "reachable", 0, "role", wrong));
            continue;
        }
        const Holdfast__NodeStatusResult *status = response->node_status;
        json_array_append_new(s->nodes, status_record(m, status));
        s->reachable++;
        s->ready += status->ready ? 1 : 0;
        s->clocks_suspect += status->clock_suspect ? 1 : 0;
        s->ready_voters += status->ready && m->role == 2 ? 1 : 0;
        if (status->role == 2 && status->term >= s->leader_term) {
            if (s->leader != NULL) {
                holdfast__response__free_unpacked(s->leader, NULL);
            }
            s->leader = response;
            s->leader_id = status->id;
            s->leader_term = status->term;
        } else {
            holdfast__response__free_unpacked(response, NULL);
        }
    }
    return rv;
}

static void survey_close(struct survey *s)
{
    json_decref(s->nodes);
    if (s->leader != NULL) {
        holdfast__response__free_unpacked(s->leader, NULL);
    }
}

enum ctl_exit endpoint_status(struct ctl *ctl)
{
    static const struct output_column columns[] = {
        {"id", "NODE", CELL_NUMBER},
        {"address", "ADDRESS", CELL_TEXT},
        {"role", "ROLE", CELL_TEXT},
        {"ready", "READY", CELL_YES},
        {"progress", "PROGRESS", CELL_TEXT},
        {"term", "TERM", CELL_NUMBER},
        {"commit_index", "COMMITTED", CELL_NUMBER},
        {"applied_index", "APPLIED", CELL_NUMBER},
        {"checkpoint_index", "CHECKPOINT", CELL_NUMBER},
        {"orders", "ORDERS", CELL_NUMBER},
        {"events_pending", "EVENTS", CELL_NUMBER},
        {"disk", "DISK FREE", CELL_TEXT},
        {"clock_offset_ms", "CLOCK MS", CELL_NUMBER},
        {"clock_suspect", "SUSPECT", CELL_YES},
        {"version", "VERSION", CELL_TEXT},
    };
    struct survey s;
    enum ctl_exit rv = survey_take(ctl, &s);
    if (rv == CTL_OK) {
        output_list(&ctl->output, columns, ARRAY_COUNT(columns), json_incref(s.nodes));
        if (s.reachable < s.members) {
            ctl_say("%zu of %zu nodes do not answer", s.members - s.reachable, s.members);
            ctl_hint("holdfastctl endpoint health");
            rv = CTL_FAILURE;
        }
    }
    survey_close(&s);
    return rv;
}

enum ctl_exit endpoint_health(struct ctl *ctl)
{
    static const struct output_column columns[] = {
        {"id", "NODE", CELL_NUMBER},
        {"address", "ADDRESS", CELL_TEXT},
        {"healthy", "HEALTHY", CELL_VERDICT},
        {"detail", "DETAIL", CELL_TEXT},
    };
    struct survey s;
    enum ctl_exit rv = survey_take(ctl, &s);
    json_t *records = json_array();
    size_t i, unhealthy = 0;
    json_t *node;
    json_array_foreach(s.nodes, i, node)
    {
        bool reachable = json_is_true(json_object_get(node, "reachable"));
        bool serves = reachable && json_is_true(json_object_get(node, "ready")) &&
                      json_integer_value(json_object_get(node, "leader_id")) != 0;
        bool low = json_is_true(json_object_get(node, "disk_low"));
        bool stale = json_integer_value(json_object_get(node, "checkpoint_failures")) > 0;
        bool healthy = serves && !low && !stale;
        const char *detail =
            healthy           ? json_string_value(json_object_get(node, "role"))
            : !reachable      ? json_string_value(json_object_get(node, "role"))
            : serves && low   ? "its disk is nearly full"
            : serves && stale ? "cannot write checkpoints: see its log"
            : json_is_true(json_object_get(node, "installing")) ? "is being filled from its peers"
            : json_integer_value(json_object_get(node, "leader_id")) == 0 ? "knows no leader"
                                                                          : "is not ready";
        json_array_append_new(records,
                              json_pack("{s:O, s:O, s:b, s:s}", "id", json_object_get(node, "id"),
                                        "address", json_object_get(node, "address"), "healthy",
                                        (int)healthy, "detail", detail));
        unhealthy += healthy ? 0 : 1;
    }
    if (rv == CTL_OK) {
        output_list(&ctl->output, columns, ARRAY_COUNT(columns), records);
        if (unhealthy > 0) {
            ctl_say("%zu of %zu nodes are not healthy", unhealthy, s.members);
            ctl_hint("holdfastctl endpoint status, and the log of that node");
            rv = CTL_FAILURE;
        }
    } else {
        json_decref(records);
    }
    survey_close(&s);
    return rv;
}

enum ctl_exit endpoint_hash(struct ctl *ctl)
{
    static const struct output_column columns[] = {
        {"id", "NODE", CELL_NUMBER},     {"index", "INDEX", CELL_NUMBER},
        {"digest", "DIGEST", CELL_TEXT}, {"equal", "EQUAL", CELL_VERDICT},
        {"detail", "DETAIL", CELL_TEXT},
    };
    struct digest_report report;
    enum ctl_exit rv = digest_collect(ctl, &report);
    if (rv != CTL_OK) {
        return rv;
    }
    json_t *records = json_array();
    for (size_t i = 0; i < report.count; i++) {
        const struct digest_node *n = &report.nodes[i];
        char digest[17] = "-";
        if (n->known) {
            snprintf(digest, sizeof digest, "%016" PRIx64, n->digest);
        }
        json_array_append_new(records,
                              json_pack("{s:I, s:I, s:s, s:b, s:s}", "id", (json_int_t)n->member.id,
                                        "index", (json_int_t)report.index, "digest", digest,
                                        "equal", n->known && n->digest == report.nodes[0].digest,
                                        "detail", n->known ? "" : n->wrong));
    }
    output_list(&ctl->output, columns, ARRAY_COUNT(columns), records);
    if (!report.equal) {
        ctl_say("the digests at index %" PRIu64 " are not all known and equal", report.index);
        ctl_hint("holdfastctl endpoint status");
    }
    return report.equal ? CTL_OK : CTL_FAILURE;
}

enum ctl_exit member_list(struct ctl *ctl)
{
    static const struct output_column columns[] = {
        {"id", "NODE", CELL_NUMBER},
        {"role", "ROLE", CELL_TEXT},
        {"leader", "LEADER", CELL_YES},
        {"connected", "CONNECTED", CELL_YES},
        {"match_index", "MATCH", CELL_NUMBER},
        {"node_address", "NODE ADDRESS", CELL_TEXT},
        {"raft_address", "RAFT ADDRESS", CELL_TEXT},
    };
    Holdfast__Response *response;
    /* The leader knows who is connected and how far; any node knows who the members are. */
    enum ctl_exit rv = ctl_read_status(ctl, CLIENT_TARGET_LEADER, &response);
    if (rv != CTL_OK) {
        return rv;
    }
    json_t *records = json_array();
    const Holdfast__NodeStatusResult *s = response->node_status;
    for (size_t i = 0; i < s->n_members; i++) {
        const Holdfast__Member *m = s->members[i];
        json_array_append_new(
            records, json_pack("{s:I, s:s, s:b, s:b, s:I, s:s, s:s}", "id", (json_int_t)m->id,
                               "role", member_role_name(m->role), "leader", m->id == s->leader_id,
                               "connected", m->connected || m->id == s->id, "match_index",
                               (json_int_t)(m->id == s->id ? s->last_index : m->match_index),
                               "node_address", m->node_address, "raft_address", m->raft_address));
    }
    holdfast__response__free_unpacked(response, NULL);
    output_list(&ctl->output, columns, ARRAY_COUNT(columns), records);
    return CTL_OK;
}

/* Who leads now, by asking. 0: nobody that answers, or it just ended. */
static uint64_t find_leader(struct ctl *ctl)
{
    Holdfast__Response *response;
    const char *wrong;
    uint64_t id = 0;
    if (ctl_read_status_quietly(ctl, CLIENT_TARGET_LEADER, patience_ms(ctl), &response, &wrong) ==
        CTL_OK) {
        id = response->node_status->role == 2 ? response->node_status->id : 0;
        holdfast__response__free_unpacked(response, NULL);
    }
    return id;
}

/* Handing leadership over takes a moment: waits until `to` leads (0: anybody but `from`). Returns
 * who leads in the end, as far as is known. */
static uint64_t wait_leader(struct ctl *ctl, uint64_t from, uint64_t to)
{
    uint64_t deadline_ms = clock_monotonic_ms() + ctl->timeout_ms;
    uint64_t leader = 0;
    while (clock_monotonic_ms() < deadline_ms) {
        leader = find_leader(ctl);
        if (leader != 0 && (to != 0 ? leader == to : leader != from)) {
            break;
        }
        process_sleep_ms(LEADER_POLL_MS);
    }
    return leader;
}

enum ctl_exit member_move_leader(struct ctl *ctl)
{
    const struct ctl_value *to = ctl_value(&ctl->arguments, "ID");
    char name[32] = "move-leader";
    if (to->given) {
        snprintf(name, sizeof name, "%" PRIu64, to->u64);
    }
    enum ctl_exit rv = ctl_confirm(ctl, name, "leadership will move to another node");
    if (rv != CTL_OK || (rv = ctl_open(ctl)) != CTL_OK) {
        return rv;
    }
    uint64_t before = find_leader(ctl);
    if (to->given && to->u64 == before) {
        ctl_say("node %" PRIu64 " leads already", before);
        return CTL_OK;
    }
    Holdfast__MoveLeader body = HOLDFAST__MOVE_LEADER__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__Response *response;
    body.to_id = to->given ? to->u64 : 0;
    request.body_case = HOLDFAST__REQUEST__BODY_MOVE_LEADER;
    request.move_leader = &body;
    rv = ctl_call(ctl, &request, CLIENT_TARGET_LEADER, &response);
    if (rv != CTL_OK) {
        return rv;
    }
    holdfast__response__free_unpacked(response, NULL);
    uint64_t after = wait_leader(ctl, before, to->given ? to->u64 : 0);
    static const struct output_column columns[] = {
        {"from", "FROM", CELL_NUMBER},
        {"to", "TO", CELL_NUMBER},
    };
    output_record(&ctl->output, columns, ARRAY_COUNT(columns),
                  json_pack("{s:I, s:I}", "from", (json_int_t)before, "to", (json_int_t)after));
    if (after == 0 || (to->given ? after != to->u64 : after == before)) {
        ctl_say("leadership did not arrive where it should");
        ctl_hint("holdfastctl endpoint status");
        return CTL_FAILURE;
    }
    return CTL_OK;
}

static enum ctl_exit drain(struct ctl *ctl, bool on)
{
    const struct ctl_value *node = ctl_value(&ctl->arguments, "ID");
    Holdfast__Drain body = HOLDFAST__DRAIN__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__Response *response;
    body.on = on;
    request.body_case = HOLDFAST__REQUEST__BODY_DRAIN;
    request.drain = &body;
    enum ctl_exit rv = ctl_call(ctl, &request, node->u64, &response);
    if (rv != CTL_OK) {
        return rv;
    }
    holdfast__response__free_unpacked(response, NULL);
    bool leads = on && wait_leader(ctl, node->u64, 0) == node->u64;
    static const struct output_column columns[] = {
        {"id", "NODE", CELL_NUMBER},
        {"draining", "DRAINING", CELL_YES},
        {"leads", "LEADS", CELL_YES},
    };
    output_record(&ctl->output, columns, ARRAY_COUNT(columns),
                  json_pack("{s:I, s:b, s:b}", "id", (json_int_t)node->u64, "draining", (int)on,
                            "leads", (int)leads));
    if (leads) {
        ctl_say("it still leads: no other voter can");
        ctl_hint("holdfastctl endpoint status");
    }
    return leads ? CTL_FAILURE : CTL_OK;
}

enum ctl_exit node_drain_run(struct ctl *ctl)
{
    const char *id = ctl_text(&ctl->arguments, "ID");
    char what[96];
    snprintf(what, sizeof what, "node %s will hand leadership over and take none", id);
    enum ctl_exit rv = ctl_confirm(ctl, id, what);
    return rv == CTL_OK ? drain(ctl, true) : rv;
}

enum ctl_exit node_undrain(struct ctl *ctl)
{
    return drain(ctl, false);
}

enum ctl_exit cluster_status(struct ctl *ctl)
{
    struct survey s;
    enum ctl_exit rv = survey_take(ctl, &s);
    if (rv != CTL_OK) {
        survey_close(&s);
        return rv;
    }
    const Holdfast__NodeStatusResult *leader = s.leader != NULL ? s.leader->node_status : NULL;
    size_t majority = s.voters / 2 + 1;
    const char *verdict = leader == NULL     ? "no leader: nothing can be ordered"
                          : leader->disk_low ? "degraded: the leader's disk is nearly full, new "
                                               "orders are refused"
                          : s.ready == s.members       ? "healthy"
                          : s.ready_voters >= majority ? "degraded: a node is down or not ready"
                                                       : "at risk: no majority is ready";
    static const struct output_column columns[] = {
        {"status", "STATUS", CELL_TEXT},
        {"leader_id", "LEADER", CELL_NUMBER},
        {"term", "TERM", CELL_NUMBER},
        {"nodes", "NODES", CELL_NUMBER},
        {"nodes_ready", "NODES READY", CELL_NUMBER},
        {"applied_index", "APPLIED INDEX", CELL_NUMBER},
        {"time", "CLUSTER TIME", CELL_TEXT},
        {"clocks_suspect", "CLOCKS SUSPECT", CELL_NUMBER},
        {"orders", "ORDERS IN MEMORY", CELL_NUMBER},
        {"postgres", "POSTGRESQL", CELL_TEXT},
        {"events_pending", "EVENTS TO PERSIST", CELL_NUMBER},
        {"shards", "SHARDS", CELL_NUMBER},
    };
    json_t *record = json_pack("{s:s, s:I, s:I, s:I, s:I}", "status", verdict, "leader_id",
                               (json_int_t)s.leader_id, "term", (json_int_t)s.leader_term, "nodes",
                               (json_int_t)s.members, "nodes_ready", (json_int_t)s.ready);
    json_object_set_new(record, "clocks_suspect", json_integer((json_int_t)s.clocks_suspect));
    if (leader != NULL) {
        json_t *more = json_pack(
            "{s:I, s:o, s:I, s:s, s:I, s:I}", "applied_index", (json_int_t)leader->applied_index,
            "time", ctl_json_time(leader->time_ms), "orders", (json_int_t)leader->orders,
            "postgres", leader->persister_configured ? "configured" : "none", "events_pending",
            (json_int_t)leader->events_pending, "shards", (json_int_t)leader->shards);
        json_object_update(record, more);
        json_decref(more);
    }
    output_record(&ctl->output, columns, ARRAY_COUNT(columns), record);
    if (s.clocks_suspect > 0) {
        ctl_say("%zu of %zu nodes have clocks that disagree with the majority", s.clocks_suspect,
                s.members);
        ctl_hint("holdfastctl endpoint status (CLOCK MS), and the time service of that host");
    }
    if (leader == NULL || s.ready < s.members) {
        ctl_hint("holdfastctl endpoint health");
    }
    rv = leader != NULL && s.ready_voters >= majority ? CTL_OK : CTL_FAILURE;
    survey_close(&s);
    return rv;
}
