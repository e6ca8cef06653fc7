/* The parts of a request to /v1/messages that end up in the prompt: system, messages and tools. Used by messages_request.c. */
#ifndef QUERN_MESSAGES_CONTENT_H
#define QUERN_MESSAGES_CONTENT_H

#include "server/request/chat_request.h"

/* system: NULL or the parameter's value. prefill: see messages_request.h. */
bool messages_read(struct chat_request *r, const struct json_value *system, const struct json_value *messages,
    struct chat_text *prefill, struct api_error *err);
bool messages_read_tools(struct chat_request *r, const struct json_value *v, struct api_error *err);

#endif
