/* A gateway in memory: connection, routing and handlers as they are, in front of the real state machine,
 * which takes the place of client and cluster (no network between them). Deterministic: the same bytes
 * give the same answers.
 *
 * The state at the beginning: SKUs A and B with stock, an open sale s, a user u1 with a right and an
 * order (http_world_order), a lease job, a denial of u9. Time: HTTP_WORLD_TIME_MS.
 *
 * Who asks: API keys HTTP_WORLD_KEY_…; user tokens signed by http_world_user_token; payment events signed
 * with the secret of http_world.c. */
#ifndef TESTS_FUZZ_HTTP_WORLD_H
#define TESTS_FUZZ_HTTP_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "base/text.h"

#define HTTP_WORLD_TIME_MS     1700000000000
#define HTTP_WORLD_KEY_ADMIN   "admin-key-0123456789"
#define HTTP_WORLD_KEY_BACKEND "shop-key-0123456789"
#define HTTP_WORLD_KEY_VIEWER  "view-key-0123456789"

struct http_world_input {
    bool admin;        /* on the listener for administration */
    bool end;          /* the caller ends its side behind the last byte */
    size_t write_size; /* bytes that one write takes at most; SIZE_MAX: all */
    /* In which pieces the bytes come: called with what is left until it is 0. NULL: in one. */
    size_t (*piece)(void *ctx, size_t left);
    void *ctx;
};

void http_world_begin(void);
/* One connection from accept to close; appends what was answered. */
void http_world_run(const struct http_world_input *in, const void *data, size_t size,
                    struct text *answer);

/* How often the state machine was asked in the last run. */
extern uint32_t http_world_commands, http_world_reads;

/* ---- reading answers ---- */

struct http_answer {
    unsigned status;
    struct str head, body; /* of head: from the status line to the empty line */
    bool json, problem;    /* by Content-Type */
};
/* Takes the next answer off text. Returns false at the end. Aborts when it is none: status line, fields,
 * Content-Length, JSON of bodies and the status in problems are checked. */
bool http_answer_next(struct str *text, struct http_answer *out);

/* ---- for seeds ---- */

const char *http_world_order(void);      /* id of the order of u1 */
const char *http_world_user_token(void); /* of u1 */
/* Signs a payment event as its id and time; the value of webhook-signature. */
void http_world_sign(const char *id, const char *timestamp, const char *body, char out[64]);

#endif
