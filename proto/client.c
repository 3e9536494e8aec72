/* Nodes, links, and who leads.
 *
 * A node's link is IDLE (link NULL) → connecting (link, not open) → open → IDLE. The tick
 * reconnects and polls; every answer to a poll says who leads in which term, and the highest term
 * is believed. */
#include "proto/client.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "proto/client_internal.h"
#include "proto/submit_frame.h"

const char *client_outcome_name(enum client_outcome o)
{
    switch (o) {
    case CLIENT_OK:
        return "ok";
    case CLIENT_QUEUE_FULL:
        return "queue_full";
    case CLIENT_NO_LEADER:
        return "no_leader";
    case CLIENT_UNKNOWN:
        return "unknown";
    case CLIENT_LOW_SPACE:
        return "low_space";
    case CLIENT_MALFORMED:
        return "malformed";
    case CLIENT_CLOSED:
        return "closed";
    }
    CHECK_UNREACHABLE();
}

uint64_t client_next_id(struct client *c, unsigned kind)
{
    return ++c->sequence << 2 | kind;
}

struct client_node *client_find_node(struct client *c, uint64_t id)
{
    struct client_node *found = NULL;
    for (size_t i = 0; id != 0 && i < c->nodes_count; i++) {
        if (c->nodes[i].id == id && (found == NULL || c->nodes[i].open)) {
            found = &c->nodes[i];
        }
    }
    return found;
}

/* ---- who leads ---- */

void client_set_leader(struct client *c, struct client_node *node)
{
    CHECK(node->open);
    c->leader = node;
    c->calls_wait = true;
}

/* Tells the listener; from the loop only, never from within a call of the user. */
static void announce_leader(struct client *c)
{
    uint64_t id = c->leader != NULL ? c->leader->id : 0;
    if (id == c->announced_leader) {
        return;
    }
    c->announced_leader = id;
    c->leader_changes_total += id != 0 ? 1 : 0;
    if (c->changed != NULL) {
        c->changed(c->changed_ctx, id);
    }
}

void client_not_leader(struct client *c, struct client_node *from, uint64_t hint_id)
{
    if (c->leader == from) {
        c->leader = NULL;
    }
    uint64_t now_ms = uv_now(c->loop);
    struct client_node *hint = client_find_node(c, hint_id);
    /* Two nodes that name each other must not make us run in a circle: one hint a tick. */
    if (c->leader == NULL && hint != NULL && hint != from && hint->open &&
        now_ms >= c->hint_ms + CLIENT_TICK_MS) {
        c->hint_ms = now_ms;
        client_set_leader(c, hint);
    }
}

/* Where a further node goes: at the end, else in the place of one that was learned, is not reachable,
 * and that nobody has named for a while: members come and go, and this client stays. Without a link
 * nothing refers to a node. NULL: full. */
static struct client_node *free_node(struct client *c)
{
    if (c->nodes_count < CLIENT_NODES_MAX) {
        return &c->nodes[c->nodes_count++];
    }
    uint64_t now_ms = uv_now(c->loop);
    for (size_t i = 0; i < c->nodes_count; i++) {
        struct client_node *n = &c->nodes[i];
        if (!n->given && n->link == NULL && now_ms - n->named_ms >= CLIENT_FORGET_MS) {
            return n;
        }
    }
    return NULL;
}

static void learn_member(struct client *c, const char *address)
{
    if (c->fixed_endpoints || strlen(address) >= CLIENT_ADDRESS_SIZE) {
        return;
    }
    char host[ADDRESS_HOST_SIZE];
    uint16_t port;
    if (address_parse(address, host, &port) < 0 || port == 0) {
        return;
    }
    for (size_t i = 0; i < c->nodes_count; i++) {
        if (c->nodes[i].port == port && strcmp(c->nodes[i].host, host) == 0) {
            c->nodes[i].named_ms = uv_now(c->loop);
            return;
        }
    }
    struct client_node *n = free_node(c);
    if (n == NULL) {
        return;
    }
    *n = (struct client_node){.client = c, .port = port, .named_ms = uv_now(c->loop)};
    memcpy(n->host, host, sizeof host);
    memcpy(n->address, address, strlen(address) + 1);
}

