/* What the engine holds, read page by page from the leader: see audit.h. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "proto/order_id.h"
#include "tools/ctl/audit.h"

/* Grows an array by doubling; *items holds `count` of `size` bytes each with room for one more
 * after. */
static void *make_room(void *items, size_t count, size_t size)
{
    if (count != 0 && (count & (count - 1)) != 0) {
        return items; /* room is always the next power of two */
    }
    void *more = realloc(items, (count == 0 ? 1 : 2 * count) * size);
    CHECK(more != NULL);
    return more;
}

/* ---- pages ---- */

typedef size_t (*take_page)(void *ctx, const Holdfast__Response *response);

struct paged {
    Holdfast__Request__BodyCase body;
    uint64_t target, min_index;
    bool loud; /* say on standard error what went wrong */
    take_page take;
    void *ctx;
    uint64_t first_index, index; /* out: of the first and of the last page */
};

static enum ctl_exit read_pages(struct audit *a, struct paged *p)
{
    char *cursor = strdup("");
    CHECK(cursor != NULL);
    enum ctl_exit rv;
    do {
        Holdfast__List list = HOLDFAST__LIST__INIT;
        Holdfast__Request request = HOLDFAST__REQUEST__INIT;
        Holdfast__Response *response;
        const char *wrong;
        list.cursor = cursor;
        list.limit = CTL_PAGE_ITEMS;
        request.body_case = p->body;
        request.list_skus = &list; /* every list has the same place in the union */
        request.consistency = p->target == CLIENT_TARGET_LEADER
                                  ? HOLDFAST__CONSISTENCY__CONSISTENCY_STRONG
                                  : HOLDFAST__CONSISTENCY__CONSISTENCY_INDEX;
        request.min_index = p->min_index;
        rv = p->loud ? ctl_call(a->ctl, &request, p->target, &response)
                     : ctl_call_quietly(a->ctl, &request, p->target, a->ctl->timeout_ms, &response,
                                        &wrong);
        if (rv == CTL_OK) {
            p->take(p->ctx, response);
            p->index = response->index;
            p->first_index = p->first_index == 0 ? response->index : p->first_index;
            free(cursor);
            cursor = strdup(response->next_cursor);
            CHECK(cursor != NULL);
        }
        if (response != NULL) {
            holdfast__response__free_unpacked(response, NULL);
        }
    } while (rv == CTL_OK && cursor[0] != '\0');
    free(cursor);
    return rv;
}
_Static_assert(offsetof(Holdfast__Request, list_skus) == offsetof(Holdfast__Request, list_orders) &&
                   offsetof(Holdfast__Request, list_skus) ==
                       offsetof(Holdfast__Request, list_sales) &&
                   offsetof(Holdfast__Request, list_skus) ==
                       offsetof(Holdfast__Request, list_eligibilities),
               "read_pages fills any list through one member");

/* ---- SKUs ---- */

struct sku_pages {
    struct audit_sku *skus;
    size_t count;
};

static size_t take_skus(void *ctx, const Holdfast__Response *response)
{
    struct sku_pages *p = ctx;
    if (response->body_case != HOLDFAST__RESPONSE__BODY_SKUS) {
        return 0;
    }
    for (size_t i = 0; i < response->skus->n_items; i++) {
        const Holdfast__Sku *s = response->skus->items[i];
        p->skus = make_room(p->skus, p->count, sizeof p->skus[0]);
        struct audit_sku *to = &p->skus[p->count++];
        *to = (struct audit_sku){.available = s->available,
                                 .reserved = s->reserved,
                                 .sold = s->sold,
                                 .received = s->received};
        str_copy(to->id, sizeof to->id, str_from(s->id));
    }
    return response->skus->n_items;
}

static int by_sku(const void *x, const void *y)
{
    return strcmp(((const struct audit_sku *)x)->id, ((const struct audit_sku *)y)->id);
}

enum ctl_exit audit_skus_read(struct audit *a, uint64_t target, uint64_t min_index,
                              struct audit_sku **skus, size_t *count, uint64_t *index)
{
    struct sku_pages pages = {NULL, 0};
    struct paged p = {.body = HOLDFAST__REQUEST__BODY_LIST_SKUS,
                      .target = target,
                      .min_index = min_index,
                      .loud = target == CLIENT_TARGET_LEADER,
                      .take = take_skus,
                      .ctx = &pages};
    enum ctl_exit rv = read_pages(a, &p);
    if (pages.count > 0) {
        qsort(pages.skus, pages.count, sizeof pages.skus[0], by_sku);
    }
    *skus = pages.skus;
    *count = pages.count;
    *index = p.index;
    return rv;
}

