/* AVX2 with FMA and F16C: every x86 server since 2013 (Intel) or 2015 (AMD).
 *
 * Quantised matmul: a 256-bit register holds one word of 4 columns for 8 rows, half a line of a panel. VPMADDUBSW multiplies the
 * unsigned quants with a word of activations that is broadcast to all lanes and adds pairs into 16 bits, where further lines are
 * added up; VPMADDWD then widens to 32 bits and multiplies with the integer scale of the row in the same instruction. How many
 * lines go into 16 bits depends on the type (16 rows of a panel in two halves, columns in two halves of 4 lines each, as Q6_K has
 * its scales):
 *
 *   4 bits            8 lines: 16 * 15 * 127 = 30480
 *   Q5_K              4 lines:  8 * 31 * 127 = 31496
 *   Q5_0, Q6_K        8 and 4 lines of quants that are centred: 16 * 16 * 127 = 8 * 32 * 127 = 32512. The products are those of
 *                     the unsigned quants, added modulo 2^16; taking the offset times act.pair away brings the sum back into
 *                     range, whatever happened on the way
 *   Q8_0              1 line: 2 * 128 * 127 = 32512
 *
 * What bounds this on a core that is shared with another hardware thread is the number of instructions, so the loops are shaped
 * for few of them: both halves of the rows go side by side and share every broadcast; up to 4 tokens go side by side and share
 * what unpacking a line takes. With more tokens a group is unpacked once into memory. For a token and 16 rows of a group (512
 * multiply-adds) of Q4_K that comes to 59 instructions with many tokens, 71 with 4, and 126 with one, which has all the unpacking
 * to itself; 16 of them are VPMADDUBSW, 14 VPADDW. */
#include "kernels/ahead.h"
#include "kernels/levels.h"
#include "kernels/panel.h"
#include "kernels/x86/lanes256.h"

#include "kernels/lanes.h"

#include "kernels/x86/groups256.h"

enum {
    RUN = 64,    /* tokens whose sums (RUN * 64 bytes) stay in the first-level cache beside the activations of a group */
    ABREAST = 4, /* tokens that go side by side */
    FEW = 4      /* tokens up to which a group is unpacked in registers, line by line */
};

#define EACH(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); i++)
/* t = 0 .. n - 1, n a constant where this is inlined. Clang 14 unrolls what has a constant end before it is inlined, and leaves
 * all else a loop. */
#define EACH_TOKEN(t, n) _Pragma("GCC unroll 4") for (int t = 0; t < ABREAST; t++) if (t < (n))
#define EACH_HALF(h) _Pragma("GCC unroll 2") for (int h = 0; h < 2; h++)

/* ---- a group of 32 columns for 16 rows ---- */

/* A group unpacked; [half of the rows]. What of it is used depends on the type. */
struct group {
    __m256i q[8][2];     /* [line] quants as unsigned bytes; Q8_0: as they are stored */
    __m256i scale[2][2]; /* [half of the columns; only Q6_K has two] [row] the integer scale, twice in the 16-bit halves of its
                            lane, as VPMADDWD wants it */
    __m256 d[2];
    __m256 min[2];       /* Q4_K, Q5_K: dmin * min, exact */
};

/* 16 bytes that fit into 15 bits, widened to 16 bits and written twice, 8 rows a register. */
INLINE void twice(__m256i out[2], __m128i bytes)
{
    const __m256i both = _mm256_broadcastsi128_si256(bytes);
    out[0] = _mm256_shuffle_epi8(both, _mm256_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1, //
                                                        4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1));
    out[1] = _mm256_shuffle_epi8(both, _mm256_setr_epi8(8, -1, 8, -1, 9, -1, 9, -1, 10, -1, 10, -1, 11, -1, 11, -1, //
                                                        12, -1, 12, -1, 13, -1, 13, -1, 14, -1, 14, -1, 15, -1, 15, -1));
}

/* The same for signed bytes: each is moved to the upper byte of its 16 bits first, and from there down. */
INLINE void twice_signed(__m256i out[2], __m128i bytes)
{
    const __m256i both = _mm256_broadcastsi128_si256(bytes);
    out[0] = _mm256_shuffle_epi8(both, _mm256_setr_epi8(-1, 0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, //
                                                        -1, 4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7));
    out[1] = _mm256_shuffle_epi8(both, _mm256_setr_epi8(-1, 8, -1, 8, -1, 9, -1, 9, -1, 10, -1, 10, -1, 11, -1, 11, //
                                                        -1, 12, -1, 12, -1, 13, -1, 13, -1, 14, -1, 14, -1, 15, -1, 15));
    out[0] = _mm256_srai_epi16(out[0], 8);
    out[1] = _mm256_srai_epi16(out[1], 8);
}

