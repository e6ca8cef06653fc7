/* Checks of quantize and of the matrix multiplications. */
#include "tests/checkkernels/check.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { SLOT_ROWS, SLOT_PANELS, SLOT_Y, SLOT_Y2, SLOT_ACT, SLOT_ACT2 = SLOT_ACT + 6 };

/* ---- activations ---- */

struct act act_room(int first_slot, int n_tokens, int n_cols)
{
    size_t groups = (size_t)n_tokens * (size_t)n_cols / ACT_GROUP;
    return (struct act){.n_tokens = n_tokens,
                        .n_cols = n_cols,
                        .q = guarded(first_slot, groups * ACT_GROUP),
                        .d = guarded(first_slot + 1, groups * sizeof(float)),
                        .sum = guarded(first_slot + 2, groups * sizeof(float)),
                        .half = guarded(first_slot + 3, groups * 2 * sizeof(int16_t)),
                        .pair = guarded(first_slot + 4, groups * 4 * sizeof(int16_t)),
                        .x = guarded(first_slot + 5, groups * ACT_GROUP * sizeof(float))};
}

/* The rows of x; a is const but what it points to is not. */
static float *rows_of(const struct act *a)
{
    return (float *)(uintptr_t)a->x;
}

void quantize_all(const struct kernels *k, const struct act *a)
{
    k->quantize(a, a->x, (size_t)a->n_cols, 0, a->n_tokens, 0, a->n_cols / ACT_GROUP);
}

void make_act(const struct act *a, enum activations kind)
{
    size_t n = (size_t)a->n_tokens * (size_t)a->n_cols;
    float *x = rows_of(a);
    if (kind == ACT_RANDOM) {
        for (size_t i = 0; i < n; i++)
            x[i] = random_normal();
        quantize_all(scalar_kernels(), a);
        return;
    }
    static const float small[] = {0, 1e-40f, FLT_TRUE_MIN, FLT_MIN, 1e-30f}, large[] = {3e38f, 1e38f, 1e36f, 2e33f};
    for (size_t g = 0; g < n / ACT_GROUP; g++) {
        int8_t *q = a->q + g * ACT_GROUP;
        int half[2] = {0, 0}, pair[2][2] = {{0}};
        for (int i = 0; i < ACT_GROUP; i++) {
            q[i] = (int8_t)(kind == ACT_MAX     ? 127
                            : kind == ACT_MIN   ? -127
                            : kind == ACT_SIGNS ? (random_int(0, 1) ? 127 : -127)
                                                : random_int(-127, 127));
            half[i / 16] += q[i];
            pair[i / 16][i / 2 % 2] += q[i];
        }
        float d = kind == ACT_SMALL   ? small[random_int(0, (int)COUNT_OF(small) - 1)]
                  : kind == ACT_LARGE ? large[random_int(0, (int)COUNT_OF(large) - 1)]
                                      : fabsf(random_normal()) + 0.01f;
        a->d[g] = d;
        a->sum[g] = d * (float)(half[0] + half[1]);
        a->half[g * 2] = (int16_t)half[0];
        a->half[g * 2 + 1] = (int16_t)half[1];
        for (int i = 0; i < 4; i++)
            a->pair[g * 4 + (size_t)i] = (int16_t)pair[i / 2][i % 2];
        size_t t = g % (size_t)a->n_tokens, column = g / (size_t)a->n_tokens * ACT_GROUP;
        for (int i = 0; i < ACT_GROUP; i++)
            x[t * (size_t)a->n_cols + column + (size_t)i] = d * (float)q[i];
    }
}

/* ---- matmul ---- */

struct matmul_case {
    enum gguf_type type;
    int n_tokens, n_cols;
    size_t n_panels, y_stride;
    unsigned char *rows, *panels; /* [16 * n_panels] rows in the file's layout, and packed */
    struct act act;
};

