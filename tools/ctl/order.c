/* order get|list|place|pay|cancel|refund. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "tools/ctl/ctl.h"

static const struct output_column columns[] = {
    {"id", "ORDER", CELL_TEXT},        {"sale", "SALE", CELL_TEXT},
    {"user", "USER", CELL_TEXT},       {"status", "STATUS", CELL_TEXT},
    {"amount", "AMOUNT", CELL_NUMBER}, {"currency", "CURRENCY", CELL_TEXT},
    {"lines", "LINES", CELL_LINES},    {"created_at", "CREATED", CELL_TEXT},
    {"pay_by", "PAY BY", CELL_TEXT},   {"version", "VERSION", CELL_NUMBER},
};

static json_t *record_of(const Holdfast__Order *o)
{
    json_t *lines = json_array();
    for (size_t i = 0; i < o->n_lines; i++) {
        json_array_append_new(lines, json_pack("{s:s, s:I, s:I}", "sku", o->lines[i]->sku,
                                               "quantity", (json_int_t)o->lines[i]->quantity,
                                               "unit_price", (json_int_t)o->lines[i]->unit_price));
    }
    return json_pack("{s:o, s:s, s:s, s:s, s:I, s:s, s:o, s:o, s:o, s:o, s:I, s:I, s:I}", "id",
                     ctl_json_order(o->id), "sale", o->sale, "user", o->user, "status",
                     order_status_name((enum order_status)o->status), "amount",
                     (json_int_t)o->amount, "currency", o->currency, "lines", lines, "created_at",
                     ctl_json_time(o->created_ms), "pay_by", ctl_json_time(o->pay_by_ms),
                     "changed_at", ctl_json_time(o->changed_ms), "version", (json_int_t)o->version,
                     "created_index", (json_int_t)o->created_index, "changed_index",
                     (json_int_t)o->changed_index);
}

static void print_reply(struct ctl *ctl, const struct reply *r)
{
    static const struct output_column changed[] = {
        {"id", "ORDER", CELL_TEXT},         {"status", "STATUS", CELL_TEXT},
        {"amount", "AMOUNT", CELL_NUMBER},  {"currency", "CURRENCY", CELL_TEXT},
        {"pay_by", "PAY BY", CELL_TEXT},    {"log_index", "LOG INDEX", CELL_NUMBER},
        {"replayed", "REPLAYED", CELL_YES},
    };
    char currency[sizeof r->currency + 1] = "";
    memcpy(currency, r->currency, sizeof r->currency);
    output_record(&ctl->output, changed, ARRAY_COUNT(changed),
                  json_pack("{s:o, s:s, s:I, s:s, s:o, s:I, s:b}", "id", ctl_json_order(r->order),
                            "status", order_status_name((enum order_status)r->order_status),
                            "amount", (json_int_t)r->amount, "currency", currency, "pay_by",
                            ctl_json_time(r->pay_by_ms), "log_index", (json_int_t)r->index,
                            "replayed", (r->flags & REPLY_REPLAYED) != 0));
}

/* Reads one order. The response is the caller's. */
static enum ctl_exit read_order(struct ctl *ctl, uint64_t id, bool strong,
                                Holdfast__Response **response)
{
    Holdfast__GetOrder body = HOLDFAST__GET_ORDER__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    uint64_t target = CLIENT_TARGET_LEADER;
    body.id = id;
    request.body_case = HOLDFAST__REQUEST__BODY_GET_ORDER;
    request.get_order = &body;
    request.consistency = HOLDFAST__CONSISTENCY__CONSISTENCY_STRONG;
    if (!strong) {
        target = ctl_read_target(ctl, &request);
    }
    enum ctl_exit rv = ctl_call(ctl, &request, target, response);
    if (rv == CTL_OK && ((*response)->body_case != HOLDFAST__RESPONSE__BODY_ORDERS ||
                         (*response)->orders->n_items != 1)) {
        ctl_say("the node's answer is not an order");
        holdfast__response__free_unpacked(*response, NULL);
        *response = NULL;
        rv = CTL_FAILURE;
    }
    return rv;
}

enum ctl_exit order_get(struct ctl *ctl)
{
    Holdfast__Response *response;
    enum ctl_exit rv = read_order(ctl, ctl_value(&ctl->arguments, "ORDER")->u64, false, &response);
    if (rv == CTL_OK) {
        output_record(&ctl->output, columns, ARRAY_COUNT(columns),
                      record_of(response->orders->items[0]));
        holdfast__response__free_unpacked(response, NULL);
    }
    return rv;
}

static void fill(Holdfast__Request *request, Holdfast__List *list)
{
    request->body_case = HOLDFAST__REQUEST__BODY_LIST_ORDERS;
    request->list_orders = list;
}

static void rows(const Holdfast__Response *response, json_t *records)
{
    if (response->body_case == HOLDFAST__RESPONSE__BODY_ORDERS) {
        for (size_t i = 0; i < response->orders->n_items; i++) {
            json_array_append_new(records, record_of(response->orders->items[i]));
        }
    }
}

static bool has_status(struct ctl *ctl, const json_t *record)
{
    return strcmp(json_string_value(json_object_get(record, "status")),
                  ctl_text(&ctl->arguments, "status")) == 0;
}

