/* Sessions: authenticated links of gateways, tools and peers, and the Submit path.
 *
 * Happy path of a Submit: the frame is read in place; each command is decoded once to prove that it
 * is well-formed (what is in the log must decode on every replica) and copied into the batch being
 * filled; the frame's work waits for its last reply and is answered by one response.
 *
 * Failure modes: not leading → NOT_LEADER with a hint; no room → BUSY for each command that did not
 * fit; the disk is short of space → LOW_SPACE for what grows the state; of a kind beyond the format
 * in force → UNSUPPORTED for that command; not well-formed, or a kind that only the node itself may
 * propose → MALFORMED for that command. A session whose output is full is closed: its client tries
 * again with the same keys. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "proto/submit_frame.h"
#include "server/node_internal.h"

struct frame_work {
    struct submit_work work;
    struct session *session;
    uint64_t id;
    struct submit_outcome outcomes[];
};

void session_retain(struct session *s)
{
    s->references++;
}

void session_release(struct session *s)
{
    CHECK(s->references > 0);
    if (--s->references == 0) {
        free(s);
    }
}

/* ---- responses ---- */

static uint8_t *out_reserve(struct node *n, size_t size)
{
    if (size > n->out_capacity) {
        n->out_capacity = size * 2;
        n->out = realloc(n->out, n->out_capacity);
        CHECK(n->out != NULL);
    }
    return n->out;
}

static void send_bytes(struct session *s, const void *data, size_t size)
{
    if (s->link != NULL && link_send(s->link, data, size, NULL, 0) < 0) {
        log_warn("session closed: it does not read its responses");
        link_close(s->link);
    }
}

void session_respond(struct session *s, const Holdfast__Response *response)
{
    if (s->link == NULL) {
        return;
    }
    size_t size = holdfast__response__get_packed_size(response);
    uint8_t *out = out_reserve(s->node, size);
    holdfast__response__pack(response, out);
    send_bytes(s, out, size);
}

void session_respond_status(struct session *s, uint64_t id, Holdfast__Status status,
                            const char *message)
{
    struct node *n = s->node;
    char text[256], address[REPLICA_ADDRESS_SIZE];
    Holdfast__Response r = HOLDFAST__RESPONSE__INIT;
    str_copy(text, sizeof text, str_from(message));
    r.id = id;
    r.status = status;
    r.message = text;
    r.index = engine_index(n->engine);
    r.time_ms = engine_time_ms(n->engine);
    if (status == HOLDFAST__STATUS__STATUS_NOT_LEADER) {
        str_copy(address, sizeof address, str_from(node_leader_address(n)));
        r.leader_id = n->leader_id;
        r.leader_address = address;
    } else if (status == HOLDFAST__STATUS__STATUS_BUSY) {
        r.retry_after_ms = submit_queue_retry_after_ms(n->queue);
    }
    session_respond(s, &r);
}

/* ---- Submit ---- */

void session_answered(void *node, struct submit_work *work)
{
    struct node *n = node;
    struct frame_work *f = container_of(work, struct frame_work, work);
    struct session *s = f->session;
    bool busy = false, low = false, leaderless = work->count > 0;
    for (uint32_t i = 0; i < work->count; i++) {
        busy = busy || work->outcomes[i].status == HOLDFAST__STATUS__STATUS_BUSY;
        low = low || work->outcomes[i].status == HOLDFAST__STATUS__STATUS_LOW_SPACE;
        leaderless = leaderless && work->outcomes[i].status == HOLDFAST__STATUS__STATUS_NOT_LEADER;
    }
    if (FAILPOINT_DROP("session/before-answer", "commands are carried out, or refused; no answer is out")) {
        free(f);
        session_release(s);
        return;
    }
    if (s->link != NULL && leaderless) {
        session_respond_status(s, f->id, HOLDFAST__STATUS__STATUS_NOT_LEADER,
                               ""); /* with the hint */
    } else if (s->link != NULL) {
        uint8_t *out = out_reserve(n, SUBMIT_RESPONSE_HEAD_MAX +
                                          (size_t)work->count * SUBMIT_RESPONSE_OUTCOME_MAX);
        size_t size =
            submit_response_write(out, f->id, engine_index(n->engine), engine_time_ms(n->engine),
                                  low    ? DISK_GUARD_RETRY_MS
                                  : busy ? submit_queue_retry_after_ms(n->queue)
                                         : 0,
                                  work->outcomes, work->count);
        send_bytes(s, out, size);
    }
    free(f);
    session_release(s);
}

