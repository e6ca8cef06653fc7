/* Check of attention: against scalar, against double precision, and that a row's result does not depend on the tile it is in.
 *
 * Level amx splits numbers into parts of 8 bits, and does not have scalar's bits here: it is held to double precision, within a
 * bound that follows from the splitting, and only its rows to each other bit by bit. */
#include "tests/checkkernels/check.h"

#include <math.h>
#include <string.h>

enum { MAX_ROWS = 128, MAX_KEYS = 200, MAX_BLOCKS = (MAX_KEYS + KV_BLOCK - 1) / KV_BLOCK, NOT_A_NUMBER = 0x7E00 };

enum { SLOT_Q, SLOT_OUT, SLOT_OUT2, SLOT_SCRATCH, SLOT_LIMIT, SLOT_KV };

struct sequence {
    const uint16_t *k[MAX_BLOCKS], *v[MAX_BLOCKS];
    int head_dim, n_keys;
};

static size_t k_at(int head_dim, int position, int dim)
{
    int in_block = position % KV_BLOCK;
    return (size_t)(in_block / KV_PANEL * KV_PANEL * head_dim + dim * KV_PANEL + in_block % KV_PANEL);
}

/* Blocks of keys and values; what lies behind the last position is NaN, as memory may hold anything there. */
static struct sequence make_sequence(int head_dim, int n_keys, float key_scale, float value_scale)
{
    struct sequence s = {.head_dim = head_dim, .n_keys = n_keys};
    for (int b = 0; b * KV_BLOCK < n_keys; b++) {
        size_t n = (size_t)(KV_BLOCK * head_dim);
        uint16_t *k = guarded(SLOT_KV + b * 2, n * sizeof *k), *v = guarded(SLOT_KV + b * 2 + 1, n * sizeof *v);
        for (size_t i = 0; i < n; i++)
            k[i] = v[i] = NOT_A_NUMBER;
        for (int p = b * KV_BLOCK; p < n_keys && p < (b + 1) * KV_BLOCK; p++)
            for (int d = 0; d < head_dim; d++) {
                k[k_at(head_dim, p, d)] = f32_to_f16(random_normal() * key_scale);
                v[p % KV_BLOCK * head_dim + d] = f32_to_f16(random_normal() * value_scale);
            }
        s.k[b] = k;
        s.v[b] = v;
    }
    return s;
}

static void run(
    const struct kernels *k, const struct sequence *s, int n_rows, const float *const *q, float *const *out, const int *limit)
{
    int n_keys = 1;
    for (int i = 0; i < n_rows; i++)
        n_keys = limit[i] > n_keys ? limit[i] : n_keys;
    struct attention_tile tile = {.n_rows = n_rows,
                                  .head_dim = s->head_dim,
                                  .n_keys = n_keys,
                                  .scale = 1.0f / sqrtf((float)s->head_dim),
                                  .q = q,
                                  .out = out,
                                  .limit = limit,
                                  .k = s->k,
                                  .v = s->v,
                                  .scratch = guarded(SLOT_SCRATCH, attention_scratch(n_rows, s->head_dim) * sizeof(float))};
    k->attention(&tile);
}

/* Whether the level's products are sums of products of parts (kernels/x86/amx_attention.h). */
static bool splits(const struct kernels *k)
{
    return strncmp(k->level, "amx", 3) == 0;
}

/* What the tiles under check came to. */
static struct {
    double worst;  /* the greatest error, as a share of its bound */
    uint32_t hash; /* of all outputs' bits */
} found;

/* One row in double precision. The bound follows from the scores' rounding, exp (2 units), and the sums over keys, with two
 * roundings more per block for the running maximum. A score is rounded in a chain of head_dim fused operations; with products of
 * parts, in one of 16 and then thrice for 32 dimensions. Such a product misses 1.5 * 2^-16 of itself (and a little, for what
 * rounding makes of that), or 2^-109 where it is too small for the instruction. Scores that are off by e[i] change an output by
 * the weighted mean of e[i] * |v[i] - output|, and e's square of that. */
