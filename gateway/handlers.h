/* handlers: one function a route, one file a resource. Each reads what it needs, refuses with a problem
 * or goes upstream, and answers exactly once. */
#ifndef GATEWAY_HANDLERS_H
#define GATEWAY_HANDLERS_H

#include "gateway/exchange.h"

void skus_list(struct exchange *x);
void skus_get(struct exchange *x);
void skus_put(struct exchange *x);
void skus_adjust(struct exchange *x);

void sales_list(struct exchange *x);
void sales_get(struct exchange *x);
void sales_put(struct exchange *x);
void sales_pause(struct exchange *x);
void sales_resume(struct exchange *x);
void sales_close(struct exchange *x);

void eligibilities_grant(struct exchange *x);
void eligibilities_list(struct exchange *x);
void eligibilities_get(struct exchange *x);
void eligibilities_revoke(struct exchange *x);

void orders_place(struct exchange *x);
void orders_list(struct exchange *x);
void orders_get(struct exchange *x);
void orders_cancel(struct exchange *x);
void orders_refund(struct exchange *x);
void order_requests_get(struct exchange *x);
/* What an order looks like in the answer to its placement: from the command and the parts of the reply
 * that a replay gives again. */
void orders_write_placed(struct json_writer *w, const struct command *c, const struct reply *r);

void payments_event(struct exchange *x);

void leases_acquire(struct exchange *x);
void leases_list(struct exchange *x);
void leases_get(struct exchange *x);
void leases_renew(struct exchange *x);
void leases_release(struct exchange *x);

void denylist_list(struct exchange *x);
void denylist_get(struct exchange *x);
void denylist_put(struct exchange *x);
void denylist_remove(struct exchange *x);

void health_live(struct exchange *x);
void health_ready(struct exchange *x);
void health_version(struct exchange *x);
void health_openapi(struct exchange *x);
void metrics_get(struct exchange *x);

#endif
