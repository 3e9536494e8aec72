/* Life of a node, the hooks of its replica, and what each turn of its loop does.
 *
 * Start: identity (new, member or refilling) → sessions listened for, which get no more than the status
 * → checkpoint and log loaded on a thread (start.c) → node_join: engine and log taken over, peers
 * listened for. Whatever is wrong is said before anything else is answered.
 *
 * Drain (SIGTERM): no commands are taken any more, leadership is handed over, what was taken is
 * answered; then sessions, persister, replica and checkpoint close, in this order, each when the
 * one before is gone. */
#include "server/node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "proto/format.h"
#include "server/identity.h"
#include "server/node_internal.h"

#define PATH_SIZE         4096

/* ---- hooks of the replica ---- */

/* A majority committed what this program cannot carry out. To skip it would be another state. */
_Noreturn static void die_outdated(uint64_t index, const char *what)
{
    log_error("log entry %llu holds %s: a newer version of holdfast wrote it, this is " HOLDFAST_VERSION
              ". Nothing is damaged. Start this node again with the version that the others run",
              (unsigned long long)index, what);
    _exit(NODE_EXIT_OUTDATED);
}

static void apply_hook(void *ctx, uint64_t index, uint64_t term, const void *data, size_t size)
{
    struct node *n = ctx;
    struct batch_reader batch;
    char what[128];
    uint64_t begun_ns = clock_monotonic_ns();
    if (batch_judge(data, size, what, sizeof what) < 0) {
        die_outdated(index, what);
    }
    CHECK(batch_open(&batch, data, size) == 0);
    bool ours = submit_queue_expects(n->queue, index, term);
    engine_apply(n->engine, index, data, size, ours ? submit_queue_reply_cb : NULL, n->queue);
    bool fresh = term == n->term && n->role != REPLICA_LEADER && n->leader_id != 0;
    cluster_clock_heard(&n->clock, batch.leader_time_ms, fresh, begun_ns);
    n->applied_index = index;
    n->applied_bytes += size;
    n->idle_batch_ms = uv_now(n->loop);
    histogram_add(&n->apply_ns, clock_monotonic_ns() - begun_ns);
}

/* The first batch of a new cluster: what all replicas must agree on. */
static void propose_init(struct node *n)
{
    struct command c = {.kind = COMMAND_INIT, .scope = STR_LITERAL("sys")};
    uint8_t encoded[COMMAND_SIZE_MAX];
    memcpy(c.init.cluster_id, n->options->cluster_id, sizeof c.init.cluster_id);
    randombytes_buf(c.init.hash_seed, sizeof c.init.hash_seed);
    c.init.shards = n->options->shards;
    c.init.limits = n->options->limits;
    size_t size = command_encode(&c, encoded, sizeof encoded);
    CHECK(size > 0);
    n->init_proposed = submit_queue_add_own(n->queue, encoded, size, true);
}

static void start_leading(struct node *n)
{
    cluster_clock_lead(&n->clock, engine_time_ms(n->engine), clock_monotonic_ns(), clock_wall_ms());
    clock_watch_anchored(n);
    persist_driver_lead(n->persist, n->term);
    n->init_proposed = false;
    if (!engine_initialized(n->engine)) {
        propose_init(n);
    }
}

static void role_changed_hook(void *ctx, enum replica_role role, bool ready, uint64_t term,
                              uint64_t leader_id)
{
    struct node *n = ctx;
    bool led = n->role == REPLICA_LEADER && n->ready;
    bool leads = role == REPLICA_LEADER && ready;
    if (leader_id != n->leader_id && leader_id != 0) {
        n->leader_changes++;
        log_info("leader id=%llu term=%llu", (unsigned long long)leader_id,
                 (unsigned long long)term);
    }
    bool same_leadership = led && leads && term == n->term;
    n->role = role;
    n->ready = ready;
    n->term = term;
    n->leader_id = leader_id;
    if (led && !same_leadership) {
        cluster_clock_follow(&n->clock);
        persist_driver_follow(n->persist);
    }
    if (role != REPLICA_LEADER) {
        submit_queue_fail(n->queue);
    }
    if (leads && !same_leadership) {
        log_info("leading term=%llu", (unsigned long long)term);
        start_leading(n);
    }
}

/* Were the flag lost with what is written here, the node would only refill again, or be refused. */
static void settled_hook(void *ctx)
{
    struct node *n = ctx;
    const struct node_options *o = n->options;
    FAILPOINT("identity/before-settle", "the log is whole, the identity says that it is not");
    if (identity_settle(o->data_dir, o->id, o->cluster_id) == 0) {
        log_info("the log is whole: this node is a full member from now on");
    }
}

/* From a message or the log, within the replica: the tick ends the node. */
static void removed_hook(void *ctx)
{
    struct node *n = ctx;
    n->removed = true;
}

