/* The connection of one run of holdfastctl: see ctl.h. proto/client follows the leader and retries
 * what is safe; here its outcomes become exit statuses and messages. */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "proto/address.h"
#include "tools/ctl/ctl.h"

enum ctl_exit ctl_open(struct ctl *ctl)
{
    if (ctl->session != NULL) {
        return CTL_OK;
    }
    const char *key_file = ctl_text(&ctl->arguments, "cluster-key-file");
    if (key_file == NULL) {
        ctl_say("no cluster key: give --cluster-key-file or HOLDFAST_CLUSTER_KEY_FILE");
        ctl_hint("holdfastctl demo up, then: . .demo/env");
        return CTL_USAGE;
    }
    struct client_config config = {.fixed_endpoints = false};
    if (link_read_key(key_file, config.key) != 0) {
        ctl_say("the cluster key %s cannot be used", key_file);
        ctl_hint("a file of 64 hex digits with mode 0600, the same as the nodes have");
        return CTL_USAGE;
    }
    char *list = strdup(ctl_text(&ctl->arguments, "endpoints"));
    CHECK(list != NULL);
    const char *endpoints[CLIENT_NODES_MAX];
    char *rest = list;
    enum ctl_exit rv = CTL_OK;
    for (char *item; rv == CTL_OK && (item = strsep(&rest, ",")) != NULL;) {
        if (item[0] == '\0') {
            continue;
        }
        if (config.endpoints_count == CLIENT_NODES_MAX) {
            ctl_say("more than %d endpoints", CLIENT_NODES_MAX);
            rv = CTL_USAGE;
            break;
        }
        char host[ADDRESS_HOST_SIZE];
        uint16_t port;
        if (address_parse(item, host, &port) != 0) {
            ctl_say("'%s' is not an address", item);
            ctl_hint("--endpoints 127.0.0.1:7101: a numeric host and a port");
            rv = CTL_USAGE;
        }
        endpoints[config.endpoints_count++] = item;
    }
    config.endpoints = endpoints;
    if (rv == CTL_OK && config.endpoints_count == 0) {
        ctl_say("no endpoints: give --endpoints HOST:PORT,... or HOLDFAST_ENDPOINTS");
        rv = CTL_USAGE;
    }
    if (rv == CTL_OK && client_sync_open(&config, &ctl->session) != 0) {
        ctl->session = NULL;
        ctl_hint("holdfastctl status --endpoints 127.0.0.1:7101");
        rv = CTL_USAGE;
    }
    sodium_memzero(config.key, sizeof config.key);
    free(list);
    return rv;
}

void ctl_close(struct ctl *ctl)
{
    text_close(&ctl->resolved);
    if (ctl->session != NULL) {
        client_sync_close(ctl->session);
        ctl->session = NULL;
    }
}

/* ---- what went wrong, in words ---- */

static size_t connected_nodes(struct ctl *ctl, size_t *known)
{
    struct client_info info;
    size_t connected = 0;
    client_get_info(client_sync_client(ctl->session), &info);
    for (size_t i = 0; i < info.nodes_count; i++) {
        connected += info.nodes[i].connected ? 1 : 0;
    }
    *known = info.nodes_count;
    return connected;
}

static void say_unreachable(struct ctl *ctl)
{
    size_t known;
    size_t connected = connected_nodes(ctl, &known);
    if (connected == 0) {
        ctl_say("none of the nodes at %s answered within %" PRIu64
                " ms: they are down, or have another cluster key",
                ctl_text(&ctl->arguments, "endpoints"), ctl->timeout_ms);
        ctl_hint("holdfastctl demo status, or another --endpoints or --cluster-key-file");
    } else {
        ctl_say("%zu of %zu nodes answer but no leader took it within %" PRIu64
                " ms: nothing was changed",
                connected, known, ctl->timeout_ms);
        ctl_hint("holdfastctl endpoint status");
    }
}

static const char *status_hint(Holdfast__Status status)
{
    switch ((int)status) {
    case HOLDFAST__STATUS__STATUS_NOT_FOUND:
        return "there is no such thing";
    case HOLDFAST__STATUS__STATUS_TIMEOUT:
        return "the node could not serve the read in time";
    case HOLDFAST__STATUS__STATUS_MALFORMED:
        return "the node does not understand the request";
    case HOLDFAST__STATUS__STATUS_UNSUPPORTED:
        return "the node does not know this kind of request (an older version?)";
    case HOLDFAST__STATUS__STATUS_REFUSED:
        return "not possible now";
    case HOLDFAST__STATUS__STATUS_NOT_LEADER:
        return "the node does not lead";
    case HOLDFAST__STATUS__STATUS_BUSY:
        return "the node is busy";
    default:
        return "the node's answer is unknown";
    }
}

