/* member add, promote, demote, remove, replace: who the members of the cluster are (docs/adr/0012).
 *
 * Each command looks at the configuration first, does what is missing step by step, and waits where
 * a step needs time (--wait): so an interrupted command is finished by repeating it. The leader
 * guards the steps (server/members.c); what it refuses is printed in its words.
 *
 *     replace = add as a standby → caught up → promote → remove the old one
 *
 * Order: the new one is a voter before the old one goes. With the old one dead the cluster survives
 * as many further losses at every step as it did before. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "proto/address.h"
#include "tools/ctl/ctl.h"
#include "tools/ctl/process.h"

#define POLL_MS       100
#define PROGRESS_MS   2000 /* between two lines about a member that catches up */
#define CAUGHT_UP_LAG 64   /* entries: as the leader's rule for a promotion */
#define CHANGE_TRIES  5    /* of a change whose outcome was unknown, or that needed a moment more */

enum { ROLE_SPARE, ROLE_STANDBY, ROLE_VOTER };

static const char *role_name(uint32_t role)
{
    return role == ROLE_VOTER ? "voter" : role == ROLE_STANDBY ? "standby" : "spare";
}

/* A member as the leader sees it. */
struct seen {
    bool is_member, connected, leads;
    uint32_t role;
    uint64_t id, match_index, last_index; /* last: of the leader's log */
    char raft_address[CLIENT_ADDRESS_SIZE], node_address[CLIENT_ADDRESS_SIZE];
};

static enum ctl_exit look(struct ctl *ctl, uint64_t id, struct seen *seen)
{
    Holdfast__Response *response;
    *seen = (struct seen){.id = id};
    enum ctl_exit rv = ctl_read_status(ctl, CLIENT_TARGET_LEADER, &response);
    if (rv != CTL_OK) {
        return rv;
    }
    const Holdfast__NodeStatusResult *s = response->node_status;
    seen->last_index = s->last_index;
    for (size_t i = 0; i < s->n_members; i++) {
        const Holdfast__Member *m = s->members[i];
        if (m->id == id) {
            seen->is_member = true;
            seen->leads = id == s->id;
            seen->connected = m->connected || seen->leads;
            seen->role = m->role;
            seen->match_index = seen->leads ? s->last_index : m->match_index;
            str_copy(seen->raft_address, CLIENT_ADDRESS_SIZE, str_from(m->raft_address));
            str_copy(seen->node_address, CLIENT_ADDRESS_SIZE, str_from(m->node_address));
        }
    }
    holdfast__response__free_unpacked(response, NULL);
    return CTL_OK;
}

static void print_member(struct ctl *ctl, const struct seen *seen)
{
    static const struct output_column columns[] = {
        {"id", "NODE", CELL_NUMBER},
        {"role", "ROLE", CELL_TEXT},
        {"connected", "CONNECTED", CELL_YES},
        {"match_index", "MATCH", CELL_NUMBER},
        {"last_index", "OF", CELL_NUMBER},
        {"node_address", "NODE ADDRESS", CELL_TEXT},
        {"raft_address", "RAFT ADDRESS", CELL_TEXT},
    };
    output_record(&ctl->output, columns, ARRAY_COUNT(columns),
                  json_pack("{s:I, s:s, s:b, s:I, s:I, s:s, s:s}", "id", (json_int_t)seen->id,
                            "role", seen->is_member ? role_name(seen->role) : "removed",
                            "connected", (int)seen->connected, "match_index",
                            (json_int_t)seen->match_index, "last_index",
                            (json_int_t)seen->last_index, "node_address", seen->node_address,
                            "raft_address", seen->raft_address));
}

/* The state after a command, to standard output. */
static enum ctl_exit show(struct ctl *ctl, uint64_t id)
{
    struct seen seen;
    enum ctl_exit rv = look(ctl, id, &seen);
    if (rv == CTL_OK) {
        print_member(ctl, &seen);
    }
    return rv;
}

