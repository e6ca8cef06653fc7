/* NEON as every ARMv8-A has it.
 *
 * SMULL and SMLAL multiply bytes and add up in 16 bits, two registers of them for a register of quants. How many lines can be
 * added before 16 bits overflow follows from the greatest quant, times 127: 17 of 4 bits (8 are needed: 8 * 15 * 127 = 15240), 8
 * of 5 bits (31496), 4 of 6 bits (32004), 2 of 8 bits (2 * 128 * 127 = 32512); centred quants are half as large. SADDLP and
 * SADALP then add pairs into 32 bits.
 *
 * Instructions for 256 multiply-adds, by gcc 12: Q4_K 105 for one token, 65 for 64; Q6_K 150 and 84. */
#include "kernels/levels.h"
#include "kernels/panel.h"
#include "kernels/arm/lanes_neon.h"

#include "kernels/lanes.h"

struct words {
    int8x16_t w[8]; /* word j of the activations, four times */
};

INLINE int32x4_t word(int32x4_t v, int lane)
{
    switch (lane) {
    case 0: return vdupq_laneq_s32(v, 0);
    case 1: return vdupq_laneq_s32(v, 1);
    case 2: return vdupq_laneq_s32(v, 2);
    default: return vdupq_laneq_s32(v, 3);
    }
}

INLINE struct words load_words(const int8_t *a)
{
    struct words words;
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        words.w[j] = vreinterpretq_s8_s32(word(vreinterpretq_s32_s8(vld1q_s8(a + j / 4 * 16)), j % 4));
    return words;
}

INLINE int32x4_t dot(const int8x16_t q[8], int first, int last, int magnitude, struct words a, const int32x4_t *from)
{
    const int fit = INT16_MAX / (magnitude * 127);
    int32x4_t pairs01, pairs23; /* of rows 0 and 1, 2 and 3 */
#pragma GCC unroll 8
    for (int j = first; j < last; j += fit) {
        int16x8_t s01 = vmull_s8(vget_low_s8(q[j]), vget_low_s8(a.w[j])), s23 = vmull_high_s8(q[j], a.w[j]);
#pragma GCC unroll 8
        for (int i = first; i < last; i++)
            if (i > j && i < j + fit) {
                s01 = vmlal_s8(s01, vget_low_s8(q[i]), vget_low_s8(a.w[i]));
                s23 = vmlal_high_s8(s23, q[i], a.w[i]);
            }
        if (fit >= 2 * (last - first)) /* pairs too can be added in 16 bits */
            return from ? vpadalq_s16(*from, vpaddq_s16(s01, s23)) : vpaddlq_s16(vpaddq_s16(s01, s23));
        pairs01 = j == first ? vpaddlq_s16(s01) : vpadalq_s16(pairs01, s01);
        pairs23 = j == first ? vpaddlq_s16(s23) : vpadalq_s16(pairs23, s23);
    }
    return from ? vaddq_s32(*from, vpaddq_s32(pairs01, pairs23)) : vpaddq_s32(pairs01, pairs23);
}

enum { TILE_QUARTERS = 2 };
#define SUMS_HAVE_BASE false
#define FEW_TOKENS 2
#define TILE_TOKENS 2
#include "kernels/arm/matmul.h"

const struct kernels kernels_neon = {.level = "neon", .cheap_rows = 1, LANES_KERNELS};
