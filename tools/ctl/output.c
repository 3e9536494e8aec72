/* Happy path: each cell is made a text once, widths are measured in code points, rows are written.
 */
#include "tools/ctl/output.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/text.h"

#define GREEN "\033[32m"
#define RED   "\033[31m"
#define BOLD  "\033[1m"
#define PLAIN "\033[0m"

const char *output_paint(const struct output *o, const char *escape)
{
    return o->color && o->format == OUTPUT_TABLE ? escape : "";
}

/* Appends text with control characters (C0, DEL and the C1 range in UTF-8) written as escapes. */
static void append_harmless(struct text *t, const char *s)
{
    for (const unsigned char *c = (const unsigned char *)s; *c != '\0'; c++) {
        if (*c == '\t') {
            text_appendf(t, "\\t");
        } else if (*c == '\n') {
            text_appendf(t, "\\n");
        } else if (*c < 0x20 || *c == 0x7f) {
            text_appendf(t, "\\x%02x", *c);
        } else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) {
            text_appendf(t, "\\x%02x", c[1]);
            c++;
        } else {
            text_append(t, c, 1);
        }
    }
}

static void append_duration(struct text *t, json_int_t ms)
{
    static const struct {
        const char *unit;
        json_int_t ms;
    } units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}};
    for (size_t i = 0; i < ARRAY_COUNT(units); i++) {
        if (ms != 0 && ms % units[i].ms == 0) {
            text_appendf(t, "%lld%s", (long long)(ms / units[i].ms), units[i].unit);
            return;
        }
    }
    text_appendf(t, "%lldms", (long long)ms);
}

static void append_lines(struct text *t, const json_t *lines)
{
    size_t i;
    json_t *line;
    json_array_foreach(lines, i, line)
    {
        const char *sku = json_string_value(json_object_get(line, "sku"));
        json_t *n = json_object_get(line, "quantity");
        n = n != NULL ? n : json_object_get(line, "unit_price");
        text_appendf(t, "%s", i > 0 ? " " : "");
        append_harmless(t, sku != NULL ? sku : "?");
        text_appendf(t, "=%lld", (long long)json_integer_value(n));
    }
}

static void append_cell(struct text *t, const struct output_column *column, const json_t *record)
{
    const json_t *value = json_object_get(record, column->key);
    if (value == NULL || json_is_null(value)) {
        text_appendf(t, "-");
    } else if (column->cell == CELL_DURATION && json_is_integer(value)) {
        append_duration(t, json_integer_value(value));
    } else if (column->cell == CELL_VERDICT && json_is_boolean(value)) {
        text_appendf(t, "%s", json_is_true(value) ? "ok" : "WRONG");
    } else if (column->cell == CELL_YES && json_is_boolean(value)) {
        text_appendf(t, "%s", json_is_true(value) ? "yes" : "no");
    } else if (column->cell == CELL_LINES && json_is_array(value)) {
        append_lines(t, value);
    } else if (json_is_string(value)) {
        append_harmless(t, json_string_value(value));
    } else if (json_is_integer(value)) {
        text_appendf(t, "%lld", (long long)json_integer_value(value));
    } else {
        char *dump = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        CHECK(dump != NULL);
        append_harmless(t, dump);
        free(dump);
    }
}

static size_t width_of(const char *s)
{
    size_t n = 0;
    for (; *s != '\0'; s++) {
        n += ((unsigned char)*s & 0xc0) != 0x80 ? 1 : 0; /* code points */
    }
    return n;
}

static void write_padding(const struct output *o, size_t n)
{
    fprintf(o->file, "%*s", (int)n, "");
}

static void write_cell(const struct output *o, const struct output_column *column, const char *cell,
                       size_t width, bool last)
{
    size_t own = width_of(cell);
    size_t padding = width > own ? width - own : 0;
    bool right = column->cell == CELL_NUMBER || column->cell == CELL_DURATION;
    const char *color = column->cell != CELL_VERDICT ? ""
                        : strcmp(cell, "ok") == 0    ? GREEN
                        : strcmp(cell, "WRONG") == 0 ? RED
                                                     : "";
    if (right) {
        write_padding(o, padding);
    }
    fprintf(o->file, "%s%s%s", output_paint(o, color), cell,
            color[0] != '\0' ? output_paint(o, PLAIN) : "");
    if (!right && !last) {
        write_padding(o, padding);
    }
}

