/* The specification: every kernel in plain C. Slow, exact, and what all other levels are held to, bit by bit. */
#include "kernels/levels.h"
#include "kernels/panel.h"

#include <math.h>
#include <string.h>

/* ---- 16 lanes as loops ---- */

typedef struct {
    float f[16];
} v16;

enum { V16_ROWS = 4 };

#define EACH for (int i_ = 0; i_ < 16; i_++)

static v16 v16_load(const float *p)
{
    v16 v;
    memcpy(v.f, p, sizeof v.f);
    return v;
}
static void v16_store(float *p, v16 v)
{
    memcpy(p, v.f, sizeof v.f);
}
static v16 v16_load_f16(const uint16_t *p)
{
    v16 v;
    EACH v.f[i_] = f16_to_f32(p[i_]);
    return v;
}
static v16 v16_load_bf16(const uint16_t *p)
{
    v16 v;
    EACH
    {
        uint32_t bits = (uint32_t)p[i_] << 16;
        memcpy(&v.f[i_], &bits, sizeof bits);
    }
    return v;
}
static void v16_store_f16(uint16_t *p, v16 v)
{
    EACH p[i_] = f32_to_f16(v.f[i_]);
}
static void v16_store_i8(int8_t *p, v16 v, int16_t pair[2])
{
    pair[0] = pair[1] = 0;
    EACH
    {
        p[i_] = (int8_t)v.f[i_];
        pair[i_ / 2 % 2] = (int16_t)(pair[i_ / 2 % 2] + p[i_]);
    }
}
static v16 v16_set1(float x)
{
    v16 v;
    EACH v.f[i_] = x;
    return v;
}
static v16 v16_spread(const float *p)
{
    v16 v;
    EACH v.f[i_] = p[i_ / 4];
    return v;
}
static v16 v16_add(v16 a, v16 b)
{
    EACH a.f[i_] += b.f[i_];
    return a;
}
static v16 v16_sub(v16 a, v16 b)
{
    EACH a.f[i_] -= b.f[i_];
    return a;
}
static v16 v16_mul(v16 a, v16 b)
{
    EACH a.f[i_] *= b.f[i_];
    return a;
}
static v16 v16_div(v16 a, v16 b)
{
    EACH a.f[i_] /= b.f[i_];
    return a;
}
static v16 v16_fma(v16 a, v16 b, v16 c)
{
    EACH c.f[i_] = fmaf(a.f[i_], b.f[i_], c.f[i_]);
    return c;
}
static v16 v16_fnma(v16 a, v16 b, v16 c)
{
    EACH c.f[i_] = fmaf(-a.f[i_], b.f[i_], c.f[i_]);
    return c;
}
static v16 v16_above(v16 a, v16 b)
{
    EACH b.f[i_] = a.f[i_] > b.f[i_] ? a.f[i_] : b.f[i_];
    return b;
}
static v16 v16_below(v16 a, v16 b)
{
    EACH b.f[i_] = a.f[i_] < b.f[i_] ? a.f[i_] : b.f[i_];
    return b;
}
static v16 v16_abs(v16 a)
{
    EACH a.f[i_] = fabsf(a.f[i_]);
    return a;
}
static v16 v16_round(v16 a)
{
    EACH a.f[i_] = rintf(a.f[i_]);
    return a;
}
static v16 v16_ldexp(v16 v, v16 n)
{
    EACH v.f[i_] = ldexpf(v.f[i_], (int)n.f[i_]);
    return v;
}
static v16 v16_keep(v16 x, v16 limit, v16 v)
{
    EACH v.f[i_] = x.f[i_] >= limit.f[i_] ? v.f[i_] : 0.0f;
    return v;
}
static bool v16_any_above(v16 a, v16 b)
{
    bool any = false;
    EACH any = any || a.f[i_] > b.f[i_];
    return any;
}
static float v16_sum(v16 v)
{
    for (int width = 8; width >= 1; width /= 2)
        for (int i = 0; i < width; i++)
            v.f[i] += v.f[i + width];
    return v.f[0];
}
static float v16_max(v16 v)
{
    float max = v.f[0];
    EACH max = v.f[i_] > max ? v.f[i_] : max;
    return max;
}

#include "kernels/lanes.h"

/* ---- matmul over quantised weights ----
 *
 * For a row r and a token t, over the groups g of 32 columns in order, with q the integer quants, a the quantised activations:
 *
 *   Q4_K, Q5_K  acc = fma(round(d * (scale * sum(q a))), x.d, acc); acc = fma(-(dmin * min), x.sum, acc)
 *   Q6_K        acc = fma(round(d * (scale0 * sum0((q - 32) a) + scale1 * sum1((q - 32) a))), x.d, acc)
 *   Q4_0 ...    acc = fma(round(d * sum((q - 8) a)), x.d, acc)
 *
 * The sums and their products with the integer scales are exact (below 2^24 in magnitude, so also exact as floats), as are dmin *
 * min and d * scale; "round" is the one rounding of the product with d to float, fma rounds once. */

