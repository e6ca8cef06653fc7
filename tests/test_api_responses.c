/* POST /v1/responses: items, parameters, refusals, and the life cycle of a stream's events.
 * QUERN_SERVER names the program; run in the project's root. */
#include "tests/api_fixture.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH "/v1/responses"
#define GREEDY ",\"temperature\":0"
#define OK_INPUT "\"input\":\"Say OK\""
#define STORY_INPUT "\"input\":\"Tell me a story about a cat and a ball.\""
#define PARAMETERS "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"," \
                   "\"description\":\"City where the restaurant is located\"}," \
                   "\"cuisine\":{\"type\":\"string\",\"description\":\"Type of food served\"}},\"required\":[\"city\"," \
                   "\"cuisine\"]}"
#define FIND_TEXT "Find me a Mexican restaurant in San Jose."
#define TOOL_START "\"name\":\"find_restaurants\",\"description\":\"Find restaurants by location and by category\"," \
    "\"parameters\":" PARAMETERS "}"
#define FIND_TOOL "{\"type\":\"function\"," TOOL_START
#define FIND "\"input\":\"" FIND_TEXT "\",\"tools\":[" FIND_TOOL "]" GREEDY

static struct server server;

static void start(void)
{
    server = server_start((const char *const[]){"--alias", "tiny", "--temp", "0.7", NULL}, NULL);
}

static void stop(void)
{
    ck_assert_int_eq(server_end(&server, SIGTERM), 0);
}

static struct json *respond(const char *body)
{
    return api_post(server.port, PATH, body);
}

static bool is_null(const struct json *j, const char *path)
{
    const struct json_value *v = value_at(j, "%s", path);
    ck_assert_msg(v != NULL, "nothing at %s", path);
    return v->kind == JSON_NULL;
}

/* ---- whole ---- */

START_TEST(says_ok)
{
    struct json *j =
        respond("{\"model\":\"x\"," OK_INPUT GREEDY
                ",\"max_output_tokens\":10,\"instructions\":null,\"metadata\":{\"k\":\"v\"},\"user\":\"u\",\"store\":true}");
    ck_assert(strncmp(text_at(j, "id"), "resp_", 5) == 0);
    ck_assert_str_eq(text_at(j, "object"), "response");
    ck_assert_str_eq(text_at(j, "status"), "completed");
    ck_assert_str_eq(text_at(j, "model"), "tiny");
    ck_assert_int_gt(int_at(j, "created_at"), 1600000000);
    ck_assert_int_ge(int_at(j, "completed_at"), int_at(j, "created_at"));
    ck_assert(is_null(j, "error") && is_null(j, "incomplete_details") && is_null(j, "instructions") &&
              is_null(j, "previous_response_id"));
    ck_assert_uint_eq(value_at(j, "output")->count, 1);
    ck_assert(strncmp(text_at(j, "output.0.id"), "msg_", 4) == 0);
    ck_assert_str_eq(text_at(j, "output.0.type"), "message");
    ck_assert_str_eq(text_at(j, "output.0.role"), "assistant");
    ck_assert_str_eq(text_at(j, "output.0.status"), "completed");
    ck_assert_str_eq(text_at(j, "output.0.content.0.type"), "output_text");
    ck_assert_str_eq(text_at(j, "output.0.content.0.text"), "OK");
    ck_assert_uint_eq(value_at(j, "output.0.content.0.annotations")->count, 0);
    /* What was asked comes back; what is not given, at its default. Nothing is stored, whatever was asked. */
    ck_assert_str_eq(text_at(j, "metadata.k"), "v");
    ck_assert_str_eq(text_at(j, "user"), "u");
    ck_assert_int_eq(int_at(j, "max_output_tokens"), 10);
    ck_assert_int_eq(int_at(j, "temperature"), 0);
    ck_assert(number_at(j, "top_p") == 0.8);
    ck_assert_uint_eq(value_at(j, "store")->count, 0);
    ck_assert_uint_eq(value_at(j, "parallel_tool_calls")->count, 1);
    ck_assert_str_eq(text_at(j, "tool_choice"), "auto");
    ck_assert_str_eq(text_at(j, "truncation"), "disabled");
    ck_assert_str_eq(text_at(j, "text.format.type"), "text");
    ck_assert_uint_eq(value_at(j, "tools")->count, 0);
    int64_t in = int_at(j, "usage.input_tokens"), out = int_at(j, "usage.output_tokens");
    ck_assert_int_eq(out, 1);
    ck_assert_int_eq(int_at(j, "usage.total_tokens"), in + out);
    ck_assert_int_ge(int_at(j, "usage.input_tokens_details.cached_tokens"), 0);
    ck_assert_int_lt(int_at(j, "usage.input_tokens_details.cached_tokens"), in);
    ck_assert_int_eq(int_at(j, "usage.output_tokens_details.reasoning_tokens"), 0);
    struct json *chat = api_post(server.port, CHAT, "{" OK_MESSAGE GREEDY "}");
    ck_assert_int_eq(int_at(chat, "usage.prompt_tokens"), in);
    json_free(chat);
    json_free(j);
    j = api_post(server.port, "/responses", "{" OK_INPUT "}"); /* the address without /v1 */
    ck_assert(number_at(j, "temperature") == 0.7);
    json_free(j);
}
END_TEST

