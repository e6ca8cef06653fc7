/* POST /v1/chat/completions: several answers, sampling parameters, log probabilities, tool calls.
 * QUERN_SERVER names the program; run in the project's root. */
#include "tests/api_fixture.h"

#include <check.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GREEDY ",\"temperature\":0"
#define FIND_MESSAGE "{\"role\":\"user\",\"content\":\"Find me a Mexican restaurant in San Jose.\"}"
#define FIND_TOOL "{\"type\":\"function\",\"function\":{\"name\":\"find_restaurants\"," \
                  "\"description\":\"Find restaurants by location and by category\"," \
                  "\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"," \
                  "\"description\":\"City where the restaurant is located\"}," \
                  "\"cuisine\":{\"type\":\"string\",\"description\":\"Type of food served\"}},\"required\":[\"city\"," \
                  "\"cuisine\"]}}}"
#define FIND "\"messages\":[" FIND_MESSAGE "],\"tools\":[" FIND_TOOL "]" GREEDY ",\"max_tokens\":100"

static struct server server;

static void start(void)
{
    server = server_start((const char *const[]){"--alias", "tiny", NULL}, NULL);
}

static void stop(void)
{
    ck_assert_int_eq(server_end(&server, SIGTERM), 0);
}

static struct json *chat(const char *body)
{
    return api_post(server.port, CHAT, body);
}

/* The answer's text; the caller frees. */
static char *answer_to(const char *body)
{
    struct json *j = chat(body);
    char *text = strdup(text_at(j, "choices.0.message.content"));
    json_free(j);
    return text;
}

/* ---- n ---- */

START_TEST(several_choices)
{
    struct json *j = chat("{" STORY ",\"max_tokens\":12,\"temperature\":1.5,\"top_p\":1,\"top_k\":0,\"seed\":11,\"n\":3}");
    char one[512], *again;
    again = answer_to("{" STORY ",\"max_tokens\":12,\"temperature\":1.5,\"top_p\":1,\"top_k\":0,\"seed\":11}");
    ck_assert_uint_eq(value_at(j, "choices")->count, 3);
    for (int i = 0; i < 3; i++) {
        int64_t index;
        ck_assert(json_get_int(value_at(j, "choices.%d.index", i), &index) && index == i);
    }
    ck_assert_str_eq(text_at(j, "choices.0.message.content"), again); /* the first has the seed itself */
    snprintf(one, sizeof one, "%s", text_at(j, "choices.1.message.content"));
    ck_assert_str_ne(one, again);
    ck_assert_str_ne(one, text_at(j, "choices.2.message.content"));
    ck_assert_int_le(int_at(j, "usage.completion_tokens"), 36);
    ck_assert_int_gt(int_at(j, "usage.completion_tokens"), 12);
    ck_assert_int_lt(int_at(j, "usage.prompt_tokens"), 100); /* counted once */
    struct json *k = chat("{" STORY ",\"max_tokens\":12,\"temperature\":1.5,\"top_p\":1,\"top_k\":0,\"seed\":11,\"n\":3}");
    ck_assert_str_eq(text_at(k, "choices.1.message.content"), one); /* derived, not random */
    json_free(j);
    json_free(k);
    free(again);
}
END_TEST

START_TEST(several_choices_streamed)
{
    static const char body[] = "{" STORY ",\"max_tokens\":12,\"temperature\":1.5,\"seed\":11,\"n\":3%s}";
    char plain[512], streamed[512], texts[3][512] = {"", "", ""};
    snprintf(plain, sizeof plain, body, "");
    snprintf(streamed, sizeof streamed, body, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    struct json *whole = chat(plain);
    struct event_list l = api_stream(server.port, CHAT, streamed);
    int finished[3] = {0}, roles[3] = {0};
    for (int i = 0; i < l.n - 1; i++) {
        int64_t index = int_at(l.events[i], "choices.0.index");
        ck_assert(index >= 0 && index < 3 && !finished[index]);
        const struct json_value *text = value_at(l.events[i], "choices.0.delta.content");
        roles[index] += json_is(value_at(l.events[i], "choices.0.delta.role"), "assistant");
        ck_assert_int_eq(roles[index], 1); /* before anything else of it */
        if (text)
            strcat(texts[index], text->text);
        finished[index] = value_at(l.events[i], "choices.0.finish_reason")->kind == JSON_STRING;
        ck_assert_int_eq(value_at(l.events[i], "usage")->kind, JSON_NULL);
    }
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(finished[i], 1);
        ck_assert_str_eq(texts[i], value_at(whole, "choices.%d.message.content", i)->text);
    }
    ck_assert_int_eq(int_at(l.events[l.n - 1], "usage.completion_tokens"), int_at(whole, "usage.completion_tokens"));
    ck_assert_int_eq(int_at(l.events[l.n - 1], "usage.prompt_tokens"), int_at(whole, "usage.prompt_tokens"));
    event_list_free(&l);
    json_free(whole);
}
END_TEST

