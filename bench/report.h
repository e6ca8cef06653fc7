/* What was measured, for people and for machines. */
#ifndef QUERN_BENCH_REPORT_H
#define QUERN_BENCH_REPORT_H

#include "bench/measure.h"

#include <stdio.h>

struct report {
    const char *model_name; /* general.name of the file, or "" */
    const char *source;     /* the file's path, or the synthetic shape's name */
    bool synthetic;
    const char *cpu;
    const char *kernel_level;
    int n_threads;
    double load_seconds;
    uint64_t n_params, tensor_bytes;
    const struct measure_options *options;
    const struct measurements *measurements;
};

void report_text(FILE *f, const struct report *r);
/* One JSON object on one line; its keys are documented in quern-bench --help and stay as they are. */
void report_json(FILE *f, const struct report *r);

/* The processor's name as /proc/cpuinfo gives it, into name[size]. */
void report_cpu_name(char *name, size_t size);

#endif