INLINE __m128i load16(const void *p)
{
    return _mm_loadu_si128(p);
}

/* The integer scales of one half of the columns. */
INLINE void unpack_scales(enum gguf_type type, const struct packed *g, int column_half, __m256i scale[2])
{
    if (type == GGUF_TYPE_Q4_K)
        twice(scale, _mm_and_si128(load16(block_q4_k(g)->scale[g->i]), _mm_set1_epi8(63)));
    else if (type == GGUF_TYPE_Q5_K)
        twice(scale, _mm_and_si128(load16(block_q5_k(g)->scale[g->i]), _mm_set1_epi8(63)));
    else if (type == GGUF_TYPE_Q6_K)
        twice_signed(scale, load16(panel_q6_scales(g->panel) + (g->block * GROUPS_PER_K + g->i) * 32 + column_half * 16));
}

/* What a block's groups have in common; nothing for types that are no k-quants. */
struct common {
    __m256 d[2], dmin[2]; /* [half of the rows] */
};

INLINE void load_common(enum gguf_type type, struct common *c, const void *panel, size_t n_groups, size_t block)
{
    const struct packed g = {panel, n_groups, block, 0, NULL, NULL};
    const uint16_t *d = NULL, *dmin = NULL;
    if (type == GGUF_TYPE_Q4_K) {
        d = block_q4_k(&g)->d;
        dmin = block_q4_k(&g)->dmin;
    } else if (type == GGUF_TYPE_Q5_K) {
        d = block_q5_k(&g)->d;
        dmin = block_q5_k(&g)->dmin;
    } else if (type == GGUF_TYPE_Q6_K) {
        d = panel_q6_d(panel, n_groups) + block * 16;
    }
    EACH_HALF(h)
    {
        c->d[h] = d ? halves(d + h * 8) : _mm256_setzero_ps();
        c->dmin[h] = dmin ? halves(dmin + h * 8) : _mm256_setzero_ps();
    }
}

/* dmin times the 6-bit minimums of group i of its block. */
INLINE void unpack_min(const __m256 dmin[2], const uint8_t scale[16], const uint8_t min[16], size_t i, __m256 out[2])
{
    __m128i m = _mm_and_si128(_mm_srl_epi16(load16(min), _mm_cvtsi32_si128((int)(i & 4))), _mm_set1_epi8(15));
    m = _mm_or_si128(m, _mm_and_si128(_mm_srli_epi16(load16(scale), 2), _mm_set1_epi8(48)));
    out[0] = _mm256_mul_ps(dmin[0], _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(m)));
    out[1] = _mm256_mul_ps(dmin[1], _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(m, 8))));
}

INLINE void unpack_factors(enum gguf_type type, const struct packed *g, const struct common *c, __m256 d[2], __m256 min[2])
{
    const bool k_quant = type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q5_K || type == GGUF_TYPE_Q6_K;
    EACH_HALF(h) d[h] = k_quant ? c->d[h] : halves(panel_0_d(g->panel) + (g->block * GROUPS_PER_K + g->i) * 16 + h * 8);
    if (type == GGUF_TYPE_Q4_K)
        unpack_min(c->dmin, block_q4_k(g)->scale[g->i], block_q4_k(g)->min[g->i % 4], g->i, min);
    else if (type == GGUF_TYPE_Q5_K)
        unpack_min(c->dmin, block_q5_k(g)->scale[g->i], block_q5_k(g)->min[g->i % 4], g->i, min);
}

/* ---- multiply a group with n tokens side by side ---- */

/* These keep the order of lines and tokens as it is written. Left to itself the compiler unpacks all lines and broadcasts all
 * activations before it uses any, and has to put them out to memory. */
#define IN_REGISTER(v) __asm__ volatile("" : "+x"(v))

typedef int32_t __attribute__((may_alias, aligned(1))) any_word;

INLINE __m256i word_now(const int8_t *p)
{
    __m256i v;
    __asm__ volatile("vpbroadcastd %1, %0" : "=x"(v) : "m"(*(const any_word *)(const void *)p));
    return v;
}

INLINE __m256i load_now(const __m256i *p)
{
    __m256i v;
    __asm__ volatile("vmovdqa %1, %0" : "=x"(v) : "m"(*p));
    return v;
}