START_TEST(more_choices_than_may_wait)
{
    struct server small = server_start((const char *const[]){"--queue", "2", NULL}, NULL);
    api_refused(small.port, CHAT, "{" OK_MESSAGE ",\"n\":3}", "n");
    struct json *j = api_post(small.port, CHAT, "{" OK_MESSAGE ",\"n\":2,\"temperature\":0}");
    ck_assert_str_eq(text_at(j, "choices.1.message.content"), "OK");
    json_free(j);
    ck_assert_int_eq(server_end(&small, SIGTERM), 0);
}
END_TEST

/* ---- sampling ---- */

START_TEST(biases_change_the_answer)
{
    struct json *j = api_post(server.port, "/tokenize", "{\"content\":\"OK\"}");
    int id = (int)int_at(j, "tokens.0");
    json_free(j);
    char body[512];
    snprintf(body, sizeof body, "{" OK_MESSAGE GREEDY ",\"max_tokens\":8,\"logit_bias\":{\"%d\":-100}}", id);
    char *text = answer_to(body);
    ck_assert_ptr_null(strstr(text, "OK"));
    free(text);
    snprintf(body, sizeof body, "{" STORY GREEDY ",\"max_tokens\":4,\"logit_bias\":{\"%d\":100}}", id);
    text = answer_to(body);
    ck_assert_str_eq(text, "OKOKOKOK");
    free(text);
    api_refused(server.port, CHAT, "{" OK_MESSAGE ",\"logit_bias\":{\"8192\":1}}", "logit_bias.8192");
    api_refused(server.port, CHAT, "{" OK_MESSAGE ",\"logit_bias\":{\"OK\":1}}", "logit_bias.OK");
    api_refused(server.port, CHAT, "{" OK_MESSAGE ",\"logit_bias\":{\"-1\":1}}", "logit_bias.-1");
}
END_TEST

/* How many different words, of how many, a text has. */
static int count_repeated(const char *text)
{
    char copy[8192], *words[1024], *save = NULL;
    int n = 0, repeated = 0;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *w = strtok_r(copy, " .,!?\n", &save); w && n < 1024; w = strtok_r(NULL, " .,!?\n", &save)) {
        bool seen = false;
        for (int i = 0; i < n; i++)
            seen |= strcmp(words[i], w) == 0;
        repeated += seen;
        words[n++] = w;
    }
    return repeated;
}

START_TEST(penalties_change_the_answer)
{
    static const char *const penalties[] = {
        "\"presence_penalty\":2", "\"frequency_penalty\":2", "\"repetition_penalty\":1.8", "\"repeat_penalty\":1.8"};
    char *plain = answer_to("{" STORY GREEDY ",\"max_tokens\":100}");
    char *texts[4];
    for (int i = 0; i < 4; i++) {
        char body[512];
        snprintf(body, sizeof body, "{" STORY GREEDY ",\"max_tokens\":100,%s}", penalties[i]);
        texts[i] = answer_to(body);
        ck_assert_msg(count_repeated(texts[i]) < count_repeated(plain), "%s: %s", penalties[i], texts[i]);
    }
    ck_assert_str_eq(texts[2], texts[3]); /* two names of one thing */
    ck_assert_str_ne(texts[0], texts[2]);
    for (int i = 0; i < 4; i++)
        free(texts[i]);
    free(plain);
}
END_TEST

/* ---- log probabilities ---- */