static void tick_removed(struct node *n)
{
    const struct node_options *o = n->options;
    void (*ended)(void *) = n->ended;
    n->ended = NULL;
    if (ended != NULL) {
        log_warn("this node was removed from its cluster: it stops now and is not needed any more. Its "
                 "data in %s is of no use to anybody; to bring the machine back, move it away and add "
                 "the node anew",
                 o->data_dir);
        (void)identity_remove(o->data_dir, o->id, o->cluster_id);
        ended(n->ended_ctx);
    }
}

void node_engine_replaced(struct node *n, struct engine *engine)
{
    n->engine = engine;
    warm_up_stop(&n->warm_up); /* of the former */
    cluster_clock_heard(&n->clock, engine_time_ms(engine), false, clock_monotonic_ns());
}

/* ---- callbacks of the parts ---- */

static enum replica_status propose_cb(void *ctx, struct replica_submit *req, const void *data,
                                      size_t size, replica_submit_cb cb)
{
    struct node *n = ctx;
    return replica_submit(n->replica, req, data, size, cb);
}

static int64_t now_cb(void *ctx)
{
    struct node *n = ctx;
    return cluster_clock_now_ms(&n->clock, clock_monotonic_ns());
}

static uint64_t monotonic_cb(void *ctx)
{
    (void)ctx;
    return clock_monotonic_ns();
}

static bool propose_own_cb(void *ctx, const struct command *command)
{
    struct node *n = ctx;
    uint8_t encoded[COMMAND_SIZE_MAX];
    size_t size = command_encode(command, encoded, sizeof encoded);
    CHECK(size > 0);
    CHECK(command_kind_format((uint8_t)command->kind) <= node_format(n));
    return n->role == REPLICA_LEADER && n->ready &&
           submit_queue_add_own(n->queue, encoded, size, false);
}

/* ---- what others ask ---- */

bool node_takes_submits(const struct node *n)
{
    return n->role == REPLICA_LEADER && !n->draining && !n->drained;
}

uint32_t node_format(const struct node *n)
{
    return engine_initialized(n->engine) ? (uint32_t)engine_format(n->engine) : FORMAT_INITIAL;
}

const char *node_leader_address(struct node *n)
{
    (void)node_member_address(n, n->leader_id, n->leader_address);
    return n->leader_address;
}

void node_note_willing(struct node *n)
{
    replica_set_willing(n->replica, !n->drained && !disk_guard_silent(n->disk) &&
                                        !clock_peers_suspect(&n->clock.peers));
}

enum replica_status node_hand_over(struct node *n, uint64_t to_id)
{
    n->transfer_ms = uv_now(n->loop);
    return replica_transfer(n->replica, to_id);
}

/* ---- the loop's turns ---- */

static void let_time_pass(struct node *n)
{
    if (!engine_initialized(n->engine)) {
        if (!n->init_proposed) {
            propose_init(n);
        }
        return;
    }
    if (!submit_queue_is_idle(n->queue)) {
        return;
    }
    bool due = engine_next_due_ms(n->engine) <= now_cb(n);
    if (due || uv_now(n->loop) - n->idle_batch_ms >= NODE_IDLE_BATCH_MS) {
        submit_queue_tick(n->queue);
    }
}

/* Ends the loop's wait; check_cb does the work. */
static void pace_cb(uv_timer_t *timer)
{
    (void)timer;
}

void node_pump(struct node *n)
{
    if (n->closing) {
        return;
    }
    /* Nothing is stamped before it is known from where time goes on. */
    bool serves = n->role == REPLICA_LEADER && n->ready && cluster_clock_ready(&n->clock);
    uint32_t wait_ms = submit_queue_dispatch(n->queue, serves);
    if (wait_ms > 0 && !uv_is_active((uv_handle_t *)&n->pace)) {
        CHECK(uv_timer_start(&n->pace, pace_cb, wait_ms, 0) == 0);
    }
    if (serves && !n->draining) {
        let_time_pass(n);
    }
    if (engine_initialized(n->engine)) {
        persist_driver_step(n->persist, n->engine, uv_now(n->loop));
    }
    read_requests_applied(n);
    chunk_source_step(n); /* after all that orders need */
}

static void check_cb(uv_check_t *check)
{
    node_pump(container_of(check, struct node, check));
}

static void begin_close(struct node *n);

static bool has_other_voters(const struct node *n)
{
    struct replica_info info;
    replica_get_info(n->replica, &info);
    for (size_t i = 0; i < info.peers_count; i++) {
        const struct replica_member *m = &info.peers[i].member;
        if (m->role == REPLICA_VOTER && m->id != n->options->id) {
            return true;
        }
    }
    return false;
}

