/* The parts of a chat request that end up in the prompt: messages and tools. Used by chat_request.c;
 * the second half also by APIs that have other shapes for the same things. */
#ifndef QUERN_CHAT_MESSAGES_H
#define QUERN_CHAT_MESSAGES_H

#include "server/request/chat_request.h"

bool chat_read_messages(struct chat_request *r, const struct json_value *v, struct api_error *err);
bool chat_read_tools(struct chat_request *r, const struct json_value *v, struct api_error *err);

/* ---- pieces, for every API that fills a struct chat_request ---- */

enum { CHAT_PATH_BYTES = 96 };

/* Where in the request something stands, "messages[3].content[0]"; cut if it is long. */
void chat_path(char out[CHAT_PATH_BYTES], const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Has chat_request_free free malloc'd memory. NULL if there is none, or if memory runs out (it is freed then). */
void *chat_own(struct chat_request *r, void *memory);

/* A tree as the template writes it. */
bool chat_rewrite(struct chat_request *r, const struct json_value *v, struct chat_text *out, struct api_error *err);

/* A call's arguments, v: an object, or a string of JSON. What the model wrote once may not be JSON, and a conversation must
 * survive that: such a string stays a string, which is what the template makes of it. */
bool chat_read_arguments(struct chat_request *r, const struct json_value *v, struct chat_text *out, struct api_error *err);

/* Refuses members of an object that are not in the list (NULL-terminated); null members are absent. */
bool chat_check_members(const struct json_value *object, const char *const *known, const char *path, struct api_error *err);

/* A string of 1 to 64 letters, digits, _ and -. */
bool chat_is_tool_name(const struct json_value *v);

#endif
