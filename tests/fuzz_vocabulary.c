/* Fuzz target: a tokenizer from a hostile GGUF file; what loads must also work.
 *   clang -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -DFUZZ_LIBFUZZER \
 *     tests/fuzz_vocabulary.c tokenizer/[a-z]*.c gguf/[a-z]*.c
 * The build makes a program that replays files given as arguments. */
#include "tokenizer/chat.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct tokenizer *t)
{
    static const char text[] = "abc abcab <|im_start|>b<a><|im_end|>\n\xC3\xA9\xFF'll "
        "12   aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    struct error err;
    for (int parse_special = 0; parse_special < 2; parse_special++) {
        struct tok_ids ids = {0};
        if (tok_encode(t, text, sizeof text - 1, parse_special, &ids, &err)) {
            for (size_t i = 0; i < ids.count; i++) {
                if (ids.data[i] < 0 || ids.data[i] >= tok_n_vocab(t)) {
                    abort();
                }
            }
        } else if (ids.count != 0 || err.text[0] == '\0') {
            abort();
        }
        tok_ids_free(&ids);
    }
    size_t total = 0;
    for (int32_t id = -1; id <= tok_n_vocab(t); id++) {
        struct gguf_string s = tok_bytes(t, id);
        for (size_t i = 0; i < s.length; i++) {
            total += (unsigned char)s.data[i];
        }
        total += tok_is_end(t, id);
    }
    struct chat_text content = {text, sizeof text - 1};
    struct chat_message message = {CHAT_USER, content, NULL, 0};
    struct chat chat = {&message, 1, NULL, 0, total % 2 == 0};
    struct tok_ids ids = {0};
    chat_encode(t, &chat, &ids, &err);
    tok_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {""};
    struct gguf *g = gguf_open_memory(data, size, &err);
    if (!g) {
        return 0;
    }
    struct tokenizer *t = tok_load(g, &err);
    gguf_close(g);
    if (t) {
        use(t);
    } else if (err.text[0] == '\0') {
        abort();
    }
    tok_free(t);
    return 0;
}

#ifndef FUZZ_LIBFUZZER
#include "tests/fuzz_replay.h"
#endif
