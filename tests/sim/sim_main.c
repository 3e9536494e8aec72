/* holdfast-sim: runs seeds of the simulator.
 *
 *     holdfast-sim --seed 17                      one seed
 *     holdfast-sim --seed 1 --count 500           many
 *     holdfast-sim --seed 17 --verbose            with a trace
 *     holdfast-sim --for 3600 --jobs 2            as many as an hour of two processors allows
 *     holdfast-sim --faults rot,crash --count 50  only of these kinds; --list-faults names all
 *     holdfast-sim --disable-guard n1 --count 50 --expect-violation
 *
 * Exit 0: nothing found (with --expect-violation: something was). 1: a violation, with the command that
 * replays it, or a fault that never struck in many seeds. 2: usage. */
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "raft/driver_internal.h"
#include "tests/sim/sim_campaign.h"
#include "tests/sim/sim_commit.h"
#include "tests/sim/sim_database.h"
#include "tests/sim/sim_shrink.h"
#include "tests/sim/sim_trace.h"

#define TAIL_SECONDS_MAX 300

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
    /* Each would do alone, here. */
    {"snapshot-stored", DRIVER_GUARD_SNAPSHOT_STORED | DRIVER_GUARD_CHECKPOINT_STORED},
    {"checkpoint-stored", DRIVER_GUARD_CHECKPOINT_STORED},
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
    .faults = SIM_FAULTS_ALL,
};
static const char *guard_name, *expected_check;
static bool expect_violation;
static int tail_fd = -1; /* only the last lines are wanted, here */
static bool traced;      /* there is a trace already */
static char self[4096];

static void put(const char *text)
{
    ssize_t ignored = write(STDOUT_FILENO, text, strlen(text));
    (void)ignored;
}

/* Runs the seed again with the trace on, in this process's place: it prints the last lines and ends. */
static void run_again(void)
{
    static char words[32768], tail[16];
    static char *argv[64];
    size_t argc = 0;
    sim_shrink_command(&options, guard_name, words, sizeof words);
    for (char *word = strtok(words, " "); word != NULL && argc < 60; word = strtok(NULL, " ")) {
        argv[argc++] = word;
    }
    snprintf(tail, sizeof tail, "%d", SIM_TRACE_TAIL);
    argv[argc++] = "--tail";
    argv[argc++] = tail;
    execv(self, argv);
}

/* A violation, or a CHECK of the code under test. The process is lost either way: what is called here need
 * not be safe in a handler. */
static void handle_abort(int signal_number)
{
    static char command[32768], line[33280];
    if (tail_fd >= 0) {
        sim_trace_print_tail(tail_fd);
        _exit(1);
    }
    sim_shrink_command(&options, guard_name, command, sizeof command);
    int size = snprintf(line, sizeof line, "signal %d at seed %llu, commit %s\nreplay: %s\n", signal_number,
                        (unsigned long long)options.seed, SIM_COMMIT, command);
    if (size > 0) {
        put(line);
    }
    if (expected_check != NULL && strcmp(expected_check, sim_violated_check) != 0 && *expected_check != '\0') {
        put("another check was expected\n");
        _exit(1);
    }
    if (!expect_violation && !traced) {
        put("the last events before it:\n");
        run_again();
    }
    _exit(expect_violation ? 0 : 1);
}

static void usage(void)
{
    fprintf(stderr,
            "usage: holdfast-sim [--seed N] [--count N] [--duration SECONDS] [--machine NAME]\n"
            "                    [--for SECONDS] [--jobs N] [--faults NAME,...] [--no-faults NAME,...]\n"
            "                    [--twice-every N] [--disable-guard NAME] [--expect-violation]\n"
            "                    [--expect-check NAME] [--nodes N] [--commands N] [--only NUMBER,...]\n"
            "                    [--no-database] [--shrink] [--shrink-runs N] [--trace FILE|-]\n"
            "                    [--list-faults] [--verbose] [--quiet]\n");
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

/* Guards that are not the driver's: what the simulator can do wrong in place of other parts. */
static bool disable_own_guard(const char *name)
{
    const struct {
        const char *name;
        bool *off;
    } own[] = {
        {"clocks", &options.clocks_deaf},
        {"edge", &options.edge_open},
        {"recovery", &options.log_shortens},
        {"disk-watch", &options.disk_unwatched},
        {"replies", &options.replies_altered},
    };
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        if (strcmp(own[i].name, name) == 0) {
            *own[i].off = true;
            return true;
        }
    }
    return false;
}

