/* Attention on tiles, for amx.c: what kernels/lanes.h does in attention(), with the products, of queries with keys and of weights
 * with values, by TDPBF16PS.
 *
 * The instruction multiplies bf16, of 8 significant bits. So a number x goes in as two of them, hi = bf16(x) and lo = bf16(x -
 * hi), and of a product come hi * hi + hi * lo + lo * hi. Keys and values are halves, of 11 bits: hi + lo is the very number. Of
 * a float, hi + lo leaves at most 2^-17 of it, and lo * lo, which is left out, is at most 2^-8 * 2^-8 of the product: so a
 * product is off by 1.5 * 2^-16 of itself at most. That does not give scalar's bits. checkkernels holds it to what follows from
 * that number; the sums themselves are rounded less often than scalar's, as 16 products are summed up before they meet the
 * others.
 *
 * To the instruction numbers below 2^-126 are zeros, coming and going. Halves, and their lo, are multiples of 2^-24 and not
 * concerned; of queries and weights, a lo, and a product, may vanish. Each of these takes less than 2^-126 * 65504 < 2^-109 from
 * a score or an output, and weights are at most 1, the greatest is 1: it is nothing beside the rounding of anything that is above
 * 2^-80.
 *
 * A row's bits depend neither on the rows beside it nor on their number: the rows of a tile do not meet, a tile always has 16,
 * with zeros where there are none, and keys and values are the same for all. Where others see more positions, the row's weights
 * there are 0, and adding the products to its outputs leaves them as they are: the instruction stored them, so none is below
 * 2^-126.
 *
 * A tile A has 16 rows of 32 numbers, two in a word; a tile B 16 words, downwards, in each of its 16 columns. Which two share a
 * word is all the same as long as A and B agree: here number i and number i + 16 of 32, so that nothing changes lanes. Keys and
 * values are split once for all rows.
 *
 * What limits, for 96 rows (16 tokens, 6 heads), head_dim 128 and a step of 64 positions, which are 1572864 multiply-adds; gcc 12
 * and clang 14 make the same of it, to a few operations:
 *
 *                                                                                                    cycles by Intel's figures
 *   576 TDPBF16PS, 16 cycles each                                                                                         9216
 *   splitting keys and values: 512 pairs of lines, 12 vector operations each, on ports 0 and 5                            3072
 *   weights, and splitting them: 100 vector operations for a row                                                          4800
 *   16 rows of 720 tiles that TILELOADD reads, 2 a cycle                                                                  5760
 *   16 rows of 72 tiles that TILESTORED writes, 1 a cycle; 1408 other stores                                              2560
 *
 * So 92 multiply-adds a cycle if vectors wait for tiles and tiles for vectors, 170 if they never do. lanes.h has 1024 fused
 * operations for a row, and 30 multiply-adds a cycle at most. With the 6 rows of a single token, splitting is most of the work,
 * and a step takes 3400 to 4900 cycles where lanes.h takes 3600; memory is slower than either. With 8 tokens in a call instead of
 * 16 it would be 78 to 144 multiply-adds a cycle, because more rows share what is split. These are limits, not measurements.
 */
#ifndef QUERN_AMX_ATTENTION_H
#define QUERN_AMX_ATTENTION_H

enum {
    PART = 16 * 16,  /* words of a tile */
    BOTH = 2 * PART, /* of the tiles of hi and of lo, which follow each other */
    AT_ONCE = 4      /* tiles of sums that take turns, so that no product waits for the one before, which takes 52 cycles */
};

/* What is split, in r->rest, for which attention_scratch has counted room. */
struct split {
    uint32_t *q;       /* [tiles of rows][n_chunks][BOTH] */
    uint32_t *weights; /* [tiles of rows][2 blocks][BOTH]: those of the step in work */
    uint32_t *b;       /* keys of a step: [n_chunks][4 panels][BOTH]; then its values: [2 blocks][n_strips][BOTH] */
    int n_chunks;      /* of 32 dimensions; the last one may have 16, and zeros */
    int n_strips;      /* of 16 dimensions, rounded up to a multiple of AT_ONCE; what is beyond head_dim is never stored */
};

/* ---- two parts ---- */

/* The upper halves of b's words, with those of a's below them: b & mask | a >> 16. */
INLINE __m512i upper_halves(__m512i a, __m512i b)
{
    return _mm512_ternarylogic_epi32(b, _mm512_set1_epi32((int)0xFFFF0000), _mm512_srli_epi32(a, 16), 0xEA);
}

INLINE __m512i bits_of(__m512 a)
{
    return _mm512_castps_si512(a);
}

/* Writes 16 words to the tiles of hi and lo: a in the lower halves, b in the upper. Rounded to nearest, ties away from zero:
 * adding half a unit to the bits does that. Halves leave nothing to round in lo. */
