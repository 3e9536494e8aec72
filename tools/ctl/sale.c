/* sale put|get|list|pause|resume|close. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "tools/ctl/ctl.h"
#include "tools/ctl/sale_file.h"

static const struct output_column list_columns[] = {
    {"id", "SALE", CELL_TEXT},
    {"title", "TITLE", CELL_TEXT},
    {"phase", "PHASE", CELL_TEXT},
    {"sold_out", "SOLD OUT", CELL_YES},
    {"opens_at", "OPENS", CELL_TEXT},
    {"closes_at", "CLOSES", CELL_TEXT},
    {"orders_placed", "PLACED", CELL_NUMBER},
    {"orders_paid", "PAID", CELL_NUMBER},
    {"orders_expired", "EXPIRED", CELL_NUMBER},
    {"version", "VERSION", CELL_NUMBER},
};

static const struct output_column one_columns[] = {
    {"id", "SALE", CELL_TEXT},
    {"title", "TITLE", CELL_TEXT},
    {"phase", "PHASE", CELL_TEXT},
    {"sold_out", "SOLD OUT", CELL_YES},
    {"eligibility_opens_at", "ELIGIBILITY OPENS", CELL_TEXT},
    {"eligibility_closes_at", "ELIGIBILITY CLOSES", CELL_TEXT},
    {"opens_at", "OPENS", CELL_TEXT},
    {"closes_at", "CLOSES", CELL_TEXT},
    {"payment_timeout_ms", "PAYMENT TIMEOUT", CELL_DURATION},
    {"late_payment", "LATE PAYMENT", CELL_TEXT},
    {"eligibility_required", "ELIGIBILITY REQUIRED", CELL_YES},
    {"eligibilities_granted", "ELIGIBILITIES GRANTED", CELL_NUMBER},
    {"eligibility_limit", "ELIGIBILITY LIMIT", CELL_NUMBER},
    {"eligibility_ratio_permille", "ELIGIBILITY RATIO PERMILLE", CELL_NUMBER},
    {"orders_per_user_max", "ORDERS PER USER", CELL_NUMBER},
    {"units_per_user_max", "UNITS PER USER", CELL_NUMBER},
    {"strikes_max", "STRIKES", CELL_NUMBER},
    {"denial_ms", "DENIAL", CELL_DURATION},
    {"currency", "CURRENCY", CELL_TEXT},
    {"offers", "OFFERS", CELL_LINES},
    {"orders_placed", "ORDERS PLACED", CELL_NUMBER},
    {"orders_paid", "ORDERS PAID", CELL_NUMBER},
    {"orders_expired", "ORDERS EXPIRED", CELL_NUMBER},
    {"orders_cancelled", "ORDERS CANCELLED", CELL_NUMBER},
    {"version", "VERSION", CELL_NUMBER},
};

static json_t *record_of(const Holdfast__Sale *s)
{
    json_t *offers = json_array();
    for (size_t i = 0; i < s->n_offers; i++) {
        const Holdfast__Offer *o = s->offers[i];
        json_array_append_new(offers,
                              json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "sku", o->sku,
                                        "unit_price", (json_int_t)o->unit_price,
                                        "units_per_order_max", (json_int_t)o->units_per_order_max,
                                        "oversell_allowance", (json_int_t)o->oversell_allowance,
                                        "available", (json_int_t)o->available, "reserved",
                                        (json_int_t)o->reserved, "sold", (json_int_t)o->sold));
    }
    json_t *record = json_pack(
        "{s:s, s:s, s:I, s:s, s:b, s:s, s:o, s:o, s:o, s:o}", "id", s->id, "title", s->title,
        "version", (json_int_t)s->version, "phase", sale_phase_name((enum sale_phase)s->phase),
        "sold_out", (int)s->sold_out, "currency", s->currency, "eligibility_opens_at",
        ctl_json_time(s->eligibility_opens_ms), "eligibility_closes_at",
        ctl_json_time(s->eligibility_closes_ms), "opens_at", ctl_json_time(s->opens_ms),
        "closes_at", ctl_json_time(s->closes_ms));
    json_t *policy = json_pack(
        "{s:I, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "payment_timeout_ms",
        (json_int_t)s->payment_timeout_ms, "late_payment",
        s->late_payment == LATE_PAYMENT_ACCEPT_IF_AVAILABLE ? "accept_if_available" : "refund",
        "eligibility_required", (int)s->eligibility_required, "orders_per_user_max",
        (json_int_t)s->orders_per_user_max, "units_per_user_max", (json_int_t)s->units_per_user_max,
        "eligibility_limit", (json_int_t)s->eligibility_limit, "eligibility_ratio_permille",
        (json_int_t)s->eligibility_ratio_permille, "strikes_max", (json_int_t)s->strikes_max,
        "denial_ms", (json_int_t)s->denial_ms);
    json_t *figures = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:o}", "eligibilities_granted",
        (json_int_t)s->eligibilities_granted, "orders_placed", (json_int_t)s->orders_placed,
        "orders_paid", (json_int_t)s->orders_paid, "orders_expired", (json_int_t)s->orders_expired,
        "orders_cancelled", (json_int_t)s->orders_cancelled, "offers", offers);
    json_object_update(record, policy);
    json_object_update(record, figures);
    json_decref(policy);
    json_decref(figures);
    return record;
}

static void print_reply(struct ctl *ctl, const char *id, const struct reply *r)
{
    static const struct output_column changed[] = {
        {"id", "SALE", CELL_TEXT},           {"phase", "PHASE", CELL_TEXT},
        {"version", "VERSION", CELL_NUMBER}, {"log_index", "LOG INDEX", CELL_NUMBER},
        {"replayed", "REPLAYED", CELL_YES},
    };
    output_record(&ctl->output, changed, ARRAY_COUNT(changed),
                  json_pack("{s:s, s:s, s:I, s:I, s:b}", "id", id, "phase",
                            sale_phase_name((enum sale_phase)r->sale_phase), "version",
                            (json_int_t)r->version, "log_index", (json_int_t)r->index, "replayed",
                            (r->flags & REPLY_REPLAYED) != 0));
}

/* ---- put ---- */