/* Unpacked quants of one group: [row][column]. */
typedef uint8_t group_quants[PANEL_ROWS][ACT_GROUP];

static void unpack_nibbles(const uint8_t q[4][LINE], group_quants out)
{
    for (int r = 0; r < PANEL_ROWS; r++)
        for (int c = 0; c < ACT_GROUP; c++) {
            uint8_t byte = q[c / 4 % 4][r * 4 + c % 4];
            out[r][c] = c < 16 ? byte & 15 : byte >> 4;
        }
}

static void unpack_fifth_bits(const uint8_t h[LINE], group_quants out)
{
    for (int r = 0; r < PANEL_ROWS; r++)
        for (int c = 0; c < ACT_GROUP; c++)
            out[r][c] |= (uint8_t)((h[r * 4 + c % 4] >> c / 4 & 1) << 4);
}

static void unpack_q6(const struct group_q6 *g, group_quants out)
{
    unpack_nibbles(g->q, out);
    for (int r = 0; r < PANEL_ROWS; r++)
        for (int c = 0; c < ACT_GROUP; c++)
            out[r][c] |= (uint8_t)((g->h[c / 16][r * 4 + c % 4] >> c / 4 % 4 * 2 & 3) << 4);
}

/* sum over columns [from, to) of q * a */
static int dot(const uint8_t *q, const int8_t *a, int from, int to)
{
    int sum = 0;
    for (int c = from; c < to; c++)
        sum += q[c] * a[c];
    return sum;
}

/* Adds one group's share to y, for 16 rows and all tokens. */
typedef void group_fn(const void *panel, size_t n_groups, size_t g, const struct act *x, float *y, size_t y_stride);

static void matmul_groups(
    group_fn *add_group, enum gguf_type type, const void *panels, size_t n_panels, const struct act *x, float *y, size_t y_stride)
{
    size_t n_groups = (size_t)x->n_cols / ACT_GROUP;
    for (size_t p = 0; p < n_panels; p++, y += PANEL_ROWS) {
        const void *panel = (const char *)panels + p * panel_bytes(type, (size_t)x->n_cols);
        for (int t = 0; t < x->n_tokens; t++)
            memset(y + (size_t)t * y_stride, 0, sizeof(float) * PANEL_ROWS);
        for (size_t g = 0; g < n_groups; g++)
            add_group(panel, n_groups, g, x, y, y_stride);
    }
}

/* Q4_K and Q5_K once unpacked. */
static void add_k(group_quants q, const uint16_t d[16], const uint16_t dmin[16], const uint8_t scale[16], const uint8_t min[16],
                  bool min_high, size_t g, const struct act *x, float *y, size_t y_stride)
{
    for (int t = 0; t < x->n_tokens; t++) {
        size_t at = g * (size_t)x->n_tokens + (size_t)t;
        for (int r = 0; r < PANEL_ROWS; r++) {
            float *acc = &y[(size_t)t * y_stride + (size_t)r];
            int sc = scale[r] & 63, m = (min_high ? min[r] >> 4 : min[r] & 15) | scale[r] >> 6 << 4;
            float product = (float)(sc * dot(q[r], x->q + at * ACT_GROUP, 0, 32)) * f16_to_f32(d[r]);
            *acc = fmaf(product, x->d[at], *acc);
            *acc = fmaf(-(f16_to_f32(dmin[r]) * (float)m), x->sum[at], *acc);
        }
    }
}

static void add_q4_k(const void *panel, size_t n_groups, size_t g, const struct act *x, float *y, size_t y_stride)
{
    (void)n_groups;
    const struct panel_q4_k *b = (const struct panel_q4_k *)panel + g / 8;
    size_t i = g % 8;
    group_quants q;
    unpack_nibbles(b->q[i], q);
    add_k(q, b->d, b->dmin, b->scale[i], b->min[i % 4], i >= 4, g, x, y, y_stride);
}

static void add_q5_k(const void *panel, size_t n_groups, size_t g, const struct act *x, float *y, size_t y_stride)
{
    (void)n_groups;
    const struct panel_q5_k *b = (const struct panel_q5_k *)panel + g / 8;
    size_t i = g % 8;
    group_quants q;
    unpack_nibbles(b->q[i], q);
    unpack_fifth_bits(b->h[i], q);
    add_k(q, b->d, b->dmin, b->scale[i], b->min[i % 4], i >= 4, g, x, y, y_stride);
}

