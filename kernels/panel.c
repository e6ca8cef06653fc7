#include "kernels/panel.h"

#include <string.h>

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

bool panel_supported(enum gguf_type type)
{
    switch (type) {
    case GGUF_TYPE_F32:
    case GGUF_TYPE_F16:
    case GGUF_TYPE_BF16:
    case GGUF_TYPE_Q4_0:
    case GGUF_TYPE_Q5_0:
    case GGUF_TYPE_Q8_0:
    case GGUF_TYPE_Q4_K:
    case GGUF_TYPE_Q5_K:
    case GGUF_TYPE_Q6_K:
        return true;
    default:
        return false;
    }
}

size_t panel_bytes(enum gguf_type type, size_t n_cols)
{
    const struct gguf_type_traits *t = gguf_type_traits(type);
    return round_up(n_cols / t->block_size * t->block_bytes * PANEL_ROWS, LINE);
}

/* ---- f16 ---- */

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3FF, bits;
    if (exponent == 31) {
        bits = sign | 0x7F800000u | mantissa << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    } else if (mantissa == 0) {
        bits = sign;
    } else { /* subnormal: value = mantissa * 2^-24 */
        float f = (float)mantissa * 0x1p-24f;
        memcpy(&bits, &f, sizeof bits);
        bits |= sign;
    }
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t f32_to_f16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7FFFFFFF;
    if (bits > 0x7F800000) /* NaN, quiet */
        return (uint16_t)(sign | 0x7E00 | (bits >> 13 & 0x3FF));
    if (bits >= 0x477FF000) /* rounds to 2^16 or more */
        return (uint16_t)(sign | 0x7C00);
    if (bits < 0x38800000) { /* below 2^-14: subnormal; adding 0.5 leaves the rounded multiple of 2^-24 in the mantissa */
        float a;
        memcpy(&a, &bits, sizeof a);
        a += 0.5f;
        memcpy(&bits, &a, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3F000000));
    }
    bits += 0xFFF + (bits >> 13 & 1); /* to nearest, ties to even */
    return (uint16_t)(sign | (bits - 0x38000000) >> 13);
}

