#include "engine/trie.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b, void *context)
{
    const struct tokenizer *t = context;
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    struct gguf_string p = tok_bytes(t, x), q = tok_bytes(t, y);
    int c = memcmp(p.data, q.data, p.length < q.length ? p.length : q.length);
    if (c == 0)
        c = (p.length > q.length) - (p.length < q.length);
    return c ? c : (x > y) - (x < y);
}

/* Is it a token that the tokenizer finds by its text, like <tool_call>? */
static bool is_added(const struct tokenizer *t, int32_t id, struct gguf_string text)
{
    char copy[TRIE_LONGEST + 1];
    memcpy(copy, text.data, text.length);
    copy[text.length] = '\0';
    return tok_special(t, copy) == id;
}

static size_t common_length(struct gguf_string a, struct gguf_string b)
{
    size_t n = 0;
    while (n < a.length && n < b.length && a.data[n] == b.data[n])
        n++;
    return n;
}

static void build(struct trie *trie, const int32_t *sorted, size_t n)
{
    uint32_t path[TRIE_LONGEST]; /* the nodes of the last token */
    struct gguf_string last = {"", 0};
    for (size_t i = 0; i < n; i++) {
        struct gguf_string s = tok_bytes(trie->tokenizer, sorted[i]);
        size_t common = common_length(last, s);
        for (size_t d = common; d < last.length; d++)
            trie->nodes[path[d]].skip = trie->n_nodes;
        for (size_t d = common; d < s.length; d++) {
            path[d] = trie->n_nodes++;
            trie->nodes[path[d]] = (struct trie_node){.byte = (uint8_t)s.data[d], .depth = (uint16_t)(d + 1)};
        }
        struct trie_node *node = &trie->nodes[path[s.length - 1]];
        trie->tokens[i] = sorted[i];
        if (node->n_tokens == 0)
            node->tokens = (uint32_t)i;
        if (node->n_tokens < UINT8_MAX)
            node->n_tokens++;
        if (s.length > trie->longest)
            trie->longest = (uint32_t)s.length;
        last = s;
    }
    for (size_t d = 0; d < last.length; d++)
        trie->nodes[path[d]].skip = trie->n_nodes;
}

struct trie *trie_new(const struct tokenizer *t, int n_vocab, const bool *silent)
{
    struct trie *trie = calloc(1, sizeof *trie);
    size_t n = 0, n_bytes = 0, count = tok_n_vocab(t) < n_vocab ? (size_t)tok_n_vocab(t) : (size_t)n_vocab;
    int32_t *sorted = malloc((count + 1) * sizeof *sorted);
    if (trie) {
        trie->tokenizer = t;
        trie->n_vocab = n_vocab;
        trie->tokens = malloc((count + 1) * sizeof *trie->tokens);
        trie->added = malloc((count + 1) * sizeof *trie->added);
        trie->in_tree = calloc((size_t)n_vocab + 1, sizeof *trie->in_tree);
    }
    bool ok = trie && sorted && trie->tokens && trie->added && trie->in_tree;
    for (size_t i = 0; ok && i < count; i++) {
        struct gguf_string s = tok_bytes(t, (int32_t)i);
        if (tok_is_end(t, (int32_t)i) && trie->n_ends < sizeof trie->ends / sizeof *trie->ends)
            trie->ends[trie->n_ends++] = (int32_t)i;
        if (silent[i] || tok_is_end(t, (int32_t)i) || s.length == 0 || s.length > TRIE_LONGEST)
            continue;
        sorted[n++] = (int32_t)i;
        trie->in_tree[i] = true;
        n_bytes += s.length;
        if (is_added(t, (int32_t)i, s))
            trie->added[trie->n_added++] = (int32_t)i;
    }
    if (ok) {
        qsort_r(sorted, n, sizeof *sorted, compare, (void *)(uintptr_t)t);
        trie->nodes = malloc((n_bytes + 1) * sizeof *trie->nodes);
        ok = trie->nodes != NULL;
    }
    if (ok) {
        build(trie, sorted, n);
        struct trie_node *fitting = realloc(trie->nodes, (trie->n_nodes + 1) * sizeof *fitting);
        if (fitting)
            trie->nodes = fitting;
    }
    free(sorted);
    if (!ok) {
        trie_free(trie);
        return NULL;
    }
    return trie;
}

void trie_free(struct trie *t)
{
    if (!t)
        return;
    free(t->nodes);
    free(t->tokens);
    free(t->added);
    free(t->in_tree);
    free(t);
}
