/* engine/engine from end to end, on the shipped model: answers, stop strings, many at once,
 * cancelling, and everything that must be refused.
 * Runs in the project's root (it opens models/quern-tiny-q4_k_m.gguf). */
#include "tests/engine_fixture.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- answers ---- */

START_TEST(greedy_answers)
{
    static const struct {
        const char *question, *answer;
    } known[] = {
        {"Say OK", "OK"},
        {"Hello", "Hello! How can I help you today?"},
        {"Who are you?", "I am the small demonstration model that ships with quern. I can chat a little, tell a short story and "
                         "call simple tools. For real work, load a "
                         "Qwen2.5 model."},
        {"I want to book a table for two people in San Jose.", "What time would you like to book the table?"},
    };
    start_engine((struct engine_options){.n_threads = _i});
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        struct result r;
        result_init(&r);
        struct tok_ids ids = chat_prompt(known[i].question);
        struct generation g = request(&ids, &r);
        uint64_t id = submit(&g);
        result_wait(&r);
        ck_assert_str_eq(r.text, known[i].answer);
        ck_assert_int_eq(r.last.finish, FINISH_STOP);
        ck_assert_ptr_null(r.last.error);
        ck_assert_uint_eq(r.last.id, id);
        ck_assert_int_eq(r.last.n_prompt, (int)ids.count);
        ck_assert_int_lt(r.last.n_cached, r.last.n_prompt);
        ck_assert(r.started);
        ck_assert_double_gt(r.last.prompt_seconds, 0);
        ck_assert_double_ge(r.last.generate_seconds, 0);
        struct tok_ids answer = {0};
        ck_assert(tok_encode(engine_tokenizer(engine), known[i].answer, strlen(known[i].answer), false, &answer, NULL));
        ck_assert_int_eq(r.last.n_generated, (int)answer.count);
        tok_ids_free(&answer);
        tok_ids_free(&ids);
        result_free(&r);
    }
    stop_engine();
}
END_TEST

START_TEST(a_story)
{
    start_engine((struct engine_options){0});
    struct result r;
    result_init(&r);
    struct tok_ids ids = chat_prompt("Tell me a story about a cat and a ball.");
    struct generation g = request(&ids, &r);
    submit(&g);
    result_wait(&r);
    const char *begin = "Once upon a time, there was a little girl named Lily. She loved to play with her ball.";
    ck_assert_int_eq(strncmp(r.text, begin, strlen(begin)), 0);
    ck_assert_int_eq(r.last.finish, FINISH_LENGTH);
    ck_assert_int_eq(r.last.n_generated, 60);
    ck_assert_int_gt(r.n_texts, 40); /* as it comes, not at the end */
    tok_ids_free(&ids);
    result_free(&r);
    stop_engine();
}
END_TEST

START_TEST(together_as_alone)
{
    /* Every answer must be the one it gives alone in an engine with other batch sizes and threads.
     * Small batches make prompts cross many of them. */
    char *alone[N_QUESTIONS];
    start_engine((struct engine_options){.n_parallel = 1, .n_threads = 1});
    for (int i = 0; i < N_QUESTIONS; i++) {
        struct result r;
        result_init(&r);
        struct tok_ids ids = chat_prompt(questions[i]);
        struct generation g = request(&ids, &r);
        vary(&g, i);
        submit(&g);
        result_wait(&r);
        alone[i] = strdup(r.text);
        result_free(&r);
        tok_ids_free(&ids);
    }
    stop_engine();

    static const struct engine_options ways[] = {
        {.n_parallel = 4, .n_threads = 2},
        {.n_parallel = 8, .n_kv = 4 * CTX, .n_batch = 7},
        {.n_parallel = 3, .n_batch = 1},
        {.n_parallel = 8, .n_batch = 64, .n_kv = 8 * CTX, .n_threads = 3},
    };
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        start_engine(ways[w]);
        struct result r[N_QUESTIONS];
        n_started = 0;
        for (int i = 0; i < N_QUESTIONS; i++) {
            result_init(&r[i]);
            struct tok_ids ids = chat_prompt(questions[i]);
            struct generation g = request(&ids, &r[i]);
            vary(&g, i);
            submit(&g);
            tok_ids_free(&ids); /* the prompt was copied */
        }
        for (int i = 0; i < N_QUESTIONS; i++) {
            result_wait(&r[i]);
            ck_assert_str_eq(r[i].text, alone[i]);
            ck_assert_int_eq(r[i].order, i); /* in the order of submission */
            result_free(&r[i]);
        }
        stop_engine();
    }
    for (int i = 0; i < N_QUESTIONS; i++)
        free(alone[i]);
}
END_TEST