/* The exact 32-bit sums of n tokens, times the integer scales, for both halves of the rows. The quants are in `packed` or in
 * `unpacked`; the other is NULL. */
INLINE void integer_sums(enum gguf_type type, const struct packed *packed, const struct group *unpacked, const struct act *x,
    size_t at, int n, __m256i sum[][2])
{
    const int8_t *a = x->q + at * ACT_GROUP;
    const __m256i one = _mm256_set1_epi16(1);
    const bool two_scales = type == GGUF_TYPE_Q5_K || type == GGUF_TYPE_Q6_K; /* 16 bits hold half of the columns */
    const int shift = type == GGUF_TYPE_Q6_K ? 5 : type == GGUF_TYPE_Q5_0 ? 4 : type == GGUF_TYPE_Q4_0 ? 3 : 0;
    __m256i acc[ABREAST][2];
    EACH(half, 2) /* of the columns */
    {
        EACH(k, 4)
        {
            const int j = half * 4 + k;
            __m256i w[2];
            EACH_HALF(h)
            {
                if (packed) {
                    w[h] = unpack_line(type, packed, j, h);
                    IN_REGISTER(w[h]);
                } else {
                    w[h] = load_now(&unpacked->q[j][h]);
                }
            }
            EACH_TOKEN(t, n)
            {
                const __m256i b = word_now(a + t * ACT_GROUP + j * 4);
                EACH_HALF(h)
                {
                    if (type == GGUF_TYPE_Q8_0) { /* |q| * (a with the sign of q) */
                        __m256i p =
                            _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(w[h]), _mm256_sign_epi8(b, w[h])), one);
                        sum[t][h] = j == 0 ? p : _mm256_add_epi32(sum[t][h], p);
                        IN_REGISTER(sum[t][h]);
                    } else {
                        __m256i p = _mm256_maddubs_epi16(w[h], b);
                        acc[t][h] = j == 0 || (k == 0 && two_scales) ? p : _mm256_add_epi16(acc[t][h], p);
                        IN_REGISTER(acc[t][h]);
                    }
                }
            }
        }
        if (type == GGUF_TYPE_Q8_0)
            continue;
        if (shift) { /* the offset of the quants, times the sums of the activations that went into a lane */
            EACH_TOKEN(t, n)
            {
                const __m256i offset =
                    _mm256_slli_epi16(word_now((const int8_t *)(x->pair + (at + (size_t)t) * 4 + half * 2)), shift);
                EACH_HALF(h) acc[t][h] = _mm256_sub_epi16(acc[t][h], offset);
            }
        }
        if (half == 0 && !two_scales)
            continue;
        __m256i scale[2] = {one, one};
        if (two_scales || type == GGUF_TYPE_Q4_K) {
            if (packed)
                unpack_scales(type, packed, half, scale);
            else
                EACH_HALF(h) scale[h] = load_now(&unpacked->scale[type == GGUF_TYPE_Q6_K ? half : 0][h]);
        }
        EACH_TOKEN(t, n) EACH_HALF(h)
        {
            const __m256i s = _mm256_madd_epi16(acc[t][h], scale[h]);
            sum[t][h] = two_scales && half ? _mm256_add_epi32(sum[t][h], s) : s;
        }
    }
}

/* Adds the group's share of n consecutive tokens, from index `at` of the scales on, to acc[n][half of the rows]. */
INLINE void add_tokens(enum gguf_type type, const struct packed *packed, const struct common *common,
    const struct group *unpacked, const struct act *x, size_t at, int n, __m256 (*acc)[2])
{
    const bool has_min = type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q5_K;
    __m256i sum[ABREAST][2];
    integer_sums(type, packed, unpacked, x, at, n, sum);
    __m256 d[2], min[2];
    if (packed)
        unpack_factors(type, packed, common, d, min);
    EACH_TOKEN(t, n)
    {
        const __m256 token_d = _mm256_broadcast_ss(x->d + at + t),
                     token_sum = has_min ? _mm256_broadcast_ss(x->sum + at + t) : _mm256_setzero_ps();
        EACH_HALF(h)
        {
            __m256 y = _mm256_mul_ps(_mm256_cvtepi32_ps(sum[t][h]), packed ? d[h] : unpacked->d[h]);
            y = _mm256_fmadd_ps(y, token_d, acc[t][h]);
            acc[t][h] = has_min ? _mm256_fnmadd_ps(token_sum, packed ? min[h] : unpacked->min[h], y) : y;
        }
    }
}

