/* A checkpoint from a peer: both ends' hooks of the replica.
 *
 * Leader: a ticket pins the newest checkpoint, or renews the one that the peer has begun; chunk_source.c
 * serves its chunks.
 *
 * Follower: one installer at a time.
 *
 *     pause ─▶ open ─▶ pull ⇄ write ─▶ verify ─▶ load ─▶ (end) ─▶ clean ─▶ gone
 *       │        │       ▲      │        │          │
 *       │        │       └ rest ┘        │          └ the old engine is freed, the new one loaded
 *       │        │                       └ every block as it stands on disk, digest and all; then the
 *       │        │                         generation is switched: the commit point
 *       │        └ a part of the very same checkpoint is taken up
 *       └ no checkpoint is under way
 *
 * Files are touched on threads of the pool only, one piece of work at a time. After each piece that was
 * synced the installer rests as long as that took: a disk that others share is theirs half of the time.
 *
 * A failure before the commit point leaves the old engine and the old checkpoint as they were, and what
 * came on the disk: the leader offers again, and the pull goes on there (storage/checkpoint_install.c).
 * When the source is gone the pull ends at once, so that this node takes part in the election. Between
 * commit point and end there is no state in memory: reads are refused (node.engine_absent), and what
 * goes wrong ends the process; the next start loads the new checkpoint. So one state fits in memory, not
 * two. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "server/node_internal.h"

#define CHUNK_SIZE         (1u << 20) /* asked for; the source gives what it likes */
#define CHUNK_TIMEOUT_MS   15000
#define CHUNK_DAMAGED_MAX  3 /* one after the other; then the link is not worth going on with */
#define REST_MAX_MS        250
#define POLL_MS            10
#define SOURCE_CHECK_MS    100
#define PROGRESS_LOG_MS    5000
#define PARTIAL_CHECK_MS   10000
#define BYTES_PER_MB       1000000.0

enum step {
    STEP_PAUSE,
    STEP_OPEN,
    STEP_PULL,
    STEP_WRITE,
    STEP_REST,
    STEP_VERIFY,
    STEP_YIELD,
    STEP_LOAD,
    STEP_CLEAN
};

struct installer {
    struct node *node;
    struct replica_ticket ticket;
    uint64_t from_id;
    enum step step;
    bool cancelled, ok;
    int result; /* of the work */
    struct client *client;
    struct client_call call;
    bool calling;
    struct checkpoint_install *install;
    struct checkpoint_install_progress progress; /* as of the last work */
    uint8_t *records;
    size_t records_size;
    uint32_t crc;
    bool last;          /* of the chunks */
    unsigned damaged;   /* chunks, one after the other */
    uint64_t synced_ns; /* what the last piece took; 0: the last write synced nothing */
    uint64_t digest;    /* summed over the blocks */
    struct engine *engine; /* the new one; the old one while it is freed */
    struct checkpoint_meta meta;
    /* The loop's own copy of progress, for status and log. */
    uint64_t blocks, blocks_total, bytes;
    uint64_t begun_ms, begun_bytes, logged_ms, logged_bytes, checked_ms;
    uv_timer_t timer;
    uv_work_t work;
};

/* ---- leader ---- */

int node_make_ticket(void *ctx, struct replica_ticket *ticket)
{
    struct node *n = ctx;
    struct checkpoint_meta meta;
    uint64_t now_ms = uv_now(n->loop);
    _Static_assert(CHECKPOINT_TICKET_SIZE <= REPLICA_TICKET_SIZE_MAX, "a ticket fits");
    if (ticket->size > 0 && checkpoint_renew(n->store, ticket->data, ticket->size, now_ms,
                                             NODE_INSTALL_TIMEOUT_MS) == 0) {
        return 0; /* what the peer has begun */
    }
    if (FAILPOINT_ERROR("install/before-ticket", "a peer is to be offered the newest checkpoint") < 0 ||
        checkpoint_pin(n->store, now_ms, NODE_INSTALL_TIMEOUT_MS, ticket->data, &meta) < 0) {
        return -1;
    }
    ticket->size = CHECKPOINT_TICKET_SIZE;
    CHECK(position_decode(&ticket->position, meta.position, meta.position_size) == 0);
    return 0;
}

