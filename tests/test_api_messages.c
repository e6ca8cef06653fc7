/* POST /v1/messages and /v1/messages/count_tokens: blocks, parameters, refusals, errors, and the events of a stream.
 * QUERN_SERVER names the program; run in the project's root. */
#include "tests/api_fixture.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH "/v1/messages"
#define COUNT "/v1/messages/count_tokens"
#define GREEDY ",\"temperature\":0"
#define FIND_TEXT "Find me a Mexican restaurant in San Jose."
#define FIND_TOOL "{\"name\":\"find_restaurants\",\"description\":\"Find restaurants by location and by category\"," \
                  "\"input_schema\":{\"type\":\"object\",\"properties\":{" \
                  "\"city\":{\"type\":\"string\",\"description\":\"City where the restaurant is located\"}," \
                  "\"cuisine\":{\"type\":\"string\",\"description\":\"Type of food served\"}}," \
                  "\"required\":[\"city\",\"cuisine\"]}}"
#define FIND "\"messages\":[{\"role\":\"user\",\"content\":\"" FIND_TEXT "\"}],\"tools\":[" FIND_TOOL "]" GREEDY

static struct server server;

static void start(void)
{
    server = server_start((const char *const[]){"--alias", "tiny", NULL}, NULL);
}

static void stop(void)
{
    ck_assert_int_eq(server_end(&server, SIGTERM), 0);
}

static struct json *message(const char *body)
{
    return api_post(server.port, PATH, body);
}

static bool is_null(const struct json *j, const char *path)
{
    const struct json_value *v = value_at(j, "%s", path);
    ck_assert_msg(v != NULL, "nothing at %s", path);
    return v->kind == JSON_NULL;
}

/* The response is an error object of that status and type; returns its message, to be freed. */
static char *error_of(struct response *r, int status, const char *type)
{
    ck_assert_msg(r->status == status, "%d %s", r->status, r->body);
    struct json *j = response_json(r);
    ck_assert_str_eq(text_at(j, "type"), "error");
    ck_assert_str_eq(text_at(j, "error.type"), type);
    char *text = strdup(text_at(j, "error.message"));
    ck_assert_int_gt((int)strlen(text), 10);
    json_free(j);
    response_free(r);
    return text;
}

/* The tokens of a message's prompt, as its usage tells them. */
static int64_t input_of(const struct json *j)
{
    int64_t computed = int_at(j, "usage.input_tokens"), cached = int_at(j, "usage.cache_read_input_tokens");
    ck_assert_int_gt(computed, 0);
    ck_assert_int_ge(cached, 0);
    return computed + cached;
}

/* A 400 whose message names the parameter. */
static void check_refused(const char *path, const char *body, const char *param)
{
    struct response r = ask(server.port, "POST", path, "", body);
    ck_assert_msg(r.status == 400, "%s -> %d %s", body, r.status, r.body);
    char *text = error_of(&r, 400, "invalid_request_error");
    ck_assert_msg(strstr(text, param) != NULL, "%s -> %s", body, text);
    free(text);
}

/* ---- whole ---- */

START_TEST(says_ok)
{
    struct response r =
        ask(server.port, "POST", PATH "?beta=true", "anthropic-version: 2023-06-01\r\nanthropic-beta: some-beta-2025-01-01\r\n",
            "{\"model\":\"claude\",\"max_tokens\":10," OK_MESSAGE GREEDY "}");
    ck_assert_msg(r.status == 200, "%s", r.body);
    struct json *j = response_json(&r);
    response_free(&r);
    ck_assert(strncmp(text_at(j, "id"), "msg_", 4) == 0);
    ck_assert_str_eq(text_at(j, "type"), "message");
    ck_assert_str_eq(text_at(j, "role"), "assistant");
    ck_assert_str_eq(text_at(j, "model"), "tiny");
    ck_assert_uint_eq(value_at(j, "content")->count, 1);
    ck_assert_str_eq(text_at(j, "content.0.type"), "text");
    ck_assert_str_eq(text_at(j, "content.0.text"), "OK");
    ck_assert_str_eq(text_at(j, "stop_reason"), "end_turn");
    ck_assert(is_null(j, "stop_sequence"));
    ck_assert_int_eq(int_at(j, "usage.output_tokens"), 1);
    ck_assert_int_eq(int_at(j, "usage.cache_creation_input_tokens"), 0);
    struct json *chat = api_post(server.port, CHAT, "{" OK_MESSAGE GREEDY "}"),
                *count = api_post(server.port, COUNT, "{\"model\":\"claude\"," OK_MESSAGE "}");
    ck_assert_int_eq(int_at(chat, "usage.prompt_tokens"), input_of(j));
    ck_assert_int_eq(int_at(count, "input_tokens"), input_of(j));
    ck_assert_uint_eq(json_root(count)->count, 1);
    json_free(count);
    json_free(chat);
    json_free(j);
}
END_TEST

