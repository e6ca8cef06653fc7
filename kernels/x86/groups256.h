/* What the levels of 256-bit registers share: above all a group of 32 columns of a panel, its quants and scales for 8 rows, unpacked but not yet brought
 * into the form that a level multiplies with. For AVX2 and what builds on it; needs F16C. Included after kernels/lanes.h.
 *
 * A register holds one word of 4 columns for 8 rows, half a line of a panel. The types are constants where these functions are called; all else is
 * compiled away. */
#ifndef QUERN_GROUPS256_H
#define QUERN_GROUPS256_H

#include "kernels/ahead.h"
#include "kernels/panel.h"

enum { HALF = LINE / 2 /* bytes of a line that belong to 8 rows */ };

/* Integer scales and what they are multiplied with, for 8 rows. What of it is used depends on the type. */
struct scales {
    __m256i scale0;  /* Q4_K, Q5_K: 0..63; Q6_K: of columns 0..15, -128..127 */
    __m256i scale1;  /* Q6_K: of columns 16..31 */
    __m256 d;
    __m256 min;      /* Q4_K, Q5_K: dmin * min, exact */
};

/* A word of 4 bytes in all lanes: 4 activations, or the two sums of a group's halves. */
INLINE __m256i word(const void *p)
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

INLINE void unpack_nibbles(__m256i q[8], const uint8_t b[4][LINE], int half)
{
    const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m256i v = load(b[j] + half * HALF);
        q[j] = _mm256_and_si256(v, low);
        q[j + 4] = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
    }
}

INLINE void unpack_fifth_bits(__m256i q[8], const uint8_t h[LINE], int half)
{
    const __m256i bit = _mm256_set1_epi8(16);
    __m256i v = load(h + half * HALF);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        __m256i shifted = j < 4 ? _mm256_slli_epi16(v, 4 - j) : _mm256_srli_epi16(v, j - 4);
        q[j] = _mm256_or_si256(q[j], _mm256_and_si256(shifted, bit));
    }
}

INLINE void unpack_two_bits(__m256i q[8], const uint8_t h[2][LINE], int half)
{
    const __m256i bits = _mm256_set1_epi8(48);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        __m256i v = load(h[j / 4] + half * HALF);
        int shift = 4 - j % 4 * 2;
        v = shift > 0 ? _mm256_slli_epi16(v, shift) : shift < 0 ? _mm256_srli_epi16(v, -shift) : v;
        q[j] = _mm256_or_si256(q[j], _mm256_and_si256(v, bits));
    }
}

/* Group i of a panel of n_groups groups, half 0 or 1 of the rows: line j in q[j], unsigned, with the type's offset still in (Q8_0: signed, as stored). */
INLINE void load_quants(enum gguf_type type, __m256i q[8], const void *panel, size_t n_groups, size_t i, int half)
{
    if (type == GGUF_TYPE_Q4_K) {
        unpack_nibbles(q, ((const struct panel_q4_k *)panel)[i / 8].q[i % 8], half);
    } else if (type == GGUF_TYPE_Q5_K) {
        const struct panel_q5_k *b = (const struct panel_q5_k *)panel + i / 8;
        unpack_nibbles(q, b->q[i % 8], half);
        unpack_fifth_bits(q, b->h[i % 8], half);
    } else if (type == GGUF_TYPE_Q6_K) {
        const struct group_q6 *b = panel_q6_groups(panel, n_groups) + i;
        unpack_nibbles(q, b->q, half);
        unpack_two_bits(q, b->h, half);
    } else if (type == GGUF_TYPE_Q4_0) {
        unpack_nibbles(q, ((const struct group_q4_0 *)panel_0_groups(panel, n_groups))[i].q, half);
    } else if (type == GGUF_TYPE_Q5_0) {
        const struct group_q5_0 *b = (const struct group_q5_0 *)panel_0_groups(panel, n_groups) + i;
        unpack_nibbles(q, b->q, half);
        unpack_fifth_bits(q, b->h, half);
    } else {
        const struct group_q8_0 *b = (const struct group_q8_0 *)panel_0_groups(panel, n_groups) + i;
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            q[j] = load(b->q[j] + half * HALF);
    }
}

INLINE void load_scales_k(struct scales *s, const uint16_t *d, const uint16_t *dmin, const uint8_t scale[8][16], const uint8_t min[4][16], size_t i,
                          int half)
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

/* ---- the same at every level of 256 bits ---- */

static uint64_t read_all(const void *p, size_t n)
{
    const char *c = p;
    __m256i a = _mm256_setzero_si256(), b = a;
    for (size_t i = 0; i < n; i += LINE) {
        ask_for_line(c + i, c + n);
        a = _mm256_xor_si256(a, load(c + i));
        b = _mm256_xor_si256(b, load(c + i + HALF));
    }
    uint64_t x[4];
    _mm256_storeu_si256((void *)x, _mm256_xor_si256(a, b));
    return x[0] ^ x[1] ^ x[2] ^ x[3];
}

/* The entries of a level's table, once it has its matmul_*. */
#define X86_256_KERNELS                                                                                                                \
    LANES_KERNELS, .read_all = read_all, .matmul = {                                                                                   \
        [GGUF_TYPE_F32] = matmul_f32,                                                                                                  \
        [GGUF_TYPE_F16] = matmul_f16,                                                                                                  \
        [GGUF_TYPE_BF16] = matmul_bf16,                                                                                                \
        [GGUF_TYPE_Q4_0] = matmul_q4_0,                                                                                                \
        [GGUF_TYPE_Q5_0] = matmul_q5_0,                                                                                                \
        [GGUF_TYPE_Q8_0] = matmul_q8_0,                                                                                                \
        [GGUF_TYPE_Q4_K] = matmul_q4_k,                                                                                                \
        [GGUF_TYPE_Q5_K] = matmul_q5_k,                                                                                                \
        [GGUF_TYPE_Q6_K] = matmul_q6_k,                                                                                                \
    }

#endif