START_TEST(cut_short)
{
    struct json *j = respond("{" STORY_INPUT GREEDY ",\"max_output_tokens\":5}");
    ck_assert_str_eq(text_at(j, "status"), "incomplete");
    ck_assert_str_eq(text_at(j, "incomplete_details.reason"), "max_output_tokens");
    ck_assert(is_null(j, "completed_at"));
    ck_assert_str_eq(text_at(j, "output.0.status"), "incomplete");
    ck_assert_int_eq(int_at(j, "usage.output_tokens"), 5);
    json_free(j);
}
END_TEST

/* What is long comes back only when it is not absurdly long: a stream says it three times. */
START_TEST(long_metadata_does_not_come_back)
{
    for (int i = 0; i < 2; i++) {
        static const char begin[] = "{" OK_INPUT GREEDY ",\"tool_choice\":\"none\",\"metadata\":{\"k\":\"";
        struct json_writer body = {0};
        json_raw(&body, begin, sizeof begin - 1);
        for (int k = 0; k < (i ? 30000 : 10000); k++)
            json_raw(&body, "ten bytes ", 10);
        json_raw(&body, "\"}}", 3);
        struct json *j = respond(body.data);
        const struct json_value *k = value_at(j, "metadata.k");
        ck_assert_int_eq(k != NULL, i == 0);
        ck_assert_str_eq(text_at(j, "tool_choice"), "none");
        ck_assert_int_eq(int_at(j, "temperature"), 0);
        json_free(j);
        json_writer_free(&body);
    }
}
END_TEST

/* ---- streams ---- */

struct streamed {
    char text[4096];      /* of all messages */
    char arguments[1024]; /* of the last call */
    char name[64];
    int n_items, n_calls, n_deltas;
    const struct json *last; /* the response at the end; l must live */
};

static bool is(const struct json *j, const char *type)
{
    return strcmp(text_at(j, "type"), type) == 0;
}

static void in_progress(const struct json *j, const char *type)
{
    ck_assert_str_eq(text_at(j, "type"), type);
    ck_assert_str_eq(text_at(j, "response.status"), "in_progress");
    ck_assert_uint_eq(value_at(j, "response.output")->count, 0);
    ck_assert(is_null(j, "response.usage"));
}

static void check_item_event(const struct json *j, const char *type, const char *id, int index)
{
    ck_assert_str_eq(text_at(j, "type"), type);
    ck_assert_str_eq(text_at(j, "item_id"), id);
    ck_assert_int_eq(int_at(j, "output_index"), index);
    if (value_at(j, "content_index"))
        ck_assert_int_eq(int_at(j, "content_index"), 0);
}

/* One message from its added to its done; returns the index behind. */
static int check_message(const struct event_list *l, int i, struct streamed *s)
{
    char id[64], text[4096] = "";
    snprintf(id, sizeof id, "%s", text_at(l->events[i], "item.id"));
    ck_assert(strncmp(id, "msg_", 4) == 0);
    ck_assert_str_eq(text_at(l->events[i], "item.role"), "assistant");
    ck_assert_uint_eq(value_at(l->events[i], "item.content")->count, 0);
    check_item_event(l->events[++i], "response.content_part.added", id, s->n_items);
    ck_assert_str_eq(text_at(l->events[i], "part.type"), "output_text");
    ck_assert_str_eq(text_at(l->events[i], "part.text"), "");
    for (i++; is(l->events[i], "response.output_text.delta"); i++, s->n_deltas++) {
        check_item_event(l->events[i], "response.output_text.delta", id, s->n_items);
        ck_assert_uint_gt(value_at(l->events[i], "delta")->count, 0);
        ck_assert_uint_eq(value_at(l->events[i], "logprobs")->count, 0);
        strcat(text, text_at(l->events[i], "delta"));
    }
    check_item_event(l->events[i], "response.output_text.done", id, s->n_items);
    ck_assert_str_eq(text_at(l->events[i], "text"), text);
    check_item_event(l->events[++i], "response.content_part.done", id, s->n_items);
    ck_assert_str_eq(text_at(l->events[i], "part.text"), text);
    ck_assert_str_eq(text_at(l->events[++i], "type"), "response.output_item.done");
    ck_assert_str_eq(text_at(l->events[i], "item.id"), id);
    ck_assert_str_eq(text_at(l->events[i], "item.content.0.text"), text);
    strcat(s->text, text);
    return i + 1;
}

