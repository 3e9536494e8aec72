/* Log-linear histogram of 64-bit values (as HdrHistogram): 32 linear steps per power of two, so a
 * quantile is off by at most 1/32 of its value. Fixed size, no allocation. */
#ifndef BASE_HISTOGRAM_H
#define BASE_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEP_BITS 5
#define HISTOGRAM_BUCKETS   ((64 - HISTOGRAM_STEP_BITS + 1) << HISTOGRAM_STEP_BITS)

struct histogram {
    uint64_t count;
    uint64_t sum;
    uint64_t max;
    uint64_t min; /* UINT64_MAX when empty */
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_init(struct histogram *h);
void histogram_add(struct histogram *h, uint64_t value);
void histogram_merge(struct histogram *into, const struct histogram *from);

/* The value below or at which the share q (0..1) of all values lies, as the upper edge of its
 * bucket, never above the largest value added. 0 when empty. */
uint64_t histogram_quantile(const struct histogram *h, double q);

/* How many values were at most `value` (exact at bucket edges): for Prometheus buckets. */
uint64_t histogram_count_below(const struct histogram *h, uint64_t value);

#endif
