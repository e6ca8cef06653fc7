/* Whole answers: JSON that has been written, or an error in the form of the API that was asked. */
#ifndef QUERN_SEND_H
#define QUERN_SEND_H

#include "server/http/net.h"
#include "server/json/json.h"
#include "server/request/api_error.h"

extern const char api_json_type[]; /* the media type */

void api_send_error(struct exchange *x, const struct api_error *err);
/* headers: lines that end with CR LF, instead of those that go with the status. */
void api_send_error_with(struct exchange *x, const struct api_error *err, const char *headers);
/* Sends what was written, with 200, or 503 if memory ran out; frees the writer. */
void api_send_json(struct exchange *x, struct json_writer *w);
/* The same with another status. */
void api_send_status(struct exchange *x, int status, struct json_writer *w);

#endif
