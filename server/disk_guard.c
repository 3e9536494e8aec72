#include "server/disk_guard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/check.h"
#include "base/log.h"
#include "server/node_internal.h"

/* One question to one member. */
struct question {
    struct disk_guard *guard;
    struct client_call call;
    bool busy;
    uint64_t id, free_bytes; /* free_bytes 0: it cannot take over */
};

struct disk_guard {
    struct node *node;
    char *directory;
    uint64_t limit;
    bool known, low;
    uint64_t free_bytes, size_bytes;
    uint64_t refused_total, refused_told, hand_overs_total;
    /* measuring */
    uv_work_t work;
    bool measuring, told_late;
    uint64_t begun_ms;
    struct statvfs measured;
    int error, told_error;
    /* the log's disk */
    uint64_t slow_ms, slow_total, slow_hand_overs_total;
    bool slow;
    /* asking the others: only while this node leads and is short of space */
    struct client *client;
    bool client_closing;
    uint64_t asked_ms;
    struct question questions[CLIENT_NODES_MAX];
};

/* ---- decisions ---- */

bool disk_guard_judge(bool was_low, uint64_t free_bytes, uint64_t limit)
{
    uint64_t until = was_low ? limit + limit / DISK_GUARD_HEADROOM : limit;
    return free_bytes < until;
}

bool disk_guard_takes(enum command_kind kind)
{
    switch (kind) {
    case COMMAND_SKU_PUT:
    case COMMAND_STOCK_ADJUST:
    case COMMAND_SALE_PUT:
    case COMMAND_ELIGIBILITY_GRANT:
    case COMMAND_ORDER_PLACE:
    case COMMAND_LEASE_ACQUIRE:
    case COMMAND_DENY_PUT:
        return false;
    case COMMAND_INIT: /* the node's own, and once */
    case COMMAND_SALE_PAUSE:
    case COMMAND_SALE_RESUME:
    case COMMAND_SALE_CLOSE:
    case COMMAND_ELIGIBILITY_REVOKE:
    case COMMAND_ORDER_CANCEL:
    case COMMAND_PAYMENT_APPLY:
    case COMMAND_ORDER_REFUND:
    case COMMAND_LEASE_RENEW: /* whoever holds one must not lose it for our want of space */
    case COMMAND_LEASE_RELEASE:
    case COMMAND_DENY_REMOVE:
    case COMMAND_PERSIST_ACK:
    case COMMAND_DIGEST_MARK:
        return true;
    default: /* of a later version: the node's own commands do not come this way */
        return true;
    }
}

bool disk_guard_admits(struct disk_guard *g, const struct command *c)
{
    struct reply stored;
    if (!g->low || disk_guard_takes(c->kind)) {
        return true;
    }
    /* An order that is there already: its answer costs nothing, and "nothing happened" is wrong. */
    if (c->kind == COMMAND_ORDER_PLACE && c->key.len > 0 &&
        engine_get_placed(g->node->engine, c->scope, c->key, &stored)) {
        return true;
    }
    g->refused_total++;
    return false;
}

uint64_t disk_guard_slow_ms(uint64_t deadline_ms)
{
    uint64_t slow_ms = deadline_ms / DISK_GUARD_SLOW_DIVISOR;
    return slow_ms < DISK_GUARD_SLOW_MAX_MS ? slow_ms : DISK_GUARD_SLOW_MAX_MS;
}

/* ---- a disk that does not answer ---- */

/* Nothing of what handing over needs waits for our disk: the others have the entries, the request to
 * stand for election leaves at once, and our own vote for the successor is not needed. */
static void leave_slow_disk(struct disk_guard *g, uint64_t now_ms)
{
    struct node *n = g->node;
    uint64_t age_ms = replica_log_age_ms(n->replica);
    bool leads = n->role == REPLICA_LEADER;
    if (age_ms < g->slow_ms) {
        if (g->slow) {
            log_info("the log's disk answers again");
            g->slow = false;
            node_note_willing(n);
        }
        return;
    }
    if (!g->slow) {
        g->slow = true;
        g->slow_total++;
        node_note_willing(n);
        log_warn("the log's disk has not answered for %llu ms%s", (unsigned long long)age_ms,
                 leads ? ": handing leadership over" : "");
    }
    if (leads && now_ms - n->transfer_ms >= DISK_GUARD_SLOW_RETRY_MS &&
        node_hand_over(n, 0) == REPLICA_OK) {
        g->slow_hand_overs_total++;
    }
}

