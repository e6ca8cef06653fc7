/* A Qwen2 model in memory: hyperparameters, weights bound to layers and repacked for the kernels, and the batched forward pass.
 *
 * The batch is the unit of work: rows of (token, position, sequence). Prefill, decode of one or of many sequences
 * and verification of guessed tokens are the same call with different rows, and the result of a row does not depend
 * on what else is in the batch, on the number of threads or on the kernel level. */
#ifndef QUERN_MODEL_H
#define QUERN_MODEL_H

#include "engine/kv.h"
#include "engine/threads.h"
#include "gguf/gguf.h"
#include "kernels/kernels.h"

struct model_shape {
    int n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim, n_vocab;
    int n_ctx_train;    /* positions the model was trained for */
    float rope_theta;   /* base of the rotary embedding */
    float rms_eps;
    bool tied;          /* the embedding is the head */
};

struct model;

/* Binds and repacks the weights of g on the threads of pool; every page of the file that
 * is not needed any more is released on the way.
 * g must outlive the model (the embedding table is read from it). NULL with a sentence that names
 * the missing key, tensor, wrong shape or type. */
struct model *model_load(struct gguf *g, const struct kernels *kernels, struct threads *pool, struct error *err);
void model_free(struct model *m); /* NULL is allowed */

/* Locks the weights into RAM, so that they are never paged out. False with a sentence that
 * names RLIMIT_MEMLOCK when the system refuses. */
bool model_lock(const struct model *m, struct error *err);

const struct model_shape *model_shape(const struct model *m);
uint64_t model_n_params(const struct model *m);
/* Bytes of weights that one decode step reads: everything but the embedding table (which is counted if it is the head). */
uint64_t model_decode_bytes(const struct model *m);
uint64_t model_tensor_bytes(const struct model *m); /* of all tensors in the file */

struct row {
    int32_t token;    /* 0 .. n_vocab - 1 */
    int position;     /* 0 .. ; the sequence must already hold, or this batch must contain earlier, all positions before it */
    struct kv_sequence *sequence;
    float *logits;    /* [n_vocab] to be filled, or NULL: not wanted */
};

/* Computes the rows: writes their keys and values into their sequences, and the logits that are wanted.
 * Rows of one sequence stand together, in ascending, gapless positions.
 * Their blocks must have been taken with kv_grow. n_rows is any number >= 1;
 * work is done in steps of at most max_rows. Nothing is allocated. */
struct forward;
struct forward *forward_new(const struct model *m, struct kv_pool *kv, struct threads *pool, int max_rows, struct error *err);
void forward_free(struct forward *f);
void forward_run(struct forward *f, const struct row *rows, int n_rows);
/* Any thread: the layers computed so far (in all batches together). */
uint64_t forward_progress(const struct forward *f);

/* ---- where the time goes: for the bench ---- */

enum forward_part {
    FORWARD_EMBED,     /* rows of the embedding table, and the angles of their positions */
    FORWARD_NORM,      /* the residual stream's additions and norms, and quantising what the matrices multiply */
    FORWARD_ROPE,      /* rotating queries and keys; keys and values into the cache */
    FORWARD_ATTENTION,
    FORWARD_SWIGLU,    /* with the quantising of its result */
    FORWARD_HEAD,      /* the output matrix, of whatever type */
    FORWARD_MATMUL,    /* + enum gguf_type: the other matrices of that type, with their biases */
    FORWARD_PARTS = FORWARD_MATMUL + GGUF_TYPE_LIMIT
};

struct forward_times {
    double elapsed; /* seconds within forward_run; times the threads, what exceeds the sum of all
                     * parts was spent waiting for one another */
    struct forward_part_time {
        double seconds;       /* of all threads together */
        double bytes;         /* of weights, or of keys and values, that were read */
        double multiply_adds;
    } parts[FORWARD_PARTS];
};

/* Starts to add up, from zero, what each part of the work takes; a few clock readings per piece of work.
 * Without it nothing is measured and nothing lost.
 * False when memory is short. Not while forward_run is at work. */
bool forward_measure(struct forward *f, struct error *err);
/* What has added up since; the measuring ends. */
void forward_measure_end(struct forward *f, struct forward_times *out);

#endif
