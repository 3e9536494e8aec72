/* submit_frame: Submit requests and their responses, read and written in place.
 *
 * The messages are those of node.proto (holdfast.Request with body submit, holdfast.Response with
 * body submit); this is a second, allocation-free implementation of that one pair, because every
 * order goes through it twice. Whatever protobuf-c writes it reads, and the other way round (a test
 * compares). Every other message is for protobuf-c.
 *
 * Failure modes: a frame that is no protobuf message, or whose fields have the wrong wire type, is
 * -1. Unknown fields are skipped. */
#ifndef PROTO_SUBMIT_FRAME_H
#define PROTO_SUBMIT_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "proto/command.h"

/* ---- requests ---- */

struct submit_request {
    uint64_t id;
    uint32_t group, timeout_ms;
    bool is_submit; /* else: unpack the frame with protobuf-c */
    uint32_t count; /* commands */
    const uint8_t *at, *end;
};
/* Reads the head and, if the body is a Submit, validates all of it, so that submit_request_next
 * cannot fail. Borrows data. Returns 0 or -1. */
int submit_request_open(struct submit_request *r, const void *data, size_t size);
/* Borrows the next command; false at the end. */
bool submit_request_next(struct submit_request *r, const void **command, size_t *size);

/* Bytes that a command of this size takes in a frame. */
size_t submit_request_command_size(size_t command_size);
#define SUBMIT_REQUEST_HEAD_MAX 40
/* Writes the head of a request whose commands take commands_size bytes in sum
 * (submit_request_command_size of each). Returns its size, at most SUBMIT_REQUEST_HEAD_MAX. */
size_t submit_request_write_head(uint8_t *at, uint64_t id, uint32_t timeout_ms,
                                 size_t commands_size);
/* Appends one command; returns the bytes written. */
size_t submit_request_write_command(uint8_t *at, const void *command, size_t size);

/* ---- responses ---- */

/* The answer to one command on its way out. status: Holdfast__Status; the reply counts when it is
 * 0. */
struct submit_outcome {
    uint8_t status;
    uint8_t reply[REPLY_SIZE];
};
#define SUBMIT_RESPONSE_HEAD_MAX    64
#define SUBMIT_RESPONSE_OUTCOME_MAX (REPLY_SIZE + 8)
/* Writes a whole response with status OK; out has room for
 * SUBMIT_RESPONSE_HEAD_MAX + count × SUBMIT_RESPONSE_OUTCOME_MAX. Returns its size. */
size_t submit_response_write(uint8_t *out, uint64_t id, uint64_t index, int64_t time_ms,
                             uint32_t retry_after_ms, const struct submit_outcome *outcomes,
                             uint32_t count);

struct submit_response {
    uint64_t id;
    uint32_t status; /* Holdfast__Status of the whole frame */
    uint64_t leader_id;
    struct str leader_address, message;
    uint32_t retry_after_ms;
    bool has_outcomes;
    const uint8_t *at, *end;
};
/* Reads the head of any Response. Borrows data. Returns 0 or -1. */
int submit_response_open(struct submit_response *r, const void *data, size_t size);
/* The next outcome: 1; 0 at the end; -1 malformed. reply borrows; empty unless status is 0. */
int submit_response_next(struct submit_response *r, uint32_t *status, const void **reply,
                         size_t *reply_size);

#endif
