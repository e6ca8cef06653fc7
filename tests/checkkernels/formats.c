/* The block formats of GGUF once more, written from their definitions one element at a time, and the checks of panel.c against
 * them. Source: the GGUF specification and ggml's block structures. Nothing here is shared with kernels/panel.c. */
#include "tests/checkkernels/check.h"

#include "kernels/panel.h"

#include <math.h>
#include <string.h>

const enum gguf_type all_types[9] = {GGUF_TYPE_F32,  GGUF_TYPE_F16,  GGUF_TYPE_BF16, GGUF_TYPE_Q4_0, GGUF_TYPE_Q5_0,
                                     GGUF_TYPE_Q8_0, GGUF_TYPE_Q4_K, GGUF_TYPE_Q5_K, GGUF_TYPE_Q6_K};

static void shape(enum gguf_type type, size_t *columns, size_t *bytes)
{
    switch (type) {
    case GGUF_TYPE_F32: *columns = 1, *bytes = 4; return;
    case GGUF_TYPE_F16:
    case GGUF_TYPE_BF16: *columns = 1, *bytes = 2; return;
    case GGUF_TYPE_Q4_0: *columns = 32, *bytes = 18; return;
    case GGUF_TYPE_Q5_0: *columns = 32, *bytes = 22; return;
    case GGUF_TYPE_Q8_0: *columns = 32, *bytes = 34; return;
    case GGUF_TYPE_Q4_K: *columns = 256, *bytes = 144; return;
    case GGUF_TYPE_Q5_K: *columns = 256, *bytes = 176; return;
    case GGUF_TYPE_Q6_K: *columns = 256, *bytes = 210; return;
    default: *columns = *bytes = 0; return;
    }
}

size_t row_bytes(enum gguf_type type, size_t n_cols)
{
    size_t columns, bytes;
    shape(type, &columns, &bytes);
    return n_cols / columns * bytes;
}

size_t block_columns(enum gguf_type type)
{
    size_t columns, bytes;
    shape(type, &columns, &bytes);
    return columns < 32 ? 32 : columns;
}

static uint16_t half_of(const unsigned char *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* ---- one element ---- */

static int nibble(int byte, bool high)
{
    return high ? byte >> 4 : byte & 15;
}

/* Scale and minimum of 32-column group j of a K block: 6 bits each, packed in 12 bytes. */
static void scale_min(const unsigned char *s, size_t j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] & 0xC0) >> 2;
        *min = s[j + 4] >> 4 | (s[j] & 0xC0) >> 2;
    }
}