static void disable_guard(const char *name)
{
    guard_name = name;
    if (disable_own_guard(name)) {
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

static void list_faults(void)
{
    for (unsigned fault = 0; fault < SIM_FAULTS; fault++) {
        printf("%s\n", sim_fault_name((enum sim_fault)fault));
    }
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

static FILE *open_trace(const char *path)
{
    FILE *file = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    return file;
}

/* Everything else was printed before. */
static void only_tail(void)
{
    int nothing = open("/dev/null", O_WRONLY | O_CLOEXEC);
    tail_fd = dup(STDOUT_FILENO);
    if (nothing < 0 || tail_fd < 0 || dup2(nothing, STDOUT_FILENO) < 0 || dup2(nothing, STDERR_FILENO) < 0) {
        exit(2);
    }
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGABRT); /* blocked in the handler that began this process */
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    alarm(TAIL_SECONDS_MAX);
}

int main(int argc, char **argv)
{
    static struct sim_only only;
    bool shrink = false;
    unsigned shrink_runs = 400;
    size_t tail = 0;
    FILE *trace = NULL;
    static const struct option table[] = {
        {"seed", required_argument, NULL, 's'},
        {"count", required_argument, NULL, 'n'},
        {"duration", required_argument, NULL, 'd'},
        {"machine", required_argument, NULL, 'm'},
        {"for", required_argument, NULL, 'f'},
        {"jobs", required_argument, NULL, 'j'},
        {"faults", required_argument, NULL, 'a'},
        {"no-faults", required_argument, NULL, 'b'},
        {"nodes", required_argument, NULL, 'N'},
        {"commands", required_argument, NULL, 'c'},
        {"only", required_argument, NULL, 'o'},
        {"no-database", no_argument, NULL, 'D'},
        {"shrink", no_argument, NULL, 'S'},
        {"shrink-runs", required_argument, NULL, 'R'},
        {"trace", required_argument, NULL, 'T'},
        {"tail", required_argument, NULL, 'Z'}, /* of run_again */
        {"expect-check", required_argument, NULL, 'x'},
        {"list-faults", no_argument, NULL, 'l'},
        {"twice-every", required_argument, NULL, 't'},
        {"disable-guard", required_argument, NULL, 'g'},
        {"expect-violation", no_argument, NULL, 'e'},
        {"verbose", no_argument, NULL, 'v'},
        {"quiet", no_argument, NULL, 'q'},
        {NULL, 0, NULL, 0},
    };
    struct sim_campaign campaign = {.options = &options, .count = 1};
    bool counted = false;
    uint64_t set;
    for (int letter; (letter = getopt_long(argc, argv, "", table, NULL)) != -1;) {
        switch (letter) {
        case 's':
            options.seed = number(optarg);
            break;
        case 'n':
            campaign.count = number(optarg);
            counted = true;
            break;
        case 'd':
            options.duration_us = number(optarg) * 1000000;
            break;
        case 'm':
            options.machine = find_machine(optarg);
            break;
        case 't':
            campaign.twice_every = number(optarg);
            break;
        case 'g':
            disable_guard(optarg);
            break;
        case 'f':
            campaign.seconds = number(optarg);
            break;
        case 'j':
            campaign.jobs = (unsigned)number(optarg);
            break;
        case 'a':
            if (!sim_fault_parse(optarg, &set)) {
                usage();
            }
            options.faults &= set;
            break;
        case 'b':
            if (!sim_fault_parse(optarg, &set)) {
                usage();
            }
            options.faults &= ~set;
            break;
        case 'N':
            options.nodes_max = (unsigned)number(optarg);
            break;
        case 'c':
            options.commands_max = number(optarg);
            break;
        case 'o':
            if (!sim_only_parse(optarg, &only)) {
                usage();
            }
            options.only = &only;
            break;
        case 'D':
            options.no_database = true;
            break;
        case 'S':
            shrink = true;
            break;
        case 'R':
            shrink_runs = (unsigned)number(optarg);
            break;
        case 'T':
            trace = open_trace(optarg);
            break;
        case 'Z':
            tail = (size_t)number(optarg);
            break;
        case 'x':
            expected_check = optarg;
            break;
        case 'l':
            list_faults();
            return 0;
        case 'e':
            expect_violation = true;
            break;
        case 'v':
            options.verbose = true;
            break;
        case 'q':
            campaign.quiet = true;
            break;
        default:
            usage();
        }
    }
    if (optind != argc || campaign.count == 0 || campaign.jobs > SIM_JOBS_MAX ||
        (expect_violation && campaign.jobs > 0)) {
        usage();
    }
    if (campaign.seconds > 0) {
        campaign.count = counted ? campaign.count : 0;
        campaign.jobs = campaign.jobs > 0 || expect_violation ? campaign.jobs : 1;
    }
    campaign.first = options.seed;
    traced = options.verbose || trace != NULL;
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    self[size > 0 ? size : 0] = '\0';
    if (tail > 0) {
        only_tail();
    }
    sim_trace_begin(trace, tail);
    setvbuf(stdout, NULL, _IOLBF, 0);
    log_init("holdfast-sim", options.verbose ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR);
    signal(SIGABRT, handle_abort);
    if (expect_violation) {
        signal(SIGSEGV, handle_abort);
    }
    if (shrink) {
        int result = sim_shrink(&options, guard_name, shrink_runs);
        if (result == 0) {
            put("the last events before it:\n");
            run_again();
        }
        return result;
    }
    int found = sim_campaign_run(&campaign);
    return expect_violation ? 1 : found;
}
