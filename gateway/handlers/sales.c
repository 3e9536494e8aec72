/* Sales: what is offered, when, to whom, under which limits. */
#include "gateway/handlers.h"

#include <stdio.h>

#include "gateway/reads.h"
#include "gateway/response.h"
#include "gateway/route.h"
#include "gateway/upstream.h"

static const char *const late_payment_words[] = {
    [LATE_PAYMENT_REFUND] = "refund",
    [LATE_PAYMENT_ACCEPT_IF_AVAILABLE] = "accept_if_available",
};

static void put_time(struct json_writer *w, struct str key, int64_t ms)
{
    if (ms != 0) {
        json_key(w, key);
        json_time(w, ms);
    }
}

static void write_offer(struct json_writer *w, const Holdfast__Offer *o)
{
    json_object_begin(w);
    json_put(w, "sku", text, str_from(o->sku));
    json_put(w, "unit_price", int, o->unit_price);
    json_put(w, "units_per_order_max", uint, o->units_per_order_max);
    json_put(w, "oversell_allowance", uint, o->oversell_allowance);
    json_put(w, "available", int, o->available);
    json_put(w, "reserved", int, o->reserved);
    json_put(w, "sold", int, o->sold);
    json_object_end(w);
}

static void write_sale(struct json_writer *w, const Holdfast__Sale *s)
{
    bool known = s->late_payment < ARRAY_COUNT(late_payment_words);
    json_object_begin(w);
    json_put(w, "id", text, str_from(s->id));
    json_put(w, "title", text, str_from(s->title));
    json_put(w, "version", uint, s->version);
    json_put(w, "phase", text, str_from(sale_phase_name((enum sale_phase)s->phase)));
    json_put(w, "sold_out", bool, s->sold_out);
    json_put(w, "currency", text, str_from(s->currency));
    put_time(w, STR_LITERAL("eligibility_opens_at"), s->eligibility_opens_ms);
    put_time(w, STR_LITERAL("eligibility_closes_at"), s->eligibility_closes_ms);
    json_put(w, "opens_at", time, s->opens_ms);
    json_put(w, "closes_at", time, s->closes_ms);
    json_put(w, "payment_timeout_ms", uint, s->payment_timeout_ms);
    json_put(w, "late_payment", text, str_from(known ? late_payment_words[s->late_payment] : ""));
    json_put(w, "eligibility_required", bool, s->eligibility_required);
    json_put(w, "orders_per_user_max", uint, s->orders_per_user_max);
    json_put(w, "units_per_user_max", uint, s->units_per_user_max);
    json_put(w, "eligibility_limit", uint, s->eligibility_limit);
    json_put(w, "eligibility_ratio_permille", uint, s->eligibility_ratio_permille);
    json_put(w, "strikes_max", uint, s->strikes_max);
    json_put(w, "denial_ms", uint, s->denial_ms);
    json_put(w, "eligibilities_granted", uint, s->eligibilities_granted);
    json_put(w, "orders_placed", uint, s->orders_placed);
    json_put(w, "orders_paid", uint, s->orders_paid);
    json_put(w, "orders_expired", uint, s->orders_expired);
    json_put(w, "orders_cancelled", uint, s->orders_cancelled);
    json_key(w, STR_LITERAL("offers"));
    json_array_begin(w);
    for (size_t i = 0; i < s->n_offers; i++) {
        write_offer(w, s->offers[i]);
    }
    json_array_end(w);
    json_object_end(w);
}

static void listed(struct exchange *x, const Holdfast__Response *r)
{
    struct json_writer w = reads_page_begin(x);
    bool there = r->body_case == HOLDFAST__RESPONSE__BODY_SALES;
    for (size_t i = 0; there && i < r->sales->n_items; i++) {
        write_sale(&w, r->sales->items[i]);
    }
    reads_put_time(x, r);
    reads_page_end(x, &w, r);
}

void sales_list(struct exchange *x)
{
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__List list = HOLDFAST__LIST__INIT;
    request.body_case = HOLDFAST__REQUEST__BODY_LIST_SALES;
    request.list_sales = &list;
    if (reads_page(x, &list)) {
        upstream_read(x, &request, NULL, listed);
    }
}

