/* A group of 32 columns of a panel in NEON registers, and what becomes of its integer sums. Shared by all levels of this folder.
 *
 * A register holds one word of 4 columns for 4 rows, a quarter of a line of a panel. All quants fit in signed bytes. */
#ifndef QUERN_ARM_GROUPS_H
#define QUERN_ARM_GROUPS_H

#include "kernels/panel.h"

#include <stddef.h>

INLINE bool has_minimum(enum gguf_type type)
{
    return type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q5_K;
}

/* What multiplies the integer sums, for all 16 rows: [quarter] of 4 rows. What of it is used depends on the type. */
struct scales {
    float32x4_t d[4];         /* Q4_K, Q5_K: d * scale, exact; else d */
    float32x4_t minus_min[4]; /* Q4_K, Q5_K: -(dmin * min), exact */
    int32x4_t scale0[4];      /* Q6_K: of columns 0..15 */
    int32x4_t scale1[4];      /* Q6_K: of columns 16..31 */
};

/* The same of 4 rows. */
struct quarter {
    float32x4_t d, minus_min;
    int32x4_t scale0, scale1;
};

enum {
    CHUNK = GROUPS_PER_K,  /* groups between fetching the sums of some tokens and putting them back */
    SCALES_OF_A_GROUP = 8  /* room for what belongs to pairs of rows; where it belongs to 4 rows, half of it is used */
};

/* Some groups of a panel made ready for several tokens: quants as signed bytes, and what their sums are multiplied by. How the 16
 * rows lie in it is the level's affair. */
struct chunk {
    _Alignas(LINE) int8_t q[CHUNK][4][8][16];
    struct quarter s[CHUNK][SCALES_OF_A_GROUP];
};

INLINE struct quarter quarter_of(enum gguf_type type, const struct scales *s, int r)
{
    struct quarter q;
    q.d = s->d[r];
    if (has_minimum(type))
        q.minus_min = s->minus_min[r];
    if (type == GGUF_TYPE_Q6_K) {
        q.scale0 = s->scale0[r];
        q.scale1 = s->scale1[r];
    }
    return q;
}

/* Zero, made anew by an instruction of its own, where the compiler would copy a register that it keeps for the purpose. */
INLINE int32x4_t nothing(void)
{
    int32x4_t zero;
    __asm__ volatile("movi %0.2d, #0" : "=w"(zero));
    return zero;
}

INLINE float32x4_t halves(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

/* Bytes moved up by n bits, or down by -n. */
INLINE uint8x16_t shift(uint8x16_t v, int n)
{
    return n > 0 ? v << vdupq_n_u8((uint8_t)n) : n < 0 ? v >> vdupq_n_u8((uint8_t)-n) : v;
}

/* Bytes as floats. Zipped under the upper half of 2^23 they are the low bits of its mantissa, exactly; that takes half of what
 * widening and converting does. */
INLINE void widen_u8(uint8x16_t v, float32x4_t out[4])
{
    const uint8x16_t zero = vdupq_n_u8(0);
    const uint16x8_t upper = vdupq_n_u16(0x4B00);
    const float32x4_t base = vdupq_n_f32(0x1p23f);
    uint16x8_t lo = vreinterpretq_u16_u8(vzip1q_u8(v, zero)), hi = vreinterpretq_u16_u8(vzip2q_u8(v, zero));
    out[0] = vsubq_f32(vreinterpretq_f32_u16(vzip1q_u16(lo, upper)), base);
    out[1] = vsubq_f32(vreinterpretq_f32_u16(vzip2q_u16(lo, upper)), base);
    out[2] = vsubq_f32(vreinterpretq_f32_u16(vzip1q_u16(hi, upper)), base);
    out[3] = vsubq_f32(vreinterpretq_f32_u16(vzip2q_u16(hi, upper)), base);
}

INLINE void widen_s8(int8x16_t v, int32x4_t out[4])
{
    int16x8_t lo = vmovl_s8(vget_low_s8(v)), hi = vmovl_high_s8(v);
    out[0] = vmovl_s16(vget_low_s16(lo));
    out[1] = vmovl_high_s16(lo);
    out[2] = vmovl_s16(vget_low_s16(hi));
    out[3] = vmovl_high_s16(hi);
}

/* What a panel holds once for 8 groups (Q4_K, Q5_K, Q6_K). */
struct factors {
    float32x4_t d[4], minus_dmin[4];
};

INLINE void load_halves(float32x4_t out[4], const uint16_t *p)
{
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++)
        out[r] = halves(p + r * 4);
}

/* Where Q4_K and Q5_K keep their scales, which is the same place in both. */
INLINE const struct panel_q4_k *block_k(enum gguf_type type, const void *panel, size_t i)
{
    const size_t bytes = type == GGUF_TYPE_Q4_K ? sizeof(struct panel_q4_k) : sizeof(struct panel_q5_k);
    return (const struct panel_q4_k *)(const void *)((const char *)panel + i / GROUPS_PER_K * bytes);
}
_Static_assert(offsetof(struct panel_q4_k, q) == offsetof(struct panel_q5_k, q), "Q4_K and Q5_K begin alike");

