/* ARMv8.6-A's 8-bit matrix multiplication: Neoverse V1 and N2 (Graviton 3 and 4), Cortex-X2 and later.
 *
 * SMMLA multiplies 2 rows of 8 bytes with 2 columns of 8 and adds to the 2 x 2 sums in a register, exactly: twice the products of SDOT. Two lines of a panel, zipped by
 * words, hold 8 columns of each of their rows one after the other; the activations of two tokens are put side by side. One token alone goes by SDOT. */
#include "kernels/levels.h"
#include "kernels/panel.h"
#include "kernels/arm/lanes_neon.h"

#include "kernels/lanes.h"

#include "kernels/arm/groups.h"
#include "kernels/arm/sdot.h"

/* Quants of 4 rows: [8 columns][rows 0 and 1, rows 2 and 3]. */
struct pairs {
    int8x16_t q[4][2];
};

INLINE void zip_lines(const int8x16_t q[8], struct pairs *out)
{
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        int32x4_t a = vreinterpretq_s32_s8(q[c * 2]), b = vreinterpretq_s32_s8(q[c * 2 + 1]);
        out->q[c][0] = vreinterpretq_s8_s32(vzip1q_s32(a, b));
        out->q[c][1] = vreinterpretq_s8_s32(vzip2q_s32(a, b));
    }
}

/* Sums over columns 8 * first .. 8 * last - 1 of 4 rows, for two tokens. */
INLINE void dot_pairs(const struct pairs *p, int first, int last, const int8x16_t a[4], int32x4_t sum[2])
{
    int32x4_t s01 = vdupq_n_s32(0), s23 = s01; /* row 0 and both tokens, row 1 and both tokens; so rows 2 and 3 */
#pragma GCC unroll 4
    for (int c = first; c < last; c++) {
        s01 = vmmlaq_s32(s01, p->q[c][0], a[c]);
        s23 = vmmlaq_s32(s23, p->q[c][1], a[c]);
    }
    sum[0] = vuzp1q_s32(s01, s23);
    sum[1] = vuzp2q_s32(s01, s23);
}

#define SEVERAL_TOKENS
INLINE void run_tokens(enum gguf_type type, const char *panel, size_t n_groups, const struct act *x, size_t first, size_t n, float (*acc)[PANEL_ROWS])
{
    for (size_t i = 0; i < n_groups; i++) {
        struct scales s;
        load_scales(type, &s, panel, n_groups, i);
        const size_t at = i * (size_t)x->n_tokens + first;
#pragma GCC unroll 2
        for (int r = 0; r < 4; r += 2) {
            struct pairs q[2];
#pragma GCC unroll 2
            for (int part = 0; part < 2; part++) {
                int8x16_t lines[8];
                load_quants(type, lines, panel, i, r + part, true);
                zip_lines(lines, &q[part]);
            }
            for (size_t t = 0; t < n; t += 2) {
                const size_t u = t + 1 < n ? t + 1 : t; /* an odd last token is its own neighbour */
                const int8_t *a0 = x->q + (at + t) * ACT_GROUP, *a1 = x->q + (at + u) * ACT_GROUP;
                int8x16_t a[4];
#pragma GCC unroll 4
                for (int c = 0; c < 4; c++)
                    a[c] = vcombine_s8(vld1_s8(a0 + c * 8), vld1_s8(a1 + c * 8));
                const float d0 = x->d[at + t], d1 = x->d[at + u], sum0 = x->sum[at + t], sum1 = x->sum[at + u];
#pragma GCC unroll 2
                for (int part = 0; part < 2; part++) {
                    int32x4_t low[2], high[2];
                    dot_pairs(&q[part], 0, type == GGUF_TYPE_Q6_K ? 2 : 4, a, low);
                    if (type == GGUF_TYPE_Q6_K)
                        dot_pairs(&q[part], 2, 4, a, high);
                    else
                        high[0] = high[1] = low[0];
                    float *c0 = acc[t] + (r + part) * 4, *c1 = acc[u] + (r + part) * 4;
                    float32x4_t v1 = add_share(type, &s, r + part, low[1], high[1], d1, sum1, vld1q_f32(c1));
                    vst1q_f32(c0, add_share(type, &s, r + part, low[0], high[0], d0, sum0, vld1q_f32(c0)));
                    if (u != t)
                        vst1q_f32(c1, v1);
                }
            }
        }
    }
}

#include "kernels/arm/matmul.h"

const struct kernels kernels_i8mm = {.level = "i8mm", ARM_KERNELS};
