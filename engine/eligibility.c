/* Eligibilities: the right to order in a sale, at most one per user, given out while the sale's
 * eligibility window is open and its over-granting limits allow. Taking one away leaves placed orders
 * alone. */
#include "engine/parts.h"

static bool is_eligible(const struct engine *e, uint32_t member)
{
    return member != 0 && (member_at(e, member)->flags & MEMBER_GRANTED) != 0;
}

/* Rights may exceed units by an agreed ratio: granted ≤ units × permille / 1000. */
static bool rights_left(const struct engine *e, uint32_t sale)
{
    const struct sale *s = sale_at(e, sale);
    uint64_t granted = s->eligibilities_granted + 1;
    if (s->eligibility_limit != 0 && granted > s->eligibility_limit) {
        return false;
    }
    if (s->eligibility_ratio_permille == 0) {
        return true;
    }
    uint64_t units = 0;
    for (uint32_t i = 0; i < s->offers_count; i++) {
        int64_t received = sku_at(e, s->offer_skus[i])->received;
        units += received > 0 ? (uint64_t)received : 0; /* oversold and written off: below zero */
    }
    __extension__ typedef unsigned __int128 wide;
    return (wide)granted * 1000 <= (wide)units * s->eligibility_ratio_permille;
}

static enum result check_window(const struct engine *e, const struct sale *s, struct reply *r)
{
    int64_t now = e->root->time_ms;
    bool window = s->eligibility_opens_ms != 0 || s->eligibility_closes_ms != 0;
    if (window && now >= s->eligibility_closes_ms && sale_phase_at(s, now) != SALE_CLOSED) {
        r->sale_phase = (uint8_t)sale_phase_at(s, now);
        return RESULT_SALE_CLOSED;
    }
    enum result running = sale_check_running(e, s, r);
    if (running != RESULT_OK) {
        return running;
    }
    if (window && now < s->eligibility_opens_ms) {
        r->sale_phase = SALE_SCHEDULED;
        r->opens_ms = s->eligibility_opens_ms;
        return RESULT_SALE_NOT_OPEN;
    }
    return RESULT_OK;
}

/* The checks behind those of the sale's phase, in order. */
static enum result check_grant(const struct engine *e, uint32_t sale, uint32_t user,
                               uint32_t member, struct reply *r)
{
    if (user != 0 && user_denied(e, user_at(e, user))) {
        r->expires_ms = user_at(e, user)->denied_until_ms;
        return RESULT_DENYLISTED;
    }
    if (!rights_left(e, sale)) {
        return RESULT_ELIGIBILITY_EXHAUSTED;
    }
    if (!event_room_for(e, 1)) {
        return RESULT_BACKLOG_FULL;
    }
    if (user == 0 && slab_full(e, TABLE_USER)) {
        return refuse_capacity(r, LIMIT_USERS);
    }
    if (member == 0 && slab_full(e, TABLE_MEMBER)) {
        return refuse_capacity(r, LIMIT_ELIGIBILITIES);
    }
    return RESULT_OK;
}

static void add_event(struct engine *e, enum event_kind kind, uint32_t member)
{
    const struct member *m = member_at(e, member);
    struct event *v = event_add(e, kind, user_at(e, m->user)->shard);
    v->member = member;
    sale_edit(e, m->sale)->last_event = e->root->event_next - 1;
}

enum result eligibility_grant(struct engine *e, const struct intent *in, struct reply *r)
{
    const struct command *c = &in->command;
    uint32_t sale = in->sale != 0 ? in->sale : sale_find(e, c->eligibility.sale);
    if (sale == 0) {
        return refuse_not_found(r, SUBJECT_SALE);
    }
    e->about.sale = sale;
    uint32_t user = user_find(e, c->eligibility.user, in->user_hash);
    uint32_t member = user != 0 ? member_find(e, sale, user) : 0;
    if (is_eligible(e, member)) {
        r->flags |= REPLY_EXISTED;
        r->created_ms = member_at(e, member)->granted_ms;
        return RESULT_OK;
    }
    enum result window = check_window(e, sale_at(e, sale), r);
    if (window != RESULT_OK) {
        return window;
    }
    enum result check = check_grant(e, sale, user, member, r);
    if (check != RESULT_OK) {
        return check;
    }

    /* Must succeed from here. */
    if (user == 0) {
        user = user_add(e, c->eligibility.user, in->user_hash);
    }
    if (member == 0) {
        member = member_add(e, sale, user);
    }
    struct member *m = member_edit(e, member);
    m->flags |= MEMBER_GRANTED | MEMBER_EVER_GRANTED;
    m->granted_ms = e->root->time_ms;
    sale_edit(e, sale)->eligibilities_granted++;
    add_event(e, EVENT_ELIGIBILITY_GRANTED, member);
    r->created_ms = m->granted_ms;
    return RESULT_OK;
}

enum result eligibility_revoke(struct engine *e, const struct intent *in, struct reply *r)
{
    const struct command *c = &in->command;
    uint32_t sale = in->sale != 0 ? in->sale : sale_find(e, c->eligibility.sale);
    if (sale == 0) {
        return refuse_not_found(r, SUBJECT_SALE);
    }
    e->about.sale = sale;
    uint32_t user = user_find(e, c->eligibility.user, in->user_hash);
    uint32_t member = user != 0 ? member_find(e, sale, user) : 0;
    if (!is_eligible(e, member)) {
        return refuse_not_found(r, SUBJECT_ELIGIBILITY);
    }
    if (!event_room_for(e, 1)) {
        return RESULT_BACKLOG_FULL;
    }

    /* Must succeed from here. */
    struct member *m = member_edit(e, member);
    m->flags &= ~(uint32_t)MEMBER_GRANTED;
    sale_edit(e, sale)->eligibilities_granted--;
    add_event(e, EVENT_ELIGIBILITY_REVOKED, member);
    r->created_ms = m->granted_ms;
    return RESULT_OK;
}
