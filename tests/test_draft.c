/* Guesses: they are what the header says, and no answer depends on them. */
#include "engine/draft.h"
#include "engine/grammar.h"
#include "server/schema/schema.h"
#include "tests/engine_fixture.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

/* ---- draft_find ---- */

static void expect(const char *text, int most, const char *guess)
{
    int32_t tokens[64], draft[DRAFT_MOST + 1];
    int n = (int)strlen(text);
    for (int i = 0; i < n; i++)
        tokens[i] = text[i];
    memset(draft, 0, sizeof draft);
    int found = draft_find(tokens, n, most, draft);
    ck_assert_msg(found == (int)strlen(guess), "%s: %d", text, found);
    for (int i = 0; i < found; i++)
        ck_assert_int_eq(draft[i], guess[i]);
    ck_assert_int_eq(draft[found], 0); /* and nothing behind it */
}

START_TEST(guesses)
{
    expect("", 5, "");
    expect("a", 5, "");
    expect("aa", 5, "");
    expect("abcdefg", 5, "");
    expect("ab.xb", 5, "");           /* one token alone says nothing */
    expect("abc.ab", 5, "c");         /* two that agree: one */
    expect("abcdef.abcd", 5, "ef.");  /* four: three */
    expect("abcdef.abcd", 2, "ef");
    expect("abcdef.abcd", 1, "e");
    expect("abcdef.abcd", 0, "");
    expect("abcdef.abcd", -3, "");
    expect("abXcabYdab", 5, "Y");     /* the latest of equals */
    expect("1abX.2abY.1ab", 5, "X."); /* the longest before the latest */
    expect("aaa", 5, "a");
    expect("aaaaaaaaaa", 5, "aaaaa"); /* what repeats goes on */
    expect(".abababab", 9, "ababa");
    expect("abc", DRAFT_MOST, "");
}
END_TEST

/* By the header's words, without any cleverness. */
static int slow_find(const int32_t *tokens, int n, int most, int32_t *draft)
{
    int best = 0, from = 0;
    for (int end = 1; end < n; end++) {
        int same = 0;
        while (same < end && same <= most && tokens[end - 1 - same] == tokens[n - 1 - same])
            same++;
        if (same >= best) {
            best = same;
            from = end;
        }
    }
    int count = best < 2 ? 0 : best - 1;
    for (int i = 0; i < count; i++)
        draft[i] = tokens[from + i % (n - from)];
    return count;
}

START_TEST(random_texts)
{
    int32_t tokens[300], draft[DRAFT_MOST], slow[DRAFT_MOST];
    int n_found = 0;
    srand(3);
    for (int round = 0; round < 5000; round++) {
        int n = 1 + rand() % 300, most = rand() % (DRAFT_MOST + 1), kinds = 1 + rand() % 8;
        for (int i = 0; i < n; i++)
            tokens[i] = rand() % kinds;
        int found = draft_find(tokens, n, most, draft);
        ck_assert_int_eq(found, slow_find(tokens, n, most, slow));
        ck_assert(!memcmp(draft, slow, (size_t)found * sizeof *draft));
        n_found += found;
    }
    ck_assert_int_gt(n_found, 5000);
}
END_TEST

/* ---- the same answers ---- */

enum { N_WAYS = 12 };

static const char *const tasks[] = {
    "Repeat this: one two three four one two three four one two three four",
    "Tell me a story about a cat and a ball.",
    "I want to book a table for two people in San Jose.",
    "Who are you?",
};
enum { N_TASKS = sizeof tasks / sizeof tasks[0] };

static struct grammar *compile(const char *schema)
{
    struct schema_error err;
    struct json *j = json_parse(schema, strlen(schema), NULL, NULL);
    struct grammar *g = schema_compile(json_root(j), &err);
    ck_assert_ptr_nonnull(g);
    json_free(j);
    return g;
}

static void set_way(struct generation *g, int way, const struct grammar *names)
{
    vary(g, way);
    g->max_tokens = way % 7 == 6 ? 1 + way : 60;
    if (way % 4 == 1)
        g->sampling.repetition_penalty = 1.1f;
    if (way % 4 == 2)
        g->sampling.frequency_penalty = 0.3f;
    if (way % 5 == 3)
        g->stops[g->n_stops++] = "the";
    if (way % 6 == 5)
        g->grammar = names;
    g->logprobs = way % 2 == 0;
    g->top_logprobs = 3;
    g->ignore_eos = way % 4 == 0;
}

