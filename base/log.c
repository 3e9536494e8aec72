#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

#define LINE_SIZE_MAX 2048 /* a longer message is cut */

static const char *log_name = "holdfast";
static enum log_level log_level_max = LOG_LEVEL_INFO;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

void log_init(const char *name, enum log_level level)
{
    log_name = name;
    log_level_max = level;
}

static log_sink_cb log_sink;
static void *log_sink_ctx;

int log_parse_level(const char *text, enum log_level *level)
{
    for (size_t i = 0; i < ARRAY_COUNT(level_names); i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return 0;
        }
    }
    return -1;
}

void log_set_sink(log_sink_cb sink, void *ctx)
{
    log_sink = sink;
    log_sink_ctx = ctx;
}

void log_write(enum log_level level, const char *format, ...)
{
    if (level > log_level_max) {
        return;
    }
    char line[LINE_SIZE_MAX];
    if (log_sink != NULL) {
        va_list message;
        va_start(message, format);
        vsnprintf(line, sizeof line, format, message);
        va_end(message);
        log_sink(log_sink_ctx, level, line);
        return;
    }
    char when[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(clock_wall_ms(), when);
    int n = snprintf(line, sizeof line, "%s %s %s: ", when, level_names[level], log_name);
    CHECK(n > 0);
    va_list args;
    va_start(args, format);
    int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
    va_end(args);
    size_t len = (size_t)n + (m > 0 ? (size_t)m : 0);
    if (len > sizeof line - 2) {
        len = sizeof line - 2;
    }
    line[len++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, len);
    (void)written; /* nowhere to report that the log itself cannot be written */
}
