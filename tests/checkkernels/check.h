/* checkkernels: proves every kernel of every level, and times them. What its files share.
 *
 * Each check runs at one level. At "scalar" it holds the specification against arithmetic in double precision written here from
 * the definitions; at every other level it demands the bits that scalar computes (any NaN equals any NaN, since payloads differ
 * between architectures, and -0 equals +0). Buffers end at a page that nobody may touch, so that a kernel that loads past the end
 * is caught; prefetching past it is allowed. */
#ifndef QUERN_CHECK_H
#define QUERN_CHECK_H

#include "kernels/kernels.h"

#include <stdio.h>

#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])

/* ---- main.c: results ---- */

/* Says that the check under way failed, and why. The first few sentences of a check are printed. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Says something about the check under way in its line (the last one wins). */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* True once the check under way has failed so often that going on is useless. */
bool hopeless(void);

/* ---- support.c ---- */

/* A buffer of n bytes that ends at a forbidden page; contents all 0xFF. Slots are reused: the same slot's former buffer is
 * gone. */
enum { MAX_SLOTS = 64 };
void *guarded(int slot, size_t n);
/* True if nothing was written just before any buffer in use. */
bool guards_intact(void);

void random_seed(uint64_t seed);
uint64_t random_bits(void);
int random_int(int from, int to);           /* from..to, both included */
float random_normal(void);                  /* about normal, mean 0, deviation 1 */
void random_bytes(void *p, size_t n);

/* The first index at which a and b differ (see above for what equal means), or n. */
size_t difference(const float *a, const float *b, size_t n);
/* The greater of two numbers. (gcc 12 for ARM, at -O3, breaks down over loops with fmax.) */
static inline double greater(double a, double b)
{
    return a > b ? a : b;
}
uint32_t float_bits(float f);
float bits_float(uint32_t bits);
/* The value of an f16, from the definition. */
double half_value(uint16_t h);

/* ---- formats.c: the block formats of GGUF, element by element from their definitions ---- */

extern const enum gguf_type all_types[9];

enum weights { WEIGHTS_RANDOM, WEIGHTS_MAX, WEIGHTS_MIN, WEIGHTS_MIXED, N_WEIGHTS };
/* Fills n elements' worth of blocks: random ones of ordinary size; all quants and scales at their greatest; at their least
 * (negative scales where the format has them); or a mixture of these with zero, subnormal, negative and greatest d. */
void make_blocks(enum gguf_type type, enum weights kind, size_t n, unsigned char *out);
/* Element c of a row; *magnitude (may be NULL) gets the sum of the magnitudes of its terms (for Q4_K and Q5_K: of the product and
 * of the minimum). */
double element(enum gguf_type type, const unsigned char *row, size_t c, double *magnitude);
size_t row_bytes(enum gguf_type type, size_t n_cols);
size_t block_columns(enum gguf_type type); /* the least number of columns: a multiple of 32 and of the block */

/* ---- activations (matmul.c) ---- */

enum activations {
    ACT_RANDOM,    /* as quantize makes them of random rows */
    ACT_MAX,       /* all quants 127 */
    ACT_MIN,       /* all -127 */
    ACT_SIGNS,     /* 127 or -127 at random */
    ACT_SMALL,     /* scales zero and subnormal */
    ACT_LARGE,     /* scales near the greatest float */
    N_ACTIVATIONS
};
/* Room for activations in guarded slots first_slot .. first_slot + 4; contents 0xFF. */
struct act act_room(int first_slot, int n_tokens, int n_cols);
void make_act(const struct act *a, enum activations kind);
/* Quantises all of a->x into a. */
void quantize_all(const struct kernels *k, const struct act *a);

/* ---- levels.c ---- */

/* The levels this CPU can run, and code that only this program links; returns their number. models: also those whose instructions
 * are played by others, which there is no use in timing. */
int levels_under_test(const struct kernels *levels[], int max, bool models);
/* Whether a level is offered exactly where the CPU has it and the system saves its registers. */
void check_features(const struct kernels *unused, int unused_too);
/* Whether the level just checked has left no tiles behind in this thread. */
void check_tiles_released(const struct kernels *k, int unused);

/* ---- the checks: level k against scalar, or scalar against double ---- */

const struct kernels *scalar_kernels(void);
void check_f16(const struct kernels *k, int unused);
void check_formats(const struct kernels *k, int type);
void check_matmul(const struct kernels *k, int type);
void check_quantize(const struct kernels *k, int unused);
void check_rms_norm(const struct kernels *k, int unused);
void check_rope(const struct kernels *k, int unused);
void check_swiglu(const struct kernels *k, int unused);
void check_add(const struct kernels *k, int unused);
void check_softmax(const struct kernels *k, int unused);
void check_exp(const struct kernels *k, int unused);
void check_attention(const struct kernels *k, int unused);
void check_to_f16(const struct kernels *k, int unused);
void check_read_all(const struct kernels *k, int unused);

/* ---- bench.c ---- */

/* Times all kernels whose "level name" contains filter. */
void bench(const char *filter);

#endif
