#include "tests/tok_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_BYTES = 256, N_PADDED = 151936 };

static _Noreturn void die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s (tests run in the project's root folder)\n", what, why);
    exit(1);
}

static void *must(void *p)
{
    if (!p) {
        die("fixture", "out of memory");
    }
    return p;
}

char *fixture_read(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        die(path, "cannot be opened");
    }
    fseek(f, 0, SEEK_END);
    long length = ftell(f);
    rewind(f);
    char *data = must(malloc((size_t)length + 1));
    *size = fread(data, 1, (size_t)length, f);
    if (*size != (size_t)length) {
        die(path, "cannot be read");
    }
    fclose(f);
    data[length] = '\0';
    return data;
}

struct tokenizer *fixture_load(struct gguf_writer *w, struct error *err)
{
    size_t size;
    struct error own;
    void *image = gguf_writer_image(w, NULL, NULL, &size, &own);
    struct gguf *g = image ? gguf_open_memory(image, size, &own) : NULL;
    if (!g) {
        die("fixture", own.text);
    }
    struct tokenizer *t = tok_load(g, err);
    gguf_close(g); /* nothing of it is needed any more: a use after this is for the sanitizers to find */
    gguf_image_free(image, size);
    gguf_writer_free(w);
    return t;
}

static uint32_t leb128(const char **p, const char *end)
{
    uint32_t value = 0;
    for (int shift = 0; *p < end; shift += 7) {
        unsigned char b = (unsigned char)*(*p)++;
        value |= (uint32_t)(b & 127) << shift;
        if (b < 128) {
            return value;
        }
    }
    die("tests/data/qwen2.5-merges.bin", "ends within a number");
}

struct words { /* strings one after another */
    char *bytes;
    size_t used, capacity;
};

static size_t add(struct words *w, const char *text, size_t length)
{
    if (w->used + length > w->capacity) {
        w->capacity = 2 * (w->used + length);
        w->bytes = must(realloc(w->bytes, w->capacity));
    }
    if (length > 0) {
        memcpy(w->bytes + w->used, text, length);
    }
    w->used += length;
    return w->used - length;
}

/* GPT-2's order of the bytes is that of the characters they are written as. */
static int byte_texts(char texts[N_BYTES][4])
{
    int id = 0;
    for (unsigned c = 0x21; c < 0x100; c++) {
        if (c <= 0x7E || (c >= 0xA1 && c != 0xAD)) {
            snprintf(
                texts[id++], 4, c < 0x80 ? "%c" : "%c%c", c < 0x80 ? (int)c : (int)(0xC0 | c >> 6), (int)(0x80 | (c & 0x3F)));
        }
    }
    for (unsigned c = 0x100; id < N_BYTES; c++) {
        snprintf(texts[id++], 4, "%c%c", (int)(0xC0 | c >> 6), (int)(0x80 | (c & 0x3F)));
    }
    return id;
}

