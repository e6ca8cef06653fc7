/* What holding a generation to a schema costs with the whole vocabulary of Qwen2.5: prints how long the tree,
 * typical schemas and the masks along a text take. Asserts nothing.
 * Runs in the project's root folder. */
#include "engine/constraint.h"
#include "server/schema/schema.h"
#include "tests/tok_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N_VOCAB = 151936, FIRST_CONTROL = 151643 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static const struct {
    const char *name, *schema, *text;
} cases[] = {
    {"weather tool", "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"description\":\"City\"},"
     "\"unit\":{\"enum\":[\"celsius\",\"fahrenheit\"]},"
     "\"days\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":14}},\"required\":[\"city\"],\"additionalProperties\":false}",
     "{\"city\": \"San Francisco, California\", \"unit\": \"celsius\", \"days\": 12}"},
    {"invoice", "{\"$defs\":{\"money\":{\"type\":\"object\",\"properties\":{\"amount\":{\"type\":\"number\",\"minimum\":0},"
     "\"currency\":{\"type\":\"string\",\"pattern\":\"^[A-Z]{3}$\"}},"
     "\"required\":[\"amount\",\"currency\"],\"additionalProperties\":false}},\"type\":\"object\","
     "\"properties\":{\"id\":{\"type\":\"string\",\"format\":\"uuid\"},"
     "\"date\":{\"type\":\"string\",\"format\":\"date\"},\"customer\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":200},"
     "\"lines\":{\"type\":\"array\",\"maxItems\":1000,\"items\":{\"type\":\"object\","
     "\"properties\":{\"text\":{\"type\":\"string\"},\"price\":{\"$ref\":\"#/$defs/money\"}},"
     "\"required\":[\"text\",\"price\"]}},\"total\":{\"$ref\":\"#/$defs/money\"},\"note\":{\"type\":[\"string\",\"null\"],"
     "\"maxLength\":10000}},\"required\":[\"id\",\"date\",\"customer\",\"lines\",\"total\"],\"additionalProperties\":false}",
     "{\n  \"id\": \"123e4567-e89b-12d3-a456-426614174000\",\n  \"date\": \"2024-02-29\",\n  \"customer\": \"Jörg Müller "
     "& Söhne, Köln\",\n  \"lines\": [\n    {\n"
     "      \"text\": \"A bag of flour, stone-ground \\\"1050\\\"\",\n      \"price\": {\n        \"amount\": "
     "12.5,\n        \"currency\": \"EUR\"\n      }\n    },\n    {\n"
     "      \"text\": \"Another line of text that goes on for a while\",\n      \"price\": {\"amount\": 3, \"currency\": "
     "\"EUR\"}\n    }\n  ],\n"
     "  \"total\": {\"amount\": 15.5, \"currency\": \"EUR\"},\n  \"note\": \"Thank you for your order.\"\n}"},
    {"any object", "{\"type\":\"object\"}",
     "{\"a\": [1, 2.5, {\"b\": \"some text that is free\"}], \"c\": {\"d\": {\"e\": \"more text\"}}, \"f\": null}"},
};

static void run(const struct trie *trie, size_t i)
{
    struct schema_error err;
    struct json *j = json_parse(cases[i].schema, strlen(cases[i].schema), NULL, NULL);
    double begin = now();
    struct grammar *g = schema_compile(json_root(j), &err);
    double compiled = now();
    struct constraint *c = g ? constraint_new(trie, g) : NULL;
    struct tok_ids ids = {0}, forced = {0};
    struct error problem;
    if (!c || !tok_encode(trie->tokenizer, cases[i].text, strlen(cases[i].text), false, &ids, &problem)) {
        printf("%s: %s\n", cases[i].name, g ? "out of memory" : err.text);
        exit(1);
    }
    double created = now(), first = 0, worst = 0, total = 0, quick = 0, forcing = 0;
    size_t n_quick = 0, n_forced = 0;
    for (size_t k = 0; k < ids.count; k++) {
        double t = now();
        const uint32_t *mask = constraint_mask(c);
        double took = now() - t;
        if (!mask || !(mask[ids.data[k] / 32] >> ids.data[k] % 32 & 1) || !constraint_accept(c, ids.data[k])) {
            printf("%s: token %zu is not allowed\n", cases[i].name, k);
            exit(1);
        }
        first = k == 0 ? took : first;
        worst = took > worst ? took : worst;
        total += took;
        if (took < 0.2) {
            quick += took;
            n_quick++;
        }
        t = now();
        forced.count = 0;
        constraint_forced(c, 64, &forced);
        forcing += now() - t;
        n_forced += forced.count > 0;
    }
    printf("%-14s %6zu nodes, compiled in %.2f ms, constraint %.2f ms; %zu tokens: mask first %.3f, mean %.3f, worst %.3f ms; "
           "%zu below 0.2 ms, their mean %.4f ms; "
           "forced text looked for in %.4f ms, found %zu times\n",
        cases[i].name, grammar_n_nodes(g), compiled - begin, created - compiled, ids.count, first, total / (double)ids.count,
        worst, n_quick, n_quick ? quick / (double)n_quick : 0, forcing / (double)ids.count, n_forced);
    tok_ids_free(&ids);
    tok_ids_free(&forced);
    constraint_free(c);
    grammar_free(g);
    json_free(j);
}

int main(void)
{
    struct tokenizer *t = fixture_qwen();
    bool *silent = calloc(N_VOCAB, sizeof *silent);
    for (int i = FIRST_CONTROL; silent && i < N_VOCAB; i++)
        silent[i] = true;
    static const char *const texts[] = {"<tool_call>", "</tool_call>"};
    for (int i = 0; silent && i < 2; i++)
        silent[tok_special(t, texts[i])] = false;
    double begin = now();
    struct trie *trie = silent ? trie_new(t, N_VOCAB, silent) : NULL;
    if (!trie)
        return 1;
    printf("tree of %u nodes in %.1f ms, longest token %u bytes\n", trie->n_nodes, now() - begin, trie->longest);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        run(trie, i);
    trie_free(trie);
    free(silent);
    tok_free(t);
    return 0;
}
