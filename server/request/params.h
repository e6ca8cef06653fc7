/* Parameters that several APIs have in common: how to sample, when to stop, how many answers, how to send them.
 *
 *   parameter                              what it does
 *   model                                  any string: this server has one model, and names it in its answer
 *   temperature, top_p, top_k, min_p       0..2, 0..1, integer (0 or -1: all), 0..1; without them, the defaults given
 *   seed                                   an integer; without it, a random one
 *   presence_penalty, frequency_penalty    -2..2, by what was generated
 *   repetition_penalty, repeat_penalty     above 0, to 10, by the prompt and what was generated; two names of one thing
 *   logit_bias                             {"token id": -100..100}, at most 1024; -100: never
 *   stop                                   a string or up to 4
 *   n                                      1..64, and not more than may wait (--queue)
 *   stream, stream_options.include_usage   booleans
 *   user, metadata, store, service_tier,
 *   safety_identifier, prompt_cache_key,
 *   prompt_cache_retention, cache_prompt   harmless: accepted and ignored (they say who asks and how to bill
 *                                          or cache, not what to answer)
 *
 * null means absent, everywhere. See engine/sampler.h for what the numbers mean. */
#ifndef QUERN_PARAMS_H
#define QUERN_PARAMS_H

#include "engine/engine.h"
#include "server/json/json.h"
#include "server/request/api_error.h"

/* PARAMS_MAX_CHOICES: of one answer, however many prompts it has. */
enum { PARAMS_MAX_STOPS = 4, PARAMS_MAX_BIASES = 1024, PARAMS_MAX_CHOICES = 64 };

struct params {
    struct sampling sampling; /* its biases are owned: params_free */
    int n_vocab;              /* ids of biases are below it */
    bool have_seed;
    const char *stops[PARAMS_MAX_STOPS]; /* in the JSON tree, which must live as long */
    int n_stops;
    int n;
    bool stream, include_usage;
};

/* defaults: for what is not given; its seed is not used. */
void params_init(struct params *p, const struct sampling *defaults, int n_vocab);
void params_free(struct params *p);

enum param_result { PARAM_TAKEN, PARAM_FAILED, PARAM_UNKNOWN };

/* Takes a member of a request, if it is one of the above. PARAM_FAILED: err is filled. */
enum param_result params_take(struct params *p, const struct json_value *m, struct api_error *err);
/* After all members: checks what concerns several of them, and draws a seed if none was given. */
bool params_check(struct params *p, struct api_error *err);
/* Sampling and stop strings of the generation. */
void params_apply(const struct params *p, struct generation *g);

/* ---- reading one value, for parameters of other kinds; errors name v->key ---- */

bool param_bool(const struct json_value *v, bool *out, struct api_error *err);
bool param_int(const struct json_value *v, int64_t low, int64_t high, const char *must, int64_t *out, struct api_error *err);
/* A number of tokens, from 1; what an int cannot hold becomes INT_MAX, which is more than any context has. */
bool param_max_tokens(const struct json_value *v, int *out, struct api_error *err);
/* An array of stop strings, or (`single`) one alone; at most `most`, appended to stops[*n]. They live in the JSON tree. */
bool param_stops(
    const struct json_value *v, bool single, int most, const char **stops, int *n, struct api_error *err);
bool param_number(const struct json_value *v, double low, double high, const char *must, float *out, struct api_error *err);
/* Refuses what quern cannot do; only: the value that changes nothing, or NULL. */
bool param_unsupported(const struct json_value *v, const char *only, struct api_error *err);
bool param_unknown(const struct json_value *v, struct api_error *err);
/* The root of a request must be an object. */
bool param_root(const struct json_value *root, struct api_error *err);

#endif
