/* A group of 32 columns of a panel in NEON registers, and what becomes of its integer sums. Shared by all levels of this folder.
 *
 * A register holds one word of 4 columns for 4 rows, a quarter of a line of a panel. All quants fit in signed bytes. */
#ifndef QUERN_ARM_GROUPS_H
#define QUERN_ARM_GROUPS_H

#include "kernels/panel.h"

/* What multiplies the integer sums, for all 16 rows: [quarter] of 4 rows. What of it is used depends on the type. */
struct scales {
    float32x4_t d[4];      /* Q4_K, Q5_K: d * scale, exact; else d */
    float32x4_t min[4];    /* Q4_K, Q5_K: dmin * min, exact */
    int32x4_t scale0[4];   /* Q6_K: of columns 0..15 */
    int32x4_t scale1[4];   /* Q6_K: of columns 16..31 */
};

INLINE float32x4_t halves(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

/* Bytes moved up by n bits, or down by -n. */
INLINE uint8x16_t shift(uint8x16_t v, int n)
{
    return n > 0 ? v << vdupq_n_u8((uint8_t)n) : n < 0 ? v >> vdupq_n_u8((uint8_t)-n) : v;
}

INLINE void widen_u8(uint8x16_t v, float32x4_t out[4])
{
    uint16x8_t lo = vmovl_u8(vget_low_u8(v)), hi = vmovl_high_u8(v);
    out[0] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(lo)));
    out[1] = vcvtq_f32_u32(vmovl_high_u16(lo));
    out[2] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(hi)));
    out[3] = vcvtq_f32_u32(vmovl_high_u16(hi));
}

INLINE void widen_s8(int8x16_t v, int32x4_t out[4])
{
    int16x8_t lo = vmovl_s8(vget_low_s8(v)), hi = vmovl_high_s8(v);
    out[0] = vmovl_s16(vget_low_s16(lo));
    out[1] = vmovl_high_s16(lo);
    out[2] = vmovl_s16(vget_low_s16(hi));
    out[3] = vmovl_high_s16(hi);
}

INLINE void load_scales_k(struct scales *s, const uint16_t *d, const uint16_t *dmin, const uint8_t scale[8][16], const uint8_t min[4][16], size_t i)
{
    uint8x16_t packed = vld1q_u8(scale[i]), m = vld1q_u8(min[i % 4]);
    m = i < 4 ? vandq_u8(m, vdupq_n_u8(15)) : vshrq_n_u8(m, 4);
    m = vorrq_u8(m, vshlq_n_u8(vshrq_n_u8(packed, 6), 4));
    widen_u8(vandq_u8(packed, vdupq_n_u8(63)), s->d);
    widen_u8(m, s->min);
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        s->d[r] = vmulq_f32(s->d[r], halves(d + r * 4));
        s->min[r] = vmulq_f32(s->min[r], halves(dmin + r * 4));
    }
}

INLINE void load_d(struct scales *s, const uint16_t *d)
{
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++)
        s->d[r] = halves(d + r * 4);
}

/* The scales of group i of a panel of n_groups groups. */
INLINE void load_scales(enum gguf_type type, struct scales *s, const void *panel, size_t n_groups, size_t i)
{
    if (type == GGUF_TYPE_Q4_K) {
        const struct panel_q4_k *b = (const struct panel_q4_k *)panel + i / 8;
        load_scales_k(s, b->d, b->dmin, b->scale, b->min, i % 8);
    } else if (type == GGUF_TYPE_Q5_K) {
        const struct panel_q5_k *b = (const struct panel_q5_k *)panel + i / 8;
        load_scales_k(s, b->d, b->dmin, b->scale, b->min, i % 8);
    } else if (type == GGUF_TYPE_Q6_K) {
        const int8_t *scale = panel_q6_scales(panel) + i * 32;
        widen_s8(vld1q_s8(scale), s->scale0);
        widen_s8(vld1q_s8(scale + 16), s->scale1);
        load_d(s, panel_q6_d(panel, n_groups) + i / 8 * 16);
    } else {
        load_d(s, panel_0_d(panel) + i * 16);
    }
}

