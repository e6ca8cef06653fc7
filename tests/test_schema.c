/* server/schema: what the grammar of a schema accepts, refuses, and can still become; and which schemas are refused. */
#include "engine/matcher.h"
#include "server/schema/schema.h"

#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct json *parse(const char *text)
{
    struct json_error err;
    struct json *j = json_parse(text, strlen(text), NULL, &err);
    ck_assert_msg(j != NULL, "%s: %s", text, j ? "" : err.text);
    return j;
}

static struct grammar *compile(const char *schema)
{
    struct schema_error err = {.text = ""};
    struct json *j = parse(schema);
    struct grammar *g = schema_compile(json_root(j), &err);
    json_free(j); /* the grammar does not need it */
    ck_assert_msg(g != NULL, "%s: %s at %s", schema, err.text, err.pointer);
    return g;
}

/* '+' the text matches, '-' it does not, '~' it does not yet, but may be the beginning of one that does. */
static char run(const struct grammar *g, const char *text)
{
    struct matcher *m = matcher_new(g, 64);
    matcher_state s = matcher_start(m);
    for (const char *p = text; *p && s != MATCHER_DEAD; p++)
        s = matcher_step(m, s, (uint8_t)*p);
    char result = s == MATCHER_DEAD ? '-' : matcher_may_end(m, s) ? '+' : '~';
    matcher_free(m);
    return result;
}

/* A schema, then texts with what is expected of them in front. */
struct row {
    const char *schema, *texts[20];
};

