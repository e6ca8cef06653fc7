/* engine/sampler: against a plain reference that sorts everything, against the distributions
 * it claims to draw from, and its properties. */
#include "engine/sampler.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WAY(t, k, p, m, s) {.temperature = (t), .top_k = (k), .top_p = (p), .min_p = (m), .seed = (s)}

/* ---- a reference: full sort, the C library's exp, generator written down anew ---- */

struct reference {
    uint64_t s[4];
};

static void reference_seed(struct reference *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        seed += UINT64_C(11400714819323198485);
        uint64_t z = seed;
        z = (z ^ (z >> 30)) * UINT64_C(13787848793156543929);
        z = (z ^ (z >> 27)) * UINT64_C(10723151780598845931);
        r->s[i] = z ^ (z >> 31);
    }
}

static double reference_uniform(struct reference *r)
{
    uint64_t *s = r->s, x = s[1] * 5;
    x = ((x << 7) | (x >> 57)) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 45) | (s[3] >> 19);
    return ldexp((double)(x >> 11), -53);
}

static const float *sorting;

static int best_first(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a, k = *(const int32_t *)b;
    if (sorting[i] != sorting[k])
        return sorting[i] > sorting[k] ? -1 : 1;
    return i < k ? -1 : 1;
}

static int by_id(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a, k = *(const int32_t *)b;
    return (i > k) - (i < k);
}

/* The tokens that pass the filters, best first, and their probabilities. Finite logits only. Returns their number. */
static int reference_filter(const struct sampling *o, const float *logits, int n, int32_t *ids, double *p)
{
    for (int32_t i = 0; i < n; i++)
        ids[i] = i;
    sorting = logits;
    qsort(ids, (size_t)n, sizeof *ids, best_first);
    if (o->temperature == 0) {
        p[0] = 1;
        return 1;
    }
    int kept = o->top_k > 0 && o->top_k < n ? o->top_k : n;
    double total = 0, sum = 0;
    for (int i = 0; i < kept; i++)
        total += p[i] = exp(((double)logits[ids[i]] - (double)logits[ids[0]]) / (double)o->temperature);
    int m = 0;
    while (m < kept && (m == 0 || ((o->top_p >= 1 || sum < (double)o->top_p * total) && p[m] >= (double)o->min_p)))
        sum += p[m++];
    for (int i = 0; i < m; i++)
        p[i] /= sum;
    return m;
}

static int32_t reference_next(struct reference *r, const struct sampling *o, const float *logits, int n, int32_t *ids, double *p)
{
    int m = reference_filter(o, logits, n, ids, p);
    if (o->temperature == 0 || o->top_k == 1)
        return ids[0];
    bool ordered = (o->top_k > 0 && o->top_k < n) || o->top_p < 1;
    if (!ordered) { /* drawn in the order of ids */
        qsort(ids, (size_t)m, sizeof *ids, by_id);
        double total = 0, best = -INFINITY;
        for (int i = 0; i < m; i++)
            best = fmax(best, (double)logits[ids[i]]);
        for (int i = 0; i < m; i++)
            total += p[i] = exp(((double)logits[ids[i]] - best) / (double)o->temperature);
        for (int i = 0; i < m; i++)
            p[i] /= total;
    }
    double u = reference_uniform(r), sum = 0;
    for (int i = 0; i < m; i++) {
        sum += p[i];
        if (sum > u)
            return ids[i];
    }
    return ids[m - 1];
}

static float random_float(void)
{
    return (float)rand() / (float)RAND_MAX;
}

