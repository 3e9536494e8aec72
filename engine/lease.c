/* Leases: named locks with an owner, an expiry and a fencing token. Tokens grow over the life of the
 * group and are never given twice, so whoever guards a resource can tell an old owner from a new one
 * (only the highest token seen may write).
 *
 * A lease that has expired does not exist, even when the bounded work of this batch has not removed
 * it yet. */
#include "engine/parts.h"

static uint64_t name_hash(const struct engine *e, struct str name)
{
    return hash_str(&e->secret, name);
}

static uint64_t lease_hash_of(const void *ctx, uint32_t slot)
{
    const struct engine *e = ctx;
    const struct lease *l = lease_at(e, slot);
    return name_hash(e, (struct str){l->name, l->name_size});
}

void lease_end(struct engine *e, uint32_t slot)
{
    map_remove(&e->leases, lease_hash_of(e, slot), slot, lease_hash_of, e);
    due_heap_remove(&e->lease_ends, slot);
    slab_give(e, TABLE_LEASE, slot);
}

uint32_t lease_find(const struct engine *e, struct str name)
{
    uint32_t slot;
    for (struct map_walk w = map_find(&e->leases, name_hash(e, name)); (slot = map_next(&w)) != 0;) {
        const struct lease *l = lease_at(e, slot);
        if (str_equal((struct str){l->name, l->name_size}, name)) {
            return slot;
        }
    }
    return 0;
}

/* The lease if it is alive; one that is not is removed on the way. */
static uint32_t find_alive(struct engine *e, struct str name)
{
    uint32_t slot = lease_find(e, name);
    if (slot != 0 && lease_at(e, slot)->expires_ms <= e->root->time_ms) {
        lease_end(e, slot);
        return 0;
    }
    return slot;
}

static bool owned_by(const struct engine *e, uint32_t slot, struct str owner)
{
    const struct lease *l = lease_at(e, slot);
    return str_equal((struct str){l->owner, l->owner_size}, owner);
}

static void extend(struct engine *e, uint32_t slot, uint64_t ttl_ms, struct reply *r)
{
    struct lease *l = lease_edit(e, slot);
    l->expires_ms = e->root->time_ms + (int64_t)ttl_ms;
    due_heap_put(&e->lease_ends, slot, l->expires_ms);
    r->token = l->token;
    r->expires_ms = l->expires_ms;
}

enum result lease_acquire(struct engine *e, const struct command *c, struct reply *r)
{
    struct str name = c->lease.name, owner = c->lease.owner;
    uint32_t slot = find_alive(e, name);
    if (slot != 0 && !owned_by(e, slot, owner)) {
        r->expires_ms = lease_at(e, slot)->expires_ms;
        return RESULT_LEASE_HELD;
    }
    if (slot == 0 && slab_full(e, TABLE_LEASE)) {
        return refuse_capacity(r, LIMIT_LEASES);
    }

    /* Must succeed from here. */
    if (slot == 0) {
        slot = slab_take(e, TABLE_LEASE);
        struct lease *l = lease_edit(e, slot);
        l->token = ++e->root->lease_token;
        l->name_size = (uint8_t)name.len;
        memcpy(l->name, name.ptr, name.len);
        l->owner_size = (uint8_t)owner.len;
        memcpy(l->owner, owner.ptr, owner.len);
        map_insert(&e->leases, name_hash(e, name), slot);
    }
    extend(e, slot, c->lease.ttl_ms, r);
    return RESULT_OK;
}

/* The lease that owner and token prove to be the caller's, or why not. */
static enum result check_holder(struct engine *e, const struct command *c, uint32_t *slot,
                                struct reply *r)
{
    *slot = find_alive(e, c->lease.name);
    if (*slot == 0) {
        return refuse_not_found(r, SUBJECT_LEASE);
    }
    if (!owned_by(e, *slot, c->lease.owner) || lease_at(e, *slot)->token != c->lease.token) {
        return RESULT_STALE_FENCING_TOKEN;
    }
    return RESULT_OK;
}

enum result lease_renew(struct engine *e, const struct command *c, struct reply *r)
{
    uint32_t slot;
    enum result check = check_holder(e, c, &slot, r);
    if (check != RESULT_OK) {
        return check;
    }
    extend(e, slot, c->lease.ttl_ms, r);
    return RESULT_OK;
}

enum result lease_release(struct engine *e, const struct command *c, struct reply *r)
{
    uint32_t slot;
    enum result check = check_holder(e, c, &slot, r);
    if (check != RESULT_OK) {
        return check;
    }
    r->token = c->lease.token;
    lease_end(e, slot);
    return RESULT_OK;
}
