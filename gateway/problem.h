/* problem: every answer that is not a success, as RFC 9457 application/problem+json. One table holds
 * type, status, code and title; docs/problems.md tells cause and cure of each and is tested against
 * the table. */
#ifndef GATEWAY_PROBLEM_H
#define GATEWAY_PROBLEM_H

#include <stdint.h>

enum problem {
    PROBLEM_NONE,
    /* the request itself */
    PROBLEM_INVALID_REQUEST,
    PROBLEM_IDEMPOTENCY_KEY_MISSING,
    PROBLEM_UNAUTHENTICATED,
    PROBLEM_INVALID_SIGNATURE,
    PROBLEM_STALE_TIMESTAMP,
    PROBLEM_FORBIDDEN,
    PROBLEM_NOT_FOUND,
    PROBLEM_METHOD_NOT_ALLOWED,
    PROBLEM_NOT_ACCEPTABLE,
    PROBLEM_REQUEST_TIMEOUT,
    PROBLEM_CONTENT_TOO_LARGE,
    PROBLEM_URI_TOO_LONG,
    PROBLEM_UNSUPPORTED_MEDIA_TYPE,
    PROBLEM_EXPECTATION_FAILED,
    PROBLEM_VERSION_REQUIRED,
    PROBLEM_HEADERS_TOO_LARGE,
    PROBLEM_VERSION_NOT_SUPPORTED,
    /* refusals of the engine, in its order of precedence */
    PROBLEM_IDEMPOTENCY_KEY_REUSED,
    PROBLEM_STALE_VERSION,
    PROBLEM_SALE_CLOSED,
    PROBLEM_SALE_PAUSED,
    PROBLEM_SALE_NOT_OPEN,
    PROBLEM_DENYLISTED,
    PROBLEM_QUANTITY_LIMIT,
    PROBLEM_NOT_ELIGIBLE,
    PROBLEM_ELIGIBILITY_EXHAUSTED,
    PROBLEM_ORDER_LIMIT_REACHED,
    PROBLEM_SOLD_OUT,
    PROBLEM_INSUFFICIENT_STOCK,
    PROBLEM_ORDER_NOT_PAYABLE,
    PROBLEM_AMOUNT_MISMATCH,
    PROBLEM_ORDER_NOT_CANCELLABLE,
    PROBLEM_ORDER_NOT_REFUNDABLE,
    PROBLEM_LEASE_HELD,
    PROBLEM_STALE_FENCING_TOKEN,
    /* try again: nothing happened, nothing is stored */
    PROBLEM_BACKLOG_FULL,
    PROBLEM_CAPACITY,
    PROBLEM_LOW_SPACE,
    PROBLEM_QUEUE_FULL,
    PROBLEM_NO_LEADER,
    PROBLEM_INDEX_NOT_REACHED,
    PROBLEM_SHUTTING_DOWN,
    /* may have happened */
    PROBLEM_OUTCOME_UNKNOWN,
    /* a bug, here or in a node */
    PROBLEM_INTERNAL,
    PROBLEM_COUNT,
};

struct problem_info {
    uint16_t status;
    const char *code; /* "SOLD_OUT" */
    const char *slug; /* "sold-out": type is /problems/sold-out */
    const char *title;
};
const struct problem_info *problem_info(enum problem p);

#endif