static struct matmul_case make_case(enum gguf_type type, enum weights weights, enum activations activations, int n_tokens,
    int n_cols, size_t n_panels, size_t gap)
{
    size_t bytes = row_bytes(type, (size_t)n_cols), packed = panel_bytes(type, (size_t)n_cols);
    struct matmul_case c = {type, n_tokens, n_cols, n_panels, n_panels * PANEL_ROWS + gap, NULL, NULL, {0}};
    c.rows = guarded(SLOT_ROWS, n_panels * PANEL_ROWS * bytes);
    c.panels = guarded(SLOT_PANELS, n_panels * packed);
    make_blocks(type, weights, n_panels * PANEL_ROWS * (size_t)n_cols, c.rows);
    for (size_t p = 0; p < n_panels; p++)
        panel_pack(type, c.rows + p * PANEL_ROWS * bytes, PANEL_ROWS, (size_t)n_cols, c.panels + p * packed);
    c.act = act_room(SLOT_ACT, n_tokens, n_cols);
    make_act(&c.act, activations);
    return c;
}

/* Floats of y: the last row ends where its last panel does. */
static size_t y_floats(const struct matmul_case *c)
{
    return (size_t)(c->n_tokens - 1) * c->y_stride + c->n_panels * PANEL_ROWS;
}

static void fail_case(const struct matmul_case *c, const char *what, size_t at, double got, double want)
{
    fail("%d tokens, %d columns, %zu panels, stride %zu: %s: token %zu, row %zu is %.9g, not %.9g", c->n_tokens, c->n_cols,
        c->n_panels, c->y_stride, what, at / c->y_stride, at % c->y_stride, got, want);
}

/* Level k against scalar; what lies between the rows of y must stay as it was (all ones, a NaN). */
static void compare_case(const struct kernels *k, const struct matmul_case *c, const char *what)
{
    float *want = guarded(SLOT_Y, y_floats(c) * sizeof *want), *got = guarded(SLOT_Y2, y_floats(c) * sizeof *got);
    scalar_kernels()->matmul[c->type](c->panels, c->n_panels, &c->act, want, c->y_stride);
    k->matmul[c->type](c->panels, c->n_panels, &c->act, got, c->y_stride);
    size_t at = difference(got, want, y_floats(c));
    if (at < y_floats(c))
        fail_case(c, what, at, got[at], want[at]);
    for (size_t i = 0; i < y_floats(c); i++)
        if (i % c->y_stride >= c->n_panels * PANEL_ROWS && float_bits(got[i]) != UINT32_MAX) {
            fail_case(c, "wrote between the rows", i, got[i], NAN);
            return;
        }
}

/* Scalar against double: from the quantised activations within rounding, and from the unquantised within what quantisation can
 * do. */
static void compare_with_double(const struct matmul_case *c)
{
    float *y = guarded(SLOT_Y, y_floats(c) * sizeof *y);
    scalar_kernels()->matmul[c->type](c->panels, c->n_panels, &c->act, y, c->y_stride);
    bool is_float = c->type == GGUF_TYPE_F32 || c->type == GGUF_TYPE_F16 || c->type == GGUF_TYPE_BF16;
    size_t n_cols = (size_t)c->n_cols, bytes = row_bytes(c->type, n_cols);
    for (size_t t = 0; t < (size_t)c->n_tokens; t++)
        for (size_t r = 0; r < c->n_panels * PANEL_ROWS; r++) {
            double rounded = 0, exact = 0, magnitude = 0, quantisation = 0;
            for (size_t col = 0; col < n_cols; col++) {
                size_t g = col / ACT_GROUP * (size_t)c->n_tokens + t;
                double m, w = element(c->type, c->rows + r * bytes, col, &m), x = c->act.x[t * n_cols + col];
                double a = is_float ? x : (double)c->act.d[g] * c->act.q[g * ACT_GROUP + col % ACT_GROUP];
                rounded += w * a;
                exact += w * x;
                magnitude += m * fabs(a);
                quantisation += is_float ? 0 : fabs(w) * c->act.d[g] * 0.50002;
            }
            double terms = is_float ? c->n_cols : 3.0 * c->n_cols / ACT_GROUP;
            double rounding = (terms + 2) * 0x1p-24 * magnitude * 1.0001 + terms * 0x1p-149, got = y[t * c->y_stride + r];
            if (!(fabs(got - rounded) <= rounding))
                fail_case(c, "against double", t * c->y_stride + r, got, rounded);
            if (!(fabs(got - exact) <= rounding + quantisation))
                fail_case(c, "against unquantised activations", t * c->y_stride + r, got, exact);
        }
}

