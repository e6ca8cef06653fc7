/* The instructions of AVX-512 and AMX that kernels/x86 uses, in plain C: with this folder before the compiler's own, amx.c and
 * avx512.c build for any CPU, and checkkernels holds what they compute to scalar's bits where no CPU with the instructions is at
 * hand. Nothing here is fast.
 *
 * What each does is from Intel's SDM, volume 2. Where an instruction would raise #UD, because of tiles that are not configured or
 * do not fit each other, the program is ended by SIGILL as well. Names are the compiler's. */
#ifndef QUERN_MODEL_IMMINTRIN_H
#define QUERN_MODEL_IMMINTRIN_H

#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

#define MODEL static inline __attribute__((unused))
#define EACH_LANE(n) for (int i_ = 0; i_ < (n); i_++)

typedef struct { float f[16]; } __m512;
typedef struct { float f[8]; } __m256;
typedef struct { float f[4]; } __m128;
typedef union { int32_t d[16]; uint32_t u[16]; uint16_t w[32]; int8_t b[64]; uint8_t c[64]; } __m512i;
typedef union { uint16_t w[16]; } __m256i;
typedef union { uint32_t u[4]; uint16_t w[8]; int8_t b[16]; uint8_t c[16]; } __m128i;
typedef uint16_t __mmask16;

enum { _MM_FROUND_TO_NEAREST_INT = 0, _MM_FROUND_NO_EXC = 8, _CMP_GE_OQ = 29, _CMP_GT_OQ = 30 };
#define _MM_SHUFFLE(d, c, b, a) ((d) << 6 | (c) << 4 | (b) << 2 | (a))

/* ---- memory ---- */

MODEL void model_aligned(const void *p)
{
    if ((uintptr_t)p & 63)
        __builtin_trap();
}
MODEL __m512 _mm512_loadu_ps(const void *p)
{
    __m512 v;
    memcpy(&v, p, sizeof v);
    return v;
}
MODEL __m512 _mm512_load_ps(const void *p)
{
    model_aligned(p);
    return _mm512_loadu_ps(p);
}
MODEL void _mm512_storeu_ps(void *p, __m512 v)
{
    memcpy(p, &v, sizeof v);
}
MODEL void _mm512_store_ps(void *p, __m512 v)
{
    model_aligned(p);
    _mm512_storeu_ps(p, v);
}
MODEL __m512i _mm512_loadu_si512(const void *p)
{
    __m512i v;
    memcpy(&v, p, sizeof v);
    return v;
}
MODEL __m512i _mm512_load_si512(const void *p)
{
    model_aligned(p);
    return _mm512_loadu_si512(p);
}
MODEL void _mm512_storeu_si512(void *p, __m512i v)
{
    memcpy(p, &v, sizeof v);
}
MODEL void _mm512_store_si512(void *p, __m512i v)
{
    model_aligned(p);
    _mm512_storeu_si512(p, v);
}
MODEL __m256i _mm256_loadu_si256(const void *p)
{
    __m256i v;
    memcpy(&v, p, sizeof v);
    return v;
}
MODEL void _mm256_storeu_si256(void *p, __m256i v)
{
    memcpy(p, &v, sizeof v);
}
MODEL __m128i _mm_loadu_si128(const void *p)
{
    __m128i v;
    memcpy(&v, p, sizeof v);
    return v;
}
MODEL void _mm_storeu_si128(void *p, __m128i v)
{
    memcpy(p, &v, sizeof v);
}

/* ---- floats ---- */

#define MODEL_FLOAT(name, parameters, value)                                                                            \
    MODEL __m512 name parameters                                                                                        \
    {                                                                                                                   \
        __m512 v_;                                                                                                      \
        EACH_LANE(16) v_.f[i_] = (value);                                                                               \
        return v_;                                                                                                      \
    }
