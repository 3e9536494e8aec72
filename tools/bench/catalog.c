#include "tools/bench/catalog.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "proto/order_id.h"

#define PATH_SIZE_MAX   512
#define LIST_PAGE_LIMIT 500

void catalog_run_name(const char *prefix, char name[static RUN_NAME_SIZE])
{
    int n = snprintf(name, RUN_NAME_SIZE, "%s-%08x", prefix, randombytes_random());
    CHECK(n > 0 && n < RUN_NAME_SIZE);
}

void catalog_sku_name(const struct catalog *c, unsigned i, char name[static ID_SIZE_MAX + 1])
{
    int n = c->skus_count == 1 ? snprintf(name, ID_SIZE_MAX + 1, "%s", c->sku)
                               : snprintf(name, ID_SIZE_MAX + 1, "%s-%02u", c->sku, i % 100);
    CHECK(n > 0 && n <= ID_SIZE_MAX);
}

static json_t *time_json(int64_t wall_ms)
{
    char text[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(wall_ms, text);
    return json_string(text);
}

static int sku_create(struct target *t, const struct catalog *c, unsigned i)
{
    char name[ID_SIZE_MAX + 1];
    char path[PATH_SIZE_MAX];
    char key[KEY_SIZE_MAX];
    catalog_sku_name(c, i, name);
    snprintf(path, sizeof path, "/v1/skus/%s", name);
    json_t *body = json_pack("{s:s}", "title", "A thing that many people want");
    snprintf(key, sizeof key, "sku-%s", name);
    int rc = target_expect(t, TARGET_ADMIN, "PUT", path, key, body, NULL);
    json_decref(body);
    if (rc != 0) {
        return -1;
    }
    snprintf(path, sizeof path, "/v1/skus/%s/adjustments", name);
    snprintf(key, sizeof key, "stock-%s", name);
    body = json_pack("{s:I,s:s}", "delta", (json_int_t)c->stock, "reason", "delivery");
    rc = target_expect(t, TARGET_ADMIN, "POST", path, key, body, NULL);
    json_decref(body);
    return rc;
}

int catalog_create(struct target *t, const struct catalog *c)
{
    CHECK(c->skus_count >= 1 && c->skus_count <= CATALOG_SKUS_MAX);
    json_t *offers = json_array();
    for (unsigned i = 0; i < c->skus_count; i++) {
        if (sku_create(t, c, i) != 0) {
            json_decref(offers);
            return -1;
        }
        char name[ID_SIZE_MAX + 1];
        catalog_sku_name(c, i, name);
        json_array_append_new(offers, json_pack("{s:s,s:I,s:i}", "sku", name, "unit_price",
                                                (json_int_t)c->unit_price, "units_per_order_max",
                                                (int)c->units_per_order));
    }
    json_t *body = json_pack(
        "{s:s,s:s,s:o,s:o,s:I,s:i,s:b,s:s,s:o}", "title", "Flash sale", "currency",
        CATALOG_CURRENCY, "opens_at", time_json(c->opens_ms), "closes_at", time_json(c->closes_ms),
        "payment_timeout_ms", (json_int_t)c->payment_timeout_ms, "orders_per_user_max",
        (int)c->orders_per_user, "eligibility_required", c->eligibility_opens_ms != 0,
        "late_payment", "accept_if_available", "offers", offers);
    CHECK(body != NULL);
    if (c->eligibility_opens_ms != 0) {
        json_object_set_new(body, "eligibility_opens_at", time_json(c->eligibility_opens_ms));
        json_object_set_new(body, "eligibility_closes_at", time_json(c->eligibility_closes_ms));
        json_object_set_new(body, "eligibility_limit",
                            json_integer((json_int_t)c->eligibility_limit));
    }
    char path[PATH_SIZE_MAX];
    char key[KEY_SIZE_MAX];
    snprintf(path, sizeof path, "/v1/sales/%s", c->sale);
    snprintf(key, sizeof key, "sale-%s", c->sale);
    int rc = target_expect(t, TARGET_ADMIN, "PUT", path, key, body, NULL);
    json_decref(body);
    return rc;
}

int catalog_read(struct target *t, const struct catalog *c, struct catalog_figures *out)
{
    char path[PATH_SIZE_MAX];
    struct answer a;
    snprintf(path, sizeof path, "/v1/sales/%s?consistency=strong", c->sale);
    if (target_expect(t, TARGET_PUBLIC, "GET", path, NULL, NULL, &a) != 0) {
        return -1;
    }
    memset(out, 0, sizeof *out);
    str_copy(out->phase, sizeof out->phase, str_from(json_member_text(a.json, "phase")));
    out->placed = json_member_int(a.json, "orders_placed");
    out->paid = json_member_int(a.json, "orders_paid");
    out->expired = json_member_int(a.json, "orders_expired");
    out->cancelled = json_member_int(a.json, "orders_cancelled");
    out->eligibilities = json_member_int(a.json, "eligibilities_granted");
    size_t i;
    json_t *offer;
    json_array_foreach(json_object_get(a.json, "offers"), i, offer)
    {
        out->available += json_member_int(offer, "available");
        out->reserved += json_member_int(offer, "reserved");
        out->sold += json_member_int(offer, "sold");
    }
    answer_close(&a);
    return 0;
}

static int status_parse(const char *text, enum order_status *status)
{
    for (int s = ORDER_PENDING_PAYMENT; s <= ORDER_REFUNDED; s++) {
        if (strcmp(text, order_status_name((enum order_status)s)) == 0) {
            *status = (enum order_status)s;
            return 0;
        }
    }
    return -1;
}

static int order_parse(const json_t *json, struct catalog_order *o)
{
    memset(o, 0, sizeof *o);
    size_t i;
    json_t *line;
    json_array_foreach(json_object_get(json, "lines"), i, line)
    {
        o->units += (uint32_t)json_member_int(line, "quantity");
    }
    o->amount = json_member_int(json, "amount");
    return order_id_parse(str_from(json_member_text(json, "order_id")), &o->id) == 0 &&
                   status_parse(json_member_text(json, "status"), &o->status) == 0 &&
                   str_copy(o->user, sizeof o->user, str_from(json_member_text(json, "user_id")))
               ? 0
               : -1;
}

static int order_compare(const void *a, const void *b)
{
    uint64_t x = ((const struct catalog_order *)a)->id;
    uint64_t y = ((const struct catalog_order *)b)->id;
    return x < y ? -1 : x > y;
}

/* Whatever a cursor is made of, as part of a query (RFC 3986). Returns false when it does not fit.
 */
static bool query_encode(char *to, size_t size, const char *text)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 0;
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (n + 4 > size) {
            return false;
        }
        if (plain) {
            to[n++] = (char)c;
        } else {
            to[n++] = '%';
            to[n++] = hex[c >> 4];
            to[n++] = hex[c & 15];
        }
    }
    to[n] = '\0';
    return true;
}

