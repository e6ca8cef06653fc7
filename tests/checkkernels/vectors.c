/* Checks of the kernels that work on one vector: norms, rotary embedding, SwiGLU, softmax, conversion, reading. */
#include "tests/checkkernels/check.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const int lengths[] = {16, 32, 48, 64, 128, 144, 896, 1536, 4864};

static float *random_floats(int slot, int n, float scale)
{
    float *x = guarded(slot, (size_t)n * sizeof *x);
    for (int i = 0; i < n; i++)
        x[i] = random_normal() * scale;
    return x;
}

static float *copy(int slot, const float *from, int n)
{
    return memcpy(guarded(slot, (size_t)n * sizeof(float)), from, (size_t)n * sizeof(float));
}

static void compare(const float *got, const float *want, int n, const char *what)
{
    size_t at = difference(got, want, (size_t)n);
    if (at < (size_t)n)
        fail("n = %d%s: [%zu] is %.9g (0x%08x), not %.9g (0x%08x)", n, what, at, got[at], float_bits(got[at]), want[at],
            float_bits(want[at]));
    if (!guards_intact())
        fail("n = %d%s: wrote before the start of a buffer", n, what);
}

static void within(double got, double want, double bound, int n, int at)
{
    if (!(fabs(got - want) <= bound) && !(got == want))
        fail("n = %d: [%d] is %.9g, not %.9g within %.3g", n, at, got, want, bound);
}

/* Numbers no kernel may stumble over. */
static const float odd_numbers[] = {0, -0.0f, NAN, -NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, FLT_MIN, -FLT_MIN, FLT_TRUE_MIN,
    -1e-40f, 1e-30f, 87, -87, 88, -88, 87.5f, -86.99999f, 1000, -1000, 65504, -65504, 65519.9f, 65520, 0.5f, 1, -1, 3e30f, -3e30f,
    0x1p-25f, 0x1.8p-24f, -0x1p-24f};

static void sprinkle_odd(float *x, int n)
{
    for (int i = 0; i < n; i += 1 + random_int(0, 4))
        x[i] = odd_numbers[random_int(0, (int)COUNT_OF(odd_numbers) - 1)];
}

void check_rms_norm(const struct kernels *k, int unused)
{
    (void)unused;
    static const float scales[] = {1, 1e-20f, 1e15f, 0};
    for (size_t l = 0; l < COUNT_OF(lengths); l++)
        for (size_t s = 0; s < COUNT_OF(scales) + 1; s++) {
            int n = lengths[l];
            float *x = random_floats(0, n, s < COUNT_OF(scales) ? scales[s] : 1), *w = random_floats(1, n, 1);
            if (s == COUNT_OF(scales))
                sprinkle_odd(x, n);
            float *got = guarded(2, (size_t)n * sizeof *got), *want = guarded(3, (size_t)n * sizeof *want);
            k->rms_norm(got, x, w, n, 1e-6f);
            scalar_kernels()->rms_norm(want, x, w, n, 1e-6f);
            compare(got, want, n, "");
            float *in_place = copy(4, x, n);
            k->rms_norm(in_place, in_place, w, n, 1e-6f);
            compare(in_place, want, n, ", in place");
            if (k != scalar_kernels() || s == COUNT_OF(scales))
                continue;
            double squares = 0;
            for (int i = 0; i < n; i++)
                squares += (double)x[i] * x[i];
            for (int i = 0; i < n; i++) { /* squares: n / 16 + 4 additions, halved by the root; then five more roundings */
                double exact = x[i] / sqrt(squares / n + (double)1e-6f) * w[i];
                within(got[i], exact, fabs(exact) * (n / 32.0 + 7) * 0x1p-24, n, i);
            }
        }
}

void check_rope(const struct kernels *k, int unused)
{
    (void)unused;
    static const int dims[] = {32, 64, 96, 128};
    for (size_t d = 0; d < COUNT_OF(dims); d++)
        for (int n_heads = 1; n_heads <= 14; n_heads += 1 + n_heads / 3)
            for (int odd = 0; odd < 2; odd++) {
                int dim = dims[d], half = dim / 2, n = n_heads * dim;
                float *x = random_floats(0, n, 2), *c = guarded(1, (size_t)half * sizeof *c),
                      *s = guarded(2, (size_t)half * sizeof *s);
                for (int i = 0; i < half; i++) {
                    double angle = random_int(0, 32767) * pow(1e6, -2.0 * i / dim);
                    c[i] = (float)cos(angle);
                    s[i] = (float)sin(angle);
                }
                if (odd)
                    sprinkle_odd(x, n);
                float *got = copy(3, x, n), *want = copy(4, x, n);
                k->rope(got, n_heads, dim, c, s);
                scalar_kernels()->rope(want, n_heads, dim, c, s);
                compare(got, want, n, "");
                for (int i = 0; i < n && k == scalar_kernels() && !odd; i++) {
                    int j = i % dim % half, first = i / dim * dim + j;
                    double a = x[first], b = x[first + half], exact = i % dim < half ? a * c[j] - b * s[j] : a * s[j] + b * c[j];
                    within(got[i], exact, (fabs(a) + fabs(b)) * 0x1p-23, n, i);
                }
            }
}