MODEL_FLOAT(_mm512_set1_ps, (float x), x)
MODEL_FLOAT(_mm512_setzero_ps, (void), 0.0f)
MODEL_FLOAT(_mm512_add_ps, (__m512 a, __m512 b), a.f[i_] + b.f[i_])
MODEL_FLOAT(_mm512_sub_ps, (__m512 a, __m512 b), a.f[i_] - b.f[i_])
MODEL_FLOAT(_mm512_mul_ps, (__m512 a, __m512 b), a.f[i_] * b.f[i_])
MODEL_FLOAT(_mm512_div_ps, (__m512 a, __m512 b), a.f[i_] / b.f[i_])
MODEL_FLOAT(_mm512_fmadd_ps, (__m512 a, __m512 b, __m512 c), fmaf(a.f[i_], b.f[i_], c.f[i_]))
MODEL_FLOAT(_mm512_fnmadd_ps, (__m512 a, __m512 b, __m512 c), fmaf(-a.f[i_], b.f[i_], c.f[i_]))
MODEL_FLOAT(_mm512_max_ps, (__m512 a, __m512 b), a.f[i_] > b.f[i_] ? a.f[i_] : b.f[i_])
MODEL_FLOAT(_mm512_min_ps, (__m512 a, __m512 b), a.f[i_] < b.f[i_] ? a.f[i_] : b.f[i_])
MODEL_FLOAT(_mm512_abs_ps, (__m512 a), fabsf(a.f[i_]))
MODEL_FLOAT(_mm512_roundscale_ps, (__m512 a, int rounding), rounding == _MM_FROUND_NO_EXC ? rintf(a.f[i_]) : (float)NAN)
MODEL_FLOAT(_mm512_scalef_ps, (__m512 a, __m512 n), ldexpf(a.f[i_], (int)floorf(n.f[i_])))
MODEL_FLOAT(_mm512_maskz_mov_ps, (__mmask16 m, __m512 a), m >> i_ & 1 ? a.f[i_] : 0.0f)
MODEL_FLOAT(_mm512_permutevar_ps, (__m512 a, __m512i lanes), a.f[(i_ & ~3) + (lanes.d[i_] & 3)])
MODEL_FLOAT(_mm512_broadcast_f32x4, (__m128 a), a.f[i_ % 4])
MODEL_FLOAT(_mm512_cvtepi32_ps, (__m512i a), (float)a.d[i_])
MODEL_FLOAT(_mm512_cvtph_ps, (__m256i a), f16_to_f32(a.w[i_]))
MODEL_FLOAT(_mm512_shuffle_f32x4, (__m512 a, __m512 b, int s), (i_ < 8 ? a : b).f[(s >> i_ / 4 * 2 & 3) * 4 + i_ % 4])

MODEL __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int predicate)
{
    unsigned m = 0;
    if (predicate != _CMP_GE_OQ && predicate != _CMP_GT_OQ)
        __builtin_trap();
    EACH_LANE(16) m |= (unsigned)(predicate == _CMP_GE_OQ ? a.f[i_] >= b.f[i_] : a.f[i_] > b.f[i_]) << i_;
    return (__mmask16)m;
}
MODEL float _mm512_reduce_max_ps(__m512 a)
{
    float max = a.f[0];
    EACH_LANE(16) max = a.f[i_] > max ? a.f[i_] : max;
    return max;
}
/* Lane by lane: gcc 12 at -O2 takes bits copied from floats and back, all at once, for what they were before the floats were
 * computed with. */
