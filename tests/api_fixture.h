/* Requests to a running server and their answers as JSON, for tests/test_api_*.c. Every failure ends the test. */
#ifndef QUERN_API_FIXTURE_H
#define QUERN_API_FIXTURE_H

#include "server/json/json.h"
#include "tests/server_fixture.h"

#define CHAT "/v1/chat/completions"
#define OK_MESSAGE "\"messages\":[{\"role\":\"user\",\"content\":\"Say OK\"}]"
#define STORY "\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story about a cat and a ball.\"}]"

/* POSTs the body and wants a 200. json_free it. */
struct json *api_post(int port, const char *path, const char *body);
/* GETs the path and wants a 200. */
struct json *api_get(int port, const char *path);
/* Wants a 400 of that parameter, named in the message too. */
void api_refused(int port, const char *path, const char *body, const char *param);

/* What stands at the path ("choices.0.text"); it must be there and of that kind. */
const char *text_at(const struct json *j, const char *path);
int64_t int_at(const struct json *j, const char *path);
double number_at(const struct json *j, const char *path);
/* The value at a path written as printf does, or NULL. */
const struct json_value *value_at(const struct json *j, const char *format, ...) __attribute__((format(printf, 2, 3)));

enum { MAX_EVENTS = 2048 };

/* A stream's data events, without [DONE], which must be the last. */
struct event_list {
    struct json *events[MAX_EVENTS];
    int n;
};

struct event_list api_stream(int port, const char *path, const char *body);
/* A stream of named events, without [DONE]: each has the name as its data's "type" too. */
struct event_list api_named_stream(int port, const char *path, const char *body);
/* The same, of a slow server of its own that is told to end once the text has come, and must exit with 0. */
struct event_list api_cut_stream(const char *path, const char *body, const char *text);
void event_list_free(struct event_list *l);

#endif
