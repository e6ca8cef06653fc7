/* engine/constraint against brute force, and generations held to a grammar from end to end on the shipped
 * model. Runs in the project's root folder. */
#include "engine/constraint.h"
#include "engine/engine.h"
#include "engine/matcher.h"
#include "server/schema/schema.h"
#include "tests/tok_fixture.h"

#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct grammar *compile(const char *schema)
{
    struct schema_error err = {.text = ""};
    struct json *j = json_parse(schema, strlen(schema), NULL, NULL);
    ck_assert_ptr_nonnull(j);
    struct grammar *g = schema_compile(json_root(j), &err);
    ck_assert_msg(g != NULL, "%s", err.text);
    json_free(j);
    return g;
}

static const char order[] = "{\"type\":\"object\",\"properties\":{\"customer name\":{\"type\":\"string\",\"maxLength\":40},"
    "\"state\":{\"enum\":[\"new\",\"newer\",\"old \\\"one\\\"\"]},"
    "\"items\":{\"type\":\"array\",\"maxItems\":3,\"items\":{\"anyOf\":[{\"type\":\"integer\",\"minimum\":-9,\"maximum\":120},"
    "{\"type\":\"null\"},{\"type\":\"string\",\"pattern\":\"^[a-f\xC3\xA9\xE4\xB8\xAD]{1,4}$\"}]}},"
    "\"free\":{}},\"required\":[\"customer name\",\"state\",\"items\"],\"additionalProperties\":{\"type\":\"boolean\"}}";

/* ---- masks ---- */

/* What each token's bytes say, one by one. */
static void check_mask(
    struct constraint *c, const struct trie *trie, const bool *silent, const struct grammar *g, const char *text, size_t length)
{
    struct matcher *m = matcher_new(g, 1000);
    const struct tokenizer *t = trie->tokenizer;
    matcher_state s = matcher_start(m);
    for (size_t i = 0; i < length; i++)
        s = matcher_step(m, s, (uint8_t)text[i]);
    const uint32_t *mask = constraint_mask(c);
    ck_assert_ptr_nonnull(mask);
    for (int id = 0; id < trie->n_vocab; id++) {
        struct gguf_string b = tok_bytes(t, id);
        matcher_state to = s;
        for (size_t i = 0; i < b.length && to != MATCHER_DEAD; i++)
            to = matcher_step(m, to, (uint8_t)b.data[i]);
        bool expected = tok_is_end(t, id) ? matcher_may_end(m, s) : !silent[id] && b.length > 0 && to != MATCHER_DEAD;
        ck_assert_msg(expected == (mask[id / 32] >> id % 32 & 1), "behind \"%.*s\": token %d \"%.*s\": %d expected", (int)length,
            text, id, (int)b.length, b.data, expected);
    }
    ck_assert_int_eq(constraint_may_end(c), matcher_may_end(m, s));
    matcher_free(m);
}

/* Every token's mask along a random text; forced tokens are the only ones. */
static void walk(const struct trie *trie, const bool *silent, const struct grammar *g, uint64_t seed, int most, int check_every)
{
    struct random random = {seed};
    struct constraint *c = constraint_new(trie, g);
    char text[20000];
    size_t length = 0;
    int n;
    for (n = 0; n < most && !constraint_must_end(c); n++) {
        const uint32_t *mask = constraint_mask(c);
        struct tok_ids forced = {0};
        if (n % check_every == 0)
            check_mask(c, trie, silent, g, text, length);
        constraint_forced(c, 24, &forced);
        int32_t token = forced.count > 0 ? forced.data[0] : (int32_t)random_below(&random, (uint32_t)trie->n_vocab);
        tok_ids_free(&forced);
        while (!(mask[token / 32] >> token % 32 & 1) || tok_is_end(trie->tokenizer, token)) /* the next that is allowed */
            token = token + 1 == trie->n_vocab ? 0 : token + 1;
        ck_assert(constraint_accept(c, token));
        struct gguf_string b = tok_bytes(trie->tokenizer, token);
        if (length + b.length > sizeof text)
            break;
        memcpy(text + length, b.data, b.length);
        length += b.length;
    }
    if (constraint_must_end(c)) {
        check_mask(c, trie, silent, g, text, length);
        struct json_error problem;
        struct json *j = json_parse(text, length, NULL, &problem);
        ck_assert_msg(j != NULL || strstr(problem.text, "stands twice"), "%.*s", (int)length, text);
        json_free(j);
    }
    constraint_free(c);
}

