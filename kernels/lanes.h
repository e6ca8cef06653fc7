/* Everything in floating point, written once for all instruction sets: norms, rotary embedding, SwiGLU, softmax, attention,
 * quantisation of activations, and matmul over weights that are floats themselves.
 *
 * This is a template. An instruction set's file defines `v16`, a value of 16 float lanes, with the operations listed below, and
 * then includes this file; since the order of operations stands here, all levels compute the same bits. scalar.c defines v16 by
 * plain loops: that is the specification. A level that has an attention of its own defines ATTENTION before, as that function's
 * name, and ATTENTION_TOKENS.
 *
 *   v16_load(p), v16_store(p, v)      16 floats, any alignment
 *   v16_load_f16(p), v16_load_bf16(p) 16 halves, widened
 *   v16_store_f16(p, v)               rounded to nearest even
 *   v16_store_i8(p, v, pair)          lanes are integers in -127..127; pair[0] and pair[1] become the sums of
 *                                     lanes 4j, 4j + 1 and of lanes 4j + 2, 4j + 3
 *   v16_set1(x)
 *   v16_spread(p)                     lanes 4j .. 4j + 3 are p[j], of 4 floats
 *   v16_add, v16_sub, v16_mul, v16_div
 *   v16_fma(a, b, c) = a * b + c, v16_fnma(a, b, c) = c - a * b, each rounded once
 *   v16_above(a, b) = a > b ? a : b, v16_below(a, b) = a < b ? a : b (so a NaN in a gives b)
 *   v16_abs(v)
 *   v16_round(v)                      to the nearest integer, ties to even
 *   v16_ldexp(v, n)                   v * 2^n for integral lanes of n in -126..127, v in 0.5..2
 *   v16_keep(x, limit, v)             x >= limit ? v : 0
 *   v16_any_above(a, b)               true if a > b in any lane
 *   v16_sum(v), v16_max(v)            over lanes; the sum adds lane i and i + 8, then i and i + 4, then i + 2, then i + 1
 *   V16_ROWS                          how many rows of 16 lanes the registers hold as accumulators
 */

#include "kernels/ahead.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* ---- exp ---- */

/* exp(x) for x in -87..87, within 1 unit in the last place (checkkernels measures it): x = n ln 2 + f, |f| <= ln 2 / 2, and for
 * exp(f) a polynomial whose coefficients of f^3 .. f^6 are the minimax ones (relative error 2^-28; Taylor's would be 2 units off
 * at the ends by themselves). */
INLINE v16 v16_exp_bounded(v16 x)
{
    v16 n = v16_round(v16_mul(x, v16_set1(0x1.715476p+0f)));
    v16 f = v16_fnma(n, v16_set1(0x1.62e400p-1f), x); /* ln 2 in two parts, the first exact in a product with n */
    f = v16_fnma(n, v16_set1(0x1.7f7d1cp-20f), f);
    v16 p = v16_set1(0x1.6b6e16p-10f);
    p = v16_fma(p, f, v16_set1(0x1.122fc0p-7f));
    p = v16_fma(p, f, v16_set1(0x1.555688p-5f));
    p = v16_fma(p, f, v16_set1(0x1.5554a4p-3f));
    p = v16_fma(p, f, v16_set1(0.5f));
    p = v16_fma(p, f, v16_set1(1.0f));
    p = v16_fma(p, f, v16_set1(1.0f));
    return v16_ldexp(p, n);
}

/* exp(x) for x <= 0; below -87 (also minus infinity) and for NaN it is 0. */
INLINE v16 v16_exp_negative(v16 x)
{
    v16 limit = v16_set1(-87.0f);
    return v16_keep(x, limit, v16_exp_bounded(v16_above(x, limit)));
}

/* ---- element by element ---- */

static void rms_norm(float *y, const float *x, const float *w, int n, float eps)
{
    v16 squares = v16_set1(0);
    for (int i = 0; i < n; i += 16) {
        v16 v = v16_load(x + i);
        squares = v16_fma(v, v, squares);
    }
    float scale = 1.0f / sqrtf(v16_sum(squares) / (float)n + eps);
    for (int i = 0; i < n; i += 16)
        v16_store(y + i, v16_mul(v16_mul(v16_load(x + i), v16_set1(scale)), v16_load(w + i)));
}