static int check_call(const struct event_list *l, int i, struct streamed *s)
{
    char id[64], call_id[64];
    snprintf(id, sizeof id, "%s", text_at(l->events[i], "item.id"));
    snprintf(call_id, sizeof call_id, "%s", text_at(l->events[i], "item.call_id"));
    snprintf(s->name, sizeof s->name, "%s", text_at(l->events[i], "item.name"));
    ck_assert(strncmp(id, "fc_", 3) == 0 && strncmp(call_id, "call_", 5) == 0);
    ck_assert_str_eq(text_at(l->events[i], "item.arguments"), "");
    s->arguments[0] = '\0';
    for (i++; is(l->events[i], "response.function_call_arguments.delta"); i++) {
        check_item_event(l->events[i], "response.function_call_arguments.delta", id, s->n_items);
        strcat(s->arguments, text_at(l->events[i], "delta"));
    }
    check_item_event(l->events[i], "response.function_call_arguments.done", id, s->n_items);
    ck_assert_str_eq(text_at(l->events[i], "arguments"), s->arguments);
    ck_assert_str_eq(text_at(l->events[i], "name"), s->name);
    ck_assert_str_eq(text_at(l->events[++i], "type"), "response.output_item.done");
    ck_assert_str_eq(text_at(l->events[i], "item.id"), id);
    ck_assert_str_eq(text_at(l->events[i], "item.call_id"), call_id);
    ck_assert_str_eq(text_at(l->events[i], "item.name"), s->name);
    ck_assert_str_eq(text_at(l->events[i], "item.arguments"), s->arguments);
    s->n_calls++;
    return i + 1;
}

/* Every event of the life cycle, in its place and with what belongs in it. */
static void check_stream(const struct event_list *l, const char *end, struct streamed *s)
{
    memset(s, 0, sizeof *s);
    ck_assert_int_gt(l->n, 3);
    in_progress(l->events[0], "response.created");
    in_progress(l->events[1], "response.in_progress");
    for (int k = 0; k < l->n; k++)
        ck_assert_int_eq(int_at(l->events[k], "sequence_number"), k);
    int i = 2;
    while (is(l->events[i], "response.output_item.added")) {
        ck_assert_int_eq(int_at(l->events[i], "output_index"), s->n_items);
        ck_assert_str_eq(text_at(l->events[i], "item.status"), "in_progress");
        bool message = strcmp(text_at(l->events[i], "item.type"), "message") == 0;
        if (!message)
            ck_assert_str_eq(text_at(l->events[i], "item.type"), "function_call");
        i = message ? check_message(l, i, s) : check_call(l, i, s);
        ck_assert_int_eq(int_at(l->events[i - 1], "output_index"), s->n_items);
        /* The item is the same in the response at the end. */
        struct json_writer item = {0}, listed = {0};
        json_value(&item, value_at(l->events[i - 1], "item"));
        json_value(&listed, value_at(l->events[l->n - 1], "response.output.%d", s->n_items));
        ck_assert_str_eq(item.data, listed.data);
        json_writer_free(&item);
        json_writer_free(&listed);
        s->n_items++;
    }
    ck_assert_int_eq(i, l->n - 1);
    s->last = l->events[i];
    ck_assert_str_eq(text_at(s->last, "type"), end);
    ck_assert_str_eq(text_at(s->last, "response.status"), strchr(end, '.') + 1);
    ck_assert_str_eq(text_at(s->last, "response.id"), text_at(l->events[0], "response.id"));
    ck_assert_uint_eq(value_at(s->last, "response.output")->count, (uint32_t)s->n_items);
    ck_assert_int_gt(int_at(s->last, "response.usage.total_tokens"), 0);
}

