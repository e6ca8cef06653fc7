/* The body of POST /v1/messages and /v1/messages/count_tokens, from JSON to what the tokenizer and the engine take.
 * Source of the shapes: Anthropic's API reference (messages).
 *
 * Fail closed, as in server/request/chat_request.h; null means absent, everywhere.
 *
 *   parameter                      what quern does with it
 *   messages                       required, at least one; roles user, assistant, system; content a string or blocks
 *     text                         consecutive ones are joined by line feeds
 *     tool_use                     of an assistant: a call, of the assistant's message before it or of one of its own
 *     tool_result                  of a user: a message of role tool; tool_use_id must name a call before it;
 *                                  content a string or text blocks; with is_error "Error: " stands before it.
 *                                  Parallel results are put into the order of the calls
 *     thinking, redacted_thinking  left out of the prompt: the model's template has no place for another model's thinking
 *     image, document ...          400
 *     last message an assistant's  the answer continues that text, which may hold no calls;
 *                                  not together with a form for the whole answer
 *   max_tokens                     required (not for counting), 1 or more
 *   system                         a string or text blocks
 *   stop_sequences                 up to 16
 *   tools                          of type custom: name, description, input_schema, strict; calls are held to names and schemas
 *                                  as in chat completions; defer_loading only false
 *   tool_choice                    {"type"}: "auto", "any", "tool" with its name, or "none" (the tools are then left out
 *                                  of the prompt); disable_parallel_tool_use: one call at most
 *   output_config                  only its format: {"type":"json_schema","schema"}, which is enforced
 *   thinking                       only {"type":"disabled"}
 *   cache_control (everywhere),
 *   citations, caller, metadata,
 *   service_tier,
 *   eager_input_streaming          accepted and ignored: what is cached, and how it is billed, does not change the answer
 *   temperature, top_p, top_k, stream, model as in server/request/params.h; min_p, seed, penalties, logit_bias as extensions
 *   thread                         400: nothing is stored. With the error code that makes the official client go on without
 *   anything else                  400 */
#ifndef QUERN_MESSAGES_REQUEST_H
#define QUERN_MESSAGES_REQUEST_H

#include "server/request/chat_request.h"

/* The code of the error about the parameter thread: see messages_reply.h. */
#define MESSAGES_NO_THREAD "thread_unsupported_request"

struct messages_request {
    struct chat_request chat;
    struct chat_text prefill; /* what the answer continues; data NULL: nothing */
    const char *stops[ENGINE_MAX_STOPS];
    int n_stops;
};

/* As chat_request_read. counting: for count_tokens, which needs no max_tokens. */
bool messages_request_read(struct messages_request *r, const struct json_value *root, const struct sampling *defaults,
    int n_vocab, bool counting, struct api_error *err);
void messages_request_free(struct messages_request *r);

#endif
