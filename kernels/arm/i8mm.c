/* ARMv8.6-A's 8-bit matrix multiplication: Neoverse V1 and N2 (Graviton 3 and 4), Cortex-X2 and later.
 *
 * SMMLA multiplies 2 rows of 8 bytes with 2 columns of 8 and adds to the 2 x 2 sums in a register, exactly: twice the products of SDOT. Two lines of a panel, zipped by
 * words, hold 8 columns of each of their rows one after the other; the activations of two tokens are put side by side. One token alone goes by SDOT.
 *
 * Instructions for 256 multiply-adds (8 SMMLA), by gcc 12: Q4_K 31 for 64 tokens, Q6_K 38. Most of the rest is the scaling of every group's sums. */
#include "kernels/levels.h"
#include "kernels/panel.h"
#include "kernels/arm/lanes_neon.h"

#include "kernels/lanes.h"

#include "kernels/arm/groups.h"
#include "kernels/arm/sdot.h"

/* Half a panel, 8 rows, of a group: what belongs to rows 2k and 2k + 1 of the half at [k]. Sums, scales and outputs lie as SMMLA leaves them:
 * row 2k with both tokens, then row 2k + 1 with both. */
struct half {
    int8x16_t q[4][4]; /* [k][c]: columns 8c .. 8c + 7 of either row */
    float32x4_t d[4], min[4];
    int32x4_t scale0[4], scale1[4];
};

INLINE float32x4_t twice_f32(const float32x4_t v[4], int k)
{
    return k & 1 ? vzip2q_f32(v[k / 2], v[k / 2]) : vzip1q_f32(v[k / 2], v[k / 2]);
}

INLINE int32x4_t twice_s32(const int32x4_t v[4], int k)
{
    return k & 1 ? vzip2q_s32(v[k / 2], v[k / 2]) : vzip1q_s32(v[k / 2], v[k / 2]);
}

INLINE void load_half(enum gguf_type type, struct half *h, const void *panel, size_t n_groups, size_t i, int which, const struct scales *s)
{
#pragma GCC unroll 2
    for (int part = 0; part < 2; part++) {
        int8x16_t lines[8];
        load_quants(type, lines, panel, n_groups, i, which * 2 + part, true);
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) {
            int32x4_t a = vreinterpretq_s32_s8(lines[c * 2]), b = vreinterpretq_s32_s8(lines[c * 2 + 1]);
            h->q[part * 2][c] = vreinterpretq_s8_s32(vzip1q_s32(a, b));
            h->q[part * 2 + 1][c] = vreinterpretq_s8_s32(vzip2q_s32(a, b));
        }
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        h->d[k] = twice_f32(s->d + which * 2, k);
        if (type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q5_K)
            h->min[k] = twice_f32(s->min + which * 2, k);
        if (type == GGUF_TYPE_Q6_K) {
            h->scale0[k] = twice_s32(s->scale0 + which * 2, k);
            h->scale1[k] = twice_s32(s->scale1 + which * 2, k);
        }
    }
}

/* Adds the share of two tokens with activations a0 and a1 to acc[k]; d and sum are theirs, [first, second, first, second]. */
INLINE void add_pair(enum gguf_type type, const struct half *h, const int8_t *a0, const int8_t *a1, float32x4_t d, float32x4_t sum, float *acc)
{
    int8x16_t a[4]; /* 8 columns of either token */
#pragma GCC unroll 2
    for (int c = 0; c < 4; c += 2) {
        int64x2_t v0 = vreinterpretq_s64_s8(vld1q_s8(a0 + c * 8)), v1 = vreinterpretq_s64_s8(vld1q_s8(a1 + c * 8));
        a[c] = vreinterpretq_s8_s64(vzip1q_s64(v0, v1));
        a[c + 1] = vreinterpretq_s8_s64(vzip2q_s64(v0, v1));
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        int32x4_t s0 = vmmlaq_s32(vmmlaq_s32(vdupq_n_s32(0), h->q[k][0], a[0]), h->q[k][1], a[1]);
        if (type == GGUF_TYPE_Q6_K) {
            int32x4_t s1 = vmmlaq_s32(vmmlaq_s32(vdupq_n_s32(0), h->q[k][2], a[2]), h->q[k][3], a[3]);
            s0 = vmlaq_s32(vmulq_s32(s0, h->scale0[k]), s1, h->scale1[k]);
        } else {
            s0 = vmmlaq_s32(vmmlaq_s32(s0, h->q[k][2], a[2]), h->q[k][3], a[3]);
        }
        float32x4_t v = vfmaq_f32(vld1q_f32(acc + k * 4), vmulq_f32(vcvtq_f32_s32(s0), h->d[k]), d);
        if (type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q5_K)
            v = vfmsq_f32(v, h->min[k], sum);
        vst1q_f32(acc + k * 4, v);
    }
}

/* Two neighbouring floats, twice. */
INLINE float32x4_t neighbours(const float *p)
{
    float32x2_t v = vld1_f32(p);
    return vcombine_f32(v, v);
}

#define SEVERAL_TOKENS
/* Tokens t and t + 1 share acc[t] and acc[t + 1] as [8 pairs of rows][4] until the end; an odd last token is its own neighbour. */
INLINE void run_tokens(enum gguf_type type, const char *panel, size_t n_groups, const struct act *x, size_t first, size_t n, float (*acc)[PANEL_ROWS])
{
    for (size_t i = 0; i < n_groups; i++) {
        struct scales s;
        load_scales(type, &s, panel, n_groups, i);
        const size_t at = i * (size_t)x->n_tokens + first;
        const int8_t *a = x->q + at * ACT_GROUP;
        const float *d = x->d + at, *sum = x->sum + at;
#pragma GCC unroll 2
        for (int which = 0; which < 2; which++) {
            struct half h;
            load_half(type, &h, panel, n_groups, i, which, &s);
            size_t t = 0;
            for (; t + 2 <= n; t += 2)
                add_pair(type, &h, a + t * ACT_GROUP, a + (t + 1) * ACT_GROUP, neighbours(d + t), neighbours(sum + t), acc[t] + which * 16);
            if (t < n)
                add_pair(type, &h, a + t * ACT_GROUP, a + t * ACT_GROUP, vdupq_n_f32(d[t]), vdupq_n_f32(sum[t]), acc[t] + which * 16);
        }
    }
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

const struct kernels kernels_i8mm = {.level = "i8mm", ARM_KERNELS};
