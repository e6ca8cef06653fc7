#include "server/request/responses_items.h"
#include "server/request/chat_messages.h"
#include "server/request/turns.h"

#include <string.h>

static bool present(const struct json_value *v)
{
    return v && v->kind != JSON_NULL;
}

/* ---- content ---- */

/* Parts that are text, and where it stands in them. */
static const char *text_member(const struct json_value *type)
{
    if (json_is(type, "input_text") || json_is(type, "output_text") || json_is(type, "text"))
        return "text";
    return json_is(type, "refusal") ? "refusal" : NULL;
}

/* A string, or parts, which are joined by line feeds. */
static bool read_content(
    struct chat_request *r, const struct json_value *v, const char *path, struct chat_text *out, struct api_error *err)
{
    static const char *const known[] = {"type", "text", "refusal", "annotations", "logprobs", "prompt_cache_breakpoint", NULL};
    char param[CHAT_PATH_BYTES];
    struct json_writer w = {0};
    if (!present(v))
        return api_fail(err, 400, "missing_required_parameter", path, "Missing required parameter: '%s'.", path);
    if (v->kind == JSON_STRING) {
        *out = (struct chat_text){v->text, v->count};
        return true;
    }
    if (v->kind != JSON_ARRAY)
        return api_wrong_type(err, path, "a string or an array of parts", v);
    size_t i = 0;
    for (const struct json_value *p = v->first; p; p = p->next, i++) {
        chat_path(param, "%s[%zu]", path, i);
        const struct json_value *type = json_get(p, "type");
        bool ok = true;
        if (p->kind != JSON_OBJECT)
            ok = api_wrong_type(err, param, "an object", p);
        else if (!present(type) || type->kind != JSON_STRING)
            ok = api_fail(err, 400, "missing_required_parameter", param, "'%s' must have a type.", param);
        else if (!text_member(type))
            ok = api_fail(err, 400, "unsupported_content", param, "'%s' is of type \"%.32s\"; this model reads text only.", param,
                type->text);
        const struct json_value *text = ok ? json_get(p, text_member(type)) : NULL;
        if (ok && (!present(text) || text->kind != JSON_STRING))
            ok = api_fail(err, 400, "missing_required_parameter", param, "'%s' must have a %s, which is a string.", param,
                text_member(type));
        if (!ok || !chat_check_members(p, known, param, err)) {
            json_writer_free(&w);
            return false;
        }
        if (i > 0)
            json_raw(&w, "\n", 1);
        json_raw(&w, text->text, text->count);
    }
    return turns_text(r, &w, out, err);
}

/* ---- items ---- */

static bool read_message(struct turns *t, const struct json_value *v, const char *path, struct api_error *err)
{
    static const char *const known[] = {"type", "role", "content", "id", "status", "phase", NULL};
    static const struct {
        const char *name;
        enum chat_role role;
    } roles[] = {{"user", CHAT_USER}, {"assistant", CHAT_ASSISTANT}, {"system", CHAT_SYSTEM}, {"developer", CHAT_SYSTEM}};
    char param[CHAT_PATH_BYTES];
    struct chat_text text;
    const struct json_value *role = json_get(v, "role");
    size_t i = 0;
    while (i < sizeof roles / sizeof *roles && !json_is(role, roles[i].name))
        i++;
    chat_path(param, "%s.role", path);
    if (i == sizeof roles / sizeof *roles)
        return present(role)
                   ? api_wrong_value(err, param, "\"user\", \"assistant\", \"system\" or \"developer\"")
                   : api_fail(err, 400, "missing_required_parameter", param, "Missing required parameter: '%s'.", param);
    chat_path(param, "%s.content", path);
    return read_content(t->r, json_get(v, "content"), param, &text, err) && chat_check_members(v, known, path, err) &&
           turns_message(t, roles[i].role, text, err);
}

static bool read_call(struct turns *t, const struct json_value *v, const char *path, struct api_error *err)
{
    static const char *const known[] = {"type", "id", "call_id", "name", "arguments", "status", NULL};
    return chat_check_members(v, known, path, err) && turns_call(t, v, "call_id", "arguments", path, err);
}