/* Asks the leader for one change; again while the outcome is unknown, or (patient) while it is
 * refused: repeating does no harm. The last answer is explained. */
static enum ctl_exit change(struct ctl *ctl, Holdfast__Request *request, bool patient)
{
    enum ctl_exit rv = CTL_FAILURE;
    for (int left = CHANGE_TRIES; left > 0; left--) {
        Holdfast__Response *response;
        const char *wrong;
        rv = ctl_call_quietly(ctl, request, CLIENT_TARGET_LEADER, ctl->timeout_ms, &response,
                              &wrong);
        bool again = left > 1 && (rv == CTL_UNKNOWN || (patient && rv == CTL_REFUSED));
        if (rv != CTL_OK && !again) {
            const char *message = response != NULL ? response->message : "";
            ctl_say("%s: %s", rv == CTL_REFUSED ? "refused" : "not done",
                    message[0] != '\0' ? message : wrong);
            ctl_hint("holdfastctl member list");
        }
        if (response != NULL) {
            holdfast__response__free_unpacked(response, NULL);
        }
        if (!again) {
            break;
        }
        process_sleep_ms(POLL_MS);
    }
    return rv;
}

static enum ctl_exit assign(struct ctl *ctl, uint64_t id, uint32_t role)
{
    Holdfast__MemberAssign body = HOLDFAST__MEMBER_ASSIGN__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    body.id = id;
    body.role = role;
    request.body_case = HOLDFAST__REQUEST__BODY_MEMBER_ASSIGN;
    request.member_assign = &body;
    return change(ctl, &request, role == ROLE_VOTER);
}

static enum ctl_exit add(struct ctl *ctl, uint64_t id, const char *raft, const char *node,
                         uint32_t role)
{
    Holdfast__MemberAdd body = HOLDFAST__MEMBER_ADD__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    body.id = id;
    body.raft_address = ctl_lend(raft);
    body.node_address = ctl_lend(node);
    body.role = role;
    request.body_case = HOLDFAST__REQUEST__BODY_MEMBER_ADD;
    request.member_add = &body;
    return change(ctl, &request, false);
}

static enum ctl_exit remove_member(struct ctl *ctl, uint64_t id)
{
    Holdfast__MemberRemove body = HOLDFAST__MEMBER_REMOVE__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    struct seen seen;
    enum ctl_exit rv = look(ctl, id, &seen);
    if (rv == CTL_OK && !seen.is_member) {
        ctl_say("node %" PRIu64 " is no member", id);
        return CTL_OK;
    }
    body.id = id;
    request.body_case = HOLDFAST__REQUEST__BODY_MEMBER_REMOVE;
    request.member_remove = &body;
    return rv == CTL_OK ? change(ctl, &request, false) : rv;
}

/* "host:port", numeric. Both addresses are for others: not 0.0.0.0. */
static enum ctl_exit check_address(const char *text)
{
    char host[ADDRESS_HOST_SIZE];
    uint16_t port;
    if (address_parse(text, host, &port) != 0 || port == 0 || strcmp(host, "0.0.0.0") == 0 ||
        strcmp(host, "::") == 0) {
        ctl_say("'%s' is not an address under which others can reach a node", text);
        ctl_hint("a numeric host and a port: 10.0.0.4:7001, [fd00::4]:7001");
        return CTL_USAGE;
    }
    return CTL_OK;
}

static enum ctl_exit check_addresses(struct ctl *ctl)
{
    const char *raft = ctl_text(&ctl->arguments, "RAFT"), *node = ctl_text(&ctl->arguments, "NODE");
    enum ctl_exit rv = check_address(raft);
    rv = rv == CTL_OK ? check_address(node) : rv;
    if (rv == CTL_OK && strcmp(raft, node) == 0) {
        ctl_say("both addresses are %s", raft);
        ctl_hint("the raft listener and the node listener have a port each: 7001 and 7101");
        rv = CTL_USAGE;
    }
    return rv;
}

/* ---- catching up ---- */

