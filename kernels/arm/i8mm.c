/* ARMv8.6-A's 8-bit matrix multiplication: Neoverse V1 and N2 (Graviton 3 and 4), Cortex-X2 and later.
 *
 * SMMLA multiplies 2 rows of 8 bytes with 2 columns of 8 and adds to the 2 x 2 sums in a register, exactly: twice the products of
 * SDOT. Two lines of a panel, zipped by words, hold 8 columns of each of their rows one after the other; the activations of two
 * tokens are put side by side. Up to three tokens go by SDOT.
 *
 * Instructions for 256 multiply-adds (8 SMMLA), by gcc 12: Q4_K 27 for 64 tokens, Q6_K 32. Most of the rest is the scaling of
 * every group's sums. */
#include "kernels/levels.h"
#include "kernels/panel.h"
#include "kernels/arm/lanes_neon.h"

#include "kernels/lanes.h"

#include "kernels/arm/groups.h"
#include "kernels/arm/sdot.h"

/* A part of a tile is half a panel, 8 rows. What belongs to rows 2k and 2k + 1 of a panel is at k: quants as SMMLA wants them, 8
 * columns of either row; scales and sums as it leaves them, row 2k with both tokens, then row 2k + 1 with both. */
#define OWN_TILE
#define FEW_TOKENS 3
#define TILE_TOKENS 4
enum { TILE_QUARTERS = 2, PAIRS = TILE_TOKENS / 2 };

INLINE float32x4_t twice_f32(float32x4_t v, int upper)
{
    return upper ? vzip2q_f32(v, v) : vzip1q_f32(v, v);
}

INLINE int32x4_t twice_s32(int32x4_t v, int upper)
{
    return upper ? vzip2q_s32(v, v) : vzip1q_s32(v, v);
}

INLINE void put_scales(enum gguf_type type, struct chunk *c, size_t g, const struct scales *s)
{
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        c->s[g][k].d = twice_f32(s->d[k / 2], k & 1);
        if (has_minimum(type))
            c->s[g][k].minus_min = twice_f32(s->minus_min[k / 2], k & 1);
        if (type == GGUF_TYPE_Q6_K) {
            c->s[g][k].scale0 = twice_s32(s->scale0[k / 2], k & 1);
            c->s[g][k].scale1 = twice_s32(s->scale1[k / 2], k & 1);
        }
    }
}

/* The quants of 4 rows: [k][c] has columns 8c .. 8c + 7 of rows 2k and 2k + 1 of them. */
INLINE void load_pairs(enum gguf_type type, int8x16_t q[2][4], const struct lines *at, int quarter)
{
    int8x16_t lines[8];
    load_quants(type, lines, at, quarter, true);
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        int32x4_t a = vreinterpretq_s32_s8(lines[c * 2]), b = vreinterpretq_s32_s8(lines[c * 2 + 1]);
        q[0][c] = vreinterpretq_s8_s32(vzip1q_s32(a, b));
        q[1][c] = vreinterpretq_s8_s32(vzip2q_s32(a, b));
    }
}

INLINE void put_quants(enum gguf_type type, struct chunk *c, size_t g, const struct lines *lines)
{
    for (int r = 0; r < 4; r++) {
        int8x16_t q[2][4];
        load_pairs(type, q, lines, r);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            vst1q_s8(c->q[g][r][j], q[j / 4][j % 4]);
    }
}

/* Adds the share of two rows and two tokens; d and sum are the tokens', [first, second, first, second]. */
INLINE float32x4_t add_pair(enum gguf_type type, const int8x16_t q[4], const struct quarter *s, const int8x16_t a[4],
                             float32x4_t base, float32x4_t d, float32x4_t sum, float32x4_t acc)
{
    float32x4_t whole;
    if (sums_have_base(type)) {
        int32x4_t s0 = vmmlaq_s32(vmmlaq_s32(from_base(base), q[0], a[0]), q[1], a[1]);
        whole = above_base(vmmlaq_s32(vmmlaq_s32(s0, q[2], a[2]), q[3], a[3]), base);
    } else {
        int32x4_t s0 = vmmlaq_s32(vmmlaq_s32(nothing(), q[0], a[0]), q[1], a[1]);
        int32x4_t s1 = vmmlaq_s32(vmmlaq_s32(nothing(), q[2], a[2]), q[3], a[3]);
        whole = vcvtq_f32_s32(vmlaq_s32(vmulq_s32(s0, s->scale0), s1, s->scale1));
    }
    acc = vfmaq_f32(acc, vmulq_f32(whole, s->d), d);
    return has_minimum(type) ? vfmaq_f32(acc, s->minus_min, sum) : acc;
}

