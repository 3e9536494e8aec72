/* Commands: the queue, the frames in flight, every retry of a command.
 *
 *             client_submit            flush               OK: callback
 *     (caller) ──────────────► queued ────────► in flight ──────────────► (caller)
 *                               ▲  ▲               │ NOT_LEADER, link lost, unknown and keyed
 *                               │  └───────────────┤
 *                               └───── later ◄─────┘ BUSY: not before its retry_after
 *
 * In every state the deadline ends it. Invariant: req->frame != NULL iff it is in flight, and then
 * req->frame->requests[req->slot] == req. */
#include <stdlib.h>

#include "base/check.h"
#include "base/log.h"
#include "proto/client_internal.h"
#include "proto/submit_frame.h"

static void queue_append(struct client *c, struct client_submit *req)
{
    req->frame = NULL;
    req->next = NULL;
    req->prev = c->queue_tail;
    if (c->queue_tail != NULL) {
        c->queue_tail->next = req;
    } else {
        c->queue_head = req;
    }
    c->queue_tail = req;
}

static void queue_remove(struct client *c, struct client_submit *req)
{
    if (req->prev != NULL) {
        req->prev->next = req->next;
    } else {
        c->queue_head = req->next;
    }
    if (req->next != NULL) {
        req->next->prev = req->prev;
    } else {
        c->queue_tail = req->prev;
    }
}

static void finish(struct client *c, struct client_submit *req, enum client_outcome outcome,
                   const struct reply *reply)
{
    CHECK(c->submits > 0);
    c->submits--;
    c->drained++;
    c->unknown_total += outcome == CLIENT_UNKNOWN ? 1 : 0;
    c->refused_total += outcome == CLIENT_QUEUE_FULL || outcome == CLIENT_NO_LEADER ? 1 : 0;
    req->frame = NULL;
    req->cb(req, outcome, reply);
}

/* When about this many commands will have been answered. */
static uint32_t estimate_wait_ms(const struct client *c, uint64_t commands)
{
    double ms =
        c->drain_per_ms > 0.001 ? (double)commands / c->drain_per_ms : CLIENT_BUSY_RETRY_MAX_MS;
    if (ms < CLIENT_BUSY_RETRY_MIN_MS) {
        return CLIENT_BUSY_RETRY_MIN_MS;
    }
    return ms > CLIENT_BUSY_RETRY_MAX_MS ? CLIENT_BUSY_RETRY_MAX_MS : (uint32_t)ms;
}

/* command = u8 kind, str8 scope, str8 key: true iff the key is there. */
static bool has_key(const uint8_t *command, size_t size)
{
    size_t scope = size >= 2 ? command[1] : 0;
    return size >= 3 + scope && command[2 + scope] > 0;
}

enum client_outcome client_submit(struct client *c, struct client_submit *req, const void *command,
                                  size_t size, uint64_t deadline_ms, client_submit_cb cb)
{
    if (c->closing) {
        return CLIENT_CLOSED;
    }
    if (size == 0 || size > COMMAND_SIZE_MAX) {
        return CLIENT_MALFORMED;
    }
    if (c->submits >= c->queue_commands_max) {
        c->refused_total++;
        req->retry_after_ms = estimate_wait_ms(c, c->submits / 4);
        return CLIENT_QUEUE_FULL;
    }
    *req = (struct client_submit){.cb = cb,
                                  .command = command,
                                  .size = (uint32_t)size,
                                  .keyed = has_key(command, size),
                                  .deadline_ms = deadline_ms};
    if (deadline_ms < c->submit_deadline_ms) {
        c->submit_deadline_ms = deadline_ms;
    }
    c->submits++;
    c->submits_total++;
    queue_append(c, req);
    client_wake(c);
    return CLIENT_OK;
}

/* ---- sending ---- */

static struct client_frame *frame_acquire(struct client *c)
{
    struct client_frame *f = c->spare;
    if (f != NULL) {
        c->spare = f->next;
    } else {
        f = malloc(sizeof *f);
        CHECK(f != NULL);
    }
    return f;
}

static void frame_release(struct client *c, struct client_frame *f)
{
    f->next = c->spare;
    c->spare = f;
}