START_TEST(stop_reasons)
{
    struct json *j = message("{\"max_tokens\":5," STORY GREEDY "}");
    ck_assert_str_eq(text_at(j, "stop_reason"), "max_tokens");
    ck_assert_int_eq(int_at(j, "usage.output_tokens"), 5);
    json_free(j);
    j = message("{\"max_tokens\":60," STORY GREEDY ",\"stop_sequences\":[\"never said\",\"little\",\"xyz\"]}");
    ck_assert_str_eq(text_at(j, "stop_reason"), "stop_sequence");
    ck_assert_str_eq(text_at(j, "stop_sequence"), "little");
    ck_assert_ptr_null(strstr(text_at(j, "content.0.text"), "little"));
    json_free(j);
    /* Stop strings that are not met; and nothing said before one: no block. */
    j = message("{\"max_tokens\":60," OK_MESSAGE GREEDY ",\"stop_sequences\":[\"never said\"]}");
    ck_assert_str_eq(text_at(j, "stop_reason"), "end_turn");
    ck_assert(is_null(j, "stop_sequence"));
    json_free(j);
    j = message("{\"max_tokens\":60," OK_MESSAGE GREEDY ",\"stop_sequences\":[\"OK\"]}");
    ck_assert_str_eq(text_at(j, "stop_sequence"), "OK");
    ck_assert_uint_eq(value_at(j, "content")->count, 0);
    json_free(j);
    /* The context ends before max_tokens. */
    struct server small = server_start((const char *const[]){"-c", "80", NULL}, NULL);
    j = api_post(small.port, PATH, "{\"max_tokens\":1000," STORY GREEDY "}");
    ck_assert_str_eq(text_at(j, "stop_reason"), "model_context_window_exceeded");
    ck_assert_int_eq(input_of(j) + int_at(j, "usage.output_tokens"), 80);
    json_free(j);
    ck_assert_int_eq(server_end(&small, SIGTERM), 0);
}
END_TEST

/* The answer goes on with what is there. */
START_TEST(prefill)
{
    struct json *whole = message("{\"max_tokens\":30," STORY GREEDY "}");
    const char *text = text_at(whole, "content.0.text");
    ck_assert(strncmp(text, "Once upon", 9) == 0);
    struct json *rest = message("{\"max_tokens\":28,\"messages\":["
                                "{\"role\":\"user\",\"content\":\"Tell me a story about a cat and a ball.\"},"
                                "{\"role\":\"assistant\",\"content\":\"Once upon\"}]" GREEDY "}");
    ck_assert_uint_gt(strlen(text), 60);
    ck_assert(strncmp(text_at(rest, "content.0.text"), text + 9, 50) == 0);
    ck_assert_int_gt(input_of(rest), input_of(whole));
    json_free(rest);
    json_free(whole);
}
END_TEST

/* ---- streams ---- */

struct streamed {
    char text[4096], input[1024], name[64], id[64]; /* all text; of the last tool_use */
    int n_blocks, n_uses, n_deltas;
    const struct json *delta; /* message_delta; l must live */
};

static bool is(const struct json *j, const char *type)
{
    return strcmp(text_at(j, "type"), type) == 0;
}