static void learn_status(struct client *c, struct client_node *node,
                         const Holdfast__NodeStatusResult *s)
{
    enum { ROLE_LEADER = 2 };
    node->term = s->term;
    node->applied_index = s->applied_index;
    node->time_ms = s->time_ms;
    node->ready = s->ready;
    node->startup_phase = s->startup_phase;
    node->startup_done = s->startup_done;
    node->startup_total = s->startup_total;
    if (s->role == ROLE_LEADER && s->term >= c->term) {
        c->term = s->term;
        client_set_leader(c, node);
    } else if (s->term > c->term || (s->term == c->term && c->leader == NULL)) {
        struct client_node *leader = client_find_node(c, s->leader_id);
        if (leader != NULL && leader != node && leader->open) {
            c->term = s->term;
            client_set_leader(c, leader);
        }
    }
    for (size_t i = 0; i < s->n_members; i++) {
        learn_member(c, s->members[i]->node_address);
    }
}

static void poll_node(struct client *c, struct client_node *n)
{
    Holdfast__NodeStatus body = HOLDFAST__NODE_STATUS__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    n->poll_id = client_next_id(c, ID_POLL);
    n->poll_sent_ms = uv_now(c->loop);
    request.id = n->poll_id;
    request.body_case = HOLDFAST__REQUEST__BODY_NODE_STATUS;
    request.node_status = &body;
    uint8_t packed[64];
    size_t size = holdfast__request__get_packed_size(&request);
    CHECK(size <= sizeof packed);
    holdfast__request__pack(&request, packed);
    if (link_send(n->link, packed, size, NULL, 0) < 0) {
        n->poll_id = 0;
    }
}

static void poll_response(struct client *c, struct client_node *n, uint64_t id, const void *data,
                          size_t size)
{
    if (id == n->poll_id) {
        n->poll_id = 0;
    }
    Holdfast__Response *response = holdfast__response__unpack(&c->arena.allocator, size, data);
    if (response != NULL && response->status == HOLDFAST__STATUS__STATUS_OK &&
        response->body_case == HOLDFAST__RESPONSE__BODY_NODE_STATUS) {
        learn_status(c, n, response->node_status);
    }
    arena_reset(&c->arena);
}

/* ---- links ---- */

static void end_of_event(struct client *c)
{
    if (!c->closing) {
        announce_leader(c);
    }
}

static void link_open_cb(struct link *l, void *ctx)
{
    struct client_node *n = ctx;
    struct client *c = n->client;
    static const uint8_t unknown[LINK_CLUSTER_ID_SIZE];
    n->open = true;
    n->id = link_peer_id(l);
    n->poll_id = 0;
    if (memcmp(c->identity.cluster_id, unknown, sizeof unknown) == 0) {
        /* From now on only nodes of this cluster count. */
        memcpy(c->identity.cluster_id, link_cluster_id(l), LINK_CLUSTER_ID_SIZE);
    }
    c->calls_wait = true;
    poll_node(c, n);
}

static void link_frame_cb(struct link *l, void *ctx, const void *data, size_t size)
{
    struct client_node *n = ctx;
    struct client *c = n->client;
    struct submit_response head;
    if (c->closing) {
        return;
    }
    if (submit_response_open(&head, data, size) < 0) {
        log_warn("malformed response node=%s", n->address);
        link_close(l);
        return;
    }
    switch (head.id & ID_KIND_MASK) {
    case ID_FRAME:
        client_submit_response(c, n, head.id, data, size);
        break;
    case ID_CALL:
        client_call_response(c, n, head.id, data, size);
        break;
    case ID_POLL:
        poll_response(c, n, head.id, data, size);
        break;
    default:
        break;
    }
    end_of_event(c);
}

static void finish_close(struct client *c)
{
    if (c->handles > 0 || c->links > 0) {
        return;
    }
    while (c->spare != NULL) {
        struct client_frame *f = c->spare;
        c->spare = f->next;
        free(f);
    }
    void (*done)(void *) = c->done;
    void *ctx = c->done_ctx;
    arena_close(&c->arena);
    free(c->out);
    free(c);
    if (done != NULL) {
        done(ctx);
    }
}

