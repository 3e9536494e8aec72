/* clock_agreement: what a majority of clocks says. Marzullo's algorithm (as in NTP, RFC 5905
 * §11.2.1, and in TigerBeetle) on intervals that are given. docs/adr/0016-clock-agreement.md.
 *
 * What it owns: the choice. What it refuses: to know where an interval comes from or what it
 * measures; to read clocks.
 *
 * Each source says: the true value lies in [low, high]. Where the most of them meet, and that is
 * `needed` or more, is believed; when several places tie (a chain: A meets B, B meets C, A does not
 * meet C) everything from the first to the last of them, so that no order of the sources decides.
 *
 * Who is wrong is another question: only who has no point at all on which `needed` sources meet. An
 * honest source always has one, the truth, and so is not blamed because a liar happens to meet more
 * of the honest ones than it does. */
#ifndef SERVER_CLOCK_AGREEMENT_H
#define SERVER_CLOCK_AGREEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLOCK_SOURCES_MAX 9 /* as REPLICA_MEMBERS_MAX */

struct clock_interval {
    int64_t low, high; /* low ≤ high */
};

struct clock_agreed {
    bool found;   /* `needed` sources agree; otherwise nothing below means anything */
    size_t count; /* of the sources that are not wrong */
    struct clock_interval interval; /* where the most meet */
    int64_t value; /* the median of the middles of who is not wrong, moved into the interval */
    size_t sources_count, needed; /* as given */
    struct clock_interval sources[CLOCK_SOURCES_MAX];
};

/* count ≤ CLOCK_SOURCES_MAX. needed > 0; more than half of all there could be, or the answer is not
 * the only one. */
void clock_agree(const struct clock_interval *sources, size_t count, size_t needed,
                 struct clock_agreed *agreed);

/* The interval has a point on which `needed` of the sources meet. */
bool clock_agrees(const struct clock_agreed *agreed, const struct clock_interval *interval);

#endif
