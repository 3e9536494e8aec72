/* Members: where they listen, and requests to change who they are (docs/adr/0012).
 *
 * What it owns: the one change of the configuration that is under way here, and the sentence for each
 * way in which it can end. What it refuses: to decide whether a change is safe (raft/driver_change.c),
 * to queue changes: while one is under way others are told BUSY and ask again.
 *
 *     asking ──replica_member_*──▶ proposed ──committed──▶ OK
 *        │  ▲                         └──leadership lost──▶ OUTCOME_UNKNOWN
 *        │  └─ not now: each tick, for NODE_MEMBER_WAIT_MS, then REFUSED
 *        └─ it is about this node, which leads: handing over ──another leads──▶ NOT_LEADER, with a hint
 *
 * Failure modes: the asker is gone: a change that was proposed goes on, another one is dropped. Every
 * request can be repeated: what is so already is answered with OK. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "server/node_internal.h"

#define MESSAGE_SIZE 240 /* session_respond_status cuts at 256 */

enum change_kind { CHANGE_ADD, CHANGE_ASSIGN, CHANGE_REMOVE };

struct member_change {
    struct session *session;
    uint64_t id; /* of the request */
    enum change_kind kind;
    struct replica_member member; /* address: only of CHANGE_ADD */
    bool proposed, handing_over;
    uint64_t term; /* in which it was proposed */
    uint64_t begun_ms;
    uint64_t deadline_ms; /* the asker's patience */
};

static const char *role_name(enum replica_member_role role)
{
    return role == REPLICA_VOTER ? "voter" : role == REPLICA_STANDBY ? "standby" : "spare";
}

/* ---- where members listen ---- */

bool node_member_address(const struct node *n, uint64_t id,
                         char address[static REPLICA_ENDPOINT_SIZE])
{
    struct replica_member member;
    address[0] = '\0';
    if (id != 0 && n->replica != NULL && replica_get_member(n->replica, id, &member)) {
        replica_address_node(member.address, address);
    }
    const struct node_member *flag = node_options_member(n->options, id);
    if (address[0] == '\0' && flag != NULL) {
        str_copy(address, REPLICA_ENDPOINT_SIZE, str_from(flag->node_address));
    }
    return address[0] != '\0';
}

bool node_ticket_address(const struct node *n, const struct replica_ticket *ticket, uint64_t id,
                         char address[static REPLICA_ENDPOINT_SIZE])
{
    struct replica_member member;
    address[0] = '\0';
    if (replica_position_member(&ticket->position, id, &member)) {
        replica_address_node(member.address, address);
    }
    return address[0] != '\0' || node_member_address(n, id, address);
}

/* ---- the end of a change ---- */

static void finish(struct node *n, Holdfast__Status status, const char *message)
{
    struct member_change *c = n->change;
    n->change = NULL;
    session_respond_status(c->session, c->id, status, message);
    session_release(c->session);
    free(c);
}

/* How far a member is, for the sentence. */
static const struct replica_peer_info *find_peer(const struct replica_info *info, uint64_t id)
{
    for (size_t i = 0; i < info->peers_count; i++) {
        if (info->peers[i].member.id == id) {
            return &info->peers[i];
        }
    }
    return NULL;
}

static void explain_laggard(const struct replica_info *info, uint64_t id, char *out, size_t size)
{
    const struct replica_peer_info *peer = find_peer(info, id);
    uint64_t behind = peer != NULL && peer->match_index < info->last_index
                          ? info->last_index - peer->match_index
                          : 0;
    if (peer == NULL || !peer->connected) {
        snprintf(out, size,
                 "node %" PRIu64 " is not connected: start it (without --new-cluster), then ask again",
                 id);
    } else if (behind > 0) {
        snprintf(out, size,
                 "node %" PRIu64 " has not caught up: %" PRIu64
                 " entries behind; ask again when it has (member list shows it)",
                 id, behind);
    } else {
        snprintf(out, size, "node %" PRIu64 " is being filled and does not vote yet; ask again soon",
                 id);
    }
}

static void explain_duplicate(const struct replica_info *info, const struct replica_member *member,
                              char *out, size_t size)
{
    const struct replica_peer_info *same = find_peer(info, member->id);
    if (same != NULL) {
        snprintf(out, size,
                 "node %" PRIu64 " is a member already, at %s: a new machine gets a new id",
                 member->id, same->member.address);
    } else {
        snprintf(out, size,
                 "another member listens on one of these addresses (see member list): remove that "
                 "one first, or give others");
    }
}