static void got(struct exchange *x, const Holdfast__Response *r)
{
    if (r->body_case != HOLDFAST__RESPONSE__BODY_SALES || r->sales->n_items != 1) {
        problem_send(x, PROBLEM_INTERNAL, NULL, "A node's answer is not what was asked for.");
        return;
    }
    struct json_writer w = json_writer_init(&x->body);
    write_sale(&w, r->sales->items[0]);
    reads_put_time(x, r);
    /* Anyone may read it and everybody does in the last minute: a cache in front may answer for us. */
    response_field(x, "Cache-Control", STR_LITERAL("public, max-age=1, stale-while-revalidate=5"));
    response_send_versioned(x, r->sales->items[0]->version);
}

void sales_get(struct exchange *x)
{
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__GetSale get = HOLDFAST__GET_SALE__INIT;
    request.body_case = HOLDFAST__REQUEST__BODY_GET_SALE;
    request.get_sale = &get;
    get.id = (char *)(uintptr_t)x->params[0].ptr;
    upstream_read(x, &request, "sale", got);
}

/* ---- writing ---- */

static void read_offers(struct json_fields *f, struct command_sale *s)
{
    json_t *offers = json_read_objects(f, "offers", 1, SALE_OFFERS_MAX);
    for (size_t i = 0; offers != NULL && !f->fault->set && i < json_array_size(offers); i++) {
        struct json_fields o = json_read_element(f, "offers", offers, i);
        struct command_offer *to = &s->offers[i];
        int64_t units = QUANTITY_MAX, oversell = 0;
        json_read_id(&o, "sku", true, &to->sku);
        json_read_int(&o, "unit_price", true, 0, UNIT_PRICE_MAX, &to->unit_price);
        json_read_int(&o, "units_per_order_max", false, 1, QUANTITY_MAX, &units);
        json_read_int(&o, "oversell_allowance", false, 0, UINT32_MAX, &oversell);
        json_read_end(&o);
        to->units_per_order_max = (uint32_t)units;
        to->oversell_allowance = (uint32_t)oversell;
        s->offers_count = (uint8_t)(i + 1);
        for (size_t j = 0; j < i && !f->fault->set; j++) {
            if (str_equal(s->offers[j].sku, to->sku)) {
                json_fault_set(f->fault, o.path, "sku", "A sale offers a SKU once.");
            }
        }
    }
}

static void read_sale(struct json_fields *f, struct command_sale *s)
{
    int64_t payment_timeout = 900000, orders = 1, units = 0, limit = 0, ratio = 0, strikes = 0,
            denial = 0;
    size_t late = LATE_PAYMENT_ACCEPT_IF_AVAILABLE;
    json_read_text(f, "title", false, TITLE_SIZE_MAX, &s->title);
    json_read_currency(f, "currency", s->currency);
    json_read_time(f, "eligibility_opens_at", false, &s->eligibility_opens_ms);
    json_read_time(f, "eligibility_closes_at", false, &s->eligibility_closes_ms);
    json_read_time(f, "opens_at", true, &s->opens_ms);
    json_read_time(f, "closes_at", true, &s->closes_ms);
    json_read_int(f, "payment_timeout_ms", false, 1, DURATION_MS_MAX, &payment_timeout);
    json_read_word(f, "late_payment", false, late_payment_words, ARRAY_COUNT(late_payment_words),
                   &late);
    json_read_bool(f, "eligibility_required", false, &s->eligibility_required);
    json_read_int(f, "orders_per_user_max", false, 1, UINT32_MAX, &orders);
    json_read_int(f, "units_per_user_max", false, 0, UINT32_MAX, &units);
    json_read_int(f, "eligibility_limit", false, 0, STOCK_MAX, &limit);
    json_read_int(f, "eligibility_ratio_permille", false, 0, UINT32_MAX, &ratio);
    json_read_int(f, "strikes_max", false, 0, UINT32_MAX, &strikes);
    json_read_int(f, "denial_ms", false, 0, DURATION_MS_MAX, &denial);
    read_offers(f, s);
    json_read_end(f);
    s->payment_timeout_ms = (uint64_t)payment_timeout;
    s->late_payment = (uint8_t)late;
    s->orders_per_user_max = (uint32_t)orders;
    s->units_per_user_max = (uint32_t)units;
    s->eligibility_limit = (uint64_t)limit;
    s->eligibility_ratio_permille = (uint32_t)ratio;
    s->strikes_max = (uint32_t)strikes;
    s->denial_ms = (uint64_t)denial;
    if (f->fault->set) {
        return;
    }
    if (s->closes_ms <= s->opens_ms) {
        json_fault_set(f->fault, "", "closes_at", "A sale closes after it opens.");
    } else if ((s->eligibility_opens_ms == 0) != (s->eligibility_closes_ms == 0)) {
        json_fault_set(f->fault, "",
                       s->eligibility_opens_ms == 0 ? "eligibility_opens_at"
                                                    : "eligibility_closes_at",
                       "An eligibility window has both ends, or there is none.");
    } else if (s->eligibility_closes_ms < s->eligibility_opens_ms ||
               s->eligibility_closes_ms > s->closes_ms) {
        json_fault_set(f->fault, "", "eligibility_closes_at",
                       "An eligibility window ends after it begins and before the sale does.");
    }
}

