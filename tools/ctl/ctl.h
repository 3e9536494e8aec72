/* ctl: what every command of holdfastctl gets, and how it talks to the cluster.
 *
 * What it owns: the connection (opened at the first request, closed by main), the deadline of each
 * request, the translation of every way a request can end into an exit status and a message that
 * names the next thing to try. What it refuses: to retry what may have happened without the same
 * idempotency key; to print anything but data on standard output.
 *
 * Happy path: a handler fills a command or a request → ctl_submit or ctl_call → CTL_OK and the
 * answer → records to output. Any other exit status was already explained on standard error: the
 * handler hands it on. */
#ifndef TOOLS_CTL_CTL_H
#define TOOLS_CTL_CTL_H

#include <jansson.h>

#include "base/text.h"
#include "proto/client.h"
#include "proto/command.h"
#include "proto/node.pb-c.h"
#include "tools/ctl/output.h"
#include "tools/ctl/parse.h"
#include "tools/ctl/table.h"

#define CTL_SCOPE      "k:ctl" /* whose idempotency keys ours are: proto/command.h */
#define CTL_NODES_MAX  CLIENT_NODES_MAX
#define CTL_KEY_SIZE   32  /* of a random idempotency key, with its NUL */
#define CTL_PAGE_ITEMS 500 /* asked for at once by lists */

struct ctl {
    struct ctl_arguments arguments;
    struct output output;
    uint64_t timeout_ms;
    struct client_sync *session; /* NULL until the first request */
    char key[CTL_KEY_SIZE];      /* a random key, made when none was given */
    struct text resolved;        /* relative times as they were resolved: " --opens 2026-…" */
};

/* ---- messages (ctl.c) ---- */