START_TEST(a_short_prompt_beside_long_ones)
{
    /* Submitted last, it is answered first; and the oldest of the long ones is answered before those after it. */
    static const char *const fruits[] = {"apples", "pears", "plums"};
    enum { N_LONG = sizeof fruits / sizeof fruits[0], N = N_LONG + 1 };
    open_engine((struct engine_options){.n_parallel = N, .n_kv = N * CTX, .n_batch = 32});
    struct result r[N];
    for (int i = 0; i < N; i++) {
        char text[2000] = "Say OK";
        for (int k = 0; i < N_LONG && k < 40; k++)
            snprintf(text + strlen(text), sizeof text - strlen(text), ". I have %d %s", k, fruits[i]);
        struct tok_ids ids = chat_prompt(text);
        result_init(&r[i]);
        struct generation g = request(&ids, &r[i]);
        g.max_tokens = i < N_LONG ? 4 : 40;
        g.ignore_eos = true;
        if (i < N_LONG)
            ck_assert_int_gt(g.n_prompt, 200);
        submit(&g);
        tok_ids_free(&ids);
    }
    run_engine();
    for (int i = 0; i < N; i++)
        result_wait(&r[i]);
    ck_assert_int_lt(r[N_LONG].answered, r[0].answered);
    ck_assert_int_lt(r[0].answered, r[1].answered);
    ck_assert_int_lt(r[0].answered, r[2].answered);
    for (int i = 0; i < N; i++)
        result_free(&r[i]);
    stop_engine();
}
END_TEST

START_TEST(answers_outgrow_the_cache)
{
    /* Several that each fill the context, in a cache that holds one context: the younger ones have to pause, again and again, and
     * all become what they are alone. One is cancelled while it may be pausing. */
    enum { N = 5, SMALL = 192 };
    char *alone[N];
    static const struct engine_options ways[] = {
        {.n_ctx = SMALL, .n_parallel = 1}, {.n_ctx = SMALL, .n_parallel = N, .n_threads = 2},
        {.n_ctx = SMALL, .n_parallel = 3, .n_batch = 5, .n_draft = -1},
        {.n_ctx = SMALL, .n_parallel = N, .n_kv = SMALL + 100, .n_draft = 7}};
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        start_engine(ways[w]);
        struct result r[N];
        n_started = 0;
        for (int i = 0; i < N; i++) {
            result_init(&r[i]);
            struct tok_ids ids = chat_prompt(questions[i]);
            struct generation g = request(&ids, &r[i]);
            vary(&g, i);
            g.max_tokens = 0;
            g.ignore_eos = true;
            if (w == 1 && i == N - 1)
                r[i].cancel_at = 40;
            submit(&g);
            tok_ids_free(&ids);
        }
        for (int i = 0; i < N; i++) {
            result_wait(&r[i]);
            ck_assert_int_eq(r[i].order, i);
            if (r[i].cancel_at) {
                ck_assert_int_eq(r[i].last.finish, FINISH_CANCELLED);
                ck_assert_int_eq(strncmp(r[i].text, alone[i], r[i].length), 0);
            } else {
                ck_assert_int_eq(r[i].last.finish, FINISH_LENGTH);
                ck_assert_int_eq(r[i].last.n_prompt + r[i].last.n_generated, SMALL);
                if (w == 0)
                    alone[i] = strdup(r[i].text);
                ck_assert_str_eq(r[i].text, alone[i]);
            }
            ck_assert_int_lt(r[i].last.n_cached, r[i].last.n_prompt);
            result_free(&r[i]);
        }
        struct engine_stats stats;
        do /* the engine counts after the last event */
            engine_get_stats(engine, &stats);
        while (stats.n_kv_reserved > 0);
        ck_assert_int_eq(stats.n_running + stats.n_waiting, 0);
        if (w == 0)
            ck_assert_uint_eq(stats.n_preemptions, 0);
        else
            ck_assert_uint_ge(stats.n_preemptions, 2);
        stop_engine();
    }
    for (int i = 0; i < N; i++)
        free(alone[i]);
}
END_TEST

