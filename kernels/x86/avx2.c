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

/* A word of 4 activations in all lanes. */
INLINE __m256i word(const int8_t *p)
{
    int32_t w;
    memcpy(&w, p, sizeof w);
    return _mm256_set1_epi32(w);
}

INLINE __m256i pairs(const int16_t *p)
{
    int32_t w;
    memcpy(&w, p, sizeof w);
    return _mm256_set1_epi32(w);
}

INLINE __m256i load(const void *p)
{
    return _mm256_loadu_si256(p);
}

INLINE __m256 halves(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
}

/* 8 scales of a byte each, twice in the 16-bit halves of each lane, as VPMADDWD wants them. */
INLINE __m256i twice(__m256i scale)
{
    return _mm256_or_si256(scale, _mm256_slli_epi32(scale, 16));
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

INLINE void unpack_nibbles(struct group *g, const uint8_t q[4][LINE], int half)
{
    const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m256i b = load(q[j] + half * 32);
        g->q[j] = _mm256_and_si256(b, low);
        g->q[j + 4] = _mm256_and_si256(_mm256_srli_epi16(b, 4), low);
    }
}

INLINE void unpack_fifth_bits(struct group *g, const uint8_t h[LINE], int half)
{
    const __m256i bit = _mm256_set1_epi8(16);
    __m256i b = load(h + half * 32);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        __m256i shifted = j < 4 ? _mm256_slli_epi16(b, 4 - j) : _mm256_srli_epi16(b, j - 4);
        g->q[j] = _mm256_or_si256(g->q[j], _mm256_and_si256(shifted, bit));
    }
}

/* Scales and minimums of Q4_K and Q5_K for group i of a block. */
INLINE void unpack_scales(struct group *g, const uint16_t *d, const uint16_t *dmin, const uint8_t scale[8][16], const uint8_t min[4][16],
                          int i, int half)
{
    __m256i s = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(scale[i] + half * 8)));
    __m256i m = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(min[i % 4] + half * 8)));
    m = i < 4 ? _mm256_and_si256(m, _mm256_set1_epi32(15)) : _mm256_srli_epi32(m, 4);
    m = _mm256_or_si256(m, _mm256_slli_epi32(_mm256_srli_epi32(s, 6), 4));
    g->scale0 = twice(_mm256_and_si256(s, _mm256_set1_epi32(63)));
    g->d = halves(d + half * 8);
    g->min = _mm256_mul_ps(halves(dmin + half * 8), _mm256_cvtepi32_ps(m));
}

/* ---- load a group: panel of n_groups groups, group i, half 0 or 1 of the rows ---- */

INLINE void load_q4_k(struct group *g, const void *panel, size_t n_groups, size_t i, int half)
{
    (void)n_groups;
    const struct panel_q4_k *b = (const struct panel_q4_k *)panel + i / 8;
    unpack_nibbles(g, b->q[i % 8], half);
    unpack_scales(g, b->d, b->dmin, b->scale, b->min, (int)(i % 8), half);
}

INLINE void load_q5_k(struct group *g, const void *panel, size_t n_groups, size_t i, int half)
{
    (void)n_groups;
    const struct panel_q5_k *b = (const struct panel_q5_k *)panel + i / 8;
    unpack_nibbles(g, b->q[i % 8], half);
    unpack_fifth_bits(g, b->h[i % 8], half);
    unpack_scales(g, b->d, b->dmin, b->scale, b->min, (int)(i % 8), half);
}

INLINE void load_q6_k(struct group *g, const void *panel, size_t n_groups, size_t i, int half)
{
    const struct group_q6 *b = panel_q6_groups(panel, n_groups) + i;
    unpack_nibbles(g, b->q, half);
    const __m256i bits = _mm256_set1_epi8(48);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        __m256i h = load(b->h[j / 4] + half * 32);
        int shift = 4 - j % 4 * 2;
        h = shift > 0 ? _mm256_slli_epi16(h, shift) : shift < 0 ? _mm256_srli_epi16(h, -shift) : h;
        g->q[j] = _mm256_or_si256(g->q[j], _mm256_and_si256(h, bits));
    }
    const int8_t *scale = panel_q6_scales(panel) + i * 32 + half * 8;
    const __m256i low = _mm256_set1_epi32(0xFFFF);
    __m256i s0 = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)scale));
    __m256i s1 = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(scale + 16)));
    g->scale0 = twice(_mm256_and_si256(s0, low));
    g->scale1 = twice(_mm256_and_si256(s1, low));
    g->scale_pair = _mm256_or_si256(_mm256_and_si256(s0, low), _mm256_slli_epi32(s1, 16));
    g->d = halves(panel_q6_d(panel, n_groups) + i / 8 * 16 + half * 8);
}