/* "SKU=PRICE[,max=N][,oversell=N]" */
static bool parse_offer(const char *text, struct command_offer *offer)
{
    char copy[256];
    if (!str_copy(copy, sizeof copy, str_from(text))) {
        return false;
    }
    char *rest = copy;
    char *first = strsep(&rest, ",");
    const char *equals = strchr(first, '=');
    uint64_t price;
    if (equals == NULL || parse_u64(equals + 1, &price) != 0 || price > UNIT_PRICE_MAX) {
        return false;
    }
    *offer = (struct command_offer){.sku = {text, (uint32_t)(equals - first)},
                                    .unit_price = (int64_t)price,
                                    .units_per_order_max = QUANTITY_MAX};
    for (char *item; (item = strsep(&rest, ",")) != NULL;) {
        uint64_t n;
        if (strncmp(item, "max=", 4) == 0 && parse_u64(item + 4, &n) == 0 && n >= 1 &&
            n <= QUANTITY_MAX) {
            offer->units_per_order_max = (uint32_t)n;
        } else if (strncmp(item, "oversell=", 9) == 0 && parse_u64(item + 9, &n) == 0 &&
                   n <= UINT32_MAX) {
            offer->oversell_allowance = (uint32_t)n;
        } else {
            return false;
        }
    }
    return str_is_identifier(offer->sku, ID_SIZE_MAX);
}

static enum ctl_exit read_offers(struct ctl *ctl, struct command_sale *sale)
{
    const struct ctl_value *offers = ctl_value(&ctl->arguments, "offer");
    if (offers->items_count > 0) {
        sale->offers_count = 0;
    }
    for (size_t i = 0; i < offers->items_count; i++) {
        if (!parse_offer(offers->items[i], &sale->offers[sale->offers_count])) {
            ctl_say("'%s' for --offer must be SKU=PRICE[,max=UNITS][,oversell=UNITS]",
                    offers->items[i]);
            ctl_hint("holdfastctl sale put --help");
            return CTL_USAGE;
        }
        sale->offers_count++;
    }
    return CTL_OK;
}
_Static_assert(CTL_ITEMS_MAX <= SALE_OFFERS_MAX, "offers on the command line fit a sale");

static void read_u32(const struct ctl_arguments *a, const char *name, uint32_t *to)
{
    const struct ctl_value *v = ctl_value(a, name);
    if (v->given) {
        *to = (uint32_t)v->u64; /* the table bounds it */
    }
}

static void read_u64(const struct ctl_arguments *a, const char *name, uint64_t *to)
{
    const struct ctl_value *v = ctl_value(a, name);
    if (v->given) {
        *to = v->u64;
    }
}

