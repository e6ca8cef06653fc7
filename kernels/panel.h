/* How a panel lies in memory: 16 consecutive rows of a weight matrix, repacked from GGUF's blocks.
 * Sources of the block formats: the GGUF specification and ggml's block structures (Q4_0, Q5_0, Q8_0, Q4_K, Q5_K, Q6_K).
 *
 * Columns go in groups of 32 (ACT_GROUP). A group is 8 words of 4 columns; "line j" is the 64 bytes that hold word j (columns
 * 4j .. 4j+3 of the group) of all 16 rows: byte 4 * r + i is column 4j + i of row r. Quants of fewer than 8 bits share lines:
 *
 *   nibbles  q[4][64]   the low nibble of q[j] is line j, its high nibble is line j + 4 (columns 16 + 4j ..)
 *   5th bit  h[64]      bit j of each byte belongs to line j
 *   6th too  h[2][64]   bits 2j, 2j+1 of h[0] belong to line j, of h[1] to line j + 4
 *
 * Where quants and scales cannot be interleaved without splitting lines over cache lines, the scales of the whole panel come
 * first, filled up to a whole line: whoever reads a panel in order meets them before their quants. */
#ifndef QUERN_PANEL_H
#define QUERN_PANEL_H

#include "kernels/kernels.h"

enum { LINE = 64, GROUPS_PER_K = 8 /* groups of 32 in a block of 256 columns */ };

/* Q4_K, Q5_K: weight = d * scale * q - dmin * min; one of these per 256 columns. */
struct panel_q4_k {
    uint16_t d[16], dmin[16]; /* f16 */
    uint8_t scale[8][16];     /* [group][row]: bits 0..5 the scale, bits 6..7 the two high bits of the minimum */
    uint8_t min[4][16];       /* low nibble: low 4 bits of the minimum of group g; high nibble: of group g + 4 */
    uint8_t q[8][4][LINE];
};

struct panel_q5_k {
    uint16_t d[16], dmin[16];
    uint8_t scale[8][16];
    uint8_t min[4][16];
    uint8_t q[8][4][LINE];
    uint8_t h[8][LINE];
};

/* Q6_K: weight = d * scale * (q - 32).
 * Panel: int8 scale [n_cols / 32][2 halves of 16 columns][16 rows], f16 d [n_cols / 256][16]; then group_q6 [n_cols / 32]. */
struct group_q6 {
    uint8_t q[4][LINE];
    uint8_t h[2][LINE];
};

/* Q4_0: weight = d * (q - 8); Q5_0: d * (q - 16); Q8_0: d * q. Panel: f16 d [n_cols / 32][16]; then groups [n_cols / 32]. */
struct group_q4_0 {
    uint8_t q[4][LINE];
};
struct group_q5_0 {
    uint8_t q[4][LINE];
    uint8_t h[LINE];
};
struct group_q8_0 {
    int8_t q[8][LINE];
};

/* F32, F16, BF16: [n_cols][16 rows]. */

/* The parts of a panel of n_groups groups of 32 columns. */
static inline size_t panel_q6_head(size_t n_groups)
{
    return (n_groups * 32 + n_groups / GROUPS_PER_K * 32 + LINE - 1) / LINE * LINE;
}
static inline const int8_t *panel_q6_scales(const void *panel)
{
    return panel;
}
static inline const uint16_t *panel_q6_d(const void *panel, size_t n_groups)
{
    return (const uint16_t *)(const void *)((const char *)panel + n_groups * 32);
}
static inline const struct group_q6 *panel_q6_groups(const void *panel, size_t n_groups)
{
    return (const struct group_q6 *)(const void *)((const char *)panel + panel_q6_head(n_groups));
}
static inline size_t panel_0_head(size_t n_groups)
{
    return (n_groups * 32 + LINE - 1) / LINE * LINE;
}
static inline const uint16_t *panel_0_d(const void *panel)
{
    return panel;
}
static inline const void *panel_0_groups(const void *panel, size_t n_groups)
{
    return (const char *)panel + panel_0_head(n_groups);
}

#endif
