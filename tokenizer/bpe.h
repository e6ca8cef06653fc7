/* Byte-pair merging within one piece, and the table of merges it needs. Private to tokenizer/.
 * Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units": of all neighbouring pairs the one
 * whose merge has the lowest rank is merged first, the leftmost of equals; until no pair has a merge. */
#ifndef QUERN_BPE_H
#define QUERN_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bpe_slot {
    uint64_t pair; /* left << 32 | right; UINT64_MAX: empty */
    uint32_t rank;
    int32_t id; /* of left and right merged */
};

struct bpe {
    struct bpe_slot *slots; /* [1 << (64 - shift)] open addressing, at most 5/8 full */
    unsigned shift;
    uint64_t seed; /* drawn at load, so that no file can be prepared whose pairs all collide */
};

/* Makes room for n_merges, below 2^32. False: out of memory. */
bool bpe_init(struct bpe *b, size_t n_merges);
void bpe_free(struct bpe *b);

/* A pair that was added before keeps its lower rank. */
void bpe_add(struct bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t id);

/* Merges ids[n] in place; *n becomes the number left. O(n log n). False: out of memory. n is below 2^31. */
bool bpe_merge(const struct bpe *b, int32_t *ids, size_t *n);

#endif
