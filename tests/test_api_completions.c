/* POST /v1/completions. QUERN_SERVER names the program; run in the project's root. */
#include "tests/api_fixture.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH "/v1/completions"
#define ONCE "\"prompt\":\"Once upon a time\",\"temperature\":0"

static struct server server;

static void start(void)
{
    server = server_start((const char *const[]){"--alias", "tiny", NULL}, NULL);
}

static void stop(void)
{
    ck_assert_int_eq(server_end(&server, SIGTERM), 0);
}

static struct json *complete(const char *body)
{
    return api_post(server.port, PATH, body);
}

START_TEST(continues_a_text)
{
    struct json *j = complete("{" ONCE ",\"max_tokens\":8}"), *k = complete("{" ONCE "}");
    ck_assert_str_eq(text_at(j, "object"), "text_completion");
    ck_assert(strncmp(text_at(j, "id"), "cmpl-", 5) == 0);
    ck_assert_str_eq(text_at(j, "model"), "tiny");
    ck_assert_str_eq(text_at(j, "choices.0.text"), ", there was a little boy named");
    ck_assert_str_eq(text_at(j, "choices.0.finish_reason"), "length");
    ck_assert_int_eq(value_at(j, "choices.0.logprobs")->kind, JSON_NULL);
    ck_assert_int_eq(int_at(j, "usage.completion_tokens"), 8);
    ck_assert_int_eq(int_at(k, "usage.completion_tokens"), 16); /* OpenAI's default */
    ck_assert(strncmp(text_at(k, "choices.0.text"), text_at(j, "choices.0.text"), 30) == 0);
    json_free(j);
    json_free(k);
    j = complete("{" ONCE ",\"max_tokens\":20,\"stop\":[\" boy\"],\"echo\":true}");
    ck_assert_str_eq(text_at(j, "choices.0.text"), "Once upon a time, there was a little");
    ck_assert_str_eq(text_at(j, "choices.0.finish_reason"), "stop");
    json_free(j);
}
END_TEST

/* A string, its tokens, and arrays of them are the same prompt. Control tokens in a string are control tokens. */
START_TEST(ways_to_give_a_prompt)
{
    struct json *tokens = api_post(server.port, "/tokenize", "{\"content\":\"Once upon a time\"}");
    struct json_writer ids = {0};
    json_value(&ids, value_at(tokens, "tokens"));
    char body[1024];
    snprintf(body, sizeof body, "{\"prompt\":[\"Once upon a time\",%s],\"temperature\":0,\"max_tokens\":8}", ids.data);
    struct json *both = complete(body);
    snprintf(body, sizeof body, "{\"prompt\":%s,\"temperature\":0,\"max_tokens\":8}", ids.data);
    struct json *one = complete(body);
    ck_assert_uint_eq(value_at(both, "choices")->count, 2);
    ck_assert_str_eq(text_at(both, "choices.0.text"), ", there was a little boy named");
    ck_assert_str_eq(text_at(both, "choices.1.text"), ", there was a little boy named");
    ck_assert_int_eq(int_at(both, "choices.1.index"), 1);
    ck_assert_str_eq(text_at(one, "choices.0.text"), ", there was a little boy named");
    ck_assert_int_eq(int_at(both, "usage.prompt_tokens"), 2 * int_at(one, "usage.prompt_tokens"));
    json_writer_free(&ids);
    json_free(tokens);
    json_free(both);
    json_free(one);
    struct json *chat = complete("{\"prompt\":\"<|im_start|>system\\n"
                                 "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n"
                                 "<|im_start|>user\\nSay OK<|im_end|>\\n<|im_start|>assistant\\n\",\"temperature\":0}");
    ck_assert_str_eq(text_at(chat, "choices.0.text"), "OK");
    ck_assert_str_eq(text_at(chat, "choices.0.finish_reason"), "stop");
    json_free(chat);
}
END_TEST