INLINE void store_split(bool halves, uint32_t *words, __m512 a, __m512 b)
{
    const __m512i half = _mm512_set1_epi32(0x8000), mask = _mm512_set1_epi32((int)0xFFFF0000);
    const __m512i hi_a = _mm512_add_epi32(bits_of(a), half), hi_b = _mm512_add_epi32(bits_of(b), half);
    _mm512_store_si512(words, upper_halves(hi_a, hi_b));
    __m512i lo_a = bits_of(_mm512_sub_ps(a, _mm512_castsi512_ps(_mm512_and_si512(hi_a, mask))));
    __m512i lo_b = bits_of(_mm512_sub_ps(b, _mm512_castsi512_ps(_mm512_and_si512(hi_b, mask))));
    if (!halves) {
        lo_a = _mm512_add_epi32(lo_a, half);
        lo_b = _mm512_add_epi32(lo_b, half);
    }
    _mm512_store_si512(words + PART, upper_halves(lo_a, lo_b));
}

/* Row `row` of a tile: 32 numbers, or 16 and zeros. */
INLINE void split_row(uint32_t *tiles, int row, const float *x, bool whole)
{
    store_split(false, tiles + row * 16, _mm512_loadu_ps(x), whole ? _mm512_loadu_ps(x + 16) : _mm512_setzero_ps());
}

/* 16 columns of halves; those `ahead` bytes further on are asked for. */
INLINE __m512 load_halves(const uint16_t *p, ptrdiff_t ahead)
{
    __builtin_prefetch((const char *)p + ahead, 0, 2);
    return v16_load_f16(p);
}

static void split_queries(const struct attention_tile *t, const struct split *s)
{
    const int n_tiles = (t->n_rows + TILE - 1) / TILE;
    memset(s->q + (n_tiles - 1) * s->n_chunks * BOTH, 0, sizeof(uint32_t) * (size_t)(s->n_chunks * BOTH));
    for (int i = 0; i < t->n_rows; i++)
        for (int c = 0; c < s->n_chunks; c++)
            split_row(s->q + (i / TILE * s->n_chunks + c) * BOTH, i % TILE, t->q[i] + c * 32, c * 32 + 16 < t->head_dim);
}

/* The step's 4 panels of keys. Those of positions that do not exist may hold anything, and so do their scores, which nobody
 * reads. */
static void split_keys(const struct attention_tile *t, const struct split *s, int start)
{
    for (int panel = 0; panel < STEP / KV_PANEL && start + panel * KV_PANEL < t->n_keys; panel++) {
        const int block = attention_block(t, start, panel / 2);
        const uint16_t *keys = t->k[block] + panel % 2 * KV_PANEL * t->head_dim;
        const ptrdiff_t ahead = bytes_between(t->k[block], t->k[attention_block(t, start, panel / 2 + STEP / KV_BLOCK)]);
        for (int c = 0; c < s->n_chunks; c++) {
            uint32_t *words = s->b + (c * AT_ONCE + panel) * BOTH;
            const bool whole = c * 32 + 16 < t->head_dim;
            for (int i = 0; i < 16; i++, keys += KV_PANEL)
                store_split(true, words + i * 16, load_halves(keys, ahead),
                            whole ? load_halves(keys + 16 * KV_PANEL, ahead) : _mm512_setzero_ps());
            keys += whole ? 16 * KV_PANEL : 0;
        }
    }
}

/* The step's values; zeros for positions that do not exist, because what memory holds there may be no number, and 0 times that is
 * none. */
static void split_values(const struct attention_tile *t, const struct split *s, int start)
{
    for (int i = 0; i < STEP / KV_BLOCK && start + i * KV_BLOCK < t->n_keys; i++) {
        const int block = attention_block(t, start, i), left = t->n_keys - start - i * KV_BLOCK;
        const ptrdiff_t ahead = bytes_between(t->v[block], t->v[attention_block(t, start, i + STEP / KV_BLOCK)]);
        for (int j = 0; j < 16; j++) {
            const uint16_t *a = t->v[block] + j * t->head_dim, *b = a + 16 * t->head_dim;
            uint32_t *words = s->b + i * s->n_strips * BOTH + j * 16;
            for (int dim = 0; dim < t->head_dim; dim += 16, words += BOTH)
                store_split(true, words, j < left ? load_halves(a + dim, ahead) : _mm512_setzero_ps(),
                            j + 16 < left ? load_halves(b + dim, ahead) : _mm512_setzero_ps());
        }
    }
}

/* ---- tiles: sums are 0 to 3, A is 4 (hi) and 5 (lo), B 6 and 7 ---- */

static void configure_attention(void)
{
    struct tile_config config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        config.rows[t] = TILE;
        config.row_bytes[t] = LINE;
    }
    _tile_loadconfig(&config);
}

