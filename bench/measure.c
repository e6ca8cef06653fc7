#include "bench/measure.h"
#include "engine/sampler.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- statistics ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double series_median(const struct series *s)
{
    if (s->n == 0)
        return 0;
    struct series sorted = *s;
    qsort(sorted.values, (size_t)s->n, sizeof sorted.values[0], ascending);
    return 0.5 * (sorted.values[(s->n - 1) / 2] + sorted.values[s->n / 2]);
}

double series_min(const struct series *s)
{
    double least = s->n ? s->values[0] : 0;
    for (int i = 1; i < s->n; i++)
        least = s->values[i] < least ? s->values[i] : least;
    return least;
}

double series_max(const struct series *s)
{
    double most = s->n ? s->values[0] : 0;
    for (int i = 1; i < s->n; i++)
        most = s->values[i] > most ? s->values[i] : most;
    return most;
}

static void series_add(struct series *s, double value)
{
    s->values[s->n++] = value;
}

double measure_limit(const struct measurements *m)
{
    double bytes = (double)(m->weight_bytes + m->kv_bytes);
    return bytes > 0 ? series_median(&m->read) / bytes : 0;
}

/* ---- the memory's read speed ---- */

enum { READ_PIECE = 4 << 20 };

struct reading {
    const struct kernels *kernels;
    unsigned char *buffer;
    size_t bytes; /* a multiple of READ_PIECE */
    uint64_t *sums; /* [threads][8]: a cache line each */
};

static void fill_piece(void *arg, int piece, int thread)
{
    (void)thread;
    const struct reading *r = arg;
    uint64_t x = (uint64_t)piece + 1;
    unsigned char *to = r->buffer + (size_t)piece * READ_PIECE;
    for (size_t i = 0; i < READ_PIECE; i += sizeof x) { /* no two pages alike, so that the system cannot merge them */
        x = x * 6364136223846793005 + 1442695040888963407;
        memcpy(to + i, &x, sizeof x);
    }
}

static void read_piece(void *arg, int piece, int thread)
{
    const struct reading *r = arg;
    r->sums[8 * thread] += r->kernels->read_all(r->buffer + (size_t)piece * READ_PIECE, READ_PIECE);
}

/* Bytes the system can give without swapping; 0 if it does not say. */
static uint64_t available_memory(void)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    unsigned long long kib = 0;
    while (f && fgets(line, sizeof line, f) && sscanf(line, "MemAvailable: %llu kB", &kib) != 1)
        ;
    if (f)
        fclose(f);
    return kib * 1024;
}

/* 1 GiB, far more than any cache, or half of what is available where that is less. */
static bool reading_init(struct reading *r, const struct kernels *kernels, struct threads *pool, struct error *err)
{
    const size_t wanted = (size_t)1 << 30, least = (size_t)64 << 20;
    uint64_t available = available_memory();
    size_t bytes = available && available / 2 < wanted ? (size_t)(available / 2) : wanted;
    bytes -= bytes % READ_PIECE;
    if (bytes < least)
        return error_set(err, "%llu MB of memory are available, too little to measure its speed", (unsigned long long)(available >> 20));
    *r = (struct reading){.kernels = kernels, .bytes = bytes};
    r->sums = aligned_alloc(64, (size_t)threads_count(pool) * 64);
    r->buffer = r->sums ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
    if (r->buffer == MAP_FAILED) {
        free(r->sums);
        return error_set(err, "cannot get %zu MB to measure the memory's speed: %s", bytes >> 20, strerror(errno));
    }
#ifdef MADV_HUGEPAGE
    madvise(r->buffer, bytes, MADV_HUGEPAGE);
#endif
    memset(r->sums, 0, (size_t)threads_count(pool) * 64);
    threads_run(pool, (int)(bytes / READ_PIECE), fill_piece, r);
    return true;
}

static void reading_end(struct reading *r)
{
    munmap(r->buffer, r->bytes);
    free(r->sums);
}

static double read_speed(struct reading *r, struct threads *pool)
{
    double best = 0;
    for (int pass = 0; pass < 2; pass++) {
        double begin = now();
        threads_run(pool, (int)(r->bytes / READ_PIECE), read_piece, r);
        double speed = (double)r->bytes / (now() - begin);
        if (speed > best)
            best = speed;
    }
    return best;
}

/* ---- the model ---- */

struct subject {
    const struct measure_options *options;
    int n_vocab;
    struct kv_pool *kv;
    struct forward *forward;
    struct kv_sequence prompt, answer;
    struct row *rows; /* [longest prefill] */
    float *logits;    /* [n_vocab] */
    struct sampler *sampler;
};

