/* What the levels of 256-bit registers share: above all where a group of 32 columns of a panel is, and how the quants of its
 * lines are unpacked. For AVX2 and what builds on it; needs F16C. Included after kernels/lanes.h.
 *
 * A register holds one word of 4 columns for 8 rows, half a line of a panel. The types are constants where these functions are
 * called; all else is compiled away. */
#ifndef QUERN_GROUPS256_H
#define QUERN_GROUPS256_H

#include "kernels/ahead.h"
#include "kernels/panel.h"

enum { HALF = LINE / 2 /* bytes of a line that belong to 8 rows */ };

/* Where a group is. A block is 8 groups, the 256 columns of a k-quant. */
struct packed {
    const void *panel;
    size_t n_groups, block, i; /* group 8 * block + i of a panel of n_groups groups */
    const uint8_t *q;          /* [4][LINE] nibbles; Q8_0: [8][LINE] */
    const uint8_t *h;          /* further bits, or NULL */
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

INLINE const struct panel_q4_k *block_q4_k(const struct packed *g)
{
    return (const struct panel_q4_k *)g->panel + g->block;
}

INLINE const struct panel_q5_k *block_q5_k(const struct packed *g)
{
    return (const struct panel_q5_k *)g->panel + g->block;
}

INLINE struct packed find_group(enum gguf_type type, const void *panel, size_t n_groups, size_t block, size_t i)
{
    struct packed g = {panel, n_groups, block, i, NULL, NULL};
    const size_t number = block * GROUPS_PER_K + i;
    if (type == GGUF_TYPE_Q4_K) {
        g.q = block_q4_k(&g)->q[i][0];
    } else if (type == GGUF_TYPE_Q5_K) {
        g.q = block_q5_k(&g)->q[i][0];
        g.h = block_q5_k(&g)->h[i];
    } else if (type == GGUF_TYPE_Q6_K) {
        const struct group_q6 *b = panel_q6_groups(panel, n_groups) + number;
        g.q = b->q[0];
        g.h = b->h[0];
    } else if (type == GGUF_TYPE_Q4_0) {
        g.q = ((const struct group_q4_0 *)panel_0_groups(panel, n_groups))[number].q[0];
    } else if (type == GGUF_TYPE_Q5_0) {
        const struct group_q5_0 *b = (const struct group_q5_0 *)panel_0_groups(panel, n_groups) + number;
        g.q = b->q[0];
        g.h = b->h;
    } else {
        g.q = (const void *)((const struct group_q8_0 *)panel_0_groups(panel, n_groups))[number].q[0];
    }
    return g;
}

/* Line j of a group, half h of the rows: unsigned, with the type's offset still in (Q8_0: signed, as stored). */
INLINE __m256i unpack_line(enum gguf_type type, const struct packed *g, int j, int h)
{
    const __m256i low = _mm256_set1_epi8(15);
    if (type == GGUF_TYPE_Q8_0)
        return load(g->q + j * LINE + h * HALF);
    __m256i v = load(g->q + j % 4 * LINE + h * HALF);
    v = _mm256_and_si256(j < 4 ? v : _mm256_srli_epi16(v, 4), low);
    if (type == GGUF_TYPE_Q5_K || type == GGUF_TYPE_Q5_0) {
        __m256i b = load(g->h + h * HALF);
        b = j < 4 ? _mm256_slli_epi16(b, 4 - j) : _mm256_srli_epi16(b, j - 4);
        v = _mm256_or_si256(v, _mm256_and_si256(b, _mm256_set1_epi8(16)));
    } else if (type == GGUF_TYPE_Q6_K) {
        __m256i b = load(g->h + j / 4 * LINE + h * HALF);
        const int shift = 4 - j % 4 * 2;
        b = shift > 0 ? _mm256_slli_epi16(b, shift) : shift < 0 ? _mm256_srli_epi16(b, -shift) : b;
        v = _mm256_or_si256(v, _mm256_and_si256(b, _mm256_set1_epi8(48)));
    }
    return v;
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

#endif
