/* Fuzz target: the JSON reader. What it accepts must come back the same when written and read again.
 *   clang -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -DFUZZ_LIBFUZZER tests/fuzz_json.c server/json/[a-z]*.c -lm
 * The build makes a program that replays files given as arguments. */
#include "server/json/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_error err;
    struct json *j = json_parse((const char *)data, size, NULL, &err);
    if (!j) {
        if (err.offset > size || err.line < 1 || err.column < 1)
            abort();
        return 0;
    }
    for (int spaced = 0; spaced < 2; spaced++) {
        struct json_writer once = {.spaced = spaced}, twice = {.spaced = spaced};
        json_value(&once, json_root(j));
        struct json *again = json_parse(once.data, once.length, NULL, &err);
        if (!again)
            abort();
        json_value(&twice, json_root(again));
        if (once.length != twice.length || memcmp(once.data, twice.data, once.length) != 0)
            abort();
        json_free(again);
        json_writer_free(&once);
        json_writer_free(&twice);
    }
    json_free(j);
    return 0;
}

#ifndef FUZZ_LIBFUZZER
#include "tests/fuzz_replay.h"
#endif
