/* sim_campaign: many seeds, one after the other or in several processes, and what they came to. */
#ifndef TESTS_SIM_SIM_CAMPAIGN_H
#define TESTS_SIM_SIM_CAMPAIGN_H

#include "tests/sim/sim.h"

#define SIM_JOBS_MAX        64u
#define SIM_FIRED_SEEDS     100u /* in so many seeds every kind of fault that is on must have struck */
#define SIM_VIOLATIONS_MAX  32u  /* seeds that are listed */

struct sim_campaign {
    struct sim_options *options; /* its seed is set before each run, for who prints how to replay it */
    uint64_t first, count;       /* count 0: until the time is over */
    uint64_t seconds;            /* 0: until all are done */
    uint64_t twice_every;        /* 0: none */
    unsigned jobs;               /* processes; 0: in this one */
    bool quiet;
};

/* Runs and reports. With processes a violation ends one of them only: with a time the campaign goes on
 * without that seed, otherwise it stops. SIGINT and SIGTERM end it after the seeds under way.
 * 0: nothing found; 1: a violation, a seed that does not replay, or a fault that never struck. */
int sim_campaign_run(const struct sim_campaign *c);

#endif
