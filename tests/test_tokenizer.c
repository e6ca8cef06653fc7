/* tokenizer/: the vectors of the whole vocabulary, special tokens, bytes that are no text, hostile files and hostile texts. */
#include "tests/tok_fixture.h"
#include "tokenizer/unicode.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct tokenizer *qwen, *tiny;
static struct error err;

static void open_vocabularies(void)
{
    qwen = fixture_qwen();
    tiny = fixture_tiny();
}

static void close_vocabularies(void)
{
    tok_free(qwen);
    tok_free(tiny);
}

static struct tok_ids encode(const struct tokenizer *t, const char *text, size_t length, bool parse_special)
{
    struct tok_ids ids = {0};
    ck_assert_msg(tok_encode(t, text, length, parse_special, &ids, &err), "%s", err.text);
    return ids;
}

/* ids[n] as "1 2 3", malloc'd. */
static char *written(const int32_t *ids, size_t n)
{
    char *text = malloc(n * 12 + 1);
    size_t length = 0;
    ck_assert_ptr_nonnull(text);
    text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        length += (size_t)sprintf(text + length, i > 0 ? " %d" : "%d", (int)ids[i]);
    }
    return text;
}

static void assert_ids(const struct tokenizer *t, const char *text, size_t length, bool parse_special, const char *wanted)
{
    struct tok_ids ids = encode(t, text, length, parse_special);
    char *found = written(ids.data, ids.count);
    ck_assert_str_eq(found, wanted);
    free(found);
    tok_ids_free(&ids);
}

static size_t unescape(char *s)
{
    size_t n = 0;
    for (const char *p = s; *p; p++) {
        char c = *p;
        if (c == '\\') {
            p++;
            c = *p == 'n' ? '\n' : *p == 't' ? '\t' : *p == 'r' ? '\r' : *p == '0' ? '\0' : *p;
        }
        s[n++] = c;
    }
    s[n] = '\0';
    return n;
}

/* Every special token aside, what comes out says the text in NFC. */
static void assert_says(const struct tokenizer *t, const char *text, size_t length)
{
    struct tok_ids ids = encode(t, text, length, false);
    size_t said_length;
    char *said = fixture_decode(t, &ids, &said_length);
    struct unicode_text nfc;
    ck_assert(unicode_nfc(text, length, &nfc));
    ck_assert_uint_eq(said_length, nfc.length);
    ck_assert(memcmp(said, nfc.data, said_length) == 0);
    free(nfc.owned);
    free(said);
    tok_ids_free(&ids);
}

START_TEST(vectors)
{
    enum { TINY_SHARED = 8170, FIRST_ADDED = 151643 };
    size_t size;
    char *file = fixture_read("tests/data/tokenizer-vectors.tsv", &size);
    int n = 0, shared = 0;
    for (char *line = file, *next; *line; line = next, n++) {
        next = strchr(line, '\n');
        *next++ = '\0';
        char *text = strchr(line, '\t');
        ck_assert_ptr_nonnull(text);
        *text++ = '\0';
        size_t length = unescape(text);
        struct tok_ids ids = encode(qwen, text, length, true);
        char *found = written(ids.data, ids.count);
        ck_assert_msg(strcmp(found, line) == 0, "line %d: %s\nwanted %s\nfound  %s", n + 1, text, line, found);
        free(found);
        assert_says(qwen, text, length);
        /* The small vocabulary is a prefix of the whole one with the added tokens behind it,
         * so what needs no other token comes out alike. */
        bool fits = true;
        for (size_t i = 0; i < ids.count; i++) {
            fits &= ids.data[i] < TINY_SHARED || ids.data[i] >= FIRST_ADDED;
            ids.data[i] -= ids.data[i] >= FIRST_ADDED ? FIRST_ADDED - TINY_SHARED : 0;
        }
        if (fits) {
            char *wanted = written(ids.data, ids.count);
            assert_ids(tiny, text, length, true, wanted);
            free(wanted);
            shared++;
        }
        tok_ids_free(&ids);
    }
    free(file);
    ck_assert_int_eq(n, 885);
    ck_assert_int_gt(shared, 50);
}
END_TEST