START_TEST(seeds)
{
    start_engine((struct engine_options){0});
    char *texts[4];
    for (int i = 0; i < 4; i++) {
        struct result r;
        result_init(&r);
        struct tok_ids ids = chat_prompt("Tell me a story about a dog.");
        struct generation g = request(&ids, &r);
        g.sampling.temperature = 1;
        g.sampling.seed = (uint64_t)(i / 2);
        submit(&g);
        result_wait(&r);
        texts[i] = strdup(r.text);
        result_free(&r);
        tok_ids_free(&ids);
    }
    ck_assert_str_eq(texts[0], texts[1]);
    ck_assert_str_eq(texts[2], texts[3]);
    ck_assert_str_ne(texts[0], texts[2]);
    for (int i = 0; i < 4; i++)
        free(texts[i]);
    stop_engine();
}
END_TEST

/* ---- where it stops ---- */

START_TEST(stop_strings)
{
    static const struct {
        const char *stops[3];
        int met;
        const char *text; /* of "I am the small demonstration model that ships with quern. I can chat a little, ..." */
    } cases[] = {
        {{" model"}, 0, "I am the small demonstration"},
        {{"stration mo"}, 0, "I am the small demon"},            /* across tokens */
        {{"I"}, 0, ""},                                          /* at once */
        /* The first begins, and is given up. */
        {{"I am the big", "quern."}, 1, "I am the small demonstration model that ships with "},
        {{"small demonstrator", "small demonstration model", "tion"}, 2, "I am the small demonstra"},
        {{"ships with quern. I can chat"}, 0, "I am the small demonstration model that "},
    };
    start_engine((struct engine_options){0});
    struct tok_ids ids = chat_prompt("Who are you?");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct result r;
        result_init(&r);
        struct generation g = request(&ids, &r);
        while (g.n_stops < 3 && cases[i].stops[g.n_stops]) {
            g.stops[g.n_stops] = cases[i].stops[g.n_stops];
            g.n_stops++;
        }
        submit(&g);
        result_wait(&r);
        ck_assert_str_eq(r.text, cases[i].text);
        ck_assert_int_eq(r.last.finish, FINISH_STOP);
        ck_assert_int_eq(r.last.stop, cases[i].met);
        result_free(&r);
    }
    /* One that stays incomplete: everything comes, the last of it with the end. */
    struct result r;
    result_init(&r);
    struct generation g = request(&ids, &r);
    g.stops[0] = "Qwen2.5 model. And more";
    g.n_stops = 1;
    submit(&g);
    result_wait(&r);
    const char *end = "load a Qwen2.5 model.";
    ck_assert_str_eq(r.text + r.length - strlen(end), end);
    ck_assert_uint_ge(r.last.text_length, strlen("Qwen2.5 model."));
    ck_assert_int_eq(r.last.finish, FINISH_STOP);
    ck_assert_int_eq(r.last.stop, -1); /* the model's own end */
    result_free(&r);
    tok_ids_free(&ids);
    stop_engine();
}
END_TEST

START_TEST(lengths)
{
    start_engine((struct engine_options){.n_ctx = 100});
    struct tok_ids ids = chat_prompt("Tell me a story about a cat and a ball.");
    const int room = 100 - (int)ids.count;
    const struct {
        int max_tokens, generated;
    } cases[] = {{1, 1}, {2, 2}, {17, 17}, {room, room}, {room + 1, room}, {INT32_MAX, room}, {0, room}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct result r;
        result_init(&r);
        struct generation g = request(&ids, &r);
        g.max_tokens = cases[i].max_tokens;
        submit(&g);
        result_wait(&r);
        ck_assert_int_eq(r.last.finish, FINISH_LENGTH);
        ck_assert_int_eq(r.last.n_generated, cases[i].generated);
        result_free(&r);
    }
    /* The longest prompt: room for one token. */
    int32_t most[99];
    for (int i = 0; i < 99; i++)
        most[i] = ids.data[i % (int)ids.count];
    struct result r;
    result_init(&r);
    struct generation g = request(&ids, &r);
    g.prompt = most;
    g.n_prompt = 99;
    g.max_tokens = 0;
    g.ignore_eos = true;
    submit(&g);
    result_wait(&r);
    ck_assert_int_eq(r.last.finish, FINISH_LENGTH);
    ck_assert_int_eq(r.last.n_generated, 1);
    result_free(&r);
    tok_ids_free(&ids);
    stop_engine();
}
END_TEST

