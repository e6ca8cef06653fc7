/* The answer to POST /v1/chat/completions, as one object or as a stream of chunks.
 * Source of the shapes: OpenAI's API reference (chat.completion, chat.completion.chunk). */
#ifndef QUERN_CHAT_REPLY_H
#define QUERN_CHAT_REPLY_H

#include "server/api/reply.h"

/* The state of an answer with this schema is a malloc'd struct reply. */
extern const struct answer_schema chat_schema;

/* NULL: out of memory. */
struct reply *chat_reply_new(const char *model, bool include_usage, bool logprobs);

#endif
