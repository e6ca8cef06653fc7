/* The forward pass over a batch of rows.
 *
 * Rows are cut into tiles of TILE tokens, weights into pieces of a few panels; a thread takes a piece of weights
 * and runs all tiles past it while it is in the second-level cache, so that weights come from memory once per batch
 * and the activations of a tile from a cache.
 *
 * Per layer: x -> norm, quantise -> Q, K, V (+ bias) -> rope, K and V into the cache -> attention -> quantise -> output matrix;
 * x += that; norm, quantise -> gate and up, SwiGLU, quantise (in one piece of work) -> down; x += that. In the last layer only
 * the rows whose logits are wanted go on after their keys and values are stored. */
#include "engine/weights.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    TILE = 64,              /* tokens whose activations a kernel works on at a time */
    PIECE_BYTES = 64 << 10, /* of weights that a thread takes at a time, about */
    PIECE_PANELS = 16,      /* at most */
    FEW_ROWS = 8,           /* up to here memory is the limit, and weights are shared out in long runs */
    ATTENTION_ROWS = 128,   /* rows (tokens times heads) of one call of the attention kernel, at most */
    TOKENS_PER_PIECE = 8    /* of the work that goes token by token */
};

/* Activations of up to max_rows rows, in tiles. */
struct acts {
    int n_cols, n_tiles;
    struct act *tiles;    /* [n_tiles] */
    unsigned char *arena; /* of all tiles */
    float *x;             /* [max_rows][n_cols]: unquantised, NULL where nobody reads them */
};

struct scratch { /* of one thread */
    float *tile; /* results of a piece: tile_floats() */
    float *attention;
    const uint16_t **keys, **values; /* [max_blocks] */
};

struct forward {
    const struct model *model;
    struct kv_pool *kv;
    struct threads *pool;
    int max_rows, max_blocks;
    struct scratch *scratch; /* [threads] */
    int n_threads;

    /* The batch in work. */
    struct row *rows;     /* [n_rows] */
    int n_rows;
    int *tile_first;      /* [max_rows]: first rows of the attention tiles */
    float *x;             /* [max_rows][n_embd]: the residual stream */
    float *delta;         /* [max_rows][n_embd]: what is to be added to it */
    float *q, *k, *v;     /* [max_rows][heads * head_dim] */
    float *cos, *sin;     /* [max_rows][head_dim / 2] */
    struct acts embd, heads, ff; /* activations as wide as n_embd, n_heads * head_dim, n_ff */

    atomic_uint_fast64_t n_layers_done; /* read by other threads */
    struct forward_times *times; /* [threads]; NULL: nobody wants to know */

    /* The step in work. */
    int layer;
    const float *norm;
    bool add_delta;
};

/* ---- times ---- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double begin(const struct forward *f)
{
    return f->times ? now() : 0;
}

/* Counts the time since `from` to a part. Returns the time it is now. */
static double spent(const struct forward *f, int thread, int part, double from, double bytes, double multiply_adds)
{
    if (!f->times)
        return 0;
    struct forward_part_time *p = &f->times[thread].parts[part];
    double time = now();
    p->seconds += time - from;
    p->bytes += bytes;
    p->multiply_adds += multiply_adds;
    return time;
}

/* The same for a matrix of which `count` panels have been multiplied with n_rows rows. */
static double spent_matrix(
    const struct forward *f, int thread, int part, double from, const struct matrix *w, size_t count, int n_rows, bool first)
{
    return spent(
        f, thread, part, from, first ? (double)(count * w->panel_bytes) : 0, (double)count * PANEL_ROWS * w->n_cols * n_rows);
}

bool forward_measure(struct forward *f, struct error *err)
{
    free(f->times);
    f->times = calloc((size_t)f->n_threads, sizeof *f->times);
    return f->times ? true : error_set(err, "out of memory");
}

void forward_measure_end(struct forward *f, struct forward_times *out)
{
    memset(out, 0, sizeof *out);
    for (int t = 0; f->times && t < f->n_threads; t++) {
        out->elapsed += f->times[t].elapsed;
        for (int i = 0; i < FORWARD_PARTS; i++) {
            out->parts[i].seconds += f->times[t].parts[i].seconds;
            out->parts[i].bytes += f->times[t].parts[i].bytes;
            out->parts[i].multiply_adds += f->times[t].parts[i].multiply_adds;
        }
    }
    free(f->times);
    f->times = NULL;
}