START_TEST(vocabulary)
{
    ck_assert_int_eq(tok_n_vocab(qwen), 151936);
    ck_assert_int_eq(tok_eos(qwen), 151645);
    ck_assert_int_eq(tok_special(qwen, "<|im_end|>"), 151645);
    ck_assert_int_eq(tok_special(qwen, "</tool_call>"), 151658);
    ck_assert_int_eq(tok_special(qwen, "<|im_end|"), -1);
    ck_assert_int_eq(tok_special(qwen, "<|im_end|>x"), -1);
    ck_assert_int_eq(tok_special(qwen, "Hello"), -1); /* a token, but a normal one */
    ck_assert_int_eq(tok_special(qwen, "[PAD151700]"), -1);
    ck_assert_int_eq(tok_special(qwen, ""), -1);
    ck_assert(tok_is_end(qwen, 151645) && tok_is_end(qwen, 151643));
    ck_assert(!tok_is_end(qwen, 151644) && !tok_is_end(qwen, -1) && !tok_is_end(qwen, 0));
    ck_assert_int_eq(tok_n_vocab(tiny), 8192);
    ck_assert_int_eq(tok_special(tiny, "<|im_end|>"), 8172);
    ck_assert(tok_is_end(tiny, 8172) && tok_is_end(tiny, 8170));
    struct gguf_string s = tok_bytes(qwen, 9707);
    ck_assert(s.length == 5 && memcmp(s.data, "Hello", 5) == 0);
    s = tok_bytes(qwen, 151645);
    ck_assert(s.length == 10 && memcmp(s.data, "<|im_end|>", 10) == 0);
    ck_assert_uint_eq(tok_bytes(qwen, -1).length, 0);
    ck_assert_uint_eq(tok_bytes(qwen, 151936).length, 0);
    ck_assert_uint_eq(tok_bytes(qwen, INT32_MIN).length, 0);
    ck_assert_uint_eq(tok_bytes(qwen, INT32_MAX).length, 0);
    bool seen[256] = {false};
    for (int id = 0; id < 256; id++) {
        s = tok_bytes(qwen, id);
        ck_assert_uint_eq(s.length, 1);
        seen[(unsigned char)s.data[0]] = true;
    }
    for (int b = 0; b < 256; b++) {
        ck_assert(seen[b]);
    }
}
END_TEST

START_TEST(special_tokens)
{
    static const char text[] = "a<|im_start|><|im_end|><|im_end|<|im_end|>";
    assert_ids(qwen, text, sizeof text - 1, true, "64 151644 151645 27 91 318 6213 91 151645");
    struct tok_ids ids = encode(qwen, text, sizeof text - 1, false);
    for (size_t i = 0; i < ids.count; i++) {
        ck_assert_int_lt(ids.data[i], 151643);
    }
    tok_ids_free(&ids);
    for (int id = 151643; id <= 151664; id++) { /* every one of them is found in text, and only if it may be */
        struct gguf_string s = tok_bytes(qwen, id);
        struct tok_ids one = encode(qwen, s.data, s.length, true), plain = encode(qwen, s.data, s.length, false);
        ck_assert(one.count == 1 && one.data[0] == id);
        ck_assert_uint_gt(plain.count, 1);
        assert_says(qwen, s.data, s.length);
        tok_ids_free(&one);
        tok_ids_free(&plain);
    }
    /* [PADn] is unused: plain text always */
    struct tok_ids pad = encode(qwen, "[PAD151700]", 11, true);
    ck_assert_uint_gt(pad.count, 1);
    tok_ids_free(&pad);
    /* NFC does not reach over a special token */
    assert_ids(qwen, "e<|im_end|>\xCC\x81", 13, true, "68 151645 53839");
    assert_ids(qwen, "e\xCC\x81", 3, true, "963");
}
END_TEST

START_TEST(appends_to_the_list)
{
    struct tok_ids ids = {0};
    ck_assert(tok_ids_push(&ids, 7));
    ck_assert(tok_encode(qwen, "Hello", 5, false, &ids, &err));
    ck_assert(tok_encode(qwen, "", 0, true, &ids, &err));
    ck_assert(tok_encode(qwen, NULL, 0, true, &ids, &err));
    ck_assert(ids.count == 2 && ids.data[0] == 7 && ids.data[1] == 9707);
    tok_ids_free(&ids);
    ck_assert(ids.data == NULL && ids.count == 0);
}
END_TEST

START_TEST(bytes_that_are_no_text)
{
    struct random r = {5};
    static const char *const parts[] = {
        "a", " ", "\n", "\xCC\x81", "e", "\xE4\xB8\xAD", "\xED\x95\x9C", "\xE1\x84\x80\xE1\x85\xA1", "'s", "1", "\xCD\x84"};
    for (int round = 0; round < 4000; round++) {
        char text[120];
        size_t n = 0, wanted = random_below(&r, 100);
        while (n < wanted) {
            if (random_below(&r, 3) == 0) {
                text[n++] = (char)random_below(&r, 256);
            } else {
                const char *part = parts[random_below(&r, sizeof parts / sizeof *parts)];
                memcpy(text + n, part, strlen(part));
                n += strlen(part);
            }
        }
        assert_says(qwen, text, n);
        assert_says(tiny, text, n);
    }
    assert_ids(qwen, "\xFF", 1, false, "187");
    assert_ids(qwen, "a\xC0\xAF z", 5, false, "64 124 107 1147");
}
END_TEST

