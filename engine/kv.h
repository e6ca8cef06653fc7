/* Memory for keys and values: a pool of fixed-size blocks of KV_BLOCK positions,
 * shared by all sequences. A sequence is a list of blocks; a block may be in several lists.
 * A block holds its positions' keys and values for every layer and KV head, as f16 in the
 * layouts that struct attention_tile names.
 *
 * Layout, block-major: the pool is [n_blocks][n_layers][n_kv_heads][keys, values], so that one block is one
 * run of bytes (it can be saved, copied or shared as a whole) and a head's keys and values lie side by side.
 * Keys are [2][head_dim][16], values [32][head_dim]: the same size, 64 * head_dim bytes each.
 * New memory reads as zeros. A block that is used again still holds what was there: finite
 * numbers, which a reader must not let count.
 *
 * The prefix cache. What sequences have computed and said (kv_publish) stays in its blocks after they have gone, until the memory
 * is needed: the block unused for longest goes first, a text's end before its beginning. A sequence with its tokens known begins
 * with the longest beginning that is there (kv_match): whole blocks are shared, of the next one the part that fits is copied.
 * Keys and values are the same bits whoever computed them, so no answer depends on what was there.
 *
 * Room is promised before it is taken. kv_reserve sets blocks aside by number; kv_grow takes them one by one, first those that
 * hold nothing, then those that only the cache holds. As long as all promises together fit, none can fail.
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
    int capacity;    /* of blocks[] */
    int n_reserved;  /* blocks it may come to have, those it has among them */
    int n_published; /* positions */
};

/* Room for n_positions (rounded up to whole blocks). head_dim is a multiple of 16.
 * The memory is reserved, and touched only when written.
 * NULL with a sentence when there is not enough. */
struct kv_pool *kv_pool_new(int n_layers, int n_kv_heads, int head_dim, int n_positions, struct error *err);
void kv_pool_free(struct kv_pool *p); /* NULL is allowed; its sequences must not be used any more */
size_t kv_pool_bytes(const struct kv_pool *p);       /* reserved for keys and values */
size_t kv_position_bytes(const struct kv_pool *p);   /* of them, for one position: what attention reads of it in a decode step */
int kv_pool_blocks(const struct kv_pool *p);         /* all */
int kv_pool_free_blocks(const struct kv_pool *p);    /* neither held by a sequence nor promised to one */

/* Positions with published keys and values: in blocks that sequences hold, each counted once, and in those that only the cache
 * holds. */
struct kv_filled {
    int held, idle;
};
struct kv_filled kv_pool_filled(const struct kv_pool *p);

void kv_sequence_init(struct kv_sequence *s, struct kv_pool *p);
/* Promises room for positions 0 .. n_positions - 1. False when the pool has not enough free blocks (or memory for the list is
 * short); the sequence is then unchanged. */
bool kv_reserve(struct kv_sequence *s, int n_positions);
/* Takes blocks for positions 0 .. n_positions - 1, and reserves them first if need be: cannot fail within what is reserved. */
bool kv_grow(struct kv_sequence *s, int n_positions);
/* Gives all blocks back (what is published stays in the cache) and frees the list; the sequence is as after kv_sequence_init. */
void kv_sequence_clear(struct kv_sequence *s);

/* Takes from the cache what it has of a sequence's tokens: n_filled positions have their keys and values already (and those are
 * published); as many more as are there of the first n tokens are added. Returns how many positions have them now. Copies only
 * into room that is reserved; so before kv_reserve it only shares. If then kv_reserve fails, kv_sequence_clear is due. */
int kv_match(struct kv_sequence *s, const int32_t *tokens, int n, int n_filled);
/* Says that the first n positions hold the keys and values of these tokens. Blocks that turn out to be in the cache already, from
 * somebody else, are exchanged for those: look blocks[] up again. */
void kv_publish(struct kv_sequence *s, const int32_t *tokens, int n);
/* How many of a sequence's next tokens, within one block, will also be the next of another one that is being computed; what
 * comes of those is then better waited for. tokens: [n] of the sequence, n_filled of them published, and kv_match has just
 * found no more; other_tokens: [n_other] of the other. */
int kv_follows(const struct kv_sequence *s, const int32_t *tokens, int n, int n_filled, const struct kv_sequence *other,
    const int32_t *other_tokens, int n_other);

/* Where a layer's keys and values of one KV head begin within block number `block` of the pool:
 * [2][head_dim][16] and [32][head_dim], f16. */
uint16_t *kv_keys(const struct kv_pool *p, int layer, int kv_head, int32_t block);
uint16_t *kv_values(const struct kv_pool *p, int layer, int kv_head, int32_t block);

#endif