/* Takes as many queued commands as one frame holds, from the head. Returns how many, and their
 * size. */
static uint32_t measure_frame(const struct client *c, size_t *commands_size, uint64_t *deadline_ms)
{
    uint32_t count = 0;
    *commands_size = 0;
    *deadline_ms = 0;
    for (const struct client_submit *r = c->queue_head; r != NULL; r = r->next) {
        size_t size = submit_request_command_size(r->size);
        if (count == CLIENT_FRAME_COMMANDS_MAX ||
            *commands_size + size > CLIENT_FRAME_BYTES_MAX - SUBMIT_REQUEST_HEAD_MAX) {
            break;
        }
        *commands_size += size;
        *deadline_ms = r->deadline_ms > *deadline_ms ? r->deadline_ms : *deadline_ms;
        count++;
    }
    return count;
}

static bool send_frame(struct client *c)
{
    size_t commands_size;
    uint64_t deadline_ms, now_ms = uv_now(c->loop);
    uint32_t count = measure_frame(c, &commands_size, &deadline_ms);
    uint64_t patience = deadline_ms > now_ms ? deadline_ms - now_ms : 1;
    uint64_t id = client_next_id(c, ID_FRAME);
    size_t size = submit_request_write_head(
        c->out, id, patience < UINT32_MAX ? (uint32_t)patience : UINT32_MAX, commands_size);
    const struct client_submit *r = c->queue_head;
    for (uint32_t i = 0; i < count; i++, r = r->next) {
        size += submit_request_write_command(c->out + size, r->command, r->size);
    }
    if (link_send(c->leader->link, c->out, size, NULL, 0) < 0) {
        return false; /* its output is full: later */
    }
    struct client_frame *f = frame_acquire(c);
    f->id = id;
    f->node = c->leader;
    f->sent_ms = now_ms;
    f->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct client_submit *req = c->queue_head;
        queue_remove(c, req);
        req->frame = f;
        req->slot = i;
        f->requests[i] = req;
    }
    f->next = c->frames;
    c->frames = f;
    c->frames_total++;
    return true;
}

void client_submit_flush(struct client *c)
{
    if (c->queue_head == NULL || c->leader == NULL) {
        return;
    }
    uint32_t in_flight = 0;
    for (const struct client_frame *f = c->frames; f != NULL; f = f->next) {
        in_flight += f->node == c->leader ? 1 : 0;
    }
    while (in_flight < c->window_frames && c->queue_head != NULL && send_frame(c)) {
        in_flight++;
    }
}

/* ---- answers ---- */

/* True when the client was destroyed in a callback just now, and so this request has ended. */
static bool ended(struct client *c, struct client_submit *req)
{
    if (c->closing) {
        finish(c, req, req->maybe ? CLIENT_UNKNOWN : CLIENT_CLOSED, NULL);
    }
    return c->closing;
}

/* Nothing happened at this attempt. */
static void retry(struct client *c, struct client_submit *req)
{
    if (ended(c, req)) {
        return;
    }
    c->retries_total++;
    queue_append(c, req);
}

static void retry_later(struct client *c, struct client_submit *req, uint32_t wait_ms)
{
    if (ended(c, req)) {
        return;
    }
    c->retries_total++;
    req->busy = true;
    req->frame = NULL;
    req->not_before_ms = uv_now(c->loop) + wait_ms;
    req->prev = NULL;
    req->next = c->later;
    c->later = req;
}

/* This attempt may have happened. */
static void retry_unknown(struct client *c, struct client_submit *req)
{
    req->maybe = true;
    if (req->keyed) {
        retry(c, req);
    } else {
        finish(c, req, CLIENT_UNKNOWN, NULL);
    }
}