MODEL __m512 _mm512_castsi512_ps(__m512i a)
{
    __m512 v;
    EACH_LANE(16) memcpy(&v.f[i_], &a.u[i_], sizeof v.f[i_]);
    return v;
}
MODEL __m512i _mm512_castps_si512(__m512 a)
{
    __m512i v;
    EACH_LANE(16) memcpy(&v.u[i_], &a.f[i_], sizeof v.u[i_]);
    return v;
}
MODEL __m256 _mm512_castps512_ps256(__m512 a)
{
    __m256 v;
    memcpy(&v, &a, sizeof v);
    return v;
}
MODEL __m256 _mm256_add_ps(__m256 a, __m256 b)
{
    EACH_LANE(8) a.f[i_] += b.f[i_];
    return a;
}
MODEL __m128 _mm256_castps256_ps128(__m256 a)
{
    __m128 v;
    memcpy(&v, &a, sizeof v);
    return v;
}
MODEL __m128 _mm256_extractf128_ps(__m256 a, int half)
{
    __m128 v;
    memcpy(&v, a.f + half * 4, sizeof v);
    return v;
}
MODEL __m128 _mm_loadu_ps(const float *p)
{
    __m128 v;
    memcpy(&v, p, sizeof v);
    return v;
}
MODEL __m128 _mm_add_ps(__m128 a, __m128 b)
{
    EACH_LANE(4) a.f[i_] += b.f[i_];
    return a;
}
MODEL __m128 _mm_add_ss(__m128 a, __m128 b)
{
    a.f[0] += b.f[0];
    return a;
}
MODEL __m128 _mm_movehl_ps(__m128 a, __m128 b)
{
    return (__m128){{b.f[2], b.f[3], a.f[2], a.f[3]}};
}
MODEL __m128 _mm_movehdup_ps(__m128 a)
{
    return (__m128){{a.f[1], a.f[1], a.f[3], a.f[3]}};
}
MODEL float _mm_cvtss_f32(__m128 a)
{
    return a.f[0];
}

/* ---- integers ---- */

#define MODEL_INT(name, parameters, lanes, lane, value)                                                                 \
    MODEL __m512i name parameters                                                                                       \
    {                                                                                                                   \
        __m512i v_;                                                                                                     \
        EACH_LANE(lanes) v_.lane[i_] = (value);                                                                         \
        return v_;                                                                                                      \
    }
MODEL_INT(_mm512_setzero_si512, (void), 16, d, 0)
MODEL_INT(_mm512_set1_epi32, (int x), 16, d, x)
MODEL_INT(_mm512_setr_epi32,
    (int x0, int x1, int x2, int x3, int x4, int x5, int x6, int x7, int x8, int x9, int x10, int x11, int x12, int x13, int x14,
        int x15),
    16, d, ((const int[]){x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15}[i_]))
MODEL_INT(_mm512_set1_epi8, (int x), 64, b, (int8_t)x)
MODEL_INT(_mm512_and_si512, (__m512i a, __m512i b), 16, u, a.u[i_] & b.u[i_])
MODEL_INT(_mm512_or_si512, (__m512i a, __m512i b), 16, u, a.u[i_] | b.u[i_])
MODEL_INT(_mm512_xor_si512, (__m512i a, __m512i b), 16, u, a.u[i_] ^ b.u[i_])
MODEL_INT(_mm512_slli_epi16, (__m512i a, unsigned n), 32, w, (uint16_t)(a.w[i_] << n))
MODEL_INT(_mm512_srli_epi16, (__m512i a, unsigned n), 32, w, (uint16_t)(a.w[i_] >> n))
MODEL_INT(_mm512_slli_epi32, (__m512i a, unsigned n), 16, u, a.u[i_] << n)
MODEL_INT(_mm512_srli_epi32, (__m512i a, unsigned n), 16, u, a.u[i_] >> n)
MODEL_INT(_mm512_add_epi32, (__m512i a, __m512i b), 16, u, a.u[i_] + b.u[i_])
MODEL_INT(_mm512_sub_epi8, (__m512i a, __m512i b), 64, c, (uint8_t)(a.c[i_] - b.c[i_]))
MODEL_INT(_mm512_cvtepi8_epi32, (__m128i a), 16, d, a.b[i_])
MODEL_INT(_mm512_cvtepu8_epi32, (__m128i a), 16, d, a.c[i_])
MODEL_INT(_mm512_cvtepu16_epi32, (__m256i a), 16, d, a.w[i_])