/* The bits of a token's outputs depend neither on the tokens beside it nor on the number of panels in a call. */
static void compare_splits(const struct kernels *k, enum gguf_type type)
{
    enum { TOKENS = 13, PANELS = 3 };
    static const int splits[][3] = {{1, 1, 11}, {5, 8, 0}, {3, 4, 6}, {2, 10, 1}, {9, 4, 0}};
    int n_cols = (int)block_columns(type) * 3;
    struct matmul_case c = make_case(type, WEIGHTS_RANDOM, ACT_RANDOM, TOKENS, n_cols, PANELS, 0);
    float whole[TOKENS * PANELS * PANEL_ROWS];
    quantize_all(k, &c.act);
    k->matmul[type](c.panels, PANELS, &c.act, whole, c.y_stride);
    for (size_t s = 0; s < COUNT_OF(splits); s++)
        for (int part = 0, first = 0; part < 3 && splits[s][part]; first += splits[s][part++]) {
            int n = splits[s][part];
            struct act a = act_room(SLOT_ACT2, n, n_cols);
            a.x = c.act.x + first * n_cols;
            quantize_all(k, &a);
            float *y = guarded(SLOT_Y, (size_t)n * c.y_stride * sizeof *y);
            for (size_t p = 0; p < PANELS; p++)
                k->matmul[type](c.panels + p * panel_bytes(type, (size_t)n_cols), 1, &a, y + p * PANEL_ROWS, c.y_stride);
            size_t at = difference(y, whole + (size_t)first * c.y_stride, (size_t)n * c.y_stride);
            if (at < (size_t)n * c.y_stride)
                fail("%d tokens alone, one panel a call: token %zu, row %zu is %.9g, not %.9g as in a call of %d", n,
                    at / c.y_stride, at % c.y_stride, y[at], whole[(size_t)first * c.y_stride + at], TOKENS);
        }
}

void check_matmul(const struct kernels *k, int type_number)
{
    enum gguf_type type = (enum gguf_type)type_number;
    static const int tokens[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 63, 64, 65, 130};
    static const int blocks[] = {1, 3, 2, 5, 7, 4, 9};
    int block = (int)block_columns(type), n = 0;
    bool reference = k == scalar_kernels();
    if (!k->matmul[type]) {
        fail("no kernel");
        return;
    }
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < COUNT_OF(tokens) && !hopeless(); i++, n++) {
            int n_tokens = tokens[i], n_blocks = blocks[(i + (size_t)round * 3) % COUNT_OF(blocks)];
            size_t n_panels = 1 + (i + (size_t)round * 2) % 5;
            if (block == 256 && n_tokens > 16)
                n_blocks = round ? 3 : 1;
            if (reference && n_tokens > 9)
                continue;
            struct matmul_case c =
                make_case(type, WEIGHTS_RANDOM, ACT_RANDOM, n_tokens, n_blocks * block, n_panels, (size_t)random_int(0, 17));
            if (reference)
                compare_with_double(&c);
            else
                compare_case(k, &c, "random");
        }
    /* Wide: kernels that go through the columns in blocks have several. */
    for (int n_tokens = 1; n_tokens < 40 && !reference; n_tokens += 34, n++) {
        struct matmul_case c = make_case(type, WEIGHTS_RANDOM, ACT_RANDOM, n_tokens, 9 * 256, 2, 5);
        compare_case(k, &c, "wide");
    }
    static const int few[] = {1, 2, 5, 9};
    for (int w = 0; w < N_WEIGHTS; w++)
        for (int a = 0; a < N_ACTIVATIONS && !reference; a++)
            for (size_t i = 0; i < COUNT_OF(few) && !hopeless(); i++, n++) {
                char what[64];
                snprintf(what, sizeof what, "extreme weights %d, activations %d", w, a);
                struct matmul_case c =
                    make_case(type, (enum weights)w, (enum activations)a, few[i], (1 + (w + a) % 3) * block, 1 + i % 2, 3);
                compare_case(k, &c, what);
            }
    for (int w = WEIGHTS_MAX; w < N_WEIGHTS && reference; w++) {
        if (block_columns(type) == 32 && row_bytes(type, 32) >= 64 && w != WEIGHTS_MIXED)
            continue; /* the sum of the greatest floats is infinite */
        for (int a = ACT_RANDOM; a <= ACT_SIGNS && w != WEIGHTS_MIXED && !hopeless(); a++, n++) {
            struct matmul_case c = make_case(type, (enum weights)w, (enum activations)a, 3, 3 * block, 1, 0);
            compare_with_double(&c);
        }
    }
    compare_splits(k, type);
    if (!guards_intact())
        fail("wrote before the start of a buffer");
    note("%d shapes", n);
}

