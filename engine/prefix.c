#include "engine/prefix.h"
#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

struct node {
    int32_t parent, first_child, next; /* next: of the parent's children */
    int32_t n_tokens;                  /* 0: not in the tree */
    int32_t tokens[KV_BLOCK];
    uint64_t used;
};

struct prefix_tree {
    int32_t first_root;
    int n_blocks;
    uint64_t now; /* counts uses */
    struct node nodes[];
};

struct prefix_tree *prefix_new(int n_blocks)
{
    struct prefix_tree *t = calloc(1, sizeof *t + (size_t)n_blocks * sizeof t->nodes[0]);
    if (t) {
        t->first_root = PREFIX_NONE;
        t->n_blocks = n_blocks;
    }
    return t;
}

void prefix_free(struct prefix_tree *t)
{
    free(t);
}

/* Where the list of a parent's children begins. */
static int32_t *children(struct prefix_tree *t, int32_t parent)
{
    return parent == PREFIX_NONE ? &t->first_root : &t->nodes[parent].first_child;
}

static int32_t first_of(const struct prefix_tree *t, int32_t parent)
{
    return parent == PREFIX_NONE ? t->first_root : t->nodes[parent].first_child;
}

void prefix_set(struct prefix_tree *t, int32_t block, int32_t parent, const int32_t *tokens, int n)
{
    struct node *b = &t->nodes[block];
    if (b->n_tokens == 0) {
        int32_t *first = children(t, parent);
        b->parent = parent;
        b->first_child = PREFIX_NONE;
        b->next = *first;
        *first = block;
    }
    memcpy(b->tokens, tokens, (size_t)n * sizeof *tokens);
    b->n_tokens = n;
    prefix_touch(t, block);
}

void prefix_drop(struct prefix_tree *t, int32_t block)
{
    struct node *b = &t->nodes[block];
    int32_t *at = children(t, b->parent);
    while (*at != block)
        at = &t->nodes[*at].next;
    *at = b->next;
    b->n_tokens = 0;
}

static int common(const struct node *b, const int32_t *tokens, int n)
{
    int i = 0;
    while (i < n && i < b->n_tokens && b->tokens[i] == tokens[i])
        i++;
    return i;
}

int32_t prefix_find(const struct prefix_tree *t, int32_t parent, const int32_t *tokens, int n, int32_t except, int *n_common)
{
    int32_t best = PREFIX_NONE;
    *n_common = 0;
    for (int32_t b = first_of(t, parent); b != PREFIX_NONE; b = t->nodes[b].next) {
        int k = b == except ? 0 : common(&t->nodes[b], tokens, n);
        if (k > *n_common) {
            *n_common = k;
            best = b;
        }
    }
    return best;
}

int32_t prefix_find_within(const struct prefix_tree *t, int32_t block, const int32_t *holders)
{
    const struct node *whole = &t->nodes[block];
    for (int32_t b = first_of(t, whole->parent); b != PREFIX_NONE; b = t->nodes[b].next) {
        const struct node *part = &t->nodes[b];
        if (b != block && part->first_child == PREFIX_NONE && holders[b] == 0 &&
            common(part, whole->tokens, whole->n_tokens) == part->n_tokens)
            return b;
    }
    return PREFIX_NONE;
}

bool prefix_is_covered(const struct prefix_tree *t, int32_t block)
{
    const struct node *b = &t->nodes[block];
    int n_common;
    prefix_find(t, b->parent, b->tokens, b->n_tokens, block, &n_common);
    return n_common == b->n_tokens;
}

int prefix_n_tokens(const struct prefix_tree *t, int32_t block)
{
    return t->nodes[block].n_tokens;
}

void prefix_touch(struct prefix_tree *t, int32_t block)
{
    t->nodes[block].used = ++t->now;
}

int32_t prefix_oldest(const struct prefix_tree *t, const int32_t *holders)
{
    int32_t oldest = PREFIX_NONE;
    for (int32_t b = 0; b < t->n_blocks; b++) {
        const struct node *n = &t->nodes[b];
        if (n->n_tokens > 0 && n->first_child == PREFIX_NONE && holders[b] == 0 &&
            (oldest == PREFIX_NONE || n->used < t->nodes[oldest].used))
            oldest = b;
    }
    return oldest;
}
