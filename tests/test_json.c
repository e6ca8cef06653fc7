/* server/json: what RFC 8259 allows is read, everything else is refused at the right place; what is written can be read again. */
#include "server/json/json.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct json *parse(const char *text)
{
    return json_parse(text, strlen(text), NULL, NULL);
}

/* The document written again by json_value; the caller frees. */
static char *rewrite(const char *text, size_t length, bool spaced)
{
    struct json_error err;
    struct json *j = json_parse(text, length, NULL, &err);
    ck_assert_msg(j != NULL, "%s: %s", text, err.text);
    struct json_writer w = {.spaced = spaced};
    json_value(&w, json_root(j));
    ck_assert(!w.failed);
    json_free(j);
    return w.data;
}

static const struct {
    const char *in, *out;
} accepted[] = {
    {"null", "null"},
    {" true ", "true"},
    {"false", "false"},
    {"0", "0"},
    {"-0", "-0"},
    {"-12.50e+3", "-12.50e+3"},
    {"1E400", "1E400"},
    {"\"\"", "\"\""},
    {"[]", "[]"},
    {"{}", "{}"},
    {"[ ]", "[]"},
    {"{ }", "{}"},
    {"\t\r\n [1 ,2,\n3]", "[1,2,3]"},
    {"{\"b\":1,\"a\":{\"b\":[{}]}}", "{\"b\":1,\"a\":{\"b\":[{}]}}"},
    {"\"\\u0041\\n\\/\\\"\\\\\"", "\"A\\n/\\\"\\\\\""},
    {"\"\\u00e4\\u20AC\\ud83d\\ude00\"", "\"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80\""},
    {"\"\\u0000\\u001f\x7F\"", "\"\\u0000\\u001f\x7F\""},
    {"\"\\uFFFF\xEF\xBF\xBE\"", "\"\xEF\xBF\xBF\xEF\xBF\xBE\""},
    {"{\"a\\u0000b\":1,\"a\":2}", "{\"a\\u0000b\":1,\"a\":2}"},
};

START_TEST(accepts)
{
    char *out = rewrite(accepted[_i].in, strlen(accepted[_i].in), false);
    ck_assert_str_eq(out, accepted[_i].out);
    free(out);
}
END_TEST

static const struct {
    const char *in;
    size_t offset, line, column;
    const char *says;
} refused[] = {
    {"", 0, 1, 1, "empty"},
    {"  \n ", 4, 2, 2, "empty"},
    {"nul", 0, 1, 1, "\"null\""},
    {"True", 0, 1, 1, "'T'"},
    {"[1,]", 3, 1, 4, "']'"},
    {"[,1]", 1, 1, 2, "','"},
    {"[1 2]", 3, 1, 4, "',' or ']'"},
    {"[1", 2, 1, 3, "ends"},
    {"[", 1, 1, 2, "ends"},
    {"]", 0, 1, 1, "']'"},
    {"{\"a\"}", 4, 1, 5, "':'"},
    {"{\"a\":}", 5, 1, 6, "a value"},
    {"{\"a\":1,}", 7, 1, 8, "a key"},
    {"{a:1}", 1, 1, 2, "a key in quotes"},
    {"{'a':1}", 1, 1, 2, "a key in quotes"},
    {"{\"a\":1", 6, 1, 7, "ends"},
    {"1 2", 2, 1, 3, "the end of the text"},
    {"{}x", 2, 1, 3, "the end of the text"},
    {"01", 0, 1, 1, "begin with 0"},
    {"-", 1, 1, 2, "a digit"},
    {"+1", 0, 1, 1, "'+'"},
    {".5", 0, 1, 1, "'.'"},
    {"1.", 2, 1, 3, "a digit"},
    {"1e", 2, 1, 3, "a digit"},
    {"1e+", 3, 1, 4, "a digit"},
    {"0x10", 1, 1, 2, "the end of the text"},
    {"NaN", 0, 1, 1, "'N'"},
    {"Infinity", 0, 1, 1, "'I'"},
    {"\"abc", 0, 1, 1, "not closed"},
    {"\"abc\\", 4, 1, 5, "inside a string"},
    {"\"\\x\"", 1, 1, 2, "backslash"},
    {"\"\\u12G4\"", 1, 1, 2, "four hexadecimal"},
    {"\"\\u123", 1, 1, 2, "four hexadecimal"},
    {"\"\\ud800\"", 1, 1, 2, "first half"},
    {"\"\\ud800\\n\"", 1, 1, 2, "first half"},
    {"\"\\ud800\\ud800\"", 1, 1, 2, "first half"},
    {"\"\\udc00\"", 1, 1, 2, "second half"},
    {"\"a\nb\"", 2, 1, 3, "0x0A"},
    {"\"\xC3\"", 1, 1, 2, "0xC3"},
    {"\"\xC0\xAF\"", 1, 1, 2, "0xC0"},
    {"\"\xED\xA0\x80\"", 1, 1, 2, "0xED"},
    {"\"\xF4\x90\x80\x80\"", 1, 1, 2, "0xF4"},
    {"\"\xFF\"", 1, 1, 2, "0xFF"},
    {"\"\x80\"", 1, 1, 2, "0x80"},
    {"\xEF\xBB\xBF{}", 0, 1, 1, "0xEF"},
    {"// c\n1", 0, 1, 1, "'/'"},
    {"{\"\xC3\xA4\":\n  \"\xC3\xA4\", x}", 15, 2, 8, "a key"},
    {"{\"a\":1,\"b\":2,\"a\":3}", 17, 1, 18, "\"a\" stands twice"},
    {"{\"a\":1,\"\\u0061\":3}", 16, 1, 17, "\"a\" stands twice"},
    {"{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1,\"c\":1}", 59, 1, 60, "\"c\" stands twice"},
};

