/* views: see views.h. One pair of functions a resource: fill one message, list many. */
#include "server/views.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"

#define LIST_ROUNDS_MAX 256 /* calls of an engine list for one page: bounds the time of one request */

struct answer {
    struct engine *engine;
    const Holdfast__Request *request;
    Holdfast__Response *response;
    struct arena *arena;
};

static char *keep(struct answer *a, struct str s)
{
    char *copy = arena_alloc(a->arena, (size_t)s.len + 1);
    str_copy(copy, (size_t)s.len + 1, s);
    return copy;
}

static void refuse(struct answer *a, Holdfast__Status status, const char *why)
{
    a->response->status = status;
    a->response->message = keep(a, str_from(why));
}

/* ---- one of each ---- */

static Holdfast__Sku *put_sku(struct answer *a, const struct sku_view *v)
{
    Holdfast__Sku *m = arena_alloc(a->arena, sizeof *m);
    holdfast__sku__init(m);
    m->id = keep(a, v->id);
    m->title = keep(a, v->title);
    m->version = v->version;
    m->available = v->available;
    m->reserved = v->reserved;
    m->sold = v->sold;
    m->received = v->received;
    m->oversell_allowance = v->oversell_allowance;
    return m;
}

static Holdfast__Offer *put_offer(struct answer *a, const struct offer_view *v)
{
    Holdfast__Offer *m = arena_alloc(a->arena, sizeof *m);
    holdfast__offer__init(m);
    m->sku = keep(a, v->sku);
    m->unit_price = v->unit_price;
    m->units_per_order_max = v->units_per_order_max;
    m->oversell_allowance = v->oversell_allowance;
    m->available = v->available;
    m->reserved = v->reserved;
    m->sold = v->sold;
    return m;
}

static Holdfast__Sale *put_sale(struct answer *a, const struct sale_view *v)
{
    Holdfast__Sale *m = arena_alloc(a->arena, sizeof *m);
    holdfast__sale__init(m);
    m->id = keep(a, v->id);
    m->title = keep(a, v->title);
    m->version = v->version;
    m->phase = v->phase;
    m->sold_out = v->sold_out;
    m->currency = keep(a, str_from(v->currency));
    m->eligibility_opens_ms = v->eligibility_opens_ms;
    m->eligibility_closes_ms = v->eligibility_closes_ms;
    m->opens_ms = v->opens_ms;
    m->closes_ms = v->closes_ms;
    m->payment_timeout_ms = v->payment_timeout_ms;
    m->eligibility_limit = v->eligibility_limit;
    m->denial_ms = v->denial_ms;
    m->late_payment = v->late_payment;
    m->eligibility_required = v->eligibility_required;
    m->orders_per_user_max = v->orders_per_user_max;
    m->units_per_user_max = v->units_per_user_max;
    m->eligibility_ratio_permille = v->eligibility_ratio_permille;
    m->strikes_max = v->strikes_max;
    m->eligibilities_granted = v->eligibilities_granted;
    m->orders_placed = v->orders_placed;
    m->orders_paid = v->orders_paid;
    m->orders_expired = v->orders_expired;
    m->orders_cancelled = v->orders_cancelled;
    m->n_offers = v->offers_count;
    m->offers = arena_alloc(a->arena, v->offers_count * sizeof m->offers[0] + 1);
    for (uint32_t i = 0; i < v->offers_count; i++) {
        m->offers[i] = put_offer(a, &v->offers[i]);
    }
    return m;
}

static Holdfast__Order *put_order(struct answer *a, const struct order_view *v)
{
    Holdfast__Order *m = arena_alloc(a->arena, sizeof *m);
    holdfast__order__init(m);
    m->id = v->id;
    m->version = v->version;
    m->sale = keep(a, v->sale);
    m->user = keep(a, v->user);
    m->status = v->status;
    m->currency = keep(a, str_from(v->currency));
    m->amount = v->amount;
    m->created_ms = v->created_ms;
    m->pay_by_ms = v->pay_by_ms;
    m->changed_ms = v->changed_ms;
    m->created_index = v->created_index;
    m->changed_index = v->changed_index;
    m->n_lines = v->lines_count;
    m->lines = arena_alloc(a->arena, v->lines_count * sizeof m->lines[0] + 1);
    for (uint32_t i = 0; i < v->lines_count; i++) {
        Holdfast__OrderLine *line = arena_alloc(a->arena, sizeof *line);
        holdfast__order_line__init(line);
        line->sku = keep(a, v->lines[i].sku);
        line->quantity = v->lines[i].quantity;
        line->unit_price = v->lines[i].unit_price;
        m->lines[i] = line;
    }
    return m;
}

