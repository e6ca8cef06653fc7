/* What the levels of 512-bit registers share: a group of 32 columns of a panel, its quants and scales for all 16 rows, unpacked.
 * For AVX-512 F, BW and VL and what builds on them. Included after kernels/lanes.h.
 *
 * A register holds a whole line of a panel: a word of 4 columns for 16 rows. */
#ifndef QUERN_GROUPS512_H
#define QUERN_GROUPS512_H

#include "kernels/ahead.h"
#include "kernels/panel.h"

INLINE __m512i load(const void *p)
{
    return _mm512_loadu_si512(p);
}

INLINE __m512 halves(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

INLINE __m512i bytes(const void *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(p));
}

/* A group of 32 columns for 16 rows, ready to multiply. What of it is used depends on the type. */
struct group {
    __m512i q[8];          /* line j: quants as unsigned bytes */
    __m512 scale0, scale1; /* [row] d * scale; Q6_K: integer scales of columns 0..15 and 16..31 */
    __m512 d, min;         /* [row]; min is dmin * min */
};

INLINE void unpack_nibbles(struct group *g, const uint8_t q[4][LINE])
{
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m512i b = load(q[j]);
        g->q[j] = _mm512_and_si512(b, low);
        g->q[j + 4] = _mm512_and_si512(_mm512_srli_epi16(b, 4), low);
    }
}

/* (a & mask) | b in one instruction */
INLINE __m512i and_or(__m512i a, __m512i mask, __m512i b)
{
    return _mm512_ternarylogic_epi32(a, mask, b, 0xEA);
}

/* Bits moved up by n, or down by -n; n is a constant in -3..4. */
INLINE __m512i shift(__m512i v, int n)
{
    switch (n) {
    case 4:
        return _mm512_slli_epi16(v, 4);
    case 3:
        return _mm512_slli_epi16(v, 3);
    case 2:
        return _mm512_slli_epi16(v, 2);
    case 1:
        return _mm512_slli_epi16(v, 1);
    case -1:
        return _mm512_srli_epi16(v, 1);
    case -2:
        return _mm512_srli_epi16(v, 2);
    case -3:
        return _mm512_srli_epi16(v, 3);
    default:
        return v;
    }
}

INLINE void unpack_fifth_bits(struct group *g, const uint8_t h[LINE])
{
    const __m512i bit = _mm512_set1_epi8(16);
    __m512i b = load(h);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        g->q[j] = and_or(shift(b, 4 - j), bit, g->q[j]);
}

INLINE void unpack_scales(
    struct group *g, const uint16_t *d, const uint16_t *dmin, const uint8_t scale[8][16], const uint8_t min[4][16], int i)
{
    __m512i s = bytes(scale[i]), m = bytes(min[i % 4]);
    m = i < 4 ? _mm512_and_si512(m, _mm512_set1_epi32(15)) : _mm512_srli_epi32(m, 4);
    m = _mm512_or_si512(m, _mm512_slli_epi32(_mm512_srli_epi32(s, 6), 4));
    g->scale0 = _mm512_mul_ps(halves(d), _mm512_cvtepi32_ps(_mm512_and_si512(s, _mm512_set1_epi32(63))));
    g->min = _mm512_mul_ps(halves(dmin), _mm512_cvtepi32_ps(m));
}

INLINE void load_q4_k(struct group *g, const void *panel, size_t n_groups, size_t i)
{
    (void)n_groups;
    const struct panel_q4_k *b = (const struct panel_q4_k *)panel + i / 8;
    unpack_nibbles(g, b->q[i % 8]);
    unpack_scales(g, b->d, b->dmin, b->scale, b->min, (int)(i % 8));
}

INLINE void load_q5_k(struct group *g, const void *panel, size_t n_groups, size_t i)
{
    (void)n_groups;
    const struct panel_q5_k *b = (const struct panel_q5_k *)panel + i / 8;
    unpack_nibbles(g, b->q[i % 8]);
    unpack_fifth_bits(g, b->h[i % 8]);
    unpack_scales(g, b->d, b->dmin, b->scale, b->min, (int)(i % 8));
}

INLINE void load_q6_k(struct group *g, const void *panel, size_t n_groups, size_t i)
{
    const struct group_q6 *b = panel_q6_groups(panel, n_groups) + i;
    unpack_nibbles(g, b->q);
    const __m512i bits = _mm512_set1_epi8(48);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        g->q[j] = and_or(shift(load(b->h[j / 4]), 4 - j % 4 * 2), bits, g->q[j]);
    const int8_t *scale = panel_q6_scales(panel) + i * 32;
    g->scale0 = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)scale)));
    g->scale1 = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(scale + 16))));
    g->d = halves(panel_q6_d(panel, n_groups) + i / 8 * 16);
}

INLINE void load_q4_0(struct group *g, const void *panel, size_t n_groups, size_t i)
{
    unpack_nibbles(g, ((const struct group_q4_0 *)panel_0_groups(panel, n_groups))[i].q);
    g->d = halves(panel_0_d(panel) + i * 16);
}

INLINE void load_q5_0(struct group *g, const void *panel, size_t n_groups, size_t i)
{
    const struct group_q5_0 *b = (const struct group_q5_0 *)panel_0_groups(panel, n_groups) + i;
    unpack_nibbles(g, b->q);
    unpack_fifth_bits(g, b->h);
    g->d = halves(panel_0_d(panel) + i * 16);
}

/* The signed quants get 128 added to be unsigned; 128 * the sum of the activations is subtracted again. */
INLINE void load_q8_0(struct group *g, const void *panel, size_t n_groups, size_t i)
{
    const struct group_q8_0 *b = (const struct group_q8_0 *)panel_0_groups(panel, n_groups) + i;
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        g->q[j] = _mm512_xor_si512(load(b->q[j]), _mm512_set1_epi8(-128));
    g->d = halves(panel_0_d(panel) + i * 16);
}

/* ---- the same at every level of 512 bits ---- */

static uint64_t read_all(const void *p, size_t n)
{
    const char *c = p;
    __m512i a = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += LINE) {
        ask_for_line(c + i, c + n);
        a = _mm512_xor_si512(a, load(c + i));
    }
    uint64_t x[8];
    _mm512_storeu_si512(x, a);
    return x[0] ^ x[1] ^ x[2] ^ x[3] ^ x[4] ^ x[5] ^ x[6] ^ x[7];
}

#endif
