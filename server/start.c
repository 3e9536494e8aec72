/* Start: from a data directory to a node that takes part, while the loop goes on.
 *
 *     node_start: identity, then listening ──► start_begin
 *     thread of the pool    checkpoint opened, judged, loaded into a new engine → log recovered
 *     loop                  node_join: engine, store and log are taken over, peers are listened for
 *     then                  what the log holds behind the checkpoint is applied as the leader says
 *                           that it is committed
 *
 * Meanwhile NodeStatus and metrics are answered, with how far it is; a Submit gets NOT_LEADER, all else
 * BUSY. A line of the log says how far it is every START_LOG_MS.
 *
 * Failure modes: whatever is wrong is said and the process ends with status 1: nothing was taken or
 * promised yet, and the files are as they were. SIGTERM before node_join ends it at once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/advice.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "server/node_internal.h"

#define START_LOG_MS 1000

/* ---- thread ---- */

static void note_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct start *s = ctx;
    atomic_store_explicit(&s->total, total, memory_order_relaxed);
    atomic_store_explicit(&s->done, done, memory_order_relaxed);
}

static int load_checkpoint(struct start *s)
{
    const struct node_options *o = s->node->options;
    struct checkpoint_meta meta;
    struct checkpoint_config config = {.directory = o->data_dir, .node_id = o->id};
    memcpy(config.cluster_id, o->cluster_id, sizeof config.cluster_id);
    if (checkpoint_open(&config, &s->store) < 0) {
        return -1;
    }
    s->engine = engine_create();
    s->has_position = checkpoint_get_meta(s->store, &meta);
    if (!s->has_position) {
        return 0;
    }
    if (checkpoint_load_engine(s->store, s->engine, node_load_block, note_progress, s) < 0) {
        return -1;
    }
    if (position_decode(&s->position, meta.position, meta.position_size) < 0) {
        log_error("%s/checkpoint/gen-…/data.mdb: its position in the log is damaged. " ADVICE_REBUILD,
                  o->data_dir);
        return -1;
    }
    if (engine_initialized(s->engine) &&
        memcmp(engine_cluster_id(s->engine), o->cluster_id, LINK_CLUSTER_ID_SIZE) != 0) {
        log_error("%s/checkpoint/gen-…/data.mdb: is the state of another cluster: it was copied here. "
                  ADVICE_REBUILD,
                  o->data_dir);
        return -1;
    }
    log_info("checkpoint loaded index=%llu blocks=%llu took_ms=%llu",
             (unsigned long long)s->position.index, (unsigned long long)meta.blocks_count,
             (unsigned long long)(clock_monotonic_ms() - s->begun_ms));
    return 0;
}

static void work_cb(uv_work_t *work)
{
    struct start *s = container_of(work, struct start, work);
    s->result = FAILPOINT_ERROR("start/before-load", "the checkpoint is to be loaded") < 0
                    ? -1
                    : load_checkpoint(s);
    if (s->result == 0) {
        FAILPOINT("start/before-recover", "the checkpoint is loaded, the log is not read");
        atomic_store(&s->phase, STARTUP_REPLAYING);
        note_progress(s, 0, 0);
        s->result = replica_open(&s->config, &s->replica);
    }
}

/* ---- loop ---- */

static void fill_config(struct start *s, enum identity_state state)
{
    static const enum replica_start starts[] = {[IDENTITY_MEMBER] = REPLICA_MEMBER,
                                                [IDENTITY_NEW] = REPLICA_NEW,
                                                [IDENTITY_REFILLING] = REPLICA_REFILL};
    const struct node_options *o = s->node->options;
    snprintf(s->directory, sizeof s->directory, "%s/log", o->data_dir);
    s->config = (struct replica_config){.loop = s->node->loop,
                                        .id = o->id,
                                        .directory = s->directory,
                                        .listen_host = o->raft_host,
                                        .listen_port = o->raft_port,
                                        .start = starts[state],
                                        .bootstrap_count = o->members_count,
                                        .election_timeout_ms = o->election_timeout_ms,
                                        .segment_size = o->segment_size,
                                        .trailing_entries = o->trailing_entries,
                                        .catch_up_log_size = o->catch_up_log_size,
                                        .log_sync = o->log_sync,
                                        .log_write_deadline_ms = o->log_write_deadline_ms};
    memcpy(s->config.identity.key, o->key, sizeof s->config.identity.key);
    memcpy(s->config.identity.cluster_id, o->cluster_id, sizeof s->config.identity.cluster_id);
    for (size_t i = 0; i < o->members_count; i++) {
        char address[REPLICA_ADDRESS_SIZE];
        CHECK(replica_address_join(o->members[i].raft_address, o->members[i].node_address,
                                   address)); /* node_options_parse did it, too */
        s->config.bootstrap[i].id = o->members[i].id;
        s->config.bootstrap[i].role = REPLICA_VOTER;
        str_copy(s->config.bootstrap[i].address, sizeof s->config.bootstrap[i].address,
                 str_from(address));
    }
}