/* ---- orders, eligibilities, sales ---- */

static size_t take_orders(void *ctx, const Holdfast__Response *response)
{
    struct audit_engine *e = ctx;
    if (response->body_case != HOLDFAST__RESPONSE__BODY_ORDERS) {
        return 0;
    }
    for (size_t i = 0; i < response->orders->n_items; i++) {
        const Holdfast__Order *o = response->orders->items[i];
        e->orders = make_room(e->orders, e->orders_count, sizeof e->orders[0]);
        struct text content = TEXT_INIT;
        text_appendf(&content, "%s %s %s", o->user, o->sale, o->currency);
        for (size_t j = 0; j < o->n_lines; j++) {
            text_appendf(&content, " %s=%u@%" PRId64, o->lines[j]->sku, o->lines[j]->quantity,
                         o->lines[j]->unit_price);
        }
        e->orders[e->orders_count++] = (struct audit_order){.id = o->id,
                                                            .version = o->version,
                                                            .created_index = o->created_index,
                                                            .amount = o->amount,
                                                            .status = o->status,
                                                            .shard = order_id_shard(o->id),
                                                            .content = content.data};
    }
    return response->orders->n_items;
}

static size_t take_rights(void *ctx, const Holdfast__Response *response)
{
    struct audit_engine *e = ctx;
    if (response->body_case != HOLDFAST__RESPONSE__BODY_ELIGIBILITIES) {
        return 0;
    }
    for (size_t i = 0; i < response->eligibilities->n_items; i++) {
        const Holdfast__Eligibility *x = response->eligibilities->items[i];
        if (!x->granted) {
            continue; /* revoked, or the user only ordered */
        }
        e->rights = make_room(e->rights, e->rights_count, sizeof e->rights[0]);
        struct text name = TEXT_INIT;
        text_appendf(&name, "%s %s", x->sale, x->user);
        e->rights[e->rights_count++] = (struct audit_right){name.data};
    }
    return response->eligibilities->n_items;
}

static size_t take_sales(void *ctx, const Holdfast__Response *response)
{
    struct audit_engine *e = ctx;
    if (response->body_case != HOLDFAST__RESPONSE__BODY_SALES) {
        return 0;
    }
    for (size_t i = 0; i < response->sales->n_items; i++) {
        const Holdfast__Sale *s = response->sales->items[i];
        e->sales = make_room(e->sales, e->sales_count, sizeof e->sales[0]);
        struct audit_sale *to = &e->sales[e->sales_count++];
        *to = (struct audit_sale){.over = s->closes_ms <= response->time_ms};
        str_copy(to->id, sizeof to->id, str_from(s->id));
    }
    return response->sales->n_items;
}

static int by_order(const void *x, const void *y)
{
    uint64_t a = ((const struct audit_order *)x)->id, b = ((const struct audit_order *)y)->id;
    return a < b ? -1 : a > b ? 1 : 0;
}

static int by_right(const void *x, const void *y)
{
    return strcmp(((const struct audit_right *)x)->name, ((const struct audit_right *)y)->name);
}

static int by_sale(const void *x, const void *y)
{
    return strcmp(((const struct audit_sale *)x)->id, ((const struct audit_sale *)y)->id);
}

/* ---- the persister ---- */

enum ctl_exit audit_persist_read(struct audit *a, struct audit_persist *p, uint64_t *acked,
                                 uint32_t shards)
{
    Holdfast__PersistStatus body = HOLDFAST__PERSIST_STATUS__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__Response *response;
    request.body_case = HOLDFAST__REQUEST__BODY_PERSIST_STATUS;
    request.persist_status = &body;
    request.consistency = HOLDFAST__CONSISTENCY__CONSISTENCY_STRONG;
    enum ctl_exit rv = ctl_call(a->ctl, &request, CLIENT_TARGET_LEADER, &response);
    if (rv != CTL_OK) {
        return rv;
    }
    *p = (struct audit_persist){0};
    if (response->body_case == HOLDFAST__RESPONSE__BODY_PERSIST_STATUS) {
        const Holdfast__PersistStatusResult *s = response->persist_status;
        p->configured = s->configured;
        p->connected = s->connected;
        p->events_first = s->events_first;
        p->events_next = s->events_next;
        str_copy(p->error, sizeof p->error, str_from(s->error));
        for (size_t i = 0; acked != NULL && i < s->n_shards; i++) {
            if (s->shards[i]->shard < shards) {
                acked[s->shards[i]->shard] = s->shards[i]->sequence;
            }
        }
    } else {
        ctl_say("the node's answer is not a persister's status");
        rv = CTL_FAILURE;
    }
    holdfast__response__free_unpacked(response, NULL);
    return rv;
}

