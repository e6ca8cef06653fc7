/* The body of POST /v1/responses, from JSON to what the tokenizer and the engine take.
 * Source of the shapes: OpenAI's API reference (responses).
 *
 * Fail closed, as in server/request/chat_request.h; null means absent, everywhere.
 *
 *   parameter                      what quern does with it
 *   input                          required: a string, or an array of items that is not empty
 *     message items                roles user, assistant, system, developer (the same as system); content a string or parts:
 *                                  input_text, output_text, refusal (its text)
 *     function_call                of the assistant's message before it, or one of its own
 *     function_call_output         output a string or input_text parts; call_id must name a call before it;
 *                                  parallel results are put into the order of the calls
 *     reasoning                    left out of the prompt: the model's template has no place for another model's reasoning
 *     other items                  400
 *     id, status, phase            of an item: accepted, they do not change the prompt
 *   instructions                   the system message; a system message of the input is one more, where it stands
 *   max_output_tokens              1 or more; without it, until the context is full
 *   tools                          functions; calls are held to their names and schemas as in chat
 *                                  completions; absent strict is not strict
 *   tool_choice                    "auto", "required", {"type":"function","name"}, or "none" (the tools
 *                                  are then left out of the prompt)
 *   parallel_tool_calls            false: the answer ends with its first call
 *   text.format, text.verbosity    text, json_object, json_schema (enforced, strict or not); only "medium"
 *   reasoning                      effort only "none", summary only "auto": there is none to sum up
 *   include                        [] or ["reasoning.encrypted_content"], which there never is
 *   store, metadata                accepted; nothing is stored and the answer says store false; metadata comes back in the answer
 *   truncation, background         only "disabled"; only false
 *   stream_options                 only include_obfuscation false
 *   top_logprobs                   only 0
 *   previous_response_id, prompt,
 *   conversation, moderation,
 *   context_management,
 *   max_tool_calls                 refused: nothing is stored, and there are no tools on this side
 *   temperature, top_p, stream, model, user and the other harmless ones of server/request/params.h;
 *   its top_k, min_p, seed, penalties, logit_bias and stop, as extensions
 *   anything else                  400, unknown_parameter */
#ifndef QUERN_RESPONSES_REQUEST_H
#define QUERN_RESPONSES_REQUEST_H

#include "server/request/chat_request.h"

struct responses_request {
    struct chat_request chat;
    /* What the answer says about the request: members of an object, in JSON, without the braces. Points nowhere.
     * Texts of more than 256 KiB together are left out. */
    struct json_writer echo;
};

/* As chat_request_read. */
bool responses_request_read(struct responses_request *r, const struct json_value *root, const struct sampling *defaults,
    int n_vocab, struct api_error *err);
void responses_request_free(struct responses_request *r);

#endif