static Holdfast__Status take_command(struct node *n, struct submit_work *work, uint32_t position,
                                     const void *data, size_t size)
{
    struct command c;
    uint8_t kind = size > 0 ? *(const uint8_t *)data : 0;
    if (kind > COMMAND_KIND_MAX || command_kind_format(kind) > node_format(n)) {
        /* Of a newer client, or allowed only when every member has been upgraded. */
        return HOLDFAST__STATUS__STATUS_UNSUPPORTED;
    }
    if (size > COMMAND_SIZE_MAX || command_decode(&c, data, size) < 0 || c.kind == COMMAND_INIT ||
        c.kind == COMMAND_PERSIST_ACK) {
        return HOLDFAST__STATUS__STATUS_MALFORMED;
    }
    if (!disk_guard_admits(n->disk, &c)) {
        return HOLDFAST__STATUS__STATUS_LOW_SPACE;
    }
    return submit_queue_add(n->queue, work, position, data, size) ? HOLDFAST__STATUS__STATUS_OK
                                                                  : HOLDFAST__STATUS__STATUS_BUSY;
}

static void session_submit(struct session *s, struct submit_request *r)
{
    struct node *n = s->node;
    const void *command;
    size_t size;
    if (!node_takes_submits(n)) {
        session_respond_status(s, r->id, HOLDFAST__STATUS__STATUS_NOT_LEADER, "");
        return;
    }
    if (r->count == 0 || r->count > NODE_SUBMIT_COMMANDS_MAX || r->group != 0) {
        session_respond_status(s, r->id, HOLDFAST__STATUS__STATUS_MALFORMED,
                               "a Submit has 1 to 4096 commands, for group 0");
        return;
    }
    struct frame_work *f = malloc(sizeof *f + r->count * sizeof f->outcomes[0]);
    CHECK(f != NULL);
    f->session = s;
    f->id = r->id;
    /* One more than there are, so that nothing is answered before all are in. */
    f->work =
        (struct submit_work){.count = r->count, .remaining = r->count + 1, .outcomes = f->outcomes};
    session_retain(s);
    FAILPOINT("session/submit", "commands came, none is queued");
    for (uint32_t i = 0; submit_request_next(r, &command, &size); i++) {
        Holdfast__Status status = take_command(n, &f->work, i, command, size);
        if (status != HOLDFAST__STATUS__STATUS_OK) {
            f->outcomes[i].status = (uint8_t)status;
            f->work.remaining--;
        }
    }
    if (--f->work.remaining == 0) {
        session_answered(n, &f->work);
    }
}

/* ---- links ---- */

static void frame_cb(struct link *l, void *ctx, const void *data, size_t size)
{
    struct session *s = ctx;
    struct node *n = s->node;
    struct submit_request r;
    if (submit_request_open(&r, data, size) < 0) {
        log_warn("malformed request from peer=%llu", (unsigned long long)link_peer_id(l));
        link_close(l);
        return;
    }
    if (r.is_submit) {
        session_submit(s, &r);
        return;
    }
    Holdfast__Request *request = holdfast__request__unpack(&n->arena.allocator, size, data);
    if (request == NULL) {
        link_close(l);
    } else {
        request_dispatch(s, request, data, size);
    }
    arena_reset(&n->arena);
}

static void open_cb(struct link *l, void *ctx)
{
    (void)ctx;
    log_debug("session opened peer=%llu", (unsigned long long)link_peer_id(l));
}

static void closed_cb(struct link *l, void *ctx, const char *reason)
{
    struct session *s = ctx;
    struct node *n = s->node;
    log_debug("session ended peer=%llu reason=\"%s\"", (unsigned long long)link_peer_id(l), reason);
    s->link = NULL;
    n->sessions_count--;
    session_release(s);
}

static void *accept_cb(void *ctx, struct link *l)
{
    struct node *n = ctx;
    struct session *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    s->node = n;
    s->link = l;
    s->references = 1; /* the link's */
    n->sessions_count++;
    return s;
}

int sessions_listen(struct node *n)
{
    static const struct link_callbacks callbacks = {open_cb, frame_cb, closed_cb};
    const struct node_options *o = n->options;
    struct link_options options = {.frame_size_max = NODE_FRAME_SIZE_MAX,
                                   .output_size_max = NODE_OUTPUT_SIZE_MAX,
                                   .idle_timeout_ms = NODE_SESSION_IDLE_MS};
    struct link_identity identity = {.service = LINK_SERVICE_NODE, .id = o->id};
    memcpy(identity.key, o->key, sizeof identity.key);
    memcpy(identity.cluster_id, o->cluster_id, sizeof identity.cluster_id);
    int rv = link_listen(n->loop, o->node_host, o->node_port, NODE_SESSIONS_MAX, &identity,
                         &options, &callbacks, accept_cb, n, &n->listener);
    if (rv < 0) {
        log_error("cannot listen on %s:%u: %s", o->node_host, o->node_port, uv_strerror(rv));
        return -1;
    }
    log_info("listening for requests address=%s:%u", o->node_host, link_server_port(n->listener));
    return 0;
}

void sessions_close(struct node *n, void (*done)(void *ctx), void *ctx)
{
    link_server_close(n->listener, done, ctx);
    n->listener = NULL;
}
