/* Qwen2 models of random weights, in the shapes and type mixes of the official files: for measuring a machine before a model has
 * been downloaded, and for testing shapes that no file at hand has.
 *
 * The weights are noise of the size that a trained model's have (standard deviation 0.02 about zero; biases 0.3;
 * norms 1 +- 0.1), so that activations stay in the range of real ones. Speed and memory are those of the real file;
 * the text is not. The same shape and seed give the same bytes everywhere. */
#ifndef QUERN_GGUF_SYNTHETIC_H
#define QUERN_GGUF_SYNTHETIC_H

#include "gguf/write.h"

/* What the tensors' types follow. Matrices whose rows are no whole blocks of the wanted type fall back
 * as the usual quantisers do: Q4_K to Q5_0, Q5_K and Q6_K to Q8_0, and what is no multiple of 32 either
 * to F16. Vectors (norms, biases) are always F32. */
enum synthetic_mix {
    SYNTHETIC_Q4_K_M, /* Q4_K; Q6_K for the head and about half of attn_v and ffn_down */
    SYNTHETIC_SINGLE  /* `type` for every matrix */
};

struct synthetic_shape {
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim, n_vocab;
    uint32_t n_ctx; /* positions the model claims to be trained for */
    float rope_base, rms_eps;
    bool tied; /* no output.weight: the embedding is the head */
    enum synthetic_mix mix;
    enum gguf_type type; /* for SYNTHETIC_SINGLE */
    uint64_t seed;
};

/* "0.5b", "1.5b", "3b": the Qwen2.5 models as their Q4_K_M files have them, with output.weight beside the embedding;
 * with "-tied", without it. False for other names. */
bool synthetic_shape_named(const char *name, struct synthetic_shape *shape);

/* A sentence about what is wrong with a shape: zero or absurd sizes, heads that KV heads do not divide, an odd head_dim. */
bool synthetic_shape_check(const struct synthetic_shape *shape, struct error *err);

/* "q4_k_m", or the name of a type that quern computes with ("f32", "q8_0", "q6_k" ...), in any case. */
bool synthetic_mix_named(const char *name, struct synthetic_shape *shape, struct error *err);

/* Metadata (all but the tokenizer's, which may be written after it) and tensors, in the order of the official files. */
void synthetic_metadata(struct gguf_writer *w, const struct synthetic_shape *shape, const char *model_name);
void synthetic_tensors(struct gguf_writer *w, const struct synthetic_shape *shape);

/* The weights: a gguf_fill, whose context is this generator. */
struct synthetic_weights {
    uint64_t seed;
    uint64_t state[4];       /* of the random number generator; reset at the start of every tensor */
    uint16_t halves[1021];   /* F16 or BF16 values by the sum of four random bytes */
};
void synthetic_weights_init(struct synthetic_weights *weights, const struct synthetic_shape *shape);
gguf_fill synthetic_fill;

/* A whole model without vocabulary in anonymous memory, for gguf_open_memory; gguf_image_free gives it back. */
void *synthetic_image(const struct synthetic_shape *shape, size_t *size, struct error *err);

#endif
