#include "base/clock.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#include "base/check.h"

#define YEAR_9999_LAST_MS 253402300799999

static uint64_t read_ns(clockid_t id)
{
    struct timespec t;
    CHECK(clock_gettime(id, &t) == 0);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t clock_monotonic_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

uint64_t clock_monotonic_ms(void)
{
    return clock_monotonic_ns() / 1000000u;
}

int64_t clock_wall_ms(void)
{
    return (int64_t)(read_ns(CLOCK_REALTIME) / 1000000u);
}

void clock_format_rfc3339(int64_t wall_ms, char out[static CLOCK_RFC3339_SIZE])
{
    if (wall_ms < 0) {
        wall_ms = 0;
    }
    if (wall_ms > YEAR_9999_LAST_MS) {
        wall_ms = YEAR_9999_LAST_MS;
    }
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm t;
    CHECK(gmtime_r(&seconds, &t) != NULL);
    char text[80]; /* room for what the compiler believes the fields could hold */
    snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", t.tm_year + 1900,
             t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, (int)(wall_ms % 1000));
    memcpy(out, text, CLOCK_RFC3339_SIZE - 1);
    out[CLOCK_RFC3339_SIZE - 1] = '\0';
}

/* Reads exactly n digits at s[*at]; -1 when there are not that many. */
static int digits(struct str s, uint32_t *at, uint32_t n)
{
    int value = 0;
    if (s.len - *at < n) {
        return -1;
    }
    for (uint32_t i = 0; i < n; i++) {
        char c = s.ptr[*at + i];
        if (c < '0' || c > '9') {
            return -1;
        }
        value = value * 10 + (c - '0');
    }
    *at += n;
    return value;
}

static bool literal(struct str s, uint32_t *at, char c)
{
    if (*at >= s.len || toupper((unsigned char)s.ptr[*at]) != c) {
        return false;
    }
    (*at)++;
    return true;
}

int clock_parse_rfc3339(struct str s, int64_t *wall_ms)
{
    uint32_t at = 0;
    int year = digits(s, &at, 4);
    if (year < 0 || !literal(s, &at, '-')) {
        return -1;
    }
    int month = digits(s, &at, 2);
    if (month < 1 || month > 12 || !literal(s, &at, '-')) {
        return -1;
    }
    int day = digits(s, &at, 2);
    static const int month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    int days = month_days[month - 1] + (month == 2 && leap ? 1 : 0);
    if (day < 1 || day > days || !literal(s, &at, 'T')) {
        return -1;
    }
    int hour = digits(s, &at, 2);
    if (hour < 0 || hour > 23 || !literal(s, &at, ':')) {
        return -1;
    }
    int minute = digits(s, &at, 2);
    if (minute < 0 || minute > 59 || !literal(s, &at, ':')) {
        return -1;
    }
    int second = digits(s, &at, 2);
    if (second < 0 || second > 59) {
        return -1;
    }
    int ms = 0;
    if (at < s.len && s.ptr[at] == '.') {
        at++;
        int scale = 100, count = 0;
        for (; at < s.len && isdigit((unsigned char)s.ptr[at]); at++, count++) {
            ms += (s.ptr[at] - '0') * scale;
            scale /= 10;
        }
        if (count < 1 || count > 9) {
            return -1;
        }
    }
    int offset_minutes = 0;
    if (!literal(s, &at, 'Z')) {
        if (at >= s.len || (s.ptr[at] != '+' && s.ptr[at] != '-')) {
            return -1;
        }
        int sign = s.ptr[at++] == '+' ? 1 : -1;
        int oh = digits(s, &at, 2);
        if (oh < 0 || oh > 23 || !literal(s, &at, ':')) {
            return -1;
        }
        int om = digits(s, &at, 2);
        if (om < 0 || om > 59) {
            return -1;
        }
        offset_minutes = sign * (oh * 60 + om);
    }
    if (at != s.len) {
        return -1;
    }
    struct tm t = {.tm_year = year - 1900,
                   .tm_mon = month - 1,
                   .tm_mday = day,
                   .tm_hour = hour,
                   .tm_min = minute,
                   .tm_sec = second};
    int64_t seconds = (int64_t)timegm(&t) - (int64_t)offset_minutes * 60;
    if (seconds < 0) {
        return -1;
    }
    *wall_ms = seconds * 1000 + ms;
    return 0;
}