static void add_q6_k(const void *panel, size_t n_groups, size_t g, const struct act *x, float *y, size_t y_stride)
{
    group_quants q;
    unpack_q6(panel_q6_groups(panel, n_groups) + g, q);
    const int8_t *scale = panel_q6_scales(panel) + g * 32;
    const uint16_t *d = panel_q6_d(panel, n_groups) + g / 8 * 16;
    for (int t = 0; t < x->n_tokens; t++) {
        size_t at = g * (size_t)x->n_tokens + (size_t)t;
        const int8_t *a = x->q + at * ACT_GROUP;
        for (int r = 0; r < PANEL_ROWS; r++) {
            float *acc = &y[(size_t)t * y_stride + (size_t)r];
            int sum = scale[r] * (dot(q[r], a, 0, 16) - 32 * x->half[at * 2]) +
                      scale[16 + r] * (dot(q[r], a, 16, 32) - 32 * x->half[at * 2 + 1]);
            *acc = fmaf((float)sum * f16_to_f32(d[r]), x->d[at], *acc);
        }
    }
}

/* Q4_0 and Q5_0 once unpacked: weight = d * (q - offset). */
static void add_0(group_quants q, int offset, const uint16_t d[16], size_t g, const struct act *x, float *y, size_t y_stride)
{
    for (int t = 0; t < x->n_tokens; t++) {
        size_t at = g * (size_t)x->n_tokens + (size_t)t;
        for (int r = 0; r < PANEL_ROWS; r++) {
            float *acc = &y[(size_t)t * y_stride + (size_t)r];
            int sum = dot(q[r], x->q + at * ACT_GROUP, 0, 32) - offset * (x->half[at * 2] + x->half[at * 2 + 1]);
            *acc = fmaf((float)sum * f16_to_f32(d[r]), x->d[at], *acc);
        }
    }
}

static void add_q4_0(const void *panel, size_t n_groups, size_t g, const struct act *x, float *y, size_t y_stride)
{
    group_quants q;
    unpack_nibbles(((const struct group_q4_0 *)panel_0_groups(panel, n_groups))[g].q, q);
    add_0(q, 8, panel_0_d(panel) + g * 16, g, x, y, y_stride);
}

static void add_q5_0(const void *panel, size_t n_groups, size_t g, const struct act *x, float *y, size_t y_stride)
{
    group_quants q;
    const struct group_q5_0 *b = (const struct group_q5_0 *)panel_0_groups(panel, n_groups) + g;
    unpack_nibbles(b->q, q);
    unpack_fifth_bits(b->h, q);
    add_0(q, 16, panel_0_d(panel) + g * 16, g, x, y, y_stride);
}

static void add_q8_0(const void *panel, size_t n_groups, size_t g, const struct act *x, float *y, size_t y_stride)
{
    const struct group_q8_0 *b = (const struct group_q8_0 *)panel_0_groups(panel, n_groups) + g;
    const uint16_t *d = panel_0_d(panel) + g * 16;
    for (int t = 0; t < x->n_tokens; t++) {
        size_t at = g * (size_t)x->n_tokens + (size_t)t;
        for (int r = 0; r < PANEL_ROWS; r++) {
            float *acc = &y[(size_t)t * y_stride + (size_t)r];
            int sum = 0;
            for (int c = 0; c < ACT_GROUP; c++)
                sum += b->q[c / 4][r * 4 + c % 4] * x->q[at * ACT_GROUP + (size_t)c];
            *acc = fmaf((float)sum * f16_to_f32(d[r]), x->d[at], *acc);
        }
    }
}

#define MATMUL(name, type)                                                                                              \
    static void matmul_##name(const void *panels, size_t n_panels, const struct act *x, float *y, size_t y_stride)      \
    {                                                                                                                   \
        matmul_groups(add_##name, type, panels, n_panels, x, y, y_stride);                                              \
    }
QUANTISED_TYPES(MATMUL)

static uint64_t read_all(const void *p, size_t n)
{
    const uint64_t *words = p;
    uint64_t x0 = 0, x1 = 0, x2 = 0, x3 = 0;
    for (size_t i = 0; i < n / 8; i += 4) {
        x0 ^= words[i];
        x1 ^= words[i + 1];
        x2 ^= words[i + 2];
        x3 ^= words[i + 3];
    }
    return x0 ^ x1 ^ x2 ^ x3;
}

const struct kernels kernels_scalar = {.level = "scalar", .cheap_rows = 1, LANES_KERNELS};
