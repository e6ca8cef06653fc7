/* A pool of threads for loops over independent pieces. The caller is one of the threads; the others spin for a short while after
 * a loop, then sleep, so that an idle engine uses no CPU. */
#ifndef QUERN_THREADS_H
#define QUERN_THREADS_H

#include "gguf/error.h"

struct threads;

/* Threads this process may use: CPUs of its affinity mask, cut to the cgroup's cpu.max (rounded up). At least 1. */
int threads_usable_cores(void);

/* n >= 1 threads in all, the caller included. NULL with a sentence when they cannot be started. */
struct threads *threads_new(int n, struct error *err);
void threads_free(struct threads *t);
int threads_count(const struct threads *t);

/* Calls fn(arg, piece, thread) once for every piece 0 .. n_pieces - 1, in no particular order,
 * on all threads; returns when all are done.
 * thread is 0 .. count - 1 and is not used by two calls at the same time. Pieces are handed out one by one to whichever
 * thread is free. Only one thread may call this. */
typedef void threads_fn(void *arg, int piece, int thread);
void threads_run(struct threads *t, int n_pieces, threads_fn *fn, void *arg);

#endif