/* ---- memory ---- */

static size_t round64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

static void *zeroed(size_t count, size_t size)
{
    size_t bytes = round64(count * size + 64);
    void *p = aligned_alloc(64, bytes);
    if (p)
        memset(p, 0, bytes);
    return p;
}

static bool acts_init(struct acts *a, int n_cols, int max_rows, bool want_x)
{
    size_t groups = (size_t)n_cols / ACT_GROUP;
    size_t tile = round64(groups * TILE * ACT_GROUP) + 2 * round64(groups * TILE * sizeof(float)) +
                  round64(groups * TILE * 2 * sizeof(int16_t)) + round64(groups * TILE * 4 * sizeof(int16_t));
    int n_tiles = (max_rows + TILE - 1) / TILE;
    a->n_cols = n_cols;
    a->tiles = calloc((size_t)n_tiles, sizeof *a->tiles);
    a->arena = zeroed((size_t)n_tiles, tile);
    a->x = want_x ? zeroed((size_t)max_rows * (size_t)n_cols, sizeof(float)) : NULL;
    if (!a->tiles || !a->arena || (want_x && !a->x))
        return false;
    for (int i = 0; i < n_tiles; i++) {
        unsigned char *p = a->arena + (size_t)i * tile;
        struct act *t = &a->tiles[i];
        t->n_cols = n_cols;
        t->q = (int8_t *)p;
        p += round64(groups * TILE * ACT_GROUP);
        t->d = (float *)(void *)p;
        p += round64(groups * TILE * sizeof(float));
        t->sum = (float *)(void *)p;
        p += round64(groups * TILE * sizeof(float));
        t->half = (int16_t *)(void *)p;
        p += round64(groups * TILE * 2 * sizeof(int16_t));
        t->pair = (int16_t *)(void *)p;
        t->x = a->x ? a->x + (size_t)i * TILE * (size_t)n_cols : NULL;
    }
    return true;
}

static void acts_free(struct acts *a)
{
    free(a->tiles);
    free(a->arena);
    free(a->x);
}

static void acts_set_rows(struct acts *a, int n_rows)
{
    a->n_tiles = (n_rows + TILE - 1) / TILE;
    for (int i = 0; i < a->n_tiles; i++)
        a->tiles[i].n_tokens = n_rows - i * TILE < TILE ? n_rows - i * TILE : TILE;
}

static bool reads_floats(const struct matrix *m)
{
    return m->type == GGUF_TYPE_F32 || m->type == GGUF_TYPE_F16 || m->type == GGUF_TYPE_BF16;
}

/* Room for the results of any piece of gate and up together, or of the output matrix. */
static size_t tile_floats(const struct model_shape *s, int n_threads)
{
    size_t many = 2 * TILE * PIECE_PANELS * PANEL_ROWS;
    size_t widest = s->n_vocab > 2 * s->n_ff ? (size_t)s->n_vocab : 2 * (size_t)s->n_ff;
    size_t few = FEW_ROWS * (widest / 8 * 7 / (size_t)n_threads + 8 * PANEL_ROWS);
    return many > few ? many : few;
}

struct forward *forward_new(const struct model *m, struct kv_pool *kv, struct threads *pool, int max_rows, struct error *err)
{
    const struct model_shape *s = &m->shape;
    struct forward *f = calloc(1, sizeof *f);
    if (!f) {
        error_set(err, "out of memory");
        return NULL;
    }
    f->model = m;
    f->kv = kv;
    f->pool = pool;
    f->max_rows = max_rows < 1 ? 1 : max_rows;
    f->max_blocks = kv_pool_blocks(kv);
    f->n_threads = threads_count(pool);