START_TEST(streams)
{
    struct streamed s;
    struct json *whole = respond("{" STORY_INPUT GREEDY ",\"max_output_tokens\":60}");
    struct event_list l = api_named_stream(server.port, PATH, "{" STORY_INPUT GREEDY ",\"max_output_tokens\":60,\"stream\":true,"
        "\"metadata\":{\"k\":\"v\"},\"stream_options\":{\"include_obfuscation\":false}}");
    check_stream(&l, "response.incomplete", &s);
    ck_assert_str_eq(s.text, text_at(whole, "output.0.content.0.text"));
    ck_assert_int_gt(s.n_deltas, 20);
    ck_assert_str_eq(text_at(s.last, "response.output.0.status"), "incomplete");
    ck_assert_str_eq(text_at(s.last, "response.incomplete_details.reason"), "max_output_tokens");
    ck_assert_str_eq(text_at(s.last, "response.metadata.k"), "v");
    ck_assert_int_eq(int_at(s.last, "response.usage.output_tokens"), 60);
    ck_assert_int_eq(int_at(s.last, "response.usage.input_tokens"), int_at(whole, "usage.input_tokens"));
    event_list_free(&l);
    json_free(whole);
    l = api_named_stream(server.port, PATH, "{" OK_INPUT GREEDY ",\"stream\":true}");
    check_stream(&l, "response.completed", &s);
    ck_assert_str_eq(s.text, "OK");
    ck_assert_str_eq(text_at(s.last, "response.output.0.status"), "completed");
    event_list_free(&l);
}
END_TEST

/* A model that ends its turn at once still gives a message. */
START_TEST(empty_answer)
{
    struct json *j = api_post(server.port, "/tokenize", "{\"content\":\"<|im_end|>\"}");
    int end = (int)int_at(j, "tokens.0");
    json_free(j);
    char body[256];
    for (int stream = 0; stream < 2; stream++) {
        snprintf(
            body, sizeof body, "{" OK_INPUT GREEDY ",\"logit_bias\":{\"%d\":100},\"stream\":%s}", end, stream ? "true" : "false");
        if (stream) {
            struct streamed s;
            struct event_list l = api_named_stream(server.port, PATH, body);
            check_stream(&l, "response.completed", &s);
            ck_assert_int_eq(s.n_items, 1);
            ck_assert_str_eq(s.text, "");
            event_list_free(&l);
        } else {
            j = respond(body);
            ck_assert_str_eq(text_at(j, "output.0.content.0.text"), "");
            ck_assert_str_eq(text_at(j, "status"), "completed");
            json_free(j);
        }
    }
}
END_TEST

START_TEST(shutdown_fails_the_response)
{
    struct streamed s;
    struct event_list l = api_cut_stream(PATH, "{" STORY_INPUT GREEDY ",\"stream\":true}", "response.output_text.delta");
    check_stream(&l, "response.failed", &s);
    ck_assert_str_eq(text_at(s.last, "response.error.code"), "server_error");
    ck_assert_ptr_nonnull(strstr(text_at(s.last, "response.error.message"), "shutting down"));
    ck_assert_str_eq(text_at(s.last, "response.output.0.status"), "incomplete");
    event_list_free(&l);
}
END_TEST

/* ---- tools ---- */

START_TEST(calls_a_tool)
{
    struct streamed s;
    struct json *j = respond("{" FIND "}");
    ck_assert_str_eq(text_at(j, "status"), "completed");
    ck_assert_uint_eq(value_at(j, "output")->count, 1);
    ck_assert_str_eq(text_at(j, "output.0.type"), "function_call");
    ck_assert_str_eq(text_at(j, "output.0.status"), "completed");
    ck_assert_str_eq(text_at(j, "output.0.name"), "find_restaurants");
    ck_assert(strncmp(text_at(j, "output.0.id"), "fc_", 3) == 0 && strncmp(text_at(j, "output.0.call_id"), "call_", 5) == 0);
    ck_assert_str_eq(text_at(j, "tools.0.name"), "find_restaurants");
    struct json *arguments = json_parse(text_at(j, "output.0.arguments"), strlen(text_at(j, "output.0.arguments")), NULL, NULL);
    ck_assert_str_eq(text_at(arguments, "city"), "San Jose");
    json_free(arguments);
    struct event_list l = api_named_stream(server.port, PATH, "{" FIND ",\"stream\":true}");
    check_stream(&l, "response.completed", &s);
    ck_assert_int_eq(s.n_calls, 1);
    ck_assert_int_eq(s.n_items, 1);
    ck_assert_str_eq(s.name, "find_restaurants");
    ck_assert_str_eq(s.arguments, text_at(j, "output.0.arguments"));
    event_list_free(&l);

    /* The call comes back with its result: the prompt is that of the same conversation as a chat. */
    char body[8192];
    struct json_writer call = {0};
    json_value(&call, value_at(j, "output.0"));
    snprintf(body, sizeof body,
        "{\"input\":[{\"role\":\"user\",\"content\":\"" FIND_TEXT
        "\"},%s,{\"type\":\"function_call_output\",\"call_id\":\"%s\",\"output\":\"El Sol\"}],"
        "\"tools\":[" FIND_TOOL "]" GREEDY ",\"max_output_tokens\":30}",
        call.data, text_at(j, "output.0.call_id"));
    struct json *next = respond(body);
    json_writer_free(&call);
    json_string(&call, text_at(j, "output.0.arguments"), strlen(text_at(j, "output.0.arguments")));
    snprintf(body, sizeof body,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"" FIND_TEXT
        "\"},{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\",\"type\":\"function\","
        "\"function\":{\"name\":\"find_restaurants\",\"arguments\":%s}}]},{\"role\":\"tool\",\"tool_call_id\":\"a\","
        "\"content\":\"El Sol\"}],"
        "\"tools\":[{\"type\":\"function\",\"function\":{" TOOL_START "}]" GREEDY ",\"max_tokens\":30}",
        call.data);
    struct json *chat = api_post(server.port, CHAT, body);
    ck_assert_int_eq(int_at(next, "usage.input_tokens"), int_at(chat, "usage.prompt_tokens"));
    ck_assert_str_eq(text_at(next, "output.0.content.0.text"), text_at(chat, "choices.0.message.content"));
    json_writer_free(&call);
    json_free(next);
    json_free(chat);
    json_free(j);
}
END_TEST

