/* Loading: hyperparameters from the metadata, every tensor checked against the shape they
 * imply, every matrix repacked into panels.
 *
 * Source of names and meanings: the GGUF specification ("qwen2" architecture keys and the tensor names blk.N.*). */
#include "engine/weights.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

/* While loading. */
struct loader {
    struct gguf *file;
    struct model *model;
    struct threads *pool;
    struct error *err;
    bool *used; /* [n_tensors]: bound to something */
};

/* ---- hyperparameters ---- */

static bool get_int(const struct loader *l, const char *key, int max, int *out)
{
    uint64_t value;
    if (!gguf_get_u64(l->file, key, &value, l->err))
        return false;
    if (value == 0 || value > (uint64_t)max)
        return error_set(l->err, "%s is %llu, outside 1..%d", key, (unsigned long long)value, max);
    *out = (int)value;
    return true;
}

static bool get_float(const struct loader *l, const char *key, float fallback, float *out)
{
    double value = fallback;
    if (gguf_has(l->file, key) && !gguf_get_f64(l->file, key, &value, l->err))
        return false;
    if (!(value > 0 && value < 1e12))
        return error_set(l->err, "%s is %g, not a positive number", key, value);
    *out = (float)value;
    return true;
}

static bool load_shape(struct loader *l)
{
    struct model_shape *s = &l->model->shape;
    struct gguf_string arch;
    if (!gguf_get_string(l->file, "general.architecture", &arch, l->err))
        return false;
    if (arch.length != 5 || memcmp(arch.data, "qwen2", 5) != 0)
        return error_set(l->err, "general.architecture is '%.*s'; quern runs 'qwen2' models (Qwen2 and Qwen2.5)",
                         arch.length < 64 ? (int)arch.length : 64, arch.data);
    if (!get_int(l, "qwen2.block_count", 1024, &s->n_layers) || !get_int(l, "qwen2.embedding_length", 1 << 16, &s->n_embd) ||
        !get_int(l, "qwen2.feed_forward_length", 1 << 20, &s->n_ff) ||
        !get_int(l, "qwen2.attention.head_count", 1 << 12, &s->n_heads) ||
        !get_int(l, "qwen2.context_length", 1 << 24, &s->n_ctx_train) ||
        !get_float(l, "qwen2.rope.freq_base", 10000.0f, &s->rope_theta) ||
        !get_float(l, "qwen2.attention.layer_norm_rms_epsilon", 1e-6f, &s->rms_eps))
        return false;
    s->n_kv_heads = s->n_heads;
    if (gguf_has(l->file, "qwen2.attention.head_count_kv") &&
        !get_int(l, "qwen2.attention.head_count_kv", s->n_heads, &s->n_kv_heads))
        return false;
    if (s->n_heads % s->n_kv_heads)
        return error_set(l->err, "qwen2.attention.head_count (%d) is not a multiple of qwen2.attention.head_count_kv (%d)",
            s->n_heads, s->n_kv_heads);

    s->head_dim = s->n_embd / s->n_heads;
    if (!gguf_has(l->file, "qwen2.attention.key_length") && s->n_embd % s->n_heads)
        return error_set(
            l->err, "qwen2.embedding_length (%d) is not a multiple of qwen2.attention.head_count (%d)", s->n_embd, s->n_heads);
    static const char *const same_as_head_dim[] = {
        "qwen2.attention.key_length", "qwen2.attention.value_length", "qwen2.rope.dimension_count"};
    for (size_t i = 0; i < sizeof same_as_head_dim / sizeof *same_as_head_dim; i++) {
        int value = 0;
        if (!gguf_has(l->file, same_as_head_dim[i]))
            continue;
        if (!get_int(l, same_as_head_dim[i], 1 << 12, &value))
            return false;
        if (i == 0)
            s->head_dim = value;
        else if (value != s->head_dim)
            return error_set(l->err, "%s is %d, but the heads have %d dimensions; quern needs them equal", same_as_head_dim[i],
                value, s->head_dim);
    }
    if (s->head_dim % 32)
        return error_set(l->err, "heads of %d dimensions are not supported: quern needs a multiple of 32", s->head_dim);
    if (s->n_embd % ACT_GROUP)
        return error_set(l->err, "qwen2.embedding_length is %d; quern needs a multiple of %d", s->n_embd, ACT_GROUP);
    if (s->n_ff % ACT_GROUP)
        return error_set(l->err, "qwen2.feed_forward_length is %d; quern needs a multiple of %d", s->n_ff, ACT_GROUP);

    struct gguf_string scaling;
    if (gguf_has(l->file, "qwen2.rope.scaling.type")) {
        if (!gguf_get_string(l->file, "qwen2.rope.scaling.type", &scaling, l->err))
            return false;
        if (scaling.length != 4 || memcmp(scaling.data, "none", 4) != 0)
            return error_set(l->err, "qwen2.rope.scaling.type is '%.*s'; quern supports no rope scaling",
                             scaling.length < 64 ? (int)scaling.length : 64, scaling.data);
    }
    return true;
}

