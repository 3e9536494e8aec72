/* holdfast-sim: runs seeds of the simulator.
 *
 *     holdfast-sim --seed 17                      one seed
 *     holdfast-sim --seed 1 --count 500           many
 *     holdfast-sim --seed 17 --verbose            with a trace
 *     holdfast-sim --disable-guard n1 --count 50 --expect-violation
 *
 * Exit 0: nothing found (with --expect-violation: something was). 1: a violation, with the command that
 * replays it. 2: usage. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "raft/driver_internal.h"
#include "tests/sim/sim_database.h"

static const struct {
    const char *name;
    unsigned guard;
} guards[] = {
    {"n1", DRIVER_GUARD_CHANGE_FIRST},
    {"n6", DRIVER_GUARD_NONVOTER},
    {"n2", DRIVER_GUARD_COMMIT_MONOTONIC},
    {"n3", DRIVER_GUARD_STALE_RESULT},
    {"n5", DRIVER_GUARD_REANCHOR},
    {"n7", DRIVER_GUARD_CHANGE_TERM},
    {"n10", DRIVER_GUARD_SELF_ELECT},
    {"refill", DRIVER_GUARD_REFILL},
    {"n12", DRIVER_GUARD_INSTALL_RETRY},
    {"n14", DRIVER_GUARD_PRE_VOTE_TERM},
    {"install-busy", DRIVER_GUARD_INSTALL_BUSY},
    {"snapshot-stored", DRIVER_GUARD_SNAPSHOT_STORED},
    {"noop", DRIVER_GUARD_NOOP},
    {"hold", DRIVER_GUARD_HOLD},
    {"same-write", DRIVER_GUARD_SAME_WRITE},
};

/* Of the database: what it, or the persister, would have to get wrong. */
static const struct {
    const char *name;
    unsigned guard;
} database_guards[] = {
    {"fence", SIM_GUARD_FENCE},
    {"watermark", SIM_GUARD_WATERMARK},
    {"commit", SIM_GUARD_COMMIT},
    {"row", SIM_GUARD_ROW},
};

static const struct sim_machine *const machines[] = {
    &sim_machine_chain,
    &sim_machine_engine,
};

/* Read by the handler. */
static struct sim_options options = {
    .seed = 1,
    .duration_us = 20000000,
    .machine = &sim_machine_chain,
};
static const char *guard_name;
static bool expect_violation;

static void put(const char *text)
{
    ssize_t ignored = write(STDOUT_FILENO, text, strlen(text));
    (void)ignored;
}

/* A violation, or a CHECK of the code under test. */
static void handle_abort(int signal_number)
{
    char line[256];
    int size = snprintf(line, sizeof line,
                        "signal %d at seed %llu\nreplay: holdfast-sim --seed %llu --duration %llu "
                        "--machine %s%s%s --verbose\n",
                        signal_number, (unsigned long long)options.seed,
                        (unsigned long long)options.seed,
                        (unsigned long long)(options.duration_us / 1000000), options.machine->name,
                        guard_name != NULL ? " --disable-guard " : "",
                        guard_name != NULL ? guard_name : "");
    if (size > 0) {
        put(line);
    }
    _exit(expect_violation ? 0 : 1);
}

static void usage(void)
{
    fprintf(stderr,
            "usage: holdfast-sim [--seed N] [--count N] [--duration SECONDS] [--machine NAME]\n"
            "                    [--twice-every N] [--disable-guard NAME] [--expect-violation]\n"
            "                    [--verbose] [--quiet]\n");
    exit(2);
}

static unsigned long long number(const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text == '\0' || *end != '\0') {
        usage();
    }
    return value;
}

static void disable_guard(const char *name)
{
    guard_name = name;
    if (strcmp(name, "clocks") == 0) {
        options.clocks_deaf = true;
        return;
    }
    for (size_t i = 0; i < sizeof database_guards / sizeof database_guards[0]; i++) {
        if (strcmp(database_guards[i].name, name) == 0) {
            options.database_guards_off |= database_guards[i].guard;
            return;
        }
    }
    for (size_t i = 0; i < sizeof guards / sizeof guards[0]; i++) {
        if (strcmp(guards[i].name, name) == 0) {
            options.guards_off |= guards[i].guard;
            return;
        }
    }
    usage();
}

static const struct sim_machine *find_machine(const char *name)
{
    for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++) {
        if (strcmp(machines[i]->name, name) == 0) {
            return machines[i];
        }
    }
    usage();
    return NULL;
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