/* message_start and the blocks; returns the index of what follows them. */
static int check_blocks(const struct event_list *l, struct streamed *s)
{
    memset(s, 0, sizeof *s);
    const struct json *first = l->events[0];
    ck_assert_str_eq(text_at(first, "type"), "message_start");
    ck_assert(strncmp(text_at(first, "message.id"), "msg_", 4) == 0);
    ck_assert_str_eq(text_at(first, "message.role"), "assistant");
    ck_assert_str_eq(text_at(first, "message.type"), "message");
    ck_assert_uint_eq(value_at(first, "message.content")->count, 0);
    ck_assert(is_null(first, "message.stop_reason") && is_null(first, "message.stop_sequence"));
    ck_assert_int_gt(int_at(first, "message.usage.input_tokens"), 10);
    ck_assert_int_eq(int_at(first, "message.usage.output_tokens"), 0);
    int i = 1;
    while (is(l->events[i], "content_block_start")) {
        ck_assert_int_eq(int_at(l->events[i], "index"), s->n_blocks);
        bool text = strcmp(text_at(l->events[i], "content_block.type"), "text") == 0;
        if (text) {
            ck_assert_str_eq(text_at(l->events[i], "content_block.text"), "");
        } else {
            ck_assert_str_eq(text_at(l->events[i], "content_block.type"), "tool_use");
            snprintf(s->id, sizeof s->id, "%s", text_at(l->events[i], "content_block.id"));
            snprintf(s->name, sizeof s->name, "%s", text_at(l->events[i], "content_block.name"));
            ck_assert(strncmp(s->id, "toolu_", 6) == 0 && strlen(s->id) == 30);
            ck_assert_uint_eq(value_at(l->events[i], "content_block.input")->count, 0);
            s->input[0] = '\0';
            s->n_uses++;
        }
        for (i++; is(l->events[i], "content_block_delta"); i++, s->n_deltas++) {
            ck_assert_int_eq(int_at(l->events[i], "index"), s->n_blocks);
            ck_assert_str_eq(text_at(l->events[i], "delta.type"), text ? "text_delta" : "input_json_delta");
            strcat(text ? s->text : s->input, text_at(l->events[i], text ? "delta.text" : "delta.partial_json"));
        }
        ck_assert_str_eq(text_at(l->events[i], "type"), "content_block_stop");
        ck_assert_int_eq(int_at(l->events[i], "index"), s->n_blocks);
        s->n_blocks++;
        i++;
    }
    return i;
}

static void check_stream(const struct event_list *l, const char *reason, struct streamed *s)
{
    int i = check_blocks(l, s);
    ck_assert_int_eq(i, l->n - 2);
    s->delta = l->events[i];
    ck_assert_str_eq(text_at(s->delta, "type"), "message_delta");
    ck_assert_str_eq(text_at(s->delta, "delta.stop_reason"), reason);
    /* At the start nobody has looked into the cache yet. */
    ck_assert_int_eq(int_at(l->events[0], "message.usage.cache_read_input_tokens"), 0);
    ck_assert_int_eq(int_at(l->events[0], "message.usage.input_tokens"), input_of(s->delta));
    ck_assert_int_eq(int_at(s->delta, "usage.cache_creation_input_tokens"), 0);
    ck_assert_str_eq(text_at(l->events[i + 1], "type"), "message_stop");
}

START_TEST(streams)
{
    struct streamed s;
    struct json *whole = message("{\"max_tokens\":40," STORY GREEDY "}");
    struct event_list l = api_named_stream(server.port, PATH, "{\"max_tokens\":40,\"stream\":true," STORY GREEDY "}");
    check_stream(&l, "max_tokens", &s);
    ck_assert_str_eq(s.text, text_at(whole, "content.0.text"));
    ck_assert_int_eq(s.n_blocks, 1);
    ck_assert_int_gt(s.n_deltas, 20);
    ck_assert_int_eq(int_at(s.delta, "usage.output_tokens"), 40);
    ck_assert(is_null(s.delta, "delta.stop_sequence"));
    event_list_free(&l);
    json_free(whole);
    l = api_named_stream(
        server.port, PATH, "{\"max_tokens\":60,\"stream\":true," STORY GREEDY ",\"stop_sequences\":[\"little\"]}");
    check_stream(&l, "stop_sequence", &s);
    ck_assert_str_eq(text_at(s.delta, "delta.stop_sequence"), "little");
    event_list_free(&l);
    l = api_named_stream(
        server.port, PATH, "{\"max_tokens\":60,\"stream\":true," OK_MESSAGE GREEDY ",\"stop_sequences\":[\"OK\"]}");
    check_stream(&l, "stop_sequence", &s);
    ck_assert_int_eq(s.n_blocks, 0);
    event_list_free(&l);
}
END_TEST

START_TEST(shutdown_is_an_error_event)
{
    struct streamed s;
    struct event_list l = api_cut_stream(PATH, "{\"max_tokens\":900,\"stream\":true," STORY GREEDY "}", "text_delta");
    int i = check_blocks(&l, &s);
    ck_assert_int_eq(i, l.n - 1);
    ck_assert_str_eq(text_at(l.events[i], "type"), "error");
    ck_assert_str_eq(text_at(l.events[i], "error.type"), "api_error");
    ck_assert_ptr_nonnull(strstr(text_at(l.events[i], "error.message"), "shutting down"));
    event_list_free(&l);
}
END_TEST

/* ---- tools ---- */

