/* Which tokens the blocks of the KV cache hold: a tree, so that a prompt finds what was computed for others before it.
 *
 * A node is a block, and bears its number. It holds 1 to KV_BLOCK tokens, those that follow its parent's; only a node that is
 * full has children. A path from a root is a text's beginning, whose keys and values are those of the blocks on the path: causal
 * attention makes a position depend on the tokens up to it and on nothing else. (The tree of SGLang's RadixAttention, with
 * nodes of one size, as vLLM's blocks have.)
 *
 * It knows numbers and tokens, not memory: engine/kv.h owns the blocks and decides what is kept. Time of a call: a comparison
 * of a few tokens for every child of one parent, except prefix_oldest, which looks at all blocks.
 *
 * Threads: the owner's only. */
#ifndef QUERN_PREFIX_H
#define QUERN_PREFIX_H

#include <stdbool.h>
#include <stdint.h>

struct prefix_tree;

enum { PREFIX_NONE = -1 }; /* no block; as a parent: what begins at position 0 */

struct prefix_tree *prefix_new(int n_blocks); /* NULL when out of memory */
void prefix_free(struct prefix_tree *t);      /* NULL is allowed */

/* Says that a block holds n tokens (1 .. KV_BLOCK) after those of parent. Its parent stays what it was the first time, and its
 * tokens only grow: what it held is the beginning of what it holds now. */
void prefix_set(struct prefix_tree *t, int32_t block, int32_t parent, const int32_t *tokens, int n);
/* The block is not in the tree any more. It has no children. */
void prefix_drop(struct prefix_tree *t, int32_t block);

/* Of the children of parent, the one that begins with the most of n tokens, and how many that are (0: PREFIX_NONE). Never
 * `except` (PREFIX_NONE: no exception). Of equals, the one set last. */
int32_t prefix_find(const struct prefix_tree *t, int32_t parent, const int32_t *tokens, int n, int32_t except, int *n_common);
/* Another child of the same parent whose tokens are the beginning (or all) of block's, so that nothing is lost without it, and
 * that has no children and nobody in `holders` ([n_blocks], by block); or PREFIX_NONE. */
int32_t prefix_find_within(const struct prefix_tree *t, int32_t block, const int32_t *holders);

/* True if another child of the same parent begins with all of the block's tokens. */
bool prefix_is_covered(const struct prefix_tree *t, int32_t block);

int prefix_n_tokens(const struct prefix_tree *t, int32_t block); /* 0: not in the tree */

/* The block has been used just now. (prefix_set does it too.) */
void prefix_touch(struct prefix_tree *t, int32_t block);
/* Of the blocks without children and holders, the one whose last use is longest ago; or PREFIX_NONE. */
int32_t prefix_oldest(const struct prefix_tree *t, const int32_t *holders);

#endif