START_TEST(past_the_end_of_the_turn)
{
    start_engine((struct engine_options){0});
    struct tok_ids ids = chat_prompt("Say OK");
    struct result r;
    result_init(&r);
    struct generation g = request(&ids, &r);
    g.ignore_eos = true;
    g.max_tokens = 40;
    submit(&g);
    result_wait(&r);
    ck_assert_int_eq(r.last.finish, FINISH_LENGTH);
    ck_assert_int_eq(r.last.n_generated, 40);
    ck_assert_int_eq(strncmp(r.text, "OK", 2), 0);
    ck_assert_ptr_null(strstr(r.text, "<|")); /* control tokens are not text */
    result_free(&r);
    tok_ids_free(&ids);
    stop_engine();
}
END_TEST

/* ---- cancelling ---- */

START_TEST(cancel_at_every_stage)
{
    /* One place to run: the first generates, the others wait behind it. */
    start_engine((struct engine_options){.n_parallel = 1, .n_batch = 4});
    struct tok_ids ids = chat_prompt("Tell me a story about a cat and a ball.");
    struct result r[5];
    uint64_t id[5];
    for (int i = 0; i < 5; i++) {
        result_init(&r[i]);
        if (i == 3)
            r[i].cancel_at = 3; /* from its own callback */
        struct generation g = request(&ids, &r[i]);
        g.max_tokens = i == 4 ? 5 : 0;
        g.ignore_eos = true;
        id[i] = submit(&g);
    }
    engine_cancel(engine, id[2]); /* while queued: ends although nothing before it has */
    result_wait(&r[2]);
    ck_assert_int_eq(r[2].last.finish, FINISH_CANCELLED);
    ck_assert(!r[2].started);
    ck_assert_uint_eq(r[2].length, 0);
    ck_assert_int_eq(r[2].last.n_generated, 0);

    result_wait_texts(&r[0], 5); /* while generating */
    engine_cancel(engine, id[0]);
    result_wait(&r[0]);
    ck_assert_int_eq(r[0].last.finish, FINISH_CANCELLED);
    ck_assert_int_ge(r[0].last.n_generated, 5);
    ck_assert_int_lt(r[0].last.n_generated, CTX - (int)ids.count);

    pthread_mutex_lock(&r[1].mutex); /* as soon as it has started: most likely in prefill, its prompt is many batches long */
    while (!r[1].started)
        pthread_cond_wait(&r[1].changed, &r[1].mutex);
    pthread_mutex_unlock(&r[1].mutex);
    engine_cancel(engine, id[1]);
    result_wait(&r[1]);
    ck_assert_int_eq(r[1].last.finish, FINISH_CANCELLED);

    result_wait(&r[3]);
    ck_assert_int_eq(r[3].last.finish, FINISH_CANCELLED);
    ck_assert_int_eq(r[3].n_texts, 3);

    engine_cancel(engine, id[3]); /* finished, unknown: nothing happens */
    engine_cancel(engine, 0);
    engine_cancel(engine, 123456);
    result_wait(&r[4]); /* and who comes after is not harmed */
    ck_assert_int_eq(r[4].last.finish, FINISH_LENGTH);
    ck_assert_int_eq(r[4].last.n_generated, 5);
    for (int i = 0; i < 5; i++)
        result_free(&r[i]);
    tok_ids_free(&ids);
    stop_engine();
}
END_TEST