static enum ctl_exit read_times(struct ctl *ctl, struct command_sale *sale)
{
    const struct {
        const char *name;
        int64_t *to;
    } times[] = {{"opens", &sale->opens_ms},
                 {"closes", &sale->closes_ms},
                 {"eligibility-opens", &sale->eligibility_opens_ms},
                 {"eligibility-closes", &sale->eligibility_closes_ms}};
    for (size_t i = 0; i < ARRAY_COUNT(times); i++) {
        const struct ctl_value *v = ctl_value(&ctl->arguments, times[i].name);
        enum ctl_exit rv = v->given ? ctl_resolve_time(ctl, v, times[i].to) : CTL_OK;
        if (rv != CTL_OK) {
            return rv;
        }
    }
    return CTL_OK;
}

static enum ctl_exit read_flags(struct ctl *ctl, struct command_sale *sale)
{
    const struct ctl_arguments *a = &ctl->arguments;
    if (ctl_given(a, "title")) {
        sale->title = str_from(ctl_text(a, "title"));
    }
    const char *currency = ctl_text(a, "currency");
    if (currency != NULL && strlen(currency) != CURRENCY_SIZE) {
        ctl_say("'%s' for --currency must be three capital letters such as EUR", currency);
        ctl_hint("holdfastctl sale put --help");
        return CTL_USAGE;
    }
    if (currency != NULL) {
        memcpy(sale->currency, currency, CURRENCY_SIZE + 1);
    }
    if (ctl_given(a, "late-payment")) {
        sale->late_payment = strcmp(ctl_text(a, "late-payment"), "refund") == 0
                                 ? LATE_PAYMENT_REFUND
                                 : LATE_PAYMENT_ACCEPT_IF_AVAILABLE;
    }
    sale->eligibility_required |= ctl_given(a, "eligibility-required");
    read_u64(a, "payment-timeout", &sale->payment_timeout_ms);
    read_u64(a, "eligibility-limit", &sale->eligibility_limit);
    read_u64(a, "denial", &sale->denial_ms);
    read_u32(a, "orders-per-user", &sale->orders_per_user_max);
    read_u32(a, "units-per-user", &sale->units_per_user_max);
    read_u32(a, "eligibility-ratio-permille", &sale->eligibility_ratio_permille);
    read_u32(a, "strikes", &sale->strikes_max);
    enum ctl_exit rv = read_offers(ctl, sale);
    return rv == CTL_OK ? read_times(ctl, sale) : rv;
}

/* What no flag and no file gave, and what would not be well-formed, by name. */
static enum ctl_exit check_complete(const struct command_sale *sale)
{
    const char *missing = sale->offers_count == 0     ? "--offer SKU=PRICE"
                          : sale->currency[0] == '\0' ? "--currency EUR"
                          : sale->opens_ms == 0       ? "--opens now"
                          : sale->closes_ms == 0      ? "--closes +1h"
                                                      : NULL;
    if (missing != NULL) {
        ctl_say("a sale needs %s (or the same in --file)", missing);
        ctl_hint("holdfastctl sale put --help");
        return CTL_USAGE;
    }
    const char *wrong = sale->closes_ms <= sale->opens_ms ? "it must close after it opens"
                        : (sale->eligibility_opens_ms == 0) != (sale->eligibility_closes_ms == 0)
                            ? "eligibility must open and close, or have no window of its own"
                        : sale->eligibility_closes_ms < sale->eligibility_opens_ms
                            ? "eligibility must close after it opens"
                        : sale->eligibility_closes_ms > sale->closes_ms
                            ? "eligibility must close before the sale does"
                            : NULL;
    for (size_t i = 0; wrong == NULL && i < sale->offers_count; i++) {
        for (size_t j = 0; wrong == NULL && j < i; j++) {
            wrong = str_equal(sale->offers[i].sku, sale->offers[j].sku) ? "a SKU is offered twice"
                                                                        : NULL;
        }
    }
    if (wrong != NULL) {
        ctl_say("not a sale: %s", wrong);
        ctl_hint("holdfastctl sale put --help");
        return CTL_USAGE;
    }
    return CTL_OK;
}

