/* install: the leader's memory of tickets. See install.h; the follower's side is in driver.c. */
#include "raft/install.h"

#include <string.h>

#include "base/check.h"

void install_tickets_give(struct install_tickets *t, uint64_t peer_id, uint64_t index,
                          uint64_t core_index, uint64_t now_ms)
{
    size_t oldest = 0;
    for (size_t i = 0; i < ARRAY_COUNT(t->tickets); i++) {
        if (t->tickets[i].peer_id == peer_id || t->tickets[i].peer_id == 0) {
            oldest = i;
            break;
        }
        if (t->tickets[i].given_ms < t->tickets[oldest].given_ms) {
            oldest = i;
        }
    }
    t->tickets[oldest].peer_id = peer_id;
    t->tickets[oldest].index = index;
    t->tickets[oldest].core_index = core_index;
    t->tickets[oldest].given_ms = now_ms;
}

uint64_t install_tickets_core_index(const struct install_tickets *t, uint64_t peer_id)
{
    for (size_t i = 0; i < ARRAY_COUNT(t->tickets); i++) {
        if (t->tickets[i].peer_id == peer_id) {
            return t->tickets[i].core_index;
        }
    }
    return 0;
}

void install_tickets_matched(struct install_tickets *t, uint64_t peer_id, uint64_t match_index)
{
    for (size_t i = 0; i < ARRAY_COUNT(t->tickets); i++) {
        if (t->tickets[i].peer_id == peer_id && match_index >= t->tickets[i].index) {
            t->tickets[i].peer_id = 0;
        }
    }
}

void install_tickets_expire(struct install_tickets *t, uint64_t now_ms, uint64_t timeout_ms)
{
    for (size_t i = 0; i < ARRAY_COUNT(t->tickets); i++) {
        if (now_ms - t->tickets[i].given_ms >= timeout_ms) {
            t->tickets[i].peer_id = 0;
        }
    }
}

void install_tickets_clear(struct install_tickets *t)
{
    memset(t, 0, sizeof *t);
}

uint64_t install_tickets_oldest(const struct install_tickets *t)
{
    uint64_t oldest = UINT64_MAX;
    for (size_t i = 0; i < ARRAY_COUNT(t->tickets); i++) {
        if (t->tickets[i].peer_id != 0 && t->tickets[i].index < oldest) {
            oldest = t->tickets[i].index;
        }
    }
    return oldest;
}