static Holdfast__Eligibility *put_eligibility(struct answer *a, const struct eligibility_view *v)
{
    Holdfast__Eligibility *m = arena_alloc(a->arena, sizeof *m);
    holdfast__eligibility__init(m);
    m->sale = keep(a, v->sale);
    m->user = keep(a, v->user);
    m->granted_ms = v->granted_ms;
    m->granted = v->granted;
    m->orders = v->orders;
    m->units = v->units;
    return m;
}

static Holdfast__Lease *put_lease(struct answer *a, const struct lease_view *v)
{
    Holdfast__Lease *m = arena_alloc(a->arena, sizeof *m);
    holdfast__lease__init(m);
    m->name = keep(a, v->name);
    m->owner = keep(a, v->owner);
    m->token = v->token;
    m->expires_ms = v->expires_ms;
    return m;
}

static Holdfast__Denial *put_denial(struct answer *a, const struct denial_view *v)
{
    Holdfast__Denial *m = arena_alloc(a->arena, sizeof *m);
    holdfast__denial__init(m);
    m->user = keep(a, v->user);
    m->reason = keep(a, v->reason);
    m->strikes = v->strikes;
    m->until_ms = v->until_ms;
    m->denied = v->denied;
    return m;
}

/* ---- one of a kind, by id, and pages of them ---- */

/* A page: what List asks for, made whole, and where it stands. */
struct page {
    uint64_t cursor;
    size_t limit, count;
    int rounds;
};

static bool page_open(struct answer *a, const Holdfast__List *list, struct page *p)
{
    *p = (struct page){.limit = list->limit == 0 ? VIEWS_LIST_LIMIT_DEFAULT : list->limit};
    if (p->limit > VIEWS_LIST_LIMIT_MAX) {
        refuse(a, HOLDFAST__STATUS__STATUS_MALFORMED, "limit: 1 to 500");
        return false;
    }
    if (list->cursor != NULL && list->cursor[0] != '\0') {
        char *end;
        p->cursor = strtoull(list->cursor, &end, 16);
        if (*end != '\0' || p->cursor == 0) {
            refuse(a, HOLDFAST__STATUS__STATUS_MALFORMED, "cursor: not one of ours");
            return false;
        }
    }
    return true;
}

/* True while the page has room and the list goes on. */
static bool page_more(struct page *p)
{
    bool first = p->rounds++ == 0;
    return p->count < p->limit && (first || p->cursor != 0) && p->rounds <= LIST_ROUNDS_MAX;
}

static void page_close(struct answer *a, const struct page *p)
{
    if (p->cursor != 0) {
        char text[17];
        snprintf(text, sizeof text, "%" PRIx64, p->cursor);
        a->response->next_cursor = keep(a, str_from(text));
    }
}

/* The two answers of a resource. Views are filled by the engine one or a few at a time into `view`:
 * some are large, so they do not stand on the stack in hundreds. */
#define ANSWER_ONE(getter, BODY, member, Container, container, put)        \
    do {                                                                   \
        if (!(getter)) {                                                   \
            refuse(a, HOLDFAST__STATUS__STATUS_NOT_FOUND, "no such thing"); \
            return true;                                                   \
        }                                                                  \
        Container *m = arena_alloc(a->arena, sizeof *m);                   \
        holdfast__##container##__init(m);                                  \
        m->items = arena_alloc(a->arena, sizeof m->items[0]);              \
        m->items[0] = put(a, &view);                                       \
        m->n_items = 1;                                                    \
        a->response->body_case = BODY;                                     \
        a->response->member = m;                                           \
        return true;                                                       \
    } while (0)

