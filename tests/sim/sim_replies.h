/* sim_replies: the answers of the real engine against those of a naive model, which is the one of the
 * property test (tests/unit/engine/model.h) and shares no code with the engine. In a share of the seeds the
 * model is given every committed batch, once, in order, until it is full. */
#ifndef TESTS_SIM_SIM_REPLIES_H
#define TESTS_SIM_SIM_REPLIES_H

#include "tests/sim/sim.h"

void sim_replies_create(struct sim *s);
void sim_replies_close(struct sim *s);
/* A node has applied the entry; answers: the hash of its replies (struct sim_machine). */
void sim_replies_applied(struct sim_node *n, const struct record_header *record, uint64_t answers);

#endif