START_TEST(same_as_the_reference)
{
    enum { MOST = 400 };
    float logits[MOST];
    int32_t ids[MOST];
    double p[MOST];
    srand(11);
    for (int round = 0; round < 1500; round++) {
        int n = 1 + rand() % MOST;
        int kind = rand() % 4; /* smooth, with many ties, flat, one far above */
        for (int i = 0; i < n; i++)
            logits[i] = kind == 0   ? 20 * random_float() - 10
                        : kind == 1 ? (float)(rand() % 5)
                        : kind == 2 ? 3.0f
                                    : random_float();
        if (kind == 3)
            logits[rand() % n] = 60;
        struct sampling o = sampling_default();
        static const float temperatures[] = {0, 0.01f, 0.7f, 1, 1.5f, 100};
        static const float top_ps[] = {0, 1e-6f, 0.3f, 0.9f, 0.999f, 1};
        static const float min_ps[] = {0, 0, 0.01f, 0.2f, 1};
        o.temperature = temperatures[rand() % 6];
        o.top_k = rand() % 2 ? 0 : 1 + rand() % (n + 3);
        o.top_p = top_ps[rand() % 6];
        o.min_p = min_ps[rand() % 5];
        o.seed = (uint64_t)rand() << 33 ^ (uint64_t)rand();
        struct sampler *s = sampler_new(&o, n);
        ck_assert_ptr_nonnull(s);
        struct reference r;
        reference_seed(&r, o.seed);
        for (int draw = 0; draw < 8; draw++) {
            int32_t wanted = reference_next(&r, &o, logits, n, ids, p), got = sampler_next(s, logits);
            ck_assert_msg(got == wanted,
                "round %d draw %d: token %d, reference %d (n %d kind %d temperature %g top_k %d top_p %g min_p %g)", round, draw,
                got, wanted, n, kind, (double)o.temperature, o.top_k, (double)o.top_p, (double)o.min_p);
        }
        sampler_free(s);
    }
}
END_TEST

static const struct sampling settings[] = {
    WAY(1.0f, 0, 1.0f, 0, 1), WAY(0.5f, 0, 1.0f, 0, 2), WAY(2.0f, 10, 1.0f, 0, 3), WAY(1.0f, 0, 0.8f, 0, 4),
    WAY(1.0f, 20, 0.7f, 0, 5), WAY(1.5f, 0, 1.0f, 0.05f, 6), WAY(0.8f, 30, 0.95f, 0.02f, 7), WAY(5.0f, 0, 0.99f, 0, 8),
};

START_TEST(frequencies)
{
    /* Chi-square of 200,000 draws against the distribution the filters leave. The seed is fixed, so this passes always or never;
     * a generator or a sum that is off by a per cent misses the bound (five standard deviations) by far. */
    enum { N = 60, DRAWS = 200000 };
    float logits[N];
    int32_t ids[N];
    double p[N];
    srand(5);
    for (int i = 0; i < N; i++)
        logits[i] = 4 * random_float();
    const struct sampling *o = &settings[_i];
    struct sampler *s = sampler_new(o, N);
    int count[N] = {0};
    for (int i = 0; i < DRAWS; i++) {
        int32_t id = sampler_next(s, logits);
        ck_assert_int_ge(id, 0);
        ck_assert_int_lt(id, N);
        count[id]++;
    }
    sampler_free(s);
    int m = reference_filter(o, logits, N, ids, p), seen = 0;
    ck_assert_int_ge(m, 2);
    double chi2 = 0;
    for (int i = 0; i < m; i++) {
        double expected = p[i] * DRAWS, d = count[ids[i]] - expected;
        ck_assert_double_gt(expected, 5);
        chi2 += d * d / expected;
        seen += count[ids[i]];
    }
    ck_assert_int_eq(seen, DRAWS); /* nothing that was filtered out */
    double freedom = m - 1;
    ck_assert_msg(chi2 < freedom + 5 * sqrt(2 * freedom), "chi-square %g at %g degrees of freedom", chi2, freedom);
}
END_TEST

START_TEST(three_ways_to_be_greedy)
{
    enum { N = 500 };
    float logits[N];
    srand(3);
    for (int round = 0; round < 500; round++) {
        for (int i = 0; i < N; i++)
            logits[i] = round % 2 ? (float)(rand() % 3) : 10 * random_float();
        int32_t best = 0;
        for (int32_t i = 1; i < N; i++)
            if (logits[i] > logits[best])
                best = i;
        struct sampling options[5];
        for (int i = 0; i < 5; i++) {
            options[i] = sampling_default();
            options[i].seed = (uint64_t)rand();
        }
        options[0].temperature = 0;
        options[1].top_k = 1;
        options[2].top_p = 1e-9f;
        options[3].top_p = 0;
        options[4].temperature = 1e-30f; /* so cold that only equals of the best remain */
        options[4].top_k = 1;
        for (int i = 0; i < 5; i++) {
            struct sampler *s = sampler_new(&options[i], N);
            ck_assert_int_eq(sampler_next(s, logits), best);
            sampler_free(s);
        }
    }
}
END_TEST

