/* Options of a program from one table: flags over environment over file over default, --help from the
 * same table. 12-factor: every option can be given each way, and a bad value in any of them is an
 * error that says where it came from.
 *
 *     --listen ADDR   HOLDFAST_LISTEN=ADDR   [program section of the file] listen = ADDR
 *
 * Secrets are never given in flags: an option for a secret names a file. */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum option_type {
    OPTION_TEXT,     /* const char * ; NULL when neither given nor defaulted */
    OPTION_FLAG,     /* bool ; --name, or =true|false in environment and file */
    OPTION_U64,      /* uint64_t within [min, max] */
    OPTION_DURATION, /* uint64_t milliseconds; written 250ms, 10s, 5m, 2h; within [min, max] ms */
    OPTION_SIZE,     /* uint64_t bytes; written 64KiB, 8MiB, 1GiB or plain; within [min, max] */
    OPTION_LIST,     /* struct option_list ; flags and lines of the file may be repeated; in environment
                        and file also split at commas */
};

#define OPTIONS_MAX     128 /* of a program */

#define OPTION_LIST_MAX 64

struct option_list {
    const char *items[OPTION_LIST_MAX];
    size_t count;
};

struct option {
    const char *name; /* without dashes: "listen-admin"; environment HOLDFAST_LISTEN_ADMIN */
    char letter;      /* short form, 0 for none */
    enum option_type type;
    void *value;         /* where it goes: see option_type */
    const char *initial; /* default as text, NULL for none */
    const char *argument; /* name of the argument in --help: "ADDR"; NULL for flags */
    const char *help;     /* one line */
    uint64_t min, max;    /* both 0: no bounds */
};

struct options {
    const char *program;  /* "holdfastd": the section of the file and the first word of --help */
    const char *summary;  /* one line of what it does */
    const char *examples; /* shown first in --help; NULL for none */
    const struct option *table;
    size_t count;
};

enum options_result {
    OPTIONS_OK,
    OPTIONS_HELP,    /* --help or --version was printed to stdout: exit 0 */
    OPTIONS_INVALID, /* said why on stderr: exit 2 */
};

/* Fills the values of the table. The file is --config FILE or HOLDFAST_CONFIG, both always understood;
 * without either no file is read. Operands are left: *operands is set to the index in argv of the
 * first of them (flags may not follow operands; "--" ends flags). Texts are borrowed from argv and the
 * environment, or kept for the life of the process. */
enum options_result options_parse(const struct options *o, int argc, char **argv, int *operands);

/* Prints the help text to stdout. */
void options_print_help(const struct options *o);

#endif