INLINE void load_q4_0(struct group *g, const void *panel, size_t n_groups, size_t i, int half)
{
    unpack_nibbles(g, ((const struct group_q4_0 *)panel_0_groups(panel, n_groups))[i].q, half);
    g->d = halves(panel_0_d(panel) + i * 16 + half * 8);
}

INLINE void load_q5_0(struct group *g, const void *panel, size_t n_groups, size_t i, int half)
{
    const struct group_q5_0 *b = (const struct group_q5_0 *)panel_0_groups(panel, n_groups) + i;
    unpack_nibbles(g, b->q, half);
    unpack_fifth_bits(g, b->h, half);
    g->d = halves(panel_0_d(panel) + i * 16 + half * 8);
}

INLINE void load_q8_0(struct group *g, const void *panel, size_t n_groups, size_t i, int half)
{
    const struct group_q8_0 *b = (const struct group_q8_0 *)panel_0_groups(panel, n_groups) + i;
    g->signed_q = b->q[0] + half * 32;
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        g->q[j] = _mm256_abs_epi8(load(g->signed_q + j * LINE));
    g->d = halves(panel_0_d(panel) + i * 16 + half * 8);
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
    __m256i offset = _mm256_slli_epi32(_mm256_madd_epi16(g->scale_pair, pairs(x->half + at * 2)), 5);
    return scaled(g, _mm256_sub_epi32(_mm256_add_epi32(s0, s1), offset), x, at, acc);
}

/* The sum of a token's 32 activations times 2^shift: what an offset of 2^shift in the quants amounts to. */
INLINE __m256i offset(const struct act *x, size_t at, int shift)
{
    return _mm256_slli_epi32(_mm256_madd_epi16(pairs(x->half + at * 2), _mm256_set1_epi16(1)), shift);
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
                    load_##name(&g, panel, n_groups, i, 0);                                                                            \
                    acc0 = token_##name(&g, x, i, acc0);                                                                               \
                    load_##name(&g, panel, n_groups, i, 1);                                                                            \
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
                        load_##name(&g, panel, n_groups, i, half);                                                                     \
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

static uint64_t read_all(const void *p, size_t n)
{
    const char *c = p;
    __m256i a = _mm256_setzero_si256(), b = a;
    for (size_t i = 0; i < n; i += 64) {
        ask_for(c + i + AHEAD, LINE, c + n);
        a = _mm256_xor_si256(a, load(c + i));
        b = _mm256_xor_si256(b, load(c + i + 32));
    }
    uint64_t x[4];
    _mm256_storeu_si256((void *)x, _mm256_xor_si256(a, b));
    return x[0] ^ x[1] ^ x[2] ^ x[3];
}

const struct kernels kernels_avx2 = {
    .level = "avx2",
    LANES_KERNELS,
    .matmul =
        {
            [GGUF_TYPE_F32] = matmul_f32,
            [GGUF_TYPE_F16] = matmul_f16,
            [GGUF_TYPE_BF16] = matmul_bf16,
            [GGUF_TYPE_Q4_0] = matmul_q4_0,
            [GGUF_TYPE_Q5_0] = matmul_q5_0,
            [GGUF_TYPE_Q8_0] = matmul_q8_0,
            [GGUF_TYPE_Q4_K] = matmul_q4_k,
            [GGUF_TYPE_Q5_K] = matmul_q5_k,
            [GGUF_TYPE_Q6_K] = matmul_q6_k,
        },
    .read_all = read_all,
};