void check_swiglu(const struct kernels *k, int unused)
{
    (void)unused;
    for (size_t l = 0; l < COUNT_OF(lengths); l++)
        for (int odd = 0; odd < 2; odd++) {
            int n = lengths[l];
            float *gate = random_floats(0, n, l & 1 ? 3 : 60), *up = random_floats(1, n, 2);
            if (odd) {
                sprinkle_odd(gate, n);
                sprinkle_odd(up, n);
            }
            float *got = guarded(2, (size_t)n * sizeof *got), *want = guarded(3, (size_t)n * sizeof *want);
            k->swiglu(got, gate, up, n);
            scalar_kernels()->swiglu(want, gate, up, n);
            compare(got, want, n, "");
            float *in_place = copy(4, gate, n);
            k->swiglu(in_place, in_place, up, n);
            compare(in_place, want, n, ", y = gate");
            in_place = copy(4, up, n);
            k->swiglu(in_place, gate, in_place, n);
            compare(in_place, want, n, ", y = up");
            for (int i = 0; i < n && k == scalar_kernels() && !odd; i++) {
                /* exp within 2 units of 2^-23, then four roundings; where the sigmoid's exponent is cut at 87 both are next to
                 * nothing */
                double exact = gate[i] / (1 + exp(-(double)gate[i])) * up[i];
                within(got[i], exact, fabs(exact) * 8 * 0x1p-23 + fabs((double)gate[i] * up[i]) * 2e-38, n, i);
            }
        }
}

void check_add(const struct kernels *k, int unused)
{
    (void)unused;
    for (size_t l = 0; l < COUNT_OF(lengths); l++) {
        int n = lengths[l];
        float *x = random_floats(0, n, 3), *y = random_floats(1, n, 5);
        sprinkle_odd(x, n / 2);
        sprinkle_odd(y, n / 2);
        float *got = copy(2, y, n);
        k->add(got, x, n);
        for (int i = 0; i < n; i++)
            y[i] = (float)((double)x[i] + y[i]); /* the double sum of floats rounds to the float sum */
        compare(got, y, n, "");
    }
}

/* ---- softmax ---- */

static const int softmax_lengths[] = {1, 2, 7, 15, 16, 17, 31, 32, 33, 47, 48, 100, 1000, 4097};

enum { SOFTMAX_USUAL, SOFTMAX_WIDE, SOFTMAX_ONE_FINITE, SOFTMAX_ODD, SOFTMAX_NANS, SOFTMAX_ALL_EQUAL, N_SOFTMAX };

static float *softmax_input(int kind, int n)
{
    float *x = random_floats(0, n, kind == SOFTMAX_WIDE ? 60 : 4);
    if (kind == SOFTMAX_ODD)
        sprinkle_odd(x, n);
    int chosen = random_int(0, n - 1);
    for (int i = 0; i < n; i++)
        if (kind == SOFTMAX_ONE_FINITE && i != chosen)
            x[i] = -INFINITY;
        else if (kind == SOFTMAX_NANS)
            x[i] = i & 1 ? -INFINITY : NAN;
        else if (kind == SOFTMAX_ALL_EQUAL)
            x[i] = -3.5f;
    return x;
}

void check_softmax(const struct kernels *k, int unused)
{
    (void)unused;
    for (size_t l = 0; l < COUNT_OF(softmax_lengths); l++)
        for (int kind = 0; kind < N_SOFTMAX; kind++) {
            int n = softmax_lengths[l];
            float *x = softmax_input(kind, n), *got = guarded(1, (size_t)n * sizeof *got),
                  *want = guarded(2, (size_t)n * sizeof *want);
            float got_sum = k->softmax(got, x, n), want_sum = scalar_kernels()->softmax(want, x, n);
            compare(got, want, n, "");
            if (difference(&got_sum, &want_sum, 1) == 0)
                fail("n = %d: sum %.9g, not %.9g", n, got_sum, want_sum);
            float *in_place = copy(3, x, n);
            float again = k->softmax(in_place, in_place, n);
            compare(in_place, want, n, ", in place");
            if (difference(&again, &want_sum, 1) == 0)
                fail("n = %d, in place: sum %.9g, not %.9g", n, again, want_sum);
            if (k != scalar_kernels() || kind == SOFTMAX_ODD || kind == SOFTMAX_NANS)
                continue;
            double max = -INFINITY, sum = 0;
            for (int i = 0; i < n; i++)
                max = greater(max, x[i]);
            for (int i = 0; i < n; i++) { /* x - max is rounded before exp: its error is up to 87 * 2^-24 */
                double exact = exp(x[i] - max);
                sum += exact;
                within(got[i], exact, exact * (2 * 0x1p-23 + fabs(x[i] - max) * 0x1p-24) + 2e-38, n, i);
            }
            within(got_sum, sum, sum * (n / 16.0 + 24) * 0x1p-23, n, -1);
        }
    if (k == scalar_kernels()) { /* a sequence of one, and nothing worth a weight */
        float x[1] = {-7}, p[1];
        if (k->softmax(p, x, 1) != 1 || p[0] != 1)
            fail("softmax of one number is %g, not 1", p[0]);
        float none[3] = {-INFINITY, NAN, -INFINITY}, q[3];
        if (k->softmax(q, none, 3) != 0 || q[0] != 0 || q[1] != 0)
            fail("softmax of nothing finite is not 0");
    }
}

