/* sim_campaign: see sim_campaign.h. Processes share a page of counts; a worker takes the next seed from
 * it, so that none is run twice and none is left out. */
#include "tests/sim/sim_campaign.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "tests/sim/sim_database.h"

#define PROGRESS_S 60

struct worker {
    uint64_t seed;         /* under way */
    struct sim_stats total;
};

struct shared {
    _Atomic bool stop;
    _Atomic uint64_t next; /* of the seeds, from 0 */
    struct worker workers[SIM_JOBS_MAX];
    uint64_t violations[SIM_VIOLATIONS_MAX], violations_count;
};

static struct shared *shared;
static pid_t pids[SIM_JOBS_MAX]; /* of the workers, known to their parent; 0: none */

static void stop_cb(int signal_number)
{
    (void)signal_number;
    atomic_store(&shared->stop, true);
}

static uint64_t now_us(clockid_t clock)
{
    struct timespec t;
    CHECK(clock_gettime(clock, &t) == 0);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void add(struct sim_stats *to, const struct sim_stats *from)
{
    const uint64_t *values = (const uint64_t *)(const void *)from;
    uint64_t *sums = (uint64_t *)(void *)to;
    uint64_t worst_ms = to->clock_worst_ms > from->clock_worst_ms ? to->clock_worst_ms
                                                                  : from->clock_worst_ms;
    for (size_t i = 0; i < sizeof *to / sizeof *sums; i++) {
        sums[i] += values[i];
    }
    to->clock_worst_ms = worst_ms;
}

/* ---- running ---- */

static bool replays(const struct sim_campaign *c, uint64_t hash)
{
    struct sim_stats stats;
    uint64_t again;
    sim_run(c->options, &stats, &again);
    if (again != hash) {
        printf("VIOLATION: seed %llu does not replay: %016llx, then %016llx\n",
               (unsigned long long)c->options->seed, (unsigned long long)hash,
               (unsigned long long)again);
    }
    return again == hash;
}

/* Until there is no more to do. false: a seed did not replay. */
static bool work(const struct sim_campaign *c, struct worker *w, uint64_t end_us)
{
    while (!atomic_load(&shared->stop) && (end_us == 0 || now_us(CLOCK_MONOTONIC) < end_us)) {
        uint64_t i = atomic_fetch_add(&shared->next, 1);
        if (c->count != 0 && i >= c->count) {
            return true;
        }
        uint64_t begun_us = now_us(CLOCK_PROCESS_CPUTIME_ID);
        struct sim_stats stats;
        uint64_t hash;
        w->seed = c->options->seed = c->first + i;
        sim_run(c->options, &stats, &hash);
        stats.processor_us = now_us(CLOCK_PROCESS_CPUTIME_ID) - begun_us;
        add(&w->total, &stats);
        if (c->twice_every != 0 && i % c->twice_every == 0 && !replays(c, hash)) {
            return false;
        }
        if (c->jobs == 0 && !c->quiet && (i + 1) % 100 == 0) {
            printf("%llu seeds\n", (unsigned long long)i + 1);
        }
    }
    return true;
}

static void start(const struct sim_campaign *c, struct worker *w, uint64_t end_us)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
        fprintf(stderr, "holdfast-sim: fork: %s\n", strerror(errno));
        atomic_store(&shared->stop, true);
    } else if (pid > 0) {
        pids[w - shared->workers] = pid;
    } else {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody works on when the campaign is gone */
        bool good = work(c, w, end_us);
        fflush(stdout);
        _exit(good ? 0 : 1);
    }
}

/* A process is over: its seed was the last of all, or violated something. */
static void ended(const struct sim_campaign *c, struct worker *w, int status, uint64_t end_us)
{
    pids[w - shared->workers] = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return;
    }
    if (shared->violations_count++ < SIM_VIOLATIONS_MAX) {
        shared->violations[shared->violations_count - 1] = w->seed;
    }
    if (c->seconds == 0) {
        atomic_store(&shared->stop, true);
    } else if (!atomic_load(&shared->stop)) {
        start(c, w, end_us);
    }
}

