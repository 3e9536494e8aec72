/* Owns: the table of problem types. What each means to a caller: docs/problems.md. */
#include "gateway/problem.h"

#include "base/check.h"

static const struct problem_info table[PROBLEM_COUNT] = {
#define P(name, status, slug, title) [PROBLEM_##name] = {status, #name, slug, title}
    P(INVALID_REQUEST, 400, "invalid-request", "The request is not valid"),
    P(IDEMPOTENCY_KEY_MISSING, 400, "idempotency-key-missing", "An Idempotency-Key is needed"),
    P(UNAUTHENTICATED, 401, "unauthenticated", "Who is asking is not known"),
    P(INVALID_SIGNATURE, 401, "invalid-signature", "The signature does not match"),
    P(STALE_TIMESTAMP, 401, "stale-timestamp", "The signed time is too far from now"),
    P(FORBIDDEN, 403, "forbidden", "This caller may not do that"),
    P(NOT_FOUND, 404, "not-found", "There is no such thing"),
    P(METHOD_NOT_ALLOWED, 405, "method-not-allowed", "This resource does not take that method"),
    P(NOT_ACCEPTABLE, 406, "not-acceptable", "None of the accepted media types is offered"),
    P(REQUEST_TIMEOUT, 408, "request-timeout", "The request did not arrive in time"),
    P(CONTENT_TOO_LARGE, 413, "content-too-large", "The body is too large"),
    P(URI_TOO_LONG, 414, "uri-too-long", "The request target is too long"),
    P(UNSUPPORTED_MEDIA_TYPE, 415, "unsupported-media-type", "The body's media type is not taken"),
    P(EXPECTATION_FAILED, 417, "expectation-failed", "This expectation is not met here"),
    P(VERSION_REQUIRED, 428, "version-required", "The version to replace must be named"),
    P(HEADERS_TOO_LARGE, 431, "headers-too-large", "The head of the request is too large"),
    P(VERSION_NOT_SUPPORTED, 505, "version-not-supported", "This version of HTTP is not spoken"),
    P(IDEMPOTENCY_KEY_REUSED, 422, "idempotency-key-reused",
      "The key was used for another request"),
    P(STALE_VERSION, 412, "stale-version", "It was changed in the meantime"),
    P(SALE_CLOSED, 409, "sale-closed", "The sale is over"),
    P(SALE_PAUSED, 409, "sale-paused", "The sale is paused"),
    P(SALE_NOT_OPEN, 409, "sale-not-open", "The sale has not begun"),
    P(DENYLISTED, 403, "denylisted", "This user may not order now"),
    P(QUANTITY_LIMIT, 409, "quantity-limit", "More units than one order may hold"),
    P(NOT_ELIGIBLE, 403, "not-eligible", "This user has no right to order in this sale"),
    P(ELIGIBILITY_EXHAUSTED, 409, "eligibility-exhausted", "All rights are given out"),
    P(ORDER_LIMIT_REACHED, 409, "order-limit-reached", "This user has ordered as much as allowed"),
    P(SOLD_OUT, 409, "sold-out", "Not enough units are left"),
    P(INSUFFICIENT_STOCK, 409, "insufficient-stock", "That would take units that are not free"),
    P(ORDER_NOT_PAYABLE, 409, "order-not-payable", "The order cannot be paid any more"),
    P(AMOUNT_MISMATCH, 422, "amount-mismatch", "The amount is not that of the order"),
    P(ORDER_NOT_CANCELLABLE, 409, "order-not-cancellable",
      "The order cannot be cancelled any more"),
    P(ORDER_NOT_REFUNDABLE, 409, "order-not-refundable", "The order has nothing to refund"),
    P(LEASE_HELD, 409, "lease-held", "Somebody else holds the lease"),
    P(STALE_FENCING_TOKEN, 409, "stale-fencing-token", "The fencing token is not the current one"),
    P(BACKLOG_FULL, 503, "backlog-full", "The database is too far behind"),
    P(CAPACITY, 503, "capacity", "A limit of the engine is reached"),
    P(LOW_SPACE, 503, "low-space", "The servers' disks are nearly full"),
    P(QUEUE_FULL, 503, "queue-full", "Too many requests are waiting"),
    P(NO_LEADER, 503, "no-leader", "The cluster has no leader at the moment"),
    P(INDEX_NOT_REACHED, 503, "index-not-reached", "The state asked for is not here yet"),
    P(SHUTTING_DOWN, 503, "shutting-down", "This gateway is shutting down"),
    P(OUTCOME_UNKNOWN, 504, "outcome-unknown", "It may or may not have happened"),
    P(INTERNAL, 500, "internal", "Something here is broken"),
#undef P
};

const struct problem_info *problem_info(enum problem p)
{
    CHECK(p > PROBLEM_NONE && p < PROBLEM_COUNT);
    return &table[p];
}