static void rope(float *x, int n_heads, int head_dim, const float *cos_, const float *sin_)
{
    int half = head_dim / 2;
    for (int h = 0; h < n_heads; h++, x += head_dim)
        for (int i = 0; i < half; i += 16) {
            v16 a = v16_load(x + i), b = v16_load(x + half + i), c = v16_load(cos_ + i), s = v16_load(sin_ + i);
            v16_store(x + i, v16_fnma(b, s, v16_mul(a, c)));
            v16_store(x + half + i, v16_fma(a, s, v16_mul(b, c)));
        }
}

static void swiglu(float *y, const float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i += 16) {
        v16 g = v16_load(gate + i);
        v16 x = v16_sub(v16_set1(0), g);
        x = v16_above(v16_below(x, v16_set1(87)), v16_set1(-87));
        v16 sigmoid_inverse = v16_add(v16_set1(1), v16_exp_bounded(x));
        v16_store(y + i, v16_mul(v16_div(g, sigmoid_inverse), v16_load(up + i)));
    }
}

static void add(float *y, const float *x, int n)
{
    for (int i = 0; i < n; i += 16)
        v16_store(y + i, v16_add(v16_load(y + i), v16_load(x + i)));
}

static void to_f16(uint16_t *y, const float *x, int n)
{
    for (int i = 0; i < n; i += 16)
        v16_store_f16(y + i, v16_above(v16_below(v16_load(x + i), v16_set1(65504)), v16_set1(-65504)));
}

static float softmax(float *p, const float *x, int n)
{
    float tail[16];
    int whole = n & ~15;
    for (int i = 0; i < 16; i++)
        tail[i] = whole + i < n ? x[whole + i] : -INFINITY;
    v16 top = v16_set1(-INFINITY);
    for (int i = 0; i < whole; i += 16)
        top = v16_above(v16_load(x + i), top);
    top = v16_above(v16_load(tail), top);
    v16 max = v16_set1(v16_max(top)), sum = v16_set1(0);
    for (int i = 0; i < whole; i += 16) {
        v16 e = v16_exp_negative(v16_sub(v16_load(x + i), max));
        v16_store(p + i, e);
        sum = v16_add(sum, e);
    }
    v16 e = v16_exp_negative(v16_sub(v16_load(tail), max));
    sum = v16_add(sum, e);
    v16_store(tail, e);
    for (int i = whole; i < n; i++)
        p[i] = tail[i - whole];
    return v16_sum(sum);
}

/* ---- quantisation of activations ----
 *
 * The greatest magnitude of a group need not become 127: with 126, 125 or 124 all other numbers are rounded anew, and which of
 * the four leaves the least error is chance. To try them takes a seventh off the mean squared error. */

enum { SCALES = 4 };

static const float reach[SCALES] = {127, 126, 125, 124};

/* Which scale leaves the least sum of squared errors of x[32]: the first of those whose sums differ in their last bits only. Also
 * the first if there are numbers that are not finite. Lanes 4j + k are scale k. */
