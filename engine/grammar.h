/* A grammar over bytes: what a generation may say, byte by byte. It knows nothing of JSON, tokens or text;
 * server/schema/schema.h builds one from a JSON Schema, engine/matcher.h runs it.
 *
 * A grammar is a set of rules; a rule is a graph of nodes that ends in GRAMMAR_RETURN. Nodes are made back to
 * front: every function that makes one is given the node that follows. Rules may call one another and themselves,
 * so nesting without bound is possible (it is a pushdown automaton); the same node may be used in many places.
 * A repetition carries its counts as numbers: "at most 10,000 times" is one loop, not 10,000 copies.
 *
 * Building: run out of memory or past the limit of nodes, and the builder remembers it: later calls give GRAMMAR_NEVER
 * and grammar_finish fails, so that it is enough to look there.
 * A finished grammar is immutable and reference-counted: any number of threads may use one.
 *
 * What grammar_finish guarantees of its result: from every place that can be reached, the end can be reached too
 * (what leads nowhere is cut off); and between two bytes there is never an endless chain of steps (left recursion
 * and repetitions of nothing are refused). */
#ifndef QUERN_GRAMMAR_H
#define QUERN_GRAMMAR_H

#include "gguf/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint32_t grammar_node;
typedef uint32_t grammar_rule;

enum {
    GRAMMAR_RETURN = 0, /* the end of a rule */
    GRAMMAR_NEVER = 1   /* nothing goes on from here */
};
#define GRAMMAR_UNLIMITED UINT32_MAX

struct grammar_edge {
    uint8_t low, high; /* this byte range ... */
    grammar_node next; /* ... leads there */
};

struct grammar_builder;

struct grammar_builder *grammar_builder_new(size_t max_nodes); /* nodes and edges together; NULL when out of memory */
void grammar_builder_free(struct grammar_builder *b); /* NULL is allowed */
/* Out of memory, or past the limit: whatever is built now is lost. */
bool grammar_builder_failed(const struct grammar_builder *b);

/* One byte of a range, then next. The same arguments give the same node. */
grammar_node grammar_byte(struct grammar_builder *b, uint8_t low, uint8_t high, grammar_node next);
/* Exactly these bytes, then next. */
grammar_node grammar_literal(struct grammar_builder *b, const char *bytes, size_t length, grammar_node next);
/* Any one of several texts, as a tree that shares their beginnings; sorts the list.
 * A text may be the beginning of another one. */
struct grammar_text {
    const char *data;
    size_t length;
};
grammar_node grammar_literals(struct grammar_builder *b, struct grammar_text *texts, size_t n, grammar_node next);
/* Any one of n. */
grammar_node grammar_choice(struct grammar_builder *b, const grammar_node *nodes, size_t n);
/* A state with several ways out, by byte range; ranges may overlap. For graphs with cycles:
 * reserve the node first, say later where it leads. */
grammar_node grammar_reserve(struct grammar_builder *b);
void grammar_define_edges(struct grammar_builder *b, grammar_node reserved, const struct grammar_edge *edges, size_t n);
void grammar_define_choice(struct grammar_builder *b, grammar_node reserved, const grammar_node *nodes, size_t n);
/* A whole rule, then next. */
grammar_rule grammar_rule_new(struct grammar_builder *b);
void grammar_rule_define(struct grammar_builder *b, grammar_rule rule, grammar_node entry);
grammar_node grammar_call(struct grammar_builder *b, grammar_rule rule, grammar_node next);
/* A body, min to max times, then next. grammar_repeat_begin gives the node that ends the body; build the body before it;
 * grammar_repeat_end gives the node to enter by. */
grammar_node grammar_repeat_begin(struct grammar_builder *b, uint32_t min, uint32_t max, grammar_node next);
grammar_node grammar_repeat_end(struct grammar_builder *b, grammar_node end_of_body, grammar_node body);

/* May anything at all match this rule, as far as it is built? Looks at the whole builder the first time after a change. */
bool grammar_rule_possible(struct grammar_builder *b, grammar_rule rule);

struct grammar;

/* The grammar that matches what the rule matches. NULL with a sentence: nothing can match, left recursion, the limit,
 * or memory. The builder can be freed afterwards. */
struct grammar *grammar_finish(struct grammar_builder *b, grammar_rule root, struct error *err);
struct grammar *grammar_retain(const struct grammar *g); /* one more owner; returns g */
void grammar_free(struct grammar *g); /* one owner less; NULL is allowed */
size_t grammar_n_nodes(const struct grammar *g);

#endif
