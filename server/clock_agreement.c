/* clock_agreement: see clock_agreement.h. Nine sources at most: the simplest loops do. */
#include "server/clock_agreement.h"

#include "base/check.h"

/* How many hold the point. */
static size_t holders(const struct clock_interval *sources, size_t count, int64_t point)
{
    size_t holding = 0;
    for (size_t i = 0; i < count; i++) {
        holding += sources[i].low <= point && point <= sources[i].high;
    }
    return holding;
}

bool clock_agrees(const struct clock_agreed *agreed, const struct clock_interval *interval)
{
    const struct clock_interval *sources = agreed->sources;
    if (!agreed->found) {
        return false;
    }
    /* If there is such a point in it, then where a source begins, or where it begins itself. */
    bool agrees = holders(sources, agreed->sources_count, interval->low) >= agreed->needed;
    for (size_t i = 0; i < agreed->sources_count && !agrees; i++) {
        agrees = interval->low <= sources[i].low && sources[i].low <= interval->high &&
                 holders(sources, agreed->sources_count, sources[i].low) >= agreed->needed;
    }
    return agrees;
}

/* The place where the intersection that begins at `point` ends: the first end of a holder. */
static int64_t end_of(const struct clock_interval *sources, size_t count, int64_t point)
{
    int64_t end = INT64_MAX;
    for (size_t i = 0; i < count; i++) {
        if (sources[i].low <= point && point <= sources[i].high && sources[i].high < end) {
            end = sources[i].high;
        }
    }
    return end;
}

static int64_t middle_of(const struct clock_interval *interval)
{
    return interval->low + (interval->high - interval->low) / 2;
}

static int64_t median(int64_t *values, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        for (size_t k = i; k > 0 && values[k] < values[k - 1]; k--) {
            int64_t moved = values[k];
            values[k] = values[k - 1];
            values[k - 1] = moved;
        }
    }
    int64_t low = values[(count - 1) / 2];
    return low + (values[count / 2] - low) / 2;
}

void clock_agree(const struct clock_interval *sources, size_t count, size_t needed,
                 struct clock_agreed *agreed)
{
    CHECK(count <= CLOCK_SOURCES_MAX);
    CHECK(needed > 0);
    *agreed = (struct clock_agreed){.sources_count = count, .needed = needed};
    /* The most sources hold some point where one of them begins. */
    size_t most = 0;
    for (size_t i = 0; i < count; i++) {
        CHECK(sources[i].low <= sources[i].high);
        agreed->sources[i] = sources[i];
        size_t holding = holders(sources, count, sources[i].low);
        int64_t end = end_of(sources, count, sources[i].low);
        if (holding > most) {
            most = holding;
            agreed->interval = (struct clock_interval){sources[i].low, end};
        } else if (holding == most) {
            if (sources[i].low < agreed->interval.low) {
                agreed->interval.low = sources[i].low;
            }
            if (end > agreed->interval.high) {
                agreed->interval.high = end;
            }
        }
    }
    if (most < needed) {
        return;
    }
    agreed->found = true;
    int64_t middles[CLOCK_SOURCES_MAX];
    for (size_t i = 0; i < count; i++) {
        if (clock_agrees(agreed, &sources[i])) {
            middles[agreed->count++] = middle_of(&sources[i]);
        }
    }
    agreed->value = median(middles, agreed->count);
    if (agreed->value < agreed->interval.low) {
        agreed->value = agreed->interval.low;
    } else if (agreed->value > agreed->interval.high) {
        agreed->value = agreed->interval.high;
    }
}
