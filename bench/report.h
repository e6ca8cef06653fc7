/* What was measured, for people and for machines. */
#ifndef QUERN_BENCH_REPORT_H
#define QUERN_BENCH_REPORT_H

#include "bench/figures.h"
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
    const struct earlier *earlier; /* to compare with, or NULL */
};

void report_text(FILE *f, const struct report *r);
/* One JSON object on one line; its keys are documented in quern-bench --help and stay as they are. False when memory is short. */
bool report_json(FILE *f, const struct report *r);
/* A drawing of the sweep (bench/plot.c). */
void report_svg(FILE *f, const struct report *r);

/* ---- what text and JSON share (bench/share.c) ---- */

void report_figures(const struct report *r, struct figures *out);

/* A row of the profile: what a part took, of all threads, divided by their number, so that the rows add up to the whole. */
struct part {
    char name[32];
    double seconds, bytes, multiply_adds;
};
enum { PARTS_MOST = FORWARD_PARTS + 1 };
/* The parts that took time, longest first, and "waiting"; returns their number. */
int report_parts(const struct forward_times *t, int n_threads, struct part parts[PARTS_MOST]);

/* What distinguishes the two runs but the figures: sentences like "kernels: avx2 then, avx512 now". Returns their number. */
enum { DIFFERENCES_MOST = 6, DIFFERENCE_SIZE = 320 };
int report_differences(const struct report *r, char out[DIFFERENCES_MOST][DIFFERENCE_SIZE]);

/* The processor's name as /proc/cpuinfo gives it, into name[size]. */
void report_cpu_name(char *name, size_t size);

#endif