static void tick_drain(struct node *n, uint64_t now_ms)
{
    bool leads = n->role == REPLICA_LEADER;
    bool idle = submit_queue_is_idle(n->queue);
    if (leads && idle && now_ms - n->transfer_ms >= NODE_TRANSFER_RETRY_MS) {
        (void)node_hand_over(n, 0);
    }
    if (!n->draining) {
        return;
    }
    /* Alone: what was taken is answered, and nobody could lead. With others who could, but are not
     * there, it waits a while. */
    bool waits = leads && !n->removed && has_other_voters(n);
    uint64_t patience_ms = !idle ? NODE_DRAIN_MS : waits ? NODE_HAND_OVER_MS : 0;
    if (now_ms - n->drain_begun_ms >= patience_ms) {
        begin_close(n);
    }
}

static void tick_cb(uv_timer_t *timer)
{
    struct node *n = container_of(timer, struct node, tick);
    uint64_t now_ms = uv_now(n->loop), now_ns = uv_hrtime();
    uint64_t lag_ns = now_ns > n->tick_expected_ns ? now_ns - n->tick_expected_ns : 0;
    histogram_add(&n->loop_lag_ns, lag_ns);
    n->tick_expected_ns = now_ns + NODE_TICK_MS * 1000000ull;
    start_tick(n, now_ms);
    if (n->start != NULL) {
        return;
    }
    if (n->closing) {
        begin_close(n);
        return;
    }
    warm_up_tick(&n->warm_up, n->loop, n->engine);
    if (n->installer == NULL) {
        checkpoint_driver_settle(n->engine);
        checkpoint_driver_tick(&n->checkpoints, n->applied_index, n->applied_bytes);
        if (engine_initialized(n->engine) &&
            persist_driver_start(n->persist, engine_shards(n->engine)) < 0) {
            log_warn("the persister cannot start; tried again");
        }
    }
    checkpoint_expire_pins(n->store, now_ms);
    install_tick(n, now_ms);
    disk_guard_tick(n->disk, now_ms);
    snapshots_tick(n, now_ms);
    read_requests_tick(n, now_ms);
    members_tick(n, now_ms);
    clock_watch_tick(n, now_ms);
    node_pump(n);
    if (n->removed) {
        tick_removed(n);
    }
    if (n->draining || n->drained) {
        tick_drain(n, now_ms);
    }
}

/* ---- start ---- */

int node_load_block(void *engine, const struct engine_block *block)
{
    uint64_t format = engine_block_format(block);
    if (format > FORMAT_NEWEST || (format != 0 && format < FORMAT_OLDEST)) {
        log_error("this state is of format %llu, and this program (" HOLDFAST_VERSION
                  ") reads formats %u to %u. Nothing was changed. Run the version that wrote it, or one "
                  "release before or after",
                  (unsigned long long)format, FORMAT_OLDEST, FORMAT_NEWEST);
        return -1;
    }
    return engine_load_block(engine, block);
}

int node_join(struct node *n, struct start *s)
{
    static const struct replica_hooks hooks = {.apply = apply_hook,
                                               .role_changed = role_changed_hook,
                                               .make_ticket = node_make_ticket,
                                               .install = node_install,
                                               .settled = settled_hook,
                                               .removed = removed_hook,
                                               .clock_read = clock_watch_read,
                                               .clock_sample = clock_watch_sample};
    const struct node_options *o = n->options;
    engine_destroy(n->engine); /* the empty one */
    n->engine = s->engine;
    n->store = s->store;
    n->applied_index = s->has_position ? s->position.index : 0;
    cluster_clock_heard(&n->clock, engine_time_ms(n->engine), false, clock_monotonic_ns());
    if (checkpoint_attach(n->store, n->loop) < 0) {
        return -1;
    }
    if (s->config.start == REPLICA_REFILL) {
        log_info(
            "refilling: no votes until a leader has filled this node (a new cluster begins with "
            "--new-cluster)");
    }
    s->config.formats = (struct format_range){node_format(n), FORMAT_NEWEST};
    if (replica_start(s->replica, &s->config, &hooks, n, s->has_position ? &s->position : NULL) <
        0) {
        return -1;
    }
    n->replica = s->replica;
    checkpoint_driver_init(&n->checkpoints, n->loop, n->engine, n->replica, n->store,
                           o->checkpoint_entries, o->checkpoint_size, o->checkpoint_interval_ms);
    CHECK(uv_check_start(&n->check, check_cb) == 0);
    return 0;
}

