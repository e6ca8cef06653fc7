/* 16 float lanes as one 512-bit register: what kernels/lanes.h needs, for AVX-512 F, BW and VL. */
#ifndef QUERN_LANES512_H
#define QUERN_LANES512_H

#include "kernels/x86/lanes128.h"

#include <stdbool.h>

typedef __m512 v16;

enum { V16_ROWS = 12 };

LANES v16 v16_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
LANES void v16_store(float *p, v16 v)
{
    _mm512_storeu_ps(p, v);
}
LANES v16 v16_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}
LANES v16 v16_load_bf16(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
}
LANES void v16_store_f16(uint16_t *p, v16 v)
{
    _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
LANES void v16_store_i8(int8_t *p, v16 v, int16_t pair[2])
{
    __m128i q = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v));
    _mm_storeu_si128((void *)p, q);
    store_pair(pair, q);
}
LANES v16 v16_set1(float x)
{
    return _mm512_set1_ps(x);
}
LANES v16 v16_spread(const float *p)
{
    return _mm512_permutevar_ps(
        _mm512_broadcast_f32x4(_mm_loadu_ps(p)), _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3));
}
LANES v16 v16_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}
LANES v16 v16_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}
LANES v16 v16_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}
LANES v16 v16_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}
LANES v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
LANES v16 v16_fnma(v16 a, v16 b, v16 c)
{
    return _mm512_fnmadd_ps(a, b, c);
}
LANES v16 v16_above(v16 a, v16 b) /* VMAXPS gives its second operand for a NaN */
{
    return _mm512_max_ps(a, b);
}
LANES v16 v16_below(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}
LANES v16 v16_abs(v16 a)
{
    return _mm512_abs_ps(a);
}
LANES v16 v16_round(v16 a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
LANES v16 v16_ldexp(v16 v, v16 n)
{
    return _mm512_scalef_ps(v, n);
}
LANES v16 v16_keep(v16 x, v16 limit, v16 v)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_GE_OQ), v);
}
LANES bool v16_any_above(v16 a, v16 b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
}
LANES float v16_sum(v16 v)
{
    __m256 a =
        _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_castps512_ps256(_mm512_shuffle_f32x4(v, v, _MM_SHUFFLE(1, 0, 3, 2))));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    b = _mm_add_ss(b, _mm_movehdup_ps(b));
    return _mm_cvtss_f32(b);
}
LANES float v16_max(v16 v)
{
    return _mm512_reduce_max_ps(v);
}

#endif