static void say_progress(const struct seen *seen)
{
    if (!seen->connected) {
        ctl_say("node %" PRIu64 " is not connected yet: start it, without --new-cluster", seen->id);
    } else {
        ctl_say("node %" PRIu64 " has %" PRIu64 " of %" PRIu64 " entries", seen->id,
                seen->match_index, seen->last_index);
    }
}

static bool has_caught_up(const struct seen *seen)
{
    return seen->connected && seen->match_index > 0 &&
           seen->match_index + CAUGHT_UP_LAG >= seen->last_index;
}

/* Until the member has nearly all that the leader has, or --wait is over. A leader that is being
 * elected is no reason to give up. */
static enum ctl_exit wait_caught_up(struct ctl *ctl, uint64_t id, uint64_t deadline_ms)
{
    uint64_t said_ms = clock_monotonic_ms();
    for (;;) {
        struct seen seen;
        enum ctl_exit rv = look(ctl, id, &seen);
        uint64_t now_ms = clock_monotonic_ms();
        if (rv == CTL_OK && !seen.is_member) {
            ctl_say("node %" PRIu64 " is no member (any more)", id);
            ctl_hint("holdfastctl member list");
            return CTL_REFUSED;
        }
        if (rv == CTL_OK && has_caught_up(&seen)) {
            return CTL_OK;
        }
        if (now_ms >= deadline_ms) {
            if (rv == CTL_OK) {
                say_progress(&seen);
                ctl_say("node %" PRIu64 " has not caught up in time; what was done stays", id);
                ctl_hint("the same command again: it goes on from here");
                rv = CTL_FAILURE;
            }
            return rv;
        }
        if (rv == CTL_OK && now_ms - said_ms >= PROGRESS_MS) {
            say_progress(&seen);
            said_ms = now_ms;
        }
        process_sleep_ms(POLL_MS);
    }
}

static enum ctl_exit promote(struct ctl *ctl, uint64_t id)
{
    uint64_t deadline_ms = clock_monotonic_ms() + ctl_value(&ctl->arguments, "wait")->u64;
    struct seen seen;
    enum ctl_exit rv = look(ctl, id, &seen);
    if (rv == CTL_OK && !seen.is_member) {
        ctl_say("refused: node %" PRIu64 " is no member", id);
        ctl_hint("holdfastctl member add %" PRIu64 " RAFT NODE", id);
        return CTL_REFUSED;
    }
    if (rv == CTL_OK && seen.role == ROLE_SPARE) {
        rv = assign(ctl, id, ROLE_STANDBY);
    }
    if (rv == CTL_OK && seen.role != ROLE_VOTER) {
        rv = wait_caught_up(ctl, id, deadline_ms);
        rv = rv == CTL_OK ? assign(ctl, id, ROLE_VOTER) : rv;
    }
    return rv;
}

/* ---- commands ---- */

enum ctl_exit members_add(struct ctl *ctl)
{
    uint64_t id = ctl_value(&ctl->arguments, "ID")->u64;
    bool spare = strcmp(ctl_text(&ctl->arguments, "as"), "spare") == 0;
    struct seen seen;
    enum ctl_exit rv = check_addresses(ctl);
    rv = rv == CTL_OK ? add(ctl, id, ctl_text(&ctl->arguments, "RAFT"),
                            ctl_text(&ctl->arguments, "NODE"), spare ? ROLE_SPARE : ROLE_STANDBY)
                      : rv;
    rv = rv == CTL_OK ? look(ctl, id, &seen) : rv;
    if (rv == CTL_OK) {
        print_member(ctl, &seen);
        if (seen.role != ROLE_VOTER) {
            ctl_hint(
                "start the node, without --new-cluster, if it is not running; then: holdfastctl "
                "member promote %" PRIu64,
                id);
        }
    }
    return rv;
}

enum ctl_exit members_promote(struct ctl *ctl)
{
    uint64_t id = ctl_value(&ctl->arguments, "ID")->u64;
    enum ctl_exit rv = promote(ctl, id);
    return rv == CTL_OK ? show(ctl, id) : rv;
}

