/* Conversations that come as items or as content blocks, where a call and its result each have a place of their own,
 * put into the messages and tools of a chat request.
 *
 *   - A call belongs to the assistant's message before it, or begins one.
 *   - A result is a message of role tool and must name the id of a call before it. The model's template has no ids: it takes
 *     results to stand in the order of the calls, so results that follow one another are put into that order.
 *
 * Used by responses_request.c and messages_request.c, whose requests share struct chat_request with the chat API:
 * chat_request_free frees everything but struct turns itself. */
#ifndef QUERN_TURNS_H
#define QUERN_TURNS_H

#include "server/request/chat_request.h"

/* More than any context has room for; a bound on the time it takes to find their results. */
enum { TURNS_MAX_CALLS = 4096 };

struct turn_call {
    struct chat_tool_call call;
    const struct json_value *id;
    size_t message; /* index of the assistant's message */
};

struct turns {
    struct chat_request *r;
    size_t capacity;         /* of r->messages */
    size_t *order;           /* [capacity] of a result: the index of its call */
    struct turn_call *calls; /* [n_calls] of the whole conversation */
    size_t n_calls, calls_capacity;
};

void turns_init(struct turns *t, struct chat_request *r);
void turns_free(struct turns *t);

/* A message of its own. The text lives as long as the request. */
bool turns_message(struct turns *t, enum chat_role role, struct chat_text text, struct api_error *err);
/* path: where the call stands, for errors; id_name: what its member with the id is called.
 * arguments: an object, or a string of JSON. */
bool turns_call(struct turns *t, const struct json_value *item, const char *id_name, const char *arguments_name, const char *path,
    struct api_error *err);
bool turns_result(struct turns *t, const struct json_value *item, const char *id_name, struct chat_text text, const char *path,
    struct api_error *err);
/* After all of them: r->chat is ready. */
bool turns_end(struct turns *t, struct api_error *err);

/* Text gathered in a writer with json_raw, as the content of a message; the writer is empty afterwards. */
bool turns_text(struct chat_request *r, struct json_writer *w, struct chat_text *out, struct api_error *err);

/* The tools of a request, each by read_tool, which ends in turns_tool. path: where a tool stands, for errors. */
typedef bool turns_read_tool(struct chat_request *r, const struct json_value *tool, const char *path, struct api_error *err);
bool turns_tools(struct chat_request *r, const struct json_value *tools, turns_read_tool *read_tool, struct api_error *err);
/* The members of a tool: name, description, and the schema under the name given. */
bool turns_tool(
    struct chat_request *r, const struct json_value *tool, const char *schema_name, const char *path, struct api_error *err);

#endif
