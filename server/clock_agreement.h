/* clock_agreement: what a majority of clocks says. Marzullo's algorithm (as in NTP, RFC 5905 §11.2.1,
 * and in TigerBeetle) on intervals that are given. docs/adr/0016-clock-agreement.md.
 *
 * What it owns: the choice. What it refuses: to know where an interval comes from or what it
 * measures; to read clocks.
 *
 * Each source says: the true value lies in [low, high]. A point on which `needed` of them or more
 * agree is believed. When several points tie for the most sources (a chain: A meets B, B meets C, A
 * does not meet C) everything from the first to the last of them is, so that no order of the sources
 * decides who is wrong. */
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
    bool found;     /* `needed` sources agree; otherwise nothing below means anything */
    size_t count;   /* of the sources that meet `interval` */
    struct clock_interval interval;
    int64_t value;  /* the median of their middles, moved into the interval */
};

/* count ≤ CLOCK_SOURCES_MAX. needed > 0; more than half of all there could be, or the answer is not
 * the only one. */
void clock_agree(const struct clock_interval *sources, size_t count, size_t needed,
                 struct clock_agreed *agreed);

/* The interval has a point of the agreed one. */
bool clock_agrees(const struct clock_agreed *agreed, const struct clock_interval *interval);

#endif
