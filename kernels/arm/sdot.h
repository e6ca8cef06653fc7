/* The dot product that SDOT is made for: 4 bytes of each of 4 rows times one word of 4 activations, picked from a register by its
 * index and added in 32 bits, exactly. */
#ifndef QUERN_ARM_SDOT_H
#define QUERN_ARM_SDOT_H

#include "kernels/arm/groups.h"

struct words {
    int8x16_t lo, hi;
};

INLINE struct words load_words(const int8_t *a)
{
    return (struct words){vld1q_s8(a), vld1q_s8(a + 16)};
}

INLINE int32x4_t dot_word(int32x4_t sum, int8x16_t q, int8x16_t a, int word)
{
    switch (word) {
    case 0: return vdotq_laneq_s32(sum, q, a, 0);
    case 1: return vdotq_laneq_s32(sum, q, a, 1);
    case 2: return vdotq_laneq_s32(sum, q, a, 2);
    default: return vdotq_laneq_s32(sum, q, a, 3);
    }
}

INLINE int32x4_t dot(const int8x16_t q[8], int first, int last, int magnitude, struct words a, const int32x4_t *from)
{
    (void)magnitude;
    int32x4_t sum = from ? *from : nothing();
#pragma GCC unroll 8
    for (int j = first; j < last; j++)
        sum = dot_word(sum, q[j], j < 4 ? a.lo : a.hi, j % 4);
    return sum;
}

#endif