    bool floats = false;
    for (int i = 0; i < s->n_layers; i++)
        floats = floats || reads_floats(&m->layers[i].ffn_down);
    size_t rows = (size_t)f->max_rows, q = (size_t)s->n_heads * (size_t)s->head_dim,
           kv_cols = (size_t)s->n_kv_heads * (size_t)s->head_dim;
    bool ok = (f->rows = calloc(rows, sizeof *f->rows)) && (f->tile_first = calloc(rows, sizeof *f->tile_first)) &&
              (f->x = zeroed(rows * (size_t)s->n_embd, sizeof(float))) &&
              (f->delta = zeroed(rows * (size_t)s->n_embd, sizeof(float))) && (f->q = zeroed(rows * q, sizeof(float))) &&
              (f->k = zeroed(rows * kv_cols, sizeof(float))) && (f->v = zeroed(rows * kv_cols, sizeof(float))) &&
              (f->cos = zeroed(rows * (size_t)s->head_dim / 2, sizeof(float))) &&
              (f->sin = zeroed(rows * (size_t)s->head_dim / 2, sizeof(float))) &&
              acts_init(&f->embd, s->n_embd, f->max_rows, true) && acts_init(&f->heads, (int)q, f->max_rows, true) &&
              acts_init(&f->ff, s->n_ff, f->max_rows, floats) && (f->scratch = calloc((size_t)f->n_threads, sizeof *f->scratch));
    for (int i = 0; ok && i < f->n_threads; i++) {
        struct scratch *t = &f->scratch[i];
        ok = (t->tile = aligned_alloc(64, round64(tile_floats(s, f->n_threads) * sizeof(float)))) &&
             (t->attention = zeroed(attention_scratch(ATTENTION_ROWS, s->head_dim), sizeof(float))) &&
             (t->keys = calloc((size_t)f->max_blocks, sizeof *t->keys)) &&
             (t->values = calloc((size_t)f->max_blocks, sizeof *t->values));
    }
    if (ok)
        return f;
    forward_free(f);
    error_set(err, "not enough memory for batches of %d rows; use a smaller batch size", max_rows);
    return NULL;
}

void forward_free(struct forward *f)
{
    if (!f)
        return;
    for (int i = 0; f->scratch && i < f->n_threads; i++) {
        free(f->scratch[i].tile);
        free(f->scratch[i].attention);
        free(f->scratch[i].keys);
        free(f->scratch[i].values);
    }
    free(f->scratch);
    free(f->times);
    acts_free(&f->embd);
    acts_free(&f->heads);
    acts_free(&f->ff);
    free(f->rows);
    free(f->tile_first);
    free(f->x);
    free(f->delta);
    free(f->q);
    free(f->k);
    free(f->v);
    free(f->cos);
    free(f->sin);
    free(f);
}

/* ---- matrix steps ---- */

/* y = W x (+ bias) for all rows: y[row][n_rows of W]. */
struct product {
    const struct matrix *w;
    const float *bias; /* or NULL */
    float *y;
};

struct product_step {
    struct forward *f;
    const struct acts *x;
    const struct product *products; /* [n_products] */
    int n_products;
};

/* How the panels of a matrix are shared out: first `large` panels for each thread at once, then pieces of `small`.
 * Both are even, so that a piece covers whole groups of activations.
 *
 * With many rows a piece should stay in the second-level cache while all tiles of activations go past it,
 * so all pieces are small. With few rows weights stream from memory, which is fastest in long runs: seven
 * eighths go out in one run for each thread, the rest in small pieces to whoever is done first. */
struct split {
    int large, n_large, small, n_pieces;
};

static struct split split(const struct forward *f, const struct matrix *w)
{
    struct split s = {0, 0, 0, 0};
    int n = (int)w->n_panels;
    s.small = (int)(PIECE_BYTES / w->panel_bytes) & ~1;
    s.small = s.small < 2 ? 2 : s.small > PIECE_PANELS ? PIECE_PANELS : s.small;
    if (f->n_rows <= FEW_ROWS && w->panel_bytes * w->n_panels >= (size_t)f->n_threads * 4 * PIECE_BYTES) {
        s.n_large = f->n_threads;
        s.large = (n / 8 * 7 / f->n_threads) & ~1;
    }
    s.n_pieces = s.n_large + (n - s.n_large * s.large + s.small - 1) / s.small;
    return s;
}

/* The panels [*first, *first + *count) that make piece number `piece`. */
static void piece_range(const struct split *s, const struct matrix *w, int piece, size_t *first, size_t *count)
{
    size_t end;
    if (piece < s->n_large) {
        *first = (size_t)piece * (size_t)s->large;
        end = *first + (size_t)s->large;
    } else {
        *first = (size_t)s->n_large * (size_t)s->large + (size_t)(piece - s->n_large) * (size_t)s->small;
        end = *first + (size_t)s->small;
    }
    *count = (end < w->n_panels ? end : w->n_panels) - *first;
}

