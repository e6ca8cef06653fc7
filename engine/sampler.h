/* From logits to a token: greedy, temperature, top_k, top_p, min_p, with a seeded generator of its own, so that the same seed and the same
 * logits give the same tokens on every machine. */
#ifndef QUERN_SAMPLER_H
#define QUERN_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

struct sampling {
    float temperature; /* 0: greedy (the lowest id among equals); else logits / temperature */
    int top_k;         /* keep the k most likely; 0: all */
    float top_p;       /* keep the most likely until their probabilities (after top_k) reach top_p; 1: all */
    float min_p;       /* keep those at least min_p times as likely as the most likely; 0: all */
    uint64_t seed;
};

/* temperature 1, top_k 0, top_p 1, min_p 0, seed 0. */
struct sampling sampling_default(void);

struct sampler; /* one per sequence; not shared between threads */
struct sampler *sampler_new(const struct sampling *s, int n_vocab); /* NULL when out of memory */
void sampler_free(struct sampler *s);
/* logits: [n_vocab], left as they are. Returns a token id. NaN counts as minus infinity. */
int32_t sampler_next(struct sampler *s, const float *logits);

#endif
