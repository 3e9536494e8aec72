/* lease acquire|renew|release|list. */
#include "base/check.h"
#include "tools/ctl/ctl.h"

static const struct output_column columns[] = {
    {"name", "LEASE", CELL_TEXT},
    {"owner", "OWNER", CELL_TEXT},
    {"token", "TOKEN", CELL_NUMBER},
    {"expires_at", "EXPIRES", CELL_TEXT},
};

static enum ctl_exit change(struct ctl *ctl, enum command_kind kind)
{
    const struct ctl_arguments *a = &ctl->arguments;
    struct command command = {.kind = kind};
    command.lease.name = str_from(ctl_text(a, "LEASE"));
    command.lease.owner = str_from(ctl_text(a, "owner"));
    command.lease.token = kind == COMMAND_LEASE_ACQUIRE ? 0 : ctl_value(a, "token")->u64;
    command.lease.ttl_ms = kind == COMMAND_LEASE_RELEASE ? 0 : ctl_value(a, "ttl")->u64;
    struct reply reply;
    enum ctl_exit rv = ctl_submit(ctl, &command, &reply);
    if (rv != CTL_OK) {
        return rv;
    }
    bool held = kind != COMMAND_LEASE_RELEASE;
    output_record(&ctl->output, columns, ARRAY_COUNT(columns),
                  json_pack("{s:s, s:s, s:I, s:o, s:b, s:I}", "name", ctl_text(a, "LEASE"), "owner",
                            ctl_text(a, "owner"), "token",
                            (json_int_t)(held ? reply.token : command.lease.token), "expires_at",
                            held ? ctl_json_time(reply.expires_ms) : json_null(), "held", (int)held,
                            "log_index", (json_int_t)reply.index));
    return CTL_OK;
}

enum ctl_exit lease_acquire_run(struct ctl *ctl)
{
    return change(ctl, COMMAND_LEASE_ACQUIRE);
}

enum ctl_exit lease_renew_run(struct ctl *ctl)
{
    return change(ctl, COMMAND_LEASE_RENEW);
}

enum ctl_exit lease_release_run(struct ctl *ctl)
{
    return change(ctl, COMMAND_LEASE_RELEASE);
}

static void fill(Holdfast__Request *request, Holdfast__List *list)
{
    request->body_case = HOLDFAST__REQUEST__BODY_LIST_LEASES;
    request->list_leases = list;
}

static void rows(const Holdfast__Response *response, json_t *records)
{
    if (response->body_case != HOLDFAST__RESPONSE__BODY_LEASES) {
        return;
    }
    for (size_t i = 0; i < response->leases->n_items; i++) {
        const Holdfast__Lease *l = response->leases->items[i];
        json_array_append_new(records, json_pack("{s:s, s:s, s:I, s:o}", "name", l->name, "owner",
                                                 l->owner, "token", (json_int_t)l->token,
                                                 "expires_at", ctl_json_time(l->expires_ms)));
    }
}

enum ctl_exit lease_list(struct ctl *ctl)
{
    struct ctl_list list = {
        .fill = fill, .rows = rows, .columns = columns, .columns_count = ARRAY_COUNT(columns)};
    return ctl_print_list(ctl, &list);
}