START_TEST(refuses)
{
    struct json_error err;
    const char *in = refused[_i].in;
    ck_assert_msg(json_parse(in, strlen(in), NULL, &err) == NULL, "accepted: %s", in);
    ck_assert_msg(strstr(err.text, refused[_i].says) != NULL, "%s: %s", in, err.text);
    ck_assert_msg(err.offset == refused[_i].offset && err.line == refused[_i].line && err.column == refused[_i].column,
                  "%s: byte %zu, line %zu, column %zu", in, err.offset, err.line, err.column);
    ck_assert(parse(in) == NULL); /* and without a place for the message */
}
END_TEST

START_TEST(refuses_nul)
{
    static const char nul[] = "{\"a\":1}\0", inside[] = "\"a\0b\"";
    ck_assert(json_parse(nul, 8, NULL, NULL) == NULL);
    ck_assert(json_parse(inside, 5, NULL, NULL) == NULL);
}
END_TEST

/* Every truncation of a good document is refused, and none reads past its end (the copy is exactly as long as the text). */
START_TEST(refuses_truncations)
{
    static const char text[] = "{\"a\":[1.5e3,true,null,\"\\ud83d\\ude00\xE2\x82\xAC\"],\"b\":{\"c\":-0}}";
    size_t length = sizeof text - 1;
    for (size_t n = 0; n < length; n++) {
        char *copy = malloc(n ? n : 1);
        memcpy(copy, text, n);
        struct json_error err;
        ck_assert_msg(json_parse(copy, n, NULL, &err) == NULL, "%zu bytes", n);
        ck_assert_uint_le(err.offset, n);
        free(copy);
    }
    char *whole = rewrite(text, length, false);
    free(whole);
}
END_TEST

START_TEST(limits)
{
    char text[512];
    for (int depth = 1; depth <= 200; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        struct json *j = json_parse(text, (size_t)depth * 2, NULL, NULL);
        ck_assert_msg((j != NULL) == (depth <= 64), "depth %d", depth);
        json_free(j);
    }
    struct json_limits three = {.max_values = 3};
    struct json_error err;
    struct json *j = json_parse("[1,2]", 5, &three, &err);
    ck_assert(j != NULL);
    json_free(j);
    ck_assert(json_parse("[1,2,3]", 7, &three, &err) == NULL);
    ck_assert(strstr(err.text, "more than 3 values") != NULL);
    ck_assert_uint_eq(err.offset, 5);
}
END_TEST

/* A megabyte of opening brackets, of keys, of equal-hashing anything: neither the stack nor the clock notices. */
START_TEST(large)
{
    size_t n = 1 << 20;
    char *text = malloc(n);
    memset(text, '[', n);
    ck_assert(json_parse(text, n, NULL, NULL) == NULL);
    size_t length = 0;
    text[length++] = '{';
    for (int i = 0; length < n - 32; i++)
        length += (size_t)sprintf(text + length, "%s\"%06d\":%d", i ? "," : "", i, i);
    text[length++] = '}';
    struct json *j = json_parse(text, length, NULL, NULL);
    ck_assert(j != NULL);
    ck_assert_uint_gt(json_root(j)->count, 50000);
    ck_assert(json_get(json_root(j), "050000") != NULL);
    json_free(j);
    free(text);
}
END_TEST