static float bf16_to_f32(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* ---- the file's blocks, read into words: quants of a group of 32 columns as 8 words of 4 bytes ---- */

static uint32_t word_at(const unsigned char *p)
{
    uint32_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

static uint16_t half_at(const unsigned char *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

/* Spreads bits 0..3 of n over the lowest bits of 4 bytes. */
static uint32_t spread4(uint32_t n)
{
    return (n * 0x00204081u) & 0x01010101u;
}

/* Q4_K: d, dmin (f16), scales[12], qs[128]. Nibbles of groups 2i (low) and 2i + 1 (high) share 32 bytes. */
static void words_q4_k(const unsigned char *qs, int group, uint32_t w[8])
{
    for (int j = 0; j < 8; j++)
        w[j] = word_at(qs + group / 2 * 32 + j * 4) >> (group & 1) * 4 & 0x0F0F0F0F;
}

/* Q5_K: d, dmin, scales[12], qh[32], qs[128]. Bit g of qh[l] is the fifth bit of column l of group g. */
static void words_q5_k(const unsigned char *qh, const unsigned char *qs, int group, uint32_t w[8])
{
    words_q4_k(qs, group, w);
    for (int j = 0; j < 8; j++)
        w[j] |= (word_at(qh + j * 4) >> group & 0x01010101) << 4;
}

/* The 6-bit scales and minimums of Q4_K and Q5_K. */
static void scales_k(const unsigned char s[12], uint8_t scale[8], uint8_t min[8])
{
    for (int g = 0; g < 4; g++) {
        scale[g] = s[g] & 63;
        min[g] = s[g + 4] & 63;
        scale[g + 4] = (uint8_t)((s[g + 8] & 15) | s[g] >> 6 << 4);
        min[g + 4] = (uint8_t)(s[g + 8] >> 4 | s[g + 4] >> 6 << 4);
    }
}

/* Q6_K: ql[128], qh[64], scales[16] (int8), d. Each half of 128 columns is 4 groups: nibble (g / 2) of ql[32 * (g % 2) + l], bit
 * pair g of qh[l]. */
static void words_q6_k(const unsigned char *block, int group, uint32_t w[8])
{
    const unsigned char *ql = block + group / 4 * 64 + (group & 1) * 32, *qh = block + 128 + group / 4 * 32;
    int nibble = (group & 2) * 2, pair = (group & 3) * 2;
    for (int j = 0; j < 8; j++)
        w[j] = (word_at(ql + j * 4) >> nibble & 0x0F0F0F0F) | (word_at(qh + j * 4) >> pair & 0x03030303) << 4;
}

/* Q4_0: d, qs[16]: low nibbles are columns 0..15, high nibbles 16..31. */
static void words_q4_0(const unsigned char *qs, uint32_t w[8])
{
    for (int j = 0; j < 4; j++) {
        w[j] = word_at(qs + j * 4) & 0x0F0F0F0F;
        w[j + 4] = word_at(qs + j * 4) >> 4 & 0x0F0F0F0F;
    }
}

/* Q5_0: d, qh (32 bits: bit c is the fifth bit of column c), qs[16]. */
static void words_q5_0(const unsigned char *block, uint32_t w[8])
{
    uint32_t qh = word_at(block + 2);
    words_q4_0(block + 6, w);
    for (int j = 0; j < 8; j++)
        w[j] |= spread4(qh >> 4 * j & 15) << 4;
}

/* ---- packing ---- */

static void put_word(uint8_t *line, size_t row, uint32_t w)
{
    memcpy(line + row * 4, &w, sizeof w);
}

static void put_nibbles(uint8_t q[4][LINE], size_t row, const uint32_t w[8])
{
    for (int j = 0; j < 4; j++)
        put_word(q[j], row, (w[j] & 0x0F0F0F0F) | (w[j + 4] & 0x0F0F0F0F) << 4);
}

static void put_fifth_bits(uint8_t h[LINE], size_t row, const uint32_t w[8])
{
    uint32_t bits = 0;
    for (int j = 0; j < 8; j++)
        bits |= (w[j] >> 4 & 0x01010101) << j;
    put_word(h, row, bits);
}

static void put_scales_k(uint8_t scale_out[8][16], uint8_t min_out[4][16], size_t row, const unsigned char s[12])
{
    uint8_t scale[8], min[8];
    scales_k(s, scale, min);
    for (int g = 0; g < 8; g++)
        scale_out[g][row] = (uint8_t)(scale[g] | min[g] >> 4 << 6);
    for (int g = 0; g < 4; g++)
        min_out[g][row] = (uint8_t)((min[g] & 15) | (min[g + 4] & 15) << 4);
}

static void pack_q4_k(const unsigned char *block, size_t row, struct panel_q4_k *out)
{
    out->d[row] = half_at(block);
    out->dmin[row] = half_at(block + 2);
    put_scales_k(out->scale, out->min, row, block + 4);
    for (int g = 0; g < 8; g++) {
        uint32_t w[8];
        words_q4_k(block + 16, g, w);
        put_nibbles(out->q[g], row, w);
    }
}

static void pack_q5_k(const unsigned char *block, size_t row, struct panel_q5_k *out)
{
    out->d[row] = half_at(block);
    out->dmin[row] = half_at(block + 2);
    put_scales_k(out->scale, out->min, row, block + 4);
    for (int g = 0; g < 8; g++) {
        uint32_t w[8];
        words_q5_k(block + 16, block + 48, g, w);
        put_nibbles(out->q[g], row, w);
        put_fifth_bits(out->h[g], row, w);
    }
}

static void pack_q6_k(const unsigned char *block, size_t row, struct group_q6 *groups, int8_t *scales, uint16_t *d)
{
    d[row] = half_at(block + 208);
    for (int g = 0; g < 8; g++) {
        uint32_t w[8];
        words_q6_k(block, g, w);
        put_nibbles(groups[g].q, row, w);
        for (int part = 0; part < 2; part++) {
            uint32_t bits = 0;
            for (int j = 0; j < 4; j++)
                bits |= (w[part * 4 + j] >> 4 & 0x03030303) << 2 * j;
            put_word(groups[g].h[part], row, bits);
        }
        scales[g * 32 + (int)row] = (int8_t)block[192 + g * 2];
        scales[g * 32 + 16 + (int)row] = (int8_t)block[192 + g * 2 + 1];
    }
}

void panel_pack(enum gguf_type type, const void *rows, size_t n_rows, size_t n_cols, void *panel)
{
    const struct gguf_type_traits *t = gguf_type_traits(type);
    size_t n_blocks = n_cols / t->block_size, n_groups = n_cols / ACT_GROUP, row_bytes = n_blocks * t->block_bytes;
    if (n_rows < PANEL_ROWS) /* rows of zeros: every format's all-zero block has d = 0 */
        memset(panel, 0, panel_bytes(type, n_cols));

    /* Column blocks outside, rows inside: 16 source streams are read in order, and what is written stays in the first-level
     * cache. */
    for (size_t b = 0; b < n_blocks; b++) {
        for (size_t r = 0; r < n_rows; r++) {
            const unsigned char *block = (const unsigned char *)rows + r * row_bytes + b * t->block_bytes;
            uint32_t w[8];
            switch (type) {
            case GGUF_TYPE_F32:
                memcpy((float *)panel + b * PANEL_ROWS + r, block, sizeof(float));
                break;
            case GGUF_TYPE_F16:
            case GGUF_TYPE_BF16:
                memcpy((uint16_t *)panel + b * PANEL_ROWS + r, block, sizeof(uint16_t));
                break;
            case GGUF_TYPE_Q4_K:
                pack_q4_k(block, r, (struct panel_q4_k *)panel + b);
                break;
            case GGUF_TYPE_Q5_K:
                pack_q5_k(block, r, (struct panel_q5_k *)panel + b);
                break;
            case GGUF_TYPE_Q6_K: {
                int8_t *scales = panel;
                uint16_t *d = (uint16_t *)(void *)(scales + n_groups * 32);
                struct group_q6 *groups = (struct group_q6 *)(void *)(scales + panel_q6_head(n_groups));
                pack_q6_k(block, r, groups + b * 8, scales + b * 256, d + b * 16);
                break;
            }
            case GGUF_TYPE_Q4_0: {
                struct group_q4_0 *groups = (struct group_q4_0 *)(void *)((char *)panel + panel_0_head(n_groups));
                ((uint16_t *)panel)[b * 16 + r] = half_at(block);
                words_q4_0(block + 2, w);
                put_nibbles(groups[b].q, r, w);
                break;
            }
            case GGUF_TYPE_Q5_0: {
                struct group_q5_0 *groups = (struct group_q5_0 *)(void *)((char *)panel + panel_0_head(n_groups));
                ((uint16_t *)panel)[b * 16 + r] = half_at(block);
                words_q5_0(block, w);
                put_nibbles(groups[b].q, r, w);
                put_fifth_bits(groups[b].h, r, w);
                break;
            }
            case GGUF_TYPE_Q8_0: {
                struct group_q8_0 *groups = (struct group_q8_0 *)(void *)((char *)panel + panel_0_head(n_groups));
                ((uint16_t *)panel)[b * 16 + r] = half_at(block);
                for (int j = 0; j < 8; j++)
                    put_word((uint8_t *)groups[b].q[j], r, word_at(block + 2 + j * 4));
                break;
            }
            default:
                break;
            }
        }
    }
}

/* ---- dequantising ---- */

static void store_words(const uint32_t w[8], float d, float offset, float *out)
{
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 4; i++)
            out[j * 4 + i] = d * (float)(w[j] >> 8 * i & 0xFF) + offset;
}

static void dequantize_block(enum gguf_type type, const unsigned char *block, float *out)
{
    uint32_t w[8];
    float d = f16_to_f32(half_at(block));
    switch (type) {
    case GGUF_TYPE_F32:
        memcpy(out, block, sizeof(float));
        break;
    case GGUF_TYPE_F16:
        *out = d;
        break;
    case GGUF_TYPE_BF16:
        *out = bf16_to_f32(half_at(block));
        break;
    case GGUF_TYPE_Q4_0:
        words_q4_0(block + 2, w);
        store_words(w, d, -8.0f * d, out);
        break;
    case GGUF_TYPE_Q5_0:
        words_q5_0(block, w);
        store_words(w, d, -16.0f * d, out);
        break;
    case GGUF_TYPE_Q8_0:
        for (int i = 0; i < 32; i++)
            out[i] = d * (float)(int8_t)block[2 + i];
        break;
    case GGUF_TYPE_Q4_K:
    case GGUF_TYPE_Q5_K: {
        float dmin = f16_to_f32(half_at(block + 2));
        uint8_t scale[8], min[8];
        scales_k(block + 4, scale, min);
        for (int g = 0; g < 8; g++) {
            if (type == GGUF_TYPE_Q4_K)
                words_q4_k(block + 16, g, w);
            else
                words_q5_k(block + 16, block + 48, g, w);
            store_words(w, d * (float)scale[g], -dmin * (float)min[g], out + g * 32);
        }
        break;
    }
    case GGUF_TYPE_Q6_K:
        d = f16_to_f32(half_at(block + 208));
        for (int g = 0; g < 8; g++) {
            words_q6_k(block, g, w);
            for (int c = 0; c < 32; c++) {
                int q = (int)(w[c / 4] >> 8 * (c % 4) & 0xFF) - 32;
                out[g * 32 + c] = d * (float)((int8_t)block[192 + g * 2 + c / 16] * q);
            }
        }
        break;
    default:
        break;
    }
}

void dequantize(enum gguf_type type, const void *blocks, size_t n, float *out)
{
    const struct gguf_type_traits *t = gguf_type_traits(type);
    const unsigned char *p = blocks;
    for (size_t i = 0; i < n; i += t->block_size, p += t->block_bytes)
        dequantize_block(type, p, out + i);
}