/* Adds the bytes of the tokens in a "logprobs" to text; checks each. */
static int gather_tokens(const struct json_value *logprobs, int n_top, char *text)
{
    const struct json_value *content = json_get(logprobs, "content");
    ck_assert(content && content->kind == JSON_ARRAY && json_get(logprobs, "refusal")->kind == JSON_NULL);
    for (const struct json_value *t = content->first; t; t = t->next) {
        double logprob, sum = 0, last = 0;
        const struct json_value *bytes = json_get(t, "bytes"), *top = json_get(t, "top_logprobs");
        ck_assert(json_get_double(json_get(t, "logprob"), &logprob) && logprob <= 0);
        char own[64] = "";
        size_t n = 0;
        for (const struct json_value *b = bytes->first; b; b = b->next) {
            int64_t byte;
            ck_assert(json_get_int(b, &byte) && byte >= 0 && byte < 256 && n < sizeof own - 1);
            own[n++] = (char)byte;
        }
        ck_assert(json_is(json_get(t, "token"), own));
        strcat(text, own);
        ck_assert_int_eq((int)top->count, n_top);
        for (const struct json_value *k = top->first; k; k = k->next) {
            double p;
            ck_assert(json_get_double(json_get(k, "logprob"), &p) && p <= last);
            last = p;
            sum += exp(p);
        }
        if (n_top > 0 && top->first) { /* greedy: the best is the chosen one */
            ck_assert(json_is(json_get(top->first, "token"), own));
            ck_assert(json_get_double(json_get(top->first, "logprob"), &last) && last == logprob);
        }
        ck_assert_double_le(sum, 1 + 1e-9);
    }
    return (int)content->count;
}

START_TEST(logprobs)
{
    char text[4096] = "", streamed[4096] = "", content[4096] = "";
    struct json *j = chat("{" STORY GREEDY ",\"max_tokens\":60,\"logprobs\":true,\"top_logprobs\":20}");
    ck_assert_int_eq(gather_tokens(value_at(j, "choices.0.logprobs"), 20, text), (int)int_at(j, "usage.completion_tokens"));
    ck_assert_str_eq(text, text_at(j, "choices.0.message.content"));
    struct event_list l = api_stream(
        server.port, CHAT, "{" STORY GREEDY ",\"max_tokens\":60,\"logprobs\":true,\"top_logprobs\":3,\"stream\":true}");
    for (int i = 0; i < l.n; i++) {
        const struct json_value *tokens = value_at(l.events[i], "choices.0.logprobs"),
                                *part = value_at(l.events[i], "choices.0.delta.content");
        if (tokens->kind == JSON_OBJECT)
            gather_tokens(tokens, 3, streamed);
        if (part)
            strcat(content, part->text);
        if (part && part->count > 0) /* the tokens come with their text */
            ck_assert_str_eq(streamed, content);
    }
    ck_assert_str_eq(streamed, text);
    event_list_free(&l);
    json_free(j);
}
END_TEST

/* The model's own probabilities: neither temperature nor biases nor truncation change them. */
START_TEST(logprobs_are_the_models)
{
    struct json *plain = chat("{" OK_MESSAGE GREEDY ",\"max_tokens\":1,\"logprobs\":true}");
    struct json *hot =
        chat("{" OK_MESSAGE ",\"temperature\":2,\"top_k\":1,\"max_tokens\":1,\"logprobs\":true,\"logit_bias\":{\"5\":-100}}");
    ck_assert(number_at(plain, "choices.0.logprobs.content.0.logprob") == number_at(hot, "choices.0.logprobs.content.0.logprob"));
    ck_assert_double_gt(number_at(plain, "choices.0.logprobs.content.0.logprob"), -0.2);
    json_free(plain);
    json_free(hot);
}
END_TEST

START_TEST(logprobs_and_stops)
{
    char *whole = answer_to("{" STORY GREEDY ",\"max_tokens\":60}"), *stop = strstr(whole, " little girl");
    ck_assert_ptr_nonnull(stop);
    *stop = '\0';
    struct json *j = chat("{" STORY GREEDY ",\"max_tokens\":60,\"logprobs\":true,\"stop\":\" little girl\"}");
    char text[4096] = "";
    gather_tokens(value_at(j, "choices.0.logprobs"), 0, text);
    ck_assert_str_eq(text_at(j, "choices.0.message.content"), whole);
    ck_assert_str_eq(text, whole); /* nothing of the stop string */
    json_free(j);
    free(whole);
}
END_TEST