/* Whole, half a call is text; streamed, it has begun and is marked. */
START_TEST(cut_within_a_call)
{
    struct streamed s;
    struct json *j = respond("{" FIND ",\"max_output_tokens\":22}");
    ck_assert_str_eq(text_at(j, "status"), "incomplete");
    ck_assert_ptr_nonnull(strstr(text_at(j, "output.0.content.0.text"), "<tool_call>"));
    json_free(j);
    struct event_list l = api_named_stream(server.port, PATH, "{" FIND ",\"max_output_tokens\":22,\"stream\":true}");
    check_stream(&l, "response.incomplete", &s);
    ck_assert_int_eq(s.n_calls, 1);
    ck_assert_str_eq(text_at(s.last, "response.output.0.status"), "incomplete");
    event_list_free(&l);
}
END_TEST

START_TEST(tool_choices)
{
    struct streamed s;
    struct json *none = respond(
        "{\"input\":\"" FIND_TEXT "\",\"tools\":[" FIND_TOOL "],\"tool_choice\":\"none\"" GREEDY ",\"max_output_tokens\":20}");
    struct json *plain = respond("{\"input\":\"" FIND_TEXT "\"" GREEDY ",\"max_output_tokens\":20}");
    ck_assert_int_eq(int_at(none, "usage.input_tokens"), int_at(plain, "usage.input_tokens"));
    ck_assert_str_eq(text_at(none, "output.0.content.0.text"), text_at(plain, "output.0.content.0.text"));
    ck_assert_str_eq(text_at(none, "tool_choice"), "none");
    json_free(none);
    json_free(plain);
#define TWO_TOOLS "\"tools\":[{\"type\":\"function\",\"name\":\"f\"},{\"type\":\"function\",\"name\":\"g\",\"strict\":true," \
                  "\"parameters\":{\"type\":\"object\",\"properties\":{\"n\":" \
                  "{\"enum\":[1,2]}},\"required\":[\"n\"],\"additionalProperties\":false}}]"
    struct json *j = respond("{" OK_INPUT ",\"seed\":3,\"max_output_tokens\":80," TWO_TOOLS
                             ",\"tool_choice\":{\"type\":\"function\",\"name\":\"g\"}}");
    ck_assert_str_eq(text_at(j, "output.0.type"), "function_call");
    ck_assert_str_eq(text_at(j, "output.0.name"), "g");
    ck_assert(strstr(text_at(j, "output.0.arguments"), "1") || strstr(text_at(j, "output.0.arguments"), "2"));
    ck_assert_str_eq(text_at(j, "tool_choice.name"), "g");
    json_free(j);
    /* One call at most. The calls of a stream are items one after another. */
    struct event_list l = api_named_stream(server.port, PATH,
        "{" OK_INPUT ",\"seed\":3,\"max_output_tokens\":200," TWO_TOOLS
        ",\"tool_choice\":\"required\",\"parallel_tool_calls\":false,\"stream\":true}");
    check_stream(&l, "response.completed", &s);
    ck_assert_int_eq(s.n_items, 1);
    ck_assert_int_eq(s.n_calls, 1);
    ck_assert_uint_eq(value_at(s.last, "response.parallel_tool_calls")->count, 0);
    event_list_free(&l);
}
END_TEST