static void was_put(struct exchange *x, const struct command *c, const struct reply *r)
{
    struct json_writer w = json_writer_init(&x->body);
    json_object_begin(&w);
    json_put(&w, "id", text, c->sale_put.id);
    json_put(&w, "title", text, c->sale_put.title);
    json_put(&w, "version", uint, r->version);
    json_object_end(&w);
    response_fieldf(x, "ETag", "\"%llu\"", (unsigned long long)r->version);
    response_send(x, r->version == 1 ? 201 : 200);
}

void sales_put(struct exchange *x)
{
    json_t *root;
    struct json_fields f;
    struct json_fault fault;
    struct command c = {.kind = COMMAND_SALE_PUT};
    c.sale_put.id = x->params[0];
    c.sale_put.title = STR_LITERAL("");
    c.sale_put.expected_version = route_expected_version(x);
    json_read_body(x->request.body, &root, &f, &fault);
    read_sale(&f, &c.sale_put);
    if (fault.set) {
        problem_send_fault(x, &fault);
    } else {
        upstream_submit(x, &c, was_put);
    }
    json_decref(root);
}

static void controlled(struct exchange *x, const struct command *c, const struct reply *r)
{
    struct json_writer w = json_writer_init(&x->body);
    json_object_begin(&w);
    json_put(&w, "id", text, c->sale_control.sale);
    json_put(&w, "version", uint, r->version);
    json_put(&w, "phase", text, str_from(sale_phase_name((enum sale_phase)r->sale_phase)));
    json_object_end(&w);
    response_fieldf(x, "ETag", "\"%llu\"", (unsigned long long)r->version);
    response_send(x, 200);
}

/* A body, where one is optional, must be an empty object. */
static bool body_is_empty(struct exchange *x)
{
    json_t *root;
    struct json_fields f;
    struct json_fault fault;
    if (x->request.body.len == 0) {
        return true;
    }
    json_read_body(x->request.body, &root, &f, &fault);
    json_read_end(&f);
    json_decref(root);
    if (fault.set) {
        problem_send_fault(x, &fault);
    }
    return !fault.set;
}

static void control(struct exchange *x, enum command_kind kind)
{
    struct command c = {.kind = kind};
    c.sale_control.sale = x->params[0];
    c.sale_control.expected_version = route_expected_version(x);
    if (body_is_empty(x)) {
        upstream_submit(x, &c, controlled);
    }
}

void sales_pause(struct exchange *x)
{
    control(x, COMMAND_SALE_PAUSE);
}

void sales_resume(struct exchange *x)
{
    control(x, COMMAND_SALE_RESUME);
}

void sales_close(struct exchange *x)
{
    control(x, COMMAND_SALE_CLOSE);
}