static const struct row rows[] = {
    /* any value */
    {"true",
     {"+null", "+true", "+false", "+0", "+-1.5e-7", "+\"\"", "+[]", "+{}", "+[1,2]", "+{\"a\":[{}]}", "-nul ", "-+1", "-01",
      "-.5", "~1.", "~1e", "-[1,]", "-{,}", "-{\"a\"}", "-'x'"}},
    {"{}",
     {"+[ 1, 2 ]", "+[\n  1,\n  2\n]", "-[\t1]", "-[  1]", "- 1", "-1 ", "-{\"a\" :1}", "+{\"a\": 1}", "-{\"a\":  1}", "~[[[[",
      "-]"}},
    /* types */
    {"{\"type\":\"null\"}", {"+null", "-true", "-0", "-\"null\"", "~nu"}},
    {"{\"type\":\"boolean\"}", {"+true", "+false", "-null", "-1"}},
    {"{\"type\":\"integer\"}", {"+0", "+7", "+-7", "--0", "-1.0", "-1e2", "+123456789012345", "-1234567890123456", "-007", "~-"}},
    {"{\"type\":\"number\"}", {"+0", "+-0", "+1.50", "+1e5", "+1E-12", "-1e123", "~1e+", "-1.e5", "-1.0000000000000000"}},
    {"{\"type\":[\"integer\",\"null\"]}", {"+null", "+5", "-\"a\"", "-1.5"}},
    {"{\"type\":\"object\"}", {"+{}", "-[]", "-1", "+{\"a\": {\"b\": []}}"}},
    {"{\"type\":\"array\"}", {"+[]", "-{}", "+[[],{}]"}},
    /* strings */
    {"{\"type\":\"string\"}",
     {"+\"\"", "+\"a\\n\\u00e9\\/\"", "+\"\xC3\xA9\xF0\x9F\x98\x80\"", "-\"\n\"", "-\"\\x\"", "-\"\\ud800\"", "-\"\\udc00\"",
      "-\"\\ud83dx", "+\"\\ud83d\\ude00\"", "+\"\\uD83D\\uDE00\"", "-\"\xC0\x80", "-\"\xED\xA0\x80", "-\"\xF4\x90", "-\"\x80",
      "-\"\xE0\x80", "~\"\xE2\x82", "-\"\xE2\"", "-\"\xFF"}},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     {"-\"a\"", "+\"ab\"", "+\"abc\"", "-\"abcd", "+\"\xF0\x9F\x98\x80\xC3\xA9\"", "-\"\xC3\xA9\"", "+\"\\ud83d\\ude00x\"",
      "-\"\\ud83d\\ude00\"", "+\"\\n\\n\"", "-\"\""}},
    {"{\"type\":\"string\",\"maxLength\":0}", {"+\"\"", "-\"a"}},
    {"{\"type\":\"string\",\"pattern\":\"^[A-Z]{2}\\\\d+$\"}",
     {"+\"AB1\"", "+\"AB123\"", "-\"AB\"", "-\"A1", "-\"ab", "-\"AB1x"}},
    {"{\"type\":\"string\",\"pattern\":\"b+\"}", {"+\"abba\"", "+\"b\"", "-\"aaa\"", "~\"aaa", "-\"\""}},
    {"{\"type\":\"string\",\"pattern\":\"^a|b$\"}", {"+\"ax\"", "+\"xb\"", "-\"xa\"", "-\"bx\"", "+\"b\""}},
    {"{\"type\":\"string\",\"pattern\":\"^\\\"\\\\\\\\\\n$\"}", {"+\"\\\"\\\\\\n\"", "-\"\\\\", "~\"\\\"\\\\"}},
    {"{\"type\":\"string\",\"pattern\":\"^[^a]$\"}",
     {"+\"b\"", "+\"\\n\"", "+\"\\u0001\"", "+\"\xF4\x8F\xBF\xBF\"", "-\"a", "-\"\x01", "-\"bb"}},
    {"{\"type\":\"string\",\"pattern\":\"^.$\"}", {"+\"x\"", "-\"\\n", "+\"\\t\"", "-\"\xE2\x80\xA8\"", "+\"\xE2\x80\xA7\""}},
    {"{\"type\":\"string\",\"pattern\":\"^a*$\",\"minLength\":2,\"maxLength\":4}",
     {"-\"a\"", "+\"aa\"", "+\"aaaa\"", "-\"aaaaa"}},
    {"{\"type\":\"string\",\"pattern\":\"^(ab)*$\",\"minLength\":3,\"maxLength\":5}",
     {"+\"abab\"", "-\"ab\"", "-\"ababa", "~\"a"}},
    {"{\"type\":\"string\",\"pattern\":\"^\\\\u{1F600}$\"}", {"+\"\xF0\x9F\x98\x80\"", "-\"\xF0\x9F\x98\x81"}},
    {"{\"type\":\"string\",\"format\":\"date\"}",
     {"+\"2024-02-29\"", "-\"2023-02-29", "-\"1900-02-29", "+\"2000-02-29\"", "-\"2024-13", "-\"2024-04-31", "-\"0000-01-01",
      "+\"0004-02-29\"", "+\"9999-12-31\""}},
    {"{\"type\":\"string\",\"format\":\"time\"}",
     {"+\"23:59:59Z\"", "-\"24:", "+\"00:00:00.123+05:30\"", "-\"12:00:00\"", "-\"12:00:60", "-\"12:00:00+24"}},
    {"{\"type\":\"string\",\"format\":\"date-time\"}",
     {"+\"2024-02-29T12:00:00Z\"", "-\"2024-02-29 ", "-\"2024-02-29T12:00:00\""}},
    {"{\"type\":\"string\",\"format\":\"uuid\"}", {"+\"123e4567-e89b-12d3-a456-42661417400F\"", "-\"123e4567e", "-\"g"}},
    {"{\"type\":\"string\",\"format\":\"ipv4\"}",
     {"+\"0.0.0.0\"", "+\"255.255.255.255\"", "-\"256", "-\"01", "-\"1.2.3\"", "-\"1.2.3.4.", "~\"1.2.3.4"}},
    {"{\"type\":\"string\",\"format\":\"email\"}",
     {"+\"a.b+c@example.org\"", "-\"a@b\"", "-\".a", "-\"a..", "-\"a@-", "-\"a@b.c-\"", "-\"a b"}},
    {"{\"type\":\"string\",\"format\":\"uri\"}",
     {"+\"https://example.org/a/b?c=d#e\"", "+\"urn:isbn:123\"", "+\"mailto:a@b.c\"", "-\"/relative", "-\"a b", "~\"http:",
      "-\"http://a/%zz"}},
    {"{\"maxLength\":1}", {"+5", "+\"a\"", "-\"ab", "+{}", "+[\"abc\"]"}},
    /* numbers */
    {"{\"type\":\"integer\",\"minimum\":-5,\"maximum\":123}",
     {"+-5", "--6", "+0", "+123", "-124", "-13x", "+99", "-200", "--0", "-1000"}},
    {"{\"type\":\"integer\",\"minimum\":10}", {"-9 ", "+10", "+99", "+100", "-1.", "-09", "~1", "+999999999999999"}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":1,\"exclusiveMaximum\":4}", {"-1 ", "+2", "+3", "-4", "-0"}},
    {"{\"type\":\"integer\",\"minimum\":1.5,\"maximum\":3.5}", {"-1 ", "+2", "+3", "-4"}},
    {"{\"type\":\"integer\",\"maximum\":-10}", {"+-10", "+-99", "~-9", "-0", "-1", "+-100", "~-"}},
    {"{\"type\":\"integer\",\"minimum\":1234,\"maximum\":56789}",
     {"+1234", "~123", "-1233}", "+9999", "+10000", "+56789", "-5679x", "-56790", "-567890", "+5679"}},
    {"{\"type\":\"integer\",\"minimum\":100000000000000000}",
     {"+100000000000000000", "+999999999999999999", "-1000000000000000000"}},
    {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
     {"+0", "+1", "+0.5", "+1.0", "-1.1", "-2", "-1e", "+0.99999999999999", "--1"}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":0}", {"~0", "~0.0", "+0.01", "+1", "+12.5", "--"}},
    {"{\"type\":\"number\",\"minimum\":-2,\"exclusiveMaximum\":3}", {"+-2", "+-1.5", "--2.5", "+2.9", "-3", "+0", "+-2.0"}},
    /* enum, const */
    {"{\"enum\":[\"a\",\"ab\",1,null,[1,2],{\"x\":\"\\n\"}]}",
     {"+\"a\"", "+\"ab\"", "+1", "+null", "+[1, 2]", "+{\"x\": \"\\n\"}", "-\"b", "-2", "-[1,2]", "-1.0"}},
    {"{\"const\":\"q\\\"\\u00e9\"}", {"+\"q\\\"\xC3\xA9\"", "-\"q\"\xC3"}},
    {"{\"enum\":[1,2,\"x\"],\"type\":\"integer\",\"minimum\":2}", {"+2", "-1", "-\"x"}},
    {"{\"enum\":[{\"a\":1},{\"a\":\"x\"}],\"properties\":{\"a\":{\"type\":\"string\"}}}",
     {"+{\"a\": \"x\"}", "~{\"a\": ", "-{\"a\": 1"}},
    {"{\"const\":null}", {"+null", "-1"}},
    /* arrays */
    {"{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"minItems\":1,\"maxItems\":2}",
     {"-[]", "+[true]", "+[true,false]", "-[true,true,", "-[1"}},
    {"{\"type\":\"array\",\"maxItems\":0}", {"+[]", "-[1"}},
    {"{\"type\":\"array\",\"items\":false}", {"+[]", "-[1"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"null\"}]}",
     {"+[]", "+[1]", "+[1,null]", "+[1,null,\"x\",2]", "-[null", "-[1,2"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"null\"}],\"items\":false,\"minItems\":2}",
     {"-[]", "-[1]", "+[1, null]", "-[1,null,"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"const\":1},{\"const\":2},{\"const\":3}],\"maxItems\":2}",
     {"+[]", "+[1]", "+[1,2]", "-[1,2,"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"const\":1}],\"items\":{\"const\":2},\"minItems\":3,\"maxItems\":4}",
     {"-[1]", "-[1,2]", "+[1,2,2]", "+[1,2,2,2]", "-[1,2,2,2,"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"const\":1},\"maxItems\":1},\"maxItems\":2}",
     {"+[[1],[]]", "-[[1,", "-[[],[],"}},
    /* objects */
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2},\"c\":{\"const\":3}},\"required\":[\"b\"],"
     "\"additionalProperties\":false}",
     {"+{\"b\":2}", "+{\"a\":1,\"b\":2}", "+{\"b\":2,\"c\":3}", "+{\"a\": 1, \"b\": 2, \"c\": 3}", "-{\"a\":1}",
      "-{\"b\":2,\"a\"", "-{}", "-{\"c\"", "-{\"b\":1", "-{\"b\":2,}", "-{\"b\":2,\"b\"", "-{\"d"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1}},\"additionalProperties\":{\"const\":0}}",
     {"+{}", "+{\"a\":1}", "+{\"b\":0}", "+{\"a\":1,\"b\":0,\"ab\":0,\"\":0}", "-{\"a\":0", "-{\"b\":1", "-{\"b\":0,\"a\":",
      "-{\"a\":1,\"a\":", "+{\"\\\"\":0}", "-{\"\\u0061\""}},
    {"{\"type\":\"object\",\"properties\":{\"a\\\"\\n\":{}},\"required\":[\"a\\\"\\n\"],\"additionalProperties\":false}",
     {"+{\"a\\\"\\n\":1}", "-{\"a\":"}},
    {"{\"type\":\"object\",\"required\":[\"z\",\"y\"],\"additionalProperties\":{\"type\":\"integer\"}}",
     {"+{\"z\":1,\"y\":2}", "+{\"z\":1,\"y\":2,\"x\":3}", "-{\"y\"", "-{\"z\":1}", "-{\"z\":true"}},
    {"{\"type\":\"object\",\"patternProperties\":{\"^i\":{\"type\":\"integer\"},\"s$\":{\"type\":\"string\"}},"
     "\"additionalProperties\":false}",
     {"+{\"i\":1}", "+{\"s\":\"x\"}", "-{\"is\":1", "-{\"is\":\"", "-{\"q\":", "-{\"i\":\"x", "+{\"i\":1,\"xs\":\"\"}", "+{}"}},
    {"{\"type\":\"object\",\"properties\":{\"ix\":{\"minimum\":5}},\"patternProperties\":{\"^i\":{\"type\":\"integer\"}}}",
     {"+{\"ix\":5}", "-{\"ix\":4}", "-{\"ix\":\"", "+{\"iy\":4}", "+{\"q\":\"x\"}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":false},\"additionalProperties\":{\"type\":\"null\"}}",
     {"+{}", "-{\"a\":", "+{\"b\":null}"}},
    /* combining */
    {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\",\"maxLength\":1}]}", {"+5", "+\"a\"", "-\"ab", "-null"}},
    {"{\"type\":\"integer\",\"anyOf\":[{\"maximum\":3},{\"minimum\":8}],\"minimum\":2,\"maximum\":9}",
     {"+2", "+3", "-4", "-7", "+8", "+9", "-1"}},
    {"{\"allOf\":[{\"type\":\"integer\"},{\"minimum\":3},{\"allOf\":[{\"maximum\":5}]}]}", {"-2", "+3", "+5", "-6", "-\""}},
    {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}]}", {"+1", "+\"a\"", "-null"}},
    {"{\"oneOf\":[{\"properties\":{\"k\":{\"const\":1}},\"required\":[\"k\"],\"type\":\"object\"},"
     "{\"properties\":{\"k\":{\"const\":2}},\"required\":[\"k\"],\"type\":\"object\"}]}",
     {"+{\"k\":1}", "+{\"k\":2,\"x\":[]}", "-{\"k\":3", "-{}"}},
    {"{\"allOf\":[{\"properties\":{\"a\":{\"type\":\"integer\"}},\"additionalProperties\":false},{\"properties\":{\"b\":{}}}],"
     "\"type\":\"object\"}", {"+{}", "+{\"a\":1}", "-{\"b\"", "-{\"c\""}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2}},\"anyOf\":[{\"required\":[\"a\"]},"
     "{\"required\":[\"b\"]}],\"additionalProperties\":false}",
     {"+{\"a\":1}", "+{\"b\":2}", "+{\"a\":1,\"b\":2}", "-{}"}},
    /* references */
    {"{\"$ref\":\"#/$defs/a~1b%25\",\"$defs\":{\"a/b%\":{\"const\":1}}}", {"+1", "-2"}},
    {"{\"$ref\":\"#/$defs/x\",\"maximum\":3,\"$defs\":{\"x\":{\"type\":\"integer\",\"minimum\":2}}}", {"-1", "+2", "+3", "-4"}},
    {"{\"type\":\"array\",\"items\":{\"$ref\":\"#\"},\"maxItems\":1}", {"+[[[[]]]]", "-[[],", "-[1"}},
    {"{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"n\":{\"anyOf\":[{\"$ref\":\"#/$defs/n\"},{\"type\":\"null\"}]}},"
     "\"required\":[\"n\"],\"additionalProperties\":false}},\"$ref\":\"#/$defs/n\"}",
     {"+{\"n\":{\"n\":null}}", "-{\"n\":{}", "~{\"n\":{\"n\":{"}},
    {"{\"anyOf\":[{\"$ref\":\"#/anyOf/1\"},{\"const\":4}]}", {"+4", "-5"}},
    {"{\"title\":\"t\",\"description\":\"d\",\"default\":1,\"examples\":[1],\"$schema\":\"s\",\"$id\":\"i\",\"$comment\":\"c\","
     "\"deprecated\":true,\"readOnly\":true,\"writeOnly\":false,\"x-y\":1,"
     "\"uniqueItems\":false,\"minProperties\":0,\"const\":7}", {"+7", "-8"}},
};

