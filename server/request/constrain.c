#include "server/request/constrain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool present(const struct json_value *v)
{
    return v && v->kind != JSON_NULL;
}

static bool unknown_member(const struct json_value *object, const char *const *known, const char *path, struct api_error *err)
{
    for (const struct json_value *m = object->first; m; m = m->next) {
        size_t i = 0;
        while (known[i] && !json_key_is(m, known[i]))
            i++;
        if (!known[i])
            return !api_fail(err, 400, "unknown_parameter", "response_format", "Unknown parameter: '%s.%.64s'.", path, m->key);
    }
    return false;
}

static bool is_format_name(const struct json_value *v)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    return v->kind == JSON_STRING && v->count > 0 && v->count <= 64 && strspn(v->text, letters) == v->count;
}

static bool read_json_schema(struct constrain *c, const struct json_value *v, struct api_error *err)
{
    static const char *const known[] = {"name", "description", "schema", "strict", NULL};
    if (!v || v->kind != JSON_OBJECT)
        return api_fail(err, 400, "missing_required_parameter", "response_format",
            "Missing required parameter: 'response_format.json_schema' (an object).");
    const struct json_value *name = json_get(v, "name"), *strict = json_get(v, "strict"),
                            *description = json_get(v, "description");
    const struct json_value *schema = json_get(v, "schema");
    if (unknown_member(v, known, "response_format.json_schema", err))
        return false;
    if (!name || !is_format_name(name))
        return api_fail(err, 400, "invalid_value", "response_format",
            "'response_format.json_schema.name' must be a string of 1 to 64 letters, digits, _ and -.");
    if (present(strict) && strict->kind != JSON_BOOL)
        return api_fail(err, 400, "invalid_type", "response_format", "'response_format.json_schema.strict' must be a boolean.");
    if (present(description) && description->kind != JSON_STRING)
        return api_fail(
            err, 400, "invalid_type", "response_format", "'response_format.json_schema.description' must be a string.");
    if (!present(schema))
        return api_fail(err, 400, "missing_required_parameter", "response_format",
            "Missing required parameter: 'response_format.json_schema.schema'.");
    c->content = SCHEMA_CONTENT_SCHEMA;
    c->schema = schema;
    c->schema_param = "response_format";
    return true;
}

bool constrain_response_format(struct constrain *c, const struct json_value *v, struct api_error *err)
{
    static const char *const known[] = {"type", NULL}, *const known_schema[] = {"type", "json_schema", NULL};
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(err, "response_format", "an object", v);
    const struct json_value *type = json_get(v, "type");
    bool schema = json_is(type, "json_schema");
    if (!json_is(type, "text") && !json_is(type, "json_object") && !schema)
        return api_fail(err, 400, "invalid_value", "response_format",
            "'response_format.type' must be \"text\", \"json_object\" or \"json_schema\".");
    if (unknown_member(v, schema ? known_schema : known, "response_format", err))
        return false;
    if (schema)
        return read_json_schema(c, json_get(v, "json_schema"), err);
    c->content = json_is(type, "text") ? SCHEMA_CONTENT_TEXT : SCHEMA_CONTENT_OBJECT;
    return true;
}

/* ---- building ---- */

static bool fail_schema(const struct schema_error *problem, const char *param, struct api_error *err)
{
    return api_fail(err, 400, "invalid_schema", param, "Invalid schema for '%s': %s (at '%s').", param, problem->text,
        problem->pointer[0] ? problem->pointer : "#");
}

/* Is this schema one that can be enforced by itself? */
static bool enforceable(const struct json_value *schema)
{
    struct schema_error ignored;
    struct grammar *g = schema_compile(schema, &ignored);
    grammar_free(g);
    return g != NULL;
}

static bool build_with_tools(
    const struct constrain *c, struct schema_tool *tools, size_t *index, struct grammar **out, struct api_error *err)
{
    struct schema_answer a = {.tools = tools, .parallel = !c->one_call && !c->named,
                              .content = c->must_call || c->named ? SCHEMA_CONTENT_NONE : c->content, .schema = c->schema};
    size_t i = 0;
    for (const struct json_value *t = c->tools->first; t; t = t->next, i++) {
        const struct json_value *f = c->tool_schema ? t : json_get(t, "function"), *name = json_get(f, "name"),
                                *strict = json_get(f, "strict");
        const struct json_value *parameters = json_get(f, c->tool_schema ? c->tool_schema : "parameters");
        if (c->named && !json_is(name, c->named))
            continue;
        bool must = c->must_call || c->named || (strict && strict->kind == JSON_BOOL && strict->count);
        index[a.n_tools] = i;
        tools[a.n_tools++] =
            (struct schema_tool){name->text, present(parameters) && (must || enforceable(parameters)) ? parameters : NULL};
    }
    if (a.n_tools == 0)
        return api_fail(err, 400, "invalid_value", "tool_choice", "'tool_choice' names '%.64s', which is not among the tools.",
            c->named ? c->named : "");
    struct schema_error problem;
    *out = schema_answer(&a, &problem);
    if (*out)
        return true;
    char param[64];
    snprintf(param, sizeof param, "tools[%zu].%s",
        problem.document >= 0 && (size_t)problem.document < a.n_tools ? index[problem.document] : 0,
        c->tool_schema ? c->tool_schema : "function.parameters");
    return fail_schema(&problem, problem.document < 0 ? c->schema_param : param, err);
}

bool constrain_build(const struct constrain *c, struct grammar **out, struct api_error *err)
{
    struct schema_error problem;
    *out = NULL;
    if (c->tools && c->tools->count > 0) {
        struct schema_tool *tools = malloc(c->tools->count * sizeof *tools);
        size_t *index = malloc(c->tools->count * sizeof *index);
        bool ok = tools && index ? build_with_tools(c, tools, index, out, err) : api_out_of_memory(err);
        free(tools);
        free(index);
        return ok;
    }
    if (c->content != SCHEMA_CONTENT_OBJECT && c->content != SCHEMA_CONTENT_SCHEMA)
        return true;
    *out = c->content == SCHEMA_CONTENT_OBJECT ? schema_any_object(&problem) : schema_compile(c->schema, &problem);
    return *out || fail_schema(&problem, c->schema_param ? c->schema_param : "response_format", err);
}
