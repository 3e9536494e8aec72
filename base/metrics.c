#include "base/metrics.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

void metrics_family(struct text *t, const char *name, const char *type, const char *help)
{
    text_appendf(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void sample_name(struct text *t, const char *name, const char *labels)
{
    if (labels != NULL && labels[0] != '\0') {
        text_appendf(t, "%s{%s} ", name, labels);
    } else {
        text_appendf(t, "%s ", name);
    }
}

void metrics_sample(struct text *t, const char *name, const char *labels, double value)
{
    sample_name(t, name, labels);
    text_appendf(t, "%.17g\n", value);
}

void metrics_sample_u64(struct text *t, const char *name, const char *labels, uint64_t value)
{
    sample_name(t, name, labels);
    text_appendf(t, "%llu\n", (unsigned long long)value);
}

void metrics_single(struct text *t, const char *name, const char *type, const char *help, double value)
{
    metrics_family(t, name, type, help);
    metrics_sample(t, name, NULL, value);
}

void metrics_histogram_seconds(struct text *t, const char *name, const char *labels,
                               const struct histogram *h)
{
    static const uint64_t edges_us[] = {100,    250,    500,     1000,    2500,    5000,
                                        10000,  25000,  50000,   100000,  250000,  500000,
                                        1000000, 2500000, 5000000, 10000000};
    const char *l = labels != NULL ? labels : "";
    const char *comma = l[0] != '\0' ? "," : "";
    for (size_t i = 0; i < sizeof edges_us / sizeof edges_us[0]; i++) {
        text_appendf(t, "%s_bucket{%s%sle=\"%g\"} %llu\n", name, l, comma,
                     (double)edges_us[i] / 1e6,
                     (unsigned long long)histogram_count_below(h, edges_us[i] * 1000));
    }
    text_appendf(t, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, l, comma,
                 (unsigned long long)h->count);
    char full[160];
    snprintf(full, sizeof full, "%s_sum", name);
    metrics_sample(t, full, labels, (double)h->sum / 1e9);
    snprintf(full, sizeof full, "%s_count", name);
    metrics_sample_u64(t, full, labels, h->count);
}

void metrics_escape_label(struct str value, char *out, size_t size)
{
    size_t n = 0;
    for (uint32_t i = 0; i < value.len && n + 3 <= size; i++) {
        char c = value.ptr[i];
        if (c == '\n') {
            out[n++] = '\\';
            c = 'n';
        } else if (c == '\\' || c == '"') {
            out[n++] = '\\';
        }
        out[n++] = c;
    }
    out[n] = '\0';
}

static uint64_t open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    uint64_t n = 0;
    if (d != NULL) {
        while (readdir(d) != NULL) {
            n++;
        }
        closedir(d);
    }
    return n > 3 ? n - 3 : 0; /* ".", ".." and the directory itself */
}

void metrics_process(struct text *t)
{
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u) == 0) {
        double cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                     (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
        metrics_single(t, "process_cpu_seconds_total", "counter", "User and system CPU time.", cpu);
    }
    FILE *f = fopen("/proc/self/statm", "re");
    if (f != NULL) {
        unsigned long long size = 0, resident = 0;
        if (fscanf(f, "%llu %llu", &size, &resident) == 2) {
            double page = (double)sysconf(_SC_PAGESIZE);
            metrics_single(t, "process_virtual_memory_bytes", "gauge", "Virtual memory.",
                           (double)size * page);
            metrics_single(t, "process_resident_memory_bytes", "gauge", "Resident memory.",
                           (double)resident * page);
        }
        fclose(f);
    }
    metrics_single(t, "process_open_fds", "gauge", "Open file descriptors.", (double)open_files());
}
