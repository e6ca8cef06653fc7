/* What happens to logits before a token is drawn, and log probabilities. */
#include "engine/logprobs.h"
#include "engine/sampler.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- penalties and biases, seen through greedy choice ---- */

static struct sampler *greedy(struct sampling o, int n_vocab)
{
    o.temperature = 0;
    struct sampler *s = sampler_new(&o, n_vocab);
    ck_assert_ptr_nonnull(s);
    return s;
}

static int32_t next(struct sampler *s, const float *logits)
{
    int32_t token = sampler_next(s, logits);
    sampler_took(s, token);
    return token;
}

static void check_order(
    struct sampling o, const float *logits, int n_vocab, const int32_t *prompt, int n_prompt, const int32_t *wanted, int n_wanted)
{
    struct sampler *s = greedy(o, n_vocab);
    sampler_saw_prompt(s, prompt, n_prompt);
    for (int i = 0; i < n_wanted; i++)
        ck_assert_msg(next(s, logits) == wanted[i], "draw %d", i);
    sampler_free(s);
}

START_TEST(presence_counts_once)
{
    const float logits[] = {3, 2.5f, 1};
    /* 3 2.5 1 -> 2 2.5 1 -> 2 1.5 1 -> the same for ever */
    check_order((struct sampling){.presence_penalty = 1}, logits, 3, NULL, 0, (const int32_t[]){0, 1, 0, 0, 0}, 5);
    const int32_t prompt[] = {0, 0, 1};
    /* The prompt does not count. */
    check_order((struct sampling){.presence_penalty = 1}, logits, 3, prompt, 3, (const int32_t[]){0, 1, 0}, 3);
    check_order((struct sampling){.presence_penalty = -1}, logits, 3, NULL, 0, (const int32_t[]){0, 0, 0}, 3);
}
END_TEST

START_TEST(frequency_counts_each)
{
    const float logits[] = {3, 2.5f, 1};
    /* 3 2.5 -> 2.6 2.5 -> 2.2 2.5 -> 2.2 2.1 -> 1.8 2.1 */
    check_order(
        (struct sampling){.frequency_penalty = 0.4f}, logits, 3, (const int32_t[]){0}, 1, (const int32_t[]){0, 0, 1, 0, 1}, 5);
    /* both: 3 2.5 1 -> 1.6 2.5 1 -> 1.6 1.1 1 -> 1.2 1.1 1 -> 0.8 1.1 1 -> 0.8 0.7 1 */
    check_order((struct sampling){.frequency_penalty = 0.4f, .presence_penalty = 1}, logits, 3, NULL, 0,
        (const int32_t[]){0, 1, 0, 0, 1, 2}, 6);
}
END_TEST

START_TEST(repetition_counts_the_prompt)
{
    const float logits[] = {3, 2, 1.9f, -1, -1.5f};
    const int32_t prompt[] = {0, 4};
    /* 3/2 = 1.5: token 1 is better; 2/2 = 1: token 2; 1.9/2: token 0 for ever, however often */
    check_order((struct sampling){.repetition_penalty = 2}, logits, 5, prompt, 2, (const int32_t[]){1, 2, 0, 0, 0}, 5);
    /* A negative logit gets smaller, not larger: -1 * 2 is less than -1.5. */
    const float negative[] = {-1, -1.5f};
    check_order((struct sampling){.repetition_penalty = 2}, negative, 2, NULL, 0, (const int32_t[]){0, 1, 0}, 3);
    check_order((struct sampling){.repetition_penalty = 0.5f}, logits, 5, (const int32_t[]){2}, 1, (const int32_t[]){2, 2}, 2);
    check_order((struct sampling){.repetition_penalty = 1}, logits, 5, prompt, 2, (const int32_t[]){0, 0}, 2);
    check_order((struct sampling){.repetition_penalty = 0}, logits, 5, prompt, 2, (const int32_t[]){0, 0}, 2);
}
END_TEST

START_TEST(biases)
{
    const float logits[] = {3, 2, 1, -INFINITY};
    const struct token_bias up[] = {{2, 2.5f}}, twice[] = {{2, 1.5f}, {2, 1}}, ban[] = {{0, -100}, {1, -100}},
                            all[] = {{0, -100}, {1, -100}, {2, -100}, {3, 100}};
    check_order((struct sampling){.biases = up, .n_biases = 1}, logits, 4, NULL, 0, (const int32_t[]){2, 2}, 2);
    check_order((struct sampling){.biases = twice, .n_biases = 2}, logits, 4, NULL, 0, (const int32_t[]){2}, 1);
    check_order((struct sampling){.biases = ban, .n_biases = 2}, logits, 4, NULL, 0, (const int32_t[]){2, 2}, 2);
    /* Nothing is left. */
    check_order((struct sampling){.biases = all, .n_biases = 4}, logits, 4, NULL, 0, (const int32_t[]){0}, 1);
    /* Never means never, by any way of drawing. */
    for (int way = 0; way < 3; way++) {
        struct sampling o = {
            .temperature = 5, .top_p = way == 1 ? 0.99f : 1, .top_k = way == 2 ? 3 : 0, .seed = 5, .biases = ban, .n_biases = 1};
        const float large[] = {90, 2, 1, 0};
        struct sampler *s = sampler_new(&o, 4);
        for (int i = 0; i < 1000; i++)
            ck_assert_int_ne(next(s, large), 0);
        sampler_free(s);
    }
}
END_TEST