static void product_piece(void *arg, int piece, int thread)
{
    const struct product_step *s = arg;
    const struct product *p = s->products;
    double from = begin(s->f);
    struct split parts = split(s->f, p->w);
    while (piece >= parts.n_pieces) {
        piece -= parts.n_pieces;
        parts = split(s->f, (++p)->w);
    }
    size_t first, count;
    piece_range(&parts, p->w, piece, &first, &count);
    size_t n_rows = (size_t)p->w->n_rows, column = first * PANEL_ROWS;
    for (int t = 0; t < s->x->n_tiles; t++) {
        const struct act *x = &s->x->tiles[t];
        float *y = p->y + (size_t)t * TILE * n_rows + column;
        p->w->matmul(p->w->panels + first * p->w->panel_bytes, count, x, y, n_rows);
        if (p->bias)
            for (int i = 0; i < x->n_tokens; i++)
                s->f->model->kernels->add(y + (size_t)i * n_rows, p->bias + column, (int)(count * PANEL_ROWS));
        from = spent_matrix(s->f, thread, FORWARD_MATMUL + (int)p->w->type, from, p->w, count, x->n_tokens, t == 0);
    }
}

static void multiply(struct forward *f, const struct acts *x, const struct product *products, int n_products)
{
    struct product_step s = {f, x, products, n_products};
    int pieces = 0;
    for (int i = 0; i < n_products; i++)
        pieces += split(f, products[i].w).n_pieces;
    threads_run(f->pool, pieces, product_piece, &s);
}

/* Gate and up have as many panels, but may differ in type. */
static struct split ffn_split(const struct forward *f, const struct layer *l)
{
    return split(f, l->ffn_gate.panel_bytes > l->ffn_up.panel_bytes ? &l->ffn_gate : &l->ffn_up);
}

/* Gate and up for the same columns, SwiGLU, and the result quantised for the down matrix. */
static void ffn_piece(void *arg, int piece, int thread)
{
    struct forward *f = arg;
    const struct layer *layer = &f->model->layers[f->layer];
    const struct matrix *gate = &layer->ffn_gate, *up = &layer->ffn_up;
    const struct kernels *kernels = f->model->kernels;
    struct split parts = ffn_split(f, layer);
    size_t first, count;
    piece_range(&parts, gate, piece, &first, &count);
    size_t columns = count * PANEL_ROWS, column = first * PANEL_ROWS;
    float *g = f->scratch[thread].tile;
    double from = begin(f);
    for (int t = 0; t < f->embd.n_tiles; t++) {
        const struct act *x = &f->embd.tiles[t];
        float *u = g + (size_t)x->n_tokens * columns;
        gate->matmul(gate->panels + first * gate->panel_bytes, count, x, g, columns);
        from = spent_matrix(f, thread, FORWARD_MATMUL + (int)gate->type, from, gate, count, x->n_tokens, t == 0);
        up->matmul(up->panels + first * up->panel_bytes, count, x, u, columns);
        from = spent_matrix(f, thread, FORWARD_MATMUL + (int)up->type, from, up, count, x->n_tokens, t == 0);
        kernels->swiglu(g, g, u, x->n_tokens * (int)columns);
        const struct act *y = &f->ff.tiles[t];
        kernels->quantize(y, g, columns, 0, y->n_tokens, (int)(column / ACT_GROUP), (int)(columns / ACT_GROUP));
        for (int i = 0; f->ff.x && i < x->n_tokens; i++)
            memcpy(f->ff.x + ((size_t)t * TILE + (size_t)i) * (size_t)f->ff.n_cols + column, g + (size_t)i * columns,
                columns * sizeof(float));
        from = spent(f, thread, FORWARD_SWIGLU, from, 0, 0);
    }
}

