/* AVX-512 F, BW, VL with VNNI: Intel servers since 2019, AMD since 2022.
 *
 * A 512-bit register holds a whole line of a panel: a word of 4 columns for 16 rows. VPDPBUSD multiplies the unsigned quants with
 * a word of activations broadcast from memory and adds the four products to a 32-bit sum, exactly. Integer scales are applied in
 * float, where the product is still exact (see scalar.c). */
#include "kernels/ahead.h"
#include "kernels/levels.h"
#include "kernels/panel.h"
#include "kernels/x86/lanes512.h"

#include "kernels/lanes.h"

#include "kernels/x86/groups512.h"

#ifdef QUERN_MODEL /* see amx.c */
#define TABLE kernels_avx512_model
#define LEVEL "avx512(model)"
extern const struct kernels TABLE;
#else
#define TABLE kernels_avx512
#define LEVEL "avx512"
#endif

INLINE __m512i word(const int8_t *p)
{
    int32_t w;
    memcpy(&w, p, sizeof w);
    return _mm512_set1_epi32(w);
}

enum {
    RUN = 64,        /* tokens whose sums stay in the first-level cache */
    INTERLEAVED = 4  /* tokens that go side by side */
};

/* ---- multiply a group with n consecutive tokens, from index `at` of the scales on; adds the group's share to acc ----
 *
 * Tokens go side by side through every line: one token alone is a chain of dependent instructions longer than the CPU's window
 * can hide. */

/* sum[t] += lines first .. last - 1 times the activations of token t */
INLINE void dot(const struct group *g, int first, int last, const int8_t *a, int n, __m512i sum[])
{
#pragma GCC unroll 8
    for (int j = first; j < last; j++)
#pragma GCC unroll 8
        for (int t = 0; t < n; t++)
            sum[t] = _mm512_dpbusd_epi32(sum[t], g->q[j], word(a + t * ACT_GROUP + j * 4));
}

INLINE void tokens_k(const struct group *g, const struct act *x, size_t at, int n, __m512 acc[])
{
    __m512i sum[INTERLEAVED];
#pragma GCC unroll 8
    for (int t = 0; t < n; t++)
        sum[t] = _mm512_setzero_si512();
    dot(g, 0, 8, x->q + at * ACT_GROUP, n, sum);
#pragma GCC unroll 8
    for (int t = 0; t < n; t++) {
        acc[t] =
            _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum[t]), g->scale0), _mm512_set1_ps(x->d[at + (size_t)t]), acc[t]);
        acc[t] = _mm512_fnmadd_ps(g->min, _mm512_set1_ps(x->sum[at + (size_t)t]), acc[t]);
    }
}
#define tokens_q4_k tokens_k
#define tokens_q5_k tokens_k

INLINE void tokens_q6_k(const struct group *g, const struct act *x, size_t at, int n, __m512 acc[])
{
    const int8_t *a = x->q + at * ACT_GROUP;
    __m512i sum0[INTERLEAVED], sum1[INTERLEAVED];
#pragma GCC unroll 8
    for (int t = 0; t < n; t++) {
        sum0[t] = _mm512_set1_epi32(-32 * x->half[(at + (size_t)t) * 2]);
        sum1[t] = _mm512_set1_epi32(-32 * x->half[(at + (size_t)t) * 2 + 1]);
    }
    dot(g, 0, 4, a, n, sum0);
    dot(g, 4, 8, a, n, sum1);
#pragma GCC unroll 8
    for (int t = 0; t < n; t++) {
        __m512 sum = _mm512_mul_ps(_mm512_cvtepi32_ps(sum0[t]), g->scale0);
        sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum1[t]), g->scale1, sum);
        acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(sum, g->d), _mm512_set1_ps(x->d[at + (size_t)t]), acc[t]);
    }
}

INLINE void tokens_0(const struct group *g, int offset, const struct act *x, size_t at, int n, __m512 acc[])
{
    __m512i sum[INTERLEAVED];
#pragma GCC unroll 8
    for (int t = 0; t < n; t++) {
        const int16_t *half = x->half + (at + (size_t)t) * 2;
        sum[t] = _mm512_set1_epi32(-offset * (half[0] + half[1]));
    }
    dot(g, 0, 8, x->q + at * ACT_GROUP, n, sum);
#pragma GCC unroll 8
    for (int t = 0; t < n; t++)
        acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum[t]), g->d), _mm512_set1_ps(x->d[at + (size_t)t]), acc[t]);
}

