/* The tool-call parser: what it makes of a text must not depend on how the text is cut. */
#include "server/api/tool_calls.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct chat_text names[] = {{"find", 4}, {"get-time_2", 10}};

/* A record of events: content as it is, a call as [name|arguments|valid or broken].
 * Neighbouring contents and arguments are joined. */
struct record {
    char text[8192];
    char id[TOOL_CALL_ID_BYTES];
    bool in_call;
    int next_index, n_arguments;
    char arguments[4096];
};

static void on_event(void *user, const struct tool_event *e)
{
    struct record *r = user;
    char *end = r->text + strlen(r->text);
    switch (e->kind) {
    case TOOL_CONTENT:
        ck_assert(!r->in_call);
        ck_assert_uint_gt(e->length, 0);
        memcpy(end, e->text, e->length);
        end[e->length] = '\0';
        break;
    case TOOL_CALL_START:
        ck_assert(!r->in_call);
        ck_assert_int_eq(e->index, r->next_index);
        ck_assert(strncmp(e->id, "call_", 5) == 0 && strlen(e->id) == 29 && strcmp(e->id, r->id) != 0);
        strcpy(r->id, e->id);
        r->in_call = true;
        r->arguments[0] = '\0';
        sprintf(end, "[%s|", e->name);
        break;
    case TOOL_CALL_ARGUMENTS:
        ck_assert(r->in_call && e->index == r->next_index && strcmp(e->id, r->id) == 0);
        strncat(r->arguments, e->text, e->length);
        strncat(r->text, e->text, e->length);
        r->n_arguments++;
        break;
    case TOOL_CALL_END:
        ck_assert(r->in_call && e->index == r->next_index);
        ck_assert_uint_eq(strlen(r->arguments), e->length);
        ck_assert_mem_eq(r->arguments, e->text, e->length);
        strcat(r->text, e->valid ? "]" : "|broken]");
        r->in_call = false;
        r->next_index++;
        break;
    }
}

/* Feeds text in parts of the given size. */
static struct record parse(const char *text, size_t part, bool streaming)
{
    struct record r = {0};
    struct tool_parser *p = tool_parser_new(names, 2, streaming, on_event, &r);
    ck_assert_ptr_nonnull(p);
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i += part)
        ck_assert(tool_parser_feed(p, text + i, n - i < part ? n - i : part));
    ck_assert(tool_parser_end(p));
    ck_assert(!r.in_call);
    ck_assert_int_le(tool_parser_n_valid(p), r.next_index);
    tool_parser_free(p);
    return r;
}

#define T(s) "<tool_call>\n" s "\n</tool_call>"
#define FIND(a) "{\"name\": \"find\", \"arguments\": " a "}"

