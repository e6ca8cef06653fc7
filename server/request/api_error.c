#include "server/request/api_error.h"

#include <stdarg.h>
#include <stdio.h>

bool api_fail(struct api_error *e, int status, const char *code, const char *param, const char *format, ...)
{
    e->status = status;
    e->code = code;
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
    va_list args;
    va_start(args, format);
    vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
    return false;
}

bool api_wrong_type(struct api_error *e, const char *param, const char *wanted, const struct json_value *got)
{
    return api_fail(
        e, 400, "invalid_type", param, "Invalid type for '%s': expected %s, got %s.", param, wanted, json_kind_name(got->kind));
}

bool api_wrong_value(struct api_error *e, const char *param, const char *must)
{
    return api_fail(e, 400, "invalid_value", param, "Invalid value for '%s': it must be %s.", param, must);
}

bool api_out_of_memory(struct api_error *e)
{
    return api_fail(e, 503, "out_of_memory", NULL, "The server is out of memory.");
}

void api_error_write(struct json_writer *w, const struct api_error *e)
{
    json_begin_object(w);
    json_key(w, "error");
    json_begin_object(w);
    json_key(w, "message");
    json_text(w, e->message);
    json_key(w, "type");
    json_text(w, e->status >= 500 ? "server_error" : "invalid_request_error");
    json_key(w, "param");
    json_text(w, e->param[0] ? e->param : NULL);
    json_key(w, "code");
    json_text(w, e->code);
    json_end_object(w);
    json_end_object(w);
}
