/* server/request (turns, responses_items and messages_content): items and content blocks become, to the letter,
 * the conversation that the same messages of a chat are. */
#include "server/request/chat_messages.h"
#include "server/request/messages_content.h"
#include "server/request/responses_items.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *render(struct chat_request *r)
{
    size_t length;
    r->chat.add_generation_prompt = true;
    char *text = chat_render(&r->chat, &length);
    ck_assert_ptr_nonnull(text);
    return text;
}

/* What the chat API makes of {"messages", "tools"}. */
static char *from_chat(const char *text)
{
    struct json *j = json_parse(text, strlen(text), NULL, NULL);
    ck_assert_msg(j != NULL, "%s", text);
    struct chat_request r = {0};
    struct api_error err;
    const struct json_value *tools = json_get(json_root(j), "tools");
    ck_assert_msg(
        chat_read_messages(&r, json_get(json_root(j), "messages"), &err) && (!tools || chat_read_tools(&r, tools, &err)), "%s",
        err.message);
    char *out = render(&r);
    chat_request_free(&r);
    json_free(j);
    return out;
}

/* ... the Responses API of {"instructions", "input", "tools"}, or the Messages API of {"system",
 * "messages", "tools"}. NULL: refused, at err->param. */
static char *from_items(const char *text, bool messages, char **prefill, struct api_error *err)
{
    struct json *j = json_parse(text, strlen(text), NULL, NULL);
    ck_assert_msg(j != NULL, "%s", text);
    struct chat_request r = {0};
    struct chat_text before = {0};
    const struct json_value *root = json_root(j), *tools = json_get(root, "tools");
    bool ok = messages ? (!tools || messages_read_tools(&r, tools, err)) &&
                             messages_read(&r, json_get(root, "system"), json_get(root, "messages"), &before, err)
                       : (!tools || responses_read_tools(&r, tools, err)) &&
                             responses_read_input(&r, json_get(root, "instructions"), json_get(root, "input"), err);
    char *out = ok ? render(&r) : NULL;
    if (prefill)
        *prefill = before.data ? strndup(before.data, before.length) : NULL;
    else
        ck_assert_ptr_null(before.data);
    chat_request_free(&r);
    json_free(j);
    return out;
}

static void same(const char *chat, const char *responses, const char *messages)
{
    struct api_error err;
    char *wanted = from_chat(chat);
    for (int i = 0; i < 2; i++) {
        if (!(i ? messages : responses))
            continue;
        char *got = from_items(i ? messages : responses, i, NULL, &err);
        ck_assert_msg(got != NULL, "%s: %s", i ? messages : responses, got ? "" : err.message);
        ck_assert_str_eq(got, wanted);
        free(got);
    }
    free(wanted);
}

START_TEST(messages)
{
    same("{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}", "{\"input\":\"Hi\"}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}");
    same("{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":\"a\\nb\"},"
         "{\"role\":\"assistant\",\"content\":\"c\"},{\"role\":\"user\",\"content\":\"\"}]}",
         "{\"instructions\":\"Be brief.\",\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"a\"},"
         "{\"type\":\"input_text\",\"text\":\"b\"}]},"
         "{\"type\":\"reasoning\",\"id\":\"rs_1\",\"summary\":[],\"encrypted_content\":\"x\"},"
         "{\"type\":\"message\",\"id\":\"msg_1\",\"status\":\"completed\",\"role\":\"assistant\","
         "\"content\":[{\"type\":\"output_text\",\"text\":\"c\",\"annotations\":[],\"logprobs\":[]}]},"
         "{\"role\":\"user\",\"content\":\"\"}]}",
         "{\"system\":[{\"type\":\"text\",\"text\":\"Be brief.\",\"cache_control\":{\"type\":\"ephemeral\"}}],"
         "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
         "{\"type\":\"text\",\"text\":\"b\",\"citations\":null}]},{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\","
         "\"thinking\":\"hm\",\"signature\":\"x\"},"
         "{\"type\":\"redacted_thinking\",\"data\":\"x\"},{\"type\":\"text\",\"text\":\"c\"}]},{\"role\":\"user\","
         "\"content\":[{\"type\":\"text\",\"text\":\"\"}]}]}");
    same("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"assistant\","
         "\"content\":\"no\"},{\"role\":\"user\",\"content\":\"b\"}]}",
         "{\"input\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"developer\",\"content\":\"s\"},{\"role\":\"assistant\","
         "\"content\":[{\"type\":\"refusal\",\"refusal\":\"no\"}]},{\"type\":\"message\",\"role\":\"user\",\"content\":\"b\"}]}",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"assistant\","
         "\"content\":\"no\"},{\"role\":\"user\",\"content\":\"b\"}]}");
}
END_TEST