/* ---- the loops ---- */

INLINE size_t groups_of_block(size_t n_groups, size_t block)
{
    const size_t left = n_groups - block * GROUPS_PER_K;
    return left < GROUPS_PER_K ? left : GROUPS_PER_K;
}

/* n <= FEW tokens: every group once, in registers. */
INLINE void few_tokens(enum gguf_type type, int n, const char *panel, const char *end, size_t n_groups, const struct act *x,
    float *y, size_t y_stride)
{
    const size_t group_bytes = panel_group_bytes(type);
    const char *ahead = panel + AHEAD;
    size_t at = 0;
    __m256 acc[FEW][2];
    EACH_TOKEN(t, n) EACH_HALF(h) acc[t][h] = _mm256_setzero_ps();
    for (size_t block = 0; block * GROUPS_PER_K < n_groups; block++) {
        struct common common;
        load_common(type, &common, panel, n_groups, block);
        for (size_t i = 0; i < groups_of_block(n_groups, block); i++, at += (size_t)n, ahead += group_bytes) {
            ask_for(ahead, group_bytes, end);
            const struct packed g = find_group(type, panel, n_groups, block, i);
            add_tokens(type, &g, &common, NULL, x, at, n, acc);
        }
    }
    EACH_TOKEN(t, n) EACH_HALF(h) _mm256_storeu_ps(y + (size_t)t * y_stride + h * 8, acc[t][h]);
}

INLINE void unpack_group(enum gguf_type type, struct group *g, const struct packed *packed, const struct common *common)
{
    EACH(j, 8) EACH_HALF(h) g->q[j][h] = unpack_line(type, packed, j, h);
    unpack_scales(type, packed, 0, g->scale[0]);
    if (type == GGUF_TYPE_Q6_K)
        unpack_scales(type, packed, 1, g->scale[1]);
    unpack_factors(type, packed, common, g->d, g->min);
}

/* Any number of tokens: every group is unpacked once for RUN of them. */
INLINE void many_tokens(
    enum gguf_type type, const char *panel, const char *end, size_t n_groups, const struct act *x, float *y, size_t y_stride)
{
    const size_t n_tokens = (size_t)x->n_tokens, group_bytes = panel_group_bytes(type);
    for (size_t first = 0; first < n_tokens; first += RUN) {
        const size_t n = n_tokens - first < RUN ? n_tokens - first : RUN;
        __m256 acc[RUN][2];
        memset(acc, 0, n * sizeof acc[0]);
        for (size_t block = 0; block * GROUPS_PER_K < n_groups; block++) {
            struct common common;
            load_common(type, &common, panel, n_groups, block);
            for (size_t i = 0; i < groups_of_block(n_groups, block); i++) {
                const size_t number = block * GROUPS_PER_K + i, at = number * n_tokens + first;
                ask_for(panel + AHEAD + number * group_bytes, group_bytes, end);
                const struct packed packed = find_group(type, panel, n_groups, block, i);
                struct group g;
                unpack_group(type, &g, &packed, &common);
                size_t t = 0;
                for (; t + ABREAST <= n; t += ABREAST) {
                    __asm__ volatile("" : "+m"(g)); /* read from memory each time: there are not enough registers for it */
                    add_tokens(type, NULL, NULL, &g, x, at + t, ABREAST, acc + t);
                }
                if (n - t >= 2) {
                    add_tokens(type, NULL, NULL, &g, x, at + t, 2, acc + t);
                    t += 2;
                }
                if (n > t)
                    add_tokens(type, NULL, NULL, &g, x, at + t, 1, acc + t);
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
        switch (x->n_tokens) {
        case 1:
            few_tokens(type, 1, panel, end, n_groups, x, y, y_stride);
            break;
        case 2:
            few_tokens(type, 2, panel, end, n_groups, x, y, y_stride);
            break;
        case 3:
            few_tokens(type, 3, panel, end, n_groups, x, y, y_stride);
            break;
        case 4:
            few_tokens(type, 4, panel, end, n_groups, x, y, y_stride);
            break;
        default:
            many_tokens(type, panel, end, n_groups, x, y, y_stride);
            break;
        }
    }
}

QUANTISED_TYPES(MATMUL_OF_TYPE)

const struct kernels kernels_avx2 = {.level = "avx2", .cheap_rows = 4, LANES_KERNELS};