enum ctl_exit order_list(struct ctl *ctl)
{
    struct ctl_list list = {.fill = fill,
                            .rows = rows,
                            .keep = ctl_given(&ctl->arguments, "status") ? has_status : NULL,
                            .sale = ctl_text(&ctl->arguments, "sale"),
                            .user = ctl_text(&ctl->arguments, "user"),
                            .columns = columns,
                            .columns_count = ARRAY_COUNT(columns)};
    return ctl_print_list(ctl, &list);
}

/* "SKU" or "SKU=QUANTITY". */
static bool parse_line(const char *text, struct command_line *line)
{
    const char *equals = strchr(text, '=');
    uint64_t quantity = 1;
    if (equals != NULL &&
        (parse_u64(equals + 1, &quantity) != 0 || quantity < 1 || quantity > QUANTITY_MAX)) {
        return false;
    }
    line->sku =
        (struct str){text, equals != NULL ? (uint32_t)(equals - text) : (uint32_t)strlen(text)};
    line->quantity = (uint32_t)quantity;
    return str_is_identifier(line->sku, ID_SIZE_MAX);
}

enum ctl_exit order_place_run(struct ctl *ctl)
{
    const struct ctl_value *lines = ctl_value(&ctl->arguments, "line");
    struct command command = {.kind = COMMAND_ORDER_PLACE};
    command.order_place.sale = str_from(ctl_text(&ctl->arguments, "SALE"));
    command.order_place.user = str_from(ctl_text(&ctl->arguments, "user"));
    if (lines->items_count > ORDER_LINES_MAX) {
        ctl_say("an order has at most %d lines", ORDER_LINES_MAX);
        ctl_hint("several orders");
        return CTL_USAGE;
    }
    for (size_t i = 0; i < lines->items_count; i++) {
        if (!parse_line(lines->items[i], &command.order_place.lines[i])) {
            ctl_say("'%s' for --line must be SKU or SKU=QUANTITY, 1 to %d units", lines->items[i],
                    QUANTITY_MAX);
            ctl_hint("holdfastctl order place --help");
            return CTL_USAGE;
        }
        command.order_place.lines_count++;
    }
    struct reply reply;
    enum ctl_exit rv = ctl_submit(ctl, &command, &reply);
    if (rv == CTL_OK) {
        print_reply(ctl, &reply);
    }
    return rv;
}

enum ctl_exit order_pay_run(struct ctl *ctl)
{
    const struct ctl_arguments *a = &ctl->arguments;
    struct command command = {.kind = COMMAND_PAYMENT_APPLY, .scope = STR_LITERAL("pay")};
    command.payment.order = ctl_value(a, "ORDER")->u64;
    const char *currency = ctl_text(a, "currency");
    if (ctl_given(a, "amount") != (currency != NULL)) {
        ctl_say("--amount and --currency belong together; without both the order's own are paid");
        ctl_hint("holdfastctl order pay --help");
        return CTL_USAGE;
    }
    if (currency != NULL) {
        if (strlen(currency) != CURRENCY_SIZE) {
            ctl_say("'%s' for --currency must be three capital letters such as EUR", currency);
            ctl_hint("holdfastctl order pay --help");
            return CTL_USAGE;
        }
        memcpy(command.payment.currency, currency, CURRENCY_SIZE);
        command.payment.amount = (int64_t)ctl_value(a, "amount")->u64;
    } else {
        Holdfast__Response *response;
        enum ctl_exit rv = read_order(ctl, command.payment.order, true, &response);
        if (rv != CTL_OK) {
            return rv;
        }
        const Holdfast__Order *o = response->orders->items[0];
        command.payment.amount = o->amount;
        str_copy(command.payment.currency, sizeof command.payment.currency, str_from(o->currency));
        holdfast__response__free_unpacked(response, NULL);
    }
    struct reply reply;
    enum ctl_exit rv = ctl_submit(ctl, &command, &reply);
    if (rv == CTL_OK) {
        print_reply(ctl, &reply);
    }
    return rv;
}

enum ctl_exit order_cancel_run(struct ctl *ctl)
{
    struct command command = {.kind = COMMAND_ORDER_CANCEL};
    command.order_cancel.order = ctl_value(&ctl->arguments, "ORDER")->u64;
    command.order_cancel.user = str_from(ctl_text(&ctl->arguments, "user"));
    struct reply reply;
    enum ctl_exit rv = ctl_submit(ctl, &command, &reply);
    if (rv == CTL_OK) {
        print_reply(ctl, &reply);
    }
    return rv;
}

enum ctl_exit order_refund_run(struct ctl *ctl)
{
    struct command command = {.kind = COMMAND_ORDER_REFUND};
    command.order_refund.order = ctl_value(&ctl->arguments, "ORDER")->u64;
    command.order_refund.restock = ctl_given(&ctl->arguments, "restock");
    command.order_refund.reason = str_from(ctl_text(&ctl->arguments, "reason"));
    struct reply reply;
    enum ctl_exit rv = ctl_submit(ctl, &command, &reply);
    if (rv == CTL_OK) {
        print_reply(ctl, &reply);
    }
    return rv;
}