static void explain(const struct node *n, enum replica_refusal why, char *out, size_t size)
{
    const struct member_change *c = n->change;
    struct replica_info info;
    replica_get_info(n->replica, &info);
    switch (why) {
    case REPLICA_REFUSAL_NONE:
    case REPLICA_REFUSAL_NOT_READY:
        snprintf(out, size, "the leader is not ready for changes now; ask again");
        return;
    case REPLICA_REFUSAL_PENDING:
        snprintf(out, size,
                 "the change before is not known to all connected voters yet; ask again, or look for "
                 "the voter that lags (member list)");
        return;
    case REPLICA_REFUSAL_LAGGARD:
        explain_laggard(&info, c->member.id, out, size);
        return;
    case REPLICA_REFUSAL_UNKNOWN:
        snprintf(out, size, "node %" PRIu64 " is no member", c->member.id);
        return;
    case REPLICA_REFUSAL_DUPLICATE:
        explain_duplicate(&info, &c->member, out, size);
        return;
    case REPLICA_REFUSAL_FULL:
        snprintf(out, size, "the cluster has %d members, no more fit: remove one first",
                 REPLICA_MEMBERS_MAX);
        return;
    case REPLICA_REFUSAL_INVALID:
        snprintf(out, size, "a new member begins as a standby or spare, with numeric addresses");
        return;
    case REPLICA_REFUSAL_LAST:
        snprintf(out, size,
                 "node %" PRIu64 " is the only voter: promote another one first", c->member.id);
        return;
    case REPLICA_REFUSAL_SELF:
        snprintf(out, size,
                 "node %" PRIu64 " leads, and no other voter is connected, caught up and not drained "
                 "that could take over",
                 c->member.id);
        return;
    case REPLICA_REFUSAL_QUORUM:
        snprintf(out, size,
                 "too few voters would be connected and caught up for a majority afterwards: bring "
                 "the others back first, or take away a dead one (member list)");
        return;
    }
    CHECK_UNREACHABLE();
}

static bool passes_by_itself(enum replica_refusal why)
{
    return why == REPLICA_REFUSAL_NOT_READY || why == REPLICA_REFUSAL_PENDING ||
           why == REPLICA_REFUSAL_LAGGARD || why == REPLICA_REFUSAL_NONE;
}

/* ---- steps ---- */

static enum replica_status propose(struct node *n, enum replica_refusal *why)
{
    const struct member_change *c = n->change;
    switch (c->kind) {
    case CHANGE_ADD:
        return replica_member_add(n->replica, &c->member, why);
    case CHANGE_ASSIGN:
        return replica_member_assign(n->replica, c->member.id, c->member.role, why);
    case CHANGE_REMOVE:
        return replica_member_remove(n->replica, c->member.id, why);
    }
    CHECK_UNREACHABLE();
}

/* What the newest configuration says of it, as if this request had been made before. */
static bool is_so_already(const struct node *n)
{
    const struct member_change *c = n->change;
    struct replica_member now;
    bool is_member = replica_get_member(n->replica, c->member.id, &now);
    switch (c->kind) {
    case CHANGE_ADD: /* whatever became of it since */
        return is_member && strcmp(now.address, c->member.address) == 0;
    case CHANGE_ASSIGN:
        return is_member && now.role == c->member.role;
    case CHANGE_REMOVE:
        return false; /* NOT_FOUND: it may be a typing error */
    }
    CHECK_UNREACHABLE();
}

static void wait_for_commit(struct node *n, uint64_t now_ms)
{
    const struct member_change *c = n->change;
    struct replica_info info;
    replica_get_info(n->replica, &info);
    if (info.term != c->term || n->role != REPLICA_LEADER) {
        finish(n, HOLDFAST__STATUS__STATUS_OUTCOME_UNKNOWN,
               "leadership was lost meanwhile; ask again: repeating it does no harm");
    } else if (!info.change_uncommitted) {
        finish(n, HOLDFAST__STATUS__STATUS_OK, "");
    } else if (now_ms >= c->deadline_ms) {
        finish(n, HOLDFAST__STATUS__STATUS_OUTCOME_UNKNOWN,
               "not committed in time: no majority answers; ask again: repeating it does no harm");
    }
}

static void note_proposed(struct node *n, uint64_t now_ms)
{
    struct member_change *c = n->change;
    struct replica_info info;
    replica_get_info(n->replica, &info);
    c->proposed = true;
    c->term = info.term;
    wait_for_commit(n, now_ms); /* an only voter has committed it by now */
}

static void hand_over_first(struct node *n)
{
    struct member_change *c = n->change;
    char message[MESSAGE_SIZE];
    if (replica_successor(n->replica) == 0) {
        explain(n, REPLICA_REFUSAL_SELF, message, sizeof message);
        finish(n, HOLDFAST__STATUS__STATUS_REFUSED, message);
        return;
    }
    log_info("handing over before this node's own place changes");
    c->handing_over = true;
    (void)node_hand_over(n, 0);
}

