/* The denylist: users refused until a time or for good, put there by an admin or by strikes. A strike
 * is one reservation that expired unpaid, in a sale that counts them. */
#include "engine/parts.h"

bool user_denied(const struct engine *e, const struct user *u)
{
    return u->denied != 0 &&
           (u->denied_until_ms == 0 || u->denied_until_ms > e->root->time_ms);
}

static void set_denial(struct engine *e, uint32_t slot, int64_t until_ms, struct str reason)
{
    struct user *u = user_edit(e, slot);
    if (u->denied != 0 && u->denied_until_ms != 0) {
        due_heap_remove(&e->denial_ends, slot);
    }
    text_drop(e, u->reason);
    e->denied_users += u->denied == 0 ? 1 : 0;
    u->denied = 1;
    u->denied_until_ms = until_ms;
    u->reason = text_put(e, reason);
    if (until_ms != 0) {
        due_heap_put(&e->denial_ends, slot, until_ms);
    }
}

static void clear_denial(struct engine *e, uint32_t slot)
{
    struct user *u = user_edit(e, slot);
    if (u->denied != 0 && u->denied_until_ms != 0) {
        due_heap_remove(&e->denial_ends, slot);
    }
    text_drop(e, u->reason);
    e->denied_users -= u->denied;
    u->reason = 0;
    u->denied = 0;
    u->denied_until_ms = 0;
}

void denial_end(struct engine *e, uint32_t slot)
{
    clear_denial(e, slot);
    user_release(e, slot);
}

void denial_strike(struct engine *e, uint32_t slot, const struct sale *s)
{
    if (s->strikes_max == 0) {
        return;
    }
    struct user *u = user_edit(e, slot);
    u->strikes++;
    if (u->strikes < s->strikes_max) {
        return;
    }
    u->strikes = 0;
    int64_t until_ms = s->denial_ms != 0 ? e->root->time_ms + (int64_t)s->denial_ms : 0;
    bool longer = u->denied == 0 || until_ms == 0 || until_ms > u->denied_until_ms;
    if (longer && !(u->denied != 0 && u->denied_until_ms == 0)) {
        set_denial(e, slot, until_ms, STR_LITERAL("unpaid"));
    }
}

enum result denial_put(struct engine *e, const struct command *c, struct reply *r)
{
    int64_t until_ms = c->deny.until_ms;
    if (until_ms != 0 && until_ms <= e->root->time_ms) {
        return RESULT_INVALID; /* it would be over before it begins */
    }
    uint64_t hash = hash_str(&e->secret, c->deny.user);
    uint32_t slot = user_find(e, c->deny.user, hash);
    if (slot == 0 && slab_full(e, TABLE_USER)) {
        return refuse_capacity(r, LIMIT_USERS);
    }

    /* Must succeed from here. */
    if (slot == 0) {
        slot = user_add(e, c->deny.user, hash);
    }
    if (user_denied(e, user_at(e, slot))) {
        r->flags |= REPLY_EXISTED;
    }
    set_denial(e, slot, until_ms, c->deny.reason);
    r->expires_ms = until_ms;
    return RESULT_OK;
}

enum result denial_remove(struct engine *e, const struct command *c, struct reply *r)
{
    uint32_t slot = user_find(e, c->deny.user, hash_str(&e->secret, c->deny.user));
    if (slot == 0 || (!user_denied(e, user_at(e, slot)) && user_at(e, slot)->strikes == 0)) {
        return refuse_not_found(r, SUBJECT_USER);
    }

    /* Must succeed from here. */
    clear_denial(e, slot);
    user_edit(e, slot)->strikes = 0;
    user_release(e, slot);
    return RESULT_OK;
}