/* exp through softmax of a vector whose greatest number is 0: at most 1 unit in the last place from -87 to 0, and 0 below. */
void check_exp(const struct kernels *k, int unused)
{
    (void)unused;
    enum { N = 4096, ROUNDS = 24 };
    double worst = 0;
    for (int round = 0; round < ROUNDS; round++) {
        float *x = guarded(0, N * sizeof *x), *p = guarded(1, N * sizeof *p);
        for (int i = 0; i < N; i++)
            x[i] = -87.0f * ((float)(round * N + i) + (float)random_int(0, 255) / 256) / (N * ROUNDS);
        x[round % N] = 0;
        x[N - 1] = -87.00001f - (float)round;
        k->softmax(p, x, N);
        for (int i = 0; i < N - 1; i++) {
            double exact = exp(x[i]);
            double unit = ldexp(1, ilogb(exact) - 23), error = fabs(p[i] - exact) / unit;
            worst = greater(worst, error);
            if (error > 1)
                fail("exp(%.9g) is %.9g, %.2f units in the last place off", x[i], p[i], error);
        }
        if (p[N - 1] != 0)
            fail("exp(%g) is %g, not 0", x[N - 1], p[N - 1]);
    }
    note("at most %.2f units in the last place off", worst);
}

/* ---- conversion to f16: clamped to the greatest finite number (also infinity and NaN), then rounded to nearest even ---- */

static void compare_f16(const struct kernels *k, const float *x, int n)
{
    uint16_t *got = guarded(1, (size_t)n * sizeof *got);
    k->to_f16(got, x, n);
    for (int i = 0; i < n; i++) {
        uint16_t want = isnan(x[i]) ? 0x7BFF : f32_to_f16(fmaxf(fminf(x[i], 65504), -65504));
        if (got[i] != want)
            fail("%a became 0x%04x, not 0x%04x", x[i], got[i], want);
    }
    if (!guards_intact())
        fail("wrote before the start of a buffer");
}

void check_to_f16(const struct kernels *k, int unused)
{
    (void)unused;
    enum { N = 16 * 64 };
    /* every number that an f16 can be, the middles between neighbours, and the floats next to all of them; of both signs */
    for (uint32_t h = 0; h < 0x7C00 && !hopeless();) {
        float *x = guarded(0, N * sizeof *x);
        int i = 0;
        for (; h < 0x7C00 && i <= N - 12; h++) {
            float here = (float)half_value((uint16_t)h);
            float middle = (float)((half_value((uint16_t)h) + (h == 0x7BFF ? 65536 : half_value((uint16_t)(h + 1)))) / 2);
            float close[6] = {here, nextafterf(here, -1), nextafterf(here, FLT_MAX), middle, nextafterf(middle, 0),
                nextafterf(middle, FLT_MAX)};
            for (int c = 0; c < 6; c++) {
                x[i++] = close[c];
                x[i++] = -close[c];
            }
        }
        while (i < N)
            x[i++] = odd_numbers[random_int(0, (int)COUNT_OF(odd_numbers) - 1)];
        compare_f16(k, x, N);
    }
    for (size_t l = 0; l < COUNT_OF(lengths); l++) {
        float *x = random_floats(0, lengths[l], 100);
        sprinkle_odd(x, lengths[l]);
        compare_f16(k, x, lengths[l]);
    }
}

/* ---- read_all ---- */

void check_read_all(const struct kernels *k, int unused)
{
    (void)unused;
    for (size_t n = 64; n <= 4096 + 64; n += n < 512 ? 64 : 512) {
        unsigned char *p = guarded(0, n);
        random_bytes(p, n);
        uint64_t want = scalar_kernels()->read_all(p, n), got = k->read_all(p, n);
        if (got != want)
            fail("%zu bytes: 0x%016llx, not 0x%016llx", n, (unsigned long long)got, (unsigned long long)want);
        for (size_t i = 0; i < n; i += 1 + n / 128) {
            p[i] ^= 0x10;
            if (k->read_all(p, n) == got)
                fail("%zu bytes: does not depend on byte %zu", n, i);
            p[i] ^= 0x10;
        }
    }
    if (k->read_all(guarded(0, 0), 0) != 0)
        fail("0 bytes: not 0");
}