enum ctl_exit members_demote(struct ctl *ctl)
{
    uint64_t id = ctl_value(&ctl->arguments, "ID")->u64;
    uint32_t role =
        strcmp(ctl_text(&ctl->arguments, "to"), "spare") == 0 ? ROLE_SPARE : ROLE_STANDBY;
    struct seen seen;
    char what[96];
    snprintf(what, sizeof what, "node %" PRIu64 " will be a %s and count for no majority", id,
             role_name(role));
    enum ctl_exit rv = ctl_confirm(ctl, ctl_text(&ctl->arguments, "ID"), what);
    rv = rv == CTL_OK ? look(ctl, id, &seen) : rv;
    if (rv == CTL_OK && (!seen.is_member || seen.role < role)) {
        ctl_say("refused: node %" PRIu64 " is %s", id, seen.is_member ? "a spare" : "no member");
        ctl_hint(seen.is_member ? "holdfastctl member promote %" PRIu64
                                : "holdfastctl member list (node %" PRIu64 ")",
                 id);
        rv = CTL_REFUSED;
    }
    if (rv == CTL_OK && seen.role == ROLE_VOTER) {
        rv = assign(ctl, id, ROLE_STANDBY);
    }
    if (rv == CTL_OK && role == ROLE_SPARE && seen.role != ROLE_SPARE) {
        rv = assign(ctl, id, ROLE_SPARE);
    }
    return rv == CTL_OK ? show(ctl, id) : rv;
}

enum ctl_exit members_remove(struct ctl *ctl)
{
    uint64_t id = ctl_value(&ctl->arguments, "ID")->u64;
    char what[128];
    snprintf(what, sizeof what,
             "node %" PRIu64 " will leave the cluster and stop; its data cannot come back", id);
    enum ctl_exit rv = ctl_confirm(ctl, ctl_text(&ctl->arguments, "ID"), what);
    rv = rv == CTL_OK ? remove_member(ctl, id) : rv;
    return rv == CTL_OK ? show(ctl, id) : rv;
}

enum ctl_exit members_replace(struct ctl *ctl)
{
    uint64_t old_id = ctl_value(&ctl->arguments, "OLD")->u64;
    uint64_t new_id = ctl_value(&ctl->arguments, "NEW")->u64;
    struct seen old, new;
    char what[128];
    if (old_id == new_id) {
        ctl_say("a new machine gets an id of its own, not %" PRIu64 " again", new_id);
        ctl_hint("holdfastctl member list, and an id that was never used");
        return CTL_USAGE;
    }
    snprintf(what, sizeof what,
             "node %" PRIu64 " will leave the cluster and stop, when node %" PRIu64
             " has taken its place",
             old_id, new_id);
    enum ctl_exit rv = check_addresses(ctl);
    rv = rv == CTL_OK ? ctl_confirm(ctl, ctl_text(&ctl->arguments, "OLD"), what) : rv;
    rv = rv == CTL_OK ? look(ctl, old_id, &old) : rv;
    rv = rv == CTL_OK ? look(ctl, new_id, &new) : rv;
    if (rv != CTL_OK) {
        return rv;
    }
    if (!old.is_member && !new.is_member) {
        ctl_say("refused: neither node %" PRIu64 " nor node %" PRIu64 " is a member", old_id,
                new_id);
        ctl_hint("holdfastctl member list");
        return CTL_REFUSED;
    }
    if (old.is_member) {
        uint32_t role = old.role == ROLE_SPARE ? ROLE_SPARE : ROLE_STANDBY;
        rv = add(ctl, new_id, ctl_text(&ctl->arguments, "RAFT"), ctl_text(&ctl->arguments, "NODE"),
                 role);
        rv = rv == CTL_OK && old.role == ROLE_VOTER ? promote(ctl, new_id) : rv;
        rv = rv == CTL_OK ? remove_member(ctl, old_id) : rv;
    }
    return rv == CTL_OK ? show(ctl, new_id) : rv;
}
