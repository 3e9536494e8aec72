/* views: see views.h. One pair of functions a resource: fill one message, list many. */
#include "server/views.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"

/* Calls of an engine list for one page: bounds the time of one request. */
#define LIST_ROUNDS_MAX 1024
/* Of the digest that is asked for: some 2 ms of the loop. */
#define DIGEST_BLOCKS_MAX 16384
_Static_assert(LIST_ROUNDS_MAX > VIEWS_LIST_LIMIT_MAX, "a full page can be reached");

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

/* Each resource: the one that a get_* names, and the next one of a list_*, as a message; NULL when
 * there is none (a list may go on all the same: see engine_list_*). */

static void *get_sku(struct answer *a)
{
    struct sku_view view;
    return engine_get_sku(a->engine, str_from(a->request->get_sku->id), &view) ? put_sku(a, &view)
                                                                               : NULL;
}

static void *next_sku(struct answer *a, const Holdfast__List *list, uint64_t *cursor)
{
    struct sku_view view;
    (void)list;
    return engine_list_skus(a->engine, cursor, &view, 1) == 1 ? put_sku(a, &view) : NULL;
}

static void *get_sale(struct answer *a)
{
    struct sale_view view;
    return engine_get_sale(a->engine, str_from(a->request->get_sale->id), &view)
               ? put_sale(a, &view)
               : NULL;
}

static void *next_sale(struct answer *a, const Holdfast__List *list, uint64_t *cursor)
{
    struct sale_view view;
    (void)list;
    return engine_list_sales(a->engine, cursor, &view, 1) == 1 ? put_sale(a, &view) : NULL;
}

static void *get_order(struct answer *a)
{
    struct order_view view;
    return engine_get_order(a->engine, a->request->get_order->id, &view) ? put_order(a, &view)
                                                                         : NULL;
}

static void *next_order(struct answer *a, const Holdfast__List *list, uint64_t *cursor)
{
    struct order_view view;
    return engine_list_orders(a->engine, str_from(list->sale), str_from(list->user), cursor, &view,
                              1) == 1
               ? put_order(a, &view)
               : NULL;
}

static void *get_eligibility(struct answer *a)
{
    struct eligibility_view view;
    return engine_get_eligibility(a->engine, str_from(a->request->get_eligibility->sale),
                                  str_from(a->request->get_eligibility->user), &view)
               ? put_eligibility(a, &view)
               : NULL;
}

static void *next_eligibility(struct answer *a, const Holdfast__List *list, uint64_t *cursor)
{
    struct eligibility_view view;
    return engine_list_eligibilities(a->engine, str_from(list->sale), cursor, &view, 1) == 1
               ? put_eligibility(a, &view)
               : NULL;
}

static void *get_lease(struct answer *a)
{
    struct lease_view view;
    return engine_get_lease(a->engine, str_from(a->request->get_lease->name), &view)
               ? put_lease(a, &view)
               : NULL;
}

static void *next_lease(struct answer *a, const Holdfast__List *list, uint64_t *cursor)
{
    struct lease_view view;
    (void)list;
    return engine_list_leases(a->engine, cursor, &view, 1) == 1 ? put_lease(a, &view) : NULL;
}

static void *get_denial(struct answer *a)
{
    struct denial_view view;
    return engine_get_denial(a->engine, str_from(a->request->get_denial->user), &view)
               ? put_denial(a, &view)
               : NULL;
}

static void *next_denial(struct answer *a, const Holdfast__List *list, uint64_t *cursor)
{
    struct denial_view view;
    (void)list;
    return engine_list_denials(a->engine, cursor, &view, 1) == 1 ? put_denial(a, &view) : NULL;
}

/* All containers of node.proto (Skus, Sales, …) have this shape, and the body of a Response is a
 * union of pointers to them. */
struct container {
    ProtobufCMessage base;
    size_t n_items;
    void **items;
};
_Static_assert(sizeof(struct container) == sizeof(Holdfast__Skus), "one shape");
_Static_assert(sizeof(struct container) == sizeof(Holdfast__Sales), "one shape");
_Static_assert(sizeof(struct container) == sizeof(Holdfast__Orders), "one shape");
_Static_assert(sizeof(struct container) == sizeof(Holdfast__Eligibilities), "one shape");
_Static_assert(sizeof(struct container) == sizeof(Holdfast__Leases), "one shape");
_Static_assert(sizeof(struct container) == sizeof(Holdfast__Denials), "one shape");

struct resource {
    Holdfast__Request__BodyCase get_case, list_case;
    Holdfast__Response__BodyCase body_case;
    const ProtobufCMessageDescriptor *container;
    void *(*get)(struct answer *a);
    void *(*next)(struct answer *a, const Holdfast__List *list, uint64_t *cursor);
};

