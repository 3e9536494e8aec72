/* Calls: reads, status and administration. Each is a frame of its own, found again by its slot.
 *
 * id of a request = generation (32 bits), slot (28 bits), ID_CALL (2 bits): an answer to a call
 * that was cancelled or sent again has another generation and is dropped. */
#include <stdlib.h>

#include "base/check.h"
#include "base/log.h"
#include "proto/client_internal.h"

#define SLOT_BITS 28
_Static_assert(CLIENT_CALLS_MAX <= 1 << SLOT_BITS, "a slot fits its bits of the id");

static uint64_t call_id(const struct client_call *req)
{
    return ((uint64_t)req->generation << SLOT_BITS | req->slot) << 2 | ID_CALL;
}

static void unlink_call(struct client *c, struct client_call *req)
{
    if (req->prev != NULL) {
        req->prev->next = req->next;
    } else {
        c->calls = req->next;
    }
    if (req->next != NULL) {
        req->next->prev = req->prev;
    }
    c->slots[req->slot] = NULL;
    c->generations[req->slot]++;
    c->free_slots[c->free_count++] = req->slot;
    c->calls_count--;
    free(req->packed);
    req->packed = NULL;
}

static void finish(struct client *c, struct client_call *req, enum client_outcome outcome,
                   const Holdfast__Response *response)
{
    unlink_call(c, req);
    req->cb(req, outcome, response);
}

enum client_outcome client_call(struct client *c, struct client_call *req,
                                const Holdfast__Request *request, uint64_t target,
                                uint64_t deadline_ms, client_call_cb cb)
{
    if (c->closing) {
        return CLIENT_CLOSED;
    }
    if (c->free_count == 0) {
        return CLIENT_QUEUE_FULL;
    }
    uint64_t now_ms = uv_now(c->loop);
    uint32_t slot = c->free_slots[c->free_count - 1];
    *req = (struct client_call){.cb = cb,
                                .target = target,
                                .deadline_ms = deadline_ms,
                                .slot = slot,
                                .generation = c->generations[slot]};
    Holdfast__Request copy = *request;
    copy.id = call_id(req);
    if (copy.timeout_ms == 0) {
        uint64_t left = deadline_ms > now_ms ? deadline_ms - now_ms : 1;
        copy.timeout_ms = left < UINT32_MAX ? (uint32_t)left : UINT32_MAX;
    }
    req->packed_size = holdfast__request__get_packed_size(&copy);
    if (req->packed_size > CLIENT_FRAME_BYTES_MAX) {
        return CLIENT_MALFORMED;
    }
    req->packed = malloc(req->packed_size + 1);
    CHECK(req->packed != NULL);
    holdfast__request__pack(&copy, req->packed);
    c->free_count--;
    c->slots[slot] = req;
    req->next = c->calls;
    if (c->calls != NULL) {
        c->calls->prev = req;
    }
    c->calls = req;
    c->calls_count++;
    c->calls_wait = true;
    client_wake(c);
    return CLIENT_OK;
}

void client_call_cancel(struct client *c, struct client_call *req)
{
    CHECK(c->slots[req->slot] == req);
    unlink_call(c, req);
}

static struct client_node *choose_node(struct client *c, const struct client_call *req)
{
    if (req->target == CLIENT_TARGET_LEADER) {
        return c->leader;
    }
    if (req->target != CLIENT_TARGET_ANY) {
        struct client_node *n = client_find_node(c, req->target);
        return n != NULL && n->open ? n : NULL;
    }
    struct client_node *starting = NULL; /* it would only say that it is busy */
    for (size_t i = 0; i < c->nodes_count; i++) {
        c->turn = (c->turn + 1) % c->nodes_count;
        struct client_node *n = &c->nodes[c->turn];
        if (n->open && n->startup_phase == 0) {
            return n;
        }
        starting = n->open ? n : starting;
    }
    return starting;
}

