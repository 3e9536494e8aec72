/* eligibility grant|get|list|revoke. */
#include "base/check.h"
#include "tools/ctl/ctl.h"

static const struct output_column columns[] = {
    {"sale", "SALE", CELL_TEXT},       {"user", "USER", CELL_TEXT},
    {"granted", "GRANTED", CELL_YES},  {"granted_at", "SINCE", CELL_TEXT},
    {"orders", "ORDERS", CELL_NUMBER}, {"units", "UNITS", CELL_NUMBER},
};

static json_t *record_of(const Holdfast__Eligibility *e)
{
    return json_pack("{s:s, s:s, s:b, s:o, s:i, s:i}", "sale", e->sale, "user", e->user, "granted",
                     (int)e->granted, "granted_at", ctl_json_time(e->granted_ms), "orders",
                     (int)e->orders, "units", (int)e->units);
}

static enum ctl_exit change(struct ctl *ctl, enum command_kind kind)
{
    const char *sale = ctl_text(&ctl->arguments, "SALE"), *user = ctl_text(&ctl->arguments, "USER");
    struct command command = {.kind = kind};
    command.eligibility.sale = str_from(sale);
    command.eligibility.user = str_from(user);
    struct reply reply;
    enum ctl_exit rv = ctl_submit(ctl, &command, &reply);
    if (rv != CTL_OK) {
        return rv;
    }
    static const struct output_column changed[] = {
        {"sale", "SALE", CELL_TEXT},
        {"user", "USER", CELL_TEXT},
        {"granted", "GRANTED", CELL_YES},
        {"existed", "EXISTED BEFORE", CELL_YES},
        {"log_index", "LOG INDEX", CELL_NUMBER},
    };
    output_record(&ctl->output, changed, ARRAY_COUNT(changed),
                  json_pack("{s:s, s:s, s:b, s:b, s:I}", "sale", sale, "user", user, "granted",
                            kind == COMMAND_ELIGIBILITY_GRANT, "existed",
                            (reply.flags & REPLY_EXISTED) != 0, "log_index",
                            (json_int_t)reply.index));
    return CTL_OK;
}

enum ctl_exit eligibility_grant_run(struct ctl *ctl)
{
    return change(ctl, COMMAND_ELIGIBILITY_GRANT);
}

enum ctl_exit eligibility_revoke_run(struct ctl *ctl)
{
    return change(ctl, COMMAND_ELIGIBILITY_REVOKE);
}

enum ctl_exit eligibility_get(struct ctl *ctl)
{
    Holdfast__GetEligibility body = HOLDFAST__GET_ELIGIBILITY__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__Response *response;
    body.sale = ctl_lend(ctl_text(&ctl->arguments, "SALE"));
    body.user = ctl_lend(ctl_text(&ctl->arguments, "USER"));
    request.body_case = HOLDFAST__REQUEST__BODY_GET_ELIGIBILITY;
    request.get_eligibility = &body;
    enum ctl_exit rv = ctl_call(ctl, &request, ctl_read_target(ctl, &request), &response);
    if (rv != CTL_OK) {
        return rv;
    }
    if (response->body_case == HOLDFAST__RESPONSE__BODY_ELIGIBILITIES &&
        response->eligibilities->n_items == 1) {
        output_record(&ctl->output, columns, ARRAY_COUNT(columns),
                      record_of(response->eligibilities->items[0]));
    } else {
        ctl_say("the node's answer is not an eligibility");
        rv = CTL_FAILURE;
    }
    holdfast__response__free_unpacked(response, NULL);
    return rv;
}

static void fill(Holdfast__Request *request, Holdfast__List *list)
{
    request->body_case = HOLDFAST__REQUEST__BODY_LIST_ELIGIBILITIES;
    request->list_eligibilities = list;
}

static void rows(const Holdfast__Response *response, json_t *records)
{
    if (response->body_case == HOLDFAST__RESPONSE__BODY_ELIGIBILITIES) {
        for (size_t i = 0; i < response->eligibilities->n_items; i++) {
            json_array_append_new(records, record_of(response->eligibilities->items[i]));
        }
    }
}

enum ctl_exit eligibility_list(struct ctl *ctl)
{
    struct ctl_list list = {.fill = fill,
                            .rows = rows,
                            .sale = ctl_text(&ctl->arguments, "sale"),
                            .columns = columns,
                            .columns_count = ARRAY_COUNT(columns)};
    return ctl_print_list(ctl, &list);
}
