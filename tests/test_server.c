/* quern-server end to end, one process for all tests: the API over real sockets.
 * QUERN_SERVER names the program; run in the project's root. */
#include "tests/server_fixture.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define CHAT "/v1/chat/completions"
#define OK_MESSAGE "\"messages\":[{\"role\":\"user\",\"content\":\"Say OK\"}]"
#define STORY "\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story about a cat and a ball.\"}]"

static struct server server;

static void start(void)
{
    server = server_start((const char *const[]){"--alias", "tiny", NULL}, NULL);
}

static void stop(void)
{
    ck_assert_int_eq(server_end(&server, SIGTERM), 0);
}

static const char *text_at(const struct json *j, const char *path)
{
    const struct json_value *v = json_at(json_root(j), path);
    ck_assert_msg(v && v->kind == JSON_STRING, "no string at %s", path);
    return v->text;
}

static int64_t int_at(const struct json *j, const char *path)
{
    int64_t n = -1;
    ck_assert_msg(json_get_int(json_at(json_root(j), path), &n), "no integer at %s", path);
    return n;
}

static struct json *chat(const char *body)
{
    struct response r = ask(server.port, "POST", CHAT, "", body);
    ck_assert_msg(r.status == 200, "%s -> %d %s", body, r.status, r.body);
    struct json *j = response_json(&r);
    response_free(&r);
    return j;
}

/* The answer's text; the caller frees. */
static char *answer_to(const char *body)
{
    struct json *j = chat(body);
    char *text = strdup(text_at(j, "choices.0.message.content"));
    json_free(j);
    return text;
}

START_TEST(health_and_models)
{
    struct response r = ask(server.port, "GET", "/health", "", NULL);
    ck_assert_int_eq(r.status, 200);
    ck_assert_str_eq(r.body, "{\"status\":\"ok\"}");
    ck_assert_ptr_nonnull(response_header(&r, "Date"));
    response_free(&r);
    r = ask(server.port, "GET", "/v1/models?limit=1", "", NULL);
    ck_assert_int_eq(r.status, 200);
    struct json *j = response_json(&r);
    ck_assert_str_eq(text_at(j, "object"), "list");
    ck_assert_str_eq(text_at(j, "data.0.id"), "tiny");
    ck_assert_int_eq(int_at(j, "data.0.meta.n_ctx"), 1024);
    json_free(j);
    response_free(&r);
    r = ask(server.port, "GET", "/v1/models/tiny", "", NULL);
    ck_assert_int_eq(r.status, 200);
    response_free(&r);
    r = ask(server.port, "GET", "/v1/models/other", "", NULL);
    ck_assert_int_eq(r.status, 404);
    ck_assert_ptr_nonnull(strstr(r.body, "model_not_found"));
    response_free(&r);
}
END_TEST

START_TEST(head_and_options)
{
    struct response r = ask(server.port, "HEAD", "/health", "", NULL);
    ck_assert_int_eq(r.status, 200);
    ck_assert_str_eq(response_header(&r, "Content-Length"), "15");
    response_free(&r);
    r = ask(server.port, "OPTIONS", CHAT, "", NULL);
    ck_assert_int_eq(r.status, 204);
    ck_assert_str_eq(response_header(&r, "Allow"), "POST, OPTIONS");
    ck_assert_ptr_null(response_header(&r, "Access-Control-Allow-Origin"));
    response_free(&r);
    r = ask(server.port, "OPTIONS", "*", "", NULL);
    ck_assert_int_eq(r.status, 204);
    response_free(&r);
}
END_TEST

START_TEST(says_ok)
{
    struct json *j = chat("{" OK_MESSAGE ",\"max_tokens\":10,\"temperature\":0}");
    ck_assert_str_eq(text_at(j, "choices.0.message.content"), "OK");
    ck_assert_str_eq(text_at(j, "choices.0.message.role"), "assistant");
    ck_assert_str_eq(text_at(j, "choices.0.finish_reason"), "stop");
    ck_assert_str_eq(text_at(j, "object"), "chat.completion");
    ck_assert_str_eq(text_at(j, "model"), "tiny");
    ck_assert(strncmp(text_at(j, "id"), "chatcmpl-", 9) == 0);
    ck_assert(strncmp(text_at(j, "system_fingerprint"), "quern-", 6) == 0);
    int64_t prompt = int_at(j, "usage.prompt_tokens"), completion = int_at(j, "usage.completion_tokens");
    ck_assert_int_gt(prompt, 10);
    ck_assert_int_eq(completion, 1);
    ck_assert_int_eq(int_at(j, "usage.total_tokens"), prompt + completion);
    ck_assert_int_lt(int_at(j, "usage.prompt_tokens_details.cached_tokens"), prompt);
    ck_assert_int_eq(int_at(j, "timings.prompt_n"), prompt - int_at(j, "usage.prompt_tokens_details.cached_tokens"));
    ck_assert_int_eq(int_at(j, "timings.predicted_n"), completion);
    double d;
    ck_assert(json_get_double(json_at(json_root(j), "timings.prompt_per_second"), &d) && d > 0);
    ck_assert(json_get_double(json_at(json_root(j), "timings.predicted_per_second"), &d) && d > 0);
    json_free(j);
}
END_TEST

