/* exchange: one request and its answer, from the first byte read to the last byte written. It is also
 * all the memory either needs: embedded buffers that fit the requests of the hot path, so that placing
 * an order allocates nothing here.
 *
 * Life:   take → READING → RUNNING → (answered) → written → back to the pool
 * An exchange may outlive its connection (a command that was submitted is waited for) and its answer
 * (202 is answered while the command is on its way). It goes back to the pool when it is answered, its
 * connection has let go of it, and nothing upstream holds it: exchange_settle. */
#ifndef GATEWAY_EXCHANGE_H
#define GATEWAY_EXCHANGE_H

#include "gateway/gateway.h"
#include "gateway/http_parse.h"
#include "gateway/json_read.h"
#include "gateway/json_write.h"
#include "gateway/out.h"
#include "proto/client.h"
#include "proto/command.h"

#define EXCHANGE_PARAMS_MAX     2
#define EXCHANGE_QUERY_MAX      8
#define EXCHANGE_TEXT_SIZE      (HTTP_TARGET_SIZE_MAX + 16)
#define EXCHANGE_COMMAND_INLINE 1536
#define REQUEST_ID_SIZE_MAX     128

struct route;
struct exchange;

typedef void (*exchange_reply_cb)(struct exchange *x, const struct command *c,
                                  const struct reply *reply);
typedef void (*exchange_response_cb)(struct exchange *x, const Holdfast__Response *response);

struct exchange {
    struct gateway *gateway;
    struct connection *connection; /* NULL: it has let go */
    struct exchange *next;         /* of the connection's queue, or of the pool */
    uint64_t started_ns;

    /* what was asked */
    const struct route *route; /* NULL: met none */
    struct caller caller;
    struct str params[EXCHANGE_PARAMS_MAX]; /* decoded, NUL-terminated, of the right syntax */
    uint64_t order_id;                      /* of a param {order} */
    struct {
        struct str name, value; /* decoded, NUL-terminated */
    } query[EXCHANGE_QUERY_MAX];
    size_t query_count;
    struct str key;   /* Idempotency-Key without quotes; empty: none */
    struct str scope; /* whose key it is */
    bool respond_async;
    bool wait_given;
    uint64_t wait_ms;

    /* a refusal found in the head, answered when the message is complete */
    enum problem refusal;
    const char *refusal_field, *refusal_detail;
    unsigned allow; /* methods, for 405: see route.c */

    /* the answer */
    int status;
    bool answered, close, head_only, replayed;
    uint64_t log_index; /* 0: nothing of the state is in it */
    const char *content_type;
    struct out head, fields, body;
    size_t written; /* bytes of head and body already handed over */

    /* upstream */
    uint8_t *command; /* encoded; lent to the client while submit_busy */
    size_t command_size;
    uint64_t deadline_ms;
    bool submit_busy, call_busy, sleeping;
    unsigned attempts;
    struct client_submit submit;
    struct client_call call;
    exchange_reply_cb on_reply;
    exchange_response_cb on_response;
    void (*on_absent)(struct exchange *x); /* a read found nothing; NULL: answered with 404 */
    bool wants_index;                      /* a read that waits for min_index */
    const char *missing;                   /* what to call it then; NULL: nothing */
    uint64_t wake_ms;
    void (*on_wake)(struct exchange *x);
    struct exchange *next_sleeper;
    uint64_t deadline_poll_ms; /* of a long poll */
    struct order_request *tracked;

    char scope_text[SCOPE_SIZE_MAX + 1];
    char request_id[REQUEST_ID_SIZE_MAX];
    uint32_t request_id_size;

    struct http_request request;   /* ends in large memory that is not cleared */
    char text[EXCHANGE_TEXT_SIZE]; /* of params and query */
    char head_memory[1024], fields_memory[512], body_memory[2048];
    uint8_t command_memory[EXCHANGE_COMMAND_INLINE];
};

/* Takes one from the pool. NULL when limits.requests_max are out. */
struct exchange *exchange_take(struct gateway *g);
/* Returns it to the pool if nothing holds it any more. Call after anything that may have been the
 * last hold. */
void exchange_settle(struct exchange *x);
/* Frees the pool. */
void exchange_pool_close(struct gateway *g);

/* Calls back after delay_ms, not before the loop's next iteration. One at a time. */
void exchange_sleep(struct exchange *x, uint64_t delay_ms, void (*wake)(struct exchange *x));
void exchange_sleep_cancel(struct exchange *x);
/* At the end: whoever still sleeps is never answered. */
void exchange_sleepers_close(struct gateway *g);

/* The decoded value of a query parameter; ptr NULL when it was not given. */
struct str exchange_query(const struct exchange *x, const char *name);

#endif
