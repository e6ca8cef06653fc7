/* Memory for keys and values: a pool of fixed-size blocks of KV_BLOCK positions,
 * shared by all sequences. A sequence is a list of blocks.
 * A block holds its positions' keys and values for every layer and KV head, as f16 in the
 * layouts that struct attention_tile names.
 *
 * Layout, block-major: the pool is [n_blocks][n_layers][n_kv_heads][keys, values], so that one block is one
 * run of bytes (it can be saved, copied or shared as a whole) and a head's keys and values lie side by side.
 * Keys are [2][head_dim][16], values [32][head_dim]: the same size, 64 * head_dim bytes each.
 * New memory reads as zeros. A block that is used again still holds what was there: finite
 * numbers, which a reader must not let count.
 *
 * Threads: used by the engine thread only; attention workers read the block pointers during a forward pass. */
#ifndef QUERN_KV_H
#define QUERN_KV_H

#include "gguf/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kv_pool;

struct kv_sequence {
    struct kv_pool *pool;
    int32_t *blocks; /* [n_blocks] indices into the pool */
    int n_blocks;
    int capacity; /* of blocks[] */
};

/* Room for n_positions (rounded up to whole blocks). head_dim is a multiple of 16.
 * The memory is reserved, and touched only when written.
 * NULL with a sentence when there is not enough. */
struct kv_pool *kv_pool_new(int n_layers, int n_kv_heads, int head_dim, int n_positions, struct error *err);
void kv_pool_free(struct kv_pool *p); /* NULL is allowed; its sequences must not be used any more */
size_t kv_pool_bytes(const struct kv_pool *p);       /* reserved for keys and values */
size_t kv_position_bytes(const struct kv_pool *p);   /* of them, for one position: what attention reads of it in a decode step */
int kv_pool_blocks(const struct kv_pool *p);      /* all */
int kv_pool_free_blocks(const struct kv_pool *p); /* not in use */

void kv_sequence_init(struct kv_sequence *s, struct kv_pool *p);
/* Makes room for positions 0 .. n_positions - 1. False when the pool has not enough free
 * blocks; the sequence is then unchanged. */
bool kv_reserve(struct kv_sequence *s, int n_positions); /* also false when out of memory for the list */
/* Gives all blocks back and frees the list; the sequence is as after kv_sequence_init. */
void kv_sequence_clear(struct kv_sequence *s);

/* Where a layer's keys and values of one KV head begin within block number `block` of the pool:
 * [2][head_dim][16] and [32][head_dim], f16. */
uint16_t *kv_keys(const struct kv_pool *p, int layer, int kv_head, int32_t block);
uint16_t *kv_values(const struct kv_pool *p, int layer, int kv_head, int32_t block);

#endif
