/* install: the leader's memory of tickets. See install.h; the follower's side is in
 * driver_checkpoint.c. */
#include "raft/install.h"

#include <string.h>

#include "base/check.h"

static size_t find(const struct install_tickets *t, uint64_t peer_id)
{
    size_t i = 0;
    while (i < ARRAY_COUNT(t->tickets) && t->tickets[i].peer_id != peer_id) {
        i++;
    }
    return i;
}

void install_tickets_give(struct install_tickets *t, uint64_t peer_id,
                          const struct replica_ticket *ticket, uint64_t core_index,
                          uint64_t now_ms)
{
    size_t place = find(t, peer_id);
    place = place < ARRAY_COUNT(t->tickets) ? place : find(t, 0);
    if (place == ARRAY_COUNT(t->tickets)) {
        place = 0;
        for (size_t i = 1; i < ARRAY_COUNT(t->tickets); i++) {
            place = t->tickets[i].given_ms < t->tickets[place].given_ms ? i : place;
        }
    }
    t->tickets[place].peer_id = peer_id;
    t->tickets[place].core_index = core_index;
    t->tickets[place].given_ms = now_ms;
    memmove(&t->tickets[place].ticket, ticket, sizeof *ticket);
}

const struct replica_ticket *install_tickets_find(const struct install_tickets *t,
                                                  uint64_t peer_id)
{
    size_t i = find(t, peer_id);
    return i < ARRAY_COUNT(t->tickets) ? &t->tickets[i].ticket : NULL;
}

uint64_t install_tickets_core_index(const struct install_tickets *t, uint64_t peer_id)
{
    size_t i = find(t, peer_id);
    return i < ARRAY_COUNT(t->tickets) ? t->tickets[i].core_index : 0;
}

void install_tickets_matched(struct install_tickets *t, uint64_t peer_id, uint64_t match_index,
                             uint64_t last_index, uint64_t close)
{
    size_t i = find(t, peer_id);
    if (i < ARRAY_COUNT(t->tickets) && match_index >= t->tickets[i].ticket.position.index &&
        match_index >= t->tickets[i].core_index && match_index + close >= last_index) {
        t->tickets[i].peer_id = 0;
    }
}

void install_tickets_expire(struct install_tickets *t, uint64_t now_ms, uint64_t timeout_ms,
                            bool (*is_there)(const void *ctx, uint64_t peer_id), const void *ctx)
{
    for (size_t i = 0; i < ARRAY_COUNT(t->tickets); i++) {
        if (t->tickets[i].peer_id == 0) {
            continue;
        }
        if (is_there(ctx, t->tickets[i].peer_id)) {
            t->tickets[i].given_ms = now_ms;
        } else if (now_ms - t->tickets[i].given_ms >= timeout_ms) {
            t->tickets[i].peer_id = 0;
        }
    }
}

void install_tickets_clear(struct install_tickets *t)
{
    memset(t, 0, sizeof *t);
}

uint64_t install_tickets_oldest(const struct install_tickets *t,
                                uint64_t (*match)(const void *ctx, uint64_t peer_id),
                                const void *ctx)
{
    uint64_t oldest = UINT64_MAX;
    for (size_t i = 0; i < ARRAY_COUNT(t->tickets); i++) {
        if (t->tickets[i].peer_id != 0) {
            uint64_t has = match(ctx, t->tickets[i].peer_id);
            uint64_t index = t->tickets[i].ticket.position.index;
            index = has > index ? has : index;
            oldest = index < oldest ? index : oldest;
        }
    }
    return oldest;
}