int catalog_list(struct target *t, const struct catalog *c, struct catalog_order **orders,
                 size_t *count)
{
    size_t capacity = 1024;
    char path[PATH_SIZE_MAX];
    char cursor[128] = "";
    *count = 0;
    *orders = malloc(capacity * sizeof **orders);
    CHECK(*orders != NULL);
    do {
        struct answer a;
        snprintf(path, sizeof path, "/v1/orders?sale_id=%s&consistency=strong&limit=%d%s%s",
                 c->sale, LIST_PAGE_LIMIT, cursor[0] != '\0' ? "&cursor=" : "", cursor);
        if (target_expect(t, TARGET_PUBLIC, "GET", path, NULL, NULL, &a) != 0) {
            goto err_after_alloc;
        }
        const json_t *items = json_object_get(a.json, "items");
        size_t found = json_array_size(items);
        if (*count + found > capacity) {
            capacity = (*count + found) * 2;
            *orders = realloc(*orders, capacity * sizeof **orders);
            CHECK(*orders != NULL);
        }
        for (size_t i = 0; i < found; i++) {
            if (order_parse(json_array_get(items, i), &(*orders)[*count]) != 0) {
                fprintf(stderr, "GET %s: not an order among the items\n", path);
                answer_close(&a);
                goto err_after_alloc;
            }
            (*count)++;
        }
        bool good = query_encode(cursor, sizeof cursor, json_member_text(a.json, "next_cursor")) &&
                    json_is_array(items);
        answer_close(&a);
        if (!good) {
            fprintf(stderr, "GET %s: not a page of orders\n", path);
            goto err_after_alloc;
        }
    } while (cursor[0] != '\0');
    qsort(*orders, *count, sizeof **orders, order_compare);
    return 0;

err_after_alloc:
    free(*orders);
    *orders = NULL;
    return -1;
}