START_TEST(answers_do_not_depend_on_them)
{
    static const int drafts[] = {-1, 3, 7}; /* -1: none. The last one: three at once */
    enum { N_DRAFTS = sizeof drafts / sizeof drafts[0] };
    static struct result expected[N_TASKS][N_WAYS];
    struct grammar *names = compile("{\"type\":\"array\",\"items\":{\"enum\":[\"one two three\",\"one two four\",\"two\"]}}");
    for (int d = 0; d < N_DRAFTS; d++) {
        bool together = d == N_DRAFTS - 1;
        static struct result r[N_TASKS][N_WAYS];
        int n_drafted = 0, n_accepted = 0;
        start_engine((struct engine_options){.n_draft = drafts[d], .n_parallel = together ? 3 : 1, .n_kv = together ? 3 * CTX : 0,
                                             .max_queue = N_TASKS * N_WAYS, .n_threads = 2});
        for (int t = 0; t < N_TASKS; t++)
            for (int way = 0; way < N_WAYS; way++) {
                struct tok_ids ids = chat_prompt(tasks[t]);
                result_init(&r[t][way]);
                struct generation g = request(&ids, &r[t][way]);
                set_way(&g, way, names);
                submit(&g);
                tok_ids_free(&ids);
                if (!together)
                    result_wait(&r[t][way]);
            }
        for (int t = 0; t < N_TASKS; t++)
            for (int way = 0; way < N_WAYS; way++) {
                struct result *one = &r[t][way], *e = &expected[t][way];
                result_wait(one);
                ck_assert_int_le(one->last.n_accepted, one->last.n_drafted);
                ck_assert_int_le(one->last.n_accepted, one->last.n_generated);
                n_drafted += one->last.n_drafted;
                n_accepted += one->last.n_accepted;
                if (d == 0) {
                    *e = *one;
                    continue;
                }
                ck_assert_str_eq(one->text, e->text);
                ck_assert_int_eq(one->last.finish, e->last.finish);
                ck_assert_int_eq(one->last.stop, e->last.stop);
                ck_assert_int_eq(one->last.n_generated, e->last.n_generated);
                ck_assert_int_eq(one->n_choices, e->n_choices);
                ck_assert_uint_eq(one->choices, e->choices);
                result_free(one);
            }
        stop_engine();
        if (d == 0) {
            ck_assert_int_eq(n_drafted, 0);
        } else { /* the test has met what it is about: right and wrong guesses */
            ck_assert_int_gt(n_accepted, 50);
            ck_assert_int_gt(n_drafted, n_accepted + 50);
        }
    }
    for (int t = 0; t < N_TASKS; t++)
        for (int way = 0; way < N_WAYS; way++)
            result_free(&expected[t][way]);
    grammar_free(names);
}
END_TEST

START_TEST(fewer_steps)
{
    /* What repeats itself takes a fraction of the batches. */
    uint64_t n_batches[2];
    for (int i = 0; i < 2; i++) {
        start_engine((struct engine_options){.n_draft = i == 0 ? -1 : 3});
        struct tok_ids ids = chat_prompt(tasks[0]);
        struct result r;
        result_init(&r);
        struct generation g = request(&ids, &r);
        g.max_tokens = 200;
        g.ignore_eos = true;
        submit(&g);
        result_wait(&r);
        ck_assert_int_eq(r.last.n_generated, 200);
        struct engine_stats stats;
        engine_get_stats(engine, &stats);
        n_batches[i] = stats.n_batches;
        ck_assert_int_ge(r.last.n_accepted + (int)stats.n_batches, 199);
        result_free(&r);
        tok_ids_free(&ids);
        stop_engine();
    }
    ck_assert_uint_ge(n_batches[0], 200);
    ck_assert_uint_lt(n_batches[1], n_batches[0] * 2 / 3);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("draft");
    TCase *c = tcase_create("draft");
    tcase_set_timeout(c, 240);
    tcase_add_test(c, guesses);
    tcase_add_test(c, random_texts);
    tcase_add_test(c, answers_do_not_depend_on_them);
    tcase_add_test(c, fewer_steps);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