/* Adds the products of tile A with 4 tiles B to the sums. */
#define MULTIPLY_4(A, b)                                                                                                         \
    do {                                                                                                                         \
        _tile_loadd(6, b, LINE);                                                                                                 \
        _tile_dpbf16ps(0, A, 6);                                                                                                 \
        _tile_loadd(7, (b) + BOTH, LINE);                                                                                        \
        _tile_dpbf16ps(1, A, 7);                                                                                                 \
        _tile_loadd(6, (b) + 2 * BOTH, LINE);                                                                                    \
        _tile_dpbf16ps(2, A, 6);                                                                                                 \
        _tile_loadd(7, (b) + 3 * BOTH, LINE);                                                                                    \
        _tile_dpbf16ps(3, A, 7);                                                                                                 \
    } while (0)

/* Adds all products of 16 rows of 32 n numbers with 4 tiles' columns; b's next 32 numbers are `step` words further on. */
INLINE void multiply_split(const uint32_t *a, const uint32_t *b, int step, int n)
{
    for (int i = 0; i < n; i++, a += BOTH, b += step) {
        _tile_loadd(4, a, LINE);
        _tile_loadd(5, a + PART, LINE);
        MULTIPLY_4(5, b);        /* lo * hi */
        MULTIPLY_4(4, b + PART); /* hi * lo */
        MULTIPLY_4(4, b);        /* hi * hi */
    }
}

/* gcc does not know that tiles are loaded from memory: all must be stored by then. */
INLINE void all_stored(void)
{
    __asm__ volatile("" ::: "memory");
}

/* Scores of the step, of the 16 rows from `first` on. */
static void tile_scores(const struct attention_rows *r, const struct split *s, int first)
{
    float *scores = r->weights + first * STEP;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    multiply_split(s->q + first / TILE * s->n_chunks * BOTH, s->b, AT_ONCE * BOTH, s->n_chunks);
    _tile_stored(0, scores, STEP * sizeof(float));
    _tile_stored(1, scores + 16, STEP * sizeof(float));
    _tile_stored(2, scores + 32, STEP * sizeof(float));
    _tile_stored(3, scores + 48, STEP * sizeof(float));
}

/* Adds the step's values, weighted, to the outputs of the 16 rows from `first` on. */
static void tile_values(const struct attention_tile *t, const struct attention_rows *r, const struct split *s, int first,
                        int n_blocks)
{
    const uint32_t *weights = s->weights + first / TILE * (STEP / KV_BLOCK) * BOTH;
    const size_t stride = (size_t)t->head_dim * sizeof(float);
    for (int strip = 0; strip * 16 < t->head_dim; strip += AT_ONCE) {
        float *o = r->o + first * t->head_dim + strip * 16;
        const int n = t->head_dim / 16 - strip;
        _tile_loadd(0, o, stride);
        if (n > 1)
            _tile_loadd(1, o + 16, stride);
        if (n > 2)
            _tile_loadd(2, o + 32, stride);
        if (n > 3)
            _tile_loadd(3, o + 48, stride);
        multiply_split(weights, s->b + strip * BOTH, s->n_strips * BOTH, n_blocks);
        _tile_stored(0, o, stride);
        if (n > 1)
            _tile_stored(1, o + 16, stride);
        if (n > 2)
            _tile_stored(2, o + 32, stride);
        if (n > 3)
            _tile_stored(3, o + 48, stride);
    }
}

/* ---- the loops ---- */

static void attention_on_tiles(const struct attention_tile *t)
{
    const struct attention_rows r = attention_begin(t);
    struct split s = {.n_chunks = (t->head_dim + 31) / 32, .n_strips = (t->head_dim / 16 + AT_ONCE - 1) / AT_ONCE * AT_ONCE};
    const int n_tiles = (t->n_rows + TILE - 1) / TILE;
    s.q = r.rest;
    s.weights = s.q + n_tiles * s.n_chunks * BOTH;
    s.b = s.weights + n_tiles * (STEP / KV_BLOCK) * BOTH;
    split_queries(t, &s);
    memset(s.weights, 0, sizeof(uint32_t) * (size_t)(n_tiles * (STEP / KV_BLOCK) * BOTH));
    configure_attention();
    for (int start = 0; start < t->n_keys; start += STEP) {
        split_keys(t, &s, start);
        all_stored();
        for (int first = 0; first < t->n_rows; first += TILE)
            if (attention_seen(t, first, t->n_rows - first < TILE ? t->n_rows - first : TILE, start))
                tile_scores(&r, &s, first);
        for (int i = 0; i < t->n_rows; i++) {
            attention_weights(t, &r, i, start);
            for (int block = 0; block < STEP / KV_BLOCK; block++) {
                uint32_t *tiles = s.weights + (i / TILE * (STEP / KV_BLOCK) + block) * BOTH;
                split_row(tiles, i % TILE, r.weights + i * STEP + block * KV_BLOCK, true);
            }
        }
        split_values(t, &s, start);
        all_stored();
        const int n_blocks = t->n_keys - start > KV_BLOCK ? 2 : 1;
        for (int first = 0; first < t->n_rows; first += TILE)
            if (attention_seen(t, first, t->n_rows - first < TILE ? t->n_rows - first : TILE, start))
                tile_values(t, &r, &s, first, n_blocks);
    }
    _tile_release();
    attention_end(t, &r);
}

#endif