START_TEST(getters)
{
    static const char text[] = "{\"i\":[9223372036854775807,-9223372036854775808,9223372036854775808,1.0,1e3,1.5,1e400,"
        "\"1\",-0,1e300],\"s\":\"x\",\"b\":true}";
    struct json *j = parse(text);
    const struct json_value *root = json_root(j), *v = json_get(root, "i")->first;
    static const struct {
        bool ok;
        int64_t n;
    } want[] = {{true, INT64_MAX}, {true, INT64_MIN}, {false, 0}, {true, 1}, {true, 1000}, {false, 0}, {false, 0}, {false, 0},
        {true, 0}, {false, 0}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++, v = v->next) {
        int64_t n = 0;
        ck_assert_msg(json_get_int(v, &n) == want[i].ok && n == want[i].n, "element %zu", i);
    }
    ck_assert(v == NULL);
    double d;
    ck_assert(json_get_double(json_get(root, "i")->first, &d) && d == 9223372036854775808.0);
    ck_assert(!json_get_double(json_get(root, "s"), &d));
    ck_assert(json_is(json_get(root, "s"), "x"));
    ck_assert(!json_is(json_get(root, "s"), "xy"));
    ck_assert(!json_is(json_get(root, "b"), "x"));
    ck_assert_uint_eq(json_get(root, "b")->count, 1);
    ck_assert(json_get(root, "nothing") == NULL);
    ck_assert(json_get(json_get(root, "s"), "s") == NULL);
    ck_assert_uint_eq(json_get(root, "s")->offset, (size_t)(strstr(text, "\"x\"") - text));
    json_free(j);
}
END_TEST

START_TEST(writes)
{
    struct json_writer w = {0};
    json_begin_object(&w);
    json_key(&w, "a\"b");
    json_begin_array(&w);
    json_int(&w, INT64_MIN);
    json_double(&w, 0.1);
    json_double(&w, 1e21);
    json_double(&w, (double)NAN);
    json_null(&w);
    json_bool(&w, false);
    json_begin_array(&w);
    json_end_array(&w);
    json_text(&w, NULL);
    json_end_array(&w);
    json_key(&w, "bad");
    json_string(&w, "\xC3(\xFFz\xE2\x82", 6);
    json_end_object(&w);
    ck_assert(!w.failed);
    ck_assert_str_eq(w.data, "{\"a\\\"b\":[-9223372036854775808,0.1,1e+21,null,null,false,[],null],"
                             "\"bad\":\"\xEF\xBF\xBD(\xEF\xBF\xBDz\xEF\xBF\xBD\"}");
    json_writer_free(&w);
    ck_assert(w.data == NULL);
}
END_TEST

START_TEST(writes_spaced)
{
    static const char in[] = "{\"a\":[1,{\"b\":null}],\"c\":\"x,y:z\",\"d\":{}}";
    char *out = rewrite(in, sizeof in - 1, true);
    ck_assert_str_eq(out, "{\"a\": [1, {\"b\": null}], \"c\": \"x,y:z\", \"d\": {}}");
    free(out);
}
END_TEST

START_TEST(doubles_round_trip)
{
    uint64_t bits = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        double d, back;
        memcpy(&d, &bits, sizeof d);
        if (!isfinite(d))
            continue;
        struct json_writer w = {0};
        json_double(&w, d);
        struct json *j = json_parse(w.data, w.length, NULL, NULL);
        ck_assert_msg(j != NULL, "%s", w.data);
        ck_assert(json_get_double(json_root(j), &back));
        ck_assert_msg(memcmp(&d, &back, sizeof d) == 0, "%s", w.data);
        json_free(j);
        json_writer_free(&w);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("json");
    TCase *t = tcase_create("json");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, accepts, 0, sizeof accepted / sizeof *accepted);
    tcase_add_loop_test(t, refuses, 0, sizeof refused / sizeof *refused);
    tcase_add_test(t, refuses_nul);
    tcase_add_test(t, refuses_truncations);
    tcase_add_test(t, limits);
    tcase_add_test(t, large);
    tcase_add_test(t, getters);
    tcase_add_test(t, writes);
    tcase_add_test(t, writes_spaced);
    tcase_add_test(t, doubles_round_trip);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