static bool *silent_tokens(const struct tokenizer *t, int n_vocab)
{
    bool *silent = calloc((size_t)n_vocab, sizeof *silent);
    for (int i = 0; i < n_vocab; i++) {
        struct gguf_string b = tok_bytes(t, i);
        silent[i] = tok_is_end(t, i) ||
                    (b.length > 4 && memcmp(b.data, "<|", 2) == 0 && memcmp(b.data + b.length - 2, "|>", 2) == 0) ||
                    (b.length > 4 && memcmp(b.data, "[PAD", 4) == 0);
    }
    return silent;
}

START_TEST(masks_are_exact)
{
    struct tokenizer *t = fixture_tiny();
    int n_vocab = tok_n_vocab(t) + 5; /* logits that no token has */
    bool *silent = silent_tokens(t, n_vocab);
    struct trie *trie = trie_new(t, n_vocab, silent);
    static const char *const schemas[] = {order, "true", "{\"type\":\"string\",\"minLength\":5,\"maxLength\":300}",
        "{\"type\":\"array\",\"items\":{\"$ref\":\"#\"},\"maxItems\":400}", "{\"type\":\"string\",\"format\":\"uri\"}",
        "{\"type\":\"array\",\"items\":{\"const\":\"ab\"},\"minItems\":100,\"maxItems\":101}"};
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        struct grammar *g = compile(schemas[i]);
        for (uint64_t seed = 1; seed <= 4; seed++)
            walk(trie, silent, g, seed, 150, 3);
        grammar_free(g);
    }
    trie_free(trie);
    free(silent);
    tok_free(t);
}
END_TEST

START_TEST(masks_are_exact_with_the_whole_vocabulary)
{
    struct tokenizer *t = fixture_qwen();
    int n_vocab = tok_n_vocab(t);
    bool *silent = silent_tokens(t, n_vocab);
    struct trie *trie = trie_new(t, n_vocab, silent);
    struct grammar *g = compile(order);
    for (uint64_t seed = 1; seed <= 3; seed++)
        walk(trie, silent, g, seed, 60, 6);
    grammar_free(g);
    /* <tool_call> is a token and a text; control tokens never come. */
    const struct schema_tool tool = {"f", NULL};
    struct schema_error err;
    struct schema_answer a = {.tools = &tool, .n_tools = 1, .content = SCHEMA_CONTENT_TEXT};
    g = schema_answer(&a, &err);
    ck_assert_ptr_nonnull(g);
    struct constraint *c = constraint_new(trie, g);
    check_mask(c, trie, silent, g, "", 0);
    int32_t call = tok_special(t, "<tool_call>"), start = tok_special(t, "<|im_start|>");
    const uint32_t *mask = constraint_mask(c);
    ck_assert(mask[call / 32] >> call % 32 & 1);
    ck_assert(!(mask[start / 32] >> start % 32 & 1));
    ck_assert(!constraint_accept(c, start));
    ck_assert(constraint_accept(c, call));
    struct tok_ids forced = {0};
    constraint_forced(c, 24, &forced);
    ck_assert_uint_gt(forced.count, 5);
    size_t length;
    char *text = fixture_decode(t, &forced, &length);
    static const char whole[] = "\n{\"name\": \"f\", \"arguments\": {";
    ck_assert(length < sizeof whole && memcmp(text, whole, length) == 0);
    for (size_t i = 0; i < forced.count; i++)
        ck_assert(constraint_accept(c, forced.data[i]));
    free(text);
    tok_ids_free(&forced);
    constraint_free(c);
    grammar_free(g);
    trie_free(trie);
    free(silent);
    tok_free(t);
}
END_TEST

