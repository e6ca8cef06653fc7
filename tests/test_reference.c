/* Logits against exact ones: a float64 forward pass over the same weights, made by a program
 * that shares no code with any engine (tests/data/logits/README.md). Every kernel level,
 * several batch sizes and numbers of threads: close to the truth, and the same bits. Level amx
 * has bits of its own, because its attention has: the same with any batch and threads. */
#include "engine/model.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Mean Kullback-Leibler divergence from the exact distribution, nats. llama.cpp's own on this file is 2.3e-4. */
#define MEAN_KL_LIMIT 1.2e-4

enum { N_SEQUENCES = 4, MAX_TOKENS = 512, POSITIONS = 18, N_VOCAB = 8192 };

struct reference {
    int n_tokens, positions[POSITIONS];
    int32_t tokens[MAX_TOKENS];
    float logits[POSITIONS][N_VOCAB]; /* after reading the token at positions[i] */
};

static struct reference references[N_SEQUENCES];
static struct gguf *file;

static FILE *open_data(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "tests/data/logits/%s", name);
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s cannot be opened", path);
    return f;
}

/* Numbers of one line. */
static int read_line(FILE *f, int32_t *out, int max)
{
    int n = 0, value, c;
    while (fscanf(f, "%d", &value) == 1) {
        ck_assert_int_lt(n, max);
        out[n++] = value;
        do
            c = getc(f);
        while (c == ' ');
        if (c == '\n' || c == EOF)
            break;
        ungetc(c, f);
    }
    return n;
}

static void load_references(void)
{
    FILE *sequences = open_data("sequences.txt"), *positions = open_data("positions.txt"), *logits = open_data("logits.f32");
    for (int i = 0; i < N_SEQUENCES; i++) {
        struct reference *r = &references[i];
        r->n_tokens = read_line(sequences, r->tokens, MAX_TOKENS);
        ck_assert_int_eq(read_line(positions, r->positions, POSITIONS), POSITIONS);
        ck_assert_int_eq(r->positions[POSITIONS - 1], r->n_tokens - 1);
        ck_assert_uint_eq(fread(r->logits, sizeof r->logits, 1, logits), 1);
    }
    fclose(sequences);
    fclose(positions);
    fclose(logits);
    struct error err;
    file = gguf_open("models/quern-tiny-q4_k_m.gguf", NULL, &err);
    ck_assert_msg(file != NULL, "%s", err.text);
}

static double log_sum_exp(const float *x)
{
    double max = x[0], sum = 0;
    for (int i = 1; i < N_VOCAB; i++)
        max = x[i] > max ? x[i] : max;
    for (int i = 0; i < N_VOCAB; i++)
        sum += exp(x[i] - max);
    return max + log(sum);
}

static double divergence(const float *exact, const float *ours)
{
    double norm_exact = log_sum_exp(exact), norm_ours = log_sum_exp(ours), kl = 0;
    for (int i = 0; i < N_VOCAB; i++) {
        double p = exact[i] - norm_exact, q = ours[i] - norm_ours;
        kl += exp(p) * (p - q);
    }
    return kl;
}

struct result {
    double mean_kl;
    uint64_t hash; /* of all bits of all logits of all positions */
};

static struct result run(const struct kernels *kernels, int n_threads, int batch)
{
    struct error err;
    struct threads *pool = threads_new(n_threads, &err);
    struct model *m = model_load(file, kernels, pool, &err);
    ck_assert_msg(m != NULL, "%s", err.text);
    const struct model_shape *s = model_shape(m);
    ck_assert_int_eq(s->n_vocab, N_VOCAB);
    struct kv_pool *kv = kv_pool_new(s->n_layers, s->n_kv_heads, s->head_dim, MAX_TOKENS, &err);
    struct forward *f = forward_new(m, kv, pool, 100, &err); /* does not divide anything: steps of a batch are uneven, too */
    float *logits = malloc(sizeof *logits * N_VOCAB * MAX_TOKENS);
    struct row *rows = calloc(MAX_TOKENS, sizeof *rows);
    ck_assert(kv && f && logits && rows);

