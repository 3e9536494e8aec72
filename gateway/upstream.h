/* upstream: the way to the cluster, for handlers. A command or a read, one at a time for an exchange;
 * everything that is not success is answered here, so that a handler's callback only sees success. */
#ifndef GATEWAY_UPSTREAM_H
#define GATEWAY_UPSTREAM_H

#include "gateway/exchange.h"

/* Encodes the command and submits it, with the exchange's key and scope unless the command brings its
 * own. done is called with the decoded command (its texts live in the exchange) when the engine said
 * RESULT_OK; refusals, and outcomes that are not known, become problems. */
void upstream_submit(struct exchange *x, struct command *c, exchange_reply_cb done);

/* Asks a node, with the consistency that the query names. missing: what to call a thing that is not
 * there ("sku"). done is called with STATUS_OK only. */
void upstream_read(struct exchange *x, Holdfast__Request *request, const char *missing,
                   exchange_response_cb done);

/* As upstream_read, but "not found" goes to `absent` instead of being answered. */
void upstream_read_or(struct exchange *x, Holdfast__Request *request, exchange_response_cb done,
                      void (*absent)(struct exchange *x));

#endif
