/* What this node says of itself: NodeStatus, PersistStatus, metrics. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "proto/format.h"
#include "server/node_internal.h"

#define METRIC_SKUS_MAX 1000 /* with a label each; more are left to the API */

static char *keep(struct arena *arena, const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(arena_alloc(arena, size), text, size);
}

static Holdfast__Member *put_member(struct node *n, const struct replica_peer_info *peer,
                                    struct arena *arena)
{
    Holdfast__Member *m = arena_alloc(arena, sizeof *m);
    char raft[REPLICA_ENDPOINT_SIZE], address[REPLICA_ENDPOINT_SIZE];
    replica_address_raft(peer->member.address, raft);
    (void)node_member_address(n, peer->member.id, address);
    holdfast__member__init(m);
    m->id = peer->member.id;
    m->raft_address = keep(arena, raft);
    m->node_address = keep(arena, address);
    m->role = (uint32_t)peer->member.role;
    m->connected = peer->connected;
    m->match_index = peer->match_index;
    bool self = peer->member.id == n->options->id;
    m->format_oldest = self ? node_format(n) : peer->formats.oldest;
    m->format_newest = self ? FORMAT_NEWEST : peer->formats.newest;
    return m;
}

/* Before there is a configuration to look at: whom the command line names. */
static void put_options_members(struct node *n, Holdfast__NodeStatusResult *m, struct arena *arena)
{
    const struct node_options *o = n->options;
    m->members = arena_alloc(arena, (o->members_count + 1) * sizeof m->members[0]);
    for (size_t i = 0; i < o->members_count; i++) {
        Holdfast__Member *member = arena_alloc(arena, sizeof *member);
        holdfast__member__init(member);
        member->id = o->members[i].id;
        member->raft_address = keep(arena, o->members[i].raft_address);
        member->node_address = keep(arena, o->members[i].node_address);
        member->role = REPLICA_VOTER;
        m->members[m->n_members++] = member;
    }
}

/* Of a node that is still loading: who it is and how far. */
static void starting_fill(struct node *n, Holdfast__NodeStatusResult *m, struct arena *arena)
{
    static char version[] = HOLDFAST_VERSION;
    m->id = n->options->id;
    m->cluster_id.data = memcpy(arena_alloc(arena, LINK_CLUSTER_ID_SIZE), n->options->cluster_id,
                                LINK_CLUSTER_ID_SIZE);
    m->cluster_id.len = LINK_CLUSTER_ID_SIZE;
    m->version = version;
    m->wall_ms = clock_wall_ms();
    m->uptime_ms = uv_now(n->loop) - n->started_ms;
    m->persister_configured = persist_driver_configured(n->persist);
    m->refilling = n->start->config.start == REPLICA_REFILL;
    m->format_oldest = FORMAT_OLDEST;
    m->format_newest = FORMAT_NEWEST;
    put_options_members(n, m, arena);
}