/* ---- quantize ---- */

enum { N_PATTERNS = 12 };

/* A group of 32 numbers of one of several kinds. */
static void make_group(float *x, int pattern)
{
    static const float scales[] = {1, 1e-29f, 1e30f, 1e-31f, 1e38f};
    for (int i = 0; i < ACT_GROUP; i++) {
        float n = random_normal();
        switch (pattern) {
        case 0: x[i] = 0; break;
        case 1: x[i] = i & 1 ? -0.0f : 0.0f; break;
        case 2: x[i] = FLT_TRUE_MIN * (float)random_int(-9, 9); break;
        case 3: x[i] = (float)random_int(-127, 127); break;
        case 4: x[i] = i == 9 ? NAN : n; break;
        case 5: x[i] = i == 30 ? INFINITY : i == 2 ? -INFINITY : n; break;
        case 6: x[i] = NAN; break;
        default: x[i] = n * scales[pattern - 7]; break;
        }
    }
    if (pattern == 3)
        x[random_int(0, 31)] = 127;
    if (pattern == 10)
        x[3] = 1e-30f;
    if (pattern == 11)
        x[3] = -FLT_MAX;
}

/* The sum of squared errors of a group whose greatest magnitude becomes `reach`, in exact arithmetic. */
static double error_of_scale(const float *x, double max, double reach)
{
    double sum = 0;
    for (int i = 0; i < ACT_GROUP; i++) {
        double y = x[i] / max * reach, rest = (y - nearbyint(y)) / reach;
        sum += rest * rest;
    }
    return sum;
}

/* One token's groups against arithmetic written here; only of finite numbers. */
static void check_group(const struct act *a, size_t g, const float *x)
{
    double max = 0, sum[2] = {0, 0}, pair[2][2] = {{0}};
    for (int i = 0; i < ACT_GROUP; i++)
        if (!isfinite(x[i]))
            return;
        else
            max = greater(max, fabs((double)x[i]));
    double d = a->d[g];
    if (max >= (double)1e-30f) { /* one of four scales, and none of them leaves less error, as far as floats can tell */
        double least = INFINITY, error = INFINITY;
        for (int i = 0; i < 4; i++) {
            double reach = 127 - i, e = error_of_scale(x, max, reach);
            least = e < least ? e : least;
            if (fabs(d - max / reach) < d * 1e-6)
                error = e;
        }
        if (!(error <= least * (1 + 1e-3) + 1e-8))
            fail("greatest magnitude %g: scale %g leaves the error %g, the best %g", max, d, error, least);
    } else if (d != 0) {
        fail("greatest magnitude %g: scale %g, not 0", max, d);
    }
    for (int i = 0; i < ACT_GROUP; i++) {
        int q = a->q[g * ACT_GROUP + (size_t)i];
        sum[i / 16] += q;
        pair[i / 16][i / 2 % 2] += q;
        if (q < -127 || q > 127 || fabs((double)x[i] - d * q) > (d > 0 ? d * 0.50004 : 1.00001e-30))
            fail("%g with scale %g became %d", x[i], d, q);
    }
    if (a->half[g * 2] != (int)sum[0] || a->half[g * 2 + 1] != (int)sum[1])
        fail("half sums %d, %d, not %g, %g", a->half[g * 2], a->half[g * 2 + 1], sum[0], sum[1]);
    for (int i = 0; i < 4; i++)
        if (a->pair[g * 4 + (size_t)i] != (int)pair[i / 2][i % 2])
            fail("pair sum %d of half %d is %d, not %g", i % 2, i / 2, a->pair[g * 4 + (size_t)i], pair[i / 2][i % 2]);
    if (a->sum[g] != (float)d * (float)(sum[0] + sum[1]))
        fail("sum %g, not %g", a->sum[g], (float)d * (float)(sum[0] + sum[1]));
}

