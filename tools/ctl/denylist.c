/* denylist add|remove|list. */
#include <stdio.h>

#include "base/check.h"
#include "tools/ctl/ctl.h"

static const struct output_column columns[] = {
    {"user", "USER", CELL_TEXT},     {"denied", "DENIED", CELL_YES},
    {"until", "UNTIL", CELL_TEXT},   {"strikes", "STRIKES", CELL_NUMBER},
    {"reason", "REASON", CELL_TEXT},
};

static enum ctl_exit confirm(struct ctl *ctl, const char *user, const char *what)
{
    char sentence[160];
    snprintf(sentence, sizeof sentence, "user %s %s", user, what);
    return ctl_confirm(ctl, user, sentence);
}

static enum ctl_exit print_change(struct ctl *ctl, struct command *command, bool denied)
{
    struct reply reply;
    enum ctl_exit rv = ctl_submit(ctl, command, &reply);
    if (rv != CTL_OK) {
        return rv;
    }
    static const struct output_column changed[] = {
        {"user", "USER", CELL_TEXT},
        {"denied", "DENIED", CELL_YES},
        {"until", "UNTIL", CELL_TEXT},
        {"existed", "EXISTED BEFORE", CELL_YES},
        {"log_index", "LOG INDEX", CELL_NUMBER},
    };
    output_record(&ctl->output, changed, ARRAY_COUNT(changed),
                  json_pack("{s:s, s:b, s:o, s:b, s:I}", "user", ctl_text(&ctl->arguments, "USER"),
                            "denied", (int)denied, "until",
                            denied ? ctl_json_time(reply.expires_ms) : json_null(), "existed",
                            (reply.flags & REPLY_EXISTED) != 0, "log_index",
                            (json_int_t)reply.index));
    return CTL_OK;
}

enum ctl_exit denylist_add(struct ctl *ctl)
{
    const char *user = ctl_text(&ctl->arguments, "USER");
    struct command command = {.kind = COMMAND_DENY_PUT};
    command.deny.user = str_from(user);
    command.deny.reason = str_from(ctl_text(&ctl->arguments, "reason"));
    enum ctl_exit rv = confirm(ctl, user, "will not be able to buy anything");
    if (rv == CTL_OK) {
        rv = ctl_resolve_time(ctl, ctl_value(&ctl->arguments, "until"), &command.deny.until_ms);
    }
    return rv == CTL_OK ? print_change(ctl, &command, true) : rv;
}

enum ctl_exit denylist_remove(struct ctl *ctl)
{
    const char *user = ctl_text(&ctl->arguments, "USER");
    struct command command = {.kind = COMMAND_DENY_REMOVE};
    command.deny.user = str_from(user);
    enum ctl_exit rv = confirm(ctl, user, "will be able to buy again, with no strikes");
    return rv == CTL_OK ? print_change(ctl, &command, false) : rv;
}

static void fill(Holdfast__Request *request, Holdfast__List *list)
{
    request->body_case = HOLDFAST__REQUEST__BODY_LIST_DENIALS;
    request->list_denials = list;
}

static void rows(const Holdfast__Response *response, json_t *records)
{
    if (response->body_case != HOLDFAST__RESPONSE__BODY_DENIALS) {
        return;
    }
    for (size_t i = 0; i < response->denials->n_items; i++) {
        const Holdfast__Denial *d = response->denials->items[i];
        json_array_append_new(records,
                              json_pack("{s:s, s:b, s:o, s:i, s:s}", "user", d->user, "denied",
                                        (int)d->denied, "until", ctl_json_time(d->until_ms),
                                        "strikes", (int)d->strikes, "reason", d->reason));
    }
}

enum ctl_exit denylist_list(struct ctl *ctl)
{
    struct ctl_list list = {
        .fill = fill, .rows = rows, .columns = columns, .columns_count = ARRAY_COUNT(columns)};
    return ctl_print_list(ctl, &list);
}
