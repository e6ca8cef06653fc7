/* AVX-VNNI: Intel clients since 2021 and E-core servers (Sierra Forest), AMD since Zen 5.
 *
 * VPDPBUSD as avx512.c has it, in 256-bit registers of which there are 16: one word of 4 columns for 8 rows, half a line of a
 * panel. The four products of a lane are added to a 32-bit sum, exactly. Integer scales are applied in float, where the product
 * is still exact (see scalar.c).
 *
 * The instruction has two encodings: VEX, which is AVX-VNNI, and EVEX, which is AVX-512 VNNI with VL. For the tests this file is
 * compiled with QUERN_EVEX, so that a CPU with either of them can hold the code above the intrinsic to scalar's bits, and with
 * QUERN_MODEL, where instructions of AVX2 stand in for it. */
#include "kernels/ahead.h"
#include "kernels/levels.h"
#include "kernels/panel.h"
#include "kernels/x86/lanes256.h"

#include "kernels/lanes.h"

#include "kernels/x86/groups256.h"

#if defined(QUERN_EVEX)
#define dpbusd _mm256_dpbusd_epi32
#define TABLE kernels_avxvnni_evex
#define LEVEL "avxvnni(evex)"
extern const struct kernels TABLE; /* no level of its own: levels.h does not know it */
#elif defined(QUERN_MODEL)
/* The products of bytes 0 and 2 of each lane, and of bytes 1 and 3, widened to 16 bits, where VPMADDWD is exact. */
INLINE __m256i dpbusd(__m256i sum, __m256i u, __m256i s)
{
    __m256i even = _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(255)), _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
    __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
#define TABLE kernels_avxvnni_model
#define LEVEL "avxvnni(model)"
extern const struct kernels TABLE;
#else
#define dpbusd _mm256_dpbusd_avx_epi32
#define TABLE kernels_avxvnni
#define LEVEL "avxvnni"
#endif

enum {
    RUN = 64,       /* tokens whose sums stay in the first-level cache */
    MOST_ABREAST = 4
};

/* Tokens that go side by side through the lines of a group, so that a chain of dependent instructions runs beside others. 8
 * registers hold the group's quants; the rest is for sums, of which Q6_K needs two a token. */
#define ABREAST(type) ((type) == GGUF_TYPE_Q6_K ? 2 : MOST_ABREAST)

/* t = 0 .. n - 1, n a constant where this is inlined. Clang 14 unrolls what has a constant end before it is inlined, and leaves
 * all else a loop. */
#define EACH_TOKEN(t, n) _Pragma("GCC unroll 4") for (int t = 0; t < MOST_ABREAST; t++) if (t < (n))

/* Integer scales and what they are multiplied with, for 8 rows. What of it is used depends on the type. */
struct scales {
    __m256i scale0;  /* Q4_K, Q5_K: 0..63; Q6_K: of columns 0..15, -128..127 */
    __m256i scale1;  /* Q6_K: of columns 16..31 */
    __m256 d;
    __m256 min;      /* Q4_K, Q5_K: dmin * min, exact */
};

INLINE void load_scales_k(struct scales *s, const uint16_t *d, const uint16_t *dmin, const uint8_t scale[8][16],
    const uint8_t min[4][16], size_t i, int half)
{
    __m256i packed = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(scale[i] + half * 8)));
    __m256i m = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(min[i % 4] + half * 8)));
    m = i < 4 ? _mm256_and_si256(m, _mm256_set1_epi32(15)) : _mm256_srli_epi32(m, 4);
    m = _mm256_or_si256(m, _mm256_slli_epi32(_mm256_srli_epi32(packed, 6), 4));
    s->scale0 = _mm256_and_si256(packed, _mm256_set1_epi32(63));
    s->d = halves(d + half * 8);
    s->min = _mm256_mul_ps(halves(dmin + half * 8), _mm256_cvtepi32_ps(m));
}