static void settle(struct client *c, struct client_submit *req, uint32_t status, const void *data,
                   size_t size, uint32_t retry_after_ms)
{
    struct reply reply;
    switch (status) {
    case HOLDFAST__STATUS__STATUS_OK:
        if (reply_decode(&reply, data, size) < 0) {
            log_error("a node sent a reply that is none");
            retry_unknown(c, req);
            return;
        }
        finish(c, req, CLIENT_OK, &reply);
        return;
    case HOLDFAST__STATUS__STATUS_NOT_LEADER:
    case HOLDFAST__STATUS__STATUS_REFUSED:
        retry(c, req);
        return;
    case HOLDFAST__STATUS__STATUS_BUSY:
        req->retry_after_ms = retry_after_ms;
        retry_later(c, req,
                    retry_after_ms < CLIENT_BUSY_RETRY_MIN_MS   ? CLIENT_BUSY_RETRY_MIN_MS
                    : retry_after_ms > CLIENT_BUSY_RETRY_MAX_MS ? CLIENT_BUSY_RETRY_MAX_MS
                                                                : retry_after_ms);
        return;
    case HOLDFAST__STATUS__STATUS_LOW_SPACE: /* lasts: the caller shall know at once */
        req->retry_after_ms = retry_after_ms;
        finish(c, req, req->maybe ? CLIENT_UNKNOWN : CLIENT_LOW_SPACE, NULL);
        return;
    case HOLDFAST__STATUS__STATUS_MALFORMED:
    case HOLDFAST__STATUS__STATUS_UNSUPPORTED:
        finish(c, req, req->maybe ? CLIENT_UNKNOWN : CLIENT_MALFORMED, NULL);
        return;
    default:
        retry_unknown(c, req);
        return;
    }
}

static struct client_frame *frame_take(struct client *c, uint64_t id)
{
    for (struct client_frame **at = &c->frames; *at != NULL; at = &(*at)->next) {
        struct client_frame *f = *at;
        if (f->id == id) {
            *at = f->next;
            return f;
        }
    }
    return NULL;
}

void client_submit_response(struct client *c, struct client_node *node, uint64_t id,
                            const void *data, size_t size)
{
    struct submit_response r;
    CHECK(submit_response_open(&r, data, size) == 0); /* it was, once */
    struct client_frame *f = frame_take(c, id);
    if (f == NULL) {
        return; /* given up before */
    }
    if (r.status == HOLDFAST__STATUS__STATUS_NOT_LEADER) {
        client_not_leader(c, node, r.leader_id);
    }
    bool not_leader = false;
    for (uint32_t i = 0; i < f->count; i++) {
        uint32_t status = r.status;
        const void *reply = NULL;
        size_t reply_size = 0;
        if (status == HOLDFAST__STATUS__STATUS_OK &&
            (!r.has_outcomes || submit_response_next(&r, &status, &reply, &reply_size) <= 0)) {
            r.has_outcomes = false; /* fewer outcomes than commands: what is missing is unknown */
            status = HOLDFAST__STATUS__STATUS_OUTCOME_UNKNOWN;
        }
        not_leader = not_leader || status == HOLDFAST__STATUS__STATUS_NOT_LEADER;
        struct client_submit *req = f->requests[i];
        if (req != NULL) {
            f->requests[i] = NULL;
            settle(c, req, status, reply, reply_size, r.retry_after_ms);
        }
    }
    if (not_leader && r.status == HOLDFAST__STATUS__STATUS_OK) {
        client_not_leader(c, node, 0);
    }
    frame_release(c, f);
}

/* Gives up every frame sent to node that is older than age_ms. */
static void abandon_frames(struct client *c, const struct client_node *node, uint64_t now_ms,
                           uint64_t age_ms)
{
    struct client_frame *taken = NULL;
    for (struct client_frame **at = &c->frames; *at != NULL;) {
        struct client_frame *f = *at;
        if (f->node == node && now_ms - f->sent_ms >= age_ms) {
            *at = f->next;
            f->next = taken;
            taken = f; /* the oldest comes to stand first */
        } else {
            at = &f->next;
        }
    }
    while (taken != NULL) {
        struct client_frame *f = taken;
        taken = f->next;
        for (uint32_t i = 0; i < f->count; i++) {
            if (f->requests[i] != NULL) {
                retry_unknown(c, f->requests[i]);
            }
        }
        frame_release(c, f);
    }
}

void client_submit_link_lost(struct client *c, struct client_node *node)
{
    abandon_frames(c, node, uv_now(c->loop), 0);
}

/* ---- time ---- */