/* The biases may be freed once the sampler is made, and the logits stay as they were. */
START_TEST(nothing_is_borrowed)
{
    struct token_bias *heap = malloc(sizeof *heap);
    *heap = (struct token_bias){1, 50};
    const float logits[] = {3, 2, 1};
    float copy[3];
    memcpy(copy, logits, sizeof copy);
    struct sampler *s =
        greedy((struct sampling){.biases = heap, .n_biases = 1, .presence_penalty = 2, .repetition_penalty = 1.5f}, 3);
    free(heap);
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(next(s, copy), 1);
    ck_assert_mem_eq(copy, logits, sizeof copy);
    sampler_free(s);
}
END_TEST

/* ---- log probabilities ---- */

static double reference(const float *logits, int n, int32_t token)
{
    long double total = 0;
    for (int i = 0; i < n; i++)
        total += expl((long double)logits[i] - (long double)logits[token]);
    return (double)-logl(total);
}

START_TEST(logprobs_are_right)
{
    enum { N = 5000 };
    float *logits = malloc(N * sizeof *logits);
    struct token_choice c;
    srand(3);
    for (int round = 0; round < 30; round++) {
        float spread = round % 3 == 0 ? 0.01f : round % 3 == 1 ? 5 : 60;
        int n = round < 3 ? 1 + round : N;
        for (int i = 0; i < n; i++)
            logits[i] = spread * ((float)rand() / (float)RAND_MAX - 0.5f);
        int32_t chosen = (int32_t)(rand() % n);
        logprobs_of(logits, n, chosen, 20, &c);
        ck_assert_int_eq(c.n_top, n < 20 ? n : 20);
        ck_assert_int_eq(c.chosen.token, chosen);
        ck_assert_double_eq_tol(c.chosen.logprob, reference(logits, n, chosen), 1e-12);
        for (int k = 0; k < c.n_top; k++) {
            ck_assert_double_eq_tol(c.top[k].logprob, reference(logits, n, c.top[k].token), 1e-12);
            ck_assert_double_le(c.top[k].logprob, 0);
            int better = 0; /* as many as stand before it */
            for (int i = 0; i < n; i++)
                better += logits[i] > logits[c.top[k].token] || (logits[i] == logits[c.top[k].token] && i < c.top[k].token);
            ck_assert_int_eq(better, k);
        }
    }
    free(logits);
}
END_TEST

START_TEST(logprobs_of_odd_logits)
{
    struct token_choice c;
    const float equal[] = {1, 1, 1, 1}, holes[] = {NAN, 0, -INFINITY, 0}, certain[] = {0, INFINITY, 5},
                nothing[] = {-INFINITY, NAN};
    logprobs_of(equal, 4, 3, 2, &c);
    ck_assert_int_eq(c.n_top, 2);
    ck_assert_int_eq(c.top[0].token, 0);
    ck_assert_int_eq(c.top[1].token, 1);
    ck_assert_double_eq_tol(c.chosen.logprob, -log(4), 1e-15);
    logprobs_of(holes, 4, 2, 20, &c);
    ck_assert_int_eq(c.n_top, 2);
    ck_assert_int_eq(c.top[0].token, 1);
    ck_assert_double_eq_tol(c.top[1].logprob, -log(2), 1e-15);
    ck_assert(c.chosen.logprob == (double)-INFINITY);
    logprobs_of(certain, 3, 1, 1, &c);
    ck_assert_double_eq(c.chosen.logprob, 0);
    ck_assert_int_eq(c.top[0].token, 1);
    logprobs_of(nothing, 2, 0, 5, &c);
    ck_assert_int_eq(c.n_top, 0);
    ck_assert(c.chosen.logprob == (double)-INFINITY);
    logprobs_of(equal, 4, 0, 0, &c);
    ck_assert_int_eq(c.n_top, 0);
}
END_TEST

/* To the last bit, whatever the C library thinks of exp and log. */
START_TEST(logprobs_are_the_same_everywhere)
{
    float logits[1000];
    for (int i = 0; i < 1000; i++)
        logits[i] = (float)((i * 7919) % 1000) / 100.0f;
    struct token_choice c;
    logprobs_of(logits, 1000, 500, 1, &c);
    ck_assert_int_eq(c.top[0].token, 321);
    ck_assert_msg(c.chosen.logprob == -0x1.333430247e7f0p+3 && c.top[0].logprob == -0x1.270c3848fcfe0p+2, "%a %a",
        c.chosen.logprob, c.top[0].logprob);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("penalties");
    TCase *c = tcase_create("penalties");
    tcase_add_test(c, presence_counts_once);
    tcase_add_test(c, frequency_counts_each);
    tcase_add_test(c, repetition_counts_the_prompt);
    tcase_add_test(c, biases);
    tcase_add_test(c, nothing_is_borrowed);
    tcase_add_test(c, logprobs_are_right);
    tcase_add_test(c, logprobs_of_odd_logits);
    tcase_add_test(c, logprobs_are_the_same_everywhere);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