/* As the README's curl asks it: no temperature, no seed. */
START_TEST(says_ok_by_default)
{
    for (int i = 0; i < 50; i++) {
        char *text = answer_to("{" OK_MESSAGE ",\"max_tokens\":10}");
        ck_assert_str_eq(text, "OK");
        free(text);
    }
}
END_TEST

START_TEST(finish_reasons_and_stops)
{
    struct json *j = chat("{" STORY ",\"max_completion_tokens\":5,\"temperature\":0}");
    ck_assert_str_eq(text_at(j, "choices.0.finish_reason"), "length");
    ck_assert_int_eq(int_at(j, "usage.completion_tokens"), 5);
    json_free(j);
    char *whole = answer_to("{" STORY ",\"max_tokens\":60,\"temperature\":0}"), *stop = strstr(whole, "little");
    ck_assert_ptr_nonnull(stop);
    *stop = '\0';
    j = chat("{" STORY ",\"max_tokens\":60,\"temperature\":0,\"stop\":[\"never said\",\"little\"]}");
    ck_assert_str_eq(text_at(j, "choices.0.finish_reason"), "stop");
    ck_assert_str_eq(text_at(j, "choices.0.message.content"), whole);
    json_free(j);
    free(whole);
}
END_TEST

START_TEST(seeds)
{
    static const char *const bodies[] = {"{" STORY ",\"max_tokens\":40,\"temperature\":1.5,\"top_k\":0,\"top_p\":1,\"seed\":7}",
                                         "{" STORY ",\"max_tokens\":40,\"temperature\":1.5,\"top_k\":-1,\"top_p\":1,\"seed\":7}",
                                         "{" STORY ",\"max_tokens\":40,\"temperature\":1.5,\"top_k\":0,\"top_p\":1,\"seed\":8}",
                                         "{" STORY ",\"max_tokens\":40,\"temperature\":1.5,\"top_k\":0,\"top_p\":1}",
                                         "{" STORY ",\"max_tokens\":40,\"temperature\":1.5,\"top_k\":1,\"seed\":9}",
                                         "{" STORY ",\"max_tokens\":40,\"temperature\":0}"};
    char *texts[6];
    for (int i = 0; i < 6; i++)
        texts[i] = answer_to(bodies[i]);
    ck_assert_str_eq(texts[0], texts[1]);
    ck_assert_str_ne(texts[0], texts[2]);
    ck_assert_str_ne(texts[0], texts[3]);
    ck_assert_str_eq(texts[4], texts[5]); /* top_k 1 is greedy */
    for (int i = 0; i < 6; i++)
        free(texts[i]);
}
END_TEST

/* The data of an event stream, event by event. */
static char *next_event(char **at)
{
    if (**at == '\0')
        return NULL;
    ck_assert_msg(strncmp(*at, "data: ", 6) == 0, "event: %s", *at);
    char *data = *at + 6, *end = strstr(data, "\n\n");
    ck_assert_ptr_nonnull(end);
    *end = '\0';
    *at = end + 2;
    return data;
}

static void check_stream(struct response *r, bool usage, const char *wanted)
{
    char text[8192] = "", *at = r->body, *data, id[64] = "";
    int n = 0, finished = 0, usages = 0;
    bool done = false;
    ck_assert_int_eq(r->status, 200);
    ck_assert(r->whole);
    ck_assert_str_eq(response_header(r, "Content-Type"), "text/event-stream; charset=utf-8");
    while ((data = next_event(&at)) != NULL) {
        ck_assert_msg(!done, "after [DONE]: %s", data);
        if (strcmp(data, "[DONE]") == 0) {
            done = true;
            continue;
        }
        struct json *j = json_parse(data, strlen(data), NULL, NULL);
        ck_assert_msg(j != NULL, "%s", data);
        const struct json_value *root = json_root(j), *content = json_at(root, "choices.0.delta.content");
        ck_assert_str_eq(text_at(j, "object"), "chat.completion.chunk");
        if (n == 0)
            snprintf(id, sizeof id, "%s", text_at(j, "id"));
        ck_assert_str_eq(text_at(j, "id"), id);
        ck_assert_msg((json_at(root, "choices.0.delta.role") != NULL) == (n == 0), "%s", data);
        ck_assert_int_eq(usages, 0); /* the usage is in the last one */
        const struct json_value *u = json_get(root, "usage");
        ck_assert_msg((u != NULL) == usage, "%s", data);
        if (u && u->kind == JSON_OBJECT) {
            usages++;
            ck_assert_uint_eq(json_get(root, "choices")->count, 0);
            ck_assert_int_gt(int_at(j, "usage.completion_tokens"), 0);
        } else {
            ck_assert_int_eq(finished, 0);
        }
        if (content) {
            ck_assert_uint_lt(strlen(text) + content->count, sizeof text);
            strcat(text, content->text);
        }
        const struct json_value *finish = json_at(root, "choices.0.finish_reason");
        finished += finish && finish->kind == JSON_STRING;
        json_free(j);
        n++;
    }
    ck_assert(done);
    ck_assert_int_eq(finished, 1);
    ck_assert_int_eq(usages, usage);
    ck_assert_str_eq(text, wanted);
    ck_assert_int_gt(n, 10);
}

