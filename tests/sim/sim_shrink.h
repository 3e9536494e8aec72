/* sim_shrink: a failing run made smaller, and what makes runs small: fewer nodes, fewer commands, fewer kinds
 * of faults, only some of the faults.
 *
 * Every fault is numbered and draws from a generator of its own, so that leaving one out changes neither when
 * the others strike nor what they are. */
#ifndef TESTS_SIM_SIM_SHRINK_H
#define TESTS_SIM_SIM_SHRINK_H

#include "tests/sim/sim.h"

#define SIM_ONLY_MAX      2048
#define SIM_ONLY_DATABASE 0x80000000u /* a fault of the database: "d7" */

/* The faults that strike; all others are left out. */
struct sim_only {
    size_t count;
    uint32_t numbers[SIM_ONLY_MAX];
};

/* How far a run came, for who cannot ask it: it may have ended by a signal. */
struct sim_progress {
    uint64_t faults, database_faults, commands, nodes;
};

/* "3,7,d2" or "none". false: malformed, or too many. */
bool sim_only_parse(const char *text, struct sim_only *only);
/* The command line that runs exactly these options. guard: NULL or the one that is off. */
void sim_shrink_command(const struct sim_options *o, const char *guard, char *out, size_t size);

/* After the seed has chosen. */
void sim_shrink_swarm(struct sim *s);
/* Around sim_faults_event: gives the fault its number and generator, or leaves it out. */
void sim_shrink_fault(struct sim *s);
/* The same for one of the database: the generator to use; false: left out. */
bool sim_shrink_database_fault(struct sim *s, struct prng *prng);

/* Runs the options, which must fail, then smaller ones that fail by the same check, at most `runs` of them.
 * Prints what it came to. *o: the smallest. 0, or 1 when nothing failed. */
int sim_shrink(struct sim_options *o, const char *guard, unsigned runs);

#endif
