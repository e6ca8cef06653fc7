/* Log probabilities of tokens under the model's own distribution: the softmax of the raw logits, before temperature, truncation,
 * penalties, biases and constraints. The same bits on every machine, as the sampler's draws (engine/sampler.h). */
#ifndef QUERN_LOGPROBS_H
#define QUERN_LOGPROBS_H

#include <stdint.h>

enum { LOGPROBS_MAX_TOP = 20 };

struct token_logprob {
    int32_t token;
    double logprob; /* natural logarithm, 0 or less; minus infinity for what is impossible */
};

struct token_choice {
    struct token_logprob chosen;
    struct token_logprob top[LOGPROBS_MAX_TOP]; /* [n_top] the likeliest, best first; of equals the lower id first */
    int n_top;
};

/* logits: [n_vocab]. n_top: 0 .. LOGPROBS_MAX_TOP; fewer come out of a smaller vocabulary. NaN counts as minus infinity. */
void logprobs_of(const float *logits, int n_vocab, int32_t chosen, int n_top, struct token_choice *out);

#endif