/* ---- follower: on a thread of the pool ---- */

static void run(struct installer *i, enum step step);

static bool is_promised(const struct installer *i, const struct checkpoint_meta *meta)
{
    struct replica_position position;
    const struct replica_position *promised = &i->ticket.position;
    return position_decode(&position, meta->position, meta->position_size) == 0 &&
           position.index == promised->index && position.term == promised->term &&
           position.configuration_index == promised->configuration_index;
}

static int open_part(struct installer *i)
{
    struct checkpoint *store = i->node->store;
    struct checkpoint_identity of;
    bool known = checkpoint_ticket_identity(i->ticket.data, i->ticket.size, &of);
    if (checkpoint_install_begin(store, known ? &of : NULL, &i->install) < 0) {
        return -1;
    }
    checkpoint_install_get_progress(i->install, &i->progress);
    if (i->progress.resumed && !is_promised(i, &i->progress.meta)) {
        /* The same state at another place in the log: its meta is not the one that was promised. */
        checkpoint_install_abort(i->install);
        i->install = NULL;
        return checkpoint_install_begin(store, NULL, &i->install);
    }
    return 0;
}

static int put(struct installer *i)
{
    uint64_t begun_ns = clock_monotonic_ns();
    int rv = checkpoint_install_put(i->install, i->records, i->records_size, i->crc);
    checkpoint_install_get_progress(i->install, &i->progress);
    i->synced_ns = rv == 0 && !i->progress.unsynced ? clock_monotonic_ns() - begun_ns : 0;
    return rv;
}

static int judge_cb(void *ctx, const struct engine_block *block)
{
    struct installer *i = ctx;
    int rv = 0;
    i->digest += engine_block_digest(block);
    if (engine_block_format(block) != 0) { /* the root: format and limits must be such as can be loaded */
        struct engine *scratch = engine_create();
        rv = node_load_block(scratch, block);
        engine_destroy(scratch);
    }
    return rv;
}

/* Everything that was pulled, judged by the engine's own digest, before it replaces anything. */
static int verify(struct installer *i)
{
    i->digest = 0;
    if (checkpoint_install_verify(i->install, judge_cb, i, &i->meta) < 0) {
        return -1;
    }
    if (!is_promised(i, &i->meta)) {
        log_warn("install: not the checkpoint that was promised");
        return -1;
    }
    if (i->digest != i->meta.digest) {
        log_warn("install: the state does not match its digest");
        return -1;
    }
    if (checkpoint_install_commit(i->install) < 0) {
        return -1;
    }
    i->install = NULL;
    return 0;
}

static void load(struct installer *i)
{
    engine_destroy(i->engine);
    i->engine = engine_create();
    if (checkpoint_load_engine(i->node->store, i->engine, node_load_block, NULL, NULL) < 0) {
        log_error("install: the checkpoint was verified and switched to, but does not load: stopping; "
                  "the next start tries again, or says what to do");
        abort();
    }
}

static void work_cb(uv_work_t *work)
{
    struct installer *i = container_of(work, struct installer, work);
    switch (i->step) {
    case STEP_OPEN:
        i->result = FAILPOINT_ERROR("install/before-open", "offered, nothing is on the disk") < 0
                        ? -1
                        : open_part(i);
        return;
    case STEP_WRITE:
        i->result = FAILPOINT_ERROR("install/before-put", "a chunk came, it is not judged") < 0 ? -1
                                                                                               : put(i);
        return;
    case STEP_VERIFY:
        i->result = FAILPOINT_ERROR("install/before-verify", "all chunks came") < 0 ? -1 : verify(i);
        return;
    case STEP_LOAD:
        FAILPOINT("install/before-load", "the checkpoint that came counts, memory is empty");
        load(i);
        return;
    case STEP_CLEAN:
        FAILPOINT("install/before-clean", "an install is over, good or bad");
        if (i->install != NULL && i->result < 0) {
            checkpoint_install_abort(i->install);
        } else if (i->install != NULL) {
            checkpoint_install_suspend(i->install);
        }
        i->install = NULL;
        engine_destroy(i->engine); /* the empty one that stood in */
        return;
    case STEP_PAUSE:
    case STEP_PULL:
    case STEP_REST:
    case STEP_YIELD:
        break;
    }
    CHECK_UNREACHABLE();
}