/* ---- tool calls ---- */

static struct json *parse_text(const char *text)
{
    struct json *j = json_parse(text, strlen(text), NULL, NULL);
    ck_assert_msg(j != NULL, "no JSON: %s", text);
    return j;
}

START_TEST(calls_a_tool)
{
    struct json *j = chat("{" FIND ",\"tool_choice\":\"auto\"}");
    ck_assert_str_eq(text_at(j, "choices.0.finish_reason"), "tool_calls");
    ck_assert_int_eq(value_at(j, "choices.0.message.content")->kind, JSON_NULL);
    ck_assert_uint_eq(value_at(j, "choices.0.message.tool_calls")->count, 1);
    ck_assert_str_eq(text_at(j, "choices.0.message.tool_calls.0.type"), "function");
    ck_assert_str_eq(text_at(j, "choices.0.message.tool_calls.0.function.name"), "find_restaurants");
    ck_assert(strncmp(text_at(j, "choices.0.message.tool_calls.0.id"), "call_", 5) == 0);
    struct json *arguments = parse_text(text_at(j, "choices.0.message.tool_calls.0.function.arguments"));
    ck_assert_str_eq(text_at(arguments, "city"), "San Jose");
    json_free(arguments);
    json_free(j);
}
END_TEST

START_TEST(calls_a_tool_streamed)
{
    struct json *whole = chat("{" FIND "}");
    struct event_list l = api_stream(server.port, CHAT, "{" FIND ",\"stream\":true}");
    char arguments[1024] = "";
    int n_starts = 0, n_parts = 0;
    for (int i = 0; i < l.n; i++) {
        const struct json_value *call = value_at(l.events[i], "choices.0.delta.tool_calls.0");
        const struct json_value *text = value_at(l.events[i], "choices.0.delta.content");
        ck_assert(!text || text->count == 0); /* nothing of the call leaks */
        if (!call)
            continue;
        ck_assert_int_eq(int_at(l.events[i], "choices.0.delta.tool_calls.0.index"), 0);
        if (json_get(call, "id")) {
            ck_assert_str_eq(text_at(l.events[i], "choices.0.delta.tool_calls.0.function.name"), "find_restaurants");
            ck_assert_str_eq(text_at(l.events[i], "choices.0.delta.tool_calls.0.type"), "function");
            ck_assert_int_eq(n_parts, 0);
            n_starts++;
        }
        const char *part = text_at(l.events[i], "choices.0.delta.tool_calls.0.function.arguments");
        strcat(arguments, part);
        n_parts += *part != '\0';
    }
    ck_assert_int_eq(n_starts, 1);
    ck_assert_int_gt(n_parts, 3); /* as they come */
    ck_assert_str_eq(arguments, text_at(whole, "choices.0.message.tool_calls.0.function.arguments"));
    ck_assert_str_eq(text_at(l.events[l.n - 1], "choices.0.finish_reason"), "tool_calls");
    event_list_free(&l);
    json_free(whole);
}
END_TEST

/* A model that would not call a tool by itself has to, the one that is named if one is. */
START_TEST(has_to_call)
{
    static const char ask_body[] =
        "{" OK_MESSAGE ",\"tools\":[" FIND_TOOL
        ",{\"type\":\"function\",\"function\":{\"name\":\"get_time\",\"parameters\":{\"type\":\"object\","
        "\"properties\":{\"zone\":{\"enum\":[\"UTC\",\"CET\"]}},\"required\":[\"zone\"],\"additionalProperties\":false}}}]" GREEDY
        ",\"max_tokens\":120,\"tool_choice\":%s%s}";
    static const char *const choices[] = {"\"required\"", "{\"type\":\"function\",\"function\":{\"name\":\"get_time\"}}"};
    for (int i = 0; i < 2; i++) {
        char body[4096];
        snprintf(body, sizeof body, ask_body, choices[i], "");
        struct json *j = chat(body);
        ck_assert_str_eq(text_at(j, "choices.0.finish_reason"), "tool_calls");
        ck_assert_int_eq(value_at(j, "choices.0.message.content")->kind, JSON_NULL);
        if (i == 1) {
            ck_assert_str_eq(text_at(j, "choices.0.message.tool_calls.0.function.name"), "get_time");
            struct json *arguments = parse_text(text_at(j, "choices.0.message.tool_calls.0.function.arguments"));
            ck_assert(strcmp(text_at(arguments, "zone"), "UTC") == 0 || strcmp(text_at(arguments, "zone"), "CET") == 0);
            json_free(arguments);
        }
        snprintf(body, sizeof body, ask_body, choices[i], ",\"stream\":true");
        struct event_list l = api_stream(server.port, CHAT, body);
        ck_assert_str_eq(text_at(l.events[l.n - 1], "choices.0.finish_reason"), "tool_calls");
        event_list_free(&l);
        json_free(j);
    }
    api_refused(server.port, CHAT,
        "{" OK_MESSAGE ",\"tools\":[" FIND_TOOL "],\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"other\"}}}",
        "tool_choice");
    api_refused(server.port, CHAT, "{" OK_MESSAGE ",\"tools\":[" FIND_TOOL "],\"tool_choice\":\"sometimes\"}", "tool_choice");
}
END_TEST