/* ---- small vocabularies ---- */

enum { N_BASE = 6 };
static const char *const base[N_BASE] = {"a", "b", "c", "ab", "abc", "\xC4\xA0"}; /* U+0120 stands for the space */

struct small {
    const char *tokens[16], *merges[8], *model, *pre;
    int32_t types[16];
    uint64_t n_tokens, n_merges, n_types;
    int64_t eos;
    bool add_bos;
};

static struct small small_vocabulary(void)
{
    struct small s = {.model = "gpt2", .pre = "qwen2", .n_tokens = N_BASE, .n_types = N_BASE, .n_merges = 2, .eos = 0,
        .merges = {"a b", "ab c"}};
    for (int i = 0; i < 16; i++) {
        s.tokens[i] = i < N_BASE ? base[i] : "";
        s.types[i] = 1;
    }
    return s;
}

static void add_token(struct small *s, const char *text, int32_t type)
{
    s->tokens[s->n_tokens++] = text;
    s->types[s->n_types++] = type;
}

static struct tokenizer *load_small(const struct small *s)
{
    struct gguf_string tokens[16], merges[8];
    for (uint64_t i = 0; i < s->n_tokens; i++) {
        tokens[i] = (struct gguf_string){s->tokens[i], strlen(s->tokens[i])};
    }
    for (uint64_t i = 0; i < s->n_merges; i++) {
        merges[i] = (struct gguf_string){s->merges[i], strlen(s->merges[i])};
    }
    struct gguf_writer *w = gguf_writer_new();
    if (s->model) {
        gguf_writer_string(w, "tokenizer.ggml.model", s->model);
    }
    if (s->pre) {
        gguf_writer_string(w, "tokenizer.ggml.pre", s->pre);
    }
    gguf_writer_strings(w, "tokenizer.ggml.tokens", tokens, s->n_tokens);
    gguf_writer_strings(w, "tokenizer.ggml.merges", merges, s->n_merges);
    gguf_writer_array(w, "tokenizer.ggml.token_type", GGUF_KIND_INT32, s->types, s->n_types);
    gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", s->add_bos);
    if (s->eos >= 0) {
        gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)s->eos);
    }
    err.text[0] = '\0';
    return fixture_load(w, &err);
}

static void assert_refused(const struct small *s, const char *says)
{
    struct tokenizer *t = load_small(s);
    ck_assert_msg(t == NULL, "loaded, though %s is wrong", says);
    ck_assert_msg(strstr(err.text, says) != NULL, "\"%s\" does not say %s", err.text, says);
}

START_TEST(small_vocabularies)
{
    struct small s = small_vocabulary();
    add_token(&s, "<a>", 4);
    add_token(&s, "<a>b", 3);
    add_token(&s, "<", 3);
    add_token(&s, "<a>", 3);
    add_token(&s, "abc", 1); /* a second token of the same text */
    add_token(&s, "b b", 1); /* a space is no character of the byte alphabet: stands for itself */
    s.eos = -1;
    struct tokenizer *t = load_small(&s);
    ck_assert_msg(t != NULL, "%s", err.text);
    ck_assert_int_eq(tok_eos(t), -1);
    ck_assert(!tok_is_end(t, -1));
    assert_ids(t, "abcab abc", 9, true, "4 3 5 4");
    assert_ids(t, "<a>b<a>c<<a", 11, true, "7 6 2 8 8 0");
    ck_assert_int_eq(tok_special(t, "<a>"), 6);
    struct gguf_string text = tok_bytes(t, 11);
    ck_assert(text.length == 3 && memcmp(text.data, "b b", 3) == 0);
    /* a byte without a token: an error that names it, and nothing is added */
    struct tok_ids ids = {0};
    ck_assert(tok_ids_push(&ids, 1));
    ck_assert(!tok_encode(t, "abc abz", 7, false, &ids, &err));
    ck_assert_ptr_nonnull(strstr(err.text, "0x7A"));
    ck_assert_uint_eq(ids.count, 1);
    ck_assert(!tok_encode(t, "ab<a", 4, false, &ids, &err)); /* "<" has no normal token */
    tok_ids_free(&ids);
    tok_free(t);
    tok_free(NULL);
}
END_TEST