static void print_stats(const struct sim_stats *t)
{
    printf("events %llu, messages %llu, submits %llu, acknowledged %llu, unknown %llu, reads %llu\n"
           "entries committed %llu, elections %llu, faults %llu, crashes %llu (by disk %llu), "
           "restarts %llu, torn writes %llu\n"
           "checkpoints %llu, installs %llu (failed %llu), transfers %llu, changes applied %llu\n"
           "disks lost %llu, refilled %llu, installs taken up again %llu, tickets given again %llu, removed and told so %llu\n"
           "clock faults %llu, steps of all %llu, times anchored anew %llu (alone %llu), by floor %llu, gone on "
           "%llu, handed over %llu, worst %llu ms\n",
           (unsigned long long)t->events, (unsigned long long)t->messages,
           (unsigned long long)t->submits, (unsigned long long)t->acknowledged,
           (unsigned long long)t->unknown, (unsigned long long)t->reads,
           (unsigned long long)t->commits, (unsigned long long)t->elections,
           (unsigned long long)t->faults, (unsigned long long)t->crashes,
           (unsigned long long)t->disk_crashes, (unsigned long long)t->restarts,
           (unsigned long long)t->torn, (unsigned long long)t->checkpoints,
           (unsigned long long)t->installs, (unsigned long long)t->installs_failed,
           (unsigned long long)t->transfers, (unsigned long long)t->changes,
           (unsigned long long)t->disks_lost, (unsigned long long)t->refilled,
           (unsigned long long)t->resumed, (unsigned long long)t->tickets_again,
           (unsigned long long)t->dismissed,
           (unsigned long long)t->clock_faults, (unsigned long long)t->clock_steps,
           (unsigned long long)t->clock_anchors, (unsigned long long)t->clock_alone, (unsigned long long)t->clock_floors,
           (unsigned long long)t->clock_goes_on, (unsigned long long)t->clock_hand_overs,
           (unsigned long long)t->clock_worst_ms);
    sim_database_print(t);
}

int main(int argc, char **argv)
{
    static const struct option table[] = {
        {"seed", required_argument, NULL, 's'},
        {"count", required_argument, NULL, 'n'},
        {"duration", required_argument, NULL, 'd'},
        {"machine", required_argument, NULL, 'm'},
        {"twice-every", required_argument, NULL, 't'},
        {"disable-guard", required_argument, NULL, 'g'},
        {"expect-violation", no_argument, NULL, 'e'},
        {"verbose", no_argument, NULL, 'v'},
        {"quiet", no_argument, NULL, 'q'},
        {NULL, 0, NULL, 0},
    };
    unsigned long long count = 1, twice_every = 0;
    bool quiet = false;
    for (int letter; (letter = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        switch (letter) {
        case 's':
            options.seed = number(optarg);
            break;
        case 'n':
            count = number(optarg);
            break;
        case 'd':
            options.duration_us = number(optarg) * 1000000;
            break;
        case 'm':
            options.machine = find_machine(optarg);
            break;
        case 't':
            twice_every = number(optarg);
            break;
        case 'g':
            disable_guard(optarg);
            break;
        case 'e':
            expect_violation = true;
            break;
        case 'v':
            options.verbose = true;
            break;
        case 'q':
            quiet = true;
            break;
        default:
            usage();
        }
    }
    if (optind != argc) {
        usage();
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    log_init("holdfast-sim", options.verbose ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR);
    signal(SIGABRT, handle_abort);
    if (expect_violation) {
        signal(SIGSEGV, handle_abort);
    }
    struct sim_stats total = {0};
    unsigned long long first = options.seed;
    for (unsigned long long i = 0; i < count; i++) {
        struct sim_stats stats;
        uint64_t hash;
        options.seed = first + i;
        sim_run(&options, &stats, &hash);
        add(&total, &stats);
        if (!quiet && count > 1 && (i + 1) % 100 == 0) {
            printf("%llu seeds\n", i + 1);
        }
        if (twice_every != 0 && i % twice_every == 0) {
            uint64_t again;
            sim_run(&options, &stats, &again);
            if (again != hash) {
                printf("VIOLATION: seed %llu does not replay: %016llx, then %016llx\n",
                       (unsigned long long)options.seed, (unsigned long long)hash,
                       (unsigned long long)again);
                return 1;
            }
        }
    }
    printf("seeds %llu..%llu, %llu virtual s of faults each, machine %s: no violation\n", first,
           first + count - 1, (unsigned long long)(options.duration_us / 1000000),
           options.machine->name);
    print_stats(&total);
    return expect_violation ? 1 : 0;
}