static void write_json(const struct output *o, const json_t *value)
{
    int rv = json_dumpf(value, o->file, JSON_INDENT(2));
    CHECK(rv == 0 || ferror(o->file) != 0);
    fputc('\n', o->file);
}

static void write_plain(const struct output *o, const struct output_column *columns, size_t count,
                        const json_t *record)
{
    struct text t = TEXT_INIT;
    for (size_t i = 0; i < count; i++) {
        text_appendf(&t, "%s", i > 0 ? "\t" : "");
        append_cell(&t, &columns[i], record);
    }
    fprintf(o->file, "%s\n", text_cstring(&t));
    text_close(&t);
}

static void write_table(const struct output *o, const struct output_column *columns, size_t count,
                        const json_t *records)
{
    size_t rows = json_array_size(records);
    char **cells = calloc(rows * count + 1, sizeof *cells);
    size_t *widths = calloc(count, sizeof *widths);
    CHECK(cells != NULL && widths != NULL);
    for (size_t i = 0; i < count; i++) {
        widths[i] = width_of(columns[i].title);
    }
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < count; i++) {
            struct text t = TEXT_INIT;
            append_cell(&t, &columns[i], json_array_get(records, r));
            char *cell = strdup(text_cstring(&t));
            CHECK(cell != NULL);
            text_close(&t);
            cells[r * count + i] = cell;
            widths[i] = width_of(cell) > widths[i] ? width_of(cell) : widths[i];
        }
    }
    fputs(output_paint(o, BOLD), o->file);
    for (size_t i = 0; i < count; i++) {
        struct output_column heading = {NULL, NULL, columns[i].cell};
        heading.cell = heading.cell == CELL_VERDICT ? CELL_TEXT : heading.cell;
        write_cell(o, &heading, columns[i].title, widths[i], i + 1 == count);
        fputs(i + 1 < count ? "  " : "", o->file);
    }
    fprintf(o->file, "%s\n", output_paint(o, PLAIN));
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < count; i++) {
            write_cell(o, &columns[i], cells[r * count + i], widths[i], i + 1 == count);
            fputs(i + 1 < count ? "  " : "\n", o->file);
        }
    }
    for (size_t i = 0; i < rows * count; i++) {
        free(cells[i]);
    }
    free(cells);
    free(widths);
}

void output_list(const struct output *o, const struct output_column *columns, size_t count,
                 json_t *records)
{
    CHECK(json_is_array(records));
    size_t i;
    json_t *record;
    switch (o->format) {
    case OUTPUT_JSON:
        write_json(o, records);
        break;
    case OUTPUT_PLAIN:
        json_array_foreach(records, i, record)
        {
            write_plain(o, columns, count, record);
        }
        break;
    case OUTPUT_TABLE:
        write_table(o, columns, count, records);
        break;
    }
    json_decref(records);
}

void output_record(const struct output *o, const struct output_column *columns, size_t count,
                   json_t *record)
{
    CHECK(json_is_object(record));
    size_t width = 0;
    switch (o->format) {
    case OUTPUT_JSON:
        write_json(o, record);
        break;
    case OUTPUT_PLAIN:
        write_plain(o, columns, count, record);
        break;
    case OUTPUT_TABLE:
        for (size_t i = 0; i < count; i++) {
            width = width_of(columns[i].title) > width ? width_of(columns[i].title) : width;
        }
        for (size_t i = 0; i < count; i++) {
            struct text t = TEXT_INIT;
            append_cell(&t, &columns[i], record);
            fprintf(o->file, "%s%s%s", output_paint(o, BOLD), columns[i].title,
                    output_paint(o, PLAIN));
            write_padding(o, width - width_of(columns[i].title) + 2);
            struct output_column left = columns[i];
            left.cell = left.cell == CELL_VERDICT ? CELL_VERDICT : CELL_TEXT;
            write_cell(o, &left, text_cstring(&t), 0, true);
            fputc('\n', o->file);
            text_close(&t);
        }
        break;
    }
    json_decref(record);
}
