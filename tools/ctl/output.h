/* output: answers on standard output, as a table for people, JSON or plain text for programs.
 *
 * Commands build JSON records (jansson keeps the order of keys) and say which columns a person
 * wants to see; this writes them. -o json prints the records as they are; -o plain prints one line
 * a record, columns between tabs, no heading; -o table aligns. Whatever came from outside is made
 * harmless: control characters never reach a terminal. */
#ifndef TOOLS_CTL_OUTPUT_H
#define TOOLS_CTL_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

enum output_format { OUTPUT_TABLE, OUTPUT_JSON, OUTPUT_PLAIN };

struct output {
    enum output_format format;
    bool color; /* table only */
    FILE *file;
};

enum output_cell {
    CELL_TEXT,     /* strings, and whatever else as JSON */
    CELL_NUMBER,   /* to the right */
    CELL_DURATION, /* a number of milliseconds, written 250ms, 10s, 15m */
    CELL_VERDICT,  /* true: ok, in green; false: WRONG, in red; null: - */
    CELL_YES,      /* true: yes; false: no */
    CELL_LINES,    /* array of objects with sku and quantity or unit_price: "A=2 B=1" */
};

struct output_column {
    const char *key;   /* of the record */
    const char *title; /* upper case */
    enum output_cell cell;
};

/* Prints records, an array; takes it. */
void output_list(const struct output *o, const struct output_column *columns, size_t count,
                 json_t *records);

/* Prints one record; takes it. As a table: one line a column, title and value. As plain: the same
 * as a list of one. */
void output_record(const struct output *o, const struct output_column *columns, size_t count,
                   json_t *record);

/* The letters of color, "" where there is none: "\033[32m" and so on. */
const char *output_paint(const struct output *o, const char *escape);

#endif
