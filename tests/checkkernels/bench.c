/* Times kernels: median of repeats that take a fixed time each.
 * Matrices come in two sizes: small enough for a second-level cache, and larger than any cache, through which the repeats walk on
 * and on. */
#include "tests/checkkernels/check.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { REPEATS = 7, COLUMNS = 1536, MAX_TOKENS = 64, SLICE = 64 /* panels a call */ };

static const double repeat_ns = 20e6;
static const size_t near_bytes = 192u << 10, far_bytes = 256u << 20;
static double cycle_ns;

/* The time this thread has run: what other programs take of the machine meanwhile does not count. */
static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return x[n / 2];
}

/* A chain of additions, each of which waits for the one before: one per cycle on every CPU that matters. An estimate: the clock
 * may change with the load. */
static double measure_cycle(void)
{
    double times[REPEATS];
    for (int r = 0; r < REPEATS; r++) {
        enum { ROUNDS = 1000000 };
        uint64_t x = 0;
        double start = now_ns();
        for (int i = 0; i < ROUNDS; i++) {
#define ADD4(instruction) __asm__ volatile(instruction "\n\t" instruction "\n\t" instruction "\n\t" instruction : "+r"(x))
#if defined(__x86_64__)
            ADD4("add $7, %0");
            ADD4("add $7, %0");
#elif defined(__aarch64__)
            ADD4("add %0, %0, #7");
            ADD4("add %0, %0, #7");
#else
            for (int j = 0; j < 8; j++)
                __asm__ volatile("" : "+r"(x) : "0"(x + 7));
#endif
        }
        times[r] = (now_ns() - start) / (ROUNDS * 8.0);
    }
    return median(times, REPEATS);
}

/* Median ns of one call of run(context), which is called until a repeat's time is over. */
static double time_calls(void (*run)(void *), void *context)
{
    double times[REPEATS];
    run(context);
    for (int r = 0; r < REPEATS; r++) {
        double start = now_ns(), end;
        long calls = 0;
        do {
            run(context);
            calls++;
            end = now_ns();
        } while (end - start < repeat_ns);
        times[r] = (end - start) / (double)calls;
    }
    return median(times, REPEATS);
}

static bool wanted(const char *filter, const char *level, const char *name)
{
    char both[64];
    snprintf(both, sizeof both, "%s %s", level, name);
    return strstr(both, filter);
}

/* ---- matmul ---- */

struct matmul_run {
    matmul_kernel *kernel;
    const char *panels;
    size_t panel_size, n_panels, slice, next;
    struct act act;
    float *y;
};

static void run_matmul(void *context)
{
    struct matmul_run *m = context;
    if (m->next + m->slice > m->n_panels)
        m->next = 0;
    m->kernel(m->panels + m->next * m->panel_size, m->slice, &m->act, m->y, m->slice * PANEL_ROWS);
    m->next += m->slice;
}

static void bench_matmul(const struct kernels *k, enum gguf_type type, const char *name, char *memory)
{
    static const int tokens[] = {1, 4, 8, 64};
    static float y[MAX_TOKENS * SLICE * PANEL_ROWS];
    size_t panel_size = panel_bytes(type, COLUMNS), row = row_bytes(type, COLUMNS);
    unsigned char *rows = guarded(0, row * PANEL_ROWS);
    make_blocks(type, WEIGHTS_RANDOM, COLUMNS * PANEL_ROWS, rows);
    panel_pack(type, rows, PANEL_ROWS, COLUMNS, memory);
    for (size_t at = panel_size; at + panel_size <= far_bytes; at += panel_size)
        memcpy(memory + at, memory, panel_size);
    for (size_t i = 0; i < COUNT_OF(tokens); i++)
        for (int far_away = 0; far_away < 2; far_away++) {
            size_t n_panels = (far_away ? far_bytes : near_bytes) / panel_size;
            struct matmul_run m = {.kernel = k->matmul[type], .panels = memory, .panel_size = panel_size, .n_panels = n_panels,
                                   .slice = n_panels < SLICE ? n_panels : SLICE, .act = act_room(8, tokens[i], COLUMNS), .y = y};
            make_act(&m.act, ACT_RANDOM);
            double ns = time_calls(run_matmul, &m), bytes = (double)(m.slice * panel_size);
            double multiply_adds = (double)m.slice * PANEL_ROWS * COLUMNS * tokens[i];
            printf("%-13s %-14s %3d tokens, weights in %-6s  %7.2f GB/s  %8.2f multiply-adds/ns  %7.2f per cycle\n", k->level,
                name, tokens[i], far_away ? "memory" : "cache", bytes / ns, multiply_adds / ns, multiply_adds / ns * cycle_ns);
            fflush(stdout);
        }
}

/* ---- the others ---- */

enum { N = 1536, HEAD_DIM = 128, KEYS = 1024, ROWS = 96 /* 16 tokens of a prompt, 6 heads each */, HEADS = 6 };

struct vector_run {
    const struct kernels *k;
    float *x, *y, *w;
    struct act act;
    struct attention_tile tile;
    const char *memory;
    uint64_t sink;
};