static int round_up(int n)
{
    return (n + KV_BLOCK - 1) / KV_BLOCK * KV_BLOCK;
}

static bool subject_init(struct subject *s, const struct model *m, struct threads *pool, const struct measure_options *o, struct error *err)
{
    const struct model_shape *shape = model_shape(m);
    int longest = o->n_prompt > o->depth ? o->n_prompt : o->depth;
    const struct sampling greedy = {.temperature = 0};
    s->options = o;
    s->n_vocab = shape->n_vocab;
    s->kv = kv_pool_new(shape->n_layers, shape->n_kv_heads, shape->head_dim, round_up(o->n_prompt) + round_up(o->depth + o->n_decode), err);
    s->forward = s->kv ? forward_new(m, s->kv, pool, o->n_batch, err) : NULL;
    if (!s->forward)
        return false;
    kv_sequence_init(&s->prompt, s->kv);
    kv_sequence_init(&s->answer, s->kv);
    s->rows = malloc((size_t)(longest + 1) * sizeof *s->rows);
    s->logits = malloc((size_t)shape->n_vocab * sizeof *s->logits);
    s->sampler = sampler_new(&greedy, shape->n_vocab);
    if (!s->rows || !s->logits || !s->sampler || !kv_reserve(&s->prompt, o->n_prompt) || !kv_reserve(&s->answer, o->depth + o->n_decode))
        return error_set(err, "out of memory for %d tokens", longest + o->n_decode);
    return true;
}

static void subject_end(struct subject *s)
{
    if (s->kv && s->forward) {
        kv_sequence_clear(&s->prompt);
        kv_sequence_clear(&s->answer);
    }
    forward_free(s->forward);
    kv_pool_free(s->kv);
    free(s->rows);
    free(s->logits);
    sampler_free(s->sampler);
}

/* Computes n tokens from position 0. What they are does not matter to the speed: spread over the vocabulary, the same in every run. */
static void prefill(struct subject *s, struct kv_sequence *sequence, int n)
{
    for (int i = 0; i < n; i++)
        s->rows[i] = (struct row){.token = (int32_t)((uint32_t)i * 2654435761u % (uint32_t)s->n_vocab), .position = i, .sequence = sequence};
    s->rows[n - 1].logits = s->logits;
    forward_run(s->forward, s->rows, n);
}

static void decode(struct subject *s, int n)
{
    int32_t token = 0;
    for (int i = 0; i < n; i++) {
        const struct row row = {.token = token, .position = s->options->depth + i, .sequence = &s->answer, .logits = s->logits};
        forward_run(s->forward, &row, 1);
        token = sampler_next(s->sampler, s->logits);
    }
}

static void repeat(struct subject *s, struct reading *r, struct threads *pool, measure_progress *progress, struct measurements *out)
{
    const struct measure_options *o = s->options;
    if (o->n_decode > 0 && o->depth > 0) {
        progress("filling the context", 0, 0);
        prefill(s, &s->answer, o->depth);
    }
    for (int i = 0; i <= o->n_repetitions; i++) {
        bool warm = i > 0; /* the first round is for caches, pages and the clock of the processor */
        progress(warm ? "measuring" : "warming up", i, o->n_repetitions);
        double speed = read_speed(r, pool);
        if (warm)
            series_add(&out->read, speed);
        if (o->n_prompt > 0) {
            double begin = now();
            prefill(s, &s->prompt, o->n_prompt);
            if (warm)
                series_add(&out->prefill, o->n_prompt / (now() - begin));
        }
        if (o->n_decode > 0) {
            double begin = now();
            decode(s, warm || o->n_decode < 8 ? o->n_decode : 8);
            if (warm)
                series_add(&out->decode, o->n_decode / (now() - begin));
        }
    }
}

bool measure(const struct model *m, const struct kernels *kernels, struct threads *pool, const struct measure_options *o, measure_progress *progress,
             struct measurements *out, struct error *err)
{
    memset(out, 0, sizeof *out);
    struct subject s = {0};
    struct reading r;
    progress("preparing", 0, 0);
    if (!subject_init(&s, m, pool, o, err) || !reading_init(&r, kernels, pool, err)) {
        subject_end(&s);
        return false;
    }
    out->buffer_bytes = r.bytes;
    if (o->n_decode > 0) {
        out->weight_bytes = model_decode_bytes(m);
        /* Step i attends to depth + i + 1 positions; i goes from 0 to n - 1. */
        out->kv_bytes = (uint64_t)((double)kv_position_bytes(s.kv) * (o->depth + 0.5 * (o->n_decode + 1)));
    }
    repeat(&s, &r, pool, progress, out);
    reading_end(&r);
    subject_end(&s);
    return true;
}