static void link_closed_cb(struct link *l, void *ctx, const char *reason)
{
    (void)l;
    struct client_node *n = ctx;
    struct client *c = n->client;
    bool was_open = n->open;
    log_debug("link to node ended node=%s reason=\"%s\"", n->address, reason);
    n->link = NULL;
    n->open = false;
    n->poll_id = 0;
    c->links--;
    if (c->closing) {
        finish_close(c);
        return;
    }
    n->next_connect_ms = uv_now(c->loop) + (was_open ? 0 : CLIENT_TICK_MS);
    if (c->leader == n) {
        c->leader = NULL;
    }
    client_submit_link_lost(c, n);
    client_call_link_lost(c, n);
    end_of_event(c);
}

static void connect_node(struct client *c, struct client_node *n, uint64_t now_ms)
{
    static const struct link_callbacks callbacks = {link_open_cb, link_frame_cb, link_closed_cb};
    struct link_options options = {.frame_size_max = CLIENT_FRAME_SIZE_MAX,
                                   .output_size_max = CLIENT_OUTPUT_SIZE_MAX,
                                   .idle_timeout_ms = CLIENT_IDLE_TIMEOUT_MS};
    n->link = link_connect(c->loop, n->host, n->port, &c->identity, &options, &callbacks, n);
    n->next_connect_ms = now_ms + CLIENT_RECONNECT_MS;
    if (n->link != NULL) {
        c->links++;
    }
}

/* ---- the loop's turns ---- */

static void tick_nodes(struct client *c, uint64_t now_ms)
{
    bool hurry = c->leader == NULL || client_submit_suspects(c, now_ms);
    for (size_t i = 0; i < c->nodes_count; i++) {
        struct client_node *n = &c->nodes[i];
        if (n->link == NULL && (hurry || now_ms >= n->next_connect_ms)) {
            connect_node(c, n, now_ms);
        } else if (n->open) {
            /* An unanswered poll is not repeated until it is old: the node may be frozen. */
            uint64_t age = now_ms - n->poll_sent_ms;
            if (n->poll_id == 0 ? age >= (hurry ? CLIENT_POLL_FAST_MS : CLIENT_POLL_MS)
                                : age >= CLIENT_POLL_MS) {
                poll_node(c, n);
            }
        }
    }
}

static void flush(struct client *c)
{
    if (!c->closing) {
        client_submit_flush(c);
        client_call_flush(c);
    }
}

/* What was queued outside the polling phase (timers, before the loop runs) leaves in this iteration
 * too. Not a prepare handle: a link's output leaves in one of its own, which must come after. */
static void idle_cb(uv_idle_t *idle)
{
    uv_idle_stop(idle);
    flush(idle->data);
}

void client_wake(struct client *c)
{
    if (!uv_is_active((uv_handle_t *)&c->idle)) {
        CHECK(uv_idle_start(&c->idle, idle_cb) == 0);
    }
}

static void timer_cb(uv_timer_t *timer)
{
    struct client *c = timer->data;
    uint64_t now_ms = uv_now(c->loop);
    tick_nodes(c, now_ms);
    client_submit_tick(c, now_ms);
    if (!c->closing) {
        client_call_tick(c, now_ms);
        client_wake(c);
    }
    end_of_event(c);
}

static void check_cb(uv_check_t *check)
{
    flush(check->data);
}

/* ---- life ---- */