INLINE void tokens_q4_0(const struct group *g, const struct act *x, size_t at, int n, __m512 acc[])
{
    tokens_0(g, 8, x, at, n, acc);
}

INLINE void tokens_q5_0(const struct group *g, const struct act *x, size_t at, int n, __m512 acc[])
{
    tokens_0(g, 16, x, at, n, acc);
}

INLINE void tokens_q8_0(const struct group *g, const struct act *x, size_t at, int n, __m512 acc[])
{
    tokens_0(g, 128, x, at, n, acc);
}

/* ---- the loops: few tokens with their sums in registers, or a run of tokens with a group held in registers ---- */

#define FEW_TOKENS(name, count)                                                                                         \
    {                                                                                                                   \
        __m512 acc[count];                                                                                              \
        _Pragma("GCC unroll 4") for (size_t t = 0; t < count; t++) acc[t] = _mm512_setzero_ps();                        \
        for (size_t i = 0; i < n_groups; i++) {                                                                         \
            ask_for(panel + AHEAD + i * group_bytes, group_bytes, end);                                                 \
            struct group g;                                                                                             \
            load_##name(&g, panel, n_groups, i);                                                                        \
            tokens_##name(&g, x, i * count, count, acc);                                                                \
        }                                                                                                               \
        _Pragma("GCC unroll 4") for (size_t t = 0; t < count; t++) _mm512_storeu_ps(y + t * y_stride, acc[t]);          \
    }

/* n tokens of a run; acc is in memory. */
#define RUN_TOKENS(name, n)                                                                                             \
    {                                                                                                                   \
        __m512 sums[n];                                                                                                 \
        _Pragma("GCC unroll 8") for (size_t k = 0; k < n; k++) sums[k] = _mm512_load_ps(acc[t + k]);                    \
        tokens_##name(&g, x, i * n_tokens + first + t, n, sums);                                                        \
        _Pragma("GCC unroll 8") for (size_t k = 0; k < n; k++) _mm512_store_ps(acc[t + k], sums[k]);                    \
    }

#define MATMUL(name, type)                                                                                              \
    static void matmul_##name(const void *panels, size_t n_panels, const struct act *x, float *y, size_t y_stride)      \
    {                                                                                                                   \
        const size_t n_groups = (size_t)x->n_cols / ACT_GROUP, n_tokens = (size_t)x->n_tokens;                          \
        const size_t panel_size = panel_bytes(type, (size_t)x->n_cols), group_bytes = panel_group_bytes(type);          \
        const char *end = (const char *)panels + n_panels * panel_size;                                                 \
        ask_for(panels, AHEAD, end);                                                                                    \
        for (size_t p = 0; p < n_panels; p++, y += PANEL_ROWS) {                                                        \
            const char *panel = (const char *)panels + p * panel_size;                                                  \
            switch (n_tokens) {                                                                                         \
            case 1:                                                                                                     \
                FEW_TOKENS(name, 1)                                                                                     \
                continue;                                                                                               \
            case 2:                                                                                                     \
                FEW_TOKENS(name, 2)                                                                                     \
                continue;                                                                                               \
            case 4:                                                                                                     \
                FEW_TOKENS(name, 4)                                                                                     \
                continue;                                                                                               \
            default:                                                                                                    \
                break;                                                                                                  \
            }                                                                                                           \
            for (size_t first = 0; first < n_tokens; first += RUN) {                                                    \
                size_t n = n_tokens - first < RUN ? n_tokens - first : RUN;                                             \
                _Alignas(64) float acc[RUN][PANEL_ROWS];                                                                \
                memset(acc, 0, n * sizeof acc[0]);                                                                      \
                for (size_t i = 0; i < n_groups; i++) {                                                                 \
                    ask_for(panel + AHEAD + i * group_bytes, group_bytes, end);                                         \
                    struct group g;                                                                                     \
                    load_##name(&g, panel, n_groups, i);                                                                \
                    size_t t = 0;                                                                                       \
                    for (; t + INTERLEAVED <= n; t += INTERLEAVED)                                                      \
                        RUN_TOKENS(name, INTERLEAVED)                                                                   \
                    for (; t < n; t++)                                                                                  \
                        RUN_TOKENS(name, 1)                                                                             \
                }                                                                                                       \
                for (size_t t = 0; t < n; t++)                                                                          \
                    memcpy(y + (first + t) * y_stride, acc[t], sizeof acc[t]);                                          \
            }                                                                                                           \
        }                                                                                                               \
    }

QUANTISED_TYPES(MATMUL)

const struct kernels TABLE = {.level = LEVEL, .cheap_rows = 8, LANES_KERNELS};
