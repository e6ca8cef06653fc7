/* The model that is measured: a forward pass, one sequence for prompts, and several for answers. */
#ifndef QUERN_BENCH_SUBJECT_H
#define QUERN_BENCH_SUBJECT_H

#include "engine/model.h"

enum { SUBJECT_MOST_ANSWERS = 16 };

struct subject {
    const struct model *model;
    int n_vocab;
    struct kv_pool *kv;
    struct forward *forward;
    struct kv_sequence prompt, answers[SUBJECT_MOST_ANSWERS];
    struct row *rows; /* [longest prefill] */
    float *logits;    /* [answers][n_vocab] */
    struct sampler *sampler;
};

/* Room in positions, at least 0 each. */
struct subject_room {
    int n_batch;   /* rows of a forward step, 1 or more */
    int prompt;    /* of the prompt sequence */
    int answer;    /* of answers[0] */
    int n_answers; /* 1 .. SUBJECT_MOST_ANSWERS */
    int others;    /* of each of answers[1] and up */
};

/* False with a sentence when memory is short; subject_end is due either way. */
bool subject_init(
    struct subject *s, const struct model *m, struct threads *pool, const struct subject_room *room, struct error *err);
void subject_end(struct subject *s);

/* Computes n >= 1 tokens from position 0. What they are does not matter to the speed:
 * spread over the vocabulary, the same in every run. */
void subject_prefill(struct subject *s, struct kv_sequence *sequence, int n);
/* n steps at which each of the first n_answers answers gets one token, the likeliest, from position `depth` on. */
void subject_decode(struct subject *s, int n_answers, int depth, int n);
/* Copies the keys and values of the first `done` positions of answers[0] (whole blocks) over and over up to n positions:
 * for a decode step as good as computed ones, at the speed of memory. */
void subject_deepen(struct subject *s, int done, int n);

#endif
