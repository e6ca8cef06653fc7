/* The body of POST /v1/chat/completions, from JSON to what the tokenizer and the engine take.
 *
 * Fail closed: a parameter is carried out, or it is refused with a 400 that names it. Nothing is silently ignored but what the table calls harmless.
 * null means absent, everywhere.
 *
 *   parameter                                     what quern does with it
 *   messages                                      required, at least one; roles system, developer (the same), user, assistant, tool
 *     .content                                    a string, or text parts (joined by line feeds); null for an assistant that calls tools
 *     .tool_calls, .tool_call_id, .refusal        of an assistant or tool message: rendered; accepted; only null
 *   model                                         any string: this server has one model, and names it in its answer
 *   max_tokens, max_completion_tokens             1 or more; both only if equal; without them, until the context is full
 *   temperature, top_p, top_k, min_p              0..2, 0..1, integer (0 or -1: all), 0..1; without them, the defaults given
 *   seed                                          an integer; without it, a random one
 *   stop                                          a string or up to 4
 *   stream, stream_options.include_usage          booleans
 *   n                                             only 1
 *   tools                                         functions; rendered into the prompt as Qwen2.5's template does; strict only false
 *   tool_choice                                   "auto", or "none" (the tools are then left out of the prompt)
 *   parallel_tool_calls                           true; false only without tools
 *   response_format                               only {"type":"text"}
 *   logprobs, top_logprobs, logit_bias,
 *   presence_penalty, frequency_penalty,
 *   repeat_penalty, modalities, verbosity,
 *   reasoning_effort                              only at the value that changes nothing: false, 0, {}, 0, 0, 1, ["text"], "medium", "none"
 *   user, metadata, store, service_tier,
 *   safety_identifier, prompt_cache_key,
 *   prompt_cache_retention, cache_prompt          harmless: accepted and ignored (they say who asks and how to bill or cache, not what to answer)
 *   anything else                                 400, unknown_parameter
 *
 * Ownership: a request points into the JSON tree it was read from, which must outlive it. */
#ifndef QUERN_CHAT_REQUEST_H
#define QUERN_CHAT_REQUEST_H

#include "engine/sampler.h"
#include "server/api_error.h"
#include "server/json.h"
#include "tokenizer/chat.h"

enum { CHAT_MAX_STOPS = 4, CHAT_MAX_TOOLS = 128 };

struct chat_request {
    struct chat chat;
    struct sampling sampling;
    int max_tokens; /* 0: not given */
    const char *stops[CHAT_MAX_STOPS];
    int n_stops;
    bool stream, include_usage;

    /* Its own. */
    struct chat_message *messages; /* what chat.messages points to */
    struct chat_text *tools;
    struct chat_owned *owned; /* memory behind texts that had to be rewritten */
};

/* False with *err filled; chat_request_free is needed in either case. */
bool chat_request_read(struct chat_request *r, const struct json_value *root, const struct sampling *defaults, struct api_error *err);
void chat_request_free(struct chat_request *r);

#endif
