/* Users, and their membership in sales: one record per (sale, user) holds the eligibility and counts
 * what the user has ordered there. */
#include "engine/parts.h"

#include "proto/shard.h"

struct str user_id(const struct engine *e, const struct user *u)
{
    return u->id_size <= USER_ID_INLINE ? (struct str){u->id, u->id_size}
                                        : text_get(e, u->id_text);
}

uint32_t user_find(const struct engine *e, struct str id, uint64_t hash)
{
    uint32_t slot;
    for (struct map_walk w = map_find(&e->users, hash); (slot = map_next(&w)) != 0;) {
        if (str_equal(user_id(e, user_at(e, slot)), id)) {
            return slot;
        }
    }
    return 0;
}

uint32_t user_add(struct engine *e, struct str id, uint64_t hash)
{
    uint32_t slot = slab_take(e, TABLE_USER);
    struct user *u = user_edit(e, slot);
    u->id_size = (uint8_t)id.len;
    u->shard = (uint16_t)shard_of_user(id, e->root->shards);
    if (id.len <= USER_ID_INLINE) {
        memcpy(u->id, id.ptr, id.len);
    } else {
        u->id_text = text_put(e, id);
    }
    map_insert(&e->users, hash, slot);
    return slot;
}

static uint64_t user_hash_of(const void *ctx, uint32_t slot)
{
    const struct engine *e = ctx;
    return hash_str(&e->secret, user_id(e, user_at(e, slot)));
}

void user_release(struct engine *e, uint32_t slot)
{
    const struct user *u = user_at(e, slot);
    if (u->members != 0 || u->strikes != 0 || u->denied != 0) {
        return;
    }
    map_remove(&e->users, user_hash_of(e, slot), slot, user_hash_of, e);
    if (u->id_size > USER_ID_INLINE) {
        text_drop(e, u->id_text);
    }
    slab_give(e, TABLE_USER, slot);
}

static uint64_t member_hash_of(const void *ctx, uint32_t slot)
{
    const struct engine *e = ctx;
    const struct member *m = member_at(e, slot);
    return hash_pair(&e->secret, m->sale, m->user);
}

uint32_t member_find(const struct engine *e, uint32_t sale, uint32_t user)
{
    uint32_t slot;
    struct map_walk w = map_find(&e->members, hash_pair(&e->secret, sale, user));
    while ((slot = map_next(&w)) != 0) {
        const struct member *m = member_at(e, slot);
        if (m->sale == sale && m->user == user) {
            return slot;
        }
    }
    return 0;
}

uint32_t member_add(struct engine *e, uint32_t sale, uint32_t user)
{
    uint32_t slot = slab_take(e, TABLE_MEMBER);
    struct member *m = member_edit(e, slot);
    m->sale = sale;
    m->user = user;
    struct user *u = user_edit(e, user);
    m->user_next = u->members;
    u->members = slot;
    struct sale *s = sale_edit(e, sale);
    m->sale_next = s->members;
    s->members = slot;
    map_insert(&e->members, hash_pair(&e->secret, sale, user), slot);
    return slot;
}

void member_remove(struct engine *e, uint32_t slot)
{
    const struct member *m = member_at(e, slot);
    CHECK(m->newest_order == 0);
    uint32_t user = m->user;
    if (user_at(e, user)->members == slot) {
        user_edit(e, user)->members = m->user_next;
    } else {
        uint32_t before = user_at(e, user)->members; /* as many as the user has sales */
        while (member_at(e, before)->user_next != slot) {
            before = member_at(e, before)->user_next;
        }
        member_edit(e, before)->user_next = m->user_next;
    }
    map_remove(&e->members, member_hash_of(e, slot), slot, member_hash_of, e);
    slab_give(e, TABLE_MEMBER, slot);
    user_release(e, user);
}
