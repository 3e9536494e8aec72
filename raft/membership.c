/* membership: configurations as bytes and the rules of change. See membership.h. */
#include "raft/membership.h"

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/str.h"
#include "proto/address.h"

#define MEMBERSHIP_FORMAT 1

/* The roles as the core numbers them in its encoding. */
enum { CORE_STANDBY = 0, CORE_VOTER = 1, CORE_SPARE = 2 };

_Static_assert(1 + 8 + REPLICA_MEMBERS_MAX * (8 + REPLICA_ADDRESS_SIZE + 1) + 7 <=
                   REPLICA_CONFIGURATION_SIZE_MAX,
               "the largest configuration fits into a position");

static uint8_t role_to_core(enum replica_member_role role)
{
    switch (role) {
    case REPLICA_SPARE:
        return CORE_SPARE;
    case REPLICA_STANDBY:
        return CORE_STANDBY;
    case REPLICA_VOTER:
        return CORE_VOTER;
    }
    CHECK_UNREACHABLE();
}

static bool role_from_core(uint8_t core, enum replica_member_role *role)
{
    switch (core) {
    case CORE_SPARE:
        *role = REPLICA_SPARE;
        return true;
    case CORE_STANDBY:
        *role = REPLICA_STANDBY;
        return true;
    case CORE_VOTER:
        *role = REPLICA_VOTER;
        return true;
    default:
        return false;
    }
}

/* ---- addresses ---- */

static void copy_half(char out[static REPLICA_ENDPOINT_SIZE], const char *from, size_t length)
{
    struct str half = {from, (uint32_t)length};
    if (!str_copy(out, REPLICA_ENDPOINT_SIZE, half)) {
        out[0] = '\0'; /* longer than any that was ever joined */
    }
}

void replica_address_raft(const char *address, char raft[static REPLICA_ENDPOINT_SIZE])
{
    copy_half(raft, address, strcspn(address, "/"));
}

void replica_address_node(const char *address, char node[static REPLICA_ENDPOINT_SIZE])
{
    const char *slash = strchr(address, '/');
    copy_half(node, slash != NULL ? slash + 1 : "", slash != NULL ? strlen(slash + 1) : 0);
}

static bool is_endpoint(const char *text)
{
    char host[ADDRESS_HOST_SIZE];
    uint16_t port;
    return strlen(text) < REPLICA_ENDPOINT_SIZE && strchr(text, '/') == NULL &&
           address_parse(text, host, &port) == 0 && port != 0;
}

bool replica_address_join(const char *raft, const char *node,
                          char address[static REPLICA_ADDRESS_SIZE])
{
    size_t raft_size = strlen(raft), node_size = strlen(node);
    if (!is_endpoint(raft) || !is_endpoint(node) ||
        raft_size + 1 + node_size >= REPLICA_ADDRESS_SIZE) {
        return false;
    }
    memcpy(address, raft, raft_size);
    address[raft_size] = '/';
    memcpy(address + raft_size + 1, node, node_size + 1);
    return true;
}

/* One half in common. */
static bool addresses_clash(const char *a, const char *b)
{
    char x[REPLICA_ENDPOINT_SIZE], y[REPLICA_ENDPOINT_SIZE];
    replica_address_raft(a, x);
    replica_address_raft(b, y);
    if (strcmp(x, y) == 0) {
        return true;
    }
    replica_address_node(a, x);
    replica_address_node(b, y);
    return x[0] != '\0' && strcmp(x, y) == 0;
}

/* ---- configurations ---- */

static bool membership_is_valid(const struct membership *m)
{
    if (m->count == 0 || m->count > REPLICA_MEMBERS_MAX) {
        return false;
    }
    for (size_t i = 0; i < m->count; i++) {
        const struct replica_member *member = &m->members[i];
        size_t length = strnlen(member->address, sizeof member->address);
        if (member->id == 0 || length == 0 || length == sizeof member->address) {
            return false;
        }
        for (size_t j = 0; j < i; j++) {
            if (m->members[j].id == member->id ||
                addresses_clash(m->members[j].address, member->address)) {
                return false;
            }
        }
    }
    return true;
}

int membership_encode(const struct membership *m, uint8_t out[static REPLICA_CONFIGURATION_SIZE_MAX])
{
    if (!membership_is_valid(m)) {
        return -1;
    }
    memset(out, 0, REPLICA_CONFIGURATION_SIZE_MAX);
    struct writer w = writer_init(out, REPLICA_CONFIGURATION_SIZE_MAX);
    writer_u8(&w, MEMBERSHIP_FORMAT);
    writer_u64(&w, m->count);
    for (size_t i = 0; i < m->count; i++) {
        writer_u64(&w, m->members[i].id);
        writer_bytes(&w, m->members[i].address, strlen(m->members[i].address) + 1);
        writer_u8(&w, role_to_core(m->members[i].role));
    }
    CHECK(!w.failed);
    size_t size = (size_t)(w.at - out);
    return (int)((size + 7) & ~(size_t)7);
}

