/* AMX-TILE, AMX-INT8 and AMX-BF16 on top of AVX-512: Intel servers since 2023 (Sapphire Rapids). Attention is in amx_attention.h.
 *
 * TDPBSSD multiplies a tile A of 16 rows of signed bytes with a tile B of columns in words of 4 bytes, and adds to a tile C of 16
 * x 16 32-bit sums, exactly. A group of 32 columns of a panel, unpacked to bytes, is such a tile B as it stands: 8 lines, 16 rows
 * of weights beside each other in each. The quantised activations of 16 tokens are a tile A. C goes through memory into vector
 * registers: row t holds the sums of token t, a lane for each row of the panel.
 *
 * What limits is not the products but what follows them, by the specification, for each group: scale, and add to the float sums.
 * So these sums stay in 16 registers over a block of groups, and the products of a group are asked for before the sums of the
 * group before it are used. Blocks of BLOCK groups are the outer loop: their unpacked quants fit into the first-level cache, and
 * the activations of all tokens that belong to them into the second. Between blocks the float sums rest in y.
 *
 * Instructions of the inner loop for 16 tokens x 16 rows x 32 columns, 8192 multiply-adds, by gcc 12, which keeps two or three
 * addresses in vector registers besides, and by clang 14; no sums are spilled:
 *
 *                                                  Q4_K, Q5_K   Q6_K   others
 *   vector operations, on ports 0 and 5                    64     96       48
 *   loads of 64 bytes or broadcasts, 2 a cycle             50     51       33   32 or 48 of them within a vector operation
 *   rows that TILELOADD reads, 2 a cycle                   24     40       24
 *   rows that TILESTORED writes, 1 a cycle                 16     32       16
 *   TDPBSSD, 16 cycles each                                 1      2        1
 *
 * So by Intel's figures Q4_K takes 37 cycles for its loads (221 multiply-adds a cycle), Q6_K 48 for its vector operations (170),
 * Q8_0 29 (287). avx512.c has 8 VPDPBUSD and 4 to 8 more operations for 512 multiply-adds: 85 a cycle at most. These are limits,
 * not measurements. */
#include "kernels/levels.h"
#include "kernels/x86/lanes512.h"

#define ATTENTION attention_on_tiles
#define ATTENTION_TOKENS 16
#include "kernels/lanes.h"

#include "kernels/x86/groups512.h"

/* Compiled a second time for the tests, with tests/checkkernels/model in place of the instructions, so that any CPU can hold what
 * is built from them to scalar's bits. */
#ifdef QUERN_MODEL
#define TABLE kernels_amx_model
#define LEVEL "amx(model)"
#define BELOW kernels_avx512_model
extern const struct kernels TABLE, BELOW; /* no levels of their own: levels.h does not know them */
#else
#define TABLE kernels_amx
#define LEVEL "amx"
#define BELOW kernels_avx512
#endif

enum {
    FEW = 7,       /* tokens up to which unpacking for tiles does not pay: avx512's kernels have them */
    TILE = 16,     /* tokens of a tile */
    BLOCK = 32     /* groups of 32 columns, at most, whose weights are unpacked together */
};

/* A block of groups of one panel. What of the scales is used depends on the type, as in struct group. */
struct weights {
    _Alignas(64) int8_t q[BLOCK][8][LINE];
    float scale0[BLOCK][PANEL_ROWS]; /* d * scale; Q6_K: the integer scale of columns 0..15 */
    float scale1[BLOCK][PANEL_ROWS]; /* min; Q6_K: the integer scale of columns 16..31 */
    float d[BLOCK][PANEL_ROWS];      /* not for Q4_K and Q5_K */
};

/* Activations of 16 tokens: those of struct act where they lie, or the last few tokens of a block, copied and filled up with
 * zeros. */
struct tokens {
    const int8_t *q;      /* group i: q + i * step * 32, [16][32] */
    const float *d, *sum; /* group i: d + i * step, [16] */
    size_t step;          /* tokens between groups */
};