START_TEST(min_p_alone)
{
    float logits[100];
    for (int i = 0; i < 100; i++)
        logits[i] = -0.1f * (float)i;
    struct sampling o = sampling_default();
    o.min_p = 0.5f; /* exp(-0.1 i) >= 0.5: i <= 6 */
    struct sampler *s = sampler_new(&o, 100);
    bool seen[100] = {false};
    for (int i = 0; i < 2000; i++)
        seen[sampler_next(s, logits)] = true;
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(seen[i], i <= 6);
    sampler_free(s);
    o.min_p = 7; /* more than certain: the best remains */
    s = sampler_new(&o, 100);
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(sampler_next(s, logits), 0);
    sampler_free(s);
}
END_TEST

START_TEST(seeds)
{
    enum { N = 1000, DRAWS = 50 };
    float logits[N];
    for (int i = 0; i < N; i++)
        logits[i] = 0;
    int32_t first[20][DRAWS];
    for (int seed = 0; seed < 20; seed++)
        for (int again = 0; again < 2; again++) {
            struct sampling o = sampling_default();
            o.seed = seed < 19 ? (uint64_t)seed : UINT64_MAX;
            struct sampler *s = sampler_new(&o, N);
            for (int i = 0; i < DRAWS; i++) {
                int32_t id = sampler_next(s, logits);
                if (again)
                    ck_assert_int_eq(id, first[seed][i]);
                first[seed][i] = id;
            }
            sampler_free(s);
        }
    for (int a = 0; a < 20; a++)
        for (int b = 0; b < a; b++)
            ck_assert_int_ne(memcmp(first[a], first[b], sizeof first[a]), 0);
}
END_TEST

START_TEST(values_that_are_no_numbers)
{
    static const struct sampling ways[] = {WAY(0, 0, 1, 0, 1), WAY(1, 0, 1, 0, 1), WAY(1, 3, 1, 0, 1), WAY(1, 0, 0.9f, 0, 1),
        WAY(1, 0, 1, 0.1f, 1), WAY(1, 3, 0.9f, 0.1f, 1)};
    const float inf = INFINITY, nan = NAN;
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        struct sampler *s = sampler_new(&ways[w], 6);
        const float masked[6] = {nan, -inf, 1, -inf, 1, nan};
        for (int i = 0; i < 500; i++) {
            int32_t id = sampler_next(s, masked);
            ck_assert(id == 2 || id == 4);
        }
        const float none[6] = {-inf, -inf, -inf, -inf, -inf, -inf}, odd[6] = {nan, nan, nan, nan, nan, nan};
        const float one[6] = {nan, -inf, -inf, -3e38f, -inf, nan}, sure[6] = {1, nan, 3, inf, inf, -inf},
                    wide[6] = {-3e38f, 3e38f, 0, 1, 2, 3};
        ck_assert_int_eq(sampler_next(s, none), 0);
        ck_assert_int_eq(sampler_next(s, odd), 0);
        ck_assert_int_eq(sampler_next(s, one), 3);
        ck_assert_int_eq(sampler_next(s, sure), 3);
        ck_assert_int_eq(sampler_next(s, wide), 1);
        sampler_free(s);
    }
    /* Options that are no numbers still give a token, and an allowed one. */
    static const struct sampling odd_options[] = {WAY(NAN, 0, 1, 0, 1), WAY(-1, 0, 1, 0, 1), WAY(1, -5, 1, 0, 1),
        WAY(1, 0, NAN, 0, 1), WAY(1, 0, -1, 0, 1), WAY(1, 0, 1, NAN, 1), WAY(INFINITY, 0, 1, 0, 1), WAY(INFINITY, 3, 0.5f, 0, 1),
        WAY(1e-45f, 0, 0.5f, 0, 1), WAY(1, 0, 2, -3, 1)};
    const float logits[6] = {0, 1, 2, -INFINITY, 2, 1};
    for (size_t w = 0; w < sizeof odd_options / sizeof odd_options[0]; w++) {
        struct sampler *s = sampler_new(&odd_options[w], 6);
        for (int i = 0; i < 200; i++) {
            int32_t id = sampler_next(s, logits);
            ck_assert_int_ge(id, 0);
            ck_assert_int_lt(id, 6);
            if (odd_options[w].temperature < 10)
                ck_assert_int_ne(id, 3);
        }
        sampler_free(s);
    }
}
END_TEST

