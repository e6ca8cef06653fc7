/* From what a request asks of its answer's form (response_format, tools,
 * tool_choice) to the grammar that holds the generation to it. */
#ifndef QUERN_CONSTRAIN_H
#define QUERN_CONSTRAIN_H

#include "server/request/api_error.h"
#include "server/schema/schema.h"

struct constrain {
    enum schema_content content;     /* SCHEMA_CONTENT_TEXT: nothing is asked of it */
    const struct json_value *schema; /* SCHEMA_CONTENT_SCHEMA */
    const char *schema_param;        /* what an error in the schema names: "response_format" */
    const struct json_value *tools;  /* chat completions' array of {"type":"function","function":{...}},
                                      * checked already; NULL: none may be called */
    const char *tool_schema;         /* for other APIs' tools, {"name","strict"}: the member that holds
                                      * the schema; NULL: chat completions' */
    const char *named;               /* the only tool that may be called, and must be; NULL: any */
    bool must_call, one_call;
};

/* response_format: {"type":"text"}, {"type":"json_object"}, or
 * {"type":"json_schema","json_schema":{"name","schema","strict","description"}}.
 * The schema is enforced whether strict is true or not. False with a 400 in err. */
bool constrain_response_format(struct constrain *c, const struct json_value *v, struct api_error *err);

/* *out: the grammar, for grammar_free, or NULL where anything goes. Tools that are strict, or
 * must be called, are held to their parameters' schema, and one that cannot be enforced is a 400;
 * the others are held to it where it can be enforced, else to their name and a JSON object. */
bool constrain_build(const struct constrain *c, struct grammar **out, struct api_error *err);

#endif
