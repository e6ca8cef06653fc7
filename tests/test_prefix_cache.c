/* The prefix cache as an engine's callers see it: what begins like something before it is not computed again, and every answer is
 * the one that an engine gives which has seen nothing. */
#include "tests/engine_fixture.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

START_TEST(a_conversation_is_computed_once)
{
    /* Turn by turn in one engine, where all that went before is in the cache, against engines that have seen nothing. */
    enum { TURNS = 4 };
    static const char *const says[TURNS] = {"Hello", "Who are you?", "Tell me a story about a dog.", "Do you like music?"};
    struct tok_ids ids = {0}, turns[TURNS] = {{0}};
    char *answers[TURNS];
    start_engine((struct engine_options){.n_threads = 2});
    extend(&ids, "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n");
    for (int i = 0, known = 0; i < TURNS; i++) {
        extend(&ids, "<|im_start|>user\n");
        extend(&ids, says[i]);
        extend(&ids, "<|im_end|>\n<|im_start|>assistant\n");
        struct result r = ask(&ids, i);
        ck_assert_int_eq(r.last.n_prompt, (int)ids.count);
        ck_assert_int_eq(r.last.n_cached, known);
        for (size_t k = 0; k < ids.count; k++)
            ck_assert(tok_ids_push(&turns[i], ids.data[k]));
        answers[i] = strdup(r.text);
        size_t before = ids.count;
        extend(&ids, r.text);
        /* The last token of an answer that was cut off was not computed. */
        known = (int)ids.count - (r.last.finish == FINISH_LENGTH);
        ck_assert_int_eq(r.last.n_generated, (int)(ids.count - before)); /* and the text is written in the tokens that came */
        result_free(&r);
        extend(&ids, "<|im_end|>\n");
    }
    struct result again = ask(&turns[TURNS - 1], TURNS - 1);
    ck_assert_str_eq(again.text, answers[TURNS - 1]);
    ck_assert_int_eq(again.last.n_cached, again.last.n_prompt - 1); /* the last one gives the logits */
    result_free(&again);
    stop_engine();
    for (int i = 0; i < TURNS; i++) {
        start_engine((struct engine_options){.n_threads = 1, .n_batch = 100});
        struct result r = ask(&turns[i], i);
        ck_assert_int_eq(r.last.n_cached, 0);
        ck_assert_str_eq(r.text, answers[i]);
        result_free(&r);
        stop_engine();
        free(answers[i]);
        tok_ids_free(&turns[i]);
    }
    tok_ids_free(&ids);
}
END_TEST

START_TEST(many_answers_to_one_prompt)
{
    /* Submitted before the engine runs, in batches smaller than the prompt: one computes it, the others wait for that. */
    enum { N = 6 };
    for (int batch = 8; batch <= 512; batch *= 4) {
        open_engine((struct engine_options){.n_parallel = N, .n_kv = 2 * CTX, .n_batch = batch});
        struct result r[N];
        struct tok_ids ids = chat_prompt(questions[0]);
        for (int i = 0; i < N; i++) {
            result_init(&r[i]);
            struct generation g = request(&ids, &r[i]);
            vary(&g, i % 3);
            g.max_tokens = 12;
            submit(&g);
        }
        run_engine();
        for (int i = 0; i < N; i++) {
            result_wait(&r[i]);
            ck_assert_int_eq(r[i].last.n_cached, i == 0 ? 0 : r[i].last.n_prompt - 1);
            ck_assert_str_eq(r[i].text, r[i % 3].text);
        }
        for (int i = 0; i < N; i++)
            result_free(&r[i]);
        tok_ids_free(&ids);
        stop_engine();
    }
}
END_TEST

START_TEST(one_that_others_wait_for_goes)
{
    open_engine((struct engine_options){.n_parallel = 3, .n_kv = 2 * CTX, .n_batch = 8});
    struct result r[3];
    struct tok_ids ids = chat_prompt("Say OK");
    for (int i = 0; i < 3; i++) {
        result_init(&r[i]);
        struct generation g = request(&ids, &r[i]);
        uint64_t id = submit(&g);
        if (i == 0)
            engine_cancel(engine, id);
    }
    run_engine();
    for (int i = 0; i < 3; i++)
        result_wait(&r[i]);
    ck_assert_int_eq(r[0].last.finish, FINISH_CANCELLED);
    ck_assert_str_eq(r[1].text, "OK");
    ck_assert_str_eq(r[2].text, "OK");
    for (int i = 0; i < 3; i++)
        result_free(&r[i]);
    tok_ids_free(&ids);
    stop_engine();
}
END_TEST