double element(enum gguf_type type, const unsigned char *row, size_t c, double *magnitude)
{
    size_t columns, bytes;
    shape(type, &columns, &bytes);
    const unsigned char *b = row + c / columns * bytes;
    c %= columns;
    double v = 0, m = 0;
    switch (type) {
    case GGUF_TYPE_F32:
        v = bits_float((uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24);
        break;
    case GGUF_TYPE_F16:
        v = half_value(half_of(b));
        break;
    case GGUF_TYPE_BF16:
        v = bits_float((uint32_t)half_of(b) << 16);
        break;
    case GGUF_TYPE_Q4_0:
        v = half_value(half_of(b)) * (nibble(b[2 + c % 16], c >= 16) - 8);
        break;
    case GGUF_TYPE_Q5_0:
        v = half_value(half_of(b)) * ((nibble(b[6 + c % 16], c >= 16) | (b[2 + c / 8] >> c % 8 & 1) << 4) - 16);
        break;
    case GGUF_TYPE_Q8_0:
        v = half_value(half_of(b)) * (b[2 + c] < 128 ? b[2 + c] : b[2 + c] - 256);
        break;
    case GGUF_TYPE_Q4_K:
    case GGUF_TYPE_Q5_K: {
        int scale, min, q;
        scale_min(b + 4, c / 32, &scale, &min);
        if (type == GGUF_TYPE_Q4_K)
            q = nibble(b[16 + c / 64 * 32 + c % 32], c / 32 & 1);
        else
            q = nibble(b[48 + c / 64 * 32 + c % 32], c / 32 & 1) + 16 * (b[16 + c % 32] >> c / 32 & 1);
        m = half_value(half_of(b + 2)) * min;
        v = half_value(half_of(b)) * scale * q;
        if (magnitude)
            *magnitude = fabs(v) + fabs(m);
        return v - m;
    }
    case GGUF_TYPE_Q6_K: {
        size_t half = c / 128, quarter = c % 128 / 32, l = c % 32;
        int low = nibble(b[half * 64 + quarter % 2 * 32 + l], quarter >= 2), high = b[128 + half * 32 + l] >> 2 * quarter & 3;
        int scale = b[192 + c / 16] < 128 ? b[192 + c / 16] : b[192 + c / 16] - 256;
        v = half_value(half_of(b + 208)) * scale * ((low | high << 4) - 32);
        break;
    }
    default:
        break;
    }
    if (magnitude)
        *magnitude = fabs(v);
    return v;
}

/* ---- making blocks ---- */

static void put_half(unsigned char *p, uint16_t h)
{
    p[0] = (unsigned char)h;
    p[1] = (unsigned char)(h >> 8);
}

static uint16_t random_d(enum weights kind)
{
    static const uint16_t special[] = {0x0000, 0x8000, 0x0001, 0x83FF, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00, 0xBC01};
    if (kind == WEIGHTS_MIXED && random_int(0, 2) == 0)
        return special[random_int(0, (int)COUNT_OF(special) - 1)];
    if (kind == WEIGHTS_MAX || kind == WEIGHTS_MIN)
        return random_int(0, 1) ? 0x7BFF : 0x2000;
    /* 2^-12 .. 2^-4, either sign */
    return (uint16_t)(random_int(0, 1) << 15 | random_int(3, 11) << 10 | random_int(0, 1023));
}

static void make_float(enum gguf_type type, enum weights kind, unsigned char *b)
{
    static const float special[] = {0, -0.0f, 1, -1, 65504, -65504, 0x1p-24f, 0x1p-14f, 0x1.8p-20f, 3e38f, -3e38f, 1e-40f};
    float f = kind == WEIGHTS_MAX   ? (type == GGUF_TYPE_F16 ? 65504 : 3e38f)
              : kind == WEIGHTS_MIN ? (type == GGUF_TYPE_F16 ? -65504 : -3e38f)
              : kind == WEIGHTS_MIXED && random_int(0, 3) == 0 ? special[random_int(0, (int)COUNT_OF(special) - 1)]
                                                               : random_normal();
    uint32_t bits = float_bits(f);
    if (type == GGUF_TYPE_F32)
        memcpy(b, &bits, 4);
    else
        put_half(b, type == GGUF_TYPE_F16 ? (fabsf(f) > 65504 ? 0x7BFF : f32_to_f16(f)) : (uint16_t)(bits >> 16));
}

void make_blocks(enum gguf_type type, enum weights kind, size_t n, unsigned char *out)
{
    size_t columns, bytes;
    shape(type, &columns, &bytes);
    for (size_t i = 0; i < n; i += columns, out += bytes) {
        if (columns == 1) {
            make_float(type, kind, out);
            continue;
        }
        random_bytes(out, bytes);
        enum weights quants = kind != WEIGHTS_MIXED ? kind : (enum weights)random_int(WEIGHTS_RANDOM, WEIGHTS_MIN);
        enum weights scales = kind != WEIGHTS_MIXED ? kind : (enum weights)random_int(WEIGHTS_RANDOM, WEIGHTS_MIN);
        bool is_k = type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q5_K;
        size_t q_at = is_k ? 16 : type == GGUF_TYPE_Q6_K ? 0 : 2, q_end = type == GGUF_TYPE_Q6_K ? 192 : bytes;
        if (quants != WEIGHTS_RANDOM) {
            int value = type == GGUF_TYPE_Q8_0 ? (quants == WEIGHTS_MAX ? 0x7F : 0x80) : (quants == WEIGHTS_MAX ? 0xFF : 0x00);
            memset(out + q_at, value, q_end - q_at);
        }
        if (is_k) {
            if (scales != WEIGHTS_RANDOM) /* for the least quants the greatest minimums, which count negative */
                memset(out + 4, kind == WEIGHTS_MIXED && scales == WEIGHTS_MIN ? 0x00 : 0xFF, 12);
            put_half(out, random_d(kind));
            put_half(out + 2, random_d(kind));
        } else if (type == GGUF_TYPE_Q6_K) {
            for (size_t s = 192; s < 208 && scales != WEIGHTS_RANDOM; s++)
                out[s] = scales == WEIGHTS_MAX ? 0x7F : 0x80;
            if (kind == WEIGHTS_MIXED)
                out[192 + random_int(0, 15)] = (unsigned char)(random_int(0, 1) ? 0x80 : 0x7F);
            put_half(out + 208, random_d(kind));
        } else {
            put_half(out, random_d(kind));
        }
    }
}

/* ---- panel.c against all this ---- */

/* Where the lines begin in a panel that has n bytes of scales before them. */
static size_t lines_from(size_t n)
{
    return (n + 63) / 64 * 64;
}

/* The weight at row r, column c of a panel, from the layout that kernels/panel.h describes. */
static double panel_element(enum gguf_type type, const unsigned char *panel, size_t n_cols, size_t r, size_t c)
{
    size_t g = c / 32, j = c % 32 / 4, byte = r * 4 + c % 4, n_groups = n_cols / 32;
    size_t line = j % 4 * 64 + byte; /* of the nibbles */
    bool high = j >= 4;
    switch (type) {
    case GGUF_TYPE_F32: {
        float f;
        memcpy(&f, panel + (c * 16 + r) * 4, 4);
        return f;
    }
    case GGUF_TYPE_F16:
        return half_value(half_of(panel + (c * 16 + r) * 2));
    case GGUF_TYPE_BF16:
        return bits_float((uint32_t)half_of(panel + (c * 16 + r) * 2) << 16);
    case GGUF_TYPE_Q4_0:
        return half_value(half_of(panel + (g * 16 + r) * 2)) *
               (nibble(panel[lines_from(n_groups * 32) + g * 256 + line], high) - 8);
    case GGUF_TYPE_Q5_0: {
        const unsigned char *group = panel + lines_from(n_groups * 32) + g * 320;
        int q = nibble(group[line], high) | (group[256 + byte] >> j & 1) << 4;
        return half_value(half_of(panel + (g * 16 + r) * 2)) * (q - 16);
    }
    case GGUF_TYPE_Q8_0: {
        int q = panel[lines_from(n_groups * 32) + g * 512 + j * 64 + byte];
        return half_value(half_of(panel + (g * 16 + r) * 2)) * (q < 128 ? q : q - 256);
    }
    case GGUF_TYPE_Q4_K:
    case GGUF_TYPE_Q5_K: {
        size_t lines = type == GGUF_TYPE_Q4_K ? 8 * 256 : 8 * 320, i = g % 8;
        const unsigned char *b = panel + g / 8 * (256 + lines), *scale = b + 64 + i * 16, *min = b + 192 + i % 4 * 16,
                            *q = b + 256 + i * 256;
        int quant = nibble(q[line], high);
        if (type == GGUF_TYPE_Q5_K)
            quant |= (b[256 + 8 * 256 + i * 64 + byte] >> j & 1) << 4;
        int m = nibble(min[r], i >= 4) | scale[r] >> 6 << 4;
        return half_value(half_of(b + r * 2)) * (scale[r] & 63) * quant - half_value(half_of(b + 32 + r * 2)) * m;
    }
    case GGUF_TYPE_Q6_K: {
        const unsigned char *scales = panel + g * 32, *d = panel + n_groups * 32;
        const unsigned char *group = panel + lines_from(n_groups * 32 + n_groups / 8 * 32) + g * 384;
        int q = nibble(group[line], high) | (group[256 + j / 4 * 64 + byte] >> j % 4 * 2 & 3) << 4;
        int scale = scales[j / 4 * 16 + r];
        return half_value(half_of(d + (g / 8 * 16 + r) * 2)) * (scale < 128 ? scale : scale - 256) * (q - 32);
    }
    default:
        return NAN;
    }
}

static bool equal(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static void check_pack(enum gguf_type type, enum weights kind, size_t n_rows, size_t n_cols)
{
    size_t bytes = row_bytes(type, n_cols);
    unsigned char *rows = guarded(0, n_rows * bytes);
    for (size_t r = 0; r < n_rows; r++)
        make_blocks(type, kind, n_cols, rows + r * bytes);
    if (panel_bytes(type, n_cols) != (16 * bytes + 63) / 64 * 64)
        fail("panel_bytes of %zu columns is %zu", n_cols, panel_bytes(type, n_cols));
    unsigned char *panel = guarded(1, panel_bytes(type, n_cols));
    panel_pack(type, rows, n_rows, n_cols, panel);
    for (size_t r = 0; r < PANEL_ROWS; r++)
        for (size_t c = 0; c < n_cols; c++) {
            double want = r < n_rows ? element(type, rows + r * bytes, c, NULL) : 0,
                   got = panel_element(type, panel, n_cols, r, c);
            if (!equal(got, want)) {
                fail("packed row %zu of %zu, column %zu of %zu is %g, not %g", r, n_rows, c, n_cols, got, want);
                return;
            }
        }
    float *out = guarded(2, n_cols * sizeof *out);
    for (size_t r = 0; r < n_rows; r++) {
        dequantize(type, rows + r * bytes, n_cols, out);
        for (size_t c = 0; c < n_cols; c++)
            if (!equal(out[c], (float)element(type, rows + r * bytes, c, NULL))) {
                fail("dequantized column %zu of %zu is %g, not %g", c, n_cols, out[c], element(type, rows + r * bytes, c, NULL));
                return;
            }
    }
}

void check_formats(const struct kernels *k, int type)
{
    (void)k;
    static const size_t rows[] = {1, 2, 15, 16};
    if (!panel_supported((enum gguf_type)type))
        fail("panel_supported says no");
    for (int kind = 0; kind < N_WEIGHTS; kind++)
        for (size_t i = 0; i < COUNT_OF(rows); i++)
            for (size_t blocks = 1; blocks <= 5; blocks += 2)
                check_pack((enum gguf_type)type, (enum weights)kind, rows[i], blocks * block_columns((enum gguf_type)type));
    if (!guards_intact())
        fail("wrote before the start of a buffer");
}

/* ---- f16 ---- */

void check_f16(const struct kernels *k, int unused)
{
    (void)k, (void)unused;
    for (uint32_t h = 0; h < 0x10000; h++) {
        double want = half_value((uint16_t)h);
        float f = f16_to_f32((uint16_t)h);
        if (!equal(f, want) || (signbit(f) != 0) != (h >> 15))
            fail("f16_to_f32(0x%04x) is %g, not %g", h, f, want);
        uint16_t back = f32_to_f16(f);
        if (isnan(want) ? !isnan(half_value(back)) || (back ^ h) >> 15 : back != h)
            fail("f32_to_f16(%g) is 0x%04x, not 0x%04x", f, back, h);
    }
    /* Around the middle between neighbours; above the greatest the next is 2^16, which is infinity. */
    for (uint32_t sign = 0; sign < 2; sign++)
        for (uint32_t h = 0; h < 0x7C00; h++) {
            double above = h == 0x7BFF ? 65536 : half_value((uint16_t)(h + 1));
            float tie = (float)((half_value((uint16_t)h) + above) / 2);
            uint16_t even = (uint16_t)(h + (h & 1)), s = (uint16_t)(sign << 15);
            float f[3] = {bits_float(float_bits(tie) - 1), tie, bits_float(float_bits(tie) + 1)};
            uint16_t want[3] = {(uint16_t)h, even, (uint16_t)(h + 1)};
            for (int i = 0; i < 3; i++)
                if (f32_to_f16(sign ? -f[i] : f[i]) != (want[i] | s))
                    fail("f32_to_f16(%a) is 0x%04x, not 0x%04x", sign ? -f[i] : f[i], f32_to_f16(sign ? -f[i] : f[i]),
                        want[i] | s);
        }
    if (f32_to_f16(1e30f) != 0x7C00 || f32_to_f16(-1e30f) != 0xFC00 || f32_to_f16(1e-30f) != 0 || f32_to_f16(-1e-45f) != 0x8000)
        fail("f32_to_f16 of very large or very small numbers");
}
