/* From logits to a token: penalties, biases, greedy, temperature, top_k, top_p, min_p, with a seeded generator of its own,
 * so that the same seed and the same logits give the same tokens on every machine.
 *
 * What is computed, in this order:
 *   0. the logits are adjusted: for every token that stands in the prompt or has been generated, a positive logit is divided by
 *      repetition_penalty and another one multiplied by it (Keskar et al. 2019, "CTRL", as Hugging Face's transformers do it:
 *      however often it stands there; control tokens too); from a token that has been generated n > 0 times
 *      presence_penalty + n * frequency_penalty is subtracted (OpenAI's API reference); the bias is added.
 *      Greedy choice goes by the adjusted logits too;
 *   1. weight of a token = exp((logit - largest logit) / temperature);
 *   2. top_k: the k tokens with the largest logits stay;
 *   3. top_p: of these, largest first, as many as are needed for their weights to add up to top_p
 *      times the weight of all that passed top_k;
 *   4. min_p: of these, those whose weight is at least min_p (the largest weight is 1);
 *   5. one token is drawn with a probability proportional to its weight.
 * Among equal logits the lower id comes first. The best token always stays, so something can always be drawn.
 * One number of the generator is used for every draw, none for a greedy choice.
 *
 * The same on every machine: the generator is xoshiro256** (Blackman and Vigna, "Scrambled linear pseudorandom number
 * generators", 2018), seeded through splitmix64; weights are doubles from an exponential of our own made of additions
 * and multiplications only, and sums are formed in a fixed order. Nothing depends on the C library's rounding.
 *
 * Logits that are no numbers: NaN counts as minus infinity; minus infinity is never drawn (unless nothing else is there:
 * then token 0 comes out, as the lowest of equals); plus infinity is certain, the lowest id first. */
#ifndef QUERN_SAMPLER_H
#define QUERN_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

struct token_bias {
    int32_t token; /* 0 .. n_vocab - 1 */
    float bias;    /* added to its logit; SAMPLER_BAN or less: the token never comes */
};

#define SAMPLER_BAN (-100.0f)

struct sampling {
    float temperature; /* 0 (or less, or NaN): greedy, the lowest id among equals; else logits / temperature */
    int top_k;         /* keep the k most likely; 0 (or less): all */
    float top_p;       /* keep the most likely until their probabilities (after top_k) reach top_p; 1: all; 0: the best only */
    float min_p;       /* keep those at least min_p times as likely as the most likely; 0: all */
    uint64_t seed;
    float repetition_penalty;                   /* above 1: less of what was there; 1 (or 0, not set): none */
    float presence_penalty, frequency_penalty;  /* 0: none */
    const struct token_bias *biases;            /* [n_biases]; copied; of two for one token both are added */
    int n_biases;
};

/* temperature 1, top_k 0, top_p 1, min_p 0, seed 0, no penalties, no biases. */
struct sampling sampling_default(void);

struct sampler; /* one per sequence; not shared between threads */
struct sampler *sampler_new(const struct sampling *s, int n_vocab); /* NULL when out of memory */
void sampler_free(struct sampler *s); /* NULL is allowed */
/* logits: [n_vocab], left as they are. Returns a token id. */
int32_t sampler_next(struct sampler *s, const float *logits);
/* What the penalties count. The prompt's tokens, before the first draw; and every token that became part of the answer,
 * whether it was drawn or forced: sampler_next alone counts nothing. */
void sampler_saw_prompt(struct sampler *s, const int32_t *tokens, int n);
void sampler_took(struct sampler *s, int32_t token);

#endif
