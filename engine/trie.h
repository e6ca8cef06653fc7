/* A vocabulary as a tree of bytes, so that the tokens that begin alike are looked at together.
 * Made once for a model, read-only afterwards.
 *
 * The nodes stand in one array, each before those below it: a walk goes through the array, and past a
 * node whose bytes lead nowhere it skips all that is below. Control and unused tokens are not in it,
 * nor are tokens of no bytes; user-defined ones are, with their text. */
#ifndef QUERN_TRIE_H
#define QUERN_TRIE_H

#include "tokenizer/tokenizer.h"

struct trie_node {
    uint32_t skip;    /* the next node that is not below this one */
    uint32_t tokens;  /* the first of those that end here, in trie.tokens */
    uint16_t depth;   /* bytes from the root, 1 for the first */
    uint8_t byte;
    uint8_t n_tokens;
};

struct trie {
    struct trie_node *nodes; /* [n_nodes] */
    int32_t *tokens;         /* ids, in the order of the nodes */
    bool *in_tree;           /* [n_vocab] */
    int32_t *added;          /* [n_added] user-defined tokens: markup of the model that normal tokens could spell too */
    int32_t ends[8];         /* [n_ends] tokens that end a turn */
    uint32_t n_nodes, n_added, n_ends;
    uint32_t longest;        /* bytes */
    int n_vocab;
    const struct tokenizer *tokenizer;
};

enum { TRIE_LONGEST = 1024 }; /* tokens of more bytes are left out */

/* silent: [n_vocab] the control and unused tokens. The tokenizer must outlive the trie. NULL when out of memory. */
struct trie *trie_new(const struct tokenizer *t, int n_vocab, const bool *silent);
void trie_free(struct trie *t); /* NULL is allowed */

#endif
