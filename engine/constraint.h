/* Holds a generation to a grammar: which tokens may come next, what is certain to come, and when the turn may end.
 *
 * The set of allowed tokens is a mask, one bit for each. For each place in the grammar, whatever it is nested in, it is found
 * once by walking the vocabulary's tree (engine/trie.h) with the matcher: tokens that stay within that place are decided for
 * good; those that leave it (a quote and a brace in one token, say) are remembered and decided each time, where it is known what
 * the place is nested in. The mask of a place is kept, so that most steps cost only the tokens that leave it.
 *
 * Tokens that end a turn are allowed exactly where the grammar may end. Control tokens are never allowed;
 * user-defined ones (<tool_call>) are, as the text that they are.
 *
 * One constraint belongs to one generation and is used by one thread. */
#ifndef QUERN_CONSTRAINT_H
#define QUERN_CONSTRAINT_H

#include "engine/grammar.h"
#include "engine/trie.h"

struct constraint;

/* Both must outlive it. NULL when out of memory. */
struct constraint *constraint_new(const struct trie *trie, const struct grammar *g);
void constraint_free(struct constraint *c); /* NULL is allowed */

/* The allowed tokens: bit id % 32 of word id / 32; [(n_vocab + 31) / 32] words, valid until the next call.
 * NULL when out of memory. Never empty, unless the vocabulary has no token for a byte that must come. */
const uint32_t *constraint_mask(struct constraint *c);
/* Writes the logits of allowed tokens to out as they are, and minus infinity for the others. [n_vocab] each.
 * False: out of memory, or nothing is allowed. */
bool constraint_apply(struct constraint *c, const float *logits, float *out);
/* The token has come. False, and nothing changed: it was not allowed. */
bool constraint_accept(struct constraint *c, int32_t token);
/* May the text end here? Must it? */
bool constraint_may_end(const struct constraint *c);
bool constraint_must_end(const struct constraint *c);

/* Tokens that are certain to come, for a batch: appended to out, at most `most` of them, but not accepted yet. They are the
 * tokens of the bytes that must follow, as the tokenizer divides them, without the last one of them: where the forced bytes end,
 * the model may want a longer token than they make. Nothing is appended where the tokenizer would change the bytes (text that is
 * not NFC) or when memory runs out: sampling with the mask comes to the same text. */
void constraint_forced(struct constraint *c, size_t most, struct tok_ids *out);

#endif
