/* Leveled messages to stderr, one line each, in logfmt:
 *     2026-11-22T15:04:05.678Z info holdfastd: became leader term=7
 * Thread-safe (one write(2) a line). Never logs secrets, never a user's data above debug. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Sets the program name in each line and the least urgent level that is written. Borrows name for
 * the life of the process. */
void log_init(const char *name, enum log_level level);

/* Parses error|warn|info|debug; -1 if it is none of them. */
int log_parse_level(const char *text, enum log_level *level);

/* From now on lines go to the sink instead of stderr, without time and name; NULL ends that. For tools
 * that report by themselves what a module says; one thread. */
typedef void (*log_sink_cb)(void *ctx, enum log_level level, const char *message);
void log_set_sink(log_sink_cb sink, void *ctx);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