static const struct {
    const char *text, *whole, *streamed; /* streamed NULL: the same */
} cases[] = {
    {"", "", NULL},
    {"Hello, world.\n", "Hello, world.\n", NULL},
    {T(FIND("{}")), "[find|{}]", NULL},
    {T(FIND("{\"city\": \"San Jose\", \"n\": [1, {\"a\": \"}\"}]}")),
     "[find|{\"city\": \"San Jose\", \"n\": [1, {\"a\": \"}\"}]}]", NULL},
    {"Sure.\n" T(FIND("{}")), "Sure.[find|{}]", NULL},
    {"Sure.\n\n" T(FIND("{}")) "\n", "Sure.\n[find|{}]", NULL},
    {"Sure." T(FIND("{}")), "Sure.[find|{}]", NULL},
    {T(FIND("{\"a\":1}")) "\n" T("{\"name\": \"get-time_2\", \"arguments\": {}}"), "[find|{\"a\":1}][get-time_2|{}]", NULL},
    {T(FIND("{}")) "\n done", "[find|{}]\n done", NULL},
    {T(FIND("{}")) "  \n\n" T(FIND("{}")) "\n\n", "[find|{}][find|{}]", NULL},
    /* spelling */
    {"<tool_call>{\"name\":\"find\",\"arguments\":{\"a\":\"\\\"<\\\\\"}}</tool_call>", "[find|{\"a\":\"\\\"<\\\\\"}]", NULL},
    {"<tool_call> \n\t{ \"name\" : \"find\" , \"arguments\" : {\n} \n} </tool_call>", "[find|{\n}]", NULL},
    {T(FIND("{\"a\": \"</tool_call>\"}")), "[find|{\"a\": \"</tool_call>\"}]", NULL},
    {T("{\"arguments\": {\"a\":1}, \"name\": \"find\"}"), "[find|{\"a\": 1}]", NULL},
    {T("{\"name\": \"find\"}"), "[find|{}]", NULL},
    {T("{\"name\": \"fi\\u006ed\", \"arguments\": {}}"), "[find|{}]", NULL},
    {T("{\"name\": \"find\", \"arguments\": \"{\\\"a\\\": 1}\"}"), "[find|{\"a\": 1}]", NULL},
    /* forgiven */
    {"<tool_call>\n" FIND("{}"), "[find|{}]", NULL},
    {"<tool_call>\n" FIND("{}") "\n</tool", "[find|{}]", NULL},
    {"<tool_call>\n{\"name\": \"find\", \"arguments\": {}\n</tool_call>", "[find|{}]", NULL},
    {"<tool_call>\n{\"arguments\": {}, \"name\": \"find\"}", "[find|{}]", NULL},
    {T(FIND("{}") "}") "x", "[find|{}]}\n</tool_call>x", NULL},
    {T("{\"name\": \"find\", \"arguments\": {}, \"b\": 2}"), "[find|{}], \"b\": 2}\n</tool_call>", NULL},
    /* no calls */
    {"The mark <tool_call> begins a call.", "The mark <tool_call> begins a call.", NULL},
    {"a\n<tool", "a\n<tool", NULL},
    {"1 < 2 \n\n<tool_calls>", "1 < 2 \n\n<tool_calls>", NULL},
    {"a\n<tool_call>", "a<tool_call>", NULL},
    {T("{\"name\": \"other\", \"arguments\": {}}") "\n" T(FIND("{}")), T("{\"name\": \"other\", \"arguments\": {}}") "[find|{}]",
     NULL},
    {T("{\"name\": \"find\", \"arguments\": [1]}") "!", T("{\"name\": \"find\", \"arguments\": [1]}") "!", NULL},
    {T("{\"name\": \"find\", \"arguments\": \"no\"}"), T("{\"name\": \"find\", \"arguments\": \"no\"}"), NULL},
    {T("{\"name\": 5, \"arguments\": {}}"), T("{\"name\": 5, \"arguments\": {}}"), NULL},
    {T("{\"arguments\": {}, \"name\": \"find\", \"b\": 2}"), T("{\"arguments\": {}, \"name\": \"find\", \"b\": 2}"), NULL},
    {T("{nonsense}") T(FIND("{}")), T("{nonsense}") "[find|{}]", NULL},
    {T(""), T(""), NULL},
    {"<tool_call>\n{\"name\": \"fin", "<tool_call>\n{\"name\": \"fin", NULL},
    {"<tool_call>\n{\"name\": \"find\", \"arguments\": ", "<tool_call>\n{\"name\": \"find\", \"arguments\": ", NULL},
    /* broken once begun */
    {T(FIND("{\"a\": nonsense}")), T(FIND("{\"a\": nonsense}")), "[find|{\"a\": nonsense}|broken]"},
    {T(FIND("{\"a\": 1, \"a\": 2}")), T(FIND("{\"a\": 1, \"a\": 2}")), "[find|{\"a\": 1, \"a\": 2}|broken]"},
    {T(FIND("{\"a\": [1}")), T(FIND("{\"a\": [1}")), "[find|{\"a\": [1}}|broken]"},
    {T(FIND("{\"a\": \"b")) "!", T(FIND("{\"a\": \"b")) "!", "[find|{\"a\": \"b}\n|broken]!"},
    {"<tool_call>\n{\"name\": \"find\", \"arguments\": {\"a\": \"b",
     "<tool_call>\n{\"name\": \"find\", \"arguments\": {\"a\": \"b",
     "[find|{\"a\": \"b|broken]"},
    {"<tool_call>\n{\"name\": \"find\", \"arguments\": {\"a\": 1, </tool_call>" T(FIND("{}")),
     "<tool_call>\n{\"name\": \"find\", \"arguments\": {\"a\": 1, </tool_call>[find|{}]", "[find|{\"a\": 1, |broken][find|{}]"},
};

