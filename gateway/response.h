/* response: answers. Exactly one response_send or problem_* call ends an exchange's request. */
#ifndef GATEWAY_RESPONSE_H
#define GATEWAY_RESPONSE_H

#include "gateway/exchange.h"

/* Adds "name: value" to the answer's head. The value must hold no CR or LF. */
void response_field(struct exchange *x, const char *name, struct str value);
void response_fieldf(struct exchange *x, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Location of an order. */
void response_location_order(struct exchange *x, uint64_t order);

/* Sends with what is in x->body. content_type NULL: application/json. */
void response_send(struct exchange *x, int status);

/* Sends a 200 with a strong ETag made of the version and a hash of the body, or 304 when the caller has
 * that already. */
void response_send_versioned(struct exchange *x, uint64_t version);

/* Problems. field: JSON pointer, "header:…", "path:…" or "query:…"; NULL for none. */
void problem_send(struct exchange *x, enum problem p, const char *field, const char *detail);
void problem_send_fault(struct exchange *x, const struct json_fault *fault);
/* Try-again problems, with Retry-After. */
void problem_send_retry(struct exchange *x, enum problem p, const char *detail,
                        uint64_t retry_after_ms);
/* The common members, for problems with members of their own: begin, add members, then end. */
struct json_writer problem_begin(struct exchange *x, enum problem p, const char *detail);
void problem_end(struct exchange *x, struct json_writer *w, enum problem p);

/* What the engine refused: its problem type, and the body a replay gives bit by bit again. */
enum problem problem_of_result(enum result r);
void problem_send_reply(struct exchange *x, const struct reply *reply);
/* The members of that problem, within an object that is open. */
void problem_write_reply(struct json_writer *w, const struct reply *reply);

const char *response_reason(int status); /* "Created" */

#endif