static enum ctl_exit exit_of_status(Holdfast__Status status)
{
    switch ((int)status) {
    case HOLDFAST__STATUS__STATUS_OK:
        return CTL_OK;
    case HOLDFAST__STATUS__STATUS_NOT_FOUND:
    case HOLDFAST__STATUS__STATUS_REFUSED:
        return CTL_REFUSED;
    case HOLDFAST__STATUS__STATUS_TIMEOUT:
    case HOLDFAST__STATUS__STATUS_NOT_LEADER:
    case HOLDFAST__STATUS__STATUS_BUSY:
        return CTL_UNREACHABLE;
    case HOLDFAST__STATUS__STATUS_OUTCOME_UNKNOWN:
        return CTL_UNKNOWN;
    default:
        return CTL_FAILURE;
    }
}

/* ---- commands ---- */

static const char *own_key(struct ctl *ctl)
{
    static const char letters[] = "0123456789abcdefghjkmnpqrstvwxyz";
    if (ctl->key[0] == '\0') {
        uint8_t random[24];
        randombytes_buf(random, sizeof random);
        memcpy(ctl->key, "ctl-", 4);
        for (size_t i = 0; i < sizeof random; i++) {
            ctl->key[4 + i] = letters[random[i] & 31];
        }
        ctl->key[4 + sizeof random] = '\0';
    }
    return ctl->key;
}
_Static_assert(CTL_KEY_SIZE > 4 + 24, "prefix, 24 letters and NUL");

static const char *subject_name(uint32_t subject)
{
    static const char *const names[] = {"it",    "SKU",  "sale",       "order",
                                        "lease", "user", "eligibility"};
    return subject < ARRAY_COUNT(names) ? names[subject] : "it";
}

/* The sentence and the next command for each refusal. */
static void say_refusal(const struct reply *r)
{
    char when[CLOCK_RFC3339_SIZE];
    enum result result = (enum result)r->result;
    const char *code = result_code(result);
    switch (result) {
    case RESULT_NOT_FOUND:
        ctl_say("refused: %s: the %s does not exist", code, subject_name(r->detail));
        if (r->detail == SUBJECT_SKU || r->detail == SUBJECT_SALE || r->detail == SUBJECT_ORDER ||
            r->detail == SUBJECT_LEASE) {
            ctl_hint("holdfastctl %s list",
                     r->detail == SUBJECT_SKU ? "sku" : subject_name(r->detail));
        }
        return;
    case RESULT_STALE_VERSION:
        ctl_say("refused: %s: the version is now %" PRIu64, code, r->version);
        ctl_hint("read it again, then --expected-version %" PRIu64, r->version);
        return;
    case RESULT_SALE_NOT_OPEN:
        clock_format_rfc3339(r->opens_ms, when);
        ctl_say("refused: %s: the sale opens at %s and is %s now", code, when,
                sale_phase_name((enum sale_phase)r->sale_phase));
        ctl_hint("holdfastctl sale list");
        return;
    case RESULT_SALE_PAUSED:
        ctl_say("refused: %s: the sale is paused", code);
        ctl_hint("holdfastctl sale resume SALE");
        return;
    case RESULT_SOLD_OUT:
        ctl_say("refused: %s: line %u asks for more than the %" PRId64 " units left", code, r->line,
                r->available);
        ctl_hint("holdfastctl sku list");
        return;
    case RESULT_QUANTITY_LIMIT:
        ctl_say("refused: %s: line %u asks for more than %u units", code, r->line, r->detail);
        return;
    case RESULT_INSUFFICIENT_STOCK:
        ctl_say("refused: %s: only %" PRId64
                " units are available, the others are reserved or sold",
                code, r->available);
        ctl_hint("holdfastctl sku list");
        return;
    case RESULT_NOT_ELIGIBLE:
        ctl_say("refused: %s: the user has no eligibility in this sale", code);
        ctl_hint("holdfastctl eligibility grant SALE USER");
        return;
    case RESULT_DENYLISTED:
        ctl_say("refused: %s: the user is on the denylist", code);
        ctl_hint("holdfastctl denylist list");
        return;
    case RESULT_ORDER_NOT_PAYABLE:
    case RESULT_ORDER_NOT_CANCELLABLE:
    case RESULT_ORDER_NOT_REFUNDABLE:
        ctl_say("refused: %s: the order is %s", code,
                order_status_name((enum order_status)r->order_status));
        ctl_hint("holdfastctl order list");
        return;
    case RESULT_AMOUNT_MISMATCH:
        ctl_say("refused: %s: the order costs %" PRId64 " %.3s", code, r->amount, r->currency);
        return;
    case RESULT_LEASE_HELD:
        clock_format_rfc3339(r->expires_ms, when);
        ctl_say("refused: %s: somebody else holds it until %s", code, when);
        ctl_hint("holdfastctl lease list");
        return;
    case RESULT_STALE_FENCING_TOKEN:
        ctl_say("refused: %s: this token does not hold the lease", code);
        ctl_hint("holdfastctl lease list");
        return;
    case RESULT_IDEMPOTENCY_KEY_REUSED:
        ctl_say("refused: %s: this key was used for another command", code);
        ctl_hint("the same command without --idempotency-key: a new one is made");
        return;
    case RESULT_CAPACITY:
        ctl_say("refused: %s: limit %u of the state machine is reached, try later", code,
                r->detail);
        ctl_hint("holdfastctl status");
        return;
    case RESULT_BACKLOG_FULL:
        ctl_say("refused: %s: PostgreSQL is too far behind", code);
        ctl_hint("holdfastctl persist status");
        return;
    case RESULT_SALE_CLOSED:
        ctl_say("refused: %s: the sale, or its eligibility window, is over", code);
        ctl_hint("holdfastctl sale list");
        return;
    case RESULT_FORBIDDEN:
        ctl_say("refused: %s: it is another user's order", code);
        return;
    case RESULT_ELIGIBILITY_EXHAUSTED:
        ctl_say("refused: %s: all eligibilities are given out", code);
        ctl_hint("holdfastctl sale get SALE");
        return;
    case RESULT_ORDER_LIMIT_REACHED:
        ctl_say("refused: %s: the user has as many orders or units as the sale allows", code);
        ctl_hint("holdfastctl order list --user USER");
        return;
    case RESULT_OK:
    case RESULT_INVALID:
        ctl_say("refused: %s: not allowed by nature, or outside of what docs/limits.md allows",
                code);
        return;
    }
    ctl_say("refused for a reason this version does not know (%u)", r->result);
}

