/* The answer to POST /v1/responses, as one object or as a stream of events.
 * Source of the shapes: OpenAI's API reference (responses, streaming events).
 *
 * A stream:   response.created, response.in_progress, the output items, and response.completed,
 *             response.incomplete or response.failed.
 * A message:  response.output_item.added, response.content_part.added, response.output_text.delta ...,
 *             response.output_text.done, response.content_part.done, response.output_item.done.
 * A call:     response.output_item.added, response.function_call_arguments.delta ...,
 *             response.function_call_arguments.done, response.output_item.done.
 *
 * There is always an item; a message without text if there is nothing else. An item that was cut short, and a call whose
 * arguments are not JSON, has the status "incomplete". A response that the limit (max_output_tokens, or the context's end) cut
 * short is incomplete with the reason "max_output_tokens". When the server shuts down under a stream, the response fails. */
#ifndef QUERN_RESPONSES_REPLY_H
#define QUERN_RESPONSES_REPLY_H

#include "server/api/answer.h"

struct responses_reply;

extern const struct answer_schema responses_schema; /* its state is a struct responses_reply */

/* Takes the echo (see responses_request.h), which is empty afterwards. NULL: out of memory. */
struct responses_reply *responses_reply_new(const char *model, struct json_writer *echo);

#endif