/* ---- follower: on the loop ---- */

static double rate(uint64_t bytes, uint64_t ms)
{
    return (double)bytes / BYTES_PER_MB / ((double)(ms > 0 ? ms : 1) / 1e3);
}

static void log_progress(struct installer *i, const char *what)
{
    uint64_t now_ms = uv_now(i->node->loop);
    log_info("install: %s index=%" PRIu64 " blocks=%" PRIu64 "/%" PRIu64 " mb=%.1f mb_per_s=%.1f",
             what, i->ticket.position.index, i->blocks, i->blocks_total,
             (double)i->bytes / BYTES_PER_MB,
             rate(i->bytes - i->logged_bytes, now_ms - i->logged_ms));
    i->logged_ms = now_ms;
    i->logged_bytes = i->bytes;
}

/* Last of all the replica goes on: it may begin another install within the call. */
static void gone_cb(uv_handle_t *handle)
{
    struct installer *i = container_of((uv_timer_t *)handle, struct installer, timer);
    struct node *n = i->node;
    struct replica_position position = i->ticket.position;
    bool ok = i->ok;
    n->installer = NULL;
    free(i->records);
    free(i);
    replica_install_done(n->replica, &position, ok);
}

static void client_gone_cb(void *ctx)
{
    struct installer *i = ctx;
    uv_close((uv_handle_t *)&i->timer, gone_cb);
}

/* The end of it, good or bad: checkpoints and reads go on, then the rest is cleaned up. result < 0: what
 * came is of no use. */
static void end(struct installer *i, bool ok)
{
    struct node *n = i->node;
    struct replica_position position = i->ticket.position;
    i->ok = ok;
    i->logged_bytes = i->begun_bytes;
    i->logged_ms = i->begun_ms;
    if (ok) {
        struct engine *stood_in = n->engine;
        log_progress(i, "loaded");
        checkpoint_driver_resume(&n->checkpoints, i->engine, &position);
        node_engine_replaced(n, i->engine);
        n->engine_absent = false;
        n->applied_index = position.index;
        n->installs.done_total++;
        i->engine = stood_in;
    } else {
        log_progress(i, i->result < 0 ? "given up" : "suspended");
        n->installs.failed_total++;
        checkpoint_driver_resume(&n->checkpoints, n->engine, NULL);
    }
    run(i, STEP_CLEAN);
}

static void call_cb(struct client_call *req, enum client_outcome outcome,
                    const Holdfast__Response *response)
{
    struct installer *i = container_of(req, struct installer, call);
    i->calling = false;
    if (i->cancelled || outcome != CLIENT_OK || response->status != HOLDFAST__STATUS__STATUS_OK ||
        response->body_case != HOLDFAST__RESPONSE__BODY_SNAPSHOT_CHUNK) {
        log_warn("install: pulling failed outcome=%s message=\"%s\"", client_outcome_name(outcome),
                 outcome == CLIENT_OK ? response->message : "");
        end(i, false);
        return;
    }
    const Holdfast__SnapshotChunkResult *chunk = response->snapshot_chunk;
    free(i->records);
    i->records_size = chunk->records.len;
    i->records = malloc(i->records_size + 1);
    CHECK(i->records != NULL);
    if (i->records_size > 0) {
        memcpy(i->records, chunk->records.data, i->records_size);
    }
    i->crc = chunk->crc32c;
    i->last = chunk->next.len == 0;
    i->node->installs.bytes_total += i->records_size;
    run(i, STEP_WRITE);
}

static void pull(struct installer *i)
{
    struct node *n = i->node;
    Holdfast__SnapshotChunk body = HOLDFAST__SNAPSHOT_CHUNK__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    body.ticket.data = i->ticket.data;
    body.ticket.len = i->ticket.size;
    body.from.data = i->progress.next;
    body.from.len = i->progress.next_size;
    body.size_max = CHUNK_SIZE;
    request.body_case = HOLDFAST__REQUEST__BODY_SNAPSHOT_CHUNK;
    request.snapshot_chunk = &body;
    FAILPOINT("install/before-pull", "a chunk is to be asked for");
    i->calling = true;
    uv_update_time(n->loop);
    CHECK(client_call(i->client, &i->call, &request, i->from_id, uv_now(n->loop) + CHUNK_TIMEOUT_MS,
                      call_cb) == CLIENT_OK);
}