/* Without declared tools, or with tool_choice none, the same text is text. */
START_TEST(no_tools_no_calls)
{
    struct json *j = api_post(server.port, "/tokenize", "{\"content\":\"<tool_call>\"}");
    int id = (int)int_at(j, "tokens.0");
    json_free(j);
    char body[2048];
    snprintf(body, sizeof body, "{" OK_MESSAGE GREEDY ",\"max_tokens\":2,\"logit_bias\":{\"%d\":100}}", id);
    char *text = answer_to(body);
    ck_assert_str_eq(text, "<tool_call><tool_call>");
    free(text);
    snprintf(body, sizeof body, "{\"messages\":[" FIND_MESSAGE "],\"tools\":[" FIND_TOOL "],\"tool_choice\":\"none\"" GREEDY
        ",\"max_tokens\":2,\"logit_bias\":{\"%d\":100}}", id);
    text = answer_to(body);
    ck_assert_str_eq(text, "<tool_call><tool_call>");
    free(text);
}
END_TEST

/* Cut off within a call: whole, it is content; streamed, it has begun, and the finish reason says that it is not complete. */
START_TEST(cut_within_a_call)
{
    static const char cut[] = "{\"messages\":[" FIND_MESSAGE "],\"tools\":[" FIND_TOOL "]" GREEDY ",\"max_tokens\":22%s}";
    char body[2048];
    snprintf(body, sizeof body, cut, "");
    struct json *j = chat(body);
    ck_assert_str_eq(text_at(j, "choices.0.finish_reason"), "length");
    ck_assert_ptr_null(value_at(j, "choices.0.message.tool_calls"));
    ck_assert(strncmp(text_at(j, "choices.0.message.content"), "<tool_call>\n{\"name\": \"find_restaurants\", \"arguments\": {",
                  40) == 0);
    snprintf(body, sizeof body, cut, ",\"stream\":true");
    struct event_list l = api_stream(server.port, CHAT, body);
    ck_assert_str_eq(text_at(l.events[l.n - 1], "choices.0.finish_reason"), "length");
    char arguments[256] = "";
    for (int i = 0; i < l.n; i++) {
        const struct json_value *part = value_at(l.events[i], "choices.0.delta.tool_calls.0.function.arguments");
        if (part)
            strcat(arguments, part->text);
    }
    ck_assert_ptr_nonnull(strstr(text_at(j, "choices.0.message.content"), arguments));
    ck_assert_int_gt((int)strlen(arguments), 0);
    event_list_free(&l);
    json_free(j);
}
END_TEST

