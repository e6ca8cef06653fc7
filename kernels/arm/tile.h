/* Several tokens against a chunk, for the levels that keep 4 rows of one token in a register. */
#ifndef QUERN_ARM_TILE_H
#define QUERN_ARM_TILE_H

INLINE void put_scales(enum gguf_type type, struct chunk *c, size_t g, const struct scales *s)
{
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        c->s[g][r].d = s->d[r];
        if (has_minimum(type))
            c->s[g][r].minus_min = s->minus_min[r];
        if (type == GGUF_TYPE_Q6_K) {
            c->s[g][r].scale0 = s->scale0[r];
            c->s[g][r].scale1 = s->scale1[r];
        }
    }
}

INLINE void put_quants(enum gguf_type type, struct chunk *c, size_t g, const struct lines *lines)
{
    for (int r = 0; r < 4; r++) {
        int8x16_t q[8];
        load_quants(type, q, lines, r, true);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            vst1q_s8(c->q[g][r][j], q[j]);
    }
}

/* Adds to the sums of n tokens (a constant) from token on the share of groups i to i + count - 1, for the quarters of part; the
 * sums stay in registers. ready: the quants are in the chunk; else they are unpacked here, for tokens that use them once. */
INLINE void add_tile(enum gguf_type type, int n, bool ready, const struct chunk *c, const struct lines *lines, size_t i,
                     size_t count, int part, const struct act *x, size_t token, float (*acc)[PANEL_ROWS])
{
    float32x4_t sums[TILE_QUARTERS][TILE_TOKENS];
#pragma GCC unroll 4
    for (int r = 0; r < TILE_QUARTERS; r++)
#pragma GCC unroll 4
        for (int t = 0; t < n; t++)
            sums[r][t] = vld1q_f32(acc[t] + (part * TILE_QUARTERS + r) * 4);
    const float32x4_t base = sum_base();
    const size_t n_tokens = (size_t)x->n_tokens;
    const int8_t *a = x->q + (i * n_tokens + token) * ACT_GROUP;
    const float *d = x->d + i * n_tokens + token, *sum = x->sum + i * n_tokens + token;
    const int8_t (*ready_q)[8][16] = c->q[0] + part * TILE_QUARTERS;
    const struct quarter *s = c->s[0] + part * TILE_QUARTERS;
    struct lines at = *lines;
    for (size_t g = 0; g < count; g++, next_group(type, &at)) {
        struct words w[TILE_TOKENS];
#pragma GCC unroll 4
        for (int t = 0; t < n; t++)
            w[t] = load_words(a + t * ACT_GROUP);
        const float32x4_t ds = some_floats(d, n), sums_of_x = has_minimum(type) ? some_floats(sum, n) : ds;
#pragma GCC unroll 4
        for (int r = 0; r < TILE_QUARTERS; r++) {
            int8x16_t q[8];
            if (ready) {
#pragma GCC unroll 8
                for (int j = 0; j < 8; j++)
                    q[j] = vld1q_s8(ready_q[r][j]);
            } else {
                load_quants(type, q, &at, part * TILE_QUARTERS + r, true);
            }
            const struct quarter of = s[r];
#pragma GCC unroll 4
            for (int t = 0; t < n; t++) {
                const int32x4_t from = sums_have_base(type) ? from_base(base) : vdupq_n_s32(0);
                sums[r][t] = add_token(type, true, q, &of, w[t], sums_have_base(type) ? &from : NULL, base, ds, sums_of_x, t,
                                       sums[r][t]);
            }
            __asm__ volatile("" ::: "memory"); /* quarter after quarter */
        }
        a += n_tokens * ACT_GROUP;
        d += n_tokens;
        sum += n_tokens;
        ready_q += 4;
        s += SCALES_OF_A_GROUP;
    }
#pragma GCC unroll 4
    for (int r = 0; r < TILE_QUARTERS; r++)
#pragma GCC unroll 4
        for (int t = 0; t < n; t++)
            vst1q_f32(acc[t] + (part * TILE_QUARTERS + r) * 4, sums[r][t]);
}

INLINE void finish_tokens(float (*acc)[PANEL_ROWS], size_t n)
{
    (void)acc;
    (void)n;
}

#endif