#define ANSWER_LIST(list, lister, BODY, member, Container, container, put)     \
    do {                                                                       \
        struct page page;                                                      \
        if (!page_open(a, list, &page)) {                                      \
            return true;                                                       \
        }                                                                      \
        Container *m = arena_alloc(a->arena, sizeof *m);                       \
        holdfast__##container##__init(m);                                      \
        m->items = arena_alloc(a->arena, page.limit * sizeof m->items[0]);     \
        while (page_more(&page)) {                                             \
            if ((lister) == 1) {                                               \
                m->items[page.count++] = put(a, &view);                        \
            }                                                                  \
        }                                                                      \
        m->n_items = page.count;                                               \
        page_close(a, &page);                                                  \
        a->response->body_case = BODY;                                         \
        a->response->member = m;                                               \
        return true;                                                           \
    } while (0)

static bool answer_skus(struct answer *a)
{
    struct sku_view view;
    if (a->request->body_case == HOLDFAST__REQUEST__BODY_GET_SKU) {
        ANSWER_ONE(engine_get_sku(a->engine, str_from(a->request->get_sku->id), &view),
                   HOLDFAST__RESPONSE__BODY_SKUS, skus, Holdfast__Skus, skus, put_sku);
    }
    ANSWER_LIST(a->request->list_skus, engine_list_skus(a->engine, &page.cursor, &view, 1),
                HOLDFAST__RESPONSE__BODY_SKUS, skus, Holdfast__Skus, skus, put_sku);
}

static bool answer_sales(struct answer *a)
{
    struct sale_view view;
    if (a->request->body_case == HOLDFAST__REQUEST__BODY_GET_SALE) {
        ANSWER_ONE(engine_get_sale(a->engine, str_from(a->request->get_sale->id), &view),
                   HOLDFAST__RESPONSE__BODY_SALES, sales, Holdfast__Sales, sales, put_sale);
    }
    ANSWER_LIST(a->request->list_sales, engine_list_sales(a->engine, &page.cursor, &view, 1),
                HOLDFAST__RESPONSE__BODY_SALES, sales, Holdfast__Sales, sales, put_sale);
}

static bool answer_orders(struct answer *a)
{
    struct order_view view;
    if (a->request->body_case == HOLDFAST__REQUEST__BODY_GET_ORDER) {
        ANSWER_ONE(engine_get_order(a->engine, a->request->get_order->id, &view),
                   HOLDFAST__RESPONSE__BODY_ORDERS, orders, Holdfast__Orders, orders, put_order);
    }
    const Holdfast__List *list = a->request->list_orders;
    ANSWER_LIST(list,
                engine_list_orders(a->engine, str_from(list->sale), str_from(list->user),
                                   &page.cursor, &view, 1),
                HOLDFAST__RESPONSE__BODY_ORDERS, orders, Holdfast__Orders, orders, put_order);
}

static bool answer_eligibilities(struct answer *a)
{
    struct eligibility_view view;
    if (a->request->body_case == HOLDFAST__REQUEST__BODY_GET_ELIGIBILITY) {
        const Holdfast__GetEligibility *get = a->request->get_eligibility;
        ANSWER_ONE(engine_get_eligibility(a->engine, str_from(get->sale), str_from(get->user), &view),
                   HOLDFAST__RESPONSE__BODY_ELIGIBILITIES, eligibilities, Holdfast__Eligibilities,
                   eligibilities, put_eligibility);
    }
    const Holdfast__List *list = a->request->list_eligibilities;
    ANSWER_LIST(list,
                engine_list_eligibilities(a->engine, str_from(list->sale), &page.cursor, &view, 1),
                HOLDFAST__RESPONSE__BODY_ELIGIBILITIES, eligibilities, Holdfast__Eligibilities,
                eligibilities, put_eligibility);
}

static bool answer_leases(struct answer *a)
{
    struct lease_view view;
    if (a->request->body_case == HOLDFAST__REQUEST__BODY_GET_LEASE) {
        ANSWER_ONE(engine_get_lease(a->engine, str_from(a->request->get_lease->name), &view),
                   HOLDFAST__RESPONSE__BODY_LEASES, leases, Holdfast__Leases, leases, put_lease);
    }
    ANSWER_LIST(a->request->list_leases, engine_list_leases(a->engine, &page.cursor, &view, 1),
                HOLDFAST__RESPONSE__BODY_LEASES, leases, Holdfast__Leases, leases, put_lease);
}