static void done_cb(uv_work_t *work, int status)
{
    struct start *s = container_of(work, struct start, work);
    struct node *n = s->node;
    struct replica_info info;
    CHECK(status == 0);
    if (s->result < 0 || node_join(n, s) < 0) {
        log_error("not started");
        _exit(1); /* what it holds, threads and all, ends with the process */
    }
    replica_get_info(n->replica, &info);
    n->start = NULL;
    n->replay_from = s->has_position ? s->position.index : 0;
    n->replay_to = info.last_index;
    n->startup_phase = n->replay_to > n->replay_from ? STARTUP_REPLAYING : STARTUP_SERVING;
    n->startup_ms = uv_now(n->loop);
    free(s);
}

void start_begin(struct node *n, enum identity_state state)
{
    struct start *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    s->node = n;
    s->begun_ms = clock_monotonic_ms();
    atomic_store(&s->phase, STARTUP_LOADING);
    fill_config(s, state);
    n->start = s;
    n->startup_ms = uv_now(n->loop);
    CHECK(uv_queue_work(n->loop, &s->work, work_cb, done_cb) == 0);
}

struct startup_progress start_progress(const struct node *n)
{
    struct startup_progress p = {.phase = n->startup_phase};
    if (n->start != NULL) {
        p.phase = atomic_load(&n->start->phase);
        p.done = atomic_load_explicit(&n->start->done, memory_order_relaxed);
        p.total = atomic_load_explicit(&n->start->total, memory_order_relaxed);
    } else if (n->installer != NULL) {
        struct install_progress install;
        install_get_progress(n, &install);
        p = (struct startup_progress){STARTUP_INSTALLING, install.blocks, install.blocks_total};
    } else if (p.phase == STARTUP_REPLAYING) {
        uint64_t applied = replica_applied_index(n->replica);
        p.total = n->replay_to - n->replay_from;
        p.done = applied > n->replay_from ? applied - n->replay_from : 0;
        p.done = p.done < p.total ? p.done : p.total;
    }
    return p;
}

static void log_progress(struct node *n, const struct startup_progress *p)
{
    unsigned percent = p->total > 0 ? (unsigned)(p->done * 100 / p->total) : 0;
    const char *what = p->phase == STARTUP_LOADING ? "loading the checkpoint" : "replaying the log";
    if (n->start == NULL && n->leader_id == 0) {
        what = "replaying the log: a leader must say what is committed";
    }
    log_info("starting: %s percent=%u done=%llu total=%llu", what, percent,
             (unsigned long long)p->done, (unsigned long long)p->total);
}

void start_tick(struct node *n, uint64_t now_ms)
{
    bool serves = n->start == NULL && n->startup_phase == STARTUP_SERVING;
    if (serves || n->installer != NULL) {
        return; /* an install tells of itself */
    }
    struct startup_progress p = start_progress(n);
    bool leads = n->role == REPLICA_LEADER && n->ready;
    if (n->start == NULL && (p.done == p.total || leads)) {
        n->startup_phase = STARTUP_SERVING;
        log_info("the log is replayed entries=%llu", (unsigned long long)p.total);
        return;
    }
    if (now_ms - n->startup_ms >= START_LOG_MS) {
        n->startup_ms = now_ms;
        log_progress(n, &p);
    }
}