START_TEST(cancel_before_it_runs)
{
    open_engine((struct engine_options){0}); /* nobody computes yet, so these are surely waiting */
    struct tok_ids ids = chat_prompt("Hello");
    struct result r[3];
    uint64_t id[3];
    for (int i = 0; i < 3; i++) {
        result_init(&r[i]);
        struct generation g = request(&ids, &r[i]);
        id[i] = submit(&g);
    }
    engine_cancel(engine, id[0]); /* the first, and the last, of the queue */
    engine_cancel(engine, id[2]);
    run_engine();
    for (int i = 0; i < 3; i++) {
        result_wait(&r[i]);
        ck_assert_int_eq(r[i].last.finish, i == 1 ? FINISH_STOP : FINISH_CANCELLED);
        result_free(&r[i]);
    }
    tok_ids_free(&ids);
    stop_engine();
}
END_TEST

START_TEST(stop_ends_everything)
{
    for (int early = 0; early < 2; early++) {
        if (early)
            open_engine((struct engine_options){.n_parallel = 2});
        else
            start_engine((struct engine_options){.n_parallel = 2});
        struct tok_ids ids = chat_prompt("Tell me a story about a dog.");
        struct result r[6];
        for (int i = 0; i < 6; i++) {
            result_init(&r[i]);
            struct generation g = request(&ids, &r[i]);
            g.max_tokens = 200;
            g.ignore_eos = true;
            submit(&g);
        }
        if (!early)
            result_wait_texts(&r[0], 3);
        engine_stop(engine);
        struct generation g = request(&ids, &r[0]);
        struct error err = {""};
        uint64_t id;
        ck_assert_int_eq(engine_submit(engine, &g, &id, &err), SUBMIT_STOPPED);
        ck_assert_str_ne(err.text, "");
        if (early)
            engine_run(engine); /* returns at once, having told everybody */
        else
            join_engine();
        for (int i = 0; i < 6; i++) {
            ck_assert(r[i].done);
            ck_assert_int_eq(r[i].wrong, 0);
            ck_assert_int_eq(r[i].last.finish, FINISH_CANCELLED);
            result_free(&r[i]);
        }
        engine_close(engine);
        tok_ids_free(&ids);
    }
}
END_TEST

/* ---- what is refused ---- */

static void refused(struct generation g, enum submit_result wanted, const char *part)
{
    struct error err = {""};
    uint64_t id = 77;
    ck_assert_int_eq(engine_submit(engine, &g, &id, &err), wanted);
    ck_assert_msg(strstr(err.text, part) != NULL, "\"%s\" does not say \"%s\"", err.text, part);
    ck_assert_int_eq(engine_submit(engine, &g, &id, NULL), wanted);
    ck_assert_uint_eq(id, 77);
}

START_TEST(invalid_generations)
{
    open_engine((struct engine_options){.n_ctx = 64});
    struct result r;
    result_init(&r);
    int32_t prompt[64] = {0};
    const struct tok_ids ids = {.data = prompt, .count = 10};
    const struct generation good = request(&ids, &r);
    struct generation g = good;
    g.n_prompt = 64;
    refused(g, SUBMIT_INVALID, "64 tokens");
    g.n_prompt = 0;
    refused(g, SUBMIT_INVALID, "empty");
    g.n_prompt = -1;
    refused(g, SUBMIT_INVALID, "empty");
    g = good;
    g.max_tokens = -1;
    refused(g, SUBMIT_INVALID, "max_tokens");
    g = good;
    g.sampling.temperature = -0.1f;
    refused(g, SUBMIT_INVALID, "temperature");
    g.sampling.temperature = NAN;
    refused(g, SUBMIT_INVALID, "temperature");
    g = good;
    g.sampling.top_p = 1.1f;
    refused(g, SUBMIT_INVALID, "top_p");
    g = good;
    g.sampling.min_p = -1;
    refused(g, SUBMIT_INVALID, "min_p");
    g = good;
    g.sampling.top_k = -1;
    refused(g, SUBMIT_INVALID, "top_k");
    g = good;
    g.n_stops = ENGINE_MAX_STOPS + 1;
    refused(g, SUBMIT_INVALID, "stop");
    g.n_stops = 2;
    g.stops[0] = "fine";
    g.stops[1] = "";
    refused(g, SUBMIT_INVALID, "stop string 1 is empty");
    g.stops[1] = "half a character \xc3";
    refused(g, SUBMIT_INVALID, "UTF-8");
    g.stops[1] = "\x80";
    refused(g, SUBMIT_INVALID, "UTF-8");
    g = good;
    g.callback = NULL;
    refused(g, SUBMIT_INVALID, "callback");
    g = good;
    prompt[9] = engine_info(engine)->n_vocab;
    refused(g, SUBMIT_INVALID, "token 9");
    prompt[9] = -1;
    refused(g, SUBMIT_INVALID, "token 9");
    prompt[9] = 0;
    submit(&good);
    ck_assert(!r.done);
    engine_close(engine); /* never run */
    result_free(&r);
}
END_TEST

