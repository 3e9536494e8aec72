/* sku put|get|list|adjust. */
#include <string.h>

#include "base/check.h"
#include "tools/ctl/ctl.h"

static const struct output_column columns[] = {
    {"id", "SKU", CELL_TEXT},
    {"title", "TITLE", CELL_TEXT},
    {"available", "AVAILABLE", CELL_NUMBER},
    {"reserved", "RESERVED", CELL_NUMBER},
    {"sold", "SOLD", CELL_NUMBER},
    {"received", "RECEIVED", CELL_NUMBER},
    {"version", "VERSION", CELL_NUMBER},
};

static json_t *record_of(const Holdfast__Sku *s)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "id", s->id, "title", s->title,
                     "version", (json_int_t)s->version, "available", (json_int_t)s->available,
                     "reserved", (json_int_t)s->reserved, "sold", (json_int_t)s->sold, "received",
                     (json_int_t)s->received, "oversell_allowance",
                     (json_int_t)s->oversell_allowance);
}

/* After a change: what the reply witnesses. */
static void print_reply(struct ctl *ctl, const char *id, const struct reply *r)
{
    static const struct output_column changed[] = {
        {"id", "SKU", CELL_TEXT},
        {"available", "AVAILABLE", CELL_NUMBER},
        {"reserved", "RESERVED", CELL_NUMBER},
        {"sold", "SOLD", CELL_NUMBER},
        {"version", "VERSION", CELL_NUMBER},
        {"log_index", "LOG INDEX", CELL_NUMBER},
        {"replayed", "REPLAYED", CELL_YES},
    };
    output_record(&ctl->output, changed, ARRAY_COUNT(changed),
                  json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:b}", "id", id, "available",
                            (json_int_t)r->available, "reserved", (json_int_t)r->reserved, "sold",
                            (json_int_t)r->sold, "version", (json_int_t)r->version, "log_index",
                            (json_int_t)r->index, "replayed", (r->flags & REPLY_REPLAYED) != 0));
}

enum ctl_exit sku_put_run(struct ctl *ctl)
{
    const struct ctl_arguments *a = &ctl->arguments;
    const char *id = ctl_text(a, "SKU");
    const struct ctl_value *expected = ctl_value(a, "expected-version");
    struct command command = {.kind = COMMAND_SKU_PUT};
    command.sku_put.sku = str_from(id);
    command.sku_put.title = str_from(ctl_text(a, "title"));
    command.sku_put.expected_version = expected->given ? expected->u64 : COMMAND_VERSION_ANY;
    struct reply reply;
    enum ctl_exit rv = ctl_submit(ctl, &command, &reply);
    if (rv == CTL_OK) {
        print_reply(ctl, id, &reply);
    }
    return rv;
}

enum ctl_exit sku_adjust(struct ctl *ctl)
{
    const struct ctl_arguments *a = &ctl->arguments;
    const char *id = ctl_text(a, "SKU");
    struct command command = {.kind = COMMAND_STOCK_ADJUST};
    command.stock_adjust.sku = str_from(id);
    command.stock_adjust.delta = ctl_value(a, "DELTA")->i64;
    command.stock_adjust.reason = str_from(ctl_text(a, "reason"));
    if (command.stock_adjust.delta == 0) {
        ctl_say("an adjustment by 0 changes nothing");
        ctl_hint("holdfastctl sku adjust %s +100", id);
        return CTL_USAGE;
    }
    struct reply reply;
    enum ctl_exit rv = ctl_submit(ctl, &command, &reply);
    if (rv == CTL_OK) {
        print_reply(ctl, id, &reply);
    }
    return rv;
}

enum ctl_exit sku_get(struct ctl *ctl)
{
    Holdfast__GetSku body = HOLDFAST__GET_SKU__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__Response *response;
    body.id = ctl_lend(ctl_text(&ctl->arguments, "SKU"));
    request.body_case = HOLDFAST__REQUEST__BODY_GET_SKU;
    request.get_sku = &body;
    enum ctl_exit rv = ctl_call(ctl, &request, ctl_read_target(ctl, &request), &response);
    if (rv != CTL_OK) {
        return rv;
    }
    if (response->body_case == HOLDFAST__RESPONSE__BODY_SKUS && response->skus->n_items == 1) {
        output_record(&ctl->output, columns, ARRAY_COUNT(columns),
                      record_of(response->skus->items[0]));
    } else {
        ctl_say("the node's answer is not a SKU");
        rv = CTL_FAILURE;
    }
    holdfast__response__free_unpacked(response, NULL);
    return rv;
}

static void fill(Holdfast__Request *request, Holdfast__List *list)
{
    request->body_case = HOLDFAST__REQUEST__BODY_LIST_SKUS;
    request->list_skus = list;
}

static void rows(const Holdfast__Response *response, json_t *records)
{
    if (response->body_case == HOLDFAST__RESPONSE__BODY_SKUS) {
        for (size_t i = 0; i < response->skus->n_items; i++) {
            json_array_append_new(records, record_of(response->skus->items[i]));
        }
    }
}

enum ctl_exit sku_list(struct ctl *ctl)
{
    struct ctl_list list = {
        .fill = fill, .rows = rows, .columns = columns, .columns_count = ARRAY_COUNT(columns)};
    return ctl_print_list(ctl, &list);
}
