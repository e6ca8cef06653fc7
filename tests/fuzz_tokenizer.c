/* Fuzz target: the tokenizer, on quern-tiny's vocabulary. What comes out says the text in NFC; contents never become
 * control tokens; the stream of characters does not depend on how the bytes arrive.
 *   clang -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -DFUZZ_LIBFUZZER \
 *     tests/fuzz_tokenizer.c tokenizer/[a-z]*.c gguf/[a-z]*.c
 * Runs in the project's root folder. The build makes a program that replays files given as arguments. */
#include "tokenizer/chat.h"
#include "tokenizer/unicode.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

static const struct tokenizer *tokenizer(void)
{
    static struct tokenizer *t;
    if (!t) {
        struct error err;
        struct gguf *g = gguf_open("models/quern-tiny-q4_k_m.gguf", NULL, &err);
        t = g ? tok_load(g, &err) : NULL;
        if (!t) {
            fprintf(stderr, "%s\n", err.text);
            abort();
        }
        gguf_close(g);
    }
    return t;
}

/* Joins the bytes of the ids and compares. */
static void check_says(const struct tokenizer *t, const struct tok_ids *ids, const char *text, size_t length)
{
    size_t at = 0;
    for (size_t i = 0; i < ids->count; i++) {
        struct gguf_string s = tok_bytes(t, ids->data[i]);
        check(s.length <= length - at && memcmp(s.data, text + at, s.length) == 0);
        at += s.length;
    }
    check(at == length);
}

static void encoding(const struct tokenizer *t, const char *text, size_t length)
{
    struct tok_ids plain = {0}, special = {0};
    struct unicode_text nfc, again;
    check(unicode_nfc(text, length, &nfc) && unicode_nfc(nfc.data, nfc.length, &again));
    check(again.length == nfc.length && (nfc.length == 0 || memcmp(again.data, nfc.data, nfc.length) == 0));
    check(tok_encode(t, text, length, false, &plain, NULL) && tok_encode(t, text, length, true, &special, NULL));
    check_says(t, &plain, nfc.data, nfc.length);
    int32_t first_added = tok_special(t, "<|endoftext|>");
    for (size_t i = 0; i < plain.count; i++) {
        check(plain.data[i] < first_added);
    }
    free(nfc.owned);
    free(again.owned);
    tok_ids_free(&plain);
    tok_ids_free(&special);
}

static void streaming(const char *bytes, size_t length, size_t step)
{
    char *whole = malloc(3 * (length + 4)), *parts = malloc(3 * (length + 4));
    check(whole && parts);
    struct tok_stream a = {0}, b = {0};
    size_t n = tok_stream_feed(&a, bytes, length, whole), m = 0;
    n += tok_stream_end(&a, whole + n);
    for (size_t i = 0; i < length; i += step) {
        m += tok_stream_feed(&b, bytes + i, i + step < length ? step : length - i, parts + m);
    }
    m += tok_stream_end(&b, parts + m);
    check(n == m && memcmp(whole, parts, n) == 0);
    free(whole);
    free(parts);
}

static void conversation(const struct tokenizer *t, const char *text, size_t length, uint8_t shape)
{
    struct chat_text half = {text, length / 2}, rest = {text + length / 2, length - length / 2}, x = {"x", 1};
    size_t counts[2];
    int32_t first_added = tok_special(t, "<|endoftext|>");
    for (int harmless = 0; harmless < 2; harmless++) {
        struct chat_text a = harmless ? x : half, b = harmless ? x : rest;
        struct chat_tool_call call = {a, b};
        struct chat_message messages[2] = {{(enum chat_role)(shape & 3), a, NULL, 0}, {CHAT_ASSISTANT, b, &call, shape >> 2 & 1}};
        struct chat chat = {messages, 2, &a, shape >> 3 & 1, true};
        struct tok_ids ids = {0};
        check(chat_encode(t, &chat, &ids, NULL));
        counts[harmless] = 0;
        for (size_t i = 0; i < ids.count; i++) {
            counts[harmless] += ids.data[i] >= first_added;
        }
        tok_ids_free(&ids);
    }
    check(counts[0] == counts[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct tokenizer *t = tokenizer();
    const char *text = (const char *)data;
    encoding(t, text, size);
    if (size > 0) {
        streaming(text, size, 1 + data[0] % 5);
        conversation(t, text + 1, size - 1, data[0]);
    }
    return 0;
}

#ifndef FUZZ_LIBFUZZER
#include "tests/fuzz_replay.h"
#endif