START_TEST(accepts_and_rejects)
{
    const struct row *row = &rows[_i];
    struct grammar *g = compile(row->schema);
    for (size_t k = 0; k < sizeof row->texts / sizeof *row->texts && row->texts[k]; k++) {
        const char *text = row->texts[k];
        char got = run(g, text + 1);
        /* A text that is no member yet, but could become one, is not rejected: only where '-' ends
         * in the middle of a number is the difference lost. */
        ck_assert_msg(got == *text, "%s: %s: expected %c, got %c", row->schema, text + 1, *text, got);
        /* Every beginning of a text that can be is possible. */
        for (size_t n = strlen(text); got != '-' && n-- > 1;) {
            char *beginning = strndup(text + 1, n - 1);
            ck_assert_msg(run(g, beginning) != '-', "%s: %s", row->schema, beginning);
            free(beginning);
        }
    }
    grammar_free(g);
}
END_TEST

static const struct {
    const char *schema, *pointer, *says;
} bad[] = {
    {"{\"not\":{}}", "/not", "'not' is not supported"},
    {"{\"properties\":{\"a/b\":{\"items\":{\"if\":{}}}}}", "/properties/a~1b/items/if", "'if' is not supported"},
    {"{\"anyOf\":[{},{\"contains\":{}}]}", "/anyOf/1/contains", "'contains'"},
    {"{\"multipleOf\":2}", "/multipleOf", "'multipleOf'"},
    {"{\"uniqueItems\":true}", "/uniqueItems", "'uniqueItems'"},
    {"{\"minProperties\":1}", "/minProperties", "'minProperties'"},
    {"{\"format\":\"hostname\"}", "/format", "\"hostname\""},
    {"{\"format\":7}", "/format", "must be a string"},
    {"{\"type\":\"text\"}", "/type", "'type' must be"},
    {"{\"type\":[]}", "/type", "'type' must be"},
    {"{\"type\":[\"string\",5]}", "/type", "'type' must be"},
    {"{\"enum\":[]}", "/enum", "empty"},
    {"{\"enum\":5}", "/enum", "an array"},
    {"{\"required\":[1]}", "/required/0", "strings"},
    {"{\"minLength\":-1}", "/minLength", "0 or more"},
    {"{\"minLength\":1.5}", "/minLength", "0 or more"},
    {"{\"items\":[{}]}", "/items", "prefixItems"},
    {"{\"items\":5}", "/items", "must be a schema"},
    {"{\"properties\":{\"a\":5}}", "/properties/a", "object or a boolean"},
    {"{\"pattern\":\"(?=a)\"}", "/pattern", "lookahead"},
    {"{\"pattern\":\"(a)\\\\1\"}", "/pattern", "back-reference"},
    {"{\"pattern\":\"\\\\bword\"}", "/pattern", "word boundaries"},
    {"{\"pattern\":\"[b-a]\"}", "/pattern", "out of order"},
    {"{\"pattern\":\"(\"}", "/pattern", "not closed"},
    {"{\"pattern\":\"*\"}", "/pattern", "no meaning"},
    {"{\"pattern\":\"a{2,1}\"}", "/pattern", "out of order"},
    {"{\"pattern\":\"((a{1,900}){1,900}){1,900}\"}", "/pattern", "too large"},
    {"{\"pattern\":\"a.{25}$\"}", "/pattern", "too large"},
    {"{\"patternProperties\":{\"[\":{}}}", "/patternProperties/[", "not closed"},
    {"{\"$ref\":\"other.json\"}", "/$ref", "same schema"},
    {"{\"$ref\":\"#/$defs/x\"}", "/$ref", "not there"},
    {"{\"$ref\":\"#\"}", "", "refers to itself"},
    {"{\"allOf\":[{\"$ref\":\"#\"}]}", "", "refers to itself"},
    {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", "", "refers to itself"},
    {"{\"properties\":{\"a\":{\"$id\":\"x\"}}}", "/properties/a/$id", "whole schema"},
    {"{\"type\":\"number\",\"minimum\":0.5}", "/minimum", "whole"},
    {"{\"type\":\"integer\",\"minimum\":1e30}", "/minimum", "18 digits"},
    {"{\"exclusiveMinimum\":true}", "/exclusiveMinimum", "a number"},
    {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", "/oneOf", "two of its alternatives"},
    {"{\"oneOf\":[{\"type\":\"string\",\"format\":\"date\"},{\"type\":\"string\",\"format\":\"email\"}]}", "/oneOf",
        "two of its alternatives"},
    {"{\"oneOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}", "/oneOf", "two of its alternatives"},
    {"false", "", "no value"},
    {"{\"type\":\"integer\",\"minimum\":2,\"maximum\":1}", "", "no value"},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":1}", "", "no value"},
    {"{\"type\":\"string\",\"pattern\":\"^a$\",\"minLength\":2}", "", "no value"},
    {"{\"allOf\":[{\"const\":1},{\"const\":2}]}", "", "no value"},
    {"{\"type\":\"object\",\"required\":[\"a\"],\"additionalProperties\":false}", "", "no value"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", "", "no value"},
    {"{\"type\":\"array\",\"items\":false,\"minItems\":1}", "", "no value"},
    {"[]", "", "an object or a boolean"},
};

START_TEST(refuses)
{
    struct schema_error err = {.text = ""};
    struct json *j = parse(bad[_i].schema);
    struct grammar *g = schema_compile(json_root(j), &err);
    ck_assert_msg(g == NULL, "%s was taken", bad[_i].schema);
    ck_assert_msg(strstr(err.text, bad[_i].says) != NULL, "%s: '%s' does not say '%s'", bad[_i].schema, err.text, bad[_i].says);
    ck_assert_str_eq(err.pointer, bad[_i].pointer);
    json_free(j);
}
END_TEST

/* ---- hostile ones: bounded, whatever comes out ---- */

struct text {
    char *data;
    size_t length, capacity;
};

static void add(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(struct text *t, const char *format, ...)
{
    va_list args;
    if (t->length + 256 > t->capacity)
        t->data = realloc(t->data, t->capacity = 2 * t->capacity + 1024);
    va_start(args, format);
    t->length += (size_t)vsnprintf(t->data + t->length, 256, format, args);
    va_end(args);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Compiles; true if it was taken. Either way within a generous bound. */
static bool survives(struct text *t, bool expected)
{
    enum { BOUND = 20 }; /* seconds: under sanitizers, on a busy machine */
    const struct json_limits limits = {.max_depth = 2000};
    struct schema_error err = {.text = ""};
    struct json *j = json_parse(t->data, t->length, &limits, NULL);
    ck_assert_ptr_nonnull(j);
    double begin = seconds();
    struct grammar *g = schema_compile(json_root(j), &err);
    ck_assert_double_lt(seconds() - begin, BOUND);
    ck_assert_msg((g != NULL) == expected, "%.200s: %s", t->data, g ? "taken" : err.text);
    ck_assert(g || err.text[0]);
    json_free(j);
    grammar_free(g);
    free(t->data);
    *t = (struct text){0};
    return g != NULL;
}

START_TEST(hostile_schemas_are_bounded)
{
    struct text t = {0};
    for (int i = 0; i < 1000; i++) /* deep */
        add(&t, "{\"items\":");
    add(&t, "{}");
    for (int i = 0; i < 1000; i++)
        add(&t, "}");
    survives(&t, true);
    for (int i = 0; i < 500; i++) /* deep, by allOf */
        add(&t, "{\"allOf\":[");
    add(&t, "{}");
    for (int i = 0; i < 500; i++)
        add(&t, "]}");
    survives(&t, false);
    for (int n = 1000; n <= 20000; n += 19000) { /* wide */
        add(&t, "{\"type\":\"object\",\"properties\":{");
        for (int i = 0; i < n; i++)
            add(&t, "%s\"property number %d\":{\"type\":\"integer\"}", i ? "," : "", i);
        add(&t, "}}");
        survives(&t, n == 1000);
    }
    add(&t, "{\"$defs\":{\"d0\":{\"const\":1}"); /* doubling by references: the same thing each time */
    for (int i = 1; i < 60; i++)
        add(&t, ",\"d%d\":{\"allOf\":[{\"$ref\":\"#/$defs/d%d\"},{\"$ref\":\"#/$defs/d%d\"}]}", i, i - 1, i - 1);
    add(&t, "},\"$ref\":\"#/$defs/d20\"}");
    survives(&t, true);
    add(&t, "{\"type\":\"object\",\"allOf\":["); /* choices that multiply: 2 to the 40 */
    for (int i = 0; i < 40; i++)
        add(&t, "%s{\"anyOf\":[{\"required\":[\"a%d\"]},{\"required\":[\"b%d\"]}]}", i ? "," : "", i, i);
    add(&t, "]}");
    survives(&t, false);
    add(&t, "{\"type\":\"array\",\"maxItems\":1000000000,\"minItems\":999999999,\"items\":{\"type\":\"string\","
        "\"minLength\":100000,\"maxLength\":1000000000}}");
    survives(&t, true);
    add(&t, "{\"type\":\"string\",\"pattern\":\"^a+$\",\"maxLength\":1000000}");
    survives(&t, false);
    add(&t, "{\"type\":\"string\",\"pattern\":\"^[a-z]{1,5000}$\"}");
    survives(&t, true);
    add(&t, "{\"enum\":[");
    for (int i = 0; i < 20000; i++)
        add(&t, "%s\"value %d\"", i ? "," : "", i * 7919);
    add(&t, "]}");
    survives(&t, true);
    add(&t, "{\"anyOf\":["); /* many patterns, each dear */
    for (int i = 0; i < 200; i++)
        add(&t, "%s{\"type\":\"string\",\"pattern\":\"%c.{11}$\"}", i ? "," : "", 'a' + i % 26);
    add(&t, "]}");
    survives(&t, false);
    add(&t, "{\"oneOf\":[");
    for (int i = 0; i < 60; i++)
        add(&t, "%s{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":%d}},\"required\":[\"kind\"]}", i ? "," : "", i);
    add(&t, "]}");
    survives(&t, true);
}
END_TEST

/* ---- whole answers ---- */

static const char weather[] = "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}},\"required\":[\"city\"],"
    "\"additionalProperties\":false}";
#define CALL(name, arguments) "<tool_call>\n{\"name\": \"" name "\", \"arguments\": " arguments "}\n</tool_call>"

START_TEST(tool_calls)
{
    struct json *j = parse(weather), *five = parse("{\"const\":5}");
    const struct schema_tool tools[] = {{"get_weather", json_root(j)}, {"get_time", NULL}};
    struct schema_answer a = {.tools = tools, .n_tools = 2, .parallel = true, .content = SCHEMA_CONTENT_TEXT};
    struct schema_error err;
    struct grammar *g = schema_answer(&a, &err);
    ck_assert_ptr_nonnull(g);
    static const struct { char text, required, five; const char *answer; } cases[] = {
        {'+', '~', '~', ""},
        {'+', '-', '-', "Hello! < <tool <tool_cal> \xC3\xA9"},
        {'~', '-', '-', "Hello \xC3"},
        {'-', '-', '-', "Hello \xFF"},
        {'+', '-', '+', "5"},
        {'+', '+', '+', CALL("get_weather", "{\"city\": \"Rome\"}")},
        {'+', '+', '+', CALL("get_time", "{}") "\n" CALL("get_time", "{\"x\": [1]}")},
        {'+', '-', '-', "Let me look.\n" CALL("get_weather", "{\"city\": \"Rome\"}")},
        {'+', '-', '-', "<<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>"},
        {'-', '-', '-', CALL("get_weather", "{\"town\"")},
        {'-', '-', '-', CALL("get_weather", "{}")},
        {'-', '-', '-', CALL("get_time", "[]")},
        {'-', '-', '-', CALL("rm", "{}")},
        {'-', '-', '-', "<tool_call>x"},
        {'~', '~', '~', "<tool_call>"},
        {'-', '-', '-', CALL("get_time", "{}") " and more"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_msg(run(g, cases[i].answer) == cases[i].text, "text: %s", cases[i].answer);
    grammar_free(g);
    a.content = SCHEMA_CONTENT_NONE;
    g = schema_answer(&a, &err);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_msg(run(g, cases[i].answer) == cases[i].required, "required: %s", cases[i].answer);
    grammar_free(g);
    a.content = SCHEMA_CONTENT_SCHEMA;
    a.schema = json_root(five);
    g = schema_answer(&a, &err);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_msg(run(g, cases[i].answer) == cases[i].five, "schema: %s", cases[i].answer);
    grammar_free(g);
    a.parallel = false;
    g = schema_answer(&a, &err);
    ck_assert_int_eq(run(g, CALL("get_time", "{}")), '+');
    ck_assert_int_eq(run(g, CALL("get_time", "{}") "\n"), '-');
    grammar_free(g);
    json_free(five);
    /* Which schema is at fault. */
    five = parse("{\"properties\":{\"a\":{\"not\":{}}}}");
    a.schema = json_root(five);
    ck_assert_ptr_null(schema_answer(&a, &err));
    ck_assert_int_eq(err.document, -1);
    const struct schema_tool wrong[] = {{"get_time", NULL}, {"x", json_root(five)}};
    a = (struct schema_answer){.tools = wrong, .n_tools = 2, .content = SCHEMA_CONTENT_TEXT};
    ck_assert_ptr_null(schema_answer(&a, &err));
    ck_assert_int_eq(err.document, 1);
    ck_assert_str_eq(err.pointer, "/properties/a/not");
    json_free(five);
    json_free(j);
    g = schema_any_object(&err);
    ck_assert_int_eq(run(g, "{\"a\": [1, {}]}"), '+');
    ck_assert_int_eq(run(g, "[]"), '-');
    grammar_free(g);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("schema");
    TCase *c = tcase_create("schema");
    tcase_set_timeout(c, 240);
    tcase_add_loop_test(c, accepts_and_rejects, 0, sizeof rows / sizeof *rows);
    tcase_add_loop_test(c, refuses, 0, sizeof bad / sizeof *bad);
    tcase_add_test(c, hostile_schemas_are_bounded);
    tcase_add_test(c, tool_calls);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
