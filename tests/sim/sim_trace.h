/* sim_trace: one line for each event, in a format that stays (README.md):
 *
 *     SECONDS NODE WHAT key=value …
 *
 * To a file, and into a ring of the last lines, which are printed when a run ends with a violation. Costs
 * nothing when neither was asked for. One run at a time. */
#ifndef TESTS_SIM_SIM_TRACE_H
#define TESTS_SIM_SIM_TRACE_H

#include <stdio.h>

#include "tests/sim/sim.h"

#define SIM_TRACE_LINE 240
#define SIM_TRACE_TAIL 60 /* lines that are shown of a violation */

/* file NULL: none; tail 0: none. */
void sim_trace_begin(FILE *file, size_t tail);
/* Before the event takes place. */
void sim_trace_event(const struct sim *s, const struct sim_event *e);
/* The last line of all. */
void sim_trace_violation(const struct sim *s, const char *text);
/* Writes the ring with write(2): also from a signal handler. */
void sim_trace_print_tail(int fd);

#endif