static bool connect_peer(struct installer *i)
{
    struct node *n = i->node;
    char address[REPLICA_ENDPOINT_SIZE];
    if (!node_ticket_address(n, &i->ticket, i->from_id, address)) {
        log_error("install: no --member with the node address of node %llu; add it and restart",
                  (unsigned long long)i->from_id);
        return false;
    }
    const char *endpoint = address;
    struct client_config config = {.loop = n->loop,
                                   .endpoints = &endpoint,
                                   .endpoints_count = 1,
                                   .node_id = n->options->id,
                                   .fixed_endpoints = true};
    memcpy(config.key, n->options->key, sizeof config.key);
    memcpy(config.cluster_id, n->options->cluster_id, sizeof config.cluster_id);
    return client_create(&config, &i->client) == 0;
}

static void opened(struct installer *i)
{
    i->begun_bytes = i->logged_bytes = i->progress.bytes;
    i->begun_ms = i->logged_ms = uv_now(i->node->loop);
    if (i->progress.resumed) {
        i->node->installs.resumed_total++;
        log_progress(i, "goes on where it stopped");
    }
    if (connect_peer(i)) {
        run(i, STEP_PULL);
    } else {
        end(i, false);
    }
}

static void timer_cb(uv_timer_t *timer);

static void rest(struct installer *i, enum step step, uint64_t ms)
{
    i->step = step;
    CHECK(uv_timer_start(&i->timer, timer_cb, ms, 0) == 0);
}

/* No state from here to the end: the old one makes room for the new. */
static void give_up_engine(struct installer *i)
{
    struct node *n = i->node;
    log_debug("install: switched");
    warm_up_stop(&n->warm_up); /* it touches the old one's memory */
    i->engine = n->engine;
    n->engine = engine_create();
    n->engine_absent = true;
    rest(i, STEP_YIELD, 0);
}

static void written(struct installer *i)
{
    struct node *n = i->node;
    if (i->result > 0) {
        i->damaged++;
        if (i->damaged < CHUNK_DAMAGED_MAX) {
            run(i, STEP_PULL);
        } else {
            end(i, false);
        }
        return;
    }
    i->damaged = 0;
    if (uv_now(n->loop) - i->logged_ms >= PROGRESS_LOG_MS) {
        log_progress(i, "pulling");
    }
    log_debug("install: chunk blocks=%" PRIu64 "/%" PRIu64 " durable=%d", i->blocks, i->blocks_total,
              !i->progress.unsynced);
    uint64_t rest_ms = i->synced_ns / 1000000;
    if (rest_ms > 0 && !i->last) {
        rest(i, STEP_REST, rest_ms < REST_MAX_MS ? rest_ms : REST_MAX_MS);
    } else if (i->last) {
        log_debug("install: verifying");
        run(i, STEP_VERIFY);
    } else {
        run(i, STEP_PULL);
    }
}

static void timer_cb(uv_timer_t *timer)
{
    struct installer *i = container_of(timer, struct installer, timer);
    struct node *n = i->node;
    bool waits = i->step == STEP_PAUSE ? n->partial_removing
                                       : i->step == STEP_YIELD && n->warm_up.running;
    if (waits) {
        rest(i, i->step, POLL_MS);
        return;
    }
    CHECK(i->step == STEP_PAUSE || i->step == STEP_REST || i->step == STEP_YIELD);
    if (i->step == STEP_PAUSE && i->cancelled) {
        end(i, false);
        return;
    }
    run(i, i->step == STEP_PAUSE  ? STEP_OPEN
           : i->step == STEP_REST ? STEP_PULL
                                  : STEP_LOAD);
}

static void done_cb(uv_work_t *work, int status)
{
    struct installer *i = container_of(work, struct installer, work);
    CHECK(status == 0);
    if (i->step == STEP_CLEAN) {
        if (i->client != NULL) {
            client_destroy(i->client, client_gone_cb, i);
        } else {
            client_gone_cb(i);
        }
        return;
    }
    if (i->step == STEP_LOAD) {
        end(i, true);
        return;
    }
    i->blocks = i->progress.blocks;
    i->blocks_total = i->progress.has_meta ? i->progress.meta.blocks_count : 0;
    i->bytes = i->progress.bytes;
    if (i->step == STEP_VERIFY && i->result == 0) {
        give_up_engine(i); /* committed is committed, cancelled or not */
    } else if (i->result < 0 || i->cancelled) {
        end(i, false);
    } else if (i->step == STEP_OPEN) {
        opened(i);
    } else {
        written(i);
    }
}

