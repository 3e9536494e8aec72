/* The two clocks of the operating system. Only effectors read them; the engine, the driver and the
 * simulator get time as an argument. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

uint64_t clock_monotonic_ns(void);
uint64_t clock_monotonic_ms(void);

/* Milliseconds since 1970-01-01 UTC. May jump: never measure a duration with it. */
int64_t clock_wall_ms(void);

#define CLOCK_RFC3339_SIZE sizeof("9999-12-31T23:59:59.999Z")

/* Writes RFC 3339 UTC with milliseconds, e.g. 2026-11-22T15:04:05.678Z. Years 1970 to 9999; what is
 * outside is clamped. */
void clock_format_rfc3339(int64_t wall_ms, char out[static CLOCK_RFC3339_SIZE]);

/* Parses RFC 3339 with any offset and up to 9 fractional digits (cut to milliseconds). Returns 0, or
 * -1 if it is not one or is before 1970. */
int clock_parse_rfc3339(struct str text, int64_t *wall_ms);

#endif
