/* A checkpoint from a peer: both ends' hooks of the replica.
 *
 * Leader: a ticket pins the newest checkpoint; requests.c serves its chunks.
 *
 * Follower: one installer at a time.
 *
 *     pausing ──► opening ──► pulling ⇄ writing ──► verifying ──► (ending) ──► gone
 *       │ no checkpoint     │ chunk by chunk       │ a new engine is loaded, digest and all, then
 *       │ is under way      │ from the peer        │ the generation is switched: the commit point
 *
 * Files are touched on threads of the pool only, one piece of work at a time. A failure at any
 * point leaves the old engine and the old checkpoint as they were. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "server/node_internal.h"

#define CHUNK_SIZE       (1u << 20)
#define CHUNK_TIMEOUT_MS 15000

enum step { STEP_PAUSE, STEP_OPEN, STEP_PULL, STEP_WRITE, STEP_VERIFY, STEP_CLEAN };

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
    uint8_t *records;
    size_t records_size;
    uint32_t crc;
    uint8_t next[8];
    size_t next_size;
    struct engine *engine; /* the new one */
    struct checkpoint_meta meta;
    uint64_t chunks;
    uv_work_t work;
};

/* ---- leader ---- */

int node_make_ticket(void *ctx, struct replica_ticket *ticket)
{
    struct node *n = ctx;
    struct checkpoint_meta meta;
    _Static_assert(CHECKPOINT_TICKET_SIZE <= REPLICA_TICKET_SIZE_MAX, "a ticket fits");
    if (checkpoint_pin(n->store, uv_now(n->loop), NODE_INSTALL_TIMEOUT_MS, ticket->data, &meta) <
        0) {
        return -1;
    }
    ticket->size = CHECKPOINT_TICKET_SIZE;
    CHECK(position_decode(&ticket->position, meta.position, meta.position_size) == 0);
    return 0;
}

/* ---- follower ---- */

static void run(struct installer *i, enum step step);

/* Everything that was pulled, judged by the engine's own digest, before it replaces anything. */
static int verify(struct installer *i)
{
    struct replica_position position;
    const struct replica_position *promised = &i->ticket.position;
    i->engine = engine_create();
    if (checkpoint_install_verify(i->install, node_load_block, i->engine, &i->meta) < 0) {
        return -1;
    }
    if (position_decode(&position, i->meta.position, i->meta.position_size) < 0 ||
        position.index != promised->index || position.term != promised->term ||
        position.configuration_index != promised->configuration_index) {
        log_warn("install: not the checkpoint that was promised");
        return -1;
    }
    if (engine_load_finish(i->engine, i->meta.index, i->meta.digest) < 0) {
        log_warn("install: the state does not match its digest");
        return -1;
    }
    if (checkpoint_install_commit(i->install) < 0) {
        return -1;
    }
    i->install = NULL;
    return 0;
}

static void work_cb(uv_work_t *work)
{
    struct installer *i = container_of(work, struct installer, work);
    switch (i->step) {
    case STEP_OPEN:
        i->result = checkpoint_install_begin(i->node->store, &i->install);
        return;
    case STEP_WRITE:
        i->result = checkpoint_install_put(i->install, i->records, i->records_size, i->crc);
        return;
    case STEP_VERIFY:
        i->result = verify(i);
        return;
    case STEP_CLEAN:
        if (i->install != NULL) {
            checkpoint_install_abort(i->install);
            i->install = NULL;
        }
        if (i->engine != NULL) {
            engine_destroy(
                i->engine); /* the new one that failed, or the old one that was replaced */
        }
        return;
    case STEP_PAUSE:
    case STEP_PULL:
        break;
    }
    CHECK_UNREACHABLE();
}

/* Last of all the replica goes on: it may begin another install within the call. */
static void gone_cb(void *ctx)
{
    struct installer *i = ctx;
    struct node *n = i->node;
    struct replica_position position = i->ticket.position;
    bool ok = i->ok;
    n->installer = NULL;
    free(i->records);
    free(i);
    replica_install_done(n->replica, &position, ok);
}

/* The end of it, good or bad: checkpoints and reads go on, then the rest is cleaned up. */
static void end(struct installer *i, bool ok)
{
    struct node *n = i->node;
    struct replica_position position = i->ticket.position;
    i->ok = ok;
    if (ok) {
        struct engine *old = n->engine;
        log_info("install: loaded index=%llu blocks=%llu", (unsigned long long)position.index,
                 (unsigned long long)i->meta.blocks_count);
        checkpoint_driver_resume(&n->checkpoints, i->engine, &position);
        node_engine_replaced(n, i->engine);
        n->applied_index = position.index;
        n->installs_total++;
        i->engine = old;
    } else {
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
        response->body_case != HOLDFAST__RESPONSE__BODY_SNAPSHOT_CHUNK ||
        response->snapshot_chunk->next.len > sizeof i->next) {
        log_warn("install: pulling failed outcome=%s message=\"%s\"", client_outcome_name(outcome),
                 response != NULL ? response->message : "");
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
    i->next_size = chunk->next.len;
    if (i->next_size > 0) {
        memcpy(i->next, chunk->next.data, i->next_size);
    }
    i->chunks++;
    run(i, STEP_WRITE);
}

static void pull(struct installer *i)
{
    struct node *n = i->node;
    Holdfast__SnapshotChunk body = HOLDFAST__SNAPSHOT_CHUNK__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    body.ticket.data = i->ticket.data;
    body.ticket.len = i->ticket.size;
    body.from.data = i->next;
    body.from.len = i->next_size;
    body.size_max = CHUNK_SIZE;
    request.body_case = HOLDFAST__REQUEST__BODY_SNAPSHOT_CHUNK;
    request.snapshot_chunk = &body;
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

static void done_cb(uv_work_t *work, int status)
{
    struct installer *i = container_of(work, struct installer, work);
    CHECK(status == 0);
    if (i->step == STEP_CLEAN) {
        if (i->client != NULL) {
            client_destroy(i->client, gone_cb, i);
        } else {
            gone_cb(i);
        }
        return;
    }
    if (i->step == STEP_VERIFY) {
        end(i, i->result == 0); /* committed is committed, cancelled or not */
        return;
    }
    if (i->result < 0 || i->cancelled) {
        end(i, false);
        return;
    }
    if (i->step == STEP_OPEN) {
        if (connect_peer(i)) {
            run(i, STEP_PULL);
        } else {
            end(i, false);
        }
        return;
    }
    run(i, i->next_size > 0 ? STEP_PULL : STEP_VERIFY);
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
    run(i, STEP_OPEN);
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
    }
}