static void run(struct installer *i, enum step step)
{
    i->step = step;
    if (step == STEP_PULL) {
        pull(i);
    } else {
        CHECK(uv_queue_work(i->node->loop, &i->work, work_cb, done_cb) == 0);
    }
}

static void paused_cb(void *ctx)
{
    struct installer *i = ctx;
    rest(i, STEP_PAUSE, 0);
}

void node_install(void *ctx, const struct replica_ticket *ticket, uint64_t from_id)
{
    struct node *n = ctx;
    CHECK(n->installer == NULL);
    struct installer *i = calloc(1, sizeof *i);
    CHECK(i != NULL);
    i->node = n;
    i->ticket = *ticket;
    i->from_id = from_id;
    i->begun_ms = i->logged_ms = i->checked_ms = uv_now(n->loop);
    CHECK(uv_timer_init(n->loop, &i->timer) == 0);
    n->installer = i;
    checkpoint_driver_pause(&n->checkpoints, paused_cb, i);
}

void install_cancel(struct node *n)
{
    struct installer *i = n->installer;
    if (i == NULL || i->cancelled) {
        return;
    }
    i->cancelled = true;
    if (i->calling) { /* else the work that is under way ends it */
        i->calling = false;
        client_call_cancel(i->client, &i->call);
        end(i, false);
    } else if (i->step == STEP_REST) {
        uv_timer_stop(&i->timer);
        end(i, false);
    }
}

/* ---- now and then ---- */

static bool source_is_there(const struct node *n, uint64_t id)
{
    struct replica_info info;
    replica_get_info(n->replica, &info);
    for (size_t k = 0; k < info.peers_count; k++) {
        if (info.peers[k].member.id == id) {
            return info.peers[k].connected;
        }
    }
    return true; /* no longer a member: it may serve all the same */
}

static void remove_work(uv_work_t *work)
{
    struct node *n = container_of(work, struct node, partial_work);
    checkpoint_remove_partial(n->store);
}

static void remove_done(uv_work_t *work, int status)
{
    struct node *n = container_of(work, struct node, partial_work);
    (void)status;
    n->partial_removing = false;
}

/* Caught up otherwise, by the log: what was pulled is space for nothing. */
static void remove_stale_partial(struct node *n)
{
    struct checkpoint_identity of;
    if (!n->partial_removing && checkpoint_get_partial(n->store, &of) &&
        of.index <= engine_index(n->engine)) {
        log_info("install: the part is no longer needed, removed index=%" PRIu64, of.index);
        n->partial_removing = true;
        CHECK(uv_queue_work(n->loop, &n->partial_work, remove_work, remove_done) == 0);
    }
}

void install_tick(struct node *n, uint64_t now_ms)
{
    struct installer *i = n->installer;
    if (i == NULL) {
        if (now_ms - n->partial_checked_ms >= PARTIAL_CHECK_MS) {
            n->partial_checked_ms = now_ms;
            remove_stale_partial(n);
        }
    } else if (now_ms - i->checked_ms >= SOURCE_CHECK_MS) {
        i->checked_ms = now_ms;
        bool pulls = i->step == STEP_PULL || i->step == STEP_WRITE || i->step == STEP_REST;
        if (pulls && !i->cancelled && !source_is_there(n, i->from_id)) {
            log_info("install: node %llu is gone", (unsigned long long)i->from_id);
            install_cancel(n);
        }
    }
}

void install_get_progress(const struct node *n, struct install_progress *p)
{
    const struct installer *i = n->installer;
    *p = (struct install_progress){.active = i != NULL};
    if (i != NULL) {
        p->blocks = i->blocks;
        p->blocks_total = i->blocks_total;
        p->bytes_per_second =
            rate(i->bytes - i->begun_bytes, uv_now(n->loop) - i->begun_ms) * BYTES_PER_MB;
    }
}
