/* The parts of the schema compiler. A schema is looked at as a conjunction: a list of schemas that a value must satisfy all.
 * allOf and $ref lengthen the list, anyOf and oneOf choose what is added to it, and the schema of a member is the list of what
 * all say about it. Each different conjunction becomes one rule of the grammar. */
#ifndef QUERN_SCHEMA_INTERNAL_H
#define QUERN_SCHEMA_INTERNAL_H

#include "server/schema/dfa.h"
#include "server/schema/schema.h"

enum {
    SCHEMA_MOST_NODES = 400000,
    SCHEMA_MOST_RULES = 8000,
    SCHEMA_MOST_ITEMS = 64,      /* of a conjunction */
    SCHEMA_MOST_NAMES = 1024,    /* declared members of an object */
    SCHEMA_MOST_PATTERNS = 8,    /* patternProperties of an object */
    SCHEMA_MOST_BRANCHES = 256,  /* anyOf */
    SCHEMA_MOST_EXCLUSIVE = 64,  /* oneOf */
    SCHEMA_MOST_STEPS = 3000000  /* looking things up */
};

struct schema_item {
    const struct json_value *schema; /* an object */
    uint16_t parent; /* the item that brought it, or SCHEMA_NO_PARENT */
    bool any_done, one_done; /* its anyOf, its oneOf has been chosen from */
};
enum { SCHEMA_NO_PARENT = UINT16_MAX };

struct schema_all {
    const struct json_value *root; /* for $ref */
    int document;
    /* For proving that two schemas have no value in common: what is enforced more strictly than
     * the standard says (formats) is left out. */
    bool loose;
    bool impossible; /* false is among them */
    uint16_t n;
    struct schema_item items[SCHEMA_MOST_ITEMS];
};

struct schema_compiler {
    struct grammar_builder *b;
    struct schema_error *err;
    const struct json_value *root; /* of the document at work, for pointers */
    int document;
    uint32_t steps, work; /* left: SCHEMA_MOST_STEPS, REGEX_WORK */
    /* Rules by conjunction, and those not yet defined. */
    struct schema_rule {
        grammar_rule rule;
        uint16_t n;
        bool loose;
        struct schema_key { const struct json_value *schema; uintptr_t done; } *key;
    } *rules;
    uint32_t n_rules, *slots;
    struct schema_todo { struct schema_todo *next; grammar_rule rule; struct schema_all all; } *first_todo, **last_todo;
    /* Pairs that must turn out to be impossible: alternatives of a oneOf. */
    struct schema_pair {
        grammar_rule rule;
        const struct json_value *keyword, *root;
        int document;
    } *pairs;
    uint32_t n_pairs, pairs_capacity;
    bool have_common;
    grammar_rule space, string, number, integer, any, object, array; /* the JSON of any value */
};

/* False, always. where: the value at fault, for the pointer; NULL: the root. */
bool schema_fail(struct schema_compiler *c, const struct json_value *where, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool schema_out_of_memory(struct schema_compiler *c);
/* Counts a small step; false when there have been too many. */
bool schema_step(struct schema_compiler *c, uint32_t steps);
bool schema_dfa(struct schema_compiler *c, const struct json_value *where, enum dfa_result result, const struct dfa *made);

/* Conjunctions: schema.c */
void schema_all_begin(struct schema_all *all, const struct schema_all *like);
bool schema_all_add(struct schema_compiler *c, struct schema_all *all, const struct json_value *schema, uint16_t parent);
/* The rule for it, defined sooner or later. */
bool schema_rule_of(struct schema_compiler *c, const struct schema_all *all, grammar_rule *rule);
/* Knows all keywords and their values' types; refuses the others. Part of schema_all_add. */
bool schema_check(struct schema_compiler *c, const struct json_value *schema);
const struct json_value *schema_resolve(struct schema_compiler *c, const struct json_value *root, const struct json_value *ref);

/* schema_json.c: the JSON that needs no schema. */
void schema_common(struct schema_compiler *c);
grammar_node schema_space(struct schema_compiler *c, grammar_node next); /* what may stand after a brace or a comma */
grammar_node schema_colon(struct schema_compiler *c, grammar_node next);
/* Room for 64 more. */
void schema_character_edges(
    struct schema_compiler *c, uint32_t low, uint32_t high, grammar_node next, struct grammar_edge *edges, size_t *n);
grammar_node schema_string_character(struct schema_compiler *c, grammar_node next); /* one character in any spelling */
grammar_node schema_utf8_edges_node(struct schema_compiler *c, const struct grammar_edge *edges, size_t n);
void schema_utf8(
    struct schema_compiler *c, uint32_t low, uint32_t high, grammar_node next, struct grammar_edge *edges, size_t *n);

/* schema_string.c */
bool schema_string(struct schema_compiler *c, const struct schema_all *all, grammar_node *out);
/* The set of a string that all of one item's keywords allow; *limited: false if they allow everything. */
bool schema_string_set(struct schema_compiler *c, const struct schema_item *item, bool loose, struct dfa *out, bool *limited);
bool schema_pattern(
    struct schema_compiler *c, const struct json_value *where, const char *pattern, size_t length, struct dfa *out);
/* From behind the opening quote to behind the closing one. */
bool schema_string_of(struct schema_compiler *c, const struct dfa *d, grammar_node next, grammar_node *out);
bool schema_is_format(const char *name);

/* schema_number.c */
bool schema_number(struct schema_compiler *c, const struct schema_all *all, bool integer, grammar_node *out);

/* schema_object.c */
bool schema_object(struct schema_compiler *c, const struct schema_all *all, grammar_node *out);
/* schema_array.c */
bool schema_array(struct schema_compiler *c, const struct schema_all *all, grammar_node *out);
/* A count keyword of all items: the largest minimum or the smallest maximum; *value is left alone if none has it. */
bool schema_count(struct schema_compiler *c, const struct schema_all *all, const char *keyword, bool largest, uint32_t *value);
bool schema_type_is(const struct json_value *type, const char *name); /* "type" as a string or an array */

/* schema_fits.c: is this value, which stands in the enum `source` (or is a const: NULL), valid against all? */
bool schema_fits(struct schema_compiler *c, const struct schema_all *all, const struct json_value *value,
    const struct json_value *source, bool *fits);
bool schema_equal(const struct json_value *a, const struct json_value *b);

#endif