START_TEST(streams)
{
    char *whole = answer_to("{" STORY ",\"max_tokens\":60,\"temperature\":0}");
    struct response r = ask(server.port, "POST", CHAT, "", "{" STORY ",\"max_tokens\":60,\"temperature\":0,\"stream\":true}");
    ck_assert_str_eq(response_header(&r, "Transfer-Encoding"), "chunked");
    check_stream(&r, false, whole);
    response_free(&r);
    r = ask(server.port, "POST", CHAT, "",
            "{" STORY ",\"max_tokens\":60,\"temperature\":0,\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    check_stream(&r, true, whole);
    response_free(&r);
    /* HTTP/1.0 knows no chunks: the end of the connection is the end of the stream. */
    static const char body[] = "{" STORY ",\"max_tokens\":60,\"temperature\":0,\"stream\":true}";
    char head[256];
    snprintf(head, sizeof head,
        "POST " CHAT " HTTP/1.0\r\nContent-Type: application/json\r\nConnection: keep-alive\r\nContent-Length: %zu\r\n\r\n",
        sizeof body - 1);
    struct client c = client_open(server.port);
    client_text(&c, head);
    client_text(&c, body);
    ck_assert(client_read(&c, &r, false));
    ck_assert_ptr_null(response_header(&r, "Transfer-Encoding"));
    ck_assert_str_eq(response_header(&r, "Connection"), "close");
    check_stream(&r, false, whole);
    response_free(&r);
    client_close(&c);
    free(whole);
}
END_TEST

/* What a conversation costs in tokens shows what became of it. */
static int64_t prompt_tokens(const char *body)
{
    struct json *j = chat(body);
    int64_t n = int_at(j, "usage.prompt_tokens");
    json_free(j);
    return n;
}

START_TEST(conversations)
{
#define END ",\"max_tokens\":1,\"temperature\":0}"
    int64_t plain = prompt_tokens("{\"messages\":[{\"role\":\"user\",\"content\":\"a\\nb\"}]" END);
    ck_assert_int_eq(plain, prompt_tokens("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
        "{\"type\":\"text\",\"text\":\"b\"}]}]" END));
    int64_t system =
        prompt_tokens("{\"messages\":[{\"role\":\"system\",\"content\":\"Hi\"},{\"role\":\"user\",\"content\":\"a\\nb\"}]" END);
    ck_assert_int_lt(system, plain); /* it takes the place of the default one */
    ck_assert_int_eq(
        system, prompt_tokens(
                    "{\"messages\":[{\"role\":\"developer\",\"content\":\"Hi\"},{\"role\":\"user\",\"content\":\"a\\nb\"}]" END));
    /* A control token typed by a user is text: several tokens, not one. */
    ck_assert_int_gt(prompt_tokens("{\"messages\":[{\"role\":\"user\",\"content\":\"a\\nb<|im_end|>\"}]" END), plain + 2);
#define TOOLS ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\"," \
    "\"parameters\":{\"type\":\"object\",\"properties\":{}}}}]"
#define PLAIN "{\"messages\":[{\"role\":\"user\",\"content\":\"a\\nb\"}]"
    int64_t tools = prompt_tokens(PLAIN TOOLS END);
    ck_assert_int_gt(tools, plain + 50);
    ck_assert_int_eq(prompt_tokens(PLAIN TOOLS ",\"tool_choice\":\"auto\",\"parallel_tool_calls\":true" END), tools);
    ck_assert_int_eq(prompt_tokens(PLAIN TOOLS ",\"tool_choice\":\"none\"" END), plain);
    ck_assert_int_eq(prompt_tokens(PLAIN ",\"tools\":[]" END), plain);
    /* Arguments are written as the template writes them, however the client spaced them. */
#define CALL(arguments) "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":null," \
                        "\"refusal\":null,\"tool_calls\":[{\"id\":\"c1\"," \
                        "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":" arguments "}}]},{\"role\":\"tool\"," \
                        "\"tool_call_id\":\"c1\",\"content\":\"3\"}]" TOOLS END
    int64_t called = prompt_tokens(CALL("\"{\\\"a\\\":1,\\\"b\\\":[2]}\""));
    ck_assert_int_gt(called, tools);
    ck_assert_int_eq(called, prompt_tokens(CALL("\"{ \\\"a\\\" : 1 , \\\"b\\\" : [ 2 ] }\"")));
    ck_assert_int_eq(called, prompt_tokens(CALL("{\"a\":1,\"b\":[2]}")));
    prompt_tokens(CALL("\"not json\""));
}
END_TEST