MODEL __m512i _mm512_ternarylogic_epi32(__m512i a, __m512i b, __m512i c, int table)
{
    __m512i v = _mm512_setzero_si512();
    for (unsigned row = 0; row < 8; row++)
        EACH_LANE(16)
        {
            uint32_t here = (row & 4 ? a.u[i_] : ~a.u[i_]) & (row & 2 ? b.u[i_] : ~b.u[i_]) & (row & 1 ? c.u[i_] : ~c.u[i_]);
            v.u[i_] |= (unsigned)table >> row & 1 ? here : 0;
        }
    return v;
}
MODEL __m512i _mm512_dpbusd_epi32(__m512i sum, __m512i a, __m512i b)
{
    EACH_LANE(64) sum.d[i_ / 4] += a.c[i_] * b.b[i_];
    return sum;
}
MODEL __m512i _mm512_cvtps_epi32(__m512 a)
{
    __m512i v;
    EACH_LANE(16)
    {
        float r = rintf(a.f[i_]);
        v.d[i_] = r >= -0x1p31f && r < 0x1p31f ? (int32_t)r : INT32_MIN;
    }
    return v;
}
MODEL __m128i _mm512_cvtepi32_epi8(__m512i a)
{
    __m128i v;
    EACH_LANE(16) v.c[i_] = (uint8_t)a.u[i_];
    return v;
}
MODEL __m256i _mm512_cvtps_ph(__m512 a, int rounding)
{
    __m256i v;
    (void)rounding;
    EACH_LANE(16) v.w[i_] = f32_to_f16(a.f[i_]);
    return v;
}
MODEL __m128i _mm_set1_epi8(int x)
{
    __m128i v;
    EACH_LANE(16) v.b[i_] = (int8_t)x;
    return v;
}
MODEL __m128i _mm_maddubs_epi16(__m128i a, __m128i b)
{
    __m128i v;
    EACH_LANE(8)
    {
        int sum = a.c[i_ * 2] * b.b[i_ * 2] + a.c[i_ * 2 + 1] * b.b[i_ * 2 + 1];
        v.w[i_] = (uint16_t)(sum > INT16_MAX ? INT16_MAX : sum < INT16_MIN ? INT16_MIN : sum);
    }
    return v;
}
MODEL __m128i _mm_add_epi16(__m128i a, __m128i b)
{
    EACH_LANE(8) a.w[i_] = (uint16_t)(a.w[i_] + b.w[i_]);
    return a;
}
MODEL __m128i _mm_shuffle_epi32(__m128i a, int s)
{
    __m128i v;
    EACH_LANE(4) v.u[i_] = a.u[s >> i_ * 2 & 3];
    return v;
}
MODEL void _mm_storeu_si32(void *p, __m128i v)
{
    memcpy(p, &v, 4);
}

/* ---- tiles ---- */

static _Thread_local struct {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config;
    uint8_t row[8][16][64];
} model_tiles;

