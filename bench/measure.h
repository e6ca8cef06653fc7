/* What quern-bench measures: prefill, decode, and how fast the memory can be read, in turns, so that a neighbour who takes part of the machine for a while
 * disturbs all three alike. */
#ifndef QUERN_BENCH_MEASURE_H
#define QUERN_BENCH_MEASURE_H

#include "engine/model.h"

enum { MEASURE_MOST_REPETITIONS = 1000 };

struct measure_options {
    int n_prompt;      /* tokens of a prefill; 0: not measured */
    int n_decode;      /* steps of a decode; 0: not measured */
    int depth;         /* positions in the cache when decode begins */
    int n_batch;       /* rows of a prefill step */
    int n_repetitions; /* 1 .. MEASURE_MOST_REPETITIONS */
};

/* One value per repetition. */
struct series {
    int n;
    double values[MEASURE_MOST_REPETITIONS];
};
double series_median(const struct series *s); /* of an even number, the mean of the two in the middle; 0 of none */
double series_min(const struct series *s);
double series_max(const struct series *s);

struct measurements {
    struct series prefill; /* tokens/s */
    struct series decode;  /* tokens/s: one forward pass and one greedy choice per token */
    struct series read;    /* bytes/s, each the better of two passes over the buffer by all threads */
    uint64_t buffer_bytes; /* of that buffer */
    uint64_t weight_bytes; /* that a decode step reads */
    uint64_t kv_bytes;     /* keys and values that a decode step reads, on average over the steps measured */
};

/* Called before everything that may take a while: a few words, and how far of how many. */
typedef void measure_progress(const char *what, int done, int of);

/* False with a sentence when memory is short. */
bool measure(const struct model *m, const struct kernels *kernels, struct threads *pool, const struct measure_options *options, measure_progress *progress,
             struct measurements *out, struct error *err);

/* Tokens per second at which a decode step's bytes would come exactly as fast as the memory delivers; 0 if it was not measured. */
double measure_limit(const struct measurements *m);

#endif