enum ctl_exit ctl_submit(struct ctl *ctl, struct command *command, struct reply *reply)
{
    struct reply own;
    reply = reply != NULL ? reply : &own;
    enum ctl_exit rv = ctl_open(ctl);
    if (rv != CTL_OK) {
        return rv;
    }
    if (command->scope.len == 0) {
        command->scope = str_from(CTL_SCOPE);
    }
    const char *given = ctl->arguments.command->role == CTL_WRITER
                            ? ctl_text(&ctl->arguments, "idempotency-key")
                            : NULL;
    if (command->key.len == 0 && command->kind != COMMAND_DIGEST_MARK) {
        command->key = str_from(given != NULL ? given : own_key(ctl));
    }
    enum client_outcome outcome = client_sync_submit(ctl->session, command, ctl->timeout_ms, reply);
    switch (outcome) {
    case CLIENT_OK:
        if (reply->result == RESULT_OK) {
            return CTL_OK;
        }
        say_refusal(reply);
        return CTL_REFUSED;
    case CLIENT_UNKNOWN:
        ctl_say("outcome unknown: no answer within %" PRIu64 " ms; it may or may not have happened",
                ctl->timeout_ms);
        if (command->key.len > 0) {
            ctl_hint(
                "the same command with --idempotency-key %.*s%s: it tells, and does it only once",
                (int)command->key.len, command->key.ptr, text_cstring(&ctl->resolved));
        }
        return CTL_UNKNOWN;
    case CLIENT_QUEUE_FULL:
        ctl_say("the leader's queue is full: nothing was changed");
        ctl_hint("the same command again, later");
        return CTL_UNREACHABLE;
    case CLIENT_LOW_SPACE:
        ctl_say("the leader's disk is short of space: nothing was changed");
        ctl_hint("holdfastctl endpoint status shows the free space of each node; make room there");
        return CTL_REFUSED;
    case CLIENT_MALFORMED:
        ctl_say("not a well-formed command: a value is outside of what docs/limits.md allows");
        ctl_hint("holdfastctl %s --help", ctl->arguments.command->path);
        return CTL_USAGE;
    case CLIENT_NO_LEADER:
    case CLIENT_CLOSED:
        break;
    }
    say_unreachable(ctl);
    return CTL_UNREACHABLE;
}

/* ---- requests ---- */