struct rest {
    _Alignas(64) int8_t q[BLOCK][TILE][ACT_GROUP];
    float d[BLOCK][TILE], sum[BLOCK][TILE];
};

/* Sums of products of a group: [token][row]; Q6_K: of columns 0..15 and 16..31. */
struct products {
    _Alignas(64) int32_t sum[2][TILE][PANEL_ROWS];
};

INLINE bool has_min(enum gguf_type type)
{
    return type == GGUF_TYPE_Q4_K || type == GGUF_TYPE_Q5_K;
}

INLINE void load_group(enum gguf_type type, struct group *g, const void *panel, size_t n_groups, size_t i)
{
    switch (type) {
    case GGUF_TYPE_Q4_K: load_q4_k(g, panel, n_groups, i); break;
    case GGUF_TYPE_Q5_K: load_q5_k(g, panel, n_groups, i); break;
    case GGUF_TYPE_Q6_K: load_q6_k(g, panel, n_groups, i); break;
    case GGUF_TYPE_Q4_0: load_q4_0(g, panel, n_groups, i); break;
    case GGUF_TYPE_Q5_0: load_q5_0(g, panel, n_groups, i); break;
    default: load_q8_0(g, panel, n_groups, i); break;
    }
}

/* What load_group leaves in the quants beyond their value. */
INLINE char quant_offset(enum gguf_type type)
{
    switch (type) {
    case GGUF_TYPE_Q6_K: return 32;
    case GGUF_TYPE_Q4_0: return 8;
    case GGUF_TYPE_Q5_0: return 16;
    case GGUF_TYPE_Q8_0: return -128; /* 128, which is the same modulo 256 */
    default: return 0;
    }
}

/* Groups first .. first + n - 1 of a panel, into w as signed bytes. */
INLINE void unpack(enum gguf_type type, struct weights *w, const void *panel, size_t n_groups, size_t first, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct group g;
        load_group(type, &g, panel, n_groups, first + i);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            _mm512_store_si512(w->q[i][j], _mm512_sub_epi8(g.q[j], _mm512_set1_epi8(quant_offset(type))));
        if (has_min(type)) {
            _mm512_store_ps(w->scale0[i], g.scale0);
            _mm512_store_ps(w->scale1[i], g.min);
        } else {
            _mm512_store_ps(w->d[i], g.d);
        }
        if (type == GGUF_TYPE_Q6_K) {
            _mm512_store_ps(w->scale0[i], g.scale0);
            _mm512_store_ps(w->scale1[i], g.scale1);
        }
    }
}

/* Asks memory for the quants of groups first .. first + n - 1 of a panel, unless it is beyond the end. */
INLINE void ask_for_quants(enum gguf_type type, const char *panel, size_t n_groups, size_t first, size_t n, const char *end)
{
    size_t head = type == GGUF_TYPE_Q6_K ? panel_q6_head(n_groups) : has_min(type) ? 0 : panel_0_head(n_groups);
    size_t bytes = panel_group_bytes(type) - (type == GGUF_TYPE_Q6_K ? 36 : has_min(type) ? 0 : 32);
    ask_for(panel + head + first * bytes, n * bytes, end);
}

/* Copies the last n < 16 tokens of a block of groups. */
static void copy_rest(struct rest *rest, const struct act *x, size_t first_group, size_t n_groups, size_t n)
{
    const size_t n_tokens = (size_t)x->n_tokens;
    memset(rest, 0, sizeof *rest);
    for (size_t i = 0; i < n_groups; i++) {
        const size_t at = (first_group + i + 1) * n_tokens - n;
        memcpy(rest->q[i], x->q + at * ACT_GROUP, n * ACT_GROUP);
        memcpy(rest->d[i], x->d + at, n * sizeof x->d[0]);
        memcpy(rest->sum[i], x->sum + at, n * sizeof x->sum[0]);
    }
}