INLINE void unpack_nibbles(uint8x16_t q[8], const uint8_t b[4][LINE], int quarter)
{
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        uint8x16_t v = vld1q_u8(b[j] + quarter * 16);
        q[j] = vandq_u8(v, vdupq_n_u8(15));
        q[j + 4] = vshrq_n_u8(v, 4);
    }
}

INLINE void unpack_fifth_bits(uint8x16_t q[8], const uint8_t h[LINE], int quarter)
{
    uint8x16_t v = vld1q_u8(h + quarter * 16);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        q[j] = vbslq_u8(vdupq_n_u8(16), shift(v, 4 - j), q[j]);
}

/* What was added to the quants of a type to make them unsigned. */
INLINE int quant_offset(enum gguf_type type)
{
    return type == GGUF_TYPE_Q6_K ? 32 : type == GGUF_TYPE_Q5_0 ? 16 : type == GGUF_TYPE_Q4_0 ? 8 : 0;
}

/* The greatest magnitude of a quant, as load_quants gives it. */
INLINE int quant_magnitude(enum gguf_type type, bool centred)
{
    if (type == GGUF_TYPE_Q8_0)
        return 128;
    int levels = type == GGUF_TYPE_Q6_K ? 64 : type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q4_0 ? 16 : 32;
    return centred && quant_offset(type) ? levels / 2 : levels - 1;
}

/* The quants of 4 rows of group i: line j in q[j]. Centred: the offset is taken off, which pays when several tokens use them; otherwise the caller
 * subtracts offset * the sum of the activations. */
INLINE void load_quants(enum gguf_type type, int8x16_t out[8], const void *panel, size_t n_groups, size_t i, int quarter, bool centred)
{
    uint8x16_t q[8];
    if (type == GGUF_TYPE_Q4_K) {
        unpack_nibbles(q, ((const struct panel_q4_k *)panel)[i / 8].q[i % 8], quarter);
    } else if (type == GGUF_TYPE_Q5_K) {
        const struct panel_q5_k *b = (const struct panel_q5_k *)panel + i / 8;
        unpack_nibbles(q, b->q[i % 8], quarter);
        unpack_fifth_bits(q, b->h[i % 8], quarter);
    } else if (type == GGUF_TYPE_Q6_K) {
        const struct group_q6 *b = panel_q6_groups(panel, n_groups) + i;
        unpack_nibbles(q, b->q, quarter);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            q[j] = vbslq_u8(vdupq_n_u8(48), shift(vld1q_u8(b->h[j / 4] + quarter * 16), 4 - j % 4 * 2), q[j]);
    } else if (type == GGUF_TYPE_Q4_0) {
        unpack_nibbles(q, ((const struct group_q4_0 *)panel_0_groups(panel, n_groups))[i].q, quarter);
    } else if (type == GGUF_TYPE_Q5_0) {
        const struct group_q5_0 *b = (const struct group_q5_0 *)panel_0_groups(panel, n_groups) + i;
        unpack_nibbles(q, b->q, quarter);
        unpack_fifth_bits(q, b->h, quarter);
    } else {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            q[j] = vreinterpretq_u8_s8(vld1q_s8(((const struct group_q8_0 *)panel_0_groups(panel, n_groups))[i].q[j] + quarter * 16));
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        out[j] = vreinterpretq_s8_u8(q[j]);
        if (centred && quant_offset(type))
            out[j] = vsubq_s8(out[j], vdupq_n_s8((int8_t)quant_offset(type)));
    }
}

/* acc and the share of a group and a token: s0 and s1 are the sums over columns 0..15 and 16..31 (Q6_K), or s0 over all 32; d and sum are the token's. */
INLINE float32x4_t add_share(enum gguf_type type, const struct scales *s, int quarter, int32x4_t s0, int32x4_t s1, float d, float sum, float32x4_t acc)
{
    if (type == GGUF_TYPE_Q6_K)
        s0 = vmlaq_s32(vmulq_s32(s0, s->scale0[quarter]), s1, s->scale1[quarter]);
    acc = vfmaq_n_f32(acc, vmulq_f32(vcvtq_f32_s32(s0), s->d[quarter]), d);
    if (type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q5_K)
        acc = vfmsq_n_f32(acc, s->min[quarter], sum);
    return acc;
}

#endif
