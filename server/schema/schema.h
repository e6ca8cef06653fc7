/* JSON Schema to grammar: what is generated under it is valid against the schema. Nothing is taken that cannot be enforced.
 * Source: JSON Schema, draft 2020-12 (and draft-07, whose keywords below mean the same).
 *
 * Enforced: type (one or several), enum, const, properties, required, additionalProperties, patternProperties, items,
 *   prefixItems, minItems, maxItems, anyOf, oneOf (where no value can satisfy two alternatives), allOf, $ref to places in the
 *   same document (also recursive) with $defs and definitions, minLength, maxLength, pattern (server/schema/regex.h), format
 *   (date, time, date-time, uuid, email, ipv4, uri), minimum, maximum, exclusiveMinimum, exclusiveMaximum (for non-integers:
 *   whole bounds only), true and false.
 * Ignored, as they say nothing about values: title, description, default, examples, $schema, $id (of the whole document),
 *   $comment, deprecated, readOnly, writeOnly, names that begin with "x-"; uniqueItems false, minProperties 0.
 * Anything else is an error that names the keyword and its place. So are schemas that nothing can satisfy,
 * and ones that are too large (time and memory are bounded for any schema).
 *
 * Of the texts of a valid value, these are generated:
 *   - members in the order of the schema (properties as written, then other required ones, then further members,
 *     whose names are never those of declared ones);
 *   - after { [ and , and before } ] nothing, one space, or a line end and up to 40 spaces; after : nothing or one space;
 *     none elsewhere: all of JSON.stringify's and json.dumps' forms;
 *   - numbers of at most 15 digits before and after the point, with exponents below 100 (without exponent if there are bounds);
 *     integers of 15 digits unless bounds ask for more;
 *   - characters as themselves, escaped where JSON demands it; in strings without pattern or format any escape;
 *   - values of enum and const as the schema writes them, without spaces but after , and : (", " and ": "). */
#ifndef QUERN_SCHEMA_H
#define QUERN_SCHEMA_H

#include "engine/grammar.h"
#include "server/json/json.h"

struct schema_error {
    char text[320];    /* a sentence without its final stop */
    char pointer[160]; /* JSON pointer within the document given, "" for its root; shortened if very long */
    int document;      /* of schema_answer: index of the tool whose parameters it is, -1: the schema of the content; else 0 */
};

/* NULL with *err filled. The grammar does not point into the schema. For grammar_free. */
struct grammar *schema_compile(const struct json_value *schema, struct schema_error *err);
/* Any JSON object (response_format json_object). */
struct grammar *schema_any_object(struct schema_error *err);

/* A whole answer: content, or calls of tools as Qwen2.5 writes them, several with a line end between:
 *   <tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call> */
struct schema_tool {
    const char *name;
    const struct json_value *parameters; /* NULL: any object. Whatever they say, arguments are an object */
};
enum schema_content {
    SCHEMA_CONTENT_NONE,   /* at least one call and nothing else */
    SCHEMA_CONTENT_TEXT,   /* free text without <tool_call>, then calls, or none */
    SCHEMA_CONTENT_OBJECT, /* any JSON object, or calls */
    SCHEMA_CONTENT_SCHEMA  /* what the schema says, or calls */
};
struct schema_answer {
    const struct schema_tool *tools; /* [n_tools] */
    size_t n_tools;
    bool parallel; /* more than one call is possible */
    enum schema_content content;
    const struct json_value *schema;
};
/* For a tool that must be called give that tool only, and SCHEMA_CONTENT_NONE. */
struct grammar *schema_answer(const struct schema_answer *a, struct schema_error *err);

#endif