void client_call_flush(struct client *c)
{
    if (!c->calls_wait) {
        return;
    }
    uint64_t now_ms = uv_now(c->loop);
    c->calls_wait = false;
    for (struct client_call *req = c->calls; req != NULL; req = req->next) {
        if (req->node != NULL) {
            continue;
        }
        struct client_node *n = req->not_before_ms <= now_ms ? choose_node(c, req) : NULL;
        if (n != NULL && link_send(n->link, req->packed, req->packed_size, NULL, 0) == 0) {
            req->node = n;
            req->sent_ms = now_ms;
        }
        /* What still waits is tried again by the next tick. */
    }
}

/* Puts it back to be sent again. */
static void retry(struct client *c, struct client_call *req, uint32_t wait_ms)
{
    req->node = NULL;
    req->not_before_ms = uv_now(c->loop) + wait_ms;
    c->retries_total++;
    c->calls_wait = true;
}

void client_call_response(struct client *c, struct client_node *node, uint64_t id, const void *data,
                          size_t size)
{
    uint64_t slot = id >> 2 & ((1u << SLOT_BITS) - 1);
    struct client_call *req = slot < CLIENT_CALLS_MAX ? c->slots[slot] : NULL;
    if (req == NULL || call_id(req) != id || req->node != node) {
        return;
    }
    Holdfast__Response *response = holdfast__response__unpack(&c->arena.allocator, size, data);
    if (response == NULL) {
        log_warn("malformed response node=%s", node->address);
        req->maybe = true;
        retry(c, req, CLIENT_BUSY_RETRY_MAX_MS);
    } else if (response->status == HOLDFAST__STATUS__STATUS_BUSY) {
        uint32_t wait_ms = response->retry_after_ms;
        retry(c, req,
              wait_ms < CLIENT_BUSY_RETRY_MIN_MS   ? CLIENT_BUSY_RETRY_MIN_MS
              : wait_ms > CLIENT_BUSY_RETRY_MAX_MS ? CLIENT_BUSY_RETRY_MAX_MS
                                                   : wait_ms);
    } else if (response->status == HOLDFAST__STATUS__STATUS_NOT_LEADER &&
               req->target == CLIENT_TARGET_LEADER) {
        client_not_leader(c, node, response->leader_id);
        retry(c, req, 0);
    } else {
        finish(c, req, CLIENT_OK, response);
    }
    arena_reset(&c->arena);
}

void client_call_link_lost(struct client *c, struct client_node *node)
{
    for (struct client_call *req = c->calls; req != NULL; req = req->next) {
        if (req->node == node) {
            req->maybe = true;
            retry(c, req, 0);
        }
    }
}

static void move_to_front(struct client *c, struct client_call *req)
{
    if (c->calls == req) {
        return;
    }
    req->prev->next = req->next;
    if (req->next != NULL) {
        req->next->prev = req->prev;
    }
    req->prev = NULL;
    req->next = c->calls;
    c->calls->prev = req;
    c->calls = req;
}

void client_call_tick(struct client *c, uint64_t now_ms)
{
    uint32_t expired = 0;
    for (struct client_call *req = c->calls, *next; req != NULL; req = next) {
        next = req->next;
        c->calls_wait = c->calls_wait || req->node == NULL;
        /* Asked of the leader, and another one leads now: the old one may be frozen. */
        if (req->node != NULL && req->target == CLIENT_TARGET_LEADER && c->leader != NULL &&
            c->leader != req->node && now_ms - req->sent_ms >= CLIENT_SUSPECT_MS) {
            req->maybe = true;
            retry(c, req, 0);
        }
        if (req->deadline_ms <= now_ms) {
            move_to_front(c, req);
            expired++;
        }
    }
    /* Each callback may call and cancel: what it puts in front hides the rest until the next tick.
     */
    while (expired-- > 0 && c->calls != NULL && c->calls->deadline_ms <= now_ms) {
        struct client_call *req = c->calls;
        finish(c, req, req->maybe || req->node != NULL ? CLIENT_UNKNOWN : CLIENT_NO_LEADER, NULL);
    }
}

void client_call_end(struct client *c)
{
    while (c->calls != NULL) {
        struct client_call *req = c->calls;
        finish(c, req, req->maybe || req->node != NULL ? CLIENT_UNKNOWN : CLIENT_CLOSED, NULL);
    }
}
