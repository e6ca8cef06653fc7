/* The loops of the quantised matmul. A level's file defines a dot product and then includes this file:
 *
 *   struct words, load_words(a)   the 32 activations of a token and a group, as the level wants them in registers
 *   dot(q, first, last, magnitude, a, sum)
 *                                 sum + lines first .. last - 1 of 4 rows (quants of at most that magnitude) times the activations
 *
 * and, where it has something better than one token at a time for several (i8mm), SEVERAL_TOKENS and its own run_tokens. */
#include "kernels/ahead.h"
#include "kernels/arm/groups.h"

enum {
    RUN = 64 /* tokens whose sums (RUN * 64 bytes) stay in the first-level cache beside the activations of a group */
};

/* One token, 4 rows. from: what the sums over columns 0..15 and 16..31 start at (only the first of them but for Q6_K). */
INLINE float32x4_t add_token(enum gguf_type type, bool centred, const int8x16_t q[8], const struct scales *s, int quarter, struct words a,
                             const int32x4_t from[2], float d, float sum, float32x4_t acc)
{
    const int magnitude = quant_magnitude(type, centred);
    if (type == GGUF_TYPE_Q6_K)
        return add_share(type, s, quarter, dot(q, 0, 4, magnitude, a, from[0]), dot(q, 4, 8, magnitude, a, from[1]), d, sum, acc);
    return add_share(type, s, quarter, dot(q, 0, 8, magnitude, a, from[0]), from[1], d, sum, acc);
}

/* A single token: sums in registers, every group unpacked and used once. */
INLINE void one_token(enum gguf_type type, const char *panel, const char *end, size_t n_groups, const struct act *x, float *y)
{
    const size_t bytes = panel_group_bytes(type);
    float32x4_t acc[4];
    for (int r = 0; r < 4; r++)
        acc[r] = vdupq_n_f32(0);
    for (size_t i = 0; i < n_groups; i++) {
        ask_for(panel + AHEAD + i * bytes, bytes, end);
        struct scales s;
        load_scales(type, &s, panel, n_groups, i);
        struct words a = load_words(x->q + i * ACT_GROUP);
        const float d = x->d[i], sum = x->sum[i];
        const int offset = quant_offset(type), h0 = offset ? -offset * x->half[i * 2] : 0, h1 = offset ? -offset * x->half[i * 2 + 1] : 0;
        const int32x4_t from[2] = {vdupq_n_s32(type == GGUF_TYPE_Q6_K ? h0 : h0 + h1), vdupq_n_s32(h1)};
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) {
            int8x16_t q[8];
            load_quants(type, q, panel, n_groups, i, r, false);
            acc[r] = add_token(type, false, q, &s, r, a, from, d, sum, acc[r]);
            __asm__ volatile("" ::: "memory"); /* quarter after quarter: all loads first would be more than the registers hold */
        }
    }
    for (int r = 0; r < 4; r++)
        vst1q_f32(y + r * 4, acc[r]);
}