START_TEST(uses_a_tool)
{
    struct streamed s;
    struct json *j = message("{\"max_tokens\":100," FIND "}");
    ck_assert_str_eq(text_at(j, "stop_reason"), "tool_use");
    ck_assert_uint_eq(value_at(j, "content")->count, 1);
    ck_assert_str_eq(text_at(j, "content.0.type"), "tool_use");
    ck_assert_str_eq(text_at(j, "content.0.name"), "find_restaurants");
    ck_assert_str_eq(text_at(j, "content.0.input.city"), "San Jose");
    ck_assert(strncmp(text_at(j, "content.0.id"), "toolu_", 6) == 0);
    struct event_list l = api_named_stream(server.port, PATH, "{\"max_tokens\":100,\"stream\":true," FIND "}");
    check_stream(&l, "tool_use", &s);
    ck_assert_int_eq(s.n_uses, 1);
    ck_assert_str_eq(s.name, "find_restaurants");
    struct json *input = json_parse(s.input, strlen(s.input), NULL, NULL);
    struct json_writer streamed = {0}, whole = {0};
    ck_assert_msg(input != NULL, "%s", s.input);
    json_value(&streamed, json_root(input));
    json_value(&whole, value_at(j, "content.0.input"));
    ck_assert_str_eq(streamed.data, whole.data);
    json_free(input);
    json_writer_free(&streamed);
    json_writer_free(&whole);
    event_list_free(&l);
    /* The block comes back with its result. */
    char body[8192];
    json_value(&whole, value_at(j, "content"));
    snprintf(body, sizeof body,
        "{\"max_tokens\":30,\"messages\":[{\"role\":\"user\",\"content\":\"" FIND_TEXT
        "\"},{\"role\":\"assistant\",\"content\":%s},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"%s\",\"content\":[{\"type\":\"text\","
        "\"text\":\"El Sol\"}]}]}],\"tools\":[" FIND_TOOL "]" GREEDY "}",
        whole.data, text_at(j, "content.0.id"));
    struct json *next = message(body), *count = api_post(server.port, COUNT, body),
                *first = api_post(server.port, COUNT, "{" FIND "}");
    ck_assert_str_eq(text_at(next, "content.0.type"), "text");
    ck_assert_int_eq(int_at(count, "input_tokens"), input_of(next));
    ck_assert_int_eq(int_at(first, "input_tokens"), input_of(j));
    ck_assert_int_gt(int_at(count, "input_tokens"), int_at(first, "input_tokens") + int_at(j, "usage.output_tokens"));
    json_writer_free(&whole);
    json_free(first);
    json_free(count);
    json_free(next);
    json_free(j);
}
END_TEST

START_TEST(cut_within_a_use)
{
    struct streamed s;
    struct json *j = message("{\"max_tokens\":22," FIND "}");
    ck_assert_str_eq(text_at(j, "stop_reason"), "max_tokens");
    ck_assert_str_eq(text_at(j, "content.0.type"), "text");
    ck_assert_ptr_nonnull(strstr(text_at(j, "content.0.text"), "<tool_call>"));
    json_free(j);
    struct event_list l = api_named_stream(server.port, PATH, "{\"max_tokens\":22,\"stream\":true," FIND "}");
    check_stream(&l, "max_tokens", &s);
    ck_assert_int_eq(s.n_uses, 1);
    event_list_free(&l);
}
END_TEST

#define TWO_TOOLS "\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"}},{\"type\":\"custom\",\"name\":\"g\"," \
                  "\"strict\":true,\"eager_input_streaming\":true,\"defer_loading\":false," \
                  "\"cache_control\":{\"type\":\"ephemeral\"},\"input_schema\":{\"type\":\"object\"," \
                  "\"properties\":{\"n\":{\"enum\":[1,2]}},\"required\":[\"n\"],\"additionalProperties\":false}}]"