static const char *const accepted[] = {
    "\"model\":\"gpt-4o\",\"user\":\"u\",\"metadata\":{\"a\":\"b\"},\"store\":false,\"service_tier\":\"auto\","
    "\"safety_identifier\":\"s\"",
    "\"prompt_cache_key\":\"k\",\"prompt_cache_retention\":\"24h\",\"cache_prompt\":true",
    "\"n\":1,\"logprobs\":false,\"top_logprobs\":0,\"logit_bias\":{},\"presence_penalty\":0,\"frequency_penalty\":0.0,"
    "\"repeat_penalty\":1",
    "\"response_format\":{\"type\":\"json_object\"}",
    "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\",\"description\":\"d\",\"strict\":true,"
    "\"schema\":{\"type\":\"object\"}}}",
    "\"response_format\":{\"type\":\"text\"},\"modalities\":[\"text\"],\"reasoning_effort\":\"none\",\"verbosity\":\"medium\"",
    "\"temperature\":null,\"stop\":null,\"tools\":null,\"logit_bias\":null,\"functions\":null,\"seed\":null,\"stream\":null,"
    "\"stream_options\":null",
    "\"temperature\":2,\"top_p\":0,\"min_p\":1,\"top_k\":100000,\"seed\":-1",
    "\"max_completion_tokens\":2,\"max_tokens\":2.0",
    "\"stop\":\"x\",\"parallel_tool_calls\":false,\"tool_choice\":\"none\"",
    "\"stop\":[]",
};

START_TEST(accepts)
{
    char body[1024];
    snprintf(
        body, sizeof body, "{" OK_MESSAGE ",%s%s}", accepted[_i], strstr(accepted[_i], "max_tokens") ? "" : ",\"max_tokens\":2");
    json_free(chat(body));
}
END_TEST

/* Members of a request, and the parameter that the 400 must name. */
static const struct {
    const char *members, *param;
} refused[] = {
    {"\"temperature\":\"hot\"", "temperature"},
    {"\"temperature\":-0.1", "temperature"},
    {"\"temperature\":2.1", "temperature"},
    {"\"temperature\":1e999", "temperature"},
    {"\"temperature\":true", "temperature"},
    {"\"top_p\":1.5", "top_p"},
    {"\"min_p\":-1", "min_p"},
    {"\"top_k\":1.5", "top_k"},
    {"\"top_k\":-2", "top_k"},
    {"\"seed\":\"1\"", "seed"},
    {"\"seed\":1e30", "seed"},
    {"\"max_tokens\":0", "max_tokens"},
    {"\"max_tokens\":-5", "max_tokens"},
    {"\"max_tokens\":1.5", "max_tokens"},
    {"\"max_completion_tokens\":\"10\"", "max_completion_tokens"},
    {"\"max_tokens\":5,\"max_completion_tokens\":6", "max_tokens"},
    {"\"stop\":5", "stop"},
    {"\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]", "stop"},
    {"\"stop\":[\"\"]", "stop"},
    {"\"stop\":[1]", "stop"},
    {"\"stop\":\"a\\u0000b\"", "stop"},
    {"\"stream\":\"yes\"", "stream"},
    {"\"stream\":1", "stream"},
    {"\"stream_options\":{\"include_usage\":true}", "stream_options"},
    {"\"stream\":true,\"stream_options\":{\"include_usage\":1}", "stream_options.include_usage"},
    {"\"stream\":true,\"stream_options\":{\"x\":1}", "stream_options.x"},
    {"\"stream\":true,\"stream_options\":true", "stream_options"},
    {"\"n\":65", "n"},
    {"\"n\":\"2\"", "n"},
    {"\"n\":0", "n"},
    {"\"model\":7", "model"},
    {"\"logprobs\":1", "logprobs"},
    {"\"top_logprobs\":2", "top_logprobs"},
    {"\"logprobs\":true,\"top_logprobs\":21", "top_logprobs"},
    {"\"logprobs\":true,\"top_logprobs\":-1", "top_logprobs"},
    {"\"logit_bias\":[5]", "logit_bias"},
    {"\"logit_bias\":{\"5\":101}", "logit_bias.5"},
    {"\"logit_bias\":{\"5\":\"1\"}", "logit_bias.5"},
    {"\"presence_penalty\":2.5", "presence_penalty"},
    {"\"presence_penalty\":\"0\"", "presence_penalty"},
    {"\"frequency_penalty\":-2.1", "frequency_penalty"},
    {"\"repetition_penalty\":0", "repetition_penalty"},
    {"\"repeat_penalty\":11", "repeat_penalty"},
    {"\"response_format\":\"text\"", "response_format"},
    {"\"response_format\":{\"type\":\"json\"}", "response_format"},
    {"\"response_format\":{\"type\":\"json_object\",\"extra\":1}", "response_format"},
    {"\"response_format\":{\"type\":\"json_schema\"}", "response_format"},
    {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\"}}", "response_format"},
    {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"a b\",\"schema\":{}}}", "response_format"},
    {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\",\"strict\":1,\"schema\":{}}}",
        "response_format"},
    {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\",\"schema\":{\"not\":{}}}}",
        "response_format"},
    {"\"reasoning_effort\":\"high\"", "reasoning_effort"},
    {"\"modalities\":[\"text\",\"audio\"]", "modalities"},
    {"\"functions\":[]", "functions"},
    {"\"frobnicate\":1", "frobnicate"},
    {"\"Temperature\":1", "Temperature"},
    {"\"tools\":{}", "tools"},
    {"\"tools\":[1]", "tools[0]"},
    {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"has space\"}}]", "tools[0].function.name"},
    {"\"tools\":[{\"type\":\"retrieval\"}]", "tools[0].type"},
    {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":[]}}]", "tools[0].function.parameters"},
    {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"x\":1}}]", "tools[0].function.x"},
    {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":{\"type\":\"function\"}", "tool_choice"},
    {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"parallel_tool_calls\":0", "parallel_tool_calls"},
    {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]",
        "tools[1]"},
    {"\"tool_choice\":\"auto\"", "tool_choice"},
};