INLINE int best_scale(const float *x, float inverse_max)
{
    /* Added, it leaves no room for a fraction: what is below 2^22 is rounded to the nearest integer. */
    const v16 shift = v16_set1(0x1.8p23f);
    float sums[16];
    for (int i = 0; i < 16; i++)
        sums[i] = reach[i % SCALES];
    const v16 factor = v16_mul(v16_load(sums), v16_set1(inverse_max));
    v16 error[2] = {v16_set1(0), v16_set1(0)};
#pragma GCC unroll 8
    for (int i = 0; i < ACT_GROUP / 4; i++) {
        v16 y = v16_spread(x + i * 4);
        v16 rounded = v16_sub(v16_fma(y, factor, shift), shift), rest = v16_fnma(y, factor, rounded);
        error[i % 2] = v16_fma(rest, rest, error[i % 2]);
    }
    v16_store(sums, v16_add(error[0], error[1]));
    /* The sums below zero, whose greatest is sought, with the scale's number in the last bits; FLT_MAX for NaN. */
    uint32_t keys[16];
    for (int i = 0; i < 16; i++) {
        float sum = (sums[i] + sums[(i + 8) % 16]) + (sums[(i + 4) % 16] + sums[(i + 12) % 16]);
        sum *= 1 / (reach[i % SCALES] * reach[i % SCALES]);
        memcpy(keys + i, &sum, sizeof sum);
    }
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t magnitude = keys[i] & 0x7fffffff;
        keys[i] = ((magnitude < 0x7f7fffff ? magnitude : 0x7f7fffff) & ~3u) | i % SCALES | 0x80000000;
    }
    memcpy(sums, keys, sizeof sums);
    float least = v16_max(v16_load(sums));
    uint32_t key;
    memcpy(&key, &least, sizeof key);
    return (int)(key % SCALES);
}

/* Up to 16 groups of a token. Step by step for all of them, since each step is a chain of operations that wait for each other. */
INLINE void quantize_groups(const struct act *a, const float *x, int token, int first_group, int n)
{
    float max[16] = {0}, inverse[16], r[16];
    for (int g = 0; g < n; g++) {
        v16 lo = v16_load(x + g * ACT_GROUP), hi = v16_load(x + g * ACT_GROUP + 16);
        max[g] = v16_max(v16_above(v16_abs(hi), v16_above(v16_abs(lo), v16_set1(0))));
    }
    /* Below this there is nothing worth a scale, and 1 / max would overflow. */
    const v16 limit = v16_set1(1e-30f), maxima = v16_load(max), inverses = v16_keep(maxima, limit, v16_div(v16_set1(1), maxima));
    v16_store(inverse, inverses);
    for (int g = 0; g < 16; g++)
        r[g] = reach[g < n ? best_scale(x + g * ACT_GROUP, inverse[g]) : 0];
    v16_store(inverse, v16_mul(inverses, v16_load(r)));
    v16_store(max, v16_keep(maxima, limit, v16_div(maxima, v16_load(r))));
    for (int g = 0; g < n; g++) {
        size_t at = (size_t)(first_group + g) * (size_t)a->n_tokens + (size_t)token;
        v16 lo = v16_load(x + g * ACT_GROUP), hi = v16_load(x + g * ACT_GROUP + 16), top = v16_set1(127), bottom = v16_set1(-127);
        lo = v16_above(v16_below(v16_mul(lo, v16_set1(inverse[g])), top), bottom);
        hi = v16_above(v16_below(v16_mul(hi, v16_set1(inverse[g])), top), bottom);
        int16_t *pair = a->pair + at * 4, *half = a->half + at * 2;
        v16_store_i8(a->q + at * ACT_GROUP, v16_round(lo), pair);
        v16_store_i8(a->q + at * ACT_GROUP + 16, v16_round(hi), pair + 2);
        half[0] = (int16_t)(pair[0] + pair[1]);
        half[1] = (int16_t)(pair[2] + pair[3]);
        a->d[at] = max[g];
        a->sum[at] = max[g] * (float)(half[0] + half[1]);
    }
}

static void quantize(
    const struct act *a, const float *x, size_t x_stride, int first_token, int n_tokens, int first_group, int n_groups)
{
    for (int t = 0; t < n_tokens; t++, x += x_stride)
        for (int g = 0; g < n_groups; g += 16)
            quantize_groups(a, x + g * ACT_GROUP, first_token + t, first_group + g, n_groups - g < 16 ? n_groups - g : 16);
}

/* ---- rows times a matrix of 16 columns: c[i] += a[i][0 .. n - 1] * b[0 .. n - 1][16 lanes] ---- */

enum { ELEMENT_F32, ELEMENT_F16, ELEMENT_BF16 };

