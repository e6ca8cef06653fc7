/* Runs a grammar over bytes. Where a text stands in the grammar is a state: a small number that can be copied and kept.
 * A state is the set of all ways to read the text so far, each with what it still has to return to; equal sets are the
 * same state, and where a byte leads is remembered, so that most steps are one look into a table.
 *
 * States live in the matcher and end with it, or with matcher_forget. One matcher belongs to one thread.
 *
 * A text that can be read in very many ways at once keeps only MATCHER_WAYS of them: some continuations are then not offered,
 * but what is offered still leads to a text of the grammar. */
#ifndef QUERN_MATCHER_H
#define QUERN_MATCHER_H

#include "engine/grammar.h"

enum { MATCHER_DEAD = 0, MATCHER_WAYS = 2048 };

typedef uint32_t matcher_state;

struct matcher;

/* horizon: no question is ever asked that needs more than this many bytes at once (the longest token); see matcher_local.
 * NULL when out of memory. The grammar must outlive it. */
struct matcher *matcher_new(const struct grammar *g, uint32_t horizon);
void matcher_free(struct matcher *m); /* NULL is allowed */
/* Memory ran out at some time: states may be missing ways since then, or be MATCHER_DEAD without reason. */
bool matcher_failed(const struct matcher *m);

matcher_state matcher_start(struct matcher *m);
/* The state behind one more byte: MATCHER_DEAD if no text of the grammar goes on so. */
matcher_state matcher_step(struct matcher *m, matcher_state s, uint8_t byte);
bool matcher_may_end(const struct matcher *m, matcher_state s);
/* The bytes that may follow: sets bits in set[256 / 32]. */
void matcher_next_bytes(const struct matcher *m, matcher_state s, uint32_t set[8]);

/* A state that stands for s and for all others that differ only in what they return to: what the ways have in common below their
 * rules is replaced by "unknown", and counts of repetitions that are further than the horizon from their limits by one that is as
 * far. A step in it goes as in s, as long as nothing returns to the unknown; matcher_escapes tells when something did. */
matcher_state matcher_local(struct matcher *m, matcher_state s);
/* One of the ways has just returned to the unknown (which goes on in no way from there). */
bool matcher_escapes(const struct matcher *m, matcher_state s);

/* How much it holds. */
uint32_t matcher_n_states(const struct matcher *m); /* every state is less than this */
size_t matcher_bytes(const struct matcher *m);
/* Forgets everything but one state, which gets a new number: returned (MATCHER_DEAD when out of memory). */
matcher_state matcher_forget(struct matcher *m, matcher_state keep);

#endif