/* What group i and the others of its block of 256 columns have in common; nothing where every group has a d of its own. */
INLINE void load_factors(enum gguf_type type, struct factors *f, const void *panel, size_t n_groups, size_t i)
{
    if (has_minimum(type)) {
        load_halves(f->d, block_k(type, panel, i)->d);
        load_halves(f->minus_dmin, block_k(type, panel, i)->dmin);
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++)
            f->minus_dmin[r] = vnegq_f32(f->minus_dmin[r]);
    } else if (type == GGUF_TYPE_Q6_K) {
        load_halves(f->d, panel_q6_d(panel, n_groups) + i / GROUPS_PER_K * 16);
    }
}

/* The scales of group i + g of a panel, g below 8 and i a multiple of it. */
INLINE void load_scales(enum gguf_type type, struct scales *s, const struct factors *f, const void *panel, size_t i, size_t g)
{
    if (has_minimum(type)) {
        const struct panel_q4_k *b = block_k(type, panel, i);
        uint8x16_t packed = vld1q_u8(b->scale[g]), m = vld1q_u8(b->min[g % 4]);
        m = g < 4 ? vandq_u8(m, vdupq_n_u8(15)) : vshrq_n_u8(m, 4);
        m = vbslq_u8(vdupq_n_u8(48), vshrq_n_u8(packed, 2), m);
        widen_u8(vandq_u8(packed, vdupq_n_u8(63)), s->d);
        widen_u8(m, s->minus_min);
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) {
            s->d[r] = vmulq_f32(s->d[r], f->d[r]);
            s->minus_min[r] = vmulq_f32(s->minus_min[r], f->minus_dmin[r]);
        }
    } else if (type == GGUF_TYPE_Q6_K) {
        const int8_t *scale = panel_q6_scales(panel) + (i + g) * 32;
        widen_s8(vld1q_s8(scale), s->scale0);
        widen_s8(vld1q_s8(scale + 16), s->scale1);
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++)
            s->d[r] = f->d[r];
    } else {
        load_halves(s->d, panel_0_d(panel) + (i + g) * 16);
    }
}

/* Where the quants of a group are: lines of nibbles or bytes, and of higher bits. */
struct lines {
    const uint8_t *q, *h;
};

INLINE struct lines lines_of(enum gguf_type type, const void *panel, size_t n_groups, size_t i)
{
    const uint8_t *q;
    if (type == GGUF_TYPE_Q4_K)
        return (struct lines){((const struct panel_q4_k *)panel)[i / 8].q[i % 8][0], NULL};
    if (type == GGUF_TYPE_Q5_K) {
        const struct panel_q5_k *b = (const struct panel_q5_k *)panel + i / 8;
        return (struct lines){b->q[i % 8][0], b->h[i % 8]};
    }
    if (type == GGUF_TYPE_Q6_K)
        q = panel_q6_groups(panel, n_groups)[i].q[0];
    else if (type == GGUF_TYPE_Q4_0)
        q = ((const struct group_q4_0 *)panel_0_groups(panel, n_groups))[i].q[0];
    else if (type == GGUF_TYPE_Q5_0)
        q = ((const struct group_q5_0 *)panel_0_groups(panel, n_groups))[i].q[0];
    else
        q = (const uint8_t *)((const struct group_q8_0 *)panel_0_groups(panel, n_groups))[i].q[0];
    return (struct lines){q, q + 4 * LINE}; /* of Q5_0 and Q6_K, the others have none */
}

/* The group after it, in the same block. */
INLINE void next_group(enum gguf_type type, struct lines *at)
{
    at->q += type == GGUF_TYPE_Q8_0 ? 8 * LINE : type == GGUF_TYPE_Q6_K ? 6 * LINE : type == GGUF_TYPE_Q5_0 ? 5 * LINE : 4 * LINE;
    at->h = type == GGUF_TYPE_Q5_K ? at->h + LINE : at->q + 4 * LINE;
}

INLINE void unpack_nibbles(uint8x16_t q[8], const uint8_t *lines)
{
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        uint8x16_t v = vld1q_u8(lines + j * LINE);
        q[j] = vandq_u8(v, vdupq_n_u8(15));
        q[j + 4] = vshrq_n_u8(v, 4);
    }
}

