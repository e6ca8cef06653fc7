/* The answer to POST /v1/messages, as one object or as a stream of events.
 * Source of the shapes: Anthropic's API reference.
 *
 * A stream: message_start; for each block content_block_start, content_block_delta ..., content_block_stop; message_delta with
 * the stop reason and the usage; message_stop. Between them ping, when nothing has come for a while. After a failure, or when the
 * server shuts down, an error event ends it.
 *
 * The stop reason is "end_turn", "stop_sequence" (with the one that was met), "tool_use", "max_tokens",
 * or "model_context_window_exceeded" when prompt and answer fill the context before that. In the usage,
 * input_tokens are those of the prompt that were computed and cache_read_input_tokens those that were not, as Anthropic counts
 * them (message_start comes before that is known, and counts all as input_tokens; message_delta tells); nothing is billed for
 * being kept, so cache_creation_input_tokens is 0. */
#ifndef QUERN_MESSAGES_REPLY_H
#define QUERN_MESSAGES_REPLY_H

#include "server/api/answer.h"
#include "server/request/messages_request.h"

struct messages_reply;

extern const struct answer_schema messages_schema; /* its state is a struct messages_reply */

/* NULL: out of memory. */
struct messages_reply *messages_reply_new(const char *model, const struct messages_request *r);

#endif
