/* holdfast-damage --seed 1 --count 10000 --jobs 2 [--dir /dev/shm] [--quiet] [--keep]
 *
 * One line a seed: what was hurt, where, and what came of it; then a table in Markdown. Exit status 1 when any
 * seed failed: silent, crash, hang, or a refusal that does not help. With --keep the directory of the last
 * seed stays, hurt and unstarted. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "tests/damage/damage.h"

#define JOBS_MAX 16

struct result {
    bool done;
    uint8_t kind, file, outcome;
    bool changed, stopped;
};

struct run {
    uint64_t seed, count;
    unsigned jobs;
    bool quiet, keep;
    char root[DAMAGE_PATH_SIZE - 64];
    struct result *results; /* shared between the jobs */
};

static struct template stopped, killed;

static void run_seed(const struct run *r, uint64_t seed, struct result *result)
{
    char directory[DAMAGE_PATH_SIZE], message[1500], line[2600];
    struct wound w;
    const struct template *t = seed % 2 == 0 ? &stopped : &killed;
    snprintf(directory, sizeof directory, "%s/seed-%llu", r->root, (unsigned long long)seed);
    copy_directory(t->path, directory);
    wound_inflict(t, directory, seed, &w);
    if (r->keep) {
        printf("seed=%llu %s in %s %s at %llu: kept in %s\n", (unsigned long long)seed,
               wound_kind_name(w.kind), w.name, w.second, (unsigned long long)w.offset, directory);
        return;
    }
    enum outcome outcome = outcome_of_start(t, directory, &w, message, sizeof message);
    remove_directory(directory);
    *result = (struct result){.done = true,
                              .kind = (uint8_t)w.kind,
                              .file = (uint8_t)w.file,
                              .outcome = (uint8_t)outcome,
                              .changed = w.changed,
                              .stopped = t->stopped};
    if (r->quiet && !outcome_is_failure(outcome)) {
        return;
    }
    int n = snprintf(line, sizeof line, "seed=%llu %s %s: %s%s%s offset=%llu size=%llu%s -> %s: %s\n",
                     (unsigned long long)seed, t->stopped ? "stopped" : "killed",
                     wound_kind_name(w.kind), w.name, w.second[0] != '\0' ? " with " : "", w.second,
                     (unsigned long long)w.offset, (unsigned long long)w.size,
                     w.changed ? "" : " (nothing changed)", outcome_name(outcome), message);
    fwrite(line, 1, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1, stdout);
    fflush(stdout);
}

static void run_job(const struct run *r, unsigned job)
{
    for (uint64_t i = job; i < r->count; i += r->jobs) {
        run_seed(r, r->seed + i, &r->results[i]);
    }
}

/* ---- the table ---- */

static void print_table(const struct run *r)
{
    printf("\n| what was hurt | how | tried |");
    for (int o = 0; o < OUTCOMES; o++) {
        printf(" %s |", outcome_name((enum outcome)o));
    }
    printf("\n|---|---|---|");
    for (int o = 0; o < OUTCOMES; o++) {
        printf("---|");
    }
    printf("\n");
    uint64_t total[OUTCOMES] = {0}, all = 0, unchanged = 0;
    for (int f = 0; f < FILE_KINDS; f++) {
        for (int k = 0; k < WOUND_KINDS; k++) {
            uint64_t count[OUTCOMES] = {0}, tried = 0;
            for (uint64_t i = 0; i < r->count; i++) {
                const struct result *x = &r->results[i];
                if (x->done && !x->changed && x->file == f && x->kind == k) {
                    unchanged++;
                } else if (x->done && x->file == f && x->kind == k) {
                    count[x->outcome]++;
                    tried++;
                }
            }
            if (tried == 0) {
                continue;
            }
            printf("| %s | %s | %llu |", wound_file_name((enum wound_file)f),
                   wound_kind_name((enum wound_kind)k), (unsigned long long)tried);
            for (int o = 0; o < OUTCOMES; o++) {
                printf(" %llu |", (unsigned long long)count[o]);
                total[o] += count[o];
            }
            printf("\n");
            all += tried;
        }
    }
    printf("| **all** | | %llu |", (unsigned long long)all);
    for (int o = 0; o < OUTCOMES; o++) {
        printf(" %llu |", (unsigned long long)total[o]);
    }
    printf("\n\n%llu of %llu seeds drew a damage that changes no byte; they are not counted.\n",
           (unsigned long long)unchanged, (unsigned long long)r->count);
}

static uint64_t count_failures(const struct run *r)
{
    uint64_t failures = 0;
    for (uint64_t i = 0; i < r->count; i++) {
        const struct result *x = &r->results[i];
        failures += !x->done || outcome_is_failure((enum outcome)x->outcome) ||
                            (!x->changed && x->outcome != OUTCOME_HARMLESS)
                        ? 1
                        : 0;
    }
    return failures;
}

static int run_all(struct run *r)
{
    pid_t children[JOBS_MAX];
    template_make(r->root, &stopped, &killed);
    if (r->keep) {
        for (uint64_t i = 0; i < r->count; i++) {
            run_seed(r, r->seed + i, &r->results[i]);
        }
        return 0;
    }
    fflush(stdout);
    for (unsigned job = 0; job < r->jobs; job++) {
        children[job] = fork();
        CHECK(children[job] >= 0);
        if (children[job] == 0) {
            run_job(r, job);
            fflush(stdout);
            _exit(0);
        }
    }
    for (unsigned job = 0; job < r->jobs; job++) {
        int status;
        CHECK(waitpid(children[job], &status, 0) == children[job]);
    }
    print_table(r);
    uint64_t failures = count_failures(r);
    printf("%llu failures\n", (unsigned long long)failures);
    return failures == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"count", required_argument, NULL, 'c'},
                                            {"jobs", required_argument, NULL, 'j'},
                                            {"dir", required_argument, NULL, 'd'},
                                            {"quiet", no_argument, NULL, 'q'},
                                            {"keep", no_argument, NULL, 'k'},
                                            {NULL, 0, NULL, 0}};
    struct stat st;
    struct run r = {.seed = 1, .count = 300, .jobs = 2};
    const char *directory = stat("/dev/shm", &st) == 0 ? "/dev/shm" : "/tmp";
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 's':
            r.seed = strtoull(optarg, NULL, 10);
            break;
        case 'c':
            r.count = strtoull(optarg, NULL, 10);
            break;
        case 'j':
            r.jobs = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'd':
            directory = optarg;
            break;
        case 'q':
            r.quiet = true;
            break;
        case 'k':
            r.keep = true;
            break;
        default:
            fprintf(stderr, "usage: holdfast-damage [--seed N] [--count N] [--jobs N] [--dir DIR] "
                            "[--quiet] [--keep]\n");
            return 2;
        }
    }
    if (r.jobs < 1 || r.jobs > JOBS_MAX || r.count < 1) {
        fprintf(stderr, "holdfast-damage: 1 to %d jobs, at least one seed\n", JOBS_MAX);
        return 2;
    }
    log_init("damage", LOG_LEVEL_ERROR);
    snprintf(r.root, sizeof r.root, "%.3000s/holdfast-damage-XXXXXX", directory);
    CHECK(mkdtemp(r.root) != NULL);
    r.results = mmap(NULL, r.count * sizeof *r.results, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(r.results != MAP_FAILED);
    int status = run_all(&r);
    if (!r.keep) {
        remove_directory(r.root);
    }
    return status;
}
