/* Frames that an earlier version wrote (frames.txt, see README.md) are read by this one.
 *
 * Usage: golden_frames DIR...    each with a frames.txt: "node|raft client|server HEX" a line */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "proto/command.h"
#include "proto/node.pb-c.h"
#include "proto/submit_frame.h"
#include "raft/membership.h"
#include "raft/message.h"

#define LINE_SIZE_MAX (256u << 10)

static const char *place; /* file and line, for complaints */
static unsigned line_number;
static unsigned seen_commands[COMMAND_KIND_MAX + 1], seen_messages[64], seen_replies;

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%u: not so: %s\n", place, line_number, #condition);                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static void read_command(const void *data, size_t size)
{
    struct command c;
    uint8_t again[COMMAND_SIZE_MAX];
    EXPECT(command_decode(&c, data, size) == 0);
    EXPECT(command_encode(&c, again, sizeof again) == size);
    EXPECT(memcmp(again, data, size) == 0);
    seen_commands[c.kind]++;
}

static void read_request(const uint8_t *data, size_t size)
{
    struct submit_request r;
    const void *command;
    size_t command_size;
    EXPECT(submit_request_open(&r, data, size) == 0);
    while (r.is_submit && submit_request_next(&r, &command, &command_size)) {
        read_command(command, command_size);
    }
    Holdfast__Request *m = holdfast__request__unpack(NULL, size, data);
    EXPECT(m != NULL);
    EXPECT(m->body_case != HOLDFAST__REQUEST__BODY__NOT_SET);
    EXPECT(m->base.n_unknown_fields == 0);
    holdfast__request__free_unpacked(m, NULL);
}

static void read_response(const uint8_t *data, size_t size)
{
    struct submit_response r;
    uint32_t status;
    const void *bytes;
    size_t bytes_size;
    int more;
    EXPECT(submit_response_open(&r, data, size) == 0);
    while ((more = submit_response_next(&r, &status, &bytes, &bytes_size)) > 0) {
        struct reply reply;
        uint8_t again[REPLY_SIZE];
        if (status == HOLDFAST__STATUS__STATUS_OK) {
            EXPECT(reply_decode(&reply, bytes, bytes_size) == 0);
            reply_encode(&reply, again);
            EXPECT(bytes_size == sizeof again && memcmp(again, bytes, bytes_size) == 0);
            seen_replies++;
        }
    }
    EXPECT(more == 0);
    Holdfast__Response *m = holdfast__response__unpack(NULL, size, data);
    EXPECT(m != NULL);
    EXPECT(m->base.n_unknown_fields == 0);
    holdfast__response__free_unpacked(m, NULL);
}

static void read_batch(const struct record_header *record)
{
    struct batch_reader b;
    const void *command;
    size_t size;
    int more;
    EXPECT(batch_open(&b, record_data(record), record->size) == 0);
    while ((more = batch_next(&b, &command, &size)) > 0) {
        read_command(command, size);
    }
    EXPECT(more == 0);
}

static void read_message(const uint8_t *data, size_t size)
{
    struct message m;
    struct membership members;
    EXPECT(message_decode(data, size, &m) == 0);
    EXPECT(m.kind < ARRAY_COUNT(seen_messages));
    seen_messages[m.kind]++;
    if (m.kind == MESSAGE_INSTALL_SNAPSHOT) {
        EXPECT(membership_decode(m.configuration, m.configuration_size, &members) == 0);
        EXPECT(members.count == 3);
    }
    if (m.kind != MESSAGE_APPEND_ENTRIES) {
        return;
    }
    const struct record_header *record = m.records;
    for (unsigned i = 0; i < m.raft.append_entries.n_entries; i++, record = record_next(record)) {
        if (record->type == RECORD_COMMAND) {
            read_batch(record);
        } else if (record->type == RECORD_CHANGE) {
            EXPECT(membership_decode(record_data(record), record->size, &members) == 0);
        }
    }
}

static size_t from_hex(const char *text, uint8_t *out)
{
    size_t size = 0;
    unsigned byte;
    for (; sscanf(text, "%2x", &byte) == 1; text += 2) {
        out[size++] = (uint8_t)byte;
    }
    return size;
}

static void read_file(const char *directory)
{
    static char path[4096], line[LINE_SIZE_MAX], hex[LINE_SIZE_MAX];
    static _Alignas(8) uint8_t bytes[LINE_SIZE_MAX / 2];
    char link[8], from[8];
    snprintf(path, sizeof path, "%s/frames.txt", directory);
    place = path;
    line_number = 0;
    FILE *f = fopen(path, "re");
    EXPECT(f != NULL);
    while (fgets(line, sizeof line, f) != NULL) {
        line_number++;
        EXPECT(sscanf(line, "%7s %7s %262143s", link, from, hex) == 3);
        size_t size = from_hex(hex, bytes);
        if (strcmp(link, "raft") == 0) {
            read_message(bytes, size);
        } else if (strcmp(from, "client") == 0) {
            read_request(bytes, size);
        } else {
            read_response(bytes, size);
        }
    }
    fclose(f);
    /* What the first golden files had, none may lack. PERSIST_ACK needs a PostgreSQL. */
    for (unsigned kind = 1; kind <= COMMAND_DIGEST_MARK; kind++) {
        EXPECT(kind == COMMAND_PERSIST_ACK || seen_commands[kind] > 0);
    }
    static const enum message_kind kinds[] = {
        MESSAGE_APPEND_ENTRIES, MESSAGE_APPEND_ENTRIES_RESULT, MESSAGE_REQUEST_VOTE,
        MESSAGE_REQUEST_VOTE_RESULT, MESSAGE_INSTALL_SNAPSHOT, MESSAGE_TIMEOUT_NOW, MESSAGE_READ,
        MESSAGE_READ_ACK, MESSAGE_REFILL, MESSAGE_REFILL_ACK, MESSAGE_PING, MESSAGE_PONG,
        MESSAGE_HELLO};
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        EXPECT(seen_messages[kinds[i]] > 0);
    }
    EXPECT(seen_replies > 20);
    printf("%s: %u frames\n", path, line_number);
    memset(seen_commands, 0, sizeof seen_commands);
    memset(seen_messages, 0, sizeof seen_messages);
    seen_replies = 0;
}

int main(int argc, char **argv)
{
    CHECK(argc > 1);
    for (int i = 1; i < argc; i++) {
        read_file(argv[i]);
    }
    return 0;
}