START_TEST(tool_choices)
{
    struct json *none = message("{\"max_tokens\":20," FIND ",\"tool_choice\":{\"type\":\"none\"}}");
    struct json *plain =
        message("{\"max_tokens\":20,\"messages\":[{\"role\":\"user\",\"content\":\"" FIND_TEXT "\"}]" GREEDY "}");
    ck_assert_int_eq(input_of(none), input_of(plain));
    ck_assert_str_eq(text_at(none, "content.0.text"), text_at(plain, "content.0.text"));
    json_free(none);
    json_free(plain);
    json_free(message("{\"max_tokens\":20," FIND ",\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":true}}"));
    struct json *j = message(
        "{\"max_tokens\":100,\"seed\":3," OK_MESSAGE "," TWO_TOOLS ",\"tool_choice\":{\"type\":\"tool\",\"name\":\"g\"}}");
    ck_assert_str_eq(text_at(j, "stop_reason"), "tool_use");
    ck_assert_str_eq(text_at(j, "content.0.name"), "g");
    ck_assert(int_at(j, "content.0.input.n") == 1 || int_at(j, "content.0.input.n") == 2);
    json_free(j);
    j = message("{\"max_tokens\":200,\"seed\":3," OK_MESSAGE "," TWO_TOOLS
                ",\"tool_choice\":{\"type\":\"any\",\"disable_parallel_tool_use\":true}}");
    ck_assert_str_eq(text_at(j, "stop_reason"), "tool_use");
    ck_assert_uint_eq(value_at(j, "content")->count, 1);
    ck_assert_str_eq(text_at(j, "content.0.type"), "tool_use");
    json_free(j);
}
END_TEST

START_TEST(formats)
{
    struct json *j =
        message("{\"max_tokens\":100,\"seed\":5," OK_MESSAGE
                ",\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\",\"properties\":{\"a\":"
                "{\"enum\":[\"x\",\"y\"]}},\"required\":[\"a\"],\"additionalProperties\":false}}}}");
    const char *text = text_at(j, "content.0.text");
    struct json *value = json_parse(text, strlen(text), NULL, NULL);
    ck_assert_msg(value && json_root(value)->count == 1, "%s", text);
    ck_assert(strcmp(text_at(value, "a"), "x") == 0 || strcmp(text_at(value, "a"), "y") == 0);
    json_free(value);
    json_free(j);
}
END_TEST

/* ---- parameters ---- */

START_TEST(accepted)
{
    static const char *const members[] = {
        "\"system\":\"Be brief.\"", "\"system\":[{\"type\":\"text\",\"text\":\"Be brief.\","
        "\"cache_control\":{\"type\":\"ephemeral\"}}]", "\"metadata\":{\"user_id\":\"u\"}",
        "\"service_tier\":\"auto\"", "\"cache_control\":{\"type\":\"ephemeral\"}", "\"thinking\":{\"type\":\"disabled\"}",
        "\"top_p\":0.5,\"top_k\":3,\"temperature\":1",
        "\"min_p\":0.1,\"seed\":1,\"presence_penalty\":1,\"frequency_penalty\":1,\"repetition_penalty\":1.1,"
        "\"logit_bias\":{\"1\":-1}", "\"stop_sequences\":[]", "\"tools\":[]",
        "\"tool_choice\":{\"type\":\"auto\"}", "\"output_config\":{}", "\"output_config\":{\"format\":null}",
        "\"speed\":\"standard\"", "\"stream\":false",
        "\"container\":null,\"context_management\":null,\"inference_geo\":null,\"mcp_servers\":null,\"diagnostics\":null,"
        "\"system\":null,\"tools\":null,\"tool_choice\":null",
        "\"thinking\":null,\"stop_sequences\":null,\"temperature\":null,\"top_p\":null,\"top_k\":null,\"metadata\":null,"
        "\"output_config\":null,\"output_format\":null",
        "\"stop_sequences\":[\"a1\",\"a2\",\"a3\",\"a4\",\"a5\",\"a6\",\"a7\",\"a8\",\"a9\",\"b1\",\"b2\",\"b3\",\"b4\",\"b5\","
        "\"b6\",\"b7\"]",
    };
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        char body[1024];
        snprintf(body, sizeof body, "{\"max_tokens\":2," OK_MESSAGE ",%s}", members[i]);
        json_free(message(body));
        json_free(api_post(server.port, COUNT, body));
    }
}
END_TEST