static void expire(struct client *c, struct client_submit *req)
{
    enum client_outcome outcome = req->frame != NULL || req->maybe ? CLIENT_UNKNOWN
                                  : req->busy                      ? CLIENT_QUEUE_FULL
                                                                   : CLIENT_NO_LEADER;
    if (req->retry_after_ms == 0) {
        req->retry_after_ms = estimate_wait_ms(c, c->submits / 4);
    }
    finish(c, req, outcome, NULL);
}

/* Moves every request whose deadline is over to one list first: callbacks may submit. */
static struct client_submit *collect_expired(struct client *c, uint64_t now_ms)
{
    struct client_submit *expired = NULL;
    uint64_t earliest = UINT64_MAX;
    for (struct client_submit *r = c->queue_head, *next; r != NULL; r = next) {
        next = r->next;
        if (r->deadline_ms <= now_ms) {
            queue_remove(c, r);
            r->next = expired;
            expired = r;
        } else if (r->deadline_ms < earliest) {
            earliest = r->deadline_ms;
        }
    }
    for (struct client_submit **at = &c->later; *at != NULL;) {
        struct client_submit *r = *at;
        if (r->deadline_ms <= now_ms) {
            *at = r->next;
            r->next = expired;
            expired = r;
        } else {
            earliest = r->deadline_ms < earliest ? r->deadline_ms : earliest;
            at = &r->next;
        }
    }
    for (struct client_frame *f = c->frames; f != NULL; f = f->next) {
        for (uint32_t i = 0; i < f->count; i++) {
            struct client_submit *r = f->requests[i];
            if (r != NULL && r->deadline_ms <= now_ms) {
                f->requests[i] = NULL; /* req->frame stays set: it says that it was sent */
                r->next = expired;
                expired = r;
            } else if (r != NULL && r->deadline_ms < earliest) {
                earliest = r->deadline_ms;
            }
        }
    }
    c->submit_deadline_ms = earliest;
    return expired;
}

static void wake_later(struct client *c, uint64_t now_ms)
{
    for (struct client_submit **at = &c->later; *at != NULL;) {
        struct client_submit *r = *at;
        if (r->not_before_ms <= now_ms) {
            *at = r->next;
            queue_append(c, r);
        } else {
            at = &r->next;
        }
    }
}

void client_submit_tick(struct client *c, uint64_t now_ms)
{
    double rate = (double)c->drained / CLIENT_TICK_MS;
    c->drain_per_ms += (rate - c->drain_per_ms) / 16;
    c->drained = 0;
    for (size_t i = 0; i < c->nodes_count && c->leader != NULL; i++) {
        if (&c->nodes[i] != c->leader) {
            abandon_frames(c, &c->nodes[i], now_ms, CLIENT_SUSPECT_MS);
        }
    }
    wake_later(c, now_ms);
    if (now_ms >= c->submit_deadline_ms) {
        struct client_submit *expired = collect_expired(c, now_ms);
        while (expired != NULL) {
            struct client_submit *req = expired;
            expired = req->next;
            expire(c, req);
        }
    }
}

bool client_submit_suspects(const struct client *c, uint64_t now_ms)
{
    for (const struct client_frame *f = c->frames; f != NULL; f = f->next) {
        if (now_ms - f->sent_ms >= CLIENT_SUSPECT_MS) {
            return true;
        }
    }
    return false;
}

void client_submit_end(struct client *c)
{
    struct client_submit *all = NULL;
    while (c->queue_head != NULL) {
        struct client_submit *r = c->queue_head;
        queue_remove(c, r);
        r->next = all;
        all = r;
    }
    while (c->later != NULL) {
        struct client_submit *r = c->later;
        c->later = r->next;
        r->next = all;
        all = r;
    }
    while (c->frames != NULL) {
        struct client_frame *f = c->frames;
        c->frames = f->next;
        for (uint32_t i = 0; i < f->count; i++) {
            if (f->requests[i] != NULL) {
                f->requests[i]->maybe = true;
                f->requests[i]->next = all;
                all = f->requests[i];
            }
        }
        frame_release(c, f);
    }
    while (all != NULL) {
        struct client_submit *r = all;
        all = r->next;
        finish(c, r, r->maybe ? CLIENT_UNKNOWN : CLIENT_CLOSED, NULL);
    }
}