/* A generation that cancels another one some time after that has started. */
struct canceller {
    struct result own, *other;
    int n_texts; /* since then */
};

enum { STEPS = 24, ROWS = 4 };

static void note_and_cancel(void *user, const struct engine_event *event)
{
    struct canceller *c = user;
    result_note(&c->own, event);
    pthread_mutex_lock(&c->other->mutex);
    bool now = c->other->started && event->kind == EVENT_TEXT && ++c->n_texts == STEPS;
    pthread_mutex_unlock(&c->other->mutex);
    if (now)
        engine_cancel(engine, c->other->id);
}

START_TEST(who_gives_up_loses_nothing)
{
    /* A client that leaves while its prompt is computed, in ROWS rows of each batch beside an answer, and comes again. */
    start_engine((struct engine_options){.n_batch = 16 * ROWS, .n_kv = 2 * CTX});
    char text[1500] = "";
    for (int k = 0; k < 40; k++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%d is a number. ", k);
    struct tok_ids story = chat_prompt(questions[0]), numbers = chat_prompt(text);
    ck_assert_int_gt((int)numbers.count, 2 * STEPS * ROWS);
    struct result r;
    struct canceller c = {.other = &r};
    result_init(&r);
    result_init(&c.own);
    struct generation answer = request(&story, &c.own), prompt = request(&numbers, &r);
    answer.callback = note_and_cancel;
    answer.user = &c;
    answer.max_tokens = 0;
    answer.ignore_eos = true;
    submit(&answer);
    result_wait_texts(&c.own, 1);
    submit(&prompt);
    result_wait(&r);
    ck_assert_int_eq(r.last.finish, FINISH_CANCELLED);
    ck_assert_int_eq(r.last.n_generated, 0);
    int had = r.last.n_cached;
    result_free(&r);
    r = ask(&numbers, 0);
    ck_assert_int_ge(r.last.n_cached, had + (STEPS - 2) * ROWS);
    ck_assert_int_lt(r.last.n_cached, r.last.n_prompt - 1);
    result_wait(&c.own);
    result_free(&r);
    result_free(&c.own);
    tok_ids_free(&story);
    tok_ids_free(&numbers);
    stop_engine();
}
END_TEST

START_TEST(what_is_needed_is_given_up)
{
    /* The cache holds one context: the conversations push one another out, and every answer is right. */
    enum { CONVERSATIONS = 3 };
    struct tok_ids ids[CONVERSATIONS];
    char *answers[CONVERSATIONS] = {NULL};
    int n_cached[2][CONVERSATIONS];
    start_engine((struct engine_options){.n_parallel = 2});
    for (int i = 0; i < CONVERSATIONS; i++) {
        char text[2000] = "";
        for (int k = 0; k < 40 + i; k++)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%d is a number. ", 1000 * i + k);
        ids[i] = chat_prompt(text);
        ck_assert_int_gt((int)ids[i].count, CTX / 2);
        ck_assert_int_lt((int)ids[i].count, CTX - 61);
    }
    for (int round = 0; round < 4; round++)
        for (int i = 0; i < CONVERSATIONS; i++) {
            struct result r = ask(&ids[i], i);
            if (!answers[i])
                answers[i] = strdup(r.text);
            ck_assert_str_eq(r.text, answers[i]);
            if (round < 2)
                n_cached[round][i] = r.last.n_cached;
            result_free(&r);
        }
    ck_assert_int_eq(n_cached[0][0], 0);
    ck_assert_int_ge(n_cached[1][0], 32);                      /* what all of them begin with has been used all the time */
    ck_assert_int_lt(n_cached[1][0], (int)ids[0].count / 2);  /* the rest is gone */
    struct engine_stats stats;
    do /* the engine counts after the last event */
        engine_get_stats(engine, &stats);
    while (stats.n_kv_filled > 0 || stats.n_kv_reserved > 0);
    stop_engine();
    for (int i = 0; i < CONVERSATIONS; i++) {
        free(answers[i]);
        tok_ids_free(&ids[i]);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("prefix_cache");
    TCase *c = tcase_create("prefix_cache");
    tcase_set_timeout(c, 240);
    tcase_add_test(c, a_conversation_is_computed_once);
    tcase_add_test(c, many_answers_to_one_prompt);
    tcase_add_test(c, one_that_others_wait_for_goes);
    tcase_add_test(c, who_gives_up_loses_nothing);
    tcase_add_test(c, what_is_needed_is_given_up);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
