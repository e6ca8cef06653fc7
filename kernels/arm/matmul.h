/* The loops of the quantised matmul. A level's file defines a dot product and then includes this file:
 *
 *   struct words, load_words(a)   the 32 activations of a token and a group, as the level wants them in registers
 *   dot(q, first, last, magnitude, a, from)
 *                                 lines first .. last - 1 of 4 rows (quants of at most that magnitude) times the activations,
 *                                 and *from, if that is not NULL
 *   FEW_TOKENS                    up to how many tokens (3 at most) do without a copy of anything that is unpacked
 *   TILE_TOKENS, TILE_QUARTERS    tokens and quarters of a panel (4 rows) whose sums stay in registers over a chunk
 *
 * and, where the registers are to hold anything else than 4 rows of one token (i8mm), OWN_TILE and what tile.h has for the
 * others. */
#include "kernels/ahead.h"
#include "kernels/arm/groups.h"

enum {
    RUN = 64, /* tokens whose sums (RUN * 64 bytes) stay in the first-level cache beside a chunk and its activations */
    WAITING = 16 /* tokens that may have to wait for weights */
};

/* The share of a group and a token added to acc, for 4 rows; lane t of d and sum is the token's. from: what the integer sums over
 * columns 0..15 and 16..31 start at (Q6_K; NULL for zero), or the sum over all 32. */
INLINE float32x4_t add_token(enum gguf_type type, bool centred, const int8x16_t q[8], const struct quarter *s, struct words a,
                             const int32x4_t *from, float32x4_t base, float32x4_t d, float32x4_t sum, int t, float32x4_t acc)
{
    const int magnitude = quant_magnitude(type, centred);
    if (type != GGUF_TYPE_Q6_K) {
        int32x4_t s0 = dot(q, 0, 8, magnitude, a, from);
        return add_share(type, s, s0, s0, base, d, sum, t, acc);
    }
    int32x4_t s1 = dot(q, 4, 8, magnitude, a, from ? from + 1 : NULL), s0 = dot(q, 0, 4, magnitude, a, from);
    return add_share(type, s, s0, s1, base, d, sum, t, acc);
}

/* n tokens (a constant, at most 3), all there are: sums of all 16 rows in registers, every group unpacked where it is used. */
INLINE void few_tokens(enum gguf_type type, int n, const char *panel, const char *end, size_t n_groups, const struct act *x,
                       float *y, size_t y_stride)
{
    const size_t bytes = panel_group_bytes(type);
    const float32x4_t base = sum_base();
    /* With one user, it is cheaper to begin the sums at what the offset of the quants amounts to than to take it off them. */
    const bool centred = n > 1, starts = !centred && quant_offset(type) != 0;
    float32x4_t acc[4][3];
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++)
#pragma GCC unroll 3
        for (int t = 0; t < n; t++)
            acc[r][t] = vdupq_n_f32(0);
    const int8_t *a = x->q;
    const float *ds = x->d, *sums_of_x = x->sum;
    const int16_t *halves_of_x = x->half;
    for (size_t first = 0; first < n_groups; first += CHUNK) {
        struct factors f;
        load_factors(type, &f, panel, n_groups, first);
        struct lines lines = lines_of(type, panel, n_groups, first);
        const size_t count = n_groups - first < CHUNK ? n_groups - first : CHUNK;
        for (size_t g = 0; g < count; g++, next_group(type, &lines)) {
            ask_for(panel + AHEAD + (first + g) * bytes, bytes, end);
            struct scales s;
            load_scales(type, &s, &f, panel, first, g);
            struct words w[3];
#pragma GCC unroll 3
            for (int t = 0; t < n; t++)
                w[t] = load_words(a + t * ACT_GROUP);
            const float32x4_t d = some_floats(ds, n), sum = has_minimum(type) ? some_floats(sums_of_x, n) : d;
            int32x4_t from[2];
            if (starts) {
                const int h0 = -quant_offset(type) * halves_of_x[0], h1 = -quant_offset(type) * halves_of_x[1];
                from[0] = vdupq_n_s32(type == GGUF_TYPE_Q6_K ? h0 : sums_have_base(type) ? SUM_BASE + h0 + h1 : h0 + h1);
                from[1] = vdupq_n_s32(h1);
            }
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                int8x16_t q[8];
                load_quants(type, q, &lines, r, centred);
                const struct quarter of = quarter_of(type, &s, r);
#pragma GCC unroll 3
                for (int t = 0; t < n; t++) {
                    if (!starts && sums_have_base(type))
                        from[0] = from_base(base);
                    const int32x4_t *start = starts || sums_have_base(type) ? from : NULL;
                    acc[r][t] = add_token(type, centred, q, &of, w[t], start, base, d, sum, t, acc[r][t]);
                }
                __asm__ volatile("" ::: "memory"); /* quarter after quarter: the registers do not hold all that could be loaded */
            }
            a += n * ACT_GROUP;
            ds += n;
            sums_of_x += n;
            halves_of_x += n * 2;
        }
    }