void status_fill(struct node *n, Holdfast__NodeStatusResult *m, struct arena *arena)
{
    static char version[] = HOLDFAST_VERSION;
    struct startup_progress startup = start_progress(n);
    m->startup_phase = startup.phase;
    m->startup_done = startup.done;
    m->startup_total = startup.total;
    if (n->start != NULL) {
        starting_fill(n, m, arena);
        return;
    }
    struct replica_info info;
    struct checkpoint_meta meta;
    struct replica_position position;
    struct engine_stats stats;
    replica_get_info(n->replica, &info);
    engine_get_stats(n->engine, &stats);
    m->id = n->options->id;
    m->cluster_id.data = memcpy(arena_alloc(arena, LINK_CLUSTER_ID_SIZE), n->options->cluster_id,
                                LINK_CLUSTER_ID_SIZE);
    m->cluster_id.len = LINK_CLUSTER_ID_SIZE;
    m->version = version;
    m->role = (uint32_t)n->role;
    /* Ready to do its part: a leader that takes proposals, or a follower of somebody. */
    bool takes_part =
        n->role == REPLICA_LEADER ? n->ready : n->role == REPLICA_FOLLOWER && n->leader_id != 0;
    m->ready = takes_part && !info.refilling && n->installer == NULL && !n->draining;
    m->term = info.term;
    m->leader_id = n->leader_id;
    m->last_index = info.last_index;
    m->commit_index = info.commit_index;
    m->applied_index = info.applied_index;
    m->first_index = info.first_index;
    if (checkpoint_get_meta(n->store, &meta) &&
        position_decode(&position, meta.position, meta.position_size) == 0) {
        m->checkpoint_index = position.index;
        m->checkpoint_wall_ms = meta.written_wall_ms;
    }
    m->time_ms = cluster_clock_estimate_ms(&n->clock, clock_monotonic_ns());
    m->wall_ms = clock_wall_ms();
    (void)clock_peers_offset_ms(&n->clock.peers, &m->clock_offset_ms);
    m->clock_suspect = clock_peers_suspect(&n->clock.peers);
    m->uptime_ms = uv_now(n->loop) - n->started_ms;
    m->orders = stats.orders;
    m->events_pending = stats.events;
    m->persister_configured = persist_driver_configured(n->persist);
    m->shards = engine_shards(n->engine);
    struct disk_guard_info disk;
    disk_guard_get_info(n->disk, &disk);
    m->disk_free_bytes = disk.free_bytes;
    m->disk_low_bytes = disk.limit;
    m->disk_low = disk.low;
    m->log_write_age_ms = replica_log_age_ms(n->replica);
    m->checkpoint_failures = n->checkpoints.failures;
    m->installing = n->installer != NULL;
    m->elections = info.elections;
    m->draining = n->draining || n->drained;
    m->refilling = info.refilling;
    m->format = (uint32_t)engine_format(n->engine);
    m->format_oldest = FORMAT_OLDEST;
    m->format_newest = FORMAT_NEWEST;
    m->n_members = info.peers_count;
    m->members = arena_alloc(arena, (info.peers_count + 1) * sizeof m->members[0]);
    for (size_t i = 0; i < info.peers_count; i++) {
        m->members[i] = put_member(n, &info.peers[i], arena);
    }
}

void persist_status_fill(struct node *n, Holdfast__PersistStatusResult *m, struct arena *arena)
{
    struct persister_status status = {.error = ""};
    uint32_t shards = engine_shards(n->engine);
    m->configured = persist_driver_configured(n->persist);
    (void)persist_driver_get_status(n->persist, &status);
    m->connected = status.connected;
    m->error = keep(arena, status.error);
    m->postgres_url = keep(arena, status.url);
    m->events_first = engine_events_first(n->engine);
    m->events_next = engine_events_next(n->engine);
    m->events_persisted_total = status.events_total;
    m->n_shards = shards;
    m->shards = arena_alloc(arena, (shards + 1) * sizeof m->shards[0]);
    for (uint32_t i = 0; i < shards; i++) {
        Holdfast__ShardStatus *s = arena_alloc(arena, sizeof *s);
        holdfast__shard_status__init(s);
        s->shard = i;
        s->sequence = engine_events_acked(n->engine, i);
        m->shards[i] = s;
    }
}

/* ---- metrics ---- */

static void family(struct text *t, const char *name, const char *type, const char *help,
                   double value)
{
    metrics_single(t, name, type, help, value);
}