struct tokenizer *fixture_qwen(void)
{
    size_t size, added_size;
    char *packed = fixture_read("tests/data/qwen2.5-merges.bin", &size),
         *added = fixture_read("tests/data/qwen2.5-added-tokens.tsv", &added_size);
    struct words words = {0}, merge_words = {0};
    size_t *starts = must(malloc((N_PADDED + 1) * sizeof *starts)),
           *merge_starts = must(malloc((N_PADDED + 1) * sizeof *merge_starts));
    int32_t *types = must(malloc(N_PADDED * sizeof *types));
    char bytes[N_BYTES][4];
    size_t n = 0, n_merges = 0;
    for (byte_texts(bytes); n < N_BYTES; n++) {
        starts[n] = add(&words, bytes[n], strlen(bytes[n]));
    }
    starts[n] = words.used;
    for (const char *p = packed, *end = packed + size; p < end; n++, n_merges++) {
        char text[2048]; /* the longest token has 128 characters */
        uint32_t ids[2] = {leb128(&p, end), 0};
        ids[1] = leb128(&p, end);
        size_t length = 0;
        merge_starts[n_merges] = merge_words.used;
        for (int i = 0; i < 2; i++) {
            if (ids[i] >= n || length + starts[ids[i] + 1] - starts[ids[i]] > sizeof text || n == N_PADDED) {
                die("tests/data/qwen2.5-merges.bin", "does not hold a vocabulary");
            }
            size_t part = starts[ids[i] + 1] - starts[ids[i]];
            memcpy(text + length, words.bytes + starts[ids[i]], part);
            add(&merge_words, " ", i == 1);
            add(&merge_words, text + length, part);
            length += part;
        }
        add(&words, text, length);
        starts[n + 1] = words.used;
    }
    merge_starts[n_merges] = merge_words.used;
    for (size_t i = 0; i < N_PADDED; i++) {
        types[i] = i < n ? 1 : 5;
    }
    for (char *line = strtok(added, "\n"); line; line = strtok(NULL, "\n"), n++) {
        unsigned long id;
        int type, text;
        if (sscanf(line, "%lu\t%d\t%n", &id, &type, &text) != 2 || id != n || n == N_PADDED) {
            die("tests/data/qwen2.5-added-tokens.tsv", "does not continue the vocabulary");
        }
        add(&words, line + text, strlen(line + text));
        starts[n + 1] = words.used;
        types[n] = type;
    }
    for (; n < N_PADDED; n++) {
        char text[32];
        add(&words, text, (size_t)snprintf(text, sizeof text, "[PAD%zu]", n));
        starts[n + 1] = words.used;
    }
    struct gguf_string *strings = must(malloc(N_PADDED * sizeof *strings)),
                       *merges = must(malloc((n_merges + 1) * sizeof *merges));
    for (size_t i = 0; i < N_PADDED; i++) {
        strings[i] = (struct gguf_string){words.bytes + starts[i], starts[i + 1] - starts[i]};
    }
    for (size_t i = 0; i < n_merges; i++) {
        merges[i] = (struct gguf_string){merge_words.bytes + merge_starts[i], merge_starts[i + 1] - merge_starts[i]};
    }
    struct gguf_writer *w = gguf_writer_new();
    gguf_writer_string(w, "tokenizer.ggml.model", "gpt2");
    gguf_writer_string(w, "tokenizer.ggml.pre", "qwen2");
    gguf_writer_strings(w, "tokenizer.ggml.tokens", strings, N_PADDED);
    gguf_writer_array(w, "tokenizer.ggml.token_type", GGUF_KIND_INT32, types, N_PADDED);
    gguf_writer_strings(w, "tokenizer.ggml.merges", merges, n_merges);
    gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", 151645);
    gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", false);
    struct error err;
    struct tokenizer *t = fixture_load(w, &err);
    if (!t) {
        die("fixture", err.text);
    }
    free(strings);
    free(merges);
    free(types);
    free(starts);
    free(merge_starts);
    free(words.bytes);
    free(merge_words.bytes);
    free(packed);
    free(added);
    return t;
}

struct tokenizer *fixture_tiny(void)
{
    struct error err;
    struct gguf *g = gguf_open("models/quern-tiny-q4_k_m.gguf", NULL, &err);
    struct tokenizer *t = g ? tok_load(g, &err) : NULL;
    if (!t) {
        die("models/quern-tiny-q4_k_m.gguf", err.text);
    }
    gguf_close(g);
    return t;
}

char *fixture_decode(const struct tokenizer *t, const struct tok_ids *ids, size_t *length)
{
    struct words words = {0};
    for (size_t i = 0; i < ids->count; i++) {
        struct gguf_string s = tok_bytes(t, ids->data[i]);
        add(&words, s.data, s.length);
    }
    *length = words.used;
    add(&words, "", 1);
    return words.bytes;
}

uint32_t random_below(struct random *r, uint32_t limit)
{
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return (uint32_t)((r->state * 0x2545F4914F6CDD1D) >> 33) % limit;
}
