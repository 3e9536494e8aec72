/* holdfast-bench: puts load on a cluster over HTTP and checks what came of it. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "tools/bench/bench.h"

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"orders", "single orders: rate, latency, outcome", bench_orders},
    {"failover", "kills the leader again and again: time to the first new answer", bench_failover},
    {"sale", "a whole flash sale that checks itself", bench_sale},
};

static void help_print(FILE *out)
{
    fprintf(out, "holdfast-bench: load over HTTP, with a check of the outcome\n\n"
                 "usage: holdfast-bench COMMAND [options]\n\ncommands:\n");
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    }
    fprintf(out,
            "\nholdfast-bench COMMAND --help tells the options. docs/benchmarks.md tells how to\n"
            "measure.\n");
}

int main(int argc, char **argv)
{
    log_init("holdfast-bench", LOG_LEVEL_INFO);
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        help_print(stderr);
        return 2;
    }
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("holdfast-bench %s\n", HOLDFAST_VERSION);
        return 0;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        help_print(stdout);
        return 0;
    }
    fprintf(stderr, "holdfast-bench: no command '%s'\ntry: holdfast-bench --help\n", argv[1]);
    return 2;
}