START_TEST(refused)
{
    static const struct {
        const char *members, *param;
    } cases[] = {
        {"\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024}", "thinking"},
        {"\"thinking\":{\"type\":\"adaptive\"}", "thinking"},
        {"\"container\":\"c\"", "container"},
        {"\"context_management\":{\"edits\":[]}", "context_management"},
        {"\"inference_geo\":\"us\"", "inference_geo"},
        {"\"mcp_servers\":[]", "mcp_servers"},
        {"\"diagnostics\":{}", "diagnostics"},
        {"\"thread\":{\"type\":\"create\"}", "thread"},
        {"\"speed\":\"fast\"", "speed"},
        {"\"output_format\":{}", "output_format"},
        {"\"output_config\":{\"effort\":\"high\"}", "output_config.effort"},
        {"\"output_config\":{\"format\":{\"type\":\"text\"}}", "output_config.format"},
        {"\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":{\"not\":{}}}}", "output_config.format"},
        {"\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":{},\"x\":1}}", "output_config.format.x"},
        {"\"output_config\":1", "output_config"},
        {"\"system\":1", "system"},
        {"\"system\":[{\"type\":\"image\"}]", "system[0]"},
        {"\"system\":[{\"text\":\"x\"}]", "system[0].type"},
        {"\"system\":[1]", "system[0]"},
        {"\"temperature\":3", "temperature"},
        {"\"temperature\":\"hot\"", "temperature"},
        {"\"top_p\":2", "top_p"},
        {"\"top_k\":1.5", "top_k"},
        {"\"stop_sequences\":\"x\"", "stop_sequences"},
        {"\"stop_sequences\":[1]", "stop_sequences"},
        {"\"stop_sequences\":[\"\"]", "stop_sequences"},
        {"\"stop_sequences\":[\"a\\u0000b\"]", "stop_sequences"},
        {"\"stop_sequences\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\",\"12\",\"13\",\"14\",\"15\","
         "\"16\",\"17\"]", "stop_sequences"},
        {"\"stop\":[\"x\"]", "stop"},
        {"\"n\":1", "n"},
        {"\"user\":\"u\"", "user"},
        {"\"stream\":1", "stream"},
        {"\"stream_options\":{}", "stream_options"},
        {"\"model\":1", "model"},
        {"\"tool_choice\":{\"type\":\"any\"}", "tool_choice"},
        {"\"tool_choice\":\"auto\"", "tool_choice"},
        {"\"tool_choice\":{\"type\":\"always\"}", "tool_choice.type"},
        {"\"tool_choice\":{\"type\":\"tool\"}", "tool_choice.name"},
        {"\"tool_choice\":{\"type\":\"auto\",\"name\":\"f\"}", "tool_choice.name"},
        {"\"tool_choice\":{\"type\":\"auto\",\"x\":1}", "tool_choice.x"},
        {"\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":1}", "tool_choice.disable_parallel_tool_use"},
        {"\"tools\":{}", "tools"},
        {"\"tools\":[1]", "tools[0]"},
        {"\"tools\":[{\"name\":\"f\"}]", "tools[0].input_schema"},
        {"\"tools\":[{\"name\":\"f g\",\"input_schema\":{}}]", "tools[0].name"},
        {"\"tools\":[{\"name\":\"f\",\"input_schema\":[]}]", "tools[0].input_schema"},
        {"\"tools\":[{\"name\":\"f\",\"description\":1,\"input_schema\":{}}]", "tools[0].description"},
        {"\"tools\":[{\"type\":\"bash_20250124\",\"name\":\"bash\"}]", "tools[0].type"},
        {"\"tools\":[{\"type\":1,\"name\":\"f\",\"input_schema\":{}}]", "tools[0].type"},
        {"\"tools\":[{\"name\":\"f\",\"input_schema\":{},\"strict\":1}]", "tools[0].strict"},
        {"\"tools\":[{\"name\":\"f\",\"input_schema\":{\"not\":{}},\"strict\":true}]", "tools[0].input_schema"},
        {"\"tools\":[{\"name\":\"f\",\"input_schema\":{},\"defer_loading\":true}]", "tools[0].defer_loading"},
        {"\"tools\":[{\"name\":\"f\",\"input_schema\":{},\"input_examples\":[]}]", "tools[0].input_examples"},
        {"\"tools\":[{\"name\":\"f\",\"input_schema\":{}},{\"name\":\"f\",\"input_schema\":{}}]", "tools[1]"},
        {"\"tools\":[{\"name\":\"f\",\"input_schema\":{}}],\"tool_choice\":{\"type\":\"tool\",\"name\":\"g\"}", "tool_choice"},
        {"\"surprise\":1", "surprise"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[512];
        snprintf(body, sizeof body, "{\"max_tokens\":2," OK_MESSAGE ",%s}", cases[i].members);
        check_refused(PATH, body, cases[i].param);
        check_refused(COUNT, body, cases[i].param);
    }
    struct response r = ask(server.port, "POST", PATH, "", "{\"max_tokens\":2," OK_MESSAGE ",\"thread\":{\"type\":\"create\"}}");
    struct json *j = response_json(&r);
    ck_assert_str_eq(text_at(j, "error.details.error_code"), "thread_unsupported_request");
    ck_assert_str_eq(text_at(j, "error.details.unsupported.0"), "thread");
    json_free(j);
    response_free(&r);
    check_refused(PATH, "{" OK_MESSAGE "}", "max_tokens");
    check_refused(PATH, "{" OK_MESSAGE ",\"max_tokens\":0}", "max_tokens");
    check_refused(PATH, "{" OK_MESSAGE ",\"max_tokens\":\"5\"}", "max_tokens");
    check_refused(PATH, "{\"max_tokens\":5}", "messages");
    check_refused(COUNT, "{}", "messages");
    check_refused(PATH, "[]", "object");
}
END_TEST

START_TEST(blocks_refused)
{
#define USE "{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"f\",\"input\":{}}]}"
#define RESULT(members) "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\"" members "}]}"
    static const struct {
        const char *messages, *param;
    } cases[] = {
        {"1", "messages"},
        {"[]", "messages"},
        {"[1]", "messages[0]"},
        {"[{\"content\":\"x\"}]", "messages[0].role"},
        {"[{\"role\":\"tool\",\"content\":\"x\"}]", "messages[0].role"},
        {"[{\"role\":\"user\"}]", "messages[0].content"},
        {"[{\"role\":\"user\",\"content\":1}]", "messages[0].content"},
        {"[{\"role\":\"user\",\"content\":[]}]", "messages[0].content"},
        {"[{\"role\":\"user\",\"content\":[1]}]", "messages[0].content[0]"},
        {"[{\"role\":\"user\",\"content\":[{\"text\":\"x\"}]}]", "messages[0].content[0].type"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]", "messages[0].content[0].text"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":1}]}]", "messages[0].content[0]"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\",\"y\":1}]}]", "messages[0].content[0].y"},
        {"[{\"role\":\"user\",\"content\":\"x\",\"name\":\"n\"}]", "messages[0].name"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"image\",\"source\":{}}]}]",
            "\"image\""},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"document\",\"source\":{}}]}]", "\"document\""},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"f\",\"input\":{}}]}]",
            "messages[0].content[0]"},
        {"[{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"c\"}]}]", "messages[0].content[0]"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"x\"}]}]", "messages[0].content[0]"},
        {"[{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"x\",\"signature\":\"\"}]}]", "messages"},
        {"[{\"role\":\"user\",\"content\":\"x\"}," USE "]", "messages[1]"},
        {"[{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"name\":\"f\",\"input\":{}}]}]",
            "messages[0].content[0].id"},
        {"[{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"c\",\"input\":{}}]}]",
            "messages[0].content[0].name"},
        {"[{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"f\"}]}]",
            "messages[0].content[0].input"},
        {"[{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"f\",\"input\":\"{}\"}]}]",
            "messages[0].content[0].input"},
        {"[" USE "," RESULT(",\"tool_use_id\":\"d\"") "]", "messages[1].content[0].tool_use_id"},
        {"[" USE "," RESULT("") "]", "messages[1].content[0].tool_use_id"},
        {"[" RESULT(",\"tool_use_id\":\"c\"") "]", "messages[0].content[0].tool_use_id"},
        {"[" USE "," RESULT(",\"tool_use_id\":\"c\",\"is_error\":1") "]", "messages[1].content[0].is_error"},
        {"[" USE "," RESULT(",\"tool_use_id\":\"c\",\"content\":1") "]", "messages[1].content[0].content"},
        {"[" USE "," RESULT(",\"tool_use_id\":\"c\",\"content\":[{\"type\":\"image\"}]") "]",
            "messages[1].content[0].content[0]"},
        {"[" USE "," RESULT(",\"tool_use_id\":\"c\",\"x\":1") "]", "messages[1].content[0].x"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[512];
        snprintf(body, sizeof body, "{\"max_tokens\":2,\"messages\":%s}", cases[i].messages);
        check_refused(PATH, body, cases[i].param);
    }
    /* What would be held to a form cannot have begun already. */
