/* The parts of looking at a request's head, in the order of route_check. Each returns false after it
 * has set x->refusal. Within the gateway's routing only. */
#ifndef GATEWAY_ROUTE_PARTS_H
#define GATEWAY_ROUTE_PARTS_H

#include "gateway/route.h"

/* Keeps the first refusal; always false. field and detail live for ever. */
bool route_refuse(struct exchange *x, enum problem p, const char *field, const char *detail);

/* route_target.c; *used counts the bytes taken of x->text. False without a refusal: a fragment. */
bool route_split_target(struct exchange *x, struct str *path, struct str *query);
bool route_read_params(struct exchange *x, const struct str *pattern, const struct str *segments,
                       unsigned count, size_t *used);
bool route_read_query(struct exchange *x, struct str query, size_t *used);

/* route_head.c */
bool route_read_caller(struct exchange *x);
bool route_read_accept(struct exchange *x);
bool route_read_content_type(struct exchange *x);
bool route_read_precondition(struct exchange *x);
bool route_read_key(struct exchange *x);
bool route_read_wait(struct exchange *x);

#endif
