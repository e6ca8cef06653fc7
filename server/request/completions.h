/* POST /v1/completions: the model continues a text, without a conversation around it.
 * Source of the shapes: OpenAI's API reference (completions, legacy).
 *
 *   parameter                what quern does with it
 *   prompt                   required: a string, or an array of strings, of token ids, or of arrays of token ids; not empty.
 *                            Control tokens written in a string are control tokens: here the client writes the model's raw input
 *                            (in messages of a chat they are text)
 *   max_tokens               1 or more; 16 without it, as OpenAI has it
 *   echo                     true: the prompt comes before its continuation
 *   logprobs                 0..20: of each generated token, and of the so many likeliest; not together with echo,
 *                            which would want those of the prompt
 *   best_of, suffix          only 1; only "": refused otherwise
 *   those in server/request/params.h as they are told there
 *   anything else            400, unknown_parameter
 *
 * Choices come in the order of the prompts, n for each. In "logprobs" a token that is not UTF-8 by itself is spelt
 * "bytes:\xE2\x98"; text_offset counts characters. */
#ifndef QUERN_COMPLETIONS_H
#define QUERN_COMPLETIONS_H

#include "server/request/params.h"
#include "tokenizer/tokenizer.h"

struct completion_request {
    struct params params;
    struct tok_ids *prompts; /* [n_prompts] */
    int n_prompts;
    int max_tokens;
    int logprobs; /* -1: none */
    bool echo;
};

/* False with *err filled; completion_request_free is needed in either case. */
bool completion_request_read(struct completion_request *r, const struct json_value *root, const struct sampling *defaults,
    const struct tokenizer *t, struct api_error *err);
void completion_request_free(struct completion_request *r);

#endif