void check_quantize(const struct kernels *k, int unused)
{
    (void)unused;
    for (int round = 0; round < 60 && !hopeless(); round++) {
        int n_tokens = 1 + round % 7, n_groups = 1 + round % 5 * 2;
        int first = random_int(0, n_tokens - 1), count = random_int(1, n_tokens - first);
        int first_group = random_int(0, n_groups - 1), group_count = random_int(1, n_groups - first_group);
        if (round % 3 == 0)
            first = first_group = 0, count = n_tokens, group_count = n_groups;
        struct act got = act_room(SLOT_ACT, n_tokens, n_groups * ACT_GROUP),
                   want = act_room(SLOT_ACT2, n_tokens, n_groups * ACT_GROUP);
        /* the rows of the range alone, at a stride, up to a guard */
        size_t width = (size_t)group_count * ACT_GROUP, stride = width + (size_t)random_int(0, 3) * 16;
        float *x = guarded(SLOT_ROWS, ((size_t)(count - 1) * stride + width) * sizeof *x);
        for (int t = 0; t < count; t++)
            for (int g = 0; g < group_count; g++)
                make_group(x + (size_t)t * stride + (size_t)g * ACT_GROUP, random_int(0, N_PATTERNS - 1));
        k->quantize(&got, x, stride, first, count, first_group, group_count);
        scalar_kernels()->quantize(&want, x, stride, first, count, first_group, group_count);
        for (int t = 0; t < n_tokens; t++)
            for (int g = 0; g < n_groups; g++) {
                size_t at = (size_t)g * (size_t)n_tokens + (size_t)t;
                bool mine = t >= first && t < first + count && g >= first_group && g < first_group + group_count;
                if (!mine && (got.half[at * 2] != -1 || got.pair[at * 4 + 3] != -1 || got.q[at * ACT_GROUP + 31] != -1 ||
                                 float_bits(got.d[at]) != UINT32_MAX))
                    fail("wrote group %d of token %d outside tokens %d + %d, groups %d + %d", g, t, first, count, first_group,
                        group_count);
                if (mine && k == scalar_kernels())
                    check_group(&got, at, x + (size_t)(t - first) * stride + (size_t)(g - first_group) * ACT_GROUP);
                if (memcmp(got.q + at * ACT_GROUP, want.q + at * ACT_GROUP, ACT_GROUP) != 0 ||
                    difference(got.d + at, want.d + at, 1) == 0 || difference(got.sum + at, want.sum + at, 1) == 0 ||
                    memcmp(got.half + at * 2, want.half + at * 2, 4) != 0 ||
                    memcmp(got.pair + at * 4, want.pair + at * 4, 8) != 0)
                    fail("group %d of token %d: d %g, not %g; sum %g, not %g; q[0] %d, not %d", g, t, got.d[at], want.d[at],
                        got.sum[at], want.sum[at], got.q[at * ACT_GROUP], want.q[at * ACT_GROUP]);
            }
    }
    if (!guards_intact())
        fail("wrote before the start of a buffer");
}
