/* NEON as every ARMv8-A has it.
 *
 * SMULL and SMLAL multiply bytes and add up in 16 bits, two registers of them for a register of quants. How many lines can be added before 16 bits
 * overflow follows from the greatest quant, times 127: 17 of 4 bits (8 are needed: 8 * 15 * 127 = 15240), 8 of 5 bits (31496), 4 of 6 bits
 * (32004), 2 of 8 bits (2 * 128 * 127 = 32512); centred quants are half as large. SADDLP and SADALP then add pairs into 32 bits.
 *
 * Instructions for 256 multiply-adds, by gcc 12: Q4_K 124 for one token, 86 for 64; Q6_K 154 and 95. */
#include "kernels/levels.h"
#include "kernels/panel.h"
#include "kernels/arm/lanes_neon.h"

#include "kernels/lanes.h"

struct words {
    int8x16_t w[8]; /* word j of the activations, four times */
};

INLINE struct words load_words(const int8_t *a)
{
    struct words words;
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        int32_t w;
        memcpy(&w, a + j * 4, sizeof w);
        words.w[j] = vreinterpretq_s8_s32(vdupq_n_s32(w));
    }
    return words;
}

INLINE int32x4_t dot(const int8x16_t q[8], int first, int last, int magnitude, struct words a, int32x4_t sum)
{
    const int fit = INT16_MAX / (magnitude * 127);
    int32x4_t pairs01 = vdupq_n_s32(0), pairs23 = pairs01; /* of rows 0 and 1, 2 and 3 */
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
            return vpadalq_s16(sum, vpaddq_s16(s01, s23));
        pairs01 = j == first ? vpaddlq_s16(s01) : vpadalq_s16(pairs01, s01);
        pairs23 = j == first ? vpaddlq_s16(s23) : vpadalq_s16(pairs23, s23);
    }
    return vaddq_s32(sum, vpaddq_s32(pairs01, pairs23));
}

#include "kernels/arm/matmul.h"

const struct kernels kernels_neon = {.level = "neon", ARM_KERNELS};