MODEL void model_undefined_unless(bool good)
{
    if (!good)
        __builtin_trap();
}
/* Stricter than the instruction: the configuration before must have been released. */
MODEL void _tile_loadconfig(const void *p)
{
    model_undefined_unless(model_tiles.config.palette == 0);
    memcpy(&model_tiles.config, p, sizeof model_tiles.config);
    model_undefined_unless(model_tiles.config.palette == 1 && model_tiles.config.start_row == 0);
    for (int i = 0; i < 14; i++)
        model_undefined_unless(model_tiles.config.reserved[i] == 0);
    for (int t = 0; t < 16; t++) {
        const unsigned rows = model_tiles.config.rows[t], row_bytes = model_tiles.config.row_bytes[t];
        model_undefined_unless(rows <= 16 && row_bytes <= 64 && (rows == 0) == (row_bytes == 0) && (t < 8 || rows == 0));
    }
    memset(model_tiles.row, 0, sizeof model_tiles.row);
}
MODEL void _tile_release(void)
{
    memset(&model_tiles, 0, sizeof model_tiles);
}
MODEL void model_usable(int t)
{
    model_undefined_unless(model_tiles.config.palette == 1 && t >= 0 && t < 8 && model_tiles.config.rows[t] > 0 &&
                           model_tiles.config.row_bytes[t] % 4 == 0);
}
MODEL void _tile_zero(int t)
{
    model_usable(t);
    memset(model_tiles.row[t], 0, sizeof model_tiles.row[t]);
}
MODEL void _tile_loadd(int t, const void *base, size_t stride)
{
    _tile_zero(t);
    for (size_t r = 0; r < model_tiles.config.rows[t]; r++)
        memcpy(model_tiles.row[t][r], (const char *)base + r * stride, model_tiles.config.row_bytes[t]);
}
MODEL void _tile_stored(int t, void *base, size_t stride)
{
    model_usable(t);
    for (size_t r = 0; r < model_tiles.config.rows[t]; r++)
        memcpy((char *)base + r * stride, model_tiles.row[t][r], model_tiles.config.row_bytes[t]);
}
struct model_shape {
    int m, n, k;
};
MODEL struct model_shape model_multipliable(int c, int a, int b)
{
    model_usable(c);
    model_usable(a);
    model_usable(b);
    const int m = model_tiles.config.rows[c], n = model_tiles.config.row_bytes[c] / 4, k = model_tiles.config.row_bytes[a] / 4;
    model_undefined_unless(c != a && c != b && a != b && m == model_tiles.config.rows[a] &&
                           n == model_tiles.config.row_bytes[b] / 4 && k == model_tiles.config.rows[b]);
    return (struct model_shape){m, n, k};
}
MODEL void _tile_dpbssd(int c, int a, int b)
{
    const struct model_shape shape = model_multipliable(c, a, b);
    const int m = shape.m, n = shape.n, k = shape.k;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            int32_t sum;
            memcpy(&sum, &model_tiles.row[c][i][j * 4], sizeof sum);
            for (int l = 0; l < k * 4; l++)
                sum += (int8_t)model_tiles.row[a][i][l] * (int8_t)model_tiles.row[b][l / 4][j * 4 + l % 4];
            memcpy(&model_tiles.row[c][i][j * 4], &sum, sizeof sum);
        }
}
/* Denormals are zeros, of the same sign. What rounds up to the smallest normal number counts as normal; the instruction may
 * differ there. */
MODEL float model_flushed(float x)
{
    return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x;
}
MODEL float model_bf16(const uint8_t bytes[2])
{
    uint16_t half;
    memcpy(&half, bytes, sizeof half);
    const uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return model_flushed(x);
}
/* The even numbers of a row and column are multiplied and added up one after the other, each step rounded once to nearest, and
 * the odd ones likewise; then both sums are added, and that to the sum in the tile. */
MODEL void _tile_dpbf16ps(int c, int a, int b)
{
    const struct model_shape shape = model_multipliable(c, a, b);
    for (int i = 0; i < shape.m; i++)
        for (int j = 0; j < shape.n; j++) {
            float even = 0, odd = 0, sum;
            for (int l = 0; l < shape.k; l++) {
                const uint8_t *x = &model_tiles.row[a][i][l * 4], *y = &model_tiles.row[b][l][j * 4];
                even = model_flushed(fmaf(model_bf16(x), model_bf16(y), even));
                odd = model_flushed(fmaf(model_bf16(x + 2), model_bf16(y + 2), odd));
            }
            memcpy(&sum, &model_tiles.row[c][i][j * 4], sizeof sum);
            sum = model_flushed(model_flushed(sum) + model_flushed(even + odd));
            memcpy(&model_tiles.row[c][i][j * 4], &sum, sizeof sum);
        }
}

#endif