static const struct resource resources[] = {
    {HOLDFAST__REQUEST__BODY_GET_SKU, HOLDFAST__REQUEST__BODY_LIST_SKUS,
     HOLDFAST__RESPONSE__BODY_SKUS, &holdfast__skus__descriptor, get_sku, next_sku},
    {HOLDFAST__REQUEST__BODY_GET_SALE, HOLDFAST__REQUEST__BODY_LIST_SALES,
     HOLDFAST__RESPONSE__BODY_SALES, &holdfast__sales__descriptor, get_sale, next_sale},
    {HOLDFAST__REQUEST__BODY_GET_ORDER, HOLDFAST__REQUEST__BODY_LIST_ORDERS,
     HOLDFAST__RESPONSE__BODY_ORDERS, &holdfast__orders__descriptor, get_order, next_order},
    {HOLDFAST__REQUEST__BODY_GET_ELIGIBILITY, HOLDFAST__REQUEST__BODY_LIST_ELIGIBILITIES,
     HOLDFAST__RESPONSE__BODY_ELIGIBILITIES, &holdfast__eligibilities__descriptor, get_eligibility,
     next_eligibility},
    {HOLDFAST__REQUEST__BODY_GET_LEASE, HOLDFAST__REQUEST__BODY_LIST_LEASES,
     HOLDFAST__RESPONSE__BODY_LEASES, &holdfast__leases__descriptor, get_lease, next_lease},
    {HOLDFAST__REQUEST__BODY_GET_DENIAL, HOLDFAST__REQUEST__BODY_LIST_DENIALS,
     HOLDFAST__RESPONSE__BODY_DENIALS, &holdfast__denials__descriptor, get_denial, next_denial},
};

static struct container *container_create(struct answer *a, const struct resource *r,
                                          size_t items_max)
{
    struct container *c = arena_alloc(a->arena, sizeof *c);
    protobuf_c_message_init(r->container, c);
    c->items = arena_alloc(a->arena, items_max * sizeof c->items[0]);
    return c;
}

static void answer_one(struct answer *a, const struct resource *r)
{
    void *item = r->get(a);
    if (item == NULL) {
        refuse(a, HOLDFAST__STATUS__STATUS_NOT_FOUND, "no such thing");
        return;
    }
    struct container *c = container_create(a, r, 1);
    c->items[c->n_items++] = item;
    a->response->body_case = r->body_case;
    a->response->skus = (Holdfast__Skus *)(void *)c;
}

static void answer_list(struct answer *a, const struct resource *r)
{
    const Holdfast__List *list =
        a->request->list_skus; /* every list_* is a List in the same union */
    struct page page;
    if (!page_open(a, list, &page)) {
        return;
    }
    struct container *c = container_create(a, r, page.limit);
    while (page_more(&page)) {
        void *item = r->next(a, list, &page.cursor);
        if (item != NULL) {
            c->items[page.count++] = item;
        }
    }
    c->n_items = page.count;
    page_close(a, &page);
    a->response->body_case = r->body_case;
    a->response->skus = (Holdfast__Skus *)(void *)c;
}

static void answer_placed(struct answer *a)
{
    struct reply reply;
    const Holdfast__GetPlaced *get = a->request->get_placed;
    if (!engine_get_placed(a->engine, str_from(get->scope), str_from(get->key), &reply)) {
        refuse(a, HOLDFAST__STATUS__STATUS_NOT_FOUND, "no order request under this key");
        return;
    }
    uint8_t *bytes = arena_alloc(a->arena, REPLY_SIZE);
    reply_encode(&reply, bytes);
    a->response->body_case = HOLDFAST__RESPONSE__BODY_PLACED;
    a->response->placed.data = bytes;
    a->response->placed.len = REPLY_SIZE;
}

static void answer_digest(struct answer *a)
{
    uint64_t digest = 0;
    (void)engine_settle(a->engine, DIGEST_BLOCKS_MAX);
    enum engine_mark mark =
        engine_get_mark(a->engine, a->request->marked_digest->index, &digest);
    if (mark == ENGINE_MARK_PENDING) {
        refuse(a, HOLDFAST__STATUS__STATUS_BUSY, "the digest is being worked out");
        return;
    }
    if (mark == ENGINE_MARK_UNKNOWN) {
        bool passed = engine_index(a->engine) >= a->request->marked_digest->index;
        refuse(a, HOLDFAST__STATUS__STATUS_NOT_FOUND,
               passed ? "no digest is remembered for this index" : "this index is not applied yet");
        return;
    }
    a->response->body_case = HOLDFAST__RESPONSE__BODY_DIGEST;
    a->response->digest = digest;
}

static void answer_check(struct answer *a)
{
    char first[256] = "";
    Holdfast__CheckInvariantsResult *m = arena_alloc(a->arena, sizeof *m);
    holdfast__check_invariants_result__init(m);
    m->violations = engine_check(a->engine, first, sizeof first);
    m->first = keep(a, str_from(first));
    m->digest = engine_digest(a->engine);
    a->response->body_case = HOLDFAST__RESPONSE__BODY_CHECK_INVARIANTS;
    a->response->check_invariants = m;
}

/* Returns false when the request is none of ours. */
static bool answer(struct answer *a)
{
    for (size_t i = 0; i < ARRAY_COUNT(resources); i++) {
        if (a->request->body_case == resources[i].get_case) {
            answer_one(a, &resources[i]);
            return true;
        }
        if (a->request->body_case == resources[i].list_case) {
            answer_list(a, &resources[i]);
            return true;
        }
    }
    switch ((int)a->request->body_case) {
    case HOLDFAST__REQUEST__BODY_GET_PLACED:
        answer_placed(a);
        return true;
    case HOLDFAST__REQUEST__BODY_MARKED_DIGEST:
        answer_digest(a);
        return true;
    case HOLDFAST__REQUEST__BODY_CHECK_INVARIANTS:
        answer_check(a);
        return true;
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
