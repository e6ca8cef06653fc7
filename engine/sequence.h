/* A submitted generation on its way: prompt, sampler, text that is still held back, and where it stands.
 * What it says to its callback is decided here; when it is computed is the scheduler's business
 * (engine/scheduler.h), and what is computed the forward pass's. */
#ifndef QUERN_SEQUENCE_H
#define QUERN_SEQUENCE_H

#include "engine/constraint.h"
#include "engine/draft.h"
#include "engine/engine.h"
#include "engine/kv.h"
#include "engine/sampler.h"
#include "engine/stops.h"

#include <stdatomic.h>

/* What a sequence needs to know of the model. */
struct vocabulary {
    const struct tokenizer *tokenizer;
    int n_vocab;        /* logits */
    const bool *silent; /* [n_vocab]: tokens that are never text (control and unused ones) */
    const struct trie *trie; /* for grammars */
};

/* A token with the place of its text in the answer. */
struct told_token {
    struct token_choice choice;
    size_t offset; /* bytes of text before it */
};

/* Tokens that a grammar leaves no choice about are computed in the batch of the next one, so many at most. */
enum { SEQUENCE_MOST_FORCED = 24 };

struct sequence {
    struct sequence *next; /* in the queue */
    uint64_t id;
    atomic_bool cancelled; /* set by any thread */

    const struct vocabulary *vocabulary;
    int32_t *tokens; /* [n_prompt + limit], of which n_tokens are known: the prompt, then the answer */
    int n_tokens, n_prompt;
    int limit;       /* tokens to generate at most: max_tokens, or what the context has room for */
    bool ignore_eos;
    engine_callback *callback;
    void *user;

    struct kv_sequence kv;
    int n_computed;    /* tokens whose keys and values are in kv; the rest of them are the next rows */
    int n_cached;      /* of the prompt, those that did not have to be computed for this sequence */
    int n_generated;
    bool waits;        /* in prefill: no rows in this batch, as an older sequence computes the same (scheduler.h) */
    int n_planned;     /* rows in the batch being computed, those of guesses not among them */
    int32_t draft[DRAFT_MOST]; /* [n_draft] guesses of the tokens after these, which have rows in the batch too */
    int n_draft;
    int n_drafted, n_accepted; /* guesses so far; of them, right ones */
    float *logits;     /* [1 + n_draft][n_vocab] where the batch being computed leaves this sequence's logits, or NULL */

    struct sampler *sampler;
    struct grammar *grammar;       /* or NULL, as the next two */
    struct constraint *constraint;
    float *allowed;                /* [n_vocab] the logits with those of tokens that do not fit the grammar at minus infinity */
    struct stops *stops;
    struct tok_stream stream;
    bool logprobs;
    int top_logprobs;
    struct told_token *held; /* [n_held] tokens whose text is held back still; only with logprobs */
    struct token_choice *ready; /* [held_capacity] those of one event */
    int n_held, held_capacity;
    size_t n_fed, n_shown; /* bytes of text: given to stops; come out of it */
    char *text; /* [text_capacity]: one token's text */
    size_t text_capacity;
    double submitted, started, first_token, last_token; /* seconds of the monotonic clock */
};

/* Checks and copies g for a context of n_ctx positions. NULL with a sentence;
 * *result is then SUBMIT_INVALID, or SUBMIT_FULL when out of memory. */
struct sequence *sequence_new(
    const struct generation *g, const struct vocabulary *v, int n_ctx, enum submit_result *result, struct error *err);
void sequence_free(struct sequence *s); /* also gives its KV blocks back; NULL is allowed */

/* Positions of KV memory that it can come to need. (The last token is sampled but never computed.) */
int sequence_positions(const struct sequence *s);

/* Leaves the queue, for the first time or again: EVENT_STARTED the first time. */
void sequence_start(struct sequence *s);
bool sequence_has_started(const struct sequence *s);
/* Guesses what comes after the known tokens: at most n, and no more than it may still generate. Sets draft and n_draft. */
void sequence_guess(struct sequence *s, int n);
/* Samples from s->logits, one token and as many more as were guessed right, which then count as computed: EVENT_TEXT for each
 * that brings new text. True if the generation goes on; else its EVENT_DONE has been given. */
bool sequence_accept(struct sequence *s);
/* Ends it from outside: EVENT_DONE. error: a sentence for FINISH_ERROR, else NULL. */
void sequence_finish(struct sequence *s, enum finish_reason reason, const char *error);

#endif