static enum ctl_exit read_identity(struct audit *a, struct audit_engine *e)
{
    Holdfast__Response *response;
    enum ctl_exit rv = ctl_read_status(a->ctl, CLIENT_TARGET_LEADER, &response);
    if (rv != CTL_OK) {
        return rv;
    }
    if (response->node_status->cluster_id.len == LINK_CLUSTER_ID_SIZE &&
        response->node_status->shards >= 1 && response->node_status->shards <= SHARDS_MAX) {
        const uint8_t *id = response->node_status->cluster_id.data;
        e->shards = response->node_status->shards;
        for (size_t i = 0, at = 0; i < LINK_CLUSTER_ID_SIZE; i++) {
            bool dash = i == 4 || i == 6 || i == 8 || i == 10;
            at += (size_t)snprintf(e->cluster_id + at, sizeof e->cluster_id - at, "%s%02x",
                                   dash ? "-" : "", id[i]);
        }
    } else {
        ctl_say("the leader does not tell the cluster's id and shards");
        rv = CTL_FAILURE;
    }
    holdfast__response__free_unpacked(response, NULL);
    return rv;
}

/* ---- all of it ---- */

enum ctl_exit audit_engine_read(struct audit *a, struct audit_engine *e)
{
    *e = (struct audit_engine){0};
    struct audit_persist before, after;
    uint64_t index;
    enum ctl_exit rv = read_identity(a, e);
    rv = rv == CTL_OK ? audit_persist_read(a, &before, NULL, 0) : rv;
    const struct {
        Holdfast__Request__BodyCase body;
        take_page take;
    } lists[] = {{HOLDFAST__REQUEST__BODY_LIST_ORDERS, take_orders},
                 {HOLDFAST__REQUEST__BODY_LIST_ELIGIBILITIES, take_rights},
                 {HOLDFAST__REQUEST__BODY_LIST_SALES, take_sales}};
    for (size_t i = 0; rv == CTL_OK && i < ARRAY_COUNT(lists); i++) {
        struct paged p = {.body = lists[i].body,
                          .target = CLIENT_TARGET_LEADER,
                          .loud = true,
                          .take = lists[i].take,
                          .ctx = e};
        rv = read_pages(a, &p);
        e->index = i == 0 ? p.first_index : e->index;
    }
    rv = rv == CTL_OK
             ? audit_skus_read(a, CLIENT_TARGET_LEADER, 0, &e->skus, &e->skus_count, &index)
             : rv;
    rv = rv == CTL_OK ? audit_persist_read(a, &after, NULL, 0) : rv;
    if (rv != CTL_OK) {
        return rv;
    }
    e->events_next = after.events_next;
    e->quiet = before.events_next == after.events_next;
    if (e->orders_count > 0) {
        qsort(e->orders, e->orders_count, sizeof e->orders[0], by_order);
    }
    if (e->rights_count > 0) {
        qsort(e->rights, e->rights_count, sizeof e->rights[0], by_right);
    }
    if (e->sales_count > 0) {
        qsort(e->sales, e->sales_count, sizeof e->sales[0], by_sale);
    }
    e->acked = calloc(e->shards, sizeof e->acked[0]);
    CHECK(e->acked != NULL);
    return CTL_OK;
}

void audit_engine_close(struct audit_engine *e)
{
    for (size_t i = 0; i < e->orders_count; i++) {
        free(e->orders[i].content);
    }
    for (size_t i = 0; i < e->rights_count; i++) {
        free(e->rights[i].name);
    }
    free(e->orders);
    free(e->rights);
    free(e->sales);
    free(e->skus);
    free(e->acked);
    *e = (struct audit_engine){0};
}