/* "holdfastctl: …" on standard error. Both take printf's arguments; hint is the "try:" line. */
void ctl_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void ctl_hint(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Asks before something severe. name: what must be typed, or given by --confirm; what: the sentence
 * of what will happen. Returns CTL_OK to go on. */
enum ctl_exit ctl_confirm(struct ctl *ctl, const char *name, const char *what);

/* ---- requests (session.c) ---- */

/* Connects if that was not done. */
enum ctl_exit ctl_open(struct ctl *ctl);
void ctl_close(struct ctl *ctl);

/* Submits with scope, key and deadline filled in (a scope or key already there is kept). CTL_OK:
 * the engine did it. Else it was explained. reply may be NULL. */
enum ctl_exit ctl_submit(struct ctl *ctl, struct command *command, struct reply *reply);

/* Asks. target: CLIENT_TARGET_* or a node id. CTL_OK: *response has STATUS_OK and is the caller's:
 * free with holdfast__response__free_unpacked. */
enum ctl_exit ctl_call(struct ctl *ctl, Holdfast__Request *request, uint64_t target,
                       Holdfast__Response **response);

/* The same without a word on standard error, within timeout_ms; *wrong then says why (static text).
 */
enum ctl_exit ctl_call_quietly(struct ctl *ctl, Holdfast__Request *request, uint64_t target,
                               uint64_t timeout_ms, Holdfast__Response **response,
                               const char **wrong);

/* The NodeStatus of a target. CTL_OK: response->node_status is there and the caller's, else it was
 * explained (or *wrong says why) and *response is NULL. */
enum ctl_exit ctl_read_status(struct ctl *ctl, uint64_t target, Holdfast__Response **response);
enum ctl_exit ctl_read_status_quietly(struct ctl *ctl, uint64_t target, uint64_t timeout_ms,
                                      Holdfast__Response **response, const char **wrong);

/* Fills in the consistency that --consistency asks for, and returns the target that goes with it.
 */
uint64_t ctl_read_target(const struct ctl *ctl, Holdfast__Request *request);

/* The value of a CTL_TIME argument in ms since 1970; a relative one counts from the cluster's
 * replicated time (asked once). Not given: 0. */
enum ctl_exit ctl_resolve_time(struct ctl *ctl, const struct ctl_value *value, int64_t *ms);

struct ctl_member {
    uint64_t id;
    uint32_t role; /* 0 spare, 1 standby, 2 voter */
    char node_address[CLIENT_ADDRESS_SIZE], raft_address[CLIENT_ADDRESS_SIZE];
};
/* The members of the cluster, in order of id, as the leader (or any node, when there is none)
 * tells. */
enum ctl_exit ctl_members(struct ctl *ctl, struct ctl_member members[static CTL_NODES_MAX],
                          size_t *count);

/* Reads a list page by page up to --limit (or all with --all) and prints it. fill sets the
 * request's body around the list (lent); rows appends records of one page's items to an array. */
struct ctl_list {
    void (*fill)(Holdfast__Request *request, Holdfast__List *list);
    void (*rows)(const Holdfast__Response *response, json_t *records);
    bool (*keep)(struct ctl *ctl, const json_t *record); /* NULL: all */
    const char *sale, *user;                             /* filters, NULL for none */
    const struct output_column *columns;
    size_t columns_count;
};
enum ctl_exit ctl_print_list(struct ctl *ctl, const struct ctl_list *list);

/* protobuf-c's structs hold char * that packing only reads: lends a text, "" for NULL. */
char *ctl_lend(const char *text);

/* ---- helpers for records ---- */

/* A text from elsewhere, which may have been cut within a character: what is not UTF-8 becomes '?'.
 */
json_t *ctl_json_text(const char *text);
/* RFC 3339, or null for 0. */
json_t *ctl_json_time(int64_t ms);
json_t *ctl_json_u64(uint64_t n);
json_t *ctl_json_order(uint64_t id);

/* ---- handlers, one file a resource ---- */

enum ctl_exit sku_put_run(struct ctl *ctl);
enum ctl_exit sku_get(struct ctl *ctl);
enum ctl_exit sku_list(struct ctl *ctl);
enum ctl_exit sku_adjust(struct ctl *ctl);
enum ctl_exit sale_put_run(struct ctl *ctl);
enum ctl_exit sale_get(struct ctl *ctl);
enum ctl_exit sale_list(struct ctl *ctl);
enum ctl_exit sale_pause(struct ctl *ctl);
enum ctl_exit sale_resume(struct ctl *ctl);
enum ctl_exit sale_close(struct ctl *ctl);
enum ctl_exit eligibility_grant_run(struct ctl *ctl);
enum ctl_exit eligibility_get(struct ctl *ctl);
enum ctl_exit eligibility_list(struct ctl *ctl);
enum ctl_exit eligibility_revoke_run(struct ctl *ctl);
enum ctl_exit order_get(struct ctl *ctl);
enum ctl_exit order_list(struct ctl *ctl);
enum ctl_exit order_place_run(struct ctl *ctl);
enum ctl_exit order_pay_run(struct ctl *ctl);
enum ctl_exit order_cancel_run(struct ctl *ctl);
enum ctl_exit order_refund_run(struct ctl *ctl);
enum ctl_exit lease_acquire_run(struct ctl *ctl);
enum ctl_exit lease_renew_run(struct ctl *ctl);
enum ctl_exit lease_release_run(struct ctl *ctl);
enum ctl_exit lease_list(struct ctl *ctl);
enum ctl_exit denylist_add(struct ctl *ctl);
enum ctl_exit denylist_remove(struct ctl *ctl);
enum ctl_exit denylist_list(struct ctl *ctl);
enum ctl_exit member_list(struct ctl *ctl);
enum ctl_exit member_move_leader(struct ctl *ctl);
enum ctl_exit members_add(struct ctl *ctl);
enum ctl_exit members_promote(struct ctl *ctl);
enum ctl_exit members_demote(struct ctl *ctl);
enum ctl_exit members_remove(struct ctl *ctl);
enum ctl_exit members_replace(struct ctl *ctl);
enum ctl_exit endpoint_status(struct ctl *ctl);
enum ctl_exit endpoint_health(struct ctl *ctl);
enum ctl_exit endpoint_hash(struct ctl *ctl);
enum ctl_exit node_metrics(struct ctl *ctl);
enum ctl_exit node_drain_run(struct ctl *ctl);
enum ctl_exit node_undrain(struct ctl *ctl);
enum ctl_exit node_verify(struct ctl *ctl);
enum ctl_exit node_rebuild(struct ctl *ctl);
enum ctl_exit log_inspect(struct ctl *ctl);
enum ctl_exit migrations_up(struct ctl *ctl);
enum ctl_exit migrations_status(struct ctl *ctl);
enum ctl_exit persist_status(struct ctl *ctl);
enum ctl_exit persist_adopt(struct ctl *ctl);
enum ctl_exit snapshot_save(struct ctl *ctl);
enum ctl_exit snapshot_inspect(struct ctl *ctl);
enum ctl_exit snapshot_verify(struct ctl *ctl);
enum ctl_exit snapshot_restore(struct ctl *ctl);
enum ctl_exit audit_run(struct ctl *ctl);
enum ctl_exit cluster_status(struct ctl *ctl);
enum ctl_exit demo_up(struct ctl *ctl);
enum ctl_exit demo_down(struct ctl *ctl);
enum ctl_exit demo_status(struct ctl *ctl);
enum ctl_exit completion_print(struct ctl *ctl);
enum ctl_exit version_print(struct ctl *ctl);

#endif
