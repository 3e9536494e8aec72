/* See sim_shrink.h. Each run is a process of its own, for a violation ends it. */
#include "tests/sim/sim_shrink.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"

#define RUN_SECONDS_MAX 60 /* a run that takes longer is no smaller one */
#define OTHER_SEEDS     4  /* tried when the same seed does not fail any more */
#define CHECK_SIZE      128

/* ---- options ---- */

bool sim_only_parse(const char *text, struct sim_only *only)
{
    only->count = 0;
    if (strcmp(text, "none") == 0) {
        return true;
    }
    while (*text != '\0') {
        uint32_t database = *text == 'd' ? SIM_ONLY_DATABASE : 0;
        char *end;
        text += database != 0;
        unsigned long value = strtoul(text, &end, 10);
        if (end == text || value >= SIM_ONLY_DATABASE || (*end != ',' && *end != '\0') ||
            only->count == SIM_ONLY_MAX) {
            return false;
        }
        only->numbers[only->count++] = (uint32_t)value | database;
        text = *end == ',' ? end + 1 : end;
    }
    return only->count > 0;
}

static void append(char *out, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void append(char *out, size_t size, const char *format, ...)
{
    size_t at = strlen(out);
    va_list args;
    va_start(args, format);
    vsnprintf(out + at, size - at, format, args);
    va_end(args);
}

static void append_faults(char *out, size_t size, uint64_t faults)
{
    append(out, size, "%s", faults == 0 ? "none" : "");
    bool any = false;
    for (unsigned i = 0; i < SIM_FAULTS; i++) {
        if ((faults >> i & 1) != 0) {
            append(out, size, "%s%s", any ? "," : "", sim_fault_name((enum sim_fault)i));
            any = true;
        }
    }
}

void sim_shrink_command(const struct sim_options *o, const char *guard, char *out, size_t size)
{
    snprintf(out, size, "holdfast-sim --seed %" PRIu64 " --duration %" PRIu64 " --machine %s", o->seed,
             o->duration_us / 1000000, o->machine->name);
    if (guard != NULL) {
        append(out, size, " --disable-guard %s", guard);
    }
    if (o->faults != SIM_FAULTS_ALL) {
        append(out, size, " --faults ");
        append_faults(out, size, o->faults);
    }
    if (o->nodes_max != 0) {
        append(out, size, " --nodes %u", o->nodes_max);
    }
    if (o->commands_max != 0) {
        append(out, size, " --commands %" PRIu64, o->commands_max);
    }
    if (o->no_database) {
        append(out, size, " --no-database");
    }
    if (o->only != NULL) {
        append(out, size, " --only %s", o->only->count == 0 ? "none" : "");
        for (size_t i = 0; i < o->only->count; i++) {
            uint32_t number = o->only->numbers[i];
            append(out, size, "%s%s%u", i > 0 ? "," : "", (number & SIM_ONLY_DATABASE) != 0 ? "d" : "",
                   number & ~SIM_ONLY_DATABASE);
        }
    }
}

/* ---- in a run ---- */

void sim_shrink_swarm(struct sim *s)
{
    struct sim_swarm *w = &s->swarm;
    unsigned max = s->options.nodes_max;
    if (max != 0 && w->nodes > max) {
        w->nodes = max;
        w->voters = w->voters < max ? w->voters : max;
    }
    if (s->options.progress != NULL) {
        s->options.progress->nodes = w->nodes;
    }
}

static struct prng generator(const struct sim *s, uint32_t number)
{
    return prng_init(s->options.seed * 0x9E3779B97F4A7C15u + number);
}

static bool strikes(const struct sim *s, uint32_t number)
{
    const struct sim_only *only = s->options.only;
    if (only == NULL) {
        return true;
    }
    for (size_t i = 0; i < only->count; i++) {
        if (only->numbers[i] == number) {
            return true;
        }
    }
    return false;
}

void sim_shrink_fault(struct sim *s)
{
    struct prng saved = s->prng;
    uint32_t number = s->fault_number++;
    s->prng = generator(s, number);
    if (strikes(s, number) || s->healing) {
        if (s->options.progress != NULL && !s->healing) {
            s->options.progress->faults = number + 1;
        }
        sim_faults_event(s);
    } else { /* the next one comes when it would have come */
        sim_push(s, sim_around(s, s->swarm.fault_interval_us), SIM_FAULT, NULL, 0, 0, NULL, 0);
    }
    s->prng = saved;
}

bool sim_shrink_database_fault(struct sim *s, struct prng *prng)
{
    uint32_t number = s->database_fault_number++ | SIM_ONLY_DATABASE;
    *prng = generator(s, number);
    if (s->options.progress != NULL) {
        s->options.progress->database_faults = s->database_fault_number;
    }
    return strikes(s, number);
}

/* ---- shrinking ---- */

struct shrink {
    struct sim_options best;
    struct sim_only only, trial_only; /* what best.only and a trial's point to */
    const char *guard;
    struct sim_progress *progress;    /* shared with the run */
    struct sim_progress best_progress;
    char check[CHECK_SIZE], seen[CHECK_SIZE];
    double failed_at_s, seen_at_s;
    unsigned runs, runs_max;
};

/* Which check spoke: the function that found the violation, or the place of a CHECK. */
static bool read_check(const char *text, char out[static CHECK_SIZE], double *at_s)
{
    const char *at = strstr(text, "VIOLATION at ");
    out[0] = '\0';
    *at_s = 0;
    if (at != NULL && sscanf(at, "VIOLATION at %lf s: %127[^:]", at_s, out) == 2) {
        return true;
    }
    at = strstr(text, ": check failed: ");
    if (at != NULL) {
        const char *line = at;
        while (line > text && line[-1] != '\n') {
            line--;
        }
        snprintf(out, CHECK_SIZE, "%.*s", (int)(at - line), line);
        return true;
    }
    return false;
}

static _Noreturn void child(const struct sim_options *o, int out)
{
    struct sim_stats stats;
    uint64_t hash;
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGABRT, SIG_DFL);
    alarm(RUN_SECONDS_MAX);
    sim_run(o, &stats, &hash);
    _exit(0);
}

