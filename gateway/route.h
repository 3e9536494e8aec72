/* route: one table of everything that is served: method, pattern, who may, what is read, who handles.
 *
 * openapi.json describes the same table, and a test compares the two. Patterns are literal segments and
 * {names}: {order} is an order id, {key} an idempotency key, any other name an id. */
#ifndef GATEWAY_ROUTE_H
#define GATEWAY_ROUTE_H

#include "gateway/exchange.h"

#define ROUTE_SEGMENTS_MAX 5

enum route_flag {
    ROUTE_BODY = 1,          /* a JSON body is needed */
    ROUTE_BODY_OPTIONAL = 2, /* a JSON body or none */
    ROUTE_BODY_RAW = 4,      /* the handler verifies the raw bytes before anything reads them */
    ROUTE_KEY = 8,           /* Idempotency-Key is needed */
    ROUTE_KEY_OPTIONAL = 16,
    ROUTE_IF_MATCH = 32, /* If-Match, or If-None-Match: *, is needed */
    ROUTE_IF_MATCH_OPTIONAL = 64,
};

#define ON_PUBLIC 1u /* bits by enum listener_kind */
#define ON_ADMIN  2u

struct route {
    uint8_t method; /* llhttp_method_t; GET serves HEAD too */
    const char *pattern;
    unsigned listeners; /* ON_* */
    unsigned roles;     /* enum role bits */
    unsigned flags;     /* enum route_flag */
    const char *query;  /* names of the parameters it takes, between spaces */
    void (*handle)(struct exchange *x);
};

extern const struct route routes[];
extern const size_t routes_count;

/* Once at start. */
void routes_init(void);

/* Looks at the head: finds the route, who asks, whether they may, and reads what the head says. What is
 * wrong goes to x->refusal and is answered by route_run. */
void route_check(struct exchange *x, enum listener_kind listener);

/* The message is complete: answers the refusal or has the handler run. */
void route_run(struct exchange *x);

/* If-Match / If-None-Match of a write: the version it names. 0 for "must not exist". */
uint64_t route_expected_version(const struct exchange *x);

/* Index of a route in the table; routes_count for none. */
size_t route_number(const struct route *r);

#endif
