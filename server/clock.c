/* clock: see clock.h. All arithmetic in nanoseconds on signed 64 bits: good until the year 2262. */
#include "server/clock.h"

#include <string.h>

#include "base/check.h"

#define NS_PER_MS 1000000

void cluster_clock_init(struct cluster_clock *c)
{
    memset(c, 0, sizeof *c);
}

static int64_t offset_of(int64_t time_ms, uint64_t monotonic_ns)
{
    return time_ms * NS_PER_MS - (int64_t)monotonic_ns;
}

static int64_t time_at(int64_t offset_ns, uint64_t monotonic_ns)
{
    return (offset_ns + (int64_t)monotonic_ns) / NS_PER_MS;
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void cluster_clock_heard(struct cluster_clock *c, int64_t batch_ms, bool fresh,
                         uint64_t monotonic_ns)
{
    c->last_ms = later(c->last_ms, batch_ms);
    if (!fresh || c->leading) {
        return;
    }
    if (monotonic_ns - c->window_start_ns >= (uint64_t)CLOCK_WINDOW_MS * NS_PER_MS) {
        /* A gap of more than one window leaves nothing of before: both samples would be old. */
        bool gap = monotonic_ns - c->window_start_ns >= (uint64_t)CLOCK_WINDOW_MS * 2 * NS_PER_MS;
        c->heard[1] = c->heard[0] && !gap;
        c->heard_offset_ns[1] = c->heard_offset_ns[0];
        c->heard[0] = false;
        c->window_start_ns = monotonic_ns;
    }
    int64_t offset = offset_of(batch_ms, monotonic_ns);
    c->heard_offset_ns[0] = c->heard[0] ? later(c->heard_offset_ns[0], offset) : offset;
    c->heard[0] = true;
    c->heard_last_ns = monotonic_ns;
}

/* The follower's best offset. Returns false when no leader was heard. */
static bool heard_offset(const struct cluster_clock *c, int64_t *offset_ns)
{
    if (!c->heard[0]) {
        return false;
    }
    *offset_ns =
        c->heard[1] ? later(c->heard_offset_ns[0], c->heard_offset_ns[1]) : c->heard_offset_ns[0];
    return true;
}

void cluster_clock_lead(struct cluster_clock *c, int64_t last_ms, uint64_t monotonic_ns,
                        int64_t wall_ms)
{
    int64_t offset;
    c->last_ms = later(c->last_ms, last_ms);
    bool believed = heard_offset(c, &offset) &&
                    monotonic_ns - c->heard_last_ns < (uint64_t)CLOCK_HEARD_MAX_MS * NS_PER_MS;
    if (!believed) {
        offset = offset_of(wall_ms, monotonic_ns);
    }
    c->offset_ns = later(offset, offset_of(c->last_ms, monotonic_ns));
    c->slewed_ns = monotonic_ns;
    c->leading = true;
}

void cluster_clock_follow(struct cluster_clock *c)
{
    if (!c->leading) {
        return;
    }
    /* What this node stamped itself is the best sample it has. */
    c->leading = false;
    c->heard[0] = true;
    c->heard[1] = false;
    c->heard_offset_ns[0] = c->offset_ns;
    c->window_start_ns = c->slewed_ns;
    c->heard_last_ns = c->slewed_ns;
}

static void slew(struct cluster_clock *c, uint64_t monotonic_ns, int64_t wall_ms)
{
    if (monotonic_ns - c->slewed_ns < (uint64_t)100 * NS_PER_MS) {
        return; /* ten times a second is often enough, and keeps the step above a rounding error */
    }
    int64_t room = (int64_t)(monotonic_ns - c->slewed_ns) / (1000000 / CLOCK_SLEW_PPM);
    c->slewed_ns = monotonic_ns;
    int64_t difference = offset_of(wall_ms, monotonic_ns) - c->offset_ns;
    c->wall_difference_ms = difference / NS_PER_MS;
    c->suspicious =
        c->wall_difference_ms > CLOCK_SLEW_RANGE_MS || c->wall_difference_ms < -CLOCK_SLEW_RANGE_MS;
    if (!c->suspicious) {
        c->offset_ns += difference > room ? room : difference < -room ? -room : difference;
    }
}

int64_t cluster_clock_now_ms(struct cluster_clock *c, uint64_t monotonic_ns, int64_t wall_ms)
{
    CHECK(c->leading);
    slew(c, monotonic_ns, wall_ms);
    c->last_ms = later(c->last_ms, time_at(c->offset_ns, monotonic_ns));
    return c->last_ms;
}

int64_t cluster_clock_estimate_ms(const struct cluster_clock *c, uint64_t monotonic_ns)
{
    int64_t offset;
    if (c->leading) {
        return later(c->last_ms, time_at(c->offset_ns, monotonic_ns));
    }
    return heard_offset(c, &offset) ? later(c->last_ms, time_at(offset, monotonic_ns)) : c->last_ms;
}