/* ---- tensors ---- */

static const struct gguf_tensor *find(struct loader *l, const char *name, uint64_t cols, uint64_t rows)
{
    const struct gguf_tensor *t = gguf_find_tensor(l->file, name);
    if (!t) {
        error_set(l->err, "tensor '%s' is missing", name);
        return NULL;
    }
    if (t->dims[0] != cols || t->dims[1] != rows || t->dims[2] != 1 || t->dims[3] != 1) {
        error_set(l->err, "tensor '%s' has shape %llu x %llu x %llu x %llu; the hyperparameters want %llu x %llu", name,
                  (unsigned long long)t->dims[0], (unsigned long long)t->dims[1], (unsigned long long)t->dims[2],
                  (unsigned long long)t->dims[3], (unsigned long long)cols, (unsigned long long)rows);
        return NULL;
    }
    l->used[t - gguf_tensor_at(l->file, 0)] = true;
    l->model->n_params += t->n_elements;
    l->model->tensor_bytes += t->n_bytes;
    return t;
}

/* A vector of floats: norms and biases. */
static float *load_vector(struct loader *l, const char *name, int n)
{
    const struct gguf_tensor *t = find(l, name, (uint64_t)n, 1);
    if (!t)
        return NULL;
    if (t->type != GGUF_TYPE_F32 && t->type != GGUF_TYPE_F16 && t->type != GGUF_TYPE_BF16) {
        error_set(
            l->err, "tensor '%s' has type %s; norms and biases must be F32, F16 or BF16", name, gguf_type_traits(t->type)->name);
        return NULL;
    }
    float *v = malloc(sizeof *v * (size_t)n);
    if (!v) {
        error_set(l->err, "out of memory");
        return NULL;
    }
    dequantize(t->type, t->data, (size_t)n, v);
    l->model->decode_bytes += t->n_bytes;
    return v;
}

/* First pass over matrices: check, and take room in the arena (offsets stand in for pointers until it exists). */
static bool bind_matrix(struct loader *l, struct matrix *m, const char *name, int rows, int cols)
{
    const struct gguf_tensor *t = find(l, name, (uint64_t)cols, (uint64_t)rows);
    if (!t)
        return false;
    m->type = t->type;
    m->n_rows = rows;
    m->n_cols = cols;
    m->matmul = panel_supported(t->type) ? l->model->kernels->matmul[t->type] : NULL;
    if (!m->matmul)
        return error_set(l->err,
                         "tensor '%s' has type %s, which quern cannot compute with (it can: F32, F16, BF16, Q4_0, Q5_0, Q8_0, "
                         "Q4_K, Q5_K, Q6_K)",
                         name, gguf_type_traits(t->type)->name);
    m->n_panels = ((size_t)rows + PANEL_ROWS - 1) / PANEL_ROWS;
    m->panel_bytes = panel_bytes(t->type, (size_t)cols);
    l->model->decode_bytes += t->n_bytes;
    l->model->arena_bytes += m->n_panels * m->panel_bytes;
    return true;
}

/* ---- repacking ---- */

enum { PANELS_PER_PIECE = 8 };

struct repack {
    const struct gguf_tensor *tensor;
    struct matrix *matrix;
};

static void repack_piece(void *arg, int piece, int thread)
{
    (void)thread;
    const struct repack *r = arg;
    const struct matrix *m = r->matrix;
    size_t row_bytes = r->tensor->n_bytes / (size_t)m->n_rows;
    for (size_t p = (size_t)piece * PANELS_PER_PIECE; p < ((size_t)piece + 1) * PANELS_PER_PIECE && p < m->n_panels; p++) {
        size_t first = p * PANEL_ROWS, n = (size_t)m->n_rows - first < PANEL_ROWS ? (size_t)m->n_rows - first : PANEL_ROWS;
        panel_pack(m->type, r->tensor->data + first * row_bytes, n, (size_t)m->n_cols, m->panels + p * m->panel_bytes);
    }
}

