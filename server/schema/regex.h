/* Regular expressions as JSON Schema's "pattern" means them, to automata.
 * Source: ECMA-262, section 22.2.1 (Patterns), as with the flag u.
 *
 * Taken: alternatives, groups (plain, (?:), (?<name>)), * + ? {n} {n,} {n,m} and their lazy forms (which match the same
 * strings), ., classes with ranges and negation, \d \D \w \W \s \S, \t \n \v \f \r \0 \cX \xHH \uHHHH (and pairs of them)
 * \u{H}, escaped punctuation, ^ and $ anywhere.
 * Refused, by name: back-references, lookahead and lookbehind, \b and \B, \p and \P, and what is no regular expression. */
#ifndef QUERN_REGEX_H
#define QUERN_REGEX_H

#include "gguf/error.h"
#include "server/schema/dfa.h"

enum { REGEX_WORK = 30000000 };

/* The strings in which the pattern matches somewhere. pattern: UTF-8. *work: how many small steps it may take
 * (REGEX_WORK is some tens of milliseconds); what it took is subtracted, so that several expressions can share a limit.
 * False with a sentence: not supported, or too large (bounded time and memory for any input). */
bool regex_compile(const char *pattern, size_t length, uint32_t *work, struct dfa *out, struct error *err);

#endif
