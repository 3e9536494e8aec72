/* metrics: counters of this process, and /metrics. */
#ifndef GATEWAY_METRICS_H
#define GATEWAY_METRICS_H

#include "gateway/exchange.h"

void metrics_init(struct gateway *g);
void metrics_close(struct gateway *g);
/* An answer is complete: counts it by route and status, with its duration from the first byte read. */
void metrics_count_answer(const struct exchange *x);

#endif