/* Runs it. true: it fails. */
static bool fails(struct shrink *k, const struct sim_options *o)
{
    int pipe_fds[2];
    char text[8192];
    size_t size = 0;
    k->runs++;
    memset(k->progress, 0, sizeof *k->progress);
    fflush(stdout);
    CHECK(pipe(pipe_fds) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        close(pipe_fds[0]);
        child(o, pipe_fds[1]);
    }
    close(pipe_fds[1]);
    char part[4096];
    for (ssize_t n; (n = read(pipe_fds[0], part, sizeof part)) != 0;) {
        if (n < 0) {
            CHECK(errno == EINTR);
            continue;
        }
        if (size + (size_t)n >= sizeof text) { /* the end is what counts */
            memmove(text, text + size / 2, size - size / 2);
            size -= size / 2;
        }
        size_t take = (size_t)n < sizeof text - 1 - size ? (size_t)n : sizeof text - 1 - size;
        memcpy(text + size, part, take);
        size += take;
    }
    close(pipe_fds[0]);
    text[size] = '\0';
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return read_check(text, k->seen, &k->seen_at_s);
}

/* Tries it, with the same seed or, others: one of the next. Keeps it when it fails by the same check. */
static bool attempt(struct shrink *k, struct sim_options *o, bool others)
{
    for (uint64_t i = 0; i <= (others ? OTHER_SEEDS : 0) && k->runs < k->runs_max; i++) {
        struct sim_options trial = *o;
        trial.seed = o->seed + i;
        if (fails(k, &trial) && strcmp(k->seen, k->check) == 0) {
            if (trial.only != NULL) {
                k->only = *trial.only;
                trial.only = &k->only;
            }
            k->best = trial;
            k->best_progress = *k->progress;
            k->failed_at_s = k->seen_at_s;
            return true;
        }
    }
    return false;
}

static bool shorter(struct shrink *k)
{
    bool any = false;
    for (;;) {
        uint64_t seconds = k->best.duration_us / 1000000;
        uint64_t needed = k->failed_at_s > 1 ? (uint64_t)(k->failed_at_s - 1) + 1 : 1;
        struct sim_options o = k->best;
        uint64_t wanted = needed < seconds ? needed : seconds / 2;
        o.duration_us = wanted * 1000000;
        if (wanted == 0 || wanted >= seconds || !attempt(k, &o, true)) {
            return any;
        }
        any = true;
    }
}

static bool fewer_kinds(struct shrink *k)
{
    bool any = false;
    struct sim_options o = k->best;
    if (!o.no_database && o.machine->engine != NULL) {
        o.no_database = true;
        any = attempt(k, &o, true);
    }
    o = k->best;
    o.faults = 0;
    if (o.faults != k->best.faults && attempt(k, &o, true)) {
        return true;
    }
    for (unsigned i = 0; i < SIM_FAULTS; i++) {
        o = k->best;
        o.faults &= ~(1ull << i);
        any = (o.faults != k->best.faults && attempt(k, &o, true)) || any;
    }
    return any;
}