/* Logits go to wherever each row wants them, and the last panel may be filled up: through scratch. */
static void logits_piece(void *arg, int piece, int thread)
{
    struct forward *f = arg;
    const struct matrix *w = &f->model->output;
    struct split parts = split(f, w);
    size_t first, count;
    piece_range(&parts, w, piece, &first, &count);
    size_t columns = count * PANEL_ROWS, column = first * PANEL_ROWS;
    size_t valid = (size_t)w->n_rows - column < columns ? (size_t)w->n_rows - column : columns;
    float *y = f->scratch[thread].tile;
    double from = begin(f);
    for (int t = 0; t < f->embd.n_tiles; t++) {
        const struct act *x = &f->embd.tiles[t];
        w->matmul(w->panels + first * w->panel_bytes, count, x, y, columns);
        for (int i = 0; i < x->n_tokens; i++)
            memcpy(f->rows[t * TILE + i].logits + column, y + (size_t)i * columns, valid * sizeof(float));
        from = spent_matrix(f, thread, FORWARD_HEAD, from, w, count, x->n_tokens, t == 0);
    }
}

/* ---- steps that go token by token ---- */

static void run_by_tokens(struct forward *f, threads_fn *fn)
{
    threads_run(f->pool, (f->n_rows + TOKENS_PER_PIECE - 1) / TOKENS_PER_PIECE, fn, f);
}

static int piece_end(const struct forward *f, int piece)
{
    int end = (piece + 1) * TOKENS_PER_PIECE;
    return end < f->n_rows ? end : f->n_rows;
}

static void quantize_row(const struct forward *f, const struct acts *a, const float *x, int row)
{
    f->model->kernels->quantize(&a->tiles[row / TILE], x, 0, row % TILE, 1, 0, a->n_cols / ACT_GROUP);
}

static void embed_piece(void *arg, int piece, int thread)
{
    struct forward *f = arg;
    double from = begin(f);
    const struct model_shape *s = &f->model->shape;
    const struct gguf_tensor *e = f->model->embedding;
    size_t row_bytes = e->n_bytes / (size_t)s->n_vocab;
    int half = s->head_dim / 2;
    for (int i = piece * TOKENS_PER_PIECE; i < piece_end(f, piece); i++) {
        dequantize(
            e->type, e->data + (size_t)f->rows[i].token * row_bytes, (size_t)s->n_embd, f->x + (size_t)i * (size_t)s->n_embd);
        for (int d = 0; d < half; d++) {
            double angle = f->rows[i].position * f->model->rope_frequency[d];
            f->cos[i * half + d] = (float)cos(angle);
            f->sin[i * half + d] = (float)sin(angle);
        }
    }
    spent(f, thread, FORWARD_EMBED, from, 0, 0);
}

/* x += delta (but for the first layer); norm; quantise. */
static void norm_piece(void *arg, int piece, int thread)
{
    struct forward *f = arg;
    double from = begin(f);
    const struct model_shape *s = &f->model->shape;
    const struct kernels *kernels = f->model->kernels;
    for (int i = piece * TOKENS_PER_PIECE; i < piece_end(f, piece); i++) {
        size_t at = (size_t)i * (size_t)s->n_embd;
        if (f->add_delta)
            kernels->add(f->x + at, f->delta + at, s->n_embd);
        kernels->rms_norm(f->embd.x + at, f->x + at, f->norm, s->n_embd, s->rms_eps);
        quantize_row(f, &f->embd, f->embd.x + at, i);
    }
    spent(f, thread, FORWARD_NORM, from, 0, 0);
}

static void norm(struct forward *f, const float *weights, bool add_delta)
{
    f->norm = weights;
    f->add_delta = add_delta;
    run_by_tokens(f, norm_piece);
}