/* ---- generations ---- */

struct result {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    char text[8192];
    size_t length;
    int n_generated, n_choices;
    enum finish_reason finish;
    bool done;
};

static void note(void *user, const struct engine_event *e)
{
    struct result *r = user;
    pthread_mutex_lock(&r->mutex);
    ck_assert_uint_lt(r->length + e->text_length, sizeof r->text);
    memcpy(r->text + r->length, e->text, e->text_length);
    r->length += e->text_length;
    r->n_choices += e->n_choices;
    if (e->kind == EVENT_DONE) {
        r->n_generated = e->n_generated;
        r->finish = e->finish;
        r->done = true;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->mutex);
}

static void *engine_main(void *e)
{
    engine_run(e);
    return NULL;
}

static void generate(struct engine *e, const struct generation *like, struct result *r)
{
    static const char prompt[] = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    struct tok_ids ids = {0};
    struct error err;
    uint64_t id;
    *r = (struct result){.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    ck_assert(tok_encode(engine_tokenizer(e), prompt, sizeof prompt - 1, true, &ids, &err));
    struct generation g = *like;
    g.prompt = ids.data;
    g.n_prompt = (int)ids.count;
    g.callback = note;
    g.user = r;
    ck_assert_int_eq(engine_submit(e, &g, &id, &err), SUBMIT_OK);
    pthread_mutex_lock(&r->mutex);
    while (!r->done)
        pthread_cond_wait(&r->changed, &r->mutex);
    pthread_mutex_unlock(&r->mutex);
    tok_ids_free(&ids);
}

static bool matches(const struct grammar *g, const struct result *r)
{
    struct matcher *m = matcher_new(g, 64);
    matcher_state s = matcher_start(m);
    for (size_t i = 0; i < r->length && s != MATCHER_DEAD; i++)
        s = matcher_step(m, s, (uint8_t)r->text[i]);
    bool may_end = matcher_may_end(m, s), alive = s != MATCHER_DEAD;
    matcher_free(m);
    return r->finish == FINISH_STOP ? may_end : alive;
}

START_TEST(generations_match_their_grammar)
{
    struct error err = {""};
    struct engine *e =
        engine_open(&(struct engine_options){.model_path = "models/quern-tiny-q4_k_m.gguf", .n_threads = 1, .n_ctx = 512}, &err);
    ck_assert_msg(e != NULL, "%s", err.text);
    pthread_t thread;
    pthread_create(&thread, NULL, engine_main, e);
    struct grammar *g = compile(order);
    struct result r;
    int stopped = 0;
    static const struct {
        float temperature;
        int top_k;
        float top_p, min_p;
    } settings[] = {{1.5F, 0, 1, 0}, {0, 0, 1, 0}, {1.5F, 40, 1, 0}, {1, 0, 0.9F, 0}, {2, 0, 1, 0.05F}, {1, 1, 1, 0}};
    for (size_t i = 0; i < 24; i++) {
        struct generation like = {.max_tokens = 200, .sampling = sampling_default(), .grammar = g};
        like.sampling.temperature = settings[i % 6].temperature;
        like.sampling.top_k = settings[i % 6].top_k;
        like.sampling.top_p = settings[i % 6].top_p;
        like.sampling.min_p = settings[i % 6].min_p;
        like.sampling.seed = 100 + i;
        generate(e, &like, &r);
        ck_assert_msg(matches(g, &r), "%.*s", (int)r.length, r.text);
        stopped += r.finish == FINISH_STOP;
        ck_assert(r.finish == FINISH_STOP || (r.finish == FINISH_LENGTH && r.n_generated == 200));
        if (r.finish == FINISH_STOP) {
            struct json *j = json_parse(r.text, r.length, NULL, NULL);
            ck_assert_ptr_nonnull(json_get(json_root(j), "customer name"));
            json_free(j);
        }
        char first[sizeof r.text];
        size_t length = r.length;
        memcpy(first, r.text, length);
        generate(e, &like, &r); /* the same again */
        ck_assert(r.length == length && memcmp(first, r.text, length) == 0);
    }
    ck_assert_int_gt(stopped, 12);
    grammar_free(g);

    /* What is certain is not sampled one by one: far fewer batches than tokens.
     * With logprobs every token is sampled, and the text is as valid. */
    g = compile("{\"const\":{\"a long name that is certain to come\":\"and a value that is as certain as the name before it\","
        "\"x\":[1,2,3,4,5,6,7,8,9]}}");
    struct engine_stats before, after;
    struct generation like = {.max_tokens = 300, .sampling = sampling_default(), .grammar = g};
    engine_get_stats(e, &before);
    generate(e, &like, &r);
    engine_get_stats(e, &after);
    ck_assert_int_eq(r.finish, FINISH_STOP);
    ck_assert(matches(g, &r));
    ck_assert_uint_lt(3 * (after.n_batches - before.n_batches), (uint64_t)r.n_generated);
    like.logprobs = true;
    generate(e, &like, &r);
    ck_assert_int_eq(r.finish, FINISH_STOP);
    ck_assert(matches(g, &r));
    ck_assert_int_eq(r.n_choices, r.n_generated);
    /* The limit holds in the middle of forced text too. */
    like = (struct generation){.max_tokens = 7, .sampling = sampling_default(), .grammar = g};
    generate(e, &like, &r);
    ck_assert_int_eq(r.finish, FINISH_LENGTH);
    ck_assert_int_eq(r.n_generated, 7);
    ck_assert(matches(g, &r));
    /* And a stop string cuts it. */
    like = (struct generation){.sampling = sampling_default(), .grammar = g, .stops = {"certain"}, .n_stops = 1};
    generate(e, &like, &r);
    ck_assert_int_eq(r.finish, FINISH_STOP);
    ck_assert_ptr_null(strstr(r.text, "certain"));
    grammar_free(g);
    engine_stop(e);
    pthread_join(thread, NULL);
    engine_close(e);
}
END_TEST

/* Where a bias has made every allowed token impossible, one is taken all the same. */
START_TEST(nothing_overrules_the_grammar)
{
    struct tokenizer *t = fixture_tiny();
    int n_vocab = tok_n_vocab(t);
    bool *silent = silent_tokens(t, n_vocab);
    struct trie *trie = trie_new(t, n_vocab, silent);
    struct grammar *g = compile("{\"type\":\"boolean\"}");
    struct constraint *c = constraint_new(trie, g);
    float *logits = malloc((size_t)n_vocab * sizeof *logits), *out = malloc((size_t)n_vocab * sizeof *out);
    int allowed = 0;
    for (int i = 0; i < n_vocab; i++)
        logits[i] = (float)i;
    ck_assert(constraint_apply(c, logits, out));
    for (int i = 0; i < n_vocab; i++) {
        ck_assert(out[i] == (float)i || isinf(out[i]));
        ck_assert(logits[i] == (float)i);
        allowed += out[i] == (float)i;
    }
    ck_assert_int_ge(allowed, 2);
    ck_assert_int_lt(allowed, 20);
    ck_assert(!constraint_accept(c, tok_eos(t)));
    ck_assert(!constraint_accept(c, n_vocab + 7));
    ck_assert(!constraint_accept(c, -1));
    free(logits);
    free(out);
    constraint_free(c);
    grammar_free(g);
    trie_free(trie);
    free(silent);
    tok_free(t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("constraint");
    TCase *c = tcase_create("constraint");
    tcase_set_timeout(c, 240);
    tcase_add_test(c, masks_are_exact);
    tcase_add_test(c, masks_are_exact_with_the_whole_vocabulary);
    tcase_add_test(c, generations_match_their_grammar);
    tcase_add_test(c, nothing_overrules_the_grammar);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_VERBOSE);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