bool disk_guard_silent(const struct disk_guard *g)
{
    return g->slow;
}

/* ---- measuring ---- */

static void take_measurement(struct disk_guard *g)
{
    if (g->error != 0) {
        if (g->error != g->told_error) {
            log_warn("%s: free space cannot be measured: %s", g->directory, strerror(g->error));
        }
        g->told_error = g->error;
        return;
    }
    g->told_error = 0;
    g->free_bytes = (uint64_t)g->measured.f_bavail * g->measured.f_frsize;
    g->size_bytes = (uint64_t)g->measured.f_blocks * g->measured.f_frsize;
    g->known = true;
    bool low = disk_guard_judge(g->low, g->free_bytes, g->limit);
    if (low && !g->low) {
        log_warn("%s: %llu MiB free, less than --low-space %llu MiB: while this node leads, new "
                 "orders are refused (docs/operations/disk-full.md)",
                 g->directory, (unsigned long long)(g->free_bytes >> 20),
                 (unsigned long long)(g->limit >> 20));
    } else if (!low && g->low) {
        log_info("%s: %llu MiB free: enough again; refused meanwhile: %llu", g->directory,
                 (unsigned long long)(g->free_bytes >> 20),
                 (unsigned long long)(g->refused_total - g->refused_told));
        g->refused_told = g->refused_total;
    }
    g->low = low;
}

static void measure_work(uv_work_t *work)
{
    struct disk_guard *g = container_of(work, struct disk_guard, work);
    g->error = statvfs(g->directory, &g->measured) != 0 ? errno : 0;
}

static void measure_done(uv_work_t *work, int status)
{
    struct disk_guard *g = container_of(work, struct disk_guard, work);
    CHECK(status == 0);
    g->measuring = false;
    g->told_late = false;
    take_measurement(g);
}

static void measure(struct disk_guard *g, uint64_t now_ms)
{
    if (g->measuring) {
        if (!g->told_late && now_ms - g->begun_ms >= DISK_GUARD_LATE_MS) {
            g->told_late = true;
            log_warn("%s: the file system has not said for %d s how much space is free: is the disk "
                     "stuck?",
                     g->directory, DISK_GUARD_LATE_MS / 1000);
        }
        return;
    }
    if (now_ms - g->begun_ms >= DISK_GUARD_INTERVAL_MS) {
        g->begun_ms = now_ms;
        g->measuring = true;
        CHECK(uv_queue_work(g->node->loop, &g->work, measure_work, measure_done) == 0);
    }
}

/* ---- a member with more room ---- */

static bool any_question(const struct disk_guard *g)
{
    for (size_t i = 0; i < ARRAY_COUNT(g->questions); i++) {
        if (g->questions[i].busy) {
            return true;
        }
    }
    return false;
}

static void answered_cb(struct client_call *call, enum client_outcome outcome,
                        const Holdfast__Response *response)
{
    struct question *q = container_of(call, struct question, call);
    q->busy = false;
    if (outcome != CLIENT_OK || response->status != HOLDFAST__STATUS__STATUS_OK ||
        response->body_case != HOLDFAST__RESPONSE__BODY_NODE_STATUS) {
        return;
    }
    const Holdfast__NodeStatusResult *m = response->node_status;
    /* It must not be about to refuse, too, by the measure that would end our own state. */
    bool room = !m->disk_low && m->disk_free_bytes > 0 &&
                !disk_guard_judge(true, m->disk_free_bytes, q->guard->limit);
    if (m->ready && !m->draining && room) {
        q->free_bytes = m->disk_free_bytes;
    }
}

static void client_closed(void *ctx)
{
    struct disk_guard *g = ctx;
    g->client = NULL;
    g->client_closing = false;
}

static void client_stop(struct disk_guard *g)
{
    if (g->client != NULL && !g->client_closing) {
        g->client_closing = true;
        client_destroy(g->client, client_closed, g);
    }
}

