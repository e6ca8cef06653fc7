#include "tests/gguf_touch.h"

#include <stdlib.h>

static void require(bool condition)
{
    if (!condition)
        abort();
}

static uint64_t sum(const unsigned char *data, size_t n)
{
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++)
        total = total * 31 + data[i];
    return total;
}

uint64_t gguf_touch_all(struct gguf *g)
{
    /* The names used by the images of these tests and by model files. */
    static const char *const keys[] = {"general.architecture", "general.alignment", "general.name", "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges", "tokenizer.ggml.token_type", "tokenizer.chat_template", "qwen2.block_count", "a", "b", "flags",
        "words", "floats"};
    uint64_t total = gguf_version(g) + gguf_file_size(g);

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        uint64_t u;
        double d;
        bool b;
        struct gguf_string s;
        struct gguf_array a;
        struct error err;
        if (gguf_get_u64(g, keys[i], &u, &err))
            total += u;
        if (gguf_get_f64(g, keys[i], &d, &err))
            total += d > 0.0;
        if (gguf_get_bool(g, keys[i], &b, &err))
            total += b;
        if (gguf_get_string(g, keys[i], &s, &err))
            total += sum((const unsigned char *)s.data, s.length);
        for (uint32_t kind = 0; kind <= GGUF_KIND_FLOAT64; kind++)
            if (gguf_get_array(g, keys[i], (enum gguf_kind)kind, &a, &err)) {
                uint64_t n = 0;
                total += sum(a.data, a.n_bytes);
                for (size_t cursor = 0; gguf_array_next_string(&a, &cursor, &s); n++)
                    total += sum((const unsigned char *)s.data, s.length);
                require(kind != GGUF_KIND_STRING || n == a.count);
            }
    }
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        uint64_t product = 1;
        for (int d = 0; d < GGUF_MAX_DIMS; d++)
            product *= t->dims[d];
        require(product == t->n_elements);
        require(t->n_elements / gguf_type_traits(t->type)->block_size * gguf_type_traits(t->type)->block_bytes == t->n_bytes);
        total += sum((const unsigned char *)t->name.data, t->name.length) + sum(t->data, (size_t)t->n_bytes);
        gguf_prefetch(g, t);
    }
    return total;
}
