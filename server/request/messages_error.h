/* Errors as Anthropic's API has them: {"type":"error","error":{"type","message"}}, the type by the status; for
 * MESSAGES_NO_THREAD (server/request/messages_request.h) also "details":{"error_code","unsupported"}. */
#ifndef QUERN_MESSAGES_ERROR_H
#define QUERN_MESSAGES_ERROR_H

#include "server/request/api_error.h"

void messages_error_write(struct json_writer *w, const struct api_error *e);

#endif