static void run_quantize(void *c)
{
    struct vector_run *r = c;
    quantize_all(r->k, &r->act);
}
static void run_rms_norm(void *c)
{
    struct vector_run *r = c;
    r->k->rms_norm(r->y, r->x, r->w, N, 1e-6f);
}
static void run_rope(void *c)
{
    struct vector_run *r = c;
    r->k->rope(r->y, N / HEAD_DIM, HEAD_DIM, r->x, r->w);
}
static void run_swiglu(void *c)
{
    struct vector_run *r = c;
    r->k->swiglu(r->y, r->x, r->w, N);
}
static void run_add(void *c)
{
    struct vector_run *r = c;
    r->k->add(r->y, r->x, N);
}
static void run_softmax(void *c)
{
    struct vector_run *r = c;
    r->k->softmax(r->y, r->x, N);
}
static void run_to_f16(void *c)
{
    struct vector_run *r = c;
    r->k->to_f16((uint16_t *)(void *)r->y, r->x, N);
}
static void run_attention(void *c)
{
    struct vector_run *r = c;
    r->k->attention(&r->tile);
}
static void run_attention_decode(void *c)
{
    struct vector_run *r = c;
    struct attention_tile tile = r->tile;
    tile.n_rows = HEADS;
    r->k->attention(&tile);
}
static void run_read_all(void *c)
{
    struct vector_run *r = c;
    r->sink ^= r->k->read_all(r->memory, far_bytes);
}

static void bench_vectors(const struct kernels *k, const char *filter, const char *memory)
{
    static _Alignas(64) float x[N], y[N], w[N], q[ROWS][HEAD_DIM], out[ROWS][HEAD_DIM];
    static uint16_t keys[KV_BLOCK * HEAD_DIM], values[KV_BLOCK * HEAD_DIM];
    float *scratch = guarded(15, attention_scratch(ROWS, HEAD_DIM) * sizeof *scratch);
    const float *q_rows[ROWS];
    float *out_rows[ROWS];
    int limit[ROWS];
    const uint16_t *k_blocks[KEYS / KV_BLOCK], *v_blocks[KEYS / KV_BLOCK];
    for (int i = 0; i < N; i++) {
        x[i] = random_normal();
        y[i] = random_normal();
        w[i] = random_normal() / 2;
    }
    for (int i = 0; i < KV_BLOCK * HEAD_DIM; i++) {
        keys[i] = f32_to_f16(random_normal());
        values[i] = f32_to_f16(random_normal());
    }
    for (int i = 0; i < ROWS; i++) {
        q_rows[i] = q[i];
        out_rows[i] = out[i];
        limit[i] = KEYS;
        for (int d = 0; d < HEAD_DIM; d++)
            q[i][d] = random_normal();
    }
    for (int b = 0; b < KEYS / KV_BLOCK; b++) {
        k_blocks[b] = keys;
        v_blocks[b] = values;
    }
    struct vector_run r = {.k = k, .x = x, .y = y, .w = w, .act = act_room(8, 1, N), .memory = memory,
                           .tile = {ROWS, HEAD_DIM, KEYS, 0.088388f, q_rows, out_rows, limit, k_blocks, v_blocks, scratch}};
    make_act(&r.act, ACT_RANDOM);
    static const struct {
        const char *name;
        void (*run)(void *);
        double items;
        const char *unit;
    } runs[] = {
        {"quantize", run_quantize, N, "elements"},
        {"rms_norm", run_rms_norm, N, "elements"},
        {"rope", run_rope, N, "elements"},
        {"swiglu", run_swiglu, N, "elements"},
        {"add", run_add, N, "elements"},
        {"softmax", run_softmax, N, "elements"},
        {"to_f16", run_to_f16, N, "elements"},
        {"attention 96", run_attention, 2.0 * ROWS * HEAD_DIM * KEYS, "multiply-adds"},
        {"attention 6", run_attention_decode, 2.0 * HEADS * HEAD_DIM * KEYS, "multiply-adds"},
        {"read_all", run_read_all, 256.0 * (1 << 20), "bytes"},
    };
    for (size_t i = 0; i < COUNT_OF(runs); i++)
        if (wanted(filter, k->level, runs[i].name)) {
            double ns = time_calls(runs[i].run, &r);
            printf("%-13s %-14s %10.0f ns  %8.2f %s/ns  %7.2f per cycle\n", k->level, runs[i].name, ns, runs[i].items / ns,
                runs[i].unit, runs[i].items / ns * cycle_ns);
            fflush(stdout);
        }
}

void bench(const char *filter)
{
    char *memory = mmap(NULL, far_bytes + (1u << 20), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        fputs("checkkernels: no 256 MB of memory for the bench\n", stderr);
        exit(2);
    }
    memset(memory, 1, far_bytes); /* else reading it would read one page of zeros */
    random_seed(1);
    cycle_ns = measure_cycle();
    printf("one cycle is about %.3f ns (estimated by a chain of additions); one thread, median of %d repeats; cache: %zu KiB, "
           "memory: %zu MiB of weights with %d columns\n",
        cycle_ns, REPEATS, near_bytes >> 10, far_bytes >> 20, COLUMNS);
    const struct kernels *levels[16];
    int n_levels = levels_under_test(levels, (int)COUNT_OF(levels), false);
    for (int l = 0; l < n_levels; l++) {
        const struct kernels *k = levels[l];
        for (size_t i = 0; i < COUNT_OF(all_types); i++) {
            char name[24];
            snprintf(name, sizeof name, "matmul %s", gguf_type_traits(all_types[i])->name);
            if (k->matmul[all_types[i]] && wanted(filter, k->level, name))
                bench_matmul(k, all_types[i], name, memory);
        }
        bench_vectors(k, filter, memory);
    }
    munmap(memory, far_bytes + (1u << 20));
}