/* Two neighbouring floats, twice; the second is the first if there is no other. */
INLINE float32x4_t neighbours(const float *p, bool alone)
{
    if (alone)
        return vdupq_n_f32(*p);
    float32x2_t v = vld1_f32(p);
    return vcombine_f32(v, v);
}

/* Tokens t and t + 1 share acc[t] and acc[t + 1] as [8 pairs of rows][4] until the end; an odd last token is its own neighbour.
 * See tile.h. */
INLINE void add_tile(enum gguf_type type, int n, bool ready, const struct chunk *c, const struct lines *lines, size_t i,
                     size_t count, int part, const struct act *x, size_t token, float (*acc)[PANEL_ROWS])
{
    const int pairs = (n + 1) / 2;
    float32x4_t sums[PAIRS][4];
#pragma GCC unroll 2
    for (int p = 0; p < pairs; p++)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++)
            sums[p][k] = vld1q_f32(acc[p * 2] + (part * 4 + k) * 4);
    const float32x4_t base = sum_base();
    const size_t n_tokens = (size_t)x->n_tokens;
    const int8_t *activations = x->q + (i * n_tokens + token) * ACT_GROUP;
    const float *ds = x->d + i * n_tokens + token, *sums_of_x = x->sum + i * n_tokens + token;
    const int8_t (*ready_q)[8][16] = c->q[0] + part * TILE_QUARTERS;
    const struct quarter *s = c->s[0] + part * TILE_QUARTERS * 2;
    struct lines at = *lines;
    for (size_t g = 0; g < count; g++, next_group(type, &at)) {
        int8x16_t a[PAIRS][4]; /* 8 columns of either token */
        float32x4_t d[PAIRS], sum[PAIRS];
#pragma GCC unroll 2
        for (int p = 0; p < pairs; p++) {
            const bool alone = p * 2 + 1 == n;
            const int8_t *a0 = activations + p * 2 * ACT_GROUP, *a1 = alone ? a0 : a0 + ACT_GROUP;
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                int64x2_t v0 = vreinterpretq_s64_s8(vld1q_s8(a0 + h * 16)), v1 = vreinterpretq_s64_s8(vld1q_s8(a1 + h * 16));
                a[p][h * 2] = vreinterpretq_s8_s64(vzip1q_s64(v0, v1));
                a[p][h * 2 + 1] = vreinterpretq_s8_s64(vzip2q_s64(v0, v1));
            }
            d[p] = neighbours(ds + p * 2, alone);
            sum[p] = has_minimum(type) ? neighbours(sums_of_x + p * 2, alone) : d[p];
        }
#pragma GCC unroll 2
        for (int r = 0; r < TILE_QUARTERS; r++) {
            int8x16_t q[2][4];
            if (!ready)
                load_pairs(type, q, &at, part * TILE_QUARTERS + r);
#pragma GCC unroll 2
            for (int k = 0; k < 2; k++) {
#pragma GCC unroll 4
                for (int j = 0; j < 4 && ready; j++)
                    q[k][j] = vld1q_s8(ready_q[r][k * 4 + j]);
#pragma GCC unroll 2
                for (int p = 0; p < pairs; p++)
                    sums[p][r * 2 + k] = add_pair(type, q[k], &s[r * 2 + k], a[p], base, d[p], sum[p], sums[p][r * 2 + k]);
                __asm__ volatile("" ::: "memory"); /* rows after rows: all loads first would be more than the registers hold */
            }
        }
        activations += n_tokens * ACT_GROUP;
        ds += n_tokens;
        sums_of_x += n_tokens;
        ready_q += 4;
        s += SCALES_OF_A_GROUP;
    }
#pragma GCC unroll 2
    for (int p = 0; p < pairs; p++)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++)
            vst1q_f32(acc[p * 2] + (part * 4 + k) * 4, sums[p][k]);
}

INLINE void finish_tokens(float (*acc)[PANEL_ROWS], size_t n)
{
    for (size_t t = 0; t < n; t += 2) {
        float32x4_t v[2 * 4];
        for (int k = 0; k < 8; k++)
            v[k] = vld1q_f32(acc[t] + k * 4);
        for (int k = 0; k < 4; k++) {
            vst1q_f32(acc[t] + k * 4, vuzp1q_f32(v[k * 2], v[k * 2 + 1]));
            vst1q_f32(acc[t + 1] + k * 4, vuzp2q_f32(v[k * 2], v[k * 2 + 1]));
        }
    }
}

#include "kernels/arm/matmul.h"

const struct kernels kernels_i8mm = {.level = "i8mm", .cheap_rows = 2, LANES_KERNELS};