/* What LDTILECFG reads. */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* ---- tiles ----
 *
 * Tiles are named by constants. Groups take turns between two sets of them, so that a group's products need not wait until the
 * sums of the one before are stored: A, B and C are 0, 1, 2 and 3, 4, 5. Q6_K, which needs two sets for the halves of a group,
 * has 6 and 7 too for sums. */

static void configure_tiles(enum gguf_type type)
{
    struct tile_config config = {.palette = 1};
    const int words = type == GGUF_TYPE_Q6_K ? 4 : 8; /* of 4 columns that are summed up */
    for (int t = 0; t < 8; t++) {
        const bool is_a = t == 0 || t == 3, is_b = t == 1 || t == 4;
        config.rows[t] = (uint8_t)(is_b ? words : TILE);
        config.row_bytes[t] = (uint16_t)(is_a ? words * 4 : LINE);
    }
    _tile_loadconfig(&config);
}

#define MULTIPLY(A, B, C, a, b, sums)                                                                                   \
    do {                                                                                                                \
        _tile_zero(C);                                                                                                  \
        _tile_loadd(A, a, ACT_GROUP);                                                                                   \
        _tile_loadd(B, b, LINE);                                                                                        \
        _tile_dpbssd(C, A, B);                                                                                          \
        _tile_stored(C, sums, LINE);                                                                                    \
    } while (0)

/* The products of group i, which is an odd one or not. */
INLINE void multiply(enum gguf_type type, bool odd, const struct weights *w, const struct tokens *x, size_t i, struct products *p)
{
    const int8_t *a = x->q + i * x->step * ACT_GROUP;
    if (type == GGUF_TYPE_Q6_K && odd) {
        MULTIPLY(0, 1, 6, a, w->q[i][0], p->sum[0]);
        MULTIPLY(3, 4, 7, a + ACT_GROUP / 2, w->q[i][4], p->sum[1]);
    } else if (type == GGUF_TYPE_Q6_K) {
        MULTIPLY(0, 1, 2, a, w->q[i][0], p->sum[0]);
        MULTIPLY(3, 4, 5, a + ACT_GROUP / 2, w->q[i][4], p->sum[1]);
    } else if (odd) {
        MULTIPLY(3, 4, 5, a, w->q[i][0], p->sum[0]);
    } else {
        MULTIPLY(0, 1, 2, a, w->q[i][0], p->sum[0]);
    }
}

/* ---- from integer sums to float sums ---- */

INLINE __m512 sums(const int32_t p[PANEL_ROWS])
{
    return _mm512_cvtepi32_ps(_mm512_load_si512(p));
}

/* Adds the share of group i to acc, in the order of scalar.c. */
INLINE void add_share(
    enum gguf_type type, const struct weights *w, const struct tokens *x, size_t i, const struct products *p, __m512 acc[TILE])
{
    const float *d = x->d + i * x->step, *sum = x->sum + i * x->step;
    const __m512 scale0 = _mm512_load_ps(has_min(type) || type == GGUF_TYPE_Q6_K ? w->scale0[i] : w->d[i]);
    const __m512 scale1 = _mm512_load_ps(w->scale1[i]), last = _mm512_load_ps(w->d[i]);
#pragma GCC unroll 16
    for (int t = 0; t < TILE; t++) {
        __m512 share = _mm512_mul_ps(sums(p->sum[0][t]), scale0);
        if (type == GGUF_TYPE_Q6_K)
            share = _mm512_mul_ps(_mm512_fmadd_ps(sums(p->sum[1][t]), scale1, share), last);
        acc[t] = _mm512_fmadd_ps(share, _mm512_set1_ps(d[t]), acc[t]);
        if (has_min(type))
            acc[t] = _mm512_fnmadd_ps(scale1, _mm512_set1_ps(sum[t]), acc[t]);
    }
}