/* The other voters, as this node knows them. */
static void client_start(struct disk_guard *g)
{
    struct node *n = g->node;
    const char *endpoints[REPLICA_MEMBERS_MAX];
    struct client_config config = {
        .loop = n->loop, .endpoints = endpoints, .node_id = n->options->id};
    char addresses[REPLICA_MEMBERS_MAX][REPLICA_ENDPOINT_SIZE];
    struct replica_info info;
    replica_get_info(n->replica, &info);
    for (size_t i = 0; i < info.peers_count; i++) {
        uint64_t id = info.peers[i].member.id;
        if (id != n->options->id && node_member_address(n, id, addresses[i])) {
            endpoints[config.endpoints_count++] = addresses[i];
        }
    }
    memcpy(config.key, n->options->key, sizeof config.key);
    memcpy(config.cluster_id, n->options->cluster_id, sizeof config.cluster_id);
    if (config.endpoints_count > 0 && client_create(&config, &g->client) != 0) {
        g->client = NULL;
    }
}

static void ask(struct disk_guard *g, uint64_t now_ms)
{
    struct client_info info;
    Holdfast__NodeStatus body = HOLDFAST__NODE_STATUS__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    request.body_case = HOLDFAST__REQUEST__BODY_NODE_STATUS;
    request.node_status = &body;
    g->asked_ms = now_ms;
    client_get_info(g->client, &info);
    for (size_t i = 0; i < info.nodes_count && i < ARRAY_COUNT(g->questions); i++) {
        struct question *q = &g->questions[i];
        *q = (struct question){.guard = g, .id = info.nodes[i].id};
        if (info.nodes[i].connected && q->id != 0 && q->id != g->node->options->id) {
            q->busy = client_call(g->client, &q->call, &request, q->id,
                                  now_ms + DISK_GUARD_PATIENCE_MS, answered_cb) == CLIENT_OK;
        }
    }
}

/* Everybody has answered: the one with the most room. */
static void hand_over(struct disk_guard *g)
{
    struct question *best = NULL;
    for (size_t i = 0; i < ARRAY_COUNT(g->questions); i++) {
        struct question *q = &g->questions[i];
        if (q->free_bytes > 0 && (best == NULL || q->free_bytes > best->free_bytes)) {
            best = q;
        }
    }
    if (best == NULL) {
        return;
    }
    if (node_hand_over(g->node, best->id) == REPLICA_OK) {
        g->hand_overs_total++;
        log_info("space is low here, not on node %llu: handing leadership over",
                 (unsigned long long)best->id);
    }
    memset(g->questions, 0, sizeof g->questions);
}

static void seek_successor(struct disk_guard *g, uint64_t now_ms)
{
    struct node *n = g->node;
    bool seeks = g->low && n->role == REPLICA_LEADER && n->ready && !n->draining;
    if (!seeks) {
        client_stop(g);
    } else if (g->client == NULL) {
        client_start(g);
    } else if (!g->client_closing && !any_question(g)) {
        hand_over(g);
        if (now_ms - g->asked_ms >= DISK_GUARD_ASK_MS) {
            ask(g, now_ms);
        }
    }
}

/* ---- life ---- */

struct disk_guard *disk_guard_create(struct node *n, const char *directory, uint64_t limit,
                                     uint64_t deadline_ms)
{
    struct disk_guard *g = calloc(1, sizeof *g);
    CHECK(g != NULL);
    g->node = n;
    g->limit = limit;
    g->slow_ms = disk_guard_slow_ms(deadline_ms);
    g->directory = strdup(directory);
    CHECK(g->directory != NULL);
    g->begun_ms = uv_now(n->loop);
    measure_work(&g->work);
    take_measurement(g);
    return g;
}

void disk_guard_tick(struct disk_guard *g, uint64_t now_ms)
{
    leave_slow_disk(g, now_ms);
    measure(g, now_ms);
    seek_successor(g, now_ms);
}

bool disk_guard_close(struct disk_guard *g)
{
    client_stop(g);
    if (g->measuring || g->client != NULL) {
        return false;
    }
    free(g->directory);
    free(g);
    return true;
}

void disk_guard_get_info(const struct disk_guard *g, struct disk_guard_info *info)
{
    *info = (struct disk_guard_info){.known = g->known,
                                     .low = g->low,
                                     .free_bytes = g->free_bytes,
                                     .size_bytes = g->size_bytes,
                                     .limit = g->limit,
                                     .refused_total = g->refused_total,
                                     .hand_overs_total = g->hand_overs_total,
                                     .slow_total = g->slow_total,
                                     .slow_hand_overs_total = g->slow_hand_overs_total};
}
