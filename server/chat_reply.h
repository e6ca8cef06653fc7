/* The answer to POST /v1/chat/completions, as one object or as a stream of chunks: from engine events to JSON.
 * Source of the shapes: OpenAI's API reference (chat.completion, chat.completion.chunk); `timings` is llama-server's. */
#ifndef QUERN_CHAT_REPLY_H
#define QUERN_CHAT_REPLY_H

#include "engine/engine.h"
#include "server/json.h"

#include <time.h>

struct chat_reply {
    char id[40];       /* "chatcmpl-..." */
    time_t created;
    const char *model; /* the name this server gives its model */
    bool include_usage;
};

/* A new id and the present time. */
void chat_reply_begin(struct chat_reply *r, const char *model, bool include_usage);

/* "stop" or "length". A generation that was cancelled while its client still listens (the server shuts down) was cut short too: "length". */
const char *chat_finish_name(enum finish_reason finish);

/* The whole answer. */
void chat_reply_whole(struct json_writer *w, const struct chat_reply *r, const char *text, size_t length, const struct engine_event *done);

/* Server-sent events, each "data: {...}\n\n". */
void chat_reply_role(struct json_writer *w, const struct chat_reply *r);
void chat_reply_text(struct json_writer *w, const struct chat_reply *r, const char *text, size_t length);
/* The chunk with the finish reason, the one with the usage if that was asked for, and "data: [DONE]". */
void chat_reply_end(struct json_writer *w, const struct chat_reply *r, const struct engine_event *done);

#endif
