/* The body of POST /v1/chat/completions, from JSON to what the tokenizer and the engine take.
 *
 * Fail closed: a parameter is carried out, or it is refused with a 400 that names it.
 * Nothing is silently ignored but what the table calls harmless.
 * null means absent, everywhere.
 *
 *   parameter                                     what quern does with it
 *   messages                                      required, at least one; roles system,
 *                                                 developer (the same), user, assistant, tool
 *     .content                                    a string, or text parts (joined by line feeds);
 *                                                 null for an assistant that calls tools
 *     .tool_calls, .tool_call_id, .refusal        of an assistant or tool message: rendered; accepted; only null
 *   max_tokens, max_completion_tokens             1 or more; both only if equal; without them, until the context is full
 *   tools                                         functions; rendered into the prompt as Qwen2.5's template does;
 *                                                 calls are held to their names and schemas
 *   tool_choice                                   "auto", "required", a named function, or "none" (the tools are
 *                                                 then left out of the prompt)
 *   parallel_tool_calls                           false: the answer ends with its first call
 *   logprobs, top_logprobs                        a boolean, 0..20: engine/logprobs.h says of what
 *   response_format                               text, json_object, json_schema: server/request/constrain.h;
 *                                                 the schema is enforced, strict or not
 *   modalities, verbosity, reasoning_effort       only at the value that changes nothing: ["text"], "medium", "none"
 *   those in server/request/params.h                      as they are told there
 *   anything else                                 400, unknown_parameter
 *
 * Ownership: a request points into the JSON tree it was read from, which must outlive it. */
#ifndef QUERN_CHAT_REQUEST_H
#define QUERN_CHAT_REQUEST_H

#include "server/request/params.h"
#include "tokenizer/chat.h"

enum { CHAT_MAX_TOOLS = 128 };

struct chat_request {
    struct chat chat;
    struct params params;
    int max_tokens; /* 0: not given */
    bool logprobs;
    int top_logprobs;
    const struct chat_text *tool_names; /* [chat.n_tools] */
    bool one_call;  /* parallel_tool_calls is false */
    struct grammar *grammar; /* what the answer is held to, or NULL; its own */

    /* Its own. */
    struct chat_message *messages; /* what chat.messages points to */
    struct chat_text *tools, *names;
    struct chat_owned *owned; /* memory behind texts that had to be rewritten */
};

/* n_vocab: token ids in the request must be below it. False with *err filled; chat_request_free is needed in either case. */
bool chat_request_read(
    struct chat_request *r, const struct json_value *root, const struct sampling *defaults, int n_vocab, struct api_error *err);
void chat_request_free(struct chat_request *r);

#endif
