/* message: Raft messages as frames of a link, and back.
 *
 * What it owns: the byte layout of each message, and every bound that is checked before a field is
 * believed. What it refuses: to carry the sender's identity (that comes from the authenticated
 * session), to allocate, to re-encode entries: AppendEntries carries records as they lie in the log.
 *
 * Frame payload: a 64-byte header, then
 *     AppendEntries: count records, one after the other (record.h)
 *     InstallSnapshot, HELLO: configuration, padded to 8; data, padded to 8
 *     others: nothing
 *
 * Failure modes: message_decode returns -1 for whatever a correct peer would never send; the
 * connection is then closed. */
#ifndef RAFT_MESSAGE_H
#define RAFT_MESSAGE_H

#include <raft.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raft/record.h"

enum message_kind {
    /* 1..6: as enum raft_message_type */
    MESSAGE_APPEND_ENTRIES = 1,
    MESSAGE_APPEND_ENTRIES_RESULT = 2,
    MESSAGE_REQUEST_VOTE = 3,
    MESSAGE_REQUEST_VOTE_RESULT = 4,
    MESSAGE_INSTALL_SNAPSHOT = 5,
    MESSAGE_TIMEOUT_NOW = 6,
    /* ReadIndex: the leader of `term` asks whether it still is one; seq names the round. */
    MESSAGE_READ = 16,
    MESSAGE_READ_ACK = 17,
    /* Of a member that lost its disk: is the sender's leader followed by a majority of the others? seq
     * is the asker's own, index the last entry of the leader (answer only). docs/adr/0010 */
    MESSAGE_REFILL = 18,
    MESSAGE_REFILL_ACK = 19,
    /* "You are no member": index is that of the committed configuration that says so. docs/adr/0012 */
    MESSAGE_REMOVED = 20,
    MESSAGE_WILLING = 21, /* seq 0: the sender does not want to lead; 1: it does (again) */
    /* Of the transport; never leave it. Liveness of an idle connection, and who calls: */
    MESSAGE_PING = 32,
    MESSAGE_PONG = 33,
    /* First on a connection; data: the address under which the caller listens; seq and index: the oldest
     * and newest format that it can do (proto/format.h), 0 from programs that did not say. */
    MESSAGE_HELLO = 34,
};

#define MESSAGE_HEADER_SIZE        64u
#define MESSAGE_ENTRIES_MAX        4096u
#define MESSAGE_SIZE_MAX           (32u << 20) /* of a frame */
#define MESSAGE_CONFIGURATION_MAX  1024u /* bytes, as REPLICA_CONFIGURATION_SIZE_MAX */
#define MESSAGE_DATA_MAX           256u  /* bytes of a ticket, as REPLICA_TICKET_SIZE_MAX */
#define MESSAGE_MEMBERS_MAX        9u

/* The sender's clocks, read together (docs/adr/0016). They travel in bytes of PONG that were reserved:
 * a node of an earlier version sends none and ignores them. */
struct message_clock {
    uint64_t monotonic_ns; /* 0: the message carries no clocks */
    uint64_t wall_ms;
    uint64_t cluster_ns; /* the cluster's time, as it knows it; 0: it does not */
    bool leads;          /* in `term`, and the cluster's time is its own */
    bool suspect;        /* the sender finds that its clocks disagree with the majority's */
};

/* A decoded message. Everything is borrowed from the frame. */
struct message {
    enum message_kind kind;
    /* kinds 1..6: type and all plain fields. server_id, server_address and candidate_id are left 0:
     * the receiver sets them from the session. append_entries.entries is NULL while n_entries counts:
     * build it from `records`. install_snapshot.conf and .data are empty: see below. */
    struct raft_message raft;
    /* AppendEntries: n_entries records back to back, records_size bytes, 8-byte aligned, each checked
     * (checksum, entry type, index = prev + 1 ..., terms never falling and ≤ the message's term). */
    const struct record_header *records;
    size_t records_size;
    /* InstallSnapshot: an encoded raft configuration that membership_decode accepts, and the ticket.
     * HELLO: data alone. */
    const void *configuration;
    size_t configuration_size;
    const void *data;
    size_t data_size;
    /* kinds 16 to 21; MESSAGE_PING and PONG use seq, HELLO seq and index */
    uint64_t term, seq, index;
    struct message_clock clock; /* PONG */
};

/* What is to be encoded: a message of the core plus what the core does not carry. */
struct message_out {
    const struct raft_message *raft; /* NULL for kinds ≥ 16 */
    /* AppendEntries: n_entries pointers into the log cache, in order. */
    const struct record_header *const *records;
    /* InstallSnapshot: instead of raft->install_snapshot.conf and .data */
    const void *configuration;
    size_t configuration_size;
    const void *data;
    size_t data_size;
    /* kinds ≥ 16, used when raft is NULL */
    enum message_kind kind;
    uint64_t term, seq, index;
    struct message_clock clock; /* PONG */
};

/* Bytes that message_encode will write: a multiple of 8. 0 if it exceeds a limit above. */
size_t message_size(const struct message_out *m);
/* Writes exactly message_size(m) bytes to `at`, which is 8-byte aligned. */
void message_encode(const struct message_out *m, void *at);

/* Decodes and checks a payload, 8-byte aligned. Returns 0, or -1: malformed. */
int message_decode(const void *data, size_t size, struct message *m);

#endif