INLINE void load_scales(enum gguf_type type, struct scales *s, const void *panel, size_t n_groups, size_t i, int half)
{
    if (type == GGUF_TYPE_Q4_K) {
        const struct panel_q4_k *b = (const struct panel_q4_k *)panel + i / 8;
        load_scales_k(s, b->d, b->dmin, b->scale, b->min, i % 8, half);
    } else if (type == GGUF_TYPE_Q5_K) {
        const struct panel_q5_k *b = (const struct panel_q5_k *)panel + i / 8;
        load_scales_k(s, b->d, b->dmin, b->scale, b->min, i % 8, half);
    } else if (type == GGUF_TYPE_Q6_K) {
        const int8_t *scale = panel_q6_scales(panel) + i * 32 + half * 8;
        s->scale0 = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)scale));
        s->scale1 = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(scale + 16)));
        s->d = halves(panel_q6_d(panel, n_groups) + i / 8 * 16 + half * 8);
    } else {
        s->d = halves(panel_0_d(panel) + i * 16 + half * 8);
    }
}

/* A group of 32 columns for 8 rows, ready to multiply. What of it is used depends on the type. */
struct group {
    __m256i q[8];          /* line j: quants as unsigned bytes */
    __m256 scale0, scale1; /* [row] Q4_K, Q5_K: d * scale; Q6_K: integer scales of columns 0..15 and 16..31 */
    __m256 d, min;         /* [row]; min is dmin * min */
};

/* Group i of a panel of n_groups groups, half 0 or 1 of the rows. */
INLINE void load_group(enum gguf_type type, struct group *g, const void *panel, size_t n_groups, size_t i, int half)
{
    const struct packed packed = find_group(type, panel, n_groups, i / GROUPS_PER_K, i % GROUPS_PER_K);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        g->q[j] = unpack_line(type, &packed, j, half);
    struct scales s;
    load_scales(type, &s, panel, n_groups, i, half);
    g->d = s.d;
    if (type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q5_K) {
        g->scale0 = _mm256_mul_ps(s.d, _mm256_cvtepi32_ps(s.scale0));
        g->min = s.min;
    } else if (type == GGUF_TYPE_Q6_K) {
        g->scale0 = _mm256_cvtepi32_ps(s.scale0);
        g->scale1 = _mm256_cvtepi32_ps(s.scale1);
    } else if (type == GGUF_TYPE_Q8_0) { /* signed quants get 128 added to be unsigned */
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            g->q[j] = _mm256_xor_si256(g->q[j], _mm256_set1_epi8(-128));
    }
}

/* What is in the quants of a type beyond their value: that times the sum of the activations is subtracted again. */
INLINE int quant_offset(enum gguf_type type)
{
    return type == GGUF_TYPE_Q4_0   ? 8
           : type == GGUF_TYPE_Q5_0 ? 16
           : type == GGUF_TYPE_Q6_K ? 32
           : type == GGUF_TYPE_Q8_0 ? 128
                                    : 0;
}

/* sum[t] += lines first .. first + 3 times the activations of token t */
INLINE void dot4(const struct group *g, int first, const int8_t *a, int n, __m256i sum[])
{
#pragma GCC unroll 4
    for (int j = first; j < first + 4; j++)
        EACH_TOKEN(t, n)
            sum[t] = dpbusd(sum[t], g->q[j], word(a + t * ACT_GROUP + j * 4));
}

/* Adds the group's share of n consecutive tokens, from index `at` of the scales on, to acc. */
INLINE void add_tokens(enum gguf_type type, const struct group *g, const struct act *x, size_t at, int n, __m256 acc[])
{
    const int8_t *a = x->q + at * ACT_GROUP;
    const int16_t *half = x->half + at * 2;
    const float *d = x->d + at, *total = x->sum + at;
    __m256i sum[MOST_ABREAST], sum1[MOST_ABREAST];
    const short offset = (short)quant_offset(type);
    if (type == GGUF_TYPE_Q6_K) {
        EACH_TOKEN(t, n) {
            sum[t] = _mm256_madd_epi16(word(half + t * 2), _mm256_set1_epi32(-offset & 0xFFFF));
            sum1[t] = _mm256_madd_epi16(word(half + t * 2), _mm256_set1_epi32(-offset * 0x10000));
        }
        dot4(g, 0, a, n, sum);
        dot4(g, 4, a, n, sum1);
    } else {
        EACH_TOKEN(t, n)
            sum[t] = offset ? _mm256_madd_epi16(word(half + t * 2), _mm256_set1_epi16((short)-offset)) : _mm256_setzero_si256();
        dot4(g, 0, a, n, sum);
        dot4(g, 4, a, n, sum);
    }
    EACH_TOKEN(t, n) {
        __m256 share = _mm256_cvtepi32_ps(sum[t]);
        if (type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q5_K) {
            share = _mm256_mul_ps(share, g->scale0);
        } else if (type == GGUF_TYPE_Q6_K) {
            share = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum1[t]), g->scale1, _mm256_mul_ps(share, g->scale0));
            share = _mm256_mul_ps(share, g->d);
        } else {
            share = _mm256_mul_ps(share, g->d);
        }
        acc[t] = _mm256_fmadd_ps(share, _mm256_broadcast_ss(d + t), acc[t]);
        if (type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q5_K)
            acc[t] = _mm256_fnmadd_ps(g->min, _mm256_broadcast_ss(total + t), acc[t]);
    }
}

