/* Prometheus text exposition format 0.0.4, written straight into a text buffer at scrape time: there
 * is no registry, each module writes its own figures from its own counters.
 *
 *     metrics_family(t, "holdfast_orders_total", "counter", "Orders by result.");
 *     metrics_sample(t, "holdfast_orders_total", "result=\"ok\"", 17);
 */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include "base/histogram.h"
#include "base/text.h"

/* Writes # HELP and # TYPE. type: counter, gauge or histogram. Once per family, before its samples. */
void metrics_family(struct text *t, const char *name, const char *type, const char *help);

/* One sample; labels is what stands between the braces, NULL or "" for none. */
void metrics_sample(struct text *t, const char *name, const char *labels, double value);
void metrics_sample_u64(struct text *t, const char *name, const char *labels, uint64_t value);

/* Family and one unlabelled sample together. */
void metrics_single(struct text *t, const char *name, const char *type, const char *help, double value);

/* The buckets, sum and count of one histogram whose values are nanoseconds, in seconds; buckets from
 * 100 µs to 10 s in steps of 1-2.5-5. Call metrics_family (type histogram) first. */
void metrics_histogram_seconds(struct text *t, const char *name, const char *labels,
                               const struct histogram *h);

/* Escapes a label value (backslash, quote, newline) into out. Cut when it does not fit. */
void metrics_escape_label(struct str value, char *out, size_t size);

/* The process_* family: CPU seconds, resident and virtual bytes, open files, start time. */
void metrics_process(struct text *t);

#endif