static void sum(const struct sim_campaign *c, struct sim_stats *total)
{
    memset(total, 0, sizeof *total);
    for (unsigned i = 0; i < c->jobs || i == 0; i++) {
        add(total, &shared->workers[i].total);
    }
}

static void print_progress(const struct sim_campaign *c, uint64_t begun_us)
{
    struct sim_stats total;
    sum(c, &total);
    printf("%llu s: %llu seeds, %llu simulated s, %llu violations\n",
           (unsigned long long)(now_us(CLOCK_MONOTONIC) - begun_us) / 1000000,
           (unsigned long long)total.seeds, (unsigned long long)total.simulated_us / 1000000,
           (unsigned long long)shared->violations_count);
    fflush(stdout);
}

static void work_in_processes(const struct sim_campaign *c, uint64_t end_us)
{
    uint64_t begun_us = now_us(CLOCK_MONOTONIC), told = 0;
    unsigned running = c->jobs;
    for (unsigned i = 0; i < c->jobs; i++) {
        start(c, &shared->workers[i], end_us);
    }
    while (running > 0) {
        running = 0;
        for (unsigned i = 0; i < c->jobs; i++) {
            struct worker *w = &shared->workers[i];
            int status;
            if (pids[i] > 0 && waitpid(pids[i], &status, WNOHANG) == pids[i]) {
                ended(c, w, status, end_us);
            }
            running += pids[i] > 0;
        }
        uint64_t minutes = (now_us(CLOCK_MONOTONIC) - begun_us) / 1000000 / PROGRESS_S;
        if (minutes > told && !c->quiet) {
            told = minutes;
            print_progress(c, begun_us);
        }
        if (running > 0) {
            (void)nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        }
    }
}

/* ---- the report ---- */

static void print_faults(const struct sim_campaign *c, const struct sim_stats *t)
{
    uint64_t all = 0;
    for (unsigned fault = 0; fault < SIM_FAULTS; fault++) {
        all += t->fired[fault];
    }
    printf("faults injected %llu:", (unsigned long long)all);
    const char *separator = " ";
    for (unsigned fault = 0; fault < SIM_FAULTS; fault++) {
        if ((c->options->faults >> fault & 1) != 0) {
            printf("%s%s %llu", separator, sim_fault_name((enum sim_fault)fault),
                   (unsigned long long)t->fired[fault]);
            separator = ", ";
        }
    }
    printf("\n");
}

static void print_stats(const struct sim_stats *t)
{
    printf("events %llu, messages %llu, submits %llu, acknowledged %llu, unknown %llu, reads %llu\n"
           "commands applied %llu, elections %llu, crashes %llu (by disk %llu), restarts %llu, "
           "torn writes cut %llu\n"
           "checkpoints %llu (failed %llu), installs %llu (failed %llu), transfers %llu, changes applied "
           "%llu\n"
           "damage: refused %llu, last write cut %llu, harmless %llu; disks empty %llu, refilled %llu\n"
           "stuck disks: handed over %llu, given up %llu\n"
           "installs taken up again %llu, tickets given again %llu, removed and told so %llu\n"
           "clock faults %llu, steps of all %llu, times anchored anew %llu (alone %llu), by floor %llu, "
           "gone on %llu, handed over %llu, worst %llu ms\n",
           (unsigned long long)t->events, (unsigned long long)t->messages,
           (unsigned long long)t->submits, (unsigned long long)t->acknowledged,
           (unsigned long long)t->unknown, (unsigned long long)t->reads,
           (unsigned long long)t->commits, (unsigned long long)t->elections,
           (unsigned long long)t->crashes, (unsigned long long)t->disk_crashes,
           (unsigned long long)t->restarts, (unsigned long long)t->torn,
           (unsigned long long)t->checkpoints, (unsigned long long)t->checkpoints_failed,
           (unsigned long long)t->installs, (unsigned long long)t->installs_failed,
           (unsigned long long)t->transfers, (unsigned long long)t->changes,
           (unsigned long long)t->refused, (unsigned long long)t->cut,
           (unsigned long long)t->harmless, (unsigned long long)t->disks_lost,
           (unsigned long long)t->refilled, (unsigned long long)t->stuck_hand_overs,
           (unsigned long long)t->stuck_ended, (unsigned long long)t->resumed,
           (unsigned long long)t->tickets_again, (unsigned long long)t->dismissed,
           (unsigned long long)t->clock_faults, (unsigned long long)t->clock_steps,
           (unsigned long long)t->clock_anchors, (unsigned long long)t->clock_alone,
           (unsigned long long)t->clock_floors, (unsigned long long)t->clock_goes_on,
           (unsigned long long)t->clock_hand_overs, (unsigned long long)t->clock_worst_ms);
}

