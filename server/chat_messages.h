/* The parts of a chat request that end up in the prompt: messages and tools. Used by chat_request.c. */
#ifndef QUERN_CHAT_MESSAGES_H
#define QUERN_CHAT_MESSAGES_H

#include "server/chat_request.h"

bool chat_read_messages(struct chat_request *r, const struct json_value *v, struct api_error *err);
bool chat_read_tools(struct chat_request *r, const struct json_value *v, struct api_error *err);

#endif