START_TEST(every_case_cut_anyhow)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int streaming = 0; streaming < 2; streaming++)
            for (size_t part = 1; part <= strlen(cases[i].text) + 1; part++) {
                const char *wanted = streaming && cases[i].streamed ? cases[i].streamed : cases[i].whole;
                struct record r = parse(cases[i].text, part, streaming);
                ck_assert_msg(strcmp(r.text, wanted) == 0, "case %zu (%s) in parts of %zu, %s: %s instead of %s", i,
                    cases[i].text, part, streaming ? "streamed" : "whole", r.text, wanted);
            }
}
END_TEST

/* A call is told as it is written: the start with the last byte of the head, arguments byte by byte. */
START_TEST(told_at_once)
{
    static const char text[] = T(FIND("{\"city\": \"San Jose\"}"));
    struct record r = {0};
    struct tool_parser *p = tool_parser_new(names, 2, true, on_event, &r);
    size_t first = (size_t)(strstr(text, "{\"city") - text), last = (size_t)(strchr(text, '}') - text);
    for (size_t i = 0; text[i]; i++) {
        ck_assert(tool_parser_feed(p, text + i, 1));
        ck_assert_int_eq(r.in_call, i >= first && i < last);
        if (i >= first && i <= last)
            ck_assert_int_eq(r.n_arguments, (int)(i - first) + 1);
    }
    ck_assert_int_eq(tool_parser_n_valid(p), 1);
    tool_parser_free(p);
}
END_TEST

/* Content is held back only where it could be the beginning of a call. */
START_TEST(content_flows)
{
    struct record r = {0};
    struct tool_parser *p = tool_parser_new(names, 2, true, on_event, &r);
    static const char *const steps[][2] = {{"Hello", "Hello"}, {"\n", "Hello"}, {"<", "Hello"}, {"b", "Hello\n<b"},
        {"<tool_cal", "Hello\n<b"}, {"k", "Hello\n<b<tool_calk"}, {"\n\n<", "Hello\n<b<tool_calk\n"}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        ck_assert(tool_parser_feed(p, steps[i][0], strlen(steps[i][0])));
        ck_assert_str_eq(r.text, steps[i][1]);
    }
    ck_assert(tool_parser_end(p));
    ck_assert_str_eq(r.text, "Hello\n<b<tool_calk\n\n<");
    tool_parser_free(p);
}
END_TEST

static void count_bytes(void *user, const struct tool_event *e)
{
    if (e->kind == TOOL_CONTENT || e->kind == TOOL_CALL_ARGUMENTS)
        *(size_t *)user += e->length;
}

/* A head, arguments and a tail that never end. */
START_TEST(endless)
{
    static const char *const beginnings[] = {"<tool_call>", "<tool_call>{\"name\": \"", "<tool_call>{", T(FIND("{}")) "\n",
        "<tool_call>{\"name\": \"find\", \"arguments\": {\"", "<tool_call>{\"name\": \"find\", \"arguments\": {}"};
    for (size_t b = 0; b < sizeof beginnings / sizeof *beginnings; b++) {
        size_t told = 0, n = 1 << 20;
        struct tool_parser *p = tool_parser_new(names, 2, true, count_bytes, &told);
        ck_assert(tool_parser_feed(p, beginnings[b], strlen(beginnings[b])));
        for (size_t i = 0; i < n; i += 4)
            ck_assert(tool_parser_feed(p, b == 3 ? "x\n x" : "xyz<", 4));
        ck_assert(tool_parser_end(p));
        ck_assert_uint_ge(told, n);
        tool_parser_free(p);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tool_calls");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, every_case_cut_anyhow);
    tcase_add_test(t, told_at_once);
    tcase_add_test(t, content_flows);
    tcase_add_test(t, endless);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