int node_start(uv_loop_t *loop, const struct node_options *options, struct node **out)
{
    static const struct submit_queue_callbacks queue_callbacks = {.propose = propose_cb,
                                                                  .now_ms = now_cb,
                                                                  .monotonic_ns = monotonic_cb,
                                                                  .answered = session_answered};
    enum identity_state state;
    struct node *n = calloc(1, sizeof *n);
    CHECK(n != NULL);
    n->loop = loop;
    n->options = options;
    n->started_ms = uv_now(loop);
    histogram_init(&n->apply_ns);
    histogram_init(&n->loop_lag_ns);
    cluster_clock_init(&n->clock);
    arena_init(&n->arena);
    arena_init(&n->read_arena);
    /* On failure the process ends: nothing is torn down. */
    if (identity_claim(options->data_dir, options->id, options->cluster_id, options->new_cluster,
                       &state) < 0) {
        return -1;
    }
    n->engine = engine_create(); /* stands in until the right one is loaded */
    n->disk =
        disk_guard_create(n, options->data_dir, options->low_space, options->log_write_deadline_ms);
    n->queue = submit_queue_create(&queue_callbacks, n);
    if (persist_driver_create(loop, options->postgres_url, options->cluster_id, propose_own_cb, n,
                              &n->persist) < 0) {
        return -1;
    }
    CHECK(uv_timer_init(loop, &n->tick) == 0);
    CHECK(uv_timer_init(loop, &n->pace) == 0);
    chunk_source_create(n);
    CHECK(uv_check_init(loop, &n->check) == 0);
    n->tick_expected_ns = uv_hrtime() + NODE_TICK_MS * 1000000ull;
    CHECK(uv_timer_start(&n->tick, tick_cb, NODE_TICK_MS, NODE_TICK_MS) == 0);
    start_begin(n, state);
    if (sessions_listen(n) < 0) {
        return -1;
    }
    *out = n;
    return 0;
}

/* ---- stop ---- */

static void handle_closed_cb(uv_handle_t *handle)
{
    struct node *n = handle->data;
    if (--n->parts_open > 0) {
        return;
    }
    void (*stopped)(void *) = n->stopped;
    void *ctx = n->stopped_ctx;
    submit_queue_destroy(n->queue);
    engine_destroy(n->engine);
    chunk_source_destroy(n);
    arena_close(&n->arena);
    arena_close(&n->read_arena);
    free(n->out);
    free(n);
    stopped(ctx);
}

static void store_closed_cb(void *ctx)
{
    struct node *n = ctx;
    n->parts_open = 4;
    n->tick.data = n->pace.data = n->check.data = n;
    uv_close((uv_handle_t *)&n->pace, handle_closed_cb);
    uv_close((uv_handle_t *)&n->tick, handle_closed_cb);
    uv_close((uv_handle_t *)&n->check, handle_closed_cb);
    chunk_source_close(n, handle_closed_cb);
}

static void replica_closed_cb(void *ctx)
{
    struct node *n = ctx;
    checkpoint_driver_close(&n->checkpoints);
    checkpoint_close(n->store, store_closed_cb, n);
}

static void persist_closed_cb(void *ctx)
{
    struct node *n = ctx;
    replica_destroy(n->replica, replica_closed_cb, n);
}

static void sessions_closed_cb(void *ctx)
{
    struct node *n = ctx;
    persist_driver_destroy(n->persist, persist_closed_cb, n);
}

static void checkpoints_idle_cb(void *ctx)
{
    struct node *n = ctx;
    sessions_close(n, sessions_closed_cb, n);
}

/* Called by the tick until nothing is in the hands of other threads. */
static void begin_close(struct node *n)
{
    if (!n->closing) {
        n->closing = true;
        warm_up_stop(&n->warm_up);
        submit_queue_fail(n->queue);
        read_requests_end(n);
        snapshots_end(n);
        members_end(n);
        install_cancel(n);
    }
    chunk_source_end(n);
    if (n->disk != NULL && disk_guard_close(n->disk)) {
        n->disk = NULL;
    }
    bool busy = n->disk != NULL || n->installer != NULL || chunk_source_is_busy(n) ||
                n->partial_removing || n->warm_up.running;
    if (!busy && n->listener != NULL && n->parts_open == 0) {
        n->parts_open = 1; /* once */
        log_info("closing");
        checkpoint_driver_pause(&n->checkpoints, checkpoints_idle_cb, n);
    }
}

void node_watch_end(struct node *n, void (*ended)(void *ctx), void *ctx)
{
    n->ended = ended;
    n->ended_ctx = ctx;
}

void node_drain(struct node *n, void (*stopped)(void *ctx), void *ctx)
{
    CHECK(!n->draining);
    if (n->start != NULL) {
        log_info("stopped while starting: nothing was taken yet");
        _exit(0);
    }
    log_info("draining");
    n->draining = true;
    n->drain_begun_ms = uv_now(n->loop);
    n->stopped = stopped;
    n->stopped_ctx = ctx;
}