/* Second pass: fills the panels from the tensor of that name. */
static void repack(struct loader *l, struct matrix *m, const char *name, size_t *offset)
{
    struct repack r = {gguf_find_tensor(l->file, name), m};
    m->panels = l->model->arena + *offset;
    *offset += m->n_panels * m->panel_bytes;
    gguf_prefetch(l->file, r.tensor);
    threads_run(l->pool, (int)((m->n_panels + PANELS_PER_PIECE - 1) / PANELS_PER_PIECE), repack_piece, &r);
    if (r.tensor != l->model->embedding)
        gguf_release(l->file, r.tensor);
}

/* The matrices of a layer, for both passes. */
struct layer_matrix {
    struct matrix *matrix;
    const char *suffix;
    int rows, cols;
};

enum { LAYER_MATRICES = 7 };

static void layer_matrices(const struct model_shape *s, struct layer *y, struct layer_matrix out[LAYER_MATRICES])
{
    int q = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim;
    const struct layer_matrix all[LAYER_MATRICES] = {
        {&y->attn_q, "attn_q.weight", q, s->n_embd},           {&y->attn_k, "attn_k.weight", kv, s->n_embd},
        {&y->attn_v, "attn_v.weight", kv, s->n_embd},          {&y->attn_output, "attn_output.weight", s->n_embd, q},
        {&y->ffn_gate, "ffn_gate.weight", s->n_ff, s->n_embd}, {&y->ffn_up, "ffn_up.weight", s->n_ff, s->n_embd},
        {&y->ffn_down, "ffn_down.weight", s->n_embd, s->n_ff},
    };
    memcpy(out, all, sizeof all);
}

static const char *layer_tensor(char name[64], int layer, const char *suffix)
{
    snprintf(name, 64, "blk.%d.%s", layer, suffix);
    return name;
}

static bool bind_layer(struct loader *l, int i)
{
    const struct model_shape *s = &l->model->shape;
    struct layer *y = &l->model->layers[i];
    struct layer_matrix matrices[LAYER_MATRICES];
    char name[64];
    layer_matrices(s, y, matrices);
    for (int k = 0; k < LAYER_MATRICES; k++)
        if (!bind_matrix(l, matrices[k].matrix, layer_tensor(name, i, matrices[k].suffix), matrices[k].rows, matrices[k].cols))
            return false;
    return (y->attn_norm = load_vector(l, layer_tensor(name, i, "attn_norm.weight"), s->n_embd)) &&
           (y->ffn_norm = load_vector(l, layer_tensor(name, i, "ffn_norm.weight"), s->n_embd)) &&
           (y->bias_q = load_vector(l, layer_tensor(name, i, "attn_q.bias"), s->n_heads * s->head_dim)) &&
           (y->bias_k = load_vector(l, layer_tensor(name, i, "attn_k.bias"), s->n_kv_heads * s->head_dim)) &&
           (y->bias_v = load_vector(l, layer_tensor(name, i, "attn_v.bias"), s->n_kv_heads * s->head_dim));
}

static bool bind_embedding(struct loader *l)
{
    struct model *m = l->model;
    const struct gguf_tensor *t = gguf_find_tensor(l->file, "token_embd.weight");
    if (!t)
        return error_set(l->err, "tensor 'token_embd.weight' is missing");
    if (t->dims[1] > INT32_MAX / 2)
        return error_set(
            l->err, "tensor 'token_embd.weight' has %llu rows, more than quern supports", (unsigned long long)t->dims[1]);
    m->shape.n_vocab = (int)t->dims[1];
    if (!(m->embedding = find(l, "token_embd.weight", (uint64_t)m->shape.n_embd, t->dims[1])))
        return false;
    if (!panel_supported(t->type))
        return error_set(
            l->err, "tensor 'token_embd.weight' has type %s, which quern cannot compute with", gguf_type_traits(t->type)->name);
    return true;
}

static const char *output_name(const struct model *m)
{
    return m->shape.tied ? "token_embd.weight" : "output.weight";
}

static bool bind_output(struct loader *l)
{
    struct model *m = l->model;
    m->shape.tied = !gguf_find_tensor(l->file, "output.weight");
    if (m->shape.tied) { /* counted once already, as the embedding */
        m->n_params -= m->embedding->n_elements;
        m->tensor_bytes -= m->embedding->n_bytes;
    }
    return bind_matrix(l, &m->output, output_name(m), m->shape.n_vocab, m->shape.n_embd) &&
           (m->output_norm = load_vector(l, "output_norm.weight", m->shape.n_embd));
}

