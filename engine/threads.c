/* How a loop is shared out.
 *
 * `remaining` counts the pieces nobody has taken. A thread takes a piece by lowering it by one with compare-and-swap,
 * from whatever loop is current: a piece that is taken keeps its loop alive, so fn, arg and n_pieces are read after
 * the piece was won and cannot change until it is reported as done.
 * Nobody waits for a worker that took no piece: one that sleeps, or whose core is busy with
 * something else, does not hold up the loop.
 *
 * A worker that finds no piece spins for a while and then sleeps on `remaining` (futex, "still 0"). It raises
 * `sleepers` before, the caller looks at `sleepers` after it published a loop, both sequentially consistent:
 * either the caller sees the sleeper and wakes it, or the kernel sees pieces and refuses to put it to sleep.
 * The caller sleeps on `finished` in the same way, with `waiting` in the part of `sleepers`. */
#include "engine/threads.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { CACHE_LINE = 64 };

/* `remaining` when the workers are to end. A loop has at most INT_MAX pieces. */
#define REMAINING_STOP UINT32_MAX

/* How long a thread spins for the next loop (or, the caller, for the others' last pieces) before it sleeps,
 * when every thread can have a core of its own.
 * A little longer than the pauses between the loops of a step, and than a wake-up takes. */
enum { SPIN_NS = 100 * 1000 };

struct worker {
    struct threads *pool;
    pthread_t handle;
    int index;
};

struct threads {
    alignas(CACHE_LINE) _Atomic uint32_t remaining; /* pieces not yet taken; futex of the workers */
    _Atomic uint32_t sleepers;                      /* workers asleep or about to be */
    alignas(CACHE_LINE) _Atomic uint32_t finished;  /* pieces the workers have done; futex of the caller */
    _Atomic uint32_t waiting;                       /* 1: the caller is asleep or about to be */
    /* The loop. Written by the caller between loops, when no piece is taken. */
    alignas(CACHE_LINE) threads_fn *fn;
    void *arg;
    uint32_t n_pieces;
    /* Fixed after threads_new. */
    int count;
    int64_t spin_ns;
    struct worker *workers; /* [count - 1] */
};

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory"); /* `yield` is a no-op on most cores; isb waits a few tens of cycles */
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Takes pieces of the current loop until there is none. Returns how many were done. */
static uint32_t work(struct threads *t, int index)
{
    uint32_t done = 0;
    uint32_t left = atomic_load_explicit(&t->remaining, memory_order_relaxed);
    while (left != 0 && left != REMAINING_STOP) {
        if (!atomic_compare_exchange_weak_explicit(&t->remaining, &left, left - 1, memory_order_acquire, memory_order_relaxed))
            continue;
        t->fn(t->arg, (int)(t->n_pieces - left), index);
        done++;
        left = atomic_load_explicit(&t->remaining, memory_order_relaxed);
    }
    return done;
}

/* Spins until *word differs from value (true) or the time is over (false). */
static bool spin_while(_Atomic uint32_t *word, uint32_t value, int64_t spin_ns)
{
    if (atomic_load_explicit(word, memory_order_relaxed) != value)
        return true;
    if (spin_ns <= 0)
        return false;
    int64_t end = 0;
    for (;;) {
        for (int i = 0; i < 64; i++) {
            relax();
            if (atomic_load_explicit(word, memory_order_relaxed) != value)
                return true;
        }
        int64_t now = now_ns();
        if (!end)
            end = now + spin_ns;
        else if (now > end)
            return false;
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct threads *t = w->pool;
    for (;;) {
        if (!spin_while(&t->remaining, 0, t->spin_ns)) {
            atomic_fetch_add(&t->sleepers, 1);
            while (atomic_load(&t->remaining) == 0)
                futex_wait(&t->remaining, 0);
            atomic_fetch_sub(&t->sleepers, 1);
        }
        if (atomic_load_explicit(&t->remaining, memory_order_acquire) == REMAINING_STOP)
            return NULL;
        uint32_t done = work(t, w->index);
        if (done) {
            atomic_fetch_add(&t->finished, done);
            if (atomic_load(&t->waiting))
                futex_wake(&t->finished, 1);
        }
    }
}

int threads_count(const struct threads *t)
{
    return t->count;
}

void threads_run(struct threads *t, int n_pieces, threads_fn *fn, void *arg)
{
    if (n_pieces <= 0)
        return;
    if (n_pieces == 1 || t->count == 1) {
        for (int i = 0; i < n_pieces; i++)
            fn(arg, i, 0);
        return;
    }
    t->fn = fn;
    t->arg = arg;
    t->n_pieces = (uint32_t)n_pieces;
    atomic_store_explicit(&t->finished, 0, memory_order_relaxed);
    atomic_store(&t->remaining, (uint32_t)n_pieces);
    uint32_t sleepers = atomic_load(&t->sleepers);
    if (sleepers)
        futex_wake(&t->remaining, n_pieces - 1 < (int)sleepers ? n_pieces - 1 : (int)sleepers);

    uint32_t others = (uint32_t)n_pieces - work(t, 0);
    uint32_t seen;
    while ((seen = atomic_load_explicit(&t->finished, memory_order_acquire)) != others) {
        if (spin_while(&t->finished, seen, t->spin_ns))
            continue;
        atomic_store(&t->waiting, 1);
        while (atomic_load(&t->finished) == seen)
            futex_wait(&t->finished, seen);
        atomic_store_explicit(&t->waiting, 0, memory_order_relaxed);
    }
}

void threads_free(struct threads *t)
{
    if (!t)
        return;
    atomic_store(&t->remaining, REMAINING_STOP);
    futex_wake(&t->remaining, INT32_MAX);
    for (int i = 0; i < t->count - 1; i++)
        pthread_join(t->workers[i].handle, NULL);
    free(t->workers);
    free(t);
}

struct threads *threads_new(int n, struct error *err)
{
    enum { MOST = 4096 }; /* more is a mistake in a number, not a wish */
    if (n < 1 || n > MOST) {
        error_set(err, "cannot use %d threads: the number must be 1 to %d", n, (int)MOST);
        return NULL;
    }
    struct threads *t = aligned_alloc(CACHE_LINE, sizeof *t);
    struct worker *workers = calloc((size_t)n, sizeof *workers);
    if (!t || !workers) {
        free(t);
        free(workers);
        error_set(err, "out of memory for a pool of %d threads", n);
        return NULL;
    }
    memset(t, 0, sizeof *t);
    t->workers = workers;
    t->count = 1;
    /* With more threads than cores a spinning thread keeps a working one off its core. */
    t->spin_ns = n <= threads_usable_cores() ? SPIN_NS : 0;

    /* Signals are for the program's main thread. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = 0;
    for (int i = 0; i < n - 1 && !failed; i++) {
        struct worker *w = &workers[i];
        w->pool = t;
        w->index = i + 1;
        failed = pthread_create(&w->handle, NULL, worker_main, w);
        if (!failed) {
            char name[16];
            snprintf(name, sizeof name, "quern-work-%d", w->index);
            pthread_setname_np(w->handle, name);
            t->count++;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        error_set(err, "cannot start thread %d of %d: %s; try fewer threads", t->count + 1, n, strerror(failed));
        threads_free(t);
        return NULL;
    }
    return t;
}
