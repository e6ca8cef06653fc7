/* Arithmetic on blocks: the table of functions everything in engine/ computes with.
 *
 * One table, chosen once. kernels_select() looks at the CPU (and at QUERN_CPU) and returns a table whose entries come from the
 * best instruction set that has them, from scalar upward. Each instruction set lives in its own folder and is compiled with its
 * own flags.
 *
 * Scalar is the specification, to the last bit. Every function below fixes the order and the rounding of its floating-point
 * operations (fused multiply-add where it says fma, 16 partial sums where it says lanes), so that every level, every number of
 * threads and every batch size computes the same bits. What a kernel must compute is written down in kernels/scalar.c;
 * tests/checkkernels holds the others to it. There is one exception: at the level amx, attention multiplies numbers in two parts
 * (kernels/x86/amx_attention.h). Its bits are its own, the same with any number of threads and any batch size, and near scalar's.
 *
 * Panels. A weight matrix [n_rows][n_cols] is repacked at load into panels of PANEL_ROWS = 16 consecutive rows; the last panel is
 * filled up with rows of zeros. Within a panel the 16 rows are interleaved in words of 4 columns, so that one 64-byte line holds
 * columns 4j..4j+3 of all 16 rows: a vector lane belongs to a row, and a dot product needs no horizontal sum on any instruction
 * set. kernels/panel.h has the layouts.
 *
 * Threads: all functions are pure; calls on disjoint outputs may run at the same time. */
#ifndef QUERN_KERNELS_H
#define QUERN_KERNELS_H

#include "gguf/error.h"
#include "gguf/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PANEL_ROWS = 16,  /* rows of a weight panel; also the number of lanes of every partial sum */
    ACT_GROUP = 32,   /* columns that share one activation scale */
    KV_PANEL = 16,    /* positions of a panel of keys */
    KV_BLOCK = 32     /* positions of a block of the KV cache; two of them are a step of the online softmax */
};

/* Activations of n_tokens rows, quantised to 8 bits in groups of ACT_GROUP columns, group-major so that a kernel that walks
 * the columns of a panel reads them in order:
 *   scale d = max|x| / reach, where reach is that of 127, 126, 125, 124 which leaves the least squared error in the group;
 *   q = x * (1 / d) rounded to nearest even; sum = d * (q[0] + .. + q[31]). */
struct act {
    int n_tokens;
    int n_cols;       /* a multiple of ACT_GROUP */
    int8_t *q;        /* [n_cols / 32][n_tokens][32] */
    float *d;         /* [n_cols / 32][n_tokens] */
    float *sum;       /* [n_cols / 32][n_tokens] */
    int16_t *half;    /* [n_cols / 32][n_tokens][2]: q[0] + .. + q[15] and q[16] + .. + q[31] */
    int16_t *pair;    /* [n_cols / 32][n_tokens][2 halves][2]: each of those sums in two parts, over columns 4j, 4j + 1 and over
                         columns 4j + 2, 4j + 3, as kernels that add pairs of products into 16 bits have them side by side */
    const float *x;   /* [n_tokens][n_cols]: the unquantised rows, read by weights in floating point only (else may be NULL) */
};

/* Computes n_panels consecutive panels against all tokens of x:
 * y[t * y_stride + 16 * p + r] = dot(row r of panel p, token t), for all 16 rows of each panel (also filled-up ones). */
typedef void matmul_kernel(const void *panels, size_t n_panels, const struct act *x, float *y, size_t y_stride);

/* One tile of attention: n_rows query rows that share a KV head, against positions 0..n_keys-1 of a sequence.
 * Row i may see positions 0..limit[i]-1 (1 <= limit[i] <= n_keys). */
struct attention_tile {
    int n_rows;
    int head_dim;             /* a multiple of 16 */
    int n_keys;               /* max of limit */
    float scale;              /* multiplied into the scores: 1 / sqrt(head_dim) */
    const float *const *q;    /* [n_rows] -> [head_dim] */
    float *const *out;        /* [n_rows] -> [head_dim] */
    const int *limit;         /* [n_rows] */
    const uint16_t *const *k; /* [ceil(n_keys / 32)] -> block of keys [2 panels][head_dim][16 positions], f16 */
    const uint16_t *const *v; /* [ceil(n_keys / 32)] -> block of values [32 positions][head_dim], f16 */
    float *scratch;           /* attention_scratch(n_rows, head_dim) floats, 64-byte aligned */
};