static bool answer_denials(struct answer *a)
{
    struct denial_view view;
    if (a->request->body_case == HOLDFAST__REQUEST__BODY_GET_DENIAL) {
        ANSWER_ONE(engine_get_denial(a->engine, str_from(a->request->get_denial->user), &view),
                   HOLDFAST__RESPONSE__BODY_DENIALS, denials, Holdfast__Denials, denials, put_denial);
    }
    ANSWER_LIST(a->request->list_denials, engine_list_denials(a->engine, &page.cursor, &view, 1),
                HOLDFAST__RESPONSE__BODY_DENIALS, denials, Holdfast__Denials, denials, put_denial);
}

static bool answer_placed(struct answer *a)
{
    struct reply reply;
    const Holdfast__GetPlaced *get = a->request->get_placed;
    if (!engine_get_placed(a->engine, str_from(get->scope), str_from(get->key), &reply)) {
        refuse(a, HOLDFAST__STATUS__STATUS_NOT_FOUND, "no order request under this key");
        return true;
    }
    uint8_t *bytes = arena_alloc(a->arena, REPLY_SIZE);
    reply_encode(&reply, bytes);
    a->response->body_case = HOLDFAST__RESPONSE__BODY_PLACED;
    a->response->placed.data = bytes;
    a->response->placed.len = REPLY_SIZE;
    return true;
}

static bool answer_digest(struct answer *a)
{
    uint64_t digest;
    if (!engine_marked_digest(a->engine, a->request->marked_digest->index, &digest)) {
        bool passed = engine_index(a->engine) >= a->request->marked_digest->index;
        refuse(a, HOLDFAST__STATUS__STATUS_NOT_FOUND,
               passed ? "no digest is remembered for this index" : "this index is not applied yet");
        return true;
    }
    a->response->body_case = HOLDFAST__RESPONSE__BODY_DIGEST;
    a->response->digest = digest;
    return true;
}

static bool answer_check(struct answer *a)
{
    char first[256] = "";
    Holdfast__CheckInvariantsResult *m = arena_alloc(a->arena, sizeof *m);
    holdfast__check_invariants_result__init(m);
    m->violations = engine_check(a->engine, first, sizeof first);
    m->first = keep(a, str_from(first));
    m->digest = engine_digest(a->engine);
    a->response->body_case = HOLDFAST__RESPONSE__BODY_CHECK_INVARIANTS;
    a->response->check_invariants = m;
    return true;
}

static bool answer(struct answer *a)
{
    switch ((int)a->request->body_case) {
    case HOLDFAST__REQUEST__BODY_GET_SKU:
    case HOLDFAST__REQUEST__BODY_LIST_SKUS:
        return answer_skus(a);
    case HOLDFAST__REQUEST__BODY_GET_SALE:
    case HOLDFAST__REQUEST__BODY_LIST_SALES:
        return answer_sales(a);
    case HOLDFAST__REQUEST__BODY_GET_ORDER:
    case HOLDFAST__REQUEST__BODY_LIST_ORDERS:
        return answer_orders(a);
    case HOLDFAST__REQUEST__BODY_GET_ELIGIBILITY:
    case HOLDFAST__REQUEST__BODY_LIST_ELIGIBILITIES:
        return answer_eligibilities(a);
    case HOLDFAST__REQUEST__BODY_GET_LEASE:
    case HOLDFAST__REQUEST__BODY_LIST_LEASES:
        return answer_leases(a);
    case HOLDFAST__REQUEST__BODY_GET_DENIAL:
    case HOLDFAST__REQUEST__BODY_LIST_DENIALS:
        return answer_denials(a);
    case HOLDFAST__REQUEST__BODY_GET_PLACED:
        return answer_placed(a);
    case HOLDFAST__REQUEST__BODY_MARKED_DIGEST:
        return answer_digest(a);
    case HOLDFAST__REQUEST__BODY_CHECK_INVARIANTS:
        return answer_check(a);
    default:
        return false;
    }
}

bool views_answer(struct engine *e, const Holdfast__Request *request, Holdfast__Response *response,
                  struct arena *arena)
{
    struct answer a = {e, request, response, arena};
    if (!answer(&a)) {
        return false;
    }
    response->index = engine_index(e);
    response->time_ms = engine_time_ms(e);
    return true;
}