/* The address in front of the reader with its NUL, copied. */
static void decode_address(struct reader *r, char address[static REPLICA_ADDRESS_SIZE])
{
    size_t left = reader_left(r);
    size_t bound = left < REPLICA_ADDRESS_SIZE ? left : REPLICA_ADDRESS_SIZE;
    size_t length = strnlen((const char *)r->at, bound);
    if (length == bound) {
        r->failed = true;
        return;
    }
    const void *bytes = reader_bytes(r, length + 1);
    if (bytes != NULL) {
        memcpy(address, bytes, length + 1);
    }
}

int membership_decode(const void *data, size_t size, struct membership *m)
{
    struct reader r = reader_init(data, size);
    struct membership decoded = {.count = 0};
    if (reader_u8(&r) != MEMBERSHIP_FORMAT) {
        return -1;
    }
    uint64_t count = reader_u64(&r);
    if (r.failed || count > REPLICA_MEMBERS_MAX) {
        return -1;
    }
    decoded.count = (size_t)count;
    for (size_t i = 0; i < decoded.count; i++) {
        struct replica_member *member = &decoded.members[i];
        member->id = reader_u64(&r);
        if (r.failed) {
            return -1;
        }
        decode_address(&r, member->address);
        if (!role_from_core(reader_u8(&r), &member->role)) {
            return -1;
        }
    }
    if (r.failed || reader_left(&r) >= 8 || !membership_is_valid(&decoded)) {
        return -1;
    }
    *m = decoded;
    return 0;
}

const struct replica_member *membership_find(const struct membership *m, uint64_t id)
{
    for (size_t i = 0; i < m->count; i++) {
        if (m->members[i].id == id) {
            return &m->members[i];
        }
    }
    return NULL;
}

bool replica_position_member(const struct replica_position *position, uint64_t id,
                             struct replica_member *member)
{
    struct membership m;
    if (position->configuration_size > sizeof position->configuration ||
        membership_decode(position->configuration, position->configuration_size, &m) != 0) {
        return false;
    }
    const struct replica_member *found = membership_find(&m, id);
    if (found != NULL) {
        *member = *found;
    }
    return found != NULL;
}

size_t membership_count_voters(const struct membership *m)
{
    size_t voters = 0;
    for (size_t i = 0; i < m->count; i++) {
        voters += m->members[i].role == REPLICA_VOTER;
    }
    return voters;
}

bool membership_is_only_voter(const struct membership *m, uint64_t id)
{
    const struct replica_member *member = membership_find(m, id);
    return member != NULL && member->role == REPLICA_VOTER && membership_count_voters(m) == 1;
}

enum replica_refusal membership_add(const struct membership *from,
                                    const struct replica_member *member, struct membership *to)
{
    struct membership next = {.count = 1, .members = {*member}};
    if (member->role == REPLICA_VOTER || !membership_is_valid(&next)) {
        return REPLICA_REFUSAL_INVALID;
    }
    for (size_t i = 0; i < from->count; i++) {
        if (from->members[i].id == member->id ||
            addresses_clash(from->members[i].address, member->address)) {
            return REPLICA_REFUSAL_DUPLICATE;
        }
    }
    if (from->count == REPLICA_MEMBERS_MAX) {
        return REPLICA_REFUSAL_FULL;
    }
    next = *from;
    next.members[next.count++] = *member;
    CHECK(membership_is_valid(&next));
    *to = next;
    return REPLICA_REFUSAL_NONE;
}

enum replica_refusal membership_assign(const struct membership *from, uint64_t id,
                                       enum replica_member_role role, struct membership *to)
{
    const struct replica_member *member = membership_find(from, id);
    if (member == NULL) {
        return REPLICA_REFUSAL_UNKNOWN;
    }
    if (member->role == role) {
        return REPLICA_REFUSAL_INVALID;
    }
    struct membership next = *from;
    next.members[member - from->members].role = role;
    if (membership_count_voters(&next) == 0) {
        return REPLICA_REFUSAL_LAST;
    }
    *to = next;
    return REPLICA_REFUSAL_NONE;
}

enum replica_refusal membership_remove(const struct membership *from, uint64_t id,
                                       struct membership *to)
{
    const struct replica_member *member = membership_find(from, id);
    if (member == NULL) {
        return REPLICA_REFUSAL_UNKNOWN;
    }
    struct membership next = *from;
    size_t at = (size_t)(member - from->members);
    memmove(&next.members[at], &next.members[at + 1],
            (next.count - at - 1) * sizeof next.members[0]);
    next.count--;
    if (membership_count_voters(&next) == 0) {
        return REPLICA_REFUSAL_LAST;
    }
    *to = next;
    return REPLICA_REFUSAL_NONE;
}