START_TEST(prompts_times_n)
{
    struct json *j =
        complete("{\"prompt\":[\"The dog\",\"The cat\"],\"n\":2,\"seed\":4,\"temperature\":1.5,\"max_tokens\":6,\"echo\":true}");
    ck_assert_uint_eq(value_at(j, "choices")->count, 4);
    for (int i = 0; i < 4; i++)
        ck_assert(strncmp(value_at(j, "choices.%d.text", i)->text, i < 2 ? "The dog" : "The cat", 7) == 0);
    ck_assert_str_ne(text_at(j, "choices.0.text"), text_at(j, "choices.1.text"));
    ck_assert_str_ne(text_at(j, "choices.2.text"), text_at(j, "choices.3.text"));
    json_free(j);
}
END_TEST

START_TEST(streams)
{
    static const char body[] =
        "{\"prompt\":[\"The dog\",\"The cat\"],\"n\":2,\"seed\":4,\"temperature\":1.5,\"max_tokens\":6,\"echo\":true%s}";
    char plain[256], streamed[320], texts[4][512] = {"", "", "", ""};
    snprintf(plain, sizeof plain, body, "");
    snprintf(streamed, sizeof streamed, body, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    struct json *whole = complete(plain);
    struct event_list l = api_stream(server.port, PATH, streamed);
    int n_finished = 0;
    for (int i = 0; i < l.n - 1; i++) {
        int64_t index = int_at(l.events[i], "choices.0.index");
        ck_assert(index >= 0 && index < 4);
        ck_assert_str_eq(text_at(l.events[i], "object"), "text_completion");
        strcat(texts[index], text_at(l.events[i], "choices.0.text"));
        n_finished += value_at(l.events[i], "choices.0.finish_reason")->kind == JSON_STRING;
    }
    ck_assert_int_eq(n_finished, 4);
    for (int i = 0; i < 4; i++)
        ck_assert_str_eq(texts[i], value_at(whole, "choices.%d.text", i)->text);
    ck_assert_int_eq(int_at(l.events[l.n - 1], "usage.total_tokens"), int_at(whole, "usage.total_tokens"));
    event_list_free(&l);
    json_free(whole);
}
END_TEST

START_TEST(logprobs)
{
    struct json *j = complete("{" ONCE ",\"max_tokens\":8,\"logprobs\":2}");
    int64_t n = int_at(j, "usage.completion_tokens"), offset = 0;
    ck_assert_uint_eq(value_at(j, "choices.0.logprobs.tokens")->count, (size_t)n);
    char text[512] = "";
    for (int i = 0; i < n; i++) {
        double own, best;
        const struct json_value *token = value_at(j, "choices.0.logprobs.tokens.%d", i),
                                *top = value_at(j, "choices.0.logprobs.top_logprobs.%d", i);
        int64_t at;
        ck_assert(json_get_int(value_at(j, "choices.0.logprobs.text_offset.%d", i), &at) && at == offset);
        offset += token->count;
        strcat(text, token->text);
        ck_assert_uint_eq(top->count, 2); /* greedy: the token itself is one of them */
        ck_assert(json_get_double(value_at(j, "choices.0.logprobs.token_logprobs.%d", i), &own) && own < 0);
        ck_assert(json_get_double(json_get(top, token->text), &best) && best == own);
    }
    ck_assert_str_eq(text, text_at(j, "choices.0.text"));
    json_free(j);
    j = complete("{" ONCE ",\"max_tokens\":1,\"logprobs\":0}");
    ck_assert_uint_eq(value_at(j, "choices.0.logprobs.top_logprobs.0")->count, 1); /* the token alone */
    json_free(j);
}
END_TEST

/* A character in several tokens: they are spelt as bytes, and their offset is that of the character. */
START_TEST(logprobs_of_parts_of_characters)
{
    struct json *tokens = api_post(server.port, "/tokenize", "{\"content\":\"\\uD83E\\uDD94\",\"with_pieces\":true}");
    const struct json_value *list = value_at(tokens, "tokens");
    ck_assert_uint_gt(list->count, 1);
    char body[2048], *p = body;
    p += sprintf(p, "{\"prompt\":\"a\",\"temperature\":0,\"max_tokens\":2,\"logprobs\":0,\"logit_bias\":{");
    int64_t first;
    ck_assert(json_get_int(json_get(list->first, "id"), &first));
    sprintf(p, "\"%d\":100}}", (int)first);
    struct json *j = complete(body);
    ck_assert(strncmp(text_at(j, "choices.0.logprobs.tokens.0"), "bytes:\\xF0", 10) == 0);
    ck_assert_int_eq(int_at(j, "choices.0.logprobs.text_offset.0"), 0);
    json_free(tokens);
    json_free(j);
}
END_TEST

static const struct {
    const char *body, *param;
} refused[] = {
    {"{}", "prompt"},
    {"{\"prompt\":null}", "prompt"},
    {"{\"prompt\":\"\"}", "prompt"},
    {"{\"prompt\":[]}", "prompt"},
    {"{\"prompt\":[\"a\",\"\"]}", "prompt[1]"},
    {"{\"prompt\":[\"a\",5]}", "prompt[1]"},
    {"{\"prompt\":[[]]}", "prompt[0]"},
    {"{\"prompt\":7}", "prompt"},
    {"{\"prompt\":[1,8192]}", "prompt"},
    {"{\"prompt\":[1,-1]}", "prompt"},
    {"{\"prompt\":[1,1.5]}", "prompt"},
    {"{\"prompt\":[[1,\"a\"]]}", "prompt[0]"},
    {"{\"prompt\":\"a\",\"max_tokens\":0}", "max_tokens"},
    {"{\"prompt\":\"a\",\"echo\":1}", "echo"},
    {"{\"prompt\":\"a\",\"suffix\":\"b\"}", "suffix"},
    {"{\"prompt\":\"a\",\"best_of\":2}", "best_of"},
    {"{\"prompt\":\"a\",\"logprobs\":21}", "logprobs"},
    {"{\"prompt\":\"a\",\"logprobs\":true}", "logprobs"},
    {"{\"prompt\":\"a\",\"logprobs\":1,\"echo\":true}", "logprobs"},
    {"{\"prompt\":\"a\",\"messages\":[]}", "messages"},
    {"{\"prompt\":\"a\",\"stream_options\":{\"include_usage\":true}}", "stream_options"},
    {"{\"prompt\":[\"a\",\"b\",\"c\"],\"n\":32}", "n"},
};

START_TEST(refuses)
{
    api_refused(server.port, PATH, refused[_i].body, refused[_i].param);
}
END_TEST

START_TEST(accepts_what_changes_nothing)
{
    json_free(complete("{\"prompt\":\"a\",\"max_tokens\":1,\"suffix\":null,\"best_of\":1,\"user\":\"me\",\"n\":1,\"echo\":null,"
        "\"logprobs\":null,\"model\":\"any\"}"));
    json_free(complete("{\"prompt\":\"a\",\"max_tokens\":null,\"suffix\":\"\",\"best_of\":null}"));
}
END_TEST

START_TEST(context_exceeded)
{
    char *body = malloc(40000), *p = body;
    p += sprintf(p, "{\"prompt\":[\"a\",\"");
    for (int i = 0; i < 3000; i++)
        p += sprintf(p, "word ");
    strcpy(p, "\"]}");
    struct response r = ask(server.port, "POST", PATH, "", body);
    ck_assert_int_eq(r.status, 400);
    struct json *j = response_json(&r);
    ck_assert_str_eq(text_at(j, "error.code"), "context_length_exceeded");
    ck_assert_str_eq(text_at(j, "error.param"), "prompt");
    int n, n_ctx;
    ck_assert_int_eq(
        sscanf(text_at(j, "error.message"), "The prompt has %d tokens, but this model's context holds %d", &n, &n_ctx), 2);
    ck_assert(n > 3000 && n_ctx == 1024);
    json_free(j);
    response_free(&r);
    free(body);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("api completions");
    TCase *t = tcase_create("completions");
    tcase_set_timeout(t, 120);
    tcase_add_unchecked_fixture(t, start, stop);
    tcase_add_test(t, continues_a_text);
    tcase_add_test(t, ways_to_give_a_prompt);
    tcase_add_test(t, prompts_times_n);
    tcase_add_test(t, streams);
    tcase_add_test(t, logprobs);
    tcase_add_test(t, logprobs_of_parts_of_characters);
    tcase_add_loop_test(t, refuses, 0, sizeof refused / sizeof *refused);
    tcase_add_test(t, accepts_what_changes_nothing);
    tcase_add_test(t, context_exceeded);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