#pragma GCC unroll 3
    for (int t = 0; t < n; t++)
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++)
            vst1q_f32(y + (size_t)t * y_stride + r * 4, acc[r][t]);
}

#ifndef OWN_TILE
#include "kernels/arm/tile.h"
#endif

/* n tokens from first on. Chunk after chunk, so that the sums of a tile of tokens need fetching once for 256 columns only. */
INLINE void run_tokens(enum gguf_type type, const char *panel, const char *end, size_t n_groups, const struct act *x,
                       size_t first, size_t n, float (*acc)[PANEL_ROWS])
{
    const size_t bytes = panel_group_bytes(type);
    const bool once = TILE_TOKENS > 2 && n == TILE_TOKENS; /* who uses the quants of a chunk only once needs no copy of them */
    struct chunk c;
    for (size_t i = 0; i < n_groups; i += CHUNK) {
        const size_t count = n_groups - i < CHUNK ? n_groups - i : CHUNK;
        struct factors f;
        load_factors(type, &f, panel, n_groups, i);
        const struct lines lines = lines_of(type, panel, n_groups, i);
        struct lines at = lines;
        for (size_t g = 0; g < count; g++, next_group(type, &at)) {
            if (n <= WAITING)
                ask_for(panel + AHEAD + (i + g) * bytes, bytes, end);
            struct scales s;
            load_scales(type, &s, &f, panel, i, g);
            put_scales(type, &c, g, &s);
            if (!once)
                put_quants(type, &c, g, &at);
        }
        for (int part = 0; part < 4 / TILE_QUARTERS; part++) {
            if (once) {
                add_tile(type, TILE_TOKENS, false, &c, &lines, i, count, part, x, first, acc);
                continue;
            }
            size_t t = 0;
            for (; t + TILE_TOKENS <= n; t += TILE_TOKENS)
                add_tile(type, TILE_TOKENS, true, &c, &lines, i, count, part, x, first + t, acc + t);
            if (n - t == 1)
                add_tile(type, 1, true, &c, &lines, i, count, part, x, first + t, acc + t);
#if TILE_TOKENS == 4
            if (n - t == 2)
                add_tile(type, 2, true, &c, &lines, i, count, part, x, first + t, acc + t);
            if (n - t == 3)
                add_tile(type, 3, true, &c, &lines, i, count, part, x, first + t, acc + t);
#endif
        }
    }
    finish_tokens(acc, n);
}

INLINE void matmul(enum gguf_type type, const void *panels, size_t n_panels, const struct act *x, float *y, size_t y_stride)
{
    const size_t n_groups = (size_t)x->n_cols / ACT_GROUP, n_tokens = (size_t)x->n_tokens;
    const size_t bytes = panel_bytes(type, (size_t)x->n_cols);
    const char *end = (const char *)panels + n_panels * bytes;
    if (n_tokens <= WAITING)
        ask_for(panels, AHEAD, end);
    for (size_t p = 0; p < n_panels; p++, y += PANEL_ROWS) {
        const char *panel = (const char *)panels + p * bytes;
        if (n_tokens == 1) {
            few_tokens(type, 1, panel, end, n_groups, x, y, y_stride);
            continue;
        }
        if (n_tokens == 2) {
            few_tokens(type, 2, panel, end, n_groups, x, y, y_stride);
            continue;
        }
#if FEW_TOKENS == 3
        if (n_tokens == 3) {
            few_tokens(type, 3, panel, end, n_groups, x, y, y_stride);
            continue;
        }
#endif
        for (size_t first = 0; first < n_tokens; first += RUN) {
            size_t n = n_tokens - first < RUN ? n_tokens - first : RUN;
            _Alignas(64) float acc[RUN][PANEL_ROWS];
            memset(acc, 0, (n + 1) / 2 * 2 * sizeof acc[0]);
            run_tokens(type, panel, end, n_groups, x, first, n, acc);
            for (size_t t = 0; t < n; t++)
                memcpy(y + (first + t) * y_stride, acc[t], sizeof acc[t]);
        }
    }
}

QUANTISED_TYPES(MATMUL_OF_TYPE)

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
