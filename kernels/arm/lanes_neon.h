/* 16 float lanes as four 128-bit registers: what kernels/lanes.h needs, for ARMv8-A. */
#ifndef QUERN_LANES_NEON_H
#define QUERN_LANES_NEON_H

#include <arm_neon.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    float32x4_t p[4];
} v16;

enum { V16_ROWS = 6 }; /* 24 accumulators, 4 columns and what they are multiplied by, of 32 registers */

#define LANES static inline __attribute__((always_inline))

/* The same expression of a part i for all four. */
#define PARTS(expression)                                                                                               \
    (v16)                                                                                                               \
    {                                                                                                                   \
        {                                                                                                               \
            PART(expression, 0), PART(expression, 1), PART(expression, 2), PART(expression, 3)                          \
        }                                                                                                               \
    }
#define PART(expression, index)                                                                                         \
    __extension__({                                                                                                     \
        enum { i = index };                                                                                             \
        expression;                                                                                                     \
    })

LANES v16 v16_load(const float *p)
{
    return PARTS(vld1q_f32(p + i * 4));
}
LANES void v16_store(float *p, v16 v)
{
    for (int i = 0; i < 4; i++)
        vst1q_f32(p + i * 4, v.p[i]);
}
LANES v16 v16_load_f16(const uint16_t *p)
{
    return PARTS(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + i * 4))));
}
LANES v16 v16_load_bf16(const uint16_t *p)
{
    return PARTS(vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(p + i * 4)), 16)));
}
LANES void v16_store_f16(uint16_t *p, v16 v)
{
    for (int i = 0; i < 4; i++)
        vst1_u16(p + i * 4, vreinterpret_u16_f16(vcvt_f16_f32(v.p[i])));
}
LANES void v16_store_i8(int8_t *p, v16 v, int16_t pair[2])
{
    int16x8_t lo = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(v.p[0])), vmovn_s32(vcvtnq_s32_f32(v.p[1])));
    int16x8_t hi = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(v.p[2])), vmovn_s32(vcvtnq_s32_f32(v.p[3])));
    int8x16_t q = vcombine_s8(vmovn_s16(lo), vmovn_s16(hi));
    vst1q_s8(p, q);
    int16x8_t sums = vpaddlq_s8(q);
    int16x4_t s = vadd_s16(vget_low_s16(sums), vget_high_s16(sums));
    s = vadd_s16(s, vext_s16(s, s, 2));
    vst1_lane_s16(pair, s, 0);
    vst1_lane_s16(pair + 1, s, 1);
}
LANES v16 v16_set1(float x)
{
    /* Numbers that rows are multiplied by are fetched one after the other, each where it is used: all at once would leave too few
     * registers for V16_ROWS. */
    if (!__builtin_constant_p(x))
        __asm__ volatile("" : "+w"(x));
    float32x4_t v = vdupq_n_f32(x);
    return (v16){{v, v, v, v}};
}
LANES v16 v16_spread(const float *p)
{
    float32x4_t x = vld1q_f32(p);
    return (v16){{vdupq_laneq_f32(x, 0), vdupq_laneq_f32(x, 1), vdupq_laneq_f32(x, 2), vdupq_laneq_f32(x, 3)}};
}
LANES v16 v16_add(v16 a, v16 b)
{
    return PARTS(vaddq_f32(a.p[i], b.p[i]));
}
LANES v16 v16_sub(v16 a, v16 b)
{
    return PARTS(vsubq_f32(a.p[i], b.p[i]));
}
LANES v16 v16_mul(v16 a, v16 b)
{
    return PARTS(vmulq_f32(a.p[i], b.p[i]));
}
LANES v16 v16_div(v16 a, v16 b)
{
    return PARTS(vdivq_f32(a.p[i], b.p[i]));
}
LANES v16 v16_fma(v16 a, v16 b, v16 c)
{
    return PARTS(vfmaq_f32(c.p[i], a.p[i], b.p[i]));
}
LANES v16 v16_fnma(v16 a, v16 b, v16 c)
{
    return PARTS(vfmsq_f32(c.p[i], a.p[i], b.p[i]));
}
LANES v16 v16_above(v16 a, v16 b) /* not FMAX, which would hand on a NaN */
{
    return PARTS(vbslq_f32(vcgtq_f32(a.p[i], b.p[i]), a.p[i], b.p[i]));
}
LANES v16 v16_below(v16 a, v16 b)
{
    return PARTS(vbslq_f32(vcltq_f32(a.p[i], b.p[i]), a.p[i], b.p[i]));
}
LANES v16 v16_abs(v16 a)
{
    return PARTS(vabsq_f32(a.p[i]));
}
LANES v16 v16_round(v16 a)
{
    return PARTS(vrndnq_f32(a.p[i]));
}
LANES v16 v16_ldexp(v16 v, v16 n)
{
    return PARTS(vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(v.p[i]), vshlq_n_s32(vcvtnq_s32_f32(n.p[i]), 23))));
}
LANES v16 v16_keep(v16 x, v16 limit, v16 v)
{
    return PARTS(vreinterpretq_f32_u32(vandq_u32(vcgeq_f32(x.p[i], limit.p[i]), vreinterpretq_u32_f32(v.p[i]))));
}
LANES bool v16_any_above(v16 a, v16 b)
{
    uint32x4_t lo = vorrq_u32(vcgtq_f32(a.p[0], b.p[0]), vcgtq_f32(a.p[1], b.p[1]));
    uint32x4_t hi = vorrq_u32(vcgtq_f32(a.p[2], b.p[2]), vcgtq_f32(a.p[3], b.p[3]));
    return vmaxvq_u32(vorrq_u32(lo, hi)) != 0;
}
LANES float v16_sum(v16 v)
{
    float32x4_t a = vaddq_f32(vaddq_f32(v.p[0], v.p[2]), vaddq_f32(v.p[1], v.p[3]));
    float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}
LANES float v16_max(v16 v)
{
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(v.p[0], v.p[1]), vmaxq_f32(v.p[2], v.p[3])));
}

#undef PARTS
#undef PART

#endif