#define CHAT_TOOL_F "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"does \\\"f\\\"\"," \
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"b\":{},\"a\":{}}}}}"

START_TEST(tools)
{
    same("{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[" CHAT_TOOL_F
         ",{\"type\":\"function\",\"function\":{\"name\":\"g\",\"parameters\":{}}}]}",
        "{\"input\":\"x\",\"tools\":[{\"type\":\"function\",\"parameters\":{\"type\":\"object\",\"properties\":{\"b\":{},"
        "\"a\":{}}},\"strict\":false,\"description\":\"does \\\"f\\\"\",\"name\":\"f\"},"
        "{\"type\":\"function\",\"name\":\"g\",\"parameters\":{}}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{\"name\":\"f\",\"description\":\"does \\\"f\\\"\","
        "\"input_schema\":{\"type\":\"object\",\"properties\":{\"b\":{},\"a\":{}}},"
        "\"cache_control\":{\"type\":\"ephemeral\"}},{\"type\":\"custom\",\"name\":\"g\",\"input_schema\":{}}]}");
}
END_TEST

#define USER "{\"role\":\"user\",\"content\":\"x\"}"
#define CHAT_CALLS "{\"role\":\"assistant\",\"content\":\"Let me see.\",\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\"," \
                   "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"n\\\":1.0,\\\"s\\\":\\\"a\\\"}\"}}," \
                   "{\"id\":\"c2\",\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]}"
#define ITEM_TEXT "{\"role\":\"assistant\",\"content\":\"Let me see.\"}"
#define ITEM_CALLS "{\"type\":\"function_call\",\"id\":\"fc_1\",\"call_id\":\"c1\",\"name\":\"f\"," \
                   "\"arguments\":\"{\\\"n\\\":1.0,\\\"s\\\":\\\"a\\\"}\",\"status\":\"completed\"}," \
                   "{\"type\":\"function_call\",\"call_id\":\"c2\",\"name\":\"g\",\"arguments\":\"{}\"}"
#define BLOCK_CALLS "{\"type\":\"tool_use\",\"id\":\"c1\",\"name\":\"f\",\"input\":{\"n\":1.0,\"s\":\"a\"}}," \
    "{\"type\":\"tool_use\",\"id\":\"c2\",\"name\":\"g\",\"input\":{}}"

START_TEST(calls_and_results)
{
    static const char chat[] = "{\"messages\":[" USER "," CHAT_CALLS ",{\"role\":\"tool\",\"tool_call_id\":\"c1\","
        "\"content\":\"one\"},{\"role\":\"tool\",\"tool_call_id\":\"c2\",\"content\":\"two\\n2\"}," USER "]}";
    /* In the order of the calls, and in the other. */
    same(chat,
        "{\"input\":[" USER "," ITEM_TEXT "," ITEM_CALLS
        ",{\"type\":\"function_call_output\",\"call_id\":\"c1\",\"output\":\"one\"},"
        "{\"type\":\"function_call_output\",\"id\":\"o\",\"call_id\":\"c2\",\"output\":[{\"type\":\"input_text\","
        "\"text\":\"two\"},{\"type\":\"input_text\",\"text\":\"2\"}]}," USER "]}",
        "{\"messages\":[" USER ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"Let me see.\"}," BLOCK_CALLS
        "]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"c1\",\"content\":\"one\"},"
        "{\"type\":\"tool_result\",\"tool_use_id\":\"c2\",\"is_error\":false,"
        "\"content\":[{\"type\":\"text\",\"text\":\"two\"},{\"type\":\"text\",\"text\":\"2\"}]},{\"type\":\"text\","
        "\"text\":\"x\"}]}]}");
    same(chat,
        "{\"input\":[" USER "," ITEM_TEXT "," ITEM_CALLS
        ",{\"type\":\"function_call_output\",\"call_id\":\"c2\",\"output\":\"two\\n2\"},"
        "{\"type\":\"function_call_output\",\"call_id\":\"c1\",\"output\":\"one\"}," USER "]}",
        "{\"messages\":[" USER ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"Let me see.\"}," BLOCK_CALLS
        "]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"c2\",\"content\":\"two\\n2\"},"
        "{\"type\":\"tool_result\",\"tool_use_id\":\"c1\",\"content\":\"one\"}]}," USER "]}");
    /* Without text before the calls; ids used again: the latest counts; an error; nothing. */
    same("{\"messages\":[" USER ",{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c1\",\"function\":{\"name\":\"f\","
         "\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"content\":\"Error: bad\"},"
         "{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c1\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]},"
         "{\"role\":\"tool\",\"content\":\"\"}]}",
         "{\"input\":[" USER ",{\"type\":\"function_call\",\"call_id\":\"c1\",\"name\":\"f\",\"arguments\":\"{}\"},"
         "{\"type\":\"function_call_output\",\"call_id\":\"c1\",\"output\":\"Error: bad\"},"
         "{\"type\":\"function_call\",\"call_id\":\"c1\",\"name\":\"g\",\"arguments\":\"{}\"},{\"type\":\"function_call_output\","
         "\"call_id\":\"c1\",\"output\":\"\"}]}",
         "{\"messages\":[" USER ",{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"c1\",\"name\":\"f\","
         "\"input\":{}}]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"c1\",\"content\":\"bad\","
         "\"is_error\":true}]},"
         "{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"c1\",\"name\":\"g\",\"input\":{}}]},"
         "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"c1\"}]}]}");
    /* Text after a call is a message of its own; arguments that are no JSON stay what they are. */
    same("{\"messages\":[" USER ",{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c1\",\"function\":{\"name\":\"f\","
         "\"arguments\":\"{broken\"}}]},{\"role\":\"assistant\",\"content\":\"Well.\"}," USER "]}",
         "{\"input\":[" USER ",{\"type\":\"function_call\",\"call_id\":\"c1\",\"name\":\"f\",\"arguments\":\"{broken\"},"
         "{\"role\":\"assistant\",\"content\":\"Well.\"}," USER "]}", NULL);
}
END_TEST