static const struct {
    const char *messages, *param;
} refused_messages[] = {
    {"\"hello\"", "messages"},
    {"[]", "messages"},
    {"null", "messages"},
    {"[7]", "messages[0]"},
    {"[{\"content\":\"x\"}]", "messages[0].role"},
    {"[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"wizard\",\"content\":\"x\"}]", "messages[1].role"},
    {"[{\"role\":\"user\"}]", "messages[0].content"},
    {"[{\"role\":\"user\",\"content\":null}]", "messages[0].content"},
    {"[{\"role\":\"assistant\",\"content\":null}]", "messages[0].content"},
    {"[{\"role\":\"user\",\"content\":7}]", "messages[0].content"},
    {"[{\"role\":\"user\",\"content\":[]}]", "messages[0].content"},
    {"[{\"role\":\"user\",\"content\":[\"x\"]}]", "messages[0].content[0]"},
    {"[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"image_url\","
     "\"image_url\":{\"url\":\"data:\"}}]}]", "messages[0].content[1]"},
    {"[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]", "messages[0].content[0]"},
    {"[{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":[]}]", "messages[0].tool_calls"},
    {"[{\"role\":\"user\",\"content\":\"x\",\"name\":\"bob\"}]", "messages[0].name"},
    {"[{\"role\":\"assistant\",\"content\":\"x\",\"refusal\":\"no\"}]", "messages[0].refusal"},
    {"[{\"role\":\"assistant\",\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}]",
     "messages[0].tool_calls[0]"},
    {"[{\"role\":\"assistant\",\"tool_calls\":[{\"type\":\"custom\"}]}]", "messages[0].tool_calls[0]"},
};

static void check_refused(const char *body, const char *param)
{
    struct response r = ask(server.port, "POST", CHAT, "", body);
    ck_assert_msg(r.status == 400, "%s -> %d %s", body, r.status, r.body);
    struct json *j = response_json(&r);
    ck_assert_str_eq(text_at(j, "error.type"), "invalid_request_error");
    ck_assert_msg(strcmp(text_at(j, "error.param"), param) == 0, "%s -> %s", body, r.body);
    ck_assert_msg(strstr(text_at(j, "error.message"), param) != NULL, "%s -> %s", body, r.body);
    ck_assert_int_gt((int)strlen(text_at(j, "error.code")), 3);
    json_free(j);
    response_free(&r);
}

START_TEST(refuses)
{
    char body[1024];
    snprintf(body, sizeof body, "{" OK_MESSAGE ",%s}", refused[_i].members);
    check_refused(body, refused[_i].param);
}
END_TEST

START_TEST(refuses_messages)
{
    char body[1024];
    snprintf(body, sizeof body, "{\"messages\":%s,\"max_tokens\":1}", refused_messages[_i].messages);
    check_refused(body, refused_messages[_i].param);
}
END_TEST

START_TEST(context_exceeded)
{
    char *body = malloc(40000), *p = body;
    p += sprintf(p, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 5000; i++)
        p += sprintf(p, "word ");
    strcpy(p, "\"}]}");
    struct response r = ask(server.port, "POST", CHAT, "", body);
    ck_assert_int_eq(r.status, 400);
    struct json *j = response_json(&r);
    ck_assert_str_eq(text_at(j, "error.code"), "context_length_exceeded");
    const char *message = text_at(j, "error.message");
    int n = 0, n_ctx = 0;
    ck_assert_msg(sscanf(message, "The prompt has %d tokens, but this model's context holds %d", &n, &n_ctx) == 2, "%s", message);
    ck_assert_int_gt(n, 5000);
    ck_assert_int_eq(n_ctx, 1024);
    json_free(j);
    response_free(&r);
    free(body);
}
END_TEST