/* A tensor nobody asked for means a model that computes something quern does not. */
static bool nothing_left(const struct loader *l)
{
    for (size_t i = 0; i < gguf_n_tensors(l->file); i++)
        if (!l->used[i]) {
            const struct gguf_tensor *t = gguf_tensor_at(l->file, i);
            return error_set(l->err,
                "tensor '%.*s' is not part of a Qwen2 model as quern knows it; running without it would give wrong answers",
                t->name.length < 128 ? (int)t->name.length : 128, t->name.data);
        }
    return true;
}

static bool map_arena(struct loader *l)
{
    struct model *m = l->model;
    m->arena_bytes = (m->arena_bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *p = mmap(NULL, m->arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return error_set(l->err, "not enough memory for the weights (%llu MB): %s", (unsigned long long)(m->arena_bytes >> 20),
            strerror(errno));
    madvise(p, m->arena_bytes, MADV_HUGEPAGE); /* fewer page faults while loading, fewer TLB misses in every step */
    m->arena = p;
    return true;
}

static bool load(struct loader *l)
{
    struct model *m = l->model;
    if (!load_shape(l) || !bind_embedding(l))
        return false;
    m->layers = calloc((size_t)m->shape.n_layers, sizeof *m->layers);
    m->rope_frequency = malloc(sizeof *m->rope_frequency * (size_t)m->shape.head_dim / 2);
    if (!m->layers || !m->rope_frequency)
        return error_set(l->err, "out of memory");
    for (int i = 0; i < m->shape.head_dim / 2; i++)
        m->rope_frequency[i] = pow((double)m->shape.rope_theta, -2.0 * i / m->shape.head_dim);
    for (int i = 0; i < m->shape.n_layers; i++)
        if (!bind_layer(l, i))
            return false;
    if (!bind_output(l) || !nothing_left(l) || !map_arena(l))
        return false;

    size_t offset = 0;
    for (int i = 0; i < m->shape.n_layers; i++) {
        struct layer_matrix matrices[LAYER_MATRICES];
        char name[64];
        layer_matrices(&m->shape, &m->layers[i], matrices);
        for (int k = 0; k < LAYER_MATRICES; k++)
            repack(l, matrices[k].matrix, layer_tensor(name, i, matrices[k].suffix), &offset);
    }
    repack(l, &m->output, output_name(m), &offset);
    gguf_drop(l->file, m->embedding); /* rows are read again one by one, as tokens need them */
    return true;
}

struct model *model_load(struct gguf *g, const struct kernels *kernels, struct threads *pool, struct error *err)
{
    struct model *m = calloc(1, sizeof *m);
    bool *used = calloc(gguf_n_tensors(g) + 1, sizeof *used);
    if (!m || !used) {
        error_set(err, "out of memory");
        free(m);
        free(used);
        return NULL;
    }
    m->kernels = kernels;
    struct loader l = {g, m, pool, err, used};
    bool ok = load(&l);
    free(used);
    if (ok)
        return m;
    model_free(m);
    return NULL;
}

void model_free(struct model *m)
{
    if (!m)
        return;
    for (int i = 0; m->layers && i < m->shape.n_layers; i++) {
        struct layer *y = &m->layers[i];
        free(y->attn_norm);
        free(y->ffn_norm);
        free(y->bias_q);
        free(y->bias_k);
        free(y->bias_v);
    }
    free(m->layers);
    free(m->output_norm);
    free(m->rope_frequency);
    if (m->arena)
        munmap(m->arena, m->arena_bytes);
    free(m);
}

bool model_lock(const struct model *m, struct error *err)
{
    if (mlock(m->arena, m->arena_bytes) == 0)
        return true;
    return error_set(err,
        "cannot lock %llu MB of weights into RAM: %s; raise RLIMIT_MEMLOCK (ulimit -l, or LimitMEMLOCK= in a systemd unit)",
        (unsigned long long)(m->arena_bytes >> 20), strerror(errno));
}

const struct model_shape *model_shape(const struct model *m)
{
    return &m->shape;
}

uint64_t model_n_params(const struct model *m)
{
    return m->n_params;
}

uint64_t model_decode_bytes(const struct model *m)
{
    return m->decode_bytes;
}

uint64_t model_tensor_bytes(const struct model *m)
{
    return m->tensor_bytes;
}