/* Rope on queries and keys; keys and values into the cache. */
static void store_piece(void *arg, int piece, int thread)
{
    struct forward *f = arg;
    double from = begin(f);
    const struct model_shape *s = &f->model->shape;
    const struct kernels *kernels = f->model->kernels;
    size_t hd = (size_t)s->head_dim;
    for (int i = piece * TOKENS_PER_PIECE; i < piece_end(f, piece); i++) {
        const struct row *row = &f->rows[i];
        const float *c = f->cos + (size_t)i * hd / 2, *sn = f->sin + (size_t)i * hd / 2;
        float *k = f->k + (size_t)i * (size_t)s->n_kv_heads * hd, *v = f->v + (size_t)i * (size_t)s->n_kv_heads * hd;
        kernels->rope(f->q + (size_t)i * (size_t)s->n_heads * hd, s->n_heads, s->head_dim, c, sn);
        kernels->rope(k, s->n_kv_heads, s->head_dim, c, sn);
        int32_t block = row->sequence->blocks[row->position / KV_BLOCK];
        size_t in_block = (size_t)row->position % KV_BLOCK;
        for (int h = 0; h < s->n_kv_heads; h++, k += hd, v += hd) {
            uint16_t *keys = kv_keys(f->kv, f->layer, h, block) + in_block / KV_PANEL * KV_PANEL * hd + in_block % KV_PANEL;
            kernels->to_f16(kv_values(f->kv, f->layer, h, block) + in_block * hd, v, s->head_dim);
            uint16_t narrow[32];
            for (size_t d = 0; d < hd; d += 32) {
                kernels->to_f16(narrow, k + d, 32);
                for (size_t j = 0; j < 32; j++)
                    keys[(d + j) * KV_PANEL] = narrow[j];
            }
        }
    }
    spent(f, thread, FORWARD_ROPE, from, 0, 0);
}

static void quantize_heads_piece(void *arg, int piece, int thread)
{
    struct forward *f = arg;
    double from = begin(f);
    for (int i = piece * TOKENS_PER_PIECE; i < piece_end(f, piece); i++)
        quantize_row(f, &f->heads, f->heads.x + (size_t)i * (size_t)f->heads.n_cols, i);
    spent(f, thread, FORWARD_NORM, from, 0, 0);
}

/* ---- attention: tiles of consecutive rows of one sequence ---- */

/* Number of rows from `first` on that make one tile. */
static int tile_rows(const struct forward *f, int first)
{
    const int most = f->model->kernels->attention_tokens;
    int n = 1;
    while (n < most && first + n < f->n_rows && f->rows[first + n].sequence == f->rows[first].sequence)
        n++;
    return n;
}

struct attention_step {
    struct forward *f;
    int n_tiles;
    int *first;  /* [n_tiles]: first row; tiles are ordered as the rows are */
    int n_parts; /* into which the heads that share a KV head are divided, so that there is a piece for every thread */
};

static void attention_piece(void *arg, int piece, int thread)
{
    const struct attention_step *step = arg;
    struct forward *f = step->f;
    const struct model_shape *s = &f->model->shape;
    /* The last tiles of a prompt look at the most positions: begin with them, so that no thread ends with a long one. */
    int part = piece % step->n_parts, kv_head = piece / step->n_parts % s->n_kv_heads;
    int first = step->first[step->n_tiles - 1 - piece / step->n_parts / s->n_kv_heads], n = tile_rows(f, first);
    int group = s->n_heads / s->n_kv_heads, first_head = kv_head * group + group * part / step->n_parts;
    int n_heads = kv_head * group + group * (part + 1) / step->n_parts - first_head;
    const struct kv_sequence *sequence = f->rows[first].sequence;
    int n_keys = f->rows[first + n - 1].position + 1;

    struct scratch *scratch = &f->scratch[thread];
    double from = begin(f), pairs = 0;
    for (int b = 0; b < (n_keys + KV_BLOCK - 1) / KV_BLOCK; b++) {
        scratch->keys[b] = kv_keys(f->kv, f->layer, kv_head, sequence->blocks[b]);
        scratch->values[b] = kv_values(f->kv, f->layer, kv_head, sequence->blocks[b]);
    }
    /* Rows of the tile: token by token, and the heads of the part; in runs that the arrays hold. */
    const float *q[ATTENTION_ROWS];
    float *out[ATTENTION_ROWS];
    int limit[ATTENTION_ROWS];
    struct attention_tile tile = {.head_dim = s->head_dim, .scale = 1.0f / sqrtf((float)s->head_dim), .q = q, .out = out,
                                  .limit = limit, .k = scratch->keys, .v = scratch->values, .scratch = scratch->attention};
    for (int i = 0; i < n * n_heads; i++) {
        size_t row = (size_t)(first + i / n_heads), head = (size_t)(first_head + i % n_heads);
        size_t at = (row * (size_t)s->n_heads + head) * (size_t)s->head_dim;
        q[tile.n_rows] = f->q + at;
        out[tile.n_rows] = f->heads.x + at;
        tile.n_keys = limit[tile.n_rows] = f->rows[row].position + 1;
        pairs += tile.n_keys;
        if (++tile.n_rows == ATTENTION_ROWS || i == n * n_heads - 1) {
            f->model->kernels->attention(&tile);
            tile.n_rows = 0;
        }
    }
    spent(f, thread, FORWARD_ATTENTION, from, 2.0 * n_keys * s->head_dim * (int)sizeof(uint16_t), 2 * pairs * s->head_dim);
}