static void compare_with_double(const struct kernels *k, const struct sequence *s, const float *q, int limit, const float *got)
{
    const double missing = splits(k) ? 1.5 * 0x1p-16 * 1.02 : 0, tiny = splits(k) ? 0x1p-109 : 0;
    const double roundings = splits(k) ? 1.02 * (20 + 3 * ((s->head_dim + 31) / 32)) : s->head_dim + 3;
    double score[MAX_KEYS], off[MAX_KEYS], max = -INFINITY, sum = 0, worst = 0, scale = 1.0f / sqrtf((float)s->head_dim);
    for (int p = 0; p < limit; p++) {
        double dot = 0, magnitude = 0;
        for (int d = 0; d < s->head_dim; d++) {
            double term = q[d] * half_value(s->k[p / KV_BLOCK][k_at(s->head_dim, p, d)]);
            dot += term;
            magnitude += fabs(term);
        }
        score[p] = dot * scale;
        max = greater(max, score[p]);
        off[p] = ((roundings * 0x1p-24 + missing) * magnitude + s->head_dim * tiny) * scale;
        worst = greater(worst, off[p]);
    }
    for (int p = 0; p < limit; p++)
        sum += score[p] = exp(score[p] - max);
    for (int d = 0; d < s->head_dim; d++) {
        double exact = 0, magnitude = 0, moved = 0;
        for (int p = 0; p < limit; p++) {
            double term = score[p] / sum * half_value(s->v[p / KV_BLOCK][p % KV_BLOCK * s->head_dim + d]);
            exact += term;
            magnitude += fabs(term);
        }
        for (int p = 0; p < limit; p++)
            moved += score[p] / sum * off[p] * fabs(half_value(s->v[p / KV_BLOCK][p % KV_BLOCK * s->head_dim + d]) - exact);
        double bound = moved * (1 + 4 * worst) + magnitude * ((2 * limit + 30) * 0x1p-24 + missing) + limit * tiny + 1e-37;
        found.worst = greater(found.worst, fabs(got[d] - exact) / bound);
        if (!(fabs(got[d] - exact) <= bound)) {
            fail("head_dim %d, %d keys: [%d] is %.9g, not %.9g within %.3g", s->head_dim, limit, d, got[d], exact, bound);
            return;
        }
    }
}

static void check_tile(const struct kernels *k, int head_dim, int n_rows, int n_keys, float key_scale, bool ragged)
{
    const float small = key_scale < 1 ? key_scale : 1; /* small keys come with small values, and queries that make up for them */
    struct sequence s = make_sequence(head_dim, n_keys, key_scale, small);
    size_t floats = (size_t)(n_rows * head_dim);
    float *q = guarded(SLOT_Q, floats * sizeof *q), *got = guarded(SLOT_OUT, floats * sizeof *got),
          *want = guarded(SLOT_OUT2, floats * sizeof *want);
    int *limit = guarded(SLOT_LIMIT, (size_t)n_rows * sizeof *limit);
    const float *rows[MAX_ROWS];
    float *got_rows[MAX_ROWS], *want_rows[MAX_ROWS];
    for (size_t i = 0; i < floats; i++)
        q[i] = random_normal() / small;
    for (int i = 0; i < n_rows; i++) {
        rows[i] = q + i * head_dim;
        got_rows[i] = got + i * head_dim;
        want_rows[i] = want + i * head_dim;
        limit[i] = ragged ? random_int(1, n_keys) : n_keys - i > 0 ? n_keys - i : 1;
    }
    run(k, &s, n_rows, rows, got_rows, limit);
    const bool by_double = k == scalar_kernels() || splits(k);
    if (by_double)
        for (int i = 0; i < n_rows; i++)
            compare_with_double(k, &s, rows[i], limit[i], got_rows[i]);
    else
        run(scalar_kernels(), &s, n_rows, rows, want_rows, limit);
    for (size_t i = 0; i < floats; i++)
        found.hash = (found.hash ^ float_bits(got[i])) * 16777619;
    size_t at = by_double ? floats : difference(got, want, floats);
    if (at < floats)
        fail("head_dim %d, %d rows, %d keys: row %zu (limit %d), [%zu] is %.9g, not %.9g", head_dim, n_rows, n_keys,
            at / (size_t)head_dim, limit[at / (size_t)head_dim], at % (size_t)head_dim, got[at], want[at]);
    for (int i = 0; i < n_rows; i += 1 + n_rows / 4) { /* alone */
        run(k, &s, 1, rows + i, want_rows + i, limit + i);
        if (difference(got_rows[i], want_rows[i], (size_t)head_dim) < (size_t)head_dim)
            fail("head_dim %d, %d keys: row %d of %d (limit %d) differs from the same row alone", head_dim, n_keys, i, n_rows,
                limit[i]);
    }
    if (!guards_intact())
        fail("head_dim %d, %d rows, %d keys: wrote before the start of a buffer", head_dim, n_rows, n_keys);
}

void check_attention(const struct kernels *k, int unused)
{
    (void)unused;
    found.worst = 0;
    found.hash = 0;
    static const int dims[] = {64, 128, 32, 96, 16};
    static const int keys[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 128, 160, 200};
    int n = 0;
    for (size_t d = 0; d < COUNT_OF(dims); d++)
        for (size_t i = 0; i < COUNT_OF(keys) && !hopeless(); i++, n++) {
            int n_rows = 1 + (int)(i * 7 + d * 3) % 20;
            float key_scale = n % 5 == 4 ? 30 : n % 5 == 2 ? 1e-6f : 1; /* 1e-6: halves without a leading 1 */
            check_tile(k, dims[d], n_rows, keys[i], key_scale, i & 1);
        }
    for (int n_rows = 1; n_rows <= 20 && !hopeless(); n_rows++, n++)
        check_tile(k, 64, n_rows, 70, 1, true);
    static const int rows[] = {47, 48, 56, 96, 128};
    for (size_t i = 0; i < COUNT_OF(rows) && !hopeless(); i++, n++)
        check_tile(k, 128, rows[i], 130, 1, i & 1);
    if (k == scalar_kernels() || splits(k))
        note("%d tiles; at most %.2f of the error's bound; bits %08x", n, found.worst, found.hash);
    else
        note("%d tiles", n);
}
