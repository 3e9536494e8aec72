/* order_requests: orders that were answered with 202 before their outcome was known, until somebody
 * may want to know it no more. What it knows is only what passed through this gateway; what it does not
 * know, the engine is asked. */
#ifndef GATEWAY_ORDER_REQUESTS_H
#define GATEWAY_ORDER_REQUESTS_H

#include "gateway/exchange.h"

#define ORDER_REQUESTS_MAX 16384 /* remembered; when all of them are pending: 503 QUEUE_FULL */

enum order_request_state {
    ORDER_REQUEST_PENDING,
    ORDER_REQUEST_ANSWERED, /* reply is there */
    ORDER_REQUEST_FAILED,   /* nothing happened: send it again */
    ORDER_REQUEST_UNKNOWN,  /* may have happened: ask the engine */
};

struct order_request {
    bool used;
    enum order_request_state state;
    enum client_outcome outcome;
    struct reply reply;
    uint64_t hash;
    char scope[SCOPE_SIZE_MAX + 1], key[KEY_SIZE_MAX + 1];
    struct order_request *next; /* of the same bucket */
};

struct order_requests *order_requests_create(void);
void order_requests_destroy(struct order_requests *o);

/* Remembers the exchange's request as pending. Returns false when that many are pending. */
bool order_requests_track(struct exchange *x);
/* Its outcome; the exchange is not tracked any more. reply: with CLIENT_OK. */
void order_requests_finish(struct exchange *x, enum client_outcome outcome,
                           const struct reply *reply);
/* NULL: not known here. Valid until the next call. */
const struct order_request *order_requests_find(struct order_requests *o, struct str scope,
                                                struct str key);

#endif