#ifndef SEVERAL_TOKENS
/* n tokens from first on, with 8 rows of a group unpacked in 16 registers. */
INLINE void run_tokens(enum gguf_type type, const char *panel, size_t n_groups, const struct act *x, size_t first, size_t n, float (*acc)[PANEL_ROWS])
{
    for (size_t i = 0; i < n_groups; i++) {
        struct scales s;
        load_scales(type, &s, panel, n_groups, i);
        const size_t at = i * (size_t)x->n_tokens + first;
        const int8_t *a = x->q + at * ACT_GROUP;
        const float *d = x->d + at, *sum = x->sum + at;
        const int32x4_t zero[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
#pragma GCC unroll 2
        for (int r = 0; r < 4; r += 2) {
            int8x16_t q[2][8];
            load_quants(type, q[0], panel, n_groups, i, r, true);
            load_quants(type, q[1], panel, n_groups, i, r + 1, true);
            for (size_t t = 0; t < n; t++) {
                struct words w = load_words(a + t * ACT_GROUP);
                float *c = acc[t] + r * 4;
                float32x4_t c0 = add_token(type, true, q[0], &s, r, w, zero, d[t], sum[t], vld1q_f32(c));
                float32x4_t c1 = add_token(type, true, q[1], &s, r + 1, w, zero, d[t], sum[t], vld1q_f32(c + 4));
                vst1q_f32(c, c0);
                vst1q_f32(c + 4, c1);
            }
        }
    }
}
#endif

INLINE void matmul(enum gguf_type type, const void *panels, size_t n_panels, const struct act *x, float *y, size_t y_stride)
{
    const size_t n_groups = (size_t)x->n_cols / ACT_GROUP, n_tokens = (size_t)x->n_tokens, bytes = panel_bytes(type, (size_t)x->n_cols);
    const char *end = (const char *)panels + n_panels * bytes;
    if (n_tokens == 1)
        ask_for(panels, AHEAD, end);
    for (size_t p = 0; p < n_panels; p++, y += PANEL_ROWS) {
        const char *panel = (const char *)panels + p * bytes;
        if (n_tokens == 1) {
            one_token(type, panel, end, n_groups, x, y);
            continue;
        }
        for (size_t first = 0; first < n_tokens; first += RUN) {
            size_t n = n_tokens - first < RUN ? n_tokens - first : RUN;
            _Alignas(64) float acc[RUN][PANEL_ROWS];
            memset(acc, 0, (n + 1) / 2 * 2 * sizeof acc[0]);
            run_tokens(type, panel, n_groups, x, first, n, acc);
            for (size_t t = 0; t < n; t++)
                memcpy(y + (first + t) * y_stride, acc[t], sizeof acc[t]);
        }
    }
}

#define MATMUL(name, type)                                                                                                             \
    static void matmul_##name(const void *panels, size_t n_panels, const struct act *x, float *y, size_t y_stride)                     \
    {                                                                                                                                  \
        matmul(type, panels, n_panels, x, y, y_stride);                                                                                \
    }
MATMUL(q4_k, GGUF_TYPE_Q4_K)
MATMUL(q5_k, GGUF_TYPE_Q5_K)
MATMUL(q6_k, GGUF_TYPE_Q6_K)
MATMUL(q4_0, GGUF_TYPE_Q4_0)
MATMUL(q5_0, GGUF_TYPE_Q5_0)
MATMUL(q8_0, GGUF_TYPE_Q8_0)
#undef MATMUL

static uint64_t read_all(const void *p, size_t n)
{
    const uint64_t *words = p;
    uint64x2_t a = vdupq_n_u64(0), b = a, c = a, d = a;
    for (size_t i = 0; i < n / sizeof *words; i += 8) {
        ask_for_line((const char *)(words + i), (const char *)p + n);
        a = veorq_u64(a, vld1q_u64(words + i));
        b = veorq_u64(b, vld1q_u64(words + i + 2));
        c = veorq_u64(c, vld1q_u64(words + i + 4));
        d = veorq_u64(d, vld1q_u64(words + i + 6));
    }
    a = veorq_u64(veorq_u64(a, b), veorq_u64(c, d));
    return vgetq_lane_u64(a, 0) ^ vgetq_lane_u64(a, 1);
}

/* The entries that every level of this folder has from here. */
#define ARM_KERNELS                                                                                                                    \
    LANES_KERNELS, .read_all = read_all, .matmul = {                                                                                   \
        [GGUF_TYPE_F32] = matmul_f32,                                                                                                  \
        [GGUF_TYPE_F16] = matmul_f16,                                                                                                  \
        [GGUF_TYPE_BF16] = matmul_bf16,                                                                                                \
        [GGUF_TYPE_Q4_0] = matmul_q4_0,                                                                                                \
        [GGUF_TYPE_Q5_0] = matmul_q5_0,                                                                                                \
        [GGUF_TYPE_Q8_0] = matmul_q8_0,                                                                                                \
        [GGUF_TYPE_Q4_K] = matmul_q4_k,                                                                                                \
        [GGUF_TYPE_Q5_K] = matmul_q5_k,                                                                                                \
        [GGUF_TYPE_Q6_K] = matmul_q6_k,                                                                                                \
    }
