/* AVX2 with FMA and F16C: every x86 server since 2013 (Intel) or 2015 (AMD).
 *
 * Quantised matmul: a 256-bit register holds one word of 4 columns for 8 rows, half a line of a panel. VPMADDUBSW multiplies the unsigned quants with a word of
 * activations that is broadcast to all lanes and adds pairs into 16 bits; how many of those can be added up before 16 bits overflow depends on
 * the quants: 8 of 4 bits (8 * 2 * 15 * 127 = 30480), 4 of 5 bits (31496), 2 of 6 bits (32004), 1 of 8 bits (32512). VPMADDWD then widens
 * to 32 bits and multiplies with the integer scale of the row in the same instruction. */
#include "kernels/ahead.h"
#include "kernels/levels.h"
#include "kernels/panel.h"
#include "kernels/x86/lanes256.h"

#include "kernels/lanes.h"

#include "kernels/x86/groups256.h"

/* 8 scales in 32 bits each, twice in the 16-bit halves of their lanes, as VPMADDWD wants them. */
INLINE __m256i twice(__m256i scale)
{
    return _mm256_blend_epi16(scale, _mm256_slli_epi32(scale, 16), 0xAA);
}

/* A group of 32 columns for 8 rows, ready to multiply. What of it is used depends on the type. */
struct group {
    __m256i q[8];         /* line j, 8 rows: quants as unsigned bytes (Q8_0: magnitudes) */
    __m256i scale0;       /* [row] the integer scale, twice */
    __m256i scale1;       /* Q6_K: of columns 16..31 */
    __m256i scale_pair;   /* Q6_K: scale0 and scale1 side by side */
    __m256 d, min;        /* [row]; min is dmin * min */
    const int8_t *signed_q; /* Q8_0: where the quants with their signs are */
};

/* Group i of a panel of n_groups groups, half 0 or 1 of the rows. */
INLINE void load_group(enum gguf_type type, struct group *g, const void *panel, size_t n_groups, size_t i, int half)
{
    load_quants(type, g->q, panel, n_groups, i, half);
    struct scales s;
    load_scales(type, &s, panel, n_groups, i, half);
    g->d = s.d;
    if (type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q5_K) {
        g->scale0 = twice(s.scale0);
        g->min = s.min;
    } else if (type == GGUF_TYPE_Q6_K) {
        g->scale0 = twice(s.scale0);
        g->scale1 = twice(s.scale1);
        g->scale_pair = _mm256_blend_epi16(s.scale0, _mm256_slli_epi32(s.scale1, 16), 0xAA);
    } else if (type == GGUF_TYPE_Q8_0) {
        g->signed_q = ((const struct group_q8_0 *)panel_0_groups(panel, n_groups))[i].q[0] + half * HALF;
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            g->q[j] = _mm256_abs_epi8(g->q[j]);
    }
}

/* ---- multiply a group with one token: a the 32 activations, at their index among the scales; returns acc and the group's share ---- */

INLINE __m256i madd(const struct group *g, int j, const int8_t *a)
{
    return _mm256_maddubs_epi16(g->q[j], word(a + j * 4));
}

/* Lines j .. j + 1 of 16-bit pair sums. */
INLINE __m256i madd2(const struct group *g, int j, const int8_t *a)
{
    return _mm256_add_epi16(madd(g, j, a), madd(g, j + 1, a));
}

/* Four lines, one after the other. The fence keeps the compiler from fetching all activations ahead of their use, for which it would put what is
 * constant in the loop over the tokens out to memory. */
INLINE __m256i madd4(const struct group *g, int j, const int8_t *a)
{
    __m256i sum = madd2(g, j, a);
    __asm__("" : "+x"(sum));
    sum = _mm256_add_epi16(sum, madd(g, j + 2, a));
    __asm__("" : "+x"(sum));
    return _mm256_add_epi16(sum, madd(g, j + 3, a));
}

/* acc + round(d * sum) * x.d */
INLINE __m256 scaled(const struct group *g, __m256i sum, const struct act *x, size_t at, __m256 acc)
{
    return _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), g->d), _mm256_broadcast_ss(x->d + at), acc);
}

INLINE __m256 token_q4_k(const struct group *g, const struct act *x, size_t at, __m256 acc)
{
    const int8_t *a = x->q + at * ACT_GROUP;
    __m256i sum = _mm256_madd_epi16(_mm256_add_epi16(madd4(g, 0, a), madd4(g, 4, a)), g->scale0);
    acc = scaled(g, sum, x, at, acc);
    return _mm256_fnmadd_ps(g->min, _mm256_broadcast_ss(x->sum + at), acc);
}

INLINE __m256 token_q5_k(const struct group *g, const struct act *x, size_t at, __m256 acc)
{
    const int8_t *a = x->q + at * ACT_GROUP;
    __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(madd4(g, 0, a), g->scale0), _mm256_madd_epi16(madd4(g, 4, a), g->scale0));
    acc = scaled(g, sum, x, at, acc);
    return _mm256_fnmadd_ps(g->min, _mm256_broadcast_ss(x->sum + at), acc);
}

INLINE __m256 token_q6_k(const struct group *g, const struct act *x, size_t at, __m256 acc)
{
    const int8_t *a = x->q + at * ACT_GROUP;
    __m256i s0 = _mm256_add_epi32(_mm256_madd_epi16(madd2(g, 0, a), g->scale0), _mm256_madd_epi16(madd2(g, 2, a), g->scale0));
    __m256i s1 = _mm256_add_epi32(_mm256_madd_epi16(madd2(g, 4, a), g->scale1), _mm256_madd_epi16(madd2(g, 6, a), g->scale1));
    __m256i offset = _mm256_slli_epi32(_mm256_madd_epi16(g->scale_pair, word(x->half + at * 2)), 5);
    return scaled(g, _mm256_sub_epi32(_mm256_add_epi32(s0, s1), offset), x, at, acc);
}