static bool fewer_nodes(struct shrink *k)
{
    bool any = false;
    for (unsigned nodes = 1; nodes < k->best_progress.nodes; nodes++) {
        struct sim_options o = k->best;
        o.nodes_max = nodes;
        if (attempt(k, &o, true)) {
            any = true;
            break;
        }
    }
    return any;
}

static bool fewer_commands(struct shrink *k)
{
    bool any = false;
    while (k->best_progress.commands > 1) {
        struct sim_options o = k->best;
        o.commands_max = k->best_progress.commands / 2;
        if ((k->best.commands_max != 0 && o.commands_max >= k->best.commands_max) || !attempt(k, &o, false)) {
            break;
        }
        any = true;
    }
    return any;
}

/* Leaves out runs of faults, halves first, then ever smaller ones. */
static bool fewer_faults(struct shrink *k)
{
    bool any = false;
    if (k->best.only == NULL) {
        k->only.count = 0;
        for (uint32_t i = 0; i < k->best_progress.faults && k->only.count < SIM_ONLY_MAX; i++) {
            k->only.numbers[k->only.count++] = i;
        }
        for (uint32_t i = 0; i < k->best_progress.database_faults && k->only.count < SIM_ONLY_MAX; i++) {
            k->only.numbers[k->only.count++] = i | SIM_ONLY_DATABASE;
        }
        k->best.only = &k->only;
    }
    for (size_t piece = k->only.count; piece > 0; piece /= 2) {
        for (size_t at = 0; at < k->only.count && k->runs < k->runs_max;) {
            size_t end = at + piece < k->only.count ? at + piece : k->only.count;
            k->trial_only.count = 0;
            for (size_t i = 0; i < k->only.count; i++) {
                if (i < at || i >= end) {
                    k->trial_only.numbers[k->trial_only.count++] = k->only.numbers[i];
                }
            }
            struct sim_options o = k->best;
            o.only = &k->trial_only;
            if (attempt(k, &o, false)) {
                any = true;
            } else {
                at = end;
            }
        }
    }
    return any;
}

static void print_size(const char *what, const struct shrink *k)
{
    char faults[1024] = "";
    append_faults(faults, sizeof faults, k->best.faults);
    printf("%s: %" PRIu64 " s of faults, %" PRIu64 " nodes, %" PRIu64 " commands, faults %s, of which %zu may strike\n",
           what, k->best.duration_us / 1000000, k->best_progress.nodes, k->best_progress.commands, faults,
           k->best.only != NULL ? k->best.only->count
                                : (size_t)(k->best_progress.faults + k->best_progress.database_faults));
}

int sim_shrink(struct sim_options *options, const char *guard, unsigned runs)
{
    static struct shrink k;
    static char command[32768];
    k = (struct shrink){.best = *options, .guard = guard, .runs_max = runs};
    if (options->only != NULL) {
        k.only = *options->only;
        k.best.only = &k.only;
    }
    k.best.verbose = false;
    k.progress = mmap(NULL, sizeof *k.progress, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(k.progress != MAP_FAILED);
    k.best.progress = k.progress;
    if (!fails(&k, &k.best)) {
        printf("seed %" PRIu64 " does not fail: nothing to shrink\n", options->seed);
        return 1;
    }
    memcpy(k.check, k.seen, sizeof k.check);
    k.best_progress = *k.progress;
    k.failed_at_s = k.seen_at_s;
    printf("fails: %s at %.6f s\n", k.check, k.failed_at_s);
    print_size("before", &k);
    bool smaller = true;
    while (smaller && k.runs < k.runs_max) {
        smaller = shorter(&k);
        smaller = fewer_kinds(&k) || smaller;
        smaller = fewer_nodes(&k) || smaller;
        smaller = fewer_commands(&k) || smaller;
    }
    k.runs_max += runs;
    if (fewer_faults(&k)) { /* with few faults most kinds are idle, and less time is needed */
        (void)fewer_kinds(&k);
        (void)fewer_commands(&k);
    }
    (void)shorter(&k);
    print_size("after", &k);
    sim_shrink_command(&k.best, guard, command, sizeof command);
    printf("fails: %s at %.6f s; %u runs\nreplay: %s\n", k.check, k.failed_at_s, k.runs, command);
    *options = k.best;
    options->progress = NULL;
    munmap(k.progress, sizeof *k.progress);
    return 0;
}