static void write_raft(struct node *n, struct text *t)
{
    struct replica_info info;
    char labels[64];
    replica_get_info(n->replica, &info);
    family(t, "holdfast_has_leader", "gauge", "1 when a leader is known.", n->leader_id != 0);
    family(t, "holdfast_is_leader", "gauge", "1 when this node leads and serves.",
           n->role == REPLICA_LEADER && n->ready);
    family(t, "holdfast_refilling", "gauge",
           "1 while this node catches up after the loss of its disk and does not vote.",
           info.refilling);
    family(t, "holdfast_raft_term", "gauge", "Current term.", (double)info.term);
    family(t, "holdfast_raft_commit_index", "gauge", "Committed log index.",
           (double)info.commit_index);
    family(t, "holdfast_raft_applied_index", "gauge", "Applied log index.",
           (double)info.applied_index);
    family(t, "holdfast_raft_log_segments", "gauge", "Files of the log.",
           (double)info.log_segments);
    family(t, "holdfast_leader_changes_total", "counter", "Changes of leader seen.",
           (double)n->leader_changes);
    family(t, "holdfast_elections_total", "counter", "Elections begun here.",
           (double)info.elections);
    family(t, "holdfast_append_bytes_total", "counter", "Bytes written to the log.",
           (double)info.append_bytes);
    if (info.append_ns != NULL) {
        metrics_family(t, "holdfast_append_duration_seconds", "histogram",
                       "One synced write of the log.");
        metrics_histogram_seconds(t, "holdfast_append_duration_seconds", NULL, info.append_ns);
    }
    metrics_family(t, "holdfast_peer_lag_entries", "gauge",
                   "Entries a peer is behind, on the leader.");
    for (size_t i = 0; i < info.peers_count && n->role == REPLICA_LEADER; i++) {
        const struct replica_peer_info *p = &info.peers[i];
        snprintf(labels, sizeof labels, "peer=\"%llu\"", (unsigned long long)p->member.id);
        uint64_t behind = p->member.id == info.id || p->match_index > info.last_index
                              ? 0
                              : info.last_index - p->match_index;
        metrics_sample_u64(t, "holdfast_peer_lag_entries", labels, behind);
    }
}

static void write_submits(struct node *n, struct text *t)
{
    static const double quantiles[] = {0.5, 0.9, 0.99};
    const struct submit_queue_stats *s = submit_queue_stats(n->queue);
    const char *name = "holdfast_proposals_total";
    metrics_family(t, name, "counter", "Commands by what became of them.");
    metrics_sample_u64(t, name, "result=\"ok\"", s->ok_total);
    metrics_sample_u64(t, name, "result=\"unknown\"", s->unknown_total);
    metrics_sample_u64(t, name, "result=\"not_leader\"", s->not_leader_total);
    metrics_sample_u64(t, name, "result=\"busy\"", s->busy_total);
    family(t, "holdfast_proposals_pending", "gauge", "Commands queued or in flight.",
           (double)(s->queued + s->in_flight));
    metrics_family(t, "holdfast_batch_commands", "summary", "Commands of one log entry.");
    for (size_t i = 0; i < ARRAY_COUNT(quantiles); i++) {
        char labels[32];
        snprintf(labels, sizeof labels, "quantile=\"%g\"", quantiles[i]);
        metrics_sample_u64(t, "holdfast_batch_commands", labels,
                           histogram_quantile(&s->batch_commands, quantiles[i]));
    }
    metrics_sample_u64(t, "holdfast_batch_commands_sum", NULL, s->batch_commands.sum);
    metrics_sample_u64(t, "holdfast_batch_commands_count", NULL, s->batch_commands.count);
    metrics_family(t, "holdfast_commit_duration_seconds", "histogram",
                   "From proposing a batch to its replies.");
    metrics_histogram_seconds(t, "holdfast_commit_duration_seconds", NULL, &s->wait_ns);
    metrics_family(t, "holdfast_apply_duration_seconds", "histogram", "Applying one batch.");
    metrics_histogram_seconds(t, "holdfast_apply_duration_seconds", NULL, &n->apply_ns);
}

static void write_engine(struct node *n, struct text *t)
{
    struct engine_stats s;
    char labels[96];
    engine_get_stats(n->engine, &s);
    metrics_family(t, "holdfast_orders_total", "counter",
                   "Commands applied here since start, by result of the engine.");
    for (uint32_t r = 0; r <= RESULT_MAX; r++) {
        snprintf(labels, sizeof labels, "result=\"%s\"", result_code((enum result)r));
        metrics_sample_u64(t, "holdfast_orders_total", labels, s.results[r]);
    }
    family(t, "holdfast_orders", "gauge", "Orders in memory.", (double)s.orders);
    family(t, "holdfast_reservations_active", "gauge", "Orders that wait for payment.",
           (double)s.orders_pending);
    family(t, "holdfast_reservations_expired_total", "counter", "Reservations ended unpaid.",
           (double)s.expired_reservations);
    family(t, "holdfast_expiry_lag_seconds", "gauge", "How late the last reservation ended.",
           (double)s.expiry_lag_ms / 1e3);
    family(t, "holdfast_idempotency_replays_total", "counter", "Commands answered from memory.",
           (double)s.replays);
    family(t, "holdfast_idempotency_keys", "gauge", "Keys remembered.", (double)s.idempotency_keys);
    family(t, "holdfast_users", "gauge", "Users in memory.", (double)s.users);
    family(t, "holdfast_eligibilities", "gauge", "Eligibilities.", (double)s.eligibilities);
    family(t, "holdfast_leases", "gauge", "Leases held.", (double)s.leases);
    family(t, "holdfast_denials", "gauge", "Users on the denylist.", (double)s.denials);
    family(t, "holdfast_persist_lag_events", "gauge", "Events not yet in PostgreSQL.",
           (double)s.events);
    family(t, "holdfast_invariant_violations_total", "counter",
           "Violations that checks of invariants found.", (double)n->invariant_violations);
}