enum ctl_exit ctl_call_quietly(struct ctl *ctl, Holdfast__Request *request, uint64_t target,
                               uint64_t timeout_ms, Holdfast__Response **response,
                               const char **wrong)
{
    *response = NULL;
    *wrong = "";
    enum ctl_exit rv = ctl_open(ctl);
    if (rv != CTL_OK) {
        return rv;
    }
    enum client_outcome outcome =
        client_sync_call(ctl->session, request, target, timeout_ms, response);
    if (outcome != CLIENT_OK) {
        *wrong = outcome == CLIENT_UNKNOWN ? "no answer in time" : "not reachable";
        return outcome == CLIENT_MALFORMED ? CTL_FAILURE : CTL_UNREACHABLE;
    }
    Holdfast__Status status = (*response)->status;
    if (status == HOLDFAST__STATUS__STATUS_OK) {
        return CTL_OK;
    }
    *wrong = status_hint(status);
    return exit_of_status(status);
}

/* Names the list in which to look, when the command's group has one. */
static void say_not_found(const struct ctl *ctl)
{
    char list[64];
    const char *path = ctl->arguments.command->path;
    int len = (int)strcspn(path, " ");
    ctl_say("not found");
    snprintf(list, sizeof list, "%.*s list", len, path);
    if (ctl_find_command(list) != NULL) {
        ctl_hint("holdfastctl %s", list);
    }
}

enum ctl_exit ctl_call(struct ctl *ctl, Holdfast__Request *request, uint64_t target,
                       Holdfast__Response **response)
{
    const char *wrong;
    enum ctl_exit rv = ctl_call_quietly(ctl, request, target, ctl->timeout_ms, response, &wrong);
    if (rv == CTL_OK || ctl->session == NULL) {
        return rv;
    }
    if (*response == NULL) {
        if (target == CLIENT_TARGET_LEADER || target == CLIENT_TARGET_ANY) {
            say_unreachable(ctl);
        } else {
            ctl_say("node %" PRIu64 ": %s", target, wrong);
            ctl_hint("holdfastctl endpoint status");
        }
        return rv;
    }
    const char *message = (*response)->message;
    if ((*response)->status == HOLDFAST__STATUS__STATUS_NOT_FOUND) {
        say_not_found(ctl);
    } else {
        ctl_say("%s%s%s", wrong, message[0] != '\0' ? ": " : "", message);
    }
    holdfast__response__free_unpacked(*response, NULL);
    *response = NULL;
    return rv;
}

uint64_t ctl_read_target(const struct ctl *ctl, Holdfast__Request *request)
{
    if (strcmp(ctl_text(&ctl->arguments, "consistency"), "local") == 0) {
        request->consistency = HOLDFAST__CONSISTENCY__CONSISTENCY_LOCAL;
        return CLIENT_TARGET_ANY;
    }
    request->consistency = HOLDFAST__CONSISTENCY__CONSISTENCY_STRONG;
    return CLIENT_TARGET_LEADER;
}

/* Only a status is one; anything else is freed. */
static enum ctl_exit keep_status(enum ctl_exit rv, Holdfast__Response **response,
                                 const char **wrong)
{
    if (rv == CTL_OK && (*response)->body_case != HOLDFAST__RESPONSE__BODY_NODE_STATUS) {
        *wrong = "the node's answer is not a status";
        rv = CTL_FAILURE;
    }
    if (rv != CTL_OK && *response != NULL) {
        holdfast__response__free_unpacked(*response, NULL);
        *response = NULL;
    }
    return rv;
}

enum ctl_exit ctl_read_status(struct ctl *ctl, uint64_t target, Holdfast__Response **response)
{
    Holdfast__NodeStatus body = HOLDFAST__NODE_STATUS__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    const char *wrong = NULL;
    request.body_case = HOLDFAST__REQUEST__BODY_NODE_STATUS;
    request.node_status = &body;
    *response = NULL;
    enum ctl_exit rv = keep_status(ctl_call(ctl, &request, target, response), response, &wrong);
    if (wrong != NULL) {
        ctl_say("%s", wrong);
    }
    return rv;
}

enum ctl_exit ctl_read_status_quietly(struct ctl *ctl, uint64_t target, uint64_t timeout_ms,
                                      Holdfast__Response **response, const char **wrong)
{
    Holdfast__NodeStatus body = HOLDFAST__NODE_STATUS__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    request.body_case = HOLDFAST__REQUEST__BODY_NODE_STATUS;
    request.node_status = &body;
    *response = NULL;
    return keep_status(ctl_call_quietly(ctl, &request, target, timeout_ms, response, wrong),
                       response, wrong);
}