START_TEST(formats)
{
    struct json *j = respond("{" OK_INPUT ",\"seed\":5,\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"n\","
        "\"strict\":true,\"description\":\"d\",\"schema\":{\"type\":\"object\","
                             "\"properties\":{\"a\":{\"enum\":[\"x\",\"y\"]}},\"required\":[\"a\"],"
                             "\"additionalProperties\":false}},\"verbosity\":\"medium\"}}");
    const char *text = text_at(j, "output.0.content.0.text");
    struct json *value = json_parse(text, strlen(text), NULL, NULL);
    ck_assert_msg(value && json_root(value)->count == 1, "%s", text);
    ck_assert(strcmp(text_at(value, "a"), "x") == 0 || strcmp(text_at(value, "a"), "y") == 0);
    json_free(value);
    ck_assert_str_eq(text_at(j, "text.format.type"), "json_schema");
    ck_assert_str_eq(text_at(j, "text.format.name"), "n");
    ck_assert_uint_eq(value_at(j, "text.format.schema.required")->count, 1);
    json_free(j);
    j = respond("{" OK_INPUT ",\"seed\":5,\"max_output_tokens\":400,\"text\":{\"format\":{\"type\":\"json_object\"}}}");
    ck_assert_int_eq(text_at(j, "output.0.content.0.text")[0], '{');
    json_free(j);
}
END_TEST

/* ---- parameters ---- */

START_TEST(accepted)
{
    static const char *const members[] = {
        "\"model\":\"any\"", "\"include\":[]", "\"include\":[\"reasoning.encrypted_content\"]",
        "\"reasoning\":{\"effort\":\"none\",\"summary\":\"auto\"}", "\"reasoning\":{}",
        "\"text\":{}", "\"text\":{\"format\":{\"type\":\"text\"},\"verbosity\":\"medium\"}", "\"truncation\":\"disabled\"",
        "\"background\":false", "\"store\":false",
        "\"metadata\":{}", "\"user\":\"u\",\"safety_identifier\":\"s\",\"prompt_cache_key\":\"k\","
        "\"prompt_cache_retention\":\"24h\",\"service_tier\":\"auto\"",
        "\"top_logprobs\":0", "\"tools\":[]", "\"tools\":[],\"tool_choice\":\"auto\"", "\"parallel_tool_calls\":true",
        "\"top_p\":0.5", "\"top_k\":5,\"min_p\":0.1,\"seed\":1,\"stop\":[\"x\"]",
        "\"presence_penalty\":0.5,\"frequency_penalty\":0.5,\"repetition_penalty\":1.1,\"logit_bias\":{\"1\":-1}",
        "\"previous_response_id\":null,\"conversation\":null,\"prompt\":null,\"background\":null,\"truncation\":null,"
        "\"tools\":null,\"tool_choice\":null,\"text\":null,\"reasoning\":null",
        "\"include\":null,\"metadata\":null,\"max_output_tokens\":null,\"temperature\":null,\"top_p\":null,"
        "\"max_tool_calls\":null,\"stream\":null,\"stream_options\":null,\"user\":null,\"n\":null",
    };
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        char body[1024];
        snprintf(body, sizeof body, "{" OK_INPUT ",%s%s}", members[i],
            strstr(members[i], "max_output_tokens") ? "" : ",\"max_output_tokens\":3");
        json_free(respond(body));
    }
}
END_TEST