static void write_stock(struct node *n, struct text *t)
{
    struct sku_view views[64];
    uint64_t cursor = 0;
    size_t total = 0;
    metrics_family(t, "holdfast_stock_units", "gauge", "Units by SKU and state.");
    do {
        size_t count = engine_list_skus(n->engine, &cursor, views, ARRAY_COUNT(views));
        for (size_t i = 0; i < count && total < METRIC_SKUS_MAX; i++, total++) {
            char sku[2 * ID_SIZE_MAX + 4], labels[2 * ID_SIZE_MAX + 64];
            metrics_escape_label(views[i].id, sku, sizeof sku);
            const int64_t units[] = {views[i].available, views[i].reserved, views[i].sold};
            static const char *const states[] = {"available", "reserved", "sold"};
            for (size_t k = 0; k < ARRAY_COUNT(units); k++) {
                snprintf(labels, sizeof labels, "sku=\"%s\",state=\"%s\"", sku, states[k]);
                metrics_sample(t, "holdfast_stock_units", labels, (double)units[k]);
            }
        }
    } while (cursor != 0 && total < METRIC_SKUS_MAX);
}

static void write_installs(struct node *n, struct text *t)
{
    struct install_progress p;
    install_get_progress(n, &p);
    family(t, "holdfast_installs_total", "counter", "Checkpoints taken over from a peer.",
           (double)n->installs.done_total);
    family(t, "holdfast_installs_resumed_total", "counter",
           "Installs that went on where an earlier one stopped.",
           (double)n->installs.resumed_total);
    family(t, "holdfast_installs_failed_total", "counter",
           "Installs that were cut or found wrong; the leader offers again.",
           (double)n->installs.failed_total);
    family(t, "holdfast_install_bytes_total", "counter", "Bytes of checkpoints pulled from peers.",
           (double)n->installs.bytes_total);
    family(t, "holdfast_install_blocks", "gauge", "Blocks that the install under way has.",
           (double)p.blocks);
    family(t, "holdfast_install_blocks_expected", "gauge", "Blocks that it will have.",
           (double)p.blocks_total);
    family(t, "holdfast_install_bytes_per_second", "gauge", "Its pace since it began or went on.",
           p.bytes_per_second);
    chunk_source_write_metrics(n, t);
}

static void write_checkpoints(struct node *n, struct text *t)
{
    struct checkpoint_stats s;
    checkpoint_get_stats(n->store, &s);
    family(t, "holdfast_checkpoint_duration_seconds", "gauge", "Of the last one, begin to durable.",
           (double)s.last_duration_ns / 1e9);
    family(t, "holdfast_checkpoint_records", "gauge", "Blocks written by the last one.",
           (double)s.last_records);
    family(t, "holdfast_checkpoint_bytes", "gauge", "Bytes written by the last one.",
           (double)s.last_bytes);
    family(t, "holdfast_checkpoint_last_success_timestamp_seconds", "gauge",
           "When it became durable.", (double)s.last_success_wall_ms / 1e3);
    family(t, "holdfast_checkpoints_total", "counter", "Checkpoints taken.", (double)s.taken_total);
    family(t, "holdfast_checkpoint_errors_total", "counter", "Checkpoints that failed.",
           (double)s.failed_total);
    family(t, "holdfast_checkpoint_failures", "gauge", "Failures since the last success.",
           n->checkpoints.failures);
    family(t, "holdfast_checkpoint_used_bytes", "gauge", "Size of the environment.",
           (double)s.used_size);
    write_installs(n, t);
}