START_TEST(logits_are_left_alone)
{
    float logits[64], before[64];
    for (int i = 0; i < 64; i++)
        logits[i] = before[i] = sinf((float)i);
    for (size_t w = 0; w < sizeof settings / sizeof settings[0]; w++) {
        struct sampler *s = sampler_new(&settings[w], 64);
        for (int i = 0; i < 10; i++)
            sampler_next(s, logits);
        ck_assert_int_eq(memcmp(logits, before, sizeof logits), 0);
        sampler_free(s);
    }
}
END_TEST

START_TEST(draws_are_the_same_everywhere)
{
    /* Written down once; a machine or compiler that rounds elsewhere would differ. */
    float logits[1000];
    for (int i = 0; i < 1000; i++)
        logits[i] = (float)((i * 7919) % 1000) / 100.0f;
    static const struct sampling ways[3] = {WAY(0.8f, 0, 1, 0, 42), WAY(0.8f, 40, 0.95f, 0, 42), WAY(1.7f, 0, 0.9f, 0.01f, 42)};
    static const int32_t wanted[3][8] = {{99, 383, 669, 926, 988, 778, 718, 853}, {963, 173, 704, 235, 198, 988, 346, 272},
        {494, 791, 681, 942, 17, 200, 817, 645}};
    for (int w = 0; w < 3; w++) {
        struct sampler *s = sampler_new(&ways[w], 1000);
        for (int i = 0; i < 8; i++)
            ck_assert_int_eq(sampler_next(s, logits), wanted[w][i]);
        sampler_free(s);
    }
}
END_TEST

START_TEST(a_whole_vocabulary)
{
    /* 151,936 logits in the order worst for a heap, and flat: thousands of steps would show anything that is quadratic. */
    enum { N = 151936 };
    float *logits = malloc(N * sizeof *logits);
    static const struct sampling ways[] = {{.temperature = 1, .top_p = 1, .seed = 1},
                                           {.temperature = 1, .top_k = 50, .top_p = 1, .seed = 1},
                                           {.temperature = 1, .top_k = 100000, .top_p = 0.9f, .seed = 1},
                                           {.temperature = 1, .top_p = 0.999f, .seed = 1},
                                           {.temperature = 100, .top_p = 0.99f, .min_p = 0.001f, .seed = 1}};
    for (int shape = 0; shape < 3; shape++) {
        for (int i = 0; i < N; i++)
            logits[i] = shape == 0 ? (float)i * 1e-4f : shape == 1 ? 1.0f : 10 * sinf((float)i);
        for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
            struct sampler *s = sampler_new(&ways[w], N);
            for (int i = 0; i < 3; i++) {
                int32_t id = sampler_next(s, logits);
                ck_assert(id >= 0 && id < N);
            }
            sampler_free(s);
        }
    }
    free(logits);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("sampler");
    TCase *c = tcase_create("sampler");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, same_as_the_reference);
    tcase_add_loop_test(c, frequencies, 0, sizeof settings / sizeof settings[0]);
    tcase_add_test(c, three_ways_to_be_greedy);
    tcase_add_test(c, min_p_alone);
    tcase_add_test(c, seeds);
    tcase_add_test(c, values_that_are_no_numbers);
    tcase_add_test(c, logits_are_left_alone);
    tcase_add_test(c, draws_are_the_same_everywhere);
    tcase_add_test(c, a_whole_vocabulary);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