int client_create(const struct client_config *config, struct client **out)
{
    CHECK(config->endpoints_count >= 1 && config->endpoints_count <= CLIENT_NODES_MAX);
    struct client *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    c->loop = config->loop;
    c->fixed_endpoints = config->fixed_endpoints;
    memcpy(c->identity.key, config->key, sizeof c->identity.key);
    memcpy(c->identity.cluster_id, config->cluster_id, sizeof c->identity.cluster_id);
    c->identity.service = LINK_SERVICE_NODE;
    c->identity.id = config->node_id;
    for (size_t i = 0; i < config->endpoints_count; i++) {
        struct client_node *n = &c->nodes[c->nodes_count++];
        const char *address = config->endpoints[i];
        n->client = c;
        n->given = true;
        if (strlen(address) >= sizeof n->address || address_parse(address, n->host, &n->port) < 0 ||
            n->port == 0) {
            log_error("'%s' is not an address; write host:port with a numeric host", address);
            free(c);
            return -1;
        }
        memcpy(n->address, address, strlen(address) + 1);
    }
    c->queue_commands_max =
        config->queue_commands_max != 0 ? config->queue_commands_max : CLIENT_QUEUE_COMMANDS;
    c->window_frames = config->window_frames != 0 ? config->window_frames : CLIENT_WINDOW_FRAMES;
    CHECK(c->window_frames <= CLIENT_WINDOW_FRAMES_MAX);
    c->submit_deadline_ms = UINT64_MAX;
    for (uint32_t i = 0; i < CLIENT_CALLS_MAX; i++) {
        c->free_slots[i] = CLIENT_CALLS_MAX - 1 - i;
    }
    c->free_count = CLIENT_CALLS_MAX;
    arena_init(&c->arena);
    c->out = malloc(CLIENT_FRAME_BYTES_MAX);
    CHECK(c->out != NULL);
    CHECK(uv_timer_init(c->loop, &c->timer) == 0);
    CHECK(uv_idle_init(c->loop, &c->idle) == 0);
    CHECK(uv_check_init(c->loop, &c->check) == 0);
    c->timer.data = c->idle.data = c->check.data = c;
    c->handles = 3;
    CHECK(uv_timer_start(&c->timer, timer_cb, 0, CLIENT_TICK_MS) == 0);
    CHECK(uv_check_start(&c->check, check_cb) == 0);
    *out = c;
    return 0;
}

static void handle_closed_cb(uv_handle_t *handle)
{
    struct client *c = handle->data;
    c->handles--;
    finish_close(c);
}

void client_destroy(struct client *c, void (*done)(void *ctx), void *ctx)
{
    CHECK(!c->closing);
    c->closing = true;
    c->done = done;
    c->done_ctx = ctx;
    client_submit_end(c);
    client_call_end(c);
    for (size_t i = 0; i < c->nodes_count; i++) {
        if (c->nodes[i].link != NULL) {
            link_close(c->nodes[i].link);
        }
    }
    uv_close((uv_handle_t *)&c->timer, handle_closed_cb);
    uv_close((uv_handle_t *)&c->idle, handle_closed_cb);
    uv_close((uv_handle_t *)&c->check, handle_closed_cb);
}

void client_watch_leader(struct client *c, void (*changed)(void *ctx, uint64_t leader_id),
                         void *ctx)
{
    c->changed = changed;
    c->changed_ctx = ctx;
}

void client_get_info(const struct client *c, struct client_info *info)
{
    *info = (struct client_info){.term = c->term,
                                 .calls = c->calls_count,
                                 .submits_total = c->submits_total,
                                 .frames_total = c->frames_total,
                                 .retries_total = c->retries_total,
                                 .unknown_total = c->unknown_total,
                                 .refused_total = c->refused_total,
                                 .leader_changes_total = c->leader_changes_total,
                                 .nodes_count = c->nodes_count};
    memcpy(info->cluster_id, c->identity.cluster_id, sizeof info->cluster_id);
    if (c->leader != NULL) {
        info->leader_id = c->leader->id;
        memcpy(info->leader_address, c->leader->address, sizeof info->leader_address);
    }
    for (const struct client_frame *f = c->frames; f != NULL; f = f->next) {
        for (uint32_t i = 0; i < f->count; i++) {
            info->in_flight += f->requests[i] != NULL ? 1 : 0;
        }
    }
    info->queued = c->submits - info->in_flight;
    for (size_t i = 0; i < c->nodes_count; i++) {
        const struct client_node *n = &c->nodes[i];
        struct client_node_info *to = &info->nodes[i];
        *to = (struct client_node_info){.id = n->id,
                                        .connected = n->open,
                                        .term = n->term,
                                        .applied_index = n->applied_index,
                                        .time_ms = n->time_ms,
                                        .ready = n->ready,
                                        .startup_phase = n->startup_phase,
                                        .startup_done = n->startup_done,
                                        .startup_total = n->startup_total};
        memcpy(to->address, n->address, sizeof to->address);
    }
}
