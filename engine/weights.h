/* Inside of a model, shared by the code that loads it and the code that runs it. */
#ifndef QUERN_WEIGHTS_H
#define QUERN_WEIGHTS_H

#include "engine/model.h"

/* A weight matrix [n_rows][n_cols] as panels. */
struct matrix {
    enum gguf_type type;
    int n_rows, n_cols;
    size_t n_panels, panel_bytes;
    unsigned char *panels; /* [n_panels][panel_bytes], 64-byte aligned */
    matmul_kernel *matmul;
};

struct layer {
    float *attn_norm, *ffn_norm;                       /* [n_embd] */
    struct matrix attn_q, attn_k, attn_v, attn_output; /* rows: n_heads * head_dim; n_kv_heads * head_dim, twice; n_embd */
    float *bias_q, *bias_k, *bias_v;                   /* one per row */
    struct matrix ffn_gate, ffn_up, ffn_down;          /* rows: n_ff, n_ff, n_embd */
};

struct model {
    struct model_shape shape;
    const struct kernels *kernels;
    const struct gguf_tensor *embedding; /* [n_vocab][n_embd], in the file */
    struct layer *layers;                /* [n_layers] */
    float *output_norm;                  /* [n_embd] */
    struct matrix output;                /* [n_vocab][n_embd] */
    double *rope_frequency;              /* [head_dim / 2]: radians per position, rope_theta^(-2 i / head_dim) */
    uint64_t n_params, decode_bytes, tensor_bytes;
    unsigned char *arena; /* panels of all matrices */
    size_t arena_bytes;
};

#endif