static void attend(struct forward *f)
{
    const struct model_shape *s = &f->model->shape;
    struct attention_step step = {f, 0, f->tile_first, 1};
    for (int first = 0; first < f->n_rows; first += tile_rows(f, first))
        step.first[step.n_tiles++] = first;
    int pieces = step.n_tiles * s->n_kv_heads, group = s->n_heads / s->n_kv_heads;
    if (pieces < f->n_threads) { /* heads of different parts read the same keys and values, at best at the same time */
        step.n_parts = (f->n_threads + pieces - 1) / pieces;
        step.n_parts = step.n_parts > group ? group : step.n_parts;
    }
    threads_run(f->pool, pieces * step.n_parts, attention_piece, &step);
}

/* ---- the pass ---- */

static void set_rows(struct forward *f, int n_rows)
{
    f->n_rows = n_rows;
    acts_set_rows(&f->embd, n_rows);
    acts_set_rows(&f->heads, n_rows);
    acts_set_rows(&f->ff, n_rows);
}

/* Moves the rows whose logits are wanted to the front, with what the rest of the last layer needs of them. */
static void keep_wanted(struct forward *f)
{
    size_t n_embd = (size_t)f->model->shape.n_embd, n_q = (size_t)f->heads.n_cols;
    int kept = 0;
    for (int i = 0; i < f->n_rows; i++) {
        if (!f->rows[i].logits)
            continue;
        if (kept != i) {
            f->rows[kept] = f->rows[i];
            memcpy(f->x + (size_t)kept * n_embd, f->x + (size_t)i * n_embd, n_embd * sizeof(float));
            memcpy(f->q + (size_t)kept * n_q, f->q + (size_t)i * n_q, n_q * sizeof(float));
        }
        kept++;
    }
    set_rows(f, kept);
}

static void run_layer(struct forward *f, int i)
{
    const struct layer *l = &f->model->layers[i];
    f->layer = i;
    norm(f, l->attn_norm, i > 0);
    multiply(f, &f->embd,
        (struct product[]){{&l->attn_q, l->bias_q, f->q}, {&l->attn_k, l->bias_k, f->k}, {&l->attn_v, l->bias_v, f->v}}, 3);
    run_by_tokens(f, store_piece);
    if (i == f->model->shape.n_layers - 1)
        keep_wanted(f);
    if (f->n_rows == 0)
        return;
    attend(f);
    run_by_tokens(f, quantize_heads_piece);
    multiply(f, &f->heads, (struct product[]){{&l->attn_output, NULL, f->delta}}, 1);
    norm(f, l->ffn_norm, true);
    threads_run(f->pool, ffn_split(f, l).n_pieces, ffn_piece, f);
    multiply(f, &f->ff, (struct product[]){{&l->ffn_down, NULL, f->delta}}, 1);
}

static void run_batch(struct forward *f, const struct row *rows, int n_rows)
{
    memcpy(f->rows, rows, (size_t)n_rows * sizeof *rows);
    set_rows(f, n_rows);
    run_by_tokens(f, embed_piece);
    for (int i = 0; i < f->model->shape.n_layers; i++) {
        run_layer(f, i);
        atomic_fetch_add_explicit(&f->n_layers_done, 1, memory_order_relaxed);
    }
    if (f->n_rows == 0)
        return;
    norm(f, f->model->output_norm, true);
    threads_run(f->pool, split(f, &f->model->output).n_pieces, logits_piece, f);
}

void forward_run(struct forward *f, const struct row *rows, int n_rows)
{
    double from = begin(f);
    for (int first = 0; first < n_rows; first += f->max_rows)
        run_batch(f, rows + first, n_rows - first < f->max_rows ? n_rows - first : f->max_rows);
    if (f->times)
        f->times[0].elapsed += now() - from;
}

uint64_t forward_progress(const struct forward *f)
{
    return atomic_load_explicit(&f->n_layers_done, memory_order_relaxed);
}