static bool says_never(bool never, const char *what)
{
    if (never) {
        printf("NEVER: %s: the simulator has stopped trying it\n", what);
    }
    return never;
}

/* A simulator that has silently stopped to hurt finds nothing for ever. */
static bool is_toothless(const struct sim_campaign *c, const struct sim_stats *t)
{
    uint64_t on = c->options->faults;
    bool never = false;
    if (t->seeds < SIM_FIRED_SEEDS) {
        return false;
    }
    for (unsigned fault = 0; fault < SIM_FAULTS; fault++) {
        bool possible = (on >> fault & 1) != 0 &&
                        (fault != SIM_FAULT_CLOCK_JUMP || c->options->machine->time_ms != NULL);
        never |= says_never(possible && t->fired[fault] == 0, sim_fault_name((enum sim_fault)fault));
    }
    never |= says_never(t->commits == 0, "a command applied");
    never |= says_never((on >> SIM_FAULT_ROT & 1) != 0 && t->refused == 0, "damage that is refused");
    never |= says_never((on >> SIM_FAULT_STUCK_DISK & 1) != 0 && t->stuck_hand_overs == 0,
                        "a leader that leaves a stuck disk");
    return never;
}

static int report(const struct sim_campaign *c, uint64_t wall_us)
{
    struct sim_stats t;
    sum(c, &t);
    bool unfinished = c->seconds == 0 && t.seeds < c->count && !atomic_load(&shared->stop);
    printf("seeds %llu from %llu on, %llu s of faults each, machine %s: ", (unsigned long long)t.seeds,
           (unsigned long long)c->first, (unsigned long long)(c->options->duration_us / 1000000),
           c->options->machine->name);
    if (shared->violations_count == 0) {
        printf("no violation\n");
    } else {
        printf("%llu VIOLATIONS, seeds", (unsigned long long)shared->violations_count);
        for (uint64_t i = 0; i < shared->violations_count && i < SIM_VIOLATIONS_MAX; i++) {
            printf(" %llu", (unsigned long long)shared->violations[i]);
        }
        printf("\n");
    }
    double processor_s = (double)t.processor_us / 1e6;
    printf("simulated %.0f s in %.1f s of processor time (%.0f s per s), %.1f s on the clock\n",
           (double)t.simulated_us / 1e6, processor_s,
           processor_s > 0 ? (double)t.simulated_us / 1e6 / processor_s : 0.0, (double)wall_us / 1e6);
    print_faults(c, &t);
    print_stats(&t);
    sim_database_print(&t);
    CHECK(!unfinished || shared->violations_count > 0);
    return is_toothless(c, &t) || shared->violations_count > 0 ? 1 : 0;
}

int sim_campaign_run(const struct sim_campaign *c)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    CHECK(c->jobs <= SIM_JOBS_MAX);
    struct sigaction action = {.sa_handler = stop_cb};
    CHECK(sigaction(SIGINT, &action, NULL) == 0);
    CHECK(sigaction(SIGTERM, &action, NULL) == 0);
    uint64_t begun_us = now_us(CLOCK_MONOTONIC);
    uint64_t end_us = c->seconds != 0 ? begun_us + c->seconds * 1000000 : 0;
    if (c->jobs > 0) {
        work_in_processes(c, end_us);
    } else if (!work(c, &shared->workers[0], end_us)) {
        return 1;
    }
    return report(c, now_us(CLOCK_MONOTONIC) - begun_us);
}
