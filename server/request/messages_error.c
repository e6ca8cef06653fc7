#include "server/request/messages_error.h"
#include "server/request/messages_request.h"

#include <string.h>

static const char *error_type(int status)
{
    static const struct {
        int status;
        const char *type;
    } types[] = {{401, "authentication_error"}, {403, "permission_error"}, {404, "not_found_error"}, {408, "timeout_error"},
                 {413, "request_too_large"},    {429, "rate_limit_error"}, {503, "overloaded_error"}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].status == status)
            return types[i].type;
    return status >= 500 ? "api_error" : "invalid_request_error";
}

void messages_error_write(struct json_writer *w, const struct api_error *e)
{
    json_begin_object(w);
    json_key(w, "type");
    json_text(w, "error");
    json_key(w, "error");
    json_begin_object(w);
    json_key(w, "type");
    json_text(w, error_type(e->status));
    json_key(w, "message");
    json_text(w, e->message);
    if (e->code && strcmp(e->code, MESSAGES_NO_THREAD) == 0) {
        json_key(w, "details");
        json_begin_object(w);
        json_key(w, "error_code");
        json_text(w, e->code);
        json_key(w, "unsupported");
        json_begin_array(w);
        json_text(w, e->param);
        json_end_array(w);
        json_end_object(w);
    }
    json_end_object(w);
    json_end_object(w);
}