INLINE v16 load_element(int element, const void *b, size_t at)
{
    if (element == ELEMENT_F32)
        return v16_load((const float *)b + at);
    if (element == ELEMENT_F16)
        return v16_load_f16((const uint16_t *)b + at);
    return v16_load_bf16((const uint16_t *)b + at);
}

/* Halves come from memory, floats from a cache: for halves, what lies `ahead` bytes further on than what is read is asked for. */
INLINE void rows_times(
    int element, int n_rows, v16 c[], const float *const a[], const void *b, size_t stride, int n, ptrdiff_t ahead)
{
#pragma GCC unroll 4
    for (int k = 0; k < n; k++) {
        v16 w = load_element(element, b, (size_t)k * stride);
        if (element != ELEMENT_F32)
            __builtin_prefetch((const char *)b + (size_t)k * stride * sizeof(uint16_t) + ahead, 0, 2);
#pragma GCC unroll 16
        for (int i = 0; i < n_rows; i++)
            c[i] = v16_fma(v16_set1(a[i][k]), w, c[i]);
    }
}

/* What is multiplied: b[n][16 lanes], its rows `stride` elements apart, in one or two runs. */
struct lane_rows {
    const void *b[2];
    ptrdiff_t ahead[2]; /* see rows_times */
    int n[2];           /* n[1] may be 0 */
    size_t stride;
};

/* One tile of scores or outputs: reads c where told, so that the accumulation goes on, and writes it back. a[i] has a number for
 * every row of both runs. */
