/* membership: the configuration of the cluster as bytes, and the rules by which it may change.
 *
 * What it owns: the translation between struct replica_member, the opaque bytes in entries and
 * positions, and the core's own struct; the computation of a configuration after a change.
 * What it refuses: to submit anything (driver does), to keep state.
 *
 * The bytes are those of the core (it decodes entries of type change itself): u8 version, u64 count,
 * then per member u64 id, address with its NUL, u8 role; zero-padded to 8. The core's decoder trusts
 * what it reads, so nothing reaches it that membership_decode has not accepted.
 *
 * An address is "RAFT/NODE" (replica.h); configurations of older versions have the raft half alone and
 * stay as they are. Neither half may belong to two members.
 *
 * A change differs from the configuration before it by one member only (Raft dissertation §4.1): any
 * two majorities of neighbouring configurations overlap. Members keep their order, because the core
 * keeps the progress of members by position when their number stays the same. */
#ifndef RAFT_MEMBERSHIP_H
#define RAFT_MEMBERSHIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raft/replica.h"

struct membership {
    struct replica_member members[REPLICA_MEMBERS_MAX];
    size_t count;
};

/* Writes m (1..REPLICA_MEMBERS_MAX members, ids and addresses unique and not empty) and returns its
 * size, always a multiple of 8, at most REPLICA_CONFIGURATION_SIZE_MAX; or -1 when m is not valid. */
int membership_encode(const struct membership *m, uint8_t out[static REPLICA_CONFIGURATION_SIZE_MAX]);

/* Reads back; 0, or -1 when the bytes are not a valid configuration. Never reads beyond size. */
int membership_decode(const void *data, size_t size, struct membership *m);

/* The member with this id, or NULL. */
const struct replica_member *membership_find(const struct membership *m, uint64_t id);
size_t membership_count_voters(const struct membership *m);
/* True iff id is the only voter. */
bool membership_is_only_voter(const struct membership *m, uint64_t id);

/* The configuration after one change. Each returns REPLICA_REFUSAL_NONE, or why not (unknown or known
 * id or address, table full, last voter, wrong role) and leaves *to alone. A new member begins as a
 * spare or standby; it becomes a voter only by promotion, once it has caught up. */
enum replica_refusal membership_add(const struct membership *from,
                                    const struct replica_member *member, struct membership *to);
enum replica_refusal membership_assign(const struct membership *from, uint64_t id,
                                       enum replica_member_role role, struct membership *to);
enum replica_refusal membership_remove(const struct membership *from, uint64_t id,
                                       struct membership *to);

#endif