    struct result result = {0, 14695981039346656037u};
    for (int i = 0; i < N_SEQUENCES; i++) {
        const struct reference *r = &references[i];
        struct kv_sequence sequence;
        kv_sequence_init(&sequence, kv);
        ck_assert(kv_grow(&sequence, r->n_tokens));
        for (int t = 0; t < r->n_tokens; t++)
            rows[t] = (struct row){r->tokens[t], t, &sequence, logits + (size_t)t * N_VOCAB};
        for (int t = 0; t < r->n_tokens; t += batch)
            forward_run(f, rows + t, r->n_tokens - t < batch ? r->n_tokens - t : batch);
        for (int k = 0; k < POSITIONS; k++)
            result.mean_kl += divergence(r->logits[k], logits + (size_t)r->positions[k] * N_VOCAB) / (N_SEQUENCES * POSITIONS);
        for (size_t k = 0; k < (size_t)r->n_tokens * N_VOCAB; k++) {
            uint32_t bits;
            memcpy(&bits, logits + k, sizeof bits);
            result.hash = (result.hash ^ bits) * 1099511628211u;
        }
        kv_sequence_clear(&sequence);
    }
    printf("%s, %d threads, batches of %d: mean KL %.2e\n", kernels->level, n_threads, batch, result.mean_kl);
    ck_assert_double_lt(result.mean_kl, MEAN_KL_LIMIT);
    ck_assert_double_gt(result.mean_kl, -1e-9);
    free(rows);
    free(logits);
    forward_free(f);
    kv_pool_free(kv);
    model_free(m);
    threads_free(pool);
    return result;
}

START_TEST(every_level_and_batch)
{
    const char *levels[16];
    int n_levels = kernels_available(levels, 16);
    uint64_t hash = 0;
    for (int i = 0; i < n_levels; i++) {
        static const struct {
            int threads, batch;
        } cases[] = {{2, 64}, {1, 7}, {3, 1}, {8, 3}, {2, 500}};
        int n_cases = strcmp(levels[i], "scalar") == 0 ? 1 : 5; /* the specification is slow; checkkernels holds it to itself */
        for (int k = 0; k < n_cases; k++) {
            struct error err;
            const struct kernels *kernels = kernels_by_name(levels[i], &err);
            ck_assert_msg(kernels != NULL, "%s", err.text);
            struct result r = run(kernels, cases[k].threads, cases[k].batch);
            if ((i == 0 || strcmp(levels[i], "amx") == 0) && k == 0)
                hash = r.hash;
            ck_assert_uint_eq(r.hash, hash);
        }
    }
}
END_TEST

#if defined(__x86_64__)
extern const struct kernels kernels_amx_model; /* see kernels/x86/amx.c */

/* The attention of level amx on any CPU, its instructions as functions in C. The other kernels have any level's bits. */
START_TEST(attention_on_tiles)
{
    const char *levels[16];
    struct error err;
    struct kernels kernels = *kernels_by_name(levels[kernels_available(levels, 16) - 1], &err);
    kernels.level = "attention of amx(model)";
    kernels.attention = kernels_amx_model.attention;
    kernels.attention_tokens = kernels_amx_model.attention_tokens;
    const struct result whole = run(&kernels, 2, 64), parts = run(&kernels, 3, 7);
    ck_assert_uint_eq(whole.hash, parts.hash);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("reference logits");
    TCase *c = tcase_create("quern-tiny");
    tcase_add_unchecked_fixture(c, load_references, NULL);
    tcase_set_timeout(c, 300);
    tcase_add_test(c, every_level_and_batch);
#if defined(__x86_64__)
    tcase_add_test(c, attention_on_tiles);
#endif
    suite_add_tcase(suite, c);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
