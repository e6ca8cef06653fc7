/* Deterministic automata over Unicode characters: sets of strings that can be intersected and subtracted.
 * What a JSON Schema says of a string (patterns, formats, lengths, names that are taken) becomes one of
 * these, and then part of a grammar (schema_string.c). Characters are code points without surrogates.
 *
 * Every result is trimmed: from each state a string of the set can be completed. The empty set has no states. */
#ifndef QUERN_DFA_H
#define QUERN_DFA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DFA_MOST_STATES = 20000,
    DFA_MOST_RANGES = 400000,
    DFA_LAST_CHARACTER = 0x10FFFF
};
#define DFA_UNLIMITED UINT32_MAX

struct dfa_range {
    uint32_t low, high, to;
};

struct dfa_state {
    uint32_t first, count; /* in ranges: ordered, without overlap */
    bool accepts;
};

struct dfa {
    struct dfa_state *states; /* [n_states], the start is 0 */
    struct dfa_range *ranges; /* [n_ranges] */
    uint32_t n_states, n_ranges;
};

enum dfa_result { DFA_OK, DFA_TOO_LARGE, DFA_NO_MEMORY };

void dfa_free(struct dfa *d); /* and makes it empty */
bool dfa_is_empty(const struct dfa *d);
bool dfa_matches(const struct dfa *d, const char *utf8, size_t length);

/* Building by hand: states in order, each with its ranges. */
enum dfa_result dfa_add_state(struct dfa *d, bool accepts);
enum dfa_result dfa_add_range(struct dfa *d, uint32_t low, uint32_t high, uint32_t to); /* to the last state; ranges in order */
/* Removes what cannot be reached or leads to no string of the set. */
enum dfa_result dfa_trim(struct dfa *d);

enum dfa_result dfa_everything(struct dfa *d);
/* All strings of min to max characters (DFA_UNLIMITED: no upper limit). */
enum dfa_result dfa_lengths(uint32_t min, uint32_t max, struct dfa *out);
/* Exactly these strings. */
struct dfa_text {
    const char *data; /* UTF-8 */
    size_t length;
};
enum dfa_result dfa_texts(const struct dfa_text *texts, size_t n, struct dfa *out);
/* The strings of both; the strings of a that are not in b. */
enum dfa_result dfa_both(const struct dfa *a, const struct dfa *b, struct dfa *out);
enum dfa_result dfa_without(const struct dfa *a, const struct dfa *b, struct dfa *out);

#endif