INLINE void unpack_fifth_bits(uint8x16_t q[8], const uint8_t *line)
{
    uint8x16_t v = vld1q_u8(line);
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

/* The quants of 4 rows of a group: line j in q[j]. Centred: the offset is taken off, which pays when several tokens use them;
 * otherwise the caller subtracts offset * the sum of the activations. */
INLINE void load_quants(enum gguf_type type, int8x16_t out[8], const struct lines *at, int quarter, bool centred)
{
    uint8x16_t q[8];
    const uint8_t *lines = at->q + quarter * 16, *high = at->h + quarter * 16;
    if (type == GGUF_TYPE_Q8_0) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            q[j] = vld1q_u8(lines + j * LINE);
    } else {
        unpack_nibbles(q, lines);
    }
    if (type == GGUF_TYPE_Q5_K || type == GGUF_TYPE_Q5_0)
        unpack_fifth_bits(q, high);
    if (type == GGUF_TYPE_Q6_K) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            q[j] = vbslq_u8(vdupq_n_u8(48), shift(vld1q_u8(high + j / 4 * LINE), 4 - j % 4 * 2), q[j]);
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        out[j] = vreinterpretq_s8_u8(q[j]);
        if (centred && quant_offset(type))
            out[j] = vsubq_s8(out[j], vdupq_n_s8((int8_t)quant_offset(type)));
    }
}

/* Up to 4 neighbouring floats, and no more; those that are not there are 0. */
INLINE float32x4_t some_floats(const float *p, int n)
{
    float32x4_t v;
    if (n == 4)
        return vld1q_f32(p);
    if (n == 1) {
        __asm__("ldr %s0, %1" : "=w"(v) : "m"(*p)); /* clears the other lanes, of which the compiler wants to be told */
        return v;
    }
    v = vcombine_f32(vld1_f32(p), vdup_n_f32(0));
    return n == 2 ? v : vld1q_lane_f32(p + 2, v, 2);
}

/* acc + v * lane t of x. Written out, because the compiler copies a lane that several multiply by into all lanes of another
 * register first. */
INLINE float32x4_t fma_lane(float32x4_t acc, float32x4_t v, float32x4_t x, int t)
{
    switch (t) {
    case 0: __asm__("fmla %0.4s, %1.4s, %2.s[0]" : "+w"(acc) : "w"(v), "w"(x)); break;
    case 1: __asm__("fmla %0.4s, %1.4s, %2.s[1]" : "+w"(acc) : "w"(v), "w"(x)); break;
    case 2: __asm__("fmla %0.4s, %1.4s, %2.s[2]" : "+w"(acc) : "w"(v), "w"(x)); break;
    default: __asm__("fmla %0.4s, %1.4s, %2.s[3]" : "+w"(acc) : "w"(v), "w"(x)); break;
    }
    return acc;
}

/* Where integer sums start that become floats: 1.5 * 2^23 as a float's bits. An integer below 2^22 in magnitude, added to the
 * bits, is added to the float, exactly, and is had as a float by one subtraction, which every pipe can do; converting takes twice
 * the time of one pipe on Neoverse. The constant is hidden from the compiler, which would keep it in several registers. */
enum { SUM_BASE = 0x4B400000 };

INLINE float32x4_t sum_base(void)
{
    float32x4_t base = vreinterpretq_f32_s32(vdupq_n_s32(SUM_BASE));
    __asm__("" : "+w"(base));
    return base;
}

/* A sum that starts there. Volatile, so that one is begun after the other: all at once would be more than the registers hold. */
INLINE int32x4_t from_base(float32x4_t base)
{
    int32x4_t sum;
    __asm__ volatile("mov %0.16b, %1.16b" : "=w"(sum) : "w"(base));
    return sum;
}

/* 32 products of 8 bits have a sum of 2^19 at most; Q6_K's sums times their scales are too large. */
#ifndef SUMS_HAVE_BASE /* a level whose sums do not start anywhere before they are 32 bits wide does better without */
#define SUMS_HAVE_BASE true
#endif
INLINE bool sums_have_base(enum gguf_type type)
{
    return SUMS_HAVE_BASE && type != GGUF_TYPE_Q6_K;
}

INLINE float32x4_t above_base(int32x4_t sum, float32x4_t base)
{
    return vsubq_f32(vreinterpretq_f32_s32(sum), base);
}

/* acc and the share of a group and a token: s0 and s1 are the sums over columns 0..15 and 16..31 (Q6_K), or s0 is over all 32,
 * and above base where sums have one; lane t of d and sum is the token's. */
INLINE float32x4_t add_share(enum gguf_type type, const struct quarter *s, int32x4_t s0, int32x4_t s1, float32x4_t base,
                             float32x4_t d, float32x4_t sum, int t, float32x4_t acc)
{
    if (type == GGUF_TYPE_Q6_K)
        s0 = vmlaq_s32(vmulq_s32(s0, s->scale0), s1, s->scale1);
    const float32x4_t whole = sums_have_base(type) ? above_base(s0, base) : vcvtq_f32_s32(s0);
    acc = fma_lane(acc, vmulq_f32(whole, s->d), d, t);
    return has_minimum(type) ? fma_lane(acc, s->minus_min, sum, t) : acc;
}

#endif