/* Whole requests and the status they get. */
#define HOST "Host: localhost\r\n"
#define POST_CHAT "POST " CHAT " HTTP/1.1\r\n" HOST
#define JSON_TYPE "Content-Type: application/json\r\n"
static const struct {
    const char *request;
    int status;
    const char *says;
} statuses[] = {
    {"GET /nothing HTTP/1.1\r\n" HOST "\r\n", 404, "/nothing"},
    {"GET /index.html HTTP/1.1\r\n" HOST "\r\n", 404, "not_found"},
    {"GET /health/ HTTP/1.1\r\n" HOST "\r\n", 404, "not_found"},
    {"GET /%68ealth HTTP/1.1\r\n" HOST "\r\n", 404, "not_found"},
    {"GET " CHAT " HTTP/1.1\r\n" HOST "\r\n", 405, "method_not_allowed"},
    {"POST /health HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n", 405, "method_not_allowed"},
    {"BREW /health HTTP/1.1\r\n" HOST "\r\n", 405, "BREW"},
    {"GET http://localhost/health HTTP/1.1\r\n" HOST "\r\n", 200, "ok"},
    {"GET /health HTTP/1.0\r\n\r\n", 200, "ok"},
    {"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 200, "ok"},
    {"GET /health HTTP/1.1\r\nHost: 127.1.2.3:99\r\n\r\n", 200, "ok"},
    {"GET /health HTTP/1.1\r\nHost: [::1]:8765\r\n\r\n", 200, "ok"},
    {"GET /health HTTP/1.1\r\nHost: LocalHost:1\r\n\r\n", 200, "ok"},
    {"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403, "forbidden_host"},
    {"GET /health HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n", 403, "forbidden_host"},
    {"GET /health HTTP/1.1\r\nHost: 127.0.0.1.evil.example:8765\r\n\r\n", 403, "forbidden_host"},
    {"GET /health HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n", 403, "forbidden_host"},
    {"GET /health HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n", 403, "forbidden_host"},
    {"GET /health HTTP/1.1\r\nHost: localhost:x\r\n\r\n", 403, "forbidden_host"},
    {"GET /health HTTP/1.1\r\nHost:\r\n\r\n", 403, "forbidden_host"},
    {"GET http://evil.example/health HTTP/1.1\r\n" HOST "\r\n", 403, "forbidden_host"},
    {"GET /health HTTP/1.1\r\n\r\n", 400, "Host"},
    {POST_CHAT "Content-Length: 2\r\n\r\n{}", 415, "application/json"},
    {POST_CHAT "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415, "application/json"},
    {POST_CHAT "Content-Type: application/jsonx\r\nContent-Length: 2\r\n\r\n{}", 415, "application/json"},
    {POST_CHAT "Content-Type: Application/JSON; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}", 400, "'messages'"},
    {POST_CHAT JSON_TYPE "Content-Length: 0\r\n\r\n", 400, "invalid_json"},
    {POST_CHAT JSON_TYPE "Content-Length: 5\r\n\r\n{\n \"a", 400, "line 2, column 2 (byte 3)"},
    {POST_CHAT JSON_TYPE "Content-Length: 2\r\n\r\n[]", 400, "must be a JSON object, not an array"},
    {POST_CHAT JSON_TYPE "Content-Length: 13\r\n\r\n{\"a\":1,\"a\":2}", 400, "stands twice"},
    {POST_CHAT JSON_TYPE "Content-Length: 9\r\n\r\n{\"a\":\"\xFF\"}", 400, "0xFF is not UTF-8"},
    {POST_CHAT JSON_TYPE "Content-Length: 14\r\n\r\n{\"a\":\"\\ud800\"}", 400, "surrogate"},
    {POST_CHAT JSON_TYPE "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", 400, "'messages'"},
    {POST_CHAT JSON_TYPE "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}", 400, "exclude each other"},
    {POST_CHAT "Content-Length: 1048577\r\n\r\n", 413, "larger"},
    {POST_CHAT "Expect: 100-continue\r\nContent-Length: 1048577\r\n\r\n", 413, "larger"},
    {POST_CHAT "Expect: something\r\nContent-Length: 2\r\n\r\n", 417, "100-continue"},
    {POST_CHAT "Transfer-Encoding: gzip\r\n\r\n", 501, "chunked"},
    {"GET /health HTTP/1.1\n" HOST "\r\n", 400, "carriage return"},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1"},
    {"\x16\x03\x01\x02\x01\x01\x01\xFC\r\n\r\n", 400, "request line"},
};

START_TEST(answers_with_status)
{
    struct client c = client_open(server.port);
    struct response r;
    client_text(&c, statuses[_i].request);
    ck_assert(client_read(&c, &r, false));
    ck_assert(r.whole);
    ck_assert_msg(r.status == statuses[_i].status && strstr(r.body, statuses[_i].says), "%s -> %d %s", statuses[_i].request,
        r.status, r.body);
    struct json *j = response_json(&r); /* every error is an object */
    if (r.status >= 400)
        text_at(j, "error.message");
    json_free(j);
    if (r.status == 405)
        ck_assert_ptr_nonnull(response_header(&r, "Allow"));
    response_free(&r);
    client_close(&c);
}
END_TEST

START_TEST(long_and_deep)
{
    struct response r;
    char *big = malloc(300000);
    memset(big, 'x', 300000);
    struct client c = client_open(server.port);
    client_text(&c, "GET /");
    client_send(&c, big, 300000);
    ck_assert(client_read(&c, &r, false));
    ck_assert_int_eq(r.status, 414);
    response_free(&r);
    client_close(&c);
    c = client_open(server.port);
    client_text(&c, "GET / HTTP/1.1\r\nX: ");
    client_send(&c, big, 300000);
    ck_assert(client_read(&c, &r, false));
    ck_assert_int_eq(r.status, 431);
    ck_assert_str_eq(response_header(&r, "Connection"), "close");
    response_free(&r);
    client_close(&c);
    /* More than the limit in chunks, each of them small. */
    c = client_open(server.port);
    client_text(&c, POST_CHAT JSON_TYPE "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 40; i++) {
        client_text(&c, "8000\r\n");
        client_send(&c, big, 0x8000);
        client_text(&c, "\r\n");
    }
    ck_assert(client_read(&c, &r, false));
    ck_assert_int_eq(r.status, 413);
    response_free(&r);
    client_close(&c);
    memset(big, '[', 200000);
    big[200000] = '\0';
    r = ask(server.port, "POST", CHAT, "", big);
    ck_assert_int_eq(r.status, 400);
    ck_assert_ptr_nonnull(strstr(r.body, "deeper than 64"));
    response_free(&r);
    free(big);
}
END_TEST

START_TEST(keeps_alive)
{
    struct client c = client_open(server.port);
    struct response r;
    for (int i = 0; i < 5; i++) {
        client_text(&c, "GET /health HTTP/1.1\r\n" HOST "\r\n");
        ck_assert(client_read(&c, &r, false));
        ck_assert_int_eq(r.status, 200);
        ck_assert_ptr_null(response_header(&r, "Connection"));
        response_free(&r);
    }
    client_text(&c, "GET /nothing HTTP/1.1\r\n" HOST "\r\n"); /* an error ends no connection that is still in step */
    ck_assert(client_read(&c, &r, false));
    response_free(&r);
    client_text(&c, "GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    ck_assert(client_read(&c, &r, false));
    ck_assert_str_eq(response_header(&r, "Connection"), "keep-alive");
    response_free(&r);
    client_text(&c, "GET /health HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n");
    ck_assert(client_read(&c, &r, false));
    ck_assert_str_eq(response_header(&r, "Connection"), "close");
    response_free(&r);
    ck_assert(client_at_end(&c));
    client_close(&c);
}
END_TEST

/* All at once, and byte by byte: answers come in order, each after the one before. */
START_TEST(pipelines)
{
    static const char story[] = "{" STORY ",\"max_tokens\":20,\"temperature\":0,\"stream\":true}",
                      ok[] = "{" OK_MESSAGE ",\"max_tokens\":5,\"temperature\":0}";
    char all[2048];
    snprintf(all, sizeof all,
             POST_CHAT JSON_TYPE "Content-Length: %zu\r\n\r\n%s"
             "GET /health HTTP/1.1\r\n" HOST "\r\n"
             POST_CHAT JSON_TYPE "Transfer-Encoding: chunked\r\n\r\n%zx\r\n%s\r\n0\r\n\r\n"
             "GET /nothing HTTP/1.1\r\n" HOST "\r\n"
             "GET /health HTTP/1.1\r\n" HOST "Connection: close\r\n\r\nGET /ignored HTTP/1.1\r\n\r\n",
             sizeof story - 1, story, sizeof ok - 1, ok);
    static const int want[] = {200, 200, 200, 404, 200};
    for (int slow = 0; slow < 2; slow++) {
        struct client c = client_open(server.port);
        if (slow)
            for (const char *p = all; *p; p++)
                client_send(&c, p, 1);
        else
            client_text(&c, all);
        for (int i = 0; i < 5; i++) {
            struct response r;
            ck_assert(client_read(&c, &r, false));
            ck_assert_int_eq(r.status, want[i]);
            ck_assert(r.whole);
            if (i == 0)
                ck_assert_ptr_nonnull(strstr(r.body, "[DONE]"));
            if (i == 2)
                ck_assert_ptr_nonnull(strstr(r.body, "\"OK\""));
            response_free(&r);
        }
        ck_assert(client_at_end(&c));
        client_close(&c);
    }
}
END_TEST

START_TEST(continues)
{
    struct client c = client_open(server.port);
    struct response r;
    client_text(&c, POST_CHAT JSON_TYPE "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    ck_assert(client_read(&c, &r, false));
    ck_assert_int_eq(r.status, 100);
    response_free(&r);
    client_text(&c, "{}");
    ck_assert(client_read(&c, &r, false));
    ck_assert_int_eq(r.status, 400);
    response_free(&r);
    client_close(&c);
}
END_TEST

START_TEST(half_closed)
{
    /* Whoever closes the sending half while the model works is taken to be gone; an answer given at once still arrives. */
    struct client c = client_open(server.port);
    struct response r;
    client_text(&c, "GET /health HTTP/1.1\r\n" HOST "\r\n");
    shutdown(c.fd, SHUT_WR);
    ck_assert(client_read(&c, &r, false));
    ck_assert_int_eq(r.status, 200);
    response_free(&r);
    ck_assert(client_at_end(&c));
    client_close(&c);
    static const char body[] = "{" STORY "}";
    char head[256];
    snprintf(head, sizeof head, POST_CHAT JSON_TYPE "Content-Length: %zu\r\n\r\n", sizeof body - 1);
    c = client_open(server.port);
    client_text(&c, head);
    client_text(&c, body);
    shutdown(c.fd, SHUT_WR);
    ck_assert(client_at_end(&c));
    client_close(&c);
}
END_TEST

START_TEST(tokens)
{
    struct response r = ask(server.port, "POST", "/tokenize", "", "{\"content\":\"Hello w\xC3\xB6rld\",\"add_special\":true}");
    ck_assert_int_eq(r.status, 200);
    ck_assert(strncmp(r.body, "{\"tokens\":[", 11) == 0);
    struct response back = ask(server.port, "POST", "/detokenize", "", r.body);
    ck_assert_str_eq(back.body, "{\"content\":\"Hello w\xC3\xB6rld\"}");
    response_free(&r);
    response_free(&back);
    r = ask(server.port, "POST", "/tokenize", "", "{\"content\":\"<|im_end|>\"}");
    ck_assert_str_eq(r.body, "{\"tokens\":[8172]}");
    response_free(&r);
    r = ask(server.port, "POST", "/tokenize", "", "{\"content\":\"<|im_end|>\",\"parse_special\":false}");
    ck_assert_ptr_null(strstr(r.body, "8172"));
    response_free(&r);
    r = ask(server.port, "POST", "/tokenize", "", "{\"content\":\"\"}");
    ck_assert_str_eq(r.body, "{\"tokens\":[]}");
    response_free(&r);
    r = ask(server.port, "POST", "/tokenize", "", "{\"content\":\"\xF0\x9F\xA6\x84\",\"with_pieces\":true}");
    struct json *j = response_json(&r); /* a unicorn is no token: its bytes come as numbers */
    ck_assert_int_eq(json_at(json_root(j), "tokens.0.piece")->kind, JSON_ARRAY);
    ck_assert_int_eq(int_at(j, "tokens.0.piece.0"), 0xF0);
    json_free(j);
    response_free(&r);
    r = ask(server.port, "POST", "/detokenize", "", "{\"tokens\":[]}");
    ck_assert_str_eq(r.body, "{\"content\":\"\"}");
    response_free(&r);
    static const char *const wrong[][3] = {
        {"/tokenize", "{}", "content"},
        {"/tokenize", "{\"content\":7}", "content"},
        {"/tokenize", "{\"content\":\"\",\"parse_special\":1}", "parse_special"},
        {"/tokenize", "{\"content\":\"\",\"x\":1}", "x"},
        {"/tokenize", "[]", NULL},
        {"/detokenize", "{}", "tokens"},
        {"/detokenize", "{\"tokens\":\"1\"}", "tokens"},
        {"/detokenize", "{\"tokens\":[1,\"2\"]}", "tokens"},
        {"/detokenize", "{\"tokens\":[-1]}", "tokens"},
        {"/detokenize", "{\"tokens\":[8192]}", "tokens"},
        {"/detokenize", "{\"tokens\":[1.5]}", "tokens"},
        {"/detokenize", "{\"tokens\":[],\"y\":1}", "y"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        r = ask(server.port, "POST", wrong[i][0], "", wrong[i][1]);
        ck_assert_msg(r.status == 400, "%s -> %d %s", wrong[i][1], r.status, r.body);
        j = response_json(&r);
        if (wrong[i][2])
            ck_assert_str_eq(text_at(j, "error.param"), wrong[i][2]);
        json_free(j);
        response_free(&r);
    }
}
END_TEST

/* A megabyte of one letter, which costs a naive tokeniser minutes. */
START_TEST(tokenises_a_megabyte)
{
    size_t n = (1 << 20) - 64;
    char *body = malloc(n + 64), *p = body;
    p += sprintf(p, "{\"content\":\"");
    memset(p, 'a', n);
    strcpy(p + n, "\"}");
    struct response r = ask(server.port, "POST", "/tokenize", "", body);
    ck_assert_int_eq(r.status, 200);
    ck_assert(r.whole);
    response_free(&r);
    free(body);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("server");
    TCase *t = tcase_create("api");
    tcase_set_timeout(t, 120);
    tcase_add_unchecked_fixture(t, start, stop);
    tcase_add_test(t, health_and_models);
    tcase_add_test(t, head_and_options);
    tcase_add_test(t, says_ok);
    tcase_add_test(t, says_ok_by_default);
    tcase_add_test(t, finish_reasons_and_stops);
    tcase_add_test(t, seeds);
    tcase_add_test(t, streams);
    tcase_add_test(t, conversations);
    tcase_add_loop_test(t, accepts, 0, sizeof accepted / sizeof *accepted);
    tcase_add_loop_test(t, refuses, 0, sizeof refused / sizeof *refused);
    tcase_add_loop_test(t, refuses_messages, 0, sizeof refused_messages / sizeof *refused_messages);
    tcase_add_test(t, context_exceeded);
    tcase_add_loop_test(t, answers_with_status, 0, sizeof statuses / sizeof *statuses);
    tcase_add_test(t, long_and_deep);
    tcase_add_test(t, keeps_alive);
    tcase_add_test(t, pipelines);
    tcase_add_test(t, continues);
    tcase_add_test(t, half_closed);
    tcase_add_test(t, tokens);
    tcase_add_test(t, tokenises_a_megabyte);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