START_TEST(refused)
{
    static const struct {
        const char *members, *param;
    } cases[] = {
        {"\"previous_response_id\":\"resp_1\"", "previous_response_id"},
        {"\"conversation\":\"conv_1\"", "conversation"},
        {"\"conversation\":{\"id\":\"conv_1\"}", "conversation"},
        {"\"background\":true", "background"},
        {"\"background\":1", "background"},
        {"\"prompt\":{\"id\":\"p\"}", "prompt"},
        {"\"context_management\":[]", "context_management"},
        {"\"moderation\":{}", "moderation"},
        {"\"max_tool_calls\":3", "max_tool_calls"},
        {"\"n\":2", "n"},
        {"\"truncation\":\"auto\"", "truncation"},
        {"\"include\":[\"reasoning.encrypted_content\",\"message.output_text.logprobs\"]", "include[1]"},
        {"\"include\":[1]", "include[0]"},
        {"\"include\":\"x\"", "include"},
        {"\"top_logprobs\":2", "top_logprobs"},
        {"\"reasoning\":{\"effort\":\"high\"}", "reasoning.effort"},
        {"\"reasoning\":{\"summary\":\"detailed\"}", "reasoning.summary"},
        {"\"reasoning\":{\"x\":1}", "reasoning.x"},
        {"\"reasoning\":1", "reasoning"},
        {"\"text\":{\"verbosity\":\"low\"}", "text.verbosity"},
        {"\"text\":{\"format\":{\"type\":\"grammar\"}}", "text.format.type"},
        {"\"text\":{\"format\":{\"type\":\"text\",\"x\":1}}", "text.format.x"},
        {"\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"n\"}}", "text.format.schema"},
        {"\"text\":{\"format\":{\"type\":\"json_schema\",\"schema\":{}}}", "text.format.name"},
        {"\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"n\",\"schema\":{},\"strict\":1}}", "text.format.strict"},
        {"\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"n\",\"schema\":{\"type\":\"object\",\"if\":{}}}}",
            "text.format.schema"},
        {"\"text\":{\"format\":[]}", "text.format"},
        {"\"text\":{\"x\":1}", "text.x"},
        {"\"text\":\"x\"", "text"},
        {"\"instructions\":[]", "instructions"},
        {"\"max_output_tokens\":0", "max_output_tokens"},
        {"\"max_output_tokens\":\"5\"", "max_output_tokens"},
        {"\"temperature\":3", "temperature"},
        {"\"top_p\":-1", "top_p"},
        {"\"metadata\":{\"k\":1}", "metadata"},
        {"\"metadata\":[]", "metadata"},
        {"\"store\":\"no\"", "store"},
        {"\"stream\":1", "stream"},
        {"\"stream_options\":{\"include_obfuscation\":true}", "stream_options.include_obfuscation"},
        {"\"stream_options\":{\"include_usage\":true}", "stream_options.include_usage"},
        {"\"stream_options\":1", "stream_options"},
        {"\"model\":1", "model"},
        {"\"messages\":[]", "messages"},
        {"\"max_tokens\":5", "max_tokens"},
        {"\"response_format\":{\"type\":\"text\"}", "response_format"},
        {"\"parallel_tool_calls\":0", "parallel_tool_calls"},
        {"\"tools\":{}", "tools"},
        {"\"tools\":[1]", "tools[0]"},
        {"\"tools\":[{\"name\":\"f\"}]", "tools[0].type"},
        {"\"tools\":[{\"type\":\"web_search\"}]", "tools[0].type"},
        {"\"tools\":[{\"type\":\"custom\",\"name\":\"f\"}]", "tools[0].type"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]", "tools[0].function"},
        {"\"tools\":[{\"type\":\"function\",\"name\":\"has space\"}]", "tools[0].name"},
        {"\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"description\":1}]", "tools[0].description"},
        {"\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"parameters\":1}]", "tools[0].parameters"},
        {"\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"strict\":1}]", "tools[0].strict"},
        {"\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"strict\":true,\"parameters\":{\"not\":{}}}]", "tools[0].parameters"},
        {"\"tools\":[{\"type\":\"function\",\"name\":\"f\"},{\"type\":\"function\",\"name\":\"f\"}]", "tools[1]"},
        {"\"tool_choice\":\"required\"", "tool_choice"},
        {"\"tool_choice\":\"always\"", "tool_choice"},
        {"\"tool_choice\":{\"type\":\"web_search\"}", "tool_choice"},
        {"\"tools\":[{\"type\":\"function\",\"name\":\"f\"}],\"tool_choice\":{\"type\":\"function\",\"name\":\"g\"}",
            "tool_choice"},
        {"\"tools\":[{\"type\":\"function\",\"name\":\"f\"}],\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":\"auto\","
         "\"tools\":[]}",
            "tool_choice"},
        {"\"surprise\":1", "surprise"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[512];
        snprintf(body, sizeof body, "{" OK_INPUT ",%s}", cases[i].members);
        api_refused(server.port, PATH, body, cases[i].param);
    }
    api_refused(server.port, PATH, "{\"model\":\"x\"}", "input");
    api_refused(server.port, PATH, "{\"input\":null}", "input");
    /* An error, not an empty stream. */
    struct response r = ask(server.port, "POST", PATH, "", "{" OK_INPUT ",\"stream\":true,\"temperature\":\"hot\"}");
    ck_assert_int_eq(r.status, 400);
    response_free(&r);
    r = ask(server.port, "GET", PATH "/resp_1", "", NULL); /* nothing is stored */
    ck_assert_int_eq(r.status, 404);
    response_free(&r);
    r = ask(server.port, "POST", PATH, "", "[1]");
    ck_assert_int_eq(r.status, 400);
    response_free(&r);
}
END_TEST

#define CALL_ITEM "{\"type\":\"function_call\",\"call_id\":\"c\",\"name\":\"f\",\"arguments\":\"{}\"}"

START_TEST(items_refused)
{
    static const struct {
        const char *input, *param;
    } cases[] = {
        {"1", "input"},
        {"[]", "input"},
        {"[1]", "input[0]"},
        {"[{\"type\":\"reasoning\",\"summary\":[]}]", "input"},
        {"[{\"type\":1}]", "input[0].type"},
        {"[{\"type\":\"item_reference\",\"id\":\"msg_1\"}]", "input[0]"},
        {"[{\"type\":\"web_search_call\",\"id\":\"x\"}]", "input[0]"},
        {"[{\"content\":\"x\"}]", "input[0].role"},
        {"[{\"role\":\"tool\",\"content\":\"x\"}]", "input[0].role"},
        {"[{\"role\":\"user\"}]", "input[0].content"},
        {"[{\"role\":\"user\",\"content\":1}]", "input[0].content"},
        {"[{\"role\":\"user\",\"content\":[1]}]", "input[0].content[0]"},
        {"[{\"role\":\"user\",\"content\":[{\"text\":\"x\"}]}]", "input[0].content[0]"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"x\"},{\"type\":\"input_image\","
         "\"image_url\":\"x\"}]}]", "input[0].content[1]"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"input_file\",\"file_id\":\"x\"}]}]", "input[0].content[0]"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":1}]}]", "input[0].content[0]"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"x\",\"y\":1}]}]", "input[0].content[0].y"},
        {"[{\"role\":\"user\",\"content\":\"x\",\"name\":\"n\"}]", "input[0].name"},
        {"[{\"type\":\"function_call\",\"name\":\"f\",\"arguments\":\"{}\"}]", "input[0].call_id"},
        {"[{\"type\":\"function_call\",\"call_id\":\"\",\"name\":\"f\",\"arguments\":\"{}\"}]", "input[0].call_id"},
        {"[{\"type\":\"function_call\",\"call_id\":\"c\",\"arguments\":\"{}\"}]", "input[0].name"},
        {"[{\"type\":\"function_call\",\"call_id\":\"c\",\"name\":\"f\"}]", "input[0].arguments"},
        {"[{\"type\":\"function_call\",\"call_id\":\"c\",\"name\":\"f\",\"arguments\":3}]", "input[0].arguments"},
        {"[{\"type\":\"function_call\",\"call_id\":\"c\",\"name\":\"f\",\"arguments\":\"{}\",\"x\":1}]", "input[0].x"},
        {"[" CALL_ITEM ",{\"type\":\"function_call_output\",\"output\":\"x\"}]", "input[1].call_id"},
        {"[" CALL_ITEM ",{\"type\":\"function_call_output\",\"call_id\":\"d\",\"output\":\"x\"}]", "input[1].call_id"},
        {"[{\"type\":\"function_call_output\",\"call_id\":\"c\",\"output\":\"x\"}," CALL_ITEM "]", "input[0].call_id"},
        {"[" CALL_ITEM ",{\"type\":\"function_call_output\",\"call_id\":\"c\"}]", "input[1].output"},
        {"[" CALL_ITEM ",{\"type\":\"function_call_output\",\"call_id\":\"c\",\"output\":[{\"type\":\"input_image\"}]}]",
         "input[1].output[0]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[512];
        snprintf(body, sizeof body, "{\"input\":%s}", cases[i].input);
        api_refused(server.port, PATH, body, cases[i].param);
    }
}
END_TEST

START_TEST(too_long)
{
    char *body = malloc(20000);
    int at = sprintf(body, "{\"input\":\"");
    for (int i = 0; i < 3000; i++)
        at += sprintf(body + at, "word ");
    strcpy(body + at, "\"}");
    struct response r = ask(server.port, "POST", PATH, "", body);
    ck_assert_int_eq(r.status, 400);
    struct json *j = response_json(&r);
    ck_assert_str_eq(text_at(j, "error.code"), "context_length_exceeded");
    ck_assert_str_eq(text_at(j, "error.param"), "input");
    ck_assert_ptr_nonnull(strstr(text_at(j, "error.message"), "1024"));
    json_free(j);
    response_free(&r);
    free(body);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("api-responses");
    TCase *c = tcase_create("responses");
    tcase_set_timeout(c, 120);
    tcase_add_unchecked_fixture(c, start, stop);
    tcase_add_test(c, says_ok);
    tcase_add_test(c, cut_short);
    tcase_add_test(c, long_metadata_does_not_come_back);
    tcase_add_test(c, streams);
    tcase_add_test(c, empty_answer);
    tcase_add_test(c, calls_a_tool);
    tcase_add_test(c, cut_within_a_call);
    tcase_add_test(c, tool_choices);
    tcase_add_test(c, formats);
    tcase_add_test(c, accepted);
    tcase_add_test(c, refused);
    tcase_add_test(c, items_refused);
    tcase_add_test(c, too_long);
    suite_add_tcase(s, c);
    c = tcase_create("shutdown");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, shutdown_fails_the_response);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