static void write_disk(struct node *n, struct text *t)
{
    struct disk_guard_info disk;
    disk_guard_get_info(n->disk, &disk);
    if (disk.known) {
        family(t, "holdfast_disk_free_bytes", "gauge", "Free space where the data are.",
               (double)disk.free_bytes);
        family(t, "holdfast_disk_size_bytes", "gauge", "Size of that file system.",
               (double)disk.size_bytes);
    }
    family(t, "holdfast_disk_low_bytes", "gauge",
           "Free space below which a leader refuses new orders.", (double)disk.limit);
    family(t, "holdfast_disk_low", "gauge", "1 when there is less.", disk.low);
    family(t, "holdfast_disk_low_refused_total", "counter", "Commands refused for want of space.",
           (double)disk.refused_total);
    family(t, "holdfast_disk_low_hand_overs_total", "counter",
           "Leadership handed to a node with more space.", (double)disk.hand_overs_total);
    family(t, "holdfast_log_write_age_seconds", "gauge",
           "How long the log's disk has not answered; 0: it owes nothing.",
           (double)replica_log_age_ms(n->replica) / 1e3);
    family(t, "holdfast_log_silences_total", "counter",
           "Times that the log's disk was silent long enough for a leader to leave it.",
           (double)disk.slow_total);
    family(t, "holdfast_log_silence_hand_overs_total", "counter",
           "Leadership handed over because of that.", (double)disk.slow_hand_overs_total);
}

static void write_process(struct node *n, struct text *t)
{
    char labels[128], cluster[CLUSTER_ID_TEXT_SIZE];
    cluster_id_format(n->options->cluster_id, cluster);
    snprintf(labels, sizeof labels,
             "version=\"" HOLDFAST_VERSION "\",program=\"holdfastd\","
             "cluster=\"%s\"",
             cluster);
    metrics_family(t, "holdfast_build_info", "gauge", "Version.");
    metrics_sample_u64(t, "holdfast_build_info", labels, 1);
    family(t, "holdfast_format", "gauge", "Format in force in the cluster; 0: no state yet.",
           (double)engine_format(n->engine));
    family(t, "holdfast_format_newest", "gauge", "Newest format that this program reads.",
           FORMAT_NEWEST);
    family(t, "holdfast_sessions", "gauge", "Open links of gateways, tools and nodes.",
           (double)n->sessions_count);
    family(t, "holdfast_reads_total", "counter", "Reads answered.", (double)n->reads_total);
    metrics_family(t, "holdfast_loop_lag_seconds", "histogram", "How late the loop's timer fires.");
    metrics_histogram_seconds(t, "holdfast_loop_lag_seconds", NULL, &n->loop_lag_ns);
    clock_watch_write_metrics(n, t);
    metrics_process(t);
}

static void write_startup(struct node *n, struct text *t)
{
    struct startup_progress p = start_progress(n);
    family(t, "holdfast_startup_phase", "gauge",
           "0 serving, 1 loading the checkpoint, 2 replaying the log, 3 installing one from a peer.", p.phase);
    family(t, "holdfast_startup_progress_ratio", "gauge", "Of that phase.",
           p.total > 0 ? (double)p.done / (double)p.total : p.phase == 0);
}

void metrics_write(struct node *n, struct text *t)
{
    write_process(n, t);
    write_startup(n, t);
    if (n->start != NULL) { /* of the rest what alerts are made of */
        family(t, "holdfast_has_leader", "gauge", "1 when a leader is known.", 0);
        family(t, "holdfast_is_leader", "gauge", "1 when this node leads and serves.", 0);
        family(t, "holdfast_refilling", "gauge",
               "1 while this node catches up after the loss of its disk and does not vote.",
               n->start->config.start == REPLICA_REFILL);
        return;
    }
    write_raft(n, t);
    write_submits(n, t);
    write_engine(n, t);
    write_stock(n, t);
    write_checkpoints(n, t);
    write_disk(n, t);
    persist_driver_write_metrics(n->persist, t);
}
