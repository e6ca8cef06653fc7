/* The parts of a request to /v1/responses that end up in the prompt: instructions,
 * input items and tools. Used by responses_request.c. */
#ifndef QUERN_RESPONSES_ITEMS_H
#define QUERN_RESPONSES_ITEMS_H

#include "server/request/chat_request.h"

/* instructions: NULL or the string. */
bool responses_read_input(
    struct chat_request *r, const struct json_value *instructions, const struct json_value *input, struct api_error *err);
bool responses_read_tools(struct chat_request *r, const struct json_value *v, struct api_error *err);

#endif
