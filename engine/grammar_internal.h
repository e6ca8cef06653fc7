/* What a finished grammar is made of. For grammar.c, which makes it, and matcher.c, which runs it. */
#ifndef QUERN_GRAMMAR_INTERNAL_H
#define QUERN_GRAMMAR_INTERNAL_H

#include "engine/grammar.h"

#include <stdatomic.h>

enum grammar_kind {
    NODE_RETURN, /* ends the rule */
    NODE_NEVER,
    NODE_STEP,   /* a: first edge, b: their number */
    NODE_CHOICE, /* a: first of targets, b: their number */
    NODE_CALL,   /* a: the rule (finished: its entry node), b: the node behind */
    NODE_ENTER,  /* a: the loop; b: number of times 0 */
    NODE_AGAIN   /* a: the loop; the end of its body */
};

struct grammar_item {
    uint32_t kind, a, b;
};

struct grammar_loop {
    uint32_t min, max;
    grammar_node body, next;
};

struct grammar {
    atomic_uint owners;
    struct grammar_item *nodes; /* 0 and 1 are GRAMMAR_RETURN and GRAMMAR_NEVER */
    struct grammar_edge *edges;
    grammar_node *targets;
    struct grammar_loop *loops;
    uint32_t n_nodes, n_edges, n_targets, n_loops;
    grammar_node root;
};

#endif
