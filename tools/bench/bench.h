/* bench: the subcommands of holdfast-bench. Each gets its own arguments (argv[0] is its name) and
 * returns the exit status: 0 right, 1 wrong or failed, 2 usage. */
#ifndef TOOLS_BENCH_BENCH_H
#define TOOLS_BENCH_BENCH_H

int bench_orders(int argc, char **argv);
int bench_failover(int argc, char **argv);
int bench_sale(int argc, char **argv);

#endif