static bool read_result(struct turns *t, const struct json_value *v, const char *path, struct api_error *err)
{
    static const char *const known[] = {"type", "id", "call_id", "output", "status", NULL};
    char param[CHAT_PATH_BYTES];
    struct chat_text text;
    chat_path(param, "%s.output", path);
    return chat_check_members(v, known, path, err) && read_content(t->r, json_get(v, "output"), param, &text, err) &&
           turns_result(t, v, "call_id", text, path, err);
}

static bool read_item(struct turns *t, const struct json_value *v, const char *path, struct api_error *err)
{
    char param[CHAT_PATH_BYTES];
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(err, path, "an object", v);
    const struct json_value *type = json_get(v, "type");
    chat_path(param, "%s.type", path);
    if (present(type) && type->kind != JSON_STRING)
        return api_wrong_type(err, param, "a string", type);
    if (!present(type) || json_is(type, "message"))
        return read_message(t, v, path, err);
    if (json_is(type, "function_call"))
        return read_call(t, v, path, err);
    if (json_is(type, "function_call_output"))
        return read_result(t, v, path, err);
    if (json_is(type, "reasoning"))
        return true;
    if (json_is(type, "item_reference"))
        return api_fail(err, 400, "unsupported_value", path,
            "'%s' refers to a stored item, and this server stores nothing: send the item itself.", path);
    return api_fail(err, 400, "unsupported_value", path,
        "'%s' is an item of type \"%.40s\"; this server takes message, function_call, function_call_output and reasoning.", path,
        type->text);
}

static bool read_items(
    struct turns *t, const struct json_value *instructions, const struct json_value *input, struct api_error *err)
{
    if (instructions && !turns_message(t, CHAT_SYSTEM, (struct chat_text){instructions->text, instructions->count}, err))
        return false;
    if (input->kind == JSON_STRING)
        return turns_message(t, CHAT_USER, (struct chat_text){input->text, input->count}, err) && turns_end(t, err);
    size_t i = 0;
    for (const struct json_value *v = input->first; v; v = v->next, i++) {
        char path[CHAT_PATH_BYTES];
        chat_path(path, "input[%zu]", i);
        if (!read_item(t, v, path, err))
            return false;
    }
    if (t->r->chat.n_messages == 0) /* nothing but reasoning */
        return api_wrong_value(err, "input", "an array with at least one message or call");
    return turns_end(t, err);
}

bool responses_read_input(
    struct chat_request *r, const struct json_value *instructions, const struct json_value *input, struct api_error *err)
{
    if (input->kind != JSON_STRING && input->kind != JSON_ARRAY)
        return api_wrong_type(err, "input", "a string or an array of items", input);
    if (input->kind == JSON_ARRAY && input->count == 0)
        return api_wrong_value(err, "input", "a string, or an array of at least one item");
    struct turns t;
    turns_init(&t, r);
    bool ok = read_items(&t, instructions, input, err);
    turns_free(&t);
    return ok;
}

/* ---- tools ---- */

static bool read_tool(struct chat_request *r, const struct json_value *v, const char *path, struct api_error *err)
{
    static const char *const known[] = {"type", "name", "description", "parameters", "strict", NULL};
    char param[CHAT_PATH_BYTES];
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(err, path, "an object", v);
    const struct json_value *type = json_get(v, "type"), *strict = json_get(v, "strict");
    chat_path(param, "%s.type", path);
    if (!present(type) || type->kind != JSON_STRING)
        return api_wrong_value(err, param, "\"function\"");
    if (!json_is(type, "function"))
        return api_fail(err, 400, "unsupported_value", param,
            "'%s' is \"%.40s\"; this server has no tools of its own, only functions that the client runs.", param, type->text);
    chat_path(param, "%s.strict", path);
    if (present(strict) && strict->kind != JSON_BOOL)
        return api_wrong_type(err, param, "a boolean", strict);
    return chat_check_members(v, known, path, err) && turns_tool(r, v, "parameters", path, err);
}

bool responses_read_tools(struct chat_request *r, const struct json_value *v, struct api_error *err)
{
    return turns_tools(r, v, read_tool, err);
}