enum ctl_exit sale_put_run(struct ctl *ctl)
{
    const struct ctl_arguments *a = &ctl->arguments;
    const char *id = ctl_text(a, "SALE"), *path = ctl_text(a, "file");
    const struct ctl_value *expected = ctl_value(a, "expected-version");
    struct command command = {.kind = COMMAND_SALE_PUT};
    struct command_sale *sale = &command.sale_put;
    json_t *root = NULL;
    enum ctl_exit rv = CTL_OK;
    *sale = (struct command_sale){
        .id = str_from(id),
        .payment_timeout_ms = 15 * 60 * 1000, /* the defaults of PUT /v1/sales/{id} */
        .late_payment = LATE_PAYMENT_ACCEPT_IF_AVAILABLE,
        .orders_per_user_max = 1,
        .expected_version = expected->given ? expected->u64 : COMMAND_VERSION_ANY};
    if (path != NULL) {
        struct text wrong = TEXT_INIT;
        bool has_offers;
        root = sale_file_load(path, &wrong);
        if (root == NULL || sale_file_read(root, sale, &has_offers, &wrong) != 0) {
            ctl_say("%s: %s", path, text_cstring(&wrong));
            ctl_hint("holdfastctl sale put --help");
            rv = CTL_USAGE;
        }
        text_close(&wrong);
    }
    rv = rv == CTL_OK ? read_flags(ctl, sale) : rv;
    rv = rv == CTL_OK ? check_complete(sale) : rv;
    struct reply reply;
    rv = rv == CTL_OK ? ctl_submit(ctl, &command, &reply) : rv;
    if (rv == CTL_OK) {
        print_reply(ctl, id, &reply);
    }
    json_decref(root);
    return rv;
}

/* ---- pause, resume, close ---- */

static enum ctl_exit control(struct ctl *ctl, enum command_kind kind)
{
    const char *id = ctl_text(&ctl->arguments, "SALE");
    const struct ctl_value *expected = ctl_value(&ctl->arguments, "expected-version");
    struct command command = {.kind = kind};
    command.sale_control.sale = str_from(id);
    command.sale_control.expected_version = expected->given ? expected->u64 : COMMAND_VERSION_ANY;
    struct reply reply;
    enum ctl_exit rv = ctl_submit(ctl, &command, &reply);
    if (rv == CTL_OK) {
        print_reply(ctl, id, &reply);
    }
    return rv;
}

enum ctl_exit sale_pause(struct ctl *ctl)
{
    return control(ctl, COMMAND_SALE_PAUSE);
}

enum ctl_exit sale_resume(struct ctl *ctl)
{
    return control(ctl, COMMAND_SALE_RESUME);
}

enum ctl_exit sale_close(struct ctl *ctl)
{
    const char *id = ctl_text(&ctl->arguments, "SALE");
    char what[160];
    snprintf(what, sizeof what, "sale %s will be closed for good", id);
    enum ctl_exit rv = ctl_confirm(ctl, id, what);
    return rv == CTL_OK ? control(ctl, COMMAND_SALE_CLOSE) : rv;
}

/* ---- reading ---- */

enum ctl_exit sale_get(struct ctl *ctl)
{
    Holdfast__GetSale body = HOLDFAST__GET_SALE__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__Response *response;
    body.id = ctl_lend(ctl_text(&ctl->arguments, "SALE"));
    request.body_case = HOLDFAST__REQUEST__BODY_GET_SALE;
    request.get_sale = &body;
    enum ctl_exit rv = ctl_call(ctl, &request, ctl_read_target(ctl, &request), &response);
    if (rv != CTL_OK) {
        return rv;
    }
    if (response->body_case == HOLDFAST__RESPONSE__BODY_SALES && response->sales->n_items == 1) {
        output_record(&ctl->output, one_columns, ARRAY_COUNT(one_columns),
                      record_of(response->sales->items[0]));
    } else {
        ctl_say("the node's answer is not a sale");
        rv = CTL_FAILURE;
    }
    holdfast__response__free_unpacked(response, NULL);
    return rv;
}

static void fill(Holdfast__Request *request, Holdfast__List *list)
{
    request->body_case = HOLDFAST__REQUEST__BODY_LIST_SALES;
    request->list_sales = list;
}

static void rows(const Holdfast__Response *response, json_t *records)
{
    if (response->body_case == HOLDFAST__RESPONSE__BODY_SALES) {
        for (size_t i = 0; i < response->sales->n_items; i++) {
            json_array_append_new(records, record_of(response->sales->items[i]));
        }
    }
}

enum ctl_exit sale_list(struct ctl *ctl)
{
    struct ctl_list list = {.fill = fill,
                            .rows = rows,
                            .columns = list_columns,
                            .columns_count = ARRAY_COUNT(list_columns)};
    return ctl_print_list(ctl, &list);
}