START_TEST(a_text_twice)
{
    /* The second "ab" stands where the merge's result is usually found; the first is still the one that text becomes. */
    enum { N = 257 };
    static char names[N][8];
    struct gguf_string tokens[N], merge = {"a b", 3};
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i);
        tokens[i] = (struct gguf_string){names[i], strlen(names[i])};
    }
    tokens[0] = (struct gguf_string){"a", 1};
    tokens[1] = (struct gguf_string){"b", 1};
    tokens[7] = tokens[256] = (struct gguf_string){"ab", 2};
    struct gguf_writer *w = gguf_writer_new();
    gguf_writer_string(w, "tokenizer.ggml.model", "gpt2");
    gguf_writer_string(w, "tokenizer.ggml.pre", "qwen2");
    gguf_writer_strings(w, "tokenizer.ggml.tokens", tokens, N); /* no token_type: all are normal */
    gguf_writer_strings(w, "tokenizer.ggml.merges", &merge, 1);
    struct tokenizer *t = fixture_load(w, &err);
    ck_assert_msg(t != NULL, "%s", err.text);
    assert_ids(t, "abab", 4, true, "7 7");
    tok_free(t);
}
END_TEST

START_TEST(files_that_are_wrong)
{
    struct small s = small_vocabulary();
    s.model = "llama";
    assert_refused(&s, "tokenizer.ggml.model");
    s.model = NULL;
    assert_refused(&s, "tokenizer.ggml.model");
    s = small_vocabulary();
    s.pre = "llama-bpe";
    assert_refused(&s, "tokenizer.ggml.pre");
    s = small_vocabulary();
    s.n_types--;
    assert_refused(&s, "tokenizer.ggml.token_type");
    s = small_vocabulary();
    s.eos = N_BASE;
    assert_refused(&s, "tokenizer.ggml.eos_token_id");
    s = small_vocabulary();
    s.add_bos = true;
    assert_refused(&s, "tokenizer.ggml.add_bos_token");
    s = small_vocabulary();
    s.n_tokens = s.n_types = 0;
    assert_refused(&s, "tokenizer.ggml.tokens");
    static const char *const merges[] = {"ab", "a  b", "", " ", "a b c", "x b", "a x", "b a", " b", "a "};
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        s = small_vocabulary();
        s.merges[1] = merges[i];
        assert_refused(&s, "tokenizer.ggml.merges[1]");
    }
    s = small_vocabulary();
    s.types[4] = 3; /* "abc" is there, but it is no normal token */
    assert_refused(&s, "tokenizer.ggml.merges[1]");
}
END_TEST

/* ---- hostile texts ---- */

START_TEST(a_mebibyte_of_anything)
{
    enum { N = 1 << 20 };
    static const char *const units[] = {"a", " ", "\n", "<", "<|", "<|im_start|", "ab", "aab", " \n", "\r\n ", "'", "'s", "0",
        "0 ", "\xCC\x81", "\xCC\x81\xCC\xA3", "\xCD\x84", "\xFF", "\xE1\x85\xA1", "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8",
        "\xE1\xBE\x82", "\xE4\xB8", "\xF0\x9F\x98\x80", "<|im_end|>", "e\xCC\x81", "\xE3\x80\x80"};
    char *text = malloc(N);
    ck_assert_ptr_nonnull(text);
    struct random r = {6};
    for (size_t u = 0; u < sizeof units / sizeof *units + 3; u++) {
        size_t n = 0;
        if (u < sizeof units / sizeof *units) {
            size_t length = strlen(units[u]);
            for (text[n++] = 'e'; n + length <= N; n += length) {
                memcpy(text + n, units[u], length);
            }
        } else {
            for (; n < N; n++) { /* any bytes; letters; letters of which many merge */
                int kind = (int)(u - sizeof units / sizeof *units);
                text[n] = (char)(kind == 0 ? random_below(&r, 256) : 'a' + random_below(&r, kind == 1 ? 26 : 2));
            }
        }
        struct tok_ids ids = encode(qwen, text, n, true);
        ck_assert_uint_gt(ids.count, 0);
        tok_ids_free(&ids);
        assert_says(qwen, text, n);
    }
    free(text);
}
END_TEST

START_TEST(too_long)
{
    struct tok_ids ids = {0};
    ck_assert(!tok_encode(qwen, "", ((size_t)1 << 29) + 1, false, &ids, &err)); /* refused before a byte is read */
    ck_assert_ptr_nonnull(strstr(err.text, "too long"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tokenizer");
    TCase *tc = tcase_create("tokenizer");
    tcase_set_timeout(tc, 240);
    tcase_add_unchecked_fixture(tc, open_vocabularies, close_vocabularies);
    tcase_add_test(tc, vectors);
    tcase_add_test(tc, vocabulary);
    tcase_add_test(tc, special_tokens);
    tcase_add_test(tc, appends_to_the_list);
    tcase_add_test(tc, bytes_that_are_no_text);
    tcase_add_test(tc, small_vocabularies);
    tcase_add_test(tc, a_text_twice);
    tcase_add_test(tc, files_that_are_wrong);
    tcase_add_test(tc, a_mebibyte_of_anything);
    tcase_add_test(tc, too_long);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_VERBOSE);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