enum ctl_exit ctl_resolve_time(struct ctl *ctl, const struct ctl_value *value, int64_t *ms)
{
    *ms = value->given ? value->i64 : 0;
    if (!value->given || !value->relative) {
        return CTL_OK;
    }
    Holdfast__Response *response;
    enum ctl_exit rv = ctl_read_status(ctl, CLIENT_TARGET_ANY, &response);
    if (rv != CTL_OK) {
        return rv;
    }
    /* Replicated time rests while nothing is submitted; the node's wall clock is what it goes on
     * from. */
    int64_t now = response->node_status->time_ms > response->node_status->wall_ms
                      ? response->node_status->time_ms
                      : response->node_status->wall_ms;
    now = now > 0 ? now : clock_wall_ms(); /* a cluster in which nothing has happened yet */
    holdfast__response__free_unpacked(response, NULL);
    *ms = now + value->i64 > 0 ? now + value->i64 : 1;
    /* A retry under the same key must be the same command, down to the millisecond. */
    char text[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(*ms, text);
    text_appendf(&ctl->resolved, " --%s %s", value->parameter->name, text);
    return CTL_OK;
}

static int compare_members(const void *a, const void *b)
{
    const struct ctl_member *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id ? 1 : 0;
}

enum ctl_exit ctl_members(struct ctl *ctl, struct ctl_member members[static CTL_NODES_MAX],
                          size_t *count)
{
    Holdfast__Response *response;
    enum ctl_exit rv = ctl_read_status(ctl, CLIENT_TARGET_ANY, &response);
    if (rv != CTL_OK) {
        return rv;
    }
    const Holdfast__NodeStatusResult *status = response->node_status;
    *count = 0;
    for (size_t i = 0; i < status->n_members && *count < CTL_NODES_MAX; i++) {
        const Holdfast__Member *m = status->members[i];
        struct ctl_member *to = &members[(*count)++];
        *to = (struct ctl_member){.id = m->id, .role = m->role};
        str_copy(to->node_address, sizeof to->node_address, str_from(m->node_address));
        str_copy(to->raft_address, sizeof to->raft_address, str_from(m->raft_address));
    }
    if (*count == 0) { /* a node that does not know the members yet: at least itself */
        members[(*count)++] = (struct ctl_member){.id = status->id};
    }
    qsort(members, *count, sizeof members[0], compare_members);
    holdfast__response__free_unpacked(response, NULL);
    return CTL_OK;
}

/* ---- lists ---- */

enum ctl_exit ctl_print_list(struct ctl *ctl, const struct ctl_list *list)
{
    bool all = ctl_given(&ctl->arguments, "all");
    uint64_t limit = all ? UINT64_MAX : ctl_value(&ctl->arguments, "limit")->u64;
    char *cursor = strdup("");
    CHECK(cursor != NULL);
    json_t *records = json_array();
    bool more = false;
    enum ctl_exit rv = CTL_OK;
    do {
        uint64_t left = limit - json_array_size(records);
        Holdfast__List body = HOLDFAST__LIST__INIT;
        Holdfast__Request request = HOLDFAST__REQUEST__INIT;
        Holdfast__Response *response;
        body.cursor = cursor;
        body.limit = list->keep == NULL && left < CTL_PAGE_ITEMS ? (uint32_t)left : CTL_PAGE_ITEMS;
        body.sale = ctl_lend(list->sale);
        body.user = ctl_lend(list->user);
        list->fill(&request, &body);
        rv = ctl_call(ctl, &request, ctl_read_target(ctl, &request), &response);
        if (rv != CTL_OK) {
            break;
        }
        json_t *page = json_array();
        list->rows(response, page);
        size_t i;
        json_t *record;
        json_array_foreach(page, i, record)
        {
            if (json_array_size(records) >= limit) {
                more = true;
            } else if (list->keep == NULL || list->keep(ctl, record)) {
                json_array_append(records, record);
            }
        }
        json_decref(page);
        free(cursor);
        cursor = strdup(response->next_cursor);
        CHECK(cursor != NULL);
        holdfast__response__free_unpacked(response, NULL);
    } while (cursor[0] != '\0' && json_array_size(records) < limit);
    more = more || (rv == CTL_OK && cursor[0] != '\0');
    free(cursor);
    if (rv != CTL_OK) {
        json_decref(records);
        return rv;
    }
    size_t printed = json_array_size(records);
    output_list(&ctl->output, list->columns, list->columns_count, records);
    if (more) {
        ctl_say("these are the first %zu, there are more", printed);
        ctl_hint("the same command with --all or a larger --limit");
    }
    return CTL_OK;
}