/* Adds n groups' shares of 16 tokens to y, or writes them there if these are the first. */
INLINE void add_groups(
    enum gguf_type type, const struct weights *w, const struct tokens *x, size_t n, bool first, float *y, size_t y_stride)
{
    struct products even, odd;
    __m512 acc[TILE];
#pragma GCC unroll 16
    for (int t = 0; t < TILE; t++)
        acc[t] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(y + (size_t)t * y_stride);
    multiply(type, false, w, x, 0, &even);
    for (size_t i = 0; i < n; i += 2) {
        if (i + 1 < n)
            multiply(type, true, w, x, i + 1, &odd);
        add_share(type, w, x, i, &even, acc);
        if (i + 1 == n)
            break;
        if (i + 2 < n)
            multiply(type, false, w, x, i + 2, &even);
        add_share(type, w, x, i + 1, &odd, acc);
    }
#pragma GCC unroll 16
    for (int t = 0; t < TILE; t++)
        _mm512_storeu_ps(y + (size_t)t * y_stride, acc[t]);
}

/* ---- the loops ---- */

INLINE void matmul(enum gguf_type type, const char *panels, size_t n_panels, const struct act *x, float *y, size_t y_stride)
{
    if (x->n_tokens <= FEW) {
        BELOW.matmul[type](panels, n_panels, x, y, y_stride);
        return;
    }
    const size_t n_groups = (size_t)x->n_cols / ACT_GROUP, n_tokens = (size_t)x->n_tokens;
    const size_t bytes = panel_bytes(type, (size_t)x->n_cols), n_blocks = (n_groups + BLOCK - 1) / BLOCK;
    const size_t n_rest = n_tokens % TILE, n_whole = n_tokens - n_rest;
    struct weights w;
    struct rest rest;
    _Alignas(64) float y_rest[TILE][PANEL_ROWS];
    const struct tokens rest_tokens = {rest.q[0][0], rest.d[0], rest.sum[0], TILE};
    configure_tiles(type);
    for (size_t block = 0; block < n_blocks; block++) {
        const size_t first = n_groups * block / n_blocks, n = n_groups * (block + 1) / n_blocks - first;
        if (n_rest)
            copy_rest(&rest, x, first, n, n_rest);
        for (size_t p = 0; p < n_panels; p++) {
            const char *panel = panels + p * bytes;
            float *out = y + p * PANEL_ROWS;
            unpack(type, &w, panel, n_groups, first, n);
            /* gcc does not know that tiles are loaded from memory: all must be stored by now. */
            __asm__ volatile("" ::: "memory");
            if (p + 1 < n_panels)
                ask_for_quants(type, panel + bytes, n_groups, first, n, panels + n_panels * bytes);
            for (size_t t = 0; t < n_whole; t += TILE) {
                const size_t at = first * n_tokens + t;
                const struct tokens tokens = {x->q + at * ACT_GROUP, x->d + at, x->sum + at, n_tokens};
                add_groups(type, &w, &tokens, n, block == 0, out + t * y_stride, y_stride);
            }
            if (n_rest) {
                memset(y_rest, 0, sizeof y_rest);
                for (size_t t = 0; block > 0 && t < n_rest; t++)
                    memcpy(y_rest[t], out + (n_whole + t) * y_stride, sizeof y_rest[t]);
                add_groups(type, &w, &rest_tokens, n, block == 0, y_rest[0], PANEL_ROWS);
                for (size_t t = 0; t < n_rest; t++)
                    memcpy(out + (n_whole + t) * y_stride, y_rest[t], sizeof y_rest[t]);
            }
        }
    }
    /* A thread that sleeps must not carry tiles: the system would save them, and the CPU would not sleep as deeply. */
    _tile_release();
}

QUANTISED_TYPES(MATMUL_OF_TYPE)

#include "kernels/x86/amx_attention.h"

const struct kernels TABLE = {.level = LEVEL, .cheap_rows = 8, LANES_KERNELS};