START_TEST(a_full_queue)
{
    open_engine((struct engine_options){.max_queue = 3});
    struct tok_ids ids = chat_prompt("Say OK");
    struct result r[4];
    for (int i = 0; i < 3; i++) {
        result_init(&r[i]);
        struct generation g = request(&ids, &r[i]);
        submit(&g);
    }
    result_init(&r[3]);
    refused(request(&ids, &r[3]), SUBMIT_FULL, "3 generations are waiting");
    run_engine();
    for (int i = 0; i < 3; i++) {
        result_wait(&r[i]);
        ck_assert_str_eq(r[i].text, "OK");
    }
    struct generation g = request(&ids, &r[3]); /* there is room again */
    submit(&g);
    result_wait(&r[3]);
    ck_assert_str_eq(r[3].text, "OK");
    for (int i = 0; i < 4; i++)
        result_free(&r[i]);
    tok_ids_free(&ids);
    stop_engine();
}
END_TEST

START_TEST(options_that_cannot_be)
{
    struct error err;
    static const struct {
        struct engine_options options;
        const char *part;
    } cases[] = {
        {{.model_path = "models/nonexistent.gguf"}, "nonexistent"}, {{.model_path = "models/quern-tiny.md"}, "quern-tiny.md"},
        {{.model_path = model_path, .n_ctx = 1025}, "1024"},        {{.model_path = model_path, .n_ctx = 1}, "context"},
        {{.model_path = model_path, .n_ctx = -5}, "context"},       {{.model_path = model_path, .n_threads = -1}, "threads"},
        {{.model_path = model_path, .n_batch = -1}, "batch"},       {{.model_path = model_path, .n_parallel = -1}, "parallel"},
        {{.model_path = model_path, .max_queue = -1}, "queue"},     {{.model_path = model_path, .n_draft = 16}, "guessed"},
        {{.model_path = model_path, .n_ctx = 100, .n_kv = 99}, "KV cache"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        err.text[0] = 0;
        ck_assert_ptr_null(engine_open(&cases[i].options, &err));
        ck_assert_msg(strstr(err.text, cases[i].part) != NULL, "\"%s\" does not say \"%s\"", err.text, cases[i].part);
        ck_assert_ptr_null(engine_open(&cases[i].options, NULL));
    }
    engine_close(NULL);
}
END_TEST

/* ---- the whole ---- */

START_TEST(info)
{
    open_engine((struct engine_options){.n_ctx = 1024, .n_threads = 2, .no_mmap = true});
    const struct engine_info *i = engine_info(engine);
    ck_assert_str_eq(i->architecture, "qwen2");
    ck_assert_str_eq(i->name, "quern-tiny");
    ck_assert_int_eq(i->n_threads, 2);
    ck_assert_int_eq(i->n_ctx, 1024);
    ck_assert_int_eq(i->n_ctx_train, 1024);
    ck_assert_int_eq(i->n_layers, 8);
    ck_assert_int_eq(i->n_embd, 256);
    ck_assert_int_eq(i->n_vocab, 8192);
    ck_assert_uint_eq(i->kv_bytes, 1024u * 8 * 2 * 2 * 64 * 2);
    ck_assert(i->n_params > 8000000 && i->n_params < 9000000);
    ck_assert(i->model_bytes > 5000000 && i->model_bytes < 5795840);
    ck_assert_double_gt(i->load_seconds, 0);
    ck_assert_ptr_nonnull(i->kernel_level);
    engine_close(engine);
    open_engine((struct engine_options){.n_ctx = 0});
    engine_close(engine);
}
END_TEST

START_TEST(idle_uses_no_cpu)
{
    start_engine((struct engine_options){.n_threads = 4});
    struct tok_ids ids = chat_prompt("Say OK");
    struct result r;
    result_init(&r);
    struct generation g = request(&ids, &r);
    submit(&g);
    result_wait(&r);
    usleep(50 * 1000);
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    usleep(300 * 1000);
    getrusage(RUSAGE_SELF, &after);
    double used =
        (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_stime.tv_sec) +
        1e-6 * (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_stime.tv_usec);
    ck_assert_msg(used < 0.03, "an idle engine used %.3f s of CPU in 0.3 s", used);
    result_free(&r);
    tok_ids_free(&ids);
    stop_engine();
}
END_TEST

struct client {
    pthread_t thread;
    unsigned seed;
    const struct tok_ids *prompts;
};

static void *client_main(void *arg)
{
    struct client *c = arg;
    for (int i = 0; i < 40; i++) {
        struct result r;
        result_init(&r);
        struct generation g = request(&c->prompts[rand_r(&c->seed) % N_QUESTIONS], &r);
        g.max_tokens = 1 + rand_r(&c->seed) % 30;
        vary(&g, rand_r(&c->seed) % 3);
        bool cancel = rand_r(&c->seed) % 3 == 0;
        uint64_t id = submit(&g);
        if (cancel) {
            usleep((useconds_t)(rand_r(&c->seed) % 20000));
            engine_cancel(engine, id);
        }
        result_wait(&r);
        ck_assert(r.last.finish != FINISH_ERROR);
        ck_assert(cancel || r.last.finish != FINISH_CANCELLED);
        result_free(&r);
    }
    return NULL;
}

START_TEST(many_clients)
{
    /* Submitting and cancelling from several threads at random: everybody gets exactly one
     * end, and the engine is whole afterwards. */
    start_engine((struct engine_options){.n_parallel = 3, .n_batch = 16});
    struct tok_ids prompts[N_QUESTIONS];
    for (int i = 0; i < N_QUESTIONS; i++)
        prompts[i] = chat_prompt(questions[i]);
    struct client clients[6];
    for (unsigned i = 0; i < 6; i++) {
        clients[i] = (struct client){.seed = i + 1, .prompts = prompts};
        ck_assert_int_eq(pthread_create(&clients[i].thread, NULL, client_main, &clients[i]), 0);
    }
    for (int i = 0; i < 6; i++)
        pthread_join(clients[i].thread, NULL);
    struct result r;
    result_init(&r);
    struct generation g = request(&prompts[6], &r);
    g.max_tokens = 0; /* needs the whole KV cache: no block was lost */
    submit(&g);
    result_wait(&r);
    ck_assert_str_eq(r.text, "OK");
    result_free(&r);
    for (int i = 0; i < N_QUESTIONS; i++)
        tok_ids_free(&prompts[i]);
    stop_engine();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("engine");
    TCase *c = tcase_create("engine");
    tcase_set_timeout(c, 240);
    tcase_add_loop_test(c, greedy_answers, 1, 4);
    tcase_add_test(c, a_story);
    tcase_add_test(c, together_as_alone);
    tcase_add_test(c, a_short_prompt_beside_long_ones);
    tcase_add_test(c, answers_outgrow_the_cache);
    tcase_add_test(c, seeds);
    tcase_add_test(c, stop_strings);
    tcase_add_test(c, lengths);
    tcase_add_test(c, past_the_end_of_the_turn);
    tcase_add_test(c, cancel_at_every_stage);
    tcase_add_test(c, cancel_before_it_runs);
    tcase_add_test(c, stop_ends_everything);
    tcase_add_test(c, invalid_generations);
    tcase_add_test(c, a_full_queue);
    tcase_add_test(c, options_that_cannot_be);
    tcase_add_test(c, info);
    tcase_add_test(c, idle_uses_no_cpu);
    tcase_add_test(c, many_clients);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