INLINE void tile_exactly(
    int element, int n_rows, float *const c[], bool from_zero, const float *const a[], const struct lane_rows *b)
{
    v16 acc[V16_ROWS];
#pragma GCC unroll 16
    for (int i = 0; i < n_rows; i++)
        acc[i] = from_zero ? v16_set1(0) : v16_load(c[i]);
    rows_times(element, n_rows, acc, a, b->b[0], b->stride, b->n[0], b->ahead[0]);
    if (!from_zero && b->n[1] > 0) {
        const float *rest[V16_ROWS];
#pragma GCC unroll 16
        for (int i = 0; i < n_rows; i++)
            rest[i] = a[i] + b->n[0];
        rows_times(element, n_rows, acc, rest, b->b[1], b->stride, b->n[1], b->ahead[1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n_rows; i++)
        v16_store(c[i], acc[i]);
}

/* n_rows is 1 to V16_ROWS; from_zero only with one run. */
INLINE void tile(int element, int n_rows, float *const c[], bool from_zero, const float *const a[], const struct lane_rows *b)
{
    switch (n_rows) {
#define ROWS(count)                                                                                                     \
    case count:                                                                                                         \
        if (count <= V16_ROWS)                                                                                          \
            tile_exactly(element, count <= V16_ROWS ? count : 1, c, from_zero, a, b);                                   \
        break;
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
#undef ROWS
    default:
        break;
    }
}

/* ---- matmul over floating-point weights: y = fma over the columns in order ---- */

INLINE void matmul_float(
    int element, size_t element_bytes, const void *panels, size_t n_panels, const struct act *x, float *y, size_t y_stride)
{
    size_t n_cols = (size_t)x->n_cols;
    for (size_t p = 0; p < n_panels; p++, y += PANEL_ROWS) {
        const void *b = (const char *)panels + p * ((n_cols * PANEL_ROWS * element_bytes + 63) & ~(size_t)63);
        for (int t = 0; t < x->n_tokens; t += V16_ROWS) {
            const float *a[V16_ROWS];
            float *c[V16_ROWS];
            int n = x->n_tokens - t < V16_ROWS ? x->n_tokens - t : V16_ROWS;
            for (int i = 0; i < n; i++) {
                a[i] = x->x + (size_t)(t + i) * n_cols;
                c[i] = y + (size_t)(t + i) * y_stride;
            }
            tile(element, n, c, true, a, &(struct lane_rows){.b = {b}, .ahead = {AHEAD}, .n = {x->n_cols}, .stride = PANEL_ROWS});
        }
    }
}

static void matmul_f32(const void *panels, size_t n_panels, const struct act *x, float *y, size_t y_stride)
{
    matmul_float(ELEMENT_F32, 4, panels, n_panels, x, y, y_stride);
}

static void matmul_f16(const void *panels, size_t n_panels, const struct act *x, float *y, size_t y_stride)
{
    matmul_float(ELEMENT_F16, 2, panels, n_panels, x, y, y_stride);
}

static void matmul_bf16(const void *panels, size_t n_panels, const struct act *x, float *y, size_t y_stride)
{
    matmul_float(ELEMENT_BF16, 2, panels, n_panels, x, y, y_stride);
}

/* ---- attention, with the online softmax of Milakov and Gimelshein (2018) in steps of STEP positions ----
 *
 * For each row and each step of 64 positions: s = fma over the dimensions in order, times scale; m' = max(m, s); p = exp(s - m');
 * where the maximum grew, l and o are multiplied by exp(m - m'); l += p, in 16 lanes (position modulo 16) that are added up at
 * the end; o = fma over the positions in order. At the end o / l.
 *
 * Rows go in groups of up to V16_ROWS. With many of them a panel of keys, and 16 dimensions of the values, are widened into the
 * first-level cache, and all groups go past them before the next. With few, as in a decode step, this runs as fast as memory
 * delivers: halves are widened where they are used, and the next step's are asked for meanwhile. */

enum { STEP = 2 * KV_BLOCK };

/* What is known of the rows of a tile after some steps, and the step in work. */
struct attention_rows {
    float *m;       /* [n_rows] the greatest score */
    float *l;       /* [n_rows][16] the sum of exp(score - m) */
    float *o;       /* [n_rows][head_dim] the same sum of values, weighted */
    float *weights; /* [n_rows][STEP] scores, then exp(score - m), of the step in work */
    float *wide;    /* [head_dim > STEP ? head_dim : STEP][16]: what has been widened */
    void *rest;     /* of the scratch, on a 64-byte line: for a level that has an attention of its own */
};

/* Shares the scratch out, as attention_scratch counted it, for rows in whole sixteens: those that do not exist have outputs too,
 * zeros. No row has seen anything. */
INLINE struct attention_rows attention_begin(const struct attention_tile *t)
{
    const int n_rows = (t->n_rows + 15) / 16 * 16;
    struct attention_rows r = {.wide = t->scratch};
    r.weights = r.wide + 16 * (t->head_dim > STEP ? t->head_dim : STEP);
    r.o = r.weights + n_rows * STEP;
    r.l = r.o + n_rows * t->head_dim;
    r.m = r.l + n_rows * 16;
    r.rest = r.m + n_rows;
    for (int i = 0; i < n_rows; i++)
        r.m[i] = -INFINITY;
    memset(r.l, 0, sizeof(float) * (size_t)n_rows * 16);
    memset(r.o, 0, sizeof(float) * (size_t)n_rows * (size_t)t->head_dim);
    return r;
}

/* Positions of the step that begins at `start` which some of the rows of a group may see. */
INLINE int attention_seen(const struct attention_tile *t, int first, int n, int start)
{
    int furthest = 0;
    for (int i = first; i < first + n; i++)
        furthest = t->limit[i] > furthest ? t->limit[i] : furthest;
    int seen = furthest - start;
    return seen < 0 ? 0 : seen > STEP ? STEP : seen;
}

/* Rows of the group that begins with row `first`. What is left is shared out evenly: 7 rows are 4 and 3 rather than 6 and 1,
 * which would cost more. */
INLINE int rows_of_group(const struct attention_tile *t, int first)
{
    int left = t->n_rows - first, groups = (left + V16_ROWS - 1) / V16_ROWS;
    return (left + groups - 1) / groups;
}

/* The block `i` blocks after the one that holds `start`; the last one where there is none. */
INLINE int attention_block(const struct attention_tile *t, int start, int i)
{
    int block = start / KV_BLOCK + i, last = (t->n_keys - 1) / KV_BLOCK;
    return block < last ? block : last;
}

INLINE ptrdiff_t bytes_between(const uint16_t *from, const uint16_t *to)
{
    return (const char *)to - (const char *)from;
}

/* Turns a row's scores of the step into weights, and brings m, l and o up to date. */
INLINE void attention_weights(const struct attention_tile *t, const struct attention_rows *r, int i, int start)
{
    float *w = r->weights + i * STEP, *l = r->l + i * 16, *o = r->o + i * t->head_dim;
    if (t->limit[i] <= start) { /* others that are computed with it may see the step */
        memset(w, 0, STEP * sizeof(float));
        return;
    }
    for (int j = t->limit[i] - start; j < STEP; j++)
        w[j] = -INFINITY;
    v16 s[STEP / 16], top = v16_set1(-INFINITY);
#pragma GCC unroll 4
    for (int j = 0; j < STEP / 16; j++) {
        s[j] = v16_mul(v16_load(w + j * 16), v16_set1(t->scale));
        top = v16_above(s[j], top);
    }
    if (v16_any_above(top, v16_set1(r->m[i]))) { /* seldom after the first steps */
        float max = v16_max(top), factor[16];
        v16_store(factor, v16_exp_negative(v16_set1(r->m[i] - max)));
        v16 f = v16_set1(factor[0]);
        v16_store(l, v16_mul(v16_load(l), f));
        for (int d = 0; d < t->head_dim; d += 16)
            v16_store(o + d, v16_mul(v16_load(o + d), f));
        r->m[i] = max;
    }
    v16 m = v16_set1(r->m[i]), sum = v16_load(l);
#pragma GCC unroll 4
    for (int j = 0; j < STEP / 16; j++) {
        v16 p = v16_exp_negative(v16_sub(s[j], m));
        v16_store(w + j * 16, p);
        sum = v16_add(sum, p);
    }
    v16_store(l, sum);
}

/* Writes the outputs. */
INLINE void attention_end(const struct attention_tile *t, const struct attention_rows *r)
{
    for (int i = 0; i < t->n_rows; i++) {
        v16 l = v16_set1(v16_sum(v16_load(r->l + i * 16)));
        for (int d = 0; d < t->head_dim; d += 16)
            v16_store(t->out[i] + d, v16_div(v16_load(r->o + i * t->head_dim + d), l));
    }
}

#ifndef ATTENTION /* else the name of the level's own, which has the functions above in common with this one */
#define ATTENTION attention
#define ATTENTION_TOKENS 8 /* times the heads that share a KV head, queries that fit into the first-level cache */

/* Scores of one panel of 16 keys of the step, for all rows that see any of it. */
INLINE void attention_scores(bool widen, const struct attention_tile *t, const struct attention_rows *r, int start, int panel)
{
    const int block = attention_block(t, start, panel / 2), offset = panel % 2 * KV_PANEL * t->head_dim;
    const uint16_t *keys = t->k[block] + offset;
    struct lane_rows b = {.b = {keys}, .n = {t->head_dim}, .stride = KV_PANEL,
                          .ahead = {bytes_between(t->k[block], t->k[attention_block(t, start, panel / 2 + STEP / KV_BLOCK)])}};
    if (widen) {
        for (int d = 0; d < t->head_dim; d++)
            v16_store(r->wide + d * KV_PANEL, v16_load_f16(keys + d * KV_PANEL));
        b.b[0] = r->wide;
    }
    for (int first = 0, n; first < t->n_rows; first += n) {
        n = rows_of_group(t, first);
        if (attention_seen(t, first, n, start) <= panel * KV_PANEL)
            continue;
        float *c[V16_ROWS];
        for (int i = 0; i < n; i++)
            c[i] = r->weights + (first + i) * STEP + panel * KV_PANEL;
        tile(widen ? ELEMENT_F32 : ELEMENT_F16, n, c, true, t->q + first, &b);
    }
}

/* Adds 16 dimensions of the step's weighted values, from `dim` on, to the outputs of all rows. */
INLINE void attention_values(bool widen, const struct attention_tile *t, const struct attention_rows *r, int start, int dim)
{
    const uint16_t *v[2];
    struct lane_rows b = {.stride = widen ? 16 : (size_t)t->head_dim};
    for (int i = 0; i < 2; i++) {
        const int block = attention_block(t, start, i);
        b.b[i] = v[i] = t->v[block] + dim;
        b.ahead[i] = bytes_between(t->v[block], t->v[attention_block(t, start, i + STEP / KV_BLOCK)]);
    }
    if (widen) {
        const int n = t->n_keys - start < STEP ? t->n_keys - start : STEP;
        for (int j = 0; j < n; j++)
            v16_store(r->wide + j * 16, v16_load_f16(v[j / KV_BLOCK] + j % KV_BLOCK * t->head_dim));
        b.b[0] = r->wide;
        b.b[1] = r->wide + KV_BLOCK * 16;
    }
    for (int first = 0, n; first < t->n_rows; first += n) {
        n = rows_of_group(t, first);
        int seen = attention_seen(t, first, n, start);
        if (!seen)
            continue;
        const float *a[V16_ROWS];
        float *c[V16_ROWS];
        for (int i = 0; i < n; i++) {
            a[i] = r->weights + (first + i) * STEP;
            c[i] = r->o + (first + i) * t->head_dim + dim;
        }
        b.n[0] = seen < KV_BLOCK ? seen : KV_BLOCK;
        b.n[1] = seen - b.n[0];
        tile(widen ? ELEMENT_F32 : ELEMENT_F16, n, c, false, a, &b);
    }
}

INLINE void attention_step(bool widen, const struct attention_tile *t, const struct attention_rows *r, int start)
{
    for (int panel = 0; panel < STEP / KV_PANEL && start + panel * KV_PANEL < t->n_keys; panel++)
        attention_scores(widen, t, r, start, panel);
    for (int i = 0; i < t->n_rows; i++)
        attention_weights(t, r, i, start);
    for (int dim = 0; dim < t->head_dim; dim += 16)
        attention_values(widen, t, r, start, dim);
}

static void attention(const struct attention_tile *t)
{
    const struct attention_rows r = attention_begin(t);
    for (int start = 0; start < t->n_keys; start += STEP)
        if (t->n_rows > 2 * V16_ROWS)
            attention_step(true, t, &r, start);
        else
            attention_step(false, t, &r, start);
    attention_end(t, &r);
}

#endif

/* ---- what every level's file ends with ---- */

/* each(name, type) for the quantised types; the names are those that their kernels bear. */
#define QUANTISED_TYPES(each)                                                                                           \
    each(q4_k, GGUF_TYPE_Q4_K) each(q5_k, GGUF_TYPE_Q5_K) each(q6_k, GGUF_TYPE_Q6_K)                                    \
        each(q4_0, GGUF_TYPE_Q4_0) each(q5_0, GGUF_TYPE_Q5_0) each(q8_0, GGUF_TYPE_Q8_0)

/* matmul_NAME, where the level has a matmul() that takes the type, a constant, before everything else. */
#define MATMUL_OF_TYPE(name, type)                                                                                      \
    static void matmul_##name(const void *panels, size_t n_panels, const struct act *x, float *y, size_t y_stride)      \
    {                                                                                                                   \
        matmul(type, panels, n_panels, x, y, y_stride);                                                                 \
    }

/* All of a level's table but its name: what is above, and the level's own read_all and matmul_NAME. */
#define MATMUL_ENTRY(name, type) [type] = matmul_##name,
#define LANES_KERNELS                                                                                                            \
    .quantize = quantize, .rms_norm = rms_norm, .rope = rope, .swiglu = swiglu, .add = add, .softmax = softmax,                  \
    .attention = ATTENTION, .attention_tokens = ATTENTION_TOKENS, .to_f16 = to_f16, .read_all = read_all, .matmul = {            \
        [GGUF_TYPE_F32] = matmul_f32, [GGUF_TYPE_F16] = matmul_f16, [GGUF_TYPE_BF16] = matmul_bf16, QUANTISED_TYPES(MATMUL_ENTRY)}