START_TEST(prefill)
{
    struct api_error err;
    char *before;
    char *wanted = from_chat("{\"messages\":[" USER "]}");
    char *got =
        from_items("{\"messages\":[" USER ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"Once\"}]}]}", true,
            &before, &err);
    ck_assert_str_eq(got, wanted);
    ck_assert_str_eq(before, "Once");
    free(got);
    free(before);
    /* Only thinking: nothing to continue. */
    got = from_items("{\"messages\":[" USER
                     ",{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}]}]}",
        true, &before, &err);
    ck_assert_str_eq(got, wanted);
    ck_assert_ptr_null(before);
    free(got);
    free(wanted);
}
END_TEST

/* A run of results in any order, long enough to show how much time sorting and looking up takes. */
START_TEST(many)
{
    enum { N = 4096 };
    struct json_writer w = {0};
    char item[160];
    static const char begin[] = "{\"input\":[";
    json_raw(&w, begin, sizeof begin - 1);
    for (int i = 0; i < N; i++)
        json_raw(&w, item,
            (size_t)snprintf(
                item, sizeof item, "{\"type\":\"function_call\",\"call_id\":\"c%d\",\"name\":\"f\",\"arguments\":\"{}\"},", i));
    for (int i = N; i-- > 0;)
        json_raw(&w, item,
            (size_t)snprintf(
                item, sizeof item, "{\"type\":\"function_call_output\",\"call_id\":\"c%d\",\"output\":\"r%d\"},", i, i));
    w.data[w.length - 1] = ']';
    json_raw(&w, "}", 1);
    struct api_error err;
    char *text = from_items(w.data, false, NULL, &err), *at = text;
    ck_assert_ptr_nonnull(text);
    for (int i = 0; i < N; i++) {
        snprintf(item, sizeof item, "\nr%d\n", i);
        at = strstr(at, item);
        ck_assert_ptr_nonnull(at);
    }
    free(text);
    /* One more call is refused. */
    w.length -= 2;
    json_raw(&w, item,
        (size_t)snprintf(
            item, sizeof item, ",{\"type\":\"function_call\",\"call_id\":\"x\",\"name\":\"f\",\"arguments\":\"{}\"}]}"));
    ck_assert_ptr_null(from_items(w.data, false, NULL, &err));
    ck_assert_str_eq(err.param, "input[8192]");
    json_writer_free(&w);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("turns");
    TCase *c = tcase_create("turns");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, messages);
    tcase_add_test(c, tools);
    tcase_add_test(c, calls_and_results);
    tcase_add_test(c, prefill);
    tcase_add_test(c, many);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