/* n tokens of a run, whose sums are in memory. */
INLINE void run_tokens(enum gguf_type type, const struct group *g, const struct act *x, size_t at, int n, float acc[][PANEL_ROWS])
{
    __m256 sums[MOST_ABREAST];
    EACH_TOKEN(t, n)
        sums[t] = _mm256_load_ps(acc[t]);
    add_tokens(type, g, x, at, n, sums);
    EACH_TOKEN(t, n)
        _mm256_store_ps(acc[t], sums[t]);
}

/* ---- the loops: one token with its sums in registers, or a run of tokens with a group held in registers ---- */

INLINE void one_token(enum gguf_type type, const char *panel, const char *end, size_t n_groups, const struct act *x, float *y)
{
    const size_t group_bytes = panel_group_bytes(type);
    __m256 acc0 = _mm256_setzero_ps(), acc1 = _mm256_setzero_ps();
    for (size_t i = 0; i < n_groups; i++) {
        ask_for(panel + AHEAD + i * group_bytes, group_bytes, end);
        struct group g;
        load_group(type, &g, panel, n_groups, i, 0);
        add_tokens(type, &g, x, i, 1, &acc0);
        load_group(type, &g, panel, n_groups, i, 1);
        add_tokens(type, &g, x, i, 1, &acc1);
    }
    _mm256_storeu_ps(y, acc0);
    _mm256_storeu_ps(y + 8, acc1);
}

INLINE void many_tokens(
    enum gguf_type type, const char *panel, const char *end, size_t n_groups, const struct act *x, float *y, size_t y_stride)
{
    const size_t n_tokens = (size_t)x->n_tokens, group_bytes = panel_group_bytes(type);
    for (size_t first = 0; first < n_tokens; first += RUN) {
        const size_t n = n_tokens - first < RUN ? n_tokens - first : RUN;
        _Alignas(64) float acc[RUN][PANEL_ROWS];
        memset(acc, 0, n * sizeof acc[0]);
        for (size_t i = 0; i < n_groups; i++) {
            ask_for(panel + AHEAD + i * group_bytes, group_bytes, end);
            const size_t at = i * n_tokens + first;
            for (int half = 0; half < 2; half++) {
                float (*sums)[PANEL_ROWS] = (float (*)[PANEL_ROWS])(acc[0] + half * 8);
                struct group g;
                load_group(type, &g, panel, n_groups, i, half);
                size_t t = 0;
                for (; t + ABREAST(type) <= n; t += ABREAST(type))
                    run_tokens(type, &g, x, at + t, ABREAST(type), sums + t);
                if (ABREAST(type) > 2 && t + 2 <= n) {
                    run_tokens(type, &g, x, at + t, 2, sums + t);
                    t += 2;
                }
                if (t < n)
                    run_tokens(type, &g, x, at + t, 1, sums + t);
            }
        }
        for (size_t t = 0; t < n; t++)
            memcpy(y + (first + t) * y_stride, acc[t], sizeof acc[t]);
    }
}

INLINE void matmul(enum gguf_type type, const void *panels, size_t n_panels, const struct act *x, float *y, size_t y_stride)
{
    const size_t n_groups = (size_t)x->n_cols / ACT_GROUP, bytes = panel_bytes(type, (size_t)x->n_cols);
    const char *panel = panels, *end = panel + n_panels * bytes;
    ask_for(panel, AHEAD, end);
    for (size_t p = 0; p < n_panels; p++, y += PANEL_ROWS, panel += bytes) {
        if (x->n_tokens == 1)
            one_token(type, panel, end, n_groups, x, y);
        else
            many_tokens(type, panel, end, n_groups, x, y, y_stride);
    }
}

QUANTISED_TYPES(MATMUL_OF_TYPE)

const struct kernels TABLE = {.level = LEVEL, .cheap_rows = 4, LANES_KERNELS};
