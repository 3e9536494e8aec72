#include "base/histogram.h"

#include <string.h>

#define STEPS (1u << HISTOGRAM_STEP_BITS)

/* Values below 2 * STEPS have a bucket each; above, the top STEP_BITS + 1 bits choose it. */
static unsigned bucket_of(uint64_t value)
{
    if (value < STEPS) {
        return (unsigned)value;
    }
    unsigned msb = 63u - (unsigned)__builtin_clzll(value);
    unsigned shift = msb - HISTOGRAM_STEP_BITS;
    return ((shift + 1) << HISTOGRAM_STEP_BITS) + (unsigned)((value >> shift) & (STEPS - 1));
}

static uint64_t bucket_upper(unsigned bucket)
{
    unsigned group = bucket >> HISTOGRAM_STEP_BITS;
    uint64_t step = bucket & (STEPS - 1);
    if (group == 0) {
        return step;
    }
    unsigned shift = group - 1;
    return ((step + STEPS) << shift) + ((1ull << shift) - 1);
}

void histogram_init(struct histogram *h)
{
    memset(h, 0, sizeof *h);
    h->min = UINT64_MAX;
}

void histogram_add(struct histogram *h, uint64_t value)
{
    h->count++;
    h->sum += value;
    h->max = value > h->max ? value : h->max;
    h->min = value < h->min ? value : h->min;
    h->buckets[bucket_of(value)]++;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    into->count += from->count;
    into->sum += from->sum;
    into->max = from->max > into->max ? from->max : into->max;
    into->min = from->min < into->min ? from->min : into->min;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        into->buckets[i] += from->buckets[i];
    }
}

uint64_t histogram_quantile(const struct histogram *h, double q)
{
    if (h->count == 0) {
        return 0;
    }
    uint64_t rank = (uint64_t)(q * (double)h->count);
    if (rank >= h->count) {
        rank = h->count - 1;
    }
    uint64_t seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > rank) {
            uint64_t upper = bucket_upper(i);
            return upper < h->max ? upper : h->max;
        }
    }
    return h->max;
}

uint64_t histogram_count_below(const struct histogram *h, uint64_t value)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && bucket_upper(i) <= value; i++) {
        seen += h->buckets[i];
    }
    return seen;
}
