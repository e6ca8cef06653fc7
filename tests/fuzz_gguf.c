/* Fuzz target: the GGUF reader. What it accepts can be read to the last byte.
 *   clang -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -DFUZZ_LIBFUZZER \
 *     tests/fuzz_gguf.c tests/gguf_touch.c gguf/?*.c -lm
 *   ./a.out -max_len=4096 corpus tests/data/gguf
 * The build makes a program that replays files given as arguments. */
#include "tests/gguf_touch.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {{0}};
    unsigned char *copy = malloc(size ? size : 1); /* aligned as the reader wants it, and exactly as long as the input */
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    struct gguf *g = gguf_open_memory(copy, size, &err);
    if (g) {
        gguf_touch_all(g);
    } else {
        if (err.text[0] == '\0')
            abort();
        for (const char *c = err.text; *c; c++) /* one line of plain text, whatever the names in the file are */
            if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
                abort();
    }
    gguf_close(g);
    free(copy);
    return 0;
}

#ifndef FUZZ_LIBFUZZER
#include "tests/fuzz_replay.h"
#endif
