/* Fuzz target: JSON Schema to grammar, and the grammar walked at random. What is generated must be JSON of well-formed UTF-8.
 *   clang -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -DFUZZ_LIBFUZZER \
 *     tests/fuzz_schema.c server/schema/[a-z]*.c server/json/[a-z]*.c \
 *     engine/grammar.c engine/matcher.c gguf/error.c -lm
 * The build makes a program that replays files given as arguments. */
#include "engine/matcher.h"
#include "server/schema/schema.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_BYTES = 2000, WALKS = 4 };

/* Goes where the random numbers lead, and to the end where that is possible; false if the text grew too long. */
static bool walk(struct matcher *m, uint64_t *random, char *text, size_t *length)
{
    matcher_state s = matcher_start(m);
    for (*length = 0; *length < MOST_BYTES; (*length)++) {
        uint32_t set[8] = {0};
        unsigned bytes[256], n = 0;
        matcher_next_bytes(m, s, set);
        for (unsigned b = 0; b < 256; b++)
            if (set[b / 32] >> b % 32 & 1)
                bytes[n++] = b;
        *random = *random * 6364136223846793005u + 1442695040888963407u;
        if (matcher_may_end(m, s) && (n == 0 || (*random >> 33) % 4 == 0))
            return true;
        if (n == 0)
            abort(); /* a dead end */
        unsigned b = bytes[(*random >> 40) % n];
        text[*length] = (char)b;
        s = matcher_step(m, s, (uint8_t)b);
        if (s == MATCHER_DEAD)
            abort(); /* a byte that was said to be possible */
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json *j = json_parse((const char *)data, size, NULL, NULL);
    struct schema_error err;
    if (!j)
        return 0;
    struct grammar *g = schema_compile(json_root(j), &err);
    if (!g && !err.text[0])
        abort();
    json_free(j);
    struct matcher *m = g ? matcher_new(g, 64) : NULL;
    uint64_t random = size;
    for (int i = 0; m && i < WALKS; i++) {
        char text[MOST_BYTES];
        size_t length;
        const struct json_limits limits = {.max_depth = MOST_BYTES};
        struct json_error problem;
        if (!walk(m, &random, text, &length))
            continue;
        struct json *made = json_parse(text, length, &limits, &problem);
        if (!made && !strstr(problem.text, "stands twice") && !strstr(problem.text, "values"))
            abort();
        json_free(made);
    }
    matcher_free(m);
    grammar_free(g);
    return 0;
}

#ifndef FUZZ_LIBFUZZER
#include "tests/fuzz_replay.h"
#endif