/* A conversation that goes on after a call is the text that the model saw and wrote, so that it can be taken from a cache. */
START_TEST(history_renders_as_it_was)
{
    struct json *first = api_post(server.port, "/apply-template", "{" FIND "}");
    struct json *answer = chat("{" FIND "}");
    struct json_writer call = {0};
    json_value(&call, value_at(answer, "choices.0.message"));
    char body[8192];
    snprintf(body, sizeof body,
        "{\"messages\":[" FIND_MESSAGE
        ",%s,{\"role\":\"tool\",\"tool_call_id\":\"%s\",\"content\":\"{\\\"name\\\": \\\"El Sol\\\"}\"}],\"tools\":[" FIND_TOOL
        "]" GREEDY ",\"max_tokens\":40}",
        call.data, text_at(answer, "choices.0.message.tool_calls.0.id"));
    struct json *second = api_post(server.port, "/apply-template", body);
    const char *before = text_at(first, "prompt"), *after = text_at(second, "prompt");
    ck_assert(strncmp(before, after, strlen(before)) == 0);
    char wanted[1024];
    snprintf(wanted, sizeof wanted, "<tool_call>\n{\"name\": \"find_restaurants\", \"arguments\": %s}\n</tool_call><|im_end|>\n"
             "<|im_start|>user\n<tool_response>\n{\"name\": \"El Sol\"}\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
             text_at(answer, "choices.0.message.tool_calls.0.function.arguments"));
    ck_assert_str_eq(after + strlen(before), wanted);
    json_free(chat(body));
    json_writer_free(&call);
    json_free(first);
    json_free(second);
    json_free(answer);
}
END_TEST

/* The model is made to begin a call again and again; only the first may come. */
START_TEST(one_call_only)
{
    struct json *j = api_post(server.port, "/tokenize", "{\"content\":\"<|im_end|><|endoftext|>\"}");
    int end = (int)int_at(j, "tokens.0"), text = (int)int_at(j, "tokens.1");
    json_free(j);
    char body[4096];
    for (int parallel = 0; parallel < 2; parallel++) {
        snprintf(body, sizeof body,
            "{\"messages\":[" FIND_MESSAGE "],\"tools\":[" FIND_TOOL "]" GREEDY
            ",\"max_tokens\":160,\"logit_bias\":{\"%d\":-100,\"%d\":-100},"
            "\"parallel_tool_calls\":%s}",
            end, text, parallel ? "true" : "false");
        j = chat(body);
        if (!parallel) {
            ck_assert_str_eq(text_at(j, "choices.0.finish_reason"), "tool_calls");
            ck_assert_uint_eq(value_at(j, "choices.0.message.tool_calls")->count, 1);
            ck_assert_int_lt(int_at(j, "usage.completion_tokens"), 60);
        } else { /* it would have gone on */
            ck_assert_str_eq(text_at(j, "choices.0.finish_reason"), "length");
            ck_assert_int_eq(int_at(j, "usage.completion_tokens"), 160);
        }
        json_free(j);
    }
}
END_TEST

/* A client that leaves during a request with several choices frees them all. */
START_TEST(leaving_cancels_every_choice)
{
    struct client c = client_open(server.port);
    static const char body[] =
        "{" STORY ",\"n\":4,\"max_tokens\":900,\"stream\":true,\"temperature\":0,\"logit_bias\":{\"8172\":-100,\"8170\":-100}}";
    char head[256];
    snprintf(head, sizeof head,
        "POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
        strlen(body));
    client_text(&c, head);
    client_text(&c, body);
    client_wait(&c, "\"content\":\"O");
    client_close(&c);
    server_wait_log(&server, "client gone");
    char *text = answer_to("{" OK_MESSAGE GREEDY "}");
    ck_assert_str_eq(text, "OK");
    free(text);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("api chat");
    TCase *t = tcase_create("chat");
    tcase_set_timeout(t, 120);
    tcase_add_unchecked_fixture(t, start, stop);
    tcase_add_test(t, several_choices);
    tcase_add_test(t, several_choices_streamed);
    tcase_add_test(t, more_choices_than_may_wait);
    tcase_add_test(t, biases_change_the_answer);
    tcase_add_test(t, penalties_change_the_answer);
    tcase_add_test(t, logprobs);
    tcase_add_test(t, logprobs_are_the_models);
    tcase_add_test(t, logprobs_and_stops);
    tcase_add_test(t, calls_a_tool);
    tcase_add_test(t, calls_a_tool_streamed);
    tcase_add_test(t, has_to_call);
    tcase_add_test(t, no_tools_no_calls);
    tcase_add_test(t, cut_within_a_call);
    tcase_add_test(t, history_renders_as_it_was);
    tcase_add_test(t, one_call_only);
    tcase_add_test(t, leaving_cancels_every_choice);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
