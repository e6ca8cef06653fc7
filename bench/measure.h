/* What quern-bench measures: prefill, decode, and how fast the memory can be read, in turns, so that a neighbour who
 * takes part of the machine for a while disturbs all three alike; if wanted, the same over a range of lengths,
 * depths and batches, and where the time goes. */
#ifndef QUERN_BENCH_MEASURE_H
#define QUERN_BENCH_MEASURE_H

#include "bench/series.h"
#include "engine/model.h"

struct measure_options {
    int n_prompt;      /* tokens of a prefill; 0: not measured */
    int n_decode;      /* steps of a decode; 0: not measured */
    int depth;         /* positions in the cache when decode begins */
    int n_batch;       /* rows of a prefill step */
    int n_repetitions; /* 1 .. SERIES_MOST */
    bool sweep, profile;
    int read_mib;      /* of memory that a round reads */
    int n_ctx;         /* positions that a sweep may go to; 0: as far as the model was trained */
};

/* Points of a sweep: tokens/s at so many tokens, at such a depth, of so many sequences. */
enum { CURVE_MOST = 9, SWEEP_FILL = 512 /* positions that are computed; beyond, they are copied */ };
struct point {
    int at;
    struct series speed; /* tokens/s */
    double limit;        /* tokens/s at which the bytes of a step come as fast as memory delivers; 0: none */
};
struct curve {
    int n;
    struct point points[CURVE_MOST];
};
struct sweep {
    struct curve prefill; /* tokens */
    struct curve decode;  /* depth */
    struct curve batch;   /* sequences, from an empty context; tokens/s of all together */
    int n_steps;          /* decode steps of a point */
    int n_ctx;            /* how far it could go */
    bool short_of_memory; /* what set n_ctx: memory, or else the model or the option */
};

struct measurements {
    struct series prefill; /* tokens/s */
    struct series decode;  /* tokens/s: one forward pass and one greedy choice per token */
    struct series read;    /* bytes/s, each the better of two passes over the buffer by all threads */
    uint64_t buffer_bytes; /* of that buffer */
    uint64_t weight_bytes; /* that a decode step reads */
    uint64_t kv_bytes;     /* keys and values that a decode step reads, on average over the steps measured */
    struct sweep sweep;    /* if wanted */
    struct forward_times prefill_times, decode_times; /* if wanted: of one prefill, and of all steps of one decode */
};

/* Called before everything that may take a while: a few words, and how far of how many. */
typedef void measure_progress(const char *what, int done, int of);

/* False with a sentence when memory is short. */
bool measure(const struct model *m, const struct kernels *kernels, struct threads *pool, const struct measure_options *options,
    measure_progress *progress, struct measurements *out, struct error *err);

/* Tokens per second at which a decode step's bytes would come exactly as fast
 * as the memory delivers; 0 if it was not measured. */
double measure_limit(const struct measurements *m);

#endif