static void ask(struct node *n, uint64_t now_ms)
{
    struct member_change *c = n->change;
    char message[MESSAGE_SIZE];
    enum replica_refusal why = REPLICA_REFUSAL_NONE;
    struct replica_member now;
    if (is_so_already(n)) {
        note_proposed(n, now_ms);
        return;
    }
    if (c->kind == CHANGE_ASSIGN && c->member.role == REPLICA_SPARE &&
        replica_get_member(n->replica, c->member.id, &now) && now.role == REPLICA_VOTER) {
        /* A spare is sent nothing, so it would go on believing that it is a voter. */
        finish(n, HOLDFAST__STATUS__STATUS_REFUSED,
               "a voter becomes a standby first, then a spare");
        return;
    }
    enum replica_status status = propose(n, &why);
    if (status == REPLICA_OK) {
        log_info("membership: node %" PRIu64 " %s", c->member.id,
                 c->kind == CHANGE_REMOVE ? "leaves" : role_name(c->member.role));
        note_proposed(n, now_ms);
    } else if (status == REPLICA_NOT_LEADER) {
        finish(n, HOLDFAST__STATUS__STATUS_NOT_LEADER, "");
    } else if (why == REPLICA_REFUSAL_SELF) {
        hand_over_first(n);
    } else if (!passes_by_itself(why) || now_ms >= c->begun_ms + NODE_MEMBER_WAIT_MS ||
               now_ms >= c->deadline_ms) {
        explain(n, why, message, sizeof message);
        finish(n,
               why == REPLICA_REFUSAL_UNKNOWN ? HOLDFAST__STATUS__STATUS_NOT_FOUND
                                              : HOLDFAST__STATUS__STATUS_REFUSED,
               message);
    }
}

void members_tick(struct node *n, uint64_t now_ms)
{
    struct member_change *c = n->change;
    if (c == NULL) {
        return;
    }
    if (c->proposed) {
        wait_for_commit(n, now_ms);
    } else if (n->role != REPLICA_LEADER) {
        if (n->leader_id != 0 || now_ms >= c->begun_ms + NODE_MEMBER_WAIT_MS) {
            finish(n, HOLDFAST__STATUS__STATUS_NOT_LEADER, "");
        }
    } else if (c->handing_over) {
        if (now_ms >= c->begun_ms + NODE_HAND_OVER_MS) {
            finish(n, HOLDFAST__STATUS__STATUS_REFUSED,
                   "this node leads and could not hand over: no other voter took it; ask again");
        } else if (now_ms - n->transfer_ms >= NODE_TRANSFER_RETRY_MS) {
            (void)node_hand_over(n, 0);
        }
    } else {
        ask(n, now_ms);
    }
}

void members_end(struct node *n)
{
    if (n->change != NULL) {
        finish(n,
               n->change->proposed ? HOLDFAST__STATUS__STATUS_OUTCOME_UNKNOWN
                                   : HOLDFAST__STATUS__STATUS_REFUSED,
               "this node is stopping");
    }
}

/* ---- requests ---- */

static const char *parse_request(const Holdfast__Request *request, struct member_change *c)
{
    uint32_t role = REPLICA_STANDBY;
    switch ((int)request->body_case) {
    case HOLDFAST__REQUEST__BODY_MEMBER_ADD:
        c->kind = CHANGE_ADD;
        c->member.id = request->member_add->id;
        role = request->member_add->role;
        if (!replica_address_join(request->member_add->raft_address,
                                  request->member_add->node_address, c->member.address)) {
            return "an address is no numeric host:port";
        }
        break;
    case HOLDFAST__REQUEST__BODY_MEMBER_ASSIGN:
        c->kind = CHANGE_ASSIGN;
        c->member.id = request->member_assign->id;
        role = request->member_assign->role;
        break;
    default:
        c->kind = CHANGE_REMOVE;
        c->member.id = request->member_remove->id;
        break;
    }
    c->member.role = (enum replica_member_role)role;
    return c->member.id == 0 || c->member.id > UINT32_MAX ? "an id is 1 to 4294967295"
           : role > REPLICA_VOTER                         ? "no such role"
                                                          : NULL;
}

void members_request(struct session *s, const Holdfast__Request *request)
{
    struct node *n = s->node;
    struct member_change parsed = {.id = request->id};
    if (n->role != REPLICA_LEADER) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_NOT_LEADER, "");
        return;
    }
    const char *wrong = parse_request(request, &parsed);
    if (wrong != NULL) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_MALFORMED, wrong);
        return;
    }
    if (n->change != NULL) {
        session_respond_status(s, request->id, HOLDFAST__STATUS__STATUS_BUSY, "");
        return;
    }
    uint64_t now_ms = uv_now(n->loop);
    uint64_t timeout_ms = request->timeout_ms != 0 ? request->timeout_ms : NODE_READ_TIMEOUT_MS;
    timeout_ms = timeout_ms < NODE_READ_TIMEOUT_MAX_MS ? timeout_ms : NODE_READ_TIMEOUT_MAX_MS;
    struct member_change *c = malloc(sizeof *c);
    CHECK(c != NULL);
    *c = parsed;
    c->session = s;
    c->begun_ms = now_ms;
    c->deadline_ms = now_ms + timeout_ms - timeout_ms / 8; /* the answer wants to be in time */
    session_retain(s);
    n->change = c;
    members_tick(n, now_ms);
}