/* The sum of a token's 32 activations times 2^shift: what an offset of 2^shift in the quants amounts to. */
INLINE __m256i offset(const struct act *x, size_t at, int shift)
{
    return _mm256_slli_epi32(_mm256_madd_epi16(word(x->half + at * 2), _mm256_set1_epi16(1)), shift);
}

INLINE __m256 token_q4_0(const struct group *g, const struct act *x, size_t at, __m256 acc)
{
    const int8_t *a = x->q + at * ACT_GROUP;
    __m256i sum = _mm256_madd_epi16(_mm256_add_epi16(madd4(g, 0, a), madd4(g, 4, a)), _mm256_set1_epi16(1));
    return scaled(g, _mm256_sub_epi32(sum, offset(x, at, 3)), x, at, acc);
}

INLINE __m256 token_q5_0(const struct group *g, const struct act *x, size_t at, __m256 acc)
{
    const int8_t *a = x->q + at * ACT_GROUP;
    const __m256i one = _mm256_set1_epi16(1);
    __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(madd4(g, 0, a), one), _mm256_madd_epi16(madd4(g, 4, a), one));
    return scaled(g, _mm256_sub_epi32(sum, offset(x, at, 4)), x, at, acc);
}

INLINE __m256 token_q8_0(const struct group *g, const struct act *x, size_t at, __m256 acc)
{
    const int8_t *a = x->q + at * ACT_GROUP;
    const __m256i one = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) { /* |q| * (a with the sign of q) */
        __m256i signed_a = _mm256_sign_epi8(word(a + j * 4), load(g->signed_q + j * LINE));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(g->q[j], signed_a), one));
    }
    return scaled(g, sum, x, at, acc);
}

/* ---- the loops: one token with its sums in registers, or a run of tokens with a group held in registers ---- */

enum { RUN = 64 }; /* tokens whose sums (RUN * 64 bytes) stay in the first-level cache beside the activations of a group */

#define MATMUL(name, type)                                                                                                \
    static void matmul_##name(const void *panels, size_t n_panels, const struct act *x, float *y, size_t y_stride)                     \
    {                                                                                                                                  \
        const size_t n_groups = (size_t)x->n_cols / ACT_GROUP, n_tokens = (size_t)x->n_tokens;                                         \
        const size_t bytes = panel_bytes(type, (size_t)x->n_cols), group_bytes = panel_group_bytes(type);                              \
        const char *end = (const char *)panels + n_panels * bytes;                                                                     \
        if (n_tokens == 1)                                                                                                             \
            ask_for(panels, AHEAD, end);                                                                                               \
        for (size_t p = 0; p < n_panels; p++, y += PANEL_ROWS) {                                                                       \
            const char *panel = (const char *)panels + p * bytes;                                                                      \
            if (n_tokens == 1) {                                                                                                       \
                __m256 acc0 = _mm256_setzero_ps(), acc1 = _mm256_setzero_ps();                                                         \
                for (size_t i = 0; i < n_groups; i++) {                                                                                \
                    ask_for(panel + AHEAD + i * group_bytes, group_bytes, end);                                                        \
                    struct group g;                                                                                                    \
                    load_group(type, &g, panel, n_groups, i, 0);                                                                       \
                    acc0 = token_##name(&g, x, i, acc0);                                                                               \
                    load_group(type, &g, panel, n_groups, i, 1);                                                                       \
                    acc1 = token_##name(&g, x, i, acc1);                                                                               \
                }                                                                                                                      \
                _mm256_storeu_ps(y, acc0);                                                                                             \
                _mm256_storeu_ps(y + 8, acc1);                                                                                         \
                continue;                                                                                                              \
            }                                                                                                                          \
            for (size_t first = 0; first < n_tokens; first += RUN) {                                                                   \
                size_t n = n_tokens - first < RUN ? n_tokens - first : RUN;                                                            \
                _Alignas(64) float acc[RUN][PANEL_ROWS];                                                                               \
                memset(acc, 0, n * sizeof acc[0]);                                                                                     \
                for (size_t i = 0; i < n_groups; i++)                                                                                  \
                    for (int half = 0; half < 2; half++) {                                                                             \
                        struct group g;                                                                                                \
                        load_group(type, &g, panel, n_groups, i, half);                                                                \
                        for (size_t t = 0; t < n; t++)                                                                                 \
                            _mm256_store_ps(acc[t] + half * 8, token_##name(&g, x, i * n_tokens + first + t,                           \
                                                                            _mm256_load_ps(acc[t] + half * 8)));                       \
                    }                                                                                                                  \
                for (size_t t = 0; t < n; t++)                                                                                         \
                    memcpy(y + (first + t) * y_stride, acc[t], sizeof acc[t]);                                                         \
            }                                                                                                                          \
        }                                                                                                                              \
    }

MATMUL(q4_k, GGUF_TYPE_Q4_K)
MATMUL(q5_k, GGUF_TYPE_Q5_K)
MATMUL(q6_k, GGUF_TYPE_Q6_K)
MATMUL(q4_0, GGUF_TYPE_Q4_0)
MATMUL(q5_0, GGUF_TYPE_Q5_0)
MATMUL(q8_0, GGUF_TYPE_Q8_0)

const struct kernels kernels_avx2 = {.level = "avx2", X86_256_KERNELS};
