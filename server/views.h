/* views: reads of the state machine as messages of the node protocol.
 *
 * What it owns: the translation of engine views into protobuf. What it refuses: to wait; whoever
 * calls has made sure that this node has applied enough (read_requests.h). */
#ifndef SERVER_VIEWS_H
#define SERVER_VIEWS_H

#include <stdbool.h>

#include "engine/engine.h"
#include "proto/arena.h"
#include "proto/node.pb-c.h"

#define VIEWS_LIST_LIMIT_DEFAULT 100
#define VIEWS_LIST_LIMIT_MAX     500

/* Answers a get_*, list_*, marked_digest or check_invariants request from what the engine holds
 * now: sets status, message, index, time_ms, next_cursor and body of `response`, which the caller
 * has initialized. What it points to lives in the arena. Returns false, response untouched, when
 * the request is of another kind. NOT_FOUND and MALFORMED are answers. */
bool views_answer(struct engine *e, const Holdfast__Request *request, Holdfast__Response *response,
                  struct arena *arena);

#endif
