/* Error objects as OpenAI's API has them: {"error":{"message","type","param","code"}}. */
#ifndef QUERN_API_ERROR_H
#define QUERN_API_ERROR_H

#include "server/json/json.h"

#include <stdbool.h>

struct api_error {
    int status;
    const char *code; /* static; NULL: null */
    char param[96];   /* "": null */
    char message[640];
};

/* Fills e; returns false, so that `return api_fail(...)` ends a function. param may be NULL. */
bool api_fail(struct api_error *e, int status, const char *code, const char *param, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* The usual ones, 400: */
bool api_wrong_type(struct api_error *e, const char *param, const char *wanted, const struct json_value *got);
bool api_wrong_value(struct api_error *e, const char *param, const char *must);
bool api_out_of_memory(struct api_error *e); /* 503 */

void api_error_write(struct json_writer *w, const struct api_error *e);

#endif