struct kernels {
    const char *level; /* as QUERN_CPU names it: "scalar", "avx2", "avx512", "neon", ... */

    /* Fills a->q, d, sum, half and pair for n_tokens tokens from first_token on and n_groups groups from first_group on. x is the
     * value of the first token's first column among those; tokens are x_stride floats apart. */
    void (*quantize)(
        const struct act *a, const float *x, size_t x_stride, int first_token, int n_tokens, int first_group, int n_groups);

    matmul_kernel *matmul[GGUF_TYPE_LIMIT]; /* NULL: no kernel for that type */

    /* y[i] = x[i] * (1 / sqrt(mean(x^2) + eps)) * w[i]; n a multiple of 16. y may be x. */
    void (*rms_norm)(float *y, const float *x, const float *w, int n, float eps);
    /* Rotates the pairs (i, i + head_dim / 2) of n_heads consecutive heads by the angles of one position.
     * cos, sin: [head_dim / 2]; head_dim a multiple of 32. */
    void (*rope)(float *x, int n_heads, int head_dim, const float *cos, const float *sin);
    /* y[i] = gate[i] / (1 + exp(-gate[i])) * up[i]; n a multiple of 16. y may be gate or up. */
    void (*swiglu)(float *y, const float *gate, const float *up, int n);
    /* y[i] += x[i]; n a multiple of 16. */
    void (*add)(float *y, const float *x, int n);
    /* p[i] = exp(x[i] - max(x)) (all i < n, any n); returns the sum of p. p may be x. The caller divides where it wants
     * probabilities. */
    float (*softmax)(float *p, const float *x, int n);
    void (*attention)(const struct attention_tile *tile);
    /* Tokens of a prompt whose rows a call of attention had best have: more share what it does once, fewer are in a nearer
     * cache. */
    int attention_tokens;
    /* Rows that a batch may have and take not much longer than one, while reading the weights is what takes the time; 1: none. */
    int cheap_rows;
    /* Rounds to f16 (nearest even); what is beyond the greatest finite f16, infinity too, becomes that, and so does NaN. n a
     * multiple of 16. */
    void (*to_f16)(uint16_t *y, const float *x, int n);
    /* Reads n bytes (a multiple of 64) as fast as they come, and returns something that depends on all of them: the bench's
     * yardstick. */
    uint64_t (*read_all)(const void *p, size_t n);
};

/* Floats of scratch an attention tile needs. */
size_t attention_scratch(int n_rows, int head_dim);

/* The table of the best level this CPU has, or of the level that QUERN_CPU names. NULL with a sentence when QUERN_CPU names a
 * level that does not exist or that this CPU lacks. The tables are static. */
const struct kernels *kernels_select(struct error *err);

/* The table of a level by name, or NULL with a sentence. */
const struct kernels *kernels_by_name(const char *name, struct error *err);

/* The levels this build and CPU can run, worst first; returns their number (at most max). */
int kernels_available(const char **names, int max);

/* ---- types: sizes, repacking, dequantising (kernels/panel.c) ---- */

/* True if weights of this type can be repacked and multiplied. */
bool panel_supported(enum gguf_type type);
/* Bytes of one panel of 16 rows of n_cols columns: 16 rows' worth of the file's bytes, rounded up to 64. n_cols is a multiple of
 * 32 and of the type's block. */
size_t panel_bytes(enum gguf_type type, size_t n_cols);
/* Repacks rows (at most 16, in the file's layout, consecutive) into one panel. */
void panel_pack(enum gguf_type type, const void *rows, size_t n_rows, size_t n_cols, void *panel);
/* Turns n elements (whole blocks) of the file's layout into float. */
void dequantize(enum gguf_type type, const void *blocks, size_t n, float *out);

/* f16 <-> f32 by the bits (IEEE 754 binary16), for code outside the vector kernels. */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);

#endif
