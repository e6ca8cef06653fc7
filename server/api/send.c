#include "server/api/send.h"
#include "server/request/messages_error.h"

#include <string.h>

const char api_json_type[] = "application/json; charset=utf-8";

/* In the form of the API that was asked. */
static void write_error(struct json_writer *w, const struct exchange *x, const struct api_error *err)
{
    static const char messages[] = "/v1/messages";
    const char *path = exchange_path(x);
    size_t n = sizeof messages - 1;
    if (strncmp(path, messages, n) == 0 && (path[n] == '\0' || path[n] == '/'))
        messages_error_write(w, err);
    else
        api_error_write(w, err);
}

void api_send_error(struct exchange *x, const struct api_error *err)
{
    const char *headers = err->status == 401 ? "WWW-Authenticate: Bearer\r\n" : err->status == 503 ? "Retry-After: 1\r\n" : "";
    api_send_error_with(x, err, headers);
}

void api_send_error_with(struct exchange *x, const struct api_error *err, const char *headers)
{
    struct json_writer w = {0};
    write_error(&w, x, err);
    static const char fallback[] =
        "{\"error\":{\"message\":\"The server is out of memory.\",\"type\":\"server_error\",\"param\":null,\"code\":null}}";
    if (w.failed)
        exchange_reply(x, 503, headers, api_json_type, fallback, sizeof fallback - 1);
    else
        exchange_reply(x, err->status, headers, api_json_type, w.data, w.length);
    json_writer_free(&w);
}

void api_send_json(struct exchange *x, struct json_writer *w)
{
    api_send_status(x, 200, w);
}

void api_send_status(struct exchange *x, int status, struct json_writer *w)
{
    struct api_error err;
    if (w->failed) {
        api_out_of_memory(&err);
        api_send_error(x, &err);
    } else {
        exchange_reply(x, status, "", api_json_type, w->data, w->length);
    }
    json_writer_free(w);
}
