#include "tokenizer/bpe.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
    SMALL = 64, /* pieces up to this many bytes are merged on the stack by looking for the minimum: nearly all that text has */
};

#define NO_RANK UINT32_MAX

bool bpe_init(struct bpe *b, size_t n_merges)
{
    unsigned bits = 4;
    while (((size_t)1 << bits) * 5 / 8 < n_merges) {
        bits++;
    }
    size_t n_slots = (size_t)1 << bits;
    b->slots = malloc(n_slots * sizeof *b->slots);
    if (!b->slots) {
        return false;
    }
    memset(b->slots, 0xFF, n_slots * sizeof *b->slots);
    b->shift = 64 - bits;
    if (getrandom(&b->seed, sizeof b->seed, GRND_NONBLOCK) != (ssize_t)sizeof b->seed) {
        b->seed = 0x9E3779B97F4A7C15; /* before the system has entropy; only speed on a hostile file depends on it */
    }
    return true;
}

void bpe_free(struct bpe *b)
{
    free(b->slots);
    b->slots = NULL;
}

static inline uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static inline size_t first_slot(const struct bpe *b, uint64_t pair)
{
    uint64_t h = (pair ^ b->seed) * 0xD6E8FEB86659FD93;
    h ^= h >> 32;
    return (size_t)(h * 0xD6E8FEB86659FD93 >> b->shift);
}

void bpe_add(struct bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    uint64_t pair = pair_of(left, right);
    size_t mask = ((size_t)1 << (64 - b->shift)) - 1;
    for (size_t i = first_slot(b, pair);; i = (i + 1) & mask) {
        struct bpe_slot *s = &b->slots[i];
        if (s->pair == pair) {
            return;
        }
        if (s->pair == UINT64_MAX) {
            *s = (struct bpe_slot){pair, rank, id};
            return;
        }
    }
}

/* The rank of a pair and what it merges to; NO_RANK and -1 if it does not merge: an empty slot holds just these. */
static inline struct bpe_slot find(const struct bpe *b, int32_t left, int32_t right)
{
    uint64_t pair = pair_of(left, right);
    size_t mask = ((size_t)1 << (64 - b->shift)) - 1;
    size_t i = first_slot(b, pair);
    while (b->slots[i].pair != pair && b->slots[i].pair != UINT64_MAX) {
        i = (i + 1) & mask;
    }
    return b->slots[i];
}

static size_t merge_small(const struct bpe *b, int32_t *ids, size_t n)
{
    uint32_t ranks[SMALL]; /* [n - 1] of the pair that begins at each id */
    int32_t merged[SMALL]; /* [n - 1] */
    for (size_t i = 0; i + 1 < n; i++) {
        struct bpe_slot s = find(b, ids[i], ids[i + 1]);
        ranks[i] = s.rank;
        merged[i] = s.id;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) {
            best = ranks[i] < ranks[best] ? i : best;
        }
        if (ranks[best] == NO_RANK) {
            break;
        }
        ids[best] = merged[best];
        n--;
        for (size_t i = best + 1; i < n; i++) {
            ids[i] = ids[i + 1];
        }
        for (size_t i = best; i + 1 < n; i++) {
            ranks[i] = ranks[i + 1];
            merged[i] = merged[i + 1];
        }
        if (best > 0) {
            struct bpe_slot s = find(b, ids[best - 1], ids[best]);
            ranks[best - 1] = s.rank;
            merged[best - 1] = s.id;
        }
        if (best + 1 < n) {
            struct bpe_slot s = find(b, ids[best], ids[best + 1]);
            ranks[best] = s.rank;
            merged[best] = s.id;
        }
    }
    return n;
}

/* Long pieces: the ids form a doubly linked list, the pairs wait in a heap. An entry is rank << 32 | position,
 * so that the smallest number is the pair to merge next. Entries are not taken out when their pair goes away;
 * an entry counts only while its rank is still that of the pair at its position. */
struct node {
    int32_t id;
    uint32_t rank; /* of the pair of this and the next; NO_RANK: none, or the node is gone */
    uint32_t previous, next;
};

#define END UINT32_MAX

struct heap {
    uint64_t *data; /* [2 * n]: n - 1 pairs at first, and each of up to n - 1 merges takes one out and puts at most two in */
    size_t count;
};

enum { ARITY = 4 }; /* children of a heap entry: half the levels of a binary heap, and they share a cache line */

static void heap_push(struct heap *h, uint64_t entry)
{
    size_t i = h->count++;
    while (i > 0) {
        size_t parent = (i - 1) / ARITY;
        if (h->data[parent] <= entry) {
            break;
        }
        h->data[i] = h->data[parent];
        i = parent;
    }
    h->data[i] = entry;
}

static uint64_t heap_pop(struct heap *h)
{
    uint64_t top = h->data[0], entry = h->data[--h->count];
    size_t i = 0;
    for (;;) {
        size_t child = i * ARITY + 1, last = child + ARITY < h->count ? child + ARITY : h->count;
        if (child >= h->count) {
            break;
        }
        size_t least = child;
        for (size_t k = child + 1; k < last; k++) {
            least = h->data[k] < h->data[least] ? k : least;
        }
        if (h->data[least] >= entry) {
            break;
        }
        h->data[i] = h->data[least];
        i = least;
    }
    h->data[i] = entry;
    return top;
}

static void rank_pair(const struct bpe *b, struct node *nodes, uint32_t at, struct heap *h)
{
    struct node *left = &nodes[at];
    left->rank = left->next == END ? NO_RANK : find(b, left->id, nodes[left->next].id).rank;
    if (left->rank != NO_RANK) {
        heap_push(h, (uint64_t)left->rank << 32 | at);
    }
}

static bool merge_large(const struct bpe *b, int32_t *ids, size_t *count)
{
    size_t n = *count;
    struct node *nodes = malloc(n * sizeof *nodes);
    struct heap heap = {malloc(2 * n * sizeof *heap.data), 0};
    if (!nodes || !heap.data) {
        free(nodes);
        free(heap.data);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        nodes[i] = (struct node){ids[i], NO_RANK, i > 0 ? (uint32_t)i - 1 : END, i + 1 < n ? (uint32_t)i + 1 : END};
    }
    for (size_t i = 0; i + 1 < n; i++) {
        rank_pair(b, nodes, (uint32_t)i, &heap);
    }
    while (heap.count > 0) {
        uint64_t entry = heap_pop(&heap);
        uint32_t at = (uint32_t)entry;
        struct node *left = &nodes[at];
        if (left->rank != entry >> 32) {
            continue;
        }
        struct node *right = &nodes[left->next];
        left->id = find(b, left->id, right->id).id;
        left->next = right->next;
        right->rank = NO_RANK;
        if (left->next != END) {
            nodes[left->next].previous = at;
        }
        rank_pair(b, nodes, at, &heap);
        if (left->previous != END) {
            rank_pair(b, nodes, left->previous, &heap);
        }
    }
    size_t kept = 0;
    for (uint32_t i = 0; i != END; i = nodes[i].next) {
        ids[kept++] = nodes[i].id;
    }
    *count = kept;
    free(nodes);
    free(heap.data);
    return true;
}

bool bpe_merge(const struct bpe *b, int32_t *ids, size_t *n)
{
    if (*n > SMALL) {
        return merge_large(b, ids, n);
    }
    *n = merge_small(b, ids, *n);
    return true;
}