#define BEGUN "\"max_tokens\":2,\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":\"y\"}]"
    check_refused(PATH, "{" BEGUN ",\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\"}}}}",
        "output_config.format");
    check_refused(PATH, "{" BEGUN "," TWO_TOOLS ",\"tool_choice\":{\"type\":\"any\"}}", "tool_choice");
}
END_TEST

/* ---- errors ---- */

START_TEST(errors)
{
    struct response r = ask(server.port, "GET", PATH, "", NULL);
    ck_assert_str_eq(response_header(&r, "Allow"), "POST, OPTIONS");
    free(error_of(&r, 405, "invalid_request_error"));
    r = ask(server.port, "POST", PATH "/batches", "", "{}");
    free(error_of(&r, 404, "not_found_error"));
    r = ask(server.port, "POST", PATH, "", "{\"max_tokens\":");
    free(error_of(&r, 400, "invalid_request_error"));
    /* Two Hosts: never understood beyond its path. */
    r = ask(server.port, "POST", PATH, "Origin: http://x\r\nHost: evil.example\r\n", "{}");
    free(error_of(&r, 400, "invalid_request_error"));
    /* Too long for the context, and too large to be read at all. */
    char *body = malloc(2 << 20);
    int at = sprintf(body, "{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 3000; i++)
        at += sprintf(body + at, "word ");
    strcpy(body + at, "\"}]}");
    r = ask(server.port, "POST", PATH, "", body);
    char *text = error_of(&r, 400, "invalid_request_error");
    ck_assert_ptr_nonnull(strstr(text, "1024"));
    free(text);
    struct json *count = api_post(server.port, COUNT, body); /* counting is not generating */
    ck_assert_int_gt(int_at(count, "input_tokens"), 3000);
    json_free(count);
    free(body);
    struct client c = client_open(server.port);
    client_text(
        &c, "POST " PATH " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2000000\r\n\r\n");
    ck_assert(client_read(&c, &r, false));
    free(error_of(&r, 413, "request_too_large"));
    client_close(&c);
    c = client_open(server.port);
    client_text(&c, "POST " PATH " HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}");
    ck_assert(client_read(&c, &r, false));
    free(error_of(&r, 415, "invalid_request_error"));
    client_close(&c);
    c = client_open(server.port);
    client_text(
        &c, "POST " PATH " HTTP/1.1\r\nHost: evil.example\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
    ck_assert(client_read(&c, &r, false));
    free(error_of(&r, 403, "permission_error"));
    client_close(&c);
    /* Elsewhere errors have OpenAI's form, also where the name only begins alike. */
    r = ask(server.port, "POST", PATH "x", "", "{}");
    ck_assert_int_eq(r.status, 404);
    ck_assert_ptr_nonnull(strstr(r.body, "\"param\":null"));
    response_free(&r);
}
END_TEST

START_TEST(keys)
{
    struct server s = server_start((const char *const[]){"--api-key", "sesame", NULL}, NULL);
    static const struct {
        const char *headers;
        int status;
    } cases[] = {
        {"", 401},
        {"x-api-key: wrong\r\n", 401},
        {"x-api-key: sesam\r\n", 401},
        {"x-api-key: sesamee\r\n", 401},
        {"x-api-key: Bearer sesame\r\n", 401},
        {"x-api-key:\r\n", 401},
        {"x-api-key: sesame\r\n", 200},
        {"X-API-Key: sesame\r\nAuthorization: Bearer other\r\n", 200},
        {"Authorization: Bearer sesame\r\n", 200},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct response r = ask(s.port, "POST", PATH, cases[i].headers, "{\"max_tokens\":2," OK_MESSAGE GREEDY "}");
        if (cases[i].status == 401) {
            free(error_of(&r, 401, "authentication_error"));
        } else {
            ck_assert_int_eq(r.status, 200);
            response_free(&r);
        }
        r = ask(s.port, "GET", "/v1/models", cases[i].headers, NULL); /* everywhere */
        ck_assert_int_eq(r.status, cases[i].status);
        response_free(&r);
    }
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

START_TEST(while_loading)
{
    struct server s = server_start(NULL, &(struct start){.hold_engine = true, .not_ready = true});
    struct response r = ask(s.port, "POST", PATH, "", "{\"max_tokens\":2," OK_MESSAGE "}");
    ck_assert_str_eq(response_header(&r, "Retry-After"), "1");
    free(error_of(&r, 503, "overloaded_error"));
    server_release(&s);
    server_end(&s, SIGTERM);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("api-messages");
    TCase *c = tcase_create("messages");
    tcase_set_timeout(c, 120);
    tcase_add_unchecked_fixture(c, start, stop);
    tcase_add_test(c, says_ok);
    tcase_add_test(c, stop_reasons);
    tcase_add_test(c, prefill);
    tcase_add_test(c, streams);
    tcase_add_test(c, uses_a_tool);
    tcase_add_test(c, cut_within_a_use);
    tcase_add_test(c, tool_choices);
    tcase_add_test(c, formats);
    tcase_add_test(c, accepted);
    tcase_add_test(c, refused);
    tcase_add_test(c, blocks_refused);
    tcase_add_test(c, errors);
    suite_add_tcase(s, c);
    c = tcase_create("servers of their own");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, shutdown_is_an_error_event);
    tcase_add_test(c, keys);
    tcase_add_test(c, while_loading);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
